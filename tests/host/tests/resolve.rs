// SPDX-License-Identifier: GPL-2.0

//! "A request that straddles relocated and other sectors is split exactly there. Others are never
//! split": every request is resolved piece by piece, and the pieces are compared with those that
//! come of a look at each sector by itself.

use dm_remap_host::memory::Set;
use dm_remap_host::remap::index::Seed;
use dm_remap_host::remap::records::Record;
use dm_remap_host::remap::resolve::resolve;
use dm_remap_host::remap::resolve::Direction;
use dm_remap_host::remap::resolve::Piece;
use dm_remap_host::remap::resolve::Place;
use dm_remap_host::remap::units::Block;
use dm_remap_host::remap::units::BlockSize;
use dm_remap_host::remap::units::Cause;
use dm_remap_host::remap::units::LiveMask;
use dm_remap_host::remap::units::Sector;
use dm_remap_host::remap::units::Sectors;
use dm_remap_host::remap::units::Slot;
use dm_remap_host::remap::units::SlotCount;
use dm_remap_host::remap::units::SpareIndex;
use dm_remap_host::remap::units::SpareSector;
use dm_remap_host::remap::units::UnixTime;
use proptest::prelude::*;
use std::collections::HashMap;

/// What the model knows of a relocated block.
#[derive(Clone, Copy, Debug)]
struct Relocated {
    slot: Slot,
    live: u64,
    moving: bool,
    lost: bool,
}

/// A set and what is in it, in the simplest form.
struct Scene {
    set: Set,
    block_sectors: u64,
    blocks: HashMap<u64, Relocated>,
    layouts: Vec<Option<u64>>,
}

impl Scene {
    fn new(shift: u32, main: u64, layouts: &[Option<u64>]) -> Self {
        let spares: Vec<_> = (layouts.iter())
            .map(|start| (SlotCount(1000), start.map(SpareSector)))
            .collect();
        let block_size = BlockSize::new(Sectors(1 << shift)).unwrap();
        Self {
            set: Set::new(Sectors(main), block_size, &spares, SlotCount(4), Seed(7)),
            block_sectors: 1 << shift,
            blocks: HashMap::new(),
            layouts: layouts.to_vec(),
        }
    }

    /// Relocates a block, unless it is already.
    fn relocate(&mut self, block: u64, spare: usize, live: u64, moving: bool) {
        let live = live & (u64::MAX >> (64 - self.block_sectors));
        // A fifth of the blocks have left a bad place on a spare.
        let lost = block % 5 == 3;
        let record = Record {
            block: Block(block as u32),
            live: LiveMask(live),
            time: UnixTime(1),
            cause: if lost { Cause::Spare } else { Cause::Read },
        };
        if let Some(slot) = self.set.relocate(spare, &record, moving) {
            let relocated = Relocated {
                slot,
                live,
                moving,
                lost,
            };
            self.blocks.insert(block, relocated);
        }
    }

    /// Where one sector of a request for the sectors up to `end` goes.
    fn place_of_sector(&self, sector: u64, first: u64, end: u64, direction: Direction) -> Place {
        let block = sector / self.block_sectors;
        let Some(relocated) = self.blocks.get(&block) else {
            return Place::Main;
        };
        if relocated.moving {
            return Place::Moving;
        }
        let begin = block * self.block_sectors;
        let is_live = |sector: u64| relocated.live >> (sector - begin) & 1 == 1;
        let needed = match direction {
            Direction::Read => sector..sector + 1,
            Direction::Write => first.max(begin)..end.min(begin + self.block_sectors),
        };
        if !needed.clone().all(is_live) {
            if relocated.lost && direction == Direction::Read {
                return Place::Lost;
            }
            return Place::Dead {
                slot: relocated.slot,
            };
        }
        let spare = relocated.slot.spare();
        match self.layouts[spare.get()] {
            Some(start) => {
                let slot = u64::from(relocated.slot.number().get());
                let sector = SpareSector(start + slot * self.block_sectors + sector - begin);
                Place::Spare { spare, sector }
            }
            None => Place::Missing { spare },
        }
    }

    /// The pieces of a request, from a look at each sector.
    fn pieces(&self, start: u64, len: u64, direction: Direction) -> Vec<Piece> {
        let end = start + len;
        let mut pieces: Vec<Piece> = Vec::new();
        for sector in start..end {
            let place = self.place_of_sector(sector, start, end, direction);
            let at_block = sector % self.block_sectors == 0;
            if let Some(last) = pieces.last_mut() {
                let joins = match (last.place, place) {
                    (Place::Main, Place::Main) => true,
                    (
                        Place::Spare {
                            spare: a,
                            sector: from,
                        },
                        Place::Spare {
                            spare: b,
                            sector: to,
                        },
                    ) => a == b && from.0 + last.len.0 == to.0,
                    (before, now) => before == now && !at_block,
                };
                if joins {
                    last.len.0 += 1;
                    continue;
                }
            }
            pieces.push(Piece {
                place,
                len: Sectors(1),
            });
        }
        pieces
    }

    /// The pieces of a request, one resolved after the other.
    fn resolved(&self, start: u64, len: u64, direction: Direction) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut done = 0;
        while done < len {
            let piece = resolve(
                &self.set.index,
                &self.set.records,
                &self.set.layouts[..],
                Sector(start + done),
                Sectors(len - done),
                direction,
            );
            assert!(piece.len.0 > 0 && piece.len.0 <= len - done, "{piece:?}");
            done += piece.len.0;
            pieces.push(piece);
        }
        pieces
    }

    /// Compares the two, and what the summary says.
    fn check(&self, start: u64, len: u64, direction: Direction) {
        let expected = self.pieces(start, len, direction);
        assert_eq!(
            self.resolved(start, len, direction),
            expected,
            "{start} {len} {direction:?}"
        );
        if expected.iter().any(|piece| piece.place != Place::Main) {
            assert!(self
                .set
                .index
                .may_contain(Sector(start), Sector(start + len - 1)));
        }
    }
}

/// A mask that has all, none or some of the sectors.
fn live() -> impl Strategy<Value = u64> {
    prop_oneof![4 => Just(u64::MAX), 1 => Just(0), 2 => any::<u64>()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 3 } else { 400 }))]

    /// Any set, any request.
    #[test]
    fn pieces_are_those_of_the_sectors(
        shift in 0u32..=6,
        main_blocks in 1u64..40,
        missing_sectors in 0u64..64,
        layouts in prop::collection::vec(prop::option::weighted(0.8, 8u64..5000), 1..=15),
        runs in prop::collection::vec(
            (0u64..40, 1u64..6, any::<prop::sample::Index>(), live(), prop::bool::weighted(0.1)),
            0..30,
        ),
        requests in prop::collection::vec((any::<u64>(), any::<u64>(), any::<bool>()), 1..60),
    ) {
        // The last block may be a partial one.
        let main = (main_blocks << shift) - missing_sectors % (1 << shift);
        let mut scene = Scene::new(shift, main, &layouts);
        for (block, count, spare, live, moving) in runs {
            for block in (block..block + count).filter(|block| block << shift < main) {
                scene.relocate(block, spare.index(layouts.len()), live, moving);
            }
        }
        for (start, len, write) in requests {
            let start = start % main;
            let len = 1 + len % (main - start);
            let direction = if write { Direction::Write } else { Direction::Read };
            scene.check(start, len, direction);
        }
    }
}

/// Every request to a device of six blocks of four sectors, with all kinds of blocks.
#[test]
fn every_request_to_a_small_device() {
    let mut scene = Scene::new(2, 23, &[Some(2048), None]);
    scene.relocate(1, 0, 0b1111, false);
    scene.relocate(2, 0, 0b1111, false);
    scene.relocate(3, 0, 0b1011, false);
    scene.relocate(5, 1, 0b0111, false);
    for start in 0..23 {
        for len in 1..=23 - start {
            scene.check(start, len, Direction::Read);
            scene.check(start, len, Direction::Write);
        }
    }
}

/// Blocks that follow each other on main and on the spare are one piece, and nothing else is.
#[test]
fn neighbours_on_one_spare_stay_together() {
    let mut scene = Scene::new(3, 8 * 100, &[Some(2048), Some(2048)]);
    for (block, spare) in [(10, 0), (11, 0), (12, 0), (13, 1), (15, 0), (14, 0)] {
        scene.relocate(block, spare, u64::MAX, false);
    }
    let spare = |index: usize, sector: u64, len: u64| Piece {
        place: Place::Spare {
            spare: SpareIndex::new(index).unwrap(),
            sector: SpareSector(sector),
        },
        len: Sectors(len),
    };
    let main = |len| Piece {
        place: Place::Main,
        len: Sectors(len),
    };
    assert_eq!(
        scene.resolved(78, 60, Direction::Write),
        [
            main(2),
            spare(0, 2048, 24),
            spare(1, 2048, 8),
            // Block 15 was relocated before block 14, so they do not follow each other.
            spare(0, 2048 + 32, 8),
            spare(0, 2048 + 24, 8),
            main(10),
        ],
    );
}

/// A discard of the whole of a large main, with one relocated block far out.
#[test]
fn a_request_over_all_of_main() {
    let main = (1u64 << 32) * 8 - 3;
    let mut scene = Scene::new(3, main, &[Some(64)]);
    scene.relocate((1 << 32) - 1, 0, u64::MAX, false);
    let pieces = scene.resolved(0, main, Direction::Write);
    assert_eq!(
        pieces[0],
        Piece {
            place: Place::Main,
            len: Sectors(main - 5)
        }
    );
    assert_eq!(pieces.len(), 2);
    assert_eq!(pieces[1].len, Sectors(5));
}

/// Sectors that no block can have are on main.
#[test]
fn sectors_beyond_all_blocks_are_on_main() {
    let scene = Scene::new(0, 100, &[Some(64)]);
    for start in [100, 1 << 32, u64::MAX - 9] {
        let expected = [Piece {
            place: Place::Main,
            len: Sectors(9),
        }];
        assert_eq!(scene.resolved(start, 9, Direction::Read), expected);
    }
}
