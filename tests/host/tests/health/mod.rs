// SPDX-License-Identifier: GPL-2.0

//! The health model: its numbers, what it says, and whether that comes true.

mod calibration;
mod level;
mod model;
mod numbers;
