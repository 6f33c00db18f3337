// SPDX-License-Identifier: GPL-2.0

//! The metadata on the spares: making changes of it durable.
//!
//! `docs/metadata.md` has the format and the order of writes; [`activation`] reads it, and makes it where there is none.

mod activation;

pub(crate) use activation::activate;

use crate::block::device::BlockDevice;
use crate::block::device::Buffer;
use crate::dm::target::Live;
use crate::remap::geometry::End;
use crate::remap::geometry::EntryIndex;
use crate::remap::geometry::Layout;
use crate::remap::geometry::PageCount;
use crate::remap::geometry::PageNumber;
use crate::remap::geometry::PAGE_BYTES;
use crate::remap::geometry::PAGE_SECTORS;
use crate::remap::health::Model;
use crate::remap::options::Setting;
use crate::remap::page::check;
use crate::remap::page::seal;
use crate::remap::page::Damage;
use crate::remap::page::Page;
use crate::remap::page::Sequence;
use crate::remap::page::Subject;
use crate::remap::records::Records;
use crate::remap::slot_page;
use crate::remap::slot_page::Moves;
use crate::remap::slot_page::SlotEntry;
use crate::remap::superblock;
use crate::remap::superblock::Progress;
use crate::remap::superblock::Set;
use crate::remap::superblock::State;
use crate::remap::superblock::Superblock;
use crate::remap::units::Slot;
use crate::remap::units::SlotState;
use crate::remap::units::SpareIndex;
use crate::remap::units::MAX_SPARES;
use crate::sync::crc32c;
use crate::sync::zeroed;
use crate::table::Spares;
use crate::target::Remap;
use kernel::alloc::flags::GFP_ATOMIC;
use kernel::alloc::flags::__GFP_NOWARN;
use kernel::alloc::Flags;
use kernel::prelude::*;

/// How many slot pages are made ready at a time. Each step costs two superblocks and twice this many pages, once for ten
/// thousand relocations.
const MARK_STEP: u32 = 64;

/// What happens to the slots of a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Update {
    /// They get what their records say.
    Occupy,
    /// They become free.
    Free,
}

/// A slot that a section changes.
#[derive(Clone, Copy)]
pub(crate) struct Changed {
    /// The slot.
    pub(crate) slot: Slot,
    /// Whether a block comes to it from main, or goes back there: what only moves from one slot to another, or gets other live
    /// sectors, does not count.
    pub(crate) counts: bool,
}

/// What is known of a change after the attempt to make it durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is durable in both copies.
    Durable,
    /// It is durable, but a copy or a witness of it is not: no further change may be made.
    OneCopy,
    /// It was not made.
    NotMade,
    /// The same, because there was no memory for it: it may be made later.
    Starved,
    /// Either state may be found.
    InDoubt,
}

/// The metadata of a set that is in use.
pub(crate) struct Metadata {
    /// What all spares say.
    set: Set,
    /// The spares; [`None`] for one that is missing, and beyond the last one.
    members: [Option<KBox<Member>>; MAX_SPARES],
    /// The highest sequence number that a superblock of the set has, or that was tried.
    superblock_sequence: Option<Sequence>,
    /// The health model as it is on the spares, or is to be.
    model: [u8; Model::BYTES],
    /// Room for a page that is written.
    buffer: Buffer,
}

/// A spare that is there.
struct Member {
    /// What its superblock says.
    superblock: Superblock,
    /// The superblock as it is on the spare, with what belongs to features that are not known here.
    page: KBox<Page>,
    /// The highest sequence number that a slot page of the spare has, or that was tried.
    sequence: Option<Sequence>,
    /// How many blocks have moved, for each slot page up to the mark.
    moves: KVec<KBox<MovesOfPages>>,
}

/// What is known of slot pages that follow each other: as many as a kibibyte has room for.
type MovesOfPages = [Moves; PAGES_TOGETHER];

const PAGES_TOGETHER: usize = 1024 / core::mem::size_of::<Moves>();

impl Member {
    /// How many blocks have moved to and from the slots of a page.
    fn moves(&mut self, page: PageNumber) -> Result<&mut Moves> {
        let at = page.get().checked_sub(1).ok_or(EINVAL)? as usize;
        let together = self.moves.get_mut(at / PAGES_TOGETHER).ok_or(EINVAL)?;
        together.get_mut(at % PAGES_TOGETHER).ok_or(EINVAL)
    }

    /// Makes room for what is known of the pages up to `mark`.
    fn reserve(&mut self, mark: PageCount, flags: Flags) -> Result {
        while self.moves.len().saturating_mul(PAGES_TOGETHER) < mark.0 as usize {
            let together = KBox::new([Moves::default(); PAGES_TOGETHER], flags)?;
            self.moves.push(together, flags)?;
        }
        Ok(())
    }
}

impl Metadata {
    /// The metadata of a set without spares yet; `sequence` is the highest that a superblock has.
    fn new(set: Set, sequence: Option<Sequence>) -> Result<KBox<Self>> {
        let metadata = Self {
            set,
            members: [const { None }; MAX_SPARES],
            superblock_sequence: sequence,
            model: [0; Model::BYTES],
            buffer: Buffer::new(PAGE_BYTES)?,
        };
        Ok(KBox::new(metadata, GFP_KERNEL)?)
    }

    /// Adds a spare with the superblock that it has.
    fn insert(&mut self, spare: SpareIndex, superblock: Superblock, page: KBox<Page>) -> Result {
        let mut member = Member {
            superblock,
            page,
            sequence: None,
            moves: KVec::new(),
        };
        member.reserve(superblock.slot_mark, GFP_KERNEL)?;
        *self.members.get_mut(spare.get()).ok_or(EINVAL)? = Some(KBox::new(member, GFP_KERNEL)?);
        Ok(())
    }

    /// Adds a spare that has to be initialised.
    fn insert_fresh(&mut self, spare: SpareIndex, layout: Layout) -> Result {
        let superblock = Superblock {
            sequence: Sequence::FIRST,
            spare,
            state: State::Initialising,
            layout,
            slot_mark: PageCount::ZERO,
            witness_mark: PageCount::ZERO,
            set: self.set,
        };
        self.insert(spare, superblock, zeroed::boxed(GFP_KERNEL)?)
    }

    /// A spare that is there.
    fn member(&mut self, spare: SpareIndex) -> Result<&mut Member> {
        let member = self.members.get_mut(spare.get()).ok_or(EINVAL)?;
        member.as_deref_mut().ok_or(ENXIO)
    }

    /// Makes what the records say of some slots of a spare durable, or that they are free.
    ///
    /// The data of slots that become occupied must be stable.
    pub(crate) fn commit<I: Iterator<Item = Changed>>(
        &mut self,
        this: &Live<Remap>,
        records: &Spares,
        spare: SpareIndex,
        slots: impl Fn() -> I,
        update: Update,
    ) -> Outcome {
        let change = Change {
            this,
            records,
            spare,
            update,
        };
        let outcome = (self.commit_spare(&change, &slots)).unwrap_or(Outcome::NotMade);
        if matches!(outcome, Outcome::Durable | Outcome::OneCopy) {
            for page in pages_of(&slots) {
                let moves = change.moves(&slots, page);
                let counted = self.member(spare).and_then(|member| member.moves(page));
                // The page was written with them, so they are known.
                if let Ok(counted) = counted {
                    *counted = counted.and(moves);
                }
                this.counts.count(moves.into());
            }
        }
        outcome
    }

    /// Makes a change of the slots of one spare durable.
    ///
    /// # Errors
    ///
    /// Nothing was changed then.
    fn commit_spare<I: Iterator<Item = Changed>>(
        &mut self,
        change: &Change<'_>,
        slots: &impl Fn() -> I,
    ) -> Result<Outcome> {
        let pages = || pages_of(slots);
        if let Some(last) = pages().last() {
            let mark = self.mark_for(change.spare, last)?;
            // Requests may wait for this.
            let flags = GFP_ATOMIC | __GFP_NOWARN;
            if self.member(change.spare)?.reserve(mark, flags).is_err() {
                return Ok(Outcome::Starved);
            }
            self.make_ready(change.this, change.spare, last)?;
        }
        let member = self.member(change.spare)?;
        let sequence = next_sequence(member.sequence)?;
        // It counts as tried from now on, whatever comes.
        member.sequence = Some(sequence);
        let witness = self.witness(change.spare);
        if let Some(witness) = witness.filter(|_| change.update == Update::Occupy) {
            for page in pages() {
                self.write_witness(change, slots, page, sequence, (witness, false))?;
            }
        }
        let front = self.write_copies(change, slots, pages(), sequence, End::Front);
        // The second copies may be the only good ones now, and are not put at risk for nothing.
        if front.is_err() && self.is_as_before(change, &mut pages(), sequence) {
            return Ok(Outcome::NotMade);
        }
        let back = self.write_copies(change, slots, pages(), sequence, End::Back);
        let outcome = match (front, back) {
            (Ok(()), Ok(())) => Outcome::Durable,
            (Ok(()), Err(_)) | (Err(_), Ok(())) => Outcome::OneCopy,
            (Err(_), Err(_)) if self.is_as_before(change, &mut pages(), sequence) => {
                Outcome::NotMade
            }
            (Err(_), Err(_)) => Outcome::InDoubt,
        };
        // What only one copy has the witness says, too, so that it is not forgotten when that copy goes bad. What was freed it
        // forgets; as long as the entries may be found on the spare, it must have them.
        let alone = outcome == Outcome::OneCopy;
        let freed = change.update == Update::Free && outcome == Outcome::Durable;
        if let Some(witness) = witness.filter(|_| alone || freed) {
            // The witness may say more than the spare, but that must not last: no further change is made before the next
            // activation has brought it up to date.
            let mut written = Ok(());
            for page in pages() {
                let page = self.write_witness(change, slots, page, sequence, (witness, alone));
                written = written.and(page);
            }
            if written.is_err() {
                return Ok(Outcome::OneCopy);
            }
        }
        Ok(outcome)
    }

    /// Whether a spare has some pages still as they were before the attempt to write them under a sequence number, so that
    /// nobody will find what was tried: both copies can be read, as on a drive that has become read-only.
    fn is_as_before(
        &mut self,
        change: &Change<'_>,
        pages: &mut dyn Iterator<Item = PageNumber>,
        sequence: Sequence,
    ) -> bool {
        for page in pages {
            let found = [End::Front, End::Back].map(|end| self.reread(change, page, end));
            // A copy that is bad was torn, and will not be good again.
            let none_is_new = |found: &Result<Result<Sequence, Damage>>| matches!(found, Ok(found) if *found != Ok(sequence));
            let good = |found: &Result<_>| matches!(found, Ok(Ok(_)));
            if !found.iter().all(none_is_new) || !found.iter().any(good) {
                return false;
            }
        }
        true
    }

    /// Reads a copy of a page; returns its sequence number if it is good.
    fn reread(
        &mut self,
        change: &Change<'_>,
        page: PageNumber,
        end: End,
    ) -> Result<Result<Sequence, Damage>> {
        let device = change.this.spare_device(change.spare).ok_or(ENXIO)?;
        let layout = self.member(change.spare)?.superblock.layout;
        let place = layout.slot_page(page, end).ok_or(EINVAL)?;
        let name = self.set.name(change.spare, Subject::Slots(page));
        read_page(device, place.0, &mut self.buffer)?;
        Ok(check(page_in(&mut self.buffer)?, &name, crc32c))
    }

    /// The spare that keeps the witness pages of `spare`.
    fn witness(&self, spare: SpareIndex) -> Option<SpareIndex> {
        self.set.spares.witness_of(spare)
    }

    /// Writes one copy of some pages, and makes it stable.
    fn write_copies<I: Iterator<Item = Changed>>(
        &mut self,
        change: &Change<'_>,
        slots: &impl Fn() -> I,
        pages: impl Iterator<Item = PageNumber>,
        sequence: Sequence,
        end: End,
    ) -> Result {
        let device = change.this.spare_device(change.spare).ok_or(ENXIO)?;
        let layout = self.member(change.spare)?.superblock.layout;
        let mut written = Ok(());
        for page in pages {
            let place = layout.slot_page(page, end).ok_or(EINVAL)?;
            self.encode(change, slots, page, Subject::Slots(page), sequence)?;
            let page = device.write(place.0, &mut self.buffer.sectors(0, PAGE)?);
            written = written.and(page);
        }
        // Also when a page failed: the others must be stable before their other copies are begun.
        device.flush().and(written)
    }

    /// Writes the witness page of a slot page so that it is stable when this returns; `alone` as for [`slot_page::set_alone`].
    fn write_witness<I: Iterator<Item = Changed>>(
        &mut self,
        change: &Change<'_>,
        slots: &impl Fn() -> I,
        page: PageNumber,
        sequence: Sequence,
        (witness, alone): (SpareIndex, bool),
    ) -> Result {
        let device = change.this.spare_device(witness).ok_or(ENXIO)?;
        let layout = self.member(witness)?.superblock.layout;
        let place = layout.witness_page(page).ok_or(EINVAL)?;
        let subject = Subject::Witness(page);
        self.encode(change, slots, page, subject, sequence)?;
        if alone {
            let name = self.set.name(change.spare, subject);
            let page = page_in(&mut self.buffer)?;
            slot_page::set_alone(page, true);
            seal(page, &name, sequence, crc32c);
        }
        device.write_through(place.0, &mut self.buffer.sectors(0, PAGE)?)
    }

    /// Puts a slot page, or the witness page that is like it, into the buffer.
    fn encode<I: Iterator<Item = Changed>>(
        &mut self,
        change: &Change<'_>,
        slots: &impl Fn() -> I,
        number: PageNumber,
        subject: Subject,
        sequence: Sequence,
    ) -> Result {
        let name = self.set.name(change.spare, subject);
        let moves = (self.member(change.spare)?.moves(number)?).and(change.moves(slots, number));
        let page = page_in(&mut self.buffer)?;
        slot_page::clear(page);
        slot_page::set_moves(page, moves);
        for at in EntryIndex::all() {
            let Some(slot) = number.slot(at).map(|slot| Slot::new(change.spare, slot)) else {
                continue;
            };
            let entry = match change.records.state(slot) {
                SlotState::Free => continue,
                SlotState::Retired => SlotEntry::Retired,
                SlotState::InUse(_) => {
                    if change.update == Update::Free && slots().any(|freed| freed.slot == slot) {
                        continue;
                    }
                    SlotEntry::InUse(change.records.record(slot).ok_or(EINVAL)?)
                }
            };
            slot_page::set_entry(page, at, entry);
        }
        seal(page, &name, sequence, crc32c);
        Ok(())
    }

    /// Sees to it that slot page `page` of a spare has a good copy on it.
    fn make_ready(&mut self, this: &Live<Remap>, spare: SpareIndex, page: PageNumber) -> Result {
        let mark = self.member(spare)?.superblock.slot_mark;
        if mark.contains(page) {
            return Ok(());
        }
        let mark = self.mark_for(spare, page)?;
        self.raise_mark(this, spare, mark)
    }

    /// The mark that a spare has to have for a page.
    fn mark_for(&mut self, spare: SpareIndex, page: PageNumber) -> Result<PageCount> {
        let superblock = &self.member(spare)?.superblock;
        let mark = superblock.slot_mark;
        if mark.contains(page) {
            return Ok(mark);
        }
        let wanted = page.get().max(mark.0.saturating_add(MARK_STEP));
        Ok(PageCount(wanted).min(superblock.layout.slot_pages()))
    }

    /// Makes slot pages ready up to `mark`, and before they count their witness pages.
    fn raise_mark(&mut self, this: &Live<Remap>, spare: SpareIndex, mark: PageCount) -> Result {
        // A new spare that does not take its own ones can be replaced, as long as its witness has no mark.
        let old = self.member(spare)?.superblock;
        for end in [End::Front, End::Back] {
            for page in mark.pages().filter(|page| !old.slot_mark.contains(*page)) {
                let place = old.layout.slot_page(page, end).ok_or(EINVAL)?;
                self.write_empty(this, spare, Subject::Slots(page), spare, place.0)?;
            }
        }
        this.spare_device(spare).ok_or(ENXIO)?.flush()?;
        if let Some(witness) = self.witness(spare) {
            let old = self.member(witness)?.superblock;
            if old.witness_mark < mark {
                for page in mark
                    .pages()
                    .filter(|page| !old.witness_mark.contains(*page))
                {
                    let place = old.layout.witness_page(page).ok_or(EINVAL)?;
                    self.write_empty(this, spare, Subject::Witness(page), witness, place.0)?;
                }
                this.spare_device(witness).ok_or(ENXIO)?.flush()?;
                self.write_superblock(this, witness, |superblock| superblock.witness_mark = mark)?;
            }
        }
        let member = self.member(spare)?;
        member.sequence = member.sequence.max(Some(Sequence::FIRST));
        member.reserve(mark, GFP_ATOMIC | __GFP_NOWARN)?;
        self.write_superblock(this, spare, |superblock| superblock.slot_mark = mark)
    }

    /// Writes a page that describes only free slots of `spare` to `sector` of the spare `on`.
    fn write_empty(
        &mut self,
        this: &Live<Remap>,
        spare: SpareIndex,
        subject: Subject,
        on: SpareIndex,
        sector: u64,
    ) -> Result {
        let name = self.set.name(spare, subject);
        let page = page_in(&mut self.buffer)?;
        slot_page::clear(page);
        seal(page, &name, Sequence::FIRST, crc32c);
        let device = this.spare_device(on).ok_or(ENXIO)?;
        device.write(sector, &mut self.buffer.sectors(0, PAGE)?)
    }

    /// Changes the superblock of a spare, in both copies.
    ///
    /// # Errors
    ///
    /// When a copy could not be written: either state may be found, which is right for marks and options.
    fn write_superblock(
        &mut self,
        this: &Live<Remap>,
        spare: SpareIndex,
        change: impl FnOnce(&mut Superblock),
    ) -> Result {
        let sequence = next_sequence(self.superblock_sequence)?;
        self.superblock_sequence = Some(sequence);
        let set = self.set;
        let member = self
            .members
            .get_mut(spare.get())
            .and_then(Option::as_deref_mut);
        let member = member.ok_or(ENXIO)?;
        let mut superblock = member.superblock;
        let was_ready = superblock.state == State::Ready;
        change(&mut superblock);
        superblock.set = set;
        superblock.sequence = sequence;
        // The step from initialising to ready is in the first sector alone, so that no torn write of it looks like anything else.
        if was_ready {
            superblock::set_model(&mut member.page, self.model);
        }
        superblock.encode(&mut member.page, crc32c);
        member.superblock = superblock;
        let device = this.spare_device(spare).ok_or(ENXIO)?;
        page_in(&mut self.buffer)?.copy_from_slice(&*member.page);
        for end in [End::Front, End::Back] {
            let place = superblock.layout.superblock(end);
            device.write(place.0, &mut self.buffer.sectors(0, PAGE)?)?;
            device.flush()?;
        }
        Ok(())
    }

    /// Keeps another value of an option.
    pub(crate) fn set_option(&mut self, this: &Live<Remap>, setting: Setting) -> Result {
        self.set.options = self.set.options.with(setting);
        self.write_superblocks(this)
    }

    /// Keeps how far the background pass has come, and what the health model has learned, unless that is known already.
    pub(crate) fn save_progress(
        &mut self,
        this: &Live<Remap>,
        progress: Progress,
        model: Option<[u8; Model::BYTES]>,
    ) -> Result {
        if self.set.progress == progress && model.is_none() {
            return Ok(());
        }
        self.set.progress = progress;
        self.model = model.unwrap_or(self.model);
        self.write_superblocks(this)
    }

    /// Takes over the health model of the set.
    fn find_model(&mut self) {
        let members = self.members.iter().flatten();
        let superblocks = members.map(|member| (&member.superblock, &*member.page));
        self.model = superblock::newest_model(superblocks).unwrap_or(self.model);
    }

    /// Writes the superblocks of all spares, after what they say of the set has changed.
    fn write_superblocks(&mut self, this: &Live<Remap>) -> Result {
        let mut spares = self.set.spares.spares();
        spares.try_for_each(|spare| self.write_superblock(this, spare, |_| {}))
    }
}

/// A change of some slots of one spare.
struct Change<'a> {
    this: &'a Live<Remap>,
    records: &'a Spares,
    spare: SpareIndex,
    update: Update,
}

impl Change<'_> {
    /// How many blocks move to and from the slots of one page.
    fn moves<I: Iterator<Item = Changed>>(
        &self,
        slots: &impl Fn() -> I,
        page: PageNumber,
    ) -> Moves {
        let counted = slots()
            .filter(|changed| changed.counts && PageNumber::of(changed.slot.number()) == page);
        let moves = counted.map(
            |changed| match (self.update, self.records.state(changed.slot)) {
                (Update::Occupy, SlotState::InUse(cause)) => Moves::relocation(cause),
                (Update::Occupy, _) => Moves::default(),
                (Update::Free, _) => Moves::REMOVAL,
            },
        );
        moves.fold(Moves::default(), Moves::and)
    }
}

/// The sectors of a page, as a number for [`Buffer::sectors`].
const PAGE: usize = PAGE_SECTORS.0 as usize;

/// The pages that describe some slots of one spare, each of them once, in ascending order.
fn pages_of<'a, I: Iterator<Item = Changed>>(
    slots: &'a impl Fn() -> I,
) -> impl Iterator<Item = PageNumber> + 'a {
    let pages = || slots().map(|changed| PageNumber::of(changed.slot.number()));
    core::iter::successors(pages().min(), move |last| {
        pages().filter(|page| page > last).min()
    })
}

/// The page that a buffer has room for.
fn page_in(buffer: &mut Buffer) -> Result<&mut Page> {
    buffer.first_chunk_mut::<PAGE_BYTES>().ok_or(EINVAL)
}

/// The sequence number after `last`, or the first one.
fn next_sequence(last: Option<Sequence>) -> Result<Sequence> {
    match last {
        Some(last) => last.next().ok_or(EOVERFLOW),
        None => Ok(Sequence::FIRST),
    }
}

/// Reads a page.
fn read_page(device: &BlockDevice, sector: u64, buffer: &mut Buffer) -> Result {
    device.read(sector, &mut buffer.sectors(0, PAGE)?)
}
