// SPDX-License-Identifier: GPL-2.0

//! Words of a table line or a message, and the numbers in them.

/// The value of a word of decimal digits; [`None`] for anything else, and from 2^64 on.
///
/// No sign, no blank and no other base: a word that could be meant otherwise is refused.
pub fn decimal(word: &[u8]) -> Option<u64> {
    if word.is_empty() {
        return None;
    }
    word.iter().try_fold(0u64, |value, &digit| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit <= 9)?;
        value.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// The value of a word of decimal digits that fits into 32 bits.
pub fn decimal_u32(word: &[u8]) -> Option<u32> {
    decimal(word).and_then(|value| u32::try_from(value).ok())
}
