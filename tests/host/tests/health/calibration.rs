// SPDX-License-Identifier: GPL-2.0

//! What the model says comes true, on simulated disks. They are few, and others than those in
//! `docs/health.md` and those that the model was made with.

use dm_remap_host::simulation::disks::Kind;
use dm_remap_host::simulation::measure::measure;
use dm_remap_host::simulation::measure::Score;
use dm_remap_host::simulation::measure::COUNT;

const SEED: u64 = 4;

/// The kinds of which something can be foreseen.
const GRADUAL: [Kind; 6] = [
    Kind::Constant,
    Kind::Growing,
    Kind::Wearing,
    Kind::Turning,
    Kind::Bursty,
    Kind::Clustered,
];

/// The mean over kinds of what `value` says of the scores of their disks.
fn mean(scores: &[Score], value: impl Fn(&Score) -> f64) -> f64 {
    scores.iter().map(value).sum::<f64>() / scores.len() as f64
}

#[test]
fn failing_disks() {
    let mut scores: [Vec<Score>; COUNT] = Default::default();
    for kind in GRADUAL {
        for (scores, score) in scores.iter_mut().zip(measure(kind, SEED, 10)) {
            assert!(score.failed > 0.0);
            scores.push(score);
        }
    }
    let [model, lines @ ..] = &scores;
    let early = mean(model, |score| score.early / score.failed);
    let median = mean(model, |score| score.median / score.failed);
    let distance = |scores: &[Score]| mean(scores, |score| score.distance / score.failed);
    let warned = mean(model, |score| score.warned(7.0));
    println!("{early} {median} {warned} {}", distance(model));
    assert!(
        (0.85..=1.0).contains(&early),
        "the early bound held for {early}"
    );
    assert!(
        (0.3..=0.65).contains(&median),
        "the median held for {median}"
    );
    assert!(warned >= 0.9, "a part of {warned} had a week of warning");
    for line in lines {
        let (ours, theirs) = (distance(model), distance(line));
        assert!(
            ours < 0.75 * theirs,
            "{ours} is no better than {theirs} of a line"
        );
    }
}

#[test]
fn disks_in_order() {
    for kind in [Kind::Healthy, Kind::Worn] {
        let [model, ..] = measure(kind, SEED, 4);
        assert!(model.quiet_years >= 19.0);
        assert_eq!(model.false_alarms, 0.0, "{}", kind.name());
    }
}
