//! Carries steps out: the only code that changes the machine. It runs what is ready, all of it at once, and decides nothing.

use crate::diff::step::{Action, ContainerAction};
use crate::diff::{Step, StepId};
use crate::error::{Diagnostic, Error, ExitStatus};
use crate::system::docker::PullProgress;
use crate::system::{Machine, systemd};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// What happens while steps are carried out.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A step begins.
    Begun(&'a Step),
    /// The Engine did a step otherwise than it was told, such as without a limit that the kernel does not have.
    Warned(&'a Step, &'a str),
    /// An image comes.
    Pulling(&'a Step, PullProgress),
    /// A step is done, after this long.
    Done(&'a Step, Duration),
    /// A step failed.
    Failed(&'a Step),
}

/// How long what changes something may go on after an interrupt: a call takes milliseconds, but for a stop, which may wait for
/// its grace period. What is let go then the Engine still carries out, and the next run finds it done.
const MOMENT: Duration = Duration::from_millis(700);

/// How many containers are taken down at once. More of them make the Engine slower at all of them: 50 containers, eight at
/// once, go down in three quarters of the time that they take all at once (`tests/bench.sh`, two processors). What is
/// made and started gains nothing by it.
const AT_ONCE: usize = 8;

/// After this long a stop is taken to wait for its grace period rather than to work, and makes room.
const WORK_TIME: Duration = Duration::from_millis(300);

type Running<'a> =
    std::pin::Pin<Box<dyn Future<Output = (&'a Step, Result<(), Error>, Duration)> + 'a>>;

/// Carries out every step whose predecessors are done, and tells `report` what happens. After a failure the steps
/// that wait for it are left out and the others still run. When `interrupted` is over nothing more is begun; what waits or pulls
/// is let go at once, and what changes something has a moment to come to its end.
///
/// # Errors
/// Every step that failed.
pub async fn apply(
    steps: &[Step],
    machine: &Machine,
    interrupted: impl Future<Output = ()>,
    report: impl FnMut(Event),
) -> Result<(), Error> {
    let report = RefCell::new(report);
    let mut interrupted = std::pin::pin!(interrupted);
    let mut stopped: Option<Instant> = None;
    let mut scheduler = Scheduler::new(steps);
    let mut running: FuturesUnordered<Running> = FuturesUnordered::new();
    // Those that change nothing, so that they can be let go.
    let mut cancellable: FuturesUnordered<Running> = FuturesUnordered::new();
    let mut failures: Vec<Diagnostic> = Vec::new();
    loop {
        scheduler.look_for_ready();
        while stopped.is_none()
            && let Some(step) = scheduler.next()
        {
            (report.borrow_mut())(Event::Begun(step));
            let report = &report;
            let future: Running = Box::pin(async move {
                let begun = Instant::now();
                let result = carry_out(step, machine, report).await;
                (step, result, begun.elapsed())
            });
            if step.action.is_cancellable() {
                cancellable.push(future);
            } else {
                running.push(future);
            }
        }
        if running.is_empty() && cancellable.is_empty() {
            break;
        }
        let next_slot = scheduler.next_slot().unwrap_or(WORK_TIME);
        let moment = stopped.map(|stopped| MOMENT.saturating_sub(stopped.elapsed()));
        let (step, result, elapsed) = tokio::select! {
            Some(over) = running.next() => over,
            Some(over) = cancellable.next() => over,
            () = tokio::time::sleep(next_slot), if stopped.is_none() && !scheduler.ready.is_empty() => continue,
            () = &mut interrupted, if stopped.is_none() => {
                stopped = Some(Instant::now());
                cancellable.clear();
                continue;
            }
            () = tokio::time::sleep(moment.unwrap_or(MOMENT)), if stopped.is_some() => break,
        };
        let event = match result {
            Ok(()) => Event::Done(step, elapsed),
            Err(error) => {
                failures.extend(error.diagnostics);
                Event::Failed(step)
            }
        };
        scheduler.finish(step, matches!(event, Event::Done(..)));
        (report.borrow_mut())(event);
    }
    scheduler.result(steps, stopped.is_some(), failures)
}

/// Whether a step takes a container down.
fn takes_down(step: &Step) -> bool {
    let container = step.action.container();
    container.is_some_and(ContainerAction::takes_down)
}

/// Where the steps of a run are.
struct Scheduler<'a> {
    /// Those whose predecessors are not over.
    waiting: Vec<&'a Step>,
    /// Those that may begin.
    ready: Vec<&'a Step>,
    /// When those began that take containers down.
    begun: BTreeMap<StepId, Instant>,
    done: BTreeSet<StepId>,
    failed: BTreeSet<StepId>,
}

impl<'a> Scheduler<'a> {
    fn new(steps: &'a [Step]) -> Self {
        Self {
            waiting: steps.iter().collect(),
            ready: Vec::new(),
            begun: BTreeMap::new(),
            done: BTreeSet::new(),
            failed: BTreeSet::new(),
        }
    }

    /// Finds the steps that may begin now, and those that never will.
    fn look_for_ready(&mut self) {
        loop {
            let (done, failed) = (&self.done, &self.failed);
            let has_ended = |id: &StepId| done.contains(id) || failed.contains(id);
            let is_ready = |step: &&Step| {
                step.after.iter().all(|id| done.contains(id))
                    && step.after_end.iter().all(has_ended)
            };
            let (ready, waiting): (Vec<&Step>, Vec<&Step>) =
                self.waiting.iter().partition(|step| is_ready(step));
            self.ready.extend(ready);
            self.waiting = waiting;
            // What waits for a failure never runs, which others may only have to know.
            let waiting = self.waiting.iter();
            let lost = waiting.filter(|step| step.after.iter().any(|id| self.failed.contains(id)));
            let lost: Vec<StepId> = lost.map(|step| step.id).collect();
            let before = self.failed.len();
            self.failed.extend(lost);
            if self.failed.len() == before {
                return;
            }
        }
    }

    /// The next step to begin, when there is room for one.
    fn next(&mut self) -> Option<&'a Step> {
        let now = Instant::now();
        let working = self.begun.values();
        let working = working.filter(|begun| now.duration_since(**begun) < WORK_TIME);
        let has_room = working.count() < AT_ONCE;
        let may_begin = |step: &&Step| has_room || !takes_down(step);
        let index = self.ready.iter().position(may_begin)?;
        let step = self.ready.remove(index);
        if takes_down(step) {
            self.begun.insert(step.id, now);
        }
        Some(step)
    }

    /// When the next of those that take containers down has taken so long that it makes room.
    fn next_slot(&self) -> Option<Duration> {
        let ages = self.begun.values().map(Instant::elapsed);
        ages.filter_map(|age| WORK_TIME.checked_sub(age)).min()
    }

    fn finish(&mut self, step: &Step, is_done: bool) {
        self.begun.remove(&step.id);
        if is_done {
            self.done.insert(step.id);
        } else {
            self.failed.insert(step.id);
        }
    }

    /// What was begun and let go, and changes something.
    fn under_way<'s>(&'s self, steps: &'s [Step]) -> impl Iterator<Item = String> + 's {
        let is_among = |steps: &[&Step], id| steps.iter().any(|step| step.id == id);
        let begun = steps.iter().filter(move |step| {
            let id = step.id;
            let is_over = self.done.contains(&id) || self.failed.contains(&id);
            !is_over && !is_among(&self.waiting, id) && !is_among(&self.ready, id)
        });
        let begun = begun.filter(|step| !step.action.is_cancellable());
        begun.map(|step| {
            let text = step.action.text();
            format!("{} {} {}", text.verb, text.kind, text.name)
        })
    }

    /// What came of all of them.
    fn result(
        self,
        steps: &[Step],
        is_stopped: bool,
        mut failures: Vec<Diagnostic>,
    ) -> Result<(), Error> {
        let all = steps.len();
        let left = all - self.done.len();
        if is_stopped && left > 0 {
            let under_way: Vec<String> = self.under_way(steps).collect();
            if !under_way.is_empty() {
                failures.push(Diagnostic::warning(
                    format!("this may still go on: {}", under_way.join(", ")),
                    "the next run finds it done, or does it",
                ));
            }
            failures.push(Diagnostic::error(
                format!("interrupted: {left} of {all} steps were not carried out"),
                "run the command again; it goes on where it stopped",
            ));
            return Err(Error {
                status: ExitStatus::Interrupted,
                diagnostics: failures,
            });
        }
        if failures.is_empty() {
            return Ok(());
        }
        let waiting = self.waiting.len();
        if waiting > 0 {
            let left = Diagnostic::error(
                format!("{waiting} of {all} steps were not carried out: they wait for what failed"),
                "run the command again when the cause is gone; it goes on where it stopped",
            );
            failures.push(Diagnostic {
                is_race: failures.iter().all(|failure| failure.is_race),
                kept_parent: failures
                    .first()
                    .and_then(|failure| failure.kept_parent.clone()),
                ..left
            });
        }
        Err(failures.into())
    }
}

async fn carry_out(
    step: &Step,
    machine: &Machine,
    report: &RefCell<impl FnMut(Event)>,
) -> Result<(), Error> {
    let netlink = &machine.netlink;
    let engine = || {
        machine.engine.as_ref().ok_or_else(|| {
            Error::new(
                "there is no Docker Engine to do this",
                "start it with `systemctl start docker`",
            )
        })
    };
    match &step.action {
        Action::Link(action) => netlink.carry_out(action).await,
        Action::Unit(action) => systemd::carry_out(action).await,
        Action::Network(action) => engine()?.carry_out_network(action).await,
        Action::Volume(action) => engine()?.carry_out_volume(action).await,
        Action::Image(action) => {
            let tell = |progress| (report.borrow_mut())(Event::Pulling(step, progress));
            engine()?.carry_out_image(action, tell).await
        }
        Action::Container(action) => {
            for warning in engine()?.carry_out_container(action).await? {
                (report.borrow_mut())(Event::Warned(step, &warning));
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    //! Against real links, in a network namespace of their own.

    use super::*;
    use crate::diff::step::{ImageAction, LinkAction};
    use crate::plan::Mac;
    use crate::system::netlink::tests::in_a_namespace;

    fn step(id: StepId, action: impl Into<Action>, after: &[StepId]) -> Step {
        Step {
            id,
            action: action.into(),
            cause: String::new(),
            after: after.to_vec(),
            after_end: Vec::new(),
        }
    }

    fn add(name: &str, parent: &str, last: u8) -> LinkAction {
        LinkAction::Add {
            name: name.to_owned(),
            parent: parent.to_owned(),
            mac: Mac([2, 0, 0, 0, 0, last]),
        }
    }

    fn alias(name: &str) -> LinkAction {
        LinkAction::SetAlias {
            name: name.to_owned(),
            alias: "homelab: test".to_owned(),
        }
    }

    #[test]
    fn no_more_is_taken_down_than_there_is_room_for() {
        let stop = ContainerAction::Stop {
            name: "x".to_owned(),
        };
        let mut steps: Vec<Step> = (1..=10).map(|id| step(id, stop.clone(), &[])).collect();
        steps.push(step(11, alias("x"), &[]));
        let mut scheduler = Scheduler::new(&steps);
        let next = |scheduler: &mut Scheduler| -> Vec<StepId> {
            scheduler.look_for_ready();
            std::iter::from_fn(|| scheduler.next())
                .map(|step| step.id)
                .collect()
        };
        assert_eq!(next(&mut scheduler), [1, 2, 3, 4, 5, 6, 7, 8, 11]);
        assert!(scheduler.next_slot().is_some_and(|slot| slot <= WORK_TIME));
        steps
            .get(2)
            .into_iter()
            .for_each(|step| scheduler.finish(step, true));
        assert_eq!(next(&mut scheduler), [9]);
        // Who takes long waits for something, and others go on.
        let long_ago = Instant::now().checked_sub(WORK_TIME);
        scheduler.begun.extend(long_ago.map(|ago| (1, ago)));
        assert_eq!(next(&mut scheduler), [10]);
    }

    #[test]
    fn a_failure_stops_only_what_waits_for_it() {
        in_a_namespace(
            "apply::tests::a_failure_stops_only_what_waits_for_it",
            async |netlink| {
                let steps = [
                    step(1, add("good", "eth0", 1), &[]),
                    step(2, add("bad", "nowhere", 2), &[]),
                    step(3, alias("good"), &[1]),
                    step(4, alias("bad"), &[2]),
                    step(5, alias("bad"), &[3, 4]),
                    step(
                        6,
                        ImageAction::Pull {
                            image: "x".to_owned(),
                            platform: None,
                        },
                        &[],
                    ),
                ];
                let machine = Machine {
                    netlink: netlink.clone(),
                    engine: None,
                };
                let (mut begun, mut done) = (Vec::new(), Vec::new());
                let never = std::future::pending();
                let result = apply(&steps, &machine, never, |event| match event {
                    Event::Begun(step) => begun.push(step.id),
                    Event::Done(step, _) => done.push(step.id),
                    Event::Failed(_) | Event::Pulling(..) | Event::Warned(..) => {}
                })
                .await;
                let failure = result.err().map(|error| error.to_string());
                assert_eq!(begun, [1, 2, 6, 3]);
                assert_eq!(done, [1, 3]);
                let said = failure.unwrap_or_default();
                assert!(said.contains("there is no link `nowhere`"), "{said}");
                assert!(
                    said.contains("there is no Docker Engine to do this"),
                    "{said}"
                );
                assert!(said.contains("2 of 6 steps were not carried out"), "{said}");
                let links = netlink.links_and_routes().await.unwrap_or_default().0;
                let ours: Vec<&str> = links
                    .iter()
                    .filter(|l| l.is_ours())
                    .map(|l| l.name.as_str())
                    .collect();
                assert_eq!(ours, ["good"]);
            },
        );
    }
}
