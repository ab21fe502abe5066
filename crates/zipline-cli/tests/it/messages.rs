use std::process::Stdio;

use crate::command::{Bench, Done};

#[test]
fn verbs_that_need_an_engine_say_that_none_runs() {
    let bench = Bench::new();
    let expected = format!(
        "zipline: no engine runs with state directory {}: start one with `zipline up FILE`, or name another with --state-dir\n",
        bench.folder().join("state").display()
    );
    let verbs: [&[&str]; 6] = [
        &["status"],
        &["payloads", "--json"],
        &["logs", "recog"],
        &["keys", "rotate"],
        &["invoke", "recog"],
        &["run", "--", "true"],
    ];
    for verb in verbs {
        let mut command = bench.command([]);
        let done = Done::from(command.args(verb).output().unwrap());
        assert_eq!(
            done,
            Done { status: Some(3), stdout: String::new(), stderr: expected.clone() },
            "{verb:?}"
        );
    }
}

#[test]
fn a_socket_that_nobody_listens_on_is_no_engine() {
    let bench = Bench::new();
    let state = bench.folder().join("state");
    zipline_engine::StateDir::open(&state).unwrap();
    drop(std::os::unix::net::UnixListener::bind(state.join("control.sock")).unwrap());
    assert_eq!(bench.run(["status"]).status, Some(3));
}

#[test]
fn down_without_an_engine_is_done() {
    let bench = Bench::new();
    let done = bench.run(["down"]);
    assert_eq!((done.status, done.stdout.as_str()), (Some(0), ""));
    assert!(done.stderr.starts_with("zipline: no engine runs with state directory "), "{}", done.stderr);
}

#[test]
fn a_state_directory_of_others_is_refused() {
    let bench = Bench::new();
    let done = bench.run(["status", "--state-dir", "/usr"]);
    assert_eq!(done.status, Some(2));
    assert!(done.stderr.starts_with("zipline: state directory /usr "), "{}", done.stderr);
}

#[test]
fn usage_errors_are_2_and_help_is_0() {
    let bench = Bench::new();
    let wrong: [&[&str]; 9] = [
        &[],
        &["fly"],
        &["up"],
        &["up", "a.yaml", "--listen", "127.0.0.1:1"],
        &["invoke", "Not_A_Name"],
        &["invoke", "a", "-H", "no colon"],
        &["invoke", "a", "--timeout", "1"],
        &["logs", "a b"],
        &["run"],
    ];
    for args in wrong {
        let done = Done::from(bench.command([]).args(args).output().unwrap());
        assert_eq!((done.status, done.stdout.as_str()), (Some(2), ""), "{args:?}");
    }
    let help = bench.run(["--help"]);
    assert_eq!((help.status, help.stderr.as_str()), (Some(0), ""));
    assert!(help.stdout.contains("Exit status: 0 done"));
    assert!(!help.stdout.contains("__exec") && !help.stdout.contains("__engine"));
}

#[test]
fn every_setting_is_a_flag_of_up_with_its_default() {
    let help = Bench::new().run(["up", "--help"]).stdout;
    for (flag, default) in
        [("--gateway <ADDRESS>", "127.0.0.1:8080"), ("--budget <SIZE>", "256MiB"), ("--grace <TIME>", "10s")]
    {
        assert!(help.contains(flag) && help.contains(&format!("[default: {default}]")), "{help}");
    }
    assert!(help.contains("ZIPLINE_UP_BUDGET"));
}

#[test]
fn missing_files_are_named_before_an_engine_is_looked_for() {
    let done = Bench::new().run(["invoke", "recog", "--data", "@none.bin"]);
    assert_eq!(
        (done.status, done.stderr.as_str()),
        (Some(2), "zipline: cannot open none.bin: No such file or directory (os error 2)\n")
    );
}

#[test]
fn a_reader_who_went_away_is_no_failure() {
    let bench = Bench::new();
    let mut child =
        bench.command(["config", "show"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let done = Done::from(child.wait_with_output().unwrap());
    assert_eq!((done.status, done.stderr.as_str()), (Some(0), ""));
}

#[test]
fn the_engine_is_started_by_up_only() {
    let done = Bench::new().run(["__engine", "a.yaml"]);
    assert_eq!(done.status, Some(2));
    assert!(done.stderr.contains("the engine is started by `zipline up` only"), "{}", done.stderr);
}

#[test]
fn a_manifest_that_is_not_there_ends_up_with_2() {
    let done = Bench::new().run(["up", "none.yaml"]);
    assert_eq!((done.status, done.stdout.as_str()), (Some(2), ""));
    assert!(done.stderr.contains("none.yaml: cannot be read"), "{}", done.stderr);
}

#[test]
fn doctor_names_what_it_found() {
    let bench = Bench::new();
    let done = bench.run(["doctor", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(
        (done.status, report["schema"].as_u64()),
        (Some(if report["healthy"] == true { 0 } else { 1 }), Some(1))
    );
    let findings = report["findings"].as_array().unwrap();
    let level =
        |check: &str| findings.iter().find(|finding| finding["check"] == check).unwrap()["level"].clone();
    assert_eq!([level("loopback"), level("settings"), level("engine")], ["ok", "ok", "ok"]);

    bench.write("zipline.toml", "[up]\nmode = \"maybe\"\n");
    let done = bench.run(["doctor"]);
    assert_eq!(done.status, Some(1));
    assert!(
        done.stdout.contains("mode (from zipline.toml): \"maybe\" is not one of off, receive, on"),
        "{}",
        done.stdout
    );
}

#[test]
fn completions_know_the_verbs() {
    let done = Bench::new().run(["completions", "bash"]);
    assert_eq!((done.status, done.stderr.as_str()), (Some(0), ""));
    assert!(done.stdout.contains("payloads") && done.stdout.contains("--instance-uids"));
}
