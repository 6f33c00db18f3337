// SPDX-License-Identifier: GPL-2.0

//! The grammar of the messages.

use super::options::Setting;
use super::units::Sector;
use super::units::Sectors;
use super::words::decimal;

/// The reply to the message `help`.
pub const HELP: &str = "\
add <sector> [<count>]     relocate every block that touches the sectors
remove <sector> [<count>]  copy the blocks back to main and free their places
lookup <sector>            where the sector lives: main, or spare <index> <sector> <live mask>
list [<sector> [<max>]]    the relocated blocks from the sector on
set <name> <value>         change auto, scan_interval, scan_rate or read_retries
scan start                 begin a background pass over main
scan pause                 interrupt it
scan resume                go on with it
scan stop                  end it
scan status                how far it has come
health                     how long the spares may last
stats                      counters and latencies
stats reset                begin to count anew
sync                       wait until all metadata is on stable media
help                       this text
";

/// Some sectors of the mapped device, at least one.
///
/// # Invariants
///
/// `count` is not 0, and `first` + `count` does not pass 2^64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SectorRange {
    first: Sector,
    count: Sectors,
}

impl SectorRange {
    /// The `count` sectors from `first` on; [`None`] when these are none or pass 2^64.
    pub fn new(first: Sector, count: Sectors) -> Option<Self> {
        first.checked_add(count)?;
        // INVARIANT: The sum was just computed, and none is sorted out here.
        (count != Sectors::ZERO).then_some(Self { first, count })
    }

    /// The first sector.
    pub const fn first(&self) -> Sector {
        self.first
    }

    /// The last sector.
    pub const fn last(&self) -> Sector {
        // The type's invariant bounds the sum, and there is at least one sector.
        Sector(self.first.0.wrapping_add(self.count.0).wrapping_sub(1))
    }

    /// The number of sectors.
    pub const fn count(&self) -> Sectors {
        self.count
    }

    /// Checks that the sectors are all on a device of `size`.
    ///
    /// # Errors
    ///
    /// The sentence that says what is wrong.
    pub fn check_within(&self, size: Sectors) -> Result<(), &'static str> {
        check_on_device(self.first, size)?;
        check_on_device(self.last(), size).map_err(|_| "count reaches beyond the end of the device")
    }
}

/// Checks that `sector` is on a device of `size`.
///
/// # Errors
///
/// The sentence that says what is wrong.
pub fn check_on_device(sector: Sector, size: Sectors) -> Result<(), &'static str> {
    if sector.0 < size.0 {
        Ok(())
    } else {
        Err("sector lies beyond the end of the device")
    }
}

/// A message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Relocate every block that touches the range.
    Add(SectorRange),
    /// Copy the blocks that touch the range back to main.
    Remove(SectorRange),
    /// Tell where a sector lives.
    Lookup(Sector),
    /// Tell which blocks are relocated.
    List {
        /// Begin with the block that holds this sector.
        from: Sector,
        /// At most so many blocks, or as many as the reply has room for.
        max: Option<u64>,
    },
    /// Change an option.
    Set(Setting),
    /// Control the background pass.
    Scan(ScanVerb),
    /// Tell how long the spares may last.
    Health,
    /// Tell the counters and latencies.
    Stats,
    /// Begin to count anew.
    StatsReset,
    /// Wait until all metadata is on stable media.
    Sync,
    /// Tell the verbs.
    Help,
}

/// What to do with the background pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScanVerb {
    /// Begin one, at the beginning of main.
    Start,
    /// Interrupt it.
    Pause,
    /// Go on after an interruption.
    Resume,
    /// End it.
    Stop,
    /// Tell how far it has come.
    Status,
}

impl ScanVerb {
    /// The verb that a word stands for.
    fn parse(word: &[u8]) -> Option<Self> {
        match word {
            b"start" => Some(Self::Start),
            b"pause" => Some(Self::Pause),
            b"resume" => Some(Self::Resume),
            b"stop" => Some(Self::Stop),
            b"status" => Some(Self::Status),
            _ => None,
        }
    }
}

impl Message {
    /// Reads a message.
    ///
    /// # Errors
    ///
    /// A sentence that names the word and says what is wrong with it.
    pub fn parse<'a>(words: impl Iterator<Item = &'a [u8]>) -> Result<Self, &'static str> {
        let mut words = Words(words);
        let verb = words.0.next().ok_or("the message is empty: try help")?;
        let message = match verb {
            b"add" => Self::Add(words.range()?),
            b"remove" => Self::Remove(words.range()?),
            b"lookup" => Self::Lookup(words.sector()?.ok_or("sector is missing")?),
            b"list" => Self::List {
                from: words.sector()?.unwrap_or_default(),
                max: words.count("max must be a number greater than 0")?,
            },
            b"set" => Self::Set(words.setting()?),
            b"scan" => {
                let verb = words.0.next().and_then(ScanVerb::parse);
                Self::Scan(verb.ok_or("scan takes start, pause, resume, stop or status")?)
            }
            b"stats" => match words.0.next() {
                None => Self::Stats,
                Some(b"reset") => Self::StatsReset,
                Some(_) => return Err("stats takes nothing or reset"),
            },
            b"health" => Self::Health,
            b"sync" => Self::Sync,
            b"help" => Self::Help,
            _ => return Err("there is no such message: try help"),
        };
        match words.0.next() {
            None => Ok(message),
            Some(_) => Err("the message has more words than it takes: try help"),
        }
    }
}

/// The words of a message that were not read yet.
struct Words<I>(I);

impl<'a, I: Iterator<Item = &'a [u8]>> Words<I> {
    /// Reads a sector, if there is a further word.
    fn sector(&mut self) -> Result<Option<Sector>, &'static str> {
        let read = |word| decimal(word).map(Sector).ok_or("sector must be a number");
        self.0.next().map(read).transpose()
    }

    /// Reads a number greater than 0, if there is a further word.
    fn count(&mut self, wrong: &'static str) -> Result<Option<u64>, &'static str> {
        let read = |word| decimal(word).filter(|count| *count > 0).ok_or(wrong);
        self.0.next().map(read).transpose()
    }

    /// Reads `<sector> [<count>]`.
    fn range(&mut self) -> Result<SectorRange, &'static str> {
        let first = self.sector()?.ok_or("sector is missing")?;
        let count = self
            .count("count must be a number greater than 0")?
            .unwrap_or(1);
        SectorRange::new(first, Sectors(count)).ok_or("sector and count together are too large")
    }

    /// Reads `<name> <value>`.
    fn setting(&mut self) -> Result<Setting, &'static str> {
        let name = self.0.next().ok_or("name is missing: set <name> <value>")?;
        let value = self
            .0
            .next()
            .ok_or("value is missing: set <name> <value>")?;
        Setting::parse(name, value)
            .ok_or("name must be auto, scan_interval, scan_rate or read_retries")?
            // The sentences are ASCII.
            .map_err(|wrong| wrong.to_str().unwrap_or_default())
    }
}
