//! What the unit of the shim runs: makes the links, tells systemd so, listens to the kernel, and puts back what disappears.

use crate::apply::{self, Event};
use crate::diff::{self, Diff, Request, preflight};
use crate::error::{Diagnostic, Error, ExitStatus};
use crate::observe;
use crate::plan::{Host, Plan};
use crate::report::Report;
use crate::system::netlink::Netlink;
use crate::system::{Machine, systemd};
use futures_util::StreamExt as _;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep_until};

/// How long Docker is kept waiting at boot for a parent that does not appear. Less than `TimeoutStartSec=` of the unit.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// How long changes of the kernel are collected: what is done to a link by hand comes as a handful of messages.
const COLLECT_TIME: Duration = Duration::from_millis(20);

/// So many repairs, each at most [`CALM_AFTER`] after the one before, are nobody's fight.
const PATIENT_REPAIRS: u32 = 10;
const CALM_AFTER: Duration = Duration::from_secs(10);

/// The longest pause between two repairs, and between two attempts that fail.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What is kept.
pub struct ShimService<'a> {
    /// The address plan.
    pub plan: &'a Plan,
    /// This host.
    pub host: &'a Host,
    /// Links that Docker's networks stand on.
    pub parent_links: &'a [String],
    /// How to print.
    pub report: Report,
}

/// What a look at the links came to.
enum Look {
    /// So many steps were needed; now they are as planned.
    AsPlanned(usize),
    /// They cannot be made yet.
    Waiting(Diagnostic),
    /// They could not be made.
    Failed(Error),
}

impl ShimService<'_> {
    /// Keeps the links until the process is told to stop, and removes them then.
    ///
    /// # Errors
    /// When the kernel cannot be listened to, or the links cannot be removed.
    pub async fn run(&self, netlink: Netlink) -> Result<ExitStatus, Error> {
        let machine = Machine {
            netlink,
            engine: None,
        };
        let (mut terminate, mut interrupt) = (
            listen(SignalKind::terminate())?,
            listen(SignalKind::interrupt())?,
        );
        // Before the first look, so that nothing is missed in between.
        let mut changes = Netlink::subscribe()?;
        let mut repairs = RepairState::new(self);
        loop {
            let look = self.look(&machine).await;
            let (mut due, pause) = repairs.after(look);
            let mut earliest = Instant::now() + pause;
            loop {
                tokio::select! {
                    _ = terminate.recv() => return self.release(&machine).await,
                    _ = interrupt.recv() => return self.release(&machine).await,
                    change = changes.next() => {
                        if change.is_none() {
                            return Err(Error::new(
                                "the kernel tells no more about its links",
                                "`journalctl -k` may tell why; systemd starts the service again",
                            ));
                        }
                        due = true;
                        earliest = earliest.max(Instant::now() + COLLECT_TIME);
                    }
                    () = sleep_until(earliest), if due => break,
                    () = sleep_until(repairs.deadline), if !repairs.is_ready => repairs.ready(false),
                }
            }
        }
    }

    /// Looks at the links and makes them as planned.
    async fn look(&self, machine: &Machine) -> Look {
        let state = match observe::links(&machine.netlink).await {
            Ok(state) => state,
            Err(error) => return Look::Failed(error),
        };
        if let Err(missing) = preflight::parent_there(self.plan, self.host, &state) {
            return Look::Waiting(missing);
        }
        let request = Request::ShimRun(self.host, self.parent_links);
        let diff = match diff::diff(&request, self.plan, &state) {
            Ok(diff) => diff,
            Err(error) => return Look::Failed(error),
        };
        match self.apply(&diff, machine).await {
            Ok(()) => Look::AsPlanned(diff.steps.len()),
            Err(error) => Look::Failed(error),
        }
    }

    async fn release(&self, machine: &Machine) -> Result<ExitStatus, Error> {
        systemd::status("removing the links");
        let state = observe::links(&machine.netlink).await?;
        let request = Request::ShimRelease(self.parent_links);
        let diff = diff::diff(&request, self.plan, &state)?;
        self.apply(&diff, machine).await?;
        Ok(ExitStatus::Done)
    }

    async fn apply(&self, diff: &Diff, machine: &Machine) -> Result<(), Error> {
        apply::apply(&diff.steps, machine, std::future::pending(), |event| {
            if let Event::Done(step, elapsed) = event {
                self.report.done(step, elapsed);
            }
        })
        .await
    }
}

fn listen(kind: SignalKind) -> Result<Signal, Error> {
    signal(kind).map_err(|_| {
        Error::new(
            "the kernel lets homelab hear no signals",
            "run it without restrictions of system calls",
        )
    })
}

/// What was said, and how often something had to be put back.
struct RepairState<'a> {
    service: &'a ShimService<'a>,
    /// systemd knows that the links are there, or that they will not be soon.
    is_ready: bool,
    /// When systemd is told in any case.
    deadline: Instant,
    /// The links were there once.
    were_there: bool,
    /// What was said last, so that nothing is said twice.
    said: Vec<Diagnostic>,
    /// Attempts that failed, one after another.
    failures: u32,
    pace: Pace,
}

impl<'a> RepairState<'a> {
    fn new(service: &'a ShimService<'a>) -> Self {
        Self {
            service,
            is_ready: false,
            deadline: Instant::now() + READY_TIMEOUT,
            were_there: false,
            said: Vec::new(),
            failures: 0,
            pace: Pace::default(),
        }
    }

    /// Whether there must be another look without anything having changed, and how long to wait for the next one at least.
    fn after(&mut self, look: Look) -> (bool, Duration) {
        match look {
            Look::AsPlanned(steps) => (false, self.as_planned(steps)),
            Look::Waiting(Diagnostic { what, hint, .. }) => {
                self.say(vec![Diagnostic::warning(
                    format!("waiting: {what}"),
                    hint.unwrap_or_default(),
                )]);
                (false, Duration::ZERO)
            }
            Look::Failed(error) => {
                self.say(error.diagnostics);
                self.failures = self.failures.saturating_add(1);
                (true, doubled(self.failures))
            }
        }
    }

    fn as_planned(&mut self, steps: usize) -> Duration {
        self.failures = 0;
        let waited = !self.said.is_empty();
        self.said.clear();
        let ShimService {
            plan, host, report, ..
        } = self.service;
        if !self.were_there {
            report.note(&format!(
                "the shim is there: {} on {}",
                host.shim, plan.shim_name
            ));
        }
        if self.is_ready && waited && !self.service.parent_links.is_empty() {
            report.warnings(&[Diagnostic::warning(
                "Docker was started without the parent links of its networks",
                "restart Docker if their containers do not run: `systemctl restart docker`",
            )]);
        } else if self.were_there && waited {
            report.warnings(&[Diagnostic::warning(
                "the interfaces of containers went with the parent",
                "start them again: `docker restart $(docker ps -q --filter label=homelab.environment)`",
            )]);
        }
        let pause = if self.were_there && steps > 0 {
            self.pace.repaired(Instant::now())
        } else {
            Duration::ZERO
        };
        if !pause.is_zero() {
            report.warnings(&[Diagnostic::warning(
                format!(
                    "something takes the shim away again and again; waiting {} s before the next repair",
                    pause.as_secs()
                ),
                format!(
                    "`ip monitor link address route` shows what; a network manager must be told to leave `{}` alone",
                    plan.shim_name
                ),
            )]);
        }
        self.were_there = true;
        self.ready(true);
        pause
    }

    /// Tells systemd that it may go on.
    fn ready(&mut self, is_there: bool) {
        let status = if is_there {
            "the shim is there"
        } else {
            self.service.report.warnings(&[Diagnostic::warning(
                "the shim is not there yet; what waits for it starts without it",
                "the shim comes as soon as its parent is there",
            )]);
            "waiting for the parent"
        };
        if !self.is_ready {
            systemd::ready(status);
        } else if is_there {
            systemd::status(status);
        }
        self.is_ready = true;
    }

    /// Says what keeps the links from being as planned, unless it was said last.
    fn say(&mut self, diagnostics: Vec<Diagnostic>) {
        let diagnostics: Vec<Diagnostic> = diagnostics
            .into_iter()
            .map(Diagnostic::into_warning)
            .collect();
        if self.said == diagnostics {
            return;
        }
        if let Some(Diagnostic { what, .. }) = diagnostics.first() {
            systemd::status(what);
        }
        self.service.report.warnings(&diagnostics);
        self.said = diagnostics;
    }
}

/// How fast repairs follow each other.
#[derive(Default)]
struct Pace {
    last: Option<Instant>,
    pause: Duration,
    repairs: u32,
}

impl Pace {
    /// How long to wait before the next repair.
    fn repaired(&mut self, now: Instant) -> Duration {
        let is_calm = self
            .last
            .is_none_or(|last| now > last + self.pause + CALM_AFTER);
        self.repairs = if is_calm {
            1
        } else {
            self.repairs.saturating_add(1)
        };
        self.last = Some(now);
        self.pause = match self.repairs.saturating_sub(PATIENT_REPAIRS) {
            0 => Duration::ZERO,
            more => doubled(more),
        };
        self.pause
    }
}

/// 1 s for the first time, then twice as long each time.
fn doubled(times: u32) -> Duration {
    let seconds = 1_u64
        .checked_shl(times.saturating_sub(1))
        .unwrap_or(u64::MAX);
    Duration::from_secs(seconds).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repairs_are_immediate_until_they_are_a_fight() {
        let mut pace = Pace::default();
        let begun = Instant::now();
        let mut now = begun;
        let mut pauses = Vec::new();
        for _ in 0..18 {
            let pause = pace.repaired(now);
            pauses.push(pause.as_secs());
            now += pause + Duration::from_millis(30);
        }
        let expected = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60];
        assert_eq!(pauses, expected);
        // Left alone for a while, it is as patient as at first.
        assert_eq!(pace.repaired(now + Duration::from_secs(71)), Duration::ZERO);
    }
}
