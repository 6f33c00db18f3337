// SPDX-License-Identifier: GPL-2.0

//! Device-mapper targets.
//!
//! A target implements [`Target`](target::Target) and is offered to device mapper for as long as a
//! [`Registration`](target::Registration) of it exists. Device mapper then makes an instance of it for each
//! line of a table that names it.
//!
//! The shape of the interface is what keeps the promises that device mapper asks of a target, so that no
//! safe implementation of the trait can break them:
//!
//! - A request is an owned [`Request`](request::Request), and [`map`](target::Target::map) can return only
//!   what consuming that very request gave: it was sent to a device, ended, or put aside. There is no other
//!   return value, so device mapper is never given one that it answers with `BUG()`, no request is ended
//!   twice and none is lost.
//! - A request that was put aside is a [`Deferred`](request::Deferred), which may be sent to another thread
//!   and which fails its I/O when it is dropped.
//! - A device is opened by [`Setup`](target::Setup) and stays in the hands of this layer, which closes it
//!   in the destructor. A target holds a [`DeviceId`](device::DeviceId), with which it can borrow the device
//!   from the instance.
//! - Work that an instance has queued is cancelled before its data is dropped.
//! - `map` and the completion callback run on many processors at once and get shared references only.
//!
//! C header: [`include/linux/device-mapper.h`](srctree/include/linux/device-mapper.h)

pub(crate) mod device;
pub(crate) mod request;
pub(crate) mod target;
pub(crate) mod text;
