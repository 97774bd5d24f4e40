//! Settings that the Engine takes as they stand: one row each, and a few that need a hand. Pure.

use super::values::{parse_bytes, parse_cpus, parse_duration};
use super::{ApiSection, EngineSetting};
use crate::error::Diagnostic;
use crate::input::fields::Fields;
use crate::input::node::{Node, Value};
use crate::input::problem::Span;
use crate::plan::Problems;
use serde_json::{Map as JsonMap, Value as Json, json};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// How a value is written in the file.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Text,
    /// Text of a form.
    Formed(Form),
    Flag,
    /// From the first to the last.
    Whole(i64, i64),
    /// With a unit, or -1 for no limit.
    Bytes,
    /// Microseconds, or a duration.
    Microseconds,
    /// One or a list.
    Words,
    /// One or a list, each of a form. An empty one is what a variable leaves that is not set.
    FormedWords(Form),
    /// By name.
    Pairs,
}

/// What a text must look like: a check, what it is then, and how to write it.
#[derive(Clone, Copy)]
pub(super) struct Form {
    fits: fn(&str) -> bool,
    wanted: &'static str,
    hint: &'static str,
}

const ADDRESS: Form = Form {
    fits: |text| text.parse::<IpAddr>().is_ok(),
    wanted: "an address",
    hint: "write it like `192.168.1.1` or `fd00::1`",
};

const ONE_WORD: Form = Form {
    fits: |text| !text.contains(char::is_whitespace),
    wanted: "one word",
    hint: "write several as a list",
};

/// cpuset(7), "List format".
const PROCESSORS: Form = Form {
    fits: |text| {
        let is_number = |part: &str| part.parse::<u32>().is_ok();
        text.split(',')
            .all(|part| match part.trim().split_once('-') {
                Some((first, last)) => is_number(first) && is_number(last),
                None => is_number(part.trim()),
            })
    },
    wanted: "a list of processors",
    hint: "write it like `0`, `0-3` or `0,2`",
};

/// The key of the file, the field of the API (`HostConfig`, or the container where marked), and how it is written. The
/// names of the fields are those of the Engine API, `POST /containers/create`.
const PASSTHROUGH: [(&str, &str, Kind); 30] = [
    ("annotations", "Annotations", Kind::Pairs),
    ("cgroup", "CgroupnsMode", Kind::Text),
    ("cgroup_parent", "CgroupParent", Kind::Text),
    ("cpu_period", "CpuPeriod", Kind::Microseconds),
    ("cpu_quota", "CpuQuota", Kind::Whole(-1, i64::MAX)),
    ("cpu_rt_period", "CpuRealtimePeriod", Kind::Microseconds),
    ("cpu_rt_runtime", "CpuRealtimeRuntime", Kind::Microseconds),
    ("cpu_shares", "CpuShares", Kind::Whole(0, i64::MAX)),
    ("cpuset", "CpusetCpus", Kind::Formed(PROCESSORS)),
    ("device_cgroup_rules", "DeviceCgroupRules", Kind::Words),
    ("dns", "Dns", Kind::FormedWords(ADDRESS)),
    ("dns_opt", "DnsOptions", Kind::FormedWords(ONE_WORD)),
    ("dns_search", "DnsSearch", Kind::FormedWords(ONE_WORD)),
    ("domainname", "Domainname", Kind::Formed(ONE_WORD)),
    ("group_add", "GroupAdd", Kind::FormedWords(ONE_WORD)),
    ("ipc", "IpcMode", Kind::Text),
    ("mem_swappiness", "MemorySwappiness", Kind::Whole(-1, 100)),
    ("memswap_limit", "MemorySwap", Kind::Bytes),
    ("oom_kill_disable", "OomKillDisable", Kind::Flag),
    ("oom_score_adj", "OomScoreAdj", Kind::Whole(-1000, 1000)),
    ("pid", "PidMode", Kind::Text),
    ("runtime", "Runtime", Kind::Text),
    ("security_opt", "SecurityOpt", Kind::Words),
    ("stdin_open", "OpenStdin", Kind::Flag),
    ("storage_opt", "StorageOpt", Kind::Pairs),
    ("sysctls", "Sysctls", Kind::Pairs),
    ("tty", "Tty", Kind::Flag),
    ("userns_mode", "UsernsMode", Kind::Text),
    ("uts", "UTSMode", Kind::Text),
    ("volumes_from", "VolumesFrom", Kind::Words),
];

/// Fields of the container itself; all others are in `HostConfig`.
const OF_CONTAINER: [&str; 5] = [
    "Domainname",
    "OpenStdin",
    "Tty",
    "ExposedPorts",
    "Healthcheck",
];

/// Collects the settings that the Engine takes as they stand.
pub(super) struct SettingsReader<'a> {
    pub settings: BTreeMap<&'static str, EngineSetting>,
    pub problems: &'a mut Problems,
}

impl SettingsReader<'_> {
    pub(super) fn set(&mut self, key: &'static str, field: &'static str, value: Json) {
        let section = if OF_CONTAINER.contains(&field) {
            ApiSection::Config
        } else {
            ApiSection::Host
        };
        let setting = EngineSetting {
            section,
            field,
            value,
        };
        self.settings.insert(key, setting);
    }

    pub(super) fn wrong(&mut self, span: &Span, what: String, hint: &str) {
        self.problems
            .push(Diagnostic::error_at(span.clone(), what).hint(hint));
    }

    /// Everything that stands in a service and is told as it is.
    pub(super) fn read(&mut self, fields: &mut Fields) {
        for (key, field, kind) in PASSTHROUGH {
            if let Some(value) = self.passthrough(fields, key, kind) {
                self.set(key, field, value);
            }
        }
        self.expose(fields);
        self.extra_hosts(fields);
        self.health(fields);
        self.logging(fields);
        self.ulimits(fields);
        self.block_io(fields);
        self.resources(fields);
    }

    pub(super) fn passthrough(
        &mut self,
        fields: &mut Fields,
        key: &'static str,
        kind: Kind,
    ) -> Option<Json> {
        match kind {
            Kind::Text => fields.plain(key, self.problems).map(|text| json!(text)),
            Kind::Formed(form) => {
                let (text, span) = fields.text(key, self.problems)?;
                self.check_form(&text, &span, form);
                Some(json!(text))
            }
            Kind::Flag => {
                let flag = fields.boolean(key, self.problems)?;
                flag.then_some(json!(true))
            }
            Kind::Whole(first, last) => {
                let span = fields.take(key)?.span.clone();
                let number = fields.integer(key, self.problems)?;
                self.check_range(number, &span, first, last);
                Some(json!(number))
            }
            Kind::Bytes => {
                let (text, span) = fields.text(key, self.problems)?;
                if text.trim() == "-1" {
                    return Some(json!(-1));
                }
                self.bytes(&text, &span).map(|bytes| json!(bytes))
            }
            Kind::Microseconds => {
                let (text, span) = fields.text(key, self.problems)?;
                let value = text.parse::<i64>().ok().or_else(|| {
                    let duration = parse_duration(&text)?;
                    i64::try_from(duration.as_micros()).ok()
                });
                if value.is_none() {
                    let what = format!("`{text}` is not a time");
                    self.wrong(&span, what, "write microseconds, or a duration like `50ms`");
                }
                value.map(|value| json!(value))
            }
            Kind::Words | Kind::FormedWords(_) => {
                let words = fields.one_or_many(key, self.problems).unwrap_or_default();
                if let Kind::FormedWords(form) = kind {
                    for (word, span) in &words {
                        self.check_form(word, span, form);
                    }
                }
                let words: Vec<String> = words.into_iter().map(|(word, _)| word).collect();
                (!words.is_empty()).then(|| json!(words))
            }
            Kind::Pairs => {
                let pairs = fields.pairs(key, self.problems);
                (!pairs.is_empty()).then(|| json!(pairs))
            }
        }
    }

    fn check_form(&mut self, text: &str, span: &Span, form: Form) {
        let Form { fits, wanted, hint } = form;
        if !text.is_empty() && !fits(text) {
            self.wrong(span, format!("`{text}` is not {wanted}"), hint);
        }
    }

    fn check_range(&mut self, number: i64, span: &Span, first: i64, last: i64) {
        if (first..=last).contains(&number) {
            return;
        }
        let hint = if last == i64::MAX {
            format!("write a number from {first}")
        } else {
            format!("write a number from {first} to {last}")
        };
        self.wrong(span, format!("`{number}` is out of range"), &hint);
    }

    pub(super) fn bytes(&mut self, text: &str, span: &Span) -> Option<u64> {
        let size = parse_bytes(text).filter(|size| i64::try_from(*size).is_ok());
        if size.is_none() {
            let what = format!("`{text}` is not a size");
            self.wrong(
                span,
                what,
                "write bytes, or a number with `k`, `m` or `g`, like `64m`",
            );
        }
        size
    }

    pub(super) fn cpus(&mut self, text: &str, span: &Span) -> Option<i64> {
        let cpus = parse_cpus(text);
        if cpus.is_none() {
            let what = format!("`{text}` is not a number of processors");
            self.wrong(span, what, "write it like `0.5`");
        }
        cpus
    }

    fn expose(&mut self, fields: &mut Fields) {
        let mut ports = Vec::new();
        for (text, span) in fields.list("expose", self.problems).unwrap_or_default() {
            let (port, protocol) = text.split_once('/').unwrap_or((&text, "tcp"));
            let (first, last) = port.split_once('-').unwrap_or((port, port));
            match (first.parse::<u16>(), last.parse::<u16>()) {
                (Ok(first), Ok(last)) if first <= last => {
                    ports.extend((first..=last).map(|port| format!("{port}/{protocol}")));
                }
                _ => {
                    let what = format!("`{text}` is not a port");
                    self.wrong(&span, what, "write `8080`, `8080-8090` or `53/udp`");
                }
            }
        }
        if !ports.is_empty() {
            // The API has a set here, which is a table of nothings.
            let set: JsonMap<String, Json> =
                ports.into_iter().map(|port| (port, json!({}))).collect();
            self.set("expose", "ExposedPorts", Json::Object(set));
        }
    }

    fn extra_hosts(&mut self, fields: &mut Fields) {
        let Some(node) = fields.take("extra_hosts") else {
            return;
        };
        let mut hosts: Vec<String> = Vec::new();
        for (name, address, span) in self.named_addresses(fields, node) {
            // Docker wants no brackets around an IPv6 address.
            let address = address.trim_matches(['[', ']']);
            let is_known = matches!(address, "" | "host-gateway") || (ADDRESS.fits)(address);
            if !is_known {
                let what = format!("`{address}` is not an address");
                let hint = "write it like `192.168.1.10`, or `host-gateway`";
                self.wrong(&span, what, hint);
            }
            hosts.push(format!("{name}:{address}"));
        }
        hosts.sort();
        if !hosts.is_empty() {
            self.set("extra_hosts", "ExtraHosts", json!(hosts));
        }
    }

    /// Names and addresses, of a table or of a list of `NAME=ADDRESS`.
    fn named_addresses(&mut self, fields: &Fields, node: &Node) -> Vec<(String, String, Span)> {
        let mut all = Vec::new();
        match &node.value {
            Value::Map(map) => {
                for entry in &map.0 {
                    let one = std::slice::from_ref(&entry.node);
                    for node in entry.node.as_list().unwrap_or(one) {
                        let address = node.scalar().unwrap_or_default();
                        all.push((entry.key.clone(), address, node.span.clone()));
                    }
                }
            }
            Value::List(items) => {
                for item in items {
                    let text = item.scalar().unwrap_or_default();
                    let pair = text.split_once('=').or_else(|| text.split_once(':'));
                    let Some((name, address)) = pair else {
                        let what = format!("`{text}` names no host with an address");
                        let hint = "write `name:192.168.1.10` or `name=192.168.1.10`";
                        self.wrong(&item.span, what, hint);
                        continue;
                    };
                    all.push((name.to_owned(), address.to_owned(), item.span.clone()));
                }
            }
            _ => {
                let wanted = "a table, or a list of `NAME=ADDRESS`";
                fields.wrong_type("extra_hosts", node, wanted, self.problems);
            }
        }
        all
    }

    fn nanoseconds(&mut self, fields: &mut Fields, key: &'static str) -> Option<Json> {
        let (text, span) = fields.text(key, self.problems)?;
        let value = parse_duration(&text).and_then(|value| i64::try_from(value.as_nanos()).ok());
        if value.is_none() {
            let what = format!("`{text}` is not a duration");
            self.wrong(&span, what, "write `10s` or `1m30s`");
        }
        value.map(|value| json!(value))
    }

    fn health(&mut self, fields: &mut Fields) {
        let Some(node) = fields.take("healthcheck") else {
            return;
        };
        let mut health = fields.table("healthcheck", self.problems);
        let is_off = health.boolean("disable", self.problems) == Some(true);
        let test = match health.take("test") {
            None => None,
            Some(node) => match (&node.value, node.scalar()) {
                (Value::List(items), _) => {
                    let words: Vec<String> = items.iter().filter_map(Node::scalar).collect();
                    let kind = words.first().map(String::as_str);
                    if !matches!(kind, Some("CMD" | "CMD-SHELL" | "NONE")) {
                        let what =
                            "a healthcheck begins with `CMD`, `CMD-SHELL` or `NONE`".to_owned();
                        self.wrong(&node.span, what, "or write it as one string, for the shell");
                    }
                    Some(words)
                }
                (_, Some(text)) => Some(vec!["CMD-SHELL".to_owned(), text]),
                _ => {
                    health.wrong_type("test", node, "a string or a list of strings", self.problems);
                    None
                }
            },
        };
        let mut health_config = JsonMap::new();
        let durations = [
            ("interval", "Interval"),
            ("timeout", "Timeout"),
            ("start_period", "StartPeriod"),
            ("start_interval", "StartInterval"),
        ];
        for (key, field) in durations {
            if let Some(value) = self.nanoseconds(&mut health, key) {
                health_config.insert(field.to_owned(), value);
            }
        }
        let retries = self.passthrough(&mut health, "retries", Kind::Whole(0, i64::MAX));
        if let Some(retries) = retries {
            health_config.insert("Retries".to_owned(), json!(retries));
        }
        health.finish(|_| None, self.problems);
        let test = if is_off {
            Some(vec!["NONE".to_owned()])
        } else {
            test
        };
        if let Some(test) = test {
            health_config.insert("Test".to_owned(), json!(test));
        }
        if node.as_map().is_some() && !health_config.is_empty() {
            self.set("healthcheck", "Healthcheck", Json::Object(health_config));
        }
    }

    fn logging(&mut self, fields: &mut Fields) {
        let mut logging = fields.table("logging", self.problems);
        let driver = logging
            .text("driver", self.problems)
            .map(|(driver, _)| driver);
        let options = self.passthrough(&mut logging, "options", Kind::Pairs);
        logging.finish(|_| None, self.problems);
        if driver.is_some() || options.is_some() {
            let config = json!({ "Type": driver.unwrap_or_default(), "Config": options.unwrap_or(json!({})) });
            self.set("logging", "LogConfig", config);
        }
    }
}
