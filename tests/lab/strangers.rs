//! Only what homelab made is touched, known by more than its name: look-alikes of each kind of thing survive every command.

use crate::home::Server;
use crate::pool::borrow;
use crate::{PLAN, tests};
use std::process::Stdio;

tests! {
    every engine:
        look_alikes_survive_every_command;
    one engine:
        a_name_that_is_taken_over_meanwhile_is_a_strangers
        who_is_on_a_network_of_ours_is_named
        what_is_left_of_a_former_environment_is_named_and_goes
}

/// Everything that homelab does, to the end.
const COMMANDS: [&str; 9] = [
    "network-up",
    "env-up --env prod",
    "env-up --remove-orphans",
    "env-up --force-recreate",
    "shim install",
    "shim uninstall",
    "env-down --remove-orphans",
    "env-down --env prod --remove-orphans",
    "network-down",
];

fn look_alikes_survive_every_command(suite: &str) {
    let loan = borrow(suite);
    let (_home, pi) = loan.parts();
    pi.homelab("network-up").exits(0);
    pi.homelab("env-up").exits(0);
    // A copy of a container has all its labels; so has a container of other tools that was told them.
    pi.sh(
        "docker commit whoami-preprod copy:1 >/dev/null; docker run -d --name copy --network none copy:1 sleep 600; \
         docker run -d --name labelled --network none --label homelab.environment=preprod lab/web:1 sleep 600; \
         docker network create --label com.docker.compose.project=homelab-preprod homelab-preprod_own; \
         docker volume create homelab-preprod_own; \
         ip link add homelab-other type bridge; ip link add hl-other type bridge; \
         ip link add hl-macvlan link eth0 type macvlan mode bridge; \
         printf '[Slice]\\n' > /etc/systemd/system/homelab-other.slice; systemctl daemon-reload; systemctl start homelab-other.slice",
    );
    let strangers = || {
        pi.sh(
            "docker ps --format '{{.ID}} {{.Names}}' | grep -E 'copy|labelled'; docker network ls -q --filter name=homelab-preprod_own; \
             docker volume ls -q --filter name=homelab-preprod_own; ip -o link | grep -E 'homelab-other|hl-other|hl-macvlan' | cut -d: -f1,2; \
             cat /etc/systemd/system/homelab-other.slice; systemctl is-active homelab-other.slice",
        )
    };
    let before = strangers();
    assert_eq!(before.lines().count(), 9, "{before}");
    for line in COMMANDS {
        pi.homelab(line).exits(0);
        assert_eq!(strangers(), before, "after {line}");
    }
    pi.sh("docker rm -f copy labelled; docker network rm homelab-preprod_own; docker volume rm homelab-preprod_own; docker rmi copy:1; \
           ip link del homelab-other; ip link del hl-other; ip link del hl-macvlan; systemctl stop homelab-other.slice; \
           rm /etc/systemd/system/homelab-other.slice; systemctl daemon-reload");
}

fn a_name_that_is_taken_over_meanwhile_is_a_strangers(suite: &str) {
    let loan = borrow(suite);
    let (_home, pi) = loan.parts();
    // It takes five seconds to stop.
    let plan = format!(
        "{PLAN}\n[services.slow]\nimage = \"lab/web:1\"\naddress = {{ preprod = \"192.168.1.240\" }}\n\
         command = [\"sh\", \"-c\", \"trap 'sleep 5; exit' TERM; while :; do sleep 0.2; done\"]\n"
    );
    pi.write("/etc/homelab/homelab.toml", &plan);
    pi.homelab("network-up").exits(0);
    pi.homelab("env-up slow").exits(0);
    let mut command = pi.command("homelab");
    command.args(["env-down", "slow"]).stderr(Stdio::null());
    let mut down = command.spawn().expect("nsenter runs");
    // Somebody else is quicker, and makes one of the same name.
    pi.sh(
        "until cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -q 'sleep 5 '; do sleep 0.05; done; docker rm -f slow-preprod; docker run -d --name slow-preprod --network none lab/web:1 sleep 600",
    );
    assert!(down.wait().expect("it ends").success());
    assert_eq!(
        pi.sh("docker inspect -f '{{.State.Running}}' slow-preprod"),
        "true\n"
    );
    pi.homelab("env-up slow")
        .exits(1)
        .says("there is a container `slow-preprod` that homelab did not make");
}

/// What status shows of a network.
fn network(pi: &Server, name: &str) -> String {
    let shown = pi.homelab("status").stdout;
    let mut lines = shown.lines().filter(|line| line.contains(name));
    lines.next().unwrap_or_default().to_owned()
}

fn who_is_on_a_network_of_ours_is_named(suite: &str) {
    let loan = borrow(suite);
    let (_home, pi) = loan.parts();
    pi.homelab("network-up").exits(0);
    pi.homelab("env-up --env prod").exits(0);
    pi.homelab("env-up").exits(0);
    // As a Compose file of production asks for it.
    pi.sh(
        "docker network create --label homelab.extra-network=prod homelab-prod_back; \
         docker run -d --name guest --network homelab-prod_back lab/web:1 sleep 600",
    );
    assert!(network(pi, "homelab-prod_back").ends_with("1 containers, not made by homelab: guest"));
    pi.homelab("status").exits(0);
    // Ours is no stranger, wherever it is.
    pi.sh("docker network disconnect homelab-prod whoami-prod; \
         docker network connect --ip 192.168.1.241 homelab-preprod whoami-prod");
    assert!(
        network(pi, "homelab-preprod")
            .ends_with("3 containers, of another environment: whoami-prod")
    );
    pi.homelab("status")
        .exits(3)
        .says("container whoami-prod: its network homelab-prod is missing, planned is attached")
        .says("`homelab env-up --env prod`");
    pi.homelab("verify")
        .exits(3)
        .says("`whoami-prod` of environment `prod` is on network `homelab-preprod`: `homelab env-up --env prod` puts it");
    pi.homelab("env-up --env prod").exits(0);
    pi.homelab("verify").exits(0);
    pi.homelab("status").exits(0);
    pi.sh("docker rm -f guest; docker network rm homelab-prod_back");
}

fn what_is_left_of_a_former_environment_is_named_and_goes(suite: &str) {
    let loan = borrow(suite);
    let (_home, pi) = loan.parts();
    pi.homelab("network-up").exits(0);
    pi.homelab("env-up --env prod").exits(0);
    pi.sh(
        "docker network create --label homelab.extra-network=prod homelab-prod_back; \
         docker network connect homelab-prod_back whoami-prod; \
         docker run -d --name guest --network homelab-prod --ip 192.168.1.210 lab/web:1 sleep 600; \
         docker network connect homelab-prod_back guest",
    );
    let without = PLAN
        .replace("[env.prod]", "[env.stage]")
        .replace("{ prod =", "{ stage =");
    pi.write("/etc/homelab/homelab.toml", &without);
    let strangers = "the plan has no environment `prod`, and containers that homelab did not make are on it: `guest`";
    pi.homelab("status")
        .exits(3)
        .says("slice homelab-prod.slice: the plan does not have it")
        .says("and its containers are here: `store-prod`, `whoami-prod`")
        .says(&format!("network homelab-prod: {strangers}"))
        .says(&format!("network homelab-prod_back: {strangers}"))
        .says("`homelab env-down --env prod`, then `homelab network-up`");
    // The hints lead out.
    pi.homelab("env-down --env prod").exits(0);
    pi.homelab("status")
        .exits(3)
        .says("`docker network disconnect homelab-prod guest`, then `homelab network-up`")
        .says("`docker network disconnect homelab-prod_back guest`, then `docker network rm homelab-prod_back`");
    pi.sh("docker network disconnect homelab-prod guest; docker network disconnect homelab-prod_back guest");
    pi.homelab("status")
        .exits(3)
        .says("network homelab-prod_back: the plan has no environment `prod`");
    pi.sh("docker network rm homelab-prod_back");
    pi.homelab("network-up").exits(0);
    let said = pi.homelab("status").exits(3).stderr;
    assert!(!said.contains("homelab-prod"), "{said}");
    pi.sh("docker rm -f guest");
}
