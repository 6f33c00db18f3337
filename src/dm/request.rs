// SPDX-License-Identifier: GPL-2.0

//! Requests: owned by exactly one piece of code at a time, from `map` to the end of their I/O.

use crate::bindings;
use crate::block::bio::Bio;
use crate::block::bio::Operation;
use crate::block::status::Status;
use crate::dm::device::Device;
use crate::dm::device::DeviceId;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::ptr::NonNull;
use kernel::ffi::c_int;
use kernel::prelude::*;

/// The lifetime `'r` stands for one call of `map`; it is invariant, so it cannot stand for another one.
type Brand<'r> = PhantomData<fn(&'r ()) -> &'r ()>;

/// A request that `map` was called for and has not dealt with yet.
///
/// Every method that deals with it consumes it and gives a [`Mapped`] with the same brand, which is what
/// `map` has to return. The `tag` that each of them asks for travels with the request and is there when
/// its I/O ends.
///
/// # Invariants
///
/// The bio is a clone that device mapper passed to the `map` callback which still runs.
pub(crate) struct Request<'r> {
    bio: Bio,
    _brand: Brand<'r>,
}

/// Proof that the request with the same brand was dealt with, and how.
#[must_use]
pub(crate) struct Mapped<'r> {
    result: c_int,
    _brand: Brand<'r>,
}

impl Mapped<'_> {
    /// The number that device mapper understands.
    #[inline(always)]
    pub(super) fn into_raw(self) -> c_int {
        self.result
    }
}

impl<'r> Request<'r> {
    /// Takes over the bio of a `map` callback.
    ///
    /// # Safety
    ///
    /// `bio` is the argument of a `map` callback. Nothing else uses the bio before that callback returns the
    /// number of the [`Mapped`] that this request became, and `'r` is the lifetime of that call.
    #[inline(always)]
    pub(super) unsafe fn from_raw(bio: NonNull<bindings::bio>) -> Self {
        // INVARIANT: By the requirements of this function.
        Self {
            // SAFETY: A clone that is being mapped belongs to the target.
            bio: unsafe { Bio::from_raw(bio) },
            _brand: PhantomData,
        }
    }

    /// What is asked for.
    #[inline(always)]
    pub(crate) fn operation(&self) -> Operation {
        self.bio.operation()
    }

    /// Whether it reads or writes the data of sectors and nothing more: then, whether it writes.
    #[inline(always)]
    pub(crate) fn plain(&self) -> Option<bool> {
        self.bio.plain()
    }

    /// The first sector, counted from the start of the mapped device.
    #[inline(always)]
    pub(crate) fn sector(&self) -> u64 {
        self.bio.sector()
    }

    /// The number of sectors, 0 for a flush.
    #[inline(always)]
    pub(crate) fn sectors(&self) -> u32 {
        self.bio.sectors()
    }

    /// For a flush, which device this copy of it is for: device mapper sends one for each.
    #[inline]
    pub(crate) fn flush_target(&self) -> DeviceId {
        // SAFETY: By the type invariant the bio is a clone of device mapper.
        let number = unsafe { bindings::dm_bio_get_target_bio_nr(self.bio.as_ptr()) };
        DeviceId::new(number as usize)
    }

    /// Cuts the request down to its first `sectors` sectors; device mapper comes back with the rest.
    ///
    /// Fails, and leaves the request as it is, when that is no shorter part of it, or when a request of
    /// this kind must not be split.
    pub(crate) fn truncate(&mut self, sectors: u32) -> Result {
        let splittable = match self.bio.operation() {
            Operation::Flush | Operation::Other => false,
            Operation::Read
            | Operation::Write
            | Operation::WriteZeroes
            | Operation::Discard
            | Operation::SecureErase => !self.bio.is_atomic(),
        };
        if !splittable || sectors == 0 || sectors >= self.bio.sectors() {
            return Err(EINVAL);
        }
        // SAFETY: By the type invariant `map` runs for this bio. It is a copy of its own (only flushes are
        // sent several times, see `Live::new`), not atomic, and on no zoned device, as device mapper
        // refuses those for a target without `DM_TARGET_ZONED_HM`; `sectors` is less than it has.
        unsafe { bindings::dm_accept_partial_bio(self.bio.as_ptr(), sectors) };
        Ok(())
    }

    /// Sends the request to `sector` of a device of this instance.
    #[inline(always)]
    pub(crate) fn remap(mut self, device: &Device, sector: u64, tag: usize) -> Mapped<'r> {
        self.bio.set_tag(tag);
        self.bio.set_place(device.block_device(), sector);
        Mapped {
            result: bindings::DM_MAPIO_REMAPPED as c_int,
            _brand: PhantomData,
        }
    }

    /// Ends the request.
    pub(crate) fn complete(self, status: Status, tag: usize) -> Mapped<'r> {
        let (deferred, mapped) = self.defer(tag);
        deferred.complete(status);
        mapped
    }

    /// Puts the request aside: whoever has the [`Deferred`] deals with it from now on, maybe before this
    /// call of `map` returns.
    ///
    /// A submitter that polls is told to wait instead: polling is for requests that are on their way.
    pub(crate) fn defer(mut self, tag: usize) -> (Deferred, Mapped<'r>) {
        self.bio.set_tag(tag);
        self.bio.clear_polled();
        let mapped = Mapped {
            result: bindings::DM_MAPIO_SUBMITTED as c_int,
            _brand: PhantomData,
        };
        // INVARIANT: `map` will tell device mapper that the target deals with the bio, as the brand leaves it
        // no other result.
        (Deferred { bio: self.bio }, mapped)
    }
}

/// A request that was put aside.
///
/// When it is dropped, the I/O fails with an I/O error.
///
/// # Invariants
///
/// The bio is a clone for which the target has said that it deals with it, and which it has neither sent
/// to a device nor ended.
pub(crate) struct Deferred {
    bio: Bio,
}

// SAFETY: Whoever owns a bio may be any thread.
unsafe impl Send for Deferred {}

impl Deferred {
    /// What is asked for.
    pub(crate) fn operation(&self) -> Operation {
        self.bio.operation()
    }

    /// The first sector, counted from the start of the mapped device.
    pub(crate) fn sector(&self) -> u64 {
        self.bio.sector()
    }

    /// The number of sectors.
    pub(crate) fn sectors(&self) -> u32 {
        self.bio.sectors()
    }

    /// Sends the request to `sector` of a device of the same instance.
    pub(crate) fn submit(self, device: &Device, sector: u64, tag: usize) {
        let mut bio = self.into_bio();
        bio.set_tag(tag);
        bio.set_place(device.block_device(), sector);
        // SAFETY: By the type invariant the target owes device mapper this clone, and it has its device; it is
        // not used after this. `accounts_remapped_io` is set for every instance.
        unsafe { bindings::dm_submit_bio_remap(bio.as_ptr(), core::ptr::null_mut()) };
    }

    /// Sets the word that travels with the request.
    pub(crate) fn set_tag(&mut self, tag: usize) {
        self.bio.set_tag(tag);
    }

    /// Ends the request.
    pub(crate) fn complete(self, status: Status) {
        let mut bio = self.into_bio();
        bio.set_status(status);
        // SAFETY: By the type invariant the target owes device mapper the end of this clone; it is not used
        // after this.
        unsafe { bindings::bio_endio(bio.as_ptr()) };
    }

    /// Copies the data of a write into `buffer`; fails as [`Bio::copy_to`] does.
    pub(crate) fn copy_to(&self, buffer: &mut [u8]) -> Result {
        self.bio.copy_to(buffer)
    }

    /// Fills in the data of a read from `buffer`; fails as [`Bio::copy_from`] does.
    pub(crate) fn copy_from(&mut self, buffer: &[u8]) -> Result {
        self.bio.copy_from(buffer)
    }

    /// The bio, for code that takes care of its end.
    fn into_bio(self) -> Bio {
        let this = ManuallyDrop::new(self);
        // SAFETY: This object owns the bio and is not dropped, so the result is the only one that uses it.
        unsafe { Bio::from_raw(this.bio.as_non_null()) }
    }
}

impl Drop for Deferred {
    fn drop(&mut self) {
        self.bio.set_status(Status::IO_ERROR);
        // SAFETY: By the type invariant the target owes device mapper the end of this clone, and `drop` is
        // the last use of it.
        unsafe { bindings::bio_endio(self.bio.as_ptr()) };
    }
}

/// Requests that were put aside, first in, first out. Needs no memory of its own.
///
/// # Invariants
///
/// `head` and what its `bi_next` leads to are bios with the invariant of [`Deferred`]; `tail` is the last of
/// them when there is any.
pub(crate) struct DeferredList {
    head: Option<NonNull<bindings::bio>>,
    tail: Option<NonNull<bindings::bio>>,
}

// SAFETY: As for `Deferred`.
unsafe impl Send for DeferredList {}

impl DeferredList {
    /// An empty list.
    pub(crate) const fn new() -> Self {
        Self {
            head: None,
            tail: None,
        }
    }

    /// Adds a request at the end.
    pub(crate) fn push(&mut self, request: Deferred) {
        let mut bio = request.into_bio();
        bio.set_next(None);
        let new = Some(bio.as_non_null());
        match self.tail {
            // SAFETY: By the type invariant the last bio is owned by this list.
            Some(last) => unsafe { Bio::from_raw(last) }.set_next(new),
            None => self.head = new,
        }
        // INVARIANT: The bio has the invariant of `Deferred`, and is the last.
        self.tail = new;
    }

    /// Takes the first request out.
    pub(crate) fn pop(&mut self) -> Option<Deferred> {
        let first = self.head?;
        // SAFETY: By the type invariant the first bio is owned by this list.
        let mut bio = unsafe { Bio::from_raw(first) };
        self.head = bio.next();
        if self.head.is_none() {
            self.tail = None;
        }
        bio.set_next(None);
        // INVARIANT: By the type invariant, and the list does not have the bio any more.
        Some(Deferred { bio })
    }
}

impl Drop for DeferredList {
    fn drop(&mut self) {
        while let Some(request) = self.pop() {
            drop(request);
        }
    }
}

/// A request whose I/O has ended, as the completion callback sees it.
///
/// # Invariants
///
/// The bio is a clone whose completion callback runs.
pub(crate) struct Ended<'a> {
    bio: Bio,
    _call: PhantomData<&'a ()>,
}

impl Ended<'_> {
    /// Looks at the bio of a completion callback.
    ///
    /// # Safety
    ///
    /// `bio` is the argument of a completion callback that runs for as long as the result is used.
    #[inline(always)]
    pub(super) unsafe fn from_raw(bio: NonNull<bindings::bio>) -> Self {
        // INVARIANT: By the requirements of this function.
        Self {
            // SAFETY: A clone whose callback runs belongs to the target.
            bio: unsafe { Bio::from_raw(bio) },
            _call: PhantomData,
        }
    }

    /// What was asked for.
    #[inline(always)]
    pub(crate) fn operation(&self) -> Operation {
        self.bio.operation()
    }

    /// How it ended.
    #[inline(always)]
    pub(crate) fn status(&self) -> Status {
        self.bio.status()
    }

    /// The word that travelled with the request.
    #[inline(always)]
    pub(crate) fn tag(&self) -> usize {
        self.bio.tag()
    }
}
