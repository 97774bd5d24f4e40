//! systemd and its files: the only user of systemctl and systemd-run. What they refuse becomes our own sentences here.

use crate::failure::{Failure, why_unreadable};
use crate::plan::{PARENT_SLICE, SLICE_PREFIX};
use crate::state::{Slice, Systemd};
use crate::units;
use ipnet::Ipv4Net;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt};
use std::path::Path;
use std::process::Stdio;
use tokio::process::Command;

/// Where the unified hierarchy of cgroup v2 is (`cgroups(7)`).
const CGROUPS: &str = "/sys/fs/cgroup";

/// The mode of a finished file, and of one whose slice does not follow it yet: changing the mode leaves the time alone by
/// which systemd sees that it must read a file again.
const FINISHED: u32 = 0o644;
const PENDING: u32 = 0o600;

const PROPERTIES: &str = "Id,LoadState,ActiveState,UnitFileState,NeedDaemonReload,DropInPaths,ControlGroup,IPAddressDeny,IPAddressAllow";

/// Whether systemd is the init of this machine (`sd_booted(3)`).
fn is_running() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// What there is of slices that are ours, or that bear one of the names `wanted`.
///
/// # Errors
/// When systemd does not answer.
pub async fn observe(wanted: &[String]) -> Result<Systemd, Failure> {
    let controllers = std::fs::read_to_string(format!("{CGROUPS}/cgroup.controllers")).ok();
    let mut systemd = Systemd {
        running: is_running(),
        controllers: controllers.map(|text| text.split_whitespace().map(str::to_owned).collect()),
        slices: Vec::new(),
    };
    if !systemd.running {
        return Ok(systemd);
    }
    let mut names = slices_with_files();
    names.extend(wanted.iter().cloned());
    names.push(PARENT_SLICE.to_owned());
    names.sort();
    names.dedup();
    for properties in show(&names).await? {
        systemd.slices.extend(slice_of(&properties));
    }
    Ok(systemd)
}

/// The names of all units that could be slices of ours.
fn slices_with_files() -> Vec<String> {
    let entries = std::fs::read_dir(units::FOLDER).into_iter().flatten();
    entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with(SLICE_PREFIX) && name.ends_with(".slice"))
        .collect()
}

type Properties = BTreeMap<String, String>;

/// The properties of units, which `systemctl show` separates by empty lines.
async fn show(units: &[String]) -> Result<Vec<Properties>, Failure> {
    let mut arguments = vec!["show", "--property", PROPERTIES, "--"];
    arguments.extend(units.iter().map(String::as_str));
    let text = systemctl(&arguments, "tell about units").await?;
    let blocks = text.split("\n\n");
    Ok(blocks
        .map(|block| {
            let pairs = block.lines().filter_map(|line| line.split_once('='));
            pairs
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect()
        })
        .collect())
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
    let path = units::path(name);
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

/// Whether processes are in a cgroup or below it.
fn is_populated(cgroup: &str) -> bool {
    let path = format!("{CGROUPS}{cgroup}/cgroup.events");
    let events = std::fs::read_to_string(path).unwrap_or_default();
    !cgroup.is_empty() && events.lines().any(|line| line == "populated 1")
}

/// Writes the file of a slice. Until [`apply_slice`] it counts as pending.
///
/// # Errors
/// When homelab may not.
pub fn write_slice(name: &str, text: &str) -> Result<(), Failure> {
    write(&units::path(name), text, PENDING)
}

/// Makes the processes of a slice follow its file, which systemd has read.
///
/// systemd 257 changes the filter of a running slice only when another unit is made in it: so one is, for a moment.
///
/// # Errors
/// When systemd refuses.
pub async fn apply_slice(name: &str) -> Result<(), Failure> {
    let properties = show(&[name.to_owned()]).await?;
    let is_active = |properties: &Properties| {
        properties.get("ActiveState").map(String::as_str) == Some("active")
    };
    if properties.iter().any(is_active) {
        let slice = format!("--slice={name}");
        let arguments = ["--quiet", "--collect", "--scope", &slice, "true"];
        run("systemd-run", &arguments, &format!("apply slice `{name}`")).await?;
    }
    let path = units::path(name);
    std::fs::set_permissions(&path, PermissionsExt::from_mode(FINISHED))
        .map_err(|error| unwritable(&path, &error))
}

/// Makes systemd read its files again.
///
/// # Errors
/// When systemd refuses.
pub async fn reload() -> Result<(), Failure> {
    systemctl(&["daemon-reload"], "read its files again")
        .await
        .map(|_| ())
}

/// Stops a unit. One that does not run is no failure.
///
/// # Errors
/// When systemd refuses.
pub async fn stop(unit: &str) -> Result<(), Failure> {
    systemctl(&["stop", unit], &format!("stop `{unit}`"))
        .await
        .map(|_| ())
}

/// Writes a file whole or not at all, in a folder that is made when it is missing.
fn write(path: &str, text: &str, mode: u32) -> Result<(), Failure> {
    let attempt = || {
        if let Some(folder) = Path::new(path).parent() {
            std::fs::create_dir_all(folder)?;
        }
        // No name that systemd would take for a unit.
        let unfinished = format!("{path}.homelab-new");
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
pub fn remove(path: &str) -> Result<(), Failure> {
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

fn unwritable(path: &str, error: &std::io::Error) -> Failure {
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
    Failure::new(format!("cannot change `{path}`: {why}"), hint)
}

async fn systemctl(arguments: &[&str], what: &str) -> Result<String, Failure> {
    run("systemctl", arguments, what).await
}

async fn run(program: &str, arguments: &[&str], what: &str) -> Result<String, Failure> {
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
        return Err(Failure::new(
            format!("cannot {what}: there is no program `{program}`"),
            "install systemd, and see whether PATH has its folder",
        ));
    };
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("Access denied") || said.contains("authentication required") {
        return Err(Failure::new(
            format!("not permitted to {what}"),
            "run homelab as root",
        ));
    }
    let said = said.lines().next().unwrap_or("it gave no reason");
    Err(Failure::new(
        format!("systemd did not {what}: {said}"),
        "`journalctl -b -p warning` may tell more",
    ))
}
