// SPDX-License-Identifier: GPL-2.0

//! The pure logic of dm-remap on the host: the same files as in the module.

pub mod crc32c;
pub mod memory;
#[path = "../../../src/remap/mod.rs"]
pub mod remap;
pub mod simulation;
