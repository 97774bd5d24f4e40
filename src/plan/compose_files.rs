//! Which Compose files an environment has, by its own table or that of all environments. Pure.

use super::naming::network_name;
use crate::input::compose::LoadOptions;
use crate::input::homelab_toml::{Compose, Config, EnvTable, Text};
use crate::input::problem::Span;
use std::path::{Path, PathBuf};

/// What is to be loaded for an environment; paths start from `folder`.
pub(super) fn options(config: &Config, env: &EnvTable, folder: &Path) -> LoadOptions {
    let name = env.name.get_ref();
    let texts = |key: fn(&Compose) -> &Option<Vec<Text>>| -> Vec<(String, Span)> {
        let texts = key(&env.compose).as_ref().or(key(&config.compose).as_ref());
        let expand = |text: &Text| (text.get_ref().replace("{env}", name), text.span());
        texts.into_iter().flatten().map(expand).collect()
    };
    let paths = |texts: Vec<(String, Span)>| -> Vec<(PathBuf, Span)> {
        let texts = texts.into_iter();
        texts
            .map(|(text, span)| (folder.join(text), span))
            .collect()
    };
    let profiles = texts(|compose| &compose.profiles).into_iter();
    LoadOptions {
        files: paths(texts(|compose| &compose.files)),
        env_files: paths(texts(|compose| &compose.env_file)),
        profiles: profiles.map(|(profile, _)| profile).collect(),
        project: network_name(name),
    }
}
