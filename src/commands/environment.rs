//! The services of an environment: up and down.

use super::Home;
use crate::cli::{Change, Environment, Up};
use crate::diff::containers::{self, Selection};
use crate::diff::{self, Action, Diff, Step, network};
use crate::error::{Blocker, DONE, FAILED, Failure, INTERRUPTED, USAGE};
use crate::input::problem::{self, suggestion};
use crate::input::service_files;
use crate::observe::{self, Lan};
use crate::plan::{Env, Host, PullPolicy, Restart, Service};
use crate::report::Waiting;
use crate::system::Machine;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::collections::BTreeSet;
use std::time::Duration;

/// How long after the last start homelab looks whether all that was started lives. Others had longer to die by then;
/// `--wait` gives each of them half a second.
const SETTLING: Duration = Duration::from_millis(40);

/// How long `--wait` waits without a word.
const UNTOLD: Duration = Duration::from_secs(1);

impl Home<'_> {
    /// `homelab env-up`; returns the exit status.
    ///
    /// # Errors
    /// Everything that stands in the way or goes wrong.
    pub async fn env_up(&self, up: &Up) -> Result<u8, Failure> {
        let options = &up.environment;
        let env = self.env(options.env.as_deref())?;
        let (machine, mut state) = observe::machine(self.plan).await?;
        let host = self.host(&state)?;
        let mut selection = self.selection(env, host, options);
        selection.force_recreate = up.force_recreate;
        selection.no_deps = up.no_deps;
        selection.pull = up.pull;
        check_services(&selection)?;
        let mut services: Vec<Service> =
            selection.with_dependencies().into_iter().cloned().collect();
        if let Err(problems) = service_files::complete(env, &mut services) {
            let problems = problem::in_order(problems);
            self.report.problems(&problems, self.sources);
            return Ok(USAGE);
        }
        self.notices(env, &services);
        diff::preflight::engine(&state)?;
        let warnings = network::ready(self.plan, host, env, &state)?;
        self.report.warnings(&warnings);
        if options.change.dry_run {
            selection.pulls_first = true;
        } else {
            self.pull_always(&selection, &services, &machine).await?;
        }
        observe::services(&machine, self.plan, env, &services, Lan::Asked, &mut state).await?;
        let diff = containers::up(&selection, &services, &state)?;
        let status = self
            .carry_out(&diff, &services, &options.change, &machine)
            .await?;
        if status == DONE && (up.wait || up.wait_timeout.is_some()) && !options.change.dry_run {
            self.wait(&services, up.wait_timeout, &machine).await?;
        }
        Ok(status)
    }

    /// What is worth knowing about the Compose files of an environment.
    fn notices(&self, env: &Env, services: &[Service]) {
        let index = self
            .plan
            .envs
            .iter()
            .position(|known| known.name == env.name);
        let project = index.and_then(|index| self.projects.get(index));
        let notices = project
            .map(|project| project.notices.clone())
            .unwrap_or_default();
        self.report.problems(&notices, self.sources);
        let idle: Vec<String> = services
            .iter()
            .filter(|service| service.has_idle_ports && service.number == 1)
            .map(|service| service.name.clone())
            .collect();
        if !idle.is_empty() {
            let names = diff::named(&idle);
            self.report.note(&format!(
                "`ports` of {names} are not needed: a container answers on its own address, on every port"
            ));
        }
    }

    /// Pulls the images that are to be pulled whatever there is: only then it is known what else there is to do.
    async fn pull_always(
        &self,
        selection: &Selection<'_>,
        services: &[Service],
        machine: &Machine,
    ) -> Result<(), Failure> {
        let always = services
            .iter()
            .filter(|service| selection.policy(service) == PullPolicy::Always);
        let images: BTreeSet<(&str, Option<&str>)> = always
            .map(|service| (service.image.as_str(), service.platform.as_deref()))
            .collect();
        let steps = images
            .into_iter()
            .enumerate()
            .map(|(index, (image, platform))| Step {
                id: index + 1,
                action: Action::Pull {
                    image: image.to_owned(),
                    platform: platform.map(str::to_owned),
                },
                cause: "it is to be pulled always".to_owned(),
                after: Vec::new(),
                after_end: Vec::new(),
            });
        let diff = Diff {
            steps: steps.collect(),
            warnings: Vec::new(),
        };
        if diff.steps.is_empty() {
            return Ok(());
        }
        self.apply(&diff, machine).await.0
    }

    /// Waits until all services run, or have done their work.
    async fn wait(
        &self,
        services: &[Service],
        seconds: Option<u64>,
        machine: &Machine,
    ) -> Result<(), Failure> {
        let Some(engine) = &machine.engine else {
            return Ok(());
        };
        let waits = services.iter().map(|service| async move {
            let name = service.container();
            let result = engine.until_up(&name).await;
            (name, result)
        });
        let mut waits: FuturesUnordered<_> = waits.collect();
        let mut left: BTreeSet<String> = services.iter().map(Service::container).collect();
        let mut blockers = Vec::new();
        let limit = Duration::from_secs(seconds.unwrap_or(u64::from(u32::MAX)));
        let mut limit = std::pin::pin!(tokio::time::sleep(limit));
        let mut stop = std::pin::pin!(super::interrupted());
        let mut soon = std::pin::pin!(tokio::time::sleep(UNTOLD));
        let mut shown: Option<Waiting> = None;
        while !left.is_empty() {
            tokio::select! {
                () = &mut soon, if shown.is_none() => {
                    shown = Some(Waiting::new(self.report, &left));
                }
                Some((name, result)) = waits.next() => {
                    left.remove(&name);
                    if let Some(shown) = &shown {
                        shown.go_on(&left);
                    }
                    if let Err(failure) = result {
                        blockers.extend(failure.blockers);
                    }
                }
                () = &mut limit => {
                    blockers.push(Blocker::new(
                        format!("not ready after {} seconds: {}", seconds.unwrap_or_default(), diff::named(&left)),
                        "`homelab ps` and `homelab logs` show how they are; they go on by themselves",
                    ));
                    return Err(blockers.into());
                }
                () = &mut stop => {
                    blockers.push(Blocker::new(
                        "interrupted while waiting for services",
                        "`homelab ps` shows how they are; they go on by themselves",
                    ));
                    return Err(Failure { status: INTERRUPTED, blockers });
                }
            }
        }
        if blockers.is_empty() {
            Ok(())
        } else {
            Err(blockers.into())
        }
    }

    /// `homelab env-down`; returns the exit status.
    ///
    /// # Errors
    /// Everything that stands in the way or goes wrong.
    pub async fn env_down(&self, options: &Environment) -> Result<u8, Failure> {
        let name = self.env_name(options.env.as_deref())?;
        let (machine, state) = observe::machine(self.plan).await?;
        diff::preflight::engine(&state)?;
        let made = || state.docker.of_environment(&name);
        let is_planned = self.plan.env(&name).is_some();
        if !is_planned && made().next().is_some() && options.services.is_empty() {
            let diff = containers::down_unplanned(&name, &state);
            return self.carry_out(&diff, &[], &options.change, &machine).await;
        }
        let env = self.env(Some(&name))?;
        let host = self.host(&state)?;
        let selection = self.selection(env, host, options);
        let has_container = |service: &String| made().any(|(of, _)| of == service);
        if !options.services.iter().all(has_container) {
            check_services(&selection)?;
        }
        let diff = containers::down(&selection, &state);
        self.carry_out(&diff, &[], &options.change, &machine).await
    }

    pub(super) fn env_name(&self, named: Option<&str>) -> Result<String, Failure> {
        let name = named
            .map(str::to_owned)
            .or_else(|| self.plan.default_env.clone());
        name.ok_or_else(|| {
            Failure::usage(
                "no environment was given, and the file has no `default_env`",
                suggestion(
                    "",
                    self.plan.envs.iter().map(|env| env.name.as_str()),
                    "environments",
                ),
            )
        })
    }

    /// The environment of that name, else the default one.
    pub(super) fn env(&self, named: Option<&str>) -> Result<&Env, Failure> {
        let name = self.env_name(named)?;
        let known = self.plan.envs.iter().map(|env| env.name.as_str());
        self.plan.env(&name).ok_or_else(|| {
            Failure::usage(
                format!("the plan has no environment `{name}`"),
                suggestion(&name, known, "environments"),
            )
        })
    }

    fn selection<'a>(
        &'a self,
        env: &'a Env,
        host: &'a Host,
        options: &'a Environment,
    ) -> Selection<'a> {
        Selection {
            named: &options.services,
            remove_orphans: options.remove_orphans,
            ..Selection::whole(self.plan, env, &host.name)
        }
    }

    /// Prints the steps of an environment or carries them out; returns the exit status.
    async fn carry_out(
        &self,
        diff: &Diff,
        services: &[Service],
        change: &Change,
        machine: &Machine,
    ) -> Result<u8, Failure> {
        self.report.warnings(&diff.warnings);
        if change.dry_run {
            return Ok(self.dry_run(diff));
        }
        let (result, started) = self.apply(diff, machine).await;
        // Who was started in vain is told even when something else failed.
        let all_live = self.settle(machine, services, &started).await?;
        result?;
        if !all_live {
            return Ok(FAILED);
        }
        self.report.finished(diff.steps.len(), self.begun.elapsed());
        Ok(DONE)
    }

    /// Whether the containers that were started still live a moment later; the others are reported.
    async fn settle(
        &self,
        machine: &Machine,
        services: &[Service],
        started: &[String],
    ) -> Result<bool, Failure> {
        let Some(engine) = machine.engine.as_ref().filter(|_| !started.is_empty()) else {
            return Ok(true);
        };
        tokio::time::sleep(SETTLING).await;
        let containers = engine.containers().await?;
        let lives = |name: &&String| {
            let found = containers.iter().find(|container| container.name == **name);
            found.is_none_or(|found| found.state == "running" || found.exit_code() == Some(0))
        };
        // The list does not tell how often the Engine started one again.
        let again = services
            .iter()
            .filter(|service| service.restart != Restart::No);
        let again: BTreeSet<String> = again.map(Service::container).collect();
        let lives = |name: &&String| lives(name) && !again.contains(*name);
        let suspects = started.iter().filter(|name| !lives(name));
        let deaths = suspects.map(|name| engine.death(name));
        let deaths = futures_util::future::try_join_all(deaths).await?;
        let deaths: Vec<_> = deaths.into_iter().flatten().collect();
        self.report.deaths(&deaths);
        Ok(deaths.is_empty())
    }
}

/// Whether every service that was named can run here.
fn check_services(selection: &Selection) -> Result<(), Failure> {
    let (env, host) = (selection.env, selection.host);
    let mut wrong = Vec::new();
    for name in selection.named {
        let known = env.services.iter().map(|service| service.name.as_str());
        match env.services.iter().find(|service| service.name == *name) {
            None => wrong.push(Blocker::new(
                format!("environment `{}` has no service `{name}`", env.name),
                suggestion(name, known, "services"),
            )),
            Some(service) if service.host != host => wrong.push(Blocker::new(
                format!(
                    "service `{name}` runs on host `{}`, and this is `{host}`",
                    service.host
                ),
                format!("run the command on `{}`", service.host),
            )),
            Some(_) => {}
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(Failure {
        status: USAGE,
        blockers: wrong,
    })
}
