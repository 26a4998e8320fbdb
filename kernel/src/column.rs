//! Columns of bytes: what record batches are decoded to and encoded from.

use arrow_array::BinaryViewArray;
use arrow_buffer::{Buffer, NullBufferBuilder};

/// Builds a column of byte strings that point into shared buffers: nothing is copied.
///
/// The buffers live as long as any column that refers to them.
pub struct ViewBuilder {
    views: Vec<u128>,
    nulls: NullBufferBuilder,
    buffers: Vec<Buffer>,
}

impl Default for ViewBuilder {
    fn default() -> Self {
        Self {
            views: Vec::new(),
            nulls: NullBufferBuilder::new(0),
            buffers: Vec::new(),
        }
    }
}

/// Longest value that a view holds itself; longer ones are in a buffer.
const INLINE_MAX: usize = 12;

impl ViewBuilder {
    /// Adds a buffer; values that are pushed from now on may point into it.
    pub fn add_buffer(&mut self, buffer: Buffer) {
        self.buffers.push(buffer);
    }

    /// Adds the value `buffer[start..start + len]` of the buffer added last.
    ///
    /// Panics if it is outside of the buffer; callers have checked that.
    #[inline]
    pub fn push(&mut self, start: usize, len: usize) {
        let at = self.buffers.len() - 1;
        let value = &self.buffers[at].as_slice()[start..start + len];
        self.views.push(view(value, at as u32, start as u32));
        self.nulls.append_non_null();
    }

    /// Adds `value`, which will be at `start` of the buffer that is added next.
    ///
    /// `finish` panics if it is not.
    #[inline]
    pub fn push_ahead(&mut self, value: &[u8], start: usize) {
        self.views
            .push(view(value, self.buffers.len() as u32, start as u32));
        self.nulls.append_non_null();
    }

    /// Adds a null.
    #[inline]
    pub fn push_null(&mut self) {
        self.views.push(0);
        self.nulls.append_null();
    }

    /// Makes room for `count` more values.
    pub fn reserve(&mut self, count: usize) {
        self.views.reserve(count);
    }

    /// Returns the number of values so far.
    pub fn len(&self) -> usize {
        self.views.len()
    }

    /// Returns whether there are no values so far.
    pub fn is_empty(&self) -> bool {
        self.views.is_empty()
    }

    /// Returns the column.
    pub fn finish(self) -> BinaryViewArray {
        BinaryViewArray::try_new(self.views.into(), self.buffers, self.nulls.build())
            .expect("views are in bounds, each was made from a slice of its buffer")
    }
}

/// Returns the Arrow view of a value at `start` of buffer `buffer`.
#[inline]
fn view(value: &[u8], buffer: u32, start: u32) -> u128 {
    let len = value.len();
    let mut bytes = [0u8; 16];
    bytes[..4].copy_from_slice(&(len as u32).to_le_bytes());
    if len <= INLINE_MAX {
        bytes[4..4 + len].copy_from_slice(value);
    } else {
        bytes[4..8].copy_from_slice(&value[..4]);
        bytes[8..12].copy_from_slice(&buffer.to_le_bytes());
        bytes[12..].copy_from_slice(&start.to_le_bytes());
    }
    u128::from_le_bytes(bytes)
}
