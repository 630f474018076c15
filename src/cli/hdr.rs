//! `weir hdr`: what can be done with exported histograms.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};

use super::exit;
use crate::hdr::merge::Merge;
use crate::hdr::{Unit, picture, table};

/// Bytes of one export.
const MAX_EXPORT: u64 = 256 << 20;

const AFTER_HELP: &str = "\
Examples:
  curl -s http://127.0.0.1:9070/metrics/hdr.hlog > a.hlog
  weir hdr merge a.hlog b.hlog                            one table for two instances
  weir hdr merge *.hlog --svg all.svg --out all.hlog      a picture, and the sum to go on with
  weir hdr merge a.hlog b.hlog --tag backend-1 --json     one backend of both, for a script
  curl -s 'http://127.0.0.1:9070/metrics/hdr?series=connect' | weir hdr merge -

Exit codes:
  0  it is merged
  2  bad usage, an export that cannot be read or added, or a file that cannot be written";

#[derive(Args, Clone, Debug)]
pub struct HdrArgs {
    #[command(subcommand)]
    command: HdrCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum HdrCommand {
    /// Add up the exports of many instances: exact percentiles over all of them
    ///
    /// An export is what /metrics/hdr answers, in base64 or as a log of HdrHistogram (.hlog), also of other programs. The
    /// table is HdrHistogram's percentile distribution, in milliseconds.
    Merge(MergeArgs),
}

#[derive(Args, Clone, Debug)]
#[command(after_help = AFTER_HELP)]
struct MergeArgs {
    /// Exports; - is standard input
    #[arg(required = true, value_name = "FILE")]
    exports: Vec<PathBuf>,

    /// Take only what has this tag (weir's exports: the backend's name); may be repeated
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,

    /// What the values are, where the exports do not say [default: us]
    #[arg(long, value_enum, value_name = "UNIT")]
    unit: Option<Unit>,

    /// Write the sum as a log, a line for each tag
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// Draw latency by percentile
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,

    /// Print JSON instead of the table
    #[arg(long)]
    json: bool,
}

impl ValueEnum for Unit {
    fn value_variants<'a>() -> &'a [Self] {
        &Unit::ALL
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(clap::builder::PossibleValue::new(self.word()))
    }
}

pub fn main(args: HdrArgs) -> ExitCode {
    let HdrCommand::Merge(args) = args.command;
    match merge(&args) {
        Ok(()) => ExitCode::from(exit::ANSWERED),
        Err(error) => exit::because(exit::BAD_CONFIGURATION, error),
    }
}

fn merge(args: &MergeArgs) -> Result<(), String> {
    let mut merge = Merge::new(args.tag.clone(), args.unit);
    for path in &args.exports {
        let name = if is_stdin(path) {
            "standard input".to_owned()
        } else {
            path.display().to_string()
        };
        let text = read(path).map_err(|error| format!("{name}: cannot be read: {error}"))?;
        merge.add(&name, &text)?;
    }
    let total = merge.total()?;
    let cannot = |path: &Path, error: &dyn std::fmt::Display| {
        format!("{}: cannot be written: {error}", path.display())
    };
    if let Some(path) = &args.out {
        let log = merge.log().map_err(|error| cannot(path, &error))?;
        fs::write(path, log).map_err(|error| cannot(path, &error))?;
    }
    if let Some(path) = &args.svg {
        let svg = picture::draw(&merge, &total).map_err(|error| cannot(path, &error))?;
        fs::write(path, svg).map_err(|error| cannot(path, &error))?;
    }
    let text = if args.json {
        format!("{:#}\n", table::json(&merge, &total))
    } else {
        table::classic(&merge, &total)
    };
    match io::stdout().write_all(text.as_bytes()) {
        // A reader that has seen enough is no error.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(format!("cannot print: {error}")),
        _ => Ok(()),
    }
}

fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn read(path: &Path) -> io::Result<String> {
    let source: Box<dyn Read> = if is_stdin(path) {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(path)?)
    };
    let mut text = String::new();
    source.take(MAX_EXPORT + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_EXPORT {
        return Err(io::Error::other(format!("it has more than {MAX_EXPORT} bytes")));
    }
    Ok(text)
}
