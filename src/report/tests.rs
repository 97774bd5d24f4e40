//! What a person sees, as files in tests/screens beside the home and the state that they tell of: each line of them with the
//! stream that it goes to. `SNAPSHOTS=overwrite cargo test` writes them.

mod untrusted;
mod verify;

use super::{LogLines, Progress, Report, screen};
use crate::apply::Event;
use crate::diff::status::{Findings, Status};
use crate::diff::{Diff, PullPhase, Selection};
use crate::error::{Diagnostic, Error};
use crate::input::problem::Sources;
use crate::plan::tests::PlanFiles;
use crate::plan::{CompleteService, Env, Host, Plan, Service};
use crate::state::{Container, ContainerExit, ContainerHealth, State};
use crate::system::docker::{LogPiece, PullProgress};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const PEOPLE: Report = Report {
    json: false,
    quiet: false,
    verbose: false,
};
const JSON: Report = Report {
    json: true,
    ..PEOPLE
};
const QUIET: Report = Report {
    quiet: true,
    ..PEOPLE
};
const VERBOSE: Report = Report {
    verbose: true,
    ..PEOPLE
};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/screens")
}

fn read(name: &str) -> String {
    let path = folder().join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| unreachable!("{name}: {error}"))
}

/// Whether what `print` prints is what the file says.
fn assert_screen(name: &str, print: impl FnOnce()) {
    let seen = screen::of(print);
    let expected = snapbox::Data::read_from(&folder().join(name), None).raw();
    snapbox::Assert::new()
        .action_env("SNAPSHOTS")
        .eq(seen, expected);
}

/// The home of the folder.
struct Home {
    plan: Plan,
    sources: Sources,
    state: State,
}

impl Home {
    fn new() -> Self {
        let files = PlanFiles::new(read("homelab.toml"))
            .file("compose.yml", &read("compose.yml"))
            .file("prod.env", &read("prod.env"))
            .file("preprod.env", &read("preprod.env"));
        let (result, sources) = files.read();
        let (plan, _) = result.unwrap_or_else(|problems| unreachable!("{problems:?}"));
        let state = toml::from_str(&read("state.toml"));
        let state = state.unwrap_or_else(|error| unreachable!("{error}"));
        Self {
            plan,
            sources,
            state,
        }
    }

    fn host(&self) -> &Host {
        let host = self.plan.host("pi");
        host.unwrap_or_else(|| unreachable!("there is no pi"))
    }

    fn prod(&self) -> &Env {
        let env = self.plan.env("prod");
        env.unwrap_or_else(|| unreachable!("there is no prod"))
    }

    fn service(&self, name: &str) -> &Service {
        let found = self.prod().services.iter().find(|found| found.name == name);
        found.unwrap_or_else(|| unreachable!("there is no {name}"))
    }

    fn status(&self) -> Status {
        let mut findings = Findings::default();
        findings.add_host(&self.plan, self.host(), None, &self.state);
        for env in &self.plan.envs {
            findings.add_isolation(&self.plan, env, &self.state);
            let selection = Selection::whole(&self.plan, env, self.host());
            findings.add_environment(&selection, &complete(&selection), &self.state);
        }
        // As when its env file cannot be read.
        let missing =
            Diagnostic::error_at(self.service("job").span.clone(), "`job.env` is missing");
        findings.add_diagnostic(missing.hint("write it"));
        let ours = self.state.docker.containers.iter();
        let health = ours.filter(|container| container.service().is_some());
        let health: BTreeMap<String, ContainerHealth> = health
            .map(|container| (container.name.clone(), health_of(container)))
            .collect();
        Status::new(&self.plan, self.host(), &self.state, &health, findings)
    }

    /// What env-up does in production when the network is as planned.
    fn env_up(&self) -> Diff {
        let selection = Selection {
            pulls: PullPhase::Planned,
            remove_orphans: true,
            ..Selection::whole(&self.plan, self.prod(), self.host())
        };
        let diff = crate::diff::containers::up(&selection, &complete(&selection), &self.state);
        diff.unwrap_or_else(|error| unreachable!("{error:?}"))
    }
}

fn complete(selection: &Selection) -> Vec<CompleteService> {
    let services = selection.with_dependencies().into_iter().cloned();
    services.map(CompleteService::without_files).collect()
}

/// As the Engine tells of a container when it is asked for it alone.
fn health_of(container: &Container) -> ContainerHealth {
    ContainerHealth {
        up: container
            .is_running()
            .then_some(Duration::from_secs(3 * 3600)),
        health: container.health.map(|health| health.word().to_owned()),
        exit_code: container.exit_code.unwrap_or(0),
    }
}

#[test]
fn status_is_one_screen_with_what_differs_below() {
    let home = Home::new();
    let status = home.status();
    assert_screen("status.txt", || {
        super::status(PEOPLE, &status, &home.sources);
    });
    assert_screen("status-json.txt", || {
        super::status(JSON, &status, &home.sources);
    });
    assert_screen("status-quiet.txt", || {
        super::status(QUIET, &status, &home.sources);
    });
}

#[test]
fn ps_lists_containers() {
    let mut home = Home::new();
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let ages = [90, 7200 + 60, 3 * 86_400 + 60];
    for (container, age) in home.state.docker.containers.iter_mut().zip(ages) {
        let created = now.saturating_sub(Duration::from_secs(age)).as_secs();
        container.created = i64::try_from(created).ok();
    }
    let all: Vec<&Container> = home.state.docker.containers.iter().collect();
    assert_screen("ps.txt", || super::containers(PEOPLE, "homelab-prod", &all));
    assert_screen("ps-quiet.txt", || {
        super::containers(QUIET, "homelab-prod", &all);
    });
    // Seconds since 1970 would be others in each run.
    let home = Home::new();
    let all: Vec<&Container> = home.state.docker.containers.iter().collect();
    assert_screen("ps-json.txt", || {
        super::containers(JSON, "homelab-prod", &all);
    });
}

#[test]
fn lines_of_logs_name_their_service() {
    let names = ["db".to_owned(), "app-2".to_owned()];
    let line = |is_error, text: &str| LogPiece {
        is_error,
        text: text.to_owned(),
        is_end: true,
    };
    let print = |report, has_prefix| {
        let lines = LogLines::new(report, &names, has_prefix);
        for (name, line) in [
            ("db", line(false, "ready")),
            ("app-2", line(true, "cannot connect")),
        ] {
            assert!(lines.print(name, &line).is_continue());
        }
    };
    assert_screen("logs.txt", || print(PEOPLE, true));
    assert_screen("logs-no-prefix.txt", || print(PEOPLE, false));
    assert_screen("logs-json.txt", || print(JSON, true));
}

#[test]
fn config_is_a_compose_file_again() {
    let home = Home::new();
    assert_screen("config.txt", || super::services(PEOPLE, home.prod()));
    assert_screen("config-json.txt", || super::services(JSON, home.prod()));
}

#[test]
fn a_dry_run_prints_the_steps() {
    let diff = Home::new().env_up();
    assert_screen("dry-run.txt", || PEOPLE.dry_run(&diff));
    assert_screen("dry-run-json.txt", || JSON.dry_run(&diff));
    assert_screen("dry-run-quiet.txt", || QUIET.dry_run(&diff));
    assert_screen("dry-run-of-nothing.txt", || {
        PEOPLE.dry_run(&Diff::default());
    });
}

/// Every step of a run where there is no terminal, the last of which fails.
fn run(report: Report, diff: &Diff) {
    let mut progress = Progress::plain(report);
    let second = Duration::from_secs(1);
    for (index, step) in diff.steps.iter().enumerate() {
        progress.tell(Event::Begun(step));
        if step.action.text().kind == "image" {
            let pulled = PullProgress {
                done: 512,
                total: 1024,
            };
            progress.tell(Event::Pulling(step, pulled));
        }
        if step.id == 1 {
            progress.tell(Event::Warned(step, "Your kernel does not support it."));
        }
        if index + 1 == diff.steps.len() {
            progress.tell(Event::Failed(step));
        } else {
            progress.tell(Event::Done(step, second));
        }
    }
    progress.end();
    report.exits(&[
        ContainerExit {
            container: "job-prod".to_owned(),
            exit_code: 3,
            restarting: false,
            log: vec!["no database".to_owned()],
        },
        ContainerExit {
            container: "app-prod".to_owned(),
            exit_code: 1,
            restarting: true,
            log: Vec::new(),
        },
    ]);
    report.error(&Error::from(Diagnostic::error(
        "the Engine does not answer",
        "`systemctl status docker`",
    )));
    report.finished(diff.steps.len(), second);
    report.finished(0, second);
}

#[test]
fn a_run_says_what_it_does() {
    let diff = Home::new().env_up();
    assert_screen("run.txt", || run(PEOPLE, &diff));
    assert_screen("run-json.txt", || run(JSON, &diff));
    assert_screen("run-quiet.txt", || run(QUIET, &diff));
    assert_screen("run-verbose.txt", || run(VERBOSE, &diff));
}
