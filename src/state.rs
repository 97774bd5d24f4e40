//! What exists on this machine, as plain values, and which of it is ours. A state can be written to a file and read back,
//! which is how the tests of the diff are made.

use crate::error::Blocker;
use crate::plan::unit_files;
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// What the alias of a link of ours begins with (`ip link` shows it as `alias`).
pub const LINK_ALIAS_PREFIX: &str = "homelab: ";

/// What files of ours begin with.
pub const FILE_MARK: &str = "# Made by homelab ";

/// The label of networks, volumes and containers of ours; its value is the environment.
pub const LABEL_ENVIRONMENT: &str = "homelab.environment";
/// The label of containers of ours; its value is the service.
pub const LABEL_SERVICE: &str = "homelab.service";
/// The label of containers of ours that tells what they were made from.
pub const LABEL_FINGERPRINT: &str = "homelab.fingerprint";

/// The label of networks that Compose files ask for, beside the home network; its value is the environment.
pub const LABEL_EXTRA_NETWORK: &str = "homelab.extra-network";
/// Compose's own labels, by which `docker compose ps` and others find what belongs together.
pub const LABEL_COMPOSE_PROJECT: &str = "com.docker.compose.project";
/// Which of a service's containers it is, from 1.
pub const LABEL_COMPOSE_NUMBER: &str = "com.docker.compose.container-number";
/// The files of a Compose project.
pub const LABEL_COMPOSE_FILES: &str = "com.docker.compose.project.config_files";
/// The folder of a Compose project.
pub const LABEL_COMPOSE_FOLDER: &str = "com.docker.compose.project.working_dir";

/// What the name of a container ends with that waits to take another one's place.
pub const SUCCESSOR: &str = ".new";

/// Everything that was observed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct State {
    /// Whether this process may change links, addresses and routes.
    pub net_admin: bool,
    /// All links of this network namespace.
    pub links: Vec<Link>,
    /// The unicast IPv4 routes of the main table.
    pub routes: Vec<Route>,
    /// Addresses that somebody on the LAN answered for; only those that were asked for.
    pub answered: Vec<Ipv4Addr>,
    /// What systemd has.
    pub systemd: Systemd,
    /// What the Engine has.
    pub docker: Docker,
    /// Why the Engine could not be asked; then `docker` says nothing.
    pub docker_missing: Option<Blocker>,
}

/// A network interface.
#[expect(
    clippy::struct_excessive_bools,
    reason = "they are flags of the kernel, each by itself"
)]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// `macvlan`, `veth`, …; empty for hardware.
    pub kind: String,
    /// The mode of a macvlan.
    pub mode: Option<String>,
    /// The link that it stands on, by name.
    pub parent: Option<String>,
    /// Its hardware address.
    pub mac: String,
    /// Its alias.
    pub alias: Option<String>,
    /// Administratively up.
    pub up: bool,
    /// A cable is plugged in, so to speak.
    pub carrier: bool,
    /// A wireless interface.
    pub wireless: bool,
    /// The bridge that it is a port of.
    pub bridge: Option<String>,
    /// Its IPv4 addresses.
    pub addresses: Vec<Ipv4Net>,
    /// `net.ipv4.conf.NAME.arp_filter`.
    pub arp_filter: bool,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Where it leads.
    pub destination: Ipv4Net,
    /// The link that it goes over.
    pub link: String,
    /// The preferred source address.
    #[serde(default)]
    pub source: Option<Ipv4Addr>,
    /// The next hop.
    #[serde(default)]
    pub gateway: Option<Ipv4Addr>,
    /// Its metric; 0 is the kernel's default for IPv4.
    #[serde(default)]
    pub metric: u32,
}

/// What systemd has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Systemd {
    /// Whether systemd is the init of this machine (`sd_booted(3)`).
    pub running: bool,
    /// The controllers of cgroup v2 at the root; `None` where cgroup v1 is in use.
    pub controllers: Option<Vec<String>>,
    /// Slices of ours, those of the plan, and the one that all of them are in; only those that there are.
    pub slices: Vec<Slice>,
    /// The unit that keeps the shim alive.
    pub shim: ShimService,
    /// Files that a run did not finish which was killed while it wrote them.
    pub unfinished: Vec<String>,
}

/// The unit that keeps the shim alive, and what goes with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShimService {
    /// Those files that homelab may write for it that there are, by their paths.
    pub files: BTreeMap<String, String>,
    /// It starts at boot.
    pub enabled: bool,
    /// It runs, or is about to.
    pub active: bool,
    /// Its files are newer than what systemd read.
    pub stale: bool,
    /// The units of the network managers that are installed, and whether they run.
    pub managers: BTreeMap<String, bool>,
}

/// A slice.
#[expect(
    clippy::struct_excessive_bools,
    reason = "they are properties of systemd, each by itself"
)]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Slice {
    /// The name of the unit.
    pub name: String,
    /// Its file in /etc/systemd/system.
    pub file: Option<String>,
    /// Its file was written, and running processes may not follow it yet.
    pub pending: bool,
    /// Its file is newer than what systemd read.
    pub stale: bool,
    /// It has a cgroup.
    pub active: bool,
    /// Processes are in it.
    pub populated: bool,
    /// What systemd denies its processes.
    pub deny: Vec<Ipv4Net>,
    /// What systemd allows them all the same.
    pub allow: Vec<Ipv4Net>,
    /// Drop-ins that set one of the two.
    pub overrides: Vec<String>,
}

/// What the Engine has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Docker {
    /// As the Engine writes it, like `26.1.5+dfsg1`; empty where nobody has to know.
    pub version: String,
    /// The newest version of its API that homelab knows too.
    pub api: Api,
    /// Who makes its cgroups: `systemd` or `cgroupfs`.
    pub cgroup_driver: String,
    /// All networks.
    pub networks: Vec<Network>,
    /// All containers, stopped ones too.
    pub containers: Vec<Container>,
    /// The ids of those images that were asked for and are there, by the name asked for.
    pub images: BTreeMap<String, String>,
    /// Names of all volumes, when they were asked for.
    pub volumes: Vec<String>,
}

/// A version of the Engine's API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Api(pub u32, pub u32);

impl Api {
    /// Engine 20.10.
    pub const OLDEST: Self = Self(1, 41);
    /// Engine 25: a hardware address belongs to an endpoint.
    pub const ENDPOINT_MAC: Self = Self(1, 44);
    /// Engine 25: a container can be made on several networks at once.
    pub const SEVERAL_NETWORKS: Self = Self(1, 44);
    /// Engine 28: which network has the default route can be said (docker/cli pull request 5664).
    pub const GATEWAY_PRIORITY: Self = Self(1, 48);
    /// Engine 28: what an interface is called in its container can be said (moby pull request 49155).
    pub const INTERFACE_NAME: Self = Self(1, 48);
    /// Engine 27: several macvlan networks may have one parent (moby pull request 47318).
    pub const SHARED_PARENT: Self = Self(1, 46);
}

impl TryFrom<String> for Api {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let parts = text
            .split_once('.')
            .and_then(|(major, minor)| Some(Self(major.parse().ok()?, minor.parse().ok()?)));
        parts.ok_or_else(|| format!("`{text}` is not a version of the API"))
    }
}

impl From<Api> for String {
    fn from(Api(major, minor): Api) -> Self {
        format!("{major}.{minor}")
    }
}

/// A network of the Engine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Network {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: String,
    /// Its driver.
    pub driver: String,
    /// The option `parent`.
    pub parent: Option<String>,
    /// The option `macvlan_mode`.
    pub mode: Option<String>,
    /// Its IPv4 pools.
    pub pools: Vec<Pool>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// What a network gives out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pool {
    /// The prefix that its containers take for on-link.
    pub subnet: Ipv4Net,
    /// Where addresses are taken from.
    pub ip_range: Option<Ipv4Net>,
    /// The default route of its containers.
    pub gateway: Option<Ipv4Addr>,
    /// Addresses that are not given out.
    pub auxiliary: Vec<Ipv4Addr>,
}

/// A container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: String,
    /// The id of its image.
    pub image: String,
    /// What it was made from.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub image_name: String,
    /// `created`, `running`, `paused`, `restarting`, `removing`, `exited` or `dead`.
    pub state: String,
    /// The same as the Engine tells it to people, with the time, the exit status and the health.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub status: String,
    /// Its command, as the Engine shortens it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub command: String,
    /// When it was made, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<i64>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its networks by name.
    pub networks: BTreeMap<String, Endpoint>,
    /// The Engine's volumes that it has mounted.
    pub volumes: Vec<Mount>,
}

/// A volume of the Engine in a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mount {
    /// The name of the volume; 64 hexadecimal digits when nobody gave it one.
    pub volume: String,
    /// Where it is in the container.
    pub target: String,
}

impl Mount {
    /// Whether the Engine made the volume for this container alone.
    pub fn is_anonymous(&self) -> bool {
        self.volume.len() == 64 && self.volume.bytes().all(|byte| byte.is_ascii_hexdigit())
    }
}

/// A container's place in a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Endpoint {
    /// The id of the network; empty when the container has never run.
    pub network_id: String,
    /// The address that was asked for, or that it has.
    pub address: Option<Ipv4Addr>,
}

impl State {
    /// The link of that name.
    pub fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    /// All IPv4 addresses of this machine.
    pub fn own_addresses(&self) -> Vec<Ipv4Addr> {
        self.links
            .iter()
            .flat_map(|link| &link.addresses)
            .map(Ipv4Net::addr)
            .collect()
    }
}

impl Link {
    /// Whether homelab made it: its alias says so.
    pub fn is_ours(&self) -> bool {
        self.alias
            .as_ref()
            .is_some_and(|alias| alias.starts_with(LINK_ALIAS_PREFIX))
    }

    /// Whether it has that address.
    pub fn has(&self, address: Ipv4Addr) -> bool {
        self.addresses.iter().any(|net| net.addr() == address)
    }
}

impl Systemd {
    /// The slice of that name.
    pub fn slice(&self, name: &str) -> Option<&Slice> {
        self.slices.iter().find(|slice| slice.name == name)
    }
}

impl ShimService {
    /// The text of a file.
    pub fn file(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(String::as_str)
    }

    /// The parent links that it keeps alive.
    pub fn parent_links(&self) -> Vec<String> {
        let text = self
            .file(&unit_files::parent_links_path())
            .unwrap_or_default();
        let mut lines = text.lines();
        let key = format!("Environment={}=", unit_files::PARENT_LINKS);
        let list = lines.find_map(|line| line.strip_prefix(&key));
        let names = list.into_iter().flat_map(|list| list.split(','));
        names.map(str::to_owned).collect()
    }

    /// Whether homelab installed it: the unit's file says so.
    pub fn is_installed(&self) -> bool {
        let text = self.file(&unit_files::path(unit_files::SHIM_UNIT));
        text.is_some_and(|text| text.starts_with(FILE_MARK))
    }
}

impl Slice {
    /// Whether homelab made it: its file says so.
    pub fn is_ours(&self) -> bool {
        self.file
            .as_ref()
            .is_some_and(|text| text.starts_with(FILE_MARK))
    }
}

impl Docker {
    /// The network of that name.
    pub fn network(&self, name: &str) -> Option<&Network> {
        self.networks.iter().find(|network| network.name == name)
    }

    /// The container of that name.
    pub fn container(&self, name: &str) -> Option<&Container> {
        self.containers
            .iter()
            .find(|container| container.name == name)
    }

    /// The container that is one of a service's, whatever its name.
    pub fn instance(&self, env: &str, service: &str, number: u32) -> Option<&Container> {
        self.containers.iter().find(|container| {
            container.service() == Some((env, service))
                && container.number() == number
                && !container.is_successor()
        })
    }

    /// The containers of a service, successors too.
    pub fn instances<'a>(
        &'a self,
        env: &'a str,
        service: &'a str,
    ) -> impl Iterator<Item = &'a Container> {
        let all = self.of_environment(env);
        all.filter(move |(name, _)| *name == service)
            .map(|(_, container)| container)
    }

    /// The containers that homelab made for an environment, with their services.
    pub fn of_environment<'a>(
        &'a self,
        env: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a Container)> {
        self.containers.iter().filter_map(move |container| {
            let (of, service) = container.service()?;
            (of == env).then_some((service, container))
        })
    }

    /// The addresses that containers have or ask for, on any network.
    pub fn held_addresses(&self) -> Vec<Ipv4Addr> {
        self.containers
            .iter()
            .flat_map(|container| container.networks.values())
            .filter_map(|endpoint| endpoint.address)
            .collect()
    }

    /// The names of the containers that a network has, stopped ones too: they could not start again without it.
    pub fn attached(&self, network: &str) -> Vec<&str> {
        self.containers
            .iter()
            .filter(|container| container.networks.contains_key(network))
            .map(|container| container.name.as_str())
            .collect()
    }
}

impl Network {
    /// The environment whose part of the home network it is, when homelab made it.
    pub fn environment(&self) -> Option<&str> {
        self.labels.get(LABEL_ENVIRONMENT).map(String::as_str)
    }

    /// Whether it was made from what has this fingerprint.
    pub fn is_made_from(&self, fingerprint: &str) -> bool {
        self.labels
            .get(LABEL_FINGERPRINT)
            .is_some_and(|own| own == fingerprint)
    }

    /// The environment that has it beside the home network, when homelab made it.
    pub fn extra_of(&self) -> Option<&str> {
        self.labels.get(LABEL_EXTRA_NETWORK).map(String::as_str)
    }
}

impl Container {
    /// Environment and service, when homelab made it.
    pub fn service(&self) -> Option<(&str, &str)> {
        Some((
            self.labels.get(LABEL_ENVIRONMENT)?,
            self.labels.get(LABEL_SERVICE)?,
        ))
    }

    /// Which of its service's containers it is, from 1.
    pub fn number(&self) -> u32 {
        let number = self.labels.get(LABEL_COMPOSE_NUMBER);
        number.and_then(|number| number.parse().ok()).unwrap_or(1)
    }

    /// Whether it waits to take another one's place, or did so when homelab was killed.
    pub fn is_successor(&self) -> bool {
        self.name.ends_with(SUCCESSOR)
    }

    /// The exit status of what has ended, which the Engine's list has in its words alone: `Exited (3) 2 minutes ago`.
    pub fn exit_code(&self) -> Option<i64> {
        let rest = self.status.strip_prefix("Exited (")?;
        rest.split(')').next()?.parse().ok()
    }

    /// The result of its healthcheck, when it has one: `Up 2 minutes (healthy)`.
    pub fn health(&self) -> Option<&'static str> {
        [
            ("(healthy)", "healthy"),
            ("(unhealthy)", "unhealthy"),
            ("(health: starting)", "starting"),
        ]
        .into_iter()
        .find(|(words, _)| self.status.ends_with(words))
        .map(|(_, health)| health)
    }

    /// Whether its processes run, or will in a moment.
    pub fn is_running(&self) -> bool {
        matches!(self.state.as_str(), "running" | "paused" | "restarting")
    }
}
