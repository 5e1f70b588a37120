use super::*;
use crate::error::Origin;
use serde_json::json;

fn shipped() -> Tables {
    match Tables::load(&Content::shipped()) {
        Ok(tables) => tables,
        Err(problems) => panic!("{problems}"),
    }
}

/// All that is told of an object, with the place in the block that it was made of.
fn told(object: &Json, block: &Json) -> Vec<String> {
    let (node, found) = crate::yaml::load("vars.yml".as_ref(), &block.to_string());
    assert_eq!(found.0, []);
    let mut problems = Problems::default();
    shipped().tell(object, node.as_ref(), &mut problems);
    let told = problems.0.iter().map(|told| {
        let column = told
            .origin
            .as_ref()
            .map_or(0, |origin: &Origin| origin.column);
        format!(
            "{:?} {column} {} {}",
            told.severity,
            told.message,
            told.hint.as_deref().unwrap_or_default()
        )
    });
    told.collect()
}

fn cluster(group: &Json) -> Json {
    json!({
        "apiVersion": "apps.cozystack.io/v1alpha1", "kind": "Kubernetes",
        "metadata": { "name": "ml" }, "spec": { "nodeGroups": { "gpu": group } },
    })
}

#[test]
fn a_wrong_field_is_told_by_its_path_where_it_was_written() {
    let group = json!({ "maxReplicas": "ten", "gpus": [{ "name": "nvidia.com/L40S" }] });
    let block = json!({ "name": "ml", "nodeGroups": { "gpu": group } });
    let at = block.to_string().find("\"ten\"").expect("it is there") + 1;
    assert_eq!(
        told(&cluster(&group), &block),
        [format!(
            "Error {at} Kubernetes `ml`: `spec.nodeGroups.gpu.maxReplicas` must be a whole number of at least 0, not the string `ten` "
        )]
    );
}

#[test]
fn what_is_missing_and_what_is_no_word_are_told() {
    let group = json!({ "gpus": [{}], "resources": { "cpu": "many" } });
    let mut object = cluster(&group);
    object["spec"]["version"] = json!("v1.99");
    let told = told(&object, &json!({}));
    let all = told.join("\n");
    assert_eq!(told.len(), 3, "{all}");
    assert!(
        all.contains("`spec.nodeGroups.gpu.gpus[0].name` is missing"),
        "{all}"
    );
    assert!(
        all.contains("`spec.nodeGroups.gpu.resources.cpu` must be a quantity"),
        "{all}"
    );
    assert!(
        all.contains("`spec.version` cannot be the string `v1.99`"),
        "{all}"
    );
    assert!(all.contains("`v1.28`, `v1.29`"), "{all}");
}

#[test]
fn an_unknown_field_is_an_error_or_a_warning_by_the_kind() {
    let mut object = cluster(&json!({}));
    object["spec"]["addons"] = json!({ "gpuOperatr": {} });
    let all = told(&object, &json!({}));
    assert_eq!(all.len(), 1, "{all:?}");
    assert!(all[0].starts_with("Warning"), "{all:?}");
    assert!(all[0].contains("did you mean `gpuOperator`"), "{all:?}");
    let quota = json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": { "name": "q" },
        "spec": { "hard": { "requests.nvidia.com/gpu": "4" }, "hrad": {} },
    });
    let all = told(&quota, &json!({}));
    assert_eq!(all.len(), 1, "{all:?}");
    assert!(all[0].starts_with("Error"), "{all:?}");
    assert!(
        all[0].contains("Kubernetes 1.37: there is no field `spec.hrad`"),
        "{all:?}"
    );
}

#[test]
fn a_kind_without_a_table_is_not_passed_over() {
    let object = json!({ "apiVersion": "v2", "kind": "Pod", "metadata": { "name": "p" } });
    assert!(!shipped().know(&object));
    let all = told(&object, &json!({}));
    assert!(
        all[0].contains("no table of the fields of `v2/Pod`"),
        "{all:?}"
    );
    assert!(shipped().check(&json!([])).len() == 1);
}

#[test]
fn of_objects_of_others_nothing_is_missed() {
    let tables = shipped();
    let virt = json!({
        "apiVersion": "kubevirt.io/v1", "kind": "KubeVirt", "metadata": { "name": "kubevirt" },
        "spec": { "configuration": { "permittedHostDevices": { "pciHostDevices": [
            { "pciVendorSelector": "10DE:26B9", "resourceName": "nvidia.com/L40S" },
        ] } } },
    });
    assert_eq!(tables.check(&virt), []);
    let mut wrong = virt;
    let devices = "/spec/configuration/permittedHostDevices/pciHostDevices/0/pciVendorSelector";
    *wrong.pointer_mut(devices).expect("it is there") = json!("10DE");
    let found = tables.check(&wrong);
    assert_eq!(found.len(), 1);
    let path = spelled(&found[0].path);
    let at = "spec.configuration.permittedHostDevices.pciHostDevices[0].pciVendorSelector";
    assert_eq!(path, at);
}

#[test]
fn a_deep_or_a_broken_object_is_no_trouble() {
    let tables = shipped();
    let mut deep = json!({});
    for _ in 0..100 {
        deep = json!({ "spec": deep, "items": [deep] });
        if deep.to_string().len() > 100_000 {
            break;
        }
    }
    for value in [json!(null), json!(1), json!("x"), json!([]), deep] {
        let object = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": value, "spec": value });
        let _ = tables.check(&object);
    }
}

#[test]
fn a_wrong_table_is_told_with_positions() {
    let text = "source: x\nunknown: maybe\npartial: [v9/None]\nobjects:\n  v1/A: {a: strr, b: Nope, c: int 5..1}\n  v1/B: [x]\ntypes:\n  lower: str\n  Round: Round\nmore: 1\n";
    let (node, _) = crate::yaml::load("t.yml".as_ref(), text);
    let mut problems = Problems::default();
    load::tables(
        &node.expect("a mapping"),
        &mut BTreeMap::new(),
        &mut problems,
    );
    let all = problems.to_string();
    for part in [
        "t.yml:2:10",
        "`unknown` is `error` or `warning`",
        "`strr` is no shape",
        "no type `Nope`",
        "`int 5..1` is no shape",
        "not a list",
        "`lower` does not",
        "names nothing but types",
        "unknown key `more`",
        "`partial` names a kind",
    ] {
        assert!(all.contains(part), "{part}: {all}");
    }
}
