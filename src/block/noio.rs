// SPDX-License-Identifier: GPL-2.0

//! Allocations that do not wait for I/O.
//!
//! C header: [`include/linux/sched/mm.h`](srctree/include/linux/sched/mm.h)

use crate::bindings;
use kernel::types::NotThreadSafe;

/// While this exists, no allocation of this thread starts I/O to get memory, whatever its flags say.
///
/// Code that a request may wait for runs inside such a scope: otherwise freeing memory could mean writing to
/// the very device that waits.
///
/// # Invariants
///
/// `flags` is what `memalloc_noio_save()` gave to this thread.
pub(crate) struct Scope {
    flags: core::ffi::c_uint,
    _thread: NotThreadSafe,
}

impl Scope {
    /// Begins such a scope.
    pub(crate) fn new() -> Self {
        // SAFETY: The function has no requirements.
        let flags = unsafe { bindings::dm_remap_memalloc_noio_save() };
        // INVARIANT: The flags were given just now.
        Self {
            flags,
            _thread: NotThreadSafe,
        }
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the flags are those of this thread; scopes are values, which end in the
        // reverse order of their beginning unless moved about, and then the flags are restored to a wider scope's.
        unsafe { bindings::dm_remap_memalloc_noio_restore(self.flags) };
    }
}
