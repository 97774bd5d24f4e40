//! Where a service is on the network: on the home network with an address, on bridges, or in the network of another. Pure.

use super::reader::Context;
use super::{Link, Service};
use crate::input::compose::Project;
use crate::input::fields::{Fields, Named, integer};
use crate::input::node::{Node, Value};
use crate::input::problem::{Problem, Span, suggestion};
use crate::plan::{Problems, network_name};
use ipnet::Ipv4Net;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use toml::Spanned;

/// The option by which the Engine is told what an interface is called in its container (moby pull request 49155).
pub const INTERFACE_NAME: &str = "com.docker.network.endpoint.ifname";

/// A place on a network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attachment {
    /// The Engine's name of the network.
    pub network: String,
    /// Further names there.
    pub aliases: Vec<String>,
    /// A fixed address there.
    pub ipv4: Option<String>,
    /// A fixed address there.
    pub ipv6: Option<String>,
    /// Addresses of its link alone.
    pub link_local: Vec<String>,
    /// A hardware address there.
    pub mac: Option<String>,
    /// Which network has the default route: that with the highest.
    pub gw_priority: Option<i64>,
    /// Options of the driver.
    pub options: BTreeMap<String, String>,
}

impl Attachment {
    /// What is set beside names and addresses.
    pub(super) fn settings(&self) -> Option<String> {
        let Self {
            network: _,
            aliases: _,
            ipv4: _,
            ipv6: _,
            link_local,
            mac: _,
            gw_priority,
            options,
        } = self;
        let is_set = !link_local.is_empty() || gw_priority.is_some() || !options.is_empty();
        is_set.then(|| format!("{link_local:?} {gw_priority:?} {options:?}"))
    }

    /// All that makes it different from another one.
    pub(super) fn text(&self) -> String {
        let Self {
            network,
            aliases,
            ipv4,
            ipv6,
            link_local,
            mac,
            gw_priority,
            options,
        } = self;
        format!(
            "{network} {aliases:?} {ipv4:?} {ipv6:?} {link_local:?} {mac:?} {gw_priority:?} {options:?}"
        )
    }
}

/// The names under which a project's files know the home network: networks of the macvlan driver, those with the home's
/// own subnet, those on which a service has an address of the home, and the one that homelab makes.
pub(in crate::plan) fn lan_keys(
    project: &Project,
    env: &str,
    subnet: Option<Ipv4Net>,
) -> BTreeSet<String> {
    let is_home = |address: &str| {
        let address = address.parse::<Ipv4Addr>().ok();
        address.is_some_and(|address| subnet.is_some_and(|subnet| subnet.contains(&address)))
    };
    let mut keys = BTreeSet::new();
    for entry in &project.networks.0 {
        let text = |key| entry.node.get(key).and_then(Node::scalar);
        let driver = text("driver");
        let pools = entry.node.get("ipam").and_then(|ipam| ipam.get("config"));
        let shares_subnet = pools
            .and_then(Node::as_list)
            .into_iter()
            .flatten()
            .any(|pool| {
                let net = pool.get("subnet").and_then(Node::scalar);
                net.and_then(|net| net.split('/').next().map(is_home))
                    .unwrap_or(false)
            });
        if matches!(driver.as_deref(), Some("macvlan" | "ipvlan"))
            || shares_subnet
            || text("name").is_some_and(|name| name == network_name(env))
        {
            keys.insert(entry.key.clone());
        }
    }
    for service in &project.services.0 {
        let networks = service.node.get("networks").and_then(Node::as_map);
        for network in networks.into_iter().flat_map(|map| &map.0) {
            let address = network.node.get("ipv4_address").and_then(Node::scalar);
            if address.is_some_and(|address| is_home(&address)) {
                keys.insert(network.key.clone());
            }
        }
    }
    keys
}

/// Reads where a service is into it; returns its address on the home network.
pub(super) fn read(
    fields: &mut Fields,
    service: &mut Service,
    context: &Context,
    problems: &mut Problems,
) -> Option<Spanned<Ipv4Addr>> {
    let mac = fields.text("mac_address", problems).map(|(mac, _)| mac);
    let mode = fields.text("network_mode", problems);
    let networks = fields.named("networks", problems);
    service.links = links(fields, problems);
    if let Some((mode, span)) = mode {
        if !networks.is_empty() {
            let what = "`network_mode` and `networks` cannot stand together".to_owned();
            problems.push(Problem::error(span.clone(), what).hint("keep one of the two"));
        }
        let is_known = matches!(mode.as_str(), "host" | "none" | "bridge")
            || mode.starts_with("service:")
            || mode.starts_with("container:");
        if !is_known {
            let what = format!("`{mode}` is no network mode");
            problems.push(
                Problem::error(span, what)
                    .hint("use `host`, `none`, `service:NAME` or `container:NAME`; networks go under `networks`"),
            );
        }
        service.network_mode = Some(mode);
        service.ports = ports(fields, problems);
        return None;
    }
    let mut address = None;
    let is_bridge = |key: &str| context.networks.iter().any(|network| network.key == key);
    if networks.is_empty() && !is_bridge("default") {
        service.is_on_lan = true;
    }
    let usual = [Named {
        name: "default".to_owned(),
        span: service.span.clone(),
        node: None,
    }];
    let networks = if networks.is_empty() && !service.is_on_lan {
        usual.to_vec()
    } else {
        networks
    };
    for network in networks {
        let (attachment, ipv4) = attachment(fields, &network, problems);
        let is_home = context.lan.contains(&network.name)
            || (network.name == "default" && !is_bridge("default"));
        if is_home {
            service.is_on_lan = true;
            if let Some((text, span)) = ipv4 {
                match text.parse() {
                    Ok(parsed) => address = Some(Spanned::new(span, parsed)),
                    Err(_) => problems.push(
                        Problem::error(span, format!("`{text}` is not an IPv4 address"))
                            .hint("four numbers from 0 to 255, like `192.168.1.200`"),
                    ),
                }
            }
            if attachment.ipv6.is_some() {
                let what = "homelab plans IPv4 addresses only".to_owned();
                problems.push(Problem::error(network.span, what).hint("take `ipv6_address` out"));
            }
            service.home = with_more(attachment, std::mem::take(&mut service.home));
            continue;
        }
        let Some(known) = context
            .networks
            .iter()
            .find(|known| known.key == network.name)
        else {
            let known = context.networks.iter().map(|network| network.key.as_str());
            let hint = if context.networks.is_empty() {
                format!(
                    "add `{}:` under `networks` of the Compose file",
                    network.name
                )
            } else {
                suggestion(&network.name, known, "networks")
            };
            let what = format!("there is no network `{}`", network.name);
            problems.push(Problem::error(network.span, what).hint(hint));
            continue;
        };
        service.networks.push(Attachment {
            network: known.name.clone(),
            ipv4: ipv4.map(|(text, _)| text),
            ..attachment
        });
    }
    service.networks.sort_by(|a, b| a.network.cmp(&b.network));
    if service.is_on_lan {
        service.home.mac = service.home.mac.take().or(mac);
        service.has_idle_ports = fields.take("ports").is_some();
    } else {
        if let (Some(mac), Some(first)) = (mac, service.networks.first_mut()) {
            first.mac.get_or_insert(mac);
        }
        service.ports = ports(fields, problems);
    }
    address
}

/// What a file says twice about the home network, under two names for it: the later one wins.
fn with_more(mut later: Attachment, mut earlier: Attachment) -> Attachment {
    earlier.aliases.append(&mut later.aliases);
    later.mac = later.mac.or(earlier.mac);
    later.gw_priority = later.gw_priority.or(earlier.gw_priority);
    later.link_local.append(&mut earlier.link_local);
    earlier.options.append(&mut later.options);
    Attachment {
        aliases: earlier.aliases,
        options: earlier.options,
        ..later
    }
}

fn attachment(
    fields: &Fields,
    network: &Named,
    problems: &mut Problems,
) -> (Attachment, Option<(String, Span)>) {
    let path = format!("{}.networks.{}", fields.path, network.name);
    let mut keys = Fields::new(path, network.node.and_then(Node::as_map));
    let words = |list: Option<Vec<(String, Span)>>| -> Vec<String> {
        list.into_iter().flatten().map(|(word, _)| word).collect()
    };
    let ipv4 = keys.text("ipv4_address", problems);
    let mut options = keys.pairs("driver_opts", problems);
    if let Some((name, _)) = keys.text("interface_name", problems) {
        options.insert(INTERFACE_NAME.to_owned(), name);
    }
    let attachment = Attachment {
        network: String::new(),
        aliases: words(keys.list("aliases", problems)),
        ipv4: None,
        ipv6: keys.text("ipv6_address", problems).map(|(text, _)| text),
        link_local: words(keys.list("link_local_ips", problems)),
        mac: keys.text("mac_address", problems).map(|(text, _)| text),
        gw_priority: keys.integer("gw_priority", problems),
        options,
    };
    // The order in which Compose attaches networks, which is by name here.
    keys.leave_alone(&["priority"]);
    keys.finish(|_| None, problems);
    (attachment, ipv4)
}

fn links(fields: &mut Fields, problems: &mut Problems) -> Vec<Link> {
    let links = fields.list("links", problems).unwrap_or_default();
    let split = |(text, _): (String, Span)| {
        let (service, alias) = text.split_once(':').unwrap_or((&text, &text));
        Link {
            service: service.to_owned(),
            alias: alias.to_owned(),
        }
    };
    links.into_iter().map(split).collect()
}

/// Ports of the host, by port and protocol of the container: address and port each.
fn ports(fields: &mut Fields, problems: &mut Problems) -> BTreeMap<String, Vec<(String, String)>> {
    let path = format!("{}.ports", fields.path);
    let mut all: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    for item in fields.items("ports", problems) {
        let read = match &item.value {
            Value::Map(map) => {
                let mut keys = Fields::new(path.as_str(), Some(map));
                let read = long_port(&mut keys, problems);
                keys.leave_alone(&["name", "mode", "app_protocol"]);
                keys.finish(|_| None, problems);
                read
            }
            _ => item.scalar().and_then(|text| short_port(&text)),
        };
        let Some(ports) = read else {
            problems.push(
                Problem::error(item.span.clone(), "this is not a port")
                    .hint("write `8080:80`, `127.0.0.1:8080:80` or `53:53/udp`"),
            );
            continue;
        };
        for (inside, host, outside) in ports {
            all.entry(inside).or_default().push((host, outside));
        }
    }
    all
}

/// A port of the container with its protocol, an address of the host, a port of the host; the last two may be empty.
type Port = (String, String, String);

fn long_port(keys: &mut Fields, problems: &mut Problems) -> Option<Vec<Port>> {
    let target = keys.take("target").and_then(integer)?;
    let protocol = keys.text("protocol", problems).map(|(text, _)| text);
    let protocol = protocol.unwrap_or_else(|| "tcp".to_owned());
    let host = keys.text("host_ip", problems).map(|(text, _)| text);
    let published = keys.text("published", problems).map(|(text, _)| text);
    let port = format!("{target}/{protocol}");
    Some(vec![(
        port,
        host.unwrap_or_default(),
        published.unwrap_or_default(),
    )])
}

fn short_port(text: &str) -> Option<Vec<Port>> {
    let (text, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (rest, inside) = text.rsplit_once(':').unwrap_or(("", text));
    let (host, outside) = rest.rsplit_once(':').unwrap_or(("", rest));
    let range = |text: &str| -> Option<std::ops::RangeInclusive<u16>> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (first.parse().ok()?, last.parse().ok()?);
        (first <= last).then_some(first..=last)
    };
    let inside = range(inside)?;
    let host = host.trim_matches(['[', ']']);
    if outside.is_empty() {
        let port = |inside| {
            (
                format!("{inside}/{protocol}"),
                host.to_owned(),
                String::new(),
            )
        };
        return Some(inside.map(port).collect());
    }
    let from = range(outside)?;
    if inside.len() == 1 && from.len() > 1 {
        // The Engine takes a free one of them.
        let port = format!("{}/{protocol}", inside.start());
        return Some(vec![(port, host.to_owned(), outside.to_owned())]);
    }
    if inside.len() != from.len() {
        return None;
    }
    let port = |(inside, outside): (u16, u16)| {
        (
            format!("{inside}/{protocol}"),
            host.to_owned(),
            outside.to_string(),
        )
    };
    Some(inside.zip(from).map(port).collect())
}
