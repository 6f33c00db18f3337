// SPDX-License-Identifier: GPL-2.0

//! What dmremap does with images of spares.

mod check;
mod dump;
mod format;
mod images;
mod repair;
