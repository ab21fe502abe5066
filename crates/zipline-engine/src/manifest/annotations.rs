//! Annotations of the template.

use std::collections::BTreeMap;

use zipline_protocol::{Mode, limits};

use super::fields::Item;
use super::quantity::parse_bytes;
use super::report::Report;
use super::{Scale, Settings};

const SCALING: &str = "autoscaling.knative.dev/";
const OWN: &str = "zipline.internal/";
/// Most instances that can be asked for; each is two processes.
const SCALE_MAX: u32 = 1000;
/// Smallest budget: less than a few segments could hold nothing.
const BUDGET_MIN: u64 = 4 * limits::SEGMENT as u64;

/// What the annotations say.
#[derive(Debug, Default)]
pub(super) struct Annotations {
    pub(super) scale: Scale,
    pub(super) settings: Settings,
}

/// Reads the annotations; each is honoured or refused.
pub(super) fn read(item: &Item<'_>, report: &mut Report) -> Annotations {
    let mut read = Annotations::default();
    // Kebab case wins over its camel case alias, as in Knative.
    let mut scaling: BTreeMap<&str, (bool, u32, usize, String)> = BTreeMap::new();
    for (entry, path, text) in item.text_map(report) {
        let mut complain = |message: String| report.add(entry.line, &path, message);
        if let Some(key) = entry.key.strip_prefix(SCALING) {
            let (name, kebab) = match key {
                "min-scale" | "minScale" => ("min", key == "min-scale"),
                "max-scale" | "maxScale" => ("max", key == "max-scale"),
                "initial-scale" | "initialScale" => ("initial", key == "initial-scale"),
                _ => {
                    complain(
                        "not supported here: this version does not scale by load; known: min-scale, max-scale, initial-scale"
                            .into(),
                    );
                    continue;
                }
            };
            match text.parse::<u32>() {
                Ok(number) if number <= SCALE_MAX => {
                    let better = scaling.get(name).is_none_or(|(other, ..)| kebab || !other);
                    if better {
                        scaling.insert(name, (kebab, number, entry.line, path));
                    }
                }
                _ => complain(format!("must be a whole number from 0 to {SCALE_MAX}, not \"{text}\"")),
            }
        } else if let Some(key) = entry.key.strip_prefix(OWN) {
            if let Err(message) = own(key, text, &mut read.settings) {
                complain(message);
            }
        } else {
            complain(format!(
                "unknown annotation; known here: {SCALING}{{min-scale,max-scale,initial-scale}}, {OWN}{{mode,threshold,budget}}"
            ));
        }
    }
    let number = |name| scaling.get(name).map(|(_, number, ..)| *number);
    read.scale = Scale {
        min: number("min").unwrap_or(0),
        max: number("max").unwrap_or(0),
        initial: number("initial"),
    };
    if let Some((_, max, line, path)) = scaling.get("max")
        && *max > 0
        && read.scale.min > *max
    {
        report.add(*line, path, format!("is {max}, less than min-scale, which is {}", read.scale.min));
    }
    read
}

fn own(key: &str, text: &str, settings: &mut Settings) -> Result<(), String> {
    match key {
        "mode" => {
            settings.mode = Some(text.parse::<Mode>().map_err(|error| error.to_string())?);
        }
        "threshold" => {
            let bytes = parse_bytes(text).map_err(|error| error.to_string())?;
            if bytes < limits::THRESHOLD_MIN {
                return Err(format!(
                    "{bytes} bytes is below the least threshold, {} bytes",
                    limits::THRESHOLD_MIN
                ));
            }
            settings.threshold_bytes = Some(bytes);
        }
        "budget" => {
            let bytes = parse_bytes(text).map_err(|error| error.to_string())?;
            if bytes < BUDGET_MIN {
                return Err(format!("{bytes} bytes is below the least budget, {BUDGET_MIN} bytes"));
            }
            settings.budget_bytes = Some(bytes);
        }
        _ => return Err(format!("unknown annotation; known here: {OWN}{{mode,threshold,budget}}")),
    }
    Ok(())
}
