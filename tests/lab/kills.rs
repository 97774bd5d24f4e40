//! Commands that are ended at any moment: after each single step, and at random. The next run completes, and nothing is left over.

use crate::home::{Run, Server};
use crate::pool::borrow;
use crate::{PLAN, home_and_pi, tests};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Lines, Read as _};
use std::process::{Child, ChildStdout, ExitStatus, Stdio};
use std::time::{Duration, Instant, SystemTime};

tests! {
    every engine:
        killed_after_each_single_step
        killed_after_each_step_of_an_environment
        killed_at_random;
    one engine:
        terminated_after_each_single_step
        terminated_after_each_step_of_an_environment
        killed_after_any_step_and_taken_down
}

pub const FILE: &str = "/etc/homelab/homelab.toml";

/// A command that runs in the server.
pub struct Running {
    child: Child,
    /// Of homelab, as this machine counts; the child is who brought it into the server.
    process: Pid,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    pub fn start(pi: &Server, line: &str) -> Self {
        let mut command = pi.command("sh");
        command.args(["-c", "echo begun; exec homelab --json \"$@\"", "sh"]);
        command.args(line.split(' ')).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::piped()).spawn().expect("it runs");
        let stdout = child.stdout.take().expect("a pipe");
        let mut lines = BufReader::new(stdout).lines();
        let begun = lines.next().expect("a line").expect("text");
        assert_eq!(begun, "begun");
        let outside = child.id();
        let children = format!("/proc/{outside}/task/{outside}/children");
        let children = std::fs::read_to_string(children).expect("it has one");
        let process = children.trim().parse().expect("one process");
        Self {
            child,
            process: Pid::from_raw(process),
            lines,
        }
    }

    /// Waits until so many steps are done, or it ends; whether they were done.
    pub fn comes_to(&mut self, steps: usize) -> bool {
        let is_done = |line: &String| line.contains(r#""event":"done""#);
        let mut lines = (&mut self.lines).map_while(Result::ok).filter(is_done);
        (0..steps).all(|_| lines.next().is_some())
    }

    /// Ends with what it said to people.
    pub fn ends(mut self, signal: Option<Signal>) -> (ExitStatus, String) {
        if let Some(signal) = signal {
            // It may be over already; nobody else has its number before it was waited for.
            let _ = kill(self.process, signal);
        }
        let mut said = String::new();
        let mut stderr = self.child.stderr.take().expect("a pipe");
        stderr.read_to_string(&mut said).expect("text");
        (self.child.wait().expect("it ends"), said)
    }
}

/// Runs a command, ends it when so many steps are done, and says whether they were ever done.
fn stop_after(pi: &Server, line: &str, steps: usize, signal: Signal) -> bool {
    let mut running = Running::start(pi, line);
    let had_so_many = running.comes_to(steps);
    let (status, said) = running.ends(Some(signal));
    let is_expected = match signal {
        Signal::SIGKILL => status.code().is_none() || status.success(),
        // Before it listens to signals it has changed nothing.
        _ => matches!(status.code(), Some(0 | 130)) || (steps == 0 && status.code().is_none()),
    };
    assert!(is_expected, "{line} after {steps} steps: {status}\n{said}");
    // The Engine finishes a request although nobody waits for it any more.
    std::thread::sleep(Duration::from_millis(300));
    had_so_many
}

/// Ends a command after so many steps and runs it again. Returns whether it had so many.
fn stop_and_run(pi: &Server, line: &str, steps: usize, signal: Signal) -> bool {
    let had_so_many = stop_after(pi, line, steps, signal);
    pi.homelab(line).exits(0);
    let settled = line.replace(" --force-recreate", "");
    pi.homelab(&format!("{settled} --dry-run")).exits(0);
    had_so_many
}

/// Ends two commands that undo each other after each of their steps.
fn there_and_back(pi: &Server, there: &str, back: &str, signal: Signal) {
    let before = pi.leftovers();
    for steps in 0.. {
        let more = stop_and_run(pi, there, steps, signal);
        let more_back = stop_and_run(pi, back, steps, signal);
        assert_eq!(pi.leftovers(), before, "{there}, {back}, {steps} steps");
        if !more && !more_back {
            return;
        }
    }
}

/// Ends a command after each of its steps on the way from one plan to another.
fn to_another_plan(pi: &Server, line: &str, other: &str, signal: Signal) {
    for steps in 0.. {
        let more = [other, PLAN].map(|plan| {
            pi.write(FILE, plan);
            stop_and_run(pi, line, steps, signal)
        });
        if more == [false, false] {
            return;
        }
    }
}

fn network_and_shim(suite: &str, signal: Signal) {
    let (_home, pi) = &home_and_pi(suite);
    there_and_back(pi, "shim up", "shim down", signal);
    there_and_back(pi, "shim install", "shim uninstall", signal);
    there_and_back(pi, "network-up", "network-down", signal);
    pi.homelab("network-up").exits(0);
    to_another_plan(pi, "network-up", &other_plan(), signal);
    // The service that keeps the shim follows.
    pi.homelab("shim install").exits(0);
    to_another_plan(pi, "network-up", &other_plan(), signal);
    pi.homelab("network-down").exits(0);
    pi.homelab("shim uninstall").exits(0);
}

fn environment(suite: &str, signal: Signal) {
    let loan = borrow(suite);
    let (_home, pi) = loan.parts();
    pi.homelab("network-up").exits(0);
    // A slice stays active when it was used.
    pi.homelab("env-up whoami").exits(0);
    pi.homelab("env-down").exits(0);
    there_and_back(pi, "env-up", "env-down", signal);
    pi.homelab("env-up").exits(0);
    let mut all = 0..;
    all.find(|steps| !stop_and_run(pi, "env-up --force-recreate", *steps, signal));
    to_another_plan(pi, "env-up", &with_another_command(PLAN), signal);
    // A successor that already runs when homelab is killed has the address that the next run takes.
    pi.sh("docker rename store-preprod store-preprod.new");
    pi.homelab("env-up").exits(0);
    pi.homelab("env-up --dry-run").exits(0);
    pi.homelab("env-down").exits(0);
    pi.homelab("network-down").exits(0);
}

fn killed_after_each_single_step(suite: &str) {
    network_and_shim(suite, Signal::SIGKILL);
}

fn killed_after_each_step_of_an_environment(suite: &str) {
    environment(suite, Signal::SIGKILL);
}

fn terminated_after_each_single_step(suite: &str) {
    network_and_shim(suite, Signal::SIGTERM);
}

fn terminated_after_each_step_of_an_environment(suite: &str) {
    environment(suite, Signal::SIGTERM);
}

/// Whoever was killed on the way up needs not to come up first.
fn killed_after_any_step_and_taken_down(suite: &str) {
    let (_home, pi) = &home_and_pi(suite);
    for (there, back) in [
        ("shim up", "shim down"),
        ("shim install", "shim uninstall"),
        ("network-up", "network-down"),
        ("env-up", "env-down"),
    ] {
        let before = pi.leftovers();
        for steps in 0.. {
            let had_so_many = stop_after(pi, there, steps, Signal::SIGKILL);
            pi.homelab(back).exits(0);
            assert_eq!(pi.leftovers(), before, "{there}, {steps} steps, {back}");
            if !had_so_many {
                break;
            }
        }
        if there == "network-up" {
            for line in ["network-up", "env-up whoami", "env-down"] {
                pi.homelab(line).exits(0);
            }
        }
    }
    pi.homelab("network-down").exits(0);
}

/// The plan with another range and another command.
pub fn other_plan() -> String {
    let range = "192.168.1.192-192.168.1.2";
    with_another_command(&PLAN.replace(&format!("{range}23"), &format!("{range}15")))
}

fn with_another_command(plan: &str) -> String {
    plan.replace("echo whoami of", "echo another whoami of")
}

/// Numbers that nobody foresees, the same for the same seed (splitmix64).
pub struct Dice(u64);

impl Dice {
    /// `HOMELAB_SEED` throws again what was thrown.
    pub fn new() -> Self {
        let asked = std::env::var("HOMELAB_SEED").ok();
        let seed = asked.and_then(|seed| seed.parse().ok()).unwrap_or_else(|| {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            u64::from(now.expect("after 1970").subsec_nanos())
        });
        eprintln!("HOMELAB_SEED={seed}");
        Self(seed)
    }

    /// Less than `below`.
    pub fn number(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let below = u64::try_from(below).expect("small");
        usize::try_from(mixed % below).expect("small")
    }

    pub fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        let chosen = all.get(self.number(all.len()));
        *chosen.expect("there are some")
    }

    /// Shorter than `limit`.
    pub fn time(&mut self, limit: Duration) -> Duration {
        let micros = usize::try_from(limit.as_micros()).expect("short");
        Duration::from_micros(u64::try_from(self.number(micros.max(1))).expect("short"))
    }
}

/// How many rounds: those of the suite, or as many as the variable asks for.
pub fn rounds(variable: &str, usual: usize) -> usize {
    let more = std::env::var(variable).ok();
    more.and_then(|more| more.parse().ok()).unwrap_or(usual)
}

/// Commands that change something, those more often that have much to do.
const LINES: [&str; 20] = [
    "network-up",
    "network-up",
    "network-up",
    "network-down",
    "env-up",
    "env-up",
    "env-up whoami",
    "env-up --force-recreate",
    "env-up --remove-orphans",
    "env-up --env prod",
    "env-up --env prod --remove-orphans",
    "env-up --env prod --force-recreate store",
    "env-down",
    "env-down store",
    "env-down --env prod --remove-orphans",
    "env-down --env prod whoami",
    "shim up",
    "shim down",
    "shim install",
    "shim uninstall",
];

/// What a command may rightly refuse.
const REFUSALS: [&str; 2] = ["the network is not up: ", "containers are attached"];

/// A service more, which leaves the choice of its address to homelab.
const EXTRA: &str = "[services.extra]\nimage = \"lab/web:1\"\ncommand = [\"sleep\", \"600\"]\nstop_signal = \"SIGKILL\"\n";

/// How long a command may be taken to take when it never ran yet.
const USUAL: Duration = Duration::from_millis(1500);

/// What a walk has come to.
struct Walk<'a> {
    pi: &'a Server,
    dice: Dice,
    /// How long each command took at most.
    took: BTreeMap<&'static str, Duration>,
    /// Commands that were killed in the middle.
    killed: usize,
    /// Those that were over before they were killed, were refused, or had to be run twice because the Engine was still stopping
    /// what the dead run had asked it to stop.
    over: usize,
    refused: usize,
    twice: usize,
}

impl Walk<'_> {
    fn round(&mut self) {
        let pi = self.pi;
        if self.dice.number(3) == 0 {
            let other = other_plan();
            let plan = self.dice.one_of(&[PLAN, &other]);
            let extra = self.dice.one_of(&["", EXTRA]);
            pi.write(FILE, &format!("{plan}\n{extra}"));
        }
        // What has nothing to do or is refused is tried too, but seldom.
        let is_picky = self.dice.number(8) > 0;
        let (line, expected) = loop {
            let line = self.dice.one_of(&LINES);
            let expected = pi.homelab(&format!("{line} --dry-run --json"));
            if expected.status == Some(3) || !is_picky {
                break (line, expected);
            }
        };
        let untouched = || containers(pi, |env| !line.starts_with("env-") || env != env_of(line));
        let before = untouched();
        let steps = expected.stdout.matches(r#""event":"step""#).count();
        let what = format!("{line}, {}", self.kill(line, steps));
        std::thread::sleep(self.dice.one_of(&[0, 0, 50, 300]) * Duration::from_millis(1));
        let begun = Instant::now();
        let run = pi.homelab(line);
        let took = self.took.entry(line).or_default();
        *took = begun.elapsed().max(*took);
        if expected.status == Some(1) {
            self.refused += 1;
            is_refused(&what, &expected, &run.exits(1));
        } else {
            assert!(
                matches!(expected.status, Some(0 | 3)),
                "{}",
                expected.stderr
            );
            let run = run.exits(0);
            self.settles(line, &what, &run.stderr);
            let left = pi.sh("find /etc /var/lib/homelab* /var/lib/private -name '*.homelab-new' 2>/dev/null || true");
            assert_eq!(left, "", "{what}");
        }
        assert_eq!(
            untouched(),
            before,
            "{what}: containers that it is not about"
        );
    }

    /// Runs a command and kills it at any moment, or shortly after any of its steps.
    fn kill(&mut self, line: &'static str, steps: usize) -> String {
        let mut running = Running::start(self.pi, line);
        let limit = self.took.get(line).copied().unwrap_or(USUAL);
        let (steps, delay) = if self.dice.number(2) == 0 {
            let soon = self.dice.time(Duration::from_millis(40));
            (self.dice.number(steps + 1), soon)
        } else {
            (0, self.dice.time(limit))
        };
        running.comes_to(steps);
        std::thread::sleep(delay);
        let (status, _) = running.ends(Some(Signal::SIGKILL));
        if status.code().is_none() {
            self.killed += 1;
        } else {
            self.over += 1;
        }
        format!("{status} {delay:?} after {steps} steps")
    }

    /// A command that ended well leaves nothing to do.
    fn settles(&mut self, line: &str, what: &str, said: &str) {
        let settled = format!("{} --dry-run", line.replace(" --force-recreate", ""));
        let left = self.pi.homelab(&settled);
        if left.status == Some(0) {
            return;
        }
        assert!(
            line.starts_with("env-up"),
            "{what} left something to do:\n{said}\n{}{}",
            left.stdout,
            left.stderr
        );
        self.twice += 1;
        eprintln!("{what}: run twice\n{said}{}", left.stdout);
        self.pi.homelab(line).exits(0);
        self.pi.homelab(&settled).exits(0);
    }
}

/// What a command refused it still refuses after it was killed, and it is known that it may.
fn is_refused(what: &str, expected: &Run, run: &Run) {
    let errors = expected.stderr.lines();
    for error in errors.filter(|line| line.starts_with("error: ")) {
        let is_known = REFUSALS.iter().any(|known| error.contains(known));
        assert!(is_known, "{what}: a new refusal, {error}");
        assert!(
            run.stderr.contains(error),
            "{what}: {error}\n{}",
            run.stderr
        );
    }
}

fn env_of(line: &str) -> &str {
    if line.contains("--env prod") {
        "prod"
    } else {
        "preprod"
    }
}

/// The containers of environments, by name, with what changes when one is made anew or started again.
fn containers(pi: &Server, is_meant: impl Fn(&str) -> bool) -> BTreeSet<String> {
    let format = "{{.Name}} {{.Id}} {{.State.StartedAt}}";
    let all = pi.sh(&format!(
        "docker ps -aq | xargs -r docker inspect -f '{format}'"
    ));
    let env = |line: &str| {
        line.split(' ')
            .next()
            .and_then(|name| Some(name.rsplit_once('-')?.1.to_owned()))
    };
    let lines = all
        .lines()
        .filter(|line| env(line).is_some_and(|env| is_meant(&env)));
    lines.map(str::to_owned).collect()
}

fn killed_at_random(suite: &str) {
    let (_home, pi) = &home_and_pi(suite);
    let before = pi.leftovers();
    let mut walk = Walk {
        pi,
        dice: Dice::new(),
        took: BTreeMap::new(),
        killed: 0,
        over: 0,
        refused: 0,
        twice: 0,
    };
    let all = rounds("HOMELAB_KILLS", 8);
    while walk.killed < all {
        walk.round();
    }
    let Walk {
        killed,
        over,
        refused,
        twice,
        ..
    } = walk;
    eprintln!("{suite}: {killed} killed, {over} over before, {refused} refused, {twice} run twice");
    for line in [
        "env-down --remove-orphans",
        "env-down --env prod --remove-orphans",
        "network-down",
        "shim uninstall",
    ] {
        pi.homelab(line).exits(0);
    }
    assert_eq!(pi.leftovers(), before);
}
