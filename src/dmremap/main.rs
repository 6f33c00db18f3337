// SPDX-License-Identifier: GPL-2.0

//! dmremap: looks at, makes and mends the metadata of spares while no device uses them.
//!
//! `docs/dmremap.md` is its manual. What the format means is decided by the same code as in the module, `src/remap`.

mod blkid;
mod check;
mod contents;
mod device;
mod dump;
mod exit;
mod format;
mod progress;
mod repair;
mod spares;
mod survey;
mod writer;

#[path = "../remap/mod.rs"]
#[expect(dead_code, reason = "the module uses what is not used here")]
mod remap;

use clap::error::ErrorKind;
use clap::Parser;
use clap::Subcommand;
use exit::Exit;
use std::process::ExitCode;

/// Looks at, makes and mends the metadata of spares of dm-remap.
///
/// Spares are block devices or images of them, in any order.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Check(check::Check),
    Dump(dump::Dump),
    Repair(repair::Repair),
    Format(format::Format),
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // When standard error is closed there is nobody to tell.
            let _ = error.print();
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Exit::Clean,
                _ => Exit::Usage,
            }
            .into();
        }
    };
    let exit = match arguments.verb {
        Verb::Check(check) => check.run(),
        Verb::Dump(dump) => dump.run(),
        Verb::Repair(repair) => repair.run(),
        Verb::Format(format) => format.run(),
    };
    exit.unwrap_or_else(|failure| {
        eprintln!("dmremap: {}", failure.sentence);
        failure.exit
    })
    .into()
}
