//! Packet sockets, whose frames pass a slice by: who may open them while environments are kept apart.

use crate::home::Server;
use crate::isolation::{ECHO, comes_to_reach, import_perl, reaches};
use crate::pool::borrow;
use crate::{PLAN, tests};

tests! {
    every engine:
        services_have_raw_sockets_only_when_they_ask_for_them
        a_container_that_kept_raw_sockets_is_named_and_stays;
    one engine:
}

/// What the warning of a container that kept them says.
const KEPT: &str = "have the capability NET_RAW, which the plan does not give them";

/// What comes of opening a socket in a container as root: `opened`, or the error.
fn opened(pi: &Server, container: &str, socket: &str) -> String {
    let opens = format!("print socket(my $s, {socket}) ? \"opened\" : $!");
    pi.sh(&format!(
        "docker exec -u 0 {container} /usr/bin/perl -e '{opens}'"
    ))
}

fn services_have_raw_sockets_only_when_they_ask_for_them(suite: &str) {
    // AF_PACKET, and ICMP by AF_INET, both SOCK_RAW.
    const SOCKETS: [&str; 2] = ["17, 3, 0", "2, 3, 1"];
    let loan = borrow(suite);
    let (_, pi) = loan.parts();
    import_perl(pi);
    let plan = format!("{PLAN}{ECHO}");
    pi.write("/etc/homelab/homelab.toml", &plan);
    pi.homelab("network-up").exits(0);
    pi.homelab("env-up").exits(0);
    for socket in SOCKETS {
        let came = opened(pi, "echo-preprod", socket);
        assert_eq!(came, "Operation not permitted", "{socket}");
    }
    // A ping needs no more than a datagram socket, which Docker lets everybody have.
    assert!(comes_to_reach(pi, "echo-preprod", "ping", 1));

    let asks = format!("{plan}\n[env.preprod.services.echo]\ncap_add = [\"NET_RAW\"]\n");
    pi.write("/etc/homelab/homelab.toml", &asks);
    for line in ["check", "env-up", "status"] {
        pi.homelab(line)
            .says("service `echo` of environment `preprod` has the capability NET_RAW")
            .says("isolation_bypass = [\"cap-net-raw\"]");
    }
    for socket in SOCKETS {
        assert_eq!(opened(pi, "echo-preprod", socket), "opened", "{socket}");
    }
    // What goes through IP is kept apart all the same.
    assert!(comes_to_reach(pi, "echo-preprod", "ping", 1));
    assert!(!reaches(pi, "echo-preprod", "ping", 200));

    let meant = format!("{asks}isolation_bypass = [\"cap-net-raw\"]\n");
    pi.write("/etc/homelab/homelab.toml", &meant);
    for line in ["check", "env-up", "status"] {
        let run = pi.homelab(line);
        assert!(!run.stderr.contains("NET_RAW"), "{line}: {}", run.stderr);
    }
}

/// Makes a container anew as an older version did, which dropped nothing: all its settings and labels, but for that.
fn make_as_before(pi: &Server, container: &str, network: &str) {
    let engine = "curl -s --fail-with-body --unix-socket /run/docker.sock";
    pi.sh(&format!(
        "{engine} http://d/containers/{container}/json | jq '.NetworkSettings.Networks[\"{network}\"] as $on | \
             .Config + {{HostConfig: (.HostConfig | .CapDrop = null), NetworkingConfig: {{EndpointsConfig: {{ \
                 \"{network}\": ($on | {{IPAMConfig, MacAddress, Aliases: [\"whoami\"]}})}}}}}}' >/run/made && \
         docker rm -f {container} && \
         {engine} -H 'Content-Type: application/json' -d @/run/made 'http://d/containers/create?name={container}' && \
         docker start {container}; rm /run/made"
    ));
}

fn a_container_that_kept_raw_sockets_is_named_and_stays(suite: &str) {
    let loan = borrow(suite);
    let (_, pi) = loan.parts();
    pi.homelab("network-up").exits(0);
    pi.homelab("env-up").exits(0);
    let id = || pi.sh("docker inspect -f '{{.Id}}' whoami-preprod");
    let kept = || {
        let status = pi.sh("docker exec whoami-preprod cat /proc/1/status");
        let mut lines = status.lines();
        let bounds = lines.find_map(|line| line.strip_prefix("CapBnd:"));
        let bounds = u64::from_str_radix(bounds.unwrap_or_default().trim(), 16);
        bounds.expect("a set of capabilities") & (1 << 13) != 0
    };
    assert!(!kept());
    make_as_before(pi, "whoami-preprod", "homelab-preprod");
    assert!(kept());
    let old = id();
    for line in ["env-up", "status", "verify"] {
        pi.homelab(line)
            .says(KEPT)
            .says("`whoami-preprod`\n")
            .says("`homelab env-up --env preprod --force-recreate`");
    }
    pi.homelab("env-up").exits(0).says("nothing to do");
    // Also one that does not run, which would be started with it.
    pi.sh("docker stop -t 0 whoami-preprod");
    pi.homelab("status").says(KEPT);
    pi.homelab("env-up").exits(0).says(KEPT);
    assert_eq!(id(), old, "it stays");
    let run = pi.homelab("env-up --force-recreate whoami").exits(0);
    assert!(!run.stderr.contains(KEPT), "{}", run.stderr);
    assert_ne!(id(), old);
    assert!(!kept());
    for line in ["env-up", "status"] {
        let run = pi.homelab(line);
        assert!(!run.stderr.contains(KEPT), "{line}: {}", run.stderr);
    }
}
