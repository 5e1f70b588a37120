//! `kubectl exec`: a program in a pod, over a web socket as `kubectl` speaks it since 1.31.
//!
//! The only programs are `nvidia-smi` and those that begin with a `chroot` to the driver's
//! folder; they show the cards of the pod's node.

use std::io::{self, Write};
use std::net::TcpStream;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;
use sha1::{Digest, Sha1};

use super::cluster::{Cluster, text};
use super::http::Request;
use super::{kinds, operator};
use crate::sim::machine::uuid;

/// RFC 6455, section 1.3.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Channels of `v5.channel.k8s.io`.
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;

/// Whether a request asks for it.
pub(super) fn is_asked(request: &Request) -> bool {
    request.path.ends_with("/exec") && request.header("upgrade").eq_ignore_ascii_case("websocket")
}

/// What a program printed, and its status.
pub(super) fn program(cluster: &Cluster, request: &Request) -> (String, i32) {
    let words: Vec<&str> = request.path.trim_matches('/').split('/').collect();
    let ["api", "v1", "namespaces", namespace, "pods", pod, "exec"] = words[..] else {
        return ("no such pod\n".to_owned(), 1);
    };
    let pods = kinds::find("", "pods").and_then(|kind| cluster.get(kind, namespace, pod));
    let node = pods.map_or("", |pod| text(pod, "/spec/nodeName"));
    let command = request.query.iter().filter(|(name, _)| name == "command");
    let mut command: Vec<&str> = command.map(|(_, word)| word.as_str()).collect();
    if let ["chroot", _, ..] = command[..] {
        command.drain(..2);
    }
    match command[..] {
        ["nvidia-smi"] | ["nvidia-smi", "-L"] | ["nvidia-smi", "mig", "-L"] => {
            (list(cluster, node), 0)
        }
        _ => {
            let program = command.first().copied().unwrap_or_default();
            let said = format!("exec: \"{program}\": executable file not found in $PATH\n");
            (said, 127)
        }
    }
}

/// The cards of a node and their MIG devices, as `nvidia-smi -L` lists them.
fn list(cluster: &Cluster, node: &str) -> String {
    let Some(cards) = cluster.operator.cards(node) else {
        return String::new();
    };
    let mut lines = String::new();
    for card in 0..cards.count {
        let id = uuid(&format!("{node} card {card}"));
        lines += &format!("GPU {card}: {} (UUID: GPU-{id})\n", cards.product);
        let mut number = 0;
        for (profile, count) in &cards.devices {
            for _ in 0..count / cards.count.max(1) {
                let id = uuid(&format!("{node} card {card} {profile} {number}"));
                lines += &format!("  MIG {profile:<11} Device {number:>2}: (UUID: MIG-{id})\n");
                number += 1;
            }
        }
    }
    lines
}

/// Answers with what the program did.
pub(super) fn answer(
    to: &mut TcpStream,
    request: &Request,
    (said, status): (String, i32),
) -> io::Result<()> {
    let key = request.header("sec-websocket-key");
    let accept = STANDARD.encode(Sha1::digest(format!("{key}{GUID}")));
    write!(
        to,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n"
    )?;
    let channel = if status == 0 { STDOUT } else { STDERR };
    frame(to, 2, channel, said.as_bytes())?;
    let result = match status {
        0 => json!({ "metadata": {}, "status": "Success" }),
        status => json!({
            "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
            "message": format!("command terminated with non-zero exit code: exit status {status}"),
            "details": { "causes": [{ "reason": "ExitCode", "message": status.to_string() }] },
        }),
    };
    frame(to, 2, STATUS, result.to_string().as_bytes())?;
    // An orderly end: status 1000.
    to.write_all(&[0x88, 2, 0x03, 0xe8])
}

fn frame(to: &mut TcpStream, kind: u8, channel: u8, data: &[u8]) -> io::Result<()> {
    let mut bytes = vec![0x80 | kind];
    let length = data.len() + 1;
    match u8::try_from(length) {
        Ok(short @ ..126) => bytes.push(short),
        _ => {
            bytes.push(126);
            let length = u16::try_from(length).map_err(io::Error::other)?;
            bytes.extend(length.to_be_bytes());
        }
    }
    bytes.push(channel);
    bytes.extend(data);
    to.write_all(&bytes)
}

/// The pods of the operator's daemon sets, one on each node.
pub(super) fn pods_of_sets(cluster: &mut Cluster) {
    let (Some(pods), Some(sets)) = (kinds::find("", "pods"), kinds::find("apps", "daemonsets"))
    else {
        return;
    };
    let mut wanted = Vec::new();
    for set in cluster.list(sets, "") {
        let (namespace, name) = (
            text(set, "/metadata/namespace"),
            text(set, "/metadata/name"),
        );
        for node in operator::nodes(&cluster.operator) {
            let pod = format!("{name}-{}", &uuid(node)[..5]);
            if cluster.get(pods, namespace, &pod).is_none() {
                wanted.push(json!({
                    "metadata": {
                        "name": pod, "namespace": namespace,
                        "labels": set["spec"]["selector"]["matchLabels"],
                        "ownerReferences": [{
                            "apiVersion": "apps/v1", "kind": "DaemonSet", "name": name,
                            "uid": set["metadata"]["uid"], "controller": true,
                        }],
                    },
                    "spec": {
                        "nodeName": node, "restartPolicy": "Always",
                        "containers": [{ "name": name, "image": "operator" }],
                    },
                    "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] },
                }));
            }
        }
    }
    for pod in wanted {
        cluster.put(pods, pod);
    }
}
