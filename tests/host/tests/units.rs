// SPDX-License-Identifier: GPL-2.0

//! The units: what is in range is kept as it is, what is not is refused.

use dm_remap_host::remap::units::Block;
use dm_remap_host::remap::units::BlockSize;
use dm_remap_host::remap::units::Cause;
use dm_remap_host::remap::units::LiveMask;
use dm_remap_host::remap::units::Sector;
use dm_remap_host::remap::units::Sectors;
use dm_remap_host::remap::units::Slot;
use dm_remap_host::remap::units::SlotNumber;
use dm_remap_host::remap::units::SlotState;
use dm_remap_host::remap::units::SpareIndex;
use dm_remap_host::remap::units::UnixTime;
use dm_remap_host::remap::units::MAX_SPARES;
use proptest::prelude::*;

/// "A power of two from 1 to 64."
#[test]
fn block_sizes() {
    let sizes = (0..1000).filter(|&sectors| BlockSize::new(Sectors(sectors)).is_some());
    assert_eq!(sizes.collect::<Vec<_>>(), [1, 2, 4, 8, 16, 32, 64]);
    assert_eq!(BlockSize::new(Sectors(1 << 32)), None);
    assert_eq!(BlockSize::new(Sectors(u64::MAX)), None);
}

/// Each code of a state stands for one state, and all others for none.
#[test]
fn slot_states_have_codes() {
    let states: Vec<_> = (0..=255).filter_map(SlotState::from_code).collect();
    assert_eq!(states.len(), 8);
    for state in states {
        assert_eq!(SlotState::from_code(state.code()), Some(state));
    }
    assert_eq!(
        SlotState::Free.code(),
        0,
        "zeroed memory and an empty entry are free slots"
    );
}

/// The words of the reply to `list`.
#[test]
fn causes_have_names() {
    let causes = [
        Cause::Read,
        Cause::Write,
        Cause::Scan,
        Cause::Message,
        Cause::Import,
        Cause::Spare,
    ];
    let names = ["read", "write", "scan", "message", "import", "spare"];
    assert_eq!(causes.map(Cause::name), names);
}

/// The largest number of each kind, and the first one beyond.
#[test]
fn bounds() {
    assert_eq!(SpareIndex::new(MAX_SPARES), None);
    assert_eq!(SlotNumber::new((1 << 27) - 1), None);
    let last = SlotNumber::new((1 << 27) - 2).unwrap();
    let slot = Slot::new(SpareIndex::new(14).unwrap(), last);
    assert!(slot.packed() < 1 << 31);
    assert_eq!(slot.next(), None);
    assert_eq!(Block(u32::MAX).next(), None);
    assert_eq!(UnixTime::from_seconds(1 << 32), UnixTime(u32::MAX));
    assert_eq!(UnixTime::from_seconds(5), UnixTime(5));
    assert_eq!(Sector(u64::MAX).checked_add(Sectors(1)), None);
    assert_eq!(Sector(7).up_to(Sector(6)), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 5 } else { 2000 }))]

    /// A sector is in its block, at its offset, and the parts of a device add up.
    #[test]
    fn sectors_and_blocks(shift in 0u32..=6, sector: u64, size in 1u64..1 << 40) {
        let block_size = BlockSize::new(Sectors(1 << shift)).unwrap();
        let sector = sector >> (sector % 32);
        let offset = u64::from(block_size.offset_of(Sector(sector)).get());
        match block_size.block_of(Sector(sector)) {
            Some(block) => assert_eq!(block_size.first_sector(block).0 + offset, sector),
            None => assert!(sector >> shift > u64::from(u32::MAX)),
        }
        let last = block_size.last_block(Sectors(size));
        assert_eq!(last.is_some(), size.div_ceil(1 << shift) <= 1 << 32);
        if let Some(last) = last {
            let in_last = block_size.sectors_of(last, Sectors(size)).0;
            assert_eq!(block_size.first_sector(last).0 + in_last, size);
            assert!((1..=1 << shift).contains(&in_last));
            if last.0 > 0 {
                let before = block_size.sectors_of(Block(last.0 - 1), Sectors(size));
                assert_eq!(before, block_size.sectors());
            }
            if let Some(beyond) = last.next() {
                assert_eq!(block_size.sectors_of(beyond, Sectors(size)), Sectors::ZERO);
            }
        }
    }

    /// A slot keeps its parts, and slots are in the order of spares and numbers.
    #[test]
    fn slots_keep_their_parts(
        a in (0..MAX_SPARES, 0..SlotNumber::MAX_COUNT),
        b in (0..MAX_SPARES, 0..SlotNumber::MAX_COUNT),
    ) {
        let slot = |(spare, number)| {
            Slot::new(SpareIndex::new(spare).unwrap(), SlotNumber::new(number).unwrap())
        };
        assert_eq!((slot(a).spare().get(), slot(a).number().get()), a);
        assert_eq!(slot(a).cmp(&slot(b)), a.cmp(&b));
        match slot(a).next() {
            Some(next) => assert_eq!((next.spare().get(), next.number().get()), (a.0, a.1 + 1)),
            None => assert_eq!(a.1, SlotNumber::MAX_COUNT - 1),
        }
    }

    /// A mask is the set of its bits.
    #[test]
    fn live_masks_are_sets(a: u64, b: u64, from in 0u64..64, count in 0u64..200) {
        let offset = BlockSize::new(BlockSize::MAX).unwrap().offset_of(Sector(from));
        let (x, y) = (LiveMask(a), LiveMask(b));
        let has = |mask: LiveMask, bit: u64| bit < 64 && mask.0 >> bit & 1 == 1;
        for bit in 0..64 {
            assert_eq!(has(x.union(y), bit), has(x, bit) || has(y, bit));
            assert_eq!(has(x.without(y), bit), has(x, bit) && !has(y, bit));
            assert_eq!(has(LiveMask::first(Sectors(count)), bit), bit < count);
        }
        assert_eq!(x.contains(y), (0..64).all(|bit| !has(y, bit) || has(x, bit)));
        assert_eq!(x.count().0, (0..64).filter(|&bit| has(x, bit)).count() as u64);
        let run = (from..64).take_while(|&bit| has(x, bit)).count() as u64;
        assert_eq!(x.live_run(offset), Sectors(run));
        let dead = (from..64).take_while(|&bit| !has(x, bit)).count() as u64;
        assert_eq!(x.dead_run(offset).0.min(64 - from), dead);
    }
}
