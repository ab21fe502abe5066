//! `zipline config show`

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::environment::Environment;
use crate::exit::{Failure, Outcome};
use crate::output::{self, Table};
use crate::place::Place;
use crate::settings::{self, FileValues, SettingFlags, Settings};

/// `config`
#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    verb: ConfigVerb,
}

#[derive(Debug, Subcommand)]
enum ConfigVerb {
    /// Print every setting of `up` and where its value comes from
    Show {
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        flags: SettingFlags,
    },
}

#[derive(Debug, Serialize)]
struct Shown {
    /// 1.
    schema: u32,
    settings: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    key: &'static str,
    value: String,
    /// `flag`, `environment`, `file` or `default`.
    origin: &'static str,
    /// Which one.
    from: String,
}

pub(crate) fn run(args: &ConfigArgs, place: &Place, environment: &Environment) -> Outcome {
    let ConfigVerb::Show { json, flags } = &args.verb;
    let file = FileValues::read(place.config(environment).as_deref()).map_err(Failure::usage)?;
    let resolved = settings::resolve(&flags.given, environment, &file).map_err(Failure::usage)?;
    Settings::parse(&resolved).map_err(Failure::usage)?;
    let state_dir = place.state_dir(environment);
    let mut rows = vec![Row {
        key: "state-dir",
        value: state_dir.path.display().to_string(),
        origin: state_dir.origin,
        from: state_dir.from().into(),
    }];
    rows.extend(resolved.into_iter().map(|resolved| Row {
        key: resolved.key,
        value: resolved.value,
        origin: resolved.origin.kind(),
        from: resolved.origin.to_string(),
    }));
    if *json {
        output::json(&Shown { schema: 1, settings: rows })?;
    } else {
        let mut table = Table::new(["SETTING", "VALUE", "FROM"]);
        for row in rows {
            table.row([row.key.into(), row.value, row.from]);
        }
        output::data(table.render())?;
    }
    Ok(0)
}
