//! How a backend misbehaves: as it was started, and as `POST /_set` changes it while it runs.

use std::time::Duration;

use hyper::StatusCode;
use serde_json::{Value, json};

use super::Options;
use super::values::{parse_duration, parse_rate, parse_status};

/// What `POST /_set` can change. Counts from the next request on, also on connections that are open already.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Settings {
    pub delay: Duration,
    pub jitter: Duration,
    pub error_rate: f64,
    pub error_status: StatusCode,
    pub hang_rate: f64,
    pub abort_rate: f64,
    pub reset_rate: f64,
    pub status: StatusCode,
    pub health_status: StatusCode,
    pub health_delay: Duration,
    pub stall: Duration,
    pub stall_every: Duration,
}

impl Settings {
    pub fn new(options: &Options) -> Settings {
        Settings {
            delay: options.delay,
            jitter: options.jitter,
            error_rate: options.error_rate,
            error_status: options.error_status,
            hang_rate: options.hang_rate,
            abort_rate: options.abort_rate,
            reset_rate: options.reset_rate,
            status: options.status,
            health_status: options.health_status,
            health_delay: options.health_delay,
            stall: options.stall,
            stall_every: options.stall_every,
        }
    }

    /// How much longer a stall lasts that is going on so long after the backend's start. Stalls end with each
    /// `stall_every`, so that a backend begins by answering.
    pub fn stall_left(&self, since_start: Duration) -> Duration {
        let every = self.stall_every.as_nanos();
        if every == 0 {
            return Duration::ZERO;
        }
        let left = every - since_start.as_nanos() % every;
        if left > self.stall.as_nanos() {
            return Duration::ZERO;
        }
        Duration::from_nanos(u64::try_from(left).unwrap_or(u64::MAX))
    }

    /// These settings with what a query changes: `delay=300ms&hang=1`. All of it or, with a sentence about it, nothing.
    pub fn changed(mut self, query: &str) -> Result<Settings, String> {
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair
                .split_once('=')
                .ok_or_else(|| format!("/_set takes NAME=VALUE, found {pair:?}"))?;
            let set = match name {
                "delay" => parse_duration(value).map(|delay| self.delay = delay),
                "jitter" => parse_duration(value).map(|jitter| self.jitter = jitter),
                "error_rate" => parse_rate(value).map(|rate| self.error_rate = rate),
                "error_status" => parse_status(value).map(|status| self.error_status = status),
                "hang" | "hang_rate" => parse_rate(value).map(|rate| self.hang_rate = rate),
                "abort_rate" => parse_rate(value).map(|rate| self.abort_rate = rate),
                "reset_rate" => parse_rate(value).map(|rate| self.reset_rate = rate),
                "status" => parse_status(value).map(|status| self.status = status),
                "health" | "health_status" => parse_status(value).map(|status| self.health_status = status),
                "health_delay" => parse_duration(value).map(|delay| self.health_delay = delay),
                "stall" => parse_duration(value).map(|stall| self.stall = stall),
                "stall_every" => parse_duration(value).map(|every| self.stall_every = every),
                _ => Err(format!(
                    "/_set knows delay, jitter, error_rate, error_status, hang, abort_rate, reset_rate, status, health, \
                     health_delay, stall and stall_every, not {name:?}"
                )),
            };
            set.map_err(|sentence| format!("{name}: {sentence}"))?;
        }
        Ok(self)
    }

    /// As `/_set` answers; durations in microseconds.
    pub fn json(&self) -> Value {
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        json!({
            "delay_us": micros(self.delay),
            "jitter_us": micros(self.jitter),
            "error_rate": self.error_rate,
            "error_status": self.error_status.as_u16(),
            "hang_rate": self.hang_rate,
            "abort_rate": self.abort_rate,
            "reset_rate": self.reset_rate,
            "status": self.status.as_u16(),
            "health_status": self.health_status.as_u16(),
            "health_delay_us": micros(self.health_delay),
            "stall_us": micros(self.stall),
            "stall_every_us": micros(self.stall_every),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_changes_what_it_names_and_nothing_else() {
        let before = Settings::new(&Options::default());
        let query = "delay=300ms&error_rate=0.3&error_status=503&hang=0.5&health=503&reset_rate=1&status=404";
        let expected = Settings {
            delay: Duration::from_millis(300),
            error_rate: 0.3,
            error_status: StatusCode::SERVICE_UNAVAILABLE,
            hang_rate: 0.5,
            health_status: StatusCode::SERVICE_UNAVAILABLE,
            reset_rate: 1.0,
            status: StatusCode::NOT_FOUND,
            ..before
        };
        assert_eq!(before.changed(query), Ok(expected));
        assert_eq!(before.changed(""), Ok(before));
    }

    #[test]
    fn stalls_end_with_each_period() {
        let settings = Settings::new(&Options {
            stall: Duration::from_secs(1),
            stall_every: Duration::from_secs(10),
            ..Options::default()
        });
        for (ms, left) in [
            (0, 0),
            (8_999, 0),
            (9_000, 1_000),
            (9_750, 250),
            (10_000, 0),
            (39_001, 999),
        ] {
            let found = settings.stall_left(Duration::from_millis(ms));
            assert_eq!(found, Duration::from_millis(left), "{ms}");
        }
        let none = Settings::new(&Options::default());
        assert_eq!(none.stall_left(Duration::from_secs(9)), Duration::ZERO);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let settings = Settings::new(&Options::default());
        for (query, named) in [
            ("delay=5", "delay: "),
            ("hang", "NAME=VALUE"),
            ("status=99", "status: "),
            ("jitter=1ms&errors=1", "\"errors\""),
        ] {
            let sentence = settings.changed(query).expect_err(query);
            assert!(sentence.contains(named), "{query}: {sentence}");
        }
    }
}
