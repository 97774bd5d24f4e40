//! What there is beside what the plan says, as one screen.

use super::{ERROR, HINT, Report, err, out};
use crate::diff::status::{Condition, Difference, Fact, Row, Status};
use anstyle::AnsiColor;
use comfy_table::{Table, presets};
use serde_json::json;
use std::time::Duration;

/// Prints it.
pub fn print(report: Report, status: &Status) {
    if report.json {
        objects(status);
    } else if !report.quiet {
        screen(status);
    }
    if report.quiet {
        return;
    }
    let mut differences = status.differences.iter().peekable();
    while let Some(Difference { what, run, .. }) = differences.next() {
        err(&format!("{ERROR}difference:{ERROR:#} {what}"));
        // One command may be the cure of many.
        if differences.peek().is_none_or(|next| next.run != *run) {
            err(&format!("{HINT}hint:{HINT:#} {run}"));
        }
    }
    if status.differences.is_empty() {
        err("all is as planned");
    }
}

fn screen(status: &Status) {
    let mut facts = Table::new();
    facts.load_style(presets::NOTHING);
    let address = status.address.to_string();
    facts.add_row(["host", &status.host, &address, ""]);
    for fact in &status.facts {
        let Fact {
            kind,
            name,
            state,
            differs,
        } = fact;
        facts.add_row([*kind, name, state, mark(*differs)]);
    }
    print_table(&facts);
    if status.rows.is_empty() {
        return;
    }
    out("");
    let mut services = Table::new();
    services.load_style(presets::NOTHING);
    services.set_header([
        "SERVICE",
        "ENVIRONMENT",
        "ADDRESS",
        "STATE",
        "HEALTH",
        "UP",
        "",
    ]);
    for row in &status.rows {
        let Row {
            service,
            env,
            address,
            state,
            condition,
            differs,
        } = row;
        let Condition {
            up,
            health,
            exit_code,
        } = condition;
        let state = if state == "exited" {
            format!("exited with {exit_code}")
        } else {
            state.clone()
        };
        services.add_row([
            service.clone(),
            env.clone(),
            address.map_or("a free one".to_owned(), |address| address.to_string()),
            state,
            health.clone().unwrap_or_else(|| "-".to_owned()),
            up.map_or("-".to_owned(), roughly),
            mark(*differs).to_owned(),
        ]);
    }
    print_table(&services);
    out("");
}

fn mark(differs: bool) -> &'static str {
    if differs { "differs" } else { "" }
}

pub(super) fn print_table(table: &Table) {
    let red = AnsiColor::Red.on_default();
    for line in table.lines() {
        let line = line.trim_end();
        match line.strip_suffix("differs") {
            Some(start) => out(&format!("{start}{red}differs{red:#}")),
            None => out(line),
        }
    }
}

/// The two largest units of a duration.
fn roughly(duration: Duration) -> String {
    let whole = humantime::format_duration(Duration::from_secs(duration.as_secs())).to_string();
    let units: Vec<&str> = whole.split(' ').take(2).collect();
    units.join(" ")
}

fn objects(status: &Status) {
    let host = json!({ "event": "host", "name": status.host, "address": status.address });
    out(&host.to_string());
    for fact in &status.facts {
        let Fact {
            kind,
            name,
            state,
            differs,
        } = fact;
        let object = json!({ "event": kind, "name": name, "state": state, "differs": differs });
        out(&object.to_string());
    }
    for row in &status.rows {
        let Row {
            service,
            env,
            address,
            state,
            condition,
            differs,
        } = row;
        let Condition {
            up,
            health,
            exit_code,
        } = condition;
        out(&json!({
            "event": "service", "name": service, "environment": env, "address": address, "state": state,
            "health": health, "up_seconds": up.map(|up| up.as_secs()), "exit_code": exit_code, "differs": differs,
        })
        .to_string());
    }
    for Difference { about, what, run } in &status.differences {
        let object = json!({ "event": "difference", "about": about, "what": what, "hint": run });
        out(&object.to_string());
    }
    let count = status.differences.len();
    out(&json!({ "event": "finished", "differences": count }).to_string());
}
