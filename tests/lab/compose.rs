//! Constructs of Compose files, one test each: what homelab makes of a file beside what `docker compose create` of the same
//! root makes of it, by inspecting both. The files are in tests/compose/constructs.

#![expect(clippy::indexing_slicing, reason = "what JSON has not is null there")]

use crate::home::{Home, Server};
use crate::home_and_pi;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};

macro_rules! constructs {
    ($($name:ident)*) => {
        /// Every construct that has a test.
        const NAMES: &[&str] = &[$(stringify!($name)),*];
        // All tests of an engine follow each other, so that its servers live until the last. bookworm has no package of Compose 2.
        mod engine_26_1 { $(#[test] #[ignore = "needs root and the lab: run tests/all.sh"] fn $name() { super::compare("trixie", stringify!($name)); })* }
        mod engine_28_5 { $(#[test] #[ignore = "needs root and the lab: run tests/all.sh"] fn $name() { super::compare("sid", stringify!($name)); })* }
    };
}

constructs!(
    blkio_config capabilities command_list command_string configs_from_file container_name cpu_quota
    deploy_resources deploy_restart_any deploy_restart_policy device_cgroup_rules devices_short dns dns_one
    entrypoint_emptied entrypoint_list_and_command entrypoint_string env_file_forms environment_list
    environment_map expose extends_other_file extends_same_file extra_hosts_list extra_hosts_map group_add
    healthcheck_disabled healthcheck_list healthcheck_none healthcheck_shell hostname_and_domainname include
    init_and_tty init_off interpolation labels_and_annotations logging logging_driver_alone memswap_unlimited
    namespaces network_mode_host network_mode_none older_resources oom_kill_disable other_tools_keys
    override_file platform privileged profiles_inactive read_only_and_tmpfs_list restart_always restart_no
    restart_on_failure restart_unless_stopped runtime scale seccomp_profile secrets_from_file security_opt
    shm_size shm_size_bytes stop_settings sysctls_list sysctls_map tmpfs_string ulimits user_and_working_dir
    volume_bind_long volume_custom_name volume_driver_opts volume_named_long volume_tmpfs_long volumes_short
    yaml_anchors_and_merges
);

const FOLDER: &str = "/etc/homelab/constructs";

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

/// How many servers an engine's tests share at most.
const SERVERS: usize = 3;

/// Servers that the tests of an engine use, one after the other. They live while one of these tests does, each in a thread
/// of its own, because the processes of a server die with the thread that began them.
#[derive(Default)]
struct Shared {
    state: Mutex<Pool>,
    came_back: Condvar,
}

#[derive(Default)]
struct Pool {
    free: Vec<(Home, Server)>,
    /// A thread ends when its sender goes.
    threads: Vec<Sender<()>>,
}

fn shared(suite: &'static str) -> Arc<Shared> {
    static ALL: Mutex<BTreeMap<&str, Weak<Shared>>> = Mutex::new(BTreeMap::new());
    let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(living) = all.get(suite).and_then(Weak::upgrade) {
        return living;
    }
    let shared = Arc::new(Shared::default());
    all.insert(suite, Arc::downgrade(&shared));
    shared
}

impl Shared {
    fn take(&self, suite: &'static str) -> (Home, Server) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(server) = state.free.pop() {
                return server;
            }
            if state.threads.len() < SERVERS {
                let (end, ended) = channel();
                state.threads.push(end);
                drop(state);
                return boot(suite, ended);
            }
            let waited = self.came_back.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn give_back(&self, server: (Home, Server)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.free.push(server);
        self.came_back.notify_one();
    }
}

fn boot(suite: &'static str, ended: Receiver<()>) -> (Home, Server) {
    let (give, take) = channel();
    std::thread::spawn(move || {
        let (home, pi) = home_and_pi(suite);
        pi.copy_folder("tests/compose/constructs", FOLDER);
        let plan = PLAN.replace("\"COMPOSE\"", "");
        pi.write(&format!("{FOLDER}/homelab.toml"), &plan);
        pi.homelab(&format!("network-up --config {FOLDER}/homelab.toml"))
            .exits(0);
        // The receiver is gone when the test that asked is.
        let _ = give.send((home, pi));
        let _ = ended.recv();
    });
    take.recv().expect("the server boots")
}

/// A server on loan; one that a failed test used is handed on too.
struct Loan<'a> {
    shared: &'a Shared,
    server: Option<(Home, Server)>,
}

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            self.shared.give_back(server);
        }
    }
}

fn compare(suite: &'static str, name: &str) {
    let shared = shared(suite);
    let loan = Loan {
        shared: &shared,
        server: Some(shared.take(suite)),
    };
    // A test that failed leaves containers behind, which the next one removes.
    let (_, pi) = loan.server.as_ref().expect("it is on loan");
    pi.sh("docker ps -aq | xargs -r docker rm -fv >/dev/null; docker volume ls -q | xargs -r docker volume rm >/dev/null");
    let mut files = vec![format!("{name}.yml")];
    let over = format!("{name}.override.yml");
    let constructs = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compose/constructs");
    if constructs.join(&over).exists() {
        files.push(over);
    }
    let options: Vec<String> = files.iter().map(|file| format!("-f {file}")).collect();
    let options = options.join(" ");
    pi.sh(&format!(
        "cd {FOLDER} && docker compose -p ref --env-file vars.env {options} create 2>&1"
    ));
    let theirs = inspected(pi, "ref");
    pi.sh("docker ps -aq | xargs -r docker rm -fv >/dev/null");
    let mut plan = PLAN.replace("\"COMPOSE\"", &format!("\"{}\"", files.join("\", \"")));
    // A planned address: who gets a free one has the LAN asked first, which takes more than a second.
    if name != "scale" {
        plan += "[services.x]\naddress = { prod = \"192.168.1.210\" }\n";
    }
    pi.write(&format!("{FOLDER}/homelab.toml"), &plan);
    // What does not start, for want of a controller of the lab's kernel, was made all the same.
    let run = pi.homelab(&format!("env-up --env prod --config {FOLDER}/homelab.toml"));
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
    if run.status == Some(0) {
        let again = pi.homelab(&format!("env-up --env prod --config {FOLDER}/homelab.toml"));
        again.exits(0).says("nothing to do");
    }
}

/// The containers of a Compose project by service and number, as far as they are to be equal.
fn inspected(pi: &Server, project: &str) -> BTreeMap<String, Value> {
    let list = pi.sh(&format!(
        "docker ps -aq --filter label=com.docker.compose.project={project} | xargs -r docker inspect"
    ));
    let all: Vec<Value> = serde_json::from_str(&list).unwrap_or_default();
    let labels = |container: &Value, name: &str| {
        let label = &container["Config"]["Labels"][format!("com.docker.compose.{name}")];
        label.as_str().unwrap_or_default().to_owned()
    };
    all.into_iter()
        .map(|container| {
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
    assert_eq!(files, NAMES);
    assert!(NAMES.len() >= 40);
}
