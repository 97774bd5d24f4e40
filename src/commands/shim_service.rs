//! What the unit of the shim runs: makes the links, tells systemd so, listens to the kernel, and puts back what disappears.

use crate::apply::{self, Event};
use crate::diff::{preflight, shim};
use crate::error::{Blocker, DONE, Failure};
use crate::observe;
use crate::plan::{Host, Plan};
use crate::report::Report;
use crate::system::Machine;
use crate::system::netlink::Netlink;
use crate::system::systemd;
use futures_util::StreamExt as _;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep_until};

/// How long Docker is kept waiting at boot for a parent that does not appear. Less than `TimeoutStartSec=` of the unit.
const START: Duration = Duration::from_secs(60);

/// How long changes of the kernel are collected: what is done to a link by hand comes as a handful of messages.
const SETTLING: Duration = Duration::from_millis(20);

/// So many repairs, each at most [`CALM`] after the one before, are nobody's fight.
const PATIENT_REPAIRS: u32 = 10;
const CALM: Duration = Duration::from_secs(10);

/// The longest pause between two repairs, and between two attempts that fail.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What is kept.
pub struct Keeper<'a> {
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
    Waiting(Blocker),
    /// They could not be made.
    Failed(Failure),
}

impl Keeper<'_> {
    /// Keeps the links until the process is told to stop, and removes them then. Returns the exit status.
    ///
    /// # Errors
    /// When the kernel cannot be listened to, or the links cannot be removed.
    pub async fn run(&self, netlink: Netlink) -> Result<u8, Failure> {
        let machine = Machine {
            netlink,
            engine: None,
        };
        let (mut terminate, mut interrupt) = (
            listen(SignalKind::terminate())?,
            listen(SignalKind::interrupt())?,
        );
        // Before the first look, so that nothing is missed in between.
        let mut changes = Netlink::changes()?;
        let mut course = Course::new(self);
        loop {
            let look = self.look(&machine).await;
            let (mut due, pause) = course.after(look);
            let mut earliest = Instant::now() + pause;
            loop {
                tokio::select! {
                    _ = terminate.recv() => return self.release(&machine).await,
                    _ = interrupt.recv() => return self.release(&machine).await,
                    change = changes.next() => {
                        if change.is_none() {
                            return Err(Failure::new(
                                "the kernel tells no more about its links",
                                "`journalctl -k` may tell why; systemd starts the service again",
                            ));
                        }
                        due = true;
                        earliest = earliest.max(Instant::now() + SETTLING);
                    }
                    () = sleep_until(earliest), if due => break,
                    () = sleep_until(course.deadline), if !course.is_ready => course.ready(false),
                }
            }
        }
    }

    /// Looks at the links and makes them as planned.
    async fn look(&self, machine: &Machine) -> Look {
        let state = match observe::links(&machine.netlink).await {
            Ok(state) => state,
            Err(failure) => return Look::Failed(failure),
        };
        let parent = match preflight::parent_there(self.plan, self.host, &state) {
            Ok(parent) => parent,
            Err(blocker) => return Look::Waiting(blocker),
        };
        let (plan, host) = (self.plan, self.host);
        let diff = match shim::keep(plan, host, parent, self.parent_links, &state) {
            Ok(diff) => diff,
            Err(blockers) => return Look::Failed(blockers.into()),
        };
        match self.apply(&diff, machine).await {
            Ok(()) => Look::AsPlanned(diff.steps.len()),
            Err(failure) => Look::Failed(failure),
        }
    }

    async fn release(&self, machine: &Machine) -> Result<u8, Failure> {
        systemd::status("removing the links");
        let state = observe::links(&machine.netlink).await?;
        let diff = shim::release(self.plan, self.parent_links, &state);
        self.apply(&diff, machine).await?;
        Ok(DONE)
    }

    async fn apply(&self, diff: &crate::diff::Diff, machine: &Machine) -> Result<(), Failure> {
        apply::apply(&diff.steps, machine, std::future::pending(), |event| {
            if let Event::Done(step, elapsed) = event {
                self.report.done(step, elapsed);
            }
        })
        .await
    }
}

fn listen(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|_| {
        Failure::new(
            "the kernel lets homelab hear no signals",
            "run it without restrictions of system calls",
        )
    })
}

/// What was said, and how often something had to be put back.
struct Course<'a> {
    keeper: &'a Keeper<'a>,
    /// systemd knows that the links are there, or that they will not be soon.
    is_ready: bool,
    /// When systemd is told in any case.
    deadline: Instant,
    /// The links were there once.
    were_there: bool,
    /// What was said last, so that nothing is said twice.
    said: Vec<Blocker>,
    /// Attempts that failed, one after another.
    failures: u32,
    pace: Pace,
}

impl<'a> Course<'a> {
    fn new(keeper: &'a Keeper<'a>) -> Self {
        Self {
            keeper,
            is_ready: false,
            deadline: Instant::now() + START,
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
            Look::Waiting(Blocker { what, hint, .. }) => {
                self.say(vec![Blocker::new(format!("waiting: {what}"), hint)]);
                (false, Duration::ZERO)
            }
            Look::Failed(failure) => {
                self.say(failure.blockers);
                self.failures = self.failures.saturating_add(1);
                (true, doubled(self.failures))
            }
        }
    }

    fn as_planned(&mut self, steps: usize) -> Duration {
        self.failures = 0;
        let waited = !self.said.is_empty();
        self.said.clear();
        let Keeper {
            plan, host, report, ..
        } = self.keeper;
        if !self.were_there {
            report.note(&format!(
                "the shim is there: {} on {}",
                host.shim, plan.shim_name
            ));
        }
        if self.is_ready && waited && !self.keeper.parent_links.is_empty() {
            report.warnings(&[Blocker::new(
                "Docker was started without the parent links of its networks",
                "restart Docker if their containers do not run: `systemctl restart docker`",
            )]);
        } else if self.were_there && waited {
            report.warnings(&[Blocker::new(
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
            report.warnings(&[Blocker::new(
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
            self.keeper.report.warnings(&[Blocker::new(
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
    fn say(&mut self, blockers: Vec<Blocker>) {
        if self.said == blockers {
            return;
        }
        if let Some(Blocker { what, .. }) = blockers.first() {
            systemd::status(what);
        }
        self.keeper.report.warnings(&blockers);
        self.said = blockers;
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
        let is_calm = self.last.is_none_or(|last| now > last + self.pause + CALM);
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
