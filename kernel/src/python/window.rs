//! The window table as Python sees it; `engine/kernel/window_table.py` makes use of it.

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type};
use arrow_array::{Array, ArrayRef, BinaryViewArray, Int64Array};
use arrow_schema::DataType;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyList};
use pyo3_arrow::input::AnyArray;

use super::column::{Column, import};
use crate::window::accumulators::Kind;
use crate::window::blocks::Block;
use crate::window::input::{Input, Keys};
use crate::window::reading::Results;
use crate::window::stored::{Purpose, Taken};
use crate::window::table::Table;

/// Tells that a column holds state keys.
const STATE_KEYS: &str = "state";

/// Keyed window aggregates of numbers.
#[pyclass(module = "riverrun._kernel")]
pub struct WindowRows {
    table: Table,
}

type Block4<'py> = (
    Bound<'py, PyBytes>,
    Bound<'py, PyBytes>,
    u32,
    Bound<'py, PyBytes>,
);
type Row<'py> = (Bound<'py, PyBytes>, Bound<'py, PyBytes>);
type ReadResults = (Column, Column, bool, Vec<Column>);

#[pymethods]
impl WindowRows {
    /// Returns an empty table.
    #[new]
    fn new(kinds: Vec<String>, prefix: Vec<u8>) -> PyResult<Self> {
        let kinds: Vec<Kind> = kinds
            .iter()
            .map(|kind| kind_of(kind))
            .collect::<PyResult<_>>()?;
        Ok(Self {
            table: Table::new(kinds, prefix),
        })
    }

    /// Type of each aggregate's values, as far as seen.
    #[getter]
    fn tags(&self) -> Vec<String> {
        self.table.tags().to_vec()
    }

    /// Bytes of memory that the rows take, about.
    #[getter]
    fn size(&self) -> usize {
        self.table.size()
    }

    /// Returns whether values of some types can be held here.
    fn knows(&self, tags: Vec<String>) -> bool {
        self.table.knows(&tags)
    }

    /// Makes room for values of wider types.
    fn widen(&mut self, tags: Vec<String>) -> PyResult<()> {
        self.check_tags(&tags)?;
        self.table.widen(tags);
        Ok(())
    }

    /// Adds slices that the store has rows of.
    fn open_slices(&mut self, slices: Vec<(i64, u64)>) {
        slices
            .into_iter()
            .for_each(|(start, rows)| self.table.open_slice(start, rows));
    }

    /// Returns the starts of all slices, in order.
    fn slices(&self) -> Vec<i64> {
        self.table.starts()
    }

    /// Takes a batch, and returns the state keys of rows that the store may have; the number of an
    /// aggregate if its sum overflows: then nothing was taken.
    #[pyo3(signature = (keys, form, slice_starts, times, inputs))]
    fn prepare<'py>(
        &mut self,
        py: Python<'py>,
        keys: AnyArray,
        form: &str,
        slice_starts: AnyArray,
        times: Option<AnyArray>,
        inputs: Vec<Option<AnyArray>>,
    ) -> PyResult<Prepared<'py>> {
        let keys = keys_of(keys, form)?;
        let slice_starts = integers(import(slice_starts)?)?;
        let times = times.map(|times| integers(import(times)?)).transpose()?;
        let inputs: Vec<Input> = inputs.into_iter().map(input_of).collect::<PyResult<_>>()?;
        check_lengths(&keys, &slice_starts, times.as_ref(), &inputs)?;
        if inputs.len() != self.table.tags().len() {
            return Err(PyValueError::new_err("one input per aggregate, please"));
        }
        if times.is_none() && self.table.reads_times() {
            return Err(PyValueError::new_err("first and last need event times"));
        }
        let table = &mut self.table;
        let names = py.detach(|| {
            let wanted = table.prepare(&keys, &slice_starts, times, inputs)?;
            Ok(names_of(table, &wanted))
        });
        Ok(match names {
            Ok(names) => Prepared::Names(PyList::new(
                py,
                names.iter().map(|name| PyBytes::new(py, name)),
            )?),
            Err(failed) => Prepared::Overflow(failed),
        })
    }

    /// Adds the prepared batch, with values of the types `tags`; returns the number of an aggregate whose sum overflows: then
    /// nothing was added.
    fn apply(&mut self, py: Python<'_>, tags: Vec<String>) -> PyResult<Option<usize>> {
        self.check_tags(&tags)?;
        let table = &mut self.table;
        Ok(py.detach(|| table.apply(tags)).err())
    }

    /// Forgets what was prepared.
    fn abandon(&mut self) {
        self.table.settle();
    }

    /// Takes rows of the store from `at` on, to be held or read once; returns how far it came
    /// and, if that row has values of other types, those.
    fn take_stored(
        &mut self,
        py: Python<'_>,
        names: Vec<PyBackedBytes>,
        rows: Vec<Option<PyBackedBytes>>,
        at: usize,
        hold: bool,
    ) -> (usize, Option<Vec<String>>) {
        let purpose = if hold { Purpose::Hold } else { Purpose::Read };
        let table = &mut self.table;
        match py.detach(|| table.take_stored(purpose, &names, &rows, at)) {
            Taken::All => (names.len(), None),
            Taken::Types(at, tags) => (at, Some(tags)),
            Taken::Unreadable(at) => (at, None),
        }
    }

    /// Returns the next windows that have rows, and where in `windows` to go on.
    fn group(
        &self,
        py: Python<'_>,
        windows: Vec<i64>,
        size: i64,
        rows_max: u64,
    ) -> (Vec<i64>, usize) {
        py.detach(|| self.table.group(&windows, size, rows_max))
    }

    /// Returns first and last of runs of slices with rows in the store alone.
    fn incomplete_runs(&self, start: i64, end: i64) -> Vec<(i64, i64)> {
        self.table.incomplete_runs(start, end)
    }

    /// Returns results of windows: their starts, the keys, whether these are state keys, and a
    /// column per aggregate; None if there are no rows, a number if a sum overflows.
    fn collect(&mut self, py: Python<'_>, windows: Vec<i64>, size: i64) -> PyResult<Collected> {
        let table = &mut self.table;
        Ok(collected(py.detach(|| table.collect(&windows, size))))
    }

    /// Begins to read one key of each window, and returns the state keys of rows that the store
    /// may have.
    fn prepare_pairs<'py>(
        &mut self,
        py: Python<'py>,
        windows: Vec<i64>,
        size: i64,
        keys: AnyArray,
        form: &str,
    ) -> PyResult<Bound<'py, PyList>> {
        let keys = keys_of(keys, form)?;
        if keys.len() != windows.len() {
            return Err(PyValueError::new_err("one key per window, please"));
        }
        let table = &mut self.table;
        let names = py.detach(|| {
            let wanted = table.prepare_pairs(&windows, size, &keys);
            names_of(table, &wanted)
        });
        PyList::new(py, names.iter().map(|name| PyBytes::new(py, name)))
    }

    /// Returns results of one key of each window, as `collect`.
    fn collect_pairs(
        &mut self,
        py: Python<'_>,
        windows: Vec<i64>,
        size: i64,
    ) -> PyResult<Collected> {
        let table = &mut self.table;
        Ok(collected(py.detach(|| table.collect_pairs(&windows, size))))
    }

    /// Drops all slices before `start`, and returns where the first of them began.
    fn remove_below(&mut self, py: Python<'_>, start: i64) -> Option<i64> {
        let table = &mut self.table;
        py.detach(|| table.remove_below(start))
    }

    /// Returns the rows that changed as blocks (start, end, number of rows, data); above
    /// `size_max` bytes of memory, drops those that were clean before.
    fn drain<'py>(&mut self, py: Python<'py>, size_max: usize) -> Vec<Block4<'py>> {
        let table = &mut self.table;
        let blocks = py.detach(|| table.drain(size_max));
        let bytes = |bytes: &[u8]| PyBytes::new(py, bytes);
        blocks
            .iter()
            .map(
                |Block {
                     start,
                     end,
                     rows,
                     data,
                 }| (bytes(start), bytes(end), *rows, bytes(data)),
            )
            .collect()
    }

    /// Returns a slice for another table: whether it is complete, how many rows it has, and state
    /// key and row of those here, first those that have not changed, then those that have.
    fn export<'py>(&self, py: Python<'py>, start: i64) -> Option<ExportedSlice<'py>> {
        let slice = py.detach(|| self.table.export(start))?;
        let rows = |rows: &[(Vec<u8>, Vec<u8>)]| -> Vec<Row<'py>> {
            rows.iter()
                .map(|(key, row)| (PyBytes::new(py, key), PyBytes::new(py, row)))
                .collect()
        };
        Some((
            slice.is_complete,
            slice.rows,
            rows(&slice.clean),
            rows(&slice.changed),
        ))
    }
}

impl WindowRows {
    fn check_tags(&self, tags: &[String]) -> PyResult<()> {
        if self.table.knows(tags) {
            return Ok(());
        }
        Err(PyValueError::new_err("the types are not known here"))
    }
}

type ExportedSlice<'py> = (bool, u64, Vec<Row<'py>>, Vec<Row<'py>>);

/// State keys, or the number of an aggregate that overflows.
#[derive(IntoPyObject)]
enum Prepared<'py> {
    Names(Bound<'py, PyList>),
    Overflow(usize),
}

/// Results, or the number of an aggregate that overflows, or nothing.
#[derive(IntoPyObject)]
enum Collected {
    Results(ReadResults),
    Overflow(usize),
    Nothing(Option<usize>),
}

fn collected(results: Result<Option<Results>, usize>) -> Collected {
    match results {
        Ok(Some(results)) => Collected::Results((
            Column::new(results.windows),
            Column::new(results.keys),
            results.are_state_keys,
            results.columns.into_iter().map(Column::new).collect(),
        )),
        Ok(None) => Collected::Nothing(None),
        Err(failed) => Collected::Overflow(failed),
    }
}

fn names_of(table: &Table, wanted: &[(i64, u32)]) -> Vec<Vec<u8>> {
    wanted
        .iter()
        .map(|&(start, id)| table.name(start, id))
        .collect()
}

pub(super) fn kind_of(kind: &str) -> PyResult<Kind> {
    Ok(match kind {
        "count" | "count_values" => Kind::Count,
        "sum" => Kind::Sum,
        "mean" => Kind::Mean,
        "min" => Kind::Min,
        "max" => Kind::Max,
        "first" => Kind::First,
        "last" => Kind::Last,
        other => {
            return Err(PyValueError::new_err(format!(
                "no kind of aggregate: {other}"
            )));
        }
    })
}

pub(super) fn keys_of(keys: AnyArray, form: &str) -> PyResult<Keys> {
    let array = import(keys)?;
    if array.null_count() > 0 {
        return Err(PyValueError::new_err("keys must not be null"));
    }
    match array.data_type() {
        DataType::Utf8View => Ok(Keys::Tagged(
            b's',
            array.as_string_view().clone().to_binary_view(),
        )),
        DataType::BinaryView => {
            let bytes: BinaryViewArray = array.as_binary_view().clone();
            Ok(if form == STATE_KEYS {
                Keys::State(bytes)
            } else {
                Keys::Tagged(b'b', bytes)
            })
        }
        DataType::Int64 => Ok(Keys::Integers(array.as_primitive::<Int64Type>().clone())),
        DataType::Boolean => Ok(Keys::Booleans(array.as_boolean().clone())),
        other => Err(PyTypeError::new_err(format!("{other} is no type of keys"))),
    }
}

pub(super) fn integers(array: ArrayRef) -> PyResult<Int64Array> {
    match array.as_primitive_opt::<Int64Type>() {
        Some(integers) if integers.null_count() == 0 => Ok(integers.clone()),
        _ => Err(PyTypeError::new_err("times are integers without nulls")),
    }
}

pub(super) fn input_of(input: Option<AnyArray>) -> PyResult<Input> {
    let Some(input) = input else {
        return Ok(Input::Nothing);
    };
    let array = import(input)?;
    match array.data_type() {
        DataType::Boolean => Ok(Input::Present(array.as_boolean().clone())),
        DataType::Int64 => Ok(Input::Integers(array.as_primitive::<Int64Type>().clone())),
        DataType::Float64 => Ok(Input::Floats(array.as_primitive::<Float64Type>().clone())),
        DataType::Utf8View => Ok(Input::Text(array.as_string_view().clone())),
        other => Err(PyTypeError::new_err(format!(
            "{other} is no type of inputs"
        ))),
    }
}

pub(super) fn check_lengths(
    keys: &Keys,
    slice_starts: &Int64Array,
    times: Option<&Int64Array>,
    inputs: &[Input],
) -> PyResult<()> {
    let count = keys.len();
    let fits = |input: &Input| match input {
        Input::Nothing => true,
        Input::Present(column) => column.len() == count,
        Input::Integers(column) => column.len() == count,
        Input::Floats(column) => column.len() == count,
        Input::Text(column) => column.len() == count,
    };
    let are_equal = slice_starts.len() == count
        && times.is_none_or(|times| times.len() == count)
        && inputs.iter().all(fits);
    if are_equal {
        Ok(())
    } else {
        Err(PyValueError::new_err("columns differ in length"))
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<WindowRows>()
}
