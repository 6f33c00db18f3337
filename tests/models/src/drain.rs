// SPDX-License-Identifier: GPL-2.0

//! `src/traffic.rs`, `src/sync/percpu.rs`: a drain waits for every request that may not have seen what was said before it, and
//! what such a request did is done when the drain ends.

use crate::machine::check;
use crate::machine::check_within;
use crate::machine::fails;
use crate::machine::fails_without;
use crate::machine::fails_without_grace_periods;
use crate::sync::rcu::Guard;
use crate::traffic::Kind;
use crate::traffic::Ticket;
use crate::traffic::Traffic;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering;
use core::sync::atomic::Wanted;
use kernel::processors::run_on;
use kernel::processors::spawn;
use kernel::processors::PROCESSORS;
use loom::cell::UnsafeCell;
use loom::sync::Arc as Shared;

/// A device with a block that may be marked as moving.
struct Device {
    traffic: Traffic,
    moving: AtomicU32,
    /// The sectors of the block: one for each requester. The checker lets no two threads use one without an order.
    sectors: [UnsafeCell<u32>; 2],
}

impl Device {
    fn new() -> Shared<Self> {
        let device = Self {
            traffic: Traffic::new().unwrap(),
            moving: AtomicU32::new(0),
            sectors: [UnsafeCell::new(0), UnsafeCell::new(0)],
        };
        for _epoch in 0..2 {
            for processor in 0..PROCESSORS {
                run_on(processor, || device.let_pass());
            }
            device.traffic.drain();
        }
        Shared::new(device)
    }

    /// Lets a request pass, and puts another one aside.
    fn let_pass(&self) {
        let ticket = self.map().expect("nothing moves yet");
        self.end_io(0, ticket);
        let ticket = self.map().expect("nothing moves yet");
        self.traffic.put_aside(ticket);
    }

    /// `map`: counts a request as begun, and then looks whether it has to wait.
    fn map(&self) -> Option<Ticket> {
        let guard = Guard::new();
        let ticket = self.traffic.begin(Kind::Write, &guard);
        let moving = self.moving.load(Ordering::Acquire) != 0;
        drop(guard);
        if moving {
            self.traffic.put_aside(ticket);
            return None;
        }
        Some(ticket)
    }

    /// The I/O of a request, and its end.
    fn end_io(&self, sector: usize, ticket: Ticket) {
        self.write(sector);
        self.traffic.end(ticket);
    }

    /// A write to a sector.
    fn write(&self, sector: usize) {
        // SAFETY: The checker sees to it that nobody else uses it.
        self.sectors[sector].with_mut(|sector| unsafe { *sector += 1 });
    }

    /// The first steps of a section, and its last.
    fn move_block(&self) {
        self.moving.store(1, Ordering::Release);
        self.traffic.drain();
        self.copy();
        self.moving.store(0, Ordering::Release);
    }

    /// Copies the block.
    fn copy(&self) {
        (0..self.sectors.len()).for_each(|sector| self.write(sector));
    }
}

/// Two requests come from two processors while the block moves.
fn two_requests() {
    let device = Device::new();
    let requests = [0, 1].map(|sector| {
        let device = Shared::clone(&device);
        spawn(1 + sector, move || {
            if let Some(ticket) = device.map() {
                device.end_io(sector, ticket);
            }
        })
    });
    device.move_block();
    requests.map(|request| request.join().unwrap());
}

/// The block moves twice, so that both epochs are drained, and two requests come from one processor.
fn two_moves() {
    let device = Device::new();
    let requests = spawn(1, {
        let device = Shared::clone(&device);
        move || {
            for _ in 0..2 {
                if let Some(ticket) = device.map() {
                    device.end_io(0, ticket);
                }
            }
        }
    });
    device.move_block();
    device.move_block();
    requests.join().unwrap();
}

/// A request ends on another processor than that on which it began.
fn an_end_elsewhere() {
    let device = Device::new();
    let request = spawn(1, {
        let device = Shared::clone(&device);
        move || {
            let ticket = device.map()?;
            let driver = spawn(2, move || device.end_io(0, ticket));
            driver.join().ok()
        }
    });
    device.move_block();
    request.join().unwrap();
}

#[test]
fn a_drain_waits_for_two_requests() {
    check_within(Some(3), two_requests);
}

#[test]
fn a_drain_after_a_drain_waits() {
    check(two_moves);
}

#[test]
fn a_drain_waits_for_a_request_that_ends_elsewhere() {
    check(an_end_elsewhere);
}

#[test]
fn a_drain_needs_its_orders() {
    for model in [two_requests, an_end_elsewhere] {
        fails_without(Wanted::Load("AtomicUsize"), model);
        fails_without(Wanted::Store("AtomicUsize"), model);
        fails_without(Wanted::Fence, model);
        fails_without_grace_periods(model);
    }
}

#[test]
fn a_mark_comes_before_the_drain() {
    fails("that a block is drained before it is marked", || {
        let device = Device::new();
        let request = spawn(1, {
            let device = Shared::clone(&device);
            move || {
                if let Some(ticket) = device.map() {
                    device.end_io(0, ticket);
                }
            }
        });
        device.traffic.drain();
        device.moving.store(1, Ordering::Release);
        device.copy();
        request.join().unwrap();
    });
}

#[test]
fn a_request_is_counted_before_it_looks() {
    fails("that a request is counted after it has looked", || {
        let device = Device::new();
        let request = spawn(1, {
            let device = Shared::clone(&device);
            move || {
                let moving = device.moving.load(Ordering::Acquire) != 0;
                let ticket = device.traffic.begin(Kind::Write, &Guard::new());
                if !moving {
                    device.end_io(0, ticket);
                }
            }
        });
        device.moving.store(1, Ordering::Release);
        device.traffic.drain();
        device.copy();
        request.join().unwrap();
    });
}

#[test]
fn a_request_ends_before_it_is_counted() {
    fails("that a request is counted as ended before it is", || {
        let device = Device::new();
        let request = spawn(1, {
            let device = Shared::clone(&device);
            move || {
                if let Some(ticket) = device.map() {
                    device.traffic.end(ticket);
                    device.write(0);
                }
            }
        });
        device.move_block();
        request.join().unwrap();
    });
}
