// SPDX-License-Identifier: GPL-2.0

//! The subcommand `repair`.

use crate::contents::Contents;
use crate::contents::Repair as Page;
use crate::contents::WitnessPage;
use crate::device::Access;
use crate::exit::Exit;
use crate::exit::Failure;
use crate::remap::assembly::Assembly;
use crate::remap::assembly::Existing;
use crate::remap::assembly::Member;
use crate::remap::assembly::New;
use crate::remap::geometry::End;
use crate::remap::geometry::EntryIndex;
use crate::remap::geometry::PageCount;
use crate::remap::geometry::PageNumber;
use crate::remap::page;
use crate::remap::page::Sequence;
use crate::remap::page::Subject;
use crate::remap::slot_page;
use crate::remap::slot_page::SlotEntry;
use crate::remap::superblock::State;
use crate::remap::units::SpareIndex;
use crate::remap::units::SpareSector;
use crate::say;
use crate::spares::crc32c;
use crate::spares::Spares;
use crate::survey::Survey;
use crate::writer::next_sequence;
use crate::writer::Writer;
use clap::Args;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Mends what an activation would mend, and refuses what it would refuse.
///
/// Ends with 0 when there was nothing to mend, and with 1 when all was mended.
#[derive(Args)]
pub struct Repair {
    /// All spares of a set
    #[arg(required = true, value_name = "SPARE")]
    spares: Vec<PathBuf>,

    /// Only say what would be mended
    #[arg(short = 'n', long)]
    dry_run: bool,
}

impl Repair {
    /// Does it.
    pub fn run(&self) -> Result<Exit, Failure> {
        let access = if self.dry_run {
            Access::Read
        } else {
            Access::Write
        };
        let (exit, held) = {
            let spares = Spares::open(&self.spares, access)?;
            let survey = Survey::new(&spares, None, false);
            let mending = Mending::new(&survey)?;
            for finding in &survey.findings {
                say!("{}", survey.sentence(finding));
            }
            if !self.dry_run && survey.exit() == Exit::Mendable {
                mending.run()?;
            }
            (survey.exit(), survey.contents)
        };
        if self.dry_run || exit == Exit::Clean {
            return Ok(exit);
        }
        let spares = Spares::open(&self.spares, Access::Read)?;
        let survey = Survey::new(&spares, None, false);
        match survey.exit() {
            Exit::Clean if survey.contents.same_slots(&held) => Ok(exit),
            Exit::Clean => Err(Failure {
                exit: Exit::Damaged,
                sentence: "other blocks are relocated than before the repair: a spare does not keep what it is given".into(),
            }),
            worse => Err(Failure {
                exit: worse.max(Exit::Damaged),
                sentence: "what was written does not read back: see `dmremap check`".into(),
            }),
        }
    }
}

/// What has to be done.
struct Mending<'a> {
    survey: &'a Survey<'a>,
    /// A set that was not made to the end has to be made, when this is [`None`].
    existing: Option<&'a Existing<'a>>,
    writer: Writer<'a>,
}

impl<'a> Mending<'a> {
    /// Finds out what has to be done, and writes nothing.
    fn new(survey: &'a Survey<'a>) -> Result<Self, Failure> {
        let (existing, writer) = match survey.usable()? {
            Assembly::New(new) => (None, begun_set(survey, new)?),
            Assembly::Existing(existing) => (Some(existing), existing_set(survey, existing)?),
        };
        Ok(Self {
            survey,
            existing,
            writer,
        })
    }

    /// Does it.
    fn run(mut self) -> Result<(), Failure> {
        match self.existing {
            None => self.writer.make_set(),
            Some(existing) => {
                let (survey, writer) = (self.survey, self.writer);
                let update = Update {
                    survey,
                    existing,
                    writer,
                };
                update.run()
            }
        }
    }
}

/// A set of which the making was begun.
fn begun_set<'a>(survey: &'a Survey<'a>, new: &New) -> Result<Writer<'a>, Failure> {
    let begun = survey
        .set
        .ok_or_else(|| Failure::new("there is no good superblock"))?;
    let set = new.set(begun.main_sectors, begun.main_id, begun.uuid, begun.created);
    let mut writer = Writer::new(survey.spares, set, new.sequence);
    for layout in new.layouts.into_iter().flatten() {
        writer.add_fresh(layout);
    }
    Ok(writer)
}

/// A set that was made, and of which all spares are there.
fn existing_set<'a>(
    survey: &'a Survey<'a>,
    existing: &Existing<'_>,
) -> Result<Writer<'a>, Failure> {
    let mut writer = Writer::new(survey.spares, existing.set, Some(existing.sequence));
    for (index, member) in members(existing) {
        match member {
            Member::Missing { .. } => {
                return Err(Failure::new(format!(
                    "{index} is missing, and meanwhile nothing may be written: name all spares of the set"
                )));
            }
            Member::Fresh(layout) => writer.add_fresh(*layout),
            Member::Ready {
                superblock, choice, ..
            } => {
                let page = writer.spare(index)?.superblock_page(choice.newest);
                writer.add(**superblock, page.ok_or_else(|| unreadable(index))?);
            }
        }
    }
    writer.find_model();
    Ok(writer)
}

/// A set that has to be brought up to date.
struct Update<'a> {
    survey: &'a Survey<'a>,
    existing: &'a Existing<'a>,
    writer: Writer<'a>,
}

impl<'a> Update<'a> {
    /// Brings it up to date, in the order in which an activation does.
    fn run(mut self) -> Result<(), Failure> {
        // What was read may be in the cache of the drive only, and is to be what a bad copy is made from.
        self.flush_all()?;
        self.copy_superblocks()?;
        self.copy_slot_pages()?;
        self.flush_all()?;
        self.try_superblocks()?;
        if members(self.existing).any(|(_, member)| matches!(member, Member::Fresh(_))) {
            self.writer.begin_adding()?;
        }
        self.begin_fresh()?;
        self.update_superblocks()?;
        for index in self.writer.indexes() {
            if self.writer.superblock(index).state == State::Initialising {
                self.writer
                    .write_superblock(index, |superblock| superblock.state = State::Ready)?;
            }
        }
        self.mend_witnesses()?;
        self.free_outdated()?;
        self.writer.raise_marks()
    }

    fn flush_all(&self) -> Result<(), Failure> {
        self.writer
            .indexes()
            .try_for_each(|index| self.writer.flush(index))
    }

    /// Writes the bad copies of superblocks again.
    fn copy_superblocks(&self) -> Result<(), Failure> {
        for (index, member) in members(self.existing) {
            if let Member::Ready {
                superblock, choice, ..
            } = member
            {
                if choice.repair() {
                    let page = self.writer.spare(index)?.superblock_page(choice.newest);
                    let place = superblock.layout.superblock(choice.newest.other());
                    let page = page.ok_or_else(|| unreadable(index))?;
                    self.writer.write(index, Some(place), &page)?;
                }
            }
        }
        Ok(())
    }

    /// Writes the bad copies of slot pages again.
    fn copy_slot_pages(&self) -> Result<(), Failure> {
        for repair in &self.contents().repairs {
            let place = |index, page, end| {
                let layout = self.writer.superblock(index).layout;
                layout.slot_page(page, end)
            };
            match *repair {
                Page::SlotPage(index, page, end) => {
                    let (good, _) = self.slot_page(index, page, end.other())?;
                    self.writer.write(index, place(index, page, end), &good)?;
                }
                Page::FromWitness(witness, sequence) => {
                    let WitnessPage { spare, page, .. } = witness;
                    let newest = self.witnessed_page(witness, sequence)?;
                    let place = |end| place(spare, page, end);
                    self.writer.write_both(spare, place, &newest)?;
                }
                Page::Witness(_) => {}
            }
        }
        Ok(())
    }

    /// Writes the superblocks as they are, before any of them counts a spare that is being added: one that cannot be written
    /// must be found while the set can be used without that.
    fn try_superblocks(&self) -> Result<(), Failure> {
        if self.existing.added.is_none() {
            return Ok(());
        }
        for (index, member) in members(self.existing) {
            if let Member::Ready {
                superblock, choice, ..
            } = member
            {
                let page = self.writer.spare(index)?.superblock_page(choice.newest);
                let page = page.ok_or_else(|| unreadable(index))?;
                let place = |end| Some(superblock.layout.superblock(end));
                self.writer.write_both(index, place, &page)?;
            }
        }
        Ok(())
    }

    /// Gives spares that join the set their superblock, and the witness pages of the spare before.
    fn begin_fresh(&mut self) -> Result<(), Failure> {
        for (index, member) in members(self.existing) {
            if !matches!(member, Member::Fresh(_)) {
                continue;
            }
            self.writer.write_superblock(index, |_| {})?;
            let before = self
                .writer
                .indexes()
                .find(|it| self.writer.witness_of(*it) == Some(index));
            if let Some(before) = before {
                let mark = self.writer.superblock(before).slot_mark;
                self.write_witnesses(before, mark.pages())?;
                self.writer
                    .write_superblock(index, |superblock| superblock.witness_mark = mark)?;
            }
        }
        Ok(())
    }

    /// Writes the superblocks again that say something old of the set.
    fn update_superblocks(&mut self) -> Result<(), Failure> {
        let added = self.existing.added;
        let witnessed = added.and_then(|added| self.writer.witness_of(added));
        for (index, member) in members(self.existing) {
            if matches!(member, Member::Ready { behind: true, .. }) {
                self.writer.write_superblock(index, |superblock| {
                    if witnessed == Some(index) {
                        superblock.witness_mark = PageCount::ZERO;
                    }
                })?;
            }
        }
        Ok(())
    }

    /// Writes witness pages again that are bad or behind, and those that the witness has not got yet.
    fn mend_witnesses(&mut self) -> Result<(), Failure> {
        for index in self.writer.indexes() {
            let Some(witness) = self.writer.witness_of(index) else {
                return Ok(());
            };
            // A spare that has just become the witness got all of the pages.
            let repairs = self
                .contents()
                .repairs
                .iter()
                .filter_map(|repair| match *repair {
                    Page::Witness(it) | Page::FromWitness(it, _)
                        if (it.spare, it.on) == (index, witness) =>
                    {
                        Some(it.page)
                    }
                    _ => None,
                });
            let (mark, old) = (
                self.writer.superblock(index).slot_mark,
                self.writer.superblock(witness).witness_mark,
            );
            let missing = mark.pages().filter(|page| !old.contains(*page));
            self.write_witnesses(index, repairs.chain(missing))?;
            if old < mark {
                self.writer
                    .write_superblock(witness, |superblock| superblock.witness_mark = mark)?;
            }
        }
        Ok(())
    }

    /// Makes witness pages from the slot pages of a spare that they stand for.
    fn write_witnesses(
        &self,
        index: SpareIndex,
        pages: impl Iterator<Item = PageNumber>,
    ) -> Result<(), Failure> {
        let Some(witness) = self.writer.witness_of(index) else {
            return Ok(());
        };
        let superblock = self.writer.superblock(index);
        let layout = self.writer.superblock(witness).layout;
        for number in pages {
            let subject = Subject::Witness(number);
            let page = if superblock.slot_mark.contains(number) {
                let (mut page, sequence) = self.slot_page(index, number, End::Front)?;
                self.writer.seal(&mut page, index, subject, sequence);
                page
            } else {
                self.writer.empty(index, subject)
            };
            self.writer
                .write(witness, layout.witness_page(number), &page)?;
        }
        self.writer.flush(witness)
    }

    /// Frees the slots that hold an older entry of a block.
    fn free_outdated(&self) -> Result<(), Failure> {
        let mut pages: BTreeMap<SpareIndex, BTreeMap<PageNumber, Vec<EntryIndex>>> =
            BTreeMap::new();
        for slot in &self.contents().outdated {
            let pages = pages.entry(slot.spare()).or_default();
            let entries = pages.entry(PageNumber::of(slot.number())).or_default();
            entries.push(EntryIndex::of(slot.number()));
        }
        for (index, pages) in pages {
            let sequence = next_sequence(self.contents().sequences[index.get()])?;
            let mut changed = Vec::new();
            for (&number, entries) in &pages {
                let (mut page, _) = self.slot_page(index, number, End::Front)?;
                for &at in entries {
                    slot_page::set_entry(&mut page, at, SlotEntry::Free);
                }
                self.writer
                    .seal(&mut page, index, Subject::Slots(number), sequence);
                changed.push((number, page));
            }
            let layout = self.writer.superblock(index).layout;
            for end in [End::Front, End::Back] {
                for (number, page) in &changed {
                    self.writer
                        .write(index, layout.slot_page(*number, end), page)?;
                }
                self.writer.flush(index)?;
            }
            self.write_witnesses(index, pages.into_keys())?;
        }
        Ok(())
    }

    /// Reads a copy of a slot page, which was good before; a drive that fails may give something else now.
    fn slot_page(
        &self,
        index: SpareIndex,
        number: PageNumber,
        end: End,
    ) -> Result<(page::Page, Sequence), Failure> {
        let subject = Subject::Slots(number);
        let place = self.writer.superblock(index).layout.slot_page(number, end);
        self.page(index, (index, place), subject)
    }

    /// Makes a slot page from the witness page of it that counts, which was found with this number.
    fn witnessed_page(
        &self,
        witness: WitnessPage,
        number: Sequence,
    ) -> Result<page::Page, Failure> {
        let WitnessPage { spare, page, on } = witness;
        let place = self.writer.superblock(on).layout.witness_page(page);
        let (mut newest, sequence) = self.page(spare, (on, place), Subject::Witness(page))?;
        if sequence != number || !slot_page::is_alone(&newest) {
            return Err(unreadable(on));
        }
        slot_page::set_alone(&mut newest, false);
        self.writer
            .seal(&mut newest, spare, Subject::Slots(page), sequence);
        Ok(newest)
    }

    /// Reads a page that describes a spare, at a place on the same spare or on another one.
    fn page(
        &self,
        describes: SpareIndex,
        (on, place): (SpareIndex, Option<SpareSector>),
        subject: Subject,
    ) -> Result<(page::Page, Sequence), Failure> {
        let name = self.existing.set.name(describes, subject);
        let device = &self.writer.spare(on)?.device;
        let page = place.and_then(|place| device.read(place).ok());
        let page = page.ok_or_else(|| unreadable(on))?;
        let sequence = page::check(&page, &name, crc32c).map_err(|_| unreadable(on))?;
        Ok((page, sequence))
    }

    fn contents(&self) -> &'a Contents {
        &self.survey.contents
    }
}

/// The spares of a set with what they are.
fn members<'e, 'f>(
    existing: &'e Existing<'f>,
) -> impl Iterator<Item = (SpareIndex, &'e Member<'f>)> + use<'e, 'f> {
    let spares = existing.set.spares.spares();
    spares.zip(existing.members.iter().flatten())
}

/// A page was good and cannot be read any more.
fn unreadable(index: SpareIndex) -> Failure {
    Failure::new(format!("{index} cannot be read any more"))
}
