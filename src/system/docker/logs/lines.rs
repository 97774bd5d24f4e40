//! The bytes of a log to lines. Pure.

use std::io::BufRead as _;

/// How much of a line is kept until its end comes, in bytes. What is longer is handed on in pieces, so that a line without an end
/// takes no more memory than this. The Engine itself keeps lines in pieces of 16 KiB, which it does not mark.
const LONGEST: usize = 64 << 10;

/// A line of a container, or a piece of a very long one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPiece {
    /// Whether it went to standard error.
    pub is_error: bool,
    /// The text without the end of the line.
    pub text: String,
    /// Whether the line ends with it.
    pub is_end: bool,
}

/// The lines of one stream.
pub(super) struct Lines {
    is_error: bool,
    /// What has come of the line and was not handed on. It has no end in it, so only what is new is searched for one.
    open: Vec<u8>,
    /// Whether a piece of the line was handed on.
    is_begun: bool,
}

impl Lines {
    pub(super) fn new(is_error: bool) -> Self {
        Self {
            is_error,
            open: Vec::new(),
            is_begun: false,
        }
    }

    /// Takes the next bytes, which may begin and end anywhere: the Engine cuts where the container flushed, and at 16 KiB.
    pub(super) fn push(&mut self, mut bytes: &[u8], mut hand: impl FnMut(LogPiece)) {
        while !bytes.is_empty() {
            let (part, rest) = bytes.split_at(bytes.len().min(LONGEST));
            let mut part = part;
            // Takes what it reads out of `part`, and cannot fail.
            while matches!(part.read_until(b'\n', &mut self.open), Ok(read) if read > 0) {
                if self.open.ends_with(b"\n") {
                    self.open.pop();
                    self.end(&mut hand);
                } else if self.open.len() >= LONGEST {
                    let rest = self.open.split_off(self.open.len() - kept_back(&self.open));
                    hand(self.piece(false));
                    self.open = rest;
                    self.is_begun = true;
                }
            }
            bytes = rest;
        }
    }

    /// Ends with the log: what is left is a line.
    pub(super) fn finish(&mut self, mut hand: impl FnMut(LogPiece)) {
        if self.is_begun || !self.open.is_empty() {
            self.end(&mut hand);
        }
    }

    fn end(&mut self, hand: &mut impl FnMut(LogPiece)) {
        // Terminals and Windows end a line so.
        if self.open.ends_with(b"\r") {
            self.open.pop();
        }
        hand(self.piece(true));
        self.is_begun = false;
    }

    fn piece(&mut self, is_end: bool) -> LogPiece {
        let text = String::from_utf8_lossy(&self.open).into_owned();
        self.open.clear();
        LogPiece {
            is_error: self.is_error,
            text,
            is_end,
        }
    }
}

/// How many bytes at the end must wait for what follows: a character that is not all there, and a `\r`, which may belong to the end
/// of the line.
fn kept_back(bytes: &[u8]) -> usize {
    if bytes.ends_with(b"\r") {
        return 1;
    }
    let last = bytes.iter().rev().take(3);
    for (index, byte) in last.enumerate() {
        let length = match byte {
            0b1000_0000..=0b1011_1111 => continue,
            0b1100_0000..=0b1101_1111 => 2,
            0b1110_0000..=0b1110_1111 => 3,
            0b1111_0000..=0b1111_0111 => 4,
            _ => 0,
        };
        let there = index + 1;
        return if length > there { there } else { 0 };
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is handed on when the bytes come in pieces of this size.
    fn pieces(bytes: &[u8], size: usize) -> Vec<LogPiece> {
        let mut lines = Lines::new(false);
        let mut all = Vec::new();
        for bytes in bytes.chunks(size) {
            lines.push(bytes, |piece| all.push(piece));
        }
        lines.finish(|piece| all.push(piece));
        all
    }

    /// Pieces as the text that they were made from, and a `|` where one goes on.
    fn text(pieces: &[LogPiece]) -> String {
        let texts = pieces.iter().map(|piece| {
            let end = if piece.is_end { "\n" } else { "|" };
            format!("{}{end}", piece.text)
        });
        texts.collect()
    }

    #[test]
    fn lines_may_be_cut_anywhere() {
        let bytes = "one\n\nzwölf\r\n\r\na\rb\n\u{1f600}\u{1b}[31mred\u{1b}[0m\nno end".as_bytes();
        let expected = "one\n\nzwölf\n\na\rb\n\u{1f600}\u{1b}[31mred\u{1b}[0m\nno end\n";
        for size in 1..=bytes.len() {
            assert_eq!(text(&pieces(bytes, size)), expected, "in pieces of {size}");
        }
    }

    #[test]
    fn nothing_is_no_line() {
        assert_eq!(pieces(b"", 1), []);
        assert_eq!(text(&pieces(b"\n", 1)), "\n");
        assert_eq!(text(&pieces(b"a\n", 1)), "a\n");
    }

    #[test]
    fn what_is_no_text_is_marked() {
        assert_eq!(
            text(&pieces(b"a\xff\xc3\n\xe2\x82", 1)),
            "a\u{fffd}\u{fffd}\n\u{fffd}\n"
        );
    }

    #[test]
    fn a_long_line_comes_in_pieces() {
        let long = "a".repeat(LONGEST);
        for (bytes, expected) in [
            (long.clone(), format!("{long}|\n")),
            (format!("{long}\n"), format!("{long}|\n")),
            (format!("{long}\r\nb"), format!("{long}|\nb\n")),
            (format!("{long}\rb"), format!("{long}|\rb\n")),
            (format!("{long}b\nc\n"), format!("{long}|b\nc\n")),
        ] {
            for size in [LONGEST, LONGEST + 1, 3 * LONGEST] {
                let seen = text(&pieces(bytes.as_bytes(), size));
                assert!(
                    seen == expected,
                    "in pieces of {size}: {:?}",
                    seen.get(LONGEST - 1..)
                );
            }
        }
    }

    #[test]
    fn characters_stay_whole_where_a_long_line_is_cut() {
        for character in ["ö", "€", "\u{1f600}"] {
            for before in 0..character.len() {
                let line = format!("{}{}", "a".repeat(before), character.repeat(LONGEST));
                let seen = pieces(line.as_bytes(), 16 << 10);
                assert!(
                    seen.len() > 1 && seen.iter().all(|piece| !piece.text.contains('\u{fffd}'))
                );
                let whole: String = seen.into_iter().map(|piece| piece.text).collect();
                assert!(whole == line, "{character} behind {before} bytes");
            }
        }
    }

    /// Each piece costs what is new in it: never is more kept than one piece and what came last.
    #[test]
    fn a_line_without_an_end_is_never_held() {
        const CHUNK: usize = 16 << 10;
        const CHUNKS: usize = (300 << 20) / CHUNK;
        let chunk = vec![b'a'; CHUNK];
        let mut lines = Lines::new(true);
        let (mut count, mut length) = (0, 0);
        for _ in 0..CHUNKS {
            lines.push(&chunk, |piece| {
                assert!(piece.is_error && !piece.is_end && piece.text.len() <= LONGEST + CHUNK);
                count += 1;
                length += piece.text.len();
            });
            assert!(lines.open.len() < LONGEST && lines.open.capacity() <= 2 * (LONGEST + CHUNK));
        }
        lines.finish(|piece| {
            assert!(piece.is_end);
            length += piece.text.len();
        });
        assert_eq!((count, length), (CHUNKS * CHUNK / LONGEST, CHUNKS * CHUNK));
    }
}
