// SPDX-License-Identifier: GPL-2.0

//! Where the relocated blocks are: from a block of main to its slot, without a lock.
//!
//! The index has two parts. The *summary* is a bitmap with one bit for each region of main, set
//! when a block of the region may be relocated: it answers nearly every request to a healthy block
//! with a few instructions, and is small enough to stay in the processor's cache. The *words* are
//! a hash table with open addressing and linear probing. A word names the slot: the block is not
//! in it but in the slot's record, with which a search compares, so a relocation costs 4 bytes at
//! a load between 0.71 and 0.8. What the number of the slot leaves of its 27 bits, because the
//! spares are smaller, holds a *tag*, some bits of the block's hash: a search goes past nearly
//! all words of other blocks without a look at their records, which are not in the cache.
//!
//! ```text
//! bit 31: moving   bits 30..27: spare + 1   bits 26..0: tag, slot      0: never used   1: removed
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

/// A word whose block was removed: a search goes on. It names no slot, as its spare is missing.
const REMOVED: u32 = 1;

/// The bit that marks the block of a word as moving.
const MOVING: u32 = 1 << 31;

/// The number of bits in a word of the summary.
const BITS: u32 = u64::BITS;

/// The number of sectors for which the summary may have one bit whatever the number of
/// relocations: 64 KiB of bits for 20 TB of main.
const SECTORS_PER_BIT: u64 = (20_000_000_000_000 / 512_u64).div_ceil(64 * 1024 * 8);

/// The number of bits that the summary may have for each relocation that there is room for.
const BITS_PER_RELOCATION: u64 = 4;

/// From this size on the kernel maps memory in huge pages when it can, and takes whole ones.
const HUGE_PAGE: u64 = 2 << 20;

/// The room that an index should have beyond what it is made for, so that many blocks can be relocated before it has to
/// grow.
pub const SPARE_ROOM: SlotCount = SlotCount(1024);

/// How large an index is to be, and what its summary says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// The size of main.
    main: Sectors,
    /// The unit of relocation.
    block_size: BlockSize,
    /// The most slots that a spare has.
    slots: SlotCount,
    /// The number of words of the hash table.
    words: usize,
    /// The number of words of the summary.
    summary: usize,
    /// The regions that the summary has a bit for.
    regions: Regions,
    /// The bits of a word that have the tag: those that the number of no slot needs.
    tag_mask: u32,
    /// The bits of a word that have the slot.
    slot_mask: u32,
}

impl Sizes {
    /// The sizes of an index with room for `capacity` relocations of a main of `main` sectors to
    /// spares that have at most `slots` slots each.
    ///
    /// [`None`] when main is empty or has more than 2^32 blocks.
    pub fn new(
        main: Sectors,
        block_size: BlockSize,
        slots: SlotCount,
        capacity: SlotCount,
    ) -> Option<Self> {
        let capacity = u64::from(capacity.0);
        // A load of 0.8 is five words for four relocations.
        let mut words = capacity.checked_add(capacity.div_ceil(4))?.checked_add(1)?;
        // What would be left of the last huge page makes searches shorter instead.
        let words_in_huge_page = HUGE_PAGE / size_of::<AtomicU32>() as u64;
        if words >= words_in_huge_page {
            words = words.checked_next_multiple_of(words_in_huge_page)?;
        }
        let by_capacity = capacity.checked_mul(BITS_PER_RELOCATION)?;
        let bits = by_capacity
            .max(main.0 / SECTORS_PER_BIT)
            .max(u64::from(BITS));
        let number_mask = highest_with_bits_of(slots.0.saturating_sub(1)) & Slot::NUMBER_MASK;
        let tag_mask = Slot::NUMBER_MASK & !number_mask;
        let regions = Regions::new(block_size.last_block(main)?, bits);
        Some(Self {
            main,
            block_size,
            slots,
            words: usize::try_from(words).ok()?,
            summary: usize::try_from(regions.count.div_ceil(BITS.into())).ok()?,
            regions,
            tag_mask,
            slot_mask: !(tag_mask | MOVING),
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

/// The highest number that has no more bits than `number`.
const fn highest_with_bits_of(number: u32) -> u32 {
    match u32::MAX.checked_shr(number.leading_zeros()) {
        Some(highest) => highest,
        None => 0,
    }
}

/// How main is divided into regions of whole blocks, all of them about as large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Regions {
    /// Regions to a block, in units of 2^-32: at most 2^32, which is one to a block.
    scale: u64,
    /// How many there are.
    count: u64,
}

impl Regions {
    /// The most regions, up to `bits`, for the blocks up to and with `last`.
    const fn new(last: Block, bits: u64) -> Self {
        // Less than 2^33 blocks, and a scale of at most 2^32: all of this fits into 64 bits.
        let blocks = (last.0 as u64).wrapping_add(1);
        let scale = if bits < blocks {
            (bits << 32) / blocks
        } else {
            1 << 32
        };
        let mut regions = Self { scale, count: 0 };
        regions.count = regions.of(last.0 as u64).wrapping_add(1);
        regions
    }

    /// The region of block number `block`.
    #[inline(always)]
    const fn of(&self, block: u64) -> u64 {
        block.wrapping_mul(self.scale) >> 32
    }

    /// The first block of `region`, which is not beyond the last one.
    const fn first_block(&self, region: u64) -> Option<Block> {
        match (region << 32).checked_div(self.scale) {
            // What the division leaves behind makes it the block after.
            Some(before) if before.wrapping_mul(self.scale) == region << 32 => {
                Some(Block(before as u32))
            }
            Some(before) => Block(before as u32).next(),
            None => None,
        }
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
    /// The slot is beyond those that the index was made for, or the chunk with its record was not
    /// made.
    UnknownSlot,
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
            // The pattern makes a good multiplier of seeds that are not random, such as zero.
            multiplier: (seed.0 ^ 0xd6e8_feb8_6659_fd93) | 1,
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

    /// The sizes of the index that has to replace this one when it is full: with room for an
    /// eighth more blocks than there are.
    ///
    /// [`None`] when no such index can be.
    pub fn next_sizes(&self) -> Option<Sizes> {
        let used = self.used().0;
        let capacity = used.checked_add(used / 8)?.checked_add(SPARE_ROOM.0)?;
        let Sizes {
            main, block_size, ..
        } = self.sizes;
        Sizes::new(main, block_size, self.sizes.slots, SlotCount(capacity))
    }

    /// Whether the sectors from `first` to `last`, both included, are surely in no relocated block
    /// because they are in one region without any.
    ///
    /// Every request asks this first. [`Self::may_contain`] is for those with sectors in several
    /// regions, which are few.
    #[inline(always)]
    pub fn is_clear(&self, first: Sector, last: Sector) -> bool {
        let (region, last_region) = (self.region_with(first), self.region_with(last));
        region == last_region && self.summary_word(region).wrapping_shr(region as u32) & 1 == 0
    }

    /// Whether one of the sectors from `first` to `last`, both included, may be in a relocated
    /// block: when this is false, none is.
    pub fn may_contain(&self, first: Sector, last: Sector) -> bool {
        let (region, last_region) = (self.region_with(first), self.region_with(last));
        self.next_region(region, last_region).is_some()
    }

    /// The region that `sector` is in.
    #[inline(always)]
    fn region_with(&self, sector: Sector) -> u64 {
        let block = sector.0.wrapping_shr(self.sizes.block_size.shift());
        self.sizes.regions.of(block)
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
        let last = last.min(self.sizes.regions.count.checked_sub(1)?);
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
        self.sizes.regions.of(block.0.into())
    }

    /// Where the search for `block` begins, below the number of words, and the tag of its word.
    #[inline]
    fn home_and_tag(&self, block: Block) -> (usize, u32) {
        // The finaliser of a 64-bit mix: the first product depends on the seed, its upper half is
        // folded into the lower one, and the second spreads it over the upper half again.
        let product = u64::from(block.0).wrapping_mul(self.multiplier);
        let hash = (product ^ (product >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // The upper half is which part of the table lies before the home, in units of 2^-32. There
        // are less than 2^32 words.
        let home = ((hash >> 32).wrapping_mul(self.words.len() as u64) >> 32) as usize;
        // The lower half has had no say in that.
        (home, hash as u32 & self.sizes.tag_mask)
    }

    /// The slot that `word` names; [`None`] when it names none.
    #[inline]
    fn slot_of(&self, word: u32) -> Option<Slot> {
        Slot::unpack(word & self.sizes.slot_mask)
    }

    /// Looks for `block` where it is most of the time: between its home and the last word. This is
    /// [`Self::find`] without what is rarely needed.
    #[inline]
    pub(super) fn find_near<R: Records + ?Sized>(&self, records: &R, block: Block) -> Search {
        let (home, tag) = self.home_and_tag(block);
        self.search(records, block, tag, home)
    }

    /// Looks for `block`, the word of which has this tag, from the word at `from` to the last one.
    #[inline]
    fn search<R: Records + ?Sized>(
        &self,
        records: &R,
        block: Block,
        tag: u32,
        from: usize,
    ) -> Search {
        let tag_mask = self.sizes.tag_mask;
        let mut at = from;
        while let Some(word) = self.words.get(at) {
            let word = word.load(Acquire);
            if word == EMPTY {
                return Search::Nowhere;
            }
            if word & tag_mask == tag {
                if let Some(found) = self.check(records, block, word) {
                    return Search::Here { at, found };
                }
            }
            at = at.wrapping_add(1);
        }
        Search::NotToTheEnd
    }

    /// What `word` and the record that it leads to say, if they are those of `block`.
    #[inline]
    fn check<R: Records + ?Sized>(&self, records: &R, block: Block, word: u32) -> Option<Found> {
        let slot = self.slot_of(word)?;
        let chunk = records.chunk_of(slot)?;
        (chunk.block(slot.number()) == block).then(|| Found {
            slot,
            live: chunk.live(slot.number()),
            moving: word & MOVING != 0,
        })
    }

    /// The place of the word of `block`, and what it says.
    fn locate<R: Records + ?Sized>(&self, records: &R, block: Block) -> Option<(usize, Found)> {
        let (home, tag) = self.home_and_tag(block);
        let search = match self.search(records, block, tag, home) {
            Search::NotToTheEnd => self.search(records, block, tag, 0),
            ended => ended,
        };
        match search {
            Search::Here { at, found } => Some((at, found)),
            Search::Nowhere | Search::NotToTheEnd => None,
        }
    }

    /// Where `block` lives, when it is relocated.
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
                block = self.sizes.regions.first_block(possible)?;
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
        let block = self
            .block_in(records, slot)
            .ok_or(InsertError::UnknownSlot)?;
        if self.sizes.block_size.first_sector(block).0 >= self.sizes.main.0 {
            return Err(InsertError::BeyondMain);
        }
        if self.find(records, block).is_some() {
            return Err(InsertError::Present);
        }
        let (home, tag) = self.home_and_tag(block);
        let (before, from) = self.words.split_at_checked(home).unwrap_or_default();
        let vacant = |word: &&AtomicU32| matches!(word.load(Relaxed), EMPTY | REMOVED);
        let word = from
            .iter()
            .chain(before)
            .find(vacant)
            .ok_or(InsertError::Full)?;
        if word.load(Relaxed) == REMOVED {
            self.removed.decrement();
        } else if self.is_full() {
            return Err(InsertError::Full);
        }
        self.set_region(self.region_of(block));
        word.store(word_of(slot, tag, moving), Release);
        self.used.increment();
        Ok(())
    }

    /// Whether so many words are taken that searches would become too long with one more.
    fn is_full(&self) -> bool {
        self.room() == SlotCount::ZERO
    }

    /// How many blocks can be inserted at least before the index is full.
    pub fn room(&self) -> SlotCount {
        let taken = self.used().saturating_add(self.removed.get());
        // There are less than 2^32 words, so four times their number fits.
        let most = (self.words.len() as u64).wrapping_mul(4) / 5;
        let room = most.saturating_sub(taken.0.into());
        SlotCount(u32::try_from(room).unwrap_or(u32::MAX))
    }

    /// The block that the record of `slot` names; [`None`] when the index was not made for that
    /// slot, or the record is missing.
    fn block_in<R: Records + ?Sized>(&self, records: &R, slot: Slot) -> Option<Block> {
        let chunk = records.chunk_of(slot)?;
        (slot.number().get() < self.sizes.slots.0).then(|| chunk.block(slot.number()))
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
        self.store(records, block, None, true)
    }

    /// Ends what [`Self::set_moving`] began; [`None`] when `block` is not relocated.
    ///
    /// Only the writer calls this, after the record says how things are now.
    pub fn clear_moving<R: Records + ?Sized>(&self, records: &R, block: Block) -> Option<Found> {
        self.store(records, block, None, false)
    }

    /// Gives a relocated block another slot, the record of which names it, and returns what was
    /// known of it before; [`None`] when the slot is unknown or its block is not relocated.
    ///
    /// Only the writer calls this. The block must be marked as moving before and have been drained,
    /// unless both slots hold the same data and the same live mask, and nothing is written to
    /// either until after a grace period. The former slot may be filled again after one, too.
    pub fn replace<R: Records + ?Sized>(
        &self,
        records: &R,
        slot: Slot,
        moving: bool,
    ) -> Option<Found> {
        self.store(records, self.block_in(records, slot)?, Some(slot), moving)
    }

    /// Changes the word of `block`: its slot, if there is another one, and its mark.
    fn store<R: Records + ?Sized>(
        &self,
        records: &R,
        block: Block,
        slot: Option<Slot>,
        moving: bool,
    ) -> Option<Found> {
        let (at, found) = self.locate(records, block)?;
        let word = self.words.get(at)?;
        let tag = word.load(Relaxed) & self.sizes.tag_mask;
        word.store(word_of(slot.unwrap_or(found.slot), tag, moving), Release);
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
        self.clean(at);
        Some(found)
    }

    /// Makes the removed words up to `at`, which is removed, never-used ones when the word after
    /// them was never used.
    fn clean(&self, at: usize) {
        let (before, from) = self.words.split_at_checked(at + 1).unwrap_or_default();
        let mut following = from.iter().chain(before);
        if following
            .next()
            .is_none_or(|next| next.load(Relaxed) != EMPTY)
        {
            return;
        }
        for word in following
            .rev()
            .take_while(|word| word.load(Relaxed) == REMOVED)
        {
            word.store(EMPTY, Release);
            self.removed.decrement();
        }
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
            if let Some(slot) = self.slot_of(word) {
                new.insert(records, slot, word & MOVING != 0)?;
            }
        }
        Ok(())
    }
}

/// What came of a search.
pub(super) enum Search {
    /// The block is relocated.
    Here {
        /// The place of its word.
        at: usize,
        /// What the word and the record say.
        found: Found,
    },
    /// The block is not relocated.
    Nowhere,
    /// The search reached the last word; that of the block may be among those before its home.
    NotToTheEnd,
}

/// The word that says that a block with this tag is in `slot`.
#[inline]
const fn word_of(slot: Slot, tag: u32, moving: bool) -> u32 {
    slot.packed() | tag | if moving { MOVING } else { 0 }
}
