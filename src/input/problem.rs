//! What is wrong with a file, where, and what to do about it. Problems are collected while a file becomes a plan and are
//! rendered all at once, in the order of the file.

use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Renderer, Snippet};
use std::ops::Range;

/// Byte positions in all [`Sources`], one behind the other, end excluded.
pub type Span = Range<usize>;

/// The texts that were read: homelab.toml first, then Compose files as they are named. A place in any of them is one number,
/// so that whoever finds a problem need not know the file.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    files: Vec<Source>,
}

#[derive(Clone, Debug)]
struct Source {
    shown: String,
    text: String,
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

    fn at(&self, span: &Span) -> Option<&Source> {
        let at = self.files.iter().rev().find(|file| file.base <= span.start);
        at.or(self.files.first())
    }
}

impl Source {
    fn end(&self) -> usize {
        self.base + self.text.len()
    }

    /// A place within this file's own text.
    fn local(&self, span: &Span) -> Span {
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
    fn visible(&self, span: &Span) -> Span {
        let span = self.local(span);
        let text = self.text.get(span.clone()).unwrap_or("");
        let first = text.split('\n').next().unwrap_or("").trim_end().len();
        span.start..span.start + first
    }
}

/// Problems on their way to the reader.
pub type Problems = Vec<Problem>;

/// Whether a [`Problem`] makes the file unusable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The file cannot be used.
    Error,
    /// The file can be used, but its owner should know.
    Warning,
}

/// One thing that is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where the offending text stands.
    pub span: Span,
    /// Whether it stops the command.
    pub severity: Severity,
    /// The title: what is wrong, with the offending name.
    pub what: String,
    /// A few words beside the excerpt.
    pub label: String,
    /// Another place that explains this one.
    pub context: Option<(Span, String)>,
    /// What to change or to run.
    pub hint: Option<String>,
}

impl Problem {
    /// An error at `span`.
    pub fn error(span: Span, what: impl Into<String>) -> Self {
        Self {
            span,
            severity: Severity::Error,
            what: what.into(),
            label: String::new(),
            context: None,
            hint: None,
        }
    }

    /// A warning at `span`.
    pub fn warning(span: Span, what: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(span, what)
        }
    }

    /// Adds words beside the excerpt.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Adds a second place of the same file.
    pub fn context(mut self, span: Span, label: impl Into<String>) -> Self {
        self.context = Some((span, label.into()));
        self
    }

    /// Adds what to change or to run.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The problem as a person reads it: title, `file:line:column`, excerpt, hint.
    pub fn render(&self, sources: &Sources, colour: bool) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = level.primary_title(self.what.as_str());
        let mut report: Group = title.elements(Vec::<Snippet<'_, Annotation<'_>>>::new());
        if let Some(file) = sources.at(&self.span) {
            let mut snippet = Snippet::source(file.text.as_str())
                .path(file.shown.as_str())
                .annotation(
                    AnnotationKind::Primary
                        .span(file.visible(&self.span))
                        .label(self.label.as_str()),
                );
            let context = self.context.as_ref();
            let context = context.and_then(|(span, label)| Some((sources.at(span)?, span, label)));
            match context {
                Some((other, span, label)) if other.base == file.base => {
                    let context = AnnotationKind::Context.span(file.local(span));
                    snippet = snippet.annotation(context.label(label));
                    report = report.element(snippet);
                }
                Some((other, span, label)) => {
                    let context = AnnotationKind::Context.span(other.visible(span));
                    let other = Snippet::source(other.text.as_str()).path(other.shown.as_str());
                    report = report.element(snippet);
                    report = report.element(other.annotation(context.label(label)));
                }
                None => report = report.element(snippet),
            }
        }
        if let Some(hint) = &self.hint {
            report = report.element(Level::HELP.with_name("hint").message(hint.as_str()));
        }
        let renderer = if colour {
            Renderer::styled()
        } else {
            Renderer::plain()
        };
        renderer.render(&[report])
    }
}

/// Sorts by place, errors first, and drops what was found twice (a service is read once for every environment).
pub fn in_order(mut problems: Vec<Problem>) -> Vec<Problem> {
    problems.sort_by(|a, b| {
        (a.severity, a.span.start, a.span.end, &a.what).cmp(&(
            b.severity,
            b.span.start,
            b.span.end,
            &b.what,
        ))
    });
    problems.dedup_by(|a, b| a.span == b.span && a.what == b.what);
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
