//! The command line. The doc comments are the help texts.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Containers with addresses of their own on the home network.
///
/// One file, homelab.toml, is the address plan of the home. homelab makes the host's macvlan shim, the Docker networks and
/// the containers of each environment from it, and takes away what it made.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, after_help = EXIT_STATUS)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_STATUS: &str = "Exit status: 0 done; 1 failed; 2 the command line or the file is wrong; \
3 --dry-run, status or verify found a difference; 130 interrupted.\nPeople read standard error, programs read standard output.";

/// The variable by which the unit is told which parent links Docker's networks stand on: it starts before Docker can be asked.
pub const PARENT_LINKS_VARIABLE: &str = "HOMELAB_PARENT_LINKS";

/// Options of every command.
#[derive(Args, Debug)]
pub struct Global {
    /// The address plan [default: the variable `HOMELAB_CONFIG`, ./homelab.toml, /etc/homelab/homelab.toml]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Which host of the plan this is [default: the one whose address this machine holds]
    #[arg(long, global = true, value_name = "NAME")]
    pub host: Option<String>,
    /// Print one JSON object per line
    #[arg(long, global = true)]
    pub json: bool,
    /// Print errors only
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Print causes, times and the plan's warnings too
    #[arg(short, long, global = true)]
    pub verbose: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Read the file and print the address plan; needs no root and no Docker
    Check,
    /// Make the shim and the Docker networks as planned; a second run changes nothing
    NetworkUp(ChangeArgs),
    /// Remove what network-up made; refuses while containers are attached
    NetworkDown(ChangeArgs),
    /// Start the services of an environment
    EnvUp(Up),
    /// Stop and remove the services of an environment; volumes stay
    EnvDown(Environment),
    /// List the containers of an environment
    Ps(Listing),
    /// Show what the containers of an environment wrote
    Logs(Logs),
    /// Print the services of an environment as they are when all files are merged; needs no root and no Docker
    Config(Which),
    /// Show what there is beside what the plan says
    Status,
    /// Prove with packets who can reach whom, and compare it with the plan
    Verify,
    /// One end of a proof, in a container's network and cgroup
    #[command(hide = true)]
    Probe(Probe),
    /// Tries whether the kernel refuses what a slice denies
    #[command(hide = true)]
    ProbeFilter(ProbeFilter),
    /// The shim alone: install it as a service, make it, remove it
    #[command(subcommand)]
    Shim(Shim),
}

impl Command {
    /// Whether it changes the machine, when it is no dry run.
    pub fn changes(&self) -> bool {
        match self {
            Self::NetworkUp(_)
            | Self::NetworkDown(_)
            | Self::EnvUp(_)
            | Self::EnvDown(_)
            | Self::Shim(_) => true,
            Self::Check
            | Self::Ps(_)
            | Self::Logs(_)
            | Self::Config(_)
            | Self::Status
            | Self::Verify
            | Self::Probe(_)
            | Self::ProbeFilter(_) => false,
        }
    }
}

/// About the shim alone.
#[derive(Debug, Subcommand)]
pub enum Shim {
    /// Install, enable and start homelab-shim.service, which keeps the shim alive
    Install(ChangeArgs),
    /// Stop the service and take it away
    Uninstall(ChangeArgs),
    /// Make the shim, or start the service when it is installed
    Up(ChangeArgs),
    /// Remove the shim, or stop the service when it is installed
    Down(ChangeArgs),
    /// Make the shim and keep it alive until told to stop: what the service runs
    Run(Run),
}

/// Options of one end of a proof.
#[derive(Args, Debug)]
pub struct Probe {
    /// A process of the container
    #[arg(long, value_name = "PID")]
    pub process: Option<u32>,
    /// Where it answers, so that answers come from there
    #[arg(long)]
    pub address: std::net::Ipv4Addr,
}

/// Options of a process that tries the filter of slices.
#[derive(Args, Debug)]
pub struct ProbeFilter {
    /// Addresses that must be refused
    #[arg(long, value_delimiter = ',', required = true)]
    pub denied: Vec<std::net::Ipv4Addr>,
    /// Cgroups to try it in, one after the other; without any it is tried where the process is
    #[arg(long = "cgroup", value_name = "PATH")]
    pub cgroups: Vec<String>,
}

/// Options of what the service runs.
#[derive(Args, Debug)]
pub struct Run {
    /// Parent links to keep alive too, separated by commas
    #[arg(long, value_name = "LINKS", env = PARENT_LINKS_VARIABLE, value_delimiter = ',')]
    pub parent_links: Vec<String>,
}

/// Options of commands that change something.
#[derive(Args, Debug)]
pub struct ChangeArgs {
    /// Print what would be done, and why; change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Fail when another homelab is changing this machine, rather than wait for it
    #[arg(long)]
    pub no_wait: bool,
}

/// Options of env-up.
#[derive(Args, Debug)]
pub struct Up {
    /// What env-down takes too.
    #[command(flatten)]
    pub environment: Environment,
    /// Make containers anew although nothing changed
    #[arg(long)]
    pub force_recreate: bool,
    /// When to pull images [default: what each service says, else `missing`]
    #[arg(long, value_name = "WHEN")]
    pub pull: Option<PullWhen>,
    /// Start only the services that are named, not those that they depend on
    #[arg(long)]
    pub no_deps: bool,
    /// Wait until all services run, and are healthy where they have a healthcheck
    #[arg(long)]
    pub wait: bool,
    /// How long to wait at most, in seconds; implies --wait
    #[arg(long, value_name = "SECONDS")]
    pub wait_timeout: Option<u64>,
}

/// When images are pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PullWhen {
    /// Before every start.
    Always,
    /// When it is not on this machine.
    Missing,
    /// Never.
    Never,
}

/// An environment.
#[derive(Args, Debug)]
pub struct Which {
    /// The environment [default: `default_env` of the file]
    #[arg(long, value_name = "ENV")]
    pub env: Option<String>,
}

/// Options of ps.
#[derive(Args, Debug)]
pub struct Listing {
    /// The environment.
    #[command(flatten)]
    pub which: Which,
    /// Those that do not run too
    #[arg(short, long)]
    pub all: bool,
    /// Services; all when none is named
    #[arg(value_name = "SERVICE")]
    pub services: Vec<String>,
}

/// Options of logs.
#[derive(Args, Debug)]
pub struct Logs {
    /// The environment.
    #[command(flatten)]
    pub which: Which,
    /// Go on with what comes, until interrupted
    #[arg(short, long)]
    pub follow: bool,
    /// Only that many lines from the end of each log
    #[arg(short = 'n', long, value_name = "LINES")]
    pub tail: Option<u64>,
    /// Only what is not older, like `10m`
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub since: Option<std::time::Duration>,
    /// With the time of each line
    #[arg(short, long)]
    pub timestamps: bool,
    /// Without the names of the services in front
    #[arg(long)]
    pub no_log_prefix: bool,
    /// Services; all when none is named
    #[arg(value_name = "SERVICE")]
    pub services: Vec<String>,
}

/// Options of commands about an environment.
#[derive(Args, Debug)]
pub struct Environment {
    /// The environment [default: `default_env` of the file]
    #[arg(long, value_name = "ENV")]
    pub env: Option<String>,
    /// Remove containers of the environment that the plan does not have on this host
    #[arg(long)]
    pub remove_orphans: bool,
    /// Options of commands that change something.
    #[command(flatten)]
    pub change: ChangeArgs,
    /// Services; all of this host when none is named
    #[arg(value_name = "SERVICE")]
    pub services: Vec<String>,
}

fn duration(text: &str) -> Result<std::time::Duration, &'static str> {
    humantime::parse_duration(text).map_err(|_| "write it like `10m` or `2h`")
}
