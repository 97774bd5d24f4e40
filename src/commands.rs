//! One function for each command that looks at the machine: observe, diff, then print the steps or carry them out.

mod environment;
mod inspect;
pub mod interrupt;
pub mod load;
mod network;
mod shim;
mod shim_plan;
pub mod shim_service;
mod started;
mod status;
mod verify;

use crate::apply::{self, Event};
use crate::cli::{ChangeArgs, Global};
use crate::diff::step::ContainerAction;
use crate::diff::{self, Diff, Request, net_raw, preflight};
use crate::error::{Diagnostic, Error, ExitStatus, none_of};
use crate::input::problem::{Sources, suggestion};
use crate::observe;
use crate::plan::{Host, Plan};
use crate::report::{Progress, Report};
use crate::state::State;
use crate::system::Machine;
use crate::system::turn::{self, Turn};
use interrupt::Interrupt;
use load::PlanFile;
use started::Started;
use std::collections::BTreeSet;
use std::time::Instant;

/// How often the network is made as planned before homelab gives up on it.
const ROUNDS: usize = 3;

/// What every command works with.
pub struct Context<'a> {
    /// The plan's own file.
    pub file: &'a PlanFile,
    /// The texts of all files, for messages about their places.
    pub sources: &'a Sources,
    /// What they say.
    pub plan: &'a Plan,
    /// The options of every command.
    pub global: &'a Global,
    /// How to print.
    pub report: Report,
    /// When the command began.
    pub begun: Instant,
    /// Whether it shall end.
    pub interrupt: Interrupt,
}

impl Context<'_> {
    /// Carries the steps out and looks again until nothing is left to do: the Engine may still be at a request of a run
    /// that was killed, and something else may change what was just made.
    async fn converge(
        &self,
        args: &ChangeArgs,
        request: &Request<'_>,
        (machine, state): (&Machine, &State),
    ) -> Result<ExitStatus, Error> {
        let mut diff = diff::diff(request, self.plan, state)?;
        self.report.warnings(&diff.warnings);
        if args.dry_run {
            return self.dry_run(diff);
        }
        preflight::permission(&diff, state)?;
        let mut steps = 0;
        let mut kept_parents = BTreeSet::new();
        for round in 0..=ROUNDS {
            if diff.steps.is_empty() {
                none_of(diff.errors)?;
                self.report.finished(steps, self.begun.elapsed());
                return Ok(ExitStatus::Done);
            }
            if round < ROUNDS {
                match self.apply(&diff, machine).await.0 {
                    Ok(()) => steps += diff.steps.len(),
                    Err(error) => match error.kept_parents() {
                        Some(kept) if kept.iter().any(|one| !kept_parents.contains(one)) => {
                            self.report.warnings(&[diff::network::kept(&kept)]);
                            kept_parents.extend(kept);
                        }
                        _ => return Err(error),
                    },
                }
                let (_, seen) = observe::machine(self.plan).await?;
                let state = State {
                    answered: state.answered.clone(),
                    kept_parents: kept_parents.clone(),
                    ..seen
                };
                diff = diff::diff(request, self.plan, &state)?;
            }
        }
        let left = diff.steps.iter().map(|step| {
            let text = step.action.text();
            Diagnostic::error(
                format!(
                    "{} {} is not as planned although it was just made so: {}",
                    text.kind, text.name, step.cause
                ),
                "something else on this machine changes it, such as a network manager",
            )
        });
        Err(left.collect::<Vec<_>>().into())
    }

    /// Waits until nobody else changes this machine, and says for whom. A dry run looks whenever it likes.
    ///
    /// # Errors
    /// When it shall not wait.
    async fn turn(&self, args: &ChangeArgs) -> Result<Option<Turn>, Error> {
        if args.dry_run {
            return Ok(None);
        }
        let mut told = String::new();
        loop {
            let holder = match turn::take()? {
                Ok(turn) => return Ok(Some(turn)),
                Err(holder) => holder,
            };
            if args.no_wait {
                return Err(Error::new(
                    format!("{} is changing this machine", holder.words),
                    "run the command again when that has ended, or without `--no-wait`",
                ));
            }
            if told != holder.words {
                self.report.note(&format!("waiting for {}", holder.words));
                told.clone_from(&holder.words);
            }
            let ended = async {
                holder.ends().await;
                Ok(())
            };
            self.interrupt.or(ended).await?;
        }
    }

    /// The host of the plan that this machine is.
    fn host(&self, state: &State) -> Result<&Host, Error> {
        host_of(self.plan, self.global, state)
    }

    /// Names what on a host can undo the isolation: by the plan, and left over from an older version.
    fn warn_of_ways_out(&self, host: &Host, state: &State) {
        self.report.warnings(&self.plan.ways_out_on(host));
        let left_over = net_raw::left_over_on(self.plan, host, state);
        self.report.warnings(&left_over);
    }

    /// Prints the steps, and fails with what is in the way of the rest.
    fn dry_run(&self, diff: Diff) -> Result<ExitStatus, Error> {
        self.report.dry_run(&diff);
        none_of(diff.errors)?;
        Ok(if diff.steps.is_empty() {
            ExitStatus::Done
        } else {
            ExitStatus::Different
        })
    }

    /// Carries the steps out; also returns the containers that were started.
    async fn apply(&self, diff: &Diff, machine: &Machine) -> (Result<(), Error>, Vec<Started>) {
        let mut started = Vec::new();
        let mut progress = Progress::new(self.report, diff.steps.len());
        let interrupted = self.interrupt.raised();
        let result = apply::apply(&diff.steps, machine, interrupted, |event| {
            progress.tell(event);
            if let Event::Done(step, took) = event
                && let Some(name) = step.action.container().and_then(ContainerAction::started)
            {
                let name = name.to_owned();
                started.push(Started { name, took });
            }
        })
        .await;
        progress.end();
        (result, started)
    }
}

/// The host of the plan that this machine is: the one that was named, else the one whose address it has.
///
/// # Errors
/// When there is none.
fn host_of<'a>(plan: &'a Plan, global: &Global, state: &State) -> Result<&'a Host, Error> {
    if let Some(name) = &global.host {
        return host_named(plan, name);
    }
    plan.host_at(&state.own_addresses()).ok_or_else(|| {
        let hosts = plan.hosts.iter();
        let addresses = hosts.map(|host| format!("{} ({})", host.address, host.name));
        Error::new(
            format!(
                "this machine is no host of the plan: it has none of the addresses {}",
                addresses.collect::<Vec<_>>().join(", ")
            ),
            "correct `[hosts]` (`ip addr` shows this machine's addresses), or name one by `--host`; `homelab network-down` takes away what was made here",
        )
    })
}

/// The host of that name.
///
/// # Errors
/// When the plan has none.
pub fn host_named<'a>(plan: &'a Plan, name: &str) -> Result<&'a Host, Error> {
    let known = plan.hosts.iter().map(|host| host.name.as_str());
    plan.host(name).ok_or_else(|| {
        Error::usage(
            format!("the plan has no host `{name}`"),
            suggestion(name, known, "hosts"),
        )
    })
}
