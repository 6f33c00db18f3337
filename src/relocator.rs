// SPDX-License-Identifier: GPL-2.0

//! Moving blocks: between main and the spares, while requests run.
//!
//! `docs/relocation.md` is the argument behind this file. All of it runs under one mutex per device, in a
//! scope without memory reclaim through I/O. What is changed together forms a *section*: its blocks are marked as
//! moving, the requests that were sent on before are drained, data is copied, metadata is made durable, and
//! only then the new places are published and the requests that had to wait are let go.

mod requests;

pub(crate) use requests::fault;
pub(crate) use requests::serve;

use crate::block::bio::Operation;
use crate::block::device::BlockDevice;
use crate::block::device::Buffer;
use crate::block::noio;
use crate::dm::request::DeferredList;
use crate::dm::target::Live;
use crate::health;
use crate::metadata::Changed;
use crate::metadata::Metadata;
use crate::metadata::Outcome;
use crate::metadata::Update;
use crate::remap::fault::Fault;
use crate::remap::listing;
use crate::remap::options::Setting;
use crate::remap::records::Entry;
use crate::remap::records::Record;
use crate::remap::records::Records;
use crate::remap::resolve::Direction;
use crate::remap::resolve::Layouts;
use crate::remap::resolve::Place;
use crate::remap::slot_page::replacement_time;
use crate::remap::superblock::Progress;
use crate::remap::units::Block;
use crate::remap::units::BlockSize;
use crate::remap::units::Cause;
use crate::remap::units::LiveMask;
use crate::remap::units::Sector;
use crate::remap::units::Sectors;
use crate::remap::units::Slot;
use crate::remap::units::SlotCount;
use crate::remap::units::SlotState;
use crate::remap::units::SpareIndex;
use crate::remap::units::UnixTime;
use crate::remap::units::MAX_SPARES;
use crate::sync::might_lock;
use crate::sync::rcu;
use crate::table::Index;
use crate::table::Table;
use crate::target::Mode;
use crate::target::Remap;
use crate::traffic::Kind;
use core::cell::Cell;
use core::ops::RangeInclusive;
use core::sync::atomic::Ordering;
use kernel::alloc::flags::GFP_ATOMIC;
use kernel::alloc::flags::__GFP_NOWARN;
use kernel::alloc::Flags;
use kernel::prelude::*;
use kernel::sync::lock::mutex::MutexBackend;
use kernel::sync::lock::Guard;
use kernel::time::delay::fsleep;
use kernel::time::Delta;
use kernel::time::Instant;
use kernel::time::Monotonic;

/// The most blocks that move in one section.
///
/// More of them share the flushes and pages of a section; but requests to a block wait until the whole section is
/// done, which for this many is some hundred milliseconds on a disk.
const SECTION_BLOCKS: usize = 128;

/// How long the copying in a section may take before what is left of it is put off: requests to its blocks wait, and so
/// does a suspend. One block that cannot be read may take longer than this all by itself.
const SECTION_TIME: Delta = Delta::from_millis(200);

/// For how long no block is healed after one that stayed as it was: whoever reads it again and again would have that tried as often.
const HEAL_PAUSE: Delta = Delta::from_millis(60_000);

/// How soon a block is healed while somebody waits for the relocator.
const HEAL_DELAY: Delta = Delta::from_millis(1000);

/// What the relocator owns. The mutex around it is what "the one writer" means elsewhere.
pub(crate) struct Relocator {
    /// Whether blocks may be moved: from `preresume` to `postsuspend`.
    pub(crate) running: bool,
    /// The pages on the spares, once they have been read.
    pub(crate) metadata: Option<KBox<Metadata>>,
    /// Room for a block.
    buffer: Buffer,
    /// Room for another one, to compare with.
    other: Buffer,
    /// Requests that have failed, and others that cannot be sent on as they are.
    pending: DeferredList,
    /// Room for the jobs of the worker, which must not wait for memory: requests wait for it.
    jobs: KVec<Job>,
    /// When a block was healed last that stayed as it was.
    healed_in_vain: Option<Instant<Monotonic>>,
}

impl Relocator {
    /// A relocator that does nothing yet.
    pub(crate) fn new() -> Result<Self> {
        let bytes = BlockSize::MAX.0 as usize * 512;
        Ok(Self {
            running: false,
            metadata: None,
            buffer: Buffer::new(bytes)?,
            other: Buffer::new(bytes)?,
            pending: DeferredList::new(),
            jobs: KVec::with_capacity(SECTION_BLOCKS, GFP_KERNEL)?,
            healed_in_vain: None,
        })
    }
}

/// A block that moves in a section.
struct Job {
    block: Block,
    slot: Slot,
    /// The slot that it had before, when its place there is bad.
    from: Option<Slot>,
    /// Whether the place of `slot` was found to be bad.
    slot_is_bad: bool,
    /// Why it moves.
    cause: Cause,
    /// What was live before.
    before: LiveMask,
    /// What will be live.
    after: LiveMask,
    /// Whether the block is not relocated before, or not any more after.
    whole: bool,
    /// Whether main was asked for the sectors that do not live in the slot.
    asked: bool,
    /// Why it stays as it is.
    error: Option<Error>,
    /// Why it stays as it is until the next section.
    postponed: Option<Postponed>,
}

/// What a block needs that a section has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Postponed {
    Time,
    Memory,
    /// A spare that takes it.
    Spare,
}

impl Job {
    /// A block in `slot` that has these live sectors, or moves there without any.
    fn new(block: Block, slot: Slot, live: LiveMask, whole: bool, cause: Cause) -> Self {
        Self {
            block,
            slot,
            from: None,
            slot_is_bad: false,
            cause,
            before: live,
            after: live,
            whole,
            asked: false,
            error: None,
            postponed: None,
        }
    }

    /// Whether the block stays as it is.
    fn stays(&self) -> bool {
        self.error.is_some() || self.postponed.is_some()
    }

    /// Whether the entry of the block has to change.
    fn is_change(&self) -> bool {
        self.whole || self.after != self.before
    }
}

/// Runs `f` as the relocator of the device.
///
/// # Errors
///
/// `EBUSY` while the device is suspended, `EIO` when it was never activated; see also [`lock`].
pub(crate) fn run<R>(
    this: &Live<Remap>,
    whom: For,
    f: impl FnOnce(&mut Session<'_>) -> Result<R>,
) -> Result<R> {
    let _noio = noio::Scope::new();
    let mut relocator = lock(this, whom)?;
    if !relocator.running {
        return Err(EBUSY);
    }
    let table = this.table().ok_or(EIO)?;
    let main = this.main_device().ok_or(EIO)?;
    f(&mut Session {
        this,
        table,
        main,
        relocator: &mut relocator,
        whom,
        main_answered: Cell::new(false),
        spares_answered: [const { Cell::new(None) }; MAX_SPARES],
        gave_way: Cell::new(false),
    })
}

/// Moves no block from now on, and keeps what is not in the metadata yet: the next table reads it after this.
pub(crate) fn suspend(this: &Live<Remap>) {
    let _noio = noio::Scope::new();
    let mut relocator = this.relocator.lock();
    relocator.running = false;
    if this.mode() != Mode::ReadWrite {
        return;
    }
    if let Some(metadata) = relocator.metadata.as_mut() {
        let model = this.health.to_save(health::MINUTE_OF_SERVICE);
        if (metadata.save_progress(this, this.progress(), model)).is_err() {
            metadata_failed(this, Mode::ReadOnly);
        }
    }
}

/// Degrades the device after metadata could not be written.
fn metadata_failed(this: &Live<Remap>, mode: Mode) {
    this.counts.meta_errors.fetch_add(1, Ordering::Relaxed);
    this.set_mode(mode);
}

/// For whom the relocator works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum For {
    /// Requests that have failed, which wait for it.
    Requests,
    /// The sender of a message, who may be sent a signal; or something small on the side.
    Message,
    /// The background pass.
    Pass,
    /// Nobody: sectors are to be saved that could be read just now.
    Heal,
}

/// How memory is asked for by whoever has the relocator: without waiting, as a request that waits for the relocator may be what
/// has to end for memory to become free. It may come from what the kernel keeps for such cases.
fn memory() -> Flags {
    GFP_ATOMIC | __GFP_NOWARN
}

/// How soon memory is asked for again.
const MEMORY_INTERVAL: Delta = Delta::from_millis(20);

/// The room that the index should have: twice what a section needs.
const ROOM: SlotCount = SlotCount(2 * SECTION_BLOCKS as u32);

/// Gives the index more room when it has little. Memory is waited for without the relocator.
fn make_room(this: &Live<Remap>) -> Result {
    let table = this.table().ok_or(EIO)?;
    if table.has_room(ROOM) {
        return Ok(());
    }
    let larger = table.larger_index()?;
    run(this, For::Message, |session| {
        // Somebody may have done so meanwhile.
        if session.table.has_room(ROOM) {
            return Ok(());
        }
        session.table.grow_into(larger)
    })
}

/// Does what nobody waits for: asks how the device is, saves unreadable sectors of a block of which some could be read just
/// now, gives the index more room, and writes down what the health model has learned. Says when to come again, if something is left.
pub(crate) fn maintain(this: &Live<Remap>) -> Option<Delta> {
    health::assess(this);
    let room = make_room(this);
    let kept = match this.mode() == Mode::ReadWrite && this.health.save_in().is_zero() {
        true => change_progress(this, |_| Ok(())),
        false => Ok(()),
    };
    // A suspended device has no request that waits.
    tell(this, "making room", room.and(kept));
    heal(this)
}

/// Says in the log what of the background work has failed, unless the device is suspended, or that was told of already.
fn tell(this: &Live<Remap>, what: &str, result: Result) {
    if let Err(error) = result {
        if error != EBUSY && error != EIO {
            let name = this.log_name();
            crate::warn_ratelimited!("{name}: {what} failed: {error:?}\n");
        }
    }
}

/// Saves unreadable sectors of a block of which some could be read just now. Says when to go on with the ones that are left: the
/// background work has more to do than this, and must not keep the machine from hibernating.
fn heal(this: &Live<Remap>) -> Option<Delta> {
    if this.mode() != Mode::ReadWrite {
        return None;
    }
    let block = this.healable.take()?;
    let again = match run(this, For::Heal, |session| session.heal(block)) {
        Ok(None) => Delta::from_millis(0),
        Ok(Some(again)) => {
            this.healable.note(block);
            again
        }
        Err(error) if error == EBUSY => {
            // It is due when the device is resumed.
            this.healable.note(block);
            return None;
        }
        Err(error) => {
            tell(this, "saving sectors", Err(error));
            HEAL_PAUSE
        }
    };
    (!this.healable.is_empty()).then_some(again)
}

/// Waits for the relocator, which may have a block that a disk takes minutes to read.
///
/// This looks again and again, because the kernel crate has no lock that a signal interrupts, and because a task that waits for
/// a mutex for two minutes is reported as hung. Whoever has the relocator for many sections gives way after each to those who
/// wait, see [`give_way`].
///
/// # Errors
///
/// `EINTR` after a signal, unless requests wait for it.
pub(crate) fn lock(this: &Live<Remap>, whom: For) -> Result<Guarded<'_>> {
    might_lock(&this.relocator);
    if let Some(relocator) = this.relocator.try_lock() {
        return Ok(relocator);
    }
    this.waiting.fetch_add(1, Ordering::Relaxed);
    let result = loop {
        if let Some(relocator) = this.relocator.try_lock() {
            break Ok(relocator);
        }
        if whom != For::Requests && kernel::current!().signal_pending() {
            break Err(EINTR);
        }
        fsleep(LOCK_POLL);
    };
    this.waiting.fetch_sub(1, Ordering::Relaxed);
    result
}

/// Keeps the relocator from working while `round` looks at the table, again and again until that says that it has seen all.
///
/// # Errors
///
/// Those of `round`; between two rounds also those of [`check_wanted`], unless the device is suspended: then nobody waits.
pub(crate) fn in_rounds(
    this: &Live<Remap>,
    whom: For,
    mut round: impl FnMut() -> Result<Seen>,
) -> Result {
    loop {
        let relocator = lock(this, whom)?;
        let running = relocator.running;
        let seen = round()?;
        drop(relocator);
        if seen == Seen::All {
            return Ok(());
        }
        give_way(this);
        match check_wanted(this, whom) {
            Err(error) if error == EBUSY && !running => {}
            wanted => wanted?,
        }
    }
}

/// How much somebody who looks at the table has seen of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Part,
    All,
}

/// Ends a long operation between two sections when somebody wants it to.
///
/// # Errors
///
/// `EINTR` after a signal to the sender of the message, `EBUSY` when the device is about to be suspended. The worker goes on:
/// requests wait for it, and a suspend for those.
fn check_wanted(this: &Live<Remap>, whom: For) -> Result {
    if whom == For::Requests {
        Ok(())
    } else if kernel::current!().signal_pending() {
        Err(EINTR)
    } else if this.is_suspending() {
        Err(EBUSY)
    } else {
        Ok(())
    }
}

/// Lets those who wait for the relocator have it.
fn give_way(this: &Live<Remap>) {
    if this.waiting.load(Ordering::Relaxed) > 0 {
        fsleep(GIVE_WAY);
    }
}

/// The relocator, for whoever has it now.
type Guarded<'a> = Guard<'a, Relocator, MutexBackend>;

/// How often it is looked whether the relocator is free.
const LOCK_POLL: Delta = Delta::from_millis(2);

/// How long the relocator is left to others: long enough for each of them to look.
const GIVE_WAY: Delta = Delta::from_millis(5);

/// Relocates the blocks of a range that are not, and saves what was unreadable of those that are, section by section.
///
/// # Errors
///
/// `ENOSPC` when there are not enough free slots, and nothing has changed then, unless the last ones were used up meanwhile;
/// `EINTR` after a signal; `EBUSY` when a suspend begins; otherwise the error of the first block that could not be relocated,
/// after all others were.
pub(crate) fn add(this: &Live<Remap>, range: RangeInclusive<Block>, cause: Cause) -> Result {
    run(this, For::Message, |session| session.check_room(&range))?;
    in_sections(this, *range.start(), make_room, |session, first, jobs| {
        session.add_section(first, *range.end(), cause, jobs)
    })
}

/// Copies the relocated blocks of a range back to main and frees their slots, section by section.
///
/// # Errors
///
/// `EIO` when main cannot hold one of them, after all others are back; `EINTR` after a signal; `EBUSY` when a suspend begins.
pub(crate) fn remove(this: &Live<Remap>, range: RangeInclusive<Block>) -> Result {
    let mut entries = KVec::from_elem(Entry::default(), SECTION_BLOCKS, GFP_KERNEL)?;
    let nothing = |_: &_| Ok(());
    in_sections(this, *range.start(), nothing, |session, first, jobs| {
        session.remove_section(first, *range.end(), &mut entries, jobs)
    })
}

/// Relocates the block of a sector that was found to be weak or unreadable in a place, if it is still there.
///
/// # Errors
///
/// `ENOSPC` when there is no free slot, `EBUSY` when a suspend begins, `EIO` when main does not answer at all; otherwise that of
/// the spare.
pub(crate) fn save(this: &Live<Remap>, at: Sector, place: Place) -> Result {
    make_room(this)?;
    run(this, For::Pass, |session| session.save(at, place))
}

/// Whether the device answers at all on which a place is. Main is suspected of being gone if it does not.
///
/// # Errors
///
/// Those of [`run`].
pub(crate) fn answers(this: &Live<Remap>, place: Place) -> Result<bool> {
    let origin = match place {
        Place::Spare { spare, .. } => Origin::Spare(spare),
        _ => Origin::Main,
    };
    run(this, For::Pass, |session| Ok(session.answers(origin)))
}

/// Changes how far the background pass has come, durably.
///
/// # Errors
///
/// Those of `change`, those of [`run`], and when metadata cannot be written; nothing is changed then.
pub(crate) fn change_progress(
    this: &Live<Remap>,
    change: impl Fn(&mut Progress) -> Result,
) -> Result {
    run(this, For::Message, |session| {
        session.check_writable()?;
        let mut progress = this.progress();
        change(&mut progress)?;
        let metadata = session.relocator.metadata.as_mut().ok_or(EIO)?;
        let model = this.health.to_save(health::HOUR_OF_SERVICE);
        let kept = metadata.save_progress(this, progress, model);
        kept.inspect_err(|_| metadata_failed(this, Mode::ReadOnly))?;
        // Meanwhile the pass may have come further, but nobody else can have begun or ended one.
        this.change_progress(change)
    })
}

/// Waits for what is under way, and writes down how far the background pass has come and what the health model has learned: each
/// relocation was made durable before anybody was told of it. While metadata cannot be written, what one copy has is stable.
///
/// # Errors
///
/// Those of [`run`], and when metadata cannot be written; `EIO` when nobody knows what the spares have.
pub(crate) fn sync(this: &Live<Remap>) -> Result {
    match this.mode() {
        Mode::ReadWrite => change_progress(this, |_| Ok(())),
        Mode::ReadOnly => run(this, For::Message, |_| Ok(())),
        Mode::Failed => Err(EIO),
    }
}

/// Runs one section after the other; each gives its own result, and the block at which the next one begins, or none at the
/// end. Before each it does what `prepare` does without the relocator.
fn in_sections(
    this: &Live<Remap>,
    first: Block,
    prepare: impl Fn(&Live<Remap>) -> Result,
    mut section: impl FnMut(&mut Session<'_>, Block, &mut KVec<Job>) -> Result<(Option<Block>, Result)>,
) -> Result {
    let mut jobs = KVec::with_capacity(SECTION_BLOCKS, GFP_KERNEL)?;
    let mut result = Ok(());
    let mut next = Some(first);
    while let Some(first) = next {
        prepare(this)?;
        let done = run(this, For::Message, |session| {
            session.check_wanted()?;
            session.check_writable()?;
            section(session, first, &mut jobs)
        });
        let (following, outcome) = match done {
            // What was done stays done, and is passed over the next time.
            Err(error) if error == ENOMEM => {
                jobs.clear();
                fsleep(MEMORY_INTERVAL);
                (Some(first), Ok(()))
            }
            done => done?,
        };
        result = result.and(outcome);
        if (jobs.iter()).any(|job| job.postponed == Some(Postponed::Memory)) {
            fsleep(MEMORY_INTERVAL);
        }
        let postponed = jobs.iter().find(|job| job.postponed.is_some());
        next = postponed.map(|job| job.block).or(following);
        jobs.clear();
        give_way(this);
    }
    result
}

/// Where data comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Main,
    Spare(SpareIndex),
}

/// The relocator at work.
pub(crate) struct Session<'a> {
    this: &'a Live<Remap>,
    table: &'a Table,
    main: &'a BlockDevice,
    relocator: &'a mut Relocator,
    whom: For,
    /// Whether main has carried out anything in this session.
    main_answered: Cell<bool>,
    /// Whether a spare has, when it was asked.
    spares_answered: [Cell<Option<bool>>; MAX_SPARES],
    /// Whether a block was not read to the end because somebody waits.
    gave_way: Cell<bool>,
}

impl Session<'_> {
    /// The sectors of `block`, as far as the table line goes.
    fn sectors_of(&self, block: Block) -> Sectors {
        self.table.block_size.sectors_of(block, self.table.main)
    }

    /// The mask of all sectors of `block`, as far as the table line goes.
    fn all_of(&self, block: Block) -> LiveMask {
        self.table.all_live(block)
    }

    /// The device of a spare.
    fn spare(&self, spare: SpareIndex) -> Result<&BlockDevice> {
        self.this.spare_device(spare).ok_or(ENXIO)
    }

    /// The first sector of the data of `slot` on its spare.
    fn slot_sector(&self, slot: Slot) -> Result<u64> {
        let start = self.table.spares.data_start(slot.spare()).ok_or(ENXIO)?;
        start
            .checked_add(self.table.block_size.slot_offset(slot.number()))
            .map(|sector| sector.0)
            .ok_or(EINVAL)
    }

    /// Checks that there are enough free slots for the blocks of a range that are not relocated.
    fn check_room(&mut self, range: &RangeInclusive<Block>) -> Result {
        self.check_writable()?;
        let blocks = u64::from(range.end().0.saturating_sub(range.start().0)) + 1;
        let known = listing::count_in_range(
            &self.table.hold_index(),
            &self.table.spares,
            self.table.spares.allocators(),
            range.clone(),
        );
        let spares = &self.table.spares;
        let add_up = |sum: u64, spare| sum.saturating_add(spares.free(spare));
        if blocks.saturating_sub(known.0.into()) > spares.present().fold(0, add_up) {
            self.this.counts.refused.fetch_add(1, Ordering::Relaxed);
            return Err(ENOSPC);
        }
        Ok(())
    }

    /// Relocates blocks from `first` to `last` in one section.
    fn add_section(
        &mut self,
        first: Block,
        last: Block,
        cause: Cause,
        jobs: &mut KVec<Job>,
    ) -> Result<(Option<Block>, Result)> {
        let next = self.collect_to_add(first, last, cause, jobs)?;
        Ok((next, self.relocate(jobs)))
    }

    /// Fills `jobs` with marked blocks from `first` to `last` that have to be copied, and returns where to go on.
    fn collect_to_add(
        &mut self,
        first: Block,
        last: Block,
        cause: Cause,
        jobs: &mut KVec<Job>,
    ) -> Result<Option<Block>> {
        // Neighbours stay together, and the next section may go to another spare.
        let spare = self.emptiest_spare();
        let mut block = first;
        while jobs.len() < SECTION_BLOCKS {
            match self.mark_to_add(block, spare, cause) {
                Ok(job) => {
                    if let Some(job) = job {
                        jobs.push_within_capacity(job).map_err(|_| EINVAL)?;
                    }
                }
                Err(error) => {
                    // What is marked already must not stay so. That it may fail, too, tells nothing new.
                    let _ = self.relocate(jobs);
                    return Err(error);
                }
            }
            match block.next() {
                Some(following) if following <= last => block = following,
                _ => return Ok(None),
            }
        }
        Ok(Some(block))
    }

    /// Marks a block as moving that has to be copied: [`None`] when all of it lives on a spare. It goes to `spare` if that
    /// has room.
    fn mark_to_add(
        &mut self,
        block: Block,
        spare: Option<SpareIndex>,
        cause: Cause,
    ) -> Result<Option<Job>> {
        let all = self.all_of(block);
        let found = self
            .table
            .with_index(|index| index.find(&self.table.spares, block));
        if let Some(found) = found {
            if found.live.contains(all)
                || self.this.spare_device(found.slot.spare()).is_none()
                || self.is_lost(found.slot)
            {
                return Ok(None);
            }
            self.table
                .with_index(|index| index.set_moving(&self.table.spares, block));
            return Ok(Some(Job::new(block, found.slot, found.live, false, cause)));
        }
        let slot = self.free_slot(spare)?;
        let record = Record {
            block,
            live: LiveMask::EMPTY,
            time: now(),
            cause,
        };
        self.table.insert(slot, &record, true, memory())?;
        Ok(Some(Job::new(block, slot, LiveMask::EMPTY, true, cause)))
    }

    /// Whether sectors of the block in a slot that are not live are nowhere, rather than on main.
    fn is_lost(&self, slot: Slot) -> bool {
        self.table.spares.state(slot) == SlotState::InUse(Cause::Spare)
    }

    /// Marks a relocated block as moving that goes to another slot, because its place is bad.
    fn mark_to_leave(&mut self, block: Block) -> Result<Job> {
        let find = |index: &_| Index::find(index, &self.table.spares, block);
        let found = self.table.with_index(find).ok_or(EINVAL)?;
        let former = (self.table.spares.record(found.slot)).ok_or(EINVAL)?;
        let elsewhere = |spare: &SpareIndex| *spare != found.slot.spare();
        let slot = self.free_slot(self.emptiest_of(elsewhere))?;
        let record = Record {
            block,
            live: LiveMask::EMPTY,
            time: replacement_time(former.time, now()).ok_or(ERANGE)?,
            cause: Cause::Spare,
        };
        self.table.occupy(slot, &record, memory())?;
        self.table
            .with_index(|index| index.set_moving(&self.table.spares, block));
        let mut job = Job::new(block, slot, found.live, true, Cause::Spare);
        job.from = Some(found.slot);
        Ok(job)
    }

    /// The spare that has the most free slots.
    fn emptiest_spare(&self) -> Option<SpareIndex> {
        self.emptiest_of(|_| true)
    }

    /// The one of some spares that has the most free slots, if any has one. Those that failed come last.
    fn emptiest_of(&self, wanted: impl Fn(&SpareIndex) -> bool) -> Option<SpareIndex> {
        let spares = &self.table.spares;
        let usable = (spares.present()).filter(|spare| wanted(spare) && spares.free(*spare) > 0);
        usable.max_by_key(|spare| (!self.this.has_failed(*spare), spares.free(*spare)))
    }

    /// A free slot, on the spare that is wanted if it has one.
    fn free_slot(&self, wanted: Option<SpareIndex>) -> Result<Slot> {
        let spares = &self.table.spares;
        let on = |spare| spares.get(spare)?.allocator.lowest_free(spares);
        (wanted.and_then(on))
            .or_else(|| self.emptiest_spare().and_then(on))
            .ok_or(ENOSPC)
    }

    /// Copies marked blocks to their slots, and ends the section.
    fn relocate(&mut self, jobs: &mut [Job]) -> Result {
        if jobs.is_empty() {
            return Ok(());
        }
        self.copy_all(jobs, |session, job| session.fill(job, core::iter::empty));
        self.finish(jobs);
        let first = jobs.iter().find_map(|job| job.error);
        first.map_or(Ok(()), Err)
    }

    /// Ends a section in which blocks were copied to spares: makes that durable, lets requests go to them, and tells about it.
    fn finish(&mut self, jobs: &mut [Job]) {
        self.flush_spares(jobs);
        self.settle(jobs);
        let done = |job: &&Job| job.whole && !job.stays();
        let relocated = jobs.iter().any(|job| done(&job));
        for cause in Cause::ALL {
            let blocks = jobs.iter().filter(done).filter(|job| job.cause == cause);
            match blocks.count() {
                0 => {}
                blocks => self.this.learn(cause, blocks),
            }
        }
        self.serve_deferred();
        if relocated {
            self.this.event();
        }
        self.this.note_room();
    }

    /// Drains the requests to marked blocks, and copies one block after the other, as long as there is time and nobody
    /// wants the operation to end.
    fn copy_all(&mut self, jobs: &mut [Job], copy: impl Fn(&mut Self, &mut Job) -> Result) {
        self.this.traffic.drain();
        let begun = Instant::<Monotonic>::now();
        for (at, job) in jobs.iter_mut().enumerate() {
            if at > 0 && begun.elapsed() > SECTION_TIME {
                job.postponed = Some(Postponed::Time);
                continue;
            }
            job.error = (self.check_wanted()).and_then(|()| copy(self, job)).err();
            if job.error == Some(ENOMEM) {
                job.error = None;
                job.postponed = Some(Postponed::Memory);
            }
        }
    }

    /// Makes durable what became of marked blocks, and lets requests go to them.
    fn settle(&mut self, jobs: &mut [Job]) {
        for job in jobs.iter_mut().filter(|job| !job.stays()) {
            let set = self.table.spares.set_live(job.slot, job.after);
            job.error = set.err().map(|_| EINVAL);
        }
        self.undo(jobs.iter().filter(|job| job.stays()));
        self.commit(jobs, Update::Occupy);
        for job in jobs.iter().filter(|job| !job.stays()) {
            if job.from.is_some() {
                self.this.count_departure();
                self.table
                    .with_index(|index| index.replace(&self.table.spares, job.slot, false));
            } else {
                self.publish(job.block);
            }
            self.count_unreadable(job);
        }
        self.retire_former(jobs);
    }

    /// Counts the sectors that became unreadable with a block, or readable.
    fn count_unreadable(&self, job: &Job) {
        let dead = |live| self.all_of(job.block).without(live).count().0;
        let new = job.whole && job.from.is_none();
        let before = if new { 0 } else { dead(job.before) };
        self.this.counts.change_unreadable(before, dead(job.after));
    }

    /// Takes the bad places that blocks have left out of use, durably.
    fn retire_former(&mut self, jobs: &mut [Job]) {
        let left = |job: &Job| job.from.filter(|_| !job.stays());
        if jobs.iter().all(|job| left(job).is_none()) {
            return;
        }
        rcu::grace_period();
        for slot in jobs.iter().filter_map(left) {
            self.retire(slot);
        }
        for spare in (0..MAX_SPARES).filter_map(SpareIndex::new) {
            let slots = || {
                let former = jobs.iter().filter_map(left);
                let here = former.filter(|slot| slot.spare() == spare);
                // The block was not brought back.
                here.map(|slot| Changed {
                    slot,
                    counts: false,
                })
            };
            // Without the metadata the newer entries count all the same, and the older ones may be needed if those go bad.
            if slots().next().is_some() && self.this.mode() == Mode::ReadWrite {
                let outcome = self.write_pages(spare, slots, Update::Free);
                self.degrade_after(match outcome {
                    // The newer entries count, whether or not the older ones are gone.
                    Outcome::InDoubt | Outcome::NotMade | Outcome::Starved => Outcome::OneCopy,
                    known => known,
                });
            }
        }
    }

    /// Takes a slot out of use whose place is bad. It is not in the index.
    fn retire(&self, slot: Slot) {
        let retired = self.table.retire(slot);
        debug_assert!(retired.is_ok());
    }

    /// Makes some slots of a spare durable, as they are in the records, or free.
    fn write_pages<I: Iterator<Item = Changed>>(
        &mut self,
        spare: SpareIndex,
        slots: impl Fn() -> I,
        update: Update,
    ) -> Outcome {
        match self.relocator.metadata.as_mut() {
            Some(metadata) => metadata.commit(self.this, &self.table.spares, spare, slots, update),
            None => Outcome::NotMade,
        }
    }

    /// Notes that a change of the metadata could not be made as it should.
    fn degrade_after(&self, outcome: Outcome) {
        let mode = match outcome {
            Outcome::Durable | Outcome::Starved => return,
            Outcome::NotMade if self.this.mode() != Mode::ReadWrite => return,
            Outcome::InDoubt => Mode::Failed,
            Outcome::OneCopy | Outcome::NotMade => Mode::ReadOnly,
        };
        metadata_failed(self.this, mode);
    }

    /// Takes back what was prepared for the blocks that cannot be relocated.
    fn undo<'j>(&self, jobs: impl Iterator<Item = &'j Job> + Clone) {
        for job in jobs.clone() {
            // No request may see a live mask that is not durable.
            let set = self.table.spares.set_live(job.slot, job.before);
            debug_assert!(set.is_ok());
            self.table.with_index(|index| {
                if job.whole && job.from.is_none() {
                    index.remove(&self.table.spares, job.block);
                } else {
                    index.clear_moving(&self.table.spares, job.block);
                }
            });
        }
        if jobs.clone().any(|job| job.whole) {
            rcu::grace_period();
        }
        for job in jobs.filter(|job| job.whole) {
            if job.slot_is_bad {
                self.retire(job.slot);
            } else {
                self.free(job.slot);
            }
        }
    }

    /// Gives a slot back that no request can find any more.
    fn free(&self, slot: Slot) {
        let freed = self.table.release(slot);
        debug_assert!(freed.is_ok());
    }

    /// Lets requests to a block go to where it lives now.
    fn publish(&self, block: Block) {
        self.table
            .with_index(|index| index.clear_moving(&self.table.spares, block));
    }

    /// Reads the sectors of `wanted`, counted from `start` on a device, into the same places of the buffer, and returns which
    /// of them could be read: first all at once, then, where that fails, one logical block after the other, each of them several
    /// times.
    ///
    /// # Errors
    ///
    /// `EIO` when the device does not answer at all, its error when that is not of the medium, unless a message asks for the rest
    /// all the same and what cannot be read is left behind, not lost as with `loses`; see also [`Self::check_wanted`]: a disk may take
    /// a minute for each attempt.
    fn read_from(
        &mut self,
        origin: Origin,
        start: u64,
        wanted: LiveMask,
        loses: bool,
    ) -> Result<LiveMask> {
        let this = self.this;
        let device = match origin {
            Origin::Main => self.main,
            Origin::Spare(spare) => this.spare_device(spare).ok_or(ENXIO)?,
        };
        let unit = this.config.logical_sectors;
        // To heal a block is worth one look, and nobody waits for it.
        let heals = self.whom == For::Heal;
        let attempts = match heals {
            true => 1,
            false => 1 + this.options().read_retries.get(),
        };
        let stays = loses || self.whom != For::Message;
        let mut found = LiveMask::EMPTY;
        for (at, count) in runs(wanted) {
            if self.read_once(device, start, at, count).is_ok() {
                self.note_answer(origin);
                found = found.union(mask(at, count));
                continue;
            }
            let end = at + count;
            for at in (at..end).step_by(unit) {
                let count = unit.min(end - at);
                let before = found;
                for _ in 0..attempts {
                    self.check_wanted()?;
                    if heals && self.is_waited_for() {
                        self.gave_way.set(true);
                        return Ok(found);
                    }
                    match self.read_once(device, start, at, count) {
                        Ok(()) => {
                            self.note_answer(origin);
                            found = found.union(mask(at, count));
                            break;
                        }
                        Err(error) if stays && fault(error) == Fault::Elsewhere => {
                            return Err(error)
                        }
                        Err(_) => {}
                    }
                }
                // A device that is gone must not be asked for sector after sector.
                if found == before && !self.answers(origin) {
                    return Err(EIO);
                }
            }
        }
        Ok(found)
    }

    /// Whether somebody waits for the relocator, or for a block that moves.
    fn is_waited_for(&self) -> bool {
        self.this.waiting.load(Ordering::Relaxed) > 0 || !self.this.deferred.lock().is_empty()
    }

    /// The same for sectors that are lost when they cannot be read: the device must be there after it did not give them, and is
    /// asked for them once more then, as it may just have come back.
    fn read_or_lose(&mut self, origin: Origin, start: u64, wanted: LiveMask) -> Result<LiveMask> {
        let read = self.read_from(origin, start, wanted, true)?;
        if read == wanted {
            return Ok(read);
        }
        let is_there = match origin {
            Origin::Main => self.try_main(),
            Origin::Spare(spare) => self.ask_spare(spare),
        };
        if !is_there {
            return Err(EIO);
        }
        let rest = self.read_from(origin, start, wanted.without(read), true)?;
        Ok(read.union(rest))
    }

    /// Reads a part of what begins at `start` on a device into the same place of the buffer.
    fn read_once(&mut self, device: &BlockDevice, start: u64, at: usize, count: usize) -> Result {
        let sector = start.checked_add(at as u64).ok_or(EINVAL)?;
        device.read(sector, &mut self.relocator.buffer.sectors(at, count)?)
    }

    /// Notes that a device has carried out something.
    fn note_answer(&self, origin: Origin) {
        if origin == Origin::Main {
            self.main_answered.set(true);
        }
    }

    /// Whether a device answers at all.
    fn answers(&mut self, origin: Origin) -> bool {
        match origin {
            Origin::Main => self.main_answered.get() || self.try_main(),
            Origin::Spare(spare) => self.spare_answers(spare),
        }
    }

    /// Makes the data that was written to the slots of `jobs` stable; those whose spare fails to, fail.
    fn flush_spares(&mut self, jobs: &mut [Job]) {
        for spare in (0..MAX_SPARES).filter_map(SpareIndex::new) {
            let on_spare = |job: &&mut Job| job.slot.spare() == spare && !job.stays();
            if jobs.iter_mut().any(|job| on_spare(&job)) {
                if let Err(error) = self.spare(spare).and_then(BlockDevice::flush) {
                    self.this.note_failing_spare(spare);
                    // Another spare may take them, in the next section.
                    let another = self.emptiest_spare();
                    let another = another.is_some_and(|another| !self.this.has_failed(another));
                    for job in jobs.iter_mut().filter(on_spare) {
                        if another && job.whole {
                            job.postponed = Some(Postponed::Spare);
                        } else {
                            job.error = Some(error);
                        }
                    }
                }
            }
        }
    }

    /// Makes the entries of the jobs that do not stay as they are durable: as they are in the records, or free.
    ///
    /// Where that was not done, on one spare of several maybe, the jobs get `EIO` as their error: either everything is as before
    /// then, and the block is not moving any more. Or the outcome is in doubt: then the block stays marked and requests to it
    /// fail from now on, as nobody knows which state the next activation will find.
    fn commit(&mut self, jobs: &mut [Job], update: Update) {
        for spare in (0..MAX_SPARES).filter_map(SpareIndex::new) {
            let here = |job: &Job| job.slot.spare() == spare && !job.stays() && job.is_change();
            let slots = || {
                let jobs = jobs.iter().filter(|job| here(job));
                jobs.map(|job| Changed {
                    slot: job.slot,
                    counts: job.whole && job.from.is_none(),
                })
            };
            if slots().next().is_none() {
                continue;
            }
            // After a copy was lost no further change is made.
            let outcome = match self.this.mode() {
                Mode::ReadWrite => self.write_pages(spare, slots, update),
                Mode::ReadOnly | Mode::Failed => Outcome::NotMade,
            };
            self.degrade_after(outcome);
            if outcome == Outcome::Durable || outcome == Outcome::OneCopy {
                continue;
            }
            if outcome == Outcome::NotMade || outcome == Outcome::Starved {
                let not_made = jobs.iter().filter(|job| here(job));
                match update {
                    Update::Occupy => self.undo(not_made),
                    Update::Free => not_made.for_each(|job| self.publish(job.block)),
                }
            } else if update == Update::Occupy {
                // The list has it as it may be found; but for a block that may have left a slot, which it shows there only:
                // no request can find it in the other one, which is not given to anybody else, as nothing is relocated any more.
                for job in jobs.iter().filter(|job| here(job)) {
                    match job.from {
                        None => self.count_unreadable(job),
                        Some(_) => self.free(job.slot),
                    }
                }
            }
            for job in jobs.iter_mut().filter(|job| here(job)) {
                if outcome == Outcome::Starved {
                    job.postponed = Some(Postponed::Memory);
                } else {
                    job.error = Some(EIO);
                }
            }
        }
    }

    /// See [`check_wanted`].
    fn check_wanted(&self) -> Result {
        check_wanted(self.this, self.whom)
    }

    /// Refuses to move blocks when metadata cannot be written.
    fn check_writable(&self) -> Result {
        match self.this.mode() {
            Mode::ReadWrite => Ok(()),
            Mode::ReadOnly => Err(EROFS),
            Mode::Failed => Err(EIO),
        }
    }

    /// Brings relocated blocks from `first` to `last` back to main in one section.
    fn remove_section(
        &mut self,
        first: Block,
        last: Block,
        entries: &mut [Entry],
        jobs: &mut KVec<Job>,
    ) -> Result<(Option<Block>, Result)> {
        let found = listing::blocks_in_range(
            &self.table.hold_index(),
            &self.table.spares,
            self.table.spares.allocators(),
            first..=last,
            entries,
        );
        let next = match found.last() {
            Some(end) if found.len() == SECTION_BLOCKS => end.block.next(),
            _ => None,
        };
        for entry in found {
            let marked = self
                .table
                .with_index(|index| index.set_moving(&self.table.spares, entry.block));
            let Some(marked) = marked else { continue };
            let job = Job::new(entry.block, entry.slot, marked.live, true, Cause::Message);
            jobs.push_within_capacity(job).map_err(|_| EINVAL)?;
        }
        Ok((next.filter(|next| *next <= last), self.bring_back(jobs)))
    }

    /// Copies marked blocks back to main, frees their slots, and ends the section.
    fn bring_back(&mut self, jobs: &mut [Job]) -> Result {
        if jobs.is_empty() {
            return Ok(());
        }
        self.copy_all(jobs, |session, job| session.copy_to_main(job));
        let flushed = self.main.flush();
        for job in jobs.iter_mut().filter(|job| !job.stays()) {
            job.error = flushed.and_then(|()| self.compare(job)).err();
        }
        let staying = jobs.iter().filter(|job| job.stays());
        staying.for_each(|job| self.publish(job.block));
        self.commit(jobs, Update::Free);
        for job in jobs.iter().filter(|job| !job.stays()) {
            let dead = self.all_of(job.block).without(job.before).count().0;
            self.this.counts.change_unreadable(dead, 0);
            // The block may get another slot before a request that has failed in this one is looked at.
            self.this.count_departure();
            self.table
                .with_index(|index| index.remove(&self.table.spares, job.block));
        }
        rcu::grace_period();
        for job in jobs.iter().filter(|job| !job.stays()) {
            self.free(job.slot);
        }
        self.serve_deferred();
        self.this.note_room();
        self.this.learn(Cause::Message, 0);
        let errors = jobs.iter().filter_map(|job| job.error);
        match errors.reduce(|one, other| {
            if one == EINTR || one == EBUSY {
                one
            } else {
                other
            }
        }) {
            Some(error) if error == EINTR || error == EBUSY => Err(error),
            Some(_) => Err(EIO),
            None => Ok(()),
        }
    }

    /// Copies the live sectors of a block from its slot to main.
    ///
    /// # Errors
    ///
    /// `EIO` for one that has lost sectors, too, even behind the end of the table line: main would show what it had before.
    fn copy_to_main(&mut self, job: &Job) -> Result {
        if self.is_lost(job.slot) && !job.before.contains(self.table.all_on_main(job.block)) {
            return Err(EIO);
        }
        let start = self.table.block_size.first_sector(job.block).0;
        let from = self.slot_sector(job.slot)?;
        for (at, count) in runs(job.before) {
            let spare = self.this.spare_device(job.slot.spare()).ok_or(ENXIO)?;
            let piece = &mut self.relocator.buffer.sectors(at, count)?;
            spare.read(from.checked_add(at as u64).ok_or(EINVAL)?, piece)?;
            self.main
                .write(start.checked_add(at as u64).ok_or(EINVAL)?, piece)?;
        }
        Ok(())
    }

    /// Fails with `EIO` unless main has in the live sectors of a block what its slot has.
    fn compare(&mut self, job: &Job) -> Result {
        let start = self.table.block_size.first_sector(job.block).0;
        let from = self.slot_sector(job.slot)?;
        for (at, count) in runs(job.before) {
            let spare = self.this.spare_device(job.slot.spare()).ok_or(ENXIO)?;
            let Relocator { buffer, other, .. } = &mut *self.relocator;
            let on_spare = &mut buffer.sectors(at, count)?;
            let on_main = &mut other.sectors(at, count)?;
            spare.read(from.checked_add(at as u64).ok_or(EINVAL)?, on_spare)?;
            self.main
                .read(start.checked_add(at as u64).ok_or(EINVAL)?, on_main)?;
            if on_spare.bytes() != on_main.bytes() {
                return Err(EIO);
            }
        }
        Ok(())
    }

    /// Changes an option, here and in the metadata.
    pub(crate) fn set_options(&mut self, setting: Setting) -> Result {
        self.check_writable()?;
        let metadata = self.relocator.metadata.as_mut().ok_or(EIO)?;
        let kept = metadata.set_option(self.this, setting);
        kept.inspect_err(|_| metadata_failed(self.this, Mode::ReadOnly))?;
        let before = self.this.options().automatic;
        let options = self.this.options().with(setting);
        self.this.set_options(options);
        if options.automatic != before {
            self.this.event();
        }
        Ok(())
    }

    /// Saves the unreadable sectors of a block as far as they can be read at once, or says when to try that: not soon after it was in
    /// vain for a block, nor while somebody waits.
    fn heal(&mut self, block: Block) -> Result<Option<Delta>> {
        if let Some(last) = self.relocator.healed_in_vain {
            let since = last.elapsed();
            if since < HEAL_PAUSE {
                return Ok(Some(HEAL_PAUSE - since));
            }
        }
        if self.is_waited_for() {
            return Ok(Some(HEAL_DELAY));
        }
        self.check_wanted()?;
        self.check_writable()?;
        let relocated = self
            .table
            .with_index(|index| index.find(&self.table.spares, block));
        if relocated.is_none() {
            return Ok(None);
        }
        let Some(job) = self.mark_to_add(block, None, Cause::Read)? else {
            return Ok(None);
        };
        let mut jobs = [job];
        let result = self.relocate(&mut jobs);
        if self.gave_way.get() {
            return result.map(|()| Some(HEAL_DELAY));
        }
        let changed = jobs.iter().any(|job| !job.stays() && job.is_change());
        if !changed && result != Err(EBUSY) {
            self.relocator.healed_in_vain = Some(Instant::now());
        }
        result.map(|()| None)
    }
}

/// What an operation means for a sector that could not be saved: only what writes all of it brings it to life.
pub(crate) fn direction(operation: Operation) -> Direction {
    match operation {
        Operation::Write | Operation::WriteZeroes => Direction::Write,
        Operation::Read
        | Operation::Discard
        | Operation::SecureErase
        | Operation::Flush
        | Operation::Other => Direction::Read,
    }
}

/// What a request counts as.
#[inline(always)]
pub(crate) fn kind_of(operation: Operation) -> Kind {
    match operation {
        Operation::Read => Kind::Read,
        Operation::Write | Operation::WriteZeroes => Kind::Write,
        Operation::Discard | Operation::SecureErase | Operation::Flush | Operation::Other => {
            Kind::Other
        }
    }
}

/// The mask of `count` sectors from `at` on, both less than 65.
fn mask(at: usize, count: usize) -> LiveMask {
    let all = LiveMask::first(Sectors(count as u64)).0;
    LiveMask(all.checked_shl(at as u32).unwrap_or(0))
}

/// The runs of sectors in a mask: where each begins, and how long it is.
fn runs(mask: LiveMask) -> impl Iterator<Item = (usize, usize)> {
    let mut rest = mask.0;
    core::iter::from_fn(move || {
        if rest == 0 {
            return None;
        }
        let at = rest.trailing_zeros();
        let count = rest.wrapping_shr(at).trailing_ones();
        let run = LiveMask::first(Sectors(count.into())).0;
        rest &= !run.checked_shl(at).unwrap_or(0);
        Some((at as usize, count as usize))
    })
}

/// The time of day.
pub(crate) fn now() -> UnixTime {
    UnixTime::from_seconds(crate::sync::unix_seconds())
}
