//! A value of a file with its place: what homelab.toml and Compose files have in common, before any rule is applied.

use crate::input::problem::Span;
use std::fmt;

/// A value and where it stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    /// Its place among all [`Sources`](crate::input::problem::Sources).
    pub span: Span,
    /// What it is.
    pub value: Value,
    /// What a later file does to an earlier one's value at the same key.
    pub mark: Mark,
}

/// What a value is.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Value {
    /// Nothing.
    #[default]
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// A number with a fraction.
    Float(f64),
    /// Text.
    Text(String),
    /// Values in a row.
    List(Vec<Node>),
    /// Values by name.
    Map(Map),
}

/// The tags with which a Compose file says how it is merged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mark {
    /// As Compose merges by itself.
    #[default]
    None,
    /// `!reset`: take the value away.
    Reset,
    /// `!override`: put this in its place.
    Override,
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The place of the key.
    pub span: Span,
    /// The value.
    pub node: Node,
}

/// Values by name, in the order of the file; a name stands in it once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Map(pub Vec<Entry>);

impl Map {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.node)
    }

    /// The key and its value.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.0.iter().find(|entry| entry.key == key)
    }

    /// The value of a key, to be changed.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        self.0
            .iter_mut()
            .find(|entry| entry.key == key)
            .map(|entry| &mut entry.node)
    }

    /// Takes a key away.
    pub fn remove(&mut self, key: &str) -> Option<Node> {
        let index = self.0.iter().position(|entry| entry.key == key)?;
        Some(self.0.remove(index).node)
    }

    /// Puts a value in the place of the one that has its key, else at the end.
    pub fn set(&mut self, entry: Entry) {
        match self.get_mut(&entry.key) {
            Some(node) => *node = entry.node,
            None => self.0.push(entry),
        }
    }
}

impl Node {
    /// A value at a place.
    pub fn new(span: Span, value: Value) -> Self {
        Self {
            span,
            value,
            mark: Mark::None,
        }
    }

    /// Text at a place.
    pub fn text(span: Span, text: impl Into<String>) -> Self {
        Self::new(span, Value::Text(text.into()))
    }

    /// The value of a key, when this is a map that has it.
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.as_map()?.get(key)
    }

    /// The map that this is.
    pub fn as_map(&self) -> Option<&Map> {
        match &self.value {
            Value::Map(map) => Some(map),
            _ => None,
        }
    }

    /// The map that this is, to be changed.
    pub fn as_map_mut(&mut self) -> Option<&mut Map> {
        match &mut self.value {
            Value::Map(map) => Some(map),
            _ => None,
        }
    }

    /// The list that this is.
    pub fn as_list(&self) -> Option<&[Self]> {
        match &self.value {
            Value::List(list) => Some(list),
            _ => None,
        }
    }

    /// The text that this is.
    pub fn as_text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Text, numbers and booleans as text, in the way in which Compose writes them.
    pub fn scalar(&self) -> Option<String> {
        match &self.value {
            Value::Text(text) => Some(text.clone()),
            Value::Bool(flag) => Some(flag.to_string()),
            Value::Integer(number) => Some(number.to_string()),
            Value::Float(number) => Some(float(*number)),
            Value::Null | Value::List(_) | Value::Map(_) => None,
        }
    }

    /// Whether it is nothing.
    pub fn is_null(&self) -> bool {
        self.value == Value::Null
    }

    /// Calls `change` for every text in it.
    pub fn each_text(&mut self, change: &mut impl FnMut(&Span, &mut String)) {
        match &mut self.value {
            Value::Text(text) => change(&self.span, text),
            Value::List(items) => items.iter_mut().for_each(|item| item.each_text(change)),
            Value::Map(map) => {
                for entry in &mut map.0 {
                    entry.node.each_text(change);
                }
            }
            Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float(_) => {}
        }
    }
}

/// The shortest digits that mean the same number, with an exponent where Go's `%v` has one.
fn float(number: f64) -> String {
    let size = number.abs();
    if size != 0.0 && !(1e-4..1e21).contains(&size) && number.is_finite() {
        let text = format!("{number:e}");
        if let Some((digits, exponent)) = text.split_once('e') {
            let (sign, power) = match exponent.strip_prefix('-') {
                Some(power) => ('-', power),
                None => ('+', exponent),
            };
            return format!("{digits}e{sign}{power:0>2}");
        }
    }
    number.to_string()
}

/// What kind of value it is, with its article.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Null => "nothing",
            Self::Bool(_) => "a boolean",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a float",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Map(_) => "a table",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_go_does() {
        let written = [1.1, 3.0, 0.5, 1e21, 1e-7, 123_456_789.0].map(float);
        assert_eq!(
            written,
            ["1.1", "3", "0.5", "1e+21", "1e-07", "123456789"].map(str::to_owned)
        );
    }
}
