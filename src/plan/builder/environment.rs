//! One environment in the making: Compose files and the tables of homelab.toml laid over each other, and what they come to.

use super::lan::read_lan;
use super::{PartialEnv, PartialHost, PartialService, read_address, read_limits, read_range};
use crate::error::Diagnostic;
use crate::input::compose::{LoadEnv, Project, absolute_paths, replace_keys};
use crate::input::homelab_toml::{self, Address, Config, Text};
use crate::input::node::{Entry, Map, Node, Value};
use crate::input::problem::{Span, nearest};
use crate::plan::ComposeNetwork;
use crate::plan::isolation::Isolation;
use crate::plan::naming::slice_name;
use crate::plan::service::{
    Dependency, DependencyCondition, ParsedService, Service, ServiceContext, compose_networks,
    compose_volumes, lan_keys, read,
};
use crate::plan::{CompileInput, Problems};
use ipnet::Ipv4Net;
use serde_json::{Value as Json, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use toml::Spanned;

/// A service once for each of its containers.
pub(super) fn replicas(partial: PartialService) -> impl Iterator<Item = Service> {
    let PartialService {
        address,
        scale,
        service,
        ..
    } = partial;
    (1..=scale).map(move |replica| Service {
        replica,
        address: address.as_ref().map(|address| *address.get_ref()),
        ..service.clone()
    })
}

/// One environment in the making.
pub(super) struct EnvBuilder<'a> {
    pub env: &'a homelab_toml::EnvTable,
    pub config: &'a Config,
    pub input: &'a CompileInput<'a>,
    pub project: &'a Project,
    pub hosts: &'a [PartialHost],
    pub primary: Option<&'a str>,
    pub isolation: Isolation,
    pub subnet: Option<Ipv4Net>,
}

impl EnvBuilder<'_> {
    pub(super) fn env(&self, problems: &mut Problems) -> PartialEnv {
        if self.input.has_all_services {
            self.check_overrides(problems);
        }
        let env = self.env;
        let name = env.name.get_ref();
        let limits = read_limits(env, problems);
        let has_slice = self.isolation == Isolation::Enforced || !limits.is_empty();
        let slice = has_slice.then(|| slice_name(name));
        let own_lan = read_lan(env, self.config, self.hosts, problems);
        let subnet = match &own_lan {
            Some(own) => own.subnet.as_ref().map(|subnet| *subnet.get_ref()),
            None => self.subnet,
        };
        let lan = lan_keys(self.project, name, subnet);
        let networks = self.other_networks(&lan, problems);
        let volumes = compose_volumes(&self.project.volumes.0, name, problems);
        let is_native = |span: &Span| span.start < self.input.native_end;
        let mut services = Vec::new();
        let mut disabled = Vec::new();
        let mut merged = Vec::new();
        for raw in self.raw_services(problems) {
            if raw.is_disabled {
                disabled.push(raw.name.into_inner());
                continue;
            }
            let context = ServiceContext {
                env: name,
                host: raw.host_name.as_deref().unwrap_or_default(),
                slice: slice.as_deref(),
                is_isolated: self.isolation == Isolation::Enforced,
                project: self.project,
                lan: &lan,
                networks: &networks,
                volumes: &volumes,
                profiles: &self.project.profiles,
                is_native: &is_native,
            };
            let parsed = read(&raw.name, &raw.keys, &context, problems);
            let keys = Node::new(raw.name.span(), Value::Map(raw.keys.clone()));
            merged.push((raw.name.get_ref().clone(), keys));
            services.push(raw.with(parsed));
        }
        resolve_references(&mut services, problems);
        PartialEnv {
            name: env.name.clone(),
            range: read_range(env.range.as_ref(), problems),
            lan: own_lan,
            limits,
            services,
            disabled,
            networks,
            volumes,
            notices: self.project.notices.clone(),
            variables: self.project.variables.clone(),
            merged,
            sections: self.sections(),
        }
    }

    /// What its Compose files have beside services.
    fn sections(&self) -> Vec<(&'static str, Map)> {
        vec![
            ("networks", self.project.networks.clone()),
            ("volumes", self.project.volumes.clone()),
            ("configs", self.project.configs.clone()),
            ("secrets", self.project.secrets.clone()),
        ]
    }

    /// The networks of the files that are not the LAN.
    fn other_networks(
        &self,
        lan: &BTreeSet<String>,
        problems: &mut Problems,
    ) -> Vec<ComposeNetwork> {
        let others = self.project.networks.0.iter();
        // `default` without anything said about it is where services without `networks` are: the LAN.
        let others = others.filter(|entry| {
            let is_plain = entry.key == "default"
                && entry.node.get("driver").is_none()
                && entry.node.get("external").is_none();
            !lan.contains(&entry.key) && !is_plain
        });
        compose_networks(others, self.env.name.get_ref(), problems)
    }

    fn check_overrides(&self, problems: &mut Problems) {
        for over in &self.env.overrides {
            let native = self
                .config
                .services
                .iter()
                .map(|s| s.name.get_ref().as_str());
            let composed = self
                .project
                .services
                .0
                .iter()
                .map(|entry| entry.key.as_str());
            let known: Vec<&str> = native.chain(composed).collect();
            let name = over.name.get_ref();
            if known.contains(&name.as_str()) {
                continue;
            }
            let what = format!("there is no service `{name}` to override");
            let hint = match nearest(name, known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("define it in `[services.{name}]` first"),
            };
            problems.push(Diagnostic::error_at(over.name.span(), what).hint(hint));
        }
    }

    /// The services of the Compose files with the tables of homelab.toml laid over them, then those of homelab.toml alone.
    fn raw_services(&self, problems: &mut Problems) -> Vec<RawService> {
        let mut all = Vec::new();
        for entry in &self.project.services.0 {
            let keys = match &entry.node.value {
                Value::Map(map) => map.clone(),
                Value::Null => Map::default(),
                other => {
                    let what = format!("`services.{}` must be a table", entry.key);
                    let problem = Diagnostic::error_at(entry.node.span.clone(), what);
                    problems.push(problem.label(format!("this is {other}")));
                    continue;
                }
            };
            let name = Spanned::new(entry.span.clone(), entry.key.clone());
            let native = self.config.services.iter();
            let native = native.filter(|service| *service.name.get_ref() == entry.key);
            all.push(self.raw_service(name, keys, native, problems));
        }
        // Without the Compose files a table may be half a service.
        for service in self
            .config
            .services
            .iter()
            .filter(|_| self.input.has_all_services)
        {
            if self.project.services.get(service.name.get_ref()).is_none() {
                let native = std::iter::once(service);
                all.push(self.raw_service(service.name.clone(), Map::default(), native, problems));
            }
        }
        all
    }

    fn raw_service<'s>(
        &'s self,
        name: Text,
        mut keys: Map,
        native: impl Iterator<Item = &'s homelab_toml::ServiceTable>,
        problems: &mut Problems,
    ) -> RawService {
        let overrides = self.env.overrides.iter();
        let overrides = overrides.filter(|over| over.name.get_ref() == name.get_ref());
        let tables: Vec<&homelab_toml::ServiceTable> = native.chain(overrides).collect();
        let named_host = tables.iter().rev().find_map(|table| table.host.clone());
        let host_name = named_host.as_ref().map(|host| host.get_ref().clone());
        let host_name = host_name.or_else(|| self.primary.map(str::to_owned));
        let enabled = tables.iter().rev().find_map(|table| table.enabled.as_ref());
        let address = tables.iter().rev().find_map(|table| match &table.address {
            Some(Address::One(address)) => Some(address),
            Some(Address::PerEnv(pairs)) => pairs
                .iter()
                .find(|(env, _)| env.get_ref() == self.env.name.get_ref())
                .map(|(_, address)| address),
            None => None,
        });
        let is_disabled = enabled.is_some_and(|flag| !flag.get_ref());
        let address = address.filter(|_| !is_disabled);
        let mut bypasses = tables.iter().rev();
        let bypasses = bypasses.find_map(|table| table.isolation_bypass.clone());
        for table in &tables {
            let over =
                self.expand_placeholders(&table.keys, host_name.as_deref().unwrap_or_default());
            keys = replace_keys(keys, over);
        }
        RawService {
            address: read_address(address, problems),
            name,
            named_host,
            host_name,
            is_disabled,
            bypasses: bypasses.unwrap_or_default(),
            keys,
        }
    }

    /// The keys of a table of homelab.toml with `{env}` and `{host}` replaced and paths made absolute.
    fn expand_placeholders(&self, keys: &Map, host: &str) -> Map {
        let mut node = Node::new(0..0, Value::Map(keys.clone()));
        let fill = |text: &str| {
            text.replace("{env}", self.env.name.get_ref())
                .replace("{host}", host)
        };
        node.each_text(&mut |_, text| *text = fill(text));
        let load_env = LoadEnv {
            read: &|_| Err(std::io::ErrorKind::NotFound.into()),
            variable: &|_| None,
        };
        absolute_paths(&mut node, self.input.folder, &load_env);
        let Value::Map(map) = node.value else {
            return Map::default();
        };
        let expanded = map.0.into_iter().map(|mut entry: Entry| {
            // Names of variables and labels may have them too.
            if let Value::Map(inner) = &mut entry.node.value {
                for entry in &mut inner.0 {
                    entry.key = fill(&entry.key);
                }
            }
            entry
        });
        Map(expanded.collect())
    }
}

/// A service before its keys are read.
struct RawService {
    name: Text,
    address: Option<Spanned<Ipv4Addr>>,
    named_host: Option<Text>,
    host_name: Option<String>,
    is_disabled: bool,
    bypasses: Vec<Text>,
    keys: Map,
}

impl RawService {
    /// The service with its keys read.
    fn with(self, parsed: ParsedService) -> PartialService {
        let ParsedService {
            mut service,
            address,
            has_image,
            scale,
        } = parsed;
        let address = self.address.or(address);
        service.is_on_lan |= address.is_some() && service.network_mode.is_none();
        let accepted = self.bypasses.iter().map(|name| name.get_ref().clone());
        service.accepted_bypasses = accepted.collect();
        PartialService {
            name: self.name,
            address,
            host: self.host_name,
            named_host: self.named_host,
            bypasses: self.bypasses,
            has_image,
            scale,
            service,
        }
    }
}

/// Puts container names in the place of services whose network, processes, IPC or volumes others share, and lets those wait
/// for them, as Compose does.
fn resolve_references(services: &mut [PartialService], problems: &mut Problems) {
    let containers: BTreeMap<String, String> = services
        .iter()
        .map(|partial| (partial.name.get_ref().clone(), partial.service.container()))
        .collect();
    for partial in services {
        let service = &mut partial.service;
        for name in references(service, &containers) {
            if !containers.contains_key(&name) {
                let what = format!(
                    "service `{}` shares something of `{name}`, which does not exist",
                    service.name
                );
                let hint = "name a service of the same environment";
                problems.push(Diagnostic::error_at(service.span.clone(), what).hint(hint));
                continue;
            }
            if !service.depends_on(&name) {
                service.depends_on.push(Dependency {
                    service: Spanned::new(service.span.clone(), name),
                    condition: DependencyCondition::Started,
                    is_required: true,
                    restart: false,
                });
            }
        }
    }
}

/// Resolves the references of one service; returns the services that it refers to.
fn references(service: &mut Service, containers: &BTreeMap<String, String>) -> BTreeSet<String> {
    let mut needed: BTreeSet<String> = BTreeSet::new();
    let mut resolve = |text: &str| -> Option<String> {
        let name = text.strip_prefix("service:")?;
        needed.insert(name.to_owned());
        Some(format!("container:{}", containers.get(name)?))
    };
    if let Some(mode) = &mut service.network_mode
        && let Some(resolved) = resolve(mode)
    {
        *mode = resolved;
    }
    for key in ["pid", "ipc"] {
        if let Some(setting) = service.engine_settings.get_mut(key)
            && let Some(resolved) = setting.value.as_str().and_then(&mut resolve)
        {
            setting.value = json!(resolved);
        }
    }
    if let Some(setting) = service.engine_settings.get_mut("volumes_from")
        && let Json::Array(items) = &mut setting.value
    {
        for item in items {
            let text = item.as_str().unwrap_or_default();
            if let Some(container) = text.strip_prefix("container:") {
                *item = json!(container);
                continue;
            }
            let (name, mode) = text.split_once(':').unwrap_or((text, ""));
            needed.insert(name.to_owned());
            let container = containers.get(name).map_or(name, String::as_str);
            *item = match mode {
                "" => json!(container),
                mode => json!(format!("{container}:{mode}")),
            };
        }
    }
    needed.extend(service.links.iter().map(|link| link.service.clone()));
    for link in &mut service.links {
        if let Some(container) = containers.get(&link.service) {
            link.service.clone_from(container);
        }
    }
    needed
}
