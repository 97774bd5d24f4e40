//! Waiting for containers: until they are healthy, have done their work, or run at all.

use super::{Death, Engine, patiently, refused};
use crate::error::{Blocker, Failure};
use crate::plan::Ready;
use bollard::errors::Error;
use bollard::models::{ContainerInspectResponse, RestartPolicyNameEnum};
use bollard::query_parameters::{EventsOptionsBuilder, WaitContainerOptionsBuilder};
use futures_util::StreamExt;
use std::collections::HashMap;
use std::time::Duration;

/// How long a container without a healthcheck must live to count as running.
const LIVING: Duration = Duration::from_millis(500);

/// How a container is, as far as somebody waits for it.
enum Standing {
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
    pub async fn until(&self, name: &str, condition: Ready) -> Result<(), Failure> {
        match condition {
            Ready::Started => Ok(()),
            Ready::Healthy => self.until_healthy(name).await,
            Ready::Completed => self.until_completed(name).await,
        }
    }

    /// Waits until a container that is to run does: healthy when it has a healthcheck, else alive for a moment. One that
    /// ended with status 0 and is not to be started again has done its work.
    ///
    /// # Errors
    /// When it never will.
    pub async fn until_up(&self, name: &str) -> Result<(), Failure> {
        let found = self.look(name).await?;
        let has_health = health_of(&found).is_some();
        if has_health {
            return match self.until_healthy(name).await {
                Err(_) if self.is_done(name).await? => Ok(()),
                result => result,
            };
        }
        tokio::time::sleep(LIVING).await;
        match self.death(name).await? {
            None => Ok(()),
            Some(death) => Err(dead(death)),
        }
    }

    async fn is_done(&self, name: &str) -> Result<bool, Failure> {
        let found = self.look(name).await?;
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

    async fn look(&self, name: &str) -> Result<ContainerInspectResponse, Failure> {
        let what = format!("inspect container `{name}`");
        patiently(self.client.inspect_container(name, None))
            .await
            .map_err(|error| refused(&what, &error))
    }

    async fn until_healthy(&self, name: &str) -> Result<(), Failure> {
        let filters = HashMap::from([
            ("type", vec!["container"]),
            ("container", vec![name]),
            ("event", vec!["health_status", "die", "start", "destroy"]),
        ]);
        let options = EventsOptionsBuilder::new().filters(&filters).build();
        let mut events = std::pin::pin!(self.client.events(Some(options)).fuse());
        loop {
            match standing(&self.look(name).await?) {
                Standing::Ready => return Ok(()),
                Standing::NotYet => {}
                Standing::NoHealth => {
                    return Err(Failure::new(
                        format!(
                            "container `{name}` has no healthcheck, so nobody can wait until it is healthy"
                        ),
                        "give its service a `healthcheck`, or wait for `service_started`",
                    ));
                }
                Standing::Unhealthy(said) => {
                    let mut blocker = Blocker::new(
                        format!("container `{name}` is unhealthy"),
                        format!(
                            "`docker logs {name}` shows all of its log; correct the service or its healthcheck"
                        ),
                    );
                    blocker.lines = said;
                    blocker.lines.extend(self.last_lines(name).await);
                    return Err(blocker.into());
                }
                Standing::Ended(exit_code) => {
                    return Err(dead(Death {
                        container: name.to_owned(),
                        exit_code,
                        restarting: false,
                        log: self.last_lines(name).await,
                    }));
                }
            }
            // Looking again after a while hears what happened before anybody listened.
            tokio::select! {
                _ = events.select_next_some() => {}
                () = tokio::time::sleep(LIVING) => {}
            }
        }
    }

    async fn until_completed(&self, name: &str) -> Result<(), Failure> {
        loop {
            let options = WaitContainerOptionsBuilder::new()
                .condition("not-running")
                .build();
            let answer = self.client.wait_container(name, Some(options)).next().await;
            match answer {
                None | Some(Ok(_) | Err(Error::DockerContainerWaitError { .. })) => {}
                Some(Err(error)) => {
                    return Err(refused(&format!("wait for container `{name}`"), &error));
                }
            }
            let state = self.look(name).await?.state.unwrap_or_default();
            if state.running == Some(true) || state.restarting == Some(true) {
                // The Engine starts it again after a failure.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
            return match state.exit_code {
                Some(0) => Ok(()),
                code => Err(dead(Death {
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
fn dead(death: Death) -> Failure {
    let again = death.again();
    let Death {
        container,
        exit_code,
        restarting: _,
        log,
    } = death;
    let mut blocker = Blocker::new(
        format!("container `{container}` ended with status {exit_code}{again}"),
        format!(
            "`docker logs {container}` shows all of its log; correct the service and run the command again"
        ),
    );
    blocker.lines = log;
    blocker.into()
}

fn health_of(found: &ContainerInspectResponse) -> Option<String> {
    let health = found.state.as_ref()?.health.as_ref()?;
    let status = health.status.map(|status| status.to_string())?;
    (!status.is_empty() && status != "none").then_some(status)
}

fn standing(found: &ContainerInspectResponse) -> Standing {
    let state = found.state.clone().unwrap_or_default();
    if state.running != Some(true) && state.restarting != Some(true) {
        return Standing::Ended(state.exit_code.unwrap_or(-1));
    }
    match health_of(found).as_deref() {
        None => Standing::NoHealth,
        Some("healthy") => Standing::Ready,
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
            Standing::Unhealthy(lines.collect())
        }
        Some(_) => Standing::NotYet,
    }
}
