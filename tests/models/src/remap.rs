// SPDX-License-Identifier: GPL-2.0

//! A part of `src/remap`.

#[path = "../../../src/remap/fault.rs"]
pub mod fault;
#[path = "../../../src/remap/index.rs"]
pub mod index;
#[path = "../../../src/remap/records.rs"]
pub mod records;
#[path = "../../../src/remap/resolve.rs"]
pub mod resolve;
#[path = "../../../src/remap/units.rs"]
pub mod units;
