// SPDX-License-Identifier: GPL-2.0

//! Numbers with a fraction are as exact as they say, beside what `tests/vectors/generate-functions`
//! computed with 50 digits.

use std::fs;

use dm_remap_host::remap::health::gamma::at_most;
use dm_remap_host::remap::health::gamma::normal;
use dm_remap_host::remap::health::real::Real;
use proptest::prelude::*;

const VECTORS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../vectors/functions.tsv");

/// The number as the tests' floating point has it, which is exact.
fn float(number: Real) -> f64 {
    let parts = u64::from_le_bytes(number.to_bytes());
    f64::from((parts >> 32) as i32) * f64::from(parts as i32).exp2()
}

/// The number next to `value`.
fn real(value: f64) -> Real {
    if value == 0.0 {
        return Real::ZERO;
    }
    let exponent = value.abs().log2().floor() as i32 - 30;
    let mantissa = (value / f64::from(exponent).exp2()) as i64;
    let number = Real::whole(mantissa.unsigned_abs()) * power_of_two(exponent);
    if mantissa < 0 {
        -number
    } else {
        number
    }
}

fn power_of_two(exponent: i32) -> Real {
    let factor = if exponent < 0 {
        Real::ratio(1, 2)
    } else {
        Real::ratio(2, 1)
    };
    (0..exponent.abs()).fold(Real::ONE, |power, _| power * factor)
}

/// The distance of `value` from `expected`, relative to that.
fn relative(value: f64, expected: f64) -> f64 {
    (value / expected - 1.0).abs()
}

/// Each function, at places all over its range.
#[test]
fn functions() {
    let text = fs::read_to_string(VECTORS).expect("the vectors can be read");
    let mut counts = [0; 5];
    for line in text.lines() {
        let (name, numbers) = line.split_once('\t').expect("a function has a name");
        let numbers: Vec<f64> = numbers
            .split('\t')
            .map(|number| number.parse().expect("a number"))
            .collect();
        let x = real(numbers[0]);
        let expected = *numbers.last().expect("a result");
        // The argument is rounded, too, by at most 2^-30 of it.
        let (function, is_close) = match name {
            "ln" => (0, (float(x.ln()) - expected).abs() < 4e-8),
            "sqrt" => (1, relative(float(x.sqrt()), expected) < 4e-9),
            "exp" => {
                let bound = if numbers[0].abs() <= 16.0 { 4e-8 } else { 1e-6 };
                (2, relative(float(x.exp()), expected) < bound)
            }
            "normal" => (3, (float(normal(x)) - expected).abs() < 1e-7),
            "gamma" => {
                let value = float(at_most(x, real(numbers[1])));
                (4, (value - expected).abs() < 0.002)
            }
            other => panic!("there is no function {other}"),
        };
        assert!(is_close, "{line}");
        counts[function] += 1;
    }
    assert!(counts.iter().all(|&count| count >= 16), "{counts:?}");
}

/// What is beyond the range is the largest number, or zero, and never a panic.
#[test]
fn extremes() {
    let largest = Real::ONE / Real::ZERO;
    assert_eq!(largest * largest, largest);
    assert_eq!(largest + largest, largest);
    assert_eq!(largest.exp(), largest);
    assert_eq!(largest.floor(), u64::MAX);
    assert_eq!((-largest).exp(), Real::ZERO);
    assert_eq!((-largest).floor(), 0);
    assert_eq!(Real::ONE / largest / largest, Real::ZERO);
    assert_eq!(largest - largest, Real::ZERO);
    assert!(Real::ZERO.ln().is_below(-Real::whole(2000)));
    assert_eq!(Real::whole(u64::MAX).floor(), u64::MAX - 0x1_ffff_ffff);
    assert_eq!(at_most(Real::ZERO, Real::ONE), Real::ONE);
    assert_eq!(at_most(largest, Real::ZERO), Real::ZERO);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 5 } else { 2000 }))]

    /// Sums, products and quotients are those of floating point, but for the last bits.
    #[test]
    fn arithmetic(a in -1e12..1e12f64, b in -1e12..1e12f64, small in 1e-9..1.0f64) {
        for (a, b) in [(a, b), (a * small, b), (a, b * small)] {
            let (x, y) = (real(a), real(b));
            let error = 4e-9;
            prop_assert!((float(x + y) - (a + b)).abs() <= error * a.abs().max(b.abs()));
            prop_assert!((float(x - y) - (a - b)).abs() <= error * a.abs().max(b.abs()));
            prop_assert!((float(x * y) - a * b).abs() <= error * (a * b).abs());
            prop_assert!((float(x / y) - a / b).abs() <= error * (a / b).abs());
            prop_assert_eq!(x.is_below(y), float(x) < float(y));
            prop_assert_eq!(float(x.max(y)), float(x).max(float(y)));
            prop_assert_eq!(float(x.min(y)), float(x).min(float(y)));
            prop_assert_eq!(x.floor(), float(x).max(0.0) as u64);
        }
    }

    /// A whole number keeps its first 31 bits.
    #[test]
    fn whole_numbers(number: u64, shift in 0u32..64) {
        let number = number >> shift;
        let lost = 64u32.saturating_sub(number.leading_zeros() + 31);
        prop_assert_eq!(Real::whole(number).floor(), number >> lost << lost);
    }

    /// Bytes are a number when they are what the number is stored as, and whatever they are, no
    /// function panics.
    #[test]
    fn stored(a: [u8; 8], b: [u8; 8]) {
        // The top bits make most of them numbers.
        let bytes = |mut bytes: [u8; 8]| {
            let negative = bytes[7] & 0x80 != 0;
            bytes[7] = if negative { bytes[7] & 0xbf } else { bytes[7] | 0x40 };
            let low = bytes[2] & 0x80 != 0;
            bytes[1] = if low { bytes[1] | 0xf0 } else { bytes[1] & 0x0f };
            (bytes[2], bytes[3]) = if low { (0xff, 0xff) } else { (0, 0) };
            bytes
        };
        for stored in [a, bytes(a), b] {
            if let Some(number) = Real::from_bytes(stored) {
                prop_assert_eq!(number.to_bytes(), stored);
            }
        }
        if let (Some(x), Some(y)) = (Real::from_bytes(bytes(a)), Real::from_bytes(bytes(b))) {
            for number in [x + y, x - y, x * y, x / y, x.ln(), x.exp(), x.sqrt(), normal(x), at_most(x, y)] {
                prop_assert_eq!(Real::from_bytes(number.to_bytes()), Some(number));
            }
        }
    }

    /// The distribution of the gamma distribution grows with its value and falls with its shape.
    #[test]
    fn gamma_is_monotonic(shape in 0.01..100f64, x in 0.001..300f64, factor in 1.1..3f64) {
        let value = |shape: f64, x: f64| float(at_most(real(shape), real(x)));
        prop_assert!((0.0..=1.0).contains(&value(shape, x)));
        // As far as it is exact.
        prop_assert!(value(shape, x * factor) >= value(shape, x) - 5e-4);
        prop_assert!(value(shape * factor, x) <= value(shape, x) + 2e-3);
    }
}
