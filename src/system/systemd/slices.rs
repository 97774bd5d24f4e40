//! The slices of environments, and the units above and below them that may undo what they deny.
//!
//! systemd gives a slice no filter: each scope in it gets one, of all that the scope and the slices above it allow and deny, and
//! what any of them allows wins (systemd.resource-control(5), `IPAddressAllow=`).

use super::{Properties, names_of_files, read, run, show};
use crate::diff::preflight;
use crate::error::Error;
use crate::plan::naming::{PARENT_SLICE, SLICE_PREFIX};
use crate::plan::unit_files;
use crate::state::{Opening, Slice, Trial};
use crate::system::cgroups::{is_frozen, is_populated, scopes_by_container};
use crate::system::files::{self, FINISHED};
use crate::system::filter;
use ipnet::IpNet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The mode of the file of a slice whose processes do not follow it yet; then it is [`FINISHED`]. Changing the mode leaves the
/// time alone by which systemd sees that it must read a file again.
const PENDING: u32 = 0o600;

/// Where units and their drop-ins are (systemd.unit(5)), also those that `systemctl set-property` and the Engine's runtime make.
const FOLDERS: [&str; 7] = [
    "/etc/systemd/system.control",
    "/run/systemd/system.control",
    "/run/systemd/transient",
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
];

/// Whose drop-ins count for every container: all scopes, and all of the Engine's.
const ALL_SCOPES: [&str; 2] = ["scope", "docker-.scope"];

/// The names of all units that could be slices of ours.
pub(super) fn slices_with_files() -> Vec<String> {
    let is_slice = |name: &str| {
        let middle = name.strip_prefix(SLICE_PREFIX);
        middle.is_some_and(|rest| rest.strip_suffix(".slice").is_some())
    };
    names_of_files(is_slice).collect()
}

/// `None` for a slice that there is not: it has neither a file nor a cgroup.
pub(super) fn slice_of(properties: &Properties) -> Option<Slice> {
    let get = |key: &str| properties.get(key).map(String::as_str).unwrap_or_default();
    let name = get("Id");
    let (file, pending) = read_unit(name);
    let active = get("ActiveState") == "active";
    if name.is_empty() || (file.is_none() && !active) {
        return None;
    }
    Some(Slice {
        name: name.to_owned(),
        file,
        pending,
        stale: get("NeedDaemonReload") == "yes",
        active,
        populated: is_populated(get("ControlGroup")),
        deny: nets(get("IPAddressDeny")),
        allow: nets(get("IPAddressAllow")),
        overrides: drop_ins(properties, "IPAddress"),
        trial: None,
    })
}

/// The networks of a list; systemd writes all words of it as networks.
fn nets(list: &str) -> Vec<IpNet> {
    let words = list.split_whitespace();
    words.filter_map(|word| word.parse().ok()).collect()
}

/// The drop-ins of a unit that have a setting.
fn drop_ins(properties: &Properties, setting: &str) -> Vec<String> {
    let paths = properties.get("DropInPaths").map(String::as_str);
    let paths = paths.unwrap_or_default().split_whitespace();
    let has_it = |path: &&str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        text.contains(setting)
    };
    paths.filter(has_it).map(str::to_owned).collect()
}

/// The text of a unit's file, and whether it is pending.
pub(super) fn read_unit(name: &str) -> (Option<String>, bool) {
    let path = unit_files::path(name);
    let mode = fs::metadata(&path).map(|found| found.permissions().mode() & 0o777);
    (
        read(Path::new(&path)),
        mode.is_ok_and(|mode| mode != FINISHED),
    )
}

/// What a slice above those of environments allows.
pub(super) fn opening_above(properties: &Properties) -> Option<Opening> {
    let get = |key: &str| properties.get(key).map(String::as_str).unwrap_or_default();
    let allow = nets(get("IPAddressAllow"));
    (!allow.is_empty()).then(|| Opening {
        unit: get("Id").to_owned(),
        slice: None,
        allow,
        files: drop_ins(properties, "IPAddressAllow"),
    })
}

/// What scopes of containers allow. Their files are read, as systemd would take a millisecond for each of them.
pub(super) fn openings_below() -> Vec<Opening> {
    let all = ALL_SCOPES.iter().map(|unit| ((*unit).to_owned(), None));
    let running = running_scopes().into_iter();
    let running = running.map(|scope| (scope.unit, Some(scope.slice)));
    all.chain(running)
        .filter_map(|(unit, slice)| opening_of_files(unit, slice))
        .collect()
}

fn opening_of_files(unit: String, slice: Option<String>) -> Option<Opening> {
    let (mut allow, mut files) = (Vec::new(), Vec::new());
    for path in files_of(&unit) {
        let allowed = allowed_by(&fs::read_to_string(&path).unwrap_or_default());
        if !allowed.is_empty() {
            files.push(path.display().to_string());
            allow.extend(allowed);
        }
    }
    (!allow.is_empty()).then_some(Opening {
        unit,
        slice,
        allow,
        files,
    })
}

/// The file of a unit and its drop-ins, in all places where they may be.
fn files_of(unit: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for folder in FOLDERS.map(Path::new) {
        files.push(folder.join(unit));
        let drop_ins = fs::read_dir(folder.join(format!("{unit}.d")));
        let drop_ins = drop_ins.into_iter().flatten().flatten();
        files.extend(drop_ins.map(|entry| entry.path()));
    }
    files.sort();
    files
}

/// The networks that a word of a list stands for (systemd.resource-control(5), `IPAddressAllow=`).
const WORDS: [(&str, [&str; 2]); 4] = [
    ("any", ["0.0.0.0/0", "::/0"]),
    ("localhost", ["127.0.0.0/8", "::1/128"]),
    ("link-local", ["169.254.0.0/16", "fe80::/64"]),
    ("multicast", ["224.0.0.0/4", "ff00::/8"]),
];

/// What a file of a unit allows.
fn allowed_by(text: &str) -> Vec<IpNet> {
    let net = |text: &str| {
        let address = || text.parse::<IpAddr>().map(IpNet::from);
        text.parse::<IpNet>().or_else(|_| address()).ok()
    };
    let mut allowed = Vec::new();
    let settings = text.lines().filter_map(|line| line.split_once('='));
    for (_, list) in settings.filter(|(key, _)| key.trim() == "IPAddressAllow") {
        if list.trim().is_empty() {
            allowed.clear();
        }
        for word in list.split_whitespace() {
            let known = WORDS.iter().find(|(known, _)| *known == word);
            let both = known.map_or([word, ""], |(_, both)| *both);
            allowed.extend(both.into_iter().filter_map(net));
        }
    }
    allowed
}

/// The scope of a container that runs in a slice of an environment.
pub struct ScopeOfContainer {
    /// The unit.
    pub unit: String,
    /// Its slice.
    pub slice: String,
    /// Its cgroup, below [`super::CGROUPS`].
    pub cgroup: String,
}

/// Those whose containers run and are not paused: a process that entered one of those would be too.
pub fn running_scopes() -> Vec<ScopeOfContainer> {
    let scopes = scopes_by_container().into_iter();
    let ours = scopes.filter(|(_, scope)| scope.slice.starts_with(SLICE_PREFIX));
    let ours = ours.map(|(id, scope)| {
        let unit = format!("docker-{id}.scope");
        ScopeOfContainer {
            cgroup: format!("/{PARENT_SLICE}/{}/{unit}", scope.slice),
            unit,
            slice: scope.slice,
        }
    });
    ours.filter(|scope| is_populated(&scope.cgroup) && !is_frozen(&scope.cgroup))
        .collect()
}

/// Writes the file of a slice. Until [`apply`] it counts as pending.
///
/// # Errors
/// When homelab may not.
pub(super) fn write(name: &str, text: &str) -> Result<(), Error> {
    files::write(Path::new(&unit_files::path(name)), text, PENDING)
}

/// Makes the processes of a slice follow its file, which systemd has read, and sees that the kernel refuses what it denies.
///
/// systemd 257 changes the filter of a running slice only when another unit is made in it: so one is, for a moment.
///
/// # Errors
/// When systemd refuses, or the kernel does not.
pub(super) async fn apply(name: &str, denied: &[Ipv4Addr]) -> Result<(), Error> {
    if denied.is_empty() {
        let properties = show(&[name.to_owned()]).await?;
        let is_active = |properties: &Properties| {
            properties.get("ActiveState").map(String::as_str) == Some("active")
        };
        if properties.iter().any(is_active) {
            in_new_scope(name, &["true"]).await?;
        }
    } else {
        match try_in_new_scope(name, denied).await? {
            Some(Trial::Refused) => {}
            Some(Trial::LetOut { address, unit }) => {
                return Err(preflight::not_filtered(name, &unit, address).into());
            }
            None => return Err(preflight::not_tried(name).into()),
        }
    }
    files::set_mode(Path::new(&unit_files::path(name)), FINISHED)
}

/// Tries from within a slice what it denies, in a scope that is there for a moment; systemd starts the slice when it is not active.
/// `None` when it cannot be told.
///
/// # Errors
/// When systemd refuses.
pub async fn try_in_new_scope(slice: &str, denied: &[Ipv4Addr]) -> Result<Option<Trial>, Error> {
    let denied = filter::that_can_be_tried(denied);
    if denied.is_empty() {
        return Ok(None);
    }
    let program = format!("/proc/{}/exe", std::process::id());
    let mut command = vec![program];
    command.extend(filter::arguments(&denied, &[]));
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let said = in_new_scope(slice, &command).await?;
    Ok(filter::trial(&said, [slice]))
}

/// Runs a command in a scope of its own in a slice.
async fn in_new_scope(slice: &str, command: &[&str]) -> Result<String, Error> {
    let in_slice = format!("--slice={slice}");
    let mut arguments = vec!["--quiet", "--collect", "--scope", &in_slice, "--"];
    arguments.extend(command);
    run(
        "systemd-run",
        &arguments,
        &format!("make a scope in slice `{slice}`"),
    )
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_allows_is_read_as_systemd_does() {
        let allowed = |text: &str| {
            let nets = allowed_by(text);
            nets.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let text = "[Scope]\nIPAddressDeny=any\n IPAddressAllow = 192.168.1.200 10.0.0.0/8 localhost fd00::/8\n";
        let localhost = ["127.0.0.0/8", "::1/128"];
        let found = ["192.168.1.200/32", "10.0.0.0/8"].iter();
        let found: Vec<&str> = found
            .chain(&localhost)
            .chain(&["fd00::/8"])
            .copied()
            .collect();
        assert_eq!(allowed(text), found);
        assert_eq!(allowed("IPAddressAllow=any\n"), ["0.0.0.0/0", "::/0"]);
        let own = "IPAddressAllow=link-local fd00::1\n";
        let found = ["169.254.0.0/16", "fe80::/64", "fd00::1/128"];
        assert_eq!(allowed(own), found);
        let reset = "IPAddressAllow=10.0.0.1\nIPAddressAllow=\nIPAddressAllow=10.0.0.2\n";
        assert_eq!(allowed(reset), ["10.0.0.2/32"]);
        assert_eq!(allowed("#IPAddressAllow=10.0.0.1\n"), [""; 0]);
    }
}
