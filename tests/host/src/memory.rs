// SPDX-License-Identifier: GPL-2.0

//! The index and the records of a set in the memory of a host program.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::OnceLock;

use crate::remap::index;
use crate::remap::index::Seed;
use crate::remap::index::Sizes;
use crate::remap::records::Chunk;
use crate::remap::records::ChunkNumber;
use crate::remap::records::Records;
use crate::remap::records::States;
use crate::remap::units::Slot;
use crate::remap::units::SlotCount;
use crate::remap::units::SpareIndex;

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
