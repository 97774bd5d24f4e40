//! Containers: making them, starting, stopping, replacing and removing them.

use super::{
    ACT_TIMEOUT, Engine, act, engine_error, ignore_not_found, message, request, with_timeout,
};
use crate::diff::step::{ContainerAction, NewContainer};
use crate::error::{Diagnostic, Error};
use crate::plan::naming::{LABEL_FINGERPRINT, successor_name};
use crate::plan::{Attachment, FileSource, GivenFile, Service};
use bollard::errors::Error as EngineError;
use bollard::models::NetworkConnectRequest;
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, RemoveContainerOptions, RenameContainerOptionsBuilder,
    StartContainerOptions, StopContainerOptions, UploadToContainerOptionsBuilder,
    WaitContainerOptionsBuilder,
};
use futures_util::StreamExt;
use std::pin::pin;
use std::time::Duration;
use tokio::time::timeout;

/// How long a stop may take before the container's own grace period is asked for: the Engine's default of ten seconds and what
/// it needs itself.
const STOP_TIMEOUT: Duration = Duration::from_secs(70);

/// How often a container is renamed before homelab gives up.
const RENAMES: u32 = 50;
/// How long it waits in between.
const RENAME_PAUSE: Duration = Duration::from_millis(100);

impl Engine {
    /// Carries out an act on a container; returns what the Engine did otherwise than it was told.
    ///
    /// # Errors
    /// When the Engine refuses, or what is waited for never comes.
    pub async fn carry_out_container(
        &self,
        action: &ContainerAction,
    ) -> Result<Vec<String>, Error> {
        match action {
            ContainerAction::Create(new) => return self.create_container(new).await,
            ContainerAction::JoinNetwork {
                name,
                service,
                attachment,
            } => self.join_network(name, service, attachment).await?,
            ContainerAction::PutFiles { name, files } => self.put_files(name, files).await?,
            ContainerAction::Replace { name, old } => self.replace_container(name, old).await?,
            ContainerAction::Restart { name } => self.restart_container(name).await?,
            ContainerAction::WaitFor {
                name,
                condition,
                is_required,
            } => match self.wait_for(name, *condition).await {
                Err(_) if !is_required => {}
                result => result?,
            },
            ContainerAction::Unpause { name } => self.unpause_container(name).await?,
            ContainerAction::Start { name } => self.start_container(name).await?,
            ContainerAction::Stop { name } => self.stop_container(name).await?,
            ContainerAction::Remove { name } => self.remove_container(name).await?,
        }
        Ok(Vec::new())
    }

    /// Makes a container, which does not run yet; returns what the Engine made otherwise than it was told.
    ///
    /// # Errors
    /// When its name is taken meanwhile, or the Engine refuses a setting.
    async fn create_container(&self, new: &NewContainer) -> Result<Vec<String>, Error> {
        let name = &new.name;
        let mut options = CreateContainerOptionsBuilder::new().name(name);
        if let Some(platform) = &new.service.platform {
            options = options.platform(platform);
        }
        let options = options.build();
        let body = request::container_body(new, self.api)?;
        let what = format!("make container `{name}`");
        match act(self.client.create_container(Some(options), body)).await {
            Ok(made) => {
                self.ids().insert(name.clone(), made.id);
                Ok(made.warnings)
            }
            Err(EngineError::DockerResponseServerError {
                status_code: 409, ..
            }) => {
                // A run that was killed may just have made the same one.
                let found = with_timeout(self.client.inspect_container(name, None)).await;
                let found = found.unwrap_or_default();
                let id = found.id.unwrap_or_else(|| name.clone());
                let labels = found.config.and_then(|config| config.labels);
                let made_from = labels.and_then(|mut labels| labels.remove(LABEL_FINGERPRINT));
                if made_from == Some(new.service.fingerprint()) {
                    self.ids().insert(name.clone(), id);
                    return Ok(Vec::new());
                }
                Err(Error::new(
                    format!("cannot {what}: another container of that name was made meanwhile"),
                    "run the command again",
                )
                .into_race(true))
            }
            Err(error) => Err(engine_error(&what, &error)),
        }
    }

    /// Puts a container on a further network.
    ///
    /// # Errors
    /// When the network is gone, or the Engine fails. A container that is on it already is no failure.
    async fn join_network(
        &self,
        name: &str,
        service: &Service,
        attachment: &Attachment,
    ) -> Result<(), Error> {
        let request = NetworkConnectRequest {
            container: self.id(name),
            endpoint_config: Some(request::endpoint(service, attachment, self.api)),
        };
        let network = &attachment.network;
        let what = format!("put container `{name}` on network `{network}`");
        match act(self.client.connect_network(network, request)).await {
            Err(EngineError::DockerResponseServerError { message, .. })
                if message.contains("already exists in network") =>
            {
                Ok(())
            }
            result => result.map_err(|error| engine_error(&what, &error)),
        }
    }

    /// Puts configs and secrets into a container that does not run yet.
    ///
    /// # Errors
    /// When the Engine fails.
    async fn put_files(&self, name: &str, files: &[GivenFile]) -> Result<(), Error> {
        let what = format!("put files into container `{name}`");
        let archive = archive(files).map_err(|_| {
            Error::new(
                format!(
                    "a config or secret of container `{name}` has a path that no archive takes"
                ),
                "shorten its `target`",
            )
        })?;
        let options = UploadToContainerOptionsBuilder::new().path("/").build();
        let id = self.id(name);
        let body = bollard::body_full(archive.into());
        let result = act(self.client.upload_to_container(&id, Some(options), body)).await;
        result.map_err(|error| engine_error(&what, &error))
    }

    /// Puts a container's successor in its place. When it does not start, the old one is started again.
    ///
    /// # Errors
    /// When the successor does not start, or the Engine fails.
    async fn replace_container(&self, name: &str, old: &str) -> Result<(), Error> {
        let successor = successor_name(name);
        let ran = with_timeout(self.client.inspect_container(&self.id(old), None)).await;
        let ran = ran
            .ok()
            .and_then(|found| found.state?.running)
            .unwrap_or(false);
        self.stop_container(old).await?;
        if let Err(error) = self.start_container(&successor).await {
            let mut diagnostics = error.diagnostics;
            let undone = self.give_up(&successor, old, ran).await;
            let (what, hint) = match undone {
                Ok(()) if ran => (
                    format!("the old container `{old}` was started again"),
                    "correct the service and run the command again",
                ),
                Ok(()) => (
                    format!("the old container `{old}` is as it was"),
                    "correct the service and run the command again",
                ),
                Err(again) => {
                    diagnostics.extend(again.diagnostics);
                    (
                        format!("the old container `{old}` could not be started again either"),
                        "`docker ps -a` shows what there is; run the command again when the cause is gone",
                    )
                }
            };
            diagnostics.push(Diagnostic::error(what, hint));
            return Err(diagnostics.into());
        }
        self.remove_container(old).await?;
        self.rename_container(&successor, name).await
    }

    /// Renames a container. One that is just ending cannot be renamed for a moment (`sandbox … not found`).
    async fn rename_container(&self, from: &str, to: &str) -> Result<(), Error> {
        let options = RenameContainerOptionsBuilder::new().name(to).build();
        let id = self.id(from);
        let mut tries = RENAMES;
        loop {
            tries -= 1;
            match act(self.client.rename_container(&id, options.clone())).await {
                Err(EngineError::DockerResponseServerError { message, .. })
                    if tries > 0 && message.contains("sandbox") =>
                {
                    tokio::time::sleep(RENAME_PAUSE).await;
                }
                result => {
                    let what = format!("give container `{from}` the name `{to}`");
                    result.map_err(|error| engine_error(&what, &error))?;
                    self.ids().insert(to.to_owned(), id);
                    return Ok(());
                }
            }
        }
    }

    async fn give_up(&self, successor: &str, old: &str, ran: bool) -> Result<(), Error> {
        self.remove_container(successor).await?;
        if ran {
            self.start_container(old).await?;
        }
        Ok(())
    }

    /// Stops a container and starts it again.
    ///
    /// # Errors
    /// When the Engine fails.
    async fn restart_container(&self, name: &str) -> Result<(), Error> {
        self.stop_container(name).await?;
        self.start_container(name).await
    }

    /// Lets a paused container go on.
    ///
    /// # Errors
    /// When it is gone or not paused any more, or the Engine fails.
    async fn unpause_container(&self, name: &str) -> Result<(), Error> {
        let result = act(self.client.unpause_container(&self.id(name))).await;
        result.map_err(|error| engine_error(&format!("unpause container `{name}`"), &error))
    }

    /// Starts a container.
    ///
    /// # Errors
    /// When its address is taken, its network is gone, or its command cannot be run.
    async fn start_container(&self, name: &str) -> Result<(), Error> {
        let id = self.id(name);
        let start = self
            .client
            .start_container(&id, None::<StartContainerOptions>);
        let result = act(start).await;
        result.map_err(|error| {
            let said = message(&error);
            if said.contains("Address already in use") {
                return Error::new(
                    format!(
                        "container `{name}` cannot start: something on this machine has its address"
                    ),
                    "`docker network inspect` of its network shows which container has it",
                );
            }
            if let Some((_, port)) = said.split_once("Bind for ") {
                let port = port.split_whitespace().next().unwrap_or_default();
                return Error::new(
                    format!("container `{name}` cannot start: something on this machine has the port {port}"),
                    "`docker ps` and `ss -ltnp` show who; publish another port, or give the service an address of its own",
                );
            }
            if said.contains("network id") && said.contains("not found") {
                return Error::new(
                    format!("container `{name}` cannot start: Docker lost its network, because the network's parent link was missing when Docker was started"),
                    "restart Docker now that the link is there: `systemctl restart docker`",
                );
            }
            engine_error(&format!("start container `{name}`"), &error)
        })
    }

    /// Stops a container: its stop signal, its grace period, then `SIGKILL`.
    ///
    /// # Errors
    /// When the Engine fails. A container that is gone or stopped already is no failure.
    async fn stop_container(&self, name: &str) -> Result<(), Error> {
        let id = self.id(name);
        let mut stop = pin!(
            self.client
                .stop_container(&id, None::<StopContainerOptions>)
        );
        let result = match timeout(STOP_TIMEOUT, &mut stop).await {
            Ok(result) => result,
            Err(_) => {
                let more = self.grace_period(name).await;
                let result = timeout(more, stop).await;
                result.unwrap_or(Err(EngineError::RequestTimeoutError))
            }
        };
        ignore_not_found(result, &format!("stop container `{name}`"))
    }

    /// How long a container may take to end after its stop signal; nothing when the Engine does not say.
    async fn grace_period(&self, name: &str) -> Duration {
        let id = self.id(name);
        let found = with_timeout(self.client.inspect_container(&id, None)).await;
        let seconds = found.ok().and_then(|found| found.config?.stop_timeout);
        Duration::from_secs(seconds.and_then(|s| u64::try_from(s).ok()).unwrap_or(0))
    }

    /// Removes a stopped container; its volumes stay.
    ///
    /// # Errors
    /// When it runs, or the Engine fails. A container that is gone is no failure.
    async fn remove_container(&self, name: &str) -> Result<(), Error> {
        let id = self.id(name);
        let remove = self
            .client
            .remove_container(&id, None::<RemoveContainerOptions>);
        match act(remove).await {
            // Somebody else is at it, such as a run that was killed: it is done when it is done.
            Err(EngineError::DockerResponseServerError {
                status_code: 409,
                message,
            }) if message.contains("already in progress") => {
                let removed = WaitContainerOptionsBuilder::new()
                    .condition("removed")
                    .build();
                let mut wait = self.client.wait_container(&id, Some(removed));
                let _ = timeout(ACT_TIMEOUT, wait.next()).await;
                Ok(())
            }
            result => ignore_not_found(result, &format!("remove container `{name}`")),
        }
    }
}

/// Files as a tar archive of paths from the root.
fn archive(files: &[GivenFile]) -> std::io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for file in files {
        let FileSource::Content(content) = &file.source else {
            continue;
        };
        let mut header = tar::Header::new_gnu();
        header.set_size(u64::try_from(content.len()).unwrap_or(u64::MAX));
        header.set_mode(file.mode);
        header.set_uid(file.uid);
        header.set_gid(file.gid);
        header.set_mtime(0);
        header.set_cksum();
        let path = file.target.trim_start_matches('/');
        archive.append_data(&mut header, path, content.as_bytes())?;
    }
    archive.into_inner()
}
