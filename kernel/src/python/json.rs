//! Documents and columns of JSON as Python gives and takes them.

use std::sync::{Arc, Mutex, PoisonError};

use arrow_array::{ArrayRef, StructArray};
use arrow_buffer::Buffer;
use arrow_schema::{DataType, Field as ArrowField};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyCapsule, PyList, PyTuple};
use pyo3_arrow::ffi::to_array_pycapsules;
use pyo3_arrow::input::AnyArray;

use super::column::{Column, import};
use crate::column::{Bytes, ViewBuilder};
use crate::json::project::Projector;
use crate::json::schema::{Field, Kind, Shape};
use crate::json::write::{Unwritten, write_documents as write};

/// How deep a declared type may be nested.
const DEPTH_MAX: usize = 32;

/// Bytes of Python objects that are copied to one buffer; its offsets have 31 bits.
const COPIED_MAX: usize = 1 << 30;

/// Reads JSON documents of one schema to columns.
#[pyclass(frozen, module = "riverrun._kernel")]
struct JsonProjector {
    fields: Vec<Field>,
    /// The one that knows how the documents are written; away while it is at work.
    idle: Mutex<Option<Projector>>,
}

#[pymethods]
impl JsonProjector {
    /// Takes `(name, kind, null if missing)` of each field; a kind is `(shape, nullable, inner)`.
    #[new]
    fn new(fields: &Bound<'_, PyList>) -> PyResult<Self> {
        let fields = fields_of(fields.as_any(), DEPTH_MAX)?;
        let projector = Projector::new(&fields);
        if projector.is_none() {
            return Err(PyValueError::new_err("an object has 1 to 64 fields"));
        }
        let idle = Mutex::new(projector);
        Ok(Self { fields, idle })
    }

    /// Returns the rows that could be read, and the indices of the documents that have none.
    fn project(&self, py: Python<'_>, values: &Bound<'_, PyAny>) -> PyResult<(JsonRows, Vec<u32>)> {
        let documents = documents_of(values)?;
        let projection = py.detach(|| {
            let taken = self.lock().take();
            let mut projector = taken.or_else(|| Projector::new(&self.fields))?;
            let projection = projector.project(&documents);
            *self.lock() = Some(projector);
            Some(projection)
        });
        let projection = projection.ok_or_else(|| PyValueError::new_err("no fields"))?;
        let rows = JsonRows {
            rows: projection.rows,
            logical: projection.logical,
        };
        Ok((rows, projection.uncertain))
    }
}

impl JsonProjector {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Projector>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Rows as a struct column, for the PyCapsule interface.
#[pyclass(frozen, module = "riverrun._kernel")]
struct JsonRows {
    rows: StructArray,
    logical: DataType,
}

#[pymethods]
impl JsonRows {
    /// Text is told as text: it was checked when it was read, and bytes have the same form.
    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_array__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyCapsule>>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        // Who asks for another schema may cast what is given.
        drop(requested_schema);
        let field = Arc::new(ArrowField::new("", self.logical.clone(), false));
        Ok(to_array_pycapsules(py, field, &self.rows, None)?)
    }
}

fn fields_of(fields: &Bound<'_, PyAny>, depth: usize) -> PyResult<Vec<Field>> {
    let field = |item: PyResult<Bound<'_, PyAny>>| {
        let (name, kind, is_null_if_missing) =
            item?.extract::<(String, Bound<'_, PyAny>, bool)>()?;
        Ok(Field {
            name,
            kind: kind_of(&kind, depth)?,
            is_null_if_missing,
        })
    };
    fields.try_iter()?.map(field).collect()
}

fn kind_of(kind: &Bound<'_, PyAny>, depth: usize) -> PyResult<Kind> {
    if depth == 0 {
        return Err(PyValueError::new_err("a type is nested too deep"));
    }
    let (shape, is_nullable, inner) = kind.extract::<(String, bool, Bound<'_, PyAny>)>()?;
    let shape = match shape.as_str() {
        "int" => Shape::Int64,
        "float" => Shape::Float64,
        "text" => Shape::Text,
        "bytes" => Shape::Bytes,
        "bool" => Shape::Boolean,
        "time" => Shape::Time,
        "date" => Shape::Date,
        "list" => Shape::List(Box::new(kind_of(&inner, depth - 1)?)),
        "object" => Shape::Object(fields_of(&inner, depth - 1)?),
        other => return Err(PyValueError::new_err(format!("no shape is called {other}"))),
    };
    Ok(Kind { shape, is_nullable })
}

/// Returns values as a column; what is no bytes object is null in it.
fn documents_of(values: &Bound<'_, PyAny>) -> PyResult<Arc<Bytes>> {
    if let Ok(column) = values.cast::<Column>() {
        let bytes = column.get().bytes();
        return bytes.ok_or_else(|| PyTypeError::new_err("documents are bytes"));
    }
    let values: Vec<Bound<'_, PyAny>> = values.try_iter()?.collect::<PyResult<_>>()?;
    let mut builder = ViewBuilder::default();
    let mut copied = Vec::new();
    let mut spans = Vec::new();
    for value in &values {
        let bytes = value.cast::<PyBytes>().ok().map(|bytes| bytes.as_bytes());
        if copied.len() + bytes.map_or(0, <[u8]>::len) > COPIED_MAX {
            push_all(&mut builder, std::mem::take(&mut copied), &mut spans);
        }
        spans.push(bytes.map(|bytes| (copied.len(), bytes.len())));
        copied.extend_from_slice(bytes.unwrap_or_default());
    }
    push_all(&mut builder, copied, &mut spans);
    Ok(Arc::new(builder.finish()))
}

type Span = Option<(usize, usize)>;

fn push_all(builder: &mut ViewBuilder, bytes: Vec<u8>, spans: &mut Vec<Span>) {
    builder.add_buffer(Buffer::from_vec(bytes));
    for span in spans.drain(..) {
        match span {
            Some((start, len)) => builder.push(start, len),
            None => builder.push_null(),
        }
    }
}

/// Returns one object per row as a column of documents.
///
/// None if there is a type or a value among the columns whose form is not known here. If there is
/// a float that is not finite, the index of the first row that has one.
#[pyfunction]
fn write_documents(
    py: Python<'_>,
    names: Vec<String>,
    columns: Vec<AnyArray>,
) -> PyResult<(Option<Column>, Option<usize>)> {
    let columns: Vec<ArrayRef> = columns.into_iter().map(import).collect::<PyResult<_>>()?;
    match py.detach(|| write(&names, &columns)) {
        Ok(documents) => Ok((Some(Column::of_bytes(documents)), None)),
        Err(Unwritten::NotFinite(row)) => Ok((None, Some(row))),
        Err(Unwritten::Unknown) => Ok((None, None)),
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<JsonProjector>()?;
    module.add_class::<JsonRows>()?;
    module.add_function(wrap_pyfunction!(write_documents, module)?)
}
