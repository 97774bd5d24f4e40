//! Networks and volumes of Compose files, beside the LAN. Pure.

use super::fingerprint::{Keys, map, option};
use crate::error::Diagnostic;
use crate::input::fields::Fields;
use crate::input::node::{Entry, Node};
use crate::plan::naming::resource_name;
use crate::plan::{Problems, Written};
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// A network of the Engine beside the LAN, such as a bridge between an app and its database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ComposeNetwork {
    /// Its name in the file.
    pub key: String,
    /// The Engine's name for it, `homelab-ENV_KEY` unless the file says another.
    pub name: String,
    /// The environment.
    pub env: String,
    /// Somebody else makes it.
    pub is_external: bool,
    /// `bridge` when there is none.
    pub driver: Option<String>,
    /// Options of the driver.
    pub options: BTreeMap<String, String>,
    /// No way out.
    pub internal: bool,
    /// Containers that Compose does not make may join.
    pub attachable: bool,
    /// Whether it has IPv4, when the file says so.
    pub ipv4: Option<bool>,
    /// Whether it has IPv6, when the file says so.
    pub ipv6: Option<bool>,
    /// Who gives out its addresses, when the file says so.
    pub ipam_driver: Option<String>,
    /// Options of whoever does.
    pub ipam_options: BTreeMap<String, String>,
    /// Where its addresses come from; the Engine chooses when there are none.
    pub pools: Vec<ComposePool>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// Where the addresses of a network come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ComposePool {
    /// All addresses.
    pub subnet: Option<Written<IpNet>>,
    /// Those that are given out.
    pub ip_range: Option<Written<IpNet>>,
    /// The address of the bridge itself.
    pub gateway: Option<Written<IpAddr>>,
    /// Those that are not given out, by what they are for.
    pub auxiliary: BTreeMap<String, Written<IpAddr>>,
}

impl ComposeNetwork {
    /// What the Engine was told of it, key by key as for a service; kept as a label.
    pub fn fingerprint(&self) -> String {
        let Self {
            key: _,
            name: _,
            env: _,
            is_external: _,
            driver,
            options,
            internal,
            attachable,
            ipv4,
            ipv6,
            ipam_driver,
            ipam_options,
            pools,
            labels,
        } = self;
        let pairs = |map: &BTreeMap<String, String>| -> Vec<String> {
            map.iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect()
        };
        let mut keys = Keys::default();
        keys.add("driver", driver);
        keys.add("driver_opts", pairs(options));
        keys.add("internal", internal.then_some("true"));
        keys.add("attachable", attachable.then_some("true"));
        keys.add("enable_ipv6", ipv6.map(|on| on.to_string()));
        keys.add("enable_ipv4", ipv4.map(|on| on.to_string()));
        keys.add("ipam_driver", ipam_driver);
        keys.add("ipam_options", pairs(ipam_options));
        let pool = |pool: &ComposePool| {
            let ComposePool {
                subnet,
                ip_range,
                gateway,
                auxiliary,
            } = pool;
            let (subnet, ip_range) = (option(subnet.as_ref()), option(ip_range.as_ref()));
            let gateway = option(gateway.as_ref());
            format!("{subnet} {ip_range} {gateway} {}", map(auxiliary))
        };
        keys.add("pools", pools.iter().map(pool));
        keys.add("labels", pairs(labels));
        keys.finish()
    }
}

/// A volume that services name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ComposeVolume {
    /// Its name in the file.
    pub key: String,
    /// The Engine's name for it, `homelab-ENV_KEY` unless the file says another.
    pub name: String,
    /// The environment.
    pub env: String,
    /// Somebody else makes it.
    pub is_external: bool,
    /// `local` when there is none.
    pub driver: Option<String>,
    /// Options of the driver.
    pub options: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// The networks of the file that are not the LAN.
pub(in crate::plan) fn networks<'a>(
    entries: impl IntoIterator<Item = &'a Entry>,
    env: &str,
    problems: &mut Problems,
) -> Vec<ComposeNetwork> {
    let each = |entry: &Entry| {
        let mut fields = Fields::new(format!("networks.{}", entry.key), entry.node.as_map());
        let (name, is_external) = name_of(&mut fields, entry, env, problems);
        let mut ipam = fields.table("ipam", problems);
        let pools = ipam
            .items("config", problems)
            .iter()
            .map(|item| pool(item, problems))
            .collect();
        let network = ComposeNetwork {
            key: entry.key.clone(),
            name,
            env: env.to_owned(),
            is_external,
            driver: fields.plain("driver", problems),
            options: fields.pairs("driver_opts", problems),
            internal: fields.boolean("internal", problems).unwrap_or(false),
            attachable: fields.boolean("attachable", problems).unwrap_or(false),
            ipv4: fields.boolean("enable_ipv4", problems),
            ipv6: fields.boolean("enable_ipv6", problems),
            ipam_driver: ipam.plain("driver", problems),
            ipam_options: ipam.pairs("options", problems),
            pools,
            labels: fields.pairs("labels", problems),
        };
        ipam.finish(|_| None, problems);
        fields.finish(|_| None, problems);
        network
    };
    entries.into_iter().map(each).collect()
}

fn pool(item: &Node, problems: &mut Problems) -> ComposePool {
    let mut fields = Fields::new("ipam.config", item.as_map());
    let pool = ComposePool {
        subnet: net(&mut fields, "subnet", problems),
        ip_range: net(&mut fields, "ip_range", problems),
        gateway: address(&mut fields, "gateway", problems),
        auxiliary: auxiliary(&mut fields, problems),
    };
    fields.finish(|_| None, problems);
    pool
}

/// A subnet; one that is none is named and left out.
fn net(fields: &mut Fields, key: &'static str, problems: &mut Problems) -> Option<Written<IpNet>> {
    let hint = "an address and a prefix length, like `172.30.0.0/24`";
    fields.checked(key, "a subnet", hint, Written::parse, problems)
}

fn address(
    fields: &mut Fields,
    key: &'static str,
    problems: &mut Problems,
) -> Option<Written<IpAddr>> {
    let hint = "an address of the subnet, like `172.30.0.1`";
    fields.checked(key, "an address", hint, Written::parse, problems)
}

fn auxiliary(fields: &mut Fields, problems: &mut Problems) -> BTreeMap<String, Written<IpAddr>> {
    let mut all = BTreeMap::new();
    for (name, value, span) in fields.assignments("aux_addresses", problems) {
        let value = value.unwrap_or_default();
        match Written::parse(&value) {
            Ok(address) => {
                all.insert(name, address);
            }
            Err(_) => problems.push(
                Diagnostic::error_at(span, format!("`{value}`, for `{name}`, is not an address"))
                    .hint("an address of the subnet, like `172.30.0.2`"),
            ),
        }
    }
    all
}

/// The volumes of the file.
pub(in crate::plan) fn volumes<'a>(
    entries: impl IntoIterator<Item = &'a Entry>,
    env: &str,
    problems: &mut Problems,
) -> Vec<ComposeVolume> {
    let each = |entry: &Entry| {
        let mut fields = Fields::new(format!("volumes.{}", entry.key), entry.node.as_map());
        let (name, is_external) = name_of(&mut fields, entry, env, problems);
        let volume = ComposeVolume {
            key: entry.key.clone(),
            name,
            env: env.to_owned(),
            is_external,
            driver: fields.plain("driver", problems),
            options: fields.pairs("driver_opts", problems),
            labels: fields.pairs("labels", problems),
        };
        fields.finish(|_| None, problems);
        volume
    };
    entries.into_iter().map(each).collect()
}

/// The Engine's name of a network or volume, and whether somebody else makes it.
fn name_of(
    fields: &mut Fields,
    entry: &Entry,
    env: &str,
    problems: &mut Problems,
) -> (String, bool) {
    let name = fields.plain("name", problems);
    let external = fields.take("external");
    // The oldest form is a table with a name.
    let older = external
        .and_then(|node| node.get("name"))
        .and_then(Node::scalar);
    let is_external = match external {
        Some(node) if node.as_map().is_some() => true,
        Some(_) => fields.boolean("external", problems) == Some(true),
        None => false,
    };
    let node = &entry.node;
    if !node.is_null() && node.as_map().is_none() {
        let what = format!("`{}` must be a table", fields.path);
        problems.push(
            Diagnostic::error_at(node.span.clone(), what).label(format!("this is {}", node.value)),
        );
    }
    let name = name.or(older);
    let usual = || {
        if is_external {
            entry.key.clone()
        } else {
            resource_name(env, &entry.key)
        }
    };
    (name.unwrap_or_else(usual), is_external)
}
