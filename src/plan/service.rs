//! One service of one environment: its keys from text to values, and the fingerprint by which a change is seen. Pure.

mod bypasses;
mod complete;
mod compose_resources;
mod context;
mod engine_settings;
mod fingerprint;
mod given_files;
mod image;
mod lifecycle;
mod mounts;
mod networks;
mod ports;
mod reader;
mod resources;
mod values;

pub(super) use bypasses::names as bypass_names;
pub use bypasses::{Bypass, has_net_raw};
pub use complete::{CompleteService, complete};
pub use compose_resources::{ComposeNetwork, ComposePool, ComposeVolume};
pub(super) use compose_resources::{networks as compose_networks, volumes as compose_volumes};
pub(super) use context::ServiceContext;
pub use given_files::{FileSource, GivenFile};
pub use mounts::Volume;
pub(super) use networks::lan_keys;
pub use networks::{Attachment, INTERFACE_NAME};
pub use ports::PortBinding;
pub(super) use reader::{ParsedService, read};
pub(super) use values::parse_bytes;
pub use values::signal_number;

use super::address::Mac;
use super::naming::{container_name, mac_of};
use crate::cli::PullWhen;
use crate::input::problem::Span;
use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;
use toml::Spanned;

/// A service in one environment, ready to become a container.
#[expect(
    clippy::struct_excessive_bools,
    reason = "they are keys of the file, each by itself"
)]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Its name: a DNS label, or what Compose takes for one.
    pub name: String,
    /// The place of its name in the file.
    pub span: Span,
    /// The environment.
    pub env: String,
    /// The Compose files of its environment, which `docker compose ls` shows.
    pub compose_files: Vec<PathBuf>,
    /// The host that it runs on.
    pub host: String,
    /// The systemd slice that its container runs in, when its environment has one.
    pub slice: Option<String>,
    /// Its environment is kept apart from the others.
    pub is_isolated: bool,
    /// Which of its containers this is, from 1, where `scale` wants several.
    pub replica: u32,
    /// The name of its container, when the file gives one.
    pub container_name: Option<String>,
    /// It starts with its environment: it has no profile, or an active one.
    pub is_active: bool,
    /// It has an address on the LAN.
    pub is_on_lan: bool,
    /// Its planned address; without one it gets the lowest free one at its first start.
    pub address: Option<Ipv4Addr>,
    /// Its place on the LAN, but for its address; names no network.
    pub lan: Attachment,
    /// Other services by names of its own choice: container name and alias, for every network.
    pub links: Vec<ServiceLink>,
    /// Networks beside the LAN.
    pub networks: Vec<Attachment>,
    /// `host`, `none`, `bridge`, `service:NAME` or `container:NAME`, in the place of networks.
    pub network_mode: Option<String>,
    /// Ports of the host that lead to it, by port and protocol; not for services on the LAN.
    pub ports: BTreeMap<String, Vec<PortBinding>>,
    /// It has `ports` although it has an address of its own.
    pub has_idle_ports: bool,
    pub image: String,
    /// The command that builds the image, when the file says how.
    pub build: Option<String>,
    pub pull_policy: PullPolicy,
    pub command: Option<Vec<String>>,
    pub entrypoint: Option<Vec<String>>,
    /// Variables; without a value they are taken from homelab's own environment.
    pub environment: BTreeMap<String, Option<String>>,
    /// Files with variables; `environment` wins over them, a later one over an earlier.
    pub env_file: Vec<EnvFile>,
    pub volumes: Vec<Volume>,
    /// Configs and secrets.
    pub files: Vec<GivenFile>,
    pub restart: Restart,
    pub labels: BTreeMap<String, String>,
    /// Files with labels, written as env files are; `labels` wins over them, a later one over an earlier.
    pub label_file: Vec<EnvFile>,
    pub hostname: Option<String>,
    pub user: Option<String>,
    pub working_dir: Option<String>,
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    pub devices: Vec<Device>,
    pub privileged: bool,
    pub init: Option<bool>,
    pub read_only: bool,
    /// Mount point and options.
    pub tmpfs: BTreeMap<String, String>,
    /// Bytes.
    pub shm_size: Option<u64>,
    pub stop_signal: Option<String>,
    /// Whole seconds; the Engine waits 10 when there is none.
    pub stop_grace_period: Option<Duration>,
    /// `OS[/ARCH[/VARIANT]]` of the image.
    pub platform: Option<String>,
    /// Settings that the Engine takes as they stand, by the key of the file.
    pub engine_settings: BTreeMap<&'static str, EngineSetting>,
    /// The names of the ways out of the isolation that it is meant to have.
    pub accepted_bypasses: BTreeSet<String>,
    /// Services of the same environment and host that start before it and stop after it.
    pub depends_on: Vec<Dependency>,
}

/// A setting that the Engine's API takes as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineSetting {
    /// Where it stands in the request.
    pub section: ApiSection,
    /// Its name there.
    pub field: &'static str,
    /// Its value there.
    pub value: Json,
}

/// A section of the request that makes a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiSection {
    /// The container itself.
    Config,
    /// `HostConfig`.
    Host,
}

/// Another container by a name of one's own choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceLink {
    /// The service that it belongs to.
    pub service: String,
    /// The name.
    pub alias: String,
}

/// A file with variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvFile {
    /// Absolute.
    pub path: PathBuf,
    /// Its place in the file that names it.
    pub span: Span,
    /// Whether it must be there.
    pub is_required: bool,
    /// Whether values are taken as they are.
    pub is_raw: bool,
}

/// A service that has to be ready before another one starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependency {
    /// Its name and the place where it stands.
    pub service: Spanned<String>,
    /// What counts as ready.
    pub condition: DependencyCondition,
    /// Whether the other one may not start without it.
    pub is_required: bool,
    /// Whether the other one is started again when this one is made anew.
    pub restart: bool,
}

/// What a dependency has to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum DependencyCondition {
    /// `service_started`
    #[default]
    Started,
    /// `service_healthy`
    Healthy,
    /// `service_completed_successfully`
    Completed,
}

/// When the Engine is asked to pull an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PullPolicy {
    /// Before every start.
    Always,
    /// When it is not on this machine.
    #[default]
    Missing,
    /// Never.
    Never,
}

impl From<PullWhen> for PullPolicy {
    fn from(when: PullWhen) -> Self {
        match when {
            PullWhen::Always => Self::Always,
            PullWhen::Missing => Self::Missing,
            PullWhen::Never => Self::Never,
        }
    }
}

/// When the Engine starts a container again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Restart {
    /// Never.
    #[default]
    No,
    /// Whenever it ends, also when it was stopped and the Engine restarts.
    Always,
    /// Whenever it ends, unless it was stopped.
    UnlessStopped,
    /// When it ends with a status other than 0, at most that many times (0: for ever).
    OnFailure(u32),
}

/// A device of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Path on the host.
    pub source: String,
    /// Path in the container.
    pub target: String,
    /// Any of `r`, `w` and `m`.
    pub permissions: String,
}

impl Service {
    /// The name of its container.
    pub fn container(&self) -> String {
        match &self.container_name {
            Some(name) => name.clone(),
            None => container_name(&self.name, &self.env, self.replica),
        }
    }

    /// The hardware address that goes with its address on the LAN: its own one, else the one made from the address.
    pub fn lan_mac(&self, address: Ipv4Addr) -> Mac {
        let own = self.lan.mac.as_ref().and_then(|mac| mac.value);
        own.unwrap_or_else(|| mac_of(address))
    }

    /// Its networks beyond the one that it is made on.
    pub fn attachments_to_join(&self) -> impl Iterator<Item = &Attachment> {
        let first = usize::from(!self.is_on_lan);
        self.networks.iter().skip(first)
    }

    /// Configs and secrets that are no files of the host.
    pub fn given_contents(&self) -> Vec<GivenFile> {
        let all = self.files.iter();
        all.filter(|file| matches!(file.source, FileSource::Content(_)))
            .cloned()
            .collect()
    }

    /// Whether it waits for the service of that name.
    pub fn depends_on(&self, name: &str) -> bool {
        let mut dependencies = self.depends_on.iter();
        dependencies.any(|dependency| dependency.service.get_ref() == name)
    }

    /// The names of the Engine's volumes that it uses.
    pub fn named_volumes(&self) -> impl Iterator<Item = &str> {
        self.volumes.iter().filter_map(Volume::name)
    }
}

/// An image's repository and its tag or digest.
pub fn split_tag(image: &str) -> (&str, Option<&str>) {
    if let Some((repository, digest)) = image.split_once('@') {
        return (repository, Some(digest));
    }
    match image.rsplit_once(':') {
        // A colon before a slash belongs to the registry's port.
        Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag)),
        _ => (image, None),
    }
}

/// Whether `name` is a DNS label: 1 to 63 bytes of a-z, 0-9 and `-`, no `-` at its ends (RFC 1123, 2.1).
pub fn is_dns_label(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && !name.starts_with('-')
        && !name.ends_with('-')
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registrys_port_is_no_tag() {
        assert_eq!(split_tag("registry:5000/app"), ("registry:5000/app", None));
        assert_eq!(
            split_tag("registry:5000/app:1"),
            ("registry:5000/app", Some("1"))
        );
        assert_eq!(split_tag("app@sha256:00"), ("app", Some("sha256:00")));
    }
}
