// SPDX-License-Identifier: GPL-2.0

//! `src/sync/rcu.rs`: a value that is replaced while others look at it is whole, and there for as long as they look.

use crate::machine::check;
use crate::machine::fails_without;
use crate::machine::fails_without_grace_periods;
use crate::remap::index::Seed;
use crate::remap::index::Sizes;
use crate::remap::records::Record;
use crate::remap::units::Block;
use crate::remap::units::BlockSize;
use crate::remap::units::Cause;
use crate::remap::units::LiveMask;
use crate::remap::units::Sector;
use crate::remap::units::Sectors;
use crate::remap::units::Slot;
use crate::remap::units::SlotCount;
use crate::remap::units::SlotNumber;
use crate::remap::units::SpareIndex;
use crate::remap::units::UnixTime;
use crate::sync::rcu::Guard;
use crate::sync::rcu::Once;
use crate::sync::rcu::Published;
use crate::table::Index;
use crate::table::Spare;
use crate::table::Table;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::Wanted;
use kernel::prelude::*;
use kernel::processors::spawn;
use kernel::sync::Arc;
use loom::sync::Arc as Shared;

/// A value that consists of more than a pointer.
fn value(content: u32) -> Arc<KVVec<u32>> {
    let mut value = KVVec::with_capacity(1, GFP_KERNEL).unwrap();
    value.push(content, GFP_KERNEL).unwrap();
    Arc::new(value, GFP_KERNEL).unwrap()
}

/// Somebody looks at a value in a section, somebody else keeps it, and a third one replaces it twice.
fn replaced_twice() {
    let published = Shared::new(Published::new(value(0)));
    assert_eq!(published.hold()[0], 0);
    let reader = spawn(1, {
        let published = Shared::clone(&published);
        move || {
            let guard = Guard::new();
            let first = published.read(&guard)[0];
            let second = published.read(&guard)[0];
            assert!(first <= second && second <= 2);
        }
    });
    let keeper = spawn(2, {
        let published = Shared::clone(&published);
        move || {
            let kept = published.hold();
            assert!(kept[0] <= 2);
        }
    });
    published.replace(value(1));
    published.replace(value(2));
    reader.join().unwrap();
    keeper.join().unwrap();
}

#[test]
fn a_published_value_is_whole_and_there() {
    check(replaced_twice);
}

#[test]
fn a_published_value_needs_its_orders() {
    fails_without(Wanted::Load("AtomicPtr"), replaced_twice);
    fails_without(Wanted::Swap("AtomicPtr"), replaced_twice);
    fails_without_grace_periods(replaced_twice);
}

/// An index with these sizes, for one block in one slot.
fn index(sizes: Sizes) -> Index {
    let mut words = KVVec::with_capacity(sizes.words(), GFP_KERNEL).unwrap();
    for _ in 0..sizes.words() {
        words.push(AtomicU32::new(0), GFP_KERNEL).unwrap();
    }
    let mut summary = KVVec::with_capacity(sizes.summary(), GFP_KERNEL).unwrap();
    for _ in 0..sizes.summary() {
        summary.push(AtomicU64::new(0), GFP_KERNEL).unwrap();
    }
    // They are there before anybody else sees them.
    assert!(words.iter().all(|word| word.load(Relaxed) == 0));
    assert!(summary.iter().all(|word| word.load(Relaxed) == 0));
    Index::new(sizes, words, summary, Seed(0)).unwrap()
}

/// Two look for a block while the index is replaced by a larger one.
fn larger_index() {
    let block = Block(1);
    let (main, size) = (Sectors(2), BlockSize::new(Sectors(1)).unwrap());
    let sizes = |room| Sizes::new(main, size, SlotCount(1), SlotCount(room)).unwrap();
    let mut spares = KVec::with_capacity(1, GFP_KERNEL).unwrap();
    let spare = Spare::new(SpareIndex::new(0).unwrap(), SlotCount(1), None);
    spares.push(spare.unwrap(), GFP_KERNEL).unwrap();
    let records = Table::new(main, main, size, spares).unwrap();
    let slot = Slot::new(SpareIndex::new(0).unwrap(), SlotNumber::new(0).unwrap());
    let record = Record {
        block,
        live: LiveMask(1),
        time: UnixTime(1),
        cause: Cause::Message,
    };
    records.occupy(slot, &record, GFP_KERNEL).unwrap();
    let first = index(sizes(1));
    first.insert(&records.spares, slot, false).unwrap();
    let published = Published::new(Arc::new(first, GFP_KERNEL).unwrap());
    let look = move |(published, records): &(Published<Index>, Table)| {
        let guard = Guard::new();
        let index = published.read(&guard);
        assert!(!index.is_clear(Sector(1), Sector(1)), "a block is gone");
        let found = index.find(&records.spares, block).expect("a block is gone");
        assert_eq!((found.slot, found.live), (slot, LiveMask(1)));
    };
    let shared = Shared::new((published, records));
    look(&shared);
    let readers = [1, 2].map(|processor| {
        let shared = Shared::clone(&shared);
        spawn(processor, move || look(&shared))
    });
    let (published, records) = &*shared;
    let larger = index(sizes(2));
    published
        .hold()
        .rebuild_into(&records.spares, &larger)
        .unwrap();
    published.replace(Arc::new(larger, GFP_KERNEL).unwrap());
    readers.map(|reader| reader.join().unwrap());
}

#[test]
fn a_block_is_found_while_the_index_grows() {
    check(larger_index);
}

#[test]
fn an_index_that_grows_needs_its_orders() {
    fails_without(Wanted::Load("AtomicPtr"), larger_index);
    fails_without(Wanted::Swap("AtomicPtr"), larger_index);
    fails_without_grace_periods(larger_index);
}

/// Two set a value that is set once, and a third one looks.
fn set_twice() {
    let once = Shared::new(Once::new());
    assert!(once.get().is_none());
    let setters = [1, 2].map(|processor| {
        let once = Shared::clone(&once);
        spawn(processor, move || {
            let mut value = KVec::with_capacity(1, GFP_KERNEL).unwrap();
            value.push(processor, GFP_KERNEL).unwrap();
            once.set(KBox::new(value, GFP_KERNEL).unwrap());
            once.get().expect("somebody has set it")[0]
        })
    });
    let seen = once.get().map(|value| value[0]);
    let set = setters.map(|setter| setter.join().unwrap());
    assert_eq!(set[0], set[1], "a value that is set once has changed");
    assert!(seen.is_none_or(|seen| seen == set[0]));
}

#[test]
fn a_value_that_is_set_once_is_whole_and_stays() {
    check(set_twice);
}

#[test]
fn a_value_that_is_set_once_needs_its_orders() {
    fails_without(Wanted::Load("AtomicPtr"), set_twice);
    fails_without(Wanted::Exchange("AtomicPtr"), set_twice);
}
