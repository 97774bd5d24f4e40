//! Carries steps out: the only code that changes the machine. It runs what is ready, all of it at once, and decides nothing.

use crate::diff::{Action, Step, StepId};
use crate::docker::Engine;
use crate::failure::{Blocker, Failure};
use crate::netlink::Netlink;
use crate::observe::Machine;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Carries out every step whose predecessors are done, and tells `report` of each one when it begins,
/// and again with its duration when it is done. After a failure the steps
/// that wait for it are left out and the others still run.
///
/// # Errors
/// Every step that failed.
pub async fn apply(
    steps: &[Step],
    machine: &Machine,
    mut report: impl FnMut(&Step, Option<Duration>),
) -> Result<(), Failure> {
    let mut waiting: Vec<&Step> = steps.iter().collect();
    let mut done: BTreeSet<StepId> = BTreeSet::new();
    let mut running = FuturesUnordered::new();
    let mut failures: Vec<Blocker> = Vec::new();
    loop {
        let is_ready = |step: &&Step| step.after.iter().all(|id| done.contains(id));
        let (ready, later): (Vec<&Step>, Vec<&Step>) = waiting.into_iter().partition(is_ready);
        waiting = later;
        for step in &ready {
            report(step, None);
        }
        running.extend(ready.into_iter().map(|step| async move {
            let begun = Instant::now();
            (
                step,
                carry_out(&step.action, machine).await,
                begun.elapsed(),
            )
        }));
        match running.next().await {
            None => break,
            Some((step, Ok(()), elapsed)) => {
                done.insert(step.id);
                report(step, Some(elapsed));
            }
            Some((_, Err(failure), _)) => failures.extend(failure.blockers),
        }
    }
    if failures.is_empty() {
        return Ok(());
    }
    if !waiting.is_empty() {
        failures.push(Blocker::new(
            format!(
                "{} of {} steps were not carried out: they wait for what failed",
                waiting.len(),
                steps.len()
            ),
            "run the command again when the cause is gone; it goes on where it stopped",
        ));
    }
    Err(failures.into())
}

async fn carry_out(action: &Action, machine: &Machine) -> Result<(), Failure> {
    let netlink = &machine.netlink;
    match action {
        Action::AddLink { name, parent, mac } => netlink.add_macvlan(name, parent, mac).await,
        Action::DeleteLink { name } => netlink.delete_link(name).await,
        Action::SetAlias { name, alias } => netlink.set_alias(name, alias).await,
        Action::SetArpFilter { name } => Netlink::set_arp_filter(name),
        Action::AddAddress { name, address } => netlink.add_address(name, *address).await,
        Action::SetUp { name } => netlink.set_up(name).await,
        Action::AddRoute(route) => netlink.add_route(route).await,
        Action::DeleteRoute(route) => netlink.delete_route(route).await,
        action => match &machine.engine {
            Some(engine) => ask_engine(action, engine).await,
            None => Err(Failure::new(
                "there is no Docker Engine to do this",
                "start it with `systemctl start docker`",
            )),
        },
    }
}

async fn ask_engine(action: &Action, engine: &Engine) -> Result<(), Failure> {
    match action {
        Action::CreateNetwork(network) => engine.create_network(network).await,
        Action::RemoveNetwork { name, id } => engine.remove_network(name, id).await,
        Action::Pull { image } => engine.pull(image).await,
        Action::CreateVolume { name, env } => engine.create_volume(name, env).await,
        Action::CreateContainer(new) => engine.create_container(new).await,
        Action::StartContainer { name } => engine.start_container(name).await,
        Action::StopContainer { name } => engine.stop_container(name).await,
        Action::RemoveContainer { name } => engine.remove_container(name).await,
        Action::AddLink { .. }
        | Action::DeleteLink { .. }
        | Action::SetAlias { .. }
        | Action::SetArpFilter { .. }
        | Action::AddAddress { .. }
        | Action::SetUp { .. }
        | Action::AddRoute(_)
        | Action::DeleteRoute(_) => Ok(()),
    }
}
