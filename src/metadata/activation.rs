// SPDX-License-Identifier: GPL-2.0

//! From the devices of a table line to a table of relocated blocks.
//!
//! This runs when the device is about to get requests: the table that it had before, if any, has stopped to use the
//! spares then. Everything is checked before anything is written, and nothing is written for a read-only table, or while
//! a spare is missing, unless a copy of a page cannot be read.

use super::page_in;
use super::read_page;
use super::Changed;
use super::Metadata;
use super::Update;
use super::PAGE;
use crate::block::device::BlockDevice;
use crate::block::device::Buffer;
use crate::block::noio;
use crate::dm::target::Live;
use crate::relocator::now;
use crate::remap::assembly;
use crate::remap::assembly::assemble;
use crate::remap::assembly::outdates;
use crate::remap::assembly::Assembly;
use crate::remap::assembly::Existing;
use crate::remap::assembly::New;
use crate::remap::assembly::Place;
use crate::remap::assembly::Refusal;
use crate::remap::assembly::Wanted;
use crate::remap::assembly::MOST_OUTDATED;
use crate::remap::geometry::superblock_place;
use crate::remap::geometry::End;
use crate::remap::geometry::PageCount;
use crate::remap::geometry::PageNumber;
use crate::remap::geometry::FIRST_MARK;
use crate::remap::geometry::PAGE_BYTES;
use crate::remap::identity::MainId;
use crate::remap::identity::Uuid;
use crate::remap::page::check;
use crate::remap::page::choose;
use crate::remap::page::seal;
use crate::remap::page::BothBad;
use crate::remap::page::Choice;
use crate::remap::page::Damage;
use crate::remap::page::Name;
use crate::remap::page::Other;
use crate::remap::page::Page;
use crate::remap::page::Sequence;
use crate::remap::page::Subject;
use crate::remap::records::Records;
use crate::remap::slot_page;
use crate::remap::slot_page::Extent;
use crate::remap::slot_page::Lifetime;
use crate::remap::slot_page::Moves;
use crate::remap::slot_page::SlotEntry;
use crate::remap::superblock;
use crate::remap::superblock::Found;
use crate::remap::superblock::State;
use crate::remap::superblock::Superblock;
use crate::remap::superblock::Unusable;
use crate::remap::units::Sectors;
use crate::remap::units::Slot;
use crate::remap::units::SlotCount;
use crate::remap::units::SpareIndex;
use crate::remap::units::SpareSector;
use crate::remap::units::MAX_SPARES;
use crate::setup::MAIN;
use crate::status;
use crate::sync::crc32c;
use crate::sync::zeroed;
use crate::table::Spare;
use crate::table::Table;
use crate::target::Mode;
use crate::target::Remap;
use kernel::prelude::*;

/// How many bad pages the log names: there may be thousands on a spare that fails.
const MOST_TOLD: usize = 16;

/// How many pages are read at once.
const BATCH_PAGES: usize = 32;

/// Makes the device ready for requests: the first time this reads the metadata, later there is nothing to do, as
/// nobody else has written it.
///
/// # Errors
///
/// `EINVAL` when the spares must not be used, `EBUSY` when another device uses them; `ENOMEM`; the error of a read or
/// write. The log says why.
pub(crate) fn activate(this: &Live<Remap>) -> Result {
    try_to_activate(this).inspect_err(|error| {
        let why = match *error {
            // What is refused was told where it was found.
            e if e == EINVAL || e == EBUSY => return,
            e if e == ENOMEM => "there is not enough memory",
            _ => "metadata could not be read or written",
        };
        pr_err!("{}: activation failed because {why}\n", this.log_name());
    })
}

/// The same, where the log gets only what is refused.
fn try_to_activate(this: &Live<Remap>) -> Result {
    let _noio = noio::Scope::new();
    let mut relocator = this.relocator.lock();
    if relocator.metadata.is_none() {
        claim_devices(this)?;
        let mut found = KVec::with_capacity(MAX_SPARES, GFP_KERNEL)?;
        let mut activation = Activation::new(this)?;
        for spare in this.config.count.spares() {
            found.push(activation.read_superblock(spare), GFP_KERNEL)?;
        }
        let assembly = activation.assemble(&found)?;
        let block_size = match &assembly {
            Assembly::New(new) => new.block_size,
            Assembly::Existing(existing) => existing.set.block_size,
        };
        if block_size.sectors().0 < this.config.logical_sectors as u64 {
            return Err(refuse(
                this,
                format_args!(
                    "the set has a block_size of {} but main_dev or a spare_dev has logical blocks of {}: leave that \
                     device out",
                    block_size.sectors().0,
                    this.config.logical_sectors
                ),
            ));
        }
        let metadata = match assembly {
            Assembly::New(new) => activation.make_set(&new)?,
            Assembly::Existing(existing) => activation.join_set(&existing)?,
        };
        relocator.metadata = Some(metadata);
    }
    Ok(())
}

/// Makes sure that no other remap device uses main or a spare: each of them would overwrite what the other one has on a
/// spare, and not know where the other one has put the blocks of main.
fn claim_devices(this: &Live<Remap>) -> Result {
    let spares = this.config.count.spares();
    let spares = spares.filter_map(|spare| Some(("spare_dev", this.spare(spare)?)));
    let main = this.device(MAIN).map(|main| ("main_dev", main));
    for (argument, device) in Iterator::chain(main.into_iter(), spares) {
        this.claim(device).inspect_err(|_| {
            let name = device.name().to_str().unwrap_or_default();
            pr_err!(
                "{}: {argument} {name} is in use by another remap device\n",
                this.log_name()
            );
        })?;
    }
    Ok(())
}

/// Refuses the spares, with a sentence in the log.
fn refuse(this: &Live<Remap>, why: impl core::fmt::Display) -> Error {
    pr_err!("{}: {}\n", this.log_name(), format_args!("{why}"));
    EINVAL
}

/// Refuses the spares because of a slot page.
fn refuse_page(this: &Live<Remap>, spare: SpareIndex, page: PageNumber, bad: BothBad) -> Error {
    refuse(this, format_args!(
        "slot page {} of {spare} cannot be used ({bad}): nothing was changed; give a good copy of the spare, or \"-\" in its place if there are others",
        page.get()
    ))
}

/// A slot page, a copy of which could not be read, so that it may be found later, or which only the witness has.
struct Unsure {
    spare: SpareIndex,
    page: PageNumber,
    /// The copy that counts; [`None`] when it is the witness page.
    newest: Option<End>,
}

/// An activation under way.
struct Activation<'a> {
    this: &'a Live<Remap>,
    /// What is read at the front of a spare, or from a witness.
    front: Buffer,
    /// What is read at the back of a spare.
    back: Buffer,
    /// A witness page that may count.
    lone: Buffer,
    /// Copies of slot pages that must be written again from the other end.
    repairs: KVVec<(SpareIndex, PageNumber, End)>,
    /// Slot pages that may not be in doubt any more when the set is used.
    unsure: KVVec<Unsure>,
    /// Slots that hold an outdated entry.
    outdated: KVec<Slot>,
    /// Sectors of relocated blocks that could not be saved.
    unreadable: u64,
    /// How many blocks have moved.
    moved: Lifetime,
    /// How many bad pages the log was told of.
    told: usize,
}

impl<'a> Activation<'a> {
    fn new(this: &'a Live<Remap>) -> Result<Self> {
        Ok(Self {
            this,
            front: Buffer::new(BATCH_PAGES * PAGE_BYTES)?,
            back: Buffer::new(BATCH_PAGES * PAGE_BYTES)?,
            lone: Buffer::new(PAGE_BYTES)?,
            repairs: KVVec::new(),
            unsure: KVVec::new(),
            outdated: KVec::new(),
            unreadable: 0,
            moved: Lifetime::default(),
            told: 0,
        })
    }

    /// The device of a spare.
    fn device(&self, spare: SpareIndex) -> Result<&'a BlockDevice> {
        let this = self.this;
        this.spare_device(spare).ok_or(ENXIO)
    }

    /// Says in the log what is bad, as long as that has not been said of many pages.
    fn tell(&mut self, what: core::fmt::Arguments<'_>) {
        let name = self.this.log_name();
        match self.told {
            0..MOST_TOLD => pr_warn!("{name}: {what}\n"),
            MOST_TOLD => pr_warn!("{name}: more pages are bad, which the log does not name\n"),
            _ => {}
        }
        self.told = self.told.saturating_add(1);
    }

    /// Reads the two superblock pages of a spare.
    #[inline(never)]
    fn read_superblock(&mut self, spare: SpareIndex) -> Result<Option<Found>, Unusable> {
        let Ok(device) = self.device(spare) else {
            return Ok(None);
        };
        let size = Sectors(device.sectors());
        let read = |end, buffer: &mut Buffer| {
            let place = superblock_place(size, end).ok_or(EINVAL)?;
            read_page(device, place.0, buffer)
        };
        let front_read = read(End::Front, &mut self.front).is_ok();
        let back_read = read(End::Back, &mut self.back).is_ok();
        let front = self.front.first_chunk().filter(|_| front_read);
        let back = self.back.first_chunk().filter(|_| back_read);
        superblock::read(front, back, crc32c)
    }

    /// Finds out what the spares are together.
    #[inline(never)]
    fn assemble<'f>(&self, found: &'f [Result<Option<Found>, Unusable>]) -> Result<Assembly<'f>> {
        let config = &self.this.config;
        let mut places = KVec::with_capacity(MAX_SPARES, GFP_KERNEL)?;
        for (spare, found) in config.count.spares().zip(found) {
            let place = match self.device(spare) {
                Err(_) => Place::Missing,
                Ok(device) => Place::Device {
                    size: Sectors(device.sectors()),
                    found,
                },
            };
            places.push(place, GFP_KERNEL)?;
        }
        let wanted = Wanted {
            main_sectors: Sectors(self.this.main_device().ok_or(ENXIO)?.sectors()),
            default_block_size: config.default_block_size,
            block_size: config.features.block_size,
            main_id: config.features.main_id,
            uuid: config.features.uuid,
            read_only: config.read_only,
        };
        assemble(&places, &wanted).map_err(|refusal| refuse(self.this, refusal))
    }

    /// Makes a new set.
    #[inline(never)]
    fn make_set(&mut self, new: &New) -> Result<KBox<Metadata>> {
        let this = self.this;
        let main_sectors = Sectors(this.main_device().ok_or(ENXIO)?.sectors());
        let main_id = this.config.features.main_id.unwrap_or(MainId::NONE);
        let set = new.set(main_sectors, main_id, random_uuid(), now());
        let mut metadata = Metadata::new(set, new.sequence)?;
        for (spare, layout) in set.spares.spares().zip(new.layouts.iter().flatten()) {
            metadata.insert_fresh(spare, *layout)?;
        }
        for spare in set.spares.spares() {
            metadata.write_superblock(this, spare, |_| {})?;
        }
        for spare in set.spares.spares() {
            metadata.write_superblock(this, spare, |superblock| superblock.state = State::Ready)?;
        }
        let table = self.make_table(&metadata)?;
        self.raise_marks(&mut metadata)?;
        self.publish(table, &metadata);
        Ok(metadata)
    }

    /// Reads an existing set, and brings it up to date.
    #[inline(never)]
    fn join_set(&mut self, existing: &Existing<'_>) -> Result<KBox<Metadata>> {
        let this = self.this;
        let set = &existing.set;
        let mut metadata = Metadata::new(*set, Some(existing.sequence))?;
        for (spare, member) in set.spares.spares().zip(existing.members.iter().flatten()) {
            match member {
                assembly::Member::Missing { .. } => {}
                assembly::Member::Fresh(layout) => metadata.insert_fresh(spare, *layout)?,
                assembly::Member::Ready {
                    superblock, choice, ..
                } => {
                    let mut page = zeroed::boxed::<Page>(GFP_KERNEL)?;
                    let place = superblock.layout.superblock(choice.newest);
                    read_page(self.device(spare)?, place.0, &mut self.front)?;
                    *page = *self.front.first_chunk().ok_or(EINVAL)?;
                    superblock::Superblock::decode(&page, crc32c).map_err(|_| EIO)?;
                    metadata.insert(spare, **superblock, page)?;
                }
            }
        }
        metadata.find_model();
        let table = self.make_table(&metadata)?;
        let mut missing = false;
        for (spare, member) in set.spares.spares().zip(existing.members.iter().flatten()) {
            match member {
                assembly::Member::Missing { witness, .. } => {
                    missing = true;
                    self.load_from_witness(&mut metadata, &table, spare, *witness)?;
                }
                assembly::Member::Fresh(_) => {}
                assembly::Member::Ready { .. } => {
                    self.load(&mut metadata, &table, spare)?;
                    self.check_beyond_mark(&mut metadata, spare)?;
                }
            }
        }
        self.make_index(&table)?;
        let read_only = this.config.read_only;
        let mut ready = Ok(());
        if !read_only {
            ready = self.make_stable(existing);
            ready = ready.and(self.settle_unsure(&mut metadata)?);
        }
        if !read_only && !missing {
            ready = ready.and(self.repair_slot_pages(&mut metadata));
            ready = ready.and(self.repair_superblocks(&metadata, existing));
            ready = ready.and_then(|()| self.bring_up_to_date(&mut metadata, &table, existing));
        }
        if read_only || missing {
            this.set_mode_silently(Mode::ReadOnly);
        } else if let Err(error) = ready {
            let mut members = existing.members.iter().flatten();
            // What lacks memory can be tried again, and must not cost a set that is whole its mode.
            if error == ENOMEM || members.any(|m| matches!(m, assembly::Member::Fresh(_))) {
                return Err(error);
            }
            pr_err!(
                "{}: metadata could not be repaired: no block is relocated from now on\n",
                this.log_name()
            );
            this.set_mode_silently(Mode::ReadOnly);
        }
        // What could not be freed on the spares is no entry of the table all the same.
        for slot in core::mem::take(&mut self.outdated) {
            table.release(slot)?;
        }
        this.set_options(this.config.features.options(set.options));
        self.publish(table, &metadata);
        Ok(metadata)
    }

    /// Makes the index of all blocks that were found. Of two entries for a block the one with the later time counts; the
    /// other one is noted as outdated.
    ///
    /// This comes after the records, whose memory grows with pages that are really there: what a superblock says of their
    /// number proves nothing.
    #[inline(never)]
    fn make_index(&mut self, table: &Table) -> Result {
        let this = self.this;
        table.index_all(|known, found| {
            let record = |slot| table.spares.record(slot).ok_or(EINVAL);
            let (before, after) = (record(known)?, record(found)?);
            let found_counts =
                outdates(&after, &before).map_err(|refusal| refuse(this, refusal))?;
            let (counts, outdated) = if found_counts {
                (found, known)
            } else {
                (known, found)
            };
            if self.outdated.len() >= MOST_OUTDATED {
                return Err(refuse(this, Refusal::TooManyOutdated));
            }
            let dead = table.all_live(after.block).without(record(outdated)?.live);
            self.unreadable = self.unreadable.saturating_sub(dead.count().0);
            self.outdated.push(outdated, GFP_KERNEL)?;
            Ok(counts)
        })
    }

    /// Makes an empty table for a set.
    fn make_table(&self, metadata: &Metadata) -> Result<KBox<Table>> {
        let set = &metadata.set;
        let mut spares = KVec::with_capacity(set.spares.get(), GFP_KERNEL)?;
        for (spare, slots) in set.spares.spares().zip(set.slots_of) {
            let member = metadata.members.get(spare.get()).and_then(Option::as_deref);
            let data_start = member.map(|member| member.superblock.layout.data_start());
            spares.push(Spare::new(spare, slots, data_start)?, GFP_KERNEL)?;
        }
        // What lies behind the end of the table line is none of this device's business. Device mapper has seen to it that a
        // table line is as long as whole logical blocks.
        let main = set.main_sectors.min(Sectors(self.this.sectors()));
        let logical = self.this.config.logical_sectors as u64;
        let rest = set.main_sectors.0.checked_rem(logical).unwrap_or(0);
        let whole_main = Sectors(set.main_sectors.0.saturating_sub(rest));
        let table = Table::new(main, whole_main, set.block_size, spares)?;
        Ok(KBox::new(table, GFP_KERNEL)?)
    }

    /// Lets requests use the table.
    fn publish(&self, table: KBox<Table>, metadata: &Metadata) {
        pr_info!(
            "{}: set {} is active, {} of {} spare blocks are used\n",
            self.this.log_name(),
            format_args!("{}", metadata.set.uuid),
            table.spares.used(),
            table.spares.slots()
        );
        self.this.counts.count(self.moved);
        self.this.set_progress(metadata.set.progress);
        self.this.health.load(&metadata.model);
        status::reset_stats(self.this);
        self.this.set_table(table, self.unreadable);
    }

    /// Reads the slot pages of a spare into the table.
    #[inline(never)]
    fn load(&mut self, metadata: &mut Metadata, table: &Table, spare: SpareIndex) -> Result {
        let device = self.device(spare)?;
        let superblock = metadata.member(spare)?.superblock;
        let mut batch = Batches::new(superblock.slot_mark);
        while let Some((first, count)) = batch.next() {
            let place = |end, buffer: &mut Buffer| -> Result<bool> {
                let place = superblock.layout.slot_page(first, end).ok_or(EINVAL)?;
                Ok(device
                    .read(place.0, &mut buffer.sectors(0, count * PAGE)?)
                    .is_ok())
            };
            let both = place(End::Front, &mut self.front)? & place(End::Back, &mut self.back)?;
            for (at, page) in (0..count).zip(first.get()..) {
                let page = PageNumber::new(page).ok_or(EINVAL)?;
                let sequence = self.load_page(metadata, table, spare, page, at, both)?;
                let member = metadata.member(spare)?;
                member.sequence = member.sequence.max(Some(sequence));
            }
        }
        Ok(())
    }

    /// Refuses a spare when its witness has pages that were in use, but that spare never had: it is not the one that was used.
    fn check_beyond_mark(&mut self, metadata: &mut Metadata, spare: SpareIndex) -> Result {
        let mark = metadata.member(spare)?.superblock.slot_mark;
        let Some(witness) = self.present_witness(metadata, spare) else {
            return Ok(());
        };
        let superblock = metadata.member(witness)?.superblock;
        let beyond = |page: &PageNumber| !mark.contains(*page);
        // There is none, unless the making of these pages was interrupted.
        for page in superblock.witness_mark.pages().filter(beyond) {
            let name = metadata.set.name(spare, Subject::Witness(page));
            let place = superblock.layout.witness_page(page).ok_or(EINVAL)?;
            let read = read_page(self.device(witness)?, place.0, &mut self.front);
            let bytes = nth_page(&self.front, 0).filter(|_| read.is_ok());
            let sequence = bytes.and_then(|bytes| examine(bytes, &name, metadata).ok());
            if sequence > Some(Sequence::FIRST) {
                return Err(refuse(self.this, Refusal::Contradiction(spare)));
            }
        }
        Ok(())
    }

    /// Takes over slot page `page`, which is page `at` of the buffers when `both` were read.
    fn load_page(
        &mut self,
        metadata: &mut Metadata,
        table: &Table,
        spare: SpareIndex,
        page: PageNumber,
        at: usize,
        both: bool,
    ) -> Result<Sequence> {
        let name = metadata.set.name(spare, Subject::Slots(page));
        let (mut front_read, mut back_read) = (true, true);
        if !both {
            // A bad sector may be in another page of the batch, so this one is read by itself.
            let device = self.device(spare)?;
            let member = metadata.members.get(spare.get()).and_then(Option::as_deref);
            let layout = member.ok_or(EINVAL)?.superblock.layout;
            let read = |end, buffer: &mut Buffer| -> Result<bool> {
                let place = layout.slot_page(page, end).ok_or(EINVAL)?;
                Ok(device
                    .read(place.0, &mut buffer.sectors(at * PAGE, PAGE)?)
                    .is_ok())
            };
            front_read = read(End::Front, &mut self.front)?;
            back_read = read(End::Back, &mut self.back)?;
        }
        let front = nth_page(&self.front, at).filter(|_| front_read);
        let back = nth_page(&self.back, at).filter(|_| back_read);
        let this = self.this;
        let choice = if front == back {
            // Nearly always, so the entries are looked at only once: when they are taken over.
            let front = front.ok_or(Damage::Unreadable);
            let sequence = front.and_then(|front| slot_page::examine_head(front, &name, crc32c));
            let same = |sequence| Choice {
                newest: End::Front,
                sequence,
                other: Other::Same,
            };
            sequence.map(same).map_err(BothBad::alike)
        } else {
            choose(front, back, |page| examine(page, &name, metadata))
        };
        if let Some(sequence) = self.read_lone_witness(metadata, spare, page, at, &choice)? {
            self.tell(format_args!(
                "slot page {} of {spare}: what its copies say is older than its witness page, which is used",
                page.get()
            ));
            let moves = self.load_entries(metadata, table, spare, page, End::Front, at)?;
            *metadata.member(spare)?.moves(page)? = moves;
            let unsure = Unsure {
                spare,
                page,
                newest: None,
            };
            self.unsure.push(unsure, GFP_KERNEL)?;
            return Ok(sequence);
        }
        let choice = choice.map_err(|bad| refuse_page(this, spare, page, bad))?;
        let newest = choice.newest;
        if choice.is_unsure() {
            let unsure = Unsure {
                spare,
                page,
                newest: Some(newest),
            };
            self.unsure.push(unsure, GFP_KERNEL)?;
        } else if choice.repair() {
            self.repairs
                .push((spare, page, newest.other()), GFP_KERNEL)?;
        }
        if let Other::Bad(damage) = choice.other {
            self.tell(format_args!(
                "slot page {} of {spare}: {} {damage}, {} is used",
                page.get(),
                copy(newest.other()),
                copy(newest)
            ));
        }
        let moves = self.load_entries(metadata, table, spare, page, newest, at)?;
        *metadata.member(spare)?.moves(page)? = moves;
        Ok(choice.sequence)
    }

    /// The spare that has the witness pages of another one: before a spare that joins the set has got its own, that is still the first
    /// one, where the ring ended. [`None`] when it is missing, or there is none.
    fn present_witness(&self, metadata: &Metadata, spare: SpareIndex) -> Option<SpareIndex> {
        let member = |spare: SpareIndex| metadata.members.get(spare.get())?.as_deref();
        let witness = metadata.witness(spare)?;
        let superblock = &member(witness)?.superblock;
        if superblock.state == State::Ready || superblock.witness_mark > PageCount::ZERO {
            return Some(witness);
        }
        let first = Some(SpareIndex::FIRST).filter(|first| *first != spare)?;
        member(first).map(|_| first)
    }

    /// Reads the witness page that counts in place of the copies of a slot page, if it does, as page `at` of the buffer for what is
    /// read at the front. Returns its sequence number.
    #[inline(never)]
    fn read_lone_witness(
        &mut self,
        metadata: &mut Metadata,
        spare: SpareIndex,
        page: PageNumber,
        at: usize,
        choice: &Result<Choice, BothBad>,
    ) -> Result<Option<Sequence>> {
        if !slot_page::asks_witness(choice) {
            return Ok(None);
        }
        let Some(witness) = self.present_witness(metadata, spare) else {
            return Ok(None);
        };
        let superblock = metadata.member(witness)?.superblock;
        if !superblock.witness_mark.contains(page) {
            return Ok(None);
        }
        let place = superblock.layout.witness_page(page).ok_or(EINVAL)?;
        let name = metadata.set.name(spare, Subject::Witness(page));
        let read = read_page(self.device(witness)?, place.0, &mut self.lone);
        let Some(bytes) = nth_page(&self.lone, 0).filter(|_| read.is_ok()) else {
            return Ok(None);
        };
        let found = examine(bytes, &name, metadata).ok();
        let counts = found.filter(|found| slot_page::witness_counts(choice, bytes, *found));
        if counts.is_some() {
            let place = self.front.get_mut(at.saturating_mul(PAGE_BYTES)..);
            let place = place.and_then(<[u8]>::first_chunk_mut::<PAGE_BYTES>);
            place.ok_or(EINVAL)?.copy_from_slice(bytes);
        }
        Ok(counts)
    }

    /// Takes over the entries of the good page `page` of `spare`, which is page `at` of one of the buffers. Returns how many
    /// blocks it says have moved.
    fn load_entries(
        &mut self,
        metadata: &Metadata,
        table: &Table,
        spare: SpareIndex,
        page: PageNumber,
        newest: End,
        at: usize,
    ) -> Result<Moves> {
        let buffer = match newest {
            End::Front => &self.front,
            End::Back => &self.back,
        };
        let bytes = nth_page(buffer, at).ok_or(EINVAL)?;
        let extent = extent(metadata);
        for entry in slot_page::entries(bytes, page, slots_of(metadata, spare), &extent) {
            // Of copies that differ, and of a witness page, the entries were examined before.
            let bad = |damage| refuse_page(self.this, spare, page, BothBad::alike(damage));
            let (number, entry) = entry.map_err(bad)?;
            let slot = Slot::new(spare, number);
            match entry {
                SlotEntry::Free => {}
                SlotEntry::Retired => table.retire(slot)?,
                SlotEntry::InUse(record) => {
                    table.occupy(slot, &record, GFP_KERNEL)?;
                    let dead = table.all_live(record.block).without(record.live);
                    self.unreadable = self.unreadable.saturating_add(dead.count().0);
                }
            }
        }
        let moves = slot_page::moves(bytes);
        self.moved.add(moves);
        Ok(moves)
    }

    /// Reads what a missing spare holds from its witness pages.
    #[inline(never)]
    fn load_from_witness(
        &mut self,
        metadata: &mut Metadata,
        table: &Table,
        spare: SpareIndex,
        witness: SpareIndex,
    ) -> Result {
        let device = self.device(witness)?;
        let superblock = metadata.member(witness)?.superblock;
        for page in superblock.witness_mark.pages() {
            let place = superblock.layout.witness_page(page).ok_or(EINVAL)?;
            let name = metadata.set.name(spare, Subject::Witness(page));
            let read = read_page(device, place.0, &mut self.front);
            let bytes = nth_page(&self.front, 0).filter(|_| read.is_ok());
            let good = bytes
                .ok_or(Damage::Unreadable)
                .and_then(|bytes| examine(bytes, &name, metadata));
            good.map_err(|damage| {
                refuse(self.this, format_args!(
                    "{spare} is missing, and page {} of {witness}, which says what it holds, {damage}: give the spare back",
                    page.get()
                ))
            })?;
            self.load_entries(metadata, table, spare, page, End::Front, 0)?;
        }
        Ok(())
    }

    /// Makes stable what was read, which may be in the caches of the drives only: bad copies are made from it, and requests go by
    /// it, which may be stable sooner.
    fn make_stable(&self, existing: &Existing<'_>) -> Result {
        let mut done = Ok(());
        for (spare, member) in metadata_spares(existing) {
            if matches!(member, assembly::Member::Ready { .. }) {
                done = done.and(self.device(spare)?.flush());
            }
        }
        done
    }

    /// Sees to it that no copy which could not be read is found later as one that is newer than what is used from now on: what is
    /// used gets a number that is higher. Fails when it could not be written to both ends.
    ///
    /// # Errors
    ///
    /// The outer one, which is told: such a copy may be found.
    #[inline(never)]
    fn settle_unsure(&mut self, metadata: &mut Metadata) -> Result<Result> {
        let mut whole = Ok(());
        for unsure in core::mem::take(&mut self.unsure) {
            let Unsure {
                spare,
                page,
                newest,
            } = unsure;
            let written = self.write_untried(metadata, &unsure)?;
            let done = written.iter().filter(|written| written.is_ok()).count();
            let [first, second] = written;
            whole = whole.and(first).and(second);
            match (done, newest) {
                (2, _) | (0, None) => {}
                (0, _) if written.contains(&Err(ENOMEM)) => return Err(ENOMEM),
                (1, _) => self.leave_alone(metadata, spare, page),
                (_, newest) => {
                    let unread = newest.map_or(End::Front, End::other);
                    return Err(refuse(self.this, format_args!(
                        "slot page {} of {spare}: {} can be neither read nor written, and may be the newer one: \
                         use a read-only table, or \"-\" in place of the spare if there are others",
                        page.get(),
                        copy(unread)
                    )));
                }
            }
        }
        Ok(whole)
    }

    /// Writes what counts as a slot page under a number that nobody can have tried, to both ends: first where it may not be yet.
    /// Returns what became of that. The copy that counts changes in its header only, which is in its first sector, so it is good
    /// at every instant.
    fn write_untried(&mut self, metadata: &mut Metadata, unsure: &Unsure) -> Result<[Result; 2]> {
        let Unsure {
            spare,
            page,
            newest,
        } = *unsure;
        let member = metadata.member(spare)?;
        let sequence = member.sequence.unwrap_or(Sequence::FIRST);
        let sequence = (sequence.untried(newest.unwrap_or(End::Front))).ok_or(EOVERFLOW)?;
        member.sequence = Some(sequence);
        let layout = member.superblock.layout;
        let (subject, on, place) = match newest {
            Some(end) => (Subject::Slots(page), spare, layout.slot_page(page, end)),
            None => {
                let witness = self.present_witness(metadata, spare).ok_or(EINVAL)?;
                let layout = metadata.member(witness)?.superblock.layout;
                (Subject::Witness(page), witness, layout.witness_page(page))
            }
        };
        let name = metadata.set.name(spare, subject);
        read_page(self.device(on)?, place.ok_or(EINVAL)?.0, &mut self.lone)?;
        let found = page_in(&mut self.lone)?;
        // It was good when it was read before; a drive that fails may give something else now.
        check(found, &name, crc32c).map_err(|_| EIO)?;
        let name = metadata.set.name(spare, Subject::Slots(page));
        slot_page::set_alone(found, false);
        seal(found, &name, sequence, crc32c);
        let device = self.device(spare)?;
        let first = newest.map_or(End::Front, End::other);
        Ok([first, first.other()].map(|end| {
            let place = layout.slot_page(page, end).ok_or(EINVAL)?;
            device.write_through(place.0, &mut self.lone.sectors(0, PAGE)?)
        }))
    }

    /// Has the witness say that it stands alone with the slot page that was just tried to write to both ends, as one of them
    /// may have something older that is good. If that fails, too, more than one spare fails.
    fn leave_alone(&mut self, metadata: &mut Metadata, spare: SpareIndex, page: PageNumber) {
        let mut leave = || -> Result {
            let Some(witness) = self.present_witness(metadata, spare) else {
                return Ok(());
            };
            let superblock = metadata.member(witness)?.superblock;
            if !superblock.witness_mark.contains(page) {
                return Ok(());
            }
            let name = metadata.set.name(spare, Subject::Slots(page));
            let found = page_in(&mut self.lone)?;
            let sequence = check(found, &name, crc32c).map_err(|_| EIO)?;
            let name = metadata.set.name(spare, Subject::Witness(page));
            slot_page::set_alone(found, true);
            seal(found, &name, sequence, crc32c);
            let place = superblock.layout.witness_page(page).ok_or(EINVAL)?;
            (self.device(witness)?).write_through(place.0, &mut self.lone.sectors(0, PAGE)?)
        };
        let _ = leave();
    }

    /// Writes bad and older copies of superblocks again, as many as can be. Fails when one could not be written.
    fn repair_superblocks(&mut self, metadata: &Metadata, existing: &Existing<'_>) -> Result {
        let mut done = Ok(());
        for (spare, member) in metadata_spares(existing) {
            if let assembly::Member::Ready {
                superblock, choice, ..
            } = member
            {
                if choice.repair() {
                    let from = superblock.layout.superblock(choice.newest);
                    let to = superblock.layout.superblock(choice.newest.other());
                    let name = metadata.set.name(spare, Subject::Superblock);
                    done = done.and(self.copy_page(&name, from, to));
                }
            }
        }
        done
    }

    /// Writes bad and older copies of slot pages again, as many as can be. Fails when one could not be written.
    #[inline(never)]
    fn repair_slot_pages(&mut self, metadata: &mut Metadata) -> Result {
        let mut done = Ok(());
        for (spare, page, end) in core::mem::take(&mut self.repairs) {
            let layout = metadata.member(spare)?.superblock.layout;
            let from = layout.slot_page(page, end.other()).ok_or(EINVAL)?;
            let to = layout.slot_page(page, end).ok_or(EINVAL)?;
            let name = metadata.set.name(spare, Subject::Slots(page));
            let copied = self.copy_page(&name, from, to);
            if copied.is_err() {
                self.leave_alone(metadata, spare, page);
            }
            done = done.and(copied);
        }
        done
    }

    /// Writes what else must be written before the set is used, when what was read is stable and whole.
    #[inline(never)]
    fn bring_up_to_date(
        &mut self,
        metadata: &mut Metadata,
        table: &Table,
        existing: &Existing<'_>,
    ) -> Result {
        let this = self.this;
        let members = || metadata_spares(existing);
        if existing.added.is_some() {
            self.try_superblocks(existing)?;
        }
        if members().any(|(_, member)| matches!(member, assembly::Member::Fresh(_))) {
            // Whoever was given up has lower numbers than those that count another one in its place.
            let skipped = existing.sequence.before_adding().ok_or(EOVERFLOW)?;
            metadata.superblock_sequence = metadata.superblock_sequence.max(Some(skipped));
        }
        for (spare, member) in members() {
            if matches!(member, assembly::Member::Fresh(_)) {
                metadata.write_superblock(this, spare, |_| {})?;
                self.write_witness_pages(metadata, spare)?;
            }
        }
        let added = existing.added;
        for (spare, member) in members() {
            if let assembly::Member::Ready { behind: true, .. } = member {
                let witnessed = added.and_then(|added| existing.set.spares.witness_of(added));
                metadata.write_superblock(this, spare, |superblock| {
                    if witnessed == Some(spare) {
                        superblock.witness_mark = PageCount::ZERO;
                    }
                })?;
            }
        }
        for spare in existing.set.spares.spares() {
            if metadata.member(spare)?.superblock.state == State::Initialising {
                metadata
                    .write_superblock(this, spare, |superblock| superblock.state = State::Ready)?;
            }
        }
        self.repair_witnesses(metadata)?;
        let outdated = core::mem::take(&mut self.outdated);
        for slot in outdated.iter() {
            table.release(*slot)?;
        }
        for spare in metadata.set.spares.spares() {
            let slots = || {
                let here = outdated.iter().filter(|slot| slot.spare() == spare);
                here.map(|slot| Changed {
                    slot: *slot,
                    counts: false,
                })
            };
            if slots().next().is_none() {
                continue;
            }
            match metadata.commit(this, &table.spares, spare, slots, Update::Free) {
                super::Outcome::Durable => {}
                super::Outcome::Starved => return Err(ENOMEM),
                _ => return Err(EIO),
            }
        }
        self.raise_marks(metadata)
    }

    /// Writes the superblocks of a set as they are, so that a spare that takes no writes is found before any other one counts
    /// a new spare: the set could be used neither with that nor without it.
    fn try_superblocks(&mut self, existing: &Existing<'_>) -> Result {
        for (spare, member) in metadata_spares(existing) {
            let assembly::Member::Ready { superblock, .. } = member else {
                continue;
            };
            let name = existing.set.name(spare, Subject::Superblock);
            // Both copies are the same by now.
            for end in [End::Front, End::Back] {
                let (from, to) = (end.other(), end);
                let place = |end| superblock.layout.superblock(end);
                self.copy_page(&name, place(from), place(to))
                    .inspect_err(|_| {
                        pr_err!(
                            "{}: {} does not take its superblock: no spare is added\n",
                            self.this.log_name(),
                            format_args!("{spare}")
                        );
                    })?;
            }
        }
        Ok(())
    }

    /// Gives a spare that joins the set the witness pages of the spare before it.
    fn write_witness_pages(&mut self, metadata: &mut Metadata, spare: SpareIndex) -> Result {
        let set = metadata.set;
        let mut spares = set.spares.spares();
        let Some(before) = spares.find(|other| set.spares.witness_of(*other) == Some(spare)) else {
            return Ok(());
        };
        let mark = metadata.member(before)?.superblock.slot_mark;
        for page in mark.pages() {
            let sequence = self.read_slot_page(metadata, before, page)?;
            self.write_witness_page(metadata, before, page, sequence)?;
        }
        self.device(spare)?.flush()?;
        metadata.write_superblock(self.this, spare, |superblock| {
            superblock.witness_mark = mark
        })
    }

    /// Reads a slot page, both copies of which are the same by now.
    fn read_slot_page(
        &mut self,
        metadata: &mut Metadata,
        spare: SpareIndex,
        page: PageNumber,
    ) -> Result<Sequence> {
        let name = metadata.set.name(spare, Subject::Slots(page));
        let layout = metadata.member(spare)?.superblock.layout;
        let place = layout.slot_page(page, End::Front).ok_or(EINVAL)?;
        read_page(self.device(spare)?, place.0, &mut self.front)?;
        check(page_in(&mut self.front)?, &name, crc32c).map_err(|_| EIO)
    }

    /// Makes a witness page of the slot page that was just read.
    fn write_witness_page(
        &mut self,
        metadata: &mut Metadata,
        spare: SpareIndex,
        page: PageNumber,
        sequence: Sequence,
    ) -> Result {
        let name = metadata.set.name(spare, Subject::Witness(page));
        seal(page_in(&mut self.front)?, &name, sequence, crc32c);
        let witness = metadata.witness(spare).ok_or(EINVAL)?;
        let layout = metadata.member(witness)?.superblock.layout;
        let place = layout.witness_page(page).ok_or(EINVAL)?;
        (self.device(witness)?).write_through(place.0, &mut self.front.sectors(0, PAGE)?)
    }

    /// Writes witness pages again that are bad, or say something else than the slot pages that they stand for.
    fn repair_witnesses(&mut self, metadata: &mut Metadata) -> Result {
        for spare in metadata.set.spares.spares() {
            let Some(witness) = metadata.witness(spare) else {
                return Ok(());
            };
            let superblock = metadata.member(witness)?.superblock;
            let mark = metadata.member(spare)?.superblock.slot_mark;
            for page in mark.pages() {
                let own = self.read_slot_page(metadata, spare, page)?;
                let place = superblock.layout.witness_page(page).ok_or(EINVAL)?;
                let name = metadata.set.name(spare, Subject::Witness(page));
                let read = read_page(self.device(witness)?, place.0, &mut self.back);
                let theirs = nth_page(&self.back, 0).filter(|_| read.is_ok());
                let theirs = theirs
                    .ok_or(Damage::Unreadable)
                    .and_then(|page| check(page, &name, crc32c));
                let same =
                    slot_page::same_content(page_in(&mut self.front)?, page_in(&mut self.back)?);
                if theirs == Ok(own) && same {
                    continue;
                }
                let alone = nth_page(&self.back, 0).is_some_and(slot_page::is_alone);
                // One that is ahead or behind is what a crash leaves.
                match theirs {
                    Ok(theirs) if theirs == own && !alone => self.tell(format_args!(
                        "witness page {} of {witness} contradicts the slot page of {spare}, which counts",
                        page.get()
                    )),
                    Err(damage) if superblock.witness_mark.contains(page) => self.tell(format_args!(
                        "witness page {} of {witness} {damage}, the slot page of {spare} counts",
                        page.get()
                    )),
                    _ => {}
                }
                self.write_witness_page(metadata, spare, page, own)?;
                // What a witness has was tried, whether or not the slot page has it.
                let member = metadata.member(spare)?;
                member.sequence = member.sequence.max(theirs.ok());
            }
            if superblock.witness_mark < mark {
                let raise = |superblock: &mut Superblock| superblock.witness_mark = mark;
                metadata.write_superblock(self.this, witness, raise)?;
            }
        }
        Ok(())
    }

    /// Makes the first slot pages of every spare ready.
    fn raise_marks(&self, metadata: &mut Metadata) -> Result {
        for spare in metadata.set.spares.spares() {
            let superblock = metadata.member(spare)?.superblock;
            let mark = superblock.layout.slot_pages().min(FIRST_MARK);
            if superblock.slot_mark < mark {
                // No request waits for this yet, so it need not do with what memory there is at once.
                metadata.member(spare)?.reserve(mark, GFP_KERNEL)?;
                metadata.raise_mark(self.this, spare, mark)?;
            }
        }
        Ok(())
    }

    /// Copies a good page of a spare to another place on it, and makes it stable.
    fn copy_page(&mut self, name: &Name, from: SpareSector, to: SpareSector) -> Result {
        let device = self.device(name.spare)?;
        read_page(device, from.0, &mut self.lone)?;
        // It was good when it was read before; a drive that fails may give something else now.
        check(page_in(&mut self.lone)?, name, crc32c).map_err(|_| EIO)?;
        device.write_through(to.0, &mut self.lone.sectors(0, PAGE)?)
    }
}

/// Checks all of a slot page or witness page.
fn examine(page: &Page, name: &Name, metadata: &Metadata) -> Result<Sequence, Damage> {
    let slots = slots_of(metadata, name.spare);
    slot_page::examine(page, name, slots, &extent(metadata), crc32c)
}

/// What entries are checked against.
fn extent(metadata: &Metadata) -> Extent {
    Extent {
        block_size: metadata.set.block_size,
        main_sectors: metadata.set.main_sectors,
    }
}

/// How many slots a spare has.
fn slots_of(metadata: &Metadata, spare: SpareIndex) -> SlotCount {
    let slots = metadata.set.slots_of.get(spare.get());
    slots.copied().unwrap_or_default()
}

/// The copy of a page at an end, in words.
fn copy(end: End) -> &'static str {
    match end {
        End::Front => "the first copy",
        End::Back => "the second copy",
    }
}

/// The spares of an existing set with what they are.
fn metadata_spares<'e, 'f>(
    existing: &'e Existing<'f>,
) -> impl Iterator<Item = (SpareIndex, &'e assembly::Member<'f>)> + use<'e, 'f> {
    existing
        .set
        .spares
        .spares()
        .zip(existing.members.iter().flatten())
}

/// Page `at` of a buffer.
fn nth_page(buffer: &Buffer, at: usize) -> Option<&Page> {
    buffer.get(at.checked_mul(PAGE_BYTES)?..)?.first_chunk()
}

/// A UUID that nobody else has.
fn random_uuid() -> Uuid {
    let mut bytes = [0; 16];
    for half in bytes.chunks_exact_mut(8) {
        half.copy_from_slice(&crate::sync::random().to_ne_bytes());
    }
    Uuid::from_random(bytes)
}

/// Pages 1 to a mark, so many at a time as a buffer holds.
struct Batches {
    next: u32,
    mark: PageCount,
}

impl Batches {
    fn new(mark: PageCount) -> Self {
        Self { next: 1, mark }
    }

    /// The first page of the next batch, and how many it has.
    fn next(&mut self) -> Option<(PageNumber, usize)> {
        let first = PageNumber::new(self.next).filter(|first| self.mark.contains(*first))?;
        let left = self.mark.0.saturating_sub(self.next).saturating_add(1);
        let count = left.min(BATCH_PAGES as u32);
        self.next = self.next.saturating_add(count);
        Some((first, count as usize))
    }
}
