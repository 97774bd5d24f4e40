//! The main job, shown in the virtual home: `tests/demo.sh` runs it. The argument is the program.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a demonstration prints, and ends when it cannot go on"
)]
#![allow(dead_code, reason = "the tests use more of the home")]

mod home;

use home::{Home, Host, Server, wait_for};
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

const PLAN: &str = include_str!("homelab.toml");

/// How often each command is timed, and how often it runs each time.
const ROUNDS: usize = 7;
const RUNS: usize = 10;

fn main() {
    let program = std::env::args()
        .nth(1)
        .expect("the argument is the program");
    println!(
        "A home in network namespaces: router 192.168.1.1, laptop 192.168.1.50, and a Raspberry Pi"
    );
    println!(
        "192.168.1.204 with systemd and Docker. Nothing of it touches this machine's own network.\n"
    );
    let home = Home::new(Path::new(&program));
    let mut pi = home.server("trixie", "pi", "192.168.1.204");
    pi.import_image("lab/web:1");
    pi.write("/etc/homelab/homelab.toml", PLAN);
    let before = pi.leftovers();

    for line in [
        "check",
        "network-up --dry-run",
        "shim install",
        "network-up",
        "env-up",
        "env-up --env prod",
        "verify",
    ] {
        show(&pi, line);
    }
    println!("The same without homelab, by the pages that the services serve:\n");
    matrix(&home, &pi);
    show(&pi, "network-up");
    speed(&pi);
    repairs(&home, &pi);
    println!("A power cut, and nobody logs in:\n");
    pi.power_off();
    pi.boot();
    wait_for("the services", Duration::from_secs(20), || {
        home.laptop
            .page_now(Ipv4Addr::new(192, 168, 1, 231))
            .is_some()
            && home
                .laptop
                .page_now(Ipv4Addr::new(192, 168, 1, 201))
                .is_some()
    });
    show(&pi, "status");
    matrix(&home, &pi);
    for line in [
        "network-down",
        "env-down",
        "env-down --env prod",
        "network-down",
        "shim uninstall",
    ] {
        show(&pi, line);
    }
    assert_eq!(pi.leftovers(), before, "something was left behind");
    println!(
        "No link, address, route, network or container is left. The home is gone when this ends."
    );
}

fn show(pi: &Server, line: &str) {
    println!("pi# homelab {line}");
    let run = pi.homelab(line);
    for line in run.stdout.lines().chain(run.stderr.lines()) {
        println!("    {line}");
    }
    println!("    (exit status {})\n", run.status.unwrap_or(-1));
}

fn matrix(home: &Home, pi: &Server) {
    let targets = [
        ("router", 1),
        ("whoami-prod", 200),
        ("store-prod", 201),
        ("whoami-preprod", 230),
        ("store-preprod", 231),
    ];
    let heads: Vec<String> = targets
        .iter()
        .map(|(name, _)| format!("{name:<15}"))
        .collect();
    println!("    {:<16}{}", "from \\ to", heads.join(" "));
    let host_row = |host: &Host, name: &str| {
        let seen =
            targets.map(|(_, last)| host.page_now(Ipv4Addr::new(192, 168, 1, last)).is_some());
        row(name, &seen);
    };
    host_row(&home.laptop, "laptop");
    host_row(&pi.host, "host (the Pi)");
    for container in ["whoami-prod", "whoami-preprod"] {
        let seen = targets.map(|(_, last)| {
            pi.try_sh(&format!(
                "timeout 3 docker exec {container} wget -q -O - http://192.168.1.{last}/"
            ))
            .is_ok()
        });
        row(container, &seen);
    }
    println!();
}

/// How long the service takes to put back what is taken from it, and what it costs.
fn repairs(home: &Home, pi: &Server) {
    const UNIT: &str = "homelab-shim.service";
    const WHOLE: &str = "ip route show dev homelab-shim 2>/dev/null | grep -q 'src 192.168.1.254'";
    println!("Taken from the running shim, and back after:\n");
    for damage in [
        "ip addr del 192.168.1.254/32 dev homelab-shim",
        "ip route del 192.168.1.192/26 dev homelab-shim",
        "ip link set homelab-shim down",
        "ip link del homelab-shim",
    ] {
        // In the server, so that the way there does not count.
        let text = pi.sh(&format!(
            "{damage}; begun=$(date +%s%N); \
             until {WHOLE}; do :; done; \
             echo $(( $(date +%s%N) - begun ))"
        ));
        let nanoseconds: f64 = text.trim().parse().expect("a number");
        println!("    {:6.1} ms  {damage}", nanoseconds / 1e6);
    }
    pi.unplug();
    std::thread::sleep(Duration::from_secs(1));
    let begun = Instant::now();
    home.plug_in(&pi.host, "pi", "192.168.1.204");
    pi.sh(&format!("until {WHOLE}; do :; done"));
    let milliseconds = begun.elapsed().as_secs_f64() * 1e3;
    println!("    {milliseconds:6.1} ms  the parent itself, since it was plugged in again");
    let pid = pi.sh(&format!("systemctl show -P MainPID {UNIT}"));
    let read = |line: &str| pi.sh(&line.replace("PID", pid.trim())).trim().to_owned();
    let cpu = || read(&format!("systemctl show -P CPUUsageNSec {UNIT}"));
    std::thread::sleep(Duration::from_secs(1));
    let before: u64 = cpu().parse().expect("a number");
    std::thread::sleep(Duration::from_secs(5));
    let after: u64 = cpu().parse().expect("a number");
    println!(
        "\n    {} ns of processor time in 5 s while nothing happens",
        after - before
    );
    let memory = read("awk '/^VmRSS/ {print $2, $3}' /proc/PID/status");
    let own = read("awk '/^RssAnon/ {print $2, $3}' /proc/PID/status");
    let share = read("awk '/^Pss:/ {print $2, $3}' /proc/PID/smaps_rollup");
    println!(
        "    {memory} of memory, {own} of them its own and not of files; {share} when shared libraries are shared out"
    );
    let security = pi.sh(&format!(
        "systemd-analyze security --no-pager {UNIT} | tail -n 1"
    ));
    println!("    {}\n", security.trim_start_matches('→').trim());
}

fn row(name: &str, seen: &[bool]) {
    let cells: Vec<String> = seen
        .iter()
        .map(|seen| format!("{:<15}", if *seen { "answers" } else { "-" }))
        .collect();
    println!("    {name:<16}{}", cells.join(" "));
}

/// What a network-up that changes nothing takes, beside one call of the Docker CLI.
fn speed(pi: &Server) {
    let ours = "homelab network-up";
    let theirs = "docker network inspect homelab-prod homelab-preprod";
    let (mut our_times, mut their_times) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        our_times.push(milliseconds(pi, ours));
        their_times.push(milliseconds(pi, theirs));
    }
    let (ours_median, theirs_median) = (median(our_times), median(their_times));
    println!("Nothing to do, medians of {ROUNDS} times {RUNS} runs:\n");
    println!("    {ours_median:6.1} ms  {ours}");
    println!("    {theirs_median:6.1} ms  {theirs}");
    println!("    ratio {:.2}\n", ours_median / theirs_median);
}

/// The mean of some runs, timed in the server so that the way there does not count.
fn milliseconds(pi: &Server, line: &str) -> f64 {
    let text = pi.sh(&format!(
        "begun=$(date +%s%N); for i in $(seq {RUNS}); do {line} >/dev/null 2>&1 || exit 1; done; \
         echo $(( $(date +%s%N) - begun ))"
    ));
    let nanoseconds: f64 = text.trim().parse().expect("a number");
    nanoseconds / 1e6 / f64::from(u32::try_from(RUNS).expect("it is small"))
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times
        .get(times.len() / 2)
        .copied()
        .expect("there are rounds")
}
