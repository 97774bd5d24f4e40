//! Logs of containers, line by line.

use super::{Engine, engine_error};
use crate::error::Error;
use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptionsBuilder;
use futures_util::StreamExt;

/// How much of a log is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tail {
    /// Go on with what comes.
    pub follow: bool,
    /// The number of lines from the end; all when there is none.
    pub lines: Option<u64>,
    /// With the time of each line.
    pub timestamps: bool,
    /// Only what is not older, in seconds since 1970.
    pub since: Option<i32>,
}

/// A line of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Whether it went to standard error.
    pub is_error: bool,
    /// The line without its end.
    pub text: String,
}

impl Engine {
    /// Hands the lines of a container's log on, until it ends.
    ///
    /// # Errors
    /// When its logging driver cannot be read, or the Engine fails.
    pub async fn logs(
        &self,
        name: &str,
        tail: &Tail,
        mut hand: impl FnMut(Line),
    ) -> Result<(), Error> {
        let lines = tail
            .lines
            .map_or("all".to_owned(), |lines| lines.to_string());
        let options = LogsOptionsBuilder::new()
            .stdout(true)
            .stderr(true)
            .follow(tail.follow)
            .timestamps(tail.timestamps)
            .since(tail.since.unwrap_or(0))
            .tail(&lines)
            .build();
        let client = self.without_limit();
        let mut chunks = std::pin::pin!(client.logs(name, Some(options)));
        // Chunks end where the container flushed, not where its lines do; the two streams come in turns.
        let mut open = [Vec::new(), Vec::new()];
        let line = |is_error: bool, bytes: &[u8]| {
            let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
            let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
            let text = String::from_utf8_lossy(bytes).into_owned();
            Line { is_error, text }
        };
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|error| {
                engine_error(&format!("show the log of container `{name}`"), &error)
            })?;
            let is_error = matches!(chunk, LogOutput::StdErr { .. });
            let [out, err] = &mut open;
            let buffer = if is_error { err } else { out };
            buffer.extend(chunk.into_bytes());
            let end = buffer.iter().rposition(|byte| *byte == b'\n');
            let whole: Vec<u8> = buffer.drain(..end.map_or(0, |end| end + 1)).collect();
            for bytes in whole.split_inclusive(|byte| *byte == b'\n') {
                hand(line(is_error, bytes));
            }
        }
        for (bytes, is_error) in open.into_iter().zip([false, true]) {
            if !bytes.is_empty() {
                hand(line(is_error, &bytes));
            }
        }
        Ok(())
    }
}
