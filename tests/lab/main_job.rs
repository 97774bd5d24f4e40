//! From nothing to both environments and back.

use crate::home::Server;
use crate::pool::borrow;
use crate::{lan, tests};
use std::collections::BTreeSet;

tests! {
    every engine:
        up_and_down_again;
    one engine:
        programs_read_json
        the_shim_is_what_the_four_commands_make
        one_answer_for_one_address
}

fn up_and_down_again(suite: &str) {
    let loan = borrow(suite);
    let (home, pi) = loan.parts();
    let before = pi.leftovers();

    pi.homelab("check").exits(0);
    pi.homelab("network-up --dry-run").exits(3);
    assert_eq!(pi.leftovers(), before, "a dry run changes nothing");
    pi.homelab("env-up --dry-run")
        .exits(1)
        .says("run `homelab network-up`");

    pi.homelab("network-up").exits(0);
    pi.homelab("env-up").exits(0);
    pi.homelab("env-up --env prod").exits(0);
    for (address, page) in [
        (200, "whoami of prod"),
        (201, "store of prod"),
        (230, "whoami of preprod"),
        (231, "store of preprod"),
    ] {
        assert_eq!(
            home.laptop.page(lan(address)).as_deref(),
            Some(page),
            "from the laptop"
        );
        assert_eq!(
            pi.host.page(lan(address)).as_deref(),
            Some(page),
            "from the host"
        );
    }
    for env in ["prod", "preprod"] {
        let inside = |line: &str| pi.sh(&format!("docker exec whoami-{env} {line}"));
        assert_eq!(inside("wget -q -O - http://192.168.1.1/"), "router\n");
        assert_eq!(
            inside("wget -q -O - http://store/"),
            format!("store of {env}\n"),
            "by name"
        );
        inside("ping -c 1 -W 2 192.168.1.50");
        inside("ping -c 1 -W 2 192.168.1.254");
        inside("ping -c 1 -W 2 192.168.1.204");
    }
    // The names of one environment are unknown in the other.
    assert!(
        pi.try_sh("docker exec whoami-prod nslookup store-preprod 127.0.0.11 >/dev/null")
            .is_err()
    );

    for line in [
        "network-up --dry-run",
        "env-up --dry-run",
        "env-up --env prod --dry-run",
    ] {
        let run = pi.homelab(line).exits(0);
        assert_eq!(run.stdout, "", "{line}");
    }
    let ids = pi.sh("docker network ls -q; docker ps -q");
    for line in ["network-up", "env-up", "env-up --env prod"] {
        pi.homelab(line).exits(0).says("nothing to do");
    }
    assert_eq!(
        pi.sh("docker network ls -q; docker ps -q"),
        ids,
        "a second run changes nothing"
    );
    check_hardware_addresses(pi);
    if suite != "bookworm" {
        let listed = pi.sh("docker compose -p homelab-prod ps --services");
        let services: BTreeSet<&str> = listed.lines().collect();
        assert_eq!(
            services,
            BTreeSet::from(["store", "whoami"]),
            "docker compose lists them"
        );
    }

    pi.homelab("network-down")
        .exits(1)
        .says("`whoami-preprod`")
        .says("`store-prod`")
        .says("homelab env-down --env prod");
    assert_eq!(
        pi.sh("docker network ls -q; docker ps -q"),
        ids,
        "a refusal changes nothing"
    );
    pi.homelab("env-down").exits(0);
    pi.homelab("env-down --env prod").exits(0);
    pi.homelab("network-down").exits(0);
    assert_eq!(pi.leftovers(), before, "nothing of ours is left");
    pi.homelab("network-down").exits(0).says("nothing to do");
    pi.homelab("env-down").exits(0).says("nothing to do");
}

/// They are the planned ones, and stay when containers and engine start again.
fn check_hardware_addresses(pi: &Server) {
    let planned = "02:42:c0:a8:01:c8\n";
    let read = || pi.sh("docker exec whoami-prod cat /sys/class/net/eth0/address");
    assert_eq!(read(), planned);
    pi.sh("docker restart -t 0 whoami-prod >/dev/null");
    assert_eq!(read(), planned);
}

fn the_shim_is_what_the_four_commands_make(suite: &str) {
    let loan = borrow(suite);
    let (_home, pi) = loan.parts();
    let show = || {
        let text = pi.sh("ip -d link show homelab-shim; ip -4 addr show homelab-shim; ip route show dev homelab-shim");
        // What they forgot: the hardware address, the mark, the preferred source. The index is the kernel's.
        let lines = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("alias "));
        let lines = lines.map(|line| {
            let line = line.replace(" src 192.168.1.254", "");
            let line = match line.split_once(": homelab-shim") {
                Some((_, rest)) => format!("homelab-shim{rest}"),
                None => line,
            };
            match line.trim_start().strip_prefix("link/ether ") {
                Some(rest) => rest
                    .split_once(' ')
                    .map_or(String::new(), |(_, rest)| rest.to_owned()),
                None => line,
            }
        });
        lines.collect::<Vec<_>>().join("\n")
    };
    pi.sh("ip link add homelab-shim link eth0 type macvlan mode bridge");
    pi.sh("ip addr add 192.168.1.254/32 dev homelab-shim");
    pi.sh("ip link set homelab-shim up");
    pi.sh("ip route add 192.168.1.192/26 dev homelab-shim");
    let by_hand = show();
    // The old unit's shim stops the command and stays as it is.
    pi.homelab("network-up")
        .exits(1)
        .says("link `homelab-shim` that homelab did not make");
    assert_eq!(show(), by_hand);
    pi.sh("ip link del homelab-shim");

    pi.homelab("network-up").exits(0);
    assert_eq!(show(), by_hand);
    assert!(by_hand.contains("macvlan mode bridge"), "{by_hand}");
    assert!(by_hand.contains("inet 192.168.1.254/32"), "{by_hand}");
    assert!(by_hand.contains("192.168.1.192/26"), "{by_hand}");
    let exact = pi.sh(
        "ip route show dev homelab-shim; cat /proc/sys/net/ipv4/conf/homelab-shim/arp_filter; \
                       cat /sys/class/net/homelab-shim/address /sys/class/net/homelab-shim/ifalias",
    );
    assert_eq!(
        exact,
        "192.168.1.192/26 scope link src 192.168.1.254 \n1\n02:42:c0:a8:01:fe\nhomelab: shim\n"
    );
}

/// ARP flux: with two links on one LAN a laptop would get two answers for each address of the host, and could remember
/// the one that goes away.
fn one_answer_for_one_address(suite: &str) {
    let loan = borrow(suite);
    let (home, pi) = loan.parts();
    pi.homelab("network-up").exits(0);
    let own = pi.sh("cat /sys/class/net/eth0/address").trim().to_owned();
    for address in ["192.168.1.204", "192.168.1.254"] {
        let text = home
            .laptop
            .run(&format!("busybox arping -I eth0 -c 3 -w 3 {address}"));
        let answers: BTreeSet<String> = text
            .split(['[', ']'])
            .filter(|word| word.split(':').count() == 6)
            .map(str::to_lowercase)
            .collect();
        assert_eq!(answers, BTreeSet::from([own.clone()]), "{address}: {text}");
    }
}

fn programs_read_json(suite: &str) {
    let loan = borrow(suite);
    let (_home, pi) = loan.parts();
    let events = |line: &str, status: i32| {
        let run = pi.homelab(&format!("{line} --json --quiet")).exits(status);
        if status != 1 {
            assert_eq!(run.stderr, "", "{line}");
        }
        pi.write("/run/events", &run.stdout);
        pi.sh("jq -r '[.event, .action, .kind, .name] | map(select(.)) | join(\" \")' /run/events")
    };
    let planned = events("network-up --dry-run", 3);
    assert!(
        planned.starts_with("step create link homelab-shim\n"),
        "{planned}"
    );
    let made = events("network-up", 0);
    assert!(
        made.contains("done create network homelab-prod\n"),
        "{made}"
    );
    assert!(made.ends_with("finished\n"), "{made}");
    assert_eq!(events("network-up", 0), "finished\n");
    assert!(events("env-up", 0).contains("done start container whoami-preprod\n"));
    assert_eq!(events("network-down", 1), "error\n");
    assert!(events("env-down", 0).contains("done remove container whoami-preprod\n"));
    assert!(events("check", 0).lines().count() > 10);
}
