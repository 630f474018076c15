//! A headless Chromium, driven by its DevTools protocol.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

use super::{DEADLINE, eventually};

/// One page; the browser is ended when dropped.
pub struct Browser {
    child: Child,
    socket: WebSocket<TcpStream>,
    next: u64,
    /// Errors of the console, and exceptions that nobody caught.
    pub errors: Vec<String>,
    _dir: tempfile::TempDir,
}

impl Browser {
    /// None: there is no Chromium.
    pub fn start() -> Option<Browser> {
        let dir = tempfile::tempdir().expect("a directory");
        let child = Command::new("chromium")
            .args([
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--remote-debugging-port=0",
                &format!("--user-data-dir={}", dir.path().display()),
                "about:blank",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(child) = child else {
            super::skipped("chromium");
            return None;
        };
        let file = dir.path().join("DevToolsActivePort");
        let port = eventually("the browser's port", || {
            fs::read_to_string(&file)
                .ok()?
                .lines()
                .next()?
                .parse::<u16>()
                .ok()
        });
        let address = format!("127.0.0.1:{port}");
        let url = eventually("a page of the browser", || page_url(&address));
        let stream = TcpStream::connect(&address).expect("the browser listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("a time-out");
        let (socket, _) = tungstenite::client(url.as_str(), stream).expect("a WebSocket");
        let mut browser = Browser {
            child,
            socket,
            next: 0,
            errors: Vec::new(),
            _dir: dir,
        };
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        Some(browser)
    }

    /// Calls a method of the protocol and waits for its result.
    pub fn call(&mut self, method: &str, params: Value) -> Value {
        self.try_call(method, params)
            .unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// As [`Self::call`]; an error: what the browser says of why there is no result.
    fn try_call(&mut self, method: &str, params: Value) -> Result<Value, Value> {
        self.next += 1;
        let id = self.next;
        let message = json!({ "id": id, "method": method, "params": params });
        self.socket
            .send(Message::text(message.to_string()))
            .expect("the browser takes it");
        let start = Instant::now();
        while start.elapsed() < DEADLINE {
            let Ok(Message::Text(text)) = self.socket.read() else {
                continue;
            };
            let message: Value = serde_json::from_str(&text).expect("JSON");
            if message["id"] == id {
                return match &message["error"] {
                    Value::Null => Ok(message["result"].clone()),
                    error => Err(error.clone()),
                };
            }
            self.note(&message);
        }
        panic!("the browser did not answer {method}");
    }

    fn note(&mut self, message: &Value) {
        let params = &message["params"];
        let said = match message["method"].as_str().unwrap_or_default() {
            "Runtime.exceptionThrown" => params["exceptionDetails"].to_string(),
            "Log.entryAdded" if params["entry"]["level"] == "error" => params["entry"].to_string(),
            "Runtime.consoleAPICalled" if params["type"] == "error" => params["args"].to_string(),
            _ => return,
        };
        self.errors.push(said);
    }

    pub fn open(&mut self, url: &str) {
        self.call("Page.navigate", json!({ "url": url }));
    }

    /// The value of an expression in the page.
    #[track_caller]
    pub fn value(&mut self, expression: &str) -> Value {
        self.evaluate(expression)
            .unwrap_or_else(|| panic!("the page went away: {expression}"))
    }

    /// The same; none: the page went away for another one meanwhile.
    #[track_caller]
    fn evaluate(&mut self, expression: &str) -> Option<Value> {
        let params = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        match self.try_call("Runtime.evaluate", params) {
            Ok(result) => {
                let exception = &result["exceptionDetails"];
                assert!(exception.is_null(), "{expression}: {exception}");
                Some(result["result"]["value"].clone())
            }
            Err(error) => {
                let why = error["message"].as_str().unwrap_or_default();
                let gone = why.contains("navigated") || why.contains("context was destroyed");
                assert!(gone, "{expression}: {error}");
                None
            }
        }
    }

    /// Does what makes the page load another one, or itself again.
    #[track_caller]
    pub fn leave_by(&mut self, expression: &str) {
        self.evaluate(expression);
    }

    /// Waits until an expression in the page is true.
    #[track_caller]
    pub fn wait(&mut self, expression: &str) {
        let start = Instant::now();
        while self.evaluate(expression) != Some(Value::Bool(true)) {
            assert!(
                start.elapsed() < DEADLINE,
                "not within {DEADLINE:?}: {expression}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Presses and releases a key.
    pub fn press(&mut self, key: &str) {
        let text = if key == "Enter" { "\r" } else { "" };
        for kind in ["keyDown", "keyUp"] {
            let code = match key {
                "Enter" => 13,
                "Tab" => 9,
                _ => 0,
            };
            let mut params = json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code });
            if kind == "keyDown" && !text.is_empty() {
                params["text"] = text.into();
            }
            self.call("Input.dispatchKeyEvent", params);
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The debugger's address of the first page.
fn page_url(address: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    write!(
        stream,
        "GET /json/list HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )
    .ok()?;
    let mut answer = Vec::new();
    // The browser may keep the connection open.
    let _ = stream.read_to_end(&mut answer);
    let text = String::from_utf8_lossy(&answer);
    let (_, body) = text.split_once("\r\n\r\n")?;
    let pages: Value = serde_json::from_str(body.trim()).ok()?;
    let page = pages.as_array()?.iter().find(|page| page["type"] == "page")?;
    page["webSocketDebuggerUrl"].as_str().map(str::to_owned)
}
