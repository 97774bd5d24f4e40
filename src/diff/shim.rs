//! The links of this host, as `network-up` makes them, as the commands about the shim alone do, and as the unit keeps them.
//! Pure.

use super::difference::{Cause, Object};
use super::links::{self, Target, WantedLink};
use super::step::LinkAction;
use super::{Diff, StepId, preflight, shim_service};
use crate::error::Error;
use crate::plan::naming::PARENT_LINK_PREFIX;
use crate::plan::unit_files::{ShimUnit, installed_parent_links, parent_links_path};
use crate::plan::{Env, Host, Plan, PlannedShim};
use crate::state::{Link, State};
use std::collections::BTreeSet;

/// The steps to the links, and for each link those that its users wait for. A unit that is installed makes them itself.
pub(super) fn make_links<'a>(
    target: &Target,
    links: &'a [WantedLink],
    kept_parents: &BTreeSet<&str>,
    state: &State,
    removed: &[StepId],
    diff: &mut Diff,
) -> Vec<(&'a str, Vec<StepId>)> {
    let obsolete = links::obsolete(target, links, kept_parents, state);
    let delete = |diff: &mut Diff, after: &[StepId]| -> Vec<StepId> {
        let delete = |link: &&Link| {
            let name = link.name.clone();
            // A parent link goes after the networks that stand on it.
            let cause = unplanned(link, "the plan does not want it");
            diff.push(LinkAction::Delete { name }, cause, after)
        };
        obsolete.iter().map(delete).collect()
    };
    if state.systemd.shim.is_installed() {
        let is_active = state.systemd.shim.active;
        let mut after = removed.to_vec();
        if !is_active {
            after.extend(delete(diff, removed));
        }
        // It would put back what is deleted, by the plan that it read.
        let has_former = obsolete
            .iter()
            .any(|link| !link.name.starts_with(PARENT_LINK_PREFIX));
        let kept = shim_service::reconcile(target, links, has_former, state, diff, &after);
        if is_active {
            delete(diff, &kept);
        }
        return links
            .iter()
            .map(|link| (link.name.as_str(), kept.clone()))
            .collect();
    }
    let deleted = delete(diff, removed);
    let mut made: Vec<(&str, Vec<StepId>)> = Vec::new();
    for link in links {
        if state.link(&link.name).is_none() && kept_parents.contains(link.name.as_str()) {
            diff.warn(
                format!(
                    "the parent link `{}` of a Docker network was missing; if Docker was started without it, the network's containers cannot start",
                    link.name
                ),
                "once this is done, restart Docker if they do not run: `systemctl restart docker`; `homelab shim install` makes the links before Docker starts",
            );
        }
        made.push((&link.name, links::steps(link, state, diff, &deleted)));
    }
    made
}

/// The steps after which no link of ours is left; those of a running unit go with it.
pub(super) fn no_links(
    target: &Target,
    links: &[WantedLink],
    kept_parents: &BTreeSet<&str>,
    state: &State,
    removed: &[StepId],
    diff: &mut Diff,
) {
    if shim_service::release(state, diff, removed).is_some() {
        return;
    }
    for link in links::obsolete(target, links, kept_parents, state) {
        let name = link.name.clone();
        diff.push(
            LinkAction::Delete { name },
            unplanned(link, "homelab made it"),
            removed,
        );
    }
}

fn unplanned(link: &Link, cause: &str) -> Cause {
    Object::new("link", link.name.as_str())
        .unplanned()
        .because(cause)
}

/// The parent links that Docker's networks of ours stand on. Where Docker does not answer, those that the shim's unit knows and
/// those that there are: without Docker's word nothing is removed that its networks may stand on.
fn parents_in_use(state: &State) -> BTreeSet<String> {
    if state.docker_missing.is_some() {
        let text = state.systemd.shim.file(&parent_links_path());
        let links = state.links.iter().filter(|link| link.is_ours());
        let names = links.map(|link| link.name.clone());
        let parents = names.filter(|name| name.starts_with(PARENT_LINK_PREFIX));
        return installed_parent_links(text)
            .into_iter()
            .chain(parents)
            .collect();
    }
    let ours = state
        .docker
        .networks
        .iter()
        .filter(|network| network.environment().is_some());
    let parents = ours.filter_map(|network| network.parent.clone());
    parents
        .filter(|parent| parent.starts_with(PARENT_LINK_PREFIX))
        .collect()
}

/// The links that are wanted without a look at Docker's networks but at what they stand on.
fn links_in_use(target: &Target, state: &State, diff: &mut Diff) -> Result<Vec<WantedLink>, Error> {
    let parents = parents_in_use(state);
    let parents = parents.iter().map(String::as_str).collect();
    let mut links = links::wanted(target, &parents);
    links::without_conflicts(&mut links, state, diff)?;
    Ok(links)
}

/// What makes the shim alone.
///
/// # Errors
/// Everything that stands in the way; nothing has been changed.
pub fn up(plan: &Plan, host: &Host, unit: Option<ShimUnit>, state: &State) -> Result<Diff, Error> {
    let parent = preflight::parent(plan, host, state)?;
    let (target, mut diff) = Target::on(plan, host, parent, unit, state);
    shim_service::check_whole(&target, state)?;
    let links = links_in_use(&target, state, &mut diff)?;
    let parents = links.iter().filter(|link| link.is_parent());
    let kept = parents.map(|link| link.name.as_str()).collect();
    make_links(&target, &links, &kept, state, &[], &mut diff);
    Ok(diff)
}

/// What takes the shim alone away; links that Docker's networks stand on stay, unless the unit keeps them.
pub fn down(plan: &Plan, state: &State) -> Diff {
    let mut diff = Diff::default();
    if shim_service::stop(state, &mut diff).is_some() {
        return diff;
    }
    let shims = plan.shim_names();
    let shims = shims.filter_map(|name| state.link(&name));
    for link in shims.filter(|link| links::is_made_by_us(plan, link)) {
        let name = link.name.clone();
        diff.push(
            LinkAction::Delete { name },
            unplanned(link, "homelab made it"),
            &[],
        );
    }
    diff
}

/// What installs the unit that keeps the shim alive.
///
/// # Errors
/// Everything that stands in the way; nothing has been changed.
pub fn install(plan: &Plan, host: &Host, unit: &ShimUnit, state: &State) -> Result<Diff, Error> {
    let parent = preflight::parent(plan, host, state)?;
    preflight::systemd(state)?;
    let (target, mut diff) = Target::on(plan, host, parent, Some(*unit), state);
    let links = links_in_use(&target, state, &mut diff)?;
    shim_service::install(plan, unit, &links, state, diff)
}

/// What takes that unit away.
///
/// # Errors
/// Where there is no systemd.
pub fn uninstall(plan: &Plan, state: &State) -> Result<Diff, Error> {
    preflight::systemd(state)?;
    let mut diff = shim_service::uninstall(state);
    let stands = |env: &Env| state.docker.network(&env.network()).is_some();
    if !diff.steps.is_empty() && state.systemd.shim.active && plan.envs.iter().any(stands) {
        diff.warn(
            "with the unit goes the shim: this host will not reach its containers",
            "`homelab network-up` makes it again, until the next boot",
        );
    }
    Ok(diff)
}

/// What the unit itself does: makes the shims and the parent links that it was told of as planned. What keeps it from making one of
/// an environment with a LAN of its own is among the errors of the diff.
///
/// # Errors
/// Everything that stands in the way; nothing has been changed.
pub fn reconcile(
    plan: &Plan,
    host: &Host,
    parent_links: &[String],
    state: &State,
) -> Result<Diff, Error> {
    let own = plan.own_shims(host);
    let (there, away): (Vec<PlannedShim>, Vec<PlannedShim>) =
        own.partition(|shim| preflight::is_parent_there(shim, state));
    let target = Target {
        plan,
        host,
        parent: preflight::parent_there(plan, host, state)?,
        own: there,
        unit: None,
    };
    let parents = parent_links.iter().map(String::as_str).collect();
    let mut links = links::wanted(&target, &parents);
    let mut diff = Diff::default();
    diff.errors.extend(away.iter().map(preflight::not_there));
    links::without_conflicts(&mut links, state, &mut diff)?;
    for link in &links {
        links::steps(link, state, &mut diff, &[]);
    }
    Ok(diff)
}

/// What the unit does when it ends, or keeps links no more: these go.
pub fn release(plan: &Plan, kept: &[String], state: &State) -> Diff {
    let mut diff = Diff::default();
    let links = state.links.iter();
    for link in links.filter(|link| links::is_made_by_us(plan, link) && kept.contains(&link.name)) {
        let name = link.name.clone();
        diff.push(
            LinkAction::Delete { name },
            "the service keeps it no more",
            &[],
        );
    }
    diff
}
