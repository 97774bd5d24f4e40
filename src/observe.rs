//! Asks the kernel, systemd and the Engine what there is. Reads only.

use crate::diff::{lan, preflight, ways};
use crate::error::{Diagnostic, Error};
use crate::plan::naming::slice_name;
use crate::plan::{CompleteService, Env, Host, Plan, PlannedShim, PlannedSlice};
use crate::state::{Answer, Container, ContainerHealth, Docker, State, Trial, Way};
use crate::system::docker::Engine;
use crate::system::netlink::Netlink;
use crate::system::{Machine, arp, can_have_net_raw, cgroups, filter, systemd};
use futures_util::future::try_join_all;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher as _, RandomState};
use std::net::Ipv4Addr;
use std::time::SystemTime;

/// The links and routes alone.
///
/// # Errors
/// When the kernel fails.
pub async fn links(netlink: &Netlink) -> Result<State, Error> {
    let (links, routes) = netlink.links_and_routes().await?;
    Ok(State {
        seed: RandomState::new().hash_one(0),
        net_admin: Netlink::has_net_admin(),
        ipv6_switch: Netlink::has_ipv6_switch(),
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

/// The same, and whether the kernel refuses what the slices of these environments deny, where they are active. Only root can try that.
///
/// # Errors
/// As [`machine`].
pub async fn machine_and_filters(plan: &Plan, envs: &[Env]) -> Result<(Machine, State), Error> {
    let slices = envs.iter().filter_map(|env| plan.slice(env));
    let slices: Vec<PlannedSlice> = slices.collect();
    let may_try = Netlink::has_net_admin();
    let running = async {
        if !may_try {
            return Ok(Vec::new());
        }
        try_join_all(slices.iter().map(try_running)).await
    };
    let (found, trials) = tokio::join!(machine(plan), running);
    let (machine, mut state) = found?;
    for (slice, trial) in slices.iter().zip(trials?) {
        let found = state.systemd.slices.iter_mut();
        let Some(found) = found.into_iter().find(|found| found.name == slice.name) else {
            continue;
        };
        found.trial = trial;
        if found.trial.is_none() && found.active && !slice.deny.is_empty() {
            let denied = slice.denied_addresses();
            // A slice whose file is cut off takes no scope, and what is wrong with it is found without.
            let trial = systemd::try_in_new_scope(&slice.name, &denied).await;
            found.trial = trial.ok().flatten();
        }
    }
    Ok((machine, state))
}

/// Whether the kernel refuses what a slice denies, in each container that runs in it.
async fn try_running(slice: &PlannedSlice) -> Result<Option<Trial>, Error> {
    let scopes = systemd::running_scopes().into_iter();
    let scopes = scopes.filter(|scope| scope.slice == slice.name);
    let scopes = scopes.map(|scope| (scope.unit, scope.cgroup));
    let scopes: Vec<(String, String)> = scopes.collect();
    filter::try_scopes(&slice.denied_addresses(), &scopes).await
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
    // What takes the Engine longest is asked at once where nothing else can tell it.
    let nothing_tells = cgroups::scopes_by_container().is_empty();
    let driver = async {
        if nothing_tells {
            return engine.cgroup_driver().await.map(Some);
        }
        Ok(None)
    };
    let (networks, mut containers, driver) =
        tokio::try_join!(engine.networks(), engine.containers(), driver)?;
    look_at_processes(&engine, &mut containers).await?;
    let running = containers.iter().filter(|c| c.state == "running");
    let cgroup_driver = match driver {
        Some(driver) => driver,
        None if cgroups::has_scope_of_running_engine(running.map(|c| c.id.as_str())) => {
            "systemd".to_owned()
        }
        None => engine.cgroup_driver().await?,
    };
    let docker = Docker {
        version: engine.version.clone(),
        api: engine.api,
        cgroup_driver,
        started: cgroups::engine_started(),
        networks,
        containers,
        ..Docker::default()
    };
    Ok(Ok((engine, docker)))
}

/// Adds to containers of ours which slice their processes are in, and whether they have `NET_RAW`. Of one that does not run the Engine
/// says how they will be.
async fn look_at_processes(engine: &Engine, containers: &mut [Container]) -> Result<(), Error> {
    let by_container = &cgroups::scopes_by_container();
    let ours = containers
        .iter_mut()
        .filter(|found| found.service().is_some());
    let found = ours.map(|container| async move {
        let has_processes = matches!(container.state.as_str(), "running" | "paused");
        let scope = by_container.get(&container.id);
        let process = match scope.and_then(|scope| scope.process) {
            None if has_processes => engine.process(&container.id).await?,
            process => process,
        };
        container.slice = scope.map(|scope| scope.slice.clone());
        if let Some(process) = process {
            container.net_raw = can_have_net_raw(process);
            if container.slice.is_none() {
                container.slice = cgroups::slice_of_process(process);
            }
        } else if let Some(made) = engine.at_start(&container.id).await? {
            container.net_raw = Some(made.net_raw);
            container.slice.get_or_insert(made.slice);
        }
        Ok::<_, Error>(())
    });
    try_join_all(found).await?;
    Ok(())
}

/// Which way packets to containers go, as the kernel says.
///
/// # Errors
/// When the kernel does not answer.
pub async fn ways(netlink: &Netlink, plan: &Plan, state: &State) -> Result<Vec<Way>, Error> {
    netlink.ways(ways::asked(plan, state)).await
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

/// How many addresses more than needed are asked about where the plan leaves the choice: some of them may be taken.
const SPARE: usize = 8;

/// For whom the LAN is asked who has an address.
#[derive(Clone, Copy, Debug)]
pub enum Lan<'a> {
    /// For services of this host that are about to take addresses.
    Asked(&'a Host),
    /// Where nobody takes one.
    LeftAlone,
}

/// Adds to a state what the services of an environment need: their images, volumes and, for those that take a new address, who
/// on the LAN has it. The shim asks: it hears the containers of this host too.
///
/// # Errors
/// When the kernel or the Engine fails.
pub async fn services(
    machine: &Machine,
    plan: &Plan,
    env: &Env,
    services: &[CompleteService],
    lan: Lan<'_>,
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
    let (images, volumes) = tokio::try_join!(images, volumes)?;
    state.docker.images = images;
    state.docker.volumes = volumes;
    if let Lan::Asked(host) = lan {
        let asked = ask_for_new(plan, env, host, services, state).await?;
        if state.answered.iter().any(|it| asked.contains(&it.address)) {
            look_for_late_starts(engine, state).await?;
        }
    }
    Ok(())
}

/// Looks again at containers of ours that did not run: the Engine may have been starting one for a run that was killed, and then it
/// is the container itself that answered for its address.
async fn look_for_late_starts(engine: &Engine, state: &mut State) -> Result<(), Error> {
    let ours = state.docker.containers.iter();
    let ours = ours.filter(|found| found.service().is_some() && !found.is_running());
    let names: Vec<String> = ours.map(|found| found.name.clone()).collect();
    // The Engine answers as soon as it is done with a container.
    let done = names
        .iter()
        .map(|name| engine.health(name, SystemTime::now()));
    try_join_all(done).await?;
    let mut containers = engine.containers().await?;
    look_at_processes(engine, &mut containers).await?;
    let late = containers.iter().filter(|found| found.is_running());
    let late = late.filter(|found| names.contains(&found.name));
    let late = late.flat_map(|found| found.networks.values());
    let own: BTreeSet<Answer> = late
        .filter_map(|endpoint| {
            let (address, mac) = (endpoint.address?, endpoint.mac?);
            Some(Answer { address, mac })
        })
        .collect();
    state.answered.retain(|answer| !own.contains(answer));
    state.docker.containers = containers;
    Ok(())
}

/// Asks the LAN until everybody who takes a new address has one that nobody answers for; what it was asked for. One round is enough
/// unless many of those that the plan leaves open are taken.
async fn ask_for_new(
    plan: &Plan,
    env: &Env,
    host: &Host,
    services: &[CompleteService],
    state: &mut State,
) -> Result<BTreeSet<Ipv4Addr>, Error> {
    let mut asked = BTreeSet::new();
    // Without a shim nothing is taken.
    let shim = plan.shim_of(env, host);
    let shim = shim.filter(|shim| state.link(&shim.name).is_some_and(|link| link.up));
    let Some(shim) = shim else {
        return Ok(asked);
    };
    loop {
        let new =
            |state: &State, spare| lan::new_addresses(plan, env, host, services, state, spare);
        if new(state, 0).is_subset(&asked) {
            return Ok(asked);
        }
        if !arp::is_permitted() {
            state.lan_unasked = true;
            return Ok(asked);
        }
        let next: BTreeSet<Ipv4Addr> = new(state, SPARE).difference(&asked).copied().collect();
        let answers = ask(&shim.name, &shim, plan, host, next.iter().copied()).await?;
        state.answered.extend(answers);
        asked.extend(next);
    }
}

/// Asks the LAN of a shim, by a link, who has addresses, and in the same second who the other hosts are, where they are on it.
async fn ask(
    link: &str,
    shim: &PlannedShim<'_>,
    plan: &Plan,
    host: &Host,
    addresses: impl Iterator<Item = Ipv4Addr>,
) -> Result<Vec<Answer>, Error> {
    let all = addresses.chain(lan::other_hosts(plan, host));
    let here: Vec<Ipv4Addr> = lan::on_its_lan(plan, shim, all).into_iter().collect();
    arp::probe(link, &here).await
}

/// Who on a shim's LAN has its address, which is about to be taken. The parent asks, as there may be no shim yet.
///
/// # Errors
/// When the kernel fails.
pub async fn shim_holders(
    parent: &str,
    shim: &PlannedShim<'_>,
    plan: &Plan,
    host: &Host,
) -> Result<Vec<Answer>, Error> {
    ask(parent, shim, plan, host, std::iter::once(shim.address)).await
}

/// Who else has addresses that are this host's, on each LAN that it is on. The parents ask: they hear neither this host nor its
/// containers, so that every answer is somebody else's, even one from the same hardware address. Nobody where this process may not
/// ask, or a parent is not fit.
///
/// # Errors
/// When the kernel fails.
pub async fn duplicates(plan: &Plan, host: &Host, state: &State) -> Result<Vec<Answer>, Error> {
    if !arp::is_permitted() {
        return Ok(Vec::new());
    }
    let own: Vec<Ipv4Addr> = lan::own_addresses(plan, host, state).into_keys().collect();
    let asked = plan.shims(host).filter_map(|shim| {
        let parent = preflight::parent_of(&shim, plan, host, state).ok()?;
        let own = own.clone();
        Some(async move { ask(&parent.name, &shim, plan, host, own.into_iter()).await })
    });
    Ok(try_join_all(asked).await?.concat())
}
