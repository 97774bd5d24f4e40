//! Carries steps out: the only code that changes the machine. It runs what is ready, all of it at once, and decides nothing.

use crate::diff::{Action, Step, StepId};
use crate::failure::{Blocker, Failure};
use crate::observe::Machine;
use crate::{systemd, units};
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
    let engine = || {
        machine.engine.as_ref().ok_or_else(|| {
            Failure::new(
                "there is no Docker Engine to do this",
                "start it with `systemctl start docker`",
            )
        })
    };
    match action {
        Action::AddLink { name, parent, mac } => netlink.add_macvlan(name, parent, mac).await,
        Action::DeleteLink { name } => netlink.delete_link(name).await,
        Action::SetAlias { name, alias } => netlink.set_alias(name, alias).await,
        Action::SetArpFilter { name } => netlink.set_arp_filter(name).await,
        Action::AddAddress { name, address } => netlink.add_address(name, *address).await,
        Action::SetUp { name } => netlink.set_up(name).await,
        Action::AddRoute(route) => netlink.add_route(route).await,
        Action::DeleteRoute(route) => netlink.delete_route(route).await,
        Action::WriteSlice { slice, is_new: _ } => {
            systemd::write_slice(&slice.name, &units::slice(slice))
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
        Action::Pull { image } => engine()?.pull(image).await,
        Action::CreateVolume { name, env } => engine()?.create_volume(name, env).await,
        Action::CreateContainer(new) => engine()?.create_container(new).await,
        Action::StartContainer { name } => engine()?.start_container(name).await,
        Action::StopContainer { name } => engine()?.stop_container(name).await,
        Action::RemoveContainer { name } => engine()?.remove_container(name).await,
    }
}

#[cfg(test)]
mod tests {
    //! Against real links, in a network namespace of their own.

    use super::*;
    use crate::netlink::tests::in_a_namespace;

    fn step(id: StepId, action: Action, after: &[StepId]) -> Step {
        Step {
            id,
            action,
            cause: String::new(),
            after: after.to_vec(),
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
                        },
                        &[],
                    ),
                ];
                let machine = Machine {
                    netlink: netlink.clone(),
                    engine: None,
                };
                let (mut begun, mut done) = (Vec::new(), Vec::new());
                let result = apply(&steps, &machine, |step, elapsed| match elapsed {
                    None => begun.push(step.id),
                    Some(_) => done.push(step.id),
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
