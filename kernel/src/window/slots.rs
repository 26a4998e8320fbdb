//! The places of rows in arrays.

use super::NONE;
use super::accumulators::Accumulator;
use super::keys::Interner;

/// Bytes of a slot besides its accumulators: its slice, its id, its mark, and its place in an index.
const SLOT_OVERHEAD: usize = 24;

/// The places of rows: arrays that grow, and whose places are used again.
#[derive(Default)]
pub struct Slots {
    /// Accumulators, one per aggregate.
    pub columns: Vec<Accumulator>,
    /// Number of the slice of each.
    pub slices: Vec<u32>,
    /// Id of the key of each; `NONE` if it is free.
    pub ids: Vec<u32>,
    /// Whether it changed since the last barrier.
    pub dirty: Vec<bool>,
    free: Vec<u32>,
}

impl Slots {
    /// Returns no slots.
    pub fn new(columns: Vec<Accumulator>) -> Self {
        Self {
            columns,
            ..Self::default()
        }
    }

    /// Returns a slot for a slice and an id, with accumulators of no records.
    pub fn take(&mut self, keys: &mut Interner, slice: u32, id: u32) -> u32 {
        keys.retain(id);
        if let Some(slot) = self.free.pop() {
            let at = slot as usize;
            (self.slices[at], self.ids[at]) = (slice, id);
            self.columns.iter_mut().for_each(|column| column.clear(at));
            return slot;
        }
        self.slices.push(slice);
        self.ids.push(id);
        self.dirty.push(false);
        self.columns.iter_mut().for_each(Accumulator::push);
        (self.ids.len() - 1) as u32
    }

    /// Gives a slot back.
    pub fn release(&mut self, keys: &mut Interner, slot: u32) {
        let at = slot as usize;
        keys.release(self.ids[at]);
        (self.ids[at], self.dirty[at]) = (NONE, false);
        for column in &mut self.columns {
            // Text is memory of its own.
            if let Some((_, texts)) = column.texts_mut() {
                texts.set(at, "");
            }
        }
        self.free.push(slot);
    }

    /// Returns how many are in use.
    pub fn used(&self) -> usize {
        self.ids.len() - self.free.len()
    }

    /// Returns the bytes of the accumulators of a row, here and stored.
    pub fn width(&self) -> usize {
        self.columns.iter().map(Accumulator::width).sum()
    }

    /// Returns how many bytes of memory those in use take, about.
    pub fn size(&self) -> usize {
        let texts = self.columns.iter().filter_map(Accumulator::texts);
        let texts: usize = texts.map(|(_, texts)| texts.size()).sum();
        self.used() * (self.width() + SLOT_OVERHEAD) + texts
    }

    /// Gives memory back once nothing is held.
    pub fn shrink(&mut self) {
        if self.used() == 0 && !self.ids.is_empty() {
            let columns = self.columns.iter().map(Accumulator::like).collect();
            *self = Self {
                columns,
                ..Self::default()
            };
        }
    }
}
