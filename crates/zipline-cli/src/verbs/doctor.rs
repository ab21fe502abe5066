//! `zipline doctor`: looks for what could be wrong, and says what to do.

mod checks;

use clap::Args;

use crate::environment::Environment;
use crate::exit::Outcome;
use crate::findings;
use crate::place::Place;

/// `doctor`
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: DoctorArgs, place: Place, environment: Environment) -> Outcome {
    findings::report(&checks::all(&place, &environment).await, args.json)
}
