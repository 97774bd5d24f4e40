//! Env files as Compose reads them: names and values, quotes, comments, and variables in values. Pure.

use super::interpolate::{Variables, Wrong};

/// How an env file is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// With quotes, comments and variables.
    #[default]
    Compose,
    /// `NAME=value`, everything behind the sign as it is: `format: raw`.
    Raw,
}

/// A line that is wrong: its number, from 1, and a hint. Its text stays out of messages, for it may be a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrongLine {
    /// From 1.
    pub line: usize,
    /// What is wrong with it.
    pub what: String,
    /// What to do about it.
    pub hint: String,
}

/// Names with their values, in the order of the file. A name that stands alone has the value that `lookup` knows, if any.
pub type Pairs = Vec<(String, Option<String>)>;

/// Reads an env file. Variables in values are those that `lookup` knows, else those of lines before.
///
/// # Errors
/// The first line that is wrong.
pub fn parse(
    text: &str,
    format: Format,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<Pairs, WrongLine> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut pairs = Pairs::new();
    let mut rest = text;
    let line_at = |rest: &str| {
        let before = text.len() - rest.len();
        let before = text.get(..before).unwrap_or_default();
        before.matches('\n').count() + 1
    };
    while !rest.is_empty() {
        let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
        let number = line_at(rest);
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            rest = after;
            continue;
        }
        let (declaration, end) = declaration(line);
        let name = name_of(declaration, end, number)?;
        let Some(end) = end else {
            pairs.push((name.to_owned(), lookup(name)));
            rest = after;
            continue;
        };
        // From here on the value may go over several lines.
        let start = rest.len() - rest.trim_start().len();
        let declared = rest.get(start..).unwrap_or_default();
        let skip = declared.find(declaration).unwrap_or(0) + end + 1;
        let value = declared.get(skip..).unwrap_or_default();
        if format == Format::Raw {
            let (value, after) = value.split_once('\n').unwrap_or((value, ""));
            pairs.push((
                name.to_owned(),
                Some(value.trim_end_matches('\r').to_owned()),
            ));
            rest = after;
            continue;
        }
        let known = |asked: &str| {
            let before = || pairs.iter().rev().find(|(name, _)| name == asked);
            lookup(asked).or_else(|| before().and_then(|(_, value)| value.clone()))
        };
        let (value, after) = read_value(value, &known).map_err(|error| error.at(number))?;
        pairs.push((name.to_owned(), Some(value)));
        rest = after;
    }
    Ok(pairs)
}

/// The variable's name in a declaration.
fn name_of(declaration: &str, end: Option<usize>, line: usize) -> Result<&str, WrongLine> {
    let name = declaration
        .get(..end.unwrap_or(declaration.len()))
        .unwrap_or_default()
        .trim_end();
    let is_name = |c: char| c.is_ascii_alphanumeric() || "_.-[]".contains(c);
    if name.is_empty() || !name.chars().all(is_name) {
        return Err(WrongLine {
            line,
            what: "is not a variable".to_owned(),
            hint: "write `NAME=value` on a line of its own; `#` begins a comment".to_owned(),
        });
    }
    Ok(name)
}

/// A line without `export`, and where its name ends.
fn declaration(line: &str) -> (&str, Option<usize>) {
    let declaration = match line.strip_prefix("export") {
        Some(declaration) if declaration.starts_with([' ', '\t']) => declaration.trim_start(),
        _ => line,
    };
    (declaration, declaration.find(['=', ':']))
}

enum ValueError {
    Open,
    Behind,
    Variable(Wrong),
}

impl ValueError {
    /// What is wrong, in the line with this number.
    fn at(self, line: usize) -> WrongLine {
        let (what, hint) = match self {
            Self::Open => (
                "opens a quote that is never closed".to_owned(),
                "close the quote".to_owned(),
            ),
            Self::Behind => (
                "goes on behind its closing quote".to_owned(),
                "put all of the value into the quotes, or write a `\\` before a quote inside"
                    .to_owned(),
            ),
            Self::Variable(Wrong::Format(_)) => (
                "has a `$` that begins no variable".to_owned(),
                "write `$$` for a dollar, or put the value into single quotes".to_owned(),
            ),
            Self::Variable(Wrong::Required(name, said)) => {
                let why = if said.is_empty() {
                    "the file requires it"
                } else {
                    &said
                };
                (
                    format!("needs the variable `{name}`, which is not set"),
                    format!("set `{name}`: {why}"),
                )
            }
        };
        WrongLine { line, what, hint }
    }
}

/// A value and the lines behind it.
fn read_value<'a>(
    text: &'a str,
    known: &dyn Fn(&str) -> Option<String>,
) -> Result<(String, &'a str), ValueError> {
    let text = text.trim_start_matches([' ', '\t', '\r']);
    let expand = |value: &str| {
        Variables::new(known)
            .expand(value)
            .map_err(ValueError::Variable)
    };
    let Some(quote) = text.chars().next().filter(|c| matches!(c, '"' | '\'')) else {
        let (line, after) = text.split_once('\n').unwrap_or((text, ""));
        // A comment behind a bare value has a space in front of it.
        let value = match line.find(" #").or_else(|| line.find("\t#")) {
            Some(end) => line.get(..end).unwrap_or(line),
            None if line.starts_with('#') => "",
            None => line,
        };
        return Ok((expand(value.trim())?, after));
    };
    let inner = text.get(1..).unwrap_or_default();
    let mut escaped = false;
    let end = inner.char_indices().find(|(_, c)| {
        let ends = *c == quote && !escaped;
        escaped = *c == '\\' && !escaped;
        ends
    });
    let (end, _) = end.ok_or(ValueError::Open)?;
    let (value, behind) = inner.split_at_checked(end).unwrap_or((inner, ""));
    let behind = behind.get(1..).unwrap_or_default();
    let (line, after) = behind.split_once('\n').unwrap_or((behind, ""));
    let line = line.trim();
    if !line.is_empty() && !line.starts_with('#') {
        return Err(ValueError::Behind);
    }
    if quote == '\'' {
        return Ok((value.replace("\\'", "'"), after));
    }
    Ok((expand(&unescaped(value))?, after))
}

/// What a backslash stands for between double quotes; `\$` is a dollar that begins no variable.
fn unescaped(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        if c != '\\' {
            plain.push(c);
            continue;
        }
        match characters.next() {
            Some('n') => plain.push('\n'),
            Some('r') => plain.push('\r'),
            Some('t') => plain.push('\t'),
            Some('$') => plain.push_str("$$"),
            Some(other @ ('"' | '\\' | '\'')) => plain.push(other),
            Some(other) => plain.extend(['\\', other]),
            None => plain.push('\\'),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<(String, String)>, WrongLine> {
        let lookup = |name: &str| (name == "HOST").then(|| "pi".to_owned());
        let pairs = parse(text, Format::Compose, &lookup)?;
        let text = |value: Option<String>| value.unwrap_or_else(|| "(unset)".to_owned());
        Ok(pairs
            .into_iter()
            .map(|(name, value)| (name, text(value)))
            .collect())
    }

    #[test]
    fn values_are_bare_or_quoted() {
        let text = "# who\nA=1\nexport B = two words # said\nC='a # $HOST'\nD=\"x\\n\\\"y\\\" $HOST\"\nE\nHOST\nF=\n\nG=a#b\nH: yaml\nI=\"over\ntwo\" # c\nJ=${A}${NO:-x}\r\nK=\"\\$A\"\n";
        let expected = [
            ("A", "1"),
            ("B", "two words"),
            ("C", "a # $HOST"),
            ("D", "x\n\"y\" pi"),
            ("E", "(unset)"),
            ("HOST", "pi"),
            ("F", ""),
            ("G", "a#b"),
            ("H", "yaml"),
            ("I", "over\ntwo"),
            ("J", "1x"),
            ("K", "$A"),
        ];
        let expected = expected.map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!(read(text), Ok(expected.to_vec()));
    }

    #[test]
    fn raw_values_are_as_they_are() {
        let pairs = parse("A='x' # $B\nB = c\n", Format::Raw, &|_| None);
        let pair = |name: &str, value: &str| (name.to_owned(), Some(value.to_owned()));
        assert_eq!(pairs, Ok(vec![pair("A", "'x' # $B"), pair("B", " c")]));
    }

    #[test]
    fn a_wrong_line_is_counted_from_one() {
        let line = |text: &str| read(text).err().map(|wrong| wrong.line);
        assert_eq!(line("A=1\nnot a variable\n"), Some(2));
        assert_eq!(line("A=\"open\n"), Some(1));
        assert_eq!(line("=x\n"), Some(1));
        assert_eq!(line("A=\"x\ny\"\n\nB=\"x\" y\n"), Some(4));
        assert_eq!(line("A=$5\n"), Some(1));
    }
}
