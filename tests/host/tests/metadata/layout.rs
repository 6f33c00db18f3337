// SPDX-License-Identifier: GPL-2.0

//! Nothing on a spare overlaps, whatever its size, and every slot page has its witness page.

use std::collections::HashMap;

use dm_remap_host::remap::geometry::plan_set;
use dm_remap_host::remap::geometry::superblock_place;
use dm_remap_host::remap::geometry::End;
use dm_remap_host::remap::geometry::EntryIndex;
use dm_remap_host::remap::geometry::Layout;
use dm_remap_host::remap::geometry::PageCount;
use dm_remap_host::remap::geometry::PageNumber;
use dm_remap_host::remap::geometry::Parts;
use dm_remap_host::remap::geometry::SpareCount;
use dm_remap_host::remap::units::BlockSize;
use dm_remap_host::remap::units::Sectors;
use dm_remap_host::remap::units::SlotCount;
use dm_remap_host::remap::units::SlotNumber;
use dm_remap_host::remap::units::SpareSector;
use proptest::prelude::*;

use crate::metadata::make::block_size;
use crate::metadata::make::index;

fn any_block_size() -> impl Strategy<Value = BlockSize> {
    (0u32..7).prop_map(|shift| block_size(1 << shift))
}

/// Sizes from nothing to 2^64 sectors, small ones as often as large ones.
fn any_size() -> impl Strategy<Value = Sectors> {
    (0u32..64, any::<u64>()).prop_map(|(shift, bits)| Sectors(bits >> shift))
}

fn slot(number: u32) -> SlotNumber {
    SlotNumber::new(number).expect("a layout has only slots that exist")
}

/// Everything that is on a small spare, as (first sector, sectors).
fn areas(layout: &Layout) -> Vec<(u64, u64)> {
    let mut areas = Vec::new();
    for end in [End::Front, End::Back] {
        areas.push((layout.superblock(end).0, 8));
        for page in layout.slot_pages().pages() {
            areas.push((layout.slot_page(page, end).expect("the page exists").0, 8));
        }
    }
    for page in layout.witness_pages().pages() {
        areas.push((layout.witness_page(page).expect("the page exists").0, 8));
    }
    for number in 0..layout.slots().0 {
        let data = layout.data(slot(number)).expect("the slot exists");
        areas.push((data.0, layout.block_size().sectors().0));
    }
    areas
}

fn check_no_overlap(layout: &Layout) {
    let size = layout.parts().spare_sectors.0;
    let mut owner = HashMap::new();
    for (first, count) in areas(layout) {
        for sector in first..first + count {
            assert!(
                sector < size,
                "sector {sector} is beyond the end of {layout:?}"
            );
            assert!(
                owner.insert(sector, first).is_none(),
                "sector {sector} twice in {layout:?}"
            );
        }
    }
}

proptest! {
    #[test]
    fn nothing_overlaps_on_small_spares(
        sizes in prop::collection::vec(0u64..6_000, 1..=15),
        block_size in any_block_size(),
    ) {
        let sizes: Vec<Sectors> = sizes.into_iter().map(Sectors).collect();
        if let Ok(layouts) = plan_set(&sizes, block_size) {
            layouts.iter().flatten().for_each(check_no_overlap);
        }
    }

    #[test]
    fn every_plan_keeps_the_rules_and_has_witnesses(
        sizes in prop::collection::vec(any_size(), 1..=15),
        block_size in any_block_size(),
    ) {
        let count = SpareCount::new(sizes.len()).unwrap();
        let Ok(layouts) = plan_set(&sizes, block_size) else {
            return Ok(());
        };
        for spare in count.spares() {
            let layout = layouts[spare.get()].unwrap();
            // What a superblock says is checked by this when it is read again.
            prop_assert_eq!(Layout::new(*layout.parts()), Some(layout));
            prop_assert_eq!(superblock_place(sizes[spare.get()], End::Back), Some(layout.superblock(End::Back)));
            if let Some(witness) = count.witness_of(spare) {
                prop_assert!(layout.slot_pages() <= layouts[witness.get()].unwrap().witness_pages());
            }
            // Slots of which the last is on the last page.
            let last = slot(layout.slots().0 - 1);
            prop_assert_eq!(PageNumber::of(last).get(), layout.slot_pages().0);
            prop_assert!(layout.data(last).is_some());
            prop_assert!(SlotNumber::new(layout.slots().0).and_then(|slot| layout.data(slot)).is_none());
        }
    }

    #[test]
    fn an_added_spare_is_witnessed_and_a_witness(
        size in 0u64..200_000,
        sizes in prop::collection::vec(2_000u64..200_000, 1..=14),
        block_size in any_block_size(),
    ) {
        let sizes: Vec<Sectors> = sizes.into_iter().map(Sectors).collect();
        let Ok(layouts) = plan_set(&sizes, block_size) else {
            return Ok(());
        };
        let (first, before) = (layouts[0].unwrap(), layouts[sizes.len() - 1].unwrap());
        if let Some(added) = Layout::plan_added(Sectors(size), &before, &first) {
            prop_assert!(added.slot_pages() <= first.witness_pages());
            prop_assert!(before.slot_pages() <= added.witness_pages());
            prop_assert_eq!(Layout::new(*added.parts()), Some(added));
        }
    }

    #[test]
    fn slots_and_entries_go_together(number in 0u32..SlotNumber::MAX_COUNT) {
        let slot = slot(number);
        prop_assert_eq!(PageNumber::of(slot).slot(EntryIndex::of(slot)), Some(slot));
    }

    /// A layout is accepted exactly when no two of its parts overlap and its numbers fit together.
    /// The numbers are at most a little off.
    #[test]
    fn hostile_layouts_are_refused(
        slots in 0u32..400,
        more_pages in prop::sample::select(vec![0i64, 0, 0, 1, -1]),
        witness_pages in 0u32..8,
        more_start in prop::sample::select(vec![0i64, 0, 1, 2, 4, 8, 16, 32, 64, -1, -8, -64]),
        more_size in prop::sample::select(vec![0i64, 0, 1, 8, 64, -1, -8, -64]),
        block_size in any_block_size(),
    ) {
        let blocks = block_size.sectors().0 as i64;
        let pages = (i64::from(slots + 167) / 168 + more_pages).max(0);
        let front = 8 * (1 + pages + i64::from(witness_pages));
        let data_start = ((front + blocks - 1) / blocks * blocks + more_start).max(0);
        let data_end = data_start + i64::from(slots) * blocks;
        let size = ((data_end + 7) / 8 * 8 + 8 * (pages + 1) + more_size).max(0);
        let parts = Parts {
            block_size,
            spare_sectors: Sectors(size as u64),
            data_start: SpareSector(data_start as u64),
            slots: SlotCount(slots),
            slot_pages: PageCount(pages as u32),
            witness_pages: PageCount(witness_pages),
        };
        let expected = size % 8 == 0
            && slots > 0
            && more_pages == 0
            && data_start % 8 == 0
            && data_start % blocks == 0
            && front <= data_start
            && data_end + 8 * (pages + 1) <= size;
        prop_assert_eq!(Layout::new(parts).is_some(), expected);
        if let Some(layout) = Layout::new(parts) {
            check_no_overlap(&layout);
        }
    }

    #[test]
    fn no_number_makes_a_layout_overflow(
        spare_sectors in any::<u64>(),
        data_start in any::<u64>(),
        slots in any::<u32>(),
        slot_pages in any::<u32>(),
        witness_pages in any::<u32>(),
        block_size in any_block_size(),
    ) {
        // The pages and the alignments are made to fit, so that the sums are reached.
        let parts = Parts {
            block_size,
            spare_sectors: Sectors(spare_sectors & !7),
            data_start: SpareSector(data_start & !63),
            slots: SlotCount(slots),
            slot_pages: if slot_pages & 1 == 0 { PageCount::for_slots(SlotCount(slots)) } else { PageCount(slot_pages) },
            witness_pages: PageCount(witness_pages),
        };
        if let Some(layout) = Layout::new(parts) {
            let last = slot(slots - 1);
            prop_assert!(layout.data(last).unwrap().0 < spare_sectors);
        }
    }
}

/// Half of a large spare is not lost because its partner is small, and a small overhead is small.
#[test]
fn little_is_lost_to_metadata() {
    let gib = Sectors(1 << 21);
    let layouts = plan_set(&[gib], block_size(8)).unwrap();
    let layout = layouts[0].unwrap();
    let data = u64::from(layout.slots().0) * 8;
    assert!(data * 100 >= gib.0 * 98, "{layout:?}");
    assert_eq!(layout.data_start().0 % 2048, 0);

    let layouts = plan_set(&[Sectors(gib.0 * 10), gib], block_size(8)).unwrap();
    let layout = layouts[0].unwrap();
    assert!(
        u64::from(layout.slots().0) * 8 * 100 >= gib.0 * 10 * 98,
        "{layout:?}"
    );
}

#[test]
fn a_spare_that_is_too_small_is_named() {
    let sizes = [Sectors(8192), Sectors(39)];
    assert_eq!(plan_set(&sizes, block_size(8)), Err(index(1)));
    // Two superblocks, two copies of one slot page, one witness page and one block are the least.
    assert!(plan_set(&[Sectors(47)], block_size(8)).is_err());
    assert!(plan_set(&[Sectors(48)], block_size(8)).is_ok());
}

/// 2^20 relocations in use is what the specification asks for.
#[test]
fn a_large_spare_has_room_for_a_million_blocks() {
    let layouts = plan_set(&[Sectors(1 << 24)], block_size(8)).unwrap();
    assert!(layouts[0].unwrap().slots().0 >= 1 << 20);
}

#[test]
fn the_witness_is_the_next_in_the_ring() {
    let count = SpareCount::new(3).unwrap();
    let witness = |spare| count.witness_of(index(spare)).unwrap().get();
    assert_eq!([witness(0), witness(1), witness(2)], [1, 2, 0]);
    assert_eq!(SpareCount::ONE.witness_of(index(0)), None);
}
