//! The Docker Engine: the only user of bollard. Status codes and broken connections become our own sentences here.

mod connect;
mod containers;
mod images;
mod logs;
mod networks;
mod read;
mod ready;
mod request;
mod stops;
#[cfg(test)]
mod tests;
mod transport;

pub use images::PullProgress;
pub use logs::{LogPiece, Tail};
pub use read::AtStart;

use crate::error::Error;
use crate::state::{self, Api, ContainerExit, ContainerHealth};
use bollard::Docker;
use bollard::errors::Error as EngineError;
use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::{
    ListContainersOptionsBuilder, ListNetworksOptions, ListVolumesOptions,
};
use std::collections::BTreeMap;
use std::error::Error as _;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use transport::TOO_LONG;

/// How long the Engine may take for a question.
const ENGINE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long it may take for an act; the image of a container with volumes may be gigabytes that are copied at its start. Stops
/// have the container's grace period more.
const ACT_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// How much is shown of what the Engine says, in bytes.
const LONGEST_MESSAGE: usize = 1000;

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
    /// The ids of containers, by the names under which they were seen or made. Acts are on these: under the same name there may be
    /// somebody else's meanwhile.
    ids: Arc<Mutex<BTreeMap<String, String>>>,
}

impl Engine {
    /// All networks.
    ///
    /// # Errors
    /// When the Engine fails.
    pub async fn networks(&self) -> Result<Vec<state::Network>, Error> {
        let list = with_timeout(self.client.list_networks(None::<ListNetworksOptions>)).await;
        let list = list.map_err(|error| engine_error("list the networks", &error))?;
        Ok(list.into_iter().map(read::network_of).collect())
    }

    /// All containers, stopped ones too.
    ///
    /// # Errors
    /// When the Engine fails.
    pub async fn containers(&self) -> Result<Vec<state::Container>, Error> {
        let options = ListContainersOptionsBuilder::new().all(true).build();
        let list = with_timeout(self.client.list_containers(Some(options))).await;
        let list = list.map_err(|error| engine_error("list the containers", &error))?;
        let mut containers: Vec<_> = list.into_iter().map(read::container_of).collect();
        state::disown_copies(&mut containers);
        let seen = containers
            .iter()
            .map(|one| (one.name.clone(), one.id.clone()));
        *self.ids() = seen.collect();
        Ok(containers)
    }

    fn ids(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The id of a container that was seen or made, else its name.
    fn id(&self, name: &str) -> String {
        let id = self.ids().get(name).cloned();
        id.unwrap_or_else(|| name.to_owned())
    }

    /// Who makes the cgroups of containers: `systemd` or `cgroupfs`. The Engine runs other programs for this answer, which
    /// takes it longer than all else that it is asked.
    ///
    /// # Errors
    /// When the Engine fails.
    pub async fn cgroup_driver(&self) -> Result<String, Error> {
        let info = with_timeout(self.client.info()).await;
        let info = info.map_err(|error| engine_error("tell about itself", &error))?;
        let driver = info.cgroup_driver.map(|driver| driver.to_string());
        Ok(driver.unwrap_or_default())
    }

    /// The names of all volumes.
    ///
    /// # Errors
    /// When the Engine fails.
    pub async fn volumes(&self) -> Result<Vec<String>, Error> {
        let list = with_timeout(self.client.list_volumes(None::<ListVolumesOptions>)).await;
        let list = list.map_err(|error| engine_error("list the volumes", &error))?;
        let volumes = list.volumes.unwrap_or_default();
        Ok(volumes.into_iter().map(|volume| volume.name).collect())
    }

    /// Everything about a container, by its id or name; `None` for one that is gone.
    async fn found(&self, container: &str) -> Result<Option<ContainerInspectResponse>, Error> {
        let what = format!("inspect container `{container}`");
        match with_timeout(self.client.inspect_container(container, None)).await {
            Err(EngineError::DockerResponseServerError {
                status_code: 404, ..
            }) => Ok(None),
            result => Ok(Some(result.map_err(|error| engine_error(&what, &error))?)),
        }
    }

    /// The first process of a running container, in the PID namespace of this process.
    ///
    /// # Errors
    /// When the Engine fails; a container that is gone is no failure.
    pub async fn process(&self, id: &str) -> Result<Option<u32>, Error> {
        let Some(container) = self.found(id).await? else {
            return Ok(None);
        };
        let pid = container.state.and_then(|state| state.pid);
        Ok(pid
            .and_then(|pid| u32::try_from(pid).ok())
            .filter(|pid| *pid > 0))
    }

    /// What the processes of a container will be given when it is started; `None` for one that is gone.
    ///
    /// # Errors
    /// When the Engine fails.
    pub async fn at_start(&self, id: &str) -> Result<Option<AtStart>, Error> {
        let container = self.found(id).await?;
        Ok(container.map(|container| read::at_start(container.host_config.unwrap_or_default())))
    }

    /// How a container is. `now` is the time of its [`ContainerHealth::up`].
    ///
    /// # Errors
    /// When the Engine fails; a container that is gone is no failure.
    pub async fn health(&self, name: &str, now: SystemTime) -> Result<ContainerHealth, Error> {
        let Some(container) = self.found(name).await? else {
            return Ok(ContainerHealth::default());
        };
        let state = container.state.unwrap_or_default();
        let started = state.started_at.filter(|_| state.running == Some(true));
        let started = started.and_then(|text| humantime::parse_rfc3339(&text).ok());
        let health = state.health.and_then(|health| health.status);
        let health = health.map(|status| status.to_string());
        Ok(ContainerHealth {
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
    pub async fn exit(&self, name: &str) -> Result<Option<ContainerExit>, Error> {
        let container = self.inspect(name).await?;
        let restarts = container.restart_count.unwrap_or(0);
        let state = container.state.unwrap_or_default();
        let exit_code = state.exit_code.unwrap_or(0);
        let restarting = state.restarting.unwrap_or(false) || restarts > 0;
        let ended = !state.running.unwrap_or(false) && exit_code != 0;
        if !ended && !restarting {
            return Ok(None);
        }
        Ok(Some(ContainerExit {
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
        let mut lines: Vec<String> = Vec::new();
        // Each piece is shown as a line, and whoever sends more than was asked for is heard no longer.
        let keep = |piece: LogPiece| {
            lines.push(piece.text);
            let is_enough = u64::try_from(lines.len()).is_ok_and(|lines| lines >= LOG_LINES);
            if is_enough {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        let _ = Box::pin(self.logs(name, &tail, keep)).await;
        lines
    }
}

/// What comes of a question.
async fn with_timeout<T>(
    question: impl Future<Output = Result<T, EngineError>>,
) -> Result<T, EngineError> {
    within(ENGINE_TIMEOUT, question).await
}

/// What comes of an act.
async fn act<T>(act: impl Future<Output = Result<T, EngineError>>) -> Result<T, EngineError> {
    within(ACT_TIMEOUT, act).await
}

async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, EngineError>>,
) -> Result<T, EngineError> {
    match tokio::time::timeout(limit, Box::pin(call)).await {
        Ok(answer) => answer,
        Err(_) => Err(EngineError::RequestTimeoutError),
    }
}

/// What went wrong on the connection, when that is what did.
fn io_kind(error: &EngineError) -> Option<std::io::ErrorKind> {
    if let EngineError::IOError { err } = error {
        return Some(err.kind());
    }
    let mut next = error.source();
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return Some(io.kind());
        }
        next = error.source();
    }
    None
}

/// What the Engine itself said, without the library's frame around it.
fn message(error: &EngineError) -> String {
    match error {
        EngineError::DockerResponseServerError { message, .. } => shortened(message),
        EngineError::DockerStreamError { error } => shortened(error),
        EngineError::RequestTimeoutError => "it did not answer in time".to_owned(),
        EngineError::HyperResponseError { err }
            if err.is_incomplete_message() || err.is_canceled() || err.is_closed() =>
        {
            "the connection broke".to_owned()
        }
        EngineError::JsonSerdeError { err } if err.is_eof() => "its answer broke off".to_owned(),
        error => match io_kind(error) {
            Some(TOO_LONG) => "its answer has no end".to_owned(),
            Some(_) => "the connection broke".to_owned(),
            None => "its answer could not be understood".to_owned(),
        },
    }
}

/// The begin of what somebody said, which may be a page of a proxy.
fn shortened(said: &str) -> String {
    let said = said.trim();
    let begin: String = said.chars().take(LONGEST_MESSAGE).collect();
    if begin.len() < said.len() {
        return format!("{begin}…");
    }
    begin
}

/// That the Engine's disk is full, when it is that.
fn disk_full(what: &str, said: &str) -> Option<Error> {
    said.contains("no space left on device").then(|| {
        Error::new(
            format!("{what}: the disk of the Engine is full"),
            "`docker system df` shows what takes the room, `docker image prune -a` frees some; then run the command again",
        )
    })
}

fn engine_error(what: &str, error: &EngineError) -> Error {
    let said = message(error);
    if let Some(full) = disk_full(&format!("the Engine did not {what}"), &said) {
        return full;
    }
    // What is gone or in the way may be what a run asked for that was killed.
    let is_race = matches!(
        error,
        EngineError::DockerResponseServerError {
            status_code: 404 | 409,
            ..
        }
    );
    Error::new(
        format!("the Engine did not {what}: {said}"),
        "`journalctl -u docker` may tell more; run the command again when the cause is gone",
    )
    .into_race(is_race)
}

fn ignore_not_found(result: Result<(), EngineError>, what: &str) -> Result<(), Error> {
    match result {
        // 304: it is so already. 404: gone.
        Ok(())
        | Err(EngineError::DockerResponseServerError {
            status_code: 304 | 404,
            ..
        }) => Ok(()),
        Err(error) => Err(engine_error(what, &error)),
    }
}
