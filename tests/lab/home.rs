//! The virtual home: router, laptop and servers in network namespaces, cut off from this machine's own network.
//!
//! A namespace lives as long as the process that holds it, and every such process dies with the thread that started it, so
//! nothing stays behind whatever happens to a test.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a server may take until Docker runs; it takes about two seconds.
const BOOT: Duration = Duration::from_secs(90);

/// A process that is killed when its owner is done with it.
struct Held(Child);

impl Held {
    fn spawn(command: &mut Command) -> Self {
        Self(
            command
                .stdin(Stdio::null())
                .spawn()
                .expect("the process starts"),
        )
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
        let holder = Held::spawn(Command::new("setpriv").args([
            "--pdeathsig",
            "KILL",
            "--",
            "unshare",
            "--net",
            "sleep",
            "infinity",
        ]));
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

    /// The page that an address serves to this machine, if it does.
    pub fn page(&self, address: Ipv4Addr) -> Option<String> {
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
    binary: PathBuf,
    root: PathBuf,
    folder: tempfile::TempDir,
    node: Option<Held>,
}

impl Server {
    fn new(host: Host, suite: &str, binary: &Path) -> Self {
        let lab = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/lab");
        let root = lab.join(suite);
        assert!(
            root.is_dir(),
            "there is no {}: tests/setup.sh builds it",
            root.display()
        );
        remove_abandoned(&lab);
        let folder = tempfile::Builder::new()
            .prefix(&format!("node-{}-", std::process::id()))
            .tempdir_in(&lab)
            .expect("a folder");
        let mut server = Self {
            host: Arc::new(host),
            binary: binary.to_owned(),
            root,
            folder,
            node: None,
        };
        server.boot();
        server.install();
        server
    }

    /// Starts it and waits for Docker.
    pub fn boot(&mut self) {
        let log = fs::File::create(self.folder.path().join("log")).expect("a log");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab/node.sh");
        let node = Held::spawn(
            Command::new("setpriv")
                .args(["--pdeathsig", "KILL", "--", "bash"])
                .arg(script)
                .args([&self.root, self.folder.path()])
                .arg(self.host.holder.pid().to_string())
                .stdout(log.try_clone().expect("a log"))
                .stderr(log),
        );
        self.node = Some(node);
        wait_for("Docker in the server", BOOT, || {
            self.init().is_some() && self.try_sh("systemctl is-active -q docker").is_ok()
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
            if name != "lo" && name != "eth0" {
                let _ = self.host.output(&format!("ip link del {name}"));
            }
        }
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
        let output = self
            .command("homelab")
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
    #[allow(dead_code, reason = "the benchmark alone needs it")]
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

    /// Puts the program there. In a root with an older libc than this machine's it uses this machine's loader and libraries,
    /// which are put there too: the program must stay a program, which a unit can run and which knows its own path.
    fn install(&self) {
        self.copy(&self.binary, "/usr/local/bin/homelab");
        if self.homelab("--version").status == Some(0) {
            return;
        }
        let output = Command::new("ldd").arg(&self.binary).output();
        let libraries = String::from_utf8_lossy(&output.expect("ldd runs").stdout).into_owned();
        let mut loader = String::new();
        for path in libraries
            .split_whitespace()
            .filter(|word| word.starts_with('/'))
        {
            let name = Path::new(path).file_name().expect("a file");
            let target = format!("/opt/homelab/{}", name.to_string_lossy());
            self.copy(Path::new(path), &target);
            if target.contains("/ld-") {
                loader = target;
            }
        }
        let patched = self.folder.path().join("homelab");
        let status = Command::new("patchelf")
            .args(["--set-interpreter", &loader, "--force-rpath"])
            .args(["--set-rpath", "/opt/homelab", "--output"])
            .arg(&patched)
            .arg(&self.binary)
            .status();
        assert!(status.expect("patchelf runs").success());
        self.copy(&patched, "/usr/local/bin/homelab");
        assert_eq!(
            self.homelab("--version").status,
            Some(0),
            "homelab runs in the server"
        );
    }

    fn copy(&self, from: &Path, to: &str) {
        let file = fs::File::open(from).expect("the file is there");
        let line = format!("mkdir -p $(dirname {to}); rm -f {to}; cat >{to}; chmod 755 {to}");
        let status = self
            .command("sh")
            .args(["-c", &line])
            .stdin(file)
            .status()
            .expect("nsenter runs");
        assert!(status.success(), "{to} is written");
    }

    /// Makes the image `lab/web:1` of busybox in the server: there is no registry outside.
    pub fn import_image(&self, name: &str) {
        self.sh(&format!(
            "tar -C /srv/image -c . | docker import - {name} >/dev/null"
        ));
    }

    /// Everything on the machine that homelab could have left behind.
    pub fn leftovers(&self) -> String {
        self.sh(
            "ip -o link | cut -d: -f2 | cut -d@ -f1; ip -4 -o addr | awk '{print $2, $4}'; ip route; \
                 docker network ls --format '{{.Name}}'; docker ps -a --format '{{.Names}}'; \
                 systemctl list-units --all --plain --no-legend 'homelab*' | awk '{print $1, $3}'; \
                 find /etc /run/systemd -name '*homelab*' ! -path '/etc/homelab*' | sort; \
                 ls -d /sys/fs/cgroup/homelab* 2>/dev/null; true",
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

/// Removes what a run left that was interrupted; its processes died with it.
fn remove_abandoned(lab: &Path) {
    for entry in fs::read_dir(lab).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name
            .strip_prefix("node-")
            .and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            if let Ok(cgroup) = fs::read_to_string(entry.path().join("cgroup")) {
                remove_cgroup_tree(Path::new(cgroup.trim()));
            }
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn remove_cgroup_tree(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup_tree(&entry.path());
        }
    }
    let _ = fs::remove_dir(path);
}

/// What a run of homelab came to.
pub struct Run {
    line: String,
    /// Its exit status.
    pub status: Option<i32>,
    /// What programs read.
    pub stdout: String,
    /// What people read.
    pub stderr: String,
}

impl Run {
    /// The exit status must be this.
    #[track_caller]
    pub fn exits(self, status: i32) -> Self {
        assert_eq!(
            self.status,
            Some(status),
            "homelab {}\n{}{}",
            self.line,
            self.stdout,
            self.stderr
        );
        self
    }

    /// Standard error must contain this.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(
            self.stderr.contains(text),
            "homelab {}: {text:?} is not in\n{}",
            self.line,
            self.stderr
        );
        self
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
        let page = Held::spawn(
            Command::new("setpriv")
                .args(["--pdeathsig", "KILL", "--", "nsenter", "-n", "-t"])
                .arg(router.holder.pid().to_string())
                .args(["--", "busybox", "httpd", "-f", "-p", "192.168.1.1:80", "-h"])
                .arg(folder.path()),
        );
        let home = Self {
            router,
            laptop,
            binary: binary.to_owned(),
            _page: page,
            _folder: folder,
        };
        let gateway = Ipv4Addr::new(192, 168, 1, 1);
        wait_for("the router's page", Duration::from_secs(10), || {
            home.laptop.page(gateway).as_deref() == Some("router")
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
        Server::new(host, suite, &self.binary)
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
