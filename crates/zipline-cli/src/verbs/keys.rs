//! `zipline keys rotate`

use clap::{Args, Subcommand};
use zipline_engine::control::Rotation;

use crate::control::Control;
use crate::environment::Environment;
use crate::exit::Outcome;
use crate::output::{self, Table};
use crate::place::Place;
use crate::unix_http::empty;

/// `keys`
#[derive(Debug, Args)]
pub(crate) struct KeysArgs {
    #[command(subcommand)]
    verb: KeysVerb,
}

#[derive(Debug, Subcommand)]
enum KeysVerb {
    /// Seal new references with new keys; references that are under way stay good until they expire
    Rotate {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

pub(crate) async fn run(args: KeysArgs, place: Place, environment: Environment) -> Outcome {
    let KeysVerb::Rotate { json } = args.verb;
    let mut control = Control::connect(&place, &environment).await?;
    let rotation: Rotation = control.post("/v1/keys/rotate", empty()).await?;
    if json {
        output::json(&rotation)?;
    } else {
        let mut table = Table::new(["NAMESPACE", "KEY"]);
        for (tenant, serial) in rotation.tenants {
            table.row([tenant, serial.to_string()]);
        }
        output::data(table.render())?;
    }
    Ok(0)
}
