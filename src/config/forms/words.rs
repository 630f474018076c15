//! Values that are one of a few words. The words are those of the type's serde traits, so they are spelled in one place.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{self, Deserialize, IntoDeserializer};
use serde::{Serialize, de::value::StrDeserializer};

use super::{Bad, Form, Refusal, parsed, toml_string};
use crate::config::node::Node;
use crate::config::suggest::nearest;

/// One of the words of `T`, an enum of unit variants.
pub(in crate::config) struct Words<T>(PhantomData<T>);

impl<T> Words<T> {
    pub(in crate::config) const fn new() -> Words<T> {
        Words(PhantomData)
    }
}

/// What serde's derive says of a word that is none: the words that are.
#[derive(Debug)]
struct Unknown {
    words: &'static [&'static str],
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "one of {}", self.words.join(", "))
    }
}

impl std::error::Error for Unknown {}

impl de::Error for Unknown {
    fn custom<M: fmt::Display>(_: M) -> Unknown {
        Unknown { words: &[] }
    }

    fn unknown_variant(_: &str, words: &'static [&'static str]) -> Unknown {
        Unknown { words }
    }
}

fn lookup<'de, T: Deserialize<'de>>(word: &'de str) -> Result<T, Unknown> {
    let word: StrDeserializer<'de, Unknown> = word.into_deserializer();
    T::deserialize(word)
}

/// `"a", "b" or "c"`.
pub(super) fn one_of(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
    match quoted.as_slice() {
        [] => String::new(),
        [only] => only.clone(),
        [head @ .., last] => format!("{} or {last}", head.join(", ")),
    }
}

impl<T: for<'de> Deserialize<'de> + Serialize> Form for Words<T> {
    type Out = T;

    fn allowed(&self) -> String {
        match lookup::<T>("") {
            Ok(_) => String::new(),
            Err(unknown) => one_of(unknown.words),
        }
    }

    fn read(&self, node: &Node, bad: &mut Vec<Bad>) -> Option<T> {
        parsed(node, "a word", bad, |word| {
            lookup(word).map_err(|unknown| {
                let refusal = Refusal::new("is not one of the words allowed here");
                match nearest(word, unknown.words.iter().copied()) {
                    Some(near) => refusal.hint(format!("did you mean \"{near}\"?")),
                    None => refusal,
                }
            })
        })
    }

    fn show(&self, value: &T) -> String {
        // A unit variant serializes as its word.
        let word = toml::Value::try_from(value).ok();
        toml_string(word.as_ref().and_then(toml::Value::as_str).unwrap_or_default())
    }
}
