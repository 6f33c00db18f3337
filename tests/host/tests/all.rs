// SPDX-License-Identifier: GPL-2.0

//! All tests in one program, as compiling and linking a dozen of them takes most of the time that the tests take.

mod concurrency;
mod health;
mod index;
mod listing;
mod message;
mod metadata;
mod records;
mod resolve;
mod table_line;
mod units;
mod words;
