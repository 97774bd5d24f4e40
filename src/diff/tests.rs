//! The cases under tests/cases, each a folder: the command line, the observed state, the plan (the folder's own, the one
//! that the state names, else the one beside the folders), and the steps that must come of them.
//! `SNAPSHOTS=overwrite cargo test` writes the steps.

mod machine;
mod states;

use super::step::{Action, LinkAction, UnitAction};
use super::{Diff, PullPhase, Request, Selection, Step, diff};
use crate::cli::{Cli, Command, Environment, Shim, Up};
use crate::error::{Diagnostic, Error};
use crate::plan::naming::{LABEL_ENVIRONMENT, SHIM_UNIT, parent_link};
use crate::plan::tests::PlanFiles;
use crate::plan::unit_files::{ShimUnit, installed_parent_links, parent_links_path};
use crate::plan::{CompleteService, Env, Plan, PullPolicy};
use crate::report;
use crate::state::State;
use clap::Parser as _;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn read(path: &Path) -> String {
    std::fs::read_to_string(path)
        .unwrap_or_else(|error| unreachable!("{}: {error}", path.display()))
}

fn cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases")
}

/// A folder, read.
struct Case {
    /// The name of the folder, which says what the case is about.
    name: String,
    command: String,
    plan: Plan,
    /// What it starts from.
    state: State,
    /// The file of the steps.
    steps: PathBuf,
}

impl Case {
    fn read(folder: &Path) -> Self {
        let (plan, state) = states::read(&cases(), &folder.join("state.toml"));
        let own = folder.join("homelab.toml");
        let file = match plan {
            Some(name) => states::named(&cases(), "plans", &name),
            None if own.exists() => own,
            None => cases().join("homelab.toml"),
        };
        Self {
            name: folder
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default(),
            command: read(&folder.join("command")).trim().to_owned(),
            plan: compile(&file, &folder.join("compose.yml")),
            state,
            steps: folder.join("steps"),
        }
    }

    /// What the command comes to.
    fn diff(&self) -> Result<Diff, Error> {
        diff_with(self, &self.state)
    }

    /// Whether the command does something however often it runs.
    fn is_repeated(&self) -> bool {
        self.command.contains("--force-recreate") || self.command.contains("--pull always")
    }
}

fn compile(file: &Path, compose: &Path) -> Plan {
    let files = PlanFiles::new(read(file));
    if !compose.exists() {
        return files.plan();
    }
    let addresses = [
        ("prod", "ENV=prod\nENV_ADDRESS=201\n"),
        ("preprod", "ENV=preprod\nENV_ADDRESS=231\n"),
    ];
    files.compose(&read(compose)).env_files(&addresses).plan()
}

/// What the command of a case comes to when this is the state.
fn diff_with(case: &Case, state: &State) -> Result<Diff, Error> {
    let Case {
        name: case_name,
        command: line,
        plan,
        ..
    } = case;
    let words = std::iter::once("homelab").chain(line.split_whitespace());
    let cli = Cli::try_parse_from(words).unwrap_or_else(|error| unreachable!("{error}"));
    let host = match &cli.global.host {
        Some(name) => plan.host(name),
        None => plan.host_at(&state.own_addresses()),
    };
    let Some(host) = host else {
        unreachable!("{case_name}: no host")
    };
    let select = |options: &Environment| -> (Vec<String>, &Env) {
        let name = options.env.as_deref().or(plan.default_env.as_deref());
        let env = name.and_then(|name| plan.env(name));
        let env = env.unwrap_or_else(|| unreachable!("{case_name}: no environment"));
        (options.services.clone(), env)
    };
    let request = match &cli.command {
        Command::NetworkUp(_) => Request::NetworkUp(host, Some(unit(&host.name))),
        Command::NetworkDown(_) => Request::NetworkDown(host),
        Command::EnvUp(up) => {
            let (named, env) = select(&up.environment);
            let selection = Selection {
                named: &named,
                ..Selection::whole(plan, env, host)
            };
            return env_up(up, selection, state);
        }
        Command::EnvDown(options) => {
            let (named, env) = select(options);
            let selection = Selection {
                named: &named,
                remove_orphans: options.remove_orphans,
                ..Selection::whole(plan, env, host)
            };
            return diff(&Request::EnvDown(&selection), plan, state);
        }
        Command::Shim(Shim::Up(_)) => Request::ShimUp(host, Some(unit(&host.name))),
        Command::Shim(Shim::Down(_)) => Request::ShimDown,
        Command::Shim(Shim::Install(_)) => Request::ShimInstall(host, unit(&host.name)),
        Command::Shim(Shim::Uninstall(_)) => Request::ShimUninstall,
        Command::Shim(Shim::Run(_)) => return kept(plan, state),
        Command::Check
        | Command::Status
        | Command::Verify
        | Command::Ps(_)
        | Command::Logs(_)
        | Command::Config(_)
        | Command::Probe(_)
        | Command::ProbeFilter(_) => unreachable!("{line} has no diff"),
    };
    diff(&request, plan, state)
}

/// What env-up comes to: its pulls are carried out before it looks again.
fn env_up(up: &Up, whole: Selection, state: &State) -> Result<Diff, Error> {
    let selection = Selection {
        remove_orphans: up.environment.remove_orphans,
        force_recreate: up.force_recreate,
        no_deps: up.no_deps,
        pull: up.pull.map(PullPolicy::from),
        ..whole
    };
    let services = selection.with_dependencies().into_iter().cloned();
    let services: Vec<CompleteService> = services.map(CompleteService::without_files).collect();
    let result = |pulls| {
        let selection = Selection { pulls, ..selection };
        diff(
            &Request::EnvUp(&selection, &services),
            selection.plan,
            state,
        )
    };
    if up.environment.change.dry_run {
        return result(PullPhase::Planned);
    }
    let pulls = result(PullPhase::Alone)?;
    let mut diff = result(PullPhase::Done)?;
    diff.warnings.splice(0..0, pulls.warnings);
    Ok(diff)
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
fn kept(plan: &Plan, state: &State) -> Result<Diff, Error> {
    let host = plan.host_at(&state.own_addresses());
    let host = host.unwrap_or_else(|| unreachable!("this machine is no host of the plan"));
    diff(&Request::ShimRun(host, &parent_links(state)), plan, state)
}

/// Carries a step out; what the unit does when it starts and stops is done too.
fn carry_out(plan: &Plan, step: &Step, state: &mut State) {
    let shim = |name: &String| name == SHIM_UNIT;
    if let Action::Unit(UnitAction::Stop { name } | UnitAction::Restart { name }) = &step.action
        && shim(name)
    {
        let links: Vec<String> = parent_links(state)
            .into_iter()
            .chain(plan.shim_names())
            .collect();
        let released = diff(&Request::ShimRelease(&links), plan, state);
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
        let steps = kept(plan, state).unwrap_or_else(|error| unreachable!("{error}"));
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

fn all() -> Vec<Case> {
    let mut folders: Vec<PathBuf> = std::fs::read_dir(cases())
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.join("command").exists())
        .collect();
    folders.sort();
    assert!(
        folders.len() >= 159,
        "only {} cases were found",
        folders.len()
    );
    folders.iter().map(|folder| Case::read(folder)).collect()
}

/// The cases whose command is carried out, with what it comes to. So many that a mistake that refuses all is noticed.
fn all_that_run() -> Vec<(Case, Diff)> {
    let run: Vec<(Case, Diff)> = all()
        .into_iter()
        .filter_map(|case| Some((case.diff().ok()?, case)))
        .map(|(diff, case)| (case, diff))
        .collect();
    assert!(run.len() >= 120, "only {} commands run", run.len());
    run
}

#[test]
fn every_case_has_its_steps() {
    for case in all() {
        let expected = snapbox::Data::read_from(&case.steps, None).raw();
        snapbox::Assert::new()
            .action_env("SNAPSHOTS")
            .eq(text_of(case.diff()), expected);
    }
}

#[test]
fn every_shared_state_and_plan_is_used() {
    let texts: Vec<String> = all()
        .iter()
        .map(|case| read(&case.steps.with_file_name("state.toml")))
        .chain(
            names("states")
                .iter()
                .map(|name| read(&states::named(&cases(), "states", name))),
        )
        .collect();
    for (key, folder) in [("like", "states"), ("plan", "plans")] {
        for name in names(folder) {
            let line = format!("{key} = \"{name}\"");
            assert!(
                texts
                    .iter()
                    .any(|text| text.lines().any(|found| found == line)),
                "no case says {line}"
            );
        }
    }
}

/// The names of the files that cases share.
fn names(folder: &str) -> Vec<String> {
    std::fs::read_dir(cases().join(folder))
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            Some(
                entry
                    .ok()?
                    .path()
                    .file_stem()?
                    .to_string_lossy()
                    .into_owned(),
            )
        })
        .collect()
}

#[test]
fn every_step_waits_only_for_earlier_ones() {
    for (_, diff) in all_that_run() {
        for (index, step) in diff.steps.iter().enumerate() {
            assert_eq!(step.id, index + 1);
            let mut awaited = step.after.iter().chain(&step.after_end);
            assert!(awaited.all(|id| *id < step.id), "{step:?}");
        }
    }
}

#[test]
fn there_are_steps_exactly_when_something_differs() {
    for (case, diff) in all_that_run() {
        // These are done because they were asked for: they go past what differs, or against the unit that would repair it.
        if case.is_repeated() || case.name == "shim-down-with-the-service" {
            continue;
        }
        assert_eq!(
            diff.steps.is_empty(),
            diff.differences.is_empty(),
            "{}: {:?}",
            case.name,
            diff.differences
        );
    }
}

/// Carries out some of the steps, each when those that it waits for are done, in an order and to an end that `seed` says.
fn carry_out_some(plan: &Plan, diff: &Diff, state: &mut State, seed: usize) {
    let mut done: BTreeSet<usize> = BTreeSet::new();
    let end = seed % (diff.steps.len() + 1);
    for turn in 0..end {
        let is_ready = |step: &&Step| {
            let mut awaited = step.after.iter().chain(&step.after_end);
            !done.contains(&step.id) && awaited.all(|id| done.contains(id))
        };
        let ready: Vec<&Step> = diff.steps.iter().filter(is_ready).collect();
        let Some(step) = ready.get((seed / 7 + turn * 31) % ready.len().max(1)) else {
            unreachable!("the steps wait for each other");
        };
        carry_out(plan, step, state);
        done.insert(step.id);
    }
}

/// Carries out all that there is to do, and says what is left.
fn finish(case: &Case, state: &mut State) -> Vec<Step> {
    let name = &case.name;
    let diff = diff_with(case, state).unwrap_or_else(|error| unreachable!("{name}: {error}"));
    for step in &diff.steps {
        carry_out(&case.plan, step, state);
    }
    let left = diff_with(case, state).unwrap_or_else(|error| unreachable!("{name}: {error}"));
    left.steps
}

#[test]
fn nothing_is_left_to_do_when_all_steps_are_done() {
    let mut repeated = 0;
    for (case, _) in all_that_run() {
        let left = finish(&case, &mut case.state.clone());
        if case.is_repeated() {
            assert!(!left.is_empty(), "{}: it is done only once", case.name);
            repeated += 1;
        } else {
            assert_eq!(left, Vec::new(), "{}", case.name);
        }
    }
    assert_eq!(
        repeated, 3,
        "commands that do something however often they run"
    );
}

/// Gives fresh parent links the name that their environment gives: which one a run chose is its own business.
fn without_fresh_names(state: &mut State) {
    for network in &mut state.docker.networks {
        let Some(parent) = network
            .parent
            .as_mut()
            .filter(|name| name.starts_with("hl-"))
        else {
            continue;
        };
        let env = network.labels.get(LABEL_ENVIRONMENT).cloned();
        let name = parent_link(&env.unwrap_or_default());
        let texts = state.systemd.shim.files.values_mut();
        texts.for_each(|text| *text = text.replace(parent.as_str(), &name));
        for link in state.links.iter_mut().filter(|link| link.name == *parent) {
            link.name.clone_from(&name);
            link.mac = None;
        }
        *parent = name;
    }
}

/// What must be the same however a run came to its end: everything, the pools of networks and the addresses of containers
/// too, for these are chosen by the plan and not by the order of the steps. Only the order in which things were made may
/// differ, and with it the ids that the Engine gave them.
fn without_order_and_ids(state: &State) -> State {
    let mut state = state.clone();
    without_fresh_names(&mut state);
    state.links.sort_by(|a, b| a.name.cmp(&b.name));
    state
        .routes
        .sort_by_key(|route| (route.destination, route.metric));
    state.systemd.slices.sort_by(|a, b| a.name.cmp(&b.name));
    let docker = &mut state.docker;
    docker.volumes.sort();
    docker.networks.sort_by(|a, b| a.name.cmp(&b.name));
    docker.containers.sort_by(|a, b| a.name.cmp(&b.name));
    for network in &mut docker.networks {
        network.id.clear();
    }
    for container in &mut docker.containers {
        container.id.clear();
        for endpoint in container.networks.values_mut() {
            endpoint.network_id.clear();
        }
    }
    state
}

#[test]
fn a_run_that_was_killed_anywhere_can_be_run_again() {
    for (case, diff) in all_that_run() {
        if case.is_repeated() {
            continue;
        }
        let mut whole = case.state.clone();
        finish(&case, &mut whole);
        for seed in 0..40 {
            let mut state = case.state.clone();
            carry_out_some(&case.plan, &diff, &mut state, seed);
            let left = finish(&case, &mut state);
            assert_eq!(left, Vec::new(), "{}: {seed}", case.name);
            let (found, expected) = (without_order_and_ids(&state), without_order_and_ids(&whole));
            let expected = snapbox::Data::text(format!("{expected:#?}")).raw();
            snapbox::Assert::new().eq(format!("{found:#?}"), expected);
        }
    }
}
