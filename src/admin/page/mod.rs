//! `GET /`: the page, and what it is fed with.
//!
//! The page is four files within the binary, without anything from elsewhere. It gets all it shows by [`stream`] and
//! changes things by the same calls as everybody. It holds no data, so it is served without a token; the stream is not.

pub(super) mod stream;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Response;
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};

use super::router::{Answer, whole};

pub use stream::Live;

/// One of the page's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum File {
    Page,
    Style,
    Script,
    Icon,
}

/// Nothing from elsewhere, nothing inline, no frames, no forms: what gets into the page by some name of a backend can do
/// nothing there.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

impl File {
    /// The file at `path`.
    pub(super) fn at(path: &str) -> Option<File> {
        match path {
            "/" => Some(File::Page),
            "/page.css" => Some(File::Style),
            "/page.js" => Some(File::Script),
            "/page.svg" => Some(File::Icon),
            _ => None,
        }
    }

    pub(super) fn answer(self) -> Answer {
        let (content_type, text) = match self {
            File::Page => ("text/html; charset=utf-8", include_str!("index.html")),
            File::Style => ("text/css; charset=utf-8", include_str!("page.css")),
            File::Icon => ("image/svg+xml", include_str!("page.svg")),
            File::Script => ("text/javascript; charset=utf-8", include_str!("page.js")),
        };
        let mut answer = Response::new(whole(Full::new(Bytes::from_static(text.as_bytes()))));
        let headers = answer.headers_mut();
        for (name, value) in [
            (CONTENT_TYPE, content_type),
            (CONTENT_SECURITY_POLICY, POLICY),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (REFERRER_POLICY, "no-referrer"),
            (CACHE_CONTROL, "no-cache"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        answer
    }
}
