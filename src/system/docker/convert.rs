//! The Engine's own types from and to ours.

use super::NewContainer;
use crate::error::Failure;
use crate::plan::{
    Attachment, ExtraNetwork, FileSource, GivenFile, Part, Restart, Service, Volume, mac_of,
    network_name,
};
use crate::state::{
    self, Api, LABEL_COMPOSE_FILES, LABEL_COMPOSE_FOLDER, LABEL_COMPOSE_NUMBER,
    LABEL_COMPOSE_PROJECT, LABEL_ENVIRONMENT, LABEL_EXTRA_NETWORK, LABEL_FINGERPRINT,
    LABEL_SERVICE, Mount, Pool,
};
use bollard::models::{
    ContainerCreateBody, ContainerSummary, DeviceMapping, EndpointIpamConfig, EndpointSettings,
    HostConfig, Ipam, IpamConfig, Mount as ApiMount, Network, NetworkCreateRequest,
    NetworkingConfig, PortBinding, RestartPolicy, RestartPolicyNameEnum,
};
use serde_json::{Map as JsonMap, Value as Json, json};
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
        image_name: container.image.unwrap_or_default(),
        status: container.status.unwrap_or_default(),
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
    }
}

/// What the Engine is told to make.
///
/// # Errors
/// When a setting is of no kind that the Engine's API has.
pub(super) fn container_body(new: &NewContainer, api: Api) -> Result<ContainerCreateBody, Failure> {
    let service = &new.service;
    let anonymous = service.volumes.iter().filter_map(|volume| match volume {
        Volume::Anonymous { target } => Some(target.clone()),
        _ => None,
    });
    let carried = |target: &String| new.carried.iter().any(|mount| mount.target == *target);
    let anonymous: Vec<String> = anonymous.filter(|target| !carried(target)).collect();
    let told: ContainerCreateBody = told(service, Part::Config)?;
    let mut exposed = told.exposed_ports.clone().unwrap_or_default();
    exposed.extend(service.ports.keys().cloned());
    exposed.sort();
    exposed.dedup();
    Ok(ContainerCreateBody {
        image: Some(service.image.clone()),
        cmd: service.command.clone(),
        entrypoint: service.entrypoint.clone(),
        env: Some(
            service
                .environment
                .iter()
                .map(|(name, value)| match value {
                    Some(value) => format!("{name}={value}"),
                    // A name alone takes the image's variable away.
                    None => name.clone(),
                })
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
        exposed_ports: (!exposed.is_empty()).then_some(exposed),
        host_config: Some(host_config(new)?),
        networking_config: Some(NetworkingConfig {
            endpoints_config: Some(endpoints(new, api)),
        }),
        ..told
    })
}

/// The settings that the Engine takes as they stand.
fn told<T: serde::de::DeserializeOwned>(service: &Service, part: Part) -> Result<T, Failure> {
    let fields = service.told.values().filter(|told| told.part == part);
    let fields: JsonMap<String, Json> = fields
        .map(|told| (told.field.to_owned(), told.value.clone()))
        .collect();
    serde_json::from_value(Json::Object(fields)).map_err(|_| {
        let keys = service.told.iter().filter(|(_, told)| told.part == part);
        let keys: Vec<&str> = keys.map(|(key, _)| *key).collect();
        Failure::new(
            format!(
                "a setting of service `{}` has a value that the Engine does not know",
                service.name
            ),
            format!("look at its keys `{}`", keys.join("`, `")),
        )
    })
}

fn labels(service: &Service) -> HashMap<String, String> {
    let fingerprint = service.fingerprint();
    let depends: Vec<String> = service
        .depends_on
        .iter()
        .map(|dependency| {
            let condition = match dependency.condition {
                crate::plan::Ready::Started => "service_started",
                crate::plan::Ready::Healthy => "service_healthy",
                crate::plan::Ready::Completed => "service_completed_successfully",
            };
            format!(
                "{}:{condition}:{}",
                dependency.service.get_ref(),
                dependency.restart
            )
        })
        .collect();
    let own = [
        (LABEL_ENVIRONMENT, service.env.clone()),
        (LABEL_SERVICE, service.name.clone()),
        (LABEL_FINGERPRINT, fingerprint.clone()),
        // What `docker compose ps`, Portainer and lazydocker look for.
        (LABEL_COMPOSE_PROJECT, network_name(&service.env)),
        ("com.docker.compose.service", service.name.clone()),
        (LABEL_COMPOSE_NUMBER, service.number.to_string()),
        ("com.docker.compose.oneoff", "False".to_owned()),
        ("com.docker.compose.config-hash", fingerprint),
        ("com.docker.compose.depends_on", depends.join(",")),
    ];
    let own = own.map(|(name, value)| (name.to_owned(), value));
    let labels = service.labels.clone().into_iter().chain(own);
    let mut labels: HashMap<String, String> = labels.collect();
    let files = service.compose_files.iter();
    let files: Vec<String> = files.map(|file| file.display().to_string()).collect();
    let folder = service.compose_files.first().and_then(|file| file.parent());
    if let Some(folder) = folder {
        let folder = folder.display().to_string();
        labels.insert(LABEL_COMPOSE_FILES.to_owned(), files.join(","));
        labels.insert(LABEL_COMPOSE_FOLDER.to_owned(), folder);
    }
    labels
}

/// The networks that a container is made on: all of them where the Engine takes several, else the first.
fn endpoints(new: &NewContainer, api: Api) -> HashMap<String, EndpointSettings> {
    let service = &new.service;
    let mut endpoints = HashMap::new();
    if service.network_mode.is_some() {
        return endpoints;
    }
    if let Some(address) = new.address {
        endpoints.insert(
            network_name(&service.env),
            home_endpoint(service, address, api),
        );
    }
    let takes_several = api >= Api::SEVERAL_NETWORKS;
    for attachment in &service.networks {
        if takes_several || endpoints.is_empty() {
            endpoints.insert(
                attachment.network.clone(),
                endpoint(service, attachment, api),
            );
        }
    }
    endpoints
}

fn aliases(service: &Service, more: &[String]) -> Vec<String> {
    let mut aliases = vec![service.name.clone()];
    aliases.extend(more.iter().filter(|alias| **alias != service.name).cloned());
    aliases
}

fn links(service: &Service) -> Option<Vec<String>> {
    let links = service.links.iter();
    let links: Vec<String> = links
        .map(|link| format!("{}:{}", link.service, link.alias))
        .collect();
    (!links.is_empty()).then_some(links)
}

fn home_endpoint(service: &Service, address: Ipv4Addr, api: Api) -> EndpointSettings {
    let home = service.home.clone();
    let mac = || home.mac.clone().unwrap_or_else(|| mac_of(address));
    let attachment = Attachment {
        ipv4: Some(address.to_string()),
        // Older engines derive the same hardware address from the address by themselves.
        mac: (api >= Api::ENDPOINT_MAC).then(mac),
        // The way out leads over the home network, whatever other networks are called.
        gw_priority: home
            .gw_priority
            .or((!service.networks.is_empty()).then_some(1)),
        ..home
    };
    endpoint(service, &attachment, api)
}

/// A container's place on a network.
pub(super) fn endpoint(service: &Service, attachment: &Attachment, api: Api) -> EndpointSettings {
    let Attachment {
        network: _,
        aliases: more,
        ipv4,
        ipv6,
        link_local,
        mac,
        gw_priority,
        options,
    } = attachment;
    let has_address = ipv4.is_some() || ipv6.is_some() || !link_local.is_empty();
    EndpointSettings {
        ipam_config: has_address.then(|| EndpointIpamConfig {
            ipv4_address: ipv4.clone(),
            ipv6_address: ipv6.clone(),
            link_local_ips: (!link_local.is_empty()).then(|| link_local.clone()),
        }),
        mac_address: mac.clone(),
        aliases: Some(aliases(service, more)),
        links: links(service),
        gw_priority: gw_priority.filter(|_| api >= Api::GATEWAY_PRIORITY),
        driver_opts: (!options.is_empty()).then(|| options.clone().into_iter().collect()),
        ..EndpointSettings::default()
    }
}

fn host_config(new: &NewContainer) -> Result<HostConfig, Failure> {
    let service = &new.service;
    let binds = service
        .volumes
        .iter()
        .filter(|volume| matches!(volume, Volume::Bind { .. } | Volume::Named { .. }))
        .map(Volume::text)
        .chain(
            new.carried
                .iter()
                .map(|mount| format!("{}:{}", mount.volume, mount.target)),
        );
    let mut mounts = Vec::new();
    for volume in &service.volumes {
        if let Volume::Mount { told, .. } = volume {
            let mount: Result<ApiMount, _> = serde_json::from_value(told.clone());
            mounts.push(mount.map_err(|_| {
                Failure::new(
                    format!(
                        "service `{}` has a volume that the Engine does not know",
                        service.name
                    ),
                    format!("look at the one with the target `{}`", volume.target()),
                )
            })?);
        }
    }
    mounts.extend(service.files.iter().filter_map(mounted_file));
    let told: HostConfig = told(service, Part::Host)?;
    let home = || network_name(&service.env);
    let first = service
        .networks
        .first()
        .map(|attachment| attachment.network.clone());
    let mode = service.network_mode.clone();
    let mode = mode.or_else(|| service.is_on_lan.then(home)).or(first);
    Ok(HostConfig {
        binds: Some(binds.collect()),
        mounts: (!mounts.is_empty()).then_some(mounts),
        network_mode: mode,
        port_bindings: (!service.ports.is_empty()).then(|| port_bindings(service)),
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
        cgroup_parent: service.slice.clone().or(told.cgroup_parent.clone()),
        privileged: Some(service.privileged),
        init: service.init,
        readonly_rootfs: Some(service.read_only),
        tmpfs: Some(service.tmpfs.clone().into_iter().collect()),
        shm_size: service.shm_size.and_then(|size| i64::try_from(size).ok()),
        ..told
    })
}

/// A config or a secret that is a file of the host.
fn mounted_file(file: &GivenFile) -> Option<ApiMount> {
    let FileSource::Path(path, _) = &file.source else {
        return None;
    };
    let mount = json!({
        "Type": "bind", "Source": path, "Target": file.target, "ReadOnly": true,
    });
    serde_json::from_value(mount).ok()
}

fn port_bindings(service: &Service) -> HashMap<String, Option<Vec<PortBinding>>> {
    let binding = |(host, port): &(String, String)| PortBinding {
        host_ip: Some(host.clone()),
        host_port: Some(port.clone()),
    };
    let ports = service.ports.iter();
    ports
        .map(|(port, bindings)| (port.clone(), Some(bindings.iter().map(binding).collect())))
        .collect()
}

/// A network beside the home network.
pub(super) fn network_request(network: &ExtraNetwork) -> NetworkCreateRequest {
    let ExtraNetwork {
        key,
        name,
        env,
        is_external: _,
        driver,
        options,
        internal,
        attachable,
        ipv4,
        ipv6,
        ipam_driver,
        ipam_options,
        pools,
        labels,
    } = network;
    let own = [
        (LABEL_EXTRA_NETWORK, env.clone()),
        (LABEL_FINGERPRINT, network.fingerprint()),
        (LABEL_COMPOSE_PROJECT, network_name(env)),
        ("com.docker.compose.network", key.clone()),
    ];
    let own = own.map(|(name, value)| (name.to_owned(), value));
    let pool = |pool: &crate::plan::ExtraPool| IpamConfig {
        subnet: pool.subnet.clone(),
        ip_range: pool.ip_range.clone(),
        gateway: pool.gateway.clone(),
        auxiliary_addresses: (!pool.auxiliary.is_empty())
            .then(|| pool.auxiliary.clone().into_iter().collect()),
    };
    let has_ipam = ipam_driver.is_some() || !ipam_options.is_empty() || !pools.is_empty();
    NetworkCreateRequest {
        name: name.clone(),
        driver: Some(driver.clone().unwrap_or_else(|| "bridge".to_owned())),
        options: Some(options.clone().into_iter().collect()),
        internal: Some(*internal),
        attachable: Some(*attachable),
        enable_ipv4: *ipv4,
        enable_ipv6: *ipv6,
        ipam: has_ipam.then(|| Ipam {
            driver: ipam_driver.clone(),
            config: Some(pools.iter().map(pool).collect()),
            options: (!ipam_options.is_empty()).then(|| ipam_options.clone().into_iter().collect()),
        }),
        labels: Some(labels.clone().into_iter().chain(own).collect()),
        ..NetworkCreateRequest::default()
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
