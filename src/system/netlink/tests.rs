//! Against real links of the kernel, in a network namespace that an ordinary user may make.

use super::*;
use crate::state::Link;
use rtnetlink::LinkVeth;

const MARK: &str = "HOMELAB_TEST_IN_NAMESPACE";

/// Runs a test again in namespaces of its own, where a pair of links, `eth0` and `wire`, is all that there is.
pub fn in_a_namespace(test: &str, body: impl AsyncFnOnce(Netlink)) {
    if std::env::var_os(MARK).is_none() {
        let program = std::env::current_exe().unwrap_or_default();
        let output = std::process::Command::new("unshare")
            .args(["--user", "--map-root-user", "--net"])
            .arg(program)
            .args(["--nocapture", "--include-ignored", "--exact", test])
            .env(MARK, "yes")
            .output();
        let output = output.unwrap_or_else(|error| unreachable!("unshare: {error}"));
        let stdout = String::from_utf8_lossy(&output.stdout);
        let stderr = String::from_utf8_lossy(&output.stderr);
        let passed = output.status.success() && stdout.contains("1 passed");
        assert!(passed, "{stdout}{stderr}");
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.unwrap_or_else(|error| unreachable!("{error}"));
    runtime.block_on(async {
        let netlink = Netlink::connect().unwrap_or_else(|failure| unreachable!("{failure}"));
        let veth = netlink
            .handle
            .link()
            .add(LinkVeth::new("eth0", "wire").build());
        assert_eq!(veth.execute().await, Ok(()));
        for name in ["wire", "eth0"] {
            assert_eq!(words(netlink.set_up(name).await), "");
        }
        body(netlink).await;
    });
}

/// The sentence of a failure, empty for none.
pub fn words(result: Result<(), Error>) -> String {
    result
        .err()
        .map(|failure| failure.to_string())
        .unwrap_or_default()
}

async fn link(netlink: &Netlink, name: &str) -> Link {
    let links = netlink.links_and_routes().await.unwrap_or_default().0;
    let found = links.into_iter().find(|link| link.name == name);
    let mut found = found.unwrap_or_else(|| unreachable!("there is no {name}"));
    let since = found.addressed.take();
    // What the kernel begins with is what the machine has.
    found.ipv6 = false;
    // One that is up has an IPv6 address of its own, where the kernel has IPv6.
    assert!(since.is_some() || found.addresses.is_empty());
    found
}

fn net(text: &str) -> Ipv4Net {
    text.parse().unwrap_or_default()
}

#[test]
fn what_is_made_is_what_is_read() {
    in_a_namespace(
        "system::netlink::tests::what_is_made_is_what_is_read",
        async |netlink| {
            let mac = Mac([0x02, 0x42, 0xc0, 0xa8, 0x01, 0xfe]);
            assert_eq!(words(netlink.add_macvlan("shim", "eth0", mac).await), "");
            let mut expected = Link {
                name: "shim".to_owned(),
                kind: "macvlan".to_owned(),
                mode: Some("bridge".to_owned()),
                parent: Some("eth0".to_owned()),
                mac: Some(mac),
                mtu: Some(1500),
                ..Link::default()
            };
            assert_eq!(link(&netlink, "shim").await, expected);
            assert_eq!(words(netlink.set_mtu("shim", 1400).await), "");
            expected.mtu = Some(1400);
            assert_eq!(link(&netlink, "shim").await, expected);

            assert_eq!(words(netlink.set_alias("shim", "homelab: shim").await), "");
            assert_eq!(words(netlink.set_arp_filter("shim").await), "");
            let address = net("192.168.1.254/32");
            assert_eq!(words(netlink.add_address("shim", address).await), "");
            assert_eq!(words(netlink.set_up("shim").await), "");
            expected.alias = Some("homelab: shim".to_owned());
            expected.arp_filter = true;
            expected.addresses = vec![address];
            (expected.up, expected.carrier) = (true, true);
            assert_eq!(link(&netlink, "shim").await, expected);

            let route = Route {
                destination: net("192.168.1.192/26"),
                link: "shim".to_owned(),
                source: Some(address.addr()),
                gateway: None,
                metric: 0,
            };
            assert_eq!(words(netlink.add_route(&route).await), "");
            let routes = netlink.links_and_routes().await.unwrap_or_default().1;
            assert_eq!(routes, std::slice::from_ref(&route));
            for _ in 0..2 {
                assert_eq!(words(netlink.delete_route(&route).await), "");
                assert_eq!(netlink.links_and_routes().await.unwrap_or_default().1, []);
            }
            for _ in 0..2 {
                assert_eq!(words(netlink.delete_link("shim").await), "");
            }
            let names: Vec<String> = netlink
                .links_and_routes()
                .await
                .unwrap_or_default()
                .0
                .into_iter()
                .map(|l| l.name)
                .collect();
            assert!(!names.contains(&"shim".to_owned()), "{names:?}");
        },
    );
}

#[test]
fn ipv6_of_a_link_is_turned_off() {
    in_a_namespace(
        "system::netlink::tests::ipv6_of_a_link_is_turned_off",
        async |netlink| {
            let has_ipv6 = async || {
                let links = netlink.links_and_routes().await.unwrap_or_default().0;
                links.iter().any(|link| link.name == "eth0" && link.ipv6)
            };
            // A machine without IPv6, or one that lets nobody change its settings, has nothing to show.
            let has_switch = Netlink::has_ipv6_switch();
            assert_eq!(
                has_ipv6().await,
                std::path::Path::new("/proc/sys/net/ipv6").exists()
            );
            for _ in 0..2 {
                assert_eq!(words(disable_ipv6("eth0")).is_empty(), has_switch);
                assert!(!has_switch || !has_ipv6().await);
            }
            if has_switch {
                assert_eq!(
                    words(disable_ipv6("shim")),
                    "cannot turn IPv6 of link `shim` off: the link is gone"
                );
            }
        },
    );
}

#[test]
fn refusals_are_sentences() {
    in_a_namespace(
        "system::netlink::tests::refusals_are_sentences",
        async |netlink| {
            let mac = Mac([0x02, 0x42, 0xc0, 0xa8, 0x01, 0xfe]);
            assert_eq!(
                words(netlink.add_macvlan("shim", "eth7", mac).await),
                "there is no link `eth7`"
            );
            assert_eq!(
                words(netlink.add_macvlan("shim", "lo", mac).await),
                "`lo` cannot carry macvlan links"
            );
            assert_eq!(words(netlink.add_macvlan("shim", "eth0", mac).await), "");
            assert_eq!(
                words(netlink.add_macvlan("shim", "eth0", mac).await),
                "cannot make link `shim` on `eth0`: it is there already"
            );
            assert_eq!(words(netlink.set_up("shim").await), "");
            assert_eq!(words(netlink.add_macvlan("twin", "eth0", mac).await), "");
            assert_eq!(
                words(netlink.set_up("twin").await),
                "link `twin` cannot go up: a link on the same parent has its hardware address"
            );
            let address = net("192.168.1.254/32");
            assert_eq!(words(netlink.add_address("shim", address).await), "");
            assert_eq!(
                words(netlink.add_address("shim", address).await),
                "cannot give `192.168.1.254/32` to link `shim`: it is there already"
            );
            let route = Route {
                destination: net("192.168.1.192/26"),
                link: "shim".to_owned(),
                source: None,
                gateway: None,
                metric: 0,
            };
            assert_eq!(words(netlink.add_route(&route).await), "");
            assert_eq!(
                words(netlink.add_route(&route).await),
                "there is another route to 192.168.1.192/26"
            );
        },
    );
}
