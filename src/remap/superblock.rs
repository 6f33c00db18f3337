// SPDX-License-Identifier: GPL-2.0

//! Superblocks: what a spare says about itself and its set.
//!
//! The format is that of `docs/metadata.md`.

use core::fmt;

use super::geometry::End;
use super::geometry::Layout;
use super::geometry::PageCount;
use super::geometry::Parts;
use super::geometry::SpareCount;
use super::geometry::PAGE_BYTES;
use super::health::Model;
use super::identity::MainId;
use super::identity::Uuid;
use super::options::Options;
use super::options::ReadRetries;
use super::options::ScanInterval;
use super::options::ScanRate;
use super::page::is_zero;
use super::page::match_copies;
use super::page::open;
use super::page::put;
use super::page::seal;
use super::page::take;
use super::page::BothBad;
use super::page::Choice;
use super::page::Crc32c;
use super::page::Damage;
use super::page::Name;
use super::page::Page;
use super::page::Sequence;
use super::page::Subject;
use super::page::HEADER_BYTES;
use super::units::BlockSize;
use super::units::Sector;
use super::units::Sectors;
use super::units::SlotCount;
use super::units::SlotNumber;
use super::units::SpareIndex;
use super::units::SpareSector;
use super::units::UnixTime;
use super::units::MAX_SPARES;

const UNUSED_AT: usize = HEADER_BYTES;
const COMPAT_AT: usize = 64;
const RO_COMPAT_AT: usize = 72;
const INCOMPAT_AT: usize = 80;
const MAIN_SECTORS_AT: usize = 88;
const SPARE_SECTORS_AT: usize = 96;
const DATA_START_AT: usize = 104;
const CREATED_AT: usize = 112;
const BLOCK_SIZE_AT: usize = 120;
const STATE_AT: usize = 124;
const SPARES_AT: usize = 126;
const SLOTS_AT: usize = 128;
const SLOT_PAGES_AT: usize = 132;
const WITNESS_PAGES_AT: usize = 136;
const SLOT_MARK_AT: usize = 140;
const WITNESS_MARK_AT: usize = 144;
const AUTO_AT: usize = 148;
const SCAN_INTERVAL_AT: usize = 152;
const SCAN_RATE_AT: usize = 156;
const READ_RETRIES_AT: usize = 160;
const SLOTS_OF_AT: usize = 164;
const MAIN_ID_AT: usize = 224;
const SCAN_POSITION_AT: usize = 288;
const SCAN_PASSES_AT: usize = 296;
const SCAN_ERRORS_AT: usize = 304;
const SCAN_ENDED_AT: usize = 312;
const SCAN_PASS_AT: usize = 320;
const RESERVED_AT: usize = 324;
/// The health model, and room for a larger one.
const HEALTH_AT: usize = 512;
const HEALTH_END: usize = 1024;

/// Bytes of one number in the table of all spares' slots.
const SLOTS_OF_BYTES: usize = 4;

/// How far the initialisation of a spare has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It has begun and not ended: the spare holds nothing.
    Initialising,
    /// The spare is a member of its set.
    Ready,
}

impl State {
    /// The state, as the superblock has it.
    const fn code(self) -> u16 {
        match self {
            Self::Initialising => 1,
            Self::Ready => 2,
        }
    }

    /// The state that `code` stands for.
    const fn from_code(code: u16) -> Option<Self> {
        match code {
            1 => Some(Self::Initialising),
            2 => Some(Self::Ready),
            _ => None,
        }
    }
}

/// The health model that a superblock, which was found good, has: as [`Model::encode`] gives it, or zeroes.
pub fn model(page: &Page) -> [u8; Model::BYTES] {
    take(page, HEALTH_AT)
}

/// The health model that the newest of some superblocks has which has one: that of a spare that has just become ready has none. One
/// that is being initialised says nothing. [`None`] when none has one.
pub fn newest_model<'a>(
    superblocks: impl Iterator<Item = (&'a Superblock, &'a Page)>,
) -> Option<[u8; Model::BYTES]> {
    let ready = superblocks.filter(|(superblock, _)| superblock.state == State::Ready);
    let models = ready.map(|(superblock, page)| (superblock.sequence, model(page)));
    let known = models.filter(|(_, model)| *model != [0; Model::BYTES]);
    known
        .max_by_key(|(sequence, _)| *sequence)
        .map(|(_, model)| model)
}

/// Changes the health model in a superblock, which must be encoded afterwards.
pub fn set_model(page: &mut Page, model: [u8; Model::BYTES]) {
    put(page, HEALTH_AT, model);
}

/// What the background pass does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pass {
    /// Nothing: there is none.
    #[default]
    None,
    /// It reads.
    Running,
    /// It waits until it is told to go on.
    Paused,
}

impl Pass {
    /// The code that stands for it.
    pub const fn code(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Running => 1,
            Self::Paused => 2,
        }
    }

    /// What `code` stands for.
    const fn from_code(code: u32) -> Option<Self> {
        match code {
            0 => Some(Self::None),
            1 => Some(Self::Running),
            2 => Some(Self::Paused),
            _ => None,
        }
    }
}

/// How far the background pass has come, over all activations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// What the pass does.
    pub pass: Pass,
    /// Where on main the pass goes on.
    pub position: Sector,
    /// How many passes have ended.
    pub passes: u64,
    /// How many sectors passes have found weak or unreadable.
    pub errors: u64,
    /// When the last pass ended, or the set was made.
    pub ended: UnixTime,
}

/// What all spares of a set say alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Set {
    /// The name of the set.
    pub uuid: Uuid,
    /// The size of main.
    pub main_sectors: Sectors,
    /// The name of main, if one was given.
    pub main_id: MainId,
    /// The unit of relocation.
    pub block_size: BlockSize,
    /// When the set was made.
    pub created: UnixTime,
    /// The options in force.
    pub options: Options,
    /// How far the background pass has come.
    pub progress: Progress,
    /// The number of spares.
    pub spares: SpareCount,
    /// The number of slots of each spare; none beyond the last spare.
    pub slots_of: [SlotCount; MAX_SPARES],
}

impl Set {
    /// The name of the page that describes `subject` of `spare`.
    pub const fn name(&self, spare: SpareIndex, subject: Subject) -> Name {
        Name {
            uuid: self.uuid,
            spare,
            subject,
        }
    }
}

/// What a spare says about itself and its set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// The number of this writing: of all spares' superblocks the one with the highest has the
    /// newest [`Set`].
    pub sequence: Sequence,
    /// Which spare this is.
    pub spare: SpareIndex,
    /// How far its initialisation has come.
    pub state: State,
    /// Where everything on it is.
    pub layout: Layout,
    /// How many slot pages are good in at least one copy.
    pub slot_mark: PageCount,
    /// How many witness pages are good.
    pub witness_mark: PageCount,
    /// What it says about its set.
    pub set: Set,
}

impl Superblock {
    /// Writes this superblock into `page` and completes it.
    ///
    /// `page` must be all zero, or an earlier superblock of this spare: what that has for features
    /// that are not known here stays as it is.
    pub fn encode(&self, page: &mut Page, crc: Crc32c) {
        let parts = self.layout.parts();
        let set = &self.set;
        put(page, MAIN_SECTORS_AT, set.main_sectors.0.to_le_bytes());
        put(page, SPARE_SECTORS_AT, parts.spare_sectors.0.to_le_bytes());
        put(page, DATA_START_AT, parts.data_start.0.to_le_bytes());
        put(page, CREATED_AT, u64::from(set.created.0).to_le_bytes());
        // A block has at most 64 sectors.
        put(
            page,
            BLOCK_SIZE_AT,
            (set.block_size.sectors().0 as u32).to_le_bytes(),
        );
        put(page, STATE_AT, self.state.code().to_le_bytes());
        // There are at most 15 spares.
        put(page, SPARES_AT, (set.spares.get() as u16).to_le_bytes());
        put(page, SLOTS_AT, parts.slots.0.to_le_bytes());
        put(page, SLOT_PAGES_AT, parts.slot_pages.0.to_le_bytes());
        put(page, WITNESS_PAGES_AT, parts.witness_pages.0.to_le_bytes());
        put(page, SLOT_MARK_AT, self.slot_mark.0.to_le_bytes());
        put(page, WITNESS_MARK_AT, self.witness_mark.0.to_le_bytes());
        put(
            page,
            AUTO_AT,
            u32::from(set.options.automatic).to_le_bytes(),
        );
        put(
            page,
            SCAN_INTERVAL_AT,
            set.options.scan_interval.0.to_le_bytes(),
        );
        put(
            page,
            SCAN_RATE_AT,
            set.options.scan_rate.get().to_le_bytes(),
        );
        put(
            page,
            READ_RETRIES_AT,
            set.options.read_retries.get().to_le_bytes(),
        );
        for (at, slots) in slots_of_offsets().zip(set.slots_of) {
            put(page, at, slots.0.to_le_bytes());
        }
        put(page, MAIN_ID_AT, *set.main_id.bytes());
        let progress = &set.progress;
        put(page, SCAN_POSITION_AT, progress.position.0.to_le_bytes());
        put(page, SCAN_PASS_AT, progress.pass.code().to_le_bytes());
        put(page, SCAN_PASSES_AT, progress.passes.to_le_bytes());
        put(page, SCAN_ERRORS_AT, progress.errors.to_le_bytes());
        let ended = u64::from(progress.ended.0);
        put(page, SCAN_ENDED_AT, ended.to_le_bytes());
        let name = set.name(self.spare, Subject::Superblock);
        seal(page, &name, self.sequence, crc);
    }

    /// Reads a superblock.
    ///
    /// # Errors
    ///
    /// Why the page is not a good one.
    pub fn decode(page: &Page, crc: Crc32c) -> Result<Self, Damage> {
        let header = open(page, Subject::Superblock, crc)?;
        let incompatible = u64::from_le_bytes(take(page, INCOMPAT_AT));
        if incompatible != 0 {
            return Err(Damage::Incompatible(incompatible));
        }
        if !is_zero(page.get(UNUSED_AT..COMPAT_AT).unwrap_or_default()) {
            return Err(Damage::Content("reserved byte"));
        }
        let knows_all = take(page, COMPAT_AT) == [0; 8];
        let zero = |range| is_zero(page.get(range).unwrap_or_default());
        if knows_all && !(zero(RESERVED_AT..HEALTH_AT) && zero(HEALTH_END..PAGE_BYTES)) {
            return Err(Damage::Content("reserved byte"));
        }
        let state = State::from_code(u16_at(page, STATE_AT)).ok_or(Damage::Content("state"))?;
        if state == State::Initialising && !zero(HEALTH_AT..HEALTH_END) {
            return Err(Damage::Content("state of the health model"));
        }

        let block_size = BlockSize::new(Sectors(u32_at(page, BLOCK_SIZE_AT).into()))
            .ok_or(Damage::Content("block_size"))?;
        let layout = Layout::new(Parts {
            block_size,
            spare_sectors: Sectors(u64_at(page, SPARE_SECTORS_AT)),
            data_start: SpareSector(u64_at(page, DATA_START_AT)),
            slots: SlotCount(u32_at(page, SLOTS_AT)),
            slot_pages: PageCount(u32_at(page, SLOT_PAGES_AT)),
            witness_pages: PageCount(u32_at(page, WITNESS_PAGES_AT)),
        })
        .ok_or(Damage::Content("layout"))?;

        let main_sectors = Sectors(u64_at(page, MAIN_SECTORS_AT));
        if block_size.last_block(main_sectors).is_none() {
            return Err(Damage::Content("size of main"));
        }
        let spares = SpareCount::new(u16_at(page, SPARES_AT).into())
            .filter(|spares| spares.contains(header.spare))
            .ok_or(Damage::Content("number of spares"))?;
        let set = Set {
            uuid: header.uuid,
            main_sectors,
            main_id: MainId::from_bytes(take(page, MAIN_ID_AT))
                .ok_or(Damage::Content("main_id"))?,
            block_size,
            created: decode_time(page, CREATED_AT).ok_or(Damage::Content("time of creation"))?,
            options: decode_options(page)?,
            progress: decode_progress(page, main_sectors)?,
            spares,
            slots_of: decode_slots_of(page, spares)?,
        };
        if set.slots_of.get(header.spare.get()) != Some(&layout.slots()) {
            return Err(Damage::Content("number of slots"));
        }

        let superblock = Self {
            sequence: header.sequence,
            spare: header.spare,
            state,
            layout,
            slot_mark: PageCount(u32_at(page, SLOT_MARK_AT)),
            witness_mark: PageCount(u32_at(page, WITNESS_MARK_AT)),
            set,
        };
        if superblock.slot_mark > layout.slot_pages()
            || superblock.witness_mark > layout.witness_pages()
        {
            return Err(Damage::Content("mark"));
        }
        Ok(superblock)
    }
}

/// Reads the options.
fn decode_options(page: &Page) -> Result<Options, Damage> {
    Ok(Options {
        automatic: match u32_at(page, AUTO_AT) {
            0 => false,
            1 => true,
            _ => return Err(Damage::Content("auto")),
        },
        scan_interval: ScanInterval(u32_at(page, SCAN_INTERVAL_AT)),
        scan_rate: ScanRate::new(u32_at(page, SCAN_RATE_AT)).ok_or(Damage::Content("scan_rate"))?,
        read_retries: ReadRetries::new(u32_at(page, READ_RETRIES_AT))
            .ok_or(Damage::Content("read_retries"))?,
    })
}

/// Reads how far the background pass over a main of `main_sectors` has come.
fn decode_progress(page: &Page, main_sectors: Sectors) -> Result<Progress, Damage> {
    let position = Sector(u64_at(page, SCAN_POSITION_AT));
    if position.0 > main_sectors.0 {
        return Err(Damage::Content("position of the background pass"));
    }
    Ok(Progress {
        pass: Pass::from_code(u32_at(page, SCAN_PASS_AT))
            .ok_or(Damage::Content("state of the background pass"))?,
        position,
        passes: u64_at(page, SCAN_PASSES_AT),
        errors: u64_at(page, SCAN_ERRORS_AT),
        ended: decode_time(page, SCAN_ENDED_AT)
            .ok_or(Damage::Content("time of the background pass"))?,
    })
}

/// Reads the time at offset `at`; [`None`] when no time is so late.
fn decode_time(page: &Page, at: usize) -> Option<UnixTime> {
    u32::try_from(u64_at(page, at)).ok().map(UnixTime)
}

/// Reads the slots of each of the `spares` spares, and that there are no others.
fn decode_slots_of(page: &Page, spares: SpareCount) -> Result<[SlotCount; MAX_SPARES], Damage> {
    let mut slots_of = [SlotCount(0); MAX_SPARES];
    for ((index, slots), at) in slots_of.iter_mut().enumerate().zip(slots_of_offsets()) {
        *slots = SlotCount(u32_at(page, at));
        if (slots.0 != 0) != (index < spares.get()) || slots.0 > SlotNumber::MAX_COUNT {
            return Err(Damage::Content("number of slots of a spare"));
        }
    }
    Ok(slots_of)
}

/// Where the slots of each spare are.
fn slots_of_offsets() -> impl Iterator<Item = usize> {
    (SLOTS_OF_AT..MAIN_ID_AT).step_by(SLOTS_OF_BYTES)
}

/// The 16-bit number at offset `at`.
fn u16_at(page: &Page, at: usize) -> u16 {
    u16::from_le_bytes(take(page, at))
}

/// The 32-bit number at offset `at`.
fn u32_at(page: &Page, at: usize) -> u32 {
    u32::from_le_bytes(take(page, at))
}

/// The 64-bit number at offset `at`.
fn u64_at(page: &Page, at: usize) -> u64 {
    u64::from_le_bytes(take(page, at))
}

/// What the two superblock pages of a spare that is not blank say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The newer one of the good copies.
    pub superblock: Superblock,
    /// Where that was, and whether the other one must be repaired.
    pub choice: Choice,
    /// Features, as bits, that must be known to write to the set and are not known here.
    pub unknown_write_features: u64,
}

/// Why the two superblock pages of a spare cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// One of them comes from a newer dm-remap, so what it means is not known.
    TooNew(Damage),
    /// Neither is good, or they contradict each other.
    BothBad(BothBad),
    /// One says that the spare is being initialised, which begins on zeros only, but the other is
    /// something else.
    Overwritten(Damage),
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooNew(damage) => {
                write!(f, "its superblock {damage}: use a dm-remap that knows that")
            }
            // The usual case deserves a plain sentence: a device with somebody's data.
            Self::BothBad(bad) if bad.front == Damage::Magic || bad.back == Damage::Magic => f
                .write_str(
                    "it holds something that is not metadata of dm-remap: if nobody needs that, \
                     zero its first and last 4096 bytes",
                ),
            Self::BothBad(bad) => write!(
                f,
                "its superblock cannot be used ({bad}): restore it, or leave the spare out with \
                 \"-\"",
            ),
            Self::Overwritten(damage) => write!(
                f,
                "its initialisation was interrupted, and since then one copy of its superblock \
                 {damage}: if nobody needs what is there, zero its first and last 4096 bytes",
            ),
        }
    }
}

/// Reads the superblock of a spare from its two copies, either of which is [`None`] when it could
/// not be read; [`None`] when both are all zero, so that the spare may be initialised.
///
/// # Errors
///
/// Why nothing may be done with this spare.
pub fn read(
    front: Option<&Page>,
    back: Option<&Page>,
    crc: Crc32c,
) -> Result<Option<Found>, Unusable> {
    let examine = |page: Option<&Page>| Superblock::decode(page.ok_or(Damage::Unreadable)?, crc);
    let pages = (front, back);
    let (front, back) = (examine(front), examine(back));
    for copy in [&front, &back] {
        if let Err(damage @ (Damage::Version(_) | Damage::Incompatible(_))) = copy {
            return Err(Unusable::TooNew(*damage));
        }
    }
    match (front, back) {
        (Err(Damage::Zero), Err(Damage::Zero)) => return Ok(None),
        (Ok(one), Ok(other)) if (one.set.uuid, one.spare) != (other.set.uuid, other.spare) => {
            let damage = Damage::Misplaced;
            return Err(Unusable::BothBad(BothBad {
                front: damage,
                back: damage,
            }));
        }
        (Ok(one), Err(damage)) | (Err(damage), Ok(one))
            if one.state == State::Initialising && damage != Damage::Zero =>
        {
            return Err(Unusable::Overwritten(damage));
        }
        _ => {}
    }
    let sequence = |copy: Result<Superblock, Damage>| copy.map(|copy| copy.sequence);
    let choice = match_copies(sequence(front), sequence(back), pages.0 == pages.1)
        .map_err(Unusable::BothBad)?;
    let (page, superblock) = match choice.newest {
        End::Front => (pages.0, front),
        End::Back => (pages.1, back),
    };
    match (page, superblock) {
        (Some(page), Ok(superblock)) => Ok(Some(Found {
            superblock,
            choice,
            unknown_write_features: u64_at(page, RO_COMPAT_AT),
        })),
        // The copy that counts is good.
        (_, superblock) => {
            let damage = superblock.err().unwrap_or(Damage::Unreadable);
            Err(Unusable::BothBad(BothBad {
                front: damage,
                back: damage,
            }))
        }
    }
}
