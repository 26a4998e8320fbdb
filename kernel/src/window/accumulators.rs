//! What a window table keeps per aggregate: arrays, one place per row.

use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, Int64Array};
use arrow_buffer::NullBuffer;

use super::input::{Input, each, each_float, each_text};
use super::values::{Form, Texts, Values, chosen, comes_before, extend, taken};

/// Kind of an aggregate, as `AggregateKind` in `engine/plane.py` has them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Counts records, or those with a value.
    Count,
    /// Adds up.
    Sum,
    /// Sum by count.
    Mean,
    /// Smallest or largest.
    Min,
    /// Largest.
    Max,
    /// Value of the earliest record.
    First,
    /// Value of the latest record.
    Last,
}

/// The rows of one aggregate.
pub enum Accumulator {
    /// Number of records.
    Count(Vec<i64>),
    /// Sums.
    Sum(Values),
    /// Sums, and numbers of values.
    Mean(Vec<f64>, Vec<i64>),
    /// Smallest or largest values.
    Extreme {
        /// Which of the two.
        is_min: bool,
        /// Whether there is a value.
        has: Vec<bool>,
        /// The value.
        values: Values,
    },
    /// Values by event time.
    ByTime {
        /// Whether the earliest counts, or the latest.
        is_first: bool,
        /// Whether there is a value.
        has: Vec<bool>,
        /// Its event time.
        times: Vec<i64>,
        /// The value.
        values: Values,
    },
}

impl Accumulator {
    /// Returns no rows.
    pub fn new(kind: Kind) -> Self {
        let (has, values) = (Vec::new(), Values::Int(Vec::new()));
        match kind {
            Kind::Count => Self::Count(Vec::new()),
            Kind::Sum => Self::Sum(values),
            Kind::Mean => Self::Mean(Vec::new(), Vec::new()),
            Kind::Min | Kind::Max => Self::Extreme {
                is_min: kind == Kind::Min,
                has,
                values,
            },
            Kind::First | Kind::Last => Self::ByTime {
                is_first: kind == Kind::First,
                has,
                times: Vec::new(),
                values,
            },
        }
    }

    /// Returns no rows, of the same kind and type.
    pub fn like(&self) -> Self {
        match self {
            Self::Count(_) => Self::Count(Vec::new()),
            Self::Sum(values) => Self::Sum(values.like()),
            Self::Mean(..) => Self::Mean(Vec::new(), Vec::new()),
            Self::Extreme { is_min, values, .. } => Self::Extreme {
                is_min: *is_min,
                has: Vec::new(),
                values: values.like(),
            },
            Self::ByTime {
                is_first, values, ..
            } => Self::ByTime {
                is_first: *is_first,
                has: Vec::new(),
                times: Vec::new(),
                values: values.like(),
            },
        }
    }

    /// Returns the bytes of a row, here and stored, without those of text.
    pub fn width(&self) -> usize {
        self.stored_width(if self.texts().is_some() {
            Form::Text
        } else {
            Form::Int
        })
    }

    /// Returns the bytes of a stored row whose values are in a form, without those of text.
    pub fn stored_width(&self, form: Form) -> usize {
        let value = if form == Form::Text { 0 } else { 8 };
        match self {
            Self::Count(_) | Self::Sum(_) => 8,
            Self::Mean(..) => 16,
            Self::Extreme { .. } => 1 + value,
            Self::ByTime { .. } => 9 + value,
        }
    }

    /// Returns the texts, if it keeps any.
    pub fn texts(&self) -> Option<(&[bool], &Texts)> {
        match self {
            Self::Extreme { has, values, .. } | Self::ByTime { has, values, .. } => match values {
                Values::Text(texts) => Some((has, texts)),
                Values::Int(_) | Values::Float(_) => None,
            },
            Self::Count(_) | Self::Sum(_) | Self::Mean(..) => None,
        }
    }

    /// Returns whether each place has a value, and the texts, if it keeps any.
    pub fn texts_mut(&mut self) -> Option<(&[bool], &mut Texts)> {
        match self {
            Self::Extreme { has, values, .. } | Self::ByTime { has, values, .. } => match values {
                Values::Text(texts) => Some((has, texts)),
                Values::Int(_) | Values::Float(_) => None,
            },
            Self::Count(_) | Self::Sum(_) | Self::Mean(..) => None,
        }
    }

    /// Adds a row of no records.
    pub fn push(&mut self) {
        match self {
            Self::Count(counts) => counts.push(0),
            Self::Sum(values) => values.push(),
            Self::Mean(sums, counts) => {
                sums.push(0.0);
                counts.push(0);
            }
            Self::Extreme { has, values, .. } => {
                has.push(false);
                values.push();
            }
            Self::ByTime {
                has, times, values, ..
            } => {
                has.push(false);
                times.push(0);
                values.push();
            }
        }
    }

    /// Makes a row one of no records.
    pub fn clear(&mut self, at: usize) {
        match self {
            Self::Count(counts) => counts[at] = 0,
            Self::Sum(values) => values.clear(at),
            Self::Mean(sums, counts) => {
                sums[at] = 0.0;
                counts[at] = 0;
            }
            Self::Extreme { has, values, .. } => {
                has[at] = false;
                values.clear(at);
            }
            Self::ByTime {
                has, times, values, ..
            } => {
                has[at] = false;
                times[at] = 0;
                values.clear(at);
            }
        }
    }

    /// Forgets all rows and gives their memory back.
    pub fn reset(&mut self) {
        *self = self.like();
    }

    /// Makes room for values of another form.
    pub fn widen(&mut self, form: Form) {
        match self {
            Self::Count(_) | Self::Mean(..) => {}
            Self::Sum(values) | Self::Extreme { values, .. } | Self::ByTime { values, .. } => {
                values.widen(form);
            }
        }
    }

    /// Adds records, all but sums of integers.
    pub fn update(&mut self, slots: &[u32], input: &Input, record_times: &[i64]) {
        match (self, input) {
            (Self::Count(counts), Input::Present(present)) => {
                let present = NullBuffer::new(present.values().clone());
                each(slots, slots, Some(&present), |at, _, _| add_one(counts, at));
            }
            (Self::Count(counts), _) => each(slots, slots, None, |at, _, _| add_one(counts, at)),
            (Self::Sum(Values::Float(sums)), input) => {
                each_float(slots, input, |at, value, _| sums[at] += value);
            }
            // Sums of integers may fail, and have been added before; see `integers`.
            (Self::Sum(Values::Int(_)), _) => {}
            (Self::Mean(sums, counts), input) => each_float(slots, input, |at, value, _| {
                sums[at] += value;
                add_one(counts, at);
            }),
            (
                Self::Extreme {
                    is_min,
                    has,
                    values: Values::Float(values),
                },
                input,
            ) => {
                each_float(slots, input, |at, value, _| {
                    values[at] = if has[at] {
                        chosen(*is_min, values[at], value)
                    } else {
                        value
                    };
                    has[at] = true;
                });
            }
            (
                Self::Extreme {
                    is_min,
                    has,
                    values: Values::Int(values),
                },
                Input::Integers(column),
            ) => each(
                slots,
                column.values(),
                column_nulls(column),
                |at, value, _| {
                    values[at] = if has[at] {
                        chosen(*is_min, values[at], value)
                    } else {
                        value
                    };
                    has[at] = true;
                },
            ),
            (
                Self::ByTime {
                    is_first,
                    has,
                    times,
                    values: Values::Float(values),
                },
                input,
            ) => {
                each_float(slots, input, |at, value, i| {
                    if !has[at] || comes_in(*is_first, record_times[i], times[at]) {
                        (has[at], times[at], values[at]) = (true, record_times[i], value);
                    }
                });
            }
            (
                Self::ByTime {
                    is_first,
                    has,
                    times,
                    values: Values::Int(values),
                },
                Input::Integers(column),
            ) => each(
                slots,
                column.values(),
                column_nulls(column),
                |at, value, i| {
                    if !has[at] || comes_in(*is_first, record_times[i], times[at]) {
                        (has[at], times[at], values[at]) = (true, record_times[i], value);
                    }
                },
            ),
            (
                Self::Extreme {
                    is_min,
                    has,
                    values: Values::Text(texts),
                },
                Input::Text(column),
            ) => each_text(slots, column, |at, text, _| {
                if !has[at] || comes_before(*is_min, text, texts.get(at)) {
                    texts.set(at, text);
                    has[at] = true;
                }
            }),
            (
                Self::ByTime {
                    is_first,
                    has,
                    times,
                    values: Values::Text(texts),
                },
                Input::Text(column),
            ) => each_text(slots, column, |at, text, i| {
                if !has[at] || comes_in(*is_first, record_times[i], times[at]) {
                    (has[at], times[at]) = (true, record_times[i]);
                    texts.set(at, text);
                }
            }),
            // Sums are of numbers, and inputs of the type of the values.
            (Self::Sum(_) | Self::Extreme { .. } | Self::ByTime { .. }, _) => {}
        }
    }

    /// Returns the sums, if they are of integers.
    pub fn integers(&mut self) -> Option<&mut Vec<i64>> {
        match self {
            Self::Sum(Values::Int(sums)) => Some(sums),
            _ => None,
        }
    }

    /// Returns whether these are sums of integers.
    pub fn sums_integers(&self) -> bool {
        matches!(self, Self::Sum(Values::Int(_)))
    }

    /// Adds copies of rows of another.
    pub fn extend_from(&mut self, other: &Self, slots: &[u32]) {
        match (self, other) {
            (Self::Count(to), Self::Count(from)) => extend(to, from, slots),
            (Self::Sum(to), Self::Sum(from)) => to.extend_from(from, slots),
            (Self::Mean(sums, counts), Self::Mean(other_sums, other_counts)) => {
                extend(sums, other_sums, slots);
                extend(counts, other_counts, slots);
            }
            (
                Self::Extreme { has, values, .. },
                Self::Extreme {
                    has: other_has,
                    values: other_values,
                    ..
                },
            ) => {
                extend(has, other_has, slots);
                values.extend_from(other_values, slots);
            }
            (
                Self::ByTime {
                    has, times, values, ..
                },
                Self::ByTime {
                    has: other_has,
                    times: other_times,
                    values: other_values,
                    ..
                },
            ) => {
                extend(has, other_has, slots);
                extend(times, other_times, slots);
                values.extend_from(other_values, slots);
            }
            _ => unreachable!("aggregates of one table are in one order"),
        }
    }

    /// Merges rows of another, of later records, into rows here: pairs of here and there.
    ///
    /// Sums of integers wrap around; `carried` is told the row and by how much, 1 or -1.
    pub fn merge(&mut self, other: &Self, pairs: &[(u32, u32)], mut carried: impl FnMut(u32, i64)) {
        let pairs = pairs.iter().map(|&(to, from)| (to as usize, from as usize));
        match (self, other) {
            (Self::Count(to), Self::Count(from)) => {
                pairs.for_each(|(a, b)| to[a] = to[a].wrapping_add(from[b]));
            }
            (Self::Sum(Values::Int(to)), Self::Sum(Values::Int(from))) => {
                pairs.for_each(|(a, b)| {
                    let (sum, has_carry) = to[a].overflowing_add(from[b]);
                    if has_carry {
                        carried(a as u32, from[b].signum());
                    }
                    to[a] = sum;
                })
            }
            (Self::Sum(Values::Float(to)), Self::Sum(Values::Float(from))) => {
                pairs.for_each(|(a, b)| to[a] += from[b]);
            }
            (Self::Mean(sums, counts), Self::Mean(other_sums, other_counts)) => {
                pairs.for_each(|(a, b)| {
                    sums[a] += other_sums[b];
                    counts[a] = counts[a].wrapping_add(other_counts[b]);
                });
            }
            (
                Self::Extreme {
                    is_min,
                    has,
                    values,
                },
                Self::Extreme {
                    has: other_has,
                    values: other_values,
                    ..
                },
            ) => pairs.filter(|&(_, b)| other_has[b]).for_each(|(a, b)| {
                if has[a] {
                    values.choose(*is_min, a, other_values, b);
                } else {
                    values.copy(a, other_values, b);
                    has[a] = true;
                }
            }),
            (
                Self::ByTime {
                    is_first,
                    has,
                    times,
                    values,
                },
                Self::ByTime {
                    has: other_has,
                    times: other_times,
                    values: other_values,
                    ..
                },
            ) => pairs.filter(|&(_, b)| other_has[b]).for_each(|(a, b)| {
                if !has[a] || comes_in(*is_first, other_times[b], times[a]) {
                    (has[a], times[a]) = (true, other_times[b]);
                    values.copy(a, other_values, b);
                }
            }),
            _ => unreachable!("aggregates of one table have values of one type"),
        }
    }

    /// Returns what the rows come to, in some order.
    pub fn result(&self, order: &[u32]) -> ArrayRef {
        match self {
            Self::Count(counts) => Arc::new(Int64Array::from(taken(counts, order))),
            Self::Sum(values) => values.result(order, None),
            Self::Mean(sums, counts) => {
                Arc::new(Float64Array::from_iter(order.iter().map(|&at| {
                    let (sum, count) = (sums[at as usize], counts[at as usize]);
                    (count > 0).then(|| sum / count as f64)
                })))
            }
            Self::Extreme { has, values, .. } | Self::ByTime { has, values, .. } => {
                let nulls = NullBuffer::from(taken(has, order));
                values.result(order, Some(nulls).filter(|nulls| nulls.null_count() > 0))
            }
        }
    }
}

#[inline]
fn add_one(counts: &mut [i64], at: usize) {
    counts[at] = counts[at].wrapping_add(1);
}

/// Whether a value of a later record takes the place of one that is there.
#[inline]
fn comes_in(is_first: bool, time: i64, held: i64) -> bool {
    // Of equal times the one that came first is first, and the one that came last is last.
    if is_first { time < held } else { time >= held }
}

fn column_nulls(column: &Int64Array) -> Option<&NullBuffer> {
    arrow_array::Array::nulls(column)
}
