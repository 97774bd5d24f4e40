//! What is proved with packets, and what is shown on one screen.

use crate::home::Server;
use crate::isolation::{both_environments, check_apart, comes_to_reach, reaches};
use crate::pool::borrow;
use crate::{PLAN, home_and_pi, lan, tests};
use std::collections::BTreeSet;

tests! {
    every engine:
        verify_proves_what_is_and_finds_what_is_wrong;
    one engine:
        hints_of_verify_lead_out
        verify_without_isolation_or_containers
        two_servers_share_one_file
        status_shows_what_differs
}

/// From, to and what was seen, of every pair that differs.
fn differences(pi: &Server, status: i32) -> BTreeSet<String> {
    let run = pi.homelab("verify --json").exits(status);
    pi.write("/run/pairs", &run.stdout);
    let text = pi.sh("jq -r 'select(.event == \"pair\" and .differs) | \"\\(.from) to \\(.to): \\(.seen)\"' /run/pairs");
    text.lines().map(str::to_owned).collect()
}

fn pairs<const N: usize>(pairs: [&str; N]) -> BTreeSet<String> {
    pairs.map(str::to_owned).into()
}

fn verify_proves_what_is_and_finds_what_is_wrong(suite: &str) {
    let (_home, pi) = home_and_pi(suite);
    both_environments(&pi);
    let run = pi.homelab("verify").exits(0).says("all is as planned");
    let row = |name: &str| -> String {
        let line = run
            .stdout
            .lines()
            .find(|line| line.trim_start().starts_with(name));
        line.unwrap_or_default()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    let both = "reached / reached";
    assert_eq!(
        row("host"),
        format!("host {both} - - {both} {both}"),
        "{}",
        run.stdout
    );
    assert_eq!(
        row("prod"),
        format!("prod {both} {both} {both} {both} blocked / blocked"),
        "{}",
        run.stdout
    );
    assert_eq!(
        row("preprod"),
        format!("preprod {both} {both} {both} blocked / blocked {both}"),
        "{}",
        run.stdout
    );
    assert_eq!(differences(&pi, 0), pairs([]));
    // What is reached is reached by connections, datagrams and pings; what is blocked answers somebody else by each.
    let proven = pi.sh(
        "jq -s '[.[] | select(.event == \"pair\") | .probes[] | select(.target == \"whoami-prod\")] | \
         [any(.tcp), any(.udp), any(.ping), (map(select(.source == \"whoami-preprod\")) | any(.tcp or .udp or .ping))] | tostring' -r /run/pairs",
    );
    assert_eq!(proven, "[true,true,true,false]\n");
    let left = pi.sh("grep -l -s -a 'homela[b].probe' /proc/[0-9]*/cmdline || true");
    assert_eq!(left, "", "no process is left in the containers");

    // Emptied by hand.
    pi.sh("systemctl set-property --runtime homelab-prod.slice IPAddressDeny=");
    // systemd 257 makes a running slice follow when something is made in it.
    pi.sh("systemd-run --quiet --collect --scope --slice=homelab-prod.slice true");
    assert_eq!(differences(&pi, 3), pairs(["prod to preprod: reached"]));
    pi.homelab("verify")
        .exits(3)
        .says("from prod to preprod: reached, planned is blocked")
        .says("`homelab network-up`");
    pi.homelab("network-up").exits(0);
    assert_eq!(differences(&pi, 0), pairs([]));
    check_apart(&pi, "after it was put back");

    // Run by hand on the network of the other environment, in no slice.
    pi.sh(
        "docker run -d --name guest --network homelab-prod --ip 192.168.1.210 lab/web:1 sleep 600",
    );
    assert_eq!(differences(&pi, 3), pairs(["prod to preprod: partly"]));
    pi.homelab("verify")
        .exits(3)
        .says("guest to whoami-preprod")
        .says("remove it, or run it with `--cgroup-parent 'homelab-prod.slice'`");
    pi.sh("docker rm -f guest");
    // One of preproduction that is plugged into production as well.
    pi.sh("docker run -d --name guest --network homelab-prod --ip 192.168.1.210 --cgroup-parent homelab-preprod.slice lab/web:1 sleep 600");
    let found = differences(&pi, 3);
    assert!(found.contains("prod to prod: partly"), "{found:?}");
    pi.sh("docker rm -f guest");

    pi.sh("ip route del 192.168.1.192/26 dev homelab-shim");
    let found = differences(&pi, 3);
    assert!(found.contains("host to prod: blocked"), "{found:?}");
    assert!(found.contains("host to preprod: blocked"), "{found:?}");
    pi.homelab("verify")
        .exits(3)
        .says("from host to prod")
        .says("`homelab network-up` puts `homelab-shim` and its route in order");
    pi.homelab("network-up").exits(0);
    assert_eq!(differences(&pi, 0), pairs([]));
}

/// Something is broken, verify says so and what to look at, and when that is undone all is as planned.
fn hints_of_verify_lead_out(suite: &str) {
    let loan = borrow(suite);
    let (home, pi) = loan.parts();
    pi.homelab("network-up").exits(0);
    pi.homelab("env-up").exits(0);
    pi.homelab("env-up --env prod").exits(0);
    pi.homelab("verify").exits(0);

    pi.sh("ip route add 192.168.1.200/32 dev eth0");
    pi.homelab("verify")
        .exits(3)
        .says("`ip route get 192.168.1.200` must say `dev homelab-shim`");
    assert!(pi.sh("ip route get 192.168.1.200").contains("dev eth0"));
    pi.sh("ip route del 192.168.1.200/32 dev eth0");
    pi.homelab("verify").exits(0);

    for (rule, says) in [
        (
            "OUTPUT -o homelab-shim -m conntrack --ctstate NEW -j DROP",
            "containers reach this host and it does not reach them: a firewall of this host drops what it sends",
        ),
        (
            "INPUT -i homelab-shim -m conntrack --ctstate NEW -j DROP",
            "this host reaches the containers and they do not reach it: a firewall of this host drops what comes from them",
        ),
    ] {
        pi.sh(&format!("iptables -I {rule}"));
        pi.homelab("verify").exits(3).says(says);
        pi.sh(&format!("iptables -D {rule}"));
        pi.homelab("verify").exits(0);
    }

    // As a switch does that lets frames to the host's own hardware address through alone.
    let containers = [200, 201, 230, 231].map(lan);
    for address in containers {
        home.router.run(&format!(
            "ip neigh replace {address} lladdr 02:00:00:00:00:99 nud permanent dev br0"
        ));
    }
    pi.homelab("verify")
        .exits(3)
        .says("this host reaches the router and no container does");
    for address in containers {
        home.router.run(&format!("ip neigh del {address} dev br0"));
    }
    pi.homelab("verify").exits(0);
    home.router.run("ip link set br0 down");
    pi.homelab("verify")
        .exits(3)
        .says("does the router, 192.168.1.1, run and answer pings");
    home.router.run("ip link set br0 up");
    assert!(comes_to_reach(pi, "whoami-prod", "ping", 1));
    pi.homelab("verify").exits(0);

    // One that lost its link, and one with a firewall of its own.
    pi.sh("nsenter -t $(docker inspect -f '{{.State.Pid}}' store-prod) -n ip link set eth0 down");
    pi.homelab("verify")
        .exits(3)
        .says("nobody gets an answer from `store-prod`");
    pi.sh("docker restart -t 0 store-prod");
    pi.homelab("verify").exits(0);
}

fn verify_without_isolation_or_containers(suite: &str) {
    let loan = borrow(suite);
    let (_home, pi) = loan.parts();
    pi.homelab("verify")
        .exits(0)
        .says("environment `prod` runs nothing on this host");
    pi.write(
        "/etc/homelab/homelab.toml",
        &PLAN.replace("[network]", "[network]\nisolation = \"off\""),
    );
    pi.homelab("network-up").exits(0);
    pi.homelab("env-up").exits(0);
    pi.homelab("env-up --env prod").exits(0);
    assert_eq!(differences(pi, 0), pairs([]));
    // The plan says something else now, and nobody did anything about it.
    pi.write("/etc/homelab/homelab.toml", PLAN);
    assert_eq!(
        differences(pi, 3),
        pairs(["preprod to prod: reached", "prod to preprod: reached"])
    );
    // A container that does not answer proves nothing.
    pi.sh("docker pause whoami-prod store-prod");
    pi.homelab("verify")
        .exits(3)
        .says("environment `prod` runs nothing on this host")
        .says("container `whoami-prod` was not asked and not heard: it is paused");
    pi.sh("docker unpause whoami-prod store-prod");
    let run = pi
        .command("setpriv")
        .args(["--reuid=65534", "--clear-groups", "homelab", "verify"])
        .output();
    let run = run.expect("setpriv runs");
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    assert_eq!(run.status.code(), Some(1), "{said}");
    assert!(said.contains("run homelab as root"), "{said}");
}

fn two_servers_share_one_file(suite: &str) {
    let (home, pi) = home_and_pi(suite);
    let n100 = home.server(suite, "n100", "192.168.1.10");
    n100.import_image("lab/web:1");
    // Each runs a service that is the other's to reach, or not to.
    let plan = format!("{PLAN}restart = \"unless-stopped\"\nstop_signal = \"SIGKILL\"\n");
    for server in [&pi, &n100] {
        server.write("/etc/homelab/homelab.toml", &plan);
        for line in ["shim install", "network-up", "env-up", "env-up --env prod"] {
            server.homelab(line).exits(0);
        }
    }
    assert_eq!(
        pi.sh("docker ps --format '{{.Names}}' | sort"),
        "store-preprod\nstore-prod\nwhoami-preprod\nwhoami-prod\n"
    );
    assert_eq!(
        n100.sh("docker ps --format '{{.Names}}' | sort"),
        "jellyfin-preprod\njellyfin-prod\n"
    );
    for (server, shim) in [(&pi, "192.168.1.254/32"), (&n100, "192.168.1.253/32")] {
        assert!(server.sh("ip -4 addr show homelab-shim").contains(shim));
        for last in [200, 230, 205, 235] {
            assert!(
                server.host.page(lan(last)).is_some(),
                "the host with {shim} reaches .{last}"
            );
        }
    }
    for (server, container, reached, denied) in [
        (&pi, "whoami-prod", 205, 235),
        (&pi, "whoami-preprod", 235, 205),
        (&n100, "jellyfin-prod", 200, 230),
        (&n100, "jellyfin-preprod", 230, 200),
    ] {
        for protocol in ["tcp", "ping"] {
            assert!(
                comes_to_reach(server, container, protocol, reached),
                "{container} reaches .{reached} by {protocol}"
            );
            assert!(
                !reaches(server, container, protocol, denied),
                "{container} does not reach .{denied} by {protocol}"
            );
        }
        for host in [204, 10, 254, 253] {
            assert!(
                comes_to_reach(server, container, "ping", host),
                "{container} reaches .{host}"
            );
        }
    }
    for server in [&pi, &n100] {
        let run = server.homelab("verify -v").exits(0);
        assert!(
            run.stderr.contains(" on n100 (192.168.1.235)")
                || run.stderr.contains(" on raspberry-pi (192.168.1.230)"),
            "{}",
            run.stderr
        );
        server.homelab("status").exits(0).says("all is as planned");
    }
}

fn status_shows_what_differs(suite: &str) {
    let (_home, pi) = home_and_pi(suite);
    let run = pi
        .homelab("status")
        .exits(3)
        .says("`homelab network-up`")
        .says("`homelab env-up --env prod`");
    assert!(run.stdout.contains("missing"), "{}", run.stdout);
    pi.homelab("shim install").exits(0);
    both_environments(&pi);
    let run = pi.homelab("status").exits(0).says("all is as planned");
    for word in [
        "homelab-shim.service",
        "starts at boot",
        "in force",
        "192.168.1.230",
        "running",
        "on n100",
    ] {
        assert!(
            run.stdout.contains(word),
            "{word} is not in\n{}",
            run.stdout
        );
    }
    for (damage, says, cure) in [
        (
            "docker stop -t 0 whoami-prod",
            "container whoami-prod: its state is exited, planned is running",
            "homelab env-up --env prod",
        ),
        (
            "docker rm -f echo-preprod",
            "container echo-preprod: it does not exist",
            "homelab env-up --env preprod",
        ),
        (
            "systemctl stop homelab-shim",
            "unit homelab-shim.service",
            "homelab network-up",
        ),
        (
            "systemctl set-property --runtime homelab-prod.slice IPAddressDeny=",
            "slice homelab-prod.slice",
            "homelab network-up",
        ),
        (
            "docker pause store-prod",
            "container store-prod: its state is paused, planned is running",
            "homelab env-up --env prod",
        ),
    ] {
        pi.sh(damage);
        let run = pi.homelab("status").exits(3).says(says).says(cure);
        assert_eq!(
            run.stderr.matches("difference:").count(),
            1,
            "{damage}: {}",
            run.stderr
        );
        assert!(run.stdout.contains("differs"), "{}", run.stdout);
        let run = pi.homelab("status --json --quiet").exits(3);
        assert!(
            run.stdout.contains("\"event\":\"difference\""),
            "{}",
            run.stdout
        );
        assert!(
            run.stdout
                .ends_with("{\"differences\":1,\"event\":\"finished\"}\n"),
            "{}",
            run.stdout
        );
        pi.sh(cure);
        pi.homelab("status").exits(0);
    }
    pi.sh("systemctl stop docker.socket docker");
    pi.homelab("status").exits(3).says("systemctl start docker");
}
