//! The extension module `riverrun._kernel`.

mod batches;
mod column;
mod json;
mod session;
mod window;

use pyo3::prelude::*;

/// The hot steps of riverrun's data plane.
#[pymodule]
fn _kernel(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("VERSION", env!("CARGO_PKG_VERSION"))?;
    column::register(module)?;
    batches::register(module)?;
    json::register(module)?;
    session::register(module)?;
    window::register(module)
}
