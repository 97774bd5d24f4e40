//! The address plan: everything about the home is decided here, from the file alone. Pure: no I/O.

mod address;
mod builder;
mod compose_files;
mod isolation;
mod lan;
pub mod naming;
mod rules;
mod service;
pub mod unit_files;
pub mod vendors;

pub use address::{Mac, Range, Written, ip_range, joined, pool};
pub use isolation::{Isolation, Limits, PlannedSlice};
pub use lan::{OwnLan, PlannedShim, Seat};
pub use service::{
    ApiSection, Attachment, Bypass, CompleteService, ComposeNetwork, ComposePool, ComposeVolume,
    DependencyCondition, Device, FileSource, GivenFile, INTERFACE_NAME, PortBinding, PullPolicy,
    Restart, Service, Volume, complete, has_net_raw, is_dns_label, signal_number, split_tag,
};

use crate::input::compose::{self, LoadEnv, Project};
use crate::input::homelab_toml;
use crate::input::node::{Map, Node};
pub use crate::input::problem::Problems;
use crate::input::problem::{Sources, in_order};
use builder::PlanBuilder;
use ipnet::Ipv4Net;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;

/// The compiled file.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The LAN.
    pub subnet: Ipv4Net,
    /// The router.
    pub gateway: Ipv4Addr,
    /// Where the router hands out leases.
    pub dhcp: Option<Range>,
    /// Whether environments are kept apart.
    pub isolation: Isolation,
    /// The name of the shim's link, the same on every host.
    pub shim_name: String,
    /// In the order of the file.
    pub hosts: Vec<Host>,
    /// Addresses kept for other things, by name.
    pub reserved: Vec<(String, Range)>,
    /// In the order of the file.
    pub envs: Vec<Env>,
    /// What the shim has routes to: the one prefix that covers all environments on this LAN, else the exact cover of their ranges.
    pub routes: Vec<Ipv4Net>,
    /// The environment for commands without `--env`.
    pub default_env: Option<String>,
}

/// A machine that runs containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// Its own address on the LAN.
    pub address: Ipv4Addr,
    /// The address of its shim.
    pub shim: Ipv4Addr,
    /// Its parent interface; else the one that has `address`.
    pub parent: Option<String>,
    /// Services that name no host run here.
    pub primary: bool,
}

/// An environment.
#[derive(Clone, Debug)]
pub struct Env {
    /// Its name, a DNS label of at most 12 bytes.
    pub name: String,
    /// The addresses of its containers.
    pub range: Range,
    /// The LAN that it is on alone; `None` for that of `[network]`.
    pub lan: Option<OwnLan>,
    /// What its containers on a host may use together.
    pub limits: Limits,
    /// Its enabled services on all hosts, in the order of the files; once for each of its containers.
    pub services: Vec<Service>,
    /// Networks of its services beside the LAN.
    pub networks: Vec<ComposeNetwork>,
    /// Volumes that its Compose files declare.
    pub volumes: Vec<ComposeVolume>,
    /// What whoever brings it up should know about its Compose files.
    pub notices: Problems,
    /// The variables of its Compose files.
    pub variables: BTreeMap<String, String>,
    /// The keys of its services as they are when all files are merged.
    pub merged: Vec<(String, Node)>,
    /// The other sections of its Compose files.
    pub sections: Vec<(&'static str, Map)>,
}

impl Env {
    /// The name of its Docker network.
    pub fn network(&self) -> String {
        naming::network_name(&self.name)
    }

    /// The name of its parent link, where one is needed.
    pub fn parent_link(&self) -> String {
        naming::parent_link(&self.name)
    }
}

impl Plan {
    /// The environment of that name.
    pub fn env(&self, name: &str) -> Option<&Env> {
        self.envs.iter().find(|env| env.name == name)
    }

    /// The environments with the pools that they get where no network exists yet: on one LAN each a bit wider than the one before.
    pub fn planned_pools(&self) -> impl Iterator<Item = (&Env, Ipv4Net)> {
        let mut steps = 0..=u8::MAX;
        // The rules see to it that there is a pool for each.
        self.envs.iter().filter_map(move |env| {
            let pool = match &env.lan {
                Some(own) => own.subnet,
                None => pool(self.subnet, steps.next()?)?,
            };
            Some((env, pool))
        })
    }

    /// The host of that name.
    pub fn host(&self, name: &str) -> Option<&Host> {
        self.hosts.iter().find(|host| host.name == name)
    }

    /// The host that has one of `addresses`, which are those of a machine.
    pub fn host_at(&self, addresses: &[Ipv4Addr]) -> Option<&Host> {
        self.hosts
            .iter()
            .find(|host| addresses.contains(&host.address))
    }

    /// Whose address this is when it can be no container's: a host's, a shim's, a reservation's or the gateway's.
    pub fn reserved_by(&self, address: Ipv4Addr) -> Option<String> {
        if address == self.gateway {
            return Some("gateway".to_owned());
        }
        for host in &self.hosts {
            if host.address == address {
                return Some(format!("host-{}", host.name));
            }
            if host.shim == address {
                return Some(format!("shim-{}", host.name));
            }
        }
        if let Some(whose) = self.reserved_on_own_lan(address) {
            return Some(whose);
        }
        self.reserved
            .iter()
            .find(|(_, range)| range.contains(address))
            .map(|(name, _)| format!("reserved-{name}-{address}"))
    }

    /// The addresses of an environment that the plan gives to nobody, from the lowest.
    pub fn unassigned(&self, env: &Env) -> impl Iterator<Item = Ipv4Addr> {
        let planned: Vec<Ipv4Addr> = env.services.iter().filter_map(|s| s.address).collect();
        env.range.addresses().filter(move |address| {
            !planned.contains(address) && self.reserved_by(*address).is_none()
        })
    }
}

/// Whether the services of Compose files are needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Services {
    /// All of them.
    Loaded,
    /// The shim is no business of theirs, and its service may not read their files.
    LeftOut,
}

/// What the text of homelab.toml is compiled with.
struct CompileInput<'a> {
    /// What relative paths in homelab.toml start from.
    folder: &'a Path,
    /// The merged Compose files of each environment, in the order of the file.
    projects: &'a [Project],
    /// Where homelab.toml ends among all sources.
    native_end: usize,
    /// Whether the Compose files were loaded, so that their services can be overridden.
    has_all_services: bool,
}

/// Compiles the text of homelab.toml, in `folder`, and the Compose files that it names, whose texts go to `sources`.
///
/// # Errors
/// All problems of the files, in their order, when one of them is an error; else the plan and its warnings.
pub fn from_text(
    text: &str,
    folder: &Path,
    services: Services,
    load_env: &LoadEnv,
    sources: &mut Sources,
) -> Result<(Plan, Problems), Problems> {
    let (config, mut problems) = homelab_toml::parse(text)?;
    let load = |env| {
        let options = compose_files::options(&config, env, folder);
        compose::load(&options, load_env, sources, &mut problems)
    };
    let projects: Vec<Project> = match services {
        Services::Loaded => config.envs.iter().map(load).collect(),
        Services::LeftOut => Vec::new(),
    };
    let input = CompileInput {
        folder,
        projects: &projects,
        native_end: text.len() + 1,
        has_all_services: services == Services::Loaded,
    };
    let builder = PlanBuilder::new(&config, &input, &mut problems);
    rules::check(&builder, &mut problems);
    let plan = builder.finish();
    let problems = in_order(problems);
    match plan {
        Some(plan) if !problems.iter().any(|problem| problem.severity.is_error()) => {
            Ok((plan, problems))
        }
        _ => Err(problems),
    }
}

#[cfg(test)]
mod fuzz_tests;
#[cfg(test)]
pub mod tests;
