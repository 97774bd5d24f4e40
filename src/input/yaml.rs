//! YAML text to values with their places: anchors and merge keys are resolved, tags of Compose are kept. Pure.

use crate::error::Diagnostic;
use crate::input::node::{Entry, Map, Mark, Node, Value};
use crate::input::problem::Span;
use saphyr_parser::{Event, Parser, ScalarStyle, Tag};
use std::collections::HashMap;

/// How deep values may be inside each other; Compose's own files have about eight levels.
const DEPTH: usize = 64;

/// How many values a file may come to when its aliases are resolved.
const NODES: usize = 200_000;

/// Reads all documents of a file whose first byte is at `base` of all sources.
///
/// # Errors
/// When the text is not YAML, or too much of it.
pub fn parse(source: &str, base: usize) -> Fallible<Vec<Node>> {
    let mut reader = Reader {
        parser: Parser::new_from_str(source),
        places: Places::new(source, base),
        anchors: HashMap::new(),
        nodes: 0,
    };
    reader.documents()
}

struct Reader<'a> {
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
    places: Places<'a>,
    /// Values with an anchor, and how many values each one is.
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
}

type Step<'a> = (Event<'a>, Span);
type Fallible<T> = Result<T, Box<Diagnostic>>;

fn wrong<T>(problem: Diagnostic) -> Fallible<T> {
    Err(Box::new(problem))
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Fallible<Step<'a>> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => {
                let span = self.places.span(span.start.index(), span.end.index());
                Ok((event, span))
            }
            Some(Err(error)) => {
                let at = error.marker().index();
                let span = self.places.span(at, at + 1);
                wrong(
                    Diagnostic::error_at(
                        span,
                        format!("this is not YAML: {}", reason(error.info())),
                    )
                    .hint("https://yaml.org describes how it is written"),
                )
            }
            None => Ok((Event::StreamEnd, self.places.span(0, 0))),
        }
    }

    fn documents(&mut self) -> Fallible<Vec<Node>> {
        let mut all = Vec::new();
        loop {
            let step = self.next()?;
            match step.0 {
                Event::StreamEnd => return Ok(all),
                Event::StreamStart
                | Event::DocumentStart(_)
                | Event::DocumentEnd
                | Event::Nothing => {}
                _ => all.push(self.node(step, 0)?),
            }
        }
    }

    fn count(&mut self, more: usize, span: &Span) -> Fallible<()> {
        self.nodes += more;
        if self.nodes <= NODES {
            return Ok(());
        }
        let what = format!("the file has more than {NODES} values when its aliases are resolved");
        wrong(Diagnostic::error_at(span.clone(), what).hint("use fewer aliases of aliases"))
    }

    fn node(&mut self, (event, span): Step<'a>, depth: usize) -> Fallible<Node> {
        if depth > DEPTH {
            let what = format!("values are more than {DEPTH} levels deep here");
            return wrong(
                Diagnostic::error_at(span, what)
                    .hint("Compose's own files have about eight levels"),
            );
        }
        let before = self.nodes;
        self.count(1, &span)?;
        let (node, anchor) = match event {
            Event::Alias(anchor) => {
                let Some((node, count)) = self.anchors.get(&anchor).cloned() else {
                    let what = "this alias names an anchor that stands nowhere before it";
                    return wrong(
                        Diagnostic::error_at(span, what)
                            .hint("`&name` makes an anchor, `*name` takes it up"),
                    );
                };
                self.count(count, &span)?;
                return Ok(node);
            }
            Event::Scalar(text, style, anchor, tag) => {
                let value = scalar(&text, style, tag.as_deref());
                let mark = mark(tag.as_deref());
                (Node { span, value, mark }, anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                (self.sequence(span, mark(tag.as_deref()), depth)?, anchor)
            }
            Event::MappingStart(anchor, tag) => {
                (self.mapping(span, mark(tag.as_deref()), depth)?, anchor)
            }
            _ => (Node::new(span, Value::Null), 0),
        };
        if anchor > 0 {
            let count = self.nodes - before;
            self.anchors.insert(anchor, (node.clone(), count));
        }
        Ok(node)
    }

    fn sequence(&mut self, span: Span, mark: Mark, depth: usize) -> Fallible<Node> {
        let mut items = Vec::new();
        loop {
            let step = self.next()?;
            if matches!(step.0, Event::SequenceEnd | Event::StreamEnd) {
                break;
            }
            items.push(self.node(step, depth + 1)?);
        }
        let end = items.last().map_or(span.end, |item| item.span.end);
        Ok(Node {
            span: span.start..end.max(span.end),
            value: Value::List(items),
            mark,
        })
    }

    fn mapping(&mut self, span: Span, mark: Mark, depth: usize) -> Fallible<Node> {
        let mut map = Map::default();
        let mut merged: Vec<Node> = Vec::new();
        let mut end = span.end;
        loop {
            let step = self.next()?;
            if matches!(step.0, Event::MappingEnd | Event::StreamEnd) {
                break;
            }
            let is_merge =
                matches!(&step.0, Event::Scalar(text, ScalarStyle::Plain, ..) if text == "<<");
            let raw = match &step.0 {
                Event::Scalar(text, ..) => Some(text.to_string()),
                _ => None,
            };
            let key = self.node(step, depth + 1)?;
            let step = self.next()?;
            let node = self.node(step, depth + 1)?;
            end = end.max(node.span.end).max(key.span.end);
            if is_merge {
                merged.push(node);
                continue;
            }
            let Some(name) = raw.or_else(|| key.scalar()) else {
                return wrong(
                    Diagnostic::error_at(key.span, "a list or a table cannot be a key")
                        .hint("keys are words"),
                );
            };
            if let Some(first) = map.entry(&name) {
                let first = first.span.clone();
                let what = format!("`{name}` stands in this table twice");
                return wrong(
                    Diagnostic::error_at(key.span, what)
                        .context(first, "here first")
                        .hint("keep one of the two"),
                );
            }
            map.0.push(Entry {
                key: name,
                span: key.span,
                node,
            });
        }
        for node in merged {
            merge(&mut map, node)?;
        }
        Ok(Node {
            span: span.start..end,
            value: Value::Map(map),
            mark,
        })
    }
}

/// What the parser stumbled over, in words for people.
fn reason(info: &str) -> &'static str {
    let has = |word: &str| info.contains(word);
    if has("quoted") || has("unterminated") {
        "a quote is not closed, or what is in it is indented less than its key"
    } else if has("tab") {
        "tabs indent nothing in YAML: use spaces"
    } else if has("anchor") || has("alias") {
        "there is no such anchor"
    } else if has("recursion") {
        "values are too deep inside each other"
    } else if has("flow") || has("']'") || has("'}'") {
        "a `[` or `{` is not closed, or a comma is missing"
    } else if has("directive") || has("tag") {
        "what begins with `%` or `!` here means nothing"
    } else {
        "the indentation does not fit what stands above, or a `:` or `-` is missing"
    }
}

/// The merge key: what stands in the table itself wins, and of several tables the first.
fn merge(map: &mut Map, from: Node) -> Fallible<()> {
    match from.value {
        Value::Map(more) => {
            for entry in more.0 {
                if map.get(&entry.key).is_none() {
                    map.0.push(entry);
                }
            }
            Ok(())
        }
        Value::List(items) => items.into_iter().try_for_each(|item| merge(map, item)),
        Value::Null => Ok(()),
        _ => wrong(
            Diagnostic::error_at(from.span, "`<<` merges tables, and this is none")
                .hint("write `<<: *name` with the anchor of a table"),
        ),
    }
}

fn mark(tag: Option<&Tag>) -> Mark {
    match tag {
        Some(tag) if tag.handle == "!" && tag.suffix == "reset" => Mark::Reset,
        Some(tag) if tag.handle == "!" && tag.suffix == "override" => Mark::Override,
        _ => Mark::None,
    }
}

/// The value of a scalar as Compose's own parser takes it: YAML 1.2 for booleans, and 0777 an octal number as in YAML 1.1.
fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Value {
    let is_core = |name: &str| {
        tag.is_some_and(|tag| tag.handle == "tag:yaml.org,2002:" && tag.suffix == name)
    };
    if style != ScalarStyle::Plain || is_core("str") {
        return Value::Text(text.to_owned());
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ => number(text).unwrap_or_else(|| Value::Text(text.to_owned())),
    }
}

fn number(text: &str) -> Option<Value> {
    let first = text.chars().next()?;
    if !(first.is_ascii_digit() || "+-.".contains(first)) {
        return None;
    }
    let plain = text.replace('_', "");
    let (sign, digits) = match plain.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", plain.strip_prefix('+').unwrap_or(&plain)),
    };
    let radix = |radix: u32, digits: &str| {
        let is_number = digits.chars().all(|c| c.is_digit(radix));
        let value = i64::from_str_radix(&format!("{sign}{digits}"), radix);
        value.ok().filter(|_| is_number).map(Value::Integer)
    };
    let lower = digits.to_ascii_lowercase();
    if let Some(digits) = lower.strip_prefix("0x") {
        return radix(16, digits);
    }
    if let Some(digits) = lower.strip_prefix("0o") {
        return radix(8, digits);
    }
    if let Some(digits) = lower.strip_prefix("0b") {
        return radix(2, digits);
    }
    if let Some(octal) = digits.strip_prefix('0')
        && !octal.is_empty()
        && let Some(value) = radix(8, octal)
    {
        return Some(value);
    }
    if let Some(value) = radix(10, digits) {
        return Some(value);
    }
    if sign.is_empty() && digits.parse::<u64>().is_ok() {
        return Some(Value::Text(digits.to_owned()));
    }
    let is_float = digits
        .chars()
        .all(|c| c.is_ascii_digit() || ".eE+-".contains(c))
        && digits.contains(|c: char| c.is_ascii_digit())
        && digits.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    let value = is_float.then(|| plain.parse::<f64>().ok()).flatten()?;
    value.is_finite().then_some(Value::Float(value))
}

/// The parser counts characters; places are bytes.
struct Places<'a> {
    source: &'a str,
    base: usize,
    /// The byte at which each character begins; empty where the two are the same.
    bytes: Vec<usize>,
}

impl<'a> Places<'a> {
    fn new(source: &'a str, base: usize) -> Self {
        let bytes = if source.is_ascii() {
            Vec::new()
        } else {
            source.char_indices().map(|(index, _)| index).collect()
        };
        Self {
            source,
            base,
            bytes,
        }
    }

    fn byte(&self, character: usize) -> usize {
        let length = self.source.len();
        if self.bytes.is_empty() {
            return character.min(length);
        }
        self.bytes.get(character).copied().unwrap_or(length)
    }

    fn span(&self, start: usize, end: usize) -> Span {
        let (start, end) = (self.byte(start), self.byte(end));
        self.base + start..self.base + end.max(start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Node {
        parse(text, 0)
            .unwrap_or_default()
            .into_iter()
            .next()
            .unwrap_or_default()
    }

    #[test]
    fn scalars_have_composes_types() {
        let node = one(
            "a: yes\nb: 0440\nc: 1.10\nd: '1'\ne: ~\nf: 0x1F\ng: 1e3\nh: 1_000\ni: 2024-01-01\nj: 12:30\nk: true\nl: -3\nm: 12345678901234567890\n",
        );
        let value = |key: &str| node.get(key).map(|node| node.value.clone());
        let text = |text: &str| Some(Value::Text(text.to_owned()));
        assert_eq!(value("a"), text("yes"));
        assert_eq!(value("b"), Some(Value::Integer(0o440)));
        assert_eq!(value("c"), Some(Value::Float(1.1)));
        assert_eq!(value("d"), text("1"));
        assert_eq!(value("e"), Some(Value::Null));
        assert_eq!(value("f"), Some(Value::Integer(31)));
        assert_eq!(value("g"), Some(Value::Float(1000.0)));
        assert_eq!(value("h"), Some(Value::Integer(1000)));
        assert_eq!(value("i"), text("2024-01-01"));
        assert_eq!(value("j"), text("12:30"));
        assert_eq!(value("k"), Some(Value::Bool(true)));
        assert_eq!(value("l"), Some(Value::Integer(-3)));
        assert_eq!(value("m"), text("12345678901234567890"));
    }

    #[test]
    fn anchors_and_merges_are_resolved_and_own_keys_win() {
        let node = one("x: &x {a: 1, b: 2}\ny:\n  <<: *x\n  b: 3\nz:\n  <<: [{c: 4}, *x]\n");
        let at = |first: &str, second: &str| {
            node.get(first)
                .and_then(|n| n.get(second))
                .and_then(Node::scalar)
        };
        assert_eq!(at("y", "a").as_deref(), Some("1"));
        assert_eq!(at("y", "b").as_deref(), Some("3"));
        assert_eq!(at("z", "c").as_deref(), Some("4"));
        assert_eq!(at("z", "b").as_deref(), Some("2"));
    }

    #[test]
    fn places_are_bytes() {
        let source = "ä: ö\nb: here\n";
        let node = one(source);
        let span = node
            .get("b")
            .map(|node| node.span.clone())
            .unwrap_or_default();
        assert_eq!(source.get(span), Some("here"));
    }

    #[test]
    fn a_heap_of_aliases_is_refused() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..9 {
            let below = format!("*a{}", level - 1);
            let ten = vec![below; 10].join(", ");
            text.extend([format!("a{level}: &a{level} [{ten}]\n")]);
        }
        let error = parse(&text, 0).err().map(|problem| problem.what);
        assert!(error.is_some_and(|what| what.contains("aliases")));
    }

    #[test]
    fn depth_is_limited() {
        let deep = |levels| format!("{}x{}", "[".repeat(levels), "]".repeat(levels));
        let error = |levels| parse(&deep(levels), 0).err().map(|problem| problem.what);
        assert_eq!(error(60), None);
        assert!(error(100).is_some_and(|what| what.contains("levels")));
        assert!(error(100_000).is_some());
    }
}
