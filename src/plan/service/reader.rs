//! The keys of a service from values to what the Engine is told. Pure.

use super::context::ServiceContext;
use super::engine_settings::SettingsReader;
use super::resources::NO_GPU;
use super::values::{capability, is_host_name, parse_bytes};
use super::{Device, EnvFile, Service, given_files, mounts, networks};
use crate::error::Diagnostic;
use crate::input::fields::Fields;
use crate::input::node::{Map, Node, Value};
use crate::input::problem::Span;
use crate::plan::Problems;
use crate::plan::naming::is_own_label;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use toml::Spanned;

/// A service that was read.
pub(in crate::plan) struct ParsedService {
    pub service: Service,
    /// Its address on the LAN, with the place where it stands.
    pub address: Option<Spanned<Ipv4Addr>>,
    /// Whether the file names an image, readable or not.
    pub has_image: bool,
    /// How many containers of it there are to be.
    pub scale: u32,
}

/// Turns the keys of a service into values. Everything wrong goes to `problems`.
pub(in crate::plan) fn read(
    name: &Spanned<String>,
    keys: &Map,
    context: &ServiceContext,
    problems: &mut Problems,
) -> ParsedService {
    let mut fields = Fields::new(format!("services.{}", name.get_ref()), Some(keys));
    let fields = &mut fields;
    let mut service = Service {
        name: name.get_ref().clone(),
        span: name.span(),
        env: context.env.to_owned(),
        compose_files: context.project.files.clone(),
        host: context.host.to_owned(),
        slice: context.slice.map(str::to_owned),
        is_isolated: context.is_isolated,
        replica: 1,
        ..Service::default()
    };
    let mut reader = Reader { fields, problems };
    reader.build(&mut service);
    // Of one that is to be built, that is told already.
    let has_image = ["image", "build"]
        .map(|key| reader.fields.take(key).is_some())
        .contains(&true);
    reader.process(&mut service);
    reader.rights(&mut service);
    reader.start_and_stop(&mut service, context.profiles);
    let scale = reader.scale();
    let Reader { fields, problems } = reader;
    service.volumes = mounts::volumes(fields, context, problems);
    service.tmpfs = mounts::tmpfs(fields, problems);
    service.files = given_files::read(fields, context, problems);
    let address = networks::read(fields, &mut service, context, problems);
    let mut settings = SettingsReader {
        settings: BTreeMap::new(),
        problems,
    };
    settings.read(fields);
    service.engine_settings = settings.settings;
    if service.slice.is_some() {
        stays_in_its_slice(fields, problems);
    }
    // What other tools read, and what `docker compose up` itself reads when it stays in the foreground.
    fields.leave_alone(&[
        "attach",
        "develop",
        "ports",
        "container_name",
        "expose",
        "extends",
    ]);
    fields.finish(of_compose, problems);
    ParsedService {
        service,
        address,
        has_image,
        scale,
    }
}

fn stays_in_its_slice(fields: &mut Fields, problems: &mut Problems) {
    if let Some(node) = fields.take("cgroup_parent") {
        let what = format!(
            "`{}.cgroup_parent` takes the container out of its environment's slice",
            fields.path
        );
        problems.push(
            Diagnostic::error_at(node.span.clone(), what)
                .hint("take it out: the slice isolates and limits the environment"),
        );
    }
}

/// A service that is being read.
pub(super) struct Reader<'a, 'b> {
    pub(super) fields: &'a mut Fields<'b>,
    pub(super) problems: &'a mut Problems,
}

impl Reader<'_, '_> {
    pub(super) fn wrong(&mut self, span: &Span, what: String, hint: &str) {
        self.problems
            .push(Diagnostic::error_at(span.clone(), what).hint(hint));
    }

    pub(super) fn text(&mut self, key: &'static str) -> Option<(String, Span)> {
        self.fields.text(key, self.problems)
    }

    pub(super) fn plain(&mut self, key: &'static str) -> Option<String> {
        self.text(key).map(|(text, _)| text)
    }

    pub(super) fn flag(&mut self, key: &'static str) -> bool {
        self.fields.boolean(key, self.problems).unwrap_or(false)
    }

    fn checked(
        &mut self,
        key: &'static str,
        fits: impl Fn(&str) -> bool,
        wanted: &str,
    ) -> Option<String> {
        let (value, span) = self.text(key)?;
        if !fits(&value) {
            let what = format!("`{value}` is not {wanted}");
            self.problems
                .push(Diagnostic::error_at(span, what).label(format!("`{key}` takes {wanted}")));
        }
        Some(value)
    }

    fn words(&mut self, key: &'static str) -> Option<Vec<String>> {
        let node = self.fields.take(key)?;
        if node.as_list().is_some() {
            let words = self.fields.list(key, self.problems)?;
            return Some(words.into_iter().map(|(word, _)| word).collect());
        }
        let Some(text) = node.scalar() else {
            self.fields
                .wrong_type(key, node, "a string or a list of strings", self.problems);
            return None;
        };
        let words = shlex::split(&text);
        if words.is_none() {
            let what = format!("the quotes in `{key}` do not match");
            self.wrong(&node.span, what, "close the quote, or give a list of words");
        }
        words
    }

    /// What runs, and in which surroundings.
    fn process(&mut self, service: &mut Service) {
        service.command = self.words("command");
        service.entrypoint = self.words("entrypoint");
        service.environment = self.environment();
        service.env_file = self.env_files();
        service.labels = self.labels();
        let files = self
            .fields
            .one_or_many("label_file", self.problems)
            .unwrap_or_default()
            .into_iter();
        service.label_file = files
            .map(|(path, span)| EnvFile {
                path: PathBuf::from(path),
                span,
                is_required: true,
                is_raw: false,
            })
            .collect();
        service.hostname = self.checked("hostname", is_host_name, "a host name");
        service.user = self.plain("user");
        service.platform = self.plain("platform");
        service.working_dir = self.checked(
            "working_dir",
            |path| path.starts_with('/'),
            "an absolute path in the container",
        );
        let is_container_name = |name: &str| {
            name.len() > 1
                && name.starts_with(|c: char| c.is_ascii_alphanumeric())
                && name
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
        };
        service.container_name =
            self.checked("container_name", is_container_name, "a name of a container");
        service.shm_size = self.text("shm_size").and_then(|(text, span)| {
            let size = parse_bytes(&text);
            if size.is_none() {
                let what = format!("`{text}` is not a size");
                self.wrong(
                    &span,
                    what,
                    "write bytes, or a number with `k`, `m` or `g`, like `64m`",
                );
            }
            size
        });
    }

    fn environment(&mut self) -> BTreeMap<String, Option<String>> {
        let mut all = BTreeMap::new();
        for (key, value, span) in self.fields.assignments("environment", self.problems) {
            if key.is_empty() || key.contains(['=', ' ', '\0']) {
                let what = format!("`{key}` is not the name of a variable");
                self.wrong(&span, what, "names have no spaces and no `=`");
            }
            all.insert(key, value);
        }
        all
    }

    fn env_files(&mut self) -> Vec<EnvFile> {
        let Some(node) = self.fields.take("env_file") else {
            return Vec::new();
        };
        let items = match &node.value {
            Value::List(items) => items.as_slice(),
            _ => std::slice::from_ref(node),
        };
        let mut files = Vec::new();
        for item in items {
            let plain = item.scalar();
            if plain.is_none() && item.as_map().is_none() {
                self.fields.wrong_type(
                    "env_file",
                    item,
                    "a string or a list of strings",
                    self.problems,
                );
                continue;
            }
            let path = format!("{}.env_file", self.fields.path);
            let mut keys = Fields::new(path, item.as_map());
            let is_required = keys.boolean("required", self.problems).unwrap_or(true);
            let format = keys.text("format", self.problems);
            let path = match plain {
                Some(path) => Some((path, item.span.clone())),
                None => keys.text("path", self.problems),
            };
            keys.finish(|_| None, self.problems);
            if let Some((format, span)) = &format
                && format != "raw"
            {
                let what = format!("`{format}` is no format of an env file");
                self.wrong(span, what, "leave `format` out, or write `raw`");
            }
            if let Some((path, span)) = path {
                files.push(EnvFile {
                    path: PathBuf::from(path),
                    span,
                    is_required,
                    is_raw: format.is_some(),
                });
            }
        }
        files
    }

    fn labels(&mut self) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        for (key, value, span) in self.fields.assignments("labels", self.problems) {
            if is_own_label(&key) {
                self.wrong(
                    &span,
                    format!("the label `{key}` is homelab's own"),
                    "labels that begin with `homelab.` or `com.docker.compose.` say what homelab made; choose another name",
                );
            }
            all.insert(key, value.unwrap_or_default());
        }
        all
    }

    /// What it may do.
    fn rights(&mut self, service: &mut Service) {
        service.privileged = self.flag("privileged");
        service.init = self.fields.boolean("init", self.problems);
        service.read_only = self.flag("read_only");
        service.cap_add = self.capabilities("cap_add");
        service.cap_drop = self.capabilities("cap_drop");
        service.devices = self.devices();
    }

    fn capabilities(&mut self, key: &'static str) -> Vec<String> {
        let mut all = Vec::new();
        for (text, span) in self.fields.list(key, self.problems).unwrap_or_default() {
            match capability(&text) {
                Ok(name) => all.push(name),
                Err(hint) => self.wrong(&span, format!("`{text}` is not a capability"), &hint),
            }
        }
        all
    }

    fn devices(&mut self) -> Vec<Device> {
        let mut all = Vec::new();
        for item in self.fields.items("devices", self.problems) {
            let text = |key: &str| item.get(key).and_then(Node::scalar);
            let (source, target, permissions) = match item.scalar() {
                Some(short) => {
                    let mut parts = short.splitn(3, ':').map(str::to_owned);
                    (parts.next(), parts.next(), parts.next())
                }
                None => (text("source"), text("target"), text("permissions")),
            };
            let source = source.unwrap_or_default();
            let target = target.unwrap_or_else(|| source.clone());
            let permissions = permissions.unwrap_or_else(|| "rwm".to_owned());
            let fits = source.starts_with('/')
                && target.starts_with('/')
                && !permissions.is_empty()
                && permissions.chars().all(|c| "rwm".contains(c));
            if fits {
                all.push(Device {
                    source,
                    target,
                    permissions,
                });
            } else {
                let shown = item.scalar().unwrap_or(source);
                let what = format!("`{shown}` is not a device");
                self.wrong(
                    &item.span,
                    what,
                    "write `/dev/ttyUSB0` or `/dev/ttyUSB0:/dev/zigbee:rw`",
                );
            }
        }
        all
    }

    /// How many containers are wanted.
    fn scale(&mut self) -> u32 {
        let scale = self.fields.take("scale").map(|node| node.span.clone());
        let older = self.fields.integer("scale", self.problems);
        let mut deploy = self.fields.table("deploy", self.problems);
        let newer = deploy.integer("replicas", self.problems);
        if let (Some(older), Some(newer), Some(span)) = (older, newer, &scale)
            && older != newer
        {
            let what = "`scale` says something else than `deploy.replicas`".to_owned();
            self.wrong(span, what, "keep one of the two");
        }
        let wanted = newer.or(older).unwrap_or(1);
        let fits = u32::try_from(wanted).ok().filter(|wanted| *wanted <= 250);
        if fits.is_none() {
            let span = scale.unwrap_or(0..0);
            self.wrong(
                &span,
                format!("`{wanted}` is no number of containers"),
                "write a number from 0 to 250",
            );
        }
        fits.unwrap_or(1)
    }
}

/// Why a key that people know from Compose files cannot be honoured.
fn of_compose(key: &str) -> Option<&'static str> {
    match key {
        "gpus" => Some(NO_GPU),
        "credential_spec" | "cpu_count" | "cpu_percent" | "isolation" => {
            Some("it is for Windows containers; take it out")
        }
        "external_links" => {
            Some("name the other container in `extra_hosts`, or put both on one network")
        }
        "provider" | "models" | "use_api_socket" => {
            Some("homelab runs containers only: take it out")
        }
        "post_start" | "pre_stop" => {
            Some("homelab runs no hooks: put the command into the image's own start")
        }
        _ => None,
    }
}
