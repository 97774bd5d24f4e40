//! cgroup v2 as the kernel shows it: asking here takes microseconds, asking systemd or the Engine milliseconds.

use crate::plan::naming::{ENGINES_SLICE, PARENT_SLICE};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where the unified hierarchy is (`cgroups(7)`).
pub const CGROUPS: &str = "/sys/fs/cgroup";

/// Where dockerd writes its process id, unless it is told otherwise.
const ENGINE_PID: &str = "/run/docker.pid";

/// Whether a service runs: its cgroup is there as long as it does. To ask systemd about units that it has not loaded takes
/// it milliseconds for each.
pub fn has_service(unit: &str) -> bool {
    let places = [
        format!("{CGROUPS}/system.slice"),
        format!("{CGROUPS}/systemd/system.slice"),
    ];
    places
        .iter()
        .any(|place| Path::new(place).join(unit).is_dir())
}

/// Whether processes are in a cgroup or below it.
pub fn is_populated(cgroup: &str) -> bool {
    !cgroup.is_empty() && has_events_of_processes(Path::new(&format!("{CGROUPS}{cgroup}")))
}

/// Whether the processes of a cgroup are stopped, as those of a paused container.
pub fn is_frozen(cgroup: &str) -> bool {
    has_event(Path::new(&format!("{CGROUPS}{cgroup}")), "frozen 1")
}

/// Whether processes are in the cgroup of a folder or below it.
fn has_events_of_processes(folder: &Path) -> bool {
    has_event(folder, "populated 1")
}

fn has_event(folder: &Path, event: &str) -> bool {
    let events = fs::read_to_string(folder.join("cgroup.events")).unwrap_or_default();
    events.lines().any(|line| line == event)
}

/// The process id of the dockerd that runs, as it wrote it when it was started; `None` where none was since the boot. It tells one start
/// from another, also to a process that sees nobody else's processes.
pub fn engine_process() -> Option<String> {
    fs::read_to_string(ENGINE_PID).ok()
}

/// When that dockerd was started, in hundredths of a second since the boot.
pub fn engine_started() -> Option<u64> {
    engine_process().and_then(|pid| started(pid.trim()))
}

/// Whether one of these containers runs in a scope of systemd and was started by the dockerd that runs now: then its cgroup
/// driver is `systemd`. For a container that outlived its dockerd (`live-restore`) that says nothing.
pub fn has_scope_of_running_engine<'a>(ids: impl IntoIterator<Item = &'a str>) -> bool {
    let Some(engine) = engine_started() else {
        return false;
    };
    let slices = slices_of_containers();
    ids.into_iter().any(|id| {
        slices.iter().any(|slice| {
            let path = slice.join(format!("docker-{id}.scope/cgroup.procs"));
            let processes = fs::read_to_string(path).unwrap_or_default();
            let mut started = processes.lines().map(started).peekable();
            started.peek().is_some() && started.all(|time| time.is_some_and(|time| time >= engine))
        })
    })
}

/// Whether a container that runs in a scope of systemd has processes.
pub fn has_processes(id: &str) -> bool {
    let slices = slices_of_containers();
    let mut scopes = slices
        .iter()
        .map(|slice| slice.join(format!("docker-{id}.scope")));
    scopes.any(|scope| has_events_of_processes(&scope))
}

/// Where the processes of a container are.
pub struct Scope {
    /// The slice that its scope is in.
    pub slice: String,
    /// The first of its processes, as seen from here; the kernel lists them in the order in which they came.
    pub process: Option<u32>,
}

/// The containers that run in scopes of systemd, by id, as far as these are in the Engine's default slice or an environment's.
pub fn scopes_by_container() -> BTreeMap<String, Scope> {
    let scope_of = |name: &str| {
        let id = name.strip_prefix("docker-")?.strip_suffix(".scope")?;
        Some(id.to_owned())
    };
    let mut found = BTreeMap::new();
    for slice in slices_of_containers() {
        let Some(name) = slice.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        let scopes = fs::read_dir(&slice).into_iter().flatten().flatten();
        found.extend(scopes.filter_map(|entry| {
            let id = scope_of(entry.file_name().to_str()?)?;
            let processes = fs::read_to_string(entry.path().join("cgroup.procs")).ok()?;
            let process = processes.lines().next().and_then(|pid| pid.parse().ok());
            let slice = name.to_owned();
            Some((id, Scope { slice, process }))
        }));
    }
    found
}

/// The cgroup of a process; `None` where it is in none of v2. The other lines are of v1, whose cgroups filter nothing.
///
/// # Errors
/// When the process is gone, or homelab may not.
pub fn cgroup_of_process(process: u32) -> io::Result<Option<String>> {
    let cgroups = fs::read_to_string(format!("/proc/{process}/cgroup"))?;
    let mut lines = cgroups.lines();
    let unified = lines.find_map(|line| line.strip_prefix("0::"));
    Ok(unified.map(str::to_owned))
}

/// The slice of the first process of a container, or whatever else its cgroup is in.
pub fn slice_of_process(process: u32) -> Option<String> {
    let cgroup = cgroup_of_process(process).ok()??;
    let slice = Path::new(&cgroup).parent()?.file_name()?;
    slice.to_str().map(str::to_owned)
}

/// The Engine's default slice, and those of the environments.
fn slices_of_containers() -> Vec<PathBuf> {
    let root = Path::new(CGROUPS);
    let ours = fs::read_dir(root.join(PARENT_SLICE)).into_iter().flatten();
    let ours = ours.filter_map(|entry| Some(entry.ok()?.path()));
    ours.chain([root.join(ENGINES_SLICE)]).collect()
}

/// When a process was started, in clock ticks since the boot (`proc_pid_stat(5)`, field 22): a hundred a second on every machine
/// that Docker runs on.
fn started(pid: &str) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses, which may hold anything.
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::started;

    #[test]
    fn the_first_process_is_not_younger_than_this_one() {
        let own = started("self");
        assert!(own.is_some());
        assert!(started("1").is_some_and(|first| Some(first) <= own));
        assert_eq!(started("0"), None);
    }
}
