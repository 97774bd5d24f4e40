//! What is wrong with a file, where, and what to do about it. Problems are collected while a file becomes a plan and are
//! rendered all at once, in the order of the file.

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use std::ops::Range;

/// Byte positions in the text of a file, end excluded.
pub type Span = Range<usize>;

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

    /// Line and column, both from 1, of the problem in `source`; columns count characters.
    pub fn position(&self, source: &str) -> (usize, usize) {
        let before = source.get(..self.span.start).unwrap_or(source);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        (line, column)
    }

    /// The problem as a person reads it: title, `file:line:column`, excerpt, hint.
    pub fn render(&self, source: &str, path: &str, colour: bool) -> String {
        let mut snippet = Snippet::source(source).path(path).annotation(
            AnnotationKind::Primary
                .span(self.visible(source))
                .label(self.label.as_str()),
        );
        if let Some((span, label)) = &self.context {
            snippet = snippet.annotation(AnnotationKind::Context.span(span.clone()).label(label));
        }
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut report: Group = level.primary_title(self.what.as_str()).element(snippet);
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

    /// The part of the span that lies on its first line: a whole table would bury the message.
    fn visible(&self, source: &str) -> Span {
        let text = source.get(self.span.clone()).unwrap_or("");
        let first = text.split('\n').next().unwrap_or("").trim_end().len();
        self.span.start..self.span.start + first
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
        let source = "a = 1\nü = \"x\"\n";
        let at = source.find("\"x\"").unwrap_or_default();
        assert_eq!(Problem::error(at..at + 3, "x").position(source), (2, 5));
    }
}
