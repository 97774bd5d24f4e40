//! What is left on this host of environments that the plan does not have. Pure.

use super::networks::guests;
use super::{Finding, Findings};
use crate::diff::difference::Object;
use crate::diff::named;
use crate::plan::naming::{self, slice_name};
use crate::plan::{Env, Plan};
use crate::state::{Network, State};
use std::collections::BTreeMap;

impl Findings {
    /// Adds what is left here of environments that the plan does not have: containers, slices that they run in, and networks that
    /// somebody else is on.
    pub fn add_unplanned(&mut self, plan: &Plan, state: &State) {
        let containers = state.docker.containers.iter();
        let ours = containers.filter_map(|container| Some((container.service()?.0, container)));
        let mut left: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (env, container) in ours.filter(|(env, _)| plan.env(env).is_none()) {
            left.entry(env).or_default().push(&container.name);
        }
        let take_away =
            |env: &str| format!("`homelab env-down --env {env}`, then `homelab network-up`");
        for slice in &state.systemd.slices {
            let is_planned = |env: &Env| slice_name(&env.name) == slice.name;
            if !slice.is_ours() || !slice.populated || plan.envs.iter().any(is_planned) {
                continue;
            }
            let mut envs = left.keys();
            let fix = match envs.find(|env| slice_name(env) == slice.name) {
                Some(env) => take_away(env),
                None => format!(
                    "end what runs in it, `systemd-cgls -u '{}'` shows that; then `homelab network-up`",
                    slice.name
                ),
            };
            self.add_difference(&Object::new("slice", slice.name.as_str()).unplanned(), fix);
        }
        for network in &state.docker.networks {
            self.add_unplanned_network(plan, network, &left, state);
        }
        for (env, containers) in left {
            self.add(Finding {
                about: naming::network_name(env),
                what: format!(
                    "the plan has no environment `{env}`, and its containers are here: {}",
                    named(containers)
                ),
                fix: take_away(env),
                place: None,
            });
        }
    }

    /// Adds a network of an environment that the plan does not have when strangers keep it, or nobody takes it away any more.
    /// `left` has the environments of which containers are left.
    fn add_unplanned_network(
        &mut self,
        plan: &Plan,
        network: &Network,
        left: &BTreeMap<&str, Vec<&str>>,
        state: &State,
    ) {
        let name = &network.name;
        let Some(env) = network.owner().filter(|env| plan.env(env).is_none()) else {
            return;
        };
        let (strangers, _) = guests(network, env, state);
        let is_compose = network.compose_environment().is_some();
        let is_ownerless = is_compose && !left.contains_key(env);
        if strangers.is_empty() && !(is_ownerless && state.docker.attached(name).is_empty()) {
            return;
        }
        let on_it = match strangers.as_slice() {
            [] => String::new(),
            strangers => format!(
                ", and containers that homelab did not make are on it: {}",
                named(strangers)
            ),
        };
        let disconnect = |stranger: &&str| format!("`docker network disconnect {name} {stranger}`");
        let mut fix: Vec<String> = strangers.iter().map(disconnect).collect();
        fix.push(match is_ownerless {
            true => format!("`docker network rm {name}`"),
            false if left.contains_key(env) => format!("`homelab env-down --env {env}`"),
            false => "`homelab network-up`".to_owned(),
        });
        self.add(Finding {
            about: name.clone(),
            what: format!("network {name}: the plan has no environment `{env}`{on_it}"),
            fix: fix.join(", then "),
            place: None,
        });
    }
}
