//! Numbers of a document, eight digits at a time.

use super::scan::{Certain, Cursor, Uncertain};

/// Digits of the largest power of ten that is below all 64 bits.
const DIGITS_MAX: usize = 19;

/// Up to here a float holds every integer.
const EXACT_MAX: u64 = 1 << 53;

/// All powers of ten that a float holds exactly.
const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
    1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
];

const SMALL_POWERS: [u64; 9] = [
    1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, EIGHT,
];

const EIGHT: u64 = 100_000_000;

const HIGH_BITS: u64 = 0x8080_8080_8080_8080;

impl Cursor<'_> {
    /// Reads an integer; one with a fraction or exponent, or beyond 64 bits, is uncertain.
    #[inline(always)]
    pub fn integer(&mut self) -> Certain<i64> {
        let is_negative = self.sign();
        let (value, count) = self.whole_part()?;
        if count > DIGITS_MAX || matches!(self.peek(), b'.' | b'e' | b'E') {
            return Err(Uncertain);
        }
        let value = i64::try_from(value).map_err(|_| Uncertain)?;
        Ok(if is_negative { -value } else { value })
    }

    /// Reads a number as the float nearest to it.
    #[inline(always)]
    pub fn float(&mut self) -> Certain<f64> {
        let start = self.pos;
        let is_negative = self.sign();
        let (mut value, mut count) = self.whole_part()?;
        let mut power = 0;
        let mut is_whole = true;
        if self.peek() == b'.' {
            self.pos += 1;
            let digits = self.digits(&mut value);
            if digits == 0 {
                return Err(Uncertain);
            }
            count += digits;
            power = -(digits.min(DIGITS_MAX) as i32);
            is_whole = false;
        }
        if matches!(self.peek(), b'e' | b'E') {
            power += self.exponent()?;
            is_whole = false;
        }
        let reach = power.unsigned_abs() as usize;
        if count > DIGITS_MAX || value > EXACT_MAX || reach >= POWERS.len() {
            return self.any_float(start);
        }
        // Both are exact, and so there is a single rounding.
        let size = if power < 0 {
            value as f64 / POWERS[reach]
        } else {
            value as f64 * POWERS[reach]
        };
        // The integer -0 is 0, and only the float -0.0 has a sign.
        Ok(if is_negative && !(is_whole && value == 0) {
            -size
        } else {
            size
        })
    }

    #[cold]
    fn any_float(&self, start: usize) -> Certain<f64> {
        let text = self.text.get(start..self.pos).ok_or(Uncertain)?;
        let value: f64 = fast_float2::parse(text).map_err(|_| Uncertain)?;
        // That there are no infinite numbers is for the reference to say.
        if value.is_finite() && !(value == 0.0 && value.is_sign_negative()) {
            Ok(value)
        } else {
            Err(Uncertain)
        }
    }

    /// Goes on behind a number of any size.
    pub(super) fn skip_number(&mut self) -> Certain<()> {
        self.sign();
        self.whole_part()?;
        if self.peek() == b'.' {
            self.pos += 1;
            if self.digits(&mut 0) == 0 {
                return Err(Uncertain);
            }
        }
        if matches!(self.peek(), b'e' | b'E') {
            self.exponent()?;
        }
        Ok(())
    }

    #[inline(always)]
    fn sign(&mut self) -> bool {
        let is_negative = self.peek() == b'-';
        self.pos += usize::from(is_negative);
        is_negative
    }

    /// Reads the digits up to a point, which no needless zero may lead.
    #[inline(always)]
    fn whole_part(&mut self) -> Certain<(u64, usize)> {
        let first = self.peek();
        let mut value = 0;
        let count = self.digits(&mut value);
        if count == 0 || (first == b'0' && count > 1) {
            return Err(Uncertain);
        }
        Ok((value, count))
    }

    #[inline(never)]
    fn exponent(&mut self) -> Certain<i32> {
        self.pos += 1;
        let is_negative = self.peek() == b'-';
        self.pos += usize::from(is_negative || self.peek() == b'+');
        let mut value = 0;
        let count = self.digits(&mut value);
        if count == 0 || count > 4 {
            return Err(Uncertain);
        }
        let value = value as i32;
        Ok(if is_negative { -value } else { value })
    }

    /// Adds digits to `value`, which holds no more than nineteen; returns how many there were.
    #[inline(always)]
    fn digits(&mut self, value: &mut u64) -> usize {
        let start = self.pos;
        loop {
            let word = self.word(self.pos) ^ 0x3030_3030_3030_3030;
            // A carry can only spoil what is above the first byte that is no digit.
            let others = (word.wrapping_add(0x7676_7676_7676_7676) | word) & HIGH_BITS;
            if others == 0 {
                *value = value.wrapping_mul(EIGHT).wrapping_add(eight_digits(word));
                self.pos += 8;
                continue;
            }
            let count = others.trailing_zeros() as usize / 8;
            if count > 0 {
                let last = eight_digits(word << (64 - 8 * count));
                *value = value.wrapping_mul(SMALL_POWERS[count]).wrapping_add(last);
                self.pos += count;
            }
            return self.pos - start;
        }
    }
}

/// Returns the number of eight digits, the first of them in the lowest byte.
#[inline(always)]
fn eight_digits(word: u64) -> u64 {
    let pairs = (word & 0x0f0f_0f0f_0f0f_0f0f).wrapping_mul(2561) >> 8;
    let fours = (pairs & 0x00ff_00ff_00ff_00ff).wrapping_mul(6_553_601) >> 16;
    (fours & 0x0000_ffff_0000_ffff).wrapping_mul(42_949_672_960_001) >> 32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor(text: &[u8]) -> Cursor<'_> {
        Cursor::new(text, text.len())
    }

    #[test]
    fn integers_of_every_length() {
        let mut value: i64 = 0;
        for digit in [9, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3, 4, 5, 6, 7] {
            value = value * 10 + digit;
            for signed in [value, -value] {
                let text = format!("{signed},");
                assert_eq!(cursor(text.as_bytes()).integer().ok(), Some(signed));
            }
        }
        assert_eq!(
            cursor(b"9223372036854775807").integer().ok(),
            Some(i64::MAX)
        );
    }

    #[test]
    fn integers_that_are_left_to_the_reference() {
        for text in [
            "",
            "-",
            "01",
            "1.0",
            "1e2",
            "9223372036854775808",
            "x",
            "00",
        ] {
            assert!(cursor(text.as_bytes()).integer().is_err(), "{text}");
        }
    }

    #[test]
    fn floats_are_the_nearest() {
        for text in [
            "0.1",
            "1.5e300",
            "5e-324",
            "123.45",
            "1e22",
            "1e23",
            "9007199254740993",
            "-0.0",
            "0.00012345678901234567",
            "1.7976931348623157e308",
            "12345678901234567890123",
        ] {
            let want: f64 = text.parse().unwrap();
            let got = cursor(text.as_bytes()).float().unwrap();
            assert_eq!(got.to_bits(), want.to_bits(), "{text}");
        }
        let zero = cursor(b"-0").float().unwrap();
        assert_eq!(zero.to_bits(), 0.0f64.to_bits());
    }

    #[test]
    fn floats_that_are_left_to_the_reference() {
        for text in [
            "1.", ".1", "1e", "1e999", "1e+", "-", "00.1", "1e99999", "NaN",
        ] {
            assert!(cursor(text.as_bytes()).float().is_err(), "{text}");
        }
    }
}
