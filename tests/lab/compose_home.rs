//! The example home, whose services stand in a Compose file: up in both environments, and what changes lead to.

use crate::home::Server;
use crate::pool::{Loan, borrow};
use crate::{lan, tests};
use std::time::{Duration, Instant};

tests! {
    every engine:
        the_example_home_comes_up_in_both_environments
        a_container_that_does_not_start_leaves_the_old_one;
    one engine:
        only_what_the_engine_is_told_makes_a_container_anew
        what_others_wait_for_is_waited_for
        options_of_env_up_do_what_compose_does
        ctrl_c_leaves_a_consistent_state
}

const FOLDER: &str = "/etc/homelab";

/// A shared server with the example home on it, and its network up.
fn example(suite: &str) -> Loan {
    let loan = borrow(suite);
    let (_, pi) = loan.parts();
    pi.copy_folder("tests/home", FOLDER);
    pi.homelab("network-up").exits(0);
    loan
}

fn change(pi: &Server, file: &str, from: &str, to: &str) {
    let path = format!("{FOLDER}/{file}");
    let text = pi.sh(&format!("cat {path}"));
    assert!(text.contains(from), "{from:?} is not in {file}");
    pi.write(&path, &text.replace(from, to));
}

fn the_example_home_comes_up_in_both_environments(suite: &str) {
    let loan = example(suite);
    let (home, pi) = loan.parts();
    for (env, base, services) in [("prod", 200, 12), ("preprod", 230, 11)] {
        pi.homelab(&format!("env-up --env {env} --wait"))
            .exits(0)
            .says("`ports` of `traefik` are not needed")
            // The lab's kernel has no controllers; the Engine goes on without the limit, and that is said.
            .says(&format!("the Engine says of container `app-{env}`"));
        let page = |last| home.laptop.page(lan(last));
        assert_eq!(
            page(base).as_deref(),
            Some(format!("whoami of {env}").as_str())
        );
        let zigbee = if env == "prod" { 206 } else { 235 };
        assert_eq!(
            page(zigbee).as_deref(),
            Some(format!("zigbee of {env}").as_str())
        );
        let app = if env == "prod" { 209 } else { 238 };
        assert_eq!(
            page(app),
            Some(format!(
                "app of {env} with db of {env} token token of {env}"
            ))
        );
        // The database has no address at home, the one-shot has done its work, what has a profile stays out.
        let names = pi.sh(&format!(
            "docker ps -a --filter label=homelab.environment={env} --format '{{{{.Names}}}}'"
        ));
        assert_eq!(names.lines().count(), services, "{names}");
        assert!(!names.contains("backup"));
        let networks = pi.sh(&format!(
            "docker inspect -f '{{{{json .NetworkSettings.Networks}}}}' db-{env} | jq -r 'keys[]'"
        ));
        assert_eq!(networks, format!("homelab-{env}_backend\n"));
        assert_eq!(
            pi.sh(&format!("docker exec mqtt-{env} cat /etc/mqtt.conf; docker exec mqtt-{env} ls -l /etc/mqtt.conf | cut -c1-10")),
            format!("# of {env}\nlistener 1883\n-r--r-----\n")
        );
        pi.homelab(&format!("env-up --env {env} --wait"))
            .exits(0)
            .says("nothing to do");
        let listed = pi.homelab(&format!("ps --env {env} --all")).exits(0).stdout;
        assert_eq!(listed.lines().count(), services + 1, "{listed}");
        let line = listed.lines().find(|line| line.contains("migrate-"));
        assert!(
            line.is_some_and(|line| line.contains("Exited (0)")),
            "{listed}"
        );
    }
    if suite != "bookworm" {
        let listed = pi.sh("docker compose -p homelab-prod ps --format '{{.Service}}'");
        let mut names: Vec<&str> = listed.lines().collect();
        names.sort_unstable();
        let expected =
            "app db grafana homeassistant jellyfin mqtt pihole traefik whoami worker zigbee";
        assert_eq!(names.join(" "), expected);
    }
    // Whoever is on the bridge of one environment does not see the other's.
    let wrong = pi.try_sh(
        "docker exec worker-preprod busybox timeout 2 wget -q -O - http://db.homelab-prod_backend/",
    );
    assert!(wrong.is_err());
    pi.homelab("status").exits(0);

    let logs = pi.homelab("logs --env prod migrate").exits(0).stdout;
    assert_eq!(logs, "migrate | db of prod\n");
    let logs = pi.homelab("logs --env prod --json migrate").exits(0).stdout;
    assert!(logs.contains(r#""line":"db of prod""#), "{logs}");
    pi.homelab("logs --env prod nobody")
        .exits(2)
        .says("no service `nobody`");

    for env in ["prod", "preprod"] {
        pi.homelab(&format!("env-down --env {env}")).exits(0);
    }
    assert_eq!(pi.sh("docker ps -aq"), "");
    assert_eq!(
        pi.sh("docker network ls --filter driver=bridge --format '{{.Name}}'"),
        "bridge\n"
    );
    assert_eq!(pi.sh("docker volume ls -q | grep -c _db$"), "2\n");
    pi.homelab("network-down").exits(0);
}

/// The ids of all running containers by name.
fn ids(pi: &Server) -> Vec<(String, String)> {
    let lines = pi.sh("docker ps --no-trunc --format '{{.Names}} {{.ID}}' | sort");
    let split = |line: &str| {
        line.split_once(' ')
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
    };
    lines.lines().filter_map(split).collect()
}

/// The names of containers that are others than before.
fn renewed(before: &[(String, String)], after: &[(String, String)]) -> Vec<String> {
    let is_new = |pair: &&(String, String)| !before.contains(pair);
    after
        .iter()
        .filter(is_new)
        .map(|(name, _)| name.clone())
        .collect()
}

fn only_what_the_engine_is_told_makes_a_container_anew(suite: &str) {
    let loan = example(suite);
    let (_home, pi) = loan.parts();
    pi.homelab("env-up").exits(0);
    let mut before = ids(pi);
    let mut expect = |what: &str, names: &[&str]| {
        pi.homelab("env-up").exits(0);
        let after = ids(pi);
        assert_eq!(renewed(&before, &after), names, "{what}");
        before = after;
    };
    change(
        pi,
        "docker-compose.application.yml",
        "  whoami:\n",
        "  # a comment\n  whoami:\n",
    );
    change(
        pi,
        "docker-compose.application.yml",
        "profiles: [backup]",
        "profiles: [save]",
    );
    expect("a comment and a profile", &[]);
    change(pi, "secrets/db_password", "swordfish", "password1");
    expect("the content of a secret that is a file", &["db-preprod"]);
    change(
        pi,
        "env/.env.preprod",
        "APP_TOKEN=\"token",
        "APP_TOKEN=\"ticket",
    );
    expect(
        "the content of a secret that is a variable",
        &["app-preprod"],
    );
    change(
        pi,
        "docker-compose.application.yml",
        "listener 1883",
        "listener 1884",
    );
    expect("the content of a config", &["mqtt-preprod"]);
    pi.write(&format!("{FOLDER}/env/grafana.env"), "GF=1\n");
    expect("an env file that was not there", &["grafana-preprod"]);
    change(pi, "common.yml", "soft: 1024", "soft: 1000");
    expect("what a service extends", &["zigbee-preprod"]);
    change(pi, "docker-compose.application.yml", "size=16m", "size=17m");
    expect("a service that is not enabled here", &[]);
    pi.sh("tar -C /srv/image -c . | docker import -c 'LABEL new=yes' - lab/web:2");
    change(
        pi,
        "docker-compose.application.yml",
        "  pihole:\n    <<: *page\n",
        "  pihole:\n    <<: *page\n    image: lab/web:2\n",
    );
    expect("another image", &["pihole-preprod"]);
    pi.sh("tar -C /srv/image -c . | docker import -c 'LABEL new=very' - lab/web:2");
    expect("another image behind the tag", &["pihole-preprod"]);
    pi.homelab("env-up").exits(0).says("nothing to do");
}

fn a_container_that_does_not_start_leaves_the_old_one(suite: &str) {
    let loan = example(suite);
    let (home, pi) = loan.parts();
    pi.homelab("env-up whoami").exits(0);
    let before = ids(pi);
    // It can be made, but what it runs is not there.
    change(
        pi,
        "docker-compose.application.yml",
        "environment: {<<: *page-environment, PAGE: whoami}",
        "environment: {<<: *page-environment, PAGE: whoami}\n    entrypoint: [nonsense]",
    );
    pi.homelab("env-up whoami")
        .exits(1)
        .says("nonsense")
        .says("the old container `whoami-preprod` was started again");
    assert_eq!(ids(pi), before);
    assert_eq!(
        home.laptop.page(lan(230)).as_deref(),
        Some("whoami of preprod")
    );
    assert_eq!(
        pi.sh("docker ps -aq | wc -l"),
        "1\n",
        "nothing is left of the new one"
    );
    // It cannot even be made.
    change(
        pi,
        "docker-compose.application.yml",
        "entrypoint: [nonsense]",
        "working_dir: /x\n    runtime: nowhere",
    );
    pi.homelab("env-up whoami").exits(1).says("nowhere");
    assert_eq!(ids(pi), before);
    change(
        pi,
        "docker-compose.application.yml",
        "runtime: nowhere",
        "user: \"0\"",
    );
    pi.homelab("env-up whoami")
        .exits(0)
        .says("replaced container whoami-preprod");
    assert_eq!(
        home.laptop.page(lan(230)).as_deref(),
        Some("whoami of preprod")
    );
}

const ORDER: &str = r#"
services:
  first:
    image: lab/web:1
    command: sh -c 'echo broken >&2; exit 4'
  second:
    image: lab/web:1
    command: sleep 600
    stop_signal: SIGKILL
    depends_on: {first: {condition: service_completed_successfully}}
  sick:
    image: lab/web:1
    command: sleep 600
    stop_signal: SIGKILL
    healthcheck: {test: "echo no pulse; exit 1", interval: 1s, retries: 2}
  nurse:
    image: lab/web:1
    command: sleep 600
    stop_signal: SIGKILL
    depends_on: {sick: {condition: service_healthy}}
  visitor:
    image: lab/web:1
    command: sleep 600
    stop_signal: SIGKILL
    depends_on: {sick: {condition: service_healthy, required: false}}
  blind:
    image: lab/web:1
    command: sleep 600
    stop_signal: SIGKILL
    depends_on: {visitor: {condition: service_healthy}}
  slow:
    image: lab/web:1
    command: sleep 600
    stop_signal: SIGKILL
    healthcheck: {test: "false", interval: 30s, start_period: 60s}
"#;

fn what_others_wait_for_is_waited_for(suite: &str) {
    let loan = example(suite);
    let (_home, pi) = loan.parts();
    pi.write(&format!("{FOLDER}/docker-compose.application.yml"), ORDER);
    change(
        pi,
        "homelab.toml",
        "[env.preprod.services.jellyfin]\nenabled = false\n",
        "",
    );
    let started = |name: &str| {
        let state = pi.sh(&format!(
            "docker inspect -f '{{{{.State.Status}}}}' {name}-preprod"
        ));
        state.trim() != "created"
    };
    pi.homelab("env-up second")
        .exits(1)
        .says("container `first-preprod` ended with status 4")
        .says("| broken")
        .says("steps were not carried out");
    assert!(!started("second"));
    pi.homelab("env-up nurse visitor")
        .exits(1)
        .says("container `sick-preprod` is unhealthy")
        .says("no pulse");
    assert!(!started("nurse") && started("visitor"));
    pi.homelab("env-up blind")
        .exits(1)
        .says("`visitor-preprod` has no healthcheck");
    pi.homelab("env-up slow --wait-timeout 1")
        .exits(1)
        .says("not ready after 1 seconds: `slow-preprod`");
    // One that has done its work counts, and is not started again for those who waited for it.
    change(pi, "docker-compose.application.yml", "exit 4", "exit 0");
    pi.homelab("env-up second --wait").exits(0);
    assert!(started("second"));
    pi.homelab("env-up second --wait")
        .exits(0)
        .says("nothing to do");
    // Without those that it depends on.
    pi.homelab("env-down").exits(0);
    pi.homelab("env-up second --no-deps").exits(0);
    assert_eq!(
        pi.sh("docker ps -a --format '{{.Names}}'"),
        "second-preprod\n"
    );
}

fn options_of_env_up_do_what_compose_does(suite: &str) {
    let loan = example(suite);
    let (_home, pi) = loan.parts();
    pi.homelab("env-up whoami mqtt").exits(0);
    let before = ids(pi);
    pi.homelab("env-up whoami --force-recreate").exits(0);
    assert_eq!(renewed(&before, &ids(pi)), ["whoami-preprod"]);
    // There is no registry: what is to be pulled always cannot be.
    pi.homelab("env-up whoami --pull always")
        .exits(1)
        .says("lab/web:1");
    pi.homelab("env-up whoami --pull never")
        .exits(0)
        .says("nothing to do");
    change(pi, "env/.env.preprod", "lab/web:1", "lab/web:3");
    pi.homelab("env-up whoami --pull never")
        .exits(1)
        .says("image `lab/web:3` is not on this machine, and is not to be pulled");
    change(pi, "env/.env.preprod", "lab/web:3", "lab/web:1");
    // A profile is active when it is named by the file, by a variable, or by its service.
    pi.homelab("env-up backup --no-deps").exits(0);
    pi.homelab("env-down backup").exits(0);
    let up = pi.sh("COMPOSE_PROFILES=backup homelab env-up --dry-run --quiet --json; test $? = 3; COMPOSE_PROFILES=backup homelab env-up --dry-run | grep -c 'create container backup-preprod'; true");
    assert!(up.ends_with("1\n"), "{up}");
    // The merged services are a Compose file again.
    let config = pi.homelab("config").exits(0).stdout;
    assert!(
        config.contains("\n      ipv4_address: ")
            || config.contains("ipv4_address: \"192.168.1.230\""),
        "{config}"
    );
    if suite != "bookworm" {
        pi.write("/tmp/config.yml", &config);
        let services =
            pi.sh("docker compose -f /tmp/config.yml config --services | sort | tr '\\n' ' '");
        assert!(services.starts_with("app db grafana"), "{services}");
    }
}

const SLOW: &str = r#"
services:
  stubborn:
    image: lab/web:1
    command: sh -c 'trap "" TERM; while :; do sleep 1; done'
    stop_grace_period: 4s
    labels: {version: "VERSION"}
  slow:
    image: lab/web:1
    command: sleep 600
    stop_signal: SIGKILL
    healthcheck: {test: "test -e /ready", interval: 1s, start_period: 60s}
  patient:
    image: lab/web:1
    command: sleep 600
    stop_signal: SIGKILL
    depends_on: {slow: {condition: service_healthy}}
"#;

fn ctrl_c_leaves_a_consistent_state(suite: &str) {
    let loan = example(suite);
    let (_home, pi) = loan.parts();
    let compose = format!("{FOLDER}/docker-compose.application.yml");
    pi.write(&compose, &SLOW.replace("VERSION", "1"));
    change(
        pi,
        "homelab.toml",
        "[env.preprod.services.jellyfin]\nenabled = false\n",
        "",
    );
    // Pressed when homelab has said all of that.
    let interrupted = |options: &str, lines: &[&str], signal: &str| {
        let has_said: Vec<String> = lines
            .iter()
            .map(|line| format!("grep -q '{line}' /tmp/said"))
            .collect();
        pi.sh(&format!(
            "homelab env-up {options} 2>/tmp/said & pid=$!; \
             for i in $(seq 300); do {} && break; sleep 0.1; done; \
             {signal} wait $pid; echo $?; cat /tmp/said",
            has_said.join(" && ")
        ))
    };
    let once = "kill -INT $pid;";
    // What only waits is let go at once.
    let said = interrupted(
        "patient stubborn",
        &["started container stubborn", "waiting for container slow"],
        once,
    );
    assert!(said.starts_with("130\n"), "{said}");
    assert!(said.contains("interrupted: 2 of"), "{said}");
    let states = || pi.sh("docker ps -a --format '{{.Names}} {{.State}}' | sort");
    assert_eq!(
        states(),
        "patient-preprod created\nslow-preprod running\nstubborn-preprod running\n"
    );
    let said = interrupted("patient --wait", &["waiting for container slow"], once);
    assert!(said.starts_with("130\n"), "{said}");
    // The next run goes on.
    pi.sh("docker exec slow-preprod touch /ready");
    pi.homelab("env-up patient").exits(0);
    // What changes something gets a moment, and no more: the old one takes four seconds to stop.
    let before = ids(pi);
    pi.write(&compose, &SLOW.replace("VERSION", "2"));
    let replacing = ["replacing container stubborn"];
    // timeout(1) sends its signal to the process and to its group: that is one.
    let twice = "kill -INT $pid; sleep 0.1; kill -INT $pid;";
    let begun = Instant::now();
    let said = interrupted("stubborn", &replacing, twice);
    assert!(begun.elapsed() < Duration::from_secs(4), "{said}");
    assert!(said.starts_with("130\n"), "{said}");
    assert!(!said.contains("replaced"), "{said}");
    assert!(said.contains("this may still go on: "), "{said}");
    pi.homelab("env-up stubborn").exits(0);
    assert_eq!(renewed(&before, &ids(pi)), ["stubborn-preprod"]);
    assert_eq!(pi.sh("docker ps -aq | wc -l"), "3\n");
    pi.homelab("env-up").exits(0).says("nothing to do");
    pi.sh("docker kill stubborn-preprod");
}
