// SPDX-License-Identifier: GPL-2.0

//! A module with the defects that the debug kernels are there to find: each way to load it
//! shows one of them.

use core::cell::UnsafeCell;
use core::hint::black_box;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;
use kernel::new_mutex;
use kernel::new_spinlock;
use kernel::prelude::*;
use kernel::sync::rcu;
use kernel::sync::Arc;
use kernel::sync::Mutex;
use kernel::sync::SpinLock;
use kernel::workqueue;
use kernel::workqueue::impl_has_delayed_work;
use kernel::workqueue::new_delayed_work;
use kernel::workqueue::DelayedWork;
use kernel::workqueue::WorkItem;

module! {
    type: Defects,
    name: "dm_remap_defects",
    authors: ["The dm-remap developers"],
    description: "Defects to be found",
    license: "GPL",
    params: {
        freed: bool {
            default: false,
            description: "Read memory that was freed",
        },
        leaked: bool {
            default: false,
            description: "Forget memory",
        },
        inverted: bool {
            default: false,
            description: "Take two locks in one order, then in the other",
        },
        slept: bool {
            default: false,
            description: "Take a lock that sleeps while one is held that does not",
        },
        unread: bool {
            default: false,
            description: "Take a lock that sleeps in an RCU read-side section",
        },
        queued: bool {
            default: false,
            description: "Free what is still queued",
        },
        plain: bool {
            default: false,
            description: "Count with plain additions on two processors",
        },
        atomic: bool {
            default: false,
            description: "Count with atomic additions on two processors, which is right",
        },
    },
}

/// How often each of two work items adds.
const ADDITIONS: u64 = 3_000_000;

struct Defects;

impl kernel::Module for Defects {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        if module_parameters::freed.value() {
            read_freed()?;
        }
        if module_parameters::leaked.value() {
            forget()?;
        }
        let locks = KBox::pin_init(Locks::new(), GFP_KERNEL)?;
        if module_parameters::inverted.value() {
            locks.invert();
        }
        if module_parameters::slept.value() {
            locks.sleep_in_atomic();
        }
        if module_parameters::unread.value() {
            locks.sleep_in_rcu();
        }
        if module_parameters::queued.value() {
            free_queued()?;
        }
        let counter = Arc::new(Counter::default(), GFP_KERNEL)?;
        if module_parameters::plain.value() {
            count_twice(&counter, Counter::add_plain)?;
        }
        if module_parameters::atomic.value() {
            count_twice(&counter, Counter::add_atomic)?;
        }
        Ok(Self)
    }
}

fn read_freed() -> Result {
    let freed = KBox::into_raw(KBox::new(1u64, GFP_KERNEL)?);
    // SAFETY: It was made from a box just now.
    drop(unsafe { KBox::from_raw(freed) });
    // SAFETY: There is no excuse; the kernel shall say so.
    let value = unsafe { black_box(freed).read_volatile() };
    pr_info!("read {value}\n");
    Ok(())
}

fn forget() -> Result {
    core::mem::forget(KBox::new([1u64; 64], GFP_KERNEL)?);
    Ok(())
}

#[pin_data]
struct Locks {
    #[pin]
    first: Mutex<()>,
    #[pin]
    second: Mutex<()>,
    #[pin]
    spinning: SpinLock<()>,
}

impl Locks {
    fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            first <- new_mutex!((), "defects_first"),
            second <- new_mutex!((), "defects_second"),
            spinning <- new_spinlock!((), "defects_spinning"),
        })
    }

    fn invert(&self) {
        for (outer, inner) in [(&self.first, &self.second), (&self.second, &self.first)] {
            let _outer = outer.lock();
            let _inner = inner.lock();
        }
    }

    fn sleep_in_atomic(&self) {
        let _spinning = self.spinning.lock();
        let _first = self.first.lock();
    }

    fn sleep_in_rcu(&self) {
        let _reader = rcu::read_lock();
        let _first = self.first.lock();
    }
}

#[pin_data]
struct Late {
    #[pin]
    work: DelayedWork<Late>,
}

impl_has_delayed_work! {
    impl HasDelayedWork<Self> for Late { self.work }
}

impl WorkItem for Late {
    type Pointer = Arc<Late>;

    fn run(_: Arc<Late>) {}
}

fn free_queued() -> Result {
    let init = pin_init!(Late { work <- new_delayed_work!("defects_late") });
    let late = Arc::pin_init(init, GFP_KERNEL)?;
    let freed = Arc::into_raw(late.clone());
    if workqueue::system()
        .enqueue_delayed(late, 1_000_000)
        .is_err()
    {
        return Err(EBUSY);
    }
    // One reference is ours, and the other one belongs to the queue.
    for _ in 0..2 {
        // SAFETY: It came from there; that the queue has one of them still is what the kernel shall say.
        drop(unsafe { Arc::from_raw(freed) });
    }
    Ok(())
}

#[derive(Default)]
struct Counter {
    plain: UnsafeCell<u64>,
    atomic: AtomicU64,
    ended: AtomicU64,
}

// SAFETY: It is not when `add_plain` is called on two processors; the kernel shall say so.
unsafe impl Sync for Counter {}

impl Counter {
    #[inline(never)]
    fn add_plain(&self) {
        // SAFETY: As above.
        unsafe { *black_box(self.plain.get()) += 1 };
    }

    #[inline(never)]
    fn add_atomic(&self) {
        self.atomic.fetch_add(1, Relaxed);
    }
}

/// Has two work items add at the same time, and waits until they have.
fn count_twice(counter: &Arc<Counter>, add: fn(&Counter)) -> Result {
    for _ in 0..2 {
        let counter = counter.clone();
        workqueue::system_unbound().try_spawn(GFP_KERNEL, move || {
            for _ in 0..ADDITIONS {
                add(&counter);
            }
            counter.ended.fetch_add(1, Relaxed);
        })?;
    }
    while counter.ended.load(Relaxed) < 2 {
        kernel::time::delay::fsleep(kernel::time::Delta::from_millis(10));
    }
    Ok(())
}
