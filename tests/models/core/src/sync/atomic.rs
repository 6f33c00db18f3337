// SPDX-License-Identifier: GPL-2.0

//! `core::sync::atomic`.

use std::cell::Cell;
use std::cell::OnceCell;

pub use std::sync::atomic::Ordering;

/// What the code asks for that a model can be told to leave out, to see whether it is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Loads of this type acquire.
    Load(&'static str),
    /// Stores of this type release.
    Store(&'static str),
    /// Swaps of this type acquire and release.
    Swap(&'static str),
    /// What changes this type depending on what it was does.
    Exchange(&'static str),
    /// Fences.
    Fence,
}

thread_local! {
    static LEFT_OUT: Cell<Option<Wanted>> = const { Cell::new(None) };
}

/// Runs `f` with one kind of order left out: what asks for it is relaxed.
///
/// All threads of a model run on the one that checks it.
pub fn without<R>(wanted: Wanted, f: impl FnOnce() -> R) -> R {
    struct Restore;
    impl Drop for Restore {
        fn drop(&mut self) {
            LEFT_OUT.set(None);
        }
    }
    LEFT_OUT.set(Some(wanted));
    let _restore = Restore;
    f()
}

/// The order that an access has which asks for `order`.
fn order(wanted: Wanted, order: Ordering) -> Ordering {
    if LEFT_OUT.get() == Some(wanted) {
        Ordering::Relaxed
    } else {
        order
    }
}

/// `core::sync::atomic::fence`.
pub fn fence(order: Ordering) {
    if LEFT_OUT.get() != Some(Wanted::Fence) {
        loom::sync::atomic::fence(order);
    }
}

/// An atomic type: what all of them have.
///
/// The checker's own types cannot be made in a constant, and each one that there is costs time in each of many executions. So
/// one is made when the value is first looked at. That must have happened before other threads do so, as with the
/// initialisation of any variable; the checker says if it has not.
macro_rules! atomic {
    ($(#[$doc:meta])* $name:ident $(<$parameter:ident>)?, $value:ty) => {
        $(#[$doc])*
        pub struct $name $(<$parameter>)? {
            initial: $value,
            watched: OnceCell<loom::sync::atomic::$name $(<$parameter>)?>,
        }

        // SAFETY: The checker runs all threads of a model on one of the machine, one at a time.
        unsafe impl $(<$parameter>)? Send for $name $(<$parameter>)? {}
        // SAFETY: As above.
        unsafe impl $(<$parameter>)? Sync for $name $(<$parameter>)? {}

        impl $(<$parameter>)? $name $(<$parameter>)? {
            /// Makes one with this value.
            pub const fn new(initial: $value) -> Self {
                Self {
                    initial,
                    watched: OnceCell::new(),
                }
            }

            fn watched(&self) -> &loom::sync::atomic::$name $(<$parameter>)? {
                let make = || loom::sync::atomic::$name::new(self.initial);
                self.watched.get_or_init(make)
            }

            /// Loads the value.
            pub fn load(&self, asked: Ordering) -> $value {
                let asked = order(Wanted::Load(stringify!($name)), asked);
                self.watched().load(asked)
            }

            /// Stores a value.
            pub fn store(&self, value: $value, asked: Ordering) {
                let asked = order(Wanted::Store(stringify!($name)), asked);
                self.watched().store(value, asked);
            }

            /// Stores a value and returns the one before.
            pub fn swap(&self, value: $value, asked: Ordering) -> $value {
                let asked = order(Wanted::Swap(stringify!($name)), asked);
                self.watched().swap(value, asked)
            }

            /// Stores a value if another one is there, and returns what was there.
            ///
            /// # Errors
            ///
            /// What was there, when it was not that.
            pub fn compare_exchange(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                let success = order(Wanted::Exchange(stringify!($name)), success);
                self.watched().compare_exchange(current, new, success, failure)
            }

            /// The same.
            ///
            /// # Errors
            ///
            /// What was there, when it was not that.
            pub fn compare_exchange_weak(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                self.compare_exchange(current, new, success, failure)
            }

            /// The value, for whoever has it alone.
            pub fn get_mut(&mut self) -> &mut $value {
                if let Some(mut watched) = self.watched.take() {
                    self.initial = watched.with_mut(|value| *value);
                }
                &mut self.initial
            }
        }
    };
}

/// The arithmetic of an atomic integer.
macro_rules! atomic_integer {
    ($(#[$doc:meta])* $name:ident, $value:ty) => {
        atomic!($(#[$doc])* $name, $value);

        impl $name {
            /// Adds a number and returns the value before.
            pub fn fetch_add(&self, value: $value, asked: Ordering) -> $value {
                let asked = order(Wanted::Exchange(stringify!($name)), asked);
                self.watched().fetch_add(value, asked)
            }

            /// Sets bits and returns the value before.
            pub fn fetch_or(&self, value: $value, asked: Ordering) -> $value {
                let asked = order(Wanted::Exchange(stringify!($name)), asked);
                self.watched().fetch_or(value, asked)
            }
        }
    };
}

atomic!(
    /// `core::sync::atomic::AtomicPtr`.
    AtomicPtr<T>,
    *mut T
);
atomic_integer!(
    /// `core::sync::atomic::AtomicU8`.
    AtomicU8,
    u8
);
atomic_integer!(
    /// `core::sync::atomic::AtomicU32`.
    AtomicU32,
    u32
);
atomic_integer!(
    /// `core::sync::atomic::AtomicU64`.
    AtomicU64,
    u64
);
atomic_integer!(
    /// `core::sync::atomic::AtomicUsize`.
    AtomicUsize,
    usize
);
