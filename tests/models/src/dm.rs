// SPDX-License-Identifier: GPL-2.0

//! A part of `src/dm`.

use crate::bindings::bio;
use core::ptr::NonNull;

pub(crate) mod device;
#[path = "../../../src/dm/request.rs"]
pub(crate) mod request;

/// Maps a clone that waits then, with this tag.
pub(crate) fn defer(clone: &bio, tag: usize) -> request::Deferred {
    // SAFETY: A model maps each clone once, and has it to the end of the execution.
    let request = unsafe { request::Request::from_raw(NonNull::from(clone)) };
    let (mut deferred, _mapped) = request.defer(request::Owner::new(core::ptr::null()), 0);
    deferred.set_tag(tag);
    deferred
}
