//! Which plan the shim's service keeps: that of homelab.toml, or of the last one that was right where that is missing or wrong.
//!
//! It reads the file once, when it starts: a person who changes the plan has `network-up` ask the LAN for a new address of the shim
//! first, and that restarts the service. While the file is not right it is read again each second, as nobody can run
//! `network-up` with it; when it is right again, what follows is what a start with it would have come to.

use super::host_of;
use super::load::PlanFile;
use crate::cli::Global;
use crate::error::{Diagnostic, Error};
use crate::input::problem::{Problems, Sources};
use crate::plan::unit_files::HIDDEN_FOLDERS;
use crate::plan::{Host, Plan, Services};
use crate::report::Report;
use crate::state::State;
use crate::system::plan_copy::PlanCopy;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;
use tokio::time::Instant;

/// How long the service goes on with a folder that it cannot see into. Longer than Docker waits for it at boot.
const VIEW_TIME: Duration = Duration::from_secs(120);

/// A plan that can be kept.
pub(super) struct ServicePlan {
    pub(super) plan: Plan,
    pub(super) host: Host,
}

impl ServicePlan {
    /// The names of the shims that the host has by it.
    pub(super) fn shims(&self) -> impl Iterator<Item = String> {
        self.plan.shims(&self.host).map(|shim| shim.name)
    }
}

/// Why a file is not one that the service can keep.
struct Refusal {
    /// In one sentence.
    what: String,
    /// What is wrong, where that has places in the file.
    problems: Problems,
    sources: Sources,
}

/// homelab.toml and its copy.
pub(super) struct PlanSource<'a> {
    global: &'a Global,
    report: Report,
    /// The copy; `None` where a person runs this.
    copy: Option<PlanCopy>,
    /// What was read last.
    found: Result<PlanFile, Error>,
    /// That was looked at: what is done about it is done.
    is_judged: bool,
    /// Why the file is not what is kept; `None` when it is.
    refused: Option<String>,
    /// There is a plan to go on with all the same.
    has_copy: bool,
    /// From when on this process has seen what it sees of the file's folder.
    since: Instant,
}

/// What came of another look at a file that was not right.
pub(super) enum Poll {
    /// Nothing new.
    Same,
    /// It is wrong in another way.
    Refused,
    /// It is right.
    Right(Box<ServicePlan>),
    /// It cannot be seen from here, but by a process that systemd starts anew.
    OutOfView,
}

impl<'a> PlanSource<'a> {
    /// Reads the file, else the copy. Returns the plan to keep; none when there is none yet.
    ///
    /// # Errors
    /// When a person runs this, and the file is not right: there is no copy then. In the second place, when what is wrong was told.
    pub(super) fn open(
        global: &'a Global,
        report: Report,
        links: &State,
    ) -> Result<(Self, Option<ServicePlan>), Option<Error>> {
        let mut source = Self {
            global,
            report,
            copy: PlanCopy::of_this_service(),
            found: PlanFile::read(global),
            is_judged: true,
            refused: None,
            has_copy: false,
            since: Instant::now(),
        };
        let refusal = match source.judge(links) {
            Ok(kept) => return Ok((source, Some(kept))),
            Err(refusal) => refusal,
        };
        let Some(copy) = &source.copy else {
            if refusal.problems.is_empty() {
                return Err(Some(Error::usage(refusal.what, HINT)));
            }
            report.diagnostics(&refusal.problems, &refusal.sources);
            return Err(None);
        };
        let text = copy.text();
        let kept = text.and_then(|text| source.compile_copy(text, links));
        source.has_copy = kept.is_some();
        source.refuse(refusal);
        Ok((source, kept))
    }

    /// Why the file is not what is kept.
    pub(super) fn refused(&self) -> Option<&str> {
        self.refused.as_deref()
    }

    /// What is waited for where there is no plan at all.
    pub(super) fn missing(&self) -> Diagnostic {
        let what = self.refused().unwrap_or("there is no plan");
        Diagnostic::error(
            format!("{what}, and there is no earlier plan to go on with"),
            HINT,
        )
    }

    /// Reads the file again.
    pub(super) fn poll(&mut self, links: &State) -> Poll {
        if self.is_out_of_view() {
            return Poll::OutOfView;
        }
        let found = PlanFile::read(self.global);
        if found != self.found {
            // Somebody may be at it: it counts when it is the same at the next look.
            (self.found, self.is_judged) = (found, false);
            return Poll::Same;
        }
        if self.is_judged {
            return Poll::Same;
        }
        self.is_judged = true;
        match self.judge(links) {
            Ok(kept) => {
                self.refused = None;
                Poll::Right(Box::new(kept))
            }
            Err(refusal) => {
                self.refuse(refusal);
                Poll::Refused
            }
        }
    }

    /// The plan of what was read, which becomes the copy.
    fn judge(&self, links: &State) -> Result<ServicePlan, Refusal> {
        let file = self.found.as_ref().map_err(Refusal::from)?;
        let kept = self.compile(file, links)?;
        if let Some(copy) = &self.copy
            && let Err(error) = copy.keep(file.text())
        {
            // The shim does not depend on it.
            let warnings = error.diagnostics.into_iter();
            let warnings: Vec<Diagnostic> = warnings.map(Diagnostic::into_warning).collect();
            self.report.warnings(&warnings);
        }
        Ok(kept)
    }

    fn compile(&self, file: &PlanFile, links: &State) -> Result<ServicePlan, Refusal> {
        let mut sources = file.sources();
        // The service has no right to read what Compose files name.
        match file.compile(Services::LeftOut, &mut sources) {
            Ok((plan, _)) => match host_of(&plan, self.global, links).cloned() {
                Ok(host) => Ok(ServicePlan { plan, host }),
                Err(error) => Err(Refusal::from(&error)),
            },
            Err(problems) => Err(Refusal {
                what: format!("`{}` is wrong", file.absolute().display()),
                problems,
                sources,
            }),
        }
    }

    /// The plan of the copy. That is compiled as if it stood where homelab.toml does.
    fn compile_copy(&self, text: String, links: &State) -> Option<ServicePlan> {
        let path = self.global.config.clone()?;
        self.compile(&PlanFile::with_text(path, text), links).ok()
    }

    /// Says what is wrong, and what is done about it.
    fn refuse(&mut self, refusal: Refusal) {
        let Refusal {
            what,
            problems,
            sources,
        } = refusal;
        self.report.diagnostics(&problems, &sources);
        if self.has_copy {
            self.report.warnings(&[Diagnostic::warning(
                format!("{what}; the shim is kept by the last plan that was right"),
                HINT,
            )]);
        }
        self.refused = Some(what);
    }

    /// Of a folder that is hidden from the service it sees the one file that was there when it was started: not one that took its
    /// place, and not one that came later.
    fn is_out_of_view(&self) -> bool {
        let Some(path) = self.global.config.as_ref().filter(|_| self.copy.is_some()) else {
            return false;
        };
        if !HIDDEN_FOLDERS.iter().any(|folder| path.starts_with(folder)) {
            return false;
        }
        match std::fs::metadata(path) {
            Ok(found) => found.nlink() == 0,
            Err(_) => self.since.elapsed() > VIEW_TIME,
        }
    }
}

const HINT: &str =
    "correct the file, `homelab check` tells what is wrong with it; the service follows by itself";

impl From<&Error> for Refusal {
    fn from(error: &Error) -> Self {
        Self {
            what: error.to_string(),
            problems: Problems::new(),
            sources: Sources::default(),
        }
    }
}
