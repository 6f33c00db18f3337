// SPDX-License-Identifier: GPL-2.0

//! `crate::block::device`.

/// A device that a request is sent to. What is on it is in the model.
pub(crate) struct BlockDevice;
