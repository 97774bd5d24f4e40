//! What people look at between the commands: the containers of an environment, their logs, and the merged services.

use super::Context;
use crate::cli::{Listing, Logs, Which};
use crate::diff;
use crate::error::{Error, ExitStatus};
use crate::input::problem::suggestion;
use crate::observe;
use crate::plan::Service;
use crate::plan::naming::network_name;
use crate::report;
use crate::state::{Container, State};
use crate::system::docker::{LogPiece, Tail};
use futures_util::future::try_join_all;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

impl Context<'_> {
    /// `homelab ps`.
    ///
    /// # Errors
    /// When the Engine cannot be asked, or there is no such service.
    pub async fn ps(&self, listing: &Listing) -> Result<ExitStatus, Error> {
        let env = self.env_name(listing.which.env.as_deref())?;
        let (_, state) = observe::engine_alone().await?;
        diff::preflight::engine(&state)?;
        let all = self.containers(&env, &listing.services, &state)?;
        let shown: Vec<&Container> = all
            .into_iter()
            .filter(|container| listing.all || container.is_running())
            .collect();
        report::containers(self.report, &network_name(&env), &shown);
        Ok(ExitStatus::Done)
    }

    /// `homelab logs`.
    ///
    /// # Errors
    /// When the Engine cannot be asked, or there is no such service.
    pub async fn logs(&self, logs: &Logs) -> Result<ExitStatus, Error> {
        let env = self.env_name(logs.which.env.as_deref())?;
        let (machine, state) = observe::engine_alone().await?;
        diff::preflight::engine(&state)?;
        let Some(engine) = &machine else {
            return Ok(ExitStatus::Done);
        };
        let shown = self.containers(&env, &logs.services, &state)?;
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let since = logs.since.map(|since| now.saturating_sub(since).as_secs());
        let tail = Tail {
            follow: logs.follow,
            lines: logs.tail,
            timestamps: logs.timestamps,
            since: since.and_then(|seconds| i32::try_from(seconds).ok()),
        };
        let names: Vec<String> = shown.iter().map(|container| label(container)).collect();
        let lines = report::LogLines::new(self.report, &names, !logs.no_log_prefix);
        let streams = shown.iter().zip(&names).map(|(container, name)| {
            let (lines, tail) = (&lines, &tail);
            async move {
                let print = |piece: LogPiece| lines.print(name, &piece);
                engine.logs(&container.name, tail, print).await?;
                // Whoever reads no more of one container reads no more of any.
                if lines.is_closed() { Err(None) } else { Ok(()) }
            }
        });
        let (result, status) = if logs.follow {
            tokio::select! {
                result = try_join_all(streams) => (result.map(|_| ()), ExitStatus::Done),
                () = self.interrupt.raised() => (Ok(()), ExitStatus::Interrupted),
            }
        } else {
            // One after the other, so that the lines of a service stay together.
            let streams = stream::iter(streams).then(|stream| stream);
            (streams.try_collect().await, ExitStatus::Done)
        };
        lines.end();
        match result {
            Err(Some(error)) => Err(error),
            _ => Ok(status),
        }
    }

    /// `homelab config`.
    ///
    /// # Errors
    /// When there is no such environment.
    pub fn config(&self, which: &Which) -> Result<ExitStatus, Error> {
        let env = self.env(which.env.as_deref())?;
        report::services(self.report, env);
        Ok(ExitStatus::Done)
    }

    /// The containers of an environment, or of some of its services. What the plan no longer has can be looked at as long as it
    /// is there.
    fn containers<'s>(
        &self,
        env: &'s str,
        services: &[String],
        state: &'s State,
    ) -> Result<Vec<&'s Container>, Error> {
        let mut all: Vec<(&str, &Container)> = state.docker.of_environment(env).collect();
        all.sort_by(|a, b| (a.0, a.1.replica()).cmp(&(b.0, b.1.replica())));
        let planned: &[Service] = match self.plan.env(env) {
            Some(env) => &env.services,
            None if all.is_empty() => &self.env(Some(env))?.services,
            None => &[],
        };
        for name in services {
            let known = planned.iter().map(|service| service.name.as_str());
            let known: BTreeSet<&str> = known
                .chain(all.iter().map(|(service, _)| *service))
                .collect();
            if !known.contains(&name.as_str()) {
                return Err(Error::usage(
                    format!("environment `{env}` has no service `{name}`"),
                    suggestion(name, known, "services"),
                ));
            }
        }
        let is_meant = |service: &str| services.is_empty() || services.iter().any(|s| s == service);
        let shown = all.into_iter().filter(|(service, _)| is_meant(service));
        Ok(shown.map(|(_, container)| container).collect())
    }
}

/// What stands in front of a container's log lines.
fn label(container: &Container) -> String {
    let service = container.service().map_or("", |(_, service)| service);
    match container.replica() {
        1 => service.to_owned(),
        replica => format!("{service}-{replica}"),
    }
}
