//! homelab.toml as it is written: the first phase, text to typed tables with the place of every value, and no rules yet.
//!
//! The tables are read off the parser's own tree instead of through serde's derive, because serde stops at the first
//! wrong type, and a person wants to hear of everything that is wrong at once.

mod table;

use crate::problem::{Problem, Span};
use std::collections::BTreeMap;
use table::{Found, Table};
use toml::Spanned;
use toml::de::DeTable;

/// A string and its place.
pub type Text = Spanned<String>;

/// The whole file.
#[derive(Debug, Default)]
pub struct Config {
    /// The environment that env-up and env-down take without `--env`.
    pub default_env: Option<Text>,
    /// `[network]`
    pub network: Network,
    /// `[shim]`
    pub shim: Shim,
    /// `[hosts.NAME]`, in the order of the file.
    pub hosts: Vec<Host>,
    /// `[reserved]`: name and address or range.
    pub reserved: Vec<(Text, Text)>,
    /// `[env.NAME]`, in the order of the file.
    pub envs: Vec<Env>,
    /// `[services.NAME]`, in the order of the file.
    pub services: Vec<Service>,
    /// The paths of keys that are there but misspelt or of a wrong type, which is reported already: they are not missing.
    pub unreadable: Vec<String>,
}

/// `[network]`
#[derive(Debug, Default)]
pub struct Network {
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
pub struct Shim {
    /// The name of the link.
    pub name: Option<Text>,
    /// Its address on hosts that name none of their own.
    pub address: Option<Text>,
}

/// `[hosts.NAME]`
#[derive(Debug)]
pub struct Host {
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
pub struct Env {
    /// Its name.
    pub name: Text,
    /// The addresses of its containers.
    pub range: Option<Text>,
    /// The memory that all its containers on a host may use together.
    pub memory: Option<Text>,
    /// The processors that all its containers on a host may use together.
    pub cpus: Option<Text>,
    /// `[env.NAME.services.SERVICE]`: keys that replace those of `[services.SERVICE]`.
    pub overrides: Vec<Service>,
}

/// A value that may be given as one string or as a list of strings.
#[derive(Clone, Debug)]
pub enum OneOrMany {
    /// `"a b"`
    One(Text),
    /// `["a", "b"]`
    Many(Vec<Text>),
}

/// What is the address of a service.
#[derive(Clone, Debug)]
pub enum Address {
    /// In an override: the address in that environment.
    One(Text),
    /// In `[services.NAME]`: environment and address.
    PerEnv(Vec<(Text, Text)>),
}

/// `[services.NAME]` or `[env.ENV.services.NAME]`. Keys have the names and the meaning that they have in Compose.
#[derive(Clone, Debug)]
pub struct Service {
    pub name: Text,
    pub address: Option<Address>,
    pub host: Option<Text>,
    pub enabled: Option<Spanned<bool>>,
    pub image: Option<Text>,
    pub command: Option<OneOrMany>,
    pub entrypoint: Option<OneOrMany>,
    pub environment: Vec<(Text, Option<Text>)>,
    pub env_file: Option<OneOrMany>,
    pub volumes: Option<Vec<Text>>,
    pub restart: Option<Text>,
    pub labels: Vec<(Text, Option<Text>)>,
    pub hostname: Option<Text>,
    pub user: Option<Text>,
    pub working_dir: Option<Text>,
    pub cap_add: Option<Vec<Text>>,
    pub cap_drop: Option<Vec<Text>>,
    pub devices: Option<Vec<Text>>,
    pub privileged: Option<Spanned<bool>>,
    pub init: Option<Spanned<bool>>,
    pub read_only: Option<Spanned<bool>>,
    pub tmpfs: Option<OneOrMany>,
    pub shm_size: Option<Text>,
    pub stop_signal: Option<Text>,
    pub stop_grace_period: Option<Text>,
    pub depends_on: Option<Vec<Text>>,
}

/// Reads a file. Everything that is readable is in the returned [`Config`], everything that is not is a problem beside it.
///
/// # Errors
/// When the text is not TOML: then nothing can be said about its content.
pub fn parse(source: &str) -> Result<(Config, Vec<Problem>), Vec<Problem>> {
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
                Problem::error(span, format!("this is not TOML: {what}"))
                    .hint("https://toml.io describes how it is written")
            })
            .collect();
        return Err(problems);
    }
    let mut found = Found::default();
    let mut config = read_config(&mut Table::new(
        "",
        document.span(),
        document.get_ref(),
        &mut found,
    ));
    config.unreadable = found.unreadable;
    Ok((config, found.problems))
}

fn read_config(table: &mut Table) -> Config {
    let config = Config {
        default_env: table.string("default_env"),
        network: table.table("network", |t| Network {
            span: t.span.clone(),
            subnet: t.string("subnet"),
            gateway: t.string("gateway"),
            parent: t.string("parent"),
            dhcp: t.string("dhcp"),
            isolation: t.string("isolation"),
        }),
        shim: table.table("shim", |t| Shim {
            name: t.string("name"),
            address: t.string("address"),
        }),
        hosts: table.tables("hosts", |name, t| Host {
            name,
            address: t.string("address"),
            primary: t.boolean("primary"),
            shim: t.string("shim"),
            parent: t.string("parent"),
        }),
        reserved: table.strings_by_name("reserved"),
        envs: table.tables("env", |name, t| Env {
            name,
            range: t.string("range"),
            memory: t.scalar("memory"),
            cpus: t.scalar("cpus"),
            overrides: t.tables("services", |name, t| read_service(name, t, true)),
        }),
        services: table.tables("services", |name, t| read_service(name, t, false)),
        unreadable: Vec::new(),
    };
    table.finish();
    config
}

fn read_service(name: Text, t: &mut Table, is_override: bool) -> Service {
    Service {
        name,
        address: t.address(is_override),
        host: t.string("host"),
        enabled: t.boolean("enabled"),
        image: t.string("image"),
        command: t.one_or_many("command"),
        entrypoint: t.one_or_many("entrypoint"),
        environment: t.assignments("environment"),
        env_file: t.one_or_many("env_file"),
        volumes: t.list("volumes"),
        restart: t.string("restart"),
        labels: t.assignments("labels"),
        hostname: t.string("hostname"),
        user: t.scalar("user"),
        working_dir: t.string("working_dir"),
        cap_add: t.list("cap_add"),
        cap_drop: t.list("cap_drop"),
        devices: t.list("devices"),
        privileged: t.boolean("privileged"),
        init: t.boolean("init"),
        read_only: t.boolean("read_only"),
        tmpfs: t.one_or_many("tmpfs"),
        shm_size: t.scalar("shm_size"),
        stop_signal: t.scalar("stop_signal"),
        stop_grace_period: t.string("stop_grace_period"),
        depends_on: t.depends_on(),
    }
}

impl Service {
    /// This service with the keys of `over` in place of its own; `environment` and `labels` are merged by name.
    pub fn overridden_by(&self, over: &Self) -> Self {
        let base = self.clone();
        let Self {
            name: _,
            address,
            host,
            enabled,
            image,
            command,
            entrypoint,
            environment,
            env_file,
            volumes,
            restart,
            labels,
            hostname,
            user,
            working_dir,
            cap_add,
            cap_drop,
            devices,
            privileged,
            init,
            read_only,
            tmpfs,
            shm_size,
            stop_signal,
            stop_grace_period,
            depends_on,
        } = over.clone();
        Self {
            name: base.name,
            address: address.or(base.address),
            host: host.or(base.host),
            enabled: enabled.or(base.enabled),
            image: image.or(base.image),
            command: command.or(base.command),
            entrypoint: entrypoint.or(base.entrypoint),
            environment: merged(base.environment, environment),
            env_file: env_file.or(base.env_file),
            volumes: volumes.or(base.volumes),
            restart: restart.or(base.restart),
            labels: merged(base.labels, labels),
            hostname: hostname.or(base.hostname),
            user: user.or(base.user),
            working_dir: working_dir.or(base.working_dir),
            cap_add: cap_add.or(base.cap_add),
            cap_drop: cap_drop.or(base.cap_drop),
            devices: devices.or(base.devices),
            privileged: privileged.or(base.privileged),
            init: init.or(base.init),
            read_only: read_only.or(base.read_only),
            tmpfs: tmpfs.or(base.tmpfs),
            shm_size: shm_size.or(base.shm_size),
            stop_signal: stop_signal.or(base.stop_signal),
            stop_grace_period: stop_grace_period.or(base.stop_grace_period),
            depends_on: depends_on.or(base.depends_on),
        }
    }
}

type Assignment = (Text, Option<Text>);

fn merged(base: Vec<Assignment>, over: Vec<Assignment>) -> Vec<Assignment> {
    let mut all: BTreeMap<String, Assignment> = BTreeMap::new();
    for (name, value) in base.into_iter().chain(over) {
        all.insert(name.get_ref().clone(), (name, value));
    }
    all.into_values().collect()
}
