// SPDX-License-Identifier: GPL-2.0

//! `crate::block::bio`: what has a bio changes it alone.

use super::device::BlockDevice;
use super::status::Status;
use crate::bindings::bio;
use crate::bindings::Content;
use core::ptr::NonNull;
use kernel::prelude::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Read,
    Write,
    WriteZeroes,
    Discard,
    SecureErase,
    Flush,
    Other,
}

#[derive(Clone, Copy)]
pub(crate) struct Position {
    sector: u64,
    sectors: u32,
}

impl Position {
    pub(crate) const fn sectors(&self) -> u32 {
        self.sectors
    }
}

pub(crate) struct Bio(NonNull<bio>);

impl Bio {
    pub(crate) unsafe fn from_raw(bio: NonNull<bio>) -> Self {
        Self(bio)
    }

    pub(crate) fn as_ptr(&self) -> *mut bio {
        self.0.as_ptr()
    }

    pub(crate) fn as_non_null(&self) -> NonNull<bio> {
        self.0
    }

    /// A look at the bio.
    fn content(&self) -> Content {
        // SAFETY: The model has the bio to the end of the execution.
        let bio = unsafe { self.0.as_ref() };
        // SAFETY: The checker sees to it that nobody changes it.
        bio.content.with(|content| unsafe { *content })
    }

    /// A change of the bio.
    fn change(&mut self, change: impl FnOnce(&mut Content)) {
        // SAFETY: As above.
        let bio = unsafe { self.0.as_ref() };
        // SAFETY: The checker sees to it that nobody else uses it.
        bio.content
            .with_mut(|content| change(unsafe { &mut *content }));
    }

    pub(crate) fn operation(&self) -> Operation {
        match self.content().writes {
            true => Operation::Write,
            false => Operation::Read,
        }
    }

    pub(crate) fn plain(&self) -> Option<bool> {
        Some(self.content().writes)
    }

    pub(crate) fn is_atomic(&self) -> bool {
        false
    }

    pub(crate) fn is_readahead(&self) -> bool {
        false
    }

    pub(crate) fn is_fua(&self) -> bool {
        false
    }

    pub(crate) fn sector(&self) -> u64 {
        self.content().sector
    }

    pub(crate) fn sectors(&self) -> u32 {
        self.content().sectors
    }

    pub(crate) fn status(&self) -> Status {
        Status(self.content().status)
    }

    pub(crate) fn set_status(&mut self, status: Status) {
        self.change(|content| content.status = status.0);
    }

    pub(crate) fn tag(&self) -> usize {
        self.content().tag
    }

    pub(crate) fn set_tag(&mut self, tag: usize) {
        self.change(|content| content.tag = tag);
    }

    pub(crate) fn set_place(&mut self, _device: &BlockDevice, sector: u64) {
        self.change(|content| content.sector = sector);
    }

    pub(crate) fn clear_polled(&mut self) {
        self.change(|_| ());
    }

    pub(crate) fn position(&self) -> Position {
        let Content {
            sector, sectors, ..
        } = self.content();
        Position { sector, sectors }
    }

    pub(crate) fn restore(&mut self, position: Position) {
        self.change(|content| {
            (content.sector, content.sectors) = (position.sector, position.sectors);
        });
    }

    pub(crate) fn copy_to(&self, _first: usize, _buffer: &mut [u8]) -> Result {
        panic!("no model copies the data of a request");
    }

    pub(crate) fn copy_from(&mut self, _first: usize, _buffer: &[u8]) -> Result {
        panic!("no model copies the data of a request");
    }

    pub(crate) fn next(&self) -> Option<NonNull<bio>> {
        NonNull::new(self.content().next)
    }

    pub(crate) fn set_next(&mut self, next: Option<NonNull<bio>>) {
        let next = next.map_or(core::ptr::null_mut(), NonNull::as_ptr);
        self.change(|content| content.next = next);
    }
}
