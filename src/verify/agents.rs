//! The processes in containers, from outside: how they are started, told what to do, and ended.

use super::agent::{Answer, Order, Place, Target};
use super::matrix::Node;
use crate::error::Error;
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

/// How long a process in a container may take for one answer; it asks for a second and a half.
const AGENT_TIMEOUT: Duration = Duration::from_secs(20);

/// A process in a container, or on the host.
pub struct Agent {
    name: String,
    /// Where it answers.
    pub place: Place,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    /// Ends with its standard input, or when it is dropped.
    child: Child,
}

impl Agent {
    /// Starts it and waits until it answers others.
    ///
    /// # Errors
    /// When the container is gone, or homelab may not.
    pub async fn start(of: &Node) -> Result<Self, Error> {
        let Node {
            name,
            process,
            address,
            ..
        } = of;
        let mut command = Command::new("/proc/self/exe");
        command.args(["probe", "--address", &address.to_string()]);
        if let Some(process) = process {
            command.args(["--process", &process.to_string()]);
        }
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .kill_on_drop(true)
            .spawn()
            .map_err(|_| broken(name, ""))?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(broken(name, ""));
        };
        let mut output = BufReader::new(output).lines();
        let Ok(line) = next(&mut output).await else {
            return Err(Self::why(name, child).await);
        };
        Ok(Self {
            name: name.clone(),
            place: serde_json::from_str(&line).map_err(|_| broken(name, ""))?,
            input,
            output,
            child,
        })
    }

    /// What the process said before it ended.
    async fn why(name: &str, child: Child) -> Error {
        let output = timeout(AGENT_TIMEOUT, child.wait_with_output()).await;
        let output = output.ok().and_then(Result::ok).map(|output| output.stderr);
        let said = String::from_utf8_lossy(&output.unwrap_or_default()).into_owned();
        let what = said.lines().next().unwrap_or_default();
        broken(name, what.strip_prefix("error: ").unwrap_or(what))
    }

    /// Asks each target.
    ///
    /// # Errors
    /// When the process does not answer.
    pub async fn ask(&mut self, targets: Vec<Target>) -> Result<Vec<Answer>, Error> {
        if targets.is_empty() {
            return Ok(Vec::new());
        }
        self.order(&Order::Ask(targets)).await
    }

    /// Takes these neighbours out of the kernel's table, as far as they are there since the process began; how many that
    /// were.
    ///
    /// # Errors
    /// When the process does not answer.
    pub async fn forget(&mut self, neighbours: BTreeSet<Ipv4Addr>) -> Result<usize, Error> {
        if neighbours.is_empty() {
            return Ok(0);
        }
        self.order(&Order::Forget(neighbours)).await
    }

    async fn order<T: DeserializeOwned>(&mut self, order: &Order) -> Result<T, Error> {
        let name = &self.name;
        let mut line = serde_json::to_string(order).map_err(|_| broken(name, ""))?;
        line.push('\n');
        let written = self.input.write_all(line.as_bytes()).await;
        let answer = match written {
            Ok(()) => next(&mut self.output).await,
            Err(_) => Err(()),
        };
        answer
            .ok()
            .and_then(|line| serde_json::from_str(&line).ok())
            .ok_or_else(|| broken(name, "it ended while it was asked"))
    }

    /// Ends the process and waits for that: nothing of it is in the container then.
    pub async fn end(mut self) {
        drop(self.input);
        // One that does not end is killed when it is dropped.
        let _ = timeout(AGENT_TIMEOUT, self.child.wait()).await;
    }
}

async fn next(output: &mut Lines<BufReader<ChildStdout>>) -> Result<String, ()> {
    let line = timeout(AGENT_TIMEOUT, output.next_line()).await;
    line.ok().and_then(Result::ok).flatten().ok_or(())
}

fn broken(name: &str, why: &str) -> Error {
    let why = if why.is_empty() {
        "its process did not answer"
    } else {
        why
    };
    Error::new(
        format!("`{name}` cannot be probed: {why}"),
        "run homelab as root, while no container comes or goes",
    )
}
