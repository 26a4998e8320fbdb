//! Headers of record batches, see `engine/batch_header.py`.

/// Size of a batch without records.
pub const HEADER_BYTES: usize = 61;
/// Where the CRC-32C is.
pub const CRC_AT: usize = 17;
/// Where the attributes are; the CRC covers everything from there.
pub const ATTRIBUTES_AT: usize = 21;
/// Base offset and length: what the length field does not count.
pub(super) const LENGTH_END: usize = 12;
/// The one format there is; older ones are refused.
pub(super) const MAGIC: u8 = 2;

const LENGTH_AT: usize = 8;
const MAGIC_AT: usize = 16;
const RECORD_COUNT_AT: usize = 57;
const CODEC_MASK: u8 = 0x07;
const IS_APPEND_TIME: u8 = 0x08;
const IS_TRANSACTIONAL: u8 = 0x10;
const IS_CONTROL: u8 = 0x20;

/// What decoding needs of a header.
pub(super) struct BatchHeader {
    /// Size of the whole batch.
    pub size: usize,
    pub base_offset: i64,
    /// The offset after the last record; later than the base offset.
    pub next_offset: i64,
    pub first_timestamp: i64,
    pub max_timestamp: i64,
    pub producer_id: i64,
    pub record_count: usize,
    flags: u8,
}

impl BatchHeader {
    /// Reads the header at the front of `data`, and checks length and CRC of the batch.
    pub fn read(data: &[u8]) -> Option<Self> {
        let header: &[u8; HEADER_BYTES] = data.first_chunk()?;
        let length = usize::try_from(i32::from_be_bytes(field(header, LENGTH_AT))).ok()?;
        let size = length.checked_add(LENGTH_END)?;
        let last_offset_delta = i32::from_be_bytes(field(header, 23));
        if header[MAGIC_AT] != MAGIC || size < HEADER_BYTES || last_offset_delta < 0 {
            return None;
        }
        let crc = u32::from_be_bytes(field(header, CRC_AT));
        if crc32c::crc32c(data.get(ATTRIBUTES_AT..size)?) != crc {
            return None;
        }
        let base_offset = i64::from_be_bytes(field(header, 0));
        Some(Self {
            size,
            base_offset,
            next_offset: base_offset.checked_add(i64::from(last_offset_delta) + 1)?,
            first_timestamp: i64::from_be_bytes(field(header, 27)),
            max_timestamp: i64::from_be_bytes(field(header, 35)),
            producer_id: i64::from_be_bytes(field(header, 43)),
            record_count: usize::try_from(i32::from_be_bytes(field(header, RECORD_COUNT_AT)))
                .ok()?,
            // The upper byte of the attributes has no meaning yet.
            flags: header[ATTRIBUTES_AT + 1],
        })
    }

    /// The number of the compression codec.
    pub fn codec(&self) -> u8 {
        self.flags & CODEC_MASK
    }

    /// Whether all records have the time at which the broker appended them.
    pub fn has_append_time(&self) -> bool {
        self.flags & IS_APPEND_TIME != 0
    }

    pub fn is_transactional(&self) -> bool {
        self.flags & IS_TRANSACTIONAL != 0
    }

    /// Whether it holds a commit or abort marker instead of records.
    pub fn is_control(&self) -> bool {
        self.flags & IS_CONTROL != 0
    }

    /// Whether no offset within the batch is missing, so that the records need not tell theirs.
    pub fn is_dense(&self) -> bool {
        usize::try_from(self.next_offset.wrapping_sub(self.base_offset)) == Ok(self.record_count)
    }
}

/// Returns how many records the batches in `data` claim to have, as far as their headers go.
///
/// Nothing is checked: it says how much room to make, and what makes room limits that.
pub(super) fn record_counts(mut data: &[u8]) -> usize {
    let mut counts = 0usize;
    while let Some(header) = data.first_chunk::<HEADER_BYTES>() {
        let length = i32::from_be_bytes(field(header, LENGTH_AT));
        let count = i32::from_be_bytes(field(header, RECORD_COUNT_AT));
        counts = counts.saturating_add(usize::try_from(count).unwrap_or(0));
        let size = usize::try_from(length)
            .unwrap_or(0)
            .saturating_add(LENGTH_END);
        data = data.get(size..).unwrap_or_default();
    }
    counts
}

fn field<const N: usize>(header: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    *header[at..]
        .first_chunk()
        .expect("all fields are inside of the header")
}
