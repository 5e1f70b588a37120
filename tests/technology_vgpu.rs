//! NVIDIA vGPU by the whole command: both host models, types on GPU instances, and the
//! licence of a virtual machine.

use crate::technology::Bench;

const L40S: &str =
    "{vgpu: host, driver: \"550.90.05\", gpus: [{product: L40S, pci: [\"0000:26:00.0\"]}]}";
const A2: &str = "{vgpu: host, driver: \"535.183.04\", os: debian-12, gpus: [{product: A2, pci: [\"0000:08:00.0\"]}]}";
const H200: &str =
    "{vgpu: host, driver: \"570.133.10\", gpus: [{product: H200-141GB, pci: [\"0000:41:00.0\"]}]}";
const GUEST: &str =
    "{vgpu: guest, driver: \"550.90.07\", gpus: [{product: L40S, name: NVIDIA L40S-8Q}]}";

/// The types of the virtual functions that carry one, in the driver's numbers.
const TYPES: &str = "cat \"$R\"/sys/bus/pci/devices/0000:26:00.0/virtfn*/nvidia/current_vgpu_type | grep -v '^0$' | sort -n | tr '\\n' ' '";
/// The mediated devices, with their types.
const MDEVS: &str = "cd \"$R/sys/bus/mdev/devices\" && for m in *; do echo \"$m $(basename \"$(readlink \"$m/mdev_type\")\")\"; done";

#[test]
fn vendor_vfio_types_are_made_kept_over_a_boot_changed_and_brought_back() {
    let Some(bench) = Bench::new(L40S) else {
        return;
    };
    bench
        .apply("strategy: vgpu, vgpu: {profile: L40S-8Q, count: 4}")
        .says("4 × L40S-8Q");
    assert_eq!(bench.ssh(TYPES), "1152 1152 1152 1152 ");
    let modes = bench
        .ssh("nvidia-smi -q | sed -n 's/^ *\\(Host VGPU Mode\\|vGPU Heterogeneous Mode\\) *: //p'");
    assert_eq!(modes, "SR-IOV\nDisabled\n");
    bench.settled();
    bench.reboot();
    assert_eq!(bench.ssh(TYPES), "1152 1152 1152 1152 ");
    bench.settled();

    // Another layout: sizes that differ need the mode, which needs an empty card.
    bench.apply(
        "strategy: vgpu, vgpu: {profiles: [L40S-24Q, L40S-12Q, L40S-8Q], heterogeneous: true}",
    );
    assert_eq!(bench.ssh(TYPES), "1152 1153 1155 ");
    bench.settled();
    bench.broken(&["power"]);
    assert_eq!(bench.ssh(TYPES), "1152 1153 1155 ");
    assert_eq!(
        bench.ssh("nvidia-smi -q | grep -c 'Heterogeneous Mode .*: Enabled'"),
        "1\n"
    );

    bench.deploy(&["rollback", "--yes"]).expect(0);
    assert_eq!(bench.ssh(TYPES), "1152 1152 1152 1152 ");
    assert_eq!(
        bench.ssh("nvidia-smi -q | grep -c 'Heterogeneous Mode .*: Disabled'"),
        "1\n"
    );
    bench.reboot();
    assert_eq!(bench.ssh(TYPES), "1152 1152 1152 1152 ");

    bench.apply("strategy: none");
    assert_eq!(
        bench.ssh("cat \"$R/sys/bus/pci/devices/0000:26:00.0/sriov_numvfs\""),
        "0\n"
    );
    assert!(!bench.has("/etc/deploy/gpu/vgpu.conf"));
    bench.settled();
    bench.deploy(&["rollback", "--yes"]).expect(0);
    assert_eq!(bench.ssh(TYPES), "1152 1152 1152 1152 ");
}

#[test]
fn mediated_devices_keep_their_uuids_and_the_busy_one_is_not_touched() {
    let Some(bench) = Bench::new(A2) else { return };
    bench.apply("strategy: vgpu, vgpu: {profile: A2-4Q, count: 2}");
    let first = bench.ssh(MDEVS);
    assert_eq!(first.lines().count(), 2, "{first}");
    assert!(
        first.lines().all(|line| line.ends_with(" nvidia-746")),
        "{first}"
    );
    bench.settled();
    bench.reboot();
    assert_eq!(bench.ssh(MDEVS), first, "the same UUIDs");
    bench.settled();

    // A virtual machine uses one of them. More of the same size can be added beside it.
    bench.broken(&["vgpu-in-use", "--vgpu", "0"]);
    bench
        .apply("strategy: vgpu, vgpu: {profiles: [A2-4Q, A2-4Q, A2-4C]}")
        .says("make 1 vGPU");
    let more = bench.ssh(MDEVS);
    assert_eq!(more.lines().count(), 3, "{more}");
    assert!(first.lines().all(|line| more.contains(line)), "{more}");
    // Another size would take it away.
    bench
        .refused("strategy: vgpu, vgpu: {profile: A2-8Q, count: 2}")
        .says("is in use by pid")
        .says("qemu-system-x86");
    assert_eq!(bench.ssh(MDEVS), more, "nothing was lost");
    bench.deploy(&["sim", "mend"]).expect(0);
    bench.apply("strategy: vgpu, vgpu: {profile: A2-8Q, count: 2}");
    let eight = bench.ssh(MDEVS);
    assert!(
        eight.lines().all(|line| line.ends_with(" nvidia-747")),
        "{eight}"
    );
    bench.deploy(&["rollback", "--yes"]).expect(0);
    assert_eq!(bench.ssh(MDEVS), more);
}

#[test]
fn types_on_gpu_instances_get_their_instances_first() {
    let Some(bench) = Bench::new(H200) else {
        return;
    };
    let types = TYPES.replace("26:00", "41:00");
    let instances = "nvidia-smi mig -lgi | grep -c 'MIG 1g.18gb'";
    bench.apply("strategy: vgpu, vgpu: {profile: H200X-1-18C, count: 3}");
    assert_eq!(bench.ssh(&types), "1414 1414 1414 ");
    assert_eq!(bench.ssh(instances), "3\n");
    bench.settled();
    bench.reboot();
    assert_eq!(bench.ssh(&types), "1414 1414 1414 ");
    assert_eq!(bench.ssh(instances), "3\n");
    bench.settled();
    bench.apply("strategy: vgpu, vgpu: {profile: H200X-1-18C, count: 1}");
    assert_eq!(bench.ssh(&types), "1414 ");
    bench.settled();
    bench.deploy(&["rollback", "--yes"]).expect(0);
    assert_eq!(bench.ssh(&types), "1414 1414 1414 ");
    assert_eq!(bench.ssh(instances), "3\n");
    // A type of the whole card needs the mode off.
    bench.apply("strategy: vgpu, vgpu: {profile: H200X-141C, count: 1}");
    assert_eq!(bench.ssh(&types), "1428 ");
    bench.settled();
    bench.apply("strategy: none");
    assert_eq!(
        bench.ssh("cat \"$R/sys/bus/pci/devices/0000:41:00.0/sriov_numvfs\""),
        "0\n"
    );
}

#[test]
fn what_cannot_be_is_refused_with_what_there_is_and_nothing_is_changed() {
    let Some(bench) = Bench::new(L40S) else {
        return;
    };
    let offline = |slicing: &str, words: &[&str]| {
        bench.want(slicing);
        let mut ended = bench.deploy(&["gpu", "--yes"]).expect(1).says("hosts.yml:");
        for word in words {
            ended = ended.says(word);
        }
    };
    offline(
        "strategy: vgpu, vgpu: {profiles: [L40S-8Q, L40S-4Q]}",
        &["framebuffers of 8 and 4 GB", "heterogeneous: true"],
    );
    offline(
        "strategy: vgpu, vgpu: {profile: L40S}",
        &["is no type of vGPU"],
    );
    offline("strategy: vgpu", &["needs `vgpu.profile`"]);
    offline(
        "gpus: [{match: {model: L40S}, strategy: vgpu, vgpu: {profile: L40S-9Q}}]",
        &["L40S has no vGPU type `L40S-9Q`", "L40S-8Q"],
    );
    offline(
        "gpus: [{match: {model: RTX-4080-SUPER}, strategy: vgpu, vgpu: {profile: L40S-8Q}}]",
        &["has no vgpu", "time-slicing"],
    );
    bench
        .refused("strategy: vgpu, vgpu: {profile: A2-8Q}")
        .says("offers no vGPU type `A2-8Q`")
        .says("L40S-8Q");
    bench
        .refused("strategy: vgpu, vgpu: {profile: L40S-8Q, count: 7}")
        .says("carries at most 6 vGPUs of L40S-8Q, not 7");
    bench
        .refused(
            "strategy: vgpu, vgpu: {profiles: [L40S-24Q, L40S-24Q, L40S-8Q], heterogeneous: true}",
        )
        .says("49152 MiB for vGPUs, and 57344 MiB are asked for");
    bench.broken(&["in-use", "--command", "train.py"]);
    bench
        .refused("strategy: vgpu, vgpu: {profile: L40S-8Q}")
        .says("is in use by pid")
        .says("train.py");
    assert_eq!(
        bench.ssh("cat \"$R/sys/bus/pci/devices/0000:26:00.0/sriov_numvfs\""),
        "0\n"
    );

    let Some(plain) = Bench::new("{gpus: [{product: L40S}]}") else {
        return;
    };
    plain
        .refused("strategy: vgpu, vgpu: {profile: L40S-8Q}")
        .says("NVIDIA's vGPU driver is not installed")
        .says("licensing portal");
}

#[test]
fn the_drivers_lock_is_waited_for_and_its_lack_undoes_nothing_more() {
    let Some(bench) = Bench::new(L40S) else {
        return;
    };
    bench.want("strategy: vgpu, vgpu: {profile: L40S-8Q, count: 2}");
    bench.broken(&["unbind-lock-busy", "2"]);
    bench.deploy(&["gpu", "--yes"]).expect(0);
    assert_eq!(bench.ssh(TYPES), "1152 1152 ");
    bench.apply("strategy: none");
    bench.broken(&["unbind-lock-busy", "1000"]);
    bench.want("strategy: vgpu, vgpu: {profile: L40S-8Q, count: 2}");
    bench
        .deploy(&["gpu", "--yes"])
        .expect(3)
        .says("Cannot obtain unbindLock")
        .says("tried 20 times");
    assert_eq!(
        bench.ssh("cat \"$R/sys/bus/pci/devices/0000:26:00.0/sriov_numvfs\""),
        "0\n"
    );
    assert!(!bench.has("/etc/deploy/gpu/vgpu.conf"));
}

#[test]
fn a_virtual_machine_gets_its_licence_and_nobody_sees_the_token() {
    let Some(bench) = Bench::new(GUEST) else {
        return;
    };
    const TOKEN: &str = "eyJhbGciOiJub25lIn0.c2VjcmV0LXRva2Vu.c2lnbmF0dXJl";
    let status = "nvidia-smi -q | sed -n 's/.*License Status *: //p'";
    let wanted = format!("strategy: vgpu, vgpu: {{license_token: {TOKEN}}}");
    let unseen = |ended: crate::harness::Ended| {
        assert!(!ended.all().contains(TOKEN), "{}", ended.all());
        ended
    };
    bench.want(&wanted);
    unseen(bench.deploy(&["gpu", "--check", "--diff", "-v"]).expect(2)).says("vGPU licence");
    unseen(
        bench
            .deploy(&["gpu", "--check", "--output", "json"])
            .expect(2),
    );

    // Refused by the server: all is as before.
    bench.broken(&["license-refused"]);
    unseen(bench.deploy(&["gpu", "--yes"]).expect(3)).says("no vGPU licence was given");
    assert!(!bench.has("/etc/nvidia/gridd.conf"));
    assert_eq!(
        bench.ssh("ls \"$R/etc/nvidia/ClientConfigToken\" | wc -l"),
        "0\n"
    );
    bench.deploy(&["sim", "mend"]).expect(0);

    unseen(bench.deploy(&["gpu", "--yes", "--diff"]).expect(0)).says("licensed, FeatureType 1");
    assert!(
        bench.ssh(status).starts_with("Licensed"),
        "{}",
        bench.ssh(status)
    );
    assert_eq!(bench.file("/etc/nvidia/gridd.conf"), "FeatureType=1\n");
    assert_eq!(
        bench.ssh("stat -c %a \"$R\"/etc/nvidia/ClientConfigToken/*.tok"),
        "744\n"
    );
    bench.settled();
    bench.reboot();
    assert!(bench.ssh(status).starts_with("Licensed"));
    bench.settled();

    unseen(bench.apply(&wanted.replace("}", ", feature_type: 2}")));
    assert_eq!(bench.file("/etc/nvidia/gridd.conf"), "FeatureType=2\n");
    bench.deploy(&["rollback", "--yes"]).expect(0);
    assert_eq!(bench.file("/etc/nvidia/gridd.conf"), "FeatureType=1\n");
    assert!(bench.ssh(status).starts_with("Licensed"));
    // What is kept of runs on the controller's side and in the steps' scripts holds no token.
    let found = bench.ssh(&format!(
        "grep -rl '{TOKEN}' \"$R/var/lib/deploy\" | grep -v -e '/payload/' -e '/snapshot/' | wc -l"
    ));
    assert_eq!(found, "0\n");

    bench
        .refused("strategy: vgpu, vgpu: {profile: L40S-8Q}")
        .says("is itself a vGPU");
}

/// Functions that take whatever is written, so that the shell's part is alone.
fn plain_functions(root: &std::path::Path) {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let write = |path: &str, text: &str| {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, text).expect("a file");
    };
    let devices = "sys/bus/pci/devices";
    write(&format!("{devices}/0000:26:00.0/sriov_numvfs"), "3\n");
    for number in 0..3 {
        let function = format!("0000:26:00.{}", number + 4);
        write(
            &format!("{devices}/{function}/nvidia/current_vgpu_type"),
            "0\n",
        );
        write(
            &format!("{devices}/{function}/nvidia/creatable_vgpu_types"),
            "7 : A B-1Q\n",
        );
        let link = root.join(format!("{devices}/0000:26:00.0/virtfn{number}"));
        symlink(format!("../{function}"), link).expect("a link");
    }
    write("proc/version", "");
    let tool = "#!/bin/sh\necho '        vGPU Heterogeneous Mode    : Disabled'\n";
    write("bin/nvidia-smi", tool);
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(root.join("bin/nvidia-smi"), mode).expect("a mode");
}

#[test]
fn vgpus_are_set_saved_and_restored_by_every_shell() {
    const SCRIPT: &str = r#"
set -eu
pf=0000:26:00.0
fails() {
    if "$@" 2>"$R/said"; then
        echo "went well: $*"
        exit 1
    fi
}
vgpu_is $pf on 0
vgpu_set $pf 0 0=7:u 2=7:v
vgpu_is $pf on 0 2=7:x 0=7:y
fails vgpu_is $pf on 0 0=7:u
fails vgpu_is $pf off - 0=7:u 2=7:v
fails vgpu_is $pf - 1 0=7:u 2=7:v
vgpu_free $pf 0=7:u
vgpu_save $pf "$R/saved"
vgpu_set $pf - 1=7:w
vgpu_lacks $pf 0=7:u 2=7:v
fails vgpu_lacks $pf 1=7:w
vgpu_restore $pf "$R/saved"
vgpu_restore $pf "$R/saved"
vgpu_is $pf on 0 0=7:u 2=7:v
fails vgpu_set $pf 0 9=7:u
grep -q 'there is no virtual function 9' "$R/said"
echo well
"#;
    for shell in [&["sh"][..], &["dash"], &["bash"], &["busybox", "sh"]] {
        let folder = tempfile::tempdir().expect("a folder");
        plain_functions(folder.path());
        let path = std::env::var("PATH").expect("a path");
        let output = std::process::Command::new(shell[0])
            .args(&shell[1..])
            .arg("-c")
            .arg(format!("{}{SCRIPT}", deploy::strategy::host_library()))
            .env("R", folder.path())
            .env(
                "PATH",
                format!("{}:{path}", folder.path().join("bin").display()),
            )
            .output()
            .expect("the shell starts; tests/run installs it");
        let ended = crate::harness::ended(output);
        assert_eq!(ended.out, "well\n", "{shell:?}: {}", ended.all());
    }
}

#[test]
fn auto_gives_each_tenant_a_virtual_machine() {
    let Some(bench) = Bench::new(L40S) else {
        return;
    };
    bench
        .apply("strategy: auto, auto: {isolation: hardware, tenants: 3, memory_each: 10GB}")
        .says("`auto` picked vgpu: 3 × L40S-12")
        .says("give 3 tenants a virtual machine each");
    assert_eq!(bench.ssh(TYPES).split_whitespace().count(), 3);
    bench.settled();
    bench
        .refused("strategy: auto, auto: {isolation: hardware, tenants: 3, memory_each: 30GB}")
        .says("vgpu (");
}
