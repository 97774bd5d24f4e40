//! What the Engine is asked: no call twice, none that a list answers.

use crate::home::Server;
use crate::{home_and_pi, tests};

tests! {
    every engine:
        the_engine_is_asked_once;
    one engine:
}

/// The Engine's calls, one a line, since it began to tell them; from 28 on it tells them in another way.
fn calls(pi: &Server, begun: &str) -> Vec<String> {
    pi.sh(&format!(
        "journalctl -u docker --since '{begun}' -o cat | \
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
        // The journal is asked by seconds, so each run begins with one of its own.
        pi.sh("sleep 1.1");
        let begun = pi.sh("date '+%F %T'");
        pi.homelab(line).exits(0);
        pi.sh("sleep 0.3");
        calls(&pi, begun.trim())
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
    assert_eq!(count(&up, "GET /containers/json"), 2, "{up:?}");
    assert_eq!(count(&up, "GET /images/json"), 1, "{up:?}");
    let mut nothing = asked("env-up --env prod");
    nothing.sort();
    assert_eq!(
        nothing,
        [
            "GET /_ping",
            "GET /containers/json",
            "GET /images/json",
            "GET /info",
            "GET /networks",
            "GET /volumes"
        ]
    );
}
