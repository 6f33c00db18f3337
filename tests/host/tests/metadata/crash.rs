// SPDX-License-Identifier: GPL-2.0

//! The orders of writing of `docs/metadata.md`, cut off at every step: at no instant is there a
//! state of the media from which the last acknowledged state cannot be read.
//!
//! A disk here may keep any part of what was written since its last flush, sector by sector.

use std::collections::BTreeMap;

use dm_remap_host::crc32c::crc32c;
use dm_remap_host::remap::assembly::assemble;
use dm_remap_host::remap::assembly::Assembly;
use dm_remap_host::remap::assembly::Existing;
use dm_remap_host::remap::assembly::Member;
use dm_remap_host::remap::assembly::New;
use dm_remap_host::remap::assembly::Place;
use dm_remap_host::remap::assembly::Wanted;
use dm_remap_host::remap::geometry::superblock_place;
use dm_remap_host::remap::geometry::End;
use dm_remap_host::remap::geometry::EntryIndex;
use dm_remap_host::remap::geometry::Layout;
use dm_remap_host::remap::geometry::PageCount;
use dm_remap_host::remap::geometry::PageNumber;
use dm_remap_host::remap::page::check;
use dm_remap_host::remap::page::choose;
use dm_remap_host::remap::page::seal;
use dm_remap_host::remap::page::Name;
use dm_remap_host::remap::page::Page;
use dm_remap_host::remap::page::Sequence;
use dm_remap_host::remap::page::Subject;
use dm_remap_host::remap::records::Record;
use dm_remap_host::remap::slot_page::entries;
use dm_remap_host::remap::slot_page::set_entry;
use dm_remap_host::remap::slot_page::Extent;
use dm_remap_host::remap::slot_page::SlotEntry;
use dm_remap_host::remap::superblock::read;
use dm_remap_host::remap::superblock::Found;
use dm_remap_host::remap::superblock::Set;
use dm_remap_host::remap::superblock::State;
use dm_remap_host::remap::superblock::Superblock;
use dm_remap_host::remap::superblock::Unusable;
use dm_remap_host::remap::units::Block;
use dm_remap_host::remap::units::BlockSize;
use dm_remap_host::remap::units::Cause;
use dm_remap_host::remap::units::LiveMask;
use dm_remap_host::remap::units::Sectors;
use dm_remap_host::remap::units::SpareIndex;
use dm_remap_host::remap::units::SpareSector;
use dm_remap_host::remap::units::UnixTime;
use proptest::prelude::*;
use proptest::test_runner::TestRng;

use crate::metadata::make::block_size;
use crate::metadata::make::index;
use crate::metadata::make::layouts;
use crate::metadata::make::sequence;
use crate::metadata::make::set;
use crate::metadata::make::superblock;
use crate::metadata::make::BLANK;
use crate::metadata::make::MAIN;
use crate::metadata::make::SPARE;

const SECTOR: usize = 512;

type Sector = [u8; SECTOR];

/// A disk with a volatile cache.
#[derive(Clone)]
struct Disk {
    size: Sectors,
    stable: BTreeMap<u64, Sector>,
    cached: Vec<(u64, Sector)>,
}

impl Disk {
    /// A disk that is all zero.
    fn blank(size: Sectors) -> Self {
        Self {
            size,
            stable: BTreeMap::new(),
            cached: Vec::new(),
        }
    }

    fn write(&mut self, place: SpareSector, page: &Page) {
        for (sector, bytes) in (place.0..).zip(page.chunks_exact(SECTOR)) {
            self.cached
                .push((sector, bytes.try_into().expect("a sector")));
        }
    }

    fn flush(&mut self) {
        self.stable.extend(self.cached.drain(..));
    }

    /// The power goes: of what is cached, any part is kept.
    fn lose_power(&mut self, random: &mut TestRng) {
        for (sector, bytes) in std::mem::take(&mut self.cached) {
            if random.gen_bool(0.5) {
                self.stable.insert(sector, bytes);
            }
        }
    }

    fn read(&self, place: SpareSector) -> Page {
        assert!(
            self.cached.is_empty(),
            "a test reads after a flush or a crash"
        );
        let mut page = BLANK;
        for (sector, bytes) in (place.0..).zip(page.chunks_exact_mut(SECTOR)) {
            if let Some(stable) = self.stable.get(&sector) {
                bytes.copy_from_slice(stable);
            }
        }
        page
    }
}

/// One step of writing.
#[derive(Clone)]
enum Step {
    Write(usize, SpareSector, Box<Page>),
    Flush(usize),
}

fn run(disks: &mut [Disk], steps: &[Step]) {
    for step in steps {
        match step {
            Step::Write(disk, place, page) => disks[*disk].write(*place, page),
            Step::Flush(disk) => disks[*disk].flush(),
        }
    }
}

/// Runs the steps before number `cut`, then the power goes.
fn run_until(disks: &mut [Disk], steps: &[Step], cut: usize, random: &mut TestRng) {
    run(disks, &steps[..cut.min(steps.len())]);
    for disk in disks {
        disk.lose_power(random);
    }
}

/// "One page": copy A, flush, copy B, flush.
fn one_page(disk: usize, places: [SpareSector; 2], page: Page) -> Vec<Step> {
    let write = |place| [Step::Write(disk, place, page.into()), Step::Flush(disk)];
    places.into_iter().flat_map(write).collect()
}

const ENDS: [End; 2] = [End::Front, End::Back];

/// The numbers that superblocks get: each one more than the highest of the set.
struct Writer {
    sequence: u64,
}

impl Writer {
    fn superblock(&mut self, mut superblock: Superblock) -> Vec<Step> {
        self.sequence += 1;
        superblock.sequence = sequence(self.sequence);
        let mut page = BLANK;
        superblock.encode(&mut page, crc32c);
        let places = ENDS.map(|end| superblock.layout.superblock(end));
        one_page(superblock.spare.get(), places, page)
    }
}

/// The steps that make a new set.
fn make_set(new: &New) -> Vec<Step> {
    let layouts: Vec<Layout> = new.layouts.iter().flatten().copied().collect();
    let mut set = set(&layouts);
    set.uuid = new.uuid.unwrap_or(set.uuid);
    let mut writer = Writer {
        sequence: new.sequence.map_or(0, Sequence::get),
    };
    let mut steps = Vec::new();
    for state in [State::Initialising, State::Ready] {
        for (spare, layout) in layouts.iter().enumerate() {
            steps.extend(writer.superblock(fresh(spare, *layout, set, state)));
        }
    }
    steps
}

fn fresh(spare: usize, layout: Layout, set: Set, state: State) -> Superblock {
    Superblock {
        sequence: Sequence::FIRST,
        spare: index(spare),
        state,
        layout,
        slot_mark: PageCount::ZERO,
        witness_mark: PageCount::ZERO,
        set,
    }
}

/// The steps that complete a set: interrupted spares are initialised, one is added, superblocks
/// are brought up to date.
fn complete(existing: &Existing<'_>, disks: &[Disk]) -> Vec<Step> {
    let mut writer = Writer {
        sequence: existing.sequence.get(),
    };
    let members = || existing.members.iter().flatten().enumerate();
    let mut unready = Vec::new();
    let mut steps = Vec::new();
    for (spare, member) in members() {
        let Member::Ready { superblock, .. } = member else {
            continue;
        };
        if existing.added.is_some() {
            let places = ENDS.map(|end| superblock.layout.superblock(end));
            let page = newest_superblock(&disks[spare]);
            steps.extend(one_page(spare, places, page));
        }
    }
    for (spare, member) in members() {
        let Member::Fresh(layout) = member else {
            continue;
        };
        let mut superblock = fresh(spare, *layout, existing.set, State::Initialising);
        steps.extend(writer.superblock(superblock));
        // The witness of the spare before it, which is a member already unless the set is new.
        let before = spare.checked_sub(1).map(|before| &existing.members[before]);
        if let Some(Some(Member::Ready {
            superblock: before, ..
        })) = before
        {
            superblock.witness_mark = before.slot_mark;
            for number in before.slot_mark.pages() {
                let (page, sequence) = read_slot_page(&disks[spare - 1], before, number);
                let page = renamed(page, before, Subject::Witness(number), sequence);
                steps.push(Step::Write(
                    spare,
                    layout.witness_page(number).unwrap(),
                    page.into(),
                ));
            }
            steps.push(Step::Flush(spare));
            steps.extend(writer.superblock(superblock));
        }
        unready.push(superblock);
    }
    for (spare, member) in members() {
        if let Member::Ready {
            superblock,
            behind: true,
            ..
        } = member
        {
            let mut superblock = **superblock;
            if spare == 0 && superblock.set.spares != existing.set.spares {
                superblock.witness_mark = PageCount::ZERO;
            }
            superblock.set = existing.set;
            steps.extend(writer.superblock(superblock));
            if superblock.state == State::Initialising {
                unready.push(superblock);
            }
        }
    }
    for mut superblock in unready {
        superblock.state = State::Ready;
        steps.extend(writer.superblock(superblock));
    }
    steps
}

/// The superblock page that counts, as a reader finds it.
fn newest_superblock(disk: &Disk) -> Page {
    let [front, back] = ENDS.map(|end| disk.read(superblock_place(disk.size, end).unwrap()));
    let found = read(Some(&front), Some(&back), crc32c);
    match found
        .expect("it is usable")
        .expect("it is not blank")
        .choice
        .newest
    {
        End::Front => front,
        End::Back => back,
    }
}

fn renamed(mut page: Page, of: &Superblock, subject: Subject, sequence: Sequence) -> Page {
    let name = Name {
        uuid: of.set.uuid,
        spare: of.spare,
        subject,
    };
    seal(&mut page, &name, sequence, crc32c);
    page
}

/// The slot page that counts, as a reader finds it.
fn read_slot_page(disk: &Disk, of: &Superblock, number: PageNumber) -> (Page, Sequence) {
    let [front, back] = ENDS.map(|end| disk.read(of.layout.slot_page(number, end).unwrap()));
    let name = Name {
        uuid: of.set.uuid,
        spare: of.spare,
        subject: Subject::Slots(number),
    };
    let choice = choose(Some(&front), Some(&back), |page| check(page, &name, crc32c))
        .expect("one copy is good");
    let page = match choice.newest {
        End::Front => front,
        End::Back => back,
    };
    (page, choice.sequence)
}

type Reading = Result<Option<Found>, Unusable>;

fn read_disks(disks: &[Disk]) -> Vec<Reading> {
    let read = |disk: &Disk| {
        let [front, back] = ENDS.map(|end| disk.read(superblock_place(disk.size, end).unwrap()));
        read(Some(&front), Some(&back), crc32c)
    };
    disks.iter().map(read).collect()
}

fn places<'a>(readings: &'a [Reading], disks: &[Disk]) -> Vec<Place<'a>> {
    let place = |(found, disk): (&'a Reading, &Disk)| Place::Device {
        size: disk.size,
        found,
    };
    readings.iter().zip(disks).map(place).collect()
}

const WANTED: Wanted = Wanted {
    main_sectors: MAIN,
    default_block_size: BlockSize::DEFAULT,
    block_size: None,
    main_id: None,
    uuid: None,
    read_only: false,
};

fn assembled<'a>(readings: &'a [Reading], disks: &[Disk]) -> Assembly<'a> {
    assemble(&places(readings, disks), &WANTED).unwrap_or_else(|refusal| panic!("{refusal}"))
}

/// The steps that are left for whoever finds these disks, and whether the set is in use.
fn steps_left(disks: &[Disk]) -> Vec<Step> {
    match assembled(&read_disks(disks), disks) {
        Assembly::New(new) => make_set(&new),
        Assembly::Existing(existing) => complete(&existing, disks),
    }
}

/// A set of `count` spares, completely made.
fn made(count: usize) -> Vec<Disk> {
    let mut disks = vec![Disk::blank(SPARE); count];
    let steps = steps_left(&disks);
    run(&mut disks, &steps);
    disks
}

fn is_complete(disks: &[Disk]) -> bool {
    match assembled(&read_disks(disks), disks) {
        Assembly::New(_) => false,
        Assembly::Existing(existing) => existing
            .members
            .iter()
            .flatten()
            .all(|member| matches!(member, Member::Ready { behind: false, choice, .. } if !choice.repair())),
    }
}

/// A slot page of spare `spare` with `blocks` in its first slots, written completely after its
/// witness page, and the marks.
fn use_slots(disks: &mut [Disk], spare: usize, blocks: &[u32]) {
    let readings = read_disks(disks);
    let Assembly::Existing(existing) = assembled(&readings, disks) else {
        panic!("the set was made");
    };
    let superblock = |spare: SpareIndex| match existing.members[spare.get()] {
        Some(Member::Ready { superblock, .. }) => *superblock,
        _ => panic!("the set was made"),
    };
    let mut writer = Writer {
        sequence: existing.sequence.get(),
    };
    let mut own = superblock(index(spare));
    let mut page = BLANK;
    for (at, block) in EntryIndex::all().zip(blocks) {
        set_entry(&mut page, at, in_use(*block));
    }
    let number = PageNumber::FIRST;
    if let Some(witness) = existing.set.spares.witness_of(own.spare) {
        let mut superblock = superblock(witness);
        let page = renamed(page, &own, Subject::Witness(number), Sequence::FIRST);
        let place = superblock.layout.witness_page(number).unwrap();
        superblock.witness_mark = PageCount(1);
        run(
            disks,
            &[
                Step::Write(witness.get(), place, page.into()),
                Step::Flush(witness.get()),
            ],
        );
        run(disks, &writer.superblock(superblock));
    }
    let page = renamed(page, &own, Subject::Slots(number), Sequence::FIRST);
    let places = ENDS.map(|end| own.layout.slot_page(number, end).unwrap());
    own.slot_mark = PageCount(1);
    run(disks, &one_page(spare, places, page));
    run(disks, &writer.superblock(own));
}

fn in_use(block: u32) -> SlotEntry {
    SlotEntry::InUse(Record {
        block: Block(block),
        live: LiveMask(0xff),
        time: UnixTime(1),
        cause: Cause::Message,
    })
}

/// The blocks in a slot page or witness page.
fn blocks_in(page: &Page, of: &Superblock) -> Vec<u32> {
    let extent = Extent {
        block_size: block_size(8),
        main_sectors: MAIN,
    };
    entries(page, PageNumber::FIRST, of.layout.slots(), &extent)
        .filter_map(|entry| match entry.expect("the entries are good").1 {
            SlotEntry::InUse(record) => Some(record.block.0),
            SlotEntry::Free | SlotEntry::Retired => None,
        })
        .collect()
}

proptest! {
    /// The last acknowledged page is found after a crash at any step of the next update, or of the
    /// repair that follows it.
    #[test]
    fn an_update_is_there_as_a_whole_or_not_at_all(cuts in prop::collection::vec(0usize..5, 1..8), seed in any::<[u8; 32]>()) {
        let random = &mut TestRng::from_seed(prop::test_runner::RngAlgorithm::ChaCha, &seed);
        let layouts = layouts(&[SPARE]);
        let superblock = superblock(&layouts, 0);
        let number = PageNumber::FIRST;
        let places = ENDS.map(|end| superblock.layout.slot_page(number, end).unwrap());
        let page = |version: u32| {
            let mut page = BLANK;
            set_entry(&mut page, EntryIndex::all().next().unwrap(), in_use(version));
            // Far from the first sector, so that a torn copy holds parts of both versions.
            set_entry(&mut page, EntryIndex::all().last().unwrap(), in_use(version));
            renamed(page, &superblock, Subject::Slots(number), sequence(version.into()))
        };

        let mut disks = vec![Disk::blank(SPARE)];
        let mut acknowledged = 1;
        run(&mut disks, &one_page(0, places, page(1)));
        for cut in cuts {
            let next = acknowledged + 1;
            let steps = one_page(0, places, page(next));
            run_until(&mut disks, &steps, cut, random);
            let (found, number_found) = read_slot_page(&disks[0], &superblock, number);
            let version = number_found.get() as u32;
            prop_assert!(version == acknowledged || version == next);
            if cut >= 2 {
                // Copy A was flushed.
                prop_assert_eq!(version, next);
            }
            prop_assert!(found == page(version));
            // The reader repairs, and may be cut off as well.
            let [front, back] = ENDS.map(|end| disks[0].read(superblock.layout.slot_page(number, end).unwrap()));
            for (at, copy) in [(0, front), (1, back)] {
                if copy != found {
                    let repair = [Step::Write(0, places[at], found.into()), Step::Flush(0)];
                    run_until(&mut disks, &repair, 1, random);
                    prop_assert_eq!(read_slot_page(&disks[0], &superblock, number).1, number_found);
                    run(&mut disks, &repair);
                }
            }
            acknowledged = version;
        }
    }

    /// The same of a superblock that is ready, also when not all that changes in it is in one sector.
    #[test]
    fn a_superblock_is_there_as_a_whole_or_not_at_all(cuts in prop::collection::vec(0usize..5, 1..8), seed in any::<[u8; 32]>()) {
        let random = &mut TestRng::from_seed(prop::test_runner::RngAlgorithm::ChaCha, &seed);
        let mut disks = made(1);
        let layouts = layouts(&[SPARE]);
        let first = 10;
        let steps = |version: u8| {
            let mut superblock = superblock(&layouts, 0);
            superblock.sequence = sequence(version.into());
            superblock.set.progress.passes = version.into();
            let mut page = BLANK;
            // The state of the health model.
            page[512..1024].fill(version);
            superblock.encode(&mut page, crc32c);
            one_page(0, ENDS.map(|end| superblock.layout.superblock(end)), page)
        };
        let mut acknowledged = first;
        run(&mut disks, &steps(first));
        for cut in cuts {
            let next = acknowledged + 1;
            run_until(&mut disks, &steps(next), cut, random);
            let found = read_disks(&disks)[0].expect("it is usable").expect("it is not blank");
            let page = newest_superblock(&disks[0]);
            let version = found.superblock.set.progress.passes as u8;
            prop_assert!(version == next || version == acknowledged && cut < 2);
            prop_assert!(page[512..1024] == [version; 512]);
            if found.choice.repair() {
                let to = superblock_place(SPARE, found.choice.newest.other()).unwrap();
                let repair = [Step::Write(0, to, page.into()), Step::Flush(0)];
                run_until(&mut disks, &repair, 1, random);
                prop_assert_eq!(read_disks(&disks)[0].unwrap().unwrap().superblock, found.superblock);
                run(&mut disks, &repair);
            }
            acknowledged = version;
        }
    }

    /// The making of a set may be cut off at any step, again and again, and can always be repeated.
    #[test]
    fn an_interrupted_making_is_never_taken_for_anything_else(
        count in 1usize..=4,
        cuts in prop::collection::vec(0usize..64, 0..6),
        seed in any::<[u8; 32]>(),
    ) {
        let random = &mut TestRng::from_seed(prop::test_runner::RngAlgorithm::ChaCha, &seed);
        let mut disks = vec![Disk::blank(SPARE); count];
        for cut in cuts {
            let steps = steps_left(&disks);
            run_until(&mut disks, &steps, cut % (steps.len() + 1), random);
        }
        let steps = steps_left(&disks);
        run(&mut disks, &steps);
        // What was complete may still have one copy to repair.
        let steps = repairs(&disks);
        run(&mut disks, &steps);
        prop_assert!(is_complete(&disks));
    }

    /// So may the adding of a spare: the blocks of the set stay what they are, and what one spare
    /// holds is known without it. The new one may be given up for another one meanwhile.
    #[test]
    fn an_interrupted_adding_loses_nothing(
        count in 1usize..=3,
        blocks in prop::collection::vec(0u32..1000, 1..20),
        cuts in prop::collection::vec((0usize..64, prop::option::weighted(0.2, 1u64..4)), 0..6),
        seed in any::<[u8; 32]>(),
    ) {
        let random = &mut TestRng::from_seed(prop::test_runner::RngAlgorithm::ChaCha, &seed);
        let mut disks = made(count);
        for spare in 0..count {
            use_slots(&mut disks, spare, &blocks);
        }
        disks.push(Disk::blank(SPARE));
        let mut lost = false;
        for (cut, another) in cuts {
            let steps = steps_left(&disks);
            run_until(&mut disks, &steps, cut % (steps.len() + 1), random);
            check_blocks(&disks, &blocks);
            for missing in (0..count).filter(|_| count > 1 && !lost) {
                check_blocks_without(&disks, missing, &blocks);
            }
            if let Some(size) = another {
                disks[count] = Disk::blank(Sectors(SPARE.0 * size));
                // With one spare more than that there is none that knows all.
                lost = true;
            }
        }
        let steps = steps_left(&disks);
        run(&mut disks, &steps);
        let steps = repairs(&disks);
        run(&mut disks, &steps);
        prop_assert!(is_complete(&disks));
        check_blocks(&disks, &blocks);

        // With one spare, the new one is its witness: it knows the same blocks without it.
        let readings = read_disks(&disks);
        let [first, last] = [0, count].map(|spare| readings[spare].unwrap().unwrap().superblock);
        prop_assert_eq!(last.set.spares.get(), count + 1);
        prop_assert_eq!(first.witness_mark, PageCount::ZERO);
        if count == 1 {
            prop_assert_eq!(last.witness_mark, PageCount(1));
            let page = disks[1].read(last.layout.witness_page(PageNumber::FIRST).unwrap());
            prop_assert_eq!(blocks_in(&page, &first), blocks);
        }
    }
}

/// Reads the blocks on a spare that is missing, as they are found with the spare that is being
/// added or without that, and compares them.
fn check_blocks_without(disks: &[Disk], missing: usize, blocks: &[u32]) {
    let readings = read_disks(disks);
    let mut known = false;
    for given in [disks.len() - 1, disks.len()] {
        let mut places = places(&readings, disks);
        places[missing] = Place::Missing;
        let Ok(assembly) = assemble(&places[..given], &WANTED) else {
            continue;
        };
        let Assembly::Existing(existing) = assembly else {
            panic!("the set was made");
        };
        let Some(Member::Missing { witness, .. }) = existing.members[missing] else {
            panic!("the spare is missing");
        };
        let Some(Member::Ready { superblock, .. }) = existing.members[witness.get()] else {
            panic!("its witness is there");
        };
        assert_eq!(superblock.witness_mark, PageCount(1));
        let place = superblock.layout.witness_page(PageNumber::FIRST).unwrap();
        let page = disks[witness.get()].read(place);
        let mut of = *superblock;
        of.spare = index(missing);
        let name = Name {
            uuid: of.set.uuid,
            spare: of.spare,
            subject: Subject::Witness(PageNumber::FIRST),
        };
        check(&page, &name, crc32c).expect("the witness page is good");
        assert_eq!(blocks_in(&page, &of), blocks);
        known = true;
    }
    assert!(known, "what spare {missing} holds is known to nobody");
}

/// Reads the blocks on spare 0 and compares them.
fn check_blocks(disks: &[Disk], blocks: &[u32]) {
    let readings = read_disks(disks);
    let found = readings[0]
        .expect("spare 0 is good")
        .expect("spare 0 is not blank");
    let (page, _) = read_slot_page(&disks[0], &found.superblock, PageNumber::FIRST);
    assert_eq!(blocks_in(&page, &found.superblock), blocks);
}

/// The writing of bad or old copies of superblocks from the other ones.
fn repairs(disks: &[Disk]) -> Vec<Step> {
    let mut steps = Vec::new();
    for (spare, (reading, disk)) in read_disks(disks).into_iter().zip(disks).enumerate() {
        let found = reading
            .expect("the spare is good")
            .expect("the spare is not blank");
        if found.choice.repair() {
            let layout = found.superblock.layout;
            let page = disk.read(layout.superblock(found.choice.newest));
            steps.push(Step::Write(
                spare,
                layout.superblock(found.choice.newest.other()),
                page.into(),
            ));
            steps.push(Step::Flush(spare));
        }
    }
    steps
}
