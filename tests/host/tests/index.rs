// SPDX-License-Identifier: GPL-2.0

//! The index finds every relocated block where it was put, and no other; the summary never says no
//! when it should say yes; and both stay inside the memory that the specification allows.

use dm_remap_host::memory::new_index;
use dm_remap_host::memory::MemoryRecords;
use dm_remap_host::memory::Set;
use dm_remap_host::remap::index::Found;
use dm_remap_host::remap::index::InsertError;
use dm_remap_host::remap::index::Seed;
use dm_remap_host::remap::index::Sizes;
use dm_remap_host::remap::records::Allocator;
use dm_remap_host::remap::records::Chunk;
use dm_remap_host::remap::records::ChunkNumber;
use dm_remap_host::remap::records::Record;
use dm_remap_host::remap::records::Records;
use dm_remap_host::remap::records::States;
use dm_remap_host::remap::records::CHUNK_SLOTS;
use dm_remap_host::remap::units::Block;
use dm_remap_host::remap::units::BlockSize;
use dm_remap_host::remap::units::Cause;
use dm_remap_host::remap::units::LiveMask;
use dm_remap_host::remap::units::Sector;
use dm_remap_host::remap::units::Sectors;
use dm_remap_host::remap::units::Slot;
use dm_remap_host::remap::units::SlotCount;
use dm_remap_host::remap::units::SlotNumber;
use dm_remap_host::remap::units::SpareIndex;
use dm_remap_host::remap::units::SpareSector;
use dm_remap_host::remap::units::UnixTime;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

fn record(block: u32, live: u64) -> Record {
    Record {
        block: Block(block),
        live: LiveMask(live),
        time: UnixTime(1),
        cause: Cause::Scan,
    }
}

fn block_size(sectors: u64) -> BlockSize {
    BlockSize::new(Sectors(sectors)).unwrap()
}

/// What is done to an index.
#[derive(Clone, Debug)]
enum Step {
    Relocate {
        block: u32,
        spare: usize,
        live: u64,
        moving: bool,
    },
    GiveBack {
        block: u32,
    },
    SetMoving {
        block: u32,
    },
    ClearMoving {
        block: u32,
    },
    SetLive {
        block: u32,
        live: u64,
    },
    Replace {
        block: u32,
        spare: usize,
        moving: bool,
    },
    Rebuild,
}

const BLOCKS: u32 = 150;
const SPARES: usize = 3;

fn step() -> impl Strategy<Value = Step> {
    let block = 0..BLOCKS;
    prop_oneof![
        8 => (block.clone(), 0..SPARES, any::<u64>(), any::<bool>())
            .prop_map(|(block, spare, live, moving)| Step::Relocate { block, spare, live, moving }),
        5 => block.clone().prop_map(|block| Step::GiveBack { block }),
        2 => block.clone().prop_map(|block| Step::SetMoving { block }),
        2 => block.clone().prop_map(|block| Step::ClearMoving { block }),
        2 => (block.clone(), any::<u64>()).prop_map(|(block, live)| Step::SetLive { block, live }),
        2 => (block, 0..SPARES, any::<bool>())
            .prop_map(|(block, spare, moving)| Step::Replace { block, spare, moving }),
        1 => Just(Step::Rebuild),
    ]
}

/// Does one step to the set and to the model.
fn perform(set: &mut Set, model: &mut HashMap<u32, Found>, step: Step) {
    match step {
        Step::Relocate {
            block,
            spare,
            live,
            moving,
        } => {
            let slot = set.relocate(spare, &record(block, live), moving);
            assert_eq!(slot.is_none(), model.contains_key(&block));
            if let Some(slot) = slot {
                model.insert(
                    block,
                    Found {
                        slot,
                        live: LiveMask(live),
                        moving,
                    },
                );
            }
        }
        Step::GiveBack { block } => assert_eq!(set.give_back(Block(block)), model.remove(&block)),
        Step::SetMoving { block } | Step::ClearMoving { block } => {
            let moving = matches!(step, Step::SetMoving { .. });
            let found = if moving {
                set.index.set_moving(&set.records, Block(block))
            } else {
                set.index.clear_moving(&set.records, Block(block))
            };
            assert_eq!(found, model.get(&block).copied());
            model.entry(block).and_modify(|found| found.moving = moving);
        }
        Step::SetLive { block, live } => {
            if let Some(found) = model.get_mut(&block) {
                found.live = LiveMask(live);
                set.records.set_live(found.slot, found.live).unwrap();
            }
        }
        Step::Replace {
            block,
            spare,
            moving,
        } => {
            let allocator = &set.allocators[spare];
            let (Some(found), Some(slot)) =
                (model.get_mut(&block), allocator.lowest_free(&set.records))
            else {
                return;
            };
            set.records.make_room(slot);
            let moved = Record {
                block: Block(block),
                ..set.records.record(found.slot).unwrap()
            };
            allocator
                .occupy(&set.records, slot.number(), &moved)
                .unwrap();
            assert_eq!(set.index.replace(&set.records, slot, moving), Some(*found));
            let former = &set.allocators[found.slot.spare().get()];
            former.release(&set.records, found.slot.number()).unwrap();
            (found.slot, found.moving) = (slot, moving);
        }
        Step::Rebuild => set.grow(),
    }
}

/// Compares what the index says of every block with the model.
fn compare(set: &Set, model: &HashMap<u32, Found>) {
    assert_eq!(set.index.used().0 as usize, model.len());
    let size = set.index.block_size();
    let sorted: BTreeMap<_, _> = model.iter().collect();
    for block in 0..BLOCKS {
        let expected = model.get(&block).copied();
        assert_eq!(
            set.index.find(&set.records, Block(block)),
            expected,
            "block {block}"
        );
        let next = sorted
            .range(block..)
            .next()
            .map(|(&&next, &&found)| (Block(next), found));
        let last = Block(BLOCKS - 1);
        assert_eq!(
            set.index.next_relocated(&set.records, Block(block), last),
            next
        );
        if expected.is_some() {
            let first = size.first_sector(Block(block));
            assert!(set.index.may_contain(first, first));
            assert!(!set.index.is_clear(first, first));
            assert!(set
                .index
                .may_contain(Sector(first.0.saturating_sub(200)), first));
            assert!(set.index.may_contain(first, Sector(first.0 + 2000)));
            assert!(set.index.may_contain(Sector(0), Sector(u64::MAX)));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 3 } else { 200 }))]

    /// Any sequence of changes, in tables that are small enough to be full of collisions.
    #[test]
    fn finds_what_was_inserted(
        steps in prop::collection::vec(step(), 0..if cfg!(miri) { 60 } else { 400 }),
        capacity in 0u32..200,
        slots in 150u32..2000,
        seed: u64,
    ) {
        let spares = [(SlotCount(slots), Some(SpareSector(64))); SPARES];
        let main = Sectors(u64::from(BLOCKS) * 4 - 3);
        let mut set = Set::new(main, block_size(4), &spares, SlotCount(capacity), Seed(seed));
        let mut model = HashMap::new();
        for step in steps {
            perform(&mut set, &mut model, step);
        }
        compare(&set, &model);
        // Without a block, the index is as good as new: it takes as many as it did at first.
        for block in 0..BLOCKS {
            assert_eq!(set.give_back(Block(block)), model.remove(&block));
        }
        compare(&set, &model);
        // Each index was made for at least this many.
        let growths = set.growths;
        for block in 0..capacity.min(64) {
            set.relocate(0, &record(block, 1), false).unwrap();
        }
        assert_eq!(set.growths, growths);
    }

    /// The sizes stay inside what the specification allows, and suffice.
    #[test]
    fn sizes_are_bounded(
        shift in 0u32..=6,
        blocks in 1u64..=1 << 32,
        capacity in 0u32..=1 << 30,
        slots in 1u32..=SlotNumber::MAX_COUNT,
    ) {
        let main = Sectors(blocks << shift);
        let sizes = Sizes::new(main, block_size(1 << shift), SlotCount(slots), SlotCount(capacity));
        let sizes = sizes.unwrap();
        // A load of at most 0.8 when it is full.
        assert!(sizes.words() as u64 * 4 >= u64::from(capacity) * 5);
        let huge_page = 2 << 20;
        let words = u64::from(capacity) * 5 + 8;
        let words = if words < huge_page { words } else { words.next_multiple_of(huge_page) };
        assert!(sizes.words() as u64 * 4 <= words);
        // 4 bits for each relocation, or 64 KiB for each 20 TB, or one word.
        let for_main = (main.0 as u128 * 512 * 64 * 1024 / 20_000_000_000_000) as u64;
        let allowed = for_main.max(u64::from(capacity).div_ceil(2)).max(8);
        assert!(sizes.summary() as u64 * 8 <= allowed.next_multiple_of(8), "{sizes:?}");
    }
}

/// What 1,000,000 relocations take: "memory per relocation: 24 bytes, and 64 KiB for each 20 TB".
#[test]
fn a_relocation_takes_24_bytes() {
    let record_bytes = size_of::<Chunk>() + size_of::<States>();
    assert_eq!(record_bytes, CHUNK_SLOTS * 17);
    let main = Sectors(39_062_500_000);
    // Right after the index has grown, its load is lowest.
    let capacity = SlotCount(1_125_000);
    let sizes = Sizes::new(main, block_size(16), SlotCount(1 << 22), capacity).unwrap();
    let bytes = sizes.words() * 4 + sizes.summary() * 8 + 1_000_000 * 17;
    let per_relocation = bytes as f64 / 1e6;
    assert!(per_relocation <= 23.9, "{per_relocation}");
}

/// More than 2^32 blocks, or none, cannot be indexed.
#[test]
fn main_has_1_to_2_to_the_32_blocks() {
    let sizes = |main| Sizes::new(Sectors(main), block_size(8), SlotCount(100), SlotCount(100));
    assert!(sizes(0).is_none());
    assert!(sizes(1).is_some());
    assert!(sizes(8 << 32).is_some());
    assert!(sizes((8 << 32) + 1).is_none());
}

/// The first and the last block that can be addressed, in the last slot that there can be.
#[test]
fn extremes_have_room() {
    /// Records of which there is one chunk, the last of the last spare.
    struct LastChunk(Chunk, States);
    impl Records for LastChunk {
        fn chunk(&self, spare: SpareIndex, number: ChunkNumber) -> Option<&Chunk> {
            (spare.get() == 14 && number.get() == (1 << 19) - 1).then_some(&self.0)
        }
        fn states(&self, spare: SpareIndex, number: ChunkNumber) -> Option<&States> {
            self.chunk(spare, number).map(|_| &self.1)
        }
    }
    let records = LastChunk(Chunk::new(), States::new());
    let all = SlotCount(SlotNumber::MAX_COUNT);
    let sizes = Sizes::new(Sectors(1 << 38), block_size(64), all, SlotCount(10)).unwrap();
    let index = new_index(sizes, Seed(u64::MAX));
    let spare = SpareIndex::new(14).unwrap();
    let allocator = Allocator::new(spare, all);
    for (number, block) in [
        (SlotNumber::MAX_COUNT - 1, u32::MAX),
        (SlotNumber::MAX_COUNT - 2, 0),
    ] {
        let number = SlotNumber::new(number).unwrap();
        allocator
            .occupy(&records, number, &record(block, u64::MAX))
            .unwrap();
        let slot = Slot::new(spare, number);
        index.insert(&records, slot, true).unwrap();
        let found = index.find(&records, Block(block)).unwrap();
        assert_eq!((found.slot, found.moving), (slot, true));
        assert_eq!(
            slot.next().is_none(),
            number.get() == SlotNumber::MAX_COUNT - 1
        );
    }
    // In the order of the slots; the chunks before the last were never made.
    let blocks = allocator.entries(&records).map(|entry| entry.block.0);
    assert_eq!(blocks.collect::<Vec<_>>(), [0, u32::MAX]);
    assert!(index.may_contain(Sector((1 << 38) - 1), Sector((1 << 38) - 1)));
}

/// Why a block is refused, and that nothing has changed then.
#[test]
fn refusals() {
    let spares = [(SlotCount(300), Some(SpareSector(64)))];
    let mut set = Set::new(Sectors(100), block_size(1), &spares, SlotCount(4), Seed(3));
    let slot = set.relocate(0, &record(99, 1), false).unwrap();
    assert_eq!(
        set.index.insert(&set.records, slot, false),
        Err(InsertError::Present)
    );

    let missing = Slot::new(SpareIndex::FIRST, SlotNumber::new(299).unwrap());
    assert_eq!(
        set.index.insert(&set.records, missing, false),
        Err(InsertError::UnknownSlot)
    );
    let elsewhere = Slot::new(SpareIndex::new(1).unwrap(), SlotNumber::default());
    assert_eq!(
        set.index.insert(&set.records, elsewhere, false),
        Err(InsertError::UnknownSlot)
    );

    let free = set.allocators[0].lowest_free(&set.records).unwrap();
    set.allocators[0]
        .occupy(&set.records, free.number(), &record(100, 1))
        .unwrap();
    assert_eq!(
        set.index.insert(&set.records, free, false),
        Err(InsertError::BeyondMain)
    );
    assert_eq!(set.index.used(), SlotCount(1));
    assert_eq!(set.index.find(&set.records, Block(100)), None);
    assert_eq!(set.index.replace(&set.records, free, false), None);
}

/// A slot beyond those that the index was made for is refused, although its record is there.
#[test]
fn slots_beyond_the_spare_are_refused() {
    let records = MemoryRecords::new(&[SlotCount(1000)]);
    let slot = Slot::new(SpareIndex::FIRST, SlotNumber::new(10).unwrap());
    records.make_room(slot);
    let sizes = Sizes::new(Sectors(100), block_size(1), SlotCount(10), SlotCount(10)).unwrap();
    let index = new_index(sizes, Seed(1));
    assert_eq!(
        index.insert(&records, slot, false),
        Err(InsertError::UnknownSlot)
    );
}

/// An index takes what it was made for, and then grows by a quarter.
#[test]
fn an_index_takes_its_capacity() {
    for capacity in 1..300 {
        let spares = [(SlotCount(2000), Some(SpareSector(64)))];
        let size = block_size(1);
        let mut set = Set::new(Sectors(2000), size, &spares, SlotCount(capacity), Seed(5));
        for block in 0..capacity {
            set.relocate(0, &record(block, 1), false).unwrap();
        }
        assert_eq!(set.growths, 0, "{capacity}");
        // One word more, at most, has room besides.
        for block in capacity..capacity + 2 {
            set.relocate(0, &record(block, 1), false).unwrap();
        }
        assert_eq!(set.growths, 1, "{capacity}");
        for block in capacity + 2..capacity + capacity / 4 {
            set.relocate(0, &record(block, 1), false).unwrap();
        }
        assert_eq!(set.growths, 1, "{capacity}");
    }
}

/// Blocks that come and go do not use up the index.
#[test]
fn removed_words_are_used_again() {
    let spares = [(SlotCount(200), Some(SpareSector(64)))];
    let mut set = Set::new(
        Sectors(2000),
        block_size(1),
        &spares,
        SlotCount(100),
        Seed(5),
    );
    for block in 0..100 {
        set.relocate(0, &record(block, 1), false).unwrap();
    }
    for block in (0..100).cycle().take(5000) {
        set.give_back(Block(block)).unwrap();
        set.relocate(0, &record(block, 1), false).unwrap();
    }
    assert_eq!(set.growths, 0);
}

/// How many records are looked at to find each of 1000 blocks that are `stride` apart, in an index
/// for spares of `slots` slots with a load of 0.7.
fn looks_for_each_block(stride: u32, slots: SlotCount, seed: Seed) -> f64 {
    let count = 1000;
    let sizes = Sizes::new(Sectors(1 << 32), block_size(1), slots, SlotCount(1142)).unwrap();
    let records = CountingRecords::new();
    let index = new_index(sizes, seed);
    let allocator = Allocator::new(SpareIndex::FIRST, slots);
    let block = |i: u32| i.wrapping_mul(stride);
    for i in 0..count {
        let slot = allocator.lowest_free(&records.inner).unwrap();
        records.inner.make_room(slot);
        let record = record(block(i), 1);
        allocator.occupy(&records, slot.number(), &record).unwrap();
        index.insert(&records, slot, false).unwrap();
    }
    records.looks.store(0, Relaxed);
    for i in 0..count {
        assert!(index.find(&records, Block(block(i))).is_some());
    }
    f64::from(records.looks.load(Relaxed)) / f64::from(count)
}

/// Blocks that are at a regular distance do not crowd in one part of the index. Without a tag, each
/// word that a search passes is a look; at random places there are 2.2 of them at this load. With
/// a tag, nearly every look is at the record of the block.
#[test]
fn regular_blocks_do_not_crowd() {
    for stride in [
        1,
        2,
        3,
        64,
        255,
        256,
        2584,
        4096,
        6765,
        65536,
        75025,
        1 << 20,
    ] {
        for seed in [0, 1, 0x1234_5678_9abc_def0, 0x8000_0000_0000_0001, u64::MAX] {
            let without_tag = SlotCount(SlotNumber::MAX_COUNT);
            let looks = looks_for_each_block(stride, without_tag, Seed(seed));
            assert!(looks < 3.0, "stride {stride} seed {seed:#x}: {looks}");
            let looks = looks_for_each_block(stride, SlotCount(2000), Seed(seed));
            assert!(
                looks < 1.01,
                "stride {stride} seed {seed:#x} with a tag: {looks}"
            );
        }
    }
}

/// Records that count how often they are looked at.
struct CountingRecords {
    inner: MemoryRecords,
    looks: AtomicU32,
}

impl CountingRecords {
    fn new() -> Self {
        Self {
            inner: MemoryRecords::new(&[SlotCount(2000)]),
            looks: AtomicU32::new(0),
        }
    }
}

impl Records for CountingRecords {
    fn chunk(&self, spare: SpareIndex, number: ChunkNumber) -> Option<&Chunk> {
        self.looks.fetch_add(1, Relaxed);
        self.inner.chunk(spare, number)
    }
    fn states(&self, spare: SpareIndex, number: ChunkNumber) -> Option<&States> {
        self.inner.states(spare, number)
    }
}
