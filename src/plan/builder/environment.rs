//! One environment in the making: Compose files and the tables of homelab.toml laid over each other, and what they come to.

use super::{DraftEnv, DraftService, read_address, read_limits, read_range};
use crate::input::compose::{Project, World, absolute_paths, replace_keys};
use crate::input::homelab_toml::{self, Address, Config, Text};
use crate::input::node::{Entry, Map, Node, Value};
use crate::input::problem::{Problem, Span, nearest};
use crate::plan::isolation::{Isolation, slice_name};
use crate::plan::service::{
    Context, Dependency, Ready, Service, extra_networks, extra_volumes, lan_keys, read,
};
use crate::plan::{Given, Problems};
use ipnet::Ipv4Net;
use serde_json::{Value as Json, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use toml::Spanned;

/// A service once for each of its containers.
pub(super) fn scaled(draft: DraftService) -> impl Iterator<Item = Service> {
    let DraftService {
        address,
        scale,
        service,
        ..
    } = draft;
    (1..=scale).map(move |number| Service {
        number,
        address: address.as_ref().map(|address| *address.get_ref()),
        ..service.clone()
    })
}

/// One environment in the making.
pub(super) struct Drafting<'a> {
    pub env: &'a homelab_toml::Env,
    pub config: &'a Config,
    pub given: &'a Given<'a>,
    pub project: &'a Project,
    pub primary: Option<&'a str>,
    pub isolation: Isolation,
    pub subnet: Option<Ipv4Net>,
}

impl Drafting<'_> {
    pub(super) fn env(&self, problems: &mut Problems) -> DraftEnv {
        if self.given.has_all_services {
            self.check_overrides(problems);
        }
        let env = self.env;
        let name = env.name.get_ref();
        let limits = read_limits(env, problems);
        let has_slice = self.isolation == Isolation::Enforced || !limits.is_empty();
        let slice = has_slice.then(|| slice_name(name));
        let lan = lan_keys(self.project, name, self.subnet);
        let others = self.project.networks.0.iter();
        // `default` without anything said about it is where services without `networks` are: the home network.
        let others = others.filter(|entry| {
            let is_plain = entry.key == "default"
                && entry.node.get("driver").is_none()
                && entry.node.get("external").is_none();
            !lan.contains(&entry.key) && !is_plain
        });
        let networks = extra_networks(others, name, problems);
        let volumes = extra_volumes(&self.project.volumes.0, name, problems);
        let is_native = |span: &Span| span.start < self.given.native_end;
        let mut services = Vec::new();
        let mut disabled = Vec::new();
        let mut merged = Vec::new();
        for source in self.sources(problems) {
            if source.is_disabled {
                disabled.push(source.name.into_inner());
                continue;
            }
            let context = Context {
                env: name,
                host: source.host_name.as_deref().unwrap_or_default(),
                slice: slice.as_deref(),
                project: self.project,
                lan: &lan,
                networks: &networks,
                volumes: &volumes,
                profiles: &self.project.profiles,
                is_native: &is_native,
            };
            let mut read = read(&source.name, &source.keys, &context, problems);
            let span = source.name.span();
            merged.push((
                source.name.get_ref().clone(),
                Node::new(span, Value::Map(source.keys)),
            ));
            let address = source.address.or(read.address);
            if address.is_some() && read.service.network_mode.is_none() {
                read.service.is_on_lan = true;
            }
            services.push(DraftService {
                name: source.name,
                address,
                host: source.host_name,
                named_host: source.named_host,
                has_image: read.has_image,
                scale: read.scale,
                service: read.service,
            });
        }
        share(&mut services, problems);
        DraftEnv {
            name: env.name.clone(),
            range: read_range(env.range.as_ref(), problems),
            limits,
            services,
            disabled,
            networks,
            volumes,
            variables: self.project.variables.clone(),
            merged,
            sections: vec![
                ("networks", self.project.networks.clone()),
                ("volumes", self.project.volumes.clone()),
                ("configs", self.project.configs.clone()),
                ("secrets", self.project.secrets.clone()),
            ],
        }
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
            problems.push(Problem::error(over.name.span(), what).hint(hint));
        }
    }

    /// The services of the Compose files with the tables of homelab.toml laid over them, then those of homelab.toml alone.
    fn sources(&self, problems: &mut Problems) -> Vec<Source> {
        let mut sources = Vec::new();
        for entry in &self.project.services.0 {
            let keys = match &entry.node.value {
                Value::Map(map) => map.clone(),
                Value::Null => Map::default(),
                other => {
                    let what = format!("`services.{}` must be a table", entry.key);
                    let problem = Problem::error(entry.node.span.clone(), what);
                    problems.push(problem.label(format!("this is {other}")));
                    continue;
                }
            };
            let name = Spanned::new(entry.span.clone(), entry.key.clone());
            let native = self.config.services.iter();
            let native = native.filter(|service| *service.name.get_ref() == entry.key);
            sources.push(self.source(name, keys, native, problems));
        }
        // Without the Compose files a table may be half a service.
        for service in self
            .config
            .services
            .iter()
            .filter(|_| self.given.has_all_services)
        {
            if self.project.services.get(service.name.get_ref()).is_none() {
                let native = std::iter::once(service);
                sources.push(self.source(service.name.clone(), Map::default(), native, problems));
            }
        }
        sources
    }

    fn source<'s>(
        &'s self,
        name: Text,
        mut keys: Map,
        native: impl Iterator<Item = &'s homelab_toml::Service>,
        problems: &mut Problems,
    ) -> Source {
        let overrides = self.env.overrides.iter();
        let overrides = overrides.filter(|over| over.name.get_ref() == name.get_ref());
        let tables: Vec<&homelab_toml::Service> = native.chain(overrides).collect();
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
        for table in &tables {
            let over = self.filled(&table.keys, host_name.as_deref().unwrap_or_default());
            keys = replace_keys(keys, over);
        }
        Source {
            address: read_address(address, problems),
            name,
            named_host,
            host_name,
            is_disabled,
            keys,
        }
    }

    /// The keys of a table of homelab.toml with `{env}` and `{host}` replaced and paths made absolute.
    fn filled(&self, keys: &Map, host: &str) -> Map {
        let mut node = Node::new(0..0, Value::Map(keys.clone()));
        let fill = |text: &str| {
            text.replace("{env}", self.env.name.get_ref())
                .replace("{host}", host)
        };
        node.each_text(&mut |_, text| *text = fill(text));
        let world = World {
            read: &|_| Err(std::io::ErrorKind::NotFound.into()),
            variable: &|_| None,
        };
        absolute_paths(&mut node, self.given.folder, &world);
        let Value::Map(map) = node.value else {
            return Map::default();
        };
        let filled = map.0.into_iter().map(|mut entry: Entry| {
            // Names of variables and labels may have them too.
            if let Value::Map(inner) = &mut entry.node.value {
                for entry in &mut inner.0 {
                    entry.key = fill(&entry.key);
                }
            }
            entry
        });
        Map(filled.collect())
    }
}

/// A service before its keys are read.
struct Source {
    name: Text,
    address: Option<Spanned<Ipv4Addr>>,
    named_host: Option<Text>,
    host_name: Option<String>,
    is_disabled: bool,
    keys: Map,
}

/// Puts container names in the place of services whose network, processes, IPC or volumes others share, and lets those wait
/// for them, as Compose does.
fn share(services: &mut [DraftService], problems: &mut Problems) {
    let containers: BTreeMap<String, String> = services
        .iter()
        .map(|draft| (draft.name.get_ref().clone(), draft.service.container()))
        .collect();
    for draft in services {
        let service = &mut draft.service;
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
            if let Some(told) = service.told.get_mut(key)
                && let Some(resolved) = told.value.as_str().and_then(&mut resolve)
            {
                told.value = json!(resolved);
            }
        }
        if let Some(told) = service.told.get_mut("volumes_from")
            && let Json::Array(items) = &mut told.value
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
                let mode = if mode.is_empty() {
                    String::new()
                } else {
                    format!(":{mode}")
                };
                *item = json!(format!("{container}{mode}"));
            }
        }
        needed.extend(service.links.iter().map(|link| link.service.clone()));
        for link in &mut service.links {
            if let Some(container) = containers.get(&link.service) {
                link.service.clone_from(container);
            }
        }
        for name in needed {
            if !containers.contains_key(&name) {
                let what = format!(
                    "service `{}` shares something of `{name}`, which does not exist",
                    service.name
                );
                let hint = "name a service of the same environment";
                problems.push(Problem::error(service.span.clone(), what).hint(hint));
                continue;
            }
            if !service.depends_on(&name) {
                service.depends_on.push(Dependency {
                    service: Spanned::new(service.span.clone(), name),
                    condition: Ready::Started,
                    is_required: true,
                    restart: false,
                });
            }
        }
    }
}
