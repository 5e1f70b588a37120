//! Device plugins where no operator brings them: NVIDIA's, AMD's and Intel's as daemon sets of
//! our own, with a configuration in a ConfigMap where the plugin reads one.
//!
//! Written after the vendors' own manifests: the same mounts and rights, no more.

use serde_json::{Map, Value as Json, json};
use sha2::{Digest, Sha256};

use crate::desired::{DevicePlugin, Located};

use super::Manifests;
use super::nvidia::{MigStrategy, Sharing};
use super::wanted::Wanted;

/// `plugin`: which one, `containers_gpu_container_integration.device_plugin` says.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plugin {
    /// Whose.
    pub(super) vendor: DevicePlugin,
    /// `namespace`.
    pub(super) namespace: String,
    /// `image`; empty for the one that this version knows.
    pub(super) image: String,
    /// `node_selector`.
    pub(super) selector: Map<String, Json>,
    /// `sharing`: NVIDIA's configuration.
    pub(super) sharing: Option<Sharing>,
    /// `mig_strategy` of NVIDIA's.
    pub(super) mig_strategy: MigStrategy,
    /// `naming` of AMD's: whether partitions have resources of their own.
    pub(super) naming: Located<Naming>,
    /// `shared_devices` of Intel's: how many containers may share a device.
    pub(super) shared: Option<Located<u32>>,
}

/// How AMD's plugin names partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Naming {
    /// All as `amd.com/gpu`.
    Single,
    /// By their modes, such as `amd.com/cpx_nps4`.
    Mixed,
}

/// What differs between vendors.
struct Parts {
    name: &'static str,
    image: &'static str,
    args: Vec<String>,
    env: Json,
    toleration: &'static str,
    /// Volume, path on the node, and whether it is only read.
    mounts: Vec<(&'static str, &'static str, bool)>,
}

/// Where plugins meet the kubelet.
const SOCKETS: (&str, &str, bool) = ("device-plugins", "/var/lib/kubelet/device-plugins", false);

impl Plugin {
    fn parts(&self) -> Parts {
        match self.vendor {
            DevicePlugin::Nvidia => Parts {
                name: "nvidia-device-plugin-daemonset",
                image: "nvcr.io/nvidia/k8s-device-plugin:v0.17.1",
                args: vec!["--config-file=/config/config.yaml".to_owned()],
                env: json!([{ "name": "FAIL_ON_INIT_ERROR", "value": "false" }]),
                toleration: "nvidia.com/gpu",
                mounts: vec![SOCKETS],
            },
            DevicePlugin::Amd => Parts {
                name: "amdgpu-device-plugin-daemonset",
                image: "rocm/k8s-device-plugin:1.31.0.8",
                args: vec![
                    "-logtostderr=true".to_owned(),
                    format!(
                        "-resource_naming_strategy={}",
                        match self.naming.value {
                            Naming::Single => "single",
                            Naming::Mixed => "mixed",
                        }
                    ),
                ],
                env: json!([]),
                toleration: "amd.com/gpu",
                mounts: vec![SOCKETS, ("sys", "/sys", true)],
            },
            DevicePlugin::Intel => Parts {
                name: "intel-gpu-plugin",
                image: "intel/intel-gpu-plugin:0.32.0",
                args: vec![format!(
                    "-shared-dev-num={}",
                    self.shared.as_ref().map_or(1, |shared| shared.value)
                )],
                env: json!([{ "name": "NODE_NAME", "valueFrom": { "fieldRef": { "fieldPath": "spec.nodeName" } } }]),
                toleration: "gpu.intel.com/gpu",
                mounts: vec![
                    SOCKETS,
                    ("devfs", "/dev/dri", true),
                    ("sysfs", "/sys/class/drm", true),
                    ("cdipath", "/var/run/cdi", false),
                ],
            },
        }
    }

    /// The name of its daemon set.
    pub(super) fn name(&self) -> &'static str {
        self.parts().name
    }

    /// With what the names of the resources begin that a node offers by it.
    pub(super) fn domain(&self) -> &'static str {
        match self.vendor {
            DevicePlugin::Nvidia => "nvidia.com/",
            DevicePlugin::Amd => "amd.com/",
            DevicePlugin::Intel => "gpu.intel.com/",
        }
    }

    /// NVIDIA's configuration.
    fn config(&self) -> Option<Json> {
        (self.vendor == DevicePlugin::Nvidia).then(|| {
            let none = Sharing {
                resources: Vec::new(),
                renamed: false,
                one_each: false,
            };
            self.sharing
                .as_ref()
                .unwrap_or(&none)
                .document(self.mig_strategy)
        })
    }
}

/// What there is of it in the cluster.
pub(super) fn manifests(wanted: &Wanted) -> Manifests {
    let Some(plugin) = &wanted.plugin else {
        return Vec::new();
    };
    let parts = plugin.parts();
    let mut all = Vec::new();
    let mut volumes = Vec::new();
    let mut mounts = Vec::new();
    for (name, path, read_only) in &parts.mounts {
        volumes.push(json!({ "name": name, "hostPath": { "path": path } }));
        let mut mount = json!({ "name": name, "mountPath": path });
        if *read_only {
            mount["readOnly"] = json!(true);
        }
        mounts.push(mount);
    }
    let labels = json!({ "name": parts.name });
    let mut template_meta = json!({ "labels": labels });
    if let Some(config) = plugin.config() {
        let text = super::manifests::yaml(&config);
        // Another configuration is another template, so that the pods are started anew.
        let hash = Sha256::digest(text.as_bytes());
        let hash: String = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        template_meta["annotations"] = json!({ "deploy/config": hash });
        let name = format!("{}-config", parts.name);
        let data = [("config.yaml".to_owned(), json!(text))];
        all.push(super::manifests::config_map(
            &plugin.namespace,
            &name,
            &data.into_iter().collect(),
        ));
        volumes.push(json!({ "name": "config", "configMap": { "name": name } }));
        mounts.push(json!({ "name": "config", "mountPath": "/config", "readOnly": true }));
    }
    let image = match plugin.image.as_str() {
        "" => parts.image,
        image => image,
    };
    let mut container = json!({
        "name": parts.name, "image": image, "args": parts.args,
        "securityContext": {
            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"] },
        },
        "volumeMounts": mounts,
    });
    if parts.env != json!([]) {
        container["env"] = parts.env;
    }
    let mut pod = json!({
        "priorityClassName": "system-node-critical",
        "tolerations": [{ "key": parts.toleration, "operator": "Exists", "effect": "NoSchedule" }],
        "containers": [container],
        "volumes": volumes,
    });
    if !plugin.selector.is_empty() {
        pod["nodeSelector"] = json!(plugin.selector);
    }
    all.push(json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": { "name": parts.name, "namespace": plugin.namespace },
        "spec": {
            "selector": { "matchLabels": labels },
            "updateStrategy": { "type": "RollingUpdate" },
            "template": { "metadata": template_meta, "spec": pod },
        },
    }));
    all
}
