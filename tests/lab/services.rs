//! The keys of a service, as the Engine has them in the end.

use crate::home::Server;
use crate::pool::borrow;
use crate::{PLAN, home_and_pi, tests};

tests! {
    every engine:
        every_key_reaches_the_container
        a_missing_image_is_pulled
        a_registry_may_want_a_login;
    one engine:
        logs_are_what_containers_wrote
        what_comes_from_outside_is_text_on_a_terminal
}

const SERVICES: &str = r#"
[services.full]
image             = "lab/web:1"
command           = "sleep '600'"
entrypoint        = ["env", "EXTRA=yes"]
environment       = { WHO = "{host} {env}", COUNT = 3, FLAG = true, LAST = "of the table" }
env_file          = ["full.env", "env/{env}.env"]
volumes           = ["./data:/data:ro", "named:/named", "/anonymous"]
restart           = "on-failure:3"
labels            = { "org.example" = "{env}" }
hostname          = "full.{env}"
user              = "1000:1000"
working_dir       = "/srv"
cap_add           = ["NET_ADMIN"]
cap_drop          = ["CAP_MKNOD"]
devices           = ["/dev/null:/dev/nothing:r"]
init              = false
read_only         = true
tmpfs             = ["/run:size=1m", "/var/tmp"]
shm_size          = "32m"
stop_signal       = "SIGINT"
stop_grace_period = "2s"

[services.listed]
image       = "lab/web:1"
command     = ["sleep", "600"]
environment = ["A=1", "HOME", "NOT_SET_ANYWHERE"]
labels      = ["a=b", "c"]
label_file  = "own.labels"
tmpfs       = "/run"
privileged  = true
env_file    = "full.env"
"#;

fn every_key_reaches_the_container(suite: &str) {
    let loan = borrow(suite);
    let (_home, pi) = loan.parts();
    // The runc of bookworm wants capabilities for a privileged container that a root without all of them cannot give.
    let privileged = suite != "bookworm";
    let services = SERVICES.replace("= true\nenv_file", &format!("= {privileged}\nenv_file"));
    pi.write("/etc/homelab/homelab.toml", &format!("{PLAN}{services}"));
    pi.homelab("network-up").exits(0);
    pi.homelab("env-up full listed")
        .exits(2)
        .says("`/etc/homelab/full.env` does not exist")
        .says("`/etc/homelab/env/preprod.env` does not exist")
        .says("--> /etc/homelab/homelab.toml:");
    pi.write("/etc/homelab/own.labels", "a=over\nd=of the file\n");
    pi.write(
        "/etc/homelab/full.env",
        "FIRST=\"a b\" # c\nLAST=of the file\nOVER=1\n",
    );
    pi.write("/etc/homelab/env/preprod.env", "OVER=2\n");
    pi.homelab("env-up full listed").exits(0);

    let field = |container: &str, path: &str| {
        pi.sh(&format!(
            "docker inspect {container}-preprod | jq -c '.[0]{path}'"
        ))
        .trim()
        .to_owned()
    };
    for (path, value) in [
        (".Config.Cmd", r#"["sleep","600"]"#),
        (".Config.Entrypoint", r#"["env","EXTRA=yes"]"#),
        (
            ".Config.Env|map(select(startswith(\"PATH=\")|not))|sort",
            r#"["COUNT=3","FIRST=a b","FLAG=true","LAST=of the table","OVER=2","WHO=raspberry-pi preprod"]"#,
        ),
        (
            ".HostConfig.Binds|sort",
            r#"["/etc/homelab/data:/data:ro","homelab-preprod_named:/named"]"#,
        ),
        (".Config.Volumes", r#"{"/anonymous":{}}"#),
        (
            ".HostConfig.RestartPolicy",
            r#"{"Name":"on-failure","MaximumRetryCount":3}"#,
        ),
        (".Config.Labels[\"org.example\"]", r#""preprod""#),
        (".Config.Hostname", r#""full.preprod""#),
        (".Config.User", r#""1000:1000""#),
        (".Config.WorkingDir", r#""/srv""#),
        (
            ".HostConfig.CapAdd|map(ltrimstr(\"CAP_\"))",
            r#"["NET_ADMIN"]"#,
        ),
        (
            ".HostConfig.CapDrop|map(ltrimstr(\"CAP_\"))|sort",
            r#"["MKNOD","NET_RAW"]"#,
        ),
        (
            ".HostConfig.Devices",
            r#"[{"PathOnHost":"/dev/null","PathInContainer":"/dev/nothing","CgroupPermissions":"r"}]"#,
        ),
        (".HostConfig.Init", "false"),
        (".HostConfig.ReadonlyRootfs", "true"),
        (".HostConfig.Tmpfs", r#"{"/run":"size=1m","/var/tmp":""}"#),
        (".HostConfig.ShmSize", "33554432"),
        (".Config.StopSignal", r#""SIGINT""#),
        (".Config.StopTimeout", "2"),
        (".HostConfig.Privileged", "false"),
        (".HostConfig.NetworkMode", r#""homelab-preprod""#),
        (".State.Running", "true"),
    ] {
        assert_eq!(field("full", path), value, "{path}");
    }
    for (path, value) in [
        (
            ".Config.Env|map(select(startswith(\"PATH=\")|not))|sort",
            r#"["A=1","FIRST=a b","HOME=/root","LAST=of the file","NOT_SET_ANYWHERE","OVER=1"]"#,
        ),
        (".Config.Labels|[.a,.c,.d]", r#"["b","","of the file"]"#),
        (
            ".HostConfig.Privileged",
            if privileged { "true" } else { "false" },
        ),
        (".HostConfig.Tmpfs", r#"{"/run":""}"#),
    ] {
        assert_eq!(field("listed", path), value, "{path}");
    }

    // The content of an env file counts, and an anonymous volume is handed on.
    let volume = "|.Mounts[]|select(.Destination==\"/anonymous\").Name";
    let before = field("full", volume);
    pi.write("/etc/homelab/env/preprod.env", "OVER=3\n");
    let run = pi.homelab("env-up full listed --dry-run").exits(3);
    assert!(
        run.stdout
            .contains("replace container full-preprod (changed: environment"),
        "{}",
        run.stdout
    );
    assert!(!run.stdout.contains("listed-preprod"), "{}", run.stdout);
    pi.homelab("env-up full listed").exits(0);
    assert_eq!(field("full", volume), before);
    pi.homelab("env-up full listed")
        .exits(0)
        .says("nothing to do");
}

/// Starts a registry; Debian's own settings would want a password.
pub fn registry(pi: &Server, port: u16, more: &str) {
    let file = format!("/run/registry-{port}.yml");
    pi.write(
        &file,
        &format!("version: 0.1\nstorage: {{filesystem: {{rootdirectory: /run/registry}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n{more}"),
    );
    pi.sh(&format!("systemd-run -q docker-registry serve {file}"));
    pi.sh(&format!(
        "for i in $(seq 50); do curl -s http://127.0.0.1:{port}/v2/ && break; sleep 0.2; done"
    ));
}

fn a_missing_image_is_pulled(suite: &str) {
    let (home, pi) = home_and_pi(suite);
    registry(&pi, 5000, "");
    pi.sh(
        "docker tag lab/web:1 127.0.0.1:5000/lab/web:1 && docker push -q 127.0.0.1:5000/lab/web:1",
    );
    pi.sh("docker rmi lab/web:1 127.0.0.1:5000/lab/web:1");
    pi.write(
        "/etc/homelab/homelab.toml",
        &PLAN.replace("lab/web:1", "127.0.0.1:5000/lab/web:1"),
    );
    pi.homelab("network-up").exits(0);
    pi.homelab("env-up")
        .exits(0)
        .says("pulled image 127.0.0.1:5000/lab/web:1");
    assert_eq!(
        home.laptop.page(crate::lan(230)).as_deref(),
        Some("whoami of preprod")
    );
    pi.homelab("env-up").exits(0).says("nothing to do");

    // One that does not exist stops its service; what ran before still runs.
    pi.write(
        "/etc/homelab/homelab.toml",
        &PLAN.replace("lab/web:1", "127.0.0.1:5000/lab/web:2"),
    );
    pi.homelab("env-up")
        .exits(1)
        .says("`127.0.0.1:5000/lab/web:2` does not exist")
        .says("steps were not carried out");
    assert_eq!(
        home.laptop.page(crate::lan(230)).as_deref(),
        Some("whoami of preprod")
    );
}

/// `??>>~~??` for the user `me`, as htpasswd(1) writes it. In base64 it has a `/`, which URLs write otherwise.
const PASSWORDS: &str = "me:$2y$05$abcdefghijklmnopqrstuuFqfig72ROCfsvu34SCQctSqSuujPuJG\n";

fn a_registry_may_want_a_login(suite: &str) {
    let (_home, pi) = home_and_pi(suite);
    pi.write("/run/passwords", PASSWORDS);
    registry(
        &pi,
        5000,
        "auth: {htpasswd: {realm: lab, path: /run/passwords}}\n",
    );
    let login = "docker login -u me --password-stdin 127.0.0.1:5000 2>&1";
    pi.sh(&format!("echo '??>>~~??' | {login}"));
    pi.sh(
        "docker tag lab/web:1 127.0.0.1:5000/lab/web:1 && docker push -q 127.0.0.1:5000/lab/web:1",
    );
    pi.sh("docker rmi lab/web:1 127.0.0.1:5000/lab/web:1; mv /root/.docker /root/away");
    pi.write(
        "/etc/homelab/homelab.toml",
        &PLAN.replace("lab/web:1", "127.0.0.1:5000/lab/web:1"),
    );
    pi.homelab("network-up").exits(0);
    pi.homelab("env-up").exits(1).says("wants another login");
    pi.sh("mv /root/away /root/.docker");
    pi.homelab("env-up")
        .exits(0)
        .says("pulled image 127.0.0.1:5000/lab/web:1");
}

const WRITERS: &str = r#"
[services.long]
image   = "lab/web:1"
command = "sh -c 'head -c 20000000 /dev/zero | tr \"\\0\" a'"

[services.terminal]
image   = "lab/web:1"
tty     = true
command = "sh -c 'head -c 20000000 /dev/zero | tr \"\\0\" b'"

[services.colour]
image   = "lab/web:1"
command = ["printf", '\033[31mred\033[0m\nzwölf\r\n\033[1mno end']

[services.talker]
image       = "lab/web:1"
command     = "sh -c 'while :; do echo tick; sleep 0.1; done'"
stop_signal = "SIGKILL"
"#;

fn logs_are_what_containers_wrote(suite: &str) {
    let loan = borrow(suite);
    let (_home, pi) = loan.parts();
    pi.write("/etc/homelab/homelab.toml", &format!("{PLAN}{WRITERS}"));
    pi.homelab("network-up").exits(0);
    pi.homelab("env-up long terminal colour talker").exits(0);
    pi.sh("docker wait long-preprod terminal-preprod colour-preprod");

    // 20 MB in one line, with and without a terminal: all of it, and in no more time than it takes to copy it.
    for name in ["long", "terminal"] {
        let same = pi.sh(&format!(
            "docker logs {name}-preprod | md5sum; timeout 20 homelab logs --no-log-prefix {name} | head -c -1 | md5sum; \
             timeout 20 homelab logs {name} | wc -lc | tr -s ' '"
        ));
        let lines: Vec<&str> = same.lines().collect();
        let [engine, own, counts] = lines.as_slice() else {
            panic!("{same}");
        };
        assert_eq!(engine, own, "{name}");
        let bytes = 20_000_000 + name.len() + " | \n".len();
        assert_eq!(*counts, format!(" 1 {bytes}"), "{name}");
    }

    // The colours of a container stay; those of its name are for terminals.
    let text = |name: &str, end: &str| {
        let lines = ["\u{1b}[31mred\u{1b}[0m", "zwölf", "\u{1b}[1mno end"];
        let lines = lines.map(|line| format!("{name} {line}{end}"));
        lines.concat()
    };
    assert_eq!(
        pi.homelab("logs colour").exits(0).stdout,
        text("colour |", "\n")
    );
    let terminal = |before: &str| {
        pi.sh(&format!(
            "TERM=xterm {before} script -qec 'homelab logs colour' /dev/null"
        ))
    };
    assert_eq!(terminal(""), text("\u{1b}[36mcolour |\u{1b}[0m", "\r\n"));
    assert_eq!(terminal("NO_COLOR=1"), text("colour |", "\r\n"));

    // Whoever has read enough is waited for no longer.
    let seen = pi.sh(
        "(timeout 20 homelab logs -f talker colour; echo $? >/tmp/status) | grep -m 1 tick; cat /tmp/status; \
         (timeout 20 homelab logs -f talker long; echo $? >/tmp/status) | head -c 10 | wc -c; cat /tmp/status",
    );
    assert_eq!(seen, "talker | tick\n0\n10\n0\n");

    // What the Engine says of a damaged log is no line of it.
    pi.sh("printf '\\0\\0\\n' >>$(docker inspect -f '{{.LogPath}}' colour-preprod)");
    // It says it or not, as chance has it: both the damage and the end of the log are there to be read (`ContainerLogs` of moby 26.1).
    for _ in 0..50 {
        let run = pi.homelab("logs colour");
        assert!(!run.stdout.contains("Error"), "{}", run.stdout);
        if run.status != Some(0) {
            run.exits(1)
                .says("the Engine did not show the log of container `colour-preprod` to its end");
            return;
        }
    }
    panic!("the damage was never told");
}

const CLEARING: &str = r#"
[services.dying]
image   = "lab/web:1"
command = ["sh", "-c", "printf '\\033[2J\\033[31mno\\033[0m\\n'; exit 3"]
"#;

fn what_comes_from_outside_is_text_on_a_terminal(suite: &str) {
    let loan = borrow(suite);
    let (_home, pi) = loan.parts();
    pi.write("/etc/homelab/homelab.toml", &format!("{PLAN}{CLEARING}"));
    pi.homelab("network-up").exits(0);
    // Whoever may use the Engine can give a container such a name of a service.
    pi.sh(
        "service=$(printf 'a\\033[2J\\nb\\342\\200\\256'); docker run -d --network homelab-preprod --ip 192.168.1.240 --name guest \
         --label homelab.environment=preprod --label \"homelab.service=$service\" lab/web:1 sh -c 'echo up; exec sleep 600'",
    );
    let seen = |command: &str| {
        let seen = pi.sh(&format!(
            "TERM=xterm script -qec 'homelab {command}' /dev/null; true"
        ));
        assert!(
            !seen.contains("\u{1b}[2J") && !seen.contains('\u{202e}'),
            "{command}: {seen:?}"
        );
        seen
    };
    for (command, text) in [
        ("ps", r"  a\u{1b}[2J\nb\u{202e}  "),
        ("logs", r"a\u{1b}[2J\nb\u{202e} |"),
        ("env-up dying --wait", r" \u{1b}[2Jno"),
    ] {
        let seen = seen(command);
        assert!(seen.contains(text), "{command}: {seen:?}");
    }
    for command in [
        "status",
        "env-down --dry-run",
        "env-up --dry-run --remove-orphans",
    ] {
        assert!(seen(command).contains("guest"), "{command}");
    }
}
