//! Times in ISO 8601, as msgspec writes them.

use super::scan::{Certain, Cursor, Uncertain};

const DAY_US: i64 = 86_400_000_000;

impl Cursor<'_> {
    /// Reads a time in UTC, to the microsecond: `"2026-02-28T23:59:59.5Z"`.
    ///
    /// Whoever reads another zone, or none, has it in the row, and a column has not.
    #[inline(always)]
    pub fn time(&mut self) -> Certain<i64> {
        self.plain_text(read_time)
    }

    /// Reads a date as days since the epoch: `"2026-02-28"`.
    #[inline(always)]
    pub fn date(&mut self) -> Certain<i32> {
        let days = self.plain_text(|text| read_date(text.try_into().map_err(|_| Uncertain)?))?;
        i32::try_from(days).map_err(|_| Uncertain)
    }
}

/// Reads microseconds since the epoch.
#[inline]
fn read_time(text: &[u8]) -> Certain<i64> {
    let (date, rest) = text.split_first_chunk().ok_or(Uncertain)?;
    let (clock, rest) = rest.split_first_chunk().ok_or(Uncertain)?;
    let days = read_date(date)?;
    let &[b'T', a, b, b':', c, d, b':', e, f] = clock else {
        return Err(Uncertain);
    };
    let (hour, minute, second) = (number(&[a, b])?, number(&[c, d])?, number(&[e, f])?);
    if hour > 23 || minute > 59 || second > 59 {
        return Err(Uncertain);
    }
    let (micros, zone) = match rest.split_first() {
        Some((b'.', digits)) => read_fraction(digits)?,
        _ => (0, rest),
    };
    if zone != b"Z" && zone != b"+00:00" {
        return Err(Uncertain);
    }
    let seconds = hour * 3600 + minute * 60 + second;
    Ok(days * DAY_US + seconds * 1_000_000 + micros)
}

/// Reads days since the epoch.
#[inline(always)]
fn read_date(text: &[u8; 10]) -> Certain<i64> {
    let &[a, b, c, d, b'-', e, f, b'-', g, h] = text else {
        return Err(Uncertain);
    };
    let (year, month, day) = (number(&[a, b, c, d])?, number(&[e, f])?, number(&[g, h])?);
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        2 => 28 + i64::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return Err(Uncertain),
    };
    if year == 0 || day == 0 || day > last {
        return Err(Uncertain);
    }
    Ok(days(year, month, day))
}

/// Reads at most six digits behind a point; returns the microseconds and what is behind them.
fn read_fraction(text: &[u8]) -> Certain<(i64, &[u8])> {
    let is_digit = |byte: &u8| byte.is_ascii_digit();
    let count = text
        .iter()
        .take(7)
        .take_while(|byte| is_digit(byte))
        .count();
    if !(1..=6).contains(&count) {
        return Err(Uncertain);
    }
    let (digits, rest) = text.split_at(count);
    let mut micros = number(digits)?;
    for _ in count..6 {
        micros *= 10;
    }
    Ok((micros, rest))
}

/// Reads a few digits.
#[inline(always)]
fn number(digits: &[u8]) -> Certain<i64> {
    let mut value = 0;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return Err(Uncertain);
        }
        value = value * 10 + i64::from(digit - b'0');
    }
    Ok(value)
}

/// Writes days since the epoch, None if the year is not one of 1 to 9999.
pub(super) fn write_date(days: i64, to: &mut Vec<u8>) -> Option<()> {
    let date = date(days)?;
    to.push(b'"');
    write_ymd(date, to);
    to.push(b'"');
    Some(())
}

/// Writes microseconds since the epoch, None if the year is not one of 1 to 9999.
pub(super) fn write_time(time_us: i64, is_utc: bool, to: &mut Vec<u8>) -> Option<()> {
    let date = date(time_us.div_euclid(DAY_US))?;
    let rest_us = time_us.rem_euclid(DAY_US);
    let seconds = rest_us / 1_000_000;
    to.push(b'"');
    write_ymd(date, to);
    to.push(b'T');
    write_padded(seconds / 3600, 2, to);
    to.push(b':');
    write_padded(seconds / 60 % 60, 2, to);
    to.push(b':');
    write_padded(seconds % 60, 2, to);
    if rest_us % 1_000_000 != 0 {
        to.push(b'.');
        write_padded(rest_us % 1_000_000, 6, to);
    }
    if is_utc {
        to.push(b'Z');
    }
    to.push(b'"');
    Some(())
}

fn write_ymd((year, month, day): (i64, i64, i64), to: &mut Vec<u8>) {
    write_padded(year, 4, to);
    to.push(b'-');
    write_padded(month, 2, to);
    to.push(b'-');
    write_padded(day, 2, to);
}

fn write_padded(value: i64, digits: usize, to: &mut Vec<u8>) {
    let end = to.len() + digits;
    to.resize(end, b'0');
    let mut rest = value;
    for place in to[end - digits..].iter_mut().rev() {
        *place = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
}

/// Returns the days since the epoch of a date in the Gregorian calendar, its year from 1 to 9999.
#[inline(always)]
fn days(year: i64, month: i64, day: i64) -> i64 {
    // Counted from March, so that the day that not all years have is the last.
    let years = year - i64::from(month <= 2);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    years * 365 + years / 4 - years / 100 + years / 400 + day_of_year - 719_468
}

/// Returns year, month and day in the Gregorian calendar; eras of 400 years begin in March.
fn date(days: i64) -> Option<(i64, i64, i64)> {
    // Far from what overflows, and wider than the years below.
    if !(-1_000_000..=3_000_000).contains(&days) {
        return None;
    }
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = (shifted_month + 2) % 12 + 1;
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (1..=9999).contains(&year).then_some((year, month, day))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Certain<i64> {
        let mut cursor = Cursor::new(text.as_bytes(), text.len());
        let time = cursor.time()?;
        cursor.finish().map(|()| time)
    }

    #[test]
    fn days_are_read_as_they_are_written() {
        let (first, last) = (days(1, 1, 1), days(9999, 12, 31));
        let centuries = days(1890, 1, 1)..days(2110, 1, 1);
        for day in centuries.chain((first..last).step_by(97)).chain([last]) {
            let time_us = day * DAY_US + (day - last).rem_euclid(DAY_US);
            let mut text = Vec::new();
            write_time(time_us, true, &mut text).unwrap();
            assert_eq!(read(str::from_utf8(&text).unwrap()).unwrap(), time_us);
        }
        assert!(date(last + 1).is_none() && date(first - 1).is_none());
    }

    #[test]
    fn dates() {
        for (text, want) in [
            (r#""1970-01-02""#, Some(1)),
            (r#""1969-12-31""#, Some(-1)),
            (r#""\u0031970-01-01""#, Some(0)),
            (r#""2000-02-29""#, Some(11_016)),
            (r#""1970-01-01T""#, None),
            (r#""1970-1-1""#, None),
            (r#""1970-02-30""#, None),
            (r#""""#, None),
        ] {
            assert_eq!(Cursor::new(text.as_bytes(), text.len()).date().ok(), want);
        }
    }

    #[test]
    fn fractions_and_zones_and_escapes() {
        let second = 1_000_000;
        for (text, want) in [
            (r#""1970-01-01T00:00:01Z""#, second),
            (r#""1970-01-01T00:00:01+00:00""#, second),
            (r#""1970-01-01T00:00:01.5Z""#, second + 500_000),
            (r#""1970-01-01T00:00:01.000001+00:00""#, second + 1),
            (r#""1970-01-01T00:01:01.12Z""#, 61 * second + 120_000),
            (r#""1970-01-01\u005400:00:01\u005a""#, second),
            (r#""1969-12-31T23:59:59Z""#, -second),
        ] {
            assert_eq!(read(text).unwrap(), want, "{text}");
        }
    }

    #[test]
    fn times_that_are_left_to_the_reference() {
        for text in [
            "",
            "1970-01-01",
            "1970-01-01T00:00:00",
            "1970-01-01T00:00:00z",
            "1970-01-01t00:00:00Z",
            "1970-01-01 00:00:00Z",
            "1970-01-01T00:00:00+01:00",
            "1970-01-01T00:00:00-00:00",
            "1970-01-01T00:00:00+0000",
            "1970-01-01T00:00:00.Z",
            "1970-01-01T00:00:00.1234567Z",
            "1970-01-01T00:00:00.1",
            "1970-01-01T24:00:00Z",
            "1970-01-01T00:60:00Z",
            "1970-01-01T00:00:60Z",
            "1970-00-01T00:00:00Z",
            "1970-13-01T00:00:00Z",
            "1970-01-00T00:00:00Z",
            "1970-01-32T00:00:00Z",
            "1970-04-31T00:00:00Z",
            "1970-02-29T00:00:00Z",
            "1900-02-29T00:00:00Z",
            "0000-01-01T00:00:00Z",
            "-970-01-01T00:00:00Z",
            "1970-01-01T00:00:0/Z",
            "1970-01-01T00:00:0:Z",
            "1970-01-01T00:00:00Z ",
        ] {
            assert!(read(&format!("\"{text}\"")).is_err(), "{text}");
        }
    }
}
