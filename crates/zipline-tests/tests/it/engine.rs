//! The standalone engine as its user meets it.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use http::Method;
use rustix::process::{Pid, Signal, kill_process};
use zipline_testkit::client::Protocol;
use zipline_testkit::engine::{Engine, Manifest, Place};
use zipline_testkit::process::{Process, is_running};
use zipline_testkit::{pattern, wait};
use zipline_tests::turn;

const MIN: &str = "autoscaling.knative.dev/min-scale";
const MAX: &str = "autoscaling.knative.dev/max-scale";

fn kill(id: u32) -> Result<()> {
    let id = i32::try_from(id).ok().and_then(Pid::from_raw).context("no process id")?;
    kill_process(id, Signal::KILL).context("kill")
}

async fn all_end(processes: &[u32]) -> Result<()> {
    wait::until("the processes to end", || async {
        let left: Vec<u32> = processes.iter().copied().filter(|id| is_running(*id)).collect();
        ensure!(left.is_empty(), "{left:?} still run");
        Ok(Some(()))
    })
    .await
}

/// An engine with one warm function and one that has no instance yet, everything it runs, and a stranger.
async fn stage() -> Result<(Engine, Vec<u32>, Process)> {
    let warm = Manifest::test_function("warm")?.annotation(MIN, "1");
    let cold = Manifest::test_function("cold")?;
    let engine = Engine::start(&(warm.yaml() + &cold.yaml()), &[]).await?;
    for service in ["warm", "cold"] {
        let reply = engine.get(service, "/headers").await?;
        ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
    }
    let processes = engine.processes()?;
    // An engine, and a queue-proxy and a function for each of the two.
    ensure!(processes.len() >= 5, "{processes:?}");
    let stranger = Process::start(Command::new("sleep").arg("1000").stdin(Stdio::null()))?;
    Ok((engine, processes, stranger))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn down_ends_everything_and_nothing_else() -> Result<()> {
    let _turn = turn::ordinary().await;
    let (mut engine, processes, mut stranger) = stage().await?;
    let done = engine.place.run(&["down"]).await?;
    ensure!(done.status == Some(0), "{done:?}");
    all_end(&processes).await?;
    let ended = engine.process.end().await?;
    ensure!(ended.success(), "{ended}: {}", engine.process.log());
    ensure!(stranger.ended()?.is_none(), "a stranger was ended");
    let again = engine.place.run(&["down"]).await?;
    ensure!(again.status == Some(0), "{again:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ctrl_c_ends_everything_and_nothing_else() -> Result<()> {
    let _turn = turn::ordinary().await;
    let (mut engine, processes, mut stranger) = stage().await?;
    engine.process.signal(Signal::INT)?;
    all_end(&processes).await?;
    let ended = engine.process.end().await?;
    ensure!(ended.success(), "{ended}: {}", engine.process.log());
    ensure!(stranger.ended()?.is_none(), "a stranger was ended");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_engine_takes_everything_with_it() -> Result<()> {
    let _turn = turn::ordinary().await;
    let (mut engine, processes, mut stranger) = stage().await?;
    let id = engine.status().await?["engine"]["pid"].as_u64().context("pid")?;
    kill(u32::try_from(id)?)?;
    all_end(&processes).await?;
    ensure!(!engine.process.end().await?.success(), "a crash looks like success");
    ensure!(stranger.ended()?.is_none(), "a stranger was ended");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_guard_takes_everything_with_it() -> Result<()> {
    let _turn = turn::ordinary().await;
    let (mut engine, processes, mut stranger) = stage().await?;
    engine.process.kill()?;
    all_end(&processes).await?;
    ensure!(stranger.ended()?.is_none(), "a stranger was ended");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_crash_of_both_leaves_down_ends() -> Result<()> {
    let _turn = turn::ordinary().await;
    let (mut engine, processes, mut stranger) = stage().await?;
    let id = u32::try_from(engine.status().await?["engine"]["pid"].as_u64().context("pid")?)?;
    // Both at once: neither can clean up after the other.
    engine.process.signal(Signal::STOP)?;
    kill(id)?;
    engine.process.kill()?;
    let done = engine.place.run(&["down"]).await?;
    ensure!(done.status == Some(0), "{done:?}");
    all_end(&processes).await?;
    ensure!(stranger.ended()?.is_none(), "a stranger was ended");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_wait_for_the_first_instance() -> Result<()> {
    let _turn = turn::ordinary().await;
    let engine = Engine::start(&Manifest::test_function("cold")?.annotation(MAX, "1").yaml(), &[]).await?;
    let calls = (0..30_u64).map(|seed| {
        let call = engine.call(Protocol::ALL[usize::from(seed % 2 == 0)], Method::POST, "cold", "/sha256");
        call.pattern(seed, 10_000, true).send(engine.gateway)
    });
    for (seed, reply) in (0_u64..).zip(try_join_all(calls).await?) {
        ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
        ensure!(reply.json()?["sha256"] == pattern::sha256(seed, 10_000), "other bytes");
    }
    let function = engine.function("cold").await?;
    ensure!(function["instances"].as_array().context("instances")?.len() == 1, "{function}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_spread_over_instances() -> Result<()> {
    let _turn = turn::ordinary().await;
    let manifest = Manifest::test_function("many")?.annotation(MIN, "3").annotation(MAX, "3");
    let engine = Engine::start(&manifest.spec("containerConcurrency", "1").yaml(), &[]).await?;
    wait::until("three instances", || async {
        let function = engine.function("many").await?;
        let ready = function["instances"].as_array().context("instances")?;
        let ready = ready.iter().filter(|instance| instance["state"] == "ready").count();
        Ok((ready == 3).then_some(()))
    })
    .await?;
    let calls = (0..24_u64).map(|seed| {
        let call = engine.call(Protocol::Http1, Method::POST, "many", "/sha256");
        call.pattern(seed, 2_000_000, true).send(engine.gateway)
    });
    let mut processes = BTreeSet::new();
    for reply in try_join_all(calls).await? {
        ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
        processes.insert(reply.json()?["process"].as_u64().context("process")?);
    }
    ensure!(processes.len() == 3, "{} of 3 instances worked", processes.len());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crashed_instance_is_started_again() -> Result<()> {
    let _turn = turn::ordinary().await;
    let engine = Engine::start(&Manifest::test_function("frail")?.annotation(MIN, "1").yaml(), &[]).await?;
    let before = engine.call(Protocol::Http1, Method::POST, "frail", "/sha256").send(engine.gateway).await?;
    let before = before.json()?["process"].clone();
    for failures in 1..3 {
        // What runs fails cleanly, and once only: nobody could know how far it came.
        let reply = engine.get("frail", "/exit").await?;
        ensure!(reply.status == 502, "{} {}", reply.status, reply.text());
        wait::until("the crash to be noticed", || async {
            Ok((engine.function("frail").await?["failures"].as_u64() >= Some(failures)).then_some(()))
        })
        .await?;
        let after =
            engine.call(Protocol::Http1, Method::POST, "frail", "/sha256").send(engine.gateway).await?;
        ensure!(after.status == 200, "{} {}", after.status, after.text());
        ensure!(after.json()?["process"] != before, "the same process");
    }
    let function = engine.function("frail").await?;
    ensure!(function["failures"].as_u64() == Some(2), "{function}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_that_never_becomes_ready_is_named() -> Result<()> {
    let _turn = turn::ordinary().await;
    let manifests = Manifest::new("deaf", &["sleep", "1000"]).yaml()
        + &Manifest::new("brief", &["true"]).yaml()
        + &Manifest::test_function("well")?.yaml();
    let engine = Engine::start(&manifests, &["--ready-timeout", "1s"]).await?;
    for service in ["deaf", "brief"] {
        let reply = engine.get(service, "/").await?;
        ensure!(matches!(reply.status.as_u16(), 502..=504), "{service}: {} {}", reply.status, reply.text());
        ensure!(reply.text().contains(service), "{service}: the answer names nobody: {}", reply.text());
        let function = engine.function(service).await?;
        ensure!(function["last_failure"].as_str().is_some_and(|failure| !failure.is_empty()), "{function}");
    }
    let reply = engine.get("well", "/headers").await?;
    ensure!(reply.status == 200, "others suffer: {} {}", reply.status, reply.text());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn manifests_are_refused_by_name_and_line() -> Result<()> {
    let good = Manifest::new("f", &["sleep", "1"]).yaml();
    let replaced = |from: &str, to: &str| good.replace(from, to);
    for (what, manifest, says) in [
        ("no YAML", "apiVersion: [\n".to_owned(), vec!["services.yaml:"]),
        ("nothing", String::new(), vec!["services.yaml"]),
        ("another kind", replaced("kind: Service", "kind: Deployment"), vec![":2", "Deployment"]),
        (
            "another version",
            replaced("serving.knative.dev/v1", "serving.knative.dev/v1beta1"),
            vec![":1", "v1beta1"],
        ),
        ("an unknown field", replaced("    spec:\n", "    spec:\n      colour: red\n"), vec![":8", "colour"]),
        (
            "an unsupported field",
            replaced("    spec:\n", "    spec:\n      serviceAccountName: x\n"),
            vec![":8", "serviceAccountName"],
        ),
        (
            "a wrong value",
            replaced("    spec:\n", "    spec:\n      containerConcurrency: many\n"),
            vec![":8", "containerConcurrency"],
        ),
        (
            "a negative value",
            replaced("    spec:\n", "    spec:\n      timeoutSeconds: -1\n"),
            vec![":8", "timeoutSeconds"],
        ),
        (
            "an image only",
            replaced("command: [\"sleep\", \"1\"]", "image: example.com/f"),
            vec![":9", "command"],
        ),
        ("no name", replaced("  name: f\n", "  labels: {}\n"), vec!["name"]),
        ("a name that is none", replaced("name: f", "name: F_f"), vec![":4", "F_f"]),
        ("the same twice", good.clone() + &good, vec!["twice"]),
    ] {
        let place = Place::new(&manifest)?;
        let done = place.up(&[]).await.with_context(|| what)?;
        ensure!(done.status == Some(2), "{what}: {done:?}");
        for said in says {
            ensure!(done.stderr.contains(said), "{what}: nothing of {said:?} in {:?}", done.stderr);
        }
        ensure!(done.stdout.is_empty(), "{what}: {done:?}");
    }
    let place = Place::new(&good)?;
    let done = place.run(&["up", "nowhere.yaml"]).await?;
    ensure!(done.status == Some(2) && done.stderr.contains("nowhere.yaml"), "{done:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_does_not_exist_is_named() -> Result<()> {
    for command in ["no-such-command-anywhere", "./not-here", "/etc/passwd", "/etc"] {
        let place = Place::new(&Manifest::new("f", &[command]).yaml())?;
        let done = place.up(&[]).await?;
        ensure!(done.status == Some(2), "{command}: {done:?}");
        ensure!(done.stderr.contains(command) && done.stderr.contains("f.default"), "{command}: {done:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_in_use_is_named() -> Result<()> {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = taken.local_addr()?.to_string();
    let place = Place::new(&Manifest::new("f", &["sleep", "1"]).yaml())?;
    let done = place.run(&["up", "services.yaml", "--gateway", &address]).await?;
    ensure!(done.status == Some(3), "{done:?}");
    ensure!(done.stderr.contains(&address) && done.stderr.contains("in use"), "{done:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_and_paths_lead_to_functions() -> Result<()> {
    let _turn = turn::ordinary().await;
    let engine = Engine::start(&Manifest::test_function("f")?.yaml(), &[]).await?;
    for protocol in Protocol::ALL {
        for (host, path) in [
            ("f.default.svc.cluster.local", "/headers?x=1"),
            ("f.default.svc", "/headers"),
            ("f.default.localhost", "/headers"),
            ("f.default.localhost:8080", "/headers"),
            ("localhost", "/default/f/headers"),
            ("127.0.0.1", "/default/f/headers"),
        ] {
            let call = zipline_testkit::client::Call::new(protocol, Method::GET, path).host(host);
            let reply = call.send(engine.gateway).await?;
            ensure!(reply.status == 200, "{host}{path}: {} {}", reply.status, reply.text());
            ensure!(reply.json()?["headers"].is_object(), "{host}{path}: {}", reply.text());
            let leaked = reply.headers.keys().find(|name| name.as_str().starts_with("zipline-opened"));
            ensure!(leaked.is_none(), "{host}{path}: {leaked:?}");
        }
        for (host, path) in [
            ("g.default.localhost", "/"),
            ("localhost", "/default/g/"),
            ("localhost", "/"),
            ("x.example", "/"),
        ] {
            let call = zipline_testkit::client::Call::new(protocol, Method::GET, path).host(host);
            let reply = call.send(engine.gateway).await?;
            ensure!(reply.status == 404, "{host}{path}: {} {}", reply.status, reply.text());
            ensure!(
                reply.text().contains("f.default"),
                "{host}{path}: it does not say what there is: {}",
                reply.text()
            );
        }
    }
    Ok(())
}

/// With curl alone: fifty megabytes to a function, by path and through the proxy, hardly touch the gateway.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_megabytes_with_curl() -> Result<()> {
    const UP: u64 = 50_000_000;
    const DOWN: u64 = 20_000_000;
    let _turn = turn::ordinary().await;
    let engine = Engine::start(&Manifest::test_function("f")?.annotation(MIN, "1").yaml(), &[]).await?;
    let file = engine.place.manifests().with_file_name("payload");
    std::fs::write(&file, pattern::bytes(3, 0, usize::try_from(UP)?))?;
    let data = format!("@{}", file.display());
    let answer = file.with_file_name("answer");
    let answer_path = answer.display().to_string();
    for (way, curl) in [
        (
            "by path",
            "curl -sS --fail-with-body -H \"Zipline-Token: $ZIPLINE_TOKEN\" \"$ZIPLINE_API/v1/invoke/f.default",
        ),
        ("through the proxy", "curl -sS --fail-with-body \"http://f.default.svc.cluster.local"),
    ] {
        let before = engine.function("f").await?;
        let digest = format!("{curl}/sha256\" --data-binary {data}");
        let done = engine.place.run(&["run", "--", "sh", "-c", &digest]).await?;
        ensure!(done.status == Some(0), "{way}: {done:?}");
        let seen: serde_json::Value = serde_json::from_str(&done.stdout)?;
        ensure!(seen["sha256"] == pattern::sha256(3, UP), "{way}: {seen}");
        let large = format!("{curl}/size?bytes={DOWN}&seed=5\" -o {answer_path} -d small");
        let done = engine.place.run(&["run", "--", "sh", "-c", &large]).await?;
        ensure!(done.status == Some(0), "{way}: {done:?}");
        ensure!(
            std::fs::read(&answer)? == pattern::bytes(5, 0, usize::try_from(DOWN)?),
            "{way}: other bytes"
        );
        let after = engine.function("f").await?;
        for field in ["received_bytes", "sent_bytes"] {
            let bytes = |status: &serde_json::Value| status[field].as_u64().unwrap_or(u64::MAX / 2);
            let crossed = bytes(&after) - bytes(&before);
            ensure!(crossed < 64 * 1024, "{way}: {crossed} {field} at the gateway");
        }
    }
    Ok(())
}
