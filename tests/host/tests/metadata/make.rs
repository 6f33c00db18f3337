// SPDX-License-Identifier: GPL-2.0

//! Sets and superblocks to test with.

use dm_remap_host::remap::geometry::plan_set;
use dm_remap_host::remap::geometry::Layout;
use dm_remap_host::remap::geometry::PageCount;
use dm_remap_host::remap::geometry::SpareCount;
use dm_remap_host::remap::geometry::PAGE_BYTES;
use dm_remap_host::remap::identity::MainId;
use dm_remap_host::remap::identity::Uuid;
use dm_remap_host::remap::options::Options;
use dm_remap_host::remap::page::Page;
use dm_remap_host::remap::page::Sequence;
use dm_remap_host::remap::superblock::Progress;
use dm_remap_host::remap::superblock::Set;
use dm_remap_host::remap::superblock::State;
use dm_remap_host::remap::superblock::Superblock;
use dm_remap_host::remap::units::BlockSize;
use dm_remap_host::remap::units::Sectors;
use dm_remap_host::remap::units::SlotCount;
use dm_remap_host::remap::units::SpareIndex;
use dm_remap_host::remap::units::UnixTime;
use dm_remap_host::remap::units::MAX_SPARES;

/// A page that is all zero.
pub const BLANK: Page = [0; PAGE_BYTES];

/// The size of main in most tests: its last block of 8 sectors is a part of one.
pub const MAIN: Sectors = Sectors(1_000_003);

/// The size of a spare in most tests, 4 MiB.
pub const SPARE: Sectors = Sectors(8192);

pub fn uuid(tag: u8) -> Uuid {
    Uuid::new([tag; 16]).expect("the tag is not zero")
}

pub fn index(spare: usize) -> SpareIndex {
    SpareIndex::new(spare).expect("a test has few spares")
}

pub fn sequence(number: u64) -> Sequence {
    Sequence::new(number).expect("a test uses small numbers")
}

pub fn block_size(sectors: u64) -> BlockSize {
    BlockSize::new(Sectors(sectors)).expect("a test uses valid sizes")
}

/// The layouts of a new set of spares with these sizes and blocks of 8 sectors.
pub fn layouts(sizes: &[Sectors]) -> Vec<Layout> {
    let layouts = plan_set(sizes, block_size(8)).expect("the spares are large enough");
    layouts.into_iter().flatten().collect()
}

/// What the spares of a set with these layouts say of it.
pub fn set(layouts: &[Layout]) -> Set {
    let mut slots_of = [SlotCount(0); MAX_SPARES];
    for (slots, layout) in slots_of.iter_mut().zip(layouts) {
        *slots = layout.slots();
    }
    Set {
        uuid: uuid(1),
        main_sectors: MAIN,
        main_id: MainId::NONE,
        block_size: layouts[0].block_size(),
        created: UnixTime(1_795_400_000),
        options: Options::DEFAULT,
        progress: Progress::default(),
        spares: SpareCount::new(layouts.len()).expect("a test has few spares"),
        slots_of,
    }
}

/// The superblock of spare `spare`, ready, of a set with these layouts.
pub fn superblock(layouts: &[Layout], spare: usize) -> Superblock {
    Superblock {
        sequence: Sequence::FIRST,
        spare: index(spare),
        state: State::Ready,
        layout: layouts[spare],
        slot_mark: PageCount::ZERO,
        witness_mark: PageCount::ZERO,
        set: set(layouts),
    }
}
