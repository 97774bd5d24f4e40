//! What may be done to links, addresses and routes. Pure.

use super::{StepText, Thing, Verb, WORKING};
use crate::plan::Mac;
use crate::state::Route;
use ipnet::Ipv4Net;

/// An act of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkAction {
    /// Make a macvlan link in bridge mode, which is down at first.
    Add {
        /// Its name.
        name: String,
        /// The link that it stands on.
        parent: String,
        /// Its hardware address.
        mac: Mac,
    },
    /// Remove a link.
    Delete {
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
    /// Make a link take no part in IPv6.
    DisableIpv6 {
        /// The link.
        name: String,
    },
    /// Set how long the packets of a link may be.
    SetMtu {
        /// The link.
        name: String,
        /// Bytes.
        mtu: u32,
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
}

impl LinkAction {
    pub(super) fn text(&self) -> StepText {
        StepText::new(self.verb(), self.thing())
    }

    fn verb(&self) -> Verb {
        match self {
            Self::Add { .. } => ('+', "create", WORKING, "created"),
            Self::AddAddress { .. } | Self::AddRoute(_) => ('+', "add", WORKING, "added"),
            Self::SetAlias { .. }
            | Self::SetArpFilter { .. }
            | Self::DisableIpv6 { .. }
            | Self::SetMtu { .. }
            | Self::SetUp { .. } => ('~', "set", WORKING, "set"),
            Self::Delete { .. } | Self::DeleteRoute(_) => ('-', "remove", WORKING, "removed"),
        }
    }

    fn thing(&self) -> Thing {
        let link = |name: &String, detail: String| ("link", name.clone(), detail);
        match self {
            Self::Add { name, parent, mac } => {
                link(name, format!("macvlan on {parent}, mode bridge, {mac}"))
            }
            Self::Delete { name } => link(name, String::new()),
            Self::SetAlias { name, alias } => link(name, format!("alias `{alias}`")),
            Self::SetArpFilter { name } => link(name, "arp_filter 1".to_owned()),
            Self::DisableIpv6 { name } => link(name, "disable_ipv6 1".to_owned()),
            Self::SetMtu { name, mtu } => link(name, format!("mtu {mtu}")),
            Self::SetUp { name } => link(name, "up".to_owned()),
            Self::AddAddress { name, address } => {
                ("address", address.to_string(), format!("dev {name}"))
            }
            Self::AddRoute(route) | Self::DeleteRoute(route) => {
                let source = route.source.map(|source| format!(" src {source}"));
                let detail = format!("dev {}{}", route.link, source.unwrap_or_default());
                ("route", route.destination.to_string(), detail)
            }
        }
    }
}
