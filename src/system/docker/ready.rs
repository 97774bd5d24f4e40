//! Waiting for containers: until they are healthy, have done their work, or run at all.

use super::connect::in_pieces;
use super::{ENGINE_TIMEOUT, Engine, engine_error, with_timeout};
use crate::error::{Diagnostic, Error};
use crate::plan::DependencyCondition;
use crate::state::ContainerExit;
use bollard::errors::Error as EngineError;
use bollard::models::{ContainerInspectResponse, RestartPolicyNameEnum};
use bollard::query_parameters::{EventsOptionsBuilder, WaitContainerOptionsBuilder};
use futures_util::StreamExt;
use std::collections::HashMap;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// How long a container without a healthcheck must live to count as running.
const ALIVE_AFTER: Duration = Duration::from_millis(500);

/// How long the Engine may take to see that a container's processes are gone; it takes a tenth of a second.
const EXIT_TIMEOUT: Duration = Duration::from_secs(5);

/// How often it is asked meanwhile.
const EXIT_PAUSE: Duration = Duration::from_millis(20);

/// How a container is, as far as somebody waits for it.
enum Readiness {
    /// It is as wanted.
    Ready,
    /// It may still become so.
    NotYet,
    /// It has no healthcheck.
    NoHealth,
    /// Its healthcheck failed; what the last one said.
    Unhealthy(Vec<String>),
    /// It ended.
    Ended(i64),
}

impl Engine {
    /// Waits until a container is as `condition` wants it.
    ///
    /// # Errors
    /// When it never will be: unhealthy, ended, without a healthcheck.
    pub async fn wait_for(&self, name: &str, condition: DependencyCondition) -> Result<(), Error> {
        match condition {
            DependencyCondition::Started => Ok(()),
            DependencyCondition::Healthy => self.wait_until_healthy(name).await,
            DependencyCondition::Completed => self.wait_until_completed(name).await,
        }
    }

    /// Waits until a container that is to run does: healthy when it has a healthcheck, else alive for a moment. One that
    /// ended with status 0 and is not to be started again has done its work.
    ///
    /// # Errors
    /// When it never will.
    pub async fn wait_until_up(&self, name: &str) -> Result<(), Error> {
        let found = self.inspect(name).await?;
        let has_health = health_of(&found).is_some();
        if has_health {
            return match self.wait_until_healthy(name).await {
                Err(_) if self.is_done(name).await? => Ok(()),
                result => result,
            };
        }
        tokio::time::sleep(ALIVE_AFTER).await;
        match self.exit(name).await? {
            None => Ok(()),
            Some(exit) => Err(ended(exit)),
        }
    }

    /// How a container ended whose processes are gone, as soon as the Engine sees it.
    ///
    /// # Errors
    /// When the Engine fails.
    pub async fn exit_soon(&self, name: &str) -> Result<Option<ContainerExit>, Error> {
        let begun = Instant::now();
        loop {
            let found = self.inspect(name).await?;
            let runs = found.state.and_then(|state| state.running) == Some(true);
            let was_restarted = found.restart_count.unwrap_or(0) > 0;
            if !runs || was_restarted || begun.elapsed() > EXIT_TIMEOUT {
                return self.exit(name).await;
            }
            tokio::time::sleep(EXIT_PAUSE).await;
        }
    }

    async fn is_done(&self, name: &str) -> Result<bool, Error> {
        let found = self.inspect(name).await?;
        let policy = found
            .host_config
            .as_ref()
            .and_then(|host| host.restart_policy.clone());
        let policy = policy.and_then(|policy| policy.name);
        let ends = !matches!(
            policy,
            Some(RestartPolicyNameEnum::ALWAYS | RestartPolicyNameEnum::UNLESS_STOPPED)
        );
        let state = found.state.unwrap_or_default();
        Ok(ends && state.running == Some(false) && state.exit_code == Some(0))
    }

    /// Everything about a container that must be there.
    pub(super) async fn inspect(&self, name: &str) -> Result<ContainerInspectResponse, Error> {
        let what = format!("inspect container `{name}`");
        with_timeout(self.client.inspect_container(name, None))
            .await
            .map_err(|error| engine_error(&what, &error))
    }

    async fn wait_until_healthy(&self, name: &str) -> Result<(), Error> {
        let filters = HashMap::from([
            ("type", vec!["container"]),
            ("container", vec![name]),
            ("event", vec!["health_status", "die", "start", "destroy"]),
        ]);
        let options = EventsOptionsBuilder::new().filters(&filters).build();
        let (client, allowance) = in_pieces(self.client.clone(), self.api, None);
        let mut events = std::pin::pin!(client.events(Some(options)).fuse());
        loop {
            match readiness(&self.inspect(name).await?) {
                Readiness::Ready => return Ok(()),
                Readiness::NotYet => {}
                Readiness::NoHealth => {
                    return Err(Error::new(
                        format!(
                            "container `{name}` has no healthcheck, so nobody can wait until it is healthy"
                        ),
                        "give its service a `healthcheck`, or wait for `service_started`",
                    ));
                }
                Readiness::Unhealthy(said) => {
                    let diagnostic = Diagnostic::error(
                        format!("container `{name}` is unhealthy"),
                        format!(
                            "`docker logs {name}` shows all of its log; correct the service or its healthcheck"
                        ),
                    );
                    let log = self.last_lines(name).await;
                    return Err(diagnostic.lines([said, log].concat()).into());
                }
                Readiness::Ended(exit_code) => {
                    return Err(ended(ContainerExit {
                        container: name.to_owned(),
                        exit_code,
                        restarting: false,
                        log: self.last_lines(name).await,
                    }));
                }
            }
            // Looking again after a while hears what happened before anybody listened, and when the Engine tells no more.
            tokio::select! {
                Some(_) = events.next() => allowance.renew(),
                () = tokio::time::sleep(ALIVE_AFTER) => {}
            }
        }
    }

    async fn wait_until_completed(&self, name: &str) -> Result<(), Error> {
        loop {
            let options = WaitContainerOptionsBuilder::new()
                .condition("not-running")
                .build();
            // It takes as long as it takes; whether the Engine still answers is seen in between.
            let mut wait = self.client.wait_container(name, Some(options));
            match timeout(ENGINE_TIMEOUT, wait.next()).await {
                Err(_)
                | Ok(None | Some(Ok(_) | Err(EngineError::DockerContainerWaitError { .. }))) => {}
                Ok(Some(Err(error))) => {
                    return Err(engine_error(
                        &format!("wait for container `{name}`"),
                        &error,
                    ));
                }
            }
            let state = self.inspect(name).await?.state.unwrap_or_default();
            if state.running == Some(true) || state.restarting == Some(true) {
                // The Engine starts it again after a failure.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
            return match state.exit_code {
                Some(0) => Ok(()),
                code => Err(ended(ContainerExit {
                    container: name.to_owned(),
                    exit_code: code.unwrap_or(-1),
                    restarting: false,
                    log: self.last_lines(name).await,
                })),
            };
        }
    }
}

/// A container that ended although others wait for it.
fn ended(exit: ContainerExit) -> Error {
    let again = exit.again();
    let ContainerExit {
        container,
        exit_code,
        restarting: _,
        log,
    } = exit;
    let diagnostic = Diagnostic::error(
        format!("container `{container}` ended with status {exit_code}{again}"),
        format!(
            "`docker logs {container}` shows all of its log; correct the service and run the command again"
        ),
    );
    diagnostic.lines(log).into()
}

fn health_of(found: &ContainerInspectResponse) -> Option<String> {
    let health = found.state.as_ref()?.health.as_ref()?;
    let status = health.status.map(|status| status.to_string())?;
    (!status.is_empty() && status != "none").then_some(status)
}

fn readiness(found: &ContainerInspectResponse) -> Readiness {
    let state = found.state.clone().unwrap_or_default();
    if state.running != Some(true) && state.restarting != Some(true) {
        return Readiness::Ended(state.exit_code.unwrap_or(-1));
    }
    match health_of(found).as_deref() {
        None => Readiness::NoHealth,
        Some("healthy") => Readiness::Ready,
        Some("unhealthy") => {
            let log = state
                .health
                .and_then(|health| health.log)
                .unwrap_or_default();
            let last = log
                .last()
                .and_then(|check| check.output.clone())
                .unwrap_or_default();
            let lines = last.lines().map(|line| format!("healthcheck: {line}"));
            Readiness::Unhealthy(lines.collect())
        }
        Some(_) => Readiness::NotYet,
    }
}
