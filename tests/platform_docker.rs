//! Docker as a platform, on simulated hosts by whole commands: its daemon's file by the vendor's
//! tool, with what the tool would write shown first, and put back as it was.

use std::fs;

use crate::harness::{Ended, Scratch};

struct Host {
    scratch: Scratch,
}

impl Host {
    fn new(sim: &str, variables: &str) -> Self {
        let scratch = Scratch::new();
        let inventory = "all:\n  hosts: {node1: }\n  vars: {ansible_connection: sim}\n";
        scratch.write("inv/hosts.yml", inventory);
        let text = format!("sim: {sim}\ngpu_platform: docker\n{variables}");
        scratch.write("inv/group_vars/all.yml", &text);
        Self { scratch }
    }

    fn deploy(&self, words: &[&str]) -> Ended {
        let inventory = self.scratch.path().join("inv").display().to_string();
        self.scratch.deploy(&[words, &["-i", &inventory]].concat())
    }

    /// The daemon's file, found in the folder of the simulated host.
    fn daemon_json(&self) -> Option<String> {
        let found = crate::harness::tree_but(self.scratch.path(), &|_| false);
        let mut paths = found
            .keys()
            .filter(|path| path.ends_with("etc/docker/daemon.json"));
        let path = paths.next()?;
        Some(fs::read_to_string(self.scratch.path().join(path)).expect("a readable file"))
    }
}

#[test]
fn dockers_file_is_written_by_the_vendors_tool_and_put_back() {
    let host = Host::new(
        "{gpus: [L40S], container_tools: [docker, nvidia-ctk]}",
        "gpu_docker: {default_runtime: true}\n",
    );
    host.deploy(&["gpu", "--check"])
        .expect(2)
        .says("have nvidia-ctk tell Docker of the cards")
        .says("nvidia-container-runtime");
    assert_eq!(host.daemon_json(), None);
    host.deploy(&["gpu", "--yes"]).expect(0).says("changed=1");
    let text = host.daemon_json().expect("it is there");
    for word in [
        "\"default-runtime\": \"nvidia\"",
        "\"cdi\": true",
        "\"path\": \"nvidia-container-runtime\"",
    ] {
        assert!(text.contains(word), "{text}");
    }
    host.deploy(&["gpu", "--yes"]).expect(0).says("changed=0");
    host.deploy(&["rollback", "--yes"]).expect(0);
    assert_eq!(host.daemon_json(), None);
}

#[test]
fn what_stands_against_it_is_told() {
    Host::new("{gpus: [L40S], container_tools: [nvidia-ctk]}", "")
        .deploy(&["gpu", "--check"])
        .expect(3)
        .says("Docker is not installed on this host");
    Host::new("{gpus: [L40S], container_tools: [docker]}", "")
        .deploy(&["gpu", "--check"])
        .expect(3)
        .says("nvidia-ctk is not installed on this host");
    let intel =
        "containers_gpu_container_integration: {device_plugin: intel}\ngpu_docker: {default: 1}\n";
    Host::new("{gpus: [Flex-170], container_tools: [docker]}", intel)
        .deploy(&["gpu", "--check"])
        .expect(1)
        .says("Intel has no tool that configures Docker")
        .says("unknown key `default` in `gpu_docker`");
}
