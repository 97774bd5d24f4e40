//! What there is beside what the plan says, on one screen. Pure.

mod networks;
mod unplanned;

use super::difference::{Difference, Object};
use super::links::routes_of;
use super::{
    Diff, Request, Selection, containers, diff, lan, preflight, shim_service, slices, ways,
};
use crate::error::{Diagnostic, Error, Span};
use crate::plan::naming::SHIM_UNIT;
use crate::plan::unit_files::ShimUnit;
use crate::plan::{CompleteService, Env, Host, Isolation, Plan, PlannedShim, Service};
use crate::state::{Container, ContainerHealth, Route, State};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// Something that is not as the plan says, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is about: the name of a link, a file, a slice, a unit, a network, an image or a container; empty where it is
    /// about the whole host.
    pub about: String,
    /// What is different.
    pub what: String,
    /// What to run or to do.
    pub fix: String,
    /// The place in a file, when it is about one.
    pub place: Option<Span>,
}

/// One thing of this host and how it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// `shim`, `unit`, `isolation` or `network`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// How it is.
    pub state: String,
    /// It is not as planned.
    pub differs: bool,
}

/// One service and its container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The service.
    pub service: String,
    /// Its environment.
    pub env: String,
    /// The address that it has, else the planned one.
    pub address: Option<Ipv4Addr>,
    /// It has, or will have, an address on the LAN.
    pub is_on_lan: bool,
    /// The container's state, `missing`, `unknown` without Docker, or the host that it runs on.
    pub state: String,
    /// How it is, when it is here.
    pub health: ContainerHealth,
    /// It is not as planned.
    pub differs: bool,
}

/// Everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The name of this host.
    pub host: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// The shim, its unit, the isolation, the networks.
    pub items: Vec<Item>,
    /// The services.
    pub rows: Vec<Row>,
    /// What is not as planned.
    pub findings: Vec<Finding>,
}

/// What is not as planned, as far as it was found.
#[derive(Debug, Default)]
pub struct Findings {
    all: Vec<Finding>,
}

impl Findings {
    /// Adds what is not as planned of the host itself: the shim, the networks, the isolation.
    pub fn add_host(&mut self, plan: &Plan, host: &Host, unit: Option<ShimUnit>, state: &State) {
        if let Some(missing) = state.docker_missing.clone() {
            self.add_diagnostic(missing);
            let up = diff(&Request::ShimUp(host, unit), plan, state);
            self.add_result("homelab shim up", up);
        } else {
            let up = diff(&Request::NetworkUp(host, unit), plan, state);
            self.add_result("homelab network-up", up);
        }
        for open in slices::open(plan, state) {
            self.add_diagnostic(open);
        }
        if let Some(other) = shim_service::other_program(unit, state) {
            self.add(Finding {
                about: SHIM_UNIT.to_owned(),
                ..Finding::from(other)
            });
        }
    }

    /// Adds why an environment is not kept apart or within its limits.
    pub fn add_isolation(&mut self, plan: &Plan, env: &Env, state: &State) {
        let isolation = preflight::isolation(plan, env, state);
        let limits = preflight::limits(plan, env, state);
        for missing in [isolation.err(), limits.err()].into_iter().flatten() {
            self.add_diagnostic(missing);
        }
    }

    /// Adds how this host stands on the LAN otherwise than planned, and packets that go another way than by the shim.
    pub fn add_ways(&mut self, plan: &Plan, host: &Host, state: &State) {
        let all = ways::beside_the_plan(plan, host, state).into_iter();
        for diagnostic in all.chain(ways::astray(plan, host, state)) {
            self.add_diagnostic(diagnostic);
        }
    }

    /// Adds who else on the LAN has addresses of this host and its containers.
    pub fn add_lan(&mut self, plan: &Plan, host: &Host, state: &State) {
        for (about, duplicate) in lan::duplicates(plan, host, state) {
            self.add(Finding {
                about,
                ..duplicate.into()
            });
        }
    }

    /// Adds what env-up would change in an environment, whose services are complete, and the containers that the plan does
    /// not have any more.
    pub fn add_environment(
        &mut self,
        selection: &Selection,
        services: &[CompleteService],
        state: &State,
    ) {
        let command = format!("homelab env-up --env {}", selection.env.name);
        self.add_result(&command, containers::up(selection, services, state));
        for (_, orphan) in selection.orphans(state) {
            let difference = Object::new("container", orphan.name.as_str()).unplanned();
            self.add_difference(&difference, format!("`{command} --remove-orphans`"));
        }
    }

    /// Adds what a command would take away, or what stands in its way.
    fn add_result(&mut self, command: &str, result: Result<Diff, Error>) {
        match result {
            Ok(diff) => {
                for difference in &diff.differences {
                    self.add_difference(difference, format!("`{command}`"));
                }
                for diagnostic in diff.errors {
                    self.add_diagnostic(diagnostic);
                }
            }
            Err(error) => {
                for diagnostic in error.diagnostics {
                    self.add_diagnostic(diagnostic);
                }
            }
        }
    }

    /// Adds a difference.
    fn add_difference(&mut self, difference: &Difference, fix: String) {
        let Object { kind, name } = &difference.object;
        self.add(Finding {
            about: name.clone(),
            what: format!("{kind} {name}: {difference}"),
            fix,
            place: None,
        });
    }

    /// Adds what stands in the way of the plan, with its place when it is in a file.
    pub fn add_diagnostic(&mut self, diagnostic: Diagnostic) {
        self.add(diagnostic.into());
    }

    fn add(&mut self, finding: Finding) {
        if !self.all.iter().any(|known| known.what == finding.what) {
            self.all.push(finding);
        }
    }
}

impl From<Diagnostic> for Finding {
    fn from(diagnostic: Diagnostic) -> Self {
        Self {
            about: String::new(),
            what: diagnostic.what,
            fix: diagnostic.hint.unwrap_or_default(),
            place: diagnostic.place.map(|place| place.span),
        }
    }
}

impl Status {
    /// Puts everything together. `health` has the containers of ours by name.
    pub fn new(
        plan: &Plan,
        host: &Host,
        state: &State,
        health: &BTreeMap<String, ContainerHealth>,
        findings: Findings,
    ) -> Self {
        let mut findings = findings.all;
        for (name, health) in health {
            let container = state.docker.container(name);
            let found = container.and_then(|found| unhealthy(found, health));
            // That a planned one is paused is told already.
            let is_told = |told: &Finding| told.about == *name && told.what.contains(" is paused");
            findings.extend(found.filter(|found| !is_told(found) || !findings.iter().any(is_told)));
        }
        let differs = |name: &str| findings.iter().any(|finding| finding.about == name);
        let shims = plan.shims(host);
        let mut items: Vec<Item> = shims
            .map(|planned| shim(&planned, state, &differs))
            .collect();
        items.push(unit(state, &differs));
        items.push(isolation(plan, state, &differs));
        items.extend(networks::items(plan, host, state, &differs));
        let services = plan
            .envs
            .iter()
            .flat_map(|env| env.services.iter().map(move |s| (env, s)));
        let rows = services.map(|(env, service)| row(env, service, host, state, health, &differs));
        Self {
            host: host.name.clone(),
            address: host.address,
            items,
            rows: rows.collect(),
            findings,
        }
    }
}

/// What is wrong with a container although no command of ours would change it.
fn unhealthy(container: &Container, health: &ContainerHealth) -> Option<Finding> {
    let name = &container.name;
    let what = if container.state == "restarting" {
        format!(
            "container {name} ends again and again, with status {}",
            health.exit_code
        )
    } else if container.state == "paused" {
        return Some(Finding {
            about: name.clone(),
            what: format!("container {name} is paused"),
            fix: format!("`docker unpause {name}`"),
            place: None,
        });
    } else if health.health.as_deref() == Some("unhealthy") {
        format!("container {name} is unhealthy")
    } else {
        return None;
    };
    Some(Finding {
        about: name.clone(),
        what,
        fix: format!("`docker logs {name}`"),
        place: None,
    })
}

fn shim(shim: &PlannedShim, state: &State, differs: &dyn Fn(&str) -> bool) -> Item {
    let name = &shim.name;
    let is = match state.link(name) {
        None => "missing".to_owned(),
        Some(link) => {
            let addresses: Vec<String> = link
                .addresses
                .iter()
                .map(|net| net.addr().to_string())
                .collect();
            format!(
                "{}, {} on {}",
                if link.up { "up" } else { "down" },
                if addresses.is_empty() {
                    "no address".to_owned()
                } else {
                    addresses.join(", ")
                },
                link.parent.as_deref().unwrap_or("nothing"),
            )
        }
    };
    let parents = state.docker.networks.iter();
    let mut parents = parents.filter_map(|network| network.parent.as_deref());
    let is_there = |route: &Route| state.routes.contains(route);
    let (there, missing): (Vec<Route>, Vec<Route>) = routes_of(shim).partition(is_there);
    let (routes, are) = match missing.as_slice() {
        [] => (&there, "there"),
        missing => (&missing.to_vec(), "missing"),
    };
    let word = if routes.len() == 1 { "route" } else { "routes" };
    let routes = routes.iter().map(|route| route.destination.to_string());
    let routes = routes.collect::<Vec<_>>().join(", ");
    Item {
        kind: "shim",
        name: name.clone(),
        state: format!("{is}, {word} to {routes} {are}"),
        differs: differs(name) || (shim.env.is_none() && parents.any(differs)),
    }
}

fn unit(state: &State, differs: &dyn Fn(&str) -> bool) -> Item {
    let service = &state.systemd.shim;
    let name = SHIM_UNIT;
    let text = if service.is_installed() {
        let runs = if service.active {
            "runs"
        } else {
            "does not run"
        };
        let boot = if service.enabled {
            "starts at boot"
        } else {
            "does not start at boot"
        };
        format!("{runs}, {boot}")
    } else {
        "not installed: the shim is gone after a boot; `homelab shim install` keeps it".to_owned()
    };
    Item {
        kind: "unit",
        name: name.to_owned(),
        state: text,
        differs: differs(name) || service.files.keys().any(|path| differs(path)),
    }
}

fn isolation(plan: &Plan, state: &State, differs: &dyn Fn(&str) -> bool) -> Item {
    // One that denies nothing has nothing to be tried.
    let is_tried = plan.slices().all(|slice| {
        let found = state.systemd.slice(&slice.name);
        slice.deny.is_empty() || found.is_some_and(|found| found.trial.is_some())
    });
    let slices: Vec<String> = plan.slices().map(|slice| slice.name).collect();
    let are_there = slices
        .iter()
        .all(|slice| state.systemd.slice(slice).is_some());
    let is_open = !slices::open(plan, state).is_empty();
    let differ = is_open || slices.iter().any(|slice| differs(slice));
    Item {
        kind: "isolation",
        name: match plan.isolation {
            Isolation::Enforced => "enforced".to_owned(),
            Isolation::Off => "off".to_owned(),
        },
        state: match plan.isolation {
            Isolation::Off => "environments reach each other".to_owned(),
            Isolation::Enforced if differ || !are_there => "not in force".to_owned(),
            Isolation::Enforced if !is_tried => {
                "as planned, not tried: nothing runs, or you are not root".to_owned()
            }
            Isolation::Enforced => "in force; `homelab verify` proves it with packets".to_owned(),
        },
        differs: differ || (plan.isolation == Isolation::Enforced && !are_there),
    }
}

/// How something of Docker's is that was not found.
fn missing(state: &State) -> &'static str {
    if state.docker_missing.is_some() {
        "unknown"
    } else {
        "missing"
    }
}

fn row(
    env: &Env,
    service: &Service,
    host: &Host,
    state: &State,
    health: &BTreeMap<String, ContainerHealth>,
    differs: &dyn Fn(&str) -> bool,
) -> Row {
    let name = service.container();
    let container = state.docker.container(&name);
    let is_here = service.host == host.name;
    let held = container.and_then(|found| found.networks.get(&env.network())?.address);
    Row {
        service: service.name.clone(),
        env: env.name.clone(),
        address: held.or(service.address),
        is_on_lan: service.is_on_lan,
        state: match container {
            _ if !is_here => format!("on {}", service.host),
            Some(container) => container.state.clone(),
            None => missing(state).to_owned(),
        },
        health: health.get(&name).cloned().unwrap_or_default(),
        differs: is_here && differs(&name),
    }
}
