//! homelab.toml as it is written: the first phase, text to typed tables with the place of every value, and no rules yet.
//!
//! The tables are read off the parser's own tree instead of through serde's derive, because serde stops at the first
//! wrong type, and a person wants to hear of everything that is wrong at once.

mod table;

use crate::error::Diagnostic;
use crate::input::node::Map;
use crate::input::problem::Span;
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
    /// Compose files of all environments, and what goes with them.
    pub compose: Compose,
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

/// Where services come from beside `[services]`: keys that stand at the top of the file or in an environment.
#[derive(Clone, Debug, Default)]
pub struct Compose {
    /// Compose files, later ones merged over earlier ones.
    pub files: Option<OneOrMany>,
    /// Files with the variables of the Compose files.
    pub env_file: Option<OneOrMany>,
    /// Profiles whose services start too.
    pub profiles: Option<OneOrMany>,
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
    /// Its own Compose files, in the place of those of all environments.
    pub compose: Compose,
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

/// `[services.NAME]` or `[env.ENV.services.NAME]`.
#[derive(Clone, Debug)]
pub struct Service {
    /// Its name.
    pub name: Text,
    /// Its address on the LAN.
    pub address: Option<Address>,
    /// The host that it runs on.
    pub host: Option<Text>,
    /// Whether the environment has it.
    pub enabled: Option<Spanned<bool>>,
    /// All other keys, which have the names and the meaning that they have in Compose.
    pub keys: Map,
}

/// Reads a file. Everything that is readable is in the returned [`Config`], everything that is not is a problem beside it.
///
/// # Errors
/// When the text is not TOML: then nothing can be said about its content.
pub fn parse(source: &str) -> Result<(Config, Vec<Diagnostic>), Vec<Diagnostic>> {
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
        compose: read_compose(table),
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
            compose: read_compose(t),
            overrides: t.tables("services", |name, t| read_service(name, t, true)),
        }),
        services: table.tables("services", |name, t| read_service(name, t, false)),
        unreadable: Vec::new(),
    };
    table.finish();
    config
}

fn read_compose(t: &mut Table) -> Compose {
    Compose {
        files: t.one_or_many("compose"),
        env_file: t.one_or_many("env_file"),
        profiles: t.one_or_many("profiles"),
    }
}

fn read_service(name: Text, t: &mut Table, is_override: bool) -> Service {
    Service {
        name,
        address: t.address(is_override),
        host: t.string("host"),
        enabled: t.boolean("enabled"),
        keys: t.rest(),
    }
}

impl OneOrMany {
    /// All of them.
    pub fn texts(&self) -> &[Text] {
        match self {
            Self::One(text) => std::slice::from_ref(text),
            Self::Many(texts) => texts,
        }
    }
}
