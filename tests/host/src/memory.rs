// SPDX-License-Identifier: GPL-2.0

//! The index and the records of a set in the memory of a host program.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::OnceLock;

use crate::remap::index;
use crate::remap::index::Found;
use crate::remap::index::InsertError;
use crate::remap::index::Seed;
use crate::remap::index::Sizes;
use crate::remap::records::Allocator;
use crate::remap::records::Chunk;
use crate::remap::records::ChunkNumber;
use crate::remap::records::Record;
use crate::remap::records::Records;
use crate::remap::records::States;
use crate::remap::units::Block;
use crate::remap::units::BlockSize;
use crate::remap::units::Sectors;
use crate::remap::units::Slot;
use crate::remap::units::SlotCount;
use crate::remap::units::SpareIndex;
use crate::remap::units::SpareSector;

/// An index in memory of its own.
pub type Index = index::Index<Box<[AtomicU32]>, Box<[AtomicU64]>>;

/// Makes an index without relocations.
pub fn new_index(sizes: Sizes, seed: Seed) -> Index {
    let words = (0..sizes.words()).map(|_| AtomicU32::new(0)).collect();
    let summary = (0..sizes.summary()).map(|_| AtomicU64::new(0)).collect();
    Index::new(sizes, words, summary, seed).expect("the lengths are those of the sizes")
}

/// The records and states of neighbouring slots, once they are made.
type LazyChunk = OnceLock<Box<(Chunk, States)>>;

/// The records of a set: for each spare its chunks, which are made when they are needed.
pub struct MemoryRecords {
    /// For each spare, its chunks.
    spares: Vec<Vec<LazyChunk>>,
}

impl MemoryRecords {
    /// Records for spares with these numbers of slots, none of which has a chunk.
    pub fn new(slots: &[SlotCount]) -> Self {
        let chunks = |&count| {
            (0..ChunkNumber::count_for(count))
                .map(|_| OnceLock::new())
                .collect()
        };
        Self {
            spares: slots.iter().map(chunks).collect(),
        }
    }

    /// Makes the chunk of `slot` unless it is there.
    ///
    /// # Panics
    ///
    /// When there is no such slot.
    pub fn make_room(&self, slot: Slot) {
        self.spares[slot.spare().get()][ChunkNumber::of(slot.number()).get()]
            .get_or_init(Default::default);
    }

    /// The chunk and the states numbered `number` of spare `spare`.
    #[inline]
    fn pair(&self, spare: SpareIndex, number: ChunkNumber) -> Option<&(Chunk, States)> {
        Some(
            self.spares
                .get(spare.get())?
                .get(number.get())?
                .get()?
                .as_ref(),
        )
    }
}

impl Records for MemoryRecords {
    #[inline]
    fn chunk(&self, spare: SpareIndex, number: ChunkNumber) -> Option<&Chunk> {
        self.pair(spare, number).map(|(chunk, _)| chunk)
    }

    #[inline]
    fn states(&self, spare: SpareIndex, number: ChunkNumber) -> Option<&States> {
        self.pair(spare, number).map(|(_, states)| states)
    }
}

/// A set with its index, in the memory of a host program.
pub struct Set {
    /// The index; [`Set::relocate`] puts a larger one here when it is full.
    pub index: Index,
    /// The records of all slots.
    pub records: MemoryRecords,
    /// Which slots of each spare are free.
    pub allocators: Vec<Allocator>,
    /// Where the data of each spare begins; [`None`] for a missing one.
    pub layouts: Vec<Option<SpareSector>>,
    /// How often the index was replaced by a larger one.
    pub growths: usize,
}

impl Set {
    /// A set without relocations, of spares with these numbers of slots. The index has room for
    /// `capacity` relocations.
    ///
    /// # Panics
    ///
    /// When there can be no such set.
    pub fn new(
        main: Sectors,
        block_size: BlockSize,
        spares: &[(SlotCount, Option<SpareSector>)],
        capacity: SlotCount,
        seed: Seed,
    ) -> Self {
        let slots: Vec<_> = spares.iter().map(|&(slots, _)| slots).collect();
        let most = slots.iter().copied().max().unwrap_or_default();
        let sizes = Sizes::new(main, block_size, most, capacity).expect("main has a proper size");
        let indices = (0..).map_while(SpareIndex::new);
        Self {
            index: new_index(sizes, seed),
            records: MemoryRecords::new(&slots),
            allocators: indices
                .zip(slots)
                .map(|(index, slots)| Allocator::new(index, slots))
                .collect(),
            layouts: spares.iter().map(|&(_, layout)| layout).collect(),
            growths: 0,
        }
    }

    /// Gives a block the lowest free slot of a spare; [`None`] when that is full or the block is
    /// relocated already.
    ///
    /// # Panics
    ///
    /// When the set contradicts itself.
    pub fn relocate(&mut self, spare: usize, record: &Record, moving: bool) -> Option<Slot> {
        if self.index.find(&self.records, record.block).is_some() {
            return None;
        }
        let allocator = &self.allocators[spare];
        let slot = allocator.lowest_free(&self.records)?;
        self.records.make_room(slot);
        allocator
            .occupy(&self.records, slot.number(), record)
            .expect("the slot is free");
        if self.index.insert(&self.records, slot, moving) == Err(InsertError::Full) {
            self.grow();
            self.index
                .insert(&self.records, slot, moving)
                .expect("there is room now");
        }
        Some(slot)
    }

    /// Takes a block from the index and frees its slot; [`None`] when it is not relocated.
    ///
    /// # Panics
    ///
    /// When the set contradicts itself.
    pub fn give_back(&mut self, block: Block) -> Option<Found> {
        let found = self.index.remove(&self.records, block)?;
        let allocator = &self.allocators[found.slot.spare().get()];
        allocator
            .release(&self.records, found.slot.number())
            .expect("the slot is in use");
        Some(found)
    }

    /// Replaces the index by a larger one with the same contents.
    ///
    /// # Panics
    ///
    /// When there can be none.
    pub fn grow(&mut self) {
        let sizes = self.index.next_sizes().expect("there is a larger index");
        let larger = new_index(sizes, Seed(sizes.words() as u64));
        self.index
            .rebuild_into(&self.records, &larger)
            .expect("all blocks fit");
        self.index = larger;
        self.growths += 1;
    }
}
