//! What the Engine is asked: no call twice, none that a list answers.

use crate::home::{SOON, Server, wait_for};
use crate::{home_and_pi, tests};

tests! {
    every engine:
        the_engine_is_asked_once;
    one engine:
}

/// A call that homelab never makes.
const MARK: &str = "GET /plugins";

/// The place in the Engine's journal behind all that it has told so far.
fn cursor(pi: &Server) -> String {
    pi.sh("journalctl -u docker -n 1 --show-cursor -o cat | sed -n 's/^-- cursor: //p'")
        .trim()
        .to_owned()
}

/// The Engine's calls behind that place, up to a mark that is made now; they come to the journal in their order.
fn calls_since(pi: &Server, cursor: &str) -> Vec<String> {
    let mut before = Vec::new();
    wait_for("the Engine to tell its calls", SOON, || {
        pi.sh("curl -s --unix-socket /run/docker.sock http://d/plugins");
        before = calls(pi, cursor);
        let mark = before.iter().position(|call| call == MARK);
        before.truncate(mark.unwrap_or_default());
        mark.is_some()
    });
    before
}

/// The Engine's calls, one a line; from 28 on it tells them in another way.
fn calls(pi: &Server, cursor: &str) -> Vec<String> {
    pi.sh(&format!(
        "journalctl -u docker --after-cursor '{cursor}' -o cat | \
         grep -oE 'Calling [A-Z]+ /[^ \"]*|method=[A-Z]+ .*request-url=\"?/[^ \"]*' | \
         sed -E 's#^Calling ##; s#^method=([A-Z]+) .*request-url=\"?#\\1 #; s#/v1[.0-9]*##; s#[?].*##'"
    ))
    .lines()
    .map(str::to_owned)
    .collect()
}

fn the_engine_is_asked_once(suite: &str) {
    let (_home, pi) = home_and_pi(suite);
    pi.copy_folder("tests/home", "/etc/homelab");
    pi.homelab("network-up").exits(0);
    pi.write("/etc/docker/daemon.json", "{\"debug\": true}");
    pi.sh("systemctl kill -s HUP docker");
    let asked = |line: &str| {
        // The mark of the last time may have been made again.
        calls_since(&pi, &cursor(&pi));
        let cursor = cursor(&pi);
        pi.homelab(line).exits(0);
        let mut calls = calls_since(&pi, &cursor);
        calls.retain(|call| call != MARK);
        calls
    };
    let up = asked("env-up --env prod");
    assert!(up.len() > 40, "{up:?}");
    let mut once = up.clone();
    // Waiting is to look again, and what was started is looked at in the end.
    // The names of what is made are not in the path.
    once.retain(|call| {
        !call.ends_with("/json") && !call.ends_with("/create") && call != "GET /events"
    });
    let all = once.len();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), all, "{up:?}");
    let count = |calls: &[String], call: &str| calls.iter().filter(|known| *known == call).count();
    assert_eq!(count(&up, "POST /containers/create"), 12, "{up:?}");
    assert_eq!(count(&up, "POST /volumes/create"), 2, "{up:?}");
    assert_eq!(count(&up, "POST /networks/create"), 1, "{up:?}");
    // Before, for what was started, and a moment later whether it lives.
    assert_eq!(count(&up, "GET /containers/json"), 3, "{up:?}");
    assert_eq!(count(&up, "GET /images/json"), 1, "{up:?}");
    // Who makes the cgroups is seen from a running container.
    assert_eq!(count(&up, "GET /info"), 1, "{up:?}");
    let mut nothing = asked("env-up --env prod");
    nothing.sort();
    // The slice of what does not run is in no list: the one service that has done its work.
    let is_of_one = |call: &String| call.starts_with("GET /containers/") && call.len() > 60;
    let of_one = nothing.iter().filter(|call| is_of_one(call)).count();
    assert_eq!(of_one, 1, "{nothing:?}");
    nothing.retain(|call| !is_of_one(call));
    assert_eq!(
        nothing,
        [
            "GET /_ping",
            "GET /containers/json",
            // Whether it is just stopping somebody.
            "GET /events",
            "GET /images/json",
            "GET /networks",
            "GET /volumes"
        ]
    );
}
