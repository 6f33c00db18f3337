// SPDX-License-Identifier: GPL-2.0

//! The options that a table line can give, the message `set` can change and the metadata keeps.

use core::ffi::CStr;

use super::words::decimal;
use super::words::decimal_u32;

/// The time between the ends of two background passes, in seconds; 0 is no passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanInterval(pub u32);

/// The ceiling for the background pass, in KiB/s.
///
/// # Invariants
///
/// It is not 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanRate(u32);

impl ScanRate {
    /// A rate of `rate` KiB/s; [`None`] for 0.
    pub const fn new(rate: u32) -> Option<Self> {
        // INVARIANT: Checked right here.
        if rate > 0 {
            Some(Self(rate))
        } else {
            None
        }
    }

    /// The rate in KiB/s.
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// Extra attempts on a sector before it counts as unreadable.
///
/// # Invariants
///
/// At most [`Self::MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadRetries(u8);

impl ReadRetries {
    /// The most attempts: a disk can take many seconds for each.
    pub const MAX: u32 = 100;

    /// `retries` extra attempts; [`None`] for more than [`Self::MAX`].
    pub const fn new(retries: u32) -> Option<Self> {
        if retries <= Self::MAX {
            // INVARIANT: Checked right here.
            Some(Self(retries as u8))
        } else {
            None
        }
    }

    /// The number of attempts.
    pub const fn get(self) -> u32 {
        self.0 as u32
    }
}

/// The options of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Whether errors relocate by themselves, or only messages do.
    pub automatic: bool,
    /// The time between the ends of background passes.
    pub scan_interval: ScanInterval,
    /// The ceiling for the background pass.
    pub scan_rate: ScanRate,
    /// Extra attempts on a sector before it counts as unreadable.
    pub read_retries: ReadRetries,
}

impl Options {
    /// What holds when nobody says otherwise.
    pub const DEFAULT: Self = Self {
        automatic: true,
        scan_interval: ScanInterval(604_800),
        scan_rate: ScanRate(32_768),
        read_retries: ReadRetries(3),
    };

    /// These options after `setting`.
    pub const fn with(mut self, setting: Setting) -> Self {
        match setting {
            Setting::Automatic(automatic) => self.automatic = automatic,
            Setting::ScanInterval(interval) => self.scan_interval = interval,
            Setting::ScanRate(rate) => self.scan_rate = rate,
            Setting::ReadRetries(retries) => self.read_retries = retries,
        }
        self
    }
}

/// A new value for one option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// Whether errors relocate by themselves.
    Automatic(bool),
    /// The time between the ends of background passes.
    ScanInterval(ScanInterval),
    /// The ceiling for the background pass.
    ScanRate(ScanRate),
    /// Extra attempts on a sector before it counts as unreadable.
    ReadRetries(ReadRetries),
}

impl Setting {
    /// The setting that the words `name` and `value` spell; [`None`] when there is no option
    /// called `name`.
    ///
    /// # Errors
    ///
    /// The sentence that says what `value` must be.
    pub fn parse(name: &[u8], value: &[u8]) -> Option<Result<Self, &'static CStr>> {
        let setting = match name {
            b"auto" => match decimal(value) {
                Some(0) => Ok(Self::Automatic(false)),
                Some(1) => Ok(Self::Automatic(true)),
                _ => Err(c"auto must be 0 or 1"),
            },
            b"scan_interval" => decimal_u32(value)
                .map(|seconds| Self::ScanInterval(ScanInterval(seconds)))
                .ok_or(c"scan_interval must be a number of seconds from 0 to 4294967295"),
            b"scan_rate" => decimal_u32(value)
                .and_then(ScanRate::new)
                .map(Self::ScanRate)
                .ok_or(c"scan_rate must be a number of KiB/s from 1 to 4294967295"),
            b"read_retries" => decimal_u32(value)
                .and_then(ReadRetries::new)
                .map(Self::ReadRetries)
                .ok_or(c"read_retries must be a number from 0 to 100"),
            _ => return None,
        };
        Some(setting)
    }
}
