//! The keys of a service from text to values. Pure.

use super::{Device, Restart, Service, Volume, is_dns_label, split_tag};
use crate::config::{self, OneOrMany, Text};
use crate::plan::Problems;
use crate::problem::{Problem, nearest};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Turns one service of the file, overrides already applied, into values. Everything wrong goes to `problems`.
pub(in crate::plan) struct Reader<'a> {
    /// The environment, for `{env}` and for the names of volumes.
    pub env: &'a str,
    /// The host, for `{host}`.
    pub host: &'a str,
    /// The slice of the environment's containers, when it has one.
    pub slice: Option<&'a str>,
    /// The folder that relative paths start from: that of homelab.toml.
    pub folder: &'a Path,
    /// Where problems go.
    pub problems: &'a mut Problems,
}

impl Reader<'_> {
    pub(in crate::plan) fn read(
        &mut self,
        service: &config::Service,
        address: Option<Ipv4Addr>,
    ) -> Service {
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
            slice: self.slice.map(str::to_owned),
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
        for option in options.into_iter().flat_map(|list| list.split(',')) {
            if !VOLUME_OPTIONS.contains(&option) {
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
            if source.to_string_lossy().contains(':') {
                self.wrong(
                    text,
                    format!("`{}` has a `:`, where Docker ends a path", source.display()),
                    "mount a folder without one in its path",
                );
                return None;
            }
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

/// Bytes as Docker's command line takes them: a number with `b`, `k`, `m`, `g` or `t` (powers of 1024), `kb` and `kib` alike.
pub(in crate::plan) fn parse_bytes(text: &str) -> Option<u64> {
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

fn is_host_name(name: &str) -> bool {
    name.len() <= 253
        && name
            .split('.')
            .all(|label| is_dns_label(&label.to_lowercase()))
}

/// What may stand behind the second colon of a volume: Docker's `parseVolumeSpec`.
const VOLUME_OPTIONS: [&str; 14] = [
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
];

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
    fn paths_are_cleaned_by_name() {
        assert_eq!(
            clean(Path::new("/etc/homelab/./a/../b")),
            Path::new("/etc/homelab/b")
        );
    }
}
