//! What exists on this machine, as plain values, and which of it is ours. A state can be written to a file and read back,
//! which is how the tests of the diff are made.

use crate::error::Diagnostic;
use crate::plan::Mac;
use crate::plan::naming::{
    self, FILE_MARK, LABEL_COMPOSE_NETWORK, LABEL_ENVIRONMENT, LABEL_FINGERPRINT, LABEL_SERVICE,
    LINK_ALIAS_PREFIX, compose_label,
};
use crate::plan::unit_files;
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

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
    pub docker_missing: Option<Diagnostic>,
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
    /// Its hardware address, where it has one of Ethernet.
    pub mac: Option<Mac>,
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
    pub shim: InstalledShim,
    /// Files that a run did not finish which was killed while it wrote them.
    pub unfinished: Vec<String>,
}

/// The unit that keeps the shim alive, and what goes with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InstalledShim {
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
    /// The exit status of its last run, when it has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i64>,
    /// What its healthcheck says, when it runs and has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
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

/// What a healthcheck says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Nothing yet.
    Starting,
    /// That all is well.
    Healthy,
    /// That it failed as often as it may.
    Unhealthy,
}

impl Health {
    /// In the Engine's word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// How a container is, beyond what a list of them tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerHealth {
    /// How long it runs, when it does.
    pub up: Option<Duration>,
    /// What its healthcheck says; `None` without one.
    pub health: Option<String>,
    /// The exit status of its last run.
    pub exit_code: i64,
}

/// How a container came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerExit {
    /// The container.
    pub container: String,
    /// The exit status of its first process.
    pub exit_code: i64,
    /// The Engine starts it again and again.
    pub restarting: bool,
    /// Its last log lines.
    pub log: Vec<String>,
}

impl ContainerExit {
    /// What stands behind the exit status in a sentence.
    pub fn again(&self) -> &'static str {
        if self.restarting {
            ", and the Engine keeps starting it again"
        } else {
            ""
        }
    }
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

impl InstalledShim {
    /// The text of a file.
    pub fn file(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(String::as_str)
    }

    /// Whether homelab installed it: the unit's file says so.
    pub fn is_installed(&self) -> bool {
        let text = self.file(&unit_files::path(naming::SHIM_UNIT));
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
    pub fn instance(&self, env: &str, service: &str, replica: u32) -> Option<&Container> {
        self.containers.iter().find(|container| {
            container.service() == Some((env, service))
                && container.replica() == replica
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
    pub fn addresses_in_use(&self) -> Vec<Ipv4Addr> {
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
    /// The environment whose part of the LAN it is, when homelab made it.
    pub fn environment(&self) -> Option<&str> {
        self.labels.get(LABEL_ENVIRONMENT).map(String::as_str)
    }

    /// Whether it was made from what has this fingerprint.
    pub fn is_made_from(&self, fingerprint: &str) -> bool {
        self.labels
            .get(LABEL_FINGERPRINT)
            .is_some_and(|own| own == fingerprint)
    }

    /// The environment whose Compose files have it, when homelab made it.
    pub fn compose_environment(&self) -> Option<&str> {
        self.labels.get(LABEL_COMPOSE_NETWORK).map(String::as_str)
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
    pub fn replica(&self) -> u32 {
        let replica = self.labels.get(compose_label::REPLICA);
        replica.and_then(|text| text.parse().ok()).unwrap_or(1)
    }

    /// Whether it waits to take another one's place, or did so when homelab was killed.
    pub fn is_successor(&self) -> bool {
        naming::succeeds(&self.name).is_some()
    }

    /// Whether its processes run, or will in a moment.
    pub fn is_running(&self) -> bool {
        matches!(self.state.as_str(), "running" | "paused" | "restarting")
    }
}
