//! Constructs of Compose files, one test each: what homelab makes of a file beside what `docker compose create` of the same
//! root makes of it, by inspecting both. The files are in tests/compose/constructs.

#![expect(clippy::indexing_slicing, reason = "what JSON has not is null there")]

use crate::home::Server;
use crate::pool::borrow_prepared;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;

macro_rules! constructs {
    (every engine: $($every:ident)*; one engine: $($one:ident)*) => {
        /// Every construct that has a test.
        const NAMES: &[&str] = &[$(stringify!($every),)* $(stringify!($one)),*];
        // bookworm has no package of Compose 2.
        mod engine_26_1 {
            $(crate::tests!("trixie", $every);)*
            $(crate::tests!("trixie", $one);)*
        }
        mod engine_28_5 { $(crate::tests!("sid", $every);)* }
        $(fn $every(suite: &str) { compare(suite, stringify!($every)); })*
        $(fn $one(suite: &str) { compare(suite, stringify!($one)); })*
    };
}

// On every engine: what the Engine's API has changed in, or has another version for. All came out alike on both, apart from the
// paths that the Engine masks.
constructs! {
    every engine:
        healthcheck_list labels_and_annotations namespaces network_mode_host network_mode_none platform scale
        volume_named_long volume_tmpfs_long;
    one engine:
        blkio_config capabilities command_list command_string configs_from_file container_name cpu_quota
        deploy_resources deploy_restart_any deploy_restart_policy device_cgroup_rules devices_short dns
        dns_one entrypoint_emptied entrypoint_list_and_command entrypoint_string env_file_forms
        environment_list environment_map expose extends_other_file extends_same_file extra_hosts_list
        extra_hosts_map group_add healthcheck_disabled healthcheck_none healthcheck_shell
        hostname_and_domainname include init_and_tty init_off interpolation logging logging_driver_alone
        memswap_unlimited older_resources oom_kill_disable other_tools_keys override_file privileged
        profiles_inactive read_only_and_tmpfs_list restart_always restart_no restart_on_failure
        restart_unless_stopped runtime seccomp_profile secrets_from_file security_opt shm_size shm_size_bytes
        stop_settings sysctls_list sysctls_map tmpfs_string ulimits user_and_working_dir volume_bind_long
        volume_custom_name volume_driver_opts volumes_short yaml_anchors_and_merges
}

const FOLDER: &str = "/etc/homelab/constructs";

const PLAN_FILE: &str = "/etc/homelab/constructs/homelab.toml";

/// Isolation is left out: the slice would be one more difference.
const PLAN: &str = r#"
compose  = ["COMPOSE"]
env_file = "vars.env"

[network]
subnet    = "192.168.1.0/24"
gateway   = "192.168.1.1"
isolation = "off"

[shim]
address = "192.168.1.254"

[hosts.raspberry-pi]
address = "192.168.1.204"
primary = true

[env.prod]
range = "192.168.1.205-192.168.1.223"
"#;

/// What is made and does not start, for want of something in the lab.
const CANNOT_START: [(&str, &str); 3] = [
    ("group_add", "no matching entries in group file"),
    ("ulimits", "error setting rlimit"),
    ("volume_bind_long", "not a shared or slave mount"),
];

/// A server with the constructs' files and the network of production.
fn prepare(pi: &Server) {
    pi.copy_folder("tests/compose/constructs", FOLDER);
    let plan = PLAN.replace("\"COMPOSE\"", "");
    pi.write(PLAN_FILE, &plan);
    pi.homelab(&format!("network-up --config {PLAN_FILE}"))
        .exits(0);
    pi.sh(&format!("rm {PLAN_FILE}"));
}

fn compare(suite: &str, name: &str) {
    let loan = borrow_prepared(suite, prepare);
    let (_, pi) = loan.parts();
    let mut files = vec![format!("{name}.yml")];
    let over = format!("{name}.override.yml");
    let constructs = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compose/constructs");
    if constructs.join(&over).exists() {
        files.push(over);
    }
    let options: Vec<String> = files.iter().map(|file| format!("-f {file}")).collect();
    let options = options.join(" ");
    // Compose itself: `docker compose` asks every plugin for its name first.
    pi.sh(&format!(
        "cd {FOLDER} && PATH=$PATH:/usr/libexec/docker/cli-plugins:/usr/lib/docker/cli-plugins; \
         docker-compose -p ref --env-file vars.env {options} create 2>&1"
    ));
    let theirs = inspected(pi, "ref");
    pi.remove_containers();
    let mut plan = PLAN.replace("\"COMPOSE\"", &format!("\"{}\"", files.join("\", \"")));
    // A planned address: who gets a free one has the LAN asked first, which takes more than a second.
    if name != "scale" {
        plan += "[services.x]\naddress = { prod = \"192.168.1.210\" }\n";
    }
    pi.write(PLAN_FILE, &plan);
    let run = pi.homelab(&format!("env-up --env prod --config {PLAN_FILE}"));
    let ours = inspected(pi, "homelab-prod");
    assert!(!theirs.is_empty());
    assert_eq!(
        ours.keys().collect::<Vec<_>>(),
        theirs.keys().collect::<Vec<_>>(),
        "{}",
        run.stderr
    );
    for (service, ours) in &ours {
        let Some(theirs) = theirs.get(service) else {
            continue;
        };
        assert!(
            ours == theirs,
            "{service}:\n{}{}",
            differences("", ours, theirs),
            run.stderr
        );
    }
    // A second run has nothing to make.
    let again = pi.homelab(&format!("env-up --env prod --config {PLAN_FILE}"));
    if let Some((_, why)) = CANNOT_START.iter().find(|(known, _)| *known == name) {
        run.exits(1).says(why);
        again.exits(1).says(why);
    } else {
        run.exits(0);
        again.exits(0).says("nothing to do");
    }
}

/// The containers of a Compose project by service and number, as far as they are to be equal.
fn inspected(pi: &Server, project: &str) -> BTreeMap<String, Value> {
    let list = pi.sh(&format!(
        "curl -s --unix-socket /run/docker.sock \
         'http://d/containers/json?all=1&filters=%7B%22label%22:%5B%22com.docker.compose.project={project}%22%5D%7D' | \
         jq -r '.[] | \"http://d/containers/\\(.Id)/json\"' | xargs -r curl -s --unix-socket /run/docker.sock"
    ));
    let all = serde_json::Deserializer::from_str(&list).into_iter::<Value>();
    let all = all.map(|container| container.expect("the Engine answers"));
    let labels = |container: &Value, name: &str| {
        let label = &container["Config"]["Labels"][format!("com.docker.compose.{name}")];
        label.as_str().unwrap_or_default().to_owned()
    };
    all.map(|container| {
        let name = format!(
            "{} {}",
            labels(&container, "service"),
            labels(&container, "container-number")
        );
        (name, effective(&container, project))
    })
    .collect()
}

/// What a container is like, without names, labels of tools, and the network.
fn effective(container: &Value, project: &str) -> Value {
    let id = container["Id"].as_str().unwrap_or_default().to_owned();
    let chosen_name = container["Name"] == "/chosen";
    let mut config = object(&container["Config"]);
    // Without a name of its own a container is called after its id.
    if config["Hostname"]
        .as_str()
        .is_some_and(|name| id.starts_with(name))
    {
        config.remove("Hostname");
    }
    // Who listens while it starts: nobody, in both.
    for key in ["AttachStdin", "AttachStdout", "AttachStderr"] {
        config.remove(key);
    }
    // Part of the network.
    config.remove("MacAddress");
    if let Some(labels) = config.get_mut("Labels").and_then(Value::as_object_mut) {
        labels.retain(|name, _| {
            !name.starts_with("com.docker.compose.") && !name.starts_with("homelab.")
        });
    }
    let mut host = object(&container["HostConfig"]);
    // What is mounted is compared as it came out; both have two ways to ask for it.
    for key in ["Binds", "Mounts", "ContainerIDFile", "ConsoleSize"] {
        host.remove(key);
    }
    let mode = host["NetworkMode"].as_str().unwrap_or_default();
    if !matches!(mode, "host" | "none") {
        host.remove("NetworkMode");
    }
    let mounts = container["Mounts"].as_array().cloned().unwrap_or_default();
    let mut mounts: Vec<Value> = mounts.iter().map(|found| mount(found, project)).collect();
    mounts.sort_by_key(Value::to_string);
    plain(&json!({
        "Config": config, "HostConfig": host, "Mounts": mounts, "chosen name": chosen_name,
        "Path": container["Path"], "Args": container["Args"], "Image": container["Image"],
        "Platform": container["Platform"],
    }))
}

fn object(value: &Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

fn mount(found: &Value, project: &str) -> Value {
    let mut mount = object(found);
    if mount["Type"] == "volume" {
        // The folder of a volume is called after it, and one without a name is called at random.
        mount.remove("Source");
        let name = mount["Name"].as_str().unwrap_or_default().to_owned();
        let own = name.strip_prefix(&format!("{project}_"));
        let is_random = name.len() == 64;
        mount.insert(
            "Name".to_owned(),
            json!(if is_random {
                "(random)"
            } else {
                own.unwrap_or(&name)
            }),
        );
    }
    // The Engine writes down how it was asked, `z` for one of Compose's own mounts, and honours it without SELinux as nothing.
    mount.remove("Mode");
    Value::Object(mount)
}

/// The same without what is empty, and with lists whose order means nothing in order.
fn plain(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let is_empty = |value: &Value| {
                value.is_null() || *value == json!([]) || *value == json!({}) || *value == json!("")
            };
            let kept = map.iter().map(|(key, value)| {
                let mut value = plain(value);
                let is_set = [
                    "Env",
                    "ExtraHosts",
                    "CapAdd",
                    "CapDrop",
                    "Ulimits",
                    "GroupAdd",
                ];
                if is_set.contains(&key.as_str())
                    && let Value::Array(items) = &mut value
                {
                    for item in items.iter_mut() {
                        // With its prefix or without.
                        if let Some(name) = item.as_str().and_then(|name| name.strip_prefix("CAP_"))
                        {
                            *item = json!(name);
                        }
                    }
                    items.sort_by_key(Value::to_string);
                }
                // Off, said or not.
                if key == "OomKillDisable" && value == json!(false) {
                    value = Value::Null;
                }
                (key.clone(), value)
            });
            Value::Object(kept.filter(|(_, value)| !is_empty(value)).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(plain).collect()),
        value => value.clone(),
    }
}

/// Where two values differ, a line each.
fn differences(path: &str, ours: &Value, theirs: &Value) -> String {
    if let (Value::Object(a), Value::Object(b)) = (ours, theirs) {
        let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
        let null = Value::Null;
        let lines = keys.into_iter().map(|key| {
            let (a, b) = (a.get(key).unwrap_or(&null), b.get(key).unwrap_or(&null));
            differences(&format!("{path}.{key}"), a, b)
        });
        return lines.collect();
    }
    if ours == theirs {
        return String::new();
    }
    format!("{path}: homelab {ours}, docker compose {theirs}\n")
}

#[test]
fn every_construct_has_a_test() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compose/constructs");
    let mut files: Vec<String> = std::fs::read_dir(folder)
        .expect("the folder is there")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|name| Some(name.strip_suffix(".yml")?.to_owned()))
        .filter(|name| !name.contains('.'))
        .collect();
    files.sort();
    let mut names = NAMES.to_vec();
    names.sort_unstable();
    assert_eq!(files, names);
    assert!(NAMES.len() >= 40);
}
