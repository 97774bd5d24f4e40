//! Lines as people read them, and objects as programs do: nothing in them but our own styles is a command to a terminal.

use super::FAINT;
use anstyle::Style;
use serde_json::Value;
use std::borrow::Cow;
use std::fmt::{self, Write as _};

/// A line in the making: texts, each with its style.
///
/// What homelab tells of comes from images, the Engine, files and other machines, and may hold sequences that move the cursor, set
/// a title or turn the direction of writing. When a text is printed nobody can tell such a sequence from a style of ours any more.
/// So the two stay apart until here, where they are put together: in every text what a terminal would obey becomes visible first,
/// and whoever prints cannot forget it, because lines are all that can be printed.
#[derive(Clone, Debug, Default)]
pub(super) struct Line(Vec<(Style, String)>);

impl Line {
    /// Adds a text.
    pub(super) fn text(self, text: impl Into<String>) -> Self {
        self.styled(Style::new(), text)
    }

    /// Adds a text with a style.
    pub(super) fn styled(mut self, style: Style, text: impl Into<String>) -> Self {
        self.0.push((style, text.into()));
        self
    }

    /// A word that says what the line is, like `error:`, and the rest of it.
    pub(super) fn headed(style: Style, word: &str, text: &str) -> Self {
        Self::default().styled(style, word).text(format!(" {text}"))
    }

    /// What belongs to the line above.
    pub(super) fn below(text: &str) -> Self {
        Self::default()
            .text("  ")
            .styled(FAINT, "|")
            .text(format!(" {text}"))
    }

    /// A line that a container wrote, below what is told of it. Its colours would be in the way, and tabs are as wide as in excerpts
    /// of files.
    pub(super) fn of_log(text: &str) -> Self {
        Self::below(&uncoloured(text).replace('\t', "    "))
    }
}

impl<T: Into<String>> From<T> for Line {
    fn from(text: T) -> Self {
        Self::default().text(text)
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (style, text) in &self.0 {
            write!(f, "{style}{}{style:#}", visible(text))?;
        }
        Ok(())
    }
}

/// A text in which everything that a terminal would obey is written out, like `\u{1b}`. It is one line.
pub fn visible(text: &str) -> Cow<'_, str> {
    escaped(text, |character| character.escape_debug().to_string())
}

/// A value as JSON, which is YAML too. serde writes only what is below the space by its number.
pub(super) fn json_text(value: &Value) -> String {
    let text = value.to_string();
    // All of these stand in strings, and none needs two of JSON's numbers.
    escaped(&text, |character| {
        format!("\\u{:04x}", u32::from(character))
    })
    .into_owned()
}

fn escaped(text: &str, escape: impl Fn(char) -> String) -> Cow<'_, str> {
    if !text.contains(is_command) {
        return Cow::Borrowed(text);
    }
    let mut all = String::with_capacity(text.len());
    for character in text.chars() {
        if is_command(character) {
            all.push_str(&escape(character));
        } else {
            all.push(character);
        }
    }
    Cow::Owned(all)
}

/// Whether a terminal does something else with it than to show it: the control characters, those of U+0080 to U+009F too, and what
/// turns the direction of writing, by which a text can be read otherwise than it is.
fn is_command(character: char) -> bool {
    character.is_control() || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A text without the sequences that only colour it.
fn uncoloured(text: &str) -> String {
    let mut parts = text.split("\u{1b}[");
    let mut all = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';');
        match rest.strip_prefix('m') {
            Some(rest) => all.push_str(rest),
            None => {
                let _ = write!(all, "\u{1b}[{part}");
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn what_a_terminal_would_obey_is_written_out() {
        for (text, expected) in [
            ("plain ü€\u{1f600} \\ \"", "plain ü€\u{1f600} \\ \""),
            ("\u{1b}[2Jx", "\\u{1b}[2Jx"),
            ("\u{9b}2J\u{7f}", "\\u{9b}2J\\u{7f}"),
            ("a\nb\r\tc\0\u{7}", "a\\nb\\r\\tc\\0\\u{7}"),
            ("\u{202e}evil\u{202c}", "\\u{202e}evil\\u{202c}"),
            ("\u{2066}x\u{2069}", "\\u{2066}x\\u{2069}"),
        ] {
            assert_eq!(visible(text), expected);
        }
    }

    #[test]
    fn a_style_is_the_only_sequence_of_a_line() {
        let line = Line::headed(FAINT, "x:", "a\u{1b}[0mb");
        assert_eq!(line.to_string(), "\u{1b}[2mx:\u{1b}[0m a\\u{1b}[0mb");
    }

    #[test]
    fn log_lines_lose_their_colours_and_nothing_else() {
        let text = "\u{1b}[1;31mred\u{1b}[0m\tx\u{1b}[m\u{1b}[2Jy\u{1b}[3";
        assert_eq!(uncoloured(text), "red\tx\u{1b}[2Jy\u{1b}[3");
        let line = anstream::adapter::strip_str(&Line::of_log(text).to_string()).to_string();
        assert_eq!(line, "  | red    x\\u{1b}[2Jy\\u{1b}[3");
    }

    #[test]
    fn json_says_the_same() {
        let value = json!({ "a\u{202e}": ["\u{1b}[2J\u{9b}\u{7f}\u{2066}ü\"\\\n"] });
        assert_eq!(
            json_text(&value),
            "{\"a\\u202e\":[\"\\u001b[2J\\u009b\\u007f\\u2066ü\\\"\\\\\\n\"]}"
        );
    }

    proptest! {
        #[test]
        fn no_text_is_a_command(text in any::<String>()) {
            prop_assert!(!visible(&text).contains(is_command));
            let value = Value::String(text);
            let json = json_text(&value);
            prop_assert!(!json.contains(is_command));
            prop_assert_eq!(serde_json::from_str::<Value>(&json).ok(), Some(value));
        }
    }
}
