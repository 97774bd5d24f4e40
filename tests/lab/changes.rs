//! What a changed file, a stopped container or a changed engine leads to.

use crate::pool::borrow;
use crate::{PLAN, home_and_pi, lan, tests};

tests! {
    every engine:
        only_what_changed_is_made_anew
        the_order_of_the_file_changes_no_network;
    one engine:
        orphans_are_reported_and_removed_when_asked_for
        whose_container_has_a_planned_address_is_said
        one_service_at_a_time
}

fn only_what_changed_is_made_anew(suite: &str) {
    let (home, pi) = home_and_pi(suite);
    pi.homelab("network-up").exits(0);
    pi.homelab("env-up").exits(0);
    let store = pi.sh("docker inspect -f '{{.Id}} {{.State.StartedAt}}' store-preprod");
    let unchanged = || pi.sh("docker inspect -f '{{.Id}} {{.State.StartedAt}}' store-preprod");

    pi.write(
        "/etc/homelab/homelab.toml",
        &PLAN.replace("echo whoami of", "echo the new whoami of"),
    );
    let run = pi.homelab("env-up --dry-run").exits(3);
    assert!(
        run.stdout
            .contains("replace container whoami-preprod (changed: command"),
        "{}",
        run.stdout
    );
    pi.homelab("env-up").exits(0);
    assert_eq!(
        home.laptop.page(lan(230)).as_deref(),
        Some("the new whoami of preprod")
    );

    // A moved address.
    pi.write(
        "/etc/homelab/homelab.toml",
        &PLAN.replace("192.168.1.230", "192.168.1.232"),
    );
    pi.homelab("env-up").exits(0);
    assert_eq!(
        home.laptop.page(lan(232)).as_deref(),
        Some("whoami of preprod")
    );
    assert_eq!(home.laptop.page_now(lan(230)), None);
    assert_eq!(unchanged(), store);

    // A stopped container is started, not made anew.
    let id = pi.sh("docker inspect -f '{{.Id}}' whoami-preprod");
    pi.sh("docker stop -t 0 whoami-preprod");
    let run = pi.homelab("env-up --dry-run").exits(3);
    assert_eq!(
        run.stdout,
        "1 ~ start container whoami-preprod (it does not run)\n"
    );
    pi.homelab("env-up").exits(0);
    assert_eq!(pi.sh("docker inspect -f '{{.Id}}' whoami-preprod"), id);

    // Another image behind the same tag.
    pi.sh("tar -C /srv/image -c . | docker import -c 'LABEL new=yes' - lab/web:1");
    let run = pi.homelab("env-up --dry-run").exits(3);
    assert!(
        run.stdout.contains("image lab/web:1 is another one now"),
        "{}",
        run.stdout
    );
    pi.homelab("env-up").exits(0);
    pi.homelab("env-up").exits(0).says("nothing to do");
    assert_ne!(unchanged(), store);

    // The engine starts again, and nothing has to be done.
    pi.sh("systemctl restart docker");
    pi.homelab("network-up").exits(0).says("nothing to do");
    pi.homelab("env-up").exits(0).says("nothing to do");
    assert_eq!(
        home.laptop.page(lan(232)).as_deref(),
        Some("whoami of preprod")
    );
}

fn orphans_are_reported_and_removed_when_asked_for(suite: &str) {
    let loan = borrow(suite);
    let (_home, pi) = loan.parts();
    pi.homelab("network-up").exits(0);
    pi.homelab("env-up").exits(0);
    pi.write(
        "/etc/homelab/homelab.toml",
        &format!("{PLAN}\n[env.preprod.services.store]\nenabled = false\n"),
    );
    pi.homelab("env-up")
        .exits(0)
        .says("`store-preprod`")
        .says("--remove-orphans");
    pi.sh("docker inspect store-preprod");
    pi.homelab("env-up --remove-orphans")
        .exits(0)
        .says("removed container store-preprod");
    assert!(pi.try_sh("docker inspect store-preprod").is_err());
    // What is not ours is no orphan.
    pi.sh("docker run -d --name guest --network homelab-preprod --ip 192.168.1.240 lab/web:1 sleep 600");
    pi.homelab("env-down --remove-orphans").exits(0);
    assert_eq!(pi.sh("docker ps --format '{{.Names}}'"), "guest\n");

    // An environment that the file no longer has can still be taken down.
    pi.write("/etc/homelab/homelab.toml", PLAN);
    pi.homelab("env-up --env prod whoami").exits(0);
    let without = PLAN
        .replace("[env.prod]", "[env.stage]")
        .replace("{ prod =", "{ stage =");
    pi.write("/etc/homelab/homelab.toml", &without);
    pi.homelab("ps --env prod").exits(0);
    pi.homelab("logs --env prod whoami").exits(0);
    pi.homelab("status")
        .exits(3)
        .says("the plan has no environment `prod`, and its containers are here: `whoami-prod`")
        .says("homelab env-down --env prod");
    pi.homelab("env-down --env prod")
        .exits(0)
        .says("removed container whoami-prod");
    for line in ["env-down --env prod", "ps --env prod", "logs --env prod"] {
        pi.homelab(line).exits(2).says("no environment `prod`");
    }
    // A host that the plan no longer has can be cleaned up.
    pi.homelab("env-up whoami").exits(0);
    pi.write(
        "/etc/homelab/homelab.toml",
        &PLAN.replace("192.168.1.204", "192.168.1.203"),
    );
    pi.homelab("env-up")
        .exits(1)
        .says("this machine is no host of the plan");
    pi.sh("docker rm -f guest");
    pi.homelab("env-down").exits(0);
    pi.homelab("network-down").exits(0);
    assert!(pi.try_sh("ip link show homelab-shim").is_err());
}

fn one_service_at_a_time(suite: &str) {
    let loan = borrow(suite);
    let (home, pi) = loan.parts();
    pi.homelab("network-up").exits(0);
    pi.homelab("env-up store")
        .exits(0)
        .says("started container whoami-preprod");
    assert_eq!(
        home.laptop.page(lan(231)).as_deref(),
        Some("store of preprod")
    );
    let order = pi.sh("docker inspect -f '{{.State.StartedAt}}' whoami-preprod store-preprod");
    let times: Vec<&str> = order.lines().collect();
    assert!(
        times.is_sorted(),
        "who is depended on starts first: {times:?}"
    );
    pi.homelab("env-down whoami").exits(0);
    assert_eq!(
        pi.sh("docker ps -a --format '{{.Names}}'"),
        "store-preprod\n"
    );
    pi.homelab("env-up whaomi")
        .exits(2)
        .says("no service `whaomi`")
        .says("did you mean `whoami`?");
    pi.homelab("env-up jellyfin")
        .exits(2)
        .says("runs on host `n100`");
    pi.homelab("env-up --env prdo")
        .exits(2)
        .says("did you mean `prod`?");
    // Volumes stay, and what is in them.
    assert_eq!(pi.sh("docker volume ls -q"), "homelab-preprod_pages\n");
    assert_eq!(
        pi.sh("docker volume inspect -f '{{index .Labels \"homelab.environment\"}}' homelab-preprod_pages"),
        "preprod\n"
    );
}

fn the_order_of_the_file_changes_no_network(suite: &str) {
    let loan = borrow(suite);
    let (_home, pi) = loan.parts();
    pi.homelab("network-up").exits(0);
    // The order of the file changes which network would get the exact subnet, and must change nothing.
    let (head, tail) = PLAN.split_once("[env.prod]").expect("the plan has both");
    let (prod, rest) = tail.split_once("[env.preprod]").expect("the plan has both");
    let (preprod, services) = rest
        .split_once("[services.whoami]")
        .expect("the plan has services");
    let swapped =
        format!("{head}[env.preprod]{preprod}[env.prod]{prod}[services.whoami]{services}");
    pi.write("/etc/homelab/homelab.toml", &swapped);
    pi.homelab("network-up").exits(0).says("nothing to do");

    // A service of the other host is no business of this one's networks.
    let more = format!(
        "{PLAN}\n[services.film]\nimage = \"lab/web:1\"\nhost = \"n100\"\naddress = {{ prod = \"192.168.1.207\" }}\n"
    );
    pi.write("/etc/homelab/homelab.toml", &more);
    pi.homelab("network-up").exits(0).says("nothing to do");
}

fn whose_container_has_a_planned_address_is_said(suite: &str) {
    let loan = borrow(suite);
    let (home, pi) = loan.parts();
    pi.homelab("network-up").exits(0);
    pi.homelab("env-up").exits(0);
    // A service that was renamed has the old one's address.
    let renamed = PLAN
        .replace("[services.whoami]", "[services.hello]")
        .replace("\"whoami\"]", "\"hello\"]");
    pi.write("/etc/homelab/homelab.toml", &renamed);
    let said = "container `whoami-preprod` of service `whoami`, which the plan does not have on this host, has 192.168.1.230 already";
    let hint = "`homelab env-up --env preprod --remove-orphans`";
    pi.homelab("status").exits(3).says(said).says(hint);
    pi.homelab("env-up").exits(1).says(said).says(hint);
    pi.homelab("verify").exits(3).says("hello-preprod");
    pi.homelab("env-up --env preprod --remove-orphans")
        .exits(0)
        .says("removed container whoami-preprod");
    assert_eq!(
        home.laptop.page(lan(230)).as_deref(),
        Some("whoami of preprod")
    );
    pi.homelab("verify").exits(0);
    // Two that change places while only one of them is named.
    let swapped = renamed
        .replace("preprod = \"192.168.1.230\"", "preprod = \"192.168.1.239\"")
        .replace("preprod = \"192.168.1.231\"", "preprod = \"192.168.1.230\"");
    pi.write("/etc/homelab/homelab.toml", &swapped);
    pi.homelab("env-up --no-deps store")
        .exits(1)
        .says("container `hello-preprod` of service `hello` of environment `preprod` has 192.168.1.230 already")
        .says("`homelab env-up --env preprod hello`");
    pi.homelab("env-up --env preprod hello").exits(0);
    pi.homelab("env-up --no-deps store").exits(0);
    // And both at once: each has what the other is to get.
    pi.write(
        "/etc/homelab/homelab.toml",
        &renamed
            .replace("preprod = \"192.168.1.230\"", "preprod = \"192.168.1.239\"")
            .replace("preprod = \"192.168.1.231\"", "preprod = \"192.168.1.239\"")
            .replacen(
                "preprod = \"192.168.1.239\"",
                "preprod = \"192.168.1.230\"",
                1,
            ),
    );
    pi.homelab("env-up").exits(0);
    assert_eq!(
        home.laptop.page(lan(239)).as_deref(),
        Some("store of preprod")
    );
    pi.write("/etc/homelab/homelab.toml", &swapped);
    pi.homelab("env-up").exits(0);
    // An environment that the plan does not have any more.
    let other = swapped
        .replace("[env.preprod]", "[env.stage]")
        .replace("preprod = \"", "stage = \"")
        .replace("default_env = \"preprod\"", "default_env = \"stage\"");
    pi.write("/etc/homelab/homelab.toml", &other);
    pi.homelab("network-up").exits(0);
    pi.homelab("env-up")
        .exits(1)
        .says("container `hello-preprod` of environment `preprod`, which the plan does not have, has 192.168.1.239 already")
        .says("`homelab env-down --env preprod`");
    pi.homelab("env-down --env preprod").exits(0);
    pi.homelab("env-up").exits(0);
}
