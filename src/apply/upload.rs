//! The run directory as one stream of bytes, and the request that carries it.
//!
//! `host/receive.sh` describes the form. Pure: the same plan and context give
//! the same bytes.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::manifest::Manifest;
use super::{RunContext, RunId, STATE_DIR, patience, recorded, scripts};
use crate::plan::{Confirm, HostPlan, RECONNECT_S};
use crate::shell::{Command, Script};
use crate::step::Step;
use crate::transport::Exec;

/// Above this many bytes a text goes as data: the shell reads lines byte by byte.
/// One that is not ASCII does too: not every shell's `read` keeps every byte.
const TEXT_LIMIT: usize = 2048;

/// Most bytes of journal that are listened to; it is read again by `runs` if need be.
pub(super) const JOURNAL_LIMIT: u64 = 16 * 1024 * 1024;

/// The request that puts the run on the host, starts it and follows it; `sent` is how
/// often it was sent, this time included.
pub(super) fn exec(plan: &HostPlan, manifest: &Manifest, context: &RunContext, sent: u8) -> Exec {
    let bytes = bundle(plan, manifest, context);
    Exec {
        command: Command::new("sh")
            .arg("-c")
            .arg(scripts::receive())
            .arg("deploy")
            .path(STATE_DIR)
            .arg(context.run.as_str())
            .arg(bytes.len().to_string())
            .arg(sent.to_string()),
        stdin: bytes,
        timeout: patience(plan.steps.iter().map(|step| step.timeout_s)),
        limit: JOURNAL_LIMIT,
    }
}

/// Heads and small texts, and after them the data in the order of their heads.
#[derive(Default)]
struct Bundle {
    head: Vec<Entry>,
    data: Vec<u8>,
}

enum Entry {
    Directory(String),
    Text {
        path: String,
        text: String,
    },
    Data {
        path: String,
        start: usize,
        size: usize,
    },
}

impl Bundle {
    fn directory(&mut self, path: impl Into<String>) {
        self.head.push(Entry::Directory(path.into()));
    }

    /// A script or another text of ours; a newline is added where the last is missing.
    fn text(&mut self, path: impl Into<String>, text: impl Into<String>) {
        let mut text = text.into();
        if !text.ends_with('\n') {
            text.push('\n');
        }
        if text.len() > TEXT_LIMIT || !text.is_ascii() {
            return self.data(path, text.as_bytes());
        }
        self.head.push(Entry::Text {
            path: path.into(),
            text,
        });
    }

    fn data(&mut self, path: impl Into<String>, bytes: &[u8]) {
        self.head.push(Entry::Data {
            path: path.into(),
            start: self.data.len(),
            size: bytes.len(),
        });
        self.data.extend_from_slice(bytes);
    }

    fn into_bytes(self) -> Vec<u8> {
        let mut head = String::new();
        for entry in &self.head {
            // Writing to a String cannot fail.
            let _ = match entry {
                Entry::Directory(path) => writeln!(head, "dir {path}"),
                Entry::Text { path, text } => {
                    write!(head, "text {} {path}\n{text}", text.matches('\n').count())
                }
                Entry::Data { path, start, size } => {
                    writeln!(head, "data {} {size} {path}", self.data.len() - start)
                }
            };
        }
        head.push_str("end\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(&self.data);
        bytes
    }
}

fn bundle(plan: &HostPlan, manifest: &Manifest, context: &RunContext) -> Vec<u8> {
    let mut bundle = Bundle::default();
    for directory in ["lib", "steps", "payload", "snapshot", "handlers"] {
        bundle.directory(directory);
    }
    bundle.text("owner", one_line(&manifest.owner()));
    for (path, script) in scripts::kept(&context.host_library) {
        bundle.text(path, script);
    }
    bundle.text("guard", guard(plan));
    bundle.text("manifest.json", json(manifest));
    bundle.text("current.json", json(&current(plan, context)));
    bundle.data("remembered", &context.remembered);
    if let Some(applied) = &plan.applied {
        let record = last_applied(&applied.record, Some(&context.run), context);
        // The runner puts what is called `applied-` where it stands for all runs.
        let file = format!("{}\n", json(&record));
        bundle.text(applied.key.sums_name(), recorded::sums(applied, &file));
        bundle.text(applied.key.file_name(), file);
    }
    for (index, (step, entry)) in plan.steps.iter().zip(&manifest.steps).enumerate() {
        let directory = format!("steps/{}", entry.directory);
        bundle.directory(&directory);
        for (name, script) in scripts(step) {
            if !script.is_empty() {
                bundle.text(
                    format!("{directory}/{name}"),
                    script_text(script, name, step),
                );
            }
        }
        bundle.text(format!("{directory}/limit"), step.timeout_s.to_string());
        if step.is_reboot() {
            bundle.text(format!("{directory}/reboot"), "");
        }
        if manifest.superseded(index) {
            bundle.text(format!("{directory}/superseded"), "");
        }
    }
    handlers(&mut bundle, plan, manifest);
    let mut folders = BTreeSet::new();
    for payload in plan.steps.iter().flat_map(|step| &step.payload) {
        // A name may have folders: each is made once, outermost first.
        for (at, _) in payload.name.match_indices('/') {
            if folders.insert(&payload.name[..at]) {
                bundle.directory(format!("payload/{}", &payload.name[..at]));
            }
        }
        bundle.data(format!("payload/{}", payload.name), &payload.content);
    }
    bundle.into_bytes()
}

/// Who confirms the run, for how many seconds that is waited for, and for how many
/// seconds the runner may work at most.
fn guard(plan: &HostPlan) -> String {
    let (confirm, window_s) = match plan.guard {
        Some(guard) if guard.confirm == Confirm::NewConnection => ("controller", guard.window_s),
        Some(guard) => ("host", guard.window_s),
        None => ("host", RECONNECT_S),
    };
    let work = patience(plan.steps.iter().map(|step| step.timeout_s));
    format!("{confirm} {window_s} {}", work.as_secs())
}

/// A folder for each handler of the plan: its name, and the folders of the steps whose
/// change it answers to.
fn handlers(bundle: &mut Bundle, plan: &HostPlan, manifest: &Manifest) {
    for (number, handler) in plan.handlers.iter().enumerate() {
        let directory = format!("handlers/{number:03}");
        bundle.directory(&directory);
        bundle.text(format!("{directory}/name"), one_line(&handler.name));
        let by: String = manifest
            .steps
            .iter()
            .filter(|step| handler.notified_by.contains(&step.id))
            .map(|step| format!("{}\n", step.directory))
            .collect();
        bundle.text(format!("{directory}/by"), by);
    }
}

fn scripts(step: &Step) -> [(&'static str, &Script); 6] {
    [
        ("check", &step.check),
        ("snapshot", &step.snapshot),
        ("apply", &step.apply),
        ("verify", &step.verify),
        ("undo", &step.undo),
        ("idle", &step.idle),
    ]
}

/// A script that also works when a person calls it by its path.
fn script_text(script: &Script, name: &str, step: &Step) -> String {
    format!(
        "# {name}: {}\nRUN=${{RUN:-${{0%/steps/*}}}}\n. \"$RUN/lib.sh\"\n{}",
        one_line(&step.title),
        script.to_sh()
    )
}

/// Control characters out, so that it stays one line of a file or of the journal.
pub(super) fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(500)
        .collect()
}

/// What is recorded as last applied.
fn current(plan: &HostPlan, context: &RunContext) -> serde_json::Value {
    serde_json::json!({
        "version": 1,
        "run": context.run.as_str(),
        "who": context.who,
        "from": context.from,
        "started": context.started,
        "desired": plan.desired,
    })
}

/// What drift is reckoned from: what the plan says of itself, and which run it was, if any.
pub(super) fn last_applied(
    record: &serde_json::Map<String, serde_json::Value>,
    run: Option<&RunId>,
    context: &RunContext,
) -> serde_json::Map<String, serde_json::Value> {
    let own = serde_json::json!({
        "version": 1,
        "tool": env!("CARGO_PKG_VERSION"),
        "run": run.map_or("", RunId::as_str),
        "who": context.who,
        "from": context.from,
        "started": context.started,
    });
    let mut whole = match own {
        serde_json::Value::Object(own) => own,
        _ => serde_json::Map::new(),
    };
    whole.extend(record.clone());
    whole
}

/// Our own types have text keys only, so that writing them cannot fail.
fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
