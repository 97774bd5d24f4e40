//! The numbers of the real home, the repository's own homelab.toml.

mod files;

pub use files::{HOME, PlanFiles};

use super::naming::mac_of;
use super::service::Dependency;
use super::{
    CompleteService, DependencyCondition, Env, Plan, PlannedSlice, Service, Volume, joined,
};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use toml::Spanned;

fn fingerprint(service: &Service) -> String {
    CompleteService::without_files(service.clone()).fingerprint()
}

fn plan_of(source: &str) -> Plan {
    PlanFiles::new(source).plan()
}

fn real_home() -> Plan {
    plan_of(include_str!("../../homelab.toml"))
}

fn env<'a>(plan: &'a Plan, name: &str) -> &'a Env {
    plan.env(name)
        .unwrap_or_else(|| unreachable!("there is no {name}"))
}

fn service<'a>(plan: &'a Plan, env_name: &str, name: &str) -> &'a Service {
    let services = &env(plan, env_name).services;
    let found = services.iter().find(|service| service.name == name);
    found.unwrap_or_else(|| unreachable!("there is no {name}"))
}

#[test]
fn one_route_covers_all_environments() {
    assert_eq!(joined(&real_home().routes, " "), "192.168.1.192/26");
}

#[test]
fn hardware_addresses_come_from_addresses() {
    let plan = real_home();
    let shims: Vec<String> = plan
        .hosts
        .iter()
        .map(|host| mac_of(host.shim).to_string())
        .collect();
    assert_eq!(shims, ["02:42:c0:a8:01:fe", "02:42:c0:a8:01:fd"]);
}

#[test]
fn services_run_where_they_are_planned() {
    let plan = real_home();
    assert_eq!(service(&plan, "prod", "whoami").host, "raspberry-pi");
    assert_eq!(service(&plan, "prod", "jellyfin").host, "n100");
    assert!(
        !env(&plan, "preprod")
            .services
            .iter()
            .any(|s| s.name == "backup")
    );
    let host = plan.host_at(&[Ipv4Addr::LOCALHOST, Ipv4Addr::new(192, 168, 1, 10)]);
    assert_eq!(host.map(|host| host.name.as_str()), Some("n100"));
}

#[test]
fn free_addresses_are_nobodys() {
    let plan = real_home();
    let free: Vec<u8> = plan
        .unassigned(env(&plan, "prod"))
        .map(|address| address.octets()[3])
        .collect();
    let expected: Vec<u8> = (192..=223)
        .filter(|last| !(200..=206).contains(last))
        .collect();
    assert_eq!(free, expected);
}

const TWO: &str = r#"
[network]
subnet = "192.168.1.0/24"
gateway = "192.168.1.1"

[shim]
address = "192.168.1.254"

[hosts.pi]
address = "192.168.1.204"
primary = true

[env.prod]
range = "192.168.1.192/27"

[env.preprod]
range = "192.168.1.224-192.168.1.249"

[services.web]
image = "web:{env}"
environment = { A = "{host}", B = "base" }
volumes = ["./{env}:/data", "named:/named"]
hostname = "{literal}"

[env.preprod.services.web]
address = "192.168.1.230"
environment = { B = "over", C = "{env}" }
volumes = ["other:/other"]
"#;

#[test]
fn overrides_replace_keys_and_merge_maps() {
    let plan = plan_of(TWO.replace("hostname = \"{literal}\"\n", "").as_str());
    let (prod, preprod) = (
        service(&plan, "prod", "web"),
        service(&plan, "preprod", "web"),
    );
    assert_eq!(
        (prod.image.as_str(), preprod.image.as_str()),
        ("web:prod", "web:preprod")
    );
    assert_eq!(
        (prod.address, preprod.address),
        (None, Some(Ipv4Addr::new(192, 168, 1, 230)))
    );
    let pairs = |service: &Service| -> Vec<String> {
        let pairs = service.environment.iter();
        pairs
            .map(|(name, value)| format!("{name}={}", value.as_deref().unwrap_or("?")))
            .collect()
    };
    assert_eq!(pairs(prod), ["A=pi", "B=base"]);
    assert_eq!(pairs(preprod), ["A=pi", "B=over", "C=preprod"]);
    assert_eq!(
        prod.volumes,
        [
            Volume::Bind {
                source: PathBuf::from("/etc/homelab/prod"),
                target: "/data".to_owned()
            },
            Volume::Named {
                name: "homelab-prod_named".to_owned(),
                target: "/named".to_owned()
            },
        ]
    );
    assert_eq!(preprod.volumes.len(), 1);
}

#[test]
fn a_fingerprint_names_the_keys_that_are_set() {
    let plan = plan_of(TWO.replace("hostname = \"{literal}\"\n", "").as_str());
    let web = service(&plan, "prod", "web");
    let keys = |service: &Service| -> Vec<String> {
        let text = fingerprint(service);
        let parts = text.split([';', '=']);
        parts
            .filter(|part| part.len() != 16)
            .map(str::to_owned)
            .collect()
    };
    assert_eq!(
        keys(web),
        ["v1", "image", "slice", "environment", "volumes"]
    );
    let mut free = web.clone();
    free.slice = None;
    // These bytes are on every container that homelab ever made; if they change, all of them are made anew.
    assert_eq!(
        fingerprint(&free),
        "v1;image=676eac422df85c75;environment=ef4ff238b2d08827;volumes=0c9aa447e3f7fc59"
    );

    let mut other = web.clone();
    other.address = Some(Ipv4Addr::new(192, 168, 1, 200));
    other.depends_on = vec![Dependency {
        service: Spanned::new(0..0, "x".to_owned()),
        condition: DependencyCondition::Healthy,
        is_required: true,
        restart: false,
    }];
    assert_eq!(
        fingerprint(&other),
        fingerprint(web),
        "the Engine is not told these"
    );
    other.command = Some(Vec::new());
    assert_eq!(
        keys(&other),
        ["v1", "image", "slice", "command", "environment", "volumes"]
    );
    // Where one word ends is part of what is setting.
    let (mut a, mut b) = (web.clone(), web.clone());
    a.command = Some(vec!["ab".to_owned(), "c".to_owned()]);
    b.command = Some(vec!["a".to_owned(), "bc".to_owned()]);
    assert_ne!(fingerprint(&a), fingerprint(&b));
}

#[test]
fn dependencies_are_a_list_or_a_table_of_starts() {
    let base = TWO.replace("hostname = \"{literal}\"\n", "");
    let db = "\n[services.db]\nimage = \"db\"\n";
    for written in [
        "depends_on = [\"db\"]",
        "depends_on = { db = {} }",
        "depends_on = { db = { condition = \"service_started\" } }",
    ] {
        let text = base.replace(
            "image = \"web:{env}\"",
            &format!("image = \"web\"\n{written}"),
        );
        let plan = plan_of(&format!("{text}{db}"));
        assert_eq!(
            service(&plan, "prod", "web")
                .depends_on
                .iter()
                .map(|dependency| (dependency.service.get_ref().as_str(), dependency.condition))
                .collect::<Vec<_>>(),
            [("db", DependencyCondition::Started)],
            "{written}"
        );
    }
}

#[test]
fn a_slice_denies_exactly_the_other_environments() {
    let plan = real_home();
    let slice = |name| {
        let slice = plan.slice(env(&plan, name));
        let Some(PlannedSlice {
            name, deny, allow, ..
        }) = slice
        else {
            unreachable!("{name} has no slice")
        };
        let deny: Vec<String> = deny.iter().map(ToString::to_string).collect();
        let allow: Vec<String> = allow.iter().map(ToString::to_string).collect();
        (name, deny.join(" "), allow.join(" "))
    };
    assert_eq!(
        slice("prod"),
        (
            "homelab-prod.slice".to_owned(),
            "192.168.1.224/28 192.168.1.240/29 192.168.1.248/31 ::/0".to_owned(),
            "::1/128".to_owned()
        )
    );
    // The Pi, .204, is a host inside the range of production.
    assert_eq!(
        slice("preprod"),
        (
            "homelab-preprod.slice".to_owned(),
            "192.168.1.192/27 ::/0".to_owned(),
            "192.168.1.204/32 ::1/128".to_owned()
        )
    );
}

#[test]
fn without_isolation_there_are_slices_for_limits_only() {
    let source = include_str!("../../homelab.toml").replace("\"enforced\"", "\"off\"");
    assert_eq!(plan_of(&source).slices().count(), 0);
    let limited = source.replace("[env.prod]", "[env.prod]\nmemory = \"1g\"\ncpus = 1.5");
    let slices: Vec<PlannedSlice> = plan_of(&limited).slices().collect();
    assert_eq!(slices.len(), 1);
    for slice in slices {
        assert_eq!(slice.limits.memory, Some(1 << 30));
        assert_eq!(slice.deny, []);
    }
}

/// The plan of two environments whose services stand in a Compose file, with a piece of homelab.toml behind it.
fn composed(native: &str, compose: &str) -> Plan {
    let addresses = [
        ("prod", "ADDRESS=192.168.1.200\n"),
        ("preprod", "ADDRESS=192.168.1.230\n"),
    ];
    PlanFiles::new(format!("{HOME}{native}"))
        .compose(compose)
        .env_files(&addresses)
        .plan()
}

#[test]
fn a_slice_allows_the_ipv6_of_its_own_bridges_alone() {
    let plan = composed(
        "",
        "services: {web: {image: web, networks: {home: {ipv4_address: $ADDRESS}, back: , wide: , away: , theirs: , older: }}}\n\
         networks:\n  \
         home: {driver: macvlan}\n  \
         back: {enable_ipv6: true, ipam: {config: [{subnet: 172.30.0.0/24}, {subnet: 'fd00:aa::1/64'}]}}\n  \
         wide: {enable_ipv6: true, ipam: {config: [{subnet: 'fe80::/64'}, {subnet: '::/0'}]}}\n  \
         away: {driver: ipvlan, enable_ipv6: true, ipam: {config: [{subnet: 'fd00:bb::/64'}]}}\n  \
         theirs: {external: true, name: theirs}\n  \
         older: {ipam: {config: [{subnet: 'fd00:cc::/64'}]}}\n",
    );
    let slice = plan.slice(env(&plan, "prod"));
    let allow = slice.map(|slice| joined(&slice.allow, " "));
    assert_eq!(
        allow.as_deref(),
        Some("::1/128 fd00:aa::/64 ff02::1:ff00:0/104")
    );
}

#[test]
fn who_has_ipv6_that_no_slice_allows_is_told_so() {
    let warnings = |network: &str, isolation: &str| {
        let home = HOME.replace(
            "[network]",
            &format!("[network]\nisolation = '{isolation}'"),
        );
        let compose = format!(
            "services: {{web: {{image: web, networks: [back]}}}}\nnetworks: {{back: {network}}}\n"
        );
        let read = PlanFiles::new(home).compose(&compose).read().0;
        let warnings = read.map_or_else(|wrong| wrong, |(_, warnings)| warnings);
        let texts = warnings.iter().map(|problem| problem.what.clone());
        texts.collect::<Vec<_>>().join("\n")
    };
    let open = "{enable_ipv6: true}";
    let said = "containers of environment `prod` reach nobody over the IPv6 of network `back`: it has no subnet that their slice could \
                allow\ncontainers of environment `preprod` reach nobody over the IPv6 of network `back`: it has no subnet that their \
                slice could allow";
    assert_eq!(warnings(open, "enforced"), said);
    assert_eq!(warnings(open, "off"), "");
    let planned = "{enable_ipv6: true, ipam: {config: [{subnet: 'fd00:aa::/64'}]}}";
    assert_eq!(warnings(planned, "enforced"), "");
    assert_eq!(warnings("{}", "enforced"), "");
}

#[test]
fn an_address_at_home_makes_a_network_the_home_network() {
    let plan = composed(
        "",
        "services:\n  web: {image: web, networks: {any: {ipv4_address: $ADDRESS, aliases: [w], driver_opts: {a: b}, interface_name: lan0, gw_priority: 5}, back: }}\n  db: {image: db, networks: [back]}\n  plain: {image: plain}\n  away: {image: away, network_mode: 'service:web'}\nnetworks: {any: {external: true, name: older}, back: {internal: true}}\n",
    );
    let web = service(&plan, "prod", "web");
    assert_eq!(web.address, Some(Ipv4Addr::new(192, 168, 1, 200)));
    assert_eq!(
        service(&plan, "preprod", "web").address,
        Some(Ipv4Addr::new(192, 168, 1, 230))
    );
    assert_eq!(
        (web.is_on_lan, web.lan.aliases.as_slice()),
        (true, ["w".to_owned()].as_slice())
    );
    let options = [("a", "b"), ("com.docker.network.endpoint.ifname", "lan0")];
    let options = options.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(web.lan.options, options.into());
    assert_eq!(web.lan.gw_priority, Some(5));
    let networks = |name: &str| -> Vec<String> {
        let networks = &service(&plan, "prod", name).networks;
        networks
            .iter()
            .map(|attachment| attachment.network.clone())
            .collect()
    };
    assert_eq!(networks("web"), ["homelab-prod_back"]);
    assert_eq!(networks("db"), ["homelab-prod_back"]);
    assert!(!service(&plan, "prod", "db").is_on_lan);
    assert!(service(&plan, "prod", "plain").is_on_lan);
    let away = service(&plan, "prod", "away");
    assert_eq!(away.network_mode.as_deref(), Some("container:web-prod"));
    assert_eq!(away.depends_on.len(), 1);
    let names: Vec<&str> = env(&plan, "prod")
        .networks
        .iter()
        .map(|n| n.name.as_str())
        .collect();
    assert_eq!(names, ["homelab-prod_back"]);
}

/// What stands in the file is on containers that live: when it changes, a new version of homelab makes them anew.
#[test]
fn fingerprints_of_all_keys_stay_as_they_are() {
    let compose = include_str!("../../tests/compose/all.yml")
        .replace("192.168.1.200", "$ADDRESS")
        .replace(
            "container_name: bb",
            "container_name: b-$COMPOSE_PROJECT_NAME",
        );
    let plan = composed("", &compose);
    let lines = env(&plan, "prod").services.iter();
    let lines = lines.map(|service| format!("{} {}\n", service.name, fingerprint(service)));
    let found: String = lines.collect();
    assert_eq!(found, include_str!("../../tests/compose/fingerprints"));
}

#[test]
fn tables_of_homelab_toml_are_laid_over_compose_services() {
    let plan = composed(
        "[services.web]\nenvironment = { B = '{env}', C = 3 }\ndns = ['9.9.9.9']\n[env.preprod.services.web]\nimage = 'web:2'\naddress = '192.168.1.240'\n[services.own]\nimage = 'own'\ncpus = 1.5\n",
        "services: {web: {image: 'web:1', environment: [A=1, B=2], dns: [1.1.1.1], user: me}}\n",
    );
    let values = |env_name: &str| -> Vec<String> {
        let environment = &service(&plan, env_name, "web").environment;
        let pair = |(name, value): (&String, &Option<String>)| {
            format!("{name}={}", value.as_deref().unwrap_or("-"))
        };
        environment.iter().map(pair).collect()
    };
    assert_eq!(values("prod"), ["A=1", "B=prod", "C=3"]);
    let web = service(&plan, "preprod", "web");
    assert_eq!(
        (web.image.as_str(), web.user.as_deref()),
        ("web:2", Some("me"))
    );
    assert_eq!(web.address, Some(Ipv4Addr::new(192, 168, 1, 240)));
    let setting = |service: &Service, key: &str| {
        service
            .engine_settings
            .get(key)
            .map(|setting| setting.value.to_string())
    };
    assert_eq!(setting(web, "dns").as_deref(), Some("[\"9.9.9.9\"]"));
    assert_eq!(
        setting(service(&plan, "prod", "own"), "cpus").as_deref(),
        Some("1500000000")
    );
}

/// The lab's kernel has no controllers, so no container there can be given processors.
#[test]
fn resources_are_told_in_the_units_of_the_engine() {
    let plan = composed(
        "",
        "services:\n  old: {image: a, cpus: 0.5, mem_limit: 64m, memswap_limit: -1, cpu_period: 50ms, pids_limit: 5}\n  new: {image: a, deploy: {resources: {limits: {cpus: '0.25', memory: 1.5g, pids: 7}, reservations: {cpus: '0.1', memory: 20M}}}}\n",
    );
    let setting = |name: &str| -> Vec<String> {
        let setting = service(&plan, "prod", name).engine_settings.values();
        setting
            .map(|setting| format!("{}={}", setting.field, setting.value))
            .collect()
    };
    assert_eq!(
        setting("old"),
        [
            "CpuPeriod=50000",
            "NanoCpus=500000000",
            "Memory=67108864",
            "MemorySwap=-1",
            "PidsLimit=5"
        ]
    );
    assert_eq!(
        setting("new"),
        [
            "NanoCpus=250000000",
            "Memory=1610612736",
            "MemoryReservation=20971520",
            "PidsLimit=7"
        ]
    );
}
