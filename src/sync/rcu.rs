// SPDX-License-Identifier: GPL-2.0

//! Data that is read without a lock and replaced as a whole.
//!
//! [`Published`] holds a value that any number of readers may look at inside a [`Guard`]. A writer
//! replaces it with another one; the old one is freed after a grace period.
//!
//! The kernel crate's `rcu::Guard` calls two functions that each call a third. A reader here runs
//! for every request, so [`Guard`] disables preemption instead, which `synchronize_rcu()` waits for
//! as well ("it also waits for regions of code with preemption disabled",
//! `Documentation/RCU/whatisRCU.rst`).
//!
//! C header: [`include/linux/rcupdate.h`](srctree/include/linux/rcupdate.h)

use crate::bindings;
use core::marker::PhantomData;
use core::ptr::NonNull;
use core::sync::atomic::AtomicPtr;
use core::sync::atomic::Ordering;
use kernel::prelude::*;
use kernel::sync::Arc;
use kernel::sync::ArcBorrow;
use kernel::types::NotThreadSafe;

/// Proof that a read-side critical section is running on this processor.
///
/// Nothing may sleep while it exists.
///
/// # Invariants
///
/// Preemption is disabled at least once for each object of this type.
pub(crate) struct Guard(NotThreadSafe);

impl Guard {
    /// Begins a read-side critical section.
    #[inline(always)]
    pub(crate) fn new() -> Self {
        preempt_disable();
        // INVARIANT: Preemption was disabled just now.
        Self(NotThreadSafe)
    }
}

impl Drop for Guard {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: By the type invariant, preemption was disabled for this object.
        unsafe { preempt_enable() };
    }
}

/// Waits until every read-side critical section that runs now has ended.
///
/// This is the expedited form: it interrupts all processors, and takes some ten microseconds where
/// the other takes some ten milliseconds. Blocks move rarely, and requests wait while they do.
pub(crate) fn grace_period() {
    // SAFETY: The caller is in process context: a function that may sleep has no other requirement.
    unsafe { bindings::synchronize_rcu_expedited() };
}

/// A value that is read without a lock and replaced as a whole.
///
/// # Invariants
///
/// The pointer comes from `Arc::into_raw`, and stands for a reference count. When it has been replaced, the count is given
/// back only after a grace period, or when this object is dropped.
pub(crate) struct Published<T> {
    value: AtomicPtr<T>,
    _owns: PhantomData<Arc<T>>,
}

// SAFETY: References to the value are handed out on any processor, and the value may be dropped on another one than that
// which made it.
unsafe impl<T: Send + Sync> Sync for Published<T> {}

impl<T> Published<T> {
    /// Publishes the first value.
    pub(crate) fn new(value: Arc<T>) -> Self {
        // INVARIANT: The pointer comes from `Arc::into_raw`, with its count.
        Self {
            value: AtomicPtr::new(Arc::into_raw(value).cast_mut()),
            _owns: PhantomData,
        }
    }

    /// The value of this moment, for as long as the read-side critical section runs.
    #[inline(always)]
    pub(crate) fn read<'a>(&'a self, _guard: &'a Guard) -> &'a T {
        // SAFETY: By the type invariant the value that was published when the guard already existed is not freed before
        // the guard is gone, and `'a` ends before that.
        unsafe { &*self.value.load(Ordering::Acquire) }
    }

    /// The value of this moment, for as long as the caller likes, who may sleep.
    pub(crate) fn hold(&self) -> Arc<T> {
        let _guard = Guard::new();
        // SAFETY: The pointer comes from `Arc::into_raw`. By the type invariant its count is not given back before the
        // guard is gone, and nothing changes a value in an `Arc`.
        unsafe { ArcBorrow::from_raw(self.value.load(Ordering::Acquire)) }.into()
    }

    /// Publishes another value, and gives up the old one after a grace period.
    ///
    /// Sleeps.
    pub(crate) fn replace(&self, value: Arc<T>) {
        let new = Arc::into_raw(value).cast_mut();
        let old = self.value.swap(new, Ordering::AcqRel);
        grace_period();
        // SAFETY: By the type invariant the pointer comes from `Arc::into_raw`, with a count that the swap has given to
        // this call alone. It was replaced before the grace period, so no reader has it any more.
        drop(unsafe { Arc::from_raw(old) });
    }
}

impl<T> Drop for Published<T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the pointer comes from `Arc::into_raw`, with a count; `&mut self` proves that there
        // is no reader.
        drop(unsafe { Arc::from_raw(*self.value.get_mut()) });
    }
}

/// A value that is set at most once and can be read without a lock from then on.
///
/// # Invariants
///
/// The pointer is null or comes from `KBox::into_raw`; once it is not null it does not change before this
/// object is dropped.
pub(crate) struct Once<T> {
    value: AtomicPtr<T>,
    _owns: PhantomData<KBox<T>>,
}

// SAFETY: References to the value are handed out on any processor, and the value may be dropped on
// another one than that which made it.
unsafe impl<T: Send + Sync> Sync for Once<T> {}

impl<T> Once<T> {
    /// Not set yet.
    pub(crate) const fn new() -> Self {
        Self {
            value: AtomicPtr::new(core::ptr::null_mut()),
            _owns: PhantomData,
        }
    }

    /// The value, when it has been set.
    #[inline]
    pub(crate) fn get(&self) -> Option<&T> {
        let value = NonNull::new(self.value.load(Ordering::Acquire))?;
        // SAFETY: By the type invariant a value that is there stays until `self` is dropped.
        Some(unsafe { value.as_ref() })
    }

    /// Sets the value, unless there is one already: that one is kept then.
    pub(crate) fn set(&self, value: KBox<T>) {
        let new = KBox::into_raw(value);
        let set = self.value.compare_exchange(
            core::ptr::null_mut(),
            new,
            Ordering::Release,
            Ordering::Relaxed,
        );
        if set.is_err() {
            // SAFETY: The pointer comes from `KBox::into_raw` above, and it was not published.
            drop(unsafe { KBox::from_raw(new) });
        }
    }
}

impl<T> Drop for Once<T> {
    fn drop(&mut self) {
        if let Some(value) = NonNull::new(*self.value.get_mut()) {
            // SAFETY: By the type invariant the pointer comes from `KBox::into_raw`, and `&mut self` proves
            // that nobody else uses it.
            drop(unsafe { KBox::from_raw(value.as_ptr()) });
        }
    }
}

/// `preempt_disable()`.
#[cfg(all(
    target_arch = "x86_64",
    CONFIG_SMP,
    not(CONFIG_DEBUG_PREEMPT),
    not(CONFIG_TRACE_PREEMPT_TOGGLE)
))]
#[inline(always)]
fn preempt_disable() {
    // SAFETY: `__preempt_count` is a per-CPU variable of the kernel, and adding one to it is what
    // `preempt_disable()` is on x86-64 (`arch/x86/include/asm/preempt.h`). The instruction cannot be
    // divided by an interrupt. It has the effect of a compiler barrier, as an `asm!` without `nomem` has.
    unsafe {
        core::arch::asm!(
            "inc dword ptr gs:[rip + {}]",
            sym bindings::__preempt_count,
            options(nostack),
        );
    }
}

/// `preempt_enable()`.
///
/// # Safety
///
/// The caller has disabled preemption and not enabled it since.
#[cfg(all(
    target_arch = "x86_64",
    CONFIG_SMP,
    not(CONFIG_DEBUG_PREEMPT),
    not(CONFIG_TRACE_PREEMPT_TOGGLE)
))]
#[inline(always)]
unsafe fn preempt_enable() {
    let reschedule: u8;
    // SAFETY: As for `preempt_disable()`; by the requirements of this function the count is not zero.
    // It becomes zero with the last region when a reschedule is due, as the flag for that is stored
    // inverted in the same word.
    unsafe {
        core::arch::asm!(
            "dec dword ptr gs:[rip + {}]",
            "sete {}",
            sym bindings::__preempt_count,
            out(reg_byte) reschedule,
            options(nostack),
        );
    }
    if reschedule != 0 {
        reschedule_now();
    }
}

/// Lets a more urgent task run: an empty region whose end is a chance for it.
#[cfg(all(
    target_arch = "x86_64",
    CONFIG_SMP,
    not(CONFIG_DEBUG_PREEMPT),
    not(CONFIG_TRACE_PREEMPT_TOGGLE)
))]
#[cold]
fn reschedule_now() {
    // SAFETY: Disabling preemption has no requirements.
    unsafe { bindings::dm_remap_preempt_disable() };
    // SAFETY: Preemption was disabled just now.
    unsafe { bindings::dm_remap_preempt_enable() };
}

/// `preempt_disable()`.
#[cfg(not(all(
    target_arch = "x86_64",
    CONFIG_SMP,
    not(CONFIG_DEBUG_PREEMPT),
    not(CONFIG_TRACE_PREEMPT_TOGGLE)
)))]
#[inline(always)]
fn preempt_disable() {
    // SAFETY: Disabling preemption has no requirements.
    unsafe { bindings::dm_remap_preempt_disable() };
}

/// `preempt_enable()`.
///
/// # Safety
///
/// The caller has disabled preemption and not enabled it since.
#[cfg(not(all(
    target_arch = "x86_64",
    CONFIG_SMP,
    not(CONFIG_DEBUG_PREEMPT),
    not(CONFIG_TRACE_PREEMPT_TOGGLE)
)))]
#[inline(always)]
unsafe fn preempt_enable() {
    // SAFETY: By the requirements of this function.
    unsafe { bindings::dm_remap_preempt_enable() };
}
