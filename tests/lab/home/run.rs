//! What a run of homelab came to, and what a test expects of it.

/// What a run of homelab came to.
pub struct Run {
    pub line: String,
    /// Its exit status.
    pub status: Option<i32>,
    /// What programs read.
    pub stdout: String,
    /// What people read.
    pub stderr: String,
}

impl Run {
    /// The exit status must be this.
    #[track_caller]
    pub fn exits(self, status: i32) -> Self {
        assert_eq!(
            self.status,
            Some(status),
            "homelab {}\n{}{}",
            self.line,
            self.stdout,
            self.stderr
        );
        self
    }

    /// Standard error must contain this.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(
            self.stderr.contains(text),
            "homelab {}: {text:?} is not in\n{}",
            self.line,
            self.stderr
        );
        self
    }
}
