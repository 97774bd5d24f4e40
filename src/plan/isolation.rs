//! How environments are kept apart: a systemd slice for each, which denies its processes the other environments' addresses.
//! Pure.

use super::naming::slice_name;
use super::{Bypass, ComposeNetwork, Env, Host, Plan, Range, Service};
use crate::error::Diagnostic;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether environments are kept apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// The kernel drops what one environment sends to another.
    #[default]
    Enforced,
    /// Environments reach each other.
    Off,
}

/// What the containers of an environment may use together on a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes.
    pub memory: Option<u64>,
    /// Processors.
    pub cpus: Option<Cpus>,
}

impl Limits {
    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        let Self { memory, cpus } = self;
        memory.is_none() && cpus.is_none()
    }

    /// Those that there are, each in words.
    pub fn words(self) -> impl Iterator<Item = String> {
        let Self { memory, cpus } = self;
        let memory = memory.map(|bytes| format!("memory {} MiB", bytes >> 20));
        let cpus = cpus.map(|cpus| format!("cpus {cpus}"));
        memory.into_iter().chain(cpus)
    }
}

/// Processor time per time, in ten-thousandths of one processor, which is how exact systemd's `CPUQuota=` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpus(u32);

impl Cpus {
    /// Reads a number of processors from 0.01 to 10000, with at most four decimals.
    pub fn parse(text: &str) -> Option<Self> {
        let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
        let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !is_number(whole) || !is_number(decimals) || decimals.len() > 4 {
            return None;
        }
        let whole: u32 = whole.parse().ok().filter(|whole| *whole <= 10_000)?;
        let decimals: u32 = format!("{decimals:0<4}").parse().ok()?;
        let parts = whole * 10_000 + decimals;
        (parts >= 100).then_some(Self(parts))
    }

    /// As `CPUQuota=` of systemd.resource-control(5) takes it: `150%` is one and a half.
    pub fn quota(self) -> String {
        let (percent, rest) = (self.0 / 100, self.0 % 100);
        if rest == 0 {
            format!("{percent}%")
        } else {
            format!("{percent}.{rest:02}%")
        }
    }
}

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}.{:04}", self.0 / 10_000, self.0 % 10_000);
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

/// All of IPv6. No environment has a range of it on the LAN, where every container whose IPv6 is on gives itself addresses: link-local ones,
/// and others from a router's advertisements (RFC 4862).
const IPV6: IpNet = v6(Ipv6Addr::UNSPECIFIED, 0);

/// Containers reach themselves.
const LOOPBACK: IpNet = v6(Ipv6Addr::LOCALHOST, 128);

/// Whom a container asks for a hardware address (solicited-node multicast, RFC 4291, section 2.7.1). The kernel asks by a socket that
/// belongs to the container's cgroup. On the LAN nobody in another environment hears it: there the sender is denied.
const SOLICITED_NODES: IpNet = v6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0), 104);

/// What every link has for itself, and what goes to many: never a network's own.
const NOBODYS: [IpNet; 3] = [
    LOOPBACK,
    v6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10),
    v6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8),
];

const fn v6(address: Ipv6Addr, prefix: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(address, prefix))
}

/// A slice as the plan wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedSlice {
    /// The name of the unit.
    pub name: String,
    /// The environment that it is for.
    pub env: String,
    /// What its processes neither reach nor hear: the exact cover of the other environments' ranges, and all of IPv6. Not the next
    /// wider CIDR, which would have the shims in it: what a host sends to a container comes from there.
    pub deny: Vec<IpNet>,
    /// What they reach all the same (`IPAddressAllow=` wins over `IPAddressDeny=`): hosts and shims inside those ranges, the loopback,
    /// and the environment's own bridges that have a subnet of IPv6.
    pub allow: Vec<IpNet>,
    /// What its processes may use.
    pub limits: Limits,
}

/// How many of the addresses that a slice denies are tried.
const TRIED: usize = 256;

impl PlannedSlice {
    /// IPv4 addresses that its processes must not reach, at most 256, by which the filter of the kernel is tried.
    pub fn denied_addresses(&self) -> Vec<Ipv4Addr> {
        let nets = self.deny.iter().filter_map(|net| match net {
            IpNet::V4(net) => Some(*net),
            IpNet::V6(_) => None,
        });
        let all = nets.flat_map(|net| {
            let (first, last) = (u32::from(net.network()), u32::from(net.broadcast()));
            (first..=last).map(Ipv4Addr::from)
        });
        let is_allowed =
            |address: &Ipv4Addr| self.allow.contains(&IpNet::from(IpAddr::V4(*address)));
        let denied = all.filter(|address| !is_allowed(address));
        denied.take(TRIED).collect()
    }
}

impl Plan {
    /// What of the isolation these services can undo without their saying that this is meant.
    pub fn ways_out<'a>(&self, services: impl IntoIterator<Item = &'a Service>) -> Vec<Diagnostic> {
        let services = services.into_iter();
        let services = services.filter(|service| service.replica == 1);
        let services = services.filter(|_| self.isolation == Isolation::Enforced);
        services
            .flat_map(|service| {
                let found: Vec<Bypass> = service.unmeant_bypasses().collect();
                let words = found.iter().map(|bypass| bypass.words(service, &found));
                words.collect::<Vec<_>>()
            })
            .map(|(what, hint)| Diagnostic::warning(what, hint))
            .collect()
    }

    /// The same of all services that run on a host.
    pub fn ways_out_on(&self, host: &Host) -> Vec<Diagnostic> {
        let services = self.envs.iter().flat_map(|env| &env.services);
        self.ways_out(services.filter(|service| service.host == host.name))
    }

    /// The slices of all environments that need one.
    pub fn slices(&self) -> impl Iterator<Item = PlannedSlice> {
        self.envs.iter().filter_map(|env| self.slice(env))
    }

    /// The slice of an environment; it needs one for its isolation or its limits.
    pub fn slice(&self, env: &Env) -> Option<PlannedSlice> {
        let is_enforced = self.isolation == Isolation::Enforced;
        if !is_enforced && env.limits.is_empty() {
            return None;
        }
        let others = self.envs.iter().filter(|other| other.name != env.name);
        let denied: Vec<Range> = others
            .filter(|_| is_enforced)
            .map(|other| other.range)
            .collect();
        let machines = self.hosts.iter().flat_map(|host| {
            let shims = self.shims(host).map(|shim| shim.address);
            std::iter::once(host.address).chain(shims)
        });
        let is_denied = |address: &Ipv4Addr| denied.iter().any(|range| range.contains(*address));
        let machines = machines.filter(is_denied).map(Ipv4Net::from);
        let mut allow: Vec<IpNet> = machines.map(IpNet::V4).collect();
        let ranges = denied.iter().flat_map(|range| range.subnets());
        let mut deny: Vec<IpNet> = ranges.map(IpNet::V4).collect();
        if !denied.is_empty() {
            deny.push(IPV6);
            allow.push(LOOPBACK);
            allow.extend(own_ipv6(env));
        }
        allow.sort_unstable();
        allow.dedup();
        deny.sort_unstable();
        Some(PlannedSlice {
            name: slice_name(&env.name),
            env: env.name.clone(),
            deny,
            allow,
            limits: env.limits,
        })
    }
}

/// What an environment's containers reach over IPv6: each other, on bridges of its own, and what finds their hardware addresses there.
fn own_ipv6(env: &Env) -> Vec<IpNet> {
    let mut own: Vec<IpNet> = env.networks.iter().flat_map(ipv6_subnets).collect();
    if !own.is_empty() {
        own.push(SOLICITED_NODES);
    }
    own
}

/// The subnets of IPv6 that a Compose file says for a bridge of its environment's own.
pub(super) fn ipv6_subnets(network: &ComposeNetwork) -> impl Iterator<Item = IpNet> {
    let driver = network.driver.as_deref().unwrap_or("bridge");
    let is_own = driver == "bridge" && !network.is_external && network.ipv6 == Some(true);
    let pools = network.pools.iter().filter(move |_| is_own);
    let subnets = pools.filter_map(|pool| Some(pool.subnet.as_ref()?.value?.trunc()));
    subnets.filter(|net| {
        let mut nobodys = NOBODYS.iter();
        let is_nobodys = nobodys.any(|other| other.contains(net) || net.contains(other));
        matches!(net, IpNet::V6(_)) && !is_nobodys
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_decimal_numbers() {
        let quota = |text| Cpus::parse(text).map(Cpus::quota);
        assert_eq!(quota("1.5").as_deref(), Some("150%"));
        assert_eq!(quota("2").as_deref(), Some("200%"));
        assert_eq!(quota("1.2345").as_deref(), Some("123.45%"));
        assert_eq!(quota("0.01").as_deref(), Some("1%"));
        for wrong in ["0", "0.001", "-1", "1.23456", "1e3", "", ".5", "20000"] {
            assert_eq!(Cpus::parse(wrong), None, "{wrong}");
        }
        assert_eq!(
            Cpus::parse("1.50").map(|cpus| cpus.to_string()).as_deref(),
            Some("1.5")
        );
    }
}
