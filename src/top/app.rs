//! What the terminal view remembers between two looks: readings, the order of backends, who is selected, what was asked.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::time::Duration;

use super::client::{Action, Change};
use super::input::Key;
use super::model::{BackendRow, Reading, Row, Shown, shown};
use crate::metrics::history::ROWS;

/// What backends are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Sort {
    /// As in the configuration
    #[default]
    Config,
    Name,
    State,
    InFlight,
    Share,
    Rate,
    Errors,
    P50,
    P99,
    Retries,
}

impl Sort {
    pub const ALL: [Sort; 10] = [
        Sort::Config,
        Sort::Name,
        Sort::State,
        Sort::InFlight,
        Sort::Share,
        Sort::Rate,
        Sort::Errors,
        Sort::P50,
        Sort::P99,
        Sort::Retries,
    ];

    pub const fn word(self) -> &'static str {
        match self {
            Sort::Config => "config",
            Sort::Name => "name",
            Sort::State => "state",
            Sort::InFlight => "in-flight",
            Sort::Share => "share",
            Sort::Rate => "rate",
            Sort::Errors => "errors",
            Sort::P50 => "p50",
            Sort::P99 => "p99",
            Sort::Retries => "retries",
        }
    }

    fn next(self) -> Sort {
        let at = Sort::ALL
            .iter()
            .position(|sort| *sort == self)
            .unwrap_or_default();
        Sort::ALL[(at + 1) % Sort::ALL.len()]
    }

    /// Names and states from the first to the last, figures from the largest to the least.
    fn compare(self, a: &BackendRow, b: &BackendRow) -> Ordering {
        let float =
            |read: fn(&BackendRow) -> Option<f64>| read(b).unwrap_or(0.0).total_cmp(&read(a).unwrap_or(0.0));
        match self {
            Sort::Config => Ordering::Equal,
            Sort::Name => a.name.cmp(&b.name),
            // What is up says least.
            Sort::State => (a.state == "up")
                .cmp(&(b.state == "up"))
                .then(a.state.cmp(&b.state)),
            Sort::InFlight => b.in_flight.cmp(&a.in_flight),
            Sort::Share => float(|row| Some(row.share)),
            Sort::Rate => float(|row| row.requests_per_second),
            Sort::Errors => float(|row| row.errors_per_second),
            Sort::P50 => b.latency.p50_ns.cmp(&a.latency.p50_ns),
            Sort::P99 => b.latency.p99_ns.cmp(&a.latency.p99_ns),
            Sort::Retries => b.retries.cmp(&a.retries),
        }
    }
}

/// Sorts backends; those that are equal stay as they were.
pub fn sort(rows: &mut [BackendRow], by: Sort, reversed: bool) {
    rows.sort_by(|a, b| {
        let order = by.compare(a, b);
        if reversed { order.reverse() } else { order }
    });
}

/// What keys mean now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    #[default]
    Table,
    /// Letters go into the filter.
    Filter,
    /// A change waits for a yes.
    Confirm(Change),
    Help,
}

/// What comes of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Nothing,
    Quit,
    /// To be asked of weir.
    Change(Change),
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct App {
    /// Where it looks, for the title.
    pub address: String,
    pub mode: Mode,
    pub sort: Sort,
    pub reversed: bool,
    pub filter: String,
    /// The name of the selected backend: it stays selected wherever it is sorted to.
    pub selected: Option<String>,
    /// What the last change or reading led to; true: it went wrong.
    pub message: Option<(String, bool)>,
    /// What there is to see; none before the first reading.
    pub shown: Option<Shown>,
    /// The last quarter of an hour, a second each, oldest first.
    pub rows: VecDeque<Row>,
    before: Option<Reading>,
}

impl App {
    pub fn new(address: String, sort: Sort) -> App {
        App {
            address,
            sort,
            ..App::default()
        }
    }

    /// A reading came.
    pub fn read(&mut self, mut reading: Reading) {
        // A weir that was started anew counts from 0 again, and so do its seconds.
        let again = self
            .before
            .as_ref()
            .is_some_and(|before| before.metrics.uptime > reading.metrics.uptime);
        if again {
            self.before = None;
            self.rows.clear();
        }
        let known = self.rows.back().map(|row| row.number);
        let fresh = reading
            .rows
            .iter()
            .filter(|row| known.is_none_or(|known| row.number > known));
        self.rows.extend(fresh);
        while self.rows.len() > ROWS {
            self.rows.pop_front();
        }
        reading.rows.clear();
        self.shown = Some(shown(self.before.as_ref(), &reading));
        self.before = Some(reading);
        if self.message.as_ref().is_some_and(|(_, bad)| *bad) {
            self.message = None;
        }
        self.keep_selection();
    }

    /// A reading did not come, or a change was answered.
    pub fn tell(&mut self, message: String, bad: bool) {
        self.message = Some((message, bad));
    }

    /// The first second of the history that is not known yet.
    pub fn next_row(&self) -> u64 {
        self.rows.back().map_or(0, |row| row.number + 1)
    }

    /// The backends as they are listed: filtered and sorted.
    pub fn listed(&self) -> Vec<BackendRow> {
        let Some(shown) = &self.shown else {
            return Vec::new();
        };
        let wanted = self.filter.to_lowercase();
        let fits = |row: &&BackendRow| {
            [&row.name, &row.url, &row.state]
                .iter()
                .any(|text| text.to_lowercase().contains(&wanted))
        };
        let mut rows: Vec<BackendRow> = shown.backends.iter().filter(fits).cloned().collect();
        sort(&mut rows, self.sort, self.reversed);
        rows
    }

    /// Where the selected one is in the list.
    pub fn selected_at(&self, listed: &[BackendRow]) -> Option<usize> {
        let selected = self.selected.as_ref()?;
        listed.iter().position(|row| row.name == *selected)
    }

    /// The selected one if it is listed, else the first one.
    fn keep_selection(&mut self) {
        let listed = self.listed();
        if self.selected_at(&listed).is_none() {
            self.selected = listed.first().map(|row| row.name.clone());
        }
    }

    fn select(&mut self, by: isize) {
        let listed = self.listed();
        let at = self.selected_at(&listed).unwrap_or_default();
        let at = at.saturating_add_signed(by).min(listed.len().saturating_sub(1));
        self.selected = listed.get(at).map(|row| row.name.clone());
    }

    /// A key was pressed.
    pub fn press(&mut self, key: Key) -> Outcome {
        if key == Key::Interrupt {
            return Outcome::Quit;
        }
        match std::mem::take(&mut self.mode) {
            Mode::Table => return self.press_in_table(key),
            Mode::Help => {}
            Mode::Filter => match key {
                Key::Escape => self.filter.clear(),
                Key::Enter => {}
                Key::Backspace => {
                    self.filter.pop();
                    self.mode = Mode::Filter;
                }
                Key::Letter(letter) => {
                    self.filter.push(letter);
                    self.mode = Mode::Filter;
                }
                _ => self.mode = Mode::Filter,
            },
            Mode::Confirm(change) => match key {
                Key::Letter('y' | 'Y') => {
                    let message = format!("{}: {} was asked for", change.name, change.action.word());
                    self.tell(message, false);
                    return Outcome::Change(change);
                }
                Key::Letter('n' | 'N' | 'q') | Key::Escape => {}
                _ => self.mode = Mode::Confirm(change),
            },
        }
        self.keep_selection();
        Outcome::Nothing
    }

    fn press_in_table(&mut self, key: Key) -> Outcome {
        match key {
            Key::Letter('q') => return Outcome::Quit,
            Key::Escape => self.filter.clear(),
            Key::Letter('?' | 'h') => self.mode = Mode::Help,
            Key::Letter('/') => self.mode = Mode::Filter,
            Key::Letter('s') => self.sort = self.sort.next(),
            Key::Letter('r') => self.reversed = !self.reversed,
            Key::Letter('d') => self.ask(Action::Drain),
            Key::Letter('u') => self.ask(Action::Ready),
            Key::Up | Key::Letter('k') => self.select(-1),
            Key::Down | Key::Letter('j') => self.select(1),
            Key::PageUp => self.select(-10),
            Key::PageDown => self.select(10),
            _ => {}
        }
        self.keep_selection();
        Outcome::Nothing
    }

    fn ask(&mut self, action: Action) {
        let listed = self.listed();
        let selected = self.selected_at(&listed).and_then(|at| listed.get(at));
        if let Some(row) = selected {
            self.mode = Mode::Confirm(Change {
                pool: row.pool.clone(),
                name: row.name.clone(),
                action,
            });
        }
    }
}

/// For people: `850 µs`, `4.2 ms`, `1.25 s`.
pub fn duration(nanos: u64) -> String {
    let micros = nanos as f64 / 1e3;
    match micros {
        0.0..1_000.0 => format!("{micros:.0} µs"),
        1_000.0..10_000.0 => format!("{:.2} ms", micros / 1e3),
        10_000.0..1_000_000.0 => format!("{:.1} ms", micros / 1e3),
        _ => format!("{:.2} s", micros / 1e6),
    }
}

/// For people: `42 s`, `7 min`, `3 h`, `2 d`.
pub fn age(age: Duration) -> String {
    match age.as_secs() {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds @ 60..3_600 => format!("{} min", seconds / 60),
        seconds @ 3_600..86_400 => format!("{} h", seconds / 3_600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Instant;

    use super::super::model::tests::reading;
    use super::*;

    pub(in crate::top) fn filled() -> App {
        let start = Instant::now();
        let mut app = App::new("http://127.0.0.1:9070".to_owned(), Sort::Config);
        app.read(reading(start, 10));
        app.read(reading(start, 12));
        app
    }

    fn names(app: &App) -> Vec<String> {
        app.listed().into_iter().map(|row| row.name).collect()
    }

    fn letters(app: &mut App, letters: &str) {
        for letter in letters.chars() {
            assert_eq!(app.press(Key::Letter(letter)), Outcome::Nothing);
        }
    }

    #[test]
    fn rows_are_kept_once_and_begin_anew_with_weir() {
        let mut app = filled();
        let numbers: Vec<u64> = app.rows.iter().map(|row| row.number).collect();
        assert_eq!(numbers, (0..12).collect::<Vec<_>>());
        assert_eq!(app.next_row(), 12);
        app.read(reading(Instant::now(), 3));
        assert_eq!((app.rows.len(), app.next_row()), (3, 3));
        assert_eq!(
            app.shown.as_ref().and_then(|shown| shown.requests_per_second),
            None
        );
    }

    #[test]
    fn every_order_is_stable_and_can_be_turned_round() {
        let mut app = filled();
        for (sort, expected) in [
            (Sort::Config, ["a", "b b"]),
            (Sort::Name, ["a", "b b"]),
            (Sort::State, ["b b", "a"]),
            (Sort::InFlight, ["b b", "a"]),
            (Sort::Share, ["b b", "a"]),
            (Sort::Rate, ["b b", "a"]),
            (Sort::Errors, ["b b", "a"]),
            (Sort::P50, ["b b", "a"]),
            (Sort::P99, ["b b", "a"]),
            (Sort::Retries, ["a", "b b"]),
        ] {
            assert_eq!(app.sort, sort);
            assert_eq!(names(&app), expected, "{}", sort.word());
            app.reversed = true;
            if sort != Sort::Config {
                assert_ne!(names(&app), expected, "{}", sort.word());
            }
            app.reversed = false;
            letters(&mut app, "s");
        }
        assert_eq!(app.sort, Sort::Config);
    }

    #[test]
    fn the_filter_takes_letters_and_the_selection_stays_with_its_backend() {
        let mut app = filled();
        assert_eq!(app.selected.as_deref(), Some("a"));
        letters(&mut app, "j");
        assert_eq!(app.selected.as_deref(), Some("b b"));
        letters(&mut app, "jjss");
        assert_eq!(app.selected.as_deref(), Some("b b"));
        letters(&mut app, "/uP");
        assert_eq!((app.filter.as_str(), names(&app)), ("uP", vec!["a".to_owned()]));
        assert_eq!(app.press(Key::Backspace), Outcome::Nothing);
        assert_eq!(app.press(Key::Enter), Outcome::Nothing);
        assert_eq!((app.mode.clone(), app.filter.as_str()), (Mode::Table, "u"));
        assert_eq!(app.press(Key::Escape), Outcome::Nothing);
        assert_eq!(app.filter, "");
        letters(&mut app, "/zzz");
        assert_eq!((names(&app), &app.selected), (Vec::<String>::new(), &None));
        assert_eq!(app.press(Key::Enter), Outcome::Nothing);
        letters(&mut app, "d");
        assert_eq!(app.mode, Mode::Table, "there is nothing to drain");
    }

    #[test]
    fn a_change_wants_a_yes() {
        let change = |action| Change {
            pool: "default".to_owned(),
            name: "b b".to_owned(),
            action,
        };
        for (no, mode) in [
            (Key::Letter('n'), Mode::Table),
            (Key::Escape, Mode::Table),
            (Key::Enter, Mode::Confirm(change(Action::Drain))),
            (Key::Letter('d'), Mode::Confirm(change(Action::Drain))),
        ] {
            let mut app = filled();
            letters(&mut app, "jd");
            assert_eq!(app.mode, Mode::Confirm(change(Action::Drain)));
            assert_eq!(app.press(no), Outcome::Nothing);
            assert_eq!(app.mode, mode);
        }
        let mut app = filled();
        letters(&mut app, "ju");
        assert_eq!(
            app.press(Key::Letter('y')),
            Outcome::Change(change(Action::Ready))
        );
        assert_eq!(app.mode, Mode::Table);
    }

    #[test]
    fn q_ends_it_but_is_a_letter_in_the_filter() {
        let mut app = filled();
        letters(&mut app, "/q");
        assert_eq!(app.filter, "q");
        assert_eq!(app.press(Key::Interrupt), Outcome::Quit);
        let mut app = filled();
        assert_eq!(app.press(Key::Letter('q')), Outcome::Quit);
    }

    #[test]
    fn figures_for_people() {
        assert_eq!(duration(850_000), "850 µs");
        assert_eq!(duration(4_200_000), "4.20 ms");
        assert_eq!(duration(42_000_000), "42.0 ms");
        assert_eq!(duration(1_250_000_000), "1.25 s");
        assert_eq!(age(Duration::from_secs(59)), "59 s");
        assert_eq!(age(Duration::from_secs(3_599)), "59 min");
        assert_eq!(age(Duration::from_secs(86_399)), "23 h");
        assert_eq!(age(Duration::from_secs(86_400)), "1 d");
    }
}
