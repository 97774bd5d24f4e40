//! What the answers mean: who reaches whom, beside what the plan says. Pure.

use crate::plan::{Isolation, Plan};
use crate::verify::agent::Answer;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What somebody is in the matrix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// The router.
    Gateway,
    /// This host by its own address.
    Host,
    /// This host by its shim's address.
    Shim,
    /// Somebody in an environment.
    Env(String),
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gateway => "gateway",
            Self::Host => "host",
            Self::Shim => "shim",
            Self::Env(name) => name,
        })
    }
}

/// Somebody who asks or is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Nodes of one id are one machine or container, which does not ask itself.
    pub id: String,
    /// What it is in the matrix.
    pub role: Role,
    /// The environment whose own LAN it is on; `None` on that of `[network]`.
    pub lan: Option<String>,
    /// Its name.
    pub name: String,
    /// Where it is asked.
    pub address: Ipv4Addr,
    /// The first process of the container.
    pub process: Option<u32>,
    /// The slice that process is in, or whatever else its cgroup is in.
    pub slice: Option<String>,
    /// The environment that homelab made a container for; none for that of somebody else.
    pub made_for: Option<String>,
    /// What is on another host may not run.
    pub is_here: bool,
}

impl Node {
    /// Whether a process of ours answers for it: not where homelab does not run.
    pub fn answers(&self) -> bool {
        self.asks() || self.role == Role::Shim
    }

    /// Whether the plan says anything of its asking somebody. Machines are asked on their own LAN, as between two LANs is a router,
    /// which has rules of its own; but this host reaches containers on each.
    pub fn may_ask(&self, asked: &Self) -> bool {
        let is_guest = |node: &Self| matches!(node.role, Role::Env(_));
        let is_same = self.lan == asked.lan || (is_guest(asked) && !is_guest(self));
        self.id != asked.id && (is_same || (is_guest(self) && is_guest(asked)))
    }

    /// Whether it asks: this host and the containers that run here do.
    pub fn asks(&self) -> bool {
        self.role == Role::Host || self.process.is_some()
    }
}

/// One question and its answer; the nodes by their places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Who asked.
    pub source: usize,
    /// Who was asked.
    pub target: usize,
    /// At which address, where it is not the one of the plan.
    pub over: Option<Ipv6Addr>,
    /// What came back.
    pub answer: Answer,
}

impl Probe {
    /// At which address somebody was asked.
    pub fn address(&self, target: &Node) -> IpAddr {
        self.over.map_or(target.address.into(), IpAddr::V6)
    }

    /// Whether it says something of a pair: over IPv6 nobody has to answer, so that only an answer does.
    fn counts(&self) -> bool {
        self.over.is_none() || self.answer.any()
    }
}

/// Whether packets come through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All pairs have an answer.
    Reached,
    /// No pair has one, although every target answered somebody else.
    Blocked,
    /// Some pairs have an answer.
    Partly,
    /// No pair has one, and a target answered nobody: it may be dead.
    NoAnswer,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reached => "reached",
            Self::Blocked => "blocked",
            Self::Partly => "partly",
            Self::NoAnswer => "no answer",
        })
    }
}

/// From one role to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Who asked.
    pub from: Role,
    /// Who was asked.
    pub to: Role,
    /// What the plan says: [`Verdict::Reached`] or [`Verdict::Blocked`].
    pub planned: Verdict,
    /// What was seen; `None` where nobody asked or nobody was there to be asked.
    pub seen: Option<Verdict>,
    /// The questions that it stands for.
    pub probes: Vec<Probe>,
}

impl Cell {
    /// Whether what was seen is not what was planned.
    pub fn differs(&self) -> bool {
        self.seen.is_some_and(|seen| seen != self.planned)
    }
}

/// Who reaches whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matrix {
    /// Everybody.
    pub nodes: Vec<Node>,
    /// The rows: this host, then the environments.
    pub from: Vec<Role>,
    /// The columns: gateway, host, shim, then the environments.
    pub to: Vec<Role>,
    /// Row by row.
    pub cells: Vec<Cell>,
}

impl Matrix {
    /// Sorts the answers into the matrix.
    pub fn new(plan: &Plan, nodes: Vec<Node>, probes: &[Probe]) -> Self {
        let envs: Vec<Role> = plan
            .envs
            .iter()
            .map(|env| Role::Env(env.name.clone()))
            .collect();
        let with_envs =
            |roles: &[Role]| -> Vec<Role> { roles.iter().chain(&envs).cloned().collect() };
        let from = with_envs(&[Role::Host]);
        let to = with_envs(&[Role::Gateway, Role::Host, Role::Shim]);
        let answers = |target: usize| probes.iter().any(|p| p.target == target && p.answer.any());
        let role = |index: usize| nodes.get(index).map(|node| &node.role);
        // On another host nobody of ours says whether the service runs.
        let counts = |target: usize| {
            nodes
                .get(target)
                .is_some_and(|node| node.is_here || answers(target))
        };
        let mut cells = Vec::new();
        for source in &from {
            for target in &to {
                let is_here = |probe: &&Probe| {
                    role(probe.source) == Some(source)
                        && role(probe.target) == Some(target)
                        && counts(probe.target)
                };
                let probes: Vec<Probe> = probes.iter().filter(is_here).copied().collect();
                cells.push(Cell {
                    from: source.clone(),
                    to: target.clone(),
                    planned: planned(plan, source, target),
                    seen: verdict(&probes, answers),
                    probes,
                });
            }
        }
        Self {
            nodes,
            from,
            to,
            cells,
        }
    }

    /// The cells that are not as planned.
    pub fn differences(&self) -> impl Iterator<Item = &Cell> {
        self.cells.iter().filter(|cell| cell.differs())
    }

    /// The environments that nobody was there to ask for.
    pub fn silent(&self) -> impl Iterator<Item = &Role> {
        let asks = |role: &Role| {
            self.nodes
                .iter()
                .any(|node| node.role == *role && node.asks())
        };
        self.from.iter().filter(move |role| !asks(role))
    }

    /// Whether anybody of a role reached anybody of another one.
    pub fn reaches(&self, from: &Role, to: &Role) -> bool {
        let mut cells = self.cells.iter();
        let cell = cells.find(|cell| cell.from == *from && cell.to == *to);
        cell.is_some_and(|cell| cell.probes.iter().any(|probe| probe.answer.any()))
    }

    /// Whether it answered nobody, and that is its own doing: somebody else than this host asked it who may, or it reached
    /// nobody either.
    pub fn is_silent(&self, node: &Node) -> bool {
        let is_it = |place: usize| self.nodes.get(place).is_some_and(|end| end.id == node.id);
        let mut may = false;
        let mut reaches = false;
        for cell in &self.cells {
            for probe in &cell.probes {
                if is_it(probe.target) && probe.answer.any() {
                    return false;
                }
                may |= is_it(probe.target)
                    && cell.from != Role::Host
                    && cell.planned == Verdict::Reached;
                reaches |= is_it(probe.source) && probe.answer.any();
            }
        }
        may || !reaches
    }

    /// Those questions of a cell whose answers are not as planned.
    pub fn wrong<'a>(
        &'a self,
        cell: &'a Cell,
    ) -> impl Iterator<Item = (&'a Node, &'a Node, &'a Probe)> {
        let is_wrong = |probe: &&Probe| probe.answer.any() != (cell.planned == Verdict::Reached);
        let ends = |probe: &'a Probe| {
            let (source, target) = (self.nodes.get(probe.source)?, self.nodes.get(probe.target)?);
            Some((source, target, probe))
        };
        // Where nothing came through because a target answered nobody, that one is what is wrong.
        let is_unproven = cell.seen == Some(Verdict::NoAnswer);
        let answers = move |target: usize| {
            let mut probes = self.cells.iter().flat_map(|cell| &cell.probes);
            probes.any(|probe| probe.target == target && probe.answer.any())
        };
        cell.probes
            .iter()
            .filter(|probe| probe.counts())
            .filter(move |probe| is_wrong(probe) || is_unproven && !answers(probe.target))
            .filter_map(ends)
    }
}

/// Whether the plan keeps the two apart.
pub fn are_apart(plan: &Plan, from: &Role, to: &Role) -> bool {
    planned(plan, from, to) == Verdict::Blocked
}

fn planned(plan: &Plan, from: &Role, to: &Role) -> Verdict {
    match (from, to) {
        (Role::Env(from), Role::Env(to)) if from != to && plan.isolation == Isolation::Enforced => {
            Verdict::Blocked
        }
        _ => Verdict::Reached,
    }
}

fn verdict(probes: &[Probe], answers: impl Fn(usize) -> bool) -> Option<Verdict> {
    let probes: Vec<&Probe> = probes.iter().filter(|probe| probe.counts()).collect();
    if probes.is_empty() {
        return None;
    }
    let reached = probes.iter().filter(|probe| probe.answer.any()).count();
    Some(if reached == probes.len() {
        Verdict::Reached
    } else if reached > 0 {
        Verdict::Partly
    } else if probes.iter().all(|probe| answers(probe.target)) {
        Verdict::Blocked
    } else {
        Verdict::NoAnswer
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::PlanFiles;

    fn real_plan(isolation: &str) -> Plan {
        let source = include_str!("../../homelab.toml").replace("enforced", isolation);
        PlanFiles::new(source).plan()
    }

    /// The host, two containers of production and one of preproduction, and one of preproduction on the other host.
    fn nodes() -> Vec<Node> {
        let node = |name: &str, role: Role, is_here: bool| Node {
            id: name.to_owned(),
            role,
            lan: None,
            name: name.to_owned(),
            address: Ipv4Addr::LOCALHOST,
            process: is_here.then_some(1),
            slice: None,
            made_for: None,
            is_here,
        };
        let env = |name: &str| Role::Env(name.to_owned());
        vec![
            node("host", Role::Host, true),
            node("a", env("prod"), true),
            node("b", env("prod"), true),
            node("c", env("preprod"), true),
            node("d", env("preprod"), false),
        ]
    }

    /// The matrix when these pairs have an answer.
    fn matrix(isolation: &str, reached: &[(usize, usize)]) -> Matrix {
        let mut probes = Vec::new();
        for source in 0..4 {
            for target in (0..5).filter(|target| *target != source) {
                let ping = reached.contains(&(source, target));
                let answer = Answer {
                    ping,
                    ..Answer::default()
                };
                probes.push(Probe {
                    source,
                    target,
                    over: None,
                    answer,
                });
            }
        }
        Matrix::new(&real_plan(isolation), nodes(), &probes)
    }

    fn seen(matrix: &Matrix, from: &str, to: &str) -> String {
        let cell = matrix
            .cells
            .iter()
            .find(|cell| cell.from.to_string() == from && cell.to.to_string() == to);
        let seen = cell.and_then(|cell| cell.seen);
        seen.map_or("-".to_owned(), |seen| seen.to_string())
    }

    fn differences(matrix: &Matrix) -> Vec<String> {
        let name = |cell: &Cell| format!("{} to {}", cell.from, cell.to);
        matrix.differences().map(name).collect()
    }

    const GOOD: [(usize, usize); 8] = [
        (0, 1),
        (0, 2),
        (0, 3),
        (1, 0),
        (2, 0),
        (3, 0),
        (1, 2),
        (2, 1),
    ];

    #[test]
    fn what_is_as_planned_does_not_differ() {
        let matrix = matrix("enforced", &GOOD);
        assert_eq!(differences(&matrix), Vec::<String>::new());
        assert_eq!(seen(&matrix, "prod", "preprod"), "blocked");
        assert_eq!(seen(&matrix, "prod", "prod"), "reached");
        // The other host's service answered nobody, so it says nothing.
        assert_eq!(seen(&matrix, "preprod", "preprod"), "-");
        assert_eq!(seen(&matrix, "host", "host"), "-");
    }

    #[test]
    fn one_leak_among_many_pairs_is_seen() {
        let leak = [GOOD.as_slice(), &[(2, 3)]].concat();
        let matrix = matrix("enforced", &leak);
        assert_eq!(differences(&matrix), ["prod to preprod"]);
        assert_eq!(seen(&matrix, "prod", "preprod"), "partly");
        let wrong = matrix.differences().flat_map(|cell| matrix.wrong(cell));
        let wrong: Vec<_> = wrong
            .map(|(from, to, _)| (from.name.as_str(), to.name.as_str()))
            .collect();
        assert_eq!(wrong, [("b", "c")]);
    }

    #[test]
    fn over_ipv6_an_answer_says_something_and_silence_nothing() {
        let over = |ping| {
            let mut probes = matrix("enforced", &GOOD).cells;
            let mut probes: Vec<Probe> = probes.drain(..).flat_map(|cell| cell.probes).collect();
            probes.push(Probe {
                source: 1,
                target: 3,
                over: Some(Ipv6Addr::LOCALHOST),
                answer: Answer {
                    ping,
                    ..Answer::default()
                },
            });
            Matrix::new(&real_plan("enforced"), nodes(), &probes)
        };
        assert_eq!(differences(&over(false)), Vec::<String>::new());
        assert_eq!(seen(&over(false), "prod", "preprod"), "blocked");
        let leak = over(true);
        assert_eq!(differences(&leak), ["prod to preprod"]);
        let mut wrong = leak.differences().flat_map(|cell| leak.wrong(cell));
        let wrong = wrong.next().map(|(from, to, probe)| {
            (
                from.name.as_str(),
                to.name.as_str(),
                probe.address(to).to_string(),
            )
        });
        assert_eq!(wrong, Some(("a", "c", "::1".to_owned())));
    }

    #[test]
    fn a_dead_target_proves_nothing() {
        let without_c: Vec<_> = GOOD
            .into_iter()
            .filter(|(_, target)| *target != 3)
            .collect();
        let matrix = matrix("enforced", &without_c);
        assert_eq!(seen(&matrix, "prod", "preprod"), "no answer");
        assert_eq!(differences(&matrix), ["host to preprod", "prod to preprod"]);
    }

    #[test]
    fn of_dead_targets_only_those_are_named() {
        let without_c = GOOD.into_iter().filter(|(_, target)| *target != 3);
        let matrix = matrix("enforced", &without_c.collect::<Vec<_>>());
        let wrong = matrix.differences().flat_map(|cell| matrix.wrong(cell));
        assert!(wrong.into_iter().all(
            |(_, target, _)| target.name == "c" && !matrix.reaches(&target.role, &target.role)
        ));
        let is_silent = |place: usize| matrix.nodes.get(place).map(|node| matrix.is_silent(node));
        // It reaches the host, and only the host, whose way may be broken, could have had an answer.
        assert_eq!(is_silent(3), Some(false));
        assert_eq!(is_silent(4), Some(true));
        assert_eq!(is_silent(1), Some(false));
    }

    #[test]
    fn who_answers_its_own_environment_is_not_silent() {
        let only = |target: usize| GOOD.into_iter().filter(move |pair| pair.1 != target);
        let matrix = matrix("enforced", &only(2).collect::<Vec<_>>());
        let is_silent = |place: usize| matrix.nodes.get(place).map(|node| matrix.is_silent(node));
        assert_eq!([is_silent(1), is_silent(2)], [Some(false), Some(true)]);
    }

    #[test]
    fn another_hosts_service_counts_when_it_lives() {
        let leak = [GOOD.as_slice(), &[(1, 4)]].concat();
        assert_eq!(
            differences(&matrix("enforced", &leak)),
            ["host to preprod", "prod to preprod", "preprod to preprod"]
        );
    }

    #[test]
    fn without_isolation_everybody_shall_reach_everybody() {
        let matrix = matrix("off", &GOOD);
        assert_eq!(differences(&matrix), ["prod to preprod", "preprod to prod"]);
    }
}
