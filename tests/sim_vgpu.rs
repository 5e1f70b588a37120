//! vGPU on simulated hosts, by the vendor's own tools over plain ssh, and recordings of
//! umockdev as hosts.

use deploy::sim::{Fault, break_host};
use serde_json::json;

use crate::harness::Scratch;
use crate::sim::Sim;

/// An A2 on a kernel that still has mediated devices.
fn a2() -> serde_json::Value {
    json!({"gpus": [{"product": "A2", "pci": ["0000:08:00.0"]}], "vgpu": "host",
           "driver": "535.183.04", "os": "debian-12"})
}

fn l40s() -> serde_json::Value {
    json!({"gpus": [{"product": "L40S", "pci": ["0000:26:00.0"]}], "vgpu": "host", "driver": "550.90.05"})
}

const ENABLE: &str = "\"$R/usr/lib/nvidia/sriov-manage\" -e";
const UUID: &str = "f715f63c-0d00-4007-9c5a-b07b0c6c05de";

async fn says(sim: &Sim, command: &str, wanted: &str) {
    let ran = sim.run("host", command).await;
    assert_eq!(ran.status, Some(0), "{command}: {ran:?}");
    assert_eq!(ran.stdout, wanted, "{command}");
}

async fn fails(sim: &Sim, command: &str, wanted: &str) {
    let ran = sim.run("host", command).await;
    assert_ne!(ran.status, Some(0), "{command}: {ran:?}");
    let said = format!("{}{}", ran.stdout, ran.stderr);
    assert!(said.contains(wanted), "{command}: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_a2_shows_what_the_capture_of_one_shows() {
    let sim = Sim::new(&[("host", a2())]).await;
    let pf = "/sys/bus/pci/devices/0000:08:00.0";
    fails(
        &sim,
        &format!("echo 4 | tee \"$R{pf}/sriov_numvfs\""),
        "No such file or directory",
    )
    .await;
    says(
        &sim,
        &format!("{ENABLE} 0000:08:00.0"),
        "Enabling VFs on 0000:08:00.0\n",
    )
    .await;
    says(
        &sim,
        &format!("{ENABLE} ALL"),
        "GPU at 0000:08:00.0 already has VFs enabled.\n",
    )
    .await;
    says(&sim, &format!("cat \"$R{pf}/sriov_numvfs\""), "16\n").await;
    // As in the capture: 4C on 08:00.4, 4A on 08:00.6, 4Q on 08:02.0.
    for (vf, kind, last) in [
        ("0000:08:00.4", 754, "e"),
        ("0000:08:00.6", 751, "d"),
        ("0000:08:02.0", 746, "c"),
    ] {
        let uuid = format!("{}{last}", &UUID[..35]);
        let create = format!(
            "echo {uuid} | tee \"$R/sys/class/mdev_bus/{vf}/mdev_supported_types/nvidia-{kind}/create\""
        );
        says(&sim, &create, &format!("{uuid}\n")).await;
    }
    for (capture, attribute) in [
        (
            "mdev_supported_types-available.a2-vf.txt",
            "available_instances",
        ),
        ("mdev_supported_types-names.a2-vf.txt", "name"),
    ] {
        let wanted = std::fs::read_to_string(format!("tests/fixtures/captures/vgpu/{capture}"));
        let wanted = wanted.expect("the capture");
        let folder = "\"$R/sys/class/mdev_bus/0000:08:01.7/mdev_supported_types\"";
        says(
            &sim,
            &format!("cd {folder} && grep . */{attribute}"),
            &format!("{}\n", wanted.trim_end()),
        )
        .await;
    }
    let again = format!(
        "echo {UUID} | tee \"$R/sys/class/mdev_bus/0000:08:01.7/mdev_supported_types/nvidia-746/create\""
    );
    fails(&sim, &again, "File exists").await;
    let eighth = again.replace("746", "747").replace("f715", "0715");
    fails(&sim, &eighth, "No space left").await;
    let carried = eighth.replace("747", "746").replace("01.7", "00.4");
    fails(&sim, &carried, "No space left").await;

    break_host(&sim.root("host"), &Fault::VgpuInUse { gpu: 0, vgpu: 0 })
        .expect("a virtual machine");
    let remove = format!("echo 1 | tee \"$R/sys/bus/mdev/devices/{UUID}/remove\"");
    fails(&sim, &remove, "Device or resource busy").await;
    fails(
        &sim,
        "\"$R/usr/lib/nvidia/sriov-manage\" -d ALL",
        "Device or resource busy",
    )
    .await;
    deploy::sim::mend(&sim.root("host")).expect("it ends");
    says(&sim, &remove, "1\n").await;
    says(&sim, "ls \"$R/sys/bus/mdev/devices\" | wc -l", "2\n").await;
    break_host(&sim.root("host"), &Fault::Reboot).expect("it reboots");
    sim.up("host").await;
    says(&sim, &format!("cat \"$R{pf}/sriov_numvfs\"; ls \"$R/sys/bus/mdev/devices\" | wc -l; ls \"$R/sys/class/mdev_bus\" | wc -l"), "0\n0\n0\n").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_l40s_takes_types_by_number_and_forgets_them_at_a_boot() {
    let sim = Sim::new(&[("host", l40s())]).await;
    let vf = |number: u32| format!("\"$R/sys/bus/pci/devices/0000:26:00.{number}/nvidia\"");
    says(
        &sim,
        &format!("{ENABLE} ALL"),
        "Enabling VFs on 0000:26:00.0\n",
    )
    .await;
    let files = std::fs::read_to_string("tests/fixtures/captures/vgpu/ls-vf-nvidia-dir.txt");
    says(
        &sim,
        &format!("ls {}", vf(4)),
        &format!("{}\n", files.expect("the capture").trim_end()),
    )
    .await;
    let list =
        std::fs::read_to_string("tests/fixtures/captures/vgpu/creatable_vgpu_types.l40s.txt");
    says(
        &sim,
        &format!("cat {}/creatable_vgpu_types", vf(4)),
        &format!("{}\n", list.expect("the capture").trim_end()),
    )
    .await;
    says(
        &sim,
        &format!("echo 1152 | tee {}/current_vgpu_type", vf(4)),
        "1152\n",
    )
    .await;
    fails(
        &sim,
        &format!("echo 1150 | tee {}/current_vgpu_type", vf(5)),
        "No space left",
    )
    .await;
    fails(
        &sim,
        &format!("echo 9 | tee {}/current_vgpu_type", vf(5)),
        "Invalid argument",
    )
    .await;
    // Only those of the same framebuffer are left.
    says(
        &sim,
        &format!("cat {}/creatable_vgpu_types", vf(5)),
        "ID    : vGPU Name\n1152  : NVIDIA L40S-8Q\n1163  : NVIDIA L40S-12A\n"
            .replace("1163  : NVIDIA L40S-12A", "1162  : NVIDIA L40S-8A")
            .as_str(),
    )
    .await;
    fails(
        &sim,
        "nvidia-smi vgpu -shm 1 -i 0",
        "In use by another client",
    )
    .await;
    fails(&sim, "nvidia-smi vgpu -shm 1 -i 7", "No devices were found").await;
    says(
        &sim,
        &format!("echo 0 | tee {}/current_vgpu_type", vf(4)),
        "0\n",
    )
    .await;
    let enabled = "Enabled vGPU heterogeneous mode for GPU 00000000:26:00.0.\n";
    says(&sim, "nvidia-smi vgpu -shm 1 -i 0", enabled).await;
    says(&sim, "nvidia-smi -q | grep -c -e 'Host VGPU Mode .*: SR-IOV' -e 'Heterogeneous Mode .*: Enabled'", "2\n").await;
    for (number, kind) in [(4, 1152), (5, 1150)] {
        says(
            &sim,
            &format!("echo {kind} | tee {}/current_vgpu_type", vf(number)),
            &format!("{kind}\n"),
        )
        .await;
    }
    says(
        &sim,
        "nvidia-smi vgpu -s -v | grep -c 'vGPU Type ID'",
        "23\n",
    )
    .await;
    break_host(&sim.root("host"), &Fault::Reboot).expect("it reboots");
    sim.up("host").await;
    break_host(&sim.root("host"), &Fault::UnbindLockBusy(1)).expect("somebody has the lock");
    fails(&sim, &format!("{ENABLE} ALL"), "Cannot obtain unbindLock").await;
    says(
        &sim,
        &format!("{ENABLE} ALL"),
        "Enabling VFs on 0000:26:00.0\n",
    )
    .await;
    says(&sim, &format!("cat {}/current_vgpu_type", vf(4)), "0\n").await;
    says(
        &sim,
        "nvidia-smi -q | grep -c 'Heterogeneous Mode .*: Disabled'",
        "1\n",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_virtual_machine_has_a_licence_once_it_is_told_where() {
    let guest = json!({"gpus": [{"product": "L40S", "name": "NVIDIA L40S-8Q"}], "vgpu": "guest", "driver": "550.90.07"});
    let sim = Sim::new(&[("host", guest)]).await;
    let status = "nvidia-smi -q | sed -n 's/.*License Status *: //p'";
    says(&sim, status, "Unlicensed (Unrestricted)\n").await;
    let token = "mkdir -p \"$R/etc/nvidia/ClientConfigToken\" && echo FeatureType=1 >\"$R/etc/nvidia/gridd.conf\" && \
                 echo a.b.c >\"$R/etc/nvidia/ClientConfigToken/client_configuration_token_1.tok\" && systemctl restart nvidia-gridd";
    break_host(&sim.root("host"), &Fault::LicenseRefused).expect("no licence");
    says(&sim, token, "").await;
    says(&sim, status, "Unlicensed (Unrestricted)\n").await;
    deploy::sim::mend(&sim.root("host")).expect("there are some again");
    says(&sim, "systemctl restart nvidia-gridd", "").await;
    says(&sim, status, "Licensed (Expiry: 2027-3-19 7:29:4 GMT)\n").await;
    break_host(&sim.root("host"), &Fault::Reboot).expect("it reboots");
    sim.up("host").await;
    says(&sim, status, "Licensed (Expiry: 2027-3-19 7:29:4 GMT)\n").await;
}

/// A fleet of one host that replays a recording, and what discovery tells of it.
fn discovered(recording: &str) -> serde_json::Value {
    let scratch = Scratch::new();
    let text = std::fs::read_to_string(format!("tests/fixtures/captures/{recording}"));
    scratch.write("inv/host.umockdev", &text.expect("the capture"));
    let inventory = scratch.write(
        "inv/hosts.yml",
        "all:\n  hosts:\n    node1:\n      ansible_connection: sim\n      sim: {umockdev: host.umockdev}\n",
    );
    let inventory = inventory.display().to_string();
    let out = scratch
        .deploy(&["discover", "-i", &inventory, "--output", "json"])
        .expect(0)
        .out;
    let line = out.lines().find(|line| line.contains("host_facts"));
    serde_json::from_str(line.expect("facts")).expect("JSON")
}

#[test]
fn all_recordings_of_umockdev_are_replayed_as_hosts() {
    let facts = discovered("vgpu/a2-vgpu-host-pf-vfs-mdevs.umockdev");
    let gpus = facts
        .pointer("/facts/gpus")
        .or(facts.get("gpus"))
        .expect("cards");
    assert_eq!(gpus.as_array().map(Vec::len), Some(1), "{facts}");
    let gpu = &gpus[0];
    assert_eq!(gpu["pci"], "0000:08:00.0");
    assert_eq!(gpu["sriov"]["known"]["num_vfs"], 16);
    assert_eq!(
        gpu["sriov"]["known"]["vfs"].as_array().map(Vec::len),
        Some(16)
    );
    let host = &gpu["vgpu"]["known"]["host"];
    assert_eq!(host["model"]["known"], "mdev", "{gpu}");
    let existing = host["existing"]["known"]
        .as_array()
        .expect("mediated devices");
    let found: Vec<_> = existing
        .iter()
        .map(|vgpu| {
            (
                vgpu["parent"].as_str(),
                vgpu["type_id"].as_u64(),
                vgpu["uuid"]["known"].as_str(),
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            (
                Some("0000:08:00.4"),
                Some(754),
                Some("f715f63c-0d00-4007-9c5a-b07b0c6c05de")
            ),
            (
                Some("0000:08:00.6"),
                Some(751),
                Some("3deab9a4-200a-4c54-99b1-5eb0722d1d81")
            ),
            (
                Some("0000:08:02.0"),
                Some(746),
                Some("c728e022-f16f-434b-ad2c-9665ee634d3d")
            ),
        ]
    );

    let facts = discovered("pci/sysfs-pf-attrs.nvidia-a2-sriov16.umockdev");
    let gpus = facts
        .pointer("/facts/gpus")
        .or(facts.get("gpus"))
        .expect("cards");
    assert_eq!(gpus[0]["sriov"]["known"]["total_vfs"], 16, "{facts}");
    assert_eq!(gpus[0]["iommu_group"]["known"], 38);
    // A virtual function whose card is not in the recording, and a port, are no cards.
    for recording in [
        "pci/sysfs-vf-attrs.nvidia-a2.umockdev",
        "pci/sysfs-rootport-attrs.umockdev",
    ] {
        let facts = discovered(recording);
        let gpus = facts
            .pointer("/facts/gpus")
            .or(facts.get("gpus"))
            .expect("cards");
        assert_eq!(
            gpus.as_array().map(Vec::len),
            Some(0),
            "{recording}: {facts}"
        );
    }
}

#[test]
fn a_recording_that_cannot_be_replayed_is_said_with_its_place() {
    let scratch = Scratch::new();
    scratch.write("inv/bad.umockdev", "P: /devices/a\nL: driver=/etc\n");
    let inventory = scratch.write(
        "inv/hosts.yml",
        "all:\n  hosts:\n    node1:\n      ansible_connection: sim\n      sim: {umockdev: bad.umockdev}\n    \
         node2:\n      ansible_connection: sim\n      sim: {umockdev: none.umockdev}\n",
    );
    let inventory = inventory.display().to_string();
    scratch
        .deploy(&["discover", "-i", &inventory])
        .expect(1)
        .says("line 2: the link leads out of /sys")
        .says("none.umockdev cannot be replayed")
        .says("hosts.yml:5");
}
