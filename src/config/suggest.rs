//! The nearest known word for one that is not known.

/// How alike two words must be (Jaro-Winkler, 0 to 1) for one to be meant by the other. A part of a word is meant to be
/// the word.
const ALIKE: f64 = 0.83;

/// The word of `known` that was most likely meant by `found`.
pub(crate) fn nearest<'a>(found: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let found = plain(found);
    let likeness = |word: &str| {
        let word = plain(word);
        let part = found.len() >= 4 && word.contains(found.as_str());
        if part {
            1.0
        } else {
            strsim::jaro_winkler(&found, &word)
        }
    };
    known
        .into_iter()
        .map(|word| (likeness(word), word))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, word)| word)
}

/// Without what people mix up: case, `-` and `_`.
fn plain(word: &str) -> String {
    word.to_lowercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_slip_of_the_finger_finds_its_word() {
        let known = ["address", "backlog", "max_connections"];
        assert_eq!(nearest("adress", known), Some("address"));
        assert_eq!(nearest("max-connection", known), Some("max_connections"));
        assert_eq!(nearest("BACKLOG", known), Some("backlog"));
        assert_eq!(nearest("connections", known), Some("max_connections"));
    }

    #[test]
    fn a_different_word_finds_none() {
        assert_eq!(nearest("threads", ["address", "backlog"]), None);
        assert_eq!(nearest("", ["address"]), None);
    }
}
