// SPDX-License-Identifier: GPL-2.0

//! Words that come in and text that goes out.

use core::ffi::CStr;
use core::fmt;
use kernel::ffi::c_char;
use kernel::ffi::c_uint;
use kernel::prelude::*;
use kernel::str::CStrExt;

/// The words of a table line or of a message, with memory of their own: the buffer that device mapper has a reply
/// written to is the one that the words of the message are in.
///
/// They may be longer than what `kmalloc()` gives: device mapper takes megabytes.
///
/// # Invariants
///
/// Every word ends with a zero byte and has no other.
pub(super) struct OwnedWords(KVVec<u8>);

impl OwnedWords {
    /// Copies the words that device mapper has split.
    ///
    /// # Safety
    ///
    /// `argv` points to `argc` pointers to strings, or `argc` is 0.
    pub(super) unsafe fn copy(argc: c_uint, argv: *mut *mut c_char) -> Result<Self> {
        let mut bytes = KVVec::new();
        for at in 0..argc as usize {
            // SAFETY: By the requirements of this function there are more than `at` pointers.
            let word = unsafe { argv.add(at) };
            // SAFETY: By the requirements of this function the pointer is there.
            let word = unsafe { *word };
            // SAFETY: By the requirements of this function it points to a string.
            let word = unsafe { CStr::from_char_ptr(word) };
            bytes.extend_from_slice(word.to_bytes_with_nul(), GFP_KERNEL)?;
        }
        // INVARIANT: Each word was copied with its terminator.
        Ok(Self(bytes))
    }

    /// The words.
    pub(super) fn words(&self) -> Words<'_> {
        Words(&self.0)
    }
}

/// The words of a table line or of a message.
#[derive(Clone, Copy)]
pub(crate) struct Words<'a>(&'a [u8]);

impl<'a> Words<'a> {
    /// The words, one after the other.
    pub(crate) fn iter(self) -> impl Iterator<Item = &'a CStr> + Clone {
        let words = self.0.split_inclusive(|byte| *byte == 0);
        words.filter_map(|word| CStr::from_bytes_with_nul(word).ok())
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
