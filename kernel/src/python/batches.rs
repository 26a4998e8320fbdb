//! Record batches and partitions of keys for Python.
//!
//! Each function returns None for what it is not certain about: the caller asks the reference.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, Int64Array};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyList, PyString, PyTuple};

use super::column::Column;
use crate::column::Bytes;
use crate::{batches, partition};

type Decoded<'py> = (Column, Column, Column, Column, Option<Bound<'py, PyList>>);
type Encoded<'py> = (Bound<'py, PyBytes>, usize, i64);

/// Returns offsets, timestamps, keys, values and headers of the records of a chunk.
#[pyfunction]
fn decode_record_batches(
    py: Python<'_>,
    payload: PyBackedBytes,
    offset: i64,
    aborted: Vec<(i64, i64)>,
    body_bytes_max: usize,
) -> PyResult<Option<Decoded<'_>>> {
    let decoded = py.detach(|| batches::decode(&payload, offset, &aborted, body_bytes_max));
    let Some(records) = decoded else {
        return Ok(None);
    };
    let headers = headers_list(py, &records)?;
    Ok(Some((
        Column::of_integers(records.offsets.into()),
        Column::of_integers(records.timestamps.into()),
        Column::of_bytes(records.keys),
        Column::of_bytes(records.values),
        headers,
    )))
}

/// Returns the headers of each record, None if no record has any.
fn headers_list<'py>(
    py: Python<'py>,
    records: &batches::Records,
) -> PyResult<Option<Bound<'py, PyList>>> {
    if records.headers().is_empty() {
        return Ok(None);
    }
    let list = PyList::empty(py);
    let mut rest = records.headers();
    for index in 0..records.offsets.len() {
        let some = rest
            .iter()
            .take_while(|header| header.record == index)
            .count();
        let (here, behind) = rest.split_at(some);
        rest = behind;
        let row = PyList::empty(py);
        for header in here {
            let (name, value) = records.header(header);
            let value = value.map(|value| PyBytes::new(py, value));
            row.append((PyString::new(py, name), value))?;
        }
        list.append(row)?;
    }
    Ok(Some(list))
}

/// Returns payload, number of records and largest timestamp of each batch.
#[pyfunction]
fn encode_record_batches<'py>(
    py: Python<'py>,
    keys: &Bound<'py, PyAny>,
    values: &Bound<'py, PyAny>,
    timestamps: &Bound<'py, PyAny>,
    max_batch_bytes: i64,
) -> Option<Vec<Encoded<'py>>> {
    let max_batch_bytes = i32::try_from(max_batch_bytes)
        .ok()
        .and_then(|max| max.try_into().ok())?;
    let keys = Values::of(keys)?;
    let values = Values::of(values)?;
    let timestamps = integers(timestamps)?;
    if keys.len() != timestamps.len() || values.len() != timestamps.len() {
        return None;
    }
    let encoded = py.detach(|| {
        let times = timestamps.values();
        let row = |index: usize| (times[index], keys.get(index), values.get(index));
        batches::encode((0..times.len()).map(row), max_batch_bytes)
    })?;
    let made = |batch: batches::Encoded| {
        (
            PyBytes::new(py, &batch.payload),
            batch.record_count,
            batch.max_timestamp,
        )
    };
    Some(encoded.into_iter().map(made).collect())
}

/// Returns the partition of each key among `count`, and whether any key is null: those belong to
/// the partition `without_key`.
#[pyfunction]
fn key_partitions(
    py: Python<'_>,
    keys: &Bound<'_, PyAny>,
    count: u32,
    without_key: u32,
) -> Option<(Column, bool)> {
    let keys = Values::of(keys)?;
    if count == 0 {
        return None;
    }
    let (partitions, has_null) = py.detach(|| {
        let mut has_null = false;
        let partition = |index: usize| match keys.get(index) {
            Some(key) => partition::partition_of(key, count),
            None => {
                has_null = true;
                without_key
            }
        };
        let partitions: Vec<i64> = (0..keys.len()).map(partition).map(i64::from).collect();
        (partitions, has_null)
    });
    Some((Column::of_integers(partitions.into()), has_null))
}

/// Byte strings of Python, held in either form.
enum Values {
    Column(Arc<Bytes>),
    Objects(Vec<Option<PyBackedBytes>>),
}

impl Values {
    /// Takes a column, or a sequence of `bytes | None`; None for anything else.
    fn of(data: &Bound<'_, PyAny>) -> Option<Self> {
        if let Ok(column) = data.cast::<Column>() {
            return column.get().bytes().map(Self::Column);
        }
        let held = |each: Bound<'_, PyAny>| {
            if each.is_none() {
                return Some(None);
            }
            Some(Some(each.cast_into::<PyBytes>().ok()?.into()))
        };
        objects(data, held).map(Self::Objects)
    }

    fn len(&self) -> usize {
        match self {
            Self::Column(bytes) => bytes.len(),
            Self::Objects(objects) => objects.len(),
        }
    }

    #[inline(always)]
    fn get(&self, index: usize) -> Option<&[u8]> {
        match self {
            Self::Column(bytes) => bytes.get(index),
            Self::Objects(objects) => objects[index].as_deref(),
        }
    }
}

/// Takes a column without nulls or a sequence of `int`; None for anything else.
fn integers(data: &Bound<'_, PyAny>) -> Option<Int64Array> {
    if let Ok(column) = data.cast::<Column>() {
        let array = column.get().array();
        let integers = array.as_primitive_opt::<Int64Type>()?;
        return (integers.null_count() == 0).then(|| integers.clone());
    }
    Some(objects(data, |each| each.extract::<i64>().ok())?.into())
}

/// Returns what `take` makes of each element of a list or tuple, None if it refuses one.
fn objects<T>(
    data: &Bound<'_, PyAny>,
    take: impl Fn(Bound<'_, PyAny>) -> Option<T>,
) -> Option<Vec<T>> {
    if let Ok(list) = data.cast::<PyList>() {
        return list.iter().map(take).collect();
    }
    data.cast::<PyTuple>().ok()?.iter().map(take).collect()
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(decode_record_batches, module)?)?;
    module.add_function(wrap_pyfunction!(encode_record_batches, module)?)?;
    module.add_function(wrap_pyfunction!(key_partitions, module)?)
}
