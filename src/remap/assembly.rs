// SPDX-License-Identifier: GPL-2.0

//! From what the superblocks of some spares say, and what the table line says, to a set, or to the
//! reason why these devices are not one.
//!
//! Nothing is written before all of this has been checked; what must be written then is in the
//! answer. The rules are those of `docs/metadata.md`.

use core::fmt;

use super::geometry::plan_set;
use super::geometry::usable_size;
use super::geometry::Layout;
use super::geometry::PageCount;
use super::geometry::SpareCount;
use super::identity::MainId;
use super::identity::Uuid;
use super::options::Options;
use super::page::Choice;
use super::page::Sequence;
use super::records::Record;
use super::superblock::Found;
use super::superblock::Progress;
use super::superblock::Set;
use super::superblock::State;
use super::superblock::Superblock;
use super::superblock::Unusable;
use super::units::Block;
use super::units::BlockSize;
use super::units::Sectors;
use super::units::SlotCount;
use super::units::SpareIndex;
use super::units::UnixTime;
use super::units::MAX_SPARES;

/// The most blocks that may be in two slots, of which one is outdated: a crash leaves no more than
/// those of one section.
pub const MOST_OUTDATED: usize = 1024;

/// A place for a spare in the table line.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// The spare is missing, `-`.
    Missing,
    /// A device.
    Device {
        /// Its size.
        size: Sectors,
        /// What [`read`](super::superblock::read) found on it.
        found: &'a Result<Option<Found>, Unusable>,
    },
}

/// What the table line and main say.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// The size of main.
    pub main_sectors: Sectors,
    /// The block size of a new set that is given none.
    pub default_block_size: BlockSize,
    /// The argument `block_size`.
    pub block_size: Option<BlockSize>,
    /// The argument `main_id`.
    pub main_id: Option<MainId>,
    /// The argument `uuid`.
    pub uuid: Option<Uuid>,
    /// Whether the table is read-only, so that nothing may be written.
    pub read_only: bool,
}

/// What becomes of one spare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Member<'a> {
    /// It is missing: its blocks fail, and its witness says which they are.
    Missing {
        /// The number of its slots.
        slots: SlotCount,
        /// The spare that keeps its witness pages, which is present.
        witness: SpareIndex,
    },
    /// It holds nothing and must be initialised with this layout. Its superblock gets a sequence
    /// number above [`Assembly::sequence`], as every other one does.
    Fresh(Layout),
    /// It is a member of the set.
    ///
    /// It may be [`State::Initialising`] still, and then holds no block: all that is left is to
    /// make it ready, or nothing is to be written at the moment.
    Ready {
        /// What its superblock says.
        superblock: &'a Superblock,
        /// Which copy of it counts.
        choice: &'a Choice,
        /// Whether it is not ready, or says something else of the set than [`Existing::set`], so
        /// that it must be written again.
        behind: bool,
    },
}

/// What the devices of a table line are together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assembly<'a> {
    /// A set that has to be made.
    New(New),
    /// A set that exists.
    Existing(Existing<'a>),
}

/// A set that has to be made: no spare holds anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct New {
    /// The name that the set must get, if that is settled: from the table line, or from an
    /// earlier attempt that was interrupted.
    pub uuid: Option<Uuid>,
    /// When the set was begun to be made, if it was.
    pub created: Option<UnixTime>,
    /// The unit of relocation.
    pub block_size: BlockSize,
    /// The number of spares.
    pub spares: SpareCount,
    /// The layout of each spare; [`None`] beyond the last one.
    pub layouts: [Option<Layout>; MAX_SPARES],
    /// The highest sequence number of a superblock; [`None`] when all are blank.
    pub sequence: Option<Sequence>,
}

impl New {
    /// The set, for a main of `main_sectors` that is called `main_id`. What is settled wins over
    /// `uuid` and `created`.
    pub fn set(
        &self,
        main_sectors: Sectors,
        main_id: MainId,
        uuid: Uuid,
        created: UnixTime,
    ) -> Set {
        let created = self.created.unwrap_or(created);
        Set {
            uuid: self.uuid.unwrap_or(uuid),
            main_sectors,
            main_id,
            block_size: self.block_size,
            created,
            // What a table line says holds for the table line; the message `set` changes this.
            options: Options::DEFAULT,
            progress: Progress {
                ended: created,
                ..Progress::default()
            },
            spares: self.spares,
            slots_of: (self.layouts)
                .map(|layout| layout.map_or(SlotCount::ZERO, |layout| layout.slots())),
        }
    }
}

/// A set that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Existing<'a> {
    /// What the newest superblock says of the set, but with a spare that is to be added counted,
    /// and with `main_id` if the table line is the first to give one.
    pub set: Set,
    /// Each spare; [`None`] beyond the last one.
    pub members: [Option<Member<'a>>; MAX_SPARES],
    /// The highest sequence number of a superblock: the next one to be written gets the next one.
    pub sequence: Sequence,
    /// The spare that is to be added: it is [`Member::Fresh`], and no other spare counts it yet.
    pub added: Option<SpareIndex>,
}

/// Why the devices of a table line are not a set that may be used; nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The superblock of the spare cannot be used.
    Unusable(SpareIndex, Unusable),
    /// The superblock of the spare has features that must be known to write.
    ReadOnlyFeatures(SpareIndex, u64),
    /// The size of the spare is not what it was when it was initialised.
    SpareSize {
        /// The spare.
        spare: SpareIndex,
        /// Its size now, in whole pages.
        found: Sectors,
        /// Its size then.
        stored: Sectors,
    },
    /// The size of main is not what it was when the set was made.
    MainSize {
        /// Its size now.
        found: Sectors,
        /// Its size then.
        stored: Sectors,
    },
    /// Main is too large for the block size.
    MainTooLarge(BlockSize),
    /// The set has another block size than the table line says.
    BlockSize {
        /// What the table line says.
        given: BlockSize,
        /// What the set has.
        stored: BlockSize,
    },
    /// The set is that of another main, which has this name.
    MainId(MainId),
    /// The spare is of another set than the table line says.
    Uuid {
        /// The spare.
        spare: SpareIndex,
        /// What the table line says.
        given: Uuid,
        /// What the spare has.
        stored: Uuid,
    },
    /// The spare is of another set than a spare before it.
    OtherSet {
        /// The spare.
        spare: SpareIndex,
        /// The set of the spare.
        found: Uuid,
        /// The set of the other one.
        set: Uuid,
    },
    /// The spare and another one claim to be of one set, but contradict each other.
    Contradiction(SpareIndex),
    /// The spare stands in another place of the table line than it has in its set.
    Order {
        /// The place in the table line.
        place: SpareIndex,
        /// The place in the set.
        stored: SpareIndex,
    },
    /// The table line has another number of spares than the set.
    Count {
        /// The number in the table line.
        given: SpareCount,
        /// The number in the set.
        stored: SpareCount,
    },
    /// The spare was a member of the set and is all zero now.
    Lost(SpareIndex),
    /// The spare would have to be initialised, but the table is read-only.
    ReadOnly(SpareIndex),
    /// The spare is too small.
    TooSmall(SpareIndex),
    /// A spare is missing, but no other one is a member of a set.
    MissingUnknown(SpareIndex),
    /// A spare is missing, and this other one is not initialised.
    MissingWhileFresh {
        /// The one that is missing.
        missing: SpareIndex,
        /// The one that is not initialised.
        fresh: SpareIndex,
    },
    /// A spare is missing, and so is the one that knows what it holds.
    WitnessMissing {
        /// The one that is missing.
        missing: SpareIndex,
        /// The one that knows.
        witness: SpareIndex,
    },
    /// The block is in two slots since the same time.
    SameTime(Block),
    /// More than [`MOST_OUTDATED`] blocks are in two slots.
    TooManyOutdated,
}

impl fmt::Display for SpareIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spare {}", self.get())
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unusable(spare, unusable) => write!(f, "{spare} is refused: {unusable}"),
            Self::ReadOnlyFeatures(spare, bits) => write!(
                f,
                "{spare} has features {bits:#x} that this dm-remap must not write to: use a newer \
                 one, or a read-only table"
            ),
            Self::SpareSize {
                spare,
                found,
                stored,
            } => write!(
                f,
                "{spare} has {} sectors but was initialised with {}: give it its size back",
                found.0, stored.0
            ),
            Self::MainSize { found, stored } => write!(
                f,
                "main_dev has {} sectors but the spares belong to a main of {}: name the main \
                 that they belong to",
                found.0, stored.0
            ),
            Self::MainTooLarge(block_size) => write!(
                f,
                "main_dev has more than 2^32 blocks of {} sectors: give a larger block_size",
                block_size.sectors().0
            ),
            Self::BlockSize { given, stored } => write!(
                f,
                "block_size is {} but the spares were initialised with {}: give that, or leave \
                 it out",
                given.sectors().0,
                stored.sectors().0
            ),
            Self::MainId(stored) => write!(
                f,
                "main_id is not {stored}, to which the spares belong: name the main that they \
                 belong to"
            ),
            Self::Uuid {
                spare,
                given,
                stored,
            } => write!(
                f,
                "uuid is {given} but {spare} belongs to {stored}: name the spares of the set that \
                 is meant"
            ),
            Self::OtherSet { spare, found, set } => write!(
                f,
                "{spare} belongs to the set {found} but the other spares to {set}: name spares of \
                 one set"
            ),
            Self::Contradiction(spare) => write!(
                f,
                "{spare} contradicts another spare of its set: one of them is an old copy, name \
                 the right one"
            ),
            Self::Order { place, stored } => write!(
                f,
                "{place} of the table line is {stored} of its set: name the spares in the order \
                 of the set"
            ),
            Self::Count { given, stored } => write!(
                f,
                "the table line has {} spares but the set has {}: name all of them, \"-\" for a \
                 missing one (one spare at a time can be added, at the end)",
                given.get(),
                stored.get()
            ),
            Self::Lost(spare) => write!(
                f,
                "{spare} is all zero although the set counts on it: name the right device, or \
                 \"-\" if it is gone"
            ),
            Self::ReadOnly(spare) => write!(
                f,
                "{spare} is not initialised, which a read-only table cannot do: activate it \
                 writable first"
            ),
            Self::TooSmall(spare) => write!(f, "{spare} is too small: give a larger one"),
            Self::MissingUnknown(missing) => write!(
                f,
                "{missing} is missing, and no other spare belongs to a set that knows it: name the \
                 device"
            ),
            Self::MissingWhileFresh { missing, fresh } => write!(
                f,
                "{missing} is missing while {fresh} is still to be initialised: activate the set \
                 with all its spares first"
            ),
            Self::WitnessMissing { missing, witness } => write!(
                f,
                "{missing} is missing, and so is {witness}, which knows what blocks the first one \
                 holds: name one of them"
            ),
            Self::SameTime(block) => write!(
                f,
                "block {} is in two slots since the same time: give a good copy of the spares",
                block.0
            ),
            Self::TooManyOutdated => f.write_str(
                "more blocks are in two slots than a crash can leave behind: give a good copy of \
                 the spares",
            ),
        }
    }
}

/// Puts a set together from the `places` for spares in a table line, in their order.
///
/// # Errors
///
/// Why these devices must not be used.
pub fn assemble<'a>(places: &[Place<'a>], wanted: &Wanted) -> Result<Assembly<'a>, Refusal> {
    for (spare, place) in indexed(places) {
        check_alone(spare, place, wanted)?;
    }
    let newest = superblocks(places)
        .filter(|(_, superblock)| superblock.state == State::Ready)
        .map(|(_, superblock)| superblock)
        .reduce(|newest, other| {
            if other.sequence > newest.sequence {
                other
            } else {
                newest
            }
        });
    match newest {
        Some(newest) => assemble_existing(places, newest, wanted).map(Assembly::Existing),
        None => assemble_new(places, wanted).map(Assembly::New),
    }
}

/// Whether of two entries for one block the one that was `found` counts, and not the one that was
/// `known` before: the one with the later time does, and the other one is outdated.
///
/// # Errors
///
/// Neither is later, which no writer leaves behind.
pub fn outdates(found: &Record, known: &Record) -> Result<bool, Refusal> {
    if found.time == known.time {
        return Err(Refusal::SameTime(found.block));
    }
    Ok(found.time > known.time)
}

/// The places with the indexes that they stand for.
fn indexed<'p, 'a>(places: &'p [Place<'a>]) -> impl Iterator<Item = (SpareIndex, &'p Place<'a>)> {
    places
        .iter()
        .enumerate()
        .map_while(|(at, place)| Some((SpareIndex::new(at)?, place)))
}

/// The superblocks that there are.
fn superblocks<'p, 'a>(
    places: &'p [Place<'a>],
) -> impl Iterator<Item = (SpareIndex, &'a Superblock)> + use<'p, 'a> {
    indexed(places).filter_map(|(spare, place)| match *place {
        Place::Device {
            found: Ok(Some(Found { superblock, .. })),
            ..
        } => Some((spare, superblock)),
        _ => None,
    })
}

/// Checks what can be checked of one spare without the others.
fn check_alone(spare: SpareIndex, place: &Place<'_>, wanted: &Wanted) -> Result<(), Refusal> {
    let Place::Device { size, found } = *place else {
        return Ok(());
    };
    let found = found
        .as_ref()
        .map_err(|unusable| Refusal::Unusable(spare, *unusable))?;
    let Some(Found {
        superblock,
        unknown_write_features: unknown,
        ..
    }) = found
    else {
        return Ok(());
    };
    if *unknown != 0 && !wanted.read_only {
        return Err(Refusal::ReadOnlyFeatures(spare, *unknown));
    }
    let set = &superblock.set;
    if let Some(given) = wanted.uuid.filter(|given| *given != set.uuid) {
        return Err(Refusal::Uuid {
            spare,
            given,
            stored: set.uuid,
        });
    }
    if superblock.spare != spare {
        return Err(Refusal::Order {
            place: spare,
            stored: superblock.spare,
        });
    }
    let (found, stored) = (usable_size(size), superblock.layout.parts().spare_sectors);
    if found != stored {
        return Err(Refusal::SpareSize {
            spare,
            found,
            stored,
        });
    }
    if set.main_sectors != wanted.main_sectors {
        return Err(Refusal::MainSize {
            found: wanted.main_sectors,
            stored: set.main_sectors,
        });
    }
    if let Some(given) = wanted.block_size.filter(|given| *given != set.block_size) {
        return Err(Refusal::BlockSize {
            given,
            stored: set.block_size,
        });
    }
    Ok(())
}

/// Checks that `superblock` of `spare` is of the set `set` as far as that never changes.
fn check_same_set(spare: SpareIndex, superblock: &Superblock, set: &Set) -> Result<(), Refusal> {
    let own = &superblock.set;
    if own.uuid != set.uuid {
        return Err(Refusal::OtherSet {
            spare,
            found: own.uuid,
            set: set.uuid,
        });
    }
    if own.block_size != set.block_size || own.created != set.created {
        return Err(Refusal::Contradiction(spare));
    }
    Ok(())
}

/// The number of places.
fn count(places: &[Place<'_>]) -> SpareCount {
    // The grammar of the table line gives 1 to 15.
    SpareCount::new(places.len()).unwrap_or(SpareCount::ONE)
}

/// Puts together a set of spares none of which is a member of one.
fn assemble_new(places: &[Place<'_>], wanted: &Wanted) -> Result<New, Refusal> {
    let spares = count(places);
    let mut sizes = [Sectors::ZERO; MAX_SPARES];
    for ((spare, place), size) in indexed(places).zip(&mut sizes) {
        *size = match place {
            Place::Missing => return Err(Refusal::MissingUnknown(spare)),
            Place::Device { .. } if wanted.read_only => return Err(Refusal::ReadOnly(spare)),
            Place::Device { size, .. } => *size,
        };
    }
    let interrupted = superblocks(places)
        .next()
        .map(|(_, superblock)| superblock.set);
    for (spare, superblock) in superblocks(places) {
        if let Some(set) = &interrupted {
            check_same_set(spare, superblock, set)?;
        }
        // With fewer spares than were meant, one that is a member already could be left out.
        if superblock.set.spares > spares {
            return Err(Refusal::Count {
                given: spares,
                stored: superblock.set.spares,
            });
        }
    }
    let block_size = match &interrupted {
        Some(set) => set.block_size,
        None => wanted.block_size.unwrap_or(wanted.default_block_size),
    };
    if block_size.last_block(wanted.main_sectors).is_none() {
        return Err(Refusal::MainTooLarge(block_size));
    }
    let sizes = sizes.get(..spares.get()).unwrap_or_default();
    Ok(New {
        uuid: interrupted.map(|set| set.uuid).or(wanted.uuid),
        created: interrupted.map(|set| set.created),
        block_size,
        spares,
        layouts: plan_set(sizes, block_size).map_err(Refusal::TooSmall)?,
        sequence: superblocks(places)
            .map(|(_, superblock)| superblock.sequence)
            .max(),
    })
}

/// Puts together the set of which `newest` is the superblock, of a ready spare, with the highest
/// sequence number.
fn assemble_existing<'a>(
    places: &[Place<'a>],
    newest: &Superblock,
    wanted: &Wanted,
) -> Result<Existing<'a>, Refusal> {
    let mut set = newest.set;
    let stored = set.spares;
    let given = count(places);
    let added = match given.get().checked_sub(stored.get()) {
        Some(0) => None,
        Some(1) => SpareIndex::new(stored.get()),
        _ => return Err(Refusal::Count { given, stored }),
    };
    if let Some(given) = wanted.main_id {
        if set.main_id.is_none() {
            set.main_id = given;
        } else if set.main_id != given {
            return Err(Refusal::MainId(set.main_id));
        }
    }
    // Nothing is written then, so what was begun cannot be finished.
    let as_it_is = wanted.read_only || indexed(places).any(|(_, place)| is_missing(place));
    let mut members = [None; MAX_SPARES];
    for ((spare, place), member) in indexed(places).zip(&mut members) {
        *member = Some(if added == Some(spare) {
            let Place::Device {
                size,
                found: Ok(found),
            } = *place
            else {
                return Err(Refusal::Count { given, stored });
            };
            Member::Fresh(plan_added(spare, size, found, places, &mut set)?)
        } else {
            existing_member(spare, place, places, &mut set, as_it_is)?
        });
    }
    // A spare that is to be added is counted now, so every other one is behind; also when it takes the place of another one.
    let fresh = (members.iter().flatten()).any(|member| matches!(member, Member::Fresh(_)));
    for member in members.iter_mut().flatten() {
        if let Member::Ready {
            superblock, behind, ..
        } = member
        {
            *behind = fresh || superblock.set != set || superblock.state == State::Initialising;
        }
    }
    check_complete(&members, wanted)?;
    check_witnesses(&members, set.spares)?;
    let sequence = superblocks(places)
        .map(|(_, superblock)| superblock.sequence)
        .fold(newest.sequence, Sequence::max);
    Ok(Existing {
        set,
        members,
        sequence,
        added,
    })
}

/// Whether the spare is missing.
fn is_missing(place: &Place<'_>) -> bool {
    matches!(place, Place::Missing)
}

/// What `spare` is, which `set` counts; `as_it_is` when nothing may be written.
fn existing_member<'a>(
    spare: SpareIndex,
    place: &Place<'a>,
    places: &[Place<'a>],
    set: &mut Set,
    as_it_is: bool,
) -> Result<Member<'a>, Refusal> {
    let slots = set.slots_of.get(spare.get()).copied().unwrap_or_default();
    match *place {
        Place::Missing => {
            let witness = set
                .spares
                .witness_of(spare)
                .ok_or(Refusal::MissingUnknown(spare))?;
            match places.get(witness.get()) {
                Some(Place::Device { .. }) => Ok(Member::Missing { slots, witness }),
                _ => Err(Refusal::WitnessMissing {
                    missing: spare,
                    witness,
                }),
            }
        }
        Place::Device {
            found: Err(unusable),
            ..
        } => Err(Refusal::Unusable(spare, *unusable)),
        Place::Device {
            size,
            found: Ok(None),
        } if replaceable(spare, places, set) => {
            Ok(Member::Fresh(plan_last(spare, size, places, set)?))
        }
        Place::Device {
            found: Ok(None), ..
        } => Err(Refusal::Lost(spare)),
        Place::Device {
            size,
            found: Ok(Some(found)),
        } => {
            let superblock = &found.superblock;
            check_same_set(spare, superblock, set)?;
            if superblock.set.spares > set.spares {
                return Err(Refusal::Contradiction(spare));
            }
            if superblock.state == State::Initialising {
                return begun_member(spare, size, found, places, set, as_it_is);
            }
            if superblock.layout.slots() != slots {
                return Err(Refusal::Contradiction(spare));
            }
            Ok(ready(found))
        }
    }
}

/// A member that stays what it is.
const fn ready(found: &Found) -> Member<'_> {
    Member::Ready {
        superblock: &found.superblock,
        choice: &found.choice,
        behind: false,
    }
}

/// What `spare` is, which `set` counts, but of which only the beginning was `found`.
fn begun_member<'a>(
    spare: SpareIndex,
    size: Sectors,
    found: &'a Found,
    places: &[Place<'_>],
    set: &mut Set,
    as_it_is: bool,
) -> Result<Member<'a>, Refusal> {
    let superblock = &found.superblock;
    // With marks it is not the spare that its witness knows, but one that was given up.
    let used = was_used(spare, places, set).unwrap_or(false);
    if used || superblock.slot_mark != PageCount::ZERO {
        return Err(Refusal::Contradiction(spare));
    }
    let counted = set.slots_of.get_mut(spare.get());
    let counted = counted.ok_or(Refusal::Contradiction(spare))?;
    let slots = superblock.layout.slots();
    if *counted != slots {
        *counted = slots;
        // It is in the place of one with another size, and not all know that.
        if !replaceable(spare, places, set) {
            return Err(Refusal::Contradiction(spare));
        }
        if !as_it_is {
            return Ok(Member::Fresh(plan_last(spare, size, places, set)?));
        }
    }
    // Its witness pages are complete when there is a mark, and are what the slot pages are, as
    // nobody has changed a set since that counts a spare which is not ready: this one, and no other.
    let mut others = superblocks(places).filter(|(other, _)| *other != spare);
    let counted = |other: &Superblock| superblock.sequence.is_of_the_same_adding(other.sequence);
    if !others.all(|(_, other)| counted(other)) {
        if let Some((missing, _)) = indexed(places).find(|(_, place)| is_missing(place)) {
            return Err(Refusal::MissingWhileFresh {
                missing,
                fresh: spare,
            });
        }
        if !as_it_is {
            return Ok(Member::Fresh(superblock.layout));
        }
    }
    if as_it_is || superblock.witness_mark != PageCount::ZERO {
        return Ok(ready(found));
    }
    Ok(Member::Fresh(superblock.layout))
}

/// Whether slots of `spare`, which `set` counts, may ever have been used; [`None`] when the spare
/// is not there that keeps the witness of it.
///
/// A spare takes no block before its witness has a mark in both copies of the superblock, and that
/// goes back only when a spare is added behind this one.
fn was_used(spare: SpareIndex, places: &[Place<'_>], set: &Set) -> Option<bool> {
    let witness = set.spares.witness_of(spare)?;
    let Some((_, superblock)) = superblocks(places).find(|(other, _)| *other == witness) else {
        // One that holds nothing proves nothing.
        return matches!(places.get(witness.get()), Some(Place::Device { .. })).then_some(true);
    };
    Some(superblock.set.spares != set.spares || superblock.witness_mark != PageCount::ZERO)
}

/// Whether a spare that holds nothing may take the place of `spare`, which `set` counts: it is the
/// last one, and no block was ever on it.
fn replaceable(spare: SpareIndex, places: &[Place<'_>], set: &Set) -> bool {
    let last = set.spares.spares().last();
    last == Some(spare) && was_used(spare, places, set) == Some(false)
}

/// Plans `spare`, the last of `places`, as a further one of `set`, and counts it there.
fn plan_added(
    spare: SpareIndex,
    size: Sectors,
    found: &Option<Found>,
    places: &[Place<'_>],
    set: &mut Set,
) -> Result<Layout, Refusal> {
    let contradiction = Refusal::Contradiction(spare);
    if let Some(Found { superblock, .. }) = found {
        check_same_set(spare, superblock, set)?;
        // A member that no other one counts: it is of a set that has gone another way.
        if superblock.state == State::Ready {
            return Err(contradiction);
        }
    }
    let mut members = superblocks(places).filter(|(other, _)| *other != spare);
    if members.any(|(_, superblock)| superblock.state == State::Initialising) {
        return Err(Refusal::Count {
            given: count(places),
            stored: set.spares,
        });
    }
    if let Some((missing, _)) = indexed(places).find(|(_, place)| is_missing(place)) {
        return Err(Refusal::MissingWhileFresh {
            missing,
            fresh: spare,
        });
    }
    set.spares = SpareCount::new(places.len()).ok_or(contradiction)?;
    plan_last(spare, size, places, set)
}

/// Plans `spare`, the last of `places`, behind the other ones, and gives `set` its slots.
fn plan_last(
    spare: SpareIndex,
    size: Sectors,
    places: &[Place<'_>],
    set: &mut Set,
) -> Result<Layout, Refusal> {
    let contradiction = Refusal::Contradiction(spare);
    let mut members = superblocks(places).filter(|(other, _)| *other != spare);
    let first = members.next().ok_or(contradiction)?.1;
    let before = members.last().map_or(first, |(_, superblock)| superblock);
    let layout =
        Layout::plan_added(size, &before.layout, &first.layout).ok_or(Refusal::TooSmall(spare))?;
    *set.slots_of.get_mut(spare.get()).ok_or(contradiction)? = layout.slots();
    Ok(layout)
}

/// Checks that nothing has to be written that must not be: to a read-only table, or while a spare
/// is missing. The spare that knows what a missing one holds must have all of that.
fn check_complete(
    members: &[Option<Member<'_>>; MAX_SPARES],
    wanted: &Wanted,
) -> Result<(), Refusal> {
    let members = || {
        let members = members.iter().flatten().enumerate();
        members.filter_map(|(at, member)| Some((SpareIndex::new(at)?, member)))
    };
    let fresh = members().find(|(_, member)| matches!(member, Member::Fresh(_)));
    if let Some((fresh, _)) = fresh.filter(|_| wanted.read_only) {
        return Err(Refusal::ReadOnly(fresh));
    }
    for (missing, member) in members() {
        let Member::Missing { witness, .. } = member else {
            continue;
        };
        let knows_nothing = |(spare, member): &(SpareIndex, &Member<'_>)| {
            let Member::Ready { superblock, .. } = member else {
                return false;
            };
            spare == witness
                && superblock.state == State::Initialising
                && superblock.witness_mark == PageCount::ZERO
        };
        // One that has no slot pages yet may have been given up: then others have later superblocks,
        // besides that of its witness, which may have got the mark.
        let given_up = |(spare, member): &(SpareIndex, &Member<'_>)| {
            let Member::Ready { superblock, .. } = member else {
                return false;
            };
            let later = |(other, member): (SpareIndex, &Member<'_>)| match member {
                Member::Ready { superblock: it, .. } => {
                    other != SpareIndex::FIRST
                        && other != *spare
                        && it.sequence > superblock.sequence
                }
                _ => false,
            };
            superblock.state == State::Ready
                && superblock.slot_mark == PageCount::ZERO
                && members().any(later)
        };
        let unknown = |it: &(SpareIndex, &Member<'_>)| knows_nothing(it) || given_up(it);
        if let Some((fresh, _)) = fresh.or_else(|| members().find(unknown)) {
            return Err(Refusal::MissingWhileFresh { missing, fresh });
        }
    }
    Ok(())
}

/// Checks that each spare has room for the witness pages of the one before it.
fn check_witnesses(
    members: &[Option<Member<'_>>; MAX_SPARES],
    spares: SpareCount,
) -> Result<(), Refusal> {
    let layout = |spare: SpareIndex| match members.get(spare.get())?.as_ref()? {
        Member::Missing { .. } => None,
        Member::Fresh(layout) => Some(*layout),
        Member::Ready { superblock, .. } => Some(superblock.layout),
    };
    let pairs = spares
        .spares()
        .filter_map(|spare| Some((spare, spares.witness_of(spare)?)));
    for (spare, witness) in pairs {
        let pages = layout(spare).map(|layout| layout.slot_pages());
        if layout(witness).is_some_and(|layout| pages > Some(layout.witness_pages())) {
            return Err(Refusal::Contradiction(witness));
        }
    }
    Ok(())
}
