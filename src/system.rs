//! The systems of this machine: the only users of their crates. What they refuse becomes our own sentences here.
//!
//! What changes the machine, complete; nobody calls it but `apply`, and a test holds this list against the code:
//!
//! - `Netlink::carry_out`
//! - `systemd::carry_out`
//! - `Engine::carry_out_network`
//! - `Engine::carry_out_volume`
//! - `Engine::carry_out_image`
//! - `Engine::carry_out_container`

#[cfg_attr(
    not(test),
    expect(dead_code, reason = "its callers still use `Netlink::arp_probe`")
)]
pub mod arp;
pub mod cgroups;
pub mod docker;
pub mod netlink;
pub mod systemd;

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
