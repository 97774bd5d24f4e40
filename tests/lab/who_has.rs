//! Nobody's address is taken: the LAN is asked before, a machine that has one stops just what needs it, and a second after it lets
//! go the same command works.

use crate::home::{Home, Server};
use crate::pool::borrow;
use crate::{PLAN, lan, tests};
use std::time::{Duration, Instant};

tests! {
    every engine:
        who_holds_an_address_stops_just_what_needs_it;
    one engine:
        two_that_answer_for_one_address_are_found
        a_container_that_starts_meanwhile_is_no_stranger
        neighbours_learn_of_a_moved_shim_at_once
}

/// What a command may take although it asks the LAN, in a busy lab.
const SOON: Duration = Duration::from_secs(5);

fn mac_of_laptop(home: &Home) -> String {
    let link = home.laptop.run("ip -o link show eth0");
    let (_, rest) = link.split_once("link/ether ").expect("it is Ethernet");
    rest.split(' ').next().unwrap_or_default().to_owned()
}

fn in_time(pi: &Server, line: &str) {
    let begun = Instant::now();
    pi.homelab(line).exits(0);
    assert!(begun.elapsed() < SOON, "{line}: {:?}", begun.elapsed());
}

fn who_holds_an_address_stops_just_what_needs_it(suite: &str) {
    // A service without an address beside those of the plan.
    let plan = format!(
        "{PLAN}\n[services.free]\nimage = \"lab/web:1\"\ncommand = [\"httpd\", \"-f\"]\nstop_signal = \"SIGKILL\"\n"
    );
    let loan = borrow(suite);
    let (home, pi) = loan.parts();
    pi.write("/etc/homelab/homelab.toml", &plan);
    let mac = mac_of_laptop(home);
    let hold = |last: u8| {
        home.laptop
            .run(&format!("ip addr add 192.168.1.{last}/32 dev eth0"))
    };
    let release = |last: u8| {
        home.laptop
            .run(&format!("ip addr del 192.168.1.{last}/32 dev eth0"))
    };

    hold(254);
    pi.homelab("network-up")
        .exits(1)
        .says("192.168.1.254, the address of this host's shim")
        .says(&mac);
    assert!(pi.try_sh("ip link show homelab-shim").is_err());
    release(254);
    in_time(pi, "network-up");

    // A planned one: the service and who depends on it are left out, the others come up.
    hold(230);
    hold(224);
    pi.homelab("env-up")
        .exits(1)
        .says("started container free-preprod")
        .says(&format!("192.168.1.230 is taken: {mac}"))
        .says("service `store` depends on `whoami`, which cannot be started");
    let running = pi.sh("docker ps --format '{{.Names}}'");
    assert_eq!(running, "free-preprod\n");
    // The one that the plan leaves open is not the laptop's.
    assert!(pi.homelab("ps").exits(0).stdout.contains("192.168.1.225"));
    release(230);
    in_time(pi, "env-up");
    assert_eq!(
        home.laptop.page(lan(230)).as_deref(),
        Some("whoami of preprod")
    );

    // What runs is asked about no more, and a stopped one is before it starts again.
    pi.homelab("env-up").exits(0).says("nothing to do");
    pi.sh("docker stop whoami-preprod");
    hold(230);
    pi.homelab("env-up")
        .exits(1)
        .says(&format!("192.168.1.230 is taken: {mac}"));
    release(230);
    in_time(pi, "env-up");
    assert_eq!(
        home.laptop.page(lan(230)).as_deref(),
        Some("whoami of preprod")
    );
    // Nothing of all that is left in the table of neighbours but who was talked to.
    let neighbours = pi.sh("ip neigh | wc -l");
    assert!(
        neighbours
            .trim()
            .parse::<u32>()
            .is_ok_and(|count| count < 12),
        "{neighbours}"
    );
    release(224);
}

fn two_that_answer_for_one_address_are_found(suite: &str) {
    let loan = borrow(suite);
    let (home, pi) = loan.parts();
    pi.homelab("network-up").exits(0);
    pi.homelab("env-up").exits(0);
    pi.homelab("env-up --env prod").exits(0);
    pi.homelab("status").exits(0);
    let mac = mac_of_laptop(home);
    let both_find = |what: &str, mac: &str| {
        for line in ["status", "verify"] {
            pi.homelab(line).exits(3).says(what).says(mac);
        }
    };
    home.laptop.run("ip addr add 192.168.1.200/32 dev eth0");
    both_find(
        "another machine has 192.168.1.200, the address of container whoami-prod",
        &mac,
    );
    home.laptop.run("ip addr del 192.168.1.200/32 dev eth0");
    // The same service on another machine has the same hardware address.
    home.laptop
        .run("ip link add twin link eth0 address 02:42:c0:a8:01:c8 type macvlan mode bridge");
    home.laptop.run("ip addr add 192.168.1.200/32 dev twin");
    home.laptop.run("ip link set twin up");
    both_find(
        "another machine has 192.168.1.200",
        "02:42:c0:a8:01:c8 (a container or a shim)",
    );
    home.laptop.run("ip link del twin");
    home.laptop.run("ip addr add 192.168.1.254/32 dev eth0");
    both_find(
        "another machine has 192.168.1.254, the address of link homelab-shim",
        &mac,
    );
    home.laptop.run("ip addr del 192.168.1.254/32 dev eth0");
    pi.homelab("status").exits(0);
    pi.homelab("verify").exits(0);
}

fn neighbours_learn_of_a_moved_shim_at_once(suite: &str) {
    let loan = borrow(suite);
    let (home, pi) = loan.parts();
    pi.homelab("network-up").exits(0);
    pi.homelab("env-up").exits(0);
    home.laptop.run("ip addr add 192.168.1.252/32 dev eth0");
    let ping = "docker exec whoami-preprod ping -c 1 -W 1 192.168.1.252";
    pi.sh(ping);
    home.laptop.run("ip addr del 192.168.1.252/32 dev eth0");
    let plan = PLAN
        .replace("192.168.1.250-192.168.1.253", "192.168.1.250-192.168.1.251")
        .replace("192.168.1.254", "192.168.1.252");
    pi.write("/etc/homelab/homelab.toml", &plan);
    pi.homelab("network-up").exits(0);
    // The container knew the laptop there, and does not have to find out.
    pi.sh(ping);
    assert_eq!(pi.host.page(lan(230)).as_deref(), Some("whoami of preprod"));
}

/// As after a kill, when the Engine is still at what the dead run asked for.
fn a_container_that_starts_meanwhile_is_no_stranger(suite: &str) {
    let loan = borrow(suite);
    let (_home, pi) = loan.parts();
    pi.homelab("network-up").exits(0);
    pi.homelab("env-up whoami").exits(0);
    for pause in ["0", "0.1", "0.3", "0.5", "0.8"] {
        pi.sh("docker stop whoami-preprod");
        pi.sh(&format!(
            "(sleep {pause}; docker start whoami-preprod) >/tmp/start.log 2>&1 & \
             homelab env-up whoami >/tmp/up.log 2>&1; status=$?; wait; cat /tmp/up.log; exit $status"
        ));
        pi.homelab("env-up whoami --dry-run").exits(0);
    }
}
