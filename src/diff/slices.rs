//! The slices that keep environments apart: what the plan wants against what systemd has. Pure.

use super::{Action, Diff, StepId};
use crate::error::Blocker;
use crate::plan::unit_files;
use crate::plan::{Limits, PARENT_SLICE, Plan, Slice, slice_name};
use crate::state::{self, State};
use ipnet::Ipv4Net;

/// Where `systemctl set-property` puts its drop-ins, one for each property.
const SET_PROPERTY: [&str; 2] = [
    "/run/systemd/system.control/",
    "/etc/systemd/system.control/",
];

/// What has to be done about slices.
#[derive(Default)]
pub(super) struct Changes {
    write: Vec<(Slice, String)>,
    apply: Vec<(String, String)>,
    overrides: Vec<String>,
    stop: Vec<String>,
    remove: Vec<(String, String)>,
}

/// Finds what has to be done so that there are the slices of the plan, and what stands in the way. Where isolation cannot
/// be enforced nothing is.
pub(super) fn up(
    plan: &Plan,
    state: &State,
    diff: &mut Diff,
    blockers: &mut Vec<Blocker>,
) -> Changes {
    let mut changes = Changes::default();
    let wanted: Vec<Slice> = plan.slices().collect();
    for slice in &wanted {
        changes.want(slice, state, blockers);
    }
    for slice in &state.systemd.slices {
        if !slice.is_ours() || wanted.iter().any(|wanted| wanted.name == slice.name) {
            continue;
        }
        let env = plan
            .envs
            .iter()
            .find(|env| slice_name(&env.name) == slice.name);
        match env {
            _ if !slice.populated => changes.remove(slice, "the plan does not want it"),
            // The network of a former environment stays as long as containers are attached, and so does its slice.
            None => {}
            Some(env) => {
                let without_rules = Slice {
                    name: slice.name.clone(),
                    env: env.name.clone(),
                    deny: Vec::new(),
                    allow: Vec::new(),
                    limits: Limits::default(),
                };
                changes.want(&without_rules, state, blockers);
                diff.warn(
                    format!("containers still run in slice `{}`, which the plan does not want", slice.name),
                    format!(
                        "it denies them nothing any more; `homelab env-up --env {}` makes them anew, and then `homelab network-up` removes it",
                        env.name
                    ),
                );
            }
        }
    }
    changes
}

/// Finds what has to be done so that no slice of ours is left.
pub(super) fn down(state: &State, blockers: &mut Vec<Blocker>) -> Changes {
    let mut changes = Changes::default();
    let ours = state.systemd.slices.iter().filter(|slice| slice.is_ours());
    for slice in ours {
        if slice.populated && !blockers.is_empty() {
            // Those are the containers that are in the way already.
        } else if slice.populated {
            blockers.push(Blocker::new(
                format!("processes run in slice `{}`", slice.name),
                format!(
                    "end them first; `systemd-cgls -u {}` shows them",
                    slice.name
                ),
            ));
        } else {
            changes.remove(slice, "homelab made it");
        }
    }
    // systemd made it by itself for the others and keeps it.
    let parent = state.systemd.slice(PARENT_SLICE);
    if parent.is_some_and(|parent| parent.active && !parent.populated && parent.file.is_none()) {
        changes.stop.push(PARENT_SLICE.to_owned());
    }
    changes
}

/// Whether an environment's slice is as planned.
///
/// # Errors
/// What is different.
pub(super) fn ready(slice: &Slice, state: &State) -> Result<(), String> {
    let name = &slice.name;
    let found = state.systemd.slice(name);
    match found {
        Some(found) if found.file.is_some() => match difference(slice, found) {
            None => Ok(()),
            Some(what) => Err(format!("slice `{name}` is not in force: {what}")),
        },
        _ => Err(format!("there is no slice `{name}`")),
    }
}

/// How a slice that has a file differs from the plan.
fn difference(slice: &Slice, found: &state::Slice) -> Option<String> {
    if found.file.as_deref() != Some(unit_files::slice(slice).as_str()) {
        return Some("it changed".to_owned());
    }
    if found.stale || found.pending {
        return Some("running containers may not follow it yet".to_owned());
    }
    if let Some(path) = found
        .overrides
        .first()
        .filter(|_| !is_effective(slice, found))
    {
        return Some(format!("`{path}` changes what it denies"));
    }
    (!is_effective(slice, found)).then(|| "systemd has not read it".to_owned())
}

/// Whether systemd denies at least what the plan denies and allows what it allows there. More may be denied by a drop-in of
/// the owner.
fn is_effective(slice: &Slice, found: &state::Slice) -> bool {
    let allowed: Vec<Ipv4Net> = slice.allow.iter().copied().map(Ipv4Net::from).collect();
    let is_denied = |net: &Ipv4Net| found.deny.iter().any(|denied| denied.contains(net));
    let overlap = |a: &Ipv4Net, b: &Ipv4Net| a.contains(b) || b.contains(a);
    let is_hole = |net: &Ipv4Net| {
        slice.deny.iter().any(|denied| overlap(denied, net)) && !allowed.contains(net)
    };
    slice.deny.iter().all(is_denied)
        && allowed
            .iter()
            .all(|net| found.allow.iter().any(|found| found.contains(net)))
        && !found.allow.iter().any(is_hole)
}

impl Changes {
    fn want(&mut self, slice: &Slice, state: &State, blockers: &mut Vec<Blocker>) {
        let name = &slice.name;
        let Some(found) = state
            .systemd
            .slice(name)
            .filter(|found| found.file.is_some())
        else {
            self.write
                .push((slice.clone(), "it does not exist".to_owned()));
            return;
        };
        if !found.is_ours() {
            blockers.push(Blocker::new(
                format!("there is a unit `{name}` that homelab did not make"),
                format!(
                    "remove `{}`, or give the environment another name",
                    unit_files::path(name)
                ),
            ));
            return;
        }
        let Some(what) = difference(slice, found) else {
            return;
        };
        let overrides = found
            .overrides
            .iter()
            .filter(|_| !is_effective(slice, found));
        for path in overrides {
            if SET_PROPERTY.iter().any(|folder| path.starts_with(folder)) {
                self.overrides.push(path.clone());
            } else {
                blockers.push(Blocker::new(
                    format!(
                        "`{path}` changes what slice `{name}` denies, and homelab did not make it"
                    ),
                    "take `IPAddressDeny=` and `IPAddressAllow=` out of it, then run this again",
                ));
            }
        }
        let is_written = found.file.as_deref() == Some(unit_files::slice(slice).as_str());
        if is_written && found.pending && is_effective(slice, found) {
            self.apply.push((name.clone(), what));
        } else {
            // Also when the text stays: a written file is pending until running processes follow it.
            self.write.push((slice.clone(), what));
        }
    }

    fn remove(&mut self, slice: &state::Slice, cause: &str) {
        if slice.active {
            self.stop.push(slice.name.clone());
        }
        self.remove.push((slice.name.clone(), cause.to_owned()));
    }

    /// Adds the steps. What is removed waits for the steps `after`.
    pub(super) fn steps(self, diff: &mut Diff, state: &State, after: &[StepId]) {
        let mut changed: Vec<StepId> = Vec::new();
        let mut applied = self.apply;
        for (slice, cause) in self.write {
            applied.push((slice.name.clone(), "running containers follow".to_owned()));
            let found = state.systemd.slice(&slice.name);
            let is_new = found.is_none_or(|found| found.file.is_none());
            let slice = Box::new(slice);
            changed.push(diff.push(Action::WriteSlice { slice, is_new }, cause, &[]));
        }
        let written = changed.clone();
        for path in self.overrides {
            let cause = "it undoes the isolation";
            changed.push(diff.push(Action::RemoveFile { path }, cause, &written));
        }
        // The tree goes from its leaves.
        let mut stopped = after.to_vec();
        for name in self.stop {
            stopped.push(diff.push(Action::StopUnit { name }, "nothing runs in it", &stopped));
        }
        for (name, cause) in self.remove {
            let path = unit_files::path(&name);
            changed.push(diff.push(Action::RemoveFile { path }, cause, &stopped));
        }
        if changed.is_empty() && applied.is_empty() {
            return;
        }
        let cause = "its files changed";
        let reloaded = diff.push(Action::ReloadSystemd, cause, &changed);
        for (name, cause) in applied {
            diff.push(Action::ApplySlice { name }, cause, &[reloaded]);
        }
    }
}
