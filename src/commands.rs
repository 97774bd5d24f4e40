//! One function for each command that looks at the machine: observe, diff, then print the steps or carry them out.

use crate::apply;
use crate::cli::{Change, Environment, Global, Run};
use crate::diff::containers::{self, Selection};
use crate::diff::{self, Action, Diff, network, shim};
use crate::failure::{Blocker, DIFFERENT, DONE, FAILED, Failure, USAGE};
use crate::file::File;
use crate::keeper::Keeper;
use crate::observe::{self, Lan, Machine};
use crate::plan::{Env, Host, Plan, Service};
use crate::problem::{self, suggestion};
use crate::report::{self, Report};
use crate::state::State;
use crate::status::{Differences, Status};
use crate::units::{self, ShimUnit};
use crate::verify;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often the network is made as planned before homelab gives up on it.
const ROUNDS: usize = 3;

/// How long a container that was just started must live to count as started.
const SETTLING: Duration = Duration::from_millis(500);

/// What every command works with.
pub struct Home<'a> {
    /// The file, for messages about its places.
    pub file: &'a File,
    /// What it says.
    pub plan: &'a Plan,
    /// The options of every command.
    pub global: &'a Global,
    /// How to print.
    pub report: Report,
    /// When the command began.
    pub begun: Instant,
}

impl Home<'_> {
    /// `homelab network-up`; returns the exit status.
    ///
    /// # Errors
    /// Everything that stands in the way or goes wrong.
    pub async fn network_up(&self, change: &Change) -> Result<u8, Failure> {
        let (machine, state) = observe::machine(self.plan).await?;
        let host = self.host(&state)?;
        self.check_the_units_file(change, &state)?;
        let diff = network::up(self.plan, host, &state)?;
        if !change.dry_run {
            self.check_shim_is_free(host, &diff, &machine, &state)
                .await?;
        }
        let again = |state: &State| network::up(self.plan, host, state);
        self.converge(change, diff, (&machine, &state), again).await
    }

    /// `homelab network-down`; returns the exit status.
    ///
    /// # Errors
    /// Everything that stands in the way or goes wrong.
    pub async fn network_down(&self, change: &Change) -> Result<u8, Failure> {
        let (machine, state) = observe::machine(self.plan).await?;
        let host = self.host(&state)?;
        let diff = network::down(self.plan, host, &state)?;
        let again = |state: &State| network::down(self.plan, host, state);
        self.converge(change, diff, (&machine, &state), again).await
    }

    /// Carries the steps out and looks again until nothing is left to do: the Engine may still be at a request of a run
    /// that was killed, and something else may change what was just made.
    async fn converge(
        &self,
        change: &Change,
        first: Diff,
        (machine, state): (&Machine, &State),
        again: impl Fn(&State) -> Result<Diff, Vec<Blocker>>,
    ) -> Result<u8, Failure> {
        self.report.warnings(&first.warnings);
        if change.dry_run {
            return Ok(self.dry_run(&first));
        }
        diff::preflight::permission(&first, state)?;
        let (mut diff, mut steps) = (first, 0);
        for round in 0..=ROUNDS {
            if diff.steps.is_empty() {
                self.report.finished(steps, self.begun.elapsed());
                return Ok(DONE);
            }
            if round < ROUNDS {
                self.apply(&diff, machine).await.0?;
                steps += diff.steps.len();
                diff = again(&observe::machine(self.plan).await?.1)?;
            }
        }
        let left = diff.steps.iter().map(|step| {
            let words = step.action.words();
            Blocker::new(
                format!(
                    "{} {} is not as planned although it was just made so: {}",
                    words.kind, words.name, step.cause
                ),
                "something else on this machine changes it, such as a network manager",
            )
        });
        Err(left.collect::<Vec<_>>().into())
    }

    /// Whether another machine has the address of a shim that is about to be made: two that answer for one address break
    /// each other.
    async fn check_shim_is_free(
        &self,
        host: &Host,
        diff: &Diff,
        machine: &Machine,
        state: &State,
    ) -> Result<(), Failure> {
        if diff.steps.is_empty() || state.link(&self.plan.shim_name).is_some() {
            return Ok(());
        }
        diff::preflight::permission(diff, state)?;
        let parent = diff::preflight::parent(self.plan, host, state)?;
        let asked = [host.shim];
        let answering = machine.netlink.answering(&parent.name, &asked).await?;
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

    /// Whether an installed service keeps the shim by this file: by two files it would never be right.
    fn check_the_units_file(&self, change: &Change, state: &State) -> Result<(), Failure> {
        let text = state.systemd.shim.file(&units::path(units::SHIM_UNIT));
        let unit = text.and_then(ShimUnit::parse);
        let own = self.file.absolute();
        let Some(unit) = unit.filter(|unit| Path::new(unit.file) != own) else {
            return Ok(());
        };
        let other = Blocker::new(
            format!(
                "`{}` keeps the shim as `{}` says, and this is `{}`",
                units::SHIM_UNIT,
                unit.file,
                own.display()
            ),
            format!(
                "use that file, `--config {}`; or make the service use this one: `homelab shim install`",
                unit.file
            ),
        );
        if change.dry_run {
            self.report.warnings(&[other]);
            return Ok(());
        }
        Err(other.into())
    }

    /// `homelab status`; returns the exit status.
    ///
    /// # Errors
    /// When the kernel, systemd or the Engine cannot be asked.
    pub async fn status(&self) -> Result<u8, Failure> {
        let (machine, mut state) = observe::machine(self.plan).await?;
        let host = self.host(&state)?;
        let mut differences = Differences::default();
        if let Some(Blocker { what, hint }) = &state.docker_missing {
            differences.differ("", what, hint);
            let up = shim::up(self.plan, host, &state);
            differences.add("homelab shim up", up);
        } else {
            let up = network::up(self.plan, host, &state);
            differences.add("homelab network-up", up);
            for env in &self.plan.envs {
                if let Err(Blocker { what, hint }) =
                    diff::preflight::isolation(self.plan, env, &state)
                {
                    differences.differ("", what, hint);
                }
                self.differences_of(env, host, &machine, &mut state, &mut differences)
                    .await?;
            }
        }
        let conditions = observe::conditions(&machine, &state).await?;
        let status = Status::new(self.plan, host, &state, &conditions, differences);
        report::status(self.report, &status);
        let differs = !status.differences.is_empty();
        Ok(if differs { DIFFERENT } else { DONE })
    }

    /// What env-up would do in an environment.
    async fn differences_of(
        &self,
        env: &Env,
        host: &Host,
        machine: &Machine,
        state: &mut State,
        differences: &mut Differences,
    ) -> Result<(), Failure> {
        let command = format!("homelab env-up --env {}", env.name);
        let selection = Selection {
            plan: self.plan,
            env,
            host: &host.name,
            named: &[],
            remove_orphans: false,
        };
        let planned = selection.with_dependencies();
        let mut services: Vec<Service> = planned.into_iter().cloned().collect();
        if let Err(problems) = observe::environments(&mut services) {
            for problem in problems {
                let hint = problem.hint.unwrap_or_default();
                differences.differ("", problem.what, hint);
            }
            return Ok(());
        }
        observe::services(machine, self.plan, env, &services, Lan::LeftAlone, state).await?;
        differences.add(&command, containers::up(&selection, &services, state));
        for (_, orphan) in selection.orphans(state) {
            differences.differ(
                &orphan.name,
                format!(
                    "container {}: the plan does not have it on this host",
                    orphan.name
                ),
                format!("`{command} --remove-orphans`"),
            );
        }
        Ok(())
    }

    /// `homelab verify`; returns the exit status.
    ///
    /// # Errors
    /// What keeps it from proving anything.
    pub async fn verify(&self) -> Result<u8, Failure> {
        let (machine, state) = observe::machine(self.plan).await?;
        let host = self.host(&state)?;
        diff::preflight::engine(&state)?;
        if !state.net_admin {
            return Err(Failure::new(
                "not permitted to enter the network of containers",
                "run homelab as root",
            ));
        }
        let matrix = verify::run(self.plan, host, &machine, &state).await?;
        report::matrix(self.report, self.plan, &matrix);
        let differs = matrix.differences().next().is_some();
        Ok(if differs { DIFFERENT } else { DONE })
    }

    /// `homelab shim up`; returns the exit status.
    ///
    /// # Errors
    /// Everything that stands in the way or goes wrong.
    pub async fn shim_up(&self, change: &Change) -> Result<u8, Failure> {
        let (machine, state) = observe::machine(self.plan).await?;
        let host = self.host(&state)?;
        self.check_the_units_file(change, &state)?;
        let diff = shim::up(self.plan, host, &state)?;
        if !change.dry_run {
            self.check_shim_is_free(host, &diff, &machine, &state)
                .await?;
        }
        let again = |state: &State| shim::up(self.plan, host, state);
        self.converge(change, diff, (&machine, &state), again).await
    }

    /// `homelab shim down`; returns the exit status.
    ///
    /// # Errors
    /// What goes wrong.
    pub async fn shim_down(&self, change: &Change) -> Result<u8, Failure> {
        let (machine, state) = observe::machine(self.plan).await?;
        let diff = shim::down(self.plan, &state);
        let again = |state: &State| Ok(shim::down(self.plan, state));
        self.converge(change, diff, (&machine, &state), again).await
    }

    /// `homelab shim install`; returns the exit status.
    ///
    /// # Errors
    /// Everything that stands in the way or goes wrong.
    pub async fn shim_install(&self, change: &Change) -> Result<u8, Failure> {
        let (machine, state) = observe::machine(self.plan).await?;
        let host = self.host(&state)?;
        let (program, file) = (own_path()?, self.file.absolute());
        check_readable(&file)?;
        let unit = ShimUnit {
            program: text_of(&program)?,
            file: text_of(&file)?,
            host: &host.name,
        };
        let diff = shim::install(self.plan, host, &unit, &state)?;
        if !change.dry_run {
            self.check_shim_is_free(host, &diff, &machine, &state)
                .await?;
        }
        let again = |state: &State| shim::install(self.plan, host, &unit, state);
        self.converge(change, diff, (&machine, &state), again).await
    }

    /// `homelab shim uninstall`; returns the exit status.
    ///
    /// # Errors
    /// What goes wrong.
    pub async fn shim_uninstall(&self, change: &Change) -> Result<u8, Failure> {
        let (machine, state) = observe::machine(self.plan).await?;
        let diff = shim::uninstall(self.plan, &state)?;
        let again =
            |state: &State| shim::uninstall(self.plan, state).map_err(|blocker| vec![blocker]);
        self.converge(change, diff, (&machine, &state), again).await
    }

    /// `homelab shim run`; returns the exit status when it is told to stop.
    ///
    /// # Errors
    /// When this host is not known, or the kernel cannot be listened to.
    pub async fn shim_run(&self, run: &Run) -> Result<u8, Failure> {
        let links = observe::links().await?;
        let host = self.host(&links)?;
        let keeper = Keeper {
            plan: self.plan,
            host,
            parent_links: &run.parent_links,
            report: self.report,
        };
        keeper.run().await
    }

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

    /// The host of the plan that this machine is.
    fn host(&self, state: &State) -> Result<&Host, Failure> {
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
        host_named(self.plan, name)
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

    fn dry_run(&self, diff: &Diff) -> u8 {
        self.report.dry_run(diff);
        if diff.steps.is_empty() {
            DONE
        } else {
            DIFFERENT
        }
    }

    /// Carries the steps out; also returns the containers that were started.
    async fn apply(&self, diff: &Diff, machine: &Machine) -> (Result<(), Failure>, Vec<String>) {
        let mut started = Vec::new();
        let result = apply::apply(&diff.steps, machine, |step, elapsed| {
            let Some(elapsed) = elapsed else {
                self.report.begun(step);
                return;
            };
            self.report.done(step, elapsed);
            if let Action::StartContainer { name } = &step.action {
                started.push(name.clone());
            }
        })
        .await;
        (result, started)
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

/// The absolute path of this program, for a unit to run.
///
/// # Errors
/// Where a unit cannot run it, or should not.
fn own_path() -> Result<PathBuf, Failure> {
    let path = std::env::current_exe().unwrap_or_default();
    // The unit sees no home folders and no temporary ones, and what runs at boot as a service should not be replaceable by
    // whoever owns those.
    let unseen = ["/home", "/root", "/run", "/tmp", "/var/tmp"];
    if path.is_absolute() && !unseen.iter().any(|folder| path.starts_with(folder)) {
        return Ok(path);
    }
    let shown = path.display();
    Err(Failure::new(
        format!("this program is `{shown}`, where no service can run it"),
        format!(
            "put it where programs are: `install {shown} /usr/local/bin/`, then run `/usr/local/bin/homelab shim install`"
        ),
    ))
}

/// Whether a service with a user of its own can read a file.
fn check_readable(file: &Path) -> Result<(), Failure> {
    // Of these folders the unit sees nothing but the file.
    let is_shown = ["/home", "/root", "/run/user"]
        .iter()
        .any(|folder| file.starts_with(folder));
    let is_open = |path: &Path, bits: u32| {
        std::fs::metadata(path).is_ok_and(|found| found.permissions().mode() & bits == bits)
    };
    let folders = file.ancestors().skip(1).filter(|_| !is_shown);
    let closed = folders.filter(|folder| !is_open(folder, 0o001)).last();
    if let Some(folder) = closed {
        return Err(Failure::new(
            format!(
                "`{}` may be entered by its owner only, and the service has a user of its own",
                folder.display()
            ),
            format!(
                "open it, `chmod o+x {}`, or put homelab.toml into /etc/homelab",
                folder.display()
            ),
        ));
    }
    if !is_open(file, 0o004) {
        return Err(Failure::new(
            format!(
                "`{}` may be read by its owner only, and the service has a user of its own",
                file.display()
            ),
            format!(
                "open it, `chmod o+r {}`; secrets belong into an `env_file`, which the service never reads",
                file.display()
            ),
        ));
    }
    Ok(())
}

/// A path that can stand in the file of a unit.
fn text_of(path: &Path) -> Result<&str, Failure> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "/._-+@~".contains(c);
    let text = path.to_str().filter(|text| text.chars().all(fits));
    text.ok_or_else(|| {
        Failure::new(
            format!(
                "the path `{}` cannot stand in the file of a unit",
                path.display()
            ),
            "choose one of letters, digits and `/._-`, such as /etc/homelab/homelab.toml",
        )
    })
}

/// The host of that name.
///
/// # Errors
/// When the plan has none.
pub fn host_named<'a>(plan: &'a Plan, name: &str) -> Result<&'a Host, Failure> {
    let known = plan.hosts.iter().map(|host| host.name.as_str());
    plan.host(name).ok_or_else(|| {
        Failure::usage(
            format!("the plan has no host `{name}`"),
            suggestion(name, known, "hosts"),
        )
    })
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
