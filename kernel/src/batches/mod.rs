//! Kafka record batches (format v2) to columns of bytes and back.
//!
//! The specification is `engine/reference/record_batches.py`. Whatever is not certain to be read
//! or written as it does there gives `None`, and the reference is then asked instead: for damaged
//! and exotic batches, and for all errors.

mod decode;
mod decompress;
mod encode;
mod header;
mod lz4_frame;
mod varint;

pub use decode::{BUFFER_BYTES_MAX, Header, Records, decode};
pub use encode::{Encoded, Row, encode};
pub use header::{ATTRIBUTES_AT, CRC_AT, HEADER_BYTES};
