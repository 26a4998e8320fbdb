//! Rows that only the store has: to be held and updated, or to be read once.

use std::collections::HashMap;

use super::NONE;
use super::accumulators::Accumulator;
use super::input::intern;
use super::rows;
use super::slices::Index;
use super::table::{SLICE_BYTES, Table, slice_from_state};
use super::values::Form;

/// Rows that were read from the store for a reading, and are not held.
#[derive(Default)]
pub struct Stored {
    /// Accumulators, one per aggregate.
    pub columns: Vec<Accumulator>,
    /// Place in `columns` by id, by slice.
    pub by_slice: HashMap<i64, Index>,
    rows: u32,
    /// Ids that a reading of some keys asks for.
    pub pairs: Vec<u32>,
}

impl Stored {
    /// Adds a row; false if it has too few bytes.
    pub fn add(&mut self, start: i64, id: u32, fields: &[u8], forms: &[Form]) -> bool {
        let index = self.by_slice.entry(start).or_default();
        if index.get(id) != NONE {
            return true;
        }
        self.columns.iter_mut().for_each(Accumulator::push);
        if !rows::decode(&mut self.columns, self.rows as usize, fields, forms) {
            return false;
        }
        index.insert(id, self.rows);
        self.rows += 1;
        true
    }
}

/// How far rows from the store could be taken.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// All were.
    All,
    /// That row has values of other types: widen, or do without this table.
    Types(usize, Vec<String>),
    /// That row is not one of this table.
    Unreadable(usize),
}

/// What rows from the store are for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To be held and updated.
    Hold,
    /// To be read once.
    Read,
}

impl Table {
    /// Takes rows of the store under their state keys, from `at` on; None where there is no row.
    pub fn take_stored<N: AsRef<[u8]>, R: AsRef<[u8]>>(
        &mut self,
        purpose: Purpose,
        names: &[N],
        stored: &[Option<R>],
        at: usize,
    ) -> Taken {
        let mut known_header = rows::header(&self.tags);
        let mut forms: Vec<Form> = self.tags.iter().map(|tag| rows::form(tag)).collect();
        if purpose == Purpose::Read && self.stored.columns.is_empty() {
            self.stored.columns = self.slots.columns.iter().map(Accumulator::like).collect();
        }
        for (i, (name, row)) in names.iter().zip(stored).enumerate().skip(at) {
            let Some(row) = row.as_ref().map(AsRef::as_ref) else {
                continue;
            };
            let Some((start, key)) = self.split_name(name.as_ref()) else {
                return Taken::Unreadable(i);
            };
            let Some(number) = self.slices.find(start) else {
                continue;
            };
            let (tag, body) = (key[0], &key[1..]);
            let held = self.keys.find(self.keys.hash(tag, body), tag, body);
            let slice = self.slices.get(number);
            if slice.is_complete || held.is_some_and(|id| slice.index.get(id) != NONE) {
                continue;
            }
            if !row.starts_with(&known_header) {
                let Some((tags, fields)) = rows::split(row) else {
                    return Taken::Unreadable(i);
                };
                if tags.len() != self.tags.len() {
                    return Taken::Unreadable(i);
                }
                if !tags
                    .iter()
                    .zip(&self.tags)
                    .all(|(stored, held)| goes_into(stored, held))
                {
                    return Taken::Types(i, tags.into_iter().map(String::from).collect());
                }
                forms = tags.iter().map(|&tag| rows::form(tag)).collect();
                known_header = row[..row.len() - fields.len()].to_vec();
            }
            let fields = &row[known_header.len()..];
            let id = held.unwrap_or_else(|| intern(&mut self.keys, &mut self.fresh, tag, body));
            let is_read = match purpose {
                Purpose::Hold => self.hold(number, id, fields, &forms),
                Purpose::Read => self.stored.add(start, id, fields, &forms),
            };
            if !is_read {
                return Taken::Unreadable(i);
            }
        }
        Taken::All
    }

    fn hold(&mut self, number: u32, id: u32, fields: &[u8], forms: &[Form]) -> bool {
        let slot = self.slots.take(&mut self.keys, number, id);
        if !rows::decode(&mut self.slots.columns, slot as usize, fields, forms) {
            self.slots.release(&mut self.keys, slot);
            return false;
        }
        self.slices.get_mut(number).index.insert(id, slot);
        true
    }

    /// Returns slice and key that a state key is made of; None if it is none of this table.
    fn split_name<'a>(&self, name: &'a [u8]) -> Option<(i64, &'a [u8])> {
        let rest = name.strip_prefix(self.prefix.as_slice())?;
        let (start, key) = rest.split_first_chunk::<SLICE_BYTES>()?;
        (!key.is_empty()).then_some((slice_from_state(*start), key))
    }
}

/// Returns whether values of a type are held as they are where those of another are.
fn goes_into(stored: &str, held: &str) -> bool {
    stored == held || stored == rows::NO_TYPE || (stored == "i" && held == rows::FLOAT)
}
