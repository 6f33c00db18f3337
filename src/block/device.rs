// SPDX-License-Identifier: GPL-2.0

//! Block devices, and I/O to them that waits.
//!
//! C header: [`include/linux/blkdev.h`](srctree/include/linux/blkdev.h)

use crate::bindings;
use kernel::error::to_result;
use kernel::prelude::*;
use kernel::types::Opaque;

/// Memory that a device can read from and write to.
///
/// # Invariants
///
/// The memory is from `kmalloc()`, and its size is a power of two and at least a sector, so that it is
/// aligned to its size.
pub(crate) struct Buffer(KVec<u8>);

impl Buffer {
    /// Allocates `size` zeroed bytes, a power of two of at least 512.
    pub(crate) fn new(size: usize) -> Result<Self> {
        if !size.is_power_of_two() || size < 512 {
            return Err(EINVAL);
        }
        // INVARIANT: `KVec` allocates with `kmalloc()`, which aligns powers of two to their size.
        Ok(Self(KVec::from_elem(0u8, size, GFP_KERNEL)?))
    }
}

impl core::ops::Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl core::ops::DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

/// A block device that is open.
///
/// # Invariants
///
/// References to this type are to a `struct block_device` that stays open while they exist.
#[repr(transparent)]
pub(crate) struct BlockDevice(Opaque<bindings::block_device>);

impl BlockDevice {
    /// Borrows an open device.
    ///
    /// # Safety
    ///
    /// `bdev` points to a block device that is open for all of `'a`.
    #[inline(always)]
    pub(crate) unsafe fn from_raw<'a>(bdev: *mut bindings::block_device) -> &'a Self {
        // SAFETY: The types have the same layout, and the device is open by the requirements of this
        // function, which is also the invariant of the type.
        unsafe { &*bdev.cast() }
    }

    /// The device for a call into C.
    #[inline(always)]
    pub(crate) fn as_ptr(&self) -> *mut bindings::block_device {
        self.0.get()
    }

    /// The size in sectors.
    pub(crate) fn sectors(&self) -> u64 {
        // SAFETY: The device is open by the type invariant.
        unsafe { bindings::dm_remap_bdev_sectors(self.as_ptr()) }
    }

    /// The logical block size in bytes.
    pub(crate) fn logical_block_size(&self) -> u32 {
        // SAFETY: The device is open by the type invariant.
        unsafe { bindings::dm_remap_bdev_logical_block_size(self.as_ptr()) }
    }

    /// The physical block size in bytes.
    pub(crate) fn physical_block_size(&self) -> u32 {
        // SAFETY: The device is open by the type invariant.
        unsafe { bindings::dm_remap_bdev_physical_block_size(self.as_ptr()) }
    }

    /// How many sectors a request may have before it is split.
    pub(crate) fn max_sectors(&self) -> u32 {
        // SAFETY: The device is open by the type invariant.
        unsafe { bindings::dm_remap_bdev_max_sectors(self.as_ptr()) }
    }

    /// Whether the device refuses writes.
    pub(crate) fn is_read_only(&self) -> bool {
        // SAFETY: The device is open by the type invariant.
        unsafe { bindings::dm_remap_bdev_read_only(self.as_ptr()) }
    }

    /// Whether the device has zones.
    pub(crate) fn is_zoned(&self) -> bool {
        // SAFETY: The device is open by the type invariant.
        unsafe { bindings::dm_remap_bdev_is_zoned(self.as_ptr()) }
    }

    /// Whether the two devices share a sector, as a disk and its partition do.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        // SAFETY: Both devices are open by the type invariant.
        unsafe { bindings::dm_remap_bdev_overlap(self.as_ptr(), other.as_ptr()) }
    }

    /// Reads `buffer.len()` bytes, a multiple of the logical block size, from `sector` on.
    ///
    /// Sleeps. Fails with the error number of the block layer's status: `ENODATA` for a medium error.
    pub(crate) fn read(&self, sector: u64, buffer: &mut Piece<'_>) -> Result {
        self.transfer(sector, buffer, bindings::req_op_REQ_OP_READ)
    }

    /// Reads like [`Self::read`], but in the priority class that schedulers serve when there is nothing else to do.
    pub(crate) fn read_idle(&self, sector: u64, buffer: &mut Piece<'_>) -> Result {
        let (data, len) = (buffer.0.as_mut_ptr(), buffer.0.len());
        // SAFETY: As for `transfer`.
        to_result(unsafe { bindings::dm_remap_read_idle(self.as_ptr(), sector, data.cast(), len) })
    }

    /// Writes `buffer.len()` bytes, a multiple of the logical block size, from `sector` on.
    ///
    /// Sleeps. The data may still be in the cache of the device when this returns, see
    /// [`Self::flush`]. Fails like [`Self::read`].
    pub(crate) fn write(&self, sector: u64, buffer: &mut Piece<'_>) -> Result {
        self.transfer(sector, buffer, bindings::req_op_REQ_OP_WRITE)
    }

    /// Writes like [`Self::write`], but the data is stable when this returns.
    pub(crate) fn write_through(&self, sector: u64, buffer: &mut Piece<'_>) -> Result {
        let operation = bindings::req_op_REQ_OP_WRITE | FUA;
        self.transfer(sector, buffer, operation)
    }

    /// Reads or writes. The operation may have flags: `bdev_rw_virt()` takes the type of an operation but passes it on as
    /// that of operation and flags.
    fn transfer(&self, sector: u64, buffer: &mut Piece<'_>, operation: bindings::req_op) -> Result {
        let (data, len) = (buffer.0.as_mut_ptr(), buffer.0.len());
        // SAFETY: The device is open by the type invariant; the memory is from `kmalloc()`, exclusively
        // borrowed, and `len` bytes long.
        to_result(unsafe {
            bindings::bdev_rw_virt(self.as_ptr(), sector, data.cast(), len, operation)
        })
    }

    /// Makes everything that was written before stable. Sleeps.
    pub(crate) fn flush(&self) -> Result {
        // SAFETY: The device is open by the type invariant.
        to_result(unsafe { bindings::blkdev_issue_flush(self.as_ptr()) })
    }

    /// Discards `count` sectors from `sector` on. Sleeps.
    pub(crate) fn discard(&self, sector: u64, count: u64) -> Result {
        // SAFETY: The device is open by the type invariant.
        to_result(unsafe {
            bindings::blkdev_issue_discard(self.as_ptr(), sector, count, bindings::GFP_KERNEL)
        })
    }

    /// Securely erases `count` sectors from `sector` on. Sleeps.
    pub(crate) fn secure_erase(&self, sector: u64, count: u64) -> Result {
        // SAFETY: The device is open by the type invariant.
        to_result(unsafe {
            bindings::blkdev_issue_secure_erase(self.as_ptr(), sector, count, bindings::GFP_KERNEL)
        })
    }
}

/// A part of a [`Buffer`] that is a whole number of sectors, for one transfer.
///
/// # Invariants
///
/// The memory is from `kmalloc()`.
pub(crate) struct Piece<'a>(&'a mut [u8]);

impl Piece<'_> {
    /// What is in the memory.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.0
    }

    /// What is in the memory, to be changed.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        self.0
    }
}

impl Buffer {
    /// The `count` sectors from the `first` on; [`EINVAL`] when the buffer has not as many.
    pub(crate) fn sectors(&mut self, first: usize, count: usize) -> Result<Piece<'_>> {
        let start = first.checked_mul(512).ok_or(EINVAL)?;
        let end = count
            .checked_mul(512)
            .and_then(|len| len.checked_add(start))
            .ok_or(EINVAL)?;
        // INVARIANT: The memory is part of a buffer, which is from `kmalloc()`.
        self.0.get_mut(start..end).map(Piece).ok_or(EINVAL)
    }
}

/// `REQ_FUA`.
const FUA: bindings::req_op = 1 << bindings::req_flag_bits___REQ_FUA;
