//! The shell functions of Podman's, Docker's and containerd's platforms on every shell that a host
//! may have, with stand-ins for the programs that they call.

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

/// Writes down its words. A unit is what the file of its name says, `user@UID.service` too.
const SYSTEMCTL: &str = "echo \"$*\" >>\"$FAKE/calls\"
for unit; do :; done
quiet=
case \"$*\" in *--quiet*) quiet=1 ;; esac
case \"$*\" in
*--user*) [ ! -e \"$FAKE/no-bus\" ] || exit 1 ;;
esac
case \"$*\" in
*is-active*)
    [ ! -e \"$FAKE/dumb\" ] || exit 1
    now=$(cat \"$FAKE/$unit\" 2>/dev/null) || now=inactive
    [ -n \"$quiet\" ] || echo \"$now\"
    [ \"$now\" = active ]
    ;;
esac
";
const RUNUSER: &str = "while [ \"$1\" != -- ]; do shift; done; shift; exec \"$@\"\n";
const ID: &str = "for user; do :; done; [ \"$user\" = worker ] && echo 1000\n";
const GETENT: &str = "[ \"$2\" = worker ] && echo worker:x:1000:1000::/home/worker:/bin/sh\n";
const PRINTS: &str = "cat \"$FAKE/says\"\n";

struct Host {
    folder: tempfile::TempDir,
    shell: &'static [&'static str],
}

impl Host {
    fn new(shell: &'static [&'static str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["bin", "fake", "root/run/systemd/system", "root/etc/cdi"] {
            fs::create_dir_all(folder.path().join(name)).expect("a folder");
        }
        for (name, text) in [
            ("systemctl", SYSTEMCTL),
            ("runuser", RUNUSER),
            ("id", ID),
            ("getent", GETENT),
            ("nvidia-ctk", PRINTS),
            ("docker", PRINTS),
            ("containerd", PRINTS),
        ] {
            let path = folder.path().join("bin").join(name);
            fs::write(&path, format!("#!/bin/sh\n{text}")).expect("a stand-in");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
        }
        Self { folder, shell }
    }

    fn set(&self, name: &str, text: &str) {
        fs::write(self.folder.path().join("fake").join(name), text).expect("a file");
    }

    /// What systemctl was called with since the last time.
    fn calls(&self) -> String {
        let path = self.folder.path().join("fake/calls");
        let text = fs::read_to_string(&path).unwrap_or_default();
        fs::write(&path, "").expect("a file");
        text
    }

    fn run(&self, scripts: &[&str], call: &str) -> Output {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let texts = scripts
            .iter()
            .map(|script| fs::read_to_string(source.join(script)).expect("a script"));
        let text = texts.collect::<Vec<_>>().join("\n") + "\n" + call + "\n";
        let path = std::env::var("PATH").expect("a PATH");
        let bin = self.folder.path().join("bin");
        Command::new(self.shell[0])
            .args(&self.shell[1..])
            .args(["-c", &text, "sh", "worker", "--", "-", "a.service"])
            .args(["worker", "b.service", "gone", "c.service"])
            .env("PATH", format!("{}:{path}", bin.display()))
            .env("FAKE", self.folder.path().join("fake"))
            .env("R", self.folder.path().join("root"))
            .output()
            .expect("the shell starts; tests/run installs it")
    }

    #[track_caller]
    fn podman(&self, call: &str, succeeds: bool) {
        let output = self.run(&["platform/podman/podman.sh"], call);
        let said = (self.shell, call, &output);
        assert_eq!(output.status.success(), succeeds, "{said:?}");
    }
}

fn on_every_shell(test: impl Fn(&Host)) {
    for shell in SHELLS {
        test(&Host::new(shell));
    }
}

#[test]
fn an_undo_at_boot_waits_for_no_container_and_no_manager_of_a_user() {
    on_every_shell(|host| {
        let boot = "DEPLOY_AT_BOOT=1; export DEPLOY_AT_BOOT";
        host.podman(&format!("{boot}; podman_undone - a.service active"), true);
        assert_eq!(
            host.calls(),
            "daemon-reload\n--no-block start -- a.service\n"
        );
        // Its manager is not up.
        let put_back = format!("{boot}; podman_put_back worker b.service");
        host.podman(&put_back, true);
        assert_eq!(host.calls(), "is-active --quiet -- user@1000.service\n");
        // It is, but does not answer yet.
        host.set("user@1000.service", "active");
        host.set("no-bus", "");
        host.podman(&put_back, true);
        host.calls();
        host.podman("podman_put_back worker b.service", false);
        host.calls();
        host.podman("podman_put_back - a.service", true);
        assert_eq!(host.calls(), "daemon-reload\nrestart -- a.service\n");
    });
}

#[test]
fn what_ran_may_be_still_to_come_only_after_an_undo_at_boot() {
    on_every_shell(|host| {
        let is = "podman_unit_is - a.service active";
        let undone = "DEPLOY_AT_BOOT=1 DEPLOY_AFTER_UNDO=1";
        host.podman(is, false);
        host.podman(&format!("DEPLOY_AT_BOOT=1; {is}"), false);
        host.podman(&format!("DEPLOY_AFTER_UNDO=1; {is}"), false);
        host.podman(&format!("{undone}; {is}"), true);
        host.podman(
            &format!("{undone}; podman_unit_is worker b.service active"),
            true,
        );
        host.set("a.service", "failed");
        host.podman(&format!("{undone}; {is}"), false);
        host.set("a.service", "active");
        host.podman(is, true);
        host.podman(
            &format!("{undone}; podman_unit_is - a.service inactive"),
            false,
        );
    });
}

#[test]
fn a_user_that_is_gone_has_nobody_to_be_told() {
    on_every_shell(|host| {
        host.podman("podman_reload gone", true);
        assert_eq!(host.calls(), "");
        host.set("user@1000.service", "active");
        host.podman("podman_reload worker", true);
        assert!(host.calls().ends_with("--user daemon-reload\n"));
        host.set("no-bus", "");
        host.podman("podman_reload worker", false);
    });
}

#[test]
fn a_look_that_is_not_answered_has_no_end_and_names_the_question() {
    let look = ["strategy/cdi_spec.sh", "platform/podman/look.sh"];
    on_every_shell(|host| {
        host.set("says", "nvidia.com/gpu=all\n");
        host.set("a.service", "active");
        host.set("user@1000.service", "active");
        let output = host.run(&look, "");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            text.ends_with(
                "unit - a.service active\nunit worker b.service inactive\n\
                 unit gone c.service unknown\nend\n"
            ) && text.contains("manager worker\n"),
            "{:?} {output:?}",
            host.shell
        );
        host.set("no-bus", "");
        let output = host.run(&look, "");
        let text = String::from_utf8_lossy(&output.stdout);
        let asked = String::from_utf8_lossy(&output.stderr);
        assert!(!text.contains("end\n"), "{:?} {text}", host.shell);
        assert!(
            asked.ends_with("systemctl --user is-active -- b.service\n"),
            "{:?} {asked}",
            host.shell
        );
    });
}

#[test]
fn a_specification_of_nvidias_names_a_card_at_least() {
    on_every_shell(|host| {
        for (list, good) in [
            ("", false),
            ("nvidia.com/gpu=all\n", false),
            ("nvidia.com/gpu=GPU-1\nnvidia.com/gpu=all\n", true),
        ] {
            host.set("says", list);
            host.podman("podman_cdi_nvidia_names", good);
            host.podman("podman_cdi_nvidia_names nvidia.com/gpu=GPU-1", good);
        }
        host.podman("podman_cdi_nvidia_names nvidia.com/gpu=GPU-2", false);
    });
}

#[test]
fn a_specification_that_cannot_be_written_is_told() {
    on_every_shell(|host| {
        let root = host.folder.path().join("root");
        fs::write(root.join("etc/cdi/deploy-intel.json"), "{}").expect("a file");
        let card = root.join("sys/bus/pci/devices/0000:4b:00.0");
        fs::create_dir_all(card.join("drm/renderD128")).expect("a folder");
        fs::write(card.join("vendor"), "0x8086\n").expect("a file");
        // In the way of the new file.
        fs::create_dir(root.join("etc/cdi/.deploy-intel.json.new")).expect("a folder");
        let output = host.run(
            &["strategy/cdi_spec.sh", "strategy/cdi.sh"],
            "RUN=$FAKE cdi_refresh",
        );
        assert!(output.status.success(), "{:?} {output:?}", host.shell);
        let told = fs::read_to_string(host.folder.path().join("fake/told")).unwrap_or_default();
        let text = "/etc/cdi/deploy-intel.json could not be written";
        assert!(told.contains(text), "{:?} {told} {output:?}", host.shell);
    });
}

#[test]
fn a_daemon_that_reads_another_file_is_no_success() {
    on_every_shell(|host| {
        host.set("says", "runtime nvidia\nruntime runc\ndefault runc\n");
        for (call, good) in [
            ("docker_knows nvidia any", true),
            ("docker_knows nvidia default", false),
            ("docker_knows amd any", false),
        ] {
            let output = host.run(&["platform/docker.sh"], call);
            let said = (host.shell, call, &output);
            assert_eq!(output.status.success(), good, "{said:?}");
        }
    });
}

/// What `containerd config dump` of 1.6 and of 2.0 says of the runtimes, with much left out.
const DUMPS: [&str; 2] = [
    "disabled_plugins = []
imports = [\"c.toml\"]
version = 2

[plugins]

  [plugins.\"io.containerd.grpc.v1.cri\"]
    disable_apparmor = false

    [plugins.\"io.containerd.grpc.v1.cri\".containerd]
      default_runtime_name = \"nvidia\"

      [plugins.\"io.containerd.grpc.v1.cri\".containerd.default_runtime]
        runtime_type = \"\"

      [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes]

        [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.nvidia]
          runtime_type = \"io.containerd.runc.v2\"

          [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.nvidia.options]
            BinaryName = \"/usr/bin/nvidia-container-runtime\"

[timeouts]
  \"io.containerd.timeout.task.state\" = \"2s\"
",
    "version = 3
disabled_plugins = ['io.containerd.grpc.v1.cri']

[plugins]
  [plugins.'io.containerd.cri.v1.runtime']
    enable_cdi = true

    [plugins.'io.containerd.cri.v1.runtime'.containerd]
      default_runtime_name = 'runc'

      [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes]
        [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.nvidia]
          runtime_type = 'io.containerd.runc.v2'

          [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.nvidia.options]
            BinaryName = '/usr/bin/nvidia-container-runtime'
            SystemdCgroup = true
",
];

#[test]
fn what_containerd_says_of_itself_is_read_in_every_shell() {
    let facts = [
        "default nvidia\nruntime nvidia\nbinary nvidia /usr/bin/nvidia-container-runtime\n",
        "cri off\ncdi true\ndefault runc\nruntime nvidia\nbinary nvidia /usr/bin/nvidia-container-runtime\n",
    ];
    on_every_shell(|host| {
        for (dump, facts) in DUMPS.iter().zip(facts) {
            host.set("says", dump);
            let output = host.run(&["platform/containerd.sh"], "containerd_says");
            let said = String::from_utf8_lossy(&output.stdout);
            assert_eq!(said, facts, "{:?} {output:?}", host.shell);
            for (which, good) in [("any", true), ("default", facts.starts_with("default"))] {
                let call = format!("containerd_knows {which}");
                let output = host.run(&["platform/containerd.sh"], &call);
                assert_eq!(output.status.success(), good, "{:?} {output:?}", host.shell);
            }
        }
    });
}
