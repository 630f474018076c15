//! One page that needs nothing else: figures, the percentile curve, and rate and latency over time.

use std::time::Duration;

use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;

use super::text;
use crate::load::{Outcome, Plan, Point, quantile_of};

type Error = Box<dyn std::error::Error>;

/// Intervals that are shorter have no place in a picture of rates.
const SHORTEST: Duration = Duration::from_millis(250);

pub(super) fn page(plan: &Plan, outcome: &Outcome) -> Result<String, String> {
    let pictures = [
        curve(outcome),
        over_time(outcome, true),
        over_time(outcome, false),
    ];
    let mut figures = String::new();
    for picture in pictures {
        let (title, svg) = picture.map_err(|error| error.to_string())?;
        figures.push_str(&format!(
            "<figure><figcaption>{title}</figcaption>{svg}</figure>\n"
        ));
    }
    let table = escape(&text::table(plan, outcome));
    Ok(format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>weir load</title>\n<style>\n\
         body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 900px; margin: 24px auto; padding: 0 16px; }}\n\
         pre {{ overflow-x: auto; background: #f4f2ec; padding: 12px; }} figure {{ margin: 24px 0; }}\n\
         svg {{ width: 100%; height: auto; background: #fff; }}\n</style></head>\n<body><h1>weir load</h1>\n\
         <pre>{table}</pre>\n{figures}</body></html>\n"
    ))
}

/// Text that may stand between tags.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// Latency by percentile; the axis of percentiles counts nines.
fn curve(outcome: &Outcome) -> Result<(&'static str, String), Error> {
    let histogram = &outcome.total.response;
    let points: Vec<(f64, f64)> = (0..=400)
        .map(|step| {
            let nines = f64::from(step) / 100.0;
            let quantile = 1.0 - 10_f64.powf(-nines);
            (nines, quantile_of(histogram, quantile) as f64 / 1e6)
        })
        .collect();
    let axis = |nines: &f64| format!("{} %", 100.0 - 10_f64.powf(2.0 - nines));
    let svg = draw(&[("", points)], 0.0..4.0, "ms", 5, &axis)?;
    Ok(("Latency by percentile", svg))
}

fn over_time(outcome: &Outcome, rate: bool) -> Result<(&'static str, String), Error> {
    let at = |read: &dyn Fn(&Point) -> f64| -> Vec<(f64, f64)> {
        // What is left at the end of a run is too short to show a rate.
        let whole = outcome
            .points
            .iter()
            .enumerate()
            .filter(|(index, point)| *index == 0 || point.length >= SHORTEST);
        whole
            .map(|(_, point)| (point.at.as_secs_f64(), read(point)))
            .collect()
    };
    let end = outcome.took.as_secs_f64().max(1.0);
    let seconds = |second: &f64| format!("{second} s");
    if rate {
        let a_second = |count: u64, point: &Point| count as f64 / point.length.as_secs_f64().max(1e-3);
        let per_second = at(&|point| a_second(point.requests, point));
        let errors = at(&|point| a_second(point.failures, point));
        let svg = draw(
            &[("requests", per_second), ("errors", errors)],
            0.0..end,
            "per second",
            8,
            &seconds,
        )?;
        return Ok(("Requests and errors over time", svg));
    }
    let lines = [
        ("p50", at(&|point| point.p50 as f64 / 1e6)),
        ("p99", at(&|point| point.p99 as f64 / 1e6)),
        ("max", at(&|point| point.max as f64 / 1e6)),
    ];
    Ok((
        "Latency of each second",
        draw(&lines, 0.0..end, "ms", 8, &seconds)?,
    ))
}

fn draw(
    lines: &[(&str, Vec<(f64, f64)>)],
    x: std::ops::Range<f64>,
    unit: &str,
    labels: usize,
    show: &dyn Fn(&f64) -> String,
) -> Result<String, Error> {
    fn check<T: AsRangedCoord>(_: &T)
    where
        T::CoordDescType: ValueFormatter<T::Value>,
    {
    }
    check(&x);
    let most = lines
        .iter()
        .flat_map(|(_, points)| points.iter().map(|(_, y)| *y))
        .fold(0.0, f64::max);
    let colours = [RGBColor(18, 96, 127), RGBColor(163, 34, 27), RGBColor(134, 85, 0)];
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (860, 280)).into_drawing_area();
        let mut chart = ChartBuilder::on(&root)
            .margin(8)
            .x_label_area_size(28)
            .y_label_area_size(70)
            .build_cartesian_2d(x, 0.0..(most * 1.1).max(0.1))?;
        chart
            .configure_mesh()
            .x_labels(labels)
            .x_label_formatter(show)
            .y_desc(unit)
            .light_line_style(TRANSPARENT)
            .draw()?;
        for ((name, points), colour) in lines.iter().zip(colours) {
            let drawn = chart.draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))?;
            if !name.is_empty() {
                drawn
                    .label(*name)
                    .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour));
            }
        }
        if lines.len() > 1 {
            chart.configure_series_labels().border_style(TRANSPARENT).draw()?;
        }
        root.present()?;
    }
    Ok(svg)
}
