//! The shipped models against the tables they were made from.

use deploy::catalog::{Catalog, Technology};
use deploy::content::Content;
use deploy::facts::Vendor;
use serde_json::Value;

fn capture(name: &str) -> Value {
    let text = std::fs::read_to_string(format!("tests/fixtures/captures/{name}"))
        .expect("the capture is there");
    serde_json::from_str(&text).expect("the capture is JSON")
}

fn catalog() -> Catalog {
    Catalog::load(&Content::shipped()).expect("the shipped files are right")
}

fn hex(text: &Value) -> u16 {
    let digits = text.as_str().expect("an id").trim_start_matches("0x");
    u16::from_str_radix(digits, 16).expect("a hexadecimal id")
}

#[test]
fn every_published_mig_geometry_is_in_the_catalog_as_published() {
    let catalog = catalog();
    let capture = capture("nvidia/mig_profiles.json");
    let products = capture["products"].as_object().expect("products");
    assert_eq!(products.len(), 16);
    for (key, product) in products {
        let model = catalog.by_key(key).expect(key);
        assert!(model.technologies.contains(&Technology::Mig), "{key}");
        let names = product["name_from_nvidia_smi"].as_str().expect("names");
        for name in names.split(" / ") {
            assert!(
                model.name == name || model.aliases.iter().any(|alias| alias == name),
                "{key}: {name}"
            );
        }
        assert_eq!(model.memory_mib, product["memory_total_mib_shown"].as_u64());
        for id in product["pci_device_ids"].as_array().expect("ids") {
            let found = catalog.by_pci(Vendor::Nvidia, hex(&id["device"]));
            assert_eq!(found.map(|m| &m.key), Some(key));
        }
        let mig = model.mig.as_ref().expect(key);
        let as_u64 = |n: Option<u32>| n.map(u64::from);
        assert_eq!(
            as_u64(mig.memory_slices),
            product["total_memory_slices"].as_u64()
        );
        assert_eq!(
            u64::from(mig.compute_slices),
            product["total_compute_slices"]
        );
        let published = product["profiles"].as_array().expect("profiles");
        assert_eq!(mig.profiles.len(), published.len(), "{key}");
        for (spec, row) in mig.profiles.iter().zip(published) {
            assert_eq!(spec.name, row["name"].as_str().expect("a name"));
            assert_eq!(as_u64(spec.id), row["id"].as_u64(), "{key} {}", spec.name);
            assert_eq!(u64::from(spec.compute_slices), row["compute_slices"]);
            assert_eq!(as_u64(spec.memory_slices), row["memory_slices"].as_u64());
            assert_eq!(spec.memory_mib, row["memory_mib"].as_u64());
            assert_eq!(u64::from(spec.max), row["max_instances"]);
            assert_eq!(as_u64(spec.sm), row["sm"].as_u64());
            assert_eq!(spec.confidence, row["confidence"].as_str().expect("a word"));
            let placements = serde_json::to_value(&spec.placements).expect("JSON");
            assert_eq!(placements, row["placements"], "{key} {}", spec.name);
        }
    }
}

#[test]
fn every_amd_and_intel_card_is_in_the_catalog() {
    let catalog = catalog();
    for (name, vendor, count) in [
        ("amd/models.json", Vendor::Amd, 16),
        ("intel/models.json", Vendor::Intel, 16),
    ] {
        let capture = capture(name);
        let models = capture["models"].as_array().expect("models");
        assert_eq!(models.len(), count);
        for row in models {
            let mut keys: Vec<&str> = row["pf_ids"]
                .as_array()
                .expect("ids")
                .iter()
                .map(|id| {
                    let model = catalog.by_pci(vendor, hex(id));
                    model.expect("every id is known").key.as_str()
                })
                .collect();
            keys.dedup();
            assert_eq!(keys.len(), 1, "one card, one model: {row}");
            let model = catalog.by_key(keys[0]).expect("it was just found");
            for word in row["compute_partitions"].as_array().into_iter().flatten() {
                let partitions = model.partitions.as_ref().expect("it has partitions");
                assert!(partitions.compute.iter().any(|c| *word == *c), "{row}");
            }
            if let Some(vfs) = row["vf_ids"].as_array() {
                let ids: Vec<u16> = vfs.iter().map(hex).collect();
                assert_eq!(model.vf_device_ids, ids);
            }
        }
    }
}

#[test]
fn a_card_is_drawn_with_all_places_of_its_profiles() {
    let catalog = catalog();
    let model = catalog.by_key("A30-24GB").expect("it is shipped");
    insta::assert_snapshot!(deploy::catalog::draw::details(model, 80));
    let model = catalog.by_key("RTX-PRO-6000-96GB").expect("it is shipped");
    insta::assert_snapshot!(deploy::catalog::draw::details(model, 100));
    let model = catalog.by_key("MI300X").expect("it is shipped");
    insta::assert_snapshot!(deploy::catalog::draw::details(model, 80));
}
