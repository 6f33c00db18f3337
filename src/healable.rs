// SPDX-License-Identifier: GPL-2.0

//! Blocks with unreadable sectors of which some were read just now: these can be saved.

use crate::remap::units::Block;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::AtomicUsize;
use core::sync::atomic::Ordering;

/// How many blocks can be noted. Each has the place that its number gives modulo this, so those of a bad zone that is read in one
/// go have one each.
const PLACES: usize = 64;

/// Blocks that can be saved.
///
/// A note that is lost costs nothing but the next read of such a sector, which goes to main as this one did; so a block may take the
/// place of another one.
pub(crate) struct Healable {
    /// Numbers of blocks plus one; 0 for none.
    places: [AtomicU64; PLACES],
    /// Behind the place that was taken last.
    next: AtomicUsize,
}

impl Healable {
    /// None yet.
    pub(crate) const fn new() -> Self {
        Self {
            places: [const { AtomicU64::new(0) }; PLACES],
            next: AtomicUsize::new(0),
        }
    }

    /// Notes a block. May be called in any context.
    pub(crate) fn note(&self, block: Block) {
        if let Some(place) = self.places.get(block.0 as usize % PLACES) {
            place.store(u64::from(block.0).saturating_add(1), Ordering::Relaxed);
        }
    }

    /// Gives a block that was noted, once, and all others before the same one again. For the background work only.
    pub(crate) fn take(&self) -> Option<Block> {
        let first = self.next.load(Ordering::Relaxed);
        let mut places = (0..PLACES).map(|at| first.wrapping_add(at) % PLACES);
        let at = places.find(|at| self.is_noted(*at))?;
        self.next.store(at.wrapping_add(1), Ordering::Relaxed);
        let stored = self.places.get(at)?.swap(0, Ordering::Relaxed);
        u32::try_from(stored.checked_sub(1)?).ok().map(Block)
    }

    /// Whether no block is noted.
    pub(crate) fn is_empty(&self) -> bool {
        !(0..PLACES).any(|at| self.is_noted(at))
    }

    fn is_noted(&self, at: usize) -> bool {
        (self.places.get(at)).is_some_and(|place| place.load(Ordering::Relaxed) != 0)
    }
}
