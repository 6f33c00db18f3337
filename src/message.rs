// SPDX-License-Identifier: GPL-2.0

//! Carrying out messages.

use crate::dm::target::Live;
use crate::dm::text::Text;
use crate::dm::text::Words;
use crate::health;
use crate::relocator;
use crate::relocator::For;
use crate::relocator::Seen;
use crate::remap::listing;
use crate::remap::message::check_on_device;
use crate::remap::message::Message;
use crate::remap::message::SectorRange;
use crate::remap::message::HELP;
use crate::remap::options::Setting;
use crate::remap::records::Entry;
use crate::remap::records::Records;
use crate::remap::resolve::Layouts;
use crate::remap::units::Block;
use crate::remap::units::Cause;
use crate::remap::units::Sector;
use crate::remap::units::Sectors;
use crate::scan;
use crate::status;
use crate::table::Table;
use crate::target::Mode;
use crate::target::Remap;
use core::fmt::Write;
use core::ops::RangeInclusive;
use kernel::prelude::*;
use kernel::time::Delta;

/// How many blocks `list` looks up at a time.
///
/// Each time all records are looked at, so a few thousand keep a list of a million blocks short.
const LIST_BLOCKS: usize = 4096;

/// Carries out a message.
///
/// # Errors
///
/// `EINVAL` when it is malformed; otherwise that of the operation. The log says why.
pub(crate) fn carry_out(this: &Live<Remap>, words: Words<'_>, reply: &mut Text<'_>) -> Result {
    let refuse = |why: &str| {
        pr_warn!("{}: message refused: {why}\n", this.log_name());
        EINVAL
    };
    let message = Message::parse(words.iter().map(CStr::to_bytes)).map_err(refuse)?;
    match message {
        Message::Add(range) => {
            let range = range_on_main(this, &range).map_err(refuse)?;
            let blocks = blocks(this, &range)?;
            said(this, "add", relocator::add(this, blocks, Cause::Message))
        }
        Message::Remove(range) => {
            let range = range_on_main(this, &range).map_err(refuse)?;
            let blocks = blocks(this, &range)?;
            said(this, "remove", relocator::remove(this, blocks))
        }
        Message::Lookup(sector) => lookup(this, on_main(this, sector).map_err(refuse)?, reply),
        Message::List { from, max } => {
            let from = on_main(this, from.max(Sector(this.begin()))).map_err(refuse)?;
            list(this, from, max.unwrap_or(u64::MAX), reply)
        }
        Message::Set(setting) => set(this, setting),
        Message::Scan(verb) => scan::message(this, verb, reply).inspect_err(|error| {
            let why = match *error {
                e if e == EINVAL => "the pass is not in a state for that: see scan status",
                e if e == EROFS => "the table is read-only, or metadata cannot be written",
                e if e == EBUSY => "the device is suspended",
                e if e == EINTR => "of a signal",
                _ => "metadata could not be written",
            };
            pr_warn!("{}: scan failed because {why}\n", this.log_name());
        }),
        Message::Health => Ok(health::write(this, reply)?),
        Message::Stats => Ok(status::write_stats(this, reply)?),
        Message::StatsReset => {
            status::reset_stats(this);
            Ok(())
        }
        Message::Sync => said(this, "sync", relocator::sync(this)),
        Message::Help => Ok(reply.write_str(HELP)?),
    }
}

/// The sector of main that a sector of the mapped device is. They differ when the table has something before this line.
///
/// # Errors
///
/// The sentence that says why there is none.
fn on_main(this: &Live<Remap>, sector: Sector) -> Result<Sector, &'static str> {
    let before = "sector lies before the part of the device that is remapped";
    let sector = Sector(sector.0.checked_sub(this.begin()).ok_or(before)?);
    check_on_device(sector, Sectors(this.sectors()))?;
    Ok(sector)
}

/// The table.
///
/// # Errors
///
/// `EBUSY` while the device was never activated, after a line in the log.
fn active_table(this: &Live<Remap>) -> Result<&Table> {
    this.table().ok_or(EBUSY).inspect_err(|_| {
        pr_warn!(
            "{}: message refused: the device was never activated\n",
            this.log_name()
        );
    })
}

/// The sectors of main that some sectors of the mapped device are.
///
/// # Errors
///
/// The sentence that says why there are none.
fn range_on_main(this: &Live<Remap>, range: &SectorRange) -> Result<SectorRange, &'static str> {
    let first = on_main(this, range.first())?;
    let range = SectorRange::new(first, range.count()).ok_or("count is too large")?;
    range.check_within(Sectors(this.sectors()))?;
    Ok(range)
}

/// The blocks that a range of sectors of main touches.
///
/// # Errors
///
/// `EBUSY` while the device was never activated, so that the size of a block is not known.
fn blocks(this: &Live<Remap>, range: &SectorRange) -> Result<RangeInclusive<Block>> {
    let size = active_table(this)?.block_size;
    let block = |sector| size.block_of(sector).ok_or(EINVAL);
    Ok(block(range.first())?..=block(range.last())?)
}

/// Says in the log why an operation of the relocator failed.
fn said<R>(this: &Live<Remap>, verb: &str, result: Result<R>) -> Result<R> {
    result.inspect_err(|error| {
        let why = match *error {
            e if e == EBUSY => "the device is suspended, or about to be; what was done stays done",
            e if e == ENOSPC => {
                "there are not enough free spare blocks: nothing was changed, unless the last ones were \
                 used up meanwhile"
            },
            e if e == EROFS => "the table is read-only, or metadata cannot be written",
            e if e == EINTR => "it was interrupted; what was done stays done",
            e if e == ENOMEM => "there is not enough memory; what was done stays done",
            _ if this.mode() == Mode::Failed => {
                "metadata could not be written: the device has to be activated anew"
            }
            _ => "of an I/O error; what could be done was done",
        };
        pr_warn!("{}: {verb} failed because {why}\n", this.log_name());
    })
}

/// The message `lookup`.
fn lookup(this: &Live<Remap>, sector: Sector, reply: &mut Text<'_>) -> Result {
    let table = active_table(this)?;
    let block = table.block_size.block_of(sector).ok_or(EINVAL)?;
    let found = table.with_index(|index| index.find(&table.spares, block));
    let Some(found) = found else {
        return Ok(reply.write_str("main")?);
    };
    let spare = found.slot.spare();
    write!(reply, "spare {} ", spare.get())?;
    let offset = Sectors(table.block_size.offset_of(sector).get().into());
    let place = (table.spares.data_start(spare))
        .and_then(|start| start.checked_add(table.block_size.slot_offset(found.slot.number())))
        .and_then(|start| start.checked_add(offset));
    match place {
        Some(place) => write!(reply, "{}", place.0)?,
        None => reply.write_str("-")?,
    }
    Ok(write!(reply, " {:x}", found.live.0)?)
}

/// The message `list`.
///
/// Between two rounds blocks may move. Each round goes on behind the last block of the one before, so every block is there
/// once at most, and in order.
fn list(this: &Live<Remap>, from: Sector, max: u64, reply: &mut Text<'_>) -> Result {
    let table = active_table(this)?;
    let mut next = table.block_size.block_of(from);
    let last = table.block_size.last_block(table.main).ok_or(EINVAL)?;
    let mut left = max;
    let entries = KVec::from_elem(Entry::default(), LIST_BLOCKS, GFP_KERNEL);
    let mut entries = said(this, "list", entries.map_err(Error::from))?;
    let round = || {
        let Some(first) = next else {
            return Ok(Seen::All);
        };
        let found = listing::blocks_in_range(
            &table.hold_index(),
            &table.spares,
            table.spares.allocators(),
            first..=last,
            &mut entries,
        );
        next = match found.last() {
            Some(last) if found.len() == LIST_BLOCKS => last.block.next(),
            _ => None,
        };
        for entry in found {
            if left == 0 || reply.is_full() {
                return Ok(Seen::All);
            }
            left -= 1;
            write_line(this, table, entry, reply)?;
        }
        Ok(match next {
            Some(next) if next <= last && left > 0 => Seen::Part,
            _ => Seen::All,
        })
    };
    said(
        this,
        "list",
        relocator::in_rounds(this, For::Message, round),
    )
}

/// Writes what `list` says of a block.
fn write_line(
    this: &Live<Remap>,
    table: &Table,
    entry: &Entry,
    reply: &mut Text<'_>,
) -> core::fmt::Result {
    let Some(record) = table.spares.record(entry.slot) else {
        return Ok(());
    };
    let sector = table.block_size.first_sector(entry.block);
    let sectors = table.block_size.sectors_of(entry.block, table.main);
    let spare = entry.slot.spare();
    let shown = sector.0.saturating_add(this.begin());
    write!(reply, "{shown} {} {} ", sectors.0, spare.get())?;
    let offset = table.block_size.slot_offset(entry.slot.number());
    match (table.spares.data_start(spare)).and_then(|start| start.checked_add(offset)) {
        Some(place) => write!(reply, "{}", place.0)?,
        None => reply.write_str("-")?,
    }
    let (live, cause, time) = (record.live.0, record.cause.name(), record.time.0);
    writeln!(reply, " {live:x} {cause} {time}")
}

/// The message `set`.
fn set(this: &Live<Remap>, setting: Setting) -> Result {
    said(
        this,
        "set",
        relocator::run(this, For::Message, |session| session.set_options(setting)),
    )?;
    // The pass looks at its options when it does something.
    this.queue_background(Delta::from_millis(0));
    Ok(())
}
