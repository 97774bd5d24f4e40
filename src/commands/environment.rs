//! The services of an environment: up and down.

use super::Context;
use crate::cli::{ChangeArgs, Environment, Up};
use crate::diff::{self, Diff, PullPhase, Request, Selection, preflight};
use crate::error::{Diagnostic, Error, ExitStatus, none_of};
use crate::input::problem::{Problems, in_order, suggestion};
use crate::input::service_files::{self, ServiceFiles};
use crate::observe::{self, Lan};
use crate::plan::{self, CompleteService, Env, Host, PullPolicy};
use crate::report::Waiting;
use crate::state::State;
use crate::system::Machine;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::collections::BTreeSet;
use std::slice::from_ref;
use std::time::Duration;

/// How long `--wait` waits without a word.
const SILENT_WAIT: Duration = Duration::from_secs(1);

/// How long the Engine gets for what a run asked for that was killed, before homelab looks again.
const RACE_PAUSE: Duration = Duration::from_millis(300);

impl Context<'_> {
    /// `homelab env-up`.
    ///
    /// # Errors
    /// Everything that stands in the way or goes wrong.
    pub async fn env_up(&self, up: &Up) -> Result<ExitStatus, Error> {
        let options = &up.environment;
        let env = self.env(options.env.as_deref())?;
        let turn = self.turn(&options.change).await?;
        let (machine, state) = observe::machine_and_filters(self.plan, from_ref(env)).await?;
        let host = self.host(&state)?;
        let mut selection = self.selection(env, host, options);
        selection.force_recreate = up.force_recreate;
        selection.no_deps = up.no_deps;
        selection.pull = up.pull.map(PullPolicy::from);
        check_services(&selection)?;
        let services = match complete(&selection) {
            Ok(services) => services,
            Err(problems) => {
                self.report.diagnostics(&in_order(problems), self.sources);
                return Ok(ExitStatus::Usage);
            }
        };
        self.notices(env, &services);
        if options.change.dry_run {
            selection.pulls = PullPhase::Planned;
        } else {
            selection.pulls = PullPhase::Alone;
            let pulls = diff::diff(&Request::EnvUp(&selection, &services), self.plan, &state)?;
            self.report.warnings(&pulls.warnings);
            if !pulls.steps.is_empty() {
                self.apply(&pulls, &machine).await.0?;
            }
            selection.pulls = PullPhase::Done;
        }
        let request = Request::EnvUp(&selection, &services);
        let look = async |found: (Machine, State)| {
            let looked =
                self.look_at_services(found, &selection, &services, options.change.dry_run);
            let (machine, state) = Box::pin(looked).await?;
            Ok((diff::diff(&request, self.plan, &state)?, machine))
        };
        let found = (machine.clone(), state);
        let status = Box::pin(self.bring_about(found, &services, &options.change, look)).await?;
        // To wait is to change nothing.
        drop(turn);
        let waits = up.wait || up.wait_timeout.is_some();
        if status == ExitStatus::Done && waits && !options.change.dry_run {
            self.wait(&services, up.wait_timeout, &machine).await?;
        }
        Ok(status)
    }

    /// Looks at what services need, once the Engine has done what it was asked before: it ends a container although whoever
    /// asked for that was killed or interrupted meanwhile.
    async fn look_at_services(
        &self,
        (mut machine, mut state): (Machine, State),
        selection: &Selection<'_>,
        services: &[CompleteService],
        dry_run: bool,
    ) -> Result<(Machine, State), Error> {
        let Selection {
            plan, env, host, ..
        } = *selection;
        loop {
            preflight::engine(&state)?;
            let lan = Lan::Asked(host);
            let looked = observe::services(&machine, plan, env, services, lan, &mut state);
            let stopping = async {
                match &machine.engine {
                    Some(engine) => engine.stopping(&env.name).await,
                    None => Ok(Vec::new()),
                }
            };
            let ((), stopping) = tokio::try_join!(looked, stopping)?;
            let Some(engine) = machine.engine.as_ref().filter(|_| !stopping.is_empty()) else {
                return Ok((machine, state));
            };
            let names: Vec<String> = stopping.iter().map(|one| one.name.clone()).collect();
            let names = diff::named(&names);
            if dry_run {
                self.report
                    .note(&format!("Docker is just stopping {names}"));
                return Ok((machine, state));
            }
            self.report
                .note(&format!("waiting until Docker has stopped {names}"));
            engine.wait_until_stopped(&stopping).await;
            (machine, state) = observe::machine(plan).await?;
        }
    }

    /// What is worth knowing about the Compose files of an environment.
    fn notices(&self, env: &Env, services: &[CompleteService]) {
        self.report.diagnostics(&env.notices, self.sources);
        let idle: Vec<String> = services
            .iter()
            .filter(|service| service.has_idle_ports && service.replica == 1)
            .map(|service| service.name.clone())
            .collect();
        if !idle.is_empty() {
            let names = diff::named(&idle);
            self.report.note(&format!(
                "`ports` of {names} are not needed: a container answers on its own address, on every port"
            ));
        }
    }

    /// Waits until all services run, or have done their work.
    async fn wait(
        &self,
        services: &[CompleteService],
        seconds: Option<u64>,
        machine: &Machine,
    ) -> Result<(), Error> {
        let Some(engine) = &machine.engine else {
            return Ok(());
        };
        let waits = services.iter().map(|service| async move {
            let name = service.container();
            let result = engine.wait_until_up(&name).await;
            (name, result)
        });
        let mut waits: FuturesUnordered<_> = waits.collect();
        let mut left: BTreeSet<String> =
            services.iter().map(|service| service.container()).collect();
        let mut diagnostics = Vec::new();
        let limit = Duration::from_secs(seconds.unwrap_or(u64::from(u32::MAX)));
        let mut limit = std::pin::pin!(tokio::time::sleep(limit));
        let mut stop = std::pin::pin!(self.interrupt.raised());
        let mut soon = std::pin::pin!(tokio::time::sleep(SILENT_WAIT));
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
                    if let Err(error) = result {
                        diagnostics.extend(error.diagnostics);
                    }
                }
                () = &mut limit => {
                    diagnostics.push(Diagnostic::error(
                        format!("not ready after {} seconds: {}", seconds.unwrap_or_default(), diff::named(&left)),
                        "`homelab ps` and `homelab logs` show how they are; they go on by themselves",
                    ));
                    return Err(diagnostics.into());
                }
                () = &mut stop => {
                    diagnostics.push(Diagnostic::error(
                        "interrupted while waiting for services",
                        "`homelab ps` shows how they are; they go on by themselves",
                    ));
                    return Err(Error { status: ExitStatus::Interrupted, diagnostics });
                }
            }
        }
        none_of(diagnostics)
    }

    /// `homelab env-down`.
    ///
    /// # Errors
    /// Everything that stands in the way or goes wrong.
    pub async fn env_down(&self, options: &Environment) -> Result<ExitStatus, Error> {
        let name = self.env_name(options.env.as_deref())?;
        let _turn = self.turn(&options.change).await?;
        let (machine, state) = observe::machine(self.plan).await?;
        preflight::engine(&state)?;
        let made = |state: &State, service: &str| {
            let mut made = state.docker.of_environment(&name);
            made.any(|(of, _)| service.is_empty() || of == service)
        };
        let host = self.host(&state);
        let is_planned = self.plan.env(&name).is_some() && host.is_ok();
        if !is_planned && made(&state, "") && options.services.is_empty() {
            let look = async |(machine, state): (Machine, State)| {
                let request = Request::UnplannedEnvDown(&name);
                Ok((diff::diff(&request, self.plan, &state)?, machine))
            };
            let found = (machine, state);
            return Box::pin(self.bring_about(found, &[], &options.change, look)).await;
        }
        let env = self.env(Some(&name))?;
        let selection = self.selection(env, host?, options);
        let mut named = options.services.iter();
        if !named.all(|service| made(&state, service)) {
            check_services(&selection)?;
        }
        let look = async |(machine, state): (Machine, State)| {
            let request = Request::EnvDown(&selection);
            Ok((diff::diff(&request, self.plan, &state)?, machine))
        };
        let found = (machine, state);
        Box::pin(self.bring_about(found, &[], &options.change, look)).await
    }

    pub(super) fn env_name(&self, named: Option<&str>) -> Result<String, Error> {
        let name = named
            .map(str::to_owned)
            .or_else(|| self.plan.default_env.clone());
        name.ok_or_else(|| {
            Error::usage(
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
    pub(super) fn env(&self, named: Option<&str>) -> Result<&Env, Error> {
        let name = self.env_name(named)?;
        let known = self.plan.envs.iter().map(|env| env.name.as_str());
        self.plan.env(&name).ok_or_else(|| {
            Error::usage(
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
            ..Selection::whole(self.plan, env, host)
        }
    }

    /// Prints the steps of an environment, which `look` finds, or carries them out. Looks again when all that failed is what
    /// somebody else was at: the Engine may still be at a request of a run that was killed.
    async fn bring_about(
        &self,
        mut found: (Machine, State),
        services: &[CompleteService],
        args: &ChangeArgs,
        look: impl AsyncFn((Machine, State)) -> Result<(Diff, Machine), Error>,
    ) -> Result<ExitStatus, Error> {
        let (mut steps, mut warned) = (0, false);
        for round in 1.. {
            let (diff, machine) = self.interrupt.or(look(found)).await?;
            if !warned {
                self.report.warnings(&diff.warnings);
                warned = true;
            }
            if args.dry_run {
                return self.dry_run(diff);
            }
            let (result, started) = self.apply(&diff, &machine).await;
            if matches!(&result, Err(error) if error.status == ExitStatus::Interrupted) {
                return result.map(|()| ExitStatus::Done);
            }
            // Who was started in vain is told even when something else failed.
            let settled = self.settle(&machine, services, &started);
            let all_live = self.interrupt.or(settled).await?;
            match result {
                Err(error) if error.is_race() && round < super::ROUNDS => {
                    tokio::time::sleep(RACE_PAUSE).await;
                    // What is to be started waits until its slice is tried.
                    found = observe::machine(self.plan).await?;
                    preflight::engine(&found.1)?;
                    continue;
                }
                result => result?,
            }
            none_of(diff.errors)?;
            if !all_live {
                return Ok(ExitStatus::Failed);
            }
            steps += diff.steps.len();
            break;
        }
        self.report.finished(steps, self.begun.elapsed());
        Ok(ExitStatus::Done)
    }
}

/// The services of a selection with what they depend on, their files read.
///
/// # Errors
/// What is wrong with the files that they name.
pub(super) fn complete(selection: &Selection) -> Result<Vec<CompleteService>, Problems> {
    let env = selection.env;
    let variable = |name: &str| {
        let own = std::env::var(name).ok();
        own.or_else(|| env.variables.get(name).cloned())
    };
    let files = ServiceFiles {
        read: &service_files::read,
        variable: &variable,
    };
    let services = selection.with_dependencies().into_iter().cloned();
    plan::complete(services.collect(), &files)
}

/// Whether every service that was named can run here.
fn check_services(selection: &Selection) -> Result<(), Error> {
    let (env, host) = (selection.env, &selection.host.name);
    let mut wrong = Vec::new();
    for name in selection.named {
        let known = env.services.iter().map(|service| service.name.as_str());
        match env.services.iter().find(|service| service.name == *name) {
            None => wrong.push(Diagnostic::error(
                format!("environment `{}` has no service `{name}`", env.name),
                suggestion(name, known, "services"),
            )),
            Some(service) if service.host != *host => wrong.push(Diagnostic::error(
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
    Err(Error {
        status: ExitStatus::Usage,
        diagnostics: wrong,
    })
}
