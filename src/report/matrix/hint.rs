//! What to do about a cell of `verify` that is not as planned: told from what the other cells show.

use crate::plan::naming::{network_name, slice_name};
use crate::plan::{Isolation, Plan};
use crate::verify::matrix::{Cell, Matrix, Node, Probe, Role, Verdict};

/// How many containers are named.
const MOST: usize = 5;

/// A question whose answer is not as planned.
type Wrong<'a> = (&'a Node, &'a Node, &'a Probe);

/// What to run, change or look at.
pub fn hint(plan: &Plan, matrix: &Matrix, cell: &Cell, wrong: &[Wrong]) -> String {
    let known = foreign(plan, wrong).or_else(|| on_other_network(plan, wrong));
    if let Some(hint) = known.or_else(|| misplaced(plan, wrong)) {
        return hint;
    }
    let mut ends = wrong
        .iter()
        .flat_map(|(source, target, _)| [*target, *source]);
    let silent_one = ends.find(|end| matches!(end.role, Role::Env(_)) && matrix.is_silent(end));
    let is_leak = cell.planned == Verdict::Blocked && cell.seen != Some(Verdict::NoAnswer);
    if let Some(end) = silent_one.filter(|_| !is_leak) {
        return silent(end);
    }
    let target = wrong.first().map(|(_, target, _)| *target);
    match (cell.planned, &cell.from, &cell.to, target) {
        // This host alone may reach it, and did not.
        (Verdict::Blocked, _, _, Some(target)) if !is_leak => way(plan, target),
        (Verdict::Blocked, Role::Env(from), _, _) => leak(from, wrong),
        (_, Role::Host, Role::Env(_), Some(target)) => to_containers(plan, matrix, cell, target),
        (_, Role::Env(env), Role::Host | Role::Shim, _) => to_host(plan, matrix, env, wrong),
        (_, _, Role::Gateway, Some(gateway)) => to_gateway(gateway, matrix, cell),
        (_, Role::Env(from), Role::Env(to), Some(target)) if from == to => neighbour(target),
        (_, Role::Env(from), Role::Env(_), _) => leak(from, wrong),
        _ => {
            "`homelab status` shows what runs, and `docker logs` why something does not".to_owned()
        }
    }
}

/// The slice that a container of an environment belongs into.
fn slice_of(plan: &Plan, node: &Node) -> Option<String> {
    match &node.role {
        Role::Env(env) if plan.isolation == Isolation::Enforced => Some(slice_name(env)),
        _ => None,
    }
}

/// Not made by homelab, and not in the slice of the environment.
fn foreign(plan: &Plan, wrong: &[Wrong]) -> Option<String> {
    let mut ends = wrong
        .iter()
        .flat_map(|(source, target, _)| [*source, *target]);
    let guest = ends.find(|end| end.made_for.is_none() && end.slice != slice_of(plan, end))?;
    let slice = slice_of(plan, guest)?;
    Some(format!(
        "homelab did not make `{}`: remove it, or run it with `--cgroup-parent '{slice}'` on that network",
        guest.name
    ))
}

/// Ours, and on the network of another environment.
fn on_other_network(plan: &Plan, wrong: &[Wrong]) -> Option<String> {
    let mut ends = wrong
        .iter()
        .flat_map(|(source, target, _)| [*source, *target]);
    ends.find_map(|end| match (&end.made_for, &end.role) {
        (Some(own), Role::Env(other)) if own != other => {
            let (what, how) = if plan.env(own).is_some() {
                ("up", "puts it where it belongs")
            } else {
                ("down", "takes it away")
            };
            Some(format!(
                "`{}` of environment `{own}` is on network `{}`: `homelab env-{what} --env {own}` {how}",
                end.name,
                network_name(other)
            ))
        }
        _ => None,
    })
}

/// Ours, in another slice than planned.
fn misplaced(plan: &Plan, wrong: &[Wrong]) -> Option<String> {
    let mut found: Vec<(&Node, &str, String)> = Vec::new();
    for end in wrong
        .iter()
        .flat_map(|(source, target, _)| [*source, *target])
    {
        if let (Some(slice), Some(planned)) = (&end.slice, slice_of(plan, end))
            && *slice != planned
            && found
                .iter()
                .all(|(node, _, _)| node.id != end.id && node.role == end.role)
        {
            found.push((end, slice, planned));
        }
    }
    let (first, slice, planned) = found.first()?;
    let others: Vec<String> = found
        .iter()
        .skip(1)
        .take(MOST - 1)
        .map(|(node, slice, _)| format!("`{}` in `{slice}`", node.name))
        .collect();
    let others = match others.as_slice() {
        [] => String::new(),
        names => format!(", likewise {}", names.join(", ")),
    };
    Some(format!(
        "`{}` runs in `{slice}` and belongs into `{planned}`{others}: `homelab env-up --env {}` makes anew what is in the wrong slice",
        first.name, first.role
    ))
}

/// Everybody is in the right slice, and the slice does not filter as planned.
fn leak(from: &str, wrong: &[Wrong]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for (source, _, _) in wrong {
        if !names.contains(&source.name.as_str()) {
            names.push(&source.name);
        }
    }
    names.truncate(MOST);
    format!(
        "`homelab network-up` puts `{}` in order; if it has nothing to do, `docker restart {}` puts what is in it under its \
         filter anew",
        slice_name(from),
        names.join(" ")
    )
}

/// Nobody gets an answer from it, not its own environment either.
fn silent(target: &Node) -> String {
    let (name, address) = (&target.name, target.address);
    match target.process {
        Some(process) => format!(
            "nobody gets an answer from `{name}`: `nsenter -t {process} -n ip addr` must show {address} on a link that is up, \
             `nsenter -t {process} -n nft list ruleset` shows whether it has a firewall of its own, and `docker restart \
             {name}` gives it its link anew"
        ),
        None => format!(
            "run `homelab verify` on that host too: nobody here gets an answer from `{name}`"
        ),
    }
}

fn to_containers(plan: &Plan, matrix: &Matrix, cell: &Cell, target: &Node) -> String {
    // What they get back takes the way of what the host sends to them.
    let gets_back = |machine: &Role| matrix.reaches(&cell.to, machine);
    if target.is_here && (gets_back(&Role::Host) || gets_back(&Role::Shim)) && !is_partly(cell) {
        return format!(
            "containers reach this host and it does not reach them: a firewall of this host drops what it sends to {}; \
             `nft list ruleset` and `iptables -S OUTPUT` show its rules",
            target.address
        );
    }
    way(plan, target)
}

fn is_partly(cell: &Cell) -> bool {
    cell.seen == Some(Verdict::Partly)
}

/// The shim by which this host reaches an environment.
fn shim_of(plan: &Plan, role: &Role) -> String {
    let env = match role {
        Role::Env(name) => plan.env(name),
        _ => None,
    };
    env.map_or_else(|| plan.shim_name.clone(), |env| plan.shim_name_of(env))
}

/// The shim, its route, and what may be in the way of both.
fn way(plan: &Plan, container: &Node) -> String {
    let shim = shim_of(plan, &container.role);
    format!(
        "`homelab network-up` puts `{shim}` and its route in order; if it has nothing to do, `ip route get {}` must say \
         `dev {shim}`: another route that it shows beats the shim's and must go; if there is none, `nft list ruleset` shows \
         whether a firewall of this host is in the way",
        container.address
    )
}

fn to_host(plan: &Plan, matrix: &Matrix, env: &str, wrong: &[Wrong]) -> String {
    let env = Role::Env(env.to_owned());
    let by_any = |machine: &Role| matrix.reaches(&env, machine);
    let source = wrong.first().map(|(source, _, _)| *source);
    match source {
        Some(_) if matrix.reaches(&Role::Host, &env) && !by_any(&Role::Host) && !by_any(&Role::Shim) => {
            "this host reaches the containers and they do not reach it: a firewall of this host drops what comes from them; \
             `nft list ruleset` and `iptables -S INPUT` show its rules"
                .to_owned()
        }
        Some(source) => way(plan, source),
        None => format!("`homelab network-up` puts `{}` in order", shim_of(plan, &env)),
    }
}

fn to_gateway(gateway: &Node, matrix: &Matrix, cell: &Cell) -> String {
    let lan = &gateway.lan;
    let gateway = gateway.address;
    let is_there = |role: &&Role| {
        let mut nodes = matrix.nodes.iter();
        matches!(role, Role::Env(_)) && nodes.any(|node| node.role == **role && node.lan == *lan)
    };
    let mut envs = matrix.from.iter().filter(is_there);
    let by_containers = envs.any(|env| matrix.reaches(env, &Role::Gateway));
    let by_host = matrix.reaches(&Role::Host, &Role::Gateway);
    if let Some(env) = lan {
        return format!(
            "does the router of that LAN, {gateway}, run and answer pings? If it does: the `parent` in `[env.{env}]` must be the \
             interface that is on it, and what that is plugged into must let several hardware addresses through"
        );
    }
    match (by_host, by_containers) {
        (true, false) => "this host reaches the router and no container does: what it is plugged into lets its own hardware \
             address through alone; allow promiscuous mode and MAC spoofing (forged transmits) for the port of a virtual \
             machine, and several hardware addresses in the port security of a managed switch; Wi-Fi carries no macvlan"
            .to_owned(),
        (true, true) => format!(
            "the router, {gateway}, answers others: a managed switch may limit how many hardware addresses a port has (port \
             security), or the router may block some; `docker inspect` shows a container's as `MacAddress`"
        ),
        (false, true) if cell.from == Role::Host => format!(
            "containers reach the router and this host does not: `ip route get {gateway}` must name the interface that the \
             router is on, and `nft list ruleset` shows whether a firewall of this host is in the way"
        ),
        _ => format!(
            "nobody reaches the router: does the router, {gateway}, run and answer pings, is that its address, and is this \
             host's cable plugged in?"
        ),
    }
}

/// It answers others, and both are in the right slice.
fn neighbour(target: &Node) -> String {
    let name = &target.name;
    let process = target
        .process
        .map_or("PID".to_owned(), |process| process.to_string());
    format!(
        "`{name}` answers others: `nsenter -t {process} -n nft list ruleset` shows whether it has a firewall of its own, and \
         `docker restart {name}` gives it its link anew"
    )
}
