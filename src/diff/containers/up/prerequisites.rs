//! Whether what a service needs of others is there: external networks and volumes, an image. Pure.

use super::Up;
use crate::error::Diagnostic;
use crate::plan::{ComposeNetwork, ComposeVolume, INTERFACE_NAME, PullPolicy, Service, Volume};
use crate::state::{Api, Network};
use ipnet::{IpNet, Ipv4Net};

impl<'a> Up<'a> {
    /// Whether what others make is there: external networks and volumes, and images that are not pulled.
    pub(super) fn check_needs(&mut self, service: &Service) {
        let mut found = self.check_engine(service);
        for attachment in &service.networks {
            found.extend(self.check_network(service, &attachment.network));
        }
        found.extend(self.check_volumes(service));
        found.extend(self.check_image(service));
        for diagnostic in found {
            if !self.diagnostics.contains(&diagnostic) {
                self.diagnostics.push(diagnostic);
            }
        }
    }

    fn check_engine(&self, service: &Service) -> Vec<Diagnostic> {
        let Api(major, minor) = self.state.docker.api;
        let missing = newer_keys(service).into_iter();
        let missing = missing.filter(|(_, api)| self.state.docker.api < *api);
        missing
            .map(|(key, api)| {
                Diagnostic::error(
                    format!(
                        "`{key}` of service `{}` needs an Engine with API {}.{}, and this one has {major}.{minor}",
                        service.name, api.0, api.1
                    ),
                    "an older Engine would ignore it: upgrade Docker, or take the key out",
                )
            })
            .collect()
    }

    fn check_network(&self, service: &Service, name: &str) -> Option<Diagnostic> {
        let planned = self.planned_network(name)?;
        let docker = &self.state.docker;
        let Some(found) = docker.network(name) else {
            if !planned.is_external {
                return overlap(planned, &docker.networks);
            }
            return Some(Diagnostic::error(
                format!(
                    "there is no network `{name}`, which service `{}` is to join",
                    service.name
                ),
                format!("make it with `docker network create {name}`, or take `external` out"),
            ));
        };
        if planned.is_external {
            return None;
        }
        match found.compose_environment() {
            Some(other) if other != service.env => Some(Diagnostic::error(
                format!("network `{name}` belongs to environment `{other}`"),
                format!(
                    "take `name: {name}` out of the Compose file, so that each environment gets one of its own"
                ),
            )),
            Some(_) => (!found.is_made_from(&planned.fingerprint()))
                .then(|| other_network(name, &service.env)),
            None => Some(Diagnostic::error(
                format!("there is a network `{name}` that homelab did not make"),
                format!(
                    "remove it with `docker network rm {name}`, or set `external: true` to join it"
                ),
            )),
        }
    }

    fn check_volumes(&self, service: &Service) -> Vec<Diagnostic> {
        let known = &self.state.docker.volumes;
        let missing = service.named_volumes().filter(|name| {
            let planned = self.volume(name, &service.env);
            planned.is_external && !known.iter().any(|known| known == name)
        });
        missing
            .map(|name| {
                Diagnostic::error(
                    format!(
                        "there is no volume `{name}`, which service `{}` is to mount",
                        service.name
                    ),
                    format!("make it with `docker volume create {name}`, or take `external` out"),
                )
            })
            .collect()
    }

    fn check_image(&self, service: &Service) -> Option<Diagnostic> {
        let image = &service.image;
        if self.state.docker.images.contains_key(image) {
            return None;
        }
        if let Some(command) = &service.build {
            return Some(Diagnostic::error(
                format!(
                    "image `{image}` of service `{}` is to be built, and homelab builds no images",
                    service.name
                ),
                format!("build it with `{command}`"),
            ));
        }
        let never = self.selection.policy(service) == PullPolicy::Never;
        never.then(|| {
            Diagnostic::error(
                format!("image `{image}` is not on this machine, and is not to be pulled"),
                format!("pull it with `docker pull {image}`, or allow `--pull missing`"),
            )
        })
    }

    /// Names networks that the file has otherwise now; those who are on them go on as they are.
    pub(super) fn warn_of_networks(&mut self, service: &Service) {
        for attachment in &service.networks {
            let name = &attachment.network;
            let planned = self.planned_network(name);
            let planned = planned.filter(|network| !network.is_external);
            let found = self.state.docker.network(name);
            if let (Some(planned), Some(found)) = (planned, found)
                && found.compose_environment() == Some(service.env.as_str())
                && !found.is_made_from(&planned.fingerprint())
            {
                let warning = other_network(name, &service.env).into_warning();
                if !self.diff.warnings.contains(&warning) {
                    self.diff.warnings.push(warning);
                }
            }
        }
    }

    /// The network of that name beside the LAN, as the files have it.
    pub(super) fn planned_network(&self, name: &str) -> Option<&'a ComposeNetwork> {
        let mut planned = self.selection.env.networks.iter();
        planned.find(|network| network.name == name)
    }

    pub(super) fn volume(&self, name: &str, env: &str) -> ComposeVolume {
        let planned = self.selection.env.volumes.iter();
        let planned = planned.clone().find(|volume| volume.name == name);
        planned.cloned().unwrap_or_else(|| ComposeVolume {
            name: name.to_owned(),
            env: env.to_owned(),
            ..ComposeVolume::default()
        })
    }
}

/// Keys that older engines ignore without a word, with the API that brought them (moby's api/docs/CHANGELOG.md).
fn newer_keys(service: &Service) -> Vec<(&'static str, Api)> {
    let setting = |key: &str| {
        let setting = service.engine_settings.get(key);
        setting.map(|setting| &setting.value)
    };
    let has = |key: &str, field: &str| setting(key).is_some_and(|value| value.get(field).is_some());
    let subpath = |volume: &Volume| match volume {
        Volume::Mount { api, .. } => {
            let options = ["VolumeOptions", "ImageOptions"].map(|field| api.get(field));
            options
                .into_iter()
                .flatten()
                .any(|options| options.get("Subpath").is_some_and(|path| !path.is_null()))
        }
        _ => false,
    };
    let of_type = |volume: &Volume, kind: &str| match volume {
        Volume::Mount { api, .. } => api.get("Type").is_some_and(|found| found == kind),
        _ => false,
    };
    let networks = || service.networks.iter().chain([&service.lan]);
    let volumes = || service.volumes.iter();
    let all = [
        ("annotations", setting("annotations").is_some(), Api(1, 43)),
        (
            "healthcheck.start_interval",
            has("healthcheck", "StartInterval"),
            Api(1, 44),
        ),
        (
            "mac_address",
            networks().any(|n| n.mac.is_some()),
            Api::ENDPOINT_MAC,
        ),
        ("volumes.subpath", volumes().any(subpath), Api(1, 45)),
        (
            "volumes.image",
            volumes().any(|volume| of_type(volume, "image")),
            Api(1, 47),
        ),
        (
            "networks.gw_priority",
            networks().any(|n| n.gw_priority.is_some()),
            Api::GATEWAY_PRIORITY,
        ),
        (
            "networks.interface_name",
            networks().any(|n| n.options.contains_key(INTERFACE_NAME)),
            Api::INTERFACE_NAME,
        ),
    ];
    all.into_iter()
        .filter(|(_, is_used, _)| *is_used)
        .map(|(key, _, api)| (key, api))
        .collect()
}

/// Whether another network has some of the addresses of one that is to be made. Of pools with an `ip_range` the Engine checks
/// no overlap.
fn overlap(planned: &ComposeNetwork, networks: &[Network]) -> Option<Diagnostic> {
    let whole = planned.pools.iter().filter(|pool| pool.ip_range.is_none());
    let wanted: Vec<Ipv4Net> = whole
        .filter_map(|pool| match pool.subnet.as_ref()?.value? {
            IpNet::V4(net) => Some(net),
            IpNet::V6(_) => None,
        })
        .collect();
    let held = networks.iter().flat_map(|network| {
        let whole = network.pools.iter().filter(|pool| pool.ip_range.is_none());
        whole.map(move |pool| (network, pool.subnet))
    });
    let shares = |a: &Ipv4Net, b: &Ipv4Net| a.contains(b) || b.contains(a);
    let mut pairs = held.flat_map(|held| wanted.iter().map(move |wanted| (held, wanted)));
    let ((network, held), wanted) = pairs.find(|((_, held), wanted)| shares(held, wanted))?;
    Some(Diagnostic::error(
        format!(
            "network `{}` is to have {wanted}, and network `{}` has {held} already",
            planned.name, network.name
        ),
        "take `ipam` out of the Compose file, so that Docker chooses, or put a variable of the `env_file` in the place of the subnet",
    ))
}

fn other_network(name: &str, env: &str) -> Diagnostic {
    Diagnostic::error(
        format!("network `{name}` is not as the Compose file has it now"),
        format!(
            "run `homelab env-down --env {env}`, then `homelab env-up --env {env}` makes it anew"
        ),
    )
}
