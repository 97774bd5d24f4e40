//! Which way packets to containers go is asked of the kernel, not read off the main table.

use crate::pool::borrow;
use crate::tests;

tests! {
    every engine: ;
    one engine:
        another_way_to_containers_is_told_with_link_and_table
        the_shim_follows_the_mtu_of_its_parent
}

fn another_way_to_containers_is_told_with_link_and_table(suite: &str) {
    let loan = borrow(suite);
    let (_home, pi) = loan.parts();
    pi.homelab("network-up").exits(0);
    pi.homelab("env-up --env prod").exits(0);
    pi.homelab("env-up").exits(0);
    pi.homelab("status").exits(0);
    let ways = [
        (
            "ip route add 192.168.1.200/32 dev eth0",
            "packets to 192.168.1.200 leave by `eth0` and not by `homelab-shim`: table 254 says so",
            "ip route del 192.168.1.200/32 dev eth0",
        ),
        (
            "ip route add 192.168.1.200/32 dev eth0 table 100; ip rule add to 192.168.1.200 table 100",
            "packets to 192.168.1.200 leave by `eth0` and not by `homelab-shim`: table 100 says so",
            "ip rule del to 192.168.1.200 table 100; ip route flush table 100",
        ),
        (
            "ip route add prohibit 192.168.1.231/32",
            "this host may not send packets to 192.168.1.231",
            "ip route del prohibit 192.168.1.231/32",
        ),
    ];
    for (make, said, unmake) in ways {
        pi.sh(make);
        for line in ["status", "verify"] {
            pi.homelab(line).exits(3).says(said);
        }
        pi.sh(unmake);
        pi.homelab("status").exits(0);
    }
    pi.homelab("verify").exits(0);
}

fn the_shim_follows_the_mtu_of_its_parent(suite: &str) {
    let loan = borrow(suite);
    let (_home, pi) = loan.parts();
    pi.homelab("network-up").exits(0);
    // The kernel takes it down with its parent, and does not take it up again.
    pi.sh("ip link set eth0 mtu 1400; ip link set eth0 mtu 1500");
    pi.homelab("network-up --dry-run").exits(3);
    pi.homelab("network-up")
        .exits(0)
        .says("set link homelab-shim");
    assert_eq!(pi.sh("cat /sys/class/net/homelab-shim/mtu"), "1500\n");
    pi.homelab("network-up").exits(0).says("nothing to do");
}
