//! The shell functions for AMD's cards, on every shell that a host may have, over a folder that
//! plays sysfs and stand-ins for `amd-smi` and `modprobe`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

/// `tests/run` installs them.
const SHELLS: [&[&str]; 4] = [
    &["dash"],
    &["bash", "--posix"],
    &["busybox", "sh"],
    &["mksh"],
];

const CARD: &str = "0000:05:00.0";

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
    fs::write(path, text).expect("a file");
}

fn tool(root: &Path, name: &str, text: &str) {
    write(
        root,
        &format!("bin/{name}"),
        &format!("#!/bin/sh\n{text}\n"),
    );
    let path = root.join("bin").join(name);
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("executable");
}

/// A card in CPX with three devices of which one has no node.
fn card(root: &Path) {
    for (name, text) in [
        ("current_compute_partition", "CPX\n"),
        ("available_compute_partition", "QPX, CPX\n"),
        ("current_memory_partition", "NPS4\n"),
        ("available_memory_partition", "NPS1, NPS4\n"),
        ("xgmi_hive_info/xgmi_hive_id", "77\n"),
    ] {
        write(root, &format!("sys/bus/pci/devices/{CARD}/{name}"), text);
        write(
            root,
            &format!("sys/bus/pci/drivers/amdgpu/{CARD}/{name}"),
            text,
        );
    }
    for (node, file) in [
        (0, "node0"),
        (2, "node2"),
        (3, "node3"),
        (9, "node9"),
        (10, "node10"),
    ] {
        let capture =
            format!("tests/fixtures/captures/amd/kfd-topology-{file}-properties.mi300x-cpx.txt");
        let text = fs::read_to_string(capture).expect("a capture");
        write(
            root,
            &format!("sys/class/kfd/kfd/topology/nodes/{node}/properties"),
            &text,
        );
    }
    for minor in [128, 129] {
        write(root, &format!("dev/dri/renderD{minor}"), "");
    }
}

fn run(shell: &[&str], root: &Path, calls: &str) -> Output {
    let script = root.join("script");
    let text = format!("{}\n{calls}\n", deploy::strategy::host_library());
    fs::write(&script, text).expect("the script");
    let path = std::env::var("PATH").expect("a PATH");
    Command::new(shell[0])
        .args(&shell[1..])
        .arg(&script)
        .env("PATH", format!("{}:{path}", root.join("bin").display()))
        .env("R", root)
        .output()
        .expect("the shell starts; tests/run installs all of them")
}

#[track_caller]
fn says(shell: &[&str], root: &Path, calls: &str, status: i32, text: &str) {
    let output = run(shell, root, calls);
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = out + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        output.status.code(),
        Some(status),
        "{shell:?} {calls}: {said}"
    );
    assert!(said.contains(text), "{shell:?} {calls}: {said}");
}

#[test]
fn partitions_are_read_counted_and_saved() {
    for shell in SHELLS {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        card(root);
        tool(root, "modprobe", "echo no modprobe here >&2; exit 1");
        says(shell, root, &format!("partition_is {CARD} CPX NPS4"), 0, "");
        says(
            shell,
            root,
            &format!("partition_is {CARD} SPX -"),
            1,
            "the compute mode is CPX, expected SPX",
        );
        says(
            shell,
            root,
            &format!("partition_offers {CARD} compute SPX"),
            1,
            "there are QPX, CPX",
        );
        says(
            shell,
            root,
            &format!("amd_nodes {CARD}"),
            0,
            "128\n129\n135\n",
        );
        says(
            shell,
            root,
            &format!("partition_devices {CARD} 3"),
            1,
            "2 of 3 partitions have a device node",
        );
        says(
            shell,
            root,
            "partition_room 65",
            1,
            "the kernel has 64 in all",
        );
        says(shell, root, "partition_room 64", 0, "");
        fs::create_dir_all(root.join("sys/module/ast")).expect("a module");
        says(shell, root, "partition_room 64", 1, "modprobe -r ast");
        says(
            shell,
            root,
            "partition_save $R/saved && cat $R/saved",
            0,
            "0000:05:00.0 CPX NPS4\n",
        );
        // What is as it was is not written, and so nobody is in the way of it.
        says(shell, root, "partition_restore $R/saved", 1, "modprobe");
        fs::create_dir_all(root.join("sys/module/amdgpu")).expect("a module");
        says(shell, root, "partition_restore $R/saved", 0, "");
        says(
            shell,
            root,
            &format!("partition_restore_one {CARD} $R/saved alone"),
            0,
            "",
        );
        says(
            shell,
            root,
            "partition_restore $R/none",
            1,
            "no saved partitions",
        );
        says(shell, root, &format!("partition_whole_hive {CARD}"), 0, "");
        let other = "0000:06:00.0";
        for tree in ["devices", "drivers/amdgpu"] {
            let base = format!("sys/bus/pci/{tree}/{other}");
            write(root, &format!("{base}/current_compute_partition"), "SPX\n");
            write(root, &format!("{base}/xgmi_hive_info/xgmi_hive_id"), "77\n");
        }
        says(
            shell,
            root,
            &format!("partition_whole_hive {CARD}"),
            1,
            "would change its memory mode too",
        );
    }
}

#[test]
fn functions_and_modes_are_read_from_the_amd_smi_of_gim() {
    for shell in SHELLS {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        let captures = Path::new("tests/fixtures/captures/amd");
        let captures = captures.canonicalize().expect("the captures");
        let captures = captures.display();
        tool(
            root,
            "amd-smi",
            &format!(
                "case $* in\nversion) cat {captures}/gim-amd-smi-version.txt ;;\n\
             static*) cat {captures}/gim-amd-smi-static.mi300x-1vf.txt ;;\n\
             *--current) cat {captures}/gim-amd-smi-partition-current.txt ;;\n\
             *--global) cat {captures}/gim-amd-smi-partition-global.mi300x.txt ;;\n\
             *) echo 'SMI-LIB has returned error -1002 - AMDSMI_STATUS_BUSY'; exit 22 ;;\nesac"
            ),
        );
        write(
            root,
            &format!("sys/bus/pci/devices/{CARD}/sriov_numvfs"),
            "1\n",
        );
        write(
            root,
            &format!("sys/bus/pci/devices/{CARD}/virtfn0/vendor"),
            "0x1002\n",
        );
        says(shell, root, &format!("gim_modes {CARD}"), 0, "1 SPX NPS1\n");
        says(shell, root, &format!("gim_is {CARD} 1 SPX NPS1"), 0, "");
        says(
            shell,
            root,
            &format!("gim_is {CARD} 8 - -"),
            1,
            "has 1 virtual functions, expected 8",
        );
        says(
            shell,
            root,
            &format!("gim_is {CARD} 1 CPX -"),
            1,
            "the compute mode is SPX, expected CPX",
        );
        says(
            shell,
            root,
            &format!("gim_save {CARD} $R/saved && cat $R/saved"),
            0,
            "1 0 SPX NPS1\n",
        );
        says(shell, root, &format!("gim_restore {CARD} $R/saved"), 0, "");
        says(
            shell,
            root,
            &format!("boot_gim {CARD} 1 - 0 SPX NPS1"),
            0,
            "",
        );
        says(
            shell,
            root,
            &format!("gim_set {CARD} 8 3 CPX NPS4"),
            1,
            "AMDSMI_STATUS_BUSY",
        );
        let rocm = format!("cat {captures}/amd-smi-version.rocm6.4.txt");
        tool(root, "amd-smi", &rocm);
        says(
            shell,
            root,
            &format!("gim_modes {CARD}"),
            1,
            "is not the one of gim",
        );
    }
}
