//! Keyed window aggregates: one row of accumulators per (slice, key).
//!
//! `keys` numbers the keys and `key_column` makes a column of them again, `slices` finds the slot of
//! a key in a slice, `slots` holds what `accumulators` and `values` keep there, and `rows` and
//! `blocks` write and read it as bytes. `table` puts these together; `update` adds batches to it,
//! `stored` rows of the store, and `reading` merges the slices of windows.

pub mod accumulators;
pub mod blocks;
pub mod input;
pub mod key_column;
pub mod keys;
pub mod reading;
pub mod rows;
pub mod slices;
pub mod slots;
pub mod stored;
pub mod table;
pub mod update;
pub mod values;

/// Stands for no slot and for no id.
pub const NONE: u32 = u32::MAX;
