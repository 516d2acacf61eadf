//! What the machine says on the commands' line: text for a person, and marked lines for us.

use std::time::Duration;

/// What marked lines begin with; `tests/src/bin/init.rs` writes them.
const MARK: &str = "[waggle-vm] ";

/// One line, understood.
#[derive(Debug, PartialEq)]
pub(crate) enum Line<'a> {
    /// The machine is up; the release of its kernel.
    ReachedInit(&'a str),
    /// The n-th command (from 1) begins.
    Begins(usize),
    /// The n-th command ended with this status after this time.
    Exited(usize, i32, Duration),
    /// The last word: 0, or the status of the first command that failed.
    Verdict(i32),
    /// Something about the machine itself, for a person.
    Notice(&'a str),
    /// What a command printed.
    Text(&'a str),
}

/// Understands one line, given without its end.
pub(crate) fn parse(line: &str) -> Line<'_> {
    // A command that printed no last newline leaves its text in front of the mark.
    let Some((_, marked)) = line.split_once(MARK) else {
        return Line::Text(line);
    };
    understand(marked).unwrap_or(Line::Notice(marked))
}

fn understand(marked: &str) -> Option<Line<'_>> {
    if let Some(release) = marked.strip_prefix("reached init on Linux ") {
        return Some(Line::ReachedInit(release));
    }
    if let Some(status) = marked.strip_prefix("verdict ") {
        return Some(Line::Verdict(status.parse().ok()?));
    }
    let words: Vec<&str> = marked.strip_prefix("command ")?.split(' ').collect();
    match words.as_slice() {
        [number, "begins"] => Some(Line::Begins(number.parse().ok()?)),
        [number, "exited", status, "after", seconds, "s"] => Some(Line::Exited(
            number.parse().ok()?,
            status.parse().ok()?,
            Duration::try_from_secs_f64(seconds.parse().ok()?).ok()?,
        )),
        _ => None,
    }
}

/// Cuts what arrives in pieces into whole lines, without their ends.
#[derive(Default)]
pub(crate) struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    /// Takes a piece; gives the lines that it completes.
    pub(crate) fn push(&mut self, piece: &[u8]) -> Vec<String> {
        self.rest.extend_from_slice(piece);
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else {
            return Vec::new();
        };
        let whole: Vec<u8> = self.rest.drain(..=end).collect();
        let text = String::from_utf8_lossy(&whole);
        text.lines()
            .map(|line| line.trim_end_matches('\r').to_owned())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marked_lines_are_understood() {
        assert_eq!(parse("[waggle-vm] verdict 0"), Line::Verdict(0));
        assert_eq!(parse("[waggle-vm] verdict -6"), Line::Verdict(-6));
        assert_eq!(
            parse("[waggle-vm] reached init on Linux 6.1.0-50-cloud-amd64"),
            Line::ReachedInit("6.1.0-50-cloud-amd64")
        );
        assert_eq!(parse("[waggle-vm] command 2 begins"), Line::Begins(2));
        assert_eq!(
            parse("[waggle-vm] command 2 exited 101 after 2.5 s"),
            Line::Exited(2, 101, Duration::from_millis(2500))
        );
        assert_eq!(
            parse("[waggle-vm] module x did not load"),
            Line::Notice("module x did not load")
        );
    }

    #[test]
    fn text_of_commands_is_never_a_verdict() {
        assert_eq!(parse("verdict 0"), Line::Text("verdict 0"));
        assert_eq!(
            parse("[waggle-vm] verdict zero"),
            Line::Notice("verdict zero")
        );
        assert_eq!(parse(""), Line::Text(""));
    }

    #[test]
    fn mark_behind_an_unfinished_line_counts() {
        assert_eq!(parse("half a line[waggle-vm] verdict 3"), Line::Verdict(3));
    }

    #[test]
    fn pieces_become_lines() {
        let mut lines = Lines::default();
        assert!(lines.push(b"one").is_empty());
        assert_eq!(lines.push(b" two\r\nthree\nfo"), ["one two", "three"]);
        assert_eq!(lines.push(b"ur\n"), ["four"]);
    }
}
