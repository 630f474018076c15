//! The admin API as a test uses it, and what it says about backends.

use serde_json::Value;

use super::http::Message;
use super::{Weir, Wire, eventually};

impl Weir {
    /// One request to the admin API with a JSON content type.
    pub fn admin_send(&self, method: &str, target: &str, body: &str) -> Message {
        self.admin_raw(
            method,
            target,
            &format!(
                "Content-Type: application/json\r\nContent-Length: {}\r\n",
                body.len()
            ),
            body,
        )
    }

    /// One request to the admin API with these header lines besides `Host`.
    pub fn admin_raw(&self, method: &str, target: &str, fields: &str, body: &str) -> Message {
        let admin = self.admin.as_deref().expect("admin is on");
        let mut client = Wire::connect(admin);
        client.send(format!(
            "{method} {target} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n{fields}\r\n{body}"
        ));
        client.response(method)
    }

    /// A change of state that must be taken.
    #[track_caller]
    pub fn admin_do(&self, method: &str, target: &str, body: &str) -> Value {
        let answer = self.admin_send(method, target, body);
        let text = super::http::text(&answer.body);
        assert!(
            (200..300).contains(&answer.status()),
            "{method} {target}: {} {text}",
            answer.status()
        );
        serde_json::from_slice(&answer.body).unwrap_or(Value::Null)
    }

    /// `POST /v1/pools/default/backends/NAME/ACTION`.
    #[track_caller]
    pub fn operate(&self, backend: &str, action: &str) {
        self.admin_do(
            "POST",
            &format!("/v1/pools/default/backends/{backend}/{action}"),
            "{}",
        );
    }

    /// What `GET /backends` says of one.
    #[track_caller]
    pub fn backend(&self, name: &str) -> Value {
        let answer = self.admin_get("/backends");
        assert_eq!(answer.status(), 200);
        let all: Value = serde_json::from_slice(&answer.body).expect("JSON");
        let list = all["backends"].as_array().expect("a list of backends");
        list.iter()
            .find(|backend| backend["name"] == name)
            .cloned()
            .unwrap_or_else(|| panic!("no {name} in {all}"))
    }

    /// CLOSED, OPEN or HALF-OPEN.
    pub fn breaker(&self, name: &str) -> String {
        let backend = self.backend(name);
        backend["breaker"]["state"]
            .as_str()
            .unwrap_or_else(|| panic!("no breaker in {backend}"))
            .to_owned()
    }

    #[track_caller]
    pub fn wait_breaker(&self, name: &str, state: &str) {
        eventually(&format!("{name}'s breaker {state}"), || {
            (self.breaker(name) == state).then_some(())
        });
    }

    /// Waits until something holds of what `GET /backends` says of one.
    #[track_caller]
    pub fn wait_backend(&self, name: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        eventually(&format!("{name} {what}"), || {
            Some(self.backend(name)).filter(|backend| holds(backend))
        })
    }

    /// Waits until picks may choose it, or may not.
    #[track_caller]
    pub fn wait_eligible(&self, name: &str, eligible: bool) {
        self.wait_backend(
            name,
            if eligible { "eligible" } else { "not eligible" },
            |backend| backend["eligible"] == eligible,
        );
    }

    /// Waits until the probes say up, or down.
    #[track_caller]
    pub fn wait_healthy(&self, name: &str, healthy: bool) {
        self.wait_backend(name, if healthy { "healthy" } else { "not healthy" }, |backend| {
            backend["healthy"] == healthy
        });
    }

    /// A figure of one backend in the metrics.
    #[track_caller]
    pub fn backend_metric(&self, url: &str, name: &str) -> u64 {
        let metrics = self.metrics();
        metrics["backends"][url][name]
            .as_u64()
            .unwrap_or_else(|| panic!("no {name} of {url} in {metrics}"))
    }

    /// Tells it to read its configuration again and waits for the answer.
    pub fn reload(&self) -> Message {
        self.admin_send("POST", "/reload", "{}")
    }
}
