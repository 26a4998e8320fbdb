//! Columns to documents, one object per row.

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    TimestampMicrosecondType, TimestampMillisecondType, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type,
};
use arrow_array::{Array, ArrayRef, BinaryViewArray, StringViewArray};
use arrow_buffer::{ArrowNativeType, Buffer, NullBuffer, OffsetBuffer};
use arrow_schema::{DataType, TimeUnit};

use super::base64::write_base64;
use super::scan::padded;
use super::text::{push_integer, push_short_text, push_text, push_word};
use super::times::{write_date, write_time};
use crate::column::{Bytes, ViewBuilder};

/// Why there are no documents.
#[derive(Debug, PartialEq)]
pub enum Unwritten {
    /// A type or a value whose form is not known here.
    Unknown,
    /// A float in this row, the first such row, has no JSON form.
    NotFinite(usize),
}

/// Documents are gathered in buffers of about this size; offsets have 31 bits.
const BUFFER_SIZE: usize = 1 << 26;

/// Largest document; so that all of a buffer can be told by 31 bits.
const DOCUMENT_MAX: usize = 1 << 30;

/// Returns one document per row.
pub fn write_documents(names: &[String], columns: &[ArrayRef]) -> Result<Bytes, Unwritten> {
    let rows = columns.first().map_or(0, |column| column.len());
    if names.len() != columns.len() || columns.iter().any(|column| column.len() != rows) {
        return Err(Unwritten::Unknown);
    }
    let members = members(names, columns)?;
    let mut builder = ViewBuilder::default();
    let mut text: Vec<u8> = Vec::new();
    let mut ends = Vec::with_capacity(rows);
    for row in 0..rows {
        let start = text.len();
        write_object(&members, row, &mut text).map_err(|failure| failure.at(row))?;
        if text.len() - start > DOCUMENT_MAX {
            return Err(Unwritten::Unknown);
        }
        ends.push(text.len());
        if text.len() > BUFFER_SIZE || row + 1 == rows {
            push_all(&mut builder, std::mem::take(&mut text), &mut ends);
        } else if row == 0 {
            // The others are about as long.
            text.reserve((text.len() + 16).saturating_mul(rows).min(BUFFER_SIZE));
        }
    }
    Ok(builder.finish())
}

fn push_all(builder: &mut ViewBuilder, text: Vec<u8>, ends: &mut Vec<usize>) {
    builder.add_buffer(Buffer::from_vec(text));
    let mut start = 0;
    for end in ends.drain(..) {
        builder.push(start, end - start);
        start = end;
    }
}

/// Why a value could not be written.
#[derive(Clone, Copy)]
enum Failure {
    Unknown,
    NotFinite,
}

impl Failure {
    fn at(self, row: usize) -> Unwritten {
        match self {
            Self::Unknown => Unwritten::Unknown,
            Self::NotFinite => Unwritten::NotFinite(row),
        }
    }
}

type Written = Result<(), Failure>;

/// A column of an object, and the text that is before each of its values.
struct Member<'a> {
    lead: Vec<u8>,
    /// Its first bytes, which are all of most leads.
    word: u128,
    values: Values<'a>,
}

fn members<'a>(names: &[String], columns: &'a [ArrayRef]) -> Result<Vec<Member<'a>>, Unwritten> {
    let mut members = Vec::with_capacity(names.len());
    for (index, (name, column)) in names.iter().zip(columns).enumerate() {
        let mut lead = vec![if index == 0 { b'{' } else { b',' }];
        push_text(name.as_bytes(), &mut lead);
        lead.push(b':');
        let values = Values::of(column).ok_or(Unwritten::Unknown)?;
        let word = padded(&lead);
        members.push(Member { lead, word, values });
    }
    Ok(members)
}

fn write_object(members: &[Member], row: usize, to: &mut Vec<u8>) -> Written {
    for member in members {
        if member.lead.len() <= 16 {
            push_word(member.word, member.lead.len(), to);
        } else {
            to.extend_from_slice(&member.lead);
        }
        member.values.write(row, to)?;
    }
    if members.is_empty() {
        to.push(b'{');
    }
    to.push(b'}');
    Ok(())
}

/// A column, its type found out once.
struct Values<'a> {
    nulls: Option<&'a NullBuffer>,
    form: Form<'a>,
}

enum Form<'a> {
    Null,
    Signed(&'a [i64]),
    Signed32(&'a [i32]),
    Signed16(&'a [i16]),
    Signed8(&'a [i8]),
    Unsigned(&'a [u64]),
    Unsigned32(&'a [u32]),
    Unsigned16(&'a [u16]),
    Unsigned8(&'a [u8]),
    Float(&'a [f64]),
    Float32(&'a [f32]),
    Boolean(&'a arrow_array::BooleanArray),
    Text(&'a StringViewArray),
    Bytes(&'a BinaryViewArray),
    /// Days since the epoch.
    Date(&'a [i32]),
    /// Microseconds since the epoch are so many of these units; and whether it is in UTC.
    Time(&'a [i64], i64, bool),
    List(&'a OffsetBuffer<i64>, Box<Values<'a>>),
    Object(Vec<Member<'a>>),
}

impl<'a> Values<'a> {
    fn of(array: &'a ArrayRef) -> Option<Self> {
        let form = match array.data_type() {
            DataType::Null => Form::Null,
            DataType::Int64 => Form::Signed(array.as_primitive::<Int64Type>().values()),
            DataType::Int32 => Form::Signed32(array.as_primitive::<Int32Type>().values()),
            DataType::Int16 => Form::Signed16(array.as_primitive::<Int16Type>().values()),
            DataType::Int8 => Form::Signed8(array.as_primitive::<Int8Type>().values()),
            DataType::UInt64 => Form::Unsigned(array.as_primitive::<UInt64Type>().values()),
            DataType::UInt32 => Form::Unsigned32(array.as_primitive::<UInt32Type>().values()),
            DataType::UInt16 => Form::Unsigned16(array.as_primitive::<UInt16Type>().values()),
            DataType::UInt8 => Form::Unsigned8(array.as_primitive::<UInt8Type>().values()),
            DataType::Float64 => Form::Float(array.as_primitive::<Float64Type>().values()),
            DataType::Float32 => Form::Float32(array.as_primitive::<Float32Type>().values()),
            DataType::Boolean => Form::Boolean(array.as_boolean()),
            DataType::Utf8View => Form::Text(array.as_string_view()),
            DataType::BinaryView => Form::Bytes(array.as_binary_view()),
            DataType::Date32 => Form::Date(array.as_primitive::<Date32Type>().values()),
            DataType::Timestamp(unit, zone) => {
                let is_utc = zone.is_some();
                if zone.as_deref().is_some_and(|zone| zone != "UTC") {
                    return None;
                }
                let (values, scale) = match unit {
                    TimeUnit::Millisecond => (
                        array.as_primitive::<TimestampMillisecondType>().values(),
                        1000,
                    ),
                    TimeUnit::Microsecond => {
                        (array.as_primitive::<TimestampMicrosecondType>().values(), 1)
                    }
                    _ => return None,
                };
                Form::Time(values, scale, is_utc)
            }
            DataType::LargeList(_) => {
                let list = array.as_list::<i64>();
                Form::List(list.offsets(), Box::new(Values::of(list.values())?))
            }
            DataType::Struct(fields) => {
                let names: Vec<String> = fields.iter().map(|field| field.name().clone()).collect();
                Form::Object(members(&names, array.as_struct().columns()).ok()?)
            }
            _ => return None,
        };
        // Of nulls alone there is no buffer.
        let nulls = array.nulls().filter(|nulls| nulls.null_count() > 0);
        Some(Self { nulls, form })
    }

    #[inline(always)]
    fn write(&self, row: usize, to: &mut Vec<u8>) -> Written {
        if self.nulls.is_some_and(|nulls| nulls.is_null(row)) {
            to.extend_from_slice(b"null");
            return Ok(());
        }
        match &self.form {
            Form::Signed(values) => write_integer(values[row], to),
            Form::Float(values) => return write_float(values[row], to),
            Form::Text(texts) => write_text(texts, row, to),
            _ => return self.write_other(row, to),
        }
        Ok(())
    }

    #[inline(never)]
    fn write_other(&self, row: usize, to: &mut Vec<u8>) -> Written {
        match &self.form {
            Form::Null => to.extend_from_slice(b"null"),
            Form::Signed(values) => write_integer(values[row], to),
            Form::Signed32(values) => write_integer(values[row].into(), to),
            Form::Signed16(values) => write_integer(values[row].into(), to),
            Form::Signed8(values) => write_integer(values[row].into(), to),
            Form::Unsigned(values) => push_integer(values[row], to),
            Form::Unsigned32(values) => push_integer(values[row].into(), to),
            Form::Unsigned16(values) => push_integer(values[row].into(), to),
            Form::Unsigned8(values) => push_integer(values[row].into(), to),
            Form::Float(values) => return write_float(values[row], to),
            Form::Float32(values) => return write_float(values[row].into(), to),
            Form::Boolean(values) => {
                let text: &[u8] = if values.value(row) { b"true" } else { b"false" };
                to.extend_from_slice(text);
            }
            Form::Text(texts) => write_text(texts, row, to),
            Form::Bytes(values) => write_base64(values.value(row), to),
            Form::Date(days) => return written(write_date(days[row].into(), to)),
            Form::Time(times, scale, is_utc) => {
                let time = times[row].checked_mul(*scale);
                return written(time.and_then(|time| write_time(time, *is_utc, to)));
            }
            Form::List(offsets, items) => {
                let (start, end) = (offsets[row].as_usize(), offsets[row + 1].as_usize());
                to.push(b'[');
                for item in start..end {
                    if item > start {
                        to.push(b',');
                    }
                    items.write(item, to)?;
                }
                to.push(b']');
            }
            Form::Object(members) => return write_object(members, row, to),
        }
        Ok(())
    }
}

fn written(done: Option<()>) -> Written {
    done.ok_or(Failure::Unknown)
}

#[inline(always)]
fn write_integer(value: i64, to: &mut Vec<u8>) {
    if value < 0 {
        to.push(b'-');
    }
    push_integer(value.unsigned_abs(), to);
}

#[inline(always)]
fn write_text(texts: &StringViewArray, row: usize, to: &mut Vec<u8>) {
    let view = texts.views()[row];
    let len = view as u32 as usize;
    if len <= 12 {
        push_short_text(view >> 32, len, to);
    } else {
        push_text(texts.value(row).as_bytes(), to);
    }
}

/// Floats below this are tried as hundredths, which are far from what a float holds exactly.
const HUNDREDTHS_MAX: f64 = 1e12;

#[inline(always)]
fn write_float(value: f64, to: &mut Vec<u8>) -> Written {
    if value.abs() < HUNDREDTHS_MAX {
        let hundredths = (value.abs() * 100.0 + 0.5) as u64;
        // Both are exact, so this is the float that is nearest to the decimal number.
        if hundredths as f64 / 100.0 == value.abs() {
            write_hundredths(hundredths, value.is_sign_negative(), to);
            return Ok(());
        }
    }
    if !value.is_finite() {
        return Err(Failure::NotFinite);
    }
    to.extend_from_slice(ryu::Buffer::new().format_finite(value).as_bytes());
    Ok(())
}

#[inline(always)]
fn write_hundredths(hundredths: u64, is_negative: bool, to: &mut Vec<u8>) {
    if is_negative {
        to.push(b'-');
    }
    push_integer(hundredths / 100, to);
    let rest = hundredths % 100;
    let digits = u64::from(b'.') | (0x30 + rest / 10) << 8 | (0x30 + rest % 10) << 16;
    let len = if rest.is_multiple_of(10) { 2 } else { 3 };
    push_word(digits.into(), len, to);
}
