//! systemd and its files: the only user of systemctl and systemd-run. What they refuse becomes our own sentences here.

use super::cgroups::{CGROUPS, has_service, is_populated};
use super::files::{self, FINISHED};
use crate::diff::step::UnitAction;
use crate::error::Error;
use crate::plan::naming::{
    PARENT_SLICE, PLAN_COPY, SHIM_STATE, SHIM_UNIT, SLICE_PREFIX, UNFINISHED,
};
use crate::plan::unit_files::{self, DHCPCD, MANAGERS, ShimUnit};
use crate::state::{NOT_READ, Slice, Systemd};
use ipnet::IpNet;
use sd_notify::NotifyState;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use tokio::process::Command;

/// The mode of the file of a slice whose processes do not follow it yet; then it is [`FINISHED`]. Changing the mode leaves the
/// time alone by which systemd sees that it must read a file again.
const PENDING: u32 = 0o600;

const PROPERTIES: &str = "Id,ActiveState,UnitFileState,NeedDaemonReload,DropInPaths,ControlGroup,IPAddressDeny,IPAddressAllow";

/// Whether systemd is the init of this machine (`sd_booted(3)`).
fn is_running() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// What there is of slices that are ours, or that bear one of the names `wanted`.
///
/// # Errors
/// When systemd does not answer.
pub async fn observe(wanted: &[String]) -> Result<Systemd, Error> {
    let controllers = std::fs::read_to_string(format!("{CGROUPS}/cgroup.controllers")).ok();
    let mut systemd = Systemd {
        running: is_running(),
        controllers: controllers.map(|text| text.split_whitespace().map(str::to_owned).collect()),
        ..Systemd::default()
    };
    if !systemd.running {
        return Ok(systemd);
    }
    let mut names = slices_with_files();
    names.extend(wanted.iter().cloned());
    names.push(SHIM_UNIT.to_owned());
    names.sort();
    names.dedup();
    systemd.shim.files = service_files();
    systemd.shim.state = state_folders();
    let text = systemd.shim.file(&unit_files::path(SHIM_UNIT));
    let unit = text.and_then(ShimUnit::parse);
    systemd.shim.program_fault = unit.and_then(|unit| program_fault(Path::new(unit.program)));
    systemd.unfinished = unfinished();
    for manager in MANAGERS {
        let is_readable = systemd.shim.files.contains_key(manager.file);
        if Path::new(manager.presence).exists() && (manager.file != DHCPCD || is_readable) {
            let unit = manager.unit.to_owned();
            systemd
                .shim
                .managers
                .insert(unit, has_service(manager.unit));
        }
    }
    if Path::new(CGROUPS).join(PARENT_SLICE).is_dir() {
        systemd.slices.push(Slice {
            name: PARENT_SLICE.to_owned(),
            file: read_unit(PARENT_SLICE).0,
            active: true,
            populated: is_populated(&format!("/{PARENT_SLICE}")),
            ..Slice::default()
        });
    }
    for properties in show(&names).await? {
        let get = |key: &str| properties.get(key).map(String::as_str).unwrap_or_default();
        let unit = get("Id");
        let runs = matches!(get("ActiveState"), "active" | "activating" | "reloading");
        if unit == SHIM_UNIT {
            systemd.shim.active = runs;
            systemd.shim.enabled = get("UnitFileState") == "enabled" || is_linked();
            systemd.shim.stale = get("NeedDaemonReload") == "yes";
        } else {
            systemd.slices.extend(slice_of(&properties));
        }
    }
    Ok(systemd)
}

/// The paths of everything that homelab may write for the shim's unit.
fn service_paths() -> Vec<String> {
    let mut paths = vec![unit_files::path(SHIM_UNIT), unit_files::parent_links_path()];
    paths.extend(MANAGERS.iter().map(|manager| manager.file.to_owned()));
    paths
}

/// What runs left that were killed while they wrote a file.
fn unfinished() -> Vec<String> {
    let slices = names_of_files(|name| name.ends_with(UNFINISHED));
    let slices = slices.map(|name| unit_files::path(&name));
    let others = service_paths().into_iter().map(|path| {
        let unfinished = files::unfinished(&files::target(Path::new(&path)));
        unfinished.to_string_lossy().into_owned()
    });
    let others = others.filter(|path| Path::new(path).exists());
    slices
        .chain(others)
        .collect::<BTreeSet<String>>()
        .into_iter()
        .collect()
}

/// Why a service with a user of its own cannot run a program, in a few words.
pub fn program_fault(program: &Path) -> Option<String> {
    let mode = |path: &Path| std::fs::metadata(path).map(|found| found.permissions().mode());
    if !program.is_file() {
        return Some("missing".to_owned());
    }
    let is_closed = |path: &Path| mode(path).is_ok_and(|mode| mode & 0o001 == 0);
    program
        .ancestors()
        .any(is_closed)
        .then(|| "not executable for everybody".to_owned())
}

/// The names of files of the administrator's units.
fn names_of_files(fits: impl Fn(&str) -> bool) -> impl Iterator<Item = String> {
    let entries = std::fs::read_dir(unit_files::FOLDER).into_iter().flatten();
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(move |name| fits(name))
}

/// Those files that homelab may write for the shim's unit that there are.
fn service_files() -> BTreeMap<String, String> {
    let read = |path: String| {
        let text = read(Path::new(&path))?;
        // Of dhcpcd's file only what can be read is ever written again.
        (path != DHCPCD || text != NOT_READ).then_some((path, text))
    };
    service_paths().into_iter().filter_map(read).collect()
}

/// The text of a file, [`NOT_READ`] for one that is no text or no file: a unit that leads to /dev/null is masked. `None` where
/// there is nothing.
fn read(path: &Path) -> Option<String> {
    let Ok(found) = std::fs::metadata(path) else {
        // A link that leads nowhere is something too.
        return path.is_symlink().then(|| NOT_READ.to_owned());
    };
    let text = std::fs::read_to_string(path);
    Some(match text {
        Ok(text) if found.is_file() => text,
        _ => NOT_READ.to_owned(),
    })
}

/// Those folders in which the shim's unit keeps its copy of homelab.toml that there are: systemd makes one that belongs to the
/// unit, and a link to it (`DynamicUser=`, systemd.exec(5)). One that holds anything else is somebody's.
fn state_folders() -> Vec<String> {
    let names = [PLAN_COPY.to_owned(), format!("{PLAN_COPY}{UNFINISHED}")];
    let is_ours = |path: &String| {
        if let Ok(target) = std::fs::read_link(path) {
            return target.ends_with(format!("private/{SHIM_STATE}"));
        }
        std::fs::read_dir(path).is_ok_and(|entries| {
            let mut found = entries.flatten().map(|entry| entry.file_name());
            found.all(|name| names.iter().any(|own| name == own.as_str()))
        })
    };
    let paths = unit_files::state_folders().into_iter();
    paths.filter(is_ours).collect()
}

/// Whether the unit starts at boot: the link by which it does is there even when systemd cannot read the unit's file.
fn is_linked() -> bool {
    std::fs::symlink_metadata(unit_files::boot_link()).is_ok()
}

/// The names of all units that could be slices of ours.
fn slices_with_files() -> Vec<String> {
    let is_slice = |name: &str| {
        let middle = name.strip_prefix(SLICE_PREFIX);
        middle.is_some_and(|rest| rest.strip_suffix(".slice").is_some())
    };
    names_of_files(is_slice).collect()
}

type Properties = BTreeMap<String, String>;

/// The properties of units, which `systemctl show` separates by empty lines.
async fn show(units: &[String]) -> Result<Vec<Properties>, Error> {
    let mut arguments = vec!["show", "--property", PROPERTIES, "--"];
    arguments.extend(units.iter().map(String::as_str));
    Ok(units_of(&systemctl(&arguments, "tell about units").await?))
}

/// The properties of each unit in what `systemctl show` wrote.
fn units_of(text: &str) -> Vec<Properties> {
    let properties = |block: &str| {
        let pairs = block.lines().filter_map(|line| line.split_once('='));
        pairs
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    };
    text.split("\n\n").map(properties).collect()
}

/// `None` for a slice that there is not: it has neither a file nor a cgroup.
fn slice_of(properties: &Properties) -> Option<Slice> {
    let get = |key: &str| properties.get(key).map(String::as_str).unwrap_or_default();
    let name = get("Id");
    let (file, pending) = read_unit(name);
    let active = get("ActiveState") == "active";
    if name.is_empty() || (file.is_none() && !active) {
        return None;
    }
    let nets = |key: &str| -> Vec<IpNet> {
        let words = get(key).split_whitespace();
        words.filter_map(|word| word.parse().ok()).collect()
    };
    let drop_ins = get("DropInPaths").split_whitespace();
    let overrides = drop_ins.filter(|path| sets_addresses(Path::new(path)));
    Some(Slice {
        name: name.to_owned(),
        file,
        pending,
        stale: get("NeedDaemonReload") == "yes",
        active,
        populated: is_populated(get("ControlGroup")),
        deny: nets("IPAddressDeny"),
        allow: nets("IPAddressAllow"),
        overrides: overrides.map(str::to_owned).collect(),
    })
}

/// The text of a unit's file, and whether it is pending.
fn read_unit(name: &str) -> (Option<String>, bool) {
    let path = unit_files::path(name);
    let mode = std::fs::metadata(&path).map(|found| found.permissions().mode() & 0o777);
    (
        read(Path::new(&path)),
        mode.is_ok_and(|mode| mode != FINISHED),
    )
}

fn sets_addresses(path: &Path) -> bool {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.contains("IPAddressDeny") || text.contains("IPAddressAllow")
}

/// Carries out an act. This is all that changes units and their files.
///
/// # Errors
/// When systemd refuses, a unit does not become ready, or homelab may not.
pub async fn carry_out(action: &UnitAction) -> Result<(), Error> {
    match action {
        UnitAction::WriteSlice { slice, is_new: _ } => {
            write_slice(&slice.name, &unit_files::slice(slice))
        }
        UnitAction::ApplySlice { name } => apply_slice(name).await,
        UnitAction::WriteFile {
            path,
            text,
            is_new: _,
        } => files::write_as_found(Path::new(path), text),
        UnitAction::RemoveFile { path } => files::remove(Path::new(path)),
        UnitAction::RemoveFolder { path } => files::remove_folder(Path::new(path)),
        UnitAction::ReloadSystemd => reload().await,
        UnitAction::ReloadManager { name } => reload_manager(name).await,
        UnitAction::Enable { name } => enable(name).await,
        UnitAction::Disable { name } => disable(name).await,
        UnitAction::Start { name } => start(name).await,
        UnitAction::Restart { name } => restart(name).await,
        UnitAction::Stop { name } => stop(name).await,
    }
}

/// Writes the file of a slice. Until [`apply_slice`] it counts as pending.
///
/// # Errors
/// When homelab may not.
fn write_slice(name: &str, text: &str) -> Result<(), Error> {
    files::write(Path::new(&unit_files::path(name)), text, PENDING)
}

/// Makes the processes of a slice follow its file, which systemd has read.
///
/// systemd 257 changes the filter of a running slice only when another unit is made in it: so one is, for a moment.
///
/// # Errors
/// When systemd refuses.
async fn apply_slice(name: &str) -> Result<(), Error> {
    let properties = show(&[name.to_owned()]).await?;
    let is_active = |properties: &Properties| {
        properties.get("ActiveState").map(String::as_str) == Some("active")
    };
    if properties.iter().any(is_active) {
        let slice = format!("--slice={name}");
        let arguments = ["--quiet", "--collect", "--scope", &slice, "true"];
        run("systemd-run", &arguments, &format!("apply slice `{name}`")).await?;
    }
    files::set_mode(Path::new(&unit_files::path(name)), FINISHED)
}

/// Makes systemd read its files again.
///
/// # Errors
/// When systemd refuses.
async fn reload() -> Result<(), Error> {
    systemctl(&["daemon-reload"], "read its files again")
        .await
        .map(|_| ())
}

/// Stops a unit. One that does not run is no failure.
///
/// # Errors
/// When systemd refuses.
async fn stop(unit: &str) -> Result<(), Error> {
    systemctl(&["stop", unit], &format!("stop `{unit}`"))
        .await
        .map(|_| ())
}

/// Starts a unit and waits until it is ready.
///
/// # Errors
/// When it does not become ready.
async fn start(unit: &str) -> Result<(), Error> {
    started(
        unit,
        systemctl(&["start", unit], &format!("start `{unit}`")).await,
    )
}

/// Stops a unit if it runs, starts it, and waits until it is ready.
///
/// # Errors
/// When it does not become ready.
async fn restart(unit: &str) -> Result<(), Error> {
    started(
        unit,
        systemctl(&["restart", unit], &format!("restart `{unit}`")).await,
    )
}

fn started(unit: &str, result: Result<String, Error>) -> Result<(), Error> {
    result.map(|_| ()).map_err(|mut error| {
        for diagnostic in &mut error.diagnostics {
            diagnostic.hint = Some(format!("`journalctl -b -u {unit}` tells why"));
        }
        error
    })
}

/// Makes a unit start at boot.
///
/// # Errors
/// When systemd refuses.
async fn enable(unit: &str) -> Result<(), Error> {
    systemctl(&["enable", "--quiet", unit], &format!("enable `{unit}`")).await?;
    files::sync_link(Path::new(&unit_files::boot_link()))
}

/// Makes a unit start at boot no more.
///
/// # Errors
/// When systemd refuses.
async fn disable(unit: &str) -> Result<(), Error> {
    let what = format!("disable `{unit}`");
    let said = systemctl(&["disable", "--quiet", unit], &what).await;
    // Of a unit whose file is empty systemd says that it is masked, and leaves the link.
    if is_linked() {
        return files::remove(Path::new(&unit_files::boot_link()));
    }
    said?;
    files::sync_link(Path::new(&unit_files::boot_link()))
}

/// Makes a network manager read its files again; no link that it manages goes down.
///
/// # Errors
/// When it refuses.
async fn reload_manager(unit: &str) -> Result<(), Error> {
    let what = format!("make `{unit}` read its files again");
    match unit {
        "systemd-networkd.service" => run("networkctl", &["reload"], &what).await,
        "NetworkManager.service" => systemctl(&["reload", unit], &what).await,
        // SIGHUP: it reads its file again and rebinds its leases (dhcpcd(8), `--rebind`).
        _ => systemctl(&["kill", "--signal=HUP", "--kill-who=main", unit], &what).await,
    }
    .map(|_| ())
}

/// Tells systemd that this service is ready; nothing when it did not start this process.
pub fn ready(status: &str) {
    let status = NotifyState::Status(one_line(status));
    let _ = sd_notify::notify(&[NotifyState::Ready, status]);
}

/// Tells systemd what this service is doing.
pub fn status(status: &str) {
    let _ = sd_notify::notify(&[NotifyState::Status(one_line(status))]);
}

/// What systemd is told is lines of settings (`sd_notify(3)`): one that came with a name from elsewhere would be a setting too.
fn one_line(status: &str) -> &str {
    status.lines().next().unwrap_or_default()
}

async fn systemctl(arguments: &[&str], what: &str) -> Result<String, Error> {
    run("systemctl", arguments, what).await
}

async fn run(program: &str, arguments: &[&str], what: &str) -> Result<String, Error> {
    let output = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C")
        .env("SYSTEMD_COLORS", "0")
        .env("SYSTEMD_PAGER", "")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await;
    let Ok(output) = output else {
        return Err(Error::new(
            format!("cannot {what}: there is no program `{program}`"),
            "install systemd, and see whether PATH has its folder",
        ));
    };
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("Access denied") || said.contains("authentication required") {
        return Err(Error::new(
            format!("not permitted to {what}"),
            "run homelab as root",
        ));
    }
    for (words, why, hint) in [
        (
            "No space left on device",
            "its file system is full",
            "make room; `df -h /etc` and `df -i /etc` show what is full; then run this again",
        ),
        (
            "Read-only file system",
            "its file system is read-only",
            "`findmnt -T /etc/systemd/system` names it; `mount -o remount,rw` with its TARGET makes it writable; then run this again",
        ),
    ] {
        if said.contains(words) {
            return Err(Error::new(format!("cannot {what}: {why}"), hint));
        }
    }
    let said = said.lines().next().unwrap_or("it gave no reason");
    Err(Error::new(
        format!("systemd did not {what}: {said}"),
        "`journalctl -b -p warning` may tell more",
    ))
}

#[cfg(test)]
mod tests;
