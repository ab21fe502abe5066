//! `zipline payloads`

use clap::Args;
use serde_json::Value;
use zipline_engine::control::Payloads;

use crate::control::Control;
use crate::environment::Environment;
use crate::exit::Outcome;
use crate::output::{self, Table};
use crate::place::Place;
use crate::quantity::show_measured;

/// `payloads`
#[derive(Debug, Args)]
pub(crate) struct PayloadsArgs {
    /// Print JSON: the status of every queue-proxy
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: PayloadsArgs, place: Place, environment: Environment) -> Outcome {
    let mut control = Control::connect(&place, &environment).await?;
    let payloads: Payloads = control.get("/v1/payloads").await?;
    if args.json {
        output::json(&payloads)?;
        return Ok(0);
    }
    for instance in &payloads.instances {
        if let Some(error) = &instance.error {
            output::say(format!("zipline: {} is not counted: {error}", instance.instance));
        }
    }
    let table = table(&payloads);
    if table.is_empty() {
        output::say("zipline: no payload is held");
    } else {
        output::data(table.render())?;
    }
    Ok(0)
}

fn table(payloads: &Payloads) -> Table {
    let mut table = Table::new([
        "HELD BY",
        "KIND",
        "AGE",
        "LENGTH",
        "BUFFERED",
        "RETRIEVALS LEFT",
        "EXPIRES IN",
        "LEASES",
    ]);
    for instance in &payloads.instances {
        let list = instance.status.as_ref().and_then(|status| status["payloads"].as_array());
        for payload in list.into_iter().flatten() {
            table.row([
                instance.instance.clone(),
                payload["kind"].as_str().unwrap_or("?").to_owned(),
                seconds(&payload["age_seconds"]),
                bytes(&payload["length"]),
                bytes(&payload["buffered_bytes"]),
                or_dash(&payload["retrievals_left"]),
                seconds(&payload["expires_in_seconds"]),
                or_dash(&payload["leases"]),
            ]);
        }
    }
    table
}

fn or_dash(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn seconds(value: &Value) -> String {
    value.as_f64().map_or_else(|| "-".into(), |seconds| format!("{seconds:.1} s"))
}

fn bytes(value: &Value) -> String {
    value.as_u64().map_or_else(|| "-".into(), show_measured)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_and_by_whom() {
        let payloads: Payloads = serde_json::from_value(serde_json::json!({
            "schema": 1,
            "instances": [
                { "instance": "a-00001-1", "function": "a.default", "status": { "payloads": [
                    { "kind": "put", "age_seconds": 1.26, "length": 1536, "buffered_bytes": 1536,
                      "retrievals_left": 2, "expires_in_seconds": 58.7, "leases": 0 },
                    { "kind": "request", "age_seconds": 0.0, "length": null, "buffered_bytes": 0,
                      "retrievals_left": null, "expires_in_seconds": null, "leases": 1 },
                ] } },
                { "instance": "b-00001-2", "function": "b.default", "status": null, "error": "gone" },
            ],
        }))
        .unwrap();
        assert_eq!(
            table(&payloads).render(),
            "HELD BY    KIND     AGE    LENGTH   BUFFERED  RETRIEVALS LEFT  EXPIRES IN  LEASES\n\
             a-00001-1  put      1.3 s  1.5 KiB  1.5 KiB   2                58.7 s      0\n\
             a-00001-1  request  0.0 s  -        0 B       -                -           1\n"
        );
    }
}
