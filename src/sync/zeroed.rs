// SPDX-License-Identifier: GPL-2.0

//! Large values made in place from zeroed memory, without a detour over the stack.

use crate::remap::records::Chunk;
use crate::remap::records::States;
use crate::sync::rcu::Once;
use kernel::alloc::Flags;
use kernel::prelude::*;
use pin_init::Zeroable;

/// The number of values that a [`Page`] leads to.
pub(crate) const FAN_OUT: usize = 256;

/// Pointers to the records of 65536 slots: 4096 bytes.
#[repr(C)]
pub(crate) struct Page {
    /// The records of the slots.
    pub(crate) chunks: [Once<Chunk>; FAN_OUT],
    /// Their states.
    pub(crate) states: [Once<States>; FAN_OUT],
}

// SAFETY: The type consists of atomic integers, for which zero is a value.
unsafe impl Zeroable for Chunk {}
// SAFETY: The type consists of atomic integers, for which zero is a value.
unsafe impl Zeroable for States {}
// SAFETY: The type consists of `Once`, which is a pointer that may be null.
unsafe impl Zeroable for Page {}

/// Makes a value of zeroes.
pub(crate) fn boxed<T: Zeroable>(flags: Flags) -> Result<KBox<T>> {
    KBox::init(pin_init::init_zeroed::<T>(), flags)
}
