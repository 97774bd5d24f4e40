//! Engines that stand still, come and go: homelab says so in time, and removes nothing without their word.

use crate::home::{SOON, Server, wait_for};
use crate::{home_and_pi, lan, tests};
use std::time::{Duration, Instant};

tests! {
    every engine:
        a_frozen_engine_is_told_in_time_and_loses_nothing;
    one engine:
}

/// The limit of a question to the Engine, and room for a busy lab.
const TOLD: Duration = Duration::from_secs(45);

fn freeze(pi: &Server, signal: &str) {
    pi.sh(&format!("kill -{signal} $(cat /run/docker.pid)"));
}

fn a_frozen_engine_is_told_in_time_and_loses_nothing(suite: &str) {
    let (home, pi) = home_and_pi(suite);
    pi.homelab("network-up").exits(0);
    pi.homelab("env-up").exits(0);
    pi.homelab("env-up --env prod").exits(0);
    let before = pi.sh("ip -o link; ip route");
    for signal in ["STOP", "TERM"] {
        if signal == "STOP" {
            freeze(&pi, signal);
        } else {
            pi.sh("systemctl stop docker.socket docker.service");
        }
        let begun = Instant::now();
        // All at once, as each of them waits for the Engine.
        let lines = ["shim up", "status", "ps", "network-up --dry-run"];
        std::thread::scope(|scope| {
            for line in lines {
                let pi = &pi;
                scope.spawn(move || {
                    let run = pi.homelab(line);
                    let said = format!("{}{}", run.stdout, run.stderr);
                    if line == "shim up" {
                        run.exits(0);
                        return;
                    }
                    assert!(
                        said.contains("did not answer within 30 seconds")
                            || said.contains("there is no Docker Engine here")
                            || said.contains("no Docker Engine answers"),
                        "{line}: {said}"
                    );
                    assert!(!said.contains("homelab shim up"), "{line}: {said}");
                });
            }
        });
        assert!(begun.elapsed() < TOLD, "{:?}", begun.elapsed());
        let now = pi.sh("ip -o link; ip route");
        for line in before
            .lines()
            .filter(|line| line.contains("hl-") || line.contains("homelab-shim"))
        {
            assert!(now.contains(line), "{line} is gone:\n{now}");
        }
        // An interrupt ends whoever waits for the Engine.
        let begun = Instant::now();
        let ended = pi.sh("homelab env-up & pid=$!; sleep 0.5; kill -INT $pid; wait $pid; echo $?");
        assert!(begun.elapsed() < Duration::from_secs(5));
        assert!(ended.contains("130") || ended.contains('1'), "{ended}");
        if signal == "STOP" {
            freeze(&pi, "CONT");
        } else {
            pi.sh("systemctl start docker.socket docker.service");
            pi.wait_for_docker();
        }
    }
    pi.homelab("network-up").exits(0).says("nothing to do");
    pi.homelab("env-up").exits(0);
    wait_for("the pages", SOON, || {
        home.laptop.page_now(lan(230)).is_some() && home.laptop.page_now(lan(200)).is_some()
    });
    pi.homelab("status").exits(0);
}
