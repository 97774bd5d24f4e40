//! An isolation that systemd has as planned and the kernel does not enforce, or that other units undo.

use crate::isolation::{both_environments, check_apart, comes_to_reach};
use crate::{PLAN, home_and_pi, tests};

tests! {
    every engine:
        an_isolation_that_the_kernel_does_not_enforce_is_refused
        what_other_units_allow_is_found;
    one engine:
}

/// What is said where a slice does not filter.
const OPEN: &str = "environments cannot be kept apart: slice `homelab-prod.slice` denies 192.168.1.224, and the kernel lets packets from";

fn an_isolation_that_the_kernel_does_not_enforce_is_refused(suite: &str) {
    let (_home, mut pi) = home_and_pi(suite);
    pi.forbid_filters();
    pi.power_off();
    pi.boot();
    for _ in 0..2 {
        pi.homelab("network-up")
            .exits(1)
            .says(OPEN)
            .says("write `isolation = \"off\"`");
    }
    pi.homelab("env-up --env prod")
        .exits(1)
        .says(OPEN)
        .says("write `isolation = \"off\"`");
    assert_eq!(pi.sh("docker ps -aq"), "", "nothing was made");
    let run = pi.homelab("status").exits(3);
    assert!(run.stdout.contains("not in force"), "{}", run.stdout);

    let off = PLAN.replace("[network]", "[network]\nisolation = \"off\"");
    pi.write("/etc/homelab/homelab.toml", &off);
    for line in ["network-up", "env-up", "env-up --env prod"] {
        pi.homelab(line).exits(0);
    }
    assert!(comes_to_reach(&pi, "whoami-prod", "tcp", 230));
    pi.homelab("env-down --env prod").exits(0);

    // As older versions left it: written, applied, and in use.
    pi.write("/etc/homelab/homelab.toml", PLAN);
    pi.homelab("network-up").exits(1).says(OPEN);
    pi.sh("chmod 644 /etc/systemd/system/homelab-*.slice");
    pi.sh("docker run -d --name guest --network homelab-prod --ip 192.168.1.210 --cgroup-parent homelab-prod.slice lab/web:1 sleep 600");
    let id = pi.sh("docker inspect -f '{{.Id}}' guest");
    let scope = format!("docker-{}.scope", id.trim());
    for (line, status) in [("env-up --env prod", 1), ("network-up", 1), ("verify", 3)] {
        pi.homelab(line).exits(status).says(OPEN);
    }
    let run = pi
        .homelab("status")
        .exits(3)
        .says(&format!("{OPEN} `{scope}`"));
    assert!(run.stdout.contains("not in force"), "{}", run.stdout);
}

/// How to open production to preproduction's .230 beside its slice, how to undo that, and the unit that is named.
fn openings(scope: &str) -> Vec<(String, String, String)> {
    let drop_in = |unit: &str, section: &str| {
        let folder = format!("/etc/systemd/system/{unit}.d");
        let path = format!("{folder}/mine.conf");
        (
            format!(
                "mkdir '{folder}'; printf '[{section}]\\nIPAddressAllow=192.168.1.230\\n' >'{path}'; systemctl daemon-reload"
            ),
            format!("rm -r '{folder}'; systemctl daemon-reload"),
            unit.to_owned(),
        )
    };
    let property = |unit: &str| {
        (
            format!("systemctl set-property --runtime -- '{unit}' IPAddressAllow=192.168.1.230"),
            format!(
                "find /run/systemd -path '*/{unit}.d/50-IPAddressAllow.conf' -delete; systemctl daemon-reload"
            ),
            unit.to_owned(),
        )
    };
    vec![
        drop_in("-.slice", "Slice"),
        drop_in("homelab.slice", "Slice"),
        drop_in("docker-.scope", "Scope"),
        property("-.slice"),
        property("homelab.slice"),
        property(scope),
    ]
}

fn what_other_units_allow_is_found(suite: &str) {
    let (_home, pi) = home_and_pi(suite);
    both_environments(&pi);
    let id = pi.sh("docker inspect -f '{{.Id}}' whoami-prod");
    let scope = format!("docker-{}.scope", id.trim());
    for (open, close, unit) in openings(&scope) {
        pi.sh(&open);
        let said = format!("`IPAddressAllow=` of `{unit}`");
        pi.homelab("network-up")
            .exits(1)
            .says(&said)
            .says("lets containers of slice `homelab-prod.slice` reach 192.168.1.230/32")
            .says(".conf`");
        pi.homelab("env-up --env prod").exits(1).says(&said);
        pi.homelab("verify").exits(3).says(&said);
        let run = pi.homelab("status").exits(3).says(&said);
        assert!(run.stdout.contains("not in force"), "{}", run.stdout);
        // What is denied to preproduction is not touched.
        pi.homelab("env-up").exits(0);
        pi.sh(&close);
        pi.homelab("network-up").exits(0);
        pi.homelab("network-up").exits(0).says("nothing to do");
        pi.homelab("env-up --env prod")
            .exits(0)
            .says("nothing to do");
    }
    check_apart(&pi, "after all of it was taken away");
}
