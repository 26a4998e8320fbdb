//! The values that aggregates keep: arrays of numbers.

use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, Int64Array};
use arrow_buffer::NullBuffer;

/// Values of one type: integers (dates and times among them) until a float comes.
pub enum Values {
    /// Integers.
    Int(Vec<i64>),
    /// Floats.
    Float(Vec<f64>),
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
        }
    }

    pub fn clear(&mut self, at: usize) {
        match self {
            Self::Int(values) => values[at] = 0,
            Self::Float(values) => values[at] = 0.0,
        }
    }

    pub fn widen(&mut self) {
        if let Self::Int(values) = self {
            *self = Self::Float(values.iter().map(|&value| value as f64).collect());
        }
    }

    pub fn like(&self) -> Self {
        match self {
            Self::Int(_) => Self::Int(Vec::new()),
            Self::Float(_) => Self::Float(Vec::new()),
        }
    }

    pub fn extend_from(&mut self, other: &Self, slots: &[u32]) {
        match (self, other) {
            (Self::Int(to), Self::Int(from)) => extend(to, from, slots),
            (Self::Float(to), Self::Float(from)) => extend(to, from, slots),
            _ => unreachable!("rows of one table have values of one type"),
        }
    }

    pub fn copy(&mut self, to: usize, other: &Self, from: usize) {
        match (self, other) {
            (Self::Int(values), Self::Int(others)) => values[to] = others[from],
            (Self::Float(values), Self::Float(others)) => values[to] = others[from],
            _ => unreachable!("rows of one table have values of one type"),
        }
    }

    pub fn choose(&mut self, is_min: bool, to: usize, other: &Self, from: usize) {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => a[to] = chosen(is_min, a[to], b[from]),
            (Self::Float(a), Self::Float(b)) => a[to] = chosen(is_min, a[to], b[from]),
            _ => unreachable!("rows of one table have values of one type"),
        }
    }

    /// Returns the 8 bytes that a value is stored as.
    pub fn to_bytes(&self, at: usize) -> [u8; 8] {
        match self {
            Self::Int(values) => values[at].to_le_bytes(),
            Self::Float(values) => values[at].to_le_bytes(),
        }
    }

    /// Sets a value from its 8 bytes, which may be an integer's where floats are held by now.
    pub fn set_bytes(&mut self, at: usize, bytes: [u8; 8], is_float: bool) {
        match self {
            Self::Int(values) => values[at] = i64::from_le_bytes(bytes),
            Self::Float(values) if is_float => values[at] = f64::from_le_bytes(bytes),
            Self::Float(values) => values[at] = i64::from_le_bytes(bytes) as f64,
        }
    }

    pub fn result(&self, order: &[u32], nulls: Option<NullBuffer>) -> ArrayRef {
        match self {
            Self::Int(values) => Arc::new(Int64Array::new(taken(values, order).into(), nulls)),
            Self::Float(values) => Arc::new(Float64Array::new(taken(values, order).into(), nulls)),
        }
    }
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
