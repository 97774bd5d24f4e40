//! Networks and volumes: making them, and removing networks.

use super::{Engine, act, engine_error, ignore_not_found, message, request, with_timeout};
use crate::diff::step::{NetworkAction, NewNetwork, VolumeAction};
use crate::error::Error;
use crate::plan::naming::{LABEL_COMPOSE_NETWORK, LABEL_ENVIRONMENT, compose_label, network_name};
use crate::plan::{ComposeNetwork, ComposeVolume, ip_range};
use bollard::errors::Error as EngineError;
use bollard::models::{Ipam, IpamConfig, NetworkCreateRequest, VolumeCreateRequest};
use std::collections::HashMap;
use std::time::Duration;

/// How long a request of a run that was killed may still be at work in the Engine.
const CONFLICT_PAUSE: Duration = Duration::from_millis(500);

impl Engine {
    /// Carries out an act on a network.
    ///
    /// # Errors
    /// When the Engine refuses.
    pub async fn carry_out_network(&self, action: &NetworkAction) -> Result<(), Error> {
        match action {
            NetworkAction::Create(network) => self.create_network(network).await,
            NetworkAction::CreateCompose(network) => self.create_compose_network(network).await,
            NetworkAction::Remove { name, id } => self.remove_network(name, id).await,
        }
    }

    /// Carries out an act on a volume.
    ///
    /// # Errors
    /// When the Engine refuses.
    pub async fn carry_out_volume(&self, action: &VolumeAction) -> Result<(), Error> {
        let VolumeAction::Create(volume) = action;
        self.create_volume(volume).await
    }

    /// Makes a macvlan network.
    ///
    /// # Errors
    /// When the name or the gateway is taken meanwhile, or the Engine fails.
    async fn create_network(&self, network: &NewNetwork) -> Result<(), Error> {
        let name = network_name(&network.env);
        let request = NetworkCreateRequest {
            name: name.clone(),
            driver: Some("macvlan".to_owned()),
            options: Some(HashMap::from([
                ("parent".to_owned(), network.parent.clone()),
                ("macvlan_mode".to_owned(), "bridge".to_owned()),
            ])),
            ipam: Some(Ipam {
                config: Some(vec![IpamConfig {
                    subnet: Some(network.subnet.to_string()),
                    ip_range: Some(ip_range(network.gateway).to_string()),
                    gateway: Some(network.gateway.to_string()),
                    auxiliary_addresses: None,
                }]),
                ..Ipam::default()
            }),
            labels: Some(HashMap::from([(
                LABEL_ENVIRONMENT.to_owned(),
                network.env.clone(),
            )])),
            ..NetworkCreateRequest::default()
        };
        let mut result = act(self.client.create_network(request.clone())).await;
        if let Err(EngineError::DockerResponseServerError { .. }) = &result {
            // A run that was killed may just be having it made: 409 then, or, on 20.10, an overlap with its pool. Whether
            // it is as planned is looked at afterwards.
            tokio::time::sleep(CONFLICT_PAUSE).await;
            if self.has_network(&name, LABEL_ENVIRONMENT).await {
                return Ok(());
            }
            result = act(self.client.create_network(request)).await;
        }
        let what = format!("make network `{name}`");
        result.map(|_| ()).map_err(|error| {
            let is_kept = message(&error).contains("already using parent interface");
            let mut error = engine_error(&what, &error);
            for diagnostic in error.diagnostics.iter_mut().filter(|_| is_kept) {
                diagnostic.kept_parent = Some(network.parent.clone());
            }
            error
        })
    }

    /// Whether there is a network of that name with that label of ours.
    async fn has_network(&self, name: &str, label: &str) -> bool {
        let network = with_timeout(self.client.inspect_network(name, None)).await;
        let labels = network.ok().and_then(|network| network.labels);
        labels.is_some_and(|labels| labels.contains_key(label))
    }

    /// Removes a network by its id.
    ///
    /// # Errors
    /// When a container was attached meanwhile, or the Engine fails. A network that is gone is no failure.
    async fn remove_network(&self, name: &str, id: &str) -> Result<(), Error> {
        let result = act(self.client.remove_network(id)).await;
        ignore_not_found(result, &format!("remove network `{name}`"))
    }

    /// Makes a network that a Compose file has.
    ///
    /// # Errors
    /// When its addresses overlap with others, or the Engine fails.
    async fn create_compose_network(&self, network: &ComposeNetwork) -> Result<(), Error> {
        let request = request::network_request(network);
        let result = act(self.client.create_network(request)).await;
        let what = format!("make network `{}`", network.name);
        match result {
            // A run that was killed may just have made it; whether it is the same is looked at next time.
            Err(EngineError::DockerResponseServerError {
                status_code: 409, ..
            }) if self.has_network(&network.name, LABEL_COMPOSE_NETWORK).await => Ok(()),
            Err(error) if message(&error).contains("overlap") => Err(Error::new(
                format!("cannot {what}: another network has some of its addresses"),
                "`docker network ls` and `docker network inspect` show which; change its `ipam`, or take it out",
            )),
            result => result
                .map(|_| ())
                .map_err(|error| engine_error(&what, &error)),
        }
    }

    /// Makes a named volume of an environment.
    ///
    /// # Errors
    /// When the Engine fails.
    async fn create_volume(&self, volume: &ComposeVolume) -> Result<(), Error> {
        let name = &volume.name;
        let own = [
            (LABEL_ENVIRONMENT, volume.env.clone()),
            (compose_label::PROJECT, network_name(&volume.env)),
            (compose_label::VOLUME, volume.key.clone()),
        ];
        let own = own.map(|(name, value)| (name.to_owned(), value));
        let options = volume.options.clone().into_iter().collect();
        let request = VolumeCreateRequest {
            name: Some(name.clone()),
            driver: volume.driver.clone(),
            driver_opts: (!volume.options.is_empty()).then_some(options),
            labels: Some(volume.labels.clone().into_iter().chain(own).collect()),
            ..VolumeCreateRequest::default()
        };
        let result = act(self.client.create_volume(request)).await;
        let what = format!("make volume `{name}`");
        result
            .map(|_| ())
            .map_err(|error| engine_error(&what, &error))
    }
}
