// SPDX-License-Identifier: GPL-2.0

//! The devices beneath an instance of a target.

use crate::bindings;
use crate::block::device::BlockDevice;
use core::ffi::CStr;
use core::ptr::NonNull;
use kernel::error::to_result;
use kernel::prelude::*;

/// The most devices that an instance can have.
pub(crate) const MAX_DEVICES: usize = 16;

/// Names one of the devices of an instance, in the order in which they were opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeviceId(usize);

impl DeviceId {
    /// The device that was opened first.
    pub(crate) const FIRST: Self = Self(0);

    /// The device that was opened as number `index`, counted from 0.
    #[inline]
    pub(crate) const fn new(index: usize) -> Self {
        Self(index)
    }
}

/// A device that device mapper opened for a table.
///
/// # Invariants
///
/// `dev` was given by `dm_get_device()` for the target that owns this object and has not been given back.
pub(crate) struct Device {
    id: DeviceId,
    dev: NonNull<bindings::dm_dev>,
    bdev: NonNull<bindings::block_device>,
}

impl Device {
    /// Which of the devices of its instance it is.
    pub(crate) fn id(&self) -> DeviceId {
        self.id
    }

    /// The block device.
    #[inline(always)]
    pub(crate) fn block_device(&self) -> &BlockDevice {
        // SAFETY: By the type invariant device mapper keeps the device open while this object exists.
        unsafe { BlockDevice::from_raw(self.bdev.as_ptr()) }
    }

    /// The handle for a call into C.
    pub(crate) fn as_ptr(&self) -> *mut bindings::dm_dev {
        self.dev.as_ptr()
    }

    /// The name as device mapper prints it in a table: `major:minor`.
    pub(crate) fn name(&self) -> &CStr {
        // SAFETY: By the type invariant the handle is live.
        let name = unsafe { &raw const (*self.dev.as_ptr()).name };
        // SAFETY: `format_dev_t()` has written a string with its terminator there, and it does not change.
        unsafe { CStr::from_char_ptr(name.cast()) }
    }
}

/// All devices of an instance.
///
/// # Invariants
///
/// `ti` is the target for which the devices were opened. It is valid when this object is dropped, and that
/// happens only where `dm_put_device()` is legal: in a failing constructor and in the destructor.
pub(crate) struct Devices {
    ti: NonNull<bindings::dm_target>,
    list: [Option<Device>; MAX_DEVICES],
    count: usize,
}

// SAFETY: The handles may be used and given back on any thread.
unsafe impl Send for Devices {}
// SAFETY: Shared references only read the handles, which do not change.
unsafe impl Sync for Devices {}

impl Devices {
    /// No device yet.
    ///
    /// # Safety
    ///
    /// `ti` is a target under construction. The result is dropped only in its failing constructor or in
    /// its destructor.
    pub(super) unsafe fn new(ti: NonNull<bindings::dm_target>) -> Self {
        // INVARIANT: By the requirements of this function.
        Self {
            ti,
            list: [const { None }; MAX_DEVICES],
            count: 0,
        }
    }

    /// Opens a device by its path or its `major:minor`.
    pub(super) fn open(&mut self, path: &CStr, mode: bindings::blk_mode_t) -> Result<DeviceId> {
        let place = self.list.get_mut(self.count).ok_or(E2BIG)?;
        let mut dev = core::ptr::null_mut();
        // SAFETY: By the type invariant `ti` is a target under construction; `path` is a string and `dev` is
        // where the result goes.
        to_result(unsafe {
            bindings::dm_get_device(self.ti.as_ptr(), path.as_char_ptr(), mode, &mut dev)
        })?;
        let dev = NonNull::new(dev).ok_or(ENODEV)?;
        // SAFETY: `dm_get_device()` has succeeded, so the handle is live.
        let bdev = unsafe { (*dev.as_ptr()).bdev };
        // INVARIANT: The handle was given by `dm_get_device()` just now.
        let id = DeviceId(self.count);
        *place = Some(Device {
            id,
            dev,
            bdev: NonNull::new(bdev).ok_or(ENODEV)?,
        });
        self.count = self.count.saturating_add(1);
        Ok(id)
    }

    /// The device with this name, when there is one.
    #[inline(always)]
    pub(crate) fn get(&self, id: DeviceId) -> Option<&Device> {
        self.list.get(id.0)?.as_ref()
    }

    /// How many devices there are.
    pub(crate) fn count(&self) -> usize {
        self.count
    }
}

impl Drop for Devices {
    fn drop(&mut self) {
        for device in self.list.iter().flatten() {
            // SAFETY: By the type invariants the target is valid, giving devices back is legal now, and this
            // device was opened for it and not given back.
            unsafe { bindings::dm_put_device(self.ti.as_ptr(), device.as_ptr()) };
        }
    }
}
