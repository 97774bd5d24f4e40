//! The address plan as a table that a person reads at a glance, in the order of the addresses.

use super::table::Table;
use super::{Report, out, print_object};
use crate::plan::{
    Env, Host, Isolation, Limits, OwnLan, Plan, PlannedShim, Range, Service, ip_range,
};
use ipnet::Ipv4Net;
use serde_json::{Value, json};
use std::net::Ipv4Addr;

/// One line of the table, or one object.
struct Row {
    /// What the rows are sorted by.
    first: Ipv4Addr,
    address: String,
    name: String,
    detail: String,
    object: Value,
}

/// Prints the plan.
pub fn print(report: Report, plan: &Plan) {
    let mut rows = machines(plan);
    for (env, pool) in plan.planned_pools() {
        rows.extend(environment(plan, env, pool));
    }
    // Stable: what begins at the same address stays in the order in which it was put there, the wider thing first.
    rows.sort_by_key(|row| row.first);
    if report.json {
        for row in &rows {
            print_object(&row.object);
        }
        return;
    }
    if report.quiet {
        return;
    }
    let mut table = Table::with_header(["ADDRESS", "FOR", ""]);
    for row in &rows {
        table.row([&row.address, &row.name, &row.detail]);
    }
    table.print();
    for note in notes(plan) {
        out(note);
    }
}

fn machines(plan: &Plan) -> Vec<Row> {
    let mut rows = vec![
        Row {
            first: plan.subnet.network(),
            address: plan.subnet.to_string(),
            name: "LAN".to_owned(),
            detail: format!("broadcast {}", plan.subnet.broadcast()),
            object: json!({ "kind": "lan", "subnet": plan.subnet, "broadcast": plan.subnet.broadcast() }),
        },
        Row {
            first: plan.gateway,
            address: plan.gateway.to_string(),
            name: "gateway".to_owned(),
            detail: String::new(),
            object: json!({ "kind": "gateway", "address": plan.gateway }),
        },
    ];
    let routes = plan.routes.iter();
    rows.extend(routes.map(|route| route_row(*route, &plan.shim_name)));
    if let Some(dhcp) = plan.dhcp {
        rows.push(range("dhcp", "DHCP", "the router hands these out", dhcp));
    }
    for (name, reserved) in &plan.reserved {
        let row = range("reserved", &format!("reserved {name}"), "", *reserved);
        let object = json!({ "kind": "reserved", "name": name, "range": reserved });
        rows.push(Row { object, ..row });
    }
    for host in &plan.hosts {
        if !plan.envs.iter().any(|env| env.range.contains(host.address)) {
            rows.push(host_row(host, ""));
        }
    }
    let mut shims: Vec<&Host> = plan.hosts.iter().collect();
    shims.sort_by_key(|host| host.shim);
    rows.extend(
        shims
            .into_iter()
            .map(|host| shim_row(host, &plan.main_shim(host))),
    );
    for (env, own) in plan
        .envs
        .iter()
        .filter_map(|env| Some((env, env.lan.as_ref()?)))
    {
        rows.extend(own_lan(plan, env, own));
    }
    rows
}

fn shim_row(host: &Host, shim: &PlannedShim) -> Row {
    let parent = shim.env.and(shim.parent);
    let parent = parent.map_or(String::new(), |parent| format!(", parent {parent}"));
    Row {
        first: shim.address,
        address: shim.address.to_string(),
        name: format!("shim of {}", host.name),
        detail: format!("link {}{parent}", shim.name),
        object: json!({ "kind": "shim", "address": shim.address, "host": host.name, "link": shim.name }),
    }
}

fn own_lan(plan: &Plan, env: &Env, own: &OwnLan) -> Vec<Row> {
    let (subnet, broadcast) = (own.subnet, own.subnet.broadcast());
    let mut rows = vec![
        Row {
            first: subnet.network(),
            address: subnet.to_string(),
            name: format!("LAN of {}", env.name),
            detail: format!("broadcast {broadcast}"),
            object: json!({ "kind": "lan", "subnet": subnet, "broadcast": broadcast, "environment": env.name }),
        },
        Row {
            first: own.gateway,
            address: own.gateway.to_string(),
            name: "gateway".to_owned(),
            detail: String::new(),
            object: json!({ "kind": "gateway", "address": own.gateway, "environment": env.name }),
        },
    ];
    let shim = plan.shim_name_of(env);
    rows.extend(own.routes.iter().map(|route| route_row(*route, &shim)));
    let hosts = plan.hosts.iter();
    let shims = hosts.filter_map(|host| Some(shim_row(host, &plan.shim_of(env, host)?)));
    rows.extend(shims);
    rows
}

fn route_row(route: Ipv4Net, shim: &str) -> Row {
    Row {
        first: route.network(),
        address: route.to_string(),
        name: "shim route".to_owned(),
        detail: format!("how hosts reach containers, over {shim}"),
        object: json!({ "kind": "route", "destination": route, "link": shim }),
    }
}

fn range(kind: &str, name: &str, detail: &str, range: Range) -> Row {
    Row {
        first: range.first(),
        address: range.to_string(),
        name: name.to_owned(),
        detail: detail.to_owned(),
        object: json!({ "kind": kind, "range": range }),
    }
}

fn host_row(host: &Host, indent: &str) -> Row {
    let mut detail = Vec::new();
    if host.primary {
        detail.push("primary".to_owned());
    }
    if let Some(parent) = &host.parent {
        detail.push(format!("parent {parent}"));
    }
    Row {
        first: host.address,
        address: format!("{indent}{}", host.address),
        name: format!("{indent}host {}", host.name),
        detail: detail.join(", "),
        object: json!({
            "kind": "host", "name": host.name, "address": host.address, "shim": host.shim,
            "parent": host.parent, "primary": host.primary,
        }),
    }
}

fn environment(plan: &Plan, env: &Env, pool: Ipv4Net) -> Vec<Row> {
    const INDENT: &str = "  ";
    let free = plan.unassigned(env).count();
    let about = format!(
        "{free} of {} free, network {}, pool {pool}",
        env.range.len(),
        env.network()
    );
    let detail: Vec<String> = std::iter::once(about).chain(env.limits.words()).collect();
    let Limits { memory, cpus } = env.limits;
    let mut rows = vec![Row {
        first: env.range.first(),
        address: env.range.to_string(),
        name: format!("environment {}", env.name),
        detail: detail.join(", "),
        object: json!({
            "kind": "environment", "name": env.name, "range": env.range, "network": env.network(),
            "pool": pool, "ip_range": ip_range(plan.gateway_of(env)), "addresses": env.range.len(), "free": free,
            "memory": memory, "cpus": cpus.map(|cpus| cpus.to_string()),
        }),
    }];
    let mut inside: Vec<Row> = env
        .services
        .iter()
        .map(|service| service_row(service, env, INDENT))
        .collect();
    for host in &plan.hosts {
        if env.range.contains(host.address) {
            inside.push(host_row(host, INDENT));
        }
    }
    inside.sort_by_key(|row| row.first);
    // They stay below their environment: nothing else can begin inside its range.
    rows.extend(inside);
    rows
}

fn service_row(service: &Service, env: &Env, indent: &str) -> Row {
    let address = match service.address {
        Some(address) => address.to_string(),
        None if service.is_on_lan => "a free one".to_owned(),
        None => "none".to_owned(),
    };
    let mut detail = format!("on {}, {}", service.host, service.image);
    if !service.is_on_lan {
        let networks = service
            .networks
            .iter()
            .map(|attachment| attachment.network.as_str());
        let places: Vec<&str> = networks.chain(service.network_mode.as_deref()).collect();
        detail = format!("{detail}, network {}", places.join(", "));
    }
    if !service.is_active {
        detail.push_str(", not by itself: its profiles are not active");
    }
    Row {
        first: service.address.unwrap_or(env.range.last()),
        address: format!("{indent}{address}"),
        name: format!("{indent}{}", service.name),
        detail,
        object: json!({
            "kind": "service", "name": service.name, "environment": env.name, "address": service.address,
            "host": service.host, "image": service.image, "container": service.container(), "active": service.is_active,
        }),
    }
}

/// What a wider pool means to the containers in it, and what no isolation means.
fn notes(plan: &Plan) -> Vec<String> {
    let pools = plan.planned_pools();
    let wider = pools.filter(|(env, pool)| *pool != plan.subnet_of(env));
    let wider = wider.map(|(env, pool)| {
        format!(
            "note: containers of {} take all of {pool} for on-link and {} for its broadcast address",
            env.name,
            pool.broadcast()
        )
    });
    let is_open = plan.isolation == Isolation::Off && plan.envs.len() > 1;
    let open =
        is_open.then(|| "note: isolation is off, so environments reach each other".to_owned());
    wider.chain(open).collect()
}
