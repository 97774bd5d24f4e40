//! Containers that the Engine is stopping although nobody waits for that any more, as after a run that was killed.

use super::connect::in_pieces;
use super::{Engine, engine_error, with_timeout};
use crate::error::Error;
use crate::plan::naming::LABEL_ENVIRONMENT;
use crate::plan::signal_number;
use bollard::models::{ContainerInspectResponse, EventMessage};
use bollard::query_parameters::{EventsOptionsBuilder, WaitContainerOptionsBuilder};
use futures_util::future::join_all;
use futures_util::{StreamExt as _, TryStreamExt as _};
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::timeout;

/// How far the Engine is asked to look back. It remembers the last 256 events (`eventsLimit` of moby).
const MEMORY: Duration = Duration::from_secs(5 * 60);

/// How long a container may take to end that says nothing else (docker-stop(1)).
const USUAL_GRACE: Duration = Duration::from_secs(10);

/// The stop signal of a container that says nothing else (docker-run(1)).
const STOP_SIGNAL: &str = "SIGTERM";

/// What the Engine sends when the grace period is over.
const KILL_SIGNAL: &str = "SIGKILL";

/// How long the Engine may take to see that a container ended which it killed.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// A container that runs, and that the Engine is stopping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stopping {
    /// Its name.
    pub name: String,
    id: String,
    /// When it has ended at the latest.
    until: SystemTime,
}

impl Engine {
    /// The containers of an environment that the Engine is stopping: they run, and their stop signal was the last that they got.
    ///
    /// # Errors
    /// When the Engine fails.
    pub async fn stopping(&self, env: &str) -> Result<Vec<Stopping>, Error> {
        let now = SystemTime::now();
        let mut stopping = Vec::new();
        for (id, asked) in self.asked_to_end(env, now).await? {
            if let Some(found) = self.found(&id).await? {
                stopping.extend(stopping_of(&found, id, &asked).filter(|one| one.until > now));
            }
        }
        Ok(stopping)
    }

    /// Waits until they have ended, but no longer than the Engine waits for them.
    pub async fn wait_until_stopped(&self, stopping: &[Stopping]) {
        let waits = stopping.iter().map(|one| async {
            let options = WaitContainerOptionsBuilder::new().condition("not-running");
            let mut wait = self.client.wait_container(&one.id, Some(options.build()));
            let left = one.until.duration_since(SystemTime::now());
            // What became of it is looked at afterwards.
            let _ = timeout(left.unwrap_or_default(), wait.next()).await;
        });
        join_all(waits).await;
    }

    /// The last signals that containers of an environment got which did not end or start since, by id.
    async fn asked_to_end(
        &self,
        env: &str,
        now: SystemTime,
    ) -> Result<BTreeMap<String, Asked>, Error> {
        let label = format!("{LABEL_ENVIRONMENT}={env}");
        let filters = HashMap::from([
            ("type", vec!["container"]),
            ("event", vec!["kill", "die", "start"]),
            ("label", vec![label.as_str()]),
        ]);
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let text = |time: Duration| format!("{}.{:09}", time.as_secs(), time.subsec_nanos());
        let options = EventsOptionsBuilder::new()
            .since(&text(now.saturating_sub(MEMORY)))
            .until(&text(now))
            .filters(&filters)
            .build();
        let (client, allowance) = in_pieces(self.client.clone(), self.api, None);
        let mut events = std::pin::pin!(client.events(Some(options)));
        let mut asked = BTreeMap::new();
        while let Some(event) = with_timeout(events.try_next())
            .await
            .map_err(|error| engine_error("tell what it did last", &error))?
        {
            allowance.renew();
            let Some(id) = event.actor.as_ref().and_then(|actor| actor.id.clone()) else {
                continue;
            };
            match Asked::of(&event) {
                Some(signal) => asked.insert(id, signal),
                None => asked.remove(&id),
            };
        }
        Ok(asked)
    }
}

/// A signal that a container got.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Asked {
    /// Its number.
    signal: Option<u8>,
    at: SystemTime,
}

impl Asked {
    /// What an event tells of; `None` for one that is about something else.
    fn of(event: &EventMessage) -> Option<Self> {
        if event.action.as_deref() != Some("kill") {
            return None;
        }
        let attributes = event.actor.as_ref()?.attributes.as_ref()?;
        let since = Duration::from_nanos(event.time_nano?.try_into().ok()?);
        Some(Self {
            signal: signal_number(attributes.get("signal")?),
            at: UNIX_EPOCH + since,
        })
    }
}

/// What becomes of a container after that signal, if it is to end by it.
fn stopping_of(found: &ContainerInspectResponse, id: String, asked: &Asked) -> Option<Stopping> {
    if found.state.as_ref()?.running != Some(true) {
        return None;
    }
    let config = found.config.as_ref()?;
    let own = config.stop_signal.as_deref().filter(|s| !s.is_empty());
    let ends = [own.unwrap_or(STOP_SIGNAL), KILL_SIGNAL];
    if !ends
        .iter()
        .any(|signal| signal_number(signal) == asked.signal)
    {
        return None;
    }
    let grace = match config.stop_timeout {
        None => USUAL_GRACE,
        // A negative one is no limit.
        Some(seconds) => u64::try_from(seconds).map_or(MEMORY, Duration::from_secs),
    };
    Some(Stopping {
        name: found.name.as_ref()?.trim_start_matches('/').to_owned(),
        id,
        until: asked.at + grace + KILL_TIMEOUT,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard::models::{ContainerConfig, ContainerState};

    #[test]
    fn a_stop_signal_begins_a_stop_and_another_one_does_not() {
        let found = |signal: &str, timeout| ContainerInspectResponse {
            name: Some("/web".to_owned()),
            state: Some(ContainerState {
                running: Some(true),
                ..ContainerState::default()
            }),
            config: Some(ContainerConfig {
                stop_signal: Some(signal.to_owned()),
                stop_timeout: timeout,
                ..ContainerConfig::default()
            }),
            ..ContainerInspectResponse::default()
        };
        let after = |signal: &str, found: &ContainerInspectResponse| {
            let asked = Asked {
                signal: signal_number(signal),
                at: UNIX_EPOCH,
            };
            let stopping = stopping_of(found, "1".to_owned(), &asked)?;
            let until = stopping.until.duration_since(UNIX_EPOCH).ok()?;
            Some((stopping.name, until.as_secs()))
        };
        let web = |seconds| Some(("web".to_owned(), seconds));
        assert_eq!(after("15", &found("", None)), web(15));
        assert_eq!(after("9", &found("SIGQUIT", Some(60))), web(65));
        assert_eq!(after("3", &found("SIGQUIT", Some(-1))), web(305));
        assert_eq!(after("1", &found("SIGQUIT", None)), None);
        let mut ended = found("", None);
        ended.state = None;
        assert_eq!(after("15", &ended), None);
    }
}
