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

/// The addresses of an environment that nobody has, as far as is known, those that are this host's by the plan first. So hosts that
/// choose at the same time, or while one is off, do not choose the same as long as the range is large enough for all.
pub fn available<'a>(
    plan: &'a Plan,
    env: &'a Env,
    host: &Host,
    state: &'a State,
) -> impl Iterator<Item = Ipv4Addr> + 'a {
    let in_use = state.docker.addresses_in_use();
    order(plan, env, host).into_iter().filter(move |address| {
        !in_use.contains(address) && state.holders(*address).next().is_none()
    })
}

/// All addresses of an environment that are planned for nobody, in the order in which a host takes them. The range has a part for
/// each host. Who needs more than its part by the plan gets, from the ends of the others' parts, what those do not need.
fn order(plan: &Plan, env: &Env, host: &Host) -> Vec<Ipv4Addr> {
    let all: Vec<Ipv4Addr> = plan.unassigned(env).collect();
    let (primary, others): (Vec<&Host>, Vec<&Host>) = plan.hosts.iter().partition(|h| h.primary);
    let hosts: Vec<&Host> = primary.into_iter().chain(others).collect();
    let count = hosts.len().max(1);
    let parts = (0..count).map(|of| of * all.len() / count..(of + 1) * all.len() / count);
    let parts: Vec<&[Ipv4Addr]> = parts.map(|of| all.get(of).unwrap_or_default()).collect();
    let needed = |host: &Host| {
        let services = env.services.iter();
        let choosing = services.filter(|one| one.is_on_lan && one.address.is_none());
        choosing.filter(|one| one.host == host.name).count()
    };
    let needs: Vec<usize> = hosts.iter().map(|host| needed(host)).collect();
    let halves = parts.iter().zip(&needs);
    let halves = halves.map(|(part, need)| part.split_at((*need).min(part.len())));
    let (mut claims, unneeded): (Vec<Vec<Ipv4Addr>>, Vec<&[Ipv4Addr]>) =
        halves.map(|(own, rest)| (own.to_vec(), rest)).unzip();
    let place = hosts.iter().position(|other| other.name == host.name);
    let place = place.unwrap_or_default();
    // From the place of the host that chooses on, each of the others' from the end.
    let mut spare = unneeded.iter().flat_map(|rest| rest.iter().rev().copied());
    for (claim, need) in claims.iter_mut().zip(&needs) {
        let missing = need.saturating_sub(claim.len());
        claim.extend(spare.by_ref().take(missing));
    }
    let is_claimed = |address: &Ipv4Addr| claims.iter().flatten().any(|one| one == address);
    let own = unneeded.get(place).copied().unwrap_or_default();
    let after = |at: usize| (place + at) % count;
    let mut order = claims.get(place).cloned().unwrap_or_default();
    order.extend(own.iter().filter(|address| !is_claimed(address)));
    for rest in (1..count).filter_map(|at| unneeded.get(after(at))) {
        order.extend(rest.iter().rev().filter(|address| !is_claimed(address)));
    }
    for claim in (1..count).filter_map(|at| claims.get(after(at))) {
        order.extend(claim.iter().rev());
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::{HOME, PlanFiles};
    use std::collections::BTreeSet;

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

    /// A home of three hosts, on each of which is that number of services that choose from nine addresses.
    fn home_of_three(needs: [usize; 3]) -> Plan {
        let mut home = HOME.replace("192.168.1.223", "192.168.1.200");
        home.push_str("[hosts.a]\naddress = '192.168.1.11'\nshim = '192.168.1.253'\n");
        home.push_str("[hosts.b]\naddress = '192.168.1.12'\nshim = '192.168.1.252'\n");
        for (host, need) in ["pi", "a", "b"].iter().zip(needs) {
            for count in 0..need {
                home += &["[services.", host, "-", &count.to_string()].concat();
                home += &["]\nimage = 'web'\nhost = '", host, "'\n"].concat();
            }
        }
        PlanFiles::new(home).plan()
    }

    #[test]
    fn three_hosts_that_choose_at_once_never_choose_the_same() {
        const RANGE: usize = 9;
        let few = 0..=RANGE;
        let needs = few
            .clone()
            .flat_map(|pi| few.clone().map(move |a| (pi, a)))
            .flat_map(|(pi, a)| few.clone().map(move |b| [pi, a, b]));
        let fitting = needs.filter(|needs| needs.iter().sum::<usize>() <= RANGE);
        let mut homes = 0;
        for needs in fitting {
            let plan = home_of_three(needs);
            let Some(env) = plan.env("prod") else {
                unreachable!("planned above");
            };
            let mut chosen = BTreeSet::new();
            for (host, need) in plan.hosts.iter().zip(needs) {
                let order = order(&plan, env, host);
                assert_eq!(order.iter().collect::<BTreeSet<_>>().len(), RANGE);
                chosen.extend(order.into_iter().take(need));
            }
            assert_eq!(chosen.len(), needs.iter().sum::<usize>(), "{needs:?}");
            homes += 1;
        }
        assert_eq!(homes, 220);
    }
}
