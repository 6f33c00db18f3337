// SPDX-License-Identifier: GPL-2.0

//! Synchronization that the `kernel` crate does not have yet.

use kernel::sync::Mutex;

pub(crate) mod percpu;
pub(crate) mod rcu;
pub(crate) mod zeroed;

/// Tells lockdep that the caller may now wait for a mutex in a way of its own, which lockdep would not see. Sleeps.
pub(crate) fn might_lock<T>(mutex: &Mutex<T>) {
    let mutex: *const Mutex<T> = mutex;
    // SAFETY: A `Mutex` that exists was initialised, and begins with the mutex of the kernel: it is `repr(C)`, which
    // `Lock::from_raw` rests on, too.
    unsafe { crate::bindings::dm_remap_might_lock(mutex.cast_mut().cast()) };
}

/// A random number that nobody can guess.
pub(crate) fn random() -> u64 {
    // SAFETY: The function has no requirements.
    unsafe { crate::bindings::get_random_u64() }
}

/// The time of day: seconds since 1970-01-01 00:00 UTC.
pub(crate) fn unix_seconds() -> u64 {
    // SAFETY: The function has no requirements.
    let seconds = unsafe { crate::bindings::ktime_get_real_seconds() };
    u64::try_from(seconds).unwrap_or(0)
}

/// CRC32C with the initial value and the final inversion all ones.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    // SAFETY: The pointer and the length are those of a slice.
    let checksum = unsafe { crate::bindings::crc32c(u32::MAX, bytes.as_ptr().cast(), bytes.len()) };
    !checksum
}

/// Whether a line may be added to the log now: a burst of them is cut short.
pub(crate) fn log_allowed() -> bool {
    // SAFETY: The function has no requirements.
    unsafe { crate::bindings::dm_remap_log_allowed() }
}

/// `pr_warn!`, but a burst of lines is cut short.
#[macro_export]
macro_rules! warn_ratelimited {
    ($($arg:tt)*) => {
        if $crate::sync::log_allowed() {
            ::kernel::pr_warn!($($arg)*);
        }
    };
}
