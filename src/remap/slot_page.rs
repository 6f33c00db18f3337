// SPDX-License-Identifier: GPL-2.0

//! Slot pages and witness pages: what the slots of a spare hold.
//!
//! The format is that of `docs/metadata.md`.

use super::geometry::EntryIndex;
use super::geometry::PageNumber;
use super::geometry::PAGE_BYTES;
use super::geometry::SLOTS_PER_PAGE;
use super::page::check;
use super::page::is_zero;
use super::page::put;
use super::page::take;
use super::page::BothBad;
use super::page::Choice;
use super::page::Crc32c;
use super::page::Damage;
use super::page::Name;
use super::page::Other;
use super::page::Page;
use super::page::Sequence;
use super::page::Subject;
use super::page::HEADER_BYTES;
use super::records::Record;
use super::units::Block;
use super::units::BlockSize;
use super::units::Cause;
use super::units::LiveMask;
use super::units::Sectors;
use super::units::SlotCount;
use super::units::SlotNumber;
use super::units::SlotState;
use super::units::UnixTime;

/// Bytes in an entry.
const ENTRY_BYTES: usize = 24;

/// Where the first entry begins.
const ENTRIES_AT: usize = 64;

const RELOCATED_AT: usize = HEADER_BYTES;
const AUTOMATIC_AT: usize = 52;
const REMOVED_AT: usize = 56;
const ALONE_AT: usize = 60;

const LIVE_AT: usize = 0;
const TIME_AT: usize = 8;
const BLOCK_AT: usize = 16;
const STATE_AT: usize = 20;
const RESERVED_AT: usize = 21;

const _: () = assert!(ENTRIES_AT + SLOTS_PER_PAGE as usize * ENTRY_BYTES == PAGE_BYTES);

/// The size of main, in blocks: what an entry is checked against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The unit of relocation.
    pub block_size: BlockSize,
    /// The size of main.
    pub main_sectors: Sectors,
}

impl Extent {
    /// The live mask of `block` when every one of its sectors lives on the spare: fewer than a
    /// whole block at the end of main, and none beyond it.
    pub const fn all_live(&self, block: Block) -> LiveMask {
        LiveMask::first(self.block_size.sectors_of(block, self.main_sectors))
    }
}

/// What a slot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotEntry {
    /// Nothing: it may be given out.
    Free,
    /// A block of main.
    InUse(Record),
    /// Nothing, and never again: its place on the spare is bad.
    Retired,
}

/// How many blocks have moved to the slots of a page and back, ever: each number up to `u32::MAX`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moves {
    /// Blocks that came from main.
    pub relocated: u32,
    /// Those among them that came without being asked for.
    pub automatic: u32,
    /// Blocks that went back to main.
    pub removed: u32,
}

impl Moves {
    /// A block that comes from main for this reason.
    pub const fn relocation(cause: Cause) -> Self {
        Self {
            relocated: 1,
            automatic: cause.is_automatic() as u32,
            removed: 0,
        }
    }

    /// A block that goes back to main.
    pub const REMOVAL: Self = Self {
        relocated: 0,
        automatic: 0,
        removed: 1,
    };

    /// These and `others`.
    pub const fn and(self, others: Self) -> Self {
        Self {
            relocated: self.relocated.saturating_add(others.relocated),
            automatic: self.automatic.saturating_add(others.automatic),
            removed: self.removed.saturating_add(others.removed),
        }
    }
}

/// How many blocks have moved to all slots of a set and back, ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lifetime {
    /// Blocks that came from main.
    pub relocated: u64,
    /// Those among them that came without being asked for.
    pub automatic: u64,
    /// Blocks that went back to main.
    pub removed: u64,
}

impl Lifetime {
    /// Adds what is known of a page.
    pub fn add(&mut self, moves: Moves) {
        self.relocated = self.relocated.saturating_add(moves.relocated.into());
        self.automatic = self.automatic.saturating_add(moves.automatic.into());
        self.removed = self.removed.saturating_add(moves.removed.into());
    }
}

impl From<Moves> for Lifetime {
    fn from(moves: Moves) -> Self {
        let mut lifetime = Self::default();
        lifetime.add(moves);
        lifetime
    }
}

/// Writes how many blocks have moved. The page must be sealed afterwards.
pub fn set_moves(page: &mut Page, moves: Moves) {
    put(page, RELOCATED_AT, moves.relocated.to_le_bytes());
    put(page, AUTOMATIC_AT, moves.automatic.to_le_bytes());
    put(page, REMOVED_AT, moves.removed.to_le_bytes());
}

/// How many blocks have moved, of a page that was found good.
pub fn moves(page: &Page) -> Moves {
    let number = |at| u32::from_le_bytes(take(page, at));
    Moves {
        relocated: number(RELOCATED_AT),
        automatic: number(AUTOMATIC_AT),
        removed: number(REMOVED_AT),
    }
}

/// Says of a witness page whether it stands alone: at most one copy of the slot page says the same, and the other one may be a good
/// one that is older. The page must be sealed afterwards.
pub fn set_alone(page: &mut Page, alone: bool) {
    put(page, ALONE_AT, u32::from(alone).to_le_bytes());
}

/// Whether a witness page that was found good stands alone.
pub fn is_alone(page: &Page) -> bool {
    take(page, ALONE_AT) != [0; 4]
}

/// Whether a slot page, whose copies were found to be such a `choice`, may have been newer than they say: then its witness page has
/// to be asked.
pub fn asks_witness(choice: &Result<Choice, BothBad>) -> bool {
    match choice {
        Ok(choice) => matches!(choice.other, Other::Bad(_)),
        Err(_) => true,
    }
}

/// Whether a witness page that was found good, with the sequence number `sequence`, counts in place of the copies of a slot page, which
/// were found to be such a `choice`.
pub fn witness_counts(
    choice: &Result<Choice, BothBad>,
    witness: &Page,
    sequence: Sequence,
) -> bool {
    let newer = !matches!(choice, Ok(choice) if choice.sequence >= sequence);
    is_alone(witness) && asks_witness(choice) && newer
}

/// Makes every slot of the page free. The header is [`seal`](super::page::seal)'s.
pub fn clear(page: &mut Page) {
    *page = [0; PAGE_BYTES];
}

/// Writes entry `at`. The page must be sealed afterwards.
pub fn set_entry(page: &mut Page, at: EntryIndex, entry: SlotEntry) {
    let (state, record) = match entry {
        SlotEntry::Free => (SlotState::Free, None),
        SlotEntry::InUse(record) => (SlotState::InUse(record.cause), Some(record)),
        SlotEntry::Retired => (SlotState::Retired, None),
    };
    let mut bytes = [0; ENTRY_BYTES];
    if let Some(record) = record {
        put(&mut bytes, LIVE_AT, record.live.0.to_le_bytes());
        put(&mut bytes, TIME_AT, u64::from(record.time.0).to_le_bytes());
        put(&mut bytes, BLOCK_AT, record.block.0.to_le_bytes());
    }
    put(&mut bytes, STATE_AT, [state.code()]);
    put(page, entry_offset(at), bytes);
}

/// Reads entry `at` of a page that was found good.
///
/// # Errors
///
/// [`Damage::Content`] when the entry is one that no writer makes for a main of this `extent`.
pub fn entry(page: &Page, at: EntryIndex, extent: &Extent) -> Result<SlotEntry, Damage> {
    let bytes: [u8; ENTRY_BYTES] = take(page, entry_offset(at));
    let state = SlotState::from_code(bytes[STATE_AT]).ok_or(Damage::Content("slot state"))?;
    let cause = match state {
        SlotState::InUse(cause) => cause,
        SlotState::Free | SlotState::Retired => {
            if !is_zero(&bytes[..STATE_AT]) || !is_zero(&bytes[RESERVED_AT..]) {
                return Err(Damage::Content(
                    "slot entry: it holds nothing but is not zero",
                ));
            }
            return Ok(if state == SlotState::Free {
                SlotEntry::Free
            } else {
                SlotEntry::Retired
            });
        }
    };
    if !is_zero(&bytes[RESERVED_AT..]) {
        return Err(Damage::Content("reserved byte in a slot entry"));
    }
    let block = Block(u32::from_le_bytes(take(&bytes, BLOCK_AT)));
    let live = LiveMask(u64::from_le_bytes(take(&bytes, LIVE_AT)));
    let time = u32::try_from(u64::from_le_bytes(take(&bytes, TIME_AT)))
        .map_err(|_| Damage::Content("relocation time"))?;
    let all = extent.all_live(block);
    if all == LiveMask::EMPTY {
        return Err(Damage::Content(
            "block number: it lies beyond the end of main",
        ));
    }
    if !all.contains(live) {
        return Err(Damage::Content(
            "live mask: it has a sector beyond the block",
        ));
    }
    Ok(SlotEntry::InUse(Record {
        block,
        live,
        time: UnixTime(time),
        cause,
    }))
}

/// Reads all entries of page `number`, which was found good, of a spare that has `slots` slots:
/// each slot with what it holds, in order.
///
/// An item is an error as with [`entry`], or when a slot beyond the last one is not free.
pub fn entries<'a>(
    page: &'a Page,
    number: PageNumber,
    slots: SlotCount,
    extent: &'a Extent,
) -> impl Iterator<Item = Result<(SlotNumber, SlotEntry), Damage>> + 'a {
    EntryIndex::all().filter_map(move |at| match number.slot(at) {
        Some(slot) if slot.get() < slots.0 => {
            Some(entry(page, at, extent).map(|entry| (slot, entry)))
        }
        _ if is_zero(&take::<ENTRY_BYTES>(page, entry_offset(at))) => None,
        _ => Some(Err(Damage::Content(
            "slot entry: the spare has no such slot",
        ))),
    })
}

/// Checks that `page` is a good one, with all of its entries, and is the one that `name` says;
/// returns its sequence number.
///
/// # Errors
///
/// Why it is not good.
pub fn examine(
    page: &Page,
    name: &Name,
    slots: SlotCount,
    extent: &Extent,
    crc: Crc32c,
) -> Result<Sequence, Damage> {
    let sequence = examine_head(page, name, crc)?;
    let number = name.subject.slot_page().ok_or(Damage::Misplaced)?;
    entries(page, number, slots, extent).try_for_each(|entry| entry.map(|_| ()))?;
    Ok(sequence)
}

/// Checks what [`examine`] checks, but for the entries.
///
/// # Errors
///
/// Why the page is not good.
pub fn examine_head(page: &Page, name: &Name, crc: Crc32c) -> Result<Sequence, Damage> {
    let sequence = check(page, name, crc)?;
    let moves = moves(page);
    if moves.automatic > moves.relocated {
        return Err(Damage::Content("number of relocated blocks"));
    }
    match (name.subject, u32::from_le_bytes(take(page, ALONE_AT))) {
        (_, 0) | (Subject::Witness(_), 1) => Ok(sequence),
        _ => Err(Damage::Content("reserved byte")),
    }
}

/// Whether two pages, one of which may be the witness page of the other, say the same of their slots.
pub fn same_content(one: &Page, other: &Page) -> bool {
    one.get(HEADER_BYTES..) == other.get(HEADER_BYTES..)
}

/// The time to give to an entry that replaces one of the same block, so that it wins over that one
/// if both are found: not before `now`, and at least one second later than `replaced`.
///
/// [`None`] when no time is later, which no honest set comes to before the year 2106.
pub fn replacement_time(replaced: UnixTime, now: UnixTime) -> Option<UnixTime> {
    replaced
        .0
        .checked_add(1)
        .map(|later| now.max(UnixTime(later)))
}

/// Where entry `at` begins.
const fn entry_offset(at: EntryIndex) -> usize {
    // At most 167 entries come before it.
    ENTRIES_AT.wrapping_add(at.get().wrapping_mul(ENTRY_BYTES))
}
