// SPDX-License-Identifier: GPL-2.0

//! Only the spares of one set, complete and in order, are used, and every refusal says why.

use dm_remap_host::crc32c::crc32c;
use dm_remap_host::remap::assembly::assemble;
use dm_remap_host::remap::assembly::Assembly;
use dm_remap_host::remap::assembly::Existing;
use dm_remap_host::remap::assembly::Member;
use dm_remap_host::remap::assembly::New;
use dm_remap_host::remap::assembly::Place;
use dm_remap_host::remap::assembly::Refusal;
use dm_remap_host::remap::assembly::Wanted;
use dm_remap_host::remap::geometry::Layout;
use dm_remap_host::remap::geometry::PageCount;
use dm_remap_host::remap::geometry::SpareCount;
use dm_remap_host::remap::identity::MainId;
use dm_remap_host::remap::options::Options;
use dm_remap_host::remap::options::ScanInterval;
use dm_remap_host::remap::page::Page;
use dm_remap_host::remap::page::Sequence;
use dm_remap_host::remap::superblock::read;
use dm_remap_host::remap::superblock::Found;
use dm_remap_host::remap::superblock::State;
use dm_remap_host::remap::superblock::Superblock;
use dm_remap_host::remap::superblock::Unusable;
use dm_remap_host::remap::units::Sectors;
use dm_remap_host::remap::units::SlotCount;
use dm_remap_host::remap::units::UnixTime;
use proptest::prelude::*;

use crate::metadata::make::block_size;
use crate::metadata::make::index;
use crate::metadata::make::layouts;
use crate::metadata::make::sequence;
use crate::metadata::make::set;
use crate::metadata::make::superblock;
use crate::metadata::make::uuid;
use crate::metadata::make::BLANK;
use crate::metadata::make::MAIN;
use crate::metadata::make::SPARE;

type Reading = Result<Option<Found>, Unusable>;

const WANTED: Wanted = Wanted {
    main_sectors: MAIN,
    default_block_size: match dm_remap_host::remap::units::BlockSize::new(Sectors(8)) {
        Some(size) => size,
        None => panic!("8 is a power of two"),
    },
    block_size: None,
    main_id: None,
    uuid: None,
    read_only: false,
};

/// What is found on a spare that has this superblock, after `change`, at both ends.
fn found(superblock: Superblock, change: impl FnOnce(&mut Superblock)) -> Reading {
    let mut superblock = superblock;
    change(&mut superblock);
    let mut page = BLANK;
    superblock.encode(&mut page, crc32c);
    read(Some(&page), Some(&page), crc32c)
}

/// What is found on the spares of a healthy set of `count`, after `change` of each.
fn healthy(count: usize, change: impl Fn(usize, &mut Superblock)) -> Vec<Reading> {
    let layouts = layouts(&vec![SPARE; count]);
    (0..count)
        .map(|spare| found(superblock(&layouts, spare), |it| change(spare, it)))
        .collect()
}

fn unchanged(_: usize, _: &mut Superblock) {}

fn begun(superblock: &mut Superblock) {
    superblock.state = State::Initialising;
}

/// As a spare is that may have blocks.
fn used(_: usize, superblock: &mut Superblock) {
    superblock.slot_mark = PageCount(1);
    superblock.witness_mark = PageCount(1);
    superblock.sequence = sequence(2);
}

fn places(readings: &[Reading]) -> Vec<Place<'_>> {
    readings
        .iter()
        .map(|found| Place::Device { size: SPARE, found })
        .collect()
}

fn existing<'a>(places: &[Place<'a>], wanted: &Wanted) -> Existing<'a> {
    match assemble(places, wanted) {
        Ok(Assembly::Existing(existing)) => existing,
        other => panic!("this is a set: {other:?}"),
    }
}

fn new(places: &[Place<'_>], wanted: &Wanted) -> New {
    match assemble(places, wanted) {
        Ok(Assembly::New(new)) => new,
        other => panic!("this is a new set: {other:?}"),
    }
}

fn count(spares: usize) -> SpareCount {
    SpareCount::new(spares).unwrap()
}

/// Asserts that the set is refused for this reason, in one sentence that is fit for a log line.
fn refused(places: &[Place<'_>], wanted: &Wanted, reason: Refusal) {
    assert_eq!(assemble(places, wanted), Err(reason));
    let sentence = reason.to_string();
    assert!(sentence.len() > 20 && sentence.len() < 250, "{sentence}");
    assert!(
        sentence.contains(": ") && !sentence.contains('\n'),
        "{sentence}"
    );
}

#[test]
fn blank_spares_make_a_new_set() {
    let blank = [Ok(None), Ok(None)];
    let set = new(&places(&blank), &WANTED);
    assert_eq!((set.uuid, set.sequence), (None, None));
    assert_eq!((set.spares, set.block_size), (count(2), block_size(8)));
    assert_eq!(set.layouts.iter().flatten().count(), 2);

    let wanted = Wanted {
        uuid: Some(uuid(5)),
        block_size: Some(block_size(32)),
        ..WANTED
    };
    let set = new(&places(&blank), &wanted);
    assert_eq!((set.uuid, set.block_size), (Some(uuid(5)), block_size(32)));
}

#[test]
fn a_blank_spare_is_not_initialised_where_that_cannot_be() {
    let blank = [Ok(None)];
    let wanted = Wanted {
        read_only: true,
        ..WANTED
    };
    refused(&places(&blank), &wanted, Refusal::ReadOnly(index(0)));

    let small = [Place::Device {
        size: Sectors(40),
        found: &blank[0],
    }];
    refused(&small, &WANTED, Refusal::TooSmall(index(0)));

    let wanted = Wanted {
        main_sectors: Sectors((8 << 32) + 1),
        ..WANTED
    };
    refused(
        &places(&blank),
        &wanted,
        Refusal::MainTooLarge(block_size(8)),
    );
    new(
        &places(&blank),
        &Wanted {
            main_sectors: Sectors(8 << 32),
            ..WANTED
        },
    );

    let with_missing = [Place::Missing, places(&blank)[0]];
    refused(&with_missing, &WANTED, Refusal::MissingUnknown(index(0)));
}

#[test]
fn a_healthy_set_is_complete_and_nothing_is_behind() {
    for spares in 1..=15 {
        let readings = healthy(spares, unchanged);
        let wanted = Wanted {
            uuid: Some(uuid(1)),
            block_size: Some(block_size(8)),
            read_only: spares % 2 == 0,
            ..WANTED
        };
        let assembled = existing(&places(&readings), &wanted);
        assert_eq!(assembled.set, set(&layouts(&vec![SPARE; spares])));
        assert_eq!(assembled.added, None);
        assert_eq!(assembled.members.iter().flatten().count(), spares);
        for member in assembled.members.iter().flatten() {
            assert!(matches!(member, Member::Ready { behind: false, .. }));
        }
    }
}

#[test]
fn somebodys_data_is_refused() {
    let mut foreign = BLANK;
    foreign[0] = 1;
    for (front, back) in [(&foreign, &foreign), (&foreign, &BLANK), (&BLANK, &foreign)] {
        let reading = [Ok(None), read(Some(front), Some(back), crc32c)];
        let unusable = reading[1].unwrap_err();
        refused(
            &places(&reading),
            &WANTED,
            Refusal::Unusable(index(1), unusable),
        );
    }
}

#[test]
fn two_bad_copies_are_refused() {
    let torn = |mut page: Page| {
        page[3000] ^= 1;
        page
    };
    let mut page = BLANK;
    superblock(&layouts(&[SPARE]), 0).encode(&mut page, crc32c);
    let reading = [read(Some(&torn(page)), Some(&torn(page)), crc32c)];
    let unusable = reading[0].unwrap_err();
    refused(
        &places(&reading),
        &WANTED,
        Refusal::Unusable(index(0), unusable),
    );
}

#[test]
fn another_set_main_size_or_block_size_is_refused() {
    let readings = healthy(2, unchanged);
    let places = places(&readings);

    let wanted = Wanted {
        uuid: Some(uuid(9)),
        ..WANTED
    };
    let (spare, given, stored) = (index(0), uuid(9), uuid(1));
    refused(
        &places,
        &wanted,
        Refusal::Uuid {
            spare,
            given,
            stored,
        },
    );

    let found = Sectors(MAIN.0 + 1);
    let wanted = Wanted {
        main_sectors: found,
        ..WANTED
    };
    refused(
        &places,
        &wanted,
        Refusal::MainSize {
            found,
            stored: MAIN,
        },
    );

    let given = block_size(16);
    let wanted = Wanted {
        block_size: Some(given),
        ..WANTED
    };
    let stored = block_size(8);
    refused(&places, &wanted, Refusal::BlockSize { given, stored });

    // Only whole pages of a spare count.
    let grown = |size| {
        [
            Place::Device {
                size,
                found: &readings[0],
            },
            places[1],
        ]
    };
    existing(&grown(Sectors(SPARE.0 + 7)), &WANTED);
    let found = Sectors(SPARE.0 + 8);
    let (spare, stored) = (index(0), SPARE);
    refused(
        &grown(found),
        &WANTED,
        Refusal::SpareSize {
            spare,
            found,
            stored,
        },
    );
}

#[test]
fn spares_of_two_sets_are_refused() {
    let mut readings = healthy(2, unchanged);
    let other = superblock(&layouts(&[SPARE; 2]), 1);
    readings[1] = found(other, |it| it.set.uuid = uuid(2));
    let (spare, found_there, set) = (index(1), uuid(2), uuid(1));
    let reason = Refusal::OtherSet {
        spare,
        found: found_there,
        set,
    };
    refused(&places(&readings), &WANTED, reason);

    // Not even when none of them is ready.
    readings = healthy(2, |_, it| begun(it));
    readings[1] = found(other, |it| {
        it.set.uuid = uuid(2);
        begun(it);
    });
    refused(&places(&readings), &WANTED, reason);

    // A copy of a spare that was initialised again under the same name.
    readings = healthy(2, unchanged);
    readings[1] = found(other, |it| it.set.created = UnixTime(1));
    refused(
        &places(&readings),
        &WANTED,
        Refusal::Contradiction(index(1)),
    );
}

#[test]
fn another_order_or_number_is_refused() {
    let readings = healthy(3, unchanged);
    let all = places(&readings);
    let (place, stored) = (index(0), index(1));
    refused(
        &[all[1], all[0], all[2]],
        &WANTED,
        Refusal::Order { place, stored },
    );
    let (place, stored) = (index(1), index(0));
    refused(
        &[all[0], all[0], all[2]],
        &WANTED,
        Refusal::Order { place, stored },
    );
    let (given, stored) = (count(2), count(3));
    refused(&all[..2], &WANTED, Refusal::Count { given, stored });
    let blank = Ok(None);
    let extra = Place::Device {
        size: SPARE,
        found: &blank,
    };
    let given = count(5);
    refused(
        &[all[0], all[1], all[2], extra, extra],
        &WANTED,
        Refusal::Count { given, stored },
    );
}

#[test]
fn another_main_is_refused_by_its_name() {
    let id = |name: &str| MainId::parse(name.as_bytes());
    let wanted = |name| Wanted {
        main_id: id(name),
        ..WANTED
    };
    let named = healthy(2, |_, it| it.set.main_id = id("wwn-1").unwrap());
    existing(&places(&named), &WANTED);
    existing(&places(&named), &wanted("wwn-1"));
    refused(
        &places(&named),
        &wanted("wwn-2"),
        Refusal::MainId(id("wwn-1").unwrap()),
    );

    // A name that is given later is taken, and every superblock must get it.
    let unnamed = healthy(2, unchanged);
    let assembled = existing(&places(&unnamed), &wanted("wwn-2"));
    assert_eq!(assembled.set.main_id, id("wwn-2").unwrap());
    for member in assembled.members.iter().flatten() {
        assert!(matches!(member, Member::Ready { behind: true, .. }));
    }
}

#[test]
fn a_spare_that_lost_its_contents_is_not_initialised_again() {
    let mut readings = healthy(2, used);
    readings[1] = Ok(None);
    refused(&places(&readings), &WANTED, Refusal::Lost(index(1)));
    readings = healthy(2, used);
    readings[0] = Ok(None);
    refused(&places(&readings), &WANTED, Refusal::Lost(index(0)));
}

/// Three spares, of which the last one is counted by all, but not ready, or not even begun.
fn almost_three() -> Vec<Reading> {
    let mut readings = healthy(3, |spare, it| {
        used(spare, it);
        if spare == 0 {
            it.witness_mark = PageCount::ZERO;
        }
    });
    readings[2] = Ok(None);
    readings
}

#[test]
fn the_last_spare_may_be_replaced_before_it_is_used() {
    let layouts = layouts(&[SPARE; 3]);
    let large = Sectors(SPARE.0 * 2);
    let planned = |size| Layout::plan_added(size, &layouts[1], &layouts[0]).unwrap();
    for size in [SPARE, large] {
        let readings = almost_three();
        let mut places = places(&readings);
        places[2] = Place::Device {
            size,
            found: &readings[2],
        };
        let assembled = existing(&places, &WANTED);
        assert_eq!(assembled.members[2], Some(Member::Fresh(planned(size))));
        assert_eq!(assembled.set.slots_of[2], planned(size).slots());
        assert_eq!((assembled.added, assembled.set.spares), (None, count(3)));
        let others = assembled.members[..2].iter().flatten();
        let behind = others.map(|it| matches!(it, Member::Ready { behind: true, .. }));
        // All get later superblocks than the one that was given up.
        assert!(behind.eq([true; 2]), "{assembled:?}");
    }

    // The same again when only the first step was made with it.
    let mut readings = almost_three();
    let mut with_large = layouts.clone();
    with_large[2] = planned(large);
    readings[2] = found(superblock(&with_large, 2), begun);
    let mut places_now = places(&readings);
    places_now[2] = Place::Device {
        size: large,
        found: &readings[2],
    };
    let assembled = existing(&places_now, &WANTED);
    assert_eq!(assembled.members[2], Some(Member::Fresh(planned(large))));

    // Nothing is written without another one, so nothing of it can be known.
    let (missing, fresh) = (index(1), index(2));
    let readings = almost_three();
    let mut places_now = places(&readings);
    places_now[1] = Place::Missing;
    let reason = Refusal::MissingWhileFresh { missing, fresh };
    refused(&places_now, &WANTED, reason);
    let wanted = Wanted {
        read_only: true,
        ..WANTED
    };
    refused(&places(&readings), &wanted, Refusal::ReadOnly(fresh));
    // One that is too small for it.
    let mut places_now = places(&readings);
    places_now[2] = Place::Device {
        size: Sectors(64),
        found: &readings[2],
    };
    refused(&places_now, &WANTED, Refusal::TooSmall(index(2)));
}

#[test]
fn a_spare_that_may_be_in_use_is_not_replaced() {
    let three = layouts(&[SPARE; 3]);
    let readings = |change: fn(&mut Superblock)| {
        let mut readings = almost_three();
        readings[0] = found(superblock(&three, 0), |it| {
            used(0, it);
            it.witness_mark = PageCount::ZERO;
            change(it);
        });
        readings
    };
    // Its witness has a mark.
    let marked = readings(|it| it.witness_mark = PageCount(1));
    refused(&places(&marked), &WANTED, Refusal::Lost(index(2)));
    // What is on the first spare is not about the third one.
    let old = readings(|it| {
        it.set = set(&layouts(&[SPARE; 2]));
        it.sequence = Sequence::FIRST;
    });
    refused(&places(&old), &WANTED, Refusal::Lost(index(2)));
    // Not the last one, although nothing was on that either.
    let mut second = healthy(3, |spare, it| {
        used(spare, it);
        if spare == 2 {
            it.witness_mark = PageCount::ZERO;
        }
    });
    second[1] = Ok(None);
    refused(&places(&second), &WANTED, Refusal::Lost(index(1)));

    // Nor may one come back that was given up before it was ready.
    let mut returned = marked;
    returned[2] = found(superblock(&three, 2), begun);
    let contradiction = Refusal::Contradiction(index(2));
    refused(&places(&returned), &WANTED, contradiction);
    let wanted = Wanted {
        read_only: true,
        ..WANTED
    };
    refused(&places(&returned), &wanted, contradiction);
    returned[2] = found(superblock(&three, 2), |it| {
        begun(it);
        it.witness_mark = PageCount(1);
    });
    refused(&places(&returned), &WANTED, contradiction);
    // Nor when the one that knows it is new itself.
    let mut both = almost_three();
    both[1] = found(superblock(&three, 1), begun);
    refused(&places(&both), &WANTED, Refusal::Contradiction(index(1)));
    // One that holds nothing has no slot pages.
    returned[0] = almost_three()[0];
    returned[2] = found(superblock(&three, 2), |it| {
        begun(it);
        it.slot_mark = PageCount(1);
    });
    refused(&places(&returned), &WANTED, contradiction);
}

#[test]
fn a_spare_that_is_almost_added_is_a_witness() {
    let three = layouts(&[SPARE; 3]);
    let readings = |mark: u32| {
        let mut readings = almost_three();
        readings[2] = found(superblock(&three, 2), |it| {
            begun(it);
            it.witness_mark = PageCount(mark);
        });
        readings
    };
    // Its witness pages are there, so there is no need to begin anew.
    let begun = readings(1);
    let assembled = existing(&places(&begun), &WANTED);
    let Some(Member::Ready {
        superblock,
        behind: true,
        ..
    }) = assembled.members[2]
    else {
        panic!("it is a member: {assembled:?}");
    };
    assert_eq!(superblock.witness_mark, PageCount(1));
    let none = readings(0);
    let assembled = existing(&places(&none), &WANTED);
    assert_eq!(assembled.members[2], Some(Member::Fresh(three[2])));

    // Meanwhile each of the others may be missing.
    for missing in 0..2 {
        let mut places_now = places(&begun);
        places_now[missing] = Place::Missing;
        let assembled = existing(&places_now, &WANTED);
        let witness = index(missing + 1);
        let slots = three[missing].slots();
        assert_eq!(
            assembled.members[missing],
            Some(Member::Missing { slots, witness })
        );
        assert!(matches!(assembled.members[2], Some(Member::Ready { .. })));
    }
    // But not one of which it does not know what it holds.
    let mut places_now = places(&none);
    places_now[1] = Place::Missing;
    let (missing, fresh) = (index(1), index(2));
    let reason = Refusal::MissingWhileFresh { missing, fresh };
    refused(&places_now, &WANTED, reason);
    places_now = places(&none);
    places_now[0] = Place::Missing;
    existing(&places_now, &WANTED);
    let wanted = Wanted {
        read_only: true,
        ..WANTED
    };
    existing(&places(&none), &wanted);
    existing(&places(&begun), &wanted);

    // Nor is one a witness that was begun before another one was added and given up: its witness pages are of an earlier time.
    let mut given_up = begun;
    for (at, reading) in given_up[..2].iter_mut().enumerate() {
        *reading = found(crate::metadata::make::superblock(&three, at), |it| {
            used(at, it);
            if at == 0 {
                it.witness_mark = PageCount::ZERO;
            }
            it.sequence = sequence(1 + 15);
        });
    }
    let assembled = existing(&places(&given_up), &WANTED);
    assert_eq!(assembled.members[2], Some(Member::Fresh(three[2])));
    existing(&places(&given_up), &wanted);
    for missing in 0..2 {
        let mut places_now = places(&given_up);
        places_now[missing] = Place::Missing;
        let (missing, fresh) = (index(missing), index(2));
        let reason = Refusal::MissingWhileFresh { missing, fresh };
        refused(&places_now, &WANTED, reason);
        refused(&places_now, &wanted, reason);
    }
}

#[test]
fn the_numbers_of_an_adding_tell_it_from_others() {
    let last = sequence(100);
    // A spare whose adding was broken off had higher numbers than all others.
    for ahead in 0..3 {
        let begun = sequence(last.get() + ahead);
        let skipped = last.before_adding().unwrap();
        // The next one gets two, and then all that count it one each.
        for others in 1..15 {
            let counting = sequence(skipped.get() + 2 + others);
            assert!(!begun.is_of_the_same_adding(counting), "{ahead} {others}");
            assert!(sequence(skipped.get() + 2).is_of_the_same_adding(counting));
        }
    }
}

#[test]
fn a_spare_without_slot_pages_is_no_member_while_one_is_missing_if_others_went_on() {
    for (newest, accepted) in [(2, false), (1, true)] {
        let readings = healthy(3, |spare, it| {
            used(spare, it);
            it.sequence = sequence(if spare == 1 { newest } else { 1 });
            if spare == 2 {
                it.slot_mark = PageCount::ZERO;
            }
        });
        let mut places = places(&readings);
        places[0] = Place::Missing;
        let (missing, fresh) = (index(0), index(2));
        let reason = Refusal::MissingWhileFresh { missing, fresh };
        if accepted {
            existing(&places, &WANTED);
        } else {
            refused(&places, &WANTED, reason);
        }
    }
}

#[test]
fn unknown_features_allow_what_they_say() {
    let mut page = BLANK;
    superblock(&layouts(&[SPARE]), 0).encode(&mut page, crc32c);
    page[72] = 2;
    let checksum = crc32c(&page[12..]);
    page[8..12].copy_from_slice(&checksum.to_le_bytes());
    let readings = [read(Some(&page), Some(&page), crc32c)];
    refused(
        &places(&readings),
        &WANTED,
        Refusal::ReadOnlyFeatures(index(0), 2),
    );
    existing(
        &places(&readings),
        &Wanted {
            read_only: true,
            ..WANTED
        },
    );
}

#[test]
fn the_newest_superblock_says_what_the_set_is() {
    let options = Options {
        scan_interval: ScanInterval(5),
        ..Options::DEFAULT
    };
    let readings = healthy(3, |spare, it| {
        if spare == 1 {
            it.sequence = sequence(9);
            it.set.options = options;
        }
    });
    let assembled = existing(&places(&readings), &WANTED);
    assert_eq!(assembled.set.options, options);
    assert_eq!(assembled.sequence, sequence(9));
    let behind: Vec<bool> = assembled
        .members
        .iter()
        .flatten()
        .map(|member| matches!(member, Member::Ready { behind: true, .. }))
        .collect();
    assert_eq!(behind, [true, false, true]);
}

#[test]
fn a_missing_spare_is_known_to_the_others() {
    let readings = healthy(3, unchanged);
    let mut places = places(&readings);
    places[1] = Place::Missing;
    for read_only in [false, true] {
        let assembled = existing(
            &places,
            &Wanted {
                read_only,
                ..WANTED
            },
        );
        let slots = layouts(&[SPARE; 3])[1].slots();
        let witness = index(2);
        assert_eq!(
            assembled.members[1],
            Some(Member::Missing { slots, witness })
        );
    }

    // Who knows what is on spare 1 is spare 2.
    places[2] = Place::Missing;
    let (missing, witness) = (index(1), index(2));
    refused(
        &places,
        &WANTED,
        Refusal::WitnessMissing { missing, witness },
    );

    let readings = healthy(1, unchanged);
    let places = [
        crate::metadata::assembly::places(&readings)[0],
        Place::Missing,
    ];
    let (given, stored) = (count(2), count(1));
    refused(&places, &WANTED, Refusal::Count { given, stored });
}

#[test]
fn an_interrupted_initialisation_is_repeated() {
    // Nobody is ready: the set is made anew, under the same name.
    let half = [healthy(2, |_, it| begun(it))[0], Ok(None)];
    let set = new(&places(&half), &WANTED);
    assert_eq!((set.uuid, set.sequence), (Some(uuid(1)), Some(sequence(1))));
    let wanted = Wanted {
        read_only: true,
        ..WANTED
    };
    refused(&places(&half), &wanted, Refusal::ReadOnly(index(0)));

    // The first spare alone is not the set that was meant.
    let (given, stored) = (count(1), count(2));
    refused(
        &places(&half)[..1],
        &WANTED,
        Refusal::Count { given, stored },
    );

    // One is ready: the other one is completed.
    let mixed = healthy(2, |spare, it| {
        if spare == 1 {
            begun(it);
        }
    });
    let layouts = layouts(&[SPARE; 2]);
    let assembled = existing(&places(&mixed), &WANTED);
    assert_eq!(assembled.members[1], Some(Member::Fresh(layouts[1])));
    assert_eq!(assembled.added, None);

    let fresh = index(1);
    let missing = index(0);
    let mixed = healthy(3, |spare, it| {
        if spare == 1 {
            begun(it);
        }
    });
    let mut places = places(&mixed);
    places[0] = Place::Missing;
    refused(
        &places,
        &WANTED,
        Refusal::MissingWhileFresh { missing, fresh },
    );
}

#[test]
fn a_blank_spare_at_the_end_is_added() {
    let mut readings = healthy(2, unchanged);
    readings.push(Ok(None));
    let added = existing(&places(&readings), &WANTED);
    assert_eq!(added.added, Some(index(2)));
    assert_eq!(added.set.spares, count(3));
    let before = layouts(&[SPARE; 2]);
    let planned = Layout::plan_added(SPARE, &before[1], &before[0]).unwrap();
    assert_eq!(added.members[2], Some(Member::Fresh(planned)));
    assert_eq!(added.set.slots_of[2], planned.slots());
    assert_eq!(added.set.slots_of[3], SlotCount(0));
    for member in added.members[..2].iter().flatten() {
        assert!(matches!(member, Member::Ready { behind: true, .. }));
    }

    let wanted = Wanted {
        read_only: true,
        ..WANTED
    };
    refused(&places(&readings), &wanted, Refusal::ReadOnly(index(2)));

    let mut with_missing = places(&readings);
    with_missing[1] = Place::Missing;
    let (missing, fresh) = (index(1), index(2));
    refused(
        &with_missing,
        &WANTED,
        Refusal::MissingWhileFresh { missing, fresh },
    );

    // One at a time: the set must be complete before.
    let mut unfinished = healthy(2, |spare, it| {
        if spare == 1 {
            begun(it);
        }
    });
    unfinished.push(Ok(None));
    let (given, stored) = (count(3), count(2));
    refused(
        &places(&unfinished),
        &WANTED,
        Refusal::Count { given, stored },
    );

    // Too small to be the witness of the spare before it.
    let mut small = places(&readings);
    small[2] = Place::Device {
        size: Sectors(64),
        found: &readings[2],
    };
    refused(&small, &WANTED, Refusal::TooSmall(index(2)));
}

#[test]
fn a_member_of_another_history_is_not_added() {
    let mut readings = healthy(2, unchanged);
    let three = layouts(&[SPARE; 3]);
    // It says that it is ready, but no other spare ever heard of it.
    readings.push(found(superblock(&three, 2), |it| it.sequence = sequence(1)));
    readings[0] = found(superblock(&layouts(&[SPARE; 2]), 0), |it| {
        it.sequence = sequence(5)
    });
    refused(
        &places(&readings),
        &WANTED,
        Refusal::Contradiction(index(2)),
    );
}

#[test]
fn spares_that_count_each_other_differently_are_refused() {
    let three = layouts(&[SPARE; 3]);
    // The newest superblock says that there are two spares, an older one that there are three.
    let mut readings = healthy(2, |_, it| it.sequence = sequence(5));
    readings[1] = found(superblock(&three, 1), |it| it.sequence = sequence(4));
    refused(
        &places(&readings),
        &WANTED,
        Refusal::Contradiction(index(1)),
    );

    // Spare 0 has the number of slots of spare 1 otherwise than that says itself.
    let mut readings = healthy(2, unchanged);
    readings[0] = found(superblock(&layouts(&[SPARE; 2]), 0), |it| {
        it.sequence = sequence(5);
        it.set.slots_of[1] = SlotCount(1);
    });
    refused(
        &places(&readings),
        &WANTED,
        Refusal::Contradiction(index(1)),
    );
}

#[test]
fn a_spare_without_room_for_its_witness_pages_is_refused() {
    let small = layouts(&[SPARE; 2]);
    let large = layouts(&[Sectors(SPARE.0 * 100); 2]);
    let mixed = [large[0], small[1]];
    let readings: Vec<Reading> = (0..2)
        .map(|spare| found(superblock(&mixed, spare), |_| ()))
        .collect();
    let size = |spare: usize| mixed[spare].parts().spare_sectors;
    let places: Vec<Place<'_>> = (0..2)
        .map(|spare| Place::Device {
            size: size(spare),
            found: &readings[spare],
        })
        .collect();
    refused(&places, &WANTED, Refusal::Contradiction(index(1)));
}

proptest! {
    /// Superblocks that fit together in most ways: whatever they say, a set that is used is one in
    /// which every spare has its place, and no more than one has to be made at the end.
    #[test]
    fn hostile_sets_are_refused_or_consistent(
        spares in prop::collection::vec(any_spare(), 1..=4),
        read_only in any::<bool>(),
    ) {
        let layouts = layouts(&[SPARE; 4]);
        let reading = |(place, hostile): (usize, &Option<Hostile>)| {
            hostile.map(|hostile| hostile.reading(&layouts, place, spares.len()))
        };
        let readings: Vec<Option<Reading>> = spares.iter().enumerate().map(reading).collect();
        let places: Vec<Place<'_>> = readings
            .iter()
            .map(|reading| match reading {
                None => Place::Missing,
                Some(found) => Place::Device { size: SPARE, found },
            })
            .collect();
        let wanted = Wanted { read_only, ..WANTED };
        let Ok(Assembly::Existing(assembled)) = assemble(&places, &wanted) else {
            return Ok(());
        };
        let members: Vec<&Member<'_>> = assembled.members.iter().flatten().collect();
        prop_assert_eq!(members.len(), places.len());
        prop_assert_eq!(assembled.set.spares.get(), places.len());
        let mut fresh = false;
        let mut missing = false;
        for (spare, (member, place)) in members.into_iter().zip(&places).enumerate() {
            match member {
                Member::Missing { slots, witness } => {
                    missing = true;
                    prop_assert!(matches!(place, Place::Missing));
                    prop_assert_eq!(*slots, assembled.set.slots_of[spare]);
                    let Some(Member::Ready { superblock, .. }) = assembled.members[witness.get()] else {
                        panic!("nobody knows what the missing one holds");
                    };
                    prop_assert!(superblock.state == State::Ready || superblock.witness_mark.0 > 0);
                }
                Member::Fresh(layout) => {
                    fresh = true;
                    prop_assert_eq!(layout.slots(), assembled.set.slots_of[spare]);
                    if assembled.added != Some(index(spare)) {
                        // Nothing was ever there.
                        let witness = assembled.set.spares.witness_of(index(spare)).unwrap();
                        let witness = readings[witness.get()].unwrap().unwrap().unwrap().superblock;
                        prop_assert_eq!(witness.witness_mark, PageCount::ZERO);
                        prop_assert_eq!(witness.set.spares, assembled.set.spares);
                    }
                }
                Member::Ready { superblock, .. } => {
                    prop_assert_eq!(superblock.spare, index(spare));
                    prop_assert_eq!(superblock.set.uuid, assembled.set.uuid);
                    prop_assert_eq!(superblock.layout.slots(), assembled.set.slots_of[spare]);
                    prop_assert!(superblock.sequence <= assembled.sequence);
                }
            }
        }
        prop_assert!(!(fresh && (missing || read_only)), "something would have to be written");
    }
}

/// What a spare may say that is or was of a set of 1 to 4.
#[derive(Clone, Copy, Debug)]
struct Hostile {
    blank: bool,
    ready: bool,
    /// Which spare it is, if not the one of its place.
    spare: Option<usize>,
    /// How many spares it counts, if not those of the table line.
    spares: Option<usize>,
    sequence: u64,
    uuid: u8,
    marks: [bool; 2],
}

fn any_spare() -> impl Strategy<Value = Option<Hostile>> {
    let hostile = (
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.8),
        prop::option::weighted(0.05, 0usize..4),
        prop::option::weighted(0.3, 1usize..=4),
        1u64..4,
        prop_oneof![20 => Just(1u8), 1 => Just(2u8)],
        any::<[bool; 2]>(),
    );
    let hostile =
        hostile.prop_map(
            |(blank, ready, spare, spares, sequence, uuid, marks)| Hostile {
                blank,
                ready,
                spare,
                spares,
                sequence,
                uuid,
                marks,
            },
        );
    prop::option::weighted(0.9, hostile)
}

impl Hostile {
    /// What is found on it at `place` of a table line with `given` spares.
    fn reading(self, layouts: &[Layout], place: usize, given: usize) -> Reading {
        if self.blank {
            return Ok(None);
        }
        let spare = self.spare.unwrap_or(place);
        let spares = self.spares.unwrap_or(given).max(spare + 1);
        found(superblock(&layouts[..spares], spare), |it| {
            it.sequence = sequence(self.sequence);
            it.set.uuid = uuid(self.uuid);
            let [slots, witness] = self.marks.map(|mark| PageCount(mark.into()));
            (it.slot_mark, it.witness_mark) = (slots, witness);
            if !self.ready {
                begun(it);
            }
        })
    }
}

#[test]
fn sixteen_spares_cannot_come_together() {
    let mut readings = healthy(15, unchanged);
    readings.push(Ok(None));
    // The grammar of the table line never gives so many.
    assert!(assemble(&places(&readings), &WANTED).is_err());
}
