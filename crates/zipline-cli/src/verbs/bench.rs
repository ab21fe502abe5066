//! `zipline bench`: becomes the measuring program, which stands beside this one.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use clap::Args;

use crate::exit::{Failure, Outcome, message};
use crate::programs;

/// `bench`
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct BenchArgs {
    /// What `zipline-bench` is given; try `zipline bench --help`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
    arguments: Vec<OsString>,
}

pub(crate) fn run(args: &BenchArgs) -> Outcome {
    let program = programs::sibling("zipline-bench")?;
    let error = Command::new(&program).args(&args.arguments).exec();
    if error.kind() == io::ErrorKind::NotFound {
        return Err(Failure::unavailable(message(format!(
            "{} is not there: build it with `cargo build --release -p zipline-bench`, or install it beside zipline",
            program.display()
        ))));
    }
    Err(Failure::failed(anyhow::Error::new(error).context(format!("cannot start {}", program.display()))))
}
