//! What may be done to the Engine's networks. Pure.

use super::{StepText, Thing, Verb, WORKING};
use crate::plan::naming::network_name;
use crate::plan::{ComposeNetwork, ip_range};
use ipnet::Ipv4Net;
use std::net::Ipv4Addr;

/// An act of the Engine on a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkAction {
    /// Make an environment's part of the LAN.
    Create(NewNetwork),
    /// Make a network that a Compose file has.
    CreateCompose(Box<ComposeNetwork>),
    /// Remove a network.
    Remove {
        /// Its name.
        name: String,
        /// Its id, which no other network ever has.
        id: String,
    },
}

/// A macvlan network to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewNetwork {
    /// The environment that it is for.
    pub env: String,
    /// Its parent interface.
    pub parent: String,
    /// The prefix that its containers take for on-link.
    pub subnet: Ipv4Net,
    /// The default route of its containers.
    pub gateway: Ipv4Addr,
}

impl NetworkAction {
    pub(super) fn text(&self) -> StepText {
        StepText::new(self.verb(), self.thing())
    }

    fn verb(&self) -> Verb {
        match self {
            Self::Create(_) => ('+', "create", "creating", "created"),
            Self::CreateCompose(_) => ('+', "create", WORKING, "created"),
            Self::Remove { .. } => ('-', "remove", "removing", "removed"),
        }
    }

    fn thing(&self) -> Thing {
        match self {
            Self::Create(network) => (
                "network",
                network_name(&network.env),
                format!(
                    "macvlan on {}, subnet {}, ip_range {}, gateway {}",
                    network.parent,
                    network.subnet,
                    ip_range(network.gateway),
                    network.gateway
                ),
            ),
            Self::CreateCompose(network) => {
                let driver = network.driver.as_deref().unwrap_or("bridge");
                ("network", network.name.clone(), driver.to_owned())
            }
            Self::Remove { name, .. } => ("network", name.clone(), String::new()),
        }
    }
}
