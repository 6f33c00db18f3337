// SPDX-License-Identifier: GPL-2.0

//! The level of health: what should be done about a disk.

use super::Days;
use super::Exhaustion;
use super::ServiceTime;
use super::Spares;

/// What should be done about a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing.
    Good,
    /// Keep an eye on it, and a replacement in mind.
    Watch,
    /// Replace it.
    Replace,
    /// Replace it now.
    Critical,
}

impl Level {
    /// All levels, in the order of their codes.
    const ALL: [Self; 4] = [Self::Good, Self::Watch, Self::Replace, Self::Critical];

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Watch => "watch",
            Self::Replace => "replace",
            Self::Critical => "critical",
        }
    }

    /// The number to store it as.
    pub(super) const fn code(self) -> u8 {
        self as u8
    }

    /// The level that is stored as `code`.
    pub(super) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }
}

/// What it takes to be on a level.
struct Threshold {
    level: Level,
    /// So many days or less to the early bound of the exhaustion, and to its median: the latter,
    /// because where little is known yet the early bound alone says little.
    days: (Days, Days),
    /// These days count only when so many percent of the spares are used: what a few bad blocks
    /// say of the distant future is not worth an alarm.
    least_percent: u64,
    /// So many percent of the spares are used.
    percent: u64,
    /// So many sectors could not be saved.
    unreadable: u64,
}

/// What it takes to be on each level, from the highest down.
const THRESHOLDS: [Threshold; 3] = [
    Threshold {
        level: Level::Critical,
        days: (Days(7), Days(30)),
        least_percent: 10,
        percent: 95,
        unreadable: u64::MAX,
    },
    Threshold {
        level: Level::Replace,
        days: (Days(30), Days(120)),
        least_percent: 10,
        percent: 80,
        unreadable: 1024,
    },
    Threshold {
        level: Level::Watch,
        days: (Days(365), Exhaustion::HORIZON),
        least_percent: 0,
        percent: 50,
        unreadable: 1,
    },
];

impl Threshold {
    /// How much further the days must be, and by how many percent the spares emptier, to leave a
    /// level than to reach it.
    const SLACK: (u64, u64) = (2, 5);

    /// Whether it is reached, or, with the slack, not left yet.
    fn holds(&self, spares: Spares, exhaustion: Exhaustion, slack: (u64, u64)) -> bool {
        let (factor, percent) = slack;
        let within = |said: Option<Days>, days: Days| {
            said.is_some_and(|said| said.0 <= days.0.saturating_mul(factor))
        };
        let total = u64::from(spares.total.0);
        let used = u64::from(spares.total.saturating_sub(spares.free).0);
        let is_used = |limit: u64| {
            // Both products are of less than 2^39.
            used * 100 >= total * limit.saturating_sub(percent)
        };
        let is_full = used > 0 && is_used(self.percent);
        let is_soon = is_used(self.least_percent)
            && within(exhaustion.early, self.days.0)
            && within(exhaustion.median, self.days.1);
        is_full || is_soon || spares.unreadable.0 >= self.unreadable
    }

    /// The highest level whose threshold holds.
    fn highest(spares: Spares, exhaustion: Exhaustion, slack: (u64, u64)) -> Level {
        THRESHOLDS
            .iter()
            .find(|threshold| threshold.holds(spares, exhaustion, slack))
            .map_or(Level::Good, |threshold| threshold.level)
    }
}

/// The level that was reported last. It rises at once. It falls when for some days there has been no
/// reason to keep it, and a reason to keep it is weaker than one to raise it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// The level.
    pub(super) level: Level,
    /// When there was a reason for it last.
    pub(super) held: ServiceTime,
}

impl State {
    /// How long a level stays without a reason: a week, in which there is a background pass.
    const PATIENCE: ServiceTime = ServiceTime(7 * 86400);

    /// The level of a disk of which nothing is known.
    pub const fn new() -> Self {
        Self {
            level: Level::Good,
            held: ServiceTime(0),
        }
    }

    /// The level, after what is known at `time`.
    pub fn update(&mut self, time: ServiceTime, spares: Spares, exhaustion: Exhaustion) -> Level {
        let raised = Threshold::highest(spares, exhaustion, (1, 0));
        let kept = Threshold::highest(spares, exhaustion, Threshold::SLACK);
        if raised.max(kept) >= self.level {
            self.level = self.level.max(raised);
            self.held = time;
        } else if time.since(self.held) >= Self::PATIENCE {
            self.level = kept;
            self.held = time;
        }
        self.level
    }
}

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}
