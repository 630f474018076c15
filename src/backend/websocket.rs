//! `/ws`: the server side of RFC 6455, echoing each message.

use hyper::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue, UPGRADE};
use hyper::header::{SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION};
use hyper::upgrade::OnUpgrade;
use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;

use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};

use super::Stopping;

/// The longest message that is echoed; a longer one ends the connection.
const MESSAGE_LIMIT: usize = 16 << 20;

/// Judges a handshake (RFC 6455 §4.2.1). Gives the header fields of the 101, or the status and sentence that refuse it.
pub(super) fn accept(
    method: &Method,
    headers: &HeaderMap,
) -> Result<Vec<(HeaderName, HeaderValue)>, (StatusCode, &'static str)> {
    let bad = |sentence| Err((StatusCode::BAD_REQUEST, sentence));
    if method != Method::GET || !has_token(headers, &CONNECTION, "upgrade") {
        return bad("/ws wants a WebSocket handshake: GET with Connection: Upgrade");
    }
    if !has_token(headers, &UPGRADE, "websocket") {
        return bad("/ws wants Upgrade: websocket");
    }
    if headers
        .get(SEC_WEBSOCKET_VERSION)
        .is_none_or(|version| version != "13")
    {
        return Err((
            StatusCode::UPGRADE_REQUIRED,
            "/ws wants Sec-WebSocket-Version: 13",
        ));
    }
    let key = headers
        .get(SEC_WEBSOCKET_KEY)
        .map(HeaderValue::as_bytes)
        .unwrap_or_default();
    // The base64 form of 16 bytes.
    if key.len() != 24 || !key.ends_with(b"==") {
        return bad("/ws wants a Sec-WebSocket-Key of 16 bytes in base64");
    }
    let Ok(accept) = HeaderValue::try_from(derive_accept_key(key)) else {
        return bad("/ws cannot use this Sec-WebSocket-Key");
    };
    let mut fields = vec![
        (CONNECTION, HeaderValue::from_static("Upgrade")),
        (UPGRADE, HeaderValue::from_static("websocket")),
        (SEC_WEBSOCKET_ACCEPT, accept),
    ];
    // A browser that offers subprotocols fails unless one is chosen.
    let offered = headers
        .get(SEC_WEBSOCKET_PROTOCOL)
        .and_then(|offered| offered.to_str().ok());
    if let Some(first) = offered.and_then(|offered| offered.split(',').next())
        && let Ok(chosen) = HeaderValue::from_str(first.trim())
    {
        fields.push((SEC_WEBSOCKET_PROTOCOL, chosen));
    }
    Ok(fields)
}

/// Whether one of `name`'s comma-separated members is `token`, in any case.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let members = headers
        .get_all(name)
        .into_iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    members
        .into_iter()
        .any(|member| member.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// Echoes text and binary messages until either side closes; pings are answered beneath. A stopping backend says
/// "going away" (1001) and waits for the client's close.
pub(super) async fn echo(upgrade: OnUpgrade, mut stopping: Stopping) {
    let Ok(upgraded) = upgrade.await else {
        return;
    };
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_LIMIT))
        .max_frame_size(Some(MESSAGE_LIMIT))
        .read_buffer_size(16 << 10);
    let mut socket =
        WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
    let mut open = true;
    loop {
        let message = tokio::select! {
            biased;
            () = stopping.stopped(), if open => {
                open = false;
                let away = CloseFrame { code: CloseCode::Away, reason: "stopping".into() };
                if socket.close(Some(away)).await.is_err() {
                    return;
                }
                continue;
            }
            message = socket.next() => message,
        };
        // None: both sides have closed. After a close, `next` goes on until the peer has it.
        let Some(Ok(message)) = message else {
            return;
        };
        let is_data = message.is_text() || message.is_binary();
        if open && is_data && socket.send(message).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handshake(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        fields.iter().map(pair).collect()
    }

    const GOOD: [(&str, &str); 4] = [
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "WebSocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    #[test]
    fn the_example_of_rfc_6455_is_accepted() {
        let fields = accept(&Method::GET, &handshake(&GOOD)).expect("a good handshake");
        let accepted = fields
            .iter()
            .find(|(name, _)| name == SEC_WEBSOCKET_ACCEPT)
            .expect("an accept key");
        assert_eq!(accepted.1, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn each_missing_part_is_refused() {
        for left_out in 0..GOOD.len() {
            let mut fields = GOOD.to_vec();
            let (name, _) = fields.remove(left_out);
            assert!(
                accept(&Method::GET, &handshake(&fields)).is_err(),
                "without {name}"
            );
        }
        assert!(accept(&Method::POST, &handshake(&GOOD)).is_err());
    }
}
