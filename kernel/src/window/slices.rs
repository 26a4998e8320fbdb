//! Slices by start, and the slots of their keys.

use std::collections::BTreeMap;

use hashbrown::HashTable;

use super::NONE;

/// A slice keeps a vector over all ids as long as at least one in so many is in it.
const DENSE_FACTOR: usize = 8;
const DENSE_MIN: usize = 1024;

/// Slot by id: a vector where the ids of a slice lie close together, a hash map otherwise.
pub enum Index {
    /// Slot of each id, and how many there are.
    Dense(Vec<u32>, usize),
    /// Pairs of id and slot.
    Sparse(HashTable<(u32, u32)>),
}

#[inline]
fn hash(id: u32) -> u64 {
    // Ids are handed out here, so nobody can choose them to collide.
    u64::from(id)
        .wrapping_mul(0x9E37_79B9_7F4A_7C15)
        .rotate_left(20)
}

impl Default for Index {
    fn default() -> Self {
        Self::Dense(Vec::new(), 0)
    }
}

impl Index {
    /// Returns the slot of an id, `NONE` if there is none.
    #[inline]
    pub fn get(&self, id: u32) -> u32 {
        match self {
            Self::Dense(slots, _) => slots.get(id as usize).copied().unwrap_or(NONE),
            Self::Sparse(map) => map
                .find(hash(id), |pair| pair.0 == id)
                .map_or(NONE, |pair| pair.1),
        }
    }

    /// Sets the slot of an id that has none.
    pub fn insert(&mut self, id: u32, slot: u32) {
        if let Self::Dense(slots, len) = self {
            let at = id as usize;
            if at < slots.len() || at < dense_max(*len + 1) {
                if at >= slots.len() {
                    slots.resize(at + 1, NONE);
                }
                slots[at] = slot;
                *len += 1;
                return;
            }
            self.rebuild(true);
        }
        let Self::Sparse(map) = self else {
            unreachable!("it was made sparse")
        };
        map.insert_unique(hash(id), (id, slot), |pair| hash(pair.0));
        if map.len().is_power_of_two() {
            self.settle();
        }
    }

    /// Removes an id that has a slot.
    pub fn remove(&mut self, id: u32) {
        match self {
            Self::Dense(slots, len) => {
                slots[id as usize] = NONE;
                *len -= 1;
            }
            Self::Sparse(map) => {
                if let Ok(entry) = map.find_entry(hash(id), |pair| pair.0 == id) {
                    entry.remove();
                }
            }
        }
    }

    /// Returns the number of ids.
    pub fn len(&self) -> usize {
        match self {
            Self::Dense(_, len) => *len,
            Self::Sparse(map) => map.len(),
        }
    }

    /// Returns whether there are no ids.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Calls `visit` with each id and its slot.
    pub fn for_each(&self, mut visit: impl FnMut(u32, u32)) {
        match self {
            Self::Dense(slots, _) => {
                for (id, &slot) in slots.iter().enumerate() {
                    if slot != NONE {
                        visit(id as u32, slot);
                    }
                }
            }
            Self::Sparse(map) => map.iter().for_each(|&(id, slot)| visit(id, slot)),
        }
    }

    /// Takes the form that suits, after much has changed.
    pub fn settle(&mut self) {
        let mut highest = 0;
        self.for_each(|id, _| highest = highest.max(id as usize));
        let is_sparse = highest >= dense_max(self.len());
        // A vector that has become much too long is made anew, too.
        let is_long = matches!(self, Self::Dense(slots, _) if slots.len() > 2 * (highest + 1));
        if is_sparse != matches!(self, Self::Sparse(_)) || is_long {
            self.rebuild(is_sparse);
        }
    }

    fn rebuild(&mut self, is_sparse: bool) {
        let mut pairs = Vec::with_capacity(self.len());
        self.for_each(|id, slot| pairs.push((id, slot)));
        *self = if is_sparse {
            let mut map = HashTable::with_capacity(pairs.len());
            for &pair in &pairs {
                map.insert_unique(hash(pair.0), pair, |pair| hash(pair.0));
            }
            Self::Sparse(map)
        } else {
            let end = pairs
                .iter()
                .map(|pair| pair.0 as usize + 1)
                .max()
                .unwrap_or(0);
            let mut slots = vec![NONE; end];
            for &(id, slot) in &pairs {
                slots[id as usize] = slot;
            }
            Self::Dense(slots, pairs.len())
        };
    }
}

fn dense_max(len: usize) -> usize {
    len * DENSE_FACTOR + DENSE_MIN
}

/// One slice of event time.
#[derive(Default)]
pub struct Slice {
    /// Where it begins.
    pub start: i64,
    /// Slot by id of the rows that are here.
    pub index: Index,
    /// Whether all its rows are here, so that a miss need not ask the store.
    pub is_complete: bool,
    /// How many rows it has, those in the store included; many if they have not been counted.
    pub rows: u64,
}

/// All slices that have rows, here or in the store.
#[derive(Default)]
pub struct Slices {
    slab: Vec<Slice>,
    free: Vec<u32>,
    by_start: BTreeMap<i64, u32>,
}

impl Slices {
    /// Returns the number of the slice that begins at `start`.
    pub fn find(&self, start: i64) -> Option<u32> {
        self.by_start.get(&start).copied()
    }

    /// Adds a slice that is not there yet, and returns its number.
    pub fn add(&mut self, start: i64, is_complete: bool, rows: u64) -> u32 {
        let slice = Slice {
            start,
            index: Index::default(),
            is_complete,
            rows,
        };
        let number = match self.free.pop() {
            Some(number) => {
                self.slab[number as usize] = slice;
                number
            }
            None => {
                self.slab.push(slice);
                (self.slab.len() - 1) as u32
            }
        };
        self.by_start.insert(start, number);
        number
    }

    /// Returns a slice by its number.
    #[inline]
    pub fn get(&self, number: u32) -> &Slice {
        &self.slab[number as usize]
    }

    /// Returns a slice by its number.
    #[inline]
    pub fn get_mut(&mut self, number: u32) -> &mut Slice {
        &mut self.slab[number as usize]
    }

    /// Removes a slice and returns it.
    pub fn remove(&mut self, start: i64) -> Option<Slice> {
        let number = self.by_start.remove(&start)?;
        self.free.push(number);
        Some(std::mem::take(&mut self.slab[number as usize]))
    }

    /// Returns the starts of all slices, in order.
    pub fn starts(&self) -> Vec<i64> {
        self.by_start.keys().copied().collect()
    }

    /// Returns the numbers of the slices `start <= slice start < end`, in order.
    pub fn between(&self, start: i64, end: i64) -> impl Iterator<Item = u32> {
        self.by_start
            .range(start..end.max(start))
            .map(|(_, &number)| number)
    }

    /// Returns the numbers of all slices, in order.
    pub fn all(&self) -> Vec<u32> {
        self.by_start.values().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_the_same_whatever_its_form() {
        let mut index = Index::default();
        let ids = [5, 100_000, 7, 3_000_000, 0, 100_001];
        for (slot, &id) in ids.iter().enumerate() {
            index.insert(id, slot as u32);
        }
        assert!(matches!(index, Index::Sparse(_)));
        for (slot, &id) in ids.iter().enumerate() {
            assert_eq!(index.get(id), slot as u32);
        }
        for id in [100_000, 3_000_000, 100_001] {
            index.remove(id);
        }
        index.settle();
        assert!(matches!(index, Index::Dense(..)));
        assert_eq!((index.get(5), index.get(7), index.get(0)), (0, 2, 4));
        assert_eq!(
            (index.get(100_000), index.get(6), index.len()),
            (NONE, NONE, 3)
        );
    }

    #[test]
    fn slices_lie_in_order_of_their_starts() {
        let mut slices = Slices::default();
        for start in [30, -10, 20] {
            slices.add(start, true, 0);
        }
        assert_eq!(slices.starts(), [-10, 20, 30]);
        let between = |slices: &Slices, start, end| -> Vec<i64> {
            slices
                .between(start, end)
                .map(|number| slices.get(number).start)
                .collect()
        };
        assert_eq!(between(&slices, -10, 30), [-10, 20]);
        assert_eq!(between(&slices, 30, -10), [0i64; 0]);
        assert!(slices.remove(20).is_some() && slices.remove(20).is_none());
        assert_eq!(slices.add(40, true, 0), 2);
        assert_eq!(slices.starts(), [-10, 30, 40]);
    }
}
