//! Plots as SVG, both axes logarithmic, side by side; readable on a light and on a dark page.

use std::fmt::Write;

const WIDTH: f64 = 440.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 84.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 48.0;
/// Told apart with and without seeing colours: the dashes differ too.
const STYLES: [(&str, &str); 3] = [("#2a7de1", ""), ("#d9822b", "6 3"), ("#8a56c2", "2 3")];
/// Names of lines that end close together are set apart.
const NAME_HEIGHT: f64 = 13.0;
const GREY: &str = "#808080";

pub struct Line {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

pub struct Plot {
    pub title: String,
    pub x: String,
    pub lines: Vec<Line>,
}

pub fn svg(plots: &[Plot]) -> String {
    let width = WIDTH * plots.len() as f64;
    let titles: Vec<String> =
        plots.iter().map(|plot| format!("{} by {}", plot.title, plot.x)).collect();
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {HEIGHT}\" role=\"img\" \
         aria-label=\"{}\" font-family=\"sans-serif\" font-size=\"12\">\n",
        titles.join("; ")
    );
    for (number, plot) in plots.iter().enumerate() {
        let _ = writeln!(out, "<g transform=\"translate({} 0)\">", WIDTH * number as f64);
        draw(&mut out, plot);
        out.push_str("</g>\n");
    }
    out.push_str("</svg>\n");
    out
}

/// From one power of ten to another, in pixels.
struct Axis {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Axis {
    fn new(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let logs: Vec<f64> = values.filter(|value| *value > 0.0).map(f64::log10).collect();
        let low = logs.iter().copied().fold(f64::INFINITY, f64::min).floor();
        let high = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max).ceil();
        let (low, high) = if low.is_finite() { (low, high.max(low + 1.0)) } else { (0.0, 1.0) };
        Axis { low, high, from, to }
    }

    fn at(&self, value: f64) -> f64 {
        let part = (value.max(f64::MIN_POSITIVE).log10() - self.low) / (self.high - self.low);
        self.from + part * (self.to - self.from)
    }

    fn ticks(&self) -> impl Iterator<Item = f64> + use<> {
        (self.low as i32..=self.high as i32).map(|power| 10f64.powi(power))
    }
}

fn draw(out: &mut String, plot: &Plot) {
    let points = || plot.lines.iter().flat_map(|line| line.points.iter());
    let x = Axis::new(points().map(|point| point.0), LEFT, WIDTH - RIGHT);
    let y = Axis::new(points().map(|point| point.1), HEIGHT - BOTTOM, TOP);
    let mut text = |at_x: f64, at_y: f64, anchor: &str, colour: &str, what: &str| {
        let _ = writeln!(
            out,
            "<text x=\"{at_x:.0}\" y=\"{at_y:.0}\" text-anchor=\"{anchor}\" fill=\"{colour}\">{what}</text>"
        );
    };
    text(LEFT, 20.0, "start", GREY, &plot.title);
    text((LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 10.0, "middle", GREY, &plot.x);
    for tick in x.ticks() {
        text(x.at(tick), HEIGHT - BOTTOM + 18.0, "middle", GREY, &short(tick));
    }
    for tick in y.ticks() {
        text(LEFT - 8.0, y.at(tick) + 4.0, "end", GREY, &short(tick));
    }
    // Lines come from the lowest to the highest.
    let mut highest = f64::INFINITY;
    for (line, (colour, _)) in plot.lines.iter().zip(STYLES) {
        if let Some((_, last)) = line.points.last() {
            highest = (y.at(*last) + 4.0).min(highest - NAME_HEIGHT);
            text(WIDTH - RIGHT + 8.0, highest, "start", colour, &line.name);
        }
    }
    for tick in y.ticks() {
        let at = y.at(tick);
        let _ = writeln!(
            out,
            "<path d=\"M{LEFT} {at:.1}H{}\" stroke=\"{GREY}\" stroke-opacity=\"0.3\"/>",
            WIDTH - RIGHT
        );
    }
    for (line, (colour, dashes)) in plot.lines.iter().zip(STYLES) {
        let path: Vec<String> = line
            .points
            .iter()
            .map(|(px, py)| format!("{:.1},{:.1}", x.at(*px), y.at(*py)))
            .collect();
        let _ = writeln!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" \
             stroke-dasharray=\"{dashes}\"/>",
            path.join(" ")
        );
        for (px, py) in &line.points {
            let _ = writeln!(
                out,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"/>",
                x.at(*px),
                y.at(*py)
            );
        }
    }
}

/// 10000 as 10k.
fn short(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{}M", value / 1e6),
        value if value >= 1e3 => format!("{}k", value / 1e3),
        value => format!("{value}"),
    }
}
