// SPDX-License-Identifier: GPL-2.0

//! How a model is checked, and how it is seen that a check can fail.

use core::sync::atomic::without;
use core::sync::atomic::Wanted;
use kernel::processors;
use loom::model::Builder;
use std::panic::catch_unwind;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::Arc;

/// Checks a model in every execution in which threads are interrupted at most `interruptions` times.
pub(crate) fn check_within(interruptions: Option<usize>, model: fn()) {
    let mut builder = Builder::new();
    // How long an execution may be.
    builder.max_branches = 20_000;
    builder.preemption_bound = interruptions;
    let executions = Arc::new(AtomicUsize::new(0));
    builder.check({
        let executions = Arc::clone(&executions);
        move || {
            executions.fetch_add(1, Relaxed);
            processors::start();
            model();
        }
    });
    println!("{} executions", executions.load(Relaxed));
}

/// Checks a model in every execution.
pub(crate) fn check(model: fn()) {
    check_within(None, model);
}

/// What a model says, or the checker, when a promise is broken.
const BROKEN: [&str; 4] = [
    "Causality violation",
    "is lost",
    "stale data",
    "a request goes to",
];

/// Sees to it that a model fails, because it breaks a promise.
pub(crate) fn fails(what: &str, model: fn()) {
    let checked = catch_unwind(AssertUnwindSafe(|| check_within(Some(4), model)));
    let failure = checked.expect_err(&format!("nobody notices {what}"));
    let message = failure.downcast_ref::<String>().expect("a text");
    let broken = BROKEN.iter().any(|words| message.contains(words));
    assert!(broken, "{what} is noticed by another failure: {message}");
}

/// Sees to it that a model fails when some order is left out.
pub(crate) fn fails_without(wanted: Wanted, model: fn()) {
    without(wanted, || {
        fails(&format!("that {wanted:?} is left out"), model)
    });
}

/// Sees to it that a model fails when grace periods wait for nothing.
pub(crate) fn fails_without_grace_periods(model: fn()) {
    processors::without_grace_periods(|| fails("that grace periods are left out", model));
}
