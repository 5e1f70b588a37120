//! Podman on real hosts (`tests/hosts`): systemd, podman 5.4, crun, Quadlet, users and their
//! namespaces are real; the cards are simulated, and behind their nodes is `/dev/null`.
//!
//! Limits of memory and processors cannot be had there, since the hosts get no control group
//! controllers: they are refused, which is a test too, and read from what Quadlet makes of
//! the unit.

use crate::hosts::{Hosts, available};

const CARDS: &str = "{os: debian-13, gpus: [Flex-170]}";
/// The address that the simulator gives it.
const IMAGE: &str = "podman import -q --change CMD=/bin/sh /usr/local/share/test-image/busybox.tar localhost/busybox:1";

fn host(variables: &str) -> Hosts {
    let hosts = Hosts::podman(CARDS);
    hosts.ssh("h1", IMAGE).expect(0);
    write(&hosts, variables);
    hosts
}

fn write(hosts: &Hosts, variables: &str) {
    let folder = hosts.inventory().join("host_vars");
    std::fs::create_dir_all(&folder).expect("a folder");
    let text =
        format!("containers_gpu_slicing: {{enabled: false}}\ngpu_platform: podman\n{variables}");
    std::fs::write(folder.join("h1.yml"), text).expect("a file");
}

const ONE: &str = "gpu_podman:
  containers:
    - name: work
      image: localhost/busybox:1
      pull: never
      gpu: any
      command: [sleep, 100000]
";

#[test]
fn a_container_gets_its_card_and_nothing_else_and_goes_again() {
    if !available() {
        return;
    }
    let hosts = host(ONE);
    let before = hosts.state("h1");
    hosts.deploy(&["gpu", "--yes"]).expect(0).says("changed=1");
    hosts
        .ssh("h1", "systemctl is-active work.service")
        .expect(0);
    let second = hosts.deploy(&["gpu", "--check"]).expect(0);
    second.says("ok=1 changed=0");
    hosts.deploy(&["rollback", "--yes"]).expect(0);
    assert_eq!(hosts.state("h1").differing(&before), [""; 0]);
    hosts.ssh("h1", "podman container exists work").expect(1);
}
