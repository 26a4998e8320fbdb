//! The accumulators of sessions: arrays that grow, and whose places are used again.

use crate::window::accumulators::{Accumulator, Kind};
use crate::window::values::Form;

/// The place of records that are late: whatever they add there nobody looks at.
pub const LATE: u32 = 0;

/// A kind of aggregate, and whether its values are floats.
pub type Aggregate = (Kind, bool);

/// Accumulators by place.
pub struct Places {
    /// One per aggregate.
    pub columns: Vec<Accumulator>,
    free: Vec<u32>,
    end: u32,
}

impl Places {
    /// Returns no places but that of late records.
    pub fn new(aggregates: &[Aggregate]) -> Self {
        let columns = aggregates.iter().map(|&(kind, is_float)| {
            let mut column = Accumulator::new(kind);
            if is_float {
                column.widen(Form::Float);
            }
            column.push();
            column
        });
        Self {
            columns: columns.collect(),
            free: Vec::new(),
            end: LATE + 1,
        }
    }

    /// Returns a place with accumulators of no records.
    pub fn take(&mut self) -> u32 {
        if let Some(place) = self.free.pop() {
            let at = place as usize;
            self.columns.iter_mut().for_each(|column| column.clear(at));
            return place;
        }
        self.columns.iter_mut().for_each(Accumulator::push);
        self.end += 1;
        self.end - 1
    }

    /// Gives a place back.
    pub fn release(&mut self, place: u32) {
        self.free.push(place);
    }

    /// Merges what is in one place into another, of earlier records.
    pub fn merge(&mut self, into: u32, from: u32) {
        for column in &mut self.columns {
            let mut other = column.like();
            other.extend_from(column, &[from]);
            // Sums of integers fit, or the batch would not have been taken.
            column.merge(&other, &[(into, 0)], |_, _| {});
        }
    }

    /// Returns how many are in use.
    pub fn used(&self) -> usize {
        self.end as usize - self.free.len()
    }

    /// Returns the bytes of the accumulators of a place.
    pub fn width(&self) -> usize {
        self.columns.iter().map(Accumulator::width).sum()
    }
}
