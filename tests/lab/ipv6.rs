//! IPv6, which no plan speaks of: the shim takes no part in it.

use crate::home::{Home, SOON, Server, wait_for};
use crate::shim::{UNIT, journal};
use crate::{home_and_pi, tests};

tests! {
    every engine:
        the_shim_takes_no_part_in_ipv6;
    one engine:
}

/// A router advertisement to all nodes (RFC 4861, section 4.2): a default route for half an hour, and a prefix from which whoever
/// hears it gives itself an address.
const ADVERTISE: &str = r#"
use Socket qw(:DEFAULT inet_pton);
my ($index, $prefix) = @ARGV;
socket(my $socket, AF_INET6, SOCK_RAW, 58) or die $!;
setsockopt($socket, 41, 18, pack('i', 255)) or die $!;
setsockopt($socket, 41, 17, pack('i', $index)) or die $!;
my $advertisement = pack('CCnCCnNN', 134, 0, 0, 64, 0, 1800, 0, 0)
  . pack('CCCCNNN', 3, 4, 64, 0xc0, 86400, 14400, 0) . inet_pton(AF_INET6, "${prefix}::");
my $all = pack_sockaddr_in6(0, inet_pton(AF_INET6, 'ff02::1'), $index);
defined send($socket, $advertisement, 0, $all) or die $!;
"#;

/// Has the router advertise itself and a prefix.
fn advertise(home: &Home, prefix: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let script = folder.path().join("advertise");
    std::fs::write(&script, ADVERTISE).expect("a script");
    let bridge = home.router.run("ip -o link show br0");
    let (index, _) = bridge.split_once(':').expect("the number of the link");
    home.router
        .run(&format!("perl {} {index} {prefix}", script.display()));
}

/// The same until the host's own interface has learnt it.
fn advertise_to(home: &Home, pi: &Server, prefix: &str) {
    wait_for("an address from the router's advertisement", SOON, || {
        advertise(home, prefix);
        let found = ipv6_of(pi, "eth0");
        found.contains(&format!("{prefix}:")) && found.contains("default via")
    });
}

/// The IPv6 addresses of a link, and the routes over it.
fn ipv6_of(pi: &Server, link: &str) -> String {
    pi.sh(&format!(
        "ip -6 -o addr show dev {link}; ip -6 route show dev {link}"
    ))
}

const SWITCH: &str = "/proc/sys/net/ipv6/conf/homelab-shim/disable_ipv6";

fn the_shim_takes_no_part_in_ipv6(suite: &str) {
    let (home, pi) = home_and_pi(suite);
    pi.homelab("network-up").exits(0);
    advertise_to(&home, &pi, "fd00:1:1:1");
    assert_eq!(ipv6_of(&pi, "homelab-shim"), "", "a new shim");
    // One that an older version made has an address and a second default route.
    pi.sh(&format!("echo 0 >{SWITCH}"));
    wait_for("the shim to learn what it is not to know", SOON, || {
        advertise_to(&home, &pi, "fd00:2:2:2");
        let learnt = ipv6_of(&pi, "homelab-shim");
        learnt.contains("fd00:2:2:2:") && learnt.contains("default via")
    });
    pi.homelab("status")
        .exits(3)
        .says("link homelab-shim: its disable_ipv6 is 0, planned is 1")
        .says("`homelab network-up`");
    let index = || pi.sh("cat /sys/class/net/homelab-shim/ifindex");
    let (before, own) = (index(), ipv6_of(&pi, "eth0"));
    pi.homelab("network-up")
        .exits(0)
        .says("set link homelab-shim: disable_ipv6 1");
    pi.homelab("network-up").exits(0).says("nothing to do");
    let status = pi.homelab("status").stderr;
    assert!(!status.contains("homelab-shim: its"), "{status}");
    assert_eq!(index(), before, "it is not made anew");
    assert_eq!(ipv6_of(&pi, "homelab-shim"), "", "what it learnt is gone");
    let addresses = |text: &str| text.matches(" scope ").count();
    assert_eq!(addresses(&ipv6_of(&pi, "eth0")), addresses(&own));
    check_service(&home, &pi);
}

/// The service may turn it off too, at its start and when it makes the shim again.
fn check_service(home: &Home, pi: &Server) {
    pi.homelab("shim install").exits(0);
    advertise_to(home, pi, "fd00:3:3:3");
    assert_eq!(ipv6_of(pi, "homelab-shim"), "", "the service's shim");
    pi.sh("ip link del homelab-shim");
    wait_for("the shim", SOON, || {
        pi.try_sh("ip route | grep -q 192.168.1.192/26").is_ok()
    });
    advertise_to(home, pi, "fd00:4:4:4");
    assert_eq!(ipv6_of(pi, "homelab-shim"), "", "the shim that came back");

    // With the unit of an older version it may not, and keeps everything else.
    let turned_off = journal(pi).matches("disable_ipv6 1").count();
    assert!(turned_off > 0);
    pi.sh(&format!(
        "sed -i '/^ReadWritePaths/d; s/^ProtectProc=.*/&\\nProcSubset=pid/' /etc/systemd/system/{UNIT}; systemctl daemon-reload; systemctl restart {UNIT}"
    ));
    pi.sh("ip addr del 192.168.1.254/32 dev homelab-shim");
    wait_for("the address", SOON, || {
        pi.sh("ip -4 addr show dev homelab-shim")
            .contains("192.168.1.254/32")
            && pi.sh("ip route").contains("192.168.1.192/26")
    });
    assert_eq!(pi.sh(&format!("cat {SWITCH}")), "0\n");
    let log = journal(pi);
    assert_eq!(log.matches("disable_ipv6 1").count(), turned_off, "{log}");
    assert!(!log.contains("cannot"), "{log}");
    assert_eq!(pi.sh(&format!("systemctl show -P NRestarts {UNIT}")), "0\n");
    pi.homelab("network-up")
        .exits(0)
        .says("changed file /etc/systemd/system/homelab-shim.service");
    pi.homelab("network-up").exits(0).says("nothing to do");
    assert_eq!(pi.sh(&format!("cat {SWITCH}")), "1\n");
}
