//! The shim alone, and its service.

use super::Context;
use crate::cli::ChangeArgs;
use crate::diff::{self, Request, lan, preflight};
use crate::error::{Diagnostic, Error, ExitStatus, none_of};
use crate::observe;
use crate::plan::naming::SHIM_UNIT;
use crate::plan::unit_files::{self, ShimUnit};
use crate::plan::{Host, PlannedShim};
use crate::state::{Answer, State};
use crate::system::systemd;
use futures_util::future::try_join_all;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

impl Context<'_> {
    /// `homelab shim up`.
    ///
    /// # Errors
    /// Everything that stands in the way or goes wrong.
    pub async fn shim_up(&self, args: &ChangeArgs) -> Result<ExitStatus, Error> {
        let _turn = self.turn(args).await?;
        let (machine, mut state) = observe::machine(self.plan).await?;
        let host = self.host(&state)?;
        self.check_the_units_file(args, &state)?;
        let paths = self.unit_paths().ok();
        let unit = paths.as_ref().map(|paths| paths.unit(host));
        let request = Request::ShimUp(host, unit);
        state.answered = self.ask_for_shims(args, host, &request, &state).await?;
        self.converge(args, &request, (&machine, &state)).await
    }

    /// `homelab shim down`.
    ///
    /// # Errors
    /// What goes wrong.
    pub async fn shim_down(&self, args: &ChangeArgs) -> Result<ExitStatus, Error> {
        let _turn = self.turn(args).await?;
        let (machine, state) = observe::machine(self.plan).await?;
        self.converge(args, &Request::ShimDown, (&machine, &state))
            .await
    }

    /// `homelab shim install`.
    ///
    /// # Errors
    /// Everything that stands in the way or goes wrong.
    pub async fn shim_install(&self, args: &ChangeArgs) -> Result<ExitStatus, Error> {
        let _turn = self.turn(args).await?;
        let (machine, mut state) = observe::machine(self.plan).await?;
        let host = self.host(&state)?;
        let paths = self.unit_paths()?;
        check_readable(Path::new(&paths.file))?;
        let request = Request::ShimInstall(host, paths.unit(host));
        state.answered = self.ask_for_shims(args, host, &request, &state).await?;
        self.converge(args, &request, (&machine, &state)).await
    }

    /// `homelab shim uninstall`.
    ///
    /// # Errors
    /// What goes wrong.
    pub async fn shim_uninstall(&self, args: &ChangeArgs) -> Result<ExitStatus, Error> {
        let _turn = self.turn(args).await?;
        let (machine, state) = observe::machine(self.plan).await?;
        self.converge(args, &Request::ShimUninstall, (&machine, &state))
            .await
    }

    /// What a unit of this program and this file names.
    ///
    /// # Errors
    /// Where a unit cannot run this program, or cannot name one of the two.
    pub(super) fn unit_paths(&self) -> Result<UnitPaths, Error> {
        let (program, file) = (own_path()?, self.file.without_parents());
        Ok(UnitPaths {
            program: text_of(&program)?.to_owned(),
            file: text_of(&file)?.to_owned(),
        })
    }

    /// Who has the addresses of shims that are about to be made: two that answer for one address break each other.
    ///
    /// # Errors
    /// When somebody has that of the shim on the LAN of `[network]`, without which nothing runs. Where the service makes them, also that of
    /// another one: it makes what the file says, and may not ask.
    pub(super) async fn ask_for_shims(
        &self,
        args: &ChangeArgs,
        host: &Host,
        request: &Request<'_>,
        state: &State,
    ) -> Result<Vec<Answer>, Error> {
        let is_new = |shim: &PlannedShim| {
            let link = state.link(&shim.name);
            !link.is_some_and(|link| link.has(shim.address))
        };
        let new: Vec<PlannedShim> = self.plan.shims(host).filter(is_new).collect();
        if args.dry_run || new.is_empty() {
            return Ok(Vec::new());
        }
        let diff = diff::diff(request, self.plan, state)?;
        if diff.steps.is_empty() {
            return Ok(Vec::new());
        }
        preflight::permission(&diff, state)?;
        let has_service =
            state.systemd.shim.is_installed() || matches!(request, Request::ShimInstall(..));
        let asked = new.iter().map(|shim| async move {
            match preflight::parent_of(shim, self.plan, host, state) {
                Ok(parent) => observe::shim_holders(&parent.name, shim, self.plan, host).await,
                // The diff tells.
                Err(_) if shim.env.is_some() => Ok(Vec::new()),
                Err(error) => Err(error),
            }
        });
        let state = State {
            answered: try_join_all(asked).await?.concat(),
            ..State::default()
        };
        let stops_all = new.iter().filter(|shim| shim.env.is_none() || has_service);
        let taken = stops_all.filter_map(|shim| lan::shim_taken(self.plan, host, shim, &state));
        none_of(taken.collect())?;
        Ok(state.answered)
    }

    /// Whether an installed service keeps the shim by this file: by two files it would never be right.
    pub(super) fn check_the_units_file(
        &self,
        args: &ChangeArgs,
        state: &State,
    ) -> Result<(), Error> {
        let text = state.systemd.shim.file(&unit_files::path(SHIM_UNIT));
        let unit = text.and_then(ShimUnit::parse);
        let own = self.file.absolute();
        let Some(unit) = unit.filter(|unit| !is_same_file(Path::new(unit.file), &own)) else {
            return Ok(());
        };
        let other = Diagnostic::error(
            format!(
                "`{}` keeps the shim as `{}` says, and this is `{}`",
                SHIM_UNIT,
                unit.file,
                own.display()
            ),
            format!(
                "use that file, `--config {}`; or make the service use this one: `homelab shim install`",
                unit.file
            ),
        );
        if args.dry_run {
            self.report.warnings(&[other.into_warning()]);
            return Ok(());
        }
        Err(other.into())
    }
}

/// The absolute paths of this program and of homelab.toml.
pub(super) struct UnitPaths {
    program: String,
    file: String,
}

impl UnitPaths {
    /// The unit on a host of the plan.
    pub(super) fn unit<'a>(&'a self, host: &'a Host) -> ShimUnit<'a> {
        ShimUnit {
            program: &self.program,
            file: &self.file,
            host: &host.name,
        }
    }
}

/// The absolute path of this program, for a unit to run.
///
/// # Errors
/// Where a unit cannot run it, or should not.
fn own_path() -> Result<PathBuf, Error> {
    let path = std::env::current_exe().unwrap_or_default();
    // The unit sees no home folders and no temporary ones, and what runs at boot as a service should not be replaceable by
    // whoever owns those.
    let unseen = ["/home", "/root", "/run", "/tmp", "/var/tmp"];
    let shown = path.display();
    if path.is_absolute() && !unseen.iter().any(|folder| path.starts_with(folder)) {
        return match systemd::program_fault(&path).filter(|_| path.is_file()) {
            None => Ok(path),
            Some(fault) => Err(Error::new(
                format!(
                    "this program is `{shown}`, which is {fault}, and the service has a user of its own"
                ),
                format!(
                    "`chmod o+x` it and the folders that it is in; `namei -m {shown}` shows their modes"
                ),
            )),
        };
    }
    Err(Error::new(
        format!("this program is `{shown}`, where no service can run it"),
        format!(
            "put it where programs are: `install {shown} /usr/local/bin/`, then run `/usr/local/bin/homelab shim install`"
        ),
    ))
}

/// Whether a service with a user of its own can read a file.
fn check_readable(file: &Path) -> Result<(), Error> {
    // There the unit sees an empty folder that root alone may enter (`ProtectHome=tmpfs`), whatever the mode of the real one.
    if file.starts_with("/root") {
        return Err(Error::new(
            format!(
                "`{}` is in the home of root, where the service, which has a user of its own, reads nothing",
                file.display()
            ),
            "put homelab.toml into /etc/homelab",
        ));
    }
    // Of these folders the unit sees nothing but the file.
    let is_shown = unit_files::HIDDEN_FOLDERS
        .iter()
        .any(|folder| file.starts_with(folder));
    let is_open = |path: &Path, bits: u32| {
        std::fs::metadata(path).is_ok_and(|found| found.permissions().mode() & bits == bits)
    };
    let folders = file.ancestors().skip(1).filter(|_| !is_shown);
    let closed = folders.filter(|folder| !is_open(folder, 0o001)).last();
    if let Some(folder) = closed {
        return Err(Error::new(
            format!(
                "`{}` may be entered by its owner only, and the service has a user of its own",
                folder.display()
            ),
            format!(
                "open it, `chmod o+x {}`, or put homelab.toml into /etc/homelab",
                folder.display()
            ),
        ));
    }
    if !is_open(file, 0o004) {
        return Err(Error::new(
            format!(
                "`{}` may be read by its owner only, and the service has a user of its own",
                file.display()
            ),
            format!(
                "open it, `chmod o+r {}`; secrets belong into an `env_file`, which the service never reads",
                file.display()
            ),
        ));
    }
    Ok(())
}

/// A path that can stand in the file of a unit.
fn text_of(path: &Path) -> Result<&str, Error> {
    let text = path.to_str().filter(|text| unit_files::is_unit_path(text));
    text.ok_or_else(|| {
        Error::new(
            format!(
                "the path `{}` cannot stand in the file of a unit",
                path.display()
            ),
            "choose one of letters, digits and `/._-`, such as /etc/homelab/homelab.toml",
        )
    })
}

/// Whether two paths lead to one file.
fn is_same_file(one: &Path, other: &Path) -> bool {
    let real = std::fs::canonicalize;
    one == other || matches!((real(one), real(other)), (Ok(one), Ok(other)) if one == other)
}
