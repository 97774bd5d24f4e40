//! What is going on while steps are carried out: a line for each thing that is being worked on, on a terminal; else a plain
//! line for each that is done, or a JSON object for each event.

use super::{Report, visible};
use crate::apply::Event;
use crate::diff::step::ContainerAction;
use crate::diff::{Step, StepId};
use indicatif::{MultiProgress, ProgressBar, ProgressFinish, ProgressStyle};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The services that `--wait` still waits for: a line that is drawn anew on a terminal, else said once.
pub struct Waiting {
    /// Only on a terminal.
    bar: Option<ProgressBar>,
}

impl Waiting {
    /// Begins with these containers.
    pub fn new(report: Report, left: &BTreeSet<String>) -> Self {
        if report.json || report.quiet || !console_is_terminal() {
            report.waiting(left);
            return Self { bar: None };
        }
        let bar = ProgressBar::new_spinner().with_style(style("{spinner} {msg} {elapsed:.dim}"));
        bar.enable_steady_tick(TICK);
        let waiting = Self {
            bar: Some(bar.with_finish(ProgressFinish::AndClear)),
        };
        waiting.go_on(left);
        waiting
    }

    /// These are left.
    pub fn go_on(&self, left: &BTreeSet<String>) {
        if let Some(bar) = &self.bar {
            let names: Vec<&str> = left.iter().map(String::as_str).collect();
            let text = format!("waiting for {}", names.join(", "));
            bar.set_message(visible(&text).into_owned());
        }
    }
}

/// How often lines of a terminal are drawn anew.
const TICK: Duration = Duration::from_millis(120);

/// The steps of one run.
pub struct Progress {
    report: Report,
    /// Only on a terminal.
    screen: Option<Screen>,
}

struct Screen {
    bars: MultiProgress,
    /// The last line: how many steps are done.
    sum: ProgressBar,
    lines: BTreeMap<StepId, ProgressBar>,
}

impl Progress {
    /// Begins; draws nothing before the first step does.
    pub fn new(report: Report, steps: usize) -> Self {
        let is_drawn = !report.json && !report.quiet && steps > 0 && console_is_terminal();
        let screen = is_drawn.then(|| {
            let bars = MultiProgress::new();
            let length = u64::try_from(steps).unwrap_or(0);
            let sum = bars
                .add(ProgressBar::new(length).with_style(style("{pos} of {len} steps, {elapsed}")));
            sum.enable_steady_tick(TICK);
            Screen {
                bars,
                sum,
                lines: BTreeMap::new(),
            }
        });
        Self { report, screen }
    }

    /// As where there is no terminal.
    #[cfg(test)]
    pub fn plain(report: Report) -> Self {
        let screen = None;
        Self { report, screen }
    }

    /// Tells what happens.
    pub fn tell(&mut self, event: Event) {
        match event {
            Event::Begun(step) => match &mut self.screen {
                Some(screen) => screen.begin(step),
                None => self.report.begun(step),
            },
            Event::Warned(step, said) => {
                let report = self.report;
                match &self.screen {
                    Some(screen) => screen.bars.suspend(|| report.warned(step, said)),
                    None => report.warned(step, said),
                }
            }
            Event::Pulling(step, progress) => match &mut self.screen {
                Some(screen) => screen.pulling(step.id, progress.done, progress.total),
                None => self.report.pulling(step, progress),
            },
            Event::Done(step, elapsed) => {
                let Some(screen) = &mut self.screen else {
                    self.report.done(step, elapsed);
                    return;
                };
                screen.finish(step.id);
                screen.sum.inc(1);
                let report = self.report;
                // One line for each service stays: that it runs.
                let container = step.action.container();
                let is_preparation = container.is_some_and(ContainerAction::is_preparation);
                if is_preparation && !report.verbose {
                    return;
                }
                // What is above the drawn lines stays on the screen.
                screen.bars.suspend(|| report.done_in(step, elapsed));
            }
            Event::Failed(step) => {
                if let Some(screen) = &mut self.screen {
                    screen.finish(step.id);
                }
            }
        }
    }

    /// Takes the drawn lines away, but for the last one.
    pub fn end(self) {
        if let Some(screen) = self.screen {
            let (done, all) = (screen.sum.position(), screen.sum.length().unwrap_or(0));
            let elapsed = screen.sum.elapsed();
            screen.sum.finish_and_clear();
            let _ = screen.bars.clear();
            self.report.sum(done, all, elapsed);
        }
    }
}

impl Screen {
    fn begin(&mut self, step: &Step) {
        let text = step.action.text();
        let doing = format!("{}: {}", text.name, text.doing);
        let bar = ProgressBar::new_spinner().with_style(style("{spinner} {msg} {elapsed:.dim}"));
        let bar = bar.with_message(visible(&doing).into_owned());
        let bar = self.bars.insert_before(&self.sum, bar);
        bar.enable_steady_tick(TICK);
        self.lines.insert(step.id, bar);
    }

    fn pulling(&mut self, id: StepId, done: u64, total: u64) {
        let Some(bar) = self.lines.get(&id).filter(|_| total > 0) else {
            return;
        };
        if bar.length().is_none() {
            bar.set_style(style(
                "{spinner} {msg} {bar:20} {bytes} of {total_bytes}, {elapsed}",
            ));
        }
        bar.set_length(total);
        bar.set_position(done);
    }

    fn finish(&mut self, id: StepId) {
        if let Some(bar) = self.lines.remove(&id) {
            bar.finish_and_clear();
            self.bars.remove(&bar);
        }
    }
}

fn console_is_terminal() -> bool {
    use std::io::IsTerminal as _;
    std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}
