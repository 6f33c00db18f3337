// SPDX-License-Identifier: GPL-2.0

//! Stands in for the crate `kernel` where files of the module are model checked.
//!
//! What stands in for a facility of the kernel does what that documents, and no more. Memory that is freed is kept to the end
//! of an execution, but the checker knows that it was freed: a look at it that does not surely come before is found.

pub mod memory;
pub mod processors;
pub mod time;

pub mod alloc {
    //! `kernel::alloc`.

    /// Flags of an allocation, which say nothing here.
    #[derive(Clone, Copy)]
    pub struct Flags;

    /// There is no memory, which does not happen here.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct AllocError;

    impl From<AllocError> for crate::error::Error {
        fn from(_: AllocError) -> Self {
            crate::error::ENOMEM
        }
    }
}

pub mod error {
    //! `kernel::error`.

    /// An error number.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Error(&'static str);

    /// `core::result::Result` with an error number.
    pub type Result<T = (), E = Error> = std::result::Result<T, E>;

    macro_rules! errors {
        ($($name:ident)*) => {
            $(#[doc = stringify!($name)] pub const $name: Error = Error(stringify!($name));)*
        };
    }
    errors!(E2BIG EAGAIN EEXIST EINVAL ENOMEM ENOSPC);
}

pub mod ffi {
    //! `kernel::ffi`.

    pub use std::ffi::c_int;
}

pub mod sync {
    //! `kernel::sync`.

    pub use crate::memory::Arc;
    pub use crate::memory::ArcBorrow;

    pub mod rcu {
        //! `kernel::sync::rcu`.

        /// A read-side critical section, in which nothing here is looked at.
        pub struct Guard;

        /// Begins one.
        pub fn read_lock() -> Guard {
            Guard
        }
    }
}

pub mod types {
    //! `kernel::types`.

    use std::marker::PhantomData;

    /// Makes a type that stays on its thread.
    #[allow(non_upper_case_globals)]
    pub const NotThreadSafe: NotThreadSafe = PhantomData;

    /// The type of [`NotThreadSafe`](constant@NotThreadSafe).
    pub type NotThreadSafe = PhantomData<*mut ()>;
}

pub mod prelude {
    //! `kernel::prelude`.

    pub use crate::alloc::Flags;
    pub use crate::error::*;
    pub use crate::memory::KBox;
    pub use crate::memory::KVVec;
    pub use crate::memory::KVec;

    /// An allocation that may sleep.
    pub const GFP_KERNEL: Flags = Flags;
}
