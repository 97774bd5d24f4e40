//! The only code that prints: steps, progress, problems and the address plan, for people or as JSON.

mod address_plan;
mod containers;
mod matrix;
mod progress;
mod services;
mod status;

use crate::diff::{Action, Diff, Step, StepId};
use crate::error::{Blocker, Failure};
use crate::input::problem::{Problem, Severity, Sources};
use crate::state::SUCCESSOR;
use crate::system::docker::{self, Death};
use anstyle::{AnsiColor, Style};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::Write as _;
use std::time::Duration;

pub use address_plan::print as address_plan;
pub use containers::{LogLines, print as containers};
pub use matrix::print as matrix;
pub use progress::{Progress, Waiting};
pub use services::print as services;
pub use status::print as status;

const ERROR: Style = AnsiColor::Red.on_default().bold();
const WARNING: Style = AnsiColor::Yellow.on_default().bold();
const HINT: Style = AnsiColor::Cyan.on_default();
const FAINT: Style = Style::new().dimmed();

/// How to print.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// One object per line on standard output.
    pub json: bool,
    /// Errors only.
    pub quiet: bool,
    /// Causes, times and the plan's warnings too.
    pub verbose: bool,
}

/// A line on standard output. Nobody is left to tell when the reader has gone.
fn out(line: &str) {
    let _ = writeln!(anstream::stdout().lock(), "{line}");
}

fn err(line: &str) {
    let _ = writeln!(anstream::stderr().lock(), "{line}");
}

/// A line of one process of ours for another.
pub fn line(text: &str) {
    out(text);
}

impl Report {
    /// What is wrong with a file, each problem with its place and an excerpt.
    pub fn problems(self, problems: &[Problem], sources: &Sources) {
        for problem in problems {
            let is_error = problem.severity == Severity::Error;
            if self.json {
                let (line, column) = sources.position(&problem.span);
                let event = if is_error { "error" } else { "warning" };
                out(&json!({
                    "event": event, "file": sources.path(&problem.span), "line": line, "column": column,
                    "what": problem.what, "hint": problem.hint,
                })
                .to_string());
            }
            if is_error || !self.quiet {
                err(&problem.render(sources, true));
                err("");
            }
        }
        let errors = problems
            .iter()
            .filter(|problem| problem.severity == Severity::Error)
            .count();
        if errors > 1 {
            let all = problems
                .iter()
                .filter(|problem| problem.severity == Severity::Error);
            let mut files: Vec<&str> = all.map(|problem| sources.path(&problem.span)).collect();
            files.dedup();
            err(&format!("{errors} errors in {}", files.join(", ")));
        }
    }

    /// Why the command did not do what it was asked for.
    pub fn failure(self, failure: &Failure) {
        for Blocker { what, hint, lines } in &failure.blockers {
            if self.json {
                let mut object = json!({ "event": "error", "what": what, "hint": hint });
                if let Some(object) = object.as_object_mut().filter(|_| !lines.is_empty()) {
                    object.insert("log".to_owned(), json!(lines));
                }
                out(&object.to_string());
            }
            err(&format!("{ERROR}error:{ERROR:#} {what}"));
            for line in lines {
                err(&format!("  {FAINT}|{FAINT:#} {line}"));
            }
            err(&format!("{HINT}hint:{HINT:#} {hint}"));
        }
    }

    /// A failure that nobody expected.
    pub fn unexpected(self, error: &anyhow::Error) {
        if self.json {
            let what = format!("{error:#}");
            out(&json!({ "event": "error", "what": what }).to_string());
        }
        err(&format!("{ERROR}error:{ERROR:#} {error:#}"));
    }

    /// What a person should know although it stops nothing.
    pub fn warnings(self, warnings: &[Blocker]) {
        for Blocker { what, hint, .. } in warnings {
            if self.json {
                out(&json!({ "event": "warning", "what": what, "hint": hint }).to_string());
            }
            if !self.quiet {
                err(&format!("{WARNING}warning:{WARNING:#} {what}"));
                err(&format!("{HINT}hint:{HINT:#} {hint}"));
            }
        }
    }

    /// Something that is good to know.
    pub fn note(self, text: &str) {
        if self.json {
            out(&json!({ "event": "note", "what": text }).to_string());
        }
        if !self.quiet {
            err(text);
        }
    }

    /// The steps that would be carried out.
    pub fn dry_run(self, diff: &Diff) {
        let width = diff.steps.len().to_string().len();
        for step in &diff.steps {
            if self.json {
                out(&step_json("step", step).to_string());
            } else if !self.quiet {
                out(&step_line(step, width));
            }
        }
        if !self.quiet && diff.steps.is_empty() {
            err("nothing to do: everything is as planned");
        }
    }

    /// What the Engine did otherwise than it was told.
    fn warned(self, step: &Step, said: &str) {
        let name = step.action.words().name;
        let name = name.trim_end_matches(SUCCESSOR);
        self.warnings(&[Blocker::new(
            format!("the Engine says of container `{name}`: {}", said.trim_end_matches('.')),
            "this machine's kernel does not have what the setting needs; `docker info` shows what is missing",
        )]);
    }

    /// How far a pull is; people without a terminal hear only its begin and its end.
    fn pulling(self, step: &Step, progress: docker::Progress) {
        if self.json {
            let name = step.action.words().name;
            out(&json!({
                "event": "pulling", "id": step.id, "name": name,
                "bytes": progress.done, "total": progress.total,
            })
            .to_string());
        }
    }

    /// A step that may take long begins: a pull, a wait, or what begins with a stop and its grace period.
    pub fn begun(self, step: &Step) {
        let doing = match &step.action {
            Action::Pull { .. } => "pulling",
            Action::StopContainer { .. } => "stopping",
            Action::ReplaceContainer { .. } => "replacing",
            Action::RestartContainer { .. } => "restarting",
            Action::Await { .. } => "waiting for",
            _ => return,
        };
        if self.json {
            out(&step_json("begun", step).to_string());
        }
        if !self.quiet {
            let words = step.action.words();
            err(&format!("{doing} {} {}", words.kind, words.name));
        }
    }

    /// A step that is done.
    pub fn done(self, step: &Step, elapsed: Duration) {
        self.told(step, elapsed, false);
    }

    /// A step that is done, with the time that it took.
    fn done_in(self, step: &Step, elapsed: Duration) {
        self.told(step, elapsed, true);
    }

    fn told(self, step: &Step, elapsed: Duration, is_timed: bool) {
        if self.json {
            let mut object = step_json("done", step);
            if let Some(object) = object.as_object_mut() {
                object.insert("milliseconds".to_owned(), milliseconds(elapsed).into());
            }
            out(&object.to_string());
        }
        // That it stops was said, and that it is removed will be.
        let is_said = matches!(step.action, Action::StopContainer { .. }) && !self.verbose;
        if self.quiet || is_said {
            return;
        }
        let words = step.action.words();
        let mut line = match &step.action {
            Action::Await { .. } if words.detail == "completed" => {
                format!("{} {} has done its work", words.kind, words.name)
            }
            Action::Await { .. } => format!("{} {} is {}", words.kind, words.name, words.done),
            _ => format!("{} {} {}", words.done, words.kind, words.name),
        };
        if !words.detail.is_empty() && (self.verbose || words.done == "set") {
            line = format!("{line}: {}", words.detail);
        }
        let seconds = elapsed.as_secs_f64();
        if self.verbose {
            line = format!("{line} {FAINT}({}; {seconds:.3} s){FAINT:#}", step.cause);
        } else if is_timed {
            line = format!("{line} {FAINT}{seconds:.1}s{FAINT:#}");
        }
        err(&line);
    }

    /// How far a run came that was drawn on a terminal.
    fn sum(self, done: u64, all: u64, elapsed: Duration) {
        let seconds = elapsed.as_secs_f64();
        if done < all {
            err(&format!("{done} of {all} steps in {seconds:.1} s"));
        } else if !self.verbose {
            err(&format!("{all} steps in {seconds:.1} s"));
        }
    }

    /// Containers that `--wait` still waits for.
    fn waiting(self, left: &BTreeSet<String>) {
        if self.json {
            out(&json!({ "event": "waiting", "containers": left }).to_string());
        }
        if !self.quiet {
            let names: Vec<&str> = left.iter().map(String::as_str).collect();
            err(&format!("waiting for {}", names.join(", ")));
        }
    }

    /// The end of a command that worked.
    pub fn finished(self, steps: usize, elapsed: Duration) {
        if self.json {
            out(
                &json!({ "event": "finished", "steps": steps, "milliseconds": milliseconds(elapsed) })
                    .to_string(),
            );
        }
        if self.quiet {
            return;
        }
        if steps == 0 {
            err("nothing to do: everything is as planned");
        } else if self.verbose {
            err(&format!("{steps} steps in {:.1} s", elapsed.as_secs_f64()));
        }
    }

    /// Containers that ended as soon as they were started.
    pub fn deaths(self, deaths: &[Death]) {
        for death in deaths {
            let Death {
                container,
                exit_code,
                restarting,
                log,
            } = death;
            if self.json {
                out(&json!({
                    "event": "died", "container": container, "exit_code": exit_code,
                    "restarting": restarting, "log": log,
                })
                .to_string());
            }
            let again = death.again();
            err(&format!(
                "{ERROR}error:{ERROR:#} container `{container}` ended at once with status {exit_code}{again}"
            ));
            for line in log {
                err(&format!("  {FAINT}|{FAINT:#} {line}"));
            }
            if log.is_empty() {
                err(&format!("  {FAINT}|{FAINT:#} it wrote nothing to its log"));
            }
            err(&format!(
                "{HINT}hint:{HINT:#} `docker logs {container}` shows all of its log; correct the service and run the command again"
            ));
        }
    }
}

fn milliseconds(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

fn step_line(step: &Step, width: usize) -> String {
    let words = step.action.words();
    let colour = match words.sign {
        '+' => AnsiColor::Green.on_default(),
        '-' => AnsiColor::Red.on_default(),
        _ => AnsiColor::Yellow.on_default(),
    };
    let mut line = format!(
        "{:>width$} {colour}{}{colour:#} {} {} {}",
        step.id, words.sign, words.verb, words.kind, words.name
    );
    if !words.detail.is_empty() {
        line = format!("{line}: {}", words.detail);
    }
    let mut why = step.cause.clone();
    let mut after: Vec<StepId> = step.after.iter().chain(&step.after_end).copied().collect();
    after.sort_unstable();
    if !after.is_empty() {
        let after: Vec<String> = after.iter().map(ToString::to_string).collect();
        why = format!("{why}; after {}", after.join(", "));
    }
    format!("{line} {FAINT}({why}){FAINT:#}")
}

fn step_json(event: &str, step: &Step) -> Value {
    let words = step.action.words();
    json!({
        "event": event, "id": step.id, "action": words.verb, "kind": words.kind, "name": words.name,
        "detail": words.detail, "cause": step.cause, "after": step.after,
    })
}

/// The steps as the tests of the diff compare them.
#[cfg(test)]
pub fn plain_steps(diff: &Diff) -> String {
    let width = diff.steps.len().to_string().len();
    let lines = diff.steps.iter().map(|step| step_line(step, width));
    let warnings = diff
        .warnings
        .iter()
        .map(|Blocker { what, hint, .. }| format!("warning: {what}\nhint: {hint}"));
    let text: Vec<String> = lines.chain(warnings).collect();
    anstream::adapter::strip_str(&text.join("\n")).to_string()
}
