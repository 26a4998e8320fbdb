//! Any bytes as documents: nothing panics, and what is accepted is what serde_json reads.

#![no_main]

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type};
use arrow_array::{Array, ArrayRef};
use arrow_buffer::Buffer;
use libfuzzer_sys::fuzz_target;
use riverrun_kernel::column::ViewBuilder;
use riverrun_kernel::json::project::Projector;
use riverrun_kernel::json::schema::{Field, Kind, Shape};
use riverrun_kernel::json::write::write_documents;
use serde_json::{Map, Value};

fn kind(shape: Shape, is_nullable: bool) -> Kind {
    Kind { shape, is_nullable }
}

fn field(name: &str, kind: Kind, is_null_if_missing: bool) -> Field {
    let name = name.to_owned();
    Field {
        name,
        kind,
        is_null_if_missing,
    }
}

fn schema() -> Vec<Field> {
    let point = vec![
        field("x", kind(Shape::Float64, false), false),
        field("y", kind(Shape::Float64, true), true),
    ];
    let points = Shape::List(Box::new(kind(Shape::Object(point), true)));
    vec![
        field("i", kind(Shape::Int64, false), true),
        field("f", kind(Shape::Float64, true), true),
        field("s", kind(Shape::Text, true), true),
        field("b", kind(Shape::Boolean, true), true),
        field("a long name of a field", kind(Shape::Text, false), true),
        field("p", kind(points, true), true),
        field("t", kind(Shape::Time, true), true),
        field("d", kind(Shape::Date, false), true),
        field("x", kind(Shape::Bytes, true), true),
    ]
}

// Documents are separated by a byte that none of them has, so that one batch has several.
fuzz_target!(|data: &[u8]| {
    let documents: Vec<&[u8]> = data.split(|&byte| byte == 0xff).collect();
    let mut builder = ViewBuilder::default();
    builder.add_buffer(Buffer::from(data));
    let mut start = 0;
    for document in &documents {
        builder.push(start, document.len());
        start += document.len() + 1;
    }
    let column = builder.finish();
    let fields = schema();
    let mut projector = Projector::new(&fields).expect("it has fields");
    // Twice, since it has learned what keys come where.
    for _ in 0..2 {
        let projection = projector.project(&column);
        let text = "what is told as text is UTF-8";
        let certain = documents
            .iter()
            .enumerate()
            .filter(|(index, _)| !projection.uncertain.contains(&(*index as u32)));
        let mut rows = 0;
        for (row, (_, document)) in certain.enumerate() {
            rows += 1;
            let whole: Value = match serde_json::from_slice(document) {
                Ok(whole) => whole,
                // It may be in a member that no field is declared for.
                Err(error) if error.to_string().contains("number out of range") => continue,
                Err(error) => panic!("it is not accepted: {error}"),
            };
            let members = whole.as_object().expect("it is an object");
            compare_object(&fields, members, projection.rows.columns(), row, text);
        }
        assert_eq!(rows, projection.rows.len());
    }
});

fn compare_object(
    fields: &[Field],
    members: &Map<String, Value>,
    columns: &[ArrayRef],
    row: usize,
    text: &str,
) {
    for (field, column) in fields.iter().zip(columns) {
        match members.get(&field.name) {
            Some(value) => compare(&field.kind, value, column, row, text),
            None => assert!(field.is_null_if_missing && column.is_null(row)),
        }
    }
}

fn compare(kind: &Kind, value: &Value, column: &ArrayRef, row: usize, text: &str) {
    assert_eq!(value.is_null(), column.is_null(row));
    if value.is_null() {
        assert!(kind.is_nullable);
        return;
    }
    match &kind.shape {
        Shape::Int64 => {
            let found = column.as_primitive::<Int64Type>().value(row);
            assert_eq!(value.as_i64(), Some(found));
        }
        Shape::Float64 => {
            let found = column.as_primitive::<Float64Type>().value(row);
            assert_eq!(value.as_f64(), Some(found));
        }
        Shape::Boolean => assert_eq!(value.as_bool(), Some(column.as_boolean().value(row))),
        Shape::Text => {
            let found = column.as_binary_view().value(row);
            assert_eq!(value.as_str(), Some(str::from_utf8(found).expect(text)));
        }
        Shape::Time | Shape::Date | Shape::Bytes => {
            let columns = [column.slice(row, 1)];
            let documents = write_documents(&["x".to_owned()], &columns).expect("all are known");
            let found: Value = serde_json::from_slice(documents.value(0)).expect("it is JSON");
            let want = value.as_str().expect("it is text");
            let is_time = matches!(kind.shape, Shape::Time);
            let want = if is_time {
                as_written(want)
            } else {
                want.to_owned()
            };
            assert_eq!(found["x"].as_str(), Some(want.as_str()));
        }
        Shape::List(inner) => {
            let list = column.as_list::<i64>();
            let want = value.as_array().expect("it is a list");
            let start = list.value_offsets()[row] as usize;
            assert_eq!(list.value_length(row) as usize, want.len());
            for (at, item) in want.iter().enumerate() {
                compare(inner, item, list.values(), start + at, text);
            }
        }
        Shape::Object(fields) => {
            let members = value.as_object().expect("it is an object");
            compare_object(fields, members, column.as_struct().columns(), row, text);
        }
    }
}

/// Returns a time as it is written: with no fraction or with six digits, and with a `Z`.
fn as_written(text: &str) -> String {
    let (seconds, rest) = text.split_at(19);
    let fraction = rest.trim_end_matches("+00:00").trim_end_matches('Z');
    match fraction
        .strip_prefix('.')
        .map(|digits| format!("{digits:0<6}"))
    {
        Some(micros) if micros != "000000" => format!("{seconds}.{micros}Z"),
        _ => format!("{seconds}Z"),
    }
}
