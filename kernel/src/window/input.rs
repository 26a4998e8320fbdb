//! What a batch brings: keys, and one input per aggregate.

use std::ops::Range;

use arrow_array::{
    Array, BinaryViewArray, BooleanArray, Float64Array, Int64Array, StringViewArray,
};
use arrow_buffer::NullBuffer;

use super::keys::Interner;

/// A column of keys without nulls.
pub enum Keys {
    /// Text or bytes, with the byte that tells which.
    Tagged(u8, BinaryViewArray),
    /// State keys, each with its own such byte.
    State(BinaryViewArray),
    /// Integers.
    Integers(Int64Array),
    /// Truth values.
    Booleans(BooleanArray),
}

/// The values that one aggregate reads.
pub enum Input {
    /// Each record counts, or none has a value: what the aggregate is tells which.
    Nothing,
    /// Which records have a value.
    Present(BooleanArray),
    /// Integers, also dates and times.
    Integers(Int64Array),
    /// Floats.
    Floats(Float64Array),
    /// Text.
    Text(StringViewArray),
}

impl Input {
    /// Returns the values of some of the records.
    pub fn part(&self, records: &Range<usize>) -> Self {
        let (begin, len) = (records.start, records.len());
        match self {
            Self::Nothing => Self::Nothing,
            Self::Present(column) => Self::Present(column.slice(begin, len)),
            Self::Integers(column) => Self::Integers(column.slice(begin, len)),
            Self::Floats(column) => Self::Floats(column.slice(begin, len)),
            Self::Text(column) => Self::Text(column.slice(begin, len)),
        }
    }
}

const TEXT_TRUE: &[u8] = b"true";
const TEXT_FALSE: &[u8] = b"false";

impl Keys {
    /// Returns the number of keys.
    pub fn len(&self) -> usize {
        match self {
            Self::Tagged(_, keys) | Self::State(keys) => keys.len(),
            Self::Integers(keys) => keys.len(),
            Self::Booleans(keys) => keys.len(),
        }
    }

    /// Returns whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the id of each key; those made for it are added to `fresh`.
    pub fn intern(&self, into: &mut Interner, fresh: &mut Vec<u32>) -> Vec<u32> {
        let mut ids = Vec::with_capacity(self.len());
        match self {
            Self::Tagged(tag, keys) => {
                intern_all(into, fresh, &mut ids, keys.len(), |i| (*tag, keys.value(i)));
            }
            Self::State(keys) => intern_all(into, fresh, &mut ids, keys.len(), |i| {
                let key = keys.value(i);
                // State keys are never empty; if one were, it would be that of no bytes.
                key.split_first()
                    .map_or((b'b', key), |(tag, body)| (*tag, body))
            }),
            Self::Integers(keys) => {
                let mut text = [0u8; 20];
                for &key in keys.values() {
                    let body = decimal(key, &mut text);
                    ids.push(intern(into, fresh, b'j', body));
                }
            }
            Self::Booleans(keys) => {
                for key in keys.values() {
                    let body = if key { TEXT_TRUE } else { TEXT_FALSE };
                    ids.push(intern(into, fresh, b'j', body));
                }
            }
        }
        ids
    }
}

/// Records whose keys are hashed before any of them is looked up: the look-ups of a run do not
/// depend on each other, so that the processor waits for several at a time.
const RUN: usize = 64;

fn intern_all<'a>(
    into: &mut Interner,
    fresh: &mut Vec<u32>,
    ids: &mut Vec<u32>,
    count: usize,
    key: impl Fn(usize) -> (u8, &'a [u8]),
) {
    let mut run: [(u64, u8, &[u8]); RUN] = [(0, 0, &[]); RUN];
    for begin in (0..count).step_by(RUN) {
        let some = &mut run[..RUN.min(count - begin)];
        for (i, place) in some.iter_mut().enumerate() {
            let (tag, body) = key(begin + i);
            *place = (into.hash(tag, body), tag, body);
        }
        for &(hash, tag, body) in some.iter() {
            ids.push(match into.find(hash, tag, body) {
                Some(id) => id,
                None => {
                    let id = into.insert(hash, tag, body);
                    fresh.push(id);
                    id
                }
            });
        }
    }
}

/// Returns the id of a key, making one if there is none.
pub fn intern(into: &mut Interner, fresh: &mut Vec<u32>, tag: u8, body: &[u8]) -> u32 {
    let hash = into.hash(tag, body);
    into.find(hash, tag, body).unwrap_or_else(|| {
        let id = into.insert(hash, tag, body);
        fresh.push(id);
        id
    })
}

fn decimal(value: i64, text: &mut [u8; 20]) -> &[u8] {
    let mut rest = value.unsigned_abs();
    let mut at = text.len();
    loop {
        at -= 1;
        text[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        at -= 1;
        text[at] = b'-';
    }
    &text[at..]
}

/// Calls `visit` with slot, value and index of each record that has a value.
#[inline]
pub fn each<T: Copy>(
    slots: &[u32],
    values: &[T],
    nulls: Option<&NullBuffer>,
    mut visit: impl FnMut(usize, T, usize),
) {
    match nulls.filter(|nulls| nulls.null_count() > 0) {
        None => {
            for (i, (&slot, &value)) in slots.iter().zip(values).enumerate() {
                visit(slot as usize, value, i);
            }
        }
        Some(nulls) => {
            for i in nulls.valid_indices() {
                visit(slots[i] as usize, values[i], i);
            }
        }
    }
}

/// Calls `visit` with slot, value as a float, and index of each record that has a value.
pub fn each_float(slots: &[u32], input: &Input, mut visit: impl FnMut(usize, f64, usize)) {
    match input {
        Input::Floats(column) => {
            each(slots, column.values(), column.nulls(), visit);
        }
        Input::Integers(column) => {
            each(slots, column.values(), column.nulls(), |at, value, i| {
                visit(at, value as f64, i);
            });
        }
        Input::Nothing | Input::Present(_) | Input::Text(_) => {}
    }
}

/// Calls `visit` with slot, text and index of each record that has one.
pub fn each_text(
    slots: &[u32],
    column: &StringViewArray,
    mut visit: impl FnMut(usize, &str, usize),
) {
    for (i, (&slot, text)) in slots.iter().zip(column).enumerate() {
        if let Some(text) = text {
            visit(slot as usize, text, i);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_keys_by_their_decimal_text() {
        for value in [0, 7, -1, i64::MAX, i64::MIN] {
            let mut text = [0u8; 20];
            assert_eq!(decimal(value, &mut text), value.to_string().as_bytes());
        }
    }
}
