//! Proves with packets who can reach whom: starts processes in the containers of the environments, has them ask each other, and
//! compares the answers with the plan.

pub mod agent;
mod agents;
pub mod matrix;
mod questions;

use crate::error::Error;
use crate::plan::{Host, Isolation, Plan, PlannedShim};
use crate::state::State;
use crate::system::Machine;
use crate::system::cgroups;
use crate::system::docker::Engine;
use crate::system::netlink::room_for_neighbours;
use crate::verify::agent::{Place, Target};
use agents::Agent;
use futures_util::future::{join_all, try_join_all};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use matrix::{Matrix, Node, Probe, Role};
use questions::Question;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

/// How many containers the Engine is asked about at once; each question is a connection.
const QUESTIONS_TO_ENGINE: usize = 16;

/// Has everybody asked that must be, wave by wave: so many as the kernel's table of neighbours has room for.
///
/// # Errors
/// When a container cannot be entered.
pub async fn run(
    plan: &Plan,
    host: &Host,
    machine: &Machine,
    state: &State,
) -> Result<Matrix, Error> {
    let mut nodes = machines(plan, host);
    if let Some(engine) = &machine.engine {
        nodes.extend(containers(plan, engine, state).await?);
    }
    nodes.extend(elsewhere(plan, host));
    // Of each wave; those of this host itself answer all the time.
    let machines = (0..nodes.len()).filter(|place| is_machine(&nodes, *place));
    let mut agents = start(&nodes, machines).await?;
    let mut questions = questions::questions(&nodes);
    if plan.isolation == Isolation::Off {
        // Then a router between two LANs decides.
        let lan = |place: &usize| nodes.get(*place).map(|node| &node.lan);
        let is_host = |place: &usize| nodes.get(*place).is_some_and(|n| n.role == Role::Host);
        questions.retain(|(source, target)| is_host(source) || lan(source) == lan(target));
    }
    let mut probes = ask_in_waves(plan, &nodes, &mut agents, &questions).await?;
    let again: Vec<Question> = probes
        .iter()
        .filter(|probe| may_be_lost(&nodes, probe))
        .map(|probe| (probe.source, probe.target))
        .collect();
    probes.extend(ask_in_waves(plan, &nodes, &mut agents, &again).await?);
    // Of two answers the one that came.
    let asked = |probe: &Probe| (probe.source, probe.target, probe.over);
    probes.sort_unstable_by_key(|probe| (asked(probe), !probe.answer.any()));
    probes.dedup_by_key(|probe| asked(probe));
    Ok(Matrix::new(plan, nodes, &probes))
}

/// Whether what was sent or the answer may have got lost. A request for a hardware address goes to every container, so that
/// among hundreds of them, on a busy machine, queues overflow (`net.core.netdev_max_backlog`); the kernel sends it again after a
/// second only. Those of other hosts may not run.
fn may_be_lost(nodes: &[Node], probe: &Probe) -> bool {
    let Probe {
        target,
        answer,
        over,
        ..
    } = probe;
    over.is_none()
        && !answer.any()
        && !answer.refused
        && nodes.get(*target).is_some_and(|node| node.is_here)
}

async fn ask_in_waves(
    plan: &Plan,
    nodes: &[Node],
    agents: &mut BTreeMap<usize, Agent>,
    questions: &[Question],
) -> Result<Vec<Probe>, Error> {
    let mut rest = questions;
    let mut probes = Vec::new();
    while !rest.is_empty() {
        let count = questions::wave(nodes, rest, room_for_neighbours());
        let (wave, later) = rest.split_at(count.max(1).min(rest.len()));
        probes.extend(ask(plan, nodes, agents, wave).await?);
        rest = later;
    }
    Ok(probes)
}

fn is_machine(nodes: &[Node], place: usize) -> bool {
    let node = nodes.get(place);
    node.is_some_and(|node| node.answers() && node.process.is_none())
}

async fn start(
    nodes: &[Node],
    places: impl Iterator<Item = usize>,
) -> Result<BTreeMap<usize, Agent>, Error> {
    let found = places.filter_map(|place| Some((place, nodes.get(place)?)));
    let starts = found.map(|(place, node)| async move {
        let agent = Agent::start(node).await?;
        Ok::<_, Error>((place, agent))
    });
    Ok(try_join_all(starts).await?.into_iter().collect())
}

/// Starts processes in the containers of a wave, has them ask, takes what that left in the table of neighbours out of it, and
/// ends them.
async fn ask(
    plan: &Plan,
    nodes: &[Node],
    machines: &mut BTreeMap<usize, Agent>,
    wave: &[Question],
) -> Result<Vec<Probe>, Error> {
    let ends: BTreeSet<usize> = wave.iter().flat_map(|(a, b)| [*a, *b]).collect();
    let guests = ends.iter().copied();
    let guests = guests.filter(|end| nodes.get(*end).is_some_and(|node| node.process.is_some()));
    let mut agents = start(nodes, guests).await?;
    let all = machines.iter().chain(&agents);
    let places: BTreeMap<usize, Place> = all
        .map(|(place, agent)| (*place, agent.place.clone()))
        .collect();
    let asking = machines.iter_mut().chain(&mut agents);
    let rounds = asking.map(|(place, agent)| {
        let asked = wave.iter().filter(|(source, _)| source == place);
        let (asked, targets): (Vec<(usize, Option<Ipv6Addr>)>, Vec<Target>) = asked
            .flat_map(|(source, target)| targets(plan, nodes, &places, (*source, *target)))
            .unzip();
        async move {
            let answers = agent.ask(targets).await?;
            let probe = |((target, over), answer)| Probe {
                source: *place,
                target,
                over,
                answer,
            };
            let probes = asked.into_iter().zip(answers).map(probe);
            Ok::<_, Error>(probes.collect::<Vec<_>>())
        }
    });
    let probes = try_join_all(rounds).await?.into_iter().flatten().collect();
    let asking = machines.iter_mut().chain(&mut agents);
    let forgetting = asking.filter_map(|(place, agent)| {
        let node = nodes.get(*place)?;
        Some(agent.forget(counterparts(nodes, wave, &node.id)))
    });
    try_join_all(forgetting).await?;
    join_all(agents.into_values().map(Agent::end)).await;
    Ok(probes)
}

/// What a question comes to: the target's address, and where the plan keeps the two apart and both have IPv6, each of its addresses of
/// that, and all nodes of the link (RFC 4291, section 2.7.1).
fn targets(
    plan: &Plan,
    nodes: &[Node],
    places: &BTreeMap<usize, Place>,
    (source, target): Question,
) -> Vec<((usize, Option<Ipv6Addr>), Target)> {
    const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let (Some(from), Some(to)) = (nodes.get(source), nodes.get(target)) else {
        return Vec::new();
    };
    let place = places.get(&target);
    let usual = Target {
        address: to.address.into(),
        ports: place.map(|place| place.ports),
        answers: Vec::new(),
    };
    let mut all = vec![((target, None), usual)];
    let has_ipv6 = places.get(&source).is_some_and(|own| own.ipv6.is_some());
    let ipv6 = place.and_then(|place| place.ipv6.as_ref());
    if let Some(ipv6) = ipv6.filter(|_| has_ipv6 && matrix::are_apart(plan, &from.role, &to.role)) {
        let addresses = ipv6.addresses.iter().copied();
        all.extend(addresses.chain([ALL_NODES]).map(|address| {
            let asked = Target {
                address: address.into(),
                ports: Some(ipv6.ports),
                answers: ipv6.addresses.clone(),
            };
            ((target, Some(address)), asked)
        }));
    }
    all
}

/// The addresses of whom a machine or container asked in a wave and by whom it was asked.
fn counterparts(nodes: &[Node], wave: &[Question], id: &str) -> BTreeSet<Ipv4Addr> {
    let id_of = |place: &usize| nodes.get(*place).map(|node| node.id.as_str());
    let others: BTreeSet<&str> = wave
        .iter()
        .filter_map(|(source, target)| match (id_of(source)?, id_of(target)?) {
            (source, target) if source == id => Some(target),
            (source, target) if target == id => Some(source),
            _ => None,
        })
        .collect();
    // The host asks from its shim's address.
    let theirs = nodes.iter().filter(|node| others.contains(&*node.id));
    theirs.map(|node| node.address).collect()
}

/// This host, and on each LAN that it is on the gateway and its shim.
fn machines(plan: &Plan, host: &Host) -> Vec<Node> {
    let node = |id: &str, role, name: &str, address, shim: Option<&PlannedShim>| Node {
        id: id.to_owned(),
        lan: shim.and_then(|shim| shim.env).map(|env| env.name.clone()),
        role,
        name: name.to_owned(),
        address,
        process: None,
        slice: None,
        made_for: None,
        is_here: true,
    };
    let mut nodes = vec![
        node("gateway", Role::Gateway, "gateway", plan.gateway, None),
        node("host", Role::Host, &host.name, host.address, None),
    ];
    for shim in plan.shims(host) {
        let (name, address) = (shim.name.as_str(), shim.address);
        if let Some(env) = shim.env {
            let (gateway, router) = (plan.gateway_of(env), format!("gateway of {}", env.name));
            nodes.push(node(&router, Role::Gateway, &router, gateway, Some(&shim)));
        }
        nodes.push(node("host", Role::Shim, name, address, Some(&shim)));
    }
    nodes
}

/// The running containers on the environments' networks, whoever made them.
async fn containers(plan: &Plan, engine: &Engine, state: &State) -> Result<Vec<Node>, Error> {
    let mut found = Vec::new();
    for env in &plan.envs {
        let network = env.network();
        for container in &state.docker.containers {
            let endpoint = container.networks.get(&network);
            let address = endpoint.and_then(|endpoint| endpoint.address);
            // Of one that is paused nothing would come back, and its process would be paused too.
            if let Some(address) = address.filter(|_| container.state == "running") {
                found.push((env.name.clone(), container, address));
            }
        }
    }
    let asked = found
        .into_iter()
        .map(|(env, container, address)| async move {
            let process = engine.process(&container.id).await?;
            Ok::<_, Error>(process.map(|process| Node {
                id: container.id.clone(),
                lan: lan_of(plan, &env),
                role: Role::Env(env),
                name: container.name.clone(),
                address,
                process: Some(process),
                slice: cgroups::slice_of_process(process),
                made_for: container.service().map(|(env, _)| env.to_owned()),
                is_here: true,
            }))
        });
    let asked = stream::iter(asked).buffer_unordered(QUESTIONS_TO_ENGINE);
    let found: Vec<Option<Node>> = asked.try_collect().await?;
    let mut nodes: Vec<Node> = found.into_iter().flatten().collect();
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(nodes)
}

/// The environment, where it has a LAN for its own.
fn lan_of(plan: &Plan, env: &str) -> Option<String> {
    let env = plan.env(env)?;
    env.lan.as_ref().map(|_| env.name.clone())
}

/// The services of other hosts. They may not run: only what answers somebody counts.
fn elsewhere(plan: &Plan, host: &Host) -> Vec<Node> {
    let envs = plan.envs.iter();
    let services = envs.flat_map(|env| env.services.iter());
    services
        .filter(|service| service.host != host.name)
        .filter_map(|service| {
            Some(Node {
                id: service.container(),
                lan: lan_of(plan, &service.env),
                role: Role::Env(service.env.clone()),
                name: format!("{} on {}", service.container(), service.host),
                address: service.address?,
                process: None,
                slice: None,
                made_for: Some(service.env.clone()),
                is_here: false,
            })
        })
        .collect()
}
