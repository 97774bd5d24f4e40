//! IPv6, which no plan speaks of: the shim takes no part in it, and it is no way around the isolation.

use crate::home::{Home, SOON, Server, wait_for};
use crate::isolation::import_perl;
use crate::shim::{UNIT, journal};
use crate::{PLAN, home_and_pi, tests};
use std::fmt::Write as _;

tests! {
    every engine:
        the_shim_takes_no_part_in_ipv6
        ipv6_is_no_way_around_the_isolation;
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

/// A service in both environments whose IPv6 is on, and that writes down what it hears by multicast.
fn listener(suite: &str) -> String {
    // Engine 28 turns it off for each interface, after the container's own settings.
    let on = if suite == "sid" {
        "networks: {home: {driver_opts: {com.docker.network.endpoint.sysctls: 'net.ipv6.conf.IFNAME.disable_ipv6=0'}}, back: }"
    } else {
        "sysctls: {net.ipv6.conf.all.disable_ipv6: 0}\n    networks: [home, back]"
    };
    let service = |name: &str| {
        format!(
            "  {name}:\n    image: lab/perl:1\n    stop_signal: SIGKILL\n    {on}\n    command: [sh, -c, 'echo {name} of $$ENV >/index.html; httpd -p 80 -h /; exec perl -e \"$$LISTEN\"']\n    environment:\n      ENV: $ENV\n      LISTEN: '{LISTEN}'\n"
        )
    };
    format!(
        "services:\n{}{}networks:\n  home: {{driver: macvlan}}\n  back: {{enable_ipv6: true, ipam: {{config: [{{subnet: '$SUBNET'}}]}}}}\n",
        service("one"),
        service("two")
    )
}

const LISTEN: &str = "use Socket qw(:DEFAULT IN6ADDR_ANY); $$| = 1; socket(S, AF_INET6, SOCK_DGRAM, 0); bind(S, pack_sockaddr_in6(5353, IN6ADDR_ANY)); while (defined recv(S, $$b, 99, 0)) { open(F, q(>>), q(/heard)); print F $$b; close F }";

/// Sends to all nodes on the LAN.
const SHOUT: &str = "use Socket qw(:DEFAULT inet_pton); open(F, '<', '/sys/class/net/eth0/ifindex'); socket(S, AF_INET6, SOCK_DGRAM, 0); \
                     send(S, 'shouted ', 0, pack_sockaddr_in6(5353, inet_pton(AF_INET6, 'ff02::1'), 0 + <F>))";

/// The ways over IPv6 from preproduction to production that let something through.
fn ways_through(pi: &Server, addresses: &[String], link: &str) -> Vec<String> {
    let shout = SHOUT.replace("eth0", link);
    let mut script = String::from("printf 'GET / HTTP/1.0\\r\\n\\r\\n' >/get\n");
    for address in addresses {
        let page = format!("busybox timeout 3 nc {address} 80 </get 2>/dev/null");
        let ping = format!("ping -6 -c 1 -W 2 {address} >/dev/null 2>&1");
        let _ = writeln!(
            script,
            "{page} | grep -q 'of prod' && echo page {address} &"
        );
        let _ = writeln!(script, "{ping} && echo ping {address} &");
    }
    let _ = writeln!(script, "perl -e \"{shout}\"\nwait");
    pi.sh("docker exec one-prod sh -c ': >/heard'");
    pi.write("/run/ways", &script);
    let answered =
        pi.sh("docker exec -i one-preprod sh </run/ways; docker exec one-prod cat /heard");
    answered.lines().map(str::to_owned).collect()
}

/// Both environments with two such services, whose bridges have IPv6 too.
fn listeners(suite: &str, pi: &Server) {
    import_perl(pi);
    let network = PLAN.split("[services.whoami]").next().unwrap_or_default();
    let plan = format!("compose = [\"compose.yml\"]\nenv_file = \"{{env}}.env\"\n{network}");
    pi.write("/etc/homelab/homelab.toml", &plan);
    pi.write("/etc/homelab/compose.yml", &listener(suite));
    pi.write("/etc/homelab/prod.env", "ENV=prod\nSUBNET=fd00:aa::/64\n");
    pi.write(
        "/etc/homelab/preprod.env",
        "ENV=preprod\nSUBNET=fd00:bb::/64\n",
    );
    for line in ["network-up", "env-up --env prod", "env-up"] {
        pi.homelab(line).exits(0);
    }
}

/// The IPv6 addresses of a container, each with its interface.
fn addresses_of(pi: &Server, container: &str) -> Vec<(String, String)> {
    let lines = pi.sh(&format!("docker exec {container} ip -6 -o addr"));
    let found = lines.lines().filter_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (link, address) = (words.next()?, words.nth(1)?);
        Some((address.split('/').next()?.to_owned(), link.to_owned()))
    });
    found.collect()
}

/// What lets something through, `verify` finds: by each address, and by multicast.
fn check_verify(pi: &Server, production: &[String]) {
    let found = pi.homelab("verify").exits(3);
    let found = found.says("from preprod to prod: partly, planned is blocked");
    found.says("one-preprod to one-prod (fe80:");
    let objects = pi.homelab("verify --json").exits(3).stdout;
    let is_leak =
        |line: &&str| line.contains(r#""from":"preprod""#) && line.contains(r#""to":"prod""#);
    let leak = objects.lines().find(is_leak).expect("a pair");
    let probes = leak.split('{');
    let answered: Vec<&str> = probes.filter(|probe| probe.contains(":true")).collect();
    let addresses = production.iter().map(|address| address.split('%').next());
    for address in addresses.flatten().chain(["ff02::1"]) {
        let address = format!(r#""address":"{address}""#);
        let is_found = answered.iter().any(|probe| probe.contains(&address));
        assert!(is_found, "{address} is not in {leak}");
    }
}

/// A container's addresses on the LAN, and which of its interfaces is there: Docker counts them as it likes.
fn on_the_lan(home: &Home, pi: &Server, container: &str) -> (Vec<String>, String) {
    let mut found = Vec::new();
    let mut link = String::new();
    wait_for("an address on the LAN", SOON, || {
        advertise(home, "fd00:1:1:1");
        found = addresses_of(pi, container);
        let mut found = found.iter();
        let learnt = found.find(|(address, _)| address.starts_with("fd00:1:1:1:"));
        link = learnt.map_or_else(String::new, |(_, link)| link.clone());
        learnt.is_some()
    });
    found.retain(|(_, of)| *of == link);
    let addresses: Vec<String> = found.into_iter().map(|(address, _)| address).collect();
    assert_eq!(addresses.len(), 2, "{addresses:?}");
    (addresses, link)
}

/// Where preproduction would reach production over IPv6, and by which of its interfaces.
fn production(home: &Home, pi: &Server) -> (Vec<String>, String) {
    let (production, _) = on_the_lan(home, pi, "one-prod");
    let (_, link) = on_the_lan(home, pi, "one-preprod");
    let scoped = |address: &String| {
        let scope = format!("%{link}");
        let is_local = address.starts_with("fe80:");
        address.clone() + if is_local { &scope } else { "" }
    };
    (production.iter().map(scoped).collect(), link)
}

fn ipv6_is_no_way_around_the_isolation(suite: &str) {
    let (home, pi) = home_and_pi(suite);
    listeners(suite, &pi);
    let (production, link) = production(&home, &pi);
    let started =
        || pi.sh("docker ps -q | xargs docker inspect -f '{{.Id}} {{.State.StartedAt}}' | sort");
    let before = started();

    // Slices as an older version wrote them.
    pi.sh("sed -i 's| ::/0||; s|::1/128.*||' /etc/systemd/system/homelab-*.slice; systemctl daemon-reload; \
           for env in prod preprod; do systemd-run -q --collect --scope --slice=homelab-$env.slice true; done");
    let mut through = Vec::new();
    wait_for("IPv6 to be a way around", SOON, || {
        through = ways_through(&pi, &production, &link);
        let all = through.join(" ");
        all.contains("page fe80:") && all.contains("page fd00:1:1:1:") && all.contains("shouted")
    });
    pi.homelab("status")
        .exits(3)
        .says("slice homelab-preprod.slice: its file changed");
    check_verify(&pi, &production);
    pi.homelab("network-up")
        .exits(0)
        .says("changed slice homelab-prod.slice");
    pi.homelab("network-up").exits(0).says("nothing to do");
    pi.homelab("status").exits(0);
    assert_eq!(started(), before, "no container was restarted");
    assert_eq!(
        ways_through(&pi, &production, &link),
        Vec::<String>::new(),
        "before: {through:?}"
    );
    // The loopback stays, and so does the environment's own bridge.
    for address in ["::1", "two"] {
        let page = pi.sh(&format!(
            "docker exec one-preprod sh -c 'busybox timeout 3 nc {address} 80 </get'"
        ));
        assert!(page.contains("of preprod"), "{address}: {page}");
    }
    let own = addresses_of(&pi, "two-preprod");
    let mut own = own.iter().map(|(address, _)| address);
    let own = own.find(|address| address.starts_with("fd00:bb:"));
    let own = own.expect("an address of the bridge");
    wait_for("its own environment over IPv6", SOON, || {
        let asked = format!("docker exec one-preprod sh -c 'busybox timeout 3 nc {own} 80 </get'");
        pi.try_sh(&asked)
            .is_ok_and(|page| page.contains("two of preprod"))
    });
    pi.homelab("verify").exits(0).says("over IPv6 too");
}
