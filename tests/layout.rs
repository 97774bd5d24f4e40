//! The layout of src: each library has its file, what is pure stays pure, and one file prints.

#![expect(clippy::expect_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::path::{Path, PathBuf};

/// Every file of src, by its path there, without its tests.
fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut folders, mut files): (Vec<PathBuf>, Vec<(String, String)>) =
        (vec![root.clone()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("src can be read") {
            let path = entry.expect("src can be read").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path
                .strip_prefix(&root)
                .expect("it is in src")
                .display()
                .to_string();
            let text = fs::read_to_string(&path).expect("sources are text");
            let code = text
                .split("#[cfg(test)]")
                .next()
                .unwrap_or_default()
                .to_owned();
            if !name.ends_with("tests.rs") {
                files.push((name, code));
            }
        }
    }
    assert!(files.len() > 20, "only {} files were found", files.len());
    files
}

/// Whether a file is `module`.rs or lies in the folder of that name.
fn is_in(name: &str, module: &str) -> bool {
    name == format!("{module}.rs") || name.starts_with(&format!("{module}/"))
}

fn only_in(word: &str, modules: &[&str]) {
    let mut found = 0;
    for (name, code) in sources() {
        let lines = code
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        for line in lines.filter(|line| line.contains(word)) {
            assert!(
                modules.iter().any(|module| is_in(&name, module)),
                "`{word}` in src/{name}: {line}"
            );
            found += 1;
        }
    }
    assert!(found > 0, "`{word}` is nowhere: has it another name now?");
}

#[test]
fn each_system_has_one_file_that_talks_to_it() {
    only_in("rtnetlink", &["system/netlink"]);
    only_in("bollard", &["system/docker"]);
    only_in("/proc/", &["system/netlink", "verify"]);
    // The plan names it as a bind that it warns of, and is pure: it opens nothing.
    only_in(
        "/sys/",
        &["system/netlink", "system/systemd", "plan/service"],
    );
    only_in("setns", &["verify/agent"]);
    only_in("socket2", &["verify/agent"]);
    only_in("saphyr_parser", &["input/yaml"]);
    only_in("indicatif", &["report"]);
    only_in("sd_notify", &["system/systemd"]);
    only_in("systemctl(", &["system/systemd"]);
    only_in("systemd-run\"", &["system/systemd"]);
}

#[test]
fn one_file_prints() {
    only_in("stdout()", &["report"]);
    only_in("stderr()", &["report"]);
    for word in ["println!", "print!(", "dbg!"] {
        for (name, code) in sources() {
            assert!(!code.contains(word), "`{word}` in src/{name}");
        }
    }
}

#[test]
fn what_is_pure_asks_nobody() {
    for (name, code) in sources() {
        if [
            "input/homelab_toml",
            "input/node",
            "input/yaml",
            "input/fields",
            "input/problem",
            "input/compose",
            "plan",
            "state",
            "error",
            "diff",
            "verify/matrix",
        ]
        .iter()
        .any(|module| is_in(&name, module))
        {
            for word in [
                "async ",
                ".await",
                "std::fs",
                "std::env",
                "std::process",
                "Instant::now",
                "SystemTime",
            ] {
                assert!(
                    !code.contains(word),
                    "`{word}` in src/{name}, which is pure"
                );
            }
        }
    }
}

#[test]
fn only_apply_changes_the_machine() {
    for word in [
        "add_macvlan(",
        "delete_link(",
        "create_network(",
        "create_container(",
        "remove_container(",
    ] {
        only_in(word, &["apply", "system"]);
    }
    for word in ["write_slice(", "write_file(", "reload_manager("] {
        only_in(word, &["apply", "system/systemd"]);
    }
}

#[test]
fn every_file_says_what_it_is() {
    for (name, code) in sources() {
        assert!(
            code.starts_with("//! "),
            "src/{name} does not begin with `//!`"
        );
    }
}
