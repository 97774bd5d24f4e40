//! What the README shows is true.

#![expect(clippy::expect_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

fn readme() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md"))
        .expect("there is a README")
}

/// The code blocks of a language.
fn blocks(language: &str) -> Vec<String> {
    let (text, fence) = (readme(), format!("```{language}\n"));
    let mut parts = text.split(&fence);
    parts.next();
    parts
        .map(|part| part.split("```").next().unwrap_or_default().to_owned())
        .collect()
}

fn homelab() -> snapbox::cmd::Command {
    snapbox::cmd::Command::new(snapbox::cmd::cargo_bin!("homelab")).env("NO_COLOR", "1")
}

#[test]
fn the_plan_in_it_is_a_good_one() {
    let plans = blocks("toml");
    assert_eq!(plans.len(), 3);
    let first = plans.first().expect("a plan").clone();
    for mut plan in plans {
        // A table alone goes with the first plan.
        if !plan.contains("[network]") {
            plan.insert_str(0, &first);
        }
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("homelab.toml"), plan).expect("it is written");
        let compose = blocks("yaml").join("\n");
        let file = folder.path().join("docker-compose.application.yml");
        fs::write(file, compose).expect("it is written");
        fs::create_dir(folder.path().join("env")).expect("a folder");
        for (env, address) in [("prod", 202), ("preprod", 232)] {
            let variables = format!("WEB_ADDRESS=192.168.1.{address}\n");
            let file = folder.path().join(format!("env/.env.{env}"));
            fs::write(file, variables).expect("it is written");
        }
        homelab()
            .current_dir(folder.path())
            .arg("check")
            .assert()
            .success();
    }
}

#[test]
fn its_commands_exist() {
    let mut known = 0;
    for line in blocks("sh").join("\n").lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let mut words = line.split_whitespace();
        let program = words.next().unwrap_or_default();
        if program == "homelab" {
            homelab().args(words).arg("--help").assert().success();
            known += 1;
        } else if program.starts_with("tests/") {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(program);
            let mode = fs::metadata(&path)
                .expect("the script is there")
                .permissions()
                .mode();
            assert_eq!(mode & 0o111, 0o111, "{program} can be run");
            known += 1;
        }
    }
    assert!(known >= 10, "only {known} commands were found");
}

#[test]
fn its_table_names_every_command() {
    let help = homelab().arg("--help").assert().success();
    let help = String::from_utf8_lossy(&help.get_output().stdout).into_owned();
    let commands = help
        .split("Commands:")
        .nth(1)
        .and_then(|rest| rest.split("Options:").next());
    let mut known = 0;
    for line in commands.expect("the help lists commands").lines() {
        let name = line.split_whitespace().next().unwrap_or_default();
        if !name.is_empty() && name != "help" && line.starts_with("  ") && !line.starts_with("   ")
        {
            assert!(readme().contains(&format!("| `homelab {name}")), "{name}");
            known += 1;
        }
    }
    assert_eq!(known, 11, "{help}");
}

#[test]
fn the_help_says_what_a_difference_exits_with() {
    let help = homelab().arg("--help").assert().success();
    let help = String::from_utf8_lossy(&help.get_output().stdout).into_owned();
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        help.contains("3 --dry-run, status or verify found a difference"),
        "{help}"
    );
    let readme = readme().split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(readme.contains("3 `--dry-run`, `status` or `verify` found a difference"));
}
