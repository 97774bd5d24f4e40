//! Who asks whom, and which questions fit into the kernel's table of neighbours together. Pure.
//!
//! Isolation is a matter of slices, one for each environment, so what one container of an environment shows is shown for all
//! that are in its slice. What differs from container to container is whether it is in its slice. So it is enough that each
//! container asks somebody of each other environment and is asked by somebody of it: one that is in the wrong slice, or in
//! none, is then an end of a pair that is not as planned. The questions grow with the number of containers, not with its
//! square.

use super::matrix::{Node, Role};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// Up to how many containers of all environments, those of other hosts included, everybody asks everybody.
const SMALL: usize = 24;

/// How many neighbours all network namespaces of this machine together may get by one wave: the kernel's table has room for
/// 1,024 (`gc_thresh3` of arp(7)) and begins to collect at 512 (`gc_thresh2`), and others need it too.
const MOST_NEIGHBOURS: usize = 320;

/// In how many containers processes of ours run at a time: each has four descriptors here, of the 1,024 that a shell allows.
const MOST_AGENTS: usize = 64;

/// Who asks and who is asked; the nodes by their places.
pub type Question = (usize, usize);

/// All questions, so that those of the same containers are near each other.
pub fn questions(nodes: &[Node]) -> Vec<Question> {
    let guests = nodes.iter().filter(|node| is_guest(node)).count();
    if guests <= SMALL {
        return everybody(nodes);
    }
    let places: Vec<Places> = environments(nodes)
        .into_iter()
        .map(|role| Places::new(nodes, role))
        .collect();
    let mut ranked = to_machines(nodes, &places);
    for (from, own) in places.iter().enumerate() {
        ranked.extend(ring(&own.here));
        ranked.extend(meet(nodes, &own.here, &own.elsewhere));
        for (to, other) in places.iter().enumerate() {
            if from != to {
                ranked.extend(meet(nodes, &own.here, &other.here));
                ranked.extend(meet(nodes, &own.here, &other.elsewhere));
            }
        }
    }
    ranked.sort_unstable();
    let mut seen = BTreeSet::new();
    ranked
        .into_iter()
        .map(|(_, question)| question)
        .filter(|question| seen.insert(*question))
        .collect()
}

/// How many of the first questions fit together, one at least, when the kernel's table has room for `room` more neighbours.
pub fn wave(nodes: &[Node], questions: &[Question], room: usize) -> usize {
    // Half of the room is for others.
    let most = MOST_NEIGHBOURS.min(room / 2);
    let mut neighbours: BTreeSet<(&str, Ipv4Addr)> = BTreeSet::new();
    let mut agents: BTreeSet<&str> = BTreeSet::new();
    for (count, (source, target)) in questions.iter().enumerate() {
        let (Some(source), Some(target)) = (nodes.get(*source), nodes.get(*target)) else {
            continue;
        };
        neighbours.insert((&source.id, target.address));
        if target.answers() {
            neighbours.insert((&target.id, source.address));
        }
        let ends = [source, target].into_iter();
        agents.extend(ends.filter(|end| end.process.is_some()).map(|end| &*end.id));
        if count > 0 && (neighbours.len() > most || agents.len() > MOST_AGENTS) {
            return count;
        }
    }
    questions.len()
}

/// Whether it is in an environment.
fn is_guest(node: &Node) -> bool {
    matches!(node.role, Role::Env(_))
}

/// The environments that somebody is in, in the order of the nodes.
fn environments(nodes: &[Node]) -> Vec<&Role> {
    let mut roles: Vec<&Role> = Vec::new();
    for node in nodes.iter().filter(|node| is_guest(node)) {
        if !roles.contains(&&node.role) {
            roles.push(&node.role);
        }
    }
    roles
}

fn everybody(nodes: &[Node]) -> Vec<Question> {
    let sources = nodes.iter().enumerate().filter(|(_, node)| node.asks());
    sources
        .flat_map(|(source, asking)| {
            let others = nodes.iter().enumerate();
            let others = others.filter(|(_, asked)| asking.may_ask(asked));
            others.map(move |(target, _)| (source, target))
        })
        .collect()
}

/// A question, with the place among its environment's where it belongs.
type Ranked = (usize, Question);

/// Who is in an environment.
struct Places {
    /// On this host: they ask, and answer.
    here: Vec<usize>,
    /// On other hosts: they answer if they run.
    elsewhere: Vec<usize>,
}

impl Places {
    fn new(nodes: &[Node], role: &Role) -> Self {
        let places = |asks: bool| {
            let own = nodes.iter().enumerate();
            let own = own.filter(|(_, node)| node.role == *role && node.asks() == asks);
            own.map(|(place, _)| place).collect()
        };
        Self {
            here: places(true),
            elsewhere: places(false),
        }
    }
}

/// Everybody asks gateway, host and shim; the host asks everybody.
fn to_machines(nodes: &[Node], places: &[Places]) -> Vec<Ranked> {
    let machines = nodes.iter().enumerate();
    let machines: Vec<(usize, &Node)> = machines.filter(|(_, node)| !is_guest(node)).collect();
    let hosts = machines.iter().filter(|(_, node)| node.asks());
    let mut ranked = Vec::new();
    for (host, asking) in hosts {
        let others = machines.iter().filter(|(_, asked)| asking.may_ask(asked));
        ranked.extend(others.map(|(other, _)| (0, (*host, *other))));
        for own in places {
            let guests = own.here.iter().enumerate();
            let guests = guests.chain(own.elsewhere.iter().enumerate());
            ranked.extend(guests.map(|(rank, guest)| (rank, (*host, *guest))));
        }
    }
    for own in places {
        for (rank, guest) in own.here.iter().enumerate() {
            let may_ask = |asked: &Node| nodes.get(*guest).is_some_and(|node| node.may_ask(asked));
            let asked = machines.iter().filter(|(_, asked)| may_ask(asked));
            ranked.extend(asked.map(|(machine, _)| (rank, (*guest, *machine))));
        }
    }
    ranked
}

/// Each asks the next one, and the last the first.
fn ring(places: &[usize]) -> Vec<Ranked> {
    let next = places.iter().cycle().skip(1);
    let pairs = places.iter().zip(next).enumerate();
    pairs
        .filter(|(_, (source, target))| source != target)
        .map(|(rank, (source, target))| (rank, (*source, *target)))
        .collect()
}

/// Each of the sources asks, and each of the targets is asked: as many questions as the longer list has.
fn meet(nodes: &[Node], sources: &[usize], targets: &[usize]) -> Vec<Ranked> {
    let count = sources.len().max(targets.len());
    if sources.is_empty() || targets.is_empty() {
        return Vec::new();
    }
    let id = |place: usize| nodes.get(place).map(|node| node.id.as_str());
    let pair = |source: usize, target: usize| {
        let source = *sources.get(source % sources.len())?;
        let target = *targets.get(target % targets.len())?;
        // One that is in both environments does not ask itself.
        (id(source) != id(target)).then_some((source, target))
    };
    (0..count)
        .flat_map(|rank| {
            let pairs = match pair(rank, rank) {
                Some(pair) => [Some(pair), None],
                None => [pair(rank, rank + 1), pair(rank + 1, rank)],
            };
            let pairs = pairs.into_iter().flatten();
            pairs.map(move |pair| (rank, pair)).collect::<Vec<_>>()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The gateway, this host and its shim, then as many containers here and elsewhere as the lists say of each environment.
    fn nodes(here: &[usize], elsewhere: &[usize]) -> Vec<Node> {
        let node = |id: &str, role: Role, address: usize, is_guest: bool| Node {
            id: id.to_owned(),
            role,
            lan: None,
            name: id.to_owned(),
            address: Ipv4Addr::from_bits(u32::try_from(address).unwrap_or_default()),
            process: is_guest.then_some(1),
            slice: None,
            made_for: None,
            is_here: true,
        };
        let mut nodes = vec![
            node("gateway", Role::Gateway, 1, false),
            node("host", Role::Host, 2, false),
            node("host", Role::Shim, 3, false),
        ];
        for (is_here, counts) in [(true, here), (false, elsewhere)] {
            for (env, count) in counts.iter().enumerate() {
                for number in 0..*count {
                    let role = Role::Env(format!("env{env}"));
                    let id = format!("{env}-{number}-{is_here}");
                    let address = nodes.len() + 1;
                    nodes.push(Node {
                        is_here,
                        ..node(&id, role, address, is_here)
                    });
                }
            }
        }
        nodes
    }

    /// Everybody is a source and a target for each other environment, for its own, and for the machines.
    fn assert_complete(nodes: &[Node], questions: &[Question]) {
        let role = |place: usize| nodes.get(place).map(|node| &node.role);
        let roles = environments(nodes);
        let asks: BTreeSet<(usize, String)> = questions
            .iter()
            .filter_map(|(source, target)| Some((*source, role(*target)?.to_string())))
            .collect();
        let asked: BTreeSet<(usize, String)> = questions
            .iter()
            .filter_map(|(source, target)| Some((*target, role(*source)?.to_string())))
            .collect();
        for (place, node) in nodes.iter().enumerate().filter(|(_, node)| is_guest(node)) {
            let here = |role: &Role| {
                let own = |other: &&Node| other.role == *role && other.asks();
                let others = nodes.iter().filter(own);
                others.filter(|other| other.id != node.id).count()
            };
            for other in roles.iter().filter(|role| here(role) > 0) {
                let name = other.to_string();
                assert!(
                    asked.contains(&(place, name.clone())),
                    "{name} asks {node:?}"
                );
                assert!(!node.asks() || asks.contains(&(place, name)), "{node:?}");
            }
            assert!(asked.contains(&(place, "host".to_owned())), "{node:?}");
            for machine in ["gateway", "host", "shim"] {
                let does = asks.contains(&(place, machine.to_owned()));
                assert_eq!(does, node.asks(), "{node:?} asks {machine}");
            }
        }
        let distinct: BTreeSet<&Question> = questions.iter().collect();
        assert_eq!(distinct.len(), questions.len(), "nobody asks twice");
    }

    #[test]
    fn everybody_is_a_source_and_a_target_for_every_size() {
        for first in 1..=300 {
            for others in [vec![], vec![1], vec![first], vec![301 - first], vec![7, 40]] {
                let nodes = nodes(&[vec![first], others].concat(), &[]);
                let questions = questions(&nodes);
                assert_complete(&nodes, &questions);
                // Of a container: three machines and back, its next one, and at most two for each other environment.
                let guests = nodes.len() - 3;
                if guests > SMALL {
                    assert!(questions.len() <= 10 * guests + 2, "{}", questions.len());
                }
            }
        }
    }

    #[test]
    fn those_of_other_hosts_are_asked_too() {
        for elsewhere in [[1, 0], [3, 50], [200, 100]] {
            let nodes = nodes(&[20, 30], &elsewhere);
            let questions = questions(&nodes);
            assert_complete(&nodes, &questions);
            assert!(questions.len() <= 10 * (nodes.len() - 3));
        }
    }

    #[test]
    fn in_a_small_home_everybody_asks_everybody() {
        let nodes = nodes(&[8, 8], &[0, 8]);
        // Sixteen ask 23 others and three machines, the host asks 24 and the gateway.
        assert_eq!(questions(&nodes).len(), 16 * 26 + 25);
    }

    #[test]
    fn one_that_is_in_two_environments_does_not_ask_itself() {
        let mut nodes = nodes(&[20, 20], &[]);
        for twin in [5, 25] {
            if let Some(node) = nodes.get_mut(twin) {
                "twin".clone_into(&mut node.id);
            }
        }
        let questions = questions(&nodes);
        assert_complete(&nodes, &questions);
        assert!(!questions.contains(&(5, 25)) && !questions.contains(&(25, 5)));
    }

    /// The questions of each wave.
    fn waves<'a>(
        nodes: &[Node],
        mut questions: &'a [Question],
        room: usize,
    ) -> Vec<&'a [Question]> {
        let mut waves = Vec::new();
        while !questions.is_empty() {
            let (now, later) = questions.split_at(wave(nodes, questions, room));
            waves.push(now);
            questions = later;
        }
        waves
    }

    #[test]
    fn waves_are_few_and_small() {
        for (counts, room, most) in [
            (vec![150, 150], 1024, 9),
            (vec![300], 1024, 9),
            (vec![290, 10], 1024, 10),
            (vec![100, 100, 100], 1024, 12),
            (vec![150, 150], 200, 30),
            (vec![8, 8], 1024, 1),
            (vec![12, 12], 1024, 4),
        ] {
            let nodes = nodes(&counts, &[]);
            let questions = questions(&nodes);
            let waves = waves(&nodes, &questions, room);
            assert!(waves.len() <= most, "{counts:?}: {} waves", waves.len());
            for wave in waves {
                let ends: BTreeSet<usize> = wave.iter().flat_map(|(a, b)| [*a, *b]).collect();
                assert!(ends.len() <= MOST_AGENTS + 3, "{counts:?}: {}", ends.len());
            }
        }
    }

    #[test]
    fn a_full_table_stops_nobody() {
        let nodes = nodes(&[30], &[]);
        let questions = questions(&nodes);
        assert_eq!(waves(&nodes, &questions, 0).len(), questions.len());
    }
}
