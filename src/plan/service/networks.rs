//! Where a service is on the network: on the LAN with an address, on bridges, or in the network of another. Pure.

use super::context::ServiceContext;
use super::{ComposeNetwork, Service, ServiceLink, ports};
use crate::error::Diagnostic;
use crate::input::compose::Project;
use crate::input::fields::{Fields, Named};
use crate::input::node::Node;
use crate::input::problem::{Span, suggestion};
use crate::plan::naming::network_name;
use crate::plan::{Mac, Problems, Written};
use ipnet::Ipv4Net;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
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
    /// A fixed IPv4 address there.
    pub ipv4: Option<Written<Ipv4Addr>>,
    /// A fixed IPv6 address there.
    pub ipv6: Option<Written<Ipv6Addr>>,
    /// Addresses of its link alone (169.254.0.0/16 or `fe80::/10`).
    pub link_local: Vec<Written<IpAddr>>,
    /// A hardware address there.
    pub mac: Option<Written<Mac>>,
    /// Which network has the default route: that with the highest.
    pub gw_priority: Option<i64>,
    /// Options of the driver.
    pub options: BTreeMap<String, String>,
}

/// The names under which a project's files know the LAN: networks of the macvlan driver, those with the LAN's
/// own subnet, those on which a service has an address of it, and the one that homelab makes.
pub(in crate::plan) fn lan_keys(
    project: &Project,
    env: &str,
    subnet: Option<Ipv4Net>,
) -> BTreeSet<String> {
    let is_on_it = |address: &str| {
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
                net.and_then(|net| net.split('/').next().map(is_on_it))
                    .unwrap_or(false)
            });
        // A container of an ipvlan network has its host's hardware address: it cannot be on a macvlan network.
        if driver.as_deref() == Some("ipvlan") {
            continue;
        }
        if driver.as_deref() == Some("macvlan")
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
            let declared = project.networks.get(&network.key);
            let driver = declared.and_then(|declared| declared.get("driver")?.scalar());
            let is_ipvlan = driver.as_deref() == Some("ipvlan");
            if !is_ipvlan && address.is_some_and(|address| is_on_it(&address)) {
                keys.insert(network.key.clone());
            }
        }
    }
    keys
}

/// Reads where a service is into it; returns its address on the LAN.
pub(super) fn read(
    fields: &mut Fields,
    service: &mut Service,
    context: &ServiceContext,
    problems: &mut Problems,
) -> Option<Spanned<Ipv4Addr>> {
    let mac = mac(fields, problems);
    let mode = fields.text("network_mode", problems);
    let networks = fields.named("networks", problems);
    service.links = links(fields, problems);
    if let Some((mode, span)) = mode {
        check_mode(&mode, &span, networks.is_empty(), problems);
        service.network_mode = Some(mode);
        service.ports = ports::read(fields, problems);
        return None;
    }
    let is_other = |key: &str| context.networks.iter().any(|network| network.key == key);
    let networks = if networks.is_empty() && is_other("default") {
        vec![Named {
            name: "default".to_owned(),
            span: service.span.clone(),
            node: None,
        }]
    } else {
        service.is_on_lan |= networks.is_empty();
        networks
    };
    let mut address = None;
    for network in networks {
        let (attachment, ipv4) = attachment(fields, &network, problems);
        let is_lan = context.lan.contains(&network.name)
            || (network.name == "default" && !is_other("default"));
        if is_lan {
            service.is_on_lan = true;
            address = lan_address(ipv4, problems).or(address);
            refuse_lan_ipv6(&attachment, &network.span, problems);
            service.lan = with_more(attachment, std::mem::take(&mut service.lan));
        } else if let Some(known) = other_network(&network, context, problems) {
            let ipv4 = ipv4.and_then(|(text, span)| ipv4_address(&text, &span, problems));
            service.networks.push(Attachment {
                network: known.name.clone(),
                ipv4,
                ..attachment
            });
        }
    }
    service.networks.sort_by(|a, b| a.network.cmp(&b.network));
    if service.is_on_lan {
        service.lan.mac = service.lan.mac.take().or(mac);
        service.has_idle_ports = fields.take("ports").is_some();
    } else {
        if let (Some(mac), Some(first)) = (mac, service.networks.first_mut()) {
            first.mac.get_or_insert(mac);
        }
        service.ports = ports::read(fields, problems);
    }
    address
}

fn refuse_lan_ipv6(attachment: &Attachment, span: &Span, problems: &mut Problems) {
    if attachment.ipv6.is_some() {
        let what = "homelab plans IPv4 addresses only".to_owned();
        let problem = Diagnostic::error_at(span.clone(), what);
        problems.push(problem.hint("take `ipv6_address` out"));
    }
}

fn check_mode(mode: &str, span: &Span, is_alone: bool, problems: &mut Problems) {
    if !is_alone {
        let what = "`network_mode` and `networks` cannot stand together".to_owned();
        problems.push(Diagnostic::error_at(span.clone(), what).hint("keep one of the two"));
    }
    let is_known = matches!(mode, "host" | "none" | "bridge")
        || mode.starts_with("service:")
        || mode.starts_with("container:");
    if !is_known {
        let what = format!("`{mode}` is no network mode");
        problems.push(Diagnostic::error_at(span.clone(), what).hint(
            "use `host`, `none`, `service:NAME` or `container:NAME`; networks go under `networks`",
        ));
    }
}

/// The network of the file that a service names, when it is not the LAN.
fn other_network<'a>(
    network: &Named,
    context: &ServiceContext<'a>,
    problems: &mut Problems,
) -> Option<&'a ComposeNetwork> {
    let mut all = context.networks.iter();
    let found = all.find(|known| known.key == network.name);
    if found.is_none() {
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
        problems.push(Diagnostic::error_at(network.span.clone(), what).hint(hint));
    }
    found
}

fn ipv4_address(text: &str, span: &Span, problems: &mut Problems) -> Option<Written<Ipv4Addr>> {
    let address = Written::parse(text).ok();
    if address.is_none() {
        let what = format!("`{text}` is not an IPv4 address");
        let hint = "four numbers from 0 to 255, like `192.168.1.200`";
        problems.push(Diagnostic::error_at(span.clone(), what).hint(hint));
    }
    address
}

/// An address on the LAN, which must be one.
fn lan_address(
    written: Option<(String, Span)>,
    problems: &mut Problems,
) -> Option<Spanned<Ipv4Addr>> {
    let (text, span) = written?;
    let address = ipv4_address(&text, &span, problems)?.value;
    if address.is_none() {
        let what = "`ipv4_address` is empty".to_owned();
        let hint =
            "write an address of the environment, or take the key out, and it gets a free one";
        problems.push(Diagnostic::error_at(span.clone(), what).hint(hint));
    }
    Some(Spanned::new(span, address?))
}

fn mac(fields: &mut Fields, problems: &mut Problems) -> Option<Written<Mac>> {
    let hint = "six pairs of hexadecimal digits, like `02:42:c0:a8:01:c8`";
    fields.checked(
        "mac_address",
        "a hardware address",
        hint,
        Written::parse,
        problems,
    )
}

/// What a file says twice about the LAN, under two names for it: the later one wins.
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
        ipv6: keys.checked(
            "ipv6_address",
            "an IPv6 address",
            "write it like `fd00::5`",
            Written::parse,
            problems,
        ),
        link_local: link_local(&mut keys, problems),
        mac: mac(&mut keys, problems),
        gw_priority: keys.integer("gw_priority", problems),
        options,
    };
    // The order in which Compose attaches networks, which is by name here.
    keys.leave_alone(&["priority"]);
    keys.finish(|_| None, problems);
    (attachment, ipv4)
}

fn link_local(keys: &mut Fields, problems: &mut Problems) -> Vec<Written<IpAddr>> {
    let mut all = Vec::new();
    for (text, span) in keys.list("link_local_ips", problems).unwrap_or_default() {
        match Written::parse(&text) {
            Ok(address) => all.push(address),
            Err(_) => problems.push(
                Diagnostic::error_at(span, format!("`{text}` is not an address"))
                    .hint("write it like `169.254.8.8`"),
            ),
        }
    }
    all
}

fn links(fields: &mut Fields, problems: &mut Problems) -> Vec<ServiceLink> {
    let links = fields.list("links", problems).unwrap_or_default();
    let split = |(text, _): (String, Span)| {
        let (service, alias) = text.split_once(':').unwrap_or((&text, &text));
        ServiceLink {
            service: service.to_owned(),
            alias: alias.to_owned(),
        }
    };
    links.into_iter().map(split).collect()
}
