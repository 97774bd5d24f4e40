//! The slices that keep environments apart: what the plan wants against what systemd has. Pure.

use super::difference::{Cause, Difference, Object};
use super::step::UnitAction;
use super::{Diff, StepId};
use crate::error::Diagnostic;
use crate::plan::naming::{PARENT_SLICE, slice_name};
use crate::plan::{Limits, Plan, PlannedSlice, joined, unit_files};
use crate::state::{Slice, State};
use ipnet::IpNet;

/// Where `systemctl set-property` puts its drop-ins, one for each property.
const SET_PROPERTY: [&str; 2] = [
    "/run/systemd/system.control/",
    "/etc/systemd/system.control/",
];

/// What has to be done about slices.
#[derive(Default)]
pub(super) struct SlicePlan {
    write: Vec<(PlannedSlice, Cause)>,
    apply: Vec<(String, Cause)>,
    overrides: Vec<String>,
    stop: Vec<String>,
    remove: Vec<(String, Cause)>,
}

/// Finds what has to be done so that there are the slices of the plan, and what stands in the way. Where isolation cannot
/// be enforced nothing is.
pub(super) fn up(plan: &Plan, state: &State, diff: &mut Diff) -> SlicePlan {
    let mut steps = SlicePlan::default();
    let wanted: Vec<PlannedSlice> = plan.slices().collect();
    for slice in &wanted {
        steps.want(slice, state, &mut diff.errors);
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
            _ if !slice.populated => steps.remove(slice, "the plan does not want it"),
            // The network of a former environment stays as long as containers are attached, and so does its slice.
            None => {}
            Some(env) => {
                let without_rules = PlannedSlice {
                    name: slice.name.clone(),
                    env: env.name.clone(),
                    deny: Vec::new(),
                    allow: Vec::new(),
                    limits: Limits::default(),
                };
                steps.want(&without_rules, state, &mut diff.errors);
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
    steps
}

/// Finds what has to be done so that no slice of ours is left.
pub(super) fn down(state: &State, diagnostics: &mut Vec<Diagnostic>) -> SlicePlan {
    let mut steps = SlicePlan::default();
    let ours = state.systemd.slices.iter().filter(|slice| slice.is_ours());
    for slice in ours {
        if slice.populated && !diagnostics.is_empty() {
            // Those are the containers that are in the way already.
        } else if slice.populated {
            diagnostics.push(Diagnostic::error(
                format!("processes run in slice `{}`", slice.name),
                format!(
                    "end them first; `systemd-cgls -u '{}'` shows them",
                    slice.name
                ),
            ));
        } else {
            steps.remove(slice, "homelab made it");
        }
    }
    // systemd made it by itself for the others and keeps it.
    let mut slices = state.systemd.slices.iter();
    let has_strangers =
        slices.any(|slice| slice.name != PARENT_SLICE && slice.active && !slice.is_ours());
    let parent = state.systemd.slice(PARENT_SLICE).filter(|_| !has_strangers);
    if parent.is_some_and(|parent| parent.active && !parent.populated && parent.file.is_none()) {
        steps.stop.push(PARENT_SLICE.to_owned());
    }
    steps
}

/// Whether an environment's slice is as planned.
///
/// # Errors
/// What is different.
pub(super) fn ready(slice: &PlannedSlice, state: &State) -> Result<(), String> {
    let name = &slice.name;
    let found = state.systemd.slice(name);
    match found {
        Some(found) if found.file.is_some() => match difference(slice, found) {
            None => Ok(()),
            Some(cause) => Err(format!("slice `{name}` is not in force: {}", cause.text)),
        },
        _ => Err(format!("there is no slice `{name}`")),
    }
}

/// How a slice that has a file differs from the plan.
fn difference(slice: &PlannedSlice, found: &Slice) -> Option<Cause> {
    let differs = |field: &str, found: &str, planned: &str| -> Difference {
        let (found, planned) = (found.to_owned(), planned.to_owned());
        object(&slice.name).differs(field, Some(found), Some(planned))
    };
    let (text, planned) = (found.file.as_deref(), unit_files::slice(slice));
    if text.is_some_and(|text| unit_files::is_cut_off(text, &planned)) {
        let difference = differs("file", "cut off", "whole");
        return Some(difference.because("it was not written whole"));
    }
    if text != Some(planned.as_str()) {
        let difference = object(&slice.name).differs("file", None, None);
        return Some(difference.because("it changed"));
    }
    if found.stale || found.pending {
        let difference = differs("state", "written", "applied");
        return Some(difference.because("running containers may not follow it yet"));
    }
    if is_effective(slice, found) {
        return None;
    }
    let list = |deny: &[IpNet]| match deny {
        [] => "empty".to_owned(),
        nets => joined(nets, " "),
    };
    let difference = if slice.deny.iter().all(|net| is_denied(*net, found)) {
        differs("IPAddressAllow", &list(&found.allow), &list(&slice.allow))
    } else {
        differs("IPAddressDeny", &list(&found.deny), &list(&slice.deny))
    };
    Some(match found.overrides.first() {
        Some(path) => difference.because(format!("`{path}` changes what it denies")),
        None => difference.because("systemd has not read it"),
    })
}

fn object(name: &str) -> Object {
    Object::new("slice", name)
}

fn is_denied(net: IpNet, found: &Slice) -> bool {
    found.deny.iter().any(|denied| denied.contains(&net))
}

/// Whether systemd denies at least what the plan denies and allows what it allows there. More may be denied by a drop-in of
/// the owner.
fn is_effective(slice: &PlannedSlice, found: &Slice) -> bool {
    let overlap = |a: &IpNet, b: &IpNet| a.contains(b) || b.contains(a);
    let is_hole = |net: &IpNet| {
        slice.deny.iter().any(|denied| overlap(denied, net)) && !slice.allow.contains(net)
    };
    slice.deny.iter().all(|net| is_denied(*net, found))
        && slice
            .allow
            .iter()
            .all(|net| found.allow.iter().any(|found| found.contains(net)))
        && !found.allow.iter().any(is_hole)
}

impl SlicePlan {
    fn want(&mut self, slice: &PlannedSlice, state: &State, diagnostics: &mut Vec<Diagnostic>) {
        let name = &slice.name;
        let Some(found) = state
            .systemd
            .slice(name)
            .filter(|found| found.file.is_some())
        else {
            self.write
                .push((slice.clone(), object(name).missing().into()));
            return;
        };
        if !found.is_ours() {
            diagnostics.push(Diagnostic::error(
                format!("there is a unit `{name}` that homelab did not make"),
                format!(
                    "remove `{}`, or give the environment another name",
                    unit_files::path(name)
                ),
            ));
            return;
        }
        let Some(cause) = difference(slice, found) else {
            return;
        };
        let overrides = found
            .overrides
            .iter()
            .filter(|_| !is_effective(slice, found));
        let (by_command, by_others): (Vec<&String>, Vec<&String>) =
            overrides.partition(|path| SET_PROPERTY.iter().any(|folder| path.starts_with(folder)));
        if !by_others.is_empty() {
            // To write the slice would change nothing.
            diagnostics.extend(by_others.into_iter().map(|path| {
                Diagnostic::error(
                    format!(
                        "`{path}` changes what slice `{name}` denies, and homelab did not make it"
                    ),
                    "take `IPAddressDeny=` and `IPAddressAllow=` out of it, then run this again",
                )
            }));
            return;
        }
        self.overrides.extend(by_command.into_iter().cloned());
        let is_written = found.file.as_deref() == Some(unit_files::slice(slice).as_str());
        if is_written && found.pending && is_effective(slice, found) {
            self.apply.push((name.clone(), cause));
        } else {
            // Also when the text stays: a written file is pending until running processes follow it.
            self.write.push((slice.clone(), cause));
        }
    }

    fn remove(&mut self, slice: &Slice, cause: &str) {
        if slice.active {
            self.stop.push(slice.name.clone());
        }
        let difference = object(&slice.name).unplanned();
        self.remove
            .push((slice.name.clone(), difference.because(cause)));
    }

    /// Adds the steps. What is removed waits for the steps `after`.
    pub(super) fn steps(self, diff: &mut Diff, state: &State, after: &[StepId]) {
        let mut changed: Vec<StepId> = Vec::new();
        let mut applied = self.apply;
        for (slice, cause) in self.write {
            applied.push((slice.name.clone(), "running containers follow".into()));
            let found = state.systemd.slice(&slice.name);
            let is_new = found.is_none_or(|found| found.file.is_none());
            let slice = Box::new(slice);
            changed.push(diff.push(UnitAction::WriteSlice { slice, is_new }, cause, &[]));
        }
        let written = changed.clone();
        for path in self.overrides {
            let cause = "it undoes the isolation";
            changed.push(diff.push(UnitAction::RemoveFile { path }, cause, &written));
        }
        // The tree goes from its leaves.
        let mut stopped = after.to_vec();
        for name in self.stop {
            stopped.push(diff.push(UnitAction::Stop { name }, "nothing runs in it", &stopped));
        }
        for (name, cause) in self.remove {
            let path = unit_files::path(&name);
            changed.push(diff.push(UnitAction::RemoveFile { path }, cause, &stopped));
        }
        if changed.is_empty() && applied.is_empty() {
            return;
        }
        let cause = "its files changed";
        let reloaded = diff.push(UnitAction::ReloadSystemd, cause, &changed);
        for (name, cause) in applied {
            diff.push(UnitAction::ApplySlice { name }, cause, &[reloaded]);
        }
    }
}
