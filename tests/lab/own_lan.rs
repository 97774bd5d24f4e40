//! An environment with a LAN of its own, as on a VLAN: its network, its shim and its addresses are there, and nothing that is wrong
//! there stops the others.

use crate::home::second_lan::INTERFACE;
use crate::home::{Home, Host, SOON, Server, wait_for};
use crate::shim::journal;
use crate::{home_and_pi, lan, tests};
use std::net::Ipv4Addr;
use std::time::Instant;

tests! {
    every engine:
        an_environment_lives_on_a_lan_of_its_own;
    one engine:
        a_network_there_is_not_removed_while_its_driver_may_have_lost_it
}

const PLAN: &str = r#"
default_env = "iot"

[network]
subnet  = "192.168.1.0/24"
gateway = "192.168.1.1"
parent  = "eth0"

[shim]
address = "192.168.1.254"

[hosts.raspberry-pi]
address = "192.168.1.204"
primary = true

[hosts.n100]
address = "192.168.1.10"
shim    = "192.168.1.253"

[env.prod]
range = "192.168.1.192-192.168.1.223"

[env.iot]
range   = "192.168.20.192-192.168.20.223"
subnet  = "192.168.20.0/24"
gateway = "192.168.20.1"
parent  = { raspberry-pi = "eth0.20", n100 = "eth0" }
shim    = { raspberry-pi = "192.168.20.254", n100 = "192.168.20.253" }

[services.whoami]
image       = "lab/web:1"
address     = { prod = "192.168.1.200", iot = "192.168.20.200" }
command     = ["sh", "-c", "mkdir -p /www; echo whoami of {env} > /www/index.html; exec httpd -f -p 80 -h /www"]
restart     = "unless-stopped"
stop_signal = "SIGKILL"

[services.second]
image       = "lab/web:1"
address     = { iot = "192.168.20.201" }
command     = ["sh", "-c", "mkdir -p /www; echo second of {env} > /www/index.html; exec httpd -f -p 80 -h /www"]
restart     = "unless-stopped"
stop_signal = "SIGKILL"

[env.prod.services.second]
enabled = false
"#;

fn iot(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 20, last)
}

/// Both environments serve their pages to this host and to who is on their LAN.
fn both_serve(home: &Home, pi: &Server, camera: &Host) {
    for (asking, address, page) in [
        (&*pi.host, lan(200), "whoami of prod"),
        (&*pi.host, iot(200), "whoami of iot"),
        (&home.laptop, lan(200), "whoami of prod"),
        (camera, iot(200), "whoami of iot"),
        // By the router.
        (&home.laptop, iot(200), "whoami of iot"),
    ] {
        assert_eq!(asking.page(address).as_deref(), Some(page), "{address}");
    }
}

fn an_environment_lives_on_a_lan_of_its_own(suite: &str) {
    let (home, mut pi) = home_and_pi(suite);
    let camera = home.second_lan();
    pi.write("/etc/homelab/homelab.toml", PLAN);
    // Without its interface that environment alone is left out.
    let before = pi.leftovers();
    pi.homelab("network-up")
        .exits(1)
        .says("there is no parent interface `eth0.20` for environment `iot`")
        .says("ip link add link eth0 name eth0.20 type vlan id 20");
    pi.homelab("env-up --env prod").exits(0);
    pi.homelab("env-up")
        .exits(1)
        .says("there is no link `hs-iot`");
    home.plug_into_second_lan(&pi.host, "pi20", INTERFACE);

    // Somebody there has the address of its shim, then that of a service.
    camera.run("ip addr add 192.168.20.254/24 dev eth0");
    pi.homelab("network-up")
        .exits(1)
        .says("192.168.20.254, the address of this host's shim in environment `iot`");
    camera.run("ip addr del 192.168.20.254/24 dev eth0");
    pi.homelab("network-up").exits(0);
    pi.homelab("network-up").exits(0).says("nothing to do");
    camera.run("ip addr add 192.168.20.201/24 dev eth0");
    pi.homelab("env-up")
        .exits(1)
        .says("192.168.20.201 is taken");
    camera.run("ip addr del 192.168.20.201/24 dev eth0");
    pi.homelab("env-up").exits(0);
    both_serve(&home, &pi, &camera);

    // They are apart although the router would forward.
    for (container, other) in [("whoami-iot", lan(200)), ("whoami-prod", iot(200))] {
        let get = format!("docker exec {container} wget -q -T 2 -O - http://{other}/");
        assert!(pi.try_sh(&get).is_err(), "{container} reaches {other}");
    }
    pi.homelab("status").exits(0);
    pi.homelab("verify").exits(0);

    another_way_is_seen(&pi);
    the_interface_comes_and_goes(&home, &pi);
    both_serve(&home, &pi, &camera);

    // The service keeps both shims, also over a boot.
    pi.homelab("shim install").exits(0);
    pi.power_off();
    pi.boot();
    pi.wait_for_docker();
    both_serve(&home, &pi, &camera);
    for line in ["network-up --dry-run", "env-up --dry-run", "status"] {
        pi.homelab(line).exits(0);
    }
    pi.sh("ip link del hs-iot");
    wait_for("the shim", SOON, || has_route(&pi));
    the_service_goes_on_without_the_interface(&home, &pi);
    // It may not ask the LAN, so it is not told of an address that somebody has.
    camera.run("ip addr add 192.168.20.252/24 dev eth0");
    let moved = PLAN.replace("192.168.20.254", "192.168.20.252");
    pi.write("/etc/homelab/homelab.toml", &moved);
    pi.homelab("network-up")
        .exits(1)
        .says("192.168.20.252, the address of this host's shim in environment `iot`");
    pi.sh("ip addr show dev hs-iot | grep -q 192.168.20.254/32");
    camera.run("ip addr del 192.168.20.252/24 dev eth0");
    pi.homelab("network-up").exits(0);
    pi.sh("ip addr show dev hs-iot | grep -q 192.168.20.252/32");

    // What the plan has no more, the service does not put back.
    pi.homelab("env-down").exits(0);
    let (begin, rest) = PLAN.split_once("[env.iot]").expect("a table");
    let (_, rest) = rest.split_once("[services.whoami]").expect("a table");
    let without = format!("{begin}[services.whoami]{rest}")
        .replace(", iot = \"192.168.20.200\"", "")
        .replace("address     = { iot = \"192.168.20.201\" }", "")
        .replace("default_env = \"iot\"", "default_env = \"prod\"");
    pi.write("/etc/homelab/homelab.toml", &without);
    let shares = suite == "sid";
    if !shares {
        // The interface came back after Docker was started.
        pi.homelab("network-up")
            .exits(1)
            .says("`eth0.20`, which came after Docker was started");
        pi.sh("systemctl restart docker");
        pi.wait_for_docker();
    }
    pi.homelab("network-up").exits(0);
    pi.homelab("network-up").exits(0).says("nothing to do");
    assert!(pi.try_sh("ip link show hs-iot").is_err());
    pi.homelab("env-down --env prod").exits(0);
    pi.homelab("network-down").exits(0);
    pi.homelab("shim uninstall").exits(0);
    pi.host.run(&format!("ip link del {INTERFACE}"));
    assert_eq!(pi.leftovers(), before);
}

fn has_route(pi: &Server) -> bool {
    pi.try_sh("ip route | grep -q 192.168.20.192/27").is_ok()
}

/// The shim on the other LAN is there, also for Docker, and the one without an interface comes with that.
fn the_service_goes_on_without_the_interface(home: &Home, pi: &Server) {
    pi.host.run(&format!("ip link del {INTERFACE}"));
    let begun = Instant::now();
    pi.sh("systemctl restart homelab-shim.service");
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    pi.sh("ip route | grep -q 192.168.1.192/27");
    pi.sh("systemctl status homelab-shim.service | grep -q 'the shim is there, but: the parent `eth0.20`'");
    home.plug_into_second_lan(&pi.host, "pi20", INTERFACE);
    wait_for("the shim", SOON, || has_route(pi));
    let log = journal(pi);
    assert!(log.contains("label=homelab.environment=iot"), "{log}");
    pi.homelab("env-up --force-recreate").exits(0);
}

fn another_way_is_seen(pi: &Server) {
    pi.sh("ip route add 192.168.20.200/32 via 192.168.1.1");
    pi.homelab("status")
        .exits(3)
        .says("packets to 192.168.20.200 leave by `eth0` and not by `hs-iot`");
    pi.sh("ip route del 192.168.20.200/32 via 192.168.1.1");
}

/// With the interface the links of that environment go; the other one goes on.
fn the_interface_comes_and_goes(home: &Home, pi: &Server) {
    pi.host.run(&format!("ip link del {INTERFACE}"));
    pi.homelab("network-up").exits(1).says(INTERFACE);
    pi.homelab("status").exits(3).says(INTERFACE);
    assert_eq!(
        home.laptop.page(lan(200)).as_deref(),
        Some("whoami of prod")
    );
    home.plug_into_second_lan(&pi.host, "pi20", INTERFACE);
    pi.homelab("network-up").exits(0);
    pi.homelab("env-up --force-recreate").exits(0);
}

/// The interface has no IPv4 address that tells since when it is there; its IPv6 one does.
fn a_network_there_is_not_removed_while_its_driver_may_have_lost_it(suite: &str) {
    let (home, mut pi) = home_and_pi(suite);
    home.second_lan();
    home.plug_into_second_lan(&pi.host, "pi20", INTERFACE);
    pi.write("/etc/homelab/homelab.toml", PLAN);
    pi.homelab("network-up").exits(0);
    pi.power_off();
    pi.host.run(&format!("ip link del {INTERFACE}"));
    pi.boot();
    home.plug_into_second_lan(&pi.host, "pi20", INTERFACE);
    let addresses = format!("ip -o addr show dev {INTERFACE} | grep inet6");
    wait_for("an address", SOON, || pi.try_sh(&addresses).is_ok());
    pi.homelab("network-down")
        .exits(1)
        .says("network `homelab-iot` stands on `eth0.20`, which came after Docker was started");
    pi.sh("systemctl restart docker");
    pi.wait_for_docker();
    pi.homelab("network-down").exits(0);
}
