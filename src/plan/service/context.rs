//! What a service is read in. Pure.

use super::compose_resources::{ComposeNetwork, ComposeVolume};
use crate::input::compose::Project;
use crate::input::problem::Span;
use std::collections::BTreeSet;

/// What a service is read in.
pub(in crate::plan) struct ServiceContext<'a> {
    /// The environment.
    pub env: &'a str,
    /// The host that the service runs on.
    pub host: &'a str,
    /// The slice of the environment's containers, when it has one.
    pub slice: Option<&'a str>,
    /// Whether the environment is kept apart from the others.
    pub is_isolated: bool,
    /// The merged Compose files of the environment.
    pub project: &'a Project,
    /// The names under which the files know the LAN.
    pub lan: &'a BTreeSet<String>,
    /// The other networks.
    pub networks: &'a [ComposeNetwork],
    /// The volumes that the files declare.
    pub volumes: &'a [ComposeVolume],
    /// Active profiles.
    pub profiles: &'a BTreeSet<String>,
    /// Whether a place is in homelab.toml, where volumes need no declaration.
    pub is_native: &'a dyn Fn(&Span) -> bool,
}
