// SPDX-License-Identifier: GPL-2.0

//! dmremap: looks at, makes and mends the metadata of spares while no device uses them.
//!
//! `docs/dmremap.md` is its manual. What the format means is decided by the same code as in the module, `src/remap`.

/// Prints a line on standard output.
macro_rules! say {
    ($($words:tt)*) => {
        $crate::say_line(format_args!($($words)*))
    };
}
pub(crate) use say;

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
use std::fmt;
use std::io;
use std::io::Write;
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

/// Prints a line on standard output. When nobody reads that any more, there may still be something to do.
fn say_line(words: fmt::Arguments<'_>) {
    let _ = writeln!(io::stdout(), "{words}");
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
