//! A container is looked at as it is, not as its labels say: what differs is told by status and repaired by env-up.

use crate::home::Server;
use crate::pool::{Loan, borrow};
use crate::{lan, tests};

tests! {
    every engine:
        a_container_of_other_tools_with_our_labels_is_made_anew
        what_was_done_to_a_container_is_undone;
    one engine:
}

fn both_up(suite: &str) -> Loan {
    let loan = borrow(suite);
    let (_, pi) = loan.parts();
    pi.homelab("network-up").exits(0);
    pi.homelab("env-up --env prod").exits(0);
    pi.homelab("env-up").exits(0);
    loan
}

/// status finds a difference, env-up takes it away, and it stays away.
fn is_repaired(pi: &Server, difference: &str, repaired: &str) {
    pi.homelab("status").exits(3).says(difference);
    pi.homelab("env-up --env prod").exits(0).says(repaired);
    pi.homelab("env-up --env prod")
        .exits(0)
        .says("nothing to do");
    pi.homelab("status").exits(0);
}

fn a_container_of_other_tools_with_our_labels_is_made_anew(suite: &str) {
    let loan = both_up(suite);
    let (home, pi) = loan.parts();
    // As Portainer, Watchtower or a restored backup make it: everything but the slice.
    pi.sh(
        "docker inspect whoami-prod | jq -r '.[0].Config.Labels | to_entries[] | \"\\(.key)=\\(.value)\"' > /run/labels; \
         docker rm -f whoami-prod; \
         docker run -d --name whoami-prod --network homelab-prod --ip 192.168.1.200 --label-file /run/labels \
         lab/web:1 sh -c 'mkdir -p /www; echo made by others > /www/index.html; exec httpd -f -p 80 -h /www'",
    );
    assert_eq!(
        home.laptop.page(lan(200)).as_deref(),
        Some("made by others")
    );
    pi.homelab("verify").exits(3);
    is_repaired(
        pi,
        "container whoami-prod: its slice is system.slice, planned is homelab-prod.slice",
        "replaced container whoami-prod",
    );
    assert_eq!(
        home.laptop.page(lan(200)).as_deref(),
        Some("whoami of prod")
    );
    pi.homelab("verify").exits(0);
    // One that does not run yet is found before it does.
    pi.sh(
        "docker rm -f whoami-prod; docker create --name whoami-prod --network homelab-prod --ip 192.168.1.200 \
         --label-file /run/labels lab/web:1 sleep 600",
    );
    pi.homelab("status")
        .exits(3)
        .says("container whoami-prod: its slice is system.slice, planned is homelab-prod.slice");
    pi.homelab("env-up --env prod")
        .exits(0)
        .says("replaced container whoami-prod");
    let slice = "docker inspect -f '{{.HostConfig.CgroupParent}}' whoami-prod";
    assert_eq!(pi.sh(slice), "homelab-prod.slice\n");
}

fn what_was_done_to_a_container_is_undone(suite: &str) {
    let loan = both_up(suite);
    let (home, pi) = loan.parts();
    let mac = "docker exec whoami-prod sh -c 'cat /sys/class/net/eth*/address'";
    let planned = pi.sh(mac);
    // Engine 28 draws another hardware address then; older ones derive it from the address.
    pi.sh("docker network disconnect homelab-prod whoami-prod; docker network connect --ip 192.168.1.200 homelab-prod whoami-prod");
    if pi.sh(mac) == planned {
        pi.homelab("status").exits(0);
    } else {
        is_repaired(
            pi,
            "its hardware address is",
            "replaced container whoami-prod",
        );
        assert_eq!(pi.sh(mac), planned);
    }
    pi.sh("docker pause whoami-prod");
    pi.homelab("verify")
        .exits(3)
        .says("whoami-prod")
        .says("paused");
    is_repaired(
        pi,
        "container whoami-prod: its state is paused, planned is running",
        "unpaused container whoami-prod",
    );
    // One that lost its network can be started, and nobody reaches it.
    pi.sh("docker network disconnect homelab-prod whoami-prod");
    pi.homelab("verify").exits(3).says("whoami-prod");
    is_repaired(
        pi,
        "container whoami-prod: its network homelab-prod is missing",
        "whoami-prod",
    );
    assert_eq!(
        home.laptop.page(lan(200)).as_deref(),
        Some("whoami of prod")
    );
    pi.homelab("verify").exits(0);
}
