//! Keys to small numbers: each distinct key is held once, as bytes in one arena.
//!
//! A key is its state key: one byte that tells the type, and the rest.

use std::hash::{BuildHasher, Hasher};

use foldhash::fast::RandomState;
use hashbrown::HashTable;

/// Below so many bytes of removed keys the arena is not compacted.
const GARBAGE_MIN: usize = 1 << 16;

/// What a key costs besides its bytes: its entry in the hash table, its span and its count.
const KEY_OVERHEAD: usize = 48;

#[derive(Clone, Copy)]
struct Entry {
    start: usize,
    len: u32,
    id: u32,
}

/// Numbers for keys, counted references, and the keys of numbers.
///
/// A number whose last reference is released stands for another key later.
#[derive(Default)]
pub struct Interner {
    // The entries tell where the bytes are, so that a look-up need not go by way of `spans`.
    table: HashTable<Entry>,
    // Seeded anew in each process: who chooses keys must not be able to make them collide.
    hasher: RandomState,
    spans: Vec<(usize, u32)>,
    references: Vec<u32>,
    free: Vec<u32>,
    bytes: Vec<u8>,
    garbage: usize,
}

impl Interner {
    /// Returns the hash of a key, for the other methods.
    #[inline]
    pub fn hash(&self, tag: u8, body: &[u8]) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(body);
        hasher.write_u8(tag);
        hasher.finish()
    }

    /// Returns the number of a key, if it has one.
    #[inline]
    pub fn find(&self, hash: u64, tag: u8, body: &[u8]) -> Option<u32> {
        let bytes = &self.bytes;
        let found = self.table.find(hash, |entry| {
            let held = &bytes[entry.start..entry.start + entry.len as usize];
            held.len() == body.len() + 1 && held[0] == tag && &held[1..] == body
        });
        found.map(|entry| entry.id)
    }

    /// Gives a number to a key that has none; it has no references yet.
    pub fn insert(&mut self, hash: u64, tag: u8, body: &[u8]) -> u32 {
        let start = self.bytes.len();
        self.bytes.push(tag);
        self.bytes.extend_from_slice(body);
        let len = (body.len() + 1) as u32;
        let id = match self.free.pop() {
            Some(id) => {
                self.spans[id as usize] = (start, len);
                id
            }
            None => {
                self.spans.push((start, len));
                self.references.push(0);
                (self.spans.len() - 1) as u32
            }
        };
        let (hasher, bytes) = (&self.hasher, &self.bytes);
        self.table
            .insert_unique(hash, Entry { start, len, id }, |entry| {
                let key = &bytes[entry.start..entry.start + entry.len as usize];
                hash_of(hasher, key)
            });
        id
    }

    /// Returns the key that a number stands for.
    #[inline]
    pub fn key(&self, id: u32) -> &[u8] {
        let (start, len) = self.spans[id as usize];
        &self.bytes[start..start + len as usize]
    }

    /// Counts one more reference.
    #[inline]
    pub fn retain(&mut self, id: u32) {
        self.references[id as usize] += 1;
    }

    /// Counts one reference less, and forgets the key if that was the last.
    pub fn release(&mut self, id: u32) {
        let count = &mut self.references[id as usize];
        *count -= 1;
        if *count == 0 {
            self.remove(id);
        }
    }

    /// Forgets a key unless there are references to it.
    pub fn remove_unused(&mut self, id: u32) {
        // A number that was removed already has no bytes, or is not there at all.
        let is_held = self.spans.get(id as usize).is_some_and(|span| span.1 != 0);
        if is_held && self.references[id as usize] == 0 {
            self.remove(id);
        }
    }

    /// Returns a bound that all numbers are below.
    pub fn end(&self) -> usize {
        self.spans.len()
    }

    /// Returns how many keys there are.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Returns whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Returns how many bytes of memory the keys take, about.
    pub fn size(&self) -> usize {
        self.bytes.len() - self.garbage + self.table.len() * KEY_OVERHEAD
    }

    fn remove(&mut self, id: u32) {
        let hash = hash_of(&self.hasher, self.key(id));
        if let Ok(entry) = self.table.find_entry(hash, |entry| entry.id == id) {
            entry.remove();
        }
        self.garbage += self.spans[id as usize].1 as usize;
        self.spans[id as usize] = (0, 0);
        self.free.push(id);
        if self.garbage > GARBAGE_MIN && self.garbage > self.bytes.len() / 2 {
            self.compact();
        }
    }

    fn compact(&mut self) {
        let mut bytes = Vec::with_capacity(self.bytes.len() - self.garbage);
        for entry in self.table.iter_mut() {
            let start = bytes.len();
            bytes.extend_from_slice(&self.bytes[entry.start..entry.start + entry.len as usize]);
            entry.start = start;
            self.spans[entry.id as usize].0 = start;
        }
        self.bytes = bytes;
        self.garbage = 0;
        if self.table.is_empty() {
            // Nothing refers to any number, so that they may begin anew.
            *self = Self {
                hasher: self.hasher.clone(),
                ..Self::default()
            };
        } else if self.table.len() < self.table.capacity() / 8 {
            let hasher = &self.hasher;
            let bytes = &self.bytes;
            self.table.shrink_to_fit(|entry| {
                hash_of(
                    hasher,
                    &bytes[entry.start..entry.start + entry.len as usize],
                )
            });
        }
    }
}

fn hash_of(hasher: &RandomState, key: &[u8]) -> u64 {
    let mut state = hasher.build_hasher();
    state.write(&key[1..]);
    state.write_u8(key[0]);
    state.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intern(keys: &mut Interner, body: &[u8]) -> u32 {
        let hash = keys.hash(b's', body);
        keys.find(hash, b's', body)
            .unwrap_or_else(|| keys.insert(hash, b's', body))
    }

    #[test]
    fn a_key_has_one_number_and_types_do_not_collide() {
        let mut keys = Interner::default();
        let seven = intern(&mut keys, b"7");
        assert_eq!(intern(&mut keys, b"7"), seven);
        let hash = keys.hash(b'j', b"7");
        assert_eq!(keys.find(hash, b'j', b"7"), None);
        let number = keys.insert(hash, b'j', b"7");
        assert_ne!(number, seven);
        assert_eq!(
            (keys.key(seven), keys.key(number)),
            (&b"s7"[..], &b"j7"[..])
        );
    }

    #[test]
    fn numbers_are_used_again_when_nothing_refers_to_them() {
        let mut keys = Interner::default();
        let a = intern(&mut keys, b"a");
        keys.retain(a);
        keys.retain(a);
        keys.release(a);
        assert_eq!(intern(&mut keys, b"a"), a);
        keys.release(a);
        assert_eq!(keys.find(keys.hash(b's', b"a"), b's', b"a"), None);
        assert_eq!(intern(&mut keys, b"b"), a);
        keys.remove_unused(a);
        keys.remove_unused(a);
        assert_eq!(keys.find(keys.hash(b's', b"b"), b's', b"b"), None);
        assert_eq!(intern(&mut keys, b"c"), a);
        assert_ne!(intern(&mut keys, b"d"), a);
    }

    #[test]
    fn the_arena_does_not_grow_as_keys_come_and_go() {
        let mut keys = Interner::default();
        let stays = intern(&mut keys, b"stays");
        keys.retain(stays);
        for round in 0..100 {
            let ids: Vec<u32> = (0..1000)
                .map(|i| intern(&mut keys, format!("key {round} {i}").as_bytes()))
                .collect();
            for &id in &ids {
                keys.retain(id);
            }
            for &id in &ids {
                keys.release(id);
            }
        }
        assert!(keys.bytes.len() < 4 * GARBAGE_MIN);
        assert!(keys.end() <= 1001);
        assert_eq!(keys.key(stays), b"sstays");
        assert_eq!(intern(&mut keys, b"stays"), stays);
    }
}
