//! homelab.toml as it is written: the first phase, text to typed tables with the place of every value, and no rules yet.
//!
//! The tables are read by [`Fields`], as those of Compose files are, instead of through serde's derive: serde stops at the first
//! wrong type, and a person wants to hear of everything that is wrong at once.

use super::fields::Fields;
use super::node::{Entry, Map, Node, Value};
use super::problem::{Problems, Span};
use crate::error::Diagnostic;
use std::cell::RefCell;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A string and its place.
pub type Text = Spanned<String>;

/// The whole file.
#[derive(Debug, Default)]
pub struct Config {
    /// The environment that env-up and env-down take without `--env`.
    pub default_env: Option<Text>,
    /// Compose files of all environments, and what goes with them.
    pub compose: Compose,
    /// `[network]`
    pub network: NetworkTable,
    /// `[shim]`
    pub shim: ShimTable,
    /// `[hosts.NAME]`, in the order of the file.
    pub hosts: Vec<HostTable>,
    /// `[reserved]`: name and address or range.
    pub reserved: Vec<(Text, Text)>,
    /// `[env.NAME]`, in the order of the file.
    pub envs: Vec<EnvTable>,
    /// `[services.NAME]`, in the order of the file.
    pub services: Vec<ServiceTable>,
    /// The paths of keys that are there but misspelt or of a wrong type, which is reported already: they are not missing.
    pub unreadable: Vec<String>,
}

/// Where services come from beside `[services]`: keys that stand at the top of the file or in an environment.
#[derive(Clone, Debug, Default)]
pub struct Compose {
    /// Compose files, later ones merged over earlier ones.
    pub files: Option<Vec<Text>>,
    /// Files with the variables of the Compose files.
    pub env_file: Option<Vec<Text>>,
    /// Profiles whose services start too.
    pub profiles: Option<Vec<Text>>,
}

/// `[network]`
#[derive(Debug, Default)]
pub struct NetworkTable {
    /// The place of the table.
    pub span: Span,
    /// The LAN as a CIDR.
    pub subnet: Option<Text>,
    /// The router.
    pub gateway: Option<Text>,
    /// The interface that macvlan links are made on.
    pub parent: Option<Text>,
    /// Where the router hands out leases.
    pub dhcp: Option<Text>,
    /// Whether environments are kept apart.
    pub isolation: Option<Text>,
}

/// `[shim]`
#[derive(Debug, Default)]
pub struct ShimTable {
    /// The name of the link.
    pub name: Option<Text>,
    /// Its address on hosts that name none of their own.
    pub address: Option<Text>,
}

/// `[hosts.NAME]`
#[derive(Debug)]
pub struct HostTable {
    /// Its name.
    pub name: Text,
    /// Its own address on the LAN.
    pub address: Option<Text>,
    /// Services that name no host run here.
    pub primary: Option<Spanned<bool>>,
    /// The address of its shim.
    pub shim: Option<Text>,
    /// Its parent interface.
    pub parent: Option<Text>,
}

/// `[env.NAME]`
#[derive(Debug)]
pub struct EnvTable {
    /// Its name.
    pub name: Text,
    /// The addresses of its containers.
    pub range: Option<Text>,
    /// The memory that all its containers on a host may use together.
    pub memory: Option<Text>,
    /// The processors that all its containers on a host may use together.
    pub cpus: Option<Text>,
    /// The LAN that it has for its own, as a CIDR.
    pub subnet: Option<Text>,
    /// The router of that LAN.
    pub gateway: Option<Text>,
    /// The interfaces that hosts are on that LAN with.
    pub parent: Option<PerHost>,
    /// The addresses of hosts' shims on that LAN.
    pub shim: Option<PerHost>,
    /// Its own Compose files, in the place of those of all environments.
    pub compose: Compose,
    /// `[env.NAME.services.SERVICE]`: keys that replace those of `[services.SERVICE]`.
    pub overrides: Vec<ServiceTable>,
}

/// What hosts have of a kind.
#[derive(Clone, Debug)]
pub enum PerHost {
    /// The one of all that have any.
    One(Text),
    /// Host and value.
    Each(Vec<(Text, Text)>),
}

/// What is the address of a service.
#[derive(Clone, Debug)]
pub enum Address {
    /// In an override: the address in that environment.
    One(Text),
    /// In `[services.NAME]`: environment and address.
    PerEnv(Vec<(Text, Text)>),
}

/// `[services.NAME]` or `[env.ENV.services.NAME]`.
#[derive(Clone, Debug)]
pub struct ServiceTable {
    /// Its name.
    pub name: Text,
    /// Its address on the LAN.
    pub address: Option<Address>,
    /// The host that it runs on.
    pub host: Option<Text>,
    /// Whether the environment has it.
    pub enabled: Option<Spanned<bool>>,
    /// The ways out of the isolation that it is meant to have.
    pub isolation_bypass: Option<Vec<Text>>,
    /// All other keys, which have the names and the meaning that they have in Compose.
    pub keys: Map,
}

/// Reads a file. Everything that is readable is in the returned [`Config`], everything that is not is a problem beside it.
///
/// # Errors
/// When the text is not TOML: then nothing can be said about its content.
pub fn parse(source: &str) -> Result<(Config, Problems), Problems> {
    let (document, syntax) = DeTable::parse_recoverable(source);
    if !syntax.is_empty() {
        let problems = syntax
            .iter()
            .map(|error| {
                let span = error.span().unwrap_or_default();
                let mut what = error.message().lines().collect::<Vec<_>>().join(", ");
                if what == "duplicate key" {
                    let name = source.get(span.clone()).unwrap_or_default();
                    what = format!("`{name}` stands in this table twice");
                }
                Diagnostic::error_at(span, format!("this is not TOML: {what}"))
                    .hint("https://toml.io describes how it is written")
            })
            .collect();
        return Err(problems);
    }
    let (mut problems, unreadable) = (Vec::new(), RefCell::new(Vec::new()));
    let map = map(document.get_ref());
    let mut config = read_config(&mut Fields::of_toml(&map, &unreadable), &mut problems);
    config.unreadable = unreadable.into_inner();
    Ok((config, problems))
}

fn read_config(fields: &mut Fields, problems: &mut Problems) -> Config {
    let default_env = fields.string("default_env", problems);
    let compose = read_compose(fields, problems);
    let network = read_network(fields, problems);
    let mut table = fields.table("shim", problems);
    let shim = ShimTable {
        name: table.string("name", problems),
        address: table.string("address", problems),
    };
    table.finish(|_| None, problems);
    let config = Config {
        default_env,
        compose,
        network,
        shim,
        hosts: fields.tables("hosts", problems, |name, t, problems| HostTable {
            name,
            address: t.string("address", problems),
            primary: t.flag("primary", problems),
            shim: t.string("shim", problems),
            parent: t.string("parent", problems),
        }),
        reserved: fields.strings_by_name("reserved", problems),
        envs: fields.tables("env", problems, |name, t, problems| EnvTable {
            name,
            range: t.string("range", problems),
            memory: t.scalar("memory", problems),
            cpus: t.scalar("cpus", problems),
            subnet: t.string("subnet", problems),
            gateway: t.string("gateway", problems),
            parent: read_per_host("parent", "an interface, like \"eth0.20\"", t, problems),
            shim: read_per_host("shim", "an address", t, problems),
            compose: read_compose(t, problems),
            overrides: t.tables("services", problems, |name, t, problems| {
                let address = read_address(t, problems);
                read_service(name, address, t, problems)
            }),
        }),
        services: fields.tables("services", problems, |name, t, problems| {
            let address = read_addresses(t, problems);
            read_service(name, address, t, problems)
        }),
        unreadable: Vec::new(),
    };
    fields.finish(|_| None, problems);
    config
}

fn read_network(fields: &mut Fields, problems: &mut Problems) -> NetworkTable {
    let span = fields.take("network").map(|node| node.span.clone());
    let mut table = fields.table("network", problems);
    let network = NetworkTable {
        span: span.unwrap_or_default(),
        subnet: table.string("subnet", problems),
        gateway: table.string("gateway", problems),
        parent: table.string("parent", problems),
        dhcp: table.string("dhcp", problems),
        isolation: table.string("isolation", problems),
    };
    table.finish(|_| None, problems);
    network
}

fn read_compose(fields: &mut Fields, problems: &mut Problems) -> Compose {
    Compose {
        files: fields.strings("compose", problems),
        env_file: fields.strings("env_file", problems),
        profiles: fields.strings("profiles", problems),
    }
}

/// A string, or a table of strings by host.
fn read_per_host(
    key: &'static str,
    wanted: &str,
    fields: &mut Fields,
    problems: &mut Problems,
) -> Option<PerHost> {
    let node = fields.take(key)?;
    if node.as_map().is_some() {
        return Some(PerHost::Each(fields.strings_by_name(key, problems)));
    }
    let Some(text) = node.as_text() else {
        let wanted = format!("{wanted}, or a table with one for each host");
        fields.wrong_type(key, node, &wanted, problems);
        return None;
    };
    let text = Spanned::new(node.span.clone(), text.to_owned());
    Some(PerHost::One(text))
}

/// The address of a service in one environment.
fn read_address(fields: &mut Fields, problems: &mut Problems) -> Option<Address> {
    let node = fields.take("address")?;
    let Some(text) = node.as_text() else {
        fields.wrong_type("address", node, "one address, as a string", problems);
        return None;
    };
    let text = Spanned::new(node.span.clone(), text.to_owned());
    Some(Address::One(text))
}

/// The addresses of a service, by environment.
fn read_addresses(fields: &mut Fields, problems: &mut Problems) -> Option<Address> {
    let node = fields.take("address")?;
    if node.as_map().is_none() {
        let wanted =
            "a table with an address for each environment, like { prod = \"192.168.1.200\" }";
        fields.wrong_type("address", node, wanted, problems);
        return None;
    }
    let pairs = fields.strings_by_name("address", problems);
    Some(Address::PerEnv(pairs))
}

fn read_service(
    name: Text,
    address: Option<Address>,
    fields: &mut Fields,
    problems: &mut Problems,
) -> ServiceTable {
    ServiceTable {
        name,
        address,
        host: fields.string("host", problems),
        enabled: fields.flag("enabled", problems),
        isolation_bypass: fields.strings("isolation_bypass", problems),
        keys: fields.rest(),
    }
}

/// A table of the parser, in the order of the file: the first environment keeps the exact subnet as its pool.
fn map(table: &DeTable) -> Map {
    let entries = table.iter().map(|(key, value)| Entry {
        key: key.get_ref().to_string(),
        span: key.span(),
        node: node(value),
    });
    let mut entries: Vec<Entry> = entries.collect();
    entries.sort_by_key(|entry| entry.span.start);
    Map(entries)
}

/// A value of TOML as one that Compose files have too.
fn node(value: &Spanned<DeValue>) -> Node {
    let inner = match value.get_ref() {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => {
            let digits = number.as_str();
            match i64::from_str_radix(digits, number.radix()) {
                Ok(number) => Value::Integer(number),
                Err(_) => Value::Text(digits.to_owned()),
            }
        }
        DeValue::Float(number) => match number.as_str().parse() {
            Ok(number) => Value::Float(number),
            Err(_) => Value::Text(number.as_str().to_owned()),
        },
        DeValue::Boolean(flag) => Value::Bool(*flag),
        DeValue::Datetime(date) => Value::Text(date.to_string()),
        DeValue::Array(items) => Value::List(items.iter().map(node).collect()),
        DeValue::Table(table) => Value::Map(map(table)),
    };
    Node::new(value.span(), inner)
}
