//! What must hold before anything is touched, as far as it can be seen in the state. Pure.

use super::{Diff, named};
use crate::failure::Blocker;
use crate::plan::{Host, Plan};
use crate::state::{Api, Link, State};

/// The interface that the shim and the networks stand on, when it is fit for that.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parent<'a>(plan: &Plan, host: &Host, state: &'a State) -> Result<&'a Link, Vec<Blocker>> {
    let holder = state
        .links
        .iter()
        .find(|link| link.has(host.address) && link.name != plan.shim_name);
    let Some(name) = &host.parent else {
        let link = holder.ok_or_else(|| {
            vec![Blocker::new(
                format!(
                    "no interface of this machine holds {}, the address of host `{}`",
                    host.address, host.name
                ),
                "`ip addr` shows the addresses; correct the plan, or name the right host by `--host`",
            )]
        })?;
        return fit(link, host).map(|()| link);
    };
    let Some(link) = state.link(name) else {
        let candidates: Vec<&str> = state
            .links
            .iter()
            .filter(|link| link.kind.is_empty() && link.name != "lo")
            .map(|link| link.name.as_str())
            .collect();
        let hint = match holder {
            Some(holder) => format!(
                "`{}` holds {}, the address of host `{}`: write `parent = \"{}\"`",
                holder.name, host.address, host.name, holder.name
            ),
            None if candidates.is_empty() => "`ip link` lists the interfaces".to_owned(),
            None => format!("this machine has {}", named(&candidates)),
        };
        return Err(vec![Blocker::new(
            format!("there is no parent interface `{name}`"),
            hint,
        )]);
    };
    let mut blockers = fit(link, host).err().unwrap_or_default();
    if !link.has(host.address) {
        let hint = match holder {
            Some(holder) => format!("`{}` holds it: write `parent = \"{}\"`", holder.name, holder.name),
            None => "`ip addr` shows the addresses; correct the plan, or name the right host by `--host`".to_owned(),
        };
        blockers.push(Blocker::new(
            format!(
                "the parent `{name}` does not hold {}, the address of host `{}`",
                host.address, host.name
            ),
            hint,
        ));
    }
    if blockers.is_empty() {
        Ok(link)
    } else {
        Err(blockers)
    }
}

fn fit(link: &Link, host: &Host) -> Result<(), Vec<Blocker>> {
    let name = &link.name;
    let mut blockers = Vec::new();
    if link.wireless {
        blockers.push(Blocker::new(
            format!("the parent `{name}` is wireless, where macvlan does not work: an access point takes one hardware address from a station"),
            "connect this host by cable and name that interface as the parent",
        ));
    }
    if let Some(bridge) = &link.bridge {
        blockers.push(Blocker::new(
            format!("the parent `{name}` is a port of the bridge `{bridge}`, which takes all its packets"),
            format!("name the bridge: `parent = \"{bridge}\"` for host `{}`", host.name),
        ));
    }
    if !link.up {
        blockers.push(Blocker::new(
            format!("the parent `{name}` is down"),
            format!("set it up: `ip link set {name} up`"),
        ));
    } else if !link.carrier {
        blockers.push(Blocker::new(
            format!("the parent `{name}` has no carrier"),
            "plug in its cable, and see whether the switch has a light",
        ));
    }
    if blockers.is_empty() {
        Ok(())
    } else {
        Err(blockers)
    }
}

/// Whether this process may carry out what there is to do.
///
/// # Errors
/// When it may not.
pub fn permission(diff: &Diff, state: &State) -> Result<(), Blocker> {
    if diff.steps.is_empty() || state.net_admin {
        return Ok(());
    }
    Err(Blocker::new(
        "not permitted to change links, addresses and routes",
        "run homelab as root",
    ))
}

/// Whether the Engine can be used.
///
/// # Errors
/// Why it cannot.
pub fn engine(state: &State) -> Result<(), Blocker> {
    if let Some(missing) = &state.docker_missing {
        return Err(missing.clone());
    }
    if state.docker.api < Api::OLDEST {
        return Err(Blocker::new(
            format!("Docker Engine {} is too old", state.docker.version),
            "homelab needs 20.10 or newer, which Debian has since 11",
        ));
    }
    Ok(())
}
