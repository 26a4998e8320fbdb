//! Decompression of record batches, with a bound on what comes out.

use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};

use flate2::{Crc, Decompress, FlushDecompress, Status};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::lz4_frame;

pub(super) const NONE: u8 = 0;
const GZIP: u8 = 1;
const SNAPPY: u8 = 2;
pub(super) const LZ4: u8 = 3;
const ZSTD: u8 = 4;

const STEP_BYTES: usize = 64 << 10;

/// Appends the plain form of `body` to `out`; None if it is longer than `max` or not certain.
pub(super) fn decompress(codec: u8, body: &[u8], out: &mut Vec<u8>, max: usize) -> Option<()> {
    match codec {
        NONE => {
            out.extend_from_slice(body);
            Some(())
        }
        GZIP => gzip(body, out, max),
        SNAPPY => snappy(body, out, max),
        LZ4 => lz4_frame::decompress(body, out, max),
        // The one library here that is young: should it panic, the reference is asked.
        ZSTD => catch_unwind(AssertUnwindSafe(|| zstd(body, out, max))).ok()?,
        _ => None,
    }
}

/// Reads one gzip member without optional fields, which is what producers write.
fn gzip(body: &[u8], out: &mut Vec<u8>, max: usize) -> Option<()> {
    let (&[0x1F, 0x8B, 8, 0, ..], rest) = body.split_at_checked(10)? else {
        return None;
    };
    let (deflated, trailer) = rest
        .split_last_chunk::<8>()
        .map(|(front, back)| (front, *back))?;
    let start = out.len();
    let mut stream = Decompress::new(false);
    loop {
        out.reserve(STEP_BYTES.max(body.len()).min(max.saturating_add(1)));
        let read = usize::try_from(stream.total_in()).ok()?;
        let written = out.len();
        let status = stream
            .decompress_vec(deflated.get(read..)?, out, FlushDecompress::None)
            .ok()?;
        if out.len() - start > max {
            return None;
        }
        if status == Status::StreamEnd {
            break;
        }
        if out.len() == written && stream.total_in() == read as u64 {
            return None;
        }
    }
    let mut crc = Crc::new();
    crc.update(&out[start..]);
    let [c0, c1, c2, c3, s0, s1, s2, s3] = trailer;
    let is_whole = stream.total_in() == deflated.len() as u64
        && crc.sum() == u32::from_le_bytes([c0, c1, c2, c3])
        && crc.amount() == u32::from_le_bytes([s0, s1, s2, s3]);
    is_whole.then_some(())
}

const XERIAL_MAGIC: &[u8] = b"\x82SNAPPY\x00";
/// The magic, then two versions.
const XERIAL_HEADER_BYTES: usize = 16;

/// Reads a block, or several in the framing of Java's xerial library: each with its size before.
fn snappy(body: &[u8], out: &mut Vec<u8>, max: usize) -> Option<()> {
    if !body.starts_with(XERIAL_MAGIC) {
        return snappy_block(body, out, max);
    }
    let start = out.len();
    let mut rest = body.get(XERIAL_HEADER_BYTES..)?;
    while !rest.is_empty() {
        let (size, behind) = rest.split_first_chunk::<4>()?;
        let size = usize::try_from(i32::from_be_bytes(*size)).ok()?;
        let (block, behind) = behind.split_at_checked(size)?;
        let room = max.checked_sub(out.len() - start)?;
        snappy_block(block, out, room)?;
        rest = behind;
    }
    Some(())
}

fn snappy_block(block: &[u8], out: &mut Vec<u8>, room: usize) -> Option<()> {
    let size = snap::raw::decompress_len(block).ok()?;
    // A copy of 64 bytes takes 3, so a larger claim is damage, and need not cost memory.
    if size > room || size > block.len().saturating_mul(32) {
        return None;
    }
    let start = out.len();
    out.resize(start + size, 0);
    let written = snap::raw::Decoder::new()
        .decompress(block, &mut out[start..])
        .ok()?;
    (written == size).then_some(())
}

/// In the byte behind the magic of a zstd frame: any of them says that its size is told.
const ZSTD_HAS_SIZE: u8 = 0b1110_0000;

/// Reads one zstd frame.
fn zstd(body: &[u8], out: &mut Vec<u8>, max: usize) -> Option<()> {
    let start = out.len();
    let mut rest = body;
    let mut decoder = FrameDecoder::new();
    decoder.init(&mut rest).ok()?;
    let size = (body.get(4)? & ZSTD_HAS_SIZE != 0).then(|| decoder.content_size());
    while !decoder.is_finished() {
        decoder
            .decode_blocks(&mut rest, BlockDecodingStrategy::UptoBytes(STEP_BYTES))
            .ok()?;
        let room = (max - (out.len() - start)) as u64 + 1;
        (&mut decoder).take(room).read_to_end(out).ok()?;
        if out.len() - start > max {
            return None;
        }
    }
    let is_whole = rest.is_empty()
        && decoder.can_collect() == 0
        && size.is_none_or(|size| size == (out.len() - start) as u64)
        && decoder
            .get_checksum_from_data()
            .is_none_or(|told| decoder.get_calculated_checksum() == Some(told));
    is_whole.then_some(())
}
