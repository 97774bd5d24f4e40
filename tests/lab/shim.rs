//! The shim as a service.

use crate::home::{BOOT, SOON, Server, wait_for};
use crate::isolation::{ECHO, both_environments, check_apart};
use crate::{PLAN, home_and_pi, lan, tests};
use std::time::{Duration, Instant};

tests! {
    every engine:
        the_service_comes_and_goes
        after_a_reboot_everything_is_as_before
        the_parent_may_be_late;
    one engine:
        the_other_commands_get_along_with_the_service
        what_disappears_comes_back_at_once
        whoever_fights_is_given_way
        a_program_that_cannot_be_run_is_found_and_replaced
}

pub const UNIT: &str = "homelab-shim.service";

pub fn journal(pi: &Server) -> String {
    pi.sh(&format!("journalctl -b -o cat --no-pager -u {UNIT}"))
}

fn the_service_comes_and_goes(suite: &str) {
    let (_home, pi) = home_and_pi(suite);
    let before = pi.leftovers();
    pi.homelab("shim install --dry-run").exits(3);
    assert_eq!(pi.leftovers(), before, "a dry run changes nothing");
    for _ in 0..2 {
        pi.homelab("shim install").exits(0);
    }
    pi.homelab("shim install").exits(0).says("nothing to do");
    pi.sh(&format!(
        "systemctl is-active {UNIT} && systemctl is-enabled {UNIT}"
    ));
    assert_eq!(
        pi.sh("ip -o -4 addr show homelab-shim | awk '{print $4}'; ip route show dev homelab-shim"),
        "192.168.1.254/32\n192.168.1.192/26 scope link src 192.168.1.254 \n"
    );
    let unit = pi.sh(&format!("cat /etc/systemd/system/{UNIT}"));
    assert!(
        unit.contains("ExecStart=/usr/local/bin/homelab --config /etc/homelab/homelab.toml "),
        "{unit}"
    );
    assert_eq!(pi.sh(&format!("systemd-analyze verify {UNIT} 2>&1")), "");
    let security = pi.sh(&format!("systemd-analyze security --no-pager {UNIT}"));
    let exposure = security
        .lines()
        .find_map(|line| line.split_once("exposure level for homelab-shim.service: "));
    let exposure = exposure.and_then(|(_, rest)| rest.split(' ').next()?.parse::<f64>().ok());
    let exposure = exposure.expect("systemd-analyze tells the exposure");
    eprintln!("{suite}: exposure {exposure}");
    assert!(exposure <= 1.1, "{security}");
    let log = journal(&pi);
    assert!(log.contains("the shim is there"), "{log}");
    // Another plan is not what the service keeps.
    pi.sh("cp /etc/homelab/homelab.toml /srv/other.toml");
    pi.homelab("--config /srv/other.toml network-up")
        .exits(1)
        .says("--config /etc/homelab/homelab.toml");
    pi.homelab("--config /srv/other.toml shim install")
        .exits(0)
        .says("restarted unit");
    pi.homelab("--config /srv/other.toml shim up")
        .exits(0)
        .says("nothing to do");
    pi.sh("rm /srv/other.toml");
    pi.homelab("shim install").exits(0);
    // A host that has another name in the plan is the same host.
    let renamed = PLAN.replace("hosts.raspberry-pi", "hosts.pi4");
    pi.write("/etc/homelab/homelab.toml", &renamed);
    pi.homelab("shim up")
        .exits(0)
        .says("changed file /etc/systemd/system/homelab-shim.service");
    pi.write("/etc/homelab/homelab.toml", PLAN);
    pi.homelab("shim up").exits(0);
    pi.homelab("shim uninstall --dry-run").exits(3);
    for _ in 0..2 {
        pi.homelab("shim uninstall").exits(0);
    }
    pi.homelab("shim uninstall").exits(0).says("nothing to do");
    assert_eq!(pi.leftovers(), before, "nothing of ours is left");

    // The owner's old unit of the same name is not overwritten.
    pi.write(
        "/etc/systemd/system/homelab-shim.service",
        "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=true\n",
    );
    pi.homelab("shim install")
        .exits(1)
        .says("that homelab did not make")
        .says("systemctl disable --now");
    pi.homelab("shim uninstall").exits(0).says("nothing to do");
    pi.sh("rm /etc/systemd/system/homelab-shim.service");
    check_places_of_the_plan(&pi);
    assert_eq!(pi.leftovers(), before, "a refusal changes nothing");
    // A program that no service should run.
    pi.sh("cp /usr/local/bin/homelab /root/homelab");
    let said = pi.try_sh("/root/homelab shim install");
    assert!(
        said.as_ref()
            .is_err_and(|said| said.contains("install /root/homelab /usr/local/bin/")),
        "{said:?}"
    );
}

fn check_places_of_the_plan(pi: &Server) {
    // The plan may be in somebody's home, but not be closed to the service.
    pi.sh("mkdir -p -m 700 /home/pi && cp /etc/homelab/homelab.toml /home/pi/");
    pi.homelab("--config /home/pi/homelab.toml shim install")
        .exits(0);
    pi.sh(&format!("systemctl is-active {UNIT}"));
    pi.homelab("shim uninstall").exits(0);
    pi.sh("chmod 600 /home/pi/homelab.toml");
    pi.homelab("--config /home/pi/homelab.toml shim install")
        .exits(1)
        .says("chmod o+r /home/pi/homelab.toml");
    pi.homelab("--config /home/pi/../pi/homelab.toml shim install")
        .exits(1)
        .says("chmod o+r /home/pi/homelab.toml");
    pi.sh("chmod 644 /home/pi/homelab.toml");
    // It is one file by whatever path.
    pi.homelab("--config /home/pi/../pi/homelab.toml shim install")
        .exits(0);
    pi.homelab("--config /home/pi/../../home/pi/homelab.toml shim up")
        .exits(0)
        .says("nothing to do");
    pi.homelab("shim uninstall").exits(0);
    // Nor where no service sees it, nor where systemd would read something else.
    pi.sh(
        "cp /home/pi/homelab.toml /root/; mkdir '/srv/a%n'; cp /home/pi/homelab.toml '/srv/a%n/'",
    );
    pi.homelab("--config /root/homelab.toml shim install")
        .exits(1)
        .says("in the home of root");
    pi.homelab("--config /srv/a%n/homelab.toml shim install")
        .exits(1)
        .says("cannot stand in the file of a unit");
    pi.sh("rm -r /home/pi /root/homelab.toml '/srv/a%n'");
}

fn the_other_commands_get_along_with_the_service(suite: &str) {
    let (home, pi) = home_and_pi(suite);
    let before = pi.leftovers();
    pi.homelab("shim install").exits(0);
    pi.homelab("network-up").exits(0);
    pi.homelab("network-up").exits(0).says("nothing to do");
    pi.homelab("env-up whoami").exits(0);
    let page = || pi.host.page(lan(230));
    assert_eq!(page().as_deref(), Some("whoami of preprod"));
    pi.homelab("shim down")
        .exits(0)
        .says("stopped unit homelab-shim.service");
    assert_eq!(
        pi.host.page_now(lan(230)),
        None,
        "without a shim the host does not reach its containers"
    );
    assert_eq!(
        home.laptop.page(lan(230)).as_deref(),
        Some("whoami of preprod")
    );
    pi.homelab("shim down").exits(0).says("nothing to do");
    pi.homelab("env-up whoami")
        .exits(1)
        .says("there is no link `homelab-shim`");
    pi.homelab("shim up")
        .exits(0)
        .says("started unit homelab-shim.service");
    pi.homelab("shim up").exits(0).says("nothing to do");
    assert_eq!(page().as_deref(), Some("whoami of preprod"));
    // Containers keep running when the service is restarted, and Docker can start its networks anew.
    pi.sh(&format!(
        "systemctl restart {UNIT} && systemctl restart docker"
    ));
    pi.homelab("network-up").exits(0).says("nothing to do");
    assert_eq!(page().as_deref(), Some("whoami of preprod"));

    pi.homelab("env-down").exits(0);
    pi.homelab("network-down").exits(0).says("stays installed");
    pi.homelab("network-down").exits(0).says("nothing to do");
    assert!(pi.try_sh("ip link show homelab-shim").is_err());
    pi.homelab("network-up").exits(0).says("started unit");
    pi.homelab("env-up whoami").exits(0);
    assert_eq!(page().as_deref(), Some("whoami of preprod"));
    // The plan moves the shim; the service follows.
    let moved = PLAN
        .replace("address = \"192.168.1.254\"", "address = \"192.168.1.252\"")
        .replace("192.168.1.250-192.168.1.253", "192.168.1.250-192.168.1.251");
    pi.homelab("env-down").exits(0);
    pi.write("/etc/homelab/homelab.toml", &moved);
    pi.homelab("network-up").exits(0).says("restarted unit");
    pi.homelab("network-up").exits(0).says("nothing to do");
    assert!(
        pi.sh("ip -4 addr show homelab-shim")
            .contains("192.168.1.252/32")
    );
    // Without the unit network-up makes the links itself again.
    pi.homelab("shim uninstall")
        .exits(0)
        .says("this host will not reach its containers");
    pi.homelab("network-up")
        .exits(0)
        .says("created link homelab-shim");
    pi.homelab("network-down").exits(0);
    assert_eq!(pi.leftovers(), before, "nothing of ours is left");
}

fn a_program_that_cannot_be_run_is_found_and_replaced(suite: &str) {
    let (_home, pi) = home_and_pi(suite);
    pi.sh("mkdir /opt/old /opt/new; cp /usr/local/bin/homelab /opt/old; cp /usr/local/bin/homelab /opt/new");
    pi.sh("/opt/old/homelab shim install");
    both_environments(&pi);
    let other =
        "`homelab-shim.service` runs `/opt/old/homelab`, and this is `/usr/local/bin/homelab`";
    pi.homelab("status")
        .exits(3)
        .says(other)
        .says("`homelab shim install`");
    // It works as it is.
    pi.homelab("network-up")
        .exits(0)
        .says(other)
        .says("nothing to do");
    pi.sh("/opt/old/homelab status");
    // It is gone, which nobody would notice until the next boot.
    pi.sh("rm -r /opt/old");
    pi.homelab("status")
        .exits(3)
        .says("its program /opt/old/homelab is missing, planned is /usr/local/bin/homelab")
        .says("`homelab network-up`");
    pi.homelab("network-up")
        .exits(0)
        .says("restarted unit homelab-shim.service");
    pi.homelab("network-up").exits(0).says("nothing to do");
    pi.homelab("status").exits(0);
    pi.sh(&format!("systemctl is-active {UNIT}"));
    // Root may run it, and the service may not.
    pi.sh(&format!(
        "/opt/new/homelab shim install; chmod 700 /opt/new/homelab; systemctl stop {UNIT}"
    ));
    let fault = "/opt/new/homelab is not executable for everybody";
    pi.homelab("status").exits(3).says(fault);
    let said = pi
        .try_sh("/opt/new/homelab network-up")
        .expect_err("it cannot be a service");
    assert!(said.contains("cannot run `/opt/new/homelab`"), "{said}");
    assert!(said.contains("`homelab shim install`"), "{said}");
    let said = pi
        .try_sh("/opt/new/homelab shim install")
        .expect_err("it cannot be a service");
    assert!(said.contains("chmod o+x"), "{said}");
    pi.sh("chmod 755 /opt/new/homelab; /opt/new/homelab network-up; /opt/new/homelab status; chmod 700 /opt/new");
    pi.homelab("shim install")
        .exits(0)
        .says("restarted unit homelab-shim.service");
    pi.homelab("status").exits(0);
}

/// Does damage and waits until the shim is whole again; how long that took since `possible` was done.
fn repaired_after(pi: &Server, damage: &str, possible: impl FnOnce()) -> Duration {
    let whole = "192.168.1.254/32\n192.168.1.192/26 scope link src 192.168.1.254 \n1\nhomelab: shim\n02:42:c0:a8:01:fe\n";
    let look = || {
        pi.try_sh(
            "ip -o -4 addr show up dev homelab-shim | awk '{print $4}'; ip route show dev homelab-shim | sed 's/ linkdown//'; \
             cat /proc/sys/net/ipv4/conf/homelab-shim/arp_filter; cat /sys/class/net/homelab-shim/ifalias /sys/class/net/homelab-shim/address",
        )
        .unwrap_or_default()
    };
    assert_eq!(look(), whole, "before {damage}");
    pi.sh(damage);
    possible();
    let begun = Instant::now();
    wait_for(damage, Duration::from_secs(20), || look() == whole);
    begun.elapsed()
}

fn what_disappears_comes_back_at_once(suite: &str) {
    let (home, pi) = home_and_pi(suite);
    pi.homelab("shim install").exits(0);
    for damage in [
        "ip addr del 192.168.1.254/32 dev homelab-shim",
        "ip route del 192.168.1.192/26 dev homelab-shim",
        "ip link set homelab-shim down",
        "ip link del homelab-shim",
        "ip link set eth0 down; ip link set eth0 up",
    ] {
        let took = repaired_after(&pi, damage, || {});
        eprintln!("{suite}: back after {:3} ms: {damage}", took.as_millis());
    }
    let took = repaired_after(&pi, "ip link del eth0", || {
        wait_for("the shim to miss its parent", SOON, || {
            journal(&pi).contains("waiting: there is no parent interface `eth0` yet")
        });
        home.plug_in(&pi.host, "pi", "192.168.1.204");
    });
    eprintln!(
        "{suite}: back after {:3} ms: the parent went and returned",
        took.as_millis()
    );
    let log = journal(&pi);
    assert!(
        log.contains("waiting: there is no parent interface `eth0` yet"),
        "{log}"
    );
    assert!(log.contains("docker restart"), "{log}");
    assert!(!log.contains("again and again"), "{log}");

    let used = || pi.sh(&format!("systemctl show -P CPUUsageNSec {UNIT}"));
    let pid = pi
        .sh(&format!("systemctl show -P MainPID {UNIT}"))
        .trim()
        .to_owned();
    let ticks = || pi.sh(&format!("awk '{{print $14 + $15}}' /proc/{pid}/stat"));
    // What was just put back is still heard of.
    std::thread::sleep(Duration::from_secs(1));
    let (before, ticks_before) = (used(), ticks());
    std::thread::sleep(Duration::from_secs(5));
    let memory = pi.sh(&format!(
        "awk '/^VmRSS|^RssAnon/ {{print $1, $2, $3}}' /proc/{pid}/status"
    ));
    eprintln!(
        "{suite}: CPU in 5 s without changes: {} to {} ns; memory {}",
        before.trim(),
        used().trim(),
        memory.replace('\n', ", ")
    );
    assert_eq!(
        ticks(),
        ticks_before,
        "it does nothing while nothing happens"
    );
}

fn whoever_fights_is_given_way(suite: &str) {
    let (_home, pi) = home_and_pi(suite);
    // In the foreground it works as well, and takes the shim along when it ends.
    let said = pi.sh(
        "timeout -s INT 2 homelab shim run 2>&1; echo $?; ip link show homelab-shim 2>&1 || true",
    );
    assert!(said.contains("the shim is there"), "{said}");
    assert!(said.contains("removed link homelab-shim"), "{said}");
    assert!(said.contains("does not exist"), "{said}");
    let said = pi.try_sh("setpriv --reuid=65534 --clear-groups homelab shim run");
    assert!(
        said.as_ref()
            .is_err_and(|said| said.contains("run homelab as root")),
        "{said:?}"
    );
    pi.homelab("shim install").exits(0);
    pi.sh("for i in $(seq 30); do ip link del homelab-shim 2>/dev/null; sleep 0.15; done");
    let log = journal(&pi);
    assert!(
        log.contains("takes the shim away again and again; waiting 1 s"),
        "{log}"
    );
    assert!(log.contains("ip monitor"), "{log}");
    // It does not give up, and neither does systemd.
    wait_for("the shim", Duration::from_secs(20), || {
        pi.try_sh("ip route | grep -q 192.168.1.192/26").is_ok()
    });
    pi.sh(&format!("systemctl is-active {UNIT}"));
    let main_pid = || pi.sh(&format!("systemctl show -P MainPID {UNIT}"));
    let killed = main_pid();
    pi.sh(&format!("kill -9 {killed}"));
    assert!(
        pi.sh("ip route").contains("192.168.1.192/26"),
        "the links outlive it"
    );
    wait_for("the service", SOON, || {
        pi.try_sh(&format!("systemctl is-active {UNIT}")).as_deref() == Ok("active\n")
            && main_pid() != killed
    });
}

/// Everything works although nobody did anything since the server started.
pub fn check_services(home: &crate::home::Home, pi: &Server) {
    for (last, page) in [
        (200, "whoami of prod"),
        (201, "store of prod"),
        (230, "whoami of preprod"),
        (231, "store of preprod"),
    ] {
        for (host, from) in [(&home.laptop, "the laptop"), (&pi.host, "the host")] {
            wait_for(
                &format!(".{last} to answer {from}"),
                Duration::from_secs(15),
                || host.page_now(lan(last)).as_deref() == Some(page),
            );
        }
    }
}

/// The shim was there before dockerd was started, as the journal has it of the last boot.
pub fn check_order(pi: &Server) {
    let lines = pi.sh(&format!(
        "journalctl -b -o short-monotonic --no-pager -u {UNIT} -u docker.service"
    ));
    let place = |words: &str| {
        lines
            .rfind(words)
            .unwrap_or_else(|| panic!("{words:?} is not in\n{lines}"))
    };
    // What a service writes before journald runs comes with the time at which journald starts.
    place("the shim is there");
    assert!(
        place("Started homelab-shim.service") < place("Starting docker.service"),
        "{lines}"
    );
}

fn addresses(pi: &Server) -> String {
    pi.sh("for c in $(docker ps --format '{{.Names}}' | sort); do echo $c; docker exec $c cat /sys/class/net/eth0/address; done; cat /sys/class/net/homelab-shim/address")
}

/// A service that pings production from the moment that it starts.
const EAGER: &str = r#"
[services.eager]
image       = "lab/web:1"
address     = { preprod = "192.168.1.233" }
command     = ["sh", "-c", "i=0; while [ $i -lt 100 ]; do /usr/bin/ping -c 1 -W 0.1 192.168.1.200 >/dev/null 2>&1 && touch /log/leak; /usr/bin/ping -c 1 -W 0.1 192.168.1.230 >/dev/null 2>&1 && touch /log/own; i=$((i+1)); echo $i >/log/tries; sleep 0.1; done; sleep 9999"]
volumes     = ["log:/log"]
restart     = "unless-stopped"
stop_signal = "SIGKILL"

[env.prod.services.eager]
enabled = false
"#;

fn after_a_reboot_everything_is_as_before(suite: &str) {
    let (home, mut pi) = home_and_pi(suite);
    pi.homelab("shim install").exits(0);
    both_environments(&pi);
    pi.write("/etc/homelab/homelab.toml", &format!("{PLAN}{ECHO}{EAGER}"));
    pi.homelab("env-up").exits(0);
    let before = addresses(&pi);
    let log = "/var/lib/docker/volumes/homelab-preprod_log/_data";
    pi.sh(&format!("rm {log}/tries"));
    pi.power_off();
    pi.boot();
    check_services(&home, &pi);
    check_order(&pi);
    check_apart(&pi, "after a reboot");
    assert_eq!(addresses(&pi), before, "hardware addresses stay");
    for line in ["network-up", "env-up", "env-up --env prod", "shim install"] {
        pi.homelab(line).exits(0).says("nothing to do");
    }
    wait_for("a hundred pings", Duration::from_secs(60), || {
        pi.try_sh(&format!("cat {log}/tries")).as_deref() == Ok("100\n")
    });
    assert!(
        pi.try_sh(&format!("cat {log}/leak")).is_err(),
        "not one ping came through"
    );
    pi.sh(&format!("cat {log}/own"));
}

fn the_parent_may_be_late(suite: &str) {
    let (home, mut pi) = home_and_pi(suite);
    pi.homelab("shim install").exits(0);
    both_environments(&pi);
    pi.power_off();
    pi.unplug();
    pi.switch_on();
    let waiting = "waiting: there is no parent interface `eth0` yet";
    wait_for("the shim to wait for its parent", BOOT, || {
        pi.is_on()
            && pi
                .try_sh(&format!("journalctl -b -o cat --no-pager -u {UNIT}"))
                .is_ok_and(|log| log.contains(waiting))
    });
    // Nothing else keeps Docker from being started by then.
    wait_for("Docker's turn", BOOT, || {
        let jobs = pi.sh("systemctl list-jobs --no-legend --no-pager");
        let mut others = jobs.lines().filter(|job| !job.contains(UNIT));
        others.all(|job| job.trim_end().ends_with("waiting"))
    });
    assert!(
        pi.try_sh("systemctl is-active docker").is_err(),
        "Docker waits for the shim"
    );
    home.plug_in(&pi.host, "pi", "192.168.1.204");
    pi.wait_for_docker();
    check_services(&home, &pi);
    check_order(&pi);
    let log = journal(&pi);
    assert!(log.contains(waiting), "{log}");
    assert!(!log.contains("Docker was started without"), "{log}");
    check_apart(&pi, "after the parent was late");
}
