//! Sessions that have ended, and what sessions come to.

use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array};

use super::table::{Open, Table};
use crate::window::key_column::key_column;

/// Sessions as columns.
pub struct Results {
    /// Keys, in the form they were given; state keys if they are of several types, or composite.
    pub keys: ArrayRef,
    /// Whether `keys` are state keys.
    pub are_state_keys: bool,
    /// Their starts.
    pub starts: ArrayRef,
    /// Their ends.
    pub ends: ArrayRef,
    /// What the aggregates come to.
    pub columns: Vec<ArrayRef>,
}

/// A session that is to be told.
pub(super) struct Found {
    id: u32,
    start: i64,
    end: i64,
    place: u32,
}

impl Found {
    pub fn of(id: u32, session: &Open) -> Self {
        Self {
            id,
            start: session.start,
            end: session.end,
            place: session.place,
        }
    }
}

impl Table {
    /// Takes out the timers that are due, and returns the state keys of rows to ask the store for;
    /// give those to `take_rows` and then call `end`.
    pub fn prepare_end(&mut self, watermark: i64) -> Vec<Vec<u8>> {
        self.due = self.timers.take_due(&mut self.keys, watermark);
        let ids: Vec<u32> = self.due.iter().map(|&(_, id)| id).collect();
        self.require(ids.into_iter())
    }

    /// Removes the sessions that have ended of the keys that are due; in order of ends and keys.
    pub fn end(&mut self, watermark: i64) -> Option<Results> {
        let mut ended = Vec::new();
        for (_, id) in std::mem::take(&mut self.due) {
            let lateness = self.lateness;
            let has_ended = |session: &&Open| session.end.saturating_add(lateness) <= watermark;
            let held = self.touch(id);
            let count = held.sessions.iter().take_while(has_ended).count();
            if count > 0 {
                held.is_dirty = true;
                ended.extend(
                    held.sessions
                        .drain(..count)
                        .map(|each| Found::of(id, &each)),
                );
            }
            if let Some(first) = held.sessions.first() {
                let time = first.end.saturating_add(lateness);
                self.timers.add(&mut self.keys, time, id);
            }
            self.keys.release(id);
        }
        // By time, so that results do not depend on how far the watermark came at once.
        let keys = &self.keys;
        ended.sort_by(|a, b| {
            let by_key = || keys.key(a.id).cmp(keys.key(b.id));
            a.end.cmp(&b.end).then_with(by_key)
        });
        let results = self.results(&ended);
        ended
            .iter()
            .for_each(|found| self.places.release(found.place));
        results
    }

    /// Returns sessions as columns, None for none.
    pub(super) fn results(&self, found: &[Found]) -> Option<Results> {
        if found.is_empty() {
            return None;
        }
        let ids: Vec<u32> = found.iter().map(|found| found.id).collect();
        let places: Vec<u32> = found.iter().map(|found| found.place).collect();
        let times = |time: fn(&Found) -> i64| -> ArrayRef {
            Arc::new(Int64Array::from_iter_values(found.iter().map(time)))
        };
        let (keys, are_state_keys) = key_column(&self.keys, &ids);
        Some(Results {
            keys,
            are_state_keys,
            starts: times(|found| found.start),
            ends: times(|found| found.end),
            columns: self
                .places
                .columns
                .iter()
                .map(|column| column.result(&places))
                .collect(),
        })
    }
}
