//! Network managers beside the shim.

use crate::home::{BOOT, SOON, wait_for};
use crate::shim::journal;
use crate::{home_and_pi, tests};
use std::time::Duration;

tests! {
    every engine:
        network_managers_leave_the_shim_alone;
    one engine:
}

/// For links that udev says nothing about, as there is none in the virtual home.
const DHCPCD: &str = "nodev\n\ninterface eth0\nstatic ip_address=192.168.1.204/24\n";

fn network_managers_leave_the_shim_alone(suite: &str) {
    let (_home, pi) = home_and_pi(suite);
    // One that manages every link, and forgets what it did not make when it starts again.
    pi.write(
        "/etc/systemd/network/50-all.network",
        "[Match]\nName=*\n\n[Network]\nAddress=192.168.1.204/24\nGateway=192.168.1.1\nLinkLocalAddressing=no\n",
    );
    pi.write("/etc/dhcpcd.conf", DHCPCD);
    pi.sh("systemctl start systemd-networkd");
    pi.homelab("shim install")
        .exits(0)
        .says("/etc/systemd/network/00-homelab-shim.network")
        .says("changed file /etc/dhcpcd.conf");
    let whole = || {
        pi.sh("ip -o -4 addr show dev homelab-shim | awk '{print $4}'; ip route show dev homelab-shim")
    };
    let shim = whole();
    assert!(shim.contains("192.168.1.254/32"), "{shim}");
    pi.sh("systemctl restart systemd-networkd");
    wait_for("networkd to look at its links", SOON, || {
        // It goes on with a link that it manages.
        let links = pi.sh("networkctl list docker0 homelab-shim --no-pager --no-legend");
        links.contains("unmanaged") && links.contains("configur")
    });
    assert!(
        pi.sh("networkctl list homelab-shim --no-pager")
            .contains("unmanaged"),
        "{}",
        pi.sh("networkctl --no-pager")
    );
    assert_eq!(whole(), shim);
    let log = journal(&pi);
    assert_eq!(
        log.matches("added route").count(),
        1,
        "nothing had to be put back\n{log}"
    );
    pi.sh("systemctl stop systemd-networkd");

    assert!(pi.sh("cat /etc/dhcpcd.conf").starts_with(
        "# homelab: begin\ndenyinterfaces homelab-shim hl-prod hl-preprod\n# homelab: end\nnodev\n"
    ));
    // Left to itself it gives every link an address of its own after a while: these two ends of a cable as well.
    pi.sh("ip link add witness type veth peer name other; ip link set witness up; ip link set other up");
    pi.sh("dhcpcd -b 2>/dev/null");
    for link in ["witness", "other"] {
        wait_for("dhcpcd to give a link an address", BOOT, || {
            pi.sh(&format!("ip -4 addr show dev {link}"))
                .contains("169.254.")
        });
    }
    pi.sh("ip link del witness");
    assert_eq!(whole(), shim);
    assert_eq!(
        journal(&pi).matches("added route").count(),
        1,
        "nothing had to be put back"
    );
    pi.homelab("shim uninstall").exits(0);
    assert_eq!(pi.sh("cat /etc/dhcpcd.conf"), DHCPCD);
    pi.sh("dhcpcd -x || true; rm /etc/systemd/network/50-all.network");
    assert!(!pi.leftovers().contains("homelab"), "{}", pi.leftovers());
}

/// Sid has no network-manager at times, so these are two tests.
mod of_bookworm {
    crate::tests!("bookworm", networkmanager_leaves_the_shim_alone);
}

mod of_trixie {
    crate::tests!("trixie", networkmanager_leaves_the_shim_alone);
}

fn networkmanager_leaves_the_shim_alone(suite: &str) {
    let (_home, pi) = home_and_pi(suite);
    pi.sh("systemctl start NetworkManager");
    pi.homelab("shim install")
        .exits(0)
        .says("reloaded unit NetworkManager.service");
    let managed = |link: &str| {
        pi.try_sh(&format!(
            "nm=org.freedesktop.NetworkManager; \
             device=$(busctl call $nm /org/freedesktop/NetworkManager $nm GetDeviceByIpIface s {link} | cut -d'\"' -f2); \
             busctl get-property $nm $device $nm.Device Managed"
        ))
        .unwrap_or_default()
    };
    wait_for("NetworkManager", Duration::from_secs(10), || {
        managed("docker0") == "b true\n"
    });
    assert_eq!(managed("homelab-shim"), "b false\n");
    pi.sh("systemctl restart NetworkManager");
    wait_for("NetworkManager", Duration::from_secs(10), || {
        managed("docker0") == "b true\n"
    });
    assert_eq!(managed("homelab-shim"), "b false\n");
    assert_eq!(
        journal(&pi).matches("added route").count(),
        1,
        "nothing had to be put back"
    );
    pi.homelab("shim uninstall").exits(0);
    pi.sh("test ! -e /etc/NetworkManager/conf.d/90-homelab-shim.conf");
}
