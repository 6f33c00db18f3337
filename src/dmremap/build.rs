// SPDX-License-Identifier: GPL-2.0

//! Makes the bindings of libblkid, and has it linked in, so that the tool runs where another release of it is, or none.

use std::env;
use std::path::Path;
use std::process::Command;

/// What `blkid.rs` uses.
const ALLOWED: [&str; 2] = [
    "blkid_(new_probe|free_probe|probe_set_device|do_probe|do_wipe|probe_lookup_value\
     |probe_(enable|set)_(superblocks|partitions)(_flags)?)",
    "BLKID_(SUBLKS_TYPE|SUBLKS_MAGIC|PARTS_MAGIC)",
];

fn main() {
    let output = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    let bindings = Path::new(&output).join("blkid.rs");
    let [functions, constants] = ALLOWED;
    let status = Command::new("bindgen")
        .args(["--no-layout-tests", "--formatter", "none", "--use-core"])
        .args([
            "--allowlist-function",
            functions,
            "--allowlist-var",
            constants,
        ])
        .arg("--output")
        .arg(&bindings)
        .arg("/usr/include/blkid/blkid.h")
        .status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "bindgen failed"
    );

    let library = Command::new("gcc")
        .arg("-print-file-name=libblkid.a")
        .output();
    let library = library.expect("gcc does not run").stdout;
    let library = String::from_utf8(library).expect("the path of libblkid.a is not text");
    let folder = Path::new(&library)
        .parent()
        .filter(|folder| folder.is_absolute());
    println!(
        "cargo:rustc-link-search=native={}",
        folder.expect("there is no libblkid.a").display()
    );
    println!("cargo:rustc-link-lib=static=blkid");
    println!("cargo:rerun-if-changed=build.rs");
}
