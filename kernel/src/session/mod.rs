//! Keyed sessions: spans of activity that end with a silence, with a row of accumulators each.
//!
//! `table` knows the open sessions of keys and what changed; `update` adds batches to it, and
//! `ending` takes out those that have ended, as `timers` tells. `places` holds the accumulators,
//! which are those of window tables, and `rows` writes and reads sessions as bytes. The
//! specification, and what all that is not certain here is left to, is `operators/object_sessions.py`.

pub mod ending;
pub mod places;
pub mod rows;
pub mod table;
pub mod timers;
pub mod update;
