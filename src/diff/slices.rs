//! The slices that keep environments apart: what the plan wants against what systemd has. Pure.

use super::difference::{Cause, Difference, Object};
use super::step::UnitAction;
use super::{Diff, StepId, named, preflight};
use crate::error::Diagnostic;
use crate::plan::naming::{PARENT_SLICE, slice_name};
use crate::plan::{Limits, Plan, PlannedSlice, joined, unit_files};
use crate::state::{Opening, Slice, State, Trial};
use ipnet::IpNet;
use std::net::Ipv4Addr;

/// Where `systemctl set-property` puts its drop-ins, one for each property.
const SET_PROPERTY: [&str; 2] = [
    "/run/systemd/system.control/",
    "/etc/systemd/system.control/",
];

/// What has to be done about slices.
#[derive(Default)]
pub(super) struct SlicePlan {
    write: Vec<(PlannedSlice, Cause)>,
    apply: Vec<(PlannedSlice, Cause)>,
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

/// Why an environment's slice is not as planned.
pub(super) enum NotReady {
    /// What `network-up` mends, or says more about.
    Differs(String),
    /// systemd has it as planned, and the kernel filters nothing.
    NotFiltered(Diagnostic),
}

/// Whether an environment's slice is as planned.
///
/// # Errors
/// What is different.
pub(super) fn ready(slice: &PlannedSlice, state: &State) -> Result<(), NotReady> {
    let name = &slice.name;
    let found = state.systemd.slice(name);
    let Some(found) = found.filter(|found| found.file.is_some()) else {
        return Err(NotReady::Differs(format!("there is no slice `{name}`")));
    };
    let Some(cause) = difference(slice, found, state) else {
        return Ok(());
    };
    match let_out(found) {
        Some((address, unit)) if is_as_written(slice, found, state) => {
            let refused = preflight::not_filtered(name, unit, address);
            Err(NotReady::NotFiltered(refused))
        }
        _ => Err(NotReady::Differs(format!(
            "slice `{name}` is not in force: {}",
            cause.text
        ))),
    }
}

/// What lets environments reach each other although their slices are written as planned: units that allow more, and a kernel that does
/// not filter.
pub fn open(plan: &Plan, state: &State) -> Vec<Diagnostic> {
    let mut all = Vec::new();
    for slice in plan.slices() {
        all.extend(openings(&slice, state).map(|opening| opening_error(&slice, opening)));
        // Of one that is not as written that is told.
        let found = state.systemd.slice(&slice.name);
        let found = found.filter(|found| is_as_written(&slice, found, state));
        if let Some((address, unit)) = found.and_then(let_out) {
            all.push(preflight::not_filtered(&slice.name, unit, address));
        }
    }
    all
}

/// Where a datagram came through that the slice denies: to whom, and from which unit in it.
fn let_out(found: &Slice) -> Option<(Ipv4Addr, &str)> {
    match &found.trial {
        Some(Trial::LetOut { address, unit }) => Some((*address, unit)),
        Some(Trial::Refused) | None => None,
    }
}

/// Whether systemd has read what the plan wants, and nothing else undoes it.
fn is_as_written(slice: &PlannedSlice, found: &Slice, state: &State) -> bool {
    let is_whole = found.file.as_deref() == Some(unit_files::slice(slice).as_str());
    let is_open = openings(slice, state).next().is_some();
    is_whole && !found.stale && is_effective(slice, found) && !is_open
}

/// The units that allow what a slice denies.
fn openings<'a>(slice: &PlannedSlice, state: &'a State) -> impl Iterator<Item = &'a Opening> {
    let all = state.systemd.openings.iter();
    all.filter(move |opening| {
        let counts = opening.slice.as_ref().is_none_or(|of| *of == slice.name);
        counts && opening.allow.iter().any(|net| is_hole(*net, slice))
    })
}

/// That a unit which is not ours undoes a slice.
fn opening_error(slice: &PlannedSlice, opening: &Opening) -> Diagnostic {
    let Opening {
        unit,
        slice: _,
        allow: _,
        files,
    } = opening;
    let (name, list) = (&slice.name, opened(slice, opening));
    let place = match files.as_slice() {
        [] => format!("`systemctl cat -- '{unit}'` shows where"),
        files => format!("it stands in {}", named(files)),
    };
    Diagnostic::error(
        format!(
            "`IPAddressAllow=` of `{unit}` lets containers of slice `{name}` reach {list}, which the slice denies"
        ),
        format!("{place}: take it away, run `systemctl daemon-reload`, then `homelab network-up`"),
    )
}

/// What a unit allows of what a slice denies.
fn opened(slice: &PlannedSlice, opening: &Opening) -> String {
    let nets = opening.allow.iter().filter(|net| is_hole(**net, slice));
    joined(&nets.copied().collect::<Vec<_>>(), ", ")
}

/// How a slice that has a file differs from the plan.
fn difference(slice: &PlannedSlice, found: &Slice, state: &State) -> Option<Cause> {
    written_difference(slice, found).or_else(|| kernel_difference(slice, found, state))
}

/// How what the kernel does in a slice whose file is as planned differs from that.
fn kernel_difference(slice: &PlannedSlice, found: &Slice, state: &State) -> Option<Cause> {
    let object = object(&slice.name);
    if let Some(opening) = openings(slice, state).next() {
        let field = format!("IPAddressAllow of {}", opening.unit);
        let list = opened(slice, opening);
        let text = format!(
            "`IPAddressAllow=` of `{}` undoes it for {list}",
            opening.unit
        );
        return Some(object.differs(field, Some(list), None).because(text));
    }
    if let Some((address, unit)) = let_out(found) {
        let difference =
            object.differs("filter", Some("open".to_owned()), Some("closed".to_owned()));
        let text = format!("the kernel lets packets from `{unit}` to {address} out");
        return Some(difference.because(text));
    }
    found.pending.then(|| {
        let (found, planned) = (Some("written".to_owned()), Some("applied".to_owned()));
        let difference = object.differs("state", found, planned);
        difference.because("running containers may not follow it yet")
    })
}

/// How a slice that has a file differs from the plan in what is written and what systemd has read.
fn written_difference(slice: &PlannedSlice, found: &Slice) -> Option<Cause> {
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
    if found.stale {
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
    let mut allowed = slice.allow.iter();
    slice.deny.iter().all(|net| is_denied(*net, found))
        && allowed.all(|net| found.allow.iter().any(|found| found.contains(net)))
        && !found.allow.iter().any(|net| is_hole(*net, slice))
}

/// Whether what is allowed opens something that a slice denies.
fn is_hole(net: IpNet, slice: &PlannedSlice) -> bool {
    let mut denied = slice.deny.iter();
    denied.any(|denied| denied.contains(&net) || net.contains(denied))
        && !slice.allow.contains(&net)
}

/// What makes running processes follow a slice, and sees that it is closed.
fn apply(slice: &PlannedSlice) -> UnitAction {
    UnitAction::ApplySlice {
        name: slice.name.clone(),
        denied: slice.denied_addresses(),
    }
}

/// What sees that a slice is closed before anything is started in it, where that is not known.
pub(super) fn trial(slice: &PlannedSlice, state: &State) -> Option<UnitAction> {
    let found = state.systemd.slice(&slice.name);
    let is_tried = found.is_some_and(|found| found.trial.is_some());
    (!slice.deny.is_empty() && !is_tried).then(|| apply(slice))
}

impl SlicePlan {
    fn want(&mut self, slice: &PlannedSlice, state: &State, diagnostics: &mut Vec<Diagnostic>) {
        let name = &slice.name;
        let before = diagnostics.len();
        diagnostics.extend(openings(slice, state).map(|opening| opening_error(slice, opening)));
        if diagnostics.len() > before {
            // Nothing that is written here would close it.
            return;
        }
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
        let Some(cause) = difference(slice, found, state) else {
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
        let is_waiting = found.pending || let_out(found).is_some();
        if is_waiting && is_as_written(slice, found, state) {
            self.apply.push((slice.clone(), cause));
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
            applied.push((slice.clone(), "running containers follow".into()));
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
        for (slice, cause) in applied {
            diff.push(apply(&slice), cause, &[reloaded]);
        }
    }
}
