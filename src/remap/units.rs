// SPDX-License-Identifier: GPL-2.0

//! The units of dm-remap: places, counts and small codes, a type for each.
//!
//! Everything that the mapped device counts, it counts in sectors of 512 bytes. A number is worth
//! nothing without its device, so a position on the mapped device ([`Sector`]) and a position on a
//! spare ([`SpareSector`]) are different types, and only [`BlockSize`] turns one unit into another.
//!
//! No operation here panics: what can leave the range of its type returns an [`Option`], what
//! cannot is written with wrapping shifts whose amount is bounded by the type.

use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::Relaxed;

/// A position on the mapped device, in sectors of 512 bytes.
///
/// Main is mapped one to one, so this is the position on main too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sector(pub u64);

impl Sector {
    /// The position `count` sectors further on; [`None`] past 2^64.
    #[inline]
    pub const fn checked_add(self, count: Sectors) -> Option<Self> {
        match self.0.checked_add(count.0) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }

    /// The last of `count` sectors from here on, which are at least one and do not pass 2^64: those of a request that
    /// the block layer has checked.
    #[inline(always)]
    pub const fn last_of(self, count: Sectors) -> Self {
        Self(self.0.wrapping_add(count.0).wrapping_sub(1))
    }

    /// How many sectors there are from here up to, and without, `end`; [`None`] when `end` lies
    /// before this position.
    #[inline]
    pub const fn up_to(self, end: Self) -> Option<Sectors> {
        match end.0.checked_sub(self.0) {
            Some(count) => Some(Sectors(count)),
            None => None,
        }
    }
}

/// A position on a spare device, in sectors of 512 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpareSector(pub u64);

impl SpareSector {
    /// The position `count` sectors further on; [`None`] past 2^64.
    #[inline]
    pub const fn checked_add(self, count: Sectors) -> Option<Self> {
        match self.0.checked_add(count.0) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }
}

/// A number of sectors of 512 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sectors(pub u64);

impl Sectors {
    /// No sector.
    pub const ZERO: Self = Self(0);

    /// The sum; [`None`] past 2^64.
    #[inline]
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }
}

/// The number of a block of main: block `n` begins at sector `n * block_size`.
///
/// 2^32 blocks are the most that a set can address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Block(pub u32);

impl Block {
    /// The block after this one; [`None`] after the last that can be addressed.
    #[inline]
    pub const fn next(self) -> Option<Self> {
        match self.0.checked_add(1) {
            Some(next) => Some(Self(next)),
            None => None,
        }
    }
}

/// The position of a sector inside its block, 0 to 63.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Offset(u8);

impl Offset {
    /// The first sector of a block.
    pub const ZERO: Self = Self(0);

    /// The offset as a number, 0 to 63.
    #[inline]
    pub const fn get(self) -> u8 {
        self.0
    }
}

/// The unit of relocation: a power of two from 1 to 64 sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockSize {
    /// The binary logarithm of the number of sectors, 0 to 6.
    shift: u8,
}

impl BlockSize {
    /// The largest block: the live mask has a bit for each of its 64 sectors.
    pub const MAX: Sectors = Sectors(64);

    /// What a set gets at least, when it is given none: 4 KiB.
    pub const DEFAULT: Self = Self { shift: 3 };

    /// A block of `sectors`; [`None`] unless that is a power of two from 1 to 64.
    pub const fn new(sectors: Sectors) -> Option<Self> {
        if sectors.0.is_power_of_two() && sectors.0 <= Self::MAX.0 {
            // The logarithm is at most 6.
            Some(Self {
                shift: sectors.0.trailing_zeros() as u8,
            })
        } else {
            None
        }
    }

    /// What a set gets that is given none: main's physical block, so that none is written in part,
    /// unless that is smaller than [`Self::DEFAULT`] or larger than [`Self::MAX`]; and not less than
    /// `logical`, a block that any of its devices can be told to write. [`None`] when that is no
    /// power of two, or too large.
    pub fn default_for(physical: Sectors, logical: Sectors) -> Option<Self> {
        let wanted = physical.0.clamp(Self::DEFAULT.sectors().0, Self::MAX.0);
        Self::new(Sectors(wanted.max(logical.0)))
    }

    /// The number of sectors in a block.
    #[inline]
    pub const fn sectors(self) -> Sectors {
        Sectors(1u64.wrapping_shl(self.shift as u32))
    }

    /// The binary logarithm of the number of sectors in a block, 0 to 6.
    #[inline]
    pub const fn shift(self) -> u32 {
        self.shift as u32
    }

    /// The block that holds `sector`; [`None`] beyond block 2^32 - 1.
    #[inline]
    pub const fn block_of(self, sector: Sector) -> Option<Block> {
        let block = sector.0.wrapping_shr(self.shift());
        if block <= u32::MAX as u64 {
            Some(Block(block as u32))
        } else {
            None
        }
    }

    /// Where in its block `sector` lies.
    #[inline]
    pub const fn offset_of(self, sector: Sector) -> Offset {
        // A block has at most 64 sectors, so six bits hold the offset.
        Offset((sector.0 & self.sectors().0.wrapping_sub(1)) as u8 & 63)
    }

    /// How many of the `count` sectors from `offset` on are in the same block.
    #[inline]
    pub const fn in_block(self, offset: Offset, count: Sectors) -> Sectors {
        let room = self.sectors().0.wrapping_sub(offset.0 as u64);
        if count.0 < room {
            count
        } else {
            Sectors(room)
        }
    }

    /// The first sector of `block`.
    #[inline]
    pub const fn first_sector(self, block: Block) -> Sector {
        // 32 bits shifted by at most 6 fit into 64.
        Sector((block.0 as u64).wrapping_shl(self.shift()))
    }

    /// How far the data of slot `number` lies behind the first data sector of its spare.
    #[inline]
    pub const fn slot_offset(self, number: SlotNumber) -> Sectors {
        // 27 bits shifted by at most 6 fit into 64.
        Sectors((number.0 as u64).wrapping_shl(self.shift()))
    }

    /// The last block of a device of `size` sectors, which may be a partial one; [`None`] when the
    /// device is empty or has more than 2^32 blocks.
    pub const fn last_block(self, size: Sectors) -> Option<Block> {
        match size.0.checked_sub(1) {
            Some(last) => self.block_of(Sector(last)),
            None => None,
        }
    }

    /// How many sectors of `block` there are on a device of `size` sectors: a whole block, except
    /// at and beyond the end of the device.
    pub const fn sectors_of(self, block: Block, size: Sectors) -> Sectors {
        let room = size.0.saturating_sub(self.first_sector(block).0);
        if room < self.sectors().0 {
            Sectors(room)
        } else {
            self.sectors()
        }
    }
}

/// The most spares that a set can have.
pub const MAX_SPARES: usize = 15;

/// The number of a spare in its set, 0 to 14.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpareIndex(u8);

impl SpareIndex {
    /// The first spare.
    pub const FIRST: Self = Self(0);

    /// Spare number `index`; [`None`] from [`MAX_SPARES`] on.
    #[inline]
    pub const fn new(index: usize) -> Option<Self> {
        if index < MAX_SPARES {
            Some(Self(index as u8))
        } else {
            None
        }
    }

    /// The number, to index a slice with.
    #[inline]
    pub const fn get(self) -> usize {
        self.0 as usize
    }
}

/// The number of a slot on its spare: a place for one block, 0 to 2^27 - 2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotNumber(u32);

impl SlotNumber {
    /// The most slots that a spare can have, 2^27 - 1: the number and the spare share 31 bits.
    pub const MAX_COUNT: u32 = Slot::NUMBER_MASK;

    /// Slot `number` of a spare; [`None`] from [`Self::MAX_COUNT`] on.
    #[inline]
    pub const fn new(number: u32) -> Option<Self> {
        if number < Self::MAX_COUNT {
            Some(Self(number))
        } else {
            None
        }
    }

    /// The number.
    #[inline]
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// A number of slots of a spare, or of all spares of a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotCount(pub u32);

impl SlotCount {
    /// No slot.
    pub const ZERO: Self = Self(0);

    /// The sum, or the highest number that there is.
    #[inline]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference, or zero.
    #[inline]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

/// A number of slots that one writer changes and anybody reads at any time.
pub struct SlotCounter(AtomicU32);

impl SlotCounter {
    /// A counter that stands at zero.
    pub const fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// How high it stands. This is a number by itself and orders nothing.
    #[inline]
    pub fn get(&self) -> SlotCount {
        SlotCount(self.0.load(Relaxed))
    }

    /// Sets it; only the writer does.
    pub fn set(&self, count: SlotCount) {
        self.0.store(count.0, Relaxed);
    }

    /// Adds one; only the writer does.
    pub fn increment(&self) {
        self.set(self.get().saturating_add(SlotCount(1)));
    }

    /// Subtracts one; only the writer does.
    pub fn decrement(&self) {
        self.set(self.get().saturating_sub(SlotCount(1)));
    }
}

impl Default for SlotCounter {
    fn default() -> Self {
        Self::new()
    }
}

/// A slot of the set: which spare, and which of its slots.
///
/// # Invariants
///
/// The low 27 bits are a [`SlotNumber`], and the rest is one more than a [`SpareIndex`], so bit 31
/// is clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u32);

impl Slot {
    /// How many bits the number of a slot on its spare takes.
    const NUMBER_BITS: u32 = 27;

    /// The bits of the number of a slot on its spare.
    pub(super) const NUMBER_MASK: u32 = (1 << Self::NUMBER_BITS) - 1;

    /// Slot `number` of spare `spare`.
    #[inline]
    pub const fn new(spare: SpareIndex, number: SlotNumber) -> Self {
        // INVARIANT: Both parts are in range by their types. The sum is at most 15.
        Self((spare.0 as u32).wrapping_add(1) << Self::NUMBER_BITS | number.0)
    }

    /// The slot as one number, not zero and below 2^31.
    #[inline]
    pub const fn packed(self) -> u32 {
        self.0
    }

    /// The slot that [`Self::packed`] gave as `packed`; [`None`] when that is another number below
    /// 2^27, which no slot is packed as.
    #[inline]
    pub(super) const fn unpack(packed: u32) -> Option<Self> {
        if packed >> Self::NUMBER_BITS == 0 {
            None
        } else {
            // INVARIANT: The number was made of a valid slot, as the caller says.
            Some(Self(packed))
        }
    }

    /// The spare.
    #[inline]
    pub const fn spare(self) -> SpareIndex {
        SpareIndex((self.0 >> Self::NUMBER_BITS).wrapping_sub(1) as u8)
    }

    /// The number on the spare.
    #[inline]
    pub const fn number(self) -> SlotNumber {
        SlotNumber(self.0 & Self::NUMBER_MASK)
    }

    /// The slot whose data follows right after this one's; [`None`] after the last that a spare
    /// can have.
    #[inline]
    pub const fn next(self) -> Option<Self> {
        match SlotNumber::new(self.number().0.wrapping_add(1)) {
            Some(next) => Some(Self::new(self.spare(), next)),
            None => None,
        }
    }
}

impl Default for Slot {
    /// The first slot of the first spare.
    fn default() -> Self {
        Self::new(SpareIndex::FIRST, SlotNumber::default())
    }
}

/// Which sectors of a relocated block live on the spare: bit `i` is set when sector `i` of the
/// block does, and clear when that sector still lives on main.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LiveMask(pub u64);

impl LiveMask {
    /// All sectors live on main.
    pub const EMPTY: Self = Self(0);

    /// The first `count` sectors live on the spare; all 64 when `count` is more than that.
    #[inline]
    pub const fn first(count: Sectors) -> Self {
        match count.0 {
            0 => Self::EMPTY,
            // The shift is 0 to 63.
            1..=63 => Self(u64::MAX.wrapping_shr(64u32.wrapping_sub(count.0 as u32))),
            _ => Self(u64::MAX),
        }
    }

    /// Whether every sector of `other` lives on the spare.
    #[inline]
    pub const fn contains(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }

    /// The sectors that this mask or `other` has.
    #[inline]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The sectors of this mask that `other` has not.
    #[inline]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// How many sectors from `from` on live on the spare without a gap.
    #[inline]
    pub const fn live_run(self, from: Offset) -> Sectors {
        // The shift brings in zeros, so the run ends with the block's last bit at the latest.
        Sectors((!self.0.wrapping_shr(from.0 as u32)).trailing_zeros() as u64)
    }

    /// How many sectors from `from` on live on main without a gap: up to 64, also when the block
    /// ends before.
    #[inline]
    pub const fn dead_run(self, from: Offset) -> Sectors {
        Sectors(self.0.wrapping_shr(from.0 as u32).trailing_zeros() as u64)
    }

    /// The number of sectors that live on the spare.
    #[inline]
    pub const fn count(self) -> Sectors {
        Sectors(self.0.count_ones() as u64)
    }
}

/// Why a block was relocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// A read of main failed, or succeeded only when it was tried again.
    Read,
    /// A write to main failed.
    Write,
    /// The background pass found it weak or unreadable.
    Scan,
    /// The message `add` asked for it.
    Message,
    /// It came from a list of bad sectors that was imported.
    Import,
    /// The spare block that held it failed, and it moved to another one.
    Spare,
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Read,
        Self::Write,
        Self::Scan,
        Self::Message,
        Self::Import,
        Self::Spare,
    ];

    /// Whether nobody asked for it.
    pub const fn is_automatic(self) -> bool {
        !matches!(self, Self::Message | Self::Import)
    }

    /// The word for it in the reply to the message `list`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Scan => "scan",
            Self::Message => "message",
            Self::Import => "import",
            Self::Spare => "spare",
        }
    }
}

/// What a slot is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SlotState {
    /// It holds nothing and may be given out.
    Free,
    /// It holds a block of main, for this reason.
    InUse(Cause),
    /// Its place on the spare is bad: it holds nothing and is never given out again.
    Retired,
}

impl SlotState {
    /// The code that stands for this state in memory and in the metadata.
    pub const fn code(self) -> u8 {
        match self {
            Self::Free => 0,
            Self::InUse(Cause::Read) => 1,
            Self::InUse(Cause::Write) => 2,
            Self::InUse(Cause::Scan) => 3,
            Self::InUse(Cause::Message) => 4,
            Self::InUse(Cause::Import) => 5,
            Self::InUse(Cause::Spare) => 6,
            Self::Retired => 255,
        }
    }

    /// The state that `code` stands for; [`None`] when it stands for none.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Free),
            1 => Some(Self::InUse(Cause::Read)),
            2 => Some(Self::InUse(Cause::Write)),
            3 => Some(Self::InUse(Cause::Scan)),
            4 => Some(Self::InUse(Cause::Message)),
            5 => Some(Self::InUse(Cause::Import)),
            6 => Some(Self::InUse(Cause::Spare)),
            255 => Some(Self::Retired),
            _ => None,
        }
    }
}

/// A time of day: seconds since 1970-01-01 00:00 UTC, up to the year 2106.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixTime(pub u32);

impl UnixTime {
    /// The time `seconds` after the epoch; the last one that can be told when that is later.
    pub const fn from_seconds(seconds: u64) -> Self {
        if seconds <= u32::MAX as u64 {
            Self(seconds as u32)
        } else {
            Self(u32::MAX)
        }
    }
}
