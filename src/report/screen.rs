//! What was printed, for tests.

use std::cell::RefCell;
use std::fmt::Write as _;

thread_local! {
    static LINES: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Keeps a line without its colours, with the stream that it goes to. Colours are all that there may be.
pub fn keep(stream: &str, line: &str) {
    let plain = anstream::adapter::strip_str(line).to_string();
    let sequences = line.split('\u{1b}').skip(1);
    for sequence in sequences {
        let end = sequence.trim_start_matches(|c: char| "[;".contains(c) || c.is_ascii_digit());
        assert!(end.starts_with('m'), "{line:?}");
    }
    LINES.with_borrow_mut(|lines| {
        for line in plain.split('\n') {
            let _ = writeln!(lines, "{stream} {line}");
        }
    });
}

/// The lines that `print` prints on this thread.
pub fn of(print: impl FnOnce()) -> String {
    LINES.take();
    print();
    LINES.take()
}
