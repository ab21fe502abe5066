//! `zipline bench transfer` works: its function, never its figures.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use zipline_testkit::binaries;

#[test]
fn payloads_move_by_every_path_and_pattern() -> Result<()> {
    let output = Command::new(binaries::bench()?).args(["transfer", "--short", "--json"]).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout)?;
    let rows = report["rows"].as_array().context("no rows")?;
    let text = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
    let seen: BTreeSet<(String, String, String)> =
        rows.iter().map(|row| (text(row, "system"), text(row, "path"), text(row, "pattern"))).collect();
    for path in ["network", "same-host"] {
        for pattern in ["1-1", "scatter", "gather", "broadcast", "shuffle"] {
            for system in ["zipline", "zipline-put", "zipline-http", "redis"] {
                let case = (system.to_owned(), path.to_owned(), pattern.to_owned());
                ensure!(seen.contains(&case), "{case:?} is missing");
            }
        }
        for system in ["zipline-preissued", "zipline-invoke", "bare", "nginx", "nginx-2"] {
            let case = (system.to_owned(), path.to_owned(), "1-1".to_owned());
            ensure!(seen.contains(&case), "{case:?} is missing");
        }
    }
    for row in rows {
        let seconds = row["median_seconds"].as_f64().context("no median")?;
        ensure!(seconds > 0.0 && row["runs"].as_u64() == Some(1), "{row}");
    }
    Ok(())
}

#[test]
fn an_interrupted_benchmark_leaves_nothing_behind() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut bench = Command::new(binaries::bench()?)
        .args(["transfer", "--systems", "bare", "--sizes", "10KB,1MB", "--rounds", "10000"])
        .env("TMPDIR", folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let said = BufReader::new(bench.stderr.take().context("standard error")?);
    let pid = i32::try_from(bench.id()).ok().and_then(Pid::from_raw).context("pid")?;
    // The first case is done, so everything has been started.
    let mut lines = said.lines();
    lines.next().context("it said nothing")??;
    kill_process(pid, Signal::INT)?;
    for line in lines {
        line?;
    }
    ensure!(bench.wait()?.code() == Some(130));
    let left: Vec<_> = fs::read_dir(folder.path())?.collect();
    ensure!(left.is_empty(), "{left:?}");
    let name = folder.path().to_string_lossy().into_owned();
    for process in fs::read_dir("/proc")?.flatten() {
        let environment = fs::read(process.path().join("environ")).unwrap_or_default();
        let own = process.file_name().to_string_lossy() == std::process::id().to_string();
        ensure!(
            own || !String::from_utf8_lossy(&environment).contains(&name),
            "{:?} still runs",
            process.path()
        );
    }
    Ok(())
}
