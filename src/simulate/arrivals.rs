//! When requests arrive, and what they are known by. They are made one at a time: the next one is known, no more.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;

use super::distribution::exponential;
use super::scenario::{self, ArrivalType, Error, Scenario};
use super::{Nanos, SECOND, stream_seed};

/// The most requests that a log may have.
const MOST_LOGGED: usize = 100_000_000;

/// One request of a recorded log.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Logged {
    /// Since the first one.
    pub at: Nanos,
    pub key: Option<u64>,
}

/// Reads a log: a line for each request, `seconds` or `seconds,key`, in order. Empty lines, and those that begin with
/// `#`, say nothing.
pub fn read_log(path: &Path, speed: f64) -> Result<Vec<Logged>, Error> {
    let name = path.display().to_string();
    let unreadable = |error| Error::whole(&name, format!("cannot be read: {error}"));
    let mut reader = BufReader::new(File::open(path).map_err(unreadable)?);
    let mut logged: Vec<Logged> = Vec::new();
    let mut line = String::new();
    let mut first = None;
    for number in 1.. {
        line.clear();
        if reader.read_line(&mut line).map_err(unreadable)? == 0 {
            break;
        }
        let text = line.trim();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let bad = |message: &str| Error::line(&name, number, text, message);
        let (seconds, key) = match text.split_once(',') {
            Some((seconds, key)) => (seconds, Some(key.trim()).filter(|key| !key.is_empty())),
            None => (text, None),
        };
        let seconds: f64 = seconds
            .trim()
            .parse()
            .ok()
            .filter(|seconds: &f64| seconds.is_finite())
            .ok_or_else(|| bad("a time in seconds is needed, and after a comma a key if there is one"))?;
        let since = (seconds - *first.get_or_insert(seconds)) / speed * SECOND as f64;
        let at = since as Nanos;
        if since < 0.0 || logged.last().is_some_and(|last| last.at > at) {
            return Err(bad("earlier than the line before"));
        }
        if logged.len() == MOST_LOGGED {
            return Err(bad("too many requests: 100,000,000 are the most"));
        }
        let key = key.map(hash);
        logged.push(Logged { at, key });
    }
    if logged.is_empty() {
        return Err(Error::whole(&name, "no request in it"));
    }
    Ok(logged)
}

/// FNV-1a, its bits mixed.
fn hash(key: &str) -> u64 {
    let fnv = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
    mixed(key.bytes().fold(0xCBF2_9CE4_8422_2325, fnv))
}

fn mixed(number: u64) -> u64 {
    stream_seed(number, 0)
}

/// Requests to come.
#[derive(Debug)]
pub struct Arrivals {
    process: Process,
    keys: Keys,
    random: fastrand::Rng,
    /// The last one.
    at: f64,
    /// Times the rate, by the scenario's events.
    pub factor: f64,
}

#[derive(Debug)]
enum Process {
    /// Nanoseconds between two.
    Poisson {
        gap: f64,
    },
    Even {
        gap: f64,
    },
    /// Nanoseconds between two outside of bursts.
    Burst {
        gap: f64,
        factor: f64,
        length: f64,
        every: f64,
    },
    Log {
        requests: Arc<[Logged]>,
        next: usize,
    },
}

impl Arrivals {
    /// `capacity`: requests per second that all backends can serve, for a scenario that names a load. `log`: what
    /// [`read_log`] gave.
    pub fn new(scenario: &Scenario, capacity: f64, log: Option<Arc<[Logged]>>, seed: u64) -> Self {
        let arrivals = scenario.arrivals.as_ref();
        let rate = match (arrivals.rate, arrivals.load) {
            (Some(rate), _) => rate.0,
            (None, Some(load)) => load.0 * capacity,
            (None, None) => 1.0,
        };
        let gap = SECOND as f64 / rate;
        let process = match (arrivals.r#type, log) {
            (ArrivalType::Even, _) => Process::Even { gap },
            (ArrivalType::Burst, _) => {
                let nanos =
                    |span: Option<scenario::values::Span>| span.map_or(1.0, |span| span.nanos() as f64);
                let factor = arrivals.burst_factor.map_or(1.0, |factor| factor.0);
                let (length, every) = (nanos(arrivals.burst_length), nanos(arrivals.burst_every));
                // The rate that was asked for is the average.
                let gap = gap * (1.0 + (factor - 1.0) * length / every);
                Process::Burst {
                    gap,
                    factor,
                    length,
                    every,
                }
            }
            (ArrivalType::Log, Some(requests)) => Process::Log { requests, next: 0 },
            (ArrivalType::Poisson | ArrivalType::Log, _) => Process::Poisson { gap },
        };
        Arrivals {
            process,
            keys: Keys::new(&scenario.keys),
            random: fastrand::Rng::with_seed(seed),
            at: 0.0,
            factor: 1.0,
        }
    }

    /// When the next one arrives, and its key; none after the end of a log.
    #[inline]
    pub fn advance(&mut self) -> Option<(Nanos, Option<u64>)> {
        match &mut self.process {
            Process::Poisson { gap } => self.at += *gap / self.factor * exponential(&mut self.random),
            Process::Even { gap } => self.at += *gap / self.factor,
            Process::Burst {
                gap,
                factor,
                length,
                every,
            } => {
                // How much of the process is to pass, and how fast it passes where it is now.
                let mut left = *gap / self.factor * exponential(&mut self.random);
                loop {
                    let phase = self.at % *every;
                    let (pace, end) = if phase < *length {
                        (*factor, *length)
                    } else {
                        (1.0, *every)
                    };
                    // Not less than a step that the float can take, lest the border is never crossed.
                    let room = (end - phase).max(1.0);
                    if left <= room * pace {
                        self.at += left / pace;
                        break;
                    }
                    self.at += room;
                    left -= room * pace;
                }
            }
            Process::Log { requests, next } => {
                let logged = requests.get(*next)?;
                *next += 1;
                let key = logged.key.or_else(|| Some(self.keys.draw(&mut self.random)));
                return Some((logged.at, key));
            }
        }
        Some((self.at as Nanos, Some(self.keys.draw(&mut self.random))))
    }
}

/// The keys of requests that bring none.
#[derive(Debug)]
struct Keys {
    count: u64,
    /// The share of keys up to each, where they are not equally frequent.
    cumulative: Option<Box<[f64]>>,
}

impl Keys {
    fn new(keys: &scenario::Keys) -> Self {
        let count = keys.count.0;
        let cumulative = (keys.skew.0 > 0.0).then(|| {
            let weight = |rank: usize| (rank as f64).powf(-keys.skew.0);
            let total: f64 = (1..=count).map(weight).sum();
            let so_far = (1..=count).scan(0.0, |sum, rank| {
                *sum += weight(rank) / total;
                Some(*sum)
            });
            so_far.collect()
        });
        Keys {
            count: count as u64,
            cumulative,
        }
    }

    #[inline]
    fn draw(&self, random: &mut fastrand::Rng) -> u64 {
        let rank = match &self.cumulative {
            None => random.u64(..self.count),
            Some(cumulative) => {
                let at = random.f64();
                cumulative.partition_point(|share| *share < at) as u64
            }
        };
        mixed(rank)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn arrivals(text: &str, seed: u64) -> Arrivals {
        let text = format!("duration = '10s'\n[arrivals]\n{text}\n[service]\ntime = '1ms'\n");
        let scenario = scenario::parse("test", &text).unwrap_or_else(|error| panic!("{error}"));
        Arrivals::new(&scenario, 1000.0, None, seed)
    }

    #[test]
    fn the_rate_is_what_was_asked_for() {
        for text in [
            "rate = 700",
            "load = 0.7",
            "type = 'even'\nrate = 700",
            "type = 'burst'\nrate = 700\nburst_factor = 10\nburst_length = '50ms'\nburst_every = '1s'",
        ] {
            let mut arrivals = arrivals(text, 3);
            let mut last = 0;
            for _ in 0..200_000 {
                let (at, _) = arrivals.advance().expect("no log");
                assert!(at >= last);
                last = at;
            }
            let rate = 200_000.0 / (last as f64 / SECOND as f64);
            assert!((690.0..710.0).contains(&rate), "{text}: {rate} a second");
        }
    }

    #[test]
    fn bursts_are_where_and_as_strong_as_they_should_be() {
        let text =
            "type = 'burst'\nrate = 1000\nburst_factor = 9\nburst_length = '100ms'\nburst_every = '1s'";
        let mut arrivals = arrivals(text, 4);
        let within = (0..100_000)
            .filter_map(|_| arrivals.advance())
            .filter(|(at, _)| at % SECOND < SECOND / 10)
            .count();
        // Nine times the rate for a tenth of the time: half of all.
        assert!((49_000..51_000).contains(&within), "{within}");
    }

    #[test]
    fn keys_are_skewed_as_zipf_says() {
        let keys = Keys::new(&scenario::Keys {
            count: scenario::values::Count(100),
            skew: scenario::values::Skew(1.0),
        });
        let mut random = fastrand::Rng::with_seed(5);
        let first = mixed(0);
        let hits = (0..100_000).filter(|_| keys.draw(&mut random) == first).count();
        // 1 / (1 + 1/2 + … + 1/100) = 19.3 %.
        assert!((18_500..20_100).contains(&hits), "{hits}");
    }

    #[test]
    fn a_log_is_read_with_its_keys_and_refused_with_its_line() {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        writeln!(file, "# seconds,key\n100.5,a\n\n100.75\n 101.5 , a ").expect("written");
        let logged = read_log(file.path(), 2.0).expect("a log");
        assert_eq!(
            logged.iter().map(|one| one.at).collect::<Vec<_>>(),
            [0, SECOND / 8, SECOND / 2]
        );
        assert!(logged[0].key.is_some() && logged[0].key == logged[2].key && logged[1].key.is_none());
        for (line, told) in [("101", "earlier"), ("x,1", "a time in seconds")] {
            let mut bad = tempfile::NamedTempFile::new().expect("a file");
            writeln!(bad, "100\n102\n{line}").expect("written");
            let error = read_log(bad.path(), 1.0).expect_err(line).to_string();
            let place = format!("{}:3: {told}", bad.path().display());
            assert!(error.starts_with(&place), "{error}");
        }
    }
}
