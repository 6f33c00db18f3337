// SPDX-License-Identifier: GPL-2.0

//! `crate::dm::device`.

use crate::block::device::BlockDevice;

pub(crate) struct Device(BlockDevice);

impl Device {
    pub(crate) fn block_device(&self) -> &BlockDevice {
        &self.0
    }
}

pub(crate) struct DeviceId(usize);

impl DeviceId {
    pub(crate) const fn new(index: usize) -> Self {
        Self(index)
    }
}
