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
mod config;
mod diff;
mod docker;
mod failure;
mod file;
mod keeper;
mod netlink;
mod observe;
mod plan;
mod probe;
mod problem;
mod report;
mod state;
mod status;
mod systemd;
mod units;
mod verify;

use anyhow::Context as _;
use clap::Parser as _;
use cli::{Cli, Command, Shim};
use commands::Home;
use failure::{DONE, FAILED, Failure, USAGE};
use file::File;
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
        probe::run(probe.process, probe.address)?;
        return Ok(DONE);
    }
    let file = File::read(&cli.global)?;
    let Some((plan, warnings)) = file.compile(report) else {
        return Ok(USAGE);
    };
    if let Some(name) = &cli.global.host {
        commands::host_named(&plan, name)?;
    }
    if matches!(cli.command, Command::Check) {
        report::address_plan(report, &plan);
        report.problems(&warnings, &file.text, &file.shown());
        return Ok(DONE);
    }
    if report.verbose {
        report.problems(&warnings, &file.text, &file.shown());
    }
    let home = Home {
        file: &file,
        plan: &plan,
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
            Command::Shim(Shim::Install(change)) => home.shim_install(change).await,
            Command::Shim(Shim::Uninstall(change)) => home.shim_uninstall(change).await,
            Command::Shim(Shim::Up(change)) => home.shim_up(change).await,
            Command::Shim(Shim::Down(change)) => home.shim_down(change).await,
            Command::Shim(Shim::Run(run)) => home.shim_run(run).await,
        }
    })?;
    Ok(status)
}
