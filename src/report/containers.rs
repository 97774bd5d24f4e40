//! Containers as `homelab ps` lists them.

use super::table::Table;
use super::{Report, out, print_object};
use crate::state::{Container, Health};
use serde_json::json;
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
            print_object(&json!({
                "kind": "container", "name": container.name, "id": container.id,
                "image": container.image_name, "service": service(container),
                "address": address(container), "command": container.command,
                "created": container.created, "state": container.state,
                "health": container.health.map(Health::word), "exit_code": container.exit_code,
                "status": container.status,
            }));
        }
        return;
    }
    if report.quiet {
        for container in containers {
            out(container.id.as_str());
        }
        return;
    }
    let mut table =
        Table::with_header(["NAME", "IMAGE", "SERVICE", "ADDRESS", "CREATED", "STATUS"]);
    for container in containers {
        table.row([
            container.name.clone(),
            container.image_name.clone(),
            service(container),
            address(container).unwrap_or_else(|| "-".to_owned()),
            ago(container.created),
            container.status.clone(),
        ]);
    }
    table.print();
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
