// SPDX-License-Identifier: GPL-2.0

//! What the device says of itself: `dmsetup status`, `dmsetup table`, the measurement of the integrity subsystem, and the
//! messages `stats` and `lookup`.
//!
//! Nothing here waits for I/O or for the relocator.

use crate::dm::device::Device;
use crate::dm::target::Live;
use crate::dm::target::StatusKind;
use crate::dm::text::Text;
use crate::remap::health::level::Level;
use crate::remap::table_line::Line;
use crate::remap::units::Cause;
use crate::remap::units::MAX_SPARES;
use crate::scan;
use crate::setup::MAIN;
use crate::target::Fullness;
use crate::target::Mode;
use crate::target::Remap;
use crate::traffic::Kind;
use core::fmt;
use core::fmt::Write;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering;

/// Writes the status of a kind.
pub(crate) fn write(this: &Live<Remap>, kind: StatusKind, text: &mut Text<'_>) -> fmt::Result {
    match kind {
        StatusKind::Info => write_info(this, text),
        StatusKind::Table => write_table(this, text),
        StatusKind::Ima => write_measurement(this, text),
    }
}

/// The word for the mode.
fn mode(this: &Live<Remap>) -> &'static str {
    match this.mode() {
        Mode::ReadWrite if this.is_suspect() => "suspect",
        Mode::ReadWrite if this.options().automatic => "rw",
        Mode::ReadWrite => "manual",
        Mode::ReadOnly => "ro",
        Mode::Failed => "fail",
    }
}

/// A counter.
fn count(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// How many spares are there.
fn online(this: &Live<Remap>) -> usize {
    this.config.spares.iter().flatten().count()
}

/// `dmsetup status`: all keys, in the order of the documentation.
fn write_info(this: &Live<Remap>, text: &mut Text<'_>) -> fmt::Result {
    let counts = &this.counts;
    let table = this.table();
    let block = table.map_or(0, |table| table.block_size.sectors().0);
    let used = table.map_or(0, |table| table.spares.used());
    let total = table.map_or(0, |table| {
        let spares = &table.spares;
        spares.slots().saturating_sub(spares.retired())
    });
    write!(
        text,
        "mode={} health={} block={block} spares={}/{} used={used} total={total} unreadable={}",
        mode(this),
        health(this),
        online(this),
        this.config.count.get(),
        counts.unreadable(),
    )?;
    let progress = this.progress();
    for (name, value) in counters(this).into_iter().take(STATUS_COUNTERS) {
        match name {
            "meta_errors" => write!(
                text,
                " scan={} scan_pos={} scan_passes={} scan_errors={} meta_errors={value}",
                scan::state(this),
                progress.position.0.saturating_add(this.begin()),
                progress.passes,
                progress.errors
            )?,
            _ => write!(text, " {name}={value}")?,
        }
    }
    match counts.last_error() {
        Some(sector) => {
            let shown = sector.0.saturating_add(this.begin());
            write!(text, " last_error={shown}")?;
        }
        None => text.write_str(" last_error=-")?,
    }
    let exhaustion = this
        .health
        .report()
        .and_then(|report| report.exhaustion.median);
    match exhaustion {
        Some(days) => write!(text, " exhaustion_days={}", days.0),
        None => text.write_str(" exhaustion_days=-"),
    }
}

/// The word for the health: the worst of what the mode, the spares and the model say.
pub(crate) fn health(this: &Live<Remap>) -> &'static str {
    let mode = match this.mode() {
        Mode::Failed => Level::Critical,
        Mode::ReadOnly if !this.config.read_only => Level::Critical,
        _ if online(this) < this.config.count.get() || this.is_suspect() => Level::Critical,
        _ => Level::Good,
    };
    let spares = match this.fullness() {
        Fullness::Room | Fullness::Low if this.has_failing_spare() => Level::Replace,
        Fullness::Room => Level::Good,
        Fullness::Low => Level::Replace,
        Fullness::VeryLow | Fullness::Exhausted => Level::Critical,
    };
    let model = this
        .health
        .report()
        .map_or(Level::Good, |report| report.level);
    mode.max(spares).max(model).name()
}

/// The number of counters that the message `stats` shows, of which the first ones are those of the status.
pub(crate) const COUNTERS: usize = 19;
const STATUS_COUNTERS: usize = 12;

/// The counters, by name.
fn counters(this: &Live<Remap>) -> [(&'static str, u64); COUNTERS] {
    let traffic = &this.traffic;
    let counts = &this.counts;
    [
        ("reads", traffic.ended(Kind::Read, false)),
        ("writes", traffic.ended(Kind::Write, false)),
        ("spare_reads", traffic.ended(Kind::Read, true)),
        ("spare_writes", traffic.ended(Kind::Write, true)),
        ("read_errors", traffic.errors(Kind::Read)),
        ("write_errors", traffic.errors(Kind::Write)),
        ("other_errors", traffic.errors(Kind::Other)),
        ("relocated", count(&counts.relocated)),
        ("relocated_auto", count(&counts.relocated_auto)),
        ("removed", count(&counts.removed)),
        ("refused", count(&counts.refused)),
        ("meta_errors", count(&counts.meta_errors)),
        ("read_sectors", traffic.sectors(Kind::Read)),
        ("write_sectors", traffic.sectors(Kind::Write)),
        ("relocated_read", counts.of_cause(Cause::Read)),
        ("relocated_write", counts.of_cause(Cause::Write)),
        ("relocated_scan", counts.of_cause(Cause::Scan)),
        ("relocated_message", counts.of_cause(Cause::Message)),
        ("relocated_spare", counts.of_cause(Cause::Spare)),
    ]
}

/// The name of a device as device mapper prints it.
fn name(device: Option<&Device>) -> &str {
    device.map_or("-", |device| device.name().to_str().unwrap_or("-"))
}

/// `dmsetup table`: arguments that make the same device again.
fn write_table(this: &Live<Remap>, text: &mut Text<'_>) -> fmt::Result {
    let mut spares = [None; MAX_SPARES];
    for (name_of, id) in spares.iter_mut().zip(this.config.spares) {
        *name_of = id.map(|id| name(this.device(id)));
    }
    let line = Line {
        main: name(this.device(MAIN)),
        spares: spares.get(..this.config.count.get()).unwrap_or_default(),
        features: this.config.features.showing(this.options()),
    };
    write!(text, "{line}")
}

/// The measurement: which devices are mapped, and how.
fn write_measurement(this: &Live<Remap>, text: &mut Text<'_>) -> fmt::Result {
    write!(text, ",main_device={}", name(this.device(MAIN)))?;
    let spares = this.config.spares.iter().take(this.config.count.get());
    for (at, spare) in spares.enumerate() {
        let device = spare.and_then(|id| this.device(id));
        write!(text, ",spare_device_{at}={}", name(device))?;
    }
    // Device mapper measures a table when it is loaded, so only what the table line says can be told.
    let features = &this.config.features;
    if let Some(block_size) = features.block_size {
        write!(text, ",block_size={}", block_size.sectors().0)?;
    }
    if let Some(main_id) = features.main_id {
        write!(text, ",main_id={main_id}")?;
    }
    if let Some(uuid) = features.uuid {
        write!(text, ",uuid={uuid}")?;
    }
    write!(text, ",manual={};", u8::from(features.manual))
}

/// The message `stats`: the counters and latencies since the last `stats reset`, one a line.
pub(crate) fn write_stats(this: &Live<Remap>, text: &mut Text<'_>) -> fmt::Result {
    let baseline = this.baseline();
    for ((name, value), before) in counters(this).into_iter().zip(baseline) {
        writeln!(text, "{name}={}", value.wrapping_sub(before))?;
    }
    this.latencies.write(text)
}

/// Begins to count for `stats` from here on: after the activation, and for the message `stats reset`.
pub(crate) fn reset_stats(this: &Live<Remap>) {
    this.set_baseline(counters(this).map(|(_, value)| value));
    this.latencies.reset();
}
