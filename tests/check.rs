//! `homelab check` as a user sees it: every wrong file of tests/problems with its whole message, and the real plan.
//! `SNAPSHOTS=overwrite cargo test` writes the messages anew.

#![expect(clippy::expect_used, reason = "a test that cannot go on fails")]

use snapbox::Data;
use snapbox::cmd::Command;
use std::path::{Path, PathBuf};

fn homelab(folder: &Path) -> Command {
    Command::new(snapbox::cmd::cargo_bin!("homelab"))
        .current_dir(folder)
        .env_remove("HOMELAB_CONFIG")
        .env("NO_COLOR", "1")
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// These give a service the address of a host, which is a warning when that lies in an environment's range; no other file
/// warns, so that a message holds only what its file is named for.
const WARN_TOO: [&str; 2] = ["compose-address-of-another.toml", "service-on-a-host.toml"];

#[test]
fn every_wrong_file_is_refused_with_place_and_name() {
    let folder = repository().join("tests/problems");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .expect("the folder is there")
        .map(|entry| entry.expect("it can be read").path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "toml")
        })
        .collect();
    files.sort();
    assert!(files.len() >= 100, "only {} files were found", files.len());
    for file in files {
        let name = file
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        // As they are: `...` stands for no lines here, but for those that an excerpt leaves out.
        let expected = Data::read_from(&file.with_extension("stderr"), None).raw();
        let run = homelab(&folder)
            .args(["check", "--config", &name])
            .assert()
            .code(2)
            .stdout_eq("");
        let stderr = String::from_utf8_lossy(&run.get_output().stderr).into_owned();
        let stderr = stderr.replace(&folder.display().to_string(), "[FOLDER]");
        let places = [format!("--> {name}:"), "--> [FOLDER]/".to_owned()];
        assert!(
            places.iter().any(|place| stderr.contains(place)),
            "{name}: no line and column in\n{stderr}"
        );
        let warns = stderr.lines().any(|line| line.starts_with("warning: "));
        assert_eq!(
            warns,
            WARN_TOO.contains(&name.as_str()),
            "{name}:\n{stderr}"
        );
        snapbox::Assert::new()
            .action_env("SNAPSHOTS")
            .eq(stderr, expected);
    }
}

#[test]
fn the_real_plan_is_a_table_with_warnings_below() {
    homelab(repository())
        .arg("check")
        .assert()
        .success()
        .stdout_eq(snapbox::file!["check/table.stdout"])
        .stderr_eq(snapbox::file!["check/table.stderr"].raw());
}

#[test]
fn the_real_plan_is_one_object_per_line() {
    homelab(repository())
        .args(["check", "--json", "--quiet"])
        .assert()
        .success()
        .stdout_eq(snapbox::file!["check/table.jsonl"].raw())
        .stderr_eq("");
}

#[test]
fn a_lan_of_an_environments_own_stands_in_the_table() {
    homelab(repository())
        .args(["check", "--config", "tests/cases/plans/own-lan.toml"])
        .assert()
        .success()
        .stdout_eq(snapbox::file!["check/own-lan.stdout"]);
}

#[test]
fn problems_are_objects_too() {
    homelab(&repository().join("tests/problems"))
        .args(["check", "--json", "--config", "unknown-key.toml"])
        .assert()
        .code(2)
        .stdout_eq(snapbox::file!["check/unknown-key.jsonl"].raw());
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let empty = tempfile::tempdir().expect("a folder");
    homelab(empty.path()).args(["check", "--config", "nowhere.toml"]).assert().code(2).stdout_eq("").stderr_eq(
        "error: `nowhere.toml` does not exist\nhint: name the file by `--config FILE`, or by the variable HOMELAB_CONFIG\n",
    );
}

#[test]
fn the_variable_names_the_file() {
    let empty = tempfile::tempdir().expect("a folder");
    homelab(empty.path())
        .arg("check")
        .env("HOMELAB_CONFIG", repository().join("homelab.toml"))
        .assert()
        .success()
        .stdout_eq(snapbox::file!["check/table.stdout"]);
}

#[test]
fn an_empty_variable_names_none() {
    homelab(repository())
        .arg("check")
        .env("HOMELAB_CONFIG", "")
        .assert()
        .success()
        .stdout_eq(snapbox::file!["check/table.stdout"]);
}

#[test]
fn a_folder_with_a_colon_is_no_source_of_a_bind() {
    let folder = tempfile::Builder::new()
        .prefix("a:b")
        .tempdir()
        .expect("a folder");
    let text = std::fs::read_to_string(repository().join("homelab.toml")).expect("the plan");
    let text = text.replace("/srv/{env}/pihole:", "./pihole:");
    std::fs::write(folder.path().join("homelab.toml"), text).expect("it is written");
    let run = homelab(folder.path()).arg("check").assert().code(2);
    let stderr = String::from_utf8_lossy(&run.get_output().stderr).into_owned();
    assert!(
        stderr.contains("has a `:`, where Docker ends a path"),
        "{stderr}"
    );
}

#[test]
fn a_host_that_is_not_planned_is_refused() {
    homelab(repository())
        .args(["check", "--host", "n10"])
        .assert()
        .code(2)
        .stdout_eq("")
        .stderr_eq("error: the plan has no host `n10`\nhint: did you mean `n100`?\n");
}

#[test]
fn a_command_that_does_not_exist_is_a_usage_error() {
    homelab(repository())
        .arg("network-sideways")
        .assert()
        .code(2)
        .stdout_eq("");
}

/// As on a terminal: what is strange about a word is seen, and the terminal does nothing about it.
#[test]
fn words_of_the_command_line_are_text() {
    for arguments in [
        &["net\u{1b}[2Jwork\u{202e}"][..],
        &["logs", "--tail", "1\u{1b}[2J\u{202e}"],
        &["check", "--config", "no\u{1b}[2Jwhere\u{202e}"],
        &["check", "--host", "n\u{1b}[2J\u{202e}10"],
    ] {
        let run = homelab(repository())
            .env_remove("NO_COLOR")
            .env("CLICOLOR_FORCE", "1")
            .args(arguments)
            .assert()
            .code(2);
        let stderr = String::from_utf8_lossy(&run.get_output().stderr).into_owned();
        assert!(
            stderr.contains("\\u{1b}[2J") && stderr.contains("\\u{202e}"),
            "{stderr:?}"
        );
        assert!(
            !stderr.contains("\u{1b}[2J") && !stderr.contains('\u{202e}'),
            "{stderr:?}"
        );
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let line = format!(
        "{} check 2>&1 | true",
        snapbox::cmd::cargo_bin!("homelab").display()
    );
    let status = std::process::Command::new("bash")
        .args(["-o", "pipefail", "-c", &line])
        .current_dir(repository())
        .status()
        .expect("bash runs");
    assert!(status.success(), "{status}");
}

#[test]
fn a_machine_that_is_no_host_of_the_plan_is_told_so() {
    // A network namespace of its own has no address at all.
    let line = format!(
        "{} network-up",
        snapbox::cmd::cargo_bin!("homelab").display()
    );
    let output = std::process::Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "sh", "-c", &line])
        .current_dir(repository())
        .env("NO_COLOR", "1")
        .output()
        .expect("unshare runs");
    assert_eq!(output.status.code(), Some(1));
    snapbox::assert_data_eq!(
        String::from_utf8_lossy(&output.stderr).into_owned(),
        "error: this machine is no host of the plan: it has none of the addresses 192.168.1.204 (raspberry-pi), \
         192.168.1.10 (n100)\nhint: correct `[hosts]` (`ip addr` shows this machine's addresses), or name one by `--host`; \
         `homelab network-down` takes away what was made here\n"
    );
}
