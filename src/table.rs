// SPDX-License-Identifier: GPL-2.0

//! The table of relocated blocks, in memory.
//!
//! The records of a spare's slots are kept in a tree of two levels whose parts are made when a slot in them is
//! first used and stay until the device goes: so whoever has found a slot can look at its record without a lock.

use crate::remap::index;
use crate::remap::index::InsertError;
use crate::remap::index::Seed;
use crate::remap::index::Sizes;
use crate::remap::records::Allocator;
use crate::remap::records::Chunk;
use crate::remap::records::ChunkNumber;
use crate::remap::records::Record;
use crate::remap::records::Records;
use crate::remap::records::States;
use crate::remap::resolve::Layouts;
use crate::remap::units::Block;
use crate::remap::units::BlockSize;
use crate::remap::units::LiveMask;
use crate::remap::units::Sectors;
use crate::remap::units::Slot;
use crate::remap::units::SlotCount;
use crate::remap::units::SlotNumber;
use crate::remap::units::SpareIndex;
use crate::remap::units::SpareSector;
use crate::remap::units::MAX_SPARES;
use crate::sync::rcu::Guard;
use crate::sync::rcu::Once;
use crate::sync::rcu::Published;
use crate::sync::zeroed;
use crate::sync::zeroed::Page;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::AtomicU64;
use kernel::alloc::Flags;
use kernel::prelude::*;
use kernel::sync::Arc;

/// The index, with its memory.
pub(crate) type Index = index::Index<KVVec<AtomicU32>, KVVec<AtomicU64>>;

/// A spare as the table knows it.
pub(crate) struct Spare {
    /// Which slots are free; for the relocator.
    pub(crate) allocator: Allocator,
    /// Where slot 0 begins; [`None`] when the spare is missing.
    data_start: Option<SpareSector>,
    /// The records.
    pages: KVec<Once<Page>>,
}

impl Spare {
    /// A spare on which all of its `slots` are free, and whose data begins at `data_start`, unless it is missing.
    pub(crate) fn new(
        index: SpareIndex,
        slots: SlotCount,
        data_start: Option<SpareSector>,
    ) -> Result<Self> {
        let allocator = Allocator::new(index, slots);
        let count = ChunkNumber::count_for(allocator.capacity()).div_ceil(zeroed::FAN_OUT);
        let mut pages = KVec::with_capacity(count, GFP_KERNEL)?;
        for _ in 0..count {
            pages.push(Once::new(), GFP_KERNEL)?;
        }
        Ok(Self {
            allocator,
            data_start,
            pages,
        })
    }

    /// The part of the tree that leads to a chunk.
    #[inline]
    fn page(&self, chunk: ChunkNumber) -> Option<&Page> {
        self.pages.get(chunk.get() / zeroed::FAN_OUT)?.get()
    }

    /// Makes the records of a slot, unless they are there.
    fn make_record(&self, slot: SlotNumber, flags: Flags) -> Result {
        let chunk = ChunkNumber::of(slot);
        let place = self
            .pages
            .get(chunk.get() / zeroed::FAN_OUT)
            .ok_or(EINVAL)?;
        if place.get().is_none() {
            place.set(zeroed::boxed(flags)?);
        }
        let page = place.get().ok_or(ENOMEM)?;
        let at = chunk.get() % zeroed::FAN_OUT;
        let (chunk, states) = page.chunks.get(at).zip(page.states.get(at)).ok_or(EINVAL)?;
        if states.get().is_none() {
            states.set(zeroed::boxed(flags)?);
        }
        if chunk.get().is_none() {
            chunk.set(zeroed::boxed(flags)?);
        }
        Ok(())
    }
}

/// All spares of a set, in the order of their indices.
pub(crate) struct Spares(KVec<Spare>);

impl Spares {
    /// The spare with this index.
    #[inline]
    pub(crate) fn get(&self, index: SpareIndex) -> Option<&Spare> {
        self.0.get(index.get())
    }

    /// The allocators of all spares.
    pub(crate) fn allocators(&self) -> impl Iterator<Item = &Allocator> {
        self.0.iter().map(|spare| &spare.allocator)
    }

    /// The spares that are there.
    pub(crate) fn present(&self) -> impl Iterator<Item = SpareIndex> + use<'_> {
        let spares = self.0.iter().enumerate();
        spares.filter_map(|(at, spare)| spare.data_start.and(SpareIndex::new(at)))
    }

    /// How many free slots a spare has.
    pub(crate) fn free(&self, spare: SpareIndex) -> u64 {
        (self.get(spare)).map_or(0, |spare| spare.allocator.free().0.into())
    }

    /// How many slots all spares have.
    pub(crate) fn slots(&self) -> u64 {
        self.allocators().fold(0u64, |sum, spare| {
            sum.saturating_add(spare.capacity().0.into())
        })
    }

    /// How many slots are out of use for good.
    pub(crate) fn retired(&self) -> u64 {
        self.allocators().fold(0u64, |sum, spare| {
            sum.saturating_add(spare.retired().0.into())
        })
    }

    /// How many slots cannot be given out.
    pub(crate) fn taken(&self) -> u64 {
        let free = self.present().map(|spare| self.free(spare));
        self.slots()
            .saturating_sub(free.fold(0u64, u64::saturating_add))
    }

    /// How many slots hold a block.
    pub(crate) fn used(&self) -> u64 {
        self.allocators()
            .fold(0u64, |sum, spare| sum.saturating_add(spare.used().0.into()))
    }
}

impl Records for Spares {
    #[inline]
    fn chunk(&self, spare: SpareIndex, number: ChunkNumber) -> Option<&Chunk> {
        let page = self.get(spare)?.page(number)?;
        page.chunks.get(number.get() % zeroed::FAN_OUT)?.get()
    }

    #[inline]
    fn states(&self, spare: SpareIndex, number: ChunkNumber) -> Option<&States> {
        let page = self.get(spare)?.page(number)?;
        page.states.get(number.get() % zeroed::FAN_OUT)?.get()
    }
}

impl Layouts for Spares {
    #[inline]
    fn data_start(&self, spare: SpareIndex) -> Option<SpareSector> {
        self.get(spare)?.data_start
    }
}

/// The table: the index, and what is known of the slots.
///
/// What changes it is for the one relocator; see the documentation of the modules of `remap`.
pub(crate) struct Table {
    index: Published<Index>,
    /// The spares and their records.
    pub(crate) spares: Spares,
    /// The size of main, as far as the table line goes.
    pub(crate) main: Sectors,
    /// The size of all of main, in whole logical blocks: the table line may end before, even within a block.
    whole_main: Sectors,
    /// The unit of relocation.
    pub(crate) block_size: BlockSize,
    /// The most slots that a spare has.
    slots: SlotCount,
}

impl Table {
    /// A table without relocations for the first `main` sectors of a disk that has `whole_main`.
    pub(crate) fn new(
        main: Sectors,
        whole_main: Sectors,
        block_size: BlockSize,
        spares: KVec<Spare>,
    ) -> Result<Self> {
        debug_assert!(spares.len() <= MAX_SPARES);
        let slots = spares.iter().map(|spare| spare.allocator.capacity()).max();
        let slots = slots.ok_or(EINVAL)?;
        let sizes = Sizes::new(main, block_size, slots, index::SPARE_ROOM).ok_or(EINVAL)?;
        Ok(Self {
            slots,
            index: Published::new(make_index(sizes)?),
            spares: Spares(spares),
            main,
            whole_main,
            block_size,
        })
    }

    /// The index of this moment.
    #[inline(always)]
    pub(crate) fn index<'a>(&'a self, guard: &'a Guard) -> &'a Index {
        self.index.read(guard)
    }

    /// The index of this moment, for a caller that takes its time. Only the relocator, or whoever keeps it from working,
    /// may take what it says for true any longer than this call.
    pub(crate) fn hold_index(&self) -> Arc<Index> {
        self.index.hold()
    }

    /// Calls `f` with the index of this moment. `f` must not sleep, and be short.
    pub(crate) fn with_index<R>(&self, f: impl FnOnce(&Index) -> R) -> R {
        f(self.index(&Guard::new()))
    }

    /// Puts a block into a free slot, but not into the index.
    pub(crate) fn occupy(&self, slot: Slot, record: &Record, flags: Flags) -> Result {
        let spare = self.spares.get(slot.spare()).ok_or(EINVAL)?;
        spare.make_record(slot.number(), flags)?;
        (spare.allocator.occupy(&self.spares, slot.number(), record)).map_err(|_| EINVAL)
    }

    /// Frees a slot that no request can find any more.
    pub(crate) fn release(&self, slot: Slot) -> Result {
        let spare = self.spares.get(slot.spare()).ok_or(EINVAL)?;
        (spare.allocator.release(&self.spares, slot.number())).map_err(|_| EINVAL)
    }

    /// Takes a free slot out of use for good. Sleeps.
    pub(crate) fn retire(&self, slot: Slot) -> Result {
        let spare = self.spares.get(slot.spare()).ok_or(EINVAL)?;
        spare.make_record(slot.number(), GFP_KERNEL)?;
        (spare.allocator.retire(&self.spares, slot.number())).map_err(|_| EINVAL)
    }

    /// Puts a block into a free slot and into the index, marked as moving or not.
    ///
    /// Sleeps. When it fails, nothing has changed.
    pub(crate) fn insert(&self, slot: Slot, record: &Record, moving: bool, flags: Flags) -> Result {
        self.occupy(slot, record, flags)?;
        self.insert_word(slot, moving).inspect_err(|_| {
            // No reader has seen the slot, as there was no word for it.
            let released = self.release(slot);
            debug_assert!(released.is_ok());
        })
    }

    /// Inserts a slot with its record into the index. `ENOMEM` when that has no room: see [`Self::larger_index`].
    fn insert_word(&self, slot: Slot, moving: bool) -> Result {
        let inserted = self.with_index(|index| index.insert(&self.spares, slot, moving));
        inserted.map_err(|error| match error {
            InsertError::Present => EEXIST,
            InsertError::Full => ENOMEM,
            InsertError::BeyondMain | InsertError::UnknownSlot => EINVAL,
        })
    }

    /// Makes the index of all slots that are occupied. For a block in two slots `choose` says which of them counts: it gets
    /// the one that is in the index already, and the other one.
    pub(crate) fn index_all(&self, mut choose: impl FnMut(Slot, Slot) -> Result<Slot>) -> Result {
        let used = SlotCount(u32::try_from(self.spares.used()).map_err(|_| E2BIG)?);
        let capacity = used.saturating_add(index::SPARE_ROOM);
        let sizes = Sizes::new(self.main, self.block_size, self.slots, capacity).ok_or(EINVAL)?;
        let index = make_index(sizes)?;
        for spare in self.spares.allocators() {
            for entry in spare.entries(&self.spares) {
                match index.insert(&self.spares, entry.slot, false) {
                    // A longer table line relocated what lies behind the end of this one.
                    Ok(()) | Err(InsertError::BeyondMain) => {}
                    Err(InsertError::Present) => {
                        let known = index.find(&self.spares, entry.block).ok_or(EINVAL)?;
                        if choose(known.slot, entry.slot)? == entry.slot {
                            index.replace(&self.spares, entry.slot, false);
                        }
                    }
                    Err(_) => return Err(EINVAL),
                }
            }
        }
        self.index.replace(index);
        Ok(())
    }

    /// The mask of all sectors of `block`, as far as the table line goes.
    pub(crate) fn all_live(&self, block: Block) -> LiveMask {
        LiveMask::first(self.block_size.sectors_of(block, self.main))
    }

    /// The mask of all sectors of `block` that main has, also behind the end of the table line: a longer one gives them back.
    pub(crate) fn all_on_main(&self, block: Block) -> LiveMask {
        LiveMask::first(self.block_size.sectors_of(block, self.whole_main))
    }

    /// Whether the index has room for so many blocks more.
    pub(crate) fn has_room(&self, blocks: SlotCount) -> bool {
        self.with_index(Index::room) >= blocks
    }

    /// Memory for an index with more room. Sleeps, and may be called by anybody.
    pub(crate) fn larger_index(&self) -> Result<Arc<Index>> {
        make_index(self.with_index(Index::next_sizes).ok_or(ENOSPC)?)
    }

    /// Publishes what [`Self::larger_index`] has given with the contents of the index of now. Sleeps.
    pub(crate) fn grow_into(&self, larger: Arc<Index>) -> Result {
        let rebuilt = self.hold_index().rebuild_into(&self.spares, &larger);
        rebuilt.map_err(|_| ENOMEM)?;
        self.index.replace(larger);
        Ok(())
    }
}

/// Makes an index without relocations.
fn make_index(sizes: Sizes) -> Result<Arc<Index>> {
    let mut words = KVVec::with_capacity(sizes.words(), GFP_KERNEL)?;
    for _ in 0..sizes.words() {
        words.push(AtomicU32::new(0), GFP_KERNEL)?;
    }
    let mut summary = KVVec::with_capacity(sizes.summary(), GFP_KERNEL)?;
    for _ in 0..sizes.summary() {
        summary.push(AtomicU64::new(0), GFP_KERNEL)?;
    }
    let seed = Seed(crate::sync::random());
    let index = index::Index::new(sizes, words, summary, seed).ok_or(EINVAL)?;
    Ok(Arc::new(index, GFP_KERNEL)?)
}
