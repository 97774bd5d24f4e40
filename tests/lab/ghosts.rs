//! Networks that the Engine's driver lost, because their parent link was missing when it started, and that were removed since: their
//! record stays in the Engine's store. They must never get in the way of the networks made since.

use crate::home::{SOON, Server, wait_for};
use crate::{home_and_pi, lan, tests};

tests! {
    every engine:
        a_removed_network_that_its_driver_lost_does_not_come_back;
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
