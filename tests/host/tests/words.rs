// SPDX-License-Identifier: GPL-2.0

//! What a word of a table line or a message means: numbers, names, options, ranges; and what an error number means.

use dm_remap_host::remap::fault::Fault;
use dm_remap_host::remap::identity::MainId;
use dm_remap_host::remap::identity::Uuid;
use dm_remap_host::remap::identity::MAIN_ID_BYTES;
use dm_remap_host::remap::message::check_on_device;
use dm_remap_host::remap::message::Message;
use dm_remap_host::remap::message::SectorRange;
use dm_remap_host::remap::options::Options;
use dm_remap_host::remap::options::ReadRetries;
use dm_remap_host::remap::options::ScanInterval;
use dm_remap_host::remap::options::ScanRate;
use dm_remap_host::remap::options::Setting;
use dm_remap_host::remap::units::Sector;
use dm_remap_host::remap::units::Sectors;
use dm_remap_host::remap::words::decimal;
use dm_remap_host::remap::words::decimal_u32;
use proptest::prelude::*;

/// A word that is a number, nearly one, or neither.
fn word() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        any::<u64>().prop_map(|number| number.to_string().into_bytes()),
        any::<u128>().prop_map(|number| number.to_string().into_bytes()),
        "[0-9]{0,22}".prop_map(String::into_bytes),
        "[-+ ]?[0-9a-fx_.]{0,21}".prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..22),
    ]
}

/// The number that a word of nothing but decimal digits has: the standard library takes a sign, too.
fn number(word: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(word).ok()?;
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// Any setting, and the words for it.
fn setting() -> impl Strategy<Value = (Setting, [String; 2])> {
    let words = |name: &str, value: u32| [name.to_owned(), value.to_string()];
    prop_oneof![
        any::<bool>().prop_map(move |on| (Setting::Automatic(on), words("auto", on.into()))),
        any::<u32>().prop_map(move |seconds| {
            let interval = ScanInterval(seconds);
            (
                Setting::ScanInterval(interval),
                words("scan_interval", seconds),
            )
        }),
        (1..=u32::MAX).prop_map(move |rate| {
            let setting = Setting::ScanRate(ScanRate::new(rate).unwrap());
            (setting, words("scan_rate", rate))
        }),
        (0..=ReadRetries::MAX).prop_map(move |retries| {
            let setting = Setting::ReadRetries(ReadRetries::new(retries).unwrap());
            (setting, words("read_retries", retries))
        }),
    ]
}

proptest! {
    #[test]
    fn a_number_is_its_digits(word in word()) {
        prop_assert_eq!(decimal(&word), number(&word));
        let small = number(&word).and_then(|number| u32::try_from(number).ok());
        prop_assert_eq!(decimal_u32(&word), small);
    }

    #[test]
    fn a_uuid_is_read_as_it_is_shown(bytes: [u8; 16], upper: bool) {
        prop_assume!(bytes != [0; 16]);
        let uuid = Uuid::new(bytes).unwrap();
        let mut text = uuid.to_string();
        if upper {
            text.make_ascii_uppercase();
        }
        prop_assert_eq!(Uuid::parse(text.as_bytes()), Some(uuid));
        prop_assert_eq!(uuid.bytes(), &bytes);
    }

    #[test]
    fn a_uuid_has_just_its_digits(bytes: [u8; 16], at in 0..37usize, byte: u8) {
        let uuid = Uuid::from_random(bytes);
        let text = uuid.to_string().into_bytes();
        prop_assert_eq!((text[14], matches!(text[19], b'8' | b'9' | b'a' | b'b')), (b'4', true));
        let mut longer = text.clone();
        longer.insert(at.min(text.len()), byte);
        prop_assert_eq!(Uuid::parse(&longer), None);
        let mut shorter = text;
        shorter.remove(at % 36);
        prop_assert_eq!(Uuid::parse(&shorter), None);
    }

    #[test]
    fn a_name_of_main_is_read_as_it_is_shown(text in "[!-~]{1,64}") {
        let id = MainId::parse(text.as_bytes()).unwrap();
        prop_assert_eq!(id.as_str(), &text);
        prop_assert_eq!(MainId::from_bytes(*id.bytes()), Some(id));
        prop_assert!(!id.is_none());
    }

    #[test]
    fn a_name_of_main_has_a_text_or_is_refused(word in prop::collection::vec(any::<u8>(), 0..80)) {
        let fits = (1..=MAIN_ID_BYTES).contains(&word.len());
        let printable = word.iter().all(u8::is_ascii_graphic);
        let id = MainId::parse(&word);
        prop_assert_eq!(id.is_some(), fits && printable);
        if let Some(id) = id {
            prop_assert_eq!(id.as_str().as_bytes(), &word[..]);
        }
    }

    #[test]
    fn bytes_of_a_name_say_one_thing(bytes in prop::collection::vec(any::<u8>(), MAIN_ID_BYTES), len in 0..=MAIN_ID_BYTES) {
        let mut bytes: [u8; MAIN_ID_BYTES] = bytes.try_into().unwrap();
        bytes[len..].fill(0);
        if let Some(id) = MainId::from_bytes(bytes) {
            let word = id.as_str().as_bytes();
            prop_assert_eq!(MainId::parse(word).unwrap_or(MainId::NONE), id);
        } else {
            prop_assert!(!bytes[..len].iter().all(u8::is_ascii_graphic));
        }
    }

    #[test]
    fn a_setting_is_what_its_words_say((setting, [name, value]) in setting()) {
        let parsed = Setting::parse(name.as_bytes(), value.as_bytes());
        prop_assert_eq!(parsed, Some(Ok(setting)));
        let words = ["set", &name, &value];
        let message = Message::parse(words.iter().map(|word| word.as_bytes()));
        prop_assert_eq!(message, Ok(Message::Set(setting)));
    }

    #[test]
    fn a_setting_changes_one_option((setting, _) in setting(), (other, _) in setting()) {
        let changed = Options::DEFAULT.with(other).with(setting);
        prop_assert_eq!(changed.with(setting), changed);
        let same_option = std::mem::discriminant(&setting) == std::mem::discriminant(&other);
        if same_option {
            prop_assert_eq!(changed, Options::DEFAULT.with(setting));
        } else {
            prop_assert_eq!(changed, Options::DEFAULT.with(setting).with(other));
        }
    }

    #[test]
    fn an_option_takes_no_other_value(name in "auto|scan_interval|scan_rate|read_retries", value in word()) {
        let in_range = |number: u64| match name.as_str() {
            "auto" => number <= 1,
            "scan_interval" => number <= u32::MAX.into(),
            "scan_rate" => (1..=u32::MAX.into()).contains(&number),
            _ => number <= 100,
        };
        let refused = match Setting::parse(name.as_bytes(), &value).unwrap() {
            Ok(_) => false,
            Err(why) => {
                prop_assert!(why.to_str().unwrap().starts_with(&name), "{:?}", why);
                true
            }
        };
        prop_assert_eq!(refused, !number(&value).is_some_and(in_range));
    }

    #[test]
    fn a_range_lies_within_a_device_or_not(first: u64, count: u64, size: u64, near in 0..4u64) {
        for (first, count, size) in [
            (first, count, size),
            (size.saturating_sub(near), near, size),
            (size.saturating_sub(near), near.saturating_add(1), size),
            (first, (u64::MAX - first).saturating_add(near), size),
        ] {
            let end = u128::from(first) + u128::from(count);
            let range = SectorRange::new(Sector(first), Sectors(count));
            prop_assert_eq!(range.is_some(), count > 0 && end <= u64::MAX.into());
            let Some(range) = range else { continue };
            prop_assert_eq!((range.first(), range.count()), (Sector(first), Sectors(count)));
            prop_assert_eq!(u128::from(range.last().0) + 1, end);
            let within = range.check_within(Sectors(size)).is_ok();
            prop_assert_eq!(within, end <= u128::from(size));
            let on_device = check_on_device(Sector(first), Sectors(size)).is_ok();
            prop_assert_eq!(on_device, first < size);
        }
    }

    #[test]
    fn only_two_errors_speak_of_the_medium(errno in prop_oneof![any::<i32>(), 0..134]) {
        let fault = match errno {
            // ENODATA, EIO
            61 => Fault::Medium,
            5 => Fault::Unclear,
            _ => Fault::Elsewhere,
        };
        prop_assert_eq!(Fault::of(errno), fault);
    }
}
