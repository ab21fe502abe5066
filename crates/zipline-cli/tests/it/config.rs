use serde_json::Value;

use crate::command::{Bench, Done};

fn row(shown: &Value, key: &str) -> [String; 3] {
    let rows = shown["settings"].as_array().unwrap();
    let row = rows.iter().find(|row| row["key"] == key).unwrap();
    ["value", "origin", "from"].map(|field| row[field].as_str().unwrap().to_owned())
}

fn strings(row: [&str; 3]) -> [String; 3] {
    row.map(str::to_owned)
}

#[test]
fn every_value_is_shown_with_its_origin() {
    let bench = Bench::new();
    bench.write("zipline.toml", "[up]\nbudget = \"64MiB\"\ngrace = \"1s\"\nmode = \"receive\"\n");
    let mut command = bench.command(["config", "show", "--json", "--budget", "1GiB"]);
    let done = Done::from(command.env("ZIPLINE_UP_GRACE", "2s").output().unwrap());
    assert_eq!((done.status, done.stderr.as_str()), (Some(0), ""));
    let shown: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(shown["schema"], 1);
    assert_eq!(row(&shown, "budget"), strings(["1GiB", "flag", "--budget"]));
    assert_eq!(row(&shown, "grace"), strings(["2s", "environment", "ZIPLINE_UP_GRACE"]));
    assert_eq!(row(&shown, "mode"), strings(["receive", "file", "zipline.toml"]));
    assert_eq!(row(&shown, "threshold"), strings(["256KiB", "default", "default"]));
    assert_eq!(row(&shown, "state-dir")[1..], ["environment", "ZIPLINE_STATE_DIR"]);
}

#[test]
fn the_table_has_the_same() {
    let done = Bench::new().run(["config", "show", "--state-dir", "/x"]);
    assert!(done.stdout.lines().any(|line| line.split_whitespace().eq(["state-dir", "/x", "--state-dir"])));
    assert!(done.stdout.lines().any(|line| line.split_whitespace().eq([
        "gateway",
        "127.0.0.1:8080",
        "default"
    ])));
}

#[test]
fn wrong_settings_end_up_and_config_alike_before_anything_starts() {
    let bench = Bench::new();
    bench.write("other.toml", "[up]\nbugdet = 1\n");
    let message = "zipline: other.toml: up.bugdet is not known; `zipline config show` lists every setting\n";
    for args in [["config", "show", "--config", "other.toml"], ["up", "none.yaml", "--config", "other.toml"]]
    {
        let done = bench.run(args);
        assert_eq!((done.status, done.stdout.as_str(), done.stderr.as_str()), (Some(2), "", message));
    }
    let done = bench.run(["up", "none.yaml", "--gateway", "8080", "--grace", "-1s"]);
    assert_eq!(
        (done.status, done.stderr.as_str()),
        (
            Some(2),
            "zipline: gateway (from --gateway): \"8080\" is not an address with a port: write for example 127.0.0.1:8080\n\
             zipline: grace (from --grace): \"-1s\" is not a duration: write for example 500ms, 30s, 5m or 1h\n"
        )
    );
    assert!(!bench.folder().join("state").exists());
}
