// SPDX-License-Identifier: GPL-2.0

//! Images of spares, and dmremap run on them.

use dm_remap_host::crc32c::crc32c;
use dm_remap_host::remap::geometry::superblock_place;
use dm_remap_host::remap::geometry::End;
use dm_remap_host::remap::geometry::EntryIndex;
use dm_remap_host::remap::geometry::PageCount;
use dm_remap_host::remap::geometry::PageNumber;
use dm_remap_host::remap::geometry::PAGE_BYTES;
use dm_remap_host::remap::health::Model;
use dm_remap_host::remap::page::check;
use dm_remap_host::remap::page::seal;
use dm_remap_host::remap::page::Name;
use dm_remap_host::remap::page::Page;
use dm_remap_host::remap::page::Sequence;
use dm_remap_host::remap::page::Subject;
use dm_remap_host::remap::records::Record;
use dm_remap_host::remap::slot_page;
use dm_remap_host::remap::slot_page::SlotEntry;
use dm_remap_host::remap::superblock;
use dm_remap_host::remap::superblock::State;
use dm_remap_host::remap::superblock::Superblock;
use dm_remap_host::remap::units::Block;
use dm_remap_host::remap::units::Cause;
use dm_remap_host::remap::units::LiveMask;
use dm_remap_host::remap::units::Sectors;
use dm_remap_host::remap::units::SlotNumber;
use dm_remap_host::remap::units::SpareIndex;
use dm_remap_host::remap::units::SpareSector;
use dm_remap_host::remap::units::UnixTime;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

/// The size of main.
pub const MAIN: u64 = 200_001;

/// The size of an image, in bytes: it has seven slot pages.
pub const SIZE: u64 = 5 << 20;

/// How a run of dmremap ended.
#[derive(Debug)]
pub struct Ended {
    pub status: i32,
    /// What it said.
    pub text: String,
}

/// Runs dmremap.
pub fn dmremap(arguments: &[&str]) -> Ended {
    let output = Command::new(env!("CARGO_BIN_EXE_dmremap"))
        .args(arguments)
        .output()
        .expect("it can be run");
    let text = [output.stdout, output.stderr].concat();
    Ended {
        status: output.status.code().expect("it ends by itself"),
        text: String::from_utf8(text).expect("it says text"),
    }
}

/// Images of spares.
pub struct Images {
    pub paths: Vec<PathBuf>,
}

impl Images {
    /// Images that are all zero.
    pub fn blank(count: usize) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Relaxed);
        // Nothing is slow to flush there.
        let folder = Path::new("/dev/shm").join(format!("dmremap-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).expect("there is room");
        let paths: Vec<_> = (0..count)
            .map(|at| folder.join(format!("spare{at}")))
            .collect();
        for path in &paths {
            let file = fs::File::create(path).expect("there is room");
            file.set_len(SIZE).expect("there is room");
        }
        Self { paths }
    }

    /// The spares of a new set.
    pub fn formatted(count: usize) -> Self {
        let images = Self::blank(count);
        let ended = images.run(&["format", "--main", &MAIN.to_string()]);
        assert_eq!(ended.status, 0, "{}", ended.text);
        images
    }

    /// The spares of a set with some blocks on each of them.
    pub fn with_blocks(count: usize) -> Self {
        let images = Self::formatted(count);
        for spare in 0..count {
            for at in 0..20 {
                let slot = at * 40;
                images.occupy(
                    spare,
                    slot as u32,
                    &record((spare * 1000 + at * 3) as u32, 100),
                );
            }
        }
        images
    }

    /// Runs dmremap with all of the images behind its arguments.
    pub fn run(&self, arguments: &[&str]) -> Ended {
        let paths = self
            .paths
            .iter()
            .map(|path| path.to_str().expect("it is text"));
        dmremap(&arguments.iter().copied().chain(paths).collect::<Vec<_>>())
    }

    /// The bytes of all images.
    pub fn bytes(&self) -> Vec<Vec<u8>> {
        self.paths
            .iter()
            .map(|path| fs::read(path).expect("it can be read"))
            .collect()
    }

    /// What `dump` shows of the set.
    pub fn dump(&self) -> Value {
        let ended = self.run(&["dump", "--format", "json"]);
        assert_eq!(ended.status, 0, "{}", ended.text);
        serde_json::from_str(&ended.text).expect("it is JSON")
    }

    /// Reads a page.
    pub fn read(&self, spare: usize, place: SpareSector) -> Page {
        let mut page = [0; PAGE_BYTES];
        let file = fs::File::open(&self.paths[spare]);
        let read = file.and_then(|file| file.read_exact_at(&mut page, place.0 * 512));
        read.expect("it can be read");
        page
    }

    /// Writes a page.
    pub fn write(&self, spare: usize, place: SpareSector, page: &Page) {
        let file = fs::File::options().write(true).open(&self.paths[spare]);
        let written = file.and_then(|file| file.write_all_at(page, place.0 * 512));
        written.expect("it can be written");
    }

    /// Where the superblock at an end is.
    pub fn superblock_place(&self, end: End) -> SpareSector {
        superblock_place(Sectors(SIZE / 512), end).expect("the image is large enough")
    }

    /// What the superblock of a spare says, and the page that it is on.
    pub fn superblock(&self, spare: usize) -> (Superblock, Page) {
        let page = self.read(spare, self.superblock_place(End::Front));
        (Superblock::decode(&page, crc32c).expect("it is good"), page)
    }

    /// Changes both copies of a superblock, under the sequence number that is the next after all others.
    pub fn change_superblock(&self, spare: usize, change: impl FnOnce(&mut Superblock)) {
        self.change_superblock_page(spare, change, |_| {});
    }

    /// Gives a spare another health model, in the same way.
    pub fn change_model(&self, spare: usize, model: [u8; Model::BYTES]) {
        self.change_superblock_page(spare, |_| {}, |page| superblock::set_model(page, model));
    }

    fn change_superblock_page(
        &self,
        spare: usize,
        change: impl FnOnce(&mut Superblock),
        change_page: impl FnOnce(&mut Page),
    ) {
        let all = (0..self.paths.len()).map(|spare| self.superblock(spare).0.sequence);
        let highest = all.max().expect("there is a spare");
        let (mut superblock, mut page) = self.superblock(spare);
        change(&mut superblock);
        superblock.sequence = highest.next().expect("the numbers are small");
        change_page(&mut page);
        superblock.encode(&mut page, crc32c);
        for end in [End::Front, End::Back] {
            self.write(spare, self.superblock_place(end), &page);
        }
    }

    /// Makes the last spare one that is counted by all others, and knows what the one before it holds, but is not ready.
    pub fn almost_added(&self) {
        self.change_superblock(0, |superblock| superblock.witness_mark = PageCount::ZERO);
        self.change_superblock(self.paths.len() - 1, |superblock| {
            superblock.state = State::Initialising;
            superblock.slot_mark = PageCount::ZERO;
        });
    }

    /// Where a copy of a slot page is.
    pub fn slot_page_place(&self, spare: usize, page: PageNumber, end: End) -> SpareSector {
        let layout = self.superblock(spare).0.layout;
        layout.slot_page(page, end).expect("there is such a page")
    }

    /// Where the witness page of a slot page is: on which spare, and where there.
    pub fn witness_place(&self, spare: usize, page: PageNumber) -> Option<(usize, SpareSector)> {
        let spares = self.superblock(spare).0.set.spares;
        let witness = spares.witness_of(index(spare))?.get();
        let layout = self.superblock(witness).0.layout;
        Some((
            witness,
            layout.witness_page(page).expect("there is such a page"),
        ))
    }

    /// Changes one copy of a slot page under the next sequence number.
    pub fn change_copy(
        &self,
        spare: usize,
        page: PageNumber,
        end: End,
        change: impl Fn(&mut Page),
    ) {
        let place = self.slot_page_place(spare, page, end);
        let next = self.next_page(spare, page, place, change);
        self.write(spare, place, &next);
    }

    /// A changed copy of a slot page under the next sequence number.
    fn next_page(
        &self,
        spare: usize,
        number: PageNumber,
        place: SpareSector,
        change: impl Fn(&mut Page),
    ) -> Page {
        let mut page = self.read(spare, place);
        let name = self.name(spare, Subject::Slots(number));
        let sequence = self.sequence(&page, spare, number);
        change(&mut page);
        seal(
            &mut page,
            &name,
            sequence.next().expect("the numbers are small"),
            crc32c,
        );
        page
    }

    /// Changes a slot page as a whole: both copies and the witness page.
    pub fn change_page(&self, spare: usize, page: PageNumber, change: impl Fn(&mut Page)) {
        for end in [End::Front, End::Back] {
            self.change_copy(spare, page, end, &change);
        }
        self.witness(spare, page);
    }

    /// Makes the witness page of a slot page what it should be.
    pub fn witness(&self, spare: usize, number: PageNumber) {
        if let Some((witness, place)) = self.witness_place(spare, number) {
            let mut page = self.read(spare, self.slot_page_place(spare, number, End::Front));
            let sequence = self.sequence(&page, spare, number);
            self.seal(&mut page, spare, Subject::Witness(number), sequence);
            self.write(witness, place, &page);
        }
    }

    /// Leaves the witness page as the only one that has the newest state of a slot page: the second copy is older, and the first one
    /// bad. Nothing happens when there is none, or no good copy.
    pub fn leave_alone(&self, spare: usize, number: PageNumber, change: impl Fn(&mut Page)) {
        let name = self.name(spare, Subject::Slots(number));
        let copies = [End::Front, End::Back].map(|end| self.slot_page_place(spare, number, end));
        let pages = copies.map(|place| self.read(spare, place));
        let good = pages
            .iter()
            .filter_map(|page| Some((check(page, &name, crc32c).ok()?, page)));
        let newest = good.max_by_key(|(sequence, _)| *sequence);
        let (Some((sequence, page)), Some((witness, place))) =
            (newest, self.witness_place(spare, number))
        else {
            return;
        };
        let mut page = *page;
        change(&mut page);
        slot_page::set_alone(&mut page, true);
        let next = sequence.next().expect("the numbers are small");
        self.seal(&mut page, spare, Subject::Witness(number), next);
        self.write(witness, place, &page);
        self.write(spare, copies[0], &[0xa5; PAGE_BYTES]);
    }

    /// The sequence number of a slot page.
    pub fn sequence(&self, page: &Page, spare: usize, number: PageNumber) -> Sequence {
        let name = self.name(spare, Subject::Slots(number));
        check(page, &name, crc32c).expect("it is good")
    }

    /// Completes a page that describes a spare.
    pub fn seal(&self, page: &mut Page, spare: usize, subject: Subject, sequence: Sequence) {
        seal(page, &self.name(spare, subject), sequence, crc32c);
    }

    fn name(&self, spare: usize, subject: Subject) -> Name {
        Name {
            uuid: self.superblock(spare).0.set.uuid,
            spare: index(spare),
            subject,
        }
    }

    /// Puts a block into a slot.
    pub fn occupy(&self, spare: usize, slot: u32, record: &Record) {
        let slot = SlotNumber::new(slot).expect("a test uses small numbers");
        self.change_page(spare, PageNumber::of(slot), |page| {
            set_entry(page, slot, record)
        });
    }
}

impl Drop for Images {
    fn drop(&mut self) {
        if let Some(folder) = self.paths.first().and_then(|path| path.parent()) {
            // What is left behind is in the way of nobody.
            let _ = fs::remove_dir_all(folder);
        }
    }
}

/// Puts an entry into the page of its slot.
pub fn set_entry(page: &mut Page, slot: SlotNumber, record: &Record) {
    slot_page::set_entry(page, EntryIndex::of(slot), SlotEntry::InUse(*record));
}

/// A record of a block that came at `time`.
pub fn record(block: u32, time: u32) -> Record {
    Record {
        block: Block(block),
        live: LiveMask(0xf7),
        time: UnixTime(time),
        cause: Cause::Write,
    }
}

pub fn index(spare: usize) -> SpareIndex {
    SpareIndex::new(spare).expect("a test has few spares")
}

pub fn page(number: u32) -> PageNumber {
    PageNumber::new(number).expect("a test uses small numbers")
}
