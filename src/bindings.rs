// SPDX-License-Identifier: GPL-2.0

//! C of device mapper and of our own helpers, as `bindgen` sees it.
//!
//! Beside it everything that [`kernel::bindings`] has. Only the wrapper layer
//! uses this module.

#![allow(
    clippy::all,
    dead_code,
    improper_ctypes,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unreachable_pub,
    unsafe_op_in_unsafe_fn
)]
#![allow(
    clippy::as_underscore,
    clippy::cast_lossless,
    clippy::multiple_unsafe_ops_per_block,
    clippy::ptr_as_ptr,
    clippy::ref_as_ptr,
    clippy::undocumented_unsafe_blocks
)]

pub(crate) use kernel::bindings::*;

use kernel::ffi;
use pin_init::MaybeZeroable;

include!(concat!(env!("DM_REMAP_BINDINGS"), "/bindings_generated.rs"));

// Refuses to compile when a structure is not laid out as in the kernel.
include!(concat!(env!("DM_REMAP_BINDINGS"), "/layout_generated.rs"));
