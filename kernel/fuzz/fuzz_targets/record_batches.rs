//! Decodes any bytes as record batches: once as they are, once as batches whose CRC is right.

#![no_main]

use libfuzzer_sys::fuzz_target;
use riverrun_kernel::batches::{ATTRIBUTES_AT, CRC_AT, HEADER_BYTES, decode};

const BODY_BYTES_MAX: usize = 1 << 20;
const LENGTH_AT: usize = 8;
const LENGTH_END: usize = 12;
const MAGIC_AT: usize = 16;

fuzz_target!(|data: &[u8]| {
    read(data);
    let mut payload = data.to_vec();
    make_batches(&mut payload);
    read(&payload);
});

/// Decodes a payload and looks at everything that comes out.
fn read(payload: &[u8]) {
    let Some(records) = decode(payload, 3, &[(7, 0), (8, 5)], BODY_BYTES_MAX) else {
        return;
    };
    let count = records.offsets.len();
    assert!(records.offsets.is_sorted_by(|one, next| one < next));
    assert!(records.offsets.first().is_none_or(|&first| first >= 3));
    assert_eq!(records.timestamps.len(), count);
    for column in [&records.keys, &records.values] {
        assert_eq!(
            (0..column.len()).filter_map(|i| column.get(i)).count() + column.null_count(),
            count
        );
    }
    for header in records.headers() {
        assert!(header.record < count);
        let (name, value) = records.header(header);
        assert!(name.len() + value.map_or(0, <[u8]>::len) < usize::MAX);
    }
}

/// Makes batches of what may be any bytes: lengths that fit, the right format, the right CRC.
fn make_batches(payload: &mut [u8]) {
    let mut rest = payload;
    while rest.len() >= HEADER_BYTES {
        let told = u32::from_be_bytes(*rest[LENGTH_AT..].first_chunk().expect("4 bytes"));
        let whole = rest.len();
        // Of 16 bits at most, so that there are often several batches.
        let size = (told as usize % (1 << 16) + LENGTH_END).clamp(HEADER_BYTES, whole);
        let (batch, behind) = rest.split_at_mut(size);
        batch[LENGTH_AT..LENGTH_END].copy_from_slice(&((size - LENGTH_END) as u32).to_be_bytes());
        batch[MAGIC_AT] = 2;
        let crc = crc32c::crc32c(&batch[ATTRIBUTES_AT..]);
        batch[CRC_AT..ATTRIBUTES_AT].copy_from_slice(&crc.to_be_bytes());
        rest = behind;
    }
}
