//! Networks that the Engine's driver lost, because their parent link was missing when it started, and that were removed since: their
//! record stays in the Engine's store. They must never get in the way of the networks made since.

use crate::home::{SOON, Server, wait_for};
use crate::{home_and_pi, lan, tests};

tests! {
    every engine:
        a_removed_network_that_its_driver_lost_does_not_come_back
        a_network_is_not_removed_while_its_driver_may_have_lost_it;
    one engine:
}

/// How often Docker is started again, and the server booted. `HOMELAB_GHOSTS` asks for more: 20 of each were seen.
fn rounds(usual: usize) -> usize {
    let more = std::env::var("HOMELAB_GHOSTS").ok();
    more.and_then(|more| more.parse().ok()).unwrap_or(usual)
}

fn both_run(pi: &Server, after: &str) {
    for last in [200, 230] {
        wait_for(&format!(".{last} after {after}"), SOON, || {
            pi.host.page_now(lan(last)).is_some()
        });
    }
}

fn a_removed_network_that_its_driver_lost_does_not_come_back(suite: &str) {
    let (_home, mut pi) = home_and_pi(suite);
    pi.homelab("network-up").exits(0);
    // At this boot nobody makes the parent links before Docker starts.
    pi.power_off();
    pi.boot();
    pi.homelab("network-up").exits(0);
    pi.homelab("network-down").exits(0);
    pi.homelab("network-up").exits(0);
    pi.homelab("shim install").exits(0);
    pi.homelab("env-up --env prod").exits(0);
    pi.homelab("env-up").exits(0);
    both_run(&pi, "the first start");
    for round in 0..rounds(4) {
        pi.sh("systemctl reset-failed docker; systemctl restart docker");
        pi.wait_for_docker();
        both_run(&pi, &format!("restart {round} of Docker"));
    }
    for round in 0..rounds(2) {
        pi.power_off();
        pi.boot();
        both_run(&pi, &format!("boot {round}"));
    }
    pi.homelab("network-up").exits(0).says("nothing to do");
    pi.homelab("status").exits(0);
}

/// The first network stands on the parent itself, whose name stays.
fn a_network_is_not_removed_while_its_driver_may_have_lost_it(suite: &str) {
    let (home, mut pi) = home_and_pi(suite);
    pi.homelab("network-up").exits(0);
    pi.homelab("env-up --env prod").exits(0);
    // At this boot Docker is started without any parent.
    pi.power_off();
    pi.unplug();
    pi.switch_on();
    pi.wait_for_docker();
    home.plug_in(&pi.host, "pi", "192.168.1.204");
    let restart = || {
        pi.sh("systemctl reset-failed docker; systemctl restart docker");
        pi.wait_for_docker();
    };
    pi.homelab("network-up").exits(0);
    pi.homelab("env-up --env prod")
        .exits(1)
        .says("Docker lost its network, because the network's parent link was missing when Docker was started")
        .says("`systemctl restart docker`");
    pi.homelab("env-down --env prod").exits(0);
    let shares = suite == "sid";
    if shares {
        // There one parent is as good for many networks.
        pi.homelab("network-down").exits(0);
    } else {
        let before = pi.leftovers();
        pi.homelab("network-down")
            .exits(1)
            .says("network `homelab-prod` stands on `eth0`, which came after Docker was started")
            .says("restart Docker first: `systemctl restart docker`");
        assert_eq!(pi.leftovers(), before, "nothing is half done");
        restart();
        pi.homelab("network-down").exits(0);
    }
    for line in ["network-up", "shim install", "env-up --env prod", "env-up"] {
        pi.homelab(line).exits(0);
    }
    both_run(&pi, "it was made anew");
    for round in 0..rounds(4) {
        restart();
        both_run(&pi, &format!("restart {round} of Docker"));
    }
    pi.homelab("status").exits(0);
}
