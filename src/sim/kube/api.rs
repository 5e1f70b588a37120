//! What the API server does with a request: reading, writing, and the errors in its words.

use serde_json::{Value as Json, json};

use super::cluster::{Cluster, now, text};
use super::fields::{self, Writer};
use super::http::Request;
use super::kinds::{self, Kind};
use super::{admission, patch};

/// An answer.
#[derive(Debug)]
pub(super) enum Answer {
    /// A document.
    Json(u16, Json),
    /// A text.
    Text(String),
    /// Changes of objects, as they come.
    Watch(Selection),
}

/// Which objects are meant.
#[derive(Debug, Clone)]
pub(super) struct Selection {
    kind: &'static Kind,
    namespace: String,
    name: String,
    fields: String,
    labels: String,
}

/// An error as the API server words it.
pub(super) fn failure(code: u16, reason: &str, message: &str) -> Answer {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    });
    Answer::Json(code, status)
}

fn not_found(kind: &Kind, name: &str) -> Answer {
    let message = format!("{} {name:?} not found", kind.full());
    failure(404, "NotFound", &message)
}

/// Answers a request.
pub(super) fn answer(cluster: &mut Cluster, request: &Request) -> Answer {
    if request.method == "GET"
        && let Some(found) = kinds::discovery(&request.path)
    {
        return Answer::Json(200, found);
    }
    let path = request.path.trim_matches('/');
    let words: Vec<&str> = path.split('/').collect();
    let (group, rest) = match &words[..] {
        ["api", "v1", rest @ ..] => ("", rest),
        ["apis", group, _, rest @ ..] => (*group, rest),
        _ => ("", &[][..]),
    };
    let (namespace, rest) = match rest {
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
        rest => ("", rest),
    };
    let nothing = || {
        failure(
            404,
            "NotFound",
            "the server could not find the requested resource",
        )
    };
    let Some(kind) = rest.first().and_then(|plural| kinds::find(group, plural)) else {
        return nothing();
    };
    match (request.method.as_str(), &rest[1..]) {
        ("GET", []) => read(cluster, request, kind, namespace, ""),
        ("GET", [name]) => match cluster.get(kind, namespace, name) {
            _ if request.is_on("watch") => read(cluster, request, kind, namespace, name),
            Some(object) => Answer::Json(200, object.clone()),
            None => not_found(kind, name),
        },
        ("GET", [name, "log"]) => Answer::Text(super::operator::log(cluster, namespace, name)),
        ("POST", []) => create(cluster, request, kind, namespace),
        ("POST", [name, "eviction"]) => evict(cluster, kind, namespace, name),
        ("PATCH", [name]) => patched(cluster, request, kind, namespace, name),
        ("DELETE", [name]) => match cluster.get(kind, namespace, name) {
            None => not_found(kind, name),
            Some(object) if is_dry(request) => Answer::Json(200, object.clone()),
            Some(_) => {
                let gone = cluster.delete(kind, namespace, name);
                Answer::Json(200, gone.unwrap_or_default())
            }
        },
        _ => failure(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        ),
    }
}

fn is_dry(request: &Request) -> bool {
    request.query("dryRun") == Some("All")
}

fn read(
    cluster: &Cluster,
    request: &Request,
    kind: &'static Kind,
    namespace: &str,
    name: &str,
) -> Answer {
    let word = |name: &str| request.query(name).unwrap_or_default().to_owned();
    let selection = Selection {
        kind,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        fields: word("fieldSelector"),
        labels: word("labelSelector"),
    };
    if request.is_on("watch") {
        return Answer::Watch(selection);
    }
    let items: Vec<Json> = selection.of(cluster).into_iter().cloned().collect();
    let list = json!({
        "kind": format!("{}List", kind.kind), "apiVersion": kind.api_version(),
        "metadata": { "resourceVersion": cluster.revision().to_string() }, "items": items,
    });
    Answer::Json(200, list)
}

impl Selection {
    /// The objects that are meant.
    pub(super) fn of<'a>(&self, cluster: &'a Cluster) -> Vec<&'a Json> {
        let all = cluster.list(self.kind, &self.namespace).into_iter();
        all.filter(|object| self.name.is_empty() || text(object, "/metadata/name") == self.name)
            .filter(|object| {
                each(&self.fields, |field| {
                    let path = format!("/{}", field.replace('.', "/"));
                    Some(text(object, &path)).filter(|text| !text.is_empty())
                })
            })
            .filter(|object| {
                each(&self.labels, |label| {
                    object["metadata"]["labels"][label].as_str()
                })
            })
            .collect()
    }
}

/// Whether all terms of a selector hold: `a=b`, `a!=b`, `a`, `!a`.
fn each<'a>(selector: &str, value: impl Fn(&str) -> Option<&'a str>) -> bool {
    let mut terms = selector.split(',').filter(|term| !term.is_empty());
    terms.all(|term| {
        if let Some((name, wanted)) = term.split_once("!=") {
            return value(name) != Some(wanted);
        }
        if let Some((name, wanted)) = term.split_once('=') {
            let wanted = wanted.trim_start_matches('=');
            return value(name).unwrap_or_default() == wanted;
        }
        match term.strip_prefix('!') {
            Some(name) => value(name).is_none(),
            None => value(term).is_some(),
        }
    })
}

fn writer(request: &Request, kind: &Kind) -> Writer {
    let agent = request.header("user-agent");
    let agent = agent.split('/').next().unwrap_or("unknown");
    Writer {
        manager: request.query("fieldManager").unwrap_or(agent).to_owned(),
        api_version: kind.api_version(),
        now: now(),
    }
}

fn body(request: &Request) -> Result<Json, Answer> {
    serde_yaml::from_slice(&request.body).map_err(|error| {
        let message = format!("the body of the request cannot be read: {error}");
        failure(400, "BadRequest", &message)
    })
}

fn create(cluster: &mut Cluster, request: &Request, kind: &Kind, namespace: &str) -> Answer {
    let mut object = match body(request) {
        Ok(object) => object,
        Err(answer) => return answer,
    };
    if !namespace.is_empty() {
        object["metadata"]["namespace"] = json!(namespace);
    }
    let name = text(&object, "/metadata/name").to_owned();
    if cluster.get(kind, namespace, &name).is_some() {
        let message = format!("{} {name:?} already exists", kind.full());
        return failure(409, "AlreadyExists", &message);
    }
    fields::track(None, &mut object, &writer(request, kind));
    store(cluster, request, kind, object, 201)
}

fn store(cluster: &mut Cluster, request: &Request, kind: &Kind, object: Json, code: u16) -> Answer {
    let namespace = text(&object, "/metadata/namespace");
    let before = cluster.get(kind, namespace, text(&object, "/metadata/name"));
    if let Some(refusal) = admission::refusal(cluster, kind, before, &object) {
        return refusal;
    }
    let object = admission::with_defaults(kind, object);
    Answer::Json(
        code,
        match is_dry(request) {
            true => cluster.prepared(kind, object).0,
            false => cluster.put(kind, object),
        },
    )
}

fn patched(
    cluster: &mut Cluster,
    request: &Request,
    kind: &Kind,
    namespace: &str,
    name: &str,
) -> Answer {
    let change = match body(request) {
        Ok(change) => change,
        Err(answer) => return answer,
    };
    let before = cluster.get(kind, namespace, name).cloned();
    let content = request.header("content-type");
    let writer = writer(request, kind);
    if content.starts_with("application/apply-patch") {
        let code = if before.is_some() { 200 } else { 201 };
        let force = request.is_on("force");
        return match fields::apply(before.as_ref(), &change, &writer, force) {
            Ok(mut object) => {
                object["metadata"]["name"] = json!(name);
                if !namespace.is_empty() {
                    object["metadata"]["namespace"] = json!(namespace);
                }
                store(cluster, request, kind, object, code)
            }
            Err(conflicts) => conflict(&conflicts),
        };
    }
    let Some(before) = before else {
        return not_found(kind, name);
    };
    let mut object = before.clone();
    if content.starts_with("application/merge-patch") {
        patch::merge(&mut object, &change);
    } else if content.starts_with("application/json-patch") {
        if let Err(message) = patch::json_patch(&mut object, &change) {
            return failure(422, "Invalid", &message);
        }
    } else if content.starts_with("application/strategic-merge-patch") && !kind.is_custom() {
        patch::strategic(&mut object, &change);
    } else {
        let message = "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";
        return failure(415, "UnsupportedMediaType", message);
    }
    if let Some(version) = change.pointer("/metadata/resourceVersion")
        && *version != before["metadata"]["resourceVersion"]
    {
        let message = format!(
            "Operation cannot be fulfilled on {} {name:?}: the object has been modified; please apply your changes to the latest version and try again",
            kind.full()
        );
        return failure(409, "Conflict", &message);
    }
    fields::track(Some(&before), &mut object, &writer);
    store(cluster, request, kind, object, 200)
}

fn conflict(conflicts: &[fields::Conflict]) -> Answer {
    let causes: Vec<Json> = conflicts
        .iter()
        .map(|conflict| {
            json!({
                "reason": "FieldManagerConflict",
                "message": format!("conflict with {}", conflict.with), "field": conflict.field,
            })
        })
        .collect();
    let plural = if conflicts.len() == 1 { "" } else { "s" };
    let head = format!("Apply failed with {} conflict{plural}:", conflicts.len());
    let message = match conflicts {
        [one] => format!("{head} conflict with {}: {}", one.with, one.field),
        all => {
            let mut lines = head;
            let mut with = "";
            for conflict in all {
                if conflict.with != with {
                    with = &conflict.with;
                    lines += &format!(" conflicts with {with}:");
                }
                lines += &format!("\n- {}", conflict.field);
            }
            lines
        }
    };
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": "Conflict", "details": { "causes": causes }, "code": 409,
    });
    Answer::Json(409, status)
}

fn evict(cluster: &mut Cluster, kind: &Kind, namespace: &str, name: &str) -> Answer {
    let Some(pod) = cluster.get(kind, namespace, name) else {
        return not_found(kind, name);
    };
    // As a disruption budget that allows none would.
    if pod.pointer("/metadata/annotations/sim~1budget").is_some() {
        let message = "Cannot evict pod as it would violate the pod's disruption budget.";
        return failure(429, "TooManyRequests", message);
    }
    cluster.delete(kind, namespace, name);
    let status = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201 });
    Answer::Json(201, status)
}
