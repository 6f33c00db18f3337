// SPDX-License-Identifier: GPL-2.0

//! `dump`.

use crate::images::page;
use crate::images::Images;
use crate::images::MAIN;
use dm_remap_host::remap::geometry::End;
use dm_remap_host::remap::geometry::PAGE_BYTES;
use dm_remap_host::remap::slot_page::set_moves;
use dm_remap_host::remap::slot_page::Moves;
use serde_json::json;

#[test]
fn json_has_the_set_the_spares_and_the_blocks() {
    let images = Images::with_blocks(2);
    let moves = Moves {
        relocated: 7,
        ..Moves::default()
    };
    images.change_page(1, page(2), |page| set_moves(page, moves));
    for spare in 0..2 {
        images.change_superblock(spare, |superblock| superblock.set.progress.passes = 3);
    }
    let shown = images.dump();
    let (superblock, _) = images.superblock(1);
    assert_eq!(shown["uuid"], json!(superblock.set.uuid.to_string()));
    assert_eq!(shown["main_sectors"], json!(MAIN));
    assert_eq!(shown["block_size"], json!(8));
    assert_eq!(
        shown["spares"][1]["superblock"]["data_start"],
        json!(superblock.layout.data_start().0)
    );
    assert_eq!(shown["spares"][1]["used"], json!(20));
    assert_eq!(
        (&shown["scan_passes"], &shown["relocated"]),
        (&json!(3), &json!(7))
    );
    assert_eq!(shown["spares"][1]["device"], json!(images.paths[1]));
    let blocks = shown["relocations"].as_array().expect("it is a list");
    assert_eq!(blocks.len(), 40);
    let data_start = superblock.layout.data_start().0;
    assert_eq!(
        blocks[21],
        json!({
            "sector": 8024, "sectors": 8, "spare": 1, "spare_sector": data_start + 320,
            "live": "f7", "cause": "write", "time": 100,
        })
    );
}

#[test]
fn lines_are_those_of_the_message_list() {
    let images = Images::with_blocks(1);
    let data_start = images.superblock(0).0.layout.data_start().0;
    let ended = images.run(&["dump"]);
    let line = format!("\n24 8 0 {} f7 write 100\n", data_start + 320);
    assert!(ended.text.contains(&line), "{}", ended.text);
    assert_eq!(ended.status, 0);
}

#[test]
fn a_part_can_be_asked_for() {
    let images = Images::with_blocks(2);
    let ended = images.run(&["dump", "--format=json", "--sector", "25", "--limit", "2"]);
    let shown: serde_json::Value = serde_json::from_str(&ended.text).expect("it is JSON");
    let sectors = [
        &shown["relocations"][0]["sector"],
        &shown["relocations"][1]["sector"],
    ];
    // The first block has the sector in its middle.
    assert_eq!(sectors, [&json!(24), &json!(48)]);
    assert_eq!(shown["relocations"].as_array().map(Vec::len), Some(2));
}

#[test]
fn a_missing_spare_has_no_places() {
    let mut images = Images::with_blocks(2);
    images.paths.remove(0);
    let shown = images.dump();
    assert_eq!(shown["spares"][0]["device"], json!(null));
    assert_eq!(shown["relocations"][0]["spare_sector"], json!(null));
    assert_eq!(shown["relocations"].as_array().map(Vec::len), Some(40));
}

#[test]
fn damage_is_shown_only_when_forced() {
    let images = Images::with_blocks(2);
    for end in [End::Front, End::Back] {
        images.write(1, images.slot_page_place(1, page(1), end), &[1; PAGE_BYTES]);
    }
    let ended = images.run(&["dump"]);
    assert_eq!(ended.status, 4);
    assert!(
        ended.text.contains("slot page 1 cannot be used"),
        "{}",
        ended.text
    );
    let ended = images.run(&["dump", "--force", "--format", "json"]);
    assert_eq!(ended.status, 4);
    let shown: serde_json::Value = serde_json::from_str(&ended.text).expect("it is JSON");
    assert_eq!(shown["relocations"].as_array().map(Vec::len), Some(35));
    assert!(shown["findings"][0]
        .as_str()
        .is_some_and(|it| it.contains("slot page 1")));
}
