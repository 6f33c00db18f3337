// SPDX-License-Identifier: GPL-2.0

//! A list has every relocated block of its range once, in the order of main, whatever the size of
//! the buffer and the way in which they are found.

use dm_remap_host::memory::Set;
use dm_remap_host::remap::index::Seed;
use dm_remap_host::remap::listing::blocks_in_range;
use dm_remap_host::remap::listing::count_in_range;
use dm_remap_host::remap::records::Entry;
use dm_remap_host::remap::records::Record;
use dm_remap_host::remap::units::Block;
use dm_remap_host::remap::units::BlockSize;
use dm_remap_host::remap::units::Cause;
use dm_remap_host::remap::units::LiveMask;
use dm_remap_host::remap::units::Sectors;
use dm_remap_host::remap::units::SlotCount;
use dm_remap_host::remap::units::SpareSector;
use dm_remap_host::remap::units::UnixTime;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// All blocks of a range, in rounds of as many as `buffer` has room for.
fn list(set: &Set, mut from: u32, last: u32, buffer: &mut [Entry]) -> Vec<Entry> {
    let mut all = Vec::new();
    loop {
        let range = Block(from)..=Block(last);
        let room = buffer.len();
        let spares = &set.allocators;
        let round = blocks_in_range(&set.index, &set.records, spares, range, buffer);
        all.extend_from_slice(round);
        match round.last() {
            Some(entry) if round.len() == room && entry.block.0 < last => from = entry.block.0 + 1,
            _ => return all,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 300 }))]

    /// Any set, any range, any buffer.
    #[test]
    fn every_block_once_in_order(
        wide: bool,
        blocks in prop::collection::vec((any::<u32>(), 0usize..3), 0..if cfg!(miri) { 20 } else { 600 }),
        given_back in prop::collection::vec(any::<prop::sample::Index>(), 0..50),
        ranges in prop::collection::vec((any::<u32>(), any::<u32>(), 1usize..100), 1..10),
    ) {
        // Either all of main, or so little of it that blocks follow each other.
        let highest = if wide { u32::MAX } else { 1000 };
        let main = Sectors((u64::from(highest) + 1) * 8);
        let spares = [(SlotCount(700), Some(SpareSector(64))); 3];
        let size = BlockSize::new(Sectors(8)).unwrap();
        let mut set = Set::new(main, size, &spares, SlotCount(10), Seed(1));
        let mut model = BTreeMap::new();
        for &(block, spare) in &blocks {
            let block = if wide { block } else { block % (highest + 1) };
            let record = Record {
                block: Block(block),
                live: LiveMask(255),
                time: UnixTime(1),
                cause: Cause::Import,
            };
            if let Some(slot) = set.relocate(spare, &record, false) {
                model.insert(block, slot);
            }
        }
        for index in given_back {
            let Some(&block) = (!model.is_empty()).then(|| model.keys().nth(index.index(model.len())).unwrap()) else {
                break;
            };
            set.give_back(Block(block)).unwrap();
            model.remove(&block);
        }
        for (from, last, room) in ranges {
            let (from, last) = if wide { (from, last) } else { (from % 1001, last % 1001) };
            let mut buffer = vec![Entry::default(); room];
            let expected: Vec<_> = if from <= last {
                let range = model.range(from..=last);
                range.map(|(&block, &slot)| Entry { block: Block(block), slot }).collect()
            } else {
                Vec::new()
            };
            assert_eq!(list(&set, from, last, &mut buffer), expected);
            let range = Block(from)..=Block(last);
            let count = count_in_range(&set.index, &set.records, &set.allocators, range);
            assert_eq!(count, SlotCount(expected.len() as u32));
        }
    }
}

/// Nothing fits into no room.
#[test]
fn a_buffer_without_room() {
    let spares = [(SlotCount(10), Some(SpareSector(64)))];
    let size = BlockSize::new(Sectors(8)).unwrap();
    let mut set = Set::new(Sectors(80), size, &spares, SlotCount(10), Seed(1));
    let record = Record {
        block: Block(5),
        live: LiveMask(255),
        time: UnixTime(1),
        cause: Cause::Import,
    };
    set.relocate(0, &record, false).unwrap();
    let all = Block(0)..=Block(9);
    assert!(blocks_in_range(&set.index, &set.records, &set.allocators, all, &mut []).is_empty());
}
