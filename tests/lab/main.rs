mod home;
use home::Home;
#[test]
#[ignore]
fn sid() {
    let home = Home::new();
    let pi = home.server("sid", "pi", "192.168.1.204");
    pi.sh(r#"mkdir -p /etc/docker; echo '{"features":{"containerd-snapshotter":true}}' > /etc/docker/daemon.json; systemctl restart docker"#);
    pi.import_image("lab/web:1");
    pi.write("/etc/homelab/homelab.toml", include_str!("homelab.toml"));
    println!("{}", pi.sh("docker info | grep -i -A3 storage; exec 2>&1; homelab network-up -v; homelab env-up; homelab env-up --dry-run; docker image inspect lab/web:1 | jq '.[].Id'; docker ps -a --no-trunc --format '{{json .}}'|head -1; curl -s --unix-socket /run/docker.sock http://x/containers/json | jq '.[].ImageID'"));
}
