// SPDX-License-Identifier: GPL-2.0

//! The relocated blocks of a range, in the order of main, in bounded memory.
//!
//! The index has no order, and the records are in the order in which slots were given out. So a
//! list is made in rounds: each looks at all of them once and keeps the lowest blocks that fit
//! into a buffer of the caller's, and the next one goes on behind the last of these. A range of
//! few blocks is looked up block by block instead, and so is the beginning of a long one, as far as
//! that takes no longer than a round: where many blocks in a row are relocated, that is enough.
//!
//! All functions here are for the one writer, or for a caller that keeps the writer out: then a
//! slot is in use exactly when a word of the index names it.

use core::ops::Deref;
use core::ops::RangeInclusive;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::AtomicU64;

use super::index::Index;
use super::records::Allocator;
use super::records::Entry;
use super::records::Records;
use super::units::Block;
use super::units::SlotCount;

/// Looking up a block costs about as much as looking at this many records.
const RECORDS_PER_LOOKUP: u32 = 8;

/// Fills `buffer` with the first relocated blocks of `range`, in the order of main, and returns
/// them.
///
/// When they are fewer than `buffer` has room for, there are no more in the range; otherwise the
/// next round begins behind the last one. `spares` are the allocators of all spares, in any order.
pub fn blocks_in_range<'a, 'b, W, S, R>(
    index: &Index<W, S>,
    records: &R,
    spares: impl IntoIterator<Item = &'a Allocator>,
    range: RangeInclusive<Block>,
    buffer: &'b mut [Entry],
) -> &'b [Entry]
where
    W: Deref<Target = [AtomicU32]>,
    S: Deref<Target = [AtomicU64]>,
    R: Records + ?Sized,
{
    // Blocks are often relocated together with their neighbours.
    let near = range
        .start()
        .0
        .saturating_add(index.used().0 / RECORDS_PER_LOOKUP);
    let near = Block(near.min(range.end().0));
    let mut from = Some(*range.start());
    let mut filled = 0usize;
    for place in buffer.iter_mut() {
        let next = from.and_then(|from| index.next_relocated(records, from, near));
        let Some((block, found)) = next else { break };
        let slot = found.slot;
        *place = Entry { block, slot };
        filled = filled.saturating_add(1);
        from = block.next();
    }
    if filled == buffer.len() || near == *range.end() {
        return buffer.get(..filled).unwrap_or_default();
    }
    let mut lowest = Lowest { buffer, filled: 0 };
    for_each_in_range(index, records, spares, range, |entry| lowest.offer(entry));
    lowest.sorted()
}

/// How many blocks of `range` are relocated.
///
/// `spares` are the allocators of all spares, in any order.
pub fn count_in_range<'a, W, S, R>(
    index: &Index<W, S>,
    records: &R,
    spares: impl IntoIterator<Item = &'a Allocator>,
    range: RangeInclusive<Block>,
) -> SlotCount
where
    W: Deref<Target = [AtomicU32]>,
    S: Deref<Target = [AtomicU64]>,
    R: Records + ?Sized,
{
    let mut count = SlotCount::ZERO;
    for_each_in_range(index, records, spares, range, |_| {
        count = count.saturating_add(SlotCount(1));
    });
    count
}

/// Calls `visit` once for each relocated block of `range`, in any order.
fn for_each_in_range<'a, W, S, R>(
    index: &Index<W, S>,
    records: &R,
    spares: impl IntoIterator<Item = &'a Allocator>,
    range: RangeInclusive<Block>,
    mut visit: impl FnMut(Entry),
) where
    W: Deref<Target = [AtomicU32]>,
    S: Deref<Target = [AtomicU64]>,
    R: Records + ?Sized,
{
    let (first, last) = (*range.start(), *range.end());
    if last.0.saturating_sub(first.0) <= index.used().0 / RECORDS_PER_LOOKUP {
        let mut from = Some(first);
        while let Some((block, found)) =
            from.and_then(|from| index.next_relocated(records, from, last))
        {
            visit(Entry {
                block,
                slot: found.slot,
            });
            from = block.next();
        }
    } else {
        // Loops, because the names of iterators like these are too long for the kernel's tools.
        for spare in spares {
            for entry in spare.entries(records) {
                if range.contains(&entry.block) {
                    visit(entry);
                }
            }
        }
    }
}

/// The lowest of the entries that were offered, as many as there is room for.
struct Lowest<'b> {
    /// Where they are kept. Once this is full, it is a heap: no entry is lower than those at twice
    /// its place and one or two more.
    buffer: &'b mut [Entry],
    /// How many there are.
    filled: usize,
}

impl<'b> Lowest<'b> {
    /// Keeps `entry`, unless it is higher than all that are kept and there is no room for more.
    fn offer(&mut self, entry: Entry) {
        if let Some(vacant) = self.buffer.get_mut(self.filled) {
            *vacant = entry;
            self.filled += 1;
            if self.filled == self.buffer.len() {
                self.make_heap();
            }
        } else if let Some(highest) = self.buffer.first_mut().filter(|highest| entry < **highest) {
            *highest = entry;
            self.sift_down(0, self.filled);
        }
    }

    /// Makes a heap of what was kept in any order.
    fn make_heap(&mut self) {
        for at in (0..self.filled / 2).rev() {
            self.sift_down(at, self.filled);
        }
    }

    /// The entries, the lowest first.
    fn sorted(mut self) -> &'b [Entry] {
        self.make_heap();
        for end in (1..self.filled).rev() {
            self.buffer.swap(0, end);
            self.sift_down(0, end);
        }
        self.buffer.get(..self.filled).unwrap_or_default()
    }

    /// Moves the entry at `at` down to where it belongs in the heap of the first `end` entries.
    fn sift_down(&mut self, mut at: usize, end: usize) {
        let heap = self.buffer.get_mut(..end).unwrap_or_default();
        loop {
            let left = at.saturating_mul(2).saturating_add(1);
            let children = (left..heap.len()).take(2);
            let Some(child) = children.max_by_key(|&child| heap.get(child)) else {
                return;
            };
            if heap.get(child) <= heap.get(at) {
                return;
            }
            heap.swap(at, child);
            at = child;
        }
    }
}
