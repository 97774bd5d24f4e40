//! What the Engine needs of others: room on its disk, and a registry that answers.

use crate::home::{SOON, Server, wait_for};
use crate::services::registry;
use crate::{PLAN, home_and_pi, lan, tests};
use std::time::{Duration, Instant};

tests! {
    every engine:
        a_full_disk_is_told_and_the_next_run_completes;
    one engine:
        a_registry_that_is_away_or_stalls_is_told
}

/// A folder for Docker with that much room, and the test's image in it.
fn give_room(pi: &Server, room: &str) {
    pi.sh(&format!(
        "systemctl stop docker.socket docker.service; mount -t tmpfs -o size={room} tmpfs /var/lib/docker; \
         mount -t tmpfs -o size={room} tmpfs /var/lib/containerd; systemctl restart containerd; \
         systemctl start docker.socket docker.service"
    ));
    pi.wait_for_docker();
    pi.import_image("lab/web:1");
}

fn a_full_disk_is_told_and_the_next_run_completes(suite: &str) {
    let (home, pi) = home_and_pi(suite);
    give_room(&pi, "24m");
    registry(&pi, 5000, "");
    pi.sh(
        "docker tag lab/web:1 127.0.0.1:5000/lab/web:1 && docker push -q 127.0.0.1:5000/lab/web:1 && \
         docker rmi 127.0.0.1:5000/lab/web:1 lab/web:1",
    );
    let plan = PLAN.replace("lab/web:1", "127.0.0.1:5000/lab/web:1");
    pi.write("/etc/homelab/homelab.toml", &plan);
    let full = |is_full: bool| {
        pi.sh(if is_full {
            "for folder in docker containerd; do cat /dev/zero >/var/lib/$folder/filling 2>/dev/null || true; done"
        } else {
            "rm /var/lib/docker/filling /var/lib/containerd/filling"
        });
    };
    // Each of these writes something: the record of a network, an image, a container.
    for command in ["network-up", "env-up"] {
        full(true);
        pi.homelab(command)
            .exits(1)
            .says("the disk of the Engine is full")
            .says("docker system df");
        full(false);
        pi.homelab(command).exits(0);
        pi.homelab(command).exits(0).says("nothing to do");
    }
    // The image is there now.
    full(true);
    pi.homelab("env-up --env prod")
        .exits(1)
        .says("the disk of the Engine is full");
    // What runs goes on, and can be seen and taken down.
    assert_eq!(
        home.laptop.page(lan(230)).as_deref(),
        Some("whoami of preprod")
    );
    pi.homelab("ps").exits(0);
    pi.homelab("env-down").exits(0);
    full(false);
    pi.homelab("env-up --env prod").exits(0);
    pi.homelab("env-up").exits(0);
    pi.homelab("status").exits(0);
}

/// A registry at another port, which says no more on a connection after three megabytes.
const STALLING: &str =
    "#!/bin/sh\n/srv/image/bin/busybox nc 127.0.0.1 5000 | head -c 3000000\nexec sleep 611\n";

fn a_registry_that_is_away_or_stalls_is_told(suite: &str) {
    let (_home, pi) = home_and_pi(suite);
    registry(&pi, 5000, "");
    pi.sh(
        "cp -a /srv/image /srv/big; head -c 8000000 /dev/urandom >/srv/big/random; \
         tar -C /srv/big -c . | docker import - 127.0.0.1:5000/lab/web:1 && docker push -q 127.0.0.1:5000/lab/web:1 && \
         docker rmi 127.0.0.1:5000/lab/web:1",
    );
    let plan = PLAN.replace("lab/web:1", "127.0.0.1:5001/lab/web:1");
    pi.write("/etc/homelab/homelab.toml", &plan);
    pi.homelab("network-up").exits(0);
    pi.homelab("env-up")
        .exits(1)
        .says("its registry, 127.0.0.1:5001, cannot be reached");
    pi.write("/run/stalling", STALLING);
    let serve = |program: &str| {
        pi.sh(&format!(
            "systemctl stop between 2>/dev/null; chmod +x /run/stalling; \
             systemd-run -qG --unit between /srv/image/bin/busybox nc -ll -p 5001 -e {program}"
        ));
        wait_for("somebody to listen", SOON, || {
            pi.try_sh("ss -ltn | grep -q :5001").is_ok()
        });
    };
    serve("/run/stalling");
    // An interrupt ends the wait for it. Who looks for the sleeper must not find itself.
    let stalls = || pi.try_sh("grep -lz '[6]11' /proc/[0-9]*/cmdline").is_ok();
    std::thread::scope(|scope| {
        let run =
            scope.spawn(|| pi.sh("homelab env-up & echo $! >/run/pull.pid; wait $! || echo $?"));
        wait_for("the registry to stall", SOON, stalls);
        let begun = Instant::now();
        pi.sh("kill -INT $(cat /run/pull.pid)");
        let ended = run.join().expect("it ends");
        assert!(begun.elapsed() < Duration::from_secs(5));
        assert_eq!(ended.trim(), "130");
    });
    pi.write(
        "/run/stalling",
        "#!/bin/sh\nexec /srv/image/bin/busybox nc 127.0.0.1 5000\n",
    );
    serve("/run/stalling");
    pi.homelab("env-up").exits(0).says("pulled image");
    pi.homelab("env-up").exits(0).says("nothing to do");
}
