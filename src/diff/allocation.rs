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
/// choose at the same time, or while one is off, do not choose the same. Who needs more than that takes of the others' parts from
/// their ends, where those come last.
pub fn available<'a>(
    plan: &'a Plan,
    env: &'a Env,
    host: &Host,
    state: &'a State,
) -> impl Iterator<Item = Ipv4Addr> + 'a {
    let all: Vec<Ipv4Addr> = plan.unassigned(env).collect();
    let (primary, others): (Vec<&Host>, Vec<&Host>) = plan.hosts.iter().partition(|h| h.primary);
    let mut hosts = primary.iter().chain(&others);
    let place = hosts.position(|other| other.name == host.name);
    let (place, count) = (place.unwrap_or_default(), plan.hosts.len().max(1));
    let part = |of: usize| {
        let part = of * all.len() / count..(of + 1) * all.len() / count;
        all.get(part).unwrap_or_default().to_vec()
    };
    let mut order = part(place);
    for next in 1..count {
        order.extend(part((place + next) % count).into_iter().rev());
    }
    let in_use = state.docker.addresses_in_use();
    order.into_iter().filter(move |address| {
        !in_use.contains(address) && state.holders(*address).next().is_none()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::PlanFiles;

    #[test]
    fn hosts_choose_from_different_ends_until_the_range_is_full() {
        let source = include_str!("../../homelab.toml");
        let plan = PlanFiles::new(source.to_owned()).plan();
        let state = State::default();
        for env in &plan.envs {
            let all: Vec<Ipv4Addr> = plan.unassigned(env).collect();
            let orders = plan.hosts.iter().map(|host| {
                let mut order: Vec<Ipv4Addr> = available(&plan, env, host, &state).collect();
                let chosen = order.clone();
                order.sort();
                assert_eq!(order, all, "each address once");
                chosen
            });
            let [one, other] = orders
                .collect::<Vec<_>>()
                .try_into()
                .unwrap_or_else(|_| unreachable!("two hosts"));
            for count in 0..=all.len() {
                let both = one
                    .iter()
                    .take(count)
                    .chain(other.iter().take(all.len() - count));
                let mut both: Vec<Ipv4Addr> = both.copied().collect();
                both.sort();
                assert_eq!(both, all, "{count} on one host, the rest on the other");
            }
        }
    }
}
