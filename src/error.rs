//! What a person is told that went wrong, each sentence of our own with a hint, and the exit status that goes with it.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Range;

/// How a command ended, as its exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// 0: it did what it was asked for.
    Done,
    /// 1: it failed.
    Failed,
    /// 2: the command line or the file is wrong.
    Usage,
    /// 3: `--dry-run`, `status` or `verify` found a difference.
    Different,
    /// 130: somebody stopped it; 128 and the number of SIGINT, as shells have it.
    Interrupted,
}

impl ExitStatus {
    /// The number that the caller of the program sees.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Different => 3,
            Self::Interrupted => 130,
        }
    }
}

/// Byte positions in all [`Sources`](crate::input::problem::Sources), one behind the other, end excluded.
pub type Span = Range<usize>;

/// Whether a [`Diagnostic`] stops the command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The command cannot go on, or the file cannot be used.
    #[default]
    Error,
    /// It stops nothing, but a person should know.
    Warning,
}

/// Where in a file the offending text stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The text itself.
    pub span: Span,
    /// A few words beside the excerpt.
    pub label: String,
    /// Another place that explains this one, with words beside it.
    pub context: Option<(Span, String)>,
}

/// One thing that a person is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// Whether it stops the command.
    #[serde(default, skip_serializing_if = "Severity::is_error")]
    pub severity: Severity,
    /// What is wrong, with names.
    pub what: String,
    /// What to run or to change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// What somebody else said about it, such as the last lines of a log.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<String>,
    /// Where in a file it is, when it is in one.
    #[serde(skip)]
    pub place: Option<Box<Place>>,
    /// Somebody else was at the same thing, such as the Engine for a run that was killed, and may be done with it soon.
    #[serde(skip)]
    pub is_race: bool,
    /// The parent that the Engine keeps for a network which it does not show, so that no other one can stand on it.
    #[serde(skip)]
    pub kept_parent: Option<String>,
}

impl Severity {
    /// Whether it is [`Severity::Error`].
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
    pub fn is_error(&self) -> bool {
        *self == Self::Error
    }
}

impl Diagnostic {
    /// Something that stops the command, and its cure.
    pub fn error(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            hint: Some(hint.into()),
            ..Self::default()
        }
    }

    /// Something that stops nothing, and what to do about it.
    pub fn warning(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::error(what, hint).into_warning()
    }

    /// An error at a place of a file.
    pub fn error_at(span: Span, what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            place: Some(Box::new(Place {
                span,
                ..Place::default()
            })),
            ..Self::default()
        }
    }

    /// A warning at a place of a file.
    pub fn warning_at(span: Span, what: impl Into<String>) -> Self {
        Self::error_at(span, what).into_warning()
    }

    /// The same where it stops nothing.
    pub fn into_warning(mut self) -> Self {
        self.severity = Severity::Warning;
        self
    }

    /// Adds words beside the excerpt; nothing where it is in no file.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        if let Some(place) = &mut self.place {
            place.label = label.into();
        }
        self
    }

    /// Adds a second place; nothing where it is in no file.
    pub fn context(mut self, span: Span, label: impl Into<String>) -> Self {
        if let Some(place) = &mut self.place {
            place.context = Some((span, label.into()));
        }
        self
    }

    /// Adds what to change or to run.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds what somebody else said about it.
    pub fn lines(mut self, lines: Vec<String>) -> Self {
        self.lines = lines;
        self
    }

    /// Where it is; the start of the first file where it is in none.
    pub fn span(&self) -> Span {
        self.place.as_ref().map_or(0..0, |place| place.span.clone())
    }
}

/// Why a command ends without having done what it was asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct Error {
    /// How the command ends.
    pub status: ExitStatus,
    /// At least one; all that are known at once.
    pub diagnostics: Vec<Diagnostic>,
}

impl Error {
    /// A failure at work.
    pub fn new(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Diagnostic::error(what, hint).into()
    }

    /// A wrong command line or file.
    pub fn usage(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            status: ExitStatus::Usage,
            ..Self::new(what, hint)
        }
    }
}

impl Error {
    /// Whether nothing else failed than what may be otherwise in a moment.
    pub fn is_race(&self) -> bool {
        self.diagnostics.iter().all(|diagnostic| diagnostic.is_race)
    }

    /// The parents that the Engine keeps for networks which it does not show, when nothing else is wrong.
    pub fn kept_parents(&self) -> Option<Vec<String>> {
        let kept = self.diagnostics.iter();
        kept.map(|diagnostic| diagnostic.kept_parent.clone())
            .collect()
    }

    /// The same when it may be otherwise in a moment.
    pub fn into_race(mut self, is_race: bool) -> Self {
        for diagnostic in &mut self.diagnostics {
            diagnostic.is_race = is_race;
        }
        self
    }
}

impl From<Diagnostic> for Error {
    fn from(diagnostic: Diagnostic) -> Self {
        vec![diagnostic].into()
    }
}

impl From<Vec<Diagnostic>> for Error {
    fn from(diagnostics: Vec<Diagnostic>) -> Self {
        Self {
            status: ExitStatus::Failed,
            diagnostics,
        }
    }
}

/// Goes on when there is nothing that stops it.
///
/// # Errors
/// All of them.
pub fn none_of(diagnostics: Vec<Diagnostic>) -> Result<(), Error> {
    if diagnostics.is_empty() {
        Ok(())
    } else {
        Err(diagnostics.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sentences: Vec<&str> = self.diagnostics.iter().map(|d| d.what.as_str()).collect();
        f.write_str(&sentences.join("; "))
    }
}

impl std::error::Error for Error {}

/// Why the text of a file could not be read, to stand behind its name.
pub fn why_unreadable(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::NotFound => "does not exist",
        std::io::ErrorKind::PermissionDenied => "may not be read",
        std::io::ErrorKind::InvalidData => "is not UTF-8 text",
        std::io::ErrorKind::IsADirectory => "is a folder",
        _ => "cannot be read",
    }
}
