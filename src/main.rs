//! `homelab`: containers with addresses of their own on the home network.
//!
//! The flow, each phase in the file of its name:
//!
//! ```text
//! homelab.toml -> config -> plan -> (observe) -> diff -> steps -> apply -> report
//! ```
//!
//! `config`, `plan` and `diff` are pure. `observe` reads, `apply` changes, `report` prints; `netlink` and `docker` are the
//! only ones who talk to the kernel and to the Engine. There is no state file: labels and link aliases are the state.

mod apply;
mod cli;
mod config;
mod diff;
mod docker;
mod failure;
mod netlink;
mod observe;
mod plan;
mod problem;
mod report;
mod state;

use anyhow::Context as _;
use clap::Parser as _;
use cli::{Change, Cli, Command, Environment, Global};
use diff::containers::{self, Selection};
use diff::{Action, Diff, network};
use failure::{Blocker, DIFFERENT, DONE, FAILED, Failure, USAGE};
use observe::Machine;
use plan::{Env, Host, Plan, Service};
use problem::{Problem, nearest};
use report::Report;
use state::State;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How long a container that was just started must live to count as started.
const SETTLING: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    let cli = Cli::parse();
    let report = Report {
        json: cli.global.json,
        quiet: cli.global.quiet,
        verbose: cli.global.verbose,
    };
    match run(&cli, report) {
        Ok(status) => ExitCode::from(status),
        Err(error) => match error.downcast_ref::<Failure>() {
            Some(failure) => {
                report.failure(failure);
                ExitCode::from(failure.status)
            }
            None => {
                report.unexpected(&error);
                ExitCode::from(FAILED)
            }
        },
    }
}

fn run(cli: &Cli, report: Report) -> anyhow::Result<u8> {
    let file = File::read(&cli.global)?;
    let Some((plan, warnings)) = file.compile(report) else {
        return Ok(USAGE);
    };
    if matches!(cli.command, Command::Check) {
        report::address_plan(report, &plan);
        report.problems(&warnings, &file.text, &file.shown());
        return Ok(DONE);
    }
    if report.verbose {
        report.problems(&warnings, &file.text, &file.shown());
    }
    let home = Home {
        file: &file,
        plan: &plan,
        global: &cli.global,
        report,
        begun: Instant::now(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the kernel gives no event queue")?;
    runtime.block_on(async {
        match &cli.command {
            Command::Check => Ok(DONE),
            Command::NetworkUp(change) => home.network_up(change).await,
            Command::NetworkDown(change) => home.network_down(change).await,
            Command::EnvUp(environment) => home.env_up(environment).await,
            Command::EnvDown(environment) => home.env_down(environment).await,
        }
    })
}

/// homelab.toml.
struct File {
    path: PathBuf,
    text: String,
}

impl File {
    /// Finds and reads it.
    fn read(global: &Global) -> Result<Self, Failure> {
        let usual = ["homelab.toml", "/etc/homelab/homelab.toml"];
        let found = || usual.iter().map(PathBuf::from).find(|path| path.exists());
        let Some(path) = global.config.clone().or_else(found) else {
            return Err(Failure::usage(
                "there is no homelab.toml in this folder and none in /etc/homelab",
                "name the file by `--config FILE`, or by the variable HOMELAB_CONFIG",
            ));
        };
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Self { path, text }),
            Err(error) => {
                let why = match error.kind() {
                    std::io::ErrorKind::NotFound => "does not exist",
                    std::io::ErrorKind::PermissionDenied => "may not be read",
                    std::io::ErrorKind::InvalidData => "is not UTF-8 text",
                    std::io::ErrorKind::IsADirectory => "is a folder",
                    _ => "cannot be read",
                };
                Err(Failure::usage(
                    format!("`{}` {why}", path.display()),
                    "name the file by `--config FILE`, or by the variable HOMELAB_CONFIG",
                ))
            }
        }
    }

    fn shown(&self) -> String {
        self.path.display().to_string()
    }

    /// Compiles it, and reports what is wrong.
    fn compile(&self, report: Report) -> Option<(Plan, Vec<Problem>)> {
        let folder = std::path::absolute(&self.path).unwrap_or_else(|_| self.path.clone());
        let folder = folder.parent().unwrap_or(Path::new("/"));
        let compiled = config::parse(&self.text)
            .and_then(|(config, problems)| plan::compile(&config, folder, problems));
        match compiled {
            Ok(compiled) => Some(compiled),
            Err(problems) => {
                report.problems(&problems, &self.text, &self.shown());
                None
            }
        }
    }
}

/// What every command works with.
struct Home<'a> {
    file: &'a File,
    plan: &'a Plan,
    global: &'a Global,
    report: Report,
    begun: Instant,
}

impl Home<'_> {
    async fn network_up(&self, change: &Change) -> anyhow::Result<u8> {
        let (machine, state) = observe::machine().await?;
        let host = self.host(&state)?;
        let diff = network::up(self.plan, host, &state).map_err(Failure::from)?;
        if !change.dry_run {
            self.check_shim_is_free(host, &diff, &machine).await?;
        }
        let (status, _) = self.carry_out(&diff, change, &machine).await?;
        if status == DONE && !diff.steps.is_empty() {
            self.look_again(|state| network::up(self.plan, host, state))
                .await?;
        }
        Ok(status)
    }

    /// Whether another machine has the address of a shim that is about to be made: two that answer for one address break
    /// each other.
    async fn check_shim_is_free(
        &self,
        host: &Host,
        diff: &Diff,
        machine: &Machine,
    ) -> Result<(), Failure> {
        let parent = diff.steps.iter().find_map(|step| match &step.action {
            Action::AddLink { name, parent, .. } if *name == self.plan.shim_name => Some(parent),
            _ => None,
        });
        let Some(parent) = parent else { return Ok(()) };
        let answering = machine.netlink.answering(parent, &[host.shim]).await?;
        if answering.is_empty() {
            return Ok(());
        }
        Err(Failure::new(
            format!(
                "another machine on the LAN answers for {}, the address of this host's shim",
                host.shim
            ),
            format!(
                "give host `{}` another `shim`, or take the address from that machine; `ip neigh show {}` tells its hardware address",
                host.name, host.shim
            ),
        ))
    }

    async fn network_down(&self, change: &Change) -> anyhow::Result<u8> {
        let (machine, state) = observe::machine().await?;
        let host = self.host(&state)?;
        let diff = network::down(self.plan, host, &state).map_err(Failure::from)?;
        let (status, _) = self.carry_out(&diff, change, &machine).await?;
        if status == DONE && !diff.steps.is_empty() {
            self.look_again(|state| network::down(self.plan, host, state))
                .await?;
        }
        Ok(status)
    }

    async fn env_up(&self, options: &Environment) -> anyhow::Result<u8> {
        let name = self.env_name(options)?;
        let env = self.env(&name)?;
        let (machine, mut state) = observe::machine().await?;
        let host = self.host(&state)?;
        let selection = self.selection(env, host, options);
        self.check_services(&selection)?;
        let mut services: Vec<Service> =
            selection.with_dependencies().into_iter().cloned().collect();
        if let Err(problems) = observe::environments(&mut services) {
            let problems = problem::in_order(problems);
            self.report
                .problems(&problems, &self.file.text, &self.file.shown());
            return Ok(USAGE);
        }
        diff::preflight::engine(&state).map_err(Failure::from)?;
        let warnings = network::ready(self.plan, host, env, &state).map_err(Failure::from)?;
        self.report.warnings(&warnings);
        observe::services(&machine, self.plan, env, &services, &mut state).await?;
        let diff = containers::up(&selection, &services, &state).map_err(Failure::from)?;
        let (status, started) = self.carry_out(&diff, &options.change, &machine).await?;
        Ok(self.settle(&machine, &started, status).await?)
    }

    async fn env_down(&self, options: &Environment) -> anyhow::Result<u8> {
        let name = self.env_name(options)?;
        let (machine, state) = observe::machine().await?;
        diff::preflight::engine(&state).map_err(Failure::from)?;
        let is_there = state
            .docker
            .containers
            .iter()
            .any(|container| container.service().is_some_and(|(env, _)| env == name));
        if self.plan.env(&name).is_none() && is_there && options.services.is_empty() {
            let diff = containers::down_unplanned(&name, &state);
            return Ok(self.carry_out(&diff, &options.change, &machine).await?.0);
        }
        let env = self.env(&name)?;
        let host = self.host(&state)?;
        let selection = self.selection(env, host, options);
        let has_container = |service: &String| {
            let of = (name.as_str(), service.as_str());
            let mut containers = state.docker.containers.iter();
            containers.any(|container| container.service() == Some(of))
        };
        if !options.services.iter().all(has_container) {
            self.check_services(&selection)?;
        }
        let diff = containers::down(&selection, &state);
        Ok(self.carry_out(&diff, &options.change, &machine).await?.0)
    }

    /// The host of the plan that this machine is.
    fn host(&self, state: &State) -> Result<&Host, Failure> {
        let hosts = || self.plan.hosts.iter().map(|host| host.name.as_str());
        let Some(name) = &self.global.host else {
            return self.plan.host_at(&state.own_addresses()).ok_or_else(|| {
                let addresses: Vec<String> = self
                    .plan
                    .hosts
                    .iter()
                    .map(|host| format!("{} ({})", host.address, host.name))
                    .collect();
                Failure::new(
                    format!(
                        "this machine is no host of the plan: it has none of the addresses {}",
                        addresses.join(", ")
                    ),
                    "run homelab on one of these hosts, or correct `[hosts]`; `ip addr` shows this machine's addresses",
                )
            });
        };
        self.plan.host(name).ok_or_else(|| {
            Failure::usage(
                format!("the plan has no host `{name}`"),
                guess(name, hosts(), "hosts"),
            )
        })
    }

    fn env_name(&self, options: &Environment) -> Result<String, Failure> {
        let name = options
            .env
            .clone()
            .or_else(|| self.plan.default_env.clone());
        name.ok_or_else(|| {
            Failure::usage(
                "no environment was given, and the file has no `default_env`",
                guess(
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
                guess(name, known, "environments"),
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

    /// Whether every service that was named can run here.
    fn check_services(&self, selection: &Selection) -> Result<(), Failure> {
        let (env, host) = (selection.env, selection.host);
        let mut wrong = Vec::new();
        for name in selection.named {
            let known = env.services.iter().map(|service| service.name.as_str());
            match env.services.iter().find(|service| service.name == *name) {
                None => wrong.push(Blocker::new(
                    format!("environment `{}` has no service `{name}`", env.name),
                    guess(name, known, "services"),
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

    /// Prints the steps or carries them out; returns the exit status and the containers that were started.
    async fn carry_out(
        &self,
        diff: &Diff,
        change: &Change,
        machine: &Machine,
    ) -> Result<(u8, Vec<String>), Failure> {
        self.report.warnings(&diff.warnings);
        if change.dry_run {
            self.report.dry_run(diff);
            let status = if diff.steps.is_empty() {
                DONE
            } else {
                DIFFERENT
            };
            return Ok((status, Vec::new()));
        }
        let mut started = Vec::new();
        let result = apply::apply(&diff.steps, machine, |step, elapsed| {
            self.report.done(step, elapsed);
            if let Action::StartContainer { name } = &step.action {
                started.push(name.clone());
            }
        })
        .await;
        if let Err(failure) = result {
            // Who was started in vain is told as well.
            self.settle(machine, &started, FAILED).await?;
            return Err(failure);
        }
        self.report.finished(diff.steps.len(), self.begun.elapsed());
        Ok((DONE, started))
    }

    /// After all steps nothing may be left to do.
    async fn look_again(
        &self,
        diff: impl Fn(&State) -> Result<Diff, Vec<Blocker>>,
    ) -> Result<(), Failure> {
        let (_, state) = observe::machine().await?;
        let left = diff(&state)?;
        if left.steps.is_empty() {
            return Ok(());
        }
        let left: Vec<Blocker> = left
            .steps
            .iter()
            .map(|step| {
                let words = step.action.words();
                Blocker::new(
                    format!(
                        "{} {} is not as planned although it was just made so: {}",
                        words.kind, words.name, step.cause
                    ),
                    "something else on this machine changes it, such as a network manager",
                )
            })
            .collect();
        Err(left.into())
    }

    /// Whether the containers that were started still live a moment later.
    async fn settle(
        &self,
        machine: &Machine,
        started: &[String],
        status: u8,
    ) -> Result<u8, Failure> {
        let Some(engine) = machine.engine.as_ref().filter(|_| !started.is_empty()) else {
            return Ok(status);
        };
        tokio::time::sleep(SETTLING).await;
        let deaths = started.iter().map(|name| engine.death(name));
        let deaths = futures_util::future::try_join_all(deaths).await?;
        let deaths: Vec<_> = deaths.into_iter().flatten().collect();
        self.report.deaths(&deaths);
        Ok(if deaths.is_empty() { status } else { FAILED })
    }
}

fn guess<'a>(name: &str, known: impl Iterator<Item = &'a str> + Clone, kind: &str) -> String {
    match nearest(name, known.clone()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => {
            let known: Vec<String> = known.map(|name| format!("`{name}`")).collect();
            format!("the {kind} are {}", known.join(", "))
        }
    }
}
