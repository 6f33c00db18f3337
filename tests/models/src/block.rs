// SPDX-License-Identifier: GPL-2.0

//! What stands in for `src/block`.

pub(crate) mod bio;
pub(crate) mod device;
pub(crate) mod status;
