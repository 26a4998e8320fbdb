//! Documents to columns, one row for each document that the kernel is certain of.

use arrow_array::{ArrayRef, StructArray};
use arrow_buffer::{Buffer, NullBuffer};
use arrow_data::ByteView;
use arrow_schema::{DataType, Field as ArrowField, Fields};

use super::keys::Keys;
use super::scan::{Certain, Cursor, SLACK, Uncertain};
use super::schema::{FIELDS_MAX, Field, Kind, Shape};
use super::values::Values;
use crate::column::Bytes;

/// Rows that documents were read to.
pub struct Projection {
    /// One field per column. Text is there as bytes that are known to be UTF-8.
    pub rows: StructArray,
    /// Its type with text as text.
    pub logical: DataType,
    /// The documents that have no row here, in order.
    pub uncertain: Vec<u32>,
}

/// Reads documents of one schema. It learns how they are written, and so is kept between batches.
pub struct Projector {
    root: Object,
}

impl Projector {
    /// Returns a projector, None if the fields of an object are none or too many.
    pub fn new(fields: &[Field]) -> Option<Self> {
        Object::new(fields).map(|root| Self { root })
    }

    /// Reads documents; nulls among them are uncertain.
    pub fn project(&mut self, documents: &Bytes) -> Projection {
        let buffers = documents.buffers();
        let side = u32::try_from(buffers.len()).unwrap_or(u32::MAX);
        self.root.reserve(documents.len());
        let mut uncertain = Vec::new();
        for (index, &view) in documents.views().iter().enumerate() {
            let rows = self.root.len;
            let read = if documents.is_null(index) {
                Err(Uncertain)
            } else {
                self.document(ByteView::from(view), index, documents, side)
            };
            if read.is_err() {
                self.root.truncate(rows);
                uncertain.push(index as u32);
            }
        }
        let (rows, logical) = self.root.finish(buffers, None);
        Projection {
            rows,
            logical,
            uncertain,
        }
    }

    #[inline(always)]
    fn document(
        &mut self,
        view: ByteView,
        index: usize,
        documents: &Bytes,
        side: u32,
    ) -> Certain<()> {
        let len = view.length as usize;
        let mut cursor = if len <= 12 {
            // It is in the view itself, and so is whatever text it has.
            Cursor::new(documents.value(index), len)
        } else {
            let buffer = documents.buffers().get(view.buffer_index as usize);
            let start = view.offset as usize;
            let rest = buffer.and_then(|buffer| buffer.as_slice().get(start..));
            let text = rest.ok_or(Uncertain)?;
            let text = &text[..text.len().min(len + SLACK)];
            let mut cursor = Cursor::new(text, len);
            (cursor.buffer, cursor.base) = (view.buffer_index, view.offset);
            cursor
        };
        cursor.skip_space();
        cursor.side = side;
        self.root.read(&mut cursor)?;
        cursor.finish()
    }
}

/// The columns of an object's fields.
pub(super) struct Object {
    names: Vec<String>,
    keys: Keys,
    columns: Vec<Column>,
    /// One bit per field: all of them, and those that a document must have.
    all: u64,
    required: u64,
    pub(super) len: usize,
}

impl Object {
    pub(super) fn new(fields: &[Field]) -> Option<Self> {
        if fields.is_empty() || fields.len() > FIELDS_MAX {
            return None;
        }
        let columns: Option<Vec<Column>> = fields
            .iter()
            .map(|field| Column::new(&field.kind))
            .collect();
        let mut required = 0;
        for (index, field) in fields.iter().enumerate() {
            required |= u64::from(!field.is_null_if_missing) << index;
        }
        Some(Self {
            names: fields.iter().map(|field| field.name.clone()).collect(),
            keys: Keys::new(fields),
            columns: columns?,
            all: u64::MAX >> (FIELDS_MAX - fields.len()),
            required,
            len: 0,
        })
    }

    /// Reads the object here to one row. After a failure some columns have it and some have not.
    #[inline]
    pub(super) fn read(&mut self, cursor: &mut Cursor) -> Certain<()> {
        cursor.expect(b'{')?;
        cursor.skip_space();
        let mut seen = 0u64;
        if cursor.peek() == b'}' {
            cursor.pos += 1;
        } else {
            seen = self.read_members(cursor)?;
        }
        if seen != self.all {
            self.add_missing(seen)?;
        }
        self.len += 1;
        Ok(())
    }

    #[inline(always)]
    fn read_members(&mut self, cursor: &mut Cursor) -> Certain<u64> {
        let mut seen = 0u64;
        for position in 0.. {
            let field = self.keys.read(cursor, position)?;
            cursor.skip_space();
            if let Some(index) = field {
                if seen >> index & 1 != 0 {
                    return Err(Uncertain);
                }
                seen |= 1 << index;
                self.columns[index].read(cursor)?;
            } else {
                self.keys.skip_value(cursor)?;
            }
            let byte = cursor.token();
            cursor.pos += 1;
            if byte != b',' {
                return if byte == b'}' {
                    Ok(seen)
                } else {
                    Err(Uncertain)
                };
            }
            cursor.skip_space();
        }
        Err(Uncertain)
    }

    fn add_missing(&mut self, seen: u64) -> Certain<()> {
        if self.required & !seen != 0 {
            return Err(Uncertain);
        }
        for (index, column) in self.columns.iter_mut().enumerate() {
            if seen >> index & 1 == 0 {
                column.push_null();
            }
        }
        Ok(())
    }

    pub(super) fn push_null(&mut self) {
        self.columns.iter_mut().for_each(Column::push_null);
        self.len += 1;
    }

    pub(super) fn reserve(&mut self, rows: usize) {
        for column in &mut self.columns {
            column.values.reserve(rows);
        }
    }

    pub(super) fn truncate(&mut self, len: usize) {
        for column in &mut self.columns {
            column.truncate(len);
        }
        self.len = len;
    }

    pub(super) fn finish(
        &mut self,
        buffers: &[Buffer],
        nulls: Option<NullBuffer>,
    ) -> (StructArray, DataType) {
        let mut arrays = Vec::new();
        let mut physical = Vec::new();
        let mut logical = Vec::new();
        for (name, column) in self.names.iter().zip(&mut self.columns) {
            let (array, kind) = column.finish(buffers);
            physical.push(ArrowField::new(name, array.data_type().clone(), true));
            logical.push(ArrowField::new(name, kind, true));
            arrays.push(array);
        }
        self.len = 0;
        let rows = StructArray::new(physical.into(), arrays, nulls);
        (rows, DataType::Struct(Fields::from(logical)))
    }
}

/// One column of values, some of which may be null.
pub(super) struct Column {
    values: Values,
    is_nullable: bool,
    /// None as long as there is no null.
    valid: Option<Vec<bool>>,
}

impl Column {
    pub(super) fn new(kind: &Kind) -> Option<Self> {
        Some(Self {
            values: Values::new(&kind.shape)?,
            is_nullable: kind.is_nullable,
            valid: None,
        })
    }

    #[inline(always)]
    pub(super) fn read(&mut self, cursor: &mut Cursor) -> Certain<()> {
        if cursor.peek() == b'n' {
            if !self.is_nullable {
                return Err(Uncertain);
            }
            cursor.null()?;
            self.push_null();
            return Ok(());
        }
        self.values.read(cursor)?;
        if let Some(valid) = &mut self.valid {
            valid.push(true);
        }
        Ok(())
    }

    #[cold]
    pub(super) fn push_null(&mut self) {
        let len = self.values.len();
        self.valid
            .get_or_insert_with(|| vec![true; len])
            .push(false);
        self.values.push_default();
    }

    pub(super) fn truncate(&mut self, len: usize) {
        self.values.truncate(len);
        if let Some(valid) = &mut self.valid {
            valid.truncate(len);
        }
    }

    pub(super) fn finish(&mut self, buffers: &[Buffer]) -> (ArrayRef, DataType) {
        let nulls = self.valid.take().map(NullBuffer::from);
        self.values.finish(buffers, nulls)
    }

    pub(super) fn len(&self) -> usize {
        self.values.len()
    }
}

impl Values {
    pub(super) fn new(shape: &Shape) -> Option<Self> {
        Some(match shape {
            Shape::Int64 => Self::Integers(Vec::new()),
            Shape::Float64 => Self::Floats(Vec::new()),
            Shape::Text => Self::Texts(super::values::Texts::default()),
            Shape::Bytes => Self::Bytes(super::values::Texts::default()),
            Shape::Boolean => Self::Booleans(Vec::new()),
            Shape::Time => Self::Times(Vec::new()),
            Shape::Date => Self::Dates(Vec::new()),
            Shape::List(kind) => Self::Lists {
                offsets: vec![0],
                items: Box::new(Column::new(kind)?),
            },
            Shape::Object(fields) => Self::Objects(Box::new(Object::new(fields)?)),
        })
    }
}
