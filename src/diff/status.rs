//! What there is beside what the plan says, on one screen. Pure.

use crate::diff::{Action, Diff, Step, shim_route};
use crate::error::Blocker;
use crate::plan::{Env, Host, Isolation, Plan, Service};
use crate::state::{Container, SUCCESSOR, State};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

/// How a container is, beyond what a list of them tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// How long it runs, when it does.
    pub up: Option<Duration>,
    /// What its health check says: `starting`, `healthy` or `unhealthy`; `None` without one.
    pub health: Option<String>,
    /// The exit status of its last run.
    pub exit_code: i64,
}

/// Something that is not as the plan says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What it is about: the name of a link, a network, a slice, a unit or a container.
    pub about: String,
    /// What is different.
    pub what: String,
    /// What to run or to do.
    pub run: String,
}

/// One thing of this host and how it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
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
    /// The container's state, `missing`, `unknown` without Docker, or the host that it runs on.
    pub state: String,
    /// How it is, when it is here.
    pub condition: Condition,
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
    pub facts: Vec<Fact>,
    /// The services.
    pub rows: Vec<Row>,
    /// What is not as planned.
    pub differences: Vec<Difference>,
}

/// What commands would do, and what stands in their way.
#[derive(Debug, Default)]
pub struct Differences {
    all: Vec<Difference>,
}

impl Differences {
    /// Adds what a command would do.
    pub fn add(&mut self, command: &str, result: Result<Diff, Vec<Blocker>>) {
        match result {
            Ok(diff) => {
                let mut seen = BTreeSet::new();
                for step in diff.steps.iter().filter(|step| !follows(step)) {
                    // Of what happens to one thing, the first step has the cause.
                    let about = about(step);
                    if seen.insert(about.clone()) {
                        self.all.push(Difference {
                            what: what(step),
                            about,
                            run: format!("`{command}`"),
                        });
                    }
                }
            }
            Err(blockers) => {
                for blocker in blockers {
                    self.blocked(blocker);
                }
            }
        }
    }

    /// Adds what stands in the way of the plan.
    pub fn blocked(&mut self, Blocker { what, hint, .. }: Blocker) {
        self.differ("", what, hint);
    }

    /// Adds something that no command of ours would change.
    pub fn differ(&mut self, about: &str, what: impl Into<String>, run: impl Into<String>) {
        let (what, run) = (what.into(), run.into());
        if self.all.iter().any(|known| known.what == what) {
            return;
        }
        let about = about.to_owned();
        self.all.push(Difference { about, what, run });
    }
}

/// Whether a step is there because of another one only.
fn follows(step: &Step) -> bool {
    if let Action::CreateContainer(new) = &step.action
        && new.name.ends_with(SUCCESSOR)
    {
        return true;
    }
    let is_reload = matches!(
        step.action,
        Action::ReloadSystemd | Action::ReloadManager { .. }
    );
    is_reload || (matches!(step.action, Action::RemoveFile { .. }) && !step.after.is_empty())
}

/// The thing that a step is about, as the screen names it.
fn about(step: &Step) -> String {
    match &step.action {
        Action::AddAddress { name, .. } => name.clone(),
        Action::AddRoute(route) | Action::DeleteRoute(route) => route.link.clone(),
        action => action.words().name,
    }
}

fn what(step: &Step) -> String {
    let words = step.action.words();
    match &step.action {
        Action::AddAddress { address, name } => {
            format!("address {address} of link {name} is missing")
        }
        Action::AddRoute(route) => {
            format!(
                "the route to {} over {} is missing",
                route.destination, route.link
            )
        }
        _ => format!("{} {}: {}", words.kind, words.name, step.cause),
    }
}

impl Status {
    /// Puts everything together. `conditions` has the containers of ours by name.
    pub fn new(
        plan: &Plan,
        host: &Host,
        state: &State,
        conditions: &BTreeMap<String, Condition>,
        differences: Differences,
    ) -> Self {
        let mut differences = differences.all;
        for (name, condition) in conditions {
            let container = state.docker.container(name);
            differences.extend(container.and_then(|found| ill(found, condition)));
        }
        let differs = |name: &str| {
            differences
                .iter()
                .any(|difference| difference.about == name)
        };
        let mut facts = vec![shim(plan, host, state, &differs), unit(state, &differs)];
        facts.push(isolation(plan, state, &differs));
        facts.extend(plan.envs.iter().map(|env| network(env, state, &differs)));
        let services = plan
            .envs
            .iter()
            .flat_map(|env| env.services.iter().map(move |s| (env, s)));
        let rows =
            services.map(|(env, service)| row(env, service, host, state, conditions, &differs));
        Self {
            host: host.name.clone(),
            address: host.address,
            facts,
            rows: rows.collect(),
            differences,
        }
    }
}

/// What is wrong with a container that runs, so that no command of ours would change it.
fn ill(container: &Container, condition: &Condition) -> Option<Difference> {
    let name = &container.name;
    let what = if container.state == "restarting" {
        format!(
            "container {name} ends again and again, with status {}",
            condition.exit_code
        )
    } else if container.state == "paused" {
        return Some(Difference {
            about: name.clone(),
            what: format!("container {name} is paused"),
            run: format!("`docker unpause {name}`"),
        });
    } else if condition.health.as_deref() == Some("unhealthy") {
        format!("container {name} is unhealthy")
    } else {
        return None;
    };
    Some(Difference {
        about: name.clone(),
        what,
        run: format!("`docker logs {name}`"),
    })
}

fn shim(plan: &Plan, host: &Host, state: &State, differs: &dyn Fn(&str) -> bool) -> Fact {
    let name = &plan.shim_name;
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
    let parents = plan.envs.iter().map(Env::parent_link);
    let has_route = state.routes.contains(&shim_route(plan, host));
    let route = if has_route { "there" } else { "missing" };
    Fact {
        kind: "shim",
        name: name.clone(),
        state: format!("{is}, route to {} {route}", plan.route),
        differs: differs(name) || parents.into_iter().any(|link| differs(&link)),
    }
}

fn unit(state: &State, differs: &dyn Fn(&str) -> bool) -> Fact {
    let service = &state.systemd.shim;
    let name = crate::plan::unit_files::SHIM_UNIT;
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
    Fact {
        kind: "unit",
        name: name.to_owned(),
        state: text,
        differs: differs(name) || service.files.keys().any(|path| differs(path)),
    }
}

fn isolation(plan: &Plan, state: &State, differs: &dyn Fn(&str) -> bool) -> Fact {
    let slices: Vec<String> = plan.slices().map(|slice| slice.name).collect();
    let are_there = slices
        .iter()
        .all(|slice| state.systemd.slice(slice).is_some());
    let differ = slices.iter().any(|slice| differs(slice));
    Fact {
        kind: "isolation",
        name: match plan.isolation {
            Isolation::Enforced => "enforced".to_owned(),
            Isolation::Off => "off".to_owned(),
        },
        state: match plan.isolation {
            Isolation::Off => "environments reach each other".to_owned(),
            Isolation::Enforced if differ || !are_there => "not in force".to_owned(),
            Isolation::Enforced => "in force; `homelab verify` proves it with packets".to_owned(),
        },
        differs: differ || (plan.isolation == Isolation::Enforced && !are_there),
    }
}

fn network(env: &Env, state: &State, differs: &dyn Fn(&str) -> bool) -> Fact {
    let name = env.network();
    let is = match state.docker.network(&name) {
        None => missing(state).to_owned(),
        Some(network) => {
            let attached = state.docker.attached(&name);
            let ours: Vec<&str> = state
                .docker
                .of_environment(&env.name)
                .map(|(_, c)| c.name.as_str())
                .collect();
            let guests: Vec<&str> = attached
                .iter()
                .copied()
                .filter(|name| !ours.contains(name))
                .collect();
            let mut text = format!(
                "{} on {}, {} containers",
                env.range,
                network.parent.as_deref().unwrap_or("nothing"),
                attached.len()
            );
            if !guests.is_empty() {
                text = format!("{text}, not made by homelab: {}", guests.join(", "));
            }
            text
        }
    };
    Fact {
        kind: "network",
        differs: differs(&name),
        name,
        state: is,
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
    conditions: &BTreeMap<String, Condition>,
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
        state: match container {
            _ if !is_here => format!("on {}", service.host),
            Some(container) => container.state.clone(),
            None => missing(state).to_owned(),
        },
        condition: conditions.get(&name).cloned().unwrap_or_default(),
        differs: is_here && differs(&name),
    }
}
