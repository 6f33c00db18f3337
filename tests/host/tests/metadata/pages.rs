// SPDX-License-Identifier: GPL-2.0

//! No page with a changed byte is taken for a good one, and of two copies the right one counts.

use dm_remap_host::crc32c::crc32c;
use dm_remap_host::remap::geometry::End;
use dm_remap_host::remap::geometry::EntryIndex;
use dm_remap_host::remap::geometry::PageCount;
use dm_remap_host::remap::geometry::PageNumber;
use dm_remap_host::remap::identity::MainId;
use dm_remap_host::remap::page::check;
use dm_remap_host::remap::page::choose;
use dm_remap_host::remap::page::seal;
use dm_remap_host::remap::page::BothBad;
use dm_remap_host::remap::page::Choice;
use dm_remap_host::remap::page::Damage;
use dm_remap_host::remap::page::Name;
use dm_remap_host::remap::page::Other;
use dm_remap_host::remap::page::Page;
use dm_remap_host::remap::page::Sequence;
use dm_remap_host::remap::page::Subject;
use dm_remap_host::remap::records::Record;
use dm_remap_host::remap::slot_page::entries;
use dm_remap_host::remap::slot_page::entry;
use dm_remap_host::remap::slot_page::examine;
use dm_remap_host::remap::slot_page::moves;
use dm_remap_host::remap::slot_page::replacement_time;
use dm_remap_host::remap::slot_page::same_content;
use dm_remap_host::remap::slot_page::set_entry;
use dm_remap_host::remap::slot_page::set_moves;
use dm_remap_host::remap::slot_page::Extent;
use dm_remap_host::remap::slot_page::Lifetime;
use dm_remap_host::remap::slot_page::Moves;
use dm_remap_host::remap::slot_page::SlotEntry;
use dm_remap_host::remap::superblock::read;
use dm_remap_host::remap::superblock::Pass;
use dm_remap_host::remap::superblock::Progress;
use dm_remap_host::remap::superblock::State;
use dm_remap_host::remap::superblock::Superblock;
use dm_remap_host::remap::superblock::Unusable;
use dm_remap_host::remap::units::Block;
use dm_remap_host::remap::units::Cause;
use dm_remap_host::remap::units::LiveMask;
use dm_remap_host::remap::units::Sector;
use dm_remap_host::remap::units::Sectors;
use dm_remap_host::remap::units::SlotCount;
use dm_remap_host::remap::units::UnixTime;
use proptest::prelude::*;

use crate::metadata::make::block_size;
use crate::metadata::make::index;
use crate::metadata::make::layouts;
use crate::metadata::make::sequence;
use crate::metadata::make::superblock;
use crate::metadata::make::uuid;
use crate::metadata::make::BLANK;
use crate::metadata::make::MAIN;
use crate::metadata::make::SPARE;

fn name(subject: Subject) -> Name {
    Name {
        uuid: uuid(1),
        spare: index(2),
        subject,
    }
}

fn extent() -> Extent {
    Extent {
        block_size: block_size(8),
        main_sectors: MAIN,
    }
}

fn in_use(block: u32, live: u64) -> SlotEntry {
    SlotEntry::InUse(Record {
        block: Block(block),
        live: LiveMask(live),
        time: UnixTime(1_795_400_000),
        cause: Cause::Read,
    })
}

fn at(entry: usize) -> EntryIndex {
    EntryIndex::all()
        .nth(entry)
        .expect("a page has 168 entries")
}

/// A slot page or witness page with a few entries.
fn slot_page(subject: Subject, sequence: Sequence) -> Page {
    let mut page = BLANK;
    set_entry(&mut page, at(0), in_use(7, 0xff));
    set_entry(&mut page, at(100), in_use(8, 0));
    set_entry(&mut page, at(167), SlotEntry::Retired);
    seal(&mut page, &name(subject), sequence, crc32c);
    page
}

fn superblock_page(change: impl FnOnce(&mut Superblock)) -> Page {
    let mut superblock = superblock(&layouts(&[SPARE; 3]), 2);
    change(&mut superblock);
    let mut page = BLANK;
    superblock.encode(&mut page, crc32c);
    page
}

/// Completes the checksum of a page in which something was changed on purpose.
fn with_new_checksum(mut page: Page) -> Page {
    let checksum = crc32c(&page[12..]);
    page[8..12].copy_from_slice(&checksum.to_le_bytes());
    page
}

#[test]
fn every_changed_byte_of_every_class_is_an_error() {
    let number = PageNumber::FIRST;
    let superblock = superblock_page(|_| ());
    let mut pages = vec![(superblock, Subject::Superblock)];
    for subject in [Subject::Slots(number), Subject::Witness(number)] {
        pages.push((slot_page(subject, Sequence::FIRST), subject));
    }
    for (good, subject) in pages {
        assert!(check(&good, &name(subject), crc32c).is_ok());
        for byte in 0..good.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut page = good;
                page[byte] ^= flip;
                let checked = check(&page, &name(subject), crc32c);
                assert!(
                    checked.is_err(),
                    "byte {byte} of {subject:?} changed by {flip:#x}"
                );
                if subject == Subject::Superblock {
                    assert!(Superblock::decode(&page, crc32c).is_err(), "byte {byte}");
                }
            }
        }
    }
}

#[test]
fn a_page_is_good_only_where_it_belongs() {
    let page = slot_page(Subject::Slots(PageNumber::FIRST), Sequence::FIRST);
    let right = name(Subject::Slots(PageNumber::FIRST));
    let next = PageNumber::FIRST.next().unwrap();
    assert_eq!(check(&page, &right, crc32c), Ok(Sequence::FIRST));
    for wrong in [
        Name {
            uuid: uuid(9),
            ..right
        },
        Name {
            spare: index(1),
            ..right
        },
        name(Subject::Slots(next)),
        name(Subject::Witness(PageNumber::FIRST)),
        name(Subject::Superblock),
    ] {
        assert_eq!(
            check(&page, &wrong, crc32c),
            Err(Damage::Misplaced),
            "{wrong:?}"
        );
    }
}

/// Whatever stands in a header or superblock, with a right checksum: it is refused or it is valid,
/// and nothing panics.
#[test]
fn a_bad_header_with_a_right_checksum_is_refused() {
    let good = superblock_page(|_| ());
    let set = |at: usize, bytes: &[u8]| {
        let mut page = good;
        page[at..at + bytes.len()].copy_from_slice(bytes);
        Superblock::decode(&with_new_checksum(page), crc32c).err()
    };
    assert_eq!(set(12, &[2, 0]), Some(Damage::Version(2)));
    assert_eq!(set(14, &[2, 0]), Some(Damage::Misplaced));
    assert_eq!(set(40, &[1]), Some(Damage::Misplaced));
    assert_eq!(set(80, &[0, 1]), Some(Damage::Incompatible(256)));
    let content = |at, bytes: &[u8], what| {
        assert_eq!(set(at, bytes), Some(Damage::Content(what)), "offset {at}");
    };
    content(16, &[0; 16], "uuid");
    content(32, &[0; 8], "sequence number");
    content(39, &[0x80], "sequence number");
    content(44, &[15], "spare index");
    content(45, &[1], "spare index");
    content(46, &[1], "reserved byte in its header");
    content(47, &[1], "reserved byte in its header");
    content(48, &[1], "reserved byte");
    content(63, &[1], "reserved byte");
    content(88, &[0; 8], "size of main");
    // 2^32 blocks of 8 sectors are the most.
    content(88, &[1, 0, 0, 0, 8, 0, 0, 0], "size of main");
    assert_eq!(set(88, &[0, 0, 0, 0, 8, 0, 0, 0]), None);
    content(96, &[1], "layout");
    content(104, &[0; 8], "layout");
    content(116, &[1], "time of creation");
    content(120, &[0], "block_size");
    content(120, &[3], "block_size");
    content(120, &[128], "block_size");
    content(124, &[0], "state");
    content(124, &[3], "state");
    content(126, &[0], "number of spares");
    content(126, &[2], "number of spares");
    content(126, &[16], "number of spares");
    content(128, &[1], "layout");
    content(132, &[1], "layout");
    content(139, &[0x7f], "layout");
    content(140, &[0xff; 4], "mark");
    content(144, &[0xff; 4], "mark");
    content(148, &[2], "auto");
    content(156, &[0; 4], "scan_rate");
    content(160, &[101], "read_retries");
    content(164, &[0; 4], "number of slots of a spare");
    content(172, &[1], "number of slots");
    content(176, &[1], "number of slots of a spare");
    content(224, b"a b", "main_id");
    content(287, b"x", "main_id");
    let pass = "position of the background pass";
    assert_eq!(set(288, &MAIN.0.to_le_bytes()), None);
    content(288, &(MAIN.0 + 1).to_le_bytes(), pass);
    content(295, &[0x80], pass);
    assert_eq!(set(296, &[0xff; 16]), None);
    content(316, &[1], "time of the background pass");
    for byte in [324, 511, 1024, 4095] {
        content(byte, &[1], "reserved byte");
    }
}

/// The first write of a superblock goes to a page of zeros and must be there as a whole or not at
/// all, so all of it lies in one sector.
#[test]
fn the_health_model_has_no_state_before_the_spare_is_ready() {
    let with_health = |state, byte: usize| {
        let mut page = superblock_page(|superblock| superblock.state = state);
        page[byte] = 1;
        Superblock::decode(&with_new_checksum(page), crc32c)
    };
    let damage = Damage::Content("state of the health model");
    for byte in [512, 1023] {
        assert!(with_health(State::Ready, byte).is_ok());
        assert_eq!(with_health(State::Initialising, byte), Err(damage));
    }
    let page = superblock_page(|superblock| {
        superblock.state = State::Initialising;
        superblock.set.progress = Progress {
            pass: Pass::Paused,
            position: Sector(MAIN.0),
            passes: u64::MAX,
            errors: u64::MAX,
            ended: UnixTime(u32::MAX),
        };
        let id = [b'~'; 64];
        superblock.set.main_id = MainId::parse(&id).expect("it is as long as it may be");
    });
    assert!(page[512..].iter().all(|byte| *byte == 0));
}

#[test]
fn what_belongs_to_an_unknown_compatible_feature_is_kept() {
    let mut page = superblock_page(|_| ());
    page[64] = 4;
    page[600] = 0xa5;
    page[4000] = 0x5a;
    let mut page = with_new_checksum(page);
    let mut superblock = Superblock::decode(&page, crc32c).unwrap();
    superblock.sequence = sequence(2);
    superblock.encode(&mut page, crc32c);
    assert_eq!((page[64], page[600], page[4000]), (4, 0xa5, 0x5a));
    assert_eq!(Superblock::decode(&page, crc32c), Ok(superblock));
}

#[test]
fn entries_that_no_writer_makes_are_damage() {
    let mut page = BLANK;
    let bad = |change: &[(usize, u8)]| {
        let mut page = BLANK;
        for (byte, value) in change {
            page[64 + byte] = *value;
        }
        entry(&page, at(0), &extent()).unwrap_err()
    };
    for state in (7..=254).collect::<Vec<u8>>() {
        assert_eq!(bad(&[(20, state)]), Damage::Content("slot state"));
    }
    for byte in (0..20).chain(21..24) {
        for state in [0, 255] {
            let what = "slot entry: it holds nothing but is not zero";
            assert_eq!(
                bad(&[(20, state), (byte, 1)]),
                Damage::Content(what),
                "byte {byte}"
            );
        }
    }
    for byte in 21..24 {
        let what = "reserved byte in a slot entry";
        assert_eq!(bad(&[(20, 1), (byte, 1)]), Damage::Content(what));
    }
    assert_eq!(bad(&[(20, 1), (12, 1)]), Damage::Content("relocation time"));

    // Main ends with 3 sectors of block 125000.
    let last = 125_000;
    let mut read_back = |entry_in: SlotEntry| {
        set_entry(&mut page, at(0), entry_in);
        entry(&page, at(0), &extent())
    };
    assert_eq!(read_back(in_use(last, 0x7)), Ok(in_use(last, 0x7)));
    let beyond = Err(Damage::Content(
        "live mask: it has a sector beyond the block",
    ));
    assert_eq!(read_back(in_use(last, 0x8)), beyond);
    assert_eq!(read_back(in_use(0, 0x100)), beyond);
    let no_block = Err(Damage::Content(
        "block number: it lies beyond the end of main",
    ));
    assert_eq!(read_back(in_use(last + 1, 0)), no_block);
    assert_eq!(read_back(in_use(u32::MAX, 0)), no_block);
}

#[test]
fn an_entry_beyond_the_last_slot_is_damage() {
    let page = slot_page(Subject::Slots(PageNumber::FIRST), Sequence::FIRST);
    let count = |slots| {
        entries(&page, PageNumber::FIRST, SlotCount(slots), &extent())
            .collect::<Result<Vec<_>, _>>()
            .map(|entries| entries.len())
    };
    assert_eq!(count(1000), Ok(168));
    assert_eq!(count(168), Ok(168));
    assert_eq!(
        count(167),
        Err(Damage::Content("slot entry: the spare has no such slot"))
    );
}

/// Whether all of a page is good.
fn good(subject: Subject) -> impl Fn(&Page) -> Result<Sequence, Damage> {
    move |page| examine(page, &name(subject), SlotCount(168), &extent(), crc32c)
}

/// What choosing between copies with these sequence numbers gives; `None` is a torn copy.
fn choose_of(front: Option<u64>, back: Option<u64>) -> Result<Choice, BothBad> {
    let subject = Subject::Slots(PageNumber::FIRST);
    let copy = |number: Option<u64>| match number {
        Some(number) => slot_page(subject, sequence(number)),
        None => {
            let mut page = slot_page(subject, sequence(3));
            page[2048..].fill(0);
            page
        }
    };
    choose(Some(&copy(front)), Some(&copy(back)), good(subject))
}

#[test]
fn of_two_copies_the_newest_good_one_counts() {
    let chosen = |newest, number, other| {
        Ok(Choice {
            newest,
            sequence: sequence(number),
            other,
        })
    };
    let torn = Damage::Checksum;
    let (same, older, bad) = (Other::Same, Other::Older, Other::Bad(torn));
    assert_eq!(choose_of(Some(5), Some(5)), chosen(End::Front, 5, same));
    assert_eq!(choose_of(Some(6), Some(5)), chosen(End::Front, 6, older));
    assert_eq!(choose_of(Some(5), Some(6)), chosen(End::Back, 6, older));
    assert_eq!(choose_of(None, Some(6)), chosen(End::Back, 6, bad));
    assert_eq!(choose_of(Some(5), None), chosen(End::Front, 5, bad));
    assert_eq!(
        choose_of(None, None),
        Err(BothBad {
            front: torn,
            back: torn
        })
    );
}

#[test]
fn a_copy_that_cannot_be_read_is_a_bad_one() {
    let subject = Subject::Witness(PageNumber::FIRST);
    let page = slot_page(subject, Sequence::FIRST);
    let chosen = choose(None, Some(&page), good(subject)).unwrap();
    let unreadable = Other::Bad(Damage::Unreadable);
    assert_eq!((chosen.newest, chosen.other), (End::Back, unreadable));
    let bad = choose(None, Some(&BLANK), good(subject)).unwrap_err();
    assert_eq!((bad.front, bad.back), (Damage::Unreadable, Damage::Zero));
}

#[test]
fn two_contents_with_one_sequence_number_are_damage() {
    let subject = Subject::Slots(PageNumber::FIRST);
    let front = slot_page(subject, Sequence::FIRST);
    let mut back = front;
    set_entry(&mut back, at(50), SlotEntry::Retired);
    seal(&mut back, &name(subject), Sequence::FIRST, crc32c);
    assert!(choose(Some(&front), Some(&back), good(subject)).is_err());
}

/// A bad entry makes a copy as bad as a wrong checksum does, whether the copy is newer or as old.
#[test]
fn a_copy_with_a_bad_entry_does_not_count() {
    let subject = Subject::Slots(PageNumber::FIRST);
    let good_one = slot_page(subject, sequence(5));
    let bad_one = |number| {
        let mut page = good_one;
        page[64 + 20] = 7;
        seal(&mut page, &name(subject), sequence(number), crc32c);
        page
    };
    let damage = Damage::Content("slot state");
    for number in [4, 5, 6] {
        let bad_one = bad_one(number);
        for (front, back, newest) in [
            (&bad_one, &good_one, End::Back),
            (&good_one, &bad_one, End::Front),
        ] {
            let choice = choose(Some(front), Some(back), good(subject));
            let expected = Choice {
                newest,
                sequence: sequence(5),
                other: Other::Bad(damage),
            };
            assert_eq!(choice, Ok(expected), "{number}");
        }
        let both = choose(Some(&bad_one), Some(&bad_one), good(subject));
        let (front, back) = (damage, damage);
        assert_eq!(both, Err(BothBad { front, back }));
    }
}

#[test]
fn what_is_counted_comes_back_and_stops_at_the_highest_number() {
    let subject = Subject::Slots(PageNumber::FIRST);
    let mut page = slot_page(subject, Sequence::FIRST);
    let examine = |page: &Page| good(subject)(page);
    assert_eq!(moves(&page), Moves::default());
    let automatic = [Cause::Read, Cause::Write, Cause::Scan, Cause::Spare];
    let asked_for = [Cause::Message, Cause::Import];
    let relocations = automatic
        .iter()
        .chain(&asked_for)
        .map(|cause| Moves::relocation(*cause));
    let counted = relocations
        .chain([Moves::REMOVAL])
        .fold(Moves::default(), Moves::and);
    let expected = Moves {
        relocated: 6,
        automatic: 4,
        removed: 1,
    };
    assert_eq!(counted, expected);
    set_moves(&mut page, counted);
    seal(&mut page, &name(subject), Sequence::FIRST, crc32c);
    assert_eq!(examine(&page), Ok(Sequence::FIRST));
    assert_eq!(moves(&page), counted);

    let most = Moves {
        relocated: u32::MAX,
        automatic: u32::MAX,
        removed: u32::MAX,
    };
    assert_eq!(most.and(counted), most);
    let mut all = Lifetime::default();
    all.add(most);
    all.add(counted);
    assert_eq!((all.relocated, all.removed), ((1 << 32) + 5, 1 << 32));

    set_moves(
        &mut page,
        Moves {
            automatic: 7,
            ..expected
        },
    );
    seal(&mut page, &name(subject), Sequence::FIRST, crc32c);
    let damage = Damage::Content("number of relocated blocks");
    assert_eq!(examine(&page), Err(damage));
    page[60] = 1;
    set_moves(&mut page, expected);
    seal(&mut page, &name(subject), Sequence::FIRST, crc32c);
    assert_eq!(examine(&page), Err(Damage::Content("reserved byte")));
}

/// A witness page says the same as the slot page that it stands for, under another name.
#[test]
fn contents_are_compared_without_their_names() {
    let [slots, witness] =
        [Subject::Slots, Subject::Witness].map(|subject| subject(PageNumber::FIRST));
    let page = slot_page(slots, sequence(7));
    assert!(same_content(&page, &slot_page(witness, sequence(8))));
    for at in [48, 64, 4095] {
        let mut other = page;
        other[at] ^= 1;
        assert!(!same_content(&page, &other), "byte {at}");
    }
}

#[test]
fn the_superblocks_of_a_spare_are_blank_good_or_refused() {
    let ready = superblock_page(|superblock| superblock.sequence = sequence(2));
    let begun = superblock_page(|superblock| superblock.state = State::Initialising);
    let mut foreign = BLANK;
    foreign[1080] = 0x53;
    let mut newer = ready;
    newer[80] = 1;
    let newer = with_new_checksum(newer);
    let mut other = ready;
    other[16] ^= 1;
    let other = with_new_checksum(other);
    let read = |front: &Page, back: &Page| read(Some(front), Some(back), crc32c);

    assert_eq!(read(&BLANK, &BLANK), Ok(None));
    for (front, back, newest) in [
        (&ready, &BLANK, End::Front),
        (&ready, &foreign, End::Front),
        (&begun, &ready, End::Back),
        (&ready, &begun, End::Front),
    ] {
        let found = read(front, back).unwrap().unwrap();
        assert_eq!(found.superblock.state, State::Ready);
        assert_eq!((found.choice.newest, found.choice.repair()), (newest, true));
    }
    for (front, back) in [(&begun, &BLANK), (&BLANK, &begun), (&begun, &begun)] {
        let found = read(front, back).unwrap().unwrap();
        assert_eq!(found.superblock.state, State::Initialising);
    }
    // Somebody's data is refused, however little of it there is, and so is a newer format even when
    // the other copy is an old good one.
    for (front, back) in [(&foreign, &BLANK), (&BLANK, &foreign), (&foreign, &foreign)] {
        assert!(matches!(read(front, back), Err(Unusable::BothBad(_))));
    }
    for (front, back) in [(&begun, &foreign), (&foreign, &begun)] {
        assert_eq!(read(front, back), Err(Unusable::Overwritten(Damage::Magic)));
    }
    for (front, back) in [(&newer, &ready), (&ready, &newer)] {
        assert_eq!(
            read(front, back),
            Err(Unusable::TooNew(Damage::Incompatible(1)))
        );
    }
    assert!(matches!(read(&other, &ready), Err(Unusable::BothBad(_))));
}

#[test]
fn a_spare_that_cannot_be_read_is_not_blank() {
    for (front, back) in [(None, Some(&BLANK)), (Some(&BLANK), None), (None, None)] {
        assert!(matches!(
            read(front, back, crc32c),
            Err(Unusable::BothBad(_))
        ));
    }
}

#[test]
fn a_replacement_wins_also_when_the_clock_stands_still() {
    let time = UnixTime(100);
    assert_eq!(replacement_time(time, UnixTime(100)), Some(UnixTime(101)));
    assert_eq!(replacement_time(time, UnixTime(7)), Some(UnixTime(101)));
    assert_eq!(replacement_time(time, UnixTime(500)), Some(UnixTime(500)));
    assert_eq!(replacement_time(UnixTime(u32::MAX), UnixTime(0)), None);
}

fn any_cause() -> impl Strategy<Value = Cause> {
    prop::sample::select(vec![
        Cause::Read,
        Cause::Write,
        Cause::Scan,
        Cause::Message,
        Cause::Import,
        Cause::Spare,
    ])
}

proptest! {
    #[test]
    fn entries_come_back_as_they_were_set(
        set in prop::collection::btree_map(0usize..168, (0u32..125_001, any::<u64>(), any::<u32>(), any_cause()), 0..168),
    ) {
        let mut page = BLANK;
        let mut expected = vec![SlotEntry::Free; 168];
        for (place, (block, live, time, cause)) in set {
            let block = Block(block);
            let live = LiveMask(live & extent().all_live(block).0);
            expected[place] = SlotEntry::InUse(Record { block, live, time: UnixTime(time), cause });
            set_entry(&mut page, at(place), expected[place]);
        }
        let read: Vec<_> = entries(&page, PageNumber::FIRST, SlotCount(168), &extent())
            .map(|entry| entry.unwrap().1)
            .collect();
        prop_assert_eq!(read, expected);
    }

    /// Arbitrary bytes in a page with a right header and checksum.
    #[test]
    fn hostile_entries_never_panic(body in prop::collection::vec(any::<u8>(), 4032), main in 1u64..1 << 38) {
        let mut page = BLANK;
        page[64..].copy_from_slice(&body);
        seal(&mut page, &name(Subject::Slots(PageNumber::FIRST)), Sequence::FIRST, crc32c);
        let extent = Extent { block_size: block_size(64), main_sectors: Sectors(main) };
        for (_, entry) in entries(&page, PageNumber::FIRST, SlotCount(168), &extent).flatten() {
            if let SlotEntry::InUse(record) = entry {
                prop_assert!(u64::from(record.block.0) * 64 < main);
                prop_assert!(extent.all_live(record.block).contains(record.live));
            }
        }
    }

    /// Arbitrary changes of a superblock, with a right checksum: what is accepted is consistent.
    #[test]
    fn hostile_superblocks_never_panic(changes in prop::collection::vec((12usize..324, any::<u8>()), 1..6)) {
        let mut page = superblock_page(|_| ());
        for (byte, value) in changes {
            page[byte] = value;
        }
        if let Ok(superblock) = Superblock::decode(&with_new_checksum(page), crc32c) {
            prop_assert!(superblock.set.spares.contains(superblock.spare));
            prop_assert!(superblock.slot_mark <= superblock.layout.slot_pages());
            prop_assert!(superblock.witness_mark <= superblock.layout.witness_pages());
            for page in superblock.layout.slot_pages().pages() {
                for end in [End::Front, End::Back] {
                    let place = superblock.layout.slot_page(page, end).unwrap();
                    prop_assert!(place.0 + 8 <= superblock.layout.parts().spare_sectors.0);
                }
            }
        }
    }

    #[test]
    fn superblocks_come_back_as_they_were(
        number in 1u64..i64::MAX as u64,
        ready in any::<bool>(),
        slot_mark in 0u32..=2,
        witness_mark in 0u32..=2,
        automatic in any::<bool>(),
        interval in any::<u32>(),
        (position, passes, errors, ended) in (0..=MAIN.0, any::<u64>(), any::<u64>(), any::<u32>()),
        pass in prop::sample::select(vec![Pass::None, Pass::Running, Pass::Paused]),
        id in "[!-~]{0,64}",
    ) {
        let mut original = superblock(&layouts(&[SPARE; 3]), 2);
        original.sequence = sequence(number);
        original.state = if ready { State::Ready } else { State::Initialising };
        original.slot_mark = PageCount(slot_mark);
        original.witness_mark = PageCount(witness_mark);
        original.set.options.automatic = automatic;
        original.set.options.scan_interval.0 = interval;
        let (position, ended) = (Sector(position), UnixTime(ended));
        original.set.progress = Progress { pass, position, passes, errors, ended };
        if let Some(id) = MainId::parse(id.as_bytes()) {
            original.set.main_id = id;
        }
        let mut page = BLANK;
        original.encode(&mut page, crc32c);
        prop_assert_eq!(Superblock::decode(&page, crc32c), Ok(original));
    }
}
