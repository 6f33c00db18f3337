// SPDX-License-Identifier: GPL-2.0

//! All that can be found out about some spares by reading them.

use crate::contents::bad_copy;
use crate::contents::nth;
use crate::contents::Contents;
use crate::contents::Finding;
use crate::exit::severity;
use crate::exit::Exit;
use crate::exit::Failure;
use crate::remap::assembly::Assembly;
use crate::remap::assembly::Existing;
use crate::remap::assembly::Member;
use crate::remap::assembly::Refusal;
use crate::remap::geometry::FIRST_MARK;
use crate::remap::page::Choice;
use crate::remap::superblock::Set;
use crate::remap::superblock::State;
use crate::remap::superblock::Superblock;
use crate::remap::units::Sectors;
use crate::remap::units::SpareIndex;
use crate::spares::Spares;

/// What there is to say of a spare that is not ready.
const NOT_READY: &str = "it has not been added to the set to the end";

/// All that can be found out about some spares by reading them.
pub struct Survey<'a> {
    /// The spares.
    pub spares: &'a Spares,
    /// What they are together.
    pub assembly: Result<Assembly<'a>, Refusal>,
    /// What the newest superblock says of the set; [`None`] when there is none.
    pub set: Option<Set>,
    /// What they hold.
    pub contents: Contents,
    /// What is not as it should be.
    pub findings: Vec<Finding>,
}

impl<'a> Survey<'a> {
    /// Reads the spares, for a main of `main` sectors, if that is known; with a bar on the terminal unless it is to be
    /// `quiet`.
    pub fn new(spares: &'a Spares, main: Option<Sectors>, quiet: bool) -> Self {
        let assembly = spares.assemble(main);
        let set = spares.newest().map(|superblock| superblock.set);
        let contents = match (set, &assembly) {
            // An activation makes the set anew, whatever is in the place of the slot pages.
            (None, _) | (_, Ok(Assembly::New(_))) => Contents::default(),
            (Some(set), _) => Contents::read(spares, &set, quiet),
        };
        let mut survey = Self {
            spares,
            assembly,
            set,
            contents,
            findings: Vec::new(),
        };
        match survey.assembly {
            _ if spares.present().all(|(_, spare)| spare.found == Ok(None)) => {
                survey.find(
                    Exit::Failed,
                    None,
                    "nothing there is a spare: all is zero".into(),
                );
            }
            Err(refusal) => survey.find(severity(&refusal), None, refusal.to_string()),
            Ok(Assembly::New(_)) => {
                let what = "the set was not made to the end, and holds nothing";
                survey.find(Exit::Mendable, None, what.into());
            }
            Ok(Assembly::Existing(existing)) => survey.examine(&existing),
        }
        survey.findings.append(&mut survey.contents.findings);
        survey
    }

    /// The worst that was found.
    pub fn exit(&self) -> Exit {
        let exits = self.findings.iter().map(|finding| finding.exit);
        exits.max().unwrap_or(Exit::Clean)
    }

    /// A finding as a sentence.
    pub fn sentence(&self, finding: &Finding) -> String {
        let what = &finding.what;
        match finding.spare.map(|index| (index, self.spares.get(index))) {
            Some((index, Some(spare))) => format!("{index} ({}): {what}", spare.device),
            Some((index, None)) => format!("{index}: {what}"),
            None => what.clone(),
        }
    }

    /// The set, when an activation would take the spares, or mend them and take them.
    ///
    /// # Errors
    ///
    /// The worst of what is wrong.
    pub fn usable(&self) -> Result<&Assembly<'a>, Failure> {
        let worst = self.findings.iter().max_by_key(|finding| finding.exit);
        match (worst, &self.assembly) {
            (Some(worst), _) if worst.exit > Exit::Mendable => Err(Failure {
                exit: worst.exit,
                sentence: self.sentence(worst),
            }),
            (_, Ok(assembly)) => Ok(assembly),
            (_, Err(refusal)) => Err((*refusal).into()),
        }
    }

    fn find(&mut self, exit: Exit, spare: Option<SpareIndex>, what: String) {
        self.findings.push(Finding { exit, spare, what });
    }

    /// Finds what an activation would bring up to date.
    fn examine(&mut self, existing: &Existing<'_>) {
        let spares = existing.set.spares;
        for (index, member) in spares.spares().zip(existing.members.iter().flatten()) {
            match member {
                Member::Missing { .. } => {}
                Member::Fresh(_) if self.is_blank(index) => {
                    let what = "it is no spare of the set yet: an activation with it adds it";
                    self.find(Exit::Failed, Some(index), what.into());
                }
                Member::Fresh(_) => {
                    self.find(Exit::Mendable, Some(index), NOT_READY.into());
                }
                Member::Ready {
                    superblock,
                    choice,
                    behind,
                } => {
                    self.examine_superblock(index, choice);
                    if *behind {
                        let what = match superblock.state {
                            State::Initialising => NOT_READY,
                            State::Ready => "its superblock is behind that of another spare",
                        };
                        self.find(Exit::Mendable, Some(index), what.into());
                    }
                    self.examine_marks(existing, index, superblock);
                }
            }
        }
    }

    /// Whether there is nothing on a spare.
    fn is_blank(&self, index: SpareIndex) -> bool {
        let spare = self.spares.get(index);
        spare.is_some_and(|spare| spare.found == Ok(None))
    }

    /// Finds a bad copy of a superblock.
    fn examine_superblock(&mut self, index: SpareIndex, choice: &Choice) {
        if !choice.repair() {
            return;
        }
        let end = choice.newest.other();
        let why = bad_copy(choice.other);
        let what = format!("{} copy of the superblock {why}", nth(end));
        self.find(Exit::Mendable, Some(index), what);
    }

    /// Finds marks that must grow.
    fn examine_marks(&mut self, existing: &Existing<'_>, index: SpareIndex, own: &Superblock) {
        if own.slot_mark < own.layout.slot_pages().min(FIRST_MARK) {
            let what = "its first slot pages are not all ready";
            self.find(Exit::Mendable, Some(index), what.into());
        }
        let witness = existing.set.spares.witness_of(index);
        let witness = witness.and_then(|witness| self.spares.get(witness)?.superblock());
        if let Some(witness) = witness.filter(|witness| witness.witness_mark < own.slot_mark) {
            let what = format!("not all witness pages of {index} are ready");
            self.find(Exit::Mendable, Some(witness.spare), what);
        }
    }
}
