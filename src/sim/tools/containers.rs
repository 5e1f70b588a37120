//! Programs that run containers: they are there or not, and say their version as Debian 13's
//! do. What podman runs by a unit of Quadlet's is a process without a container around it, which
//! does what its image is known for (`exporters`); `tests/real_podman.rs` has real ones.

use std::io;

use crate::sim::spec::ContainerTool;

use super::{Call, Outcome};

/// `podman`, `crun`, `runc`, `dockerd`.
pub(super) fn run(call: &Call<'_>) -> io::Result<Outcome> {
    let machine = call.host.load()?;
    let package = match call.name {
        "dockerd" => ContainerTool::Docker,
        _ => ContainerTool::Podman,
    };
    if !machine.spec.container_tools.contains(&package) {
        return Ok(Outcome::err(
            format!("sh: 1: {}: not found\n", call.name),
            127,
        ));
    }
    let words: Vec<&str> = call.args.iter().map(String::as_str).collect();
    match (call.name, &words[..]) {
        ("podman", ["run", ..]) => return super::exporters::run_container(call),
        ("podman", ["container", "inspect", ..]) => return super::exporters::inspect(call),
        _ => {}
    }
    if !call.has("--version") && !call.has("-v") {
        let said = format!("{}: a simulated host runs no containers\n", call.name);
        return Ok(Outcome::err(said, 125));
    }
    let text = match call.name {
        "dockerd" => "Docker version 28.5.1, build f8215cc\n",
        "podman" => "podman version 5.4.2\n",
        "crun" => {
            "crun version 1.21\ncommit: 10269840aa07fb7e6b7e1acff6198692d8ff5c88\nrundir: /run/crun\nspec: 1.0.0\n"
        }
        _ => {
            "runc version 1.1.15+ds1\ncommit: 1.1.15+ds1-2+b4\nspec: 1.0.2-dev\ngo: go1.24.4\nlibseccomp: 2.6.0\n"
        }
    };
    Ok(Outcome::out(text, 0))
}
