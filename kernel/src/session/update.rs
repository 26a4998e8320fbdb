//! Batches into the table.

use std::ops::Range;

use arrow_array::{Array, Int64Array};

use super::ending::{Found, Results};
use super::places::{LATE, Places};
use super::table::{Open, Table};
use crate::window::input::{Input, Keys, each};

/// A batch on its way into the table.
pub struct Pending {
    ids: Vec<u32>,
    times: Int64Array,
    inputs: Vec<Input>,
}

/// What became of a batch.
pub struct Added {
    /// Indices of the records that are late, in order.
    pub late: Vec<i64>,
    /// The sessions that it changed, if that is to be told, in the order of their keys in the batch.
    pub changed: Option<Results>,
}

impl Table {
    /// Takes a batch, whose columns are all of one length, and returns the state keys of rows to
    /// ask the store for; give those to `take_rows` and then call `apply`.
    pub fn prepare(&mut self, keys: &Keys, times: Int64Array, inputs: Vec<Input>) -> Vec<Vec<u8>> {
        let ids = keys.intern(&mut self.keys, &mut Vec::new());
        let wanted = self.require(ids.iter().copied());
        self.pending = Some(Pending { ids, times, inputs });
        wanted
    }

    /// Adds the prepared batch; None, and nothing is added, if it is not certain that all its times
    /// and sums fit in 64 bits.
    pub fn apply(&mut self, watermark: i64, tells_changed: bool) -> Option<Added> {
        let batch = self.pending.take()?;
        if !self.fits(&batch) {
            return None;
        }
        self.batch += 1;
        let mut late = Vec::new();
        let mut places = vec![LATE; batch.ids.len()];
        let mut folded = 0; // so many records are in the accumulators
        let mut firsts: Vec<(u32, Option<i64>)> = Vec::new(); // first end of each key, before
        for (i, (&id, &time)) in batch.ids.iter().zip(batch.times.values()).enumerate() {
            let number = self.batch;
            let held = self.touch(id);
            if held.seen_in != number {
                held.seen_in = number;
                firsts.push((id, held.sessions.first().map(|session| session.end)));
            }
            let end = time + self.gap;
            let (first, last) = overlapping(&self.held[id as usize].sessions, time, end);
            if first == last {
                if end + self.lateness <= watermark {
                    late.push(i as i64);
                    continue;
                }
                self.open(id, first, time, end);
            } else if last - first > 1 {
                // Each with its own records so far, before they become one.
                fold(&mut self.places, &batch, &places, folded..i);
                folded = i;
                self.join(id, first, last);
            }
            let held = &mut self.held[id as usize];
            held.is_dirty = true;
            let session = &mut held.sessions[first];
            session.start = session.start.min(time);
            session.end = session.end.max(end);
            session.is_changed = tells_changed;
            places[i] = session.place;
        }
        fold(&mut self.places, &batch, &places, folded..batch.ids.len());
        self.note_sums(&places);
        self.set_timers(&firsts);
        let changed = tells_changed.then(|| self.changed(&firsts)).flatten();
        Some(Added { late, changed })
    }

    fn open(&mut self, id: u32, at: usize, start: i64, end: i64) {
        let session = Open {
            start,
            end,
            place: self.places.take(),
            is_changed: false,
        };
        let sessions = &mut self.held[id as usize].sessions;
        sessions.insert(at, session);
        self.sessions_max = self.sessions_max.max(sessions.len());
    }

    /// Makes one of the sessions `first..last` of a key.
    fn join(&mut self, id: u32, first: usize, last: usize) {
        let sessions = &mut self.held[id as usize].sessions;
        let joined: Vec<Open> = sessions.drain(first + 1..last).collect();
        let into = &mut sessions[first];
        for other in joined {
            into.end = into.end.max(other.end);
            self.places.merge(into.place, other.place);
            self.places.release(other.place);
        }
    }

    /// Sets a timer for each key whose first session now ends before any timer that it has.
    fn set_timers(&mut self, firsts: &[(u32, Option<i64>)]) {
        for &(id, before) in firsts {
            let Some(session) = self.held[id as usize].sessions.first() else {
                continue;
            };
            if before.is_none_or(|before| session.end < before) {
                // The end of a session from the store may be any number.
                let time = session.end.saturating_add(self.lateness);
                self.timers.add(&mut self.keys, time, id);
            }
        }
    }

    fn changed(&mut self, firsts: &[(u32, Option<i64>)]) -> Option<Results> {
        let mut found = Vec::new();
        for &(id, _) in firsts {
            for session in &mut self.held[id as usize].sessions {
                if std::mem::take(&mut session.is_changed) {
                    found.push(Found::of(id, session));
                }
            }
        }
        self.results(&found)
    }

    /// Returns whether no time and no sum of the batch can be beyond 64 bits, by rough bounds.
    fn fits(&self, batch: &Pending) -> bool {
        let latest = batch.times.values().iter().copied().max().unwrap_or(0);
        let after = latest.checked_add(self.gap);
        if after
            .and_then(|end| end.checked_add(self.lateness))
            .is_none()
        {
            return false;
        }
        let held = u128::from(self.sum_max) * self.sessions_max as u128;
        batch
            .inputs
            .iter()
            .zip(&self.places.columns)
            .all(|(input, column)| {
                let (true, Input::Integers(values)) = (column.sums_integers(), input) else {
                    return true;
                };
                let absolute = values.iter().flatten().map(i64::unsigned_abs);
                let brought: u128 = absolute.map(u128::from).sum();
                held + brought <= i64::MAX as u128
            })
    }
}

/// Returns which of some sessions a new span joins, as a half-open range.
fn overlapping(sessions: &[Open], start: i64, end: i64) -> (usize, usize) {
    let rest = sessions.iter();
    let first = rest.take_while(|session| session.end <= start).count();
    let rest = sessions[first..].iter();
    (
        first,
        first + rest.take_while(|session| session.start < end).count(),
    )
}

/// Adds some records of a batch to the accumulators in their places.
fn fold(accumulators: &mut Places, batch: &Pending, places: &[u32], records: Range<usize>) {
    if records.is_empty() {
        return;
    }
    let places = &places[records.clone()];
    let times = &batch.times.values()[records.clone()];
    for (column, input) in accumulators.columns.iter_mut().zip(&batch.inputs) {
        let input = input.part(&records);
        match (column.integers(), &input) {
            (Some(sums), Input::Integers(values)) => {
                each(places, values.values(), values.nulls(), |at, value, _| {
                    // What is late may be more than fits, and is looked at by nobody.
                    sums[at] = sums[at].wrapping_add(value);
                });
            }
            _ => column.update(places, &input, times),
        }
    }
}
