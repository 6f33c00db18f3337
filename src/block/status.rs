// SPDX-License-Identifier: GPL-2.0

//! How a request ended.
//!
//! C header: [`include/linux/blk_types.h`](srctree/include/linux/blk_types.h)

use crate::bindings;
use kernel::prelude::*;

/// How a request ended: a `blk_status_t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Status(bindings::blk_status_t);

impl Status {
    /// The request was carried out.
    pub(crate) const OK: Self = Self(0);
    /// The device cannot do such a thing (`BLK_STS_NOTSUPP`).
    pub(crate) const NOT_SUPPORTED: Self = Self(1);
    /// The medium is bad (`BLK_STS_MEDIUM`).
    pub(crate) const MEDIUM: Self = Self(7);
    /// An error without a more precise name (`BLK_STS_IOERR`).
    pub(crate) const IO_ERROR: Self = Self(10);
    /// The request asked not to wait and would have had to (`BLK_STS_AGAIN`).
    pub(crate) const AGAIN: Self = Self(12);

    /// Takes over a status of the block layer.
    #[inline]
    pub(crate) const fn from_raw(raw: bindings::blk_status_t) -> Self {
        Self(raw)
    }

    /// The error number for the status, positive; 0 for [`Self::OK`].
    pub(crate) fn errno(self) -> i32 {
        // SAFETY: The function has no requirements; it knows what to make of any number.
        unsafe { bindings::blk_status_to_errno(self.0) }.wrapping_neg()
    }

    /// The status for an error number (negative, as in an [`Error`]).
    pub(crate) fn from_error(error: Error) -> Self {
        // SAFETY: The function has no requirements; it knows what to make of any number.
        Self(unsafe { bindings::errno_to_blk_status(error.to_errno()) })
    }

    /// The status in the form of the block layer.
    #[inline]
    pub(crate) const fn into_raw(self) -> bindings::blk_status_t {
        self.0
    }
}
