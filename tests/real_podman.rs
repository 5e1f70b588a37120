//! Podman on real hosts (`tests/hosts`): systemd, podman 5.4, crun, Quadlet, users and their
//! namespaces are real; the cards are simulated, and behind their nodes is `/dev/null`
//!
//!
//! Limits of memory and processors cannot be had there, since these hosts get no control group
//! controllers: that they are refused is a test, and what the unit makes of them is read from
//! podman's generator.

use crate::harness::Ended;
use crate::hosts::{Hosts, available};

const TWO_CARDS: &str = "{os: debian-13, gpus: [{product: Flex-170, count: 2}]}";

/// Puts the image into podman of root, or of the user `worker`, whose systemd does not run
/// afterwards.
const IMAGE: &str = "podman import -q --change CMD=/bin/sh /usr/local/share/test-image/busybox.tar localhost/busybox:1";
const IMAGE_OF_WORKER: &str = "set -e; loginctl enable-linger worker; systemctl start user@1000; \
    systemd-run --quiet --user -M worker@ --pipe --wait podman import -q --change CMD=/bin/sh \
    /usr/local/share/test-image/busybox.tar localhost/busybox:1 </dev/null; \
    loginctl disable-linger worker; systemctl stop user@1000";

/// A program as a login of `worker` would run it.
fn as_worker(command: &str) -> String {
    format!(
        "cd /; runuser -u worker -- env XDG_RUNTIME_DIR=/run/user/1000 \
         DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/1000/bus {command}"
    )
}

/// A host with these cards and variables.
fn host(cards: &str, variables: &str) -> Hosts {
    let hosts = Hosts::podman(cards);
    hosts.ssh("h1", IMAGE).expect(0);
    want(&hosts, variables);
    hosts
}

fn want(hosts: &Hosts, variables: &str) {
    let folder = hosts.inventory().join("host_vars");
    std::fs::create_dir_all(&folder).expect("a folder");
    let slicing = match variables.contains("containers_gpu_slicing") {
        true => "",
        false => "containers_gpu_slicing: {enabled: false}\n",
    };
    let text = format!("{slicing}gpu_platform: podman\n{variables}");
    std::fs::write(folder.join("h1.yml"), text).expect("a file");
}

/// Applies, and finds nothing more to do.
#[track_caller]
fn apply(hosts: &Hosts) -> Ended {
    let first = hosts.deploy(&["gpu", "--yes"]).expect(0).says("changed=1");
    let second = hosts.deploy(&["gpu", "--check"]).expect(0);
    second.says("ok=1 changed=0");
    first
}

/// What differs but for the copies that the tools for users make of their files.
fn differing(hosts: &Hosts, before: &crate::hosts::State) -> Vec<String> {
    let mut names = hosts.state("h1").differing(before);
    let copies = ["etc/group-", "etc/gshadow-", "etc/subuid-", "etc/subgid-"];
    names.retain(|name| !copies.contains(&name.as_str()));
    names
}

#[test]
fn a_container_gets_its_card_and_no_right_besides_and_goes_again() {
    if !available() {
        return;
    }
    let one = |name: &str, seconds: u32| {
        format!(
            "gpu_podman:
  containers:
    - name: {name}
      image: localhost/busybox:1
      pull: never
      gpu: {{index: 1}}
      environment: {{GREETING: 'say \"x\" to $HOME, 5% \\ ''y''', PATH: /bin}}
      command: [sleep, {seconds}]
      network: none
      health_command: [test, -c, /dev/dri/renderD129]
"
        )
    };
    let hosts = host(TWO_CARDS, &one("work", 100_000));
    let before = hosts.state("h1");
    let first = apply(&hosts);
    first.says("has the host's user numbers");
    hosts
        .ssh("h1", "systemctl is-active work.service")
        .expect(0);

    // Its device, and no other that a host has.
    let inside = |text: &str| hosts.ssh("h1", &format!("podman exec work {text}"));
    assert_eq!(inside("ls /dev/dri").expect(0).out, "renderD129\n");
    let nodes = "ls /dev".to_owned();
    let nodes = inside(&nodes).expect(0).out;
    for other in ["nvidia", "kfd", "fuse", "mem", "kmsg"] {
        assert!(!nodes.contains(other), "{nodes}");
    }
    assert_eq!(
        inside("sh -c 'echo \"$GREETING\"'").expect(0).out,
        "say \"x\" to $HOME, 5% \\ 'y'\n"
    );

    // Its rights: what the kernel says, and what podman says.
    let status = inside("grep -E 'Cap|NoNewPrivs' /proc/self/status")
        .expect(0)
        .out;
    for line in ["CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        let none = format!("{line}:\t0000000000000000\n");
        assert!(status.contains(&none), "{status}");
    }
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    inside("sh -c ': >/new'")
        .expect(1)
        .says("Read-only file system");
    let format = "{{.HostConfig.Privileged}} {{.HostConfig.ReadonlyRootfs}} {{.HostConfig.SecurityOpt}} {{.OCIRuntime}}";
    let said = hosts.ssh("h1", &format!("podman inspect --format '{format}' work"));
    assert_eq!(said.expect(0).out, "false true [no-new-privileges] crun\n");

    // What is changed runs by the change, and what is undone by what was before.
    want(&hosts, &one("work", 200_000));
    apply(&hosts).says("restart unit work.service");
    let command =
        "cat /proc/$(podman inspect --format '{{.State.Pid}}' work)/cmdline | tr '\\0' ' '";
    assert_eq!(hosts.ssh("h1", command).expect(0).out, "sleep 200000 ");
    hosts.deploy(&["rollback", "--yes"]).expect(0);
    assert_eq!(hosts.ssh("h1", command).expect(0).out, "sleep 100000 ");

    // Another name is another unit, and the old one goes.
    want(&hosts, &one("other", 100_000));
    apply(&hosts).says("stop unit work.service, which is no longer wanted");
    hosts.ssh("h1", "podman container exists work").expect(1);
    hosts
        .ssh("h1", "systemctl is-active work.service")
        .expect(4);
    hosts
        .ssh("h1", "systemctl is-active other.service")
        .expect(0);
    hosts.deploy(&["rollback", "--yes"]).expect(0);
    hosts
        .ssh("h1", "systemctl is-active work.service")
        .expect(0);

    // Nothing is left of it, also when the platform goes.
    want(&hosts, "gpu_podman: {containers: []}\n");
    apply(&hosts);
    hosts.ssh("h1", "podman container exists work").expect(1);
    assert_eq!(differing(&hosts, &before), [""; 0]);
    hosts.deploy(&["rollback", "--yes"]).expect(0);
    hosts
        .ssh("h1", "systemctl is-active work.service")
        .expect(0);
    hosts.deploy(&["rollback", "--yes"]).expect(0);
    assert_eq!(differing(&hosts, &before), [""; 0]);
    assert_eq!(hosts.ssh("h1", "podman ps -aq").expect(0).out, "");
}

#[test]
fn containers_of_a_user_are_rootless_and_share_a_pod() {
    if !available() {
        return;
    }
    let hosts = host(
        TWO_CARDS,
        "gpu_policy: shared
gpu_podman:
  pods:
    - {name: team, user: worker, network: none}
  containers:
    - {name: train, image: 'localhost/busybox:1', pull: never, user: worker, pod: team, gpu: any, command: [sleep, 100000], environment: {PATH: /bin}}
    - {name: serve, image: 'localhost/busybox:1', pull: never, user: worker, pod: team, gpu: any, command: [sleep, 100000], environment: {PATH: /bin}}
",
    );
    hosts.ssh("h1", IMAGE_OF_WORKER).expect(0);
    let before = hosts.state("h1");
    let lingers = "ls /var/lib/systemd/linger; id -Gn worker; getent group render | cut -d: -f4; systemctl is-active user@1000; :";
    let first = hosts.ssh("h1", lingers).expect(0).out;
    assert_eq!(first, "worker\n\ninactive\n");
    apply(&hosts)
        .says("let user worker open the cards' nodes: group render")
        .says("have the systemd of user worker run from boot on");
    assert_eq!(
        hosts.ssh("h1", lingers).expect(0).out,
        "worker\nworker render\nworker\nactive\n"
    );
    for (name, node) in [("train", "renderD128"), ("serve", "renderD129")] {
        let active = as_worker(&format!("systemctl --user is-active {name}.service"));
        hosts.ssh("h1", &active).expect(0);
        let inside =
            |text: &str| hosts.ssh("h1", &as_worker(&format!("podman exec {name} {text}")));
        assert_eq!(inside("ls /dev/dri").expect(0).out, format!("{node}\n"));
        // The node is for a group that only the user has, so that this needs keep-groups.
        inside(&format!("sh -c 'echo > /dev/dri/{node}'")).expect(0);
        let status = inside("grep -E 'CapBnd|NoNewPrivs' /proc/self/status")
            .expect(0)
            .out;
        assert!(status.contains("CapBnd:\t0000000000000000\n"), "{status}");
        assert!(status.contains("NoNewPrivs:\t1"), "{status}");
        inside("sh -c ': >/new'")
            .expect(1)
            .says("Read-only file system");
        // A user namespace: its root is the user, and others are the user's spare numbers.
        let map = inside("cat /proc/self/uid_map").expect(0).out;
        let first = map.lines().next().unwrap_or_default();
        assert_eq!(
            first.split_whitespace().collect::<Vec<_>>(),
            ["0", "1000", "1"]
        );
    }
    // Nothing of it is root's podman's.
    assert_eq!(hosts.ssh("h1", "podman ps -aq").expect(0).out, "");
    let boot = hosts.boot_id("h1");
    hosts.ssh("h1", "systemctl reboot");
    hosts.wait_for_reboot("h1", &boot);
    hosts
        .ssh("h1", "systemctl is-system-running --wait")
        .expect(0);
    // Nothing waits for users' systemd at boot.
    let up = as_worker("systemctl --user is-active train.service serve.service");
    let wait =
        format!("for n in $(seq 120); do ({up}) >/dev/null 2>&1 && break; sleep 0.5; done; {up}");
    assert_eq!(hosts.ssh("h1", &wait).expect(0).out, "active\nactive\n");
    hosts.deploy(&["gpu", "--check"]).expect(0);

    // Without a container nothing of the user's is as it was for them, and the undo of that
    // makes all of it so again.
    let with = hosts.ssh("h1", lingers).expect(0).out;
    want(&hosts, "gpu_podman: {containers: []}\n");
    apply(&hosts)
        .says("take user worker out of group render")
        .says("have the systemd of user worker run only while it is logged in");
    assert_eq!(hosts.ssh("h1", lingers).expect(0).out, first);
    assert_eq!(differing(&hosts, &before), [""; 0]);
    hosts.deploy(&["rollback", "--yes"]).expect(0);
    assert_eq!(hosts.ssh("h1", lingers).expect(0).out, with);
    assert_eq!(hosts.ssh("h1", &wait).expect(0).out, "active\nactive\n");

    hosts.deploy(&["rollback", "--yes"]).expect(0);
    assert_eq!(hosts.ssh("h1", lingers).expect(0).out, first);
    assert_eq!(differing(&hosts, &before), [""; 0]);
}

#[test]
fn what_a_user_had_before_us_stays_when_its_containers_go() {
    if !available() {
        return;
    }
    let container = "gpu_podman: {containers: [{name: train, image: 'localhost/busybox:1', pull: never, user: worker, gpu: any, network: none, command: [sleep, 100000]}]}\n";
    let hosts = host(TWO_CARDS, container);
    hosts.ssh("h1", IMAGE_OF_WORKER).expect(0);
    let own = "usermod -aG render worker; loginctl enable-linger worker; systemctl start user@1000; \
               mkdir -p /etc/systemd/system/user@1000.service.d; \
               echo '[Unit]' >/etc/systemd/system/user@1000.service.d/own.conf";
    hosts.ssh("h1", own).expect(0);
    let before = hosts.state("h1");
    let has = "ls /var/lib/systemd/linger; id -Gn worker; systemctl is-active user@1000; \
               ls /etc/systemd/system/user@1000.service.d";
    let first = hosts.ssh("h1", has).expect(0).out;
    assert_eq!(first, "worker\nworker render\nactive\nown.conf\n");
    apply(&hosts);
    want(&hosts, "gpu_podman: {containers: []}\n");
    apply(&hosts);
    assert_eq!(hosts.ssh("h1", has).expect(0).out, first);
    assert_eq!(differing(&hosts, &before), [""; 0]);
}

#[test]
fn mig_devices_go_to_containers_in_the_run_that_makes_them() {
    if !available() {
        return;
    }
    let wanted = |profiles: &str| {
        format!(
            "containers_gpu_slicing: {{enabled: true, strategy: mig, mig: {{enabled: true, profiles: [{profiles}]}}}}
gpu_podman:
  containers:
    - {{name: large, image: 'localhost/busybox:1', pull: never, network: none, gpu: {{profile: 3g.40gb}}, command: [sleep, 100000]}}
    - {{name: small, image: 'localhost/busybox:1', pull: never, network: none, gpu: {{profile: 1g.10gb, count: 2}}, command: [sleep, 100000]}}
"
        )
    };
    let cards = "{os: debian-13, gpus: [H100-80GB], container_tools: [nvidia-ctk]}";
    let hosts = host(cards, &wanted("3g.40gb, 1g.10gb, 1g.10gb"));
    let before = hosts.state("h1");
    apply(&hosts);
    let given = || {
        let created = "podman inspect --format '{{join .Config.CreateCommand \" \"}}' large small";
        let created = hosts.ssh("h1", created).expect(0).out;
        let words = created.split_whitespace();
        words
            .filter_map(|word| word.strip_prefix("nvidia.com/gpu="))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let listed = || {
        let list = hosts.ssh("h1", "nvidia-smi -L").expect(0).out;
        let devices = list
            .lines()
            .filter_map(|line| line.split_once("(UUID: MIG-"));
        devices
            .map(|(_, uuid)| format!("MIG-{}", uuid.trim_end_matches(')')))
            .collect::<Vec<_>>()
    };
    assert_eq!(given(), listed());
    assert_eq!(given().len(), 3);
    let names = hosts.ssh("h1", "nvidia-ctk cdi list").expect(0).out;
    assert!(
        given()
            .iter()
            .all(|uuid| names.contains(&format!("nvidia.com/gpu={uuid}\n"))),
        "{names}"
    );

    // The same after a boot, by which the slices come back before the containers.
    let boot = hosts.boot_id("h1");
    let was = given();
    hosts.ssh("h1", "systemctl reboot");
    hosts.wait_for_reboot("h1", &boot);
    hosts
        .ssh("h1", "systemctl is-system-running --wait")
        .expect(0);
    assert_eq!(given(), was);
    hosts.deploy(&["gpu", "--check"]).expect(0);

    hosts.deploy(&["rollback", "--yes"]).expect(0);
    assert_eq!(differing(&hosts, &before), [""; 0]);
}

#[test]
fn a_secret_comes_from_podmans_store_and_stands_nowhere_else() {
    if !available() {
        return;
    }
    let hosts = host(
        TWO_CARDS,
        "gpu_podman:
  containers:
    - name: work
      image: localhost/busybox:1
      pull: never
      gpu: any
      network: none
      command: [sleep, 100000]
      environment: {API_TOKEN: in-the-open, PATH: /bin}
      secrets: [hub, {name: db, env: DB_WORD}]
",
    );
    let refused = hosts.deploy(&["gpu", "--yes"]).expect(3);
    refused.says("rolled-back=1");
    hosts
        .ssh("h1", "systemctl is-active work.service")
        .expect(4);
    let store = "printf %s hunter2 | podman secret create hub -; \
        printf %s tiger3 | podman secret create db -";
    hosts.on("h1", store).expect(0);
    let shown = hosts.deploy(&["gpu", "--check", "--diff"]).expect(2);
    let shown = shown
        .says("+Secret=hub\n")
        .says("+Secret=db,type=env,target=DB_WORD")
        .says("has API_TOKEN in its unit, where everybody on the host can read it");
    assert!(!shown.all().contains("hunter2"), "{}", shown.all());
    apply(&hosts);
    let has = "podman exec work sh -c 'cat /run/secrets/hub; echo \" $DB_WORD\"'";
    assert_eq!(hosts.ssh("h1", has).expect(0).out, "hunter2 tiger3\n");
}

#[test]
fn limits_that_the_host_cannot_hold_are_refused_and_the_generator_reads_them() {
    if !available() {
        return;
    }
    let hosts = host(
        TWO_CARDS,
        "containers_gpu_container_integration: {resource_limits: {memory_gb: 1}}
gpu_podman:
  containers:
    - {name: work, image: 'localhost/busybox:1', gpu: any}
",
    );
    let before = hosts.state("h1");
    let refused = hosts.deploy(&["gpu", "--yes"]).expect(3);
    refused.says("the limits of container `work` take the control group controllers memory, and this host has none");
    assert_eq!(hosts.state("h1").differing(&before), [""; 0]);
    // What the plan shows for a host that can (`platform_podman`), real podman takes so.
    let unit = "mkdir /tmp/q; printf '%s\\n' '[Container]' 'Image=localhost/busybox:1' \
        PodmanArgs=--memory=1610612736 PodmanArgs=--memory-swap=1610612736 PodmanArgs=--cpus=4 PidsLimit=100 >/tmp/q/work.container; \
        QUADLET_UNIT_DIRS=/tmp/q /usr/lib/systemd/system-generators/podman-system-generator --dryrun; \
        podman create --name held --memory=1610612736 --memory-swap=1610612736 --cpus=4 --pids-limit=100 localhost/busybox:1 >/dev/null; \
        podman inspect --format '{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}} {{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}}' held";
    hosts
        .ssh("h1", unit)
        .says("--pids-limit 100")
        .says("--memory=1610612736 --memory-swap=1610612736 --cpus=4 localhost/busybox:1")
        .says("1610612736 1610612736 4000000000 100");
}

#[test]
fn the_port_of_an_exporter_in_a_container_is_found_to_be_its_own() {
    if !available() {
        return;
    }
    // What stands in for Intel's image: it serves, and there is no program on the host to ask it.
    let serve = "mkdir /tmp/w; echo >/tmp/w/metrics; exec /bin/busybox httpd -f -p 29999 -h /tmp/w";
    let image = format!(
        "podman import -q --change 'CMD [\"/bin/sh\",\"-c\",\"{serve}\"]' \
         /usr/local/share/test-image/busybox.tar localhost/xpumanager:1"
    );
    let hosts = host(
        TWO_CARDS,
        "gpu_podman: {containers: []}
gpu_exporters: {intel: {enabled: true, image: 'localhost/xpumanager:1', pull: never, wait_s: 20}}
",
    );
    hosts.ssh("h1", &image).expect(0);
    apply(&hosts).says("port 29999 answers /metrics");
    // podman holds the port by a process of the unit.
    let held = "cat /proc/net/tcp /proc/net/tcp6 | grep -c ':752F 0.* 0A '";
    assert_eq!(hosts.ssh("h1", held).expect(0).out, "1\n");
    hosts.deploy(&["rollback", "--yes"]).expect(0);
}
