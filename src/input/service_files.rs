//! The files that services name, outside the files of the plan: env and label files, configs, secrets and seccomp profiles. The only
//! place of this floor that opens a file.

use crate::error::why_unreadable;
use crate::input::compose::dotenv::{self, Format};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::io;
use std::path::Path;

/// Where the content of files and variables comes from.
pub struct ServiceFiles<'a> {
    /// Reads what a path names.
    pub read: &'a dyn Fn(&Path) -> io::Result<Content>,
    /// A variable of homelab's own environment, or of the environment's `env_file`.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
}

/// What a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A folder.
    Folder,
    /// A file and its bytes.
    File(Vec<u8>),
}

/// Why the variables of a file are not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrongFile {
    /// There is no such file.
    pub is_missing: bool,
    /// What is wrong, with the name of the file.
    pub what: String,
    /// What to do about it.
    pub hint: String,
}

/// Reads from the file system.
///
/// # Errors
/// Those of the file system.
pub fn read(path: &Path) -> io::Result<Content> {
    if path.is_dir() {
        return Ok(Content::Folder);
    }
    std::fs::read(path).map(Content::File)
}

impl ServiceFiles<'_> {
    /// The variables of an env file.
    ///
    /// # Errors
    /// When it cannot be read, or a line of it is no variable.
    pub fn pairs(&self, path: &Path, format: Format) -> Result<dotenv::Pairs, WrongFile> {
        let shown = path.display();
        let text = self.text(path).map_err(|error| WrongFile {
            is_missing: error.kind() == io::ErrorKind::NotFound,
            what: format!("`{shown}` {}", why_unreadable(&error)),
            hint: "paths start from the folder of the file that names them".to_owned(),
        })?;
        dotenv::parse(&text, format, self.variable).map_err(|wrong| WrongFile {
            is_missing: false,
            what: format!("line {} of `{shown}` {}", wrong.line, wrong.what),
            hint: wrong.hint,
        })
    }

    /// A digest of a file; of a folder only that it is one, for its content is seen through the mount.
    ///
    /// # Errors
    /// Why it cannot be read, to stand behind its name.
    pub fn digest(&self, path: &Path) -> Result<String, &'static str> {
        let content = (self.read)(path).map_err(|error| why_unreadable(&error))?;
        let Content::File(bytes) = content else {
            return Ok("folder".to_owned());
        };
        let mut hex = String::new();
        for byte in Sha256::digest(bytes).iter().take(8) {
            let _ = write!(hex, "{byte:02x}");
        }
        Ok(hex)
    }

    /// A file of JSON.
    ///
    /// # Errors
    /// Why it cannot be read, to stand behind its name.
    pub fn json(&self, path: &Path) -> Result<Value, &'static str> {
        let text = self.text(path).map_err(|error| why_unreadable(&error))?;
        serde_json::from_str(&text).map_err(|_| "is not JSON")
    }

    fn text(&self, path: &Path) -> io::Result<String> {
        match (self.read)(path)? {
            Content::Folder => Err(io::ErrorKind::IsADirectory.into()),
            Content::File(bytes) => {
                String::from_utf8(bytes).map_err(|_| io::ErrorKind::InvalidData.into())
            }
        }
    }
}
