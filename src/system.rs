//! The systems of this machine: the only users of their crates. What they refuse becomes our own sentences here.

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
