//! Line charts as SVG: small enough to be its own writer, and no dependency draws text without a font library.

use std::fmt::Write;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 190.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 56.0;

/// Distinguishable for most eyes, on white and on black (Okabe and Ito).
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];

/// How a direction is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// From zero.
    Linear,
    /// In powers of ten.
    Decades,
}

/// A line of points.
pub struct Series {
    /// Its name, beside the chart.
    pub name: String,
    /// From left to right.
    pub points: Vec<(f64, f64)>,
    /// Broken: a limit, not a measurement.
    pub dashed: bool,
}

/// A chart.
pub struct Chart {
    /// Above it.
    pub title: String,
    /// Below it.
    pub x: (String, Scale),
    /// Left of it.
    pub y: (String, Scale),
    /// The lines.
    pub series: Vec<Series>,
}

impl Chart {
    /// The picture.
    #[must_use]
    pub fn svg(&self) -> String {
        let all =
            || self.series.iter().flat_map(|series| &series.points).filter(|(x, y)| x.is_finite() && y.is_finite());
        let x = Axis::over(all().map(|(x, _)| *x), self.x.1, LEFT, WIDTH - RIGHT);
        let y = Axis::over(all().map(|(_, y)| *y), self.y.1, HEIGHT - BOTTOM, TOP);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
             font-size=\"12\" fill=\"#333\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
        );
        text(&mut svg, LEFT, 22.0, "start", 15, &self.title);
        for (value, at) in x.ticks() {
            line(&mut svg, (at, TOP), (at, HEIGHT - BOTTOM), "#ddd");
            text(&mut svg, at, HEIGHT - BOTTOM + 18.0, "middle", 12, &number(value));
        }
        for (value, at) in y.ticks() {
            line(&mut svg, (LEFT, at), (WIDTH - RIGHT, at), "#ddd");
            text(&mut svg, LEFT - 8.0, at + 4.0, "end", 12, &number(value));
        }
        text(&mut svg, f64::midpoint(LEFT, WIDTH - RIGHT), HEIGHT - 14.0, "middle", 12, &self.x.0);
        text(&mut svg, 12.0, TOP - 8.0, "start", 12, &self.y.0);
        for (number, series) in self.series.iter().enumerate() {
            draw(&mut svg, series, number, &x, &y);
        }
        svg.push_str("</svg>\n");
        svg
    }
}

fn draw(svg: &mut String, series: &Series, number: usize, x: &Axis, y: &Axis) {
    let colour = COLOURS[number % COLOURS.len()];
    let points: Vec<(f64, f64)> = series
        .points
        .iter()
        .filter(|(a, b)| a.is_finite() && b.is_finite())
        .map(|(a, b)| (x.at(*a), y.at(*b)))
        .collect();
    let path: Vec<String> = points.iter().map(|(a, b)| format!("{a:.1},{b:.1}")).collect();
    let dash = if series.dashed { " stroke-dasharray=\"6 4\"" } else { "" };
    // Writing to a String can't fail.
    let _written = writeln!(
        svg,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/>",
        path.join(" ")
    );
    for (a, b) in points {
        let _written = writeln!(svg, "<circle cx=\"{a:.1}\" cy=\"{b:.1}\" r=\"3.5\" fill=\"{colour}\"/>");
    }
    let row = TOP + 12.0 + 20.0 * number as f64;
    let _written = writeln!(
        svg,
        "<line x1=\"{:.0}\" y1=\"{row}\" x2=\"{:.0}\" y2=\"{row}\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/>",
        WIDTH - RIGHT + 14.0,
        WIDTH - RIGHT + 38.0
    );
    text(svg, WIDTH - RIGHT + 44.0, row + 4.0, "start", 12, &series.name);
}

/// One direction: values and where they are drawn.
struct Axis {
    scale: Scale,
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Axis {
    fn over(values: impl Iterator<Item = f64>, scale: Scale, from: f64, to: f64) -> Self {
        let (least, most) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, m), v| (l.min(v), m.max(v)));
        let (low, high) = match scale {
            Scale::Linear => (0.0, if most > 0.0 { most * 1.05 } else { 1.0 }),
            Scale::Decades if least > 0.0 && most > 0.0 => {
                (10_f64.powf(least.log10().floor()), 10_f64.powf(most.log10().ceil()).max(least * 10.0))
            }
            Scale::Decades => (1.0, 10.0),
        };
        Self { scale, low, high, from, to }
    }

    fn at(&self, value: f64) -> f64 {
        let share = match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Decades => (value.max(self.low) / self.low).log10() / (self.high / self.low).log10(),
        };
        self.from + share * (self.to - self.from)
    }

    fn ticks(&self) -> Vec<(f64, f64)> {
        let values: Vec<f64> = match self.scale {
            Scale::Decades => {
                (0..=12).map(|power| self.low * 10_f64.powi(power)).take_while(|v| *v <= self.high * 1.001).collect()
            }
            Scale::Linear => {
                let step = step(self.high);
                (0..=20).map(|number| step * f64::from(number)).take_while(|v| *v <= self.high).collect()
            }
        };
        values.into_iter().map(|value| (value, self.at(value))).collect()
    }
}

/// 1, 2 or 5 times a power of ten: five to ten of them fit.
fn step(high: f64) -> f64 {
    let power = 10_f64.powf((high / 5.0).log10().floor());
    [1.0, 2.0, 5.0].map(|factor| factor * power).into_iter().rev().find(|step| high / step >= 5.0).unwrap_or(power)
}

fn number(value: f64) -> String {
    if value >= 1.0 || value == 0.0 { format!("{value:.0}") } else { format!("{value}") }
}

fn line(svg: &mut String, from: (f64, f64), to: (f64, f64), colour: &str) {
    let _written = writeln!(
        svg,
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\"/>",
        from.0, from.1, to.0, to.1
    );
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, size: u32, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    let _written =
        writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" font-size=\"{size}\">{words}</text>");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_within() {
        let axis = Axis::over([3.0, 187.0].into_iter(), Scale::Linear, 0.0, 100.0);
        let ticks: Vec<f64> = axis.ticks().into_iter().map(|(value, _)| value).collect();
        assert_eq!(ticks, [0.0, 20.0, 40.0, 60.0, 80.0, 100.0, 120.0, 140.0, 160.0, 180.0]);
        let axis = Axis::over([3.2, 187.0].into_iter(), Scale::Decades, 0.0, 100.0);
        assert_eq!(axis.ticks().first(), Some(&(1.0, 0.0)));
        assert_eq!(axis.ticks().last(), Some(&(1000.0, 100.0)));
    }

    #[test]
    fn a_chart_without_points_is_still_one() {
        let chart = Chart {
            title: "a < b".into(),
            x: ("x".into(), Scale::Decades),
            y: ("y".into(), Scale::Linear),
            series: vec![Series { name: "none".into(), points: vec![(f64::NAN, 1.0)], dashed: true }],
        };
        let svg = chart.svg();
        assert!(svg.contains("a &lt; b") && svg.ends_with("</svg>\n") && !svg.contains("NaN"), "{svg}");
    }
}
