//! Record batches to columns.

use std::collections::HashSet;

use arrow_buffer::Buffer;

use super::decompress::decompress;
use super::header::{self, BatchHeader, HEADER_BYTES};
use super::varint;
use crate::column::{Bytes, ViewBuilder};

/// Largest body of a batch: columns refer to their bytes by 31 bits.
pub const BUFFER_BYTES_MAX: usize = 1 << 30;
/// A further buffer is begun beyond, so that what it holds and one body are below 2 GiB.
const BUFFER_BYTES_FULL: usize = 512 << 20;

/// How many times larger documents are than their compressed form, about: room made beforehand, that
/// is not written to, spares moving what has been decompressed.
const EXPECTED_RATIO: usize = 4;

/// Offset of the type in the key of a control record, behind the version.
const CONTROL_TYPE_AT: usize = 2;
const CONTROL_ABORT: [u8; 2] = [0, 0];

/// One header of a record: name and value, each a part of a buffer.
pub struct Header {
    /// Index of the record.
    pub record: usize,
    buffer: usize,
    name: (usize, usize),
    value: Option<(usize, usize)>,
}

/// The records of a chunk, one column for each of their parts.
pub struct Records {
    pub offsets: Vec<i64>,
    /// Milliseconds; -1 where a record has none.
    pub timestamps: Vec<i64>,
    pub keys: Bytes,
    pub values: Bytes,
    headers: Vec<Header>,
    buffers: Vec<Buffer>,
}

impl Records {
    /// Returns all headers, in order of their records.
    pub fn headers(&self) -> &[Header] {
        &self.headers
    }

    /// Returns name and value of a header.
    pub fn header(&self, header: &Header) -> (&str, Option<&[u8]>) {
        let buffer = self.buffers[header.buffer].as_slice();
        let part = |(start, len): (usize, usize)| &buffer[start..start + len];
        let name = std::str::from_utf8(part(header.name)).expect("names are checked");
        (name, header.value.map(part))
    }

    /// Drops the records at the front that are below `offset`.
    fn drop_below(&mut self, offset: i64) {
        let count = self.offsets.partition_point(|&each| each < offset);
        if count == 0 {
            return;
        }
        self.offsets.drain(..count);
        self.timestamps.drain(..count);
        self.keys = self.keys.slice(count, self.keys.len() - count);
        self.values = self.values.slice(count, self.values.len() - count);
        self.headers.retain_mut(|header| {
            let is_kept = header.record >= count;
            header.record = header.record.wrapping_sub(count);
            is_kept
        });
    }
}

/// Decodes the batches of a chunk, as `ReferenceRecordBatchCodec.decode` does.
///
/// `aborted` are producers and first offsets of aborted transactions; records below `offset` are
/// left out. None if there is anything that is not certain, damage above all.
pub fn decode(
    payload: &[u8],
    offset: i64,
    aborted: &[(i64, i64)],
    body_bytes_max: usize,
) -> Option<Records> {
    let mut columns = Columns::default();
    let room = payload.len().saturating_mul(EXPECTED_RATIO);
    columns.bodies.reserve(room.min(BUFFER_BYTES_FULL));
    columns.reserve(header::record_counts(payload).min(payload.len()));
    let mut aborted = AbortedTransactions::new(aborted);
    let mut rest = payload;
    let mut expected = 0;
    while !rest.is_empty() {
        let header = BatchHeader::read(rest)?;
        let (batch, behind) = rest.split_at_checked(header.size)?;
        if header.base_offset < expected {
            return None;
        }
        expected = header.next_offset;
        rest = behind;
        let is_aborted = aborted.covers(&header);
        if header.next_offset <= offset || header.record_count == 0 {
            continue;
        }
        let body = &batch[HEADER_BYTES..];
        if header.is_control() {
            let mut control = Columns::default();
            control.add(&header, body, body_bytes_max)?;
            if is_abort_marker(&control.finish()) {
                aborted.end(header.producer_id);
            }
        } else if !is_aborted {
            columns.add(&header, body, body_bytes_max)?;
        }
    }
    let mut records = columns.finish();
    records.drop_below(offset);
    Some(records)
}

fn is_abort_marker(control: &Records) -> bool {
    let key = control.keys.get(0);
    key.and_then(|key| key.get(CONTROL_TYPE_AT..CONTROL_TYPE_AT + 2)) == Some(&CONTROL_ABORT)
}

/// Tells which batches belong to aborted transactions, going forwards through a chunk.
struct AbortedTransactions {
    /// First offset and producer, latest first.
    ahead: Vec<(i64, i64)>,
    open: HashSet<i64>,
}

impl AbortedTransactions {
    fn new(aborted: &[(i64, i64)]) -> Self {
        let mut ahead: Vec<_> = aborted
            .iter()
            .map(|&(producer, first)| (first, producer))
            .collect();
        ahead.sort_unstable_by(|one, other| other.cmp(one));
        Self {
            ahead,
            open: HashSet::new(),
        }
    }

    /// Whether a transactional batch is to be left out. Call it for each batch, in order.
    fn covers(&mut self, header: &BatchHeader) -> bool {
        while let Some((_, producer)) = self.ahead.pop_if(|(first, _)| *first < header.next_offset)
        {
            self.open.insert(producer);
        }
        header.is_transactional() && self.open.contains(&header.producer_id)
    }

    /// Notes the abort marker of a producer: its later batches are another transaction's.
    fn end(&mut self, producer: i64) {
        self.open.remove(&producer);
    }
}

/// What has been decoded so far.
#[derive(Default)]
struct Columns {
    offsets: Vec<i64>,
    timestamps: Vec<i64>,
    keys: ViewBuilder,
    values: ViewBuilder,
    headers: Vec<Header>,
    buffers: Vec<Buffer>,
    /// What will be the next buffer: plain bodies of batches, one behind the other.
    bodies: Vec<u8>,
}

impl Columns {
    /// Makes room for records.
    fn reserve(&mut self, count: usize) {
        self.offsets.reserve(count);
        self.timestamps.reserve(count);
        self.keys.reserve(count);
        self.values.reserve(count);
    }

    /// Adds the records of one batch.
    fn add(&mut self, header: &BatchHeader, body: &[u8], body_bytes_max: usize) -> Option<()> {
        if body.len() > BUFFER_BYTES_MAX {
            return None;
        }
        if self.bodies.len() > BUFFER_BYTES_FULL {
            self.end_buffer();
        }
        let mut bodies = std::mem::take(&mut self.bodies);
        let start = bodies.len();
        let bound = body_bytes_max.min(BUFFER_BYTES_MAX);
        decompress(header.codec(), body, &mut bodies, bound)?;
        self.add_records(header, &bodies, start)?;
        self.bodies = bodies;
        Some(())
    }

    /// Adds the records in `bodies` from `start` on.
    fn add_records(&mut self, header: &BatchHeader, bodies: &[u8], start: usize) -> Option<()> {
        // The smallest record has 7 bytes: a count that lies costs no memory.
        let count = header.record_count;
        if count > (bodies.len() - start) / 7 {
            return None;
        }
        self.reserve(count);
        let is_dense = header.is_dense();
        let mut expected = header.base_offset;
        let mut at = start;
        for _ in 0..count {
            let record = self.add_record(header, bodies, &mut at)?;
            // In order and inside of the batch, or the position would go astray.
            let offset = if is_dense { expected } else { record };
            if offset < expected || offset >= header.next_offset {
                return None;
            }
            expected = offset + 1;
            self.offsets.push(offset);
        }
        (at == bodies.len()).then_some(())
    }

    /// Adds the record at `at`, but for its offset, and returns that.
    #[inline(always)]
    fn add_record(&mut self, header: &BatchHeader, bodies: &[u8], at: &mut usize) -> Option<i64> {
        let len = usize::try_from(varint::read(bodies, at)?).ok()?;
        let end = at.checked_add(len)?;
        // Attributes have no meaning yet, and the reference reads those from 0x80 on as more bytes.
        if *bodies.get(*at)? >= 0x80 {
            return None;
        }
        *at += 1;
        let timestamp_delta = varint::read(bodies, at)?;
        let timestamp = if header.has_append_time() {
            header.max_timestamp
        } else {
            header.first_timestamp.checked_add(timestamp_delta)?
        };
        let offset = header.base_offset.checked_add(varint::read(bodies, at)?)?;
        push(&mut self.keys, bodies, bytes(bodies, at)?);
        push(&mut self.values, bodies, bytes(bodies, at)?);
        let header_count = varint::read(bodies, at)?;
        if header_count != 0 {
            self.add_headers(bodies, at, header_count)?;
        }
        self.timestamps.push(timestamp);
        (*at == end).then_some(offset)
    }

    #[cold]
    fn add_headers(&mut self, bodies: &[u8], at: &mut usize, count: i64) -> Option<()> {
        if count < 0 {
            return None;
        }
        for _ in 0..count {
            let name = bytes(bodies, at)??;
            std::str::from_utf8(&bodies[name.0..name.0 + name.1]).ok()?;
            let value = bytes(bodies, at)?;
            self.headers.push(Header {
                record: self.timestamps.len(),
                buffer: self.buffers.len(),
                name,
                value,
            });
        }
        Some(())
    }

    fn end_buffer(&mut self) {
        let buffer = Buffer::from_vec(std::mem::take(&mut self.bodies));
        self.keys.add_buffer(buffer.clone());
        self.values.add_buffer(buffer.clone());
        self.buffers.push(buffer);
    }

    fn finish(mut self) -> Records {
        self.end_buffer();
        Records {
            offsets: self.offsets,
            timestamps: self.timestamps,
            keys: self.keys.finish(),
            values: self.values.finish(),
            headers: self.headers,
            buffers: self.buffers,
        }
    }
}

#[inline(always)]
fn push(column: &mut ViewBuilder, bodies: &[u8], part: Option<(usize, usize)>) {
    match part {
        Some((start, len)) => column.push_ahead(bodies, start, len),
        None => column.push_null(),
    }
}

/// Reads bytes with their length before, and returns where they are; `Some(None)` is a null.
#[inline(always)]
fn bytes(data: &[u8], at: &mut usize) -> Option<Option<(usize, usize)>> {
    let len = varint::read(data, at)?;
    if len == -1 {
        return Some(None);
    }
    let len = usize::try_from(len).ok()?;
    let start = *at;
    let end = start.checked_add(len)?;
    if end > data.len() {
        return None;
    }
    *at = end;
    Some(Some((start, len)))
}
