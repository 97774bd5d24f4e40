//! A second LAN behind the same router, as a VLAN is: 192.168.20.0/24.

use super::{Home, Host};

/// The server's interface there. The name is a VLAN's; the kernel may have no VLANs, so it is a wire of its own.
pub const INTERFACE: &str = "eth0.20";

impl Home {
    /// Makes it, with the router as 192.168.20.1, which forwards between the two, and a camera as 192.168.20.50.
    pub fn second_lan(&self) -> Host {
        let router = &self.router;
        router.run("ip link add br20 address 02:00:00:00:00:20 type bridge");
        router.run("ip link set br20 up");
        router.run("ip addr add 192.168.20.1/24 dev br20");
        router.run("busybox sysctl -q -w net.ipv4.ip_forward=1");
        let camera = Host::new();
        self.plug_into_second_lan(&camera, "camera", "eth0");
        camera.run("ip addr add 192.168.20.50/24 dev eth0");
        camera.run("ip route add default via 192.168.20.1");
        camera
    }

    /// Plugs a machine into it.
    pub fn plug_into_second_lan(&self, host: &Host, port: &str, interface: &str) {
        let pid = host.holder.pid();
        self.router.run(&format!(
            "ip link add {port} type veth peer name {interface} netns {pid}"
        ));
        self.router
            .run(&format!("ip link set {port} master br20 up"));
        host.run(&format!("ip link set {interface} up"));
    }
}
