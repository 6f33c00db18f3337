// SPDX-License-Identifier: GPL-2.0

//! How long requests take: histograms of base-2 logarithms.
//!
//! To read the clock for each request would cost more than everything else that the target does for it. So on each processor one
//! request of [`PERIOD`] is timed. No memory that another processor writes is touched.

use crate::sync::percpu::Counters;
use crate::sync::percpu::Sampler;
use crate::traffic::Kind;
use core::fmt;
use kernel::new_mutex;
use kernel::prelude::*;
use kernel::sync::Mutex;

/// One request of so many is timed.
pub(crate) const PERIOD: u64 = 64;

/// Classes of a histogram: class 0 is for less than a microsecond, class *i* for less than 2^*i* microseconds and no less
/// than half of that, and the last one for all that take longer.
const CLASSES: usize = 28;

/// What the histograms are of.
const PLACES: [(&str, Kind, bool); 4] = [
    ("main_read_us", Kind::Read, false),
    ("main_write_us", Kind::Write, false),
    ("spare_read_us", Kind::Read, true),
    ("spare_write_us", Kind::Write, true),
];

/// The number of counters that all histograms have.
const COUNTERS: usize = CLASSES * PLACES.len();

/// The latencies of a device.
#[pin_data]
pub(crate) struct Latencies {
    sampler: Sampler,
    counters: Counters<COUNTERS>,
    /// What the counters stood at when they were reset.
    #[pin]
    before: Mutex<[u64; COUNTERS]>,
}

impl Latencies {
    /// No request was timed yet.
    pub(crate) fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            sampler: Sampler::new()?,
            counters: Counters::new()?,
            before <- new_mutex!([0; COUNTERS], "dm_remap_latencies"),
        })
    }

    /// Whether to time this request.
    #[inline(always)]
    pub(crate) fn picks(&self) -> bool {
        self.sampler.picks::<PERIOD>()
    }

    /// Counts a request to read or write data that took so long.
    pub(crate) fn count(&self, kind: Kind, on_spare: bool, nanoseconds: u64) {
        let microseconds = nanoseconds / 1000;
        let class = (u64::BITS - microseconds.leading_zeros()) as usize;
        let place = PLACES
            .iter()
            .position(|place| (place.1, place.2) == (kind, on_spare));
        if let Some(place) = place {
            let at = place * CLASSES + class.min(CLASSES - 1);
            self.counters.increment::<0, COUNTERS>(at);
        }
    }

    /// Begins to count for [`Self::write`] from here on.
    pub(crate) fn reset(&self) {
        for (at, before) in self.before.lock().iter_mut().enumerate() {
            *before = self.counters.sum(at);
        }
    }

    /// Writes a line for each histogram: its name, and what its classes have counted since the reset.
    pub(crate) fn write(&self, out: &mut impl fmt::Write) -> fmt::Result {
        writeln!(out, "latency_sample={PERIOD}")?;
        let before = self.before.lock();
        for (at, before) in before.iter().enumerate() {
            match (PLACES.get(at / CLASSES), at % CLASSES) {
                (Some((name, ..)), 0) => write!(out, "{name}=")?,
                _ => write!(out, ",")?,
            }
            let count = self.counters.sum(at).wrapping_sub(*before);
            write!(out, "{count}")?;
            if at % CLASSES == CLASSES - 1 {
                writeln!(out)?;
            }
        }
        Ok(())
    }
}
