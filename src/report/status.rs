//! What there is beside what the plan says, as one screen.

use super::table::{DIFFERS, Table};
use super::{ERROR, HINT, Line, Report, err, out, print_object};
use crate::diff::status::{Finding, Item, Row, Status};
use crate::input::problem::Sources;
use crate::state::ContainerHealth;
use serde_json::json;
use std::time::Duration;

/// Prints it.
pub fn print(report: Report, status: &Status, sources: &Sources) {
    if report.json {
        objects(status, sources);
    } else if !report.quiet {
        screen(status);
    }
    if report.quiet {
        return;
    }
    let mut findings = status.findings.iter().peekable();
    while let Some(finding) = findings.next() {
        let Finding {
            about: _,
            what,
            fix,
            place,
        } = finding;
        err(Line::headed(ERROR, "difference:", what));
        if let Some(place) = place {
            let (line, column) = sources.position(place);
            err(format!("  --> {}:{line}:{column}", sources.path(place)));
        }
        // One command may be the cure of many.
        if findings.peek().is_none_or(|next| next.fix != *fix) {
            err(Line::headed(HINT, "hint:", fix));
        }
    }
    if status.findings.is_empty() {
        err("all is as planned");
    }
}

fn screen(status: &Status) {
    let mut items = Table::new();
    let address = status.address.to_string();
    items.row(["host", &status.host, &address, ""]);
    for item in &status.items {
        let Item {
            kind,
            name,
            state,
            differs,
        } = item;
        items.row([*kind, name, state, mark(*differs)]);
    }
    items.print();
    if !status.rows.is_empty() {
        out("");
        services(&status.rows).print();
        out("");
    }
}

fn services(rows: &[Row]) -> Table {
    let mut services = Table::with_header([
        "SERVICE",
        "ENVIRONMENT",
        "ADDRESS",
        "STATE",
        "HEALTH",
        "UP",
        "",
    ]);
    for row in rows {
        let Row {
            service,
            env,
            address,
            is_on_lan,
            state,
            health,
            differs,
        } = row;
        let ContainerHealth {
            up,
            health,
            exit_code,
        } = health;
        let state = if state == "exited" {
            format!("exited with {exit_code}")
        } else {
            state.clone()
        };
        services.row([
            service.clone(),
            env.clone(),
            match address {
                Some(address) => address.to_string(),
                None if *is_on_lan => "a free one".to_owned(),
                None => "none".to_owned(),
            },
            state,
            health.clone().unwrap_or_else(|| "-".to_owned()),
            up.map_or("-".to_owned(), roughly),
            mark(*differs).to_owned(),
        ]);
    }
    services
}

fn mark(differs: bool) -> &'static str {
    if differs { DIFFERS } else { "" }
}

/// The two largest units of a duration.
fn roughly(duration: Duration) -> String {
    let whole = humantime::format_duration(Duration::from_secs(duration.as_secs())).to_string();
    let units: Vec<&str> = whole.split(' ').take(2).collect();
    units.join(" ")
}

fn objects(status: &Status, sources: &Sources) {
    let host = json!({ "event": "host", "name": status.host, "address": status.address });
    print_object(&host);
    for item in &status.items {
        let Item {
            kind,
            name,
            state,
            differs,
        } = item;
        let object = json!({ "event": kind, "name": name, "state": state, "differs": differs });
        print_object(&object);
    }
    for row in &status.rows {
        let Row {
            service,
            env,
            address,
            is_on_lan: _,
            state,
            health,
            differs,
        } = row;
        let ContainerHealth {
            up,
            health,
            exit_code,
        } = health;
        print_object(&json!({
            "event": "service", "name": service, "environment": env, "address": address, "state": state,
            "health": health, "up_seconds": up.map(|up| up.as_secs()), "exit_code": exit_code, "differs": differs,
        }));
    }
    for finding in &status.findings {
        let Finding {
            about,
            what,
            fix,
            place,
        } = finding;
        let mut object =
            json!({ "event": "difference", "about": about, "what": what, "hint": fix });
        if let (Some(place), Some(object)) = (place, object.as_object_mut()) {
            let (line, column) = sources.position(place);
            object.insert("file".to_owned(), sources.path(place).into());
            object.insert("line".to_owned(), line.into());
            object.insert("column".to_owned(), column.into());
        }
        print_object(&object);
    }
    let count = status.findings.len();
    print_object(&json!({ "event": "finished", "differences": count }));
}
