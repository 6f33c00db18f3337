// SPDX-License-Identifier: GPL-2.0

//! `src/sync`.

#[path = "../../../src/sync/percpu.rs"]
pub(crate) mod percpu;
#[path = "../../../src/sync/rcu.rs"]
pub(crate) mod rcu;
pub(crate) mod zeroed;

/// A random number.
pub(crate) fn random() -> u64 {
    0
}
