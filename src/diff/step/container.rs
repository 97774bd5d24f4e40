//! What may be done to containers. Pure.

use super::{StepText, Thing, Verb, WORKING};
use crate::plan::{Attachment, CompleteService, DependencyCondition, GivenFile};
use crate::state::Mount;
use std::net::Ipv4Addr;

/// An act of the Engine on a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerAction {
    /// Make a container, which does not run yet.
    Create(Box<NewContainer>),
    /// Put a container on a further network.
    JoinNetwork {
        /// The container.
        name: String,
        /// Its service.
        service: Box<CompleteService>,
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
    Replace {
        /// The name that it is to have.
        name: String,
        /// The name of the old one.
        old: String,
    },
    /// Wait until a container is as others want it.
    WaitFor {
        /// The container.
        name: String,
        /// What it is to be.
        condition: DependencyCondition,
        /// Whether it fails the run when it never is.
        is_required: bool,
    },
    /// Stop a container and start it again.
    Restart {
        /// Its name.
        name: String,
    },
    /// Let a paused container go on.
    Unpause {
        /// Its name.
        name: String,
    },
    /// Start a container.
    Start {
        /// Its name.
        name: String,
    },
    /// Stop a container.
    Stop {
        /// Its name.
        name: String,
    },
    /// Remove a stopped container.
    Remove {
        /// Its name.
        name: String,
    },
}

/// A container to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewContainer {
    /// Its name, until it takes the place of another one.
    pub name: String,
    /// What it runs.
    pub service: CompleteService,
    /// Its address on the LAN.
    pub address: Option<Ipv4Addr>,
    /// Anonymous volumes of the container that it replaces.
    pub carried: Vec<Mount>,
}

impl ContainerAction {
    /// The container that it starts.
    pub fn started(&self) -> Option<&str> {
        match self {
            Self::Start { name } | Self::Restart { name } | Self::Replace { name, .. } => {
                Some(name)
            }
            _ => None,
        }
    }

    /// Whether it takes a container down.
    pub fn takes_down(&self) -> bool {
        matches!(self, Self::Stop { .. } | Self::Remove { .. })
    }

    /// Whether it only waits.
    pub fn is_wait(&self) -> bool {
        matches!(self, Self::WaitFor { .. })
    }

    /// Whether it is only part of what happens to a container until it runs.
    pub fn is_preparation(&self) -> bool {
        matches!(
            self,
            Self::Create(_)
                | Self::JoinNetwork { .. }
                | Self::PutFiles { .. }
                | Self::WaitFor {
                    condition: DependencyCondition::Healthy,
                    ..
                }
        )
    }

    pub(super) fn announcement(&self) -> Option<&'static str> {
        match self {
            Self::WaitFor { .. } => Some("waiting for"),
            Self::Stop { .. } | Self::Replace { .. } | Self::Restart { .. } => Some(self.verb().2),
            _ => None,
        }
    }

    pub(super) fn done_sentence(&self) -> String {
        let text = self.text();
        match self {
            Self::WaitFor {
                condition: DependencyCondition::Completed,
                ..
            } => format!("{} {} has done its work", text.kind, text.name),
            Self::WaitFor { .. } => format!("{} {} is {}", text.kind, text.name, text.done),
            _ => text.done_sentence(),
        }
    }

    pub(super) fn text(&self) -> StepText {
        StepText::new(self.verb(), self.thing())
    }

    fn verb(&self) -> Verb {
        match self {
            Self::Create(_) => ('+', "create", "creating", "created"),
            Self::JoinNetwork { .. } => ('+', "attach", WORKING, "attached"),
            Self::PutFiles { .. } => ('+', "fill", WORKING, "filled"),
            Self::Replace { .. } => ('~', "replace", "replacing", "replaced"),
            Self::WaitFor {
                condition: DependencyCondition::Completed,
                ..
            } => (
                '~',
                "await",
                "waiting until it has done its work",
                "completed",
            ),
            Self::WaitFor { .. } => ('~', "await", "waiting until it is healthy", "healthy"),
            Self::Restart { .. } => ('~', "restart", "restarting", "restarted"),
            Self::Unpause { .. } => ('~', "unpause", WORKING, "unpaused"),
            Self::Start { .. } => ('~', "start", "starting", "started"),
            Self::Stop { .. } => ('~', "stop", "stopping", "stopped"),
            Self::Remove { .. } => ('-', "remove", "removing", "removed"),
        }
    }

    fn thing(&self) -> Thing {
        let (name, detail) = match self {
            Self::Create(new) => (&new.name, new.detail()),
            Self::JoinNetwork {
                name, attachment, ..
            } => (name, format!("network {}", attachment.network)),
            Self::PutFiles { name, files } => {
                let targets: Vec<&str> = files.iter().map(|file| file.target.as_str()).collect();
                (name, targets.join(", "))
            }
            Self::WaitFor {
                name, condition, ..
            } => {
                let wanted = match condition {
                    DependencyCondition::Started => "started",
                    DependencyCondition::Healthy => "healthy",
                    DependencyCondition::Completed => "completed",
                };
                (name, wanted.to_owned())
            }
            Self::Replace { name, .. }
            | Self::Restart { name }
            | Self::Unpause { name }
            | Self::Start { name }
            | Self::Stop { name }
            | Self::Remove { name } => (name, String::new()),
        };
        ("container", name.clone(), detail)
    }
}

impl NewContainer {
    /// Its addresses, its networks beside the LAN, and its image.
    fn detail(&self) -> String {
        let service = &self.service;
        let mut parts = Vec::new();
        if let Some(address) = self.address {
            parts.extend([address.to_string(), service.lan_mac(address).to_string()]);
        }
        let networks = service.networks.iter();
        parts.extend(networks.map(|attachment| format!("network {}", attachment.network)));
        let mode = service.network_mode.iter();
        parts.extend(mode.map(|mode| format!("network {mode}")));
        parts.push(format!("image {}", service.image));
        parts.join(", ")
    }
}
