// SPDX-License-Identifier: GPL-2.0

//! The spares of a set, in its order.

use crate::device::Access;
use crate::device::Device;
use crate::exit::Failure;
use crate::remap::assembly::assemble;
use crate::remap::assembly::Assembly;
use crate::remap::assembly::Place;
use crate::remap::assembly::Refusal;
use crate::remap::assembly::Wanted;
use crate::remap::geometry::superblock_place;
use crate::remap::geometry::End;
use crate::remap::page::Page;
use crate::remap::superblock;
use crate::remap::superblock::Found;
use crate::remap::superblock::State;
use crate::remap::superblock::Superblock;
use crate::remap::superblock::Unusable;
use crate::remap::units::BlockSize;
use crate::remap::units::Sectors;
use crate::remap::units::SpareIndex;
use crate::remap::units::MAX_SPARES;
use std::collections::HashSet;
use std::path::Path;
use std::path::PathBuf;

pub use crc32c::crc32c;

/// A spare that is there.
pub struct Spare {
    /// The device.
    pub device: Device,
    /// What its superblock says, as activation reads it.
    pub found: Result<Option<Found>, Unusable>,
}

impl Spare {
    /// Opens a spare, and reads its superblock.
    fn open(path: &Path, access: Access) -> Result<Self, Failure> {
        let device = Device::open(path, access)?;
        let page = |end| read_superblock_page(&device, end);
        let (front, back) = (page(End::Front), page(End::Back));
        let found = superblock::read(front.as_ref(), back.as_ref(), crc32c);
        Ok(Self { device, found })
    }

    /// One copy of its superblock; [`None`] when it cannot be read, or says something else than it did before.
    pub fn superblock_page(&self, end: End) -> Option<Page> {
        let page = read_superblock_page(&self.device, end)?;
        let superblock = Superblock::decode(&page, crc32c).ok()?;
        (Some(&superblock) == self.superblock()).then_some(page)
    }

    /// What its superblock says, if there is a good one.
    pub fn superblock(&self) -> Option<&Superblock> {
        Some(&self.found.as_ref().ok()?.as_ref()?.superblock)
    }
}

fn read_superblock_page(device: &Device, end: End) -> Option<Page> {
    device.read(superblock_place(device.sectors(), end)?).ok()
}

/// The spares of a set, in its order; [`None`] for one that was not given.
pub struct Spares(Vec<Option<Spare>>);

impl Spares {
    /// Opens the spares at `paths`, which are in any order: what says its index comes to its place, and all else where
    /// there is a place left.
    pub fn open(paths: &[PathBuf], access: Access) -> Result<Self, Failure> {
        check_once(paths)?;
        let mut spares = Self(Vec::new());
        let mut others = Vec::new();
        for path in paths {
            let spare = Spare::open(path, access)?;
            match spare.superblock().map(|superblock| superblock.spare) {
                Some(index) => spares.put(index, spare)?,
                None => others.push(spare),
            }
        }
        if let Some(newest) = spares.newest() {
            let count = newest.set.spares.get();
            while spares.0.len() < count {
                spares.0.push(None);
            }
        }
        for spare in others {
            match spares.0.iter_mut().find(|place| place.is_none()) {
                Some(place) => *place = Some(spare),
                None => spares.0.push(Some(spare)),
            }
        }
        if spares.0.len() > MAX_SPARES {
            return Err(Failure::new("a set has at most 15 spares"));
        }
        Ok(spares)
    }

    /// Opens the spares at `paths`, which are in the order that they shall have.
    pub fn open_in_order(paths: &[PathBuf]) -> Result<Self, Failure> {
        check_once(paths)?;
        let spares = paths.iter().map(|path| Spare::open(path, Access::Write));
        Ok(Self(
            spares
                .map(|spare| spare.map(Some))
                .collect::<Result<_, _>>()?,
        ))
    }

    /// Forgets what the superblocks say: nothing is to be there.
    pub fn forget(&mut self) {
        for spare in self.0.iter_mut().flatten() {
            spare.found = Ok(None);
        }
    }

    /// Puts a spare where its superblock says that it belongs.
    fn put(&mut self, index: SpareIndex, spare: Spare) -> Result<(), Failure> {
        while self.0.len() <= index.get() {
            self.0.push(None);
        }
        match &mut self.0[index.get()] {
            Some(other) => Err(Failure::new(format!(
                "{} and {} both are {index} of a set: name only the spares of one set, each once",
                other.device, spare.device
            ))),
            place => {
                *place = Some(spare);
                Ok(())
            }
        }
    }

    /// The spares that are there.
    pub fn present(&self) -> impl Iterator<Item = (SpareIndex, &Spare)> {
        let spares = self.0.iter().enumerate();
        spares.filter_map(|(at, spare)| Some((SpareIndex::new(at)?, spare.as_ref()?)))
    }

    /// The spare with this index.
    pub fn get(&self, index: SpareIndex) -> Option<&Spare> {
        self.0.get(index.get())?.as_ref()
    }

    /// The newest superblock that there is: of a spare that is ready, unless none is.
    pub fn newest(&self) -> Option<&Superblock> {
        let superblocks = self.present().filter_map(|(_, spare)| spare.superblock());
        superblocks.max_by_key(|superblock| (superblock.state == State::Ready, superblock.sequence))
    }

    /// Finds out what the spares are together, as an activation with them would.
    ///
    /// Main has `main` sectors, or as many as it should have.
    pub fn assemble(&self, main: Option<Sectors>) -> Result<Assembly<'_>, Refusal> {
        let stored = self.newest().map(|superblock| superblock.set.main_sectors);
        self.assemble_as(&Wanted {
            main_sectors: main.or(stored).unwrap_or_default(),
            default_block_size: BlockSize::DEFAULT,
            block_size: None,
            main_id: None,
            uuid: None,
            read_only: false,
        })
    }

    /// Finds out what the spares are together, as an activation that wants this would.
    pub fn assemble_as(&self, wanted: &Wanted) -> Result<Assembly<'_>, Refusal> {
        let places = self.0.iter().map(|spare| match spare {
            None => Place::Missing,
            Some(spare) => Place::Device {
                size: spare.device.sectors(),
                found: &spare.found,
            },
        });
        assemble(&places.collect::<Vec<_>>(), wanted)
    }
}

/// Refuses what is named twice: it would be in use by ourselves.
fn check_once(paths: &[PathBuf]) -> Result<(), Failure> {
    let mut seen = HashSet::new();
    let mut paths = paths.iter().filter_map(|path| path.canonicalize().ok());
    match paths.find(|path| !seen.insert(path.clone())) {
        Some(path) => Err(Failure::new(format!("{} is named twice", path.display()))),
        None => Ok(()),
    }
}
