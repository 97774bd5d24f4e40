//! Containers as `homelab ps` lists them, and the lines that they wrote.

use super::{Report, out};
use crate::state::{Container, Health};
use crate::system::docker::Line;
use anstyle::{AnsiColor, Style};
use comfy_table::{Table, presets};
use serde_json::json;
use std::cell::Cell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Prints containers, with the addresses that they have on `network`.
pub fn print(report: Report, network: &str, containers: &[&Container]) {
    let address = |container: &Container| {
        let endpoint = container.networks.get(network);
        let address = endpoint.and_then(|endpoint| endpoint.address);
        address.map(|address| address.to_string())
    };
    let service = |container: &Container| {
        let service = container.service();
        service.map_or(String::new(), |(_, service)| service.to_owned())
    };
    if report.json {
        for container in containers {
            out(&json!({
                "kind": "container", "name": container.name, "id": container.id,
                "image": container.image_name, "service": service(container),
                "address": address(container), "command": container.command,
                "created": container.created, "state": container.state,
                "health": container.health.map(Health::word), "exit_code": container.exit_code,
                "status": container.status,
            })
            .to_string());
        }
        return;
    }
    if report.quiet {
        for container in containers {
            out(&container.id);
        }
        return;
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["NAME", "IMAGE", "SERVICE", "ADDRESS", "CREATED", "STATUS"]);
    for container in containers {
        table.add_row([
            container.name.clone(),
            container.image_name.clone(),
            service(container),
            address(container).unwrap_or_else(|| "-".to_owned()),
            ago(container.created),
            container.status.clone(),
        ]);
    }
    super::status::print_table(&table);
}

/// How long ago, in the largest unit that fits.
fn ago(created: Option<i64>) -> String {
    let created = created.and_then(|seconds| u64::try_from(seconds).ok());
    let Some(created) = created else {
        return "-".to_owned();
    };
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let seconds = now.saturating_sub(Duration::from_secs(created)).as_secs();
    let (number, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {unit}{plural} ago")
}

/// Lines of several containers, each with the name of its service in front.
pub struct LogLines {
    report: Report,
    has_prefix: bool,
    names: Vec<String>,
    width: usize,
    is_closed: Cell<bool>,
}

const COLOURS: [AnsiColor; 6] = [
    AnsiColor::Cyan,
    AnsiColor::Yellow,
    AnsiColor::Green,
    AnsiColor::Magenta,
    AnsiColor::Blue,
    AnsiColor::Red,
];

impl LogLines {
    /// Lines of containers with these names.
    pub fn new(report: Report, names: &[String], has_prefix: bool) -> Self {
        Self {
            report,
            has_prefix,
            names: names.to_vec(),
            width: names.iter().map(String::len).max().unwrap_or(0),
            is_closed: Cell::new(false),
        }
    }

    /// Prints a line.
    pub fn print(&self, name: &str, line: &Line) {
        let Line { is_error, text } = line;
        if self.is_closed.get() {
            return;
        }
        if self.report.json {
            let stream = if *is_error { "stderr" } else { "stdout" };
            out(
                &json!({ "event": "log", "service": name, "stream": stream, "line": text })
                    .to_string(),
            );
        } else if self.has_prefix {
            let place = self
                .names
                .iter()
                .position(|known| known == name)
                .unwrap_or(0);
            let colour = COLOURS.get(place % COLOURS.len()).copied();
            let colour = colour.map_or(Style::new(), AnsiColor::on_default);
            out(&format!(
                "{colour}{name:<width$} |{colour:#} {text}",
                width = self.width
            ));
        } else {
            out(text);
        }
    }
}
