//! JSON, written piece by piece into an answer's body.

use hyper::header::HeaderMap;

/// Whether a header's value is nobody else's business.
fn is_secret(name: &str) -> bool {
    match name {
        "authorization"
        | "proxy-authorization"
        | "cookie"
        | "set-cookie"
        | "api-key"
        | "apikey"
        | "token" => true,
        _ => {
            let words = [
                "auth",
                "token",
                "secret",
                "password",
                "key",
                "cookie",
                "session",
                "signature",
            ];
            name.starts_with("x-") && words.iter().any(|word| name.contains(word))
        }
    }
}

/// An object of all fields: a string each, a list where a name repeats.
pub(super) fn write_headers(json: &mut Vec<u8>, headers: &HeaderMap) {
    json.push(b'{');
    for (index, name) in headers.keys().enumerate() {
        if index > 0 {
            json.push(b',');
        }
        write_string(json, name.as_str());
        json.push(b':');
        if is_secret(name.as_str()) {
            json.extend_from_slice(b"\"[redacted]\"");
            continue;
        }
        let mut values = headers.get_all(name).iter();
        let (first, second) = (values.next(), values.next());
        let repeated = second.is_some();
        if repeated {
            json.push(b'[');
        }
        for (index, value) in first.into_iter().chain(second).chain(values).enumerate() {
            if index > 0 {
                json.push(b',');
            }
            write_string(json, &String::from_utf8_lossy(value.as_bytes()));
        }
        if repeated {
            json.push(b']');
        }
    }
    json.push(b'}');
}

pub(super) fn write_string(json: &mut Vec<u8>, string: &str) {
    serde_json::to_writer(json, string).expect("a string is JSON and a Vec takes every write");
}

pub(super) fn write_number(json: &mut Vec<u8>, number: u64) {
    serde_json::to_writer(json, &number).expect("a number is JSON and a Vec takes every write");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_told_by_their_names() {
        for secret in [
            "authorization",
            "cookie",
            "x-api-key",
            "x-auth-request-token",
            "x-amz-security-token",
        ] {
            assert!(is_secret(secret), "{secret}");
        }
        for open in [
            "host",
            "accept",
            "x-forwarded-for",
            "sec-websocket-key",
            "x-request-id",
        ] {
            assert!(!is_secret(open), "{open}");
        }
    }
}
