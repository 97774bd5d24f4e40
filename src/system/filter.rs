//! Whether the kernel refuses what a slice denies, tried by datagrams that do not leave this machine.
//!
//! The filter belongs to the cgroup of who makes a socket, so a process like this one enters the scopes of containers and sends from
//! there. What it sends goes to `lo`: a socket that is bound to it takes every address for on-link, the filter looks at the
//! address on the way out, and what comes through is dropped on the way in, as nobody sends from 127.0.0.1 to another machine
//! (RFC 1122, 3.2.1.3). Its time to live is 1, so that no host would pass it on either.

use crate::cli::ProbeFilter;
use crate::error::Error;
use crate::state::Trial;
use crate::system::cgroups::CGROUPS;
use serde::{Deserialize, Serialize};
use socket2::{Domain, Socket, Type};
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use tokio::time::timeout;

/// How long the process may take; it takes the kernel some ten milliseconds to move one to another cgroup.
const TRIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a datagram goes that nobody hears (RFC 863).
const DISCARD: u16 = 9;

/// What came of it in one cgroup, as a process tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Outcome {
    /// The kernel refused to send to any of the addresses.
    Refused,
    /// It sent to this one.
    LetOut(Ipv4Addr),
    /// The cgroup is gone, or homelab may not.
    Unknown,
}

/// Sends to each address until one is let out.
///
/// # Errors
/// When the kernel does something else than to send or to refuse.
fn first_let_out(addresses: &[Ipv4Addr]) -> io::Result<Option<Ipv4Addr>> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    socket.bind_device(Some(b"lo"))?;
    socket.bind(&SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0).into())?;
    socket.set_ttl_v4(1)?;
    for address in addresses {
        match socket.send_to(&[], &SocketAddrV4::new(*address, DISCARD).into()) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            Err(error) => return Err(error),
            Ok(_) => return Ok(Some(*address)),
        }
    }
    Ok(None)
}

/// Those addresses that this process may send to: of the others a firewall of this host says the same as a filter would.
pub fn that_can_be_tried(addresses: &[Ipv4Addr]) -> Vec<Ipv4Addr> {
    let may_send = |address: &&Ipv4Addr| first_let_out(&[**address]).is_ok_and(|out| out.is_some());
    addresses.iter().filter(may_send).copied().collect()
}

/// What a process like this one does: tries the addresses where it is, or in each of the cgroups. Its lines go out by `print`.
pub fn answer(probe: &ProbeFilter, print: impl Fn(&str)) {
    let own = std::process::id().to_string();
    let outcome = || match first_let_out(&probe.denied) {
        Ok(None) => Outcome::Refused,
        Ok(Some(address)) => Outcome::LetOut(address),
        Err(_) => Outcome::Unknown,
    };
    let say = |outcome: Outcome| print(&serde_json::to_string(&outcome).unwrap_or_default());
    if probe.cgroups.is_empty() {
        say(outcome());
    }
    for cgroup in &probe.cgroups {
        let entered = fs::write(format!("{CGROUPS}{cgroup}/cgroup.procs"), &own);
        say(entered.map_or(Outcome::Unknown, |()| outcome()));
    }
}

/// How that process is called.
pub(super) fn arguments(denied: &[Ipv4Addr], cgroups: &[String]) -> Vec<String> {
    let denied: Vec<String> = denied.iter().map(ToString::to_string).collect();
    let denied = [
        "probe-filter".to_owned(),
        "--denied".to_owned(),
        denied.join(","),
    ];
    let cgroups = cgroups.iter().map(|cgroup| format!("--cgroup={cgroup}"));
    denied.into_iter().chain(cgroups).collect()
}

/// What its lines come to, one for each of these units; `None` when there is not one that says anything.
pub(super) fn trial<'a>(lines: &str, units: impl IntoIterator<Item = &'a str>) -> Option<Trial> {
    let outcomes = lines.lines().map(serde_json::from_str);
    let outcomes = outcomes.map(|outcome| outcome.unwrap_or(Outcome::Unknown));
    let mut all = None;
    for (unit, outcome) in units.into_iter().zip(outcomes) {
        match outcome {
            Outcome::LetOut(address) => {
                let unit = unit.to_owned();
                return Some(Trial::LetOut { address, unit });
            }
            Outcome::Refused => all = Some(Trial::Refused),
            Outcome::Unknown => {}
        }
    }
    all
}

/// Tries what a slice denies from within scopes in it, by their names and cgroups. `None` when it cannot be told.
///
/// # Errors
/// When this program cannot be started.
pub async fn try_scopes(
    denied: &[Ipv4Addr],
    scopes: &[(String, String)],
) -> Result<Option<Trial>, Error> {
    let denied = that_can_be_tried(denied);
    if denied.is_empty() || scopes.is_empty() {
        return Ok(None);
    }
    let cgroups: Vec<String> = scopes.iter().map(|(_, cgroup)| cgroup.clone()).collect();
    let mut command = Command::new("/proc/self/exe");
    command
        .args(arguments(&denied, &cgroups))
        .stdin(Stdio::null())
        .kill_on_drop(true);
    // One that was caught in a container that was paused is killed there.
    let output = timeout(TRIAL_TIMEOUT, command.output()).await;
    let Ok(output) = output else {
        return Ok(None);
    };
    let output = output.map_err(|_| {
        Error::new(
            "a process that tries the isolation could not be started",
            "see that /proc is mounted and that this host has memory left",
        )
    })?;
    let units = scopes.iter().map(|(unit, _)| unit.as_str());
    Ok(trial(&String::from_utf8_lossy(&output.stdout), units))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_unit_that_lets_out_is_enough() {
        let say = |outcomes: &[Outcome]| {
            let lines = outcomes
                .iter()
                .map(|one| serde_json::to_string(one).unwrap_or_default());
            lines.collect::<Vec<_>>().join("\n")
        };
        let address = Ipv4Addr::new(192, 168, 1, 200);
        let (refused, unknown) = (Outcome::Refused, Outcome::Unknown);
        let out = Some(Trial::LetOut {
            address,
            unit: "b".to_owned(),
        });
        let units = ["a", "b", "c"];
        assert_eq!(
            trial(&say(&[refused, Outcome::LetOut(address)]), units),
            out
        );
        assert_eq!(
            trial(&say(&[unknown, refused]), units),
            Some(Trial::Refused)
        );
        assert_eq!(trial(&say(&[unknown]), units), None);
        assert_eq!(trial("what is this", units), None);
        assert_eq!(trial("", units), None);
    }

    #[test]
    fn what_this_process_may_send_to_is_let_out_on_lo() {
        let address = Ipv4Addr::new(192, 0, 2, 1);
        assert_eq!(that_can_be_tried(&[address]), [address]);
    }
}
