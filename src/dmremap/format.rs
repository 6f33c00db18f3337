// SPDX-License-Identifier: GPL-2.0

//! The subcommand `format`.

use crate::blkid::Probe;
use crate::device::Access;
use crate::device::Device;
use crate::device::Main;
use crate::exit::Exit;
use crate::exit::Failure;
use crate::remap::assembly::Assembly;
use crate::remap::assembly::New;
use crate::remap::assembly::Wanted;
use crate::remap::geometry::superblock_place;
use crate::remap::geometry::End;
use crate::remap::geometry::SpareCount;
use crate::remap::geometry::PAGE_BYTES;
use crate::remap::geometry::PAGE_SECTORS;
use crate::remap::identity::MainId;
use crate::remap::identity::Uuid;
use crate::remap::units::BlockSize;
use crate::remap::units::Sectors;
use crate::remap::units::SpareIndex;
use crate::remap::units::UnixTime;
use crate::remap::words::decimal;
use crate::say;
use crate::spares::Spare;
use crate::spares::Spares;
use crate::writer::Writer;
use clap::Args;
use std::fs::File;
use std::io;
use std::io::Read;
use std::path::PathBuf;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

/// Makes a new set of spares, which loses what is on them.
#[derive(Args)]
pub struct Format {
    /// The spares, in the order that the table line will name them
    #[arg(required = true, value_name = "SPARE")]
    spares: Vec<PathBuf>,

    /// Main, or its size in sectors
    #[arg(long, value_name = "DEVICE|SECTORS")]
    main: Main,

    /// The unit of relocation, a power of two from 1 to 64 [default: the larger of 8 and main's physical block]
    #[arg(long, value_name = "SECTORS", value_parser = block_size)]
    block_size: Option<BlockSize>,

    /// A stable name for main, such as its WWN or serial number
    #[arg(long, value_name = "NAME", value_parser = main_id)]
    main_id: Option<MainId>,

    /// The name of the set [default: a random one]
    #[arg(long, value_parser = uuid)]
    uuid: Option<Uuid>,

    /// Overwrite what is on the spares
    #[arg(short, long)]
    force: bool,
}

/// Main, as far as a new set has to know it.
struct Measured {
    sectors: Sectors,
    physical: Sectors,
    logical: Sectors,
    device: Option<Device>,
}

impl Format {
    /// Does it.
    pub fn run(&self) -> Result<Exit, Failure> {
        if SpareCount::new(self.spares.len()).is_none() {
            return Err(Failure::new("a set has at most 15 spares"));
        }
        let mut spares = Spares::open_in_order(&self.spares)?;
        let main = Measured::new(&self.main)?;
        let used = self.look(&spares, &main)?;
        spares.forget();
        let new = self.plan(&spares, &main)?;
        for (_, spare) in spares.present().filter(|(index, _)| used.contains(index)) {
            clear(&spare.device).map_err(|error| {
                Failure::new(format!("{} cannot be overwritten: {error}", spare.device))
            })?;
        }
        let created = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let set = new.set(
            main.sectors,
            self.main_id.unwrap_or(MainId::NONE),
            random_uuid().map_err(|error| Failure::new(format!("no random numbers: {error}")))?,
            UnixTime::from_seconds(created.as_secs()),
        );
        let mut writer = Writer::new(&spares, set, None);
        for layout in new.layouts.into_iter().flatten() {
            writer.add_fresh(layout);
        }
        writer.make_set()?;
        let slots: u64 = set.slots_of.iter().map(|slots| u64::from(slots.0)).sum();
        say!(
            "set {}: room for {slots} blocks of {} sectors, for a main of {} sectors",
            set.uuid,
            set.block_size.sectors().0,
            set.main_sectors.0
        );
        Ok(Exit::Clean)
    }
}

impl Format {
    /// Sees to it that nothing is lost that nobody wants to lose: the spares on which there is something.
    fn look(&self, spares: &Spares, main: &Measured) -> Result<Vec<SpareIndex>, Failure> {
        let mut used = Vec::new();
        for (index, spare) in spares.present() {
            let device = &spare.device;
            let failed = |error| Failure::new(format!("{device} cannot be examined: {error}"));
            if let Some(main) = &main.device {
                if device.overlaps(main).map_err(failed)? {
                    return Err(Failure::new(format!(
                        "{device} is main, or shares sectors with it"
                    )));
                }
            }
            let Some(what) = contents(spare).map_err(failed)? else {
                continue;
            };
            if !self.force {
                return Err(Failure::new(format!(
                    "{device} holds {what}: if nobody needs that, overwrite it with --force"
                )));
            }
            say!("{device} holds {what}, which is overwritten");
            used.push(index);
        }
        Ok(used)
    }

    /// Decides on the set, as an activation would.
    fn plan(&self, spares: &Spares, main: &Measured) -> Result<New, Failure> {
        let logical = spares
            .present()
            .map(|(_, spare)| spare.device.logical_block());
        let most = logical.max().unwrap_or_default();
        if most > PAGE_SECTORS {
            return Err(Failure::new(
                "a spare has a logical block of more than 4096 bytes",
            ));
        }
        let least = main.logical.max(most);
        if self.block_size.is_some_and(|given| given.sectors() < least) {
            return Err(Failure::new(format!(
                "the block size is less than a logical block of main or of a spare, which has {} sectors",
                least.0
            )));
        }
        let default = BlockSize::default_for(main.physical, least);
        let wanted = Wanted {
            main_sectors: main.sectors,
            default_block_size: default.ok_or_else(|| {
                Failure::new("main or a spare has a block that is no power of two")
            })?,
            block_size: self.block_size,
            main_id: self.main_id,
            uuid: self.uuid,
            read_only: false,
        };
        match spares.assemble_as(&wanted)? {
            Assembly::New(new) => Ok(new),
            Assembly::Existing(_) => Err(Failure::new("the spares are a set already")),
        }
    }
}

impl Measured {
    /// Measures main.
    fn new(main: &Main) -> Result<Self, Failure> {
        let device = match main {
            Main::Sectors(_) => None,
            Main::Device(path) => Some(Device::open(path, Access::Read)?),
        };
        let block = |of: fn(&Device) -> Sectors| device.as_ref().map_or(Sectors(1), of);
        let sectors = main.sectors()?;
        if sectors == Sectors::ZERO {
            return Err(Failure::new("main has no sectors"));
        }
        Ok(Self {
            sectors,
            physical: block(Device::physical_block),
            logical: block(Device::logical_block),
            device,
        })
    }
}

/// What is on a spare; [`None`] when nothing is.
fn contents(spare: &Spare) -> io::Result<Option<String>> {
    if let Some(superblock) = spare.superblock() {
        return Ok(Some(format!(
            "{} of the set {}",
            superblock.spare, superblock.set.uuid
        )));
    }
    if let Some(what) = Probe::new(spare.device.file())?.find_next()? {
        return Ok(Some(what));
    }
    Ok(spare
        .found
        .is_err()
        .then(|| "something that is not known".into()))
}

/// Overwrites everything on a device by which somebody might know it.
fn clear(device: &Device) -> io::Result<()> {
    let mut probe = Probe::new(device.file())?;
    while probe.find_next()?.is_some() {
        probe.wipe()?;
    }
    for end in [End::Front, End::Back] {
        if let Some(place) = superblock_place(device.sectors(), end) {
            device.write(place, &[0; PAGE_BYTES])?;
        }
    }
    device.flush()
}

/// A UUID that nobody else has.
fn random_uuid() -> io::Result<Uuid> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(Uuid::from_random(bytes))
}

fn block_size(word: &str) -> Result<BlockSize, &'static str> {
    let sectors = decimal(word.as_bytes()).map(Sectors);
    sectors
        .and_then(BlockSize::new)
        .ok_or("it must be a power of two from 1 to 64")
}

fn main_id(word: &str) -> Result<MainId, &'static str> {
    MainId::parse(word.as_bytes()).ok_or("it must be 1 to 64 printable characters without blanks")
}

fn uuid(word: &str) -> Result<Uuid, &'static str> {
    Uuid::parse(word.as_bytes()).ok_or("it must be a UUID that is not all zero")
}
