// SPDX-License-Identifier: GPL-2.0

//! The health of the device: feeds the model of [`crate::remap::health`] with what happens, and tells what it says.
//!
//! The model is asked after something has happened, and once an hour, by the background work; its last answer is kept for the
//! status, which must not wait.

use crate::dm::target::Live;
use crate::remap::health::Model;
use crate::remap::health::Report;
use crate::remap::health::ServiceTime;
use crate::remap::health::Spares;
use crate::remap::units::Cause;
use crate::remap::units::Sectors;
use crate::remap::units::SlotCount;
use crate::target::Remap;
use core::fmt;
use kernel::new_mutex;
use kernel::new_spinlock;
use kernel::prelude::*;
use kernel::sync::Mutex;
use kernel::sync::SpinLock;
use kernel::time::Delta;
use kernel::time::Instant;
use kernel::time::Monotonic;

/// How often the model is asked at least, in seconds.
const HOUR_SECONDS: u64 = 3600;

/// The same.
pub(crate) const HOUR: Delta = Delta::from_millis(1000 * HOUR_SECONDS as i64);

/// How much service may be forgotten at a suspend.
pub(crate) const MINUTE_OF_SERVICE: ServiceTime = ServiceTime(60);

/// How much service may be forgotten in a crash.
pub(crate) const HOUR_OF_SERVICE: ServiceTime = ServiceTime(HOUR_SECONDS);

/// The model of a device, and what it said last.
#[pin_data]
pub(crate) struct Health {
    #[pin]
    learned: Mutex<Learned>,
    #[pin]
    report: SpinLock<Option<Report>>,
}

/// The model with what it needs to know the time.
struct Learned {
    model: Model,
    /// When the device was activated, and the time in service then.
    since: Instant<Monotonic>,
    before: ServiceTime,
    /// Whether something has happened that the model was not asked about since.
    news: bool,
    /// Whether something was learned that is not on the spares, and until when the model is there.
    unsaved: bool,
    saved: ServiceTime,
}

impl Learned {
    /// The time in service.
    fn now(&self) -> ServiceTime {
        let seconds = self.since.elapsed().as_millis() / 1000;
        let passed = u64::try_from(seconds).unwrap_or(0);
        ServiceTime(self.before.0.saturating_add(passed))
    }
}

impl Health {
    /// A model that knows nothing.
    pub(crate) fn new() -> impl PinInit<Self, Error> {
        let learned = Learned {
            model: Model::new(),
            since: Instant::now(),
            before: ServiceTime(0),
            news: true,
            unsaved: false,
            saved: ServiceTime(0),
        };
        try_pin_init!(Self {
            learned <- new_mutex!(learned, "dm_remap_health"),
            report <- new_spinlock!(None, "dm_remap_report"),
        })
    }

    /// Goes on with the model that the spares have, at the activation. Bytes that are none are one that knows nothing.
    pub(crate) fn load(&self, bytes: &[u8; Model::BYTES]) {
        let model = Model::decode(bytes).unwrap_or_default();
        let mut learned = self.learned.lock();
        *learned = Learned {
            model,
            since: Instant::now(),
            before: model.time(),
            news: true,
            unsaved: false,
            saved: model.time(),
        };
    }

    /// Learns that blocks were relocated for a reason.
    fn record(&self, cause: Cause, blocks: usize) {
        let mut learned = self.learned.lock();
        let now = learned.now();
        let blocks = SlotCount(u32::try_from(blocks).unwrap_or(u32::MAX));
        learned.model.record(now, cause, blocks);
        learned.news = true;
        learned.unsaved |= !matches!(cause, Cause::Message | Cause::Import);
    }

    /// Learns that a pass over main has ended.
    pub(crate) fn pass_ended(&self) {
        let mut learned = self.learned.lock();
        learned.model.pass_ended();
        learned.news = true;
        learned.unsaved = true;
    }

    /// The bytes to keep on the spares, if there is something new in them: something learned, or so much service.
    pub(crate) fn to_save(&self, service: ServiceTime) -> Option<[u8; Model::BYTES]> {
        let mut learned = self.learned.lock();
        let now = learned.now();
        if !learned.unsaved && now.since(learned.saved) < service {
            return None;
        }
        learned.model.advance(now);
        learned.unsaved = false;
        learned.saved = now;
        Some(learned.model.encode())
    }

    /// How long until something should be written to the spares: a minute after they were written last when something was learned
    /// since, otherwise an hour, for the time of service.
    pub(crate) fn save_in(&self) -> Delta {
        let learned = self.learned.lock();
        let passed = learned.now().since(learned.saved).0;
        let most = if learned.unsaved { 60 } else { HOUR_SECONDS };
        // At most an hour.
        Delta::from_secs(most.saturating_sub(passed) as i64)
    }

    /// What the model said last.
    pub(crate) fn report(&self) -> Option<Report> {
        *self.report.lock()
    }
}

impl Live<Remap> {
    /// Learns that blocks were relocated for a reason, or that there is more room on the spares.
    pub(crate) fn learn(&self, cause: Cause, blocks: usize) {
        self.counts.count_cause(cause, blocks);
        self.health.record(cause, blocks);
        self.queue_background(Delta::from_millis(0));
    }
}

/// Asks the model, when there is something new or an hour has passed, and tells about another level.
pub(crate) fn assess(this: &Live<Remap>) {
    let Some(table) = this.table() else { return };
    let counted = |slots: u64| SlotCount(u32::try_from(slots).unwrap_or(u32::MAX));
    let changed;
    let report = {
        let mut learned = this.health.learned.lock();
        let now = learned.now();
        let passed = now.since(learned.model.time()).0;
        if !learned.news && passed < HOUR_SECONDS {
            return;
        }
        learned.news = false;
        // What changes from here on is news again.
        let total = (table.spares.slots()).saturating_sub(table.spares.retired());
        let spares = Spares {
            free: counted(table.spares.slots().saturating_sub(table.spares.taken())),
            total: counted(total),
            unreadable: Sectors(this.counts.unreadable()),
        };
        // At an activation this is what the spares have.
        let before = learned.model.level();
        let report = learned.model.assess(now, spares);
        changed = before != report.level;
        report
    };
    *this.health.report.lock() = Some(report);
    if changed {
        let (name, level) = (this.log_name(), report.level.name());
        pr_warn!("{name}: the health of main is: {level}\n");
        this.event();
    }
}

/// The message `health`.
pub(crate) fn write(this: &Live<Remap>, out: &mut impl fmt::Write) -> fmt::Result {
    writeln!(out, "health={}", crate::status::health(this))?;
    let Some(report) = this.health.report() else {
        return Ok(());
    };
    let days = |out: &mut dyn fmt::Write, name, days: Option<crate::remap::health::Days>| match days
    {
        Some(days) => writeln!(out, "{name}={}", days.0),
        None => writeln!(out, "{name}=-"),
    };
    writeln!(out, "model={}", report.level.name())?;
    for (name, rate) in [
        ("rate", report.rate),
        ("rate_low", report.rate_low),
        ("rate_high", report.rate_high),
    ] {
        // Millionths of a block each day.
        writeln!(
            out,
            "{name}={}.{:06}",
            rate.0 / 1_000_000,
            rate.0 % 1_000_000
        )?;
    }
    days(out, "exhaustion_days", report.exhaustion.median)?;
    days(out, "exhaustion_days_early", report.exhaustion.early)?;
    let service = this.health.learned.lock().now();
    writeln!(out, "service_seconds={}", service.0)
}
