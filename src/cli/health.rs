//! `weir health`: one request to a running weir's `/readyz`, on monoio and its HTTP/1 codec.
//!
//! Both ends are ours: the codec's lack of limits does not matter here, as the deadline bounds the whole exchange.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use hyper::header::{CONNECTION, HOST, USER_AGENT};
use hyper::{Request, StatusCode, Uri};
use monoio::io::sink::SinkExt;
use monoio::io::stream::Stream;
use monoio::net::TcpStream;
use monoio::time::TimeDriver;
use monoio::{FusionDriver, FusionRuntime, IoUringDriver, LegacyDriver, RuntimeBuilder};
use monoio_http::common::body::Body;
use monoio_http::h1::codec::ClientCodec;
use monoio_http::h1::payload::{Payload, PayloadError};

use super::{exit, values};

/// How much of an answer that is not 200 is shown.
const SHOWN_BYTES: usize = 1024;

#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  weir health
  weir health --url 'http://127.0.0.1:9070/readyz?backends=1' --timeout 500ms

Exit codes: 0 the answer is 200, 1 it is not or did not come, 2 bad usage")]
pub struct HealthArgs {
    /// What to ask; http:// only
    #[arg(long, default_value = "http://127.0.0.1:9070/readyz", value_parser = parse_target)]
    url: Target,

    /// Wait no longer than this in all
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = values::parse_duration)]
    timeout: Duration,
}

/// A parsed `http://` url.
#[derive(Clone, Debug)]
struct Target {
    uri: Uri,
    /// Without brackets.
    host: String,
    port: u16,
}

pub fn main(args: HealthArgs) -> ExitCode {
    let ask = async {
        match monoio::time::timeout(args.timeout, ask(&args.url)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {:?}", args.timeout)),
        }
    };
    let answer = match runtime() {
        Ok(mut runtime) => runtime.block_on(ask),
        Err(error) => Err(format!("cannot start a runtime: {error}")),
    };
    match answer {
        Ok((StatusCode::OK, _)) => ExitCode::from(exit::ANSWERED),
        Ok((status, body)) => exit::because(
            exit::CUT,
            format_args!("{} answered {status} {body}", args.url.uri),
        ),
        Err(error) => exit::because(exit::CUT, format_args!("{}: {error}", args.url.uri)),
    }
}

/// io_uring where the kernel allows it, else epoll.
fn runtime() -> io::Result<FusionRuntime<TimeDriver<IoUringDriver>, TimeDriver<LegacyDriver>>> {
    // The probe for io_uring uses a small ring: the real one may still be refused, as by a limit on locked memory.
    let fused = RuntimeBuilder::<FusionDriver>::new().enable_timer().build();
    fused.or_else(|_| {
        Ok(RuntimeBuilder::<LegacyDriver>::new()
            .enable_timer()
            .build()?
            .into())
    })
}

/// Gives the status and, unless it is 200, the start of the body.
async fn ask(target: &Target) -> Result<(StatusCode, String), String> {
    let stream = TcpStream::connect((target.host.as_str(), target.port))
        .await
        .map_err(|error| format!("cannot connect: {error}"))?;
    let authority = target.uri.authority().map_or("", |authority| authority.as_str());
    let request = Request::get(target.uri.clone())
        .header(HOST, authority)
        .header(USER_AGENT, concat!("weir/", env!("CARGO_PKG_VERSION")))
        .header(CONNECTION, "close")
        .body(Payload::<Bytes, PayloadError>::None)
        .map_err(|error| error.to_string())?;
    let mut codec = ClientCodec::new(stream);
    codec
        .send_and_flush(request)
        .await
        .map_err(|error| format!("cannot ask: {error}"))?;
    let response = match codec.next().await {
        Some(Ok(response)) => response,
        Some(Err(error)) => return Err(format!("the answer is not HTTP/1: {error}")),
        None => return Err("closed without an answer".to_owned()),
    };
    let status = response.status();
    let mut shown = Vec::new();
    if status != StatusCode::OK {
        let mut body = response.into_body().with_io(codec);
        while let Some(Ok(data)) = body.next_data().await {
            shown.extend_from_slice(&data);
            if shown.len() >= SHOWN_BYTES {
                shown.truncate(SHOWN_BYTES);
                break;
            }
        }
    }
    Ok((status, String::from_utf8_lossy(&shown).trim().to_owned()))
}

fn parse_target(text: &str) -> Result<Target, String> {
    const ALLOWED: &str = "a url is http://HOST:PORT/PATH";
    let uri: Uri = text.parse().map_err(|error| format!("{ALLOWED} ({error})"))?;
    let (host, port) = (uri.host().unwrap_or_default(), uri.port_u16());
    // What is in the authority beside host and port is a user's name or no port.
    let plain = port.map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let is_plain = uri
        .authority()
        .is_some_and(|authority| authority.as_str() == plain);
    if uri.scheme_str() != Some("http") || host.is_empty() || !is_plain {
        return Err(ALLOWED.to_owned());
    }
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    Ok(Target {
        uri,
        host,
        port: port.unwrap_or(80),
    })
}

#[cfg(test)]
mod tests {
    use super::parse_target;

    #[test]
    fn targets() {
        let target = parse_target("http://[::1]:9070/readyz?backends=1").expect("a good url");
        assert_eq!((target.host.as_str(), target.port), ("::1", 9070));
        assert_eq!(parse_target("http://weir").expect("a good url").port, 80);
        for bad in [
            "",
            "weir:9070",
            "https://weir/",
            "http://",
            "/readyz",
            "http://weir:99999/",
        ] {
            assert!(parse_target(bad).is_err(), "{bad}");
        }
    }
}
