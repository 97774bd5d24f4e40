//! Proves with packets who can reach whom: starts a process in every container of the environments, has all of them ask each
//! other, and compares the answers with the plan.

pub mod agent;
pub mod matrix;

use crate::error::Error;
use crate::plan::{Host, Plan};
use crate::state::State;
use crate::system::Machine;
use crate::system::docker::Engine;
use crate::verify::agent::{Answer, Ports, Target};
use futures_util::future::try_join_all;
use matrix::{Matrix, Node, Probe, Role};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// How long a process in a container may take for one answer; it asks for a second and a half.
const AGENT_TIMEOUT: Duration = Duration::from_secs(20);

/// Asks everybody about everybody.
///
/// # Errors
/// When a container cannot be entered.
pub async fn run(
    plan: &Plan,
    host: &Host,
    machine: &Machine,
    state: &State,
) -> Result<Matrix, Error> {
    let mut nodes = machines(plan, host);
    if let Some(engine) = &machine.engine {
        nodes.extend(containers(plan, engine, state).await?);
    }
    nodes.extend(elsewhere(plan, host));
    let starts = nodes.iter().enumerate().filter(|(_, node)| node.answers());
    let agents = starts.map(|(index, node)| Agent::start(index, node));
    let mut agents = try_join_all(agents).await?;
    let ports = |node: &Node| {
        let same = |agent: &&Agent| {
            let answering = nodes.get(agent.node);
            answering.is_some_and(|answering| answering.name == node.name)
        };
        agents.iter().find(same).map(|agent| agent.ports)
    };
    let targets: Vec<(usize, Target)> = nodes
        .iter()
        .enumerate()
        .map(|(index, node)| {
            let target = Target {
                address: node.address,
                ports: ports(node),
            };
            (index, target)
        })
        .collect();
    let asks = |agent: &Agent| nodes.get(agent.node).is_some_and(Node::asks);
    let asking = agents.iter_mut().filter(|agent| asks(agent));
    let rounds = asking.map(|agent| agent.ask(&nodes, &targets));
    let probes: Vec<Probe> = try_join_all(rounds).await?.into_iter().flatten().collect();
    Ok(Matrix::new(plan, nodes, &probes))
}

/// The gateway, this host and its shim.
fn machines(plan: &Plan, host: &Host) -> Vec<Node> {
    let node = |id: &str, role, name: &str, address| Node {
        id: id.to_owned(),
        role,
        name: name.to_owned(),
        address,
        process: None,
        is_ours: true,
        is_here: true,
    };
    vec![
        node("gateway", Role::Gateway, "gateway", plan.gateway),
        node("host", Role::Host, &host.name, host.address),
        node("host", Role::Shim, &plan.shim_name, host.shim),
    ]
}

/// The running containers on the environments' networks, whoever made them.
async fn containers(plan: &Plan, engine: &Engine, state: &State) -> Result<Vec<Node>, Error> {
    let mut found = Vec::new();
    for env in &plan.envs {
        let network = env.network();
        for container in &state.docker.containers {
            let endpoint = container.networks.get(&network);
            let address = endpoint.and_then(|endpoint| endpoint.address);
            // Of one that is paused nothing would come back, and its process would be paused too.
            if let Some(address) = address.filter(|_| container.state == "running") {
                found.push((env.name.clone(), container, address));
            }
        }
    }
    let nodes = found
        .into_iter()
        .map(|(env, container, address)| async move {
            let process = engine.process(&container.id).await?;
            Ok::<_, Error>(process.map(|process| Node {
                id: container.id.clone(),
                role: Role::Env(env),
                name: container.name.clone(),
                address,
                process: Some(process),
                is_ours: container.service().is_some(),
                is_here: true,
            }))
        });
    let mut nodes: Vec<Node> = try_join_all(nodes).await?.into_iter().flatten().collect();
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(nodes)
}

/// The services of other hosts. They may not run: only what answers somebody counts.
fn elsewhere(plan: &Plan, host: &Host) -> Vec<Node> {
    let envs = plan.envs.iter();
    let services = envs.flat_map(|env| env.services.iter());
    services
        .filter(|service| service.host != host.name)
        .filter_map(|service| {
            Some(Node {
                id: service.container(),
                role: Role::Env(service.env.clone()),
                name: format!("{} on {}", service.container(), service.host),
                address: service.address?,
                process: None,
                is_ours: true,
                is_here: false,
            })
        })
        .collect()
}

/// A process in a container, or on the host.
struct Agent {
    node: usize,
    name: String,
    ports: Ports,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    /// Ends with its standard input, or when it is dropped.
    _child: Child,
}

impl Agent {
    async fn start(node: usize, of: &Node) -> Result<Self, Error> {
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
            node,
            name: name.clone(),
            ports: serde_json::from_str(&line).map_err(|_| broken(name, ""))?,
            input,
            output,
            _child: child,
        })
    }

    /// What the process said before it ended.
    async fn why(name: &str, child: Child) -> Error {
        let output = tokio::time::timeout(AGENT_TIMEOUT, child.wait_with_output()).await;
        let output = output.ok().and_then(Result::ok).map(|output| output.stderr);
        let said = String::from_utf8_lossy(&output.unwrap_or_default()).into_owned();
        let what = said.lines().next().unwrap_or_default();
        broken(name, what.strip_prefix("error: ").unwrap_or(what))
    }

    /// Asks every target but itself.
    async fn ask(
        &mut self,
        nodes: &[Node],
        targets: &[(usize, Target)],
    ) -> Result<Vec<Probe>, Error> {
        let own = nodes.get(self.node).map(|node| node.id.as_str());
        let others = targets.iter().filter(|(index, _)| {
            let target = nodes.get(*index).map(|node| node.id.as_str());
            target != own
        });
        let (indices, asked): (Vec<usize>, Vec<Target>) = others.cloned().unzip();
        let name = &self.name;
        let mut line = serde_json::to_string(&asked).map_err(|_| broken(name, ""))?;
        line.push('\n');
        let written = self.input.write_all(line.as_bytes()).await;
        let answer = match written {
            Ok(()) => next(&mut self.output).await,
            Err(_) => Err(()),
        };
        let answers: Vec<Answer> = answer
            .ok()
            .and_then(|line| serde_json::from_str(&line).ok())
            .ok_or_else(|| broken(name, "it ended while it was asked"))?;
        let probe = |(target, answer)| Probe {
            source: self.node,
            target,
            answer,
        };
        Ok(indices.into_iter().zip(answers).map(probe).collect())
    }
}

async fn next(output: &mut Lines<BufReader<ChildStdout>>) -> Result<String, ()> {
    let line = tokio::time::timeout(AGENT_TIMEOUT, output.next_line()).await;
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
