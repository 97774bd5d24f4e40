//! Plan and state in, steps out: what has to be done, why, and what waits for what. Pure; `--dry-run` prints exactly this.

pub mod allocation;
pub mod containers;
pub mod difference;
pub mod lan;
mod links;
pub mod net_raw;
pub mod network;
pub mod preflight;
pub mod shim;
mod shim_service;
pub mod slices;
pub mod status;
pub mod step;
pub mod ways;

pub use containers::{PullPhase, Selection};
pub use step::{Diff, Step, StepId};

use crate::error::Error;
use crate::plan::unit_files::ShimUnit;
use crate::plan::{CompleteService, Host, Plan};
use crate::state::State;

/// What is wanted of a machine.
pub enum Request<'a> {
    /// The shim, the networks and the slices as planned. The unit is what an installed one becomes whose file was not written whole.
    NetworkUp(&'a Host, Option<ShimUnit<'a>>),
    /// Nothing that [`Request::NetworkUp`] makes.
    NetworkDown(&'a Host),
    /// Services of an environment that run. They are complete.
    EnvUp(&'a Selection<'a>, &'a [CompleteService]),
    /// No containers of services.
    EnvDown(&'a Selection<'a>),
    /// No containers of an environment that the plan does not have any more, or not on this machine.
    UnplannedEnvDown(&'a str),
    /// The shim alone; the unit as for [`Request::NetworkUp`].
    ShimUp(&'a Host, Option<ShimUnit<'a>>),
    /// No shim.
    ShimDown,
    /// The unit that keeps the shim alive.
    ShimInstall(&'a Host, ShimUnit<'a>),
    /// No such unit.
    ShimUninstall,
    /// What that unit itself wants: the shim, and the parent links that it was told of.
    ShimRun(&'a Host, &'a [String]),
    /// What it wants when it ends: none of those links that it kept; likewise when the plan has some of them no more.
    ShimRelease(&'a [String]),
}

/// The steps from what there is to what is wanted.
///
/// # Errors
/// Everything that stands in the way; nothing has been changed.
pub fn diff(request: &Request, plan: &Plan, state: &State) -> Result<Diff, Error> {
    match request {
        Request::NetworkUp(host, unit) => network::up(plan, host, *unit, state),
        Request::NetworkDown(host) => network::down(plan, host, state),
        Request::EnvUp(selection, services) => {
            preflight::engine(state)?;
            network::ready(plan, selection.host, selection.env, state)?;
            containers::up(selection, services, state)
        }
        Request::EnvDown(selection) => {
            preflight::engine(state)?;
            Ok(containers::down(selection, state))
        }
        Request::UnplannedEnvDown(env) => {
            preflight::engine(state)?;
            Ok(containers::down_unplanned(plan, env, state))
        }
        Request::ShimUp(host, unit) => shim::up(plan, host, *unit, state),
        Request::ShimDown => Ok(shim::down(plan, state)),
        Request::ShimInstall(host, unit) => shim::install(plan, host, unit, state),
        Request::ShimUninstall => shim::uninstall(plan, state),
        Request::ShimRun(host, parent_links) => shim::reconcile(plan, host, parent_links, state),
        Request::ShimRelease(links) => Ok(shim::release(plan, links, state)),
    }
}

/// `a`, `b` and `c`, each in backticks.
pub fn named<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> String {
    let quoted = names.into_iter().map(|n| format!("`{}`", n.as_ref()));
    let quoted: Vec<String> = quoted.collect();
    quoted.join(", ")
}

#[cfg(test)]
mod tests;
