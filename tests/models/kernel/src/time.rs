// SPDX-License-Identifier: GPL-2.0

//! `kernel::time`. No time passes: to sleep is to let other threads go on.

/// A span of time, in microseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Delta(i64);

impl Delta {
    /// So many microseconds.
    pub const fn from_micros(count: i64) -> Self {
        Self(count)
    }

    /// So many milliseconds.
    pub const fn from_millis(count: i64) -> Self {
        Self(count * 1000)
    }

    /// It in nanoseconds.
    pub const fn as_nanos(self) -> i64 {
        self.0 * 1000
    }
}

pub mod delay {
    //! `kernel::time::delay`.

    /// Sleeps: the thread goes on when others have done something.
    pub fn fsleep(_span: super::Delta) {
        crate::processors::might_sleep();
        loom::thread::yield_now();
    }
}
