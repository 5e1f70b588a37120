//! Tests of the rules for devices.

use super::*;
use std::path::Path;

/// What is said of a device, alone and for a kind of instance with `nvidia.runtime` or not.
fn said(yaml: &str, to: Option<(Kind, &str)>) -> Vec<String> {
    let (node, problems) = crate::yaml::load(Path::new("vars.yml"), yaml);
    assert!(!problems.has_errors(), "{problems:?}");
    let node = node.expect("a document");
    let mut problems = Problems::default();
    let device = Device::read("gpu", &node, &mut problems).expect("a mapping");
    device.check("gpu", Program::Incus, &mut problems);
    if let Some((kind, config)) = to {
        let (config, _) = crate::yaml::load(Path::new("config.yml"), config);
        let config = config.expect("a document");
        let config = texts("config", config.as_map().expect("a mapping"), &mut problems);
        device.check_for("gpu", "`x`", kind, &config, &mut problems);
    }
    problems.0.iter().map(ToString::to_string).collect()
}

#[test]
fn the_daemons_rules_are_held_before_it_is_asked() {
    const UUID: &str = "mig.uuid: MIG-11111111-2222-3333-4444-555555555555";
    let fine = [
        "{type: gpu}".to_owned(),
        "{type: gpu, gputype: physical, pci: '0000:17:00.0', mode: 0660, uid: 1000, gid: 44}"
            .to_owned(),
        "{type: gpu, vendorid: 10de, productid: '2330'}".to_owned(),
        "{type: gpu, id: 1}".to_owned(),
        "{type: gpu, gputype: mdev, mdev: nvidia-712}".to_owned(),
        "{type: gpu, gputype: mig, mig.gi: 1, mig.ci: 0}".to_owned(),
        "{type: gpu, gputype: mig, mig.profile: 1g.10gb, mig.index: 2}".to_owned(),
        "{type: gpu, gputype: mig, mig.profile: 1g.10gb+me}".to_owned(),
        "{type: gpu, gputype: mig, mig.profile: 1c.3g.40gb}".to_owned(),
        format!("{{type: gpu, gputype: mig, {UUID}}}"),
        "{type: gpu, gputype: sriov, pci: '17:00.0'}".to_owned(),
        // Other devices are the daemon's own business.
        "{type: disk, path: /, pool: default}".to_owned(),
    ];
    for yaml in fine {
        assert_eq!(said(&yaml, None), [""; 0], "{yaml}");
    }
    let wrong: [(&str, &str); 23] = [
        ("{path: /}", "has no `type`"),
        ("{type: gpu, gputype: pysical}", "did you mean `physical`?"),
        ("{type: gpu, gputype: cuda}", "give the whole card away"),
        ("{type: gpu, pci: 'zz'}", "must be a PCI address"),
        ("{type: gpu, vendorid: 10DE}", "four lower-case"),
        ("{type: gpu, productid: '233'}", "four lower-case"),
        (
            "{type: gpu, id: nvidia.com/gpu=0}",
            "the number of a DRM card",
        ),
        ("{type: gpu, pci: '17:00.0', id: 0}", "`id` beside `pci`"),
        (
            "{type: gpu, pci: '17:00.0', vendorid: 10de}",
            "`vendorid` beside `pci`",
        ),
        (
            "{type: gpu, id: 0, productid: '2330'}",
            "`productid` beside `id`",
        ),
        ("{type: gpu, mode: '0999'}", "octal digits"),
        ("{type: gpu, uid: -1}", "a number from 0"),
        ("{type: gpu, gid: root}", "a number from 0"),
        ("{type: gpu, mig.gi: 1}", "it goes with `gputype: mig`"),
        (
            "{type: gpu, mdev: nvidia-712}",
            "it goes with `gputype: mdev`",
        ),
        ("{type: gpu, pcii: '17:00.0'}", "did you mean `pci`?"),
        ("{type: gpu, gputype: mdev}", "has no `mdev`"),
        ("{type: gpu, gputype: mig}", "names no MIG device"),
        (
            "{type: gpu, gputype: mig, mig.gi: 1}",
            "names no MIG device",
        ),
        (
            "{type: gpu, gputype: mig, mig.gi: 300, mig.ci: 0}",
            "from 0 to 255",
        ),
        (
            "{type: gpu, gputype: mig, mig.uuid: MIG-1}",
            "must be a UUID",
        ),
        (
            "{type: gpu, gputype: mig, mig.profile: 1g.10gb, mig.gi: 1, mig.ci: 0}",
            "exclude each other",
        ),
        (
            "{type: gpu, gputype: sriov, uid: 0}",
            "it goes with `gputype: physical`",
        ),
    ];
    for (yaml, text) in wrong {
        let said = said(yaml, None);
        assert!(
            said.iter().any(|line| line.contains(text)),
            "{yaml}: {said:?}"
        );
        assert!(
            said.iter().all(|line| line.starts_with("vars.yml:1:")),
            "{said:?}"
        );
    }
}

#[test]
fn who_gets_a_device_must_be_able_to_take_it() {
    let physical = "{type: gpu, mode: '0660'}";
    let mig = "{type: gpu, gputype: mig, mig.gi: 1, mig.ci: 0}";
    let mdev = "{type: gpu, gputype: mdev, mdev: nvidia-712}";
    let sriov = "{type: gpu, gputype: sriov}";
    let runtime = "{nvidia.runtime: true}";
    let none = "{a: b}";
    for (yaml, kind, config) in [
        (physical, Kind::Container, none),
        ("{type: gpu}", Kind::Vm, none),
        (mig, Kind::Container, runtime),
        (mdev, Kind::Vm, none),
        (sriov, Kind::Vm, none),
    ] {
        assert_eq!(said(yaml, Some((kind, config))), [""; 0], "{yaml}");
    }
    for (yaml, kind, config, text) in [
        (physical, Kind::Vm, none, "has a key `mode`"),
        (mig, Kind::Vm, runtime, "MIG devices are for containers"),
        (mig, Kind::Container, none, "not `nvidia.runtime`"),
        (
            mig,
            Kind::Container,
            "{nvidia.runtime: false}",
            "not `nvidia.runtime`",
        ),
        (mdev, Kind::Container, none, "takes `physical` or `mig`"),
        (sriov, Kind::Container, none, "takes `physical` or `mig`"),
        (
            "{type: gpu}",
            Kind::Vm,
            "{migration.stateful: 'true'}",
            "`migration.stateful`",
        ),
    ] {
        let said = said(yaml, Some((kind, config)));
        assert!(
            said.iter().any(|line| line.contains(text)),
            "{yaml}: {said:?}"
        );
    }
}

#[test]
fn what_yaml_takes_for_a_number_is_what_was_written() {
    let yaml = "{type: gpu, pci: 0000:01:00.0, mode: 0660}";
    assert_eq!(said(yaml, None), [""; 0]);
    let (node, _) = crate::yaml::load(Path::new("vars.yml"), yaml);
    let mut problems = Problems::default();
    let device = Device::read("gpu", &node.expect("there"), &mut problems).expect("one");
    assert_eq!(device.get("pci"), Some("0000:01:00.0"));
    assert_eq!(device.get("mode"), Some("0660"));
}
