//! The kernel's links, addresses and routes: the only user of rtnetlink. Error numbers become our own sentences here.

use crate::error::Failure;
use crate::state::{Link, Route};
use futures_util::{Stream, StreamExt as _, TryStreamExt};
use ipnet::Ipv4Net;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{
    AfSpecInet, AfSpecUnspec, InetDevConf, InfoData, InfoKind, InfoMacVlan, LinkAttribute,
    LinkFlags, LinkInfo, LinkMessage, MacVlanMode,
};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourState,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::{Error, Handle, LinkMacVlan, LinkUnspec, MulticastGroup, RouteMessageBuilder};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long the kernel may take for one request; it takes microseconds. rtnetlink drops an answer that it cannot decode,
/// and then would wait for ever.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long the LAN may take to answer for an address: the kernel asks at once and again after a second.
const ARP_PATIENCE: Duration = Duration::from_millis(1300);

/// errno(3) of the refusals that have a sentence of their own.
mod errno {
    pub(super) const PERM: i32 = 1;
    pub(super) const SRCH: i32 = 3;
    pub(super) const BUSY: i32 = 16;
    pub(super) const EXIST: i32 = 17;
    pub(super) const NODEV: i32 = 19;
    pub(super) const INVAL: i32 = 22;
    pub(super) const ADDRINUSE: i32 = 98;
    pub(super) const NETDOWN: i32 = 100;
    pub(super) const OPNOTSUPP: i32 = 95;
}

/// A connection to the kernel, for the network namespace of the thread that opened it.
#[derive(Clone)]
pub struct Netlink {
    handle: Handle,
}

impl Netlink {
    /// Opens a connection; its driver runs on the current tokio runtime.
    ///
    /// # Errors
    /// When the kernel gives no netlink socket.
    pub fn connect() -> Result<Self, Failure> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(|_| no_socket())?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// Whether this process has `CAP_NET_ADMIN` (capabilities(7)), which root has.
    pub fn may_change() -> bool {
        const NET_ADMIN: u64 = 1 << 12;
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let effective = status
            .lines()
            .find_map(|line| line.strip_prefix("CapEff:"))
            .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        effective.is_some_and(|mask| mask & NET_ADMIN != 0)
    }

    /// All links with their IPv4 addresses, and the unicast IPv4 routes of the main table.
    ///
    /// # Errors
    /// When the kernel refuses or does not answer.
    pub async fn links_and_routes(&self) -> Result<(Vec<Link>, Vec<Route>), Failure> {
        let messages = dump(self.handle.link().get().execute(), "list the links").await?;
        let names: BTreeMap<u32, String> = messages
            .iter()
            .map(|message| (message.header.index, name_of(message)))
            .collect();
        let bridges: Vec<u32> = messages
            .iter()
            .filter(|message| kind_of(message) == "bridge")
            .map(|message| message.header.index)
            .collect();
        let mut addresses = self.addresses().await?;
        let links = messages
            .iter()
            .map(|message| Link {
                addresses: addresses.remove(&message.header.index).unwrap_or_default(),
                ..link_of(message, &names, &bridges)
            })
            .collect();
        Ok((links, self.routes(&names).await?))
    }

    async fn addresses(&self) -> Result<BTreeMap<u32, Vec<Ipv4Net>>, Failure> {
        let messages = dump(self.handle.address().get().execute(), "list the addresses").await?;
        let mut all: BTreeMap<u32, Vec<Ipv4Net>> = BTreeMap::new();
        for message in messages {
            // IFA_LOCAL is the own address; IFA_ADDRESS is the peer's on a point-to-point link.
            let address = message
                .attributes
                .iter()
                .find_map(|attribute| match attribute {
                    AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
                    _ => None,
                });
            if let Some(net) = address.and_then(|a| Ipv4Net::new(a, message.header.prefix_len).ok())
            {
                all.entry(message.header.index).or_default().push(net);
            }
        }
        Ok(all)
    }

    async fn routes(&self, names: &BTreeMap<u32, String>) -> Result<Vec<Route>, Failure> {
        let question = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let messages = dump(
            self.handle.route().get(question).execute(),
            "list the routes",
        )
        .await?;
        let mut routes = Vec::new();
        for message in messages {
            if message.header.table != RouteHeader::RT_TABLE_MAIN
                || message.header.kind != RouteType::Unicast
            {
                continue;
            }
            let (mut destination, mut link, mut source, mut gateway, mut metric) =
                (Ipv4Addr::UNSPECIFIED, None, None, None, 0);
            for attribute in &message.attributes {
                match attribute {
                    RouteAttribute::Destination(RouteAddress::Inet(a)) => destination = *a,
                    RouteAttribute::PrefSource(RouteAddress::Inet(a)) => source = Some(*a),
                    RouteAttribute::Gateway(RouteAddress::Inet(a)) => gateway = Some(*a),
                    RouteAttribute::Oif(index) => link = names.get(index).cloned(),
                    RouteAttribute::Priority(priority) => metric = *priority,
                    _ => {}
                }
            }
            let destination = Ipv4Net::new(destination, message.header.destination_prefix_length);
            if let (Ok(destination), Some(link)) = (destination, link) {
                routes.push(Route {
                    destination,
                    link,
                    source,
                    gateway,
                    metric,
                });
            }
        }
        Ok(routes)
    }

    /// Makes a macvlan link in bridge mode, which is down at first.
    ///
    /// # Errors
    /// When the parent is gone, is used in a way that excludes a macvlan, or homelab may not.
    pub async fn add_macvlan(&self, name: &str, parent: &str, mac: &str) -> Result<(), Failure> {
        let message = LinkMacVlan::new(name, self.index(parent).await?, MacVlanMode::Bridge)
            .address(mac_bytes(mac))
            .build();
        let what = format!("make link `{name}` on `{parent}`");
        match answer(self.handle.link().add(message).execute()).await {
            Err(errno::BUSY) => Err(Failure::new(
                format!(
                    "`{parent}` takes no macvlan link: it is in use by a bridge, a bond or ipvlan"
                ),
                format!(
                    "`ip -d link show {parent}` tells by whom; name the bridge or bond itself as the parent"
                ),
            )),
            Err(errno::OPNOTSUPP) => Err(Failure::new(
                "this kernel has no macvlan",
                "load the module with `modprobe macvlan`, or install the kernel's extra modules",
            )),
            Err(errno::INVAL) => Err(Failure::new(
                format!("`{parent}` cannot carry macvlan links"),
                "use an Ethernet interface, a VLAN, a bond or a bridge as the parent",
            )),
            other => other.map_err(|number| refusal(number, &what)),
        }
    }

    /// Removes a link. One that is gone is no failure: a run that was killed may just have done it.
    ///
    /// # Errors
    /// When homelab may not.
    pub async fn delete_link(&self, name: &str) -> Result<(), Failure> {
        let what = format!("remove link `{name}`");
        let Some(index) = self.find(name).await? else {
            return Ok(());
        };
        match answer(self.handle.link().del(index).execute()).await {
            Ok(()) | Err(errno::NODEV) => Ok(()),
            Err(number) => Err(refusal(number, &what)),
        }
    }

    /// Writes the alias of a link.
    ///
    /// # Errors
    /// When the link is gone, or homelab may not.
    pub async fn set_alias(&self, name: &str, alias: &str) -> Result<(), Failure> {
        let message = LinkUnspec::new_with_index(self.index(name).await?).alias(alias);
        let what = format!("set the alias of link `{name}`");
        demand(self.handle.link().change(message.build()).execute(), &what).await
    }

    /// Sets a link up.
    ///
    /// # Errors
    /// When the link is gone, another one on the same parent has its hardware address, its parent is down, or homelab may
    /// not.
    pub async fn set_up(&self, name: &str) -> Result<(), Failure> {
        let message = LinkUnspec::new_with_index(self.index(name).await?).up();
        let what = format!("set link `{name}` up");
        match answer(self.handle.link().change(message.build()).execute()).await {
            Err(errno::NETDOWN) => Err(Failure::new(
                format!("link `{name}` cannot go up: its parent is down"),
                "set the parent up first",
            )),
            Err(errno::ADDRINUSE) => Err(Failure::new(
                format!(
                    "link `{name}` cannot go up: a link on the same parent has its hardware address"
                ),
                "`ip -d link` shows the hardware addresses; remove the other link",
            )),
            other => other.map_err(|number| refusal(number, &what)),
        }
    }

    /// Gives a link an address.
    ///
    /// # Errors
    /// When the link is gone or has the address already, or homelab may not.
    pub async fn add_address(&self, name: &str, address: Ipv4Net) -> Result<(), Failure> {
        let index = self.index(name).await?;
        let what = format!("give `{address}` to link `{name}`");
        let request = self
            .handle
            .address()
            .add(index, address.addr().into(), address.prefix_len());
        demand(request.execute(), &what).await
    }

    /// Makes a route of link scope, the one that `ip route add DESTINATION dev NAME src SOURCE` makes.
    ///
    /// # Errors
    /// When there is such a route already, the link is down or gone, or homelab may not.
    pub async fn add_route(&self, route: &Route) -> Result<(), Failure> {
        let what = format!("make the route to {}", route.destination);
        let message = self.route_message(route).await?;
        // Without `replace`: the kernel would replace a route of the same prefix on any other link.
        let result = answer(self.handle.route().add(message).execute()).await;
        result.map_err(|number| match number {
            errno::EXIST => Failure::new(
                format!("there is another route to {}", route.destination),
                format!("`ip route show {}` tells whose", route.destination),
            ),
            number => refusal(number, &what),
        })
    }

    /// Removes a route. One that is gone is no failure.
    ///
    /// # Errors
    /// When the link is gone, or homelab may not.
    pub async fn delete_route(&self, route: &Route) -> Result<(), Failure> {
        let what = format!("remove the route to {}", route.destination);
        let message = self.route_message(route).await?;
        match answer(self.handle.route().del(message).execute()).await {
            Ok(()) | Err(errno::SRCH) => Ok(()),
            Err(number) => Err(refusal(number, &what)),
        }
    }

    async fn route_message(
        &self,
        route: &Route,
    ) -> Result<rtnetlink::packet_route::route::RouteMessage, Failure> {
        let mut message = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(route.destination.addr(), route.destination.prefix_len())
            .output_interface(self.index(&route.link).await?)
            .scope(RouteScope::Link)
            // What `ip route add` sets.
            .protocol(RouteProtocol::Boot);
        if let Some(source) = route.source {
            message = message.pref_source(source);
        }
        Ok(message.build())
    }

    /// Turns `net.ipv4.conf.NAME.arp_filter` on: the link answers ARP only for addresses that the kernel would send from
    /// it (ip-sysctl).
    ///
    /// # Errors
    /// When the link is gone or homelab may not.
    pub async fn set_arp_filter(&self, name: &str) -> Result<(), Failure> {
        let mut settings = InetDevConf::default();
        settings.arpfilter = 1;
        let inet = AfSpecUnspec::Inet(vec![AfSpecInet::DevConfRequest(settings)]);
        let message = LinkUnspec::new_with_index(self.index(name).await?)
            .append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![inet]));
        let what = format!("set `arp_filter` of link `{name}`");
        demand(self.handle.link().set(message.build()).execute(), &what).await
    }

    /// A stream that has an item whenever a link, an IPv4 address or an IPv4 route of the kernel came, changed or went. One
    /// item may stand for many changes: who hears of one looks at everything again.
    ///
    /// # Errors
    /// When the kernel gives no netlink socket.
    pub fn changes() -> Result<impl Stream<Item = ()> + Unpin, Failure> {
        // On a connection of its own: on one that also sends requests, the echoes of its own changes are taken for answers.
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv4Route,
        ];
        let (connection, _, messages) =
            rtnetlink::new_multicast_connection(&groups).map_err(|_| no_socket())?;
        tokio::spawn(connection);
        Ok(messages.map(|_| ()))
    }

    /// Which of `addresses` somebody answers ARP for on the LAN of `link`: the kernel is told to resolve them, and its
    /// neighbour table is read (`NTF_USE` of rtnetlink(7)). Links of this machine on the same parent do not hear a question
    /// that goes out over the parent.
    ///
    /// # Errors
    /// When the link is gone, or homelab may not.
    pub async fn answering(
        &self,
        link: &str,
        addresses: &[Ipv4Addr],
    ) -> Result<Vec<Ipv4Addr>, Failure> {
        let index = self.index(link).await?;
        let what = format!("ask the LAN of link `{link}` for an address");
        for address in addresses {
            let request = self
                .handle
                .neighbours()
                .add(index, IpAddr::V4(*address))
                .state(NeighbourState::None)
                .flags(NeighbourFlags::Use)
                .replace();
            demand(request.execute(), &what).await?;
        }
        let deadline = Instant::now() + ARP_PATIENCE;
        loop {
            let answered = self.resolved(index, addresses).await?;
            if answered.len() == addresses.len() || Instant::now() >= deadline {
                return Ok(answered);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn resolved(&self, index: u32, addresses: &[Ipv4Addr]) -> Result<Vec<Ipv4Addr>, Failure> {
        let request = self
            .handle
            .neighbours()
            .get()
            .set_address_family(AddressFamily::Inet);
        let neighbours = dump(request.execute(), "list the neighbours").await?;
        let mut answered = Vec::new();
        for neighbour in neighbours {
            let is_resolved = matches!(
                neighbour.header.state,
                NeighbourState::Reachable
                    | NeighbourState::Stale
                    | NeighbourState::Delay
                    | NeighbourState::Probe
                    | NeighbourState::Permanent
            );
            if neighbour.header.ifindex != index || !is_resolved {
                continue;
            }
            for attribute in &neighbour.attributes {
                if let NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) = attribute
                    && addresses.contains(address)
                {
                    answered.push(*address);
                }
            }
        }
        Ok(answered)
    }

    async fn index(&self, name: &str) -> Result<u32, Failure> {
        self.find(name).await?.ok_or_else(|| {
            Failure::new(
                format!("there is no link `{name}`"),
                "`ip link` lists the links; something else may have removed it meanwhile",
            )
        })
    }

    /// The index of a link, when there is one of that name.
    async fn find(&self, name: &str) -> Result<Option<u32>, Failure> {
        let mut links = self.handle.link().get().match_name(name).execute();
        match answer(links.try_next()).await {
            Ok(link) => Ok(link.map(|message| message.header.index)),
            Err(errno::NODEV) => Ok(None),
            Err(number) => Err(refusal(number, &format!("find link `{name}`"))),
        }
    }
}

fn no_socket() -> Failure {
    Failure::new(
        "the kernel gives no netlink socket",
        "homelab needs a Linux kernel with networking, and AF_NETLINK when it runs under systemd's restrictions",
    )
}

/// Waits for the kernel; a refusal is its error number, and 0 stands for no answer at all.
async fn answer<T>(request: impl Future<Output = Result<T, Error>>) -> Result<T, i32> {
    match tokio::time::timeout(PATIENCE, request).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(Error::NetlinkError(message))) => Err(message.raw_code().saturating_neg()),
        Ok(Err(_)) | Err(_) => Err(0),
    }
}

/// Waits for the kernel; none of its refusals has a sentence of its own.
async fn demand<T>(
    request: impl Future<Output = Result<T, Error>>,
    what: &str,
) -> Result<T, Failure> {
    answer(request)
        .await
        .map_err(|number| refusal(number, what))
}

async fn dump<T>(
    stream: impl Stream<Item = Result<T, Error>>,
    what: &str,
) -> Result<Vec<T>, Failure> {
    demand(stream.try_collect(), what).await
}

fn refusal(number: i32, what: &str) -> Failure {
    match number {
        0 => Failure::new(
            format!("the kernel did not answer the request to {what}"),
            "run the command again; `journalctl -k` may tell more",
        ),
        errno::PERM => Failure::new(format!("not permitted to {what}"), "run homelab as root"),
        errno::EXIST => Failure::new(
            format!("cannot {what}: it is there already"),
            "something else changed it meanwhile; run the command again",
        ),
        errno::NODEV => Failure::new(
            format!("cannot {what}: the link is gone"),
            "something else removed it meanwhile; run the command again",
        ),
        number => Failure::new(
            format!("the kernel refused to {what} (error {number})"),
            format!("`errno {number}` of moreutils names the error; `journalctl -k` may tell more"),
        ),
    }
}

fn name_of(message: &LinkMessage) -> String {
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.clone()),
            _ => None,
        })
        .unwrap_or_default()
}

fn kind_of(message: &LinkMessage) -> String {
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::LinkInfo(infos) => infos.iter().find_map(|info| match info {
                LinkInfo::Kind(kind) => Some(kind.to_string()),
                _ => None,
            }),
            _ => None,
        })
        .unwrap_or_default()
}

fn mode_of(infos: &[LinkInfo]) -> Option<String> {
    let is_macvlan = infos.contains(&LinkInfo::Kind(InfoKind::MacVlan));
    infos.iter().find_map(|info| match info {
        LinkInfo::Data(InfoData::MacVlan(data)) if is_macvlan => {
            data.iter().find_map(|data| match data {
                InfoMacVlan::Mode(MacVlanMode::Bridge) => Some("bridge".to_owned()),
                InfoMacVlan::Mode(MacVlanMode::Private) => Some("private".to_owned()),
                InfoMacVlan::Mode(MacVlanMode::Vepa) => Some("vepa".to_owned()),
                InfoMacVlan::Mode(MacVlanMode::Passthrough) => Some("passthru".to_owned()),
                InfoMacVlan::Mode(_) => Some("source".to_owned()),
                _ => None,
            })
        }
        _ => None,
    })
}

fn link_of(message: &LinkMessage, names: &BTreeMap<u32, String>, bridges: &[u32]) -> Link {
    let name = name_of(message);
    let sys = Path::new("/sys/class/net").join(&name);
    let mut link = Link {
        kind: kind_of(message),
        up: message.header.flags.contains(LinkFlags::Up),
        carrier: message.header.flags.contains(LinkFlags::LowerUp),
        wireless: sys.join("wireless").exists() || sys.join("phy80211").exists(),
        name,
        ..Link::default()
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Link(index) => link.parent = names.get(index).cloned(),
            LinkAttribute::Address(bytes) => link.mac = mac_text(bytes),
            LinkAttribute::IfAlias(alias) if !alias.is_empty() => {
                link.alias = Some(alias.clone());
            }
            LinkAttribute::LinkInfo(infos) => link.mode = mode_of(infos),
            LinkAttribute::AfSpecUnspec(families) => link.arp_filter = has_arp_filter(families),
            LinkAttribute::Controller(index) if bridges.contains(index) => {
                link.bridge = names.get(index).cloned();
            }
            _ => {}
        }
    }
    link
}

fn has_arp_filter(families: &[AfSpecUnspec]) -> bool {
    families.iter().any(|family| match family {
        AfSpecUnspec::Inet(inet) => inet.iter().any(
            |settings| matches!(settings, AfSpecInet::DevConf(settings) if settings.arpfilter == 1),
        ),
        _ => false,
    })
}

fn mac_text(bytes: &[u8]) -> String {
    let parts: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    parts.join(":")
}

fn mac_bytes(text: &str) -> Vec<u8> {
    text.split(':')
        .filter_map(|part| u8::from_str_radix(part, 16).ok())
        .collect()
}

#[cfg(test)]
pub mod tests {
    //! Against real links of the kernel, in a network namespace that an ordinary user may make.

    use super::*;
    use rtnetlink::LinkVeth;

    const MARK: &str = "HOMELAB_TEST_IN_NAMESPACE";

    /// Runs a test again in namespaces of its own, where a pair of links, `eth0` and `wire`, is all that there is.
    pub fn in_a_namespace(test: &str, body: impl AsyncFnOnce(Netlink)) {
        if std::env::var_os(MARK).is_none() {
            let program = std::env::current_exe().unwrap_or_default();
            let output = std::process::Command::new("unshare")
                .args(["--user", "--map-root-user", "--net"])
                .arg(program)
                .args(["--nocapture", "--exact", test])
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
    fn words(result: Result<(), Failure>) -> String {
        result
            .err()
            .map(|failure| failure.to_string())
            .unwrap_or_default()
    }

    async fn link(netlink: &Netlink, name: &str) -> Link {
        let links = netlink.links_and_routes().await.unwrap_or_default().0;
        let found = links.into_iter().find(|link| link.name == name);
        found.unwrap_or_else(|| unreachable!("there is no {name}"))
    }

    fn net(text: &str) -> Ipv4Net {
        text.parse().unwrap_or_default()
    }

    #[test]
    fn what_is_made_is_what_is_read() {
        in_a_namespace(
            "system::netlink::tests::what_is_made_is_what_is_read",
            async |netlink| {
                let mac = "02:42:c0:a8:01:fe";
                assert_eq!(words(netlink.add_macvlan("shim", "eth0", mac).await), "");
                let mut expected = Link {
                    name: "shim".to_owned(),
                    kind: "macvlan".to_owned(),
                    mode: Some("bridge".to_owned()),
                    parent: Some("eth0".to_owned()),
                    mac: mac.to_owned(),
                    ..Link::default()
                };
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
    fn refusals_are_sentences() {
        in_a_namespace(
            "system::netlink::tests::refusals_are_sentences",
            async |netlink| {
                let mac = "02:42:c0:a8:01:fe";
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
}
