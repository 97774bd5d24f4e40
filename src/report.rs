//! The only code that prints: steps, progress, problems and the address plan, for people or as JSON.

mod address_plan;
mod containers;
mod diagnostic;
mod line;
mod log_lines;
mod matrix;
mod progress;
#[cfg(test)]
mod screen;
mod services;
mod status;
mod table;
#[cfg(test)]
mod tests;

use crate::diff::step::{Action, ContainerAction};
use crate::diff::{Diff, Step, StepId};
use crate::error::{Diagnostic, Error, Place, Severity};
use crate::input::problem::Sources;
use crate::plan::naming::succeeds;
use crate::state::ContainerExit;
use crate::system::docker::PullProgress;
use anstyle::{AnsiColor, Style};
use line::{Line, json_text};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::Write as _;
use std::time::Duration;

pub use address_plan::print as address_plan;
pub use containers::print as containers;
pub use line::visible;
pub use log_lines::LogLines;
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
fn out(line: impl Into<Line>) {
    let line = line.into();
    #[cfg(test)]
    screen::keep("out", &line.to_string());
    if cfg!(not(test)) {
        let _ = writeln!(anstream::stdout().lock(), "{line}");
    }
}

fn err(line: impl Into<Line>) {
    err_rendered(&line.into().to_string());
}

/// Lines that have their styles.
fn err_rendered(lines: &str) {
    #[cfg(test)]
    screen::keep("err", lines);
    if cfg!(not(test)) {
        let _ = writeln!(anstream::stderr().lock(), "{lines}");
    }
}

/// An object on standard output, in a line of its own.
fn print_object(object: &Value) {
    let _ = raw(&format!("{}\n", json_text(object)));
}

/// Text on standard output as it is, colours of others included.
///
/// # Errors
/// When nobody reads it.
fn raw(text: &str) -> std::io::Result<()> {
    #[cfg(test)]
    screen::keep("out", text.strip_suffix('\n').unwrap_or(text));
    if cfg!(test) {
        return Ok(());
    }
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Whether standard output takes colours: it is a terminal, and neither `NO_COLOR` nor `TERM` is against them.
fn is_coloured() -> bool {
    anstream::AutoStream::choice(&std::io::stdout()) != anstream::ColorChoice::Never
}

/// A line of one process of ours for another.
pub fn line(text: &str) {
    let _ = raw(&format!("{text}\n"));
}

impl Report {
    /// What is wrong, each thing with its place and an excerpt when it is in a file.
    pub fn diagnostics(self, diagnostics: &[Diagnostic], sources: &Sources) {
        for diagnostic in diagnostics {
            match &diagnostic.place {
                Some(place) => self.problem(diagnostic, place, sources),
                None => self.diagnostic(diagnostic),
            }
        }
        let in_files = diagnostics.iter().filter(|d| d.severity.is_error());
        let places: Vec<&Place> = in_files.filter_map(|d| d.place.as_deref()).collect();
        if places.len() > 1 {
            let mut files: Vec<&str> = places.iter().map(|p| sources.path(&p.span)).collect();
            files.dedup();
            err(format!("{} errors in {}", places.len(), files.join(", ")));
        }
    }

    fn problem(self, problem: &Diagnostic, place: &Place, sources: &Sources) {
        let is_error = problem.severity.is_error();
        if self.json {
            let (line, column) = sources.position(&place.span);
            let event = if is_error { "error" } else { "warning" };
            print_object(&json!({
                "event": event, "file": sources.path(&place.span), "line": line, "column": column,
                "what": problem.what, "hint": problem.hint,
            }));
        }
        if is_error || !self.quiet {
            err_rendered(&diagnostic::render(problem, place, sources, true));
            err("");
        }
    }

    /// What is wrong, in no file.
    fn diagnostic(self, diagnostic: &Diagnostic) {
        let Diagnostic {
            severity,
            what,
            hint,
            lines,
            place: _,
            is_race: _,
            kept_parent: _,
        } = diagnostic;
        let (event, style) = match severity {
            Severity::Error => ("error", ERROR),
            Severity::Warning => ("warning", WARNING),
        };
        if self.json {
            let mut object = json!({ "event": event, "what": what, "hint": hint });
            if let Some(object) = object.as_object_mut().filter(|_| !lines.is_empty()) {
                object.insert("log".to_owned(), json!(lines));
            }
            print_object(&object);
        }
        if self.quiet && !severity.is_error() {
            return;
        }
        err(Line::headed(style, &format!("{event}:"), what));
        for line in lines {
            err(Line::of_log(line));
        }
        if let Some(hint) = hint {
            err(Line::headed(HINT, "hint:", hint));
        }
    }

    /// Why the command did not do what it was asked for.
    pub fn error(self, error: &Error) {
        self.warnings(&error.diagnostics);
    }

    /// What a person should know, in no file.
    pub fn warnings(self, diagnostics: &[Diagnostic]) {
        for diagnostic in diagnostics {
            self.diagnostic(diagnostic);
        }
    }

    /// A failure that nobody expected.
    pub fn unexpected(self, error: &anyhow::Error) {
        if self.json {
            let what = format!("{error:#}");
            print_object(&json!({ "event": "error", "what": what }));
        }
        err(Line::headed(ERROR, "error:", &format!("{error:#}")));
    }

    /// Something that is good to know.
    pub fn note(self, text: &str) {
        if self.json {
            print_object(&json!({ "event": "note", "what": text }));
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
                print_object(&step_json("step", step));
            } else if !self.quiet {
                out(step_line(step, width));
            }
        }
        if !self.quiet && diff.steps.is_empty() && diff.errors.is_empty() {
            err("nothing to do: everything is as planned");
        }
    }

    /// What the Engine did otherwise than it was told.
    fn warned(self, step: &Step, said: &str) {
        let name = step.action.text().name;
        let name = succeeds(&name).unwrap_or(&name);
        self.warnings(&[Diagnostic::warning(
            format!("the Engine says of container `{name}`: {}", said.trim_end_matches('.')),
            "this machine's kernel does not have what the setting needs; `docker info` shows what is missing",
        )]);
    }

    /// How far a pull is; people without a terminal hear only its begin and its end.
    fn pulling(self, step: &Step, progress: PullProgress) {
        if self.json {
            let name = step.action.text().name;
            print_object(&json!({
                "event": "pulling", "id": step.id, "name": name,
                "bytes": progress.done, "total": progress.total,
            }));
        }
    }

    /// A step that may take long begins: a pull, a wait, or what begins with a stop and its grace period.
    pub fn begun(self, step: &Step) {
        let Some(doing) = step.action.announcement() else {
            return;
        };
        if self.json {
            print_object(&step_json("begun", step));
        }
        if !self.quiet {
            let text = step.action.text();
            err(format!("{doing} {} {}", text.kind, text.name));
        }
    }

    /// A step that is done.
    pub fn done(self, step: &Step, elapsed: Duration) {
        self.step_done(step, elapsed, false);
    }

    /// A step that is done, with the time that it took.
    fn done_in(self, step: &Step, elapsed: Duration) {
        self.step_done(step, elapsed, true);
    }

    fn step_done(self, step: &Step, elapsed: Duration, is_timed: bool) {
        if self.json {
            let mut object = step_json("done", step);
            if let Some(object) = object.as_object_mut() {
                object.insert("milliseconds".to_owned(), milliseconds(elapsed).into());
            }
            print_object(&object);
        }
        // That it stops was said, and that it is removed will be.
        let stops = matches!(step.action, Action::Container(ContainerAction::Stop { .. }));
        if self.quiet || (stops && !self.verbose) {
            return;
        }
        let text = step.action.text();
        let mut line = Line::from(step.action.done_sentence());
        if !text.detail.is_empty() && (self.verbose || text.done == "set") {
            line = line.text(format!(": {}", text.detail));
        }
        let seconds = elapsed.as_secs_f64();
        if self.verbose {
            let why = format!("({}; {seconds:.3} s)", step.cause);
            line = line.text(" ").styled(FAINT, why);
        } else if is_timed {
            line = line.text(" ").styled(FAINT, format!("{seconds:.1}s"));
        }
        err(line);
    }

    /// How far a run came that was drawn on a terminal.
    fn sum(self, done: u64, all: u64, elapsed: Duration) {
        let seconds = elapsed.as_secs_f64();
        if done < all {
            err(format!("{done} of {all} steps in {seconds:.1} s"));
        } else if !self.verbose {
            err(format!("{all} steps in {seconds:.1} s"));
        }
    }

    /// Containers that `--wait` still waits for.
    fn waiting(self, left: &BTreeSet<String>) {
        if self.json {
            print_object(&json!({ "event": "waiting", "containers": left }));
        }
        if !self.quiet {
            let names: Vec<&str> = left.iter().map(String::as_str).collect();
            err(format!("waiting for {}", names.join(", ")));
        }
    }

    /// The end of a command that worked.
    pub fn finished(self, steps: usize, elapsed: Duration) {
        if self.json {
            print_object(
                &json!({ "event": "finished", "steps": steps, "milliseconds": milliseconds(elapsed) }),
            );
        }
        if self.quiet {
            return;
        }
        if steps == 0 {
            err("nothing to do: everything is as planned");
        } else if self.verbose {
            err(format!("{steps} steps in {:.1} s", elapsed.as_secs_f64()));
        }
    }

    /// Containers that ended as soon as they were started.
    pub fn exits(self, exits: &[ContainerExit]) {
        for exit in exits {
            let ContainerExit {
                container,
                exit_code,
                restarting,
                log,
            } = exit;
            if self.json {
                print_object(&json!({
                    "event": "died", "container": container, "exit_code": exit_code,
                    "restarting": restarting, "log": log,
                }));
            }
            let again = exit.again();
            let what =
                format!("container `{container}` ended at once with status {exit_code}{again}");
            err(Line::headed(ERROR, "error:", &what));
            for line in log {
                err(Line::of_log(line));
            }
            if log.is_empty() {
                err(Line::below("it wrote nothing to its log"));
            }
            let hint = format!(
                "`docker logs {container}` shows all of its log; correct the service and run the command again"
            );
            err(Line::headed(HINT, "hint:", &hint));
        }
    }
}

fn milliseconds(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

fn step_line(step: &Step, width: usize) -> Line {
    let text = step.action.text();
    let colour = match text.sign {
        '+' => AnsiColor::Green.on_default(),
        '-' => AnsiColor::Red.on_default(),
        _ => AnsiColor::Yellow.on_default(),
    };
    let mut what = format!(" {} {} {} ", text.verb, text.kind, text.name);
    if !text.detail.is_empty() {
        what = format!("{}: {} ", what.trim_end(), text.detail);
    }
    let mut why = step.cause.clone();
    let mut after: Vec<StepId> = step.after.iter().chain(&step.after_end).copied().collect();
    after.sort_unstable();
    if !after.is_empty() {
        let after: Vec<String> = after.iter().map(ToString::to_string).collect();
        why = format!("{why}; after {}", after.join(", "));
    }
    Line::from(format!("{:>width$} ", step.id))
        .styled(colour, text.sign)
        .text(what)
        .styled(FAINT, format!("({why})"))
}

fn step_json(event: &str, step: &Step) -> Value {
    let text = step.action.text();
    json!({
        "event": event, "id": step.id, "action": text.verb, "kind": text.kind, "name": text.name,
        "detail": text.detail, "cause": step.cause, "after": step.after,
    })
}

/// The steps as the tests of the diff compare them.
#[cfg(test)]
pub fn plain_steps(diff: &Diff) -> String {
    let width = diff.steps.len().to_string().len();
    let lines = diff
        .steps
        .iter()
        .map(|step| step_line(step, width).to_string());
    let diagnostics = diff.warnings.iter().chain(&diff.errors);
    let diagnostics = diagnostics.map(|diagnostic| {
        let hint = diagnostic.hint.as_deref().unwrap_or_default();
        let word = if diagnostic.severity.is_error() {
            "error"
        } else {
            "warning"
        };
        format!("{word}: {}\nhint: {hint}", diagnostic.what)
    });
    let text: Vec<String> = lines.chain(diagnostics).collect();
    anstream::adapter::strip_str(&text.join("\n")).to_string()
}
