//! What may be done to the machine: steps, each one act of the kernel, of systemd or of the Engine, with its cause. Pure.

pub mod container;
pub mod image;
pub mod link;
pub mod network;
pub mod unit;
pub mod volume;

pub use container::{ContainerAction, NewContainer};
pub use image::ImageAction;
pub use link::LinkAction;
pub use network::{NetworkAction, NewNetwork};
pub use unit::UnitAction;
pub use volume::VolumeAction;

use super::difference::{Cause, Difference};
use crate::error::Diagnostic;

/// The number of a step, from 1.
pub type StepId = usize;

/// What there is to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// A graph: each step names the ones that it waits for, which all stand before it.
    pub steps: Vec<Step>,
    /// What is not as planned, which the steps take away.
    pub differences: Vec<Difference>,
    /// What a person should know although it stops nothing.
    pub warnings: Vec<Diagnostic>,
    /// What stands in the way of a part of what is wanted. The steps are those of the rest.
    pub errors: Vec<Diagnostic>,
}

/// One act.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its number.
    pub id: StepId,
    /// The act.
    pub action: Action,
    /// Why.
    pub cause: String,
    /// The steps that have to be done before it.
    pub after: Vec<StepId>,
    /// The steps that have to be over before it, done or failed.
    pub after_end: Vec<StepId>,
}

/// An act that changes something, by the system that carries it out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The kernel does it.
    Link(LinkAction),
    /// systemd does it, or it is one of its files.
    Unit(UnitAction),
    /// The Engine does it to a network.
    Network(NetworkAction),
    /// The Engine does it to a volume.
    Volume(VolumeAction),
    /// The Engine does it to an image.
    Image(ImageAction),
    /// The Engine does it to a container.
    Container(ContainerAction),
}

/// An action in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepText {
    /// `+` something comes, `-` something goes, `~` something changes.
    pub sign: char,
    /// What is done to it, like `create`.
    pub verb: &'static str,
    /// The same while it is being done, like `creating`.
    pub doing: &'static str,
    /// The same when it is done, like `created`.
    pub done: &'static str,
    /// `link`, `route`, `network`, …
    pub kind: &'static str,
    /// The name of the thing.
    pub name: String,
    /// Its settings; may be empty.
    pub detail: String,
}

/// How an action is named: sign, verb, and the verb while it is done and when it was.
type Verb = (char, &'static str, &'static str, &'static str);

/// What an action is done to: kind, name and detail.
type Thing = (&'static str, String, String);

/// What is said while something is done that takes no time worth telling.
const WORKING: &str = "working";

impl StepText {
    fn new((sign, verb, doing, done): Verb, (kind, name, detail): Thing) -> Self {
        Self {
            sign,
            verb,
            doing,
            done,
            kind,
            name,
            detail,
        }
    }
}

impl Action {
    /// The action in words.
    pub fn text(&self) -> StepText {
        match self {
            Self::Link(action) => action.text(),
            Self::Unit(action) => action.text(),
            Self::Network(action) => action.text(),
            Self::Volume(action) => action.text(),
            Self::Image(action) => action.text(),
            Self::Container(action) => action.text(),
        }
    }

    /// That it is done, in a sentence for people.
    pub fn done_sentence(&self) -> String {
        match self {
            Self::Container(action) => action.done_sentence(),
            _ => self.text().done_sentence(),
        }
    }

    /// What is said when it begins, because it may take long: a pull, a wait, or what begins with a stop and its grace period.
    pub fn announcement(&self) -> Option<&'static str> {
        match self {
            Self::Image(action) => Some(action.text().doing),
            Self::Container(action) => action.announcement(),
            Self::Link(_) | Self::Unit(_) | Self::Network(_) | Self::Volume(_) => None,
        }
    }

    /// Whether it waits for others and changes nothing by itself, so that it can be let go at any time.
    pub fn is_cancellable(&self) -> bool {
        match self {
            Self::Image(_) => true,
            Self::Container(action) => action.is_wait(),
            Self::Link(_) | Self::Unit(_) | Self::Network(_) | Self::Volume(_) => false,
        }
    }

    /// What it does to a container, when it does something to one.
    pub fn container(&self) -> Option<&ContainerAction> {
        match self {
            Self::Container(action) => Some(action),
            _ => None,
        }
    }
}

impl StepText {
    fn done_sentence(&self) -> String {
        format!("{} {} {}", self.done, self.kind, self.name)
    }
}

macro_rules! action_of {
    ($($inner:ident => $variant:ident),*) => {
        $(impl From<$inner> for Action {
            fn from(action: $inner) -> Self {
                Self::$variant(action)
            }
        })*
    };
}
action_of!(
    LinkAction => Link,
    UnitAction => Unit,
    NetworkAction => Network,
    VolumeAction => Volume,
    ImageAction => Image,
    ContainerAction => Container
);

impl Diff {
    /// Adds a step and returns its number.
    pub(super) fn push(
        &mut self,
        action: impl Into<Action>,
        cause: impl Into<Cause>,
        after: &[StepId],
    ) -> StepId {
        let id = self.steps.len() + 1;
        let mut after = after.to_vec();
        after.sort_unstable();
        after.dedup();
        let Cause { text, difference } = cause.into();
        self.steps.push(Step {
            id,
            action: action.into(),
            cause: text,
            after,
            after_end: Vec::new(),
        });
        self.differences.extend(difference);
        id
    }

    /// Adds what a person should know.
    pub(super) fn warn(&mut self, what: impl Into<String>, hint: impl Into<String>) {
        self.warnings.push(Diagnostic::warning(what, hint));
    }
}
