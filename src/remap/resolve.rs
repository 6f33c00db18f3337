// SPDX-License-Identifier: GPL-2.0

//! Where a request has to go: how much of it, from its first sector on, has the same place.
//!
//! The caller asks [`Index::may_contain`] first, which is false for nearly every request to a
//! healthy block; then the request belongs to main as a whole. Otherwise [`resolve`] gives the
//! first piece, the caller sends that on its way, and asks again for the rest.
//!
//! A request is split where its data goes to another device or to another place, and nowhere else:
//! healthy sectors up to the next relocated block are one piece, and relocated blocks that follow
//! each other on main and in the same way on one spare are one piece.

use core::ops::Deref;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::AtomicU64;

use super::index::Index;
use super::index::Search;
use super::records::Records;
use super::units::Block;
use super::units::BlockSize;
use super::units::Cause;
use super::units::LiveMask;
use super::units::Offset;
use super::units::Sector;
use super::units::Sectors;
use super::units::Slot;
use super::units::SlotState;
use super::units::SpareIndex;
use super::units::SpareSector;

/// Where the data of each spare is.
pub trait Layouts {
    /// The sector of spare `spare` at which the data of its slot 0 begins; [`None`] when that is
    /// not known because the spare is missing.
    fn data_start(&self, spare: SpareIndex) -> Option<SpareSector>;
}

impl Layouts for [Option<SpareSector>] {
    #[inline]
    fn data_start(&self, spare: SpareIndex) -> Option<SpareSector> {
        *self.get(spare.get())?
    }
}

/// What a request does with its sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// It wants to know what was last written to them.
    Read,
    /// It changes them: a write, and also a discard, write-zeroes or secure erase.
    Write,
}

/// Where the first piece of a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// To main, at the same sectors.
    Main,
    /// To this spare, from `sector` on.
    Spare {
        /// The spare.
        spare: SpareIndex,
        /// The sector on the spare device at which the piece begins.
        sector: SpareSector,
    },
    /// To sectors of a relocated block of which at least one still lives on main.
    ///
    /// All sectors of a read do; it goes to main at the same sectors, and if it succeeds, the
    /// sectors can be saved to the slot. A write has to bring its sectors to life on the spare
    /// before it is acknowledged: it reaches to the end of the block or of the request, and may
    /// have live sectors too.
    Dead {
        /// The slot of the block.
        slot: Slot,
    },
    /// Nowhere: these sectors of a read were on a place of a spare that failed, and could not be read when their block
    /// moved away from there. What main has is older.
    Lost,
    /// To live sectors of a block on a spare that is missing: they cannot be had.
    Missing {
        /// The spare.
        spare: SpareIndex,
    },
    /// To a block that is being moved: the piece has to wait, and then be resolved again.
    Moving,
}

/// The first piece of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Where it goes.
    pub place: Place,
    /// How many sectors it has: at least one, at most as many as the request.
    pub len: Sectors,
}

/// Finds the first piece of a request for `len` sectors from `start` on.
///
/// `len` is not zero and the request lies on the device; sectors beyond it count as being on main.
#[inline]
pub fn resolve<W, S, R, L>(
    index: &Index<W, S>,
    records: &R,
    layouts: &L,
    start: Sector,
    len: Sectors,
    direction: Direction,
) -> Piece
where
    W: Deref<Target = [AtomicU32]>,
    S: Deref<Target = [AtomicU64]>,
    R: Records + ?Sized,
    L: Layouts + ?Sized,
{
    first_piece(index, records, layouts, start, len, direction)
}

/// The place of a request that is all in one block and either all on main, because the block is
/// not relocated, or all on a spare. That is nearly every request for which this is asked; for any
/// other one the answer is [`None`].
#[inline(always)]
pub fn simple_place<W, S, R, L>(
    index: &Index<W, S>,
    records: &R,
    layouts: &L,
    start: Sector,
    len: Sectors,
) -> Option<Place>
where
    W: Deref<Target = [AtomicU32]>,
    S: Deref<Target = [AtomicU64]>,
    R: Records + ?Sized,
    L: Layouts + ?Sized,
{
    let size = index.block_size();
    let offset = size.offset_of(start);
    if size.in_block(offset, len) < len {
        return (!index.may_contain(start, start.last_of(len))).then_some(Place::Main);
    }
    match index.find_near(records, size.block_of(start)?) {
        Search::Here { found, .. } if !found.moving && found.live.live_run(offset) >= len => {
            Some(live_place(size, layouts, found.slot, offset))
        }
        Search::Nowhere => Some(Place::Main),
        _ => None,
    }
}

/// The first piece of any request; see [`resolve`].
#[inline(never)]
fn first_piece<W, S, R, L>(
    index: &Index<W, S>,
    records: &R,
    layouts: &L,
    start: Sector,
    len: Sectors,
    direction: Direction,
) -> Piece
where
    W: Deref<Target = [AtomicU32]>,
    S: Deref<Target = [AtomicU64]>,
    R: Records + ?Sized,
    L: Layouts + ?Sized,
{
    let size = index.block_size();
    let Some(block) = size.block_of(start) else {
        return Piece {
            place: Place::Main,
            len,
        };
    };
    let Some(found) = index.find(records, block) else {
        return Piece {
            place: Place::Main,
            len: healthy_run(index, records, block, start, len),
        };
    };
    let offset = size.offset_of(start);
    let in_block = size.in_block(offset, len);
    if found.moving {
        return Piece {
            place: Place::Moving,
            len: in_block,
        };
    }
    let live = live_part(found.live, offset, in_block, direction);
    if live == Sectors::ZERO {
        let lost = records.state(found.slot) == SlotState::InUse(Cause::Spare);
        return Piece {
            place: match direction {
                Direction::Read if lost => Place::Lost,
                _ => Place::Dead { slot: found.slot },
            },
            len: match direction {
                Direction::Read => found.live.dead_run(offset).min(in_block),
                Direction::Write => in_block,
            },
        };
    }
    let place = live_place(size, layouts, found.slot, offset);
    let goes_on = live == in_block && matches!(place, Place::Spare { .. });
    Piece {
        place,
        len: if goes_on {
            live_run(index, records, block, found.slot, live, len, direction)
        } else {
            live
        },
    }
}

/// Where the live sector at `offset` of the block in `slot` is.
#[inline]
fn live_place<L: Layouts + ?Sized>(
    size: BlockSize,
    layouts: &L,
    slot: Slot,
    offset: Offset,
) -> Place {
    let spare = slot.spare();
    let before = Sectors(size.slot_offset(slot.number()).0 | u64::from(offset.get()));
    // No layout puts a slot beyond 2^64 sectors.
    match (layouts.data_start(spare)).and_then(|data_start| data_start.checked_add(before)) {
        Some(sector) => Place::Spare { spare, sector },
        None => Place::Missing { spare },
    }
}

/// How many of the `in_block` sectors from `offset` on of a block with the mask `live` can go to
/// the spare: those of a read up to the first that cannot, and those of a write all or none.
fn live_part(live: LiveMask, offset: Offset, in_block: Sectors, direction: Direction) -> Sectors {
    let run = live.live_run(offset);
    if run >= in_block {
        in_block
    } else {
        match direction {
            Direction::Read => run,
            Direction::Write => Sectors::ZERO,
        }
    }
}

/// How many of the `len` sectors of a request follow each other on one spare.
///
/// The first `run` do: they reach to the end of `block`, which is in `slot`.
fn live_run<W, S, R>(
    index: &Index<W, S>,
    records: &R,
    mut block: Block,
    mut slot: Slot,
    mut run: Sectors,
    len: Sectors,
    direction: Direction,
) -> Sectors
where
    W: Deref<Target = [AtomicU32]>,
    S: Deref<Target = [AtomicU64]>,
    R: Records + ?Sized,
{
    let whole = index.block_size().sectors();
    while run < len {
        let (Some(next_block), Some(next_slot)) = (block.next(), slot.next()) else {
            break;
        };
        (block, slot) = (next_block, next_slot);
        let Some(next) = index
            .find(records, block)
            .filter(|n| n.slot == slot && !n.moving)
        else {
            break;
        };
        let wanted = Sectors(len.0.saturating_sub(run.0).min(whole.0));
        let part = live_part(next.live, Offset::ZERO, wanted, direction);
        run = Sectors(run.0.saturating_add(part.0));
        if part < whole {
            break;
        }
    }
    run
}

/// How many of the `len` sectors from `start` on lie before the next relocated block. `block`,
/// which `start` is in, is not relocated.
fn healthy_run<W, S, R>(
    index: &Index<W, S>,
    records: &R,
    block: Block,
    start: Sector,
    len: Sectors,
) -> Sectors
where
    W: Deref<Target = [AtomicU32]>,
    S: Deref<Target = [AtomicU64]>,
    R: Records + ?Sized,
{
    let size = index.block_size();
    let last = Sector(start.0.saturating_add(len.0.saturating_sub(1)));
    // No block beyond the last one that can be addressed is relocated.
    let last = size.block_of(last).unwrap_or(Block(u32::MAX));
    let next = block.next();
    let relocated = next.and_then(|next| index.next_relocated(records, next, last));
    let healthy = relocated.and_then(|(block, _)| start.up_to(size.first_sector(block)));
    healthy.unwrap_or(len)
}
