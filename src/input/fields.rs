//! Reads a table of a service key by key, and collects all that is wrong with it. Pure.

use crate::error::Diagnostic;
use crate::input::node::{Entry, Map, Node, Value};
use crate::input::problem::{Problems, Span, nearest};
use std::collections::BTreeMap;

/// More keys than a person wants to read in a hint.
const MANY: usize = 16;

/// A table that is being read: it knows which of its keys were asked for, so that the others can be named.
pub struct Fields<'a> {
    /// What leads to it, like `services.whoami.deploy`.
    pub path: String,
    map: Option<&'a Map>,
    known: Vec<&'static str>,
}

/// One of several values under a key, with the place of its name.
#[derive(Clone, Debug)]
pub struct Named<'a> {
    pub name: String,
    pub span: Span,
    pub node: Option<&'a Node>,
}

impl<'a> Fields<'a> {
    pub fn new(path: impl Into<String>, map: Option<&'a Map>) -> Self {
        Self {
            path: path.into(),
            map,
            known: Vec::new(),
        }
    }

    /// A key that has a value, null being none.
    pub fn take(&mut self, key: &'static str) -> Option<&'a Node> {
        self.entry(key).map(|entry| &entry.node)
    }

    pub fn entry(&mut self, key: &'static str) -> Option<&'a Entry> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        let entry = self.map?.entry(key)?;
        (!entry.node.is_null()).then_some(entry)
    }

    fn join(&self, key: &str) -> String {
        format!("{}.{key}", self.path)
    }

    pub fn wrong_type(&self, key: &str, node: &Node, wanted: &str, problems: &mut Problems) {
        let what = format!("`{}` must be {wanted}", self.join(key));
        problems.push(
            Diagnostic::error_at(node.span.clone(), what).label(format!("this is {}", node.value)),
        );
    }

    /// Text, or what is as good as text.
    pub fn text(&mut self, key: &'static str, problems: &mut Problems) -> Option<(String, Span)> {
        let node = self.take(key)?;
        let text = node.scalar();
        if text.is_none() {
            self.wrong_type(key, node, "a string", problems);
        }
        text.map(|text| (text, node.span.clone()))
    }

    /// Text without its place.
    pub fn plain(&mut self, key: &'static str, problems: &mut Problems) -> Option<String> {
        self.text(key, problems).map(|(text, _)| text)
    }

    /// A value that text stands for; text that stands for none is named, with what is `wanted`, and left out.
    pub fn checked<T, E>(
        &mut self,
        key: &'static str,
        wanted: &str,
        hint: &str,
        parse: impl Fn(&str) -> Result<T, E>,
        problems: &mut Problems,
    ) -> Option<T> {
        let (text, span) = self.text(key, problems)?;
        let value = parse(&text).ok();
        if value.is_none() {
            let what = format!("`{text}` is not {wanted}");
            let label = format!("`{key}` takes {wanted}");
            problems.push(Diagnostic::error_at(span, what).label(label).hint(hint));
        }
        value
    }

    pub fn boolean(&mut self, key: &'static str, problems: &mut Problems) -> Option<bool> {
        let node = self.take(key)?;
        let flag = match &node.value {
            Value::Bool(flag) => Some(*flag),
            // What a variable stands for is text.
            Value::Text(text) => match text.to_lowercase().as_str() {
                "true" | "y" | "yes" | "on" => Some(true),
                "false" | "n" | "no" | "off" => Some(false),
                _ => None,
            },
            _ => None,
        };
        if flag.is_none() {
            self.wrong_type(key, node, "true or false", problems);
        }
        flag
    }

    pub fn integer(&mut self, key: &'static str, problems: &mut Problems) -> Option<i64> {
        let node = self.take(key)?;
        let number = integer(node);
        if number.is_none() {
            self.wrong_type(key, node, "a whole number", problems);
        }
        number
    }

    /// A list of texts.
    pub fn list(
        &mut self,
        key: &'static str,
        problems: &mut Problems,
    ) -> Option<Vec<(String, Span)>> {
        let node = self.take(key)?;
        let Some(items) = node.as_list() else {
            self.wrong_type(key, node, "a list of strings", problems);
            return None;
        };
        Some(self.texts(key, items, problems))
    }

    fn texts(&self, key: &str, items: &[Node], problems: &mut Problems) -> Vec<(String, Span)> {
        let mut texts = Vec::new();
        for item in items {
            match item.scalar() {
                Some(text) => texts.push((text, item.span.clone())),
                None => self.wrong_type(key, item, "a list of strings", problems),
            }
        }
        texts
    }

    /// One text, or a list of them.
    pub fn one_or_many(
        &mut self,
        key: &'static str,
        problems: &mut Problems,
    ) -> Option<Vec<(String, Span)>> {
        let node = self.take(key)?;
        if let Some(text) = node.scalar() {
            return Some(vec![(text, node.span.clone())]);
        }
        if node.as_list().is_some() {
            return self.list(key, problems);
        }
        self.wrong_type(key, node, "a string or a list of strings", problems);
        None
    }

    /// The items of a list, whatever they are.
    pub fn items(&mut self, key: &'static str, problems: &mut Problems) -> &'a [Node] {
        let Some(node) = self.take(key) else {
            return &[];
        };
        node.as_list().unwrap_or_else(|| {
            self.wrong_type(key, node, "a list", problems);
            &[]
        })
    }

    /// `{ NAME: value }` or `["NAME=value"]`; what has no value may be taken from elsewhere.
    pub fn assignments(
        &mut self,
        key: &'static str,
        problems: &mut Problems,
    ) -> Vec<(String, Option<String>, Span)> {
        let Some(node) = self.take(key) else {
            return Vec::new();
        };
        let mut all = Vec::new();
        match &node.value {
            Value::Map(map) => {
                for entry in &map.0 {
                    let value = entry.node.scalar();
                    if value.is_none() && !entry.node.is_null() {
                        let name = &entry.key;
                        let wanted = "a string, a number or a boolean";
                        self.wrong_type(&format!("{key}.{name}"), &entry.node, wanted, problems);
                    }
                    all.push((entry.key.clone(), value, entry.span.clone()));
                }
            }
            Value::List(items) => {
                for (text, span) in self.texts(key, items, problems) {
                    match text.split_once('=') {
                        Some((name, value)) => {
                            all.push((name.to_owned(), Some(value.to_owned()), span));
                        }
                        None => all.push((text, None, span)),
                    }
                }
            }
            _ => self.wrong_type(key, node, "a table, or a list of `NAME=value`", problems),
        }
        all
    }

    /// The same as [`Fields::assignments`], where what has no value is empty.
    pub fn pairs(
        &mut self,
        key: &'static str,
        problems: &mut Problems,
    ) -> BTreeMap<String, String> {
        let all = self.assignments(key, problems).into_iter();
        all.map(|(name, value, _)| (name, value.unwrap_or_default()))
            .collect()
    }

    /// A list of names, or a table by name.
    pub fn named(&mut self, key: &'static str, problems: &mut Problems) -> Vec<Named<'a>> {
        let Some(node) = self.take(key) else {
            return Vec::new();
        };
        match &node.value {
            Value::Map(map) => map
                .0
                .iter()
                .map(|entry| Named {
                    name: entry.key.clone(),
                    span: entry.span.clone(),
                    node: (!entry.node.is_null()).then_some(&entry.node),
                })
                .collect(),
            Value::List(items) => self
                .texts(key, items, problems)
                .into_iter()
                .map(|(name, span)| Named {
                    name,
                    span,
                    node: None,
                })
                .collect(),
            _ => {
                self.wrong_type(key, node, "a list of strings", problems);
                Vec::new()
            }
        }
    }

    /// A table under a key; an empty one when there is none.
    pub fn table(&mut self, key: &'static str, problems: &mut Problems) -> Fields<'a> {
        let node = self.take(key);
        let map = node.and_then(Node::as_map);
        if let Some(node) = node.filter(|_| map.is_none()) {
            self.wrong_type(key, node, "a table", problems);
        }
        Fields::new(self.join(key), map)
    }

    /// Keys that are known and mean nothing here.
    pub fn leave_alone(&mut self, keys: &[&'static str]) {
        self.known.extend(keys);
    }

    /// Names every key that nobody asked for, with the reason when `why` knows one.
    pub fn finish(&self, why: impl Fn(&str) -> Option<&'static str>, problems: &mut Problems) {
        for entry in self.map.into_iter().flat_map(|map| &map.0) {
            let key = entry.key.as_str();
            if self.known.contains(&key) || key.starts_with("x-") {
                continue;
            }
            let path = self.join(key);
            let problem = match why(key) {
                Some(hint) => {
                    Diagnostic::error_at(entry.span.clone(), format!("`{path}` is not supported"))
                        .hint(hint)
                }
                None => {
                    let problem =
                        Diagnostic::error_at(entry.span.clone(), format!("unknown key `{path}`"))
                            .label("not a known key");
                    match nearest(key, self.known.iter().copied()) {
                        Some(near) => problem.hint(format!("did you mean `{near}`?")),
                        None if self.known.len() > MANY => problem.hint(
                            "the keys are those of a service in Compose; your own begin with `x-`",
                        ),
                        None => {
                            let mut known = self.known.clone();
                            known.sort_unstable();
                            problem.hint(format!("the keys here are `{}`", known.join("`, `")))
                        }
                    }
                }
            };
            problems.push(problem);
        }
    }
}

/// A whole number, also as the text that a variable stands for.
pub fn integer(node: &Node) -> Option<i64> {
    match &node.value {
        Value::Integer(number) => Some(*number),
        Value::Text(text) => text.trim().parse().ok(),
        #[expect(
            clippy::cast_possible_truncation,
            reason = "it has no fraction and is small"
        )]
        Value::Float(number) if number.fract() == 0.0 && number.abs() < 1e15 => {
            Some(*number as i64)
        }
        _ => None,
    }
}
