//! The kinds of objects that the cluster has, and how clients find them out.

use serde_json::{Value as Json, json};

/// One kind.
#[derive(Debug)]
pub(super) struct Kind {
    pub(super) group: &'static str,
    pub(super) version: &'static str,
    pub(super) plural: &'static str,
    pub(super) kind: &'static str,
    pub(super) namespaced: bool,
    short: &'static [&'static str],
}

const fn kind(
    group: &'static str,
    version: &'static str,
    plural: &'static str,
    kind: &'static str,
    namespaced: bool,
    short: &'static [&'static str],
) -> Kind {
    Kind {
        group,
        version,
        plural,
        kind,
        namespaced,
        short,
    }
}

/// All of them.
pub(super) const KINDS: &[Kind] = &[
    kind("", "v1", "nodes", "Node", false, &["no"]),
    kind("", "v1", "namespaces", "Namespace", false, &["ns"]),
    kind("", "v1", "configmaps", "ConfigMap", true, &["cm"]),
    kind("", "v1", "pods", "Pod", true, &["po"]),
    kind(
        "",
        "v1",
        "resourcequotas",
        "ResourceQuota",
        true,
        &["quota"],
    ),
    kind("", "v1", "serviceaccounts", "ServiceAccount", true, &["sa"]),
    kind("apps", "v1", "daemonsets", "DaemonSet", true, &["ds"]),
    kind(
        "nvidia.com",
        "v1",
        "clusterpolicies",
        "ClusterPolicy",
        false,
        &[],
    ),
    kind(
        "amd.com",
        "v1alpha1",
        "deviceconfigs",
        "DeviceConfig",
        true,
        &[],
    ),
    kind("kubevirt.io", "v1", "kubevirts", "KubeVirt", true, &["kv"]),
    kind(
        "kubevirt.io",
        "v1",
        "virtualmachines",
        "VirtualMachine",
        true,
        &["vm"],
    ),
    kind(
        "apps.cozystack.io",
        "v1alpha1",
        "virtualmachines",
        "VirtualMachine",
        true,
        &[],
    ),
    kind(
        "apps.cozystack.io",
        "v1alpha1",
        "kuberneteses",
        "Kubernetes",
        true,
        &[],
    ),
];

/// The kind of these names.
pub(super) fn find(group: &str, plural: &str) -> Option<&'static Kind> {
    KINDS
        .iter()
        .find(|kind| kind.group == group && kind.plural == plural)
}

impl Kind {
    /// Whether it comes from a custom resource definition.
    pub(super) fn is_custom(&self) -> bool {
        self.group.contains('.')
    }

    /// `v1` or `apps/v1`.
    pub(super) fn api_version(&self) -> String {
        match self.group {
            "" => self.version.to_owned(),
            group => format!("{group}/{}", self.version),
        }
    }

    /// The name with the group as messages write it: `daemonsets.apps`.
    pub(super) fn full(&self) -> String {
        match self.group {
            "" => self.plural.to_owned(),
            group => format!("{}.{group}", self.plural),
        }
    }
}

fn groups() -> Vec<(&'static str, &'static str)> {
    let mut groups: Vec<_> = KINDS
        .iter()
        .map(|kind| (kind.group, kind.version))
        .collect();
    groups.dedup();
    groups
}

/// The answer to a question of discovery, or of the schema.
pub(super) fn discovery(path: &str) -> Option<Json> {
    let words: Vec<&str> = path.trim_matches('/').split('/').collect();
    Some(match words[..] {
        ["version"] => json!({
            "major": "1", "minor": "32", "gitVersion": "v1.32.3", "platform": "linux/amd64",
            "gitCommit": "0", "gitTreeState": "clean", "buildDate": "2025-03-11T00:00:00Z",
            "goVersion": "go1.23.6", "compiler": "gc",
        }),
        ["api"] => json!({
            "kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [],
        }),
        ["apis"] => {
            let groups = groups().into_iter().filter(|(group, _)| !group.is_empty());
            let groups: Vec<Json> = groups
                .chain([("policy", "v1")])
                .map(|(group, version)| {
                    let version =
                        json!({ "groupVersion": format!("{group}/{version}"), "version": version });
                    json!({ "name": group, "versions": [version], "preferredVersion": version })
                })
                .collect();
            json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
        }
        ["api", version] => resources("", version)?,
        ["apis", "policy", "v1"] => resource_list("policy/v1", &[]),
        ["apis", group, version] => resources(group, version)?,
        ["openapi", "v3"] => {
            let paths = groups().into_iter().map(|(group, version)| {
                let path = group_path(group, version);
                let url = json!({ "serverRelativeURL": format!("/openapi/v3/{path}?hash=1") });
                (path, url)
            });
            json!({ "paths": paths.collect::<serde_json::Map<_, _>>() })
        }
        ["openapi", "v3", "api", version] => schema("", version)?,
        ["openapi", "v3", "apis", group, version] => schema(group, version)?,
        _ => return None,
    })
}

fn group_path(group: &str, version: &str) -> String {
    match group {
        "" => format!("api/{version}"),
        group => format!("apis/{group}/{version}"),
    }
}

fn resource_list(version: &str, resources: &[Json]) -> Json {
    json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version,
        "resources": resources,
    })
}

fn resources(group: &str, version: &str) -> Option<Json> {
    let verbs = [
        "create", "delete", "get", "list", "patch", "update", "watch",
    ];
    let kinds = KINDS
        .iter()
        .filter(|kind| kind.group == group && kind.version == version);
    let mut resources: Vec<Json> = kinds
        .map(|kind| {
            json!({
                "name": kind.plural, "singularName": kind.kind.to_lowercase(), "kind": kind.kind,
                "namespaced": kind.namespaced, "shortNames": kind.short, "verbs": verbs,
            })
        })
        .collect();
    let first = resources.first()?;
    if first["kind"] == "Node" {
        resources.push(json!({
            "name": "pods/eviction", "singularName": "", "namespaced": true, "kind": "Eviction",
            "group": "policy", "version": "v1", "verbs": ["create"],
        }));
        for name in ["pods/log", "pods/exec"] {
            resources.push(json!({
                "name": name, "singularName": "", "namespaced": true, "kind": "Pod",
                "verbs": ["get", "create"],
            }));
        }
    }
    let version = match group {
        "" => version.to_owned(),
        group => format!("{group}/{version}"),
    };
    Some(resource_list(&version, &resources))
}

/// Says no more than that the server takes `dryRun` and checks fields by itself.
fn schema(group: &str, version: &str) -> Option<Json> {
    let kinds = KINDS
        .iter()
        .filter(|kind| kind.group == group && kind.version == version);
    let parameter =
        |name: &str| json!({ "name": name, "in": "query", "schema": { "type": "string" } });
    let paths: serde_json::Map<String, Json> = kinds
        .map(|kind| {
            let path = format!("/{}/{}/{{name}}", group_path(group, version), kind.plural);
            let patch = json!({
                "parameters": [parameter("dryRun"), parameter("fieldManager"), parameter("fieldValidation"), parameter("force")],
                "responses": { "200": { "description": "OK" } },
                "x-kubernetes-action": "patch",
                "x-kubernetes-group-version-kind":
                    { "group": group, "version": version, "kind": kind.kind },
            });
            (path, json!({ "patch": patch }))
        })
        .collect();
    (!paths.is_empty()).then(|| {
        json!({
            "openapi": "3.0.0", "info": { "title": "Kubernetes", "version": "v1.32.3" },
            "paths": paths,
        })
    })
}
