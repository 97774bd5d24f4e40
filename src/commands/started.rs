//! What becomes of containers that were started: the LAN learns where they are, and those that die at once are told about.

use super::Context;
use crate::error::Error;
use crate::plan::{CompleteService, Env, Mac, Restart};
use crate::state::Container;
use crate::system::docker::Engine;
use crate::system::{Machine, arp, cgroups};
use futures_util::future::try_join_all;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

/// A container that was started, and how long that took.
pub struct Started {
    /// Its name.
    pub name: String,
    /// How long the Engine took for it.
    pub took: Duration,
}

/// How long after the last start homelab looks whether all that was started lives, at least and at most. In between it is a
/// quarter of the time that the start took: a program that ends by itself does so in less, on this machine as on a slow one.
const ALIVE_AFTER: [Duration; 2] = [Duration::from_millis(40), Duration::from_millis(500)];

impl Context<'_> {
    /// Announces the containers that were started and looks a moment later whether all of them still live; the others are
    /// reported.
    pub(super) async fn settle(
        &self,
        machine: &Machine,
        services: &[CompleteService],
        started: &[Started],
    ) -> Result<bool, Error> {
        let Some(engine) = machine.engine.as_ref().filter(|_| !started.is_empty()) else {
            return Ok(true);
        };
        let [least, most] = ALIVE_AFTER;
        let longest = started.iter().map(|one| one.took).max().unwrap_or_default();
        let wait = tokio::time::sleep((longest / 4).clamp(least, most));
        let containers = engine.containers().await?;
        let is_started = |container: &&Container| started.iter().any(|s| s.name == container.name);
        let announced = try_join_all(self.plan.envs.iter().map(|env| async {
            let owners = owners(env, containers.iter().filter(is_started));
            announce(&self.plan.shim_name_of(env), &owners).await
        }));
        let ((), announced) = tokio::join!(wait, announced);
        announced?;
        let containers = engine.containers().await?;
        let exits = self.exits(engine, &containers, services, started).await?;
        self.report.exits(&exits);
        Ok(exits.is_empty())
    }

    /// How those ended that did.
    async fn exits(
        &self,
        engine: &Engine,
        containers: &[Container],
        services: &[CompleteService],
        started: &[Started],
    ) -> Result<Vec<crate::state::ContainerExit>, Error> {
        // The list does not tell how often the Engine started one again.
        let again = services
            .iter()
            .filter(|service| service.restart != Restart::No);
        let again: BTreeSet<String> = again.map(|service| service.container()).collect();
        // With a slice goes systemd's cgroup driver, so that processes can be seen before the Engine sees that they are gone.
        let mut services = services.iter();
        let env = services.next().and_then(|first| self.plan.env(&first.env));
        let has_scopes = env.is_some_and(|env| self.plan.slice(env).is_some());
        let exits = started.iter().map(|Started { name, .. }| {
            let found = containers.iter().find(|container| container.name == *name);
            let again = again.contains(name);
            async move {
                let Some(found) = found else {
                    return Ok(None);
                };
                if found.state == "running" && has_scopes && !cgroups::has_processes(&found.id) {
                    return engine.exit_soon(name).await;
                }
                let lives = found.state == "running" || found.exit_code == Some(0);
                if lives && !again {
                    return Ok(None);
                }
                engine.exit(name).await
            }
        });
        let exits = try_join_all(exits).await?;
        Ok(exits.into_iter().flatten().collect())
    }
}

/// The addresses of containers on an environment's LAN, with the hardware address of each.
fn owners<'s>(env: &Env, containers: impl Iterator<Item = &'s Container>) -> Vec<(Ipv4Addr, Mac)> {
    let network = env.network();
    let endpoints = containers.filter_map(|container| container.networks.get(&network));
    endpoints
        .filter_map(|endpoint| Some((endpoint.address?, endpoint.mac?)))
        .collect()
}

/// Tells the LAN where addresses are now: whoever knows them elsewhere, and switches, learn it at once.
async fn announce(link: &str, owners: &[(Ipv4Addr, Mac)]) -> Result<(), Error> {
    if arp::is_permitted() {
        arp::announce(link, owners).await?;
    }
    Ok(())
}
