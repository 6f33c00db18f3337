// SPDX-License-Identifier: GPL-2.0

//! A table line is read as documented, refused with a sentence that names the argument, and
//! written so that it gives the same device when it is read again.

use dm_remap_host::remap::identity::MainId;
use dm_remap_host::remap::identity::Uuid;
use dm_remap_host::remap::options::Options;
use dm_remap_host::remap::options::ReadRetries;
use dm_remap_host::remap::options::ScanInterval;
use dm_remap_host::remap::options::ScanRate;
use dm_remap_host::remap::table_line::Config;
use dm_remap_host::remap::table_line::Features;
use dm_remap_host::remap::table_line::Line;
use dm_remap_host::remap::units::BlockSize;
use dm_remap_host::remap::units::Sectors;
use proptest::prelude::*;

fn parse(line: &str) -> Result<Config<'_>, &'static str> {
    Config::parse(line.split_ascii_whitespace().map(str::as_bytes))
        .map_err(|wrong| wrong.to_str().expect("a sentence in ASCII"))
}

fn error(line: &str) -> &'static str {
    parse(line).expect_err(line)
}

fn features(words: &str) -> Features {
    let count = words.split_ascii_whitespace().count();
    let line = format!("/dev/sdb 1 /dev/sdc1 {count} {words}");
    parse(&line)
        .unwrap_or_else(|error| panic!("{words}: {error}"))
        .features
}

fn feature_error(words: &str) -> &'static str {
    let count = words.split_ascii_whitespace().count();
    error(&format!("/dev/sdb 1 /dev/sdc1 {count} {words}"))
}

#[test]
fn the_shortest_line_is_main_and_one_spare() {
    let config = parse("/dev/sdb 1 /dev/sdc1").unwrap();
    assert_eq!(config.main, b"/dev/sdb");
    assert_eq!(config.spares(), [Some(b"/dev/sdc1".as_slice())]);
    assert_eq!(config.features, Features::default());
    assert_eq!(parse("/dev/sdb 1 /dev/sdc1 0"), Ok(config));
}

#[test]
fn every_feature_is_read() {
    let uuid = "6BA7B810-9dad-41d1-80b4-00c04fd430c8";
    let words = format!(
        "uuid {uuid} main_id wwn-0x5 read_retries 100 scan_rate 1 scan_interval 0 manual block_size 64"
    );
    assert_eq!(
        features(&words),
        Features {
            block_size: BlockSize::new(Sectors(64)),
            manual: true,
            scan_interval: Some(ScanInterval(0)),
            scan_rate: ScanRate::new(1),
            read_retries: ReadRetries::new(100),
            main_id: MainId::parse(b"wwn-0x5"),
            uuid: Uuid::parse(uuid.as_bytes()),
        }
    );
}

#[test]
fn what_is_missing_is_named() {
    assert!(error("").starts_with("main_dev is missing"));
    assert!(error("- 1 /dev/sdc").starts_with("main_dev must"));
    assert!(error("/dev/sdb").starts_with("#spares is missing"));
    assert!(error("/dev/sdb 1").starts_with("spare_dev"));
    assert!(error("/dev/sdb 3 /dev/sdc /dev/sdd").starts_with("spare_dev"));
}

#[test]
fn the_number_of_spares_is_1_to_15() {
    for count in [
        "0",
        "16",
        "-1",
        "+1",
        "x",
        "1x",
        "0x1",
        "18446744073709551617",
    ] {
        let line = format!("/dev/sdb {count}{}", " /dev/sdc".repeat(16));
        assert_eq!(
            error(&line),
            "#spares must be a number from 1 to 15",
            "{count}"
        );
    }
    let line = format!("/dev/sdb 15{}", " /dev/sdc".repeat(15));
    assert_eq!(parse(&line).unwrap().spares().len(), 15);
}

#[test]
fn a_spare_may_be_missing_but_not_all() {
    let config = parse("/dev/sdb 3 - /dev/sdc -").unwrap();
    assert_eq!(config.spares(), [None, Some(b"/dev/sdc".as_slice()), None]);
    assert!(error("/dev/sdb 2 - -").starts_with("spare_dev"));
}

#[test]
fn a_count_of_features_that_does_not_match_is_refused() {
    for line in [
        "a 1 b 1",
        "a 1 b 2 block_size",
        "a 1 b 3 block_size 8",
        "a 1 b 1 block_size 8",
        "a 1 b 0 manual",
        "a 1 b 1 manual manual",
        "a 1 b 18446744073709551615 manual",
        "a 1 b -1 manual",
        // One spare more than #spares says.
        "a 1 b c",
    ] {
        assert!(
            error(line).starts_with("#feature_args"),
            "{line}: {}",
            error(line)
        );
    }
}

#[test]
fn unknown_and_repeated_features_are_refused() {
    for words in ["automatic", "Manual", "auto 1", "block-size 8", "x y"] {
        assert!(
            feature_error(words).starts_with("unknown feature argument"),
            "{words}"
        );
    }
    let uuid = "6ba7b810-9dad-41d1-80b4-00c04fd430c8";
    for pair in [
        "block_size 8",
        "scan_interval 604800",
        "scan_rate 1",
        "read_retries 3",
        "main_id x",
        &format!("uuid {uuid}"),
    ] {
        let name = pair.split(' ').next().unwrap();
        let twice = feature_error(&format!("{pair} {pair}"));
        assert_eq!(twice, format!("{name} is given twice"));
    }
    assert_eq!(feature_error("manual manual"), "manual is given twice");
}

#[test]
fn a_value_out_of_range_is_refused_by_name() {
    let cases = [
        (
            "block_size",
            vec!["0", "3", "128", "-8", "8k", "08x", "18446744073709551624"],
        ),
        ("scan_interval", vec!["-1", "x", "1.5", "4294967296"]),
        (
            "scan_rate",
            vec!["0", "-1", "x", "4294967296", "99999999999999999999"],
        ),
        ("read_retries", vec!["101", "-1", "x", "256"]),
        (
            "uuid",
            vec![
                "x",
                "6ba7b810-9dad-41d1-80b4-00c04fd430c",
                "6ba7b810-9dad-41d1-80b4-00c04fd430c80",
                "6ba7b8109dad41d180b400c04fd430c8",
                "6ba7b810-9dad-41d1-80b4-00c04fd430cg",
                "6ba7b810-9dad-41d1-80b400c0-4fd430c8",
                "6ba7b810-9dad-41d1-80b4-00c04fd430c8-",
                "00000000-0000-0000-0000-000000000000",
            ],
        ),
    ];
    for (name, values) in cases {
        for value in values {
            let error = feature_error(&format!("{name} {value}"));
            assert!(
                error.starts_with(&format!("{name} must be")),
                "{name} {value}: {error}"
            );
        }
    }
    let long = "x".repeat(64);
    assert_eq!(
        features(&format!("main_id {long}"))
            .main_id
            .unwrap()
            .as_str(),
        long
    );
    assert!(feature_error(&format!("main_id {long}x")).starts_with("main_id must be"));
    assert!(feature_error("main_id \u{e9}").starts_with("main_id must be"));
    for size in [1u64, 2, 4, 8, 16, 32, 64] {
        let given = features(&format!("block_size {size}")).block_size;
        assert_eq!(given, BlockSize::new(Sectors(size)));
    }
}

#[test]
fn what_is_not_given_stays_as_it_is_kept() {
    let kept = Options {
        automatic: false,
        scan_interval: ScanInterval(7),
        ..Options::DEFAULT
    };
    assert_eq!(Features::default().options(kept), kept);
    let given = features("read_retries 9 scan_interval 8");
    let options = given.options(kept);
    assert_eq!(options.read_retries.get(), 9);
    assert_eq!(options.scan_interval, ScanInterval(8));
    assert!(!options.automatic);
    assert!(!features("manual").options(Options::DEFAULT).automatic);
}

fn write(config: &Config<'_>, features: Features) -> String {
    let name = |bytes| std::str::from_utf8(bytes).expect("a test uses text");
    let spares: Vec<Option<&str>> = config
        .spares()
        .iter()
        .map(|spare| spare.map(name))
        .collect();
    Line {
        main: name(config.main),
        spares: &spares,
        features,
    }
    .to_string()
}

#[test]
fn the_line_shows_what_was_set_at_run_time() {
    let config = parse("a 2 b - 2 scan_rate 5").unwrap();
    let now = Options {
        automatic: false,
        scan_rate: ScanRate::new(32_768).unwrap(),
        scan_interval: ScanInterval(60),
        ..Options::DEFAULT
    };
    let line = write(&config, config.features.showing(now));
    assert_eq!(line, "a 2 b - 5 manual scan_interval 60 scan_rate 32768");
    let line = write(&config, Features::default().showing(Options::DEFAULT));
    assert_eq!(line, "a 2 b -");
}

fn any_features() -> impl Strategy<Value = Features> {
    (
        prop::option::of((0u32..7).prop_map(|shift| 1u64 << shift)),
        any::<bool>(),
        prop::option::of(any::<u32>()),
        prop::option::of(1u32..),
        prop::option::of(0u32..=100),
        prop::option::of("[!-~]{1,64}"),
        prop::option::of(any::<[u8; 16]>()),
    )
        .prop_map(
            |(size, manual, interval, rate, retries, id, uuid)| Features {
                block_size: size.and_then(|size| BlockSize::new(Sectors(size))),
                manual,
                scan_interval: interval.map(ScanInterval),
                scan_rate: rate.and_then(ScanRate::new),
                read_retries: retries.and_then(ReadRetries::new),
                main_id: id.and_then(|id| MainId::parse(id.as_bytes())),
                uuid: uuid.and_then(Uuid::new),
            },
        )
}

fn any_options() -> impl Strategy<Value = Options> {
    (any::<bool>(), any::<u32>(), 1u32.., 0u32..=100).prop_map(
        |(automatic, interval, rate, retries)| Options {
            automatic,
            scan_interval: ScanInterval(interval),
            scan_rate: ScanRate::new(rate).unwrap(),
            read_retries: ReadRetries::new(retries).unwrap(),
        },
    )
}

proptest! {
    #[test]
    fn a_written_line_is_read_as_the_same(
        main in "/[!-~]{1,20}",
        spares in prop::collection::vec(prop::option::of("/[!-~]{1,20}"), 1..=15),
        features in any_features(),
    ) {
        prop_assume!(spares.iter().any(Option::is_some));
        let line = Line { main: main.as_str(), spares: &spares.iter().map(Option::as_deref).collect::<Vec<_>>(), features };
        let text = line.to_string();
        let config = parse(&text).unwrap();
        prop_assert_eq!(config.main, main.as_bytes());
        prop_assert_eq!(config.features, features);
        let read: Vec<_> = config.spares().iter().map(|spare| spare.map(<[u8]>::to_vec)).collect();
        let given: Vec<_> = spares.iter().map(|spare| spare.clone().map(String::into_bytes)).collect();
        prop_assert_eq!(read, given);
        prop_assert_eq!(write(&config, config.features), text);
    }

    /// The line that is shown gives the options in force, on a set that keeps these options and on
    /// one that keeps the default.
    #[test]
    fn the_line_shown_gives_the_same_device(given in any_features(), now in any_options()) {
        let shown = given.showing(now);
        prop_assert_eq!(shown.options(now), now);
        prop_assert_eq!(shown.options(Options::DEFAULT), now);
    }

    #[test]
    fn no_line_panics(words in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..6), 0..20)) {
        let _ = Config::parse(words.iter().map(Vec::as_slice));
    }

    /// As above, from words that lead further.
    #[test]
    fn no_nearly_valid_line_panics(words in prop::collection::vec(prop::sample::select(vec![
        "1", "2", "3", "15", "-", "/dev/sdb", "block_size", "8", "manual", "scan_rate", "uuid", "main_id",
        "18446744073709551615", "0",
    ]), 0..12)) {
        if let Ok(config) = Config::parse(words.iter().map(|word| word.as_bytes())) {
            let again = write(&config, config.features);
            prop_assert_eq!(parse(&again), Ok(config));
        }
    }

    #[test]
    fn a_uuid_is_read_as_it_is_written(bytes in any::<[u8; 16]>()) {
        let random = Uuid::from_random(bytes);
        prop_assert_eq!(Uuid::parse(random.to_string().as_bytes()), Some(random));
        let text = random.to_string();
        // Version 4, variant of RFC 9562.
        prop_assert_eq!(&text[14..15], "4");
        prop_assert!("89ab".contains(&text[19..20]));
    }
}
