//! Tables: columns as wide as what stands in them.

use super::{Line, out, visible};
use anstyle::AnsiColor;
use comfy_table::presets;

/// What marks the end of a row in which something is not as planned.
pub(super) const DIFFERS: &str = "differs";

/// A table in the making.
pub(super) struct Table(comfy_table::Table);

impl Table {
    pub(super) fn new() -> Self {
        let mut table = comfy_table::Table::new();
        table.load_style(presets::NOTHING);
        Self(table)
    }

    /// With names of its columns.
    pub(super) fn with_header<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> Self {
        let mut table = Self::new();
        table.0.set_header(cells(names));
        table
    }

    /// Adds a row.
    pub(super) fn row<T: AsRef<str>>(&mut self, texts: impl IntoIterator<Item = T>) {
        self.0.add_row(cells(texts));
    }

    /// Prints it.
    pub(super) fn print(&self) {
        let red = AnsiColor::Red.on_default();
        for line in self.0.lines() {
            let line = line.trim_end();
            match line.strip_suffix(DIFFERS) {
                Some(start) => out(Line::from(start).styled(red, DIFFERS)),
                None => out(line),
            }
        }
    }
}

/// Texts as they will be printed, so that columns are as wide as that, and a row is one line.
fn cells<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> Vec<String> {
    let texts = texts.into_iter();
    texts
        .map(|text| visible(text.as_ref()).into_owned())
        .collect()
}
