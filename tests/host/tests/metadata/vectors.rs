// SPDX-License-Identifier: GPL-2.0

//! The test vectors mean what they say, and are written byte for byte as they are.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::ops::Range;
use std::path::PathBuf;
use std::process::Command;

use dm_remap_host::crc32c::crc32c;
use dm_remap_host::remap::geometry::EntryIndex;
use dm_remap_host::remap::geometry::PageNumber;
use dm_remap_host::remap::identity::Uuid;
use dm_remap_host::remap::page::seal;
use dm_remap_host::remap::page::Name;
use dm_remap_host::remap::page::Page;
use dm_remap_host::remap::page::Subject;
use dm_remap_host::remap::slot_page::clear;
use dm_remap_host::remap::slot_page::entries;
use dm_remap_host::remap::slot_page::examine;
use dm_remap_host::remap::slot_page::moves;
use dm_remap_host::remap::slot_page::set_entry;
use dm_remap_host::remap::slot_page::set_moves;
use dm_remap_host::remap::slot_page::Extent;
use dm_remap_host::remap::slot_page::SlotEntry;
use dm_remap_host::remap::superblock::State;
use dm_remap_host::remap::superblock::Superblock;
use dm_remap_host::remap::units::Sectors;
use dm_remap_host::remap::units::SlotCount;

use crate::metadata::make::block_size;
use crate::metadata::make::index;
use crate::metadata::make::BLANK;

/// Where in a superblock the state of the health model is.
const HEALTH: Range<usize> = 512..1024;

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../vectors"))
}

/// A vector: what the page means, and its bytes.
struct Vector {
    meaning: String,
    page: Page,
}

impl Vector {
    fn read(name: &str) -> Self {
        let text = fs::read_to_string(folder().join(name)).expect("the vector can be read");
        let (meaning, rows) = text
            .split_once("\n\n")
            .expect("an empty line ends the meaning");
        let mut page = BLANK;
        for row in rows.lines() {
            let (at, digits) = row.split_once(": ").expect("a row has an offset");
            let at = usize::from_str_radix(at, 16).expect("an offset is hexadecimal");
            let bytes: Vec<u8> = (0..digits.len())
                .step_by(2)
                .map(|digit| {
                    u8::from_str_radix(&digits[digit..digit + 2], 16).expect("hexadecimal")
                })
                .collect();
            page[at..at + bytes.len()].copy_from_slice(&bytes);
        }
        Self {
            meaning: meaning.to_owned(),
            page,
        }
    }

    /// The value of `key` in the meaning.
    fn value(&self, key: &str) -> &str {
        let mut lines = self
            .meaning
            .lines()
            .filter_map(|line| line.split_once(" ="));
        let (_, value) = lines
            .find(|(name, _)| *name == key)
            .expect("the vector says it");
        value.trim_start()
    }

    fn number(&self, key: &str) -> u64 {
        self.value(key).parse().expect("a number")
    }

    fn name(&self) -> Name {
        let page = PageNumber::new(self.number("page") as u32);
        Name {
            uuid: Uuid::parse(self.value("uuid").as_bytes()).expect("a UUID"),
            spare: index(self.number("spare") as usize),
            subject: match (self.value("class"), page) {
                ("superblock", None) => Subject::Superblock,
                ("slots", Some(page)) => Subject::Slots(page),
                ("witness", Some(page)) => Subject::Witness(page),
                other => panic!("there is no page like {other:?}"),
            },
        }
    }
}

/// The meaning of the superblock in `page`, as a vector has it.
fn describe_superblock(page: &Page) -> String {
    let superblock = Superblock::decode(page, crc32c).expect("the page is good");
    let Superblock { set, layout, .. } = &superblock;
    let slots_of: Vec<String> = set.slots_of[..set.spares.get()]
        .iter()
        .map(|slots| slots.0.to_string())
        .collect();
    [
        ("class", "superblock".to_owned()),
        ("uuid", set.uuid.to_string()),
        ("sequence", superblock.sequence.get().to_string()),
        ("page", "0".to_owned()),
        ("spare", superblock.spare.get().to_string()),
        (
            "state",
            match superblock.state {
                State::Initialising => "initialising".to_owned(),
                State::Ready => "ready".to_owned(),
            },
        ),
        ("main_sectors", set.main_sectors.0.to_string()),
        ("spare_sectors", layout.parts().spare_sectors.0.to_string()),
        ("data_start", layout.data_start().0.to_string()),
        ("created", set.created.0.to_string()),
        ("block_size", set.block_size.sectors().0.to_string()),
        ("spares", set.spares.get().to_string()),
        ("slots", layout.slots().0.to_string()),
        ("slot_pages", layout.slot_pages().0.to_string()),
        ("witness_pages", layout.witness_pages().0.to_string()),
        ("slot_mark", superblock.slot_mark.0.to_string()),
        ("witness_mark", superblock.witness_mark.0.to_string()),
        ("auto", u8::from(set.options.automatic).to_string()),
        ("scan_interval", set.options.scan_interval.0.to_string()),
        ("scan_rate", set.options.scan_rate.get().to_string()),
        ("read_retries", set.options.read_retries.get().to_string()),
        ("slots_of", slots_of.join(" ")),
        ("main_id", set.main_id.to_string()),
        ("scan_position", set.progress.position.0.to_string()),
        ("scan_passes", set.progress.passes.to_string()),
        ("scan_errors", set.progress.errors.to_string()),
        ("scan_ended", set.progress.ended.0.to_string()),
        ("scan_pass", set.progress.pass.code().to_string()),
        ("health", describe_health(page)),
    ]
    .iter()
    .map(|(key, value)| format!("{key} = {value}").trim_end().to_owned())
    .collect::<Vec<_>>()
    .join("\n")
}

/// The state of the health model in hexadecimal; nothing when it is all zero.
fn describe_health(page: &Page) -> String {
    let health = &page[HEALTH];
    if health == [0; 512] {
        return String::new();
    }
    health.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes everything");
        text
    })
}

#[test]
fn the_superblocks_are_read_and_written() {
    for name in [
        "superblock-single.txt",
        "superblock-third.txt",
        "superblock-initialising.txt",
    ] {
        let vector = Vector::read(name);
        assert_eq!(describe_superblock(&vector.page), vector.meaning, "{name}");

        let superblock = Superblock::decode(&vector.page, crc32c).expect("the page is good");
        let mut page = BLANK;
        // This is kept as it is found.
        page[HEALTH].copy_from_slice(&vector.page[HEALTH]);
        superblock.encode(&mut page, crc32c);
        assert!(page == vector.page, "{name}");
    }
}

#[test]
fn the_slot_pages_are_read_and_written() {
    for name in ["slot-page-empty.txt", "slot-page.txt", "witness-page.txt"] {
        let vector = Vector::read(name);
        let (Subject::Slots(number) | Subject::Witness(number)) = vector.name().subject else {
            panic!("{name} is a superblock");
        };
        let extent = Extent {
            block_size: block_size(vector.number("block_size")),
            main_sectors: Sectors(vector.number("main_sectors")),
        };
        let slots = SlotCount(vector.number("slots") as u32);
        let sequence = examine(&vector.page, &vector.name(), slots, &extent, crc32c)
            .expect("the page is good");
        assert_eq!(sequence.get(), vector.number("sequence"), "{name}");

        let mut page = [0xff; 4096];
        clear(&mut page);
        let moved = moves(&vector.page);
        set_moves(&mut page, moved);
        let mut meaning = format!(
            "relocated = {}\nrelocated_auto = {}\nremoved = {}\n",
            moved.relocated, moved.automatic, moved.removed
        );
        for entry in entries(&vector.page, number, slots, &extent) {
            let (slot, entry) = entry.expect("the entry is good");
            assert_eq!(PageNumber::of(slot), number);
            let at = EntryIndex::of(slot);
            match entry {
                SlotEntry::Free => continue,
                SlotEntry::Retired => writeln!(meaning, "entry {} = retired", at.get()),
                SlotEntry::InUse(record) => writeln!(
                    meaning,
                    "entry {} = {} live {:x} time {} block {}",
                    at.get(),
                    record.cause.name(),
                    record.live.0,
                    record.time.0,
                    record.block.0
                ),
            }
            .expect("a string takes everything");
            set_entry(&mut page, at, entry);
        }
        let stated: Vec<&str> = vector
            .meaning
            .lines()
            .filter(|line| line.starts_with("entry ") || line.starts_with("re"))
            .collect();
        assert_eq!(meaning.lines().collect::<Vec<_>>(), stated, "{name}");

        seal(&mut page, &vector.name(), sequence, crc32c);
        assert!(page == vector.page, "{name}");
    }
}

/// The generator shares nothing with the implementation, so this ties the vectors to the document.
#[test]
fn the_vectors_are_those_of_the_independent_generator() {
    let status = Command::new(folder().join("generate"))
        .arg("--check")
        .status();
    assert!(status.expect("the generator can be run").success());
}

#[test]
fn no_vector_is_left_out() {
    let mut classes = BTreeMap::new();
    for entry in fs::read_dir(folder()).expect("the folder can be read") {
        let name = entry.expect("the folder can be read").file_name();
        let name = name.to_str().expect("the names are ASCII");
        if name.ends_with(".txt") {
            *classes
                .entry(Vector::read(name).value("class").to_owned())
                .or_insert(0) += 1;
        }
    }
    let expected = [("slots", 2), ("superblock", 3), ("witness", 1)];
    assert_eq!(
        classes,
        expected
            .map(|(class, count)| (class.to_owned(), count))
            .into()
    );
}

#[test]
fn the_checksum_is_crc32c() {
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
}
