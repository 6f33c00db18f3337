// SPDX-License-Identifier: GPL-2.0

//! Messages are read as documented, and a malformed one is refused with a sentence that names the
//! word.

use dm_remap_host::remap::message::check_on_device;
use dm_remap_host::remap::message::Message;
use dm_remap_host::remap::message::SectorRange;
use dm_remap_host::remap::message::HELP;
use dm_remap_host::remap::options::Options;
use dm_remap_host::remap::options::ReadRetries;
use dm_remap_host::remap::options::ScanInterval;
use dm_remap_host::remap::options::ScanRate;
use dm_remap_host::remap::options::Setting;
use dm_remap_host::remap::units::Sector;
use dm_remap_host::remap::units::Sectors;
use proptest::prelude::*;

fn parse(line: &str) -> Result<Message, &'static str> {
    Message::parse(line.split_ascii_whitespace().map(str::as_bytes))
}

fn range(first: u64, count: u64) -> SectorRange {
    SectorRange::new(Sector(first), Sectors(count)).expect("a test uses valid ranges")
}

#[test]
fn every_message_is_read() {
    let from = |from, max| Message::List {
        from: Sector(from),
        max,
    };
    for (line, message) in [
        ("add 7", Message::Add(range(7, 1))),
        ("add 7 100", Message::Add(range(7, 100))),
        ("remove 0", Message::Remove(range(0, 1))),
        ("remove 8 8", Message::Remove(range(8, 8))),
        (
            "lookup 18446744073709551615",
            Message::Lookup(Sector(u64::MAX)),
        ),
        ("list", from(0, None)),
        ("list 9", from(9, None)),
        ("list 9 20", from(9, Some(20))),
        ("set auto 0", Message::Set(Setting::Automatic(false))),
        ("set auto 1", Message::Set(Setting::Automatic(true))),
        (
            "set scan_interval 0",
            Message::Set(Setting::ScanInterval(ScanInterval(0))),
        ),
        (
            "set scan_rate 1",
            Message::Set(Setting::ScanRate(ScanRate::new(1).unwrap())),
        ),
        (
            "set read_retries 100",
            Message::Set(Setting::ReadRetries(ReadRetries::new(100).unwrap())),
        ),
        ("stats", Message::Stats),
        ("stats reset", Message::StatsReset),
        ("sync", Message::Sync),
        ("help", Message::Help),
    ] {
        assert_eq!(parse(line), Ok(message), "{line}");
    }
}

#[test]
fn a_malformed_message_is_refused_by_what_is_wrong() {
    for (line, named) in [
        ("", "empty"),
        ("ad 7", "no such message"),
        ("ADD 7", "no such message"),
        ("scan", "scan takes"),
        ("add", "sector is missing"),
        ("remove", "sector is missing"),
        ("lookup", "sector is missing"),
        ("add x", "sector must be"),
        ("add -1", "sector must be"),
        ("add 1.0", "sector must be"),
        ("add 0x10", "sector must be"),
        ("add 18446744073709551616", "sector must be"),
        ("add 7 0", "count must be"),
        ("add 7 -1", "count must be"),
        ("remove 7 x", "count must be"),
        ("add 18446744073709551615 1", "sector and count"),
        ("add 2 18446744073709551614", "sector and count"),
        ("add 7 1 1", "more words"),
        ("lookup 7 1", "more words"),
        ("list x", "sector must be"),
        ("list 1 0", "max must be"),
        ("list 1 1 1", "more words"),
        ("set", "name is missing"),
        ("set auto", "value is missing"),
        ("set block_size 8", "name must be"),
        ("set auto 2", "auto must be"),
        ("set auto yes", "auto must be"),
        ("set scan_interval x", "scan_interval must be"),
        ("set scan_rate 0", "scan_rate must be"),
        ("set read_retries 101", "read_retries must be"),
        ("set auto 1 1", "more words"),
        ("stats all", "stats takes"),
        ("stats reset now", "more words"),
        ("sync now", "more words"),
        ("help me", "more words"),
    ] {
        let error = parse(line).expect_err(line);
        assert!(error.contains(named), "{line}: {error}");
    }
}

#[test]
fn a_range_beyond_the_device_is_refused() {
    let size = Sectors(100);
    assert_eq!(range(0, 100).check_within(size), Ok(()));
    assert_eq!(range(99, 1).check_within(size), Ok(()));
    assert!(range(100, 1)
        .check_within(size)
        .unwrap_err()
        .starts_with("sector "));
    assert!(range(99, 2)
        .check_within(size)
        .unwrap_err()
        .starts_with("count "));
    assert!(range(1, u64::MAX - 1).check_within(size).is_err());
    assert!(check_on_device(Sector(0), Sectors(0)).is_err());
    assert_eq!(range(5, 3).last(), Sector(7));
}

#[test]
fn a_setting_changes_only_its_own_option() {
    let Ok(Message::Set(setting)) = parse("set scan_rate 5") else {
        panic!("this is a setting");
    };
    let expected = Options {
        scan_rate: ScanRate::new(5).unwrap(),
        ..Options::DEFAULT
    };
    assert_eq!(Options::DEFAULT.with(setting), expected);
}

/// Every line of the help names a message that exists.
#[test]
fn the_help_tells_what_is_there() {
    let mut verbs = Vec::new();
    for line in HELP.lines() {
        let (usage, _) = line
            .split_once("  ")
            .expect("a line has a usage and an explanation");
        let words = usage
            .replace("<name> <value>", "auto 1")
            .replace(['[', ']'], "");
        let words = words
            .replace("<sector>", "1")
            .replace("<count>", "1")
            .replace("<max>", "1");
        assert!(parse(&words).is_ok(), "{words}");
        verbs.push(usage.split(' ').next().unwrap());
    }
    assert_eq!(
        verbs,
        [
            "add", "remove", "lookup", "list", "set", "scan", "scan", "scan", "scan", "scan",
            "health", "stats", "stats", "sync", "help"
        ]
    );
}

proptest! {
    #[test]
    fn no_message_panics(words in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..24), 0..5)) {
        let _ = Message::parse(words.iter().map(Vec::as_slice));
    }

    #[test]
    fn numbers_are_read_exactly(first in any::<u64>(), count in 1u64..) {
        let read = parse(&format!("add {first} {count}"));
        let expected = first.checked_add(count).map(|_| Message::Add(range(first, count)));
        prop_assert_eq!(read.ok(), expected);
    }
}
