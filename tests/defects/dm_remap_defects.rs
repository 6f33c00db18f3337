// SPDX-License-Identifier: GPL-2.0

//! A module with the defects that the debug kernels are there to find: each way to load it
//! shows one of them.

use core::cell::UnsafeCell;
use core::hint::black_box;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;
use kernel::prelude::*;
use kernel::sync::Arc;
use kernel::workqueue;

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
