//! Columns of bytes: what record batches are decoded to and encoded from.

use arrow_array::{Array, BinaryViewArray};
use arrow_buffer::{Buffer, NullBuffer, NullBufferBuilder, ScalarBuffer};

/// Builds a column of byte strings that point into shared buffers: nothing is copied.
///
/// The buffers live as long as any column that refers to them.
pub struct ViewBuilder {
    views: Vec<u128>,
    nulls: NullBufferBuilder,
    buffers: Vec<Buffer>,
    needed: usize, // buffers, for the views so far
}

impl Default for ViewBuilder {
    fn default() -> Self {
        Self {
            views: Vec::new(),
            nulls: NullBufferBuilder::new(0),
            buffers: Vec::new(),
            needed: 0,
        }
    }
}

/// Longest value that a view holds itself; longer ones are in a buffer.
const INLINE_MAX: usize = 12;
const VIEW_BYTES: usize = 16;

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
        let buffer = self.buffers[at].as_slice();
        self.views.push(view(buffer, at as u32, start, len));
        self.nulls.append_non_null();
    }

    /// Adds the value `buffer[start..start + len]` of what will be the buffer that is added next.
    ///
    /// `finish` panics if it is not.
    #[inline]
    pub fn push_ahead(&mut self, buffer: &[u8], start: usize, len: usize) {
        self.views
            .push(view(buffer, self.buffers.len() as u32, start, len));
        self.needed = self.buffers.len() + 1;
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
    ///
    /// Panics if there is a value of a buffer that has not been added.
    pub fn finish(self) -> Bytes {
        let buffers = self.buffers.len();
        assert!(
            self.needed <= buffers,
            "a buffer is missing behind {buffers}"
        );
        Bytes {
            views: self.views.into(),
            buffers: self.buffers,
            nulls: self.nulls.build(),
        }
    }
}

/// A column of byte strings, in the parts that Arrow's array of views has.
///
/// Arrow looks at each view before it makes an array of them: what stays in the kernel is spared
/// that.
#[derive(Clone)]
pub struct Bytes {
    views: ScalarBuffer<u128>,
    buffers: Vec<Buffer>,
    nulls: Option<NullBuffer>,
}

impl Bytes {
    /// Returns the number of values.
    pub fn len(&self) -> usize {
        self.views.len()
    }

    /// Returns whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.views.is_empty()
    }

    /// Returns the number of nulls.
    pub fn null_count(&self) -> usize {
        self.nulls.as_ref().map_or(0, NullBuffer::null_count)
    }

    /// Returns whether a value is null.
    #[inline]
    pub fn is_null(&self, index: usize) -> bool {
        self.nulls
            .as_ref()
            .is_some_and(|nulls| nulls.is_null(index))
    }

    /// Returns a value, None if it is null.
    #[inline]
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        (!self.is_null(index)).then(|| self.value(index))
    }

    /// Returns a value; that of a null may be any.
    #[inline]
    pub fn value(&self, index: usize) -> &[u8] {
        let view = self.views[index];
        let len = view as u32 as usize;
        if len > INLINE_MAX {
            let (number, start) = ((view >> 64) as u32 as usize, (view >> 96) as usize);
            return &self.buffers[number].as_slice()[start..start + len];
        }
        let start = index * VIEW_BYTES + VIEW_BYTES - INLINE_MAX;
        &self.views.inner().as_slice()[start..start + len]
    }

    /// Returns whether all values are ASCII.
    pub fn is_ascii(&self) -> bool {
        // What a view does not need is zero.
        const HIGH_BITS: u128 = 0x8080_8080_8080_8080_8080_8080 << 32;
        let views = self.views.iter().enumerate();
        let mut odd = views
            .filter(|(_, view)| **view as u32 as usize > INLINE_MAX || **view & HIGH_BITS != 0);
        odd.all(|(index, _)| self.value(index).is_ascii())
    }

    /// Returns the views.
    pub fn views(&self) -> &[u128] {
        &self.views
    }

    /// Returns what the views point into.
    pub fn buffers(&self) -> &[Buffer] {
        &self.buffers
    }

    /// Returns a part of the values.
    pub fn slice(&self, offset: usize, len: usize) -> Self {
        Self {
            views: self.views.slice(offset, len),
            buffers: self.buffers.clone(),
            nulls: self.nulls.as_ref().map(|nulls| nulls.slice(offset, len)),
        }
    }

    /// Returns the same values as Arrow's array.
    pub fn to_array(&self) -> BinaryViewArray {
        BinaryViewArray::try_new(self.views.clone(), self.buffers.clone(), self.nulls.clone())
            .expect("each view was made of a part of its buffer")
    }
}

impl From<&BinaryViewArray> for Bytes {
    fn from(array: &BinaryViewArray) -> Self {
        Self {
            views: array.views().clone(),
            buffers: array.data_buffers().to_vec(),
            nulls: array.nulls().cloned(),
        }
    }
}

/// Returns the Arrow view of the value `buffer[start..start + len]` of buffer `number`.
#[inline]
fn view(buffer: &[u8], number: u32, start: usize, len: usize) -> u128 {
    let value = &buffer[start..start + len];
    if len > INLINE_MAX {
        let head = u32::from_le_bytes([value[0], value[1], value[2], value[3]]);
        let place = u128::from(start as u32) << 32 | u128::from(number);
        return place << 64 | u128::from(head) << 32 | len as u128;
    }
    let mut bytes = [0u8; 16];
    match buffer[start..].first_chunk::<INLINE_MAX>() {
        // Of a fixed length, so that it is two moves and no call; what is not the value's is cut off.
        Some(chunk) => bytes[4..].copy_from_slice(chunk),
        None => bytes[4..4 + len].copy_from_slice(value),
    }
    let kept = !(u128::MAX << (32 + 8 * len as u32 - 1) << 1);
    u128::from_le_bytes(bytes) & kept | len as u128
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_all_lengths_come_back_wherever_they_are() {
        let data: Vec<u8> = (1..=40).collect();
        let mut builder = ViewBuilder::default();
        let spans: Vec<(usize, usize)> = (0..=data.len())
            .flat_map(|start| (start..=data.len()).map(move |end| (start, end)))
            .collect();
        for &(start, end) in &spans {
            builder.push_ahead(&data, start, end - start);
        }
        builder.add_buffer(Buffer::from(data.as_slice()));
        let column = builder.finish();
        for (i, &(start, end)) in spans.iter().enumerate() {
            assert_eq!(column.get(i), Some(&data[start..end]));
            assert_eq!(column.to_array().value(i), &data[start..end]);
        }
        assert!(column.is_ascii());
        let part = column.slice(7, 5).to_array();
        assert_eq!(Bytes::from(&part).value(2), column.value(9));
    }

    #[test]
    fn one_byte_that_is_not_ascii_is_found_wherever_it_is() {
        for len in [1, 4, 12, 13, 30] {
            for at in 0..len {
                let mut text = vec![b'a'; len];
                text[at] = 0x80;
                let mut builder = ViewBuilder::default();
                builder.add_buffer(Buffer::from(text.as_slice()));
                builder.push(0, 0);
                builder.push(0, len);
                assert!(!builder.finish().is_ascii());
            }
        }
    }
}
