//! What the unit of the shim runs: makes the links, tells systemd so, listens to the kernel, and puts back what disappears.

use super::shim_plan::{PlanSource, Poll, ServicePlan};
use crate::apply::{self, Event};
use crate::cli::{Global, Run};
use crate::diff::{self, Diff, Request, preflight};
use crate::error::{Diagnostic, Error, ExitStatus};
use crate::observe;
use crate::report::Report;
use crate::system::netlink::Netlink;
use crate::system::{Machine, cgroups, systemd};
use futures_util::StreamExt as _;
use std::collections::BTreeSet;
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

/// How often a file is read again that was not right.
const POLL_TIME: Duration = Duration::from_secs(1);

/// `homelab shim run`: keeps the links until it is told to stop.
///
/// # Errors
/// When the kernel cannot be listened to, or this process may not change links. Where a person runs it, also when the file is not
/// right; the service waits until it is.
pub async fn run(global: &Global, args: &Run, report: Report) -> Result<ExitStatus, Error> {
    let netlink = Netlink::connect()?;
    let links = observe::links(&netlink).await?;
    let (source, kept) = match PlanSource::open(global, report, &links) {
        Ok(opened) => opened,
        Err(Some(error)) => return Err(error),
        Err(None) => return Ok(ExitStatus::Usage),
    };
    if !links.net_admin {
        return Err(Error::new(
            "not permitted to change links, addresses and routes",
            "run homelab as root, or have systemd run this: `homelab shim install`",
        ));
    }
    let mut service = ShimService {
        source,
        kept,
        parent_links: &args.parent_links,
        report,
    };
    let machine = Machine {
        netlink,
        engine: None,
    };
    service.run(&machine).await
}

/// What is kept.
struct ShimService<'a> {
    source: PlanSource<'a>,
    /// The plan; `None` while there is none.
    kept: Option<ServicePlan>,
    /// Links that Docker's networks stand on.
    parent_links: &'a [String],
    report: Report,
}

/// What a look at the links came to.
enum Look {
    /// So many steps were needed; now they are as planned, but for these shims on environments' own LANs.
    AsPlanned(usize, Away),
    /// They cannot be made yet.
    Waiting(Diagnostic),
    /// They could not be made.
    Failed(Error),
}

/// Shims on environments' own LANs that cannot be made now.
#[derive(Default)]
struct Away {
    /// Of which environments the parent is not there, or down.
    parents: BTreeSet<String>,
    /// What keeps them from being there.
    why: Vec<Diagnostic>,
}

/// What is done about a file that was read again.
enum Follow {
    Nothing,
    Look,
    /// The process ends, and systemd starts another one; the links stay.
    StartAnew,
}

impl ShimService<'_> {
    /// Keeps the links until the process is told to stop, and removes them then.
    async fn run(&mut self, machine: &Machine) -> Result<ExitStatus, Error> {
        let (mut terminate, mut interrupt) = (
            listen(SignalKind::terminate())?,
            listen(SignalKind::interrupt())?,
        );
        // Before the first look, so that nothing is missed in between.
        let mut changes = Netlink::subscribe()?;
        let mut repairs = RepairState::new(self.report, !self.parent_links.is_empty());
        let mut poll = Instant::now() + POLL_TIME;
        loop {
            let look = self.look(machine).await;
            let (mut due, pause) = repairs.after(look, self);
            let mut earliest = Instant::now() + pause;
            loop {
                tokio::select! {
                    _ = terminate.recv() => return self.release(machine).await,
                    _ = interrupt.recv() => return self.release(machine).await,
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
                    () = sleep_until(repairs.deadline), if !repairs.is_ready => repairs.ready(None),
                    () = sleep_until(poll), if self.source.refused().is_some() => {
                        poll = Instant::now() + POLL_TIME;
                        match self.poll(machine).await? {
                            Follow::Nothing => {}
                            Follow::Look => break,
                            Follow::StartAnew => return Ok(ExitStatus::Done),
                        }
                    }
                }
            }
        }
    }

    /// Reads a file again that was not right, and follows it when it is.
    async fn poll(&mut self, machine: &Machine) -> Result<Follow, Error> {
        let links = observe::links(&machine.netlink).await?;
        let next = match self.source.poll(&links) {
            Poll::Same => return Ok(Follow::Nothing),
            Poll::Refused => return Ok(Follow::Look),
            Poll::OutOfView => {
                self.report
                    .note("systemd starts the service anew, so that it sees the file");
                return Ok(Follow::StartAnew);
            }
            Poll::Right(next) => *next,
        };
        self.report
            .note("the file is right again; the shim is kept by it");
        let stay: Vec<String> = next.shims().collect();
        let kept = self.kept.iter().flat_map(ServicePlan::shims);
        let gone: Vec<String> = kept.filter(|name| !stay.contains(name)).collect();
        self.remove_links(&gone, machine).await?;
        self.kept = Some(next);
        Ok(Follow::Look)
    }

    /// Looks at the links and makes them as planned.
    async fn look(&self, machine: &Machine) -> Look {
        let Some(ServicePlan { plan, host }) = &self.kept else {
            return Look::Waiting(self.source.missing());
        };
        let state = match observe::links(&machine.netlink).await {
            Ok(state) => state,
            Err(error) => return Look::Failed(error),
        };
        if let Err(missing) = preflight::parent_there(plan, host, &state) {
            return Look::Waiting(missing);
        }
        let request = Request::ShimRun(host, self.parent_links);
        let diff = match diff::diff(&request, plan, &state) {
            Ok(diff) => diff,
            Err(error) => return Look::Failed(error),
        };
        match self.apply(&diff, machine).await {
            Ok(()) => {
                let away = Away {
                    parents: preflight::envs_without_parent(plan, host, &state),
                    why: diff.errors,
                };
                Look::AsPlanned(diff.steps.len(), away)
            }
            Err(error) => Look::Failed(error),
        }
    }

    async fn release(&self, machine: &Machine) -> Result<ExitStatus, Error> {
        systemd::status("removing the links");
        let kept = self.kept.iter().flat_map(ServicePlan::shims);
        let links: Vec<String> = kept.chain(self.parent_links.iter().cloned()).collect();
        self.remove_links(&links, machine).await?;
        Ok(ExitStatus::Done)
    }

    async fn remove_links(&self, links: &[String], machine: &Machine) -> Result<(), Error> {
        let Some(ServicePlan { plan, .. }) = &self.kept else {
            return Ok(());
        };
        let state = observe::links(&machine.netlink).await?;
        let request = Request::ShimRelease(links);
        let diff = diff::diff(&request, plan, &state)?;
        self.apply(&diff, machine).await
    }

    /// How the shim is, when it is there.
    fn is_there(&self) -> String {
        match self.source.refused() {
            None => "the shim is there".to_owned(),
            Some(what) => format!("the shim is there, by the last plan that was right: {what}"),
        }
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
struct RepairState {
    report: Report,
    has_parent_links: bool,
    /// systemd knows that the links are there, or that they will not be soon.
    is_ready: bool,
    /// When systemd is told in any case.
    deadline: Instant,
    /// The links were there once.
    were_there: bool,
    /// Since when the links are away; `None` while they are there.
    absence: Option<Absence>,
    /// What was said last, so that nothing is said twice.
    said: Vec<Diagnostic>,
    /// Shims on environments' own LANs that were away at the last look.
    away: Away,
    /// Attempts that failed, one after another.
    failures: u32,
    pace: Pace,
}

/// A time without the links.
struct Absence {
    /// The dockerd that ran when it began.
    engine: Option<String>,
}

impl Absence {
    fn begun() -> Self {
        let engine = cgroups::engine_process();
        Self { engine }
    }

    /// Whether a dockerd was started meanwhile, which looked for the parents of its networks in vain.
    fn missed_by_engine(&self) -> bool {
        let engine = cgroups::engine_process();
        engine.is_some() && engine != self.engine
    }
}

impl RepairState {
    fn new(report: Report, has_parent_links: bool) -> Self {
        Self {
            report,
            has_parent_links,
            is_ready: false,
            deadline: Instant::now() + READY_TIMEOUT,
            were_there: false,
            absence: Some(Absence::begun()),
            said: Vec::new(),
            away: Away::default(),
            failures: 0,
            pace: Pace::default(),
        }
    }

    /// Whether there must be another look without anything having changed, and how long to wait for the next one at least.
    fn after(&mut self, look: Look, service: &ShimService) -> (bool, Duration) {
        match look {
            Look::AsPlanned(steps, away) => (false, self.as_planned(steps, away, service)),
            Look::Waiting(Diagnostic { what, hint, .. }) => {
                self.are_absent();
                self.say(vec![Diagnostic::warning(
                    format!("waiting: {what}"),
                    hint.unwrap_or_default(),
                )]);
                (false, Duration::ZERO)
            }
            Look::Failed(error) => {
                self.are_absent();
                self.say(error.diagnostics);
                self.failures = self.failures.saturating_add(1);
                (true, doubled(self.failures))
            }
        }
    }

    fn are_absent(&mut self) {
        self.absence.get_or_insert_with(Absence::begun);
    }

    fn as_planned(&mut self, steps: usize, away: Away, service: &ShimService) -> Duration {
        self.failures = 0;
        let waited = !self.said.is_empty();
        self.said.clear();
        if let (Some(ServicePlan { plan, host }), false) = (&service.kept, self.were_there) {
            let there = plan
                .shims(host)
                .filter(|shim| !shim.env.is_some_and(|env| away.parents.contains(&env.name)));
            for shim in there {
                let (address, name) = (shim.address, shim.name);
                self.report
                    .note(&format!("the shim is there: {address} on {name}"));
            }
        }
        let absence = self.absence.take();
        if self.has_parent_links && absence.is_some_and(|absence| absence.missed_by_engine()) {
            self.report.warnings(&[Diagnostic::warning(
                "Docker was started without the parent links of its networks",
                "restart Docker if their containers do not run: `systemctl restart docker`",
            )]);
        } else if self.were_there && waited {
            self.report.warnings(&[Diagnostic::warning(
                "the interfaces of containers went with the parent",
                "start them again: `docker restart $(docker ps -q --filter label=homelab.environment)`",
            )]);
        }
        let pause = self.pause_after(steps);
        if let (Some(ServicePlan { plan, .. }), false) = (&service.kept, pause.is_zero()) {
            self.report.warnings(&[Diagnostic::warning(
                format!(
                    "something takes the shim away again and again; waiting {} s before the next repair",
                    pause.as_secs()
                ),
                format!(
                    "`ip monitor link address route` shows what; a network manager must be told to leave {} alone",
                    diff::named(plan.shim_names())
                ),
            )]);
        }
        self.were_there = true;
        self.ready(Some(service.is_there()));
        self.tell_of(away);
        pause
    }

    /// Says what keeps shims on environments' own LANs from being there, and which environments have theirs again.
    fn tell_of(&mut self, away: Away) {
        for env in self.away.parents.difference(&away.parents) {
            self.report.warnings(&[Diagnostic::warning(
                format!("the interfaces of the containers of environment `{env}` went with its parent"),
                format!("start them again: `docker restart $(docker ps -q --filter label=homelab.environment={env})`"),
            )]);
        }
        if self.away.why != away.why {
            let why = away.why.iter().cloned();
            let why: Vec<Diagnostic> = why.map(Diagnostic::into_warning).collect();
            self.report.warnings(&why);
        }
        if let Some(first) = away.why.first() {
            systemd::status(&format!("the shim is there, but: {}", first.what));
        }
        self.away = away;
    }

    /// How long to wait after a repair of so many steps.
    fn pause_after(&mut self, steps: usize) -> Duration {
        if self.were_there && steps > 0 {
            self.pace.repaired(Instant::now())
        } else {
            Duration::ZERO
        }
    }

    /// Tells systemd that it may go on: how the shim is, or that it is not there yet.
    fn ready(&mut self, is_there: Option<String>) {
        let status = is_there.unwrap_or_else(|| {
            self.report.warnings(&[Diagnostic::warning(
                "the shim is not there yet; what waits for it starts without it",
                "the shim comes as soon as it can",
            )]);
            let said = self.said.first().map(|said| said.what.clone());
            said.unwrap_or_else(|| "waiting for the parent".to_owned())
        });
        if self.is_ready {
            systemd::status(&status);
        } else {
            systemd::ready(&status);
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
        self.report.warnings(&diagnostics);
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
