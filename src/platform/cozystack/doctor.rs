//! What keeps virtual machines from their GPUs, each with the command that mends it: a machine
//! that is not there or does not run, and why KubeVirt does not start it; a GPU that is not
//! permitted, or that no node offers.
//!
//! Of a machine that runs nobody sees from outside whether its guest has a driver: that is looked
//! at in the guest.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use crate::platform::Host;
use crate::platform::doctor::{Finding, SET_UP};
use crate::platform::kubernetes::set::{self, Cluster};
use crate::render::Rendered;

use super::{Settings, cluster, kubevirt, permitted, virtual_machine};

/// What Cozystack puts before the name of a machine where it makes KubeVirt's.
const PREFIX: &str = "virtual-machine-";

/// Looks at everything that the block names.
pub(super) fn examine(settings: &Settings, host: &mut dyn Host) -> Rendered<Vec<Finding>> {
    let kubeconfig = settings.kubeconfig.clone().unwrap_or_default();
    let cluster = Cluster::new(&kubeconfig);
    let machines: Vec<&Json> = settings
        .objects
        .iter()
        .map(|object| &object.manifest)
        .filter(|manifest| manifest["kind"] == virtual_machine::KIND)
        .collect();
    let virt = permitted::object(&settings.virt_namespace);
    for manifest in settings.objects.iter().map(|object| &object.manifest) {
        cluster.expect(manifest, host);
    }
    for machine in &machines {
        cluster.expect(&started(machine), host);
    }
    if !machines.is_empty() {
        cluster.expect(&virt, host);
        cluster.expect_nodes(host);
    }
    let mut found = Vec::new();
    for object in &settings.objects {
        let manifest = &object.manifest;
        let live = cluster.live(manifest, host)?;
        let label = set::label(manifest);
        match (manifest["kind"].as_str(), live) {
            (Some(cluster::POD), Some(live)) => found.extend(of_pod(&cluster, manifest, &live)),
            (_, Some(_)) => {}
            (_, None) => found.push(Finding::new(format!("there is no {label}"), SET_UP)),
        }
    }
    if machines.is_empty() {
        return Ok(found);
    }
    let virt_is = cluster.live(&virt, host)?;
    let offered = offered(&cluster.nodes(host)?);
    let wanted = settings.objects.iter();
    let wanted = wanted.filter(|object| object.manifest["kind"] == virtual_machine::KIND);
    for (object, machine) in wanted.zip(&machines) {
        let mut gpus = object.resources.clone();
        gpus.sort();
        gpus.dedup();
        for gpu in &gpus {
            found.extend(of_gpu(&cluster, machine, gpu, virt_is.as_ref(), &offered));
        }
        let is_off =
            machine["spec"]["running"] == false || machine["spec"]["runStrategy"] == "Halted";
        if is_off || cluster.live(machine, host)?.is_none() {
            continue;
        }
        let live = cluster.live(&started(machine), host)?;
        found.extend(of_machine(&cluster, machine, live.as_ref()));
    }
    Ok(found)
}

/// KubeVirt's machine behind one of Cozystack's; its own is itself.
fn started(machine: &Json) -> Json {
    if machine["apiVersion"] == kubevirt::API {
        return machine.clone();
    }
    let name = machine["metadata"]["name"].as_str().unwrap_or_default();
    json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine",
        "metadata": { "name": format!("{PREFIX}{name}"), "namespace": machine["metadata"]["namespace"] },
    })
}

/// How many of each resource all nodes offer.
fn offered(nodes: &Json) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    for node in nodes["items"].as_array().into_iter().flatten() {
        let resources = node["status"]["allocatable"].as_object();
        for (resource, count) in resources.into_iter().flatten() {
            let count = count.as_str().and_then(|count| count.parse::<u64>().ok());
            *all.entry(resource.clone()).or_default() += count.unwrap_or(0);
        }
    }
    all
}

/// A machine that does not run, and why. Cozystack makes KubeVirt's a moment after its own.
fn of_machine(cluster: &Cluster, machine: &Json, live: Option<&Json>) -> Option<Finding> {
    let text = |object: &Json, pointer: &str| {
        let found = object.pointer(pointer).and_then(Json::as_str);
        found.unwrap_or_default().to_owned()
    };
    let namespace = text(machine, "/metadata/namespace");
    let within = |words: &[&str]| match namespace.as_str() {
        "" => cluster.typed(words),
        namespace => cluster.typed(&[words, &["--namespace", namespace]].concat()),
    };
    let behind = text(&started(machine), "/metadata/name");
    let Some(live) = live else {
        let what = format!(
            "KubeVirt has no machine {behind} for {}: Cozystack has not made it",
            set::label(machine)
        );
        let release = ["describe", "helmreleases.helm.toolkit.fluxcd.io", &behind];
        return Some(Finding::new(what, within(&release)));
    };
    let state = text(live, "/status/printableStatus");
    if state == "Running" || state.is_empty() && live["status"]["ready"] == true {
        return None;
    }
    let state = match state.as_str() {
        "" => "not running",
        state => state,
    };
    let conditions = live["status"]["conditions"].as_array();
    let mut reasons = conditions.into_iter().flatten();
    let why = reasons.find_map(|condition| {
        let is_wrong = condition["status"] == "False" || condition["type"] == "Failure";
        let message = condition["message"].as_str().unwrap_or_default();
        (is_wrong && !message.is_empty()).then_some(message)
    });
    let what = format!(
        "{} does not run: {state}{}",
        set::label(machine),
        why.map(|why| format!("; {why}")).unwrap_or_default()
    );
    let run = r#"{"spec":{"runStrategy":"Always"}}"#;
    let machine = format!("virtualmachines.kubevirt.io/{behind}");
    let mend = match state {
        "Stopped" => within(&["patch", &machine, "--type", "merge", "-p", run]),
        _ => within(&["describe", "virtualmachineinstances.kubevirt.io", &behind]),
    };
    Some(Finding::new(what, mend))
}

/// A GPU of a machine that KubeVirt may not hand over, or that no node has.
fn of_gpu(
    cluster: &Cluster,
    machine: &Json,
    gpu: &str,
    virt: Option<&Json>,
    offered: &BTreeMap<String, u64>,
) -> Option<Finding> {
    let label = set::label(machine);
    let typed = |words: &[&str]| cluster.typed(words);
    // Where KubeVirt's own object is another's, what is permitted cannot be seen.
    if let Some(virt) = virt
        && !permitted::permits(virt, gpu)
    {
        let what = format!("{gpu} of {label} is not among the devices that KubeVirt may hand over");
        let mend = format!("add it to `permittedHostDevices`, then {SET_UP}");
        return Some(Finding::new(what, mend));
    }
    let nodes = ["get", "nodes", "--output", "yaml"];
    match offered.get(gpu) {
        None => {
            let what = format!("no node offers {gpu}, which {label} asks for");
            Some(Finding::new(what, typed(&nodes)))
        }
        Some(0) => {
            let what = format!(
                "all nodes offer 0 of {gpu}, which {label} asks for: its driver or its device plugin does not work there"
            );
            Some(Finding::new(what, typed(&nodes)))
        }
        Some(_) => None,
    }
}

/// A pod that waits or failed.
fn of_pod(cluster: &Cluster, manifest: &Json, live: &Json) -> Option<Finding> {
    let phase = live["status"]["phase"].as_str().unwrap_or("Pending");
    if ["Running", "Succeeded"].contains(&phase) {
        return None;
    }
    let conditions = live["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    let why = conditions.find_map(|condition| match condition["status"] == "False" {
        true => condition["message"].as_str(),
        false => None,
    });
    let label = set::label(manifest);
    let what = format!(
        "{label} is {phase}{}",
        why.map(|why| format!(": {why}")).unwrap_or_default()
    );
    let text = |field: &str| manifest["metadata"][field].as_str().unwrap_or("default");
    let (name, namespace) = (text("name"), text("namespace"));
    let words = ["describe", "pod", name, "--namespace", namespace];
    Some(Finding::new(what, cluster.typed(&words)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Json {
        json!({
            "apiVersion": "apps.cozystack.io/v1alpha1", "kind": "VirtualMachine",
            "metadata": { "name": "trainer", "namespace": "tenant-ml" },
            "spec": { "gpus": [{ "name": "nvidia.com/A100" }] },
        })
    }

    fn virt(resource: &str) -> Json {
        json!({ "spec": { "configuration": { "permittedHostDevices": {
            "pciHostDevices": [{ "pciVendorSelector": "10DE:20B5", "resourceName": resource }],
        } } } })
    }

    #[test]
    fn a_machine_that_does_not_run_says_why() {
        let cluster = Cluster::new("");
        let of = |live: Option<&Json>| of_machine(&cluster, &machine(), live);
        assert_eq!(
            of(Some(&json!({ "status": { "printableStatus": "Running" } }))),
            None
        );
        let none = of(None).expect("a finding");
        assert!(none.what.contains("virtual-machine-trainer"), "{none:?}");
        let unplaced = json!({ "status": {
            "printableStatus": "ErrorUnschedulable",
            "conditions": [{ "type": "Ready", "status": "False",
                "message": "0/3 nodes are available: 3 Insufficient nvidia.com/A100." }],
        } });
        let found = of(Some(&unplaced)).expect("a finding");
        assert!(
            found.what.contains("ErrorUnschedulable; 0/3 nodes"),
            "{found:?}"
        );
        let describe = "kubectl describe virtualmachineinstances.kubevirt.io virtual-machine-trainer --namespace tenant-ml";
        assert_eq!(found.mend, describe);
        let stopped = json!({ "status": { "printableStatus": "Stopped" } });
        let found = of(Some(&stopped)).expect("a finding");
        assert!(
            found
                .mend
                .starts_with("kubectl patch virtualmachines.kubevirt.io/virtual-machine-trainer"),
            "{found:?}"
        );
    }

    #[test]
    fn a_gpu_must_be_permitted_and_offered() {
        let cluster = Cluster::new("");
        let (all, none) = (virt("nvidia.com/A100"), virt("nvidia.com/L40S"));
        let of = |virt: Option<&Json>, offered: Option<u64>| {
            let offered = offered.map(|count| ("nvidia.com/A100".to_owned(), count));
            let offered = offered.into_iter().collect();
            of_gpu(&cluster, &machine(), "nvidia.com/A100", virt, &offered)
        };
        assert_eq!(of(Some(&all), Some(4)), None);
        assert_eq!(of(None, Some(4)), None);
        let says = |found: Option<Finding>, text: &str| {
            let found = found.expect("a finding");
            assert!(found.what.contains(text), "{found:?}");
        };
        says(of(Some(&none), Some(4)), "is not among the devices");
        says(of(Some(&all), None), "no node offers nvidia.com/A100");
        says(of(Some(&all), Some(0)), "all nodes offer 0");
    }
}
