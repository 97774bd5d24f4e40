//! The kernel's links, addresses and routes: the only user of rtnetlink. Error numbers become our own sentences here.

mod neighbours;
mod read;

use super::capabilities;
use crate::diff::step::LinkAction;
use crate::error::Error;
use crate::plan::Mac;
use crate::state::Route;
use futures_util::{Stream, StreamExt as _, TryStreamExt};
use ipnet::Ipv4Net;
use nix::errno::Errno;
use rtnetlink::packet_route::link::{
    AfSpecInet, AfSpecUnspec, InetDevConf, LinkAttribute, MacVlanMode,
};
use rtnetlink::packet_route::route::{RouteMessage, RouteProtocol, RouteScope};
use rtnetlink::{
    Error as NetlinkError, Handle, LinkMacVlan, LinkUnspec, MulticastGroup, RouteMessageBuilder,
};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use neighbours::{Neighbour, room_for_neighbours};

/// How long the kernel may take for one request; it takes microseconds. rtnetlink drops an answer that it cannot decode,
/// and then would wait for ever.
const KERNEL_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection to the kernel, for the network namespace of the thread that opened it.
#[derive(Clone)]
pub struct Netlink {
    handle: Handle,
    /// The links that were seen, by name. What is removed is what was seen: under the same name there may be somebody else's
    /// meanwhile.
    seen: Arc<Mutex<BTreeMap<String, u32>>>,
}

impl Netlink {
    /// Opens a connection; its driver runs on the current tokio runtime.
    ///
    /// # Errors
    /// When the kernel gives no netlink socket.
    pub fn connect() -> Result<Self, Error> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(|_| no_socket())?;
        tokio::spawn(connection);
        Ok(Self {
            handle,
            seen: Arc::default(),
        })
    }

    /// Carries out an act. This is all that changes the kernel's links, addresses and routes.
    ///
    /// # Errors
    /// When the kernel refuses, or homelab may not.
    pub async fn carry_out(&self, action: &LinkAction) -> Result<(), Error> {
        match action {
            LinkAction::Add { name, parent, mac } => self.add_macvlan(name, parent, *mac).await,
            LinkAction::Delete { name } => self.delete_link(name).await,
            LinkAction::SetAlias { name, alias } => self.set_alias(name, alias).await,
            LinkAction::SetArpFilter { name } => self.set_arp_filter(name).await,
            LinkAction::DisableIpv6 { name } => disable_ipv6(name),
            LinkAction::SetMtu { name, mtu } => self.set_mtu(name, *mtu).await,
            LinkAction::AddAddress { name, address } => self.add_address(name, *address).await,
            LinkAction::SetUp { name } => self.set_up(name).await,
            LinkAction::AddRoute(route) => self.add_route(route).await,
            LinkAction::DeleteRoute(route) => self.delete_route(route).await,
        }
    }

    /// Whether this process has `CAP_NET_ADMIN` (capabilities(7)), which root has.
    pub fn has_net_admin() -> bool {
        const NET_ADMIN: u64 = 1 << 12;
        capabilities() & NET_ADMIN != 0
    }

    /// Whether links have a switch for IPv6 that can be set: the kernel has IPv6, and its settings are not read-only, as they are in
    /// a container and in a unit with `ProtectKernelTunables=` (systemd.exec(5)). Nothing is written.
    pub fn has_ipv6_switch() -> bool {
        let opened = File::options().write(true).open(ipv6_switch("default"));
        // Who may not change links at all is told so elsewhere.
        opened.map_or_else(
            |error| error.kind() == ErrorKind::PermissionDenied,
            |_| true,
        )
    }

    /// Makes a macvlan link in bridge mode, which is down at first.
    ///
    /// # Errors
    /// When the parent is gone, is used in a way that excludes a macvlan, or homelab may not.
    async fn add_macvlan(&self, name: &str, parent: &str, mac: Mac) -> Result<(), Error> {
        let message = LinkMacVlan::new(name, self.index(parent).await?, MacVlanMode::Bridge)
            .address(mac.0.to_vec())
            .build();
        let what = format!("make link `{name}` on `{parent}`");
        match request(self.handle.link().add(message).execute()).await {
            Err(Refusal::Because(Errno::EBUSY)) => Err(Error::new(
                format!(
                    "`{parent}` takes no macvlan link: it is in use by a bridge, a bond or ipvlan"
                ),
                format!(
                    "`ip -d link show {parent}` tells by whom; name the bridge or bond itself as the parent"
                ),
            )),
            Err(Refusal::Because(Errno::EOPNOTSUPP)) => Err(Error::new(
                "this kernel has no macvlan",
                "load the module with `modprobe macvlan`, or install the kernel's extra modules",
            )),
            Err(Refusal::Because(Errno::EINVAL)) => Err(Error::new(
                format!("`{parent}` cannot carry macvlan links"),
                "use an Ethernet interface, a VLAN, a bond or a bridge as the parent",
            )),
            other => other.map_err(|refusal| kernel_error(&refusal, &what)),
        }
    }

    /// Removes a link. One that is gone is no failure: a run that was killed may just have done it.
    ///
    /// # Errors
    /// When homelab may not.
    async fn delete_link(&self, name: &str) -> Result<(), Error> {
        let what = format!("remove link `{name}`");
        let seen = self.seen().remove(name);
        let found = match seen {
            Some(index) => Some(index),
            None => self.find(name).await?,
        };
        let Some(index) = found else {
            return Ok(());
        };
        match request(self.handle.link().del(index).execute()).await {
            Ok(()) | Err(Refusal::Because(Errno::ENODEV)) => Ok(()),
            Err(refusal) => Err(kernel_error(&refusal, &what)),
        }
    }

    /// Writes the alias of a link.
    ///
    /// # Errors
    /// When the link is gone, or homelab may not.
    async fn set_alias(&self, name: &str, alias: &str) -> Result<(), Error> {
        let message = LinkUnspec::new_with_index(self.index(name).await?).alias(alias);
        let what = format!("set the alias of link `{name}`");
        request_or_fail(self.handle.link().change(message.build()).execute(), &what).await
    }

    /// Sets how long the packets of a link may be, in bytes.
    ///
    /// # Errors
    /// When the link is gone, its parent takes no such packets, or homelab may not.
    async fn set_mtu(&self, name: &str, mtu: u32) -> Result<(), Error> {
        let message = LinkUnspec::new_with_index(self.index(name).await?).mtu(mtu);
        let what = format!("set the MTU of link `{name}` to {mtu}");
        request_or_fail(self.handle.link().change(message.build()).execute(), &what).await
    }

    /// Sets a link up.
    ///
    /// # Errors
    /// When the link is gone, another one on the same parent has its hardware address, its parent is down, or homelab may
    /// not.
    async fn set_up(&self, name: &str) -> Result<(), Error> {
        let message = LinkUnspec::new_with_index(self.index(name).await?).up();
        let what = format!("set link `{name}` up");
        match request(self.handle.link().change(message.build()).execute()).await {
            Err(Refusal::Because(Errno::ENETDOWN)) => Err(Error::new(
                format!("link `{name}` cannot go up: its parent is down"),
                "set the parent up first",
            )),
            Err(Refusal::Because(Errno::EADDRINUSE)) => Err(Error::new(
                format!(
                    "link `{name}` cannot go up: a link on the same parent has its hardware address"
                ),
                "`ip -d link` shows the hardware addresses; remove the other link",
            )),
            other => other.map_err(|refusal| kernel_error(&refusal, &what)),
        }
    }

    /// Gives a link an address.
    ///
    /// # Errors
    /// When the link is gone or has the address already, or homelab may not.
    async fn add_address(&self, name: &str, address: Ipv4Net) -> Result<(), Error> {
        let index = self.index(name).await?;
        let what = format!("give `{address}` to link `{name}`");
        let request = self
            .handle
            .address()
            .add(index, address.addr().into(), address.prefix_len());
        request_or_fail(request.execute(), &what).await
    }

    /// Makes a route of link scope, the one that `ip route add DESTINATION dev NAME src SOURCE` makes.
    ///
    /// # Errors
    /// When there is such a route already, the link is down or gone, or homelab may not.
    async fn add_route(&self, route: &Route) -> Result<(), Error> {
        let what = format!("make the route to {}", route.destination);
        let message = self.route_message(route).await?;
        // Without `replace`: the kernel would replace a route of the same prefix on any other link.
        let result = request(self.handle.route().add(message).execute()).await;
        result.map_err(|refusal| match refusal {
            Refusal::Because(Errno::EEXIST) => Error::new(
                format!("there is another route to {}", route.destination),
                format!("`ip route show {}` tells whose", route.destination),
            ),
            refusal => kernel_error(&refusal, &what),
        })
    }

    /// Removes a route. One that is gone is no failure.
    ///
    /// # Errors
    /// When the link is gone, or homelab may not.
    async fn delete_route(&self, route: &Route) -> Result<(), Error> {
        let what = format!("remove the route to {}", route.destination);
        let message = self.route_message(route).await?;
        match request(self.handle.route().del(message).execute()).await {
            Ok(()) | Err(Refusal::Because(Errno::ESRCH)) => Ok(()),
            Err(refusal) => Err(kernel_error(&refusal, &what)),
        }
    }

    async fn route_message(&self, route: &Route) -> Result<RouteMessage, Error> {
        let mut message = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(route.destination.addr(), route.destination.prefix_len())
            .output_interface(self.index(&route.link).await?)
            .scope(RouteScope::Link)
            // What `ip route add` sets.
            .protocol(RouteProtocol::Boot);
        if let Some(source) = route.source {
            message = message.pref_source(source);
        }
        Ok(message.build())
    }

    /// Turns `net.ipv4.conf.NAME.arp_filter` on: the link answers ARP only for addresses that the kernel would send from
    /// it (ip-sysctl). And `arp_notify`: it announces its address when it goes up, so that whoever knew somebody else there
    /// learns at once.
    ///
    /// # Errors
    /// When the link is gone or homelab may not.
    async fn set_arp_filter(&self, name: &str) -> Result<(), Error> {
        let mut settings = InetDevConf::default();
        settings.arpfilter = 1;
        settings.arp_notify = 1;
        let inet = AfSpecUnspec::Inet(vec![AfSpecInet::DevConfRequest(settings)]);
        let message = LinkUnspec::new_with_index(self.index(name).await?)
            .append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![inet]));
        let what = format!("set `arp_filter` of link `{name}`");
        request_or_fail(self.handle.link().set(message.build()).execute(), &what).await
    }

    /// A stream that has an item whenever a link, an IPv4 address or an IPv4 route of the kernel came, changed or went. One
    /// item may stand for many changes: who hears of one looks at everything again.
    ///
    /// # Errors
    /// When the kernel gives no netlink socket.
    pub fn subscribe() -> Result<impl Stream<Item = ()> + Unpin, Error> {
        // On a connection of its own: on one that also sends requests, the echoes of its own changes are taken for answers.
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv4Route,
        ];
        let (connection, _, messages) =
            rtnetlink::new_multicast_connection(&groups).map_err(|_| no_socket())?;
        tokio::spawn(connection);
        Ok(messages.map(|_| ()))
    }

    fn seen(&self) -> MutexGuard<'_, BTreeMap<String, u32>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn index(&self, name: &str) -> Result<u32, Error> {
        self.find(name).await?.ok_or_else(|| {
            Error::new(
                format!("there is no link `{name}`"),
                "`ip link` lists the links; something else may have removed it meanwhile",
            )
        })
    }

    /// The index of a link, when there is one of that name.
    async fn find(&self, name: &str) -> Result<Option<u32>, Error> {
        let mut links = self.handle.link().get().match_name(name).execute();
        match request(links.try_next()).await {
            Ok(link) => Ok(link.map(|message| message.header.index)),
            Err(Refusal::Because(Errno::ENODEV)) => Ok(None),
            Err(refusal) => Err(kernel_error(&refusal, &format!("find link `{name}`"))),
        }
    }
}

/// The switch of a link that turns its IPv6 off (ip-sysctl). It is none of what netlink can set, and `CAP_NET_ADMIN` opens it
/// whoever owns the file.
fn ipv6_switch(link: &str) -> String {
    format!("/proc/sys/net/ipv6/conf/{link}/disable_ipv6")
}

/// Turns the IPv6 of a link off. Its IPv6 addresses go at once, and the routes that it learnt.
///
/// # Errors
/// When the link is gone or homelab may not.
fn disable_ipv6(link: &str) -> Result<(), Error> {
    let written = fs::write(ipv6_switch(link), "1");
    written.map_err(|error| {
        let errno = Errno::from_raw(error.raw_os_error().unwrap_or_default());
        let what = format!("turn IPv6 of link `{link}` off");
        match errno {
            Errno::ENOENT => kernel_error(&Refusal::Because(Errno::ENODEV), &what),
            Errno::EACCES => kernel_error(&Refusal::Because(Errno::EPERM), &what),
            Errno::EROFS => Error::new(
                format!("cannot {what}: /proc/sys is read-only here"),
                "`mount -o remount,rw /proc/sys` makes it writable; in a container it may not be",
            ),
            errno => kernel_error(&Refusal::Because(errno), &what),
        }
    })
}

fn no_socket() -> Error {
    Error::new(
        "the kernel gives no netlink socket",
        "homelab needs a Linux kernel with networking, and AF_NETLINK when it runs under systemd's restrictions",
    )
}

/// Why the kernel did not do what it was asked for.
enum Refusal {
    /// It said why.
    Because(Errno),
    /// It did not answer, or not in a way that can be understood.
    NoAnswer,
}

/// Waits for the kernel.
async fn request<T>(request: impl Future<Output = Result<T, NetlinkError>>) -> Result<T, Refusal> {
    match tokio::time::timeout(KERNEL_TIMEOUT, request).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(NetlinkError::NetlinkError(message))) => Err(Refusal::Because(Errno::from_raw(
            message.raw_code().saturating_neg(),
        ))),
        Ok(Err(_)) | Err(_) => Err(Refusal::NoAnswer),
    }
}

/// Waits for the kernel; none of its refusals has a sentence of its own.
async fn request_or_fail<T>(
    asked: impl Future<Output = Result<T, NetlinkError>>,
    what: &str,
) -> Result<T, Error> {
    request(asked)
        .await
        .map_err(|refusal| kernel_error(&refusal, what))
}

async fn dump<T>(
    stream: impl Stream<Item = Result<T, NetlinkError>>,
    what: &str,
) -> Result<Vec<T>, Error> {
    request_or_fail(stream.try_collect(), what).await
}

fn kernel_error(refusal: &Refusal, what: &str) -> Error {
    let Refusal::Because(errno) = refusal else {
        return Error::new(
            format!("the kernel did not answer the request to {what}"),
            "run the command again; `journalctl -k` may tell more",
        );
    };
    match errno {
        Errno::EPERM => Error::new(format!("not permitted to {what}"), "run homelab as root"),
        Errno::EEXIST => Error::new(
            format!("cannot {what}: it is there already"),
            "something else changed it meanwhile; run the command again",
        ),
        Errno::ENODEV => Error::new(
            format!("cannot {what}: the link is gone"),
            "something else removed it meanwhile; run the command again",
        ),
        Errno::ENOBUFS => Error::new(
            format!("the kernel has no room left to {what}"),
            "its table of neighbours may be full: `ip neigh` shows it, `sysctl net.ipv4.neigh.default.gc_thresh3` its size",
        ),
        errno => Error::new(
            // The name of a number, as in errno(3).
            format!("the kernel refused to {what} ({errno:?})"),
            "`man 3 errno` tells what that means; `journalctl -k` may tell more",
        ),
    }
}

#[cfg(test)]
pub mod tests;
