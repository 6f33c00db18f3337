// SPDX-License-Identifier: GPL-2.0

//! The gamma distribution, and what it takes to compute it.

use super::real::Real;

/// From this shape on the approximation is good enough by itself.
const LARGE_SHAPE: Real = Real::ratio(16, 1);

/// By how much smaller shapes are raised before the approximation.
const STEPS: u32 = 4;

/// The probability that a value of the gamma distribution with the given `shape` and scale 1 is at
/// most `x`, within 3 × 10^-4 for shapes from 2^-10 on.
///
/// By the approximation of Wilson and Hilferty (1931), which takes the cube root of the value as
/// normal. It is poor for small shapes; so these are raised with the exact recurrence
/// P(s, x) = P(s + 1, x) + x^s e^-x / Γ(s + 1).
pub fn at_most(shape: Real, x: Real) -> Real {
    if !Real::ZERO.is_below(x) {
        return Real::ZERO;
    }
    if !shape.is_below(LARGE_SHAPE) {
        return approximation(shape, x);
    }
    let (mut factor, mut sum, mut raised) = (Real::ONE, Real::ZERO, shape);
    for _ in 0..STEPS {
        sum = sum + factor;
        raised = raised + Real::ONE;
        factor = factor * x / raised;
    }
    // What is left of the factor is x^4 / ((s + 1) … (s + 4)), and Γ(s + 1) has the same divisor.
    let first = (raised * x.ln() - x - ln_gamma(raised + Real::ONE)).exp() / factor;
    (approximation(raised, x) + first * sum).min(Real::ONE)
}

/// The approximation of Wilson and Hilferty.
fn approximation(shape: Real, x: Real) -> Real {
    let variance = Real::ONE / (Real::ratio(9, 1) * shape);
    let root = ((x / shape).ln() / Real::ratio(3, 1)).exp();
    normal((root - Real::ONE + variance) / variance.sqrt())
}

/// The logarithm of the gamma function from 5 on, within 10^-6, by Stirling's series.
fn ln_gamma(z: Real) -> Real {
    /// Half of the logarithm of 2π.
    const HALF_LN_TWO_PI: Real = Real::ratio(918_938_533, 1_000_000_000);
    let inverse = Real::ONE / z;
    let square = inverse * inverse;
    (z - Real::ratio(1, 2)) * z.ln() - z
        + HALF_LN_TWO_PI
        + inverse * (Real::ratio(1, 12) - square * Real::ratio(1, 360))
}

/// The probability that a value of the standard normal distribution is at most `z`, within 10^-7:
/// formula 26.2.17 of Abramowitz and Stegun.
pub fn normal(z: Real) -> Real {
    /// The coefficients of the polynomial, from the highest to the lowest, without their signs,
    /// which alternate.
    const COEFFICIENTS: [Real; 5] = [
        Real::ratio(1_330_274_429, 1_000_000_000),
        Real::ratio(1_821_255_978, 1_000_000_000),
        Real::ratio(1_781_477_937, 1_000_000_000),
        Real::ratio(356_563_782, 1_000_000_000),
        Real::ratio(319_381_530, 1_000_000_000),
    ];
    /// 1 / √(2π).
    const DENSITY: Real = Real::ratio(398_942_280, 1_000_000_000);
    let distance = z.max(-z);
    let t = Real::ONE / (Real::ONE + Real::ratio(231_641_900, 1_000_000_000) * distance);
    let polynomial = COEFFICIENTS
        .into_iter()
        .fold(Real::ZERO, |sum, coefficient| coefficient - sum * t);
    let density = DENSITY * (-(z * z) / Real::ratio(2, 1)).exp();
    let tail = density * t * polynomial;
    if z.is_below(Real::ZERO) {
        tail
    } else {
        Real::ONE - tail
    }
}
