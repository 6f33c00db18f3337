// SPDX-License-Identifier: GPL-2.0

//! The pure logic of dm-remap: no call of the kernel, no memory of its own, no `unsafe`.
//!
//! The module and the host's tests and tools compile the same files.

pub mod assembly;
pub mod fault;
pub mod geometry;
pub mod health;
pub mod identity;
pub mod index;
pub mod listing;
pub mod message;
pub mod options;
pub mod page;
pub mod records;
pub mod resolve;
pub mod slot_page;
pub mod superblock;
pub mod table_line;
pub mod units;
pub mod words;
