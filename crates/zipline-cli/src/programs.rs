//! Zipline's other binaries, which stand beside this one.

use std::path::PathBuf;

use crate::exit::{Failure, message};

/// The path of this program.
pub(crate) fn own() -> Result<PathBuf, Failure> {
    std::env::current_exe().map_err(|error| {
        Failure::failed(anyhow::Error::new(error).context(message("cannot find this program's own path")))
    })
}

/// The path where a binary of the same installation is, whether it is there or not.
pub(crate) fn sibling(name: &str) -> Result<PathBuf, Failure> {
    Ok(own()?.with_file_name(name))
}
