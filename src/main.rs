//! `homelab`: containers with addresses of their own on the home network.
//!
//! The flow, each stage in the folder or file of its name; docs/development.md has the map:
//!
//! ```text
//!  homelab.toml, Compose files             kernel, systemd, Engine
//!             |                                      |
//!           input      text to values              system     asks
//!             |                                      |
//!            plan      every decision              observe
//!             |                                      |
//!             +-------------->  diff  <----------  state
//!                                |
//!                              steps  -------->  report    --dry-run, status
//!                                |
//!                              apply  -------->  system    acts
//! ```
//!
//! `input`, `plan` and `diff` are pure. `observe` reads, `apply` changes, `report` prints; `system` alone talks to the kernel, to
//! systemd and to the Engine. There is no state file: labels and link aliases are the state. The shim's service alone keeps a copy of
//! the last homelab.toml that was right.

mod apply;
mod cli;
mod commands;
mod diff;
mod error;
mod input;
mod observe;
mod plan;
mod report;
mod state;
mod system;
mod verify;

use anyhow::Context as _;
use clap::Parser as _;
use cli::{Cli, Command, Global, PARENT_LINKS_VARIABLE, Run, Shim};
use commands::Context;
use commands::interrupt::Interrupt;
use commands::load::PlanFile;
use error::{Error, ExitStatus};
use plan::Services;
use plan::unit_files::{self, ShimUnit};
use report::Report;
use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Instant;
use tokio::runtime::{Builder, Runtime};

fn main() -> ExitCode {
    let cli = parse();
    let report = Report {
        json: cli.global.json,
        quiet: cli.global.quiet,
        verbose: cli.global.verbose,
    };
    let status = run(&cli, report).unwrap_or_else(|error| {
        if let Some(error) = error.downcast_ref::<Error>() {
            report.error(error);
            error.status
        } else {
            report.unexpected(&error);
            ExitStatus::Failed
        }
    });
    ExitCode::from(status.code())
}

/// The command line. clap's messages show words of it as they are, so a wrong one is read again with words that no terminal obeys,
/// which is as wrong.
fn parse() -> Cli {
    let words: Vec<OsString> = std::env::args_os().collect();
    let links = std::env::var(PARENT_LINKS_VARIABLE).ok();
    if let Some(cli) = of_unit(&words, links.as_deref()) {
        return cli;
    }
    Cli::try_parse_from(&words).unwrap_or_else(|error| {
        let words = words.iter().map(|word| word.to_string_lossy());
        let shown = words.map(|word| report::visible(&word).into_owned());
        Cli::try_parse_from(shown).err().unwrap_or(error).exit()
    })
}

/// The command line of the shim's unit, which needs no parser: clap's takes 0.1 MB of the memory that the service has, which is there
/// always. `links` is the unit's variable.
fn of_unit(words: &[OsString], links: Option<&str>) -> Option<Cli> {
    let words: Option<Vec<&str>> = words.iter().map(|word| word.to_str()).collect();
    let unit = ShimUnit::from_words(words?.into_iter())?;
    let run = Run {
        parent_links: unit_files::listed(links),
    };
    Some(Cli {
        global: Global {
            config: Some(unit.file.into()),
            host: Some(unit.host.to_owned()),
            json: false,
            quiet: false,
            verbose: false,
        },
        command: Command::Shim(Shim::Run(run)),
    })
}

fn run(cli: &Cli, report: Report) -> anyhow::Result<ExitStatus> {
    if let Command::Probe(probe) = &cli.command {
        verify::agent::run(probe.process, probe.address, report::line)?;
        return Ok(ExitStatus::Done);
    }
    if let Command::ProbeFilter(probe) = &cli.command {
        system::filter::answer(probe, report::line);
        return Ok(ExitStatus::Done);
    }
    if let Command::Shim(Shim::Run(args)) = &cli.command {
        let service = commands::shim_service::run(&cli.global, args, report);
        return Ok(runtime()?.block_on(service)?);
    }
    let file = PlanFile::read(&cli.global)?;
    let mut sources = file.sources();
    let (plan, warnings) = match file.compile(Services::Loaded, &mut sources) {
        Ok(compiled) => compiled,
        Err(problems) => {
            report.diagnostics(&problems, &sources);
            return Ok(ExitStatus::Usage);
        }
    };
    if let Some(name) = &cli.global.host {
        commands::host_named(&plan, name)?;
    }
    if matches!(cli.command, Command::Check) {
        report::address_plan(report, &plan);
        let notices = plan.envs.iter().flat_map(|env| env.notices.clone());
        let all = input::problem::in_order(warnings.into_iter().chain(notices).collect());
        report.diagnostics(&all, &sources);
        return Ok(ExitStatus::Done);
    }
    if report.verbose {
        report.diagnostics(&warnings, &sources);
    }
    let begun = Instant::now();
    let result = runtime()?.block_on(async {
        let interrupt = Interrupt::listen(report, cli.command.changes());
        let context = Context {
            file: &file,
            sources: &sources,
            plan: &plan,
            global: &cli.global,
            report,
            begun,
            interrupt,
        };
        dispatch(&cli.command, &context).await
    });
    Ok(result?)
}

fn runtime() -> anyhow::Result<Runtime> {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the kernel gives no event queue")
}

async fn dispatch(command: &Command, context: &Context<'_>) -> Result<ExitStatus, Error> {
    match command {
        // These need no more than their arguments, and are done by now.
        Command::Check
        | Command::Probe(_)
        | Command::ProbeFilter(_)
        | Command::Shim(Shim::Run(_)) => Ok(ExitStatus::Done),
        Command::Status => context.status().await,
        Command::Verify => context.verify().await,
        Command::NetworkUp(args) => context.network_up(args).await,
        Command::NetworkDown(args) => context.network_down(args).await,
        Command::EnvUp(args) => context.env_up(args).await,
        Command::EnvDown(args) => context.env_down(args).await,
        Command::Ps(args) => context.ps(args).await,
        Command::Logs(args) => context.logs(args).await,
        Command::Config(args) => context.config(args),
        Command::Shim(Shim::Install(args)) => context.shim_install(args).await,
        Command::Shim(Shim::Uninstall(args)) => context.shim_uninstall(args).await,
        Command::Shim(Shim::Up(args)) => context.shim_up(args).await,
        Command::Shim(Shim::Down(args)) => context.shim_down(args).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_of_the_unit_is_what_clap_makes_of_it() {
        let unit = ShimUnit {
            program: "/usr/local/bin/homelab",
            file: "/etc/homelab/homelab.toml",
            host: "pi",
        };
        let text = unit_files::shim(&unit);
        let line = text.lines().find_map(|l| l.strip_prefix("ExecStart="));
        let words: Vec<OsString> = line
            .unwrap_or_default()
            .split(' ')
            .map(Into::into)
            .collect();
        for links in [None, Some("hl-prod"), Some("hl-prod,hl-preprod")] {
            let option = links.map(|links| ["--parent-links", links]);
            let option = option.into_iter().flatten().map(OsString::from);
            let parsed = Cli::try_parse_from(words.iter().cloned().chain(option));
            let own = of_unit(&words, links);
            assert_eq!(format!("{own:?}"), format!("{:?}", parsed.ok()));
        }
        let (_, shorter) = words.split_last().unwrap_or_else(|| unreachable!());
        assert!(of_unit(shorter, None).is_none());
    }
}
