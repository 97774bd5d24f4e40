//! What may be done to the Engine's volumes: they are made and never removed. Pure.

use super::StepText;
use crate::plan::ComposeVolume;

/// An act of the Engine on a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VolumeAction {
    /// Make a named volume.
    Create(Box<ComposeVolume>),
}

impl VolumeAction {
    pub(super) fn text(&self) -> StepText {
        let Self::Create(volume) = self;
        let verb = ('+', "create", "creating", "created");
        StepText::new(verb, ("volume", volume.name.clone(), String::new()))
    }
}
