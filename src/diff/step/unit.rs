//! What may be done to units of systemd and to the files that belong to them. Pure.

use super::{StepText, Thing, Verb, WORKING};
use crate::plan::{PlannedSlice, joined, unit_files};
use std::net::Ipv4Addr;

/// An act of systemd, or on one of its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnitAction {
    /// Write the file of a slice.
    WriteSlice {
        /// The slice as planned.
        slice: Box<PlannedSlice>,
        /// There was none.
        is_new: bool,
    },
    /// Make processes that run in a slice already follow its file, and see that the kernel refuses what it denies.
    ApplySlice {
        /// Its name.
        name: String,
        /// What it denies, to be tried; where there is nothing, nothing is started in it.
        denied: Vec<Ipv4Addr>,
    },
    /// Write a file of ours, or lines of ours in a file of a network manager.
    WriteFile {
        /// Its path.
        path: String,
        /// All of its text.
        text: String,
        /// There was none.
        is_new: bool,
    },
    /// Remove a file of ours.
    RemoveFile {
        /// Its path.
        path: String,
    },
    /// Remove a folder of ours with all that is in it, or a link to one.
    RemoveFolder {
        /// Its path.
        path: String,
    },
    /// Make systemd read its files again.
    ReloadSystemd,
    /// Make a network manager read its files again.
    ReloadManager {
        /// Its unit.
        name: String,
    },
    /// Make a unit start at boot.
    Enable {
        /// Its name.
        name: String,
    },
    /// Make a unit start at boot no more.
    Disable {
        /// Its name.
        name: String,
    },
    /// Start a unit and wait until it is ready.
    Start {
        /// Its name.
        name: String,
    },
    /// Stop a unit, start it and wait until it is ready.
    Restart {
        /// Its name.
        name: String,
    },
    /// Stop a unit.
    Stop {
        /// Its name.
        name: String,
    },
}

impl UnitAction {
    pub(super) fn text(&self) -> StepText {
        StepText::new(self.verb(), self.thing())
    }

    fn verb(&self) -> Verb {
        match self {
            Self::WriteSlice { is_new: true, .. } | Self::WriteFile { is_new: true, .. } => {
                ('+', "create", WORKING, "created")
            }
            Self::WriteSlice { is_new: false, .. } | Self::WriteFile { is_new: false, .. } => {
                ('~', "change", WORKING, "changed")
            }
            Self::ApplySlice { .. } => ('~', "apply", WORKING, "applied"),
            Self::RemoveFile { .. } | Self::RemoveFolder { .. } => {
                ('-', "remove", WORKING, "removed")
            }
            Self::ReloadSystemd | Self::ReloadManager { .. } => {
                ('~', "reload", WORKING, "reloaded")
            }
            Self::Enable { .. } => ('~', "enable", WORKING, "enabled"),
            Self::Disable { .. } => ('~', "disable", WORKING, "disabled"),
            Self::Start { .. } => ('~', "start", "starting", "started"),
            Self::Restart { .. } => ('~', "restart", "restarting", "restarted"),
            Self::Stop { .. } => ('~', "stop", "stopping", "stopped"),
        }
    }

    fn thing(&self) -> Thing {
        match self {
            Self::WriteSlice { slice, is_new: _ } => {
                ("slice", slice.name.clone(), slice_detail(slice))
            }
            Self::ApplySlice { name, denied: _ } => ("slice", name.clone(), String::new()),
            Self::WriteFile { path, .. } | Self::RemoveFile { path } => {
                ("file", path.clone(), String::new())
            }
            Self::RemoveFolder { path } => ("folder", path.clone(), String::new()),
            Self::ReloadSystemd => ("systemd", unit_files::FOLDER.to_owned(), String::new()),
            Self::ReloadManager { name }
            | Self::Enable { name }
            | Self::Disable { name }
            | Self::Start { name }
            | Self::Restart { name }
            | Self::Stop { name } => ("unit", name.clone(), String::new()),
        }
    }
}

fn slice_detail(slice: &PlannedSlice) -> String {
    let PlannedSlice {
        name: _,
        env: _,
        deny,
        allow,
        limits,
    } = slice;
    let mut parts = vec![match deny.as_slice() {
        [] => "denies nothing".to_owned(),
        nets => format!("denies {}", joined(nets, ", ")),
    }];
    if !allow.is_empty() {
        parts.push(format!("allows {}", joined(allow, ", ")));
    }
    parts.extend(limits.words());
    parts.join(", ")
}
