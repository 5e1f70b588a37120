//! What a host is, to the byte: its files with modes and owners, and what the
//! vendors' tools and systemd say. Two looks are compared to tell whether a host is
//! before, after or between.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use sha2::{Digest, Sha256};

/// By path, or by command.
pub(super) type Look = BTreeMap<String, String>;

/// What is not the host's state but the test's, the product's own, or another with
/// every boot. Device nodes of MIG capabilities are made when they are first asked for and
/// never removed; the kernel's own list stands in `/proc`.
const NOT_COMPARED: [&str; 9] = [
    "crash",
    ".sim",
    "usr/local/sbin",
    "var/lib/deploy",
    "run",
    "var/log",
    "dev/nvidia-caps",
    "proc/uptime",
    "proc/sys/kernel/random/boot_id",
];

/// Commands that tell what no file does. Units that the plan does not name are in the
/// list of all of them.
const QUESTIONS: [&[&str]; 7] = [
    &["nvidia-smi", "-L"],
    &["nvidia-smi", "mig", "-lgi"],
    &["nvidia-smi", "mig", "-lci"],
    &["nvidia-smi", "compute-policy", "-l"],
    &[
        "nvidia-smi",
        "--query-gpu=index,uuid,mig.mode.current,mig.mode.pending,persistence_mode,compute_mode",
        "--format=csv",
    ],
    &["systemctl", "is-enabled", "deploy-gpu.service"],
    &["systemctl", "list-units"],
];

/// Looks at the simulated host in `root`.
pub(super) fn look(root: &Path) -> Look {
    let mut look = Look::new();
    walk(root, root, &mut look);
    for words in QUESTIONS {
        let output = Command::new(root.join("usr/bin").join(words[0]))
            .args(&words[1..])
            .env("DEPLOY_SIM_ROOT", root)
            .output()
            .expect("the host's tool starts");
        let text = format!(
            "{}: {}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        // A guard's unit that was ended from outside is listed until systemd forgets it.
        let guards =
            |line: &&str| !line.contains("deploy-guard-") && !line.contains("units listed");
        // A table is as wide as the longest word of all its lines, also of those left out.
        let text: Vec<String> = text
            .lines()
            .filter(guards)
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        look.insert(format!("$ {}", words.join(" ")), text.join("\n"));
    }
    look
}

fn walk(root: &Path, folder: &Path, look: &mut Look) {
    for entry in fs::read_dir(folder)
        .expect("a folder of the host")
        .flatten()
    {
        let path = entry.path();
        let name = path.strip_prefix(root).expect("below the root");
        let name = name.to_string_lossy().into_owned();
        if NOT_COMPARED.contains(&name.as_str()) {
            continue;
        }
        let stat = fs::symlink_metadata(&path).expect("it stands there");
        let attributes = format!("{:o} {}:{}", stat.mode(), stat.uid(), stat.gid());
        let text = if stat.is_symlink() {
            let target = fs::read_link(&path).expect("a link");
            format!("link {target:?}")
        } else if stat.is_dir() {
            walk(root, &path, look);
            format!("dir {attributes}")
        } else if stat.is_file() {
            let content = fs::read(&path).expect("a file");
            let hash = Sha256::digest(&content);
            let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("file {attributes} {} bytes {hash}", content.len())
        } else {
            format!("other {attributes}")
        };
        look.insert(name, text);
    }
}

/// What differs between two looks, a line each.
pub(super) fn differences(wanted: &Look, found: &Look) -> Vec<String> {
    let names = wanted.keys().chain(found.keys());
    let mut names: Vec<&String> = names.collect();
    names.sort();
    names.dedup();
    names
        .into_iter()
        .filter(|name| wanted.get(*name) != found.get(*name))
        .map(|name| {
            let side = |look: &Look| look.get(name).map_or("nothing", |text| text).to_owned();
            format!("{name}: {} instead of {}", side(found), side(wanted))
        })
        .collect()
}
