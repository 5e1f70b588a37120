//! `gpu_podman`: the containers that systemd runs through podman's Quadlet, as the user
//! wrote them, typed and checked.
//!
//! What can be told from the variables alone is told here, with positions. Which cards and
//! slices a host has, `devices` finds out.

use std::collections::BTreeSet;

use crate::desired::{Block, ContainerRuntime, Desired, DeviceRef, Located};
use crate::error::{Diagnostic, Origin, Problems};
use crate::value::{Node, Value};

use super::limits::{self, Limits};
use super::secrets::{self, SecretRef};

/// The variable.
pub(super) const VARIABLE: &str = "gpu_podman";

/// `gpu_podman`.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct PodmanWanted {
    /// `containers`, in their order.
    pub(super) containers: Vec<Container>,
    /// `pods`.
    pub(super) pods: Vec<Pod>,
}

/// An entry of `containers`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Container {
    /// `name`: of the container, of its unit and of its file.
    pub(super) name: Located<String>,
    /// `image`: with its registry.
    pub(super) image: Located<String>,
    /// `pull`.
    pub(super) pull: Located<Pull>,
    /// `gpu`: what it gets of the cards.
    pub(super) gpu: Vec<SliceAsk>,
    /// `user`: who runs it; none for root.
    pub(super) user: Option<Located<String>>,
    /// `pod`: the name of one of `pods`.
    pub(super) pod: Option<Located<String>>,
    /// `command`: words; empty for the image's own.
    pub(super) command: Vec<String>,
    /// `environment`.
    pub(super) environment: Vec<(String, String)>,
    /// `secrets`: of podman's store, which is filled without us.
    pub(super) secrets: Vec<SecretRef>,
    /// `volumes`: `SOURCE:TARGET[:OPTIONS]`.
    pub(super) volumes: Vec<Located<String>>,
    /// `ports`: `[IP:]HOST:CONTAINER`.
    pub(super) ports: Vec<Located<String>>,
    /// `network`; podman's own choice where it is not written.
    pub(super) network: Option<Located<String>>,
    /// `tmpfs`: folders that can be written to though the image cannot.
    pub(super) tmpfs: Vec<Located<String>>,
    /// `read_only`: whether the image's files cannot be changed.
    pub(super) read_only: Located<bool>,
    /// `privileged`.
    pub(super) privileged: Located<bool>,
    /// `capabilities`: the only ones that it has.
    pub(super) capabilities: Vec<Located<String>>,
    /// `new_privileges`: whether programs in it may gain more than their caller has.
    pub(super) new_privileges: Located<bool>,
    /// `user_namespace`.
    pub(super) user_namespace: Located<UserNamespace>,
    /// `apparmor`: name of a profile; podman's own where it is not written.
    pub(super) apparmor: Option<Located<String>>,
    /// `resource_limits`, over those of `containers_gpu_container_integration`.
    pub(super) limits: Limits,
    /// `health_command`: run in the container, it ends with 0 where the slice is usable.
    pub(super) health_command: Vec<String>,
    /// Where it stands.
    pub(super) origin: Option<Origin>,
}

/// An entry of `pods`: containers that share one network.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pod {
    /// `name`.
    pub(super) name: Located<String>,
    /// `user`: who runs it; none for root.
    pub(super) user: Option<Located<String>>,
    /// `network`.
    pub(super) network: Option<Located<String>>,
    /// `ports`.
    pub(super) ports: Vec<Located<String>>,
}

/// When podman fetches an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pull {
    /// Where it is not there.
    Missing,
    /// At each start.
    Always,
    /// Not at all.
    Never,
    /// At each start, where the registry has a newer one.
    Newer,
}

impl Pull {
    const WORDS: [(&'static str, Self); 4] = [
        ("missing", Self::Missing),
        ("always", Self::Always),
        ("never", Self::Never),
        ("newer", Self::Newer),
    ];

    /// podman's word.
    pub(super) fn word(self) -> &'static str {
        let found = Self::WORDS.iter().find(|(_, pull)| *pull == self);
        found.map_or("missing", |(word, _)| word)
    }
}

/// Whose numbers users in a container have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UserNamespace {
    /// The user's own for a rootless container, the host's for one of root.
    Default,
    /// A range of its own.
    Auto,
    /// As the default, but that the user is itself in it.
    KeepId,
}

/// An entry of `gpu`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SliceAsk {
    /// Which.
    pub(super) which: Which,
    /// `count`: how many of them.
    pub(super) count: Located<u32>,
    /// Where it stands.
    pub(super) origin: Option<Origin>,
}

/// What of the cards.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Which {
    /// `any`: a slice where cards are sliced, else a card.
    Any,
    /// A whole card, or one of its slices where it is sliced.
    Card(Located<DeviceRef>),
    /// A MIG device of a profile, on any card or on one.
    Profile(Located<String>, Option<Located<DeviceRef>>),
}

impl Container {
    /// Who runs it, in words.
    pub(super) fn run_by(&self) -> &str {
        self.user.as_ref().map_or("root", |user| &user.value)
    }
}

/// Reads the block.
pub(super) fn read(desired: &Desired, problems: &mut Problems) -> PodmanWanted {
    let node = desired.platforms.get(VARIABLE);
    let mut block = Block::new(VARIABLE, node, problems);
    let pods = list(&mut block, "pods");
    let containers = list(&mut block, "containers");
    block.finish();
    let wanted = PodmanWanted {
        pods: each("pods", pods, problems, read_pod),
        containers: each("containers", containers, problems, |block| {
            read_container(block, desired)
        }),
    };
    check_names(&wanted, problems);
    for container in &wanted.containers {
        check_container(container, &wanted, desired, problems);
    }
    wanted
}

fn list<'v>(block: &mut Block<'v, '_>, key: &'static str) -> &'v [Node] {
    let Some(node) = block.node(key) else {
        return &[];
    };
    if let Some(items) = node.as_seq() {
        return items;
    }
    let message = format!(
        "`{}` must be a list, not {}",
        block.path_of(key),
        node.kind()
    );
    let problem = Diagnostic::error(message).at(&node.origin);
    block.problems.push(problem);
    &[]
}

fn each<T>(
    key: &str,
    items: &[Node],
    problems: &mut Problems,
    read: impl Fn(&mut Block<'_, '_>) -> T,
) -> Vec<T> {
    let mut found = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let mut block = Block::new(&format!("{VARIABLE}.{key}[{index}]"), Some(item), problems);
        found.push(read(&mut block));
        block.finish();
    }
    found
}

fn read_pod(block: &mut Block<'_, '_>) -> Pod {
    Pod {
        name: name(block, "name"),
        user: user(block),
        network: written(block.text("network", "")),
        ports: plain_texts(block, "ports"),
    }
}

fn read_container(block: &mut Block<'_, '_>, desired: &Desired) -> Container {
    let origin = block.origin.clone();
    let least = desired.integration.resource_limits.gpu_instances.value;
    let limits = limits::read(block);
    let count = limits
        .gpu_instances
        .as_ref()
        .map_or(least, |count| count.value);
    Container {
        name: name(block, "name"),
        image: image(block, ""),
        pull: block.word("pull", Pull::Missing, &Pull::WORDS),
        gpu: read_gpu(block, count),
        user: user(block),
        pod: written(block.text("pod", "")),
        command: words(block, "command"),
        environment: environment(block),
        secrets: secrets::read(block),
        volumes: plain_texts(block, "volumes"),
        ports: plain_texts(block, "ports"),
        network: written(block.text("network", "")),
        tmpfs: plain_texts(block, "tmpfs"),
        read_only: block.flag("read_only", true),
        privileged: block.flag("privileged", false),
        capabilities: plain_texts(block, "capabilities"),
        new_privileges: block.flag("new_privileges", false),
        user_namespace: block.word(
            "user_namespace",
            UserNamespace::Default,
            &[
                ("default", UserNamespace::Default),
                ("auto", UserNamespace::Auto),
                ("keep-id", UserNamespace::KeepId),
            ],
        ),
        apparmor: written(block.text("apparmor", "")),
        limits,
        health_command: words(block, "health_command"),
        origin,
    }
}

fn written(text: Located<String>) -> Option<Located<String>> {
    (!text.value.is_empty()).then_some(text)
}

/// A name that podman and systemd both take, so that the unit is called as the container.
fn name(block: &mut Block<'_, '_>, key: &'static str) -> Located<String> {
    let name = block.text(key, "");
    let fine = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.len() <= 64
            && name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
    };
    if name.value.is_empty() {
        let message = format!("`{}` is missing", block.path_of(key));
        let problem = Diagnostic::error(message);
        let problem = match block.origin.clone() {
            Some(origin) => problem.at(&origin),
            None => problem,
        };
        block.problems.push(problem);
    } else if !fine(&name.value) {
        let message = format!("`{}` is no name for a unit", name.value);
        let hint =
            "a name begins with a letter or digit and is made of letters, digits, `-`, `_` and `.`";
        let problem = name.blame(Diagnostic::error(message).hint(hint));
        block.problems.push(problem);
    }
    name
}

/// Who runs it: a name of the host's, never `root`, which is nobody here.
fn user(block: &mut Block<'_, '_>) -> Option<Located<String>> {
    let user = written(block.text("user", ""))?;
    let fine = user
        .value
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
        && user
            .value
            .starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    if !fine {
        let message = format!("`{}` is no name of a user", user.value);
        let problem = user.blame(Diagnostic::error(message));
        block.problems.push(problem);
        return None;
    }
    (user.value != "root").then_some(user)
}

/// An image with its registry: a short name is another image wherever another registry is
/// asked first.
pub(super) fn image(block: &mut Block<'_, '_>, default: &str) -> Located<String> {
    let image = block.text("image", default);
    let first = image.value.split('/').next().unwrap_or_default();
    let has_registry = image.value.contains('/')
        && (first.contains('.') || first.contains(':') || first == "localhost");
    let message = if image.value.is_empty() && image.is_written() {
        format!("`{}` is empty", block.path_of("image"))
    } else if image.value.is_empty() {
        format!("`{}` is missing", block.path_of("image"))
    } else if !is_plain(&image.value) || image.value.contains(char::is_whitespace) {
        format!("`{}` is no name of an image", image.value.escape_debug())
    } else if !has_registry {
        format!("`{}` names no registry", image.value)
    } else {
        return image;
    };
    let hint =
        "write it in full, such as `docker.io/library/debian:13` or `nvcr.io/nvidia/cuda@sha256:…`";
    let problem = Diagnostic::error(message).hint(hint);
    let problem = match (&image.origin, &block.origin) {
        (Some(origin), _) | (None, Some(origin)) => problem.at(origin),
        (None, None) => problem,
    };
    block.problems.push(problem);
    image
}

/// Whether a text stays on its line in a unit.
fn is_plain(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

fn plain_texts(block: &mut Block<'_, '_>, key: &'static str) -> Vec<Located<String>> {
    let texts = block.texts(key).value;
    for text in &texts {
        if !is_plain(&text.value) || text.value.is_empty() {
            let message = format!(
                "`{}` does not fit on a line of a unit: `{}`",
                block.path_of(key),
                text.value.escape_debug()
            );
            let problem = text.blame(Diagnostic::error(message));
            block.problems.push(problem);
        }
    }
    texts
}

/// A list of words, or a text for the container's shell.
fn words(block: &mut Block<'_, '_>, key: &'static str) -> Vec<String> {
    let Some(node) = block.node(key) else {
        return Vec::new();
    };
    let words: Option<Vec<String>> = match &node.value {
        Value::Str(text) => Some(vec!["sh".to_owned(), "-c".to_owned(), text.clone()]),
        Value::Seq(items) => items.iter().map(scalar).collect(),
        _ => None,
    };
    match words {
        Some(words) if words.iter().all(|word| is_plain(word)) => words,
        _ => {
            let path = block.path_of(key);
            let message = format!("`{path}` must be a command: a text or a list of words");
            let hint = "no word may have a line break in it";
            let problem = Diagnostic::error(message).at(&node.origin).hint(hint);
            block.problems.push(problem);
            Vec::new()
        }
    }
}

/// A word as a person writes one: numbers and booleans too.
fn scalar(node: &Node) -> Option<String> {
    match &node.value {
        Value::Str(text) => Some(text.clone()),
        Value::Int(value) => Some(value.to_string()),
        Value::Float(value) => Some(value.to_string()),
        Value::Bool(value) => Some(value.to_string()),
        _ => None,
    }
}

fn environment(block: &mut Block<'_, '_>) -> Vec<(String, String)> {
    let Some(node) = block.node("environment") else {
        return Vec::new();
    };
    let mut found = Vec::new();
    let Some(map) = node.as_map() else {
        let message = format!(
            "`{}` must be a mapping of names to values",
            block.path_of("environment")
        );
        let problem = Diagnostic::error(message).at(&node.origin);
        block.problems.push(problem);
        return found;
    };
    for (name, entry) in map {
        let fine = !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        match scalar(&entry.node).filter(|value| fine && is_plain(value)) {
            Some(value) => found.push((name.clone(), value)),
            None => {
                let message = format!("`{name}` cannot be set in a unit");
                let hint = "a name is made of letters, digits and `_`, and a value is a text without line breaks";
                let problem = Diagnostic::error(message).at(&entry.key).hint(hint);
                block.problems.push(problem);
            }
        }
    }
    found
}

const GPU_FORMS: &str = "`any`, a number of slices, a mapping such as `{profile: 1g.10gb}` or `{index: 0}`, or a list of these";

fn read_gpu(block: &mut Block<'_, '_>, count: u32) -> Vec<SliceAsk> {
    let Some(node) = block.node("gpu") else {
        return Vec::new();
    };
    let path = block.path_of("gpu");
    let items = match &node.value {
        Value::Seq(items) => items.iter().collect(),
        _ => vec![node],
    };
    let several = matches!(node.value, Value::Seq(_));
    let mut asks = Vec::new();
    for (index, item) in items.into_iter().enumerate() {
        let path = match several {
            true => format!("{path}[{index}]"),
            false => path.clone(),
        };
        asks.extend(read_ask(&path, item, count, block.problems));
    }
    asks
}

fn read_ask(path: &str, node: &Node, count: u32, problems: &mut Problems) -> Option<SliceAsk> {
    let any = |count: u32, written: bool| SliceAsk {
        which: Which::Any,
        count: Located {
            value: count,
            origin: written.then(|| node.origin.clone()),
        },
        origin: Some(node.origin.clone()),
    };
    match &node.value {
        Value::Str(word) if word == "any" => return Some(any(count, false)),
        Value::Int(number) if (1..=64).contains(number) => {
            return Some(any(u32::try_from(*number).unwrap_or(1), true));
        }
        Value::Map(_) => {}
        _ => {
            let message = format!("`{path}` must be {GPU_FORMS}");
            problems.push(Diagnostic::error(message).at(&node.origin));
            return None;
        }
    }
    let mut block = Block::new(path, Some(node), problems);
    let profile = written(block.text("profile", ""));
    let count = block.count("count", count, 1, 64);
    let mut cards: Vec<Located<DeviceRef>> = ["index", "pci", "uuid"]
        .into_iter()
        .filter_map(|key| block.device(key))
        .collect();
    if let [_, second, ..] = &cards[..] {
        let message = format!("`{path}` names a card twice");
        let problem = second
            .blame(Diagnostic::error(message).hint("one of `index`, `pci` and `uuid` is enough"));
        block.problems.push(problem);
    }
    block.finish();
    let card = (!cards.is_empty()).then(|| cards.swap_remove(0));
    let which = match (profile, card) {
        (Some(profile), card) => Which::Profile(profile, card),
        (None, Some(card)) => Which::Card(card),
        (None, None) => Which::Any,
    };
    Some(SliceAsk {
        which,
        count,
        origin: Some(node.origin.clone()),
    })
}

/// Units of one user have names of their own: containers, pods and what podman makes of them.
fn check_names(wanted: &PodmanWanted, problems: &mut Problems) {
    let user = |user: &Option<Located<String>>| user.as_ref().map(|user| user.value.clone());
    let mut taken: BTreeSet<(Option<String>, String)> = BTreeSet::new();
    let mut add = |name: &Located<String>, owner: Option<String>, unit: String| {
        if !name.value.is_empty() && !taken.insert((owner, unit)) {
            let message = format!("`{}` stands in `{VARIABLE}` twice", name.value);
            problems.push(name.blame(Diagnostic::error(message)));
        }
    };
    for pod in &wanted.pods {
        add(
            &pod.name,
            user(&pod.user),
            format!("{}-pod", pod.name.value),
        );
    }
    for container in &wanted.containers {
        add(
            &container.name,
            user(&container.user),
            container.name.value.clone(),
        );
    }
}

fn check_container(
    container: &Container,
    wanted: &PodmanWanted,
    desired: &Desired,
    problems: &mut Problems,
) {
    let mut refuse = |at: &dyn Fn(Diagnostic) -> Diagnostic, message: String, hint: &str| {
        problems.push(at(Diagnostic::error(message).hint(hint)));
    };
    let name = &container.name.value;
    if let Some(pod) = &container.pod {
        let blame = |d: Diagnostic| pod.blame(d);
        match wanted
            .pods
            .iter()
            .find(|other| other.name.value == pod.value)
        {
            None => {
                let names: Vec<&str> = wanted.pods.iter().map(|pod| &*pod.name.value).collect();
                let hint = match names.is_empty() {
                    true => format!("`{VARIABLE}.pods` has none"),
                    false => format!("there is `{}`", names.join("`, `")),
                };
                refuse(&blame, format!("there is no pod `{}`", pod.value), &hint);
            }
            Some(found) => {
                let owner = |user: &Option<Located<String>>| user.as_ref().map(|u| u.value.clone());
                if owner(&found.user) != owner(&container.user) {
                    let message = format!(
                        "container `{name}` and its pod `{}` have different users",
                        pod.value
                    );
                    refuse(&blame, message, "give both the same `user`");
                }
            }
        }
        for (key, set) in [
            ("network", container.network.as_ref()),
            ("ports", container.ports.first()),
        ] {
            if let Some(set) = set {
                let message = format!("`{key}` of container `{name}` is its pod's matter");
                let hint = format!("write it at pod `{}`", pod.value);
                refuse(&|d| set.blame(d), message, &hint);
            }
        }
        if container.user_namespace.value != UserNamespace::Default {
            let message = format!("`user_namespace` of container `{name}` is its pod's matter");
            refuse(
                &|d| container.user_namespace.blame(d),
                message,
                "leave it out for a container in a pod",
            );
        }
    }
    if let Some(apparmor) = &container.apparmor
        && container.privileged.value
    {
        let message = format!("container `{name}` is privileged, so that no profile holds it");
        refuse(
            &|d| apparmor.blame(d),
            message,
            "leave out one of `apparmor` and `privileged`",
        );
    }
    if container.user_namespace.value == UserNamespace::KeepId && container.user.is_none() {
        let message = format!("container `{name}` of root has no user to keep");
        refuse(
            &|d| container.user_namespace.blame(d),
            message,
            "`keep-id` is for containers with a `user`; there is `auto` for those of root",
        );
    }
    if !container.gpu.is_empty()
        && container.user.is_some()
        && desired.integration.runtime.value == ContainerRuntime::Runc
    {
        // keep-groups is an annotation that only crun reads.
        let message = format!(
            "container `{name}` of user `{}` needs `runtime: crun`",
            container.run_by()
        );
        refuse(
            &|d| desired.integration.runtime.blame(d),
            message,
            "runc does not keep the user's groups in a container, by which the user may open the cards' nodes",
        );
    }
    limits::check(container, problems);
}
