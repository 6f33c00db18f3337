// SPDX-License-Identifier: GPL-2.0

//! `crate::block::status`.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Status(pub(crate) u8);

impl Status {
    pub(crate) const OK: Self = Self(0);
    pub(crate) const IO_ERROR: Self = Self(10);
}
