//! The command line: texts, exit codes, and the small commands.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Command, Output};

use weir::backend::{Handle, Options, spawn};

fn weir(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_weir"))
        .args(arguments)
        .output()
        .expect("run weir")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const COMMANDS: [&str; 13] = [
    "run",
    "check",
    "demo",
    "backend",
    "experiment",
    "explain",
    "health",
    "hdr",
    "load",
    "simulate",
    "top",
    "completions",
    "man",
];

#[test]
fn help_names_every_command_and_the_exit_codes() {
    let output = weir(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let help = stdout(&output);
    for command in COMMANDS {
        assert!(
            help.contains(&format!("\n  {command} ")),
            "{command} is missing:\n{help}"
        );
    }
    for code in [
        "0  everything",
        "1  something was cut",
        "2  bad configuration",
        "3  cannot bind",
    ] {
        assert!(help.contains(code), "{code:?} is missing:\n{help}");
    }
    for command in COMMANDS {
        let output = weir(&[command, "--help"]);
        assert_eq!(output.status.code(), Some(0), "{command}");
        assert!(
            stdout(&output).contains(&format!("Usage: weir {command}")),
            "{command}"
        );
    }
}

#[test]
fn the_version_says_what_was_built() {
    let output = weir(&["--version"]);
    assert_eq!(output.status.code(), Some(0));
    let version = stdout(&output);
    assert!(
        version.starts_with(concat!("weir ", env!("CARGO_PKG_VERSION"), " (linux ")),
        "{version}"
    );
    assert!(version.ends_with(")\n"), "{version}");
}

#[test]
fn without_a_command_there_is_help_and_exit_code_2() {
    let output = weir(&[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("Usage: weir <COMMAND>"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn bad_usage_is_explained_with_exit_code_2() {
    for (arguments, explained) in [
        (&["serve"][..], "serve"),
        (&["run", "--confg", "x"], "--config"),
        (&["run", "--set", "address"], "section.key=value"),
        (&["backend"], "--port"),
        (&["backend", "--port", "70000"], "70000"),
        (&["backend", "--port", "0", "--delay", "5"], "5ms, 1.5s or 2m"),
        (&["backend", "--port", "0", "--error-rate", "2"], "from 0 to 1"),
        (&["backend", "--port", "0", "--status", "101"], "200 to 599"),
        (&["backend", "--port", "0", "--name", "a b"], "printable"),
        (&["demo", "--backends", "0"], "--backends"),
        (&["demo", "--port", "8081"], "--backend-port"),
        (
            &["health", "--url", "https://127.0.0.1/"],
            "http://HOST:PORT/PATH",
        ),
        (&["completions", "cmd"], "bash"),
    ] {
        let output = weir(arguments);
        assert_eq!(
            output.status.code(),
            Some(2),
            "{arguments:?}: {}",
            stderr(&output)
        );
        assert!(
            stderr(&output).contains(explained),
            "{arguments:?}: {}",
            stderr(&output)
        );
    }
}

#[test]
fn completions_for_every_shell_know_the_commands() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = weir(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0), "{shell}");
        for word in COMMANDS.iter().chain(&["body-bytes", "ready-file"]) {
            assert!(stdout(&output).contains(word), "{shell} does not know {word}");
        }
    }
}

#[test]
fn man_pages_come_from_the_same_definitions() {
    let output = weir(&["man"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(stdout(&output).contains(".TH weir 1"), "{}", stdout(&output));

    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().to_str().expect("UTF-8");
    assert_eq!(weir(&["man", path]).status.code(), Some(0));
    assert!(directory.path().join("weir.1").is_file());
    for command in COMMANDS {
        let page =
            std::fs::read_to_string(directory.path().join(format!("weir-{command}.1"))).expect(command);
        assert!(page.contains(&format!(".TH weir-{command} 1")), "{page}");
    }

    let output = weir(&["man", &format!("{path}/missing")]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("/missing"), "{}", stderr(&output));
}

#[test]
fn a_taken_port_of_the_demo_is_named_with_its_flag() {
    let holder = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    let port = holder.local_addr().expect("an address").port().to_string();
    for flag in ["--port", "--backend-port", "--admin-port"] {
        let mut arguments = vec!["demo", "--backends", "1"];
        for other in ["--port", "--backend-port", "--admin-port"] {
            arguments.extend([other, if other == flag { &port } else { "0" }]);
        }
        let output = weir(&arguments);
        let stderr = stderr(&output);
        assert_eq!(output.status.code(), Some(3), "{flag}: {stderr}");
        assert!(stderr.contains(&format!("port {port} is taken")), "{stderr}");
        assert!(stderr.contains(&format!("with {flag}")), "{stderr}");
    }
}

/// Asks `target` of `address` on the driver that monoio finds, and on epoll.
fn health(address: SocketAddr, target: &str, timeout: &str) -> [Output; 2] {
    let url = format!("http://{address}{target}");
    ["0", "1"].map(|force_epoll| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
        command.env("MONOIO_FORCE_LEGACY_DRIVER", force_epoll);
        command
            .args(["health", "--url", &url, "--timeout", timeout])
            .output()
            .expect("run weir")
    })
}

fn backend() -> Handle {
    spawn((Ipv4Addr::LOCALHOST, 0).into(), Options::default()).expect("start a backend")
}

#[test]
fn health_is_0_for_200_and_1_for_all_else() {
    let backend = backend();
    for target in ["/health", "/chunked/100", "/bytes/100", "/?backends=1"] {
        for output in health(backend.address(), target, "10s") {
            assert_eq!(output.status.code(), Some(0), "{target}: {}", stderr(&output));
            assert_eq!(stderr(&output), "");
        }
    }
    for output in health(backend.address(), "/status/503", "10s") {
        assert_eq!(output.status.code(), Some(1));
        assert!(
            stderr(&output).contains("503") && stderr(&output).contains("backend-"),
            "{}",
            stderr(&output)
        );
    }
}

#[test]
fn health_is_1_where_nobody_listens() {
    // Bound but not listening: nobody else can get the port meanwhile.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket
        .bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())
        .expect("bind");
    let address = socket
        .local_addr()
        .expect("an address")
        .as_socket()
        .expect("an IP address");
    for output in health(address, "/readyz", "10s") {
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains("cannot connect"), "{}", stderr(&output));
    }
}

#[test]
fn health_is_1_when_no_answer_comes_in_time() {
    // The kernel accepts; nobody answers.
    let mute = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    for output in health(mute.local_addr().expect("an address"), "/readyz", "50ms") {
        assert_eq!(output.status.code(), Some(1));
        assert!(
            stderr(&output).contains("no answer within 50ms"),
            "{}",
            stderr(&output)
        );
    }
}
