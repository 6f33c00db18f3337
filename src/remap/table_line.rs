// SPDX-License-Identifier: GPL-2.0

//! The arguments of a table line:
//!
//! ```text
//! <main_dev> <#spares> <spare_dev>... [<#feature_args> <feature_arg>...]
//! ```

use core::ffi::CStr;
use core::fmt;

use super::geometry::SpareCount;
use super::identity::MainId;
use super::identity::Uuid;
use super::options::Options;
use super::options::ReadRetries;
use super::options::ScanInterval;
use super::options::ScanRate;
use super::options::Setting;
use super::units::BlockSize;
use super::units::Sectors;
use super::units::MAX_SPARES;
use super::words::decimal;

/// How a missing spare is written.
const MISSING: &[u8] = b"-";

/// What a table line asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config<'a> {
    /// The name of main.
    pub main: &'a [u8],
    /// The number of spares.
    pub count: SpareCount,
    /// The names of the spares; [`None`] for one that is missing, and beyond the last one.
    spares: [Option<&'a [u8]>; MAX_SPARES],
    /// The feature arguments.
    pub features: Features,
}

impl<'a> Config<'a> {
    /// Reads the arguments of a table line.
    ///
    /// # Errors
    ///
    /// A sentence that names the argument and says what is wrong with it, in the form that device mapper prints.
    pub fn parse(mut words: impl Iterator<Item = &'a [u8]>) -> Result<Self, &'static CStr> {
        let main = words.next().ok_or(c"main_dev is missing")?;
        if main == MISSING {
            return Err(c"main_dev must be a device: only a spare may be missing");
        }
        let count = words.next().ok_or(c"#spares is missing")?;
        let count = decimal(count)
            .and_then(|count| usize::try_from(count).ok())
            .and_then(SpareCount::new)
            .ok_or(c"#spares must be a number from 1 to 15")?;
        let mut spares = [None; MAX_SPARES];
        for spare in spares.iter_mut().take(count.get()) {
            let word = words
                .next()
                .ok_or(c"spare_dev: there are fewer than #spares says")?;
            *spare = (word != MISSING).then_some(word);
        }
        if spares.iter().all(Option::is_none) {
            return Err(
                c"spare_dev must be a device for at least one spare: not all may be missing",
            );
        }
        let features = match words.next() {
            Some(count) => Features::parse(count, words)?,
            None => Features::default(),
        };
        Ok(Self {
            main,
            count,
            spares,
            features,
        })
    }

    /// The names of the spares, in order; [`None`] for one that is missing.
    pub fn spares(&self) -> &[Option<&'a [u8]>] {
        self.spares.get(..self.count.get()).unwrap_or_default()
    }
}

/// The feature arguments of a table line; [`None`] for what is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// The unit of relocation.
    pub block_size: Option<BlockSize>,
    /// Whether only messages relocate.
    pub manual: bool,
    /// The time between the ends of background passes.
    pub scan_interval: Option<ScanInterval>,
    /// The ceiling for the background pass.
    pub scan_rate: Option<ScanRate>,
    /// Extra attempts on a sector before it counts as unreadable.
    pub read_retries: Option<ReadRetries>,
    /// A stable name for main.
    pub main_id: Option<MainId>,
    /// The set that the spares must be of.
    pub uuid: Option<Uuid>,
}

impl Features {
    /// Reads `count`, which is the number of further words, and these.
    fn parse<'a>(
        count: &[u8],
        mut words: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Self, &'static CStr> {
        let count = decimal(count).ok_or(
            c"#feature_args must be a number, and #spares that of the spare_dev before it",
        )?;
        let mut features = Self::default();
        let mut left = count;
        while let Some(rest) = left.checked_sub(1) {
            let name = words
                .next()
                .ok_or(c"#feature_args is more than there are")?;
            left = rest;
            if name == b"manual" {
                set_once(&mut features.manual, true, c"manual is given twice")?;
                continue;
            }
            if !Self::NAMES_WITH_VALUE.contains(&name) {
                return Err(c"unknown feature argument: there are block_size, manual, \
                            scan_interval, scan_rate, read_retries, main_id and uuid");
            }
            left = left
                .checked_sub(1)
                .ok_or(c"#feature_args ends before the value of the last one")?;
            let value = words
                .next()
                .ok_or(c"#feature_args is more than there are")?;
            features.give(name, value)?;
        }
        match words.next() {
            Some(_) => Err(c"#feature_args is less than there are"),
            None => Ok(features),
        }
    }

    /// The arguments that are followed by a value.
    const NAMES_WITH_VALUE: [&'static [u8]; 6] = [
        b"block_size",
        b"scan_interval",
        b"scan_rate",
        b"read_retries",
        b"main_id",
        b"uuid",
    ];

    /// Takes the argument `name`, one of [`Self::NAMES_WITH_VALUE`].
    fn give(&mut self, name: &[u8], value: &[u8]) -> Result<(), &'static CStr> {
        match name {
            b"block_size" => {
                let size = decimal(value)
                    .and_then(|sectors| BlockSize::new(Sectors(sectors)))
                    .ok_or(c"block_size must be a power of two from 1 to 64")?;
                set_once(
                    &mut self.block_size,
                    Some(size),
                    c"block_size is given twice",
                )
            }
            b"main_id" => {
                let id = MainId::parse(value)
                    .ok_or(c"main_id must be 1 to 64 printable ASCII characters")?;
                set_once(&mut self.main_id, Some(id), c"main_id is given twice")
            }
            b"uuid" => {
                let uuid = Uuid::parse(value).ok_or(
                    c"uuid must be hexadecimal digits in the form 8-4-4-4-12, not all zero",
                )?;
                set_once(&mut self.uuid, Some(uuid), c"uuid is given twice")
            }
            _ => match Setting::parse(name, value).transpose()? {
                Some(Setting::ScanInterval(interval)) => set_once(
                    &mut self.scan_interval,
                    Some(interval),
                    c"scan_interval is given twice",
                ),
                Some(Setting::ScanRate(rate)) => {
                    set_once(&mut self.scan_rate, Some(rate), c"scan_rate is given twice")
                }
                Some(Setting::ReadRetries(retries)) => set_once(
                    &mut self.read_retries,
                    Some(retries),
                    c"read_retries is given twice",
                ),
                // The names were compared before.
                Some(Setting::Automatic(_)) | None => Err(c"unknown feature argument"),
            },
        }
    }

    /// The options that these arguments give to a set that has the options `kept`: what is not
    /// given stays as it is.
    pub fn options(&self, kept: Options) -> Options {
        Options {
            automatic: kept.automatic && !self.manual,
            scan_interval: self.scan_interval.unwrap_or(kept.scan_interval),
            scan_rate: self.scan_rate.unwrap_or(kept.scan_rate),
            read_retries: self.read_retries.unwrap_or(kept.read_retries),
        }
    }

    /// The arguments to show for a device that was given these and has the options `now`: those
    /// that were given, and those that would otherwise not come out as they are.
    pub fn showing(&self, now: Options) -> Self {
        Self {
            manual: !now.automatic,
            scan_interval: shown(
                self.scan_interval,
                now.scan_interval,
                Options::DEFAULT.scan_interval,
            ),
            scan_rate: shown(self.scan_rate, now.scan_rate, Options::DEFAULT.scan_rate),
            read_retries: shown(
                self.read_retries,
                now.read_retries,
                Options::DEFAULT.read_retries,
            ),
            ..*self
        }
    }
}

/// The value `now` of an option, unless it is the `default` and was not `given`.
fn shown<T: PartialEq>(given: Option<T>, now: T, default: T) -> Option<T> {
    (given.is_some() || now != default).then_some(now)
}

/// Puts `value` into `place`, which must have its initial value.
fn set_once<T: Default + PartialEq>(
    place: &mut T,
    value: T,
    twice: &'static CStr,
) -> Result<(), &'static CStr> {
    if *place != T::default() {
        return Err(twice);
    }
    *place = value;
    Ok(())
}

/// Writes `<#feature_args> <feature_arg>...` in the order of the documentation.
impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let block_size = self.block_size.map(|size| size.sectors().0);
        let scan_interval = self.scan_interval.map(|interval| interval.0);
        let scan_rate = self.scan_rate.map(ScanRate::get);
        let read_retries = self.read_retries.map(ReadRetries::get);
        let values: [(&str, Option<&dyn fmt::Display>); 6] = [
            (
                "block_size",
                block_size.as_ref().map(|value| value as &dyn fmt::Display),
            ),
            (
                "scan_interval",
                scan_interval
                    .as_ref()
                    .map(|value| value as &dyn fmt::Display),
            ),
            (
                "scan_rate",
                scan_rate.as_ref().map(|value| value as &dyn fmt::Display),
            ),
            (
                "read_retries",
                read_retries
                    .as_ref()
                    .map(|value| value as &dyn fmt::Display),
            ),
            (
                "main_id",
                self.main_id
                    .as_ref()
                    .map(|value| value as &dyn fmt::Display),
            ),
            (
                "uuid",
                self.uuid.as_ref().map(|value| value as &dyn fmt::Display),
            ),
        ];
        let pairs = values.iter().filter(|(_, value)| value.is_some()).count();
        // There are at most six pairs and one single word.
        write!(
            f,
            "{}",
            pairs.wrapping_mul(2).wrapping_add(self.manual.into())
        )?;
        if self.manual {
            f.write_str(" manual")?;
        }
        for (name, value) in values {
            if let Some(value) = value {
                write!(f, " {name} {value}")?;
            }
        }
        Ok(())
    }
}

/// The arguments of a table line to write: [`Config`] with names that can be shown.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a, D> {
    /// The name of main.
    pub main: D,
    /// The names of the spares; [`None`] for one that is missing.
    pub spares: &'a [Option<D>],
    /// The feature arguments.
    pub features: Features,
}

impl<D: fmt::Display> fmt::Display for Line<'_, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.main, self.spares.len())?;
        for spare in self.spares {
            match spare {
                Some(name) => write!(f, " {name}")?,
                None => f.write_str(" -")?,
            }
        }
        if self.features != Features::default() {
            write!(f, " {}", self.features)?;
        }
        Ok(())
    }
}
