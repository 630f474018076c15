//! The sum as text: the percentile distribution in the classic layout, which HdrHistogram's plotter takes, or JSON.

use std::fmt::Write;

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use super::Unit;
use super::merge::Merge;

/// Lines for each halving of what is left to 100 %, as the reference implementation has by default.
const STEPS_PER_HALVING: u64 = 5;

/// What people ask for first.
const PERCENTILES: [(&str, f64); 8] = [
    ("p50", 0.50),
    ("p75", 0.75),
    ("p90", 0.90),
    ("p95", 0.95),
    ("p99", 0.99),
    ("p99_9", 0.999),
    ("p99_99", 0.999_9),
    ("max", 1.0),
];

/// A line of the distribution.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Step {
    /// The highest value of the cell in which the quantile lies.
    value: u64,
    quantile: f64,
    /// How many values are not above `value`.
    count: u64,
    /// 1/(1 − quantile); none for the last line, which is of all values.
    inverse: Option<f64>,
}

/// The distribution, as finely toward 100 % as there are values. Ranks are whole numbers, so that no quantile falls into
/// its neighbour's cell by a rounding error.
fn steps(histogram: &Histogram<u64>) -> Vec<Step> {
    let total = histogram.len();
    let mut recorded = histogram.iter_recorded();
    let (mut value, mut count) = (0, 0);
    let mut steps = Vec::new();
    for (halving, step) in
        (0..u64::BITS).flat_map(|halving| (0..STEPS_PER_HALVING).map(move |step| (halving, step)))
    {
        // 1 − quantile is above / parts.
        let (above, parts) = (
            2 * STEPS_PER_HALVING - step,
            u128::from(2 * STEPS_PER_HALVING) << halving,
        );
        let beyond = u128::from(total) * u128::from(above) / parts;
        let wanted = total
            .saturating_sub(u64::try_from(beyond).unwrap_or(u64::MAX))
            .max(1);
        while count < wanted {
            let Some(cell) = recorded.next() else {
                return steps;
            };
            value = cell.value_iterated_to();
            count = count.saturating_add(cell.count_at_value());
        }
        let rest = above as f64 / parts as f64;
        steps.push(Step {
            value,
            quantile: 1.0 - rest,
            count,
            inverse: Some(1.0 / rest),
        });
        if count >= total {
            break;
        }
    }
    steps.push(Step {
        value,
        quantile: 1.0,
        count,
        inverse: None,
    });
    steps
}

/// The highest value of the cell in which `quantile` lies; 0 without values.
fn value(histogram: &Histogram<u64>, quantile: f64) -> u64 {
    if histogram.is_empty() {
        return 0;
    }
    histogram.value_at_quantile(quantile)
}

/// The classic table, in milliseconds.
pub fn classic(merge: &Merge, total: &Histogram<u64>) -> String {
    let per_milli = merge.unit().per_milli();
    // As many digits as a value of this unit can have.
    let decimals = match merge.unit() {
        Unit::Nanos => 6,
        Unit::Micros => 3,
        Unit::Millis => 0,
    };
    let millis = |value: f64| format!("{:12.*}", decimals, value / per_milli);
    let mut text = String::new();
    // Writing into a String cannot fail.
    let _ = writeln!(
        text,
        "{:>12} {:>14} {:>10} {:>14}\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    );
    for Step {
        value,
        quantile,
        count,
        inverse,
    } in steps(total)
    {
        let value = millis(value as f64);
        let _ = match inverse {
            Some(inverse) => writeln!(text, "{value} {quantile:2.12} {count:10} {inverse:14.2}"),
            None => writeln!(text, "{value} {quantile:2.12} {count:10}"),
        };
    }
    let sub_buckets = (2 * 10_u32.pow(u32::from(total.sigfig()))).next_power_of_two();
    let _ = writeln!(
        text,
        "#[Mean    = {}, StdDeviation   = {}]\n#[Max     = {}, Total count    = {:12}]\n\
         #[Buckets = {:12}, SubBuckets     = {sub_buckets:12}]",
        millis(total.mean()),
        millis(total.stdev()),
        millis(value(total, 1.0) as f64),
        total.len(),
        total.buckets(),
    );
    let _ = writeln!(
        text,
        "#[values in ms; {} histogram{} of {}]",
        merge.histograms,
        if merge.histograms == 1 { "" } else { "s" },
        merge.sources.join(", ")
    );
    text
}

/// The same for scripts; values in the exports' own unit, which `unit` names.
pub fn json(merge: &Merge, total: &Histogram<u64>) -> Value {
    let distribution: Vec<Value> = steps(total)
        .iter()
        .map(|step| {
            json!({
                "percentile": step.quantile * 100.0,
                "value": step.value,
                "count": step.count,
            })
        })
        .collect();
    let tags: Map<String, Value> = merge
        .parts()
        .iter()
        .map(|(tag, part)| (tag.clone().unwrap_or_default(), figures(&part.histogram)))
        .collect();
    json!({
        "unit": merge.unit().word(),
        "sources": merge.sources,
        "histograms": merge.histograms,
        "significant_digits": total.sigfig(),
        "total": figures(total),
        "tags": tags,
        "distribution": distribution,
    })
}

fn figures(histogram: &Histogram<u64>) -> Value {
    let mut figures = Map::new();
    figures.insert("count".to_owned(), histogram.len().into());
    figures.insert("min".to_owned(), histogram.min().into());
    figures.insert("mean".to_owned(), histogram.mean().into());
    figures.insert("stddev".to_owned(), histogram.stdev().into());
    for (name, quantile) in PERCENTILES {
        figures.insert(name.to_owned(), value(histogram, quantile).into());
    }
    figures.into()
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::metrics::hdr::encode;

    fn merge(values: &[u64]) -> Merge {
        let mut histogram = Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("bounds");
        for &value in values {
            histogram.record(value).expect("in range");
        }
        let mut merge = Merge::new(Vec::new(), None);
        let export = encode(&histogram).expect("text");
        merge.add("a.hdr", &export).expect("an export");
        merge
    }

    #[test]
    fn the_classic_layout() {
        let merge = merge(&[1, 1, 1, 1_000]);
        let table = classic(&merge, &merge.total().expect("a sum"));
        let expected = "       Value     Percentile TotalCount 1/(1-Percentile)

       0.001 0.000000000000          3           1.00
       0.001 0.100000000000          3           1.11
       0.001 0.200000000000          3           1.25
       0.001 0.300000000000          3           1.43
       0.001 0.400000000000          3           1.67
       0.001 0.500000000000          3           2.00
       0.001 0.550000000000          3           2.22
       0.001 0.600000000000          3           2.50
       0.001 0.650000000000          3           2.86
       0.001 0.700000000000          3           3.33
       0.001 0.750000000000          3           4.00
       1.000 0.775000000000          4           4.44
       1.000 1.000000000000          4
#[Mean    =        0.251, StdDeviation   =        0.433]
#[Max     =        1.000, Total count    =            4]
#[Buckets =           22, SubBuckets     =         2048]
#[values in ms; 1 histogram of a.hdr]
";
        assert_eq!(table, expected);
    }

    proptest! {
        #[test]
        fn every_line_is_what_the_sorted_values_say(mut values in vec(0..100_000_u64, 1..400)) {
            let total = merge(&values).total().expect("a sum");
            values.sort_unstable();
            let steps = steps(&total);
            prop_assert!(steps.windows(2).all(|pair| pair[0].quantile < pair[1].quantile));
            prop_assert_eq!(steps.last().map(|step| (step.quantile, step.count)), Some((1.0, total.len())));
            for step in steps {
                let rank = ((step.quantile * values.len() as f64 - 1e-6).ceil() as usize).max(1);
                prop_assert_eq!(step.value, total.highest_equivalent(values[rank - 1]));
                let below = values.iter().filter(|value| **value <= step.value).count();
                prop_assert_eq!(step.count, below as u64);
            }
        }
    }

    #[test]
    fn without_values_there_are_zeros() {
        let merge = merge(&[]);
        let total = merge.total().expect("a sum");
        assert!(classic(&merge, &total).contains("Total count    =            0"));
        let json = json(&merge, &total);
        assert_eq!(
            (&json["total"]["count"], &json["total"]["p99"]),
            (&0.into(), &0.into())
        );
        assert_eq!(json["distribution"], json!([]));
    }

    #[test]
    fn json_has_the_values_as_they_are() {
        let merge = merge(&[1, 1, 1, 1_000]);
        let json = json(&merge, &merge.total().expect("a sum"));
        assert_eq!((&json["unit"], &json["histograms"]), (&"us".into(), &1.into()));
        assert_eq!(
            (
                &json["total"]["p50"],
                &json["total"]["max"],
                &json["tags"][""]["p75"]
            ),
            (&1.into(), &1_000.into(), &1.into())
        );
    }
}
