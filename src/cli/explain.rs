//! `weir explain`: asks the admin API of a running weir what would be chosen for a request now, and prints it as a table.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::admin::AdminArgs;
use super::{exit, values};
use crate::top::client::{Admin, encoded};

#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  weir explain --path /cart --client 203.0.113.7
  weir explain --path / -H 'cookie: weir=b84ab619fa31a9af5f58bfa79a371753'
  weir explain --key user-42 --json | jq -r .chosen

Nothing is sent, and nothing changes: no turn is taken, no trial's place, nothing of a limit or a budget.

Exit codes: 0 it was explained, 1 weir could not be asked, 2 bad usage")]
pub struct ExplainArgs {
    #[arg(long, value_name = "METHOD", default_value = "GET")]
    method: String,

    /// Path and query
    #[arg(long, value_name = "PATH", default_value = "/")]
    path: String,

    /// Who sends it; without: somebody on a Unix socket
    #[arg(long, value_name = "ADDRESS")]
    client: Option<std::net::IpAddr>,

    /// A header line; may be repeated
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE", value_parser = parse_header)]
    headers: Vec<String>,

    /// What the request is known by, instead of what `strategy.key` finds in it
    #[arg(long, value_name = "TEXT")]
    key: Option<String>,

    #[command(flatten)]
    admin: AdminArgs,

    /// Wait no longer than this for the answer
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = values::parse_duration)]
    timeout: Duration,

    /// Print the answer of the API
    #[arg(long)]
    json: bool,
}

fn parse_header(text: &str) -> Result<String, String> {
    if text.contains(':') {
        Ok(text.to_owned())
    } else {
        Err("a header line is NAME: VALUE".to_owned())
    }
}

pub fn main(args: ExplainArgs) -> ExitCode {
    let admin = match args.admin.client() {
        Ok(admin) => admin,
        Err(why) => return exit::because(exit::BAD_CONFIGURATION, why),
    };
    let told = ask(&admin, &args);
    let text = told.and_then(|told| {
        if args.json {
            serde_json::to_string_pretty(&told).map_err(|error| error.to_string())
        } else {
            Ok(table(&told))
        }
    });
    match text.map(|text| writeln!(io::stdout(), "{}", text.trim_end())) {
        Err(why) => exit::because(exit::CUT, why),
        Ok(Err(error)) if error.kind() != io::ErrorKind::BrokenPipe => {
            exit::because(exit::CUT, format_args!("cannot print: {error}"))
        }
        // A reader that has seen enough is no error.
        Ok(_) => ExitCode::from(exit::ANSWERED),
    }
}

fn ask(admin: &Admin, args: &ExplainArgs) -> Result<Value, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot start a runtime: {error}"))?;
    runtime.block_on(admin.get(&target(args), args.timeout))
}

fn target(args: &ExplainArgs) -> String {
    let client = args.client.map(|client| client.to_string());
    let mut parameters = vec![("method", args.method.clone()), ("path", args.path.clone())];
    parameters.extend(client.map(|client| ("client", client)));
    parameters.extend(args.key.clone().map(|key| ("key", key)));
    parameters.extend(args.headers.iter().map(|line| ("header", line.clone())));
    let pairs: Vec<String> = parameters
        .iter()
        .map(|(name, value)| format!("{name}={}", encoded(value)))
        .collect();
    format!("/explain?{}", pairs.join("&"))
}

/// What the API told, for people.
fn table(told: &Value) -> String {
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let request = &told["request"];
    let mut lines = vec![format!(
        "{} {} from {}",
        word(&request["method"]),
        word(&request["path"]),
        request["client"].as_str().unwrap_or("a Unix socket")
    )];
    if request["may_be_sent_again"] == false {
        lines.push("it could not be sent again if its backend failed".to_owned());
    }
    lines.push(format!(
        "{}: {} of {} backends of {} may be chosen: {}",
        word(&told["strategy"]),
        told["eligible"],
        told["of"],
        word(&told["pool"]),
        word(&told["rule"])
    ));
    if !told["key"].is_null() {
        let hash = told["key"]["hash"]
            .as_str()
            .unwrap_or("none: the request has no such key");
        lines.push(format!("key by {}: {hash}", word(&told["key"]["by"])));
    }
    if !told["sticky"].is_null() {
        let sticky = &told["sticky"];
        let backend = sticky["backend"].as_str().unwrap_or("none");
        lines.push(format!("cookie: {backend}: {}", word(&sticky["why"])));
    }
    lines.push(format!(
        "decided by {}: {}",
        word(&told["decided_by"]),
        word(&told["how"])
    ));
    lines.push(match told["chosen"].as_str() {
        Some(name) => format!("it goes to {name}"),
        None if told["random"] == true => "it is drawn, by the chances below".to_owned(),
        None if told["decided_by"] == "weir" => "no backend is asked".to_owned(),
        None if told["waits"] == true => "all are full: it waits for a slot".to_owned(),
        None => "nobody may be chosen: 503 no_backend".to_owned(),
    });
    lines.push(String::new());
    let heads = [
        "backend",
        "state",
        "weight",
        "in flight",
        "chance",
        "seen as",
        "why",
    ];
    let mut rows = vec![heads.map(str::to_uppercase).to_vec()];
    for backend in told["backends"].as_array().into_iter().flatten() {
        rows.push(row(backend));
    }
    lines.extend(aligned(&rows));
    lines.join("\n")
}

fn row(backend: &Value) -> Vec<String> {
    let word = |name: &str| backend[name].as_str().unwrap_or_default().to_owned();
    let ramp = backend["ramp"].as_f64().unwrap_or(1.0);
    let mut weight = backend["weight"].to_string();
    if ramp < 1.0 {
        weight.push_str(&format!(" × {ramp:.2}"));
    }
    let sees = backend["sees"].as_object().into_iter().flatten();
    let sees: Vec<String> = sees
        .map(|(name, value)| {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            format!("{name} {value}")
        })
        .collect();
    let mut why = word("because");
    if let Some(until) = backend["until"].as_str() {
        why.push_str(&format!(", until {until}"));
    }
    let chance = backend["chance"].as_f64().unwrap_or(0.0) * 100.0;
    vec![
        word("name"),
        word("state"),
        weight,
        backend["in_flight"].to_string(),
        format!("{chance:.1} %"),
        sees.join(", "),
        why,
    ]
}

/// Lines with columns as wide as they must be; figures stand at the right.
fn aligned(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let cell = |(column, text): (usize, &String)| {
        let width = widths[column];
        if (2..=4).contains(&column) {
            format!("{text:>width$}")
        } else {
            format!("{text:<width$}")
        }
    };
    rows.iter()
        .map(|row| {
            let cells: Vec<String> = row.iter().enumerate().map(cell).collect();
            cells.join("  ").trim_end().to_owned()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_told_is_a_table() {
        let told = json!({
            "pool": "default", "strategy": "p2c",
            "request": {"method": "GET", "path": "/x", "client": "203.0.113.7", "may_be_sent_again": true},
            "key": null,
            "sticky": {"backend": null, "holds": false, "why": "the request has no cookie that names a backend"},
            "eligible": 2, "of": 3, "rule": "who is well; backups stand by", "panic": false,
            "decided_by": "strategy", "how": "two are drawn", "chosen": null, "random": true, "waits": false,
            "backends": [
                {"name": "a", "state": "up", "weight": 10, "in_flight": 0, "ramp": 1.0, "chance": 0.75,
                 "sees": {"load": 0.1}, "because": "drawn", "until": null},
                {"name": "long-name", "state": "ramping", "weight": 1, "in_flight": 12, "ramp": 0.25, "chance": 0.25,
                 "sees": {"load": 4.5, "point": "0x01"}, "because": "drawn", "until": null},
                {"name": "c", "state": "ejected", "weight": 1, "in_flight": 0, "ramp": 1.0, "chance": 0.0,
                 "sees": {}, "because": "ejected", "until": "2026-01-02T03:04:05Z"},
            ],
        });
        let expected = "\
GET /x from 203.0.113.7
p2c: 2 of 3 backends of default may be chosen: who is well; backups stand by
cookie: none: the request has no cookie that names a backend
decided by strategy: two are drawn
it is drawn, by the chances below

BACKEND    STATE      WEIGHT  IN FLIGHT  CHANCE  SEEN AS               WHY
a          up             10          0  75.0 %  load 0.1              drawn
long-name  ramping  1 × 0.25         12  25.0 %  load 4.5, point 0x01  drawn
c          ejected         1          0   0.0 %                        ejected, until 2026-01-02T03:04:05Z";
        assert_eq!(table(&told), expected);
    }
}
