//! The rules of an address plan, each a small check with a name. All of them run, so that all problems come at once.

use super::draft::{Draft, DraftEnv, DraftService};
use super::service::is_dns_label;
use super::{LINK_NAME_BYTES, PARENT_LINK_PREFIX, Problems, Range, pool};
use crate::config::{Address, Text};
use crate::problem::{Problem, Span, nearest};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use toml::Spanned;

/// Docker keeps every address that must not be given out as an entry of its own; above this many the `ip_range` is a bad fit.
const MOST_AUXILIARY: u64 = 4096;

const CHECKS: [fn(&Draft, &mut Problems); 18] = [
    what_is_needed_is_there,
    addresses_are_in_the_subnet,
    network_and_broadcast_are_nobodys,
    gateway_is_not_the_shim,
    hosts_and_shims_differ,
    environments_do_not_overlap,
    environments_keep_out_of_dhcp,
    environments_keep_out_of_what_is_taken,
    environments_are_near_each_other,
    pools_are_wide_enough,
    one_host_is_primary,
    names_fit,
    names_of_environments_exist,
    hosts_of_services_exist,
    service_addresses_are_their_environments,
    service_addresses_are_their_own,
    dependencies_exist,
    dependencies_have_an_order,
];

const WARNINGS: [fn(&Draft, &mut Problems); 4] = [
    hosts_in_dhcp,
    hosts_in_environments,
    dependencies_on_other_hosts,
    pools_beyond_private_addresses,
];

/// Runs every rule.
pub(super) fn check(draft: &Draft, problems: &mut Problems) {
    for check in CHECKS.iter().chain(&WARNINGS) {
        check(draft, problems);
    }
}

fn what_is_needed_is_there(draft: &Draft, problems: &mut Problems) {
    let config = draft.config;
    let network = config.network.span.clone();
    let mut missing = |path: &str, span: &Span, what: String, hint: &str| {
        if !config
            .unreadable
            .iter()
            .any(|unreadable| unreadable == path)
        {
            problems.push(Problem::error(span.clone(), what).hint(hint));
        }
    };
    if config.network.subnet.is_none() {
        missing(
            "network.subnet",
            &network,
            "`network.subnet` is missing".into(),
            "give the LAN, like `subnet = \"192.168.1.0/24\"` in `[network]`",
        );
    }
    if config.network.gateway.is_none() {
        missing(
            "network.gateway",
            &network,
            "`network.gateway` is missing".into(),
            "give the router's address, like `gateway = \"192.168.1.1\"` in `[network]`",
        );
    }
    if config.hosts.is_empty() {
        missing(
            "hosts",
            &network,
            "the file names no host".into(),
            "add `[hosts.NAME]` with the `address` of the machine that runs the containers",
        );
    }
    if config.envs.is_empty() {
        missing(
            "env",
            &network,
            "the file names no environment".into(),
            "add `[env.prod]` with a `range` of addresses for its containers",
        );
    }
    for host in &config.hosts {
        let name = host.name.get_ref();
        if host.address.is_none() {
            missing(
                &format!("hosts.{name}.address"),
                &host.name.span(),
                format!("`hosts.{name}.address` is missing"),
                "give the machine's own address on the LAN",
            );
        }
        if host.shim.is_none() && config.shim.address.is_none() {
            missing(
                "shim.address",
                &host.name.span(),
                format!("host `{name}` has no address for its shim"),
                "give one to all hosts by `address` in `[shim]`, or to this one by `shim`",
            );
        }
    }
    for env in &config.envs {
        let name = env.name.get_ref();
        if env.range.is_none() {
            missing(
                &format!("env.{name}.range"),
                &env.name.span(),
                format!("`env.{name}.range` is missing"),
                "give the addresses of its containers, like `range = \"192.168.1.192/27\"`",
            );
        }
        for service in draft
            .envs
            .iter()
            .filter(|e| e.name.get_ref() == name)
            .flat_map(|e| &e.services)
        {
            let service_name = service.name.get_ref();
            if service.keys.image.is_none() {
                missing(
                    &format!("services.{service_name}.image"),
                    &service.name.span(),
                    format!("service `{service_name}` has no image"),
                    "give it one, like `image = \"traefik/whoami:v1.10\"`",
                );
            }
        }
    }
}

/// Every single address that the file gives to a machine, with what it is.
fn machine_addresses(draft: &Draft) -> Vec<(Spanned<Ipv4Addr>, String)> {
    let mut all = Vec::new();
    if let Some(gateway) = &draft.gateway {
        all.push((gateway.clone(), "the gateway".to_owned()));
    }
    for host in &draft.hosts {
        let name = host.name.get_ref();
        if let Some(address) = &host.address {
            all.push((address.clone(), format!("host `{name}`")));
        }
        if let Some(shim) = &host.shim {
            all.push((shim.clone(), shim_of(host.has_own_shim, name)));
        }
    }
    all
}

fn shim_of(has_own: bool, host: &str) -> String {
    if has_own {
        format!("the shim of host `{host}`")
    } else {
        "the shim".to_owned()
    }
}

fn ranges(draft: &Draft) -> Vec<(Spanned<Range>, String)> {
    let mut all = Vec::new();
    if let Some(dhcp) = &draft.dhcp {
        all.push((dhcp.clone(), "the DHCP range".to_owned()));
    }
    for (name, range) in &draft.reserved {
        all.push((range.clone(), format!("reservation `{}`", name.get_ref())));
    }
    for env in &draft.envs {
        if let Some(range) = &env.range {
            all.push((
                range.clone(),
                format!("environment `{}`", env.name.get_ref()),
            ));
        }
    }
    all
}

fn addresses_are_in_the_subnet(draft: &Draft, problems: &mut Problems) {
    let Some(subnet) = &draft.subnet else { return };
    let net = *subnet.get_ref();
    let outside = |span: Span, what: String| {
        Problem::error(span, what)
            .label("outside the subnet")
            .context(subnet.span(), "the subnet")
            .hint(format!("choose addresses of {net}"))
    };
    for (address, what) in machine_addresses(draft) {
        if !net.contains(address.get_ref()) {
            let what = format!("`{}`, {what}, is outside the subnet", address.get_ref());
            problems.push(outside(address.span(), what));
        }
    }
    for (range, what) in ranges(draft) {
        if !range.get_ref().is_inside(net) {
            let what = format!("`{}`, {what}, is outside the subnet", range.get_ref());
            problems.push(outside(range.span(), what));
        }
    }
}

fn network_and_broadcast_are_nobodys(draft: &Draft, problems: &mut Problems) {
    let Some(net) = draft.subnet.as_ref().map(|subnet| *subnet.get_ref()) else {
        return;
    };
    for (address, what) in machine_addresses(draft) {
        let kind = match *address.get_ref() {
            a if a == net.network() => "network",
            a if a == net.broadcast() => "broadcast",
            _ => continue,
        };
        problems.push(Problem::error(
            address.span(),
            format!(
                "`{}`, {what}, is the {kind} address of the subnet",
                address.get_ref()
            ),
        ));
    }
}

fn gateway_is_not_the_shim(draft: &Draft, problems: &mut Problems) {
    let Some(gateway) = &draft.gateway else {
        return;
    };
    for host in &draft.hosts {
        let Some(shim) = &host.shim else { continue };
        if shim.get_ref() == gateway.get_ref() {
            let what = shim_of(host.has_own_shim, host.name.get_ref());
            problems.push(
                Problem::error(
                    shim.span(),
                    format!("`{}` is the gateway and {what} at once", shim.get_ref()),
                )
                .context(gateway.span(), "the gateway")
                .hint("give the shim an address that no other machine has"),
            );
        }
    }
}

fn hosts_and_shims_differ(draft: &Draft, problems: &mut Problems) {
    let mut seen: Vec<(Spanned<Ipv4Addr>, String, bool)> = Vec::new();
    for host in &draft.hosts {
        let name = host.name.get_ref();
        let address = host
            .address
            .clone()
            .map(|a| (a, format!("host `{name}`"), false));
        let shim = host
            .shim
            .clone()
            .map(|a| (a, format!("the shim of host `{name}`"), true));
        for (address, what, is_shim) in [address, shim].into_iter().flatten() {
            let first = seen
                .iter()
                .find(|(other, _, _)| other.get_ref() == address.get_ref());
            let Some((other, other_what, _)) = first else {
                seen.push((address, what, is_shim));
                continue;
            };
            // Where both take the address of `[shim]`, the place to change is the second host.
            let span = if other.span() == address.span() {
                host.name.span()
            } else {
                address.span()
            };
            let hint = if is_shim {
                "two machines that answer for one address break each other; give this host a `shim` of its own"
            } else {
                "two machines that answer for one address break each other; give each its own"
            };
            problems.push(
                Problem::error(
                    span,
                    format!(
                        "`{}` is the address of {other_what} and of {what}",
                        address.get_ref()
                    ),
                )
                .context(other.span(), format!("{other_what} has it"))
                .hint(hint),
            );
        }
    }
}

fn env_ranges<'a>(draft: &'a Draft) -> impl Iterator<Item = (&'a DraftEnv, Range, Span)> {
    draft.envs.iter().filter_map(|env| {
        let range = env.range.as_ref()?;
        Some((env, *range.get_ref(), range.span()))
    })
}

fn environments_do_not_overlap(draft: &Draft, problems: &mut Problems) {
    let all: Vec<_> = env_ranges(draft).collect();
    for (index, (env, range, span)) in all.iter().enumerate() {
        for (other, other_range, other_span) in all.iter().take(index) {
            if range.overlaps(*other_range) {
                problems.push(
                    Problem::error(
                        span.clone(),
                        format!(
                            "environments `{}` and `{}` overlap",
                            other.name.get_ref(),
                            env.name.get_ref()
                        ),
                    )
                    .context(other_span.clone(), format!("`{}`", other.name.get_ref()))
                    .hint("an address belongs to one environment"),
                );
            }
        }
    }
}

fn environments_keep_out_of_dhcp(draft: &Draft, problems: &mut Problems) {
    let Some(dhcp) = &draft.dhcp else { return };
    for (env, range, span) in env_ranges(draft) {
        if range.overlaps(*dhcp.get_ref()) {
            problems.push(
                Problem::error(
                    span,
                    format!(
                        "environment `{}` reaches into the DHCP range",
                        env.name.get_ref()
                    ),
                )
                .context(dhcp.span(), "the router hands these out")
                .hint("end the router's range earlier, or choose other addresses"),
            );
        }
    }
}

fn environments_keep_out_of_what_is_taken(draft: &Draft, problems: &mut Problems) {
    let Some(net) = draft.subnet.as_ref().map(|subnet| *subnet.get_ref()) else {
        return;
    };
    for (env, range, span) in env_ranges(draft).filter(|(_, range, _)| range.is_inside(net)) {
        let name = env.name.get_ref();
        let inside = |what: String, place: Option<Span>| {
            let problem = Problem::error(
                span.clone(),
                format!("{what} is inside the range of environment `{name}`"),
            )
            .hint("move one of the two; containers get addresses from the whole range");
            match place {
                Some(place) => problem.context(place, "inside the range"),
                None => problem,
            }
        };
        for (address, what) in [
            (net.network(), "the network address"),
            (net.broadcast(), "the broadcast address"),
        ] {
            if range.contains(address) {
                problems.push(inside(format!("`{address}`, {what} of the subnet,"), None));
            }
        }
        if let Some(gateway) = &draft.gateway
            && range.contains(*gateway.get_ref())
        {
            let what = format!("`{}`, the gateway,", gateway.get_ref());
            problems.push(inside(what, Some(gateway.span())));
        }
        for host in &draft.hosts {
            if let Some(shim) = &host.shim
                && range.contains(*shim.get_ref())
            {
                let whose = shim_of(host.has_own_shim, host.name.get_ref());
                let what = format!("`{}`, {whose},", shim.get_ref());
                problems.push(inside(what, Some(shim.span())));
            }
        }
        for (reservation, reserved) in &draft.reserved {
            if range.overlaps(*reserved.get_ref()) {
                let what = format!(
                    "`{}`, reservation `{}`,",
                    reserved.get_ref(),
                    reservation.get_ref()
                );
                problems.push(inside(what, Some(reserved.span())));
            }
        }
    }
}

/// One route of the shim leads to all environments; it must not take the gateway or the whole LAN with it.
fn environments_are_near_each_other(draft: &Draft, problems: &mut Problems) {
    let (Some(subnet), Some(gateway)) = (&draft.subnet, &draft.gateway) else {
        return;
    };
    let net = *subnet.get_ref();
    let ranges: Vec<_> = env_ranges(draft).collect();
    let gateway = *gateway.get_ref();
    let is_wrong = |range: &Range| !range.is_inside(net) || range.contains(gateway);
    if ranges.iter().any(|(_, range, _)| is_wrong(range)) {
        return;
    }
    let Some(route) = Range::cover(ranges.iter().map(|(_, range, _)| *range)) else {
        return;
    };
    let (Some((_, _, first)), Some((_, _, last))) = (
        ranges.iter().min_by_key(|(_, range, _)| range.first()),
        ranges.iter().max_by_key(|(_, range, _)| range.last()),
    ) else {
        return;
    };
    let what = if route == net {
        format!(
            "the environments reach over the whole subnet: the shim's route to them would be {route}, which is the LAN itself"
        )
    } else if route.contains(&gateway) {
        format!("the environments surround the gateway: the shim's route to them would be {route}")
    } else {
        return;
    };
    let problem = Problem::error(last.clone(), what)
        .hint("choose ranges that lie together in one half of the subnet, without the gateway");
    problems.push(if first == last {
        problem
    } else {
        problem.context(first.clone(), "the first range")
    });
}

fn pools_are_wide_enough(draft: &Draft, problems: &mut Problems) {
    let Some(net) = draft.subnet.as_ref().map(|subnet| *subnet.get_ref()) else {
        return;
    };
    for (index, (env, range, span)) in env_ranges(draft).enumerate() {
        let name = env.name.get_ref();
        let step = u8::try_from(index).unwrap_or(u8::MAX);
        if pool(net, step).is_none() {
            problems.push(
                Problem::error(
                    span.clone(),
                    format!("there is no pool left for environment `{name}`"),
                )
                .hint("each environment needs a subnet one bit wider than the one before; use fewer environments"),
            );
        }
        let Some(cover) = Range::cover([range]) else {
            continue;
        };
        let outside = Range::of(cover).len() - range.len();
        if outside > MOST_AUXILIARY {
            problems.push(
                Problem::error(
                    span,
                    format!(
                        "the range of environment `{name}` fits no CIDR: {cover}, the smallest, has {outside} addresses more"
                    ),
                )
                .hint("begin the range at a multiple of its size"),
            );
        }
    }
}

fn one_host_is_primary(draft: &Draft, problems: &mut Problems) {
    let mut primaries = draft.hosts.iter().filter(|host| host.primary.is_some());
    let first = primaries.next();
    if let Some(first) = first {
        for host in primaries {
            problems.push(
                Problem::error(
                    host.primary.clone().unwrap_or_default(),
                    format!(
                        "hosts `{}` and `{}` are both primary",
                        first.name.get_ref(),
                        host.name.get_ref()
                    ),
                )
                .context(first.primary.clone().unwrap_or_default(), "the first one")
                .hint("services without a `host` run on the primary one; there is one"),
            );
        }
        return;
    }
    if draft
        .config
        .unreadable
        .iter()
        .any(|path| path.ends_with(".primary"))
    {
        return;
    }
    let homeless = draft
        .envs
        .iter()
        .flat_map(|env| &env.services)
        .filter(|service| service.host.is_none());
    for service in homeless {
        problems.push(
            Problem::error(
                service.name.span(),
                format!(
                    "service `{}` names no host, and no host is primary",
                    service.name.get_ref()
                ),
            )
            .hint("set `primary = true` in the table of one host, or give the service a `host`"),
        );
    }
}

fn names_fit(draft: &Draft, problems: &mut Problems) {
    let mut links: Vec<&Text> = vec![&draft.shim_name];
    links.extend(draft.hosts.iter().filter_map(|host| host.parent.as_ref()));
    for name in links {
        let text = name.get_ref();
        // dev_valid_name() of the kernel.
        let fits = (1..=LINK_NAME_BYTES).contains(&text.len())
            && !text.contains(|c: char| c == '/' || c == ':' || c.is_whitespace())
            && text != "."
            && text != "..";
        if !fits {
            problems.push(
                Problem::error(
                    name.span(),
                    format!("`{text}` cannot be the name of a link"),
                )
                .hint(format!(
                    "links have 1 to {LINK_NAME_BYTES} bytes, without spaces, `/` and `:`"
                )),
            );
        }
    }
    let shim = draft.shim_name.get_ref();
    for host in &draft.hosts {
        if let Some(parent) = host.parent.as_ref().filter(|p| p.get_ref() == shim) {
            problems.push(
                Problem::error(
                    parent.span(),
                    format!("`{shim}` is the parent and the shim at once"),
                )
                .hint("the parent is the interface that is there already, like `eth0`"),
            );
        }
        label_fits("host", &host.name, 63, "", problems);
    }
    let most = LINK_NAME_BYTES - PARENT_LINK_PREFIX.len();
    for env in &draft.envs {
        let why = format!(
            "; the link `{PARENT_LINK_PREFIX}{}` has at most {LINK_NAME_BYTES} bytes",
            env.name.get_ref()
        );
        label_fits("environment", &env.name, most, &why, problems);
    }
    for service in &draft.config.services {
        label_fits("service", &service.name, 63, "", problems);
    }
    container_names_differ(draft, problems);
}

fn label_fits(kind: &str, name: &Text, most: usize, why: &str, problems: &mut Problems) {
    let text = name.get_ref();
    if is_dns_label(text) && text.len() <= most {
        return;
    }
    problems.push(
        Problem::error(name.span(), format!("`{text}` cannot be the name of {} {kind}", article(kind))).hint(
            format!(
                "names are DNS labels: 1 to {most} of `a` to `z`, `0` to `9` and `-`, no `-` at the ends{}",
                if text.len() > most { why } else { "" }
            ),
        ),
    );
}

fn article(kind: &str) -> &'static str {
    if kind.starts_with('e') { "an" } else { "a" }
}

/// `a-b` in `c` and `a` in `b-c` would both be the container `a-b-c`.
fn container_names_differ(draft: &Draft, problems: &mut Problems) {
    let mut seen: BTreeMap<String, (&DraftService, &DraftEnv)> = BTreeMap::new();
    for env in &draft.envs {
        for service in &env.services {
            let container = format!("{}-{}", service.name.get_ref(), env.name.get_ref());
            if let Some((other, other_env)) = seen.insert(container.clone(), (service, env)) {
                problems.push(
                    Problem::error(
                        service.name.span(),
                        format!(
                            "services `{}` in `{}` and `{}` in `{}` would share the container name `{container}`",
                            other.name.get_ref(),
                            other_env.name.get_ref(),
                            service.name.get_ref(),
                            env.name.get_ref()
                        ),
                    )
                    .hint("rename one of the services"),
                );
            }
        }
    }
}

fn names_of_environments_exist(draft: &Draft, problems: &mut Problems) {
    let known = || draft.envs.iter().map(|env| env.name.get_ref().as_str());
    let mut names: Vec<(&Text, String)> = Vec::new();
    if let Some(name) = &draft.config.default_env {
        names.push((name, "`default_env`".to_owned()));
    }
    for service in &draft.config.services {
        if let Some(Address::PerEnv(pairs)) = &service.address {
            let what = format!("service `{}`", service.name.get_ref());
            names.extend(pairs.iter().map(|(env, _)| (env, what.clone())));
        }
    }
    for (name, what) in names {
        let text = name.get_ref();
        if !known().any(|env| env == text) {
            problems.push(not_there(
                name.span(),
                format!("{what} names environment `{text}`, which does not exist"),
                text,
                &known().collect::<Vec<_>>(),
                "environments",
            ));
        }
    }
}

fn hosts_of_services_exist(draft: &Draft, problems: &mut Problems) {
    let known: Vec<&str> = draft
        .hosts
        .iter()
        .map(|host| host.name.get_ref().as_str())
        .collect();
    for service in draft.envs.iter().flat_map(|env| &env.services) {
        let Some(host) = &service.keys.host else {
            continue;
        };
        if !known.contains(&host.get_ref().as_str()) {
            problems.push(not_there(
                host.span(),
                format!(
                    "service `{}` runs on host `{}`, which does not exist",
                    service.name.get_ref(),
                    host.get_ref()
                ),
                host.get_ref(),
                &known,
                "hosts",
            ));
        }
    }
}

fn not_there(span: Span, what: String, name: &str, known: &[&str], kind: &str) -> Problem {
    let problem = Problem::error(span, what);
    match nearest(name, known.iter().copied()) {
        Some(near) => problem.hint(format!("did you mean `{near}`?")),
        None if known.is_empty() => problem,
        None => problem.hint(format!("the {kind} are `{}`", known.join("`, `"))),
    }
}

fn service_addresses_are_their_environments(draft: &Draft, problems: &mut Problems) {
    for (env, range, span) in env_ranges(draft) {
        for service in &env.services {
            let Some(address) = &service.address else {
                continue;
            };
            if !range.contains(*address.get_ref()) {
                problems.push(
                    Problem::error(
                        address.span(),
                        format!(
                            "`{}` of service `{}` is outside the range of environment `{}`",
                            address.get_ref(),
                            service.name.get_ref(),
                            env.name.get_ref()
                        ),
                    )
                    .label(format!("not in {range}"))
                    .context(span.clone(), "the range"),
                );
            }
        }
    }
}

fn service_addresses_are_their_own(draft: &Draft, problems: &mut Problems) {
    let mut seen: BTreeMap<Ipv4Addr, (Span, String)> = BTreeMap::new();
    for host in &draft.hosts {
        if let Some(address) = &host.address {
            let what = format!("host `{}`", host.name.get_ref());
            seen.insert(*address.get_ref(), (address.span(), what));
        }
    }
    for env in &draft.envs {
        for service in &env.services {
            let Some(address) = &service.address else {
                continue;
            };
            let name = service.name.get_ref();
            if let Some((place, owner)) = seen.get(address.get_ref()) {
                problems.push(
                    Problem::error(
                        address.span(),
                        format!(
                            "`{}` of service `{name}` is the address of {owner}",
                            address.get_ref()
                        ),
                    )
                    .context(place.clone(), format!("{owner} has it"))
                    .hint("choose an address that nothing else has"),
                );
            } else {
                let what = format!("service `{name}`");
                seen.insert(*address.get_ref(), (address.span(), what));
            }
        }
    }
}

fn dependencies(service: &DraftService) -> &[Text] {
    service.keys.depends_on.as_deref().unwrap_or_default()
}

fn dependencies_exist(draft: &Draft, problems: &mut Problems) {
    for env in &draft.envs {
        let known: Vec<&str> = env
            .services
            .iter()
            .map(|service| service.name.get_ref().as_str())
            .collect();
        for service in &env.services {
            for dependency in dependencies(service) {
                let name = dependency.get_ref();
                if known.contains(&name.as_str()) {
                    continue;
                }
                let (service, env_name) = (service.name.get_ref(), env.name.get_ref());
                problems.push(if env.disabled.contains(name) {
                    let what = format!(
                        "service `{service}` depends on `{name}`, which is not enabled in environment `{env_name}`"
                    );
                    Problem::error(dependency.span(), what).hint(format!(
                        "enable `{name}` there, or give `{service}` another `depends_on` in `[env.{env_name}.services.{service}]`"
                    ))
                } else {
                    let what =
                        format!("service `{service}` depends on `{name}`, which does not exist");
                    not_there(dependency.span(), what, name, &known, "services")
                });
            }
        }
    }
}

fn dependencies_have_an_order(draft: &Draft, problems: &mut Problems) {
    for env in &draft.envs {
        let mut waiting: Vec<&DraftService> = env.services.iter().collect();
        // Take away whoever waits for nobody until nobody is left; those who stay wait for each other.
        loop {
            let before = waiting.len();
            let names: Vec<String> = waiting.iter().map(|s| s.name.get_ref().clone()).collect();
            waiting.retain(|service| {
                dependencies(service)
                    .iter()
                    .any(|dependency| names.contains(dependency.get_ref()))
            });
            if waiting.len() == before {
                break;
            }
        }
        let names: Vec<&str> = waiting.iter().map(|s| s.name.get_ref().as_str()).collect();
        let circle = waiting.iter().find_map(|service| {
            let dependency = dependencies(service)
                .iter()
                .find(|d| names.contains(&d.get_ref().as_str()))?;
            Some((service, dependency))
        });
        if let Some((service, dependency)) = circle {
            problems.push(
                Problem::error(
                    dependency.span(),
                    format!(
                        "service `{}` waits for itself: `{}` depend on each other in a circle",
                        service.name.get_ref(),
                        names.join("`, `")
                    ),
                )
                .hint("take one `depends_on` away"),
            );
        }
    }
}

fn hosts_in_dhcp(draft: &Draft, problems: &mut Problems) {
    let Some(dhcp) = &draft.dhcp else { return };
    for (address, what) in machine_addresses(draft) {
        if what != "the gateway" && dhcp.get_ref().contains(*address.get_ref()) {
            problems.push(
                Problem::warning(
                    address.span(),
                    format!("`{}`, {what}, is inside the DHCP range", address.get_ref()),
                )
                .context(dhcp.span(), "the router hands these out")
                .hint("reserve it in the router, so that nobody else gets it"),
            );
        }
    }
}

fn hosts_in_environments(draft: &Draft, problems: &mut Problems) {
    for (env, range, span) in env_ranges(draft) {
        for host in &draft.hosts {
            if let Some(address) = &host.address
                && range.contains(*address.get_ref())
            {
                problems.push(
                    Problem::warning(
                        address.span(),
                        format!(
                            "`{}`, host `{}`, is inside the range of environment `{}`",
                            address.get_ref(),
                            host.name.get_ref(),
                            env.name.get_ref()
                        ),
                    )
                    .context(span.clone(), "the range")
                    .hint(
                        "it is kept from containers; an address outside the range would be clearer",
                    ),
                );
            }
        }
    }
}

fn dependencies_on_other_hosts(draft: &Draft, problems: &mut Problems) {
    for env in &draft.envs {
        for service in &env.services {
            for dependency in dependencies(service) {
                let other = env
                    .services
                    .iter()
                    .find(|other| other.name.get_ref() == dependency.get_ref());
                if let Some(other) = other
                    && let (Some(here), Some(there)) = (&service.host, &other.host)
                    && here != there
                {
                    problems.push(
                        Problem::warning(
                            dependency.span(),
                            format!(
                                "service `{}` depends on `{}`, which runs on host `{there}`",
                                service.name.get_ref(),
                                dependency.get_ref()
                            ),
                        )
                        .hint(format!(
                            "hosts do not wait for each other; start `{there}` first"
                        )),
                    );
                }
            }
        }
    }
}

/// Containers take the whole pool for on-link, so a pool that reaches public addresses hides those from them.
fn pools_beyond_private_addresses(draft: &Draft, problems: &mut Problems) {
    let Some(net) = draft.subnet.as_ref().map(|subnet| *subnet.get_ref()) else {
        return;
    };
    if !net.network().is_private() {
        return;
    }
    for (index, (env, _, span)) in env_ranges(draft).enumerate() {
        let Some(pool) = u8::try_from(index).ok().and_then(|step| pool(net, step)) else {
            continue;
        };
        if !pool.network().is_private() || !pool.broadcast().is_private() {
            problems.push(
                Problem::warning(
                    span,
                    format!(
                        "containers of environment `{}` will take all of {pool} for their LAN, public addresses too",
                        env.name.get_ref()
                    ),
                )
                .hint("each further environment needs a pool one bit wider; a smaller subnet keeps it private"),
            );
        }
    }
}
