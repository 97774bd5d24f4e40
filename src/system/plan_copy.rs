//! The copy of homelab.toml that the shim's service keeps in its state directory (`StateDirectory=`, systemd.exec(5)): the last
//! text that was right. It outlives a boot, so that a file that is gone or wrong by then takes no shim away.

use super::files;
use crate::error::Error;
use crate::plan::naming::PLAN_COPY;
use std::fs;
use std::path::{Path, PathBuf};

/// The variable by which systemd tells a service where its state directory is.
const STATE_DIRECTORY: &str = "STATE_DIRECTORY";

/// Nobody but the service and root needs to read it.
const MODE: u32 = 0o600;

/// Where the copy is.
pub struct PlanCopy {
    path: PathBuf,
}

impl PlanCopy {
    /// That of this process; `None` where systemd gave it no state directory, as when a person runs it.
    pub fn of_this_service() -> Option<Self> {
        let folder = std::env::var_os(STATE_DIRECTORY).filter(|folder| !folder.is_empty())?;
        let path = Path::new(&folder).join(PLAN_COPY);
        Some(Self { path })
    }

    /// Its text, when there is one.
    pub fn text(&self) -> Option<String> {
        fs::read_to_string(&self.path).ok()
    }

    /// Makes the copy have this text, if it has another one. It is the old one or the new one at any time.
    ///
    /// # Errors
    /// When the file system does not take it.
    pub fn keep(&self, text: &str) -> Result<(), Error> {
        if self.text().as_deref() == Some(text) {
            return Ok(());
        }
        files::write(&self.path, text, MODE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn a_copy_is_written_only_when_it_differs() {
        let folder = tempfile::tempdir().unwrap_or_else(|_| unreachable!());
        let path = folder.path().join(PLAN_COPY);
        let copy = PlanCopy { path };
        assert_eq!(copy.text(), None);
        let number = || fs::metadata(&copy.path).map(|found| found.ino()).ok();
        assert_eq!(copy.keep("one"), Ok(()));
        let first = number();
        assert_eq!(copy.keep("one"), Ok(()));
        assert_eq!(number(), first);
        assert_eq!(copy.keep("two"), Ok(()));
        assert_ne!(number(), first);
        assert_eq!(copy.text().as_deref(), Some("two"));
    }
}
