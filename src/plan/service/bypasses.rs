//! By what a service can undo the isolation of its environment: one table for `check`, env-up, `status` and `verify`. Pure.
//!
//! Each row was tried against the isolation, or is alike to one that was: what a row lets a process do is what root of a container does
//! that has nothing else beyond Docker's defaults. What is no row was looked at and opens no door by itself: `uts: host`,
//! `userns_mode: host` (nothing is mapped without `userns-remap`), `cgroup: host` (nothing is writable without a mount or `SYS_ADMIN`),
//! `seccomp=unconfined` and `apparmor=unconfined` (they take a second fence away, not the first), `SYS_TIME`, `SYS_NICE`, `IPC_LOCK` and the
//! like.

use super::Service;
use serde_json::Value as Json;
use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

/// One way out of the isolation that a service has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bypass {
    /// What `isolation_bypass` calls it.
    pub name: &'static str,
    /// The key of the service that opens it.
    pub key: &'static str,
    /// What the service has, to be read behind its name.
    pub has: String,
    /// What a process in it can do by that.
    pub so_that: &'static str,
}

impl Bypass {
    /// What it means for the isolation of a service, which has all of these, and what to do about it.
    pub fn words(&self, service: &Service, all: &[Self]) -> (String, String) {
        let Self {
            name: _,
            key,
            has,
            so_that,
        } = self;
        let Service { name, env, .. } = service;
        let what = format!(
            "service `{name}` of environment `{env}` {has}: {so_that}, and so reach other environments"
        );
        let accepted = service.accepted_bypasses.iter().map(String::as_str);
        let names: BTreeSet<&str> = accepted.chain(all.iter().map(|one| one.name)).collect();
        let names: Vec<String> = names.iter().map(|one| format!("\"{one}\"")).collect();
        let is_writable = WRITABLE.iter().any(|(_, row, _)| row == &self.name);
        let other = if *key == "volumes" && is_writable {
            ", mount it read-only"
        } else {
            ""
        };
        let hint = format!(
            "take that away{other}, or say that it is meant: `isolation_bypass = [{}]` in `[env.{env}.services.{name}]`",
            names.join(", ")
        );
        (what, hint)
    }
}

/// A capability (capabilities(7)), its name in `isolation_bypass`, and what it is good for.
const CAPABILITIES: [(&str, &str, &str); 8] = [
    (
        "ALL",
        "all-capabilities",
        "it can do everything on this host",
    ),
    (
        "SYS_ADMIN",
        "cap-sys-admin",
        "it can mount the cgroups and leave its slice",
    ),
    (
        "SYS_MODULE",
        "cap-sys-module",
        "it can load code into the kernel",
    ),
    (
        "SYS_RAWIO",
        "cap-sys-rawio",
        "it can write to the memory of the kernel",
    ),
    (
        "NET_ADMIN",
        "cap-net-admin",
        "it can send packets that pass its slice by, with a firewall of its own",
    ),
    (
        "NET_RAW",
        "cap-net-raw",
        "it can make raw Ethernet frames, which pass its slice by",
    ),
    (
        "BPF",
        "cap-bpf",
        "it can put programs of its own into the kernel",
    ),
    (
        "DAC_READ_SEARCH",
        "cap-dac-read-search",
        "it can read every file of this host",
    ),
];

/// The host's namespaces that a service may be in by the key of that name.
const NAMESPACES: [(&str, &str, &str); 2] = [
    (
        "pid",
        "pid-host",
        "it can see and change processes of other environments",
    ),
    (
        "ipc",
        "ipc-host",
        "it can use shared memory of this host's processes",
    ),
];

/// Who can use them: whoever can connect to a socket in there, although the mount may be read-only.
const SOCKETS: [(&str, &str, &str); 6] = [
    ("/run/docker.sock", "engine", ENGINE),
    ("/run/docker", "engine", ENGINE),
    ("/run/containerd", "engine", ENGINE),
    ("/run/podman", "engine", ENGINE),
    (
        "/run/systemd",
        "systemd",
        "it can have systemd run commands on this host as root",
    ),
    (
        "/run/dbus",
        "dbus",
        "it can have systemd run commands on this host as root, over D-Bus",
    ),
];

const ENGINE: &str = "it can start containers with all rights";

/// Folders that say too much also to who only reads them.
const READABLE: [(&str, &str, &str); 4] = [
    (
        "/proc",
        "host-proc",
        "it can see and change processes of other environments",
    ),
    ("/var/lib/docker", "engine-data", ENGINE_DATA),
    ("/var/lib/containerd", "engine-data", ENGINE_DATA),
    ("/var/lib/containers", "engine-data", ENGINE_DATA),
];

const ENGINE_DATA: &str = "it can read the volumes and containers of other environments";

/// Folders by which who may write to them becomes root of this host.
const WRITABLE: [(&str, &str, &str); 12] = [
    (
        "/sys/fs/cgroup",
        "host-cgroups",
        "it can move a process of its own out of its slice",
    ),
    ("/sys", "host-sys", "it can change the kernel's settings"),
    (
        "/dev/shm",
        "host-shm",
        "it can use shared memory of this host's processes",
    ),
    ("/etc", "host-files", ROOT),
    ("/boot", "host-files", ROOT),
    ("/root", "host-files", ROOT),
    ("/usr", "host-files", ROOT),
    ("/bin", "host-files", ROOT),
    ("/sbin", "host-files", ROOT),
    ("/lib", "host-files", ROOT),
    ("/lib64", "host-files", ROOT),
    ("/var/spool/cron", "host-files", ROOT),
];

/// Files below those folders that many containers are given, and by which nobody becomes anybody.
const HARMLESS: [&str; 14] = [
    "/etc/localtime",
    "/etc/timezone",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/machine-id",
    "/etc/resolv.conf",
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/uptime",
    "/proc/version",
    "/run/systemd/resolve",
];

const ROOT: &str = "it can write what this host runs as root";

/// Devices by which a process reads and writes what no mount gives it.
const DEVICES: [(&str, &str, &str); 17] = [
    ("/dev/mem", "host-memory", MEMORY),
    ("/dev/kmem", "host-memory", MEMORY),
    ("/dev/port", "host-memory", MEMORY),
    ("/dev/sd", "host-disks", DISKS),
    ("/dev/hd", "host-disks", DISKS),
    ("/dev/vd", "host-disks", DISKS),
    ("/dev/nvme", "host-disks", DISKS),
    ("/dev/mmcblk", "host-disks", DISKS),
    ("/dev/md", "host-disks", DISKS),
    ("/dev/dm-", "host-disks", DISKS),
    ("/dev/mapper", "host-disks", DISKS),
    ("/dev/loop", "host-disks", DISKS),
    ("/dev/disk", "host-disks", DISKS),
    ("/dev/sg", "host-disks", DISKS),
    ("/dev/xvd", "host-disks", DISKS),
    ("/dev/zd", "host-disks", DISKS),
    ("/dev/bcache", "host-disks", DISKS),
];

const MEMORY: &str = "it can read and write the memory of this host";
const DISKS: &str = "it can read and write the disks of this host";

/// The names that `isolation_bypass` knows.
pub fn names() -> BTreeSet<&'static str> {
    let tables = [
        &CAPABILITIES[..],
        &SOCKETS[..],
        &READABLE[..],
        &WRITABLE[..],
        &DEVICES[..],
    ];
    let rows = tables.into_iter().flatten().map(|(_, name, _)| *name);
    let single = [
        "privileged",
        "host-network",
        "pid-host",
        "ipc-host",
        "systempaths",
        "device-rules",
    ];
    rows.chain(single).collect()
}

impl Service {
    /// By what its processes could undo the isolation of its environment, whether the file says so or not; each name once.
    pub fn bypasses(&self) -> Vec<Bypass> {
        let mut all = self.by_rights();
        all.extend(self.by_the_hosts_namespaces());
        all.extend(self.by_options());
        all.extend(self.by_devices());
        all.extend(self.by_mounts());
        let mut seen = BTreeSet::new();
        all.retain(|bypass| seen.insert(bypass.name));
        all
    }

    fn by_rights(&self) -> Vec<Bypass> {
        let privileged = self.privileged.then(|| Bypass {
            name: "privileged",
            key: "privileged",
            has: "is privileged".to_owned(),
            so_that: "it can do everything on this host",
        });
        let added = |row: &&(&str, _, _)| self.cap_add.iter().any(|added| added == row.0);
        let capabilities = CAPABILITIES.iter().filter(added);
        let capabilities = capabilities.map(|(capability, name, so_that)| Bypass {
            name,
            key: "cap_add",
            has: match *capability {
                "ALL" => "has all capabilities".to_owned(),
                one => format!("has the capability {one}"),
            },
            so_that,
        });
        privileged.into_iter().chain(capabilities).collect()
    }

    fn by_the_hosts_namespaces(&self) -> Vec<Bypass> {
        let mut found = Vec::new();
        if self.network_mode.as_deref() == Some("host") && self.has_net_raw() {
            found.push(Bypass {
                name: "host-network",
                key: "network_mode",
                has: "has the capability NET_RAW in the host's network".to_owned(),
                so_that: "it can send whatever this host can",
            });
        }
        for (key, name, so_that) in NAMESPACES {
            if self.setting(key).and_then(Json::as_str) == Some("host") {
                let has = format!("has `{key}: host`");
                found.push(Bypass {
                    name,
                    key,
                    has,
                    so_that,
                });
            }
        }
        found
    }

    fn by_options(&self) -> Vec<Bypass> {
        let mut options = self.words("security_opt");
        let paths = options.any(|option| option.replace(':', "=") == "systempaths=unconfined");
        let paths = paths.then(|| Bypass {
            name: "systempaths",
            key: "security_opt",
            has: "has `systempaths=unconfined`".to_owned(),
            so_that: "it can write the kernel's settings below /proc/sys",
        });
        let rules = self.words("device_cgroup_rules").any(is_wide);
        let rules = rules.then(|| Bypass {
            name: "device-rules",
            key: "device_cgroup_rules",
            has: "has a `device_cgroup_rules` of disks or memory".to_owned(),
            so_that: "it can make devices for the disks and the memory of this host",
        });
        paths.into_iter().chain(rules).collect()
    }

    fn by_devices(&self) -> Vec<Bypass> {
        let devices = self.devices.iter();
        let found = devices.flat_map(|device| {
            let path = cleaned(Path::new(&device.source));
            let text = path.to_string_lossy().into_owned();
            let rows = DEVICES.iter();
            let open = rows.filter(|(begin, ..)| text.starts_with(begin) || text == "/dev");
            let bypasses = open.map(|(_, name, so_that)| Bypass {
                name,
                key: "devices",
                has: format!("has the device `{text}`"),
                so_that,
            });
            bypasses.collect::<Vec<_>>()
        });
        found.collect()
    }

    fn by_mounts(&self) -> Vec<Bypass> {
        let mut found = Vec::new();
        for volume in &self.volumes {
            let Some(path) = volume.host_path().map(cleaned) else {
                continue;
            };
            if HARMLESS.iter().any(|harmless| path.starts_with(harmless)) {
                continue;
            }
            let is_socket = path.file_name().is_some_and(|name| name == "docker.sock");
            let writable = WRITABLE.iter().filter(|_| !volume.is_read_only());
            let rows = SOCKETS.iter().chain(&READABLE).chain(writable);
            let open = rows.filter(|(guarded, name, _)| {
                let is_part = path.starts_with(guarded) || Path::new(guarded).starts_with(&path);
                is_part || (is_socket && *name == "engine")
            });
            found.extend(open.map(|(_, name, so_that)| Bypass {
                name,
                key: "volumes",
                has: format!("mounts `{}`", path.display()),
                so_that,
            }));
        }
        found
    }

    /// The containers whose network, processes, memory or volumes it shares, with the key that says so.
    pub fn containers_used(&self) -> Vec<(&str, &'static str)> {
        let mut used = Vec::new();
        let mode = self.network_mode.as_deref();
        let single = [
            ("network_mode", mode),
            ("pid", self.setting("pid").and_then(Json::as_str)),
            ("ipc", self.setting("ipc").and_then(Json::as_str)),
        ];
        for (key, value) in single {
            let container = value.and_then(|value| value.strip_prefix("container:"));
            used.extend(container.map(|container| (container, key)));
        }
        let volumes = self.words("volumes_from");
        let containers = volumes.map(|text| text.split(':').next().unwrap_or_default());
        used.extend(containers.map(|container| (container, "volumes_from")));
        used
    }

    /// Those that its `isolation_bypass` does not name.
    pub fn unmeant_bypasses(&self) -> impl Iterator<Item = Bypass> {
        let all = self.bypasses().into_iter();
        all.filter(|bypass| !self.accepted_bypasses.contains(bypass.name))
    }

    /// The capabilities that the Engine is told to take away: those of the file and, where environments are kept apart, `NET_RAW`,
    /// unless the file asks for it. Docker gives it by default, and the frames of packet sockets pass a slice by.
    pub fn dropped_capabilities(&self) -> Vec<String> {
        let mut dropped = self.cap_drop.clone();
        let mut added = self.cap_add.iter();
        let asks_for_it = self.privileged || added.any(|one| one == "NET_RAW" || one == "ALL");
        if self.is_isolated && !asks_for_it && has_net_raw(false, &[], &dropped) {
            dropped.push("NET_RAW".to_owned());
        }
        dropped
    }

    /// Whether its processes are given `NET_RAW`.
    pub fn has_net_raw(&self) -> bool {
        has_net_raw(self.privileged, &self.cap_add, &self.dropped_capabilities())
    }

    fn setting(&self, key: &str) -> Option<&Json> {
        self.engine_settings.get(key).map(|setting| &setting.value)
    }

    fn words(&self, key: &str) -> impl Iterator<Item = &str> {
        let list = self.setting(key).and_then(Json::as_array);
        list.into_iter().flatten().filter_map(Json::as_str)
    }
}

/// Whether Docker gives a container `NET_RAW` that is made with this: by default it does, `ALL` goes before the default, and what is
/// added by its name before what is dropped (moby `oci/caps/utils.go`). Names are with their prefix `CAP_` or without.
pub fn has_net_raw(is_privileged: bool, added: &[String], dropped: &[String]) -> bool {
    let has = |list: &[String], name: &str| {
        let mut names = list.iter();
        names.any(|one| one.strip_prefix("CAP_").unwrap_or(one) == name)
    };
    let is_dropped = has(dropped, "NET_RAW");
    let by_default = !is_dropped && (has(added, "ALL") || !has(dropped, "ALL"));
    is_privileged || by_default || (has(added, "NET_RAW") && !has(added, "ALL"))
}

/// Whether a rule of devices (`c 188:* rmw`) lets in all devices, disks or memory: `mem` has the major number 1.
fn is_wide(rule: &str) -> bool {
    let mut words = rule.split_whitespace();
    let (kind, numbers) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    let major = numbers.split(':').next().unwrap_or_default();
    kind != "c" || major == "*" || major == "1"
}

/// A path without `.`, `..` and doubled slashes, below /run what is below /var/run, which is the same.
fn cleaned(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                clean.pop();
            }
            Component::CurDir => {}
            part => clean.push(part),
        }
    }
    match clean.strip_prefix("/var/run") {
        Ok(rest) if rest.as_os_str().is_empty() => PathBuf::from("/run"),
        Ok(rest) => Path::new("/run").join(rest),
        Err(_) => clean,
    }
}

#[cfg(test)]
mod tests;
