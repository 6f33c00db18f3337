// SPDX-License-Identifier: GPL-2.0

//! The processors: RCU and per-processor counters.
//!
//! RCU promises, of a read-side critical section and a grace period, that the section ends before the grace period does, and
//! all that it did is seen after that; or that the section sees all that was done before the grace period began
//! (`Documentation/RCU/Design/Requirements/Requirements.rst`, "Grace-Period Guarantee" and "Memory-Barrier Guarantees"). It
//! promises nothing between two sections. A lock for each processor, which its sections hold, and which a grace period takes
//! and gives back one after the other, promises just that.
//!
//! `this_cpu_inc()` cannot be divided by what else its processor does, and orders nothing. A sum reads the counter of
//! each processor once, and orders nothing either.

use loom::sync::atomic::AtomicU64;
use loom::sync::Mutex;
use loom::sync::MutexGuard;
use std::cell::Cell;
use std::cell::OnceCell;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;

/// How many processors there are: one for each thread that a model may have besides its first.
pub const PROCESSORS: usize = 3;

/// A processor of an execution.
struct Processor {
    /// How many read-side critical sections have begun and not ended, and what they hold.
    sections: RefCell<(usize, Option<MutexGuard<'static, ()>>)>,
    /// Held by these.
    busy: Mutex<()>,
}

/// A counter: its parts on all processors. Those that no processor has used yet are zero, and cost nothing.
type Counter = Rc<[OnceCell<AtomicU64>; PROCESSORS]>;

/// What there is in an execution.
#[derive(Default)]
struct Machine {
    processors: Vec<Rc<Processor>>,
    counters: BTreeMap<usize, Counter>,
    /// The memory whose addresses stand for counters.
    addresses: Vec<Box<[u64]>>,
    /// Whether there are threads besides the first.
    started: bool,
}

thread_local! {
    /// The machine of the execution that runs on this thread.
    static MACHINE: RefCell<Machine> = RefCell::default();
}

loom::thread_local! {
    static NUMBER: Cell<usize> = Cell::new(0);
}

/// Makes the processors of an execution. Its first thread calls this first of all.
pub fn start() {
    crate::memory::forget();
    let processor = |_| {
        Rc::new(Processor {
            sections: RefCell::default(),
            busy: Mutex::new(()),
        })
    };
    let machine = Machine {
        processors: (0..PROCESSORS).map(processor).collect(),
        ..Machine::default()
    };
    let last = MACHINE.replace(machine);
    let ended = |processor: &Rc<Processor>| processor.sections.borrow().1.is_none();
    if !last.processors.iter().all(ended) {
        // That execution has failed, and what it held belongs to nobody any more.
        std::mem::forget(last);
    }
}

/// Runs `f` on processor `processor`.
pub fn run_on<R>(processor: usize, f: impl FnOnce() -> R) -> R {
    let before = NUMBER.with(|here| here.replace(processor));
    let result = f();
    NUMBER.with(|here| here.set(before));
    result
}

/// Starts a thread on processor `number`. The first thread runs on number 0 while no other does.
pub fn spawn<T: 'static>(
    number: usize,
    f: impl FnOnce() -> T + 'static,
) -> loom::thread::JoinHandle<T> {
    MACHINE.with_borrow_mut(|machine| machine.started = true);
    loom::thread::spawn(move || run_on(number, f))
}

/// The number of the processor on which this thread runs.
fn number() -> usize {
    NUMBER.with(Cell::get)
}

/// The processor on which this thread runs.
fn here() -> Rc<Processor> {
    MACHINE.with_borrow(|machine| Rc::clone(&machine.processors[number()]))
}

/// `might_sleep()`.
///
/// # Panics
///
/// In a read-side critical section.
pub fn might_sleep() {
    let sections = here().sections.borrow().0;
    assert_eq!(sections, 0, "something sleeps with preemption disabled");
}

/// `preempt_disable()`.
pub fn preempt_disable() {
    let here = here();
    if here.sections.borrow().0 == 0 {
        let held = here.busy.lock().expect("no thread dies while it holds it");
        // SAFETY: The machine keeps the processor to the end of the execution, and this is given up before that.
        let held =
            unsafe { std::mem::transmute::<MutexGuard<'_, ()>, MutexGuard<'static, ()>>(held) };
        here.sections.borrow_mut().1 = Some(held);
    }
    here.sections.borrow_mut().0 += 1;
}

/// `preempt_enable()`.
pub fn preempt_enable() {
    let here = here();
    here.sections.borrow_mut().0 -= 1;
    if here.sections.borrow().0 == 0 {
        let held = here.sections.borrow_mut().1.take();
        drop(held);
    }
}

thread_local! {
    static LEFT_OUT: Cell<bool> = const { Cell::new(false) };
}

/// Runs `f` with grace periods that wait for nothing.
pub fn without_grace_periods<R>(f: impl FnOnce() -> R) -> R {
    struct Restore;
    impl Drop for Restore {
        fn drop(&mut self) {
            LEFT_OUT.set(false);
        }
    }
    LEFT_OUT.set(true);
    let _restore = Restore;
    f()
}

/// `synchronize_rcu_expedited()`.
pub fn grace_period() {
    might_sleep();
    if LEFT_OUT.get() {
        return;
    }
    let processors = MACHINE.with_borrow(|machine| machine.processors.clone());
    for processor in processors {
        drop(processor.busy.lock());
    }
}

/// Makes `count` counters, and memory whose addresses stand for them.
pub fn add_counters(count: usize) -> *mut u64 {
    let mut memory = vec![0; count].into_boxed_slice();
    let pointer = memory.as_mut_ptr();
    MACHINE.with_borrow_mut(|machine| {
        for counter in &memory {
            let address = std::ptr::from_ref(counter).addr();
            machine.counters.insert(address, Rc::default());
        }
        machine.addresses.push(memory);
    });
    pointer
}

/// The counter at an address.
fn counter(address: usize) -> Counter {
    MACHINE.with_borrow(|machine| Rc::clone(&machine.counters[&address]))
}

/// `this_cpu_inc()`. The first one on a processor comes before other threads are there: a model lets a request pass on each.
pub fn increment(address: usize) {
    let counter = counter(address);
    let part = counter[number()].get_or_init(|| {
        let alone = MACHINE.with_borrow(|machine| !machine.started);
        assert!(alone, "a processor has not used this counter before");
        AtomicU64::new(0)
    });
    part.fetch_add(1, Relaxed);
}

/// The sum of what all processors have, each read by `READ_ONCE()`.
pub fn sum(address: usize) -> u64 {
    let parts = counter(address);
    let used = parts.iter().filter_map(OnceCell::get);
    used.map(|part| part.load(Relaxed)).sum()
}
