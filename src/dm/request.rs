// SPDX-License-Identifier: GPL-2.0

//! Requests: owned by exactly one piece of code at a time, from `map` to the end of their I/O.

use crate::bindings;
use crate::block::bio::Bio;
use crate::block::bio::Operation;
use crate::block::bio::Position;
use crate::block::status::Status;
use crate::dm::device::Device;
use crate::dm::device::DeviceId;
use crate::sync::rcu;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::ptr::NonNull;
use core::sync::atomic::AtomicPtr;
use core::sync::atomic::Ordering;
use kernel::ffi::c_int;
use kernel::prelude::*;
use kernel::sync::rcu::read_lock;

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

    /// Has the submitter wait for the end of the request, if it polls for that.
    pub(crate) fn clear_polled(&mut self) {
        self.bio.clear_polled();
    }

    /// Sends the request to `sector` of a device of this instance.
    #[inline(always)]
    pub(crate) fn remap(self, device: &Device, sector: u64, tag: usize) -> Mapped<'r> {
        // SAFETY: By the type invariant the bio is a clone of device mapper, and it is as it was made.
        unsafe { save(&self.bio, NO_TIME) };
        self.send(device, sector, tag)
    }

    /// The same, and notes down the time, for [`Ended::elapsed`].
    pub(crate) fn remap_timed(self, device: &Device, sector: u64, tag: usize) -> Mapped<'r> {
        // SAFETY: As in `remap`.
        unsafe { save(&self.bio, now()) };
        self.send(device, sector, tag)
    }

    /// Sends the request, which was saved.
    #[inline(always)]
    fn send(mut self, device: &Device, sector: u64, tag: usize) -> Mapped<'r> {
        self.bio.set_tag(tag);
        self.bio.set_place(device.block_device(), sector);
        Mapped {
            result: bindings::DM_MAPIO_REMAPPED as c_int,
            _brand: PhantomData,
        }
    }

    /// Ends the request.
    pub(crate) fn complete(self, status: Status, tag: usize) -> Mapped<'r> {
        let (deferred, mapped) = self.defer(Owner::nobody(), tag);
        deferred.complete(status);
        mapped
    }

    /// Puts the request aside, of the instance that `map` was called for: whoever has the [`Deferred`] deals with it from
    /// now on, maybe before this call of `map` returns.
    ///
    /// A submitter that polls is told to wait instead: polling is for requests that are on their way.
    pub(crate) fn defer(mut self, owner: Owner<'_>, tag: usize) -> (Deferred, Mapped<'r>) {
        // SAFETY: By the type invariant the bio is a clone of device mapper, and it is as it was made.
        unsafe { save(&self.bio, NO_TIME) };
        // SAFETY: As above.
        unsafe { set_owner(&self.bio, owner) };
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
/// to a device nor ended. Its owner was set.
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

    /// Whether it is an instance's, which put it aside or took it back.
    pub(super) fn belongs_to(&self, owner: Owner<'_>) -> bool {
        // SAFETY: By the type invariant the bio is a clone of device mapper, whose owner was set.
        core::ptr::eq(unsafe { owner_of(&self.bio) }, owner.0)
    }

    /// Sends the request to `sector` of a device of the instance that it belongs to.
    pub(super) fn submit(self, device: &Device, sector: u64, tag: usize) {
        let mut bio = self.into_bio();
        bio.set_status(Status::OK);
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
        unsafe { end(&bio) };
    }

    /// Copies the data of a write, from its sector `first` on, into `buffer`; fails as [`Bio::copy_to`] does.
    pub(crate) fn copy_to(&self, first: usize, buffer: &mut [u8]) -> Result {
        self.bio.copy_to(first, buffer)
    }

    /// Fills in the data of a read, from its sector `first` on, from `buffer`; fails as [`Bio::copy_from`] does.
    pub(crate) fn copy_from(&mut self, first: usize, buffer: &[u8]) -> Result {
        self.bio.copy_from(first, buffer)
    }

    /// How the request would end now: after [`Ended::keep`], as its I/O did.
    pub(crate) fn status(&self) -> Status {
        self.bio.status()
    }

    /// The word that travels with the request.
    pub(crate) fn tag(&self) -> usize {
        self.bio.tag()
    }

    /// Whether what it writes must be stable when it ends.
    pub(crate) fn is_fua(&self) -> bool {
        self.bio.is_fua()
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
        unsafe { end(&self.bio) };
    }
}

/// Ends a clone.
///
/// Whoever waits for it may do much more in a task that may sleep than after an interrupt: filesystems unpack what was read. The
/// target's worker must not, as memory may wait for it, so they are told not to sleep.
///
/// # Safety
///
/// The target owes device mapper the end of the clone, which is not used any more after this.
unsafe fn end(bio: &Bio) {
    let _guard = read_lock();
    // SAFETY: By the requirements of this function.
    unsafe { bindings::bio_endio(bio.as_ptr()) };
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

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.head.is_none()
    }

    /// The requests, from the first on.
    pub(crate) fn iter(&self) -> impl Iterator<Item = DeferredRef<'_>> {
        core::iter::successors(self.head, |bio| {
            // SAFETY: By the type invariant the bio is owned by this list, which is borrowed.
            unsafe { Bio::from_raw(*bio) }.next()
        })
        .map(|bio| {
            // SAFETY: As above.
            let bio = unsafe { Bio::from_raw(bio) };
            DeferredRef {
                // INVARIANT: By the invariant of the list, which keeps the request.
                request: ManuallyDrop::new(Deferred { bio }),
                _list: PhantomData,
            }
        })
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

/// A look at a request on a list.
pub(crate) struct DeferredRef<'a> {
    request: ManuallyDrop<Deferred>,
    _list: PhantomData<&'a DeferredList>,
}

impl core::ops::Deref for DeferredRef<'_> {
    type Target = Deferred;

    fn deref(&self) -> &Deferred {
        &self.request
    }
}

impl Drop for DeferredList {
    fn drop(&mut self) {
        while let Some(request) = self.pop() {
            drop(request);
        }
    }
}

/// Requests that were put aside where no lock can be taken. Needs no memory of its own.
///
/// # Invariants
///
/// `top` and what its `bi_next` leads to are bios with the invariant of [`Deferred`], the latest first.
pub(crate) struct DeferredStack {
    top: AtomicPtr<bindings::bio>,
}

impl DeferredStack {
    /// An empty stack.
    pub(crate) const fn new() -> Self {
        Self {
            top: AtomicPtr::new(core::ptr::null_mut()),
        }
    }

    /// Adds a request. May be called in any context.
    pub(crate) fn push(&self, request: Deferred) {
        let mut bio = request.into_bio();
        let mut top = self.top.load(Ordering::Relaxed);
        loop {
            bio.set_next(NonNull::new(top));
            // INVARIANT: The bio has the invariant of `Deferred`, and leads to those that were there.
            match self.top.compare_exchange_weak(
                top,
                bio.as_ptr(),
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                Err(other) => top = other,
            }
        }
    }

    /// Moves all requests to the end of a list, in the order in which they came.
    pub(crate) fn move_to(&self, list: &mut DeferredList) {
        // Nobody takes out a part of the stack, so what `top` leads to cannot change between a look and an exchange.
        let mut next = NonNull::new(self.top.swap(core::ptr::null_mut(), Ordering::Acquire));
        let mut reversed = None;
        while let Some(bio) = next {
            // SAFETY: By the type invariant the stack owned the bio, which is ours now.
            let mut bio = unsafe { Bio::from_raw(bio) };
            next = bio.next();
            bio.set_next(reversed);
            reversed = Some(bio.as_non_null());
        }
        while let Some(bio) = reversed {
            // SAFETY: As above.
            let mut bio = unsafe { Bio::from_raw(bio) };
            reversed = bio.next();
            bio.set_next(None);
            // INVARIANT: By the type invariant.
            list.push(Deferred { bio });
        }
    }
}

impl Drop for DeferredStack {
    fn drop(&mut self) {
        let mut list = DeferredList::new();
        self.move_to(&mut list);
        drop(list);
    }
}

/// What the layer notes down of a clone before it is sent to a device, whose drivers change it: in memory that device
/// mapper has for each clone.
#[derive(Clone, Copy)]
pub(super) struct Saved {
    position: Position,
    /// When it was sent: [`now`], or [`NO_TIME`].
    sent: i64,
}

/// What stands for no time.
const NO_TIME: i64 = 0;

/// The instance that may send a request which is put aside.
#[derive(Clone, Copy)]
pub(crate) struct Owner<'t>(*const (), PhantomData<&'t ()>);

impl Owner<'_> {
    /// The instance with this address, which is only compared.
    pub(super) const fn new(instance: *const ()) -> Self {
        Self(instance, PhantomData)
    }

    /// Nobody may send it.
    const fn nobody() -> Self {
        Self(core::ptr::null(), PhantomData)
    }
}

/// The memory that the layer has for each clone.
#[repr(C)]
pub(super) struct Memory {
    /// Written when the clone is consumed for the first time.
    saved: Saved,
    /// Written when it is put aside or taken back.
    owner: *const (),
}

/// Nanoseconds since some time before the machine was started.
fn now() -> i64 {
    // SAFETY: The function has no requirements.
    unsafe { bindings::ktime_get() }
}

/// Where the layer's memory for a clone is.
///
/// # Safety
///
/// `bio` is a clone of device mapper for a target whose `per_io_data_size` is the size of a [`Memory`].
#[inline(always)]
unsafe fn memory(bio: &Bio) -> *mut Memory {
    // SAFETY: By the requirements of this function.
    unsafe { bindings::dm_per_bio_data(bio.as_ptr(), core::mem::size_of::<Memory>()) }.cast()
}

/// Where is noted down what drivers change of a clone.
///
/// # Safety
///
/// As for [`memory`].
#[inline(always)]
unsafe fn saved(bio: &Bio) -> *mut Saved {
    // SAFETY: By the requirements of this function.
    let memory = unsafe { memory(bio) };
    // SAFETY: The memory is this clone's.
    unsafe { &raw mut (*memory).saved }
}

/// Notes down who may send a clone that is put aside.
///
/// # Safety
///
/// As for [`memory`].
unsafe fn set_owner(bio: &Bio, owner: Owner<'_>) {
    // SAFETY: By the requirements of this function.
    let memory = unsafe { memory(bio) };
    // SAFETY: The memory is this clone's; device mapper aligns it for any type.
    unsafe { (*memory).owner = owner.0 };
}

/// The address of the instance that may send a clone which was put aside.
///
/// # Safety
///
/// As for [`memory`], and [`set_owner`] was called for the clone.
unsafe fn owner_of(bio: &Bio) -> *const () {
    // SAFETY: By the requirements of this function.
    let memory = unsafe { memory(bio) };
    // SAFETY: The memory is this clone's, and by the requirements of this function that was written.
    unsafe { (*memory).owner }
}

/// Notes down which sectors and pages a clone is for, and when it is sent.
///
/// # Safety
///
/// As for [`saved`].
#[inline(always)]
unsafe fn save(bio: &Bio, sent: i64) {
    let position = bio.position();
    // SAFETY: By the requirements of this function.
    let place = unsafe { saved(bio) };
    // SAFETY: The memory is this clone's; device mapper aligns it for any type.
    unsafe { place.write(Saved { position, sent }) };
}

/// A request whose I/O has ended, as the completion callback has it.
///
/// As with [`Request`], it has to be consumed for the callback to have something to return.
///
/// # Invariants
///
/// The bio is a clone whose completion callback runs, and [`save`] was called for it since it was made.
pub(crate) struct Ended<'r> {
    bio: Bio,
    _brand: Brand<'r>,
}

/// Proof that the ended request with the same brand was dealt with, and how.
#[must_use]
pub(crate) struct Finished<'r> {
    result: c_int,
    /// What keeps the table after a request of it has gone to somebody else, who may end it at once.
    _guard: Option<rcu::Guard>,
    _brand: Brand<'r>,
}

impl Finished<'_> {
    /// The number that device mapper understands.
    #[inline(always)]
    pub(super) fn into_raw(self) -> c_int {
        self.result
    }
}

impl<'r> Ended<'r> {
    /// Takes over the bio of a completion callback.
    ///
    /// # Safety
    ///
    /// `bio` is the argument of a completion callback, of a target for which every clone becomes a [`Request`] first. Nothing
    /// else uses the bio before that callback returns the number of the [`Finished`] that this became, and `'r` is the
    /// lifetime of that call.
    #[inline(always)]
    pub(super) unsafe fn from_raw(bio: NonNull<bindings::bio>) -> Self {
        // INVARIANT: By the requirements of this function. A request is saved by whatever consumes it.
        Self {
            // SAFETY: A clone whose callback runs belongs to the target.
            bio: unsafe { Bio::from_raw(bio) },
            _brand: PhantomData,
        }
    }

    /// What was asked for.
    #[inline(always)]
    pub(crate) fn operation(&self) -> Operation {
        self.bio.operation()
    }

    /// Whether it was for any sectors when it was sent: its driver may have taken the flag from a flush that tells it from a write.
    pub(crate) fn had_sectors(&self) -> bool {
        // SAFETY: By the type invariant.
        let saved = unsafe { saved(&self.bio) };
        // SAFETY: By the type invariant it was written.
        let Saved { position, .. } = unsafe { saved.read() };
        position.sectors() > 0
    }

    /// Whether it was a guess at what will be wanted, which nobody waits for.
    pub(crate) fn is_readahead(&self) -> bool {
        self.bio.is_readahead()
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

    /// How many nanoseconds it took, if [`Request::remap_timed`] has sent it.
    pub(crate) fn elapsed(&self) -> Option<u64> {
        // SAFETY: By the type invariant.
        let saved = unsafe { saved(&self.bio) };
        // SAFETY: By the type invariant it was written.
        let Saved { sent, .. } = unsafe { saved.read() };
        (sent != NO_TIME).then(|| u64::try_from(now().wrapping_sub(sent)).unwrap_or(0))
    }

    /// Lets it end as it did.
    #[inline(always)]
    pub(crate) fn finish(self) -> Finished<'r> {
        Finished {
            result: bindings::DM_ENDIO_DONE as c_int,
            _guard: None,
            _brand: PhantomData,
        }
    }

    /// Takes the request back, of the instance that `end_io` was called for, as it was before it was sent to a device: whoever
    /// has the [`Deferred`] deals with it from now on. It has its status still.
    ///
    /// That may be before the callback has returned, and then nothing of the request keeps device mapper from taking the table
    /// away any more. So the [`Finished`] has an RCU read-side critical section: device mapper waits for those in
    /// `dm_sync_table()` before it destroys a table.
    pub(crate) fn keep(mut self, owner: Owner<'_>, tag: usize) -> (Deferred, Finished<'r>) {
        // SAFETY: By the type invariant the bio is a clone of device mapper.
        unsafe { set_owner(&self.bio, owner) };
        // SAFETY: By the type invariant.
        let saved = unsafe { saved(&self.bio) };
        // SAFETY: By the type invariant it was written.
        let Saved { position, .. } = unsafe { saved.read() };
        self.bio.restore(position);
        self.bio.set_tag(tag);
        self.bio.clear_polled();
        let finished = Finished {
            result: bindings::DM_ENDIO_INCOMPLETE as c_int,
            _guard: Some(rcu::Guard::new()),
            _brand: PhantomData,
        };
        // INVARIANT: The callback will tell device mapper that the target deals with the bio, as the brand leaves it no
        // other result, and no device has it any more.
        (Deferred { bio: self.bio }, finished)
    }
}
