//! systemd and its files: the only user of systemctl and systemd-run. What they refuse becomes our own sentences here.

use super::cgroups::{CGROUPS, has_service, is_populated};
use crate::diff::step::UnitAction;
use crate::error::{Error, why_unreadable};
use crate::plan::naming::{PARENT_SLICE, SHIM_UNIT, SLICE_PREFIX, UNFINISHED};
use crate::plan::unit_files::{self, DHCPCD, MANAGERS};
use crate::state::{Slice, Systemd};
use ipnet::Ipv4Net;
use sd_notify::NotifyState;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt};
use std::path::Path;
use std::process::Stdio;
use tokio::process::Command;

/// The mode of a finished file, and of one whose slice does not follow it yet: changing the mode leaves the time alone by
/// which systemd sees that it must read a file again.
const FINISHED: u32 = 0o644;
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
            systemd.shim.enabled = get("UnitFileState") == "enabled";
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
    let others = service_paths().into_iter().map(|path| path + UNFINISHED);
    let others = others.filter(|path| Path::new(path).exists());
    slices
        .chain(others)
        .collect::<BTreeSet<String>>()
        .into_iter()
        .collect()
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
        let text = std::fs::read_to_string(&path);
        match text {
            Ok(text) => Some((path, text)),
            // One that cannot be read is somebody's; of dhcpcd's only what can be read is ever written again.
            Err(_) if path != DHCPCD && Path::new(&path).exists() => Some((path, String::new())),
            Err(_) => None,
        }
    };
    service_paths().into_iter().filter_map(read).collect()
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
    let nets = |key: &str| -> Vec<Ipv4Net> {
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

/// The text of a unit's file, and whether it is pending. One that may not be read is somebody's.
fn read_unit(name: &str) -> (Option<String>, bool) {
    let path = unit_files::path(name);
    let Ok(metadata) = std::fs::metadata(&path) else {
        return (None, false);
    };
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let pending = metadata.permissions().mode() & 0o777 != FINISHED;
    (Some(text), pending)
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
        } => write_file(path, text),
        UnitAction::RemoveFile { path } => remove(path),
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
    write(&unit_files::path(name), text, PENDING)
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
    let path = unit_files::path(name);
    std::fs::set_permissions(&path, PermissionsExt::from_mode(FINISHED))
        .map_err(|error| unwritable(&path, &error))
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
    systemctl(&["enable", "--quiet", unit], &format!("enable `{unit}`"))
        .await
        .map(|_| ())
}

/// Makes a unit start at boot no more.
///
/// # Errors
/// When systemd refuses.
async fn disable(unit: &str) -> Result<(), Error> {
    systemctl(&["disable", "--quiet", unit], &format!("disable `{unit}`"))
        .await
        .map(|_| ())
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

/// Writes a file of ours, or of a network manager.
///
/// # Errors
/// When homelab may not.
fn write_file(path: &str, text: &str) -> Result<(), Error> {
    // A file of somebody else keeps its mode and owner, and its place when the path is a link to it.
    let target = std::fs::canonicalize(path).unwrap_or_else(|_| path.into());
    let found = std::fs::metadata(&target).ok();
    let mode = found
        .as_ref()
        .map_or(FINISHED, |found| found.mode() & 0o777);
    write(&target.to_string_lossy(), text, mode)?;
    if let Some(found) = found {
        std::os::unix::fs::chown(&target, Some(found.uid()), Some(found.gid()))
            .map_err(|error| unwritable(path, &error))?;
    }
    Ok(())
}

/// Writes a file whole or not at all, in a folder that is made when it is missing.
fn write(path: &str, text: &str, mode: u32) -> Result<(), Error> {
    let attempt = || {
        if let Some(folder) = Path::new(path).parent() {
            std::fs::create_dir_all(folder)?;
        }
        let unfinished = format!("{path}{UNFINISHED}");
        let _ = std::fs::remove_file(&unfinished);
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&unfinished)?;
        file.write_all(text.as_bytes())?;
        file.set_permissions(PermissionsExt::from_mode(mode))?;
        file.sync_all()?;
        std::fs::rename(&unfinished, path)
    };
    attempt().map_err(|error| unwritable(path, &error))
}

/// Removes a file, and its folder when that is empty and belongs to one unit only. A file that is gone is no failure.
///
/// # Errors
/// When homelab may not.
fn remove(path: &str) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(unwritable(path, &error));
        }
        _ => {}
    }
    let folder = Path::new(path).parent();
    if let Some(folder) = folder.filter(|f| f.extension().is_some_and(|end| end == "d")) {
        // It stays when others have files in it.
        let _ = std::fs::remove_dir(folder);
    }
    Ok(())
}

fn unwritable(path: &str, error: &std::io::Error) -> Error {
    use std::io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem, StorageFull};
    let (why, hint) = match error.kind() {
        PermissionDenied => ("not permitted", "run homelab as root"),
        ReadOnlyFilesystem => (
            "its file system is read-only",
            "`mount -o remount,rw /` makes it writable",
        ),
        StorageFull => ("the disk is full", "`df` shows what is full"),
        _ => (
            why_unreadable(error),
            "`ls -ld` of the path and its folder may tell why",
        ),
    };
    Error::new(format!("cannot change `{path}`: {why}"), hint)
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
    let said = said.lines().next().unwrap_or("it gave no reason");
    Err(Error::new(
        format!("systemd did not {what}: {said}"),
        "`journalctl -b -p warning` may tell more",
    ))
}

#[cfg(test)]
mod tests;
