//! The hot steps of riverrun's data plane, on Arrow columns.
//!
//! Each step is plain Rust in a module of its own and knows nothing of Python; `python` puts them
//! into the extension module `riverrun._kernel`. The specification is the reference plane in
//! `engine/reference`: whatever a step is not certain about it leaves to that.

#![forbid(unsafe_code)]

pub mod batches;
pub mod column;
pub mod json;
pub mod partition;
pub mod session;
pub mod window;

#[cfg(feature = "python")]
mod python;
