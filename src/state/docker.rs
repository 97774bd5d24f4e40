//! What the Engine has, as plain values, and which of it is ours.

use crate::plan::Mac;
use crate::plan::naming::{
    self, LABEL_COMPOSE_NETWORK, LABEL_CONTAINER, LABEL_ENVIRONMENT, LABEL_FINGERPRINT,
    LABEL_SERVICE, compose_label,
};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

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
    /// When the Engine was started, in hundredths of a second since the boot, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<u64>,
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
    /// The systemd slice that its processes are in, or will be when it is started; when it was looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slice: Option<String>,
    /// Whether its processes have the capability `NET_RAW`, or will have it when it is started; when it was looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub net_raw: Option<bool>,
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
    /// Its hardware address there, when it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
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

/// Takes the labels of ours from containers that only inherited them, as one does that was made from an image of a container
/// of ours: such a one is a stranger's. Containers of older versions have no name in their labels; of several that claim one
/// place the one with the usual name has it.
pub fn disown_copies(containers: &mut [Container]) {
    let is_usual = |container: &Container| {
        let usual = container
            .service()
            .map(|(env, service)| naming::container_name(service, env, container.replica()));
        usual.is_some_and(|usual| container.has_place_of(&usual))
    };
    let place = |container: &Container| {
        let (env, service) = container.service()?;
        Some((env.to_owned(), service.to_owned(), container.replica()))
    };
    let named = |container: &Container| {
        let name = container.labels.get(LABEL_CONTAINER)?;
        Some(container.has_place_of(name))
    };
    let holders = containers
        .iter()
        .filter(|one| named(one).unwrap_or_else(|| is_usual(one)));
    let held: BTreeSet<_> = holders.filter_map(place).collect();
    for container in containers {
        let is_copy = match named(container) {
            Some(is_it) => !is_it,
            None => !is_usual(container) && place(container).is_some_and(|it| held.contains(&it)),
        };
        if is_copy {
            container
                .labels
                .retain(|label, _| !naming::is_own_label(label));
        }
    }
}

impl Network {
    /// The environment whose part of the LAN it is, when homelab made it.
    pub fn environment(&self) -> Option<&str> {
        self.labels.get(LABEL_ENVIRONMENT).map(String::as_str)
    }

    /// The environment that homelab made it for, of either kind.
    pub fn owner(&self) -> Option<&str> {
        self.environment().or_else(|| self.compose_environment())
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

    /// Whether it has a name, or waits to take it.
    fn has_place_of(&self, name: &str) -> bool {
        self.name == name || naming::succeeds(&self.name) == Some(name)
    }

    /// Whether its processes run, or will in a moment.
    pub fn is_running(&self) -> bool {
        matches!(self.state.as_str(), "running" | "paused" | "restarting")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(name: &str, label: Option<&str>) -> Container {
        let mut labels = BTreeMap::from([
            (LABEL_ENVIRONMENT.to_owned(), "prod".to_owned()),
            (LABEL_SERVICE.to_owned(), "web".to_owned()),
        ]);
        labels.extend(label.map(|name| (LABEL_CONTAINER.to_owned(), name.to_owned())));
        Container {
            name: name.to_owned(),
            labels,
            ..Container::default()
        }
    }

    /// The names of those that are still ours.
    fn ours(all: &[(&str, Option<&str>)]) -> Vec<String> {
        let mut all: Vec<Container> = all
            .iter()
            .map(|(name, own)| container(name, *own))
            .collect();
        disown_copies(&mut all);
        let ours = all.into_iter().filter(|one| one.service().is_some());
        ours.map(|one| one.name).collect()
    }

    #[test]
    fn who_only_inherited_our_labels_is_a_strangers() {
        let named = Some("web-prod");
        assert_eq!(ours(&[("web-prod", named), ("copy", named)]), ["web-prod"]);
        assert_eq!(ours(&[("copy", named)]), [""; 0]);
        let both = [("web-prod", named), ("web-prod.new", named)];
        assert_eq!(ours(&both), ["web-prod", "web-prod.new"]);
        // Of older versions.
        assert_eq!(ours(&[("web-prod", None), ("copy", None)]), ["web-prod"]);
        assert_eq!(ours(&[("chosen", None)]), ["chosen"]);
        assert_eq!(ours(&[("web-prod", named), ("copy", None)]), ["web-prod"]);
    }
}
