// SPDX-License-Identifier: GPL-2.0

//! Where things are on a spare: its two superblocks, its slot pages at either end, the witness
//! pages and the data.
//!
//! The layout and its rules are those of `docs/metadata.md`. A [`Layout`] that exists keeps them,
//! whether it was planned here or read from a superblock, so whoever has one can compute places
//! without looking for overlaps and overflows again.

use super::units::BlockSize;
use super::units::Sectors;
use super::units::SlotCount;
use super::units::SlotNumber;
use super::units::SpareIndex;
use super::units::SpareSector;
use super::units::MAX_SPARES;

/// Bytes in a page of metadata.
pub const PAGE_BYTES: usize = 4096;

/// Sectors in a page of metadata.
pub const PAGE_SECTORS: Sectors = Sectors(8);

/// Slots that one slot page describes.
pub const SLOTS_PER_PAGE: u32 = 168;

/// The slot pages that a new spare gets ready before its first relocation.
pub const FIRST_MARK: PageCount = PageCount(64);

/// The most slot pages that a spare can have.
const MAX_PAGES: PageCount = PageCount::for_slots(SlotCount(SlotNumber::MAX_COUNT));

/// The alignment of the data of a spare that is large enough to afford it: 1 MiB, which suits
/// every flash and RAID geometry.
const WIDE_ALIGNMENT: u64 = 2048;

/// The size from which on a spare gets [`WIDE_ALIGNMENT`]: it costs at most 1/128 of the spare.
const WIDE_FROM: u64 = 128 * WIDE_ALIGNMENT;

/// One of the two ends of a spare, each of which has a copy of its metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Copy A, before the data: written first.
    Front,
    /// Copy B, behind the data.
    Back,
}

impl End {
    /// The end that this one is not.
    pub const fn other(self) -> Self {
        match self {
            Self::Front => Self::Back,
            Self::Back => Self::Front,
        }
    }
}

/// The number of a slot page or witness page of a spare, from 1 on: page 0 is the superblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageNumber(u32);

impl PageNumber {
    /// The first page that describes slots.
    pub const FIRST: Self = Self(1);

    /// Page `number`; [`None`] when that is 0 or more than any spare has.
    pub const fn new(number: u32) -> Option<Self> {
        if number >= 1 && number <= MAX_PAGES.0 {
            Some(Self(number))
        } else {
            None
        }
    }

    /// The slot page that describes `slot`.
    pub const fn of(slot: SlotNumber) -> Self {
        // A slot has 27 bits, so the sum has fewer.
        Self((slot.get() / SLOTS_PER_PAGE).wrapping_add(1))
    }

    /// The page as a number, from 1 on.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The page after this one; [`None`] after the last that a spare can have.
    pub const fn next(self) -> Option<Self> {
        // A page number has 20 bits, so the sum has fewer than 32.
        Self::new(self.0.wrapping_add(1))
    }

    /// The slot that `entry` of this slot page describes; [`None`] beyond the last slot that a
    /// spare can have.
    pub const fn slot(self, entry: EntryIndex) -> Option<SlotNumber> {
        // At most 2^20 pages of 168 slots: the product has fewer than 28 bits.
        let first = self.0.wrapping_sub(1).wrapping_mul(SLOTS_PER_PAGE);
        SlotNumber::new(first.wrapping_add(entry.0 as u32))
    }
}

/// A number of slot pages or witness pages. The pages are those from 1 up to and with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageCount(pub u32);

impl PageCount {
    /// No page.
    pub const ZERO: Self = Self(0);

    /// The slot pages that `slots` slots need.
    pub const fn for_slots(slots: SlotCount) -> Self {
        Self(slots.0.div_ceil(SLOTS_PER_PAGE))
    }

    /// Whether `page` is one of them.
    pub const fn contains(self, page: PageNumber) -> bool {
        page.0 <= self.0
    }

    /// The pages, in order.
    pub fn pages(self) -> impl Iterator<Item = PageNumber> {
        (1..=self.0).map_while(PageNumber::new)
    }

    /// The sectors that they take.
    const fn sectors(self) -> u64 {
        // 32 bits times 8 fit into 64.
        (self.0 as u64).wrapping_mul(PAGE_SECTORS.0)
    }
}

/// The place of an entry in its slot page, 0 to 167.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntryIndex(u8);

impl EntryIndex {
    /// Where `slot` is described in the page [`PageNumber::of`] it.
    pub const fn of(slot: SlotNumber) -> Self {
        // The remainder is less than 168.
        Self((slot.get() % SLOTS_PER_PAGE) as u8)
    }

    /// The index as a number, to compute an offset with.
    pub const fn get(self) -> usize {
        self.0 as usize
    }

    /// All entries of a page, in order.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..SLOTS_PER_PAGE as u8).map(Self)
    }
}

/// The number of spares of a set, 1 to 15.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SpareCount(u8);

impl SpareCount {
    /// A single spare.
    pub const ONE: Self = Self(1);

    /// `count` spares; [`None`] for none and for more than [`MAX_SPARES`].
    pub const fn new(count: usize) -> Option<Self> {
        if count >= 1 && count <= MAX_SPARES {
            Some(Self(count as u8))
        } else {
            None
        }
    }

    /// The number.
    pub const fn get(self) -> usize {
        self.0 as usize
    }

    /// Whether a set of so many spares has one with this index.
    pub const fn contains(self, spare: SpareIndex) -> bool {
        spare.get() < self.get()
    }

    /// The spares, in order.
    pub fn spares(self) -> impl Iterator<Item = SpareIndex> {
        (0..self.get()).map_while(SpareIndex::new)
    }

    /// The spare that keeps the witness pages of `spare`: the next one in the ring; [`None`] when
    /// it is the only one.
    pub const fn witness_of(self, spare: SpareIndex) -> Option<SpareIndex> {
        if self.0 == 1 {
            return None;
        }
        // There are at most 15, so the sum is small.
        let next = spare.get().wrapping_add(1);
        if next < self.get() {
            SpareIndex::new(next)
        } else {
            Some(SpareIndex::FIRST)
        }
    }
}

/// The part of a spare of `size` sectors that counts: whole pages only.
pub const fn usable_size(size: Sectors) -> Sectors {
    Sectors(size.0 & !PAGE_SECTORS.0.wrapping_sub(1))
}

/// Where the superblock at `end` of a spare of `size` sectors is; [`None`] when the spare is
/// smaller than one page.
pub const fn superblock_place(size: Sectors, end: End) -> Option<SpareSector> {
    match (usable_size(size).0.checked_sub(PAGE_SECTORS.0), end) {
        (Some(_), End::Front) => Some(SpareSector(0)),
        (Some(last), End::Back) => Some(SpareSector(last)),
        (None, _) => None,
    }
}

/// The numbers from which a [`Layout`] is made, as a superblock holds them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    /// The unit of relocation, which is the size of a slot.
    pub block_size: BlockSize,
    /// The size of the spare, in whole pages.
    pub spare_sectors: Sectors,
    /// Where slot 0 begins.
    pub data_start: SpareSector,
    /// How many slots there are.
    pub slots: SlotCount,
    /// How many slot pages each end has.
    pub slot_pages: PageCount,
    /// How many witness pages there are.
    pub witness_pages: PageCount,
}

/// Where everything on one spare is.
///
/// # Invariants
///
/// - `spare_sectors` is a multiple of 8.
/// - `slots` is 1 to [`SlotNumber::MAX_COUNT`], and `slot_pages` is what they need.
/// - `data_start` is a multiple of 8 and of the block size.
/// - The parts follow one another without overlap: front superblock, front slot pages, witness
///   pages, data, back slot pages, back superblock; the last one ends at `spare_sectors`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout(Parts);

impl Layout {
    /// The layout with these numbers; [`None`] when they break one of its rules.
    pub fn new(parts: Parts) -> Option<Self> {
        let slots = parts.slots.0;
        let data_start = parts.data_start.0;
        let alignment = parts.block_size.sectors().0.max(PAGE_SECTORS.0);
        let data_end = data_start.checked_add(data_sectors(parts.slots, parts.block_size))?;
        let keeps_the_rules = parts.spare_sectors == usable_size(parts.spare_sectors)
            && (1..=SlotNumber::MAX_COUNT).contains(&slots)
            && parts.slot_pages == PageCount::for_slots(parts.slots)
            && data_start % alignment == 0
            && front_end(parts.slot_pages, parts.witness_pages)? <= data_start
            && data_end <= back_start(parts.spare_sectors, parts.slot_pages)?;
        // INVARIANT: The rules were just checked, in the order in which they are listed.
        keeps_the_rules.then_some(Self(parts))
    }

    /// The layout that gives a spare of `size` sectors the most slots beside `witness_pages`
    /// witness pages, with at most `most` slot pages; [`None`] when there is no room for one slot.
    fn fit(
        size: Sectors,
        block_size: BlockSize,
        witness_pages: PageCount,
        most: PageCount,
    ) -> Option<Self> {
        let spare_sectors = usable_size(size);
        let room = spare_sectors
            .0
            .checked_sub(front_end(PageCount::ZERO, witness_pages)?)?
            .checked_sub(PAGE_SECTORS.0)?;
        let pages = pages_for(room, block_size, 2, most);
        let alignment = if spare_sectors.0 >= WIDE_FROM {
            WIDE_ALIGNMENT
        } else {
            block_size.sectors().0.max(PAGE_SECTORS.0)
        };
        let data_start = front_end(pages, witness_pages)?.checked_next_multiple_of(alignment)?;
        let data_room = back_start(spare_sectors, pages)?.checked_sub(data_start)?;
        let described = u64::from(pages.0).checked_mul(u64::from(SLOTS_PER_PAGE))?;
        let slots = data_room
            .wrapping_shr(block_size.shift())
            .min(described)
            .min(u64::from(SlotNumber::MAX_COUNT));
        let slots = SlotCount(u32::try_from(slots).ok()?);
        Self::new(Parts {
            block_size,
            spare_sectors,
            data_start: SpareSector(data_start),
            slots,
            slot_pages: PageCount::for_slots(slots),
            witness_pages,
        })
    }

    /// The layout of a spare that is added to a set: `before` is the spare that it follows, whose
    /// witness it becomes, and `first` is the set's first spare, which becomes its witness.
    ///
    /// [`None`] when the spare is too small.
    pub fn plan_added(size: Sectors, before: &Self, first: &Self) -> Option<Self> {
        let block_size = first.0.block_size;
        let witness_pages = balanced(size, block_size).max(before.0.slot_pages);
        Self::fit(size, block_size, witness_pages, first.0.witness_pages)
    }

    /// The numbers, as a superblock holds them.
    pub const fn parts(&self) -> &Parts {
        &self.0
    }

    /// The unit of relocation, which is the size of a slot.
    pub const fn block_size(&self) -> BlockSize {
        self.0.block_size
    }

    /// How many slots there are.
    pub const fn slots(&self) -> SlotCount {
        self.0.slots
    }

    /// How many slot pages each end has.
    pub const fn slot_pages(&self) -> PageCount {
        self.0.slot_pages
    }

    /// How many witness pages there are.
    pub const fn witness_pages(&self) -> PageCount {
        self.0.witness_pages
    }

    /// Where slot 0 begins.
    pub const fn data_start(&self) -> SpareSector {
        self.0.data_start
    }

    /// Where the superblock at `end` is.
    pub const fn superblock(&self, end: End) -> SpareSector {
        match end {
            End::Front => SpareSector(0),
            // The spare holds more than one page.
            End::Back => SpareSector(self.0.spare_sectors.0.wrapping_sub(PAGE_SECTORS.0)),
        }
    }

    /// Where the copy of slot page `page` at `end` is; [`None`] when there is no such page.
    pub fn slot_page(&self, page: PageNumber, end: End) -> Option<SpareSector> {
        if !self.0.slot_pages.contains(page) {
            return None;
        }
        let offset = PageCount(page.0).sectors();
        match end {
            End::Front => Some(SpareSector(offset)),
            End::Back => back_start(self.0.spare_sectors, self.0.slot_pages)?
                .checked_add(offset)?
                .checked_sub(PAGE_SECTORS.0)
                .map(SpareSector),
        }
    }

    /// Where witness page `page` is; [`None`] when there is no such page.
    pub fn witness_page(&self, page: PageNumber) -> Option<SpareSector> {
        if !self.0.witness_pages.contains(page) {
            return None;
        }
        PageCount(page.0)
            .sectors()
            .checked_add(self.0.slot_pages.sectors())
            .map(SpareSector)
    }

    /// Where the data of slot `number` begins; [`None`] when there is no such slot.
    pub const fn data(&self, number: SlotNumber) -> Option<SpareSector> {
        if number.get() < self.0.slots.0 {
            self.0
                .data_start
                .checked_add(self.0.block_size.slot_offset(number))
        } else {
            None
        }
    }
}

/// The layouts of the spares of a new set, `sizes` being their sizes in the order of the set.
///
/// # Errors
///
/// Which spare is too small for anything. (There are as many layouts as sizes, at most
/// [`MAX_SPARES`].)
pub fn plan_set(
    sizes: &[Sectors],
    block_size: BlockSize,
) -> Result<[Option<Layout>; MAX_SPARES], SpareIndex> {
    // The witness pages of a spare: for as many slot pages as the spare before it can have, for as
    // many as it has itself so that another one like it can follow, but never for more than half.
    let witness_pages = |at: usize, before: usize| {
        let size = |at| sizes.get(at).copied().unwrap_or_default();
        let wanted = balanced(size(at), block_size).max(balanced(size(before), block_size));
        let half = (usable_size(size(at)).0 >> 1) / PAGE_SECTORS.0;
        wanted.min(PageCount(u32::try_from(half).unwrap_or(u32::MAX)))
    };
    let last = sizes.len().saturating_sub(1);
    let mut layouts = [None; MAX_SPARES];
    for (at, (layout, size)) in layouts.iter_mut().zip(sizes).enumerate() {
        let own = witness_pages(at, at.checked_sub(1).unwrap_or(last));
        let witness = if at == last { 0 } else { at.saturating_add(1) };
        let most = witness_pages(witness, at);
        *layout = Layout::fit(*size, block_size, own, most);
        if layout.is_none() {
            // There are no more layouts than spares, so the index exists.
            return Err(SpareIndex::new(at).unwrap_or(SpareIndex::FIRST));
        }
    }
    Ok(layouts)
}

/// The slot pages of a spare that has as many witness pages as slot pages.
fn balanced(size: Sectors, block_size: BlockSize) -> PageCount {
    let room = usable_size(size)
        .0
        .saturating_sub(PAGE_SECTORS.0.wrapping_mul(2));
    pages_for(room, block_size, 3, MAX_PAGES)
}

/// How many slot pages fill `room` sectors when each one takes `copies` pages and the data of its
/// slots, at most `most`.
fn pages_for(room: u64, block_size: BlockSize, copies: u64, most: PageCount) -> PageCount {
    // Both products are small: 168 blocks of at most 64 sectors, at most 3 pages.
    let data = u64::from(SLOTS_PER_PAGE).wrapping_shl(block_size.shift());
    let each = data.saturating_add(copies.saturating_mul(PAGE_SECTORS.0));
    let pages = room.div_ceil(each).min(u64::from(most.min(MAX_PAGES).0));
    PageCount(u32::try_from(pages).unwrap_or(MAX_PAGES.0))
}

/// The sectors that the data of `slots` slots takes.
const fn data_sectors(slots: SlotCount, block_size: BlockSize) -> u64 {
    // 32 bits shifted by at most 6 fit into 64.
    (slots.0 as u64).wrapping_shl(block_size.shift())
}

/// Where the front superblock, slot pages and witness pages end.
fn front_end(slot_pages: PageCount, witness_pages: PageCount) -> Option<u64> {
    slot_pages
        .sectors()
        .checked_add(witness_pages.sectors())?
        .checked_add(PAGE_SECTORS.0)
}

/// Where the slot pages at the back of a spare begin.
fn back_start(spare_sectors: Sectors, slot_pages: PageCount) -> Option<u64> {
    spare_sectors
        .0
        .checked_sub(slot_pages.sectors())?
        .checked_sub(PAGE_SECTORS.0)
}
