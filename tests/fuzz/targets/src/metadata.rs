// SPDX-License-Identifier: GPL-2.0

//! What is read from spares: whatever it is, it is refused, or it keeps the rules of
//! `docs/metadata.md` and no two blocks share a place.

use crate::input::sealed;
use crate::input::Input;
use dm_remap_host::crc32c::crc32c;
use dm_remap_host::memory;
use dm_remap_host::remap::assembly::assemble;
use dm_remap_host::remap::assembly::outdates;
use dm_remap_host::remap::assembly::Assembly;
use dm_remap_host::remap::assembly::Existing;
use dm_remap_host::remap::assembly::Member;
use dm_remap_host::remap::assembly::Place;
use dm_remap_host::remap::assembly::Wanted;
use dm_remap_host::remap::geometry::End;
use dm_remap_host::remap::geometry::EntryIndex;
use dm_remap_host::remap::geometry::Layout;
use dm_remap_host::remap::geometry::PageNumber;
use dm_remap_host::remap::identity::MainId;
use dm_remap_host::remap::identity::Uuid;
use dm_remap_host::remap::index::InsertError;
use dm_remap_host::remap::index::Seed;
use dm_remap_host::remap::page::seal;
use dm_remap_host::remap::page::Name;
use dm_remap_host::remap::page::Page;
use dm_remap_host::remap::page::Sequence;
use dm_remap_host::remap::page::Subject;
use dm_remap_host::remap::records::Record;
use dm_remap_host::remap::records::Records;
use dm_remap_host::remap::resolve;
use dm_remap_host::remap::resolve::resolve;
use dm_remap_host::remap::resolve::Direction;
use dm_remap_host::remap::slot_page::clear;
use dm_remap_host::remap::slot_page::entries;
use dm_remap_host::remap::slot_page::examine;
use dm_remap_host::remap::slot_page::is_alone;
use dm_remap_host::remap::slot_page::moves;
use dm_remap_host::remap::slot_page::set_alone;
use dm_remap_host::remap::slot_page::set_entry;
use dm_remap_host::remap::slot_page::set_moves;
use dm_remap_host::remap::slot_page::Extent;
use dm_remap_host::remap::slot_page::SlotEntry;
use dm_remap_host::remap::superblock::read;
use dm_remap_host::remap::superblock::Found;
use dm_remap_host::remap::superblock::Unusable;
use dm_remap_host::remap::units::Block;
use dm_remap_host::remap::units::BlockSize;
use dm_remap_host::remap::units::Sectors;
use dm_remap_host::remap::units::Slot;
use dm_remap_host::remap::units::SlotCount;
use dm_remap_host::remap::units::SlotNumber;
use dm_remap_host::remap::units::SpareIndex;
use dm_remap_host::remap::units::UnixTime;
use std::collections::HashSet;

/// The bytes of a superblock in which anything can stand.
const SUPERBLOCK_BYTES: usize = 1024;

/// The bytes of a superblock that a set is made of.
const SHORT_BYTES: usize = 384;

/// The entries of a slot page of a set.
const SET_ENTRIES: usize = 8;

/// Offset of the size of a spare in its superblock.
const SPARE_SECTORS_AT: usize = 96;

/// The two superblock pages of a spare.
pub fn superblock(input: &[u8]) {
    let mut input = Input(input);
    let kind = input.byte();
    let mut page = |seal: bool| {
        let page = input.page::<SUPERBLOCK_BYTES>(0);
        if seal {
            sealed(page)
        } else {
            page
        }
    };
    let front = page(kind & 1 != 0);
    let back = if kind & 2 != 0 {
        front
    } else {
        page(kind & 1 != 0)
    };
    let front = Some(front).filter(|_| kind & 4 == 0);
    let back = Some(back).filter(|_| kind & 8 == 0);
    match read(front.as_ref(), back.as_ref(), crc32c) {
        Ok(Some(found)) => {
            let page = match found.choice.newest {
                End::Front => front,
                End::Back => back,
            };
            check_superblock(&found, &page.expect("it was chosen"));
        }
        Ok(None) => assert!(front == Some([0; 4096]) && back == front),
        Err(unusable) => assert!(unusable.to_string().len() > 20),
    }
}

/// What is accepted keeps the rules, and is written as it was read.
fn check_superblock(found: &Found, page: &Page) {
    let superblock = &found.superblock;
    let set = &superblock.set;
    assert!(set.spares.contains(superblock.spare));
    assert!(set.slots_of[superblock.spare.get()] == superblock.layout.slots());
    assert!(set.block_size.last_block(set.main_sectors).is_some());
    assert!(superblock.slot_mark <= superblock.layout.slot_pages());
    assert!(superblock.witness_mark <= superblock.layout.witness_pages());
    check_layout(&superblock.layout);
    let mut again = *page;
    superblock.encode(&mut again, crc32c);
    assert!(again == *page);
}

/// Nothing overlaps, and nothing lies beyond the end.
fn check_layout(layout: &Layout) {
    let last = PageNumber::new(layout.slot_pages().0).expect("there is a slot page");
    let page = |number, end| layout.slot_page(number, end).expect("it exists").0;
    let slots = layout.slots().0;
    let last_slot = SlotNumber::new(slots - 1).expect("it exists");
    let data = |slot| layout.data(slot).expect("it exists").0;
    let witnesses = PageNumber::new(layout.witness_pages().0);
    let witnesses = witnesses.map_or(page(last, End::Front), |last| {
        layout.witness_page(last).expect("it exists").0
    });
    let places = [
        layout.superblock(End::Front).0,
        page(PageNumber::FIRST, End::Front),
        page(last, End::Front) + 8,
        witnesses + 8,
        data(SlotNumber::default()),
        data(last_slot) + layout.block_size().sectors().0,
        page(PageNumber::FIRST, End::Back),
        page(last, End::Back) + 8,
        layout.superblock(End::Back).0 + 8,
        layout.parts().spare_sectors.0,
    ];
    assert!(places[0] == 0 && places.is_sorted(), "{places:?}");
    assert!(
        layout
            .data(SlotNumber::new(slots).unwrap_or(last_slot))
            .is_none()
            || slots == SlotNumber::MAX_COUNT
    );
    assert_eq!(PageNumber::of(last_slot), last);
}

/// A slot page or a witness page.
pub fn slot_page(input: &[u8]) {
    let mut input = Input(input);
    let kind = input.byte();
    let main_sectors = Sectors(input.number());
    let slots = SlotCount(input.number() as u32);
    let shift = input.byte() & 7;
    let number = PageNumber::new(input.number() as u32);
    let block_size = BlockSize::new(Sectors(1 << shift));
    let (Some(number), Some(block_size)) = (number, block_size) else {
        return;
    };
    let extent = Extent {
        block_size,
        main_sectors,
    };
    let name = Name {
        subject: if kind & 1 == 0 {
            Subject::Slots(number)
        } else {
            Subject::Witness(number)
        },
        ..name(0, number)
    };
    let mut page = input.page::<4048>(48);
    seal(&mut page, &name, Sequence::FIRST, crc32c);
    if examine(&page, &name, slots, &extent, crc32c).is_err() {
        return;
    }
    let mut again = [0xff; 4096];
    clear(&mut again);
    set_alone(&mut again, is_alone(&page));
    set_moves(&mut again, moves(&page));
    for entry in entries(&page, number, slots, &extent) {
        let (slot, entry) = entry.expect("it was examined");
        assert!(slot.get() < slots.0 && PageNumber::of(slot) == number);
        check_entry(&entry, &extent);
        set_entry(&mut again, EntryIndex::of(slot), entry);
    }
    seal(&mut again, &name, Sequence::FIRST, crc32c);
    assert!(again == page);
}

/// What is accepted lies on main.
fn check_entry(entry: &SlotEntry, extent: &Extent) {
    if let SlotEntry::InUse(record) = entry {
        let first = extent.block_size.first_sector(record.block);
        assert!(first.0 < extent.main_sectors.0);
        assert!(extent.all_live(record.block).contains(record.live));
    }
}

/// The name of a slot page of a spare of the set that is tried.
fn name(spare: usize, number: PageNumber) -> Name {
    Name {
        uuid: Uuid::from_random([7; 16]),
        spare: SpareIndex::new(spare).expect("there are few spares"),
        subject: Subject::Slots(number),
    }
}

/// The superblocks of some spares, and slot pages of each of them.
pub fn set(input: &[u8]) {
    let mut input = Input(input);
    let kind = input.byte();
    let count = usize::from(input.byte() % 4) + 1;
    let mut main_sectors = Sectors(input.number());
    let [size_bits, missing_bits] = input.bytes();
    let mut pages = Vec::new();
    for spare in 0..count {
        let page = input.page::<SHORT_BYTES>(0);
        // One that is all zero is a new spare.
        let page = if page == [0; 4096] {
            page
        } else {
            sealed(page)
        };
        if spare == 0 && kind & 1 != 0 {
            main_sectors = Sectors(u64::from_le_bytes(
                page[88..96].try_into().expect("8 bytes"),
            ));
        }
        pages.push(page);
    }
    let found: Vec<Result<Option<Found>, Unusable>> = (pages.iter())
        .map(|page| read(Some(page), Some(page), crc32c))
        .collect();
    let size = |spare: usize| {
        let at = SPARE_SECTORS_AT..SPARE_SECTORS_AT + 8;
        let stored = u64::from_le_bytes(pages[spare][at].try_into().expect("8 bytes"));
        // A new spare has some size.
        Sectors(if size_bits >> spare & 1 != 0 || stored == 0 {
            131_072
        } else {
            stored
        })
    };
    let places: Vec<Place<'_>> = (found.iter().enumerate())
        .map(|(spare, found)| match missing_bits >> spare & 1 {
            0 => Place::Device {
                size: size(spare),
                found,
            },
            _ => Place::Missing,
        })
        .collect();
    let block_size = BlockSize::new(Sectors(8)).expect("a power of two");
    let wanted = Wanted {
        main_sectors,
        default_block_size: block_size,
        block_size: Some(block_size).filter(|_| kind & 2 != 0),
        main_id: MainId::parse(b"wwn-0x5").filter(|_| kind & 4 != 0),
        uuid: None,
        read_only: kind & 8 != 0,
    };
    match assemble(&places, &wanted) {
        Err(refusal) => assert!(refusal.to_string().len() > 20),
        Ok(Assembly::New(new)) => {
            assert!(!wanted.read_only && new.spares.get() == count);
            let id = wanted.main_id.unwrap_or(MainId::NONE);
            let made = new.set(main_sectors, id, Uuid::from_random([7; 16]), UnixTime(1));
            for (layout, slots) in new.layouts.iter().zip(made.slots_of) {
                assert_eq!(layout.map_or(0, |layout| layout.slots().0), slots.0);
                layout.iter().for_each(check_layout);
            }
        }
        Ok(Assembly::Existing(existing)) => {
            assert_eq!(existing.set.spares.get(), count);
            assert!(!wanted.read_only || existing.added.is_none());
            check_members(&existing);
            load(&existing, &mut input);
        }
    }
}

/// Each spare has room for what it is to keep.
fn check_members(existing: &Existing<'_>) {
    let layout = |spare: SpareIndex| match existing.members[spare.get()].expect("it is counted") {
        Member::Missing { witness, .. } => {
            let witness = existing.members[witness.get()].expect("it is counted");
            assert!(!matches!(witness, Member::Missing { .. }));
            None
        }
        Member::Fresh(layout) => Some(layout),
        Member::Ready { superblock, .. } => Some(superblock.layout),
    };
    let spares = existing.set.spares;
    for spare in spares.spares() {
        let Some(own) = layout(spare) else { continue };
        check_layout(&own);
        assert_eq!(own.slots(), existing.set.slots_of[spare.get()]);
        if let Some(witness) = spares.witness_of(spare).and_then(layout) {
            assert!(own.slot_pages() <= witness.witness_pages());
        }
    }
}

/// Puts what the slot pages say into an index, as an activation does, and looks where everything is.
fn load(existing: &Existing<'_>, input: &mut Input<'_>) {
    let (main, block_size) = (existing.set.main_sectors, existing.set.block_size);
    let spares: Vec<_> = (existing.members.iter().flatten())
        .map(|member| match member {
            Member::Missing { slots, .. } => (*slots, None),
            Member::Fresh(layout) => (layout.slots(), Some(layout.data_start())),
            Member::Ready { superblock, .. } => {
                let layout = &superblock.layout;
                (layout.slots(), Some(layout.data_start()))
            }
        })
        .collect();
    // A larger one takes long to make, and is no different.
    let is_small = spares.iter().all(|(slots, _)| slots.0 <= 1 << 16);
    if !is_small || main.0 > 1 << 24 {
        return;
    }
    let mut set = memory::Set::new(main, block_size, &spares, SlotCount(4), Seed(1));
    let extent = Extent {
        block_size,
        main_sectors: main,
    };
    let mut blocks = HashSet::new();
    for (spare, (slots, _)) in spares.iter().enumerate() {
        let name = name(spare, PageNumber::FIRST);
        let mut page = input.page::<{ 24 * SET_ENTRIES }>(64);
        seal(&mut page, &name, Sequence::FIRST, crc32c);
        if examine(&page, &name, *slots, &extent, crc32c).is_err() {
            return;
        }
        for entry in entries(&page, PageNumber::FIRST, *slots, &extent) {
            let (slot, entry) = entry.expect("it was examined");
            let slot = Slot::new(name.spare, slot);
            if let SlotEntry::InUse(record) = entry {
                blocks.insert(record.block.0);
                if occupy(&mut set, slot, &record).is_none() {
                    return;
                }
            }
        }
    }
    check_places(&set, &blocks);
}

/// Takes an entry over; [`None`] when it contradicts another one.
fn occupy(set: &mut memory::Set, slot: Slot, record: &Record) -> Option<()> {
    set.records.make_room(slot);
    let allocator = &set.allocators[slot.spare().get()];
    let occupied = allocator.occupy(&set.records, slot.number(), record);
    occupied.expect("no page has a slot twice");
    loop {
        match set.index.insert(&set.records, slot, false) {
            Ok(()) => return Some(()),
            Err(InsertError::Full) => set.grow(),
            Err(InsertError::Present) => break,
            Err(error) => panic!("{error:?}"),
        }
    }
    let known = set.index.find(&set.records, record.block);
    let known = known.expect("it is there").slot;
    let before = set.records.record(known).expect("it holds a block");
    if outdates(record, &before).ok()? {
        set.index.replace(&set.records, slot, false);
    }
    Some(())
}

/// Every block is in one place, and no two are in the same.
fn check_places(set: &memory::Set, blocks: &HashSet<u32>) {
    let mut places = HashSet::new();
    for block in blocks {
        let block = Block(*block);
        let found = set.index.find(&set.records, block).expect("it was put in");
        assert!(places.insert(found.slot));
        let size = set.index.block_size();
        let start = size.first_sector(block);
        let layouts = set.layouts.as_slice();
        let len = size.sectors();
        let piece = resolve(
            &set.index,
            &set.records,
            layouts,
            start,
            len,
            Direction::Read,
        );
        assert!(piece.len.0 >= 1 && piece.len <= len);
        match piece.place {
            resolve::Place::Spare { spare, sector } => {
                let start = layouts[spare.get()].expect("it is there");
                let end = set.allocators[spare.get()].capacity().0;
                let end = start.0 + (u64::from(end) << size.shift());
                assert!(start <= sector && sector.0 + piece.len.0 <= end);
            }
            resolve::Place::Missing { spare } => assert!(layouts[spare.get()].is_none()),
            resolve::Place::Dead { slot } => assert_eq!(slot, found.slot),
            resolve::Place::Lost => {}
            resolve::Place::Main | resolve::Place::Moving => panic!("{:?}", piece.place),
        }
    }
}
