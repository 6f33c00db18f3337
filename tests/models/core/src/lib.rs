// SPDX-License-Identifier: GPL-2.0

//! `core` for the files of the module that are model checked: all that it has, but the atomic integers are those of the
//! checker, which tries every order in which the threads may run, and every value that the memory model lets a load return.

pub use std::*;

pub mod sync {
    //! `core::sync`.

    pub mod atomic;
}
