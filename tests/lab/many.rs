//! `verify` in a home of many containers: it asks in waves, leaves nothing in the kernel's table of neighbours, which the whole
//! machine shares, and still finds the one that is in the wrong place.

use crate::home::{Home, Server};
use crate::{home_and_pi, tests};
use std::fmt::Write as _;
use std::fs;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

tests! {
    every engine: ;
    one engine: verify_asks_many_containers_in_waves
}

/// How many containers there are, instead of [`CONTAINERS`]: a proof by hand.
const VARIABLE: &str = "HOMELAB_LAB_CONTAINERS";

/// More than a home may have for everybody to ask everybody, and no more: each costs 0.3 s of processor time.
const CONTAINERS: usize = 32;

/// How many entries the server's namespaces may have at any time, of the 1,024 of the machine. Would everybody ask everybody,
/// those of 32 containers had 576.
const MOST_NEIGHBOURS: usize = 400;

/// Counts the entries of the host and of every container until it is told to stop; prints how many there were at most and at
/// the end. Entries without an answer count.
const COUNT: &str = r#"
rm -f /run/stop; most=0
files=$(docker inspect -f '/proc/{{.State.Pid}}/net/arp' $(docker ps -q)); files="$files /proc/1/net/arp"
echo ready
while :; do
    now=$(cat $files | grep -c '^[0-9]')
    [ "$now" -gt "$most" ] && most=$now
    [ -e /run/stop ] && break
    sleep 0.03
done
echo "$most $now"
"#;

/// What a run of verify did to the table of neighbours.
struct Measured {
    stdout: String,
    stderr: String,
    status: Option<i32>,
    /// In the server's namespaces, at most.
    most: usize,
    /// In the server's namespaces, afterwards.
    left: usize,
}

fn measured(home: &Home, pi: &Server, line: &str) -> Measured {
    let mut counting = pi
        .command("sh")
        .args(["-c", COUNT])
        .stdout(Stdio::piped())
        .spawn()
        .expect("nsenter runs");
    let mut counted = std::io::BufReader::new(counting.stdout.take().expect("a pipe"));
    let mut ready = String::new();
    std::io::BufRead::read_line(&mut counted, &mut ready).expect("it counts");
    let is_done = AtomicBool::new(false);
    let (run, wall, of_machine) = std::thread::scope(|scope| {
        let of_machine = scope.spawn(|| watch_machine(home, &is_done));
        let begun = Instant::now();
        let run = pi.homelab(line);
        let wall = begun.elapsed();
        is_done.store(true, Ordering::Relaxed);
        (run, wall, of_machine.join().expect("it counts"))
    });
    pi.sh("touch /run/stop");
    let mut text = String::new();
    std::io::Read::read_to_string(&mut counted, &mut text).expect("a count");
    assert!(counting.wait().expect("it ends").success());
    let mut numbers = text.split_whitespace().map(str::parse);
    let mut number = || numbers.next().and_then(Result::ok).expect("a number");
    let (most, left) = (number(), number());
    eprintln!(
        "{line}: {} ms; neighbours of the server {most} at most, {left} afterwards; of this machine {of_machine} at most",
        wall.as_millis()
    );
    Measured {
        stdout: run.stdout,
        stderr: run.stderr,
        status: run.status,
        most,
        left,
    }
}

/// The most entries of all namespaces of this machine, other tests' included. The router, another machine at home, forgets
/// its own meanwhile.
fn watch_machine(home: &Home, is_done: &AtomicBool) -> usize {
    let mut most = 0;
    while !is_done.load(Ordering::Relaxed) {
        home.router.run("ip neigh flush all");
        let text = fs::read_to_string("/proc/net/stat/arp_cache").unwrap_or_default();
        let line = text.lines().nth(1).unwrap_or_default();
        let first = line.split(' ').next().unwrap_or_default();
        most = most.max(usize::from_str_radix(first, 16).unwrap_or_default());
        sleep(Duration::from_millis(20));
    }
    most
}

/// A LAN that has room for them, and that many services in each environment.
fn plan(each: usize) -> String {
    let mut plan = "[network]\nsubnet = \"192.168.0.0/22\"\ngateway = \"192.168.1.1\"\n\n\
         [shim]\naddress = \"192.168.1.254\"\n\n\
         [hosts.raspberry-pi]\naddress = \"192.168.1.204\"\nprimary = true\n\n\
         [env.prod]\nrange = \"192.168.2.1-192.168.2.200\"\n\n\
         [env.preprod]\nrange = \"192.168.3.1-192.168.3.200\"\n"
        .to_owned();
    for number in 1..=each {
        let _ = write!(
            plan,
            "\n[services.s{number:03}]\nimage = \"lab/web:1\"\ncommand = [\"sleep\", \"infinity\"]\nstop_signal = \"SIGKILL\"\n\
             address = {{ prod = \"192.168.2.{number}\", preprod = \"192.168.3.{number}\" }}\n"
        );
    }
    plan
}

fn verify_asks_many_containers_in_waves(suite: &str) {
    let given = std::env::var(VARIABLE).ok();
    let containers = given.map_or(CONTAINERS, |text| text.parse().expect("a number"));
    let each = containers / 2;
    let (home, pi) = home_and_pi(suite);
    home.router.run("ip addr add 192.168.1.1/22 dev br0");
    pi.sh(
        "ip addr add 192.168.1.204/22 dev eth0; ip addr del 192.168.1.204/24 dev eth0; \
         ip route replace default via 192.168.1.1",
    );
    pi.write("/etc/homelab/homelab.toml", &plan(each));
    for line in ["network-up", "env-up --env prod", "env-up --env preprod"] {
        pi.homelab(line).exits(0);
    }

    let good = measured(&home, &pi, "verify --json");
    assert_eq!(good.status, Some(0), "{}{}", good.stdout, good.stderr);
    assert!(good.most < MOST_NEIGHBOURS, "{} neighbours", good.most);
    assert!(good.left < each, "{} neighbours are left", good.left);
    let left = pi.sh("grep -l -s -a 'homela[b].probe' /proc/[0-9]*/cmdline || true");
    assert_eq!(left, "", "no process is left in the containers");
    pi.write("/run/pairs", &good.stdout);
    // Everybody is a source and a target in both directions, and what is planned to be reached is reached by all.
    let ends = pi.sh(
        "jq -r 'select(.event == \"pair\" and .from != .to and .planned == \"blocked\") | \
         [.from, .to, .seen, ([.probes[].source] | unique | length), ([.probes[].target] | unique | length)] | join(\" \")' /run/pairs",
    );
    let expected =
        format!("prod preprod blocked {each} {each}\npreprod prod blocked {each} {each}\n");
    assert_eq!(ends, expected);
    let probes =
        pi.sh("jq -s '[.[] | select(.event == \"pair\") | .probes | length] | add' /run/pairs");
    let probes: usize = probes.trim().parse().expect("a number");
    // Of each: three machines, the host, its next one, and one of the other environment; and the host asks the gateway.
    assert_eq!(probes, 6 * 2 * each + 1);

    // One of ours outside its slice, as a restored backup makes it.
    let rogue = format!("s{:03}-prod", each / 2 + 1);
    let address = format!("192.168.2.{}", each / 2 + 1);
    pi.sh(&format!(
        "docker inspect {rogue} | jq -r '.[0].Config.Labels | to_entries[] | \"\\(.key)=\\(.value)\"' > /run/labels; \
         docker rm -f {rogue}; docker run -d --name {rogue} --network homelab-prod --ip {address} --label-file /run/labels \
         lab/web:1 sleep infinity",
    ));
    let bad = measured(&home, &pi, "verify");
    eprintln!("{}{}", bad.stdout, bad.stderr);
    assert_eq!(bad.status, Some(3), "{}", bad.stderr);
    assert!(bad.most < MOST_NEIGHBOURS, "{} neighbours", bad.most);
    for text in [
        "from prod to preprod: partly, planned is blocked".to_owned(),
        format!("{rogue} to "),
        format!(
            "`{rogue}` runs in `system.slice` and belongs into `homelab-prod.slice`: `homelab env-up --env prod`"
        ),
    ] {
        assert!(
            bad.stderr.contains(&text),
            "{text} is not in {}",
            bad.stderr
        );
    }
    // The hint leads out.
    pi.homelab("env-up --env prod").exits(0);
    let cured = measured(&home, &pi, "verify");
    assert_eq!(cured.status, Some(0), "{}", cured.stderr);
}
