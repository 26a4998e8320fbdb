//! JSON documents to typed columns of a declared schema, and columns to JSON documents.
//!
//! `project` reads and `write` writes. What `project` is not certain of (an error, a number of odd
//! size, a key that is there twice) it leaves out and names: those documents are the reference's.

mod base64;
mod keys;
pub mod number;
pub mod project;
pub mod scan;
pub mod schema;
pub mod string;
mod text;
mod times;
mod values;
pub mod write;
