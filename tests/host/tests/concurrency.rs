// SPDX-License-Identifier: GPL-2.0

//! "Never invented, never lost": requests that take no lock read and write while one writer
//! relocates blocks, gives them back, moves them to other slots and replaces the index.
//!
//! The devices are arrays with a number for each sector. Each requester owns some sectors of every
//! block and knows what it wrote to them last, so it notices whatever is not that. Every place
//! that holds no sector of the mapped device, and every copy on main that is out of date, has a
//! number that nobody ever wrote.

use dm_remap_host::memory::new_index;
use dm_remap_host::memory::Index;
use dm_remap_host::memory::MemoryRecords;
use dm_remap_host::remap::index::InsertError;
use dm_remap_host::remap::index::Seed;
use dm_remap_host::remap::index::Sizes;
use dm_remap_host::remap::records::Allocator;
use dm_remap_host::remap::records::Record;
use dm_remap_host::remap::records::Records;
use dm_remap_host::remap::resolve::resolve;
use dm_remap_host::remap::resolve::Direction;
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
use std::sync::atomic::fence;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Acquire;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::Ordering::Release;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::Mutex;
use std::sync::OnceLock;

const REQUESTERS: usize = 3;
const SPARES: usize = 2;
const BLOCKS: u32 = 24;
const BLOCK_SECTORS: u64 = 8;
/// The last block is a partial one.
const SECTORS: u64 = BLOCKS as u64 * BLOCK_SECTORS - 3;
/// So few slots that they are used again and again.
const SLOTS: u32 = 10;
const DATA_START: u64 = 16;
/// What no requester ever writes.
const POISON: u64 = u64::MAX;

/// How many changes the writer makes, and how many at most when requesters have not met everything
/// by then, because they had no processor.
const CHANGES: u32 = if cfg!(miri) { 60 } else { 10_000 };
const MOST_CHANGES: u32 = if cfg!(miri) { CHANGES } else { 100 * CHANGES };
/// How many indexes it may use up for them.
const INDEXES: usize = MOST_CHANGES as usize / 8 + 2;

/// A small generator of numbers that look random (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }
}

/// A device: the number in each of its sectors.
type Device = Vec<AtomicU64>;

fn device(sectors: u64, content: u64) -> Device {
    (0..sectors).map(|_| AtomicU64::new(content)).collect()
}

/// All that requesters and writer share.
struct Shared {
    main: Device,
    spares: Vec<Device>,
    records: MemoryRecords,
    allocators: Vec<Allocator>,
    layouts: Vec<Option<SpareSector>>,
    /// The indexes, of which [`Self::current`] is the published one.
    indexes: Vec<OnceLock<Index>>,
    current: AtomicUsize,
    /// For each requester, how often it began or ended a request: odd while one is under way.
    requests: Vec<AtomicU64>,
    /// The right to be the writer.
    writer: Mutex<()>,
    block_size: BlockSize,
}

impl Shared {
    fn new() -> Self {
        let slots = SlotCount(SLOTS);
        let indices = (0..SPARES).map(|spare| SpareIndex::new(spare).unwrap());
        let block_size = BlockSize::new(Sectors(BLOCK_SECTORS)).unwrap();
        // Tiny, so that there are collisions, removed words, and growth.
        let sizes = Sizes::new(Sectors(SECTORS), block_size, slots, SlotCount(6)).unwrap();
        let indexes: Vec<_> = (0..INDEXES).map(|_| OnceLock::new()).collect();
        assert!(indexes[0].set(new_index(sizes, Seed(1))).is_ok());
        let spare_sectors = DATA_START + u64::from(SLOTS) * BLOCK_SECTORS;
        Self {
            main: device(SECTORS, 0),
            spares: (0..SPARES).map(|_| device(spare_sectors, POISON)).collect(),
            records: MemoryRecords::new(&[slots; SPARES]),
            allocators: indices.map(|index| Allocator::new(index, slots)).collect(),
            layouts: vec![Some(SpareSector(DATA_START)); SPARES],
            indexes,
            current: AtomicUsize::new(0),
            requests: (0..REQUESTERS).map(|_| AtomicU64::new(0)).collect(),
            writer: Mutex::new(()),
            block_size,
        }
    }

    fn index(&self) -> &Index {
        self.indexes[self.current.load(Acquire)].get().unwrap()
    }

    /// Waits until every request that is under way has ended: a grace period, and a drain.
    fn wait(&self) {
        fence(SeqCst);
        for requests in &self.requests {
            let before = requests.load(Acquire);
            while before % 2 == 1 && requests.load(Acquire) == before {
                std::thread::yield_now();
            }
        }
        fence(SeqCst);
        // Gives new requests the time to meet what happens next.
        std::thread::yield_now();
    }

    /// Where sector `offset` of the block in `slot` is on its spare.
    fn on_spare(&self, slot: Slot, offset: u64) -> &AtomicU64 {
        let sector = DATA_START + u64::from(slot.number().get()) * BLOCK_SECTORS + offset;
        &self.spares[slot.spare().get()][sector as usize]
    }

    /// Where sector `offset` of `block` is on main; [`None`] beyond its end.
    fn on_main(&self, block: Block, offset: u64) -> Option<&AtomicU64> {
        self.main
            .get((u64::from(block.0) * BLOCK_SECTORS + offset) as usize)
    }
}

/// A request that is under way; it ends also when a check in it fails.
struct UnderWay<'a>(&'a AtomicU64);

impl<'a> UnderWay<'a> {
    fn new(requests: &'a AtomicU64) -> Self {
        requests.fetch_add(1, Relaxed);
        fence(SeqCst);
        Self(requests)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Release);
    }
}

/// Tells the requesters to end, also when the writer fails.
struct Finish<'a>(&'a AtomicBool);

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Moves what is in one place to another one, and leaves poison.
fn move_sector(from: &AtomicU64, to: &AtomicU64) {
    to.store(from.swap(POISON, Relaxed), Relaxed);
    std::thread::yield_now();
}

/// The one that changes the table.
struct Writer<'a> {
    shared: &'a Shared,
    random: Random,
}

impl Writer<'_> {
    /// Makes one change of any kind.
    fn change(&mut self) {
        let shared = self.shared;
        let _writer = shared.writer.lock().unwrap();
        let block = Block(self.random.below(BLOCKS.into()) as u32);
        match (
            shared.index().find(&shared.records, block),
            self.random.below(4),
        ) {
            (None, _) => self.relocate(block),
            (Some(_), 0 | 1) => self.give_back(block),
            (Some(_), 2) => self.move_to_another_slot(block),
            (Some(_), _) => {
                if self.random.below(8) == 0 {
                    self.replace_index();
                }
            }
        }
    }

    /// A free slot with room for its record.
    fn free_slot(&mut self) -> Option<Slot> {
        let allocator = &self.shared.allocators[self.random.below(SPARES as u64) as usize];
        let slot = allocator.lowest_free(&self.shared.records)?;
        self.shared.records.make_room(slot);
        Some(slot)
    }

    fn relocate(&mut self, block: Block) {
        let shared = self.shared;
        let Some(slot) = self.free_slot() else {
            return;
        };
        let record = Record {
            block,
            live: LiveMask::EMPTY,
            time: UnixTime(1),
            cause: Cause::Message,
        };
        let allocator = &shared.allocators[slot.spare().get()];
        allocator
            .occupy(&shared.records, slot.number(), &record)
            .unwrap();
        if shared.index().insert(&shared.records, slot, true) == Err(InsertError::Full) {
            self.replace_index();
            shared.index().insert(&shared.records, slot, true).unwrap();
        }
        shared.wait();
        // Some sectors are unreadable, and stay on main.
        let readable = if self.random.below(2) == 0 {
            u64::MAX
        } else {
            self.random.below(256)
        };
        let mut live = LiveMask::EMPTY;
        for offset in (0..BLOCK_SECTORS).filter(|offset| readable >> offset & 1 == 1) {
            if let Some(on_main) = shared.on_main(block, offset) {
                move_sector(on_main, shared.on_spare(slot, offset));
                live = live.union(LiveMask(1 << offset));
            }
        }
        shared.records.set_live(slot, live).unwrap();
        shared.index().clear_moving(&shared.records, block).unwrap();
    }

    fn give_back(&mut self, block: Block) {
        let shared = self.shared;
        shared.index().set_moving(&shared.records, block).unwrap();
        shared.wait();
        let found = shared.index().find(&shared.records, block).unwrap();
        for offset in (0..BLOCK_SECTORS).filter(|offset| found.live.0 >> offset & 1 == 1) {
            let on_main = shared.on_main(block, offset).unwrap();
            move_sector(shared.on_spare(found.slot, offset), on_main);
        }
        shared.index().remove(&shared.records, block).unwrap();
        self.free(found.slot);
    }

    fn move_to_another_slot(&mut self, block: Block) {
        let shared = self.shared;
        let Some(slot) = self.free_slot() else {
            return;
        };
        shared.index().set_moving(&shared.records, block).unwrap();
        shared.wait();
        let found = shared.index().find(&shared.records, block).unwrap();
        for offset in (0..BLOCK_SECTORS).filter(|offset| found.live.0 >> offset & 1 == 1) {
            move_sector(
                shared.on_spare(found.slot, offset),
                shared.on_spare(slot, offset),
            );
        }
        let record = shared.records.record(found.slot).unwrap();
        let allocator = &shared.allocators[slot.spare().get()];
        allocator
            .occupy(&shared.records, slot.number(), &record)
            .unwrap();
        shared
            .index()
            .replace(&shared.records, slot, false)
            .unwrap();
        self.free(found.slot);
    }

    /// Frees a slot that lost its word.
    fn free(&self, slot: Slot) {
        self.shared.wait();
        let allocator = &self.shared.allocators[slot.spare().get()];
        allocator
            .release(&self.shared.records, slot.number())
            .unwrap();
    }

    fn replace_index(&mut self) {
        let shared = self.shared;
        let next = shared.current.load(Relaxed) + 1;
        let Some(place) = shared.indexes.get(next) else {
            return;
        };
        let sizes = shared.index().next_sizes().unwrap();
        let larger = new_index(sizes, Seed(self.random.below(u64::MAX)));
        shared
            .index()
            .rebuild_into(&shared.records, &larger)
            .unwrap();
        assert!(place.set(larger).is_ok());
        shared.current.store(next, Release);
        shared.wait();
    }
}

/// One that reads and writes, and knows what it wrote.
struct Requester<'a> {
    shared: &'a Shared,
    number: usize,
    random: Random,
    /// What each sector has, as far as it is this requester's.
    expected: Vec<u64>,
    /// What was met how often, so that a run that met nothing cannot pass.
    met: Met,
}

/// The number of the requester that a sector belongs to.
fn owner(sector: u64) -> usize {
    sector as usize % REQUESTERS
}

/// How many pieces went where.
#[derive(Debug, Default)]
struct Met {
    main: u64,
    spare: u64,
    dead: u64,
    healed: u64,
    moving: u64,
}

impl Met {
    fn is_everything(&self) -> bool {
        ![self.main, self.spare, self.dead, self.healed, self.moving].contains(&0)
    }
}

impl Requester<'_> {
    /// Performs one request of up to four blocks.
    fn request(&mut self) {
        let start = self.random.below(SECTORS);
        let len = 1 + self.random.below((4 * BLOCK_SECTORS).min(SECTORS - start));
        let direction = if self.random.below(2) == 0 {
            Direction::Read
        } else {
            Direction::Write
        };
        let value = self.random.below(POISON);
        let mut done = 0;
        while done < len {
            done += self.piece(start + done, len - done, direction, value);
        }
    }

    /// Performs the first piece of a request, and returns its length; zero when it has to wait.
    fn piece(&mut self, start: u64, len: u64, direction: Direction, value: u64) -> u64 {
        let shared = self.shared;
        let under_way = UnderWay::new(&shared.requests[self.number]);
        let index = shared.index();
        let (place, len) = if index.may_contain(Sector(start), Sector(start + len - 1)) {
            let (records, layouts) = (&shared.records, &shared.layouts[..]);
            let piece = resolve(
                index,
                records,
                layouts,
                Sector(start),
                Sectors(len),
                direction,
            );
            (piece.place, piece.len.0)
        } else {
            (Place::Main, len)
        };
        let is_write = direction == Direction::Write;
        match place {
            Place::Main => {
                self.met.main += 1;
                self.transfer(&shared.main, start, start, len, is_write.then_some(value));
            }
            Place::Spare { spare, sector } => {
                self.met.spare += 1;
                let spare = &shared.spares[spare.get()];
                self.transfer(spare, sector.0, start, len, is_write.then_some(value));
            }
            Place::Dead { .. } if !is_write => {
                self.met.dead += 1;
                self.transfer(&shared.main, start, start, len, None);
            }
            Place::Dead { .. } | Place::Moving => {}
            Place::Missing { .. } | Place::Lost => panic!("no spare is missing or has failed"),
        }
        drop(under_way);
        match place {
            Place::Moving => {
                self.met.moving += 1;
                std::thread::yield_now();
                0
            }
            Place::Dead { .. } if is_write => {
                self.met.healed += 1;
                self.heal(start, len, value);
                len
            }
            _ => len,
        }
    }

    /// Reads or writes the own ones of `len` sectors from `start` on, which are on `device` from
    /// `place` on.
    fn transfer(&mut self, device: &Device, place: u64, start: u64, len: u64, value: Option<u64>) {
        let number = self.number;
        for i in (0..len).filter(|i| owner(start + i) == number) {
            let on_device = &device[(place + i) as usize];
            let expected = &mut self.expected[(start + i) as usize];
            match value {
                Some(value) => {
                    on_device.store(value, Relaxed);
                    *expected = value;
                }
                None => assert_eq!(on_device.load(Relaxed), *expected, "sector {}", start + i),
            }
        }
    }

    /// Writes sectors of one block of which some are not on the spare yet, as the writer.
    fn heal(&mut self, start: u64, len: u64, value: u64) {
        let shared = self.shared;
        let _writer = shared.writer.lock().unwrap();
        let block = shared.block_size.block_of(Sector(start)).unwrap();
        let Some(found) = shared.index().set_moving(&shared.records, block) else {
            // It was given back meanwhile.
            return self.transfer(&shared.main, start, start, len, Some(value));
        };
        shared.wait();
        let mut live = found.live;
        let number = self.number;
        for sector in (start..start + len).filter(|&sector| owner(sector) == number) {
            let offset = sector % BLOCK_SECTORS;
            shared.on_spare(found.slot, offset).store(value, Relaxed);
            shared.main[sector as usize].store(POISON, Relaxed);
            live = live.union(LiveMask(1 << offset));
            self.expected[sector as usize] = value;
        }
        shared.records.set_live(found.slot, live).unwrap();
        shared.index().clear_moving(&shared.records, block).unwrap();
    }
}

/// The writer makes its changes while all requesters are at work; in the end every sector is read
/// once more.
#[test]
fn nothing_is_invented_or_lost() {
    let shared = Shared::new();
    let finished = AtomicBool::new(false);
    let unsatisfied = AtomicUsize::new(REQUESTERS);
    let met = std::thread::scope(|scope| {
        let finish = Finish(&finished);
        let requesters: Vec<_> = (0..REQUESTERS)
            .map(|number| {
                let (shared, finished, unsatisfied) = (&shared, &finished, &unsatisfied);
                scope.spawn(move || {
                    let mut requester = Requester {
                        shared,
                        number,
                        random: Random(0x9e37_79b9_7f4a_7c15 + number as u64),
                        expected: vec![0; SECTORS as usize],
                        met: Met::default(),
                    };
                    let mut is_satisfied = false;
                    while !finished.load(Relaxed) {
                        requester.request();
                        if !is_satisfied && requester.met.is_everything() {
                            is_satisfied = true;
                            unsatisfied.fetch_sub(1, Relaxed);
                        }
                    }
                    for sector in 0..SECTORS {
                        while requester.piece(sector, 1, Direction::Read, 0) == 0 {}
                    }
                    requester.met
                })
            })
            .collect();
        let mut writer = Writer {
            shared: &shared,
            random: Random(0x1234_5678_9abc_def1),
        };
        for change in 0..MOST_CHANGES {
            if change >= CHANGES && unsatisfied.load(Relaxed) == 0 {
                break;
            }
            writer.change();
        }
        drop(finish);
        requesters
            .into_iter()
            .map(|requester| requester.join().unwrap())
            .collect::<Vec<_>>()
    });
    for met in met {
        assert!(cfg!(miri) || met.is_everything(), "{met:?}");
    }
    assert!(
        shared.current.load(Relaxed) > 0,
        "the index was never replaced"
    );
}
