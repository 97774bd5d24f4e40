//! Who gets which address, and who never does.

use crate::pool::borrow;
use crate::{PLAN, lan, tests};

tests! {
    every engine:
        docker_gives_out_no_address;
    one engine:
        services_without_address_get_a_free_one_and_keep_it
}

fn docker_gives_out_no_address(suite: &str) {
    let loan = borrow(suite);
    let (home, pi) = loan.parts();
    pi.homelab("network-up").exits(0);
    for env in ["prod", "preprod"] {
        let run = format!("docker run -d --network homelab-{env}");
        let said = pi.try_sh(&format!("{run} lab/web:1 sleep 600"));
        let said = said.expect_err("there is no address for it");
        assert!(said.contains("no available IPv4 addresses"), "{said}");
        // Whoever asks for one gets it, wherever it is in the subnet, and keeps it.
        let last = if env == "prod" { 210 } else { 249 };
        pi.sh(&format!(
            "{run} --name guest-{env} --ip 192.168.1.{last} lab/web:1 sh -c 'mkdir /www; echo {env} > /www/index.html; exec httpd -f -p 80 -h /www'"
        ));
        assert_eq!(home.laptop.page(lan(last)).as_deref(), Some(env));
    }
    pi.homelab("network-up").exits(0).says("nothing to do");
    pi.homelab("network-down").exits(1).says("`guest-prod`");
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
