//! The addresses of services that the plan gives none: what observing asks the LAN about, and what the diff then gives. Pure.

use crate::plan::{Env, Plan, Service};
use crate::state::{Container, State};
use std::net::Ipv4Addr;

/// The address that a container has in its environment's network.
pub(in crate::diff) fn current(container: &Container, env: &Env) -> Option<Ipv4Addr> {
    container.networks.get(&env.network())?.address
}

/// The address that a service has already and may keep: it is in its environment's range and planned for nobody.
pub fn sticky(plan: &Plan, env: &Env, service: &Service, state: &State) -> Option<Ipv4Addr> {
    let container = state
        .docker
        .instance(&service.env, &service.name, service.replica)?;
    let address = current(container, env)?;
    plan.unassigned(env)
        .any(|unassigned| unassigned == address)
        .then_some(address)
}

/// The addresses of an environment that nobody has, as far as is known, from the lowest.
pub fn available<'a>(
    plan: &'a Plan,
    env: &'a Env,
    state: &'a State,
) -> impl Iterator<Item = Ipv4Addr> + 'a {
    let in_use = state.docker.addresses_in_use();
    plan.unassigned(env)
        .filter(move |address| !in_use.contains(address) && !state.answered.contains(address))
}
