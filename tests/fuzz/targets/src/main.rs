// SPDX-License-Identifier: GPL-2.0

//! The entry point of libFuzzer. The environment variable `FUZZ_TARGET` says what gets the input.

#![no_main]

mod input;
mod metadata;
mod text;

use std::env;
use std::slice;
use std::sync::OnceLock;

/// Something that gets input. It panics when it finds that a promise is broken.
type Target = fn(&[u8]);

/// All targets by their names.
const TARGETS: [(&str, Target); 6] = [
    ("superblock", metadata::superblock),
    ("slot-page", metadata::slot_page),
    ("set", metadata::set),
    ("table-line", text::table_line),
    ("message", text::message),
    ("planted", text::planted),
];

/// The target that was asked for.
fn target() -> Target {
    static TARGET: OnceLock<Target> = OnceLock::new();
    *TARGET.get_or_init(|| {
        let wanted = env::var("FUZZ_TARGET").unwrap_or_default();
        let found = TARGETS.iter().find(|(name, _)| *name == wanted);
        found.expect("FUZZ_TARGET names a target").1
    })
}

/// Gives input to the target.
///
/// # Safety
///
/// `data` points to `size` bytes that nobody changes meanwhile.
#[no_mangle]
pub unsafe extern "C" fn LLVMFuzzerTestOneInput(data: *const u8, size: usize) -> i32 {
    let input = if size == 0 {
        &[]
    } else {
        // SAFETY: The caller says so.
        unsafe { slice::from_raw_parts(data, size) }
    };
    target()(input);
    0
}
