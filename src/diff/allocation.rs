//! The addresses of services that the plan gives none: what observing asks the LAN about, and what the diff then gives. Pure.

use crate::plan::{Env, Plan, Service};
use crate::state::{Container, State};
use std::net::Ipv4Addr;

/// The address that a container has in its environment's network.
pub(in crate::diff) fn held(container: &Container, env: &Env) -> Option<Ipv4Addr> {
    container.networks.get(&env.network())?.address
}

/// The address that a service has already and may keep: it is in its environment's range and planned for nobody.
pub fn kept(plan: &Plan, env: &Env, service: &Service, state: &State) -> Option<Ipv4Addr> {
    let container = state
        .docker
        .instance(&service.env, &service.name, service.number)?;
    let address = held(container, env)?;
    plan.unplanned(env)
        .any(|unplanned| unplanned == address)
        .then_some(address)
}

/// The addresses of an environment that nobody has, as far as is known, from the lowest.
pub fn free<'a>(
    plan: &'a Plan,
    env: &'a Env,
    state: &'a State,
) -> impl Iterator<Item = Ipv4Addr> + 'a {
    let held = state.docker.held_addresses();
    plan.unplanned(env)
        .filter(move |address| !held.contains(address) && !state.answered.contains(address))
}
