//! Asks the kernel, systemd and the Engine what there is. Reads only.

use crate::diff::allocation;
use crate::error::{Diagnostic, Error};
use crate::plan::naming::slice_name;
use crate::plan::{CompleteService, Env, Plan};
use crate::state::{ContainerHealth, Docker, State};
use crate::system::docker::Engine;
use crate::system::netlink::Netlink;
use crate::system::{Machine, cgroups, systemd};
use futures_util::future::try_join_all;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::SystemTime;

/// The links and routes alone.
///
/// # Errors
/// When the kernel fails.
pub async fn links(netlink: &Netlink) -> Result<State, Error> {
    let (links, routes) = netlink.links_and_routes().await?;
    Ok(State {
        net_admin: Netlink::has_net_admin(),
        links,
        routes,
        ..State::default()
    })
}

/// Links, routes, slices, networks and containers.
///
/// # Errors
/// When the kernel or a running Engine fails; an Engine that cannot be reached is part of the state.
pub async fn machine(plan: &Plan) -> Result<(Machine, State), Error> {
    let netlink = Netlink::connect()?;
    let state = links(&netlink).await?;
    let slices: Vec<String> = plan.envs.iter().map(|env| slice_name(&env.name)).collect();
    let slices = systemd::observe(&slices);
    let own = state.own_addresses();
    let (systemd, docker) = tokio::join!(slices, engine(&own));
    let state = State {
        systemd: systemd?,
        ..state
    };
    match docker? {
        Err(missing) => {
            let state = State {
                docker_missing: Some(missing),
                ..state
            };
            let machine = Machine {
                netlink,
                engine: None,
            };
            Ok((machine, state))
        }
        Ok((engine, docker)) => {
            let machine = Machine {
                netlink,
                engine: Some(engine),
            };
            Ok((machine, State { docker, ..state }))
        }
    }
}

/// The Engine alone, for those who only look at containers.
///
/// # Errors
/// When a running Engine fails; one that cannot be reached is part of the state.
pub async fn engine_alone() -> Result<(Option<Engine>, State), Error> {
    let engine = match Engine::connect(&[]).await {
        Ok(engine) => engine,
        Err(missing) => {
            let state = State {
                docker_missing: Some(missing),
                ..State::default()
            };
            return Ok((None, state));
        }
    };
    let docker = Docker {
        version: engine.version.clone(),
        api: engine.api,
        containers: engine.containers().await?,
        ..Docker::default()
    };
    let state = State {
        docker,
        ..State::default()
    };
    Ok((Some(engine), state))
}

/// The Engine and what it has, or why it cannot be used.
async fn engine(own: &[Ipv4Addr]) -> Result<Result<(Engine, Docker), Diagnostic>, Error> {
    let engine = match Engine::connect(own).await {
        Ok(engine) => engine,
        Err(missing) => return Ok(Err(missing)),
    };
    let (networks, containers) = tokio::try_join!(engine.networks(), engine.containers())?;
    let running = containers.iter().filter(|c| c.state == "running");
    let cgroup_driver = if cgroups::has_scope_of_running_engine(running.map(|c| c.id.as_str())) {
        "systemd".to_owned()
    } else {
        engine.cgroup_driver().await?
    };
    let docker = Docker {
        version: engine.version.clone(),
        api: engine.api,
        cgroup_driver,
        networks,
        containers,
        ..Docker::default()
    };
    Ok(Ok((engine, docker)))
}

/// How every container of ours is, by name.
///
/// # Errors
/// When the Engine fails.
pub async fn health(
    machine: &Machine,
    state: &State,
) -> Result<BTreeMap<String, ContainerHealth>, Error> {
    let Some(engine) = &machine.engine else {
        return Ok(BTreeMap::new());
    };
    let now = SystemTime::now();
    let ours = state.docker.containers.iter();
    let ours = ours.filter(|container| container.service().is_some());
    let all = ours.map(|container| async move {
        let health = engine.health(&container.name, now).await?;
        Ok::<_, Error>((container.name.clone(), health))
    });
    Ok(try_join_all(all).await?.into_iter().collect())
}

/// Whether the LAN is asked who has an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lan {
    /// For services that are about to get one of the free addresses.
    Asked,
    /// Where nobody gets one.
    LeftAlone,
}

/// Adds to a state what the services of an environment need: their images, volumes and, for those without an address, who
/// on the LAN has one of the free ones.
///
/// # Errors
/// When the kernel or the Engine fails.
pub async fn services(
    machine: &Machine,
    plan: &Plan,
    env: &Env,
    services: &[CompleteService],
    lan: Lan,
    state: &mut State,
) -> Result<(), Error> {
    let Some(engine) = &machine.engine else {
        return Ok(());
    };
    let names: BTreeSet<&str> = services.iter().map(|s| s.image.as_str()).collect();
    let images = async {
        if names.is_empty() {
            return Ok(BTreeMap::new());
        }
        engine.images(&names).await
    };
    let needs_volumes = services.iter().any(|s| s.named_volumes().next().is_some());
    let volumes = async {
        if needs_volumes {
            engine.volumes().await
        } else {
            Ok(Vec::new())
        }
    };
    let answered = async {
        match lan {
            Lan::Asked => answering(machine, plan, env, services, state).await,
            Lan::LeftAlone => Ok(Vec::new()),
        }
    };
    let (images, volumes, answered) = tokio::try_join!(images, volumes, answered)?;
    state.docker.images = images;
    state.docker.volumes = volumes;
    state.answered = answered;
    Ok(())
}

/// Asks the LAN for free addresses, from the lowest, until there are enough for the services that need one. The shim asks:
/// it hears the containers of this host too, and the plan knows the hosts.
async fn answering(
    machine: &Machine,
    plan: &Plan,
    env: &Env,
    services: &[CompleteService],
    state: &State,
) -> Result<Vec<Ipv4Addr>, Error> {
    let needed = services
        .iter()
        .filter(|service| {
            service.is_on_lan
                && service.address.is_none()
                && allocation::sticky(plan, env, service, state).is_none()
        })
        .count();
    let mut answered = Vec::new();
    if needed == 0 {
        return Ok(answered);
    }
    let candidates: Vec<Ipv4Addr> = allocation::available(plan, env, state).collect();
    let mut unanswered = 0;
    for asked in candidates.chunks(needed.max(4)) {
        let found = machine.netlink.arp_probe(&plan.shim_name, asked).await?;
        unanswered += asked.len() - found.len();
        answered.extend(found);
        if unanswered >= needed {
            break;
        }
    }
    Ok(answered)
}
