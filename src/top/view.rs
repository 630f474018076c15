//! Draws what [`App`] knows. States are words, colours only repeat them; what there is no room for is left out from the
//! charts on, the table last.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Clear, Paragraph, Row, Sparkline, Table, TableState};

use super::app::{App, Mode, age, duration};
use super::model::{BackendRow, Latency, Shown, WorkerRow};

const CHART_HEIGHT: u16 = 6;
/// Workers that are listed at most; the terminal is for backends.
const WORKERS_SHOWN: u16 = 8;
/// Lines that a terminal must have for charts, and for workers.
const MIN_FOR_CHARTS: u16 = 22;
const MIN_FOR_WORKERS: u16 = 14;

const HELP: [&str; 11] = [
    "up, down, j, k     select a backend",
    "PgUp, PgDn         ten at a time",
    "s                  sort by the next column",
    "r                  turn the order round",
    "/                  filter by name, url or state; Esc: all again",
    "d                  drain the selected backend (asks first)",
    "u                  put it back (asks first)",
    "h, ?               this",
    "q, Ctrl-C          quit",
    "",
    "any key goes back",
];

/// One picture of everything.
pub fn draw(frame: &mut Frame<'_>, app: &App) {
    let area = frame.area();
    let workers = app.shown.as_ref().map_or(0, |shown| shown.workers.len()) as u16;
    let charts = if area.height >= MIN_FOR_CHARTS {
        CHART_HEIGHT
    } else {
        0
    };
    let workers = if area.height >= MIN_FOR_WORKERS {
        workers.min(WORKERS_SHOWN) + 2
    } else {
        0
    };
    let [head, middle, table, below, foot] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(charts),
        Constraint::Min(3),
        Constraint::Length(workers),
        Constraint::Length(1),
    ])
    .areas(area);
    draw_head(frame, head, app);
    if charts > 0 {
        draw_charts(frame, middle, app);
    }
    draw_backends(frame, table, app);
    if let Some(shown) = app.shown.as_ref().filter(|_| workers > 0) {
        draw_workers(frame, below, &shown.workers);
    }
    draw_foot(frame, foot, app);
    match &app.mode {
        Mode::Help => popup(frame, " Keys ", &HELP.map(str::to_owned)),
        Mode::Confirm(change) => {
            let (title, text) = match change.action {
                super::client::Action::Drain => (
                    format!(" Drain {}? ", change.name),
                    "New work goes to the others; what is under way is finished.",
                ),
                super::client::Action::Ready => (
                    format!(" Put {} back? ", change.name),
                    "It takes its share of new work again.",
                ),
            };
            popup(
                frame,
                &title,
                &[text.to_owned(), String::new(), "y: yes    n: no".to_owned()],
            );
        }
        Mode::Table | Mode::Filter => {}
    }
}

fn bold(text: impl Into<String>) -> Span<'static> {
    Span::styled(text.into(), Style::new().add_modifier(Modifier::BOLD))
}

fn rate(rate: Option<f64>) -> String {
    match rate {
        None => "–".to_owned(),
        Some(rate) if rate < 10.0 => format!("{rate:.1}"),
        Some(rate) => format!("{rate:.0}"),
    }
}

fn latency(nanos: Option<u64>) -> String {
    nanos.map_or_else(|| "–".to_owned(), duration)
}

fn draw_head(frame: &mut Frame<'_>, area: Rect, app: &App) {
    let Some(shown) = &app.shown else {
        frame.render_widget(
            Paragraph::new(format!("weir top  {}  waiting for it", app.address)),
            area,
        );
        return;
    };
    let up = age(Duration::from_secs_f64(shown.uptime_s.clamp(0.0, 1e12)));
    let first = Line::from(vec![
        bold(format!("weir {}", shown.version)),
        Span::raw(format!("  {}  {}  up {up}  ", app.address, shown.strategy)),
        Span::styled(shown.status.clone(), tone(&shown.status)),
    ]);
    let second = figures(shown);
    frame.render_widget(Paragraph::new(vec![first, second]), area);
}

fn figures(shown: &Shown) -> Line<'static> {
    let Latency {
        window_s,
        p50_ns,
        p99_ns,
        p99_9_ns,
        ..
    } = shown.latency;
    Line::from(vec![
        bold(rate(shown.requests_per_second)),
        Span::raw(" req/s  "),
        bold(rate(shown.errors_per_second)),
        Span::raw(" err/s  p50 "),
        bold(latency(p50_ns)),
        Span::raw("  p99 "),
        bold(latency(p99_ns)),
        Span::raw("  p99.9 "),
        bold(latency(p99_9_ns)),
        Span::raw(format!(" (last {window_s:.0} s)  ")),
        bold(shown.connections.to_string()),
        Span::raw(" connections  "),
        bold(shown.requests.to_string()),
        Span::raw(" requests"),
    ])
}

/// Four lines over the last seconds, as many as there are columns.
fn draw_charts(frame: &mut Frame<'_>, area: Rect, app: &App) {
    type Read = fn(&super::model::Row) -> u64;
    fn per_second(count: u64, ms: u64) -> u64 {
        count.saturating_mul(1_000) / ms.max(1)
    }
    let charts: [(&str, Read, bool, Color); 4] = [
        (
            "requests/s",
            |row| per_second(row.requests, row.ms),
            false,
            Color::Cyan,
        ),
        (
            "errors/s",
            |row| per_second(row.errors, row.ms),
            false,
            Color::Red,
        ),
        ("p50 of each second", |row| row.p50, true, Color::Green),
        ("p99 of each second", |row| row.p99, true, Color::Yellow),
    ];
    let areas: [Rect; 4] = Layout::horizontal([Constraint::Fill(1); 4]).areas(area);
    for ((name, read, is_latency, colour), area) in charts.into_iter().zip(areas) {
        let columns = usize::from(area.width.saturating_sub(2));
        let skipped = app.rows.len().saturating_sub(columns);
        let values: Vec<u64> = app.rows.iter().skip(skipped).map(read).collect();
        let show = |value: u64| {
            if is_latency {
                duration(value.saturating_mul(1_000))
            } else {
                value.to_string()
            }
        };
        let (last, most) = (values.last().copied(), values.iter().max().copied());
        let title = match (last, most) {
            (Some(last), Some(most)) => format!(" {name} {} (max {}) ", show(last), show(most)),
            _ => format!(" {name} "),
        };
        let chart = Sparkline::default()
            .block(Block::bordered().title(title))
            .data(values)
            .style(Style::new().fg(colour));
        frame.render_widget(chart, area);
    }
}

fn tone(state: &str) -> Style {
    let colour = match state {
        "up" | "ready" | "CLOSED" => Color::Green,
        "ramping" | "draining" | "disabled" | "maintenance" | "starting" | "HALF-OPEN" => Color::Yellow,
        _ => Color::Red,
    };
    Style::new().fg(colour)
}

/// A column of the table of backends.
struct Column {
    title: &'static str,
    /// Figures stand to the right.
    alignment: Alignment,
    width: Constraint,
    /// How wide a terminal must be to have room for it.
    from: u16,
    cell: fn(&BackendRow) -> Span<'static>,
}

const fn text(
    title: &'static str,
    width: Constraint,
    from: u16,
    cell: fn(&BackendRow) -> Span<'static>,
) -> Column {
    Column {
        title,
        alignment: Alignment::Left,
        width,
        from,
        cell,
    }
}

const fn figure(
    title: &'static str,
    width: u16,
    from: u16,
    cell: fn(&BackendRow) -> Span<'static>,
) -> Column {
    Column {
        title,
        alignment: Alignment::Right,
        width: Constraint::Length(width),
        from,
        cell,
    }
}

const COLUMNS: [Column; 12] = [
    text("Backend", Constraint::Fill(2), 0, |row| row.name.clone().into()),
    text("State", Constraint::Length(11), 0, |row| {
        Span::styled(row.state.clone(), tone(&row.state))
    }),
    text("Since", Constraint::Length(6), 84, |row| {
        let since = row.since_s.map(|since| age(Duration::from_secs(since)));
        since.unwrap_or_else(|| "–".to_owned()).into()
    }),
    figure("In flight", 9, 60, |row| row.in_flight.to_string().into()),
    figure("Share", 7, 70, |row| format!("{:.1} %", row.share * 100.0).into()),
    figure("Rate/s", 8, 40, |row| rate(row.requests_per_second).into()),
    figure("Err/s", 7, 92, |row| rate(row.errors_per_second).into()),
    figure("p50", 8, 50, |row| latency(row.latency.p50_ns).into()),
    figure("p99", 8, 40, |row| latency(row.latency.p99_ns).into()),
    text("Breaker", Constraint::Length(9), 104, |row| {
        Span::styled(row.breaker.to_lowercase(), tone(&row.breaker))
    }),
    figure("Retries", 7, 112, |row| row.retries.to_string().into()),
    text("Why", Constraint::Fill(2), 128, |row| row.why.clone().into()),
];

fn draw_backends(frame: &mut Frame<'_>, area: Rect, app: &App) {
    let listed = app.listed();
    let all = app.shown.as_ref().map_or(0, |shown| shown.backends.len());
    let order = if app.reversed { ", reversed" } else { "" };
    let mut title = format!(
        " Backends {} of {all}, by {}{order}",
        listed.len(),
        app.sort.word()
    );
    if !app.filter.is_empty() || app.mode == Mode::Filter {
        title.push_str(&format!(", filter: {}", app.filter));
    }
    title.push(' ');
    let columns = || COLUMNS.iter().filter(|column| column.from <= area.width);
    let cell = |column: &Column, span: Span<'static>| Line::from(span).alignment(column.alignment);
    let header = Row::new(columns().map(|column| cell(column, column.title.into())));
    let rows = listed
        .iter()
        .map(|row| Row::new(columns().map(|column| cell(column, (column.cell)(row)))));
    let table = Table::new(rows, columns().map(|column| column.width))
        .header(header.style(Style::new().add_modifier(Modifier::BOLD)))
        .block(Block::bordered().title(title))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let mut state = TableState::new().with_selected(app.selected_at(&listed));
    frame.render_stateful_widget(table, area, &mut state);
}

fn right(text: String) -> Cell<'static> {
    Cell::from(Line::from(text).alignment(Alignment::Right))
}

fn draw_workers(frame: &mut Frame<'_>, area: Rect, workers: &[WorkerRow]) {
    let percent =
        |share: Option<f64>| share.map_or_else(|| "–".to_owned(), |share| format!("{:.1} %", share * 100.0));
    let rows = workers.iter().map(|worker| {
        Row::new([
            Cell::from(format!("worker {}", worker.worker)),
            right(format!("{} connections", worker.connections)),
            right(format!("{} req/s", rate(worker.requests_per_second))),
            right(format!("{} of requests", percent(worker.share))),
            right(format!("{} busy", percent(worker.busy))),
        ])
    });
    let widths = [
        Constraint::Length(10),
        Constraint::Length(20),
        Constraint::Length(14),
        Constraint::Length(20),
        Constraint::Length(14),
    ];
    let hidden = workers.len().saturating_sub(usize::from(WORKERS_SHOWN));
    let title = match hidden {
        0 => " Workers ".to_owned(),
        hidden => format!(" Workers (and {hidden} more) "),
    };
    let table = Table::new(rows, widths).block(Block::bordered().title(title));
    frame.render_widget(table, area);
}

fn draw_foot(frame: &mut Frame<'_>, area: Rect, app: &App) {
    let line = match (&app.mode, &app.message) {
        (Mode::Filter, _) => Line::from(format!("filter: {}_   Enter: keep  Esc: all again", app.filter)),
        (_, Some((message, true))) => Line::from(message.clone()).style(Style::new().fg(Color::Red)),
        (_, Some((message, false))) => Line::from(message.clone()),
        _ => Line::from("q quit  s sort  r reverse  / filter  d drain  u put back  h help"),
    };
    frame.render_widget(Paragraph::new(line), area);
}

/// A box in the middle.
fn popup(frame: &mut Frame<'_>, title: &str, lines: &[String]) {
    let widest = lines
        .iter()
        .map(|line| line.chars().count())
        .max()
        .unwrap_or_default();
    let area = frame.area();
    let width = (widest.max(title.chars().count()) as u16)
        .saturating_add(4)
        .min(area.width);
    let height = (lines.len() as u16).saturating_add(2).min(area.height);
    let area = Rect {
        x: (area.width - width) / 2,
        y: (area.height - height) / 2,
        width,
        height,
    };
    let lines: Vec<Line<'_>> = lines.iter().map(|line| Line::from(format!(" {line}"))).collect();
    frame.render_widget(Clear, area);
    let block = Block::bordered().title(title.to_owned());
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::app::Sort;
    use super::super::app::tests::filled;
    use super::super::input::Key;
    use super::*;

    /// The lines that a terminal of this size shows.
    fn screen(app: &App, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
        terminal.draw(|frame| draw(frame, app)).expect("drawn");
        let buffer = terminal.backend().buffer();
        (0..height)
            .map(|y| (0..width).map(|x| buffer[(x, y)].symbol()).collect())
            .collect()
    }

    #[track_caller]
    fn line<'a>(screen: &'a [String], needle: &str) -> &'a str {
        let found = screen.iter().find(|line| line.contains(needle));
        found.unwrap_or_else(|| panic!("no {needle:?} in\n{}", screen.join("\n")))
    }

    #[test]
    fn everything_is_there() {
        let screen = screen(&filled(), 160, 40);
        let head = line(&screen, "weir 1.2.3");
        for told in ["http://127.0.0.1:9070", "p2c", "up 12 s", "ready"] {
            assert!(head.contains(told), "{head}");
        }
        let figures = line(&screen, "req/s");
        for told in [
            "400 req/s",
            "1.0 err/s",
            "p50 800 µs",
            "p99 800 µs",
            "p99.9 4.00 ms (last 10 s)",
            "12 connections",
        ] {
            assert!(figures.contains(told), "{told}: {figures}");
        }
        let charts = line(&screen, "requests/s 400 (max 400)");
        for told in [
            "errors/s 1 (max 1)",
            "p50 of each second 500 µs",
            "p99 of each second 4.00 ms",
        ] {
            assert!(charts.contains(told), "{told}: {charts}");
        }
        let a = line(&screen, "│a ");
        for told in ["up", "1 min", "25.0 %", "100", "800 µs", "closed", "it was added"] {
            assert!(a.contains(told), "{told}: {a}");
        }
        let b = line(&screen, "│b b ");
        for told in ["ejected", "75.0 %", "300", "2.0", "4.00 ms", "open", "5 failures"] {
            assert!(b.contains(told), "{told}: {b}");
        }
        let worker = line(&screen, "worker 1");
        for told in ["7 connections", "300 req/s", "75.0 % of requests", "0.0 % busy"] {
            assert!(worker.contains(told), "{told}: {worker}");
        }
        assert!(line(&screen, "q quit").contains("d drain"));
    }

    #[test]
    fn what_a_weir_says_cannot_steer_the_terminal() {
        let screen = screen(&filled(), 160, 40);
        assert!(screen.iter().all(|line| !line.contains(char::is_control)));
        assert!(line(&screen, "ejected").contains("5 failures"));
    }

    #[test]
    fn any_size_can_be_drawn_and_small_ones_keep_the_table() {
        let mut app = filled();
        for (width, height) in [(1, 1), (3, 2), (20, 5), (80, 24), (300, 100), (80, 10)] {
            for mode in [Mode::Table, Mode::Help, Mode::Filter] {
                app.mode = mode;
                screen(&app, width, height);
            }
        }
        app.mode = Mode::Table;
        let small = screen(&app, 80, 10);
        for told in ["up", "25.0 %", "100", "800 µs"] {
            assert!(line(&small, "│a ").contains(told), "{told}: {small:?}");
        }
        for width in [30, 40, 60, 80, 92, 112, 128, 200] {
            let narrow = screen(&app, width, 10);
            assert!(line(&narrow, "│b b ").contains("ejected"), "{width}: {narrow:?}");
        }
        assert!(
            small
                .iter()
                .all(|line| !line.contains("worker 0") && !line.contains("of each second"))
        );
    }

    #[test]
    fn questions_filters_and_messages_are_shown() {
        let mut app = filled();
        app.press(Key::Letter('d'));
        let asked = screen(&app, 100, 30);
        line(&asked, "Drain a?");
        line(&asked, "y: yes    n: no");
        app.press(Key::Letter('n'));
        for letter in "/eject".chars() {
            app.press(Key::Letter(letter));
        }
        let filtered = screen(&app, 100, 30);
        line(&filtered, "Backends 1 of 2, by config, filter: eject");
        line(&filtered, "filter: eject_");
        app.press(Key::Enter);
        app.sort = Sort::P99;
        app.reversed = true;
        app.tell("http://127.0.0.1:9070: cannot connect".to_owned(), true);
        let told = screen(&app, 100, 30);
        line(&told, "by p99, reversed");
        line(&told, "cannot connect");
    }

    #[test]
    fn before_the_first_answer_it_says_that_it_waits() {
        let app = App::new("http://127.0.0.1:1".to_owned(), Sort::Config);
        line(&screen(&app, 80, 24), "http://127.0.0.1:1  waiting");
    }
}
