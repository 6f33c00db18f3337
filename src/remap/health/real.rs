// SPDX-License-Identifier: GPL-2.0

//! Numbers with a fraction, in integer arithmetic: the kernel has no floating point.
//!
//! A [`Real`] is a mantissa of 31 bits and an exponent, because the health model multiplies rates of
//! one block in years by spares of millions of blocks, and no fixed point has room for both. Sums,
//! products, quotients and roots are within 2^-29 of the exact ones, relative to the larger operand.
//! Nothing here panics: what would be too large is the largest number, what would be too small is 0.

use core::ops::Add;
use core::ops::Div;
use core::ops::Mul;
use core::ops::Neg;
use core::ops::Sub;

/// A real number: `mantissa` × 2^`exponent`.
///
/// # Invariants
///
/// Either both are 0, or the mantissa without its sign is from 2^30 to 2^31 - 1 and the exponent
/// from -[`Self::LIMIT`] to [`Self::LIMIT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Real {
    mantissa: i64,
    exponent: i32,
}

/// The number of bits behind the point where this module works with a fixed one.
const POINT: u32 = 30;

/// One, with [`POINT`] bits behind the point.
const UNIT: i64 = 1 << POINT;

/// The natural logarithm of 2, with 48 bits behind the point.
const LN_2: i64 = 0xb172_17f7_d1cf;

/// How far that is from [`POINT`].
const LN_2_SHIFT: u32 = 48 - POINT;

/// The square root of 2, with [`POINT`] bits behind the point.
const SQRT_2: i64 = 0x5a82_799a;

impl Real {
    /// The largest exponent.
    const LIMIT: i32 = 4096;

    /// The number of bytes that [`Self::to_bytes`] makes.
    pub const BYTES: usize = 8;

    /// Zero.
    pub const ZERO: Self = Self::new(0, 0);

    /// One.
    pub const ONE: Self = Self::new(1, 0);

    /// The number `mantissa` × 2^`exponent`, for any mantissa but the lowest of its type.
    const fn new(mantissa: i64, exponent: i32) -> Self {
        let bits = i64::BITS.wrapping_sub(mantissa.unsigned_abs().leading_zeros()) as i32;
        // There are 0 to 63 bits, so the distance is from -31 to 32.
        let distance = bits.wrapping_sub(POINT as i32 + 1);
        let exponent = exponent.saturating_add(distance);
        // INVARIANT: The shift, which rounds towards zero, leaves 31 bits of the mantissa.
        if mantissa == 0 || exponent < -Self::LIMIT {
            Self {
                mantissa: 0,
                exponent: 0,
            }
        } else if exponent > Self::LIMIT {
            Self {
                mantissa: mantissa.signum() * ((UNIT << 1) - 1),
                exponent: Self::LIMIT,
            }
        } else if distance > 0 {
            Self {
                mantissa: mantissa / (1 << distance),
                exponent,
            }
        } else {
            Self {
                mantissa: mantissa << distance.wrapping_neg(),
                exponent,
            }
        }
    }

    /// The whole number `number`.
    pub const fn whole(number: u64) -> Self {
        // Half of any number fits; the bit that is lost is far beyond the precision.
        Self::new((number >> 1) as i64, 1).plus(Self::new((number & 1) as i64, 0))
    }

    /// The fraction `numerator` / `denominator`.
    pub const fn ratio(numerator: u32, denominator: u32) -> Self {
        Self::new(numerator as i64, 0).over(Self::new(denominator as i64, 0))
    }

    /// The largest whole number that is not above this one; 0 for what is negative, and the
    /// largest of its type for what is larger.
    pub const fn floor(self) -> u64 {
        if self.mantissa <= 0 || self.exponent < -(POINT as i32) {
            0
        } else if self.exponent > POINT as i32 + 3 {
            u64::MAX
        } else if self.exponent >= 0 {
            (self.mantissa as u64) << self.exponent
        } else {
            (self.mantissa as u64) >> self.exponent.wrapping_neg()
        }
    }

    /// The bytes to store this number as.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        // Both fit into 32 bits by the invariant.
        let parts = u64::from(self.mantissa as i32 as u32) << 32 | u64::from(self.exponent as u32);
        parts.to_le_bytes()
    }

    /// The number that [`Self::to_bytes`] stores as `bytes`; [`None`] when there is none.
    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> Option<Self> {
        let parts = u64::from_le_bytes(bytes);
        let number = Self::new(i64::from((parts >> 32) as u32 as i32), parts as u32 as i32);
        (number.to_bytes() == bytes).then_some(number)
    }

    /// The sum.
    const fn plus(self, other: Self) -> Self {
        let (large, small) =
            if self.exponent >= other.exponent && self.mantissa != 0 || other.mantissa == 0 {
                (self, other)
            } else {
                (other, self)
            };
        let distance = large.exponent.wrapping_sub(small.exponent);
        if distance > POINT as i32 || small.mantissa == 0 {
            return large;
        }
        // Both have 31 bits, and are given 30 more.
        let sum = (large.mantissa << POINT) + (small.mantissa << (POINT as i32 - distance));
        Self::new(sum, large.exponent.wrapping_sub(POINT as i32))
    }

    /// The number with the other sign.
    pub(super) const fn negative(self) -> Self {
        // INVARIANT: The range of the mantissa is the same on both sides.
        Self {
            mantissa: -self.mantissa,
            exponent: self.exponent,
        }
    }

    /// The quotient; by zero, the largest number.
    pub(super) const fn over(self, other: Self) -> Self {
        match (self.mantissa << POINT).checked_div(other.mantissa) {
            Some(quotient) => {
                let exponent = self.exponent.wrapping_sub(other.exponent);
                Self::new(quotient, exponent.wrapping_sub(POINT as i32))
            }
            None => Self::new(1, i32::MAX),
        }
    }

    /// Whether this number is less than `other`.
    pub fn is_below(self, other: Self) -> bool {
        (self - other).mantissa < 0
    }

    /// The greater one of both.
    pub fn max(self, other: Self) -> Self {
        if self.is_below(other) {
            other
        } else {
            self
        }
    }

    /// The lesser one of both.
    pub fn min(self, other: Self) -> Self {
        if self.is_below(other) {
            self
        } else {
            other
        }
    }

    /// The square root, of what is not negative.
    pub const fn sqrt(self) -> Self {
        // With 61 or 62 bits the root has 31, and its exponent is whole.
        let odd = self.exponent & 1;
        let radicand = (self.mantissa.unsigned_abs() << POINT) << odd;
        let exponent = self.exponent.wrapping_sub(odd).wrapping_sub(POINT as i32) / 2;
        Self::new(radicand.isqrt() as i64, exponent)
    }

    /// The natural logarithm, within 2^-25 or a relative 2^-29; of what is not positive, that of the
    /// smallest number.
    pub const fn ln(self) -> Self {
        let (mut mantissa, mut exponent) = match self.mantissa {
            1.. => (self.mantissa, self.exponent.wrapping_add(POINT as i32)),
            _ => (UNIT, -Self::LIMIT),
        };
        if mantissa > SQRT_2 {
            mantissa >>= 1;
            exponent = exponent.wrapping_add(1);
        }
        // Now ln m = 2 artanh y with y = (m - 1) / (m + 1), which is from -0.172 to 0.172.
        let y = ((mantissa - UNIT) << POINT) / (mantissa + UNIT);
        let square = (y * y) >> POINT;
        let (mut power, mut sum, mut odd) = (y, 0, 1);
        while odd <= 13 {
            sum += power / odd;
            power = (power * square) >> POINT;
            odd += 2;
        }
        let whole = (exponent as i64) * LN_2;
        Self::new(whole + (sum << (LN_2_SHIFT + 1)), -48)
    }

    /// The exponential, within a relative 2^-25 where the exponent is from -16 to 16, and within
    /// 2^-20 to ±512.
    pub const fn exp(self) -> Self {
        /// Where the result is beyond any number: 2^12 with [`POINT`] bits behind the point.
        const BOUND: i64 = 1 << (POINT + 12);
        let scale = self.exponent.wrapping_add(POINT as i32);
        let x = match scale {
            i32::MIN..=-31 => 0,
            -30..=-1 => self.mantissa >> scale.wrapping_neg(),
            0..=12 => self.mantissa << scale,
            _ => self.mantissa.signum() * BOUND,
        };
        let bounded = if x > BOUND {
            BOUND
        } else if x < -BOUND {
            -BOUND
        } else {
            x
        };
        let x = bounded << LN_2_SHIFT;
        let twos = (x + LN_2 / 2).div_euclid(LN_2);
        let rest = (x - twos * LN_2) >> LN_2_SHIFT;
        // The rest is from -0.347 to 0.347, so nine terms of the series are enough.
        let (mut sum, mut term) = (UNIT, 9);
        while term > 0 {
            sum = UNIT + ((sum * rest) >> POINT) / term;
            term -= 1;
        }
        Self::new(sum, (twos as i32).wrapping_sub(POINT as i32))
    }
}

impl Add for Real {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        self.plus(other)
    }
}

impl Sub for Real {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self.plus(-other)
    }
}

impl Mul for Real {
    type Output = Self;

    fn mul(self, other: Self) -> Self {
        // 31 bits by 31 bits are at most 62.
        Self::new(
            self.mantissa * other.mantissa,
            self.exponent.wrapping_add(other.exponent),
        )
    }
}

impl Div for Real {
    type Output = Self;

    fn div(self, other: Self) -> Self {
        self.over(other)
    }
}

impl Neg for Real {
    type Output = Self;

    fn neg(self) -> Self {
        self.negative()
    }
}
