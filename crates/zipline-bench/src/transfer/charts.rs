//! Charts of a run, as SVG: time by size, both on logarithmic axes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path as FilePath;

use anyhow::Context as _;

use super::rows::Row;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 460.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 170.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 60.0;
/// Told apart also by those who do not see all colours.
const COLOURS: [&str; 10] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8a6d3b", "#7570b3",
    "#999999",
];

/// Draws one chart for each path of 1-1 transfers into `folder`; each names the machine.
///
/// # Errors
/// If a file cannot be written.
pub(super) fn draw(folder: &FilePath, rows: &[Row], machine: &str) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for path in ["network", "same-host"] {
        let lines = lines(rows, path);
        if lines.is_empty() {
            continue;
        }
        let file = folder.join(format!("transfer-{path}.svg"));
        let title = format!("Sender has the bytes to receiver has the bytes, {path}, 1-1, warm, median");
        fs::write(&file, chart(&title, machine, &lines))
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

type Line = (&'static str, Vec<(f64, f64)>);

/// Size and median of every system with at least two sizes.
fn lines(rows: &[Row], path: &str) -> Vec<Line> {
    let mut lines: BTreeMap<&'static str, Vec<(f64, f64)>> = BTreeMap::new();
    let wanted = |row: &&Row| {
        row.case == "transfer"
            && (row.path, row.pattern, row.state) == (path, "1-1", "warm")
            && row.median_seconds > 0.0
    };
    for row in rows.iter().filter(wanted) {
        lines.entry(row.system).or_default().push((row.size_bytes as f64, row.median_seconds));
    }
    let mut lines: Vec<Line> = lines.into_iter().filter(|(_, points)| points.len() > 1).collect();
    for (_, points) in &mut lines {
        points.sort_by(|one, other| one.0.total_cmp(&other.0));
    }
    // The slowest first, as their lines end highest.
    let last = |line: &Line| line.1.last().map_or(0.0, |point| point.1);
    lines.sort_by(|one, other| last(other).total_cmp(&last(one)));
    lines
}

fn chart(title: &str, machine: &str, lines: &[Line]) -> String {
    let points = || lines.iter().flat_map(|(_, points)| points);
    let across = Axis::of(points().map(|point| point.0), LEFT, WIDTH - RIGHT);
    let up = Axis::of(points().map(|point| point.1), HEIGHT - BOTTOM, TOP);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"22\" font-size=\"14\">{}</text>\n\
         <text x=\"{LEFT}\" y=\"{}\" font-size=\"10\" fill=\"#555\">{}</text>\n",
        escaped(title),
        HEIGHT - 8.0,
        escaped(machine)
    );
    for (value, at) in across.ticks() {
        let (top, bottom) = (TOP, HEIGHT - BOTTOM);
        let _ = writeln!(svg, "<path d=\"M{at:.1} {top}V{bottom}\" stroke=\"#ddd\"/>");
        let label = bytes(value);
        let _ = writeln!(
            svg,
            "<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>",
            bottom + 18.0
        );
    }
    for (value, at) in up.ticks() {
        let _ = writeln!(svg, "<path d=\"M{LEFT} {at:.1}H{}\" stroke=\"#ddd\"/>", WIDTH - RIGHT);
        let label = seconds(value);
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
            LEFT - 6.0,
            at + 4.0
        );
    }
    for (place, (name, points)) in lines.iter().enumerate() {
        let colour = COLOURS[place % COLOURS.len()];
        let dashes = if place < COLOURS.len() { "" } else { " stroke-dasharray=\"5 3\"" };
        let way: Vec<String> = points
            .iter()
            .map(|(size, time)| format!("{:.1} {:.1}", across.at(*size), up.at(*time)))
            .collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dashes}/>",
            way.join(" ")
        );
        let y = TOP + 10.0 + 18.0 * place as f64;
        let x = WIDTH - RIGHT + 16.0;
        let _ = writeln!(svg, "<path d=\"M{x} {y}h20\" stroke=\"{colour}\" stroke-width=\"2\"{dashes}/>");
        let _ = writeln!(svg, "<text x=\"{}\" y=\"{}\">{}</text>", x + 26.0, y + 4.0, escaped(name));
    }
    svg + "</svg>\n"
}

/// A logarithmic axis between two positions.
struct Axis {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Axis {
    /// Whole powers of ten around all values.
    fn of(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (least, most) =
            values.fold((f64::MAX, 0.0_f64), |(least, most), value| (least.min(value), most.max(value)));
        let (low, high) = (least.log10().floor(), most.log10().ceil());
        Self { low, high: high.max(low + 1.0), from, to }
    }

    fn at(&self, value: f64) -> f64 {
        self.from + (value.log10() - self.low) / (self.high - self.low) * (self.to - self.from)
    }

    fn ticks(&self) -> Vec<(f64, f64)> {
        let mut ticks = Vec::new();
        let mut power = self.low;
        while power <= self.high {
            let value = 10_f64.powf(power);
            ticks.push((value, self.at(value)));
            power += 1.0;
        }
        ticks
    }
}

fn bytes(value: f64) -> String {
    let units = [(1e9, "GB"), (1e6, "MB"), (1e3, "KB")];
    let found = units.into_iter().find(|(unit, _)| value >= unit * 0.99);
    found.map_or_else(|| format!("{value:.0}"), |(unit, name)| format!("{:.0} {name}", value / unit))
}

fn seconds(value: f64) -> String {
    match value {
        value if value >= 0.99 => format!("{value:.0} s"),
        value if value >= 0.99e-3 => format!("{:.0} ms", value * 1e3),
        value => format!("{:.0} us", value * 1e6),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_are_logarithmic_and_whole() {
        let axis = Axis::of([20_000.0, 3e8].into_iter(), 0.0, 100.0);
        assert_eq!((axis.low, axis.high), (4.0, 9.0));
        assert!((axis.at(1e4), axis.at(1e9)) == (0.0, 100.0) && (axis.at(1e6) - 40.0).abs() < 1e-9);
        let labels: Vec<String> = axis.ticks().iter().map(|(value, _)| bytes(*value)).collect();
        assert_eq!(labels, ["10 KB", "100 KB", "1 MB", "10 MB", "100 MB", "1 GB"]);
        assert_eq!([seconds(1e-5), seconds(1e-3), seconds(10.0)], ["10 us", "1 ms", "10 s"]);
    }

    #[test]
    fn a_chart_has_every_line() {
        let lines = vec![("redis", vec![(1e4, 2e-4), (1e8, 0.1)]), ("a<b", vec![(1e4, 1e-4), (1e8, 0.01)])];
        let svg = chart("t", "m & m", &lines);
        assert_eq!(svg.matches("<polyline").count(), 2);
        assert!(svg.contains("a&lt;b") && svg.contains("m &amp; m") && svg.ends_with("</svg>\n"));
    }
}
