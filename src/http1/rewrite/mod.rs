//! Heads as they go out: written anew from what was parsed, into a buffer that the caller has made large enough.
//!
//! Fields keep their order, their names' case and every byte ≥ 0x80; whitespace around a value becomes one space in
//! front. Lines that already look so are copied in runs. Both directions lose what ends at weir (RFC 9110 §7.6.1):
//! `Connection` and what it names, `Keep-Alive`, `Proxy-Connection`, `TE`, `Upgrade`, `HTTP2-Settings`. `Trailer` stays, as
//! trailers do.
//!
//! Both go out as HTTP/1.1 whatever came in: a proxy sends its own version (RFC 9110 §2.5, §6.2), also to an HTTP/1.0
//! client, which sees from `Connection` whether the connection goes on.

mod request;
mod response;

pub use request::{HostRewrite, RequestRewrite, request_bound, write_request};
pub use response::{ResponseRewrite, response_bound, write_response};

use super::head::{Field, Table, Version};

/// weir's name in `Via` (RFC 9110 §7.6.3).
pub const VIA_NAME: &str = "weir";

/// Room for everything of fixed length that is written beside what came in.
const FIXED_BYTES: usize = 512;

/// Copies the fields that are to stay, joining lines that may be copied as they are.
fn copy_fields(table: &Table, bytes: &[u8], out: &mut Vec<u8>, stays: impl Fn(&Field) -> bool) {
    let mut run = 0..0;
    for field in table.fields.iter().filter(|field| stays(field)) {
        let start = field.name.start as usize;
        if field.plain {
            let end = field.value.end as usize + 2;
            if run.end != start {
                out.extend_from_slice(bytes.get(run).unwrap_or_default());
                run = start..start;
            }
            run.end = end;
        } else {
            out.extend_from_slice(bytes.get(run).unwrap_or_default());
            run = 0..0;
            write_field(out, field.name.of(bytes), field.value.of(bytes));
        }
    }
    out.extend_from_slice(bytes.get(run).unwrap_or_default());
}

fn write_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Writes `Upgrade` with these members; false, and nothing written, if there are none.
fn write_upgrade<'a>(out: &mut Vec<u8>, protocols: impl Iterator<Item = &'a [u8]>) -> bool {
    let mut any = false;
    for protocol in protocols {
        out.extend_from_slice(if any { b", " } else { b"Upgrade: " });
        out.extend_from_slice(protocol);
        any = true;
    }
    if any {
        out.extend_from_slice(b"\r\n");
    }
    any
}

/// Writes `Connection` with those options that are wanted, or nothing.
fn write_connection(out: &mut Vec<u8>, options: &[(&str, bool)]) {
    let mut any = false;
    for (option, _) in options.iter().filter(|(_, wanted)| *wanted) {
        out.extend_from_slice(if any { b", " } else { b"Connection: " });
        out.extend_from_slice(option.as_bytes());
        any = true;
    }
    if any {
        out.extend_from_slice(b"\r\n");
    }
}

/// `received` is the version of the message that came in.
fn write_via(out: &mut Vec<u8>, received: Version) {
    let version = if received == Version::Http10 { "1.0" } else { "1.1" };
    for part in ["Via: ", version, " ", VIA_NAME, "\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
}
