// SPDX-License-Identifier: GPL-2.0

//! The background pass: reads all of main, to find what is about to be lost while it can still be read.
//!
//! It goes step by step. A step reads some sectors where they live: those of main that are not relocated, and the slots of
//! the blocks that are. What cannot be read at the first attempt is relocated as after a failed request. Between two steps
//! nothing is held, and the pass stays behind whoever else uses the device; `docs/scan.md` has the rules.

use crate::block::device::BlockDevice;
use crate::block::device::Buffer;
use crate::dm::target::Live;
use crate::health;
use crate::relocator;
use crate::remap::fault::Fault;
use crate::remap::message::ScanVerb;
use crate::remap::resolve::resolve;
use crate::remap::resolve::Direction;
use crate::remap::resolve::Piece;
use crate::remap::resolve::Place;
use crate::remap::superblock::Pass;
use crate::remap::superblock::Progress;
use crate::remap::units::Block;
use crate::remap::units::Sector;
use crate::remap::units::Sectors;
use crate::remap::units::UnixTime;
use crate::setup::MAIN;
use crate::table::Table;
use crate::target::Mode;
use crate::target::Remap;
use core::fmt;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering;
use kernel::prelude::*;
use kernel::time::Delta;
use kernel::time::Instant;
use kernel::time::Monotonic;

/// The most sectors that a step reads: 128 KiB.
const STEP: Sectors = Sectors(256);

/// How often it is looked whether somebody uses the device.
const LOOK: Delta = Delta::from_millis(100);

/// For how long nobody must have used the device for the pass to go on without breaks.
const QUIET: Delta = Delta::from_millis(500);

/// After how many requests of others a step may come all the same.
const SHARE: u64 = 1000;

/// After how long a step comes all the same.
const AT_LEAST: Delta = Delta::from_millis(2000);

/// How often the position is written to the spares while a pass runs.
const SAVE: Delta = Delta::from_millis(60_000);

/// How long the pass waits when it cannot go on.
const WAIT: Delta = Delta::from_millis(1000);

/// How many seconds it waits at most before it looks whether the next pass is due: the clock may be set.
const LOOK_WHETHER_DUE: u64 = 60;

/// How often a place is tried that fails for another reason than the medium.
const ATTEMPTS: u32 = 5;

/// How much too late a step may come for the next one to come sooner: as much as a timer may be, without which short steps would
/// be far below the rate.
const LATE: Delta = Delta::from_millis(10);

/// After how long a step ends that finds one bad block after the other: the machine cannot be put to sleep in a step.
const LONG: Delta = Delta::from_millis(5_000);

/// A step is slow that takes this long, and [`SLOW_FACTOR`] times as long as usual.
const SLOW: Delta = Delta::from_millis(200);

/// How many times as long as usual a slow step takes.
const SLOW_FACTOR: i64 = 8;

/// What a step knows of those before it.
pub(crate) struct Pace {
    /// Room for what a step reads, while a pass runs.
    buffer: Option<Buffer>,
    /// How many requests of others had begun when the last step began, and at the last look.
    requests: [u64; 2],
    /// When the last step began.
    step: Instant<Monotonic>,
    /// When somebody was last seen to use the device.
    busy: Instant<Monotonic>,
    /// When the position was last written.
    saved: Instant<Monotonic>,
    /// How long the next step has to wait after the last one.
    pause: Delta,
    /// How long a step takes usually, in nanoseconds.
    usual: i64,
    /// How often the place was tried that the pass is at.
    attempts: u32,
}

impl Pace {
    /// No step yet.
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self {
            buffer: None,
            requests: [0; 2],
            step: now,
            busy: now,
            saved: now,
            pause: Delta::from_millis(0),
            usual: 0,
            attempts: 0,
        }
    }

    /// Whether a place that fails for another reason than the medium is to be tried once more.
    fn tries_again(&mut self) -> bool {
        let again = self.attempts < ATTEMPTS;
        self.attempts += u32::from(again);
        again
    }

    /// How long to wait before the next step; none when it may come now.
    fn wait(&mut self, begun: u64) -> Option<Delta> {
        let passed = self.step.elapsed();
        if passed < self.pause {
            return Some(self.pause - passed);
        }
        let [at_step, at_look] = self.requests;
        if begun != at_look {
            self.requests[1] = begun;
            self.busy = Instant::now();
        }
        let free = self.busy.elapsed() >= QUIET
            || begun.wrapping_sub(at_step) >= SHARE
            || self.step.elapsed() >= AT_LEAST;
        (!free).then_some(LOOK)
    }
}

/// What passes have noticed since the activation.
pub(crate) struct Noticed {
    /// Steps that were slow.
    slow: AtomicU64,
    /// The first sector of the last of them.
    last_slow: AtomicU64,
}

impl Noticed {
    /// Nothing yet.
    pub(crate) const fn new() -> Self {
        Self {
            slow: AtomicU64::new(0),
            last_slow: AtomicU64::new(0),
        }
    }
}

/// The word for what the pass does.
pub(crate) fn state(this: &Live<Remap>) -> &'static str {
    let never = this.options().scan_interval.0 == 0;
    match this.progress().pass {
        // It goes on when the table can be written again.
        _ if this.config.read_only => "off",
        Pass::Running => "running",
        Pass::Paused => "paused",
        Pass::None if never => "off",
        Pass::None => "idle",
    }
}

/// Does what is to be done now, and sees to it that what comes next is done in time: the background work `again`, too, if that is to
/// come again.
pub(crate) fn work(this: &Live<Remap>, again: Option<Delta>) {
    let mut delay = next(this).unwrap_or(health::HOUR);
    delay = delay.min(again.unwrap_or(delay));
    if this.mode() == Mode::ReadWrite {
        delay = delay.min(this.health.save_in().max(WAIT));
    }
    if !this.is_suspending() {
        // Whoever has asked for something meanwhile comes first.
        this.queue_background_after(delay);
    }
}

/// Begins a pass that is due, or makes a step; says when to come again, unless it need not before it is told.
fn next(this: &Live<Remap>) -> Option<Delta> {
    // A mode other than read-write stays until the next activation.
    if this.mode() != Mode::ReadWrite || this.is_suspending() {
        return None;
    }
    let table = this.table()?;
    let progress = this.progress();
    match progress.pass {
        Pass::Paused => None,
        Pass::None => {
            this.pace.lock().buffer = None;
            let interval = u64::from(this.options().scan_interval.0);
            if interval == 0 {
                return None;
            }
            let due = u64::from(progress.ended.0).saturating_add(interval);
            let left = due.saturating_sub(crate::sync::unix_seconds());
            if left > 0 {
                return Some(Delta::from_millis(left.min(LOOK_WHETHER_DUE) as i64 * 1000));
            }
            // When this cannot be kept, the pass begins at the next look.
            let _ = begin(this);
            Some(WAIT)
        }
        Pass::Running if this.is_suspect() => Some(WAIT),
        Pass::Running => {
            let mut pace = this.pace.lock();
            if let Some(wait) = pace.wait(this.traffic.begun()) {
                return Some(wait);
            }
            // Whoever wakes the background work meanwhile does not make it come sooner.
            Some(step(this, table, &mut pace).unwrap_or_else(|_| {
                pace.pause = WAIT;
                WAIT
            }))
        }
    }
}

/// Reads some sectors from the position of the pass on, and moves it. Returns when to come again.
///
/// # Errors
///
/// When the pass cannot go on now.
fn step(this: &Live<Remap>, table: &Table, pace: &mut Pace) -> Result<Delta> {
    let at = this.progress().position;
    let Some(left) = table.main.0.checked_sub(at.0).filter(|left| *left > 0) else {
        end(this, at)?;
        return Ok(WAIT);
    };
    let late = (pace.step.elapsed() - pace.pause).min(LATE);
    pace.step = Instant::now();
    pace.requests[0] = this.traffic.begun();
    let mut buffer = match pace.buffer.take() {
        Some(buffer) => buffer,
        None => Buffer::new(STEP.0 as usize * 512)?,
    };
    let len = Sectors(left.min(longest_step(this, table).0));
    let (piece, read) = read_first(this, table, at, len, &mut buffer);
    let took = pace.step.elapsed().as_nanos();
    pace.pause = time_of(this, piece.len) - late;
    let (found, done) = match read {
        Ok(()) => {
            if piece.place == Place::Main {
                note_time(this, pace, at, took);
            }
            (0, piece.len)
        }
        Err(error) => match relocator::fault(error) {
            Fault::Elsewhere if pace.tries_again() => {
                pace.buffer = Some(buffer);
                return Err(error);
            }
            Fault::Elsewhere => (0, piece.len),
            Fault::Medium | Fault::Unclear => {
                pace.pause = time_of(this, Sectors(piece.len.0.saturating_mul(2))) - late;
                look_closer(this, table, at, piece.len, pace, &mut buffer)?
            }
        },
    };
    pace.attempts = 0;
    pace.buffer = Some(buffer);
    let position = Sector(at.0.saturating_add(done.0));
    this.change_progress(|progress| {
        // Somebody may have ended it, or begun another one, meanwhile.
        if progress.pass == Pass::Running && progress.position == at {
            progress.position = position;
        }
        progress.errors = progress.errors.saturating_add(found);
    });
    if pace.saved.elapsed() >= SAVE {
        pace.saved = Instant::now();
        relocator::change_progress(this, |_| Ok(()))?;
    }
    Ok(Delta::from_millis(0))
}

/// How many sectors a step has at most: no more than one request, as somebody may have to wait for each.
fn longest_step(this: &Live<Remap>, table: &Table) -> Sectors {
    let devices = Iterator::chain([Some(MAIN)].into_iter(), this.config.spares).flatten();
    let longest = devices
        .filter_map(|id| this.device(id))
        .map(|device| u64::from(device.block_device().max_sectors()))
        .fold(STEP.0, u64::min);
    let block = table.block_size.sectors().0;
    let unit = this.config.logical_sectors as u64;
    // Whole blocks, if there is room for any.
    let whole = |size: u64| longest & !size.wrapping_sub(1);
    match whole(block) {
        0 => Sectors(whole(unit).max(unit)),
        blocks => Sectors(blocks),
    }
}

/// How long so many sectors take at the rate that a pass has at most.
fn time_of(this: &Live<Remap>, read: Sectors) -> Delta {
    // The rate is in KiB a second, which are two sectors each.
    let rate = u64::from(this.options().scan_rate.get()).max(1);
    let nanoseconds = read.0.saturating_mul(500_000_000).checked_div(rate);
    Delta::from_nanos(
        nanoseconds
            .and_then(|time| i64::try_from(time).ok())
            .unwrap_or(i64::MAX),
    )
}

/// Reads the first piece of some sectors where it lives, and says which one that is.
fn read_first(
    this: &Live<Remap>,
    table: &Table,
    at: Sector,
    len: Sectors,
    buffer: &mut Buffer,
) -> (Piece, Result) {
    let spares = &table.spares;
    let piece = table.with_index(|index| resolve(index, spares, spares, at, len, Direction::Read));
    let count = piece.len.0 as usize;
    let read = match piece.place {
        Place::Main => read(this.main_device(), at.0, buffer, count),
        Place::Spare { spare, sector } => read(this.spare_device(spare), sector.0, buffer, count),
        // What is known to be unreadable is tried when somebody reads it, and what moves is read by who moves it.
        Place::Dead { .. } | Place::Lost | Place::Moving | Place::Missing { .. } => Ok(()),
    };
    (piece, read)
}

/// Reads sectors of a device, behind everybody else.
fn read(device: Option<&BlockDevice>, sector: u64, buffer: &mut Buffer, count: usize) -> Result {
    let data = &mut buffer.sectors(0, count)?;
    device.ok_or(ENXIO)?.read_idle(sector, data)
}

/// Notes that a step was slow, if it was.
fn note_time(this: &Live<Remap>, pace: &mut Pace, at: Sector, took: i64) {
    let usual = pace.usual;
    // An average that forgets: each step counts for a sixteenth.
    pace.usual = usual.saturating_add(took.saturating_sub(usual) / 16);
    let limit = usual.saturating_mul(SLOW_FACTOR);
    if usual > 0 && took > limit && took > SLOW.as_nanos() {
        let shown = at.0.saturating_add(this.begin());
        this.noticed.slow.fetch_add(1, Ordering::Relaxed);
        this.noticed.last_slow.store(shown, Ordering::Relaxed);
        let (name, milliseconds) = (this.log_name(), took / 1_000_000);
        crate::warn_ratelimited!("{name}: sector {shown}: main is slow here: {milliseconds} ms\n");
    }
}

/// Reads again block by block what could not be read as a whole, and has the blocks that fail relocated. Returns how many
/// sectors are weak or unreadable, of how many: that may take so long that the rest is left to the next step.
///
/// # Errors
///
/// When the pass must not go on now: the same blocks are looked at again.
fn look_closer(
    this: &Live<Remap>,
    table: &Table,
    start: Sector,
    len: Sectors,
    pace: &mut Pace,
    buffer: &mut Buffer,
) -> Result<(u64, Sectors)> {
    let mut found = 0u64;
    let mut done = 0;
    while done < len.0 && (done == 0 || pace.step.elapsed() < LONG) {
        let at = Sector(start.0.saturating_add(done));
        let size = table.block_size;
        let rest = size.in_block(size.offset_of(at), Sectors(len.0.saturating_sub(done)));
        done = done.saturating_add(rest.0);
        let (piece, read) = read_first(this, table, at, rest, buffer);
        if this.is_suspending() {
            return Err(EBUSY);
        }
        if let (Err(error), Some(block)) = (read, size.block_of(at)) {
            if relocator::fault(error) == Fault::Elsewhere {
                if pace.tries_again() {
                    return Err(error);
                }
                continue;
            }
            found = found.saturating_add(rescue(this, table, block, at, piece.place)?);
        }
    }
    Ok((found, Sectors(done)))
}

/// Has a block relocated of which a sector could not be read at the first attempt, and returns how many of its sectors are
/// unreadable, or 1 when it is only weak.
///
/// # Errors
///
/// When main does not answer at all, or a suspend begins.
fn rescue(
    this: &Live<Remap>,
    table: &Table,
    block: Block,
    at: Sector,
    place: Place,
) -> Result<u64> {
    // Nothing is known against sectors of a device that is gone.
    let is_bad = || match (relocator::answers(this, place)?, place) {
        (true, _) => Ok(1),
        (false, Place::Spare { .. }) => Ok(0),
        (false, _) => Err(EIO),
    };
    if !this.is_automatic() {
        return is_bad();
    }
    match relocator::save(this, at, place) {
        Ok(()) => {
            let find = |index: &crate::table::Index| index.find(&table.spares, block);
            let live = table.with_index(find).map(|found| found.live);
            let dead = live.map_or(0, |live| table.all_live(block).without(live).count().0);
            Ok(dead.max(1))
        }
        Err(error) if [EBUSY, EAGAIN, ENOMEM].contains(&error) || this.is_suspect() => Err(error),
        // Nothing is known against a block on a spare that is gone.
        Err(error) if error == ENXIO => Ok(0),
        // It is in the log, and the pass goes on.
        Err(_) => is_bad(),
    }
}

/// Begins a pass.
///
/// # Errors
///
/// `EINVAL` when one has begun already; otherwise that of writing it down.
fn begin(this: &Live<Remap>) -> Result {
    relocator::change_progress(this, |progress| match progress.pass {
        Pass::None => {
            progress.pass = Pass::Running;
            progress.position = Sector(0);
            Ok(())
        }
        Pass::Running | Pass::Paused => Err(EINVAL),
    })
}

/// Ends a pass that has come to the end of main, which is `at`.
///
/// # Errors
///
/// `EBUSY` when somebody has paused or ended it meanwhile; otherwise that of writing it down.
fn end(this: &Live<Remap>, at: Sector) -> Result {
    relocator::change_progress(this, |progress| {
        if progress.pass != Pass::Running || progress.position != at {
            return Err(EBUSY);
        }
        *progress = Progress {
            pass: Pass::None,
            position: Sector(0),
            passes: progress.passes.saturating_add(1),
            ended: relocator::now(),
            ..*progress
        };
        Ok(())
    })?;
    this.health.pass_ended();
    pr_info!("{}: a pass over main has ended\n", this.log_name());
    this.event();
    Ok(())
}

/// Carries out a message.
///
/// # Errors
///
/// `EINVAL` when the pass is not in a state in which that can be done; otherwise that of writing it down.
pub(crate) fn message(this: &Live<Remap>, verb: ScanVerb, out: &mut impl fmt::Write) -> Result {
    match verb {
        ScanVerb::Status => return Ok(write_status(this, out)?),
        ScanVerb::Start => begin(this),
        ScanVerb::Pause | ScanVerb::Resume | ScanVerb::Stop => {
            relocator::change_progress(this, |progress| {
                match (verb, progress.pass) {
                    (ScanVerb::Pause, Pass::Running) => progress.pass = Pass::Paused,
                    (ScanVerb::Resume, Pass::Paused) => progress.pass = Pass::Running,
                    (ScanVerb::Stop, Pass::Running | Pass::Paused) => {
                        progress.pass = Pass::None;
                        progress.position = Sector(0);
                        progress.ended = relocator::now();
                    }
                    _ => return Err(EINVAL),
                }
                Ok(())
            })
        }
    }?;
    this.queue_background(Delta::from_millis(0));
    Ok(())
}

/// The message `scan status`.
fn write_status(this: &Live<Remap>, out: &mut impl fmt::Write) -> fmt::Result {
    let progress = this.progress();
    let main = this.table().map_or(0, |table| table.main.0);
    let UnixTime(ended) = progress.ended;
    writeln!(out, "scan={}", state(this))?;
    writeln!(
        out,
        "scan_pos={}",
        progress.position.0.saturating_add(this.begin())
    )?;
    writeln!(out, "scan_end={}", main.saturating_add(this.begin()))?;
    writeln!(out, "scan_passes={}", progress.passes)?;
    writeln!(out, "scan_errors={}", progress.errors)?;
    writeln!(out, "scan_ended={ended}")?;
    writeln!(
        out,
        "scan_slow={}",
        this.noticed.slow.load(Ordering::Relaxed)
    )?;
    writeln!(
        out,
        "scan_last_slow={}",
        this.noticed.last_slow.load(Ordering::Relaxed)
    )
}
