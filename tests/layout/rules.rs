//! The rules, each with a snippet that must break it, and what they name.

use crate::source::Source;

/// The floors from the top; a file may use what stands on its own floor or below, never what stands above.
pub const FLOORS: [&[&str]; 9] = [
    &["main"],
    &["commands"],
    &["report"],
    &["apply", "observe", "verify"],
    &["system"],
    &["diff"],
    &["state"],
    &["plan"],
    &["input"],
];

/// Below all of [`FLOORS`].
pub const GROUND: [&str; 2] = ["cli", "error"];

/// What the pure floors know nothing of, as paths.
const IMPURE: [&str; 12] = [
    "tokio",
    "bollard",
    "rtnetlink",
    "zbus",
    "clap",
    "nix",
    "std :: fs",
    "std :: process",
    "std :: env",
    "Instant :: now",
    "SystemTime",
    "await",
];

/// Crates that one place uses, or a few.
pub const HOMES: [(&str, &[&str]); 19] = [
    ("rtnetlink", &["system/netlink"]),
    ("bollard", &["system/docker"]),
    ("docker_credential", &["system/docker"]),
    ("http", &["system/docker"]),
    ("hyper", &["system/docker"]),
    ("hyper_util", &["system/docker"]),
    ("tar", &["system/docker"]),
    ("sd_notify", &["system/systemd"]),
    (
        "nix",
        &[
            "system/arp",
            "system/netlink",
            "verify/agent",
            "plan/service/values",
        ],
    ),
    ("socket2", &["system/arp", "system/filter", "verify/agent"]),
    ("saphyr_parser", &["input/yaml"]),
    ("strsim", &["input/problem"]),
    ("annotate_snippets", &["report"]),
    ("anstream", &["report"]),
    ("anstyle", &["report"]),
    ("comfy_table", &["report"]),
    ("indicatif", &["report"]),
    ("clap", &["cli", "main"]),
    ("anyhow", &["main", "report"]),
];

/// What prints.
const PRINTS: [&str; 6] = [
    "println !",
    "eprintln !",
    "print !",
    "dbg !",
    "stdout ( )",
    "stderr ( )",
];

/// What changes files of the machine.
const WRITES: [&str; 8] = [
    "fs :: write",
    "fs :: remove_file",
    "fs :: remove_dir",
    "fs :: rename",
    "fs :: create_dir_all",
    "fs :: set_permissions",
    "OpenOptions",
    "Command :: new",
];

/// What of the adapters only asks, only tells others on the LAN, or takes back what asking left in the kernel's table of
/// neighbours; all else that others may call changes the machine and stands in the
/// list of system.rs.
pub const ASKS: [&str; 53] = [
    "is_frozen",
    "that_can_be_tried",
    "answer",
    "try_scopes",
    "running_scopes",
    "try_in_new_scope",
    "can_have_net_raw",
    "engine_started",
    "program_fault",
    "at_start",
    "ways",
    "cgroup_of_process",
    "slice_of_process",
    "scopes_by_container",
    "exit_soon",
    "has_processes",
    "is_permitted",
    "take",
    "ends",
    "connect",
    "cgroup_driver",
    "engine_process",
    "has_scope_of_running_engine",
    "of_this_service",
    "text",
    "has_service",
    "is_populated",
    "has_ipv6_switch",
    "has_net_admin",
    "links_and_routes",
    "neighbours",
    "room_for_neighbours",
    "forget_neighbours",
    "subscribe",
    "probe",
    "announce",
    "in_a_namespace",
    "networks",
    "containers",
    "volumes",
    "images",
    "process",
    "health",
    "exit",
    "logs",
    "wait_for",
    "wait_until_up",
    "stopping",
    "wait_until_stopped",
    "observe",
    "ready",
    "status",
    "last_lines",
];

pub type Rule = fn(&Source) -> Vec<String>;

/// Each with what it is called and a snippet that must break it: a file and its text.
pub const RULES: [(&str, Rule, (&str, &str)); 10] = [
    (
        "floors",
        floors,
        (
            "plan/x",
            "//! X.\nuse crate::{error::Error, diff::{self, Step}};",
        ),
    ),
    (
        "pure floors",
        pure,
        ("state", "//! X.\nfn f() { let _ = std::fs::read(\"x\"); }"),
    ),
    (
        "homes of crates",
        homes,
        ("report/x", "//! X.\nfn f() -> bollard::Docker { todo!() }"),
    ),
    (
        "printing",
        printing,
        ("apply", "//! X.\nfn f() { println!(\"x\"); }"),
    ),
    (
        "names",
        names,
        (
            "diff/x",
            "//! X.\nfn f() -> String { format!(\"homelab-{}\", 1) }",
        ),
    ),
    (
        "labels",
        names,
        (
            "system/x",
            "//! X.\nconst X: &str = \"com.docker.compose.x\";",
        ),
    ),
    (
        "fingerprints",
        fingerprints,
        (
            "plan/service/fingerprint",
            "//! X.\nfn f(x: Option<u8>) -> String { format!(\"{x:?}\") }",
        ),
    ),
    (
        "changes",
        changes,
        (
            "observe",
            "//! X.\nasync fn f() { systemd::carry_out(x).await; }",
        ),
    ),
    (
        "writing",
        writing,
        (
            "commands/x",
            "//! X.\nfn f() { let _ = std::fs::remove_file(\"x\"); }",
        ),
    ),
    ("what a file is", says_what_it_is, ("diff/x", "fn f() {}")),
];

fn floors(source: &Source) -> Vec<String> {
    let own = floor_of(&source.name);
    let uses = source.uses().into_iter();
    uses.filter_map(|path| {
        let first = path.first()?;
        let above = floor_of(first) < own;
        above.then(|| format!("uses `{}`, which stands above it", path.join("::")))
    })
    .collect()
}

fn floor_of(name: &str) -> usize {
    let first = name.split('/').next().unwrap_or_default();
    let floor = FLOORS.iter().position(|floor| floor.contains(&first));
    floor.unwrap_or(FLOORS.len())
}

fn pure(source: &Source) -> Vec<String> {
    let is_pure = source.is_in_any(&[
        "input",
        "plan",
        "state",
        "diff",
        "error",
        "verify/matrix",
        "verify/questions",
    ]);
    // It opens the files of services, which are not known before a plan is.
    if !is_pure || source.name == "input/service_files" {
        return Vec::new();
    }
    let found = IMPURE.iter().filter(|word| source.has(word));
    // The kernel's names of signals are no I/O.
    let found = found.filter(|word| **word != "nix" || source.name != "plan/service/values");
    found
        .map(|word| format!("is pure and has `{word}`"))
        .collect()
}

fn homes(source: &Source) -> Vec<String> {
    let strangers = HOMES.iter().filter(|(name, places)| {
        let is_used = source.has(&format!("{name} ::")) && !source.is_in_any(places);
        is_used && !source.has(&format!(":: {name} ::"))
    });
    strangers
        .map(|(name, places)| format!("uses `{name}`, which is at home in {}", places.join(", ")))
        .collect()
}

pub fn printing(source: &Source) -> Vec<String> {
    if source.is_in("report") {
        return Vec::new();
    }
    let found = PRINTS.iter().filter(|word| source.has(word));
    found.map(|word| format!("prints by `{word}`")).collect()
}

fn names(source: &Source) -> Vec<String> {
    if source.name == "plan/naming" {
        return Vec::new();
    }
    let is_name = |text: &&String| {
        let text = text.trim_matches('"');
        let is_label = text.starts_with("homelab.") && !text.starts_with("homelab.toml");
        let is_prefixed = text.contains("homelab-") && !text.contains(' ');
        let is_foreign = text.contains("com.docker.compose") && !text.contains(' ');
        is_label || is_prefixed || is_foreign || text.starts_with("hl-")
    };
    let made = source.literals.iter().filter(is_name);
    made.map(|text| format!("makes the name {text}, which belongs into plan/naming.rs"))
        .collect()
}

fn fingerprints(source: &Source) -> Vec<String> {
    let is_part = source.is_in_any(&["plan/service/fingerprint", "plan/service/compose_resources"]);
    let debug = source.literals.iter().filter(|text| text.contains(":?}"));
    debug
        .filter(|_| is_part)
        .map(|text| format!("has {text}: Debug is no form to keep"))
        .collect()
}

fn changes(source: &Source) -> Vec<String> {
    let calls = source
        .code
        .split(' ')
        .filter(|word| word.starts_with("carry_out"));
    let may = source.is_in_any(&["apply", "system"]);
    calls
        .filter(|_| !may)
        .map(|word| format!("calls `{word}`, which only apply does"))
        .collect()
}

fn writing(source: &Source) -> Vec<String> {
    // The agent puts itself into a cgroup, and verify starts agents.
    if source.is_in_any(&["system", "verify"]) {
        return Vec::new();
    }
    let found = WRITES.iter().filter(|word| source.has(word));
    found
        .map(|word| format!("changes the machine by `{word}`"))
        .collect()
}

fn says_what_it_is(source: &Source) -> Vec<String> {
    let is_said = source.text.starts_with("//! ");
    let wrong = (!is_said).then(|| "does not begin with `//!`".to_owned());
    wrong.into_iter().collect()
}
