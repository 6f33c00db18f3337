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
/// only changed by single instructions on the processor that they belong to.
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

    /// The same for `value` more. Counters wrap around.
    #[inline(always)]
    pub(crate) fn add<const FIRST: usize, const LEN: usize>(&self, index: usize, value: u64) {
        const { assert!(FIRST + LEN <= N) };
        if index < LEN {
            // SAFETY: As in `increment`.
            unsafe { add::<FIRST>(self.base, index, value) };
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

/// Picks one of many events on each processor, evenly.
///
/// # Invariants
///
/// `left` is a per-CPU pointer to a `u64`, which this object owns: how many events are left out before the next one is
/// picked on that processor.
pub(crate) struct Sampler {
    left: NonNull<u64>,
}

// SAFETY: As for `Counters`.
unsafe impl Send for Sampler {}
// SAFETY: As for `Counters`: the values are changed by the processor that they belong to, by single instructions.
unsafe impl Sync for Sampler {}

impl Sampler {
    /// A sampler that picks the first event on each processor.
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: As in `Counters::new`.
        let left =
            unsafe { bindings::dm_remap_alloc_percpu(core::mem::size_of::<u64>(), CACHE_LINE) };
        // INVARIANT: A non-null result of `__alloc_percpu` is a zeroed per-CPU area of that size.
        Ok(Self {
            left: NonNull::new(left.cast()).ok_or(ENOMEM)?,
        })
    }

    /// Whether to pick this event: one of `PERIOD` on each processor.
    #[inline(always)]
    pub(crate) fn picks<const PERIOD: u64>(&self) -> bool {
        // SAFETY: By the type invariant.
        let passed = unsafe { decrement(self.left) };
        if passed {
            // SAFETY: By the type invariant. An event that comes between the two instructions is picked, too, and one that
            // moves to another processor there leaves this one out: the choice is as even as before.
            unsafe { bindings::dm_remap_percpu_set(self.left.as_ptr(), PERIOD - 1) };
        }
        passed
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        // SAFETY: By the type invariant this object owns the area, and nothing uses it any more.
        unsafe { bindings::free_percpu(self.left.as_ptr().cast()) };
    }
}

/// `this_cpu_dec()` for a `u64`, and whether it passed zero.
///
/// # Safety
///
/// `counter` is a per-CPU pointer to a live `u64` that is changed in no other way than by this and by `this_cpu_write()`.
#[cfg(all(target_arch = "x86_64", CONFIG_SMP))]
#[inline(always)]
unsafe fn decrement(counter: NonNull<u64>) -> bool {
    let passed: u8;
    // SAFETY: As for `increment`.
    unsafe {
        core::arch::asm!(
            "sub qword ptr gs:[{}], 1",
            "setc {}",
            in(reg) counter.as_ptr(),
            out(reg_byte) passed,
            options(nostack),
        );
    }
    passed != 0
}

/// `this_cpu_dec()` for a `u64`, and whether it passed zero.
///
/// # Safety
///
/// `counter` is a per-CPU pointer to a live `u64` that is changed in no other way than by this and by `this_cpu_write()`.
#[cfg(not(all(target_arch = "x86_64", CONFIG_SMP)))]
#[inline(always)]
unsafe fn decrement(counter: NonNull<u64>) -> bool {
    // SAFETY: By the requirements of this function.
    unsafe { bindings::dm_remap_percpu_dec(counter.as_ptr()) == u64::MAX }
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

/// `this_cpu_add()` for the same.
///
/// # Safety
///
/// As for [`increment`].
#[cfg(all(target_arch = "x86_64", CONFIG_SMP))]
#[inline(always)]
unsafe fn add<const FIRST: usize>(base: NonNull<u64>, index: usize, value: u64) {
    // SAFETY: As for `increment`.
    unsafe {
        core::arch::asm!(
            "add qword ptr gs:[{} + {} * 8 + {} * 8], {}",
            in(reg) base.as_ptr(),
            in(reg) index,
            const FIRST,
            in(reg) value,
            options(nostack),
        );
    }
}

/// `this_cpu_add()` for the same.
///
/// # Safety
///
/// As for [`increment`].
#[cfg(not(all(target_arch = "x86_64", CONFIG_SMP)))]
#[inline(always)]
unsafe fn add<const FIRST: usize>(base: NonNull<u64>, index: usize, value: u64) {
    // SAFETY: By the requirements of this function.
    let counter = unsafe { base.add(FIRST + index) };
    // SAFETY: As above.
    unsafe { bindings::dm_remap_percpu_add(counter.as_ptr(), value) };
}
