//! Batches into the table.

use std::collections::HashMap;
use std::hash::Hash;

use arrow_array::{Array, Int64Array};

use super::NONE;
use super::accumulators::Kind;
use super::input::{Input, Keys, each};
use super::slices::Slice;
use super::table::Table;

/// A batch on its way into the table.
pub struct Pending {
    ids: Vec<u32>,
    starts: Vec<i64>,
    ordinals: Vec<u32>, // place in `starts` of each record; empty if there is one slice
    times: Option<Int64Array>,
    inputs: Vec<Input>,
}

impl Table {
    /// Takes a batch, whose columns are all of one length, and returns the rows, by slice and id,
    /// that the store may have; give those to `take_stored` and then call `apply`.
    ///
    /// # Errors
    /// The number of an aggregate that what the batch brings to a row overflows by itself: like the
    /// reference, that is told before anything is learned from the store.
    pub fn prepare(
        &mut self,
        keys: &Keys,
        slice_starts: &Int64Array,
        times: Option<Int64Array>,
        inputs: Vec<Input>,
    ) -> Result<Vec<(i64, u32)>, usize> {
        self.settle();
        let ids = self.intern_keys(keys);
        let (starts, ordinals) = distinct(slice_starts.values());
        if let Some(failed) = self.overflowing(&ids, &ordinals, &inputs) {
            self.settle();
            return Err(failed);
        }
        let mut wanted = Vec::new();
        for (ordinal, &start) in starts.iter().enumerate() {
            let Some(number) = self.slices.find(start) else {
                continue;
            };
            let slice = self.slices.get(number);
            if slice.is_complete {
                continue;
            }
            for (i, &id) in ids.iter().enumerate() {
                let is_here = ordinals.is_empty() || ordinals[i] as usize == ordinal;
                if is_here && slice.index.get(id) == NONE {
                    wanted.push((start, id));
                }
            }
        }
        wanted.sort_unstable();
        wanted.dedup();
        self.pending = Some(Pending {
            ids,
            starts,
            ordinals,
            times,
            inputs,
        });
        Ok(wanted)
    }

    /// Returns the first aggregate whose sum over the records of one row alone does not fit.
    fn overflowing(&self, ids: &[u32], ordinals: &[u32], inputs: &[Input]) -> Option<usize> {
        let row_of = |i: usize| (ordinals.get(i).copied().unwrap_or(0), ids[i]);
        inputs.iter().enumerate().position(|(i, input)| {
            let (Kind::Sum, Input::Integers(column)) = (self.kinds[i], input) else {
                return false;
            };
            may_overflow(column)
                && partials(column, row_of)
                    .values()
                    .any(|&sum| i64::try_from(sum).is_err())
        })
    }

    /// Returns the id of each key; those that no row comes to refer to are forgotten later.
    pub(super) fn intern_keys(&mut self, keys: &Keys) -> Vec<u32> {
        keys.intern(&mut self.keys, &mut self.fresh)
    }

    /// Adds the prepared batch: all of it or, if the sum of an aggregate overflows, nothing.
    ///
    /// Then values are of the types `tags`, which are known and as wide as those before.
    ///
    /// # Errors
    /// The number of the aggregate.
    pub fn apply(&mut self, tags: Vec<String>) -> Result<(), usize> {
        let Some(batch) = self.pending.take() else {
            return Ok(());
        };
        let mut added = Vec::new(); // slices
        let mut made = Vec::new(); // slots
        let numbers: Vec<u32> = batch
            .starts
            .iter()
            .map(|&start| {
                self.slices.find(start).unwrap_or_else(|| {
                    added.push(start);
                    self.slices.add(start, true, 0)
                })
            })
            .collect();
        let slots = self.slots_of(&batch, &numbers, &mut made);
        if let Err(failed) = self.add_integers(&slots, &batch.inputs) {
            for slot in made {
                let (slice, id) = (
                    self.slots.slices[slot as usize],
                    self.slots.ids[slot as usize],
                );
                let slice = self.slices.get_mut(slice);
                slice.index.remove(id);
                slice.rows = slice.rows.saturating_sub(1);
                self.slots.release(&mut self.keys, slot);
            }
            added
                .into_iter()
                .for_each(|start| drop(self.slices.remove(start)));
            self.settle();
            return Err(failed);
        }
        // Not before: a batch that overflows widens nothing. Sums of integers stay what they are.
        if tags != self.tags {
            self.widen(tags);
        }
        let times: &[i64] = batch.times.as_ref().map_or(&[], |times| times.values());
        for (column, input) in self.slots.columns.iter_mut().zip(&batch.inputs) {
            column.update(&slots, input, times);
        }
        let dirty = &mut self.slots.dirty;
        slots.iter().for_each(|&slot| dirty[slot as usize] = true);
        self.fresh.clear();
        Ok(())
    }

    fn slots_of(&mut self, batch: &Pending, numbers: &[u32], made: &mut Vec<u32>) -> Vec<u32> {
        let mut found = Vec::with_capacity(batch.ids.len());
        let (slots, keys) = (&mut self.slots, &mut self.keys);
        let mut slot_of = |slice: &mut Slice, number: u32, id: u32| {
            let slot = slice.index.get(id);
            if slot != NONE {
                return slot;
            }
            let slot = slots.take(keys, number, id);
            slice.index.insert(id, slot);
            // Many stands for rows that were not counted.
            slice.rows = slice.rows.saturating_add(1);
            made.push(slot);
            slot
        };
        if batch.ordinals.is_empty() {
            if let Some(&number) = numbers.first() {
                let slice = self.slices.get_mut(number);
                found.extend(batch.ids.iter().map(|&id| slot_of(slice, number, id)));
            }
        } else {
            for (&id, &ordinal) in batch.ids.iter().zip(&batch.ordinals) {
                let number = numbers[ordinal as usize];
                found.push(slot_of(self.slices.get_mut(number), number, id));
            }
        }
        found
    }

    /// Adds up integers: of all aggregates, or of none.
    fn add_integers(&mut self, slots: &[u32], inputs: &[Input]) -> Result<(), usize> {
        for (i, input) in inputs.iter().enumerate() {
            let Input::Integers(column) = input else {
                continue;
            };
            let Some(sums) = self.slots.columns[i].integers() else {
                continue;
            };
            let mut has_wrapped = false;
            each(slots, column.values(), column.nulls(), |at, value, _| {
                let (sum, wraps) = sums[at].overflowing_add(value);
                has_wrapped |= wraps;
                sums[at] = sum;
            });
            // It may have wrapped forth and back.
            if has_wrapped
                && partials(column, |record| slots[record])
                    .iter()
                    .any(|(&slot, &partial)| {
                        let before = sums[slot as usize].wrapping_sub(partial as i64);
                        i64::try_from(i128::from(before) + partial).is_err()
                    })
            {
                self.subtract_integers(slots, &inputs[..=i]);
                return Err(i);
            }
        }
        Ok(())
    }

    fn subtract_integers(&mut self, slots: &[u32], inputs: &[Input]) {
        for (column, input) in self.slots.columns.iter_mut().zip(inputs) {
            let Input::Integers(values) = input else {
                continue;
            };
            let Some(sums) = column.integers() else {
                continue;
            };
            each(slots, values.values(), values.nulls(), |at, value, _| {
                sums[at] = sums[at].wrapping_sub(value);
            });
        }
    }
}

/// Returns the distinct starts, and which of them each record has; nothing of that if it is one.
fn distinct(slice_starts: &[i64]) -> (Vec<i64>, Vec<u32>) {
    let Some(&first) = slice_starts.first() else {
        return (Vec::new(), Vec::new());
    };
    if slice_starts.iter().all(|&start| start == first) {
        return (vec![first], Vec::new());
    }
    let mut starts = Vec::new();
    let mut numbers: HashMap<i64, u32> = HashMap::new();
    let (mut last, mut number) = (first, NONE);
    let ordinals = slice_starts
        .iter()
        .map(|&start| {
            if start != last || number == NONE {
                last = start;
                number = *numbers.entry(start).or_insert_with(|| {
                    starts.push(start);
                    (starts.len() - 1) as u32
                });
            }
            number
        })
        .collect();
    (starts, ordinals)
}

fn may_overflow(column: &Int64Array) -> bool {
    let largest = column
        .values()
        .iter()
        .map(|value| value.unsigned_abs())
        .max()
        .unwrap_or(0);
    u128::from(largest) * column.len() as u128 > i64::MAX as u128
}

/// Returns what a batch adds to each row; `row_of` tells that of a record.
fn partials<R: Eq + Hash>(column: &Int64Array, row_of: impl Fn(usize) -> R) -> HashMap<R, i128> {
    let mut sums = HashMap::new();
    for (record, value) in column.iter().enumerate() {
        if let Some(value) = value {
            *sums.entry(row_of(record)).or_insert(0) += i128::from(value);
        }
    }
    sums
}
