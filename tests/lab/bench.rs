//! homelab beside `docker compose` of the same root and beside the bare calls of the Engine's API, all in parallel:
//! `tests/bench.sh` runs it. The argument is the program.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::format_push_string,
    reason = "a benchmark prints, and ends when it cannot go on"
)]
#![allow(dead_code, reason = "the tests use more of the home")]

mod home;

use bollard::Docker;
use bollard::models::{
    ContainerCreateBody, EndpointIpamConfig, EndpointSettings, HostConfig, NetworkingConfig,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder, StartContainerOptions,
    StopContainerOptions,
};
use futures_util::future::join_all;
use home::{Home, Server};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::Instant;

/// How often everything is done. Medians are printed.
const ROUNDS: usize = 7;

/// How often a run that changes nothing is repeated in each round, because it is short.
const REPEATS: u32 = 10;

const FOLDER: &str = "/etc/homelab";

const PLAN: &str = r#"
[network]
subnet  = "192.168.1.0/24"
gateway = "192.168.1.1"

[shim]
address = "192.168.1.254"

[hosts.raspberry-pi]
address = "192.168.1.204"
primary = true

[env.prod]
range    = "192.168.1.130-192.168.1.199"
compose  = ["compose.yml"]
env_file = "vars.env"

[env.preprod]
range = "192.168.1.224-192.168.1.249"
"#;

/// What is measured of one peer in one situation.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    /// Wall time in milliseconds.
    wall: f64,
    /// Processor time of the client in milliseconds.
    cpu: f64,
    /// Its peak memory in kilobytes.
    memory: f64,
}

const HOMELAB: &str = "homelab";
const COMPOSE: &str = "docker compose";
const BARE: &str = "bare calls";
const INSPECT: &str = "network inspect";

/// The network that is as planned.
const NETWORK: &str = "network-up";

/// All measurements, by situation and peer.
type Costs = BTreeMap<(&'static str, &'static str), Vec<Cost>>;

fn main() {
    let program = std::env::args()
        .nth(1)
        .expect("the argument is the program");
    let home = Home::new(Path::new(&program));
    let pi = home.server("trixie", "pi", "192.168.1.204");
    pi.import_image("lab/web:1");
    pi.write(
        &format!("{FOLDER}/homelab.toml"),
        &PLAN
            .replace("\"compose.yml\"", "")
            .replace("\"vars.env\"", "[]"),
    );
    pi.homelab("network-up").exits(0);
    pi.write(&format!("{FOLDER}/homelab.toml"), PLAN);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime");
    for services in [12, 50] {
        pi.write(&format!("{FOLDER}/compose.yml"), &compose_file(services));
        let mut costs = Costs::new();
        for round in 0..=ROUNDS {
            let mut measured = Costs::new();
            cycle(
                &pi,
                HOMELAB,
                "homelab env-up --env prod",
                "homelab env-down --env prod",
                &mut measured,
            );
            let compose = format!(
                "docker compose -p ref -f {FOLDER}/compose.yml --env-file {FOLDER}/vars.env"
            );
            cycle(
                &pi,
                COMPOSE,
                &format!("{compose} up -d"),
                &format!("{compose} down"),
                &mut measured,
            );
            runtime.block_on(bare(&pi, services, &mut measured));
            for (peer, line) in [
                (HOMELAB, "homelab network-up"),
                (
                    INSPECT,
                    "docker network inspect homelab-prod homelab-preprod",
                ),
            ] {
                let cost = self::measured(&pi, line, REPEATS);
                measured.entry((NETWORK, peer)).or_default().push(cost);
            }
            // The first round warms everything up.
            if round > 0 {
                for (key, cost) in measured {
                    costs.entry(key).or_default().extend(cost);
                }
            }
        }
        print(services, &costs);
    }
}

/// Services that do nothing, each with an address on the network that network-up made.
fn compose_file(services: usize) -> String {
    let mut text = "services:\n".to_owned();
    for index in 0..services {
        let changed = if index == 0 {
            "\n    environment: {CHANGED: \"${CHANGED}\"}"
        } else {
            ""
        };
        let last = 130 + index;
        text += &format!(
            "  s{index}:\n    image: lab/web:1\n    command: sleep 6000\n    stop_signal: SIGKILL{changed}\n    networks: {{lan: {{ipv4_address: 192.168.1.{last}}}}}\n"
        );
    }
    text + "networks: {lan: {external: true, name: homelab-prod}}\n"
}

/// Up, nothing to do, one of them changed, down.
fn cycle(pi: &Server, peer: &'static str, up: &str, down: &str, costs: &mut Costs) {
    let mut note = |what, cost| costs.entry((what, peer)).or_default().push(cost);
    pi.write(&format!("{FOLDER}/vars.env"), "CHANGED=1\n");
    note("bring up", measured(pi, up, 1));
    note("nothing to do", measured(pi, up, REPEATS));
    pi.write(&format!("{FOLDER}/vars.env"), "CHANGED=2\n");
    note("one changed", measured(pi, up, 1));
    note("down", measured(pi, down, 1));
}

/// What a command costs, in the mean of some runs, measured in the server so that the way there does not count.
fn measured(pi: &Server, line: &str, runs: u32) -> Cost {
    let text = pi.sh(&format!(
        "exec bash -c 'TIMEFORMAT=\"%3R %3U %3S\"; \
         time for i in $(seq {runs}); do /srv/image/bin/busybox time -f %M -o /tmp/memory {line} >/tmp/said 2>&1 || {{ cat /tmp/said >&2; exit 1; }}; done' \
         2>&1; cat /tmp/memory"
    ));
    let text = format!("{text}{}", pi.sh("cat /tmp/memory"));
    let numbers: Vec<f64> = text
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    let [real, user, system, memory, ..] = numbers.as_slice() else {
        panic!("{line}: {text}")
    };
    let runs = f64::from(runs);
    Cost {
        wall: real * 1e3 / runs,
        cpu: (user + system) * 1e3 / runs,
        // busybox takes the kernel's kilobytes for pages of 4 kB.
        memory: memory / 4.0,
    }
}

/// The calls that nobody can do without, all at once.
async fn bare(pi: &Server, services: usize, costs: &mut Costs) {
    let docker = Docker::connect_with_unix(
        &pi.path("/run/docker.sock"),
        120,
        bollard::API_DEFAULT_VERSION,
    );
    let docker = docker.expect("the socket is there");
    let names: Vec<String> = (0..services).map(|index| format!("bare-{index}")).collect();
    let begun = Instant::now();
    join_all(names.iter().enumerate().map(|(index, name)| {
        let docker = &docker;
        async move {
            let options = CreateContainerOptionsBuilder::new().name(name).build();
            let body = body(index);
            docker
                .create_container(Some(options), body)
                .await
                .expect("it is made");
            let start = docker.start_container(name, None::<StartContainerOptions>);
            start.await.expect("it starts");
        }
    }))
    .await;
    let wall = |begun: Instant| Cost {
        wall: begun.elapsed().as_secs_f64() * 1e3,
        ..Cost::default()
    };
    costs
        .entry(("bring up", BARE))
        .or_default()
        .push(wall(begun));
    let begun = Instant::now();
    join_all(names.iter().map(|name| {
        let docker = &docker;
        async move {
            let stop = docker.stop_container(name, None::<StopContainerOptions>);
            stop.await.expect("it stops");
            let options = RemoveContainerOptionsBuilder::new().v(true).build();
            docker
                .remove_container(name, Some(options))
                .await
                .expect("it goes");
        }
    }))
    .await;
    costs.entry(("down", BARE)).or_default().push(wall(begun));
}

fn body(index: usize) -> ContainerCreateBody {
    let endpoint = EndpointSettings {
        ipam_config: Some(EndpointIpamConfig {
            ipv4_address: Some(format!("192.168.1.{}", 130 + index)),
            ..EndpointIpamConfig::default()
        }),
        ..EndpointSettings::default()
    };
    let network = "homelab-prod".to_owned();
    ContainerCreateBody {
        image: Some("lab/web:1".to_owned()),
        cmd: Some(vec!["sleep".to_owned(), "6000".to_owned()]),
        stop_signal: Some("SIGKILL".to_owned()),
        host_config: Some(HostConfig {
            network_mode: Some(network.clone()),
            ..HostConfig::default()
        }),
        networking_config: Some(NetworkingConfig {
            endpoints_config: Some(HashMap::from([(network, endpoint)])),
        }),
        ..ContainerCreateBody::default()
    }
}

fn median(costs: &[Cost], part: fn(&Cost) -> f64) -> f64 {
    let mut values: Vec<f64> = costs.iter().map(part).collect();
    values.sort_by(f64::total_cmp);
    values
        .get(values.len() / 2)
        .copied()
        .expect("there are rounds")
}

fn print(services: usize, costs: &Costs) {
    println!("\n{services} services, medians of {ROUNDS} rounds\n");
    println!(
        "    {:<15}{:<16}{:>10}{:>12}{:>12}   homelab / this one: wall, CPU, memory",
        "", "", "wall ms", "CPU ms", "memory kB"
    );
    for what in ["bring up", "nothing to do", "one changed", "down", NETWORK] {
        let part = |peer, part: fn(&Cost) -> f64| {
            costs.get(&(what, peer)).map(|costs| median(costs, part))
        };
        let ours = part(HOMELAB, |cost| cost.wall).expect("homelab ran");
        for peer in [HOMELAB, COMPOSE, BARE, INSPECT] {
            let Some(wall) = part(peer, |cost| cost.wall) else {
                continue;
            };
            let (cpu, memory) = (part(peer, |cost| cost.cpu), part(peer, |cost| cost.memory));
            let (cpu, memory) = (cpu.unwrap_or(0.0), memory.unwrap_or(0.0));
            let mut line = format!("    {what:<15}{peer:<16}{wall:>10.1}");
            if cpu > 0.0 {
                line += &format!("{cpu:>12.1}{memory:>12.0}");
            }
            if matches!(peer, COMPOSE | INSPECT) {
                let ratio = |part: fn(&Cost) -> f64| {
                    median(&costs[&(what, HOMELAB)], part) / median(&costs[&(what, peer)], part)
                };
                line += &format!(
                    "   {:.2}, {:.2}, {:.2}",
                    ratio(|c| c.wall),
                    ratio(|c| c.cpu),
                    ratio(|c| c.memory)
                );
            } else if peer == BARE {
                line += &format!("{:24}   {:.2}", "", ours / wall);
            }
            println!("{line}");
        }
    }
}
