//! Keys by their numbers as a column.

use std::sync::Arc;

use arrow_array::builder::{BinaryViewBuilder, StringViewBuilder};
use arrow_array::{ArrayRef, BooleanArray, Int64Array};

use super::keys::Interner;

/// Returns keys in the form they were given, or as state keys if they are of several types or
/// composite; and whether they are state keys.
pub fn key_column(keys: &Interner, ids: &[u32]) -> (ArrayRef, bool) {
    match typed_keys(keys, ids) {
        Some(typed) => (typed, false),
        None => (state_keys(keys, ids), true),
    }
}

/// Returns keys in the form they were given; None if they are not of one simple type.
fn typed_keys(keys: &Interner, ids: &[u32]) -> Option<ArrayRef> {
    let tag = keys.key(*ids.first()?)[0];
    if ids.iter().any(|&id| keys.key(id)[0] != tag) {
        return None;
    }
    let bodies = ids.iter().map(|&id| &keys.key(id)[1..]);
    match tag {
        b's' => {
            let mut column = StringViewBuilder::with_capacity(ids.len());
            for body in bodies {
                column.append_value(std::str::from_utf8(body).ok()?);
            }
            Some(Arc::new(column.finish()))
        }
        b'b' => {
            let mut column = BinaryViewBuilder::with_capacity(ids.len());
            bodies.for_each(|body| column.append_value(body));
            Some(Arc::new(column.finish()))
        }
        b'j' => {
            let integer = |body| std::str::from_utf8(body).ok()?.parse::<i64>().ok();
            if let Some(integers) = bodies.clone().map(integer).collect::<Option<Vec<i64>>>() {
                return Some(Arc::new(Int64Array::from(integers)));
            }
            let boolean = |body: &[u8]| match body {
                b"true" => Some(true),
                b"false" => Some(false),
                _ => None,
            };
            let booleans = bodies.map(boolean).collect::<Option<Vec<bool>>>()?;
            Some(Arc::new(BooleanArray::from(booleans)))
        }
        _ => None,
    }
}

fn state_keys(keys: &Interner, ids: &[u32]) -> ArrayRef {
    let mut column = BinaryViewBuilder::with_capacity(ids.len());
    ids.iter().for_each(|&id| column.append_value(keys.key(id)));
    Arc::new(column.finish())
}
