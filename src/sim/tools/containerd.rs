//! `containerd`: its version and `config dump` (units that the distribution brought have no
//! processes here); and its configuration, which `nvidia-ctk` changes. Written from containerd 1.7 and the sources of
//! NVIDIA's container toolkit 1.17.
//!
//! Of TOML only tables and keys with a value on their line, which is what stands in such files.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use crate::sim::machine::Host;
use crate::sim::spec::ContainerTool;

use super::{Call, Outcome};

/// The file that it reads.
pub(super) const FILE: &str = "/etc/containerd/config.toml";

/// What it has where the file says nothing.
const DEFAULTS: &str = "version = 2
disabled_plugins = []
imports = []
[plugins.\"io.containerd.grpc.v1.cri\"]
enable_cdi = false
[plugins.\"io.containerd.grpc.v1.cri\".containerd]
default_runtime_name = \"runc\"
[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]
runtime_type = \"io.containerd.runc.v2\"
[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options]
BinaryName = \"\"
";

/// Runs it.
pub(super) fn run(call: &Call<'_>) -> io::Result<Outcome> {
    let machine = call.host.load()?;
    if !machine
        .spec
        .container_tools
        .contains(&ContainerTool::Containerd)
    {
        return Ok(Outcome::err("sh: 1: containerd: not found\n", 127));
    }
    if call.has("--version") || call.has("-v") {
        let text = "containerd containerd.io 1.7.27 05044ec0a9a75232cad458027ca83437aae3f4da\n";
        return Ok(Outcome::out(text, 0));
    }
    let words: Vec<&str> = call.args.iter().map(String::as_str).collect();
    match words[..] {
        ["config", "dump"] => dump(call.host),
        _ => {
            let text = "containerd: this stand-in knows `config dump`\n";
            Ok(Outcome::err(text, 1))
        }
    }
}

fn dump(host: &Host) -> io::Result<Outcome> {
    Ok(match merged(host) {
        Ok(tables) => Outcome::out(tables.text(), 0),
        Err(error) => Outcome::err(error, 1),
    })
}

fn merged(host: &Host) -> Result<Tables, String> {
    let text = fs::read_to_string(host.path(FILE)).unwrap_or_default();
    let failed = |why| format!("containerd: failed to load TOML: {FILE}: {why}\n");
    let own = Tables::read(&text).map_err(failed)?;
    let mut all = Tables::read(DEFAULTS).map_err(failed)?;
    for (path, keys) in own.0 {
        all.0.entry(path).or_default().extend(keys);
    }
    Ok(all)
}

/// Adds NVIDIA's runtime to a configuration, as its tool does; what it is then.
pub(super) fn with_nvidia(text: &str, default: bool, cdi: bool) -> Result<String, String> {
    let mut all = Tables::read(text)?;
    let version = all.get(&[], "version").map(str::to_owned);
    let plugin = match version.as_deref() {
        None if text.trim().is_empty() => "io.containerd.grpc.v1.cri",
        None => "cri",
        Some("2") => "io.containerd.grpc.v1.cri",
        Some(_) => "io.containerd.cri.v1.runtime",
    };
    let version = version.unwrap_or(if plugin == "cri" { "1" } else { "2" }.to_owned());
    all.set(&[], "version", &version);
    let runtimes = ["plugins", plugin, "containerd", "runtimes"];
    let of = |name| [&runtimes[..], &[name]].concat();
    if all.0.contains_key(&owned(&of("runc"))) {
        let prefix = owned(&of("runc"));
        let copied: Vec<_> = (all.0.iter())
            .filter(|(path, _)| path.starts_with(&prefix))
            .map(|(path, keys)| {
                let rest = &path[prefix.len()..];
                ([owned(&of("nvidia")), rest.to_vec()].concat(), keys.clone())
            })
            .collect();
        all.0.extend(copied);
    } else {
        for (key, value) in [
            ("privileged_without_host_devices", "false"),
            ("runtime_engine", "\"\""),
            ("runtime_root", "\"\""),
            ("runtime_type", "\"io.containerd.runc.v2\""),
        ] {
            all.set(&of("nvidia"), key, value);
        }
    }
    let options = [&of("nvidia")[..], &["options"]].concat();
    let program = "\"/usr/bin/nvidia-container-runtime\"";
    all.set(&options, "BinaryName", program);
    if default {
        all.set(&runtimes[..3], "default_runtime_name", "\"nvidia\"");
    }
    if cdi {
        all.set(&runtimes[..2], "enable_cdi", "true");
    }
    Ok(all.text())
}

fn owned(path: &[&str]) -> Vec<String> {
    path.iter().map(|part| (*part).to_owned()).collect()
}

/// Tables by path, of each its keys with the values as they are written.
#[derive(Debug, Default)]
struct Tables(BTreeMap<Vec<String>, BTreeMap<String, String>>);

impl Tables {
    fn read(text: &str) -> Result<Self, String> {
        let mut all = Self::default();
        let mut at: Vec<String> = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let header = line
                .strip_prefix('[')
                .and_then(|rest| rest.strip_suffix(']'));
            match (header, line.split_once('=')) {
                (Some(header), _) => {
                    at = parts(header);
                    all.table(&at);
                }
                (None, Some((key, value))) => {
                    let (key, value) = (key.trim().to_owned(), value.trim().to_owned());
                    all.table(&at).insert(key, value);
                }
                _ => return Err(format!("({}, 1): unexpected token", number + 1)),
            }
        }
        Ok(all)
    }

    /// A table, with all that it lies in.
    fn table(&mut self, path: &[String]) -> &mut BTreeMap<String, String> {
        for end in 1..path.len() {
            self.0.entry(path[..end].to_vec()).or_default();
        }
        self.0.entry(path.to_vec()).or_default()
    }

    fn get(&self, path: &[&str], key: &str) -> Option<&str> {
        self.0.get(&owned(path))?.get(key).map(String::as_str)
    }

    fn set(&mut self, path: &[&str], key: &str, value: &str) {
        self.table(&owned(path))
            .insert(key.to_owned(), value.to_owned());
    }

    /// As Go's library writes it: sorted, comments gone, two blanks for each table around.
    fn text(&self) -> String {
        let mut text = String::new();
        for (path, keys) in &self.0 {
            let indent = "  ".repeat(path.len().saturating_sub(1));
            if !path.is_empty() {
                let quoted = |part: &String| match part.contains('.') {
                    true => format!("\"{part}\""),
                    false => part.clone(),
                };
                let name: Vec<String> = path.iter().map(quoted).collect();
                text.push_str(&format!("\n{indent}[{}]\n", name.join(".")));
            }
            let indent = "  ".repeat(path.len());
            for (key, value) in keys {
                text.push_str(&format!("{indent}{key} = {value}\n"));
            }
        }
        text
    }
}

/// `plugins."io.containerd.grpc.v1.cri".containerd`, part by part.
fn parts(header: &str) -> Vec<String> {
    let mut found = vec![String::new()];
    let mut quote = None;
    for c in header.chars() {
        match (quote, c) {
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            (None, '.') => found.push(String::new()),
            (None, ' ') => {}
            _ => {
                if let Some(last) = found.last_mut() {
                    last.push(c);
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tool_copies_what_runc_has_and_keeps_the_rest() {
        let text = "# mine\nversion = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"p:1\"\n\
                    [plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.runc]\nruntime_type = \"x\"\n\
                    [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options]\nSystemdCgroup = true\n";
        let after = with_nvidia(text, true, true).expect("fine");
        let own = "    [plugins.\"io.containerd.grpc.v1.cri\".containerd]\n      default_runtime_name = \"nvidia\"\n";
        for part in [
            own,
            "runtimes.nvidia.options]\n            BinaryName = \"/usr/bin/nvidia-container-runtime\"\n            SystemdCgroup = true\n",
            "    sandbox_image = \"p:1\"\n",
            "enable_cdi = true\n",
        ] {
            assert!(after.contains(part), "{part}\n{after}");
        }
        assert!(!after.contains("mine"), "{after}");
        assert_eq!(with_nvidia(&after, true, true), Ok(after));
        assert!(with_nvidia("version", false, false).is_err());
    }
}
