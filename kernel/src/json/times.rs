//! Times in ISO 8601, as msgspec writes them.

const DAY_US: i64 = 86_400_000_000;

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
