// SPDX-License-Identifier: GPL-2.0

//! Models of what runs at the same time in dm-remap, for the model checker loom.
//!
//! What is checked are the files of the module themselves. Their `core` is one whose atomic integers the checker watches, and
//! their `kernel`, their C and what stands around them here are stand-ins that do what the kernel documents. `docs/locking.md`
//! says what each model is about, and what it leaves out.

#![cfg(test)]
// What a stand-in asks of its callers is said of what it stands in for.
#![allow(clippy::missing_safety_doc)]

extern crate watched_core as core;

mod bindings;
mod drain;
mod machine;
mod moving;
mod publication;
mod stack;

#[allow(dead_code)]
mod block;

#[allow(dead_code)]
mod dm;

#[allow(dead_code)]
mod remap;

#[allow(dead_code)]
mod sync;

#[allow(dead_code)]
#[path = "../../../src/table.rs"]
mod table;
#[allow(dead_code)]
#[path = "../../../src/traffic.rs"]
mod traffic;
