//! The table: what is known of each key, rows from the store, and barriers.

use std::collections::BTreeSet;

use super::places::{Aggregate, LATE, Places};
use super::rows;
use super::timers::{Timer, Timers};
use super::update::Pending;
use crate::window::keys::Interner;

/// Bytes of a session besides its accumulators, and of what is known of a key.
const SESSION_BYTES: usize = 48;
const HELD_BYTES: usize = 48;

/// A session that has not ended.
pub struct Open {
    /// Time of its first record.
    pub start: i64,
    /// When it ends unless there is another record.
    pub end: i64,
    /// Where its accumulators are.
    pub place: u32,
    /// Whether the batch at hand changed it; of interest only where changes are told.
    pub is_changed: bool,
}

/// What is known of a key.
#[derive(Default)]
pub(super) struct Held {
    pub sessions: Vec<Open>, // in order of time; they are apart
    pub is_known: bool,      // whether `sessions` is all that there is
    pub is_dirty: bool,
    is_stored: bool,  // whether the store has a row
    used_in: u64,     // the last epoch in which a batch or a timer asked for it
    pub seen_in: u64, // the last batch that asked for it
}

/// Open sessions by key, and the timers for their ends.
pub struct Table {
    pub(super) gap: i64,
    pub(super) lateness: i64,
    pub(super) keys: Interner,
    pub(super) held: Vec<Held>, // by id
    pub(super) places: Places,
    pub(super) timers: Timers,
    pub(super) pending: Option<Pending>,
    pub(super) batch: u64, // how many there were
    pub(super) due: Vec<Timer>,
    // Bounds for sums of integers: the largest there was, and of how many sessions one may be made.
    pub(super) sum_max: u64,
    pub(super) sessions_max: usize,
    prefix: Vec<u8>,
    is_complete: bool, // whether keys that are not here have no sessions in the store either
    epoch: u64,
    used: Vec<u32>, // ids, in this epoch
    used_before: Vec<u32>,
}

impl Table {
    /// Returns an empty table.
    ///
    /// Rows begin with the first of `prefixes`, timers with the second one. Gap and lateness are
    /// not negative.
    pub fn new(aggregates: &[Aggregate], gap: i64, lateness: i64, prefixes: [Vec<u8>; 2]) -> Self {
        let [rows, timers] = prefixes;
        Self {
            gap,
            lateness,
            keys: Interner::default(),
            held: Vec::new(),
            places: Places::new(aggregates),
            timers: Timers::new(timers),
            pending: None,
            batch: 0,
            due: Vec::new(),
            sum_max: 0,
            sessions_max: 1,
            prefix: rows,
            is_complete: true,
            epoch: 1,
            used: Vec::new(),
            used_before: Vec::new(),
        }
    }

    /// Takes note that the store has sessions and timers that are not here.
    pub fn open_stored(&mut self) {
        self.is_complete = false;
        self.timers.open_stored();
    }

    /// Returns the state key of a row.
    pub fn name(&self, id: u32) -> Vec<u8> {
        [self.prefix.as_slice(), self.keys.key(id)].concat()
    }

    /// Returns the timers of this table.
    pub fn timers(&self) -> &Timers {
        &self.timers
    }

    /// Takes timers that the store has up to a time; false if one is none.
    pub fn take_timers(&mut self, names: &[impl AsRef<[u8]>]) -> bool {
        self.timers.take_stored(&mut self.keys, names)
    }

    /// Takes note that all stored timers up to a time were taken.
    pub fn set_timers_loaded(&mut self, time: i64) {
        self.timers.set_loaded(time);
    }

    /// Takes the rows that the store has for keys, None for none; false if one is not of this table.
    pub fn take_rows(
        &mut self,
        names: &[impl AsRef<[u8]>],
        stored: &[Option<impl AsRef<[u8]>>],
    ) -> bool {
        for (name, row) in names.iter().zip(stored) {
            let key = name.as_ref().strip_prefix(self.prefix.as_slice());
            let Some([tag, body @ ..]) = key else {
                return false;
            };
            let Some(id) = self.keys.find(self.keys.hash(*tag, body), *tag, body) else {
                continue;
            };
            if self.held[id as usize].is_known {
                continue;
            }
            let mut sessions = Vec::new();
            if let Some(row) = row {
                let Some(read) = rows::read(row.as_ref(), &mut self.places) else {
                    return false;
                };
                sessions = read;
            }
            let is_stored = row.is_some();
            self.know(id, sessions, is_stored);
        }
        true
    }

    fn know(&mut self, id: u32, sessions: Vec<Open>, is_stored: bool) {
        let places: Vec<u32> = sessions.iter().map(|session| session.place).collect();
        self.note_sums(&places);
        self.sessions_max = self.sessions_max.max(sessions.len());
        self.keys.retain(id);
        self.held[id as usize] = Held {
            sessions,
            is_known: true,
            is_stored,
            ..Held::default()
        };
    }

    /// Keeps the bound of sums one, after some places have changed.
    pub(super) fn note_sums(&mut self, places: &[u32]) {
        for column in &mut self.places.columns {
            let Some(sums) = column.integers() else {
                continue;
            };
            let held = places.iter().filter(|&&place| place != LATE);
            let largest = held.map(|&place| sums[place as usize].unsigned_abs()).max();
            self.sum_max = self.sum_max.max(largest.unwrap_or(0));
        }
    }

    /// Sees to it that something is known of each id; returns the state keys to be asked for.
    pub(super) fn require(&mut self, ids: impl Iterator<Item = u32>) -> Vec<Vec<u8>> {
        if self.held.len() < self.keys.end() {
            self.held.resize_with(self.keys.end(), Held::default);
        }
        let mut wanted = Vec::new();
        for id in ids {
            if self.held[id as usize].is_known {
                continue;
            }
            if self.is_complete {
                self.know(id, Vec::new(), false);
            } else {
                wanted.push(id);
            }
        }
        wanted.sort_unstable();
        wanted.dedup();
        wanted.into_iter().map(|id| self.name(id)).collect()
    }

    /// Takes note that an id, of which something is known, is in use.
    pub(super) fn touch(&mut self, id: u32) -> &mut Held {
        let held = &mut self.held[id as usize];
        if held.used_in != self.epoch {
            held.used_in = self.epoch;
            self.used.push(id);
        }
        held
    }

    /// Returns what changed since the last call; above a number of bytes of memory, drops what
    /// the store has too.
    pub fn drain(&mut self, size_max: usize) -> Changes {
        let mut changes = Changes::default();
        let used = std::mem::take(&mut self.used);
        for &id in &used {
            if !std::mem::take(&mut self.held[id as usize].is_dirty) {
                continue;
            }
            let name = self.name(id);
            let held = &mut self.held[id as usize];
            if !held.sessions.is_empty() {
                held.is_stored = true;
                changes
                    .puts
                    .push((name, rows::write(&held.sessions, &self.places)));
            } else if std::mem::take(&mut held.is_stored) {
                changes.deletes.push(name);
            }
        }
        self.timers
            .drain(&mut self.keys, &mut changes.timers, &mut changes.deletes);
        // That a key has no sessions is not worth remembering: most do not come back soon.
        for id in std::mem::replace(&mut self.used_before, used) {
            let held = &self.held[id as usize];
            if held.is_known && held.sessions.is_empty() && held.used_in != self.epoch {
                self.forget(id);
            }
        }
        if self.size() > size_max {
            self.evict();
        }
        self.epoch += 1;
        changes
    }

    /// Drops what no batch and no timer asked for in this epoch: the store has it by now.
    fn evict(&mut self) {
        for id in 0..self.held.len() {
            let held = &self.held[id];
            if held.is_known && held.used_in != self.epoch {
                self.is_complete &= held.sessions.is_empty();
                self.forget(id as u32);
            }
        }
        self.timers.evict(&mut self.keys);
    }

    fn forget(&mut self, id: u32) {
        for session in std::mem::take(&mut self.held[id as usize]).sessions {
            self.places.release(session.place);
        }
        self.keys.release(id);
    }

    /// Returns how many bytes of memory all takes, about.
    pub fn size(&self) -> usize {
        let session = self.places.width() + SESSION_BYTES;
        self.keys.size()
            // Not of all ids that there ever were: dropping rows would not make those fewer.
            + self.keys.len() * HELD_BYTES
            + self.places.used() * session
            + self.timers.size()
    }

    /// Returns what the last two epochs changed, and timers that were about to be looked at.
    ///
    /// Whoever goes on with it finds the rest in the store.
    pub fn export(&self) -> Exported {
        let recent: BTreeSet<u32> = self.used.iter().chain(&self.used_before).copied().collect();
        let rows = recent.into_iter().filter_map(|id| {
            let held = &self.held[id as usize];
            let row =
                (!held.sessions.is_empty()).then(|| rows::write(&held.sessions, &self.places));
            held.is_known.then(|| (self.keys.key(id).to_vec(), row))
        });
        let mut timers = self.timers.recent(&self.keys);
        let due = self.due.iter();
        timers.extend(due.map(|&(time, id)| (time, self.keys.key(id).to_vec(), true)));
        Exported {
            rows: rows.collect(),
            timers,
        }
    }
}

/// What changed in an epoch.
#[derive(Default)]
pub struct Changes {
    /// State keys and rows.
    pub puts: Vec<(Vec<u8>, Vec<u8>)>,
    /// State keys of timers that were set.
    pub timers: Vec<Vec<u8>>,
    /// State keys of rows and timers that are gone.
    pub deletes: Vec<Vec<u8>>,
}

/// What another table needs to go on.
pub struct Exported {
    /// Key and row, None if it has none.
    pub rows: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// Time and key of timers, and whether they are set.
    pub timers: Vec<(i64, Vec<u8>, bool)>,
}
