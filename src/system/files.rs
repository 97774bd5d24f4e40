//! Files that are whole or absent, whatever happens while they are written: each is written beside its place, reaches the
//! disk, and then takes its place in one act of the kernel (rename(2)).

use crate::error::{Error, why_unreadable};
use crate::plan::naming::UNFINISHED;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt};
use std::path::{Path, PathBuf};

/// The mode of files that everybody may read.
pub(super) const FINISHED: u32 = 0o644;

/// Writes a file of ours, in a folder that is made when it is missing.
///
/// # Errors
/// When the file system does not take it; then the file is as it was.
pub(super) fn write(path: &Path, text: &str, mode: u32) -> Result<(), Error> {
    write_with(path, text, mode, None).map_err(|error| unwritable(path, &error))
}

/// Writes a file of ours, or of somebody else: that one keeps its mode and owner, and its place when the path is a link to it.
///
/// # Errors
/// When the file system does not take it; then the file is as it was.
pub(super) fn write_as_found(path: &Path, text: &str) -> Result<(), Error> {
    let target = target(path);
    let found = fs::metadata(&target).ok();
    let mode = found
        .as_ref()
        .map_or(FINISHED, |found| found.mode() & 0o777);
    let owner = found.map(|found| (found.uid(), found.gid()));
    write_with(&target, text, mode, owner).map_err(|error| unwritable(path, &error))
}

/// Where a path leads; itself when there is nothing yet.
pub(super) fn target(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// What a file is called while it is being written.
pub(super) fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(UNFINISHED);
    name.into()
}

fn write_with(path: &Path, text: &str, mode: u32, owner: Option<(u32, u32)>) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let unfinished = unfinished(path);
    let new_folders = folder.ancestors().take_while(|folder| !folder.exists());
    let new_folders = new_folders.count();
    let attempt = || {
        fs::create_dir_all(folder)?;
        let _ = fs::remove_file(&unfinished);
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&unfinished)?;
        file.write_all(text.as_bytes())?;
        if let Some((user, group)) = owner {
            std::os::unix::fs::fchown(&file, Some(user), Some(group))?;
        }
        // After the owner, as a change of that may clear bits of the mode (chown(2)).
        file.set_permissions(PermissionsExt::from_mode(mode))?;
        file.sync_all()?;
        fs::rename(&unfinished, path)
    };
    attempt().inspect_err(|_| {
        let _ = fs::remove_file(&unfinished);
        if new_folders > 0 {
            remove_folder_of_one_unit(folder);
        }
    })?;
    sync_name(path, new_folders + 1)
}

/// Brings to the disk whether there is a file of that name, and as many folders as were made or removed with it: a name reaches the
/// disk with the folder that it is in (fsync(2)). A file system that cannot do that does what it can.
fn sync_name(path: &Path, folders: usize) -> io::Result<()> {
    let there = path.ancestors().skip(1).filter(|folder| folder.exists());
    for folder in there.take(folders) {
        match File::open(folder)?.sync_all() {
            Err(error) if error.kind() != io::ErrorKind::InvalidInput => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Brings to the disk that systemd made or removed a link of that name, with a folder of its own maybe: it leaves that to the kernel.
///
/// # Errors
/// When the file system does not take it.
pub(super) fn sync_link(path: &Path) -> Result<(), Error> {
    sync_name(path, 2).map_err(|error| unwritable(path, &error))
}

/// Gives a file of ours another mode.
///
/// # Errors
/// When homelab may not.
pub(super) fn set_mode(path: &Path, mode: u32) -> Result<(), Error> {
    let change = || {
        let file = File::open(path)?;
        file.set_permissions(PermissionsExt::from_mode(mode))?;
        file.sync_all()
    };
    change().map_err(|error| unwritable(path, &error))
}

/// Removes a file, and its folder when that is empty and belongs to one unit only. A file that is gone is no failure.
///
/// # Errors
/// When homelab may not.
pub(super) fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(unwritable(path, &error));
        }
        _ => {}
    }
    remove_folder_of_one_unit(path.parent().unwrap_or(Path::new("/")));
    sync_name(path, 1).map_err(|error| unwritable(path, &error))
}

/// Removes a folder with all that is in it, or the link that stands for one. What is gone is no failure.
///
/// # Errors
/// When homelab may not.
pub(super) fn remove_folder(path: &Path) -> Result<(), Error> {
    let is_link = fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink());
    let removed = if is_link {
        fs::remove_file(path)
    } else {
        fs::remove_dir_all(path)
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => sync_name(path, 1),
    }
    .map_err(|error| unwritable(path, &error))
}

/// It stays when others have files in it, and so does one of a network manager.
fn remove_folder_of_one_unit(folder: &Path) {
    let name = folder.file_name().and_then(|name| name.to_str());
    if name.is_some_and(|name| name.ends_with(".service.d")) {
        let _ = fs::remove_dir(folder);
    }
}

/// Why a file was not changed, in our own words.
pub(super) fn unwritable(path: &Path, error: &io::Error) -> Error {
    use io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    let mut folders = path.ancestors().skip(1);
    let folder = folders.find(|folder| folder.exists());
    let folder = folder.unwrap_or(Path::new("/")).display();
    let (why, hint) = match error.kind() {
        PermissionDenied => ("not permitted", "run homelab as root".to_owned()),
        ReadOnlyFilesystem => (
            "its file system is read-only",
            format!(
                "`findmnt -T {folder}` names the file system; `mount -o remount,rw` with its TARGET makes it writable, `dmesg` may tell why it is not; then run this again"
            ),
        ),
        StorageFull | QuotaExceeded => (
            "its file system is full",
            format!(
                "make room; `df -h {folder}` and `df -i {folder}` show what is full; then run this again"
            ),
        ),
        _ => (
            why_unreadable(error),
            "`ls -ld` of the path and its folder may tell why".to_owned(),
        ),
    };
    Error::new(format!("cannot change `{}`: {why}", path.display()), hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_nothing_is_left_beside_it() {
        let folder = tempfile::tempdir().unwrap_or_else(|_| unreachable!());
        let path = folder.path().join("deep/file");
        assert_eq!(write(&path, "one\n", 0o600), Ok(()));
        assert_eq!(write(&path, "two\n", 0o644), Ok(()));
        // What a killed run left is in nobody's way.
        assert!(fs::write(unfinished(&path), "th").is_ok());
        let link = folder.path().join("link");
        assert!(std::os::unix::fs::symlink(&path, &link).is_ok());
        assert_eq!(write_as_found(&link, "three\n"), Ok(()));
        assert_eq!(fs::read_to_string(&path).ok().as_deref(), Some("three\n"));
        assert!(fs::symlink_metadata(&link).is_ok_and(|found| found.is_symlink()));
        assert!(fs::metadata(&path).is_ok_and(|found| found.mode() & 0o777 == 0o644));
        assert!(!unfinished(&path).exists());
    }

    #[test]
    fn a_refusal_leaves_what_was_there() {
        let folder = tempfile::tempdir().unwrap_or_else(|_| unreachable!());
        // A folder stands where the file belongs.
        let path = folder.path().join("file");
        assert!(fs::create_dir_all(path.join("in-it")).is_ok());
        let said = write(&path, "one\n", 0o644).map_err(|error| error.to_string());
        let expected = format!("cannot change `{}`: is a folder", path.display());
        assert_eq!(said, Err(expected));
        assert!(!unfinished(&path).exists());
    }
}
