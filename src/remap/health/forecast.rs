// SPDX-License-Identifier: GPL-2.0

//! What follows from what was learned: the equations of `docs/health.md`.

use super::gamma::at_most;
use super::real::Real;
use super::Days;
use super::Exhaustion;
use super::Model;
use super::Rate;
use super::SlotCount;

/// How much more the number of clusters varies than if they were independent.
const DISPERSION: Real = Real::ratio(2, 1);

/// The prior distribution of the rate: the clusters that it is worth, and the days.
const PRIOR_CLUSTERS: Real = Real::ratio(1, 64);
const PRIOR_DAYS: Real = Real::ONE;

/// The prior distribution of the size of a cluster: the clusters that it is worth, the mean of
/// their sizes and of the squares of these.
const PRIOR_SIZES: Real = Real::ONE;
const PRIOR_SIZE: Real = Real::ratio(2, 1);
const PRIOR_SQUARE: Real = Real::ratio(16, 1);

/// By how much the logarithm of the rate can grow yet.
const MOST_GROWTH: Real = Real::ratio(5, 1);

/// Histories less probable than that are left out.
const NEGLIGIBLE: Real = Real::ratio(1, 1000);

/// A history of the rate: how it has been changing up to now.
struct History {
    /// The growth of its logarithm in a day.
    growth: Real,
    /// Its probability before anything is known.
    prior: Real,
}

impl History {
    /// The natural logarithm of 2.
    const LN_2: Real = Real::ratio(693_147_181, 1_000_000_000);

    /// A history of that growth, and of a probability in percent.
    const fn new(growth: Real, percent: u32) -> Self {
        Self {
            growth,
            prior: Real::ratio(percent, 100),
        }
    }

    /// The growth of what doubles every `days`.
    const fn doubling(days: u32) -> Real {
        Self::LN_2.over(Real::ratio(days, 1))
    }

    /// How many days at the rate of today bring as much as the next `days` at a rate that goes on
    /// to change.
    fn equivalent(&self, days: Real) -> Real {
        if self.growth == Real::ZERO {
            return days;
        }
        let grown = (self.growth * days).min(MOST_GROWTH);
        let factor = grown.exp();
        let rest = (days - grown / self.growth).max(Real::ZERO);
        (factor - Real::ONE) / self.growth + factor * rest
    }
}

/// The number of [`HISTORIES`].
const COUNT: usize = 6;

/// The histories that the model knows.
static HISTORIES: [History; COUNT] = [
    History::new(History::doubling(30).negative(), 10),
    History::new(Real::ZERO, 20),
    History::new(History::doubling(200), 20),
    History::new(History::doubling(60), 20),
    History::new(History::doubling(20), 20),
    History::new(History::doubling(6), 10),
];

/// A history, and what it says of now.
#[derive(Clone, Copy)]
struct Scenario {
    history: &'static History,
    /// Its probability.
    weight: Real,
    /// The mean of the blocks that go bad in a day.
    rate: Real,
}

/// What follows from a model.
pub(super) struct Forecast {
    scenarios: [Scenario; COUNT],
    /// The square of the coefficient of variation of the rate, in each scenario.
    rate_variation: Real,
    /// The mean size of a cluster.
    size: Real,
    /// The square of the coefficient of variation of what one cluster brings.
    cluster_variation: Real,
}

impl Forecast {
    pub(super) fn new(model: &Model) -> Self {
        let count = PRIOR_SIZES + model.clusters;
        let size = (PRIOR_SIZES * PRIOR_SIZE + model.sizes) / count;
        let square = (PRIOR_SIZES * PRIOR_SQUARE + model.squares) / count;
        let relative_square = (square / (size * size)).max(Real::ONE);

        let shape = PRIOR_CLUSTERS + model.clusters / DISPERSION;
        let mut most = -Real::whole(u64::MAX);
        let mut scenarios = HISTORIES.each_ref().map(|history| {
            let decay = history.growth + Real::ONE / Model::MEMORY_DAYS;
            let faded = (-(decay * model.time.days())).exp();
            let exposure = PRIOR_DAYS + (Real::ONE - faded) / decay / DISPERSION;
            let evidence = -(history.growth * model.ages / DISPERSION) - shape * exposure.ln();
            let weight = history.prior.ln() + evidence;
            most = most.max(weight);
            Scenario {
                history,
                weight,
                rate: shape / exposure * size,
            }
        });
        let mut sum = Real::ZERO;
        for scenario in &mut scenarios {
            let weight = (scenario.weight - most).exp();
            let negligible = weight.is_below(NEGLIGIBLE);
            scenario.weight = if negligible { Real::ZERO } else { weight };
            sum = sum + scenario.weight;
        }
        for scenario in &mut scenarios {
            scenario.weight = scenario.weight / sum;
        }
        Self {
            scenarios,
            rate_variation: Real::ONE / shape + (relative_square - Real::ONE) / count,
            size,
            cluster_variation: relative_square + DISPERSION - Real::ONE,
        }
    }

    /// The mean over all scenarios of what `value` says of each.
    fn mean(&self, value: impl Fn(&Scenario) -> Real) -> Real {
        let probable = |scenario: &&Scenario| scenario.weight != Real::ZERO;
        self.scenarios
            .iter()
            .filter(probable)
            .fold(Real::ZERO, |sum, scenario| {
                sum + scenario.weight * value(scenario)
            })
    }

    /// The mean of the rate.
    pub(super) fn mean_rate(&self) -> Rate {
        in_millionths(self.mean(|scenario| scenario.rate))
    }

    /// The rate that the real one is below with the given probability.
    pub(super) fn rate(&self, probability: Real) -> Rate {
        let shape = Real::ONE / self.rate_variation;
        let mean = self.mean(|scenario| scenario.rate).ln();
        let range = (mean - Real::ratio(8, 1), mean + Real::ratio(4, 1));
        in_millionths(solve(range, probability, |rate| {
            self.mean(|scenario| at_most(shape, shape * rate / scenario.rate))
        }))
    }

    /// In how many days the spares will be full with the given probability.
    pub(super) fn exhaustion(&self, free: SlotCount, probability: Real) -> Option<Days> {
        let free = Real::whole(free.0.into());
        let full = |days| self.mean(|scenario| self.full(scenario, days, free));
        let horizon = Real::whole(Exhaustion::HORIZON.0);
        if full(horizon).is_below(probability) {
            return None;
        }
        let range = (Real::ratio(1, 16).ln(), horizon.ln());
        Some(Days(solve(range, probability, full).floor()))
    }

    /// The probability that `free` blocks or more go bad in the next `days`.
    ///
    /// Their number is taken to have a gamma distribution, of the mean and the variance that follow
    /// from the model.
    fn full(&self, scenario: &Scenario, days: Real, free: Real) -> Real {
        let mean = scenario.rate * scenario.history.equivalent(days);
        if mean == Real::ZERO {
            return Real::ZERO;
        }
        let shape = Real::ONE / (self.cluster_variation * self.size / mean + self.rate_variation);
        Real::ONE - at_most(shape, shape * free / mean)
    }
}

/// A rate in blocks for each day.
fn in_millionths(rate: Real) -> Rate {
    Rate((rate * Real::ratio(1_000_000, 1)).floor())
}

/// Where a growing function from 0 to 1 reaches `value`, between two numbers whose logarithms are
/// given, within 3%.
fn solve((mut low, mut high): (Real, Real), value: Real, function: impl Fn(Real) -> Real) -> Real {
    /// After so many halvings the function is as good as straight.
    const HALVINGS: u32 = 8;
    let (mut below, mut above) = (Real::ZERO, Real::ONE);
    for _ in 0..HALVINGS {
        let middle = (low + high) / Real::ratio(2, 1);
        let reached = function(middle.exp());
        if reached.is_below(value) {
            (low, below) = (middle, reached);
        } else {
            (high, above) = (middle, reached);
        }
    }
    let part = ((value - below) / (above - below))
        .max(Real::ZERO)
        .min(Real::ONE);
    (low + (high - low) * part).exp()
}
