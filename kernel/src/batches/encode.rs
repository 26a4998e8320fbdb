//! Columns to record batches.

use super::decompress;
use super::header::{ATTRIBUTES_AT, CRC_AT, HEADER_BYTES, LENGTH_END, MAGIC};
use super::lz4_frame::Compressor;
use super::varint;

/// A record: timestamp, key and value.
pub type Row<'a> = (i64, Option<&'a [u8]>, Option<&'a [u8]>);

/// A record batch with base offset 0 and no producer.
pub struct Encoded {
    pub payload: Vec<u8>,
    pub record_count: usize,
    pub max_timestamp: i64,
}

/// Encodes records without headers in order, as `ReferenceRecordBatchCodec.encode` does.
///
/// A batch is filled up to `max_batch_bytes` before compression. None if a batch is larger even
/// so, or cannot be told in the fields of the format.
pub fn encode<'a>(
    rows: impl Iterator<Item = Row<'a>> + Clone,
    max_batch_bytes: usize,
) -> Option<Vec<Encoded>> {
    let span = |(low, high): (i64, i64), (time, _, _): Row<'_>| (low.min(time), high.max(time));
    let (earliest, latest) = rows.clone().fold((0, 0), span);
    // The reference moves negative times up, and cannot where that exceeds 64 bits.
    latest.checked_sub(earliest)?;
    let mut encoded = Vec::new();
    let mut compressor = Compressor::new();
    let mut plain = PlainBatch::new();
    for row in rows {
        if !plain.add(row, max_batch_bytes) {
            encoded.push(plain.finish(&mut compressor, max_batch_bytes)?);
            // The first record of a batch is taken whatever its size.
            plain.add(row, max_batch_bytes);
        }
    }
    if plain.count > 0 {
        encoded.push(plain.finish(&mut compressor, max_batch_bytes)?);
    }
    Some(encoded)
}

/// A batch that is being filled.
struct PlainBatch {
    /// Room for the header, then the records.
    bytes: Vec<u8>,
    count: usize,
    first_timestamp: i64,
    max_timestamp: i64,
}

impl PlainBatch {
    fn new() -> Self {
        let bytes = vec![0; HEADER_BYTES];
        Self {
            bytes,
            count: 0,
            first_timestamp: 0,
            max_timestamp: 0,
        }
    }

    /// Adds a record; returns false if it would make the batch too large.
    #[inline(always)]
    fn add(&mut self, (timestamp, key, value): Row<'_>, max_batch_bytes: usize) -> bool {
        if self.count == 0 {
            self.first_timestamp = timestamp;
            self.max_timestamp = timestamp;
        }
        // Attributes and the number of headers are a byte each.
        let timestamp_delta = timestamp - self.first_timestamp;
        let index = self.count as i64;
        let len = 2
            + varint::size(timestamp_delta)
            + varint::size(index)
            + bytes_size(key)
            + bytes_size(value);
        let size = varint::size(len as i64) + len;
        // Not filled to the last byte: so it is in the reference.
        if self.count > 0 && self.bytes.len() + size >= max_batch_bytes {
            return false;
        }
        let bytes = &mut self.bytes;
        bytes.reserve(size);
        varint::write(bytes, len as i64);
        bytes.push(0);
        varint::write(bytes, timestamp_delta);
        varint::write(bytes, index);
        write_bytes(bytes, key);
        write_bytes(bytes, value);
        bytes.push(0);
        self.max_timestamp = self.max_timestamp.max(timestamp);
        self.count += 1;
        true
    }

    /// Returns the batch, compressed where that saves anything, and begins another.
    fn finish(&mut self, compressor: &mut Compressor, max_batch_bytes: usize) -> Option<Encoded> {
        let plain_len = self.bytes.len();
        let mut payload = Vec::with_capacity(plain_len / 2);
        payload.resize(HEADER_BYTES, 0);
        compressor.compress(&self.bytes[HEADER_BYTES..], &mut payload);
        let mut codec = decompress::LZ4;
        if payload.len() >= plain_len {
            payload.clear();
            payload.extend_from_slice(&self.bytes);
            codec = decompress::NONE;
        }
        if payload.len() > max_batch_bytes {
            return None;
        }
        self.write_header(&mut payload, codec)?;
        let encoded = Encoded {
            payload,
            record_count: self.count,
            max_timestamp: self.max_timestamp,
        };
        self.bytes.truncate(HEADER_BYTES);
        self.count = 0;
        Some(encoded)
    }

    fn write_header(&self, payload: &mut [u8], codec: u8) -> Option<()> {
        let count = i32::try_from(self.count).ok()?;
        let length = i32::try_from(payload.len() - LENGTH_END).ok()?;
        let none = -1i64;
        let mut header = Vec::with_capacity(HEADER_BYTES);
        header.extend_from_slice(&0i64.to_be_bytes()); // base offset
        header.extend_from_slice(&length.to_be_bytes());
        header.extend_from_slice(&(none as i32).to_be_bytes()); // leader's epoch
        header.push(MAGIC);
        header.extend_from_slice(&[0; 4]); // CRC, below
        header.extend_from_slice(&[0, codec]); // attributes
        header.extend_from_slice(&(count - 1).to_be_bytes()); // last offset
        header.extend_from_slice(&self.first_timestamp.to_be_bytes());
        header.extend_from_slice(&self.max_timestamp.to_be_bytes());
        header.extend_from_slice(&none.to_be_bytes()); // producer
        header.extend_from_slice(&(none as i16).to_be_bytes()); // producer's epoch
        header.extend_from_slice(&(none as i32).to_be_bytes()); // sequence
        header.extend_from_slice(&count.to_be_bytes());
        payload[..HEADER_BYTES].copy_from_slice(&header);
        let crc = crc32c::crc32c(&payload[ATTRIBUTES_AT..]);
        payload[CRC_AT..ATTRIBUTES_AT].copy_from_slice(&crc.to_be_bytes());
        Some(())
    }
}

#[inline(always)]
fn bytes_size(bytes: Option<&[u8]>) -> usize {
    bytes.map_or(1, |bytes| varint::size(bytes.len() as i64) + bytes.len())
}

#[inline(always)]
fn write_bytes(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => {
            varint::write(out, bytes.len() as i64);
            out.extend_from_slice(bytes);
        }
        None => varint::write(out, -1),
    }
}
