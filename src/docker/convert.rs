//! The Engine's own types from and to ours.

use super::NewContainer;
use crate::plan::{Restart, Service, Volume, mac_of, network_name};
use crate::state::{self, Api, LABEL_ENVIRONMENT, LABEL_FINGERPRINT, LABEL_SERVICE, Mount, Pool};
use bollard::models::{
    ContainerCreateBody, ContainerSummary, DeviceMapping, EndpointIpamConfig, EndpointSettings,
    HostConfig, IpamConfig, Network, NetworkingConfig, RestartPolicy, RestartPolicyNameEnum,
};
use std::collections::HashMap;
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
        }
    };
    state::Container {
        name: name.to_owned(),
        id: container.id.unwrap_or_default(),
        image: container.image_id.unwrap_or_default(),
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
    }
}

/// What the Engine is told to make.
pub(super) fn container_body(new: &NewContainer, api: Api) -> ContainerCreateBody {
    let service = &new.service;
    let anonymous = service.volumes.iter().filter_map(|volume| match volume {
        Volume::Anonymous { target } => Some(target.clone()),
        Volume::Bind { .. } | Volume::Named { .. } => None,
    });
    let carried = |target: &String| new.carried.iter().any(|mount| mount.target == *target);
    let anonymous: Vec<String> = anonymous.filter(|target| !carried(target)).collect();
    ContainerCreateBody {
        image: Some(service.image.clone()),
        cmd: service.command.clone(),
        entrypoint: service.entrypoint.clone(),
        env: Some(
            service
                .environment
                .iter()
                .filter_map(|(name, value)| Some(format!("{name}={}", value.as_ref()?)))
                .collect(),
        ),
        labels: Some(labels(service)),
        hostname: service.hostname.clone(),
        user: service.user.clone(),
        working_dir: service.working_dir.clone(),
        stop_signal: service.stop_signal.clone(),
        stop_timeout: service
            .stop_grace_period
            .and_then(|period| i64::try_from(period.as_secs()).ok()),
        volumes: (!anonymous.is_empty()).then_some(anonymous),
        host_config: Some(host_config(new)),
        networking_config: Some(NetworkingConfig {
            endpoints_config: Some(HashMap::from([(
                network_name(&service.env),
                endpoint(new, api),
            )])),
        }),
        ..ContainerCreateBody::default()
    }
}

fn labels(service: &Service) -> HashMap<String, String> {
    let fingerprint = service.fingerprint();
    let own = [
        (LABEL_ENVIRONMENT, service.env.clone()),
        (LABEL_SERVICE, service.name.clone()),
        (LABEL_FINGERPRINT, fingerprint.clone()),
        // What `docker compose ps`, Portainer and lazydocker look for.
        ("com.docker.compose.project", network_name(&service.env)),
        ("com.docker.compose.service", service.name.clone()),
        ("com.docker.compose.container-number", "1".to_owned()),
        ("com.docker.compose.oneoff", "False".to_owned()),
        ("com.docker.compose.config-hash", fingerprint),
    ];
    let own = own.map(|(name, value)| (name.to_owned(), value));
    service.labels.clone().into_iter().chain(own).collect()
}

fn endpoint(new: &NewContainer, api: Api) -> EndpointSettings {
    EndpointSettings {
        ipam_config: Some(EndpointIpamConfig {
            ipv4_address: Some(new.address.to_string()),
            ..EndpointIpamConfig::default()
        }),
        // Older engines derive the same hardware address from the address by themselves.
        mac_address: (api >= Api::ENDPOINT_MAC).then(|| mac_of(new.address)),
        aliases: Some(vec![new.service.name.clone()]),
        ..EndpointSettings::default()
    }
}

fn host_config(new: &NewContainer) -> HostConfig {
    let service = &new.service;
    let binds = service
        .volumes
        .iter()
        .filter(|volume| !matches!(volume, Volume::Anonymous { .. }))
        .map(Volume::bind)
        .chain(
            new.carried
                .iter()
                .map(|mount| format!("{}:{}", mount.volume, mount.target)),
        );
    HostConfig {
        binds: Some(binds.collect()),
        network_mode: Some(network_name(&service.env)),
        restart_policy: Some(restart_policy(service.restart)),
        cap_add: Some(service.cap_add.clone()),
        cap_drop: Some(service.cap_drop.clone()),
        devices: Some(
            service
                .devices
                .iter()
                .map(|device| DeviceMapping {
                    path_on_host: Some(device.source.clone()),
                    path_in_container: Some(device.target.clone()),
                    cgroup_permissions: Some(device.permissions.clone()),
                })
                .collect(),
        ),
        cgroup_parent: service.slice.clone(),
        privileged: Some(service.privileged),
        init: service.init,
        readonly_rootfs: Some(service.read_only),
        tmpfs: Some(service.tmpfs.clone().into_iter().collect()),
        shm_size: service.shm_size.and_then(|size| i64::try_from(size).ok()),
        ..HostConfig::default()
    }
}

fn restart_policy(restart: Restart) -> RestartPolicy {
    let (name, count) = match restart {
        Restart::No => (RestartPolicyNameEnum::NO, None),
        Restart::Always => (RestartPolicyNameEnum::ALWAYS, None),
        Restart::UnlessStopped => (RestartPolicyNameEnum::UNLESS_STOPPED, None),
        Restart::OnFailure(count) => (RestartPolicyNameEnum::ON_FAILURE, Some(i64::from(count))),
    };
    RestartPolicy {
        name: Some(name),
        maximum_retry_count: count,
    }
}
