//! One service of one environment: its keys from text to values, and the fingerprint by which a change is seen. Pure.

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

use super::address::Mac;
use super::naming::{container_name, mac_of};
use crate::cli::PullWhen;
use crate::input::problem::Span;
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
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

    /// Why its processes could undo the isolation of its environment, if they could.
    pub fn isolation_bypass(&self) -> Option<&'static str> {
        if self.privileged {
            return Some("privileged");
        }
        let may = |name| self.cap_add.iter().any(|capability| capability == name);
        if may("ALL") {
            return Some("given all capabilities");
        }
        if may("SYS_ADMIN") {
            return Some("given the capability SYS_ADMIN");
        }
        let shares = |key, with| {
            let setting = self.engine_settings.get(key);
            setting.is_some_and(|setting| setting.value.as_str() == Some(with))
        };
        if shares("pid", "host") && may("SYS_PTRACE") {
            return Some("given the capability SYS_PTRACE over the host's processes");
        }
        if self.network_mode.as_deref() == Some("host") {
            if may("NET_ADMIN") {
                return Some("given the capability NET_ADMIN in the host's network");
            }
            let is_dropped = |name: &&str| self.cap_drop.iter().any(|dropped| dropped == name);
            if !["ALL", "NET_RAW"].iter().any(is_dropped) || may("NET_RAW") {
                return Some("given the capability NET_RAW in the host's network");
            }
        }
        let is_socket = |volume: &Volume| {
            let source = volume
                .host_path()
                .map(|path| path.to_string_lossy().into_owned());
            source.is_some_and(|path| {
                path.ends_with("/docker.sock")
                    || path == "/"
                    || path == "/run"
                    || path == "/var/run"
            })
        };
        if self.volumes.iter().any(is_socket) {
            return Some("given the Engine's socket");
        }
        let is_cgroups = |volume: &&Volume| {
            let path = volume.host_path();
            path.is_some_and(|path| path == Path::new("/sys") || path.starts_with("/sys/fs/cgroup"))
        };
        let mut cgroups = self.volumes.iter().filter(is_cgroups);
        // Whoever may write there moves a process of its own to another cgroup.
        cgroups
            .any(|volume| !volume.is_read_only())
            .then_some("given the host's cgroups")
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
    fn what_undoes_the_isolation_is_known() {
        let with = |change: &dyn Fn(&mut Service)| {
            let mut service = Service::default();
            change(&mut service);
            service.isolation_bypass()
        };
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(with(&|_| ()), None);
        assert_eq!(with(&|s| s.cap_add = words("NET_ADMIN SYS_TIME")), None);
        assert_eq!(with(&|s| s.network_mode = Some("none".to_owned())), None);
        assert!(with(&|s| s.privileged = true).is_some());
        assert!(with(&|s| s.cap_add = words("SYS_ADMIN")).is_some());
        assert!(with(&|s| s.network_mode = Some("host".to_owned())).is_some());
        let host = |drop: &str, add: &str| {
            let (drop, add) = (words(drop), words(add));
            with(&|s| {
                s.network_mode = Some("host".to_owned());
                (s.cap_drop, s.cap_add) = (drop.clone(), add.clone());
            })
        };
        assert_eq!(host("NET_RAW", "CHOWN"), None);
        assert_eq!(host("ALL", "CHOWN"), None);
        assert!(host("ALL", "NET_RAW").is_some());
        assert!(host("NET_RAW", "NET_ADMIN").is_some());
        let bind = |path: &str| {
            let source = PathBuf::from(path);
            let target = "/x:ro".to_owned();
            with(&|s| {
                let (source, target) = (source.clone(), target.clone());
                s.volumes = vec![Volume::Bind { source, target }];
            })
        };
        assert!(bind("/var/run/docker.sock").is_some());
        assert_eq!(bind("/sys/fs/cgroup"), None);
        let writable = |s: &mut Service| {
            let (source, target) = (PathBuf::from("/sys/fs/cgroup/x"), "/x".to_owned());
            s.volumes = vec![Volume::Bind { source, target }];
        };
        assert!(with(&writable).is_some());
        assert_eq!(bind("/srv"), None);
    }

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
