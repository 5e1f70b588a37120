//! The shell functions that write container device specifications for AMD's and Intel's cards,
//! on every shell that a host may have: over what real kernels say of an MI300X in CPX, and
//! a folder that plays sysfs.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

/// `tests/run` installs them.
const SHELLS: [&[&str]; 4] = [
    &["dash"],
    &["bash", "--posix"],
    &["busybox", "sh"],
    &["mksh"],
];

fn run(shell: &[&str], root: &Path, call: &str) -> String {
    let text = format!(
        ". '{}/src/strategy/cdi_spec.sh'; {call}",
        env!("CARGO_MANIFEST_DIR")
    );
    let output = Command::new(shell[0])
        .args(&shell[1..])
        .args(["-c", &text])
        .env("R", root)
        .output()
        .expect("the shell starts; tests/run installs it");
    assert!(output.status.success(), "{shell:?} {call}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn partitions_of_amds_cards_have_names_by_place_and_number() {
    let root = tempfile::tempdir().expect("a folder");
    let captures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/captures/amd");
    for node in [0, 2, 3, 9, 10] {
        let folder = format!("sys/class/kfd/kfd/topology/nodes/{node}");
        let folder = root.path().join(folder);
        fs::create_dir_all(&folder).expect("a folder");
        let capture = captures.join(format!("kfd-topology-node{node}-properties.mi300x-cpx.txt"));
        fs::copy(capture, folder.join("properties")).expect("a capture");
    }
    for shell in SHELLS {
        // Node 0 is the processors; of the second card one node was recorded.
        assert_eq!(
            run(shell, root.path(), "cdi_nodes amd"),
            "0000:05:00.0 /dev/dri/renderD128\n0000:05:00.0 /dev/dri/renderD129\n0000:05:00.0 /dev/dri/renderD135\n\
             0000:05:00.0 /dev/kfd\n0000:05:00.0-p0 /dev/dri/renderD128\n0000:05:00.0-p0 /dev/kfd\n\
             0000:05:00.0-p1 /dev/dri/renderD129\n0000:05:00.0-p1 /dev/kfd\n0000:05:00.0-p7 /dev/dri/renderD135\n\
             0000:05:00.0-p7 /dev/kfd\n0000:27:00.0 /dev/dri/renderD136\n0000:27:00.0 /dev/kfd\n",
            "{shell:?}"
        );
        let spec = run(
            shell,
            root.path(),
            "cdi_write amd; cdi_write amd; cat \"$R/etc/cdi/deploy-amd.json\"",
        );
        let spec: serde_json::Value = serde_json::from_str(&spec).expect("it is JSON");
        assert_eq!(spec["kind"], "amd.com/gpu");
        assert_eq!(spec["devices"].as_array().map(Vec::len), Some(5));
        let part = &spec["devices"][2];
        assert_eq!(part["name"], "0000:05:00.0-p1");
        let nodes = &part["containerEdits"]["deviceNodes"];
        assert_eq!(nodes[0]["path"], "/dev/dri/renderD129");
        assert_eq!(nodes[1]["path"], "/dev/kfd");
    }
}

#[test]
fn virtual_functions_are_counted_and_a_specification_without_a_device_goes() {
    for shell in SHELLS {
        let root = tempfile::tempdir().expect("a folder");
        let bus = root.path().join("sys/bus/pci/devices");
        for (address, node) in [
            ("0000:4b:00.0", 128),
            ("0000:4b:00.1", 130),
            ("0000:4b:00.2", 129),
        ] {
            let folder = bus.join(address);
            fs::create_dir_all(folder.join(format!("drm/renderD{node}"))).expect("a folder");
            fs::write(folder.join("vendor"), "0x8086\n").expect("a file");
        }
        fs::create_dir_all(bus.join("0000:01:00.0/drm/renderD131")).expect("a folder");
        fs::write(bus.join("0000:01:00.0/vendor"), "0x10de\n").expect("a file");
        for (number, address) in ["0000:4b:00.1", "0000:4b:00.2"].into_iter().enumerate() {
            let card = bus.join("0000:4b:00.0");
            symlink(
                format!("../{address}"),
                card.join(format!("virtfn{number}")),
            )
            .expect("a link");
            symlink("../0000:4b:00.0", bus.join(address).join("physfn")).expect("a link");
        }
        assert_eq!(
            run(shell, root.path(), "cdi_nodes intel"),
            "0000:4b:00.0 /dev/dri/renderD128\n0000:4b:00.0-vf1 /dev/dri/renderD130\n0000:4b:00.0-vf2 /dev/dri/renderD129\n",
            "{shell:?}"
        );
        let file = root.path().join("etc/cdi/deploy-intel.json");
        run(shell, root.path(), "cdi_write intel");
        assert!(file.exists());
        fs::remove_dir_all(&bus).expect("ours");
        run(shell, root.path(), "cdi_write intel");
        assert!(!file.exists(), "{shell:?}");
    }
}
