//! What containers and networks were made from, in a form that a label keeps: by it a later run sees what changed. Pure.
//!
//! These bytes are on every container that homelab ever made. Whoever changes one of them has all containers that use the key made
//! anew, so each value has words of its own here, independent of how a type is printed elsewhere. What they look like comes
//! from the first version, which wrote some of them in the form of Rust's `Debug`.

use super::{Attachment, CompleteService, GivenFile, PortBinding, Restart, Service, Volume};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};

/// The version of what the Engine keeps under the label.
const VERSION: &str = "v1";

impl CompleteService {
    /// What the Engine is told of this service, key by key, as `v1;KEY=HASH;…`.
    ///
    /// Only keys that are set stand in it, so a key that a later version learns changes no fingerprint of a service that
    /// does not use it; and the diff can name the keys that changed. The address is not part of it: the container's own
    /// network settings have it. Nor are `depends_on` and `host`, which the Engine is not told.
    #[expect(clippy::too_many_lines, reason = "it names every key, once")]
    pub fn fingerprint(&self) -> String {
        let Service {
            name: _,
            span: _,
            env: _,
            compose_files: _,
            host: _,
            slice,
            is_isolated: _, // a container that was made before it counted stays until it is made anew
            replica: _,
            container_name,
            is_active: _,
            is_on_lan: _,
            address: _,
            lan,
            links,
            networks,
            network_mode,
            ports,
            has_idle_ports: _,
            image,
            build: _,
            pull_policy: _,
            command,
            entrypoint,
            environment,
            env_file: _, // its content is in `environment` by then
            volumes,
            files,
            restart,
            labels,
            label_file: _, // its content is in `labels` by then
            hostname,
            user,
            working_dir,
            cap_add,
            cap_drop,
            devices,
            privileged,
            init,
            read_only,
            tmpfs,
            shm_size,
            stop_signal,
            stop_grace_period,
            platform,
            engine_settings,
            accepted_bypasses: _,
            depends_on: _,
        } = &**self;
        let mut keys = Keys::default();
        keys.add("image", [image]);
        keys.add("slice", slice);
        keys.add_option("command", command.as_ref());
        keys.add_option("entrypoint", entrypoint.as_ref());
        keys.add(
            "environment",
            environment
                .iter()
                .filter_map(|(name, value)| Some(format!("{name}={}", value.as_ref()?))),
        );
        keys.add("volumes", volumes.iter().map(Volume::text));
        keys.add("restart", restart.fingerprint_word());
        keys.add("labels", labels.iter().map(|(k, v)| format!("{k}={v}")));
        keys.add("hostname", hostname);
        keys.add("user", user);
        keys.add("working_dir", working_dir);
        keys.add("cap_add", cap_add);
        keys.add("cap_drop", cap_drop);
        keys.add(
            "devices",
            devices
                .iter()
                .map(|d| format!("{}:{}:{}", d.source, d.target, d.permissions)),
        );
        keys.add("privileged", privileged.then_some("true"));
        keys.add("init", init.map(|init| init.to_string()));
        keys.add("read_only", read_only.then_some("true"));
        keys.add("tmpfs", tmpfs.iter().map(|(k, v)| format!("{k}:{v}")));
        keys.add("shm_size", shm_size.map(|size| size.to_string()));
        keys.add("stop_signal", stop_signal);
        keys.add(
            "stop_grace_period",
            stop_grace_period.map(|period| period.as_secs().to_string()),
        );
        // Keys of Compose files. Whoever adds one adds it here, under a name that was not there before.
        keys.add("container_name", container_name);
        keys.add("mac_address", lan.mac.as_ref().map(ToString::to_string));
        keys.add("aliases", &lan.aliases);
        keys.add("home_network", lan.settings());
        keys.add(
            "links",
            links.iter().map(|l| format!("{}:{}", l.service, l.alias)),
        );
        keys.add("networks", networks.iter().map(Attachment::text));
        keys.add("network_mode", network_mode);
        keys.add(
            "ports",
            ports.iter().flat_map(|(port, bindings)| {
                let bound = move |PortBinding { host, published }: &PortBinding| {
                    let host = host.as_ref().map(ToString::to_string);
                    format!("{}:{published}:{port}", host.unwrap_or_default())
                };
                bindings.iter().map(bound)
            }),
        );
        keys.add("configs", files.iter().map(GivenFile::text));
        keys.add("platform", platform);
        for (key, setting) in engine_settings {
            keys.add(key, [setting.value.to_string()]);
        }
        keys.finish()
    }
}

impl Restart {
    /// The policy in the words of the fingerprint; nothing for the default.
    fn fingerprint_word(self) -> Option<String> {
        match self {
            Self::No => None,
            Self::Always => Some("Always".to_owned()),
            Self::UnlessStopped => Some("UnlessStopped".to_owned()),
            Self::OnFailure(count) => Some(format!("OnFailure({count})")),
        }
    }
}

/// Keys with the hashes of their values, as they are written one behind the other.
pub(super) struct Keys {
    text: String,
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            text: VERSION.to_owned(),
        }
    }
}

impl Keys {
    /// All of them.
    pub(super) fn finish(self) -> String {
        self.text
    }

    pub(super) fn add<T: AsRef<str>>(&mut self, key: &str, values: impl IntoIterator<Item = T>) {
        let values: Vec<T> = values.into_iter().collect();
        if !values.is_empty() {
            self.add_option(key, Some(&values));
        }
    }

    /// An empty list is a value here: `entrypoint = []` takes the image's entrypoint away.
    pub(super) fn add_option<T: AsRef<str>>(&mut self, key: &str, values: Option<&Vec<T>>) {
        let Some(values) = values else { return };
        let mut hash = Sha256::new();
        for value in values {
            let value = value.as_ref();
            // The length in front keeps ["ab", "c"] and ["a", "bc"] apart.
            let length = u64::try_from(value.len()).unwrap_or(u64::MAX);
            hash.update(length.to_be_bytes());
            hash.update(value);
        }
        let _ = write!(self.text, ";{key}=");
        for byte in hash.finalize().iter().take(8) {
            let _ = write!(self.text, "{byte:02x}");
        }
    }
}

/// A text in quotes, with `\` before what would end it.
pub(super) fn quoted(text: impl Display) -> String {
    let text = text.to_string();
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\0' => quoted.push_str("\\0"),
            c if c.is_control() => {
                let _ = write!(quoted, "\\u{{{:x}}}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// `Some("…")` or `None`.
pub(super) fn option(value: Option<impl Display>) -> String {
    value.map_or("None".to_owned(), |value| {
        format!("Some({})", quoted(value))
    })
}

/// `["…", "…"]`
pub(super) fn list<T: Display>(values: &[T]) -> String {
    let quoted: Vec<String> = values.iter().map(quoted).collect();
    format!("[{}]", quoted.join(", "))
}

/// `{"…": "…"}`
pub(super) fn map<T: Display>(values: &BTreeMap<String, T>) -> String {
    let pair = |(name, value): (&String, &T)| format!("{}: {}", quoted(name), quoted(value));
    let pairs: Vec<String> = values.iter().map(pair).collect();
    format!("{{{}}}", pairs.join(", "))
}

/// `Some(1)` or `None`.
pub(super) fn number(value: Option<i64>) -> String {
    value.map_or("None".to_owned(), |value| format!("Some({value})"))
}

impl Attachment {
    /// What is set beside names and addresses.
    fn settings(&self) -> Option<String> {
        let Self {
            network: _,
            aliases: _,
            ipv4: _,
            ipv6: _,
            link_local,
            mac: _,
            gw_priority,
            options,
        } = self;
        let is_set = !link_local.is_empty() || gw_priority.is_some() || !options.is_empty();
        let (link_local, priority) = (list(link_local), number(*gw_priority));
        is_set.then(|| format!("{link_local} {priority} {}", map(options)))
    }

    /// All that makes it different from another one.
    fn text(&self) -> String {
        let Self {
            network,
            aliases,
            ipv4,
            ipv6,
            link_local,
            mac,
            gw_priority,
            options,
        } = self;
        format!(
            "{network} {} {} {} {} {} {} {}",
            list(aliases),
            option(ipv4.as_ref()),
            option(ipv6.as_ref()),
            list(link_local),
            option(mac.as_ref()),
            number(*gw_priority),
            map(options)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first version wrote `Debug`; what it wrote is on containers.
    #[test]
    fn texts_are_quoted_as_in_the_first_version() {
        for text in [
            "",
            "plain",
            "with \"quotes\" and \\",
            "a\nb\tc\r\0",
            "it's ä",
            "\u{1b}[0m",
        ] {
            assert_eq!(quoted(text), format!("{text:?}"));
            assert_eq!(option(Some(text)), format!("{:?}", Some(text)));
            assert_eq!(list(&[text, "b"]), format!("{:?}", [text, "b"]));
        }
        assert_eq!(option(None::<&str>), format!("{:?}", None::<&str>));
        assert_eq!(number(Some(-1)), format!("{:?}", Some(-1)));
        let pairs = BTreeMap::from([
            ("a".to_owned(), "b".to_owned()),
            ("c".to_owned(), String::new()),
        ]);
        assert_eq!(map(&pairs), format!("{pairs:?}"));
        assert_eq!(map(&BTreeMap::<String, String>::new()), "{}");
        let words = [
            Restart::No,
            Restart::Always,
            Restart::UnlessStopped,
            Restart::OnFailure(3),
        ];
        assert_eq!(
            words.map(|word| word.fingerprint_word().unwrap_or_else(|| "No".to_owned())),
            words.map(|word| format!("{word:?}"))
        );
    }
}
