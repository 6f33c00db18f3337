// SPDX-License-Identifier: GPL-2.0

//! Words that come in and text that goes out.

use core::ffi::CStr;
use core::fmt;
use kernel::ffi::c_char;
use kernel::ffi::c_uint;
use kernel::str::CStrExt;

/// The words of a table line or of a message.
#[derive(Clone, Copy)]
pub(crate) struct Words<'a>(&'a [*mut c_char]);

impl<'a> Words<'a> {
    /// Wraps the words that device mapper has split.
    ///
    /// # Safety
    ///
    /// `argv` points to `argc` pointers to strings, or `argc` is 0, and all of that stays as it is for `'a`.
    pub(super) unsafe fn from_raw(argc: c_uint, argv: *mut *mut c_char) -> Self {
        if argc == 0 || argv.is_null() {
            return Self(&[]);
        }
        // SAFETY: By the requirements of this function; `c_uint` fits into `usize`.
        Self(unsafe { core::slice::from_raw_parts(argv, argc as usize) })
    }

    /// The words, one after the other.
    pub(crate) fn iter(self) -> impl Iterator<Item = &'a CStr> + Clone {
        self.0.iter().map(|word| {
            // SAFETY: By the requirements of `from_raw` every pointer is to a string that lives for `'a`.
            unsafe { CStr::from_char_ptr(*word) }
        })
    }
}

/// A buffer of device mapper that text is written to.
///
/// Text that does not fit is cut off where the buffer ends. Device mapper sees that the buffer is full and
/// tells its caller to come again with a larger one.
///
/// # Invariants
///
/// `len` is less than the size of the buffer, or both are zero. The bytes before `len` are not zero.
pub(crate) struct Text<'a> {
    buffer: &'a mut [u8],
    len: usize,
}

impl<'a> Text<'a> {
    /// Wraps a buffer.
    ///
    /// # Safety
    ///
    /// `buffer` points to `size` bytes that nobody else uses during `'a`.
    pub(super) unsafe fn from_raw(buffer: *mut c_char, size: c_uint) -> Self {
        // SAFETY: By the requirements of this function.
        let buffer = unsafe { core::slice::from_raw_parts_mut(buffer.cast::<u8>(), size as usize) };
        if let Some(first) = buffer.first_mut() {
            *first = 0;
        }
        // INVARIANT: Nothing is in the buffer.
        Self { buffer, len: 0 }
    }

    /// Whether nothing has been written.
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the buffer is so full that what comes now is cut off.
    pub(crate) fn is_full(&self) -> bool {
        self.len.saturating_add(1) >= self.buffer.len()
    }
}

impl fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes().filter(|byte| *byte != 0) {
            let end = self.len.saturating_add(1);
            let Some([place, terminator]) = self.buffer.get_mut(self.len..=end) else {
                break;
            };
            *place = byte;
            *terminator = 0;
            // INVARIANT: `end` indexed the terminator, so it is less than the size.
            self.len = end;
        }
        Ok(())
    }
}
