//! The Docker Engine: the only user of bollard. Status codes and broken connections become our own sentences here.

mod containers;
mod convert;
mod images;
mod logs;
mod ready;

pub use images::Progress;
pub use logs::{Line, Tail};

use crate::diff::status::Condition;
use crate::error::{Blocker, Failure};
use crate::plan::{ExtraNetwork, ExtraVolume, Service, network_name};
use crate::state::{self, Api, LABEL_COMPOSE_PROJECT, LABEL_ENVIRONMENT, Mount};
use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{Ipam, IpamConfig, NetworkCreateRequest, VolumeCreateRequest};
use bollard::query_parameters::{
    ListContainersOptionsBuilder, ListNetworksOptions, ListVolumesOptions,
};
use ipnet::Ipv4Net;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, SystemTime};

/// The newest API that the types in here are made for; a newer engine speaks it too.
const NEWEST: Api = Api(1, 51);

/// Where the Engine listens when `DOCKER_HOST` says nothing.
const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";

/// The header with the login for a registry.
const REGISTRY_LOGIN: &str = "x-registry-auth";

/// How long the Engine may take for a question. Acts may take as long as they take: a stop waits for its grace period.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a request of a run that was killed may still be at work in the Engine.
const CONFLICT: Duration = Duration::from_millis(500);

/// bollard's own limit, in seconds; a day, because it also counts while a container is being stopped.
const REQUEST_SECONDS: u64 = 24 * 60 * 60;

/// How many of its last log lines a dead container is reported with.
const LOG_LINES: u64 = 10;

/// A connection to the Engine of this machine.
#[derive(Clone)]
pub struct Engine {
    client: Docker,
    /// As the Engine writes it; empty where nobody has to know.
    pub version: String,
    /// The newest API that the Engine and homelab know.
    pub api: Api,
}

/// A network to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewNetwork {
    /// The environment that it is for.
    pub env: String,
    /// Its parent interface.
    pub parent: String,
    /// The prefix that its containers take for on-link.
    pub subnet: Ipv4Net,
    /// Where addresses are taken from.
    pub ip_range: Ipv4Net,
    /// The default route of its containers.
    pub gateway: Ipv4Addr,
    /// Addresses that are not given out, with what they are for.
    pub auxiliary: BTreeMap<Ipv4Addr, String>,
}

/// A container to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewContainer {
    /// Its name, until it takes the place of another one.
    pub name: String,
    /// What it runs, complete.
    pub service: Service,
    /// Its address on the home network.
    pub address: Option<Ipv4Addr>,
    /// Anonymous volumes of the container that it replaces.
    pub carried: Vec<Mount>,
}

/// How a container came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Death {
    /// The container.
    pub container: String,
    /// The exit status of its first process.
    pub exit_code: i64,
    /// The Engine starts it again and again.
    pub restarting: bool,
    /// Its last log lines.
    pub log: Vec<String>,
}

impl Death {
    /// What stands behind the exit status in a sentence.
    pub fn again(&self) -> &'static str {
        if self.restarting {
            ", and the Engine keeps starting it again"
        } else {
            ""
        }
    }
}

impl Engine {
    /// Connects to the Engine that `DOCKER_HOST` names, which must be on this machine, whose addresses are `own`.
    ///
    /// # Errors
    /// Why it cannot be used, and what to do.
    pub async fn connect(own: &[Ipv4Addr]) -> Result<Self, Blocker> {
        let (host, client) = dial(own)?;
        Self::negotiated(&host, client).await
    }

    /// The same, and who makes the cgroups of containers: `systemd` or `cgroupfs`. The Engine runs other programs for this
    /// answer, which is the same in all versions of the API, so it is asked at once.
    ///
    /// # Errors
    /// Why it cannot be used, and what to do; in the second place, that it fails.
    pub async fn connect_and_ask(
        own: &[Ipv4Addr],
    ) -> Result<(Self, Result<String, Failure>), Blocker> {
        let (host, client) = dial(own)?;
        let negotiated = Self::negotiated(&host, client.clone());
        let (engine, info) = tokio::join!(negotiated, patiently(client.info()));
        let driver = info.map_err(|error| refused("tell about itself", &error));
        let driver = driver.map(|info| info.cgroup_driver);
        let driver = driver.map(|driver| driver.map(|driver| driver.to_string()));
        Ok((engine?, driver.map(Option::unwrap_or_default)))
    }

    /// A client that speaks the newest API that both sides know.
    async fn negotiated(host: &str, client: Docker) -> Result<Self, Blocker> {
        if let Some(api) = newest_of_both(&client).await
            && api >= Api::OLDEST
        {
            return Ok(Self {
                client: corrected(client, api),
                version: String::new(),
                api,
            });
        }
        let version = patiently(client.version())
            .await
            .map_err(|error| unreachable_engine(host, &error))?;
        let api = version
            .api_version
            .and_then(|text| Api::try_from(text).ok())
            .unwrap_or_default();
        Ok(Self {
            client: corrected(client, api.min(NEWEST)),
            version: version.version.unwrap_or_default(),
            api,
        })
    }

    /// All networks.
    ///
    /// # Errors
    /// When the Engine fails.
    pub async fn networks(&self) -> Result<Vec<state::Network>, Failure> {
        let list = patiently(self.client.list_networks(None::<ListNetworksOptions>)).await;
        let list = list.map_err(|error| refused("list the networks", &error))?;
        Ok(list.into_iter().map(convert::network_of).collect())
    }

    /// All containers, stopped ones too.
    ///
    /// # Errors
    /// When the Engine fails.
    pub async fn containers(&self) -> Result<Vec<state::Container>, Failure> {
        let options = ListContainersOptionsBuilder::new().all(true).build();
        let list = patiently(self.client.list_containers(Some(options))).await;
        let list = list.map_err(|error| refused("list the containers", &error))?;
        Ok(list.into_iter().map(convert::container_of).collect())
    }

    /// The names of all volumes.
    ///
    /// # Errors
    /// When the Engine fails.
    pub async fn volumes(&self) -> Result<Vec<String>, Failure> {
        let list = patiently(self.client.list_volumes(None::<ListVolumesOptions>)).await;
        let list = list.map_err(|error| refused("list the volumes", &error))?;
        let volumes = list.volumes.unwrap_or_default();
        Ok(volumes.into_iter().map(|volume| volume.name).collect())
    }

    /// Makes a macvlan network.
    ///
    /// # Errors
    /// When the name or the gateway is taken meanwhile, or the Engine fails.
    pub async fn create_network(&self, network: &NewNetwork) -> Result<(), Failure> {
        let name = network_name(&network.env);
        let auxiliary = network
            .auxiliary
            .iter()
            .map(|(address, what)| (what.clone(), address.to_string()))
            .collect();
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
                    ip_range: Some(network.ip_range.to_string()),
                    gateway: Some(network.gateway.to_string()),
                    auxiliary_addresses: Some(auxiliary),
                }]),
                ..Ipam::default()
            }),
            labels: Some(HashMap::from([(
                LABEL_ENVIRONMENT.to_owned(),
                network.env.clone(),
            )])),
            ..NetworkCreateRequest::default()
        };
        let mut result = self.client.create_network(request.clone()).await;
        if let Err(Error::DockerResponseServerError { .. }) = &result {
            // A run that was killed may just be having it made: 409 then, or, on 20.10, an overlap with its pool. Whether
            // it is as planned is looked at afterwards.
            tokio::time::sleep(CONFLICT).await;
            if self.has_own_network(&name).await {
                return Ok(());
            }
            result = self.client.create_network(request).await;
        }
        let what = format!("make network `{name}`");
        result.map(|_| ()).map_err(|error| refused(&what, &error))
    }

    async fn has_own_network(&self, name: &str) -> bool {
        let network = patiently(self.client.inspect_network(name, None)).await;
        let labels = network.ok().and_then(|network| network.labels);
        labels.is_some_and(|labels| labels.contains_key(LABEL_ENVIRONMENT))
    }

    /// Removes a network by its id.
    ///
    /// # Errors
    /// When a container was attached meanwhile, or the Engine fails. A network that is gone is no failure.
    pub async fn remove_network(&self, name: &str, id: &str) -> Result<(), Failure> {
        let result = self.client.remove_network(id).await;
        unless_gone(result, &format!("remove network `{name}`"))
    }

    /// Makes a network beside the home network.
    ///
    /// # Errors
    /// When its addresses overlap with others, or the Engine fails.
    pub async fn create_extra_network(&self, network: &ExtraNetwork) -> Result<(), Failure> {
        let request = convert::network_request(network);
        let result = self.client.create_network(request).await;
        let what = format!("make network `{}`", network.name);
        match result {
            // A run that was killed may just have made it; whether it is the same is looked at next time.
            Err(Error::DockerResponseServerError {
                status_code: 409, ..
            }) => Ok(()),
            Err(error) if said(&error).contains("overlap") => Err(Failure::new(
                format!("cannot {what}: another network has some of its addresses"),
                "`docker network ls` and `docker network inspect` show which; change its `ipam`, or take it out",
            )),
            result => result.map(|_| ()).map_err(|error| refused(&what, &error)),
        }
    }

    /// Makes a named volume of an environment.
    ///
    /// # Errors
    /// When the Engine fails.
    pub async fn create_volume(&self, volume: &ExtraVolume) -> Result<(), Failure> {
        let name = &volume.name;
        let own = [
            (LABEL_ENVIRONMENT, volume.env.clone()),
            (LABEL_COMPOSE_PROJECT, network_name(&volume.env)),
            ("com.docker.compose.volume", volume.key.clone()),
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
        let result = self.client.create_volume(request).await;
        let what = format!("make volume `{name}`");
        result.map(|_| ()).map_err(|error| refused(&what, &error))
    }

    /// The first process of a running container, in the PID namespace of this process.
    ///
    /// # Errors
    /// When the Engine fails.
    pub async fn process(&self, id: &str) -> Result<Option<u32>, Failure> {
        let what = format!("inspect container `{id}`");
        let container = patiently(self.client.inspect_container(id, None))
            .await
            .map_err(|error| refused(&what, &error))?;
        let pid = container.state.and_then(|state| state.pid);
        Ok(pid
            .and_then(|pid| u32::try_from(pid).ok())
            .filter(|pid| *pid > 0))
    }

    /// How a container is. `now` is the time of its [`Condition::up`].
    ///
    /// # Errors
    /// When the Engine fails; a container that is gone is no failure.
    pub async fn condition(&self, name: &str, now: SystemTime) -> Result<Condition, Failure> {
        let what = format!("inspect container `{name}`");
        let container = match patiently(self.client.inspect_container(name, None)).await {
            Err(Error::DockerResponseServerError {
                status_code: 404, ..
            }) => return Ok(Condition::default()),
            result => result.map_err(|error| refused(&what, &error))?,
        };
        let state = container.state.unwrap_or_default();
        let started = state.started_at.filter(|_| state.running == Some(true));
        let started = started.and_then(|text| humantime::parse_rfc3339(&text).ok());
        let health = state.health.and_then(|health| health.status);
        let health = health.map(|status| status.to_string());
        Ok(Condition {
            up: started.and_then(|started| now.duration_since(started).ok()),
            health: health.filter(|status| !status.is_empty() && status != "none"),
            exit_code: state.exit_code.unwrap_or(0),
        })
    }

    /// How a container that was just started ended, if it did. Ending with status 0 is no death, unless the Engine keeps
    /// starting it again.
    ///
    /// # Errors
    /// When the Engine fails.
    pub async fn death(&self, name: &str) -> Result<Option<Death>, Failure> {
        let what = format!("inspect container `{name}`");
        let container = patiently(self.client.inspect_container(name, None))
            .await
            .map_err(|error| refused(&what, &error))?;
        let restarts = container.restart_count.unwrap_or(0);
        let state = container.state.unwrap_or_default();
        let exit_code = state.exit_code.unwrap_or(0);
        let restarting = state.restarting.unwrap_or(false) || restarts > 0;
        let ended = !state.running.unwrap_or(false) && exit_code != 0;
        if !ended && !restarting {
            return Ok(None);
        }
        Ok(Some(Death {
            container: name.to_owned(),
            exit_code,
            restarting,
            log: self.last_lines(name).await,
        }))
    }

    /// The end of a container's log; nothing when its logging driver cannot be read.
    async fn last_lines(&self, name: &str) -> Vec<String> {
        let tail = Tail {
            lines: Some(LOG_LINES),
            ..Tail::default()
        };
        let mut lines = Vec::new();
        let _ = self.logs(name, &tail, |line| lines.push(line.text)).await;
        lines
    }
}

/// The Engine that `DOCKER_HOST` names, and a client for it.
fn dial(own: &[Ipv4Addr]) -> Result<(String, Docker), Blocker> {
    let named = std::env::var("DOCKER_HOST").ok().filter(|h| !h.is_empty());
    let host = named.unwrap_or_else(|| DEFAULT_HOST.to_owned());
    let client = local_client(&host, own)?;
    Ok((host, client))
}

/// The newest API that the Engine and homelab know, by a ping in the newest that homelab knows. An Engine that does not
/// know it says which it does. For `/version` the Engine runs three other programs, which takes it longer than all else that it
/// is asked.
async fn newest_of_both(client: &Docker) -> Option<Api> {
    let client = corrected(client.clone(), NEWEST);
    match patiently(client.ping()).await {
        Ok(_) => Some(NEWEST),
        Err(Error::DockerResponseServerError { message, .. }) => {
            let (_, version) = message.split_once("Maximum supported API version is ")?;
            Api::try_from(version.trim().to_owned()).ok()
        }
        Err(_) => None,
    }
}

/// A client for a `DOCKER_HOST` as the Docker CLI reads it, when that is this machine.
fn local_client(host: &str, own: &[Ipv4Addr]) -> Result<Docker, Blocker> {
    let hint = "unset DOCKER_HOST, or set it to `unix:///var/run/docker.sock`";
    if let Some(rest) = host.strip_prefix("tcp://") {
        let name = rest.rsplit_once(':').map_or(rest, |(name, _)| name);
        let name = name.trim_start_matches('[').trim_end_matches(']');
        let here = name == "localhost"
            || name.parse::<IpAddr>().is_ok_and(|address| match address {
                IpAddr::V4(v4) => v4.is_loopback() || own.contains(&v4),
                IpAddr::V6(v6) => v6.is_loopback(),
            });
        if !here {
            return Err(another_machine(host));
        }
        if std::env::var("DOCKER_TLS_VERIFY").is_ok_and(|verify| !verify.is_empty()) {
            return Err(Blocker::new(
                "DOCKER_TLS_VERIFY is set, and homelab speaks no TLS",
                hint,
            ));
        }
    } else if host.starts_with("ssh://") || host.starts_with("http") {
        return Err(another_machine(host));
    } else if !host.starts_with("unix://") {
        return Err(Blocker::new(
            format!("DOCKER_HOST is `{host}`, which is no address of an Engine"),
            hint,
        ));
    }
    let version = bollard::API_DEFAULT_VERSION;
    let client = if host.starts_with("tcp://") {
        Docker::connect_with_http(host, REQUEST_SECONDS, version)
    } else {
        Docker::connect_with_unix(host, REQUEST_SECONDS, version)
    };
    client.map_err(|error| unreachable_engine(host, &error))
}

fn another_machine(host: &str) -> Blocker {
    Blocker::new(
        format!("DOCKER_HOST is `{host}`, which is another machine"),
        "the shim and the Engine belong on one host: run homelab there, with DOCKER_HOST unset",
    )
}

/// What bollard 0.21.1 sends otherwise than the Engine reads it. It sends no version (issue 736), and an Engine takes a
/// request without one for its newest dialect; and it writes logins in the usual base64 alphabet, where the Engine expects
/// that of URLs and takes what it cannot read for no login at all.
fn corrected(client: Docker, Api(major, minor): Api) -> Docker {
    let prefix = format!("/v{major}.{minor}");
    client.with_request_modifier(move |mut request| {
        let mut parts = request.uri().clone().into_parts();
        if let Some(path) = parts.path_and_query.as_ref().map(ToString::to_string)
            && !path.starts_with("/v1.")
        {
            parts.path_and_query = format!("{prefix}{path}").parse().ok();
            if let Ok(uri) = http::Uri::from_parts(parts) {
                *request.uri_mut() = uri;
            }
        }
        if let Some(login) = request.headers_mut().get_mut(REGISTRY_LOGIN)
            && let Ok(text) = login.to_str()
            && let Ok(corrected) = text.replace('+', "-").replace('/', "_").parse()
        {
            *login = corrected;
        }
        request
    })
}

async fn patiently<T>(question: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    match tokio::time::timeout(PATIENCE, question).await {
        Ok(answer) => answer,
        Err(_) => Err(Error::RequestTimeoutError),
    }
}

fn io_kind(error: &(dyn std::error::Error + 'static)) -> Option<std::io::ErrorKind> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return Some(io.kind());
        }
        next = error.source();
    }
    None
}

fn unreachable_engine(host: &str, error: &Error) -> Blocker {
    use std::io::ErrorKind::{ConnectionRefused, NotFound, PermissionDenied};
    let socket = host.strip_prefix("unix://").unwrap_or(host);
    let start =
        "start it with `systemctl start docker`, or install it: `apt-get install docker.io`";
    match (error, io_kind(error)) {
        (Error::SocketNotFoundError(_), _) | (_, Some(NotFound)) => Blocker::new(
            format!("there is no Docker Engine here: `{socket}` does not exist"),
            start,
        ),
        (_, Some(PermissionDenied)) => Blocker::new(
            format!("not permitted to use the Docker Engine at `{socket}`"),
            "run homelab as root, or as a member of the group `docker`",
        ),
        (_, Some(ConnectionRefused)) => {
            Blocker::new(format!("no Docker Engine answers at `{socket}`"), start)
        }
        (Error::RequestTimeoutError, _) => Blocker::new(
            format!(
                "the Docker Engine at `{socket}` did not answer within {} seconds",
                PATIENCE.as_secs()
            ),
            "`systemctl status docker` and `journalctl -u docker` may tell why",
        ),
        (error, _) => Blocker::new(
            format!(
                "the Docker Engine at `{socket}` cannot be used: {}",
                said(error)
            ),
            "`docker version` may tell more",
        ),
    }
}

/// What the Engine itself said, without the library's frame around it.
fn said(error: &Error) -> String {
    match error {
        Error::DockerResponseServerError { message, .. } => message.trim().to_owned(),
        Error::DockerStreamError { error } => error.trim().to_owned(),
        Error::RequestTimeoutError => "it did not answer in time".to_owned(),
        error if io_kind(error).is_some() => "the connection broke".to_owned(),
        _ => "its answer could not be understood".to_owned(),
    }
}

fn refused(what: &str, error: &Error) -> Failure {
    Failure::new(
        format!("the Engine did not {what}: {}", said(error)),
        "`journalctl -u docker` may tell more; run the command again when the cause is gone",
    )
}

fn unless_gone(result: Result<(), Error>, what: &str) -> Result<(), Failure> {
    match result {
        // 304: it is so already. 404: gone.
        Ok(())
        | Err(Error::DockerResponseServerError {
            status_code: 304 | 404,
            ..
        }) => Ok(()),
        Err(error) => Err(refused(what, &error)),
    }
}
