// SPDX-License-Identifier: GPL-2.0

//! A slot is given out once, the lowest free one first, and its record says what was put into it.

use dm_remap_host::memory::MemoryRecords;
use dm_remap_host::remap::records::Allocator;
use dm_remap_host::remap::records::Entry;
use dm_remap_host::remap::records::Record;
use dm_remap_host::remap::records::Records;
use dm_remap_host::remap::records::Refused;
use dm_remap_host::remap::units::Block;
use dm_remap_host::remap::units::Cause;
use dm_remap_host::remap::units::LiveMask;
use dm_remap_host::remap::units::Slot;
use dm_remap_host::remap::units::SlotCount;
use dm_remap_host::remap::units::SlotNumber;
use dm_remap_host::remap::units::SlotState;
use dm_remap_host::remap::units::SpareIndex;
use dm_remap_host::remap::units::UnixTime;
use proptest::prelude::*;
use std::collections::BTreeMap;

const CAUSES: [Cause; 6] = [
    Cause::Read,
    Cause::Write,
    Cause::Scan,
    Cause::Message,
    Cause::Import,
    Cause::Spare,
];

/// What the model knows of a slot that is not free: a record, or that it is retired.
type Model = BTreeMap<u32, Option<Record>>;

/// What is done to the slots of a spare.
#[derive(Clone, Debug)]
enum Step {
    /// Fill the lowest free slot.
    Allocate(Record),
    /// Fill this slot, as at an activation.
    Occupy(u32, Record),
    Release(u32),
    Retire(u32),
    SetLive(u32, u64),
}

fn record() -> impl Strategy<Value = Record> {
    (
        any::<u32>(),
        any::<u64>(),
        any::<u32>(),
        prop::sample::select(&CAUSES),
    )
        .prop_map(|(block, live, time, cause)| Record {
            block: Block(block),
            live: LiveMask(live),
            time: UnixTime(time),
            cause,
        })
}

/// More than two chunks, so that there are boundaries and gaps.
const MOST: u32 = 600;

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => record().prop_map(Step::Allocate),
        2 => (0..MOST + 10, record()).prop_map(|(slot, record)| Step::Occupy(slot, record)),
        4 => (0..MOST + 10).prop_map(Step::Release),
        1 => (0..MOST + 10).prop_map(Step::Retire),
        1 => (0..MOST + 10, any::<u64>()).prop_map(|(slot, live)| Step::SetLive(slot, live)),
    ]
}

/// What a step has to answer when the slot is in the state `found` of the model.
fn expected(number: u32, capacity: u32, allowed: bool) -> Result<(), Refused> {
    if number >= capacity {
        Err(Refused::BeyondSpare)
    } else if allowed {
        Ok(())
    } else {
        Err(Refused::WrongState)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 3 } else { 150 }))]

    /// Any sequence of changes.
    #[test]
    fn slots_are_what_the_model_says(
        steps in prop::collection::vec(step(), 0..if cfg!(miri) { 50 } else { 1500 }),
        capacity in 1..=MOST,
    ) {
        let spare = SpareIndex::new(3).unwrap();
        // Chunks for slots beyond the spare are there, so that only the capacity refuses those.
        let records = MemoryRecords::new(&[SlotCount(1024); 4]);
        let allocator = Allocator::new(spare, SlotCount(capacity));
        let slot = |number| Slot::new(spare, SlotNumber::new(number).unwrap());
        let mut model = Model::new();
        let mut high_water = 0;
        for step in steps {
            match step {
                Step::Allocate(record) => {
                    let lowest = (0..capacity).find(|number| !model.contains_key(number));
                    assert_eq!(allocator.lowest_free(&records), lowest.map(slot));
                    if let Some(number) = lowest {
                        records.make_room(slot(number));
                        let number_on_spare = slot(number).number();
                        allocator.occupy(&records, number_on_spare, &record).unwrap();
                        model.insert(number, Some(record));
                        high_water = high_water.max(number + 1);
                    }
                }
                Step::Occupy(number, record) => {
                    records.make_room(slot(number));
                    let result = allocator.occupy(&records, slot(number).number(), &record);
                    let free = !model.contains_key(&number);
                    assert_eq!(result, expected(number, capacity, free));
                    if result.is_ok() {
                        model.insert(number, Some(record));
                        high_water = high_water.max(number + 1);
                    }
                }
                Step::Release(number) => {
                    records.make_room(slot(number));
                    let result = allocator.release(&records, slot(number).number());
                    let in_use = matches!(model.get(&number), Some(Some(_)));
                    assert_eq!(result, expected(number, capacity, in_use));
                    if result.is_ok() {
                        model.remove(&number);
                    }
                }
                Step::Retire(number) => {
                    records.make_room(slot(number));
                    let result = allocator.retire(&records, slot(number).number());
                    let retired = matches!(model.get(&number), Some(None));
                    assert_eq!(result, expected(number, capacity, !retired));
                    if result.is_ok() {
                        model.insert(number, None);
                        high_water = high_water.max(number + 1);
                    }
                }
                Step::SetLive(number, live) => {
                    let result = records.set_live(slot(number), LiveMask(live));
                    match model.get_mut(&number) {
                        Some(Some(record)) => {
                            assert_eq!(result, Ok(()));
                            record.live = LiveMask(live);
                        }
                        _ => assert_eq!(result, Err(Refused::WrongState)),
                    }
                }
            }
        }
        let used = model.values().flatten().count() as u32;
        let retired = model.len() as u32 - used;
        assert_eq!(allocator.used(), SlotCount(used));
        assert_eq!(allocator.retired(), SlotCount(retired));
        assert_eq!(allocator.free(), SlotCount(capacity - used - retired));
        assert_eq!(allocator.high_water(), SlotCount(high_water));
        for number in 0..MOST + 10 {
            let in_model = model.get(&number).copied();
            assert_eq!(records.record(slot(number)), in_model.flatten());
            let state = match in_model {
                None => SlotState::Free,
                Some(Some(record)) => SlotState::InUse(record.cause),
                Some(None) => SlotState::Retired,
            };
            assert_eq!(records.state(slot(number)), state);
        }
        let entries = model.iter().filter_map(|(&number, record)| {
            Some(Entry { block: (*record)?.block, slot: slot(number) })
        });
        assert!(allocator.entries(&records).eq(entries));
    }
}

/// A slot whose chunk was not made cannot be filled.
#[test]
fn a_record_needs_its_chunk() {
    let records = MemoryRecords::new(&[SlotCount(300)]);
    let allocator = Allocator::new(SpareIndex::FIRST, SlotCount(300));
    let number = SlotNumber::new(256).unwrap();
    let record = Record {
        block: Block(1),
        live: LiveMask(1),
        time: UnixTime(1),
        cause: Cause::Import,
    };
    assert_eq!(
        allocator.occupy(&records, number, &record),
        Err(Refused::NoRoom)
    );
    assert_eq!(allocator.used(), SlotCount::ZERO);
    records.make_room(Slot::new(SpareIndex::FIRST, number));
    assert_eq!(allocator.occupy(&records, number, &record), Ok(()));
    // The slots before it are free, also those without a chunk.
    let lowest = allocator.lowest_free(&records).unwrap();
    assert_eq!(lowest, Slot::default());
    assert_eq!(allocator.free(), SlotCount(299));
}

/// A spare cannot have more slots than there are numbers.
#[test]
fn capacity_is_bounded() {
    let allocator = Allocator::new(SpareIndex::FIRST, SlotCount(u32::MAX));
    assert_eq!(allocator.capacity(), SlotCount(SlotNumber::MAX_COUNT));
    let none = Allocator::new(SpareIndex::FIRST, SlotCount::ZERO);
    assert_eq!(none.lowest_free(&MemoryRecords::new(&[])), None);
}
