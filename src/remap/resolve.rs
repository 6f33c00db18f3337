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

use super::index::Found;
use super::index::Index;
use super::records::Records;
use super::units::Block;
use super::units::LiveMask;
use super::units::Offset;
use super::units::Sector;
use super::units::Sectors;
use super::units::Slot;
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
    let in_block = Sectors(
        len.0
            .min(size.sectors().0.wrapping_sub(offset.get().into())),
    );
    if found.moving {
        return Piece {
            place: Place::Moving,
            len: in_block,
        };
    }
    let live = live_part(found.live, offset, in_block, direction);
    if live == Sectors::ZERO {
        let len = match direction {
            Direction::Read => Sectors(found.live.dead_run(offset).0.min(in_block.0)),
            Direction::Write => in_block,
        };
        return Piece {
            place: Place::Dead { slot: found.slot },
            len,
        };
    }
    let spare = found.slot.spare();
    let sector = layouts
        .data_start(spare)
        .and_then(|data| data.checked_add(size.slot_offset(found.slot.number())))
        .and_then(|slot| slot.checked_add(Sectors(offset.get().into())));
    let Some(sector) = sector else {
        return Piece {
            place: Place::Missing { spare },
            len: live,
        };
    };
    let len = if live == in_block && in_block < len {
        live_run(index, records, block, found, in_block, len, direction)
    } else {
        live
    };
    Piece {
        place: Place::Spare { spare, sector },
        len,
    }
}

/// How many of the `in_block` sectors from `offset` on of a block with the mask `live` can go to
/// the spare: those of a read up to the first that cannot, and those of a write all or none.
#[inline]
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
/// The first `run` do: they reach to the end of `block`, which was found in `found`.
fn live_run<W, S, R>(
    index: &Index<W, S>,
    records: &R,
    mut block: Block,
    found: Found,
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
    let mut slot = found.slot;
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

/// How many of the `len` sectors from `start` on lie before the next relocated block.
///
/// `start` is in `block`, which is not relocated.
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
    let next = block
        .next()
        .and_then(|next| index.next_relocated(records, next, last));
    let before = next.and_then(|(next, _)| start.up_to(size.first_sector(next)));
    before.unwrap_or(len)
}
