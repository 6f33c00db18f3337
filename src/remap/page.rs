// SPDX-License-Identifier: GPL-2.0

//! A page of metadata: its header, its checksum, and the choice between its two copies.
//!
//! The format is that of `docs/metadata.md`.

use core::fmt;

use super::geometry::End;
use super::geometry::PageNumber;
use super::geometry::PAGE_BYTES;
use super::identity::Uuid;
use super::units::SpareIndex;
use super::units::MAX_SPARES;

/// The bytes of a page.
pub type Page = [u8; PAGE_BYTES];

/// CRC32C (Castagnoli) with the initial value and the final inversion all ones: `123456789` gives
/// `e3069283`. The module hands in the kernel's, the host a crate's.
pub type Crc32c = fn(&[u8]) -> u32;

/// The first bytes of every page.
const MAGIC: [u8; 8] = *b"dm-remap";

/// The version of the format.
const VERSION: u16 = 1;

const MAGIC_AT: usize = 0;
const CHECKSUM_AT: usize = 8;
/// The checksum is of everything from here on; the magic before it is compared as it is.
const CHECKSUMMED_AT: usize = 12;
const VERSION_AT: usize = 12;
const CLASS_AT: usize = 14;
const UUID_AT: usize = 16;
const SEQUENCE_AT: usize = 32;
const NUMBER_AT: usize = 40;
const SPARE_AT: usize = 44;
const RESERVED_AT: usize = 46;

/// Where the header ends that all classes have alike.
pub(super) const HEADER_BYTES: usize = 48;

/// The `N` bytes at offset `at`, which are all inside of `bytes`: offsets are constants of the
/// format.
pub(super) fn take<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk())
        .copied()
        .unwrap_or([0; N])
}

/// Puts `value` at offset `at`, all inside of `bytes`: offsets are constants of the format.
pub(super) fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    if let Some(place) = bytes.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) {
        *place = value;
    }
}

/// Whether all of `bytes` are zero.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// How often a page was written, counting from 1: of two copies the one with the higher sequence
/// number is the newer one.
///
/// # Invariants
///
/// 1 to 2^63 - 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sequence(u64);

impl Sequence {
    /// That of a page that is written for the first time.
    pub const FIRST: Self = Self(1);

    /// Sequence number `number`; [`None`] for 0 and from 2^63 on.
    pub const fn new(number: u64) -> Option<Self> {
        // INVARIANT: Checked right here.
        if number > 0 && number <= i64::MAX as u64 {
            Some(Self(number))
        } else {
            None
        }
    }

    /// The next one; [`None`] after the last, which no honest set ever reaches.
    pub const fn next(self) -> Option<Self> {
        Self::new(self.0.wrapping_add(1))
    }

    /// One that nobody can have tried, when this is the highest that is known, for what the copy at one end says; [`None`] when
    /// there is none.
    ///
    /// What is tried is one more than the highest, and nothing is tried after the first failure, so that what cannot be read is hardly
    /// ahead; the rest is a margin. Ends that speak for different states at different times never get the same number.
    pub const fn untried(self, newest: End) -> Option<Self> {
        let even = self.0.wrapping_add(16) & !1;
        Self::new(match newest {
            End::Front => even,
            End::Back => even | 1,
        })
    }

    /// The highest number that a spare may be supposed to have when the adding of one begins, and this is the highest that any has:
    /// see [`is_of_the_same_adding`](Self::is_of_the_same_adding).
    pub const fn before_adding(self) -> Option<Self> {
        Self::new(self.0.wrapping_add(MAX_SPARES as u64))
    }

    /// Whether a superblock with this number, which is the last one that a new spare got before the others counted it, is of the same adding
    /// as one of another spare that counts it.
    ///
    /// The others get the next numbers, one each. When another spare is added later, as many numbers are
    /// left out as a set may have spares.
    pub const fn is_of_the_same_adding(self, other: Self) -> bool {
        other.0.saturating_sub(self.0) < MAX_SPARES as u64
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// What a page describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The spare as a whole, and the set.
    Superblock,
    /// Some slots of the spare, on the spare itself.
    Slots(PageNumber),
    /// The same slots, on the spare that is the witness.
    Witness(PageNumber),
}

impl Subject {
    /// The class, as the header has it.
    const fn class(self) -> u16 {
        match self {
            Self::Superblock => 1,
            Self::Slots(_) => 2,
            Self::Witness(_) => 3,
        }
    }

    /// The slot page that it is, or that it stands for.
    pub(super) const fn slot_page(self) -> Option<PageNumber> {
        match self {
            Self::Superblock => None,
            Self::Slots(page) | Self::Witness(page) => Some(page),
        }
    }

    /// The page number, as the header has it.
    const fn number(self) -> u32 {
        match self.slot_page() {
            Some(page) => page.get(),
            None => 0,
        }
    }
}

/// Which page of which set a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name {
    /// The set.
    pub uuid: Uuid,
    /// The spare that the page describes: for a witness page not the one that it is on.
    pub spare: SpareIndex,
    /// What of that spare it describes.
    pub subject: Subject,
}

/// Why a page is not good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// It could not be read at all.
    Unreadable,
    /// It is all zero.
    Zero,
    /// It does not begin with the magic, so it is not a page of metadata.
    Magic,
    /// Its checksum is wrong.
    Checksum,
    /// It has a version of the format that is not known here.
    Version(u16),
    /// It uses features that must be known to read it, and these of them are not known here.
    Incompatible(u64),
    /// It is a good page, but of another set, of another spare or of another place.
    Misplaced,
    /// Something in it breaks a rule of the format: this.
    Content(&'static str),
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable => f.write_str("cannot be read"),
            Self::Zero => f.write_str("is all zero"),
            Self::Magic => f.write_str("is not metadata of dm-remap"),
            Self::Checksum => f.write_str("has a wrong checksum"),
            Self::Version(version) => write!(f, "has format version {version}"),
            Self::Incompatible(bits) => write!(f, "has unknown incompatible features {bits:#x}"),
            Self::Misplaced => f.write_str("belongs to another place"),
            Self::Content(what) => write!(f, "has a bad {what}"),
        }
    }
}

/// Completes `page`: writes the header and, last, the checksum. What is behind the header must
/// already be there.
pub fn seal(page: &mut Page, name: &Name, sequence: Sequence, crc: Crc32c) {
    put(page, MAGIC_AT, MAGIC);
    put(page, VERSION_AT, VERSION.to_le_bytes());
    put(page, CLASS_AT, name.subject.class().to_le_bytes());
    put(page, UUID_AT, *name.uuid.bytes());
    put(page, SEQUENCE_AT, sequence.get().to_le_bytes());
    put(page, NUMBER_AT, name.subject.number().to_le_bytes());
    // There are at most 15 spares.
    put(page, SPARE_AT, (name.spare.get() as u16).to_le_bytes());
    put(page, RESERVED_AT, [0; HEADER_BYTES - RESERVED_AT]);
    let checksum = checksum(page, crc);
    put(page, CHECKSUM_AT, checksum.to_le_bytes());
}

/// Checks that `page` is a good one and is the one that `name` says; returns its sequence number.
///
/// # Errors
///
/// Why it is not good. What is behind the header is for the caller to check.
pub fn check(page: &Page, name: &Name, crc: Crc32c) -> Result<Sequence, Damage> {
    let found = open(page, name.subject, crc)?;
    if found.uuid == name.uuid && found.spare == name.spare {
        Ok(found.sequence)
    } else {
        Err(Damage::Misplaced)
    }
}

/// What the header of a good page says about where it belongs.
pub(super) struct Header {
    /// The set.
    pub(super) uuid: Uuid,
    /// The spare that the page describes.
    pub(super) spare: SpareIndex,
    /// Its sequence number.
    pub(super) sequence: Sequence,
}

/// Checks that `page` is a good one and describes `subject`; returns what its header says beside
/// that.
pub(super) fn open(page: &Page, subject: Subject, crc: Crc32c) -> Result<Header, Damage> {
    if take(page, MAGIC_AT) != MAGIC {
        return Err(if is_zero(page) {
            Damage::Zero
        } else {
            Damage::Magic
        });
    }
    if u32::from_le_bytes(take(page, CHECKSUM_AT)) != checksum(page, crc) {
        return Err(Damage::Checksum);
    }
    let version = u16::from_le_bytes(take(page, VERSION_AT));
    if version != VERSION {
        return Err(Damage::Version(version));
    }
    if u16::from_le_bytes(take(page, CLASS_AT)) != subject.class()
        || u32::from_le_bytes(take(page, NUMBER_AT)) != subject.number()
    {
        return Err(Damage::Misplaced);
    }
    if take(page, RESERVED_AT) != [0; HEADER_BYTES - RESERVED_AT] {
        return Err(Damage::Content("reserved byte in its header"));
    }
    Ok(Header {
        uuid: Uuid::new(take(page, UUID_AT)).ok_or(Damage::Content("uuid"))?,
        spare: SpareIndex::new(u16::from_le_bytes(take(page, SPARE_AT)).into())
            .ok_or(Damage::Content("spare index"))?,
        sequence: Sequence::new(u64::from_le_bytes(take(page, SEQUENCE_AT)))
            .ok_or(Damage::Content("sequence number"))?,
    })
}

/// The checksum that `page` should have.
fn checksum(page: &Page, crc: Crc32c) -> u32 {
    crc(page.get(CHECKSUMMED_AT..).unwrap_or_default())
}

/// Which of the two copies of a page counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Where the copy that counts is.
    pub newest: End,
    /// Its sequence number.
    pub sequence: Sequence,
    /// What the copy at the other end is.
    pub other: Other,
}

impl Choice {
    /// Whether the copy at the other end must be written again from the one that counts before the
    /// page is next updated.
    pub fn repair(&self) -> bool {
        self.other != Other::Same
    }

    /// Whether the copy at the other end could not be read, so that it may be the newer one, and may be found later.
    pub fn is_unsure(&self) -> bool {
        self.other == Other::Bad(Damage::Unreadable)
    }
}

/// What the copy of a page is that does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Other {
    /// The same as the one that counts.
    Same,
    /// Older, as a crash leaves it.
    Older,
    /// Bad.
    Bad(Damage),
}

/// Chooses between the copies `front` and `back` of a page, either of which is [`None`] when it
/// could not be read. `examine` says of a copy, in all that is in it, whether it is good.
///
/// # Errors
///
/// Neither copy is good, or both are but contradict each other; the damage of each.
pub fn choose(
    front: Option<&Page>,
    back: Option<&Page>,
    examine: impl Fn(&Page) -> Result<Sequence, Damage>,
) -> Result<Choice, BothBad> {
    let examine = |page: Option<&Page>| examine(page.ok_or(Damage::Unreadable)?);
    let same = front == back;
    let examined = examine(front);
    match_copies(examined, if same { examined } else { examine(back) }, same)
}

/// Chooses between two copies by what examining each of them gave; `same` says whether they are
/// byte for byte the same.
pub(super) fn match_copies(
    front: Result<Sequence, Damage>,
    back: Result<Sequence, Damage>,
    same: bool,
) -> Result<Choice, BothBad> {
    let choice = |newest, sequence, other| {
        Ok(Choice {
            newest,
            sequence,
            other,
        })
    };
    match (front, back) {
        (Ok(front), Ok(back)) if front == back => {
            if same {
                choice(End::Front, front, Other::Same)
            } else {
                let damage = Damage::Content("sequence number: the other copy has the same one");
                Err(BothBad::alike(damage))
            }
        }
        (Ok(front), Ok(back)) if front < back => choice(End::Back, back, Other::Older),
        (Ok(front), Ok(_)) => choice(End::Front, front, Other::Older),
        (Ok(front), Err(damage)) => choice(End::Front, front, Other::Bad(damage)),
        (Err(damage), Ok(back)) => choice(End::Back, back, Other::Bad(damage)),
        (Err(front), Err(back)) => Err(BothBad { front, back }),
    }
}

/// Neither copy of a page is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BothBad {
    /// What is wrong with copy A.
    pub front: Damage,
    /// What is wrong with copy B.
    pub back: Damage,
}

impl BothBad {
    /// The same is wrong with both copies.
    pub const fn alike(damage: Damage) -> Self {
        Self {
            front: damage,
            back: damage,
        }
    }
}

impl fmt::Display for BothBad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the first copy {}, the second copy {}",
            self.front, self.back
        )
    }
}
