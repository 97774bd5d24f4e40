//! The systems of this machine: the only users of their crates. What they refuse becomes our own sentences here.
//!
//! What changes the machine, complete; nobody calls it but `apply`, the last one but the shim's service, and a test holds this
//! list against the code:
//!
//! - `Netlink::carry_out`
//! - `systemd::carry_out`
//! - `Engine::carry_out_network`
//! - `Engine::carry_out_volume`
//! - `Engine::carry_out_image`
//! - `Engine::carry_out_container`
//! - `PlanCopy::keep`

pub mod arp;
pub mod cgroups;
pub mod docker;
mod files;
pub mod filter;
pub mod netlink;
pub mod plan_copy;
pub mod systemd;
pub mod turn;

use docker::Engine;
use netlink::Netlink;

/// The ways to the systems of this machine.
#[derive(Clone)]
pub struct Machine {
    /// To the kernel.
    pub netlink: Netlink,
    /// To the Engine, when it can be used.
    pub engine: Option<Engine>,
}

/// The capability to open raw and packet sockets (capabilities(7)).
const NET_RAW: u64 = 1 << 13;

/// The effective capabilities of this process, a bit each.
fn capabilities() -> u64 {
    capability_set("self", "CapEff:").unwrap_or_default()
}

/// Whether a process has `NET_RAW` or can come to have it: by a program of root's, or one with capabilities of its own. `None` for one
/// that is gone.
pub fn can_have_net_raw(process: u32) -> Option<bool> {
    let bounds = capability_set(&process.to_string(), "CapBnd:")?;
    Some(bounds & NET_RAW != 0)
}

/// A set of capabilities of a process, by its line of `proc_pid_status(5)`.
fn capability_set(process: &str, set: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let mask = status.lines().find_map(|line| line.strip_prefix(set))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}
