//! The LANs of a plan: that of `[network]`, and those that environments have for their own; and what a host has on each. Pure.

use super::naming::own_shim;
use super::{Env, Host, Plan};
use ipnet::Ipv4Net;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// A LAN that one environment has for its own, such as a VLAN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnLan {
    /// Its addresses.
    pub subnet: Ipv4Net,
    /// Its router.
    pub gateway: Ipv4Addr,
    /// The hosts that are on it, by name.
    pub seats: BTreeMap<String, Seat>,
    /// What a shim there has routes to.
    pub routes: Vec<Ipv4Net>,
}

/// What a host has on an environment's own LAN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seat {
    /// The address of its shim there.
    pub shim: Ipv4Addr,
    /// The interface that it is on that LAN with.
    pub parent: String,
}

/// A link by which a host reaches containers on a LAN.
#[derive(Clone, Debug)]
pub struct PlannedShim<'a> {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// The interface that it stands on; else the one that has the host's address.
    pub parent: Option<&'a str>,
    /// What it leads to.
    pub routes: &'a [Ipv4Net],
    /// The environment that has this LAN for its own; `None` for that of `[network]`.
    pub env: Option<&'a Env>,
}

impl Plan {
    /// The subnet that an environment's containers are in.
    pub fn subnet_of(&self, env: &Env) -> Ipv4Net {
        env.lan.as_ref().map_or(self.subnet, |own| own.subnet)
    }

    /// The router of an environment's containers.
    pub fn gateway_of(&self, env: &Env) -> Ipv4Addr {
        env.lan.as_ref().map_or(self.gateway, |own| own.gateway)
    }

    /// The shim on the LAN of `[network]`.
    pub fn main_shim<'a>(&'a self, host: &'a Host) -> PlannedShim<'a> {
        PlannedShim {
            name: self.shim_name.clone(),
            address: host.shim,
            parent: host.parent.as_deref(),
            routes: &self.routes,
            env: None,
        }
    }

    /// The shims that a host has on environments' own LANs.
    pub fn own_shims<'a>(&'a self, host: &'a Host) -> impl Iterator<Item = PlannedShim<'a>> {
        let envs = self.envs.iter().filter(|env| env.lan.is_some());
        envs.filter_map(|env| self.shim_of(env, host))
    }

    /// All shims of a host, that on the LAN of `[network]` first.
    pub fn shims<'a>(&'a self, host: &'a Host) -> impl Iterator<Item = PlannedShim<'a>> {
        std::iter::once(self.main_shim(host)).chain(self.own_shims(host))
    }

    /// The shim by which a host reaches an environment's containers; `None` where it is not on that environment's own LAN.
    pub fn shim_of<'a>(&'a self, env: &'a Env, host: &'a Host) -> Option<PlannedShim<'a>> {
        let Some(own) = &env.lan else {
            return Some(self.main_shim(host));
        };
        let seat = own.seats.get(&host.name)?;
        Some(PlannedShim {
            name: self.shim_name_of(env),
            address: seat.shim,
            parent: Some(&seat.parent),
            routes: &own.routes,
            env: Some(env),
        })
    }

    /// The environments whose LAN a host is on.
    pub fn envs_of<'a>(&'a self, host: &'a Host) -> impl Iterator<Item = &'a Env> {
        let envs = self.envs.iter();
        envs.filter(|env| self.shim_of(env, host).is_some())
    }

    /// The name of the shim on an environment's LAN, the same on every host.
    pub fn shim_name_of(&self, env: &Env) -> String {
        match env.lan {
            Some(_) => own_shim(&env.name),
            None => self.shim_name.clone(),
        }
    }

    /// The names of all shims, on whatever host.
    pub fn shim_names(&self) -> impl Iterator<Item = String> {
        let own = self.envs.iter().filter(|env| env.lan.is_some());
        let own = own.map(|env| self.shim_name_of(env));
        std::iter::once(self.shim_name.clone()).chain(own)
    }

    /// Whose address this is on an environment's own LAN when it can be no container's.
    pub(super) fn reserved_on_own_lan(&self, address: Ipv4Addr) -> Option<String> {
        self.envs.iter().find_map(|env| {
            let own = env.lan.as_ref()?;
            if own.gateway == address {
                return Some(format!("gateway-{}", env.name));
            }
            let mut seats = own.seats.iter();
            let (host, _) = seats.find(|(_, seat)| seat.shim == address)?;
            Some(format!("shim-{host}-{}", env.name))
        })
    }
}
