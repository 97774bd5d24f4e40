//! What comes from outside is text on every screen: names, labels, images, logs, what the Engine says, and files.

use super::verify::{planned, proof};
use super::{Home, JSON, PEOPLE, assert_screen, complete, read};
use crate::diff::containers;
use crate::diff::{PullPhase, Selection};
use crate::error::{Diagnostic, Error};
use crate::input::problem::Sources;
use crate::plan::tests::{HOME, PlanFiles};
use crate::report::{LogLines, Report};
use crate::state::{Container, ContainerExit};
use crate::system::docker::LogPiece;
use std::collections::BTreeSet;
use std::time::Duration;

/// Clears the screen, does so in another way, writes backwards, and begins a line that could be one of ours.
const EVIL: &str = "\u{1b}[2J\u{9b}2J\u{202e}\nerror:";

/// A home whose containers were named by somebody else, and whose files too.
fn evil_home() -> Home {
    let mut home = Home::new();
    let text = read("compose.yml").replace("c d", "c\\e[2J\\x9b2J\\u202ed");
    let files = PlanFiles::new(read("homelab.toml"))
        .file("compose.yml", &text)
        .file("prod.env", &read("prod.env"))
        .file("preprod.env", &read("preprod.env"));
    home.plan = files.plan();
    for name in ["old-prod", "guest"] {
        let mut all = home.state.docker.containers.iter_mut();
        let found = all.find(|container| container.name == name);
        let Some(container) = found else {
            unreachable!("there is no {name}");
        };
        let texts = [
            &mut container.name,
            &mut container.image_name,
            &mut container.command,
            &mut container.status,
        ];
        for text in texts {
            text.push_str(EVIL);
        }
        let service = container.labels.get_mut("homelab.service");
        if let Some(service) = service {
            service.push_str(EVIL);
        }
    }
    home
}

fn evil_run(report: Report, home: &Home) {
    let selection = Selection {
        pulls: PullPhase::Planned,
        remove_orphans: true,
        ..Selection::whole(&home.plan, home.prod(), home.host())
    };
    let diff = containers::up(&selection, &complete(&selection), &home.state);
    let mut diff = diff.unwrap_or_else(|error| unreachable!("{error:?}"));
    diff.steps.truncate(2);
    report.dry_run(&diff);
    for step in &diff.steps {
        report.begun(step);
        report.warned(step, EVIL);
        report.done(step, Duration::ZERO);
    }
    report.exits(&[ContainerExit {
        container: format!("job{EVIL}"),
        exit_code: 1,
        restarting: false,
        log: vec![EVIL.to_owned(), "\u{1b}[31mred\u{1b}[0m\tline".to_owned()],
    }]);
    let said = Diagnostic::error(format!("the Engine did not start it: {EVIL}"), EVIL);
    report.error(&Error::from(said.lines(vec![EVIL.to_owned()])));
    report.unexpected(&anyhow::anyhow!("{EVIL}"));
    report.note(EVIL);
    report.waiting(&BTreeSet::from([EVIL.to_owned()]));
}

fn evil_logs(report: Report) {
    let name = format!("db{EVIL}");
    let lines = LogLines::new(report, &[name.clone(), "app".to_owned()], true);
    // What containers wrote stays as it is, which is shown beside LogLines.
    let piece = |text: &str| LogPiece {
        is_error: false,
        text: text.to_owned(),
        is_end: true,
    };
    assert!(lines.print(&name, &piece("ready")).is_continue());
    assert!(lines.print("app", &piece("ready")).is_continue());
}

/// A file with a name that is written so, and a comment with what stands there as it is.
fn evil_file(report: Report) {
    let text =
        format!("{HOME}[services.\"a\\u001b[2J\\u202e\"] # \u{9b}2J\u{202e}\nimage = \"a:1\"\n");
    let Err(problems) = PlanFiles::new(text.as_str()).read().0 else {
        unreachable!("it is no name of a service");
    };
    let sources = Sources::new(format!("home{EVIL}.toml"), text);
    report.diagnostics(&problems, &sources);
}

fn evil_screens(report: Report) {
    let home = evil_home();
    let all: Vec<&Container> = home.state.docker.containers.iter().collect();
    crate::report::containers(report, "homelab-prod", &all);
    crate::report::status(report, &home.status(), &home.sources);
    evil_run(report, &home);
    let mut matrix = proof(&[planned(), vec![(4, 1)]].concat());
    for node in &mut matrix.nodes {
        node.name.push_str(EVIL);
    }
    crate::report::matrix(report, &home.plan, &matrix, &[]);
    evil_logs(report);
    crate::report::services(report, home.prod());
    evil_file(report);
}

#[test]
fn what_comes_from_outside_is_text() {
    assert_screen("untrusted.txt", || evil_screens(PEOPLE));
    assert_screen("untrusted-json.txt", || evil_screens(JSON));
}
