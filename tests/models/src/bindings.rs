// SPDX-License-Identifier: GPL-2.0

//! What stands in for the C of the kernel, and of `bindings/helpers.c`.

#![allow(non_camel_case_types, non_upper_case_globals, dead_code)]

use kernel::processors;
use loom::cell::Cell;
use loom::cell::UnsafeCell;
use std::ffi::c_uint;
use std::ffi::c_void;

/// What a clone has that is looked at here.
pub(crate) struct bio {
    /// All that drivers and the owner change.
    pub(crate) content: UnsafeCell<Content>,
    /// How many times it has ended.
    pub(crate) ended: Cell<usize>,
    /// The memory that device mapper has for each clone.
    data: UnsafeCell<[u64; 8]>,
}

/// See [`bio`].
#[derive(Clone, Copy)]
pub(crate) struct Content {
    pub(crate) tag: usize,
    pub(crate) status: u8,
    pub(crate) writes: bool,
    pub(crate) sector: u64,
    pub(crate) sectors: u32,
    pub(crate) next: *mut bio,
}

impl bio {
    /// A clone of device mapper that was never sent.
    pub(crate) fn new(writes: bool, sector: u64, sectors: u32) -> Self {
        let content = Content {
            tag: 0,
            status: 0,
            writes,
            sector,
            sectors,
            next: std::ptr::null_mut(),
        };
        Self {
            content: UnsafeCell::new(content),
            ended: Cell::new(0),
            data: UnsafeCell::new([0; 8]),
        }
    }
}

pub(crate) struct block_device;

pub(crate) const DM_MAPIO_SUBMITTED: c_uint = 0;
pub(crate) const DM_MAPIO_REMAPPED: c_uint = 1;
pub(crate) const DM_ENDIO_DONE: c_uint = 0;
pub(crate) const DM_ENDIO_INCOMPLETE: c_uint = 1;

pub(crate) unsafe fn dm_bio_get_target_bio_nr(_bio: *mut bio) -> c_uint {
    0
}

pub(crate) unsafe fn dm_accept_partial_bio(bio: *mut bio, sectors: c_uint) {
    // SAFETY: The caller has the clone.
    unsafe { &*bio }.content.with_mut(|content| {
        // SAFETY: The checker sees to it that nobody else uses it.
        unsafe { (*content).sectors = sectors }
    });
}

pub(crate) unsafe fn dm_per_bio_data(bio: *mut bio, _size: usize) -> *mut c_void {
    // SAFETY: The caller has the clone.
    let data = unsafe { &*bio }.data.with_mut(|data| data);
    data.cast()
}

pub(crate) unsafe fn dm_submit_bio_remap(_clone: *mut bio, _target: *mut bio) {
    panic!("no model sends a request in this way");
}

pub(crate) unsafe fn bio_endio(bio: *mut bio) {
    // SAFETY: The caller has the clone.
    let bio = unsafe { &*bio };
    assert_eq!(bio.ended.get(), 0, "a request ends twice");
    bio.ended.set(1);
}

pub(crate) unsafe fn ktime_get() -> i64 {
    1
}

pub(crate) unsafe fn dm_remap_preempt_disable() {
    processors::preempt_disable();
}

pub(crate) unsafe fn dm_remap_preempt_enable() {
    processors::preempt_enable();
}

pub(crate) unsafe fn synchronize_rcu_expedited() {
    processors::grace_period();
}

/// The address of a counter stands for its per-CPU pointer.
pub(crate) unsafe fn dm_remap_alloc_percpu(size: usize, _align: usize) -> *mut c_void {
    processors::add_counters(size / 8).cast()
}

pub(crate) unsafe fn free_percpu(_counters: *mut c_void) {
    // They are there to the end of the execution.
}

pub(crate) unsafe fn dm_remap_percpu_inc(counter: *mut u64) {
    processors::increment(counter.addr());
}

pub(crate) unsafe fn dm_remap_percpu_add(_counter: *mut u64, _value: u64) {
    panic!("no model counts sectors");
}

pub(crate) unsafe fn dm_remap_percpu_dec(_counter: *mut u64) -> u64 {
    panic!("no model takes samples");
}

pub(crate) unsafe fn dm_remap_percpu_set(_counter: *mut u64, _value: u64) {
    panic!("no model takes samples");
}

pub(crate) unsafe fn dm_remap_percpu_sum(counter: *mut u64) -> u64 {
    processors::sum(counter.addr())
}
