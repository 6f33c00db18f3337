// SPDX-License-Identifier: GPL-2.0

//! The target `remap`: from a table line to requests, status and messages.

use crate::block::bio::Operation;
use crate::block::device::BlockDevice;
use crate::block::noio;
use crate::block::status::Status;
use crate::dm::device::Device;
use crate::dm::device::DeviceId;
use crate::dm::request::DeferredList;
use crate::dm::request::DeferredStack;
use crate::dm::request::Ended;
use crate::dm::request::Finished;
use crate::dm::request::Mapped;
use crate::dm::request::Request;
use crate::dm::target::Area;
use crate::dm::target::Live;
use crate::dm::target::Refusal;
use crate::dm::target::Setup;
use crate::dm::target::StatusKind;
use crate::dm::target::Target;
use crate::dm::text::Text;
use crate::dm::text::Words;
use crate::healable::Healable;
use crate::health;
use crate::health::Health;
use crate::latency::Latencies;
use crate::message;
use crate::metadata;
use crate::relocator;
use crate::relocator::Relocator;
use crate::remap::fault::Fault;
use crate::remap::options::Options;
use crate::remap::resolve::resolve;
use crate::remap::resolve::simple_place;
use crate::remap::resolve::Direction;
use crate::remap::resolve::Piece;
use crate::remap::resolve::Place;
use crate::remap::slot_page::Lifetime;
use crate::remap::superblock::Progress;
use crate::remap::units::Block;
use crate::remap::units::Cause;
use crate::remap::units::Sector;
use crate::remap::units::Sectors;
use crate::remap::units::SpareIndex;
use crate::scan;
use crate::scan::Noticed;
use crate::scan::Pace;
use crate::setup::Config;
use crate::setup::MAIN;
use crate::status;
use crate::sync::rcu::Guard;
use crate::sync::rcu::Once;
use crate::table::Table;
use crate::traffic::Kind;
use crate::traffic::Ticket;
use crate::traffic::Traffic;
use core::sync::atomic::AtomicBool;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::AtomicU8;
use core::sync::atomic::Ordering;
use kernel::new_mutex;
use kernel::new_spinlock;
use kernel::prelude::*;
use kernel::sync::Mutex;
use kernel::sync::SpinLock;
use kernel::time::Delta;

/// What the device can do now. It only gets less, until the next activation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mode {
    /// Blocks are relocated. Whether errors do so is an option.
    ReadWrite = 0,
    /// What is relocated is served, but metadata cannot be written.
    ReadOnly = 1,
    /// Which state of some blocks is on the media is not known: requests to them fail.
    Failed = 2,
}

/// What a request carries from `map` to its end: its ticket, its first sector, and whether it went to main for
/// sectors that could not be saved when their block was relocated.
#[derive(Clone, Copy)]
pub(crate) struct Tag(usize);

impl Tag {
    const DEAD: usize = 1 << 4;
    /// A request that was never counted.
    const UNCOUNTED: usize = 1 << 5;
    /// A request of which everything was counted, and that ends for good when it ends again.
    const SETTLED: usize = 1 << 6;
    /// A request of which the time is taken.
    const TIMED: usize = 1 << 7;
    /// Of one that has failed and needs no sector: it did while main was suspected of being gone.
    const DOUBTFUL: usize = 1 << Self::SECTOR_SHIFT;
    /// Where it then has how many times blocks had left bad places.
    const DEPARTURES_SHIFT: u32 = Self::SECTOR_SHIFT + 1;
    const SECTOR_SHIFT: u32 = 8;

    /// The tag of a request that begins at `start`.
    #[inline(always)]
    pub(crate) const fn new(start: Sector, ticket: Ticket) -> Self {
        // No device has 2^56 sectors.
        Self((start.0 as usize) << Self::SECTOR_SHIFT | ticket.into_bits())
    }

    /// The tag of a request that is not counted.
    const fn uncounted() -> Self {
        Self(Self::UNCOUNTED)
    }

    /// The same for a request that goes to a spare.
    #[inline]
    pub(crate) const fn on_spare(self) -> Self {
        Self(self.0 & !0xf | Ticket::from_bits(self.0).on_spare().into_bits())
    }

    /// The same for a read of sectors that could not be saved.
    #[inline]
    pub(crate) const fn dead(self) -> Self {
        Self(self.0 | Self::DEAD)
    }

    /// The same for a request that was counted, and is not to be looked at again when it ends.
    pub(crate) const fn settled(self) -> Self {
        Self(self.0 | Self::SETTLED)
    }

    /// The same for a request of which the time is taken.
    const fn timed(self) -> Self {
        Self(self.0 | Self::TIMED)
    }

    /// Whether there is more to do at the end of the request than to count it.
    #[inline(always)]
    const fn is_unusual(self) -> bool {
        self.0 & (Self::DEAD | Self::UNCOUNTED | Self::SETTLED | Self::TIMED) != 0
    }

    /// The ticket of the request.
    pub(crate) const fn ticket(self) -> Ticket {
        Ticket::from_bits(self.0)
    }

    /// Whether the request went to a spare.
    pub(crate) const fn is_on_spare(self) -> bool {
        self.ticket().is_on_spare()
    }

    /// The same for a request that has failed, when blocks had left bad places so many times.
    const fn failed(self, departures: u64, main_is_suspect: bool) -> Self {
        let doubtful = if main_is_suspect { Self::DOUBTFUL } else { 0 };
        let word = (departures as usize) << Self::DEPARTURES_SHIFT | self.ticket().into_bits();
        Self(word | doubtful).settled()
    }

    /// Whether the request failed while main was suspected of being gone.
    pub(crate) const fn is_doubtful(self) -> bool {
        self.0 & Self::DOUBTFUL != 0
    }

    /// How many times blocks had left bad places when the request failed.
    pub(crate) const fn departures(self) -> u64 {
        (self.0 >> Self::DEPARTURES_SHIFT) as u64
    }

    /// The tag in the word that travelled with a request.
    pub(crate) const fn from_word(word: usize) -> Self {
        Self(word)
    }

    /// The word that travels with the request.
    #[inline(always)]
    pub(crate) const fn into_word(self) -> usize {
        self.0
    }

    /// The sector at which the request begins.
    pub(crate) const fn start(self) -> Sector {
        Sector((self.0 >> Self::SECTOR_SHIFT) as u64)
    }
}

/// Numbers for `status` that change rarely.
pub(crate) struct Counts {
    /// Blocks that were ever relocated.
    pub(crate) relocated: AtomicU64,
    /// Those among them that no message asked for.
    pub(crate) relocated_auto: AtomicU64,
    /// Blocks that were ever brought back to main.
    pub(crate) removed: AtomicU64,
    /// Relocations that found no free slot.
    pub(crate) refused: AtomicU64,
    /// Writes of metadata that failed.
    pub(crate) meta_errors: AtomicU64,
    /// Sectors of relocated blocks that could not be saved.
    unreadable: AtomicU64,
    /// The first sector of the last request that failed, plus one; 0 for none.
    last_error: AtomicU64,
    /// Blocks that were given a slot since the activation, by cause.
    by_cause: [AtomicU64; Cause::ALL.len()],
}

impl Counts {
    const fn new() -> Self {
        Self {
            relocated: AtomicU64::new(0),
            relocated_auto: AtomicU64::new(0),
            removed: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            meta_errors: AtomicU64::new(0),
            unreadable: AtomicU64::new(0),
            last_error: AtomicU64::new(0),
            by_cause: [const { AtomicU64::new(0) }; Cause::ALL.len()],
        }
    }

    /// The counter of the blocks that were given a slot for a reason.
    fn by_cause(&self, cause: Cause) -> Option<&AtomicU64> {
        let mut all = Iterator::zip(Cause::ALL.iter(), &self.by_cause);
        all.find_map(|(other, count)| (*other == cause).then_some(count))
    }

    /// Counts blocks that were given a slot for a reason.
    pub(crate) fn count_cause(&self, cause: Cause, blocks: usize) {
        if let Some(count) = self.by_cause(cause) {
            count.fetch_add(blocks as u64, Ordering::Relaxed);
        }
    }

    /// How many blocks were given a slot for a reason.
    pub(crate) fn of_cause(&self, cause: Cause) -> u64 {
        let count = self.by_cause(cause);
        count.map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// Counts blocks that have moved.
    pub(crate) fn count(&self, moves: Lifetime) {
        self.relocated.fetch_add(moves.relocated, Ordering::Relaxed);
        self.relocated_auto
            .fetch_add(moves.automatic, Ordering::Relaxed);
        self.removed.fetch_add(moves.removed, Ordering::Relaxed);
    }

    /// A block that had `before` unreadable sectors has `after` of them. For the relocator only.
    pub(crate) fn change_unreadable(&self, before: u64, after: u64) {
        let others = self.unreadable().saturating_sub(before);
        self.unreadable
            .store(others.saturating_add(after), Ordering::Relaxed);
    }

    /// Sectors of relocated blocks that could not be saved.
    pub(crate) fn unreadable(&self) -> u64 {
        self.unreadable.load(Ordering::Relaxed)
    }

    /// The first sector of the last request that failed.
    pub(crate) fn last_error(&self) -> Option<Sector> {
        let stored = self.last_error.load(Ordering::Relaxed);
        stored.checked_sub(1).map(Sector)
    }

    /// Notes the failure of a request that begins at `start`.
    fn note_error(&self, start: Sector) {
        self.last_error
            .store(start.0.saturating_add(1), Ordering::Relaxed);
    }
}

/// How full the spares are, in the steps in which it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fullness {
    /// There is room.
    Room = 0,
    /// 80 % of the slots are taken.
    Low = 1,
    /// 95 % of the slots are taken.
    VeryLow = 2,
    /// No slot is free.
    Exhausted = 3,
}

impl Fullness {
    /// How full `total` slots are of which `used` are taken.
    fn of(used: u64, total: u64) -> Self {
        let percent = |percent: u64| total.saturating_mul(percent).div_ceil(100);
        if used >= total {
            Self::Exhausted
        } else if used >= percent(95) {
            Self::VeryLow
        } else if used >= percent(80) {
            Self::Low
        } else {
            Self::Room
        }
    }

    const fn from_code(code: u8) -> Self {
        match code {
            0 => Self::Room,
            1 => Self::Low,
            2 => Self::VeryLow,
            _ => Self::Exhausted,
        }
    }
}

/// The bit of a spare in a set of them.
const fn spare_bit(spare: SpareIndex) -> u32 {
    1u32.wrapping_shl(spare.get() as u32)
}

/// How many blocks of a request are looked up at most without giving up the processor: a power of two.
const LOOKUP_BLOCKS: u64 = 4096;

/// An instance of the target.
#[pin_data]
pub(crate) struct Remap {
    /// What the table line says.
    pub(crate) config: Config,
    /// The requests.
    pub(crate) traffic: Traffic,
    /// How long they take.
    #[pin]
    pub(crate) latencies: Latencies,
    /// The table of relocated blocks, from the first activation on, when the table line is writable.
    table: Once<Table>,
    /// The same when it is read-only: then every request takes the way of the unusual ones, which looks what it does.
    read_only_table: Once<Table>,
    /// What the device can do: a [`Mode`].
    mode: AtomicU8,
    /// Whether a suspend has begun, so that a long operation must come to an end.
    suspending: AtomicBool,
    /// How many wait for the relocator.
    pub(crate) waiting: AtomicU32,
    /// Whether errors relocate: the option, for those who cannot take a lock.
    automatic: AtomicBool,
    /// Whether main answered nothing when it was asked last.
    suspect: AtomicBool,
    /// The spares that did not give back or take a block: a bit for each.
    failing_spares: AtomicU32,
    /// How many times a block has left a slot.
    departures: AtomicU64,
    /// How full the spares are: the step of [`Fullness`] that was told last.
    fullness: AtomicU8,
    /// Requests whose I/O has failed and for which something may be done.
    pub(crate) failed: DeferredStack,
    /// Numbers for `status`.
    pub(crate) counts: Counts,
    /// Blocks with unreadable sectors of which some were read just now.
    pub(crate) healable: Healable,
    /// Requests to blocks that are moving.
    #[pin]
    pub(crate) deferred: SpinLock<DeferredList>,
    /// The options in force.
    #[pin]
    options: SpinLock<Options>,
    /// What the last step of the background pass has left for the next one.
    #[pin]
    pub(crate) pace: Mutex<Pace>,
    /// What passes have noticed.
    pub(crate) noticed: Noticed,
    /// How long the spares may last.
    #[pin]
    pub(crate) health: Health,
    /// How far the background pass has come.
    #[pin]
    progress: SpinLock<Progress>,
    /// What the counters of `stats` stood at when it was reset.
    #[pin]
    baseline: SpinLock<[u64; status::COUNTERS]>,
    /// Who moves blocks.
    #[pin]
    pub(crate) relocator: Mutex<Relocator>,
}

impl Remap {
    /// The table, once the device was activated.
    #[inline(always)]
    pub(crate) fn table(&self) -> Option<&Table> {
        self.table.get().or_else(|| self.read_only_table.get())
    }

    /// Sets the table, at the first activation.
    pub(crate) fn set_table(&self, table: KBox<Table>, unreadable: u64) {
        self.counts.change_unreadable(0, unreadable);
        if self.config.read_only {
            self.read_only_table.set(table);
        } else {
            self.table.set(table);
        }
    }

    /// Whether a suspend has begun, so that a long operation must come to an end.
    pub(crate) fn is_suspending(&self) -> bool {
        self.suspending.load(Ordering::Relaxed)
    }

    /// What the device can do.
    pub(crate) fn mode(&self) -> Mode {
        match self.mode.load(Ordering::Acquire) {
            0 => Mode::ReadWrite,
            1 => Mode::ReadOnly,
            _ => Mode::Failed,
        }
    }

    /// Degrades the device where everybody expects it, or has been told.
    pub(crate) fn set_mode_silently(&self, mode: Mode) {
        self.mode.fetch_max(mode as u8, Ordering::AcqRel);
    }

    /// The options in force.
    pub(crate) fn options(&self) -> Options {
        *self.options.lock()
    }

    /// How far the background pass has come.
    pub(crate) fn progress(&self) -> Progress {
        *self.progress.lock()
    }

    /// Changes how far the background pass has come, in memory.
    pub(crate) fn change_progress<R>(&self, change: impl FnOnce(&mut Progress) -> R) -> R {
        change(&mut self.progress.lock())
    }

    /// Sets how far the background pass has come, in memory.
    pub(crate) fn set_progress(&self, progress: Progress) {
        *self.progress.lock() = progress;
    }

    /// What the counters of `stats` stood at when it was reset.
    pub(crate) fn baseline(&self) -> [u64; status::COUNTERS] {
        *self.baseline.lock()
    }

    /// Counts for `stats` from here on.
    pub(crate) fn set_baseline(&self, baseline: [u64; status::COUNTERS]) {
        *self.baseline.lock() = baseline;
    }

    /// Whether errors relocate.
    pub(crate) fn is_automatic(&self) -> bool {
        self.automatic.load(Ordering::Relaxed)
    }

    /// Whether main looks gone as a whole.
    pub(crate) fn is_suspect(&self) -> bool {
        self.suspect.load(Ordering::Relaxed)
    }

    /// How full the spares are.
    pub(crate) fn fullness(&self) -> Fullness {
        Fullness::from_code(self.fullness.load(Ordering::Relaxed))
    }

    /// Whether a spare did not give back or take a block.
    pub(crate) fn has_failed(&self, spare: SpareIndex) -> bool {
        self.failing_spares.load(Ordering::Relaxed) & spare_bit(spare) != 0
    }

    /// Whether one of the spares did not give back or take a block.
    pub(crate) fn has_failing_spare(&self) -> bool {
        self.failing_spares.load(Ordering::Relaxed) != 0
    }

    /// How many times a block has left a slot.
    pub(crate) fn departures(&self) -> u64 {
        self.departures.load(Ordering::Acquire)
    }

    /// Counts that a block leaves a slot. For the relocator only, before requests go to its new place.
    pub(crate) fn count_departure(&self) {
        self.departures.fetch_add(1, Ordering::Release);
    }

    /// Changes the options in force.
    pub(crate) fn set_options(&self, options: Options) {
        self.automatic.store(options.automatic, Ordering::Relaxed);
        *self.options.lock() = options;
    }
}

impl Live<Remap> {
    /// The name of the mapped device, for the log.
    pub(crate) fn log_name(&self) -> &str {
        self.name().to_str().unwrap_or_default()
    }

    /// Main.
    pub(crate) fn main_device(&self) -> Option<&BlockDevice> {
        self.device(MAIN).map(Device::block_device)
    }

    /// A spare that is not missing.
    pub(crate) fn spare(&self, spare: SpareIndex) -> Option<&Device> {
        let id = (*self.config.spares.get(spare.get())?)?;
        self.device(id)
    }

    /// A spare that is not missing, for I/O.
    pub(crate) fn spare_device(&self, spare: SpareIndex) -> Option<&BlockDevice> {
        self.spare(spare).map(Device::block_device)
    }

    /// Degrades the device, which is told to those who wait for an event. May sleep.
    pub(crate) fn set_mode(&self, mode: Mode) {
        let before = self.mode.fetch_max(mode as u8, Ordering::AcqRel);
        if before < mode as u8 {
            let name = self.log_name();
            match mode {
                Mode::ReadWrite => {}
                Mode::ReadOnly => pr_err!(
                    "{name}: metadata cannot be written any more: no block is relocated from now on\n"
                ),
                Mode::Failed => pr_err!(
                    "{name}: writing metadata failed in both copies: requests to the blocks of the \
                     last operation fail until the device is activated anew\n"
                ),
            }
            self.event();
        }
    }

    /// Says whether main looks gone as a whole, which is told to those who wait for an event. May sleep.
    pub(crate) fn set_suspect(&self, suspect: bool) {
        if self.suspect.swap(suspect, Ordering::Relaxed) == suspect {
            return;
        }
        let name = self.log_name();
        if suspect {
            pr_err!("{name}: main does not answer at all: nothing is relocated until it does\n");
        } else {
            pr_info!("{name}: main answers again\n");
        }
        self.event();
    }

    /// Notes that a spare did not give back or take a block: others are used first from now on.
    pub(crate) fn note_failing_spare(&self, spare: SpareIndex) {
        let bit = spare_bit(spare);
        if self.failing_spares.fetch_or(bit, Ordering::Relaxed) & bit == 0 {
            let (name, spare) = (self.log_name(), spare.get());
            pr_err!("{name}: spare {spare} is failing: replace it\n");
            self.event();
        }
    }

    /// Notes that there was no slot for a block. May sleep.
    pub(crate) fn note_refusal(&self) {
        self.counts.refused.fetch_add(1, Ordering::Relaxed);
        self.note_room();
    }

    /// Looks how full the spares are, and tells about it when that has changed. May sleep.
    pub(crate) fn note_room(&self) {
        let Some(table) = self.table() else { return };
        let total = table.spares.slots();
        let fullness = Fullness::of(table.spares.taken(), total);
        let before = self.fullness.swap(fullness as u8, Ordering::Relaxed);
        if before == fullness as u8 {
            return;
        }
        let name = self.log_name();
        match fullness {
            _ if before > fullness as u8 => {
                pr_info!("{name}: there is more room on the spares again\n");
            }
            Fullness::Room => {}
            Fullness::Low => pr_warn!("{name}: 80 % of the spare blocks are used: replace main\n"),
            Fullness::VeryLow => {
                pr_err!("{name}: 95 % of the spare blocks are used: replace main\n")
            }
            Fullness::Exhausted => {
                pr_err!("{name}: no spare block is free: what fails from now on is lost\n");
            }
        }
        self.event();
    }

    /// Counts the failure of a request.
    pub(crate) fn count_failure(&self, start: Sector, operation: Operation, status: Status) {
        self.counts.note_error(start);
        let fault = Fault::of(status.errno()) != Fault::Elsewhere;
        let kind = relocator::kind_of(operation);
        self.traffic.fail(if fault { kind } else { Kind::Other });
    }

    /// Maps a request that does not simply read or write data: a flush, which goes to the device that it is for, or one
    /// that has sectors but no data. Also any request to a read-only table, which may only read: the block layer lets
    /// others through with a warning.
    #[cold]
    #[inline(never)]
    fn map_unusual<'r>(&self, mut request: Request<'r>) -> Mapped<'r> {
        request.clear_polled();
        let operation = request.operation();
        let guard = Guard::new();
        let ticket = self.traffic.begin(relocator::kind_of(operation), &guard);
        let allowed = match operation {
            Operation::Flush => false,
            Operation::Read => true,
            _ => !self.config.read_only,
        };
        if let (true, Some(table)) = (allowed, self.table()) {
            let start = Sector(request.sector().wrapping_sub(self.begin()));
            return self.map_relocated(table, request, start, ticket, guard);
        }
        drop(guard);
        self.count_sectors(&request, ticket);
        let tag = Tag::new(Sector(0), ticket).into_word();
        match self.device(request.flush_target()) {
            Some(device) if operation == Operation::Flush => request.remap(device, 0, tag),
            _ => request.complete(Status::IO_ERROR, tag),
        }
    }

    /// Maps a request to a region in which blocks are relocated. The guard is held since the request was counted.
    #[inline(never)]
    fn map_near<'r>(
        &self,
        table: &Table,
        request: Request<'r>,
        start: Sector,
        ticket: Ticket,
        guard: Guard,
    ) -> Mapped<'r> {
        let len = Sectors(request.sectors().into());
        let tag = Tag::new(start, ticket);
        let (device, sector, tag) = match simple_place(
            table.index(&guard),
            &table.spares,
            &table.spares,
            start,
            len,
        ) {
            Some(Place::Main) => (self.device(MAIN), start.0, tag),
            Some(Place::Spare { spare, sector }) => (self.spare(spare), sector.0, tag.on_spare()),
            _ => (None, 0, tag),
        };
        let Some(device) = device else {
            return self.map_relocated(table, request, start, ticket, guard);
        };
        self.traffic.count_sectors(ticket.kind(), len.0);
        if self.latencies.picks() {
            return send_timed(request, device, sector, tag);
        }
        request.remap(device, sector, tag.into_word())
    }

    /// Where the first piece of a request goes. That of one which is longer than [`LOOKUP_BLOCKS`] ends with those that it begins in at the
    /// latest, when there are relocated blocks about: a discard may be so long that to look at all of its blocks would take seconds.
    fn first_piece(
        &self,
        table: &Table,
        start: Sector,
        len: Sectors,
        direction: Direction,
        guard: &Guard,
    ) -> Piece {
        let index = table.index(guard);
        if !index.may_contain(start, start.last_of(len)) {
            let place = Place::Main;
            return Piece { place, len };
        }
        let most = table.block_size.sectors().0.wrapping_mul(LOOKUP_BLOCKS);
        let len = match len.0 > most {
            true => Sectors(most.wrapping_sub(start.0 & most.wrapping_sub(1))),
            false => len,
        };
        resolve(index, &table.spares, &table.spares, start, len, direction)
    }

    /// Counts the sectors of a request that has its final length.
    fn count_sectors(&self, request: &Request<'_>, ticket: Ticket) {
        let kind = ticket.kind();
        self.traffic.count_sectors(kind, request.sectors().into());
    }

    /// Maps any request of which some sectors may be relocated. The guard is held since the request was counted.
    #[cold]
    #[inline(never)]
    fn map_relocated<'r>(
        &self,
        table: &Table,
        mut request: Request<'r>,
        start: Sector,
        ticket: Ticket,
        guard: Guard,
    ) -> Mapped<'r> {
        let tag = Tag::new(start, ticket);
        let direction = relocator::direction(request.operation());
        let mut guard = guard;
        let place = loop {
            let len = Sectors(request.sectors().into());
            let piece = self.first_piece(table, start, len, direction, &guard);
            if piece.len < len && request.truncate(piece.len.0 as u32).is_err() {
                break None;
            }
            if piece.place != Place::Moving {
                break Some(piece.place);
            }
            // The lock must not be taken with preemption disabled. The request is counted, so no drain that
            // began meanwhile ends before it, and what is looked up anew is as good as before.
            drop(guard);
            // The relocator takes the list after it has published the new place, or given the block up. Under
            // the lock, either that is seen, or the request is on the list before the relocator takes it.
            let mut list = self.deferred.lock();
            guard = Guard::new();
            if self.mode() == Mode::Failed {
                break None;
            }
            let again = self.first_piece(table, start, piece.len, direction, &guard);
            if again.place == Place::Moving {
                drop(guard);
                self.count_sectors(&request, ticket);
                self.traffic.put_aside(ticket);
                let (deferred, mapped) = request.defer(self.owner(), Tag::uncounted().into_word());
                list.push(deferred);
                return mapped;
            }
        };
        self.count_sectors(&request, ticket);
        let main = self.device(MAIN);
        match (place, main) {
            (Some(Place::Main), Some(main)) => {
                return request.remap(main, start.0, tag.into_word())
            }
            (Some(Place::Spare { spare, sector }), _) => {
                if let Some(device) = self.spare(spare) {
                    return request.remap(device, sector.0, tag.on_spare().into_word());
                }
            }
            (Some(Place::Dead { .. }), Some(main)) if direction == Direction::Read => {
                return request.remap(main, start.0, tag.dead().into_word())
            }
            (Some(Place::Dead { .. }), _) if direction == Direction::Write => {
                drop(guard);
                self.traffic.put_aside(ticket);
                let (deferred, mapped) = request.defer(self.owner(), Tag::uncounted().into_word());
                self.deferred.lock().push(deferred);
                self.queue_work();
                return mapped;
            }
            (Some(Place::Lost), _) if request.operation() == Operation::Read => {
                drop(guard);
                return request.complete(Status::MEDIUM, tag.dead().into_word());
            }
            // What is to be forgotten is on main, if anywhere.
            (Some(Place::Lost), Some(main)) => {
                return request.remap(main, start.0, tag.into_word())
            }
            _ => {}
        }
        drop(guard);
        // It is not sent to any device, so there is nothing that could be done about it.
        request.complete(Status::IO_ERROR, tag.dead().into_word())
    }
}

/// Sends a request of which the time is taken.
#[cold]
#[inline(never)]
fn send_timed<'r>(request: Request<'r>, device: &Device, sector: u64, tag: Tag) -> Mapped<'r> {
    request.remap_timed(device, sector, tag.timed().into_word())
}

impl Target for Remap {
    const NAME: &'static CStr = c"remap";
    const VERSION: [u32; 3] = [1, 0, 0];
    type Config = Config;

    fn configure(words: Words<'_>, setup: &mut Setup<'_>) -> Result<Config, Refusal> {
        Config::new(words, setup)
    }

    fn new(config: Config) -> impl PinInit<Self, Error> {
        let options = config.options();
        try_pin_init!(Self {
            config,
            traffic: Traffic::new()?,
            latencies <- Latencies::new(),
            table: Once::new(),
            read_only_table: Once::new(),
            mode: AtomicU8::new(Mode::ReadWrite as u8),
            suspending: AtomicBool::new(false),
            waiting: AtomicU32::new(0),
            automatic: AtomicBool::new(options.automatic),
            suspect: AtomicBool::new(false),
            failing_spares: AtomicU32::new(0),
            departures: AtomicU64::new(0),
            fullness: AtomicU8::new(Fullness::Room as u8),
            failed: DeferredStack::new(),
            counts: Counts::new(),
            healable: Healable::new(),
            deferred <- new_spinlock!(DeferredList::new(), "dm_remap_deferred"),
            options <- new_spinlock!(options, "dm_remap_options"),
            pace <- new_mutex!(Pace::new(), "dm_remap_pace"),
            noticed: Noticed::new(),
            health <- Health::new(),
            progress <- new_spinlock!(Progress::default(), "dm_remap_progress"),
            baseline <- new_spinlock!([0; status::COUNTERS], "dm_remap_baseline"),
            relocator <- new_mutex!(Relocator::new()?, "dm_remap_relocator"),
        })
    }

    #[inline(always)]
    fn map<'r>(this: &Live<Self>, request: Request<'r>) -> Mapped<'r> {
        let (Some(writes), Some(table), Some(main)) =
            (request.plain(), this.table.get(), this.device(MAIN))
        else {
            return this.map_unusual(request);
        };
        let start = Sector(request.sector().wrapping_sub(this.begin()));
        let len = Sectors(request.sectors().into());
        let last = start.last_of(len);
        let guard = Guard::new();
        // This comes before the look-up, see the documentation of `traffic`.
        let kind = Kind::of_data(writes);
        let ticket = this.traffic.begin(kind, &guard);
        if !table.index(&guard).is_clear(start, last) {
            return this.map_near(table, request, start, ticket, guard);
        }
        this.traffic.count_sectors(kind, len.0);
        let tag = Tag::new(start, ticket);
        if this.latencies.picks() {
            return send_timed(request, main, start.0, tag);
        }
        request.remap(main, start.0, tag.into_word())
    }

    #[inline(always)]
    fn end_io<'r>(this: &Live<Self>, ended: Ended<'r>) -> Finished<'r> {
        let tag = Tag(ended.tag());
        if tag.is_unusual() || ended.status() != Status::OK {
            return this.end_unusual(ended, tag);
        }
        this.traffic.end(Ticket::from_bits(tag.0));
        ended.finish()
    }

    fn work(this: &Live<Self>) {
        relocator::serve(this);
    }

    fn background(this: &Live<Self>) {
        // A suspend waits for this.
        let _noio = noio::Scope::new();
        let again = relocator::maintain(this);
        scan::work(this, again);
    }

    fn preresume(this: &Live<Self>) -> Result {
        metadata::activate(this)?;
        this.note_room();
        health::assess(this);
        Ok(())
    }

    fn resume(this: &Live<Self>) {
        // Only now, as another target of the table may have refused before.
        this.suspending.store(false, Ordering::Relaxed);
        this.relocator.lock().running = true;
        // Main may be suspected of being gone.
        this.queue_work();
        this.queue_background(Delta::from_millis(0));
    }

    fn presuspend(this: &Live<Self>) {
        // A message holds the table, and the suspend waits until nobody does.
        this.suspending.store(true, Ordering::Relaxed);
    }

    fn presuspend_undo(this: &Live<Self>) {
        this.suspending.store(false, Ordering::Relaxed);
        this.queue_background(Delta::from_millis(0));
    }

    fn postsuspend(this: &Live<Self>) {
        this.stop_background();
        relocator::suspend(this);
    }

    fn status(this: &Live<Self>, kind: StatusKind, text: &mut Text<'_>) {
        // Writing to a `Text` cannot fail.
        let _ = status::write(this, kind, text);
    }

    fn message(this: &Live<Self>, words: Words<'_>, reply: &mut Text<'_>) -> Result {
        message::carry_out(this, words, reply)
    }

    fn for_each_area(
        this: &Live<Self>,
        visit: &mut dyn FnMut(Area<'_>) -> kernel::ffi::c_int,
    ) -> kernel::ffi::c_int {
        let devices = [Some(MAIN)].into_iter();
        let devices = Iterator::chain(devices, this.config.spares).flatten();
        for device in devices.filter_map(|id| this.device(id)) {
            // Main is used as far as the table line goes, a spare as a whole.
            let sectors = device.block_device().sectors().min(match device.id() {
                id if id == MAIN => this.sectors(),
                _ => u64::MAX,
            });
            let area = Area {
                device,
                start: 0,
                sectors,
            };
            let stop = visit(area);
            if stop != 0 {
                return stop;
            }
        }
        0
    }

    fn ioctl_device(_this: &Live<Self>) -> DeviceId {
        MAIN
    }
}

impl Live<Remap> {
    /// Looks closer at a request that failed, that has read sectors which could not be saved before, or whose time is taken. May be
    /// called in any context.
    #[cold]
    #[inline(never)]
    fn end_unusual<'r>(&self, ended: Ended<'r>, tag: Tag) -> Finished<'r> {
        let status = ended.status();
        if tag.0 & Tag::SETTLED != 0 {
            return ended.finish();
        }
        // Until the request is counted as ended its block does not move.
        let failed = tag.failed(self.departures(), self.is_suspect());
        if tag.0 & Tag::UNCOUNTED == 0 {
            self.traffic.end(Ticket::from_bits(tag.0));
        }
        if tag.0 & Tag::TIMED != 0 && status == Status::OK {
            if let Some(elapsed) = ended.elapsed() {
                let kind = relocator::kind_of(ended.operation());
                self.latencies.count(kind, tag.is_on_spare(), elapsed);
            }
        }
        if status == Status::AGAIN {
            self.traffic.fail(Kind::Other);
        } else if status != Status::OK {
            self.count_failure(tag.start(), ended.operation(), status);
            if self.can_help(&ended, tag) {
                let (request, finished) = ended.keep(self.owner(), failed.into_word());
                self.failed.push(request);
                self.queue_work();
                return finished;
            }
        } else if tag.0 & Tag::DEAD != 0 && self.mode() == Mode::ReadWrite {
            let block = self
                .table()
                .and_then(|table| table.block_size.block_of(tag.start()));
            if let Some(block) = block {
                self.note_healable(block);
            }
        }
        ended.finish()
    }

    /// Has the background work save what can be read of a block with unreadable sectors, of which some were read just now.
    pub(crate) fn note_healable(&self, block: Block) {
        self.healable.note(block);
        self.queue_background(Delta::from_millis(0));
    }

    /// Whether something may be done about a request that has failed: its error may be one of the medium, its sectors are
    /// not known to be unreadable, and blocks may be relocated.
    fn can_help(&self, ended: &Ended<'_>, tag: Tag) -> bool {
        let wanted = match ended.operation() {
            Operation::Read => !ended.is_readahead(),
            Operation::Write | Operation::WriteZeroes => true,
            _ => false,
        };
        wanted
            && ended.had_sectors()
            && tag.0 & (Tag::DEAD | Tag::UNCOUNTED) == 0
            && Fault::of(ended.status().errno()) != Fault::Elsewhere
            && self.is_automatic()
            && self.mode() == Mode::ReadWrite
    }
}
