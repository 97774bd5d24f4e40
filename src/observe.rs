//! Asks the kernel, systemd and the Engine what there is. Reads only.

use crate::diff::containers;
use crate::docker::Engine;
use crate::failure::{Blocker, Failure, why_unreadable};
use crate::netlink::Netlink;
use crate::plan::{Env, Plan, Service, slice_name};
use crate::problem::Problem;
use crate::state::{Docker, State};
use crate::status::Condition;
use crate::systemd;
use futures_util::future::try_join_all;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::SystemTime;

/// The ways to the systems of this machine.
#[derive(Clone)]
pub struct Machine {
    /// To the kernel.
    pub netlink: Netlink,
    /// To the Engine, when it can be used.
    pub engine: Option<Engine>,
}

/// The links and routes alone.
///
/// # Errors
/// When the kernel fails.
pub async fn links(netlink: &Netlink) -> Result<State, Failure> {
    let (links, routes) = netlink.links_and_routes().await?;
    Ok(State {
        net_admin: Netlink::may_change(),
        links,
        routes,
        ..State::default()
    })
}

/// Links, routes, slices, networks and containers.
///
/// # Errors
/// When the kernel or a running Engine fails; an Engine that cannot be reached is part of the state.
pub async fn machine(plan: &Plan) -> Result<(Machine, State), Failure> {
    let netlink = Netlink::connect()?;
    let state = links(&netlink).await?;
    let slices: Vec<String> = plan.envs.iter().map(|env| slice_name(&env.name)).collect();
    let slices = systemd::observe(&slices);
    let own = state.own_addresses();
    let (systemd, docker) = tokio::join!(slices, engine(&own));
    let state = State {
        systemd: systemd?,
        ..state
    };
    match docker? {
        Err(missing) => {
            let state = State {
                docker_missing: Some(missing),
                ..state
            };
            let machine = Machine {
                netlink,
                engine: None,
            };
            Ok((machine, state))
        }
        Ok((engine, docker)) => {
            let machine = Machine {
                netlink,
                engine: Some(engine),
            };
            Ok((machine, State { docker, ..state }))
        }
    }
}

/// The Engine and what it has, or why it cannot be used.
async fn engine(own: &[Ipv4Addr]) -> Result<Result<(Engine, Docker), Blocker>, Failure> {
    let engine = match Engine::connect(own).await {
        Ok(engine) => engine,
        Err(missing) => return Ok(Err(missing)),
    };
    let (networks, containers, cgroup_driver) = tokio::try_join!(
        engine.networks(),
        engine.containers(),
        engine.cgroup_driver()
    )?;
    let docker = Docker {
        version: engine.version.clone(),
        api: engine.api,
        cgroup_driver,
        networks,
        containers,
        ..Docker::default()
    };
    Ok(Ok((engine, docker)))
}

/// How every container of ours is, by name.
///
/// # Errors
/// When the Engine fails.
pub async fn conditions(
    machine: &Machine,
    state: &State,
) -> Result<BTreeMap<String, Condition>, Failure> {
    let Some(engine) = &machine.engine else {
        return Ok(BTreeMap::new());
    };
    let now = SystemTime::now();
    let ours = state.docker.containers.iter();
    let ours = ours.filter(|container| container.service().is_some());
    let conditions = ours.map(|container| async move {
        let condition = engine.condition(&container.name, now).await?;
        Ok::<_, Failure>((container.name.clone(), condition))
    });
    Ok(try_join_all(conditions).await?.into_iter().collect())
}

/// Whether the LAN is asked who has an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lan {
    /// For services that are about to get one of the free addresses.
    Asked,
    /// Where nobody gets one.
    LeftAlone,
}

/// Adds to a state what the services of an environment need: their images, volumes and, for those without an address, who
/// on the LAN has one of the free ones.
///
/// # Errors
/// When the kernel or the Engine fails.
pub async fn services(
    machine: &Machine,
    plan: &Plan,
    env: &Env,
    services: &[Service],
    lan: Lan,
    state: &mut State,
) -> Result<(), Failure> {
    let Some(engine) = &machine.engine else {
        return Ok(());
    };
    let images: BTreeSet<&str> = services.iter().map(|s| s.image.as_str()).collect();
    let lookups = images.iter().map(|image| engine.image(image));
    let needs_volumes = services.iter().any(|s| s.named_volumes().next().is_some());
    let volumes = async {
        if needs_volumes {
            engine.volumes().await
        } else {
            Ok(Vec::new())
        }
    };
    let answered = async {
        match lan {
            Lan::Asked => answering(machine, plan, env, services, state).await,
            Lan::LeftAlone => Ok(Vec::new()),
        }
    };
    let (ids, volumes, answered) = tokio::try_join!(try_join_all(lookups), volumes, answered)?;
    state.docker.images = images
        .into_iter()
        .zip(ids)
        .filter_map(|(image, id)| Some((image.to_owned(), id?)))
        .collect();
    state.docker.volumes = volumes;
    state.answered = answered;
    Ok(())
}

/// Asks the LAN for free addresses, from the lowest, until there are enough for the services that need one. The shim asks:
/// it hears the containers of this host too, and the plan knows the hosts.
async fn answering(
    machine: &Machine,
    plan: &Plan,
    env: &Env,
    services: &[Service],
    state: &State,
) -> Result<Vec<Ipv4Addr>, Failure> {
    let needed = services
        .iter()
        .filter(|service| {
            service.address.is_none() && containers::kept(plan, env, service, state).is_none()
        })
        .count();
    let mut answered = Vec::new();
    if needed == 0 {
        return Ok(answered);
    }
    let candidates: Vec<Ipv4Addr> = containers::free(plan, env, state).collect();
    let mut free = 0;
    for asked in candidates.chunks(needed.max(4)) {
        let found = machine.netlink.answering(&plan.shim_name, asked).await?;
        free += asked.len() - found.len();
        answered.extend(found);
        if free >= needed {
            break;
        }
    }
    Ok(answered)
}

/// Completes the environments of services: the content of their `env_file`s, and variables that are taken from homelab's
/// own environment.
///
/// # Errors
/// Every file that cannot be read or understood, at its place in homelab.toml.
pub fn environments(services: &mut [Service]) -> Result<(), Vec<Problem>> {
    let mut problems = Vec::new();
    for service in services {
        for (path, span) in std::mem::take(&mut service.env_file).into_iter().rev() {
            match env_file(&path) {
                Ok(pairs) => {
                    for (name, value) in pairs.into_iter().rev() {
                        service.environment.entry(name).or_insert(value);
                    }
                }
                Err((what, hint)) => problems.push(Problem::error(span, what).hint(hint)),
            }
        }
        // As in Compose, a variable that is not set here is not set there.
        service.environment.retain(|name, value| {
            if value.is_none() {
                *value = std::env::var(name).ok();
            }
            value.is_some()
        });
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(problems)
    }
}

type Pairs = Vec<(String, Option<String>)>;

fn env_file(path: &Path) -> Result<Pairs, (String, String)> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| {
        (
            format!("`{shown}` {}", why_unreadable(&error)),
            "paths start from the folder of homelab.toml".to_owned(),
        )
    })?;
    parse_env_file(&text).map_err(|line| {
        (
            format!("line {line} of `{shown}` is not a variable"),
            "write `NAME=value` on a line of its own; `#` begins a comment".to_owned(),
        )
    })
}

/// Reads `NAME=value` lines; `NAME` alone stands for a variable of homelab's own environment. Values may be quoted;
/// a `$` is nothing special. The error is the number of a wrong line, from 1.
fn parse_env_file(text: &str) -> Result<Pairs, usize> {
    let mut pairs = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        let line = line.strip_prefix("export ").unwrap_or(line).trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = match line.split_once('=') {
            Some((name, value)) => (name.trim_end(), Some(value)),
            None => (line, None),
        };
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(index + 1);
        }
        let value = match value.map(unquoted) {
            Some(None) => return Err(index + 1),
            Some(Some(value)) => Some(value),
            None => None,
        };
        pairs.push((name.to_owned(), value));
    }
    Ok(pairs)
}

/// `None` when a quote does not end.
fn unquoted(value: &str) -> Option<String> {
    let value = value.trim();
    if let Some(rest) = value.strip_prefix('\'') {
        return rest.split_once('\'').map(|(inner, _)| inner.to_owned());
    }
    let Some(rest) = value.strip_prefix('"') else {
        // A comment behind a bare value has a space in front of it.
        let end = value.find(" #").unwrap_or(value.len());
        return Some(value.get(..end).unwrap_or(value).trim_end().to_owned());
    };
    let mut inner = String::new();
    let mut characters = rest.chars();
    loop {
        match characters.next()? {
            '"' => return Some(inner),
            '\\' => inner.push(match characters.next()? {
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                other => other,
            }),
            other => inner.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn env_files_are_lines_of_names_and_values() {
        let text =
            "# who\nA=1\nexport B = two words # said\nC='a # b'\nD=\"x\\n\\\"y\\\" $Z\"\nE\nF=\n\n";
        let value = |text: &str| Some(text.to_owned());
        assert_eq!(
            parse_env_file(text),
            Ok(vec![
                ("A".to_owned(), value("1")),
                ("B".to_owned(), value("two words")),
                ("C".to_owned(), value("a # b")),
                ("D".to_owned(), value("x\n\"y\" $Z")),
                ("E".to_owned(), None),
                ("F".to_owned(), value("")),
            ])
        );
    }

    #[test]
    fn a_wrong_line_is_counted_from_one() {
        assert_eq!(parse_env_file("A=1\nnot a variable\n"), Err(2));
        assert_eq!(parse_env_file("A=\"open\n"), Err(1));
        assert_eq!(parse_env_file("=x\n"), Err(1));
    }
}
