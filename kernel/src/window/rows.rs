//! Rows as bytes, as `engine/reference/row_format.py` has them.
//!
//! A row is: version (1 byte), length of the tags (2 bytes, big endian), tags of the aggregates'
//! types (text, separated by commas), and the fields of all aggregates in order (little endian,
//! packed). Of the types numbers are known here: `-` nothing yet, `i`, `f`, `D`, `t`, `T:..`
//! and `U:..`; and text, `s`, which is not among the fields but behind them, one MessagePack array
//! of all texts, nil where there is none. Rows of other types hold what is known to Python only.

use rmp::{decode as read, encode as write};

use super::accumulators::{Accumulator, Kind};
use super::values::Form;

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 3;

/// Tag of values of which none has been seen.
pub const NO_TYPE: &str = "-";
const INT: &str = "i";
const TEXT: &str = "s";
const NIL: u8 = 0xc0;
/// In place of nil, in rows of earlier versions.
const ZERO: u8 = 0;
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
                Some("-" | "i" | "f" | "s" | "D" | "t" | "T" | "U")
            )
        }
    }
}

/// Returns how values of a type are held and stored.
pub fn form(tag: &str) -> Form {
    match tag {
        FLOAT => Form::Float,
        TEXT => Form::Text,
        _ => Form::Int,
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
            Accumulator::Sum(values) => into.extend(values.to_bytes(at).into_iter().flatten()),
            Accumulator::Mean(sums, counts) => {
                into.extend_from_slice(&sums[at].to_le_bytes());
                into.extend_from_slice(&counts[at].to_le_bytes());
            }
            Accumulator::Extreme { has, values, .. } => {
                into.push(u8::from(has[at]));
                into.extend(values.to_bytes(at).into_iter().flatten());
            }
            Accumulator::ByTime {
                has, times, values, ..
            } => {
                into.push(u8::from(has[at]));
                into.extend_from_slice(&times[at].to_le_bytes());
                into.extend(values.to_bytes(at).into_iter().flatten());
            }
        }
    }
    encode_texts(columns, at, into);
}

fn encode_texts(columns: &[Accumulator], at: usize, into: &mut Vec<u8>) {
    let texts = || columns.iter().filter_map(Accumulator::texts);
    let count = texts().count() as u32;
    if count == 0 {
        return;
    }
    // Writing to a vector does not fail.
    let _ = write::write_array_len(into, count);
    for (has, texts) in texts() {
        if has[at] {
            let _ = write::write_str(into, texts.get(at));
        } else {
            into.push(NIL);
        }
    }
}

/// Sets a row from its fields, whose values are in some forms.
///
/// Returns false, and may have set some of them, if there are too few bytes. More than needed are
/// taken behind numbers, as the reference does.
pub fn decode(columns: &mut [Accumulator], at: usize, fields: &[u8], forms: &[Form]) -> bool {
    let mut rest = fields;
    for (column, &form) in columns.iter_mut().zip(forms) {
        let Some((field, after)) = rest.split_at_checked(column.stored_width(form)) else {
            return false;
        };
        rest = after;
        let is_float = form == Form::Float;
        match column {
            Accumulator::Count(counts) => counts[at] = i64::from_le_bytes(eight(field)),
            Accumulator::Sum(values) => values.set_bytes(at, eight(field), is_float),
            Accumulator::Mean(sums, counts) => {
                sums[at] = f64::from_le_bytes(eight(field));
                counts[at] = i64::from_le_bytes(eight(&field[8..]));
            }
            Accumulator::Extreme { has, values, .. } => {
                has[at] = field[0] != 0;
                if form != Form::Text {
                    values.set_bytes(at, eight(&field[1..]), is_float);
                }
            }
            Accumulator::ByTime {
                has, times, values, ..
            } => {
                has[at] = field[0] != 0;
                times[at] = i64::from_le_bytes(eight(&field[1..]));
                if form != Form::Text {
                    values.set_bytes(at, eight(&field[9..]), is_float);
                }
            }
        }
    }
    decode_texts(columns, at, rest, forms).is_some()
}

/// Sets the texts of a row from what is behind its fields; None if there are not as many as values.
fn decode_texts(
    columns: &mut [Accumulator],
    at: usize,
    mut rest: &[u8],
    forms: &[Form],
) -> Option<()> {
    let count = forms.iter().filter(|&&form| form == Form::Text).count();
    if count > 0 && read::read_array_len(&mut rest).ok()? as usize != count {
        return None;
    }
    for (column, &form) in columns.iter_mut().zip(forms) {
        let Some((has, texts)) = column.texts_mut() else {
            // Text goes into a column of text only.
            if form == Form::Text {
                return None;
            }
            continue;
        };
        if form != Form::Text || matches!(rest.first(), Some(&NIL | &ZERO)) {
            // A row from before there was a value, or one without.
            if has[at] {
                return None;
            }
            rest = &rest[usize::from(form == Form::Text)..];
            continue;
        }
        let (text, behind) = read::read_str_from_slice(rest).ok()?;
        if !has[at] {
            return None;
        }
        texts.set(at, text);
        rest = behind;
    }
    (count == 0 || rest.is_empty()).then_some(())
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
        assert!(decode(&mut columns, 0, fields, &[Form::Int; 5]));
        for len in 0..fields.len() {
            assert!(!decode(&mut columns, 0, &fields[..len], &[Form::Int; 5]));
        }
    }

    #[test]
    fn texts_come_back_as_they_were_written() {
        let kinds = [Kind::Last, Kind::Count, Kind::Min, Kind::Max];
        let forms = [Form::Text, Form::Int, Form::Text, Form::Int];
        let made = || -> Vec<Accumulator> {
            let columns = kinds.into_iter().zip(forms).map(|(kind, form)| {
                let mut column = Accumulator::new(kind);
                column.widen(form);
                column.push();
                column
            });
            columns.collect()
        };
        let mut columns = made();
        if let Accumulator::ByTime { has, values, .. } = &mut columns[0] {
            has[0] = true;
            values.widen(Form::Text);
        }
        let long = "é".repeat(200);
        columns[0].texts_mut().unwrap().1.set(0, &long);
        let mut row = Vec::new();
        encode(&columns, 0, &mut row);
        let mut back = made();
        assert!(decode(&mut back, 0, &row, &forms));
        let (has, texts) = back[0].texts().unwrap();
        assert_eq!((has[0], texts.get(0)), (true, long.as_str()));
        assert!(!back[2].texts().unwrap().0[0]);
        for len in 0..row.len() {
            assert!(!decode(&mut made(), 0, &row[..len], &forms));
        }
        row.push(0);
        assert!(!decode(&mut made(), 0, &row, &forms));
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
