// SPDX-License-Identifier: GPL-2.0

//! `DeferredStack` and `DeferredList` of `src/dm/request.rs`: what is put onto the stack is taken off it once, whole, and in the
//! order in which each processor has put it there.

use crate::bindings::bio;
use crate::block::status::Status;
use crate::dm::defer;
use crate::dm::request::Deferred;
use crate::dm::request::DeferredList;
use crate::dm::request::DeferredStack;
use crate::machine::check;
use crate::machine::check_within;
use crate::machine::fails_without;
use core::sync::atomic::Wanted;
use kernel::processors::spawn;
use loom::sync::Arc as Shared;
use loom::thread::yield_now;

/// A stack, and the clones that are put onto it: each has its number as its first sector.
struct Failed {
    stack: DeferredStack,
    clones: Vec<bio>,
}

// SAFETY: The checker runs all threads of a model on one of the machine, one at a time.
unsafe impl Send for Failed {}
// SAFETY: As above.
unsafe impl Sync for Failed {}

impl Failed {
    fn new(requests: u64) -> Shared<Self> {
        let failed = Self {
            stack: DeferredStack::new(),
            clones: (0..requests)
                .map(|number| bio::new(true, number, 8))
                .collect(),
        };
        failed.stack.move_to(&mut DeferredList::new());
        Shared::new(failed)
    }

    /// `end_io` of a request that has failed: its tag is filled in, and it goes onto the stack.
    fn fail(&self, number: usize) {
        self.stack.push(defer(&self.clones[number], 100 + number));
    }

    /// Takes requests off the stack until there were `count`, and ends them.
    fn work(&self, count: usize) -> Vec<usize> {
        let mut list = DeferredList::new();
        let mut seen = Vec::new();
        while seen.len() < count {
            self.stack.move_to(&mut list);
            if list.is_empty() {
                yield_now();
            }
            while let Some(request) = list.pop() {
                seen.push(end(request));
            }
        }
        seen
    }
}

/// Ends a request, and returns its number.
fn end(request: Deferred) -> usize {
    let number = request.sector() as usize;
    assert_eq!(request.tag(), 100 + number, "a request is not whole");
    request.complete(Status::IO_ERROR);
    number
}

/// Two processors fail two requests and one while the worker takes them.
fn three_failures() {
    let failed = Failed::new(3);
    let processors = [&[0, 1][..], &[2]].map(|numbers| {
        let failed = Shared::clone(&failed);
        spawn(1 + numbers[0] / 2, move || {
            numbers.iter().for_each(|number| failed.fail(*number));
        })
    });
    let seen = failed.work(3);
    processors.map(|processor| processor.join().unwrap());
    let ended = failed.clones.iter().map(|clone| clone.ended.get());
    assert!(ended.eq([1, 1, 1]), "a request is lost");
    let mine = seen.iter().filter(|number| **number < 2);
    assert!(mine.eq(&[0, 1]), "a request overtakes one that came before");
}

/// What is on the stack when it goes ends as well.
fn dropped() {
    let clones = [0, 1].map(|number| bio::new(false, number, 8));
    let stack = DeferredStack::new();
    for clone in &clones {
        stack.push(defer(clone, 0));
    }
    drop(stack);
    assert!(clones.iter().all(|clone| clone.ended.get() == 1));
}

#[test]
fn no_request_is_lost_or_ends_twice() {
    check_within(Some(3), three_failures);
}

#[test]
fn the_stack_ends_what_it_has() {
    check(dropped);
}

#[test]
fn the_stack_needs_its_orders() {
    fails_without(Wanted::Exchange("AtomicPtr"), three_failures);
    fails_without(Wanted::Swap("AtomicPtr"), three_failures);
}
