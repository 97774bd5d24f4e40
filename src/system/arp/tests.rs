//! Against real links of the kernel: who hears and answers what, between network namespaces that are there for a test alone.

use super::*;
use crate::system::netlink::tests::in_a_namespace;
use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// A network namespace beside that of the test, there as long as a process that sleeps in it.
struct Namespace {
    holder: Child,
}

impl Namespace {
    /// Makes one that has `links` of the test's.
    fn with(links: &[&str]) -> Self {
        let holder = Command::new("unshare")
            .args(["--net", "sleep", "120"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let holder = holder.unwrap_or_else(|error| unreachable!("unshare: {error}"));
        let namespace = Self { holder };
        let own = std::fs::read_link("/proc/self/ns/net").ok();
        while std::fs::read_link(namespace.path()).ok() == own {
            std::thread::sleep(Duration::from_millis(1));
        }
        for link in links {
            run(&format!(
                "ip link set {link} netns {}",
                namespace.holder.id()
            ));
        }
        namespace
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.holder.id())
    }

    /// Runs lines of a shell in it.
    fn run(&self, script: &str) -> String {
        output(Command::new("nsenter").args([
            &format!("--net={}", self.path()),
            "sh",
            "-ec",
            script,
        ]))
    }

    /// Waits in it, on a thread of its own, for what is done there.
    fn wait_for<T: Send>(&self, act: impl AsyncFnOnce() -> T + Send) -> T {
        let path = self.path();
        let inside = move || {
            let namespace = File::open(path);
            let entered = namespace.map(|file| setns(file, CloneFlags::CLONE_NEWNET));
            assert!(matches!(entered, Ok(Ok(()))), "{entered:?}");
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime
                .unwrap_or_else(|error| unreachable!("{error}"))
                .block_on(act())
        };
        let joined = std::thread::scope(|scope| scope.spawn(inside).join());
        joined.unwrap_or_else(|_| unreachable!("a thread in a namespace failed"))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Runs lines of a shell in the namespace of the test.
fn run(script: &str) -> String {
    output(Command::new("sh").args(["-ec", script]))
}

fn output(command: &mut Command) -> String {
    let output = command.output();
    let output = output.unwrap_or_else(|error| unreachable!("{command:?}: {error}"));
    let (out, err) = (output.stdout.as_slice(), output.stderr.as_slice());
    let err = String::from_utf8_lossy(err);
    assert!(output.status.success(), "{command:?}: {err}");
    String::from_utf8_lossy(out).trim_end().to_owned()
}

fn ip(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 1, last)
}

/// The hardware address of a test's link.
fn mac(last: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, last])
}

/// Who answers for addresses: of each answer the last byte of the address and that of the hardware address.
async fn answers(link: &str, addresses: &[u8]) -> Vec<(u8, u8)> {
    let addresses: Vec<Ipv4Addr> = addresses.iter().copied().map(ip).collect();
    let found = probe(link, &addresses).await;
    let found = found.unwrap_or_else(|failure| unreachable!("{failure}"));
    let last = |answer: Answer| {
        assert_eq!(answer.mac, mac(answer.mac.0[5]));
        assert_eq!(answer.address, ip(answer.address.octets()[3]));
        (answer.address.octets()[3], answer.mac.0[5])
    };
    found.into_iter().map(last).collect()
}

/// Shows the hardware address that the table of neighbours has for .9.
const NEIGHBOUR: &str = "ip neigh show 192.168.1.9 | sed 's/.*lladdr \\([^ ]*\\) .*/\\1/'";

/// Has the table of neighbours remember somebody else who has .9.
fn remember(link: &str) -> String {
    format!("ip neigh replace 192.168.1.9 lladdr 02:00:00:00:00:99 nud stale dev {link}")
}

fn words<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    let failure = result.err();
    failure
        .map(|failure| failure.to_string())
        .unwrap_or_default()
}

#[test]
#[ignore = "needs iproute2: run tests/all.sh"]
fn who_has_an_address_answers_as_long_as_it_has_it() {
    in_a_namespace(
        "system::arp::tests::who_has_an_address_answers_as_long_as_it_has_it",
        async |_| {
            let laptop = Namespace::with(&["wire"]);
            laptop.run(
                "ip link set wire address 02:00:00:00:00:01 up; ip addr add 192.168.1.1/24 dev wire",
            );
            assert_eq!(answers("eth0", &[1, 2]).await, [(1, 1)]);
            // Nobody remembers anything: neither who asked nor who was asked.
            assert_eq!(run("ip neigh"), "");
            assert_eq!(laptop.run("ip neigh"), "");
            laptop.run("ip addr del 192.168.1.1/24 dev wire");
            assert_eq!(answers("eth0", &[1, 2]).await, []);

            let begun = Instant::now();
            assert_eq!(answers("eth0", &[]).await, []);
            assert!(begun.elapsed() < Duration::from_millis(100));
        },
    );
}

#[test]
#[ignore = "needs iproute2: run tests/all.sh"]
fn all_who_have_an_address_answer() {
    in_a_namespace(
        "system::arp::tests::all_who_have_an_address_answer",
        async |_| {
            let holders = [1, 2].map(|last| {
                run(&format!(
                    "ip link add card{last} link wire address 02:00:00:00:00:0{last} type macvlan mode bridge"
                ));
                let card = format!("card{last}");
                let holder = Namespace::with(&[&card]);
                holder.run(&format!(
                    "ip addr add 192.168.1.7/24 dev {card}; ip link set {card} up"
                ));
                holder
            });
            assert_eq!(answers("eth0", &[7]).await, [(7, 1), (7, 2)]);
            let [_, second] = holders;
            drop(second);
            assert_eq!(answers("eth0", &[7]).await, [(7, 1)]);
        },
    );
}

#[test]
#[ignore = "needs iproute2: run tests/all.sh"]
fn hundreds_of_addresses_take_a_second() {
    in_a_namespace(
        "system::arp::tests::hundreds_of_addresses_take_a_second",
        async |_| {
            let laptop = Namespace::with(&["wire"]);
            laptop.run(
                "ip link set wire address 02:00:00:00:00:01 up
                 ip link set lo up
                 ip route add local 10.0.0.0/16 dev lo",
            );
            let all: Vec<Ipv4Addr> = (0..300)
                .map(|number| Ipv4Addr::from(0x0a00_0000 + number))
                .collect();
            let begun = Instant::now();
            let found = probe("eth0", &all).await.unwrap_or_default();
            let elapsed = begun.elapsed();
            let expected: Vec<Answer> = all
                .into_iter()
                .map(|address| Answer {
                    address,
                    mac: mac(1),
                })
                .collect();
            assert_eq!(found, expected);
            assert!(elapsed < Duration::from_secs(3), "it took {elapsed:?}");
            assert_eq!(run("ip neigh"), "");
        },
    );
}

#[test]
#[ignore = "needs iproute2: run tests/all.sh"]
fn an_announcement_is_believed() {
    in_a_namespace(
        "system::arp::tests::an_announcement_is_believed",
        async |_| {
            let router = Namespace::with(&["wire"]);
            router.run("ip link add switch type bridge; ip link set wire master switch up");
            router.run("ip addr add 192.168.1.1/24 dev switch; ip link set switch up");
            router.run(&remember("switch"));
            let said = announce("eth0", &[(ip(9), mac(9)), (ip(10), mac(10))]).await;
            assert_eq!(words(said), "");
            assert_eq!(router.run(NEIGHBOUR), mac(9).to_string());
            // Whom it does not remember, it does not get to know.
            assert_eq!(router.run("ip neigh show 192.168.1.10"), "");
            // The switch has learned at which port the owner is.
            let ports = router.run("bridge fdb show br switch dynamic");
            let port = format!("{} dev wire", mac(9));
            assert!(ports.contains(&port), "{ports}");
            assert_eq!(run("ip neigh"), "");

            router.run("echo 1 > /proc/sys/net/ipv4/conf/switch/arp_accept");
            assert_eq!(words(announce("eth0", &[(ip(10), mac(10))]).await), "");
            let learned = router.run("ip neigh show 192.168.1.10");
            assert!(learned.contains(&mac(10).to_string()), "{learned}");
            assert_eq!(words(announce("eth0", &[]).await), "");
        },
    );
}

/// A home: this machine is .204 and its shim .254, its container is .200, and the laptop is .50.
fn home() -> (Namespace, Namespace) {
    let laptop = Namespace::with(&["wire"]);
    laptop
        .run("ip link set wire address 02:00:00:00:00:50 up; ip addr add 192.168.1.50/24 dev wire");
    run(
        "ip link set eth0 address 02:00:00:00:00:04; ip addr add 192.168.1.204/24 dev eth0
         ip link add shim link eth0 address 02:00:00:00:00:54 type macvlan mode bridge
         ip addr add 192.168.1.254/32 dev shim; ip link set shim up
         ip route add 192.168.1.192/26 dev shim src 192.168.1.254
         echo 1 > /proc/sys/net/ipv4/conf/shim/arp_filter
         ip link add card link eth0 address 02:00:00:00:00:20 type macvlan mode bridge",
    );
    let container = Namespace::with(&["card"]);
    container.run("ip addr add 192.168.1.200/24 dev card; ip link set card up");
    (laptop, container)
}

#[test]
#[ignore = "needs iproute2: run tests/all.sh"]
fn who_hears_a_probe() {
    in_a_namespace("system::arp::tests::who_hears_a_probe", async |_| {
        let (laptop, container) = home();
        let all = [50, 200, 204, 254];
        let both = async { tokio::join!(answers("shim", &all), answers("eth0", &all)) };
        let (by_shim, by_parent) = both.await;
        assert_eq!(by_shim, [(50, 0x50), (200, 0x20)]);
        assert_eq!(by_parent, [(50, 0x50)]);
        // Of a host with a shim, both links answer for both addresses, in spite of `arp_filter`.
        let by_laptop = laptop.wait_for(async || answers("wire", &all).await);
        let host = [(204, 0x04), (204, 0x54), (254, 0x04), (254, 0x54)];
        assert_eq!(by_laptop, [[(200, 0x20)].as_slice(), &host].concat());
        let by_container = container.wait_for(async || answers("card", &all).await);
        assert_eq!(by_container, [(50, 0x50), (204, 0x54), (254, 0x54)]);
        assert_eq!(run("ip neigh"), "");
    });
}

#[test]
#[ignore = "needs iproute2: run tests/all.sh"]
fn who_hears_an_announcement() {
    in_a_namespace(
        "system::arp::tests::who_hears_an_announcement",
        async |_| {
            let (laptop, container) = home();
            let (before, now) = (mac(0x99).to_string(), mac(9).to_string());
            for (link, by_container) in [("shim", &now), ("eth0", &before)] {
                run(&remember("shim"));
                laptop.run(&remember("wire"));
                container.run(&remember("card"));
                assert_eq!(words(announce(link, &[(ip(9), mac(9))]).await), "");
                assert_eq!(laptop.run(NEIGHBOUR), now, "by {link}");
                assert_eq!(&container.run(NEIGHBOUR), by_container, "by {link}");
                assert_eq!(run(NEIGHBOUR), before, "by {link}");
            }
            // The shim hears what others say.
            let said = container.wait_for(async || announce("card", &[(ip(9), mac(9))]).await);
            assert_eq!(words(said), "");
            assert_eq!(run(NEIGHBOUR), now);
        },
    );
}

/// The kernel takes the tag of a VLAN off before a packet socket gets the frame.
#[test]
#[ignore = "needs iproute2: run tests/all.sh"]
fn a_vlan_is_another_lan() {
    in_a_namespace("system::arp::tests::a_vlan_is_another_lan", async |_| {
        let laptop = Namespace::with(&["wire"]);
        laptop.run("ip link set wire up");
        let untagged = frame::announcement(mac(9), ip(9));
        let (addresses, packet) = untagged.split_at(12);
        let tagged = [addresses, &[0x81, 0x00, 0x00, 0x0a], packet].concat();
        for (frame, expected) in [(untagged, vec![(9, 9)]), (tagged, vec![])] {
            let speak = async || {
                let socket = ArpSocket::open("wire", ANNOUNCE)?;
                socket.send_all(&[frame]).await
            };
            let speak_meanwhile = async {
                sleep(Duration::from_millis(100)).await;
                assert_eq!(words(laptop.wait_for(speak)), "");
            };
            let (heard, ()) = tokio::join!(answers("eth0", &[9]), speak_meanwhile);
            assert_eq!(heard, expected);
        }
    });
}

#[test]
#[ignore = "needs iproute2: run tests/all.sh"]
fn refusals_are_sentences() {
    in_a_namespace("system::arp::tests::refusals_are_sentences", async |_| {
        let ask = async |link: &str| words(probe(link, &[ip(1)]).await);
        assert_eq!(ask("eth7").await, "there is no link `eth7`");
        let said = words(announce("eth7", &[(ip(9), mac(9))]).await);
        assert_eq!(said, "there is no link `eth7`");
        let no_ethernet = "cannot ask the LAN who has an address: link `lo` is no Ethernet";
        assert_eq!(ask("lo").await, no_ethernet);
        let down = "cannot ask the LAN who has an address: link `eth0` is down";
        let meanwhile = async |change: &str| {
            sleep(Duration::from_millis(200)).await;
            run(change);
        };
        let (said, ()) = tokio::join!(ask("eth0"), meanwhile("ip link set eth0 down"));
        assert_eq!(said, down);
        assert_eq!(ask("eth0").await, down);
        // Without a carrier.
        run("ip link set eth0 up; ip link set wire down");
        assert_eq!(ask("eth0").await, "");
        let (said, ()) = tokio::join!(ask("eth0"), meanwhile("ip link del eth0"));
        assert_eq!(said, "there is no link `eth0`");
    });
}

#[test]
fn what_the_kernel_refuses_has_a_sentence() {
    let said = |errno: Errno| refusal(&errno.into(), "eth0", ASK);
    let permission = said(Errno::EPERM);
    assert_eq!(
        permission,
        Error::new(
            "not permitted to ask the LAN who has an address",
            "run homelab as root"
        )
    );
    assert_eq!(
        said(Errno::EAFNOSUPPORT).to_string(),
        "cannot ask the LAN who has an address: the kernel gives no packet socket"
    );
    assert_eq!(
        said(Errno::ENOMEM).to_string(),
        "the kernel refused to ask the LAN who has an address by link `eth0` (ENOMEM)"
    );
}
