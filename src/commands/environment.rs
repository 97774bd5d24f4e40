//! The services of an environment: up and down.

use super::Home;
use crate::cli::{Change, Environment};
use crate::diff::containers::{self, Selection};
use crate::diff::{self, Diff, network};
use crate::failure::{Blocker, DONE, FAILED, Failure, USAGE};
use crate::observe::{self, Lan, Machine};
use crate::plan::{Env, Host, Service};
use crate::problem::{self, suggestion};
use std::time::Duration;

/// How long a container that was just started must live to count as started.
const SETTLING: Duration = Duration::from_millis(500);

impl Home<'_> {
    /// `homelab env-up`; returns the exit status.
    ///
    /// # Errors
    /// Everything that stands in the way or goes wrong.
    pub async fn env_up(&self, options: &Environment) -> Result<u8, Failure> {
        let name = self.env_name(options)?;
        let env = self.env(&name)?;
        let (machine, mut state) = observe::machine(self.plan).await?;
        let host = self.host(&state)?;
        let selection = self.selection(env, host, options);
        check_services(&selection)?;
        let mut services: Vec<Service> =
            selection.with_dependencies().into_iter().cloned().collect();
        if let Err(problems) = observe::environments(&mut services) {
            let problems = problem::in_order(problems);
            self.report
                .problems(&problems, &self.file.text, &self.file.shown());
            return Ok(USAGE);
        }
        diff::preflight::engine(&state)?;
        let warnings = network::ready(self.plan, host, env, &state)?;
        self.report.warnings(&warnings);
        observe::services(&machine, self.plan, env, &services, Lan::Asked, &mut state).await?;
        let diff = containers::up(&selection, &services, &state)?;
        self.carry_out(&diff, &options.change, &machine).await
    }

    /// `homelab env-down`; returns the exit status.
    ///
    /// # Errors
    /// Everything that stands in the way or goes wrong.
    pub async fn env_down(&self, options: &Environment) -> Result<u8, Failure> {
        let name = self.env_name(options)?;
        let (machine, state) = observe::machine(self.plan).await?;
        diff::preflight::engine(&state)?;
        let made = || state.docker.of_environment(&name);
        let is_planned = self.plan.env(&name).is_some();
        if !is_planned && made().next().is_some() && options.services.is_empty() {
            let diff = containers::down_unplanned(&name, &state);
            return self.carry_out(&diff, &options.change, &machine).await;
        }
        let env = self.env(&name)?;
        let host = self.host(&state)?;
        let selection = self.selection(env, host, options);
        let has_container = |service: &String| made().any(|(of, _)| of == service);
        if !options.services.iter().all(has_container) {
            check_services(&selection)?;
        }
        let diff = containers::down(&selection, &state);
        self.carry_out(&diff, &options.change, &machine).await
    }

    fn env_name(&self, options: &Environment) -> Result<String, Failure> {
        let name = options
            .env
            .clone()
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

    fn env(&self, name: &str) -> Result<&Env, Failure> {
        let known = self.plan.envs.iter().map(|env| env.name.as_str());
        self.plan.env(name).ok_or_else(|| {
            Failure::usage(
                format!("the plan has no environment `{name}`"),
                suggestion(name, known, "environments"),
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
            plan: self.plan,
            env,
            host: &host.name,
            named: &options.services,
            remove_orphans: options.remove_orphans,
        }
    }

    /// Prints the steps of an environment or carries them out; returns the exit status.
    async fn carry_out(
        &self,
        diff: &Diff,
        change: &Change,
        machine: &Machine,
    ) -> Result<u8, Failure> {
        self.report.warnings(&diff.warnings);
        if change.dry_run {
            return Ok(self.dry_run(diff));
        }
        let (result, started) = self.apply(diff, machine).await;
        // Who was started in vain is told even when something else failed.
        let all_live = self.settle(machine, &started).await?;
        result?;
        if !all_live {
            return Ok(FAILED);
        }
        self.report.finished(diff.steps.len(), self.begun.elapsed());
        Ok(DONE)
    }

    /// Whether the containers that were started still live a moment later; the others are reported.
    async fn settle(&self, machine: &Machine, started: &[String]) -> Result<bool, Failure> {
        let Some(engine) = machine.engine.as_ref().filter(|_| !started.is_empty()) else {
            return Ok(true);
        };
        tokio::time::sleep(SETTLING).await;
        let deaths = started.iter().map(|name| engine.death(name));
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
