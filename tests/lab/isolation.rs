//! Environments that cannot reach each other.

use crate::home::{SOON, Server, wait_for};
use crate::{PLAN, home_and_pi, lan, tests};
use std::time::Instant;

tests! {
    every engine:
        environments_are_kept_apart
        slices_follow_the_plan
        what_would_undo_the_isolation_is_refused
        without_isolation_environments_reach_each_other;
    one engine:
}

/// Whether a container gets an answer, by that protocol, from that address.
pub fn reaches(pi: &Server, container: &str, protocol: &str, last: u8) -> bool {
    answers(pi, container, &[(protocol, last)]) == [true]
}

/// Whether it gets one soon: who has just been started may not listen yet.
pub fn comes_to_reach(pi: &Server, container: &str, protocol: &str, last: u8) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < SOON {
        if reaches(pi, container, protocol, last) {
            return true;
        }
    }
    false
}

/// Who answers of several at once, because who is not answered waits for two seconds.
fn answers(pi: &Server, container: &str, probes: &[(&str, u8)]) -> Vec<bool> {
    let lines = probes.iter().enumerate().map(|(number, (protocol, last))| {
        let line = probe(protocol, *last);
        format!("{{ {line}; }} >/dev/null 2>&1 && echo {number} &\n")
    });
    let script: String = lines.collect();
    pi.write(
        &format!("/run/probes-{container}"),
        &format!("{script}wait\n"),
    );
    let answered = pi.try_sh(&format!(
        "docker exec -i {container} busybox timeout 15 sh </run/probes-{container}"
    ));
    let answered = answered.unwrap_or_default();
    let answered: Vec<&str> = answered.lines().collect();
    let numbers = 0..probes.len();
    numbers
        .map(|number| answered.contains(&number.to_string().as_str()))
        .collect()
}

fn probe(protocol: &str, last: u8) -> String {
    let address = lan(last);
    match protocol {
        "tcp" => format!("busybox timeout 2 wget -q -O /dev/null http://{address}/"),
        "udp" => format!(
            "perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(PeerAddr => \"{address}:5353\", Proto => \"udp\"); \
             alarm 2; $s->send(\"question\") or exit 1; $s->recv($b, 99); exit($b ne \"question\")'"
        ),
        // Not the one that busybox's shell would take.
        _ => format!("/usr/bin/ping -c 1 -W 2 {address}"),
    }
}

/// A service that answers datagrams, in both environments.
pub const ECHO: &str = r#"
[services.echo]
image       = "lab/perl:1"
address     = { prod = "192.168.1.202", preprod = "192.168.1.232" }
command     = ["perl", "-MIO::Socket::INET", "-e", "$s = IO::Socket::INET->new(LocalPort => 5353, Proto => 'udp'); $s->send($b) while defined $s->recv($b, 99)"]
restart     = "unless-stopped"
stop_signal = "SIGKILL"
"#;

/// The image of [`ECHO`]: the server's own Perl, and busybox.
pub fn import_perl(pi: &Server) {
    pi.sh("mkdir -p /tmp/perl && cp -a /srv/image/. /tmp/perl && cd / && \
           cp -L --parents /usr/bin/ping $(ldd /usr/bin/ping | grep -o '/[^ ]*') /tmp/perl && \
           tar -ch usr/bin/perl usr/lib/*/perl-base lib64 lib/*-linux-gnu/lib[cm].so.6 lib/*-linux-gnu/libcrypt.so.1 | tar -C /tmp/perl -x && \
           tar -C /tmp/perl -c . | docker import - lab/perl:1 >/dev/null");
}

/// Everything that must be reached is, and nothing else.
pub fn check_apart(pi: &Server, when: &str) {
    // Who is blocked is so while both environments work.
    for check in [check_reached, check_blocked] {
        std::thread::scope(|scope| {
            scope.spawn(|| check(pi, "prod", when));
            scope.spawn(|| check(pi, "preprod", when));
        });
    }
}

/// Who has just been started may not listen yet, so who does not answer is asked again.
fn check_reached(pi: &Server, own: &str, when: &str) {
    let container = format!("echo-{own}");
    let (store, echo) = if own == "prod" {
        (201, 202)
    } else {
        (231, 232)
    };
    let mut left = vec![
        ("tcp", 1, "the gateway"),
        ("ping", 1, "the gateway"),
        ("ping", 50, "the laptop"),
        ("ping", 204, "the host"),
        ("ping", 254, "the shim"),
        ("tcp", store, "its own environment"),
        ("udp", echo, "its own environment"),
        ("ping", store, "its own environment"),
    ];
    let begun = Instant::now();
    while let Some((protocol, _, what)) = left.first() {
        assert!(
            begun.elapsed() < SOON,
            "{own} does not reach {what} by {protocol} {when}"
        );
        let probes: Vec<(&str, u8)> = left
            .iter()
            .map(|(protocol, last, _)| (*protocol, *last))
            .collect();
        let mut answered = answers(pi, &container, &probes).into_iter();
        left.retain(|_| answered.next() == Some(false));
    }
    let by_name = format!("docker exec {container} busybox timeout 2 wget -q -O - http://store/");
    let mut page = String::new();
    wait_for("a page by name", SOON, || {
        page = pi.try_sh(&by_name).unwrap_or_default();
        !page.is_empty()
    });
    assert_eq!(page, format!("store of {own}\n"), "by name {when}");
}

fn check_blocked(pi: &Server, own: &str, when: &str) {
    let (page, echo) = if own == "prod" {
        (230, 232)
    } else {
        (200, 202)
    };
    // The gateway shows that the container could ask.
    let probes = [("ping", 1), ("tcp", page), ("udp", echo), ("ping", page)];
    let mut answered = Vec::new();
    wait_for("the gateway", SOON, || {
        answered = answers(pi, &format!("echo-{own}"), &probes);
        answered.first() == Some(&true)
    });
    assert_eq!(
        answered,
        [true, false, false, false],
        "{own} reaches the other environment, of {probes:?}, {when}"
    );
}

pub fn both_environments(pi: &Server) {
    import_perl(pi);
    pi.write("/etc/homelab/homelab.toml", &format!("{PLAN}{ECHO}"));
    pi.homelab("network-up").exits(0);
    pi.homelab("env-up").exits(0);
    pi.homelab("env-up --env prod").exits(0);
}

fn environments_are_kept_apart(suite: &str) {
    let (home, mut pi) = home_and_pi(suite);
    both_environments(&pi);
    check_apart(&pi, "in a fresh start");
    // Nobody turned IPv6 on, and Docker leaves it off in these networks; ipv6.rs has those who do.
    for container in ["whoami-prod", "whoami-preprod"] {
        let off = "cat /proc/sys/net/ipv6/conf/eth0/disable_ipv6";
        assert_eq!(pi.sh(&format!("docker exec {container} {off}")), "1\n");
    }
    pi.sh("docker restart -t 0 $(docker ps -q)");
    check_apart(&pi, "after a restart of the containers");
    pi.sh("systemctl restart docker");
    check_apart(&pi, "after a restart of Docker");
    let plan = format!("{PLAN}{ECHO}").replace("echo whoami of", "echo the new whoami of");
    pi.write("/etc/homelab/homelab.toml", &plan);
    pi.homelab("env-up")
        .exits(0)
        .says("created container whoami-preprod");
    check_apart(&pi, "after homelab made a container anew");
    for last in [200, 201, 230, 231] {
        assert!(
            home.laptop.page(lan(last)).is_some(),
            "the laptop reaches .{last}"
        );
        assert!(
            pi.host.page(lan(last)).is_some(),
            "the host reaches .{last}"
        );
    }
    pi.power_off();
    pi.boot();
    if suite != "sid" {
        pi.homelab("network-up").exits(0);
        pi.sh("systemctl restart docker");
    }
    pi.homelab("network-up").exits(0);
    pi.homelab("env-up").exits(0);
    check_apart(&pi, "after a reboot");
}

fn slices_follow_the_plan(suite: &str) {
    let (_home, pi) = home_and_pi(suite);
    let before = pi.leftovers();
    both_environments(&pi);
    let ids = pi.sh("docker ps -q --no-trunc");
    // A third environment takes addresses of the second: running containers of the first are kept from them at once.
    let plan = format!("{PLAN}{ECHO}").replace(
        "[env.preprod]\nrange = \"192.168.1.224-192.168.1.249\"",
        "[env.preprod]\nrange = \"192.168.1.224-192.168.1.239\"\n\n[env.pre-prod]\nrange = \"192.168.1.240-192.168.1.247\"",
    );
    pi.write("/etc/homelab/homelab.toml", &plan);
    pi.homelab("network-up")
        .exits(0)
        .says("changed slice homelab-prod.slice");
    pi.homelab("network-up").exits(0).says("nothing to do");
    pi.homelab("env-up").exits(0);
    check_apart(&pi, "with a third environment");
    let kept: Vec<String> = pi
        .sh("docker ps -q --no-trunc")
        .lines()
        .map(str::to_owned)
        .collect();
    for id in ids.lines() {
        assert!(kept.iter().any(|kept| kept == id), "{id} does not run");
    }
    // A `-` in the name of an environment does not put its slice inside another one.
    pi.sh("docker run -d --name third --network homelab-pre-prod --ip 192.168.1.240 --cgroup-parent 'homelab-pre\\x2dprod.slice' lab/web:1 httpd -f -p 80");
    assert!(
        !reaches(&pi, "third", "ping", 200),
        "the third reaches production"
    );
    assert!(
        !reaches(&pi, "third", "ping", 230),
        "the third reaches preproduction"
    );
    assert!(
        comes_to_reach(&pi, "third", "ping", 204),
        "the third reaches the host"
    );
    assert!(
        !reaches(&pi, "whoami-prod", "ping", 240),
        "production reaches the third"
    );
    pi.sh("docker rm -f third");
    pi.homelab("env-down").exits(0);
    // A process that somebody put into a slice is not killed.
    pi.sh("systemd-run --scope --slice=homelab-preprod.slice -q sh -c 'sleep 600 </dev/null >/dev/null 2>&1 &'");
    pi.homelab("env-down --env prod").exits(0);
    pi.homelab("network-down")
        .exits(1)
        .says("processes run in slice `homelab-preprod.slice`");
    pi.sh("kill $(cat /sys/fs/cgroup/homelab.slice/homelab-preprod.slice/*/cgroup.procs)");
    pi.homelab("network-down").exits(0);
    assert_eq!(pi.leftovers(), before, "nothing of ours is left");
}

fn what_would_undo_the_isolation_is_refused(suite: &str) {
    let (_home, pi) = home_and_pi(suite);
    both_environments(&pi);
    // By hand, for the running system.
    pi.sh("systemctl set-property --runtime homelab-prod.slice IPAddressDeny=");
    pi.homelab("env-up --env prod")
        .exits(1)
        .says("50-IPAddressDeny.conf` changes what it denies")
        .says("run `homelab network-up`");
    pi.homelab("network-up").exits(0);
    pi.homelab("network-up").exits(0).says("nothing to do");
    check_apart(&pi, "after network-up put the slice back");
    // By a drop-in of the owner, which is not touched.
    pi.write(
        "/etc/systemd/system/homelab-prod.slice.d/override.conf",
        "[Slice]\nIPAddressAllow=192.168.1.230\n",
    );
    pi.sh("systemctl daemon-reload");
    pi.homelab("network-up")
        .exits(1)
        .says("/etc/systemd/system/homelab-prod.slice.d/override.conf");
    pi.sh("rm -r /etc/systemd/system/homelab-prod.slice.d; systemctl daemon-reload");
    pi.homelab("network-up").exits(0);
    check_apart(&pi, "after the drop-in went");
    // Limits need controllers, which the virtual home has not: only the environment that has some is refused.
    let limited = PLAN.replace(
        "[env.preprod]",
        "[env.preprod]\nmemory = \"2g\"\ncpus = 1.5",
    );
    pi.write("/etc/homelab/homelab.toml", &limited);
    pi.homelab("network-up")
        .exits(0)
        .says("env-up will refuse")
        .says("`memory`");
    let limits =
        pi.sh("systemctl show homelab-preprod.slice -p MemoryMax -p CPUQuotaPerSecUSec | sort");
    assert_eq!(
        limits,
        "CPUQuotaPerSecUSec=1.500000s\nMemoryMax=2147483648\n"
    );
    pi.homelab("env-up")
        .exits(1)
        .says("cgroup v2 has no controller `memory`")
        .says("cgroup_enable=memory");
    pi.homelab("env-up --env prod --remove-orphans").exits(0);
    for protocol in ["tcp", "ping"] {
        assert!(!reaches(&pi, "whoami-prod", protocol, 230), "{protocol}");
    }
    pi.write("/etc/homelab/homelab.toml", PLAN);
    pi.sh("mkdir -p /etc/docker; echo '{\"exec-opts\": [\"native.cgroupdriver=cgroupfs\"]}' >/etc/docker/daemon.json; systemctl restart docker");
    pi.homelab("env-up")
        .exits(1)
        .says("the driver `cgroupfs`")
        .says("isolation = \"off\"");
    pi.homelab("network-up").exits(0).says("env-up will refuse");
}

fn without_isolation_environments_reach_each_other(suite: &str) {
    let (_home, pi) = home_and_pi(suite);
    both_environments(&pi);
    let off = format!("{PLAN}{ECHO}").replace("[network]", "[network]\nisolation = \"off\"");
    pi.write("/etc/homelab/homelab.toml", &off);
    pi.homelab("network-up")
        .exits(0)
        .says("containers still run in slice `homelab-prod.slice`");
    // Running containers follow.
    for (container, last) in [("whoami-prod", 230), ("whoami-preprod", 200)] {
        for protocol in ["tcp", "ping"] {
            assert!(
                comes_to_reach(&pi, container, protocol, last),
                "{container} by {protocol}"
            );
        }
    }
    pi.homelab("env-up").exits(0);
    pi.homelab("env-up --env prod").exits(0);
    pi.homelab("network-up")
        .exits(0)
        .says("removed file /etc/systemd/system/homelab-prod.slice");
    pi.homelab("network-up").exits(0).says("nothing to do");
    assert!(comes_to_reach(&pi, "whoami-prod", "tcp", 230));
    assert_eq!(
        pi.sh("systemctl list-units --all --plain --no-legend 'homelab-*.slice'"),
        ""
    );
    // And back.
    pi.write("/etc/homelab/homelab.toml", &format!("{PLAN}{ECHO}"));
    pi.homelab("env-up").exits(1).says("there is no slice");
    pi.homelab("network-up").exits(0);
    pi.homelab("env-up")
        .exits(0)
        .says("created container whoami-preprod");
    pi.homelab("env-up --env prod").exits(0);
    check_apart(&pi, "when it is enforced again");
}
