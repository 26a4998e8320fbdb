//! The values that aggregates keep: arrays of numbers.

use std::sync::Arc;

use arrow_array::builder::StringViewBuilder;
use arrow_array::{ArrayRef, Float64Array, Int64Array};
use arrow_buffer::NullBuffer;

/// How values of a type are held and stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// As integers, which dates and times are too; also where no value has been seen.
    Int,
    /// As floats.
    Float,
    /// As text.
    Text,
}

/// Values of one type: integers (dates and times among them) until a float or text comes.
pub enum Values {
    /// Integers.
    Int(Vec<i64>),
    /// Floats.
    Float(Vec<f64>),
    /// Text.
    Text(Texts),
}

/// Bytes of a text besides its own: where it is, and how long.
const TEXT_OVERHEAD: usize = 16;

/// Text by place; empty where there is none.
#[derive(Default)]
pub struct Texts {
    texts: Vec<Box<str>>,
    bytes: usize,
}

impl Texts {
    fn of_none(count: usize) -> Self {
        Self {
            texts: vec![Box::default(); count],
            bytes: 0,
        }
    }

    /// Returns the text of a place.
    pub fn get(&self, at: usize) -> &str {
        &self.texts[at]
    }

    /// Sets the text of a place.
    pub fn set(&mut self, at: usize, text: &str) {
        self.bytes = self.bytes + text.len() - self.texts[at].len();
        self.texts[at] = text.into();
    }

    fn push(&mut self, text: &str) {
        self.bytes += text.len();
        self.texts.push(text.into());
    }

    /// Returns how many bytes of memory they take, about.
    pub fn size(&self) -> usize {
        self.bytes + self.texts.len() * TEXT_OVERHEAD
    }
}

/// A number that there is a smaller and a larger one of.
pub trait Number: Copy + Default {
    fn smaller(self, other: Self) -> Self;
    fn larger(self, other: Self) -> Self;
}

impl Number for i64 {
    #[inline]
    fn smaller(self, other: Self) -> Self {
        self.min(other)
    }
    #[inline]
    fn larger(self, other: Self) -> Self {
        self.max(other)
    }
}

// Not a number is left out unless there is no other, as `f64` has it.
impl Number for f64 {
    #[inline]
    fn smaller(self, other: Self) -> Self {
        self.min(other)
    }
    #[inline]
    fn larger(self, other: Self) -> Self {
        self.max(other)
    }
}

impl Values {
    pub fn push(&mut self) {
        match self {
            Self::Int(values) => values.push(0),
            Self::Float(values) => values.push(0.0),
            Self::Text(texts) => texts.push(""),
        }
    }

    pub fn clear(&mut self, at: usize) {
        match self {
            Self::Int(values) => values[at] = 0,
            Self::Float(values) => values[at] = 0.0,
            Self::Text(texts) => texts.set(at, ""),
        }
    }

    /// Makes room for values of another form; those held become floats, or are none yet.
    pub fn widen(&mut self, form: Form) {
        if let Self::Int(values) = self {
            *self = match form {
                Form::Int => return,
                Form::Float => Self::Float(values.iter().map(|&value| value as f64).collect()),
                Form::Text => Self::Text(Texts::of_none(values.len())),
            };
        }
    }

    pub fn like(&self) -> Self {
        match self {
            Self::Int(_) => Self::Int(Vec::new()),
            Self::Float(_) => Self::Float(Vec::new()),
            Self::Text(_) => Self::Text(Texts::default()),
        }
    }

    pub fn extend_from(&mut self, other: &Self, slots: &[u32]) {
        match (self, other) {
            (Self::Int(to), Self::Int(from)) => extend(to, from, slots),
            (Self::Float(to), Self::Float(from)) => extend(to, from, slots),
            (Self::Text(to), Self::Text(from)) => {
                slots
                    .iter()
                    .for_each(|&slot| to.push(from.get(slot as usize)));
            }
            _ => unreachable!("rows of one table have values of one type"),
        }
    }

    pub fn copy(&mut self, to: usize, other: &Self, from: usize) {
        match (self, other) {
            (Self::Int(values), Self::Int(others)) => values[to] = others[from],
            (Self::Float(values), Self::Float(others)) => values[to] = others[from],
            (Self::Text(texts), Self::Text(others)) => texts.set(to, others.get(from)),
            _ => unreachable!("rows of one table have values of one type"),
        }
    }

    pub fn choose(&mut self, is_min: bool, to: usize, other: &Self, from: usize) {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => a[to] = chosen(is_min, a[to], b[from]),
            (Self::Float(a), Self::Float(b)) => a[to] = chosen(is_min, a[to], b[from]),
            (Self::Text(a), Self::Text(b)) => {
                if comes_before(is_min, b.get(from), a.get(to)) {
                    a.set(to, b.get(from));
                }
            }
            _ => unreachable!("rows of one table have values of one type"),
        }
    }

    /// Returns the 8 bytes that a number is stored as; None for text.
    pub fn to_bytes(&self, at: usize) -> Option<[u8; 8]> {
        match self {
            Self::Int(values) => Some(values[at].to_le_bytes()),
            Self::Float(values) => Some(values[at].to_le_bytes()),
            Self::Text(_) => None,
        }
    }

    /// Returns how many bytes of memory text takes.
    pub fn text_size(&self) -> usize {
        match self {
            Self::Text(texts) => texts.size(),
            Self::Int(_) | Self::Float(_) => 0,
        }
    }

    /// Sets a value from its 8 bytes, which may be an integer's where floats are held by now.
    pub fn set_bytes(&mut self, at: usize, bytes: [u8; 8], is_float: bool) {
        match self {
            Self::Int(values) => values[at] = i64::from_le_bytes(bytes),
            Self::Float(values) if is_float => values[at] = f64::from_le_bytes(bytes),
            Self::Float(values) => values[at] = i64::from_le_bytes(bytes) as f64,
            Self::Text(_) => {} // a row from before there was a value
        }
    }

    pub fn result(&self, order: &[u32], nulls: Option<NullBuffer>) -> ArrayRef {
        match self {
            Self::Int(values) => Arc::new(Int64Array::new(taken(values, order).into(), nulls)),
            Self::Float(values) => Arc::new(Float64Array::new(taken(values, order).into(), nulls)),
            Self::Text(texts) => {
                let mut column = StringViewBuilder::with_capacity(order.len());
                for (i, &at) in order.iter().enumerate() {
                    let is_there = nulls.as_ref().is_none_or(|nulls| nulls.is_valid(i));
                    column.append_option(is_there.then(|| texts.get(at as usize)));
                }
                Arc::new(column.finish())
            }
        }
    }
}

/// Returns whether a text is smaller, or larger, than the one that is there.
#[inline]
pub fn comes_before(is_min: bool, text: &str, held: &str) -> bool {
    if is_min { text < held } else { text > held }
}

#[inline]
pub fn chosen<T: Number>(is_min: bool, a: T, b: T) -> T {
    if is_min { a.smaller(b) } else { a.larger(b) }
}

pub fn extend<T: Copy>(to: &mut Vec<T>, from: &[T], slots: &[u32]) {
    to.extend(slots.iter().map(|&slot| from[slot as usize]));
}

pub fn taken<T: Copy>(values: &[T], order: &[u32]) -> Vec<T> {
    order.iter().map(|&at| values[at as usize]).collect()
}
