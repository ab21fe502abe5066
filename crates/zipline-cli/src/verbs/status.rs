//! `zipline status`

use clap::Args;
use zipline_engine::control::{FunctionStatus, InstanceStatus, Status};

use crate::control::Control;
use crate::environment::Environment;
use crate::exit::Outcome;
use crate::output::{self, Table};
use crate::place::Place;
use crate::quantity::{show_measured, show_size};

/// `status`
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: StatusArgs, place: Place, environment: Environment) -> Outcome {
    let mut control = Control::connect(&place, &environment).await?;
    let status: Status = control.get("/v1/status").await?;
    if args.json {
        output::json(&status)?
    } else {
        output::data(show(&status))?
    }
    Ok(0)
}

fn show(status: &Status) -> String {
    let engine = &status.engine;
    let ending = if engine.draining { ", about to end" } else { "" };
    let mut text = format!(
        "engine {} (process {}{ending}), gateway http://{}, state {}\n{}\n\n",
        engine.version, engine.pid, engine.gateway, engine.state_dir, engine.trust
    );
    text.push_str(&functions(&status.functions, &engine.gateway).render());
    let instances = instances(status);
    if !instances.is_empty() {
        text.push('\n');
        text.push_str(&instances.render());
    }
    for function in &status.functions {
        if let Some(failure) = &function.last_failure {
            text.push_str(&format!("\n{}.{} failed: {failure}\n", function.service, function.namespace));
        }
    }
    text
}

/// Functions and where they are reached.
pub(crate) fn functions(functions: &[FunctionStatus], gateway: &str) -> Table {
    let mut table =
        Table::new(["FUNCTION", "URL", "INSTANCES", "MODE", "THRESHOLD", "REQUESTS", "IN", "OUT"]);
    let port = gateway.rsplit_once(':').map_or("", |(_, port)| port);
    for function in functions {
        table.row([
            format!("{}.{}", function.service, function.namespace),
            format!("http://{}.{}.localhost:{port}/", function.service, function.namespace),
            format!("{}/{}", function.instances.len(), function.scale.target),
            function.mode.to_string(),
            show_size(function.threshold_bytes),
            function.requests.to_string(),
            show_measured(function.received_bytes),
            show_measured(function.sent_bytes),
        ]);
    }
    table
}

fn instances(status: &Status) -> Table {
    let mut table = Table::new(["INSTANCE", "STATE", "AGE", "IN FLIGHT", "QUEUE-PROXY", "FUNCTION", "USER"]);
    let all = status.functions.iter().flat_map(|function| &function.instances).chain(&status.guests);
    for instance in all {
        table.row([
            instance.name.clone(),
            state(instance),
            format!("{:.1} s", instance.age_seconds),
            instance.in_flight.to_string(),
            or_dash(instance.queue_proxy_pid),
            or_dash(instance.function_pid),
            or_dash(instance.uid),
        ]);
    }
    table
}

/// The word the engine uses on the wire.
fn state(instance: &InstanceStatus) -> String {
    match serde_json::to_value(instance.state) {
        Ok(serde_json::Value::String(word)) => word,
        _ => "?".into(),
    }
}

fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".into(), |value| value.to_string())
}
