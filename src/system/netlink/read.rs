//! What the kernel has: links with their addresses, and routes, as plain values.

use super::{Netlink, Refusal, dump, kernel_error, request};
use crate::error::Error;
use crate::plan::Mac;
use crate::state::{Link, Route, Way};
use futures_util::TryStreamExt as _;
use ipnet::Ipv4Net;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{
    AfSpecInet, AfSpecInet6, AfSpecUnspec, InfoData, InfoKind, InfoMacVlan, LinkAttribute,
    LinkFlags, LinkInfo, LinkMessage, MacVlanMode,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteType,
};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

/// The addresses of a link.
#[derive(Default)]
struct Addresses {
    ipv4: Vec<Ipv4Net>,
    /// Since when it has the first of them, or an IPv6 one: a link that is up has one of its own (RFC 4291, section 2.5.6).
    since: Option<u64>,
}

impl Netlink {
    /// All links with their IPv4 addresses, and the unicast IPv4 routes of the main table.
    ///
    /// # Errors
    /// When the kernel refuses or does not answer.
    pub async fn links_and_routes(&self) -> Result<(Vec<Link>, Vec<Route>), Error> {
        let messages = dump(self.handle.link().get().execute(), "list the links").await?;
        let names: BTreeMap<u32, String> = messages
            .iter()
            .map(|message| (message.header.index, name_of(message)))
            .collect();
        let seen = names.iter().map(|(index, name)| (name.clone(), *index));
        *self.seen() = seen.collect();
        let bridges: Vec<u32> = messages
            .iter()
            .filter(|message| kind_of(message) == "bridge")
            .map(|message| message.header.index)
            .collect();
        let mut addresses = self.addresses().await?;
        let links = messages
            .iter()
            .map(|message| {
                let own = addresses.remove(&message.header.index).unwrap_or_default();
                Link {
                    addressed: own.since,
                    addresses: own.ipv4,
                    ..link_of(message, &names, &bridges)
                }
            })
            .collect();
        Ok((links, self.routes(&names).await?))
    }

    /// Which way packets to addresses go: by policy routing, tables of a VPN, or a more specific route it may be another one than
    /// the main table has.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub async fn ways(
        &self,
        addresses: impl IntoIterator<Item = Ipv4Addr>,
    ) -> Result<Vec<Way>, Error> {
        let mut ways = Vec::new();
        for address in addresses {
            let mut question = RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(address, 32)
                .build();
            question.header.flags |= RouteFlags::LookupTable;
            let mut answers = self.handle.route().get(question).execute();
            let answer = match request(answers.try_next()).await {
                Ok(answer) => answer,
                // Unreachable, or forbidden by a rule.
                Err(Refusal::Because(_)) => None,
                Err(refusal) => return Err(kernel_error(&refusal, "say which way packets go")),
            };
            let attributes = answer.map(|answer| (answer.header.table, answer.attributes));
            let (short, attributes) = attributes.unwrap_or_default();
            let mut way = Way {
                address,
                link: None,
                table: u32::from(short),
            };
            for attribute in attributes {
                match attribute {
                    RouteAttribute::Oif(index) => way.link = Some(self.link_name(index).await?),
                    RouteAttribute::Table(table) => way.table = table,
                    _ => {}
                }
            }
            ways.push(way);
        }
        Ok(ways)
    }

    /// The name of a link: as it was seen, or of one that came since then.
    async fn link_name(&self, index: u32) -> Result<String, Error> {
        let is_it = |(name, seen): (&String, &u32)| (*seen == index).then(|| name.clone());
        let seen = self.seen().iter().find_map(is_it);
        if let Some(name) = seen {
            return Ok(name);
        }
        let question = self.handle.link().get().match_index(index);
        let messages = dump(question.execute(), "name a link").await?;
        Ok(messages.iter().map(name_of).collect())
    }

    /// The addresses of each link, by its number.
    async fn addresses(&self) -> Result<BTreeMap<u32, Addresses>, Error> {
        let messages = dump(self.handle.address().get().execute(), "list the addresses").await?;
        let mut all: BTreeMap<u32, Addresses> = BTreeMap::new();
        for message in messages {
            let of_link = all.entry(message.header.index).or_default();
            for attribute in message.attributes {
                match attribute {
                    // IFA_LOCAL is the own address; IFA_ADDRESS is the peer's on a point-to-point link.
                    AddressAttribute::Local(IpAddr::V4(address)) => {
                        let net = Ipv4Net::new(address, message.header.prefix_len).ok();
                        of_link.ipv4.extend(net);
                    }
                    // `ifa_cacheinfo` of linux/if_addr.h: `cstamp` is when it came, in hundredths of a second since the boot.
                    AddressAttribute::CacheInfo(info) => {
                        let since = u64::from(info.cstamp);
                        of_link.since = Some(of_link.since.map_or(since, |all| all.min(since)));
                    }
                    _ => {}
                }
            }
        }
        Ok(all)
    }

    async fn routes(&self, names: &BTreeMap<u32, String>) -> Result<Vec<Route>, Error> {
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
            LinkAttribute::Address(bytes) => {
                link.mac = <[u8; 6]>::try_from(bytes.as_slice()).ok().map(Mac);
            }
            LinkAttribute::IfAlias(alias) if !alias.is_empty() => {
                link.alias = Some(alias.clone());
            }
            LinkAttribute::Mtu(mtu) => link.mtu = Some(*mtu),
            LinkAttribute::LinkInfo(infos) => link.mode = mode_of(infos),
            LinkAttribute::AfSpecUnspec(families) => {
                link.arp_filter = has_arp_filter(families);
                link.ipv6 = has_ipv6(families);
            }
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

/// Whether a link takes part in IPv6. A link or a kernel without it says nothing of it.
fn has_ipv6(families: &[AfSpecUnspec]) -> bool {
    families.iter().any(|family| match family {
        AfSpecUnspec::Inet6(inet) => inet.iter().any(
            |settings| matches!(settings, AfSpecInet6::DevConf(settings) if settings.disable_ipv6 == 0),
        ),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtnetlink::packet_route::link::Inet6DevConf;

    fn message(attributes: Vec<LinkAttribute>) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.attributes = attributes;
        message.header.flags = LinkFlags::Up;
        message
    }

    fn names() -> BTreeMap<u32, String> {
        [(2, "eth0"), (3, "br0")]
            .map(|(index, name)| (index, name.to_owned()))
            .into()
    }

    #[test]
    fn a_macvlan_has_a_mode_and_a_parent() {
        let modes = [
            (MacVlanMode::Bridge, "bridge"),
            (MacVlanMode::Private, "private"),
            (MacVlanMode::Vepa, "vepa"),
            (MacVlanMode::Passthrough, "passthru"),
            (MacVlanMode::Source, "source"),
        ];
        for (mode, word) in modes {
            let link = link_of(
                &message(vec![
                    LinkAttribute::IfName("homelab-shim".to_owned()),
                    LinkAttribute::Link(2),
                    LinkAttribute::Address(vec![2, 0x42, 192, 168, 1, 254]),
                    LinkAttribute::IfAlias("homelab: shim".to_owned()),
                    LinkAttribute::LinkInfo(vec![
                        LinkInfo::Kind(InfoKind::MacVlan),
                        LinkInfo::Data(InfoData::MacVlan(vec![InfoMacVlan::Mode(mode)])),
                    ]),
                ]),
                &names(),
                &[],
            );
            assert_eq!(link.mode.as_deref(), Some(word));
            assert_eq!(
                (link.name.as_str(), link.kind.as_str()),
                ("homelab-shim", "macvlan")
            );
            assert_eq!(link.parent.as_deref(), Some("eth0"));
            assert_eq!(
                link.mac.map(|mac| mac.to_string()).as_deref(),
                Some("02:42:c0:a8:01:fe")
            );
            assert!(link.is_ours() && link.up && !link.carrier && !link.arp_filter);
        }
    }

    #[test]
    fn a_link_takes_part_in_ipv6_unless_that_is_off_or_the_kernel_has_none() {
        let with = |families| message(vec![LinkAttribute::AfSpecUnspec(families)]);
        let has_ipv6 = |families| link_of(&with(families), &names(), &[]).ipv6;
        let mut settings = Inet6DevConf::default();
        let of = |settings| vec![AfSpecUnspec::Inet6(vec![AfSpecInet6::DevConf(settings)])];
        assert!(has_ipv6(of(settings)));
        settings.disable_ipv6 = 1;
        assert!(!has_ipv6(of(settings)));
        assert!(!has_ipv6(vec![AfSpecUnspec::Inet(Vec::new())]));
    }

    #[test]
    fn only_a_bridge_has_ports() {
        let port = message(vec![
            LinkAttribute::Controller(3),
            LinkAttribute::IfAlias(String::new()),
            // Of Infiniband.
            LinkAttribute::Address(vec![0; 20]),
        ]);
        let link = link_of(&port, &names(), &[3]);
        assert_eq!(link.bridge.as_deref(), Some("br0"));
        assert_eq!((link.mac, link.alias), (None, None));
        assert_eq!(link_of(&port, &names(), &[]).bridge, None);
    }
}
