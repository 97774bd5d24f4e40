//! Servers that tests share, one after the other. What a test left is removed, and a server that is not as it was when it had
//! booted is replaced.

use crate::home::{Home, Server};
use crate::{PLAN, home_and_pi};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::sleep;
use std::time::{Duration, Instant};

crate::tests! {
    every engine: ;
    one engine: what_a_test_leaves_is_removed_and_what_it_changed_is_seen
}

/// How many servers wait for a test at most: each has thirteen of the 128 inotify instances that the kernel gives to a user.
const FREE: usize = 3;

/// How long what was removed may take to be gone.
const SETTLING: Duration = Duration::from_secs(5);

/// All that a test may leave in a server, a line each: its kind, its name, and what tells it from another one of that name.
const STATE: &str = r#"
curl -s --unix-socket /run/docker.sock 'http://d/containers/json?all=1' http://d/networks http://d/volumes http://d/images/json | jq -r '
    if type == "object" then .Volumes // [] | .[] | "volume \(.Name)"
    else .[] | if has("Scope") then "network \(.Id)" elif has("ImageID") then "container \(.Id)" else .Id as $id | .RepoTags // [] | if . == [] then "image \($id)" else .[] | "image \(.) \($id)" end end
    end'
systemctl list-units --all --plain --no-legend 'homelab*' | awk '{print "unit", $1}'
systemctl list-units --failed --plain --no-legend | awk '{print "failed", $1}'
ip -o link | awk -F'[:@ ]+' '{print "link", $2}'
ip -4 -o addr | awk '{print "address", $2, $4}'
ip route | sed 's/ linkdown//; s/^/route /'
find /etc /home /opt /root /srv /tmp /usr/local /run/systemd/system /run/systemd/system.control /var/tmp ! -path '*/systemd-private-*' \( -type d -printf 'folder %p\n' -o -printf 'file %p %s %T@\n' \) 2>/dev/null
find /run -maxdepth 1 -type f ! -name '*.pid' -printf 'file %p %s %T@\n'
find /sys/fs/cgroup -maxdepth 1 -name 'homelab*' -printf 'cgroup %p\n'
cat /proc/[0-9]*/comm 2>/dev/null | grep -vE '^(sh|cat|grep|find|awk|sed|sort|\(|systemd-)' | sed 's/^/process /'
head -n 1 /proc/sys/net/ipv4/conf/*/arp_* /proc/sys/net/ipv4/ip_forward | paste -sd ' ' | sed 's/^/setting /'
"#;

fn state(home: &Home, pi: &Server) -> BTreeSet<String> {
    let laptop = home.laptop.run("ip -4 -o addr");
    let ports = home.router.run("ip -o link show master br0");
    pi.sh(STATE)
        .lines()
        .map(str::to_owned)
        .chain(laptop.lines().map(|line| format!("laptop {line}")))
        .chain(
            ports
                .lines()
                .filter_map(|line| Some(format!("port {}", line.split(' ').nth(1)?))),
        )
        .collect()
}

/// A home with one server, on loan from the pool.
pub struct Loan {
    pool: Arc<Pool>,
    booted: Option<Booted>,
}

struct Booted {
    suite: String,
    prepare: Prepare,
    pi: Server,
    home: Home,
    fresh: BTreeSet<String>,
}

/// What makes a server ready for those who share it.
type Prepare = fn(&Server);

/// The servers that wait for a test.
#[derive(Default)]
pub struct Pool(Mutex<Vec<Booted>>);

/// The pool of this process. It lives, and its servers run, as long as somebody has it: each test of the lab.
pub fn open() -> Arc<Pool> {
    static POOL: Mutex<Weak<Pool>> = Mutex::new(Weak::new());
    let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
    pool.upgrade().unwrap_or_else(|| {
        let new = Arc::default();
        *pool = Arc::downgrade(&new);
        new
    })
}

/// A home and its Raspberry Pi, as [`home_and_pi`] makes them, shared with other tests: for a test that leaves systemd, the
/// Engine and the wire alone.
pub fn borrow(suite: &str) -> Loan {
    let loan = borrow_prepared(suite, |_| ());
    loan.parts().1.write("/etc/homelab/homelab.toml", PLAN);
    loan
}

/// One that `prepare` has been over, once.
pub fn borrow_prepared(suite: &str, prepare: Prepare) -> Loan {
    let pool = open();
    let fits =
        |booted: &Booted| booted.suite == suite && std::ptr::fn_addr_eq(booted.prepare, prepare);
    let free = {
        let mut free = pool.0.lock().unwrap_or_else(PoisonError::into_inner);
        free.iter().rposition(fits).map(|place| free.remove(place))
    };
    let booted = free.unwrap_or_else(|| {
        let (home, pi) = home_and_pi(suite);
        pi.sh("rm -r /etc/homelab");
        prepare(&pi);
        let fresh = state(&home, &pi);
        Booted {
            suite: suite.to_owned(),
            prepare,
            pi,
            home,
            fresh,
        }
    });
    Loan {
        pool,
        booted: Some(booted),
    }
}

impl Loan {
    /// The home and its server.
    pub fn parts(&self) -> (&Home, &Server) {
        let booted = self.booted.as_ref().expect("it is on loan");
        (&booted.home, &booted.pi)
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        let Some(booted) = self.booted.take() else {
            return;
        };
        // Nobody knows what a failed test left, and somebody may want to see it.
        if std::thread::panicking() {
            return;
        }
        if let Err(left) = booted.clean() {
            eprintln!("a server of {} is replaced:\n{left}", booted.suite);
            return;
        }
        let mut free = self.pool.0.lock().unwrap_or_else(PoisonError::into_inner);
        free.push(booted);
        let surplus = (free.len() > FREE).then(|| free.remove(0));
        // It is switched off while others may take one.
        drop(free);
        drop(surplus);
    }
}

impl Booted {
    /// Removes what was not there when it had booted, and makes sure.
    fn clean(&self) -> Result<(), String> {
        let mut line = String::new();
        let mut forget = String::new();
        for extra in state(&self.home, &self.pi).difference(&self.fresh) {
            let (kind, name) = extra.split_once(' ').unwrap_or((extra, ""));
            let name = name.split(' ').next().unwrap_or_default();
            let docker = |path: &str| {
                format!("curl -s --unix-socket /run/docker.sock -X DELETE 'http://d/{path}'\n")
            };
            match kind {
                "container" => {
                    line.insert_str(0, &docker(&format!("containers/{name}?force=1&v=1")));
                }
                "network" => line += &docker(&format!("networks/{name}")),
                "volume" => line += &docker(&format!("volumes/{name}")),
                "image" => line += &docker(&format!("images/{name}?force=1")),
                "unit" => writeln!(line, "systemctl stop {name}").expect("a string"),
                "link" => writeln!(line, "ip link del {name}").expect("a string"),
                "file" | "folder" => writeln!(forget, "rm -rf '{name}'").expect("a string"),
                _ => {}
            }
        }
        if forget.contains("/systemd/sys") {
            forget += "systemctl daemon-reload\n";
        }
        self.pi
            .try_sh(&format!("{line}{forget} ip neigh flush all"))?;
        self.home.laptop.run("ip neigh flush all");
        self.home.router.run("ip neigh flush all");
        let begun = Instant::now();
        loop {
            let now = state(&self.home, &self.pi);
            if now == self.fresh {
                return Ok(());
            }
            if begun.elapsed() > SETTLING {
                let more = now
                    .difference(&self.fresh)
                    .map(|line| format!("+ {line}\n"));
                let less = self
                    .fresh
                    .difference(&now)
                    .map(|line| format!("- {line}\n"));
                return Err(more.chain(less).collect());
            }
            sleep(Duration::from_millis(200));
        }
    }
}

fn what_a_test_leaves_is_removed_and_what_it_changed_is_seen(suite: &str) {
    let loan = borrow(suite);
    let booted = loan.booted.as_ref().expect("it is on loan");
    let pi = &booted.pi;
    for line in ["network-up", "env-up", "env-up --env prod"] {
        pi.homelab(line).exits(0);
    }
    pi.sh("docker run -d --name left -v left:/left -v /anonymous lab/web:1 sleep 600");
    pi.sh("docker network create left; docker tag lab/web:1 lab/left:1; docker import /dev/null lab/left:2");
    pi.sh("ip link add left type bridge; echo left >/etc/left; mkdir -p /srv/left /tmp/left/deep");
    assert_eq!(booted.clean(), Ok(()));
    pi.sh("ip addr add 192.168.1.77/32 dev eth0; rm /etc/hostname; sleep 600 >/dev/null 2>&1 &");
    let left = booted.clean().expect_err("this is not brought back");
    for line in [
        "+ address eth0 192.168.1.77/32",
        "+ process sleep",
        "- file /etc/hostname",
    ] {
        assert!(left.contains(line), "{line} is not in\n{left}");
    }
}
