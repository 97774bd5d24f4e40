//! The cases under tests/cases, each a folder: the command line, the plan (`homelab.toml`, else the one beside the
//! folders), the observed state, and the steps that must come of it. `SNAPSHOTS=overwrite cargo test` writes the steps.

mod machine;

use super::step::{Action, LinkAction, UnitAction};
use super::{Diff, PullPhase, Request, Selection, Step, diff};
use crate::cli::{Cli, Command, Environment, Shim};
use crate::error::{Diagnostic, Error};
use crate::plan::naming::SHIM_UNIT;
use crate::plan::tests::PlanFiles;
use crate::plan::unit_files::{ShimUnit, installed_parent_links, parent_links_path};
use crate::plan::{CompleteService, Env, Plan, PullPolicy};
use crate::report;
use crate::state::State;
use clap::Parser as _;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn read(path: &Path) -> String {
    std::fs::read_to_string(path)
        .unwrap_or_else(|error| unreachable!("{}: {error}", path.display()))
}

fn cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases")
}

fn compile(folder: &Path) -> Plan {
    let own = folder.join("homelab.toml");
    let path = if own.exists() {
        own
    } else {
        cases().join("homelab.toml")
    };
    let files = PlanFiles::new(read(&path));
    let compose = folder.join("compose.yml");
    if !compose.exists() {
        return files.plan();
    }
    let addresses = [
        ("prod", "ENV=prod\nENV_ADDRESS=201\n"),
        ("preprod", "ENV=preprod\nENV_ADDRESS=231\n"),
    ];
    files.compose(&read(&compose)).env_files(&addresses).plan()
}

fn state_of(folder: &Path) -> State {
    toml::from_str(&read(&folder.join("state.toml")))
        .unwrap_or_else(|error| unreachable!("{}: {error}", folder.display()))
}

fn diff_of(folder: &Path) -> Result<Diff, Error> {
    diff_with(folder, &state_of(folder))
}

/// What the command of a case comes to when this is the state.
fn diff_with(folder: &Path, state: &State) -> Result<Diff, Error> {
    let plan = compile(folder);
    let line = read(&folder.join("command"));
    let words = std::iter::once("homelab").chain(line.split_whitespace());
    let cli = Cli::try_parse_from(words).unwrap_or_else(|error| unreachable!("{error}"));
    let host = match &cli.global.host {
        Some(name) => plan.host(name),
        None => plan.host_at(&state.own_addresses()),
    };
    let Some(host) = host else {
        unreachable!("{}: no host", folder.display())
    };
    let select = |options: &Environment| -> (Vec<String>, &Env) {
        let name = options.env.as_deref().or(plan.default_env.as_deref());
        let env = name.and_then(|name| plan.env(name));
        let env = env.unwrap_or_else(|| unreachable!("{}: no environment", folder.display()));
        (options.services.clone(), env)
    };
    let request = match &cli.command {
        Command::NetworkUp(_) => Request::NetworkUp(host),
        Command::NetworkDown(_) => Request::NetworkDown(host),
        Command::EnvUp(up) => {
            let (named, env) = select(&up.environment);
            let selection = Selection {
                named: &named,
                remove_orphans: up.environment.remove_orphans,
                force_recreate: up.force_recreate,
                no_deps: up.no_deps,
                pull: up.pull.map(PullPolicy::from),
                ..Selection::whole(&plan, env, host)
            };
            let services = selection.with_dependencies().into_iter().cloned();
            let services: Vec<CompleteService> =
                services.map(CompleteService::without_files).collect();
            let result = |pulls| {
                let selection = Selection { pulls, ..selection };
                diff(&Request::EnvUp(&selection, &services), &plan, state)
            };
            if up.environment.change.dry_run {
                return result(PullPhase::Planned);
            }
            // The command carries out the first before it looks again.
            let pulls = result(PullPhase::Alone)?;
            let mut diff = result(PullPhase::Done)?;
            diff.warnings.splice(0..0, pulls.warnings);
            return Ok(diff);
        }
        Command::EnvDown(options) => {
            let (named, env) = select(options);
            let selection = Selection {
                named: &named,
                remove_orphans: options.remove_orphans,
                ..Selection::whole(&plan, env, host)
            };
            return diff(&Request::EnvDown(&selection), &plan, state);
        }
        Command::Shim(Shim::Up(_)) => Request::ShimUp(host),
        Command::Shim(Shim::Down(_)) => Request::ShimDown,
        Command::Shim(Shim::Install(_)) => Request::ShimInstall(host, unit(&host.name)),
        Command::Shim(Shim::Uninstall(_)) => Request::ShimUninstall,
        Command::Shim(Shim::Run(_)) => return kept(folder, state),
        Command::Check
        | Command::Status
        | Command::Verify
        | Command::Ps(_)
        | Command::Logs(_)
        | Command::Config(_)
        | Command::Probe(_) => unreachable!("{line} has no diff"),
    };
    diff(&request, &plan, state)
}

/// The parent links that the installed unit was told of.
fn parent_links(state: &State) -> Vec<String> {
    installed_parent_links(state.systemd.shim.file(&parent_links_path()))
}

/// The unit as it is installed from the usual places.
fn unit(host: &str) -> ShimUnit<'_> {
    ShimUnit {
        program: "/usr/local/bin/homelab",
        file: "/etc/homelab/homelab.toml",
        host,
    }
}

/// What the running unit does about its links.
fn kept(folder: &Path, state: &State) -> Result<Diff, Error> {
    let plan = compile(folder);
    let host = plan.host_at(&state.own_addresses());
    let host = host.unwrap_or_else(|| unreachable!("{}: no host", folder.display()));
    diff(&Request::ShimRun(host, &parent_links(state)), &plan, state)
}

/// Carries a step out; what the unit does when it starts and stops is done too.
fn carry_out(folder: &Path, step: &Step, state: &mut State) {
    let shim = |name: &String| name == SHIM_UNIT;
    if let Action::Unit(UnitAction::Stop { name } | UnitAction::Restart { name }) = &step.action
        && shim(name)
    {
        let links = parent_links(state);
        let released = diff(&Request::ShimRelease(&links), &compile(folder), state);
        for step in released.unwrap_or_default().steps {
            let Action::Link(LinkAction::Delete { name }) = step.action else {
                unreachable!("{step:?}")
            };
            // Networks may stand on it: the kernel does not mind.
            state.links.retain(|link| link.name != name);
            state.routes.retain(|route| route.link != name);
        }
    }
    machine::carry_out(step, state);
    if let Action::Unit(UnitAction::Start { name } | UnitAction::Restart { name }) = &step.action
        && shim(name)
    {
        let steps = kept(folder, state).unwrap_or_else(|error| unreachable!("{error}"));
        for step in steps.steps {
            machine::carry_out(&step, state);
        }
    }
}

fn text_of(result: Result<Diff, Error>) -> String {
    let text = match result {
        Ok(diff) if diff == Diff::default() => "nothing to do".to_owned(),
        Ok(diff) => report::plain_steps(&diff),
        Err(error) => error
            .diagnostics
            .iter()
            .map(|Diagnostic { what, hint, .. }| {
                let hint = hint.as_deref().unwrap_or_default();
                format!("error: {what}\nhint: {hint}")
            })
            .collect::<Vec<_>>()
            .join("\n"),
    };
    text + "\n"
}

fn folders() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = std::fs::read_dir(cases())
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    folders
}

#[test]
fn every_case_has_its_steps() {
    let folders = folders();
    assert!(
        folders.len() > 30,
        "only {} cases were found",
        folders.len()
    );
    for folder in folders {
        let steps = text_of(diff_of(&folder));
        let expected = snapbox::Data::read_from(&folder.join("steps"), None);
        snapbox::Assert::new()
            .action_env("SNAPSHOTS")
            .eq(steps, expected);
    }
}

#[test]
fn every_step_waits_only_for_earlier_ones() {
    for folder in folders() {
        for (index, step) in diff_of(&folder)
            .unwrap_or_default()
            .steps
            .iter()
            .enumerate()
        {
            assert_eq!(step.id, index + 1);
            assert!(step.after.iter().all(|id| *id < step.id), "{step:?}");
        }
    }
}

/// Carries out some of the steps, each when those that it waits for are done, in an order and to an end that `seed` says.
fn carry_out_some(folder: &Path, diff: &Diff, state: &mut State, seed: usize) {
    let mut done: BTreeSet<usize> = BTreeSet::new();
    let end = seed % (diff.steps.len() + 1);
    for turn in 0..end {
        let is_ready = |step: &&Step| {
            !done.contains(&step.id) && step.after.iter().all(|id| done.contains(id))
        };
        let ready: Vec<&Step> = diff.steps.iter().filter(is_ready).collect();
        let Some(step) = ready.get((seed / 7 + turn * 31) % ready.len().max(1)) else {
            unreachable!("the steps wait for each other");
        };
        carry_out(folder, step, state);
        done.insert(step.id);
    }
}

/// Whether a command does something however often it runs.
fn is_repeated(folder: &Path) -> bool {
    let line = read(&folder.join("command"));
    line.contains("--force-recreate") || line.contains("--pull always")
}

/// Carries out all that there is to do, after which nothing may be left.
fn finish(folder: &Path, state: &mut State) {
    let diff = diff_with(folder, state);
    let diff = diff.unwrap_or_else(|error| unreachable!("{}: {error}", folder.display()));
    for step in &diff.steps {
        carry_out(folder, step, state);
    }
    let left = diff_with(folder, state).map(|diff| diff.steps);
    assert_eq!(left, Ok(Vec::new()), "{}", folder.display());
}

#[test]
fn nothing_is_left_to_do_when_all_steps_are_done() {
    for folder in folders() {
        if diff_of(&folder).is_ok() && !is_repeated(&folder) {
            finish(&folder, &mut state_of(&folder));
        }
    }
}

#[test]
fn a_run_that_was_killed_anywhere_can_be_run_again() {
    for folder in folders() {
        let Ok(diff) = diff_of(&folder) else { continue };
        if is_repeated(&folder) {
            continue;
        }
        let mut whole = state_of(&folder);
        finish(&folder, &mut whole);
        for seed in 0..40 {
            let mut state = state_of(&folder);
            carry_out_some(&folder, &diff, &mut state, seed);
            finish(&folder, &mut state);
            let links = |state: &State| -> BTreeMap<String, String> {
                let all = state.links.iter();
                all.map(|link| (link.name.clone(), format!("{link:?}")))
                    .collect()
            };
            assert_eq!(links(&state), links(&whole), "{}: {seed}", folder.display());
            let pools = |state: &State| -> BTreeMap<String, String> {
                let all = state.docker.networks.iter();
                all.map(|n| (n.name.clone(), format!("{:?} {:?}", n.parent, n.pools)))
                    .collect()
            };
            assert_eq!(
                pools(&state).into_keys().collect::<Vec<_>>(),
                pools(&whole).into_keys().collect::<Vec<_>>()
            );
            let containers = |state: &State| -> BTreeSet<(String, String)> {
                let all = state.docker.containers.iter();
                all.map(|c| (c.name.clone(), c.state.clone())).collect()
            };
            assert_eq!(
                containers(&state),
                containers(&whole),
                "{}: {seed}",
                folder.display()
            );
        }
    }
}
