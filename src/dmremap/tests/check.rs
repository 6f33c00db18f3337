// SPDX-License-Identifier: GPL-2.0

//! `check`.

use crate::images::dmremap;
use crate::images::index;
use crate::images::page;
use crate::images::record;
use crate::images::Images;
use crate::images::MAIN;
use dm_remap_host::remap::geometry::End;
use dm_remap_host::remap::geometry::PageCount;
use dm_remap_host::remap::geometry::PAGE_BYTES;
use dm_remap_host::remap::superblock::State;
use rustix::fs::flock;
use rustix::fs::FlockOperation;
use std::fs::File;

/// Checks the images, which changes nothing, and with the same result when it says nothing.
fn check(images: &Images, status: i32, said: &str) {
    let before = images.bytes();
    let ended = images.run(&["check"]);
    assert_eq!(ended.status, status, "{}", ended.text);
    assert!(
        ended.text.contains(said),
        "not \"{said}\" but: {}",
        ended.text
    );
    let quiet = images.run(&["check", "--quiet"]);
    assert_eq!((quiet.status, quiet.text.as_str()), (status, ""));
    assert!(images.bytes() == before, "the images have changed");
}

#[test]
fn a_set_is_clean() {
    for count in 1..=4 {
        check(
            &Images::with_blocks(count),
            0,
            &format!("{} blocks relocated: clean", count * 20),
        );
    }
}

#[test]
fn the_order_of_the_spares_does_not_matter() {
    let mut images = Images::with_blocks(3);
    images.paths.reverse();
    check(&images, 0, "3 of 3 spares, 60 blocks relocated: clean");
}

#[test]
fn one_bad_copy_of_each_page_is_mendable() {
    let images = Images::with_blocks(2);
    for (spare, end) in [(0, End::Front), (1, End::Back)] {
        images.write(
            spare,
            images.slot_page_place(spare, page(3), end),
            &[1; PAGE_BYTES],
        );
        images.write(spare, images.superblock_place(end), &[1; PAGE_BYTES]);
    }
    check(
        &images,
        1,
        "the first copy of the superblock is not metadata",
    );
    check(&images, 1, "the second copy of slot page 3 is not metadata");
}

#[test]
fn two_bad_copies_are_damage() {
    let images = Images::with_blocks(2);
    for end in [End::Front, End::Back] {
        images.write(1, images.slot_page_place(1, page(3), end), &[1; PAGE_BYTES]);
    }
    check(&images, 4, "slot page 3 cannot be used");
}

#[test]
fn two_bad_superblocks_are_damage() {
    let images = Images::with_blocks(2);
    for end in [End::Front, End::Back] {
        let mut bytes = images.read(1, images.superblock_place(end));
        bytes[100] ^= 1;
        images.write(1, images.superblock_place(end), &bytes);
    }
    check(&images, 4, "wrong checksum");
}

#[test]
fn a_spare_that_became_zero_is_damage() {
    let images = Images::with_blocks(2);
    for end in [End::Front, End::Back] {
        images.write(0, images.superblock_place(end), &[0; PAGE_BYTES]);
    }
    check(&images, 4, "all zero although the set counts on it");
}

#[test]
fn a_block_that_is_twice_there_since_the_same_time_is_damage() {
    let images = Images::with_blocks(2);
    images.occupy(1, 5, &record(3, 100));
    check(&images, 4, "since the same time");
}

#[test]
fn an_older_entry_of_a_block_is_mendable() {
    let images = Images::with_blocks(2);
    images.occupy(1, 5, &record(3, 99));
    check(&images, 1, "slot 5 holds block 3: an older entry");
}

#[test]
fn a_bad_witness_page_is_mendable_unless_it_is_needed() {
    let mut images = Images::with_blocks(2);
    let (witness, place) = images.witness_place(0, page(2)).expect("there are two");
    images.write(witness, place, &[1; PAGE_BYTES]);
    check(&images, 1, "witness page 2 of spare 0 is not metadata");
    images.paths.remove(0);
    check(&images, 4, "witness page 2, which says what spare 0 holds");
}

#[test]
fn a_missing_spare_is_known_by_its_witness() {
    for missing in 0..3 {
        let mut images = Images::with_blocks(3);
        images.paths.remove(missing);
        check(&images, 0, "2 of 3 spares, 60 blocks relocated: clean");
    }
}

#[test]
fn a_missing_spare_is_known_by_one_that_is_almost_added() {
    let mut images = Images::with_blocks(3);
    images.almost_added();
    check(&images, 1, "3 of 3 spares, 40 blocks relocated");
    images.paths.remove(1);
    check(&images, 1, "2 of 3 spares, 40 blocks relocated");
}

#[test]
fn a_spare_that_never_had_what_its_witness_knows_is_damage() {
    let images = Images::with_blocks(3);
    images.change_superblock(2, |superblock| superblock.slot_mark = PageCount::ZERO);
    check(&images, 4, "spare 2 contradicts another spare of its set");
}

#[test]
fn a_spare_without_its_witness_is_not_enough() {
    let mut images = Images::with_blocks(3);
    images.paths.truncate(1);
    check(&images, 8, "name one of them");
}

#[test]
fn a_set_that_was_not_made_to_the_end_is_mendable() {
    let images = Images::formatted(2);
    images.change_superblock(1, |superblock| {
        superblock.state = State::Initialising;
        superblock.slot_mark = PageCount::ZERO;
        superblock.witness_mark = PageCount::ZERO;
    });
    check(&images, 4, "spare 1 contradicts another spare of its set");
    images.change_superblock(0, |superblock| superblock.witness_mark = PageCount::ZERO);
    check(&images, 1, "not been added");
    images.change_superblock(0, |superblock| superblock.state = State::Initialising);
    check(&images, 1, "was not made to the end");
    // It holds nothing, whatever is in the place of its slot pages, and whether or not they are said to be good.
    for end in [End::Front, End::Back] {
        let place = images.slot_page_place(0, page(1), end);
        images.write(0, place, &[7; PAGE_BYTES]);
    }
    images.change_superblock(0, |superblock| superblock.slot_mark = PageCount(1));
    check(&images, 1, "2 of 2 spares, 0 blocks relocated");
}

#[test]
fn what_is_no_spare_is_refused() {
    let images = Images::blank(1);
    check(&images, 8, "nothing there is a spare");
    images.write(0, images.superblock_place(End::Front), &[7; PAGE_BYTES]);
    check(&images, 8, "not metadata of dm-remap");
}

#[test]
fn spares_of_two_sets_are_refused() {
    let mut images = Images::formatted(2);
    let others = Images::formatted(2);
    images.paths[1] = others.paths[1].clone();
    check(&images, 8, "belongs to the set");
}

#[test]
fn two_times_the_same_spare_is_refused() {
    let mut images = Images::formatted(2);
    let copy = images.paths[0].with_extension("copy");
    std::fs::copy(&images.paths[0], &copy).expect("it can be copied");
    images.paths[1] = copy;
    let ended = images.run(&["check"]);
    assert_eq!(ended.status, 8);
    assert!(ended.text.contains("both are spare 0"), "{}", ended.text);
    images.paths[1] = images.paths[0].clone();
    let ended = images.run(&["check"]);
    assert_eq!(ended.status, 8);
    assert!(ended.text.contains("named twice"), "{}", ended.text);
}

#[test]
fn main_is_compared() {
    let images = Images::formatted(1);
    assert_eq!(
        images.run(&["check", "--main", &MAIN.to_string()]).status,
        0
    );
    let ended = images.run(&["check", "--main", "4711"]);
    assert_eq!(ended.status, 8);
    assert!(ended.text.contains("main of 200001"), "{}", ended.text);
    let main = images.paths[0].with_extension("main");
    let file = File::create(&main).expect("there is room");
    file.set_len(MAIN * 512).expect("there is room");
    let main = main.to_str().expect("it is text");
    assert_eq!(images.run(&["check", "--main", main]).status, 0);
}

#[test]
fn a_spare_that_was_cut_is_damage() {
    let images = Images::formatted(1);
    let (_, bytes) = images.superblock(0);
    let file = File::options().write(true).open(&images.paths[0]);
    let file = file.expect("it can be opened");
    file.set_len(4 << 20).expect("it can be cut");
    check(&images, 4, "was initialised with");
    assert_eq!(bytes, images.superblock(0).1);
}

#[test]
fn a_spare_in_use_is_checked_and_said_to_be() {
    let images = Images::formatted(1);
    let file = File::open(&images.paths[0]).expect("it can be opened");
    flock(&file, FlockOperation::LockExclusive).expect("it is free");
    let ended = images.run(&["check"]);
    assert_eq!(ended.status, 0, "{}", ended.text);
    assert!(ended.text.contains("is in use"), "{}", ended.text);
}

#[test]
fn a_slot_beyond_the_last_is_damage_of_its_copy() {
    let images = Images::with_blocks(1);
    let (superblock, _) = images.superblock(0);
    let slots = superblock.layout.slots().0;
    images.change_copy(0, page(superblock.slot_mark.0), End::Front, |bytes| {
        let last = bytes.len() - 24;
        bytes[last..].copy_from_slice(&[1; 24]);
    });
    assert!(
        slots % 168 != 0,
        "the last page has entries beyond the last slot"
    );
    check(&images, 1, "the first copy of slot page");
    assert_eq!(superblock.spare, index(0));
}

#[test]
fn a_command_line_without_sense_is_told_apart() {
    for arguments in [
        &["check"][..],
        &["mend", "x"],
        &[],
        &["check", "--main"],
        &["format", "x"],
    ] {
        assert_eq!(dmremap(arguments).status, 16, "{arguments:?}");
    }
    assert_eq!(dmremap(&["--help"]).status, 0);
    let ended = dmremap(&["check", "/nonexistent"]);
    assert_eq!(ended.status, 8);
    assert!(
        ended.text.contains("/nonexistent cannot be opened"),
        "{}",
        ended.text
    );
}
