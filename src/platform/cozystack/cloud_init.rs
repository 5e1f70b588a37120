//! `cloudInit` of a virtual machine: a text that is passed on, or what is to be installed, from
//! which the text is made.

use serde_json::{Map, Value as Json, json};

use crate::desired::Block;
use crate::error::Diagnostic;
use crate::value::{Node, Value};

use super::values;

/// What cloud-init tells its formats apart by (its manual, "User-Data Formats").
const BEGINNINGS: [&str; 6] = [
    "#cloud-config",
    "#!",
    "#include",
    "#cloud-boothook",
    "## template: jinja",
    "Content-Type:",
];

/// The keys of the other form, beside those of cloud-init itself that are passed on.
const PASSED_ON: [&str; 5] = [
    "users",
    "package_update",
    "packages",
    "write_files",
    "runcmd",
];

/// The user data of a machine, if any is wanted.
pub(super) fn read(block: &mut Block<'_, '_>, monitoring: bool) -> Option<String> {
    let node = block.node("cloudInit");
    match node.map(|node| (&node.value, node)) {
        None => {
            if monitoring {
                let message =
                    "`monitoring` runs NVIDIA's exporter as a container, which takes Docker";
                let found = Diagnostic::error(message).hint("add `cloudInit: {docker: true}`");
                let found = match &block.origin {
                    Some(origin) => found.at(origin),
                    None => found,
                };
                block.problems.push(found);
            }
            None
        }
        Some((Value::Str(text), node)) => {
            check_text(text, node, block);
            if monitoring {
                let message = "`monitoring` adds an exporter to `cloudInit`, which is a text of your own here".to_owned();
                values::blame(
                    block.problems,
                    node,
                    message,
                    "write `cloudInit` as a mapping, or start the exporter in the text and set the annotations yourself",
                );
            }
            Some(text.clone())
        }
        Some((Value::Map(_), node)) => Some(made(node, block, monitoring)),
        Some((_, node)) => {
            let message = format!("`cloudInit` is a text or a mapping, not {}", node.kind());
            values::blame(
                block.problems,
                node,
                message,
                "a text that begins with `#cloud-config`, or what to install: `{driver: 535, docker: true}`",
            );
            None
        }
    }
}

fn check_text(text: &str, node: &Node, block: &mut Block<'_, '_>) {
    if !BEGINNINGS
        .iter()
        .any(|beginning| text.starts_with(beginning))
    {
        let message = "`cloudInit` does not begin as cloud-init's user data does".to_owned();
        values::blame(
            block.problems,
            node,
            message,
            "its first line is `#cloud-config`; without it, cloud-init ignores the text",
        );
        return;
    }
    if text.starts_with("#cloud-config")
        && let Err(problem) = serde_yaml::from_str::<Json>(text)
    {
        let message = format!("`cloudInit` is no YAML: {problem}");
        block
            .problems
            .push(Diagnostic::error(message).at(&node.origin));
    }
}

/// What is installed in a machine.
#[derive(Debug)]
struct Software {
    /// Branch of NVIDIA's driver, such as 535.
    driver: Option<u32>,
    /// Name of the distribution in NVIDIA's repositories, such as `ubuntu2204`.
    distribution: String,
    docker: bool,
    deep_learning: bool,
}

impl Default for Software {
    fn default() -> Self {
        Self {
            driver: None,
            distribution: "ubuntu2204".to_owned(),
            docker: false,
            deep_learning: false,
        }
    }
}

fn made(node: &Node, block: &mut Block<'_, '_>, monitoring: bool) -> String {
    let path = block.path_of("cloudInit");
    let mut own = Block::new(&path, Some(node), block.problems);
    let driver = own
        .count_if_written("driver", 390, 9999)
        .map(|found| found.value);
    let distribution = own.text("distribution", "ubuntu2204");
    let is_word = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric());
    if !is_word(&distribution.value) {
        let message = format!("`{path}.distribution` is a word such as `ubuntu2204`");
        let found = distribution.blame(Diagnostic::error(message));
        own.problems.push(found);
    }
    let software = Software {
        driver,
        distribution: distribution.value,
        docker: own.flag("docker", false).value,
        deep_learning: own.flag("deep_learning", false).value,
    };
    let mut rest = Map::new();
    for key in PASSED_ON {
        if let Some(node) = own.node(key) {
            rest.insert(key.to_owned(), node.to_json());
        }
    }
    if monitoring && !software.docker {
        let message =
            "`monitoring` runs NVIDIA's exporter as a container, which takes Docker".to_owned();
        values::blame(own.problems, node, message, "add `docker: true`");
    }
    own.finish();
    text(&software, &rest, monitoring)
}

/// The text: packages that the building of the driver takes, then commands in their order, the
/// user's own last.
fn text(software: &Software, rest: &Map<String, Json>, monitoring: bool) -> String {
    let mut all = Map::new();
    if let Some(users) = rest.get("users") {
        all.insert("users".to_owned(), users.clone());
    }
    let mut packages: Vec<Json> = Vec::new();
    if software.driver.is_some() || software.docker {
        packages.extend(["curl", "wget", "build-essential", "dkms"].map(Json::from));
    }
    packages.extend(list(rest, "packages"));
    if !packages.is_empty() {
        let update = rest.get("package_update").cloned();
        all.insert("package_update".to_owned(), update.unwrap_or(json!(true)));
        all.insert("packages".to_owned(), Json::Array(packages));
    }
    if let Some(files) = rest.get("write_files") {
        all.insert("write_files".to_owned(), files.clone());
    }
    let mut commands = commands(software, monitoring);
    commands.extend(list(rest, "runcmd"));
    if !commands.is_empty() {
        all.insert("runcmd".to_owned(), Json::Array(commands));
    }
    let yaml = serde_yaml::to_string(&all).unwrap_or_default();
    format!("#cloud-config\n{yaml}")
}

fn list(rest: &Map<String, Json>, key: &str) -> Vec<Json> {
    let list = rest.get(key).and_then(Json::as_array);
    list.cloned().unwrap_or_default()
}

/// NVIDIA's ways to install its driver and its container toolkit, as the reference has them: the
/// packages are signed; the keyring's own package and Docker's script are trusted for the site
/// that they come from.
fn commands(software: &Software, monitoring: bool) -> Vec<Json> {
    let mut commands: Vec<String> = Vec::new();
    if let Some(driver) = software.driver {
        let base = "https://developer.download.nvidia.com/compute/cuda/repos";
        let keyring = "cuda-keyring_1.0-1_all.deb";
        commands.push(format!(
            "wget {base}/{}/x86_64/{keyring}",
            software.distribution
        ));
        commands.push(format!("dpkg -i {keyring}"));
        commands.push("apt-get update".to_owned());
        commands.push(format!(
            "apt-get install -y cuda-toolkit nvidia-driver-{driver}"
        ));
        commands.push("systemctl enable nvidia-persistenced".to_owned());
        commands.push("nvidia-smi -pm 1".to_owned());
    }
    if software.docker {
        let key = "/usr/share/keyrings/nvidia-container-toolkit-keyring.gpg";
        let site = "https://nvidia.github.io/libnvidia-container";
        let sources = "/etc/apt/sources.list.d/nvidia-container-toolkit.list";
        commands.push("curl -fsSL https://get.docker.com | sh".to_owned());
        commands.push("distribution=$(. /etc/os-release;echo $ID$VERSION_ID)".to_owned());
        commands.push(format!("curl -fsSL {site}/gpgkey | gpg --dearmor -o {key}"));
        commands.push(format!(
            "curl -s -L {site}/$distribution/libnvidia-container.list | sed 's#deb https://#deb [signed-by={key}] https://#g' | tee {sources}"
        ));
        commands.push("apt-get update".to_owned());
        commands.push("apt-get install -y nvidia-container-toolkit".to_owned());
        commands.push("nvidia-ctk runtime configure --runtime=docker".to_owned());
        commands.push("systemctl restart docker".to_owned());
    }
    if software.deep_learning {
        commands.push("pip3 install torch torchvision torchaudio".to_owned());
        commands.push("pip3 install tensorflow[and-cuda]".to_owned());
        commands.push("pip3 install jupyterlab".to_owned());
        commands.push("jupyter lab --generate-config".to_owned());
        commands.push("echo 'export CUDA_CACHE_PATH=/tmp' >> /etc/environment".to_owned());
        commands.push(
            "echo 'export PYTORCH_CUDA_ALLOC_CONF=max_split_size_mb:128' >> /etc/environment"
                .to_owned(),
        );
    }
    if monitoring {
        commands.push(
            "docker run -d --gpus all --rm -p 9400:9400 nvcr.io/nvidia/k8s/dcgm-exporter:3.1.8-3.1.5-ubuntu20.04"
                .to_owned(),
        );
    }
    commands.into_iter().map(Json::String).collect()
}
