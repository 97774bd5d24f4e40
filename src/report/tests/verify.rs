//! What a person sees of `verify`.

use super::{Home, JSON, PEOPLE, QUIET, VERBOSE, assert_screen};
use crate::report::{err, matrix};
use crate::verify::agent::Answer;
use crate::verify::matrix::{Matrix, Node, Probe, Role};
use std::net::Ipv4Addr;

/// The host, two containers of production, one of preproduction and one that homelab did not make.
pub(super) fn proof(reached: &[(usize, usize)]) -> Matrix {
    let node = |name: &str, role: Role, made_for: &str, last: u8| Node {
        id: name.to_owned(),
        process: Some(1),
        slice: None,
        name: name.to_owned(),
        address: Ipv4Addr::new(192, 168, 1, last),
        role,
        lan: None,
        made_for: (!made_for.is_empty()).then(|| made_for.to_owned()),
        is_here: true,
    };
    let env = |name: &str| Role::Env(name.to_owned());
    let nodes = vec![
        node("pi", Role::Host, "", 204),
        node("db-prod", env("prod"), "prod", 200),
        node("app-prod", env("prod"), "prod", 201),
        node("db-preprod", env("preprod"), "preprod", 230),
        node("guest", env("preprod"), "", 240),
    ];
    let pairs = (0..nodes.len()).flat_map(|source| (0..5).map(move |target| (source, target)));
    let probes: Vec<Probe> = pairs
        .filter(|(source, target)| source != target)
        .map(|(source, target)| {
            let ping = reached.contains(&(source, target));
            let answer = Answer {
                tcp: ping && target != 4,
                ping,
                ..Answer::default()
            };
            Probe {
                source,
                target,
                over: None,
                answer,
            }
        })
        .collect();
    Matrix::new(&Home::new().plan, nodes, &probes)
}

/// What the plan of the home says.
pub(super) fn planned() -> Vec<(usize, usize)> {
    let env = |node: usize| if node < 3 { "prod" } else { "preprod" };
    let pairs = (0..5).flat_map(|source| (0..5).map(move |target| (source, target)));
    pairs
        .filter(|(source, target)| *source == 0 || *target == 0 || env(*source) == env(*target))
        .collect()
}

#[test]
fn verify_prints_who_reaches_whom() {
    let plan = Home::new().plan;
    let good = proof(&planned());
    assert_screen("verify.txt", || matrix(PEOPLE, &plan, &good, &[]));
    assert_screen("verify-verbose.txt", || {
        matrix(VERBOSE, &plan, &good, &[]);
    });
    let leak = [planned(), vec![(2, 3), (4, 1)]].concat();
    let leak: Vec<_> = leak
        .into_iter()
        .filter(|(_, target)| *target != 2)
        .collect();
    let bad = proof(&leak);
    assert_screen("verify-differences.txt", || {
        matrix(PEOPLE, &plan, &bad, &[]);
    });
    assert_screen("verify-differences-json.txt", || {
        matrix(JSON, &plan, &bad, &[]);
    });
    assert_screen("verify-differences-quiet.txt", || {
        matrix(QUIET, &plan, &bad, &[]);
    });
}

const GATEWAY: usize = 0;
const HOST: usize = 1;
const SHIM: usize = 2;
const A_PROD: usize = 3;
const B_PROD: usize = 4;

/// Gateway, host and shim, two containers of production and two of preproduction, each in its slice.
fn people() -> Vec<Node> {
    let node = |name: &str, role: Role, last: u8| Node {
        id: name.to_owned(),
        process: None,
        slice: None,
        name: name.to_owned(),
        address: Ipv4Addr::new(192, 168, 1, last),
        role,
        lan: None,
        made_for: None,
        is_here: true,
    };
    let guest = |name: &str, env: &str, last: u8| Node {
        process: Some(4000 + u32::from(last)),
        slice: Some(format!("homelab-{env}.slice")),
        made_for: Some(env.to_owned()),
        ..node(name, Role::Env(env.to_owned()), last)
    };
    let mut nodes = vec![
        node("gateway", Role::Gateway, 1),
        node("pi", Role::Host, 204),
        node("homelab-shim", Role::Shim, 254),
        guest("a-prod", "prod", 200),
        guest("b-prod", "prod", 201),
        guest("c-preprod", "preprod", 230),
        guest("d-preprod", "preprod", 231),
    ];
    if let Some(shim) = nodes.get_mut(SHIM) {
        "pi".clone_into(&mut shim.id);
    }
    nodes
}

fn is_machine(place: usize) -> bool {
    matches!(place, HOST | SHIM)
}

fn is_guest(place: usize) -> bool {
    place > SHIM
}

/// What is printed when those pairs have the answer that they shall not have, as `is_wrong` says of source and target.
fn print_wrong(what: &str, nodes: Vec<Node>, is_wrong: impl Fn(usize, usize) -> bool) {
    let planned = |source: usize, target: usize| match (nodes.get(source), nodes.get(target)) {
        (Some(source), Some(target)) => {
            let both = [&source.role, &target.role];
            both.iter().any(|role| !matches!(role, Role::Env(_))) || source.role == target.role
        }
        _ => false,
    };
    let mut probes = Vec::new();
    for source in 0..nodes.len() {
        for target in 0..nodes.len() {
            let id = |place: usize| nodes.get(place).map(|node| &node.id);
            if source == GATEWAY || source == SHIM || id(source) == id(target) {
                continue;
            }
            let answer = Answer {
                ping: planned(source, target) != is_wrong(source, target),
                ..Answer::default()
            };
            probes.push(Probe {
                source,
                target,
                over: None,
                answer,
            });
        }
    }
    let plan = Home::new().plan;
    err(format!("-- {what}"));
    matrix(QUIET, &plan, &Matrix::new(&plan, nodes, &probes), &[]);
}

/// Those with other slices.
fn in_slices<const N: usize>(slices: [(usize, &str); N]) -> Vec<Node> {
    let mut nodes = people();
    for (place, slice) in slices {
        if let Some(node) = nodes.get_mut(place) {
            node.slice = Some(slice.to_owned());
        }
    }
    nodes
}

#[test]
fn a_container_of_ours_on_another_network_is_no_strangers() {
    let mut nodes = people();
    if let Some(node) = nodes.get_mut(A_PROD) {
        node.role = Role::Env("preprod".to_owned());
    }
    assert_screen("verify-other-network.txt", || {
        print_wrong("it is on that of preprod", nodes, |a, b| {
            a == A_PROD && b > B_PROD || b == A_PROD && a > B_PROD
        });
    });
}

#[test]
fn each_hint_of_verify_can_be_followed() {
    let across =
        |source: usize, target: usize| source > SHIM && source <= B_PROD && target > B_PROD;
    assert_screen("verify-hints.txt", || {
        print_wrong(
            "a container is in no slice",
            in_slices([(A_PROD, "system.slice")]),
            |source, target| source == A_PROD && across(source, target),
        );
        print_wrong(
            "two are in slices that are not theirs",
            in_slices([(A_PROD, "system.slice"), (B_PROD, "homelab-preprod.slice")]),
            across,
        );
        print_wrong("the slice of production is open", people(), across);
        print_wrong(
            "the shim's route is lost, or another one beats it",
            people(),
            |a, b| is_machine(a) && is_guest(b) || is_guest(a) && is_machine(b),
        );
        print_wrong(
            "another route beats the shim's to one container",
            people(),
            |a, b| is_machine(a) && b == A_PROD || a == A_PROD && is_machine(b),
        );
        print_wrong("a firewall drops output", people(), |a, b| {
            a == HOST && is_guest(b)
        });
        print_wrong("a firewall drops input", people(), |a, b| {
            is_guest(a) && is_machine(b)
        });
        print_wrong("the switch knows no container", people(), |a, b| {
            is_guest(a) && b == GATEWAY
        });
        print_wrong(
            "the switch does not know one container",
            people(),
            |a, b| a == A_PROD && b == GATEWAY,
        );
        print_wrong("the router is off", people(), |_, b| b == GATEWAY);
        print_wrong("the host has no way to the router", people(), |a, b| {
            a == HOST && b == GATEWAY
        });
        print_wrong("a container lost its link", people(), |a, b| {
            (a == A_PROD && b <= B_PROD) || (b == A_PROD && (a == HOST || a == B_PROD))
        });
        print_wrong("a container has a firewall", people(), |a, b| {
            b == A_PROD && (a == HOST || a == B_PROD)
        });
        print_wrong("a container answers some of its own", people(), |a, b| {
            a == B_PROD && b == A_PROD
        });
    });
}
