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

impl Pty {
    /// Starts `command` in a terminal of 160 columns and 40 lines.
    pub fn start(mut command: Command) -> Pty {
        let (mut master, mut slave) = (-1, -1);
        let size = libc::winsize {
            ws_row: 40,
            ws_col: 160,
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

    /// Everything that was drawn so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap()).into_owned()
    }

    /// Waits until `needle` was drawn, perhaps in pieces with colours between them.
    #[track_caller]
    pub fn wait_for(&self, needle: &str) {
        eventually(&format!("{needle:?} in the terminal"), || {
            self.text().contains(needle).then_some(())
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
