// SPDX-License-Identifier: GPL-2.0

//! A block moves to a spare and back while requests to it run: `src/table.rs`, `src/remap/index.rs`, `records.rs` and
//! `resolve.rs`, `src/traffic.rs` and `src/dm/request.rs` together.
//!
//! What the target and the relocator do with these is written down here once more, as it is in `map` and `map_relocated` of
//! `src/target.rs` and in `src/relocator.rs`, without what else they do.

use crate::bindings::bio;
use crate::block::status::Status;
use crate::dm::defer;
use crate::dm::request::DeferredList;
use crate::machine::check_within;
use crate::machine::fails;
use crate::machine::fails_without;
use crate::machine::fails_without_grace_periods;
use crate::remap::records::Record;
use crate::remap::records::Records;
use crate::remap::resolve::resolve;
use crate::remap::resolve::simple_place;
use crate::remap::resolve::Direction;
use crate::remap::resolve::Place;
use crate::remap::units::Block;
use crate::remap::units::BlockSize;
use crate::remap::units::Cause;
use crate::remap::units::LiveMask;
use crate::remap::units::Sector;
use crate::remap::units::Sectors;
use crate::remap::units::Slot;
use crate::remap::units::SlotCount;
use crate::remap::units::SpareIndex;
use crate::remap::units::SpareSector;
use crate::remap::units::UnixTime;
use crate::sync::rcu::grace_period;
use crate::sync::rcu::Guard;
use crate::table::Spare;
use crate::table::Table;
use crate::traffic::Kind;
use crate::traffic::Traffic;
use core::sync::atomic::AtomicU8;
use core::sync::atomic::Ordering::Acquire;
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::Ordering::Release;
use core::sync::atomic::Wanted;
use kernel::prelude::*;
use kernel::processors::run_on;
use kernel::processors::spawn;
use kernel::processors::PROCESSORS;
use loom::cell::UnsafeCell;
use loom::sync::Arc as Shared;
use loom::sync::Mutex;

/// What is on a spare where nothing was ever written.
const NOTHING: u32 = 1000;

/// The size of main, which has two blocks of one sector.
const MAIN: Sectors = Sectors(2);

/// The tag of a request that reads; that of another one is the number that it writes.
const READS: usize = 0;

/// How many requests to a sector may have to wait.
const REQUESTS: u64 = 2;

/// What a model leaves out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// A request that found its block moving waits without another look.
    NoSecondLook,
    /// The new place is published before the data is there.
    PublishedTooEarly,
    /// The requests that wait are let go before the new place is published.
    LetGoTooEarly,
}

/// A device with one spare.
struct Device {
    traffic: Traffic,
    table: Table,
    deferred: Mutex<DeferredList>,
    /// What the sectors have. The checker lets no two threads use one without an order between them.
    main: [UnsafeCell<u32>; MAIN.0 as usize],
    spare: [UnsafeCell<u32>; 2],
    /// The requests to each sector.
    clones: Vec<bio>,
    fault: Fault,
}

// SAFETY: The checker runs all threads of a model on one of the machine, one at a time.
unsafe impl Send for Device {}
// SAFETY: As above.
unsafe impl Sync for Device {}

impl Device {
    fn new(fault: Fault) -> Shared<Self> {
        let spare = SpareIndex::new(0).unwrap();
        let spare = Spare::new(spare, SlotCount(2), Some(SpareSector(0))).unwrap();
        let mut spares = KVec::with_capacity(1, GFP_KERNEL).unwrap();
        spares.push(spare, GFP_KERNEL).unwrap();
        let size = BlockSize::new(Sectors(1)).unwrap();
        let device = Self {
            traffic: Traffic::new().unwrap(),
            table: Table::new(MAIN, MAIN, size, spares).unwrap(),
            deferred: Mutex::new(DeferredList::new()),
            main: [UnsafeCell::new(0), UnsafeCell::new(0)],
            spare: [UnsafeCell::new(NOTHING), UnsafeCell::new(NOTHING)],
            clones: (0..MAIN.0 * REQUESTS)
                .map(|number| bio::new(true, number / REQUESTS, 1))
                .collect(),
            fault,
        };
        // Both blocks have been on the spare, and requests have passed in both epochs on every processor.
        for _epoch in 0..2 {
            let blocks = [Block(0), Block(1)];
            let slots = blocks.map(|block| device.add(block));
            for processor in 0..PROCESSORS {
                run_on(processor, || {
                    for kind in [Kind::Read, Kind::Write] {
                        let ticket = device.traffic.begin(kind, &Guard::new());
                        device.traffic.end(ticket.on_spare());
                        let ticket = device.traffic.begin(kind, &Guard::new());
                        device.traffic.end(ticket);
                        device
                            .traffic
                            .put_aside(device.traffic.begin(kind, &Guard::new()));
                    }
                });
            }
            for (block, slot) in blocks.into_iter().zip(slots) {
                device.remove(block, slot);
            }
            for slot in &device.spare {
                write(slot, NOTHING);
            }
            // The number of drains was even.
            device.traffic.drain();
        }
        Shared::new(device)
    }

    /// Where a place is.
    fn sector(&self, place: Place, at: Sector) -> &UnsafeCell<u32> {
        match place {
            Place::Main => &self.main[at.0 as usize],
            Place::Spare { sector, .. } => &self.spare[sector.0 as usize],
            _ => panic!("a request goes to {place:?}"),
        }
    }

    /// Carries out request `number` to a sector, which writes a number or reads: what was there before, unless it waits.
    fn request(&self, number: u64, at: Sector, new: Option<u32>) -> Option<u32> {
        let kind = Kind::of_data(new.is_some());
        let mut guard = Guard::new();
        let ticket = self.traffic.begin(kind, &guard);
        let (records, one) = (&self.table.spares, Sectors(1));
        let index = self.table.index(&guard);
        let mut place = if index.is_clear(at, at) {
            Place::Main
        } else {
            simple_place(index, records, records, at, one).unwrap_or(Place::Moving)
        };
        if place == Place::Moving {
            drop(guard);
            let mut list = self.deferred.lock().unwrap();
            guard = Guard::new();
            let index = self.table.index(&guard);
            let direction = match new {
                Some(_) => Direction::Write,
                None => Direction::Read,
            };
            let again = resolve(index, records, records, at, one, direction);
            if again.place == Place::Moving || self.fault == Fault::NoSecondLook {
                drop(guard);
                self.traffic.put_aside(ticket);
                let clone = &self.clones[(at.0 * REQUESTS + number) as usize];
                list.push(defer(clone, new.map_or(READS, |new| new as usize)));
                return None;
            }
            place = match again.place {
                // It is read from main.
                Place::Dead { .. } => Place::Main,
                place => place,
            };
        }
        drop(guard);
        let sector = self.sector(place, at);
        let read = match new {
            Some(new) => write(sector, new),
            None => read(sector),
        };
        self.traffic.end(match place {
            Place::Main => ticket,
            _ => ticket.on_spare(),
        });
        Some(read)
    }

    /// Lets the requests go that wait.
    fn serve_deferred(&self) {
        loop {
            let request = self.deferred.lock().unwrap().pop();
            let Some(request) = request else { return };
            let at = Sector(request.sector());
            let guard = Guard::new();
            let ticket = self.traffic.begin(Kind::Write, &guard);
            let (index, records) = (self.table.index(&guard), &self.table.spares);
            let piece = resolve(index, records, records, at, Sectors(1), Direction::Write);
            drop(guard);
            let sector = self.sector(piece.place, at);
            match request.tag() {
                READS => read(sector),
                new => write(sector, new as u32),
            };
            self.traffic.end(ticket);
            request.complete(Status::OK);
        }
    }

    /// Moves a block to a free slot.
    fn add(&self, block: Block) -> Slot {
        let slot = self.free_slot();
        self.table
            .insert(slot, &record(block), true, GFP_KERNEL)
            .unwrap();
        self.traffic.drain();
        if self.fault == Fault::PublishedTooEarly {
            self.publish(block, slot);
        }
        let content = read(&self.main[block.0 as usize]);
        write(self.slot(slot), content);
        self.publish(block, slot);
        self.serve_deferred();
        slot
    }

    /// Lets requests to a block go to its slot.
    fn publish(&self, block: Block, slot: Slot) {
        let all = self.table.all_live(block);
        self.table.spares.set_live(slot, all).unwrap();
        if self.fault == Fault::LetGoTooEarly {
            self.serve_deferred();
        }
        self.table
            .with_index(|index| index.clear_moving(&self.table.spares, block));
    }

    /// Brings a block back from its slot.
    fn remove(&self, block: Block, slot: Slot) {
        self.table
            .with_index(|index| index.set_moving(&self.table.spares, block));
        self.traffic.drain();
        let content = read(self.slot(slot));
        write(&self.main[block.0 as usize], content);
        self.table
            .with_index(|index| index.remove(&self.table.spares, block));
        grace_period();
        self.table.release(slot).unwrap();
        self.serve_deferred();
    }

    /// Moves a block to another slot.
    fn leave(&self, block: Block, former: Slot) {
        let slot = self.free_slot();
        let all = self.table.all_live(block);
        self.table.occupy(slot, &record(block), GFP_KERNEL).unwrap();
        self.table
            .with_index(|index| index.set_moving(&self.table.spares, block));
        self.traffic.drain();
        let content = read(self.slot(former));
        write(self.slot(slot), content);
        self.table.spares.set_live(slot, all).unwrap();
        self.table
            .with_index(|index| index.replace(&self.table.spares, slot, false));
        grace_period();
        self.table.retire(former).unwrap();
        self.serve_deferred();
    }

    /// The lowest free slot.
    fn free_slot(&self) -> Slot {
        let spare = self.table.spares.get(SpareIndex::new(0).unwrap());
        let allocator = &spare.unwrap().allocator;
        allocator.lowest_free(&self.table.spares).unwrap()
    }

    /// The sector of a slot.
    fn slot(&self, slot: Slot) -> &UnsafeCell<u32> {
        &self.spare[slot.number().get() as usize]
    }

    /// What is read of a sector now that nothing moves.
    fn content(&self, at: Sector) -> u32 {
        self.request(REQUESTS, at, None).expect("no block moves")
    }
}

/// The record of a block in a slot that has nothing of it yet.
fn record(block: Block) -> Record {
    Record {
        block,
        live: LiveMask::EMPTY,
        time: UnixTime(1),
        cause: Cause::Message,
    }
}

/// Reads a sector.
fn read(sector: &UnsafeCell<u32>) -> u32 {
    // SAFETY: The checker sees to it that nobody writes it.
    sector.with(|sector| unsafe { *sector })
}

/// Writes a sector and returns what it had.
fn write(sector: &UnsafeCell<u32>, new: u32) -> u32 {
    // SAFETY: The checker sees to it that nobody else uses it.
    sector.with_mut(|sector| unsafe { std::mem::replace(&mut *sector, new) })
}

/// A request from processor 1 while its block moves to the spare.
fn there(fault: Fault) {
    let device = Device::new(fault);
    let request = spawn(1, {
        let device = Shared::clone(&device);
        move || {
            let before = device.request(0, Sector(0), Some(1));
            assert!(before.is_none_or(|before| before == 0), "stale data");
            before.is_none()
        }
    });
    device.add(Block(0));
    let waited = request.join().unwrap();
    assert_eq!(device.content(Sector(0)), 1, "a write is lost");
    assert_eq!(device.clones[0].ended.get(), usize::from(waited));
}

/// Two requests, one after the other, while their block moves to the spare and back.
fn there_and_back() {
    let device = Device::new(Fault::None);
    let requests = spawn(1, {
        let device = Shared::clone(&device);
        move || {
            let before = device.request(0, Sector(0), Some(1))?;
            assert_eq!(before, 0, "stale data");
            let before = device.request(1, Sector(0), Some(2))?;
            assert_eq!(before, 1, "stale data");
            Some(())
        }
    });
    let slot = device.add(Block(0));
    device.remove(Block(0), slot);
    requests.join().unwrap();
    let waited = |clone: usize| device.clones[clone].ended.get() == 1;
    let last = if waited(0) { 1 } else { 2 };
    assert_eq!(device.content(Sector(0)), last, "a write is lost");
}

/// A block leaves its slot, and another one gets it, while requests to both run.
fn a_slot_for_another() {
    let device = Device::new(Fault::None);
    let slot = device.add(Block(0));
    let requests = [0, 1].map(|block| {
        let device = Shared::clone(&device);
        spawn(1 + block, move || {
            let new = Some(1 + block as u32);
            let before = device.request(0, Sector(block as u64), new);
            assert!(before.is_none_or(|before| before == 0), "stale data");
        })
    });
    device.remove(Block(0), slot);
    assert_eq!(device.add(Block(1)), slot);
    requests.map(|request| request.join().unwrap());
    assert_eq!(device.content(Sector(0)), 1, "a write is lost");
    assert_eq!(device.content(Sector(1)), 2, "a write is lost");
}

/// A block leaves its slot, as that is bad, while a request to it runs.
fn to_another_slot() {
    let device = Device::new(Fault::None);
    let former = device.add(Block(0));
    let request = spawn(1, {
        let device = Shared::clone(&device);
        move || {
            let before = device.request(0, Sector(0), Some(1));
            assert!(before.is_none_or(|before| before == 0), "stale data");
        }
    });
    device.leave(Block(0), former);
    request.join().unwrap();
    assert_eq!(device.content(Sector(0)), 1, "a write is lost");
}

/// A write brings an unreadable sector to life, which somebody reads meanwhile.
fn to_life() {
    let device = Device::new(Fault::None);
    let slot = device.add(Block(0));
    let (records, block) = (&device.table.spares, Block(0));
    records.set_live(slot, LiveMask::EMPTY).unwrap();
    write(&device.main[0], 1);
    write(device.slot(slot), NOTHING);
    let acknowledged = Shared::new(AtomicU8::new(0));
    assert_eq!(acknowledged.load(Relaxed), 0);
    let reader = spawn(1, {
        let (device, acknowledged) = (Shared::clone(&device), Shared::clone(&acknowledged));
        move || {
            let known = acknowledged.load(Acquire) != 0;
            let seen = device.request(0, Sector(0), None);
            let right = |seen| seen == 2 || seen == 1 && !known;
            assert!(
                seen.is_none_or(right),
                "stale data, or what lay on the spare"
            );
        }
    });
    device
        .table
        .with_index(|index| index.set_moving(records, block));
    device.traffic.drain();
    write(device.slot(slot), 2);
    device.publish(block, slot);
    acknowledged.store(1, Release);
    device.serve_deferred();
    reader.join().unwrap();
    assert_eq!(device.content(Sector(0)), 2, "a write is lost");
}

#[test]
fn nothing_is_lost_from_slot_to_slot() {
    check_within(Some(4), to_another_slot);
}

#[test]
fn a_sector_comes_to_life_at_once() {
    check_within(Some(4), to_life);
}

#[test]
fn nothing_is_lost_on_the_way_to_a_spare() {
    check_within(Some(4), || there(Fault::None));
}

#[test]
fn nothing_is_lost_there_and_back() {
    check_within(Some(3), there_and_back);
}

#[test]
fn no_two_blocks_share_a_slot() {
    check_within(Some(2), a_slot_for_another);
}

#[test]
fn a_move_needs_its_orders() {
    fails_without(Wanted::Load("AtomicU32"), there_and_back);
    fails_without(Wanted::Store("AtomicU32"), there_and_back);
    fails_without(Wanted::Load("AtomicUsize"), there_and_back);
    fails_without(Wanted::Store("AtomicUsize"), there_and_back);
    fails_without(Wanted::Fence, there_and_back);
    fails_without_grace_periods(there_and_back);
}

#[test]
fn a_move_needs_its_steps() {
    fails("that a request waits without a second look", || {
        there(Fault::NoSecondLook);
    });
    fails("that a place is published before it has the data", || {
        there(Fault::PublishedTooEarly);
    });
    fails("that requests are let go too early", || {
        there(Fault::LetGoTooEarly);
    });
}
