//! A pseudo terminal of a given size with a program in it, and what the program has drawn so far.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex};
use std::thread;

use super::{eventually, os};

pub struct Pty {
    child: Child,
    /// The end of whoever sits before the terminal.
    master: File,
    /// Kept open, so that the settings can be looked at when the program is gone.
    slave: OwnedFd,
    before: Settings,
    seen: Arc<Mutex<Vec<u8>>>,
}

/// What a program may have changed of a terminal, and has to give back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    pub input: libc::tcflag_t,
    pub output: libc::tcflag_t,
    pub local: libc::tcflag_t,
}

const LINES: u16 = 40;
const COLUMNS: u16 = 160;

impl Pty {
    /// Starts `command` in a terminal of 160 columns and 40 lines.
    pub fn start(mut command: Command) -> Pty {
        let (mut master, mut slave) = (-1, -1);
        let size = libc::winsize {
            ws_row: LINES,
            ws_col: COLUMNS,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        // SAFETY: the pointers are to live locals of the right types; name and settings may be null.
        let opened = unsafe {
            libc::openpty(
                &mut master,
                &mut slave,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                &size,
            )
        };
        assert_eq!(opened, 0, "openpty: {}", io::Error::last_os_error());
        // SAFETY: openpty has just given both descriptors, and nobody else has them.
        let (master, slave) = unsafe { (File::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) };
        let before = settings(&slave);
        let end = || slave.try_clone().expect("a descriptor");
        command
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .env("TERM", "xterm-256color");
        os::fence(&mut command, None);
        let child = command.spawn().expect("the program");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (sink, mut source) = (seen.clone(), master.try_clone().expect("a descriptor"));
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = source.read(&mut buffer) {
                sink.lock().unwrap().extend_from_slice(&buffer[..read]);
            }
        });
        Pty {
            child,
            master,
            slave,
            before,
            seen,
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything that the program has written so far, as it wrote it.
    pub fn written(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap()).into_owned()
    }

    /// The lines that somebody before it sees now.
    pub fn screen(&self) -> Vec<String> {
        screen(&self.written())
    }

    /// Waits until a line of the screen has `needle`.
    #[track_caller]
    pub fn wait_for(&self, needle: &str) {
        let shows = || self.screen().iter().any(|line| line.contains(needle));
        eventually(&format!("{needle:?} in the terminal"), || shows().then_some(()));
    }

    /// Waits until the program has written `sequence`.
    #[track_caller]
    pub fn wait_written(&self, sequence: &str) {
        eventually(&format!("{sequence:?} from the program"), || {
            self.written().contains(sequence).then_some(())
        });
    }

    pub fn press(&mut self, keys: &str) {
        self.master
            .write_all(keys.as_bytes())
            .expect("the terminal takes keys");
    }

    pub fn settings(&self) -> Settings {
        settings(&self.slave)
    }

    /// How the terminal was before the program began.
    pub fn settings_before(&self) -> Settings {
        self.before
    }

    /// Waits until the program ends.
    #[track_caller]
    pub fn wait_exit(&mut self) -> ExitStatus {
        eventually("the end of the program", || {
            self.child.try_wait().expect("a child of ours")
        })
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn settings(terminal: &OwnedFd) -> Settings {
    let mut termios = std::mem::MaybeUninit::<libc::termios>::uninit();
    // SAFETY: the descriptor is open and the pointer is to a live local of the right type.
    let read = unsafe { libc::tcgetattr(terminal.as_raw_fd(), termios.as_mut_ptr()) };
    assert_eq!(read, 0, "tcgetattr: {}", io::Error::last_os_error());
    // SAFETY: tcgetattr has filled it.
    let termios = unsafe { termios.assume_init() };
    Settings {
        input: termios.c_iflag,
        output: termios.c_oflag,
        local: termios.c_lflag,
    }
}

/// What a terminal shows that got `written`: cursor positions and characters. A program that draws writes only what has
/// changed, so a word may come in pieces. Colours and modes are passed over; nothing else is known of.
fn screen(written: &str) -> Vec<String> {
    let blank = || vec![vec![' '; usize::from(COLUMNS)]; usize::from(LINES)];
    let mut cells = blank();
    let (mut line, mut column) = (0, 0);
    let mut characters = written.chars().peekable();
    while let Some(character) = characters.next() {
        if character != '\x1b' {
            if let Some(cell) = cells
                .get_mut(line)
                .and_then(|cells: &mut Vec<char>| cells.get_mut(column))
            {
                *cell = character;
            }
            column += 1;
            continue;
        }
        if characters.next_if_eq(&'[').is_none() {
            continue;
        }
        let mut parameters = String::new();
        let ending = loop {
            match characters.next() {
                Some(ending @ '@'..='~') => break ending,
                Some(parameter) => parameters.push(parameter),
                // Cut off in the middle: the rest comes later.
                None => break ' ',
            }
        };
        match ending {
            'H' => {
                let (to_line, to_column) = parameters.split_once(';').unwrap_or((&parameters, ""));
                let place = |text: &str| text.parse::<usize>().unwrap_or(1).saturating_sub(1);
                (line, column) = (place(to_line), place(to_column));
            }
            'J' => cells = blank(),
            _ => {}
        }
    }
    cells.into_iter().map(String::from_iter).collect()
}
