//! The shim and the parent links: which ones the plan wants, what stands in their way, and the steps to them. Pure.

use super::difference::{Difference, Object};
use super::step::LinkAction;
use super::{Diff, StepId, preflight};
use crate::error::{Diagnostic, Error, none_of};
use crate::plan::naming::{
    PARENT_LINK_PREFIX, mac_of, parent_link_alias, parent_link_mac, shim_alias,
};
use crate::plan::unit_files::ShimUnit;
use crate::plan::{Env, Host, Mac, Plan, PlannedShim, joined};
use crate::state::{Link, Route, State};
use ipnet::Ipv4Net;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// What is wanted of the links of a machine.
pub(super) struct Target<'a> {
    pub plan: &'a Plan,
    pub host: &'a Host,
    /// The interface that those on the LAN of `[network]` stand on.
    pub parent: &'a str,
    /// The shims on environments' own LANs that can be made: their parents are fit.
    pub own: Vec<PlannedShim<'a>>,
    /// The unit that an installed one becomes whose file was not written whole.
    pub unit: Option<ShimUnit<'a>>,
}

impl<'a> Target<'a> {
    /// What is wanted of a host on whose LAN that parent is, and a diff with what keeps shims on environments' own LANs from being made.
    pub(super) fn on(
        plan: &'a Plan,
        host: &'a Host,
        parent: &'a Link,
        unit: Option<ShimUnit<'a>>,
        state: &State,
    ) -> (Self, Diff) {
        let (own, in_the_way) = preflight::own_shims(plan, host, state);
        let target = Self {
            plan,
            host,
            parent: &parent.name,
            own,
            unit,
        };
        let diff = Diff {
            errors: in_the_way,
            ..Diff::default()
        };
        (target, diff)
    }

    /// The interface that an environment's network stands on, as a rule; `None` where that is not fit or not planned.
    pub(super) fn parent_of(&self, env: &Env) -> Option<&str> {
        if env.lan.is_none() {
            return Some(self.parent);
        }
        let mut own = self.own.iter();
        own.find(|shim| shim.env.is_some_and(|of| of.name == env.name))?
            .parent
    }
}

/// A link that should exist.
pub(super) struct WantedLink {
    pub name: String,
    /// The environment whose own LAN it is on.
    pub env: Option<String>,
    parent: String,
    mac: Mac,
    alias: String,
    /// What makes a link the shim; a parent link has nothing of it and stays down.
    shim: Option<Shim>,
}

impl WantedLink {
    /// Whether it is the parent of a network, and not the shim.
    pub(super) fn is_parent(&self) -> bool {
        self.shim.is_none()
    }
}

struct Shim {
    address: Ipv4Addr,
    routes: Vec<Route>,
}

/// The shim, and the parent links that are among `parents`, the parents of networks that stay or come.
pub(super) fn wanted(target: &Target, parents: &BTreeSet<&str>) -> Vec<WantedLink> {
    let main = target.plan.main_shim(target.host);
    let shims = std::iter::once(&main).chain(&target.own);
    let shims = shims.map(|shim| WantedLink {
        parent: match shim.env {
            None => target.parent.to_owned(),
            Some(_) => shim.parent.unwrap_or_default().to_owned(),
        },
        env: shim.env.map(|env| env.name.clone()),
        mac: mac_of(shim.address),
        alias: shim_alias(),
        shim: Some(Shim {
            address: shim.address,
            routes: routes_of(shim).collect(),
        }),
        name: shim.name.clone(),
    });
    let parents = parents
        .iter()
        .filter(|name| name.starts_with(PARENT_LINK_PREFIX));
    let parents = parents.map(|name| parent_link(target, name));
    shims.chain(parents).collect()
}

fn parent_link(target: &Target, name: &str) -> WantedLink {
    WantedLink {
        name: name.to_owned(),
        env: None,
        parent: target.parent.to_owned(),
        mac: parent_link_mac(name, target.host.address),
        alias: parent_link_alias(),
        shim: None,
    }
}

/// Links of ours that are neither wanted nor among `parents`.
pub(super) fn obsolete<'a>(
    target: &Target,
    wanted: &[WantedLink],
    parents: &BTreeSet<&str>,
    state: &'a State,
) -> Vec<&'a Link> {
    // One whose parent is not fit now stays as it is.
    let goes_on = !wanted.is_empty();
    let planned: Vec<String> = target.plan.own_shims(target.host).map(|s| s.name).collect();
    let is_needed = |link: &Link| {
        let mut wanted = wanted.iter();
        let stays = goes_on && planned.contains(&link.name);
        stays || wanted.any(|wanted| wanted.name == link.name) || parents.contains(&*link.name)
    };
    let links = state.links.iter();
    links
        .filter(|link| is_made_by_us(target.plan, link) && !is_needed(link))
        .collect()
}

/// Whether homelab made a link: it is marked, or it is a shim or a parent link of a host of the plan that a killed run had no time to
/// mark.
pub(super) fn is_made_by_us(plan: &Plan, link: &Link) -> bool {
    let name = link.name.as_str();
    let is_half_made_on = |host: &Host| {
        let mut shims = std::iter::once(plan.main_shim(host)).chain(plan.own_shims(host));
        let is_parent = name.starts_with(PARENT_LINK_PREFIX);
        shims.any(|shim| shim.name == name && is_half_made(link, mac_of(shim.address)))
            || is_parent && is_half_made(link, parent_link_mac(name, host.address))
    };
    link.is_ours() || plan.hosts.iter().any(is_half_made_on)
}

/// A link that homelab made but had no time to mark: besides its name, the kind and hardware address are ours and it was never used.
fn is_half_made(link: &Link, mac: Mac) -> bool {
    link.alias.is_none()
        && link.kind == "macvlan"
        && link.mac == Some(mac)
        && !link.up
        && link.addresses.is_empty()
}

/// Leaves those links out that cannot be made, where that stops just an environment with a LAN of its own.
///
/// # Errors
/// What stands where one of the others belongs.
pub(super) fn without_conflicts(
    links: &mut Vec<WantedLink>,
    state: &State,
    diff: &mut Diff,
) -> Result<(), Error> {
    let mut conflicts = Vec::new();
    links.retain(|link| {
        let conflict = conflict(link, state);
        let (is_own, is_free) = (link.env.is_some(), conflict.is_none());
        if is_own {
            diff.errors.extend(conflict);
        } else {
            conflicts.extend(conflict);
        }
        !is_own || is_free
    });
    none_of(conflicts)
}

/// What homelab did not make but stands where a link of the plan belongs.
pub(super) fn conflict(wanted: &WantedLink, state: &State) -> Option<Diagnostic> {
    let name = &wanted.name;
    if let Some(link) = state.link(name)
        && !link.is_ours()
        && !is_half_made(link, wanted.mac)
    {
        return Some(Diagnostic::error(
            format!("there is a link `{name}` that homelab did not make"),
            format!(
                "remove it with `ip link del {name}`, and what makes it at boot (an older unit or script), or choose another name {}",
                if wanted.env.is_some() {
                    "for the environment"
                } else {
                    "in `[shim]`"
                }
            ),
        ));
    }
    let shim = wanted.shim.as_ref()?;
    let address = shim.address;
    let other = state
        .links
        .iter()
        .find(|link| link.name != *name && !link.is_ours() && link.has(address));
    if let Some(other) = other {
        return Some(Diagnostic::error(
            format!(
                "link `{}` has {address}, the shim's address, and homelab did not make it",
                other.name
            ),
            format!(
                "take it away: `ip addr del {address} dev {}`; or give the shim another address",
                other.name
            ),
        ));
    }
    let route = state.routes.iter().find(|route| {
        let is_ours = state.link(&route.link).is_some_and(Link::is_ours);
        let is_planned = shim.leads_to(route.destination);
        is_planned && route.metric == 0 && route.link != *name && !is_ours
    })?;
    let destination = route.destination;
    Some(Diagnostic::error(
        format!(
            "there is a route to {destination} over `{}` that homelab did not make",
            route.link
        ),
        format!("remove it: `ip route del {destination} dev {}`", route.link),
    ))
}

impl Shim {
    fn leads_to(&self, destination: Ipv4Net) -> bool {
        let mut routes = self.routes.iter();
        routes.any(|route| route.destination == destination)
    }
}

/// The routes by which a shim leads its host to containers.
pub fn routes_of(shim: &PlannedShim) -> impl Iterator<Item = Route> {
    shim.routes.iter().map(|destination| Route {
        destination: *destination,
        link: shim.name.clone(),
        source: Some(shim.address),
        gateway: None,
        metric: 0,
    })
}

/// The steps for one link; the last ones are what its users wait for.
pub(super) fn steps(
    wanted: &WantedLink,
    state: &State,
    diff: &mut Diff,
    deleted: &[StepId],
) -> Vec<StepId> {
    let name = &wanted.name;
    let object = || Object::new("link", name.as_str());
    let mut existing = state.link(name);
    let mut last = Vec::new();
    if let Some(link) = existing
        && let Some(difference) = recreate_reason(link, wanted)
    {
        let delete = LinkAction::Delete { name: name.clone() };
        last = vec![diff.push(delete, difference, &[])];
        existing = None;
    }
    if existing.is_none() {
        let add = LinkAction::Add {
            name: name.clone(),
            parent: wanted.parent.clone(),
            mac: wanted.mac,
        };
        // Two links on one parent must not have one hardware address, and one shim is enough.
        let after: Vec<StepId> = last.iter().chain(deleted).copied().collect();
        last = vec![if last.is_empty() {
            diff.push(add, object().missing(), &after)
        } else {
            diff.push(add, "it is made anew", &after)
        }];
    }
    if existing.is_none_or(|link| !link.is_ours()) {
        let alias = LinkAction::SetAlias {
            name: name.clone(),
            alias: wanted.alias.clone(),
        };
        let cause = "it marks the link as homelab's";
        last = vec![match existing {
            Some(link) => {
                let planned = Some(wanted.alias.clone());
                let difference = object().differs("alias", link.alias.clone(), planned);
                diff.push(alias, difference.because(cause), &last)
            }
            None => diff.push(alias, cause, &last),
        }];
    }
    match &wanted.shim {
        Some(shim) => ShimSteps {
            name,
            shim,
            existing,
            state,
        }
        .push(diff, last),
        None => last,
    }
}

/// What the shim has that a parent link has not.
struct ShimSteps<'a> {
    name: &'a str,
    shim: &'a Shim,
    /// The link, unless it is made anew.
    existing: Option<&'a Link>,
    state: &'a State,
}

impl ShimSteps<'_> {
    /// Adds its steps behind the steps `marked`; the last ones are what its users wait for.
    fn push(&self, diff: &mut Diff, marked: Vec<StepId>) -> Vec<StepId> {
        let name = || self.name.to_owned();
        let mut configured = Vec::new();
        if self.existing.is_none_or(|link| !link.arp_filter) {
            let cause = "it shall not answer for this host's other addresses";
            let action = LinkAction::SetArpFilter { name: name() };
            configured.push(self.add(diff, action, ("arp_filter", "0", "1"), cause, &marked));
        }
        configured.extend(self.disable_ipv6(diff, &marked));
        configured.extend(self.follow_mtu(diff, &marked));
        let address = Ipv4Net::from(self.shim.address);
        let found = self.existing.map(|link| link.addresses.as_slice());
        if found.is_none_or(|found| !found.contains(&address)) {
            let found = match found {
                None | Some([]) => "missing".to_owned(),
                Some(found) => joined(found, ", "),
            };
            let (action, planned) = (
                LinkAction::AddAddress {
                    name: name(),
                    address,
                },
                address.to_string(),
            );
            let field = ("address", found.as_str(), planned.as_str());
            configured.push(self.add(diff, action, field, "it is the shim's address", &marked));
        }
        let mut last = if configured.is_empty() {
            marked
        } else {
            configured
        };
        if !self.is_up() {
            let action = LinkAction::SetUp { name: name() };
            last = vec![self.add(diff, action, ("state", "down", "up"), "it is down", &last)];
        }
        self.push_routes(diff, last)
    }

    /// From its own router advertisements a shim would get addresses that no plan knows, and the host a second default route.
    fn disable_ipv6(&self, diff: &mut Diff, marked: &[StepId]) -> Option<StepId> {
        // The service of an older version's unit sees no switch, and keeps everything else.
        let is_due = self.state.ipv6_switch && self.existing.is_none_or(|link| link.ipv6);
        is_due.then(|| {
            let name = self.name.to_owned();
            let action = LinkAction::DisableIpv6 { name };
            let cause = "a router's advertisements are for the parent alone";
            self.add(diff, action, ("disable_ipv6", "0", "1"), cause, marked)
        })
    }

    /// A macvlan link has its parent's MTU when it is made, and shrinks with it, but does not grow with it.
    fn follow_mtu(&self, diff: &mut Diff, marked: &[StepId]) -> Option<StepId> {
        let link = self.existing?;
        let parent = self.state.link(link.parent.as_deref()?)?;
        let (found, planned) = (link.mtu?, parent.mtu?);
        if found == planned {
            return None;
        }
        let action = LinkAction::SetMtu {
            name: self.name.to_owned(),
            mtu: planned,
        };
        let (found, planned) = (found.to_string(), planned.to_string());
        let field = ("mtu", found.as_str(), planned.as_str());
        let cause = format!("its parent has {planned}");
        Some(self.add(diff, action, field, &cause, marked))
    }

    fn push_routes(&self, diff: &mut Diff, mut last: Vec<StepId>) -> Vec<StepId> {
        // On the shim, routes with its address as their source are ours, and so are the planned destinations. The kernel takes
        // all routes of a link that is down.
        let found = self.state.routes.iter().filter(|found| {
            let is_planned = self.shim.leads_to(found.destination) && found.metric == 0;
            let is_ours = found.source == Some(self.shim.address) || is_planned;
            self.is_up() && found.link == self.name && is_ours
        });
        let (kept, obsolete): (Vec<&Route>, Vec<&Route>) =
            found.partition(|found| self.shim.routes.contains(found));
        // The new ones come first where both can be: what is led somewhere at any time stays so.
        let (replaced, obsolete): (Vec<&Route>, Vec<&Route>) = obsolete
            .into_iter()
            .partition(|obsolete| self.shim.leads_to(obsolete.destination));
        last.extend(
            replaced
                .into_iter()
                .map(|route| self.delete(route, diff, &[])),
        );
        let missing = self
            .shim
            .routes
            .iter()
            .filter(|route| !kept.contains(route));
        let added: Vec<StepId> = missing
            .map(|route| self.add_route(route, diff, &last))
            .collect();
        let last = if added.is_empty() { last } else { added };
        let deleted = obsolete
            .into_iter()
            .map(|route| self.delete(route, diff, &last));
        let deleted: Vec<StepId> = deleted.collect();
        last.into_iter().chain(deleted).collect()
    }

    fn add_route(&self, route: &Route, diff: &mut Diff, after: &[StepId]) -> StepId {
        let cause = "it leads this host to the containers";
        let field = format!("route to {}", route.destination);
        let source = route.source;
        let source = source.map_or(String::new(), |source| format!("src {source}"));
        let field = (field.as_str(), "missing", source.as_str());
        self.add(
            diff,
            LinkAction::AddRoute(route.clone()),
            field,
            cause,
            after,
        )
    }

    fn delete(&self, route: &Route, diff: &mut Diff, after: &[StepId]) -> StepId {
        let object = Object::new("link", self.name);
        let field = format!("route to {}", route.destination);
        let difference = object.differs(field, Some("there".to_owned()), None);
        let cause = difference.because("the plan does not want it");
        diff.push(LinkAction::DeleteRoute(route.clone()), cause, after)
    }

    fn is_up(&self) -> bool {
        self.existing.is_some_and(|link| link.up)
    }

    /// Adds a step; on a link that is there it takes a difference away: a field, what is found and what is planned.
    fn add(
        &self,
        diff: &mut Diff,
        action: LinkAction,
        (field, found, planned): (&str, &str, &str),
        cause: &str,
        after: &[StepId],
    ) -> StepId {
        if self.existing.is_none() {
            return diff.push(action, cause, after);
        }
        let (found, planned) = (found.to_owned(), planned.to_owned());
        let object = Object::new("link", self.name);
        let difference = object.differs(field, Some(found), Some(planned));
        diff.push(action, difference.because(cause), after)
    }
}

/// What cannot be changed on a link that is there. A parent link's hardware address is nobody's business: it follows from
/// the host's address, and containers would lose their network with the link.
fn recreate_reason(link: &Link, wanted: &WantedLink) -> Option<Difference> {
    let mac = |mac: Mac| mac.to_string();
    let hardware = ("hardware address", link.mac.map(mac), mac(wanted.mac));
    let fields = [
        ("kind", Some(link.kind.clone()), "macvlan".to_owned()),
        ("mode", link.mode.clone(), "bridge".to_owned()),
        ("parent", link.parent.clone(), wanted.parent.clone()),
    ];
    let (field, found, planned) = fields
        .into_iter()
        .chain((!wanted.is_parent()).then_some(hardware))
        .find(|(_, found, planned)| found.as_ref() != Some(planned))?;
    let object = Object::new("link", link.name.as_str());
    Some(object.differs(field, found, Some(planned)))
}
