//! Containers with a capability that lets them pass their slice by, although the plan does not give it to them: who made them was an
//! older version, or somebody else. Pure.

use super::named;
use crate::error::Diagnostic;
use crate::plan::{Host, Plan, Service};
use crate::state::{Container, State};
use std::collections::BTreeMap;

/// A warning for each environment that is to be kept apart and has such containers of these services; those for which `is_renewed`
/// holds are about to be made anew.
pub fn left_over<'a>(
    services: impl IntoIterator<Item = &'a Service>,
    state: &State,
    is_renewed: impl Fn(&Container) -> bool,
) -> Vec<Diagnostic> {
    let mut found: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for service in services {
        if !service.is_isolated || service.has_net_raw() {
            continue;
        }
        let docker = &state.docker;
        let container = docker.instance(&service.env, &service.name, service.replica);
        let container = container.filter(|it| it.net_raw == Some(true) && !is_renewed(it));
        if let Some(container) = container {
            found.entry(&service.env).or_default().push(&container.name);
        }
    }
    let warning = |(env, containers): (&str, Vec<&str>)| {
        Diagnostic::warning(
            format!(
                "containers of environment `{env}` have the capability NET_RAW, which the plan does not give them, and so can send \
                 frames that pass their slice by: {}",
                named(containers)
            ),
            format!(
                "`homelab env-up --env {env} --force-recreate` makes them anew without it; a service that needs it says \
                 `cap_add = [\"NET_RAW\"]`"
            ),
        )
    };
    found.into_iter().map(warning).collect()
}

/// The same of all services that run on a host, as they are now.
pub fn left_over_on(plan: &Plan, host: &Host, state: &State) -> Vec<Diagnostic> {
    let services = plan.envs.iter().flat_map(|env| &env.services);
    let here = services.filter(|service| service.host == host.name);
    left_over(here, state, |_| false)
}
