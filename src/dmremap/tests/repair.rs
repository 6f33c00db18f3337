// SPDX-License-Identifier: GPL-2.0

//! `repair`.

use crate::images::index;
use crate::images::page;
use crate::images::record;
use crate::images::set_entry;
use crate::images::Images;
use crate::images::SIZE;
use dm_remap_host::crc32c::crc32c;
use dm_remap_host::remap::geometry::End;
use dm_remap_host::remap::geometry::Layout;
use dm_remap_host::remap::geometry::PageCount;
use dm_remap_host::remap::geometry::SpareCount;
use dm_remap_host::remap::geometry::PAGE_BYTES;
use dm_remap_host::remap::health::Model;
use dm_remap_host::remap::health::ServiceTime;
use dm_remap_host::remap::page::Page;
use dm_remap_host::remap::page::Sequence;
use dm_remap_host::remap::page::Subject;
use dm_remap_host::remap::superblock;
use dm_remap_host::remap::superblock::State;
use dm_remap_host::remap::superblock::Superblock;
use dm_remap_host::remap::units::Sectors;
use dm_remap_host::remap::units::SlotNumber;
use proptest::prelude::*;

/// Something that can be wrong with a spare.
#[derive(Clone, Copy, Debug)]
enum Damage {
    /// A copy of the superblock is bad.
    Superblock(End),
    /// The set has changed, and the other superblocks say so, or only this one.
    Behind,
    /// A copy of a slot page is bad.
    SlotPage(u32, End),
    /// A copy of a slot page is of an update that was not finished.
    Unfinished(u32),
    /// A witness page is bad.
    Witness(u32),
    /// A witness page is of an update that was not begun on the slot page.
    WitnessAhead(u32),
    /// A witness page has the sequence number of the slot page, and says something else.
    WitnessDiffers(u32),
    /// Only the witness page has what the slot page should have.
    Alone(u32),
    /// There is an older entry for a block of a spare.
    Outdated(u32),
    /// Slot pages are not ready.
    Mark(u32),
    /// Witness pages are not ready.
    WitnessMark(u32),
}

impl Damage {
    /// What needs good pages to make comes before what makes pages bad, and the superblock says where they are.
    fn rank(&self) -> u32 {
        match self {
            Self::Superblock(_) => 2,
            Self::SlotPage(..) | Self::Witness(_) | Self::Alone(_) => 1,
            _ => 0,
        }
    }

    /// Damages spare `spare`.
    fn apply(self, images: &Images, spare: usize) {
        let bad = [0xa5; PAGE_BYTES];
        let witness = |number| images.witness_place(spare, page(number));
        match self {
            Self::Superblock(end) => {
                images.write(spare, images.superblock_place(end), &bad);
            }
            Self::Behind => images.change_superblock(spare, |superblock| {
                superblock.set.options.automatic = false;
            }),
            Self::SlotPage(number, end) => {
                images.write(
                    spare,
                    images.slot_page_place(spare, page(number), end),
                    &bad,
                );
            }
            Self::Unfinished(number) => {
                images.change_copy(spare, page(number), End::Front, |page| add(page, number));
            }
            Self::Witness(number) => {
                if let Some((witness, place)) = witness(number) {
                    images.write(witness, place, &bad);
                }
            }
            Self::WitnessAhead(number) | Self::WitnessDiffers(number) => {
                if let Some((witness, place)) = witness(number) {
                    let mut bytes = images.read(
                        spare,
                        images.slot_page_place(spare, page(number), End::Front),
                    );
                    let mut sequence = images.sequence(&bytes, spare, page(number));
                    if matches!(self, Self::WitnessAhead(_)) {
                        sequence = sequence.next().expect("it is small");
                    }
                    add(&mut bytes, number);
                    images.seal(&mut bytes, spare, Subject::Witness(page(number)), sequence);
                    images.write(witness, place, &bytes);
                }
            }
            Self::Alone(number) => {
                images.leave_alone(spare, page(number), |page| add(page, number));
            }
            Self::Outdated(slot) => {
                images.occupy(spare, slot, &record(spare as u32 * 1000, 50 + slot));
            }
            Self::Mark(mark) => {
                images
                    .change_superblock(spare, |superblock| superblock.slot_mark = PageCount(mark));
            }
            Self::WitnessMark(mark) => images.change_superblock(spare, |superblock| {
                superblock.witness_mark = PageCount(mark).min(superblock.witness_mark);
            }),
        }
    }
}

/// Puts a block into a slot of a page that is free.
fn add(bytes: &mut Page, number: u32) {
    let slot = SlotNumber::new((number - 1) * 168 + 7).expect("it is small");
    set_entry(bytes, slot, &record(20_000 + number, 200));
}

/// Repairs the images, which are not clean, and looks at what comes of it.
fn repairs(images: &Images) {
    let before = images.bytes();
    let shown = images.dump();
    let dry = images.run(&["repair", "--dry-run"]);
    assert_eq!(dry.status, 1, "{}", dry.text);
    assert!(images.bytes() == before, "a dry run has changed the images");
    let ended = images.run(&["repair"]);
    assert_eq!((ended.status, &ended.text), (1, &dry.text));
    let checked = images.run(&["check"]);
    assert_eq!(checked.status, 0, "{}", checked.text);
    assert_eq!(images.dump()["relocations"], shown["relocations"]);
    let repaired = images.bytes();
    let again = images.run(&["repair"]);
    assert_eq!((again.status, again.text.as_str()), (0, ""));
    assert!(
        images.bytes() == repaired,
        "a second repair has changed the images"
    );
}

/// Repair refuses the images as a check does, and changes nothing.
fn refuses(images: &Images, status: i32) {
    let before = images.bytes();
    for arguments in [&["repair"][..], &["repair", "--dry-run"]] {
        let ended = images.run(arguments);
        assert_eq!(ended.status, status, "{}", ended.text);
        assert!(images.bytes() == before, "the images have changed");
    }
}

/// Each kind of damage, with different pages.
fn each() -> Vec<Damage> {
    let mut all = vec![
        Damage::Superblock(End::Front),
        Damage::Superblock(End::Back),
        Damage::Mark(5),
        Damage::Outdated(3),
    ];
    for number in [1, 4] {
        all.extend([
            Damage::SlotPage(number, End::Front),
            Damage::SlotPage(number, End::Back),
            Damage::Unfinished(number),
        ]);
    }
    all
}

/// Each kind of damage that takes a second spare.
fn each_of_many() -> Vec<Damage> {
    let mut all = each();
    all.extend([
        Damage::Behind,
        Damage::WitnessMark(0),
        Damage::WitnessMark(3),
    ]);
    for number in [1, 4] {
        all.extend([
            Damage::Witness(number),
            Damage::WitnessAhead(number),
            Damage::WitnessDiffers(number),
            Damage::Alone(number),
        ]);
    }
    all
}

#[test]
fn every_kind_of_damage_is_mended() {
    for damage in each() {
        let images = Images::with_blocks(1);
        damage.apply(&images, 0);
        repairs(&images);
    }
    for damage in each_of_many() {
        let images = Images::with_blocks(3);
        damage.apply(&images, 2);
        repairs(&images);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_a_check_calls_mendable_is_mended_and_all_else_is_refused(
        count in 1..=3usize,
        damages in proptest::collection::vec((proptest::sample::select(each_of_many()), 0..3usize), 0..6),
    ) {
        let images = Images::with_blocks(count);
        let mut damages = damages;
        damages.sort_by_key(|(damage, _)| damage.rank());
        for (damage, spare) in damages {
            damage.apply(&images, spare % count);
        }
        match images.run(&["check", "--quiet"]).status {
            0 => assert_eq!(images.run(&["repair"]).status, 0),
            1 => repairs(&images),
            status => refuses(&images, status),
        }
    }
}

#[test]
fn damage_is_refused() {
    let images = Images::with_blocks(2);
    for end in [End::Front, End::Back] {
        Damage::SlotPage(2, end).apply(&images, 1);
    }
    Damage::Superblock(End::Front).apply(&images, 0);
    refuses(&images, 4);
}

#[test]
fn what_is_no_set_is_refused() {
    refuses(&Images::blank(2), 8);
    let mut images = Images::with_blocks(2);
    Damage::SlotPage(2, End::Front).apply(&images, 1);
    images.paths.remove(0);
    refuses(&images, 8);
}

#[test]
fn a_set_that_was_not_made_to_the_end_is_made() {
    let unmarked = |superblock: &mut Superblock| {
        superblock.slot_mark = PageCount::ZERO;
        superblock.witness_mark = PageCount::ZERO;
    };
    let initialising = |superblock: &mut Superblock| {
        superblock.state = State::Initialising;
        unmarked(superblock);
    };
    let images = Images::formatted(3);
    let uuid = images.superblock(0).0.set.uuid;
    // The last spare is still to become ready.
    for spare in 0..2 {
        images.change_superblock(spare, unmarked);
    }
    images.change_superblock(2, initialising);
    repairs(&images);
    // None is.
    for spare in 0..3 {
        images.change_superblock(spare, initialising);
    }
    // The last one was not reached at all.
    for end in [End::Front, End::Back] {
        images.write(2, images.superblock_place(end), &[0; PAGE_BYTES]);
    }
    repairs(&images);
    assert_eq!(images.superblock(2).0.set.uuid, uuid);
}

/// A set of `count` spares to which another one is being added.
fn adding(count: usize) -> (Images, Superblock) {
    let mut images = Images::with_blocks(count);
    let path = images.paths[0].with_extension("added");
    let file = std::fs::File::create(&path).expect("there is room");
    file.set_len(SIZE).expect("there is room");
    images.paths.push(path);
    let first = images.superblock(0).0;
    let mut added = images.superblock(count - 1).0;
    let layout = Layout::plan_added(Sectors(SIZE / 512), &added.layout, &first.layout);
    added.layout = layout.expect("it is large enough");
    added.spare = index(count);
    added.state = State::Initialising;
    added.slot_mark = PageCount::ZERO;
    added.witness_mark = PageCount::ZERO;
    added.set.spares = SpareCount::new(count + 1).expect("so many are possible");
    added.set.slots_of[count] = added.layout.slots();
    let skipped = first.sequence.max(added.sequence).before_adding();
    let next = skipped.and_then(Sequence::next);
    added.sequence = next.expect("it is small");
    (images, added)
}

#[test]
fn a_spare_that_was_not_added_to_the_end_is_added() {
    for counted in [false, true] {
        let (images, added) = adding(1);
        write_superblock(&images, &added);
        if counted {
            images.change_superblock(0, |superblock| {
                superblock.set = added.set;
                superblock.witness_mark = PageCount::ZERO;
            });
        }
        repairs(&images);
        assert_eq!(images.superblock(0).0.set.spares.get(), 2);
    }
}

/// Gives a spare its first superblock.
fn write_superblock(images: &Images, superblock: &Superblock) {
    let mut bytes = [0; PAGE_BYTES];
    superblock.encode(&mut bytes, crc32c);
    for end in [End::Front, End::Back] {
        images.write(superblock.spare.get(), images.superblock_place(end), &bytes);
    }
}

/// The spare that is being added has witness pages, which are older than those that the set has gone on with.
#[test]
fn a_set_that_was_used_after_a_spare_was_not_added_is_as_it_was_used() {
    for number in [1, 4] {
        let (images, mut added) = adding(2);
        added.witness_mark = images.superblock(1).0.slot_mark;
        write_superblock(&images, &added);
        for page in added.witness_mark.pages() {
            let copy = images.slot_page_place(1, page, End::Front);
            let mut bytes = images.read(1, copy);
            let sequence = images.sequence(&bytes, 1, page);
            images.seal(&mut bytes, 1, Subject::Witness(page), sequence);
            let place = added.layout.witness_page(page);
            images.write(2, place.expect("it has all of them"), &bytes);
        }
        for at in 20..23 {
            let slot = (number - 1) * 168 + at;
            images.occupy(1, slot, &record(15_000 + at, 150));
        }
        Damage::Alone(number).apply(&images, 1);
        repairs(&images);
        assert_eq!(images.superblock(1).0.set.spares.get(), 3);
    }
}

/// What was learned last may be known to one spare only.
#[test]
fn the_health_model_is_the_newest_one() {
    let model = |days: u64| {
        let mut model = Model::new();
        model.advance(ServiceTime(days * 86_400));
        model.encode()
    };
    let images = Images::with_blocks(2);
    for (spare, days) in [(1, 5), (0, 9)] {
        images.change_model(spare, model(days));
    }
    let mut other = images.superblock(0).0.set;
    other.options.automatic = !other.options.automatic;
    // The second spare is behind.
    images.change_superblock(0, |superblock| superblock.set = other);
    repairs(&images);
    for spare in 0..2 {
        let (_, page) = images.superblock(spare);
        assert!(superblock::model(&page) == model(9), "spare {spare}");
    }
}

#[test]
fn a_spare_that_was_almost_added_becomes_ready() {
    let images = Images::with_blocks(3);
    images.almost_added();
    repairs(&images);
    assert_eq!(images.superblock(2).0.state, State::Ready);
}

#[test]
fn a_spare_is_not_added_by_repair() {
    let (images, _) = adding(1);
    refuses(&images, 8);
    let ended = images.run(&["check"]);
    assert_eq!(ended.status, 8);
    assert!(
        ended.text.contains("an activation with it adds it"),
        "{}",
        ended.text
    );
}
