//! What is not as the plan says: the one form in which the steps, their causes and `status` speak of it. Pure.

use std::fmt;

/// Something on the machine, by its kind and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Object {
    /// `link`, `file`, `folder`, `slice`, `unit`, `network`, `volume`, `image` or `container`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
}

/// What of an object is not as the plan says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The object.
    pub object: Object,
    /// Which of its properties; `None` where the whole object is missing or in the plan no more.
    pub field: Option<String>,
    /// What there is; `None` where it is missing, or cannot be said in a few words.
    pub found: Option<String>,
    /// What the plan says; `None` where it has no such thing, or it cannot be said in a few words.
    pub planned: Option<String>,
}

/// Why a step is taken: because of a difference, or of another step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// For people.
    pub text: String,
    /// What the step takes away.
    pub difference: Option<Difference>,
}

impl Object {
    /// An object of a kind.
    pub fn new(kind: &'static str, name: impl Into<String>) -> Self {
        let name = name.into();
        Self { kind, name }
    }

    /// It is not there.
    pub fn missing(self) -> Difference {
        Difference {
            object: self,
            field: None,
            found: None,
            planned: Some(String::new()),
        }
    }

    /// It is there, and the plan does not have it.
    pub fn unplanned(self) -> Difference {
        Difference {
            object: self,
            field: None,
            found: Some(String::new()),
            planned: None,
        }
    }

    /// One of its properties is another one.
    pub fn differs(
        self,
        field: impl Into<String>,
        found: Option<String>,
        planned: Option<String>,
    ) -> Difference {
        Difference {
            object: self,
            field: Some(field.into()),
            found,
            planned,
        }
    }
}

impl Difference {
    /// As the cause of a step that has words of its own.
    pub fn because(self, text: impl Into<String>) -> Cause {
        Cause {
            text: text.into(),
            difference: Some(self),
        }
    }
}

/// What of the object differs, in a sentence that stands behind its name.
impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            object,
            field,
            found,
            planned,
        } = self;
        match (field, found, planned) {
            (None, None, _) if object.kind == "image" => f.write_str("it is not on this machine"),
            (None, None, _) => f.write_str("it does not exist"),
            (None, Some(_), _) => f.write_str("the plan does not have it"),
            (Some(field), None, None) => write!(f, "its {field} changed"),
            (Some(field), found, planned) => {
                let found = found.as_deref().unwrap_or("missing");
                let planned = planned.as_deref().unwrap_or("none");
                write!(f, "its {field} is {found}, planned is {planned}")
            }
        }
    }
}

impl From<Difference> for Cause {
    fn from(difference: Difference) -> Self {
        let text = difference.to_string();
        difference.because(text)
    }
}

impl From<&str> for Cause {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl From<String> for Cause {
    fn from(text: String) -> Self {
        Self {
            text,
            difference: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_a_sentence_behind_a_name() {
        let link = || Object::new("link", "homelab-shim");
        let text = |text: &str| Some(text.to_owned());
        let parent = |found, planned| link().differs("parent", found, planned).to_string();
        assert_eq!(link().missing().to_string(), "it does not exist");
        assert_eq!(link().unplanned().to_string(), "the plan does not have it");
        assert_eq!(
            parent(text("eth1"), text("eth0")),
            "its parent is eth1, planned is eth0"
        );
        assert_eq!(
            parent(None, text("eth0")),
            "its parent is missing, planned is eth0"
        );
        assert_eq!(
            parent(text("eth1"), None),
            "its parent is eth1, planned is none"
        );
        assert_eq!(parent(None, None), "its parent changed");
    }
}
