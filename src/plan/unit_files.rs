//! What homelab writes for systemd, as text. Pure.

use super::address::joined;
use super::naming::{
    FILE_BLOCK, FILE_MARK, NETWORK_MANAGER_FILE, NETWORKD_FILE, SHIM_STATE, SHIM_UNIT,
};
use super::service::is_dns_label;
use super::{Plan, PlannedSlice};
use crate::cli::PARENT_LINKS_VARIABLE;
use std::fmt::Write as _;

/// Network managers that would touch a link that they were not told about, as the units that they are.
pub const MANAGERS: [Manager; 3] = [
    Manager {
        unit: "systemd-networkd.service",
        file: NETWORKD_FILE,
        presence: "/etc/systemd/network",
    },
    Manager {
        unit: "NetworkManager.service",
        file: NETWORK_MANAGER_FILE,
        presence: "/etc/NetworkManager",
    },
    Manager {
        unit: "dhcpcd.service",
        file: DHCPCD,
        presence: DHCPCD,
    },
];

/// The one file of dhcpcd, which has no folder for those of others.
pub const DHCPCD: &str = "/etc/dhcpcd.conf";

/// A network manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manager {
    /// Its unit.
    pub unit: &'static str,
    /// Where it is told to leave our links alone.
    pub file: &'static str,
    /// What is there where it is installed.
    pub presence: &'static str,
}

/// Where units of the administrator are (systemd.unit(5)).
pub const FOLDER: &str = "/etc/systemd/system";

/// Denied where there is nothing to deny: TEST-NET-1, which no packet has (RFC 5737). systemd 252 and 262 leave the old
/// filter on a running slice when its list becomes empty.
const NOTHING: &str = "192.0.2.0/24";

/// Folders of which the unit sees nothing but homelab.toml (`ProtectHome=tmpfs`, systemd.exec(5)).
pub const HIDDEN_FOLDERS: [&str; 3] = ["/home", "/root", "/run/user"];

/// The link by which the shim's unit starts at boot, which `systemctl enable` makes.
pub fn boot_link() -> String {
    format!("{FOLDER}/multi-user.target.wants/{SHIM_UNIT}")
}

/// Where the shim's unit keeps what it wrote: the link, then the folder that it leads to.
pub fn state_folders() -> [String; 2] {
    ["/var/lib", "/var/lib/private"].map(|parent| format!("{parent}/{SHIM_STATE}"))
}

/// Whether the file of this text is ours: it begins with our mark, as all of ours do, or it was cut off within that, as by a power cut
/// or a full disk.
pub fn is_ours(text: &str) -> bool {
    text.starts_with(FILE_MARK) || is_cut_off(text, FILE_MARK)
}

/// Whether a file of this text is the begin of the text that it should have, or empty.
pub fn is_cut_off(text: &str, whole: &str) -> bool {
    text.len() < whole.len() && whole.starts_with(text)
}

/// The path of a unit's file.
pub fn path(unit: &str) -> String {
    format!("{FOLDER}/{unit}")
}

/// The file of a slice.
pub fn slice(slice: &PlannedSlice) -> String {
    let PlannedSlice {
        name: _,
        env,
        deny,
        allow,
        limits,
    } = slice;
    let mut text = format!(
        "{FILE_MARK}from its address plan. `homelab network-up` writes it, `homelab network-down` removes it.\n\
         [Unit]\nDescription=homelab environment {env}\n\n[Slice]\n"
    );
    let denied = match deny.as_slice() {
        [] => NOTHING.to_owned(),
        nets => joined(nets, " "),
    };
    let _ = writeln!(text, "IPAddressDeny={denied}");
    if !allow.is_empty() {
        let _ = writeln!(text, "IPAddressAllow={}", joined(allow, " "));
    }
    if let Some(bytes) = limits.memory {
        let _ = writeln!(text, "MemoryMax={bytes}");
    }
    if let Some(cpus) = limits.cpus {
        let _ = writeln!(text, "CPUQuota={}", cpus.quota());
    }
    text
}

/// What the unit of the shim is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShimUnit<'a> {
    /// The absolute path of this program.
    pub program: &'a str,
    /// The absolute path of homelab.toml.
    pub file: &'a str,
    /// The host of the plan that this machine is: its address may not be there yet when the unit starts.
    pub host: &'a str,
}

impl<'a> ShimUnit<'a> {
    /// Reads the file of an installed unit; `None` when somebody wrote another command into it.
    pub fn parse(text: &'a str) -> Option<Self> {
        Self::from_words(command(text)?.split(' '))
    }

    /// Reads the command of a unit, word by word; `None` for another one.
    pub fn from_words(words: impl Iterator<Item = &'a str>) -> Option<Self> {
        let words: Vec<&str> = words.collect();
        let [program, "--config", file, "--host", host, "shim", "run"] = words.as_slice() else {
            return None;
        };
        let fits = is_unit_path(program) && is_unit_path(file) && is_dns_label(host);
        fits.then_some(Self {
            program,
            file,
            host,
        })
    }
}

/// Whether a path can stand in the file of a unit as it is.
///
/// Blanks, quotes, `\`, `%`, `$` and `:` mean something to systemd, in `ExecStart=` something else than in `BindReadOnlyPaths=`
/// (systemd.syntax(7), systemd.service(5), systemd.exec(5)), and what follows the end of a line is a setting of its own. These
/// characters are nothing but themselves, and what begins with `/` is no option and has no prefix.
pub fn is_unit_path(path: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "/._-+@~".contains(c);
    path.starts_with('/') && path.chars().all(fits)
}

/// The command of a unit; `None` in a text that was cut off before its end.
fn command(text: &str) -> Option<&str> {
    let mut lines = text.split_inclusive('\n');
    lines.find_map(|line| line.strip_prefix("ExecStart=")?.strip_suffix('\n'))
}

/// Whether the file of an installed unit of ours has no command, so that it was not written whole and nothing can be read from it.
pub fn has_no_command(text: &str) -> bool {
    is_ours(text) && command(text).is_none()
}

/// The file of the shim's unit.
///
/// It has the one right that links need, and a user that is there only as long as it runs. systemd shows it homelab.toml
/// even where that is in a home folder, and starts it also where that is missing: it has the last plan that was right in its state
/// directory. It does not name the parent's `.device`, which is not there in a container: it waits by itself.
pub fn shim(unit: &ShimUnit) -> String {
    let ShimUnit {
        program,
        file,
        host,
    } = unit;
    format!(
        "{FILE_MARK}for its shim. `homelab shim install` writes it, `homelab shim uninstall` removes it.\n\
         [Unit]\n\
         Description=homelab shim, this host's way to its macvlan containers\n\
         After=network-pre.target network.target\n\
         Before=docker.service\n\
         StartLimitIntervalSec=0\n\
         \n\
         [Service]\n\
         Type=notify\n\
         ExecStart={program} --config {file} --host {host} shim run\n\
         Restart=always\n\
         RestartSec=1s\n\
         TimeoutStartSec=90s\n\
         TimeoutStopSec=10s\n\
         StateDirectory={SHIM_STATE}\n\
         StateDirectoryMode=0700\n\
         BindReadOnlyPaths=-{file}\n\
         {HARDENING}\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n"
    )
}

/// What `systemd-analyze security` asks for, but for the network namespace and the user namespace: links of the host are
/// made from the host's own, and for `ProcSubset=pid`: /proc/sys would not be there, where the shim's IPv6 is turned off.
const HARDENING: &str = "\
DynamicUser=yes
AmbientCapabilities=CAP_NET_ADMIN
CapabilityBoundingSet=CAP_NET_ADMIN
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=tmpfs
ProtectProc=invisible
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ReadWritePaths=-/proc/sys/net/ipv6/conf
PrivateDevices=yes
PrivateTmp=yes
DevicePolicy=closed
KeyringMode=private
LockPersonality=yes
MemoryDenyWriteExecute=yes
RemoveIPC=yes
RestrictAddressFamilies=AF_NETLINK AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
IPAddressDeny=any
UMask=0077
";

/// The drop-in that names the parent links.
pub fn parent_links_path() -> String {
    format!("{}.d/parent-links.conf", path(SHIM_UNIT))
}

/// The parent links that an installed unit keeps alive, read from the text of its drop-in.
pub fn installed_parent_links(text: Option<&str>) -> Vec<String> {
    // A line without an end was cut off.
    let mut lines = text.unwrap_or_default().split_inclusive('\n');
    let key = format!("Environment={PARENT_LINKS_VARIABLE}=");
    listed(lines.find_map(|line| line.strip_prefix(&key)?.strip_suffix('\n')))
}

/// The parent links that the unit's variable names, if it has one.
pub fn listed(variable: Option<&str>) -> Vec<String> {
    let names = variable.into_iter().flat_map(|list| list.split(','));
    names.map(str::to_owned).collect()
}

/// Its text; `None` when there are no parent links.
pub fn parent_links(links: &[&str]) -> Option<String> {
    if links.is_empty() {
        return None;
    }
    Some(format!(
        "{FILE_MARK}for its shim: what Docker's networks stand on. `homelab network-up` writes it.\n\
         [Service]\nEnvironment={PARENT_LINKS_VARIABLE}={}\n",
        links.join(",")
    ))
}

impl Manager {
    /// Whether the file of this text is somebody else's from the first line to the last.
    pub fn is_foreign(self, text: &str) -> bool {
        self.file != DHCPCD && !is_ours(text)
    }

    /// The text of its file when it shall leave the shim and parent links alone.
    pub fn configured(self, plan: &Plan, parent_links: &[&str], found: Option<&str>) -> String {
        let mut names: Vec<String> = plan.shim_names().collect();
        names.extend(plan.envs.iter().map(super::Env::parent_link));
        let others = parent_links.iter().map(|name| (*name).to_owned());
        let others: Vec<String> = others.filter(|name| !names.contains(name)).collect();
        names.extend(others);
        let mark = format!(
            "{FILE_MARK}for its shim. `homelab shim install` writes it, `homelab shim uninstall` removes it.\n"
        );
        match self.unit {
            "systemd-networkd.service" => {
                format!(
                    "{mark}[Match]\nName={}\n\n[Link]\nUnmanaged=yes\n",
                    names.join(" ")
                )
            }
            "NetworkManager.service" => {
                let list: Vec<String> = names
                    .iter()
                    .map(|n| format!("interface-name:{n}"))
                    .collect();
                format!("{mark}[keyfile]\nunmanaged-devices+={}\n", list.join(";"))
            }
            // In front: what stands behind an `interface` line is for that interface only (dhcpcd.conf(5)).
            _ => {
                let rest = self.without_ours(found).unwrap_or_default();
                let [begin, end] = FILE_BLOCK;
                format!("{begin}denyinterfaces {}\n{end}{rest}", names.join(" "))
            }
        }
    }

    /// The text of its file without what is ours; `None` stands for no file.
    pub fn without_ours(self, found: Option<&str>) -> Option<String> {
        let found = found?;
        if self.file != DHCPCD {
            return self.is_foreign(found).then(|| found.to_owned());
        }
        let [begin, end] = FILE_BLOCK;
        let without = found.split_once(begin).and_then(|(before, rest)| {
            let (_, after) = rest.split_once(end)?;
            Some(format!("{before}{after}"))
        });
        Some(without.unwrap_or_else(|| found.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let usual = ShimUnit {
            program: "/usr/local/bin/homelab",
            file: "/etc/homelab/homelab.toml",
            host: "pi",
        };
        let file = "/srv/my-home_2/~pi/a+b@c.d/homelab.toml";
        assert!(is_unit_path(usual.program) && is_unit_path(usual.file) && is_unit_path(file));
        let text = shim(&usual);
        assert_eq!(ShimUnit::parse(&text), Some(usual));
        let other = text.replace(usual.file, file);
        let unit = ShimUnit { file, ..usual };
        assert_eq!(shim(&unit), other);
        assert_eq!(ShimUnit::parse(&other), Some(unit));
    }

    #[test]
    fn nothing_in_a_path_means_something_to_systemd() {
        let special = " \t\n\r\"'\\%$:;#!|&<>*?[]{}()=,\0\u{1b}\u{7f}\u{a0}\u{202e}é";
        for character in special.chars() {
            let path = format!("/etc/a{character}b");
            assert!(!is_unit_path(&path), "{path:?}");
        }
        for path in [
            "",
            "-x",
            "homelab.toml",
            "--config",
            "@/bin/sh",
            "+/bin/sh",
            "-/bin/sh",
        ] {
            assert!(!is_unit_path(path), "{path:?}");
        }
    }

    #[test]
    fn a_command_that_homelab_does_not_write_is_somebody_elses() {
        for command in [
            "/bin/homelab --config /etc/h.toml --host pi shim run --json",
            "/bin/homelab --config /etc/h.toml shim run",
            "-/bin/homelab --config /etc/h.toml --host pi shim run",
            "/bin/homelab --config /etc/%i.toml --host pi shim run",
            "/bin/homelab --config $FILE --host pi shim run",
            "/bin/homelab --config \"/etc/h.toml\" --host pi shim run",
            "/bin/homelab --config /etc/h.toml --host %H shim run",
            "/bin/homelab --config /etc/h.toml:/etc --host pi shim run",
        ] {
            let text = format!("[Service]\nExecStart={command}\n");
            assert_eq!(ShimUnit::parse(&text), None, "{command}");
        }
    }
}
