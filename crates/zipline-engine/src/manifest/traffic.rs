//! `spec.traffic`: everything to the latest revision, the only one there is.

use super::fields::Item;
use super::report::Report;

/// Refuses every split: a manifest describes one revision, and older ones do not run here.
pub(super) fn check(item: &Item<'_>, report: &mut Report) {
    let Some(targets) = item.list(report) else { return };
    let complaints = report.findings.len();
    let mut percents = 0;
    for target in &targets {
        let Some(fields) = target.fields(
            report,
            &["latestRevision", "percent"],
            &[
                ("revisionName", "only the latest revision runs here; remove it"),
                ("tag", "only the latest revision runs here; remove it"),
            ],
        ) else {
            continue;
        };
        if let Some(latest) = fields.get("latestRevision")
            && latest.truth(report) == Some(false)
        {
            latest.complain(report, "only the latest revision runs here: write true");
        }
        percents += fields.get("percent").and_then(|percent| percent.number(report, 0, 100)).unwrap_or(0);
    }
    if report.findings.len() == complaints && percents != 100 {
        item.complain(report, format!("percents add up to {percents}: write one target with latestRevision: true and percent: 100, or remove traffic"));
    }
}
