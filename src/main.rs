//! `homelab`: containers with addresses of their own on the home network.
//!
//! The flow, each phase in the file of its name:
//!
//! ```text
//! homelab.toml -> config -> plan -> (observe) -> diff -> steps -> apply -> report
//! ```
//!
//! `config`, `plan` and `diff` are pure. `observe` reads, `apply` changes, `report` prints; `netlink` and `docker` are the
//! only ones who talk to the kernel and to the Engine. There is no state file: labels and link aliases are the state.

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
use cli::{Cli, Command, Shim};
use commands::Home;
use commands::load::{Compiled, File, Services};
use error::{DONE, FAILED, Failure, USAGE};
use report::Report;
use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let report = Report {
        json: cli.global.json,
        quiet: cli.global.quiet,
        verbose: cli.global.verbose,
    };
    match run(&cli, report) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            if let Some(failure) = error.downcast_ref::<Failure>() {
                report.failure(failure);
                ExitCode::from(failure.status)
            } else {
                report.unexpected(&error);
                ExitCode::from(FAILED)
            }
        }
    }
}

fn run(cli: &Cli, report: Report) -> anyhow::Result<u8> {
    if let Command::Probe(probe) = &cli.command {
        verify::agent::run(probe.process, probe.address)?;
        return Ok(DONE);
    }
    let file = File::read(&cli.global)?;
    let mut sources = file.sources();
    let services = match &cli.command {
        // The unit runs this without the right to read secrets.
        Command::Shim(Shim::Run(_)) => Services::LeftOut,
        _ => Services::Loaded,
    };
    let compiled = match file.compile(services, &mut sources) {
        Ok(compiled) => compiled,
        Err(problems) => {
            report.problems(&problems, &sources);
            return Ok(USAGE);
        }
    };
    let Compiled {
        plan,
        warnings,
        projects,
    } = compiled;
    if let Some(name) = &cli.global.host {
        commands::host_named(&plan, name)?;
    }
    if matches!(cli.command, Command::Check) {
        report::address_plan(report, &plan);
        let notices = projects.iter().flat_map(|project| project.notices.clone());
        let all = input::problem::in_order(warnings.into_iter().chain(notices).collect());
        report.problems(&all, &sources);
        return Ok(DONE);
    }
    if report.verbose {
        report.problems(&warnings, &sources);
    }
    let home = Home {
        file: &file,
        sources: &sources,
        plan: &plan,
        projects: &projects,
        global: &cli.global,
        report,
        begun: Instant::now(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the kernel gives no event queue")?;
    let status = runtime.block_on(async {
        match &cli.command {
            Command::Check | Command::Probe(_) => Ok(DONE),
            Command::Status => home.status().await,
            Command::Verify => home.verify().await,
            Command::NetworkUp(change) => home.network_up(change).await,
            Command::NetworkDown(change) => home.network_down(change).await,
            Command::EnvUp(environment) => home.env_up(environment).await,
            Command::EnvDown(environment) => home.env_down(environment).await,
            Command::Ps(listing) => home.ps(listing).await,
            Command::Logs(logs) => home.logs(logs).await,
            Command::Config(which) => home.config(which),
            Command::Shim(Shim::Install(change)) => home.shim_install(change).await,
            Command::Shim(Shim::Uninstall(change)) => home.shim_uninstall(change).await,
            Command::Shim(Shim::Up(change)) => home.shim_up(change).await,
            Command::Shim(Shim::Down(change)) => home.shim_down(change).await,
            Command::Shim(Shim::Run(run)) => home.shim_run(run).await,
        }
    })?;
    Ok(status)
}
