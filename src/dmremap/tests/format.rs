// SPDX-License-Identifier: GPL-2.0

//! `format`.

use crate::images::dmremap;
use crate::images::Ended;
use crate::images::Images;
use dm_remap_host::remap::geometry::plan_set;
use dm_remap_host::remap::geometry::End;
use dm_remap_host::remap::geometry::FIRST_MARK;
use dm_remap_host::remap::geometry::PAGE_BYTES;
use dm_remap_host::remap::units::BlockSize;
use dm_remap_host::remap::units::Sectors;
use rustix::fs::flock;
use rustix::fs::FlockOperation;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::Command;

fn format(images: &Images, options: &[&str]) -> Ended {
    images.run(&[&["format", "--main", "100000"], options].concat())
}

/// What would be overwritten is named, nothing is changed, and `--force` overwrites it.
fn overwrites_only_by_force(images: &Images, what: &str) {
    let before = images.bytes();
    let ended = format(images, &[]);
    assert_eq!(ended.status, 8, "{}", ended.text);
    assert!(
        ended.text.contains(what),
        "not \"{what}\" but: {}",
        ended.text
    );
    assert!(images.bytes() == before, "the images have changed");
    let ended = format(images, &["--force"]);
    assert_eq!(ended.status, 0, "{}", ended.text);
    assert!(
        ended.text.contains(what),
        "not \"{what}\" but: {}",
        ended.text
    );
    assert_eq!(images.run(&["check", "--quiet"]).status, 0);
}

#[test]
fn a_set_is_laid_out_as_by_an_activation() {
    for count in [1, 2, 5] {
        for block_size in [1, 8, 64] {
            let images = Images::blank(count);
            let option = block_size.to_string();
            let ended = format(&images, &["--block-size", &option, "--main-id", "wwn-0x5"]);
            assert_eq!(ended.status, 0, "{}", ended.text);
            assert_eq!(
                images.run(&["check", "--quiet", "--main", "100000"]).status,
                0
            );
            let sizes = vec![Sectors(crate::images::SIZE / 512); count];
            let block_size = BlockSize::new(Sectors(block_size)).expect("it is valid");
            let layouts = plan_set(&sizes, block_size).expect("they are large enough");
            for (spare, layout) in layouts.iter().flatten().enumerate() {
                let (superblock, _) = images.superblock(spare);
                assert_eq!(superblock.layout, *layout);
                assert_eq!(superblock.slot_mark, layout.slot_pages().min(FIRST_MARK));
                assert_eq!(superblock.set.main_id.as_str(), "wwn-0x5");
            }
        }
    }
}

#[test]
fn the_name_of_the_set_can_be_given() {
    let images = Images::blank(1);
    let uuid = "12345678-9abc-4def-8123-456789abcdef";
    assert_eq!(format(&images, &["--uuid", uuid]).status, 0);
    assert_eq!(images.superblock(0).0.set.uuid.to_string(), uuid);
}

#[test]
fn a_filesystem_is_named_and_kept() {
    let images = Images::blank(2);
    let made = Command::new("mke2fs")
        .args(["-q", "-t", "ext4"])
        .arg(&images.paths[1])
        .status();
    assert!(made.expect("mke2fs can be run").success());
    overwrites_only_by_force(&images, "holds ext4");
}

#[test]
fn what_lies_behind_the_first_page_is_named_and_kept() {
    let images = Images::blank(1);
    // A volume descriptor of ISO 9660.
    let file = File::options().write(true).open(&images.paths[0]);
    let file = file.expect("it can be opened");
    file.write_all_at(b"\x01CD001\x01", 32768)
        .expect("it can be written");
    overwrites_only_by_force(&images, "holds iso9660");
}

#[test]
fn something_unknown_at_either_end_is_kept() {
    for end in [End::Front, End::Back] {
        let images = Images::blank(2);
        let mut bytes = [0; PAGE_BYTES];
        bytes[PAGE_BYTES - 1] = 1;
        images.write(1, images.superblock_place(end), &bytes);
        overwrites_only_by_force(&images, "holds something that is not known");
    }
}

#[test]
fn a_spare_is_named_and_kept() {
    overwrites_only_by_force(&Images::with_blocks(2), "holds spare 0 of the set");
}

#[test]
fn what_cannot_be_a_set_is_refused() {
    let images = Images::blank(2);
    let spares: Vec<_> = images
        .paths
        .iter()
        .map(|path| path.to_str().expect("text"))
        .collect();
    let refused = |status, arguments: &[&str], said: &str| {
        let ended = dmremap(&[&["format"], arguments].concat());
        assert_eq!(ended.status, status, "{}", ended.text);
        assert!(
            ended.text.contains(said),
            "not \"{said}\" but: {}",
            ended.text
        );
    };
    let [one, other] = spares[..] else {
        panic!("there are two");
    };
    refused(8, &["--main", one, one], "is main");
    refused(8, &["--main", "1000", one, one], "named twice");
    refused(8, &["--main", "0", one], "main has no sectors");
    refused(8, &["--main", "/nonexistent", one], "cannot be opened");
    refused(
        8,
        &["--main", "99999999999", "--block-size=1", one],
        "more than 2^32 blocks",
    );
    refused(
        16,
        &["--main", "1000", "--block-size=3", one],
        "power of two",
    );
    refused(16, &["--main", "1000", "--uuid=0", one], "UUID");
    refused(
        16,
        &["--main", "1000", "--main-id=a b", one],
        "without blanks",
    );
    refused(16, &[one], "--main");
    let file = File::options()
        .write(true)
        .open(one)
        .expect("it can be opened");
    file.set_len(8192).expect("it can be cut");
    refused(8, &["--main", "1000", one, other], "spare 0 is too small");
    assert!(images.bytes().concat().iter().all(|byte| *byte == 0));
}

#[test]
fn a_spare_in_use_is_refused() {
    let images = Images::blank(1);
    let file = File::open(&images.paths[0]).expect("it can be opened");
    flock(&file, FlockOperation::LockShared).expect("it is free");
    let ended = format(&images, &["--force"]);
    assert_eq!(ended.status, 8);
    assert!(ended.text.contains("is in use"), "{}", ended.text);
    assert!(images.bytes()[0].iter().all(|byte| *byte == 0));
}
