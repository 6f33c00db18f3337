// SPDX-License-Identifier: GPL-2.0

//! The model makes sense of everything that can happen to it.

use dm_remap_host::remap::health::level::Level;
use dm_remap_host::remap::health::Days;
use dm_remap_host::remap::health::Exhaustion;
use dm_remap_host::remap::health::Model;
use dm_remap_host::remap::health::Rate;
use dm_remap_host::remap::health::Report;
use dm_remap_host::remap::health::ServiceTime;
use dm_remap_host::remap::health::Spares;
use dm_remap_host::remap::units::Cause;
use dm_remap_host::remap::units::Sectors;
use dm_remap_host::remap::units::SlotCount;
use proptest::prelude::*;

const DAY: u64 = 86400;

const CAUSES: [Cause; 6] = [
    Cause::Read,
    Cause::Write,
    Cause::Scan,
    Cause::Message,
    Cause::Import,
    Cause::Spare,
];

fn spares(free: u32) -> Spares {
    Spares {
        free: SlotCount(free),
        total: SlotCount(free),
        unreadable: Sectors(0),
    }
}

/// What is said at `time` of a disk with that many free spare blocks.
fn report(mut model: Model, time: u64, free: u32) -> Report {
    model.assess(ServiceTime(time), spares(free))
}

/// A model of a disk that was scanned, and of which blocks failed at these times.
fn model(found: &[(u64, u32)]) -> Model {
    let mut model = Model::new();
    model.pass_ended();
    for &(time, blocks) in found {
        model.record(ServiceTime(time), Cause::Read, SlotCount(blocks));
    }
    model
}

/// The days until something, as a number to compare.
fn days(until: Option<Days>) -> u64 {
    until.map_or(u64::MAX, |days| days.0)
}

/// Something that can happen to a model.
#[derive(Clone, Debug)]
enum Step {
    Advance(u64),
    Record(u64, usize, u32),
    PassEnded,
    Assess(u64, u32, u32, u64),
}

/// A time that may be before the last one, far ahead, or anything.
fn any_time() -> impl Strategy<Value = u64> {
    prop_oneof![0..400 * DAY, 0..100u64, any::<u64>(), Just(u64::MAX)]
}

fn any_count() -> impl Strategy<Value = u32> {
    prop_oneof![0u32..20, any::<u32>(), Just(u32::MAX)]
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        any_time().prop_map(Step::Advance),
        (any_time(), 0..CAUSES.len(), any_count())
            .prop_map(|(time, cause, blocks)| Step::Record(time, cause, blocks)),
        Just(Step::PassEnded),
        (any_time(), any_count(), any_count(), any::<u64>())
            .prop_map(|(time, free, total, lost)| Step::Assess(time, free, total, lost)),
    ]
}

/// What makes sense of any model.
fn check_report(report: &Report, free: u32) {
    assert!(
        days(report.exhaustion.early) <= days(report.exhaustion.median),
        "{report:?}"
    );
    assert!(report.rate_low <= report.rate_high, "{report:?}");
    assert!(
        days(report.exhaustion.median) <= Exhaustion::HORIZON.0
            || report.exhaustion.median.is_none()
    );
    if free == 0 {
        assert_eq!(report.exhaustion.median, Some(Days(0)), "{report:?}");
    }
}

/// Clusters, as the days between them and their blocks.
fn any_history() -> impl Strategy<Value = Vec<(u64, u32)>> {
    let cluster = (prop_oneof![3600..DAY, DAY..40 * DAY], 1u32..30);
    prop::collection::vec(cluster, 0..60).prop_map(|clusters| {
        let mut time = 0;
        clusters
            .into_iter()
            .map(|(wait, blocks)| {
                time += wait;
                (time, blocks)
            })
            .collect()
    })
}

/// Of a disk without bad blocks nothing is feared, from its first day on.
#[test]
fn silence() {
    for time in [0, 1, DAY, 100 * DAY, 10_000 * DAY, u64::MAX] {
        for free in [1, 50, 1000, u32::MAX] {
            let report = report(Model::new(), time, free);
            assert_eq!(report.level, Level::Good);
            assert_eq!(report.exhaustion.median, None);
            assert!(report.rate_low <= Rate(10));
        }
    }
}

/// Ten blocks each day for a year are ten blocks a day, and a spare for 1000 lasts 100 days.
#[test]
fn a_constant_rate() {
    let found: Vec<_> = (0..365).map(|day| (day * DAY, 10)).collect();
    let report = report(model(&found), 365 * DAY, 1000);
    assert!(
        (9_000_000..11_000_000).contains(&report.rate.0),
        "{report:?}"
    );
    assert!(report.rate_low < report.rate && report.rate < report.rate_high);
    assert!(
        (90..110).contains(&days(report.exhaustion.median)),
        "{report:?}"
    );
    assert!(
        (60..90).contains(&days(report.exhaustion.early)),
        "{report:?}"
    );
    assert_eq!(report.level, Level::Watch);
}

/// What was found within an hour is one cluster, however it was told.
#[test]
fn one_cluster() {
    let rate = |found: &[(u64, u32)]| report(model(found), DAY, 1000).rate.0;
    let together = rate(&[(0, 8)]);
    assert!(rate(&[(0, 1), (20, 3), (3599, 4)]).abs_diff(together) < together / 1000);
    assert!(rate(&[(0, 4), (3600, 4)]) > together + together / 5);
}

/// What others knew of, and what the first pass finds, does not count as having gone bad now.
#[test]
fn only_what_is_new() {
    let new = |cause, scanned| {
        let mut model = Model::new();
        if scanned {
            model.pass_ended();
        }
        let before = model;
        model.record(ServiceTime(0), cause, SlotCount(5));
        model != before
    };
    let counted = |scanned| CAUSES.map(|cause| new(cause, scanned));
    assert_eq!(counted(false), [true, true, false, false, false, true]);
    assert_eq!(counted(true), [true, true, true, false, false, true]);
}

/// A model of another version, or with anything else in it that is not stored so, is none.
#[test]
fn what_is_no_model() {
    let good = model(&[(5, 7)]).encode();
    assert_eq!(Model::decode(&good), Some(model(&[(5, 7)])));
    assert_eq!(Model::decode(&[0; Model::BYTES]), None);
    // Version, level, whether scanned, time of the level, of the last cluster, and a sum.
    for (at, byte) in [
        (0, 2),
        (2, 4),
        (3, 2),
        (16, 6),
        (24, 6),
        (39, 0xff),
        (39, 0x3f),
    ] {
        let mut bytes = good;
        bytes[at] = byte;
        assert_eq!(Model::decode(&bytes), None, "byte {at}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 400 }))]

    /// Nothing that happens is a panic, time never goes back, and what is stored is what was there.
    #[test]
    fn anything_can_happen(steps in prop::collection::vec(any_step(), 0..60)) {
        let mut model = Model::new();
        for step in steps {
            let before = model.time();
            match step {
                Step::Advance(time) => model.advance(ServiceTime(time)),
                Step::Record(time, cause, blocks) => {
                    model.record(ServiceTime(time), CAUSES[cause], SlotCount(blocks));
                }
                Step::PassEnded => model.pass_ended(),
                Step::Assess(time, free, total, lost) => {
                    let spares = Spares {
                        free: SlotCount(free),
                        total: SlotCount(total),
                        unreadable: Sectors(lost),
                    };
                    check_report(&model.assess(ServiceTime(time), spares), free);
                }
            }
            prop_assert!(model.time() >= before);
            prop_assert_eq!(Model::decode(&model.encode()), Some(model));
        }
    }

    /// Hostile bytes are no model, or one that everything can happen to.
    #[test]
    fn hostile_bytes(
        found in any_history(),
        changes in prop::collection::vec((0..Model::BYTES, any::<u8>()), 1..12),
        steps in prop::collection::vec(any_step(), 1..8),
    ) {
        let mut bytes = model(&found).encode();
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        if let Some(mut model) = Model::decode(&bytes) {
            prop_assert_eq!(model.encode(), bytes);
            for step in steps {
                if let Step::Record(time, cause, blocks) = step {
                    model.record(ServiceTime(time), CAUSES[cause], SlotCount(blocks));
                }
                let report = model.assess(model.time(), spares(1000));
                prop_assert!(report.rate_low <= report.rate_high);
            }
        }
    }

    /// More bad blocks, or a cluster more, never lower the rate; and more room never shortens the
    /// time until it is used.
    #[test]
    fn worse_is_not_better(
        found in any_history(),
        more in 1u32..50,
        wait in 3600..30 * DAY,
        free in 1u32..100_000,
    ) {
        let time = found.last().map_or(0, |last| last.0) + wait;
        let with = |blocks: u32| {
            let mut model = model(&found);
            if blocks > 0 {
                model.record(ServiceTime(time), Cause::Read, SlotCount(blocks));
            }
            report(model, time, free)
        };
        let (none, one, many) = (with(0), with(1), with(1 + more));
        // But for rounding.
        let not_below = |a: Rate, b: Rate| a.0 + a.0 / 100_000 + 1 >= b.0;
        prop_assert!(not_below(one.rate, none.rate), "{:?} {:?}", one, none);
        prop_assert!(not_below(many.rate, one.rate), "{:?} {:?}", many, one);

        let roomy = report(model(&found), time, free.saturating_mul(2));
        prop_assert!(days(roomy.exhaustion.early) >= days(none.exhaustion.early));
        prop_assert!(days(roomy.exhaustion.median) >= days(none.exhaustion.median));
    }

    /// How often the model is told the time makes no difference, nor does a time in the past.
    #[test]
    fn time_is_told(found in any_history(), quiet in 1..1000u64, parts in 1..20u64) {
        let end = found.last().map_or(0, |last| last.0);
        let time = end + quiet * DAY;
        let at_once = report(model(&found), time, 1000);
        let mut model = model(&found);
        for part in 1..=parts {
            model.advance(ServiceTime(end + quiet * DAY * part / parts));
            model.advance(ServiceTime(end / 2));
        }
        let told = report(model, 0, 1000);
        prop_assert!(told.rate.0.abs_diff(at_once.rate.0) <= 2 + at_once.rate.0 / 10_000);
        prop_assert_eq!(model.time(), ServiceTime(time));
    }
}
