// SPDX-License-Identifier: GPL-2.0

//! Requests that have failed, or cannot be sent on as they are.
//!
//! They are dealt with in *rounds*, so that what fails together shares the flushes and page writes: the requests of a round are
//! looked at one after the other, the blocks that have to move for them are marked, moved together, and then the
//! requests end. `docs/relocation.md` says what becomes of which error.
//!
//! Nothing here waits for memory, see [`Session::round`].

use super::mask;
use super::memory;
use super::now;
use super::run;
use super::runs;
use super::For;
use super::Job;
use super::Origin;
use super::Postponed;
use super::Session;
use super::MEMORY_INTERVAL;
use super::ROOM;
use super::SECTION_BLOCKS;
use super::SECTION_TIME;
use crate::block::bio::Operation;
use crate::block::device::BlockDevice;
use crate::block::status::Status;
use crate::dm::request::Deferred;
use crate::dm::request::DeferredList;
use crate::dm::request::DeferredRef;
use crate::dm::target::Live;
use crate::remap::fault::Fault;
use crate::remap::records::Record;
use crate::remap::records::Records;
use crate::remap::resolve::resolve;
use crate::remap::resolve::Direction;
use crate::remap::resolve::Piece;
use crate::remap::resolve::Place;
use crate::remap::slot_page::replacement_time;
use crate::remap::units::Block;
use crate::remap::units::Cause;
use crate::remap::units::LiveMask;
use crate::remap::units::Sector;
use crate::remap::units::Sectors;
use crate::remap::units::SpareIndex;
use crate::setup::MAIN;
use crate::sync::rcu;
use crate::sync::rcu::Guard as ReadGuard;
use crate::target::Mode;
use crate::target::Remap;
use crate::target::Tag;
use core::cell::Cell;
use kernel::prelude::*;
use kernel::time::Delta;
use kernel::time::Instant;
use kernel::time::Monotonic;

/// The most requests in a round. For each block that moves all of them are looked through.
const ROUND_REQUESTS: usize = 256;

/// The most blocks of a request to write zeroes that is tried again block by block: it has no data that would bound it. A longer
/// one ends as not supported, after which the kernel writes zeroes as data.
const ZEROED_BLOCKS: u64 = 4096;

/// How many slots are tried for a block before it counts as one that no spare can take.
const SLOTS_TRIED: usize = 4;

/// How many requests that fail together with plain I/O errors, and work when they are tried again, say nothing about the places
/// that they went to: a bus may have been reset.
const BURST: usize = 8;

/// How many places of a disk are asked whether it is there, besides its first and its last sector.
const PROBES: usize = 4;

/// How soon a disk that was gone is asked again.
const PROBE_INTERVAL: Delta = Delta::from_millis(1000);

/// Deals with the requests that wait for the worker.
pub(crate) fn serve(this: &Live<Remap>) {
    loop {
        match run(this, For::Requests, |session| Ok(session.round())) {
            Ok(true) => super::give_way(this),
            Ok(false) => return,
            // The device is suspended, so all requests have ended.
            Err(_) => return,
        }
    }
}

/// What came of a look at a request.
enum Verdict {
    /// It ends.
    Ends(Deferred, Status),
    /// It ends when the blocks have moved that were marked for it.
    Waits(Deferred),
    /// The same, but not all of its blocks could be marked: it has to be looked at again.
    Again(Deferred),
    /// The same, because there is no memory for it.
    Starves(Deferred),
}

/// Why a piece of a request is not done.
enum Trouble {
    /// The place that it went to is bad: its block has to move.
    Block(Cause),
    /// The request fails.
    Fails(Status),
}

impl Session<'_> {
    /// Deals with requests that have to wait no longer, and with a round of those that failed. Says whether there are more to be
    /// dealt with now.
    ///
    /// The records of new slots are 4352 bytes for 256 of them. When there is no memory for them, or no room in the index, the
    /// requests that need them are put off: those that end before them, and whoever else is at work, may free some. The index
    /// gets its room from [`super::maintain`], ahead of time.
    fn round(&mut self) -> bool {
        self.serve_deferred();
        self.this.failed.move_to(&mut self.relocator.pending);
        let suspect = self.this.is_suspect();
        let gone = suspect && !self.try_main();
        let mut jobs = core::mem::replace(&mut self.relocator.jobs, KVec::new());
        let mut requests = DeferredList::new();
        let mut again = DeferredList::new();
        let plain = |request: &DeferredRef<'_>| request.status() == Status::IO_ERROR;
        let pending = self.relocator.pending.iter().filter(plain);
        let burst = pending.take(BURST + 1).count() > BURST;
        let begun = Instant::<Monotonic>::now();
        let mut short_of_memory = false;
        for _ in 0..ROUND_REQUESTS {
            let Some(request) = self.relocator.pending.pop() else {
                break;
            };
            if gone && request.status() != Status::OK {
                let status = request.status();
                self.end(request, status);
                continue;
            }
            match self.examine(request, &mut jobs, suspect, burst, begun) {
                Verdict::Ends(request, status) => self.end(request, status),
                Verdict::Waits(request) => requests.push(request),
                Verdict::Again(request) => again.push(request),
                Verdict::Starves(request) => {
                    short_of_memory = true;
                    again.push(request);
                }
            }
            if begun.elapsed() > SECTION_TIME {
                break;
            }
        }
        if !jobs.is_empty() {
            self.rescue(&mut jobs, &requests, &again);
        }
        let mut unfinished = DeferredList::new();
        for (list, examined) in [(&mut again, false), (&mut requests, true)] {
            while let Some(mut request) = list.pop() {
                match self.outcome(&mut request, &jobs, examined) {
                    Some(status) => self.end(request, status),
                    None => unfinished.push(request),
                }
            }
        }
        short_of_memory |= (jobs.iter()).any(|job| job.postponed == Some(Postponed::Memory));
        jobs.clear();
        self.relocator.jobs = jobs;
        // Those that need memory come last: what does not may end before them, and free some.
        let unseen = &mut self.relocator.pending;
        if !short_of_memory {
            core::mem::swap(unseen, &mut unfinished);
        }
        while let Some(request) = unfinished.pop() {
            unseen.push(request);
        }
        if !self.table.has_room(ROOM) {
            self.this.queue_background(Delta::from_millis(0));
        }
        if short_of_memory {
            self.this.queue_work_in(MEMORY_INTERVAL);
        }
        !short_of_memory && !self.relocator.pending.is_empty()
    }

    /// Deals with every request that was put aside until its block had moved.
    pub(super) fn serve_deferred(&mut self) {
        loop {
            let request = self.this.deferred.lock().pop();
            match request {
                Some(request) => self.send_on(request),
                None => return,
            }
        }
    }

    /// The first sector of a request.
    fn start_of(&self, request: &Deferred) -> Sector {
        Sector(request.sector().wrapping_sub(self.this.begin()))
    }

    /// The first piece of what is left of a request after `done` sectors, all of it in one block.
    fn piece(&self, start: Sector, done: u64, len: u64, direction: Direction) -> (Sector, Piece) {
        let at = Sector(start.0.saturating_add(done));
        let size = self.table.block_size;
        let rest = size.in_block(size.offset_of(at), Sectors(len.saturating_sub(done)));
        let resolve_at = |index: &_| {
            let spares = &self.table.spares;
            resolve(index, spares, spares, at, rest, direction)
        };
        (at, self.table.with_index(resolve_at))
    }

    /// Sends a request that was put aside to where its sectors live now, if that is one place.
    fn send_on(&mut self, mut request: Deferred) {
        let this = self.this;
        let start = self.start_of(&request);
        let len = Sectors(request.sectors().into());
        let direction = super::direction(request.operation());
        let guard = ReadGuard::new();
        let ticket = this
            .traffic
            .begin(super::kind_of(request.operation()), &guard);
        let spares = &self.table.spares;
        let piece = resolve(
            self.table.index(&guard),
            spares,
            spares,
            start,
            len,
            direction,
        );
        drop(guard);
        let tag = Tag::new(start, ticket);
        let (device, sector, tag) = match piece.place {
            _ if piece.len < len => (None, start.0, tag),
            Place::Main => (this.device(MAIN), start.0, tag),
            Place::Dead { .. } if direction == Direction::Read => {
                (this.device(MAIN), start.0, tag.dead())
            }
            Place::Spare { spare, sector } => (this.spare(spare), sector.0, tag.on_spare()),
            _ => (None, start.0, tag),
        };
        if let Some(device) = device {
            return this.submit(request, device, sector, tag.into_word());
        }
        match request.operation() {
            Operation::Discard | Operation::SecureErase => {
                let status = match self.erase_in_pieces(&request, start) {
                    Ok(()) => Status::OK,
                    Err(error) => Status::from_error(error),
                };
                request.set_tag(tag.into_word());
                request.complete(status);
            }
            _ => {
                let brings_to_life = matches!(piece.place, Place::Dead { .. });
                let tag = if brings_to_life { tag.on_spare() } else { tag };
                this.traffic.end(tag.ticket());
                request.set_tag(tag.settled().into_word());
                self.relocator.pending.push(request);
                this.queue_work();
            }
        }
    }

    /// Carries out a discard or secure erase whose sectors live in several places, and waits for it.
    fn erase_in_pieces(&self, request: &Deferred, start: Sector) -> Result {
        let len = u64::from(request.sectors());
        let mut done = 0;
        while done < len {
            let (at, piece) = self.piece(start, done, len, Direction::Read);
            let (device, sector) = match piece.place {
                Place::Main | Place::Dead { .. } => (self.main, at.0),
                Place::Spare { spare, sector } => (self.spare(spare)?, sector.0),
                Place::Lost => (self.main, at.0),
                Place::Missing { .. } | Place::Moving => return Err(EIO),
            };
            match request.operation() {
                Operation::Discard => device.discard(sector, piece.len.0)?,
                Operation::SecureErase => device.secure_erase(sector, piece.len.0)?,
                _ => return Err(EIO),
            }
            done = done.saturating_add(piece.len.0);
        }
        Ok(())
    }

    /// Looks at a request piece by piece: does what can be done where the pieces live, and marks the blocks that
    /// have to move. The round has begun at `begun`; main was suspected of being gone then if `suspect`; with `burst` so many
    /// requests have failed together that one which works now says nothing about its place.
    fn examine(
        &mut self,
        mut request: Deferred,
        jobs: &mut KVec<Job>,
        suspect: bool,
        burst: bool,
        begun: Instant<Monotonic>,
    ) -> Verdict {
        let start = self.start_of(&request);
        let len = u64::from(request.sectors());
        let operation = request.operation();
        let direction = super::direction(operation);
        let size = self.table.block_size;
        let one_block = size.block_of(start) == size.block_of(start.last_of(Sectors(len)));
        let blocks = len / size.sectors().0;
        if operation == Operation::WriteZeroes && blocks > ZEROED_BLOCKS {
            // Whoever sent it writes zeroes then, and may do so even though they fail.
            return Verdict::Ends(request, Status::NOT_SUPPORTED);
        }
        // Where a request has failed that lies in one block is known, unless it did in a place that its block has left since, or
        // while all of main was gone.
        let tag = Tag::from_word(request.tag());
        let failed_in_one_block = one_block && request.status() != Status::OK;
        let slot_is_bad =
            failed_in_one_block && tag.is_on_spare() && tag.departures() == self.this.departures();
        let failed_on_main =
            failed_in_one_block && !tag.is_on_spare() && !tag.is_doubtful() && !suspect;
        let medium = request.status() == Status::MEDIUM;
        let mut waits = false;
        let mut done = 0;
        while done < len {
            let (at, piece) = self.piece(start, done, len, direction);
            let outcome = match piece.place {
                // Of many that fail together some may work now.
                Place::Main if failed_on_main && (medium || !burst) => {
                    Err(Trouble::Block(cause(direction)))
                }
                Place::Spare { .. } if slot_is_bad => Err(Trouble::Block(Cause::Spare)),
                Place::Main | Place::Spare { .. } => self.transfer(&mut request, done, at, piece),
                Place::Dead { .. } if direction == Direction::Write => {
                    Err(Trouble::Block(Cause::Write))
                }
                Place::Dead { .. } => match self.transfer(&mut request, done, at, piece) {
                    Err(Trouble::Block(_)) => Err(Trouble::Fails(Status::MEDIUM)),
                    other => {
                        if let (Ok(()), Some(block)) = (&other, size.block_of(at)) {
                            self.this.note_healable(block);
                        }
                        other
                    }
                },
                Place::Lost => Err(Trouble::Fails(Status::MEDIUM)),
                Place::Missing { .. } | Place::Moving => {
                    // A block that was marked for this round already.
                    let here = |job: &Job| Some(job.block) == size.block_of(at);
                    match jobs.iter().any(here) {
                        true => Err(Trouble::Block(cause(direction))),
                        false => Err(Trouble::Fails(Status::IO_ERROR)),
                    }
                }
            };
            let cause = match outcome {
                Ok(()) => None,
                Err(Trouble::Fails(status)) => return Verdict::Ends(request, status),
                Err(Trouble::Block(cause)) => Some(cause),
            };
            if let (Some(cause), Some(block)) = (cause, size.block_of(at)) {
                match self.mark(block, piece.place, cause, jobs) {
                    Ok(true) => waits = true,
                    Ok(false) => return Verdict::Again(request),
                    Err(error) if error == ENOMEM => return Verdict::Starves(request),
                    // What can be read is read, also when it cannot be saved.
                    Err(_)
                        if operation == Operation::Read
                            && self.insist(&mut request, done, at, piece) => {}
                    Err(_) => {
                        let status = failure(&request);
                        return Verdict::Ends(request, status);
                    }
                }
            }
            done = done.saturating_add(piece.len.0);
            if waits && done < len && begun.elapsed() > SECTION_TIME {
                return Verdict::Again(request);
            }
        }
        if waits {
            Verdict::Waits(request)
        } else {
            let status = self.make_stable(&request);
            Verdict::Ends(request, status)
        }
    }

    /// Tries to read a piece as often as a sector is tried before it counts as unreadable.
    fn insist(&mut self, request: &mut Deferred, done: u64, at: Sector, piece: Piece) -> bool {
        if matches!(
            piece.place,
            Place::Moving | Place::Missing { .. } | Place::Lost
        ) {
            return false;
        }
        let attempts = 1 + self.this.options().read_retries.get();
        (0..attempts).any(|_| self.transfer(request, done, at, piece).is_ok())
    }

    /// Reads or writes a piece of a request where it lives, and waits for it.
    fn transfer(
        &mut self,
        request: &mut Deferred,
        done: u64,
        at: Sector,
        piece: Piece,
    ) -> Result<(), Trouble> {
        let count = piece.len.0 as usize;
        let result = match request.operation() {
            Operation::Read => self.read_piece(piece.place, at, count),
            Operation::Write | Operation::WriteZeroes => self
                .take_data(request, done, count)
                .and_then(|()| self.write_piece(piece.place, at, count)),
            _ => Err(EOPNOTSUPP),
        };
        let trouble = match result {
            Ok(()) if request.operation() == Operation::Read => {
                let filled = (self.relocator.buffer.sectors(0, count))
                    .and_then(|data| request.copy_from(done as usize, data.bytes()));
                return filled.map_err(|_| Trouble::Fails(Status::IO_ERROR));
            }
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        match fault(trouble) {
            Fault::Elsewhere => Err(Trouble::Fails(Status::from_error(trouble))),
            Fault::Medium | Fault::Unclear => Err(Trouble::Block(match piece.place {
                Place::Spare { .. } => Cause::Spare,
                _ => cause(super::direction(request.operation())),
            })),
        }
    }

    /// Puts `count` sectors of what a request writes, from its sector `done` on, at the beginning of the buffer.
    fn take_data(&mut self, request: &Deferred, done: u64, count: usize) -> Result {
        let mut data = self.relocator.buffer.sectors(0, count)?;
        if request.operation() == Operation::WriteZeroes {
            data.bytes_mut().fill(0);
            Ok(())
        } else {
            request.copy_to(done as usize, data.bytes_mut())
        }
    }

    /// Reads sectors from where they live into the beginning of the buffer.
    fn read_piece(&mut self, place: Place, at: Sector, count: usize) -> Result {
        let data = &mut self.relocator.buffer.sectors(0, count)?;
        match place {
            Place::Spare { spare, sector } => {
                let device = self.this.spare_device(spare).ok_or(ENXIO)?;
                device.read(sector.0, data)
            }
            _ => {
                self.main.read(at.0, data)?;
                self.main_answered.set(true);
                Ok(())
            }
        }
    }

    /// Writes the beginning of the buffer to where sectors live.
    fn write_piece(&mut self, place: Place, at: Sector, count: usize) -> Result {
        let data = &mut self.relocator.buffer.sectors(0, count)?;
        match place {
            Place::Spare { spare, sector } => {
                let device = self.this.spare_device(spare).ok_or(ENXIO)?;
                device.write(sector.0, data)
            }
            _ => {
                self.main.write(at.0, data)?;
                self.main_answered.set(true);
                Ok(())
            }
        }
    }

    /// Makes what was written for a request stable if it asks for that, wherever it was written.
    fn make_stable(&self, request: &Deferred) -> Status {
        if !request.is_fua() {
            return Status::OK;
        }
        let spares = self.table.spares.present();
        let spares = spares.filter_map(|spare| self.this.spare_device(spare));
        let mut devices = Iterator::chain([self.main].into_iter(), spares);
        let flushed = devices.try_for_each(BlockDevice::flush);
        flushed.map_or_else(Status::from_error, |()| Status::OK)
    }

    /// Marks a block as moving, so that it can be written elsewhere: false when there is no room for it in this round.
    ///
    /// # Errors
    ///
    /// When it may not, or cannot, move: the request for it fails.
    fn mark(
        &mut self,
        block: Block,
        place: Place,
        cause: Cause,
        jobs: &mut KVec<Job>,
    ) -> Result<bool> {
        if jobs.iter().any(|job| job.block == block) {
            return Ok(true);
        }
        self.check_writable()?;
        // What is written to an unreadable sector goes to its spare in any case.
        let automatic = matches!(place, Place::Main | Place::Spare { .. });
        if automatic && !self.this.is_automatic() {
            return Err(EROFS);
        }
        if jobs.len() == SECTION_BLOCKS {
            return Ok(false);
        }
        let job = self.mark_bad(block, place, cause)?;
        jobs.push_within_capacity(job).map_err(|_| EINVAL)?;
        Ok(true)
    }

    /// Marks a block as moving of which a place is bad.
    ///
    /// # Errors
    ///
    /// `ENXIO` when that is on a spare that does not answer, `ENOSPC` when there is no free slot, `ENOMEM`.
    fn mark_bad(&mut self, block: Block, place: Place, cause: Cause) -> Result<Job> {
        let job = match place {
            // To leave a spare that is gone would be to lose what it holds.
            Place::Spare { spare, .. } if !self.spare_answers(spare) => Err(ENXIO),
            Place::Spare { spare, .. } => {
                self.this.note_failing_spare(spare);
                self.mark_to_leave(block)
            }
            Place::Dead { .. } => self.mark_to_fill(block, cause),
            _ => {
                let spare = self.emptiest_spare();
                self.mark_to_add(block, spare, cause)
                    .and_then(|job| job.ok_or(EINVAL))
            }
        };
        job.inspect_err(|error| {
            if *error == ENOSPC {
                self.this.note_refusal();
            }
        })
    }

    /// Moves a block of which a sector could not be read at the first attempt; see [`super::save`].
    pub(super) fn save(&mut self, at: Sector, place: Place) -> Result {
        self.check_wanted()?;
        self.check_writable()?;
        let block = self.table.block_size.block_of(at).ok_or(EINVAL)?;
        let (_, piece) = self.piece(at, 0, 1, Direction::Read);
        if piece.place != place {
            // It has moved since.
            return Ok(());
        }
        let mut jobs = [self.mark_bad(block, place, Cause::Scan)?];
        self.rescue(&mut jobs, &DeferredList::new(), &DeferredList::new());
        let [job] = jobs;
        match job.error {
            Some(error) => Err(error),
            None if job.postponed.is_some() => Err(EAGAIN),
            None => Ok(()),
        }
    }

    /// Marks a relocated block as moving of which sectors that do not live on the spare are to be written.
    fn mark_to_fill(&self, block: Block, cause: Cause) -> Result<Job> {
        let found = self
            .table
            .with_index(|index| index.set_moving(&self.table.spares, block))
            .ok_or(EIO)?;
        Ok(Job::new(block, found.slot, found.live, false, cause))
    }

    /// Moves the blocks that were marked for requests: what can be read of them, and what the requests write.
    fn rescue(&mut self, jobs: &mut [Job], requests: &DeferredList, again: &DeferredList) {
        self.copy_all(jobs, |session, job| {
            let writes = || {
                let requests = Iterator::chain(requests.iter(), again.iter());
                requests.filter(|request| super::direction(request.operation()) == Direction::Write)
            };
            session.fill(job, writes)
        });
        let faults = |job: &&mut Job| job.from.is_none() && job.whole && !job.stays();
        if !self.main_answered.get() && jobs.iter_mut().any(|job| faults(&job)) && !self.try_main()
        {
            for job in jobs.iter_mut().filter(faults) {
                job.error = Some(EIO);
            }
        }
        self.finish(jobs);
        for job in jobs.iter() {
            self.tell(job);
        }
    }

    /// Says in the log what became of a block.
    fn tell(&self, job: &Job) {
        let name = self.this.log_name();
        let sector = self.table.block_size.first_sector(job.block);
        let sector = sector.0.saturating_add(self.this.begin());
        let spare = job.slot.spare().get();
        let unreadable = self.all_of(job.block).without(job.after).count().0;
        let what = job.cause.name();
        match job.error {
            Some(error) => crate::warn_ratelimited!(
                "{name}: sector {sector}: its block could not be relocated ({what}): {error:?}\n"
            ),
            None if job.whole && job.postponed.is_none() => crate::warn_ratelimited!(
                "{name}: sector {sector}: its block was relocated to spare {spare} ({what}), \
                 {unreadable} sectors are unreadable\n"
            ),
            None => {}
        }
    }

    /// Copies a block to its slot, with what some requests write to it, and notes which sectors are live then. If the slot cannot
    /// be written, the block gets another one.
    ///
    /// # Errors
    ///
    /// The spare's, when no slot can be written; see also [`super::check_wanted`].
    pub(super) fn fill<'r, I: Iterator<Item = DeferredRef<'r>>>(
        &mut self,
        job: &mut Job,
        writes: impl Fn() -> I,
    ) -> Result {
        let mut tried = 1;
        loop {
            let Err(SlotFailed(error)) = self.try_to_fill(job, &writes)? else {
                return Ok(());
            };
            // This says nothing about the spare.
            if error == ENOMEM {
                return Err(error);
            }
            let spare = job.slot.spare();
            self.this.note_failing_spare(spare);
            // A spare that is away is not bad.
            job.slot_is_bad = fault(error) != Fault::Elsewhere && self.ask_spare(spare);
            if tried == SLOTS_TRIED {
                return Err(error);
            }
            tried += 1;
            self.take_another_slot(job, error)?;
        }
    }

    /// Gives a block that is marked as moving another slot, because the one that it had could not be written.
    ///
    /// # Errors
    ///
    /// `error` when no other slot is any better; `ENOSPC` when there is none.
    fn take_another_slot(&mut self, job: &mut Job, error: Error) -> Result {
        let bad = job.slot;
        let former = self.table.spares.record(bad).ok_or(EINVAL)?;
        let leaves = !job.whole;
        let other = self.emptiest_of(|spare| *spare != bad.spare());
        // A block stays in a slot that may be good, as what lives there would have to be read; and nobody has asked a block to leave
        // that is healed.
        let stays = leaves && (!job.slot_is_bad || self.whom == For::Heal);
        if stays || (!job.slot_is_bad && other.is_none()) {
            return Err(error);
        }
        let slot = (self.free_slot(other)).inspect_err(|_| self.this.note_refusal())?;
        let time = if leaves {
            replacement_time(former.time, now()).ok_or(ERANGE)?
        } else {
            former.time
        };
        let record = Record {
            live: LiveMask::EMPTY,
            cause: if leaves { Cause::Spare } else { former.cause },
            time,
            ..former
        };
        self.table.occupy(slot, &record, memory())?;
        job.slot = slot;
        if leaves {
            job.from = Some(bad);
            job.cause = Cause::Spare;
            job.whole = true;
            job.slot_is_bad = false;
            return Ok(());
        }
        if job.from.is_none() {
            // The word of a new block names its slot already.
            self.table
                .with_index(|index| index.replace(&self.table.spares, slot, true));
            rcu::grace_period();
        }
        if job.slot_is_bad {
            self.retire(bad);
        } else {
            self.free(bad);
        }
        job.slot_is_bad = false;
        Ok(())
    }

    /// One attempt of [`Self::fill`].
    fn try_to_fill<'r, I: Iterator<Item = DeferredRef<'r>>>(
        &mut self,
        job: &mut Job,
        writes: &impl Fn() -> I,
    ) -> Result<Result<(), SlotFailed>> {
        let covered = writes().fold(LiveMask::EMPTY, |covered, request| {
            let touched = self.touched(&request, job.block);
            covered.union(touched.map_or(LiveMask::EMPTY, |(at, count, _)| mask(at, count)))
        });
        let mut live = job.before;
        if let Some(former) = job.from {
            let start = self.slot_sector(former)?;
            let origin = Origin::Spare(former.spare());
            live = self.read_or_lose(origin, start, job.before.without(covered))?;
            if let Err(failed) = self.write_slot_masked(job, live) {
                return Ok(Err(failed));
            }
        }
        // What a disk could not read before, it tries for seconds again: not for a write that needs none of it.
        let only_writes = !job.whole && covered != LiveMask::EMPTY;
        if !only_writes && !self.is_lost(job.from.unwrap_or(job.slot)) {
            // What does not live in the slot that is left counts as lost from then on, behind the end of the table line, too.
            let all = match job.from {
                Some(_) => self.table.all_on_main(job.block),
                None => self.all_of(job.block),
            };
            let wanted = all.without(job.before).without(covered);
            let start = self.table.block_size.first_sector(job.block).0;
            job.asked = true;
            // What main has of it is not there any more for a block that leaves its slot.
            let read = match job.from {
                Some(_) => self.read_or_lose(Origin::Main, start, wanted)?,
                None => self.read_from(Origin::Main, start, wanted, false)?,
            };
            if let Err(failed) = self.write_slot_masked(job, read) {
                return Ok(Err(failed));
            }
            live = live.union(read);
        }
        for request in writes() {
            let Some((at, count, done)) = self.touched(&request, job.block) else {
                continue;
            };
            self.take_data(&request, done, count)?;
            if let Err(failed) = self.write_slot(job, 0, at, count) {
                return Ok(Err(failed));
            }
        }
        job.after = live.union(covered);
        Ok(Ok(()))
    }

    /// Writes sectors of the buffer to the same places of a slot.
    fn write_slot_masked(&mut self, job: &Job, sectors: LiveMask) -> Result<(), SlotFailed> {
        runs(sectors).try_for_each(|(at, count)| self.write_slot(job, at, at, count))
    }

    /// Writes `count` sectors of the buffer, from `first` on, to the sectors of a slot from `at` on.
    fn write_slot(
        &mut self,
        job: &Job,
        first: usize,
        at: usize,
        count: usize,
    ) -> Result<(), SlotFailed> {
        let mut write = || {
            let sector = (self.slot_sector(job.slot)?)
                .checked_add(at as u64)
                .ok_or(EINVAL)?;
            let device = self.this.spare_device(job.slot.spare()).ok_or(ENXIO)?;
            device.write(sector, &mut self.relocator.buffer.sectors(first, count)?)
        };
        write().map_err(SlotFailed)
    }

    /// Which sectors of a block a request touches: the first, how many, and the first one's place in the request.
    fn touched(&self, request: &Deferred, block: Block) -> Option<(usize, usize, u64)> {
        let size = self.table.block_size;
        let first = size.first_sector(block).0;
        let end = first.checked_add(self.sectors_of(block).0)?;
        let start = self.start_of(request).0;
        let after = start.checked_add(request.sectors().into())?;
        let (from, to) = (start.max(first), after.min(end));
        let count = to.checked_sub(from).filter(|count| *count > 0)?;
        let at = from.checked_sub(first)?;
        Some((at as usize, count as usize, from.checked_sub(start)?))
    }

    /// The status with which a request ends whose blocks have moved, as far as they have; none when it has to be looked at again,
    /// because all of it was not `examined`, or a block is left for the next round.
    fn outcome(&mut self, request: &mut Deferred, jobs: &[Job], examined: bool) -> Option<Status> {
        let mine = |job: &&Job| self.touched(request, job.block).is_some();
        let failed = jobs.iter().filter(mine).any(|job| job.error.is_some());
        let postponed = jobs.iter().filter(mine).any(|job| job.postponed.is_some());
        // When a block has failed to move, it would do so again.
        if !failed && (postponed || !examined) {
            return None;
        }
        let writes = super::direction(request.operation()) == Direction::Write;
        // What is durable in one copy only is not acknowledged.
        if writes && (failed || self.this.mode() != Mode::ReadWrite) {
            return Some(failure(request));
        }
        if writes {
            return Some(self.make_stable(request));
        }
        let start = self.start_of(request);
        let len = u64::from(request.sectors());
        let mut done = 0;
        while done < len {
            let (at, piece) = self.piece(start, done, len, Direction::Read);
            let block = self.table.block_size.block_of(at);
            let job = jobs.iter().find(|job| Some(job.block) == block);
            if job.is_some() || !examined {
                // A block that could not be moved may be read where it is.
                let dead = matches!(piece.place, Place::Dead { .. });
                let known = dead && job.is_some_and(|job| job.asked && job.error.is_none());
                if known || !self.insist(request, done, at, piece) {
                    return Some(match piece.place {
                        Place::Dead { .. } | Place::Lost => Status::MEDIUM,
                        _ => failure(request),
                    });
                }
            }
            done = done.saturating_add(piece.len.0);
        }
        Some(Status::OK)
    }

    /// Asks main whether it is there. If it does not answer, it is suspected of being gone until it does, and is asked again from
    /// time to time.
    pub(super) fn try_main(&mut self) -> bool {
        let answered = self.device_answers(self.main, self.table.main.0);
        if answered {
            self.main_answered.set(true);
        }
        self.this.set_suspect(!answered);
        if !answered {
            self.this.queue_work_after(PROBE_INTERVAL);
        }
        answered
    }

    /// Whether a spare is there: it is asked once in a session.
    pub(super) fn spare_answers(&mut self, spare: SpareIndex) -> bool {
        let known = self.spares_answered.get(spare.get());
        match known.and_then(Cell::get) {
            Some(answered) => answered,
            None => self.ask_spare(spare),
        }
    }

    /// Asks a spare whether it is there.
    pub(super) fn ask_spare(&mut self, spare: SpareIndex) -> bool {
        let device = self.this.spare_device(spare);
        let answered = device.is_some_and(|device| self.device_answers(device, device.sectors()));
        if let Some(known) = self.spares_answered.get(spare.get()) {
            known.set(Some(answered));
        }
        if !answered {
            self.this.note_failing_spare(spare);
        }
        answered
    }

    /// Asks a device of some sectors whether it is there: its ends, and some places in between that nothing is known against.
    fn device_answers(&mut self, device: &BlockDevice, sectors: u64) -> bool {
        let unit = self.this.config.logical_sectors as u64;
        let units = sectors.checked_div(unit).unwrap_or(0);
        let somewhere = (0..PROBES).map(|_| crate::sync::random().checked_rem(units).unwrap_or(0));
        let ends = [0, units.saturating_sub(1)];
        let mut places = Iterator::chain(ends.into_iter(), somewhere);
        places.any(|place| {
            // The buffer may hold what was read of a block.
            let data = self.relocator.other.sectors(0, unit as usize);
            data.is_ok_and(|mut data| device.read(place.saturating_mul(unit), &mut data).is_ok())
        })
    }

    /// Ends a request that was counted, whether or not it had failed before.
    fn end(&self, request: Deferred, status: Status) {
        if status != Status::OK && request.status() == Status::OK {
            let start = Tag::from_word(request.tag()).start();
            (self.this).count_failure(start, request.operation(), status);
        }
        request.complete(status);
    }
}

/// A slot could not be written.
struct SlotFailed(Error);

/// What an error says about the medium.
pub(crate) fn fault(error: Error) -> Fault {
    Fault::of(error.to_errno().wrapping_neg())
}

/// Why a block moves for a request that failed.
const fn cause(direction: Direction) -> Cause {
    match direction {
        Direction::Read => Cause::Read,
        Direction::Write => Cause::Write,
    }
}

/// The status with which a request fails: that with which its I/O did, if it was sent.
fn failure(request: &Deferred) -> Status {
    match request.status() {
        Status::OK => Status::IO_ERROR,
        status => status,
    }
}
