// SPDX-License-Identifier: GPL-2.0

//! `crate::sync::zeroed`, with few chunks to a page.

use super::rcu::Once;
use crate::remap::records::Chunk;
use crate::remap::records::States;
use kernel::prelude::*;

pub(crate) const FAN_OUT: usize = 2;

pub(crate) struct Page {
    pub(crate) chunks: [Once<Chunk>; FAN_OUT],
    pub(crate) states: [Once<States>; FAN_OUT],
}

impl Default for Page {
    fn default() -> Self {
        Self {
            chunks: [const { Once::new() }; FAN_OUT],
            states: [const { Once::new() }; FAN_OUT],
        }
    }
}

/// Makes a value that is all zeroes.
pub(crate) fn boxed<T: Default>(flags: Flags) -> Result<KBox<T>> {
    Ok(KBox::new(T::default(), flags)?)
}
