//! The lines of `logs`, each with the name of its service in front.

use super::{Report, is_coloured, json_text, raw, visible};
use crate::system::docker::LogPiece;
use anstyle::{AnsiColor, Style};
use serde_json::json;
use std::cell::{Cell, RefCell};
use std::ops::ControlFlow;

/// Lines of several containers. What a container wrote is printed as it is, with its colours, to a terminal and to a pipe: that is
/// what was asked for, and what `docker logs` and `docker compose logs` do. Only the names in front are ours to colour.
pub struct LogLines {
    report: Report,
    has_prefix: bool,
    is_coloured: bool,
    names: Vec<String>,
    width: usize,
    /// Whose line has begun and not ended, and whether that goes to standard error.
    open: RefCell<Option<(String, bool)>>,
    is_closed: Cell<bool>,
}

const COLOURS: [AnsiColor; 6] = [
    AnsiColor::Cyan,
    AnsiColor::Yellow,
    AnsiColor::Green,
    AnsiColor::Magenta,
    AnsiColor::Blue,
    AnsiColor::Red,
];

impl LogLines {
    /// Lines of containers with these names.
    pub fn new(report: Report, names: &[String], has_prefix: bool) -> Self {
        Self {
            report,
            has_prefix,
            is_coloured: is_coloured(),
            names: names.to_vec(),
            width: names
                .iter()
                .map(|name| visible(name).chars().count())
                .max()
                .unwrap_or(0),
            open: RefCell::default(),
            is_closed: Cell::new(false),
        }
    }

    /// Prints a line, or a piece of one; breaks off when nobody reads it.
    pub fn print(&self, name: &str, piece: &LogPiece) -> ControlFlow<()> {
        if !self.is_closed() && raw(&self.text(name, piece)).is_err() {
            self.is_closed.set(true);
        }
        if self.is_closed() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    /// Whether the reader has gone.
    pub fn is_closed(&self) -> bool {
        self.is_closed.get()
    }

    /// Ends a line that was begun.
    pub fn end(&self) {
        if self.open.take().is_some() {
            let _ = raw("\n");
        }
    }

    /// The text for a piece. When somebody else writes while a long line is not at its end, that line is broken there, and its rest
    /// stands behind the name of its service again.
    fn text(&self, name: &str, piece: &LogPiece) -> String {
        let LogPiece {
            is_error,
            text,
            is_end,
        } = piece;
        if self.report.json {
            return json_line(name, piece);
        }
        let next = (!is_end).then(|| (name.to_owned(), *is_error));
        let before = self.open.replace(next);
        let goes_on = before
            .as_ref()
            .is_some_and(|(open, stream)| open == name && stream == is_error);
        let broken = if before.is_some() && !goes_on {
            "\n"
        } else {
            ""
        };
        let prefix = if goes_on {
            String::new()
        } else {
            self.prefix(name)
        };
        let end = if *is_end { "\n" } else { "" };
        format!("{broken}{prefix}{text}{end}")
    }

    fn prefix(&self, name: &str) -> String {
        if !self.has_prefix {
            return String::new();
        }
        let place = self.names.iter().position(|known| known == name);
        let colour = COLOURS.get(place.unwrap_or(0) % COLOURS.len()).copied();
        let style = colour.filter(|_| self.is_coloured);
        let style = style.map_or(Style::new(), AnsiColor::on_default);
        let (name, width) = (visible(name), self.width);
        format!("{style}{name:<width$} |{style:#} ")
    }
}

fn json_line(name: &str, piece: &LogPiece) -> String {
    let LogPiece {
        is_error,
        text,
        is_end,
    } = piece;
    let stream = if *is_error { "stderr" } else { "stdout" };
    let mut line = json!({ "event": "log", "service": name, "stream": stream, "line": text });
    if let Some(line) = line.as_object_mut().filter(|_| !is_end) {
        line.insert("partial".to_owned(), true.into());
    }
    format!("{}\n", json_text(&line))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(has_prefix: bool, is_coloured: bool, json: bool) -> LogLines {
        let report = Report {
            json,
            quiet: false,
            verbose: false,
        };
        let names = ["db".to_owned(), "app-2".to_owned()];
        LogLines {
            is_coloured,
            ..LogLines::new(report, &names, has_prefix)
        }
    }

    /// What is printed for pieces: of whom, and with a `|` at the end when the line goes on.
    fn text(lines: &LogLines, pieces: &[(&str, &str)]) -> String {
        let texts = pieces.iter().map(|(name, text)| {
            let piece = LogPiece {
                is_error: false,
                text: text.trim_end_matches('|').to_owned(),
                is_end: !text.ends_with('|'),
            };
            lines.text(name, &piece)
        });
        texts.collect()
    }

    #[test]
    fn the_colours_of_containers_stay_when_ours_go() {
        let red = "\u{1b}[31mred\u{1b}[0m";
        assert_eq!(
            text(&lines(true, false, false), &[("db", red)]),
            format!("db    | {red}\n")
        );
        assert_eq!(
            text(&lines(true, true, false), &[("db", red)]),
            format!("\u{1b}[36mdb    |\u{1b}[0m {red}\n")
        );
    }

    #[test]
    fn a_long_line_has_one_name_and_one_end() {
        let pieces = [("db", "a|"), ("db", "b|"), ("db", "c"), ("db", "d")];
        let lines = |has_prefix| lines(has_prefix, false, false);
        assert_eq!(text(&lines(true), &pieces), "db    | abc\ndb    | d\n");
        assert_eq!(text(&lines(false), &pieces), "abc\nd\n");
    }

    #[test]
    fn nobody_writes_into_the_line_of_another() {
        let pieces = [
            ("db", "a|"),
            ("app-2", "x"),
            ("db", "b|"),
            ("app-2", "y|"),
            ("db", "c"),
            ("app-2", "z"),
        ];
        assert_eq!(
            text(&lines(true, false, false), &pieces),
            "db    | a\napp-2 | x\ndb    | b\napp-2 | y\ndb    | c\napp-2 | z\n"
        );
    }

    #[test]
    fn an_object_says_whether_its_line_goes_on() {
        assert_eq!(
            text(&lines(true, true, true), &[("db", "a|"), ("db", "b")]),
            "{\"event\":\"log\",\"line\":\"a\",\"partial\":true,\"service\":\"db\",\"stream\":\"stdout\"}\n\
             {\"event\":\"log\",\"line\":\"b\",\"service\":\"db\",\"stream\":\"stdout\"}\n"
        );
    }
}
