// SPDX-License-Identifier: GPL-2.0

//! Access to the fields of a `struct bio` that a stacking driver needs.
//!
//! C header: [`include/linux/bio.h`](srctree/include/linux/bio.h)

use crate::bindings;
use crate::block::device::BlockDevice;
use crate::block::status::Status;
use core::ptr::NonNull;
use kernel::prelude::*;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Read sectors.
    Read,
    /// Write sectors.
    Write,
    /// Write zeroes without sending any.
    WriteZeroes,
    /// Forget what the sectors hold.
    Discard,
    /// Erase the sectors so that nobody can read them again.
    SecureErase,
    /// Make everything that was written stable, without data of its own.
    Flush,
    /// Something else.
    Other,
}

/// Which sectors and pages a bio is for, its `bi_flags`, and its `bi_opf`.
#[derive(Clone, Copy)]
pub(crate) struct Position {
    iter: bindings::bvec_iter,
    flags: u16,
    operation: bindings::blk_opf_t,
}

impl Position {
    /// The number of sectors, 0 for a flush.
    pub(crate) const fn sectors(&self) -> u32 {
        self.iter.bi_size >> 9
    }
}

/// A bio that this module may read and change.
///
/// The one-machine-word `tag` is `bi_private`, which belongs to whoever has set `bi_end_io`; device mapper
/// sets `bi_end_io` of its clones and leaves `bi_private` to the target.
///
/// # Invariants
///
/// The pointer is to a live, initialised `struct bio` that no other code changes while this object exists.
pub(crate) struct Bio(NonNull<bindings::bio>);

impl Bio {
    /// Wraps a bio.
    ///
    /// # Safety
    ///
    /// `bio` points to a live `struct bio`, and the caller owns it (as `map`, the completion callback or
    /// whoever deferred it does) for as long as the result is used.
    #[inline(always)]
    pub(crate) unsafe fn from_raw(bio: NonNull<bindings::bio>) -> Self {
        // INVARIANT: By the requirements of this function.
        Self(bio)
    }

    /// The bio for a call into C.
    #[inline(always)]
    pub(crate) fn as_ptr(&self) -> *mut bindings::bio {
        self.0.as_ptr()
    }

    /// The bio, to keep it in another form of ownership.
    #[inline]
    pub(crate) fn as_non_null(&self) -> NonNull<bindings::bio> {
        self.0
    }

    // The fields are accessed one by one: the block layer has others that change at any time, such as the reference
    // counts, so that no reference to the whole may exist.

    /// The operation and its flags.
    #[inline(always)]
    fn flags(&self) -> bindings::blk_opf_t {
        // SAFETY: By the type invariant the bio is live.
        unsafe { (*self.as_ptr()).bi_opf }
    }

    /// The number of bytes.
    #[inline(always)]
    fn bytes(&self) -> u32 {
        // SAFETY: By the type invariant the bio is live.
        unsafe { (*self.as_ptr()).bi_iter.bi_size }
    }

    /// What is asked for.
    #[inline(always)]
    pub(crate) fn operation(&self) -> Operation {
        let flags = self.flags();
        match flags & OPERATION_MASK {
            bindings::req_op_REQ_OP_READ => Operation::Read,
            bindings::req_op_REQ_OP_WRITE if flags & PREFLUSH != 0 => Operation::Flush,
            bindings::req_op_REQ_OP_WRITE => Operation::Write,
            bindings::req_op_REQ_OP_WRITE_ZEROES => Operation::WriteZeroes,
            bindings::req_op_REQ_OP_DISCARD => Operation::Discard,
            bindings::req_op_REQ_OP_SECURE_ERASE => Operation::SecureErase,
            bindings::req_op_REQ_OP_FLUSH => Operation::Flush,
            _ => Operation::Other,
        }
    }

    /// Whether this reads or writes the data of sectors and asks for nothing more than that, and no driver has left a flag
    /// of its own in it: then, whether it writes.
    #[inline(always)]
    pub(crate) fn plain(&self) -> Option<bool> {
        let flags = self.flags();
        // The operation is 0 for a read and 1 for a write.
        if flags & (OPERATION_MASK & !bindings::req_op_REQ_OP_WRITE | PREFLUSH | DRIVER) == 0 {
            Some(flags & bindings::req_op_REQ_OP_WRITE != 0)
        } else {
            None
        }
    }

    /// Whether the request must be written as a whole or not at all, and so must not be split.
    #[inline]
    pub(crate) fn is_atomic(&self) -> bool {
        self.flags() & ATOMIC != 0
    }

    /// The first sector on the device that the bio is for.
    #[inline(always)]
    pub(crate) fn sector(&self) -> u64 {
        // SAFETY: By the type invariant the bio is live.
        unsafe { (*self.as_ptr()).bi_iter.bi_sector }
    }

    /// The number of sectors, 0 for a flush.
    #[inline(always)]
    pub(crate) fn sectors(&self) -> u32 {
        self.bytes() >> 9
    }

    /// The status that the bio has now.
    #[inline(always)]
    pub(crate) fn status(&self) -> Status {
        // SAFETY: By the type invariant the bio is live.
        Status::from_raw(unsafe { (*self.as_ptr()).bi_status })
    }

    /// Sets the status that the bio ends with.
    #[inline]
    pub(crate) fn set_status(&mut self, status: Status) {
        // SAFETY: By the type invariant the bio is live and nobody else changes it.
        unsafe { (*self.as_ptr()).bi_status = status.into_raw() };
    }

    /// The word that travels with the bio.
    #[inline(always)]
    pub(crate) fn tag(&self) -> usize {
        // SAFETY: By the type invariant the bio is live.
        unsafe { (*self.as_ptr()).bi_private }.addr()
    }

    /// Sets the word that travels with the bio.
    #[inline(always)]
    pub(crate) fn set_tag(&mut self, tag: usize) {
        let tag = core::ptr::without_provenance_mut(tag);
        // SAFETY: By the type invariant the bio is live and nobody else changes it.
        unsafe { (*self.as_ptr()).bi_private = tag };
    }

    /// Points a clone of device mapper at `sector` of `device`.
    ///
    /// This is `bio_set_dev()` without `bio_associate_blkg()`: the caller lets device mapper submit the clone, and
    /// `dm_submit_bio_remap()` associates it with the control group of the original bio on the new device. To do that
    /// here too would be undone there.
    #[inline(always)]
    pub(crate) fn set_place(&mut self, device: &BlockDevice, sector: u64) {
        // The bio was remapped and throttled for another device.
        // SAFETY: By the type invariant the bio is live and nobody else changes it.
        unsafe { (*self.as_ptr()).bi_flags &= !(REMAPPED | THROTTLED) };
        // SAFETY: As above.
        unsafe { (*self.as_ptr()).bi_bdev = device.as_ptr() };
        // SAFETY: As above.
        unsafe { (*self.as_ptr()).bi_iter.bi_sector = sector };
    }

    /// Gives up that the submitter polls for the end of the request: it ends by interrupt then.
    ///
    /// Device mapper notes in the flag for drivers that `bi_private` is a list of what is polled for, and hands that flag
    /// down to the clone for what remains of a request that was split, where it is not so.
    pub(crate) fn clear_polled(&mut self) {
        // SAFETY: By the type invariant the bio is live and nobody else changes it.
        unsafe { (*self.as_ptr()).bi_opf &= !(POLLED | DRIVER) };
    }

    /// What drivers change of the bio while they have it.
    #[inline(always)]
    pub(crate) fn position(&self) -> Position {
        // SAFETY: By the type invariant the bio is live.
        let iter = unsafe { (*self.as_ptr()).bi_iter };
        // SAFETY: As above.
        let flags = unsafe { (*self.as_ptr()).bi_flags };
        Position {
            iter,
            flags,
            operation: self.flags(),
        }
    }

    /// Makes the bio, which has ended, one that was never sent to a device: `dm_bio_restore()` of
    /// `drivers/md/dm-bio-record.h`, and the flags of the operation, of which `submit_bio_noacct()` takes some away. Integrity
    /// metadata is not offered, and `bi_end_io` is device mapper's.
    pub(crate) fn restore(&mut self, position: Position) {
        // SAFETY: By the type invariant the bio is live and nobody else changes it.
        unsafe { (*self.as_ptr()).bi_iter = position.iter };
        // SAFETY: As above.
        unsafe { (*self.as_ptr()).bi_flags = position.flags };
        // SAFETY: As above.
        unsafe { (*self.as_ptr()).bi_opf = position.operation };
        // SAFETY: As above. No other part of it is under way.
        unsafe { (*self.as_ptr()).__bi_remaining.counter = 1 };
    }

    /// Whether the request is a guess at what will be wanted.
    pub(crate) fn is_readahead(&self) -> bool {
        self.flags() & READAHEAD != 0
    }

    /// Whether what it writes must be stable when it ends.
    pub(crate) fn is_fua(&self) -> bool {
        self.flags() & FUA != 0
    }

    /// Copies the data of a write, from its sector `first` on, into `buffer`, and fills that.
    ///
    /// # Errors
    ///
    /// `EINVAL` when the bio is no write, or has less data.
    pub(crate) fn copy_to(&self, first: usize, buffer: &mut [u8]) -> Result {
        let offset = self.offset_of_data(Operation::Write, first, buffer.len())?;
        // SAFETY: The bio is live and, as a write, has data pages: `buffer.len()` bytes from `offset` on and more.
        unsafe {
            bindings::dm_remap_bio_to_buffer(
                self.as_ptr(),
                offset,
                buffer.as_mut_ptr(),
                buffer.len(),
            )
        };
        Ok(())
    }

    /// Fills in the data of a read, from its sector `first` on, from `buffer`.
    ///
    /// # Errors
    ///
    /// `EINVAL` when the bio is no read, or wants less data.
    pub(crate) fn copy_from(&mut self, first: usize, buffer: &[u8]) -> Result {
        let offset = self.offset_of_data(Operation::Read, first, buffer.len())?;
        // SAFETY: The bio is live and, as a read, has data pages to be filled: `buffer.len()` bytes from `offset` on and
        // more.
        unsafe {
            bindings::dm_remap_buffer_to_bio(buffer.as_ptr(), buffer.len(), self.as_ptr(), offset)
        };
        Ok(())
    }

    /// Where in the bio the data of its sector `first` begins, in bytes, when that and what follows are `bytes` bytes at least
    /// and the bio has data pages of its own for this operation.
    fn offset_of_data(&self, operation: Operation, first: usize, bytes: usize) -> Result<u32> {
        let offset = first.checked_mul(512).ok_or(EINVAL)?;
        let end = offset.checked_add(bytes).ok_or(EINVAL)?;
        // Only a plain read or write is known to have a page for every byte of its size.
        if self.operation() == operation && end <= self.bytes() as usize {
            Ok(offset as u32)
        } else {
            Err(EINVAL)
        }
    }

    /// The bio behind this one in a list that the owner keeps.
    #[inline]
    pub(crate) fn next(&self) -> Option<NonNull<bindings::bio>> {
        // SAFETY: By the type invariant the bio is live.
        NonNull::new(unsafe { (*self.as_ptr()).bi_next })
    }

    /// Links another bio, or none, behind this one.
    #[inline]
    pub(crate) fn set_next(&mut self, next: Option<NonNull<bindings::bio>>) {
        let next = next.map_or(core::ptr::null_mut(), NonNull::as_ptr);
        // SAFETY: By the type invariant the bio is live and nobody else changes it.
        unsafe { (*self.as_ptr()).bi_next = next };
    }
}

// These are macros with casts that bindgen cannot evaluate (`include/linux/blk_types.h`); `bindings/layout.c` compares them with
// the kernel's headers.

/// `REQ_OP_MASK`: the part of `bi_opf` that is the operation.
const OPERATION_MASK: u32 = (1 << bindings::REQ_OP_BITS) - 1;
/// `REQ_PREFLUSH`.
const PREFLUSH: u32 = 1 << bindings::req_flag_bits___REQ_PREFLUSH;
/// `REQ_POLLED`.
const POLLED: u32 = 1 << bindings::req_flag_bits___REQ_POLLED;
/// `REQ_DRV`.
const DRIVER: u32 = 1 << bindings::req_flag_bits___REQ_DRV;
/// `REQ_RAHEAD`.
const READAHEAD: u32 = 1 << bindings::req_flag_bits___REQ_RAHEAD;
/// `REQ_FUA`.
const FUA: u32 = 1 << bindings::req_flag_bits___REQ_FUA;
/// `REQ_ATOMIC`.
const ATOMIC: u32 = 1 << bindings::req_flag_bits___REQ_ATOMIC;
/// The flag `BIO_REMAPPED`.
const REMAPPED: u16 = 1 << bindings::BIO_REMAPPED;
/// The flag `BIO_BPS_THROTTLED`.
const THROTTLED: u16 = 1 << bindings::BIO_BPS_THROTTLED;
