//! When to look at the sessions of which key, as `operators/timers.py` has it.
//!
//! A stored timer is a row whose key begins with the time, so that those that are due are a range.

use std::collections::{BTreeSet, HashMap};

use foldhash::fast::RandomState;

use crate::window::input::intern;
use crate::window::keys::Interner;
// A time is written as the start of a slice is.
use crate::window::table::{SLICE_BYTES, slice_from_state, slice_to_state};

/// Bytes of a timer: its place in the tree, and in a map while it is new.
const TIMER_BYTES: usize = 64;

/// A time and the id of a key. Each that is held somewhere counts as a reference to the id.
pub type Timer = (i64, u32);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    /// Set, and the store had no such timer before.
    New,
    Set,
    Removed,
}

/// Timers by time and key; setting one twice is setting it once.
pub struct Timers {
    prefix: Vec<u8>,
    live: BTreeSet<Timer>,
    changed: HashMap<Timer, Change, RandomState>, // since the last barrier
    before: HashMap<Timer, Change, RandomState>,  // in the epoch before
    // All stored ones before it are here or were taken out; the largest time stands for all.
    loaded_to: i64,
    passed: i64, // all before it were due
}

impl Timers {
    /// Returns no timers, whose state keys begin with `prefix`.
    pub fn new(prefix: Vec<u8>) -> Self {
        Self {
            prefix,
            live: BTreeSet::new(),
            changed: HashMap::default(),
            before: HashMap::default(),
            loaded_to: i64::MAX,
            passed: i64::MIN,
        }
    }

    /// Takes note that the store has timers that are not here.
    pub fn open_stored(&mut self) {
        self.loaded_to = i64::MIN;
    }

    /// Sets a timer.
    pub fn add(&mut self, keys: &mut Interner, time: i64, id: u32) {
        let timer = (time, id);
        if !self.live.insert(timer) {
            return;
        }
        keys.retain(id);
        let is_new = self.loaded_to == i64::MAX;
        self.changed
            .entry(timer)
            .and_modify(|change| *change = Change::Set)
            .or_insert_with(|| {
                keys.retain(id);
                if is_new { Change::New } else { Change::Set }
            });
    }

    /// Takes out those that are not after a time; the references to their ids go with them.
    pub fn take_due(&mut self, keys: &mut Interner, time: i64) -> Vec<Timer> {
        let mut due = Vec::new();
        while let Some(&timer) = self.live.first() {
            if timer.0 > time {
                break;
            }
            self.live.pop_first();
            self.remove(keys, timer);
            due.push(timer);
        }
        self.passed = self.passed.max(time.saturating_add(1));
        due
    }

    fn remove(&mut self, keys: &mut Interner, timer: Timer) {
        if self.changed.get(&timer) == Some(&Change::New) {
            // Nobody but this epoch has ever seen it.
            self.changed.remove(&timer);
            keys.release(timer.1);
        } else if self.changed.insert(timer, Change::Removed).is_none() {
            keys.retain(timer.1);
        }
    }

    /// Returns the range of state keys to be read before those up to a time are all here.
    pub fn missing(&self, time: i64) -> Option<(Vec<u8>, Vec<u8>)> {
        let is_missing = self.loaded_to != i64::MAX && self.loaded_to <= time;
        is_missing.then(|| {
            let end = [&self.prefix, &slice_to_state(time)[..], &[u8::MAX]].concat();
            (
                [&self.prefix, &slice_to_state(self.loaded_to)[..]].concat(),
                end,
            )
        })
    }

    /// Takes stored timers; false if one is none.
    pub fn take_stored(&mut self, keys: &mut Interner, names: &[impl AsRef<[u8]>]) -> bool {
        for name in names {
            let rest = name.as_ref().strip_prefix(self.prefix.as_slice());
            let parts = rest.and_then(|rest| rest.split_first_chunk::<SLICE_BYTES>());
            let Some((time, [tag, body @ ..])) = parts else {
                return false;
            };
            let id = intern(keys, &mut Vec::new(), *tag, body);
            let timer = (slice_from_state(*time), id);
            // What the last two epochs removed the store may have still.
            let is_gone = [&self.changed, &self.before]
                .iter()
                .any(|changes| changes.get(&timer) == Some(&Change::Removed));
            if !is_gone && self.live.insert(timer) {
                keys.retain(id);
            }
        }
        true
    }

    /// Takes note that stored timers up to a time were read.
    pub fn set_loaded(&mut self, time: i64) {
        self.loaded_to = self.loaded_to.max(time.saturating_add(1));
    }

    /// Adds the state keys of those that were set and removed since the last call.
    pub fn drain(&mut self, keys: &mut Interner, set: &mut Vec<Vec<u8>>, gone: &mut Vec<Vec<u8>>) {
        for (&timer, &change) in &self.changed {
            let name = self.name(keys, timer);
            match change {
                Change::New | Change::Set => set.push(name),
                Change::Removed => gone.push(name),
            }
        }
        for &(_, id) in self.before.keys() {
            keys.release(id);
        }
        self.before = std::mem::take(&mut self.changed);
    }

    /// Drops those that the store has, after a barrier; they are read again when they are due.
    pub fn evict(&mut self, keys: &mut Interner) {
        let later = (self.passed, 0);
        let stored: Vec<Timer> = self
            .live
            .range(later..)
            // Those of the last epoch only its delta has as yet.
            .filter(|&timer| !self.before.contains_key(timer))
            .copied()
            .collect();
        if stored.is_empty() {
            return;
        }
        for timer in stored {
            self.live.remove(&timer);
            keys.release(timer.1);
        }
        self.loaded_to = self.loaded_to.min(self.passed);
    }

    /// Returns time and state key of those that the last two epochs changed, and whether it is set.
    pub fn recent(&self, keys: &Interner) -> Vec<(i64, Vec<u8>, bool)> {
        let mut latest = self.before.clone();
        latest.extend(&self.changed);
        latest
            .into_iter()
            .map(|((time, id), change)| (time, keys.key(id).to_vec(), change != Change::Removed))
            .collect()
    }

    /// Returns how many bytes of memory they take, about.
    pub fn size(&self) -> usize {
        (self.live.len() + self.changed.len() + self.before.len()) * TIMER_BYTES
    }

    fn name(&self, keys: &Interner, (time, id): Timer) -> Vec<u8> {
        [&self.prefix, &slice_to_state(time)[..], keys.key(id)].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> (Interner, u32) {
        let mut keys = Interner::default();
        let id = keys.insert(keys.hash(b's', b"a"), b's', b"a");
        (keys, id)
    }

    fn drained(timers: &mut Timers, keys: &mut Interner) -> (usize, usize) {
        let (mut set, mut gone) = (Vec::new(), Vec::new());
        timers.drain(keys, &mut set, &mut gone);
        (set.len(), gone.len())
    }

    #[test]
    fn what_comes_and_goes_within_an_epoch_is_never_stored() {
        let (mut keys, a) = keys();
        let mut timers = Timers::new(b"T".to_vec());
        timers.add(&mut keys, 5, a);
        assert_eq!(timers.take_due(&mut keys, 4), []);
        assert_eq!(timers.take_due(&mut keys, 5), [(5, a)]);
        assert_eq!(drained(&mut timers, &mut keys), (0, 0));
        timers.add(&mut keys, 9, a);
        assert_eq!(drained(&mut timers, &mut keys), (1, 0));
        assert_eq!(timers.take_due(&mut keys, 9), [(9, a)]);
        assert_eq!(drained(&mut timers, &mut keys), (0, 1));
    }

    #[test]
    fn what_was_dropped_is_read_again_but_not_what_was_removed() {
        let (mut keys, a) = keys();
        let mut timers = Timers::new(b"T".to_vec());
        timers.add(&mut keys, -5, a);
        timers.add(&mut keys, 5, a);
        drained(&mut timers, &mut keys);
        timers.evict(&mut keys);
        assert!(timers.missing(100).is_none(), "the delta alone has them");
        drained(&mut timers, &mut keys);
        timers.evict(&mut keys);
        let (start, end) = timers.missing(0).unwrap();
        let names = [-5, 5].map(|time| [b"T", &slice_to_state(time)[..], b"sa"].concat());
        assert!(start <= names[0] && names[0] < end && end <= names[1]);
        assert!(timers.take_stored(&mut keys, &names[..1]));
        timers.set_loaded(0);
        assert_eq!(timers.take_due(&mut keys, 0), [(-5, a)]);
        assert!(timers.take_stored(&mut keys, &names));
        assert_eq!(timers.take_due(&mut keys, 9), [(5, a)]);
        assert!(!timers.take_stored(&mut keys, &[b"T1234567"]));
    }
}
