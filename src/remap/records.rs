// SPDX-License-Identifier: GPL-2.0

//! What is known of each slot of the spares, and which slots are free.
//!
//! Slots are many and mostly unused, so they are kept in pieces of [`CHUNK_SLOTS`] that the owner
//! makes when the first slot of a piece is about to be used, and never takes away before the whole
//! set goes. [`Records`] is how this module reaches them: it stores nothing itself.
//!
//! # Concurrency
//!
//! There is one writer at a time, which is the caller's to ensure, and any number of readers that
//! take no lock. All accesses are atomic and most are relaxed, because order comes from the word
//! of the [`Index`](super::index::Index) that points to a slot:
//!
//! - A reader looks at the live mask and the block number of a slot after it loaded, with acquire,
//!   a word that names the slot. The writer filled the slot before it stored that word, with
//!   release, so the reader sees it filled.
//! - The writer changes the live mask of a slot only while the word is marked as moving, and only
//!   after every reader that may have loaded it unmarked is gone (a grace period of RCU). When it
//!   has changed it, it stores the unmarked word with release.
//! - A slot that lost its word is filled again only after a grace period, so a reader that still
//!   holds the old word sees the old contents.
//!
//! The counts of an [`Allocator`] are independent numbers, each right by itself at any time: a
//! reader that shows them must not expect a sum to agree while the writer is at work.

use core::sync::atomic::AtomicU32;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::AtomicU8;
use core::sync::atomic::Ordering::Relaxed;

use super::units::Block;
use super::units::Cause;
use super::units::LiveMask;
use super::units::Slot;
use super::units::SlotCount;
use super::units::SlotCounter;
use super::units::SlotNumber;
use super::units::SlotState;
use super::units::SpareIndex;
use super::units::UnixTime;

/// The number of slots whose records are kept together.
pub const CHUNK_SLOTS: usize = 256;

/// The binary logarithm of [`CHUNK_SLOTS`].
const CHUNK_SHIFT: u32 = CHUNK_SLOTS.trailing_zeros();

/// The records of [`CHUNK_SLOTS`] neighbouring slots: 4096 bytes, a page of the machine.
///
/// All bytes zero is the valid initial state.
#[repr(C)]
pub struct Chunk {
    /// The live mask of each slot.
    live: [AtomicU64; CHUNK_SLOTS],
    /// The block of main that each slot holds.
    block: [AtomicU32; CHUNK_SLOTS],
    /// When each slot got its block, in seconds since the epoch.
    time: [AtomicU32; CHUNK_SLOTS],
}

impl Chunk {
    /// Records that say nothing yet.
    pub const fn new() -> Self {
        Self {
            live: [const { AtomicU64::new(0) }; CHUNK_SLOTS],
            block: [const { AtomicU32::new(0) }; CHUNK_SLOTS],
            time: [const { AtomicU32::new(0) }; CHUNK_SLOTS],
        }
    }

    /// The block that slot `number` holds.
    #[inline]
    pub(super) fn block(&self, number: SlotNumber) -> Block {
        Block(self.block[place(number)].load(Relaxed))
    }

    /// The live mask of slot `number`.
    #[inline]
    pub(super) fn live(&self, number: SlotNumber) -> LiveMask {
        LiveMask(self.live[place(number)].load(Relaxed))
    }

    /// When slot `number` got its block.
    fn time(&self, number: SlotNumber) -> UnixTime {
        UnixTime(self.time[place(number)].load(Relaxed))
    }

    /// Writes all that `record` says of slot `number`, but for the cause, which is no part of it.
    fn fill(&self, number: SlotNumber, record: &Record) {
        let place = place(number);
        self.block[place].store(record.block.0, Relaxed);
        self.live[place].store(record.live.0, Relaxed);
        self.time[place].store(record.time.0, Relaxed);
    }
}

impl Default for Chunk {
    fn default() -> Self {
        Self::new()
    }
}

/// The states of [`CHUNK_SLOTS`] neighbouring slots, which no request needs: 256 bytes.
///
/// All bytes zero is the valid initial state: every slot is free.
#[repr(C)]
pub struct States {
    /// The [`SlotState::code`] of each slot.
    codes: [AtomicU8; CHUNK_SLOTS],
}

impl States {
    /// Every slot free.
    pub const fn new() -> Self {
        Self {
            codes: [const { AtomicU8::new(SlotState::Free.code()) }; CHUNK_SLOTS],
        }
    }

    /// The state of slot `number`.
    #[inline]
    fn state(&self, number: SlotNumber) -> SlotState {
        let code = self.codes[place(number)].load(Relaxed);
        // No other codes are ever stored; a slot that cannot be understood must not be given out.
        SlotState::from_code(code).unwrap_or(SlotState::Retired)
    }

    /// Changes the state of slot `number`.
    fn set(&self, number: SlotNumber, state: SlotState) {
        self.codes[place(number)].store(state.code(), Relaxed);
    }

    /// The first free slot from `from` on among these.
    fn first_free(&self, from: SlotNumber) -> Option<SlotNumber> {
        let skipped = (self.codes.iter().skip(place(from)))
            .position(|code| code.load(Relaxed) == SlotState::Free.code())?;
        SlotNumber::new(from.get().checked_add(u32::try_from(skipped).ok()?)?)
    }
}

impl Default for States {
    fn default() -> Self {
        Self::new()
    }
}

/// Where in its chunk slot `number` is: below [`CHUNK_SLOTS`], so that indexing cannot fail.
#[inline]
const fn place(number: SlotNumber) -> usize {
    number.get() as usize % CHUNK_SLOTS
}

/// The number of a chunk on its spare: chunk `n` has the slots from `n * CHUNK_SLOTS` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChunkNumber(u32);

impl ChunkNumber {
    /// The chunk of slot `number`.
    #[inline]
    pub const fn of(number: SlotNumber) -> Self {
        Self(number.get() >> CHUNK_SHIFT)
    }

    /// The number, to index a slice with.
    #[inline]
    pub const fn get(self) -> usize {
        self.0 as usize
    }

    /// The number that a slot right after this chunk would have.
    const fn end(self) -> u32 {
        // A slot has 27 bits, so its chunk has 19.
        (self.0 + 1) << CHUNK_SHIFT
    }

    /// How many chunks `slots` slots take.
    pub const fn count_for(slots: SlotCount) -> usize {
        (slots.0 as usize).div_ceil(CHUNK_SLOTS)
    }
}

/// A relocated block and the slot that holds it; entries are ordered by their blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The block of main.
    pub block: Block,
    /// The slot.
    pub slot: Slot,
}

/// What is known of a block that lives on a spare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The block of main.
    pub block: Block,
    /// Which of its sectors live on the spare.
    pub live: LiveMask,
    /// When it was relocated.
    pub time: UnixTime,
    /// Why it was relocated.
    pub cause: Cause,
}

/// The records of a whole set, as their owner keeps them.
pub trait Records {
    /// Chunk `number` of spare `spare`; [`None`] while it was not made, and beyond the spare.
    fn chunk(&self, spare: SpareIndex, number: ChunkNumber) -> Option<&Chunk>;

    /// The states that go with [`Self::chunk`]; they are made together.
    fn states(&self, spare: SpareIndex, number: ChunkNumber) -> Option<&States>;

    /// The chunk that holds `slot`.
    #[inline]
    fn chunk_of(&self, slot: Slot) -> Option<&Chunk> {
        self.chunk(slot.spare(), ChunkNumber::of(slot.number()))
    }

    /// What `slot` is used for; a slot whose states were never made is free.
    fn state(&self, slot: Slot) -> SlotState {
        match self.states(slot.spare(), ChunkNumber::of(slot.number())) {
            Some(states) => states.state(slot.number()),
            None => SlotState::Free,
        }
    }

    /// What is known of the block in `slot`; [`None`] when it holds none.
    fn record(&self, slot: Slot) -> Option<Record> {
        let SlotState::InUse(cause) = self.state(slot) else {
            return None;
        };
        let chunk = self.chunk_of(slot)?;
        Some(Record {
            block: chunk.block(slot.number()),
            live: chunk.live(slot.number()),
            time: chunk.time(slot.number()),
            cause,
        })
    }

    /// Changes which sectors of the block in `slot` live on the spare.
    ///
    /// Only the writer calls this, and only while the word of the block is marked as moving and no
    /// request that found it unmarked is under way.
    ///
    /// # Errors
    ///
    /// [`Refused::WrongState`] when the slot holds no block.
    fn set_live(&self, slot: Slot, live: LiveMask) -> Result<(), Refused> {
        if !matches!(self.state(slot), SlotState::InUse(_)) {
            return Err(Refused::WrongState);
        }
        let chunk = self.chunk_of(slot).ok_or(Refused::NoRoom)?;
        chunk.live[place(slot.number())].store(live.0, Relaxed);
        Ok(())
    }
}

/// Why a change of a slot was refused; nothing was changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The slot is not in a state from which this change is possible.
    WrongState,
    /// The slot lies beyond the end of its spare.
    BeyondSpare,
    /// The chunk that holds the slot was not made.
    NoRoom,
}

/// Which slots of one spare are free.
///
/// Slots are given out from the lowest on, so that the pages of the metadata fill in order and as
/// few as possible are ever used.
///
/// All methods that change something are for the one writer.
pub struct Allocator {
    /// The spare.
    spare: SpareIndex,
    /// The number of its slots.
    capacity: SlotCount,
    /// One more than the highest slot that ever was in use or retired.
    high_water: SlotCounter,
    /// No slot below this one is free.
    hint: AtomicU32,
    /// How many slots are in use.
    used: SlotCounter,
    /// How many slots are retired.
    retired: SlotCounter,
}

impl Allocator {
    /// The allocator of a spare on which every slot is free.
    ///
    /// A spare has at most [`SlotNumber::MAX_COUNT`] slots; a larger `capacity` counts as that.
    pub const fn new(spare: SpareIndex, capacity: SlotCount) -> Self {
        let capacity = if capacity.0 <= SlotNumber::MAX_COUNT {
            capacity
        } else {
            SlotCount(SlotNumber::MAX_COUNT)
        };
        Self {
            spare,
            capacity,
            high_water: SlotCounter::new(),
            hint: AtomicU32::new(0),
            used: SlotCounter::new(),
            retired: SlotCounter::new(),
        }
    }

    /// The number of slots that the spare has.
    pub const fn capacity(&self) -> SlotCount {
        self.capacity
    }

    /// One more than the highest slot that ever was in use or retired: all others are free.
    pub fn high_water(&self) -> SlotCount {
        self.high_water.get()
    }

    /// The number of slots that hold a block.
    pub fn used(&self) -> SlotCount {
        self.used.get()
    }

    /// The number of slots that are bad.
    pub fn retired(&self) -> SlotCount {
        self.retired.get()
    }

    /// The number of slots that can still be given out.
    pub fn free(&self) -> SlotCount {
        self.capacity.saturating_sub(self.taken())
    }

    /// The number of slots that cannot be given out.
    fn taken(&self) -> SlotCount {
        self.used().saturating_add(self.retired())
    }

    /// The blocks in the slots of this spare, in the order of the slots.
    pub fn entries<'a, R: Records + ?Sized>(
        &'a self,
        records: &'a R,
    ) -> impl Iterator<Item = Entry> + 'a {
        let firsts = (0..self.high_water().0).step_by(CHUNK_SLOTS);
        firsts.map_while(SlotNumber::new).flat_map(move |first| {
            let made = self.chunk_and_states(records, first).ok();
            made.into_iter().flat_map(move |(chunk, states)| {
                let in_use =
                    move |number: &SlotNumber| matches!(states.state(*number), SlotState::InUse(_));
                let numbers = first.get()..ChunkNumber::of(first).end();
                let numbers = numbers.map_while(SlotNumber::new).filter(in_use);
                numbers.map(move |number| Entry {
                    block: chunk.block(number),
                    slot: Slot::new(self.spare, number),
                })
            })
        })
    }

    /// The lowest free slot; [`None`] when there is none.
    ///
    /// This gives nothing away: the caller makes the chunk of the slot where it is missing, and
    /// then calls [`Self::occupy`].
    pub fn lowest_free<R: Records + ?Sized>(&self, records: &R) -> Option<Slot> {
        let high_water = self.high_water();
        let some_below = self.taken() < high_water;
        let mut from = if some_below {
            self.hint.load(Relaxed)
        } else {
            high_water.0
        };
        while from < self.capacity.0 {
            let number = SlotNumber::new(from)?;
            let chunk = ChunkNumber::of(number);
            let free = match records.states(self.spare, chunk) {
                Some(states) => states.first_free(number),
                None => Some(number),
            };
            match free {
                Some(free) if free.get() < self.capacity.0 => {
                    self.hint.store(free.get(), Relaxed);
                    return Some(Slot::new(self.spare, free));
                }
                Some(_) => return None,
                None => from = chunk.end(),
            }
        }
        None
    }

    /// Puts a block into the free slot `number`.
    ///
    /// # Errors
    ///
    /// See [`Refused`]; a slot that is not free is in the wrong state.
    pub fn occupy<R: Records + ?Sized>(
        &self,
        records: &R,
        number: SlotNumber,
        record: &Record,
    ) -> Result<(), Refused> {
        let (chunk, states) = self.chunk_and_states(records, number)?;
        if states.state(number) != SlotState::Free {
            return Err(Refused::WrongState);
        }
        chunk.fill(number, record);
        states.set(number, SlotState::InUse(record.cause));
        self.raise_high_water(number);
        self.used.increment();
        Ok(())
    }

    /// Frees the slot `number`, which held a block.
    ///
    /// The writer calls this only after a grace period since the block lost its word in the index,
    /// or since the word got another slot, because from here on the slot may be filled again.
    ///
    /// # Errors
    ///
    /// See [`Refused`]; a slot that is not in use is in the wrong state.
    pub fn release<R: Records + ?Sized>(
        &self,
        records: &R,
        number: SlotNumber,
    ) -> Result<(), Refused> {
        let (_, states) = self.chunk_and_states(records, number)?;
        if !matches!(states.state(number), SlotState::InUse(_)) {
            return Err(Refused::WrongState);
        }
        states.set(number, SlotState::Free);
        self.used.decrement();
        self.hint
            .store(self.hint.load(Relaxed).min(number.get()), Relaxed);
        Ok(())
    }

    /// Takes the slot `number` out of use for good, because its place on the spare is bad.
    ///
    /// When it held a block, the same grace period as for [`Self::release`] is not needed, because
    /// a retired slot is never filled again; the block must have lost its word all the same.
    ///
    /// # Errors
    ///
    /// See [`Refused`]; a slot that is retired already is in the wrong state.
    pub fn retire<R: Records + ?Sized>(
        &self,
        records: &R,
        number: SlotNumber,
    ) -> Result<(), Refused> {
        let (_, states) = self.chunk_and_states(records, number)?;
        match states.state(number) {
            SlotState::Free => self.raise_high_water(number),
            SlotState::InUse(_) => self.used.decrement(),
            SlotState::Retired => return Err(Refused::WrongState),
        }
        states.set(number, SlotState::Retired);
        self.retired.increment();
        Ok(())
    }

    /// What is known of slot `number` of this spare.
    fn chunk_and_states<'a, R: Records + ?Sized>(
        &self,
        records: &'a R,
        number: SlotNumber,
    ) -> Result<(&'a Chunk, &'a States), Refused> {
        if number.get() >= self.capacity.0 {
            return Err(Refused::BeyondSpare);
        }
        let chunk = ChunkNumber::of(number);
        let records_and_states = records
            .chunk(self.spare, chunk)
            .zip(records.states(self.spare, chunk));
        records_and_states.ok_or(Refused::NoRoom)
    }

    /// Notes that slot `number` is not free any more.
    fn raise_high_water(&self, number: SlotNumber) {
        let end = SlotCount(number.get()).saturating_add(SlotCount(1));
        self.high_water.set(self.high_water().max(end));
    }
}
