//! The cases under tests/cases, each a folder: the command line, the plan (`homelab.toml`, else the one beside the
//! folders), the observed state, and the steps that must come of it. `SNAPSHOTS=overwrite cargo test` writes the steps.

use super::containers::{self, Selection};
use super::{Diff, network, preflight};
use crate::cli::{Cli, Command, Environment};
use crate::failure::Blocker;
use crate::plan::{Plan, Service};
use crate::state::State;
use crate::{config, plan, report};
use clap::Parser as _;
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
    let compiled = config::parse(&read(&path))
        .and_then(|(config, problems)| plan::compile(&config, Path::new("/etc/homelab"), problems));
    match compiled {
        Ok((plan, _)) => plan,
        Err(problems) => unreachable!("{}: {problems:?}", path.display()),
    }
}

fn diff_of(folder: &Path) -> Result<Diff, Vec<Blocker>> {
    let plan = compile(folder);
    let state: State = toml::from_str(&read(&folder.join("state.toml")))
        .unwrap_or_else(|error| unreachable!("{}: {error}", folder.display()));
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
    let select = |options: &Environment, run: &dyn Fn(&Selection) -> Result<Diff, Vec<Blocker>>| {
        let name = options.env.as_deref().or(plan.default_env.as_deref());
        let Some(env) = name.and_then(|name| plan.env(name)) else {
            unreachable!("{}: no environment", folder.display())
        };
        run(&Selection {
            plan: &plan,
            env,
            host: &host.name,
            named: &options.services,
            remove_orphans: options.remove_orphans,
        })
    };
    match &cli.command {
        Command::NetworkUp(_) => network::up(&plan, host, &state),
        Command::NetworkDown(_) => network::down(&plan, host, &state),
        Command::EnvUp(options) => select(options, &|selection| {
            preflight::engine(&state).map_err(|blocker| vec![blocker])?;
            let warnings = network::ready(&plan, host, selection.env, &state)
                .map_err(|blocker| vec![blocker])?;
            let services: Vec<Service> =
                selection.with_dependencies().into_iter().cloned().collect();
            let mut diff = containers::up(selection, &services, &state)?;
            diff.warnings.splice(0..0, warnings);
            Ok(diff)
        }),
        Command::EnvDown(options) => select(options, &|selection| {
            Ok(containers::down(selection, &state))
        }),
        Command::Check => unreachable!("check has no diff"),
    }
}

fn text_of(result: Result<Diff, Vec<Blocker>>) -> String {
    let text = match result {
        Ok(diff) if diff == Diff::default() => "nothing to do".to_owned(),
        Ok(diff) => report::plain_steps(&diff),
        Err(blockers) => blockers
            .iter()
            .map(|Blocker { what, hint }| format!("error: {what}\nhint: {hint}"))
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
