//! `weir top`: what the admin page shows, in a terminal.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::Duration;

use clap::Args;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, sleep};

use super::admin::AdminArgs;
use super::{exit, values};
use crate::metrics::history::WINDOW;
use crate::top::app::{self, App, Outcome, Sort};
use crate::top::client::{Admin, Change};
use crate::top::input;
use crate::top::model::{Reading, Shown, shown};
use crate::top::view;

const AFTER_HELP: &str = "\
Examples:
  weir top                                          the weir on this machine
  weir top --admin http://10.0.0.7:9070 --token-file /etc/weir/token --sort p99
  weir top --admin unix:/run/weir/admin.sock
  weir top --once --json | jq .requests_per_second  for a script

Keys: up and down select, s sorts by the next column, r turns the order round, / filters, d drains and u puts back (both
ask first), h helps, q quits.

Rates are of the time between two readings, percentiles of the last seconds that it names, over all workers.

Exit codes:
  0  it was shown
  1  weir could not be asked (--once), or the terminal failed
  2  bad usage";

/// What the percentiles of the terminal view look back over, as those of the page.
const LOOK_BACK: Duration = Duration::from_secs(10);
/// How often the terminal is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// Messages between the two threads.
const QUEUE: usize = 16;

#[derive(Args, Clone, Debug)]
#[command(after_help = AFTER_HELP)]
pub struct TopArgs {
    #[command(flatten)]
    admin: AdminArgs,

    /// How often to ask; with --once, the time between the two readings
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = parse_interval)]
    interval: Duration,

    /// Print JSON once and end
    #[arg(long, requires = "json")]
    once: bool,

    /// With --once: one document
    #[arg(long, requires = "once")]
    json: bool,

    /// What to sort backends by
    #[arg(long, value_enum, value_name = "KEY", default_value_t)]
    sort: Sort,
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    let interval = values::parse_duration(text)?;
    if (Duration::from_millis(100)..=Duration::from_secs(WINDOW as u64)).contains(&interval) {
        Ok(interval)
    } else {
        Err(format!("it must be from 100ms to {WINDOW}s"))
    }
}

pub fn main(args: TopArgs) -> ExitCode {
    let admin = match args.admin.client() {
        Ok(admin) => admin,
        Err(why) => return exit::because(exit::BAD_CONFIGURATION, why),
    };
    let on_a_terminal = io::stdout().is_terminal() && io::stdin().is_terminal();
    if !args.once && !on_a_terminal {
        return exit::because(
            exit::BAD_CONFIGURATION,
            "weir top needs a terminal; for a script there is weir top --once --json",
        );
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Err(error) => Err(format!("cannot start a runtime: {error}")),
        Ok(runtime) if args.once => once(&runtime, &admin, &args),
        Ok(runtime) => watch(runtime, admin, &args),
    };
    match result {
        Ok(()) => ExitCode::from(exit::ANSWERED),
        Err(why) => exit::because(exit::CUT, why),
    }
}

/// Two readings, and what they say as one document.
fn once(runtime: &Runtime, admin: &Admin, args: &TopArgs) -> Result<(), String> {
    #[derive(serde::Serialize)]
    struct Document {
        admin: String,
        #[serde(flatten)]
        shown: Shown,
    }
    // History is kept by the second: no part of the interval may be left out.
    let window = Duration::from_secs(args.interval.as_secs_f64().ceil() as u64);
    let (before, now) = runtime.block_on(async {
        let before = admin.read(window, u64::MAX).await?;
        sleep(args.interval).await;
        Ok::<_, String>((before, admin.read(window, u64::MAX).await?))
    })?;
    let mut shown = shown(Some(&before), &now);
    app::sort(&mut shown.backends, args.sort, false);
    let document = Document {
        admin: admin.to_string(),
        shown,
    };
    let text = serde_json::to_string_pretty(&document).map_err(|error| error.to_string())?;
    match writeln!(io::stdout(), "{text}") {
        // A reader that has seen enough is no error.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(format!("cannot print: {error}")),
        _ => Ok(()),
    }
}

/// What the thread that asks tells the one that draws.
enum Told {
    Reading(Box<Reading>),
    Failed(String),
    /// What came of a change: a sentence, and whether it went wrong.
    Changed(String, bool),
    /// The process was told to end.
    End,
}

/// What the thread that draws wants.
enum Wanted {
    Change(Change),
    /// The first row of the history that is not known.
    RowsFrom(u64),
}

fn watch(runtime: Runtime, admin: Admin, args: &TopArgs) -> Result<(), String> {
    let (tell, told) = mpsc::sync_channel(QUEUE);
    let (want, wanted) = tokio::sync::mpsc::channel(QUEUE);
    let mut app = App::new(admin.to_string(), args.sort);
    let interval = args.interval;
    // It ends with the process: what it waits for at that moment is of no use to anybody.
    thread::Builder::new()
        .name("weir-top-ask".to_owned())
        .spawn(move || runtime.block_on(ask(&admin, interval, wanted, &tell)))
        .map_err(|error| format!("cannot start a thread: {error}"))?;
    let mut terminal = match ratatui::try_init() {
        Ok(terminal) => terminal,
        Err(error) => {
            ratatui::restore();
            return Err(format!("the terminal cannot be used: {error}"));
        }
    };
    let result = show(&mut terminal, &mut app, &told, &want);
    ratatui::restore();
    result.map_err(|error| format!("the terminal failed: {error}"))
}

/// Draws and takes keys until it is to end.
fn show(
    terminal: &mut DefaultTerminal,
    app: &mut App,
    told: &Receiver<Told>,
    want: &tokio::sync::mpsc::Sender<Wanted>,
) -> io::Result<()> {
    loop {
        terminal.draw(|frame| view::draw(frame, app))?;
        let mut changed = false;
        while !changed {
            while let Ok(told) = told.try_recv() {
                changed = true;
                match told {
                    Told::Reading(reading) => {
                        app.read(*reading);
                        // If it is full, the next reading brings some rows twice.
                        let _ = want.try_send(Wanted::RowsFrom(app.next_row()));
                    }
                    Told::Failed(why) => app.tell(why, true),
                    Told::Changed(what, bad) => app.tell(what, bad),
                    Told::End => return Ok(()),
                }
            }
            if !event::poll(LOOK)? {
                continue;
            }
            changed = true;
            if let Some(key) = input::key(&event::read()?) {
                match app.press(key) {
                    Outcome::Nothing => {}
                    Outcome::Quit => return Ok(()),
                    Outcome::Change(change) => {
                        if want.try_send(Wanted::Change(change)).is_err() {
                            app.tell("too much was asked for at once; try again".to_owned(), true);
                        }
                    }
                }
            }
        }
    }
}

/// Reads again and again, and changes what is wanted, until nobody listens.
async fn ask(
    admin: &Admin,
    interval: Duration,
    mut wanted: tokio::sync::mpsc::Receiver<Wanted>,
    tell: &SyncSender<Told>,
) {
    tokio::spawn(tell_of_signals(tell.clone()));
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut rows_from = 0;
    loop {
        // What is told is dropped where nobody looks any more: then the other end is about to go.
        tokio::select! {
            asked = wanted.recv() => match asked {
                None => return,
                Some(Wanted::RowsFrom(row)) => rows_from = row,
                Some(Wanted::Change(change)) => {
                    let (action, name) = (change.action.word(), &change.name);
                    let told = match admin.change(&change).await {
                        Ok(()) => Told::Changed(format!("{name}: {action} was accepted"), false),
                        Err(why) => Told::Changed(format!("{name}: {action} failed: {why}"), true),
                    };
                    let _ = tell.try_send(told);
                    ticks.reset_immediately();
                }
            },
            _ = ticks.tick() => {
                let told = match admin.read(LOOK_BACK, rows_from).await {
                    Ok(reading) => Told::Reading(Box::new(reading)),
                    Err(why) => Told::Failed(why),
                };
                let _ = tell.try_send(told);
            }
        }
    }
}

/// A terminal in raw mode must be given back, also to who ends the process from outside.
async fn tell_of_signals(tell: SyncSender<Told>) {
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::hangup()));
    if let (Ok(mut terminate), Ok(mut hangup)) = signals {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
        let _ = tell.try_send(Told::End);
    }
}
