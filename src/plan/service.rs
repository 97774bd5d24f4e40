//! One service of one environment: its keys from text to values, and the fingerprint by which a change is seen. Pure.

use super::Problems;
use crate::config::{self, OneOrMany, Text};
use crate::problem::{Problem, Span, nearest};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
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
            hash.update(value.len().to_be_bytes());
            hash.update(value);
        }
        let _ = write!(self.text, ";{key}=");
        for byte in hash.finalize().iter().take(8) {
            let _ = write!(self.text, "{byte:02x}");
        }
    }
}

/// Turns one service of the file, overrides already applied, into values. Everything wrong goes to `problems`.
pub(super) struct Reader<'a> {
    /// The environment, for `{env}` and for the names of volumes.
    pub env: &'a str,
    /// The host, for `{host}`.
    pub host: &'a str,
    /// The folder that relative paths start from: that of homelab.toml.
    pub folder: &'a Path,
    /// Where problems go.
    pub problems: &'a mut Problems,
}

impl Reader<'_> {
    pub(super) fn read(&mut self, service: &config::Service, address: Option<Ipv4Addr>) -> Service {
        let config::Service {
            name,
            address: _,
            host: _,
            enabled: _,
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
        } = service;
        Service {
            name: name.get_ref().clone(),
            span: name.span(),
            env: self.env.to_owned(),
            host: self.host.to_owned(),
            address,
            image: image
                .as_ref()
                .and_then(|image| self.image(image))
                .unwrap_or_default(),
            command: command.as_ref().map(|words| self.words("command", words)),
            entrypoint: entrypoint
                .as_ref()
                .map(|words| self.words("entrypoint", words)),
            environment: self.environment(environment),
            env_file: many(env_file.as_ref())
                .iter()
                .map(|file| (self.folder.join(self.fill(file)), file.span()))
                .collect(),
            volumes: self.each(volumes.as_deref(), Self::volume),
            restart: restart
                .as_ref()
                .and_then(|text| self.restart(text))
                .unwrap_or_default(),
            labels: self.labels(labels),
            hostname: self.checked(hostname.as_ref(), "hostname", is_host_name, "a host name"),
            user: user.as_ref().map(|text| self.fill(text)),
            working_dir: self.checked(
                working_dir.as_ref(),
                "working_dir",
                |path| path.starts_with('/'),
                "an absolute path in the container",
            ),
            cap_add: self.each(cap_add.as_deref(), Self::capability),
            cap_drop: self.each(cap_drop.as_deref(), Self::capability),
            devices: self.each(devices.as_deref(), Self::device),
            privileged: privileged.as_ref().is_some_and(|flag| *flag.get_ref()),
            init: init.as_ref().map(|flag| *flag.get_ref()),
            read_only: read_only.as_ref().is_some_and(|flag| *flag.get_ref()),
            tmpfs: self
                .each(Some(&many(tmpfs.as_ref())), Self::tmpfs)
                .into_iter()
                .collect(),
            shm_size: shm_size.as_ref().and_then(|text| self.bytes(text)),
            stop_signal: stop_signal.as_ref().and_then(|text| self.signal(text)),
            stop_grace_period: stop_grace_period
                .as_ref()
                .and_then(|text| self.duration(text)),
            depends_on: depends_on
                .iter()
                .flatten()
                .map(|name| name.get_ref().clone())
                .collect(),
        }
    }

    /// Replaces `{env}` and `{host}`.
    fn fill(&self, text: &Text) -> String {
        text.get_ref()
            .replace("{env}", self.env)
            .replace("{host}", self.host)
    }

    fn wrong(&mut self, at: &Text, what: String, hint: &str) {
        self.problems
            .push(Problem::error(at.span(), what).hint(hint));
    }

    fn each<T>(
        &mut self,
        items: Option<&[Text]>,
        read: impl Fn(&mut Self, &Text) -> Option<T>,
    ) -> Vec<T> {
        items
            .unwrap_or_default()
            .iter()
            .filter_map(|item| read(self, item))
            .collect()
    }

    fn checked(
        &mut self,
        text: Option<&Text>,
        key: &str,
        fits: impl Fn(&str) -> bool,
        wanted: &str,
    ) -> Option<String> {
        let text = text?;
        let value = self.fill(text);
        if !fits(&value) {
            let what = format!("`{value}` is not {wanted}");
            self.problems
                .push(Problem::error(text.span(), what).label(format!("`{key}` takes {wanted}")));
        }
        Some(value)
    }

    fn image(&mut self, text: &Text) -> Option<String> {
        let image = self.fill(text);
        let (repository, _) = split_tag(&image);
        // The part before the first slash may be the registry's host, which may have capitals.
        let path = repository
            .split_once('/')
            .map_or(repository, |(_, path)| path);
        let fits = !path.is_empty()
            && !image.contains(char::is_whitespace)
            && !path.contains(char::is_uppercase);
        if !fits {
            self.wrong(
                text,
                format!("`{image}` is not the name of an image"),
                "an image is named like `traefik/whoami:v1.10`, in lower case",
            );
            return None;
        }
        Some(image)
    }

    fn words(&mut self, key: &str, words: &OneOrMany) -> Vec<String> {
        match words {
            OneOrMany::Many(words) => words.iter().map(|word| self.fill(word)).collect(),
            OneOrMany::One(text) => shlex::split(&self.fill(text)).unwrap_or_else(|| {
                self.wrong(
                    text,
                    format!("the quotes in `{key}` do not match"),
                    "close the quote, or give a list of words",
                );
                Vec::new()
            }),
        }
    }

    fn environment(&mut self, pairs: &[(Text, Option<Text>)]) -> BTreeMap<String, Option<String>> {
        let mut all = BTreeMap::new();
        for (name, value) in pairs {
            let key = self.fill(name);
            if key.is_empty() || key.contains(['=', ' ', '\0']) {
                self.wrong(
                    name,
                    format!("`{key}` is not the name of a variable"),
                    "names have no spaces and no `=`",
                );
            }
            all.insert(key, value.as_ref().map(|value| self.fill(value)));
        }
        all
    }

    fn labels(&mut self, pairs: &[(Text, Option<Text>)]) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        for (name, value) in pairs {
            let key = self.fill(name);
            if key.starts_with("homelab.") || key.starts_with("com.docker.compose.") {
                self.wrong(
                    name,
                    format!("the label `{key}` is homelab's own"),
                    "labels that begin with `homelab.` or `com.docker.compose.` say what homelab made; choose another name",
                );
            }
            let value = value.as_ref().map(|value| self.fill(value));
            all.insert(key, value.unwrap_or_default());
        }
        all
    }

    fn volume(&mut self, text: &Text) -> Option<Volume> {
        let filled = self.fill(text);
        let mut parts = filled.splitn(3, ':');
        let (first, second, options) = (parts.next()?, parts.next(), parts.next());
        let target = second.unwrap_or(first);
        if !target.starts_with('/') || target.is_empty() {
            self.wrong(
                text,
                format!("`{filled}` mounts nothing: `{target}` is not an absolute path"),
                "write `source:/path/in/the/container`",
            );
            return None;
        }
        const OPTIONS: [&str; 15] = [
            "ro",
            "rw",
            "z",
            "Z",
            "nocopy",
            "shared",
            "rshared",
            "slave",
            "rslave",
            "private",
            "rprivate",
            "cached",
            "delegated",
            "consistent",
            "volume-nocopy",
        ];
        for option in options.into_iter().flat_map(|list| list.split(',')) {
            if !OPTIONS.contains(&option) {
                self.wrong(
                    text,
                    format!("`{option}` is not an option of a volume"),
                    "the usual ones are `ro` and `rw`",
                );
                return None;
            }
        }
        if second.is_none() {
            return Some(Volume::Anonymous {
                target: target.to_owned(),
            });
        }
        let target = match options {
            Some(options) => format!("{target}:{options}"),
            None => target.to_owned(),
        };
        if first.starts_with('~') {
            self.wrong(
                text,
                format!("`{first}` depends on who runs homelab"),
                "write the whole path",
            );
            return None;
        }
        if first.starts_with(['/', '.']) {
            let source = clean(&self.folder.join(first));
            return Some(Volume::Bind { source, target });
        }
        let fits = first.starts_with(|c: char| c.is_ascii_alphanumeric())
            && first
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
        if !fits {
            self.wrong(
                text,
                format!("`{first}` is neither a path nor the name of a volume"),
                "paths begin with `/` or `./`; names have letters, digits, `_`, `.` and `-`",
            );
            return None;
        }
        Some(Volume::Named {
            name: format!("homelab-{}_{first}", self.env),
            target,
        })
    }

    fn restart(&mut self, text: &Text) -> Option<Restart> {
        let filled = self.fill(text);
        let (policy, count) = match filled.split_once(':') {
            Some((policy, count)) => (policy, Some(count)),
            None => (filled.as_str(), None),
        };
        match (policy, count.map(str::parse::<u32>)) {
            ("no", None) => Some(Restart::No),
            ("always", None) => Some(Restart::Always),
            ("unless-stopped", None) => Some(Restart::UnlessStopped),
            ("on-failure", None) => Some(Restart::OnFailure(0)),
            ("on-failure", Some(Ok(count))) => Some(Restart::OnFailure(count)),
            _ => {
                self.wrong(
                    text,
                    format!("`{filled}` is not a restart policy"),
                    "use `no`, `always`, `unless-stopped`, `on-failure` or `on-failure:3`",
                );
                None
            }
        }
    }

    fn capability(&mut self, text: &Text) -> Option<String> {
        let filled = self.fill(text);
        let upper = filled.to_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        if name == "ALL" || CAPABILITIES.contains(&name) {
            return Some(name.to_owned());
        }
        let hint = match nearest(name, CAPABILITIES) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "capabilities(7) lists them".to_owned(),
        };
        self.wrong(text, format!("`{filled}` is not a capability"), &hint);
        None
    }

    fn device(&mut self, text: &Text) -> Option<Device> {
        let filled = self.fill(text);
        let mut parts = filled.splitn(3, ':');
        let source = parts.next().unwrap_or_default();
        let target = parts.next().unwrap_or(source);
        let permissions = parts.next().unwrap_or("rwm");
        let fits = source.starts_with('/')
            && target.starts_with('/')
            && !permissions.is_empty()
            && permissions.chars().all(|c| "rwm".contains(c));
        if !fits {
            self.wrong(
                text,
                format!("`{filled}` is not a device"),
                "write `/dev/ttyUSB0` or `/dev/ttyUSB0:/dev/zigbee:rw`",
            );
            return None;
        }
        Some(Device {
            source: source.to_owned(),
            target: target.to_owned(),
            permissions: permissions.to_owned(),
        })
    }

    fn tmpfs(&mut self, text: &Text) -> Option<(String, String)> {
        let filled = self.fill(text);
        let (path, options) = filled.split_once(':').unwrap_or((&filled, ""));
        if !path.starts_with('/') {
            self.wrong(
                text,
                format!("`{path}` is not an absolute path"),
                "write `/run` or `/run:size=64m`",
            );
            return None;
        }
        Some((path.to_owned(), options.to_owned()))
    }

    fn bytes(&mut self, text: &Text) -> Option<u64> {
        let filled = self.fill(text);
        let size = parse_bytes(&filled);
        if size.is_none() {
            self.wrong(
                text,
                format!("`{filled}` is not a size"),
                "write bytes, or a number with `k`, `m` or `g`, like `64m`",
            );
        }
        size
    }

    fn signal(&mut self, text: &Text) -> Option<String> {
        let filled = self.fill(text);
        let upper = filled.to_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let is_number = name
            .parse::<u8>()
            .is_ok_and(|number| (1..=64).contains(&number));
        let is_real_time = name.starts_with("RTMIN") || name.starts_with("RTMAX");
        if is_number || is_real_time || SIGNALS.contains(&name) {
            return Some(filled);
        }
        self.wrong(
            text,
            format!("`{filled}` is not a signal"),
            "write a name like `SIGINT`; signal(7) lists them",
        );
        None
    }

    fn duration(&mut self, text: &Text) -> Option<Duration> {
        let filled = self.fill(text);
        let duration = humantime::parse_duration(&filled).ok();
        if duration.is_none() {
            self.wrong(
                text,
                format!("`{filled}` is not a duration"),
                "write `10s` or `1m30s`",
            );
        }
        // The Engine counts whole seconds; half a second of grace must not become none.
        duration.map(|d| Duration::from_secs(d.as_secs() + u64::from(d.subsec_nanos() > 0)))
    }
}

/// Resolves `.` and `..` by name, as Compose does; `/srv/./x` and `/srv/x` are one bind for the Engine.
fn clean(path: &Path) -> PathBuf {
    use std::path::Component;
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                clean.pop();
            }
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => clean.push(part),
        }
    }
    clean
}

fn many(values: Option<&OneOrMany>) -> Vec<Text> {
    match values {
        None => Vec::new(),
        Some(OneOrMany::One(value)) => vec![value.clone()],
        Some(OneOrMany::Many(values)) => values.clone(),
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

/// Bytes as Docker's command line takes them: a number with `b`, `k`, `m`, `g` or `t` (powers of 1024), `kb` and `kib` alike.
fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim().to_lowercase();
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let power = match unit.trim() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1024_u64.pow(power))
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

fn is_host_name(name: &str) -> bool {
    name.len() <= 253
        && name
            .split('.')
            .all(|label| is_dns_label(&label.to_lowercase()))
}

/// capabilities(7), without the prefix.
const CAPABILITIES: [&str; 41] = [
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];

/// signal(7), without the prefix.
const SIGNALS: [&str; 31] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "KILL", "PIPE",
    "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU",
    "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_docker() {
        assert_eq!(parse_bytes("64m"), Some(64 << 20));
        assert_eq!(parse_bytes("1GB"), Some(1 << 30));
        assert_eq!(parse_bytes("512"), Some(512));
        assert_eq!(parse_bytes("x"), None);
        assert_eq!(parse_bytes("99999999999999t"), None);
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

    #[test]
    fn paths_are_cleaned_by_name() {
        assert_eq!(
            clean(Path::new("/etc/homelab/./a/../b")),
            Path::new("/etc/homelab/b")
        );
    }
}
