//! What the Engine sends of a log, taken apart into its streams as it comes. Pure.

/// Who wrote something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writer {
    /// The container, to standard output; one with a terminal has no other stream.
    Out,
    /// The container, to standard error.
    Err,
    /// The Engine itself, which cannot read the log.
    Engine,
}

/// How long the header of a frame is: who wrote it, three zeros, and the length, the highest byte first.
const HEADER: usize = 8;

/// The frames of a log. Nothing but a header is kept: what a frame holds is handed on as it comes.
pub(super) struct Frames {
    /// The log of a container with a terminal has no frames.
    has_terminal: bool,
    /// What there is of the next header.
    header: Vec<u8>,
    writer: Writer,
    /// How much of the frame is still to come.
    left: usize,
}

impl Frames {
    pub(super) fn new(has_terminal: bool) -> Self {
        Self {
            has_terminal,
            header: Vec::with_capacity(HEADER),
            writer: Writer::Out,
            left: 0,
        }
    }

    /// Takes the next bytes, which may begin and end anywhere.
    pub(super) fn push(&mut self, mut bytes: &[u8], mut hand: impl FnMut(Writer, &[u8])) {
        if self.has_terminal {
            hand(Writer::Out, bytes);
            return;
        }
        while !bytes.is_empty() {
            if self.left > 0 {
                let (of_frame, rest) = bytes.split_at(self.left.min(bytes.len()));
                self.left -= of_frame.len();
                hand(self.writer, of_frame);
                bytes = rest;
                continue;
            }
            let missing = HEADER - self.header.len();
            let (of_header, rest) = bytes.split_at(missing.min(bytes.len()));
            self.header.extend(of_header);
            bytes = rest;
            if let [writer, _, _, _, a, b, c, d] = *self.header.as_slice() {
                self.writer = match writer {
                    2 => Writer::Err,
                    3 => Writer::Engine,
                    _ => Writer::Out,
                };
                self.left = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(0);
                self.header.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is handed on when the bytes come in pieces of this size, pieces of one writer in one.
    fn frames(has_terminal: bool, bytes: &[u8], size: usize) -> Vec<(Writer, Vec<u8>)> {
        let mut frames = Frames::new(has_terminal);
        let mut all: Vec<(Writer, Vec<u8>)> = Vec::new();
        for bytes in bytes.chunks(size) {
            frames.push(bytes, |writer, bytes| match all.last_mut() {
                Some((last, known)) if *last == writer => known.extend(bytes),
                _ => all.push((writer, bytes.to_vec())),
            });
        }
        all
    }

    #[test]
    fn frames_may_be_cut_anywhere() {
        let bytes = b"\x01\0\0\0\0\0\0\x03abc\x02\0\0\0\0\0\0\0\x02\0\0\0\0\0\x01\0\
            0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\
            0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\
            0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\
            0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\
            \x03\0\0\0\0\0\0\x01x\0\0\0\0\0\0\0\x01y";
        let long = b"0123456789abcdef".repeat(16);
        let whole = [
            (Writer::Out, b"abc".to_vec()),
            (Writer::Err, long),
            (Writer::Engine, b"x".to_vec()),
            (Writer::Out, b"y".to_vec()),
        ];
        for size in 1..bytes.len() {
            assert_eq!(frames(false, bytes, size), whole, "in pieces of {size}");
        }
    }

    #[test]
    fn a_terminal_has_no_frames() {
        let bytes = b"\x01\0\0\0\0\0\0\x03abc";
        assert_eq!(frames(true, bytes, 4), [(Writer::Out, bytes.to_vec())]);
    }
}
