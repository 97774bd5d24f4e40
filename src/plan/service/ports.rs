//! Ports of the host that lead to a service. Pure.

use crate::error::Diagnostic;
use crate::input::fields::{Fields, integer};
use crate::input::node::Value;
use crate::plan::{Problems, Written};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;

/// A port of the host that leads to one of the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortBinding {
    /// The address of the host where it is open; all of them when there is none.
    pub host: Option<Written<IpAddr>>,
    /// The port, or a range of which the Engine takes a free one; the Engine chooses when it is empty.
    pub published: String,
}

/// A port of the container with its protocol, like `53/udp`, and where it is published.
type Port = (String, PortBinding);

/// The ports of a service, by port and protocol of the container.
pub(super) fn read(
    fields: &mut Fields,
    problems: &mut Problems,
) -> BTreeMap<String, Vec<PortBinding>> {
    let path = format!("{}.ports", fields.path);
    let mut all: BTreeMap<String, Vec<PortBinding>> = BTreeMap::new();
    for item in fields.items("ports", problems) {
        let read = match &item.value {
            Value::Map(map) => {
                let mut keys = Fields::new(path.as_str(), Some(map));
                let read = long(&mut keys, problems);
                keys.leave_alone(&["name", "mode", "app_protocol"]);
                keys.finish(|_| None, problems);
                read
            }
            _ => item.scalar().and_then(|text| short(&text)),
        };
        let Some(ports) = read else {
            problems.push(
                Diagnostic::error_at(item.span.clone(), "this is not a port")
                    .hint("write `8080:80`, `127.0.0.1:8080:80` or `53:53/udp`"),
            );
            continue;
        };
        for (inside, binding) in ports {
            all.entry(inside).or_default().push(binding);
        }
    }
    all
}

fn long(keys: &mut Fields, problems: &mut Problems) -> Option<Vec<Port>> {
    let target = keys.take("target").and_then(integer)?;
    let protocol = keys.plain("protocol", problems);
    let protocol = protocol.unwrap_or_else(|| "tcp".to_owned());
    let hint = "an address of this host, like `127.0.0.1`";
    let host = keys.checked("host_ip", "an address", hint, Written::parse, problems);
    let published = keys.plain("published", problems).unwrap_or_default();
    u16::try_from(target).ok()?;
    if !published.is_empty() {
        range(&published)?;
    }
    Some(vec![(
        format!("{target}/{protocol}"),
        PortBinding { host, published },
    )])
}

fn short(text: &str) -> Option<Vec<Port>> {
    let (text, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (rest, inside) = text.rsplit_once(':').unwrap_or(("", text));
    let (host, outside) = rest.rsplit_once(':').unwrap_or(("", rest));
    let inside = range(inside)?;
    let host = host.trim_matches(['[', ']']);
    let host = match host {
        "" => None,
        host => Some(Written::parse(host).ok()?),
    };
    let port = |inside: u16, published: String| {
        let host = host.clone();
        (
            format!("{inside}/{protocol}"),
            PortBinding { host, published },
        )
    };
    if outside.is_empty() {
        return Some(inside.map(|inside| port(inside, String::new())).collect());
    }
    let from = range(outside)?;
    if inside.len() == 1 && from.len() > 1 {
        // The Engine takes a free one of them.
        return Some(vec![port(*inside.start(), outside.to_owned())]);
    }
    if inside.len() != from.len() {
        return None;
    }
    let pairs = inside.zip(from);
    Some(
        pairs
            .map(|(inside, outside)| port(inside, outside.to_string()))
            .collect(),
    )
}

fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some(first..=last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> Option<String> {
        let ports = short(text)?.into_iter().map(|(inside, binding)| {
            let host = binding.host.map(|host| host.to_string());
            format!(
                "{}:{}:{inside}",
                host.unwrap_or_default(),
                binding.published
            )
        });
        Some(ports.collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn short_ports_are_those_of_compose() {
        for (text, expected) in [
            ("80", "::80/tcp"),
            ("8080:80", ":8080:80/tcp"),
            ("127.0.0.1:53:53/udp", "127.0.0.1:53:53/udp"),
            ("[::1]:8080:80", "::1:8080:80/tcp"),
            ("8000-8001:80-81", ":8000:80/tcp :8001:81/tcp"),
            ("8000-8009:80", ":8000-8009:80/tcp"),
        ] {
            assert_eq!(written(text).as_deref(), Some(expected), "{text}");
        }
        for wrong in [
            "",
            "http",
            "80:90000",
            "8000-8001:80-82",
            "90-80",
            "nowhere:1:2",
        ] {
            assert_eq!(written(wrong), None, "{wrong}");
        }
    }
}
