//! `kubectl` on the host: which cluster it speaks to, and what it is asked.

use std::time::Duration;

use serde_json::Value as Json;

use crate::error::Diagnostic;
use crate::platform::Host;
use crate::render::Rendered;
use crate::shell::Command;
use crate::transport::{Output, Read};

use super::owned::MANAGER;

/// Seconds that a question may take.
const TIMEOUT: Duration = Duration::from_secs(45);

/// The most that an answer may be.
const LIMIT: u64 = 4 << 20;

/// Passes its first argument to the rest as standard input.
const WITH_INPUT: &str = "input=$1; shift; printf '%s\\n' \"$input\" | \"$@\"";

/// Which cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tool {
    /// Path of a configuration on the host; kubectl's own where it is empty.
    pub(super) kubeconfig: String,
    /// Context in it; the current one where it is empty.
    pub(super) context: String,
}

/// What names an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    /// Kind as kubectl finds it: `node`, `daemonset.v1.apps`.
    pub(super) resource: String,
    /// Empty for what belongs to no namespace.
    pub(super) namespace: String,
    /// Its name.
    pub(super) name: String,
}

impl Name {
    /// The name of an object.
    pub(super) fn of(manifest: &Json) -> Self {
        let text = |pointer: &str| {
            let found = manifest.pointer(pointer).and_then(Json::as_str);
            found.unwrap_or_default().to_owned()
        };
        let kind = text("/kind").to_lowercase();
        let resource = match text("/apiVersion").split_once('/') {
            Some((group, version)) => format!("{kind}.{version}.{group}"),
            None => kind,
        };
        Self {
            resource,
            namespace: text("/metadata/namespace"),
            name: text("/metadata/name"),
        }
    }

    /// Words for the functions of kubernetes.sh: kind, namespace or `-`, name.
    pub(super) fn words(&self) -> [String; 3] {
        let namespace = match self.namespace.as_str() {
            "" => "-",
            namespace => namespace,
        };
        [
            self.resource.clone(),
            namespace.to_owned(),
            self.name.clone(),
        ]
    }

    /// As people call it.
    pub(super) fn label(&self) -> String {
        let kind = self.resource.split('.').next().unwrap_or_default();
        match self.namespace.as_str() {
            "" => format!("{kind} {}", self.name),
            namespace => format!("{kind} {namespace}/{}", self.name),
        }
    }
}

impl Tool {
    fn with(&self, command: Command) -> Command {
        let mut command = command.arg("kubectl").arg("--request-timeout=30s");
        if !self.kubeconfig.is_empty() {
            command = command.arg("--kubeconfig").path(&self.kubeconfig);
        }
        if !self.context.is_empty() {
            command = command.arg("--context").arg(&self.context);
        }
        command
    }

    /// A call as a person would type it: the words behind `kubectl`.
    pub(super) fn typed(&self, words: &[&str]) -> String {
        let mut command = Command::new("kubectl");
        if !self.kubeconfig.is_empty() {
            command = command.arg("--kubeconfig").path(&self.kubeconfig);
        }
        if !self.context.is_empty() {
            command = command.arg("--context").arg(&self.context);
        }
        command.args(words.iter().copied()).display()
    }

    /// A call of a function of kubernetes.sh, which begins with the cluster.
    pub(super) fn call(&self, function: &str) -> Command {
        let command = Command::new(function);
        let command = match self.kubeconfig.as_str() {
            "" => command.arg("-"),
            path => command.path(path),
        };
        command.arg(match self.context.as_str() {
            "" => "-",
            context => context,
        })
    }

    /// A question: the words behind `kubectl`.
    fn question(&self, words: &[&str]) -> Read {
        let command = self.with(Command::new("env"));
        read(command.args(words.iter().copied()))
    }

    /// The object as it is, with who owns what.
    pub(super) fn live(&self, name: &Name) -> Read {
        let mut words = vec!["get", &name.resource, &name.name];
        if !name.namespace.is_empty() {
            words.extend(["--namespace", &name.namespace]);
        }
        words.extend([
            "--ignore-not-found",
            "--show-managed-fields",
            "--output=json",
        ]);
        self.question(&words)
    }

    /// What the object would be once a manifest is applied.
    pub(super) fn tried(&self, manifest: &Json, force: bool) -> Read {
        let command = Command::new("sh").arg("-c").arg(WITH_INPUT).arg("sh");
        let command = self.with(command.arg(manifest.to_string()));
        let field_manager = format!("--field-manager={MANAGER}");
        let mut words = vec!["apply", "--server-side", &field_manager, "--dry-run=server"];
        if force {
            words.push("--force-conflicts");
        }
        words.extend(["--show-managed-fields", "--output=json", "--filename=-"]);
        read(command.args(words))
    }

    /// Pods on a node that have not ended.
    pub(super) fn pods_on(&self, node: &str) -> Read {
        let selector = format!(
            "--field-selector=spec.nodeName={node},status.phase!=Succeeded,status.phase!=Failed"
        );
        self.question(&[
            "get",
            "pods",
            "--all-namespaces",
            &selector,
            "--output=json",
        ])
    }

    /// All nodes.
    pub(super) fn nodes(&self) -> Read {
        self.question(&["get", "nodes", "--output=json"])
    }

    /// Pods of the whole cluster that wait for something, most often for a place.
    pub(super) fn waiting_pods(&self) -> Read {
        self.question(&[
            "get",
            "pods",
            "--all-namespaces",
            "--field-selector=status.phase=Pending",
            "--output=json",
        ])
    }
}

fn read(command: Command) -> Read {
    Read::Command {
        command,
        timeout: TIMEOUT,
        limit: LIMIT,
    }
}

/// What kubectl said that has to go well; `what` it was asked for.
pub(super) fn answered(host: &mut dyn Host, read: &Read, what: &str) -> Rendered<Option<Json>> {
    let output = host.ask(read)?;
    if !output.success() {
        return Err(refused(&output, what).into());
    }
    let text = output.text();
    if text.trim().is_empty() {
        return Ok(None);
    }
    match serde_json::from_str(&text) {
        Ok(found) => Ok(Some(found)),
        Err(error) => {
            let message = format!("{what}: kubectl's answer cannot be read: {error}");
            Err(Diagnostic::error(message).into())
        }
    }
}

/// Why kubectl did not do it.
pub(super) fn refused(output: &Output, what: &str) -> Diagnostic {
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim();
    let mut lines = said.lines();
    let first = lines.next().unwrap_or("no answer");
    let problem = Diagnostic::error(format!("{what}: {first}"));
    match output.status {
        126 | 127 => problem.hint("`gpu_kubernetes` belongs to a host that has kubectl"),
        _ if output.timed_out => problem.hint("the API server did not answer in time"),
        _ => problem,
    }
}
