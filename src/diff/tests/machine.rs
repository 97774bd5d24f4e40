//! What the kernel and the Engine make of a step, on a state instead of a machine. What they would refuse fails the test.

use crate::diff::Step;
use crate::diff::step::{
    Action, ContainerAction, ImageAction, LinkAction, NetworkAction, NewContainer, NewNetwork,
    UnitAction, VolumeAction,
};
use crate::plan::naming::{
    LABEL_COMPOSE_NETWORK, LABEL_ENVIRONMENT, LABEL_FINGERPRINT, LABEL_SERVICE, SHIM_UNIT,
    compose_label, network_name, successor_name,
};
use crate::plan::{DependencyCondition, ip_range, unit_files};
use crate::state::{
    Api, Container, Docker, Endpoint, Health, Link, Network, Pool, Slice, State, Systemd, Trial,
};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};

/// Carries a step out.
pub(super) fn carry_out(step: &Step, state: &mut State) {
    match &step.action {
        Action::Link(action) => ask_kernel(action, state),
        Action::Unit(action) => ask_systemd(action, &mut state.systemd),
        Action::Network(action) => ask_about_network(action, step.id, state),
        Action::Volume(VolumeAction::Create(volume)) => {
            state.docker.volumes.push(volume.name.clone());
        }
        Action::Image(ImageAction::Pull { image, .. }) => {
            let id = format!("sha256:{image}");
            state.docker.images.insert(image.clone(), id);
        }
        Action::Container(action) => ask_about_container(action, step.id, state),
    }
}

fn ask_kernel(action: &LinkAction, state: &mut State) {
    let link = |state: &mut State, name: &str, change: &dyn Fn(&mut Link)| {
        let found = state.links.iter_mut().find(|link| link.name == name);
        change(found.unwrap_or_else(|| unreachable!("there is no link {name}")));
    };
    match action {
        LinkAction::Add { name, parent, mac } => {
            assert!(state.link(name).is_none(), "link {name} exists");
            assert!(state.link(parent).is_some(), "there is no link {parent}");
            state.links.push(Link {
                name: name.clone(),
                kind: "macvlan".to_owned(),
                mode: Some("bridge".to_owned()),
                parent: Some(parent.clone()),
                mac: Some(*mac),
                ipv6: state.ipv6_switch,
                ..Link::default()
            });
        }
        LinkAction::Delete { name } => {
            let used = state
                .docker
                .networks
                .iter()
                .any(|n| n.parent.as_ref() == Some(name));
            assert!(!used, "a network stands on {name}");
            state.links.retain(|link| link.name != *name);
            state.routes.retain(|route| route.link != *name);
        }
        LinkAction::SetAlias { name, alias } => {
            link(state, name, &|link| link.alias = Some(alias.clone()));
        }
        LinkAction::SetArpFilter { name } => link(state, name, &|link| link.arp_filter = true),
        LinkAction::DisableIpv6 { name } => {
            assert!(state.ipv6_switch, "there is no switch");
            link(state, name, &|link| link.ipv6 = false);
        }
        LinkAction::SetMtu { name, mtu } => link(state, name, &|link| link.mtu = Some(*mtu)),
        LinkAction::AddAddress { name, address } => {
            link(state, name, &|link| link.addresses.push(*address));
        }
        LinkAction::SetUp { name } => {
            assert_own_address(name, &state.links);
            link(state, name, &|link| (link.up, link.carrier) = (true, true));
        }
        LinkAction::AddRoute(route) => {
            assert!(
                state.link(&route.link).is_some_and(|link| link.up),
                "{} is down",
                route.link
            );
            let mut routes = state.routes.iter();
            let clashes =
                routes.any(|r| r.destination == route.destination && r.metric == route.metric);
            assert!(!clashes, "there is a route to {}", route.destination);
            state.routes.push(route.clone());
        }
        LinkAction::DeleteRoute(route) => state.routes.retain(|found| found != route),
    }
}

/// The kernel lets no two macvlan links of one hardware address be up.
fn assert_own_address(name: &str, links: &[Link]) {
    let own = links.iter().find(|link| link.name == name);
    let mac = own.and_then(|link| link.mac);
    let mut others = links.iter().filter(|other| other.name != name && other.up);
    assert!(
        !others.any(|other| other.mac == mac),
        "two links, one address"
    );
}

fn ask_systemd(action: &UnitAction, systemd: &mut Systemd) {
    match action {
        UnitAction::WriteSlice { slice, .. } => {
            let mut written = systemd.slice(&slice.name).cloned().unwrap_or_default();
            written.name.clone_from(&slice.name);
            written.file = Some(unit_files::slice(slice));
            (written.pending, written.stale) = (true, written.active);
            systemd.slices.retain(|found| found.name != slice.name);
            systemd.slices.push(written);
        }
        UnitAction::WriteFile { path, text, is_new } => {
            let before = systemd.shim.files.insert(path.clone(), text.clone());
            assert_eq!(before.is_none(), *is_new, "{path}");
            if *path == unit_files::path(SHIM_UNIT) {
                systemd.shim.program_fault = None;
            }
            systemd.shim.stale |= path.starts_with(unit_files::FOLDER) && systemd.shim.active;
        }
        UnitAction::ReloadManager { name } => {
            assert_eq!(
                systemd.shim.managers.get(name),
                Some(&true),
                "{name} does not run"
            );
        }
        UnitAction::Enable { name } | UnitAction::Disable { name } => {
            let path = unit_files::path(name);
            assert!(systemd.shim.files.contains_key(&path), "there is no {path}");
            systemd.shim.enabled = matches!(action, UnitAction::Enable { .. });
        }
        UnitAction::Start { name } | UnitAction::Restart { name } => {
            let path = unit_files::path(name);
            assert!(systemd.shim.files.contains_key(&path), "there is no {path}");
            assert!(!systemd.shim.stale, "{name} was not read");
            systemd.shim.active = true;
        }
        UnitAction::ReloadSystemd => {
            systemd.shim.stale = false;
            for slice in systemd.slices.iter_mut().filter(|s| s.overrides.is_empty()) {
                slice.stale = false;
                (slice.deny, slice.allow) = (listed(slice, "Deny"), listed(slice, "Allow"));
            }
        }
        UnitAction::ApplySlice { name, denied } => {
            let found = systemd.slices.iter_mut().find(|slice| slice.name == *name);
            let slice = found.unwrap_or_else(|| unreachable!("there is no slice {name}"));
            assert!(!slice.stale, "{name} was not read");
            slice.pending = false;
            if !denied.is_empty() {
                (slice.active, slice.trial) = (true, Some(Trial::Refused));
            }
        }
        UnitAction::RemoveFile { path } => remove_file(path, systemd),
        UnitAction::RemoveFolder { path } => {
            assert!(!systemd.shim.active, "the service keeps files in {path}");
            systemd.shim.state.retain(|found| found != path);
        }
        UnitAction::Stop { name } => stop(name, systemd),
    }
}

fn remove_file(path: &str, systemd: &mut Systemd) {
    systemd.unfinished.retain(|found| found != path);
    if systemd.shim.files.remove(path).is_some() {
        systemd.shim.stale |= path.starts_with(unit_files::FOLDER) && systemd.shim.active;
    }
    for slice in &mut systemd.slices {
        slice.overrides.retain(|found| found != path);
        if unit_files::path(&slice.name) == path {
            assert!(!slice.active, "{} runs", slice.name);
            slice.file = None;
        }
    }
    systemd
        .slices
        .retain(|slice| slice.active || slice.file.is_some());
}

fn stop(name: &str, systemd: &mut Systemd) {
    systemd.shim.active &= name != SHIM_UNIT;
    for slice in &mut systemd.slices {
        assert!(
            slice.name != name || !slice.populated,
            "{name} has processes"
        );
        slice.active &= slice.name != name;
    }
    systemd
        .slices
        .retain(|slice| slice.active || slice.file.is_some());
}

/// What systemd reads of a slice's file.
fn listed(slice: &Slice, what: &str) -> Vec<IpNet> {
    let key = format!("IPAddress{what}=");
    let text = slice.file.as_deref().unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(&key));
    let words = line.unwrap_or_default().split_whitespace();
    words.filter_map(|word| word.parse().ok()).collect()
}

fn ask_about_network(action: &NetworkAction, step: usize, state: &mut State) {
    let State { links, docker, .. } = state;
    let id = made_id(step, docker);
    match action {
        NetworkAction::Create(new) => create_network(new, id, links, docker),
        NetworkAction::Remove { name, id } => {
            assert!(
                docker.attached(name).is_empty(),
                "containers are attached to {name}"
            );
            docker.networks.retain(|network| network.id != *id);
        }
        NetworkAction::CreateCompose(network) => {
            assert!(
                docker.network(&network.name).is_none(),
                "{} exists",
                network.name
            );
            docker.networks.push(Network {
                name: network.name.clone(),
                id,
                driver: "bridge".to_owned(),
                labels: BTreeMap::from([
                    (LABEL_COMPOSE_NETWORK.to_owned(), network.env.clone()),
                    (LABEL_FINGERPRINT.to_owned(), network.fingerprint()),
                ]),
                ..Network::default()
            });
        }
    }
}

fn create_network(new: &NewNetwork, id: String, links: &[Link], docker: &mut Docker) {
    let name = network_name(&new.env);
    assert!(docker.network(&name).is_none(), "network {name} exists");
    let mut pools = docker.networks.iter().flat_map(|network| &network.pools);
    assert!(
        !pools.any(|pool| pool.subnet == new.subnet),
        "the gateway of {} is taken",
        new.subnet
    );
    let is_parent = |network: &Network| network.parent.as_ref() == Some(&new.parent);
    let shares = docker.api >= Api::SHARED_PARENT;
    assert!(
        shares || !docker.networks.iter().any(is_parent),
        "{} is taken",
        new.parent
    );
    assert!(
        links.iter().any(|link| link.name == new.parent),
        "no {}",
        new.parent
    );
    docker.networks.push(Network {
        name,
        id,
        driver: "macvlan".to_owned(),
        parent: Some(new.parent.clone()),
        mode: Some("bridge".to_owned()),
        pools: vec![Pool {
            subnet: new.subnet,
            ip_range: Some(ip_range(new.gateway)),
            gateway: Some(new.gateway),
            auxiliary: Vec::new(),
        }],
        labels: BTreeMap::from([(LABEL_ENVIRONMENT.to_owned(), new.env.clone())]),
    });
}

/// An id that nothing had before.
fn made_id(step: usize, docker: &Docker) -> String {
    let count = docker.networks.len() + docker.containers.len() + step;
    format!("made-{count}")
}

fn unpause(name: &str, docker: &mut Docker) {
    let container = docker.containers.iter_mut().find(|c| c.name == name);
    let container = container.unwrap_or_else(|| unreachable!("no {name}"));
    assert_eq!(container.state, "paused");
    "running".clone_into(&mut container.state);
}

fn ask_about_container(action: &ContainerAction, step: usize, state: &mut State) {
    let id = made_id(step, &state.docker);
    let docker = &mut state.docker;
    match action {
        ContainerAction::JoinNetwork {
            name, attachment, ..
        } => {
            let network = attachment.network.clone();
            assert!(
                docker.network(&network).is_some(),
                "there is no network {network}"
            );
            let joins = docker.containers.iter_mut().find(|c| c.name == *name);
            let joins = joins.unwrap_or_else(|| unreachable!("no {name}"));
            joins.networks.insert(network, Endpoint::default());
        }
        ContainerAction::PutFiles { name, .. } => {
            assert!(
                docker.container(name).is_some_and(|c| !c.is_running()),
                "{name} runs"
            );
        }
        ContainerAction::Replace { name, old } => replace(name, old, state),
        ContainerAction::Restart { name } => {
            assert!(docker.container(name).is_some(), "there is no {name}");
        }
        ContainerAction::WaitFor {
            name, condition, ..
        } => {
            let awaited = docker.containers.iter_mut().find(|c| c.name == *name);
            let awaited = awaited.unwrap_or_else(|| unreachable!("no {name}"));
            assert!(
                awaited.is_running() || awaited.state == "exited",
                "{name} was never started"
            );
            if *condition == DependencyCondition::Completed {
                awaited.state = "exited".to_owned();
                awaited.exit_code = Some(0);
            } else {
                awaited.health = Some(Health::Healthy);
            }
        }
        ContainerAction::Create(new) => create(new, id, docker),
        ContainerAction::Unpause { name } => unpause(name, docker),
        ContainerAction::Start { name } => start(name, state),
        ContainerAction::Stop { name } => {
            let found = docker.containers.iter_mut().find(|c| c.name == *name);
            found.unwrap_or_else(|| unreachable!("no {name}")).state = "exited".to_owned();
        }
        ContainerAction::Remove { name } => remove(name, state),
    }
}

fn remove(name: &str, state: &mut State) {
    let State {
        answered, docker, ..
    } = state;
    let container = docker.container(name).filter(|c| !c.is_running());
    let container = container.unwrap_or_else(|| unreachable!("{name} runs"));
    // It does not answer any more.
    let macs: BTreeSet<_> = container.networks.values().map(|end| end.mac).collect();
    answered.retain(|answer| !macs.contains(&Some(answer.mac)));
    docker.containers.retain(|container| container.name != name);
}

fn create(new: &NewContainer, id: String, docker: &mut Docker) {
    let (name, service) = (new.name.clone(), &new.service);
    assert!(docker.container(&name).is_none(), "container {name} exists");
    for volume in service.named_volumes() {
        assert!(
            docker.volumes.iter().any(|known| known == volume),
            "no volume {volume}"
        );
    }
    let image = docker.images.get(&service.image);
    let image = image.unwrap_or_else(|| unreachable!("{} is not there", service.image));
    let home = new.address.map(|address| {
        let endpoint = Endpoint {
            network_id: String::new(),
            address: Some(address),
            mac: None,
        };
        (network_name(&service.env), endpoint)
    });
    let mut networks: BTreeMap<String, Endpoint> = home.into_iter().collect();
    for attachment in &service.networks {
        let name = &attachment.network;
        assert!(
            docker.networks.iter().any(|n| n.name == *name),
            "there is no network {name}"
        );
        if docker.api >= Api::SEVERAL_NETWORKS || networks.is_empty() {
            networks.insert(name.clone(), Endpoint::default());
        }
    }
    docker.containers.push(Container {
        name,
        id,
        image: image.clone(),
        state: "created".to_owned(),
        labels: BTreeMap::from([
            (LABEL_ENVIRONMENT.to_owned(), service.env.clone()),
            (LABEL_SERVICE.to_owned(), service.name.clone()),
            (LABEL_FINGERPRINT.to_owned(), service.fingerprint()),
            (
                compose_label::REPLICA.to_owned(),
                service.replica.to_string(),
            ),
        ]),
        networks,
        volumes: new.carried.clone(),
        net_raw: Some(service.has_net_raw()),
        ..Container::default()
    });
}

fn replace(name: &str, old: &str, state: &mut State) {
    let successor = successor_name(name);
    for container in &mut state.docker.containers {
        if container.name == *old {
            container.state = "exited".to_owned();
        }
    }
    start(&successor, state);
    let containers = &mut state.docker.containers;
    containers.retain(|container| container.name != *old);
    for container in containers {
        if container.name == successor {
            name.clone_into(&mut container.name);
        }
    }
}

fn start(name: &str, state: &mut State) {
    let networks: BTreeMap<String, String> = state
        .docker
        .networks
        .iter()
        .map(|network| (network.name.clone(), network.id.clone()))
        .collect();
    let taken: BTreeSet<_> = state
        .docker
        .containers
        .iter()
        .filter(|container| container.name != name && container.is_running())
        .flat_map(|container| container.networks.values())
        .filter_map(|endpoint| endpoint.address)
        .collect();
    let mut containers = state.docker.containers.iter_mut();
    let container = containers.find(|container| container.name == name);
    let container = container.unwrap_or_else(|| unreachable!("there is no container {name}"));
    for (network, endpoint) in &mut container.networks {
        assert!(
            !endpoint
                .address
                .is_some_and(|address| taken.contains(&address)),
            "{name}: taken"
        );
        endpoint.network_id = networks.get(network).cloned().unwrap_or_default();
    }
    container.state = "running".to_owned();
}
