//! Reading windows: their slices merged by key.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array};

use super::NONE;
use super::accumulators::Accumulator;
use super::input::Keys;
use super::key_column::key_column;
use super::keys::Interner;
use super::slices::Index;
use super::table::Table;

/// Results of windows, in order of windows and keys.
pub struct Results {
    /// Start of the window of each.
    pub windows: ArrayRef,
    /// Keys, in the form they were given; state keys if they are of several types, or composite.
    pub keys: ArrayRef,
    /// Whether `keys` are state keys.
    pub are_state_keys: bool,
    /// What the aggregates come to.
    pub columns: Vec<ArrayRef>,
}

impl Table {
    /// Returns the next windows that have rows, together as long as those are few, and where in
    /// `windows` to go on.
    pub fn group(&self, windows: &[i64], size: i64, rows_max: u64) -> (Vec<i64>, usize) {
        let (mut group, mut rows) = (Vec::new(), 0u64);
        for (i, &window) in windows.iter().enumerate() {
            let more: u64 = self
                .slices
                .between(window, window.saturating_add(size))
                .map(|number| self.slices.get(number).rows)
                .fold(0, u64::saturating_add);
            if more == 0 {
                continue;
            }
            if !group.is_empty() && rows.saturating_add(more) > rows_max {
                return (group, i);
            }
            group.push(window);
            rows = rows.saturating_add(more);
        }
        (group, windows.len())
    }

    /// Returns first and last of runs of neighbouring slices `start <= slice start < end` that
    /// have rows in the store alone.
    pub fn incomplete_runs(&self, start: i64, end: i64) -> Vec<(i64, i64)> {
        let mut runs: Vec<(i64, i64)> = Vec::new();
        let mut goes_on = false;
        for number in self.slices.between(start, end) {
            let slice = self.slices.get(number);
            if !slice.is_complete {
                match runs.last_mut() {
                    Some(run) if goes_on => run.1 = slice.start,
                    _ => runs.push((slice.start, slice.start)),
                }
            }
            goes_on = !slice.is_complete;
        }
        runs
    }

    /// Begins to read one key of each window, and returns the rows, by slice and id, that the
    /// store may have; give those to `take_stored` and then call `collect_pairs`.
    pub fn prepare_pairs(&mut self, windows: &[i64], size: i64, keys: &Keys) -> Vec<(i64, u32)> {
        self.settle();
        let ids = self.intern_keys(keys);
        let mut wanted = Vec::new();
        for (window, begin, end) in runs(windows) {
            for number in self.slices.between(window, window.saturating_add(size)) {
                let slice = self.slices.get(number);
                if !slice.is_complete {
                    let missing = ids[begin..end]
                        .iter()
                        .filter(|&&id| slice.index.get(id) == NONE);
                    wanted.extend(missing.map(|&id| (slice.start, id)));
                }
            }
        }
        wanted.sort_unstable();
        wanted.dedup();
        self.stored.pairs = ids;
        wanted
    }

    /// Returns results of all keys of windows, whose starts are in order.
    ///
    /// # Errors
    /// The number of an aggregate whose sum does not fit.
    pub fn collect(&mut self, windows: &[i64], size: i64) -> Result<Option<Results>, usize> {
        let mut merger = Merger::new(self);
        let mut merged_at: Vec<u32> = Vec::new(); // row + 1 by id, of the window at hand
        for &window in windows {
            let begin = merger.ids.len();
            let numbers: Vec<u32> = self
                .slices
                .between(window, window.saturating_add(size))
                .collect();
            if numbers.len() > 1 && merged_at.is_empty() {
                merged_at = vec![0; self.keys.end()];
            }
            for &number in &numbers {
                let slice = self.slices.get(number);
                let seen = (numbers.len() > 1).then_some(&mut merged_at);
                merger.add(&slice.index, &self.slots.columns, seen);
                if let Some(index) = self.stored.by_slice.get(&slice.start) {
                    let seen = (numbers.len() > 1).then_some(&mut merged_at);
                    merger.add(index, &self.stored.columns, seen);
                }
            }
            if numbers.len() > 1 {
                merger.ids[begin..]
                    .iter()
                    .for_each(|&id| merged_at[id as usize] = 0);
            }
            merger.end_window(window, begin, &self.keys);
        }
        let results = merger.finish(&self.keys);
        self.settle();
        results
    }

    /// Returns results of one key of each window, as prepared; starts and size as there.
    ///
    /// # Errors
    /// The number of an aggregate whose sum does not fit.
    pub fn collect_pairs(&mut self, windows: &[i64], size: i64) -> Result<Option<Results>, usize> {
        let mut merger = Merger::new(self);
        for (window, begin, end) in runs(windows) {
            let first = merger.ids.len();
            let ids = self.stored.pairs.get(begin..end).unwrap_or_default();
            let mut row_of = vec![NONE; ids.len()];
            for number in self.slices.between(window, window.saturating_add(size)) {
                let slice = self.slices.get(number);
                merger.add_some(ids, &mut row_of, &slice.index, &self.slots.columns);
                if let Some(index) = self.stored.by_slice.get(&slice.start) {
                    merger.add_some(ids, &mut row_of, index, &self.stored.columns);
                }
            }
            merger.end_window(window, first, &self.keys);
        }
        let results = merger.finish(&self.keys);
        self.settle();
        results
    }
}

/// Returns each window with begin and end of where it stands.
fn runs(windows: &[i64]) -> Vec<(i64, usize, usize)> {
    let mut runs = Vec::new();
    let mut begin = 0;
    for run in windows.chunk_by(|a, b| a == b) {
        runs.push((run[0], begin, begin + run.len()));
        begin += run.len();
    }
    runs
}

/// Rows on their way to results: those of one window and key become one.
struct Merger {
    columns: Vec<Accumulator>,
    ids: Vec<u32>,
    windows: Vec<i64>,
    order: Vec<u32>,
    // Sums of integers wrap around as they are merged: how often, by aggregate and row. What
    // wraps forth and back fits.
    carries: HashMap<(usize, u32), i64>,
    fresh: Vec<u32>,
    pairs: Vec<(u32, u32)>,
}

impl Merger {
    fn new(table: &Table) -> Self {
        Self {
            columns: table.slots.columns.iter().map(Accumulator::like).collect(),
            ids: Vec::new(),
            windows: Vec::new(),
            order: Vec::new(),
            carries: HashMap::new(),
            fresh: Vec::new(),
            pairs: Vec::new(),
        }
    }

    /// Adds the rows of an index; `seen` tells the rows of a window that other slices gave it.
    fn add(&mut self, index: &Index, columns: &[Accumulator], seen: Option<&mut Vec<u32>>) {
        let (ids, fresh, pairs) = (&mut self.ids, &mut self.fresh, &mut self.pairs);
        match seen {
            None => index.for_each(|id, slot| {
                ids.push(id);
                fresh.push(slot);
            }),
            Some(seen) => index.for_each(|id, slot| {
                let place = &mut seen[id as usize];
                if *place == 0 {
                    ids.push(id);
                    fresh.push(slot);
                    *place = ids.len() as u32;
                } else {
                    pairs.push((*place - 1, slot));
                }
            }),
        }
        self.take(columns);
    }

    /// Adds the rows of some ids of an index; `row_of` tells what other slices gave them.
    fn add_some(
        &mut self,
        ids: &[u32],
        row_of: &mut [u32],
        index: &Index,
        columns: &[Accumulator],
    ) {
        for (&id, row) in ids.iter().zip(row_of) {
            let slot = index.get(id);
            if slot == NONE {
                continue;
            }
            if *row == NONE {
                *row = self.ids.len() as u32;
                self.ids.push(id);
                self.fresh.push(slot);
            } else {
                self.pairs.push((*row, slot));
            }
        }
        self.take(columns);
    }

    fn take(&mut self, columns: &[Accumulator]) {
        for (i, (to, from)) in self.columns.iter_mut().zip(columns).enumerate() {
            to.extend_from(from, &self.fresh);
            let carries = &mut self.carries;
            to.merge(from, &self.pairs, |row, by| {
                *carries.entry((i, row)).or_insert(0) += by;
            });
        }
        self.fresh.clear();
        self.pairs.clear();
    }

    /// Puts the rows from `begin` on in order of their keys: they are one window.
    fn end_window(&mut self, window: i64, begin: usize, keys: &Interner) {
        let ids = &self.ids;
        let Some(&first) = ids.get(begin) else { return };
        // As a rule keys begin alike: what follows decides by a comparison of two numbers.
        let first = keys.key(first);
        let alike = ids[begin..]
            .iter()
            .map(|&id| {
                keys.key(id)
                    .iter()
                    .zip(first)
                    .take_while(|(a, b)| a == b)
                    .count()
            })
            .min()
            .unwrap_or(0);
        let mut rows: Vec<(u64, u32)> = (begin..ids.len())
            .map(|row| (eight_bytes(&keys.key(ids[row])[alike..]), row as u32))
            .collect();
        rows.sort_unstable_by(|a, b| {
            let key = |row: u32| keys.key(ids[row as usize]);
            a.0.cmp(&b.0).then_with(|| key(a.1).cmp(key(b.1)))
        });
        self.order.extend(rows.iter().map(|&(_, row)| row));
        self.windows.resize(self.order.len(), window);
    }

    fn finish(self, keys: &Interner) -> Result<Option<Results>, usize> {
        let failed = self
            .carries
            .iter()
            .filter(|(_, by)| **by != 0)
            .map(|((i, _), _)| *i)
            .min();
        if let Some(failed) = failed {
            return Err(failed);
        }
        if self.order.is_empty() {
            return Ok(None);
        }
        let ids: Vec<u32> = self
            .order
            .iter()
            .map(|&row| self.ids[row as usize])
            .collect();
        let (keys, are_state_keys) = key_column(keys, &ids);
        Ok(Some(Results {
            windows: Arc::new(Int64Array::from(self.windows)),
            keys,
            are_state_keys,
            columns: self
                .columns
                .iter()
                .map(|column| column.result(&self.order))
                .collect(),
        }))
    }
}

/// Returns the first bytes of a key as a number that compares like them.
fn eight_bytes(key: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let len = key.len().min(8);
    bytes[..len].copy_from_slice(&key[..len]);
    u64::from_be_bytes(bytes)
}
