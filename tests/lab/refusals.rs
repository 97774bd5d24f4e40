//! What homelab refuses, in its own words, with everything left as it was.

use crate::home::Home;
use crate::pool::borrow;
use crate::{PLAN, home_and_pi, lan, tests};
use std::path::Path;

tests! {
    every engine:
        the_parent_may_be_a_bridge;
    one engine:
        what_is_not_ours_is_left_alone
        the_machine_must_be_fit
}

fn what_is_not_ours_is_left_alone(suite: &str) {
    let loan = borrow(suite);
    let (_home, pi) = loan.parts();
    let mut before = String::new();
    let mut refuse = |damage: &str, says: &str, line: &str, undo: &str| {
        pi.sh(damage);
        before = pi.leftovers();
        pi.homelab(line).exits(1).says(says).says("hint: ");
        assert_eq!(pi.leftovers(), before, "after {damage}");
        pi.sh(undo);
    };
    refuse(
        "ip link add homelab-shim link eth0 type macvlan mode bridge",
        "there is a link `homelab-shim` that homelab did not make",
        "network-up",
        "ip link del homelab-shim",
    );
    refuse(
        "ip link add other link eth0 type macvlan mode bridge; ip link set other up; ip route add 192.168.1.192/26 dev other",
        "there is a route to 192.168.1.192/26 over `other` that homelab did not make",
        "network-up",
        "ip route del 192.168.1.192/26; ip addr add 192.168.1.254/32 dev other",
    );
    refuse(
        "true",
        "link `other` has 192.168.1.254",
        "network-up",
        "ip link del other",
    );
    pi.homelab("network-up").exits(0);
    refuse(
        "docker create --name whoami-preprod lab/web:1 true",
        "there is a container `whoami-preprod` that homelab did not make",
        "env-up",
        "docker rm whoami-preprod",
    );
    refuse(
        "docker run -d --name guest --network homelab-preprod --ip 192.168.1.230 lab/web:1 sleep 600",
        "container `guest` has 192.168.1.230 already",
        "env-up",
        "docker rm -f guest",
    );
    // Who may use Docker but not the kernel can run services, and cannot take half of the network down.
    let group = "setpriv --reuid 65534 --regid docker --clear-groups homelab";
    pi.sh(&format!("{group} env-up && {group} env-down"));
    let before = pi.leftovers();
    let said = pi
        .try_sh(&format!("{group} network-down 2>&1"))
        .expect_err("it is refused");
    assert!(said.contains("run homelab as root"), "{said}");
    assert_eq!(pi.leftovers(), before);
    // Others' networks and links stay through all of it.
    pi.sh("docker network create others; ip link add others type bridge");
    pi.homelab("env-up").exits(0);
    pi.homelab("env-down").exits(0);
    pi.homelab("network-down").exits(0);
    pi.sh("docker network rm others; ip link del others");
}

fn the_machine_must_be_fit(suite: &str) {
    let (home, pi) = home_and_pi(suite);
    let before = pi.leftovers();
    let plan =
        |from: &str, to: &str| pi.write("/etc/homelab/homelab.toml", &PLAN.replace(from, to));

    plan("parent  = \"eth0\"", "parent  = \"enp3s0\"");
    pi.homelab("network-up")
        .exits(1)
        .says("there is no parent interface `enp3s0`")
        .says("write `parent = \"eth0\"`");
    plan("parent  = \"eth0\"\n", "");
    pi.homelab("network-up --dry-run").exits(3);
    plan("192.168.1.204", "192.168.1.205");
    pi.homelab("network-up").exits(2).says("192.168.1.205");
    plan("address = \"192.168.1.204\"", "address = \"192.168.1.206\"");
    pi.homelab("network-up")
        .exits(1)
        .says("this machine is no host of the plan");
    pi.homelab("network-up --host raspberry-pi")
        .exits(1)
        .says("`eth0` does not hold 192.168.1.206");
    pi.homelab("network-up --host rasperry-pi")
        .exits(2)
        .says("did you mean `raspberry-pi`?");
    plan("", "");

    pi.sh("ip link add br9 type bridge; ip link set eth0 master br9");
    pi.homelab("network-up")
        .exits(1)
        .says("`eth0` is a port of the bridge `br9`")
        .says("parent = \"br9\"");
    pi.sh("ip link set eth0 nomaster; ip link del br9");
    pi.sh("ip link add eth9 type bridge");
    plan("parent  = \"eth0\"", "parent  = \"eth9\"");
    pi.homelab("network-up")
        .exits(1)
        .says("the parent `eth9` is down")
        .says("does not hold 192.168.1.204");
    pi.sh("ip link del eth9");
    plan("", "");
    home.router.run("ip link set pi down");
    pi.homelab("network-up")
        .exits(1)
        .says("the parent `eth0` has no carrier");
    home.router.run("ip link set pi up");

    let as_nobody = |line: &str| {
        pi.try_sh(&format!(
            "setpriv --reuid 65534 --clear-groups homelab {line} 2>&1"
        ))
    };
    let said = as_nobody("network-up").expect_err("nobody may not");
    assert!(
        said.contains("not permitted to use the Docker Engine"),
        "{said}"
    );
    assert!(said.contains("run homelab as root"), "{said}");
    as_nobody("check").expect("check needs no root");
    // Who may use Docker but not the kernel is told so as well.
    let group = "setpriv --reuid 65534 --regid docker --clear-groups homelab";
    let said = pi
        .try_sh(&format!("{group} network-up 2>&1"))
        .expect_err("the group docker is not root");
    assert!(
        said.contains("not permitted to change links") && said.contains("run homelab as root"),
        "{said}"
    );

    for (host, says) in [
        ("tcp://192.168.1.10:2375", "is another machine"),
        ("ssh://root@n100", "is another machine"),
        (
            "unix:///run/nowhere.sock",
            "`/run/nowhere.sock` does not exist",
        ),
        ("tcp://127.0.0.1:2375", "no Docker Engine answers"),
        ("nonsense", "no address of an Engine"),
    ] {
        let said = pi
            .try_sh(&format!("DOCKER_HOST={host} homelab network-up 2>&1"))
            .expect_err("it is refused");
        assert!(said.contains(says) && said.contains("hint: "), "{said}");
    }
    assert!(
        pi.try_sh("DOCKER_HOST=unix:///run/docker.sock homelab network-up --dry-run")
            .is_err_and(|out| out.contains("homelab-shim"))
    );
    pi.sh("systemctl stop docker.socket docker");
    pi.homelab("network-up")
        .exits(1)
        .says("no Docker Engine")
        .says("systemctl start docker");
    pi.sh("systemctl start docker");
    assert_eq!(pi.leftovers(), before, "nothing was changed");

    // Somebody on the LAN has the shim's address.
    home.laptop.run("ip addr add 192.168.1.254/32 dev eth0");
    pi.homelab("network-up")
        .exits(1)
        .says("another machine has 192.168.1.254, the address of this host's shim");
    home.laptop.run("ip addr del 192.168.1.254/32 dev eth0");
    assert_eq!(pi.leftovers(), before, "nothing was changed");
}

fn the_parent_may_be_a_bridge(suite: &str) {
    let (home, pi) = home_and_pi(suite);
    // What the refusal of a bridge's port advises.
    pi.sh("ip link add br9 type bridge; ip link set br9 up; ip link set eth0 master br9; ip addr flush dev eth0; \
           ip addr add 192.168.1.204/24 dev br9; ip route add default via 192.168.1.1");
    pi.write(
        "/etc/homelab/homelab.toml",
        &PLAN.replace("parent  = \"eth0\"", "parent  = \"br9\""),
    );
    pi.homelab("network-up").exits(0);
    pi.homelab("env-up whoami").exits(0);
    pi.homelab("env-up --env prod whoami").exits(0);
    for (address, page) in [(200, "whoami of prod"), (230, "whoami of preprod")] {
        assert_eq!(home.laptop.page(lan(address)).as_deref(), Some(page));
        assert_eq!(pi.host.page(lan(address)).as_deref(), Some(page));
    }
    // Without a name in the file it is found by this host's address.
    pi.write(
        "/etc/homelab/homelab.toml",
        &PLAN.replace("parent  = \"eth0\"\n", ""),
    );
    pi.homelab("network-up").exits(0).says("nothing to do");
}

#[test]
#[ignore = "needs root and the lab: run tests/all.sh"]
fn two_hosts_share_one_file() {
    let _pool = crate::pool::open();
    let home = Home::new(Path::new(env!("CARGO_BIN_EXE_homelab")));
    let pi = home.server("trixie", "pi", "192.168.1.204");
    let n100 = home.server("sid", "n100", "192.168.1.10");
    for server in [&pi, &n100] {
        server.import_image("lab/web:1");
        server.write("/etc/homelab/homelab.toml", PLAN);
        server.homelab("network-up").exits(0);
        server.homelab("env-up").exits(0);
    }
    assert_eq!(
        pi.sh("docker ps --format '{{.Names}}' | sort"),
        "store-preprod\nwhoami-preprod\n"
    );
    assert_eq!(
        n100.sh("docker ps --format '{{.Names}}'"),
        "jellyfin-preprod\n"
    );
    for (from, address, page) in [
        (&*pi.host, 230, "whoami of preprod"),
        (&*pi.host, 235, "jellyfin of preprod"),
        (&*n100.host, 230, "whoami of preprod"),
        (&*n100.host, 235, "jellyfin of preprod"),
        (&home.laptop, 235, "jellyfin of preprod"),
    ] {
        assert_eq!(from.page(lan(address)).as_deref(), Some(page));
    }
    assert!(
        n100.sh("ip addr show homelab-shim")
            .contains("192.168.1.253/32")
    );
}
