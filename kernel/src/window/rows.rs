//! Rows as bytes, as `engine/reference/row_format.py` has them.
//!
//! A row is: version (1 byte), length of the tags (2 bytes, big endian), tags of the aggregates'
//! types (text, separated by commas), and the fields of all aggregates in order (little endian,
//! packed). Of the types only numbers are known here: `-` nothing yet, `i`, `f`, `D`, `t`, `T:..`
//! and `U:..`; rows of others have a different layout.

use super::accumulators::{Accumulator, Kind};

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 3;

/// Tag of values of which none has been seen.
pub const NO_TYPE: &str = "-";
const INT: &str = "i";
/// Tag of floats.
pub const FLOAT: &str = "f";

/// Returns whether rows with values of a type have the layout that is known here.
pub fn is_known(kind: Kind, tag: &str) -> bool {
    match kind {
        Kind::Count => tag == NO_TYPE,
        Kind::Sum | Kind::Mean => matches!(tag, NO_TYPE | INT | FLOAT),
        Kind::Min | Kind::Max | Kind::First | Kind::Last => {
            matches!(
                tag.split(':').next(),
                Some("-" | "i" | "f" | "D" | "t" | "T" | "U")
            )
        }
    }
}

/// Returns whether a header can hold the types.
pub fn has_header(tags: &[String]) -> bool {
    let commas = tags.len().saturating_sub(1);
    tags.iter().map(String::len).sum::<usize>() + commas <= usize::from(u16::MAX)
}

/// Returns the header of rows with values of some types.
pub fn header(tags: &[String]) -> Vec<u8> {
    let text = tags.join(",");
    let mut header = vec![VERSION];
    header.extend_from_slice(&(text.len() as u16).to_be_bytes());
    header.extend_from_slice(text.as_bytes());
    header
}

/// Returns the tags and the fields of a row; None if it is none.
pub fn split(row: &[u8]) -> Option<(Vec<&str>, &[u8])> {
    if row.len() < HEADER_BYTES || row[0] != VERSION {
        return None;
    }
    let len = usize::from(u16::from_be_bytes([row[1], row[2]]));
    let text = row.get(HEADER_BYTES..HEADER_BYTES + len)?;
    let text = std::str::from_utf8(text).ok()?;
    let tags = if text.is_empty() {
        Vec::new()
    } else {
        text.split(',').collect()
    };
    Some((tags, &row[HEADER_BYTES + len..]))
}

/// Adds the fields of a row.
pub fn encode(columns: &[Accumulator], at: usize, into: &mut Vec<u8>) {
    for column in columns {
        match column {
            Accumulator::Count(counts) => into.extend_from_slice(&counts[at].to_le_bytes()),
            Accumulator::Sum(values) => into.extend_from_slice(&values.to_bytes(at)),
            Accumulator::Mean(sums, counts) => {
                into.extend_from_slice(&sums[at].to_le_bytes());
                into.extend_from_slice(&counts[at].to_le_bytes());
            }
            Accumulator::Extreme { has, values, .. } => {
                into.push(u8::from(has[at]));
                into.extend_from_slice(&values.to_bytes(at));
            }
            Accumulator::ByTime {
                has, times, values, ..
            } => {
                into.push(u8::from(has[at]));
                into.extend_from_slice(&times[at].to_le_bytes());
                into.extend_from_slice(&values.to_bytes(at));
            }
        }
    }
}

/// Sets a row from its fields, values being floats where `is_float` says so.
///
/// Returns false, and may have set some of them, if there are too few bytes. More than needed are
/// taken, as the reference does.
pub fn decode(columns: &mut [Accumulator], at: usize, fields: &[u8], is_float: &[bool]) -> bool {
    let mut rest = fields;
    for (column, &is_float) in columns.iter_mut().zip(is_float) {
        let Some((field, after)) = rest.split_at_checked(column.width()) else {
            return false;
        };
        rest = after;
        match column {
            Accumulator::Count(counts) => counts[at] = i64::from_le_bytes(eight(field)),
            Accumulator::Sum(values) => values.set_bytes(at, eight(field), is_float),
            Accumulator::Mean(sums, counts) => {
                sums[at] = f64::from_le_bytes(eight(field));
                counts[at] = i64::from_le_bytes(eight(&field[8..]));
            }
            Accumulator::Extreme { has, values, .. } => {
                has[at] = field[0] != 0;
                values.set_bytes(at, eight(&field[1..]), is_float);
            }
            Accumulator::ByTime {
                has, times, values, ..
            } => {
                has[at] = field[0] != 0;
                times[at] = i64::from_le_bytes(eight(&field[1..]));
                values.set_bytes(at, eight(&field[9..]), is_float);
            }
        }
    }
    true
}

fn eight(bytes: &[u8]) -> [u8; 8] {
    let mut value = [0; 8];
    value.copy_from_slice(&bytes[..8]);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_comes_back_as_it_was_written() {
        let kinds = [Kind::Count, Kind::Sum, Kind::Mean, Kind::Max, Kind::First];
        let mut columns: Vec<Accumulator> = kinds.into_iter().map(Accumulator::new).collect();
        columns.iter_mut().for_each(Accumulator::push);
        let tags = ["-", "i", "f", "i", "T:ms:UTC"].map(String::from);
        let mut row = header(&tags);
        encode(&columns, 0, &mut row);
        let (found, fields) = split(&row).unwrap();
        assert_eq!(found, tags);
        assert!(decode(&mut columns, 0, fields, &[false; 5]));
        for len in 0..fields.len() {
            assert!(!decode(&mut columns, 0, &fields[..len], &[false; 5]));
        }
    }

    #[test]
    fn types_that_no_header_can_hold_are_not_taken() {
        let long = format!("T:{}", "x".repeat(40_000));
        assert!(has_header(&[long.clone(), "-".to_owned()]));
        assert!(!has_header(&[long.clone(), long]));
    }

    #[test]
    fn what_is_no_row_is_told() {
        for row in [
            &b""[..],
            b"\x01",
            b"\x01\x00\x01",
            b"\x02\x00\x01-",
            b"\x01\x00\x01\xff",
        ] {
            assert!(split(row).is_none());
        }
    }
}
