//! Who reaches whom, as a table that a person reads at a glance.

mod hint;

use super::table::Table;
use super::{ERROR, FAINT, HINT, Line, Report, err, out, print_object};
use crate::error::Diagnostic;
use crate::plan::Plan;
use crate::verify::agent::Answer;
use crate::verify::matrix::{Cell, Matrix, Node, Probe};
use serde_json::json;

/// How many wrong answers of one cell are told; a cell may stand for hundreds.
const MOST: usize = 5;

/// Prints the matrix, what is wrong with it and `beside` it, and what to do.
pub fn print(report: Report, plan: &Plan, matrix: &Matrix, beside: &[Diagnostic]) {
    if report.json {
        objects(matrix);
    } else if !report.quiet {
        table(matrix);
    }
    for role in matrix.silent() {
        let hint = format!("`homelab env-up --env {role}` starts it");
        let what = format!(
            "environment `{role}` runs nothing on this host, so nothing was proven of what it reaches"
        );
        report.warnings(&[Diagnostic::warning(what, hint)]);
    }
    for cell in matrix.differences() {
        difference(plan, matrix, cell);
    }
    report.warnings(beside);
    if report.quiet {
        return;
    }
    if report.verbose && !report.json {
        for cell in &matrix.cells {
            for probe in &cell.probes {
                if let (Some(source), Some(target)) = (
                    matrix.nodes.get(probe.source),
                    matrix.nodes.get(probe.target),
                ) {
                    let sentence = sentence(source, target, probe);
                    err(Line::default().styled(FAINT, sentence));
                }
            }
        }
    }
    if matrix.differences().next().is_none() && beside.is_empty() {
        let probes = matrix.cells.iter().flat_map(|cell| &cell.probes);
        let (pairs, over_ipv6): (Vec<&Probe>, Vec<&Probe>) =
            probes.partition(|probe| probe.over.is_none());
        let also = if over_ipv6.is_empty() {
            ""
        } else {
            ", those that are kept apart over IPv6 too"
        };
        err(format!(
            "all is as planned: {} pairs were asked by tcp, udp and ping{also}",
            pairs.len()
        ));
    }
}

fn table(matrix: &Matrix) {
    let heads = matrix.to.iter().map(|role| role.to_string().to_uppercase());
    let heads: Vec<String> = std::iter::once("FROM \\ TO".to_owned())
        .chain(heads)
        .collect();
    let mut table = Table::with_header(heads);
    for (from, cells) in matrix.from.iter().zip(matrix.cells.chunks(matrix.to.len())) {
        let cells = cells.iter().map(cell_text);
        table.row(std::iter::once(from.to_string()).chain(cells));
    }
    table.print();
    out("each cell: seen / planned; - is nobody there to ask or to be asked");
}

fn cell_text(cell: &Cell) -> String {
    match cell.seen {
        None => "-".to_owned(),
        Some(seen) => format!("{seen} / {}", cell.planned),
    }
}

fn objects(matrix: &Matrix) {
    for cell in &matrix.cells {
        let probes: Vec<_> = cell
            .probes
            .iter()
            .filter_map(|probe| {
                let (source, target) = (
                    matrix.nodes.get(probe.source)?,
                    matrix.nodes.get(probe.target)?,
                );
                let Answer {
                    tcp,
                    udp,
                    ping,
                    refused: _,
                } = probe.answer;
                Some(json!({
                    "source": source.name, "target": target.name, "address": probe.address(target),
                    "tcp": tcp, "udp": udp, "ping": ping,
                }))
            })
            .collect();
        print_object(&json!({
            "event": "pair", "from": cell.from.to_string(), "to": cell.to.to_string(),
            "planned": cell.planned.to_string(), "seen": cell.seen.map(|seen| seen.to_string()),
            "differs": cell.differs(), "probes": probes,
        }));
    }
    let differences = matrix.differences().count();
    print_object(&json!({ "event": "finished", "differences": differences }));
}

fn difference(plan: &Plan, matrix: &Matrix, cell: &Cell) {
    let seen = cell.seen.map_or("-".to_owned(), |seen| seen.to_string());
    let what = format!(
        "from {} to {}: {seen}, planned is {}",
        cell.from, cell.to, cell.planned
    );
    err(Line::headed(ERROR, "difference:", &what));
    let wrong: Vec<(&Node, &Node, &Probe)> = matrix.wrong(cell).collect();
    for (source, target, probe) in wrong.iter().take(MOST) {
        err(Line::below(&sentence(source, target, probe)));
    }
    if wrong.len() > MOST {
        err(Line::below(&format!("and {} more", wrong.len() - MOST)));
    }
    let hint = hint::hint(plan, matrix, cell, &wrong);
    err(Line::headed(HINT, "hint:", &hint));
}

fn sentence(source: &Node, target: &Node, probe: &Probe) -> String {
    let Answer {
        tcp,
        udp,
        ping,
        refused: _,
    } = probe.answer;
    let named = [(tcp, "tcp"), (udp, "udp"), (ping, "ping")];
    let by: Vec<&str> = named
        .iter()
        .filter(|(came, _)| *came)
        .map(|(_, name)| *name)
        .collect();
    let outcome = if by.is_empty() {
        "no answer".to_owned()
    } else {
        format!("answered by {}", by.join(", "))
    };
    format!(
        "{} to {} ({}): {outcome}",
        source.name,
        target.name,
        probe.address(target)
    )
}
