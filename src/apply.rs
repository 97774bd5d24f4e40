//! Carries steps out: the only code that changes the machine. It runs what is ready, all of it at once, and decides nothing.

use crate::diff::{Action, Step, StepId};
use crate::error::{Blocker, Failure, INTERRUPTED};
use crate::plan::unit_files;
use crate::system::Machine;
use crate::system::docker::Progress;
use crate::system::systemd;
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
    Pulling(&'a Step, Progress),
    /// A step is done, after this long.
    Done(&'a Step, Duration),
    /// A step failed.
    Failed(&'a Step),
}

/// How many containers are taken down at once. More of them make the Engine slower at all of them: 50 containers, eight at
/// once, go down in three quarters of the time that they take all at once (`tests/bench.sh`, two processors). What is
/// made and started gains nothing by it.
const AT_ONCE: usize = 8;

/// After this long a stop is taken to wait for its grace period rather than to work, and makes room.
const WORKING: Duration = Duration::from_millis(300);

type Running<'a> =
    std::pin::Pin<Box<dyn Future<Output = (&'a Step, Result<(), Failure>, Duration)> + 'a>>;

/// Carries out every step whose predecessors are done, and tells `report` what happens. After a failure the steps
/// that wait for it are left out and the others still run. When `interrupted` is over nothing more is begun; what waits or pulls
/// is let go, and what changes something is carried to its end.
///
/// # Errors
/// Every step that failed.
pub async fn apply(
    steps: &[Step],
    machine: &Machine,
    interrupted: impl Future<Output = ()>,
    report: impl FnMut(Event),
) -> Result<(), Failure> {
    let report = RefCell::new(report);
    let mut interrupted = std::pin::pin!(interrupted);
    let mut is_stopped = false;
    let mut course = Course::new(steps);
    let mut running: FuturesUnordered<Running> = FuturesUnordered::new();
    // Those that change nothing, so that they can be let go.
    let mut patient: FuturesUnordered<Running> = FuturesUnordered::new();
    let mut failures: Vec<Blocker> = Vec::new();
    loop {
        course.look_for_ready();
        while !is_stopped && let Some(step) = course.next() {
            (report.borrow_mut())(Event::Begun(step));
            let report = &report;
            let future: Running = Box::pin(async move {
                let begun = Instant::now();
                let result = carry_out(step, machine, report).await;
                (step, result, begun.elapsed())
            });
            if is_patient(step) {
                patient.push(future);
            } else {
                running.push(future);
            }
        }
        if running.is_empty() && patient.is_empty() {
            break;
        }
        let room = course.room().unwrap_or(WORKING);
        let (step, result, elapsed) = tokio::select! {
            Some(over) = running.next() => over,
            Some(over) = patient.next() => over,
            () = tokio::time::sleep(room), if !is_stopped && !course.ready.is_empty() => continue,
            () = &mut interrupted, if !is_stopped => {
                is_stopped = true;
                patient.clear();
                continue;
            }
        };
        let event = match result {
            Ok(()) => Event::Done(step, elapsed),
            Err(failure) => {
                failures.extend(failure.blockers);
                Event::Failed(step)
            }
        };
        course.over(step, matches!(event, Event::Done(..)));
        (report.borrow_mut())(event);
    }
    course.result(steps.len(), is_stopped, failures)
}

/// Whether a step takes a container down.
fn takes_down(step: &Step) -> bool {
    matches!(
        step.action,
        Action::StopContainer { .. } | Action::RemoveContainer { .. }
    )
}

/// Whether a step waits for others and changes nothing by itself.
fn is_patient(step: &Step) -> bool {
    matches!(step.action, Action::Await { .. } | Action::Pull { .. })
}

/// Where the steps of a run are.
struct Course<'a> {
    /// Those whose predecessors are not over.
    waiting: Vec<&'a Step>,
    /// Those that may begin.
    ready: Vec<&'a Step>,
    /// When those began that take containers down.
    begun: BTreeMap<StepId, Instant>,
    done: BTreeSet<StepId>,
    failed: BTreeSet<StepId>,
}

impl<'a> Course<'a> {
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
            let is_over = |id: &StepId| done.contains(id) || failed.contains(id);
            let is_ready = |step: &&Step| {
                step.after.iter().all(|id| done.contains(id)) && step.after_end.iter().all(is_over)
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
        let working = working.filter(|begun| now.duration_since(**begun) < WORKING);
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
    fn room(&self) -> Option<Duration> {
        let ages = self.begun.values().map(Instant::elapsed);
        ages.filter_map(|age| WORKING.checked_sub(age)).min()
    }

    fn over(&mut self, step: &Step, is_done: bool) {
        self.begun.remove(&step.id);
        if is_done {
            self.done.insert(step.id);
        } else {
            self.failed.insert(step.id);
        }
    }

    /// What came of all of them.
    fn result(
        self,
        all: usize,
        is_stopped: bool,
        mut failures: Vec<Blocker>,
    ) -> Result<(), Failure> {
        let left = all - self.done.len();
        if is_stopped && left > 0 {
            failures.push(Blocker::new(
                format!("interrupted: {left} of {all} steps were not carried out"),
                "run the command again; it goes on where it stopped",
            ));
            return Err(Failure {
                status: INTERRUPTED,
                blockers: failures,
            });
        }
        if failures.is_empty() {
            return Ok(());
        }
        let waiting = self.waiting.len();
        if waiting > 0 {
            failures.push(Blocker::new(
                format!("{waiting} of {all} steps were not carried out: they wait for what failed"),
                "run the command again when the cause is gone; it goes on where it stopped",
            ));
        }
        Err(failures.into())
    }
}

async fn carry_out(
    step: &Step,
    machine: &Machine,
    report: &RefCell<impl FnMut(Event)>,
) -> Result<(), Failure> {
    let netlink = &machine.netlink;
    let engine = || {
        machine.engine.as_ref().ok_or_else(|| {
            Failure::new(
                "there is no Docker Engine to do this",
                "start it with `systemctl start docker`",
            )
        })
    };
    match &step.action {
        Action::AddLink { name, parent, mac } => netlink.add_macvlan(name, parent, mac).await,
        Action::DeleteLink { name } => netlink.delete_link(name).await,
        Action::SetAlias { name, alias } => netlink.set_alias(name, alias).await,
        Action::SetArpFilter { name } => netlink.set_arp_filter(name).await,
        Action::AddAddress { name, address } => netlink.add_address(name, *address).await,
        Action::SetUp { name } => netlink.set_up(name).await,
        Action::AddRoute(route) => netlink.add_route(route).await,
        Action::DeleteRoute(route) => netlink.delete_route(route).await,
        Action::WriteSlice { slice, is_new: _ } => {
            systemd::write_slice(&slice.name, &unit_files::slice(slice))
        }
        Action::ApplySlice { name } => systemd::apply_slice(name).await,
        Action::RemoveFile { path } => systemd::remove(path),
        Action::ReloadSystemd => systemd::reload().await,
        Action::StopUnit { name } => systemd::stop(name).await,
        Action::StartUnit { name } => systemd::start(name).await,
        Action::RestartUnit { name } => systemd::restart(name).await,
        Action::EnableUnit { name } => systemd::enable(name).await,
        Action::DisableUnit { name } => systemd::disable(name).await,
        Action::ReloadManager { name } => systemd::reload_manager(name).await,
        Action::WriteFile {
            path,
            text,
            is_new: _,
        } => systemd::write_file(path, text),
        Action::CreateNetwork(network) => engine()?.create_network(network).await,
        Action::RemoveNetwork { name, id } => engine()?.remove_network(name, id).await,
        Action::CreateExtraNetwork(network) => engine()?.create_extra_network(network).await,
        Action::Pull { image, platform } => {
            let tell = |progress| (report.borrow_mut())(Event::Pulling(step, progress));
            engine()?.pull(image, platform.as_deref(), tell).await
        }
        Action::CreateVolume(volume) => engine()?.create_volume(volume).await,
        Action::JoinNetwork {
            name,
            service,
            attachment,
        } => engine()?.join_network(name, service, attachment).await,
        Action::PutFiles { name, files } => engine()?.put_files(name, files).await,
        Action::ReplaceContainer { name, old } => engine()?.replace_container(name, old).await,
        Action::RestartContainer { name } => engine()?.restart_container(name).await,
        Action::Await {
            name,
            condition,
            is_required,
        } => match engine()?.until(name, *condition).await {
            Err(_) if !is_required => Ok(()),
            result => result,
        },
        Action::CreateContainer(new) => {
            for warning in engine()?.create_container(new).await? {
                (report.borrow_mut())(Event::Warned(step, &warning));
            }
            Ok(())
        }
        Action::StartContainer { name } => engine()?.start_container(name).await,
        Action::StopContainer { name } => engine()?.stop_container(name).await,
        Action::RemoveContainer { name } => engine()?.remove_container(name).await,
    }
}

#[cfg(test)]
mod tests {
    //! Against real links, in a network namespace of their own.

    use super::*;
    use crate::system::netlink::tests::in_a_namespace;

    fn step(id: StepId, action: Action, after: &[StepId]) -> Step {
        Step {
            id,
            action,
            cause: String::new(),
            after: after.to_vec(),
            after_end: Vec::new(),
        }
    }

    fn add(name: &str, parent: &str, last: u8) -> Action {
        Action::AddLink {
            name: name.to_owned(),
            parent: parent.to_owned(),
            mac: format!("02:00:00:00:00:{last:02x}"),
        }
    }

    fn alias(name: &str) -> Action {
        Action::SetAlias {
            name: name.to_owned(),
            alias: "homelab: test".to_owned(),
        }
    }

    #[test]
    fn no_more_is_taken_down_than_there_is_room_for() {
        let stop = Action::StopContainer {
            name: "x".to_owned(),
        };
        let mut steps: Vec<Step> = (1..=10).map(|id| step(id, stop.clone(), &[])).collect();
        steps.push(step(11, alias("x"), &[]));
        let mut course = Course::new(&steps);
        let next = |course: &mut Course| -> Vec<StepId> {
            course.look_for_ready();
            std::iter::from_fn(|| course.next())
                .map(|step| step.id)
                .collect()
        };
        assert_eq!(next(&mut course), [1, 2, 3, 4, 5, 6, 7, 8, 11]);
        assert!(course.room().is_some_and(|room| room <= WORKING));
        steps
            .get(2)
            .into_iter()
            .for_each(|step| course.over(step, true));
        assert_eq!(next(&mut course), [9]);
        // Who takes long waits for something, and others go on.
        let long_ago = Instant::now().checked_sub(WORKING);
        course.begun.extend(long_ago.map(|ago| (1, ago)));
        assert_eq!(next(&mut course), [10]);
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
                        Action::Pull {
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
                let failure = result.err().map(|failure| failure.to_string());
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
