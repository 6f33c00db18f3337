// SPDX-License-Identifier: GPL-2.0

//! The subcommand `check`.

use crate::device::Access;
use crate::device::Main;
use crate::exit::Exit;
use crate::exit::Failure;
use crate::say;
use crate::spares::Spares;
use crate::survey::Survey;
use clap::Args;
use std::path::PathBuf;

/// Verifies the metadata of spares, and changes nothing.
///
/// Ends with 0 when all is well, 1 when an activation or `repair` mends what is not, 4 when something is damaged beyond
/// that, and 8 when these are not the spares of one set or cannot be read.
#[derive(Args)]
pub struct Check {
    /// All spares of a set, or some of them
    #[arg(required = true, value_name = "SPARE")]
    spares: Vec<PathBuf>,

    /// Main, or its size in sectors: to see whether the set is that of this main
    #[arg(long, value_name = "DEVICE|SECTORS")]
    main: Option<Main>,

    /// Say nothing, only end with the right status
    #[arg(short, long)]
    quiet: bool,
}

impl Check {
    /// Does it.
    pub fn run(&self) -> Result<Exit, Failure> {
        let spares = Spares::open(&self.spares, Access::Read)?;
        let main = self.main.as_ref().map(Main::sectors).transpose()?;
        let survey = Survey::new(&spares, main, self.quiet);
        if !self.quiet {
            report(&survey);
        }
        Ok(survey.exit())
    }
}

/// Says what was found.
fn report(survey: &Survey<'_>) {
    for (_, spare) in survey.spares.present() {
        if spare.device.is_in_use() {
            say!(
                "{} is in use: what is said of it was so at a moment that is gone",
                spare.device
            );
        }
    }
    for finding in &survey.findings {
        say!("{}", survey.sentence(finding));
    }
    let verdict = match survey.exit() {
        Exit::Clean => "clean",
        Exit::Mendable => {
            "not clean, but an activation of all its spares, or `dmremap repair`, mends that"
        }
        Exit::Damaged => "damaged",
        Exit::Failed | Exit::Usage => "refused",
    };
    match &survey.set {
        Some(set) => {
            let given = survey.spares.present().count();
            let (count, used) = (set.spares.get(), survey.contents.blocks.len());
            say!(
                "set {}: {given} of {count} spares, {used} blocks relocated: {verdict}",
                set.uuid
            );
        }
        None => say!("{verdict}"),
    }
}
