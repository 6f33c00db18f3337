// SPDX-License-Identifier: GPL-2.0

//! What the health model is compared with: a plain line through the bad blocks that were found.

use super::disks::Disk;
use super::disks::DAY;
use crate::remap::health::Days;
use crate::remap::health::Exhaustion;

/// By how much sooner than the line says the spare is taken to be full, as the early bound.
const MARGIN: f64 = 3.0;

/// In how many days the spare will be full, when as many blocks go bad in each as in the last
/// `window` days up to `time` (seconds), or as in all of them when there were fewer.
pub fn line(disk: &Disk, time: u64, window: f64) -> Exhaustion {
    let begin = time.saturating_sub((window * DAY) as u64);
    let used = disk.used(time);
    let recent = used - disk.used(begin);
    let days = (time - begin) as f64 / DAY;
    let full = disk.spare.saturating_sub(used) as f64 * days / recent as f64;
    let within = |days: f64| (days < Exhaustion::HORIZON.0 as f64).then_some(Days(days as u64));
    Exhaustion {
        early: within(full / MARGIN),
        median: within(full),
    }
}
