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

/// The effective capabilities of this process (capabilities(7)), a bit each.
fn capabilities() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut lines = status.lines();
    let mask = lines.find_map(|line| line.strip_prefix("CapEff:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or_default()
}
