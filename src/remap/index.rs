// SPDX-License-Identifier: GPL-2.0

//! Where the relocated blocks are: from a block of main to its slot, without a lock.
//!
//! The index has two parts. The *summary* is a bitmap with one bit for each region of main, set
//! when a block of the region may be relocated: it answers nearly every request to a healthy block
//! with a few instructions, and is small enough to stay in the processor's cache. The *words* are
//! a hash table with open addressing and linear probing. A word is the slot alone: the block is
//! not in it but in the slot's record, with which a search compares, so a relocation costs
//! 4 bytes at a load between 0.64 and 0.8.
//!
//! ```text
//! word   bit 31: moving   bits 30..0: slot + 1      0: never used      0x7fff_ffff: removed
//! ```
//!
//! The index cannot grow in place. When [`Index::insert`] says [`InsertError::Full`], the writer
//! makes a larger one of the size that [`Index::next_sizes`] names, fills it with
//! [`Index::rebuild_into`], and publishes it; readers that still hold the old one see the state of
//! that moment, which the grace periods below cover in the same way.
//!
//! # Concurrency
//!
//! Readers ([`Index::may_contain`], [`Index::find`] and what builds on them) run at any time and
//! on any number of processors, each inside a read-side critical section of RCU. There is one
//! writer at a time, which is the caller's to ensure. Two things of RCU are used: a *grace period*
//! waits until every critical section that was under way has ended, and it orders memory: what
//! the writer stored before it is seen by every critical section that begins after it.
//!
//! A relocation goes like this:
//!
//! 1. The writer fills the record of a free slot, and inserts its word marked as *moving*: first
//!    the bit of the summary, then the word, with release.
//! 2. Grace period; then the writer waits for the requests that were sent on before.
//! 3. It copies the data, sets the live mask in the record, and stores the word without the mark,
//!    with release.
//!
//! and each other change of a relocated block as mark, grace period, drain, change, unmark. So:
//!
//! - *A reader that misses a new word*, or misses the bit of the summary that goes with it, treats
//!   the block as being on main, which is right until step 3. It began before the end of the grace
//!   period of step 2, which therefore waits for it, and the drain for its request. This is why
//!   the summary needs no order of its own: relaxed accesses suffice, and so does seeing the word
//!   and the bit in any order.
//! - *A reader that sees the marked word* holds its request back.
//! - *A reader that sees the unmarked word* loaded it with acquire, so it sees the record as
//!   of that store or later. It is never later in a way that matters: a change of the record comes
//!   after a grace period that begins when the word is marked again, and which waits for this
//!   reader.
//! - *A reader that sees the word of a slot that was removed meanwhile* still sees the old record,
//!   as the slot is filled again only after a grace period.
//! - *Words never move*, and an insertion changes only a word that was never used or removed. A
//!   search that walks past such a word finds what lies behind it as before. A removed word
//!   becomes a never-used one again only when the word behind it is never used, that is when there
//!   is nothing to be found behind it: the search may end at either.
//! - *A block has one word at most*, so a search cannot find an outdated second one. A search that
//!   walks past the place where its block will be inserted, and then sees that its former word was
//!   removed, finds nothing: this is the first case again.

use core::ops::Deref;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Acquire;
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::Ordering::Release;

use super::records::Records;
use super::units::Block;
use super::units::BlockSize;
use super::units::LiveMask;
use super::units::Sector;
use super::units::Sectors;
use super::units::Slot;
use super::units::SlotCount;
use super::units::SlotCounter;

/// A word that was never used: a search ends here.
const EMPTY: u32 = 0;

/// A word whose block was removed: a search goes on. No slot has this number.
const REMOVED: u32 = 0x7fff_ffff;

/// The bit that marks the block of a word as moving.
const MOVING: u32 = 1 << 31;

/// The number of bits in a word of the summary.
const BITS: u32 = u64::BITS;

/// The number of sectors for which the summary may have one bit whatever the number of
/// relocations: 64 KiB of bits for 20 TB of main.
const SECTORS_PER_BIT: u64 = (20_000_000_000_000 / 512_u64).div_ceil(64 * 1024 * 8);

/// The number of bits that the summary may have for each relocation that there is room for.
const BITS_PER_RELOCATION: u64 = 4;

/// The room that an index has beyond a quarter more than what it was made for, so that a small one
/// is not outgrown at once.
const SPARE_ROOM: u32 = 64;

/// How large an index is to be, and what its summary says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// The size of main.
    main: Sectors,
    /// The unit of relocation.
    block_size: BlockSize,
    /// The number of words of the hash table.
    words: usize,
    /// The number of words of the summary.
    summary: usize,
    /// The binary logarithm of the number of sectors in a region; at least that of a block.
    region_shift: u32,
}

impl Sizes {
    /// The sizes of an index with room for `capacity` relocations of a main of `main` sectors.
    ///
    /// [`None`] when main is empty or has more than 2^32 blocks.
    pub fn new(main: Sectors, block_size: BlockSize, capacity: SlotCount) -> Option<Self> {
        block_size.last_block(main)?;
        let capacity = u64::from(capacity.0);
        // A load of 0.8 is five words for four relocations.
        let words = capacity.checked_add(capacity.div_ceil(4))?.checked_add(1)?;
        let by_capacity = capacity.checked_mul(BITS_PER_RELOCATION)?;
        let bits = by_capacity
            .max(main.0 / SECTORS_PER_BIT)
            .max(u64::from(BITS));
        let mut region_shift = block_size.shift();
        while regions(main, region_shift) > bits {
            region_shift = region_shift.checked_add(1)?;
        }
        Some(Self {
            main,
            block_size,
            words: usize::try_from(words).ok()?,
            summary: usize::try_from(regions(main, region_shift).div_ceil(BITS.into())).ok()?,
            region_shift,
        })
    }

    /// How many words the hash table has, 4 bytes each.
    pub const fn words(&self) -> usize {
        self.words
    }

    /// How many words the summary has, 8 bytes each.
    pub const fn summary(&self) -> usize {
        self.summary
    }
}

/// How many regions of 2^`shift` sectors a device of `size` sectors has.
const fn regions(size: Sectors, shift: u32) -> u64 {
    match size.0.checked_sub(1) {
        Some(last) => last.wrapping_shr(shift).saturating_add(1),
        None => 0,
    }
}

/// A random number that decides where blocks lie in the hash table.
///
/// Every number gives a right index. One that nobody can know beforehand keeps metadata that was
/// made with evil intent from choosing blocks that all lie in the same place.
#[derive(Clone, Copy, Debug)]
pub struct Seed(pub u64);

/// A relocated block that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where the block is.
    pub slot: Slot,
    /// Which of its sectors live on the spare. It may be changing when `moving` is set.
    pub live: LiveMask,
    /// Whether the block is being moved, so that requests to it have to wait.
    pub moving: bool,
}

/// Why a block was not inserted; nothing was changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InsertError {
    /// There is no room: a larger index has to be made.
    Full,
    /// The block has a word already.
    Present,
    /// The block lies beyond the end of main.
    BeyondMain,
    /// The chunk with the record of the slot was not made.
    NoRecord,
}

/// The index; see the module's documentation.
///
/// `W` and `S` are where the words of the hash table and of the summary are kept.
pub struct Index<W, S> {
    /// The hash table.
    words: W,
    /// The summary.
    summary: S,
    /// What both are made for.
    sizes: Sizes,
    /// Multiplied with a block's number to find its place: odd.
    multiplier: u64,
    /// The number of relocated blocks.
    used: SlotCounter,
    /// The number of words that are [`REMOVED`].
    removed: SlotCounter,
}

impl<W, S> Index<W, S>
where
    W: Deref<Target = [AtomicU32]>,
    S: Deref<Target = [AtomicU64]>,
{
    /// An index without relocations, in memory that is all zero.
    ///
    /// [`None`] when `words` or `summary` has not the length that `sizes` says.
    pub fn new(sizes: Sizes, words: W, summary: S, seed: Seed) -> Option<Self> {
        if words.len() != sizes.words || summary.len() != sizes.summary {
            return None;
        }
        Some(Self {
            words,
            summary,
            sizes,
            multiplier: seed.0 | 1,
            used: SlotCounter::new(),
            removed: SlotCounter::new(),
        })
    }

    /// The number of relocated blocks.
    pub fn used(&self) -> SlotCount {
        self.used.get()
    }

    /// The unit of relocation.
    #[inline]
    pub const fn block_size(&self) -> BlockSize {
        self.sizes.block_size
    }

    /// The sizes of the index that has to replace this one when it is full: with room for a
    /// quarter more blocks than there are.
    ///
    /// [`None`] when no such index can be.
    pub fn next_sizes(&self) -> Option<Sizes> {
        let used = self.used().0;
        let capacity = used.checked_add(used / 4)?.checked_add(SPARE_ROOM)?;
        Sizes::new(self.sizes.main, self.sizes.block_size, SlotCount(capacity))
    }

    /// Whether one of the sectors from `first` to `last`, both included, may be in a relocated
    /// block: when this is false, none is.
    ///
    /// Every request asks this first.
    #[inline(always)]
    pub fn may_contain(&self, first: Sector, last: Sector) -> bool {
        let region = first.0.wrapping_shr(self.sizes.region_shift);
        let last_region = last.0.wrapping_shr(self.sizes.region_shift);
        if region == last_region {
            self.summary_word(region).wrapping_shr(region as u32) & 1 != 0
        } else {
            self.next_region(region, last_region).is_some()
        }
    }

    /// The word of the summary that has the bit of `region`; no bit is set beyond the summary.
    #[inline(always)]
    fn summary_word(&self, region: u64) -> u64 {
        match self.summary.get((region / u64::from(BITS)) as usize) {
            Some(word) => word.load(Relaxed),
            None => 0,
        }
    }

    /// The first region from `region` to `last`, both included, whose bit is set.
    fn next_region(&self, mut region: u64, last: u64) -> Option<u64> {
        // Nothing is set beyond the summary, so there is no need to look there.
        let last = last.min(regions(self.sizes.main, self.sizes.region_shift).checked_sub(1)?);
        while region <= last {
            let bits = self.summary_word(region).wrapping_shr(region as u32);
            if bits != 0 {
                let found = region.checked_add(bits.trailing_zeros().into())?;
                return (found <= last).then_some(found);
            }
            // The first region of the next word.
            region = (region | u64::from(BITS - 1)).checked_add(1)?;
        }
        None
    }

    /// The region that `block` lies in.
    #[inline]
    fn region_of(&self, block: Block) -> u64 {
        let first = self.sizes.block_size.first_sector(block);
        first.0.wrapping_shr(self.sizes.region_shift)
    }

    /// Where the search for `block` begins: below the number of words.
    #[inline]
    fn home(&self, block: Block) -> usize {
        // The finaliser of a 64-bit mix: the first product depends on the seed, its upper half is
        // folded into the lower one, and the second spreads it over the upper half.
        let product = u64::from(block.0).wrapping_mul(self.multiplier);
        let folded = product ^ (product >> 32);
        let hash = folded.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        // `hash / 2^32` is the part of the table before the place. There are less than 2^32 words.
        (hash.wrapping_mul(self.words.len() as u64) >> 32) as usize
    }

    /// The place after `at`.
    #[inline]
    fn after(&self, at: usize) -> usize {
        let next = at.wrapping_add(1);
        if next < self.words.len() {
            next
        } else {
            0
        }
    }

    /// The place of the word of `block`, and what it says.
    #[inline]
    fn locate<R: Records + ?Sized>(&self, records: &R, block: Block) -> Option<(usize, Found)> {
        let mut at = self.home(block);
        // A word that was never used ends the search long before; the count only bounds it.
        for _ in 0..self.words.len() {
            let word = self.words.get(at)?.load(Acquire);
            if word == EMPTY {
                return None;
            }
            if let Some(slot) = slot_of(word) {
                if let Some(chunk) = records.chunk_of(slot) {
                    if chunk.block(slot.number()) == block {
                        let live = chunk.live(slot.number());
                        return Some((
                            at,
                            Found {
                                slot,
                                live,
                                moving: word & MOVING != 0,
                            },
                        ));
                    }
                }
            }
            at = self.after(at);
        }
        None
    }

    /// Where `block` lives, when it is relocated.
    #[inline]
    pub fn find<R: Records + ?Sized>(&self, records: &R, block: Block) -> Option<Found> {
        self.locate(records, block).map(|(_, found)| found)
    }

    /// The first relocated block from `from` to `last`, both included, and where it lives.
    ///
    /// This looks at every block of the regions whose bit is set, so it suits short ranges; see
    /// [`blocks_in_range`](super::listing::blocks_in_range) for long ones.
    pub fn next_relocated<R: Records + ?Sized>(
        &self,
        records: &R,
        from: Block,
        last: Block,
    ) -> Option<(Block, Found)> {
        let mut block = from;
        while block <= last {
            let region = self.region_of(block);
            let possible = self.next_region(region, self.region_of(last))?;
            if possible > region {
                let sector = Sector(possible.wrapping_shl(self.sizes.region_shift));
                block = self.sizes.block_size.block_of(sector)?;
            }
            if let Some(found) = self.find(records, block) {
                return Some((block, found));
            }
            block = block.next()?;
        }
        None
    }

    /// Inserts the block that the record of `slot` names, marked as moving or not.
    ///
    /// Only the writer calls this. The record must be filled before, and stay as it is.
    ///
    /// # Errors
    ///
    /// See [`InsertError`].
    pub fn insert<R: Records + ?Sized>(
        &self,
        records: &R,
        slot: Slot,
        moving: bool,
    ) -> Result<(), InsertError> {
        let chunk = records.chunk_of(slot).ok_or(InsertError::NoRecord)?;
        let block = chunk.block(slot.number());
        if self.sizes.block_size.first_sector(block).0 >= self.sizes.main.0 {
            return Err(InsertError::BeyondMain);
        }
        if self.find(records, block).is_some() {
            return Err(InsertError::Present);
        }
        let (word, reused) = self.vacant_word(block).ok_or(InsertError::Full)?;
        self.set_region(self.region_of(block));
        word.store(word_of(slot, moving), Release);
        self.used.increment();
        if reused {
            self.removed.decrement();
        }
        Ok(())
    }

    /// The first word on the way of a search for `block` that may be taken, and whether it is a
    /// removed one; [`None`] when that would make the index fuller than it may be.
    fn vacant_word(&self, block: Block) -> Option<(&AtomicU32, bool)> {
        let taken = self.used().saturating_add(self.removed.get());
        // Less than 2^32 words, so four times that fits.
        let limit = (self.words.len() as u64).wrapping_mul(4) / 5;
        let mut at = self.home(block);
        for _ in 0..self.words.len() {
            let word = self.words.get(at)?;
            match word.load(Relaxed) {
                REMOVED => return Some((word, true)),
                EMPTY => return (u64::from(taken.0) < limit).then_some((word, false)),
                _ => at = self.after(at),
            }
        }
        None
    }

    /// Sets the bit of `region`.
    fn set_region(&self, region: u64) {
        if let Some(word) = self.summary.get((region / u64::from(BITS)) as usize) {
            word.fetch_or(1_u64.wrapping_shl(region as u32), Relaxed);
        }
    }

    /// Marks `block` as moving, so that requests to it wait, and returns what was known of it;
    /// [`None`] when it is not relocated.
    ///
    /// Only the writer calls this, and waits for a grace period and for the requests that were
    /// sent on before it touches the block's data or its record.
    pub fn set_moving<R: Records + ?Sized>(&self, records: &R, block: Block) -> Option<Found> {
        self.store(records, block, |found| word_of(found.slot, true))
    }

    /// Ends what [`Self::set_moving`] began; [`None`] when `block` is not relocated.
    ///
    /// Only the writer calls this, after the record says how things are now.
    pub fn clear_moving<R: Records + ?Sized>(&self, records: &R, block: Block) -> Option<Found> {
        self.store(records, block, |found| word_of(found.slot, false))
    }

    /// Gives a relocated block another slot, the record of which names it, and returns what was
    /// known of it before; [`None`] when the record is missing or its block is not relocated.
    ///
    /// Only the writer calls this. A block whose word is changed must be marked as moving, unless
    /// both slots hold the same data and have the same live mask. The former slot may be filled
    /// again after a grace period.
    pub fn replace<R: Records + ?Sized>(
        &self,
        records: &R,
        slot: Slot,
        moving: bool,
    ) -> Option<Found> {
        let block = records.chunk_of(slot)?.block(slot.number());
        self.store(records, block, |_| word_of(slot, moving))
    }

    /// Changes the word of `block` to what `change` makes of it.
    fn store<R: Records + ?Sized>(
        &self,
        records: &R,
        block: Block,
        change: impl FnOnce(&Found) -> u32,
    ) -> Option<Found> {
        let (at, found) = self.locate(records, block)?;
        self.words.get(at)?.store(change(&found), Release);
        Some(found)
    }

    /// Removes `block`, and returns what was known of it; [`None`] when it is not relocated.
    ///
    /// Only the writer calls this, after the block's data is on main. The slot may be filled again
    /// after a grace period.
    pub fn remove<R: Records + ?Sized>(&self, records: &R, block: Block) -> Option<Found> {
        let (at, found) = self.locate(records, block)?;
        self.words.get(at)?.store(REMOVED, Release);
        self.used.decrement();
        self.removed.increment();
        self.clean_before(self.after(at));
        Some(found)
    }

    /// Makes the removed words right before `end` never-used ones, when `end` was never used.
    fn clean_before(&self, end: usize) {
        let is = |at: usize, value| self.words.get(at).is_some_and(|w| w.load(Relaxed) == value);
        if !is(end, EMPTY) {
            return;
        }
        let mut at = self.before(end);
        while is(at, REMOVED) {
            if let Some(word) = self.words.get(at) {
                word.store(EMPTY, Release);
            }
            self.removed.decrement();
            at = self.before(at);
        }
    }

    /// The place before `at`.
    fn before(&self, at: usize) -> usize {
        at.checked_sub(1)
            .unwrap_or(self.words.len().saturating_sub(1))
    }

    /// Inserts all blocks of this index into `new`, marked as moving where they are here.
    ///
    /// Only the writer calls this, before it publishes `new`. When it fails, `new` is of no use.
    ///
    /// # Errors
    ///
    /// See [`InsertError`]; it is [`InsertError::Full`] unless `new` is for another main.
    pub fn rebuild_into<R: Records + ?Sized>(
        &self,
        records: &R,
        new: &Self,
    ) -> Result<(), InsertError> {
        for word in self.words.iter() {
            let word = word.load(Relaxed);
            if let Some(slot) = slot_of(word) {
                new.insert(records, slot, word & MOVING != 0)?;
            }
        }
        Ok(())
    }
}

/// The word that says that a block is in `slot`.
#[inline]
const fn word_of(slot: Slot, moving: bool) -> u32 {
    // The number of a slot is below 2^31 - 1, so one more fits into the 31 bits, and is `REMOVED`
    // for no slot.
    let word = slot.packed() + 1;
    if moving {
        word | MOVING
    } else {
        word
    }
}

/// The slot that `word` names; [`None`] when it names none.
#[inline]
const fn slot_of(word: u32) -> Option<Slot> {
    match word & !MOVING {
        EMPTY => None,
        // The number of no slot is as high as that of a removed word.
        number => Slot::from_packed(number - 1),
    }
}
