// SPDX-License-Identifier: GPL-2.0

//! What tells a set of spares and its main device from all others.

use core::fmt;

/// Bytes in a [`Uuid`].
pub const UUID_BYTES: usize = 16;

/// The most bytes that a [`MainId`] can have.
pub const MAIN_ID_BYTES: usize = 64;

/// The name of a set, which all its spares carry.
///
/// # Invariants
///
/// Not all bytes are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uuid([u8; UUID_BYTES]);

impl Uuid {
    /// The lengths of the groups of hexadecimal digits in the text form.
    const GROUPS: [usize; 5] = [8, 4, 4, 4, 12];

    /// The UUID with these bytes, which are in the order of the text form; [`None`] when all are
    /// zero.
    pub fn new(bytes: [u8; UUID_BYTES]) -> Option<Self> {
        // INVARIANT: Checked right here.
        (bytes != [0; UUID_BYTES]).then_some(Self(bytes))
    }

    /// A UUID of version 4 (RFC 9562, 5.4) from 16 random bytes.
    pub fn from_random(mut bytes: [u8; UUID_BYTES]) -> Self {
        let [_, _, _, _, _, _, version, _, variant, ..] = &mut bytes;
        *version = *version & 0x0f | 0x40;
        *variant = *variant & 0x3f | 0x80;
        // INVARIANT: Two bits were just set.
        Self(bytes)
    }

    /// The UUID that `word` spells in 8-4-4-4-12 hexadecimal digits of either case; [`None`] when
    /// it spells none.
    pub fn parse(word: &[u8]) -> Option<Self> {
        let mut groups = word.split(|byte| *byte == b'-');
        let mut digits = 0usize;
        let mut bytes = [0; UUID_BYTES];
        for length in Self::GROUPS {
            let group = groups.next().filter(|group| group.len() == length)?;
            for digit in group {
                let value = char::from(*digit).to_digit(16)?;
                // A hexadecimal digit has four bits.
                let byte = bytes.get_mut(digits >> 1)?;
                *byte = *byte << 4 | value as u8;
                digits = digits.checked_add(1)?;
            }
        }
        match groups.next() {
            Some(_) => None,
            None => Self::new(bytes),
        }
    }

    /// The bytes, in the order of the text form.
    pub const fn bytes(&self) -> &[u8; UUID_BYTES] {
        &self.0
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// A stable name for main, such as its WWN or serial number: up to 64 printable ASCII characters
/// without blanks. An empty one stands for "none was given".
///
/// # Invariants
///
/// Some bytes from 0x21 to 0x7e, then zeros to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MainId([u8; MAIN_ID_BYTES]);

impl MainId {
    /// None was given.
    pub const NONE: Self = Self([0; MAIN_ID_BYTES]);

    /// The name that `word` is; [`None`] when it is empty, too long or not printable.
    pub fn parse(word: &[u8]) -> Option<Self> {
        if word.is_empty() {
            return None;
        }
        let mut bytes = [0; MAIN_ID_BYTES];
        for (at, byte) in word.iter().enumerate() {
            *bytes.get_mut(at)? = *byte;
        }
        Self::from_bytes(bytes).filter(|id| id.as_str().len() == word.len())
    }

    /// The name with these bytes, as they are in a superblock; [`None`] when they are not
    /// printable characters followed by zeros.
    pub fn from_bytes(bytes: [u8; MAIN_ID_BYTES]) -> Option<Self> {
        let mut rest = bytes.iter().skip_while(|byte| byte.is_ascii_graphic());
        // INVARIANT: Checked right here.
        rest.all(|byte| *byte == 0).then_some(Self(bytes))
    }

    /// The bytes, as they are in a superblock.
    pub const fn bytes(&self) -> &[u8; MAIN_ID_BYTES] {
        &self.0
    }

    /// Whether none was given.
    pub fn is_none(&self) -> bool {
        *self == Self::NONE
    }

    /// The name as text, empty when none was given.
    pub fn as_str(&self) -> &str {
        let text = self.0.split(|byte| *byte == 0).next().unwrap_or_default();
        // Printable ASCII is UTF-8.
        core::str::from_utf8(text).unwrap_or_default()
    }
}

impl fmt::Display for MainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
