//! `nvidia-ctk`: `cdi generate`, `cdi list` and `runtime configure` for Docker and containerd, written from
//! the sources of NVIDIA's container toolkit 1.17.
//!
//! What a specification says besides device nodes (libraries of the driver, hooks) has no
//! meaning where there is no driver, and is left out; so are nodes that are none here.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value as Json, json};

use crate::sim::machine::{Host, Machine};
use crate::sim::spec::ContainerTool;
use crate::sim::tools::{Call, Outcome, containerd};

use super::list;

/// On a real test host only the cards are simulated: the root of its own files.
const FILES: &str = "DEPLOY_SIM_FILES";
/// Where the real tool looks for specifications, unless `NVIDIA_CTK_CDI_SPEC_DIRS` says so.
const FOLDERS: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];
const DAEMON_JSON: &str = "/etc/docker/daemon.json";

/// Runs the tool.
pub(in crate::sim::tools) fn run(call: &Call<'_>) -> io::Result<Outcome> {
    let machine = call.host.load()?;
    if !machine
        .spec
        .container_tools
        .contains(&ContainerTool::NvidiaCtk)
    {
        return Ok(Outcome::err("sh: 1: nvidia-ctk: not found\n", 127));
    }
    let words: Vec<&str> = call
        .args
        .iter()
        .map(String::as_str)
        .filter(|arg| !arg.starts_with('-'))
        .collect();
    if call.has("--version") || call.has("-v") {
        return Ok(Outcome::out(
            "NVIDIA Container Toolkit CLI version 1.17.8\ncommit: f202b80a9b9d0db00d9b1d73c0128c8962c55f4d\n",
            0,
        ));
    }
    match words[..] {
        ["cdi", "generate", ..] => generate(call, &machine),
        ["cdi", "list", ..] => listed(call.host),
        ["runtime", "configure", ..] => configure(call),
        _ => Ok(Outcome::err(
            "nvidia-ctk: this stand-in knows `cdi generate`, `cdi list` and `runtime configure`\n",
            1,
        )),
    }
}

/// The value behind `--name=` or `--name`.
fn option<'a>(call: &'a Call<'_>, name: &str) -> Option<&'a str> {
    let mut args = call.args.iter();
    while let Some(arg) = args.next() {
        if arg == name {
            return args.next().map(String::as_str);
        }
        if let Some(value) = arg
            .strip_prefix(name)
            .and_then(|rest| rest.strip_prefix('='))
        {
            return Some(value);
        }
    }
    None
}

/// A file of the machine's, which callers name with or without the folder that it lies in.
fn file(host: &Host, path: &str) -> PathBuf {
    if let Some(root) = std::env::var_os(FILES) {
        return Path::new(&root).join(path.trim_start_matches('/'));
    }
    match Path::new(path).starts_with(host.root()) {
        true => PathBuf::from(path),
        false => host.path(path),
    }
}

fn generate(call: &Call<'_>, machine: &Machine) -> io::Result<Outcome> {
    let strategies = match option(call, "--device-name-strategy") {
        Some(one) => vec![one],
        None => vec!["index", "uuid"],
    };
    let is_node = |path: &String| {
        let node = match std::env::var_os(FILES) {
            Some(root) => Path::new(&root).join(path.trim_start_matches('/')),
            None => call.host.path(path),
        };
        let found = fs::metadata(node);
        found.is_ok_and(|found| {
            found.file_type().is_char_device() || std::env::var_os(FILES).is_none()
        })
    };
    let mut text = "---\ncdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices:\n".to_owned();
    let mut all: Vec<String> = Vec::new();
    let mut count = 0;
    for (index, gpu) in machine.gpus.iter().enumerate() {
        let node = format!("/dev/nvidia{index}");
        let mut devices = Vec::new();
        match machine.product(gpu) {
            Some(product) if gpu.mig => {
                for device in list::devices(gpu, product) {
                    let uuid = gpu.mig_uuid(device.instance.id, device.compute.id);
                    devices.push((format!("{index}:{}", device.index), uuid));
                }
            }
            _ => devices.push((index.to_string(), gpu.uuid.clone())),
        }
        for (number, uuid) in devices {
            for strategy in &strategies {
                let name = match *strategy {
                    "index" => &number,
                    "uuid" => &uuid,
                    _ => {
                        return Ok(Outcome::err(
                            "nvidia-ctk: invalid device name strategy\n",
                            1,
                        ));
                    }
                };
                text.push_str(&device(name, std::slice::from_ref(&node)));
                count += 1;
            }
        }
        if !all.contains(&node) {
            all.push(node);
        }
    }
    text.push_str(&device("all", &all));
    text.push_str("containerEdits:\n  env:\n    - NVIDIA_VISIBLE_DEVICES=void\n  deviceNodes:\n");
    let common = [
        "/dev/nvidia-modeset",
        "/dev/nvidia-uvm",
        "/dev/nvidia-uvm-tools",
        "/dev/nvidiactl",
    ];
    for node in common
        .map(str::to_owned)
        .iter()
        .filter(|node| is_node(node))
    {
        text.push_str(&format!("    - path: {node}\n"));
    }
    if count == 0 {
        return Ok(Outcome::err(
            "ERRO[0000] failed to generate CDI spec: failed to create device CDI specs\n",
            1,
        ));
    }
    match option(call, "--output").filter(|path| !path.is_empty()) {
        None => Ok(Outcome::out(text, 0)),
        Some(path) => {
            let path = file(call.host, path);
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder)?;
            }
            fs::write(path, text)?;
            Ok(Outcome::err(
                "INFO[0000] Generated CDI spec with version 0.5.0 \n",
                0,
            ))
        }
    }
}

fn device(name: &str, nodes: &[String]) -> String {
    let mut text = format!("  - name: \"{name}\"\n    containerEdits:\n      deviceNodes:\n");
    for node in nodes {
        text.push_str(&format!("        - path: {node}\n"));
    }
    text
}

fn listed(host: &Host) -> io::Result<Outcome> {
    let mut names: Vec<String> = Vec::new();
    for folder in FOLDERS {
        let Ok(entries) = fs::read_dir(file(host, folder)) else {
            continue;
        };
        for entry in entries.flatten() {
            let text = fs::read_to_string(entry.path()).unwrap_or_default();
            let field = |line: &str, key: &str| {
                let line = line.trim().trim_start_matches("- ");
                let line = line.trim_start_matches('"');
                let rest = line.strip_prefix(key)?;
                let rest = rest.trim_start_matches('"').strip_prefix(':')?;
                Some(rest.trim().trim_matches([',', '"']).to_owned())
            };
            let Some(kind) = text.lines().find_map(|line| field(line, "kind")) else {
                continue;
            };
            let found = text.lines().filter_map(|line| field(line, "name"));
            names.extend(found.map(|name| format!("{kind}={name}")));
        }
    }
    names.sort();
    names.dedup();
    let text = names
        .iter()
        .map(|name| format!("{name}\n"))
        .collect::<String>();
    let mut outcome = Outcome::out(text, 0);
    outcome.stderr = format!("INFO[0000] Found {} CDI devices \n", names.len()).into_bytes();
    Ok(outcome)
}

/// Until 1.18 into containerd's own file.
fn configure_containerd(call: &Call<'_>) -> io::Result<Outcome> {
    let named = option(call, "--config").unwrap_or(containerd::FILE);
    let path = file(call.host, named);
    let text = fs::read_to_string(&path).unwrap_or_default();
    let default = call.has("--set-as-default") || call.has("--nvidia-set-as-default");
    let cdi = call.has("--cdi.enabled") || call.has("--enable-cdi");
    let text = match containerd::with_nvidia(&text, default, cdi) {
        Ok(text) => text,
        Err(error) => {
            let text =
                format!("ERRO[0000] unable to load config for runtime containerd: {error}\n");
            return Ok(Outcome::err(text, 1));
        }
    };
    if call.has("--dry-run") {
        return Ok(Outcome::out(text, 0));
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(&path, text)?;
    let said = format!(
        "INFO[0000] Wrote updated config to {} \nINFO[0000] It is recommended that containerd daemon be restarted. \n",
        containerd::FILE
    );
    Ok(Outcome::err(said, 0))
}

fn configure(call: &Call<'_>) -> io::Result<Outcome> {
    let runtime = option(call, "--runtime").unwrap_or("docker");
    match runtime {
        "docker" => {}
        "containerd" => return configure_containerd(call),
        _ => {
            let text = format!("ERRO[0000] this stand-in configures no '{runtime}'\n");
            return Ok(Outcome::err(text, 1));
        }
    }
    let path = file(call.host, option(call, "--config").unwrap_or(DAEMON_JSON));
    let mut config: Map<String, Json> = match fs::read(&path) {
        Ok(bytes) => match serde_json::from_slice(&bytes) {
            Ok(config) => config,
            Err(error) => {
                let text =
                    format!("ERRO[0000] unable to load config for runtime docker: {error}\n");
                return Ok(Outcome::err(text, 1));
            }
        },
        Err(_) => Map::new(),
    };
    let runtimes = config.entry("runtimes").or_insert_with(|| json!({}));
    runtimes["nvidia"] = json!({ "args": [], "path": "nvidia-container-runtime" });
    if call.has("--set-as-default") || call.has("--nvidia-set-as-default") {
        config.insert("default-runtime".to_owned(), json!("nvidia"));
    }
    if call.has("--cdi.enabled") || call.has("--enable-cdi") {
        let features = config.entry("features").or_insert_with(|| json!({}));
        features["cdi"] = json!(true);
    }
    // Go sorts the keys of a map, and indents with four blanks.
    config.sort_keys();
    let mut text = Vec::new();
    let format = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut writer = serde_json::Serializer::with_formatter(&mut text, format);
    serde::Serialize::serialize(&config, &mut writer)?;
    if call.has("--dry-run") {
        return Ok(Outcome::out(text, 0));
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(&path, text)?;
    let said = format!(
        "INFO[0000] Wrote updated config to {DAEMON_JSON} \nINFO[0000] It is recommended that docker daemon be restarted. \n"
    );
    Ok(Outcome::err(said, 0))
}
