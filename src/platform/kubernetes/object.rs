//! One object of the cluster, or our fields of it: what differs, and the step there and back.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use crate::error::Diagnostic;
use crate::platform::Host;
use crate::render::Rendered;
use crate::shell::{Command, Script};
use crate::step::{Change, Class, Payload, Step, StepId};

use super::owned::{self, Path};
use super::tool::{Name, Tool, answered, refused};

/// Has everything read of an object that `planned` asks for.
pub(super) fn expect(tool: &Tool, manifest: &Json, force: bool, host: &mut dyn Host) {
    host.expect(tool.live(&Name::of(manifest)));
    host.expect(tool.tried(&owned::public(manifest), force));
}

/// The step that makes an object what a manifest says, and what should be known of it.
#[derive(Debug, Default)]
pub(super) struct Planned {
    /// Nothing where all is so already.
    pub(super) step: Option<Step>,
    /// Sentences for the plan.
    pub(super) notes: Vec<String>,
    /// Whether there is no such object yet.
    pub(super) is_new: bool,
}

/// Compares an object with a manifest. A manifest without fields takes back those of ours.
/// `take_over` allows to take fields that others set.
pub(super) fn planned(
    tool: &Tool,
    manifest: &Json,
    take_over: bool,
    host: &mut dyn Host,
) -> Rendered<Planned> {
    let name = Name::of(manifest);
    let label = name.label();
    let live = answered(host, &tool.live(&name), &label)?;
    if live.is_none() && owned::leaves(manifest).is_empty() {
        return Ok(Planned::default());
    }
    if live.is_none() && manifest["kind"] == "Node" {
        let hint = "`kubectl get nodes` lists them; no node is made by writing its name";
        return Err(Diagnostic::error(format!("the cluster has no {label}"))
            .hint(hint)
            .into());
    }
    let contested = live.as_ref().map(|live| owned::contested(live, manifest));
    let contested = contested.unwrap_or_default();
    if !contested.is_empty() && !take_over {
        return Err(conflict(&label, live.as_ref(), manifest, &contested).into());
    }
    let tried = tool.tried(&owned::public(manifest), take_over);
    let output = host.ask(&tried)?;
    if !output.success() {
        return Err(refused(&output, &label).into());
    }
    let Some(after) = answered(host, &tried, &label)? else {
        let message = format!("{label}: the API server says nothing of what it would be");
        return Err(Diagnostic::error(message).into());
    };
    let after = owned::with_private(after, manifest);
    let mut paths = owned::leaves(manifest);
    let before_ours = live.as_ref().map(owned::ours);
    for path in before_ours.iter().flat_map(owned::leaves) {
        if !paths.contains(&path) {
            paths.push(path);
        }
    }
    let before_text = owned::printed(live.as_ref(), &paths);
    let after_text = owned::printed(Some(&after), &paths);
    // What becomes of a field that is given up, its next owner decides.
    let kept_paths = owned::leaves(manifest);
    let is_owned = live
        .as_ref()
        .is_some_and(|live| owned::is_ours(live, manifest));
    if is_owned && before_text == after_text {
        return Ok(Planned::default());
    }
    let mut planned = Planned {
        is_new: live.is_none(),
        ..Planned::default()
    };
    for (path, owner) in &contested {
        let field = owned::spelled(path);
        planned
            .notes
            .push(format!("{label}: {field} is taken over from {owner}"));
    }
    let writing = Writing {
        tool,
        name: &name,
        live: live.as_ref(),
        after: &after,
        paths: &paths,
        take_over: take_over && !contested.is_empty(),
        // What is given up now may be set by its next owner before this is undone.
        take_back: take_over || paths.len() > kept_paths.len(),
    };
    let kept_text = owned::printed(Some(&after), &kept_paths);
    let mut step = writing.step(manifest, &before_text, (&kept_paths, &kept_text));
    writing.give_back(&mut step, before_ours.as_ref(), &contested);
    planned.step = Some(step);
    Ok(planned)
}

/// Takes back what we set in an object that is no longer wanted; one that has nothing else in
/// it goes as a whole, if it is of a kind that we make.
pub(super) fn gone(tool: &Tool, manifest: &Json, host: &mut dyn Host) -> Rendered<Planned> {
    const MADE: [&str; 4] = ["ConfigMap", "DaemonSet", "Pod", "ResourceQuota"];
    let name = Name::of(manifest);
    let live = answered(host, &tool.live(&name), &name.label())?;
    let is_made = MADE.iter().any(|kind| manifest["kind"] == *kind);
    let alone = live.filter(|live| is_made && owned::is_only_ours(live));
    let Some(live) = alone else {
        return planned(tool, manifest, false, host);
    };
    let ours = owned::ours(&live);
    let paths = owned::leaves(&ours);
    let writing = Writing {
        tool,
        name: &name,
        live: Some(&live),
        after: &live,
        paths: &paths,
        take_over: false,
        take_back: false,
    };
    let before = owned::printed(Some(&live), &paths);
    let mut step = writing.step(&ours, &before, (&paths, ""));
    step.title = format!("delete {}", name.label());
    step.change = Change::Setting {
        subject: name.label(),
        name: "state".to_owned(),
        before: "there, ours alone".to_owned(),
        after: "deleted".to_owned(),
    };
    let wanted = format!("payload/{}", writing.payload("wanted"));
    let delete = writing.call("kube_put_back").arg("absent");
    step.undo = step.apply;
    step.apply = Script::one(delete.run_path(wanted));
    Ok(Planned {
        step: Some(step),
        ..Planned::default()
    })
}

fn conflict(
    label: &str,
    live: Option<&Json>,
    manifest: &Json,
    contested: &[(Path, String)],
) -> Diagnostic {
    let value = |object: Option<&Json>, path: &Path| {
        let found = object.and_then(|object| owned::at(object, path));
        found.map_or_else(|| "nothing".to_owned(), shown)
    };
    let each: Vec<String> = contested
        .iter()
        .map(|(path, owner)| {
            let (is, wanted) = (value(live, path), value(Some(manifest), path));
            format!(
                "{} is {is}, set by {owner}, and {wanted} is wanted",
                owned::spelled(path)
            )
        })
        .collect();
    Diagnostic::error(format!("{label}: {}", each.join("; ")))
        .hint("`take_over: true` in `gpu_kubernetes` takes fields over that others have set")
}

/// A value in a plan.
fn shown(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Of a text of many lines those that the other lacks, in one line.
fn lines_lacking(text: &str, other: &str) -> String {
    if !text.trim_end().contains('\n') {
        return text.trim_end().to_owned();
    }
    let lines = text
        .lines()
        .filter(|line| other.lines().all(|old| old != *line));
    let lines: Vec<&str> = lines.map(str::trim).collect();
    match lines.is_empty() {
        true => "no line more".to_owned(),
        false => lines.join("; "),
    }
}

struct Writing<'a> {
    tool: &'a Tool,
    name: &'a Name,
    live: Option<&'a Json>,
    after: &'a Json,
    paths: &'a [Path],
    take_over: bool,
    /// Whether an undo may take fields back that somebody else has set since.
    take_back: bool,
}

impl Writing<'_> {
    /// The name of a file of the run.
    fn payload(&self, what: &str) -> String {
        let id = StepId(self.name.words().join(" "));
        format!("kubernetes-{}-{what}", id.key())
    }

    fn call(&self, function: &str) -> Command {
        self.tool.call(function).args(self.name.words())
    }

    fn step(&self, manifest: &Json, before: &str, after: (&[Path], &str)) -> Step {
        let label = self.name.label();
        let title = match self.live {
            None => format!("make {label}"),
            Some(_) => format!("set fields of {label}"),
        };
        let id = StepId(format!("kubernetes:{}", self.name.words().join(":")));
        let mut step = Step::new(id, "", title, self.change());
        let file = |what: &str, content: &str| Payload {
            name: self.payload(what),
            content: content.as_bytes().to_vec(),
        };
        step.payload = vec![
            file("wanted", &format!("{manifest}\n")),
            file("template", &owned::template(self.paths)),
            file("before", before),
            file("template-after", &owned::template(after.0)),
            file("after", after.1),
        ];
        let path = |what: &str| format!("payload/{}", self.payload(what));
        let is = |template: &str, state: &str| {
            let call = self.call("kube_is").run_path(path(template));
            Script::one(call.run_path(path(state)))
        };
        step.check = is("template", "before");
        step.verify = is("template-after", "after");
        let force = if self.take_over { "yes" } else { "no" };
        step.apply = Script::one(
            self.tool
                .call("kube_apply")
                .arg(force)
                .run_path(path("wanted")),
        );
        step.secret = self.paths.iter().any(|path| owned::is_private(path));
        step.timeout_s = 90;
        // What it changes may run or be scheduled anew; a text that others read does not.
        if !["configmap", "resourcequota"].contains(&self.name.resource.as_str()) {
            step.class = Class::Disruptive;
        }
        step
    }

    /// How the step is undone: our fields as they were, and what was taken over goes back.
    fn give_back(&self, step: &mut Step, ours: Option<&Json>, contested: &[(Path, String)]) {
        let mut add = |what: String, content: String| {
            let name = self.payload(&what);
            let path = format!("payload/{name}");
            step.payload.push(Payload {
                name,
                content: content.into_bytes(),
            });
            path
        };
        // First what was taken over, so that nobody meanwhile finds the field empty.
        let mut calls = Script::default();
        let mut owners: BTreeMap<&str, Vec<Path>> = BTreeMap::new();
        for (path, owner) in contested {
            owners.entry(owner).or_default().push(path.clone());
        }
        for (number, (owner, paths)) in owners.iter().enumerate() {
            let Some(live) = self.live else { continue };
            let patch = add(
                format!("back-{number}"),
                owned::patch(live, paths).to_string(),
            );
            let template = add(format!("back-{number}-template"), owned::template(paths));
            let ours = owned::printed(Some(self.after), paths);
            let ours = add(format!("back-{number}-ours"), ours);
            let call = self.call("kube_give_back").arg(*owner);
            calls = calls.then(call.run_path(template).run_path(ours).run_path(patch));
        }
        let identity = owned::identity(self.after);
        let had = ours.unwrap_or(&identity);
        step.secret |= owned::public(had) != *had;
        let undo = add("undo".to_owned(), format!("{had}\n"));
        let word = if self.live.is_none() {
            "absent"
        } else {
            "there"
        };
        let force = if self.take_back { "yes" } else { "no" };
        let call = self.call("kube_put_back").arg(word).run_path(undo);
        calls = calls.then(call.arg(force));
        step.undo = calls;
    }

    fn change(&self) -> Change {
        let value = |object: Option<&Json>, path: &Path| {
            object.and_then(|object| owned::at(object, path)).map(shown)
        };
        let differing: Vec<&Path> = self
            .paths
            .iter()
            .filter(|path| value(self.live, path) != value(Some(self.after), path))
            .collect();
        let text = |object: Option<&Json>, path: &Path, other: Option<&Json>| match (
            value(object, path),
            owned::is_private(path),
        ) {
            (Some(_), true) => "set, and not shown".to_owned(),
            (Some(found), false) => lines_lacking(&found, &value(other, path).unwrap_or_default()),
            (None, _) => "not set".to_owned(),
        };
        let subject = self.name.label();
        match differing[..] {
            [path] => Change::Setting {
                subject,
                name: owned::spelled(path),
                before: text(self.live, path, Some(self.after)),
                after: text(Some(self.after), path, self.live),
            },
            _ => {
                let all = |object: Option<&Json>, other: Option<&Json>| {
                    let each = differing.iter().map(|path| {
                        format!("{}: {}", owned::spelled(path), text(object, path, other))
                    });
                    each.collect::<Vec<_>>().join(", ")
                };
                let (before, after) = match differing.is_empty() {
                    true => (
                        "as wanted, set by others".to_owned(),
                        "the same, ours too".to_owned(),
                    ),
                    false => (
                        all(self.live, Some(self.after)),
                        all(Some(self.after), self.live),
                    ),
                };
                Change::Setting {
                    subject,
                    name: "fields".to_owned(),
                    before,
                    after,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_long_texts_the_lines_that_differ_are_shown() {
        let text = |replicas: u32| format!("version: v1\nsharing:\n  replicas: {replicas}\n");
        assert_eq!(lines_lacking(&text(4), &text(8)), "replicas: 4");
        assert_eq!(lines_lacking(&text(4), &text(4)), "no line more");
        assert_eq!(lines_lacking("single", "mixed"), "single");
    }
}
