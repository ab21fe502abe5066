//! `up` with the application that `init` writes: real engine, queue-proxies and Python functions.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Stdio};

use serde_json::Value;
use zipline_testkit::binaries;
use zipline_testkit::process::{descendants, is_running};

use crate::command::{Bench, Done};

/// A running `up`. Dropped, it is killed, and the engine below it notices.
struct Up {
    child: Child,
    stdout: BufReader<ChildStdout>,
    table: String,
}

impl Up {
    /// Returns once the table of functions was printed.
    fn start(bench: &Bench) -> Self {
        binaries::queue_proxy().unwrap();
        assert_eq!(bench.run(["init", "python", "app"]).status, Some(0));
        let mut child = bench
            .command(["up", "app/services.yaml", "--gateway", "127.0.0.1:0", "--grace", "3s"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut table = String::new();
        while table.lines().count() < 3 {
            assert_ne!(stdout.read_line(&mut table).unwrap(), 0, "{}", errors(&mut child));
        }
        Self { child, stdout, table }
    }

    fn signal(&self, signal: rustix::process::Signal) {
        signal_to(self.child.id(), signal);
    }

    /// Waits for the end; the exit status and what it said.
    fn end(mut self) -> Done {
        let stderr = errors(&mut self.child);
        let mut stdout = String::new();
        self.stdout.read_to_string(&mut stdout).unwrap();
        Done { status: self.child.wait().unwrap().code(), stdout, stderr }
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn errors(child: &mut Child) -> String {
    let mut text = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_string(&mut text).unwrap();
    }
    text
}

fn signal_to(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

fn status(bench: &Bench) -> Value {
    let done = bench.run(["status", "--json"]);
    assert_eq!(done.status, Some(0), "{}", done.stderr);
    serde_json::from_str(&done.stdout).unwrap()
}

fn function<'a>(status: &'a Value, service: &str) -> &'a Value {
    status["functions"].as_array().unwrap().iter().find(|function| function["service"] == service).unwrap()
}

#[test]
fn up_invoke_run_and_down() {
    let bench = Bench::new();
    let up = Up::start(&bench);
    assert!(
        up.table.contains("sender.default") && up.table.contains("http://receiver.default.localhost:"),
        "{}",
        up.table
    );

    // Large, between functions: by reference.
    let done = bench.run(["invoke", "sender?megabytes=3"]);
    let answer: Value = serde_json::from_str(&done.stdout).unwrap_or_else(|_| panic!("{done:?}"));
    assert_eq!(
        (done.status, &answer["right"], &answer["received"]["bytes"]),
        (Some(0), &true.into(), &3_000_000.into())
    );
    assert!(done.stderr.starts_with("200 OK, "), "{}", done.stderr);
    let shown = status(&bench);
    let receiver = function(&shown, "receiver");
    assert_eq!(receiver["requests"], 1);
    assert!(receiver["received_bytes"].as_u64().unwrap() < 4096, "{receiver}");

    // From outside, each way to give a body.
    bench.write("body", &"x".repeat(300_000));
    let bodies = [
        bench.run(["invoke", "receiver", "--data", "@body"]),
        bench.run(["invoke", "receiver.default/a?b=c", "-d", "hello"]),
    ];
    let lengths = bodies.map(|done| serde_json::from_str::<Value>(&done.stdout).unwrap()["bytes"].clone());
    assert_eq!(lengths, [300_000, 5]);
    let piped = bench.run_with_input(["invoke", "receiver", "--data", "-"], b"of unknown length");
    assert!(piped.stderr.starts_with("411 ") && piped.status == Some(1), "{piped:?}");

    // Failures of Zipline and of functions.
    let done = bench.run(["invoke", "nothere"]);
    assert_eq!(done.status, Some(1));
    assert!(
        done.stdout.contains("urn:zipline:error:not-found") && done.stderr.starts_with("404 "),
        "{done:?}"
    );
    assert_eq!(bench.run(["invoke", "sender?megabytes=many"]).status, Some(1));

    run_gives_a_local_api(&bench);
    let done = bench.run(["keys", "rotate"]);
    assert_eq!((done.status, done.stdout.as_str()), (Some(0), "NAMESPACE  KEY\ndefault    2\n"));
    let done = bench.run(["logs", "receiver"]);
    assert!(
        done.stdout.lines().any(|line| line.contains(" err | ") && line.contains("POST /")),
        "{}",
        done.stdout
    );
    assert!(bench.run(["status"]).stdout.contains("receiver-00001-"));
    one_engine_per_directory_and_port(&bench, &shown);

    let started = descendants(up.child.id()).unwrap();
    assert!(started.len() >= 5, "an engine and two instances: {started:?}");
    let down = bench.run(["down"]);
    assert_eq!((down.status, down.stdout.as_str()), (Some(0), ""), "{}", down.stderr);
    assert_eq!(started.into_iter().filter(|pid| is_running(*pid)).collect::<Vec<_>>(), [0; 0]);
    let ended = up.end();
    assert_eq!((ended.status, ended.stdout.as_str()), (Some(0), ""), "{}", ended.stderr);
    assert_eq!(bench.run(["status"]).status, Some(3));
}

fn run_gives_a_local_api(bench: &Bench) {
    let script = "import os, urllib.request as u\n\
        r = u.urlopen('http://receiver.default.svc.cluster.local/', data=b'y' * 200000)\n\
        print(r.status, os.environ['ZIPLINE_API'][:17], os.environ['NO_PROXY'][-8:])\n\
        raise SystemExit(7)";
    let mut command = bench.command(["run", "--", "python3", "-c", script]);
    let done = Done::from(command.env("NO_PROXY", "mine.own").output().unwrap());
    assert_eq!(
        done,
        Done { status: Some(7), stdout: "200 http://127.0.0.1: mine.own\n".into(), stderr: String::new() }
    );
    let done = bench.run(["run", "--", "/none/such"]);
    assert_eq!(
        (done.status, done.stderr.as_str()),
        (Some(127), "zipline: cannot start \"/none/such\": No such file or directory\n")
    );
    signals_reach_the_command(bench);
}

fn signals_reach_the_command(bench: &Bench) {
    let script = "trap 'echo asked; exit 5' TERM; echo ready; while :; do read line; done";
    let mut child = bench
        .command(["run", "--", "bash", "-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut text = String::new();
    stdout.read_line(&mut text).unwrap();
    signal_to(child.id(), rustix::process::Signal::TERM);
    stdout.read_to_string(&mut text).unwrap();
    assert_eq!((child.wait().unwrap().code(), text.as_str()), (Some(5), "ready\nasked\n"));
}

fn one_engine_per_directory_and_port(bench: &Bench, shown: &Value) {
    let second = bench.run(["up", "app/services.yaml", "--gateway", "127.0.0.1:0"]);
    assert_eq!(second.status, Some(3));
    assert!(second.stderr.contains("an engine already runs with state directory"), "{}", second.stderr);
    let gateway = shown["engine"]["gateway"].as_str().unwrap();
    let mut command =
        bench.command(["up", "app/services.yaml", "--state-dir", "other", "--gateway", gateway]);
    let taken = Done::from(command.output().unwrap());
    let port = gateway.rsplit_once(':').unwrap().1;
    let expected = format!(
        "zipline: the gateway cannot listen on {gateway}: port {port} is in use; choose another with --gateway 127.0.0.1:PORT\n"
    );
    assert_eq!((taken.status, taken.stderr.as_str()), (Some(3), expected.as_str()));
}

#[test]
fn a_crash_of_the_engine_ends_everything() {
    let bench = Bench::new();
    let up = Up::start(&bench);
    assert_eq!(bench.run(["invoke", "receiver", "--data", "x"]).status, Some(0));
    let started = descendants(up.child.id()).unwrap();
    let engine = status(&bench)["engine"]["pid"].as_u64().unwrap();
    signal_to(u32::try_from(engine).unwrap(), rustix::process::Signal::KILL);
    let ended = up.end();
    assert_eq!(ended.status, Some(137));
    assert!(ended.stderr.contains("the engine was ended by signal 9"), "{}", ended.stderr);
    assert_eq!(started.into_iter().filter(|pid| is_running(*pid)).collect::<Vec<_>>(), [0; 0]);
}

#[test]
fn ctrl_c_ends_everything_and_is_success() {
    let bench = Bench::new();
    let up = Up::start(&bench);
    assert_eq!(bench.run(["invoke", "receiver", "--data", "x"]).status, Some(0));
    let started = descendants(up.child.id()).unwrap();
    up.signal(rustix::process::Signal::INT);
    let ended = up.end();
    assert_eq!(ended.status, Some(0), "{}", ended.stderr);
    assert_eq!(started.into_iter().filter(|pid| is_running(*pid)).collect::<Vec<_>>(), [0; 0]);
}
