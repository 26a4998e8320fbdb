//! The table: updates, rows from the store, and barriers.

use std::collections::BTreeMap;

use super::accumulators::{Accumulator, Kind};
use super::blocks::{Block, add_blocks};
use super::keys::Interner;
use super::rows;
use super::slices::Slices;
use super::slots::Slots;
use super::stored::Stored;
use super::update::Pending;

/// Bytes of a slice's start in a state key.
pub const SLICE_BYTES: usize = 8;
const SIGN: u64 = 1 << 63;

/// Returns a slice start as 8 bytes that sort like the number.
pub fn slice_to_state(start: i64) -> [u8; SLICE_BYTES] {
    (start as u64 ^ SIGN).to_be_bytes()
}

/// Returns the number that sorts like its 8 bytes.
pub fn slice_from_state(bytes: [u8; SLICE_BYTES]) -> i64 {
    (u64::from_be_bytes(bytes) ^ SIGN) as i64
}

/// Keyed window aggregates; see `WindowTable` in `engine/plane.py`.
pub struct Table {
    pub(super) kinds: Vec<Kind>,
    pub(super) tags: Vec<String>,
    pub(super) prefix: Vec<u8>,
    pub(super) fresh: Vec<u32>, // ids made lately, to be forgotten if no row came to refer to them
    pub(super) pending: Option<Pending>,
    pub(super) keys: Interner,
    pub(super) slices: Slices,
    pub(super) slots: Slots,
    pub(super) stored: Stored,
}

impl Table {
    /// Returns an empty table whose state keys begin with `prefix`.
    pub fn new(kinds: Vec<Kind>, prefix: Vec<u8>) -> Self {
        let columns = kinds.iter().map(|&kind| Accumulator::new(kind)).collect();
        Self {
            tags: vec![rows::NO_TYPE.to_owned(); kinds.len()],
            kinds,
            prefix,
            fresh: Vec::new(),
            pending: None,
            keys: Interner::default(),
            slices: Slices::default(),
            slots: Slots::new(columns),
            stored: Stored::default(),
        }
    }

    /// Returns the type of each aggregate's values, as far as seen.
    pub fn tags(&self) -> &[String] {
        &self.tags
    }

    /// Returns whether an aggregate needs event times.
    pub fn reads_times(&self) -> bool {
        self.kinds
            .iter()
            .any(|kind| matches!(kind, Kind::First | Kind::Last))
    }

    /// Returns whether values of some types can be held here.
    pub fn knows(&self, tags: &[String]) -> bool {
        tags.len() == self.kinds.len()
            && rows::has_header(tags)
            && self
                .kinds
                .iter()
                .zip(tags)
                .all(|(&kind, tag)| rows::is_known(kind, tag))
    }

    /// Makes room for values of wider types, all of them known.
    pub fn widen(&mut self, tags: Vec<String>) {
        for (i, tag) in tags.iter().enumerate() {
            let form = rows::form(tag);
            self.slots.columns[i].widen(form);
            if let Some(column) = self.stored.columns.get_mut(i) {
                column.widen(form);
            }
        }
        self.tags = tags;
    }

    /// Adds a slice that the store has rows of.
    pub fn open_slice(&mut self, start: i64, rows: u64) {
        if self.slices.find(start).is_none() {
            self.slices.add(start, false, rows);
        }
    }

    /// Returns the starts of all slices, in order.
    pub fn starts(&self) -> Vec<i64> {
        self.slices.starts()
    }

    /// Returns the state key of a row.
    pub fn name(&self, start: i64, id: u32) -> Vec<u8> {
        [&self.prefix, &slice_to_state(start)[..], self.keys.key(id)].concat()
    }

    /// Forgets ids that no row came to refer to, and what else a batch or a reading left.
    pub fn settle(&mut self) {
        self.pending = None;
        self.stored = Stored::default();
        for id in std::mem::take(&mut self.fresh) {
            self.keys.remove_unused(id);
        }
    }

    /// Drops all slices before `start`, and returns where the first of them began.
    pub fn remove_below(&mut self, start: i64) -> Option<i64> {
        let gone: Vec<i64> = self
            .slices
            .between(i64::MIN, start)
            .map(|number| self.slices.get(number).start)
            .collect();
        for &start in &gone {
            if let Some(slice) = self.slices.remove(start) {
                slice
                    .index
                    .for_each(|_, slot| self.slots.release(&mut self.keys, slot));
            }
        }
        self.slots.shrink();
        gone.first().copied()
    }

    /// Returns the rows that changed since the last call; above a number of bytes of memory, drops
    /// those that were clean before.
    pub fn drain(&mut self, size_max: usize) -> Vec<Block> {
        let mut changed: BTreeMap<i64, Vec<(u32, u32)>> = BTreeMap::new();
        let slots = &self.slots;
        for (slot, _) in slots
            .dirty
            .iter()
            .enumerate()
            .filter(|(_, is_dirty)| **is_dirty)
        {
            let start = self.slices.get(slots.slices[slot]).start;
            changed
                .entry(start)
                .or_default()
                .push((slots.ids[slot], slot as u32));
        }
        let mut blocks = Vec::new();
        let header = rows::header(&self.tags);
        let has_text = slots.columns.iter().any(|column| column.texts().is_some());
        let width = (!has_text).then(|| header.len() + slots.width());
        for (start, rows) in changed {
            let prefix = [&self.prefix, &slice_to_state(start)[..]].concat();
            add_blocks(
                &mut blocks,
                &prefix,
                &self.keys,
                &rows,
                width,
                |slot, into| {
                    into.extend_from_slice(&header);
                    rows::encode(&slots.columns, slot as usize, into);
                },
            );
        }
        if self.size() > size_max {
            self.evict();
        }
        self.slots.dirty.fill(false);
        blocks
    }

    /// Returns how many bytes of memory the rows take, about.
    pub fn size(&self) -> usize {
        self.keys.size() + self.slots.size()
    }

    /// Drops the rows that were clean before this barrier: the store has them by now.
    ///
    /// Those just drained it has not yet, only the delta has.
    fn evict(&mut self) {
        for number in self.slices.all() {
            let mut clean = Vec::new();
            let dirty = &self.slots.dirty;
            let slice = self.slices.get_mut(number);
            slice.index.for_each(|id, slot| {
                if !dirty[slot as usize] {
                    clean.push((id, slot));
                }
            });
            if clean.is_empty() {
                continue;
            }
            slice.is_complete = false;
            for (id, slot) in clean {
                slice.index.remove(id);
                self.slots.release(&mut self.keys, slot);
            }
            slice.index.settle();
        }
        self.slots.shrink();
    }

    /// Returns what is known of a slice: whether it is complete, how many rows it has, and key and
    /// row of those that are here, the changed ones last, with the number of those.
    pub fn export(&self, start: i64) -> Option<Exported> {
        let slice = self.slices.get(self.slices.find(start)?);
        let header = rows::header(&self.tags);
        let (mut clean, mut changed) = (Vec::new(), Vec::new());
        slice.index.for_each(|id, slot| {
            let mut row = header.clone();
            rows::encode(&self.slots.columns, slot as usize, &mut row);
            let to = if self.slots.dirty[slot as usize] {
                &mut changed
            } else {
                &mut clean
            };
            to.push((self.keys.key(id).to_vec(), row));
        });
        Some(Exported {
            is_complete: slice.is_complete,
            rows: slice.rows,
            clean,
            changed,
        })
    }
}

/// A slice as another table can take it over.
pub struct Exported {
    /// Whether all its rows are here.
    pub is_complete: bool,
    /// How many it has.
    pub rows: u64,
    /// Key and row of those that the store has or is about to have.
    pub clean: Vec<(Vec<u8>, Vec<u8>)>,
    /// Key and row of those that have not been drained.
    pub changed: Vec<(Vec<u8>, Vec<u8>)>,
}
