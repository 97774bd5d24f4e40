//! What must hold before anything is touched, as far as it can be seen in the state. Pure.

use super::{Diff, lan, named};
use crate::error::{Diagnostic, Error, none_of};
use crate::plan::{Env, Host, Isolation, Plan, PlannedShim};
use crate::state::{Api, Link, Network, State};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// The interface that the shim and the networks stand on, when it is fit for that.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parent<'a>(plan: &Plan, host: &Host, state: &'a State) -> Result<&'a Link, Error> {
    let holder = state
        .links
        .iter()
        .find(|link| link.has(host.address) && link.name != plan.shim_name);
    let Some(name) = &host.parent else {
        let link = holder.ok_or_else(|| {
            Diagnostic::error(
                format!(
                    "no interface of this machine holds {}, the address of host `{}`",
                    host.address, host.name
                ),
                "`ip addr` shows the addresses; correct the plan, or name the right host by `--host`",
            )
        })?;
        return none_of(check_parent(link, host)).map(|()| link);
    };
    let Some(link) = state.link(name) else {
        let hint = match holder {
            Some(holder) => format!(
                "`{}` holds {}, the address of host `{}`: write `parent = \"{}\"`",
                holder.name, host.address, host.name, holder.name
            ),
            None => there_are(state),
        };
        return Err(Error::new(
            format!("there is no parent interface `{name}`"),
            hint,
        ));
    };
    let mut diagnostics = check_parent(link, host);
    if !link.has(host.address) {
        let hint = match holder {
            Some(holder) => format!("`{}` holds it: write `parent = \"{}\"`", holder.name, holder.name),
            None => "`ip addr` shows the addresses; correct the plan, or name the right host by `--host`".to_owned(),
        };
        diagnostics.push(Diagnostic::error(
            format!(
                "the parent `{name}` does not hold {}, the address of host `{}`",
                host.address, host.name
            ),
            hint,
        ));
    }
    none_of(diagnostics).map(|()| link)
}

/// The interface that a shim stands on, when it is fit for that.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parent_of<'a>(
    shim: &PlannedShim,
    plan: &Plan,
    host: &Host,
    state: &'a State,
) -> Result<&'a Link, Error> {
    match shim.env {
        Some(_) => own_parent(shim, host, state),
        None => parent(plan, host, state),
    }
}

/// The interfaces that there are, for somebody who named none of them.
fn there_are(state: &State) -> String {
    let hardware = state.links.iter();
    let hardware = hardware.filter(|link| link.kind.is_empty() && link.name != "lo");
    let names: Vec<&str> = hardware.map(|link| link.name.as_str()).collect();
    if names.is_empty() {
        return "`ip link` lists the interfaces".to_owned();
    }
    format!("this machine has {}", named(names))
}

/// The interface that a host is on an environment's own LAN with, when it is fit for that.
///
/// # Errors
/// Everything that is wrong with it.
fn own_parent<'a>(shim: &PlannedShim, host: &Host, state: &'a State) -> Result<&'a Link, Error> {
    let name = shim.parent.unwrap_or_default();
    let Some(link) = state.link(name) else {
        let env = shim.env.map_or("", |env| &env.name);
        let hint = match name.split_once('.') {
            Some((link, id)) if id.parse::<u16>().is_ok() => format!(
                "make it, like `ip link add link {link} name {name} type vlan id {id}` and `ip link set {name} up`, by what configures this host's network, so that it is there after a boot too"
            ),
            _ => there_are(state),
        };
        let what = format!("there is no parent interface `{name}` for environment `{env}`");
        return Err(Error::new(what, hint));
    };
    none_of(check_parent(link, host)).map(|()| link)
}

/// Whether the interface of a shim on an environment's own LAN is there and up. Less is asked than by [`parent_of`]: a cable may be
/// out for a moment.
pub(super) fn is_parent_there(shim: &PlannedShim, state: &State) -> bool {
    let parent = shim.parent.and_then(|parent| state.link(parent));
    parent.is_some_and(|parent| parent.up)
}

/// The environments whose own LANs this host has no interface on now.
pub fn envs_without_parent(plan: &Plan, host: &Host, state: &State) -> BTreeSet<String> {
    let away = plan
        .own_shims(host)
        .filter(|shim| !is_parent_there(shim, state));
    away.filter_map(|shim| Some(shim.env?.name.clone()))
        .collect()
}

/// That the interface of a shim on an environment's own LAN is not there yet, or down.
pub(super) fn not_there(shim: &PlannedShim) -> Diagnostic {
    let env = shim.env.map_or("", |env| &env.name);
    Diagnostic::error(
        format!(
            "the parent `{}` of environment `{env}` is not there yet, or down",
            shim.parent.unwrap_or_default()
        ),
        format!("what sets it up at boot is still at it; `parent` in `[env.{env}]` names it"),
    )
}

/// The shims on environments' own LANs that can be made, and what keeps the others from it: their parents, or somebody who has
/// their addresses.
pub(super) fn own_shims<'a>(
    plan: &'a Plan,
    host: &'a Host,
    state: &State,
) -> (Vec<PlannedShim<'a>>, Vec<Diagnostic>) {
    let (mut fit, mut wrong) = (Vec::new(), Vec::new());
    for shim in plan.own_shims(host) {
        let is_there = state
            .link(&shim.name)
            .is_some_and(|link| link.has(shim.address));
        let taken = lan::shim_taken(plan, host, &shim, state).filter(|_| !is_there);
        match own_parent(&shim, host, state) {
            Err(error) => wrong.extend(error.diagnostics),
            Ok(_) => match taken {
                Some(taken) => wrong.push(taken),
                None => fit.push(shim),
            },
        }
    }
    (fit, wrong)
}

/// The interface that the shim stands on, as soon as it is there and up. Less is asked than by [`parent`]: at boot an
/// address may come later, and a cable may be out for a moment.
///
/// # Errors
/// What is not there yet.
pub fn parent_there<'a>(
    plan: &Plan,
    host: &'a Host,
    state: &'a State,
) -> Result<&'a str, Diagnostic> {
    let is_up = |link: &Link| {
        if link.up {
            return Ok(());
        }
        Err(Diagnostic::error(
            format!("the parent `{}` is down", link.name),
            format!(
                "what sets it up at boot is still at it, or `ip link set {} up` does",
                link.name
            ),
        ))
    };
    if let Some(name) = &host.parent {
        let link = state.link(name).ok_or_else(|| {
            Diagnostic::error(
                format!("there is no parent interface `{name}` yet"),
                "`ip link` lists the interfaces; `parent` in the plan names one of them",
            )
        })?;
        return is_up(link).map(|()| name.as_str());
    }
    let holds = |link: &&Link| link.has(host.address) && link.name != plan.shim_name;
    if let Some(holder) = state.links.iter().find(holds) {
        return is_up(holder).map(|()| holder.name.as_str());
    }
    // The address may have gone for a moment; where the shim stands is the place.
    let stands_on = state.link(&plan.shim_name).filter(|shim| shim.is_ours());
    stands_on
        .and_then(|shim| shim.parent.as_deref())
        .ok_or_else(|| {
            Diagnostic::error(
                format!(
                    "no interface holds {}, the address of host `{}`, yet",
                    host.address, host.name
                ),
                "`parent` in the plan names the interface, so that its address is not waited for",
            )
        })
}

/// What keeps a link from being a parent.
fn check_parent(link: &Link, host: &Host) -> Vec<Diagnostic> {
    let name = &link.name;
    let mut diagnostics = Vec::new();
    if link.wireless {
        diagnostics.push(Diagnostic::error(
            format!("the parent `{name}` is wireless, where macvlan does not work: an access point takes one hardware address from a station"),
            "connect this host by cable and name that interface as the parent",
        ));
    }
    if let Some(bridge) = &link.bridge {
        diagnostics.push(Diagnostic::error(
            format!("the parent `{name}` is a port of the bridge `{bridge}`, which takes all its packets"),
            format!("name the bridge: `parent = \"{bridge}\"` for host `{}`", host.name),
        ));
    }
    if !link.up {
        diagnostics.push(Diagnostic::error(
            format!("the parent `{name}` is down"),
            format!("set it up: `ip link set {name} up`"),
        ));
    } else if !link.carrier {
        diagnostics.push(Diagnostic::error(
            format!("the parent `{name}` has no carrier"),
            "plug in its cable, and see whether the switch has a light",
        ));
    }
    diagnostics
}

/// Whether this process may carry out what there is to do.
///
/// # Errors
/// When it may not.
pub fn permission(diff: &Diff, state: &State) -> Result<(), Diagnostic> {
    if diff.steps.is_empty() || state.net_admin {
        return Ok(());
    }
    Err(Diagnostic::error(
        "not permitted to change links, addresses and routes",
        "run homelab as root",
    ))
}

/// Whether an environment's slice would do on this machine what the plan wants of it.
///
/// # Errors
/// What is missing.
pub fn isolation(plan: &Plan, env: &Env, state: &State) -> Result<(), Diagnostic> {
    if plan.slice(env).is_none() {
        return Ok(());
    }
    let (is_enforced, off) = match plan.isolation {
        Isolation::Enforced => (
            "environments cannot be kept apart",
            "; or write `isolation = \"off\"` in `[network]`: environments then reach each other",
        ),
        Isolation::Off => (
            "the limits of an environment cannot be enforced",
            "; or take `memory` and `cpus` out of its table",
        ),
    };
    let missing = |what: &str, hint: &str| {
        Err(Diagnostic::error(
            format!("{is_enforced}: {what}"),
            format!("{hint}{off}"),
        ))
    };
    let systemd = &state.systemd;
    if !systemd.running {
        return missing(
            "systemd is not the init of this machine",
            "run homelab on a host that systemd started, such as Debian",
        );
    }
    if systemd.controllers.is_none() {
        return missing(
            "this machine uses cgroup v1",
            "cgroup v2 is the default from Debian 11; take `systemd.unified_cgroup_hierarchy=0` off the kernel's command line and boot again",
        );
    }
    let driver = &state.docker.cgroup_driver;
    if driver != "systemd" {
        return missing(
            &format!("Docker makes its cgroups by the driver `{driver}`"),
            "write `\"exec-opts\": [\"native.cgroupdriver=systemd\"]` to /etc/docker/daemon.json and restart Docker",
        );
    }
    Ok(())
}

/// That the kernel does not filter what comes out of a slice, although systemd has the slice as planned.
pub fn not_filtered(slice: &str, unit: &str, address: Ipv4Addr) -> Diagnostic {
    Diagnostic::error(
        format!(
            "environments cannot be kept apart: slice `{slice}` denies {address}, and the kernel lets packets from `{unit}` to it out"
        ),
        "systemd filters nothing where it may not load programs of BPF, as in an unprivileged container (`journalctl -b -g BPF` may \
         tell): give it that right and run `homelab network-up`; or write `isolation = \"off\"` in `[network]`: environments then reach each other",
    )
}

/// That it could not be told whether the kernel filters what comes out of a slice.
pub fn not_tried(slice: &str) -> Diagnostic {
    Diagnostic::error(
        format!(
            "environments cannot be kept apart: whether the kernel refuses what slice `{slice}` denies could not be tried"
        ),
        "see that `lo` is up and that no firewall of this host drops what goes to it; or write `isolation = \"off\"` in `[network]`: \
         environments then reach each other",
    )
}

/// Whether the limits of an environment can be enforced on this machine.
///
/// # Errors
/// Which controller is missing.
pub fn limits(plan: &Plan, env: &Env, state: &State) -> Result<(), Diagnostic> {
    const MEMORY: &str = "add `cgroup_enable=memory` to the kernel's command line (on a Raspberry Pi /boot/firmware/cmdline.txt) and boot again";
    const CPU: &str = "boot a kernel with CONFIG_CFS_BANDWIDTH, which Debian's have";
    let Some(slice) = plan.slice(env) else {
        return Ok(());
    };
    let controllers = state.systemd.controllers.as_deref().unwrap_or_default();
    let needed = [
        ("memory", slice.limits.memory.is_some(), MEMORY),
        ("cpu", slice.limits.cpus.is_some(), CPU),
    ];
    for (controller, is_needed, how) in needed {
        if is_needed && !controllers.iter().any(|found| found == controller) {
            return Err(Diagnostic::error(
                format!(
                    "the limits of environment `{}` cannot be enforced: cgroup v2 has no controller `{controller}` here",
                    env.name
                ),
                format!("{how}; or take the limit out of `[env.{}]`", env.name),
            ));
        }
    }
    Ok(())
}

/// Whether this machine has units.
///
/// # Errors
/// When it has not.
pub fn systemd(state: &State) -> Result<(), Diagnostic> {
    if state.systemd.running {
        return Ok(());
    }
    Err(Diagnostic::error(
        "systemd is not the init of this machine, so it has no units",
        "run `homelab network-up` from whatever starts services here, before Docker starts",
    ))
}

/// Whether the Engine can be used.
///
/// # Errors
/// Why it cannot.
pub fn engine(state: &State) -> Result<(), Diagnostic> {
    if let Some(missing) = &state.docker_missing {
        return Err(missing.clone());
    }
    if state.docker.api < Api::OLDEST {
        return Err(Diagnostic::error(
            format!("Docker Engine {} is too old", state.docker.version),
            "homelab needs 20.10 or newer, which Debian has since 11",
        ));
    }
    Ok(())
}

/// Whether the Engine can remove a network and be rid of it.
///
/// A network whose parent was not there when an engine before 27 was started is lost to its driver: removed by then, its record
/// stays in the engine's store, and at a later start it may take the parent before the network that was made since (a link of ours
/// as parent has a name that no other network ever had). Whether it is lost nobody says; it is not when the parent had its address
/// before the engine was started.
///
/// # Errors
/// When it may be lost.
pub fn removable(network: &Network, state: &State) -> Result<(), Diagnostic> {
    let parent = network.parent.as_deref().and_then(|name| state.link(name));
    let Some(parent) = parent.filter(|link| !link.is_ours()) else {
        return Ok(());
    };
    let came_later = parent.addressed.zip(state.docker.started);
    let came_later = came_later.is_some_and(|(link, engine)| link > engine);
    if state.docker.api >= Api::SHARED_PARENT || !came_later {
        return Ok(());
    }
    let (name, link) = (&network.name, &parent.name);
    Err(Diagnostic::error(
        format!(
            "network `{name}` stands on `{link}`, which came after Docker was started: Docker before 27 may have lost it, and would not \
             forget it when it is removed"
        ),
        "restart Docker first: `systemctl restart docker`; then run this again",
    ))
}
