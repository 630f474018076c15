//! What is read out of requests: the keys of hashing strategies and of rate limits, and sticky cookies.

use super::http::{PathForm, is_token};
use super::words::one_of;
use super::{Bad, Form, Refusal, parsed, toml_string};
use crate::config::model::{HashKey, RateKey};
use crate::config::node::Node;
use crate::config::suggest::nearest;

/// The longest name of a header, a cookie or a parameter, in bytes.
const MAX_NAME: usize = 128;

/// A part of a request, and the name behind its colon if it has one.
struct Part {
    word: &'static str,
    named: bool,
}

const fn plain(word: &'static str) -> Part {
    Part { word, named: false }
}

const fn named(word: &'static str) -> Part {
    Part { word, named: true }
}

impl Part {
    fn spelled(&self) -> String {
        match self.named {
            true => format!("{}:NAME", self.word),
            false => self.word.to_owned(),
        }
    }
}

/// Which of `parts` the text names, by its word, with the name behind the colon (empty for a part without one).
fn part<'a>(text: &'a str, parts: &'static [Part]) -> Result<(&'static str, &'a str), Refusal> {
    let (word, name) = match text.split_once(':') {
        Some((word, name)) => (word, Some(name)),
        None => (text, None),
    };
    match (parts.iter().find(|part| part.word == word), name) {
        (Some(Part { word, named: false }), None) => Ok((word, "")),
        (Some(Part { word, named: false }), Some(_)) => Err(Refusal::new("has a name behind its colon")
            .hint(format!("\"{word}\" takes none: write \"{word}\""))),
        (Some(Part { word, named: true }), Some(name)) => check_name(word, name).map(|()| (*word, name)),
        (Some(Part { word, named: true }), None) => {
            Err(Refusal::new(format!("does not say which {word}")).hint(format!("write \"{word}:NAME\"")))
        }
        (None, _) => {
            let refusal = Refusal::new("is no part of a request known here");
            let near = nearest(word, parts.iter().map(|part| part.word));
            let near = near.and_then(|near| parts.iter().find(|part| part.word == near));
            let meant = match near {
                Some(Part { word, named: true }) => {
                    format!(
                        "{word}:{}",
                        name.filter(|name| !name.is_empty()).unwrap_or("NAME")
                    )
                }
                Some(Part { word, .. }) => (*word).to_owned(),
                // A name with a hyphen is most likely a header's.
                None if name.is_none() && is_token(text) && text.contains('-') => format!("header:{text}"),
                None => return Err(refusal),
            };
            Err(refusal.hint(format!("did you mean \"{meant}\"?")))
        }
    }
}

/// Headers and cookies have tokens for names (RFC 9110 §5.1, RFC 6265 §4.1.1); a parameter's is what stands in the
/// query, percent-encoded as it may be.
fn check_name(word: &str, name: &str) -> Result<(), Refusal> {
    let spelled = match word {
        "query" => {
            let known = |byte: u8| byte.is_ascii_graphic() && !b"&=#\"<>".contains(&byte);
            !name.is_empty() && name.bytes().all(known)
        }
        _ => is_token(name),
    };
    if name.is_empty() {
        return Err(Refusal::new(format!("does not say which {word}")).hint(format!("write \"{word}:NAME\"")));
    }
    if !spelled {
        let trimmed = name.trim();
        let refusal = Refusal::new(format!(
            "has {name:?} behind its colon, which is not the name of a {what}",
            what = what(word)
        ));
        return Err(match trimmed != name && is_token(trimmed) {
            true => refusal.hint(format!("write \"{word}:{trimmed}\"")),
            false => refusal,
        });
    }
    if name.len() > MAX_NAME {
        return Err(Refusal::new(format!(
            "has a name of {} bytes, of {MAX_NAME} at most",
            name.len()
        )));
    }
    Ok(())
}

fn what(word: &str) -> &str {
    match word {
        "query" => "query's parameter",
        word => word,
    }
}

fn spelled(parts: &[Part]) -> String {
    let words: Vec<String> = parts.iter().map(Part::spelled).collect();
    one_of(&words.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Header names are kept in lower case: they are compared without regard to it.
fn header(name: &str) -> String {
    name.to_ascii_lowercase()
}

/// What hashing strategies hash.
pub(in crate::config) struct HashKeyForm;

const HASHED: &[Part] = &[
    plain("ip"),
    plain("uri"),
    plain("path"),
    named("header"),
    named("cookie"),
    named("query"),
];

impl Form for HashKeyForm {
    type Out = HashKey;

    fn allowed(&self) -> String {
        spelled(HASHED)
    }

    fn read(&self, node: &Node, bad: &mut Vec<Bad>) -> Option<HashKey> {
        parsed(node, "a part of the request", bad, |text| {
            part(text, HASHED).map(|(word, name)| match word {
                "uri" => HashKey::Uri,
                "path" => HashKey::Path,
                "header" => HashKey::Header(header(name)),
                "cookie" => HashKey::Cookie(name.to_owned()),
                "query" => HashKey::Query(name.to_owned()),
                _ => HashKey::Ip,
            })
        })
    }

    fn show(&self, value: &HashKey) -> String {
        toml_string(&hash_key_name(value))
    }
}

/// A `strategy.key` as it stands in configurations.
pub fn hash_key_name(key: &HashKey) -> String {
    match key {
        HashKey::Ip => "ip".to_owned(),
        HashKey::Uri => "uri".to_owned(),
        HashKey::Path => "path".to_owned(),
        HashKey::Header(name) => format!("header:{name}"),
        HashKey::Cookie(name) => format!("cookie:{name}"),
        HashKey::Query(name) => format!("query:{name}"),
    }
}

/// Whom a rate limit counts.
pub(in crate::config) struct RateKeyForm;

const COUNTED: &[Part] = &[plain("ip"), named("header")];

impl Form for RateKeyForm {
    type Out = RateKey;

    fn allowed(&self) -> String {
        spelled(COUNTED)
    }

    fn read(&self, node: &Node, bad: &mut Vec<Bad>) -> Option<RateKey> {
        parsed(node, "a part of the request", bad, |text| {
            part(text, COUNTED).map(|(word, name)| match word {
                "header" => RateKey::Header(header(name)),
                _ => RateKey::Ip,
            })
        })
    }

    fn show(&self, value: &RateKey) -> String {
        toml_string(&match value {
            RateKey::Ip => "ip".to_owned(),
            RateKey::Header(name) => format!("header:{name}"),
        })
    }
}

/// The name of a cookie.
pub(in crate::config) struct CookieName;

impl Form for CookieName {
    type Out = String;

    fn allowed(&self) -> String {
        "the name of a cookie like \"weir\"".to_owned()
    }

    fn read(&self, node: &Node, bad: &mut Vec<Bad>) -> Option<String> {
        parsed(node, "the name of a cookie", bad, |name| {
            if name.contains('=') {
                return Err(Refusal::new("holds \"=\"").hint("the name alone: weir makes the value"));
            }
            if !is_token(name) {
                return Err(Refusal::new("is not the name of a cookie"));
            }
            if name.len() > MAX_NAME {
                return Err(Refusal::new(format!(
                    "is {} bytes long, of {MAX_NAME} at most",
                    name.len()
                )));
            }
            Ok(name.to_owned())
        })
    }

    fn show(&self, value: &String) -> String {
        toml_string(value)
    }
}

/// The path of a cookie: a path that cannot end its attribute (RFC 6265 §4.1.1).
pub(in crate::config) struct CookiePath;

const COOKIE_PATH: PathForm = PathForm {
    query: false,
    root: true,
};

impl Form for CookiePath {
    type Out = String;

    fn allowed(&self) -> String {
        COOKIE_PATH.allowed()
    }

    fn read(&self, node: &Node, bad: &mut Vec<Bad>) -> Option<String> {
        let path = COOKIE_PATH.read(node, bad)?;
        if path.contains(';') {
            bad.push(Refusal::new("holds ';', which would end it in the cookie").at(node, &path));
            return None;
        }
        Some(path)
    }

    fn show(&self, value: &String) -> String {
        COOKIE_PATH.show(value)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::node::Raw;

    fn read<F: Form>(form: F, text: &str) -> Result<F::Out, Vec<Bad>> {
        let node = Node {
            raw: Raw::String(text.to_owned()),
            span: 0..text.len(),
        };
        let mut bad = Vec::new();
        form.read(&node, &mut bad).ok_or(bad)
    }

    fn hint<F: Form<Out: std::fmt::Debug>>(form: F, text: &str) -> Option<String> {
        let bad = read(form, text).expect_err("a wrong value");
        assert_eq!(bad.len(), 1, "{bad:?}");
        bad.into_iter().next().and_then(|bad| bad.hint)
    }

    #[test]
    fn keys_as_people_write_them() {
        let name = || "X-User".to_owned();
        for (text, key) in [
            ("ip", HashKey::Ip),
            ("uri", HashKey::Uri),
            ("path", HashKey::Path),
            ("header:X-User", HashKey::Header("x-user".to_owned())),
            ("cookie:X-User", HashKey::Cookie(name())),
            ("query:X-User", HashKey::Query(name())),
            ("query:ids[]", HashKey::Query("ids[]".to_owned())),
        ] {
            assert_eq!(read(HashKeyForm, text).expect(text), key);
        }
        assert_eq!(read(RateKeyForm, "ip").expect("ip"), RateKey::Ip);
        let header = RateKey::Header("x-user".to_owned());
        assert_eq!(read(RateKeyForm, "header:X-User").expect("a header"), header);
    }

    #[test]
    fn keys_that_are_none_and_what_was_meant() {
        for (text, meant) in [
            ("header", "write \"header:NAME\""),
            ("query:", "write \"query:NAME\""),
            ("header: X-User", "write \"header:X-User\""),
            ("headers:X-User", "did you mean \"header:X-User\"?"),
            ("Header:X-User", "did you mean \"header:X-User\"?"),
            ("paths", "did you mean \"path\"?"),
            ("IP", "did you mean \"ip\"?"),
            ("ip:4", "\"ip\" takes none: write \"ip\""),
            ("X-User", "did you mean \"header:X-User\"?"),
        ] {
            assert_eq!(hint(HashKeyForm, text).as_deref(), Some(meant), "{text}");
        }
        for text in [
            "header:a b",
            "cookie:a=b",
            "query:a&b",
            "cookie:ü",
            "a b",
            ":",
            "::",
        ] {
            assert_eq!(hint(HashKeyForm, text), None, "{text}");
        }
        // A rate limit knows fewer.
        assert!(read(RateKeyForm, "uri").is_err());
        assert!(read(RateKeyForm, "cookie:a").is_err());
    }

    #[test]
    fn cookies() {
        assert_eq!(read(CookieName, "__Host-weir").expect("a name"), "__Host-weir");
        for name in ["", "a b", "a;b", "a=b", "ü", "\"a\""] {
            assert!(read(CookieName, name).is_err(), "{name}");
        }
        assert_eq!(read(CookiePath, "/shop").expect("a path"), "/shop");
        for path in ["", "shop", "/a;b", "/a?b", "/a\u{1}"] {
            assert!(read(CookiePath, path).is_err(), "{path}");
        }
    }

    proptest! {
        #[test]
        fn a_key_reads_back_as_shown(text in "(ip|uri|path|header:|cookie:|query:)[a-zA-Z0-9_.;-]{0,9}") {
            if let Ok(key) = read(HashKeyForm, &text) {
                let shown = HashKeyForm.show(&key);
                let again = read(HashKeyForm, shown.trim_matches('"'));
                prop_assert_eq!(again.ok(), Some(key));
            }
        }

        #[test]
        fn any_text_gets_a_verdict(text: String) {
            let _ = read(HashKeyForm, &text);
            let _ = read(CookieName, &text);
        }
    }
}
