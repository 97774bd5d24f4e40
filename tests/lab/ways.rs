//! Which way packets to containers go is asked of the kernel, not read off the main table.

use crate::pool::borrow;
use crate::tests;

tests! {
    every engine: ;
    one engine:
        another_way_to_containers_is_told_with_link_and_table
        the_shim_follows_the_mtu_of_its_parent
        how_the_host_stands_on_the_lan_is_compared
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
        (
            "ip route add prohibit 192.168.1.200/31",
            "`ip route get 192.168.1.200` show what",
            "ip route del prohibit 192.168.1.200/31",
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

fn how_the_host_stands_on_the_lan_is_compared(suite: &str) {
    let loan = borrow(suite);
    let (home, pi) = loan.parts();
    pi.homelab("network-up").exits(0);
    pi.homelab("env-up --env prod").exits(0);
    pi.homelab("env-up").exits(0);
    pi.homelab("status").exits(0);
    let address = "ip addr replace 192.168.1.204";
    pi.sh(&format!(
        "{address}/25 dev eth0; ip addr del 192.168.1.204/24 dev eth0"
    ));
    pi.homelab("status")
        .exits(3)
        .says("link `eth0` has 192.168.1.204/25, and the plan's subnet is 192.168.1.0/24")
        .says("correct `subnet` in `[network]`, or the address of this host");
    pi.sh(&format!(
        "{address}/24 dev eth0; ip addr del 192.168.1.204/25 dev eth0; ip route replace default via 192.168.1.1"
    ));
    pi.homelab("status").exits(0);
    // The laptop is the way out of this host, and the router that of containers.
    let laptop = home.laptop.run("ip -4 -o addr show dev eth0");
    let laptop = laptop.split_once("inet ").expect("it has an address").1;
    let (laptop, _) = laptop.split_once('/').expect("it has a prefix");
    pi.sh(&format!("ip route replace default via {laptop}"));
    pi.homelab("status")
        .exits(3)
        .says(&format!(
            "this host's way out is {laptop}, and the plan's gateway is 192.168.1.1"
        ))
        .says("correct `gateway` in `[network]`");
    pi.sh("ip route replace default via 192.168.1.1");
    pi.homelab("status").exits(0);
}
