//! The simulated fleet from outside: real SSH to real shells on simulated hosts.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use deploy::error::Origin;
use deploy::sim::{Fault, Fleet, Options, break_host, mend};
use deploy::value::{HostName, Node, Vars};
use russh::ChannelMsg;
use russh::client;
use russh::keys::{PrivateKey, PrivateKeyWithHashAlg};
use serde_json::json;

pub(crate) struct AnyKey;

impl client::Handler for AnyKey {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        _: &russh::keys::PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        Ok(true)
    }
}

/// What a command left behind; no status if the connection ended before it.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) status: Option<u32>,
}

pub(crate) struct Sim {
    fleet: Fleet,
    state: tempfile::TempDir,
}

impl Sim {
    pub(crate) async fn new(hosts: &[(&str, serde_json::Value)]) -> Self {
        let state = tempfile::tempdir().expect("a folder");
        let origin = Origin::whole("hosts.yml", "");
        let hosts: Vec<(HostName, Vars)> = hosts
            .iter()
            .map(|(name, sim)| {
                let mut vars = Vars::new();
                vars.insert(
                    "ansible_connection".to_owned(),
                    Node::from_json(&json!("sim"), &origin),
                );
                vars.insert("sim".to_owned(), Node::from_json(sim, &origin));
                (HostName::from(name), vars)
            })
            .collect();
        let options = Options {
            binary: PathBuf::from(env!("CARGO_BIN_EXE_deploy")),
            ..Options::new(state.path()).expect("our own path")
        };
        let fleet = Fleet::start(&hosts, &options)
            .await
            .expect("the fleet starts");
        Self { fleet, state }
    }

    pub(crate) fn root(&self, host: &str) -> PathBuf {
        self.fleet
            .endpoint(&HostName::from(host))
            .expect("a host of the fleet")
            .root
    }

    pub(crate) async fn connect(&self, host: &str) -> client::Handle<AnyKey> {
        self.try_connect(host).await.expect("a connection")
    }

    /// A connection, unless the host closes it before anybody is logged in.
    pub(crate) async fn try_connect(&self, host: &str) -> Option<client::Handle<AnyKey>> {
        let endpoint = self
            .fleet
            .endpoint(&HostName::from(host))
            .expect("a host of the fleet");
        let key = PrivateKey::from_openssh(std::fs::read(&endpoint.private_key).expect("the key"))
            .expect("a key");
        let mut session =
            client::connect(Arc::new(client::Config::default()), endpoint.addr, AnyKey)
                .await
                .ok()?;
        let key = PrivateKeyWithHashAlg::new(Arc::new(key), None);
        let auth = session
            .authenticate_publickey(&endpoint.user, key)
            .await
            .ok()?;
        if session.is_closed() {
            return None;
        }
        assert!(auth.success());
        Some(session)
    }

    /// Waits until the host takes connections and all its units were started.
    pub(crate) async fn up(&self, host: &str) {
        for _ in 0..600 {
            if let Some(session) = self.try_connect(host).await {
                let ran = run_on(&session, "systemctl is-system-running --wait", b"").await;
                if ran.status.is_some() {
                    return;
                }
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        panic!("{host} does not come up");
    }

    pub(crate) async fn run(&self, host: &str, command: &str) -> Ran {
        run_on(&self.connect(host).await, command, b"").await
    }

    /// Standard output of a command that must go well.
    pub(crate) async fn ok(&self, host: &str, command: &str) -> String {
        let ran = self.run(host, command).await;
        assert_eq!(ran.status, Some(0), "{command}: {ran:?}");
        ran.stdout
    }
}

pub(crate) async fn run_on(session: &client::Handle<AnyKey>, command: &str, stdin: &[u8]) -> Ran {
    let mut ran = Ran {
        stdout: String::new(),
        stderr: String::new(),
        status: None,
    };
    let Ok(mut channel) = session.channel_open_session().await else {
        return ran;
    };
    if channel.exec(true, command).await.is_err() {
        return ran;
    }
    let _ = channel.data_bytes(stdin.to_vec()).await;
    let _ = channel.eof().await;
    while let Some(message) = channel.wait().await {
        match message {
            ChannelMsg::Data { data } => ran.stdout.push_str(&String::from_utf8_lossy(&data)),
            ChannelMsg::ExtendedData { data, .. } => {
                ran.stderr.push_str(&String::from_utf8_lossy(&data));
            }
            ChannelMsg::ExitStatus { exit_status } => ran.status = Some(exit_status),
            _ => {}
        }
    }
    ran
}

fn h100() -> serde_json::Value {
    json!({"gpus": [{"product": "H100-80GB", "count": 2}], "driver": "590.48.01"})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_is_a_shell_in_its_folder_with_vendor_tools() {
    let sim = Sim::new(&[("gpu-1", h100()), ("plain", json!({}))]).await;
    let list = sim.ok("gpu-1", "nvidia-smi -L").await;
    assert_eq!(list.lines().count(), 2);
    assert!(
        list.starts_with("GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-"),
        "{list}"
    );
    assert_eq!(
        sim.ok("gpu-1", "cat \"$R\"/etc/hostname; hostname; id -u; pwd")
            .await,
        {
            format!(
                "gpu-1\ngpu-1\n0\n{}\n",
                sim.root("gpu-1").join("root").display()
            )
        }
    );
    let missing = sim.run("plain", "nvidia-smi").await;
    assert_eq!(missing.status, Some(127));
    assert!(missing.stderr.contains("not found"), "{missing:?}");
    let fed = run_on(&sim.connect("plain").await, "cat; exit 7", b"fed\0bytes").await;
    assert_eq!((fed.stdout.as_str(), fed.status), ("fed\0bytes", Some(7)));
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_outside_the_folder_are_refused() {
    let sim = Sim::new(&[("one", json!({}))]).await;
    assert_eq!(
        *sim.fleet.confinement(),
        deploy::sim::Confinement::Enforced,
        "this kernel has no Landlock, so the promise cannot be tested here"
    );
    let outside = sim.state.path().join("outside");
    let ran = sim.run("one", &format!("echo x > {}; echo $?; echo y > \"$R\"/tmp/in && cat \"$R\"/tmp/in; echo z > /dev/null && echo dev", outside.display())).await;
    assert_eq!(ran.stdout, "2\ny\ndev\n", "{ran:?}");
    assert!(!outside.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layout_is_made_read_and_lost_with_a_reboot() {
    let sim = Sim::new(&[("gpu-1", h100())]).await;
    assert_eq!(
        sim.ok("gpu-1", "nvidia-smi -i 0 -mig 1").await,
        "Enabled MIG Mode for GPU 00000000:17:00.0\nAll done.\n"
    );
    let made = sim
        .ok("gpu-1", "nvidia-smi mig -i 0 -cgi 9:4,14:0,19:2,19:3 -C")
        .await;
    assert_eq!(made.lines().count(), 8, "{made}");
    let list = sim.ok("gpu-1", "nvidia-smi -L").await;
    assert!(
        list.contains("\n  MIG 3g.40gb     Device  0: (UUID: MIG-"),
        "{list}"
    );
    let boot = sim
        .ok("gpu-1", "cat \"$R\"/proc/sys/kernel/random/boot_id")
        .await;
    break_host(&sim.root("gpu-1"), &Fault::Reboot).expect("it reboots");
    assert_ne!(
        sim.ok("gpu-1", "cat \"$R\"/proc/sys/kernel/random/boot_id")
            .await,
        boot
    );
    assert_eq!(
        sim.ok(
            "gpu-1",
            "nvidia-smi --query-gpu=index,mig.mode.current --format=csv"
        )
        .await,
        "index, mig.mode.current\n0, Disabled\n1, Disabled\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reboot_ends_connections_and_what_ran_beside_them() {
    let sim = Sim::new(&[("one", json!({})), ("other", json!({}))]).await;
    let other = sim.connect("other").await;
    sim.ok(
        "one",
        "sleep 1000 > /dev/null 2>&1 < /dev/null & echo $! > \"$R\"/root/pid",
    )
    .await;
    let pid = sim.ok("one", "cat \"$R\"/root/pid").await;
    assert!(Path::new("/proc").join(pid.trim()).join("comm").exists());
    let ran = sim.run("one", "reboot; sleep 1000").await;
    assert_eq!(
        ran.status, None,
        "the machine went down under the command: {ran:?}"
    );
    sim.up("one").await;
    let state = std::fs::read_to_string(Path::new("/proc").join(pid.trim()).join("stat"))
        .unwrap_or_default();
    assert!(state.is_empty() || state.contains(") Z "), "{state}");
    assert_eq!(run_on(&other, "echo here", b"").await.stdout, "here\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_in_use_is_held_by_a_process_that_can_be_seen() {
    let sim = Sim::new(&[("gpu-1", h100())]).await;
    sim.ok("gpu-1", "true").await;
    let fault = Fault::InUse {
        gpu: 1,
        command: "python3".to_owned(),
        unit: Some("train.service".to_owned()),
    };
    break_host(&sim.root("gpu-1"), &fault).expect("it is broken");
    let held = sim
        .ok(
            "gpu-1",
            "readlink \"$R\"/proc/*/fd/*; cat \"$R\"/proc/42*/comm \"$R\"/proc/42*/cgroup",
        )
        .await;
    assert!(
        held.contains("/dev/nvidia1\n")
            && held.contains("python3\n0::/system.slice/train.service\n"),
        "{held}"
    );
    let refused = sim.run("gpu-1", "nvidia-smi -i 1 -mig 1").await;
    assert_eq!(refused.status, Some(255));
    assert!(
        refused
            .stdout
            .contains("In use by another client\nTerminating early"),
        "{refused:?}"
    );
    mend(&sim.root("gpu-1")).expect("it is mended");
    sim.ok("gpu-1", "nvidia-smi -i 1 -mig 1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn virtual_functions_come_and_go_as_the_kernel_does_it() {
    let sim = Sim::new(&[("flex", json!({"gpus": ["Flex-170", "L40S"]}))]).await;
    let flex = "\"$R\"/sys/bus/pci/devices/0000:17:00.0";
    let write = |value: &str, file: &str| {
        format!(
            "printf '{value}\\n' | tee {flex}/{file} 2>&1 >/dev/null; ls -d {flex}/virtfn* | wc -l"
        )
    };
    assert_eq!(
        sim.ok("flex", &write("0", "sriov_drivers_autoprobe"))
            .await
            .trim(),
        "0"
    );
    assert_eq!(
        sim.ok("flex", &write("4", "sriov_numvfs")).await.trim(),
        "4"
    );
    assert!(
        sim.ok("flex", &write("2", "sriov_numvfs"))
            .await
            .contains("Device or resource busy")
    );
    assert!(
        sim.ok("flex", &write("32", "sriov_numvfs"))
            .await
            .contains("Numerical result out of range")
    );
    assert!(
        sim.ok("flex", &write("x", "sriov_numvfs"))
            .await
            .contains("Invalid argument")
    );
    assert_eq!(sim.ok("flex", &format!("ls {flex}/virtfn0/physfn/sriov_numvfs >/dev/null && ls -d {flex}/virtfn0/driver 2>/dev/null; cat {flex}/virtfn3/device")).await, "0x56c0\n");
    assert_eq!(
        sim.ok("flex", &write("0", "sriov_numvfs")).await.trim(),
        "0"
    );
    let nvidia = sim.ok("flex", "echo 4 | tee \"$R\"/sys/bus/pci/devices/0000:31:00.0/sriov_numvfs 2>&1 >/dev/null || true").await;
    assert!(nvidia.contains("No such file or directory"), "{nvidia}");
}

#[tokio::test(flavor = "multi_thread")]
async fn owners_are_roots_until_they_are_changed() {
    let sim = Sim::new(&[("one", json!({}))]).await;
    let script = "cd \"$R\"/etc && echo x > f && chown root:root f && stat -c '%a %U %G %s %F' f && \
                  chown nobody:daemon f && mv f g && stat -c '%U:%G %u:%g' g && stat -c %n nothing";
    let ran = sim.run("one", &format!("umask 022; {script}")).await;
    assert_eq!(
        ran.stdout, "644 root root 2 regular file\nnobody:daemon 65534:1\n",
        "{ran:?}"
    );
    assert_eq!(ran.status, Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_enabled_oneshot_unit_runs_at_boot() {
    let sim = Sim::new(&[("one", h100())]).await;
    let script = "mkdir -p \"$R\"/usr/local/sbin && printf '#!/bin/sh\\nnvidia-smi -mig 1 && nvidia-smi mig -cgi 19 -C\\n' > \"$R\"/usr/local/sbin/slice && \
         chmod 755 \"$R\"/usr/local/sbin/slice && \
         printf '[Unit]\\nDescription=x\\n[Service]\\nType=oneshot\\nRemainAfterExit=yes\\nExecStart=/usr/local/sbin/slice\\n[Install]\\nWantedBy=multi-user.target\\n' > \"$R\"/etc/systemd/system/slice.service && \
         systemctl daemon-reload && systemctl enable slice.service; systemctl is-enabled slice; systemctl is-active slice";
    let ran = sim.run("one", script).await;
    assert_eq!(ran.stdout, "enabled\ninactive\n", "{ran:?}");
    sim.run("one", "reboot").await;
    sim.up("one").await;
    let list = sim
        .ok("one", "systemctl is-active slice && nvidia-smi -L")
        .await;
    assert!(
        list.starts_with("active\n") && list.matches("MIG 1g.10gb").count() == 2,
        "{list}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_cut_where_it_was_asked() {
    let sim = Sim::new(&[("one", json!({}))]).await;
    sim.ok("one", "true").await;
    break_host(&sim.root("one"), &Fault::CutAfter(20_000)).expect("it is broken");
    let ran = sim.run("one", "head -c 100000 /dev/zero").await;
    assert_eq!(ran.status, None);
    assert!(ran.stdout.len() < 20_000);
    mend(&sim.root("one")).expect("it is mended");
    assert_eq!(
        sim.ok("one", "head -c 100000 /dev/zero").await.len(),
        100_000
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_what_is_too_much() {
    let sim = Sim::new(&[("one", h100())]).await;
    sim.ok("one", "true").await;
    break_host(&sim.root("one"), &Fault::DiskFull(100)).expect("it is broken");
    let ran = sim
        .run(
            "one",
            "head -c 1000 /dev/zero > \"$R\"/tmp/f; echo $?; nvidia-smi -i 0 -mig 1",
        )
        .await;
    assert!(ran.stdout.starts_with("1\nEnabled MIG Mode"), "{ran:?}");
    assert!(
        Path::new(&sim.root("one"))
            .join("tmp/f")
            .metadata()
            .expect("it was begun")
            .len()
            <= 100
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_host_of_the_demo_fleet_answers() {
    let demo = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("inventories/demo");
    let (inventory, problems) = deploy::inventory::load(&[demo], None, &[]);
    assert!(problems.0.is_empty(), "{problems}");
    let hosts: Vec<(HostName, Vars)> = inventory
        .hosts()
        .map(|host| (host.clone(), inventory.vars_of(host)))
        .collect();
    assert!(hosts.len() >= 6);
    let state = tempfile::tempdir().expect("a folder");
    let options = Options {
        binary: PathBuf::from(env!("CARGO_BIN_EXE_deploy")),
        ..Options::new(state.path()).expect("our own path")
    };
    let fleet = Fleet::start(&hosts, &options)
        .await
        .expect("the fleet starts");
    let sim = Sim { fleet, state };
    for (host, _) in &hosts {
        assert_eq!(sim.ok(host.as_str(), "hostname").await, format!("{host}\n"));
    }
    let cards = sim.ok("h100-01", "nvidia-smi -L").await;
    assert_eq!(cards.lines().count(), 8);
}
