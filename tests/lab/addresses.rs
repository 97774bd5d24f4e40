//! Who gets which address, and who never does.

use crate::pool::borrow;
use crate::{PLAN, lan, tests};
use std::collections::BTreeSet;

tests! {
    every engine:
        kept_addresses_are_never_handed_out;
    one engine:
        services_without_address_get_a_free_one_and_keep_it
}

fn kept_addresses_are_never_handed_out(suite: &str) {
    // A small environment, so that Docker can be asked for all of it: .224 to .234 of a /28, with a host, a shim, a
    // reservation and a service of another host around and in it.
    let plan = PLAN
        .replace("192.168.1.224-192.168.1.249", "192.168.1.224-192.168.1.234")
        .replace("192.168.1.250-192.168.1.253", "192.168.1.236-192.168.1.237")
        .replace("address = \"192.168.1.10\"", "address = \"192.168.1.226\"")
        .replace("\"192.168.1.253\"", "\"192.168.1.235\"")
        .replace("preprod = \"192.168.1.235\"", "preprod = \"192.168.1.228\"");
    let loan = borrow(suite);
    let (_home, pi) = loan.parts();
    pi.write("/etc/homelab/homelab.toml", &plan);
    pi.homelab("network-up").exits(0);

    let mut given = BTreeSet::new();
    let mut refused = String::new();
    for number in 0..16 {
        let run = pi.try_sh(&format!(
            "docker run -d --name guest-{number} --network homelab-preprod lab/web:1 sleep 600"
        ));
        if let Err(said) = run {
            refused = said;
            break;
        }
        let address = pi.sh(&format!(
            "docker inspect -f '{{{{(index .NetworkSettings.Networks \"homelab-preprod\").IPAddress}}}}' guest-{number}"
        ));
        given.insert(address.trim().to_owned());
    }
    assert!(refused.contains("no available IPv4 addresses"), "{refused}");
    let expected: BTreeSet<String> = [224, 225, 227, 229, 230, 231, 232, 233, 234]
        .map(|last| lan(last).to_string())
        .into();
    assert_eq!(
        given, expected,
        "the whole range but host .226 and the other host's service .228"
    );
    pi.homelab("network-down").exits(1).says("`guest-0`");
}

fn services_without_address_get_a_free_one_and_keep_it(suite: &str) {
    let plan = PLAN.replace(
        "prod = \"192.168.1.200\", preprod = \"192.168.1.230\"",
        "prod = \"192.168.1.200\"",
    );
    let loan = borrow(suite);
    let (home, pi) = loan.parts();
    pi.write("/etc/homelab/homelab.toml", &plan);
    pi.homelab("network-up").exits(0);
    // .224 is a device's on the LAN, .225 a container's that homelab did not make.
    home.laptop.run("ip addr add 192.168.1.224/32 dev eth0");
    pi.sh("docker run -d --name guest --network homelab-preprod --ip 192.168.1.225 lab/web:1 sleep 600");
    pi.homelab("env-up whoami").exits(0);
    let page = || home.laptop.page(lan(226));
    assert_eq!(page().as_deref(), Some("whoami of preprod"));

    // It is made anew when the file changes, and keeps the address although a lower one is free now.
    home.laptop.run("ip addr del 192.168.1.224/32 dev eth0");
    pi.sh("docker rm -f guest");
    pi.write(
        "/etc/homelab/homelab.toml",
        &plan.replace("echo whoami of", "echo the new whoami of"),
    );
    pi.homelab("env-up whoami")
        .exits(0)
        .says("replaced container whoami-preprod");
    assert_eq!(page().as_deref(), Some("the new whoami of preprod"));
    pi.homelab("env-up whoami").exits(0).says("nothing to do");
}
