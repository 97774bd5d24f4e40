//! The disks of servers: the roots that `tests/setup.sh` made, the program over them, and what a killed run left of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Where the servers' roots and disks are.
pub fn lab() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/lab")
}

/// A folder of this process.
pub fn new_folder() -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix(&format!("node-{}-", std::process::id()))
        .tempdir_in(lab())
        .expect("a folder")
}

/// A folder that lies over a root and has the program in it, made once for all servers of that root. In a root with an older
/// libc than this machine's the program uses this machine's loader and libraries, which are there too: it must stay a program,
/// which a unit can run and which knows its own path.
pub fn program(root: &Path, binary: &Path) -> Arc<tempfile::TempDir> {
    type Made = BTreeMap<(PathBuf, PathBuf), Weak<tempfile::TempDir>>;
    static MADE: Mutex<Made> = Mutex::new(BTreeMap::new());
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    let key = (root.to_owned(), binary.to_owned());
    if let Some(program) = made.get(&key).and_then(Weak::upgrade) {
        return program;
    }
    let program = Arc::new(new_folder());
    let layer = program.path();
    let target = layer.join("usr/local/bin/homelab");
    fs::create_dir_all(layer.join("usr/local/bin")).expect("a folder");
    fs::hard_link(binary, &target)
        .or_else(|_| fs::copy(binary, &target).map(|_| ()))
        .expect("the program is there");
    if !runs_in(root, layer) {
        let libraries = Command::new("ldd").arg(binary).output();
        let libraries = String::from_utf8_lossy(&libraries.expect("ldd runs").stdout).into_owned();
        fs::create_dir_all(layer.join("opt/homelab")).expect("a folder");
        let mut loader = String::new();
        for path in libraries
            .split_whitespace()
            .filter(|word| word.starts_with('/'))
        {
            let name = Path::new(path).file_name().expect("a file");
            let library = format!("/opt/homelab/{}", name.to_string_lossy());
            fs::copy(path, format!("{}{library}", layer.display())).expect("it is copied");
            if library.contains("/ld-") {
                loader = library;
            }
        }
        fs::remove_file(&target).expect("it was there");
        let status = Command::new("patchelf")
            .args(["--set-interpreter", &loader, "--force-rpath"])
            .args(["--set-rpath", "/opt/homelab", "--output"])
            .args([&target, binary])
            .status();
        assert!(status.expect("patchelf runs").success());
        assert!(runs_in(root, layer), "homelab runs in {}", root.display());
    }
    made.insert(key, Arc::downgrade(&program));
    program
}

/// How large a disk may become; it takes no more than what is on it.
const DISK_BYTES: u64 = 4 << 30;

/// Gives the server of that folder a disk of its own, which can lose power. `node.sh` mounts it.
pub fn make_disk(folder: &Path) {
    let image = folder.join("disk");
    let file = fs::File::create(&image).expect("an image");
    file.set_len(DISK_BYTES).expect("it has a length");
    let make = ["-q", "-F", "-E", "lazy_itable_init=1"];
    let is_made = succeeds(Command::new("mkfs.ext4").args(make).arg(&image));
    assert!(is_made, "mkfs.ext4 makes a file system");
}

/// Takes the power off the disk on which that folder of a server is: nothing of what was not synced is on it from now on, and
/// nothing more comes (`EXT4_IOC_SHUTDOWN` without a flush of the log, fs/ext4/ext4.h; programs that test file systems use it).
pub fn cut_power(folder: &str) {
    let shutdown = "open(my $folder, '<', $ARGV[0]) or die $!; my $no_flush = pack('L', 2); \
                    ioctl($folder, 0x8004587d, $no_flush) or die $!";
    let is_cut = succeeds(Command::new("perl").args(["-e", shutdown, folder]));
    assert!(is_cut, "the file system of {folder} can be shut down");
}

fn succeeds(command: &mut Command) -> bool {
    command.status().expect("it runs").success()
}

/// Whether the program in `layer` runs in that root.
fn runs_in(root: &Path, layer: &Path) -> bool {
    let status = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c"])
        .arg("mount -t overlay -o \"lowerdir=$1:$0\" overlay \"$0\" && exec chroot \"$0\" homelab --version")
        .args([root, layer])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.expect("unshare runs").success()
}

/// Removes what a run left that was interrupted; its processes died with it.
pub fn remove_abandoned(lab: &Path) {
    for entry in fs::read_dir(lab).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name
            .strip_prefix("node-")
            .and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            if let Ok(cgroup) = fs::read_to_string(entry.path().join("cgroup")) {
                remove_cgroup_tree(Path::new(cgroup.trim()));
            }
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

pub fn remove_cgroup_tree(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup_tree(&entry.path());
        }
    }
    let _ = fs::remove_dir(path);
}
