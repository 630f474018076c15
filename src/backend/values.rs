//! Values that a backend is told on the command line or by `POST /_set`. Errors say what is allowed.

use std::time::Duration;

use hyper::StatusCode;

/// `"250us"`, `"5ms"`, `"1.5s"`, `"2m"`, `"1h"`, `"0"`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    const ALLOWED: &str = "a duration is a number with a unit (us, ms, s, m, h), as in 5ms, 1.5s or 2m";
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let unit_at = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .ok_or(ALLOWED)?;
    let (number, unit) = text.split_at(unit_at);
    let seconds = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(ALLOWED.to_owned()),
    };
    let number: f64 = number.parse().map_err(|_| ALLOWED)?;
    Duration::try_from_secs_f64(number * seconds).map_err(|_| "the duration is too long".to_owned())
}

/// A share from 0 to 1.
pub fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.0..=1.0).contains(&rate) => Ok(rate),
        _ => Err("a rate is a number from 0 to 1, as in 0.1".to_owned()),
    }
}

/// A final status code.
pub fn parse_status(text: &str) -> Result<StatusCode, String> {
    match text.parse() {
        Ok(status @ 200..=599) => StatusCode::from_u16(status).map_err(|error| error.to_string()),
        _ => Err("a status is a number from 200 to 599".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, micros) in [
            ("0", 0),
            ("250us", 250),
            ("5ms", 5_000),
            ("0.5s", 500_000),
            ("2s", 2_000_000),
            ("1.5m", 90_000_000),
            ("1h", 3_600_000_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_micros(micros)), "{text}");
        }
        for bad in [
            "",
            "5",
            "ms",
            "-5ms",
            "5 ms",
            "1.2.3s",
            "5d",
            "99999999999999999999h",
        ] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn rates_and_statuses() {
        assert_eq!(parse_rate("0.1"), Ok(0.1));
        for bad in ["1.01", "-0.1", "nan", "x", ""] {
            assert!(parse_rate(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_status("503"), Ok(StatusCode::SERVICE_UNAVAILABLE));
        for bad in ["100", "600", "x", ""] {
            assert!(parse_status(bad).is_err(), "{bad}");
        }
    }
}
