// SPDX-License-Identifier: GPL-2.0

//! Reading the parts of an input. Where it ends, all is zero.

use dm_remap_host::crc32c::crc32c;
use dm_remap_host::remap::geometry::PAGE_BYTES;
use dm_remap_host::remap::page::Page;

/// What is left of an input.
pub struct Input<'a>(pub &'a [u8]);

impl Input<'_> {
    /// The next `N` bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        let (now, later) = self.0.split_at(N.min(self.0.len()));
        bytes[..now.len()].copy_from_slice(now);
        self.0 = later;
        bytes
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        self.bytes::<1>()[0]
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        u64::from_le_bytes(self.bytes())
    }

    /// A page whose next `N` bytes stand from offset `at` on.
    pub fn page<const N: usize>(&mut self, at: usize) -> Page {
        let mut page = [0; PAGE_BYTES];
        page[at..at + N].copy_from_slice(&self.bytes::<N>());
        page
    }
}

/// Gives a page the magic and the checksum that it must have.
pub fn sealed(mut page: Page) -> Page {
    page[..8].copy_from_slice(b"dm-remap");
    let checksum = crc32c(&page[12..]);
    page[8..12].copy_from_slice(&checksum.to_le_bytes());
    page
}
