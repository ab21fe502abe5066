use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::time::Duration;

use zipline_engine::InstanceUids;
use zipline_protocol::Mode;

use super::*;
use crate::quantity::{show_duration, show_size};

fn environment(variables: &[(&str, &str)]) -> Environment {
    Environment::from_variables(
        variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))),
    )
}

fn file(text: &str) -> FileValues {
    FileValues::parse(Path::new("zipline.toml"), text).unwrap()
}

fn programs() -> zipline_engine::Programs {
    zipline_engine::Programs { zipline: "z".into(), queue_proxy: "q".into() }
}

fn found<'a>(resolved: &'a [Resolved], key: &str) -> (&'a str, &'a Origin) {
    let found = resolved.iter().find(|resolved| resolved.key == key).unwrap();
    (&found.value, &found.origin)
}

#[test]
fn flags_win_over_variables_over_the_file_over_defaults() {
    let flags = [("budget", "1GiB".to_owned())];
    let environment =
        environment(&[("ZIPLINE_UP_BUDGET", "2GiB"), ("ZIPLINE_UP_GRACE", "2s"), ("ZIPLINE_TOKEN", "x")]);
    let file =
        file("[up]\nbudget = \"3GiB\"\ngrace = \"3s\"\nheld-max = 3\nproxy-env = false\ndata-tls = true\n");
    let resolved = resolve(&flags, &environment, &file).unwrap();
    assert_eq!(found(&resolved, "budget"), ("1GiB", &Origin::Flag("budget")));
    assert_eq!(found(&resolved, "grace"), ("2s", &Origin::Variable("ZIPLINE_UP_GRACE".into())));
    assert_eq!(found(&resolved, "held-max"), ("3", &Origin::File("zipline.toml".into())));
    assert_eq!(found(&resolved, "mode"), ("on", &Origin::Default));
    let settings = Settings::parse(&resolved).unwrap();
    assert_eq!(settings.budget_bytes, 1 << 30);
    assert_eq!(settings.grace, Duration::from_secs(2));
    assert_eq!((settings.held_max, settings.proxy_env, settings.data_tls), (3, false, true));
    assert!(settings.engine("/s".into(), programs(), Vec::new()).data_tls);
}

#[test]
fn every_default_is_understood_and_is_the_engines() {
    let resolved = resolve(&[], &Environment::default(), &FileValues::default()).unwrap();
    assert_eq!(resolved.len(), CATALOGUE.len());
    let settings = Settings::parse(&resolved).unwrap();
    let engine = zipline_engine::EngineConfig::new("/tmp/state".into(), programs());
    assert_eq!(settings.gateway, engine.listen);
    assert_eq!(settings.mode, engine.mode);
    assert_eq!(settings.data_tls, engine.data_tls);
    assert_eq!(settings.proxy_env, engine.proxy_env);
    assert_eq!(settings.instance_uids, engine.instance_uids);
    assert_eq!(found(&resolved, "threshold").0, show_size(engine.threshold_bytes));
    assert_eq!(settings.threshold_bytes, zipline_protocol::limits::THRESHOLD_DEFAULT);
    assert_eq!(settings.digest_max_bytes, zipline_protocol::limits::DIGEST_MAX);
    assert_eq!(found(&resolved, "budget").0, show_size(engine.budget_bytes));
    assert_eq!(found(&resolved, "ready-timeout").0, show_duration(engine.ready_timeout));
    assert_eq!(found(&resolved, "grace").0, show_duration(engine.grace));
    assert_eq!(settings.held_max, engine.held_max);
    assert_eq!(settings.log, engine.queue_proxy_log);
}

#[test]
fn what_may_be_in_flight_follows_the_budget_unless_it_is_said() {
    let parse = |flags: &[(&'static str, String)]| {
        Settings::parse(&resolve(flags, &Environment::default(), &FileValues::default()).unwrap())
    };
    let settings = parse(&[("budget", "1GiB".to_owned())]).unwrap();
    assert_eq!((settings.in_flight_bytes, settings.in_flight_bytes(1)), (None, 1 << 30));
    assert_eq!(settings.in_flight_bytes(2 << 30), 2 << 30);
    let settings = parse(&[("in-flight", "64MiB".to_owned())]).unwrap();
    assert_eq!(settings.in_flight_bytes(1 << 40), 64 << 20);
    let error = parse(&[("in-flight", "64MB".to_owned())]).unwrap_err().to_string();
    assert!(
        error.starts_with("in-flight (from --in-flight): ") && error.ends_with("; or write budget"),
        "{error}"
    );
}

#[test]
fn everything_that_is_wrong_is_said_at_once_with_its_origin() {
    let flags =
        [("gateway", "8080".to_owned()), ("threshold", "1B".to_owned()), ("mode", "maybe".to_owned())];
    let environment = environment(&[("ZIPLINE_UP_GRACE", "10"), ("ZIPLINE_UP_HELD_MAX", "-1")]);
    let file = file("[up]\nlog-format = \"xml\"\nready-timeout = \"25h\"\ninstance-uids = true\n");
    let error = Settings::parse(&resolve(&flags, &environment, &file).unwrap()).unwrap_err();
    assert_eq!(
        error.to_string().lines().collect::<Vec<_>>(),
        [
            "gateway (from --gateway): \"8080\" is not an address with a port: write for example 127.0.0.1:8080",
            "mode (from --mode): \"maybe\" is not one of off, receive, on",
            &format!(
                "threshold (from --threshold): 1 bytes are not within {} to 70368744177664",
                zipline_protocol::limits::THRESHOLD_MIN
            ),
            "instance-uids (from zipline.toml): \"true\" is not one of auto, off, require",
            "ready-timeout (from zipline.toml): \"25h\" is longer than 24h",
            "grace (from ZIPLINE_UP_GRACE): \"10\" is not a duration: write for example 500ms, 30s, 5m or 1h",
            "held-max (from ZIPLINE_UP_HELD_MAX): \"-1\" is not a number from 1 to 1000000",
            "log-format (from zipline.toml): log format \"xml\" is not known, use text or json",
        ]
    );
}

#[test]
fn unknown_variables_and_keys_are_refused() {
    let error =
        resolve(&[], &environment(&[("ZIPLINE_UP_BUGDET", "1")]), &FileValues::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "variable ZIPLINE_UP_BUGDET is not known; `zipline config show` lists every setting"
    );
    let parse = |text| FileValues::parse(Path::new("z.toml"), text).unwrap_err().to_string();
    assert_eq!(
        parse("[up]\nbugdet = 1\ngrace = [1]\n[down]\n"),
        "z.toml: down is not known; settings stand in the table [up]\n\
         z.toml: up.bugdet is not known; `zipline config show` lists every setting\n\
         z.toml: up.grace must be a text, a whole number or a boolean"
    );
    assert!(parse("[up\n").starts_with("z.toml: TOML parse error at line 1"));
}

#[test]
fn variables_that_are_no_text_are_refused() {
    let name = OsString::from("ZIPLINE_UP_LOG");
    let environment = Environment::from_variables([(name, OsString::from_vec(vec![0xff]))]);
    let error = resolve(&[], &environment, &FileValues::default()).unwrap_err();
    assert_eq!(error.to_string(), "variable ZIPLINE_UP_LOG is not UTF-8");
}

#[test]
fn a_named_file_must_be_there() {
    let folder = tempfile::tempdir().unwrap();
    let error = FileValues::read(Some(&folder.path().join("none.toml"))).unwrap_err();
    assert!(error.to_string().contains("none.toml: cannot be read"), "{error}");
}

#[test]
fn modes_and_users_have_all_their_words() {
    for (mode, expected) in [("off", Mode::Off), ("receive", Mode::Receive), ("on", Mode::On)] {
        let flags = [("mode", mode.to_owned()), ("instance-uids", "require".to_owned())];
        let resolved = resolve(&flags, &Environment::default(), &FileValues::default()).unwrap();
        let settings = Settings::parse(&resolved).unwrap();
        assert_eq!((settings.mode, settings.instance_uids), (expected, InstanceUids::Require));
    }
}
