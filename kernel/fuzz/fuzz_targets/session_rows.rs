//! Any bytes as rows and timers of sessions: nothing panics, and what is read is written the same.

#![no_main]

use arrow_array::{BinaryViewArray, Float64Array, Int64Array};
use libfuzzer_sys::fuzz_target;
use riverrun_kernel::session::places::{Aggregate, Places};
use riverrun_kernel::session::rows;
use riverrun_kernel::session::table::Table;
use riverrun_kernel::window::accumulators::Kind;
use riverrun_kernel::window::input::{Input, Keys};

const AGGREGATES: [Aggregate; 7] = [
    (Kind::Count, false),
    (Kind::Sum, false),
    (Kind::Sum, true),
    (Kind::Mean, true),
    (Kind::Min, false),
    (Kind::Last, true),
    (Kind::First, false),
];
const SIZE_MAX: usize = 1 << 10;

// Rows and timers are separated by a byte that MessagePack never uses.
fuzz_target!(|data: &[u8]| {
    let (&[first, second, ..], Some(rest)) = (data, data.get(2..)) else {
        return;
    };
    let pieces: Vec<&[u8]> = rest.split(|&byte| byte == 0xc1).collect();
    let aggregates = &AGGREGATES[usize::from(first) % AGGREGATES.len()..];
    for piece in &pieces {
        read_and_write(aggregates, piece);
    }
    live(aggregates, &pieces, i64::from(second));
});

/// What was read and written comes back as it is; only how numbers are written may differ before.
fn read_and_write(aggregates: &[Aggregate], row: &[u8]) {
    let mut places = Places::new(aggregates);
    let Some(sessions) = rows::read(row, &mut places) else {
        return;
    };
    let written = rows::write(&sessions, &places);
    let again = rows::read(&written, &mut places).expect("a row that was written can be read");
    assert_eq!(rows::write(&again, &places), written);
}

/// A table goes on with whatever the store has.
fn live(aggregates: &[Aggregate], pieces: &[&[u8]], watermark: i64) {
    let mut table = Table::new(aggregates, 10, 3, [b"R".to_vec(), b"T".to_vec()]);
    table.open_stored();
    let timers: Vec<Vec<u8>> = pieces.iter().map(|piece| [b"T", *piece].concat()).collect();
    for timer in &timers {
        table.take_timers(std::slice::from_ref(timer));
    }
    table.set_timers_loaded(watermark);
    for (i, piece) in pieces.iter().enumerate() {
        let time = i as i64 * 7;
        let wanted = table.prepare(
            &keys(pieces),
            times(pieces, time),
            inputs(aggregates, pieces),
        );
        let stored: Vec<Option<&[u8]>> = wanted.iter().map(|_| Some(*piece)).collect();
        if !table.take_rows(&wanted, &stored) {
            break;
        }
        if table.apply(watermark + time, i % 2 == 0).is_none() {
            break;
        }
        let due = table.prepare_end(watermark + time);
        let nothing: Vec<Option<&[u8]>> = due.iter().map(|_| None).collect();
        assert!(table.take_rows(&due, &nothing));
        if let Some(results) = table.end(watermark + time) {
            assert!(
                results
                    .columns
                    .iter()
                    .all(|column| column.len() == results.keys.len())
            );
        }
        table.drain(SIZE_MAX);
    }
    table.export();
}

fn keys(pieces: &[&[u8]]) -> Keys {
    Keys::Tagged(b'b', BinaryViewArray::from_iter_values(pieces))
}

fn times(pieces: &[&[u8]], from: i64) -> Int64Array {
    (0..pieces.len()).map(|i| Some(from + i as i64)).collect()
}

fn inputs(aggregates: &[Aggregate], pieces: &[&[u8]]) -> Vec<Input> {
    let lengths = pieces.iter().map(|piece| piece.len());
    let input = |&(kind, is_float): &Aggregate| match (kind, is_float) {
        (Kind::Count, _) => Input::Nothing,
        (_, true) => Input::Floats(Float64Array::from_iter_values(
            lengths.clone().map(|len| len as f64),
        )),
        (_, false) => Input::Integers(Int64Array::from_iter_values(
            lengths.clone().map(|len| len as i64),
        )),
    };
    aggregates.iter().map(input).collect()
}
