//! KubeVirt without Cozystack: machines as `VirtualMachine` of `kubevirt.io/v1` with GPUs and
//! other devices of their node, and `permittedHostDevices` of the cluster's `KubeVirt` object.
//!
//! What a machine has beside its devices is kept small: processors and memory or an instance
//! type, one disk, the pods' network. User data is a Secret of the cluster that is there already,
//! so that it never passes through here.

use std::collections::BTreeSet;

use serde_json::{Map, Value as Json, json};

use crate::catalog::Catalog;
use crate::desired::{Block, Desired};
use crate::error::Problems;
use crate::platform::{Finding, Host, Platform, View, Wish};
use crate::render::Rendered;
use crate::value::{Node, Value};

use super::values::{self, checked, is_flag, is_size, is_text, texts_by_name};
use super::{Object, Settings, doctor, permitted, virtual_machine};

/// The group and version of KubeVirt's objects.
pub(super) const API: &str = "kubevirt.io/v1";

/// The variable with the block.
const VARIABLE: &str = "gpu_kubevirt";

/// What we last put into the cluster from this host.
const RECORD: &str = "/etc/deploy/kubevirt/objects.json";

/// The most processors that a machine is asked for; more is a slip of the keyboard.
const MOST_CORES: i64 = 1024;

/// The platform.
#[derive(Debug)]
pub(in crate::platform) struct KubeVirt;

impl Platform for KubeVirt {
    fn name(&self) -> &'static str {
        "kubevirt"
    }

    fn variable(&self) -> &'static str {
        VARIABLE
    }

    fn check(&self, desired: &Desired, catalog: &Catalog, problems: &mut Problems) {
        checked_block(desired, catalog, problems);
    }

    fn wishes(&self, view: &View<'_>, host: &mut dyn Host) -> Rendered<Vec<Wish>> {
        super::wishes_of(sound(view)?, RECORD, host)
    }

    fn removal(&self, _: &View<'_>, host: &mut dyn Host) -> Rendered<Vec<Wish>> {
        super::put("", &[], RECORD, host)
    }

    fn doctor(&self, view: &View<'_>, host: &mut dyn Host) -> Rendered<Vec<Finding>> {
        doctor::examine(&sound(view)?, host)
    }
}

/// The block; that it is right was seen before connecting, but for what templates gave.
fn sound(view: &View<'_>) -> Rendered<Settings> {
    let mut problems = Problems::default();
    let settings = checked_block(view.desired, view.catalog, &mut problems);
    crate::platform::sound(settings, problems)
}

/// The block, its manifests held against their tables.
fn checked_block(desired: &Desired, catalog: &Catalog, problems: &mut Problems) -> Settings {
    let settings = read(desired, problems);
    super::conform(&settings.objects, VARIABLE, desired, catalog, problems);
    settings
}

/// Reads the block. What is wrong is in `problems`; such objects are left out.
fn read(desired: &Desired, problems: &mut Problems) -> Settings {
    let mut block = crate::platform::block(desired, VARIABLE, problems);
    let kubeconfig = super::path(&mut block, "kubeconfig");
    let namespace = super::namespace(&mut block, "namespace", "default");
    let virt = super::namespace(&mut block, "kubevirt_namespace", "kubevirt");
    let virt_namespace = virt.unwrap_or_else(|| "kubevirt".to_owned());
    let mut objects = Vec::new();
    for node in super::list(&mut block, "virtual_machines") {
        objects.extend(machine(node, &mut block));
    }
    super::unique(&objects, &mut block);
    let permitted = permitted::read(&mut block, &virt_namespace);
    block.finish();
    Settings {
        kubeconfig,
        objects: super::in_order(objects, permitted, namespace.as_deref()),
        virt_namespace,
    }
}

/// Reads one machine; nothing if a finding stands against it.
fn machine(node: &Node, block: &mut Block<'_, '_>) -> Option<Object> {
    let path = format!("{}[]", block.path_of("virtual_machines"));
    let mut own = Block::new(&path, Some(node), block.problems);
    let before = own.problems.0.len();
    let name = values::name(&mut own, "a virtual machine");
    let what = match &name {
        Some(name) => format!("virtual machine `{name}`"),
        None => "a virtual machine".to_owned(),
    };
    let labels = checked(&mut own, "labels", "texts by name", texts_by_name);
    let running = checked(&mut own, "running", "`true` or `false`", is_flag);
    let mut spec = json!({
        "runStrategy": if running == Some(json!(false)) { "Halted" } else { "Always" },
    });
    let mut domain = json!({ "devices": {} });
    if let Some(kind) = checked(&mut own, "instancetype", "a string", is_text) {
        spec["instancetype"] = json!({ "name": kind });
    }
    if let Some(preference) = checked(&mut own, "preference", "a string", is_text) {
        spec["preference"] = json!({ "name": preference });
    }
    size(&mut own, &what, &spec, &mut domain);
    let mut resources = Vec::new();
    let mut names = BTreeSet::new();
    for key in ["gpus", "hostDevices"] {
        let devices = devices(&mut own, key, &mut names, &mut resources);
        if !devices.is_empty() {
            domain["devices"][key] = Json::Array(devices);
        }
    }
    if resources.is_empty() && own.node("gpus").is_none() {
        values::missing(&mut own, "gpus", &what);
    }
    let mut volumes = vec![system_disk(&mut own, &what)];
    let mut disks = vec![json!({ "name": "system", "disk": { "bus": "virtio" } })];
    if let Some(secret) = checked(
        &mut own,
        "userDataSecret",
        "the name of a Secret",
        is_object,
    ) {
        volumes.push(Some(json!({
            "name": "user-data", "cloudInitNoCloud": { "secretRef": { "name": secret } },
        })));
        disks.push(json!({ "name": "user-data", "disk": { "bus": "virtio" } }));
    }
    own.finish();
    if block.problems.0.len() > before {
        return None;
    }
    domain["devices"]["disks"] = Json::Array(disks);
    domain["devices"]["interfaces"] = json!([{ "name": "default", "masquerade": {} }]);
    spec["template"] = json!({ "spec": {
        "domain": domain,
        "networks": [{ "name": "default", "pod": {} }],
        "volumes": volumes.into_iter().flatten().collect::<Vec<Json>>(),
    } });
    let mut metadata = json!({ "name": name? });
    if let Some(labels) = labels {
        metadata["labels"] = labels;
    }
    let advice = format!(
        "{what} needs a driver of its own in the guest, and KubeVirt's feature gates `GPU` and `HostDevices`"
    );
    Some(Object {
        manifest: json!({
            "apiVersion": API, "kind": virtual_machine::KIND,
            "metadata": metadata, "spec": spec,
        }),
        advice: vec![advice],
        resources,
    })
}

/// Processors and memory, which an instance type gives instead.
fn size(own: &mut Block<'_, '_>, what: &str, spec: &Json, domain: &mut Json) {
    let is_count =
        |value: &Value| matches!(value, Value::Int(count) if (1..=MOST_CORES).contains(count));
    let cores = checked(own, "cores", "a number of processors", is_count);
    let memory = checked(own, "memory", "a size such as `64Gi`", is_size);
    let has_type = spec.get("instancetype").is_some();
    for (key, written) in [("cores", cores.is_some()), ("memory", memory.is_some())] {
        match (own.node(key), has_type) {
            (Some(node), true) => {
                let message = format!("{what} has an `instancetype` and `{key}`, which it gives");
                values::blame(own.problems, node, message, "write one of them");
            }
            (None, false) if !written => {
                values::missing(own, key, &format!("{what}, without `instancetype`,"));
            }
            _ => {}
        }
    }
    if let Some(cores) = cores {
        domain["cpu"] = json!({ "cores": cores });
    }
    if let Some(memory) = memory {
        domain["memory"] = json!({ "guest": memory });
    }
}

/// `gpus` or `hostDevices`: each a name within the machine and the resource that it is.
fn devices(
    own: &mut Block<'_, '_>,
    key: &'static str,
    names: &mut BTreeSet<String>,
    resources: &mut Vec<String>,
) -> Vec<Json> {
    let Some(node) = own.node(key) else {
        return Vec::new();
    };
    let path = own.path_of(key);
    let items = node.as_seq().unwrap_or_default();
    if items.is_empty() {
        let message = format!("`{path}` must be a list of at least one device");
        let hint = "such as `- {name: gpu1, deviceName: nvidia.com/A100}`";
        values::blame(own.problems, node, message, hint);
    }
    let mut devices = Vec::new();
    for item in items {
        let mut one = Block::new(&format!("{path}[]"), Some(item), own.problems);
        let name = values::name(&mut one, "a device");
        if let Some(name) = &name
            && !names.insert(name.clone())
        {
            let message = format!("two devices of a machine are called `{name}`");
            values::blame(one.problems, item, message, "each needs a name of its own");
        }
        let resource = checked(
            &mut one,
            "deviceName",
            "the name of a resource, such as `nvidia.com/A100`",
            |value| matches!(value, Value::Str(text) if values::is_resource(text)),
        );
        if one.node("deviceName").is_none() {
            values::missing(&mut one, "deviceName", "a device");
        }
        one.finish();
        if let (Some(name), Some(resource)) = (name, resource) {
            resources.extend(resource.as_str().map(str::to_owned));
            devices.push(json!({ "name": name, "deviceName": resource }));
        }
    }
    devices
}

/// The disk that the machine boots from: an image that is gone with the machine, or a claim.
fn system_disk(own: &mut Block<'_, '_>, what: &str) -> Option<Json> {
    let image = checked(own, "image", "the name of an image", is_text);
    let claim = checked(
        own,
        "claim",
        "the name of a PersistentVolumeClaim",
        is_object,
    );
    let mut volume = Map::new();
    volume.insert("name".to_owned(), json!("system"));
    match (image, claim) {
        (Some(image), None) => {
            volume.insert("containerDisk".to_owned(), json!({ "image": image }));
        }
        (None, Some(claim)) => {
            let claim = json!({ "claimName": claim });
            volume.insert("persistentVolumeClaim".to_owned(), claim);
        }
        (Some(_), Some(_)) => {
            if let Some(node) = own.node("claim") {
                let message = format!("{what} boots from `image` or from `claim`, not both");
                values::blame(own.problems, node, message, "leave one out");
            }
            return None;
        }
        (None, None) => {
            // A wrong one is told already.
            if own.node("image").is_none() && own.node("claim").is_none() {
                values::missing(own, "image", &format!("{what}, without `claim`,"));
            }
            return None;
        }
    }
    Some(Json::Object(volume))
}

/// The name of another object (RFC 1123 subdomain).
fn is_object(value: &Value) -> bool {
    matches!(value, Value::Str(text) if values::is_object_name(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Origin;

    fn read_block(block: &Json) -> (Settings, Problems) {
        let vars = json!({ "gpu_kubevirt": block });
        let origin = Origin::whole("vars.yml", vars.to_string());
        let map = Node::from_json(&vars, &origin).as_map().cloned();
        let vars = map.unwrap_or_default().into_iter();
        let vars = vars.map(|(name, entry)| (name, entry.node)).collect();
        let (desired, found) = crate::desired::read(&vars, &|_, _| Default::default());
        assert_eq!(found.0, []);
        let mut problems = Problems::default();
        let settings = read(&desired, &mut problems);
        (settings, problems)
    }

    fn trainer() -> Json {
        json!({
            "name": "trainer", "cores": 16, "memory": "64Gi", "claim": "trainer-system",
            "gpus": [{ "name": "gpu1", "deviceName": "nvidia.com/A100" }],
        })
    }

    #[test]
    fn a_machine_becomes_what_kubevirt_takes() {
        let mut machine = trainer();
        machine["hostDevices"] = json!([{ "name": "nic1", "deviceName": "intel.com/x710" }]);
        machine["userDataSecret"] = json!("trainer-user-data");
        let permitted = json!({ "pciHostDevices": [{ "pciVendorSelector": "10DE:20B5", "resourceName": "nvidia.com/A100" }] });
        let block = json!({ "namespace": "ml", "virtual_machines": [machine], "permittedHostDevices": permitted });
        let (settings, problems) = read_block(&block);
        assert_eq!(problems.0, []);
        let [virt, trainer] = &settings.objects[..] else {
            panic!("{settings:?}");
        };
        assert_eq!(
            virt.manifest["metadata"],
            json!({ "name": "kubevirt", "namespace": "kubevirt" })
        );
        assert_eq!(
            trainer.manifest,
            json!({
                "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine",
                "metadata": { "name": "trainer", "namespace": "ml" },
                "spec": { "runStrategy": "Always", "template": { "spec": {
                    "domain": {
                        "cpu": { "cores": 16 }, "memory": { "guest": "64Gi" },
                        "devices": {
                            "gpus": [{ "name": "gpu1", "deviceName": "nvidia.com/A100" }],
                            "hostDevices": [{ "name": "nic1", "deviceName": "intel.com/x710" }],
                            "disks": [
                                { "name": "system", "disk": { "bus": "virtio" } },
                                { "name": "user-data", "disk": { "bus": "virtio" } },
                            ],
                            "interfaces": [{ "name": "default", "masquerade": {} }],
                        },
                    },
                    "networks": [{ "name": "default", "pod": {} }],
                    "volumes": [
                        { "name": "system", "persistentVolumeClaim": { "claimName": "trainer-system" } },
                        { "name": "user-data", "cloudInitNoCloud": { "secretRef": { "name": "trainer-user-data" } } },
                    ],
                } } },
            })
        );
        assert!(
            trainer
                .advice
                .iter()
                .any(|said| said.contains("intel.com/x710 is not in `permittedHostDevices`")),
            "{:?}",
            trainer.advice
        );
    }

    #[test]
    fn what_is_missing_or_does_not_fit_is_told() {
        let told = |change: &dyn Fn(&mut Json)| {
            let mut machine = trainer();
            change(&mut machine);
            let (settings, problems) = read_block(&json!({ "virtual_machines": [machine] }));
            assert!(settings.objects.is_empty());
            let messages = problems.0.iter().map(|found| {
                assert!(found.origin.is_some(), "{found:?}");
                found.message.clone()
            });
            messages.collect::<Vec<_>>().join("\n")
        };
        let without = |key: &'static str| {
            move |machine: &mut Json| {
                machine
                    .as_object_mut()
                    .expect("a mapping")
                    .shift_remove(key);
            }
        };
        assert!(told(&without("gpus")).contains("virtual machine `trainer` needs `gpus`"));
        assert!(told(&without("memory")).contains("without `instancetype`, needs `memory`"));
        assert!(told(&without("claim")).contains("without `claim`, needs `image`"));
        assert!(
            told(&|machine| machine["instancetype"] = json!("u1.large"))
                .contains("has an `instancetype` and `cores`")
        );
        assert!(told(&|machine| machine["image"] = json!("i")).contains("not both"));
        assert!(
            told(&|machine| machine["gpus"][0]["deviceName"] = json!("A100"))
                .contains("must be the name of a resource")
        );
        assert!(
            told(&|machine| machine["cores"] = json!(0)).contains("must be a number of processors")
        );
        let twice = |machine: &mut Json| machine["hostDevices"] = machine["gpus"].clone();
        assert!(told(&twice).contains("two devices of a machine are called `gpu1`"));
    }
}
