//! One service of one environment: its keys from text to values, and the fingerprint by which a change is seen. Pure.

mod reader;

pub(super) use reader::{Reader, parse_bytes};

use crate::problem::Span;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

/// The label under which the Engine keeps the [`Service::fingerprint`].
pub const FINGERPRINT_VERSION: &str = "v1";

/// A service in one environment, ready to become a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name, a DNS label.
    pub name: String,
    /// The place of its name in the file.
    pub span: Span,
    /// The environment.
    pub env: String,
    /// The host that it runs on.
    pub host: String,
    /// The systemd slice that its container runs in, when its environment has one.
    pub slice: Option<String>,
    /// Its planned address; without one it gets the lowest free one at its first start.
    pub address: Option<Ipv4Addr>,
    pub image: String,
    pub command: Option<Vec<String>>,
    pub entrypoint: Option<Vec<String>>,
    /// Variables; without a value they are taken from homelab's own environment.
    pub environment: BTreeMap<String, Option<String>>,
    /// Files with variables and their places in homelab.toml; `environment` wins over them, a later one over an earlier.
    pub env_file: Vec<(PathBuf, Span)>,
    pub volumes: Vec<Volume>,
    pub restart: Restart,
    pub labels: BTreeMap<String, String>,
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
    /// Services of the same environment and host that start before it and stop after it.
    pub depends_on: Vec<String>,
}

/// What is mounted into a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Volume {
    /// A folder or file of the host.
    Bind {
        /// Absolute path on the host.
        source: PathBuf,
        /// Absolute path in the container, with options behind a colon.
        target: String,
    },
    /// A volume of the Engine, one for each environment.
    Named {
        /// Its name for the Engine, `homelab-ENV_NAME`.
        name: String,
        /// Absolute path in the container, with options behind a colon.
        target: String,
    },
    /// A volume without a name, new for every container.
    Anonymous {
        /// Absolute path in the container.
        target: String,
    },
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
        format!("{}-{}", self.name, self.env)
    }

    /// Why its processes could undo the isolation of its environment, if they could.
    pub fn loophole(&self) -> Option<&'static str> {
        if self.privileged {
            return Some("privileged");
        }
        let may = |name| self.cap_add.iter().any(|capability| capability == name);
        if may("ALL") {
            return Some("given all capabilities");
        }
        may("SYS_ADMIN").then_some("given the capability SYS_ADMIN")
    }

    /// The names of the Engine's volumes that it uses.
    pub fn named_volumes(&self) -> impl Iterator<Item = &str> {
        self.volumes.iter().filter_map(|volume| match volume {
            Volume::Named { name, .. } => Some(name.as_str()),
            Volume::Bind { .. } | Volume::Anonymous { .. } => None,
        })
    }

    /// What the Engine is told of this service, key by key, as `v1;KEY=HASH;…`.
    ///
    /// Only keys that are set stand in it, so a key that a later version learns changes no fingerprint of a service that
    /// does not use it; and the diff can name the keys that changed. The address is not part of it: the container's own
    /// network settings have it. Nor are `depends_on` and `host`, which the Engine is not told.
    pub fn fingerprint(&self) -> String {
        let Self {
            name: _,
            span: _,
            env: _,
            host: _,
            slice,
            address: _,
            image,
            command,
            entrypoint,
            environment,
            env_file: _, // its content is in `environment` by then
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
            depends_on: _,
        } = self;
        let mut keys = Keys::default();
        keys.add("image", [image]);
        keys.add("slice", slice);
        keys.add_option("command", command.as_ref());
        keys.add_option("entrypoint", entrypoint.as_ref());
        keys.add(
            "environment",
            environment
                .iter()
                .map(|(name, value)| format!("{name}={}", value.as_deref().unwrap_or_default())),
        );
        keys.add("volumes", volumes.iter().map(Volume::bind));
        if *restart != Restart::No {
            keys.add("restart", [format!("{restart:?}")]);
        }
        keys.add("labels", labels.iter().map(|(k, v)| format!("{k}={v}")));
        keys.add("hostname", hostname);
        keys.add("user", user);
        keys.add("working_dir", working_dir);
        keys.add("cap_add", cap_add);
        keys.add("cap_drop", cap_drop);
        keys.add(
            "devices",
            devices
                .iter()
                .map(|d| format!("{}:{}:{}", d.source, d.target, d.permissions)),
        );
        keys.add("privileged", privileged.then_some("true"));
        keys.add("init", init.map(|init| init.to_string()));
        keys.add("read_only", read_only.then_some("true"));
        keys.add("tmpfs", tmpfs.iter().map(|(k, v)| format!("{k}:{v}")));
        keys.add("shm_size", shm_size.map(|size| size.to_string()));
        keys.add("stop_signal", stop_signal);
        keys.add(
            "stop_grace_period",
            stop_grace_period.map(|period| period.as_secs().to_string()),
        );
        keys.text
    }
}

impl Volume {
    /// As the Engine's API takes it in `HostConfig.Binds`; for an anonymous volume the mount point alone.
    pub fn bind(&self) -> String {
        match self {
            Self::Bind { source, target } => format!("{}:{target}", source.display()),
            Self::Named { name, target } => format!("{name}:{target}"),
            Self::Anonymous { target } => target.clone(),
        }
    }
}

struct Keys {
    text: String,
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            text: FINGERPRINT_VERSION.to_owned(),
        }
    }
}

impl Keys {
    fn add<T: AsRef<str>>(&mut self, key: &str, values: impl IntoIterator<Item = T>) {
        let values: Vec<T> = values.into_iter().collect();
        if !values.is_empty() {
            self.add_option(key, Some(&values));
        }
    }

    /// An empty list is a value here: `entrypoint = []` takes the image's entrypoint away.
    fn add_option<T: AsRef<str>>(&mut self, key: &str, values: Option<&Vec<T>>) {
        let Some(values) = values else { return };
        let mut hash = Sha256::new();
        for value in values {
            let value = value.as_ref();
            // The length in front keeps ["ab", "c"] and ["a", "bc"] apart.
            let length = u64::try_from(value.len()).unwrap_or(u64::MAX);
            hash.update(length.to_be_bytes());
            hash.update(value);
        }
        let _ = write!(self.text, ";{key}=");
        for byte in hash.finalize().iter().take(8) {
            let _ = write!(self.text, "{byte:02x}");
        }
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
