// SPDX-License-Identifier: GPL-2.0

//! dm-remap: keeps data alive on disks that are failing.
//!
//! A device-mapper target that puts the bad sectors of a main device onto a healthy spare.
//!
//! - A request enters and leaves in [`target`]; where it goes is decided by the pure logic in [`remap`].
//! - Blocks move in [`relocator`], on the ground that [`traffic`] and [`table`] prepare.
//! - What is known is kept on the spares by [`metadata`].
//! - [`dm`], [`block`] and [`sync`] are the safe layer over the kernel's C; nothing else is `unsafe`.

mod bindings;
mod block;
mod dm;
mod healable;
mod health;
mod latency;
mod message;
mod metadata;
mod relocator;
pub mod remap;
mod scan;
mod setup;
mod status;
mod sync;
mod table;
mod target;
mod traffic;

use crate::dm::target::Registration;
use crate::target::Remap;
use kernel::prelude::*;
use kernel::InPlaceModule;

module! {
    type: Module,
    name: "dm_remap",
    authors: ["The dm-remap developers"],
    description: "Device-mapper target that relocates bad sectors to a spare device",
    license: "GPL",
}

/// The module: it offers the target for as long as it is loaded.
#[pin_data]
struct Module {
    #[pin]
    registration: Registration<Remap>,
}

impl InPlaceModule for Module {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            registration <- Registration::new(module),
        })
    }
}
