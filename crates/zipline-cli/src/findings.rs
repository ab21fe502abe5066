//! What a look found, and what to do about it: `doctor` and `knative check` report the same way.

use serde::Serialize;

use crate::exit::{FAILED, Failure};
use crate::output::{self, Table};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    Ok,
    /// Works, but less well.
    Warning,
    /// Does not work.
    Error,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(crate) check: &'static str,
    pub(crate) level: Level,
    /// What was found.
    pub(crate) found: String,
    /// What to do; none if nothing is to be done.
    pub(crate) todo: Option<String>,
}

impl Finding {
    pub(crate) fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, level: Level::Ok, found: found.into(), todo: None }
    }

    pub(crate) fn warning(check: &'static str, found: impl Into<String>, todo: impl Into<String>) -> Self {
        Self { check, level: Level::Warning, found: found.into(), todo: Some(todo.into()) }
    }

    pub(crate) fn error(check: &'static str, found: impl Into<String>, todo: impl Into<String>) -> Self {
        Self { check, level: Level::Error, found: found.into(), todo: Some(todo.into()) }
    }
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    /// 1.
    schema: u32,
    /// No error among them.
    healthy: bool,
    findings: &'a [Finding],
}

/// Prints the findings; the status is that of a failure if one of them is an error.
pub(crate) fn report(findings: &[Finding], json: bool) -> Result<u8, Failure> {
    let healthy = findings.iter().all(|finding| finding.level < Level::Error);
    if json {
        output::json(&Report { schema: 1, healthy, findings })?
    } else {
        output::data(show(findings))?
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
