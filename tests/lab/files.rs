//! Files that are missing, wrong, cut off, or cannot be written: the shim stays, and the next run repairs them.

use crate::home::{SOON, Server, wait_for};
use crate::isolation::both_environments;
use crate::shim::{UNIT, check_order, check_services, journal};
use crate::{PLAN, home_and_pi, tests};
use std::time::{Duration, Instant};

tests! {
    every engine:
        a_boot_with_a_bad_file_goes_as_before
        files_that_were_cut_off_are_finished
        the_service_needs_no_disk;
    one engine:
        the_service_goes_on_without_its_file
        a_file_in_a_home_folder_is_followed_too
        without_any_plan_docker_starts_and_the_shim_comes_with_the_file
        a_full_or_read_only_disk_leaves_nothing_half_written
}

const FILE: &str = "/etc/homelab/homelab.toml";

/// What is done to the file, and what the service says of it.
const DAMAGE: [(&str, &str); 4] = [
    ("rm /etc/homelab/homelab.toml", "does not exist"),
    ("echo nonsense >/etc/homelab/homelab.toml", "is wrong"),
    (": >/etc/homelab/homelab.toml", "is wrong"),
    ("chmod 600 /etc/homelab/homelab.toml", "may not be read"),
];

/// What `systemctl status` shows of the service.
fn status(pi: &Server) -> String {
    pi.sh(&format!("systemctl show -P StatusText {UNIT}"))
}

fn shim(pi: &Server) -> String {
    pi.try_sh(
        "ip -o -4 addr show up dev homelab-shim | awk '{print $4}'; ip route show dev homelab-shim",
    )
    .unwrap_or_default()
}

const SHIM: &str = "192.168.1.254/32\n192.168.1.192/26 scope link src 192.168.1.254 \n";

/// The service keeps the shim by its copy of the plan, and says why.
fn check_goes_on(pi: &Server, said: &str) {
    assert_eq!(shim(pi), SHIM);
    let status = status(pi);
    let expected = format!(
        "the shim is there, by the last plan that was right: `/etc/homelab/homelab.toml` {said}\n"
    );
    assert_eq!(status, expected);
    let log = journal(pi);
    let expected = format!("`/etc/homelab/homelab.toml` {said}; the shim is kept by the last plan");
    assert!(log.contains(&expected), "{log}");
}

/// The file is right again, and the service follows by itself.
fn check_follows(pi: &Server) {
    pi.write(FILE, PLAN);
    pi.sh(&format!("chmod 644 {FILE}"));
    wait_for("the service to follow the file", SOON, || {
        status(pi) == "the shim is there\n"
    });
    assert_eq!(shim(pi), SHIM);
    assert_eq!(
        pi.sh(&format!("systemctl show -P NRestarts {UNIT}")),
        "0\n",
        "it never ended by itself"
    );
}

fn the_service_goes_on_without_its_file(suite: &str) {
    let (_home, pi) = home_and_pi(suite);
    let before = pi.leftovers();
    pi.homelab("shim install").exits(0);
    let copy = "/var/lib/private/homelab-shim/homelab.toml";
    let kept = || pi.sh(&format!("cat {copy}; stat -c '%a %i' {copy}"));
    assert!(kept().starts_with(PLAN), "{}", kept());
    let number = kept();
    for (damage, said) in DAMAGE {
        pi.sh(damage);
        assert_eq!(shim(&pi), SHIM, "it has read the file before");
        pi.sh(&format!("systemctl restart {UNIT}"));
        check_goes_on(&pi, said);
        check_follows(&pi);
        assert_eq!(kept(), number, "what is the same is not written again");
    }
    // What is wrong is told again when it is something else.
    pi.sh(&format!("rm {FILE}; systemctl restart {UNIT}"));
    pi.write(FILE, "nonsense = true\n");
    wait_for("the service to see another mistake", SOON, || {
        status(&pi).contains("is wrong")
    });
    let log = journal(&pi);
    assert!(log.contains("nonsense"), "{log}");
    // It follows also to another plan, as a start with that would.
    let moved = PLAN
        .replace("address = \"192.168.1.254\"", "address = \"192.168.1.252\"")
        .replace("192.168.1.250-192.168.1.253", "192.168.1.250-192.168.1.251")
        .replace("[shim]\n", "[shim]\nname = \"way\"\n");
    pi.write(FILE, &moved);
    wait_for("the shim of the new plan", SOON, || {
        pi.try_sh("ip -4 addr show dev way")
            .is_ok_and(|shown| shown.contains("192.168.1.252/32"))
    });
    assert_eq!(shim(&pi), "", "the former one went");
    assert!(kept().starts_with(&moved), "{}", kept());
    // A host that the plan does not have is as bad as a file that is wrong.
    pi.write(FILE, &moved.replace("hosts.raspberry-pi", "hosts.pi4"));
    pi.sh(&format!("systemctl restart {UNIT}"));
    assert!(
        status(&pi).contains("no host `raspberry-pi`"),
        "{}",
        status(&pi)
    );
    pi.homelab("shim up").exits(0).says("changed file");
    assert_eq!(status(&pi), "the shim is there\n");
    // By hand it says what is wrong and ends.
    pi.sh(&format!("rm {FILE}"));
    let said = pi.try_sh("homelab --config /etc/homelab/homelab.toml shim run");
    assert!(said.is_err_and(|said| said.contains("does not exist")));
    pi.write(FILE, PLAN);
    pi.homelab("shim uninstall").exits(0);
    assert_eq!(pi.leftovers(), before, "nothing of ours is left");
}

fn a_file_in_a_home_folder_is_followed_too(suite: &str) {
    let (_home, pi) = home_and_pi(suite);
    let file = "/home/pi/homelab.toml";
    pi.sh(&format!("mkdir -p -m 700 /home/pi && cp {FILE} {file}"));
    pi.homelab(&format!("--config {file} shim install"))
        .exits(0);
    // An editor puts another file into its place.
    pi.sh(&format!(
        "echo nonsense >{file}.new; mv {file}.new {file}; systemctl restart {UNIT}"
    ));
    assert!(
        status(&pi).contains("by the last plan that was right"),
        "{}",
        status(&pi)
    );
    pi.sh(&format!("cp {FILE} {file}.new; mv {file}.new {file}"));
    wait_for("the service to follow the file", SOON, || {
        status(&pi) == "the shim is there\n"
    });
    assert_eq!(shim(&pi), SHIM);
    // It is gone, and the shim stays.
    pi.sh(&format!("rm {file}; systemctl restart {UNIT}"));
    assert!(status(&pi).contains("does not exist"), "{}", status(&pi));
    assert_eq!(shim(&pi), SHIM);
}

fn a_boot_with_a_bad_file_goes_as_before(suite: &str) {
    let (home, mut pi) = home_and_pi(suite);
    pi.homelab("shim install").exits(0);
    both_environments(&pi);
    let plan = pi.sh(&format!("cat {FILE}"));
    for (damage, said) in DAMAGE {
        pi.sh(damage);
        pi.power_off();
        pi.boot();
        check_goes_on(&pi, said);
        check_order(&pi);
        check_services(&home, &pi);
        let log = journal(&pi);
        assert!(!log.contains("Docker was started without"), "{log}");
        check_follows(&pi);
        pi.write(FILE, &plan);
    }
    for line in ["network-up", "env-up", "env-up --env prod", "shim install"] {
        pi.homelab(line).exits(0).says("nothing to do");
    }
}

/// A minute of waiting is the same on every engine, so one has to do: one whose second network stands on a parent link.
fn without_any_plan_docker_starts_and_the_shim_comes_with_the_file(suite: &str) {
    let (home, mut pi) = home_and_pi(suite);
    pi.homelab("shim install").exits(0);
    both_environments(&pi);
    let plan = pi.sh(&format!("cat {FILE}"));
    pi.sh(&format!(
        "rm /var/lib/private/homelab-shim/homelab.toml; echo nonsense >{FILE}"
    ));
    pi.power_off();
    let begun = Instant::now();
    pi.boot();
    assert!(
        begun.elapsed() > Duration::from_secs(55),
        "Docker waits for a while"
    );
    let waiting =
        "waiting: `/etc/homelab/homelab.toml` is wrong, and there is no earlier plan to go on with";
    assert_eq!(status(&pi), format!("{waiting}\n"));
    let log = journal(&pi);
    assert!(log.contains(waiting), "{log}");
    assert!(log.contains("what waits for it starts without it"), "{log}");
    check_follows(&pi);
    let log = journal(&pi);
    let lost = "Docker was started without the parent links";
    assert!(log.contains(lost), "{log}");
    pi.write(FILE, &plan);
    pi.sh("systemctl restart docker");
    check_services(&home, &pi);
    // Docker has them now: when they are away for a while, it was not started without them.
    pi.unplug();
    wait_for("the shim to miss its parent", SOON, || {
        journal(&pi).contains("there is no parent interface `eth0` yet")
    });
    home.plug_in(&pi.host, "pi", "192.168.1.204");
    wait_for("the shim", SOON, || shim(&pi) == SHIM);
    wait_for("the advice", SOON, || {
        journal(&pi).contains("the interfaces of containers went with the parent")
    });
    assert_eq!(journal(&pi).matches(lost).count(), 1, "{}", journal(&pi));
}

/// The files of ours that a power cut may cut off, after `network-up` beside the service.
const OURS: [&str; 3] = [
    "/etc/systemd/system/homelab-shim.service",
    "/etc/systemd/system/homelab-prod.slice",
    "/etc/systemd/network/00-homelab-shim.network",
];

fn files_that_were_cut_off_are_finished(suite: &str) {
    let (_home, pi) = home_and_pi(suite);
    let before = pi.leftovers();
    pi.sh("mkdir -p /etc/systemd/network");
    pi.homelab("shim install").exits(0);
    pi.homelab("network-up").exits(0);
    let [unit, slice, networkd] = OURS;
    let texts = || pi.sh(&format!("cat {unit} {slice} {networkd}"));
    let whole = texts();
    // What is left of the files, and whether the service runs: it does not after the power cut that did it.
    for (bytes, stop, line) in [
        (0, true, "network-up"),
        (7, true, "shim install"),
        (150, true, "network-up"),
        (400, true, "shim install"),
        (0, false, "network-up"),
    ] {
        let files = if line == "network-up" {
            format!("{unit} {slice} {networkd}")
        } else {
            format!("{unit} {networkd}")
        };
        let stop = if stop { "stop" } else { "is-active" };
        pi.sh(&format!(
                "systemctl {stop} {UNIT}; for file in {files}; do head -c {bytes} $file >/tmp/part; cat /tmp/part >$file; done; systemctl daemon-reload"
            ));
        pi.homelab("status")
            .exits(3)
            .says("is cut off, planned is whole");
        pi.homelab(line).exits(0).says("changed file");
        pi.homelab("network-up").exits(0).says("nothing to do");
        pi.homelab("shim install").exits(0).says("nothing to do");
        assert_eq!(texts(), whole, "{line} after {bytes} bytes");
        assert_eq!(shim(&pi), SHIM);
        pi.sh(&format!(
            "systemctl is-active {UNIT}; systemctl is-enabled {UNIT}"
        ));
    }
    for bytes in [0, 150] {
        pi.sh(&format!(
            "systemctl stop {UNIT}; for file in {}; do head -c {bytes} $file >/tmp/part; cat /tmp/part >$file; done; systemctl daemon-reload",
            OURS.join(" ")
        ));
        pi.homelab("network-down").exits(0);
        pi.homelab("shim uninstall").exits(0);
        pi.homelab("shim uninstall").exits(0).says("nothing to do");
        assert_eq!(pi.leftovers(), before, "after {bytes} bytes");
        pi.homelab("shim install").exits(0);
        pi.homelab("network-up").exits(0);
    }
    // What begins otherwise is somebody's, and so is a unit that was masked.
    for (stranger, is_there) in [
        (format!("printf '# Made by h.' >{unit}"), "# Made by h."),
        (format!("ln -sf /dev/null {unit}"), ""),
    ] {
        pi.homelab("network-down").exits(0);
        pi.homelab("shim uninstall").exits(0);
        pi.sh(&stranger);
        pi.homelab("shim install")
            .exits(1)
            .says("that homelab did not make");
        pi.homelab("shim uninstall").exits(0).says("nothing to do");
        assert_eq!(pi.sh(&format!("cat {unit}")), is_there);
        pi.sh(&format!("rm {unit}"));
        pi.homelab("network-up").exits(0);
    }
}

fn a_full_or_read_only_disk_leaves_nothing_half_written(suite: &str) {
    let (_home, pi) = home_and_pi(suite);
    let folder = "/etc/systemd/system";
    let list = || pi.sh(&format!("cd {folder} && find . | sort"));
    // A page of a tmpfs is the least that a file takes.
    pi.sh(&format!("mount -t tmpfs -o size=64k tmpfs {folder}"));
    let use_up = || pi.try_sh(&format!("cat /dev/zero >{folder}/ballast"));
    let make_room = || pi.sh(&format!("rm {folder}/ballast; systemctl daemon-reload"));
    assert!(use_up().is_err(), "it becomes full");
    let refuses = |line: &str, file: &str| {
        pi.homelab(line)
            .exits(1)
            .says(&format!(
                "cannot change `{folder}/{file}`: its file system is full"
            ))
            .says(&format!("`df -h {folder}`"));
    };
    refuses("shim install", "homelab-shim.service");
    assert_eq!(list(), ".\n./ballast\n");
    make_room();
    pi.homelab("shim install").exits(0);
    assert!(use_up().is_err(), "it becomes full");
    let had = list();
    refuses("network-up", "homelab-prod.slice");
    assert_eq!(list(), had, "no part of a file is left");
    assert_eq!(shim(&pi), SHIM);
    make_room();
    pi.homelab("network-up").exits(0);
    pi.homelab("network-up").exits(0).says("nothing to do");

    let read_only = |line: &str| {
        let had = list();
        pi.sh(&format!("mount -o remount,ro {folder}"));
        pi.homelab(line)
            .exits(1)
            .says(": its file system is read-only")
            .says("remount,rw");
        assert_eq!(list(), had, "{line} leaves the files alone");
        pi.sh(&format!("mount -o remount,rw {folder}"));
        pi.homelab(line).exits(0);
        pi.homelab(line).exits(0).says("nothing to do");
    };
    read_only("network-down");
    read_only("network-up");
    pi.homelab("network-down").exits(0);
    read_only("shim uninstall");
    read_only("shim install");
    pi.sh(&format!(
        "systemctl stop {UNIT}; umount {folder}; systemctl daemon-reload"
    ));
}

fn the_service_needs_no_disk(suite: &str) {
    let (_home, pi) = home_and_pi(suite);
    pi.homelab("shim install").exits(0);
    // Where its copy belongs there is no room for it, and then no way to write.
    pi.sh(&format!(
        "systemctl stop {UNIT}; mount -t tmpfs -o size=4k,mode=700 tmpfs /var/lib/private; \
         mkdir /var/lib/private/homelab-shim; cat /dev/zero >/var/lib/private/ballast || true"
    ));
    for (disk, why) in [
        ("true", "is full"),
        ("mount -o remount,ro /var/lib/private", "is read-only"),
    ] {
        pi.sh(&format!("{disk}; systemctl restart {UNIT}"));
        assert_eq!(shim(&pi), SHIM);
        assert_eq!(status(&pi), "the shim is there\n");
        let log = journal(&pi);
        let expected = format!("homelab.toml`: its file system {why}");
        assert!(log.contains(&expected), "{log}");
    }
    pi.sh(&format!("systemctl stop {UNIT}; umount /var/lib/private"));
}
