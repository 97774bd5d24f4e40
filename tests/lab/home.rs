//! The virtual home: router, laptop and servers in network namespaces, cut off from this machine's own network.
//!
//! A namespace lives as long as the process that holds it, and every such process dies with this one, so nothing stays behind
//! whatever happens to a test.

mod disks;
mod forbid;
mod run;
pub mod second_lan;
mod watch;

pub use run::Run;

use disks::{cut_power, lab, make_disk, new_folder, program, remove_abandoned, remove_cgroup_tree};
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a server may take until Docker runs; it takes about two seconds.
pub const BOOT: Duration = Duration::from_secs(90);

/// How long what must come may take on a busy machine.
pub const SOON: Duration = Duration::from_secs(20);

/// A process that is killed when its owner is done with it.
struct Held(Child);

impl Held {
    /// The kernel ends what a process with a parent death signal began when the *thread* that began it ends, and a server may
    /// live longer than the thread of its test. So one thread begins them all, and lives as long as this process.
    fn spawn(mut command: Command) -> Self {
        type Order = (Command, Sender<std::io::Result<Child>>);
        static STARTER: OnceLock<Sender<Order>> = OnceLock::new();
        let starter = STARTER.get_or_init(|| {
            let (give, orders) = channel::<Order>();
            std::thread::spawn(move || {
                for (mut command, answer) in orders {
                    // Whoever asked waits for the answer.
                    let _ = answer.send(command.spawn());
                }
            });
            give
        });
        let (answer, child) = channel();
        command.stdin(Stdio::null());
        starter.send((command, answer)).expect("the thread lives");
        let child = child.recv().expect("the thread answers");
        Self(child.expect("the process starts"))
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A machine that has a network and nothing else.
pub struct Host {
    holder: Held,
}

impl Host {
    fn new() -> Self {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]);
        command.args(["unshare", "--net", "sleep", "infinity"]);
        let holder = Held::spawn(command);
        let own = fs::read_link("/proc/self/ns/net").expect("a namespace");
        let path = format!("/proc/{}/ns/net", holder.pid());
        wait_for("a new network namespace", Duration::from_secs(10), || {
            fs::read_link(&path).is_ok_and(|namespace| namespace != own)
        });
        let host = Self { holder };
        host.run("ip link set lo up");
        host
    }

    /// Runs a command line in the network of this machine, split at spaces, and returns what it printed.
    pub fn run(&self, line: &str) -> String {
        let output = self.output(line);
        assert!(
            output.status.success(),
            "{line}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn output(&self, line: &str) -> Output {
        let pid = self.holder.pid().to_string();
        Command::new("nsenter")
            .args(["-t", &pid, "-n", "--"])
            .args(line.split(' '))
            .stdin(Stdio::null())
            .output()
            .expect("nsenter runs")
    }

    /// The page that an address serves to this machine, soon: who has just been started may not listen yet.
    #[allow(dead_code, reason = "the benchmark needs it not")]
    pub fn page(&self, address: Ipv4Addr) -> Option<String> {
        let begun = Instant::now();
        loop {
            let page = self.page_now(address);
            if page.is_some() || begun.elapsed() > SOON {
                return page;
            }
            sleep(Duration::from_millis(50));
        }
    }

    /// The page that an address serves to this machine, if it does.
    pub fn page_now(&self, address: Ipv4Addr) -> Option<String> {
        let output = self.output(&format!(
            "busybox timeout 2 busybox wget -q -O - http://{address}/"
        ));
        output
            .status
            .success()
            .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Plugs the machine into the router.
    fn plug_into(&self, router: &Self, port: &str, address: &str) {
        let pid = self.holder.pid();
        router.run(&format!(
            "ip link add {port} type veth peer name eth0 netns {pid}"
        ));
        router.run(&format!("ip link set {port} master br0 up"));
        self.run("ip link set eth0 up");
        self.run(&format!("ip addr add {address}/24 dev eth0"));
        self.run("ip route add default via 192.168.1.1");
    }
}

/// A server with systemd and Docker.
pub struct Server {
    /// Its network, which outlives a reboot as a cable does.
    pub host: Arc<Host>,
    root: PathBuf,
    /// What lies over the root: the program under test.
    program: Arc<tempfile::TempDir>,
    folder: tempfile::TempDir,
    node: Option<Held>,
}

impl Server {
    fn new(host: Host, suite: &str, binary: &Path, folder: tempfile::TempDir) -> Self {
        let lab = lab();
        let root = lab.join(suite);
        assert!(
            root.is_dir(),
            "there is no {}: tests/setup.sh builds it",
            root.display()
        );
        remove_abandoned(&lab);
        let program = program(&root, binary);
        let mut server = Self {
            host: Arc::new(host),
            root,
            program,
            folder,
            node: None,
        };
        server.boot();
        server
    }

    /// Starts it and waits for Docker.
    pub fn boot(&mut self) {
        self.switch_on();
        self.wait_for_docker();
    }

    /// Starts it.
    pub fn switch_on(&mut self) {
        let log = fs::File::create(self.folder.path().join("log")).expect("a log");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab/node.sh");
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--", "bash"])
            .arg(script)
            .args([&self.root, self.program.path(), self.folder.path()])
            .arg(self.host.holder.pid().to_string())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log);
        self.node = Some(Held::spawn(command));
    }

    /// Whether it runs and has that file, without a process in there.
    fn has(&self, path: &str) -> bool {
        self.init()
            .is_some_and(|init| Path::new(&format!("/proc/{init}/root{path}")).exists())
    }

    /// Whether anything in it can be asked.
    pub fn is_on(&self) -> bool {
        self.has("/run/systemd/private")
    }

    /// Waits until Docker runs.
    pub fn wait_for_docker(&self) {
        wait_for("Docker in the server", BOOT, || {
            self.has("/run/docker.pid") && self.try_sh("systemctl is-active -q docker").is_ok()
        });
    }

    /// Ends it as a power cut does; its network forgets every link but the wire.
    pub fn power_off(&mut self) {
        self.node = None;
        self.remove_cgroup();
        let links = self.host.run("ip -o link");
        for name in links
            .lines()
            .filter_map(|line| line.split([':', '@']).nth(1))
        {
            let name = name.trim();
            if !["lo", "eth0", second_lan::INTERFACE].contains(&name) {
                let _ = self.host.output(&format!("ip link del {name}"));
            }
        }
    }

    /// Cuts the power of a server with a disk of its own: what was not synced is lost.
    #[allow(dead_code, reason = "the demonstration and the benchmark need it not")]
    pub fn cut_power(&mut self) {
        cut_power(&self.path("/var/lib/docker"));
        self.power_off();
    }

    /// Takes its only wired interface away, as when a USB adapter is pulled.
    pub fn unplug(&self) {
        self.host.run("ip link del eth0");
    }

    /// The process that is PID 1 in there, once it is.
    fn init(&self) -> Option<u32> {
        let pid = self.node.as_ref()?.pid();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        let init = children.split_whitespace().next()?.parse().ok()?;
        let command = fs::read_to_string(format!("/proc/{init}/comm")).ok()?;
        (command.trim() == "systemd").then_some(init)
    }

    /// A command in the server.
    pub fn command(&self, program: &str) -> Command {
        let init = self.init().expect("the server runs").to_string();
        let mut command = Command::new("nsenter");
        command
            .args([
                "-t", &init, "-m", "-p", "-u", "-i", "-C", "-n", "--", "env", "-i",
            ])
            .args([
                "PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "HOME=/root",
                "LANG=C.UTF-8",
            ])
            .arg(program)
            .stdin(Stdio::null());
        command
    }

    /// Runs a shell line in the server; what it printed, or all that it said when it failed.
    pub fn try_sh(&self, line: &str) -> Result<String, String> {
        let output = self
            .command("sh")
            .args(["-c", line])
            .output()
            .expect("nsenter runs");
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            Ok(stdout)
        } else {
            Err(stdout + &String::from_utf8_lossy(&output.stderr))
        }
    }

    /// Runs a shell line that must succeed.
    pub fn sh(&self, line: &str) -> String {
        self.try_sh(line)
            .unwrap_or_else(|said| panic!("{line}: {said}"))
    }

    /// Runs homelab with the server's /etc/homelab/homelab.toml.
    pub fn homelab(&self, line: &str) -> Run {
        self.homelab_with("A=", line)
    }

    /// The same with a variable.
    pub fn homelab_with(&self, variable: &str, line: &str) -> Run {
        let output = self
            .command("env")
            .arg(variable)
            .arg("homelab")
            .args(line.split_whitespace())
            .output()
            .expect("nsenter runs");
        Run {
            line: line.to_owned(),
            status: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Writes a file in the server.
    pub fn write(&self, path: &str, text: &str) {
        let mut child = self
            .command("sh")
            .args(["-c", &format!("mkdir -p $(dirname {path}); cat >{path}")])
            .stdin(Stdio::piped())
            .spawn()
            .expect("nsenter runs");
        let mut stdin = child.stdin.take().expect("a pipe");
        std::io::Write::write_all(&mut stdin, text.as_bytes()).expect("it is written");
        drop(stdin);
        assert!(child.wait().expect("it ends").success());
    }

    /// A path of the server as this machine sees it.
    #[allow(dead_code, reason = "the demonstration needs it not")]
    pub fn path(&self, path: &str) -> String {
        format!("/proc/{}/root{path}", self.init().expect("the server runs"))
    }

    /// Puts the content of a folder of this repository there.
    pub fn copy_folder(&self, from: &str, to: &str) {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join(from);
        let mut packing = Command::new("tar")
            .arg("-C")
            .arg(from)
            .args(["-c", "."])
            .stdout(Stdio::piped())
            .spawn()
            .expect("tar runs");
        let archive = packing.stdout.take().expect("a pipe");
        let status = self
            .command("sh")
            .args([
                "-c",
                &format!("mkdir -p {to}; tar -C {to} --no-same-owner -x"),
            ])
            .stdin(archive)
            .status();
        assert!(packing.wait().expect("tar ends").success());
        assert!(status.expect("nsenter runs").success());
    }

    /// Makes the image `lab/web:1` of busybox in the server: there is no registry outside. Its `/usr/bin/ping` is the server's own,
    /// as containers have no right to the raw sockets that busybox's asks for.
    pub fn import_image(&self, name: &str) {
        self.sh(&format!(
            "image=$(mktemp -d); cp -a /srv/image/. $image; rm -f $image/bin/ping; \
             cp -L --parents /usr/bin/ping $(ldd /usr/bin/ping | grep -o '/[^ ]*') $image; \
             tar -C $image -c . | docker import - {name} >/dev/null; rm -r $image"
        ));
    }

    /// Removes all containers and their anonymous volumes.
    #[allow(dead_code, reason = "the demonstration and the benchmark need it not")]
    pub fn remove_containers(&self) {
        self.sh(
            "curl -s --unix-socket /run/docker.sock 'http://d/containers/json?all=1' | \
                 jq -r '.[] | \"http://d/containers/\\(.Id)?force=1&v=1\"' | \
                 xargs -r curl -s --unix-socket /run/docker.sock -X DELETE",
        );
    }

    /// Everything on the machine that homelab could have left behind.
    pub fn leftovers(&self) -> String {
        self.sh(
            "ip -o link | cut -d: -f2 | cut -d@ -f1; ip -4 -o addr | awk '{print $2, $4}'; ip route; \
                 docker network ls --format '{{.Name}}'; docker ps -a --format '{{.Names}}'; \
                 systemctl list-units --all --plain --no-legend 'homelab*' | awk '{print $1, $3}'; \
                 find /etc /run/systemd -name '*homelab*' ! -path '/etc/homelab*' | sort; \
                 ls -d /sys/fs/cgroup/homelab* /var/lib/homelab* /var/lib/private/homelab* 2>/dev/null; true",
        )
    }

    fn remove_cgroup(&self) {
        let Ok(path) = fs::read_to_string(self.folder.path().join("cgroup")) else {
            return;
        };
        let path = PathBuf::from(path.trim());
        // The last processes of a killed server need a moment.
        for _ in 0..100 {
            remove_cgroup_tree(&path);
            if !path.exists() {
                return;
            }
            sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var_os("HOMELAB_LAB_KEEP").is_some() {
            eprintln!(
                "kept: nsenter -t {:?} -a; end this process to remove it",
                self.init()
            );
            loop {
                sleep(Duration::from_secs(3600));
            }
        }
        self.node = None;
        self.remove_cgroup();
    }
}

/// The LAN.
pub struct Home {
    /// 192.168.1.1, serves the page `router`.
    pub router: Host,
    /// 192.168.1.50.
    pub laptop: Host,
    binary: PathBuf,
    _page: Held,
    _folder: tempfile::TempDir,
}

impl Home {
    /// Router and laptop; `binary` is the program under test.
    pub fn new(binary: &Path) -> Self {
        let router = Host::new();
        // A bridge takes the lowest hardware address of its ports, and would have another one when a port comes or goes.
        router.run("ip link add br0 address 02:00:00:00:00:01 type bridge");
        router.run("ip link set br0 up");
        router.run("ip addr add 192.168.1.1/24 dev br0");
        let laptop = Host::new();
        laptop.plug_into(&router, "laptop", "192.168.1.50");
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("index.html"), "router\n").expect("a page");
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--", "nsenter", "-n", "-t"])
            .arg(router.holder.pid().to_string())
            .args(["--", "busybox", "httpd", "-f", "-p", "192.168.1.1:80", "-h"])
            .arg(folder.path());
        let page = Held::spawn(command);
        let home = Self {
            router,
            laptop,
            binary: binary.to_owned(),
            _page: page,
            _folder: folder,
        };
        let gateway = Ipv4Addr::new(192, 168, 1, 1);
        wait_for("the router's page", Duration::from_secs(10), || {
            home.laptop.page_now(gateway).as_deref() == Some("router")
        });
        home
    }

    /// Gives a server its wire and its address again.
    pub fn plug_in(&self, server: &Host, port: &str, address: &str) {
        server.plug_into(&self.router, port, address);
    }

    /// A server of that Debian suite, plugged in with that address.
    pub fn server(&self, suite: &str, port: &str, address: &str) -> Server {
        let host = Host::new();
        host.plug_into(&self.router, port, address);
        Server::new(host, suite, &self.binary, new_folder())
    }

    /// One with a disk of its own, that can lose power.
    #[allow(dead_code, reason = "the demonstration and the benchmark need it not")]
    pub fn server_with_a_disk(&self, suite: &str, port: &str, address: &str) -> Server {
        let host = Host::new();
        host.plug_into(&self.router, port, address);
        let folder = new_folder();
        make_disk(folder.path());
        Server::new(host, suite, &self.binary, folder)
    }
}

/// Asks again and again.
pub fn wait_for(what: &str, limit: Duration, mut is_there: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_there() {
        assert!(begun.elapsed() < limit, "waited in vain for {what}");
        sleep(Duration::from_millis(50));
    }
}
