//! Images: which there are, and pulling them with their progress.

use super::connect::in_pieces;
use super::{Engine, disk_full, engine_error, message, with_timeout};
use crate::diff::step::ImageAction;
use crate::error::Error;
use crate::plan::split_tag;
use bollard::auth::DockerCredentials;
use bollard::errors::Error as EngineError;
use bollard::models::CreateImageInfo;
use bollard::query_parameters::{CreateImageOptionsBuilder, ListImagesOptions};
use docker_credential::DockerCredential;
use futures_util::TryStreamExt;
use futures_util::future::try_join_all;
use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::time::Duration;
use tokio::time::timeout;

/// How far the pull of an image is, in bytes. Layers become known one after the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PullProgress {
    /// What is here.
    pub done: u64,
    /// What is known to come.
    pub total: u64,
}

/// How long a pull may go without news. A large layer is unpacked for minutes on a slow disk, and the Engine tells of it.
const PULL_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// What a registry or the Engine says to who is not logged in.
const LOGIN_WANTED: [&str; 3] = [
    "no basic auth credentials",
    "unauthorized",
    "authentication required",
];

/// What the Engine says when it does not get through to a registry.
const REGISTRY_AWAY: [&str; 8] = [
    "connection refused",
    "no such host",
    "server misbehaving",
    "i/o timeout",
    "TLS handshake timeout",
    "no route to host",
    "network is unreachable",
    "Client.Timeout exceeded",
];

/// What the configuration of the Docker CLI calls Docker Hub.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

impl Engine {
    /// The ids of those images that are there, by the names given.
    ///
    /// # Errors
    /// When the Engine fails; an image that is not there is no failure.
    pub async fn images(&self, names: &BTreeSet<&str>) -> Result<BTreeMap<String, String>, Error> {
        let list = with_timeout(self.client.list_images(None::<ListImagesOptions>)).await;
        let list = list.map_err(|error| engine_error("list the images", &error))?;
        let mut ids: BTreeMap<&str, &str> = BTreeMap::new();
        for image in &list {
            for tag in image.repo_tags.iter().chain(&image.repo_digests) {
                ids.insert(tag, &image.id);
            }
        }
        let mut found = BTreeMap::new();
        let mut unlisted = Vec::new();
        for name in names {
            match ids.get(familiar(name).as_str()) {
                Some(id) => {
                    found.insert((*name).to_owned(), (*id).to_owned());
                }
                // An id, or a name with a digest that the list does not show.
                None => unlisted.push(*name),
            }
        }
        let lookups = unlisted.iter().map(|name| self.image(name));
        let ids = try_join_all(lookups).await?;
        let unlisted = unlisted.into_iter().zip(ids);
        found.extend(unlisted.filter_map(|(name, id)| Some((name.to_owned(), id?))));
        Ok(found)
    }

    /// The id of an image that is there.
    async fn image(&self, name: &str) -> Result<Option<String>, Error> {
        match with_timeout(self.client.inspect_image(name)).await {
            Ok(image) => Ok(image.id),
            Err(EngineError::DockerResponseServerError {
                status_code: 404, ..
            }) => Ok(None),
            Err(error) => Err(engine_error(&format!("look up image `{name}`"), &error)),
        }
    }

    /// Carries out an act on an image; `tell` hears how far it is.
    ///
    /// # Errors
    /// When no registry has it or can be reached.
    pub async fn carry_out_image(
        &self,
        action: &ImageAction,
        tell: impl FnMut(PullProgress),
    ) -> Result<(), Error> {
        let ImageAction::Pull { image, platform } = action;
        self.pull(image, platform.as_deref(), tell).await
    }

    /// Pulls an image; `tell` hears how far it is.
    ///
    /// # Errors
    /// When no registry has it or can be reached.
    async fn pull(
        &self,
        image: &str,
        platform: Option<&str>,
        mut tell: impl FnMut(PullProgress),
    ) -> Result<(), Error> {
        let (repository, tag) = split_tag(image);
        // Without a tag the Engine pulls all of them.
        let options = CreateImageOptionsBuilder::new()
            .from_image(repository)
            .tag(tag.unwrap_or("latest"))
            .platform(platform.unwrap_or_default())
            .build();
        let mut layers: BTreeMap<String, PullProgress> = BTreeMap::new();
        let login = login(registry(repository)).await;
        let (client, allowance) = in_pieces(self.client.clone(), self.api, None);
        let mut steps = pin!(client.create_image(Some(options), None, login));
        let result = loop {
            match timeout(PULL_TIMEOUT, steps.try_next()).await {
                Ok(Ok(Some(step))) => {
                    allowance.renew();
                    note(step, &mut layers);
                    tell(sum(&layers));
                }
                Ok(Ok(None)) => break Ok(()),
                Ok(Err(_)) if allowance.is_spent() => return Err(endless(image)),
                Ok(Err(error)) => break Err(error),
                Err(_) => return Err(stalled(image)),
            }
        };
        let Err(error) = result else {
            // Who ends before the image is there has not said that it failed.
            return match self.image(image).await? {
                Some(_) => Ok(()),
                None => Err(Error::new(
                    format!(
                        "image `{image}` cannot be pulled: the Engine told no more before it was there"
                    ),
                    pull_again(image),
                )),
            };
        };
        Err(refused(image, repository, &error))
    }
}

/// Why an image was not pulled.
fn refused(image: &str, repository: &str, error: &EngineError) -> Error {
    let said = message(error);
    let what = format!("image `{image}` cannot be pulled");
    if let Some(full) = disk_full(&what, &said) {
        return full;
    }
    let says = |words: &[&str]| words.iter().any(|words| said.contains(words));
    let host = registry(repository);
    let is_hub = host == DOCKER_HUB;
    let login = if is_hub {
        String::new()
    } else {
        format!(" {host}")
    };
    if says(&LOGIN_WANTED) {
        return Error::new(
            format!("{what}: its registry wants another login"),
            format!("log in as who runs homelab: `docker login{login}`"),
        );
    }
    if says(&REGISTRY_AWAY) {
        let host = if is_hub { "Docker Hub" } else { host };
        return Error::new(
            format!("{what}: its registry, {host}, cannot be reached"),
            format!(
                "see whether this machine finds its name and reaches it; `docker pull {image}` tries again"
            ),
        );
    }
    match error {
        EngineError::DockerResponseServerError {
            status_code: 404 | 403 | 401,
            ..
        } => Error::new(
            format!("image `{image}` does not exist, or its registry wants another login"),
            format!(
                "check the name; `docker pull {image}` shows what the registry says, `docker login{login}` logs in"
            ),
        ),
        _ => Error::new(format!("{what}: {said}"), pull_again(image)),
    }
}

fn pull_again(image: &str) -> String {
    format!(
        "check the name and this machine's way to the registry; `docker pull {image}` tries again"
    )
}

fn sum(layers: &BTreeMap<String, PullProgress>) -> PullProgress {
    let add = |sum: PullProgress, layer: &PullProgress| PullProgress {
        done: sum.done + layer.done,
        total: sum.total + layer.total,
    };
    layers.values().fold(PullProgress::default(), add)
}

fn stalled(image: &str) -> Error {
    let minutes = PULL_TIMEOUT.as_secs() / 60;
    Error::new(
        format!(
            "image `{image}` cannot be pulled: the Engine told nothing new for {minutes} minutes"
        ),
        format!("see whether this machine reaches the registry; `docker pull {image}` tries again"),
    )
}

fn endless(image: &str) -> Error {
    Error::new(
        format!("image `{image}` cannot be pulled: what the Engine tells of it has no end"),
        "`journalctl -u docker` may tell more; run the command again when the cause is gone",
    )
}

/// The registry that an image comes from, as the Docker CLI's own configuration calls it.
fn registry(repository: &str) -> &str {
    let first = repository.split_once('/').map(|(first, _)| first);
    // What is no host is a name on Docker Hub.
    let is_host = |part: &&str| part.contains(['.', ':']) || *part == "localhost";
    match first.filter(is_host) {
        None | Some("docker.io" | "index.docker.io") => DOCKER_HUB,
        Some(host) => host,
    }
}

/// The login that `docker login` left for a registry. Where it cannot be read the pull goes on without one, which is
/// enough for what everybody may have.
async fn login(registry: &str) -> Option<DockerCredentials> {
    let name = registry.to_owned();
    // A helper is another program.
    let found = tokio::task::spawn_blocking(move || docker_credential::get_credential(&name));
    let login = DockerCredentials {
        serveraddress: Some(registry.to_owned()),
        ..DockerCredentials::default()
    };
    match found.await.ok()?.ok()? {
        DockerCredential::IdentityToken(token) => Some(DockerCredentials {
            identitytoken: Some(token),
            ..login
        }),
        DockerCredential::UsernamePassword(username, password) => Some(DockerCredentials {
            username: Some(username),
            password: Some(password),
            ..login
        }),
    }
}

/// Notes how far the download of a layer is; unpacking it is not counted.
fn note(step: CreateImageInfo, layers: &mut BTreeMap<String, PullProgress>) {
    let (Some(id), Some(status)) = (step.id, step.status) else {
        return;
    };
    let layer = match status.as_str() {
        "Downloading" => layers.entry(id).or_default(),
        "Download complete" | "Pull complete" => {
            if let Some(layer) = layers.get_mut(&id) {
                layer.done = layer.total;
            }
            return;
        }
        _ => return,
    };
    let bytes = |number: Option<i64>| number.and_then(|n| u64::try_from(n).ok());
    if let Some(detail) = step.progress_detail {
        layer.done = bytes(detail.current).unwrap_or(layer.done);
        layer.total = bytes(detail.total).unwrap_or(layer.total).max(layer.done);
    }
}

/// The name of an image as the Engine lists it: without Docker Hub's own name, with a tag.
fn familiar(name: &str) -> String {
    let name = ["docker.io/", "index.docker.io/"]
        .into_iter()
        .find_map(|hub| name.strip_prefix(hub))
        .unwrap_or(name);
    let name = name.strip_prefix("library/").unwrap_or(name);
    if let Some((repository, digest)) = name.split_once('@') {
        // A tag beside a digest says nothing.
        return format!("{}@{digest}", split_tag(repository).0);
    }
    match split_tag(name) {
        (_, Some(_)) => name.to_owned(),
        (repository, None) => format!("{repository}:latest"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_the_engine_lists_them() {
        for (name, listed) in [
            ("busybox", "busybox:latest"),
            ("docker.io/library/busybox:1", "busybox:1"),
            ("library/busybox", "busybox:latest"),
            ("ghcr.io/a/b:v1", "ghcr.io/a/b:v1"),
            ("host:5000/a", "host:5000/a:latest"),
            ("a/b:v1@sha256:00", "a/b@sha256:00"),
        ] {
            assert_eq!(familiar(name), listed);
        }
    }

    #[test]
    fn images_come_from_registries() {
        for (name, from) in [
            ("busybox", DOCKER_HUB),
            ("pihole/pihole", DOCKER_HUB),
            ("docker.io/library/busybox", DOCKER_HUB),
            ("ghcr.io/a/b", "ghcr.io"),
            ("localhost/a", "localhost"),
            ("host:5000/a/b", "host:5000"),
        ] {
            assert_eq!(registry(name), from);
        }
    }

    #[test]
    fn downloads_are_summed_up_by_layer() {
        let mut layers = BTreeMap::new();
        let step = |id: &str, status: &str, current, total| CreateImageInfo {
            id: Some(id.to_owned()),
            status: Some(status.to_owned()),
            progress_detail: Some(bollard::models::ProgressDetail { current, total }),
            ..CreateImageInfo::default()
        };
        note(step("a", "Downloading", Some(3), Some(10)), &mut layers);
        note(step("b", "Downloading", Some(1), None), &mut layers);
        note(step("a", "Download complete", None, None), &mut layers);
        note(step("c", "Extracting", Some(5), Some(9)), &mut layers);
        let all: Vec<PullProgress> = layers.into_values().collect();
        let progress = |done, total| PullProgress { done, total };
        assert_eq!(all, [progress(10, 10), progress(1, 1)]);
    }
}
