//! One function for each command that looks at the machine: observe, diff, then print the steps or carry them out.

mod environment;
mod inspect;
pub mod load;
mod shim;
mod shim_service;
mod status;

use crate::apply::{self, Event};
use crate::cli::{Change, Global};
use crate::commands::load::File;
use crate::diff::{self, Diff, network};
use crate::error::{Blocker, DIFFERENT, DONE, Failure, INTERRUPTED};
use crate::input::compose::Project;
use crate::input::problem::{Sources, suggestion};
use crate::observe;
use crate::plan::{Host, Plan};
use crate::report::{Progress, Report};
use crate::state::State;
use crate::system::Machine;
use std::time::{Duration, Instant};

/// How often the network is made as planned before homelab gives up on it.
const ROUNDS: usize = 3;

/// Signals this close together are one: timeout(1) sends its own to the process and to its group.
const ONE_SIGNAL: Duration = Duration::from_millis(500);

/// What every command works with.
pub struct Home<'a> {
    /// The file.
    pub file: &'a File,
    /// The texts of all files, for messages about their places.
    pub sources: &'a Sources,
    /// What they say.
    pub plan: &'a Plan,
    /// The Compose files of each environment, in the order of the plan.
    pub projects: &'a [Project],
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
        self.check_shim_is_free(change, host, &diff, (&machine, &state))
            .await?;
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
        let mut progress = Progress::new(self.report, diff.steps.len());
        let result = apply::apply(&diff.steps, machine, interrupted(), |event| {
            progress.tell(event);
            if let Event::Done(step, _) = event
                && let Some(name) = step.action.started()
            {
                started.push(name.to_owned());
            }
        })
        .await;
        progress.end();
        (result, started)
    }
}

/// Over when somebody presses Ctrl-C or ends the process politely. Whoever does so again ends it at once: every command can
/// be killed anywhere and run again.
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        return std::future::pending().await;
    };
    let mut either = async move || {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    either().await;
    tokio::spawn(async move {
        let mut echoes = std::pin::pin!(tokio::time::sleep(ONE_SIGNAL));
        loop {
            tokio::select! {
                () = &mut echoes => break,
                () = either() => {}
            }
        }
        either().await;
        std::process::exit(i32::from(INTERRUPTED));
    });
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
