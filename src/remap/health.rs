// SPDX-License-Identifier: GPL-2.0

//! The health model: from the bad blocks that were found, how long the spares will last.
//!
//! The model is stated in `docs/health.md`, with its sources and how it was measured. In short: bad
//! blocks come in clusters, whose number is a Poisson process with a rate that has been falling,
//! constant or growing. Each such history is weighed by how well it explains what was found, and
//! from it follows a gamma distribution of the rate now. The sizes of clusters are learned too.
//! What is long ago counts less.

mod forecast;
pub mod gamma;
pub mod level;
pub mod real;

use super::page::put;
use super::page::take;
use super::units::Cause;
use super::units::Sectors;
use super::units::SlotCount;
use forecast::Forecast;
use level::Level;
use level::State;
use real::Real;

const VERSION_AT: usize = 0;
const LEVEL_AT: usize = 2;
const SCANNED_AT: usize = 3;
const LAST_BLOCKS_AT: usize = 4;
const TIME_AT: usize = 8;
const HELD_AT: usize = 16;
const LAST_BEGAN_AT: usize = 24;
const CLUSTERS_AT: usize = 32;
const AGES_AT: usize = 40;
const SIZES_AT: usize = 48;
const SQUARES_AT: usize = 56;

/// Time in service, in seconds since the model began.
///
/// It goes on only while the device is active, and has nothing to do with the date.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServiceTime(pub u64);

impl ServiceTime {
    /// How much time there is from `earlier` until this one; none if that is later.
    pub const fn since(self, earlier: Self) -> Self {
        Self(self.0.saturating_sub(earlier.0))
    }

    /// The time in days.
    fn days(self) -> Real {
        Real::whole(self.0) / Real::ratio(86400, 1)
    }
}

/// A number of whole days.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Days(pub u64);

/// How fast blocks go bad, in millionths of a block each day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(pub u64);

/// What the spares hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spares {
    /// The blocks that they can take yet.
    pub free: SlotCount,
    /// The blocks that they have room for at all.
    pub total: SlotCount,
    /// What could not be saved of the relocated blocks.
    pub unreadable: Sectors,
}

/// In how many days the spares will be full; [`None`] for more than [`Exhaustion::HORIZON`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhaustion {
    /// They are full sooner than that with a probability of 5%.
    pub early: Option<Days>,
    /// They are full sooner than that as likely as later.
    pub median: Option<Days>,
}

impl Exhaustion {
    /// A hundred years. Nothing is said about what is further in the future.
    pub const HORIZON: Days = Days(36525);
}

/// What there is to say about the health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// How fast blocks go bad now: the mean.
    pub rate: Rate,
    /// The real rate is lower than that with a probability of 5%.
    pub rate_low: Rate,
    /// The real rate is higher than that with a probability of 5%.
    pub rate_high: Rate,
    /// When the spares will be full.
    pub exhaustion: Exhaustion,
    /// What should be done.
    pub level: Level,
}

/// The last cluster: bad blocks that were found within an hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cluster {
    began: ServiceTime,
    blocks: SlotCount,
}

impl Cluster {
    /// How long a cluster lasts. A disk may try each of its bad sectors for half a minute.
    const LENGTH: ServiceTime = ServiceTime(3600);
}

/// What was learned from the bad blocks that were found.
///
/// The sums are over all clusters, where one counts the less the longer ago it began.
///
/// # Invariants
///
/// No sum is negative, and no time is later than `time`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Model {
    /// Until when the sums are right.
    time: ServiceTime,
    /// The number of clusters.
    clusters: Real,
    /// Their ages in days.
    ages: Real,
    /// Their sizes in blocks.
    sizes: Real,
    /// The squares of their sizes.
    squares: Real,
    /// The last one.
    last: Option<Cluster>,
    /// Whether a whole background pass has been made.
    scanned: bool,
    /// The level that was reported last.
    level: State,
}

impl Model {
    /// The number of bytes that [`Self::encode`] makes.
    pub const BYTES: usize = 64;

    /// The version of these bytes.
    const VERSION: u16 = 1;

    /// After how many days a cluster counts less by the factor e.
    const MEMORY_DAYS: Real = Real::ratio(365, 1);

    /// A model that knows nothing yet.
    pub const fn new() -> Self {
        Self {
            time: ServiceTime(0),
            clusters: Real::ZERO,
            ages: Real::ZERO,
            sizes: Real::ZERO,
            squares: Real::ZERO,
            last: None,
            scanned: false,
            level: State::new(),
        }
    }

    /// The time until which the model knows what happened.
    pub const fn time(&self) -> ServiceTime {
        self.time
    }

    /// The level that was reported last.
    pub const fn level(&self) -> Level {
        self.level.level
    }

    /// Lets time pass. Nothing happens when `time` is before [`Self::time`].
    pub fn advance(&mut self, time: ServiceTime) {
        let days = time.since(self.time).days();
        let kept = (-(days / Self::MEMORY_DAYS)).exp();
        self.ages = (self.ages + self.clusters * days) * kept;
        self.clusters = self.clusters * kept;
        self.sizes = self.sizes * kept;
        self.squares = self.squares * kept;
        self.time = self.time.max(time);
    }

    /// Learns that so many blocks were relocated, at once and because of `cause`.
    ///
    /// What the first background pass finds says nothing about how fast blocks go bad, as they may
    /// have been so for years; nor does what somebody else knew of.
    pub fn record(&mut self, time: ServiceTime, cause: Cause, blocks: SlotCount) {
        self.advance(time);
        let new = match cause {
            Cause::Read | Cause::Write | Cause::Spare => true,
            Cause::Scan => self.scanned,
            Cause::Message | Cause::Import => false,
        };
        if !new || blocks == SlotCount::ZERO {
            return;
        }
        let cluster = match self.last {
            Some(last) if self.time.since(last.began) < Cluster::LENGTH => last,
            _ => {
                self.clusters = self.clusters + Real::ONE;
                Cluster {
                    began: self.time,
                    blocks: SlotCount::ZERO,
                }
            }
        };
        let found = Real::whole(blocks.0.into());
        let before = Real::whole(cluster.blocks.0.into());
        self.sizes = self.sizes + found;
        self.squares = self.squares + found * (found + before + before);
        self.last = Some(Cluster {
            blocks: cluster.blocks.saturating_add(blocks),
            ..cluster
        });
    }

    /// Learns that a background pass has come to the end of main.
    pub fn pass_ended(&mut self) {
        self.scanned = true;
    }

    /// What follows from what was learned until `time`, and from what the spares hold.
    pub fn assess(&mut self, time: ServiceTime, spares: Spares) -> Report {
        self.advance(time);
        let forecast = Forecast::new(self);
        let exhaustion = Exhaustion {
            early: forecast.exhaustion(spares.free, Real::ratio(1, 20)),
            median: forecast.exhaustion(spares.free, Real::ratio(1, 2)),
        };
        Report {
            rate: forecast.mean_rate(),
            rate_low: forecast.rate(Real::ratio(1, 20)),
            rate_high: forecast.rate(Real::ratio(19, 20)),
            exhaustion,
            level: self.level.update(self.time, spares, exhaustion),
        }
    }

    /// The bytes to store the model as.
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        put(&mut bytes, VERSION_AT, Self::VERSION.to_le_bytes());
        put(&mut bytes, LEVEL_AT, [self.level.level.code()]);
        put(&mut bytes, SCANNED_AT, [self.scanned.into()]);
        put(&mut bytes, TIME_AT, self.time.0.to_le_bytes());
        put(&mut bytes, HELD_AT, self.level.held.0.to_le_bytes());
        if let Some(last) = self.last {
            put(&mut bytes, LAST_BLOCKS_AT, last.blocks.0.to_le_bytes());
            put(&mut bytes, LAST_BEGAN_AT, last.began.0.to_le_bytes());
        }
        put(&mut bytes, CLUSTERS_AT, self.clusters.to_bytes());
        put(&mut bytes, AGES_AT, self.ages.to_bytes());
        put(&mut bytes, SIZES_AT, self.sizes.to_bytes());
        put(&mut bytes, SQUARES_AT, self.squares.to_bytes());
        bytes
    }

    /// The model that [`Self::encode`] stores as `bytes`; [`None`] when there is none.
    pub fn decode(bytes: &[u8; Self::BYTES]) -> Option<Self> {
        let time_at = |at| ServiceTime(u64::from_le_bytes(take(bytes, at)));
        let sum_at = |at| Real::from_bytes(take(bytes, at)).filter(|sum| !sum.is_below(Real::ZERO));
        let [level] = take(bytes, LEVEL_AT);
        let blocks = SlotCount(u32::from_le_bytes(take(bytes, LAST_BLOCKS_AT)));
        let model = Self {
            time: time_at(TIME_AT),
            clusters: sum_at(CLUSTERS_AT)?,
            ages: sum_at(AGES_AT)?,
            sizes: sum_at(SIZES_AT)?,
            squares: sum_at(SQUARES_AT)?,
            last: (blocks != SlotCount::ZERO).then_some(Cluster {
                began: time_at(LAST_BEGAN_AT),
                blocks,
            }),
            scanned: take(bytes, SCANNED_AT) == [1],
            level: State {
                level: Level::from_code(level)?,
                held: time_at(HELD_AT),
            },
        };
        // INVARIANT: The sums were checked above, the times are here.
        let in_order = model.level.held <= model.time
            && model.last.is_none_or(|last| last.began <= model.time);
        (in_order && model.encode() == *bytes).then_some(model)
    }
}

impl Default for Model {
    fn default() -> Self {
        Self::new()
    }
}
