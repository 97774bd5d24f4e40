//! Several commands at once: one changes the machine, the others wait for it and say so; a dead one locks nobody out.

use crate::home::{SOON, Server, wait_for};
use crate::pool::borrow;
use crate::{PLAN, lan, tests};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};

tests! {
    every engine:
        commands_at_once_end_well
        a_stop_that_nobody_waits_for_any_more_is_seen;
    one engine:
        the_second_waits_for_the_first_and_says_so
}

fn start(pi: &Server, line: &str) -> Child {
    let mut command = pi.command("homelab");
    command.args(line.split(' ')).stderr(Stdio::piped());
    command
        .stdout(Stdio::piped())
        .spawn()
        .expect("nsenter runs")
}

/// Sends a signal to a command in the server. nsenter stands still with what it began, and does not go on by itself.
fn send(pi: &Server, signal: &str, process: &str, child: &Child) {
    pi.sh(&format!("kill -{signal} {process}"));
    let own = Pid::from_raw(i32::try_from(child.id()).expect("a process"));
    kill(own, Signal::SIGCONT).expect("it is ours");
}

/// Ends with what it said on standard error.
fn ended(line: &str, child: Child) -> String {
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{line}: {said}");
    said
}

fn commands_at_once_end_well(suite: &str) {
    let loan = borrow(suite);
    let (home, pi) = loan.parts();
    let rounds = [
        ["network-up", "network-up", "shim up"],
        ["env-up", "env-up", "env-up --env prod"],
        ["env-up --force-recreate", "env-up", "network-up"],
        [
            "env-down whoami",
            "env-up",
            "env-up --env prod --force-recreate",
        ],
    ];
    for lines in rounds {
        let children = lines.map(|line| (line, start(pi, line)));
        for (line, child) in children {
            ended(line, child);
        }
    }
    pi.homelab("network-up").exits(0).says("nothing to do");
    pi.homelab("env-up").exits(0);
    pi.homelab("env-up --env prod")
        .exits(0)
        .says("nothing to do");
    assert!(home.laptop.page(lan(230)).is_some());
}

/// A command that stands still in the middle of its work.
fn frozen(pi: &Server, line: &str) -> (Child, String) {
    let child = start(pi, line);
    let mut process = String::new();
    wait_for("the turn to be taken", SOON, || {
        let found = pi.try_sh("grep -q ' @homelab$' /proc/net/unix && pidof homelab");
        found.unwrap_or_default().trim().clone_into(&mut process);
        !process.is_empty()
    });
    pi.sh(&format!("kill -STOP {process}"));
    (child, process)
}

fn the_second_waits_for_the_first_and_says_so(suite: &str) {
    let loan = borrow(suite);
    let (_home, pi) = loan.parts();
    pi.homelab("network-up").exits(0);
    pi.homelab("env-up --env prod").exits(0);
    let (first, process) = frozen(pi, "env-up --env prod --force-recreate");
    let holder = format!("`homelab env-up --env prod --force-recreate` (process {process})");
    pi.homelab("env-up --no-wait")
        .exits(1)
        .says(&format!("{holder} is changing this machine"))
        .says("without `--no-wait`");
    // Whoever only looks never waits.
    pi.homelab("check").exits(0);
    pi.homelab("ps --env prod").exits(0);
    pi.homelab("network-up --dry-run").exits(0);
    pi.homelab("env-down --env prod --dry-run").exits(3);
    assert_ne!(pi.homelab("status").status, Some(1));

    let mut second = start(pi, "env-up");
    let mut said = String::new();
    let errors = second.stderr.take().expect("a pipe");
    // It says so before it waits, so the first goes on only then.
    BufReader::new(errors)
        .read_line(&mut said)
        .expect("it says something");
    assert!(said.contains("waiting for "), "{said}");
    let third = start(pi, "env-up --env prod");
    send(pi, "CONT", &process, &first);
    ended("the first", first);
    ended("the third", third);
    assert!(second.wait().expect("it ends").success());

    // One that is killed locks nobody out, wherever it was.
    for _ in 0..3 {
        let (mut dead, process) = frozen(pi, "env-up --env prod --force-recreate");
        let waiting = start(pi, "env-up --env prod");
        send(pi, "KILL", &process, &dead);
        dead.wait().expect("it ends");
        ended("who waited for a dead one", waiting);
    }
    // The Engine may still be stopping what the last dead one asked it to stop.
    wait_for("a run with nothing to do", SOON, || {
        let run = pi.homelab("env-up --env prod").exits(0);
        run.stderr.contains("nothing to do")
    });
    pi.homelab("env-up").exits(0);
    pi.homelab("status").exits(0);
}

/// As the first process of a container it does not end by a signal that it has no handler for.
const STUBBORN: &str = r#"
[services.stubborn]
image             = "lab/web:1"
command           = ["sleep", "600"]
restart           = "always"
stop_grace_period = "4s"
"#;

/// The Engine goes on stopping a container when homelab was killed meanwhile.
fn a_stop_that_nobody_waits_for_any_more_is_seen(suite: &str) {
    let loan = borrow(suite);
    let (_home, pi) = loan.parts();
    pi.write("/etc/homelab/homelab.toml", &format!("{PLAN}{STUBBORN}"));
    pi.homelab("network-up").exits(0);
    pi.homelab("env-up stubborn").exits(0);
    let is_asked =
        "docker events --since 60s --until 0s --filter event=kill | grep -q stubborn-preprod";
    let mut down = start(pi, "env-down stubborn");
    wait_for("the stop", SOON, || pi.try_sh(is_asked).is_ok());
    pi.sh("kill -KILL $(pidof homelab)");
    down.wait().expect("it ends");
    pi.homelab("env-up stubborn --dry-run")
        .says("Docker is just stopping `stubborn-preprod`");
    pi.homelab("env-up stubborn")
        .exits(0)
        .says("waiting until Docker has stopped `stubborn-preprod`")
        .says("started container stubborn-preprod");
    // Another signal ends nothing, and is not waited for.
    pi.sh("docker kill -s USR1 stubborn-preprod");
    let again = pi.homelab("env-up stubborn").exits(0).says("nothing to do");
    assert!(!again.stderr.contains("waiting"), "{}", again.stderr);
}
