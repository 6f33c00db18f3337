// SPDX-License-Identifier: GPL-2.0

//! Synthetic disks: when and how many of their blocks are found to be bad.

use crate::remap::units::Cause;
use rand::Rng;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// The seconds of a day.
pub const DAY: f64 = 86400.0;

/// The days between two passes over a disk, and the days that one takes.
pub const PASS: (f64, f64) = (7.0, 0.25);

/// The longest time, in days, that a disk lives.
const LONGEST: f64 = 3650.0;

/// For how many days a disk is looked at that does not fill its spare.
const LOOKED_AT: f64 = 1826.0;

/// The most clusters that a disk has.
const MOST: usize = 30000;

/// How a disk behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Few and isolated defects for years.
    Healthy,
    /// The same, after it was put into service with defects that the first pass finds.
    Worn,
    /// Many defects at the beginning, fewer and fewer later.
    Settling,
    /// Clusters at a constant rate.
    Constant,
    /// A rate that doubles in a fixed time.
    Growing,
    /// A rate that grows as a power of time (Weibull).
    Wearing,
    /// Hardly any defects, and then, from one day on, a constant rate.
    Turning,
    /// Days with many clusters, between weeks with hardly any.
    Bursty,
    /// Clusters whose size has a heavy tail (Pareto).
    Clustered,
    /// A healthy disk that dies within days.
    Sudden,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Healthy,
        Self::Worn,
        Self::Settling,
        Self::Constant,
        Self::Growing,
        Self::Wearing,
        Self::Turning,
        Self::Bursty,
        Self::Clustered,
        Self::Sudden,
    ];

    /// The name of the kind.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Worn => "worn",
            Self::Settling => "settling",
            Self::Constant => "constant",
            Self::Growing => "growing",
            Self::Wearing => "wearing",
            Self::Turning => "turning",
            Self::Bursty => "bursty",
            Self::Clustered => "clustered",
            Self::Sudden => "sudden",
        }
    }

    /// Whether a disk of this kind will fill its spare.
    pub const fn fails(self) -> bool {
        !matches!(self, Self::Healthy | Self::Worn | Self::Settling)
    }
}

/// Blocks that were found at one time.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// When, in seconds.
    pub time: u64,
    /// Why.
    pub cause: Cause,
    /// How many.
    pub blocks: u64,
    /// How many there were until then, these included.
    pub used: u64,
}

/// A disk, up to the moment at which its spare is full.
#[derive(Clone, Debug)]
pub struct Disk {
    /// What was found, in the order of time.
    pub found: Vec<Found>,
    /// The blocks that the spare holds.
    pub spare: u64,
    /// When the spare is full, in seconds, if it ever is.
    pub full: Option<u64>,
    /// Until when the disk is looked at, in seconds.
    pub end: u64,
}

/// A cluster of bad blocks: when it came to be, in days, and its blocks.
type Cluster = (f64, u64);

impl Disk {
    /// Disk number `number` of its kind, always the same for the same `seed`.
    pub fn new(kind: Kind, seed: u64, number: u64) -> Self {
        let mut random = Random(ChaCha8Rng::seed_from_u64(seed));
        random.0.set_stream(number << 8 | kind as u64);
        let life = random.between(60.0, 1500.0);
        let mut clusters = random.clusters(kind, life);
        clusters.sort_by(|a, b| a.0.total_cmp(&b.0));
        // The spare is as large as what goes bad in that time.
        let gone: u64 = clusters
            .iter()
            .take_while(|cluster| cluster.0 < life)
            .map(|cluster| cluster.1)
            .sum();
        let spare = if kind.fails() {
            gone.max(50)
        } else {
            1 << random.0.gen_range(12..16)
        };
        let mut found = random.find(&clusters);
        let mut used = 0;
        let last = found.iter_mut().position(|found| {
            used += found.blocks;
            found.used = used;
            used >= spare
        });
        if let Some(last) = last {
            found.truncate(last + 1);
        }
        let full = last.map(|last| found[last].time);
        Self {
            found,
            spare,
            full,
            end: full.unwrap_or((LOOKED_AT * DAY) as u64),
        }
    }
}

impl Disk {
    /// How many blocks were found to be bad until `time`.
    pub fn used(&self, time: u64) -> u64 {
        let found = self.found.partition_point(|found| found.time <= time);
        found.checked_sub(1).map_or(0, |last| self.found[last].used)
    }
}

/// A source of random numbers.
struct Random(ChaCha8Rng);

impl Random {
    /// A number from 0 to 1, neither of them included.
    fn unit(&mut self) -> f64 {
        1.0 - self.0.gen::<f64>().min(1.0 - 1e-12)
    }

    /// A number whose logarithm is uniform between those of `low` and `high`.
    fn between(&mut self, low: f64, high: f64) -> f64 {
        low * (high / low).powf(self.unit())
    }

    /// An exponential time with the given mean.
    fn wait(&mut self, mean: f64) -> f64 {
        -mean * self.unit().ln()
    }

    /// A size with a geometric distribution.
    fn geometric(&mut self, mean: f64) -> u64 {
        if mean <= 1.0 {
            return 1;
        }
        1 + (self.unit().ln() / (1.0 - 1.0 / mean).ln()) as u64
    }

    /// Times at a constant rate, in days, from `begin` to `end`.
    fn times(&mut self, begin: f64, end: f64, rate: f64) -> Vec<f64> {
        let mut times = Vec::new();
        let mut time = begin + self.wait(1.0 / rate);
        while time < end && times.len() < MOST {
            times.push(time);
            time += self.wait(1.0 / rate);
        }
        times
    }

    /// Times such that their expected number until a day is what `inverse` is the inverse of.
    fn warped(&mut self, inverse: impl Fn(f64) -> Option<f64>) -> Vec<f64> {
        let (mut times, mut sum) = (Vec::new(), 0.0);
        loop {
            sum += self.wait(1.0);
            match inverse(sum) {
                Some(time) if time < LONGEST && times.len() < MOST => times.push(time),
                _ => return times,
            }
        }
    }

    /// Clusters of the given times with geometric sizes.
    fn sized(&mut self, times: Vec<f64>, mean: f64) -> Vec<Cluster> {
        times
            .into_iter()
            .map(|time| (time, self.geometric(mean)))
            .collect()
    }

    /// The rare and isolated defects of a disk in order.
    fn isolated(&mut self, end: f64) -> Vec<Cluster> {
        let rate = self.between(0.05, 2.0) / 365.0;
        let times = self.times(0.0, end, rate);
        self.sized(times, 1.3)
    }

    /// What goes bad on a disk that is to last for about `life` days.
    fn clusters(&mut self, kind: Kind, life: f64) -> Vec<Cluster> {
        let mean = 1.0 + self.wait(1.5);
        match kind {
            Kind::Healthy => self.isolated(LONGEST),
            Kind::Worn => {
                let mut clusters = self.isolated(LONGEST);
                let number = self.between(5.0, 300.0) as u64;
                clusters.extend((0..number).map(|_| (0.0, self.geometric(mean))));
                clusters
            }
            Kind::Settling => {
                let (number, days) = (self.between(5.0, 100.0), self.between(5.0, 60.0));
                let times =
                    self.warped(|sum| (sum < number).then(|| -days * (1.0 - sum / number).ln()));
                let mut clusters = self.sized(times, mean);
                clusters.extend(self.isolated(LONGEST));
                clusters
            }
            Kind::Constant => {
                let rate = self.between(0.03, 5.0);
                let times = self.times(0.0, LONGEST, rate);
                self.sized(times, mean)
            }
            Kind::Growing => {
                let scale = self.between(10.0, 120.0) / std::f64::consts::LN_2;
                // So many that the last days of its life are busy.
                let first = self.between(20.0, 3000.0) / (life / scale).exp_m1();
                let times = self.warped(|sum| Some(scale * (sum / first).ln_1p()));
                self.sized(times, mean)
            }
            Kind::Wearing => {
                let (shape, number) = (1.5 + 2.5 * self.unit(), self.between(20.0, 1000.0));
                let times = self.warped(|sum| Some(life * (sum / number).powf(1.0 / shape)));
                self.sized(times, mean)
            }
            Kind::Turning => {
                let (turn, rate) = (life * self.unit(), self.between(0.1, 5.0));
                let mut clusters = self.isolated(turn);
                let times = self.times(turn, LONGEST, rate);
                clusters.extend(self.sized(times, mean));
                clusters
            }
            Kind::Bursty => {
                let mut times = self.times(0.0, LONGEST, 0.01);
                let (pause, length, rate) = (
                    self.between(15.0, 90.0),
                    self.between(0.5, 7.0),
                    self.between(2.0, 20.0),
                );
                for begin in self.times(0.0, LONGEST, 1.0 / pause) {
                    let end = begin + self.wait(length);
                    times.extend(self.times(begin, end, rate));
                }
                self.sized(times, mean)
            }
            Kind::Clustered => {
                let (rate, tail) = (self.between(0.03, 2.0), self.between(1.2, 2.5));
                let times = self.times(0.0, LONGEST, rate);
                times
                    .into_iter()
                    .map(|time| (time, self.unit().powf(-1.0 / tail).min(512.0) as u64))
                    .collect()
            }
            Kind::Sudden => {
                let mut clusters = self.isolated(life);
                let rate = self.between(50.0, 500.0);
                let days = self.between(0.2, 4.0);
                let times = self.times(life - days, life + 30.0, rate);
                clusters.extend(self.sized(times, 10.0 * mean));
                clusters
            }
        }
    }

    /// When the blocks of the clusters are found: one half of them at once, because something
    /// reads or writes there, and the others in the next pass over the disk.
    fn find(&mut self, clusters: &[Cluster]) -> Vec<Found> {
        let mut found = Vec::new();
        for &(time, blocks) in clusters {
            // What has been there from the beginning is found in the first pass.
            let (at, cause) = if time > 0.0 && self.0.gen() {
                (time, Cause::Read)
            } else {
                let place = PASS.1 * self.unit();
                let passes = ((time - place) / PASS.0).floor() + 1.0;
                (passes * PASS.0 + place, Cause::Scan)
            };
            // A disk takes its time for each bad block.
            let mut time = (at * DAY) as u64;
            let mut left = blocks;
            while left > 0 {
                let blocks = left.min(self.0.gen_range(1..=8));
                found.push(Found {
                    time,
                    cause,
                    blocks,
                    used: 0,
                });
                time += 20;
                left -= blocks;
            }
        }
        found.sort_by_key(|found| found.time);
        found
    }
}
