// SPDX-License-Identifier: GPL-2.0

//! What forecasts are worth, measured on disks whose fate is known.

use super::disks::Disk;
use super::disks::Kind;
use super::disks::DAY;
use super::disks::PASS;
use super::plain::line;
use crate::remap::health::level::Level;
use crate::remap::health::level::State;
use crate::remap::health::Exhaustion;
use crate::remap::health::Model;
use crate::remap::health::ServiceTime;
use crate::remap::health::Spares;
use crate::remap::units::Sectors;
use crate::remap::units::SlotCount;

/// The number of those who forecast.
pub const COUNT: usize = 3;

/// Those who forecast: the model, and lines through all bad blocks, and through those of a month.
pub const NAMES: [&str; COUNT] = ["model", "line", "line of 30 days"];

/// A level was too early when it said to replace a disk that had more days to go.
const TOO_EARLY: f64 = 365.0;

/// How often each disk is asked when its spare will be full.
const QUESTIONS: u64 = 16;

/// What somebody's forecasts for some disks were worth.
#[derive(Clone, Debug, Default)]
pub struct Score {
    /// The disks whose spare was full in the end.
    pub failed: f64,
    /// How many of them, counting the parts of its life of each, lasted as long as the early bound.
    pub early: f64,
    /// The same for the median.
    pub median: f64,
    /// The sum of each one's mean distance between the logarithms of the median and of the truth.
    pub distance: f64,
    /// For each one, how many days before its spare was full the level began to say that it be
    /// replaced, and did not cease to.
    pub warnings: Vec<f64>,
    /// How often the level began to say so too early.
    pub false_alarms: f64,
    /// The years in which that could be.
    pub quiet_years: f64,
    /// How often the level changed.
    pub changes: f64,
    /// All years.
    pub years: f64,
}

impl Score {
    /// How many days of warning all disks had but a `part` of them.
    pub fn warning(&self, part: f64) -> f64 {
        let mut warnings = self.warnings.clone();
        warnings.sort_by(f64::total_cmp);
        let place = (part * warnings.len() as f64) as usize;
        warnings.get(place).copied().unwrap_or(f64::NAN)
    }

    /// The part of the disks that had at least `days` of warning.
    pub fn warned(&self, days: f64) -> f64 {
        let warned = self.warnings.iter().filter(|&&warning| warning >= days);
        warned.count() as f64 / self.warnings.len() as f64
    }
}

/// Measures the forecasts of all for the first `disks` disks of a kind.
pub fn measure(kind: Kind, seed: u64, disks: u64) -> [Score; COUNT] {
    let mut scores: [Score; COUNT] = Default::default();
    for number in 0..disks {
        let disk = Disk::new(kind, seed, number);
        let mut observers: [Observer; COUNT] = Default::default();
        follow(&disk, |time, spares, said| {
            for (observer, said) in observers.iter_mut().zip(said) {
                observer.hear(&disk, time, spares, said);
            }
        });
        for (observer, score) in observers.into_iter().zip(&mut scores) {
            observer.add_to(&disk, score);
        }
    }
    scores
}

/// Follows a disk to its end, and tells `hear` each day, and in each hour with bad blocks, what is
/// said of it.
pub fn follow(disk: &Disk, mut hear: impl FnMut(u64, Spares, [Exhaustion; COUNT])) {
    let mut model = Model::new();
    let mut found = disk.found.iter().peekable();
    let mut time = 0;
    loop {
        let tomorrow = (time / DAY as u64 + 1) * DAY as u64;
        time = found.peek().map_or(tomorrow, |found| {
            tomorrow.min(found.time.next_multiple_of(3600))
        });
        if time >= disk.end {
            break;
        }
        while let Some(found) = found.next_if(|found| found.time <= time) {
            let blocks = SlotCount(found.blocks as u32);
            model.record(ServiceTime(found.time), found.cause, blocks);
        }
        if time as f64 >= PASS.1 * DAY {
            model.pass_ended();
        }
        let spares = Spares {
            free: SlotCount(disk.spare.saturating_sub(disk.used(time)) as u32),
            total: SlotCount(disk.spare as u32),
            unreadable: Sectors(0),
        };
        let report = model.assess(ServiceTime(time), spares);
        let lines = [f64::INFINITY, 30.0].map(|window| line(disk, time, window));
        hear(time, spares, [report.exhaustion, lines[0], lines[1]]);
    }
}

/// Somebody who hears the forecasts for a disk.
#[derive(Default)]
struct Observer {
    level: State,
    said: Option<Level>,
    /// Since when the disk is to be replaced.
    alarm: Option<u64>,
    false_alarms: f64,
    changes: f64,
    questions: f64,
    early: f64,
    median: f64,
    distance: f64,
}

impl Observer {
    /// Hears what is said of the disk at a time.
    fn hear(&mut self, disk: &Disk, time: u64, spares: Spares, said: Exhaustion) {
        let level = self.level.update(ServiceTime(time), spares, said);
        let real = disk
            .full
            .map_or(f64::INFINITY, |full| (full - time) as f64 / DAY);
        if self
            .said
            .replace(level)
            .is_some_and(|before| before != level)
        {
            self.changes += 1.0;
        }
        if level < Level::Replace {
            self.alarm = None;
        } else if self.alarm.is_none() {
            self.alarm = Some(time);
            self.false_alarms += f64::from(u8::from(real > TOO_EARLY));
        }
        // A part of the days since the first bad block, without choosing them by what happens.
        let Some(first) = disk.found.first().filter(|_| disk.full.is_some()) else {
            return;
        };
        let every = ((disk.end - first.time) / QUESTIONS).next_multiple_of(DAY as u64);
        if time > first.time && time % every == 0 {
            let [early, median] =
                [said.early, said.median].map(|said| said.unwrap_or(Exhaustion::HORIZON).0 as f64);
            self.questions += 1.0;
            self.early += f64::from(u8::from(real >= early));
            self.median += f64::from(u8::from(real >= median));
            self.distance += (real.max(0.5) / median.max(0.5)).ln().abs();
        }
    }

    /// Adds what was heard until the disk's end.
    fn add_to(self, disk: &Disk, score: &mut Score) {
        let days = disk.end as f64 / DAY;
        score.years += days / 365.25;
        score.changes += self.changes;
        score.false_alarms += self.false_alarms;
        let Some(full) = disk.full else {
            score.quiet_years += days / 365.25;
            return;
        };
        score.quiet_years += (days - TOO_EARLY).max(0.0) / 365.25;
        let warning = self.alarm.map_or(0.0, |alarm| (full - alarm) as f64 / DAY);
        score.warnings.push(warning);
        if self.questions > 0.0 {
            score.failed += 1.0;
            score.early += self.early / self.questions;
            score.median += self.median / self.questions;
            score.distance += self.distance / self.questions;
        }
    }
}
