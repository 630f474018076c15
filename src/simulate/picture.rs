//! Four pictures in one SVG: latency by percentile, its 99th percentile over time, the longest queue over time, and what
//! the backends got that the scenario names, or the median over time where it names none. The letters are the reader's
//! own: nothing is drawn from this machine's fonts.

use plotters::coord::Shift;
use plotters::prelude::*;

use super::SECOND;
use super::report::{Report, Row};

const SIZE: (u32, u32) = (1280, 900);
const FONT: &str = "sans-serif";
const TITLE: u32 = 17;
const LABEL: u32 = 13;

/// Colours that are told apart, also by those who see few (after Okabe and Ito), one for each contender.
const COLOURS: [RGBColor; 11] = [
    RGBColor(0, 0, 0),
    RGBColor(110, 110, 110),
    RGBColor(170, 170, 170),
    RGBColor(0, 114, 178),
    RGBColor(86, 180, 233),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(148, 80, 140),
    RGBColor(213, 94, 0),
    RGBColor(230, 159, 0),
    RGBColor(120, 90, 40),
];

type Failure = DrawingAreaErrorKind<std::io::Error>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A line: points, and the row it belongs to.
type Line = (Vec<(f64, f64)>, usize);

/// Draws what was found.
pub fn draw(report: &Report<'_>) -> Result<String, String> {
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        panels(report, &root).map_err(|error| error.to_string())?;
        root.present().map_err(|error| error.to_string())?;
    }
    Ok(text)
}

fn panels(report: &Report<'_>, root: &Area<'_>) -> Result<(), Failure> {
    root.fill(&WHITE)?;
    let title = format!("{} (seed {})", report.name, report.seed);
    let root = root.titled(&title, (FONT, TITLE + 5))?;
    let (legend, root) = root.split_vertically(48);
    draw_legend(report, &legend)?;
    let areas = root.split_evenly((2, 2));
    let [percentiles, over_time, queues, shares] = areas.as_slice() else {
        return Ok(());
    };
    let nines = |row: &Row| {
        let at = |nines: f64| {
            let quantile = 1.0 - 10f64.powf(-nines);
            (nines, row.tally.millis_at(quantile).max(1e-3))
        };
        // From the median on: below it strategies hardly differ.
        (6..=80).map(|step| at(f64::from(step) / 20.0)).collect()
    };
    logarithmic(
        percentiles,
        "latency by percentile (ms)",
        "",
        &percentile_name,
        &lines(report, nines),
    )?;
    let seconds = |row: &Row, at: usize| (at + 1) as f64 * row.tally.slice_length as f64 / SECOND as f64;
    let over = |row: &Row, value: &dyn Fn(&super::tally::Slice) -> f64| -> Vec<(f64, f64)> {
        let slices = row.tally.slices.iter().enumerate();
        slices
            .map(|(at, slice)| (seconds(row, at), value(slice)))
            .collect()
    };
    let plain = |x: &f64| format!("{x:.0}");
    logarithmic(
        over_time,
        "p99 latency over time (ms)",
        "seconds",
        &plain,
        &lines(report, |row| {
            over(row, &|slice| (slice.p99 as f64 / 1e6).max(1e-3))
        }),
    )?;
    logarithmic(
        queues,
        "longest queue of a backend over time (requests, + 1)",
        "seconds",
        &plain,
        &lines(report, |row| over(row, &|slice| slice.queue as f64 + 1.0)),
    )?;
    if report.named.contains(&true) {
        linear(
            shares,
            "share of the backends that the scenario names (% of attempts)",
            &lines(report, |row| {
                over(row, &|slice| {
                    slice.attempts_named as f64 / slice.attempts.max(1) as f64 * 100.0
                })
            }),
        )
    } else {
        logarithmic(
            shares,
            "median latency over time (ms)",
            "seconds",
            &plain,
            &lines(report, |row| {
                over(row, &|slice| (slice.p50 as f64 / 1e6).max(1e-3))
            }),
        )
    }
}

fn lines(report: &Report<'_>, points: impl Fn(&Row) -> Vec<(f64, f64)>) -> Vec<Line> {
    let colour = |row: &Row| {
        let mut all = super::Contender::all();
        all.position(|contender| contender == row.contender)
            .unwrap_or_default()
    };
    report.rows.iter().map(|row| (points(row), colour(row))).collect()
}

fn draw_legend(report: &Report<'_>, area: &Area<'_>) -> Result<(), Failure> {
    const WIDTH: i32 = 205;
    const PER_LINE: i32 = 6;
    for (at, (row, (_, colour))) in report.rows.iter().zip(lines(report, |_| Vec::new())).enumerate() {
        let at = at as i32;
        let (x, y) = (20 + at % PER_LINE * WIDTH, 10 + at / PER_LINE * 20);
        let style = COLOURS[colour % COLOURS.len()].stroke_width(3);
        area.draw(&PathElement::new(vec![(x, y + 6), (x + 26, y + 6)], style))?;
        area.draw(&Text::new(row.contender.name(), (x + 32, y), (FONT, LABEL)))?;
    }
    Ok(())
}

/// Least and most of one coordinate; something to draw on where there is nothing to draw.
fn bounds(lines: &[Line], of: impl Fn(&(f64, f64)) -> f64) -> (f64, f64) {
    let all = lines.iter().flat_map(|(points, _)| points.iter().map(&of));
    let (least, most) = all.fold((f64::MAX, f64::MIN), |(least, most), value| {
        (value.min(least), value.max(most))
    });
    if least < most {
        (least, most)
    } else {
        let middle = if least == f64::MAX { 1.0 } else { least };
        (middle * 0.9, middle * 1.1 + 1e-3)
    }
}

fn logarithmic(
    area: &Area<'_>,
    title: &str,
    x_title: &str,
    x_name: &dyn Fn(&f64) -> String,
    lines: &[Line],
) -> Result<(), Failure> {
    let (left, right) = bounds(lines, |point| point.0);
    let (low, high) = bounds(lines, |point| point.1);
    let heights = (round_below(low)..round_above(high)).log_scale();
    let mut chart = frame(area, title).build_cartesian_2d(left..right, heights)?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_desc(x_title)
        .x_labels(if x_title.is_empty() { 5 } else { 10 })
        .x_label_formatter(x_name)
        .y_label_formatter(&|y| short(*y))
        .label_style((FONT, LABEL))
        .draw()?;
    for (points, colour) in lines {
        let style = COLOURS[colour % COLOURS.len()].stroke_width(2);
        chart.draw_series(LineSeries::new(points.iter().copied(), style))?;
    }
    Ok(())
}

fn linear(area: &Area<'_>, title: &str, lines: &[Line]) -> Result<(), Failure> {
    let (left, right) = bounds(lines, |point| point.0);
    let (_, high) = bounds(lines, |point| point.1);
    let mut chart = frame(area, title).build_cartesian_2d(left..right, 0.0..high.max(0.1) * 1.05)?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_desc("seconds")
        .x_labels(10)
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| short(*y))
        .label_style((FONT, LABEL))
        .draw()?;
    for (points, colour) in lines {
        let style = COLOURS[colour % COLOURS.len()].stroke_width(2);
        chart.draw_series(LineSeries::new(points.iter().copied(), style))?;
    }
    Ok(())
}

fn frame<'a, 'b>(area: &'a Area<'b>, title: &str) -> ChartBuilder<'a, 'b, SVGBackend<'b>> {
    let mut builder = ChartBuilder::on(area);
    builder
        .caption(title, (FONT, TITLE))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(56);
    builder
}

/// The largest of 1, 2 and 5 times a power of ten that is not above `number`.
pub(crate) fn round_below(number: f64) -> f64 {
    let power = 10f64.powf(number.log10().floor());
    let times = [5.0, 2.0, 1.0].into_iter().find(|times| times * power <= number);
    times.unwrap_or(1.0) * power
}

/// The least of them that is above it.
pub(crate) fn round_above(number: f64) -> f64 {
    let power = 10f64.powf(number.log10().floor());
    let times = [1.0, 2.0, 5.0].into_iter().find(|times| times * power > number);
    times.unwrap_or(10.0) * power
}

/// The percentile with so many nines: 2 is "99".
pub(crate) fn percentile_name(nines: &f64) -> String {
    let per_cent = 100.0 - 10f64.powf(2.0 - nines);
    match *nines {
        ..=1.0 => format!("p{per_cent:.0}"),
        nines => format!("p{per_cent:.*}", (nines - 2.0).ceil().max(0.0) as usize),
    }
}

pub(crate) fn short(number: f64) -> String {
    match number {
        0.0 => "0".to_owned(),
        0.0..1.0 => format!("{number:.2}"),
        1.0..10.0 if number.fract() > 0.05 => format!("{number:.1}"),
        1000.0.. => format!("{}k", number / 1000.0),
        _ => format!("{number:.0}"),
    }
}
