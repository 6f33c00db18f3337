// SPDX-License-Identifier: GPL-2.0

//! Makes the only spare of a set in which many blocks are relocated, for measurements: adding as
//! many by message would take far longer.
//!
//! ```text
//! relocated_spare FILE <MiB of the spare> <MiB of main> <relocations> <blocks from one to the next>
//! ```
//!
//! The blocks of main are relocated at equal distances, from block 0 on, and lie on the spare in an
//! order that has nothing to do with that on main. All metadata is written into FILE, which is
//! left sparse where the data would be, and so all of the data reads as zeros. Each part of FILE that
//! holds metadata is printed as its first byte and its length.

use std::env;
use std::error::Error;
use std::fs::File;
use std::os::unix::fs::FileExt;

use dm_remap_host::crc32c::crc32c;
use dm_remap_host::remap::geometry::plan_set;
use dm_remap_host::remap::geometry::End;
use dm_remap_host::remap::geometry::EntryIndex;
use dm_remap_host::remap::geometry::Layout;
use dm_remap_host::remap::geometry::PageCount;
use dm_remap_host::remap::geometry::PageNumber;
use dm_remap_host::remap::geometry::SpareCount;
use dm_remap_host::remap::geometry::PAGE_BYTES;
use dm_remap_host::remap::identity::MainId;
use dm_remap_host::remap::identity::Uuid;
use dm_remap_host::remap::options::Options;
use dm_remap_host::remap::page::seal;
use dm_remap_host::remap::page::Name;
use dm_remap_host::remap::page::Page;
use dm_remap_host::remap::page::Sequence;
use dm_remap_host::remap::page::Subject;
use dm_remap_host::remap::records::Record;
use dm_remap_host::remap::slot_page::set_entry;
use dm_remap_host::remap::slot_page::Extent;
use dm_remap_host::remap::slot_page::SlotEntry;
use dm_remap_host::remap::superblock::Progress;
use dm_remap_host::remap::superblock::Set;
use dm_remap_host::remap::superblock::State;
use dm_remap_host::remap::superblock::Superblock;
use dm_remap_host::remap::units::Block;
use dm_remap_host::remap::units::BlockSize;
use dm_remap_host::remap::units::Cause;
use dm_remap_host::remap::units::Sectors;
use dm_remap_host::remap::units::SlotCount;
use dm_remap_host::remap::units::SlotNumber;
use dm_remap_host::remap::units::SpareIndex;
use dm_remap_host::remap::units::SpareSector;
use dm_remap_host::remap::units::UnixTime;
use dm_remap_host::remap::units::MAX_SPARES;

const SECTOR_BYTES: u64 = 512;
const MIB_SECTORS: u64 = (1 << 20) / SECTOR_BYTES;

/// Some time at which the set was made and the blocks were relocated.
const TIME: UnixTime = UnixTime(1_795_400_000);

/// A prime number larger than any number of slots, so that its multiples, modulo the number of
/// relocations, are all of them in another order.
const STEP: u64 = 1_000_000_007;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().collect();
    let [_, path, spare, main, relocations, distance] = arguments.as_slice() else {
        return Err("usage: relocated_spare FILE SPARE_MIB MAIN_MIB RELOCATIONS DISTANCE".into());
    };
    let spare = Sectors(spare.parse::<u64>()? * MIB_SECTORS);
    let main = Sectors(main.parse::<u64>()? * MIB_SECTORS);
    let relocations = SlotCount(relocations.parse()?);
    let distance: u64 = distance.parse()?;

    let set = new_set(spare, main)?;
    let layout = plan(spare)?;
    if relocations > layout.slots() {
        return Err(format!("the spare has room for {} blocks only", layout.slots().0).into());
    }
    let mut writer = Writer::new(path, layout)?;
    let mark = PageCount::for_slots(relocations);
    for number in mark.pages() {
        let page = slot_page(number, &set, relocations, distance)?;
        writer.write_twice(&page, |end| layout.slot_page(number, end))?;
    }
    let superblock = Superblock {
        sequence: Sequence::FIRST,
        spare: SpareIndex::FIRST,
        state: State::Ready,
        layout,
        slot_mark: mark,
        witness_mark: PageCount::ZERO,
        set,
    };
    let mut page = [0; PAGE_BYTES];
    superblock.encode(&mut page, crc32c);
    writer.write_twice(&page, |end| Some(layout.superblock(end)))?;
    for (first, end) in writer.parts {
        println!("{first} {}", end - first);
    }
    Ok(())
}

/// What the spare says about the set.
fn new_set(spare: Sectors, main: Sectors) -> Result<Set, Box<dyn Error>> {
    let mut slots_of = [SlotCount::ZERO; MAX_SPARES];
    slots_of[0] = plan(spare)?.slots();
    Ok(Set {
        uuid: Uuid::from_random(*b"for measurements"),
        main_sectors: main,
        main_id: MainId::NONE,
        block_size: block_size()?,
        created: TIME,
        options: Options::DEFAULT,
        progress: Progress::default(),
        spares: SpareCount::new(1).ok_or("number of spares")?,
        slots_of,
    })
}

/// Where everything on the spare is.
fn plan(spare: Sectors) -> Result<Layout, Box<dyn Error>> {
    let layouts = plan_set(&[spare], block_size()?).map_err(|_| "the spare is too small")?;
    Ok(layouts[0].ok_or("layout")?)
}

/// Blocks of 4 KiB.
fn block_size() -> Result<BlockSize, Box<dyn Error>> {
    Ok(BlockSize::new(Sectors(8)).ok_or("block size")?)
}

/// Slot page `number` of the spare, on which the first `relocations` slots hold blocks.
fn slot_page(
    number: PageNumber,
    set: &Set,
    relocations: SlotCount,
    distance: u64,
) -> Result<Page, Box<dyn Error>> {
    let extent = Extent {
        block_size: set.block_size,
        main_sectors: set.main_sectors,
    };
    let mut page = [0; PAGE_BYTES];
    for at in EntryIndex::all() {
        let slot = number.slot(at).filter(|slot| slot.get() < relocations.0);
        if let Some(slot) = slot {
            let block = block_in(slot, relocations, distance)?;
            let live = extent.all_live(block);
            if live.count() != set.block_size.sectors() {
                return Err("main is too small for so many relocations".into());
            }
            let record = Record {
                block,
                live,
                time: TIME,
                cause: Cause::Message,
            };
            set_entry(&mut page, at, SlotEntry::InUse(record));
        }
    }
    let name = Name {
        uuid: set.uuid,
        spare: SpareIndex::FIRST,
        subject: Subject::Slots(number),
    };
    seal(&mut page, &name, Sequence::FIRST, crc32c);
    Ok(page)
}

/// The block that `slot` holds.
fn block_in(
    slot: SlotNumber,
    relocations: SlotCount,
    distance: u64,
) -> Result<Block, Box<dyn Error>> {
    let place = u64::from(slot.get()) * STEP % u64::from(relocations.0);
    Ok(Block(u32::try_from(place * distance)?))
}

/// Writes pages, and knows where it has written.
struct Writer {
    file: File,
    /// The first byte of each part that was written, and the one behind it: front, then back.
    parts: [(u64, u64); 2],
}

impl Writer {
    /// A writer into a new file.
    fn new(path: &str, layout: Layout) -> Result<Self, Box<dyn Error>> {
        let size = layout.parts().spare_sectors.0 * SECTOR_BYTES;
        let file = File::create(path)?;
        file.set_len(size)?;
        Ok(Self {
            file,
            parts: [(0, 0), (size, size)],
        })
    }

    /// Writes both copies of a page.
    fn write_twice(
        &mut self,
        page: &Page,
        place: impl Fn(End) -> Option<SpareSector>,
    ) -> Result<(), Box<dyn Error>> {
        for (end, (first, last)) in [End::Front, End::Back].into_iter().zip(&mut self.parts) {
            let at = place(end).ok_or("there is no such page")?.0 * SECTOR_BYTES;
            self.file.write_all_at(page, at)?;
            *first = at.min(*first);
            *last = (at + page.len() as u64).max(*last);
        }
        Ok(())
    }
}
