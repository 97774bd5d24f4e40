//! Our own types to those of the Engine.

use crate::diff::step::NewContainer;
use crate::error::Error;
use crate::plan::naming::{
    LABEL_COMPOSE_NETWORK, LABEL_CONTAINER, LABEL_ENVIRONMENT, LABEL_FINGERPRINT, LABEL_SERVICE,
    compose_label, mac_of, network_name,
};
use crate::plan::{
    ApiSection, Attachment, CompleteService, ComposeNetwork, ComposePool, DependencyCondition,
    Device, FileSource, GivenFile, PortBinding, Restart, Service, Volume,
};
use crate::state::Api;
use bollard::models::{
    ContainerCreateBody, DeviceMapping, EndpointIpamConfig, EndpointSettings, HostConfig, Ipam,
    IpamConfig, Mount as ApiMount, NetworkCreateRequest, NetworkingConfig,
    PortBinding as ApiPortBinding, RestartPolicy, RestartPolicyNameEnum,
};
use serde_json::{Map as JsonMap, Value as Json, json};
use std::collections::HashMap;
use std::net::Ipv4Addr;

/// What the Engine is told to make.
///
/// # Errors
/// When a setting is of no kind that the Engine's API has.
pub(super) fn container_body(new: &NewContainer, api: Api) -> Result<ContainerCreateBody, Error> {
    let service = &new.service;
    let anonymous = service.volumes.iter().filter_map(|volume| match volume {
        Volume::Anonymous { target } => Some(target.clone()),
        _ => None,
    });
    let carried = |target: &String| new.carried.iter().any(|mount| mount.target == *target);
    let anonymous: Vec<String> = anonymous.filter(|target| !carried(target)).collect();
    let settings: ContainerCreateBody = passthrough(service, ApiSection::Config)?;
    let mut exposed = settings.exposed_ports.clone().unwrap_or_default();
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
        ..settings
    })
}

/// The settings that the Engine takes as they stand.
fn passthrough<T: serde::de::DeserializeOwned>(
    service: &Service,
    section: ApiSection,
) -> Result<T, Error> {
    let all = || {
        let all = service.engine_settings.iter();
        all.filter(move |(_, setting)| setting.section == section)
    };
    let fields: JsonMap<String, Json> = all()
        .map(|(_, setting)| (setting.field.to_owned(), setting.value.clone()))
        .collect();
    serde_json::from_value(Json::Object(fields)).map_err(|_| {
        let keys: Vec<&str> = all().map(|(key, _)| *key).collect();
        Error::new(
            format!(
                "a setting of service `{}` has a value that the Engine does not know",
                service.name
            ),
            format!("look at its keys `{}`", keys.join("`, `")),
        )
    })
}

fn labels(service: &CompleteService) -> HashMap<String, String> {
    let fingerprint = service.fingerprint();
    let depends: Vec<String> = service
        .depends_on
        .iter()
        .map(|dependency| {
            let condition = match dependency.condition {
                DependencyCondition::Started => "service_started",
                DependencyCondition::Healthy => "service_healthy",
                DependencyCondition::Completed => "service_completed_successfully",
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
        (LABEL_CONTAINER, service.container()),
        // What `docker compose ps`, Portainer and lazydocker look for.
        (compose_label::PROJECT, network_name(&service.env)),
        (compose_label::SERVICE, service.name.clone()),
        (compose_label::REPLICA, service.replica.to_string()),
        (compose_label::ONE_OFF, "False".to_owned()),
        (compose_label::CONFIG_HASH, fingerprint),
        (compose_label::DEPENDS_ON, depends.join(",")),
    ];
    let own = own.map(|(name, value)| (name.to_owned(), value));
    let labels = service.labels.clone().into_iter().chain(own);
    let mut labels: HashMap<String, String> = labels.collect();
    let files = service.compose_files.iter();
    let files: Vec<String> = files.map(|file| file.display().to_string()).collect();
    let folder = service.compose_files.first().and_then(|file| file.parent());
    if let Some(folder) = folder {
        let folder = folder.display().to_string();
        labels.insert(compose_label::FILES.to_owned(), files.join(","));
        labels.insert(compose_label::FOLDER.to_owned(), folder);
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
            lan_endpoint(service, address, api),
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

fn lan_endpoint(service: &Service, address: Ipv4Addr, api: Api) -> EndpointSettings {
    let lan = &service.lan;
    let mac = || {
        let own = lan.mac.as_ref().map(ToString::to_string);
        own.unwrap_or_else(|| mac_of(address).to_string())
    };
    let mut endpoint = endpoint(service, lan, api);
    let addresses = endpoint.ipam_config.get_or_insert_default();
    addresses.ipv4_address = Some(address.to_string());
    // Older engines derive the same hardware address from the address by themselves.
    endpoint.mac_address = (api >= Api::ENDPOINT_MAC).then(mac);
    // The way out leads over the LAN, whatever other networks are called.
    let priority = lan.gw_priority;
    let priority = priority.or((!service.networks.is_empty()).then_some(1));
    endpoint.gw_priority = priority.filter(|_| api >= Api::GATEWAY_PRIORITY);
    endpoint
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
            ipv4_address: ipv4.as_ref().map(ToString::to_string),
            ipv6_address: ipv6.as_ref().map(ToString::to_string),
            link_local_ips: (!link_local.is_empty())
                .then(|| link_local.iter().map(ToString::to_string).collect()),
        }),
        mac_address: mac.as_ref().map(ToString::to_string),
        aliases: Some(aliases(service, more)),
        links: links(service),
        gw_priority: gw_priority.filter(|_| api >= Api::GATEWAY_PRIORITY),
        driver_opts: (!options.is_empty()).then(|| options.clone().into_iter().collect()),
        ..EndpointSettings::default()
    }
}

fn host_config(new: &NewContainer) -> Result<HostConfig, Error> {
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
    let mounts = mounts(service)?;
    let settings: HostConfig = passthrough(service, ApiSection::Host)?;
    let lan = || network_name(&service.env);
    let first = service
        .networks
        .first()
        .map(|attachment| attachment.network.clone());
    let mode = service.network_mode.clone();
    let mode = mode.or_else(|| service.is_on_lan.then(lan)).or(first);
    Ok(HostConfig {
        binds: Some(binds.collect()),
        mounts: (!mounts.is_empty()).then_some(mounts),
        network_mode: mode,
        port_bindings: (!service.ports.is_empty()).then(|| port_bindings(service)),
        restart_policy: Some(restart_policy(service.restart)),
        cap_add: Some(service.cap_add.clone()),
        cap_drop: Some(service.dropped_capabilities()),
        devices: Some(service.devices.iter().map(device_mapping).collect()),
        cgroup_parent: service.slice.clone().or(settings.cgroup_parent.clone()),
        privileged: Some(service.privileged),
        init: service.init,
        readonly_rootfs: Some(service.read_only),
        tmpfs: Some(service.tmpfs.clone().into_iter().collect()),
        shm_size: service.shm_size.and_then(|size| i64::try_from(size).ok()),
        ..settings
    })
}

/// What only the newer form of the API can mount.
fn mounts(service: &Service) -> Result<Vec<ApiMount>, Error> {
    let mut mounts = Vec::new();
    for volume in &service.volumes {
        if let Volume::Mount { api, .. } = volume {
            let mount: Result<ApiMount, _> = serde_json::from_value(api.clone());
            mounts.push(mount.map_err(|_| {
                Error::new(
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
    Ok(mounts)
}

fn device_mapping(device: &Device) -> DeviceMapping {
    DeviceMapping {
        path_on_host: Some(device.source.clone()),
        path_in_container: Some(device.target.clone()),
        cgroup_permissions: Some(device.permissions.clone()),
    }
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

fn port_bindings(service: &Service) -> HashMap<String, Option<Vec<ApiPortBinding>>> {
    let binding = |PortBinding { host, published }: &PortBinding| ApiPortBinding {
        host_ip: Some(host.as_ref().map(ToString::to_string).unwrap_or_default()),
        host_port: Some(published.clone()),
    };
    let ports = service.ports.iter();
    ports
        .map(|(port, bindings)| (port.clone(), Some(bindings.iter().map(binding).collect())))
        .collect()
}

/// A network that a Compose file has.
pub(super) fn network_request(network: &ComposeNetwork) -> NetworkCreateRequest {
    let ComposeNetwork {
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
        (LABEL_COMPOSE_NETWORK, env.clone()),
        (LABEL_FINGERPRINT, network.fingerprint()),
        (compose_label::PROJECT, network_name(env)),
        (compose_label::NETWORK, key.clone()),
    ];
    let own = own.map(|(name, value)| (name.to_owned(), value));
    let pool = |pool: &ComposePool| IpamConfig {
        subnet: pool.subnet.as_ref().map(ToString::to_string),
        ip_range: pool.ip_range.as_ref().map(ToString::to_string),
        gateway: pool.gateway.as_ref().map(ToString::to_string),
        auxiliary_addresses: (!pool.auxiliary.is_empty()).then(|| {
            let pairs = pool.auxiliary.iter();
            pairs
                .map(|(name, address)| (name.clone(), address.to_string()))
                .collect()
        }),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::{HOME, PlanFiles};

    /// bollard drops fields that it does not know, without a word.
    #[test]
    fn every_passthrough_setting_survives_the_request() {
        let all =
            include_str!("../../../tests/compose/all.yml").replace("192.168.1.200", "$ADDRESS");
        let all = all.replace(
            "container_name: bb",
            "container_name: b-$COMPOSE_PROJECT_NAME",
        );
        let plan = PlanFiles::new(HOME.replace("[network]", "[network]\nisolation = 'off'"))
            .compose(&all)
            .env_files(&[
                ("prod", "ADDRESS=192.168.1.200\n"),
                ("preprod", "ADDRESS=192.168.1.230\n"),
            ])
            .plan();
        let services = plan.envs.iter().flat_map(|env| &env.services);
        let mut seen = 0;
        for service in services {
            let new = NewContainer {
                name: service.container(),
                service: CompleteService::without_files(service.clone()),
                address: service.address,
                carried: Vec::new(),
            };
            let body = container_body(&new, Api(1, 51)).unwrap_or_default();
            let body = serde_json::to_value(body).unwrap_or_default();
            for (key, setting) in &service.engine_settings {
                let section = match setting.section {
                    ApiSection::Config => Some(&body),
                    ApiSection::Host => body.get("HostConfig"),
                };
                let sent = section.and_then(|section| section.get(setting.field));
                // A set is a table of nothings in the API, and a list in bollard.
                if *key != "expose" {
                    assert_eq!(sent, Some(&setting.value), "{key}");
                }
                assert!(sent.is_some(), "{key}");
                seen += 1;
            }
        }
        assert!(seen > 60, "only {seen} settings");
    }
}
