//! Tables: with a frame on a terminal that is wide enough for it, else plain columns. No cell is ever broken: what a
//! person reads, marks or searches for stands on one line.
use std::{
    borrow::Cow,
    io::{self, IsTerminal as _, Write as _},
};

use comfy_table::{ContentArrangement, Table, presets::UTF8_FULL_CONDENSED};

use crate::model::{is_acted_on, printable};

/// Rows of text under a header.
#[derive(Debug)]
pub(crate) struct Rows {
    header: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Rows {
    pub(crate) fn new(header: &[&'static str]) -> Self {
        Self {
            header: header.to_vec(),
            rows: Vec::new(),
        }
    }
    pub(crate) fn push(&mut self, row: Vec<String>) {
        self.rows.push(row);
    }
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// As it suits standard output.
    pub(crate) fn text(&self) -> String {
        if !io::stdout().is_terminal() {
            return self.plain();
        }
        // What the environment says is for terminals that cannot say it themselves, and for tests.
        let said = std::env::var("COLUMNS").ok().and_then(|it| it.parse().ok());
        self.within(said.or_else(|| Table::new().width().map(usize::from)))
    }

    /// As it suits a terminal of so many columns.
    fn within(&self, columns: Option<usize>) -> String {
        let framed = self.framed();
        let width = framed.lines().next().map_or(0, |it| it.chars().count());
        if columns.is_some_and(|columns| width > columns) {
            self.plain()
        } else {
            framed
        }
    }

    fn framed(&self) -> String {
        let mut table = Table::new();
        table
            .load_style(UTF8_FULL_CONDENSED)
            .set_content_arrangement(ContentArrangement::Disabled)
            .set_header(self.header.clone());
        for row in &self.rows {
            table.add_row(row.iter().map(|cell| shown(cell)));
        }
        format!("{table}\n")
    }

    /// Columns three spaces apart, no trailing spaces, no colours: the same bytes every time.
    fn plain(&self) -> String {
        let header = self.header.iter().map(|name| (*name).to_owned()).collect();
        let all: Vec<&Vec<String>> = std::iter::once(&header).chain(&self.rows).collect();
        let widths: Vec<usize> = (0..self.header.len())
            .map(|column| {
                all.iter()
                    .filter_map(|row| row.get(column))
                    .map(|cell| shown(cell).chars().count())
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        let mut text = String::new();
        for row in all {
            let cells: Vec<_> = row
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{:width$}", shown(cell)))
                .collect();
            text.push_str(cells.join("   ").trim_end());
            text.push('\n');
        }
        text
    }
}

/// An empty cell would shift the columns of who reads them by words.
fn shown(cell: &str) -> Cow<'_, str> {
    if cell.is_empty() {
        Cow::Borrowed("-")
    } else {
        printable(cell)
    }
}

/// A text of lines without anything else that a terminal would act on.
pub(crate) fn harmless(text: &str) -> Cow<'_, str> {
    let is_harmful = |character: char| character != '\n' && is_acted_on(character);
    if !text.contains(is_harmful) {
        return Cow::Borrowed(text);
    }
    let written = text.chars().flat_map(|character| {
        let escaped = is_harmful(character).then(|| character.escape_default());
        let plain = escaped.is_none().then_some(character);
        escaped.into_iter().flatten().chain(plain)
    });
    Cow::Owned(written.collect())
}

/// Writes to standard output; a reader that has gone away (`| head`) is no error.
pub(crate) fn print(text: &str) -> io::Result<()> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// A span of time for people: 42s, 3m5s, 2h1m, 4d3h.
pub(crate) fn span(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=7_199 => format!("{}m{}s", seconds / 60, seconds % 60),
        7_200..=172_799 => format!("{}h{}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d{}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_columns_line_up_and_have_no_trailing_spaces() {
        let mut rows = Rows::new(&["NAME", "NODE"]);
        rows.push(vec!["a-long-name".to_owned(), String::new()]);
        rows.push(vec!["b".to_owned(), "node1".to_owned()]);
        assert_eq!(
            rows.plain(),
            "NAME          NODE\na-long-name   -\nb             node1\n"
        );
    }

    #[test]
    fn a_terminal_that_is_too_narrow_gets_plain_columns_and_no_cell_is_broken() {
        let name = "a-rather-long-name-of-a-service-in-a-namespace";
        let mut rows = Rows::new(&["NAME", "NODE"]);
        rows.push(vec![name.to_owned(), "node1".to_owned()]);
        let framed = rows.within(Some(60));
        assert!(framed.starts_with('┌') && framed.contains(name), "{framed}");
        for narrow in [57, 10, 0] {
            assert_eq!(rows.within(Some(narrow)), rows.plain(), "{narrow} columns");
        }
        assert_eq!(rows.within(None), framed, "of a width that nobody knows");
        assert!(rows.plain().contains(name));
    }

    #[test]
    fn names_do_not_reach_the_terminal_as_commands() {
        let mut rows = Rows::new(&["NAME", "NODE"]);
        rows.push(vec!["a\u{1b}[2J\nb".to_owned(), "c\u{9b}d".to_owned()]);
        for text in [rows.plain(), rows.framed()] {
            assert!(text.contains(r"a\u{1b}[2J\nb"), "{text}");
            assert!(text.contains(r"c\u{9b}d"), "{text}");
        }
        assert_eq!(harmless("a\u{1b}[2J\nb\u{7}\n"), "a\\u{1b}[2J\nb\\u{7}\n");
    }

    #[test]
    fn spans_are_short() {
        assert_eq!(span(0), "0s");
        assert_eq!(span(185), "3m5s");
        assert_eq!(span(7_260), "2h1m");
        assert_eq!(span(4 * 86_400 + 3 * 3_600), "4d3h");
    }
}
