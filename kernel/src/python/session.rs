//! Sessions as Python sees them; `engine/kernel/session_table.py` makes use of them.

use arrow_array::Int64Array;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyDict, PyList};
use pyo3_arrow::input::AnyArray;

use super::column::{Column, import};
use super::window::{check_lengths, input_of, integers, keys_of, kind_of};
use crate::session::ending::Results;
use crate::session::table::Table;
use crate::window::input::Input;

/// Keyed sessions with aggregates of numbers.
#[pyclass(module = "riverrun._kernel")]
pub struct SessionRows {
    table: Table,
    inputs: usize,
}

type Found = (Column, bool, Column, Column, Vec<Column>);
type Exported<'py> = (
    Vec<(Bound<'py, PyBytes>, Option<Bound<'py, PyBytes>>)>,
    Vec<(i64, Bound<'py, PyBytes>, bool)>,
);

#[pymethods]
impl SessionRows {
    /// Returns an empty table: of each aggregate its kind, and whether its values are floats.
    #[new]
    fn new(
        aggregates: Vec<(String, bool)>,
        gap: i64,
        lateness: i64,
        rows_prefix: Vec<u8>,
        timers_prefix: Vec<u8>,
    ) -> PyResult<Self> {
        if gap < 0 || lateness < 0 {
            return Err(PyValueError::new_err("gap and lateness are not negative"));
        }
        let aggregates = aggregates
            .iter()
            .map(|(kind, is_float)| Ok((kind_of(kind)?, *is_float)))
            .collect::<PyResult<Vec<_>>>()?;
        Ok(Self {
            table: Table::new(&aggregates, gap, lateness, [rows_prefix, timers_prefix]),
            inputs: aggregates.len(),
        })
    }

    /// Bytes of memory that all takes, about.
    #[getter]
    fn size(&self) -> usize {
        self.table.size()
    }

    /// Takes note that the store has sessions already.
    fn open_stored(&mut self) {
        self.table.open_stored();
    }

    /// Takes a batch, and returns the state keys of rows that the store may have.
    fn prepare<'py>(
        &mut self,
        py: Python<'py>,
        keys: AnyArray,
        form: &str,
        times: AnyArray,
        inputs: Vec<Option<AnyArray>>,
    ) -> PyResult<Bound<'py, PyList>> {
        let keys = keys_of(keys, form)?;
        let times: Int64Array = integers(import(times)?)?;
        let inputs: Vec<Input> = inputs.into_iter().map(input_of).collect::<PyResult<_>>()?;
        check_lengths(&keys, &times, None, &inputs)?;
        if inputs.len() != self.inputs {
            return Err(PyValueError::new_err("one input per aggregate, please"));
        }
        let table = &mut self.table;
        let names = py.detach(|| table.prepare(&keys, times, inputs));
        bytes_list(py, &names)
    }

    /// Takes rows of the store; false if one is not of this table.
    fn take_rows(
        &mut self,
        py: Python<'_>,
        names: Vec<PyBackedBytes>,
        rows: Vec<Option<PyBackedBytes>>,
    ) -> bool {
        let table = &mut self.table;
        py.detach(|| table.take_rows(&names, &rows))
    }

    /// Adds the prepared batch, and returns the indices of late records and the sessions that it
    /// changed; None, and nothing is added, if something may not fit in 64 bits.
    fn apply(
        &mut self,
        py: Python<'_>,
        watermark: i64,
        tells_changed: bool,
    ) -> Option<(Vec<i64>, Option<Found>)> {
        let table = &mut self.table;
        let added = py.detach(|| table.apply(watermark, tells_changed))?;
        Some((added.late, added.changed.map(found)))
    }

    /// Returns the range of state keys of timers to be read first; None if all are here that are
    /// not after a time.
    fn missing_timers<'py>(
        &self,
        py: Python<'py>,
        watermark: i64,
    ) -> Option<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)> {
        let (start, end) = self.table.timers().missing(watermark)?;
        Some((PyBytes::new(py, &start), PyBytes::new(py, &end)))
    }

    /// Takes some timers of the store; false if one is not of this table.
    fn take_timers(&mut self, py: Python<'_>, names: Vec<PyBackedBytes>) -> bool {
        let table = &mut self.table;
        py.detach(|| table.take_timers(&names))
    }

    /// Takes note that all timers were taken that are not after a time.
    fn timers_taken(&mut self, watermark: i64) {
        self.table.set_timers_loaded(watermark);
    }

    /// Takes out the keys that are due, and returns the state keys of rows that the store may have.
    fn prepare_end<'py>(
        &mut self,
        py: Python<'py>,
        watermark: i64,
    ) -> PyResult<Bound<'py, PyList>> {
        let table = &mut self.table;
        let names = py.detach(|| table.prepare_end(watermark));
        bytes_list(py, &names)
    }

    /// Returns the sessions that have ended, of keys that are due.
    fn end(&mut self, py: Python<'_>, watermark: i64) -> Option<Found> {
        let table = &mut self.table;
        py.detach(|| table.end(watermark)).map(found)
    }

    /// Returns what changed: rows by state key, and state keys that are gone; above `size_max`
    /// bytes of memory, drops what the store has too.
    fn drain<'py>(
        &mut self,
        py: Python<'py>,
        size_max: usize,
    ) -> PyResult<(Bound<'py, PyDict>, Bound<'py, PyList>)> {
        let table = &mut self.table;
        let changes = py.detach(|| table.drain(size_max));
        let puts = PyDict::new(py);
        for (name, row) in &changes.puts {
            puts.set_item(PyBytes::new(py, name), PyBytes::new(py, row))?;
        }
        let empty = PyBytes::new(py, b"");
        for name in &changes.timers {
            puts.set_item(PyBytes::new(py, name), &empty)?;
        }
        Ok((puts, bytes_list(py, &changes.deletes)?))
    }

    /// Returns what the last two epochs changed: key and row, None for none, and time and key of
    /// timers, and whether they are set.
    fn export<'py>(&self, py: Python<'py>) -> Exported<'py> {
        let exported = py.detach(|| self.table.export());
        let bytes = |bytes: &[u8]| PyBytes::new(py, bytes);
        let rows = exported.rows.iter();
        let timers = exported.timers.iter();
        (
            rows.map(|(key, row)| (bytes(key), row.as_deref().map(bytes)))
                .collect(),
            timers
                .map(|(time, key, is_set)| (*time, bytes(key), *is_set))
                .collect(),
        )
    }
}

fn found(results: Results) -> Found {
    (
        Column::new(results.keys),
        results.are_state_keys,
        Column::new(results.starts),
        Column::new(results.ends),
        results.columns.into_iter().map(Column::new).collect(),
    )
}

fn bytes_list<'py>(py: Python<'py>, names: &[Vec<u8>]) -> PyResult<Bound<'py, PyList>> {
    PyList::new(py, names.iter().map(|name| PyBytes::new(py, name)))
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<SessionRows>()
}
