//! Settings of a service that limit what it may use: memory, processors, processes, block devices, and what Swarm has beside them
//! under `deploy`. Pure.

use super::Restart;
use super::engine_settings::{Kind, SettingsReader};
use super::values::parse_bytes;
use crate::error::Diagnostic;
use crate::input::fields::{Fields, integer};
use crate::input::node::Node;
use crate::input::problem::Span;
use crate::plan::Problems;
use serde_json::{Value as Json, json};

/// The lists of `blkio_config`: the key, its path, the field of the API, and what each item limits.
const DEVICE_LIMITS: [(&str, &str, &str, &str); 5] = [
    (
        "weight_device",
        "blkio_config.weight_device",
        "BlkioWeightDevice",
        "weight",
    ),
    (
        "device_read_bps",
        "blkio_config.device_read_bps",
        "BlkioDeviceReadBps",
        "rate",
    ),
    (
        "device_read_iops",
        "blkio_config.device_read_iops",
        "BlkioDeviceReadIOps",
        "rate",
    ),
    (
        "device_write_bps",
        "blkio_config.device_write_bps",
        "BlkioDeviceWriteBps",
        "rate",
    ),
    (
        "device_write_iops",
        "blkio_config.device_write_iops",
        "BlkioDeviceWriteIOps",
        "rate",
    ),
];

/// What of `deploy` Swarm alone reads, and what is read elsewhere.
const ELSEWHERE: [&str; 8] = [
    "mode",
    "placement",
    "update_config",
    "rollback_config",
    "endpoint_mode",
    "labels",
    "replicas",
    "restart_policy",
];

impl SettingsReader<'_> {
    pub(super) fn ulimits(&mut self, fields: &mut Fields) {
        let mut limits = Vec::new();
        for limit in fields.named("ulimits", self.problems) {
            let Some(node) = limit.node else { continue };
            let (soft, hard) = match integer(node) {
                Some(both) => (Some(both), Some(both)),
                None => (
                    node.get("soft").and_then(integer),
                    node.get("hard").and_then(integer),
                ),
            };
            match (soft, hard) {
                (Some(soft), Some(hard)) => {
                    limits.push(json!({ "Name": limit.name, "Soft": soft, "Hard": hard }));
                }
                _ => {
                    let what = format!("the limit `{}` has no `soft` and `hard`", limit.name);
                    self.wrong(
                        &limit.span,
                        what,
                        "write one number for both, or a table of the two",
                    );
                }
            }
        }
        if !limits.is_empty() {
            limits.sort_by_key(Json::to_string);
            self.set("ulimits", "Ulimits", json!(limits));
        }
    }

    pub(super) fn block_io(&mut self, fields: &mut Fields) {
        let mut io = fields.table("blkio_config", self.problems);
        let weight = self.passthrough(&mut io, "weight", Kind::Whole(0, 1000));
        if let Some(weight) = weight {
            self.set("blkio_config.weight", "BlkioWeight", json!(weight));
        }
        for (key, path, field, what) in DEVICE_LIMITS {
            let mut all = Vec::new();
            for item in io.items(key, self.problems) {
                let device = item.get("path").and_then(Node::scalar);
                let number = item.get(what).and_then(Node::scalar);
                match (device, number.as_deref().and_then(parse_bytes)) {
                    (Some(device), Some(number)) if what == "rate" => {
                        all.push(json!({ "Path": device, "Rate": number }));
                    }
                    (Some(device), Some(number)) => {
                        all.push(json!({ "Path": device, "Weight": number }));
                    }
                    _ => {
                        let message = format!("this has no `path` and `{what}`");
                        self.wrong(&item.span, message, "name a device and a number");
                    }
                }
            }
            if !all.is_empty() {
                self.set(path, field, json!(all));
            }
        }
        io.finish(|_| None, self.problems);
    }

    /// Memory, processors and processes, which have an older key and one under `deploy`.
    pub(super) fn resources(&mut self, fields: &mut Fields) {
        let mut deploy = fields.table("deploy", self.problems);
        let mut resources = deploy.table("resources", self.problems);
        let mut limits = resources.table("limits", self.problems);
        let mut reserved = resources.table("reservations", self.problems);
        deploy.leave_alone(&ELSEWHERE);
        deploy.finish(|_| None, self.problems);
        resources.finish(|_| None, self.problems);
        let memory = [
            fields.text("mem_limit", self.problems),
            limits.text("memory", self.problems),
        ];
        let kept = [
            fields.text("mem_reservation", self.problems),
            reserved.text("memory", self.problems),
        ];
        for (key, field, pair) in [
            ("mem_limit", "Memory", memory),
            ("mem_reservation", "MemoryReservation", kept),
        ] {
            let values = pair.map(|value| {
                let (text, span) = value?;
                Some((self.bytes(&text, &span)?, span))
            });
            if let Some(value) = self.one_of(key, values) {
                self.set(key, field, json!(value));
            }
        }
        let cpus = [
            fields.text("cpus", self.problems),
            limits.text("cpus", self.problems),
        ];
        let cpus = cpus.map(|value| {
            let (text, span) = value?;
            Some((self.cpus(&text, &span)?, span))
        });
        if let Some(value) = self.one_of("cpus", cpus) {
            self.set("cpus", "NanoCpus", json!(value));
        }
        let mut pids = |from: &mut Fields, key: &'static str| {
            let span = from.take(key).map(|node| node.span.clone())?;
            Some((from.integer(key, self.problems)?, span))
        };
        let pids = [pids(fields, "pids_limit"), pids(&mut limits, "pids")];
        if let Some(value) = self.one_of("pids_limit", pids) {
            self.set("pids_limit", "PidsLimit", json!(value));
        }
        // The Engine has no reservation of processors.
        reserved.leave_alone(&["cpus", "generic_resources"]);
        limits.finish(|_| None, self.problems);
        let why = |key: &str| (key == "devices").then_some(NO_GPU);
        reserved.finish(why, self.problems);
    }

    /// The value of two keys that mean the same.
    fn one_of<T: PartialEq>(&mut self, key: &str, values: [Option<(T, Span)>; 2]) -> Option<T> {
        match values {
            [Some((older, _)), Some((newer, span))] => {
                if older != newer {
                    let what = format!("`{key}` says something else than `deploy.resources`");
                    self.wrong(&span, what, "keep one of the two");
                }
                Some(newer)
            }
            [Some((value, _)), None] | [None, Some((value, _))] => Some(value),
            [None, None] => None,
        }
    }
}

/// Why devices by capability are refused.
pub(super) const NO_GPU: &str = "homelab does not hand out GPUs by capability: give the device files by `devices`, like `/dev/dri`";

/// `deploy.restart_policy`, which wins over `restart`.
pub(super) fn restart_policy(fields: &mut Fields, problems: &mut Problems) -> Option<Restart> {
    let mut deploy = fields.table("deploy", problems);
    deploy.take("restart_policy")?;
    let mut policy = deploy.table("restart_policy", problems);
    let condition = policy.text("condition", problems);
    let attempts = policy.integer("max_attempts", problems).unwrap_or(0);
    // Swarm alone reads these.
    policy.leave_alone(&["delay", "window"]);
    policy.finish(|_| None, problems);
    let attempts = u32::try_from(attempts).unwrap_or(0);
    match condition.as_ref().map(|(text, _)| text.as_str()) {
        None | Some("any") => Some(Restart::Always),
        Some("none") => Some(Restart::No),
        Some("on-failure") => Some(Restart::OnFailure(attempts)),
        Some(other) => {
            let span = condition
                .as_ref()
                .map(|(_, span)| span.clone())
                .unwrap_or_default();
            let what = format!("`{other}` is not a condition of a restart");
            problems
                .push(Diagnostic::error_at(span, what).hint("use `none`, `on-failure` or `any`"));
            None
        }
    }
}
