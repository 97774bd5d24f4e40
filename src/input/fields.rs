//! The one reader of keys: takes a table of homelab.toml or of a Compose file apart key by key, and collects all that is wrong with
//! it. Pure.

use crate::error::Diagnostic;
use crate::input::node::{Entry, Map, Node, Value};
use crate::input::problem::{Problems, Span, nearest};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use toml::Spanned;

/// More keys than a person wants to read in a hint.
const MANY: usize = 16;

/// A table that is being read: it knows which of its keys were asked for, so that the others can be named.
pub struct Fields<'a> {
    /// What leads to it, like `services.whoami.deploy`; empty for a whole file.
    pub path: String,
    map: Option<&'a Map>,
    known: BTreeSet<&'static str>,
    /// Where the paths of keys are kept that are misspelt or of a wrong type, so that nobody calls them missing; only of
    /// homelab.toml, where a string is a string and no key of one's own may stand.
    unreadable: Option<&'a RefCell<Vec<String>>>,
}

/// One of several values under a key, with the place of its name.
#[derive(Clone, Debug)]
pub struct Named<'a> {
    /// Its name.
    pub name: String,
    /// The place of the name.
    pub span: Span,
    /// Its value, when it has one.
    pub node: Option<&'a Node>,
}

impl<'a> Fields<'a> {
    /// A table of a Compose file, or of a service; an empty one when there is none.
    pub fn new(path: impl Into<String>, map: Option<&'a Map>) -> Self {
        Self {
            path: path.into(),
            map,
            known: BTreeSet::new(),
            unreadable: None,
        }
    }

    /// The whole of homelab.toml.
    pub fn of_toml(map: &'a Map, unreadable: &'a RefCell<Vec<String>>) -> Self {
        Self {
            unreadable: Some(unreadable),
            ..Self::new("", Some(map))
        }
    }

    /// A table within this one.
    fn within(&self, path: String, map: Option<&'a Map>) -> Self {
        Self {
            unreadable: self.unreadable,
            ..Self::new(path, map)
        }
    }

    fn cannot_read(&self, path: String) {
        if let Some(unreadable) = self.unreadable {
            unreadable.borrow_mut().push(path);
        }
    }

    /// A key that has a value, null being none.
    pub fn take(&mut self, key: &'static str) -> Option<&'a Node> {
        self.entry(key).map(|entry| &entry.node)
    }

    /// The same with the place of the key.
    pub fn entry(&mut self, key: &'static str) -> Option<&'a Entry> {
        self.known.insert(key);
        let entry = self.map?.entry(key)?;
        (!entry.node.is_null()).then_some(entry)
    }

    fn join(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// Says that a key has another type than the one `wanted`.
    pub fn wrong_type(&self, key: &str, node: &Node, wanted: &str, problems: &mut Problems) {
        let path = self.join(key);
        let what = format!("`{path}` must be {wanted}");
        self.cannot_read(path);
        problems.push(
            Diagnostic::error_at(node.span.clone(), what).label(format!("this is {}", node.value)),
        );
    }

    /// Text and nothing else, as homelab.toml has it.
    pub fn string(
        &mut self,
        key: &'static str,
        problems: &mut Problems,
    ) -> Option<Spanned<String>> {
        let node = self.take(key)?;
        self.string_of(key, node, "a string", problems)
    }

    fn string_of(
        &self,
        key: &str,
        node: &Node,
        wanted: &str,
        problems: &mut Problems,
    ) -> Option<Spanned<String>> {
        let text = node.as_text();
        if text.is_none() {
            self.wrong_type(key, node, wanted, problems);
        }
        text.map(|text| Spanned::new(node.span.clone(), text.to_owned()))
    }

    /// A string, or a list of them.
    pub fn strings(
        &mut self,
        key: &'static str,
        problems: &mut Problems,
    ) -> Option<Vec<Spanned<String>>> {
        let node = self.take(key)?;
        match &node.value {
            Value::Text(text) => Some(vec![Spanned::new(node.span.clone(), text.clone())]),
            Value::List(items) => {
                let items = items.iter();
                let string = |item| self.string_of(key, item, "a list of strings", problems);
                Some(items.filter_map(string).collect())
            }
            _ => {
                self.wrong_type(key, node, "a string or a list of strings", problems);
                None
            }
        }
    }

    /// Strings by name.
    pub fn strings_by_name(
        &mut self,
        key: &'static str,
        problems: &mut Problems,
    ) -> Vec<(Spanned<String>, Spanned<String>)> {
        let Some(node) = self.take(key) else {
            return Vec::new();
        };
        let Some(map) = node.as_map() else {
            self.wrong_type(key, node, "a table of strings", problems);
            return Vec::new();
        };
        let inner = self.within(self.join(key), Some(map));
        let entries = map.0.iter().filter_map(|entry| {
            let text = inner.string_of(&entry.key, &entry.node, "a string", problems)?;
            Some((Spanned::new(entry.span.clone(), entry.key.clone()), text))
        });
        entries.collect()
    }

    /// A string where a bare number or boolean is as good: `cpus = 1.5`.
    pub fn scalar(
        &mut self,
        key: &'static str,
        problems: &mut Problems,
    ) -> Option<Spanned<String>> {
        let node = self.take(key)?;
        let text = node.scalar();
        if text.is_none() {
            let wanted = "a string, a number or a boolean";
            self.wrong_type(key, node, wanted, problems);
        }
        text.map(|text| Spanned::new(node.span.clone(), text))
    }

    /// `true` or `false` and nothing else, as homelab.toml has it.
    pub fn flag(&mut self, key: &'static str, problems: &mut Problems) -> Option<Spanned<bool>> {
        let node = self.take(key)?;
        if let Value::Bool(flag) = node.value {
            return Some(Spanned::new(node.span.clone(), flag));
        }
        self.wrong_type(key, node, "true or false", problems);
        None
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

    /// `true` or `false`, also as text, which is what a variable stands for.
    pub fn boolean(&mut self, key: &'static str, problems: &mut Problems) -> Option<bool> {
        let node = self.take(key)?;
        let flag = match &node.value {
            Value::Bool(flag) => Some(*flag),
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

    /// A whole number.
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
        self.within(self.join(key), map)
    }

    /// Tables by name, each read by `read`, which is given the place of the table too.
    pub fn tables<T>(
        &mut self,
        key: &'static str,
        problems: &mut Problems,
        mut read: impl FnMut(Spanned<String>, &mut Fields<'a>, &mut Problems) -> T,
    ) -> Vec<T> {
        let Some(node) = self.take(key) else {
            return Vec::new();
        };
        let Some(map) = node.as_map() else {
            self.wrong_type(key, node, "a table of tables", problems);
            return Vec::new();
        };
        let outer = self.within(self.join(key), Some(map));
        let mut all = Vec::new();
        for entry in &map.0 {
            let Some(map) = entry.node.as_map() else {
                let what = format!("`{}` must be a table", outer.join(&entry.key));
                let problem = Diagnostic::error_at(entry.node.span.clone(), what);
                problems.push(problem.label(format!("this is {}", entry.node.value)));
                continue;
            };
            let mut inner = outer.within(outer.join(&entry.key), Some(map));
            let name = Spanned::new(entry.span.clone(), entry.key.clone());
            all.push(read(name, &mut inner, problems));
            inner.finish(|_| None, problems);
        }
        all
    }

    /// All keys that nobody asked for, as they stand; they count as asked for then.
    pub fn rest(&mut self) -> Map {
        let entries = self.map.take().into_iter().flat_map(|map| &map.0);
        let rest = entries.filter(|entry| !self.known.contains(entry.key.as_str()));
        Map(rest.cloned().collect())
    }

    /// Keys that are known and mean nothing here.
    pub fn leave_alone(&mut self, keys: &[&'static str]) {
        self.known.extend(keys);
    }

    /// Names every key that nobody asked for, with the reason when `why` knows one.
    pub fn finish(&self, why: impl Fn(&str) -> Option<&'static str>, problems: &mut Problems) {
        for entry in self.map.into_iter().flat_map(|map| &map.0) {
            let key = entry.key.as_str();
            let is_own = key.starts_with("x-") && self.unreadable.is_none();
            if self.known.contains(key) || is_own {
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
                        Some(near) => {
                            self.cannot_read(self.join(near));
                            problem.hint(format!("did you mean `{near}`?"))
                        }
                        None if self.known.len() > MANY => problem.hint(
                            "the keys are those of a service in Compose; your own begin with `x-`",
                        ),
                        None => {
                            let known: Vec<&str> = self.known.iter().copied().collect();
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
