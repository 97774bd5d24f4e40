//! homelab.toml as it is written: the first phase, text to typed tables with the place of every value, and no rules yet.
//!
//! The tables are read off the parser's own tree instead of through serde's derive, because serde stops at the first
//! wrong type, and a person wants to hear of everything that is wrong at once.

use crate::problem::{Problem, Span, nearest};
use std::collections::BTreeMap;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

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

/// What is wrong so far.
#[derive(Default)]
struct Found {
    problems: Vec<Problem>,
    unreadable: Vec<String>,
}

type Entry<'a> = (Text, &'a Spanned<DeValue<'a>>);

/// Keys and values in the order of the file: the first environment keeps the exact subnet as its pool.
fn entries_of<'a>(table: &'a DeTable<'a>) -> Vec<Entry<'a>> {
    let mut entries: Vec<_> = table
        .iter()
        .map(|(key, value)| (Spanned::new(key.span(), key.get_ref().to_string()), value))
        .collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

/// A table that is being read: it knows which of its keys were asked for, so that the others can be named.
struct Table<'a> {
    path: String,
    span: Span,
    entries: Vec<Entry<'a>>,
    known: Vec<&'static str>,
    found: &'a mut Found,
}

impl<'a> Table<'a> {
    fn new(path: &str, span: Span, table: &'a DeTable<'a>, found: &'a mut Found) -> Self {
        Self {
            path: path.to_owned(),
            span,
            entries: entries_of(table),
            known: Vec::new(),
            found,
        }
    }

    fn take(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.known.push(key);
        self.entries
            .iter()
            .find(|(name, _)| name.get_ref() == key)
            .map(|(_, value)| *value)
    }

    fn join(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    fn wrong_type(&mut self, key: &str, value: &Spanned<DeValue>, wanted: &str) {
        let found = type_name(value.get_ref());
        let path = self.join(key);
        self.found.problems.push(
            Problem::error(value.span(), format!("`{path}` must be {wanted}"))
                .label(format!("this is {found}")),
        );
        self.found.unreadable.push(path);
    }

    fn string(&mut self, key: &'static str) -> Option<Text> {
        let value = self.take(key)?;
        self.text(key, value, "a string")
    }

    /// A string where a bare number or boolean is as good: `user = 1000`.
    fn scalar(&mut self, key: &'static str) -> Option<Text> {
        let value = self.take(key)?;
        self.plain(key, value)
    }

    fn text(&mut self, key: &str, value: &Spanned<DeValue>, wanted: &str) -> Option<Text> {
        let text = value.get_ref().as_str();
        if text.is_none() {
            self.wrong_type(key, value, wanted);
        }
        text.map(|text| Spanned::new(value.span(), text.to_owned()))
    }

    fn plain(&mut self, key: &str, value: &Spanned<DeValue>) -> Option<Text> {
        let text = match value.get_ref() {
            DeValue::String(text) => text.to_string(),
            DeValue::Integer(number) if number.radix() == 10 => number.as_str().to_owned(),
            DeValue::Float(number) => number.as_str().to_owned(),
            DeValue::Boolean(flag) => flag.to_string(),
            _ => {
                self.wrong_type(key, value, "a string, a number or a boolean");
                return None;
            }
        };
        Some(Spanned::new(value.span(), text))
    }

    fn boolean(&mut self, key: &'static str) -> Option<Spanned<bool>> {
        let value = self.take(key)?;
        let flag = value.get_ref().as_bool();
        if flag.is_none() {
            self.wrong_type(key, value, "true or false");
        }
        flag.map(|flag| Spanned::new(value.span(), flag))
    }

    fn list(&mut self, key: &'static str) -> Option<Vec<Text>> {
        let value = self.take(key)?;
        let Some(items) = value.get_ref().as_array() else {
            self.wrong_type(key, value, "a list of strings");
            return None;
        };
        Some(
            items
                .iter()
                .filter_map(|item| self.text(key, item, "a list of strings"))
                .collect(),
        )
    }

    fn one_or_many(&mut self, key: &'static str) -> Option<OneOrMany> {
        let value = self.take(key)?;
        if let Some(text) = value.get_ref().as_str() {
            return Some(OneOrMany::One(Spanned::new(value.span(), text.to_owned())));
        }
        if value.get_ref().is_array() {
            return self.list(key).map(OneOrMany::Many);
        }
        self.wrong_type(key, value, "a string or a list of strings");
        None
    }

    /// `{ NAME = "value" }` or `["NAME=value"]`; a list's item without `=` has no value.
    fn assignments(&mut self, key: &'static str) -> Vec<(Text, Option<Text>)> {
        let Some(value) = self.take(key) else {
            return Vec::new();
        };
        match value.get_ref() {
            DeValue::Table(table) => {
                let path = self.join(key);
                let mut inner = Table::new(&path, value.span(), table, self.found);
                entries_of(table)
                    .into_iter()
                    .filter_map(|(name, value)| {
                        let text = inner.plain(name.get_ref(), value)?;
                        Some((name, Some(text)))
                    })
                    .collect()
            }
            DeValue::Array(items) => items
                .iter()
                .filter_map(|item| self.text(key, item, "a list of `NAME=value`"))
                .map(|item| match item.get_ref().split_once('=') {
                    Some((name, text)) => (
                        Spanned::new(item.span(), name.to_owned()),
                        Some(Spanned::new(item.span(), text.to_owned())),
                    ),
                    None => (item, None),
                })
                .collect(),
            _ => {
                self.wrong_type(key, value, "a table, or a list of `NAME=value`");
                Vec::new()
            }
        }
    }

    fn address(&mut self, is_override: bool) -> Option<Address> {
        let value = self.take("address")?;
        match value.get_ref() {
            DeValue::Table(_) if !is_override => {
                let pairs = self.strings_by_name("address");
                Some(Address::PerEnv(pairs))
            }
            DeValue::String(text) if is_override => {
                Some(Address::One(Spanned::new(value.span(), text.to_string())))
            }
            _ if is_override => {
                self.wrong_type("address", value, "one address, as a string");
                None
            }
            _ => {
                self.wrong_type(
                    "address",
                    value,
                    "a table with an address for each environment, like { prod = \"192.168.1.200\" }",
                );
                None
            }
        }
    }

    /// A list of services, or a table of them whose only condition is `service_started`.
    fn depends_on(&mut self) -> Option<Vec<Text>> {
        let value = self.take("depends_on")?;
        if !value.get_ref().is_table() {
            return self.list("depends_on");
        }
        let services = self.tables("depends_on", |name, t| (name, t.string("condition")));
        for (name, condition) in &services {
            let name = name.get_ref();
            if let Some(condition) = condition
                && condition.get_ref() != "service_started"
            {
                let what = format!("`{}` cannot be waited for", condition.get_ref());
                self.found
                    .problems
                    .push(Problem::error(condition.span(), what).hint(format!(
                        "homelab waits for the start of `{name}` only: write `service_started`"
                    )));
            }
        }
        Some(services.into_iter().map(|(name, _)| name).collect())
    }

    fn strings_by_name(&mut self, key: &'static str) -> Vec<(Text, Text)> {
        let Some(value) = self.take(key) else {
            return Vec::new();
        };
        let Some(table) = value.get_ref().as_table() else {
            self.wrong_type(key, value, "a table of strings");
            return Vec::new();
        };
        let path = self.join(key);
        let mut inner = Table::new(&path, value.span(), table, self.found);
        entries_of(table)
            .into_iter()
            .filter_map(|(name, value)| {
                let text = inner.text(name.get_ref(), value, "a string")?;
                Some((name, text))
            })
            .collect()
    }

    fn table<T: Default>(&mut self, key: &'static str, read: impl FnOnce(&mut Table) -> T) -> T {
        let Some(value) = self.take(key) else {
            return T::default();
        };
        let Some(table) = value.get_ref().as_table() else {
            self.wrong_type(key, value, "a table");
            return T::default();
        };
        let path = self.join(key);
        let mut inner = Table::new(&path, value.span(), table, self.found);
        let read = read(&mut inner);
        inner.finish();
        read
    }

    fn tables<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(Text, &mut Table) -> T,
    ) -> Vec<T> {
        let Some(value) = self.take(key) else {
            return Vec::new();
        };
        let Some(table) = value.get_ref().as_table() else {
            self.wrong_type(key, value, "a table of tables");
            return Vec::new();
        };
        let path = self.join(key);
        let mut all = Vec::new();
        for (name, value) in entries_of(table) {
            let path = format!("{path}.{}", name.get_ref());
            if let Some(table) = value.get_ref().as_table() {
                let mut inner = Table::new(&path, value.span(), table, self.found);
                all.push(read(name, &mut inner));
                inner.finish();
            } else {
                self.found.problems.push(
                    Problem::error(value.span(), format!("`{path}` must be a table"))
                        .label(format!("this is {}", type_name(value.get_ref()))),
                );
            }
        }
        all
    }

    /// Names every key that nobody asked for.
    fn finish(&mut self) {
        for (name, _) in std::mem::take(&mut self.entries) {
            let key = name.get_ref();
            if self.known.contains(&key.as_str()) {
                continue;
            }
            let path = self.join(key);
            let mut problem = Problem::error(name.span(), format!("unknown key `{path}`"))
                .label("not a known key");
            let is_service = self.known.contains(&"image");
            problem = if let Some(why) = is_service.then(|| of_compose(key)).flatten() {
                problem.hint(why)
            } else if let Some(near) = nearest(key, self.known.iter().copied()) {
                self.found.unreadable.push(self.join(near));
                problem.hint(format!("did you mean `{near}`?"))
            } else {
                self.known.dedup();
                problem.hint(format!("the keys here are `{}`", self.known.join("`, `")))
            };
            self.found.problems.push(problem);
        }
    }
}

/// Why a key that people know from Compose files is none here.
fn of_compose(key: &str) -> Option<&'static str> {
    match key {
        "ports" | "expose" => {
            Some("a container answers on its own address, on every port: leave this out")
        }
        "networks" | "network_mode" => {
            Some("a service is on the network of its environment: give it an `address` there")
        }
        "container_name" => Some("a container is named SERVICE-ENV: leave this out"),
        "build" => {
            Some("build the image with `docker build -t NAME .` and write `image = \"NAME\"`")
        }
        _ => None,
    }
}

fn type_name(value: &DeValue) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
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
