//! Engines that stand still, come and go: homelab says so in time, and removes nothing without their word.

use crate::home::{Run, SOON, Server, wait_for};
use crate::pool::borrow;
use crate::proxy::{Fault, Proxy, SOCKET};
use crate::services::registry;
use crate::{home_and_pi, lan, tests};
use std::time::{Duration, Instant};

tests! {
    every engine:
        a_frozen_engine_is_told_in_time_and_loses_nothing
        every_call_may_fail_in_every_way;
    one engine:
        half_a_network_that_docker_keeps_stops_nobody
}

/// The limit of a question to the Engine, and room for a busy lab.
const TOLD: Duration = Duration::from_secs(45);

fn freeze(pi: &Server, signal: &str) {
    pi.sh(&format!("kill -{signal} $(cat /run/docker.pid)"));
}

fn a_frozen_engine_is_told_in_time_and_loses_nothing(suite: &str) {
    let (home, pi) = home_and_pi(suite);
    pi.homelab("network-up").exits(0);
    pi.homelab("env-up").exits(0);
    pi.homelab("env-up --env prod").exits(0);
    let before = pi.sh("ip -o link; ip route");
    for signal in ["STOP", "TERM"] {
        if signal == "STOP" {
            freeze(&pi, signal);
        } else {
            pi.sh("systemctl stop docker.socket docker.service");
        }
        let begun = Instant::now();
        // All at once, as each of them waits for the Engine.
        let lines = ["shim up", "status", "ps", "network-up --dry-run"];
        std::thread::scope(|scope| {
            for line in lines {
                let pi = &pi;
                scope.spawn(move || {
                    let run = pi.homelab(line);
                    let said = format!("{}{}", run.stdout, run.stderr);
                    if line == "shim up" {
                        run.exits(0);
                        return;
                    }
                    assert!(
                        said.contains("did not answer within 30 seconds")
                            || said.contains("there is no Docker Engine here")
                            || said.contains("no Docker Engine answers"),
                        "{line}: {said}"
                    );
                    assert!(!said.contains("homelab shim up"), "{line}: {said}");
                });
            }
        });
        assert!(begun.elapsed() < TOLD, "{:?}", begun.elapsed());
        let now = pi.sh("ip -o link; ip route");
        for line in before
            .lines()
            .filter(|line| line.contains("hl-") || line.contains("homelab-shim"))
        {
            assert!(now.contains(line), "{line} is gone:\n{now}");
        }
        // An interrupt ends whoever waits for the Engine.
        let begun = Instant::now();
        let ended = pi.sh("homelab env-up & pid=$!; sleep 0.5; kill -INT $pid; wait $pid; echo $?");
        assert!(begun.elapsed() < Duration::from_secs(5));
        assert!(ended.contains("130") || ended.contains('1'), "{ended}");
        if signal == "STOP" {
            freeze(&pi, "CONT");
        } else {
            pi.sh("systemctl start docker.socket docker.service");
            pi.wait_for_docker();
        }
    }
    pi.homelab("network-up").exits(0).says("nothing to do");
    pi.homelab("env-up").exits(0);
    wait_for("the pages", SOON, || {
        home.laptop.page_now(lan(230)).is_some() && home.laptop.page_now(lan(200)).is_some()
    });
    pi.homelab("status").exits(0);
}

const PLAN: &str = r#"
default_env = "preprod"
compose     = ["compose.yml"]

[network]
subnet  = "192.168.1.0/24"
gateway = "192.168.1.1"
parent  = "eth0"

[shim]
address = "192.168.1.254"

[hosts.raspberry-pi]
address = "192.168.1.204"
primary = true

[env.preprod]
range = "192.168.1.224-192.168.1.249"
"#;

/// A service of each kind of call. None is on the LAN, which would be asked for a second each time.
const SERVICES: &str = r#"
services:
  job:
    image: 127.0.0.1:5000/lab/web:1
    command: "true"
    networks: [inner]
  web:
    image: 127.0.0.1:5000/lab/web:1
    command: sh -c 'echo begun; exec sleep 600'
    stop_signal: SIGKILL
    networks: [inner, outer]
    volumes: ["data:/data"]
    configs: [greeting]
    depends_on: {job: {condition: service_completed_successfully}}
  slow:
    image: 127.0.0.1:5000/lab/web:1
    command: sleep 600
    stop_signal: SIGKILL
    network_mode: none
    healthcheck: {test: "true", interval: 1s}
networks: {inner: , outer: }
volumes: {data: }
configs: {greeting: {content: hello}}
"#;

/// What homelab is asked for, and calls that it then makes.
struct Case {
    /// What is done before, as lines of a shell.
    before: &'static str,
    command: &'static str,
    calls: &'static [&'static str],
}

/// Each call that homelab makes of an Engine.
const CASES: &[Case] = &[
    Case {
        before: "homelab network-down",
        command: "network-up",
        calls: &["GET /_ping", "GET /info", "POST /networks/create"],
    },
    Case {
        before: "homelab network-up",
        command: "network-down",
        calls: &["DELETE /networks/*"],
    },
    Case {
        before: "homelab network-up; homelab env-down; docker rmi -f 127.0.0.1:5000/lab/web:1",
        command: "env-up",
        calls: &["POST /images/create"],
    },
    Case {
        before: "homelab network-up; homelab env-down; docker volume rm homelab-preprod_data",
        command: "env-up web",
        calls: &[
            "POST /networks/create",
            "POST /volumes/create",
            "POST /containers/create",
            "PUT /containers/*/archive",
            "POST /networks/*/connect",
            "POST /containers/*/start",
            "POST /containers/*/wait",
        ],
    },
    Case {
        before: "homelab env-down slow",
        command: "env-up --wait slow",
        calls: &["GET /events"],
    },
    Case {
        before: "homelab env-up web",
        command: "env-up --force-recreate web",
        calls: &[
            "POST /containers/*/stop",
            "DELETE /containers/*",
            "POST /containers/*/rename",
        ],
    },
    Case {
        before: "homelab env-up web; docker pause web-preprod",
        command: "env-up web",
        calls: &["POST /containers/*/unpause"],
    },
    Case {
        before: "homelab env-up",
        command: "status",
        calls: &[
            "GET /_ping",
            "GET /networks",
            "GET /images/json",
            "GET /volumes",
            "GET /containers/*/json",
        ],
    },
    Case {
        before: "true",
        command: "ps",
        calls: &["GET /containers/json"],
    },
    Case {
        before: "true",
        command: "logs",
        calls: &["GET /containers/*/json", "GET /containers/*/logs"],
    },
    Case {
        before: "homelab env-up web",
        command: "env-down",
        calls: &[
            "POST /containers/*/stop",
            "DELETE /containers/*",
            "DELETE /networks/*",
        ],
    },
];

/// What may become of a call.
fn faults() -> Vec<Fault> {
    let json = "application/json";
    let refused = |status| Fault::says(status, json, "{\"message\":\"a fault of the test\"}\n");
    vec![
        refused(500),
        Fault::Half,
        Fault::Closed,
        refused(409),
        Fault::endless(200, "[{\"Id\":\"a"),
        Fault::Reset,
        Fault::says(200, "text/html", "<html>no Engine</html>"),
        Fault::Lost,
        refused(404),
        Fault::Late,
        Fault::endless(500, "a"),
        Fault::Raw("SSH-2.0-OpenSSH_9.2\r\n".to_owned()),
        Fault::says(200, json, "{\"Id\": \"ab"),
    ]
}

/// Words of libraries and of Rust, which say nothing to a person.
const FOREIGN: [&str; 12] = [
    "hyper",
    "serde",
    "JSON",
    "column",
    "Error {",
    "Error(",
    "Err(",
    "os error",
    "panicked",
    "incomplete",
    "deserialize",
    "Docker responded",
];

/// One fault for each call; with `HOMELAB_FAULTS=all` each fault for each call, which takes eight minutes.
fn every_call_may_fail_in_every_way(suite: &str) {
    let (_home, pi) = home_and_pi(suite);
    registry(&pi, 5000, "");
    pi.sh(
        "docker tag lab/web:1 127.0.0.1:5000/lab/web:1 && docker push -q 127.0.0.1:5000/lab/web:1",
    );
    pi.write("/etc/homelab/homelab.toml", PLAN);
    pi.write("/etc/homelab/compose.yml", SERVICES);
    let proxy = Proxy::before(&pi);
    let faults = faults();
    let all = std::env::var("HOMELAB_FAULTS").is_ok_and(|value| value == "all");
    let mut wrong = Vec::new();
    let calls = CASES
        .iter()
        .flat_map(|case| case.calls.iter().map(move |call| (case, call)));
    // Newer engines take all networks of a container when it is made.
    let calls = calls.filter(|(_, call)| !call.ends_with("/connect") || suite == "bookworm");
    for (index, (case, call)) in calls.enumerate() {
        let fitting = faults.iter().filter(|fault| fault.can_be_seen(call));
        let fitting: Vec<&Fault> = fitting.collect();
        let count = if all { fitting.len() } else { 1 };
        for fault in fitting.iter().cycle().skip(index).take(count) {
            if let Err(what) = spoilt(&pi, &proxy, case, call, fault) {
                wrong.push(format!("{}, {call}, {fault:?}: {what}", case.command));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// Runs a command while a call is spoilt, and again when it is not.
fn spoilt(
    pi: &Server,
    proxy: &Proxy,
    case: &Case,
    call: &'static str,
    fault: &Fault,
) -> Result<(), String> {
    let looks = ["ps", "status", "logs"].contains(&case.command);
    pi.sh(&format!("({}) >/dev/null 2>&1 || true", case.before));
    let (is_late, is_endless) = (
        matches!(fault, Fault::Late),
        matches!(fault, Fault::Endless(_)),
    );
    let begun = Instant::now();
    proxy.spoil(call, fault.clone());
    let run = pi.homelab_with(&format!("DOCKER_HOST=unix://{SOCKET}"), case.command);
    let (hits, peak) = proxy.end();
    let told: String = format!("{}{}", run.stdout, run.stderr)
        .chars()
        .take(4000)
        .collect();
    let ends = |run: &Run, status: &[i32]| match run.status {
        Some(found) if status.contains(&found) => Ok(()),
        found => Err(format!(
            "ended with {found:?}:\n{}{}",
            run.stdout, run.stderr
        )),
    };
    let is_so = |holds: bool, what: &str| {
        if holds {
            Ok(())
        } else {
            Err(format!("{what}:\n{told}"))
        }
    };
    is_so(hits > 0, "the call was never made")?;
    is_so(begun.elapsed() < TOLD, "it took too long")?;
    is_so(peak < 64 << 10, &format!("{peak} KiB were resident"))?;
    is_so(!is_endless || peak > 0, "nobody listened")?;
    ends(
        &run,
        if is_late {
            &[0]
        } else if looks {
            &[0, 1, 3]
        } else {
            &[0, 1]
        },
    )?;
    let foreign = FOREIGN.iter().find(|words| told.contains(**words));
    is_so(foreign.is_none(), &format!("it says {foreign:?}"))?;
    is_so(told.len() < 4000, "it says too much")?;
    if run.status == Some(1) {
        is_so(
            told.contains("error:") && told.contains("hint:"),
            "no error with a hint",
        )?;
    }
    let dry = format!(
        "{} --dry-run",
        case.command
            .replace("--force-recreate ", "")
            .replace(" --wait", "")
    );
    if run.status == Some(0) && !looks {
        ends(&pi.homelab(&dry), &[0]).map_err(|what| format!("said to be done: {told}\n{what}"))?;
    }
    let again = pi.homelab(case.command);
    ends(&again, &[0]).map_err(|what| format!("{told}\nnext run {what}"))?;
    if !looks {
        ends(&pi.homelab(&dry), &[0])
            .map_err(|what| format!("{told}\nafter the next run {what}"))?;
    }
    Ok(())
}

/// Docker before 27 that lost the power between its driver's record of a network and its own: no command of Docker shows or removes
/// the first, which keeps the parent. Made by the proxy, which refuses as the driver does.
fn half_a_network_that_docker_keeps_stops_nobody(suite: &str) {
    let loan = borrow(suite);
    let (_home, pi) = loan.parts();
    let proxy = Proxy::before(pi);
    let text = "{\"message\":\"network dm-0123456789ab is already using parent interface eth0\"}";
    let Fault::Raw(answer) = Fault::says(500, "application/json", text) else {
        panic!("an answer");
    };
    let fault = Fault::RawWhere("\"parent\":\"eth0\"", answer);
    proxy.spoil("POST /networks/create", fault);
    let through = |line: &str| pi.homelab_with(&format!("DOCKER_HOST=unix://{SOCKET}"), line);
    through("network-up")
        .exits(0)
        .says("Docker keeps `eth0` for a network that it does not show");
    assert!(proxy.end().0 > 0, "the network was asked for");
    let parent = pi.sh("docker network inspect -f '{{.Options.parent}}' homelab-prod");
    assert!(parent.starts_with("hl-prod-"), "{parent}");
    drop(proxy);
    pi.homelab("network-up").exits(0).says("nothing to do");
    pi.homelab("env-up --env prod").exits(0);
    assert_eq!(pi.host.page(lan(200)).as_deref(), Some("whoami of prod"));
}
