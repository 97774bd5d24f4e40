//! The plan in the making: addresses and ranges as values with their places, services merged for each environment.

mod environment;
mod lan;

use environment::{EnvBuilder, replicas};
pub(super) use lan::PartialLan;

use super::address::{RangeError, routes};
use super::isolation::{Cpus, Isolation, Limits};
use super::naming::SHIM_LINK;
use super::service::{ComposeNetwork, ComposeVolume, Service, parse_bytes};
use super::{CompileInput, Env, Host, Plan, Problems, Range};
use crate::error::Diagnostic;
use crate::input::compose::Project;
use crate::input::homelab_toml::{self, Config, Text};
use crate::input::node::{Map, Node};
use crate::input::problem::Span;
use ipnet::Ipv4Net;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use toml::Spanned;

/// The least memory that an environment can be limited to, in bytes.
const LEAST_MEMORY: u64 = 16 << 20;

/// What could be read of the file. A value that could not be read is `None` and its problem is reported already.
pub(super) struct PlanBuilder<'a> {
    pub config: &'a Config,
    pub subnet: Option<Spanned<Ipv4Net>>,
    pub gateway: Option<Spanned<Ipv4Addr>>,
    pub dhcp: Option<Spanned<Range>>,
    pub isolation: Isolation,
    pub shim_name: Text,
    pub hosts: Vec<PartialHost>,
    pub reserved: Vec<(Text, Spanned<Range>)>,
    pub envs: Vec<PartialEnv>,
}

pub(super) struct PartialHost {
    pub name: Text,
    pub address: Option<Spanned<Ipv4Addr>>,
    /// Its own one or that of `[shim]`.
    pub shim: Option<Spanned<Ipv4Addr>>,
    /// Whether the shim's address stands in the host's own table.
    pub has_own_shim: bool,
    pub parent: Option<Text>,
    /// The place of `primary = true`.
    pub primary: Option<Span>,
}

pub(super) struct PartialEnv {
    pub name: Text,
    pub range: Option<Spanned<Range>>,
    /// The LAN that it has for its own.
    pub lan: Option<PartialLan>,
    pub limits: Limits,
    /// The enabled services.
    pub services: Vec<PartialService>,
    /// The names of those with `enabled = false`.
    pub disabled: Vec<String>,
    pub networks: Vec<ComposeNetwork>,
    pub volumes: Vec<ComposeVolume>,
    pub notices: Problems,
    pub variables: BTreeMap<String, String>,
    pub merged: Vec<(String, Node)>,
    pub sections: Vec<(&'static str, Map)>,
}

pub(super) struct PartialService {
    pub name: Text,
    pub address: Option<Spanned<Ipv4Addr>>,
    /// The name of the host; `None` when it names none and there is no primary one.
    pub host: Option<String>,
    /// The place where it names its host.
    pub named_host: Option<Text>,
    /// What its `isolation_bypass` names.
    pub bypasses: Vec<Text>,
    /// Whether the file gives it an image, readable or not.
    pub has_image: bool,
    /// How many containers it has.
    pub scale: u32,
    /// Its keys, overrides applied.
    pub service: Service,
}

impl<'a> PlanBuilder<'a> {
    pub(super) fn new(config: &'a Config, input: &CompileInput, problems: &mut Problems) -> Self {
        let network = &config.network;
        let isolation = read_isolation(network.isolation.as_ref(), problems);
        let subnet = read_subnet(network.subnet.as_ref(), problems);
        let hosts = read_hosts(config, problems);
        let nothing = Project::default();
        let primary = hosts.iter().find(|host| host.primary.is_some());
        let primary = primary.map(|host| host.name.get_ref().clone());
        let envs = config
            .envs
            .iter()
            .enumerate()
            .map(|(index, env)| {
                let builder = EnvBuilder {
                    env,
                    config,
                    input,
                    project: input.projects.get(index).unwrap_or(&nothing),
                    hosts: &hosts,
                    primary: primary.as_deref(),
                    isolation,
                    subnet: subnet.as_ref().map(|subnet| *subnet.get_ref()),
                };
                builder.env(problems)
            })
            .collect();
        Self {
            config,
            subnet,
            gateway: read_address(network.gateway.as_ref(), problems),
            dhcp: read_range(network.dhcp.as_ref(), problems),
            isolation,
            shim_name: config
                .shim
                .name
                .clone()
                .unwrap_or_else(|| Spanned::new(network.span.clone(), SHIM_LINK.to_owned())),
            hosts,
            reserved: config
                .reserved
                .iter()
                .filter_map(|(name, range)| {
                    Some((name.clone(), read_range(Some(range), problems)?))
                })
                .collect(),
            envs,
        }
    }

    /// The plan, when everything that it needs could be read.
    pub(super) fn finish(self) -> Option<Plan> {
        let envs = self.envs.into_iter().map(PartialEnv::finish);
        let envs: Vec<Env> = envs.collect::<Option<_>>()?;
        let hosts = self.hosts.into_iter().map(PartialHost::finish);
        let hosts = hosts.collect::<Option<_>>()?;
        let gateway = *self.gateway.as_ref()?.get_ref();
        let dhcp = self.dhcp.as_ref().map(|range| *range.get_ref());
        let routes = shim_routes(&envs, gateway, dhcp);
        Some(Plan {
            subnet: *self.subnet.as_ref()?.get_ref(),
            gateway,
            dhcp,
            isolation: self.isolation,
            shim_name: self.shim_name.get_ref().clone(),
            hosts,
            reserved: self
                .reserved
                .iter()
                .map(|(name, range)| (name.get_ref().clone(), *range.get_ref()))
                .collect(),
            routes,
            envs,
            default_env: self
                .config
                .default_env
                .as_ref()
                .map(|name| name.get_ref().clone()),
        })
    }
}

impl PartialEnv {
    fn finish(self) -> Option<Env> {
        let range = *self.range?.get_ref();
        Some(Env {
            name: self.name.into_inner(),
            range,
            lan: match self.lan {
                Some(lan) => Some(lan.finish(range)?),
                None => None,
            },
            limits: self.limits,
            services: self.services.into_iter().flat_map(replicas).collect(),
            networks: self.networks,
            volumes: self.volumes,
            notices: self.notices,
            variables: self.variables,
            merged: self.merged,
            sections: self.sections,
        })
    }
}

impl PartialHost {
    fn finish(self) -> Option<Host> {
        Some(Host {
            name: self.name.into_inner(),
            address: self.address?.into_inner(),
            shim: self.shim?.into_inner(),
            parent: self.parent.map(Spanned::into_inner),
            primary: self.primary.is_some(),
        })
    }
}

/// What the shim leads to: never to the router or to those whom it gives addresses.
fn shim_routes(envs: &[Env], gateway: Ipv4Addr, dhcp: Option<Range>) -> Vec<Ipv4Net> {
    let here = envs.iter().filter(|env| env.lan.is_none());
    let ranges: Vec<Range> = here.map(|env| env.range).collect();
    let kept_out: Vec<Range> = dhcp.into_iter().chain([Range::single(gateway)]).collect();
    routes(&ranges, &kept_out)
}

fn read_hosts(config: &Config, problems: &mut Problems) -> Vec<PartialHost> {
    let shim = read_address(config.shim.address.as_ref(), problems);
    config
        .hosts
        .iter()
        .map(|host| PartialHost {
            name: host.name.clone(),
            address: read_address(host.address.as_ref(), problems),
            shim: match &host.shim {
                Some(own) => read_address(Some(own), problems),
                None => shim.clone(),
            },
            has_own_shim: host.shim.is_some(),
            parent: host
                .parent
                .clone()
                .or_else(|| config.network.parent.clone()),
            primary: host
                .primary
                .as_ref()
                .filter(|flag| *flag.get_ref())
                .map(Spanned::span),
        })
        .collect()
}

fn read_isolation(text: Option<&Text>, problems: &mut Problems) -> Isolation {
    let Some(text) = text else {
        return Isolation::default();
    };
    match text.get_ref().as_str() {
        "enforced" => Isolation::Enforced,
        "off" => Isolation::Off,
        other => {
            problems.push(
                Diagnostic::error_at(text.span(), format!("`{other}` is no kind of isolation")).hint(
                    "write `enforced`, the default, or `off`, with which environments reach each other",
                ),
            );
            Isolation::default()
        }
    }
}

fn read_limits(env: &homelab_toml::EnvTable, problems: &mut Problems) -> Limits {
    let mut read = |text: &Option<Text>, what: &str, hint: &str, fits: &dyn Fn(&str) -> bool| {
        let text = text.as_ref()?;
        if !fits(text.get_ref()) {
            let what = format!("`{}` is not {what}", text.get_ref());
            problems.push(Diagnostic::error_at(text.span(), what).hint(hint));
        }
        Some(text.get_ref().clone())
    };
    // Below a few megabytes no container starts; a bare `2` was meant to be two gigabytes.
    let bytes = |text: &str| parse_bytes(text).filter(|bytes| *bytes >= LEAST_MEMORY);
    let memory = read(
        &env.memory,
        "an amount of memory for an environment",
        "write a number with `m` or `g`, at least 16m, like `2g`",
        &|text| bytes(text).is_some(),
    );
    let cpus = read(
        &env.cpus,
        "a number of processors",
        "write how many the environment may use together, from 0.01, like `1.5`",
        &|text| Cpus::parse(text).is_some(),
    );
    Limits {
        memory: memory.and_then(|text| bytes(&text)),
        cpus: cpus.and_then(|text| Cpus::parse(&text)),
    }
}

fn not_an_address(span: Span, text: &str) -> Diagnostic {
    let problem = Diagnostic::error_at(span, format!("`{text}` is not an IPv4 address"));
    if text.parse::<std::net::Ipv6Addr>().is_ok() {
        problem.hint("homelab plans IPv4 addresses only")
    } else {
        problem.hint("four numbers from 0 to 255, like `192.168.1.200`")
    }
}

fn read_address(text: Option<&Text>, problems: &mut Problems) -> Option<Spanned<Ipv4Addr>> {
    let text = text?;
    if let Ok(address) = text.get_ref().parse() {
        Some(Spanned::new(text.span(), address))
    } else {
        problems.push(not_an_address(text.span(), text.get_ref()));
        None
    }
}

fn read_subnet(text: Option<&Text>, problems: &mut Problems) -> Option<Spanned<Ipv4Net>> {
    let text = text?;
    let (span, value) = (text.span(), text.get_ref());
    let problem = match value.parse::<Ipv4Net>() {
        Err(_) => Diagnostic::error_at(span, format!("`{value}` is not a subnet"))
            .hint("an address and a prefix length, like `192.168.1.0/24`"),
        Ok(net) if net.trunc() != net => {
            Diagnostic::error_at(span, format!("`{value}` is an address in a subnet"))
                .hint(format!("write the subnet: `{}`", net.trunc()))
        }
        Ok(net) if !(8..=29).contains(&net.prefix_len()) => {
            Diagnostic::error_at(span, format!("`{value}` is no home network"))
                .hint("a subnet from /8 to /29 has room for a router, hosts and containers")
        }
        Ok(net) => return Some(Spanned::new(span, net)),
    };
    problems.push(problem);
    None
}

fn read_range(text: Option<&Text>, problems: &mut Problems) -> Option<Spanned<Range>> {
    let text = text?;
    let (span, value) = (text.span(), text.get_ref());
    let problem = match Range::parse(value) {
        Ok(range) => return Some(Spanned::new(span, range)),
        Err(RangeError::NotAnAddress(part)) if part == *value => {
            Diagnostic::error_at(span, format!("`{value}` is not a range of addresses"))
                .hint("write `192.168.1.192-192.168.1.223` or `192.168.1.192/27`")
        }
        Err(RangeError::NotAnAddress(part)) => not_an_address(span, &part),
        Err(RangeError::Backward { first, last }) => {
            Diagnostic::error_at(span, format!("the range `{value}` ends before it begins"))
                .hint(format!("write `{first}-{last}`"))
        }
        Err(RangeError::HostBits(net)) => Diagnostic::error_at(
            span,
            format!("`{value}` is not a CIDR: it has bits behind its prefix"),
        )
        .hint(format!("write `{}`", net.trunc())),
        Err(RangeError::NotAPrefix(cidr)) => {
            Diagnostic::error_at(span, format!("`{cidr}` has no prefix length from 0 to 32"))
                .hint("write it like `192.168.1.192/27`")
        }
    };
    problems.push(problem);
    None
}
