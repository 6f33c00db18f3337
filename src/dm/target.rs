// SPDX-License-Identifier: GPL-2.0

//! The trait that a target implements, its instances, and its registration.

use crate::bindings;
use crate::block::device::BlockDevice;
use crate::block::noio;
use crate::dm::device::Device;
use crate::dm::device::DeviceId;
use crate::dm::device::Devices;
use crate::dm::request::Deferred;
use crate::dm::request::Ended;
use crate::dm::request::Finished;
use crate::dm::request::Mapped;
use crate::dm::request::Memory;
use crate::dm::request::Owner;
use crate::dm::request::Request;
use crate::dm::text::OwnedWords;
use crate::dm::text::Text;
use crate::dm::text::Words;
use core::ffi::CStr;
use core::marker::PhantomData;
use core::ops::Deref;
use core::ptr::NonNull;
use core::sync::atomic::AtomicUsize;
use core::sync::atomic::Ordering;
use kernel::error::from_result;
use kernel::error::to_result;
use kernel::ffi::c_char;
use kernel::ffi::c_int;
use kernel::ffi::c_uint;
use kernel::ffi::c_ulong;
use kernel::ffi::c_void;
use kernel::new_mutex;
use kernel::prelude::*;
use kernel::sync::Mutex;
use kernel::time::delay::fsleep;
use kernel::time::msecs_to_jiffies;
use kernel::time::Delta;
use kernel::time::Msecs;
use kernel::time::NSEC_PER_MSEC;
use kernel::types::Opaque;
use kernel::ThisModule;

/// Why a table line is not accepted.
pub(crate) struct Refusal {
    /// A sentence for the user.
    pub(crate) reason: &'static CStr,
    /// The error number of the ioctl.
    pub(crate) error: Error,
}

impl Refusal {
    /// The arguments are not valid (`EINVAL`).
    pub(crate) const fn invalid(reason: &'static CStr) -> Self {
        Self {
            reason,
            error: EINVAL,
        }
    }
}

/// Which text is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StatusKind {
    /// `dmsetup status`.
    Info,
    /// `dmsetup table`: arguments that make the same instance again.
    Table,
    /// The measurement of the integrity subsystem, without the name and the version of the target.
    Ima,
}

/// A part of a device that an instance uses, for [`Target::for_each_area`].
pub(crate) struct Area<'a> {
    /// The device.
    pub(crate) device: &'a Device,
    /// The first sector.
    pub(crate) start: u64,
    /// The number of sectors.
    pub(crate) sectors: u64,
}

/// A device-mapper target.
///
/// All functions but [`Self::configure`] and [`Self::new`] get the instance as a shared reference, as
/// several of them may run at the same time.
pub(crate) trait Target: Sized + Send + Sync + 'static {
    /// The name in a table line.
    const NAME: &'static CStr;

    /// Major, minor and patch level of the interface.
    const VERSION: [u32; 3];

    /// What [`Self::configure`] finds out and [`Self::new`] builds upon.
    type Config;

    /// Reads the arguments of a table line and opens the devices. May sleep; must not write to a device.
    fn configure(words: Words<'_>, setup: &mut Setup<'_>) -> Result<Self::Config, Refusal>;

    /// Makes the instance.
    fn new(config: Self::Config) -> impl PinInit<Self, Error>;

    /// Deals with a request. Runs on many processors at once and must not sleep.
    fn map<'r>(this: &Live<Self>, request: Request<'r>) -> Mapped<'r>;

    /// The I/O of a request has ended. May run in interrupt context.
    fn end_io<'r>(this: &Live<Self>, ended: Ended<'r>) -> Finished<'r>;

    /// Does what [`Live::queue_work`] and its like asked for. May sleep.
    fn work(this: &Live<Self>);

    /// Does what [`Live::queue_background`] asked for: what nobody waits for. May sleep.
    fn background(this: &Live<Self>);

    /// The instance is about to get requests. Whatever may write to devices starts here. May sleep.
    fn preresume(this: &Live<Self>) -> Result;

    /// Every target of the table is ready, and requests come from now on. May sleep.
    fn resume(this: &Live<Self>);

    /// A suspend begins. Requests still come; what takes long should come to an end.
    fn presuspend(this: &Live<Self>);

    /// The suspend that had begun was given up.
    fn presuspend_undo(this: &Live<Self>);

    /// All requests have ended. Nothing may use the devices when this returns. May sleep.
    fn postsuspend(this: &Live<Self>);

    /// Writes one line of text.
    fn status(this: &Live<Self>, kind: StatusKind, text: &mut Text<'_>);

    /// Carries out a message. May sleep. A text that was written is shown to the sender.
    fn message(this: &Live<Self>, words: Words<'_>, reply: &mut Text<'_>) -> Result;

    /// Calls `visit` for each area of a device that is used, until it returns something else than 0, and
    /// returns that. The limits of the mapped device are made from those of the areas.
    fn for_each_area(this: &Live<Self>, visit: &mut dyn FnMut(Area<'_>) -> c_int) -> c_int;

    /// The device that ioctls are passed on to.
    fn ioctl_device(this: &Live<Self>) -> DeviceId;
}

/// A table line whose instance is being made.
pub(crate) struct Setup<'a> {
    ti: NonNull<bindings::dm_target>,
    devices: &'a mut Devices,
}

impl Setup<'_> {
    /// The mode of the table.
    fn mode(&self) -> bindings::blk_mode_t {
        // SAFETY: `ti` is a target under construction, so it has its table.
        let table = unsafe { (*self.ti.as_ptr()).table };
        // SAFETY: The table is under construction.
        unsafe { bindings::dm_table_get_mode(table) }
    }

    /// Whether the table is read-only.
    pub(crate) fn is_read_only(&self) -> bool {
        self.mode() & BLK_OPEN_WRITE == 0
    }

    /// The number of sectors of the table line.
    pub(crate) fn sectors(&self) -> u64 {
        // SAFETY: `ti` is a target under construction, and its length was set before.
        unsafe { (*self.ti.as_ptr()).len }
    }

    /// Opens a device by its path or its `major:minor`, in the mode of the table.
    pub(crate) fn open(&mut self, path: &CStr) -> Result<DeviceId> {
        let mode = self.mode();
        self.devices.open(path, mode)
    }

    /// A device that was opened.
    pub(crate) fn device(&self, id: DeviceId) -> Option<&BlockDevice> {
        self.devices.get(id).map(Device::block_device)
    }
}

/// `BLK_OPEN_WRITE` of `include/linux/blkdev.h`, a macro with a cast that bindgen cannot evaluate; `bindings/layout.c` compares it
/// with the kernel's headers.
const BLK_OPEN_WRITE: bindings::blk_mode_t = 1 << 1;

/// An instance of a target: one line of a table.
///
/// # Invariants
///
/// `ti` is the `struct dm_target` whose `private` points to this object, from the end of the constructor to
/// the destructor.
// The fields are dropped in this order: no work runs when the target is dropped, and the devices are
// closed last.
#[pin_data]
pub(crate) struct Live<T: Target> {
    #[pin]
    worker: Worker,
    #[pin]
    background: Worker,
    #[pin]
    target: T,
    devices: Devices,
    ti: NonNull<bindings::dm_target>,
}

// SAFETY: Instances are made and dropped on any thread, and `T` and `Devices` are `Send`.
unsafe impl<T: Target> Send for Live<T> {}
// SAFETY: `T` and `Devices` are `Sync`, `Worker` is a work item and a workqueue of the kernel, and what `ti` points
// to is read only.
unsafe impl<T: Target> Sync for Live<T> {}

impl<T: Target> Deref for Live<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        &self.target
    }
}

impl<T: Target> Live<T> {
    /// A device of this instance.
    #[inline(always)]
    pub(crate) fn device(&self, id: DeviceId) -> Option<&Device> {
        self.devices.get(id)
    }

    /// This instance, as the owner of requests that it puts aside.
    pub(crate) fn owner(&self) -> Owner<'_> {
        Owner::new(self.ti.as_ptr().cast_const().cast())
    }

    /// Sends a request that this instance has put aside or taken back to `sector` of a device of its own.
    ///
    /// The request of another instance fails, and so does one for the device of another: the table that it belongs to
    /// knows nothing of it, and would close the device while it is under way.
    pub(crate) fn submit(&self, request: Deferred, device: &Device, sector: u64, tag: usize) {
        let own = self.device(device.id());
        let is_own = own.is_some_and(|own| core::ptr::eq(own, device));
        if is_own && request.belongs_to(self.owner()) {
            request.submit(device, sector, tag);
        }
    }

    /// The first sector of the table line on the mapped device.
    #[inline(always)]
    pub(crate) fn begin(&self) -> u64 {
        // SAFETY: By the type invariant the target is live; its `begin` does not change.
        unsafe { (*self.ti.as_ptr()).begin }
    }

    /// The number of sectors of the table line.
    #[inline(always)]
    pub(crate) fn sectors(&self) -> u64 {
        // SAFETY: By the type invariant the target is live; its `len` does not change.
        unsafe { (*self.ti.as_ptr()).len }
    }

    /// The table that the instance is a line of.
    fn table(&self) -> *mut bindings::dm_table {
        // SAFETY: By the type invariant the target is live; its `table` does not change.
        unsafe { (*self.ti.as_ptr()).table }
    }

    /// The name of the mapped device in the kernel's log: `major:minor`.
    pub(crate) fn name(&self) -> &CStr {
        // SAFETY: The table of a live target is live.
        let md = unsafe { bindings::dm_table_get_md(self.table()) };
        // SAFETY: The mapped device outlives its tables.
        let name = unsafe { bindings::dm_device_name(md) };
        // SAFETY: The name is a string in the mapped device, which is written once.
        unsafe { CStr::from_char_ptr(name) }
    }

    /// Makes sure that no other instance of this target has claimed a sector of `device`, and claims it until this
    /// instance goes. Two tables of one mapped device may claim the same, as those of a reload do. Sleeps.
    ///
    /// # Errors
    ///
    /// `EBUSY` when another instance has claimed it.
    pub(crate) fn claim(&self, device: &Device) -> Result {
        let device = device.block_device();
        // SAFETY: The table of a live target is live.
        let md = unsafe { bindings::dm_table_get_md(self.table()) };
        let owner: *const c_void = core::ptr::from_ref(self).cast();
        let mut claims = self.registration().claims.lock();
        let taken = claims.iter().any(|claim| {
            // SAFETY: The claim is removed before the instance that made it closes the device.
            let overlaps = unsafe { BlockDevice::from_raw(claim.bdev) }.overlaps(device);
            let shared = claim.md == md && claim.table != self.table() || claim.owner == owner;
            overlaps && !shared
        });
        if taken {
            return Err(EBUSY);
        }
        let known = |claim: &Claim| claim.owner == owner && claim.bdev == device.as_ptr();
        if claims.iter().any(known) {
            return Ok(());
        }
        let claim = Claim {
            bdev: device.as_ptr(),
            md,
            table: self.table(),
            owner,
        };
        claims.push(claim, GFP_KERNEL)?;
        Ok(())
    }

    /// Gives up what the instance has claimed.
    fn give_up_claims(&self) {
        let owner: *const c_void = core::ptr::from_ref(self).cast();
        self.registration()
            .claims
            .lock()
            .retain(|claim| claim.owner != owner);
    }

    /// The registration that the instance was made by.
    fn registration(&self) -> &Registration<T> {
        // SAFETY: By the type invariant the target is live; its type does not change.
        let target_type = unsafe { (*self.ti.as_ptr()).type_ };
        let offset = core::mem::offset_of!(Registration<T>, target_type);
        // SAFETY: A target whose constructor is `Callbacks<T>::ctr` has the type that is a field of a `Registration<T>`.
        let registration = unsafe { target_type.byte_sub(offset) }.cast::<Registration<T>>();
        // SAFETY: A registration is not dropped while there is an instance.
        unsafe { &*registration }
    }

    /// Wakes everybody who waits for an event of the mapped device. May sleep.
    pub(crate) fn event(&self) {
        // SAFETY: The table of a live target is live.
        unsafe { bindings::dm_table_event(self.table()) };
    }

    /// Has [`Target::work`] called soon, at least once after this call. May be called in any context.
    pub(crate) fn queue_work(&self) {
        self.worker.queue();
    }

    /// Has [`Target::background`] called after some time, whatever was asked for before. May be called in any context.
    pub(crate) fn queue_background(&self, delay: Delta) {
        self.background.queue_in(delay);
    }

    /// The same, but what was asked for before stays as it is.
    pub(crate) fn queue_background_after(&self, delay: Delta) {
        self.background.queue_after(delay);
    }

    /// Waits until [`Target::background`] does not run, and it will not before it is queued again. Sleeps.
    pub(crate) fn stop_background(&self) {
        self.background.cancel();
    }

    /// Has [`Target::work`] called after some time, whatever was asked for before. May be called in any context.
    pub(crate) fn queue_work_in(&self, delay: Delta) {
        self.worker.queue_in(delay);
    }

    /// Has [`Target::work`] called after some time at the latest. May be called in any context.
    pub(crate) fn queue_work_after(&self, delay: Delta) {
        self.worker.queue_after(delay);
    }
}

/// A delay in the unit of timers.
fn jiffies(delay: Delta) -> c_ulong {
    // A part of a millisecond counts as one, so that nobody comes too soon and asks again at once.
    let milliseconds = delay.as_nanos().saturating_add(NSEC_PER_MSEC - 1) / NSEC_PER_MSEC;
    let milliseconds = milliseconds.clamp(0, Msecs::MAX.into());
    msecs_to_jiffies(milliseconds as Msecs)
}

/// A work item and the workqueue that it runs on.
///
/// # Invariants
///
/// `queue` is a workqueue that this object owns; `work` is initialised and is queued nowhere else.
#[pin_data(PinnedDrop)]
struct Worker {
    queue: NonNull<bindings::workqueue_struct>,
    #[pin]
    work: Opaque<bindings::delayed_work>,
}

impl Worker {
    /// Has `allocate` make a workqueue, and makes the work item with `function` in it. The workqueue is made when there is
    /// memory for this object, which will destroy it.
    ///
    /// # Safety
    ///
    /// `allocate` gives null or a workqueue that nobody else has. `function` may be called with this object's work item from
    /// [`Self::queue`] on until this object is dropped.
    unsafe fn new(
        allocate: impl FnOnce() -> *mut bindings::workqueue_struct,
        function: unsafe extern "C" fn(*mut bindings::work_struct),
    ) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            // INVARIANT: By the requirements of this function.
            queue: NonNull::new(allocate()).ok_or(ENOMEM)?,
            // INVARIANT: The work item is initialised before it can be queued.
            work <- Opaque::ffi_init(|work| {
                // SAFETY: `work` is memory for a work item that stays where it is.
                unsafe { bindings::dm_remap_init_work(work, Some(function)) }
            }),
        })
    }

    /// Queues the work item, to be run soon.
    fn queue(&self) {
        self.queue_in(Delta::from_millis(0));
    }

    /// Queues the work item, to be run after some time.
    fn queue_in(&self, delay: Delta) {
        // SAFETY: By the type invariant the workqueue is live and the work item initialised. An item that is
        // queued already, or waits, is queued anew.
        unsafe {
            bindings::mod_delayed_work_on(
                bindings::wq_misc_consts_WORK_CPU_UNBOUND as c_int,
                self.queue.as_ptr(),
                self.work.get(),
                jiffies(delay),
            )
        };
    }

    /// Queues the work item, to be run after some time, unless it is queued or waits already.
    fn queue_after(&self, delay: Delta) {
        // SAFETY: As for `queue`. An item that is queued already, or waits, is left alone.
        unsafe {
            bindings::queue_delayed_work_on(
                bindings::wq_misc_consts_WORK_CPU_UNBOUND as c_int,
                self.queue.as_ptr(),
                self.work.get(),
                jiffies(delay),
            )
        };
    }
}

impl Worker {
    /// Takes the work item from the queue, and waits until it does not run. Sleeps.
    fn cancel(&self) {
        // SAFETY: By the type invariant the work item is initialised.
        unsafe { bindings::cancel_delayed_work_sync(self.work.get()) };
    }

    /// Does the same, for ever: the work item cannot be queued any more. Sleeps.
    fn disable(&self) {
        // SAFETY: By the type invariant the work item is initialised.
        unsafe { bindings::disable_delayed_work_sync(self.work.get()) };
    }
}

#[pinned_drop]
impl PinnedDrop for Worker {
    fn drop(self: Pin<&mut Self>) {
        self.disable();
        // SAFETY: By the type invariant the workqueue is live, and nothing else uses it: the work item neither waits nor runs, and
        // cannot be queued.
        unsafe { bindings::destroy_workqueue(self.queue.as_ptr()) };
    }
}

/// The functions that device mapper calls.
struct Callbacks<T: Target>(PhantomData<T>);

impl<T: Target> Callbacks<T> {
    /// Borrows the instance.
    ///
    /// # Safety
    ///
    /// The constructor of `ti` has succeeded, and its destructor runs after `'a`.
    #[inline(always)]
    unsafe fn live<'a>(ti: *mut bindings::dm_target) -> &'a Live<T> {
        // SAFETY: By the requirements of this function `ti` is live.
        let private = unsafe { (*ti).private };
        // SAFETY: The constructor has stored an instance there, which is only borrowed before the destructor.
        unsafe { &*private.cast::<Live<T>>() }
    }

    /// # Safety
    ///
    /// `ti` is a target under construction of this type, `argc` and `argv` are its arguments.
    unsafe extern "C" fn ctr(
        ti: *mut bindings::dm_target,
        argc: c_uint,
        argv: *mut *mut c_char,
    ) -> c_int {
        let Some(ti) = NonNull::new(ti) else {
            return EINVAL.to_errno();
        };
        // SAFETY: By the requirements of this function.
        let words = unsafe { OwnedWords::copy(argc, argv) }.map_err(|error| Refusal {
            reason: c"Not enough memory for the arguments",
            error,
        });
        // SAFETY: By the requirements of this function.
        match words.and_then(|words| unsafe { Self::construct(ti, words.words()) }) {
            Ok(()) => 0,
            Err(refusal) => {
                // SAFETY: `ti` is valid; device mapper prints the string and does not change or free it.
                unsafe { (*ti.as_ptr()).error = refusal.reason.as_char_ptr().cast_mut() };
                refusal.error.to_errno()
            }
        }
    }

    /// Makes the instance and leaves it in `ti`.
    ///
    /// # Safety
    ///
    /// `ti` is a target under construction of this type.
    unsafe fn construct(ti: NonNull<bindings::dm_target>, words: Words<'_>) -> Result<(), Refusal> {
        // SAFETY: `ti` is under construction. The devices are dropped here, when the constructor fails, or with
        // the instance, in the destructor.
        let mut devices = unsafe { Devices::new(ti) };
        let mut setup = Setup {
            ti,
            devices: &mut devices,
        };
        let config = T::configure(words, &mut setup)?;
        let flushes = devices.count();
        // SAFETY: A target under construction has its table.
        let table = unsafe { (*ti.as_ptr()).table };
        // SAFETY: The table has its mapped device.
        let md = unsafe { bindings::dm_table_get_md(table) };
        // SAFETY: The mapped device outlives its tables.
        let name = unsafe { bindings::dm_device_name(md) };
        // SAFETY: The name is a string in the mapped device.
        let name = unsafe { CStr::from_char_ptr(name) };
        // SAFETY: The name is a string.
        let allocate = || unsafe { bindings::dm_remap_alloc_workqueue(name.as_char_ptr()) };
        // SAFETY: The workqueue is a new one. `run` may be called with the work item of a `Live` until its workers are dropped,
        // which are the first fields to be.
        let worker = unsafe { Worker::new(allocate, Self::run) };
        let allocate =
            // SAFETY: The name is a string.
            || unsafe { bindings::dm_remap_alloc_background_workqueue(name.as_char_ptr()) };
        // SAFETY: As above.
        let background = unsafe { Worker::new(allocate, Self::run_background) };
        let live = KBox::pin_init(
            try_pin_init!(Live {
                worker <- worker,
                background <- background,
                target <- T::new(config),
                devices,
                // INVARIANT: `private` is set below.
                ti,
            }? Error),
            GFP_KERNEL,
        )
        .map_err(|error| Refusal {
            reason: c"Not enough memory for the target",
            error,
        })?;
        // SAFETY: The instance stays pinned: it is only unboxed again to be dropped.
        let live = KBox::into_raw(unsafe { Pin::into_inner_unchecked(live) });
        // SAFETY: `ti` is under construction, so nobody else uses it.
        let ti = unsafe { &mut *ti.as_ptr() };
        ti.private = live.cast();
        // A flush goes to every device; what has sectors comes once, and is cut where its place changes.
        ti.num_flush_bios = flushes as c_uint;
        ti.num_discard_bios = 1;
        ti.num_secure_erase_bios = 1;
        ti.num_write_zeroes_bios = 1;
        ti.set_accounts_remapped_io(true);
        ti.per_io_data_size = core::mem::size_of::<Memory>() as c_uint;
        // SAFETY: The instance was just made and is not dropped before the destructor.
        let live = unsafe { &*live };
        live.registration().instances.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    /// # Safety
    ///
    /// The constructor of `ti` has succeeded, no request is under way and none will come.
    unsafe extern "C" fn dtr(ti: *mut bindings::dm_target) {
        // SAFETY: By the requirements of this function.
        let live = unsafe { (*ti).private }.cast::<Live<T>>();
        // SAFETY: By the requirements of this function the instance is there.
        unsafe { &*live }.give_up_claims();
        // SAFETY: As above.
        let registration: *const Registration<T> = unsafe { &*live }.registration();
        // The work items use the instance, and queue each other.
        // SAFETY: As above.
        unsafe { &*live }.worker.disable();
        // SAFETY: As above.
        unsafe { &*live }.background.disable();
        // SAFETY: The constructor has stored a box there. Device mapper calls nothing for this target after the
        // destructor, and the work items are disabled, so this is the only user.
        let live = unsafe { KBox::from_raw(live) };
        // SAFETY: The instance has been pinned since it was made, and is dropped where it is.
        drop(unsafe { Pin::new_unchecked(live) });
        // SAFETY: The registration waits until no instance is counted.
        let instances = unsafe { &raw const (*registration).instances };
        // SAFETY: As above: this is the last use of it.
        unsafe { &*instances }.fetch_sub(1, Ordering::AcqRel);
    }

    /// # Safety
    ///
    /// `ti` is live and `bio` is a clone that device mapper has made for it.
    unsafe extern "C" fn map(ti: *mut bindings::dm_target, bio: *mut bindings::bio) -> c_int {
        // SAFETY: Device mapper maps requests between constructor and destructor only.
        let live = unsafe { Self::live(ti) };
        // SAFETY: By the requirements of this function the bio is valid, so not null.
        let bio = unsafe { NonNull::new_unchecked(bio) };
        // SAFETY: This is the `map` callback, and it returns the number of what the request became.
        let request = unsafe { Request::from_raw(bio) };
        T::map(live, request).into_raw()
    }

    /// # Safety
    ///
    /// `ti` is live, `bio` is a clone that was mapped for it and has ended, `error` is its status.
    unsafe extern "C" fn end_io(
        ti: *mut bindings::dm_target,
        bio: *mut bindings::bio,
        _error: *mut bindings::blk_status_t,
    ) -> c_int {
        // SAFETY: Device mapper calls the destructor after all requests have ended, so while this one is not given away;
        // whoever gives it away gets an RCU read-side critical section, which ends in `into_raw` and for which
        // `dm_sync_table()` waits before the destructor.
        let live = unsafe { Self::live(ti) };
        // SAFETY: By the requirements of this function the bio is valid, so not null.
        let bio = unsafe { NonNull::new_unchecked(bio) };
        // SAFETY: This is the completion callback of the bio, and it returns the number of what the request became.
        let ended = unsafe { Ended::from_raw(bio) };
        T::end_io(live, ended).into_raw()
    }

    /// The instance of which a work item is a part.
    ///
    /// # Safety
    ///
    /// `work` is the work item of the worker at `offset` in a `Live<T>` that is not dropped before `'a` ends.
    unsafe fn live_of<'a>(work: *mut bindings::work_struct, offset: usize) -> &'a Live<T> {
        let in_worker = core::mem::offset_of!(bindings::delayed_work, work)
            + core::mem::offset_of!(Worker, work);
        // SAFETY: By the requirements of this function.
        let live = unsafe { work.byte_sub(in_worker + offset) }.cast::<Live<T>>();
        // SAFETY: By the requirements of this function.
        unsafe { &*live }
    }

    /// # Safety
    ///
    /// `work` is the work item of the worker of an instance that has not been dropped.
    unsafe extern "C" fn run(work: *mut bindings::work_struct) {
        // SAFETY: By the requirements of this function; to drop the worker waits for this function.
        T::work(unsafe { Self::live_of(work, core::mem::offset_of!(Live<T>, worker)) });
    }

    /// # Safety
    ///
    /// `work` is the work item of the background worker of an instance that has not been dropped.
    unsafe extern "C" fn run_background(work: *mut bindings::work_struct) {
        // SAFETY: As for `run`.
        T::background(unsafe { Self::live_of(work, core::mem::offset_of!(Live<T>, background)) });
    }

    /// # Safety
    ///
    /// `ti` is live.
    unsafe extern "C" fn preresume(ti: *mut bindings::dm_target) -> c_int {
        from_result(|| {
            // SAFETY: By the requirements of this function.
            T::preresume(unsafe { Self::live(ti) })?;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// `ti` is live.
    unsafe extern "C" fn resume(ti: *mut bindings::dm_target) {
        // SAFETY: By the requirements of this function.
        T::resume(unsafe { Self::live(ti) });
    }

    /// # Safety
    ///
    /// `ti` is live.
    unsafe extern "C" fn presuspend(ti: *mut bindings::dm_target) {
        // SAFETY: By the requirements of this function.
        T::presuspend(unsafe { Self::live(ti) });
    }

    /// # Safety
    ///
    /// `ti` is live.
    unsafe extern "C" fn presuspend_undo(ti: *mut bindings::dm_target) {
        // SAFETY: By the requirements of this function.
        T::presuspend_undo(unsafe { Self::live(ti) });
    }

    /// # Safety
    ///
    /// `ti` is live.
    unsafe extern "C" fn postsuspend(ti: *mut bindings::dm_target) {
        // SAFETY: By the requirements of this function.
        T::postsuspend(unsafe { Self::live(ti) });
    }

    /// # Safety
    ///
    /// `ti` is live and `result` has room for `maxlen` bytes.
    unsafe extern "C" fn status(
        ti: *mut bindings::dm_target,
        kind: bindings::status_type_t,
        _flags: c_uint,
        result: *mut c_char,
        maxlen: c_uint,
    ) {
        // SAFETY: By the requirements of this function.
        let live = unsafe { Self::live(ti) };
        // SAFETY: By the requirements of this function, and the buffer is for this call alone.
        let mut text = unsafe { Text::from_raw(result, maxlen) };
        match kind {
            bindings::status_type_t_STATUSTYPE_INFO => T::status(live, StatusKind::Info, &mut text),
            bindings::status_type_t_STATUSTYPE_TABLE => {
                T::status(live, StatusKind::Table, &mut text);
            }
            bindings::status_type_t_STATUSTYPE_IMA => {
                let [major, minor, patch] = T::VERSION;
                // Writing to a `Text` cannot fail.
                let _ = core::fmt::Write::write_fmt(
                    &mut text,
                    format_args!(
                        "target_name={},target_version={major}.{minor}.{patch}",
                        T::NAME.to_str().unwrap_or_default(),
                    ),
                );
                T::status(live, StatusKind::Ima, &mut text);
            }
            _ => {}
        }
    }

    /// # Safety
    ///
    /// `ti` is live, `argc` and `argv` are the words of the message, `result` has room for `maxlen` bytes.
    unsafe extern "C" fn message(
        ti: *mut bindings::dm_target,
        argc: c_uint,
        argv: *mut *mut c_char,
        result: *mut c_char,
        maxlen: c_uint,
    ) -> c_int {
        // The sender holds the table, for which a suspend waits that may have frozen what reclaiming memory waits for.
        let _noio = noio::Scope::new();
        from_result(|| {
            // SAFETY: By the requirements of this function.
            let live = unsafe { Self::live(ti) };
            // SAFETY: By the requirements of this function.
            let words = unsafe { OwnedWords::copy(argc, argv) }.inspect_err(|_| {
                let name = live.name().to_str().unwrap_or_default();
                pr_warn!("{name}: message refused: there is not enough memory for its words\n");
            })?;
            // SAFETY: By the requirements of this function. The buffer overlaps the words of the message, which were
            // copied and are not looked at any more; otherwise it is for this call alone.
            let mut reply = unsafe { Text::from_raw(result, maxlen) };
            T::message(live, words.words(), &mut reply)?;
            // 1 tells device mapper that there is a text to show.
            Ok(c_int::from(!reply.is_empty()))
        })
    }

    /// # Safety
    ///
    /// `ti` is live; `visit` may be called with `data`.
    unsafe extern "C" fn iterate_devices(
        ti: *mut bindings::dm_target,
        visit: bindings::iterate_devices_callout_fn,
        data: *mut c_void,
    ) -> c_int {
        let Some(visit) = visit else {
            return 0;
        };
        // SAFETY: By the requirements of this function.
        let live = unsafe { Self::live(ti) };
        T::for_each_area(live, &mut |area| {
            // SAFETY: By the requirements of this function; the device is one of this target.
            unsafe { visit(ti, area.device.as_ptr(), area.start, area.sectors, data) }
        })
    }

    /// # Safety
    ///
    /// `ti` is live, and `bdev` is where the device goes.
    unsafe extern "C" fn prepare_ioctl(
        ti: *mut bindings::dm_target,
        bdev: *mut *mut bindings::block_device,
        _command: c_uint,
        _argument: c_ulong,
        _forward: *mut bool,
    ) -> c_int {
        // SAFETY: By the requirements of this function.
        let live = unsafe { Self::live(ti) };
        let Some(device) = live.device(T::ioctl_device(live)) else {
            return EIO.to_errno();
        };
        let device = device.block_device();
        // SAFETY: By the requirements of this function. Device mapper keeps the table until it has used the device.
        unsafe { *bdev = device.as_ptr() };
        // As for `linear`: 1 lets only privileged callers through when the device has other sectors too.
        c_int::from(live.sectors() != device.sectors())
    }
}

/// A device that an instance does not share.
///
/// # Invariants
///
/// `bdev` is open: the claim is removed before the instance that made it is dropped.
struct Claim {
    bdev: *mut bindings::block_device,
    md: *mut bindings::mapped_device,
    table: *mut bindings::dm_table,
    owner: *const c_void,
}

// SAFETY: The pointers are compared, and `bdev` is an open device, which any thread may look at.
unsafe impl Send for Claim {}

/// A target that is offered to device mapper.
///
/// # Invariants
///
/// The target type is registered for as long as this object exists.
#[pin_data(PinnedDrop)]
pub(crate) struct Registration<T: Target> {
    #[pin]
    target_type: Opaque<bindings::target_type>,
    #[pin]
    claims: Mutex<KVec<Claim>>,
    /// The instances that there are.
    instances: AtomicUsize,
    _target: PhantomData<T>,
}

// SAFETY: The object is only used to keep the registration, and any thread may end that.
unsafe impl<T: Target> Send for Registration<T> {}
// SAFETY: What a shared reference gives access to is a mutex and an atomic integer.
unsafe impl<T: Target> Sync for Registration<T> {}

impl<T: Target> Registration<T> {
    /// Registers the target of a module.
    pub(crate) fn new(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            instances: AtomicUsize::new(0),
            claims <- new_mutex!(KVec::new(), "dm_target_claims"),
            // INVARIANT: The initialiser succeeds when the target type is registered.
            target_type <- Opaque::try_ffi_init(|slot: *mut bindings::target_type| {
                let target_type = bindings::target_type {
                    features: u64::from(bindings::DM_TARGET_NOWAIT),
                    name: T::NAME.as_char_ptr(),
                    module: module.as_ptr(),
                    version: T::VERSION,
                    ctr: Some(Callbacks::<T>::ctr),
                    dtr: Some(Callbacks::<T>::dtr),
                    map: Some(Callbacks::<T>::map),
                    end_io: Some(Callbacks::<T>::end_io),
                    preresume: Some(Callbacks::<T>::preresume),
                    resume: Some(Callbacks::<T>::resume),
                    presuspend: Some(Callbacks::<T>::presuspend),
                    presuspend_undo: Some(Callbacks::<T>::presuspend_undo),
                    postsuspend: Some(Callbacks::<T>::postsuspend),
                    status: Some(Callbacks::<T>::status),
                    message: Some(Callbacks::<T>::message),
                    iterate_devices: Some(Callbacks::<T>::iterate_devices),
                    prepare_ioctl: Some(Callbacks::<T>::prepare_ioctl),
                    ..pin_init::zeroed()
                };
                // SAFETY: `slot` is memory for a target type that stays where it is.
                unsafe { slot.write(target_type) };
                // SAFETY: The target type is complete, and it is unregistered before it is dropped.
                to_result(unsafe { bindings::dm_register_target(slot) })
            }),
            _target: PhantomData,
        })
    }
}

#[pinned_drop]
impl<T: Target> PinnedDrop for Registration<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariant the target type is registered. New instances are not made from here on.
        unsafe { bindings::dm_unregister_target(self.target_type.get()) };
        // Device mapper holds the module for each instance, so at its end there is none. Whoever drops a registration
        // earlier waits for them, as they use it.
        while self.instances.load(Ordering::Acquire) > 0 {
            fsleep(Delta::from_millis(10));
        }
    }
}
