// SPDX-License-Identifier: GPL-2.0

//! The level rises at once, and falls slowly.

use dm_remap_host::remap::health::level::Level;
use dm_remap_host::remap::health::level::State;
use dm_remap_host::remap::health::Days;
use dm_remap_host::remap::health::Exhaustion;
use dm_remap_host::remap::health::ServiceTime;
use dm_remap_host::remap::health::Spares;
use dm_remap_host::remap::units::Sectors;
use dm_remap_host::remap::units::SlotCount;
use proptest::prelude::*;

const NEVER: Exhaustion = Exhaustion {
    early: None,
    median: None,
};

fn used(used: u32) -> Spares {
    Spares {
        free: SlotCount(1000 - used),
        total: SlotCount(1000),
        unreadable: Sectors(0),
    }
}

fn within(early: u64, median: u64) -> Exhaustion {
    Exhaustion {
        early: Some(Days(early)),
        median: Some(Days(median)),
    }
}

fn day(day: u64) -> ServiceTime {
    ServiceTime(day * 86400)
}

/// The level that a disk is given at first.
fn first(spares: Spares, exhaustion: Exhaustion) -> Level {
    State::new().update(day(0), spares, exhaustion)
}

/// "Good", "watch" from a half on, "replace" from 80%, "critical" from 95%.
#[test]
fn fullness() {
    let levels = [0, 499, 500, 799, 800, 949, 950, 1000].map(|part| first(used(part), NEVER));
    use Level::*;
    assert_eq!(
        levels,
        [Good, Good, Watch, Watch, Replace, Replace, Critical, Critical]
    );
    let none = Spares {
        free: SlotCount(0),
        total: SlotCount(0),
        unreadable: Sectors(0),
    };
    assert_eq!(first(none, NEVER), Good);
}

/// The days that the forecast must say, for each level.
#[test]
fn exhaustion() {
    let level = |early, median| first(used(100), within(early, median));
    assert_eq!(level(0, 0), Level::Critical);
    assert_eq!(level(7, 30), Level::Critical);
    assert_eq!(level(8, 30), Level::Replace);
    assert_eq!(level(7, 31), Level::Replace);
    assert_eq!(level(30, 120), Level::Replace);
    assert_eq!(level(31, 120), Level::Watch);
    assert_eq!(level(30, 121), Level::Watch);
    assert_eq!(level(365, 36525), Level::Watch);
    assert_eq!(level(366, 36525), Level::Good);
    assert_eq!(first(used(100), NEVER), Level::Good);
    // A few bad blocks are no reason for an alarm.
    assert_eq!(first(used(99), within(0, 0)), Level::Watch);
}

/// Lost data is worth a look, and much lost data a new disk.
#[test]
fn loss() {
    let level = |sectors| {
        let unreadable = Sectors(sectors);
        first(
            Spares {
                unreadable,
                ..used(1)
            },
            NEVER,
        )
    };
    assert_eq!(level(0), Level::Good);
    assert_eq!(level(1), Level::Watch);
    assert_eq!(level(1023), Level::Watch);
    assert_eq!(level(1024), Level::Replace);
    assert_eq!(level(1 << 40), Level::Replace);
}

/// A forecast that wavers about a threshold does not make the level waver.
#[test]
fn no_flapping() {
    let mut state = State::new();
    for time in 0..1000 {
        let days = [25, 31, 40, 60][time as usize % 4];
        assert_eq!(
            state.update(day(time), used(100), within(days, days)),
            Level::Replace
        );
    }
    // Without a reason for a week it falls, one to which there is a reason.
    for time in 1000..1006 {
        assert_eq!(
            state.update(day(time), used(100), within(61, 61)),
            Level::Replace
        );
    }
    assert_eq!(
        state.update(day(1006), used(100), within(61, 61)),
        Level::Watch
    );
    // It rises at once, over several levels.
    assert_eq!(
        state.update(day(1006), used(950), within(61, 61)),
        Level::Critical
    );
    assert_eq!(state.update(day(1014), used(900), NEVER), Level::Critical);
    assert_eq!(state.update(day(1021), used(899), NEVER), Level::Replace);
}

proptest! {
    /// A level is never lower than there is a reason for, and it changes at most once up and once
    /// down in a week.
    #[test]
    fn rises_at_once_and_falls_slowly(
        steps in prop::collection::vec((0u64..300_000, 0u32..=1000, 0u64..800), 1..100),
    ) {
        let (mut state, mut time) = (State::new(), 0);
        let (mut last, mut fallen) = (Level::Good, None);
        for (wait, part, days) in steps {
            time += wait;
            let exhaustion = within(days, days);
            let level = state.update(ServiceTime(time), used(part), exhaustion);
            prop_assert!(level >= first(used(part), exhaustion));
            if level < last {
                prop_assert!(fallen.is_none_or(|fallen| time - fallen >= 7 * 86400));
                fallen = Some(time);
            }
            last = level;
        }
    }
}
