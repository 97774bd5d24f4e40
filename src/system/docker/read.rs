//! The Engine's own types to ours.

use crate::plan::has_net_raw;
use crate::plan::naming::ENGINES_SLICE;
use crate::state::{self, Health, Mount, Pool};
use bollard::models::{ContainerSummary, EndpointSettings, HostConfig, IpamConfig, Network};
use std::net::Ipv4Addr;

/// A network of the Engine.
pub(super) fn network_of(network: Network) -> state::Network {
    let mut options = network.options.unwrap_or_default();
    let pools = network.ipam.and_then(|ipam| ipam.config);
    state::Network {
        name: network.name.unwrap_or_default(),
        id: network.id.unwrap_or_default(),
        driver: network.driver.unwrap_or_default(),
        parent: options.remove("parent"),
        mode: options.remove("macvlan_mode"),
        pools: pools.into_iter().flatten().filter_map(pool_of).collect(),
        labels: network.labels.into_iter().flatten().collect(),
    }
}

/// `None` for an IPv6 pool.
fn pool_of(config: IpamConfig) -> Option<Pool> {
    let mut auxiliary: Vec<Ipv4Addr> = config
        .auxiliary_addresses
        .into_iter()
        .flatten()
        .filter_map(|(_, address)| address.parse().ok())
        .collect();
    auxiliary.sort();
    Some(Pool {
        subnet: config.subnet?.parse().ok()?,
        ip_range: config.ip_range.and_then(|range| range.parse().ok()),
        gateway: config.gateway.and_then(|gateway| gateway.parse().ok()),
        auxiliary,
    })
}

/// A container of the Engine.
pub(super) fn container_of(container: ContainerSummary) -> state::Container {
    let names = container.names.unwrap_or_default();
    // A link of another container adds names like `/other/alias`.
    let name = names
        .iter()
        .map(|name| name.trim_start_matches('/'))
        .find(|name| !name.contains('/'))
        .unwrap_or_default();
    let networks = container
        .network_settings
        .and_then(|settings| settings.networks);
    let endpoint = |endpoint: EndpointSettings| {
        let asked = endpoint.ipam_config.and_then(|ipam| ipam.ipv4_address);
        state::Endpoint {
            network_id: endpoint.network_id.unwrap_or_default(),
            address: asked
                .or(endpoint.ip_address)
                .and_then(|address| address.parse().ok()),
            mac: endpoint.mac_address.and_then(|mac| mac.parse().ok()),
        }
    };
    let status = container.status.unwrap_or_default();
    state::Container {
        name: name.to_owned(),
        id: container.id.unwrap_or_default(),
        image: container.image_id.unwrap_or_default(),
        image_name: container.image.unwrap_or_default(),
        exit_code: exit_code(&status),
        health: health(&status),
        status,
        command: container.command.unwrap_or_default(),
        created: container.created,
        state: container
            .state
            .map(|state| state.to_string())
            .unwrap_or_default(),
        labels: container.labels.into_iter().flatten().collect(),
        networks: networks
            .into_iter()
            .flatten()
            .map(|(name, settings)| (name, endpoint(settings)))
            .collect(),
        volumes: container
            .mounts
            .into_iter()
            .flatten()
            .filter(|mount| mount.typ.as_deref() == Some("volume"))
            .filter_map(|mount| {
                Some(Mount {
                    volume: mount.name?,
                    target: mount.destination?,
                })
            })
            .collect(),
        slice: None,
        net_raw: None,
    }
}

/// What the processes of a container will be given when it is started.
pub struct AtStart {
    /// Their slice.
    pub slice: String,
    /// The capability `NET_RAW`.
    pub net_raw: bool,
}

/// As a container was made.
pub(super) fn at_start(made: HostConfig) -> AtStart {
    let parent = made.cgroup_parent.filter(|parent| !parent.is_empty());
    AtStart {
        slice: parent.unwrap_or_else(|| ENGINES_SLICE.to_owned()),
        net_raw: has_net_raw(
            made.privileged.unwrap_or_default(),
            &made.cap_add.unwrap_or_default(),
            &made.cap_drop.unwrap_or_default(),
        ),
    }
}

/// The exit status of what has ended, which the Engine's list has in its words alone: `Exited (3) 2 minutes ago`.
fn exit_code(status: &str) -> Option<i64> {
    let rest = status.strip_prefix("Exited (")?;
    rest.split(')').next()?.parse().ok()
}

/// The result of a healthcheck, when there is one: `Up 2 minutes (healthy)`.
fn health(status: &str) -> Option<Health> {
    let words = [
        ("(healthy)", Health::Healthy),
        ("(unhealthy)", Health::Unhealthy),
        ("(health: starting)", Health::Starting),
    ];
    let mut words = words.into_iter();
    words
        .find(|(words, _)| status.ends_with(words))
        .map(|(_, health)| health)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn the_engines_words_are_taken_apart() {
        assert_eq!(exit_code("Exited (137) 2 minutes ago"), Some(137));
        assert_eq!(exit_code("Up 2 minutes"), None);
        assert_eq!(health("Up 2 minutes (healthy)"), Some(Health::Healthy));
        assert_eq!(
            health("Up 1 second (health: starting)"),
            Some(Health::Starting)
        );
        assert_eq!(health("Up 3 days (unhealthy)"), Some(Health::Unhealthy));
        assert_eq!(health("Up 3 days"), None);
    }

    #[test]
    fn a_container_has_its_own_name_and_the_address_that_was_asked_for() {
        let endpoint = EndpointSettings {
            ipam_config: Some(bollard::models::EndpointIpamConfig {
                ipv4_address: Some("192.168.1.200".to_owned()),
                ..Default::default()
            }),
            ip_address: Some(String::new()),
            ..EndpointSettings::default()
        };
        let summary = ContainerSummary {
            names: Some(vec!["/other/alias".to_owned(), "/web-prod".to_owned()]),
            status: Some("Exited (0) 1 second ago".to_owned()),
            network_settings: Some(bollard::models::ContainerSummaryNetworkSettings {
                networks: Some(HashMap::from([("homelab-prod".to_owned(), endpoint)])),
            }),
            ..ContainerSummary::default()
        };
        let container = container_of(summary);
        assert_eq!(container.name, "web-prod");
        assert_eq!(container.exit_code, Some(0));
        let address = container
            .networks
            .get("homelab-prod")
            .and_then(|e| e.address);
        assert_eq!(address, Some(Ipv4Addr::new(192, 168, 1, 200)));
    }

    #[test]
    fn net_raw_is_given_unless_it_is_dropped() {
        let given = |privileged: bool, added: &[&str], dropped: &[&str]| {
            let list = |names: &[&str]| Some(names.iter().map(|&name| name.to_owned()).collect());
            at_start(HostConfig {
                privileged: Some(privileged),
                cap_add: list(added),
                cap_drop: list(dropped),
                ..HostConfig::default()
            })
            .net_raw
        };
        assert!(at_start(HostConfig::default()).net_raw);
        assert!(given(false, &["CAP_CHOWN"], &["CAP_MKNOD"]));
        assert!(given(true, &[], &["ALL"]));
        assert!(given(false, &["CAP_NET_RAW"], &["ALL"]));
        assert!(given(false, &["NET_RAW"], &["NET_RAW"]));
        assert!(given(false, &["ALL"], &["ALL"]));
        for dropped in ["ALL", "NET_RAW", "CAP_NET_RAW"] {
            assert!(!given(false, &[], &[dropped]), "{dropped}");
        }
        assert!(!given(false, &["ALL"], &["NET_RAW"]));
    }

    #[test]
    fn pools_of_ipv6_are_left_out() {
        let pool = |subnet: &str| IpamConfig {
            subnet: Some(subnet.to_owned()),
            auxiliary_addresses: Some(HashMap::from([("a".to_owned(), "192.168.1.9".to_owned())])),
            ..IpamConfig::default()
        };
        assert_eq!(pool_of(pool("fd00::/64")), None);
        let pool = pool_of(pool("192.168.1.0/24")).unwrap_or_default();
        assert_eq!(pool.subnet.to_string(), "192.168.1.0/24");
        assert_eq!(pool.auxiliary, [Ipv4Addr::new(192, 168, 1, 9)]);
    }
}
