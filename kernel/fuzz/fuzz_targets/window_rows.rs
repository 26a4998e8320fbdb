//! Any bytes as rows of a window table: nothing panics, and what is held is written the same.

#![no_main]

use arrow_array::{BinaryViewArray, Int64Array};
use libfuzzer_sys::fuzz_target;
use riverrun_kernel::window::accumulators::Kind;
use riverrun_kernel::window::input::{Input, Keys};
use riverrun_kernel::window::stored::{Purpose, Taken};
use riverrun_kernel::window::table::Table;

const KINDS: [Kind; 7] = [
    Kind::Count,
    Kind::Sum,
    Kind::Mean,
    Kind::Min,
    Kind::Last,
    Kind::Max,
    Kind::First,
];
const TAGS: [&str; 8] = ["-", "i", "f", "s", "D", "t", "T:ms:UTC", "U:us"];
const PREFIX: &[u8] = b"P";
const SLICE: i64 = 60;
const SIZE_MAX: usize = 1 << 10;

// Rows are separated by a byte that no text has; numbers do, and are then cut.
fuzz_target!(|data: &[u8]| {
    let (&[first, ..], Some(rest)) = (data, data.get(1..)) else {
        return;
    };
    let kinds = &KINDS[usize::from(first) % KINDS.len()..];
    let pieces: Vec<&[u8]> = rest.split(|&byte| byte == 0xff).collect();
    live(kinds, &pieces);
    let headed: Vec<Vec<u8>> = pieces
        .iter()
        .map(|piece| with_header(kinds, piece))
        .collect();
    live(kinds, &headed.iter().map(Vec::as_slice).collect::<Vec<_>>());
    names(kinds, &pieces);
});

/// Makes a row of what may be any bytes: version and tags that are right, and fields behind them.
fn with_header(kinds: &[Kind], piece: &[u8]) -> Vec<u8> {
    let tags: Vec<&str> = (0..kinds.len())
        .map(|i| match kinds[i] {
            Kind::Count => "-",
            // Never text.
            Kind::Sum | Kind::Mean => TAGS[usize::from(*piece.get(i).unwrap_or(&0)) % 3],
            _ => TAGS[usize::from(*piece.get(i).unwrap_or(&0)) % TAGS.len()],
        })
        .collect();
    let text = tags.join(",");
    let mut row = vec![1];
    row.extend_from_slice(&(text.len() as u16).to_be_bytes());
    row.extend_from_slice(text.as_bytes());
    row.extend_from_slice(piece);
    row
}

/// A table takes rows for keys of a batch, adds that, and gives them back.
fn live(kinds: &[Kind], rows: &[&[u8]]) {
    let mut table = Table::new(kinds.to_vec(), PREFIX.to_vec());
    table.open_slice(SLICE, u64::MAX);
    let bodies: Vec<[u8; 8]> = (0..rows.len() as u64).map(u64::to_be_bytes).collect();
    let keys = Keys::Tagged(b'b', BinaryViewArray::from_iter_values(&bodies));
    let ones = || Int64Array::from_iter_values(rows.iter().map(|_| 1));
    let starts = Int64Array::from_iter_values(rows.iter().map(|_| SLICE));
    let inputs = kinds.iter().map(|kind| match kind {
        Kind::Count => Input::Nothing,
        _ => Input::Integers(ones()),
    });
    let Ok(wanted) = table.prepare(&keys, &starts, Some(ones()), inputs.collect()) else {
        return;
    };
    let found: Vec<Vec<u8>> = wanted.iter().map(|&(at, id)| table.name(at, id)).collect();
    let stored: Vec<Option<&[u8]>> = rows.iter().map(|row| Some(*row)).collect();
    let Some(tags) = take(&mut table, Purpose::Hold, &found, &stored) else {
        return;
    };
    let _ = table.apply(tags);
    for block in table.drain(SIZE_MAX) {
        assert!(block.start <= block.end && block.rows > 0);
    }
    let before = table.export(SLICE).expect("it was opened");
    for (_, row) in before.clean.iter().chain(&before.changed) {
        assert!(riverrun_kernel::window::rows::split(row).is_some());
    }
    if take(&mut table, Purpose::Read, &found, &stored).is_some() {
        let _ = table.collect(&[SLICE], 1);
    }
    table.settle();
    assert_eq!(table.remove_below(i64::MAX), Some(SLICE));
}

/// Gives rows to a table, making room for their types; returns these if all could be taken.
fn take(
    table: &mut Table,
    purpose: Purpose,
    names: &[Vec<u8>],
    rows: &[Option<&[u8]>],
) -> Option<Vec<String>> {
    let mut at = 0;
    loop {
        match table.take_stored(purpose, names, rows, at) {
            Taken::All => return Some(table.tags().to_vec()),
            Taken::Unreadable(_) => return None,
            Taken::Types(next, tags) => {
                let wider = widest(table.tags(), &tags);
                if !table.knows(&wider) || wider == table.tags() {
                    return None;
                }
                table.widen(wider);
                at = next;
            }
        }
    }
}

/// The wider of two types, as far as those of this target go.
fn widest(held: &[String], stored: &[String]) -> Vec<String> {
    held.iter()
        .zip(stored)
        .map(|(held, stored)| match (held.as_str(), stored.as_str()) {
            ("-", _) | ("i", "f") => stored.clone(), // else it stays, and the row is refused
            _ => held.clone(),
        })
        .collect()
}

/// Names that may be anything are told from those of the table.
fn names(kinds: &[Kind], pieces: &[&[u8]]) {
    let mut table = Table::new(kinds.to_vec(), PREFIX.to_vec());
    table.open_slice(SLICE, 1);
    let rows: Vec<Option<&[u8]>> = pieces.iter().map(|piece| Some(*piece)).collect();
    for (i, piece) in pieces.iter().enumerate() {
        table.take_stored(Purpose::Read, &[[PREFIX, *piece].concat()], &rows[i..=i], 0);
        table.settle();
    }
}
