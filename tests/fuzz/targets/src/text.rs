// SPDX-License-Identifier: GPL-2.0

//! What is typed: table lines and messages.

use dm_remap_host::remap::message::Message;
use dm_remap_host::remap::options::Options;
use dm_remap_host::remap::table_line::Config;
use dm_remap_host::remap::table_line::Line;
use dm_remap_host::remap::units::Sectors;

/// The words of an input, as device mapper splits them. None of them has a zero byte in it.
fn words(input: &[u8]) -> impl Iterator<Item = &[u8]> {
    let words = input.split(|byte| byte.is_ascii_whitespace() || *byte == 0);
    words.filter(|word| !word.is_empty())
}

/// A line that is accepted gives the same again when it is written and read.
pub fn table_line(input: &[u8]) {
    let config = match Config::parse(words(input)) {
        Ok(config) => config,
        Err(wrong) => return assert_sentence(wrong.to_str().expect("a sentence in ASCII")),
    };
    let name = |bytes| std::str::from_utf8(bytes).ok();
    let spares: Vec<_> = (config.spares().iter())
        .map(|spare| spare.map(name))
        .collect();
    assert_eq!(spares.len(), config.count.get());
    let Some(main) = name(config.main) else {
        return;
    };
    if spares.contains(&Some(None)) {
        return;
    }
    let spares: Vec<_> = spares.into_iter().map(Option::flatten).collect();
    let features = config.features;
    let line = Line {
        main,
        spares: &spares,
        features,
    };
    let line = line.to_string();
    assert_eq!(Config::parse(words(line.as_bytes())), Ok(config), "{line}");
    let now = features.options(Options::DEFAULT);
    assert_eq!(features.showing(now).options(Options::DEFAULT), now);
}

/// A message that is accepted is about sectors that exist.
pub fn message(input: &[u8]) {
    match Message::parse(words(input)) {
        Ok(Message::Add(range) | Message::Remove(range)) => {
            let (first, last) = (range.first().0, range.last().0);
            assert_eq!(last - first + 1, range.count().0);
            for size in [0, first, last, last.saturating_add(1), u64::MAX] {
                let within = range.check_within(Sectors(size));
                assert_eq!(within.is_ok(), last < size);
                if let Err(wrong) = within {
                    assert_sentence(wrong);
                }
            }
        }
        Ok(Message::Set(setting)) => {
            let now = Options::DEFAULT.with(setting);
            assert_eq!(now.with(setting), now);
        }
        Ok(_) => {}
        Err(wrong) => assert_sentence(wrong),
    }
}

/// What is refused is refused with a sentence.
fn assert_sentence(wrong: &str) {
    assert!(wrong.len() > 10 && wrong.contains(' '), "{wrong}");
}

/// A fault that chance alone does not find, but what looks at the code that is reached does, word by word.
pub fn planted(input: &[u8]) {
    let message = Message::parse(words(input));
    assert!(!matches!(message, Ok(Message::Set(_))), "the planted fault");
}
