//! Plan and state in, steps out: what has to be done, why, and what waits for what. Pure; `--dry-run` prints exactly this.

pub mod allocation;
pub mod containers;
mod links;
pub mod network;
pub mod preflight;
pub mod shim;
mod shim_service;
mod slices;
pub mod status;

pub use links::shim_route;

use crate::error::Blocker;
use crate::plan::unit_files;
use crate::plan::{
    Attachment, ExtraNetwork, ExtraVolume, GivenFile, Ready, Service, Slice, mac_of, network_name,
};
use crate::state::Route;
use crate::system::docker::{NewContainer, NewNetwork};
use ipnet::Ipv4Net;

/// The number of a step, from 1.
pub type StepId = usize;

/// What there is to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// A graph: each step names the ones that it waits for, which all stand before it.
    pub steps: Vec<Step>,
    /// What a person should know although it stops nothing.
    pub warnings: Vec<Blocker>,
}

/// One call of the kernel or the Engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its number.
    pub id: StepId,
    /// The call.
    pub action: Action,
    /// Why.
    pub cause: String,
    /// The steps that have to be done before it.
    pub after: Vec<StepId>,
    /// The steps that have to be over before it, done or failed.
    pub after_end: Vec<StepId>,
}

/// A call that changes something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make a macvlan link in bridge mode.
    AddLink {
        /// Its name.
        name: String,
        /// The link that it stands on.
        parent: String,
        /// Its hardware address.
        mac: String,
    },
    /// Remove a link.
    DeleteLink {
        /// Its name.
        name: String,
    },
    /// Mark a link as ours.
    SetAlias {
        /// The link.
        name: String,
        /// The mark.
        alias: String,
    },
    /// Make a link answer ARP for its own side only.
    SetArpFilter {
        /// The link.
        name: String,
    },
    /// Give a link an address.
    AddAddress {
        /// The link.
        name: String,
        /// Address and prefix length.
        address: Ipv4Net,
    },
    /// Set a link up.
    SetUp {
        /// The link.
        name: String,
    },
    /// Make a route.
    AddRoute(Route),
    /// Remove a route.
    DeleteRoute(Route),
    /// Write the file of a slice.
    WriteSlice {
        /// The slice as planned.
        slice: Box<Slice>,
        /// There was none.
        is_new: bool,
    },
    /// Make processes that run in a slice already follow its file.
    ApplySlice {
        /// Its name.
        name: String,
    },
    /// Write a file of ours, or lines of ours in a file of a network manager.
    WriteFile {
        /// Its path.
        path: String,
        /// All of its text.
        text: String,
        /// There was none.
        is_new: bool,
    },
    /// Remove a file of ours.
    RemoveFile {
        /// Its path.
        path: String,
    },
    /// Make systemd read its files again.
    ReloadSystemd,
    /// Make a network manager read its files again.
    ReloadManager {
        /// Its unit.
        name: String,
    },
    /// Make a unit start at boot.
    EnableUnit {
        /// Its name.
        name: String,
    },
    /// Make a unit start at boot no more.
    DisableUnit {
        /// Its name.
        name: String,
    },
    /// Start a unit and wait until it is ready.
    StartUnit {
        /// Its name.
        name: String,
    },
    /// Stop a unit, start it and wait until it is ready.
    RestartUnit {
        /// Its name.
        name: String,
    },
    /// Stop a unit.
    StopUnit {
        /// Its name.
        name: String,
    },
    /// Make a Docker network.
    CreateNetwork(NewNetwork),
    /// Remove a Docker network.
    RemoveNetwork {
        /// Its name.
        name: String,
        /// Its id, which no other network ever has.
        id: String,
    },
    /// Pull an image.
    Pull {
        /// Its name.
        image: String,
        /// `OS[/ARCH[/VARIANT]]`, when the file names one.
        platform: Option<String>,
    },
    /// Make a Docker network beside the home network.
    CreateExtraNetwork(Box<ExtraNetwork>),
    /// Make a named volume.
    CreateVolume(Box<ExtraVolume>),
    /// Make a container.
    CreateContainer(Box<NewContainer>),
    /// Put a container on a further network.
    JoinNetwork {
        /// The container.
        name: String,
        /// Its service.
        service: Box<Service>,
        /// Its place on the network.
        attachment: Box<Attachment>,
    },
    /// Put configs and secrets into a container that does not run yet.
    PutFiles {
        /// The container.
        name: String,
        /// The files, their contents known.
        files: Vec<GivenFile>,
    },
    /// Stop a container, start its successor, remove the old one and give its name to the new one. When the successor does
    /// not start, start the old one again. One step, so that nothing comes between.
    ReplaceContainer {
        /// The name that it is to have.
        name: String,
        /// The name of the old one.
        old: String,
    },
    /// Wait until a container is as others want it.
    Await {
        /// The container.
        name: String,
        /// What it is to be.
        condition: Ready,
        /// Whether it fails the run when it never is.
        is_required: bool,
    },
    /// Stop a container and start it again.
    RestartContainer {
        /// Its name.
        name: String,
    },
    /// Start a container.
    StartContainer {
        /// Its name.
        name: String,
    },
    /// Stop a container.
    StopContainer {
        /// Its name.
        name: String,
    },
    /// Remove a stopped container.
    RemoveContainer {
        /// Its name.
        name: String,
    },
}

/// An action in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words {
    /// `+` something comes, `-` something goes, `~` something changes.
    pub sign: char,
    /// What is done to it, like `create`.
    pub verb: &'static str,
    /// The same when it is done, like `created`.
    pub done: &'static str,
    /// `link`, `route`, `network`, …
    pub kind: &'static str,
    /// The name of the thing.
    pub name: String,
    /// Its settings; may be empty.
    pub detail: String,
}

impl Action {
    /// The action in words.
    pub fn words(&self) -> Words {
        let (sign, verb, done) = self.verb();
        let (kind, name, detail) = self.object();
        Words {
            sign,
            verb,
            done,
            kind,
            name,
            detail,
        }
    }

    /// The container that it starts.
    pub fn started(&self) -> Option<&str> {
        match self {
            Self::StartContainer { name }
            | Self::RestartContainer { name }
            | Self::ReplaceContainer { name, .. } => Some(name),
            _ => None,
        }
    }

    fn verb(&self) -> (char, &'static str, &'static str) {
        match self {
            Self::AddLink { .. }
            | Self::WriteSlice { is_new: true, .. }
            | Self::WriteFile { is_new: true, .. }
            | Self::CreateNetwork(_)
            | Self::CreateExtraNetwork(_)
            | Self::CreateVolume(_)
            | Self::CreateContainer(_) => ('+', "create", "created"),
            Self::AddAddress { .. } | Self::AddRoute(_) => ('+', "add", "added"),
            Self::Pull { .. } => ('+', "pull", "pulled"),
            Self::SetAlias { .. } | Self::SetArpFilter { .. } | Self::SetUp { .. } => {
                ('~', "set", "set")
            }
            Self::WriteSlice { is_new: false, .. } | Self::WriteFile { is_new: false, .. } => {
                ('~', "change", "changed")
            }
            Self::EnableUnit { .. } => ('~', "enable", "enabled"),
            Self::DisableUnit { .. } => ('~', "disable", "disabled"),
            Self::RestartUnit { .. } | Self::RestartContainer { .. } => {
                ('~', "restart", "restarted")
            }
            Self::ReplaceContainer { .. } => ('~', "replace", "replaced"),
            Self::JoinNetwork { .. } => ('+', "attach", "attached"),
            Self::PutFiles { .. } => ('+', "fill", "filled"),
            Self::Await {
                condition: Ready::Completed,
                ..
            } => ('~', "await", "completed"),
            Self::Await { .. } => ('~', "await", "healthy"),
            Self::ApplySlice { .. } => ('~', "apply", "applied"),
            Self::ReloadSystemd | Self::ReloadManager { .. } => ('~', "reload", "reloaded"),
            Self::StartContainer { .. } | Self::StartUnit { .. } => ('~', "start", "started"),
            Self::StopContainer { .. } | Self::StopUnit { .. } => ('~', "stop", "stopped"),
            Self::RemoveFile { .. }
            | Self::DeleteLink { .. }
            | Self::DeleteRoute(_)
            | Self::RemoveNetwork { .. }
            | Self::RemoveContainer { .. } => ('-', "remove", "removed"),
        }
    }

    fn object(&self) -> (&'static str, String, String) {
        match self {
            Self::AddLink { name, parent, mac } => (
                "link",
                name.clone(),
                format!("macvlan on {parent}, mode bridge, {mac}"),
            ),
            Self::DeleteLink { name } => ("link", name.clone(), String::new()),
            Self::SetAlias { name, alias } => ("link", name.clone(), format!("alias `{alias}`")),
            Self::SetArpFilter { name } => ("link", name.clone(), "arp_filter 1".to_owned()),
            Self::SetUp { name } => ("link", name.clone(), "up".to_owned()),
            Self::AddAddress { name, address } => {
                ("address", address.to_string(), format!("dev {name}"))
            }
            Self::AddRoute(route) | Self::DeleteRoute(route) => {
                let source = route.source.map(|source| format!(" src {source}"));
                let detail = format!("dev {}{}", route.link, source.unwrap_or_default());
                ("route", route.destination.to_string(), detail)
            }
            Self::WriteSlice { slice, is_new: _ } => {
                ("slice", slice.name.clone(), slice_detail(slice))
            }
            Self::ApplySlice { name } => ("slice", name.clone(), String::new()),
            Self::WriteFile { path, .. } | Self::RemoveFile { path } => {
                ("file", path.clone(), String::new())
            }
            Self::ReloadSystemd => ("systemd", unit_files::FOLDER.to_owned(), String::new()),
            Self::ReloadManager { name }
            | Self::EnableUnit { name }
            | Self::DisableUnit { name }
            | Self::StartUnit { name }
            | Self::RestartUnit { name }
            | Self::StopUnit { name } => ("unit", name.clone(), String::new()),
            Self::CreateNetwork(network) => (
                "network",
                network_name(&network.env),
                format!(
                    "macvlan on {}, subnet {}, ip_range {}, gateway {}, {} addresses kept",
                    network.parent,
                    network.subnet,
                    network.ip_range,
                    network.gateway,
                    network.auxiliary.len()
                ),
            ),
            Self::RemoveNetwork { name, .. } => ("network", name.clone(), String::new()),
            Self::CreateExtraNetwork(network) => {
                let driver = network.driver.as_deref().unwrap_or("bridge");
                ("network", network.name.clone(), driver.to_owned())
            }
            Self::Pull { image, .. } => ("image", image.clone(), String::new()),
            Self::CreateVolume(volume) => ("volume", volume.name.clone(), String::new()),
            Self::CreateContainer(new) => ("container", new.name.clone(), container_detail(new)),
            Self::JoinNetwork {
                name, attachment, ..
            } => {
                let detail = format!("network {}", attachment.network);
                ("container", name.clone(), detail)
            }
            Self::PutFiles { name, files } => {
                let targets: Vec<&str> = files.iter().map(|file| file.target.as_str()).collect();
                ("container", name.clone(), targets.join(", "))
            }
            Self::Await {
                name, condition, ..
            } => {
                let wanted = match condition {
                    Ready::Started => "started",
                    Ready::Healthy => "healthy",
                    Ready::Completed => "completed",
                };
                ("container", name.clone(), wanted.to_owned())
            }
            Self::ReplaceContainer { name, .. }
            | Self::RestartContainer { name }
            | Self::StartContainer { name }
            | Self::StopContainer { name }
            | Self::RemoveContainer { name } => ("container", name.clone(), String::new()),
        }
    }
}

/// Its addresses, its networks beside the home network, and its image.
fn container_detail(new: &NewContainer) -> String {
    let mut parts = Vec::new();
    if let Some(address) = new.address {
        parts.push(address.to_string());
        parts.push(
            new.service
                .home
                .mac
                .clone()
                .unwrap_or_else(|| mac_of(address)),
        );
    }
    let networks = new.service.networks.iter();
    parts.extend(networks.map(|attachment| format!("network {}", attachment.network)));
    parts.extend(
        new.service
            .network_mode
            .iter()
            .map(|mode| format!("network {mode}")),
    );
    parts.push(format!("image {}", new.service.image));
    parts.join(", ")
}

fn slice_detail(slice: &Slice) -> String {
    let Slice {
        name: _,
        env: _,
        deny,
        allow,
        limits,
    } = slice;
    let mut parts = vec![match deny.as_slice() {
        [] => "denies nothing".to_owned(),
        nets => format!("denies {}", unit_files::joined(nets, ", ")),
    }];
    if !allow.is_empty() {
        parts.push(format!("allows {}", unit_files::joined(allow, ", ")));
    }
    parts.extend(limits.words());
    parts.join(", ")
}

impl Diff {
    /// Adds a step and returns its number.
    fn push(&mut self, action: Action, cause: impl Into<String>, after: &[StepId]) -> StepId {
        let id = self.steps.len() + 1;
        let mut after = after.to_vec();
        after.sort_unstable();
        after.dedup();
        self.steps.push(Step {
            id,
            action,
            cause: cause.into(),
            after,
            after_end: Vec::new(),
        });
        id
    }

    fn warn(&mut self, what: impl Into<String>, hint: impl Into<String>) {
        self.warnings.push(Blocker::new(what, hint));
    }
}

/// `a`, `b` and `c`, each in backticks.
pub fn named<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> String {
    let quoted = names.into_iter().map(|n| format!("`{}`", n.as_ref()));
    let quoted: Vec<String> = quoted.collect();
    quoted.join(", ")
}

#[cfg(test)]
mod tests;
