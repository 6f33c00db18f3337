// SPDX-License-Identifier: GPL-2.0

//! A simulation of failing disks, to see whether what the health model says of them comes true.

pub mod disks;
pub mod measure;
pub mod plain;
