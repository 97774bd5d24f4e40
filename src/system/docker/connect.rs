//! The way to the Engine: where it is, which version of its API it is spoken to in, and why it cannot be used.

use super::transport::{self, Address, Allowance};
use super::{ENGINE_TIMEOUT, Engine, io_kind, message, with_timeout};
use crate::error::Diagnostic;
use crate::state::Api;
use bollard::errors::Error as EngineError;
use bollard::{BollardRequest, Docker};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// The newest API that the types in here are made for; a newer engine speaks it too.
const NEWEST: Api = Api(1, 51);

/// Where the Engine listens when `DOCKER_HOST` says nothing.
const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";

/// The header with the login for a registry.
const REGISTRY_LOGIN: &str = "x-registry-auth";

impl Engine {
    /// Connects to the Engine that `DOCKER_HOST` names, which must be on this machine, whose addresses are `own`.
    ///
    /// # Errors
    /// Why it cannot be used, and what to do.
    pub async fn connect(own: &[Ipv4Addr]) -> Result<Self, Diagnostic> {
        let (host, client) = connect(own)?;
        Self::negotiated(&host, client).await
    }

    /// A client that speaks the newest API that both sides know.
    async fn negotiated(host: &str, client: Docker) -> Result<Self, Diagnostic> {
        match newest_of_both(&client).await {
            Ok(Some(api)) if api >= Api::OLDEST => {
                return Ok(Self {
                    client: with_api_version(client, api),
                    version: String::new(),
                    api,
                    ids: Arc::default(),
                });
            }
            // Whoever does not answer this answers nothing else, and one limit is enough.
            Err(error @ EngineError::RequestTimeoutError) => {
                return Err(unreachable_engine(host, &error));
            }
            Ok(_) | Err(_) => {}
        }
        let version = with_timeout(client.version())
            .await
            .map_err(|error| unreachable_engine(host, &error))?;
        let api = version
            .api_version
            .and_then(|text| Api::try_from(text).ok())
            .unwrap_or_default();
        Ok(Self {
            client: with_api_version(client, api.min(NEWEST)),
            version: version.version.unwrap_or_default(),
            api,
            ids: Arc::default(),
        })
    }
}

/// The Engine that `DOCKER_HOST` names, and a client for it.
fn connect(own: &[Ipv4Addr]) -> Result<(String, Docker), Diagnostic> {
    let named = std::env::var("DOCKER_HOST").ok().filter(|h| !h.is_empty());
    let host = named.unwrap_or_else(|| DEFAULT_HOST.to_owned());
    let client = local_client(&host, own)?;
    Ok((host, client))
}

/// The newest API that the Engine and homelab know, by a ping in the newest that homelab knows. An Engine that does not
/// know it says which it does. For `/version` the Engine runs three other programs, which takes it longer than all else that it
/// is asked.
async fn newest_of_both(client: &Docker) -> Result<Option<Api>, EngineError> {
    let client = with_api_version(client.clone(), NEWEST);
    match with_timeout(client.ping()).await {
        Ok(_) => Ok(Some(NEWEST)),
        Err(EngineError::DockerResponseServerError { message, .. }) => {
            let said = message.split_once("Maximum supported API version is ");
            Ok(said.and_then(|(_, version)| Api::try_from(version.trim().to_owned()).ok()))
        }
        Err(error) => Err(error),
    }
}

/// A client for a `DOCKER_HOST` as the Docker CLI reads it, when that is this machine.
fn local_client(host: &str, own: &[Ipv4Addr]) -> Result<Docker, Diagnostic> {
    let hint = "unset DOCKER_HOST, or set it to `unix:///var/run/docker.sock`";
    if let Some(rest) = host.strip_prefix("tcp://") {
        let name = rest.rsplit_once(':').map_or(rest, |(name, _)| name);
        let name = name.trim_start_matches('[').trim_end_matches(']');
        let here = name == "localhost"
            || name.parse::<IpAddr>().is_ok_and(|address| match address {
                IpAddr::V4(v4) => v4.is_loopback() || own.contains(&v4),
                IpAddr::V6(v6) => v6.is_loopback(),
            });
        if !here {
            return Err(another_machine(host));
        }
        if std::env::var("DOCKER_TLS_VERIFY").is_ok_and(|verify| !verify.is_empty()) {
            return Err(Diagnostic::error(
                "DOCKER_TLS_VERIFY is set, and homelab speaks no TLS",
                hint,
            ));
        }
    } else if host.starts_with("ssh://") || host.starts_with("http") {
        return Err(another_machine(host));
    } else if !host.starts_with("unix://") {
        return Err(Diagnostic::error(
            format!("DOCKER_HOST is `{host}`, which is no address of an Engine"),
            hint,
        ));
    }
    let address = match host.strip_prefix("tcp://") {
        Some(rest) => Address::Tcp(rest.trim_end_matches('/').to_owned()),
        None => Address::Unix(host.trim_start_matches("unix://").into()),
    };
    transport::client(address).map_err(|error| unreachable_engine(host, &error))
}

fn another_machine(host: &str) -> Diagnostic {
    Diagnostic::error(
        format!("DOCKER_HOST is `{host}`, which is another machine"),
        "the shim and the Engine belong on one host: run homelab there, with DOCKER_HOST unset",
    )
}

fn with_api_version(client: Docker, api: Api) -> Docker {
    client.with_request_modifier(move |request| as_read(request, api, None))
}

/// A client for one answer that comes in pieces and may have no end, with what is to be renewed at each piece. With a path all
/// requests go there, for an answer that no call of bollard hands on as it is.
pub(super) fn in_pieces(client: Docker, api: Api, path: Option<String>) -> (Docker, Allowance) {
    let allowance = Allowance::of_pieces();
    let given = allowance.clone();
    let client = client.with_request_modifier(move |request| {
        let mut request = as_read(request, api, path.as_deref());
        request.extensions_mut().insert(given.clone());
        request
    });
    (client, allowance)
}

/// A request as the Engine reads it. bollard 0.21.1 sends no version (issue 736), and an Engine takes a request without one for
/// its newest dialect; and it writes logins in the usual base64 alphabet, where the Engine expects that of URLs and takes what
/// it cannot read for no login at all.
fn as_read(mut request: BollardRequest, api: Api, path: Option<&str>) -> BollardRequest {
    let own = request.uri().path_and_query().map(ToString::to_string);
    let own = own.filter(|own| !own.starts_with("/v1."));
    if let Some(path) = path.or(own.as_deref()) {
        send_to(&mut request, api, path);
    }
    if let Some(login) = request.headers_mut().get_mut(REGISTRY_LOGIN)
        && let Ok(text) = login.to_str()
        && let Ok(corrected) = text.replace('+', "-").replace('/', "_").parse()
    {
        *login = corrected;
    }
    request
}

fn send_to(request: &mut BollardRequest, Api(major, minor): Api, path: &str) {
    let mut parts = request.uri().clone().into_parts();
    parts.path_and_query = format!("/v{major}.{minor}{path}").parse().ok();
    if let Ok(uri) = http::Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
}

fn unreachable_engine(host: &str, error: &EngineError) -> Diagnostic {
    use std::io::ErrorKind::{ConnectionRefused, NotFound, PermissionDenied};
    let socket = host.strip_prefix("unix://").unwrap_or(host);
    let start =
        "start it with `systemctl start docker`, or install it: `apt-get install docker.io`";
    match (error, io_kind(error)) {
        (_, Some(NotFound)) => Diagnostic::error(
            format!("there is no Docker Engine here: `{socket}` does not exist"),
            start,
        ),
        (_, Some(PermissionDenied)) => Diagnostic::error(
            format!("not permitted to use the Docker Engine at `{socket}`"),
            "run homelab as root, or as a member of the group `docker`",
        ),
        (_, Some(ConnectionRefused)) => {
            Diagnostic::error(format!("no Docker Engine answers at `{socket}`"), start)
        }
        (EngineError::RequestTimeoutError, _) => Diagnostic::error(
            format!(
                "the Docker Engine at `{socket}` did not answer within {} seconds",
                ENGINE_TIMEOUT.as_secs()
            ),
            "`systemctl status docker` and `journalctl -u docker` may tell why",
        ),
        (error, _) => Diagnostic::error(
            format!(
                "the Docker Engine at `{socket}` cannot be used: {}",
                message(error)
            ),
            "`docker version` may tell more",
        ),
    }
}
