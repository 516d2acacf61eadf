//! Text from outside as it may be shown: names come from files that anybody may have written.
use std::{borrow::Cow, fmt::Write as _};

/// Of a single text no more is shown: a name of a megabyte is somebody's mistake.
const LONGEST: usize = 1_000;

/// The text without what a terminal would act on, and without line ends, which would forge lines of a log: control
/// characters are written as in `\u{1b}`, and so is what turns the direction of writing. The rest of a very long text is
/// left out.
pub fn printable(text: &str) -> Cow<'_, str> {
    if text.len() <= LONGEST && !text.chars().any(is_acted_on) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::new();
    for character in text.chars() {
        if shown.len() >= LONGEST {
            shown.push_str("...");
            break;
        }
        if is_acted_on(character) {
            write!(shown, "{}", character.escape_default()).unwrap_or_default();
        } else {
            shown.push(character);
        }
    }
    Cow::Owned(shown)
}

/// Control characters (ISO 6429), line and paragraph separators, and the marks that turn the direction of writing
/// (Unicode Standard Annex 9).
pub fn is_acted_on(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_act_on_is_written_out() {
        for (text, shown) in [
            ("web", "web"),
            ("größe 日本", "größe 日本"),
            ("a\u{1b}[2Jb", "a\\u{1b}[2Jb"),
            ("a\nb\tc\r", "a\\nb\\tc\\r"),
            ("a\u{9b}31m", "a\\u{9b}31m"),
            ("a\u{202e}b", "a\\u{202e}b"),
        ] {
            assert_eq!(printable(text), shown);
        }
        let long = printable(&"é".repeat(10_000)).into_owned();
        assert_eq!(long, format!("{}...", "é".repeat(500)));
    }
}
