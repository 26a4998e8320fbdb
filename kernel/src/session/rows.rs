//! The sessions of a key as bytes.
//!
//! MessagePack: a list of start, end and accumulators of each session in order, the accumulators
//! being bytes that are MessagePack again. A count and a sum are numbers, a mean is its sum and
//! its count, a smallest or largest value is itself, and a first or last one its time and itself;
//! nil stands for no value.

use rmp::{decode, encode};

use super::places::Places;
use super::table::Open;
use crate::window::accumulators::Accumulator;
use crate::window::values::Values;

const NIL: u8 = 0xc0;
const FIELDS: u32 = 3;

/// Returns the sessions of a row, their accumulators in places; None if it is not of this form.
pub fn read(row: &[u8], places: &mut Places) -> Option<Vec<Open>> {
    let mut rest = row;
    let count = decode::read_array_len(&mut rest).ok()?;
    // Not made as long at once: the number is whatever the bytes say.
    let mut sessions = Vec::new();
    for _ in 0..count {
        if decode::read_array_len(&mut rest).ok()? != FIELDS {
            return None;
        }
        let start = decode::read_int(&mut rest).ok()?;
        let end = decode::read_int(&mut rest).ok()?;
        let len = decode::read_bin_len(&mut rest).ok()?;
        let (fields, behind) = rest.split_at_checked(len as usize)?;
        rest = behind;
        let place = places.take();
        read_accumulators(fields, &mut places.columns, place as usize)?;
        sessions.push(Open {
            start,
            end,
            place,
            is_changed: false,
        });
    }
    rest.is_empty().then_some(sessions)
}

fn read_accumulators(fields: &[u8], columns: &mut [Accumulator], at: usize) -> Option<()> {
    let mut rest = fields;
    if decode::read_array_len(&mut rest).ok()? as usize != columns.len() {
        return None;
    }
    for column in columns {
        match column {
            Accumulator::Count(counts) => counts[at] = decode::read_int(&mut rest).ok()?,
            Accumulator::Sum(values) => read_value(&mut rest, values, at)?,
            Accumulator::Mean(sums, counts) => {
                read_pair(&mut rest)?;
                sums[at] = decode::read_f64(&mut rest).ok()?;
                counts[at] = decode::read_int(&mut rest).ok()?;
            }
            Accumulator::Extreme { has, values, .. } => {
                has[at] = !is_nil(&mut rest);
                if has[at] {
                    read_value(&mut rest, values, at)?;
                }
            }
            Accumulator::ByTime {
                has, times, values, ..
            } => {
                has[at] = !is_nil(&mut rest);
                if has[at] {
                    read_pair(&mut rest)?;
                    times[at] = decode::read_int(&mut rest).ok()?;
                    read_value(&mut rest, values, at)?;
                }
            }
        }
    }
    rest.is_empty().then_some(())
}

/// Reads a value of the type that is held; one of another type is none.
fn read_value(rest: &mut &[u8], values: &mut Values, at: usize) -> Option<()> {
    match values {
        Values::Int(values) => values[at] = decode::read_int(rest).ok()?,
        Values::Float(values) => values[at] = decode::read_f64(rest).ok()?,
        Values::Text(_) => return None, // sessions keep numbers
    }
    Some(())
}

fn read_pair(rest: &mut &[u8]) -> Option<()> {
    (decode::read_array_len(rest).ok()? == 2).then_some(())
}

fn is_nil(rest: &mut &[u8]) -> bool {
    let is_nil = rest.first() == Some(&NIL);
    if is_nil {
        *rest = &rest[1..];
    }
    is_nil
}

/// Returns the row of some sessions.
pub fn write(sessions: &[Open], places: &Places) -> Vec<u8> {
    let mut row = Vec::new();
    let mut fields = Vec::new();
    done(encode::write_array_len(&mut row, sessions.len() as u32));
    for session in sessions {
        fields.clear();
        write_accumulators(&places.columns, session.place as usize, &mut fields);
        done(encode::write_array_len(&mut row, FIELDS));
        done(encode::write_sint(&mut row, session.start));
        done(encode::write_sint(&mut row, session.end));
        done(encode::write_bin(&mut row, &fields));
    }
    row
}

fn write_accumulators(columns: &[Accumulator], at: usize, into: &mut Vec<u8>) {
    done(encode::write_array_len(into, columns.len() as u32));
    for column in columns {
        match column {
            Accumulator::Count(counts) => done(encode::write_sint(into, counts[at])),
            Accumulator::Sum(values) => write_value(values, at, into),
            Accumulator::Mean(sums, counts) => {
                done(encode::write_array_len(into, 2));
                done(encode::write_f64(into, sums[at]));
                done(encode::write_sint(into, counts[at]));
            }
            Accumulator::Extreme { has, values, .. } if has[at] => write_value(values, at, into),
            Accumulator::ByTime {
                has, times, values, ..
            } if has[at] => {
                done(encode::write_array_len(into, 2));
                done(encode::write_sint(into, times[at]));
                write_value(values, at, into);
            }
            Accumulator::Extreme { .. } | Accumulator::ByTime { .. } => into.push(NIL),
        }
    }
}

fn write_value(values: &Values, at: usize, into: &mut Vec<u8>) {
    match values {
        Values::Int(values) => done(encode::write_sint(into, values[at])),
        Values::Float(values) => done(encode::write_f64(into, values[at])),
        Values::Text(texts) => done(encode::write_str(into, texts.get(at))),
    }
}

/// Takes note that writing to a vector, which cannot fail, did not.
fn done<T, E: std::fmt::Debug>(written: Result<T, E>) {
    debug_assert!(written.is_ok());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::accumulators::Kind;

    fn places() -> Places {
        Places::new(&[
            (Kind::Count, false),
            (Kind::Sum, false),
            (Kind::Mean, true),
            (Kind::Max, true),
            (Kind::First, false),
        ])
    }

    #[test]
    fn sessions_come_back_as_they_were_written() {
        let mut places = places();
        let mut sessions = Vec::new();
        for (start, end) in [(-70_000, -5), (3, i64::MAX)] {
            let place = places.take();
            sessions.push(Open {
                start,
                end,
                place,
                is_changed: false,
            });
        }
        let at = sessions[1].place as usize;
        for column in &mut places.columns {
            match column {
                Accumulator::Count(counts) => counts[at] = 300,
                Accumulator::Sum(Values::Int(sums)) => sums[at] = i64::MIN,
                Accumulator::Extreme { has, values, .. } => {
                    has[at] = true;
                    values.set_bytes(at, 2.5f64.to_le_bytes(), true);
                }
                _ => {}
            }
        }
        let row = write(&sessions, &places);
        let back = read(&row, &mut places).unwrap();
        assert_eq!(write(&back, &places), row);
        assert_eq!((back[1].start, back[1].end), (3, i64::MAX));
        for len in 0..row.len() {
            assert!(read(&row[..len], &mut places).is_none());
        }
        assert!(read(&[row.as_slice(), b"\0"].concat(), &mut places).is_none());
    }

    #[test]
    fn a_value_of_another_type_is_not_of_this_form() {
        let mut floats = Places::new(&[(Kind::Sum, true)]);
        let mut integers = Places::new(&[(Kind::Sum, false)]);
        let place = integers.take();
        let session = Open {
            start: 0,
            end: 1,
            place,
            is_changed: false,
        };
        let row = write(&[session], &integers);
        assert!(read(&row, &mut integers).is_some());
        assert!(read(&row, &mut floats).is_none());
    }
}
