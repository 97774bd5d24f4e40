//! The texts that were read and the places in them, and what is done with the problems that are found there: they are collected
//! while a file becomes a plan and are told all at once, in the order of the file.

use crate::error::Diagnostic;
pub use crate::error::Span;

/// The texts that were read: homelab.toml first, then Compose files as they are named. A place in any of them is one number,
/// so that whoever finds a problem need not know the file.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    files: Vec<Source>,
}

/// One of the texts.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its path, as it was given.
    pub shown: String,
    /// All of it.
    pub text: String,
    base: usize,
}

impl Sources {
    /// homelab.toml, or whatever is read first.
    pub fn new(shown: impl Into<String>, text: impl Into<String>) -> Self {
        let mut sources = Self::default();
        sources.add(shown, text);
        sources
    }

    /// Adds a text, once for each path; returns the position of its first byte.
    pub fn add(&mut self, shown: impl Into<String>, text: impl Into<String>) -> usize {
        let (shown, text) = (shown.into(), text.into());
        if let Some(known) = self.files.iter().find(|file| file.shown == shown) {
            return known.base;
        }
        // One byte between two files, so that the end of one is not the start of the next.
        let base = self.files.last().map_or(0, |file| file.end() + 1);
        self.files.push(Source { shown, text, base });
        base
    }

    /// Line and column, both from 1; columns count characters.
    pub fn position(&self, span: &Span) -> (usize, usize) {
        self.at(span).map_or((1, 1), |file| file.position(span))
    }

    /// The path of the file that a place is in, as it was given.
    pub fn path(&self, span: &Span) -> &str {
        self.at(span).map_or("", |file| file.shown.as_str())
    }

    /// The text that a place is in.
    pub fn at(&self, span: &Span) -> Option<&Source> {
        let at = self.files.iter().rev().find(|file| file.base <= span.start);
        at.or(self.files.first())
    }
}

impl Source {
    /// Whether two places' texts are one.
    pub fn is_same(&self, other: &Self) -> bool {
        self.base == other.base
    }

    fn end(&self) -> usize {
        self.base + self.text.len()
    }

    /// A place within this file's own text.
    pub fn local(&self, span: &Span) -> Span {
        let inside = |at: usize| {
            let mut at = at.saturating_sub(self.base).min(self.text.len());
            while !self.text.is_char_boundary(at) {
                at -= 1;
            }
            at
        };
        let start = inside(span.start);
        start..inside(span.end).max(start)
    }

    fn position(&self, span: &Span) -> (usize, usize) {
        let before = self.text.get(..self.local(span).start).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        (line, column)
    }

    /// The part of a place that lies on its first line: a whole table would bury the message.
    pub fn visible(&self, span: &Span) -> Span {
        let span = self.local(span);
        let text = self.text.get(span.clone()).unwrap_or("");
        let first = text.split('\n').next().unwrap_or("").trim_end().len();
        span.start..span.start + first
    }
}

/// Problems of files on their way to the reader.
pub type Problems = Vec<Diagnostic>;

/// Sorts by place, errors first, and drops what was found twice (a service is read once for every environment).
pub fn in_order(mut problems: Problems) -> Problems {
    let key = |problem: &Diagnostic| {
        let Span { start, end } = problem.span();
        (problem.severity, start, end, problem.what.clone())
    };
    problems.sort_by_key(key);
    problems.dedup_by(|a, b| a.span() == b.span() && a.what == b.what);
    problems
}

/// The known name nearest to `name`, when one is near enough to be a slip of the fingers.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.len().max(name.len()).div_ceil(3))
        .min()
        .map(|(_, candidate)| candidate)
}

/// A hint for a name that is none of `known`: the nearest one, else all of them; `kind` says what they are.
pub fn suggestion<'a>(
    name: &str,
    known: impl IntoIterator<Item = &'a str> + Clone,
    kind: &str,
) -> String {
    if let Some(near) = nearest(name, known.clone()) {
        return format!("did you mean `{near}`?");
    }
    let known: Vec<String> = known.into_iter().map(|name| format!("`{name}`")).collect();
    format!("the {kind} are {}", known.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_takes_slips_and_refuses_strangers() {
        assert_eq!(nearest("gatway", ["gateway", "subnet"]), Some("gateway"));
        assert_eq!(nearest("prd", ["prod", "preprod"]), Some("prod"));
        assert_eq!(nearest("zebra", ["gateway", "subnet"]), None);
    }

    #[test]
    fn positions_count_lines_and_characters_from_one() {
        let (first, second) = ("a = 1\nü = \"x\"\n", "b: 2\nc: 3\n");
        let mut sources = Sources::new("one", first);
        let base = sources.add("two", second);
        let at = first.find("\"x\"").unwrap_or_default();
        assert_eq!(sources.position(&(at..at + 3)), (2, 5));
        assert_eq!(sources.path(&(at..at + 3)), "one");
        assert_eq!(sources.position(&(base + 5..base + 6)), (2, 1));
        assert_eq!(sources.path(&(base + 5..base + 6)), "two");
        assert_eq!(sources.add("two", second), base);
    }
}
