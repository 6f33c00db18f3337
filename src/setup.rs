// SPDX-License-Identifier: GPL-2.0

//! From the arguments of a table line to the configuration of an instance.
//!
//! Everything that can be checked without reading a spare is checked here. Nothing is written.

use crate::block::device::BlockDevice;
use crate::dm::device::DeviceId;
use crate::dm::target::Refusal;
use crate::dm::target::Setup;
use crate::dm::text::Words;
use crate::remap::geometry::plan_set;
use crate::remap::geometry::SpareCount;
use crate::remap::geometry::PAGE_BYTES;
use crate::remap::options::Options;
use crate::remap::table_line;
use crate::remap::table_line::Features;
use crate::remap::units::BlockSize;
use crate::remap::units::Sectors;
use crate::remap::units::MAX_SPARES;
use kernel::prelude::*;

/// Main: it is opened before the spares.
pub(crate) const MAIN: DeviceId = DeviceId::FIRST;

/// What a table line says, with its devices open.
pub(crate) struct Config {
    /// The number of spares.
    pub(crate) count: SpareCount,
    /// The spares; [`None`] for one that is missing, and beyond the last one.
    pub(crate) spares: [Option<DeviceId>; MAX_SPARES],
    /// The feature arguments.
    pub(crate) features: Features,
    /// Whether nothing may be written to any device.
    pub(crate) read_only: bool,
    /// The sectors of a logical block of the mapped device: every request is for whole ones.
    pub(crate) logical_sectors: usize,
    /// The block size of a new set that is given none.
    pub(crate) default_block_size: BlockSize,
}

impl Config {
    /// Reads and checks the arguments, and opens the devices.
    pub(crate) fn new(words: Words<'_>, setup: &mut Setup<'_>) -> Result<Self, Refusal> {
        let arguments = words.iter().map(CStr::to_bytes);
        let line = table_line::Config::parse(arguments).map_err(Refusal::invalid)?;
        // The grammar takes words in this order, so that they can be given to device mapper as they came.
        let mut paths = words.iter();
        open(setup, paths.next(), c"main_dev cannot be opened")?;
        let mut spares = [None; MAX_SPARES];
        for (spare, (named, path)) in
            (spares.iter_mut()).zip(line.spares().iter().zip(paths.skip(1)))
        {
            if named.is_some() {
                *spare = Some(open(setup, Some(path), c"spare_dev cannot be opened")?);
            }
        }
        let mut config = Self {
            count: line.count,
            spares,
            features: line.features,
            read_only: setup.is_read_only(),
            logical_sectors: 1,
            default_block_size: BlockSize::DEFAULT,
        };
        config.check_devices(setup)?;
        config.check_block_size(setup)?;
        Ok(config)
    }

    /// The options that the table line gives to a set without any.
    pub(crate) fn options(&self) -> Options {
        self.features.options(Options::DEFAULT)
    }

    /// The devices of the spares that are there.
    fn spare_devices<'s>(
        &'s self,
        setup: &'s Setup<'_>,
    ) -> impl Iterator<Item = &'s BlockDevice> + Clone {
        let present = self.spares.iter().flatten();
        present.filter_map(|spare| setup.device(*spare))
    }

    /// Checks that the devices can be used together.
    fn check_devices(&self, setup: &Setup<'_>) -> Result<(), Refusal> {
        let refuse = |reason| Err(Refusal::invalid(reason));
        let Some(main) = setup.device(MAIN) else {
            return refuse(c"main_dev cannot be opened");
        };
        if main.is_zoned() {
            return refuse(c"main_dev is a zoned device, which cannot be remapped");
        }
        if main.is_read_only() && !self.read_only {
            return refuse(c"main_dev is read-only, but the table is not");
        }
        if main.sectors() < setup.sectors() {
            return refuse(c"main_dev is smaller than the length of the table line");
        }
        for (at, spare) in self.spare_devices(setup).enumerate() {
            if spare.is_zoned() {
                return refuse(c"spare_dev is a zoned device, which cannot hold blocks");
            }
            if spare.is_read_only() && !self.read_only {
                return refuse(c"spare_dev is read-only, but the table is not");
            }
            if spare.overlaps(main) {
                return refuse(c"spare_dev is main_dev, or shares sectors with it");
            }
            if self
                .spare_devices(setup)
                .take(at)
                .any(|other| spare.overlaps(other))
            {
                return refuse(
                    c"spare_dev is named twice, or shares sectors with another spare_dev",
                );
            }
        }
        Ok(())
    }

    /// Checks the block size against the devices, and finds the default.
    fn check_block_size(&mut self, setup: &Setup<'_>) -> Result<(), Refusal> {
        let refuse = |reason| Err(Refusal::invalid(reason));
        let main = setup
            .device(MAIN)
            .map_or(512, BlockDevice::logical_block_size);
        let spares = self
            .spare_devices(setup)
            .map(BlockDevice::logical_block_size);
        let logical = spares.fold(main, u32::max) / 512;
        if u64::from(logical) > BlockSize::MAX.0 {
            return refuse(c"main_dev or spare_dev has a logical block of more than 64 sectors");
        }
        let page = PAGE_BYTES as u32;
        if self
            .spare_devices(setup)
            .any(|spare| spare.logical_block_size() > page)
        {
            return refuse(c"spare_dev has a logical block of more than 4096 bytes");
        }
        let physical = setup
            .device(MAIN)
            .map_or(512, BlockDevice::physical_block_size)
            / 512;
        let sectors = |count: u32| Sectors(count.into());
        let Some(default) = BlockSize::default_for(sectors(physical), sectors(logical)) else {
            return refuse(c"main_dev has a block that is no power of two");
        };
        if let Some(given) = self.features.block_size {
            if given.sectors().0 < logical.into() {
                return refuse(c"block_size is less than a logical block of main_dev or spare_dev");
            }
        }
        // What is found on the spares may have a smaller block than a new set would get.
        let smallest = BlockSize::new(Sectors(logical.into())).unwrap_or(default);
        let smallest = self.features.block_size.unwrap_or(smallest);
        let fits = |spare: &BlockDevice| plan_set(&[Sectors(spare.sectors())], smallest).is_ok();
        if !self.spare_devices(setup).all(fits) {
            return refuse(c"spare_dev is too small: give a larger one");
        }
        self.logical_sectors = logical as usize;
        self.default_block_size = default;
        Ok(())
    }
}

/// Opens a device.
fn open(
    setup: &mut Setup<'_>,
    path: Option<&CStr>,
    reason: &'static CStr,
) -> Result<DeviceId, Refusal> {
    path.ok_or(EINVAL)
        .and_then(|path| setup.open(path))
        .map_err(|error| Refusal { reason, error })
}
