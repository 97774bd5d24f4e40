//! Text to values with their places: homelab.toml, Compose files, and the files that services name.

pub mod compose;
pub mod fields;
pub mod homelab_toml;
pub mod node;
pub mod problem;
pub mod service_files;
pub mod yaml;
