// SPDX-License-Identifier: GPL-2.0

//! A block device, or an image of one.

use crate::exit::Failure;
use crate::remap::geometry::PAGE_BYTES;
use crate::remap::page::Page;
use crate::remap::units::Sectors;
use crate::remap::units::SpareSector;
use crate::remap::words::decimal;
use rustix::fs::Advice;
use rustix::fs::FlockOperation;
use rustix::fs::OFlags;
use std::convert::Infallible;
use std::fmt;
use std::fs::File;
use std::fs::Metadata;
use std::fs::OpenOptions;
use std::io;
use std::io::Seek;
use std::io::SeekFrom;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::str::FromStr;

/// What a device is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// To read, also when somebody else uses it.
    Read,
    /// To read and write, and nobody else may use it.
    Write,
}

/// A block device, or an image of one, that is open.
pub struct Device {
    path: PathBuf,
    file: File,
    sectors: Sectors,
    in_use: bool,
}

impl Device {
    /// Opens the device at `path`.
    pub fn open(path: &Path, access: Access) -> Result<Self, Failure> {
        let failed = |what: &str, error: io::Error| {
            Failure::new(format!("{} cannot be {what}: {error}", path.display()))
        };
        let kind = path
            .metadata()
            .map_err(|error| failed("opened", error))?
            .file_type();
        if !kind.is_block_device() && !kind.is_file() {
            return Err(Failure::new(format!(
                "{} is neither a block device nor a file",
                path.display()
            )));
        }
        let options = |exclusive: bool| {
            let flags = if exclusive && kind.is_block_device() {
                OFlags::EXCL
            } else {
                OFlags::empty()
            };
            let mut options = OpenOptions::new();
            // The bits of all flags are those of the C library, which has them in an int.
            options
                .read(true)
                .write(access == Access::Write)
                .custom_flags(flags.bits() as i32);
            options
        };
        let refusal = || {
            Failure::new(format!(
                "{} is in use: first end what uses it, such as a mapped device, a mounted filesystem or another dmremap",
                path.display()
            ))
        };
        let mut in_use = false;
        let mut file = match options(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                // Some kernels let nobody write what is mounted.
                if access == Access::Write {
                    return Err(refusal());
                }
                in_use = true;
                options(false).open(path)
            }
            // Only a writer keeps others away.
            Ok(_) if access == Access::Read => options(false).open(path),
            other => other,
        }
        .map_err(|error| failed("opened", error))?;
        if kind.is_file() {
            let lock = match access {
                Access::Read => FlockOperation::NonBlockingLockShared,
                Access::Write => FlockOperation::NonBlockingLockExclusive,
            };
            in_use = rustix::fs::flock(&file, lock).is_err() || is_attached(path);
        }
        if in_use && access == Access::Write {
            return Err(refusal());
        }
        let bytes = file
            .seek(SeekFrom::End(0))
            .map_err(|error| failed("measured", error))?;
        // Device mapper writes past the page cache, which may have old pages while somebody has the device open. Where
        // this cannot be told, there is no such cache.
        let _ = rustix::fs::fadvise(&file, 0, 0, Advice::DontNeed);
        Ok(Self {
            path: path.to_owned(),
            file,
            sectors: Sectors(bytes / 512),
            in_use,
        })
    }

    /// Its size.
    pub fn sectors(&self) -> Sectors {
        self.sectors
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether somebody else uses it, so that it may change at any time.
    pub fn is_in_use(&self) -> bool {
        self.in_use
    }

    /// Reads a page.
    pub fn read(&self, place: SpareSector) -> io::Result<Page> {
        let mut page = [0; PAGE_BYTES];
        self.file.read_exact_at(&mut page, place.0 * 512)?;
        Ok(page)
    }

    /// Writes a page.
    pub fn write(&self, place: SpareSector, page: &Page) -> io::Result<()> {
        self.file.write_all_at(page, place.0 * 512)
    }

    /// Makes stable what was written.
    pub fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// The open device.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The sectors that it is told to write at least, as a whole.
    pub fn logical_block(&self) -> Sectors {
        in_sectors(rustix::fs::ioctl_blksszget(&self.file))
    }

    /// The sectors that it writes at least, as a whole.
    pub fn physical_block(&self) -> Sectors {
        in_sectors(rustix::fs::ioctl_blkpbszget(&self.file))
    }

    /// Whether this device and `other` are the same, or one is a part of the other.
    pub fn overlaps(&self, other: &Self) -> io::Result<bool> {
        let (own, theirs) = (self.file.metadata()?, other.file.metadata()?);
        if (own.dev(), own.ino()) == (theirs.dev(), theirs.ino()) {
            return Ok(true);
        }
        let folder = |it: &Metadata| {
            let (major, minor) = (rustix::fs::major(it.rdev()), rustix::fs::minor(it.rdev()));
            Path::new(&format!("/sys/dev/block/{major}:{minor}")).canonicalize()
        };
        if !own.file_type().is_block_device() || !theirs.file_type().is_block_device() {
            return Ok(false);
        }
        let (own, theirs) = (folder(&own)?, folder(&theirs)?);
        // The folder of a partition lies in that of its disk.
        Ok(own.starts_with(&theirs) || theirs.starts_with(&own))
    }
}

/// How main is named on the command line.
#[derive(Clone, Debug)]
pub enum Main {
    /// By its size.
    Sectors(Sectors),
    /// By itself.
    Device(PathBuf),
}

impl Main {
    /// Its size.
    pub fn sectors(&self) -> Result<Sectors, Failure> {
        match self {
            Self::Sectors(sectors) => Ok(*sectors),
            Self::Device(path) => Ok(Device::open(path, Access::Read)?.sectors()),
        }
    }
}

impl FromStr for Main {
    type Err = Infallible;

    fn from_str(word: &str) -> Result<Self, Infallible> {
        Ok(match decimal(word.as_bytes()) {
            Some(sectors) => Self::Sectors(Sectors(sectors)),
            None => Self::Device(word.into()),
        })
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

/// A size in bytes that the kernel told, in sectors; an image has no such sizes.
fn in_sectors(bytes: rustix::io::Result<u32>) -> Sectors {
    Sectors(u64::from(bytes.unwrap_or(512)) / 512)
}

/// Whether the file at `path` is the image of a loop device.
fn is_attached(path: &Path) -> bool {
    let (Ok(path), Ok(disks)) = (path.canonicalize(), Path::new("/sys/block").read_dir()) else {
        return false;
    };
    disks.flatten().any(|disk| {
        std::fs::read(disk.path().join("loop/backing_file"))
            .is_ok_and(|file| file.trim_ascii_end() == path.as_os_str().as_encoded_bytes())
    })
}
