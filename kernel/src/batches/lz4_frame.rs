//! Frames of lz4 blocks: the format that Kafka's lz4 batches are in.
//!
//! Whatever the library of the reference would look at twice (dictionaries, skippable frames,
//! bytes behind the frame) is not read here.

use lz4_flex::block::{self, CompressTable};

const MAGIC: u32 = 0x184D_2204;
const VERSION: u8 = 0b0100_0000;
const VERSION_MASK: u8 = 0b1100_0000;
const IS_INDEPENDENT: u8 = 0b0010_0000;
const HAS_BLOCK_CHECKSUMS: u8 = 0b0001_0000;
const HAS_CONTENT_SIZE: u8 = 0b0000_1000;
const HAS_CONTENT_CHECKSUM: u8 = 0b0000_0100;
const UNREAD_FLAGS: u8 = 0b0000_0011; // reserved, and dictionary
const IS_STORED: u32 = 1 << 31;

/// How far back a match can reach.
const WINDOW_BYTES: usize = 64 << 10;
/// Most that is cleared for a block: those that may have 4 MiB mostly have far less.
const CLEARED_BYTES_MAX: usize = 64 << 10;
/// Each block ends with at least that many literals; other readers insist.
const LAST_LITERALS: usize = 5;

/// Largest block written; the size that all readers of Kafka have at hand.
const BLOCK_BYTES: usize = 64 << 10;
/// Magic, flags (independent blocks, nothing else), block size (64 KiB), checksum of the last two.
const PREAMBLE: [u8; 7] = [0x04, 0x22, 0x4D, 0x18, VERSION | IS_INDEPENDENT, 0x40, 0x82];

/// Appends the content of a frame to `out`; None if it is longer than `max` or not certain.
pub(super) fn decompress(frame: &[u8], out: &mut Vec<u8>, max: usize) -> Option<()> {
    let mut input = Input { rest: frame };
    let descriptor = Descriptor::read(&mut input)?;
    let start = out.len();
    match descriptor.content_size {
        Some(size) if size > max as u64 => return None,
        Some(size) => out.reserve(size as usize),
        None => out.reserve(frame.len().saturating_mul(4).min(max)),
    }
    loop {
        let word = input.u32()?;
        if word == 0 {
            break;
        }
        let block = input.take((word & !IS_STORED) as usize)?;
        if block.is_empty() || block.len() > descriptor.block_bytes_max {
            return None;
        }
        if descriptor.has_block_checksums && input.u32()? != xxh32(block) {
            return None;
        }
        if word & IS_STORED != 0 {
            out.extend_from_slice(block);
        } else {
            decompress_block(block, &descriptor, out, start)?;
        }
        if out.len() - start > max {
            return None;
        }
    }
    if descriptor.has_content_checksum && input.u32()? != xxh32(&out[start..]) {
        return None;
    }
    let has_size = descriptor
        .content_size
        .is_none_or(|size| size == (out.len() - start) as u64);
    (input.rest.is_empty() && has_size).then_some(())
}

fn decompress_block(
    block: &[u8],
    descriptor: &Descriptor,
    out: &mut Vec<u8>,
    start: usize,
) -> Option<()> {
    let room = descriptor
        .block_bytes_max
        .min(block.len().saturating_mul(255));
    let at = out.len();
    if room <= CLEARED_BYTES_MAX {
        // To where it stays. Clearing that first costs less than moving it afterwards.
        out.resize(at + room, 0);
        let (before, plain) = out.split_at_mut(at);
        let len = if descriptor.is_independent {
            block::decompress_into(block, plain).ok()?
        } else {
            block::decompress_into_with_dict(block, plain, window(before, start)).ok()?
        };
        out.truncate(at + len);
    } else {
        let plain = if descriptor.is_independent {
            block::decompress(block, room).ok()?
        } else {
            block::decompress_with_dict(block, room, window(out, start)).ok()?
        };
        out.extend_from_slice(&plain);
    }
    let plain = &out[at..];
    let literals = plain.len().min(LAST_LITERALS);
    block
        .ends_with(&plain[plain.len() - literals..])
        .then_some(())
}

/// Returns what a block of linked ones may refer to, of the content that begins at `start`.
fn window(out: &[u8], start: usize) -> &[u8] {
    &out[out.len().saturating_sub(WINDOW_BYTES).max(start)..]
}

struct Descriptor {
    block_bytes_max: usize,
    is_independent: bool,
    has_block_checksums: bool,
    has_content_checksum: bool,
    content_size: Option<u64>,
}

impl Descriptor {
    fn read(input: &mut Input<'_>) -> Option<Self> {
        if input.u32()? != MAGIC {
            return None;
        }
        let start = input.rest;
        let &[flags, sizes] = input.take(2)? else {
            return None;
        };
        if flags & VERSION_MASK != VERSION || flags & UNREAD_FLAGS != 0 {
            return None;
        }
        let block_bytes_max = match sizes {
            0x40 => 64 << 10,
            0x50 => 256 << 10,
            0x60 => 1 << 20,
            0x70 => 4 << 20,
            _ => return None,
        };
        let content_size = if flags & HAS_CONTENT_SIZE != 0 {
            Some(u64::from_le_bytes(input.take(8)?.try_into().ok()?))
        } else {
            None
        };
        let described = &start[..start.len() - input.rest.len()];
        let &[checksum] = input.take(1)? else {
            return None;
        };
        (checksum == (xxh32(described) >> 8) as u8).then_some(Self {
            block_bytes_max,
            is_independent: flags & IS_INDEPENDENT != 0,
            has_block_checksums: flags & HAS_BLOCK_CHECKSUMS != 0,
            has_content_checksum: flags & HAS_CONTENT_CHECKSUM != 0,
            content_size,
        })
    }
}

struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }
}

/// Writes frames, and keeps its memory from one to the next.
pub(super) struct Compressor {
    table: CompressTable,
    room: Vec<u8>,
}

impl Compressor {
    pub fn new() -> Self {
        let room = vec![0; block::get_maximum_output_size(BLOCK_BYTES)];
        Self {
            table: CompressTable::large(),
            room,
        }
    }

    /// Appends a frame with the content `plain` to `out`.
    pub fn compress(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&PREAMBLE);
        for block in plain.chunks(BLOCK_BYTES) {
            match block::compress_into_with_table(block, &mut self.room, &mut self.table) {
                Ok(len) if len < block.len() => {
                    out.extend_from_slice(&(len as u32).to_le_bytes());
                    out.extend_from_slice(&self.room[..len]);
                }
                _ => {
                    out.extend_from_slice(&(block.len() as u32 | IS_STORED).to_le_bytes());
                    out.extend_from_slice(block);
                }
            }
        }
        out.extend_from_slice(&0u32.to_le_bytes());
    }
}

/// Returns the xxHash of 32 bits, seed 0, with which frames are checked.
fn xxh32(data: &[u8]) -> u32 {
    const PRIMES: [u32; 5] = [
        0x9E37_79B1,
        0x85EB_CA77,
        0xC2B2_AE3D,
        0x27D4_EB2F,
        0x1656_67B1,
    ];
    let word = |bytes: &[u8]| u32::from_le_bytes(*bytes.first_chunk().expect("4 bytes"));
    let mut stripes = data.chunks_exact(16);
    let mut hash = if data.len() < 16 {
        PRIMES[4]
    } else {
        let mut lanes = [
            PRIMES[0].wrapping_add(PRIMES[1]),
            PRIMES[1],
            0,
            0u32.wrapping_sub(PRIMES[0]),
        ];
        for stripe in stripes.by_ref() {
            for (lane, bytes) in lanes.iter_mut().zip(stripe.chunks_exact(4)) {
                *lane = lane
                    .wrapping_add(word(bytes).wrapping_mul(PRIMES[1]))
                    .rotate_left(13)
                    .wrapping_mul(PRIMES[0]);
            }
        }
        let turns = [1, 7, 12, 18];
        lanes
            .iter()
            .zip(turns)
            .fold(0, |sum, (lane, by)| lane.rotate_left(by).wrapping_add(sum))
    };
    hash = hash.wrapping_add(data.len() as u32);
    let mut words = stripes.remainder().chunks_exact(4);
    for bytes in words.by_ref() {
        hash = hash.wrapping_add(word(bytes).wrapping_mul(PRIMES[2]));
        hash = hash.rotate_left(17).wrapping_mul(PRIMES[3]);
    }
    for &byte in words.remainder() {
        hash = hash.wrapping_add(u32::from(byte).wrapping_mul(PRIMES[4]));
        hash = hash.rotate_left(11).wrapping_mul(PRIMES[0]);
    }
    hash = (hash ^ (hash >> 15)).wrapping_mul(PRIMES[1]);
    hash = (hash ^ (hash >> 13)).wrapping_mul(PRIMES[2]);
    hash ^ (hash >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_the_specification() {
        assert_eq!(xxh32(b""), 0x02CC_5D05);
        assert_eq!(xxh32(b"abc"), 0x32D1_53FF);
        assert_eq!(
            xxh32(b"Nobody inspects the spammish repetition"),
            0xE229_3B2F
        );
    }

    #[test]
    fn what_is_written_is_read() {
        let text: Vec<u8> = (0..200_000u32)
            .flat_map(|i| (i / 7).to_le_bytes())
            .collect();
        for plain in [&text[..], &text[..5], b""] {
            let mut frame = Vec::new();
            Compressor::new().compress(plain, &mut frame);
            let mut out = b"before".to_vec();
            assert_eq!(decompress(&frame, &mut out, plain.len()), Some(()));
            assert_eq!(&out[6..], plain);
            if !plain.is_empty() {
                assert_eq!(decompress(&frame, &mut Vec::new(), plain.len() - 1), None);
            }
            for cut in 0..frame.len().min(100) {
                assert_eq!(decompress(&frame[..cut], &mut Vec::new(), 1 << 30), None);
            }
        }
    }
}
