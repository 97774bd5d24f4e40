//! Logs of containers, line by line.

mod frames;
mod lines;

pub use lines::LogPiece;

use super::connect::in_pieces;
use super::{Engine, LONGEST_MESSAGE, engine_error, with_timeout};
use crate::error::Error;
use frames::{Frames, Writer};
use futures_util::TryStreamExt;
use lines::Lines;
use std::cell::Cell;
use std::ops::ControlFlow;

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

impl Engine {
    /// Hands the lines of a container's log on, until it ends or nobody wants more of it.
    ///
    /// # Errors
    /// When its logging driver cannot be read, or the Engine fails.
    pub async fn logs(
        &self,
        name: &str,
        tail: &Tail,
        mut hand: impl FnMut(LogPiece) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let what = format!("show the log of container `{name}`");
        let container = with_timeout(self.client.inspect_container(name, None)).await;
        let container = container.map_err(|error| engine_error(&what, &error))?;
        let has_terminal = container.config.and_then(|config| config.tty) == Some(true);
        // bollard 0.21.1 takes logs apart itself, and searches all that it has of a line for its end whenever more comes. What it
        // hands on as it comes is the file system of a container.
        let path = path(name, tail);
        let (client, allowance) = in_pieces(self.client.clone(), self.api, Some(path));
        let mut chunks = std::pin::pin!(client.export_container(name));
        let mut frames = Frames::new(has_terminal);
        let [mut out, mut err] = [Lines::new(false), Lines::new(true)];
        let mut complaint = Vec::new();
        let is_wanted = Cell::new(true);
        let mut next = |piece| {
            if is_wanted.get() {
                is_wanted.set(hand(piece).is_continue());
            }
        };
        loop {
            let chunk = chunks.try_next();
            let chunk = if tail.follow {
                chunk.await
            } else {
                with_timeout(chunk).await
            };
            let Some(chunk) = chunk.map_err(|error| engine_error(&what, &error))? else {
                break;
            };
            allowance.renew();
            frames.push(&chunk, |writer, bytes| match writer {
                Writer::Out => out.push(bytes, &mut next),
                Writer::Err => err.push(bytes, &mut next),
                Writer::Engine => {
                    complaint.extend(bytes.iter().take(LONGEST_MESSAGE - complaint.len()));
                }
            });
            if !is_wanted.get() {
                return Ok(());
            }
        }
        out.finish(&mut next);
        err.finish(&mut next);
        if complaint.is_empty() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&complaint);
        Err(Error::new(
            format!("the Engine did not {what} to its end: {}", said.trim()),
            "a log may be damaged by a power cut; a container that is made anew has a new one: `homelab env-up --force-recreate`",
        ))
    }
}

/// What the Engine is asked for.
fn path(name: &str, tail: &Tail) -> String {
    let Tail {
        follow,
        lines,
        timestamps,
        since,
    } = tail;
    let lines = lines.map_or("all".to_owned(), |lines| lines.to_string());
    let since = since.unwrap_or(0);
    format!(
        "/containers/{name}/logs?stdout=true&stderr=true&follow={follow}&timestamps={timestamps}&since={since}&tail={lines}"
    )
}
