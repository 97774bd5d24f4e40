//! The addresses of services that the plan gives none: what observing asks the LAN about, and what the diff then gives. Pure.

use crate::plan::{Env, Host, Plan, Service};
use crate::state::{Container, State};
use std::net::Ipv4Addr;

/// The address that a container has in its environment's network.
pub(in crate::diff) fn current(container: &Container, env: &Env) -> Option<Ipv4Addr> {
    container.networks.get(&env.network())?.address
}

/// The address that a service has already and may keep: it is in its environment's range, planned for nobody, and nobody on
/// the LAN answered for it meanwhile.
pub fn sticky(plan: &Plan, env: &Env, service: &Service, state: &State) -> Option<Ipv4Addr> {
    let container = state
        .docker
        .instance(&service.env, &service.name, service.replica)?;
    let address = current(container, env)?;
    let is_unassigned = plan.unassigned(env).any(|unassigned| unassigned == address);
    (is_unassigned && state.holders(address).next().is_none()).then_some(address)
}

/// The addresses of an environment that nobody has, as far as is known. Each host begins in a part of its own, so that two that
/// choose at the same time, or while one is off, do not choose the same.
pub fn available<'a>(
    plan: &'a Plan,
    env: &'a Env,
    host: &Host,
    state: &'a State,
) -> impl Iterator<Item = Ipv4Addr> + 'a {
    let mut all: Vec<Ipv4Addr> = plan.unassigned(env).collect();
    let (primary, others): (Vec<&Host>, Vec<&Host>) = plan.hosts.iter().partition(|h| h.primary);
    let mut hosts = primary.iter().chain(&others);
    let place = hosts.position(|other| other.name == host.name);
    let begin = place.unwrap_or_default() * all.len() / plan.hosts.len().max(1);
    all.rotate_left(begin);
    let in_use = state.docker.addresses_in_use();
    all.into_iter().filter(move |address| {
        !in_use.contains(address) && state.holders(*address).next().is_none()
    })
}
