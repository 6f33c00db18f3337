// SPDX-License-Identifier: GPL-2.0

//! What an error of a device says about its medium.
//!
//! Only media faults relocate blocks. A disk that is unplugged, a cable that is loose or a path that is down give errors too,
//! and to relocate for those would fill the spare with blocks that are not bad.

/// What an error says about the medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The medium is bad at this place.
    Medium,
    /// Perhaps: a plain I/O error. It counts as a fault of the medium while other places of the device answer.
    Unclear,
    /// Nothing: it is of the path, the target, the submitter, or of memory.
    Elsewhere,
}

/// `EIO`: what becomes of `BLK_STS_IOERR`, and of anything that has no more precise name.
const EIO: i32 = 5;
/// `ENODATA`: what becomes of `BLK_STS_MEDIUM`.
const ENODATA: i32 = 61;

impl Fault {
    /// What the error number (positive) of a request says: that of its `blk_status_t`, as `blk_errors` of `block/blk-core.c` has
    /// it.
    pub const fn of(errno: i32) -> Self {
        match errno {
            ENODATA => Self::Medium,
            EIO => Self::Unclear,
            _ => Self::Elsewhere,
        }
    }
}
