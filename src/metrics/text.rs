//! The text formats: Prometheus' 0.0.4 and OpenMetrics 1.0.
//!
//! They differ in a few words: OpenMetrics names a counter's family without `_total`, ends with `# EOF`, and can show
//! exemplars.

use std::fmt::Write;

use super::distribution::EDGES_US;
use super::exemplar::Exemplar;
use super::families::{Family, Kind, Sample, Value};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Prometheus,
    OpenMetrics,
}

impl Format {
    pub const fn content_type(self) -> &'static str {
        match self {
            Format::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// All families as one text.
pub fn render(families: &[Family<'_>], format: Format) -> String {
    let mut out = String::with_capacity(64 << 10);
    for family in families {
        // Writing to a `String` cannot fail.
        let _ = write_family(&mut out, family, format);
    }
    if format == Format::OpenMetrics {
        out.push_str("# EOF\n");
    }
    out
}

fn write_family(out: &mut String, family: &Family<'_>, format: Format) -> std::fmt::Result {
    let kind = match family.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    let total = if family.kind == Kind::Counter {
        "_total"
    } else {
        ""
    };
    let named = if format == Format::Prometheus { total } else { "" };
    let name = family.name;
    writeln!(out, "# HELP {name}{named} {}", family.help)?;
    writeln!(out, "# TYPE {name}{named} {kind}")?;
    for sample in &family.samples {
        match &sample.value {
            Value::Whole(value) => {
                write!(out, "{name}{total}")?;
                write_labels(out, sample, None)?;
                writeln!(out, " {value}")?;
            }
            Value::Real(value) => {
                write!(out, "{name}{total}")?;
                write_labels(out, sample, None)?;
                writeln!(out, " {}", real(*value))?;
            }
            Value::Histogram {
                distribution,
                exemplars,
            } => {
                let below = distribution.below_edges();
                let edges = EDGES_US.iter().map(|&edge| seconds(edge));
                let infinite = std::iter::once(("+Inf".to_owned(), distribution.count));
                for (index, (edge, count)) in edges.zip(below).chain(infinite).enumerate() {
                    write!(out, "{name}_bucket")?;
                    write_labels(out, sample, Some(&edge))?;
                    write!(out, " {count}")?;
                    if format == Format::OpenMetrics
                        && let Some(Some(exemplar)) = exemplars.get(index)
                    {
                        write_exemplar(out, exemplar)?;
                    }
                    out.push('\n');
                }
                write!(out, "{name}_sum")?;
                write_labels(out, sample, None)?;
                writeln!(out, " {}", real(distribution.sum_ns as f64 / 1e9))?;
                write!(out, "{name}_count")?;
                write_labels(out, sample, None)?;
                writeln!(out, " {}", distribution.count)?;
            }
        }
    }
    Ok(())
}

/// Microseconds in seconds, exactly, as Go writes them: Prometheus itself names the buckets of the protobuf format so, and a
/// bucket that is scraped in another format stays the same series.
fn seconds(micros: u64) -> String {
    if micros < 100 {
        // With an exponent of two digits.
        return format!("{:e}", micros as f64 / 1e6).replace("e-", "e-0");
    }
    let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    let text = text.trim_end_matches('0');
    // OpenMetrics wants a decimal point in `le`.
    match text.strip_suffix('.') {
        Some(whole) => format!("{whole}.0"),
        None => text.to_owned(),
    }
}

fn real(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    value.to_string()
}

fn write_labels(out: &mut String, sample: &Sample<'_>, le: Option<&str>) -> std::fmt::Result {
    if sample.labels.is_empty() && le.is_none() {
        return Ok(());
    }
    let le = le.map(|le| ("le", le));
    let labels = sample
        .labels
        .iter()
        .map(|(name, value)| (*name, &**value))
        .chain(le);
    for (index, (name, value)) in labels.enumerate() {
        out.push(if index == 0 { '{' } else { ',' });
        write!(out, "{name}=\"")?;
        for character in value.chars() {
            match character {
                '\\' => out.push_str("\\\\"),
                '"' => out.push_str("\\\""),
                '\n' => out.push_str("\\n"),
                _ => out.push(character),
            }
        }
        out.push('"');
    }
    out.push('}');
    Ok(())
}

fn write_exemplar(out: &mut String, exemplar: &Exemplar) -> std::fmt::Result {
    write!(out, " # {{trace_id=\"")?;
    for byte in exemplar.trace_id {
        write!(out, "{byte:02x}")?;
    }
    write!(
        out,
        "\"}} {} {}.{:03}",
        real(exemplar.elapsed_ns as f64 / 1e9),
        exemplar.unix_millis / 1_000,
        exemplar.unix_millis % 1_000
    )
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::time::Duration;

    use super::*;
    use crate::metrics::histogram::{Fine, Merged};

    #[test]
    fn both_formats() {
        let histogram = Fine::new();
        for micros in [63, 64, 1_000, 70_000_000] {
            histogram.record(Duration::from_micros(micros));
        }
        let mut merged = Merged::new();
        merged.add(&histogram);
        let distribution = merged.distribution();
        let exemplar = Exemplar {
            trace_id: *b"\x0a\xf7\x65\x19\x16\xcd\x43\xdd\x84\x48\xeb\x21\x1c\x80\x31\x9c",
            elapsed_ns: 63_000,
            unix_millis: 1_700_000_000_007,
        };
        let exemplars = [Some(exemplar)];
        let families = [
            Family {
                name: "weir_a",
                help: "An a.",
                kind: Kind::Counter,
                samples: vec![Sample {
                    labels: vec![("backend", Cow::Borrowed("a\"\\\nb"))],
                    value: Value::Whole(3),
                }],
            },
            Family {
                name: "weir_h_seconds",
                help: "An h.",
                kind: Kind::Histogram,
                samples: vec![Sample {
                    labels: Vec::new(),
                    value: Value::Histogram {
                        distribution: &distribution,
                        exemplars: &exemplars,
                    },
                }],
            },
        ];
        let text = render(&families, Format::Prometheus);
        assert!(text.starts_with(
            "# HELP weir_a_total An a.\n# TYPE weir_a_total counter\nweir_a_total{backend=\"a\\\"\\\\\\nb\"} 3\n"
        ));
        assert!(
            text.contains("weir_h_seconds_bucket{le=\"6.4e-05\"} 1\n"),
            "{text}"
        );
        assert!(text.contains("weir_h_seconds_bucket{le=\"0.000128\"} 2\n"));
        assert!(text.contains("weir_h_seconds_bucket{le=\"0.001024\"} 3\n"));
        assert!(text.contains("weir_h_seconds_bucket{le=\"67.108864\"} 3\n"));
        assert!(text.ends_with(
            "weir_h_seconds_bucket{le=\"+Inf\"} 4\nweir_h_seconds_sum 70.001127\nweir_h_seconds_count 4\n"
        ));
        let open = render(&families, Format::OpenMetrics);
        assert!(open.starts_with("# HELP weir_a An a.\n# TYPE weir_a counter\nweir_a_total{"));
        assert!(open.ends_with("\n# EOF\n"));
        let with_exemplar = "weir_h_seconds_bucket{le=\"6.4e-05\"} 1 \
                             # {trace_id=\"0af7651916cd43dd8448eb211c80319c\"} 0.000063 1700000000.007\n";
        assert!(open.contains(with_exemplar), "{open}");
        assert!(!text.contains("trace_id"));
    }

    #[test]
    fn seconds_are_exact_and_have_a_point() {
        for (micros, text) in [
            (64, "6.4e-05"),
            (128, "0.000128"),
            (1 << 20, "1.048576"),
            (2_000_000, "2.0"),
        ] {
            assert_eq!(seconds(micros), text);
        }
    }
}
