//! Reads a table of the parser's tree key by key, and collects all that is wrong with it.

use super::{Address, OneOrMany, Text};
use crate::error::Diagnostic;
use crate::input::node::{Entry, Map, Node, Value};
use crate::input::problem::{Span, nearest};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What is wrong so far.
#[derive(Default)]
pub(super) struct Found {
    pub problems: Vec<Diagnostic>,
    pub unreadable: Vec<String>,
}

type Pair<'a> = (Text, &'a Spanned<DeValue<'a>>);

/// Keys and values in the order of the file: the first environment keeps the exact subnet as its pool.
fn entries_of<'a>(table: &'a DeTable<'a>) -> Vec<Pair<'a>> {
    let mut entries: Vec<_> = table
        .iter()
        .map(|(key, value)| (Spanned::new(key.span(), key.get_ref().to_string()), value))
        .collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

/// A table that is being read: it knows which of its keys were asked for, so that the others can be named.
pub(super) struct Table<'a> {
    path: String,
    /// The place of the table.
    pub span: Span,
    entries: Vec<Pair<'a>>,
    known: Vec<&'static str>,
    found: &'a mut Found,
}

impl<'a> Table<'a> {
    pub(super) fn new(
        path: &str,
        span: Span,
        table: &'a DeTable<'a>,
        found: &'a mut Found,
    ) -> Self {
        Self {
            path: path.to_owned(),
            span,
            entries: entries_of(table),
            known: Vec::new(),
            found,
        }
    }

    fn take(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        // A key whose type decides how it is read is taken again by the one who reads it.
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        self.entries
            .iter()
            .find(|(name, _)| name.get_ref() == key)
            .map(|(_, value)| *value)
    }

    fn join(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    fn wrong_type(&mut self, key: &str, value: &Spanned<DeValue>, wanted: &str) {
        let found = type_name(value.get_ref());
        let path = self.join(key);
        self.found.problems.push(
            Diagnostic::error_at(value.span(), format!("`{path}` must be {wanted}"))
                .label(format!("this is {found}")),
        );
        self.found.unreadable.push(path);
    }

    pub(super) fn string(&mut self, key: &'static str) -> Option<Text> {
        let value = self.take(key)?;
        self.text(key, value, "a string")
    }

    /// A string where a bare number or boolean is as good: `user = 1000`.
    pub(super) fn scalar(&mut self, key: &'static str) -> Option<Text> {
        let value = self.take(key)?;
        self.plain(key, value)
    }

    fn text(&mut self, key: &str, value: &Spanned<DeValue>, wanted: &str) -> Option<Text> {
        let text = value.get_ref().as_str();
        if text.is_none() {
            self.wrong_type(key, value, wanted);
        }
        text.map(|text| Spanned::new(value.span(), text.to_owned()))
    }

    fn plain(&mut self, key: &str, value: &Spanned<DeValue>) -> Option<Text> {
        let text = match value.get_ref() {
            DeValue::String(text) => text.to_string(),
            DeValue::Integer(number) if number.radix() == 10 => number.as_str().to_owned(),
            DeValue::Float(number) => number.as_str().to_owned(),
            DeValue::Boolean(flag) => flag.to_string(),
            _ => {
                self.wrong_type(key, value, "a string, a number or a boolean");
                return None;
            }
        };
        Some(Spanned::new(value.span(), text))
    }

    pub(super) fn boolean(&mut self, key: &'static str) -> Option<Spanned<bool>> {
        let value = self.take(key)?;
        let flag = value.get_ref().as_bool();
        if flag.is_none() {
            self.wrong_type(key, value, "true or false");
        }
        flag.map(|flag| Spanned::new(value.span(), flag))
    }

    pub(super) fn list(&mut self, key: &'static str) -> Option<Vec<Text>> {
        let value = self.take(key)?;
        let Some(items) = value.get_ref().as_array() else {
            self.wrong_type(key, value, "a list of strings");
            return None;
        };
        Some(
            items
                .iter()
                .filter_map(|item| self.text(key, item, "a list of strings"))
                .collect(),
        )
    }

    pub(super) fn one_or_many(&mut self, key: &'static str) -> Option<OneOrMany> {
        let value = self.take(key)?;
        if let Some(text) = value.get_ref().as_str() {
            return Some(OneOrMany::One(Spanned::new(value.span(), text.to_owned())));
        }
        if value.get_ref().is_array() {
            return self.list(key).map(OneOrMany::Many);
        }
        self.wrong_type(key, value, "a string or a list of strings");
        None
    }

    pub(super) fn address(&mut self, is_override: bool) -> Option<Address> {
        let value = self.take("address")?;
        match value.get_ref() {
            DeValue::Table(_) if !is_override => {
                let pairs = self.strings_by_name("address");
                Some(Address::PerEnv(pairs))
            }
            DeValue::String(text) if is_override => {
                Some(Address::One(Spanned::new(value.span(), text.to_string())))
            }
            _ if is_override => {
                self.wrong_type("address", value, "one address, as a string");
                None
            }
            _ => {
                self.wrong_type(
                    "address",
                    value,
                    "a table with an address for each environment, like { prod = \"192.168.1.200\" }",
                );
                None
            }
        }
    }

    /// All keys that nobody asked for, as they stand.
    pub(super) fn rest(&mut self) -> Map {
        let entries = std::mem::take(&mut self.entries);
        let rest = entries
            .into_iter()
            .filter(|(name, _)| !self.known.contains(&name.get_ref().as_str()))
            .map(|(name, value)| Entry {
                span: name.span(),
                key: name.into_inner(),
                node: node(value),
            });
        Map(rest.collect())
    }

    /// A key that must be a table, with its path and place.
    fn subtable(
        &mut self,
        key: &'static str,
        wanted: &str,
    ) -> Option<(String, Span, &'a DeTable<'a>)> {
        let value = self.take(key)?;
        let table = value.get_ref().as_table();
        if table.is_none() {
            self.wrong_type(key, value, wanted);
        }
        Some((self.join(key), value.span(), table?))
    }

    pub(super) fn strings_by_name(&mut self, key: &'static str) -> Vec<(Text, Text)> {
        let Some((path, span, table)) = self.subtable(key, "a table of strings") else {
            return Vec::new();
        };
        let mut inner = Table::new(&path, span, table, self.found);
        entries_of(table)
            .into_iter()
            .filter_map(|(name, value)| {
                let text = inner.text(name.get_ref(), value, "a string")?;
                Some((name, text))
            })
            .collect()
    }

    pub(super) fn table<T: Default>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Table) -> T,
    ) -> T {
        let Some((path, span, table)) = self.subtable(key, "a table") else {
            return T::default();
        };
        let mut inner = Table::new(&path, span, table, self.found);
        let read = read(&mut inner);
        inner.finish();
        read
    }

    pub(super) fn tables<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(Text, &mut Table) -> T,
    ) -> Vec<T> {
        let Some((path, _, table)) = self.subtable(key, "a table of tables") else {
            return Vec::new();
        };
        let mut all = Vec::new();
        for (name, value) in entries_of(table) {
            let path = format!("{path}.{}", name.get_ref());
            if let Some(table) = value.get_ref().as_table() {
                let mut inner = Table::new(&path, value.span(), table, self.found);
                all.push(read(name, &mut inner));
                inner.finish();
            } else {
                self.found.problems.push(
                    Diagnostic::error_at(value.span(), format!("`{path}` must be a table"))
                        .label(format!("this is {}", type_name(value.get_ref()))),
                );
            }
        }
        all
    }

    /// Names every key that nobody asked for.
    pub(super) fn finish(&mut self) {
        for (name, _) in std::mem::take(&mut self.entries) {
            let key = name.get_ref();
            if self.known.contains(&key.as_str()) {
                continue;
            }
            let path = self.join(key);
            let mut problem = Diagnostic::error_at(name.span(), format!("unknown key `{path}`"))
                .label("not a known key");
            problem = if let Some(near) = nearest(key, self.known.iter().copied()) {
                self.found.unreadable.push(self.join(near));
                problem.hint(format!("did you mean `{near}`?"))
            } else {
                problem.hint(format!("the keys here are `{}`", self.known.join("`, `")))
            };
            self.found.problems.push(problem);
        }
    }
}

/// A value of TOML as one that Compose files have too.
fn node(value: &Spanned<DeValue>) -> Node {
    let inner = match value.get_ref() {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => {
            let digits = number.as_str();
            match i64::from_str_radix(digits, number.radix()) {
                Ok(number) => Value::Integer(number),
                Err(_) => Value::Text(digits.to_owned()),
            }
        }
        DeValue::Float(number) => match number.as_str().parse() {
            Ok(number) => Value::Float(number),
            Err(_) => Value::Text(number.as_str().to_owned()),
        },
        DeValue::Boolean(flag) => Value::Bool(*flag),
        DeValue::Datetime(date) => Value::Text(date.to_string()),
        DeValue::Array(items) => Value::List(items.iter().map(node).collect()),
        DeValue::Table(table) => {
            let entries = entries_of(table).into_iter().map(|(name, value)| Entry {
                span: name.span(),
                key: name.into_inner(),
                node: node(value),
            });
            Value::Map(Map(entries.collect()))
        }
    };
    Node::new(value.span(), inner)
}

fn type_name(value: &DeValue) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
