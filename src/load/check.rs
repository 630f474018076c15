//! `weir load check`: does a file of rows show what it should?

use std::collections::{BTreeMap, HashSet};
use std::io::{self, BufRead};
use std::time::Duration;

use super::report::HEADER;

/// What is to be found.
#[derive(Clone, Debug)]
pub struct Expectation {
    pub requests: u64,
    /// Share of rows with an error or a status of 500 and more, 0 to 1.
    pub max_error_rate: f64,
    pub max_p99: Option<Duration>,
    /// How far a backend's share may be from an even one, as part of that.
    pub balance_tolerance: Option<f64>,
    /// Who has to have answered; empty: whoever did.
    pub backends: Vec<String>,
}

/// Wrong lines that are named; further ones are counted.
const NAMED_MAX: usize = 10;

/// What is wrong, a sentence each; empty: nothing.
///
/// # Errors
/// The rows cannot be read.
pub fn check(rows: impl BufRead, expected: &Expectation) -> io::Result<Vec<String>> {
    let mut found = Found::default();
    for (index, line) in rows.lines().enumerate() {
        found.take(index + 1, &line?);
    }
    Ok(found.judge(expected))
}

#[derive(Default)]
struct Found {
    wrong: Vec<String>,
    wrong_lines: usize,
    ids: HashSet<u64>,
    errors: u64,
    rows: u64,
    latencies: Vec<u64>,
    backends: BTreeMap<String, u64>,
}

struct Row {
    id: u64,
    latency_ns: u64,
    status: u16,
    backend: String,
    error: String,
}

impl Found {
    fn take(&mut self, number: usize, line: &str) {
        if number == 1 {
            if line != HEADER {
                self.complain(format!("line 1: {line:?} is not the header {HEADER:?}"));
            }
            return;
        }
        if line.is_empty() {
            return;
        }
        let row = match parse(line) {
            Ok(row) => row,
            Err(why) => return self.complain(format!("line {number}: {why}")),
        };
        self.rows += 1;
        if !self.ids.insert(row.id) {
            self.complain(format!("line {number}: id {} stands there twice", row.id));
        }
        if !row.error.is_empty() || row.status >= 500 {
            self.errors += 1;
        } else {
            self.latencies.push(row.latency_ns);
        }
        if !row.backend.is_empty() {
            *self.backends.entry(row.backend).or_default() += 1;
        }
    }

    fn complain(&mut self, what: String) {
        self.wrong_lines += 1;
        if self.wrong_lines <= NAMED_MAX {
            self.wrong.push(what);
        }
    }

    fn judge(mut self, expected: &Expectation) -> Vec<String> {
        let mut wrong = std::mem::take(&mut self.wrong);
        if self.wrong_lines > NAMED_MAX {
            wrong.push(format!("{} more lines are wrong", self.wrong_lines - NAMED_MAX));
        }
        if self.rows != expected.requests {
            wrong.push(format!("{} requests, expected {}", self.rows, expected.requests));
        }
        let missing = (0..expected.requests).find(|id| !self.ids.contains(id));
        if let Some(id) = missing
            && self.rows >= expected.requests
        {
            wrong.push(format!("no row has id {id}"));
        }
        let rate = self.errors as f64 / self.rows.max(1) as f64;
        if rate > expected.max_error_rate {
            wrong.push(format!(
                "{} of {} requests failed ({:.3} %), at most {:.3} % may",
                self.errors,
                self.rows,
                rate * 100.0,
                expected.max_error_rate * 100.0
            ));
        }
        if let Some(max) = expected.max_p99 {
            self.latencies.sort_unstable();
            let index = (self.latencies.len() * 99).div_ceil(100).saturating_sub(1);
            match self.latencies.get(index) {
                Some(&p99) if u128::from(p99) > max.as_nanos() => wrong.push(format!(
                    "the p99 is {:.3} ms, at most {:.3} ms is allowed",
                    p99 as f64 / 1e6,
                    max.as_secs_f64() * 1e3
                )),
                Some(_) => {}
                None => wrong.push("no request was answered, so there is no p99".to_owned()),
            }
        }
        self.judge_balance(expected, &mut wrong);
        wrong
    }

    fn judge_balance(&self, expected: &Expectation, wrong: &mut Vec<String>) {
        for name in &expected.backends {
            if !self.backends.contains_key(name) {
                wrong.push(format!("backend {name} answered nothing"));
            }
        }
        for name in self.backends.keys() {
            if !expected.backends.is_empty() && !expected.backends.contains(name) {
                wrong.push(format!("backend {name} answered and was not expected"));
            }
        }
        let Some(tolerance) = expected.balance_tolerance else {
            return;
        };
        let sum: u64 = self.backends.values().sum();
        let count = self.backends.len().max(expected.backends.len());
        if sum == 0 {
            wrong.push("no row names a backend, so nothing can be said of the balance".to_owned());
            return;
        }
        let even = sum as f64 / count as f64;
        for (name, &answers) in &self.backends {
            let off = (answers as f64 - even) / even;
            if off.abs() > tolerance {
                wrong.push(format!(
                    "backend {name} answered {answers}, {:+.1} % of an even share of {even:.1}; {:.1} % is allowed",
                    off * 100.0,
                    tolerance * 100.0
                ));
            }
        }
    }
}

/// A row, or what is wrong with it.
fn parse(line: &str) -> Result<Row, String> {
    let fields = fields(line).ok_or("a quote is not closed")?;
    let [id, start, latency, status, backend, bytes, error] = fields.as_slice() else {
        return Err(format!("{} fields, expected 7", fields.len()));
    };
    let number = |name: &str, text: &String| {
        text.parse::<u64>()
            .map_err(|_| format!("{name} is {text:?}, expected a whole number"))
    };
    number("start_ns", start)?;
    number("bytes", bytes)?;
    Ok(Row {
        id: number("id", id)?,
        latency_ns: number("latency_ns", latency)?,
        status: u16::try_from(number("status", status)?).map_err(|_| format!("status is {status}"))?,
        backend: backend.clone(),
        error: error.clone(),
    })
}

/// The fields of a line (RFC 4180 §2); none: a quote is not closed.
fn fields(line: &str) -> Option<Vec<String>> {
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            None => rest
                .split_once(',')
                .map_or((rest.to_owned(), None), |(field, after)| {
                    (field.to_owned(), Some(after))
                }),
            Some(quoted) => {
                let mut field = String::new();
                let mut rest = quoted;
                loop {
                    let (part, after) = rest.split_once('"')?;
                    field.push_str(part);
                    match after.strip_prefix('"') {
                        Some(more) => {
                            field.push('"');
                            rest = more;
                        }
                        None => break (field, after.strip_prefix(',')),
                    }
                }
            }
        };
        fields.push(field);
        match after {
            Some(after) => rest = after,
            None => return Some(fields),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn expectation(requests: u64) -> Expectation {
        Expectation {
            requests,
            max_error_rate: 0.0,
            max_p99: None,
            balance_tolerance: None,
            backends: Vec::new(),
        }
    }

    fn judged(rows: &str, expected: &Expectation) -> Vec<String> {
        check(format!("{HEADER}\n{rows}").as_bytes(), expected).unwrap()
    }

    #[test]
    fn good_rows_are_good() {
        let rows = "0,1,1000,200,a,10,\n1,2,2000,200,\"b,c\",10,\n";
        assert_eq!(judged(rows, &expectation(2)), [""; 0]);
        let expected = Expectation {
            max_p99: Some(Duration::from_micros(2)),
            balance_tolerance: Some(0.0),
            backends: vec!["a".to_owned(), "b,c".to_owned()],
            ..expectation(2)
        };
        assert_eq!(judged(rows, &expected), [""; 0]);
    }

    #[test]
    fn each_finding_is_said() {
        let rows = "0,1,1000,200,a,10,\n0,2,9000,503,a,10,\nx,2,3,200,a,10,\n1,2,3\n3,1,1,0,,0,timeout\n";
        let expected = Expectation {
            max_p99: Some(Duration::from_nanos(999)),
            balance_tolerance: Some(0.05),
            backends: vec!["a".to_owned(), "b".to_owned()],
            ..expectation(4)
        };
        assert_eq!(
            judged(rows, &expected),
            [
                "line 3: id 0 stands there twice",
                "line 4: id is \"x\", expected a whole number",
                "line 5: 3 fields, expected 7",
                "3 requests, expected 4",
                "2 of 3 requests failed (66.667 %), at most 0.000 % may",
                "the p99 is 0.001 ms, at most 0.001 ms is allowed",
                "backend b answered nothing",
                "backend a answered 2, +100.0 % of an even share of 1.0; 5.0 % is allowed",
            ]
        );
        assert_eq!(check(&b"nonsense\n"[..], &expectation(0)).unwrap().len(), 1);
    }

    proptest! {
        #[test]
        fn any_text_gets_a_verdict(text in "[\\PC\n]{0,200}") {
            let _ = check(text.as_bytes(), &expectation(1)).unwrap();
        }

        #[test]
        fn quoted_fields_read_back(names in proptest::collection::vec("[a-z,\" ]{0,12}", 1..5)) {
            let line: Vec<String> = names.iter().map(|name| format!("\"{}\"", name.replace('"', "\"\""))).collect();
            prop_assert_eq!(fields(&line.join(",")), Some(names));
        }
    }
}
