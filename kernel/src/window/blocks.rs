//! Blocks of rows, as `riverrun.state.RowBlock` has them.
//!
//! `rows | prefix length | prefix | key width | value width | key lengths | value lengths | keys |
//! values`, numbers being 4 bytes, little endian. A width that is not the same for all is
//! `VARYING`, and only then there are lengths. Keys are without the prefix.

use super::keys::Interner;

const VARYING: u32 = u32::MAX;
/// Bytes of a block; one row alone may have more.
const DATA_MAX: usize = 256 * 1024;
const FIXED_BYTES: usize = 16;

/// Rows of one slice.
pub struct Block {
    /// What all state keys of it begin with.
    pub start: Vec<u8>,
    /// Beyond all state keys of it.
    pub end: Vec<u8>,
    /// How many they are.
    pub rows: u32,
    /// They themselves.
    pub data: Vec<u8>,
}

/// Adds blocks with the rows of some ids and slots; `encode` writes that of a slot.
///
/// All rows are `width` bytes long; None if they differ in length.
pub fn add_blocks(
    blocks: &mut Vec<Block>,
    prefix: &[u8],
    keys: &Interner,
    rows: &[(u32, u32)],
    width: Option<usize>,
    encode: impl Fn(u32, &mut Vec<u8>),
) {
    let Some(width) = width else {
        add_varying(blocks, prefix, keys, rows, encode);
        return;
    };
    let mut begin = 0;
    while begin < rows.len() {
        let mut size = FIXED_BYTES + prefix.len();
        let mut end = begin;
        while end < rows.len() {
            // With the length of the key, which may have to be told.
            let more = keys.key(rows[end].0).len() + 4 + width;
            if end > begin && size + more > DATA_MAX {
                break;
            }
            size += more;
            end += 1;
        }
        let some = &rows[begin..end];
        blocks.push(block(
            prefix,
            keys,
            some,
            Lengths::Fixed(width),
            size,
            |data| {
                some.iter().for_each(|row| encode(row.1, data));
            },
        ));
        begin = end;
    }
}

fn add_varying(
    blocks: &mut Vec<Block>,
    prefix: &[u8],
    keys: &Interner,
    rows: &[(u32, u32)],
    encode: impl Fn(u32, &mut Vec<u8>),
) {
    let (mut values, mut lengths) = (Vec::new(), Vec::new());
    let head = FIXED_BYTES + prefix.len();
    let (mut begin, mut size) = (0, head);
    let mut add = |rows: &[(u32, u32)], values: &[u8], lengths: &[u32], size: usize| {
        blocks.push(block(
            prefix,
            keys,
            rows,
            Lengths::Each(lengths),
            size,
            |data| {
                data.extend_from_slice(values);
            },
        ));
    };
    for (i, &(id, slot)) in rows.iter().enumerate() {
        let start = values.len();
        encode(slot, &mut values);
        let len = values.len() - start;
        let more = keys.key(id).len() + 8 + len;
        if i > begin && size + more > DATA_MAX {
            add(&rows[begin..i], &values[..start], &lengths, size);
            values.drain(..start);
            lengths.clear();
            (begin, size) = (i, head);
        }
        lengths.push(len as u32);
        size += more;
    }
    if begin < rows.len() {
        add(&rows[begin..], &values, &lengths, size);
    }
}

/// How long the values of a block are.
enum Lengths<'a> {
    Fixed(usize),
    Each(&'a [u32]),
}

fn block(
    prefix: &[u8],
    keys: &Interner,
    rows: &[(u32, u32)],
    lengths: Lengths,
    size: usize,
    write_values: impl FnOnce(&mut Vec<u8>),
) -> Block {
    let mut data = Vec::with_capacity(size);
    let mut number = |value: u32| data.extend_from_slice(&value.to_le_bytes());
    number(rows.len() as u32);
    number(prefix.len() as u32);
    data.extend_from_slice(prefix);
    let first = keys.key(rows[0].0).len();
    let is_fixed = rows.iter().all(|row| keys.key(row.0).len() == first);
    let mut number = |value: u32| data.extend_from_slice(&value.to_le_bytes());
    number(if is_fixed { first as u32 } else { VARYING });
    number(match lengths {
        Lengths::Fixed(width) => width as u32,
        Lengths::Each(_) => VARYING,
    });
    if !is_fixed {
        rows.iter()
            .for_each(|row| number(keys.key(row.0).len() as u32));
    }
    if let Lengths::Each(lengths) = lengths {
        lengths.iter().for_each(|&len| number(len));
    }
    rows.iter()
        .for_each(|row| data.extend_from_slice(keys.key(row.0)));
    write_values(&mut data);
    Block {
        start: prefix.to_vec(),
        end: successor(prefix),
        rows: rows.len() as u32,
        data,
    }
}

/// Returns the smallest bytes that are beyond all that begin with `prefix`.
fn successor(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last != u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    // There is none; but no state key begins with that byte.
    let mut end = prefix.to_vec();
    end.push(u8::MAX);
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_successor_is_beyond_all_that_begins_alike() {
        assert_eq!(successor(b"ab"), b"ac");
        assert_eq!(successor(b"a\xff\xff"), b"b");
        assert_eq!(successor(b"\xff"), b"\xff\xff");
    }

    #[test]
    fn a_block_says_how_long_its_keys_are_only_if_they_differ() {
        let mut keys = Interner::default();
        let ids: Vec<u32> = [&b"a"[..], b"b", b"long"]
            .iter()
            .map(|body| keys.insert(keys.hash(b's', body), b's', body))
            .collect();
        let mut blocks = Vec::new();
        let encode = |slot: u32, into: &mut Vec<u8>| into.push(slot as u8);
        add_blocks(
            &mut blocks,
            b"P",
            &keys,
            &[(ids[0], 7), (ids[1], 8)],
            Some(1),
            encode,
        );
        add_blocks(
            &mut blocks,
            b"P",
            &keys,
            &[(ids[0], 7), (ids[2], 9)],
            Some(1),
            encode,
        );
        assert_eq!(
            blocks[0].data,
            b"\x02\0\0\0\x01\0\0\0P\x02\0\0\0\x01\0\0\0sasb\x07\x08"
        );
        assert_eq!(
            blocks[1].data,
            b"\x02\0\0\0\x01\0\0\0P\xff\xff\xff\xff\x01\0\0\0\x02\0\0\0\x05\0\0\0saslong\x07\x09"
        );
    }

    #[test]
    fn many_rows_are_several_blocks() {
        let mut keys = Interner::default();
        let rows: Vec<(u32, u32)> = (0..10_000u32)
            .map(|slot| {
                let body = slot.to_le_bytes();
                (keys.insert(keys.hash(b'b', &body), b'b', &body), slot)
            })
            .collect();
        let mut blocks = Vec::new();
        add_blocks(&mut blocks, b"P", &keys, &rows, Some(100), |_, into| {
            into.extend([0; 100])
        });
        assert!(blocks.len() > 1 && blocks.iter().all(|block| block.data.len() <= DATA_MAX));
        assert_eq!(blocks.iter().map(|block| block.rows).sum::<u32>(), 10_000);
    }
}
