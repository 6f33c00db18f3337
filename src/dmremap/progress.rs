// SPDX-License-Identifier: GPL-2.0

//! How far a long reading has come.

use indicatif::ProgressBar;
use indicatif::ProgressStyle;

/// So many pages are read before anybody wonders.
const LONG: u64 = 4096;

/// A bar for `pages` pages of metadata, on a terminal, when there are many, and unless nothing shall be said.
pub fn bar(pages: u64, quiet: bool) -> ProgressBar {
    if quiet || pages < LONG {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {percent}% of {len} pages, {eta} left");
    // This hides by itself when standard error is no terminal.
    ProgressBar::new(pages).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
