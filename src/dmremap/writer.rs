// SPDX-License-Identifier: GPL-2.0

//! Writing the metadata of a set that no device uses, in the order of `docs/metadata.md`.

use crate::exit::Failure;
use crate::remap::geometry::End;
use crate::remap::geometry::Layout;
use crate::remap::geometry::PageCount;
use crate::remap::geometry::FIRST_MARK;
use crate::remap::geometry::PAGE_BYTES;
use crate::remap::health::Model;
use crate::remap::page::seal;
use crate::remap::page::Name;
use crate::remap::page::Page;
use crate::remap::page::Sequence;
use crate::remap::page::Subject;
use crate::remap::slot_page;
use crate::remap::superblock;
use crate::remap::superblock::Set;
use crate::remap::superblock::State;
use crate::remap::superblock::Superblock;
use crate::remap::units::SpareIndex;
use crate::remap::units::SpareSector;
use crate::spares::crc32c;
use crate::spares::Spare;
use crate::spares::Spares;
use std::io;

/// The metadata of a set, all spares of which are there.
pub struct Writer<'a> {
    spares: &'a Spares,
    set: Set,
    /// The highest sequence number that a superblock of the set has, or that was tried.
    sequence: Option<Sequence>,
    /// The health model of the set.
    model: [u8; Model::BYTES],
    /// What each spare has, in their order.
    members: Vec<Member>,
}

/// A superblock, and the page that it is on.
struct Member {
    superblock: Superblock,
    page: Page,
}

impl<'a> Writer<'a> {
    /// A set without spares yet; `sequence` is the highest that a superblock has.
    pub fn new(spares: &'a Spares, set: Set, sequence: Option<Sequence>) -> Self {
        Self {
            spares,
            set,
            sequence,
            model: [0; Model::BYTES],
            members: Vec::new(),
        }
    }

    /// Leaves out the sequence numbers that nobody gets before a spare is added.
    pub fn begin_adding(&mut self) -> Result<(), Failure> {
        let last = self.sequence.unwrap_or(Sequence::FIRST);
        let skipped = last.before_adding();
        self.sequence =
            Some(skipped.ok_or_else(|| Failure::new("there is no higher sequence number"))?);
        Ok(())
    }

    /// Makes the next spare one that has to be initialised.
    pub fn add_fresh(&mut self, layout: Layout) {
        // There are no more spares than indexes.
        let spare = SpareIndex::new(self.members.len()).unwrap_or(SpareIndex::FIRST);
        let superblock = Superblock {
            sequence: Sequence::FIRST,
            spare,
            state: State::Initialising,
            layout,
            slot_mark: PageCount::ZERO,
            witness_mark: PageCount::ZERO,
            set: self.set,
        };
        self.add(superblock, [0; PAGE_BYTES]);
    }

    /// Makes the next spare one that has this superblock, which is on `page`.
    pub fn add(&mut self, superblock: Superblock, page: Page) {
        self.members.push(Member { superblock, page });
    }

    /// Takes over the health model of the set.
    pub fn find_model(&mut self) {
        let members = self.members.iter();
        let superblocks = members.map(|member| (&member.superblock, &member.page));
        self.model = superblock::newest_model(superblocks).unwrap_or(self.model);
    }

    /// What a spare has.
    pub fn superblock(&self, index: SpareIndex) -> &Superblock {
        &self.members[index.get()].superblock
    }

    /// A spare.
    pub fn spare(&self, index: SpareIndex) -> Result<&'a Spare, Failure> {
        let spare = self.spares.get(index);
        spare.ok_or_else(|| Failure::new(format!("{index} is missing")))
    }

    /// All spares.
    pub fn indexes(&self) -> impl Iterator<Item = SpareIndex> {
        self.set.spares.spares()
    }

    /// The spare that keeps the witness pages of `index`.
    pub fn witness_of(&self, index: SpareIndex) -> Option<SpareIndex> {
        self.set.spares.witness_of(index)
    }

    /// Makes a new set: the spares were all [added](Self::add_fresh).
    pub fn make_set(&mut self) -> Result<(), Failure> {
        for index in self.indexes() {
            self.write_superblock(index, |_| {})?;
        }
        for index in self.indexes() {
            self.write_superblock(index, |superblock| superblock.state = State::Ready)?;
        }
        self.raise_marks()
    }

    /// Writes a page.
    pub fn write(
        &self,
        on: SpareIndex,
        place: Option<SpareSector>,
        page: &Page,
    ) -> Result<(), Failure> {
        let device = &self.spare(on)?.device;
        let none = || io::Error::other("its layout has no such page");
        let written = place
            .ok_or_else(none)
            .and_then(|place| device.write(place, page));
        written.map_err(|error| Failure::new(format!("{on} ({device}) cannot be written: {error}")))
    }

    /// Makes what was written to a spare stable.
    pub fn flush(&self, on: SpareIndex) -> Result<(), Failure> {
        let device = &self.spare(on)?.device;
        let flushed = device.flush();
        flushed.map_err(|error| Failure::new(format!("{on} ({device}) cannot be flushed: {error}")))
    }

    /// Writes a page to both of its places, the second one when the first is stable.
    pub fn write_both(
        &self,
        on: SpareIndex,
        place: impl Fn(End) -> Option<SpareSector>,
        page: &Page,
    ) -> Result<(), Failure> {
        for end in [End::Front, End::Back] {
            self.write(on, place(end), page)?;
            self.flush(on)?;
        }
        Ok(())
    }

    /// Changes the superblock of a spare, in both copies.
    pub fn write_superblock(
        &mut self,
        index: SpareIndex,
        change: impl FnOnce(&mut Superblock),
    ) -> Result<(), Failure> {
        let sequence = next_sequence(self.sequence)?;
        self.sequence = Some(sequence);
        let Member { superblock, page } = &mut self.members[index.get()];
        if superblock.state == State::Ready {
            superblock::set_model(page, self.model);
        }
        change(superblock);
        superblock.set = self.set;
        superblock.sequence = sequence;
        superblock.encode(page, crc32c);
        let Member { superblock, page } = &self.members[index.get()];
        self.write_both(index, |end| Some(superblock.layout.superblock(end)), page)
    }

    /// Makes the first slot pages of every spare ready.
    pub fn raise_marks(&mut self) -> Result<(), Failure> {
        for index in self.indexes() {
            let superblock = *self.superblock(index);
            let mark = superblock.layout.slot_pages().min(FIRST_MARK);
            if superblock.slot_mark < mark {
                self.raise_mark(index, mark)?;
            }
        }
        Ok(())
    }

    /// Makes slot pages ready up to `mark`, and before they count their witness pages.
    fn raise_mark(&mut self, index: SpareIndex, mark: PageCount) -> Result<(), Failure> {
        let old = *self.superblock(index);
        for end in [End::Front, End::Back] {
            for page in mark.pages().filter(|page| !old.slot_mark.contains(*page)) {
                let empty = self.empty(index, Subject::Slots(page));
                self.write(index, old.layout.slot_page(page, end), &empty)?;
            }
        }
        self.flush(index)?;
        if let Some(witness) = self.witness_of(index) {
            let old = *self.superblock(witness);
            if old.witness_mark < mark {
                for page in mark
                    .pages()
                    .filter(|page| !old.witness_mark.contains(*page))
                {
                    let empty = self.empty(index, Subject::Witness(page));
                    self.write(witness, old.layout.witness_page(page), &empty)?;
                }
                self.flush(witness)?;
                self.write_superblock(witness, |superblock| superblock.witness_mark = mark)?;
            }
        }
        self.write_superblock(index, |superblock| superblock.slot_mark = mark)
    }

    /// A page that describes only free slots.
    pub fn empty(&self, spare: SpareIndex, subject: Subject) -> Page {
        let mut page = [0; PAGE_BYTES];
        slot_page::clear(&mut page);
        self.seal(&mut page, spare, subject, Sequence::FIRST);
        page
    }

    /// Completes a page.
    pub fn seal(&self, page: &mut Page, spare: SpareIndex, subject: Subject, sequence: Sequence) {
        let uuid = self.set.uuid;
        let name = Name {
            uuid,
            spare,
            subject,
        };
        seal(page, &name, sequence, crc32c);
    }
}

/// The sequence number after `last`, or the first one.
pub fn next_sequence(last: Option<Sequence>) -> Result<Sequence, Failure> {
    match last {
        None => Ok(Sequence::FIRST),
        Some(last) => last
            .next()
            .ok_or_else(|| Failure::new("there is no sequence number left")),
    }
}
