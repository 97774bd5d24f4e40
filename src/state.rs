//! What exists on this machine, as plain values, and which of it is ours. A state can be written to a file and read back,
//! which is how the tests of the diff are made.

mod docker;

pub use docker::{
    Api, Container, ContainerExit, ContainerHealth, Docker, Endpoint, Health, Mount, Network, Pool,
    disown_copies,
};

use crate::error::Diagnostic;
use crate::plan::Mac;
use crate::plan::naming::{self, LINK_ALIAS_PREFIX};
use crate::plan::unit_files;
use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// Stands for the text of a file that cannot be read or is none, as a unit that leads to /dev/null: somebody else's.
pub const NOT_READ: &str = "(not read)";

/// Everything that was observed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct State {
    /// Whether this process may change links, addresses and routes.
    pub net_admin: bool,
    /// Whether links have a switch for IPv6 that can be set: the kernel has IPv6, and its settings are not read-only here.
    pub ipv6_switch: bool,
    /// All links of this network namespace.
    pub links: Vec<Link>,
    /// The unicast IPv4 routes of the main table.
    pub routes: Vec<Route>,
    /// Who on the LAN answered for addresses; only those that were asked for.
    pub answered: Vec<Answer>,
    /// Which way the kernel sends packets; only to those addresses that were asked for.
    pub ways: Vec<Way>,
    /// The LAN should have been asked, and this process may not.
    pub lan_unasked: bool,
    /// What systemd has.
    pub systemd: Systemd,
    /// What the Engine has.
    pub docker: Docker,
    /// Parents that the Engine keeps for networks which it does not show, as it said in this run. Engines before 27 do when the power
    /// was lost between the record that the driver makes of a network and their own.
    pub kept_parents: BTreeSet<String>,
    /// A number that no look at a machine had before, for names that must be new.
    pub seed: u64,
    /// Why the Engine could not be asked; then `docker` says nothing.
    pub docker_missing: Option<Diagnostic>,
}

/// Somebody on the LAN who has an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// The address that was asked for.
    pub address: Ipv4Addr,
    /// The hardware address of who has it.
    pub mac: Mac,
}

/// Which way the kernel sends a packet, by all of its rules and tables (ip-rule(8)).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Way {
    /// To whom.
    pub address: Ipv4Addr,
    /// The link that it leaves by; `None` where it is refused.
    #[serde(default)]
    pub link: Option<String>,
    /// The table that says so; 254 is the main one.
    #[serde(default)]
    pub table: u32,
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
    /// When it had its first address, of those that it has, IPv6 ones too, in hundredths of a second since the boot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addressed: Option<u64>,
    /// `net.ipv4.conf.NAME.arp_filter`.
    pub arp_filter: bool,
    /// Whether it takes part in IPv6: `net.ipv6.conf.NAME.disable_ipv6` is there, and 0.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ipv6: bool,
    /// How long its packets may be, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
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
    /// Units above and below the slices of environments that allow addresses.
    pub openings: Vec<Opening>,
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
    /// Why the program that its file names cannot be run, in a few words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub program_fault: Option<String>,
    /// The units of the network managers that are installed, and whether they run.
    pub managers: BTreeMap<String, bool>,
    /// The folders in which it keeps its copy of homelab.toml that there are, and the links to them.
    pub state: Vec<String>,
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
    pub deny: Vec<IpNet>,
    /// What systemd allows them all the same.
    pub allow: Vec<IpNet>,
    /// Drop-ins that set one of the two.
    pub overrides: Vec<String>,
    /// What the kernel does with packets from within to what the plan denies; when that was tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trial: Option<Trial>,
}

/// What came of datagrams to addresses that a slice denies, sent by a process in a unit of that slice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trial {
    /// The kernel refused all of them.
    Refused,
    /// It let one out.
    LetOut {
        /// To whom.
        address: Ipv4Addr,
        /// The unit that it was sent from, which is in the slice.
        unit: String,
    },
}

/// `IPAddressAllow=` of a unit that is no slice of an environment: systemd puts what it allows together with what the slice allows, and
/// the kernel filters by that in each scope (systemd.resource-control(5)).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Opening {
    /// The unit: a slice above, or the scope of a container.
    pub unit: String,
    /// The slice that it counts for; `None` for all.
    #[serde(default)]
    pub slice: Option<String>,
    /// What it allows.
    pub allow: Vec<IpNet>,
    /// The files that say so, as far as they were found.
    #[serde(default)]
    pub files: Vec<String>,
}

impl State {
    /// The link of that name.
    pub fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    /// The hardware addresses of those on the LAN who answered for an address.
    pub fn holders(&self, address: Ipv4Addr) -> impl Iterator<Item = Mac> {
        let answers = self.answered.iter();
        answers
            .filter(move |answer| answer.address == address)
            .map(|answer| answer.mac)
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

    /// Whether homelab installed it: the unit's file says so, or was not written whole.
    pub fn is_installed(&self) -> bool {
        let text = self.file(&unit_files::path(naming::SHIM_UNIT));
        text.is_some_and(unit_files::is_ours)
    }
}

impl Slice {
    /// Whether homelab made it: its file says so, or was not written whole.
    pub fn is_ours(&self) -> bool {
        let text = self.file.as_deref();
        self.name != naming::PARENT_SLICE && text.is_some_and(unit_files::is_ours)
    }
}
