//! The unit that keeps the shim alive: what shall be installed against what is, and how other commands get along with it.
//! Pure.

use super::difference::{Difference, Object};
use super::links::{self, Target, WantedLink};
use super::step::UnitAction;
use super::{Diff, StepId};
use crate::error::{Diagnostic, Error};
use crate::plan::Plan;
use crate::plan::naming::SHIM_UNIT;
use crate::plan::unit_files::{self, DHCPCD, MANAGERS, ShimUnit, is_cut_off};
use crate::state::{InstalledShim, State};

/// Takes away what a run left that was killed while it wrote a file.
pub(super) fn tidy(state: &State, diff: &mut Diff) {
    for path in &state.systemd.unfinished {
        let path = path.clone();
        let cause = Object::new("file", path.as_str())
            .unplanned()
            .because("a run was killed while it wrote it");
        diff.push(UnitAction::RemoveFile { path }, cause, &[]);
    }
}

/// That a file was not written whole.
pub(super) fn cut_off(file: Object) -> Difference {
    file.differs("text", Some("cut off".to_owned()), Some("whole".to_owned()))
}

/// What installs the unit, enables and starts it. `links` are what it keeps alive.
///
/// # Errors
/// What stands in the way; nothing has been changed.
pub(super) fn install(
    plan: &Plan,
    unit: &ShimUnit,
    links: &[WantedLink],
    state: &State,
    mut diff: Diff,
) -> Result<Diff, Error> {
    let service = &state.systemd.shim;
    let path = unit_files::path(SHIM_UNIT);
    if service.file(&path).is_some() && !service.is_installed() {
        return Err(Error::new(
            format!("there is a unit `{SHIM_UNIT}` that homelab did not make"),
            format!(
                "take it away: `systemctl disable --now {SHIM_UNIT}`, then remove `{path}` and run this again"
            ),
        ));
    }
    tidy(state, &mut diff);
    let mut files = Files::default();
    files.want(&path, Some(unit_files::shim(unit)), service, &mut diff);
    let changed = files.about(plan, links, service, &mut diff);
    let ready = files.reload(changed, service, &mut diff);
    let mut enabled = ready.clone();
    if !service.enabled {
        let name = SHIM_UNIT.to_owned();
        let action = UnitAction::Enable { name };
        let difference = differs("state at boot", "disabled", "enabled");
        let cause = difference.because("it shall start at boot");
        enabled = vec![diff.push(action, cause, &ready)];
    }
    run(service, changed, &enabled, &mut diff);
    Ok(diff)
}

/// What stops the unit and takes it away, with everything that was written for it.
pub(super) fn uninstall(state: &State) -> Diff {
    let service = &state.systemd.shim;
    let mut diff = Diff::default();
    tidy(state, &mut diff);
    let mut files = Files::default();
    let mut after = Vec::new();
    if service.is_installed() {
        if service.active {
            after = vec![stop_unit("it goes", &[], &mut diff)];
        }
        if service.enabled {
            let name = SHIM_UNIT.to_owned();
            let action = UnitAction::Disable { name };
            after = vec![diff.push(action, "it goes", &after)];
        }
        files.after = after;
        files.want(&unit_files::path(SHIM_UNIT), None, service, &mut diff);
    }
    files.want(&unit_files::parent_links_path(), None, service, &mut diff);
    for manager in MANAGERS {
        let found = service.file(manager.file);
        files.want(
            manager.file,
            manager.without_ours(found),
            service,
            &mut diff,
        );
    }
    // A stranger's unit of this name has its own.
    let is_foreign =
        service.file(&unit_files::path(SHIM_UNIT)).is_some() && !service.is_installed();
    for path in service.state.iter().filter(|_| !is_foreign) {
        let path = path.clone();
        let cause = Object::new("folder", path.as_str())
            .unplanned()
            .because("the unit kept its copy of the plan there");
        diff.push(UnitAction::RemoveFolder { path }, cause, &files.after);
    }
    let changed = !files.units.is_empty();
    files.reload(changed, service, &mut diff);
    diff
}

/// Whether an installed unit can be kept as planned: one whose file was not written whole says nothing, and one whose program
/// cannot be run does nothing, and then this program must be fit for a unit.
///
/// # Errors
/// When it is not.
pub(super) fn check_whole(target: &Target, state: &State) -> Result<(), Error> {
    let service = &state.systemd.shim;
    let path = unit_files::path(SHIM_UNIT);
    let Some(text) = service.file(&path).filter(|_| target.unit.is_none()) else {
        return Ok(());
    };
    let what = if unit_files::has_no_command(text) {
        format!("`{path}` was not written whole")
    } else if let (Some(unit), Some(fault)) = (ShimUnit::parse(text), &service.program_fault) {
        format!("`{SHIM_UNIT}` cannot run `{}`: it is {fault}", unit.program)
    } else {
        return Ok(());
    };
    Err(Error::new(what, "`homelab shim install` writes it anew"))
}

/// That the installed unit runs another program than this one, which both could be run.
pub(super) fn other_program(unit: Option<ShimUnit>, state: &State) -> Option<Diagnostic> {
    let service = &state.systemd.shim;
    let text = service.file(&unit_files::path(SHIM_UNIT));
    let installed = text.and_then(ShimUnit::parse)?;
    let own = unit.filter(|own| own.program != installed.program)?;
    service.program_fault.is_none().then(|| {
        Diagnostic::warning(
            format!(
                "`{SHIM_UNIT}` runs `{}`, and this is `{}`",
                installed.program, own.program
            ),
            "`homelab shim install` makes it run this one; or use that one, and remove this",
        )
    })
}

/// What an installed unit needs so that it keeps `links` alive, and no former one if it `has_former` ones. Returns the steps after which they are as planned.
pub(super) fn reconcile(
    target: &Target,
    links: &[WantedLink],
    has_former: bool,
    state: &State,
    diff: &mut Diff,
    after: &[StepId],
) -> Vec<StepId> {
    let service = &state.systemd.shim;
    let mut files = Files {
        after: after.to_vec(),
        ..Files::default()
    };
    let path = unit_files::path(SHIM_UNIT);
    let text = service.file(&path);
    let own = text.filter(|text| unit_files::has_no_command(text));
    let own = own.and(target.unit);
    if let Some(installed) = text.and_then(ShimUnit::parse).or(own) {
        let lost = service.program_fault.as_ref().and(target.unit);
        let unit = ShimUnit {
            host: &target.host.name,
            program: lost.map_or(installed.program, |unit| unit.program),
            ..installed
        };
        files.want(&path, Some(unit_files::shim(&unit)), service, diff);
    }
    if let Some(Diagnostic { what, hint, .. }) = other_program(target.unit, state) {
        diff.warn(what, hint.unwrap_or_default());
    }
    let changed = files.about(target.plan, links, service, diff);
    let mut ready = files.reload(changed, service, diff);
    ready.extend(after);
    let differences = differences(links, state);
    let differs = !differences.is_empty();
    if service.active {
        diff.differences.extend(differences);
    }
    run(service, changed || differs || has_former, &ready, diff)
}

/// That the program of an installed unit cannot be run, where its file is to name another one.
fn lost_program(
    found: Option<&str>,
    text: Option<&str>,
    service: &InstalledShim,
) -> Option<Difference> {
    let (found, planned) = (ShimUnit::parse(found?)?, ShimUnit::parse(text?)?);
    let fault = service.program_fault.as_ref()?;
    let field = format!("program {}", found.program);
    (found.program != planned.program).then(|| differs(&field, fault, planned.program))
}

/// What of links is not as planned now.
fn differences(links: &[WantedLink], state: &State) -> Vec<Difference> {
    let mut trial = Diff::default();
    for link in links {
        links::steps(link, state, &mut trial, &[]);
    }
    trial.differences
}

fn differs(field: &str, found: &str, planned: &str) -> Difference {
    let (found, planned) = (found.to_owned(), planned.to_owned());
    Object::new("unit", SHIM_UNIT).differs(field, Some(found), Some(planned))
}

/// What makes a running unit release its links; `None` when it does not run.
pub(super) fn release(state: &State, diff: &mut Diff, after: &[StepId]) -> Option<StepId> {
    let service = &state.systemd.shim;
    if !service.is_installed() {
        return None;
    }
    let stopped = service
        .active
        .then(|| stop_unit("it keeps the shim alive", after, diff));
    if stopped.is_some() {
        warn_of_the_next_boot(service, diff);
    }
    let mut files = Files {
        after: stopped.into_iter().collect(),
        ..Files::default()
    };
    files.want(&unit_files::parent_links_path(), None, service, diff);
    let changed = !files.units.is_empty();
    files.reload(changed, service, diff);
    stopped
}

/// What stops a running unit; `None` when it does not run.
pub(super) fn stop(state: &State, diff: &mut Diff) -> Option<StepId> {
    let service = &state.systemd.shim;
    if !service.is_installed() || !service.active {
        return None;
    }
    warn_of_the_next_boot(service, diff);
    Some(stop_unit("it keeps the shim alive", &[], diff))
}

fn warn_of_the_next_boot(service: &InstalledShim, diff: &mut Diff) {
    if service.enabled {
        diff.warn(
            format!("`{SHIM_UNIT}` stays installed and makes the shim again at the next boot"),
            "take it away with `homelab shim uninstall`, if that is not wanted",
        );
    }
}

fn stop_unit(cause: &str, after: &[StepId], diff: &mut Diff) -> StepId {
    let name = SHIM_UNIT.to_owned();
    diff.push(UnitAction::Stop { name }, cause, after)
}

/// Starts a unit that does not run, and restarts one that runs with something else in mind.
fn run(service: &InstalledShim, changed: bool, after: &[StepId], diff: &mut Diff) -> Vec<StepId> {
    let name = SHIM_UNIT.to_owned();
    if !service.active {
        let cause = differs("state", "inactive", "active").because("it keeps the shim alive");
        return vec![diff.push(UnitAction::Start { name }, cause, after)];
    }
    if changed {
        let cause = "it shall keep what is planned now";
        return vec![diff.push(UnitAction::Restart { name }, cause, after)];
    }
    after.to_vec()
}

/// Files that are written and removed.
#[derive(Default)]
struct Files {
    /// What every change of a file waits for.
    after: Vec<StepId>,
    /// The steps that change files of systemd.
    units: Vec<StepId>,
    /// The network managers whose files change, with the steps.
    managers: Vec<(&'static str, StepId)>,
}

impl Files {
    /// Everything that belongs to the unit but its own file; whether systemd has to read files of the unit again.
    fn about(
        &mut self,
        plan: &Plan,
        links: &[WantedLink],
        service: &InstalledShim,
        diff: &mut Diff,
    ) -> bool {
        let parents = links.iter().filter(|link| link.is_parent());
        let parents: Vec<&str> = parents.map(|link| link.name.as_str()).collect();
        let path = unit_files::parent_links_path();
        self.want(&path, unit_files::parent_links(&parents), service, diff);
        for manager in MANAGERS {
            let found = service.file(manager.file);
            if found.is_some_and(|text| manager.is_foreign(text)) {
                continue;
            }
            let is_installed = service.managers.contains_key(manager.unit);
            let text = if is_installed {
                Some(manager.configured(plan, &parents, found))
            } else {
                manager.without_ours(found)
            };
            self.want(manager.file, text, service, diff);
        }
        !self.units.is_empty() || service.stale
    }

    /// Makes a file have a text, or makes that there is none.
    fn want(&mut self, path: &str, text: Option<String>, service: &InstalledShim, diff: &mut Diff) {
        let found = service.file(path);
        if found == text.as_deref() {
            return;
        }
        let manager = MANAGERS.iter().find(|manager| manager.file == path);
        let object = Object::new("file", path);
        // An empty file of dhcpcd is somebody's.
        let own = found.filter(|_| path != DHCPCD);
        let is_cut_off = |text: &String| own.is_some_and(|found| is_cut_off(found, text));
        let is_cut_off = text.as_ref().is_some_and(is_cut_off);
        let lost = lost_program(found, text.as_deref(), service);
        let is_lost = lost.is_some();
        let difference = lost.unwrap_or_else(|| match (found, &text) {
            (None, _) => object.missing(),
            (Some(_), Some(_)) if is_cut_off => cut_off(object),
            (Some(_), Some(_)) => object.differs("text", None, None),
            (Some(_), None) => object.unplanned(),
        });
        let cause = match (manager, &text) {
            (Some(manager), Some(_)) if manager.without_ours(found) == text => "homelab's lines go",
            (_, Some(_)) if is_cut_off => "it was not written whole",
            (Some(_), Some(_)) => "network managers shall leave the shim alone",
            (None, Some(_)) if found.is_none() => "it does not exist",
            (None, Some(_)) if is_lost => "its program cannot be run",
            (None, Some(_)) => "it changed",
            (_, None) => "homelab made it",
        };
        let path = path.to_owned();
        let action = match text {
            Some(text) => UnitAction::WriteFile {
                path,
                text,
                is_new: found.is_none(),
            },
            None => UnitAction::RemoveFile { path },
        };
        let step = diff.push(action, difference.because(cause), &self.after);
        match manager {
            Some(manager) => self.managers.push((manager.unit, step)),
            None => self.units.push(step),
        }
    }

    /// Makes those read their files again whose files changed; the steps after which that is done.
    fn reload(self, changed: bool, service: &InstalledShim, diff: &mut Diff) -> Vec<StepId> {
        let mut done = Vec::new();
        if changed {
            let cause = "its files changed";
            done.push(diff.push(UnitAction::ReloadSystemd, cause, &self.units));
        }
        for (unit, step) in self.managers {
            let name = unit.to_owned();
            done.push(if service.managers.get(unit) == Some(&true) {
                diff.push(
                    UnitAction::ReloadManager { name },
                    "its files changed",
                    &[step],
                )
            } else {
                step
            });
        }
        done
    }
}
