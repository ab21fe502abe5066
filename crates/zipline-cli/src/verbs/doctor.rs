//! `zipline doctor`: looks for what could be wrong, and says what to do.

mod checks;

use clap::Args;
use serde::Serialize;

use crate::environment::Environment;
use crate::exit::{FAILED, Outcome};
use crate::output::{self, Table};
use crate::place::Place;

/// `doctor`
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Ok,
    /// Works, but less well.
    Warning,
    /// Does not work.
    Error,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    check: &'static str,
    level: Level,
    /// What was found.
    found: String,
    /// What to do; none if nothing is to be done.
    todo: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, level: Level::Ok, found: found.into(), todo: None }
    }

    fn warning(check: &'static str, found: impl Into<String>, todo: impl Into<String>) -> Self {
        Self { check, level: Level::Warning, found: found.into(), todo: Some(todo.into()) }
    }

    fn error(check: &'static str, found: impl Into<String>, todo: impl Into<String>) -> Self {
        Self { check, level: Level::Error, found: found.into(), todo: Some(todo.into()) }
    }
}

#[derive(Debug, Serialize)]
struct Report {
    /// 1.
    schema: u32,
    /// No error among them.
    healthy: bool,
    findings: Vec<Finding>,
}

pub(crate) async fn run(args: DoctorArgs, place: Place, environment: Environment) -> Outcome {
    let findings = checks::all(&place, &environment).await;
    let healthy = findings.iter().all(|finding| finding.level < Level::Error);
    let report = Report { schema: 1, healthy, findings };
    if args.json {
        output::json(&report)?
    } else {
        output::data(show(&report.findings))?
    }
    Ok(if healthy { 0 } else { FAILED })
}

fn show(findings: &[Finding]) -> String {
    let mut table = Table::new(["CHECK", "", "FOUND"]);
    for finding in findings {
        let level = match finding.level {
            Level::Ok => "ok",
            Level::Warning => "warning",
            Level::Error => "ERROR",
        };
        table.row([finding.check.into(), level.into(), finding.found.clone()]);
        if let Some(todo) = &finding.todo {
            table.row([String::new(), String::new(), format!("-> {todo}")]);
        }
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_finding_says_what_to_do() {
        let findings = [Finding::ok("loopback", "works"), Finding::error("binaries", "none", "build them")];
        assert_eq!(
            show(&findings),
            "CHECK            FOUND\nloopback  ok     works\nbinaries  ERROR  none\n                 -> build them\n"
        );
    }
}
