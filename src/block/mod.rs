// SPDX-License-Identifier: GPL-2.0

//! Block devices and the outcome of I/O, as far as the `kernel` crate does not have them.
//!
//! C headers: [`include/linux/blkdev.h`](srctree/include/linux/blkdev.h),
//! [`include/linux/bio.h`](srctree/include/linux/bio.h)

pub(crate) mod bio;
pub(crate) mod device;
pub(crate) mod noio;
pub(crate) mod status;
