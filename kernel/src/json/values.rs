//! The values of a column while documents are read.

use std::sync::Arc;

use arrow_array::{
    Array, ArrayRef, BinaryViewArray, BooleanArray, Date32Array, Float64Array, Int64Array,
    LargeListArray, TimestampMicrosecondArray,
};
use arrow_buffer::{Buffer, NullBuffer, OffsetBuffer};
use arrow_schema::{DataType, Field as ArrowField};

use super::base64::read_base64;
use super::project::{Column, Object};
use super::scan::{Certain, Cursor, Uncertain, padded};

/// Longest text that a view holds itself; longer ones are in a buffer.
const INLINE_MAX: usize = 12;

/// What keeps so many bytes of the first twelve.
const INLINE_MASKS: [u128; INLINE_MAX + 1] = {
    let mut masks = [0; INLINE_MAX + 1];
    let mut len = 1;
    while len <= INLINE_MAX {
        masks[len] = masks[len - 1] << 8 | 0xff;
        len += 1;
    }
    masks
};

/// Values of one kind; nulls have a default here.
pub(super) enum Values {
    Integers(Vec<i64>),
    Floats(Vec<f64>),
    Booleans(Vec<bool>),
    /// Microseconds since the epoch.
    Times(Vec<i64>),
    /// Days since the epoch.
    Dates(Vec<i32>),
    Texts(Texts),
    Bytes(Texts),
    Lists {
        offsets: Vec<i64>,
        items: Box<Column>,
    },
    Objects(Box<Object>),
}

impl Values {
    #[inline(always)]
    pub(super) fn read(&mut self, cursor: &mut Cursor) -> Certain<()> {
        match self {
            Self::Integers(values) => values.push(cursor.integer()?),
            Self::Floats(values) => values.push(cursor.float()?),
            Self::Booleans(values) => values.push(cursor.boolean()?),
            Self::Times(values) => values.push(cursor.time()?),
            Self::Dates(values) => values.push(cursor.date()?),
            Self::Texts(texts) => texts.read(cursor)?,
            Self::Bytes(texts) => texts.read_bytes(cursor)?,
            Self::Lists { offsets, items } => {
                read_items(items, cursor)?;
                offsets.push(items.len() as i64);
            }
            Self::Objects(object) => object.read(cursor)?,
        }
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Integers(values) => values.len(),
            Self::Floats(values) => values.len(),
            Self::Booleans(values) => values.len(),
            Self::Times(values) => values.len(),
            Self::Dates(values) => values.len(),
            Self::Texts(texts) | Self::Bytes(texts) => texts.views.len(),
            Self::Lists { offsets, .. } => offsets.len() - 1,
            Self::Objects(object) => object.len,
        }
    }

    pub(super) fn push_default(&mut self) {
        match self {
            Self::Integers(values) => values.push(0),
            Self::Floats(values) => values.push(0.0),
            Self::Booleans(values) => values.push(false),
            Self::Times(values) => values.push(0),
            Self::Dates(values) => values.push(0),
            Self::Texts(texts) | Self::Bytes(texts) => texts.views.push(0),
            Self::Lists { offsets, items } => offsets.push(items.len() as i64),
            Self::Objects(object) => object.push_null(),
        }
    }

    pub(super) fn reserve(&mut self, rows: usize) {
        match self {
            Self::Integers(values) => values.reserve(rows),
            Self::Floats(values) => values.reserve(rows),
            Self::Booleans(values) => values.reserve(rows),
            Self::Times(values) => values.reserve(rows),
            Self::Dates(values) => values.reserve(rows),
            Self::Texts(texts) | Self::Bytes(texts) => texts.views.reserve(rows),
            Self::Lists { offsets, .. } => offsets.reserve(rows),
            Self::Objects(object) => object.reserve(rows),
        }
    }

    pub(super) fn truncate(&mut self, len: usize) {
        match self {
            Self::Integers(values) => values.truncate(len),
            Self::Floats(values) => values.truncate(len),
            Self::Booleans(values) => values.truncate(len),
            Self::Times(values) => values.truncate(len),
            Self::Dates(values) => values.truncate(len),
            Self::Texts(texts) | Self::Bytes(texts) => texts.views.truncate(len),
            Self::Lists { offsets, items } => {
                offsets.truncate(len + 1);
                let end = offsets.last().copied().unwrap_or_default();
                items.truncate(end as usize);
            }
            Self::Objects(object) => object.truncate(len),
        }
    }

    /// Takes the values out, as an array and as the type that it stands for.
    pub(super) fn finish(
        &mut self,
        buffers: &[Buffer],
        nulls: Option<NullBuffer>,
    ) -> (ArrayRef, DataType) {
        let array: ArrayRef = match self {
            Self::Integers(values) => {
                Arc::new(Int64Array::new(std::mem::take(values).into(), nulls))
            }
            Self::Floats(values) => {
                Arc::new(Float64Array::new(std::mem::take(values).into(), nulls))
            }
            Self::Booleans(values) => {
                Arc::new(BooleanArray::new(std::mem::take(values).into(), nulls))
            }
            Self::Times(values) => {
                let times = TimestampMicrosecondArray::new(std::mem::take(values).into(), nulls);
                Arc::new(times.with_timezone("UTC"))
            }
            Self::Dates(values) => Arc::new(Date32Array::new(std::mem::take(values).into(), nulls)),
            Self::Texts(texts) => {
                let array: ArrayRef = Arc::new(texts.finish(buffers, nulls));
                return (array, DataType::Utf8View);
            }
            Self::Bytes(texts) => Arc::new(texts.finish(&[], nulls)),
            Self::Lists { offsets, items } => {
                let offsets = OffsetBuffer::new(std::mem::replace(offsets, vec![0]).into());
                let (items, kind) = items.finish(buffers);
                let item = |kind| Arc::new(ArrowField::new("item", kind, true));
                let field = item(items.data_type().clone());
                let array = LargeListArray::new(field, offsets, items, nulls);
                return (Arc::new(array), DataType::LargeList(item(kind)));
            }
            Self::Objects(object) => {
                let (array, kind) = object.finish(buffers, nulls);
                return (Arc::new(array), kind);
            }
        };
        let kind = array.data_type().clone();
        (array, kind)
    }
}

/// Reads a list; not inlined, since it leads back to `Values::read`.
fn read_items(items: &mut Column, cursor: &mut Cursor) -> Certain<()> {
    cursor.expect(b'[')?;
    cursor.skip_space();
    if cursor.peek() == b']' {
        cursor.pos += 1;
        return Ok(());
    }
    loop {
        items.read(cursor)?;
        let byte = cursor.token();
        cursor.pos += 1;
        if byte == b']' {
            return Ok(());
        }
        if byte != b',' {
            return Err(Uncertain);
        }
        cursor.skip_space();
    }
}

/// Texts as views of the documents, or of what their escapes or all of their digits stand for.
#[derive(Default)]
pub(super) struct Texts {
    views: Vec<u128>,
    unescaped: Vec<u8>,
}

impl Texts {
    #[inline(always)]
    fn read(&mut self, cursor: &mut Cursor) -> Certain<()> {
        let text = cursor.text()?;
        if text.is_escaped {
            return self.read_escaped(cursor, text.start, text.end);
        }
        let start = text.start as u32;
        let head = cursor.wide_word(text.start);
        let offset = cursor.base.checked_add(start).ok_or(Uncertain)?;
        self.views
            .push(view(text.end - text.start, head, cursor.buffer, offset));
        Ok(())
    }

    #[inline(never)]
    fn read_escaped(&mut self, cursor: &Cursor, start: usize, end: usize) -> Certain<()> {
        let from = self.unescaped.len();
        let text = super::string::Text {
            start,
            end,
            is_escaped: true,
        };
        cursor.unescape(&text, &mut self.unescaped)?;
        self.push(from, cursor.side)
    }

    fn read_bytes(&mut self, cursor: &mut Cursor) -> Certain<()> {
        let from = self.unescaped.len();
        cursor.plain_text(|text| read_base64(text, &mut self.unescaped))?;
        // There are no other buffers: none has what base64 stands for.
        self.push(from, 0)
    }

    /// Adds what was written behind `from`; its buffer will have the number `buffer`.
    fn push(&mut self, from: usize, buffer: u32) -> Certain<()> {
        // Arrow's offsets are signed where others read them.
        if self.unescaped.len() > i32::MAX as usize {
            return Err(Uncertain);
        }
        let found = &self.unescaped[from..];
        let view = view(found.len(), padded(found), buffer, from as u32);
        self.views.push(view);
        Ok(())
    }

    fn finish(&mut self, buffers: &[Buffer], nulls: Option<NullBuffer>) -> BinaryViewArray {
        let views = std::mem::take(&mut self.views);
        let mut shared = Vec::new();
        // Without a view into them, they need not be kept.
        if views.iter().any(|&view| view as u32 as usize > INLINE_MAX) {
            shared.extend_from_slice(buffers);
            shared.push(Buffer::from_vec(std::mem::take(&mut self.unescaped)));
        }
        self.unescaped.clear();
        BinaryViewArray::try_new(views.into(), shared, nulls)
            .expect("each view was made of a part of its buffer")
    }
}

/// Returns the Arrow view of a text of which `head` are the first bytes.
#[inline(always)]
fn view(len: usize, head: u128, buffer: u32, offset: u32) -> u128 {
    let bits = len as u128;
    if len <= INLINE_MAX {
        return bits | (head & INLINE_MASKS[len]) << 32;
    }
    bits | (head & 0xffff_ffff) << 32 | u128::from(buffer) << 64 | u128::from(offset) << 96
}
