//! An expected failure: sentences of our own, each with a hint, and the exit status that goes with them.

use std::fmt;

/// The command did what it was asked for.
pub const DONE: u8 = 0;
/// The command failed.
pub const FAILED: u8 = 1;
/// The command line or the file is wrong.
pub const USAGE: u8 = 2;
/// Somebody stopped it: 128 and the number of SIGINT, as shells have it.
pub const INTERRUPTED: u8 = 130;
/// `--dry-run`, `status` or `verify` found a difference.
pub const DIFFERENT: u8 = 3;

/// One reason why something cannot be done.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Blocker {
    /// What is wrong, with names.
    pub what: String,
    /// What to run or to change.
    pub hint: String,
    /// What somebody else said about it, such as the last lines of a log.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<String>,
}

impl Blocker {
    /// A reason and its cure.
    pub fn new(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            hint: hint.into(),
            lines: Vec::new(),
        }
    }
}

/// Why a command ends without having done what it was asked for.
#[derive(Debug)]
pub struct Failure {
    /// [`FAILED`] or [`USAGE`].
    pub status: u8,
    /// At least one; all that are known at once.
    pub blockers: Vec<Blocker>,
}

impl Failure {
    /// A failure at work.
    pub fn new(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Blocker::new(what, hint).into()
    }

    /// A wrong command line or file.
    pub fn usage(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            status: USAGE,
            ..Self::new(what, hint)
        }
    }
}

impl From<Blocker> for Failure {
    fn from(blocker: Blocker) -> Self {
        vec![blocker].into()
    }
}

impl From<Vec<Blocker>> for Failure {
    fn from(blockers: Vec<Blocker>) -> Self {
        Self {
            status: FAILED,
            blockers,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sentences: Vec<&str> = self.blockers.iter().map(|b| b.what.as_str()).collect();
        f.write_str(&sentences.join("; "))
    }
}

impl std::error::Error for Failure {}

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
