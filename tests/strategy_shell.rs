//! The shell functions that slice a host, on every shell that a host may have.
//!
//! A stand-in for `nvidia-smi` (`fixtures/strategy/nvidia-smi`) keeps the state of one
//! card; parsers are held against the captures of real drivers.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// `tests/run` installs them.
const SHELLS: [&[&str]; 4] = [
    &["dash"],
    &["bash", "--posix"],
    &["busybox", "sh"],
    &["mksh"],
];

/// A card and a root folder for one shell.
struct Host {
    folder: tempfile::TempDir,
    shell: &'static [&'static str],
}

impl Host {
    fn new(shell: &'static [&'static str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let host = Self { folder, shell };
        fs::create_dir_all(host.path("bin")).expect("bin");
        fs::create_dir_all(host.path("fake")).expect("fake");
        fs::create_dir_all(host.path("root/proc")).expect("proc");
        let tool = host.path("bin/nvidia-smi");
        fs::copy("tests/fixtures/strategy/nvidia-smi", &tool).expect("the stand-in");
        fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).expect("executable");
        for (name, text) in [
            ("mode", "Enabled Enabled\n"),
            ("gis", ""),
            ("cis", ""),
            ("timeslice", "Default\n"),
        ] {
            host.set(name, text);
        }
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn set(&self, name: &str, text: &str) {
        fs::write(self.path("fake").join(name), text).expect("a file of the stand-in");
    }

    fn get(&self, name: &str) -> String {
        fs::read_to_string(self.path("fake").join(name)).unwrap_or_default()
    }

    fn unset(&self, name: &str) {
        fs::remove_file(self.path("fake").join(name)).expect("a knob that was set");
    }

    /// Runs calls of the library's functions.
    fn run(&self, calls: &str) -> Output {
        let text = format!("{}\n{calls}\n", deploy::strategy::host_library());
        let script = self.path("script");
        fs::write(&script, text).expect("the script");
        self.command(&script)
            .output()
            .expect("the shell starts; tests/run installs all of them")
    }

    fn command(&self, script: &Path) -> Command {
        let path = std::env::var("PATH").expect("a PATH");
        let mut command = Command::new(self.shell[0]);
        command
            .args(&self.shell[1..])
            .arg(script)
            .env("PATH", format!("{}:{path}", self.path("bin").display()))
            .env("FAKE", self.path("fake"))
            .env("R", self.path("root"))
            .current_dir(self.folder.path());
        command
    }

    fn ok(&self, calls: &str) -> String {
        let output = self.run(calls);
        assert!(
            output.status.success(),
            "{:?} {calls}: {}",
            self.shell,
            said(&output)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn fails(&self, calls: &str) -> String {
        let output = self.run(calls);
        assert!(
            !output.status.success(),
            "{:?} {calls} succeeded: {}",
            self.shell,
            said(&output)
        );
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn on_every_shell(test: impl Fn(&Host)) {
    for shell in SHELLS {
        test(&Host::new(shell));
    }
}

const BALANCED: &str = "9:4:4/full 14:2:2/full 19:1:1/full 19:0:1/full";

#[test]
fn a_layout_is_made_kept_and_made_again_with_the_same_ids() {
    on_every_shell(|host| {
        host.ok(&format!("mig_ensure GPU-1 {BALANCED}"));
        host.ok(&format!("mig_is GPU-1 {BALANCED}"));
        let first = host.get("gis");
        assert_eq!(first.lines().count(), 4, "{first}");
        // Nothing is called that changes anything the second time.
        host.set("log", "");
        host.ok(&format!("mig_ensure GPU-1 {BALANCED}"));
        let log = host.get("log");
        assert!(
            !log.contains("-cgi") && !log.contains("-d") && !log.contains("-cci"),
            "{log}"
        );
        // After a reboot the instances are gone; the same words bring the same ids.
        host.set("gis", "");
        host.set("cis", "");
        host.ok(&format!("mig_ensure GPU-1 {BALANCED}"));
        assert_eq!(host.get("gis"), first);
    });
}

#[test]
fn instances_that_stay_are_not_destroyed() {
    on_every_shell(|host| {
        host.ok(&format!("mig_ensure GPU-1 {BALANCED}"));
        host.set("log", "");
        host.ok("mig_ensure GPU-1 9:4:4/full 9:0:4/full");
        let log = host.get("log");
        let destroyed: Vec<&str> = log.lines().filter(|line| line.ends_with("-dgi")).collect();
        assert_eq!(destroyed.len(), 3, "{log}");
        assert!(log.contains("-cgi 9:0 -C"), "{log}");
        assert!(
            host.get("gis").starts_with("2 9 4 4"),
            "the first 3g stays as it was"
        );
        host.ok("mig_ensure GPU-1");
        assert_eq!(host.get("gis") + &host.get("cis"), "");
    });
}

#[test]
fn gpu_instances_are_split_into_compute_instances_and_joined_again() {
    on_every_shell(|host| {
        host.ok("mig_ensure GPU-1 9:4:4/1c,1c,1c 9:0:4/1c,1c,1c");
        assert_eq!(host.get("cis").lines().count(), 6);
        assert!(
            host.get("cis")
                .lines()
                .all(|line| line.ends_with("0 1c.3g.40gb"))
        );
        let gis = host.get("gis");
        host.ok("mig_ensure GPU-1 9:4:4/full 9:0:4/1c,1c,1c");
        assert_eq!(host.get("gis"), gis, "GPU instances stay");
        assert_eq!(host.get("cis").lines().count(), 4);
        let said = host.fails("mig_ensure GPU-1 9:4:4/5c 9:0:4/full");
        assert!(said.contains("offers no compute instances 5c"), "{said}");
    });
}

#[test]
fn a_saved_layout_is_restored_from_wherever_a_change_stopped() {
    on_every_shell(|host| {
        host.ok("mig_ensure GPU-1 9:4:4/full 19:1:1/full 14:2:2/1c,1c; mig_save GPU-1 saved");
        let before = host.ok("mig_layout GPU-1");
        assert_eq!(before, "9:4:4/full\n14:2:2/1c,1c\n19:1:1/full\n");
        // Two of four can be created, then the driver refuses.
        host.set("fail-create", "3");
        let said = host
            .fails("mig_ensure GPU-1 9:4:4/full 19:3:1/full 19:2:1/full 19:1:1/full 19:0:1/full");
        assert!(said.contains("Insufficient Resources"), "{said}");
        assert_ne!(host.ok("mig_layout GPU-1"), before);
        host.unset("fail-create");
        host.ok("mig_restore GPU-1 saved && mig_restore GPU-1 saved");
        assert_eq!(host.ok("mig_layout GPU-1"), before);
        let said = host.fails("mig_restore GPU-1 nowhere");
        assert!(said.contains("no saved layout"), "{said}");
    });
}

#[test]
fn a_restored_layout_has_the_ids_it_had_whatever_the_order_it_was_made_in() {
    on_every_shell(|host| {
        // The stand-in gives the first ids 13, 11, 12 to whatever comes first.
        host.ok("mig_ensure GPU-1 19:3:1/full 19:0:1/full 19:2:1/full 14:4:2/1c,1c");
        host.ok("mig_save GPU-1 saved");
        let before = host.ok("mig_rows GPU-1");
        assert!(before.contains("13 19:3:1/full"), "{before}");
        // A loss of power takes the instances and, since Hopper, the mode.
        for mode in ["Disabled Disabled\n", "Enabled Enabled\n"] {
            host.set("gis", "");
            host.set("cis", "");
            host.set("mode", mode);
            host.ok("mig_restore GPU-1 saved && mig_restore GPU-1 saved");
            assert_eq!(host.ok("mig_rows GPU-1"), before);
        }
        // What was not touched stays, with whoever uses it.
        host.ok("mig_ensure GPU-1 19:0:1/full 14:4:2/1c,1c 14:2:2/full");
        host.set("log", "");
        host.ok("mig_restore GPU-1 saved");
        assert_eq!(host.ok("mig_rows GPU-1"), before);
        let log = host.get("log");
        assert!(!log.contains("-gi 11 -dgi"), "{log}");
    });
}

#[test]
fn what_only_a_reboot_undoes_is_said() {
    on_every_shell(|host| {
        // A change that only a reboot puts in force.
        host.set("mode", "Disabled Disabled\n");
        host.set("in-use", "");
        host.ok("mig_mode_prepare GPU-1 1 && mig_mode_prepare GPU-1 1");
        host.ok("mig_mode_pends GPU-1 Enabled");
        assert_eq!(host.get("mode"), "Disabled Enabled\n");
        // Before the reboot nothing is left of it.
        host.ok("mig_mode_back GPU-1 0 && mig_mode_back GPU-1 0");
        assert_eq!(host.get("mode"), "Disabled Disabled\n");
        // After it the mode is put back, and another reboot is owed.
        host.set("mode", "Enabled Enabled\n");
        for _ in 0..2 {
            let said = host.fails("mig_mode_back GPU-1 0");
            assert!(
                said.contains("MIG mode is still Enabled")
                    && said.contains("becomes Disabled at the next reboot: restart the host"),
                "{said}"
            );
            assert_eq!(host.get("mode"), "Enabled Disabled\n");
        }
        host.set("mode", "Disabled Disabled\n");
        host.ok("mig_mode_back GPU-1 0");
        // Instances cannot be made while the mode is off and cannot be had.
        host.set("mode", "Enabled Enabled\n");
        host.unset("in-use");
        host.ok("mig_ensure GPU-1 9:4:4/full; mig_save GPU-1 saved");
        host.set("gis", "");
        host.set("cis", "");
        host.set("in-use", "");
        host.set("mode", "Disabled Disabled\n");
        let said = host.fails("mig_restore GPU-1 saved");
        assert!(
            said.contains("cannot be made again while MIG mode is off: 9:4:4/full"),
            "{said}"
        );
        // A change that waited before the run and does not any more is no failure of an undo.
        host.set("mode", "Disabled Disabled\n");
        host.fails("mig_mode_is GPU-1 Disabled Enabled");
        host.ok(
            "DEPLOY_AFTER_UNDO=1; export DEPLOY_AFTER_UNDO; mig_mode_is GPU-1 Disabled Enabled",
        );
    });
}

#[test]
fn success_without_effect_is_a_failure() {
    on_every_shell(|host| {
        host.set("no-effect", "");
        let said = host.fails("mig_ensure GPU-1 9:4:4/full");
        assert!(
            said.contains("the MIG layout is [], expected [9:4:4/full]"),
            "{said}"
        );
        host.set("mode", "Disabled Disabled\n");
        let said = host.fails("mig_mode GPU-1 1");
        assert!(
            said.contains("MIG mode is Disabled") && said.contains("Not Supported"),
            "{said}"
        );
    });
}

#[test]
fn a_driver_that_refuses_is_passed_on_in_its_own_words() {
    on_every_shell(|host| {
        host.ok("mig_ensure GPU-1 9:4:4/full");
        host.set("in-use", "");
        let said = host.fails("mig_ensure GPU-1");
        assert!(said.contains("In use by another client"), "{said}");
    });
}

#[test]
fn modes_change_at_once_by_reset_or_not_at_all() {
    on_every_shell(|host| {
        host.set("mode", "Disabled Disabled\n");
        host.ok("mig_mode GPU-1 1");
        host.ok("mig_mode_is GPU-1 Enabled Enabled");
        host.set("log", "");
        host.ok("mig_mode GPU-1 1 reset");
        assert!(!host.get("log").contains("-mig") && !host.get("log").contains("reset"));

        // Ampere with a client: pending, then put in force by a reset.
        host.set("mode", "Disabled Disabled\n");
        host.set("in-use", "");
        let said = host.fails("mig_mode GPU-1 1");
        assert!(
            said.contains("MIG mode is Disabled (after a reset Enabled), expected Enabled"),
            "{said}"
        );
        host.ok("mig_mode GPU-1 1 reset");
        assert_eq!(host.get("mode"), "Enabled Enabled\n");

        // A reset that is refused is told; the pending mode can be taken back.
        host.set("mode", "Disabled Disabled\n");
        host.set("in-use-reset", "");
        let said = host.fails("mig_mode GPU-1 1 reset");
        assert!(said.contains("could not be reset"), "{said}");
        assert_eq!(host.get("mode"), "Disabled Enabled\n");
        host.unset("in-use");
        host.ok("mig_mode GPU-1 0");
        assert_eq!(host.get("mode"), "Disabled Disabled\n");
        // With the mode off there is nothing, which is not an error.
        host.ok("mig_is GPU-1 && mig_ensure GPU-1");
    });
}

#[test]
fn time_slices_are_set_and_read_back() {
    on_every_shell(|host| {
        host.ok(
            "timeslice_is GPU-1 Default && timeslice_set GPU-1 Long && timeslice_is GPU-1 Long",
        );
        assert_eq!(host.get("timeslice"), "Long\n");
        let said = host.fails("timeslice_is GPU-1 Short");
        assert!(
            said.contains("the time slice is Long, expected Short"),
            "{said}"
        );
    });
}

/// A process with an open file descriptor, as /proc shows it.
fn process(host: &Host, pid: u32, name: &str, open: &str, cgroup: &str) {
    let folder = host.path("root/proc").join(pid.to_string());
    fs::create_dir_all(folder.join("fd")).expect("a process");
    fs::write(folder.join("comm"), format!("{name}\n")).expect("its name");
    fs::write(folder.join("cgroup"), cgroup).expect("its control group");
    symlink("/dev/null", folder.join("fd/0")).expect("standard input");
    symlink(open, folder.join("fd/7")).expect("an open file");
}

#[test]
fn nobody_is_not_said_of_a_card_whose_node_is_not_known() {
    on_every_shell(|host| {
        let device = host.path("root/sys/bus/pci/devices/0000:17:00.0");
        fs::create_dir_all(&device).expect("a device");
        fs::create_dir_all(host.path("root/proc")).expect("processes");
        // Without a driver nobody can use it.
        host.ok("gpu_idle 0000:17:00.0");
        symlink("../../drivers/nvidia", device.join("driver")).expect("a driver");
        let said = host.fails("gpu_idle 0000:17:00.0");
        assert!(said.contains("cannot be told"), "{said}");
    });
}

#[test]
fn who_uses_a_card_is_named_and_others_are_not() {
    on_every_shell(|host| {
        let card = host.path("root/proc/driver/nvidia/gpus/0000:17:00.0");
        fs::create_dir_all(&card).expect("the driver's folder");
        fs::write(
            card.join("information"),
            "Model: \t\t NVIDIA H100\nDevice Minor: \t 3\n",
        )
        .expect("information");
        host.ok("gpu_idle 0000:17:00.0");
        process(
            host,
            41,
            "nvidia-persiste",
            "/dev/nvidia3",
            "0::/system.slice/nvidia-persistenced.service\n",
        );
        process(host, 42, "python3", "/dev/nvidia30", "0::/user.slice\n");
        host.ok("gpu_idle 0000:17:00.0");
        let id = "a".repeat(64);
        process(
            host,
            43,
            "train me",
            "/dev/nvidia3",
            &format!("0::/system.slice/docker-{id}.scope\n"),
        );
        process(
            host,
            44,
            "dcgm",
            "/dev/nvidia3",
            "0::/system.slice/nvidia-dcgm.service\n",
        );
        let said = host.fails("gpu_idle 0000:17:00.0");
        // Whether all is as before an undo does not depend on who came since.
        host.ok("DEPLOY_AFTER_UNDO=1; gpu_idle 0000:17:00.0");
        assert!(
            said.contains(&format!("pid 43 (train me, container {id})")),
            "{said}"
        );
        assert!(
            said.contains("pid 44 (dcgm, unit nvidia-dcgm.service)"),
            "{said}"
        );
        assert!(
            !said.contains("pid 41") && !said.contains("pid 42"),
            "{said}"
        );
        // One single process: then ls names no folder by itself.
        for pid in ["41", "42", "43"] {
            fs::remove_dir_all(host.path("root/proc").join(pid)).expect("it ends");
        }
        assert_eq!(host.ok("gpu_holders 0000:17:00.0"), "44\n");
    });
}

/// A physical function with a `tee` that behaves as the kernel does.
fn physical_function(host: &Host, count: u32) {
    let device = host.path("root/sys/bus/pci/devices/0000:03:00.0");
    fs::create_dir_all(&device).expect("a device");
    for (name, text) in [
        ("sriov_numvfs", count),
        ("sriov_totalvfs", 7),
        ("sriov_drivers_autoprobe", 1),
    ] {
        fs::write(device.join(name), format!("{text}\n")).expect("an attribute");
    }
    for n in 0..count {
        symlink(
            format!("../0000:03:00.{}", n + 1),
            device.join(format!("virtfn{n}")),
        )
        .expect("a function");
    }
    symlink("../../drivers/xe", device.join("driver")).expect("its driver");
    let tee = host.path("bin/tee");
    let text = "#!/bin/sh\n\
        value=$(cat)\n\
        case $1 in\n\
        */sriov_numvfs)\n\
            dir=${1%/*}; old=$(cat \"$1\")\n\
            [ \"$value\" != \"$old\" ] || exit 0\n\
            if [ \"$value\" -gt 7 ]; then echo 'tee: Numerical result out of range' >&2; exit 1; fi\n\
            if [ \"$value\" != 0 ] && [ \"$old\" != 0 ]; then echo 'tee: Device or resource busy' >&2; exit 1; fi\n\
            rm -f \"$dir\"/virtfn*\n\
            n=0; while [ $n -lt \"$value\" ]; do ln -s ../0000:03:00.$((n + 1)) \"$dir/virtfn$n\"; n=$((n + 1)); done ;;\n\
        esac\n\
        echo \"$value\" >\"$1\"; echo \"${1##*/}=$value\" >>\"$FAKE/writes\"\n";
    fs::write(&tee, text).expect("tee");
    fs::set_permissions(&tee, fs::Permissions::from_mode(0o755)).expect("executable");
}

#[test]
fn virtual_functions_change_in_the_order_that_the_kernel_takes() {
    on_every_shell(|host| {
        physical_function(host, 2);
        host.ok("sriov_is 0000:03:00.0 2 - && sriov_set 0000:03:00.0 4 0");
        assert_eq!(
            host.get("writes"),
            "sriov_numvfs=0\nsriov_drivers_autoprobe=0\nsriov_numvfs=4\n"
        );
        host.ok("sriov_is 0000:03:00.0 4 0 && sriov_has 0000:03:00.0 0000:03:00.4 0000:03:00.1");
        let said = host.fails("sriov_has 0000:03:00.0 0000:03:00.7");
        assert!(said.contains("is none of its virtual functions"), "{said}");
        host.set("writes", "");
        host.ok("sriov_set 0000:03:00.0 4 0");
        assert_eq!(host.get("writes"), "", "what is so is not written");
        let said = host.fails("sriov_set 0000:03:00.0 9 -");
        assert!(said.contains("out of range"), "{said}");
        host.ok("sriov_set 0000:03:00.0 2 1 && sriov_is 0000:03:00.0 2 1");
    });
}

#[test]
fn virtual_functions_wait_for_the_driver_that_makes_them() {
    on_every_shell(|host| {
        physical_function(host, 0);
        let driver = host.path("root/sys/bus/pci/devices/0000:03:00.0/driver");
        fs::remove_file(&driver).expect("there is one");
        let udevadm = |does: &str| {
            let path = host.path("bin/udevadm");
            fs::write(&path, format!("#!/bin/sh\n{does}\n")).expect("a program");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a mode");
        };
        udevadm("exit 0");
        let said = host.fails("sriov_set 0000:03:00.0 2 -");
        assert!(said.contains("no kernel driver is bound to it"), "{said}");
        assert_eq!(host.get("writes"), "");
        // At boot udev has not come to the card yet.
        udevadm("[ \"$1\" = settle ] && ln -s ../../drivers/xe \"${3#--exit-if-exists=}\"");
        host.ok("boot_sriov 0000:03:00.0 2 - && sriov_is 0000:03:00.0 2 1");
    });
}

/// Virtual functions that drivers can be bound to: `tee` does what the kernel would.
fn bound_functions(host: &Host, drivers: &[&str]) {
    physical_function(host, u32::try_from(drivers.len()).expect("few"));
    let bus = host.path("root/sys/bus/pci");
    for driver in ["xe", "vfio-pci"] {
        fs::create_dir_all(bus.join("drivers").join(driver)).expect("a driver");
    }
    for (n, driver) in drivers.iter().enumerate() {
        let device = bus.join(format!("devices/0000:03:00.{}", n + 1));
        fs::create_dir_all(&device).expect("a function");
        symlink(format!("../../drivers/{driver}"), device.join("driver")).expect("its driver");
        fs::write(device.join("driver_override"), "(null)\n").expect("an attribute");
    }
    let tee = host.path("bin/tee");
    let kernel = fs::read_to_string(&tee).expect("the kernel so far");
    let binding = kernel.replace(
        "case $1 in\n",
        "case $1 in\n\
        */driver/unbind) rm \"${1%/unbind}\"; exit 0 ;;\n\
        */bind)\n\
            device=${1%/drivers/*}/devices/$value; driver=${1%/bind}; driver=${driver##*/}\n\
            [ ! -e \"$FAKE/no-bind\" ] || { echo 'tee: No such device' >&2; exit 1; }\n\
            ln -s ../../drivers/$driver \"$device/driver\"; exit 0 ;;\n\
        */driver_override) echo \"${value:-(null)}\" >\"$1\"; exit 0 ;;\n",
    );
    fs::write(&tee, binding).expect("tee");
}

#[test]
fn functions_come_back_with_the_drivers_that_they_had() {
    on_every_shell(|host| {
        bound_functions(host, &["xe", "xe", "xe"]);
        let devices = host.path("root/sys/bus/pci/devices");
        let driver = |n: usize| devices.join(format!("0000:03:00.{n}/driver"));
        let rebind = |n: usize, to: &str| {
            let _ = fs::remove_file(driver(n));
            if !to.is_empty() {
                symlink(format!("../../drivers/{to}"), driver(n)).expect("its driver");
            }
        };
        // Before: one was handed to a virtual machine, one has no driver at all.
        rebind(2, "vfio-pci");
        fs::write(devices.join("0000:03:00.2/driver_override"), "vfio-pci\n").expect("by hand");
        rebind(3, "");
        host.ok("sriov_save 0000:03:00.0 saved");
        // All were made anew, and the kernel gave each its own driver.
        host.ok("sriov_set 0000:03:00.0 0 -");
        for n in [1, 2, 3] {
            rebind(n, "xe");
            fs::write(
                devices.join(format!("0000:03:00.{n}/driver_override")),
                "(null)\n",
            )
            .expect("new");
        }
        host.ok("sriov_restore 0000:03:00.0 saved && sriov_restore 0000:03:00.0 saved");
        host.ok("sriov_is 0000:03:00.0 3 1");
        let bound = |n| fs::read_link(driver(n)).ok();
        assert_eq!(bound(1), Some(PathBuf::from("../../drivers/xe")));
        assert_eq!(bound(2), Some(PathBuf::from("../../drivers/vfio-pci")));
        assert_eq!(bound(3), None);
        let by_hand = fs::read_to_string(devices.join("0000:03:00.2/driver_override"));
        assert_eq!(by_hand.expect("an attribute"), "vfio-pci\n");
        // One that cannot be bound is told, and the others are done all the same.
        rebind(1, "vfio-pci");
        rebind(3, "xe");
        host.set("no-bind", "");
        let said = host.fails("sriov_restore 0000:03:00.0 saved");
        assert!(said.contains("No such device"), "{said}");
        assert_eq!(bound(3), None);
        let said = host.fails("sriov_restore 0000:03:00.0 nowhere");
        assert!(said.contains("no saved number"), "{said}");
    });
}

#[test]
fn virtual_functions_in_use_stay() {
    on_every_shell(|host| {
        physical_function(host, 2);
        let vf = host.path("root/sys/bus/pci/devices/0000:03:00.2");
        fs::create_dir_all(&vf).expect("a function");
        symlink("../../../../kernel/iommu_groups/31", vf.join("iommu_group")).expect("its group");
        symlink("../../../../bus/pci/drivers/vfio-pci", vf.join("driver")).expect("its driver");
        host.ok("sriov_unused 0000:03:00.0");
        process(
            host,
            77,
            "qemu-system-x86",
            "/dev/vfio/31",
            "0::/machine.slice\n",
        );
        let said = host.fails("sriov_set 0000:03:00.0 4 -");
        assert!(
            said.contains("GPU 0000:03:00.2 is in use by pid 77"),
            "{said}"
        );
        assert_eq!(host.get("writes"), "");
    });
}

/// The boot script as a host would have it, its library included.
/// Files as the out-of-tree i915 shows them of a card with as many units, before any share is
/// given; they take whatever is written.
fn shares_of_i915(host: &Host, units: &[&str]) {
    let iov = host.path("root/sys/bus/pci/devices/0000:03:00.0/drm/card1/iov");
    let file = |name: String, text: &str| {
        let path = iov.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("a file");
    };
    file("pf/auto_provisioning".to_owned(), "1\n");
    for unit in units {
        for (name, free) in [
            ("ggtt", "4026531840\n"),
            ("doorbells", "240\n"),
            ("contexts", "64512\n"),
        ] {
            file(format!("pf/{unit}/available/{name}_free"), free);
        }
        for function in 1..=4 {
            for name in [
                "lmem_quota",
                "ggtt_quota",
                "contexts_quota",
                "doorbells_quota",
                "exec_quantum_ms",
                "preempt_timeout_us",
            ] {
                file(format!("vf{function}/{unit}/{name}"), "0\n");
            }
        }
    }
}

#[test]
fn shares_of_functions_are_given_read_back_and_cleared() {
    on_every_shell(|host| {
        shares_of_i915(host, &["gt"]);
        let card = "0000:03:00.0";
        host.ok(&format!(
            "intel_give {card} 2 4096 16 - - && intel_given {card} 2 4096 16 - -"
        ));
        let told = host.ok(&format!("intel_shares_text {card}"));
        assert!(
            told.contains("share vf1/gt/lmem_quota 4294967296\n"),
            "{told}"
        );
        assert!(
            told.contains("share vf1/gt/contexts_quota 1024\n"),
            "{told}"
        );
        assert!(told.contains("share vf2/gt/exec_quantum_ms 16\n"), "{told}");
        assert!(!told.contains("vf3"), "{told}");
        host.ok(&format!(
            "intel_shares_are {card} 1:4294967296:16:0:- 3:0:0:0:-"
        ));
        let said = host.fails(&format!("intel_shares_are {card} 2:1:16:0:-"));
        assert!(
            said.contains("virtual function 2 has 4294967296:16:0:-, expected 1:16:0:-"),
            "{said}"
        );
        let said = host.fails(&format!("intel_given {card} 3 4096 - - -"));
        assert!(
            said.contains("virtual function 3 has 0 bytes of memory"),
            "{said}"
        );
        let said = host.fails(&format!("intel_given {card} 2 - 20 - -"));
        assert!(said.contains("has a turn of 16, expected 20"), "{said}");
        host.ok(&format!("intel_clear {card}"));
        assert_eq!(
            host.ok(&format!("intel_shares_text {card}")),
            "auto 1\npf -\npriority -\n"
        );
        let said = host.fails("intel_give 0000:09:00.0 2 4096 - - -");
        assert!(said.contains("takes no shares"), "{said}");
    });
}

#[test]
fn a_function_lies_on_one_tile_and_a_single_one_on_all() {
    on_every_shell(|host| {
        shares_of_i915(host, &["gt0", "gt1"]);
        let card = "0000:03:00.0";
        host.ok(&format!("intel_give {card} 4 64 - - -"));
        let told = host.ok(&format!("intel_shares_text {card} | grep lmem"));
        assert_eq!(
            told,
            "share vf1/gt1/lmem_quota 67108864\nshare vf2/gt0/lmem_quota 67108864\n\
             share vf3/gt1/lmem_quota 67108864\nshare vf4/gt0/lmem_quota 67108864\n"
        );
        host.ok(&format!(
            "intel_clear {card} && intel_give {card} 1 64 - - -"
        ));
        let told = host.ok(&format!("intel_shares_text {card} | grep lmem"));
        assert_eq!(
            told,
            "share vf1/gt0/lmem_quota 33554432\nshare vf1/gt1/lmem_quota 33554432\n"
        );
        host.ok(&format!("intel_given {card} 1 64 - - -"));
    });
}

#[test]
fn engines_are_set_on_every_tile_and_none_is_no_success() {
    on_every_shell(|host| {
        let card = host.path("root/sys/bus/pci/devices/0000:03:00.0");
        for tile in ["tile0", "tile1"] {
            fs::create_dir_all(card.join(tile).join("gt0")).expect("a folder");
            fs::write(card.join(tile).join("gt0/ccs_mode"), "1\n").expect("a file");
            fs::write(card.join(tile).join("gt0/num_cslices"), "4\n").expect("a file");
        }
        host.ok("ccs_is 0000:03:00.0 1 1 && ccs_set 0000:03:00.0 4 2 && ccs_is 0000:03:00.0 4 2");
        let said = host.fails("ccs_is 0000:03:00.0 4 4");
        assert!(
            said.contains("tile1/gt0 has 2 compute engines, expected 4"),
            "{said}"
        );
        host.ok("ccs_set 0000:03:00.0 1 && ccs_is 0000:03:00.0 1 1");
        let said = host.fails("ccs_set 0000:09:00.0 4");
        assert!(said.contains("shows no compute engines"), "{said}");
    });
}

fn boot_script(host: &Host) -> Output {
    let template = fs::read_to_string("templates/gpu_slices.sh.j2").expect("the template");
    let (_, text) = template.split_once("-#}\n").expect("a comment at the head");
    let text = text
        .replace(
            "{{ gpu_slices.library }}",
            &deploy::strategy::boot_library(),
        )
        .replace(
            "{{ gpu_slices.boot_files | join(' ') }}",
            "mig.conf time_slicing.conf sriov.conf",
        );
    assert!(!text.contains("{{") && !text.contains("{%"), "{text}");
    let script = host.path("boot");
    fs::write(&script, text).expect("the script");
    host.command(&script).output().expect("the shell starts")
}

#[test]
fn the_boot_script_brings_back_what_its_files_say() {
    on_every_shell(|host| {
        let folder = host.path("root/etc/deploy/gpu");
        fs::create_dir_all(&folder).expect("its folder");
        let output = boot_script(host);
        assert!(
            output.status.success(),
            "without files there is nothing to do: {}",
            said(&output)
        );
        physical_function(host, 0);
        host.set("mode", "Disabled Disabled\n");
        let write = |name: &str, text: &str| fs::write(folder.join(name), text).expect("a file");
        write(
            "mig.conf",
            &format!("# a comment\n\n# H100\nmig GPU-1 {BALANCED}\n"),
        );
        write("time_slicing.conf", "timeslice GPU-1 Medium");
        write("sriov.conf", "sriov 0000:03:00.0 3 0\n");
        let output = boot_script(host);
        assert!(
            output.status.success(),
            "{:?}: {}",
            host.shell,
            said(&output)
        );
        host.ok(&format!(
            "mig_mode_is GPU-1 Enabled Enabled && mig_is GPU-1 {BALANCED}"
        ));
        host.ok("timeslice_is GPU-1 Medium && sriov_is 0000:03:00.0 3 0");
        // Again it changes nothing.
        host.set("log", "");
        let (gis, writes) = (host.get("gis"), host.get("writes"));
        assert!(boot_script(host).status.success());
        assert_eq!((host.get("gis"), host.get("writes")), (gis, writes));
        assert!(!host.get("log").contains("-cgi"), "{}", host.get("log"));
        // One card that fails leaves the others alone, and is told.
        write("mig.conf", "what is this\nmig GPU-1 9:4:4/full\n");
        let output = boot_script(host);
        assert!(!output.status.success());
        assert!(
            said(&output).contains("mig.conf: unknown line: what is this"),
            "{}",
            said(&output)
        );
        host.ok("mig_is GPU-1 9:4:4/full");
    });
}

#[test]
fn the_persistence_daemon_steps_aside_for_a_reset() {
    on_every_shell(|host| {
        let tool = host.path("bin/systemctl");
        let text = "#!/bin/sh\necho \"$*\" >>\"$FAKE/units\"\n";
        fs::write(&tool, text).expect("systemctl");
        fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).expect("executable");
        for refused in [false, true] {
            host.set("mode", "Disabled Enabled\n");
            host.set("units", "");
            if refused {
                host.set("in-use-reset", "");
                host.fails("mig_mode GPU-1 1 reset");
            } else {
                host.ok("mig_mode GPU-1 1 reset");
            }
            let units = host.get("units");
            let changes = |call: &&str| !call.starts_with("is-");
            let calls: Vec<&str> = units.lines().filter(changes).collect();
            assert_eq!(
                calls,
                [
                    "stop nvidia-persistenced.service",
                    "start nvidia-persistenced.service"
                ]
            );
        }
    });
}

#[test]
fn a_daemon_that_a_killed_reset_left_stopped_is_started_by_the_undo() {
    on_every_shell(|host| {
        let tool = host.path("bin/systemctl");
        let text = "#!/bin/sh\ncase $1 in\n\
            is-active) [ -e \"$FAKE/daemon\" ] ;;\n\
            start) echo start >>\"$FAKE/units\"; : >\"$FAKE/daemon\" ;;\n\
            stop) rm \"$FAKE/daemon\" ;;\nesac\n";
        fs::write(&tool, text).expect("systemctl");
        fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).expect("executable");
        host.set("units", "");
        host.set("daemon", "");
        host.ok("mig_daemon_save saved");
        // Killed between stop and start.
        host.unset("daemon");
        host.ok("mig_daemon_restore saved && mig_daemon_restore saved");
        assert_eq!(host.get("units"), "start\n");
        // One that did not run is left alone, and so is a host without systemctl.
        host.unset("daemon");
        host.ok("mig_daemon_save saved && mig_daemon_restore saved");
        fs::remove_file(&tool).expect("ours");
        host.ok("PATH=/nowhere mig_daemon_save saved; mig_daemon_restore saved");
        assert_eq!(host.get("units"), "start\n");
    });
}

/// The outputs in a capture of the commands that have `words`, by the prompt lines between them.
fn blocks(text: &str, words: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        let command = line.starts_with("$ ") || line.starts_with("sudo ");
        if command {
            inside = line.contains(words);
            if inside {
                found.push(String::new());
            }
        } else if inside && let Some(block) = found.last_mut() {
            block.push_str(line);
            block.push('\n');
        }
    }
    found
}

fn replay(host: &Host, output: &str, status: i32) {
    host.set("replay", output);
    let tool = host.path("bin/nvidia-smi");
    let text = format!("#!/bin/sh\ncat \"$FAKE/replay\"\nexit {status}\n");
    fs::write(&tool, text).expect("the replay");
}

fn capture(name: &str) -> String {
    fs::read_to_string(format!("tests/fixtures/captures/nvidia/{name}")).expect("a capture")
}

#[test]
fn listings_of_all_driver_widths_are_read() {
    let expected: [(&str, &[&str]); 5] = [
        (
            "a100-40gb-sxm4_mig-guide_cgi-geometries.txt",
            &[
                "1@9:4:4 2@9:0:4",
                "7@19:0:1 8@19:1:1 4@14:2:2 2@9:4:4",
                "7@19:0:1 8@19:1:1 9@19:2:1 10@19:3:1 13@19:6:1 5@14:4:2",
            ],
        ),
        (
            "a100-80gb-pcie_515.86.01_mig-session.txt",
            &["1@9:4:4 2@9:0:4"],
        ),
        (
            "a30-24gb_535.183.01_mig-session-create.txt",
            &["", "3@14:0:1", "3@14:0:1 4@14:1:1 2@5:2:2"],
        ),
        (
            "rtx-pro-6000-blackwell-se_mig-cgi-mixed_lgi.txt",
            &["5@14:6:3 6@14:9:3 1@5:0:6"],
        ),
        (
            "rtx-pro-6000-blackwell-se_mig-session.txt",
            &["3@14:0:3 4@14:3:3 5@14:6:3 6@14:9:3"],
        ),
    ];
    on_every_shell(|host| {
        for (name, layouts) in expected {
            let blocks = blocks(&capture(name), "-lgi");
            assert_eq!(blocks.len(), layouts.len(), "{name}");
            for (block, layout) in blocks.iter().zip(layouts) {
                replay(host, block, 0);
                let words: Vec<String> = host
                    .ok("mig_gis GPU-1")
                    .split_whitespace()
                    .map(str::to_owned)
                    .collect();
                assert_eq!(words.join(" "), *layout, "{name}");
            }
        }
        for (name, words) in [
            (
                "rtx-pro-6000-blackwell-se_mig-session.txt",
                "3:0:full 4:0:full 5:0:full 6:0:full",
            ),
            ("a100-80gb-pcie_515.86.01_mig-session.txt", "1:0:1c 1:1:1c"),
            (
                "a100-40gb-sxm4_mig-guide_cci-lci-dci.txt",
                "1:0:1c 1:1:1c 1:2:1c",
            ),
        ] {
            let text = capture(name);
            replay(host, &blocks_of_lci(&text), 0);
            let found = host.ok("mig_cis GPU-1");
            assert_eq!(
                found.split_whitespace().collect::<Vec<_>>().join(" "),
                words,
                "{name}"
            );
        }
    });
}

/// The only listing of compute instances in a capture (`-lcip` begins with the same letters).
fn blocks_of_lci(text: &str) -> String {
    let text: String = text
        .lines()
        .map(|line| {
            if line.contains("-lcip") {
                "$ other\n".to_owned()
            } else {
                format!("{line}\n")
            }
        })
        .collect();
    let found = blocks(&text, "-lci");
    assert_eq!(found.len(), 1);
    found.concat()
}

#[test]
fn a_listing_that_failed_is_not_an_empty_one() {
    on_every_shell(|host| {
        for name in [
            "err_insufficient-permissions_lgi.txt",
            "err_insufficient-permissions_lci.txt",
        ] {
            let text = capture(name);
            let text = text
                .lines()
                .filter(|line| !line.starts_with("$ "))
                .collect::<Vec<_>>()
                .join("\n");
            for status in [0, 4] {
                replay(host, &text, status);
                let said = host.fails("mig_gis GPU-1");
                assert!(said.contains("Insufficient Permissions"), "{name}: {said}");
                host.fails("mig_cis GPU-1");
                host.fails("mig_is GPU-1");
                host.fails("mig_ensure GPU-1");
            }
        }
        replay(host, "No GPU instances found: Not Found\n", 6);
        host.ok("mig_is GPU-1");
        replay(host, "[N/A], [N/A]\n", 0);
        let said = host.fails("mig_mode_of GPU-1");
        assert!(said.contains("the MIG mode cannot be read"), "{said}");
    });
}

#[test]
fn the_shell_files_are_clean() {
    let library = tempfile::NamedTempFile::new().expect("a file");
    fs::write(library.path(), deploy::strategy::host_library()).expect("the library");
    let output = Command::new("shellcheck")
        .args(["-s", "sh"])
        .arg(library.path())
        .arg("tests/fixtures/strategy/nvidia-smi")
        .output()
        .expect("shellcheck starts; tests/run installs it");
    assert!(output.status.success(), "{}", said(&output));
}
