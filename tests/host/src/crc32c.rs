// SPDX-License-Identifier: GPL-2.0

//! CRC32C (Castagnoli), which the module takes from the kernel.

/// The generator polynomial, reflected.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// What each value of a byte does to the remainder.
const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < table.len() {
        let mut remainder = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            remainder = remainder >> 1 ^ if remainder & 1 != 0 { POLYNOMIAL } else { 0 };
            bit += 1;
        }
        table[byte] = remainder;
        byte += 1;
    }
    table
};

/// The CRC32C of `bytes`, with the initial value and the final inversion all ones.
pub fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |remainder, byte| {
        TABLE[(remainder as u8 ^ byte) as usize] ^ remainder >> 8
    })
}
