//! What happens when something else breaks what homelab made.

use crate::home::{SOON, wait_for};
use crate::pool::borrow;
use crate::shim::journal;
use crate::{PLAN, home_and_pi, lan, tests};
use std::time::{Duration, Instant};

tests! {
    every engine:
        what_is_missing_is_put_back
        after_a_reboot_network_up_brings_the_shim_back;
    one engine:
        containers_that_die_are_reported
        without_its_parent_the_shim_lets_docker_start
}

fn what_is_missing_is_put_back(suite: &str) {
    let loan = borrow(suite);
    let (home, pi) = loan.parts();
    pi.homelab("network-up").exits(0);
    pi.homelab("env-up whoami").exits(0);
    for damage in [
        "ip link del homelab-shim",
        "ip link set homelab-shim down",
        "ip addr del 192.168.1.254/32 dev homelab-shim",
        "ip route del 192.168.1.192/26 dev homelab-shim",
        "ip route replace 192.168.1.192/26 dev homelab-shim",
        "ip link set homelab-shim down; ip link set homelab-shim address 02:00:00:00:00:01; ip link set homelab-shim up",
        "echo 0 >/proc/sys/net/ipv4/conf/homelab-shim/arp_filter",
        "docker network rm homelab-prod",
    ] {
        pi.sh(damage);
        pi.homelab("network-up --dry-run").exits(3);
        pi.homelab("network-up").exits(0);
        pi.homelab("network-up").exits(0).says("nothing to do");
        assert_eq!(
            pi.host.page(lan(230)).as_deref(),
            Some("whoami of preprod"),
            "after {damage}"
        );
    }
    assert_eq!(
        home.laptop.page(lan(230)).as_deref(),
        Some("whoami of preprod")
    );
    // A container that lost its network is made anew.
    pi.sh("docker network disconnect homelab-preprod whoami-preprod");
    pi.homelab("env-up whoami")
        .exits(0)
        .says("created container whoami-preprod");
    assert_eq!(
        home.laptop.page(lan(230)).as_deref(),
        Some("whoami of preprod")
    );
}

fn containers_that_die_are_reported(suite: &str) {
    let loan = borrow(suite);
    let (_home, pi) = loan.parts();
    pi.homelab("network-up").exits(0);
    let plan = format!(
        "{PLAN}\n[services.broken]\nimage = \"lab/web:1\"\n\
         command = \"sh -c 'echo the disk is full >&2; exit 7'\"\n"
    );
    pi.write("/etc/homelab/homelab.toml", &plan);
    pi.homelab("env-up")
        .exits(1)
        .says("container `broken-preprod` ended at once with status 7")
        .says("the disk is full");
    // The others run.
    assert_eq!(pi.host.page(lan(230)).as_deref(), Some("whoami of preprod"));
    pi.write(
        "/etc/homelab/homelab.toml",
        &format!("{plan}restart = \"always\"\n"),
    );
    pi.homelab("env-up broken")
        .exits(1)
        .says("keeps starting it again")
        .says("the disk is full");
    // A command that does not exist never starts.
    pi.write(
        "/etc/homelab/homelab.toml",
        &plan.replace("sh -c 'echo the disk is full >&2; exit 7'", "nonsense"),
    );
    pi.homelab("env-up broken")
        .exits(1)
        .says("`broken-preprod`")
        .says("nonsense");
    // One that has done its job is none.
    pi.write(
        "/etc/homelab/homelab.toml",
        &plan.replace("exit 7", "exit 0"),
    );
    pi.homelab("env-up broken").exits(0);
}

fn after_a_reboot_network_up_brings_the_shim_back(suite: &str) {
    let (home, mut pi) = home_and_pi(suite);
    pi.homelab("network-up").exits(0);
    pi.homelab("env-up").exits(0);
    pi.homelab("env-up --env prod").exits(0);
    pi.power_off();
    pi.boot();
    pi.homelab("env-up")
        .exits(1)
        .says("there is no link `homelab-shim`");
    let run = pi
        .homelab("network-up")
        .exits(0)
        .says("added route 192.168.1.192/26");
    if suite != "sid" {
        // The second network stood on a parent link that was not there when Docker was started.
        run.says("`hl-preprod-").says("systemctl restart docker");
        pi.homelab("env-up")
            .exits(1)
            .says("Docker lost its network")
            .says("systemctl restart docker");
        pi.sh("systemctl restart docker");
    }
    pi.homelab("env-up").exits(0);
    for line in [
        "network-up --dry-run",
        "env-up --dry-run",
        "env-up --env prod --dry-run",
    ] {
        pi.homelab(line).exits(0);
    }
    assert_eq!(pi.host.page(lan(200)).as_deref(), Some("whoami of prod"));
    assert_eq!(pi.host.page(lan(230)).as_deref(), Some("whoami of preprod"));
    assert_eq!(
        home.laptop.page(lan(230)).as_deref(),
        Some("whoami of preprod")
    );
}

/// A minute of waiting is the same on every engine, so one has to do.
fn without_its_parent_the_shim_lets_docker_start(suite: &str) {
    let (home, mut pi) = home_and_pi(suite);
    pi.homelab("shim install").exits(0);
    pi.homelab("network-up").exits(0);
    pi.power_off();
    pi.unplug();
    let begun = Instant::now();
    pi.boot();
    let waited = begun.elapsed();
    assert!(
        waited > Duration::from_secs(55),
        "Docker was started after {waited:?}"
    );
    let log = journal(&pi);
    assert!(log.contains("what waits for it starts without it"), "{log}");
    // It comes when the parent does, and says what that means for an engine whose networks stand on parent links.
    home.plug_in(&pi.host, "pi", "192.168.1.204");
    wait_for("the shim", SOON, || {
        pi.try_sh("ip route | grep -q 192.168.1.192/26").is_ok()
    });
    let log = journal(&pi);
    assert!(
        log.contains("Docker was started without the parent links"),
        "{log}"
    );
    pi.homelab("network-up").exits(0).says("nothing to do");
}
