// SPDX-License-Identifier: GPL-2.0

//! Counters that every processor keeps for itself.
//!
//! Counting is one instruction on memory that no other processor writes, so it may be done for every
//! request. Reading a counter adds up what all processors have and is meant for rare use.
//!
//! C header: [`include/linux/percpu.h`](srctree/include/linux/percpu.h)

use crate::bindings;
use core::ptr::NonNull;
use kernel::prelude::*;

/// An array of `N` counters on each processor.
///
/// # Invariants
///
/// `base` is a per-CPU pointer to `N` zero-initialised `u64`, which this object owns. The values are
/// only changed by increments on the processor that they belong to.
pub(crate) struct Counters<const N: usize> {
    base: NonNull<u64>,
}

// SAFETY: The allocation belongs to no thread and may be freed from any.
unsafe impl<const N: usize> Send for Counters<N> {}
// SAFETY: Increments are single instructions on the data of the processor that runs them, and sums
// read with `READ_ONCE`.
unsafe impl<const N: usize> Sync for Counters<N> {}

impl<const N: usize> Counters<N> {
    /// Allocates the counters, all of them zero.
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: An allocation has no requirements on its caller but to be able to sleep, which is
        // that of every `GFP_KERNEL` allocation.
        let base = unsafe {
            bindings::dm_remap_alloc_percpu(core::mem::size_of::<[u64; N]>(), CACHE_LINE)
        };
        // INVARIANT: A non-null result of `__alloc_percpu` is a zeroed per-CPU area of that size.
        Ok(Self {
            base: NonNull::new(base.cast()).ok_or(ENOMEM)?,
        })
    }

    /// Counts one more in counter `index` of the `LEN` ones from `FIRST` on; an index of `LEN` or more counts nothing.
    #[inline(always)]
    pub(crate) fn increment<const FIRST: usize, const LEN: usize>(&self, index: usize) {
        const { assert!(FIRST + LEN <= N) };
        if index < LEN {
            // SAFETY: The area has `N` counters by the type invariant, and `FIRST` plus `index` is less.
            unsafe { increment::<FIRST>(self.base, index) };
        }
    }

    /// What all processors together have counted in counter `index`, 0 for an index of `N` or more.
    ///
    /// Increments that run at the same time may be in the sum or not.
    pub(crate) fn sum(&self, index: usize) -> u64 {
        if index >= N {
            return 0;
        }
        // SAFETY: The area has `N` counters by the type invariant, and `index` is less.
        let counter = unsafe { self.base.add(index) };
        // SAFETY: `counter` is one of this object's per-CPU counters.
        unsafe { bindings::dm_remap_percpu_sum(counter.as_ptr()) }
    }
}

impl<const N: usize> Drop for Counters<N> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant this object owns the area, and nothing uses it any more.
        unsafe { bindings::free_percpu(self.base.as_ptr().cast()) };
    }
}

/// The alignment of the counters, so that two devices share no cache line.
const CACHE_LINE: usize = 64;

/// `this_cpu_inc()` for a `u64`: the one `FIRST` and `index` behind that at `base`.
///
/// # Safety
///
/// `base` is a per-CPU pointer to live `u64`, more than `FIRST` plus `index`, that are changed in no other way.
#[cfg(all(target_arch = "x86_64", CONFIG_SMP))]
#[inline(always)]
unsafe fn increment<const FIRST: usize>(base: NonNull<u64>, index: usize) {
    // SAFETY: On x86-64 a per-CPU pointer is an offset from the segment base GS, so this increments
    // the counter of the running processor. It is one instruction, which no interrupt and no
    // preemption can divide.
    unsafe {
        core::arch::asm!(
            "inc qword ptr gs:[{} + {} * 8 + {} * 8]",
            in(reg) base.as_ptr(),
            in(reg) index,
            const FIRST,
            options(nostack),
        );
    }
}

/// `this_cpu_inc()` for a `u64`: the one `FIRST` and `index` behind that at `base`.
///
/// # Safety
///
/// `base` is a per-CPU pointer to live `u64`, more than `FIRST` plus `index`, that are changed in no other way.
#[cfg(not(all(target_arch = "x86_64", CONFIG_SMP)))]
#[inline(always)]
unsafe fn increment<const FIRST: usize>(base: NonNull<u64>, index: usize) {
    // SAFETY: By the requirements of this function.
    let counter = unsafe { base.add(FIRST + index) };
    // SAFETY: As above.
    unsafe { bindings::dm_remap_percpu_inc(counter.as_ptr()) };
}
