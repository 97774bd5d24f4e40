//! Variables in text as the Compose specification has them: `$NAME`, `${NAME}`, defaults, requirements, replacements, nested,
//! and `$$` for a dollar. Pure.

/// How deep `${A:-${B:-…}}` may go.
const DEPTH: usize = 32;

/// Where variables come from, and which of those asked for are not set.
pub struct Variables<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
    /// The names that were replaced by nothing, in the order of the text.
    pub unset: Vec<String>,
}

/// Why text cannot be expanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// A `$` that begins nothing; what stands there.
    Format(String),
    /// A variable that must be set, and what the file says about it.
    Required(String, String),
}

impl<'a> Variables<'a> {
    /// Variables as `lookup` knows them.
    pub fn new(lookup: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self {
            lookup,
            unset: Vec::new(),
        }
    }

    /// The text with its variables replaced; what comes in is not looked at again.
    ///
    /// # Errors
    /// When a `$` begins nothing, or a required variable is missing.
    pub fn expand(&mut self, text: &str) -> Result<String, Wrong> {
        self.expand_within(text, 0)
    }

    fn expand_within(&mut self, text: &str, depth: usize) -> Result<String, Wrong> {
        let mut expanded = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            expanded.push_str(before);
            if let Some(after) = after.strip_prefix('$') {
                expanded.push('$');
                rest = after;
            } else if let Some(inner) = after.strip_prefix('{') {
                let end = closing(inner).filter(|_| depth < DEPTH);
                let Some((body, after)) = end.and_then(|end| inner.split_at_checked(end)) else {
                    return Err(Wrong::Format(shown(after)));
                };
                expanded.push_str(&self.braced(body, depth)?);
                rest = after.strip_prefix('}').unwrap_or(after);
            } else {
                let (name, after) = split_name(after);
                if name.is_empty() {
                    return Err(Wrong::Format(shown(after)));
                }
                expanded.push_str(&self.value(name));
                rest = after;
            }
        }
        expanded.push_str(rest);
        Ok(expanded)
    }

    /// The value of a variable, nothing when it is not set.
    fn value(&mut self, name: &str) -> String {
        (self.lookup)(name).unwrap_or_else(|| {
            self.unset.push(name.to_owned());
            String::new()
        })
    }

    fn braced(&mut self, body: &str, depth: usize) -> Result<String, Wrong> {
        let (name, rest) = split_name(body);
        if name.is_empty() {
            return Err(Wrong::Format(shown(&format!("{{{body}}}"))));
        }
        if rest.is_empty() {
            return Ok(self.value(name));
        }
        let value = (self.lookup)(name);
        // With a colon a variable that is empty counts as not set.
        let (operator, value) = match rest.strip_prefix(':') {
            Some(operator) => (operator, value.filter(|value| !value.is_empty())),
            None => (rest, value),
        };
        let operand = |variables: &mut Self, sign: char| {
            let text = operator.strip_prefix(sign)?;
            Some(variables.expand_within(text, depth + 1))
        };
        match operator.chars().next() {
            Some('-') => match value {
                Some(value) => Ok(value),
                None => operand(self, '-').unwrap_or_else(|| Ok(String::new())),
            },
            Some('+') => match value {
                Some(_) => operand(self, '+').unwrap_or_else(|| Ok(String::new())),
                None => Ok(String::new()),
            },
            Some('?') => match value {
                Some(value) => Ok(value),
                None => {
                    let said = operand(self, '?').unwrap_or_else(|| Ok(String::new()))?;
                    Err(Wrong::Required(name.to_owned(), said))
                }
            },
            _ => Err(Wrong::Format(shown(&format!("{{{body}}}")))),
        }
    }
}

/// Where the brace that is open at the start is closed.
fn closing(text: &str) -> Option<usize> {
    let mut open = 0_usize;
    let mut before = ' ';
    for (index, c) in text.char_indices() {
        match c {
            '{' if before == '$' => open += 1,
            '}' if open == 0 => return Some(index),
            '}' => open -= 1,
            _ => {}
        }
        before = c;
    }
    None
}

fn split_name(text: &str) -> (&str, &str) {
    let starts = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let end = text
        .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .unwrap_or(text.len());
    text.split_at_checked(if starts { end } else { 0 })
        .unwrap_or(("", text))
}

/// The beginning of what a `$` stands before, for a message.
fn shown(after: &str) -> String {
    let line = after.lines().next().unwrap_or_default();
    let short: String = line.chars().take(24).collect();
    format!("${short}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(text: &str) -> Result<String, Wrong> {
        let lookup = |name: &str| match name {
            "A" => Some("a".to_owned()),
            "EMPTY" => Some(String::new()),
            "DOLLAR" => Some("$A".to_owned()),
            _ => None,
        };
        Variables::new(&lookup).expand(text)
    }

    #[test]
    fn every_form_of_the_specification() {
        for (text, expected) in [
            ("$A-${A}", "a-a"),
            ("$$A $${A}", "$A ${A}"),
            ("${B:-x}|${EMPTY:-x}|${EMPTY-x}|${B-x}|${A:-x}", "x|x||x|a"),
            ("${B:-${EMPTY:-${A}}}", "a"),
            (
                "${A:+x}|${B:+x}|${EMPTY:+x}|${EMPTY+x}|${A+${A}b}",
                "x|||x|ab",
            ),
            ("${A:?no}${A?no}${EMPTY?no}", "aa"),
            ("$B|${B}", "|"),
            ("$DOLLAR", "$A"),
            ("${B:-{\"a\": 1}", "{\"a\": 1"),
            ("${B:-a}b}", "ab}"),
            ("ä$A ö", "äa ö"),
        ] {
            assert_eq!(expand(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_expanded_is_named() {
        let required = |said: &str| Err(Wrong::Required("B".to_owned(), said.to_owned()));
        assert_eq!(expand("${B:?say $A}"), required("say a"));
        assert_eq!(expand("${B?}"), required(""));
        let format = |text: &str| Err(Wrong::Format(text.to_owned()));
        assert_eq!(expand("cost: $5"), format("$5"));
        assert_eq!(expand("${A"), format("${A"));
        assert_eq!(expand("${A!x}"), format("${A!x}"));
        assert_eq!(expand("${}"), format("${}"));
        assert_eq!(expand("$"), format("$"));
    }

    #[test]
    fn nesting_ends_somewhere() {
        let deep = "${B:-".repeat(10_000) + &"}".repeat(10_000);
        assert!(matches!(expand(&deep), Err(Wrong::Format(_))));
    }
}
