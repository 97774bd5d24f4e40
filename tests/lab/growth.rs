//! Plans that grow while everything runs: only what the plan says is interrupted, and a laptop that asks for pages ten times a
//! second notices nothing of the rest.

use crate::home::{Home, Server};
use crate::{PLAN, home_and_pi, lan, tests};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

tests! {
    every engine:
        only_what_the_plan_says_is_interrupted;
    one engine:
        only_what_the_plan_says_is_interrupted_beside_the_service
        ranges_that_no_prefix_covers_have_a_route_for_each_part
        networks_of_an_older_homelab_go_on
        what_is_in_the_way_of_one_environment_stops_no_other
}

/// What runs all the time: two services in each environment.
const WATCHED: [u8; 4] = [200, 201, 230, 231];

/// How long a busy lab may be silent although nothing was done to whoever is asked.
const NOTICED: Duration = Duration::from_secs(2);

/// The ids of the containers, by name.
fn ids(pi: &Server) -> BTreeMap<String, String> {
    let text = pi.sh("docker ps --no-trunc --format '{{.Names}} {{.ID}}'");
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs
        .map(|(name, id)| (name.to_owned(), id.to_owned()))
        .collect()
}

fn everything_up(pi: &Server) {
    pi.homelab("network-up").exits(0);
    pi.homelab("env-up --env prod").exits(0);
    pi.homelab("env-up --env preprod").exits(0);
}

/// A change of the plan.
struct Change {
    what: &'static str,
    /// What is replaced in the plan, and by what.
    edits: &'static [(&'static str, &'static str)],
    /// What happens to the server at the same time.
    line: &'static str,
    /// The environments that are brought up then.
    envs: &'static [&'static str],
    /// What must answer the laptop afterwards, beside those who are watched.
    pages: &'static [(u8, &'static str)],
}

const BOTH: &[&str] = &["prod", "preprod"];

const CHANGES: [Change; 8] = [
    Change {
        what: "a service on the other host",
        edits: &[(
            "[services.jellyfin]",
            "[services.extra]\nimage = \"lab/web:1\"\nhost = \"n100\"\naddress = { prod = \"192.168.1.206\", preprod = \"192.168.1.236\" }\n\n[services.jellyfin]",
        )],
        line: "",
        envs: BOTH,
        pages: &[],
    },
    Change {
        what: "a service that moves here",
        edits: &[(
            "host    = \"n100\"\ncommand",
            "host    = \"raspberry-pi\"\ncommand",
        )],
        line: "",
        envs: BOTH,
        pages: &[(205, "jellyfin of prod"), (235, "jellyfin of preprod")],
    },
    Change {
        what: "a range that shrinks and one that grows",
        edits: &[
            ("192.168.1.192-192.168.1.223", "192.168.1.192-192.168.1.207"),
            ("192.168.1.224-192.168.1.249", "192.168.1.216-192.168.1.249"),
        ],
        line: "",
        envs: BOTH,
        pages: &[],
    },
    Change {
        what: "a third environment",
        edits: &[
            (
                "[services.whoami]",
                "[env.test]\nrange = \"192.168.1.208-192.168.1.215\"\n\n[services.whoami]",
            ),
            (
                "preprod = \"192.168.1.231\"",
                "preprod = \"192.168.1.231\", test = \"192.168.1.210\"",
            ),
        ],
        line: "",
        envs: &["test"],
        pages: &[(210, "store of test")],
    },
    Change {
        what: "one environment less",
        edits: &[
            (
                "[env.test]\nrange = \"192.168.1.208-192.168.1.215\"\n\n",
                "",
            ),
            (", test = \"192.168.1.210\"", ""),
        ],
        line: "homelab env-down --env test",
        envs: BOTH,
        pages: &[],
    },
    Change {
        what: "a host's new address",
        edits: &[("192.168.1.204", "192.168.1.203")],
        line: "ip addr del 192.168.1.204/24 dev eth0; ip addr add 192.168.1.203/24 dev eth0; \
               ip route replace default via 192.168.1.1",
        envs: BOTH,
        pages: &[],
    },
    Change {
        what: "another shim address",
        edits: &[
            ("192.168.1.250-192.168.1.253", "192.168.1.250-192.168.1.251"),
            ("192.168.1.254", "192.168.1.252"),
        ],
        line: "",
        envs: BOTH,
        pages: &[],
    },
    Change {
        what: "a service with another command",
        edits: &[("echo store of", "echo the store of")],
        line: "",
        envs: BOTH,
        pages: &[(201, "the store of prod")],
    },
];

fn only_what_the_plan_says_is_interrupted(suite: &str) {
    let (home, pi) = home_and_pi(suite);
    check_growth(&home, &pi, suite);
}

fn only_what_the_plan_says_is_interrupted_beside_the_service(suite: &str) {
    let (home, pi) = home_and_pi(suite);
    pi.homelab("shim install").exits(0);
    check_growth(&home, &pi, suite);
    pi.homelab("shim install").exits(0).says("nothing to do");
    pi.homelab("status").exits(0);
}

/// Makes all changes, one after another.
fn check_growth(home: &Home, pi: &Server, suite: &str) {
    everything_up(pi);
    for last in WATCHED {
        assert!(home.laptop.page(lan(last)).is_some());
    }
    let first = ids(pi);
    let networks = pi.sh("docker network ls -q --no-trunc");
    let watch = home.laptop.watch(&WATCHED.map(lan));
    let mut plan = PLAN.to_owned();
    let mut report = String::new();
    for change in &CHANGES {
        for (from, to) in change.edits {
            assert!(plan.contains(from), "{from:?} is not in\n{plan}");
            plan = plan.replace(from, to);
        }
        pi.sh(&format!(
            "{} true",
            change.line.to_owned() + if change.line.is_empty() { "" } else { ";" }
        ));
        pi.write("/etc/homelab/homelab.toml", &plan);
        pi.homelab("network-up").exits(0);
        for env in change.envs {
            pi.homelab(&format!("env-up --env {env}")).exits(0);
        }
        for (last, page) in change.pages {
            let found = home.laptop.page(lan(*last));
            assert_eq!(found.as_deref(), Some(*page), "{}", change.what);
        }
        for line in ["network-up", "env-up --env prod", "env-up --env preprod"] {
            pi.homelab(line).exits(0).says("nothing to do");
        }
        // The host reaches its containers and they reach it, at once.
        let shim = pi.sh("ip -4 -o addr show homelab-shim | sed 's/.* inet //; s#/.*##'");
        pi.sh(&format!("docker exec whoami-prod ping -c 1 -W 1 {shim}"));
        assert!(pi.host.page_now(lan(200)).is_some(), "{}", change.what);
        let _ = write!(report, "\n{}:", change.what);
        for last in WATCHED {
            let silence = watch.silence(lan(last));
            let _ = write!(report, " .{last} {} ms", silence.as_millis());
            let is_changed =
                change.what == "a service with another command" && matches!(last, 201 | 231);
            assert!(
                silence < NOTICED || is_changed,
                "{}: .{last} was silent for {silence:?}",
                change.what
            );
        }
    }
    eprintln!("the longest silences, {suite}:{report}");
    let last = ids(pi);
    for (name, id) in &first {
        let is_same = last.get(name) == Some(id);
        assert_eq!(is_same, !name.starts_with("store"), "{name}");
    }
    assert_eq!(pi.sh("docker network ls -q --no-trunc"), networks);
}

fn ranges_that_no_prefix_covers_have_a_route_for_each_part(suite: &str) {
    let (home, pi) = home_and_pi(suite);
    // .100 to .149 beside .150 to .199: the smallest prefix that has both is the LAN itself.
    let plan = PLAN
        .replace("192.168.1.2-192.168.1.191", "192.168.1.2-192.168.1.60")
        .replace("192.168.1.192-192.168.1.223", "192.168.1.100-192.168.1.149")
        .replace("192.168.1.224-192.168.1.249", "192.168.1.150-192.168.1.199")
        .replace("prod = \"192.168.1.20", "prod = \"192.168.1.10")
        .replace("preprod = \"192.168.1.23", "preprod = \"192.168.1.15");
    pi.write("/etc/homelab/homelab.toml", &plan);
    everything_up(&pi);
    let routes = pi.sh("ip route show dev homelab-shim | cut -d' ' -f1");
    assert_eq!(
        routes,
        "192.168.1.100/30\n192.168.1.104/29\n192.168.1.112/28\n192.168.1.128/26\n192.168.1.192/29\n"
    );
    for (last, page) in [(100, "whoami of prod"), (150, "whoami of preprod")] {
        assert_eq!(pi.host.page(lan(last)).as_deref(), Some(page));
        assert_eq!(home.laptop.page(lan(last)).as_deref(), Some(page));
    }
    // The laptop is no container: nobody goes to it by the shim.
    assert!(pi.sh("ip route get 192.168.1.50").contains("dev eth0"));
    pi.homelab("network-up").exits(0).says("nothing to do");
    pi.homelab("verify").exits(0);
    pi.homelab("network-down").exits(1);
    pi.homelab("env-down").exits(0);
    pi.homelab("env-down --env prod").exits(0);
    pi.homelab("network-down").exits(0);
    assert_eq!(
        pi.sh("ip route show dev homelab-shim 2>/dev/null || true"),
        ""
    );
}

/// A network as homelab made it up to now: Docker gives out the environment's range, but for what is planned for others.
fn networks_of_an_older_homelab_go_on(suite: &str) {
    let (home, pi) = home_and_pi(suite);
    pi.sh(
        "docker network create -d macvlan -o parent=eth0 -o macvlan_mode=bridge --subnet 192.168.1.0/24 \
         --ip-range 192.168.1.192/27 --gateway 192.168.1.1 --aux-address host-raspberry-pi=192.168.1.204 \
         --aux-address service-jellyfin-on-n100=192.168.1.205 --label homelab.environment=prod homelab-prod",
    );
    // Nothing is on it: it is made anew.
    pi.homelab("network-up --dry-run").exits(3);
    pi.sh(
        "docker run -d --name guest --network homelab-prod --ip 192.168.1.210 lab/web:1 sleep 600",
    );
    pi.homelab("network-up")
        .exits(0)
        .says("network `homelab-prod` was made by an older homelab");
    pi.homelab("env-up --env prod").exits(0);
    pi.homelab("env-up --env preprod").exits(0);
    let ids = ids(&pi);
    pi.homelab("status").exits(0);
    // What was another host's when it was made is kept back, which stops that service and no other.
    pi.write(
        "/etc/homelab/homelab.toml",
        &PLAN.replace("host    = \"n100\"", ""),
    );
    pi.homelab("network-up").exits(0);
    pi.homelab("env-up --env prod")
        .exits(1)
        .says("network `homelab-prod`, made by an older homelab, keeps 192.168.1.205 back");
    pi.homelab("env-up --env preprod").exits(0);
    assert_eq!(
        home.laptop.page(lan(200)).as_deref(),
        Some("whoami of prod")
    );
    assert_eq!(
        home.laptop.page(lan(235)).as_deref(),
        Some("jellyfin of preprod")
    );
    for (name, id) in &ids {
        assert!(pi.sh("docker ps -q --no-trunc").contains(id), "{name}");
    }
    // The hint leads out.
    pi.sh("docker rm -f guest");
    pi.homelab("env-down --env prod").exits(0);
    pi.homelab("network-up")
        .exits(0)
        .says("created network homelab-prod");
    pi.homelab("env-up --env prod").exits(0);
    assert_eq!(
        home.laptop.page(lan(205)).as_deref(),
        Some("jellyfin of prod")
    );
}

fn what_is_in_the_way_of_one_environment_stops_no_other(suite: &str) {
    let (home, pi) = home_and_pi(suite);
    pi.sh("docker network create homelab-prod");
    pi.homelab("network-up")
        .exits(1)
        .says("created network homelab-preprod")
        .says("there is a Docker network `homelab-prod` that homelab did not make");
    pi.homelab("env-up --env preprod").exits(0);
    assert_eq!(pi.host.page(lan(230)).as_deref(), Some("whoami of preprod"));
    pi.homelab("env-up --env prod")
        .exits(1)
        .says("there is a Docker network `homelab-prod` that homelab did not make");
    // An address that somebody has stops who should have it, and those who need it.
    pi.sh("docker run -d --name guest --network homelab-preprod --ip 192.168.1.235 lab/web:1 sleep 600");
    pi.write(
        "/etc/homelab/homelab.toml",
        &PLAN
            .replace("host    = \"n100\"", "")
            .replace("echo store of", "echo the store of"),
    );
    pi.homelab("env-up --env preprod")
        .exits(1)
        .says("replaced container store-preprod")
        .says("container `guest` has 192.168.1.235 already");
    assert_eq!(
        home.laptop.page(lan(231)).as_deref(),
        Some("the store of preprod")
    );
    pi.sh("docker rm -f guest; docker network rm homelab-prod");
    pi.homelab("network-up").exits(0);
    everything_up(&pi);
}
