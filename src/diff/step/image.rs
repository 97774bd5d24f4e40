//! What may be done to images: they are pulled and never removed. Pure.

use super::StepText;

/// An act of the Engine on an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageAction {
    /// Pull an image.
    Pull {
        /// Its name.
        image: String,
        /// `OS[/ARCH[/VARIANT]]`, when the file names one.
        platform: Option<String>,
    },
}

impl ImageAction {
    pub(super) fn text(&self) -> StepText {
        let Self::Pull { image, platform: _ } = self;
        let verb = ('+', "pull", "pulling", "pulled");
        StepText::new(verb, ("image", image.clone(), String::new()))
    }
}
