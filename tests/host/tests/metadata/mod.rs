// SPDX-License-Identifier: GPL-2.0

//! What `docs/metadata.md` promises of the metadata.

mod assembly;
mod crash;
mod layout;
mod make;
mod pages;
mod vectors;
