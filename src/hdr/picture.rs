//! The sum as a picture: latency by percentile in an SVG, a line for everything and, where there are few, one for each
//! tag. The letters are the reader's own.

use hdrhistogram::Histogram;
use plotters::prelude::*;

use super::merge::Merge;
use crate::simulate::picture::{percentile_name, round_above, round_below, short};

const SIZE: (u32, u32) = (1000, 560);
const FONT: &str = "sans-serif";
const TITLE: u32 = 20;
const LABEL: u32 = 14;
/// Tags that get a line of their own.
const TAGS_DRAWN: usize = 8;
/// Points for each nine.
const STEPS: u32 = 40;
/// Nines that are drawn at most: p99.9999.
const NINES: u32 = 6;

/// Told apart, also by those who see few colours (after Okabe and Ito); the first one is of the sum.
const COLOURS: [RGBColor; TAGS_DRAWN + 1] = [
    RGBColor(0, 0, 0),
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(120, 90, 40),
    RGBColor(110, 110, 110),
];

/// A name, and points: nines and milliseconds.
type Line = (String, Vec<(f64, f64)>);

/// Draws what was merged.
///
/// # Errors
/// What the drawing library says, in words.
pub fn draw(merge: &Merge, total: &Histogram<u64>) -> Result<String, String> {
    let per_milli = merge.unit().per_milli();
    let mut lines = vec![("all".to_owned(), points(total, per_milli))];
    let tags = merge.parts();
    if (2..=TAGS_DRAWN).contains(&tags.len()) {
        // One without values has no latency that a line could show.
        let filled = tags.iter().filter(|(_, part)| !part.histogram.is_empty());
        lines.extend(filled.map(|(tag, part)| {
            let name = tag.clone().unwrap_or_else(|| "without tag".to_owned());
            (name, points(&part.histogram, per_milli))
        }));
    }
    let plural = if merge.sources.len() == 1 { "" } else { "s" };
    let title = format!("{} values of {} export{plural}", total.len(), merge.sources.len());
    let mut svg = String::new();
    chart(&title, &lines, &mut svg).map_err(|error| error.to_string())?;
    Ok(svg)
}

/// Up to where a value stands for at least one that was recorded.
fn points(histogram: &Histogram<u64>, per_milli: f64) -> Vec<(f64, f64)> {
    let most = (histogram.len().max(1) as f64).log10().min(f64::from(NINES));
    let steps = (0..=NINES * STEPS).map(|step| f64::from(step) / f64::from(STEPS));
    steps
        .take_while(|nines| *nines <= most)
        .chain([most])
        .map(|nines| {
            let quantile = 1.0 - 10_f64.powf(-nines);
            let value = if histogram.is_empty() {
                0
            } else {
                histogram.value_at_quantile(quantile)
            };
            // The axis is logarithmic, and the least that can be told apart is 1.
            (nines, (value.max(1)) as f64 / per_milli)
        })
        .collect()
}

fn chart(title: &str, lines: &[Line], svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let all = || lines.iter().flat_map(|(_, points)| points);
    let right = all().map(|point| point.0).fold(1.0, f64::max);
    let low = all().map(|point| point.1).fold(f64::MAX, f64::min);
    let high = all().map(|point| point.1).fold(f64::MIN, f64::max);
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, (FONT, TITLE))
        .margin(14)
        .x_label_area_size(42)
        .y_label_area_size(76)
        .build_cartesian_2d(0.0..right, (round_below(low)..round_above(high)).log_scale())?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_desc("percentile")
        .x_labels(NINES as usize + 1)
        .x_label_formatter(&percentile_name)
        .y_desc("ms")
        .y_label_formatter(&|millis| short(*millis))
        .label_style((FONT, LABEL))
        .draw()?;
    for ((name, points), colour) in lines.iter().zip(COLOURS) {
        let style = colour.stroke_width(if name == "all" { 3 } else { 2 });
        chart
            .draw_series(LineSeries::new(points.iter().copied(), style))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(3)));
    }
    if lines.len() > 1 {
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.8))
            .border_style(TRANSPARENT)
            .label_font((FONT, LABEL))
            .draw()?;
    }
    root.present()?;
    drop(chart);
    drop(root);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::hdr::encode;

    fn merge(tags: &[&str], values: &[u64]) -> Merge {
        let mut histogram = Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("bounds");
        for &value in values {
            histogram.record(value).expect("in range");
        }
        let mut merge = Merge::new(Vec::new(), None);
        for tag in tags {
            let line = format!("Tag={tag},1.000,2.000,0.0,{}", encode(&histogram).expect("text"));
            merge.add("export", &line).expect("an export");
        }
        merge
    }

    #[test]
    fn there_is_a_line_for_all_and_one_for_each_of_a_few_tags() {
        for (tags, values, lines) in [
            (vec!["a&b<i>", "c"], vec![1, 10, 100_000], 3),
            (vec!["a"], vec![5], 1),
            (vec!["a", "b"], vec![], 1),
            (vec!["a", "b", "c", "d", "e", "f", "g", "h", "i"], vec![7; 100], 1),
        ] {
            let merge = merge(&tags, &values);
            let svg = draw(&merge, &merge.total().expect("a sum")).expect("a picture");
            assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
            let thick = svg.matches("stroke-width=\"3\"").count();
            let named = if lines == 1 { 0 } else { lines };
            assert_eq!(thick, 1 + named, "{svg}");
            assert!(!svg.contains("<i>"));
        }
    }
}
