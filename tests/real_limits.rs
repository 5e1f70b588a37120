//! Limits of containers seen to hold: podman on a real kernel with all control group
//! controllers, on the machine of `hosts/machine.rs`. The hosts of `real_podman` have
//! none of these controllers, and refuse the same variables.

use crate::hosts::machine::Machine;

/// The image is busybox alone. Quadlet's generator is off there until a test wants it.
const READY: &str = "rm /etc/systemd/system-generators/podman-system-generator; \
    mkdir -p /tmp/image/bin && cp /usr/bin/busybox /tmp/image/bin/ && ln -s busybox /tmp/image/bin/sh && \
    tar -C /tmp/image -c . | podman import -q - localhost/busybox:1";

/// 64 MiB, one of two processors, 32 processes.
const VARIABLES: &str = "containers_gpu_slicing: {enabled: false}
containers_gpu_container_integration: {resource_limits: {memory_gb: 0.0625}}
gpu_platform: podman
gpu_podman:
  containers:
    - name: work
      image: localhost/busybox:1
      pull: never
      network: none
      resource_limits: {compute_units: 1, pids: 32}
      environment: {PATH: /bin}
      command: [busybox, sleep, 100000]
";

#[test]
fn a_container_has_its_limits_and_who_takes_more_memory_is_ended() {
    let Some(machine) = Machine::boot() else {
        return;
    };
    machine.says(READY);
    machine.variables(VARIABLES);
    machine.deploy(&["gpu", "--yes"]).expect(0);
    machine.deploy(&["gpu", "--check"]).expect(0);

    // As the container sees them, by what the kernel shows it.
    let inside = |command: &str| machine.ssh(&format!("podman exec work busybox {command}"));
    let files = ["memory.max", "memory.swap.max", "cpu.max", "pids.max"];
    let files = files.map(|file| format!("/sys/fs/cgroup/{file}")).join(" ");
    assert_eq!(
        inside(&format!("cat {files}")).expect(0).out,
        "67108864\n0\n100000 100000\n32\n"
    );

    // A process within the limit ends well, one beyond it is killed, and no other with it.
    inside("dd if=/dev/zero of=/dev/null bs=16M count=1").expect(0);
    inside("dd if=/dev/zero of=/dev/null bs=128M count=1").expect(137);
    let events = inside("cat /sys/fs/cgroup/memory.events").expect(0).out;
    assert!(events.contains("\noom_kill 1\n"), "{events}");
    assert_eq!(machine.says("systemctl is-active work.service"), "active");

    inside("sh -c 'for n in $(busybox seq 40); do busybox sleep 1000 & done'")
        .says("can't fork: Resource temporarily unavailable");
    machine.deploy(&["rollback", "--yes"]).expect(0);
    assert_eq!(
        machine.says("podman ps -aq; find /etc/containers/systemd -type f"),
        ""
    );
}
