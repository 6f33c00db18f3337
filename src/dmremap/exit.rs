// SPDX-License-Identifier: GPL-2.0

//! How dmremap ends.

use crate::remap::assembly::Refusal;
use crate::remap::page::Damage;
use crate::remap::superblock::Unusable;
use std::process::ExitCode;

/// The status that dmremap ends with. The values are those of fsck(8), and of several the greatest counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// Nothing is wrong.
    Clean = 0,
    /// What is wrong can be mended by an activation or by `repair`, or was.
    Mendable = 1,
    /// Something is wrong that cannot be mended, and an activation would refuse it.
    Damaged = 4,
    /// It could not be done: a device cannot be used, or these are not the spares of one set.
    Failed = 8,
    /// The command line makes no sense.
    Usage = 16,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why something could not be done.
#[derive(Debug)]
pub struct Failure {
    /// The status to end with.
    pub exit: Exit,
    /// The sentence for the user.
    pub sentence: String,
}

impl Failure {
    /// Something that could not be done.
    pub fn new(sentence: impl Into<String>) -> Self {
        Self {
            exit: Exit::Failed,
            sentence: sentence.into(),
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self {
            exit: severity(&refusal),
            sentence: refusal.to_string(),
        }
    }
}

/// How bad it is that an activation would refuse spares for this reason.
pub fn severity(refusal: &Refusal) -> Exit {
    match refusal {
        Refusal::Unusable(_, Unusable::BothBad(bad))
            if bad.front != Damage::Magic && bad.back != Damage::Magic =>
        {
            Exit::Damaged
        }
        Refusal::Unusable(_, Unusable::Overwritten(_))
        | Refusal::SpareSize { .. }
        | Refusal::Contradiction(_)
        | Refusal::Lost(_) => Exit::Damaged,
        _ => Exit::Failed,
    }
}
