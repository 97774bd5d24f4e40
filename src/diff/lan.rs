//! Who on the LAN has addresses of ours: which ones to ask about, and what the answers mean. Pure.

use super::allocation;
use crate::error::Diagnostic;
use crate::plan::vendors::vendor;
use crate::plan::{CompleteService, Env, Host, Mac, Plan, PlannedShim};
use crate::state::State;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// The addresses that services of a run would take that are not in use by them here and now. Where the plan leaves the choice there
/// are `spare` ones more.
pub fn new_addresses(
    plan: &Plan,
    env: &Env,
    host: &Host,
    services: &[CompleteService],
    state: &State,
    spare: usize,
) -> BTreeSet<Ipv4Addr> {
    let mut new = BTreeSet::new();
    let mut without = 0;
    for service in services.iter().filter(|service| service.is_on_lan) {
        let known = service
            .address
            .or_else(|| allocation::sticky(plan, env, service, state));
        let mut all = state.docker.instances(&service.env, &service.name);
        // That of a container that was to take this one's place when homelab was killed is its own, too.
        let mut is_in_use = |address| {
            all.any(|found| found.is_running() && allocation::current(found, env) == Some(address))
        };
        match known {
            Some(address) if is_in_use(address) => {}
            Some(address) => {
                new.insert(address);
            }
            None => without += 1,
        }
    }
    if without > 0 {
        new.extend(allocation::available(plan, env, host, state).take(without + spare));
    }
    new
}

/// The addresses of hosts, which are asked for too so that an answer can be told to be one of theirs.
pub fn other_hosts(plan: &Plan, host: &Host) -> impl Iterator<Item = Ipv4Addr> {
    let others = plan.hosts.iter().filter(|other| other.name != host.name);
    others.map(|other| other.address)
}

/// That somebody on the LAN has an address which is about to be taken. A container of this host that has it answers the shim too.
pub fn taken(plan: &Plan, address: Ipv4Addr, state: &State) -> Option<Diagnostic> {
    let is_own = |mac: &Mac| {
        let here = state.docker.containers.iter();
        let mut here = here.flat_map(|container| container.networks.values());
        here.any(|own| own.address == Some(address) && own.mac == Some(*mac))
    };
    let others = state.holders(address).filter(|mac| !is_own(mac));
    let holders = holders(plan, address, others, state)?;
    Some(Diagnostic::error(
        format!("{address} is taken: {holders} answers for it on the LAN"),
        "take the address from that machine, or plan another one; then run this again",
    ))
}

/// That somebody on the LAN has the address of a shim that is about to be made: two that answer for one address break each
/// other.
pub fn shim_taken(
    plan: &Plan,
    host: &Host,
    shim: &PlannedShim,
    state: &State,
) -> Option<Diagnostic> {
    let address = shim.address;
    let holders = holders(plan, address, state.holders(address), state)?;
    let (whose, where_to_change) = match shim.env {
        None => (
            String::new(),
            format!("give host `{}` another `shim`", host.name),
        ),
        Some(env) => (
            format!(" in environment `{}`", env.name),
            format!("give it another `shim` in `[env.{}]`", env.name),
        ),
    };
    Some(Diagnostic::error(
        format!(
            "another machine has {address}, the address of this host's shim{whose}: {holders} answers for it on the LAN"
        ),
        format!("{where_to_change}, or take the address from that machine; then run this again"),
    ))
}

/// The addresses that are on a shim's LAN.
pub fn on_its_lan(
    plan: &Plan,
    shim: &PlannedShim,
    addresses: impl IntoIterator<Item = Ipv4Addr>,
) -> BTreeSet<Ipv4Addr> {
    let is_here = |address: &Ipv4Addr| match shim.env {
        Some(env) => plan.subnet_of(env).contains(address),
        None => plan.subnet.contains(address),
    };
    addresses.into_iter().filter(is_here).collect()
}

/// Who answered for an address, by hardware address and what is known of it.
fn holders(
    plan: &Plan,
    address: Ipv4Addr,
    macs: impl Iterator<Item = Mac>,
    state: &State,
) -> Option<String> {
    let words: Vec<String> = macs
        .map(|mac| match about(plan, address, mac, state) {
            Some(about) => format!("{mac} ({about})"),
            None => mac.to_string(),
        })
        .collect();
    (!words.is_empty()).then(|| words.join(" and "))
}

fn about(plan: &Plan, address: Ipv4Addr, mac: Mac, state: &State) -> Option<String> {
    let mut hosts = plan.hosts.iter();
    let host = hosts.find(|host| {
        let is_asked_about = host.address != address;
        is_asked_about && state.holders(host.address).any(|of_host| of_host == mac)
    });
    let vendor = || vendor(mac).map(str::to_owned);
    host.map(|host| format!("host {}", host.name))
        .or_else(vendor)
}

/// The addresses that nobody else may have, with whose they are: those of shims, those of containers that run here, and the planned
/// ones of services that are to run here.
pub fn own_addresses(plan: &Plan, host: &Host, state: &State) -> BTreeMap<Ipv4Addr, String> {
    let mut own = BTreeMap::new();
    for env in &plan.envs {
        let here = env.services.iter().filter(|s| s.host == host.name);
        own.extend(here.filter_map(|service| {
            let container = format!("container {}", service.container());
            Some((service.address?, container))
        }));
        for container in state.docker.containers.iter().filter(|c| c.is_running()) {
            let address = allocation::current(container, env);
            own.extend(address.map(|address| (address, format!("container {}", container.name))));
        }
    }
    own.extend(
        plan.shims(host)
            .map(|shim| (shim.address, format!("link {}", shim.name))),
    );
    own
}

/// Services of environments that run here which cannot be proven anything about: they do not run, or not on the LAN. Where nothing of
/// an environment runs, nobody expects it to.
pub fn not_there<'a>(
    plan: &'a Plan,
    host: &'a Host,
    state: &'a State,
) -> impl Iterator<Item = Diagnostic> + 'a {
    let envs = plan.envs.iter();
    let envs = envs.filter(|env| state.docker.of_environment(&env.name).next().is_some());
    let services = envs.flat_map(|env| env.services.iter().map(move |service| (env, service)));
    let here = services
        .filter(|(_, service)| service.host == host.name && service.is_active && service.is_on_lan);
    here.filter_map(|(env, service)| {
        let name = service.container();
        let docker = &state.docker;
        let container = docker.instance(&service.env, &service.name, service.replica);
        let why = match container {
            None => "it does not exist".to_owned(),
            Some(found) if found.state == "exited" && found.exit_code == Some(0) => return None,
            Some(found) if found.state != "running" => format!("it is {}", found.state),
            Some(found) if !found.networks.contains_key(&env.network()) => {
                format!("it is not attached to {}", env.network())
            }
            Some(_) => return None,
        };
        Some(Diagnostic::error(
            format!("container `{name}` was not asked and not heard: {why}"),
            format!("`homelab env-up --env {}` repairs it", env.name),
        ))
    })
}

/// What is wrong when somebody else has one of [`own_addresses`], with whose it is.
pub fn duplicates<'a>(
    plan: &'a Plan,
    host: &'a Host,
    state: &'a State,
) -> impl Iterator<Item = (String, Diagnostic)> + 'a {
    own_addresses(plan, host, state)
        .into_iter()
        .filter_map(|(address, whose)| {
            let holders = holders(plan, address, state.holders(address), state)?;
            let what = format!(
                "another machine has {address}, the address of {whose}: {holders} answers for it on the LAN"
            );
            let hint = "take the address from that machine, or plan another one: two that answer for one address break each other";
            let (_, name) = whose.split_once(' ')?;
            Some((name.to_owned(), Diagnostic::error(what, hint)))
        })
}
