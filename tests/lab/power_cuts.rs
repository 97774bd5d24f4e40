//! Power that is lost at any moment of any command: the server has a disk of its own, on which afterwards is what was synced and
//! nothing else. Files of ours are whole or absent, and the next run completes.

use crate::home::{SOON, Server, wait_for};
use crate::kills::{Dice, FILE, Running, other_plan, rounds};
use crate::shim::UNIT;
use crate::{PLAN, home_and_pi_with_a_disk, lan, tests};
use std::collections::BTreeSet;
use std::time::Duration;

tests! {
    every engine:
        power_cut_at_any_moment
        what_was_done_outlives_a_power_cut;
    one engine:
}

/// The files of ours with all that is in them, and the links to them. How the name of a network's parent link ends is drawn anew by
/// each run that makes the network.
fn files(pi: &Server) -> BTreeSet<String> {
    let found = pi.sh(
        "find /etc /var/lib/private /var/lib/homelab* -path '*homelab*' ! -path '/etc/homelab*' \
         \\( -type f -printf '%p ' -exec sh -c \"sed 's/hl-\\([a-z]*\\)-[a-z0-9]*/hl-\\1-/g' {} | base64 -w 0\" \\; -printf '\\n' -o -type l -printf '%p %l\\n' \\) 2>/dev/null || true",
    );
    found.lines().map(str::to_owned).collect()
}

/// What people wrote is on the disk.
fn write(pi: &Server, plan: &str) {
    pi.write(FILE, plan);
    pi.sh("sync");
}

fn cut_and_boot(pi: &mut Server) {
    pi.cut_power();
    pi.boot();
}

/// Runs a command as a person does after a boot, who does what homelab says, until it is done.
fn follow_hints(pi: &Server, line: &str) {
    for _ in 0..4 {
        let run = pi.homelab(line);
        if run.stderr.contains("`systemctl restart docker`") {
            pi.sh("systemctl restart docker");
        } else if run.stderr.contains("run `homelab network-up`") {
            follow_hints(pi, "network-up");
        } else {
            run.exits(0);
            return;
        }
    }
    pi.homelab(line).exits(0);
}

/// Makes all of the plan run.
fn repair(pi: &Server) {
    for line in [
        "network-up",
        "env-up --remove-orphans",
        "env-up --env prod --remove-orphans",
    ] {
        follow_hints(pi, line);
    }
}

fn all_is_as_planned(pi: &Server) {
    for line in ["network-up", "env-up", "env-up --env prod"] {
        pi.homelab(&format!("{line} --dry-run")).exits(0);
    }
    for last in [200, 201, 230, 231] {
        wait_for(&format!(".{last}"), SOON, || {
            pi.host.page_now(lan(last)).is_some()
        });
    }
    pi.homelab("status").exits(0);
}

fn what_was_done_outlives_a_power_cut(suite: &str) {
    let (_home, mut pi) = home_and_pi_with_a_disk(suite);
    pi.sh("mkdir -p /etc/systemd/network; sync");
    let before = pi.leftovers();
    let none = files(&pi);
    pi.homelab("network-up").exits(0);
    let had = files(&pi);
    cut_and_boot(&mut pi);
    assert_eq!(files(&pi), had, "network-up");
    // Until a slice is applied its file has another mode.
    let modes = pi.sh("stat -c %a /etc/systemd/system/homelab-*.slice");
    assert_eq!(modes, "644\n644\n");

    pi.homelab("shim install").exits(0);
    let had = files(&pi);
    cut_and_boot(&mut pi);
    assert_eq!(files(&pi), had, "shim install");
    assert!(had.iter().any(|file| file.contains(UNIT)), "{had:?}");
    pi.sh(&format!("systemctl is-active {UNIT}"));
    repair(&pi);
    // The Engine leaves it to the kernel when the state of its containers reaches the disk.
    pi.sh("sync");
    cut_and_boot(&mut pi);
    all_is_as_planned(&pi);

    for line in [
        "env-down",
        "env-down --env prod",
        "network-down",
        "shim uninstall",
    ] {
        pi.homelab(line).exits(0);
    }
    cut_and_boot(&mut pi);
    let left = files(&pi);
    assert_eq!(left, none, "shim uninstall");
    assert_eq!(pi.leftovers(), before);
}

/// What comes before a command so that it has something to do, and the command.
const LINES: [(&[&str], &str); 11] = [
    (&["shim uninstall"], "shim install"),
    (&["shim install"], "shim uninstall"),
    (&["shim down"], "shim up"),
    (&["shim up"], "shim down"),
    (
        &["env-down", "env-down --env prod", "network-down"],
        "network-up",
    ),
    (&["env-down", "env-down --env prod"], "network-down"),
    (&["env-down"], "env-up"),
    (&[], "env-up --force-recreate"),
    (&[], "env-down"),
    (&["another plan"], "network-up"),
    (&["another plan", "network-up"], "env-up"),
];

/// Starts a command and cuts the power at any moment; says when that was.
fn cut_during(pi: &mut Server, dice: &mut Dice, line: &str) -> String {
    let mut running = Running::start(pi, line);
    let (steps, delay) = match dice.number(2) {
        0 => (dice.number(5), dice.time(Duration::from_millis(40))),
        _ => (0, dice.time(Duration::from_millis(1200))),
    };
    running.comes_to(steps);
    std::thread::sleep(delay);
    pi.cut_power();
    let (status, said) = running.ends(None);
    format!("{status}, {delay:?} after {steps} steps\n{said}")
}

fn power_cut_at_any_moment(suite: &str) {
    let (_home, mut pi) = home_and_pi_with_a_disk(suite);
    let mut dice = Dice::new();
    let mut under_way = 0;
    let all = rounds("HOMELAB_POWER_CUTS", 2);
    let other = other_plan();
    for round in 0..all {
        // With and without the service, in turn.
        let shim = match round % 2 {
            0 => "shim install",
            _ => "shim uninstall",
        };
        let (plan, another) = dice.one_of(&[(PLAN, other.as_str()), (&other, PLAN)]);
        pi.sh("mkdir -p /etc/systemd/network");
        write(&pi, plan);
        pi.homelab(shim).exits(0);
        repair(&pi);
        let (first, line) = dice.one_of(&LINES);
        for line in first {
            match *line {
                "another plan" => write(&pi, another),
                line => drop(pi.homelab(line).exits(0)),
            }
        }
        // The Engine leaves it to the kernel when what it was told reaches the disk.
        pi.sh("sync");
        let before = files(&pi);
        let cut = cut_during(&mut pi, &mut dice, line);
        under_way += usize::from(!cut.starts_with("exit status: 0"));
        let what = format!("{shim}, then {line}: {cut}");
        pi.boot();
        let found = files(&pi);
        follow_hints(&pi, line);
        let settled = line.replace(" --force-recreate", "");
        let left = pi.homelab(&format!("{settled} --dry-run"));
        assert_eq!(left.status, Some(0), "{what}{}{}", left.stdout, left.stderr);
        let after = files(&pi);
        repair(&pi);
        all_is_as_planned(&pi);
        let repaired = files(&pi);
        let is_in_its_place = |line: &&String| !line.contains(".homelab-new ");
        assert!(repaired.iter().all(|file| is_in_its_place(&file)), "{what}");
        let whole: BTreeSet<&String> = before.iter().chain(&after).chain(&repaired).collect();
        for file in found.iter().filter(is_in_its_place) {
            assert!(whole.contains(file), "{what}{file}");
        }
    }
    eprintln!("{suite}: {all} power cuts, {under_way} of them while the command ran");
}
