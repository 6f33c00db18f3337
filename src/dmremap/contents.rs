// SPDX-License-Identifier: GPL-2.0

//! What the slot pages and witness pages of some spares hold.

use crate::exit::Exit;
use crate::progress;
use crate::remap::assembly::outdates;
use crate::remap::assembly::Refusal;
use crate::remap::assembly::MOST_OUTDATED;
use crate::remap::geometry::usable_size;
use crate::remap::geometry::End;
use crate::remap::geometry::PageNumber;
use crate::remap::page::choose;
use crate::remap::page::BothBad;
use crate::remap::page::Choice;
use crate::remap::page::Damage;
use crate::remap::page::Name;
use crate::remap::page::Other;
use crate::remap::page::Page;
use crate::remap::page::Sequence;
use crate::remap::page::Subject;
use crate::remap::records::Record;
use crate::remap::slot_page;
use crate::remap::slot_page::Extent;
use crate::remap::slot_page::Lifetime;
use crate::remap::slot_page::SlotEntry;
use crate::remap::superblock::Set;
use crate::remap::superblock::Superblock;
use crate::remap::units::Block;
use crate::remap::units::Slot;
use crate::remap::units::SpareIndex;
use crate::remap::units::MAX_SPARES;
use crate::spares::crc32c;
use crate::spares::Spare;
use crate::spares::Spares;
use indicatif::ProgressBar;
use std::collections::btree_map::Entry;
use std::collections::BTreeMap;
use std::fmt;

/// Something that is not as it should be.
pub struct Finding {
    /// How bad it is.
    pub exit: Exit,
    /// The spare that it is about, if it is about one.
    pub spare: Option<SpareIndex>,
    /// The rest of a sentence that begins with the spare.
    pub what: String,
}

/// A page that must be written again.
#[derive(Clone, Copy, Debug)]
pub enum Repair {
    /// The copy at this end, from the other one.
    SlotPage(SpareIndex, PageNumber, End),
    /// Both copies, and the witness page itself, from the witness page.
    FromWitness(WitnessPage, Sequence),
    /// The witness page, from the slot page.
    Witness(WitnessPage),
}

/// Which witness page.
#[derive(Clone, Copy, Debug)]
pub struct WitnessPage {
    /// The spare that has the slot page.
    pub spare: SpareIndex,
    /// The slot page.
    pub page: PageNumber,
    /// The spare that has the witness page: while the set grows, that need not be the one which has it in the end.
    pub on: SpareIndex,
}

/// What the slot pages and witness pages of some spares hold.
#[derive(Default)]
pub struct Contents {
    /// Where each relocated block is, as an activation would have it.
    pub blocks: BTreeMap<Block, (Slot, Record)>,
    /// Slots that hold an older entry of such a block.
    pub outdated: Vec<Slot>,
    /// Slots whose place is bad.
    pub retired: Vec<Slot>,
    /// How many blocks have ever moved, by the pages that count.
    pub lifetime: Lifetime,
    /// What must be written again.
    pub repairs: Vec<Repair>,
    /// The highest sequence number of a slot page of each spare, or of a witness page for it.
    pub sequences: [Option<Sequence>; MAX_SPARES],
    /// What is not as it should be.
    pub findings: Vec<Finding>,
}

impl Contents {
    /// Reads what the spares of the set `set` hold, and shows how far that has come unless it is to be `quiet`.
    pub fn read(spares: &Spares, set: &Set, quiet: bool) -> Self {
        let mut contents = Self::default();
        let members = || members(spares, set);
        let pages = members().map(|member| {
            let superblock = member.superblock;
            u64::from(superblock.slot_mark.0) + u64::from(superblock.witness_mark.0)
        });
        let bar = progress::bar(pages.sum(), quiet);
        for index in set.spares.spares() {
            let witness = set.spares.witness_of(index);
            let witness = witness.and_then(|witness| members().find(|it| it.index == witness));
            match (members().find(|it| it.index == index), witness) {
                (Some(member), witness) => contents.read_member(set, member, witness, &bar),
                (None, Some(witness)) if spares.get(index).is_none() => {
                    contents.read_witness(set, index, witness, &bar)
                }
                (None, _) => {}
            }
        }
        if contents.outdated.len() > MOST_OUTDATED {
            contents.find(Exit::Damaged, None, Refusal::TooManyOutdated);
        }
        bar.finish_and_clear();
        contents
    }

    /// Whether the same blocks are in the same slots, and the same slots are retired.
    pub fn same_slots(&self, other: &Self) -> bool {
        self.blocks == other.blocks && self.retired == other.retired
    }

    fn find(&mut self, exit: Exit, spare: impl Into<Option<SpareIndex>>, what: impl fmt::Display) {
        self.findings.push(Finding {
            exit,
            spare: spare.into(),
            what: what.to_string(),
        });
    }

    /// Reads the slot pages of a spare, and what its witness keeps of them.
    fn read_member(
        &mut self,
        set: &Set,
        member: Member<'_>,
        witness: Option<Member<'_>>,
        bar: &ProgressBar,
    ) {
        let Member {
            index,
            spare,
            superblock,
        } = member;
        for page in superblock.slot_mark.pages() {
            bar.inc(1);
            let name = set.name(index, Subject::Slots(page));
            let read = |end| {
                spare
                    .device
                    .read(superblock.layout.slot_page(page, end)?)
                    .ok()
            };
            let (front, back) = (read(End::Front), read(End::Back));
            let choice = choose(front.as_ref(), back.as_ref(), |page| {
                examine(page, &name, set)
            });
            let witnessed = witness.filter(|by| by.superblock.witness_mark.contains(page));
            let witnessed = witnessed.map(|by| Witnessed {
                spare: index,
                page,
                by,
            });
            let lone = witnessed
                .as_ref()
                .and_then(|it| Some((it.which(), it.lone(set, &choice)?)));
            if let Some((which, (newest, sequence))) = lone {
                self.repairs.push(Repair::FromWitness(which, sequence));
                let what = format!(
                    "what the copies of slot page {} say is older than its witness page",
                    page.get()
                );
                self.find(Exit::Mendable, index, what);
                self.saw(index, sequence);
                self.read_entries(set, index, page, &newest);
                bar.inc(1);
                continue;
            }
            let choice = match choice {
                Ok(choice) => choice,
                Err(bad) => {
                    let what = format!("slot page {} cannot be used: {bad}", page.get());
                    self.find(Exit::Damaged, index, what);
                    continue;
                }
            };
            let newest = match choice.newest {
                End::Front => front,
                End::Back => back,
            };
            if choice.repair() {
                let end = choice.newest.other();
                self.repairs.push(Repair::SlotPage(index, page, end));
                let why = bad_copy(choice.other);
                let what = format!("{} copy of slot page {} {why}", nth(end), page.get());
                self.find(Exit::Mendable, index, what);
            }
            self.saw(index, choice.sequence);
            let Some(newest) = newest else { continue };
            self.read_entries(set, index, page, &newest);
            if let Some(witnessed) = witnessed {
                bar.inc(1);
                self.compare_witness(set, witnessed, &newest, choice.sequence);
            }
        }
        let Some(by) = witness else { return };
        // These count when the spare is missing, although it has no such slot pages yet.
        let beyond = |page: &PageNumber| !superblock.slot_mark.contains(*page);
        for page in by.superblock.witness_mark.pages().filter(beyond) {
            bar.inc(1);
            let witnessed = Witnessed {
                spare: index,
                page,
                by,
            };
            match witnessed.read(set) {
                Err(damage) => self.repair_witness(&witnessed, &damage),
                Ok((_, sequence)) if sequence > Sequence::FIRST => {
                    // So it is not the spare that was used.
                    self.find(Exit::Damaged, None, Refusal::Contradiction(index));
                    return;
                }
                Ok(_) => {}
            }
        }
    }

    /// Compares the witness page of a slot page with that, which has the sequence number `sequence`.
    fn compare_witness(
        &mut self,
        set: &Set,
        witnessed: Witnessed<'_>,
        own: &Page,
        sequence: Sequence,
    ) {
        let why = match witnessed.read(set) {
            Err(damage) => damage.to_string(),
            Ok((_, theirs)) if theirs != sequence => {
                self.saw(witnessed.spare, theirs);
                "is of another time than the slot page".into()
            }
            Ok((page, _)) if !slot_page::same_content(&page, own) => {
                "says something else than the slot page".into()
            }
            Ok(_) => return,
        };
        self.repair_witness(&witnessed, &why);
    }

    /// Notes that a witness page must be written again.
    fn repair_witness(&mut self, witnessed: &Witnessed<'_>, why: &dyn fmt::Display) {
        let which = witnessed.which();
        self.repairs.push(Repair::Witness(which));
        let what = format!("witness page {} of {} {why}", which.page.get(), which.spare);
        self.find(Exit::Mendable, which.on, what);
    }

    /// Reads what a missing spare holds from its witness pages.
    fn read_witness(&mut self, set: &Set, missing: SpareIndex, by: Member<'_>, bar: &ProgressBar) {
        for page in by.superblock.witness_mark.pages() {
            bar.inc(1);
            let witnessed = Witnessed {
                spare: missing,
                page,
                by,
            };
            match witnessed.read(set) {
                Ok((read, _)) => self.read_entries(set, missing, page, &read),
                Err(damage) => {
                    let number = page.get();
                    let what =
                        format!("witness page {number}, which says what {missing} holds, {damage}");
                    self.find(Exit::Damaged, by.index, what);
                }
            }
        }
    }

    /// Takes over the entries of a good page.
    fn read_entries(&mut self, set: &Set, spare: SpareIndex, number: PageNumber, page: &Page) {
        self.lifetime.add(slot_page::moves(page));
        let slots = set.slots_of[spare.get()];
        for entry in slot_page::entries(page, number, slots, &extent(set)) {
            match entry {
                Err(damage) => {
                    let what = format!("slot page {} {damage}", number.get());
                    self.find(Exit::Damaged, spare, what);
                }
                Ok((_, SlotEntry::Free)) => {}
                Ok((slot, SlotEntry::Retired)) => self.retired.push(Slot::new(spare, slot)),
                Ok((slot, SlotEntry::InUse(record))) => self.occupy(Slot::new(spare, slot), record),
            }
        }
    }

    /// Takes over an entry in use.
    fn occupy(&mut self, slot: Slot, record: Record) {
        let mut known = match self.blocks.entry(record.block) {
            Entry::Vacant(place) => {
                place.insert((slot, record));
                return;
            }
            Entry::Occupied(known) => known,
        };
        let (other, before) = *known.get();
        let (exit, what, counts) = match outdates(&record, &before) {
            Ok(counts) => (
                Exit::Mendable,
                "an older entry of the block is there".into(),
                counts,
            ),
            Err(refusal) => (Exit::Damaged, refusal.to_string(), false),
        };
        let outdated = if counts {
            known.insert((slot, record));
            other
        } else {
            slot
        };
        self.outdated.push(outdated);
        let what = format!(
            "slot {} holds block {}: {what}",
            outdated.number().get(),
            record.block.0
        );
        self.find(exit, outdated.spare(), what);
    }

    /// Keeps the highest sequence number.
    fn saw(&mut self, spare: SpareIndex, sequence: Sequence) {
        let highest = &mut self.sequences[spare.get()];
        *highest = (*highest).max(Some(sequence));
    }
}

/// A spare that is a member of its set.
#[derive(Clone, Copy)]
struct Member<'a> {
    index: SpareIndex,
    spare: &'a Spare,
    superblock: &'a Superblock,
}

/// The spares that are members of the set `set`, and have the size that they should have.
fn members<'a>(spares: &'a Spares, set: &'a Set) -> impl Iterator<Item = Member<'a>> {
    spares.present().filter_map(|(index, spare)| {
        let superblock = spare.superblock()?;
        let size = usable_size(spare.device.sectors());
        let is_member =
            superblock.set.uuid == set.uuid && superblock.layout.parts().spare_sectors == size;
        is_member.then_some(Member {
            index,
            spare,
            superblock,
        })
    })
}

/// The witness page of slot page `page` of spare `spare`.
struct Witnessed<'a> {
    spare: SpareIndex,
    page: PageNumber,
    by: Member<'a>,
}

impl Witnessed<'_> {
    /// Which one it is.
    fn which(&self) -> WitnessPage {
        WitnessPage {
            spare: self.spare,
            page: self.page,
            on: self.by.index,
        }
    }

    /// Reads it.
    fn read(&self, set: &Set) -> Result<(Page, Sequence), Damage> {
        let name = set.name(self.spare, Subject::Witness(self.page));
        let place = self.by.superblock.layout.witness_page(self.page);
        let page = place.and_then(|place| self.by.spare.device.read(place).ok());
        let page = page.ok_or(Damage::Unreadable)?;
        Ok((page, examine(&page, &name, set)?))
    }

    /// Reads it if it counts in place of the copies, which were found to be such a `choice`.
    fn lone(&self, set: &Set, choice: &Result<Choice, BothBad>) -> Option<(Page, Sequence)> {
        if !slot_page::asks_witness(choice) {
            return None;
        }
        let counts =
            |(page, sequence): &(Page, _)| slot_page::witness_counts(choice, page, *sequence);
        self.read(set).ok().filter(counts)
    }
}

/// Checks all of a slot page or witness page.
fn examine(page: &Page, name: &Name, set: &Set) -> Result<Sequence, Damage> {
    let slots = set.slots_of[name.spare.get()];
    slot_page::examine(page, name, slots, &extent(set), crc32c)
}

/// What entries are checked against.
fn extent(set: &Set) -> Extent {
    Extent {
        block_size: set.block_size,
        main_sectors: set.main_sectors,
    }
}

/// What is wrong with a copy that does not count.
pub fn bad_copy(copy: Other) -> String {
    match copy {
        Other::Bad(damage) => damage.to_string(),
        Other::Older => "is older than the other one".into(),
        Other::Same => "is the same as the other one".into(),
    }
}

/// The words for one of two copies.
pub fn nth(end: End) -> &'static str {
    match end {
        End::Front => "the first",
        End::Back => "the second",
    }
}
