//! Parsers of values on the command line. Errors complete clap's "invalid value 'x' for '--flag': …".

use super::Setting;

pub use crate::backend::values::{parse_duration, parse_rate, parse_status};

/// A name that may stand in a header and in JSON.
pub fn parse_name(text: &str) -> Result<String, String> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("a name is one or more printable ASCII characters without spaces".to_owned());
    }
    Ok(text.to_owned())
}

/// The path of a url, without a query.
pub fn parse_path(text: &str) -> Result<String, String> {
    let plain = text
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && !b"?#".contains(&byte));
    if !text.starts_with('/') || !plain {
        return Err("a path starts with a slash and has neither spaces nor a query, as in /load".to_owned());
    }
    Ok(text.to_owned())
}

/// `section.key=value`.
pub fn parse_setting(text: &str) -> Result<Setting, String> {
    const ALLOWED: &str = "a setting is section.key=value, as in server.address=:8000";
    let (key, value) = text.split_once('=').ok_or(ALLOWED)?;
    let is_key = key.split('.').count() >= 2 && key.split('.').all(|part| !part.trim().is_empty());
    if !is_key {
        return Err(ALLOWED.to_owned());
    }
    Ok(Setting {
        key: key.trim().to_owned(),
        value: value.trim().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(parse_name("a-1"), Ok("a-1".to_owned()));
        for bad in ["", "a b", "a\n", "é"] {
            assert!(parse_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn paths() {
        assert_eq!(parse_path("/a/b"), Ok("/a/b".to_owned()));
        for bad in ["", "load", "/a b", "/load?x=1"] {
            assert!(parse_path(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn settings() {
        let parsed =
            parse_setting("retry.max_retries=").expect("an empty value is for the configuration to judge");
        assert_eq!(
            (parsed.key.as_str(), parsed.value.as_str()),
            ("retry.max_retries", "")
        );
        for bad in ["", "a.b", "=1", "a=1", ".b=1", "a.=1"] {
            assert!(parse_setting(bad).is_err(), "{bad}");
        }
    }
}
