//! Who gets which address, and who never does.

use crate::home::Server;
use crate::pool::borrow;
use crate::{PLAN, home_and_pi, lan, tests};
use std::collections::BTreeSet;
use std::process::Stdio;

tests! {
    every engine:
        docker_gives_out_no_address;
    one engine:
        services_without_address_get_a_free_one_and_keep_it
        two_hosts_that_choose_at_once_choose_no_address_twice
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

/// Seven services for which the plan leaves the address open: five on one host, two on the other.
fn open_services() -> String {
    let service = |number: usize| {
        let host = if number > 5 { "n100" } else { "raspberry-pi" };
        format!(
            "[services.s{number}]\nimage = \"lab/web:1\"\nhost = \"{host}\"\nstop_signal = \"SIGKILL\"\n\
             command = [\"sh\", \"-c\", \"mkdir -p /www; echo s{number} > /www/index.html; exec httpd -f -p 80 -h /www\"]\n\n"
        )
    };
    (1..=7).map(service).collect()
}

fn two_hosts_that_choose_at_once_choose_no_address_twice(suite: &str) {
    let (home, pi) = home_and_pi(suite);
    let n100 = home.server(suite, "n100", "192.168.1.10");
    n100.import_image("lab/web:1");
    let (start, _) = PLAN
        .split_once("[services.whoami]")
        .expect("it has services");
    // Eight addresses for seven services and a laptop: one host needs some of the other's part.
    let plan = start.replace("192.168.1.224-192.168.1.249", "192.168.1.224-192.168.1.231");
    let plan = format!("{plan}{}", open_services());
    home.laptop.run("ip addr add 192.168.1.225/32 dev eth0");
    for server in [&pi, &n100] {
        server.write("/etc/homelab/homelab.toml", &plan);
        server.homelab("network-up").exits(0);
    }
    for round in 0..3 {
        let running = [&pi, &n100].map(|server| {
            let mut command = server.command("homelab");
            command.arg("env-up").stdout(Stdio::null());
            command.spawn().expect("nsenter runs")
        });
        for mut run in running {
            assert!(run.wait().expect("it ends").success(), "round {round}");
        }
        let addresses = |server: &Server| {
            let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
            server.sh(&format!("docker inspect -f '{format}' $(docker ps -q)"))
        };
        let all = addresses(&pi) + &addresses(&n100);
        let different: BTreeSet<&str> = all.lines().collect();
        assert_eq!(different.len(), 7, "round {round}: {all}");
        assert!(!different.contains("192.168.1.225"), "the laptop's: {all}");
        for server in [&pi, &n100] {
            let said = server.homelab("status").stderr;
            assert!(!said.contains("another machine has"), "{said}");
            server.homelab("env-down").exits(0);
        }
    }
}
