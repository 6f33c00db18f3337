// SPDX-License-Identifier: GPL-2.0

//! What libblkid knows of the contents of a device. All `unsafe` of the tool is here.

#![expect(unsafe_code, reason = "libblkid is a C library")]

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::os::fd::AsRawFd;
use std::ptr;
use std::ptr::NonNull;

/// The bindings that `build.rs` makes.
mod bindings {
    #![expect(non_camel_case_types, reason = "the names are those of C")]
    include!(concat!(env!("OUT_DIR"), "/blkid.rs"));
}

/// The search for everything on a device that tells what it holds.
///
/// # Invariants
///
/// `probe` is valid, and owned by this.
pub struct Probe<'a> {
    probe: NonNull<bindings::blkid_struct_probe>,
    /// The probe uses its descriptor.
    device: PhantomData<&'a File>,
}

impl<'a> Probe<'a> {
    /// Begins to search the device that is open as `file`.
    pub fn new(file: &'a File) -> io::Result<Self> {
        // SAFETY: This has no precondition.
        let probe = unsafe { bindings::blkid_new_probe() };
        let failed = || io::Error::other("libblkid cannot read it");
        // INVARIANT: It was just made, and is nobody else's.
        let search = Self {
            probe: NonNull::new(probe).ok_or_else(failed)?,
            device: PhantomData,
        };
        // SAFETY: The probe is valid by the invariant, and the descriptor is open for longer than it lives.
        let mut status = unsafe { bindings::blkid_probe_set_device(probe, file.as_raw_fd(), 0, 0) };
        // SAFETY: The probe is valid by the invariant.
        status |= unsafe { bindings::blkid_probe_enable_superblocks(probe, 1) };
        let flags = bindings::BLKID_SUBLKS_TYPE | bindings::BLKID_SUBLKS_MAGIC;
        // SAFETY: As above.
        status |= unsafe { bindings::blkid_probe_set_superblocks_flags(probe, flags as i32) };
        // SAFETY: As above.
        status |= unsafe { bindings::blkid_probe_enable_partitions(probe, 1) };
        let flags = bindings::BLKID_PARTS_MAGIC as i32;
        // SAFETY: As above.
        status |= unsafe { bindings::blkid_probe_set_partitions_flags(probe, flags) };
        if status == 0 {
            Ok(search)
        } else {
            Err(failed())
        }
    }

    /// Searches on, and names the filesystem, partition table or the like that is found next, if there is one.
    pub fn find_next(&mut self) -> io::Result<Option<String>> {
        // SAFETY: The probe is valid by the invariant.
        match unsafe { bindings::blkid_do_probe(self.probe.as_ptr()) } {
            0 => {
                let kind = self.value(c"TYPE").or_else(|| self.value(c"PTTYPE"));
                Ok(Some(kind.unwrap_or_else(|| "something".into())))
            }
            1 => Ok(None),
            _ => Err(io::Error::other("libblkid cannot read it")),
        }
    }

    /// Overwrites what was found last, so far that nobody finds it again.
    pub fn wipe(&mut self) -> io::Result<()> {
        // SAFETY: The probe is valid by the invariant.
        match unsafe { bindings::blkid_do_wipe(self.probe.as_ptr(), 0) } {
            0 => Ok(()),
            _ => Err(io::Error::other("libblkid cannot overwrite it")),
        }
    }

    /// A value of what was found last.
    fn value(&self, name: &CStr) -> Option<String> {
        let name = name.to_bytes_with_nul().as_ptr().cast();
        let mut value = ptr::null();
        // SAFETY: The probe is valid by the invariant, the name ends with a zero, there is a place for the value, and
        // none is needed for its length.
        let status = unsafe {
            bindings::blkid_probe_lookup_value(
                self.probe.as_ptr(),
                name,
                &mut value,
                ptr::null_mut(),
            )
        };
        if status != 0 || value.is_null() {
            return None;
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "the replacement is one of the kernel"
        )]
        // SAFETY: The value is a string that the probe keeps until it searches on, which needs `&mut self`.
        let value = unsafe { CStr::from_ptr(value) };
        Some(value.to_string_lossy().into_owned())
    }
}

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        // SAFETY: The probe is valid by the invariant, and not used any more.
        unsafe { bindings::blkid_free_probe(self.probe.as_ptr()) };
    }
}
