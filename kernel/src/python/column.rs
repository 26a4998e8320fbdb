//! Columns as Python sees them: sequences of values that are made when they are asked for.

use std::sync::{Arc, OnceLock};

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef, Int64Array, UInt32Array};
use arrow_schema::{DataType, Field};
use pyo3::exceptions::{PyIndexError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyCapsule, PyList, PyTuple};
use pyo3_arrow::ffi::to_array_pycapsules;
use pyo3_arrow::input::AnyArray;

use crate::column::Bytes;

/// A column of bytes or of integers, in Arrow's form.
///
/// A sequence of `bytes | None` or `int | None`; and others take it without a copy by the PyCapsule
/// interface. It is not registered as a `Sequence`, or Polars would go through it value by value.
#[pyclass(frozen, sequence, module = "riverrun._kernel")]
pub struct Column {
    /// Bytes that were made here, as long as nobody asked for Arrow's array of them.
    bytes: Option<Arc<Bytes>>,
    array: OnceLock<ArrayRef>,
}

impl Column {
    pub fn new(array: ArrayRef) -> Self {
        Self {
            bytes: None,
            array: array.into(),
        }
    }

    pub fn of_bytes(bytes: Bytes) -> Self {
        Self {
            bytes: Some(Arc::new(bytes)),
            array: OnceLock::new(),
        }
    }

    pub fn of_integers(array: Int64Array) -> Self {
        Self::new(Arc::new(array))
    }

    pub fn array(&self) -> &ArrayRef {
        self.array.get_or_init(|| match &self.bytes {
            Some(bytes) => Arc::new(bytes.to_array()),
            None => unreachable!("a column has one or the other"),
        })
    }

    /// Returns the values if they are bytes.
    pub fn bytes(&self) -> Option<Arc<Bytes>> {
        let of_array = || {
            let array = self.array().as_binary_view_opt()?;
            Some(Arc::new(Bytes::from(array)))
        };
        self.bytes.clone().or_else(of_array)
    }

    fn len(&self) -> usize {
        match &self.bytes {
            Some(bytes) => bytes.len(),
            None => self.array().len(),
        }
    }

    fn value<'py>(&self, py: Python<'py>, index: usize) -> PyResult<Bound<'py, PyAny>> {
        if self.array().is_null(index) {
            return Ok(py.None().into_bound(py));
        }
        match self.array().data_type() {
            DataType::BinaryView => {
                Ok(PyBytes::new(py, self.array().as_binary_view().value(index)).into_any())
            }
            DataType::Int64 => {
                let value = self.array().as_primitive::<Int64Type>().value(index);
                Ok(value.into_pyobject(py)?.into_any())
            }
            other => Err(PyTypeError::new_err(format!(
                "a column of {other} is no sequence"
            ))),
        }
    }
}

#[pymethods]
impl Column {
    fn __len__(&self) -> usize {
        self.len()
    }

    fn __getitem__<'py>(
        &self,
        py: Python<'py>,
        at: Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let len = self.len() as isize;
        if let Ok(index) = at.extract::<isize>() {
            let found = if index < 0 { index + len } else { index };
            if !(0..len).contains(&found) {
                return Err(PyIndexError::new_err("column index out of range"));
            }
            return self.value(py, found as usize);
        }
        let range = at.cast::<pyo3::types::PySlice>()?.indices(len)?;
        if range.step != 1 {
            return Err(PyValueError::new_err("a column has slices of step 1 only"));
        }
        let (start, count) = (range.start as usize, range.slicelength);
        let part = match &self.bytes {
            Some(bytes) => Column::of_bytes(bytes.slice(start, count)),
            None => Column::new(self.array().slice(start, count)),
        };
        Ok(Bound::new(py, part)?.into_any())
    }

    /// Returns the values as a list.
    fn to_list<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let values: Vec<_> = (0..self.len())
            .map(|index| self.value(py, index))
            .collect::<PyResult<_>>()?;
        PyList::new(py, values)
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(self.to_list(py)?.try_iter()?.into_any())
    }

    /// Returns how often `value` is there; only of None, which is cheap.
    fn count(&self, value: Bound<'_, PyAny>) -> PyResult<usize> {
        if value.is_none() {
            return Ok(match &self.bytes {
                Some(bytes) => bytes.null_count(),
                None => self.array().null_count(),
            });
        }
        Err(PyTypeError::new_err("a column counts None only"))
    }

    /// Returns whether all bytes are UTF-8, and there is no null.
    fn is_text(&self, py: Python<'_>) -> bool {
        match self.bytes() {
            Some(bytes) => py.detach(|| {
                bytes.null_count() == 0
                    && (bytes.is_ascii() || bytes.to_array().to_string_view().is_ok())
            }),
            None => false,
        }
    }

    /// Returns the bytes as a column of text.
    fn to_text(&self, py: Python<'_>) -> PyResult<Column> {
        let Some(bytes) = self.array().as_binary_view_opt() else {
            return Err(PyTypeError::new_err("only bytes can be text"));
        };
        let text = py.detach(|| bytes.clone().to_string_view());
        text.map(|text| Column::new(Arc::new(text)))
            .map_err(|error| PyValueError::new_err(error.to_string()))
    }

    /// Returns the values at `indices`, in that order.
    fn take(&self, py: Python<'_>, indices: Vec<u32>) -> PyResult<Column> {
        let taken =
            py.detach(|| arrow_select::take::take(self.array(), &UInt32Array::from(indices), None));
        taken
            .map(Column::new)
            .map_err(|error| PyIndexError::new_err(error.to_string()))
    }

    /// Returns columns of one type behind each other.
    #[staticmethod]
    fn concat(py: Python<'_>, columns: Vec<PyRef<'_, Column>>) -> PyResult<Column> {
        let arrays: Vec<ArrayRef> = columns
            .iter()
            .map(|column| column.array().clone())
            .collect();
        let joined = py.detach(|| {
            let arrays: Vec<&dyn Array> = arrays.iter().map(AsRef::as_ref).collect();
            arrow_select::concat::concat(&arrays)
        });
        joined
            .map(Column::new)
            .map_err(|error| PyTypeError::new_err(error.to_string()))
    }

    /// Returns whatever gives Arrow data, as a column; text as bytes. Nothing is copied.
    #[staticmethod]
    fn of(data: AnyArray) -> PyResult<Column> {
        let array = import(data)?;
        if let Some(text) = array.as_string_view_opt() {
            return Ok(Column::new(Arc::new(text.clone().to_binary_view())));
        }
        Ok(Column::new(array))
    }

    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_array__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyCapsule>>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        let field = Arc::new(Field::new("", self.array().data_type().clone(), true));
        Ok(to_array_pycapsules(
            py,
            field,
            self.array(),
            requested_schema,
        )?)
    }
}

/// Returns Arrow data of Python as one array.
pub fn import(data: AnyArray) -> PyResult<ArrayRef> {
    match data {
        AnyArray::Array(array) => Ok(array.into_inner().0),
        AnyArray::Stream(reader) => {
            let (chunks, field) = reader.into_chunked_array()?.into_inner();
            match chunks.as_slice() {
                [] => Ok(arrow_array::new_empty_array(field.data_type())),
                [one] => Ok(one.clone()),
                many => {
                    let many: Vec<&dyn Array> = many.iter().map(AsRef::as_ref).collect();
                    arrow_select::concat::concat(&many)
                        .map_err(|error| PyValueError::new_err(error.to_string()))
                }
            }
        }
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Column>()
}
