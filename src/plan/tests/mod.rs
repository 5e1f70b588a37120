//! Plans of whole playbooks, against hosts that answer by a function.

mod gpu;
mod handlers;
mod mistakes;
mod reboots;
mod tasks;

use std::path::Path;

use super::*;
use crate::content::Content;
use crate::error::Origin;
use crate::facts::{Fact, Gpu, GpuUuid, Init, MigMode, MigState, NvidiaGpu, PciAddress, Vendor};
use crate::module;
use crate::step::{Change, Class};
use crate::transport::{Output, PathState, Reply};
use crate::value::Value;

fn facts(gpus: Vec<Gpu>) -> HostFacts {
    HostFacts {
        kernel: Fact::Known("6.12.0".to_owned()),
        arch: Fact::Known("x86_64".to_owned()),
        boot_id: Fact::Known("boot".to_owned()),
        nvidia_driver: Fact::Known("590.48.01".to_owned()),
        gpus,
        ..HostFacts::default()
    }
}

fn h100(index: u32) -> Gpu {
    Gpu {
        pci: PciAddress {
            domain: 0,
            bus: 0x17 + u8::try_from(index).unwrap_or(0),
            device: 0,
            function: 0,
        },
        vendor: Vendor::Nvidia,
        device_id: 0x2330,
        subsystem: Fact::Absent,
        class: 0x03_02_00,
        model: Fact::Known("H100-80GB".to_owned()),
        driver: Fact::Known("nvidia".to_owned()),
        iommu_group: Fact::Absent,
        numa_node: Fact::Absent,
        reset: Fact::Absent,
        sriov: Fact::Absent,
        nvidia: Fact::Known(NvidiaGpu {
            index,
            uuid: GpuUuid(format!("GPU-{index}")),
            name: "NVIDIA H100 80GB HBM3".to_owned(),
            memory_mib: Fact::Known(81_559),
            compute_capability: Fact::Known(90),
            persistence: Fact::Known(true),
            compute_mode: Fact::Absent,
            timeslice: Fact::Absent,
            mps: Fact::Absent,
            mig: Fact::Known(MigState {
                current: MigMode::Disabled,
                pending: MigMode::Disabled,
                profiles: Fact::Unknown("the mode is off".to_owned()),
                instances: Fact::Known(Vec::new()),
            }),
        }),
        intel: Fact::Absent,
        vgpu: Fact::Absent,
        amd: Fact::Absent,
        holders: Fact::Known(Vec::new()),
    }
}

/// A playbook with everything that it takes to plan it for one host.
struct Bench {
    playbook: Playbook,
    vars: Vars,
    extra: Vars,
    facts: HostFacts,
    catalog: Catalog,
    project: Project,
    tags: Tags,
    allow_reboot: bool,
    host: HostName,
}

impl Bench {
    fn new(playbook: &str, vars: &str) -> Self {
        let (bench, problems) = Self::try_new(playbook, vars);
        assert_eq!(problems, Problems::default());
        bench
    }

    fn try_new(playbook: &str, vars: &str) -> (Self, Problems) {
        let content = Content::shipped();
        let catalog = Catalog::load(&content).expect("the shipped catalog is sound");
        let project = Project::new(content, None);
        let (playbook, mut problems) =
            crate::playbook::load(Path::new("play.yml"), playbook, &module::names(), &project);
        let (node, found) = crate::yaml::load(Path::new("vars.yml"), vars);
        problems.extend(found);
        let mut all = Vars::new();
        if let Some(Value::Map(map)) = node.map(|node| node.value) {
            all.extend(map.into_iter().map(|(name, entry)| (name, entry.node)));
        }
        let bench = Self {
            playbook,
            vars: all,
            extra: Vars::new(),
            facts: facts(Vec::new()),
            catalog,
            project,
            tags: Tags::default(),
            allow_reboot: false,
            host: HostName::from("h1"),
        };
        (bench, problems)
    }

    fn input(&self) -> HostInput<'_> {
        HostInput {
            playbook: &self.playbook,
            plays: &[0],
            host: &self.host,
            vars: &self.vars,
            extra: &self.extra,
            groups: None,
        }
    }

    fn once(&self, cache: &ReadCache) -> Result<Planned, Problems> {
        host(
            &PlanInput {
                host: self.input(),
                facts: &self.facts,
                catalog: &self.catalog,
                project: &self.project,
                tags: &self.tags,
                allow_reboot: self.allow_reboot,
                share: None,
            },
            cache,
        )
    }

    /// Plans against a host that answers by `answer`; also the number of batches.
    fn plan_with(
        &self,
        answer: impl Fn(&Read) -> Reply,
    ) -> Result<(HostPlan, Vec<Read>, usize), Problems> {
        let mut cache = ReadCache::default();
        for batches in 0..5 {
            match self.once(&cache)? {
                Planned::Complete(found) => return Ok((found.plan, found.reads, batches)),
                Planned::Needs(reads) => {
                    let replies = reads.iter().map(&answer).collect();
                    cache.add(&reads, replies);
                }
            }
        }
        panic!("the plan never has enough");
    }

    fn plan(&self) -> HostPlan {
        self.plan_with(bare_host).expect("a plan").0
    }

    fn refusal(&self) -> String {
        match self.plan_with(bare_host) {
            Err(problems) => problems.to_string(),
            Ok((plan, ..)) => panic!("expected a refusal, got {:?}", titles(&plan)),
        }
    }

    fn check(&self) -> String {
        let checked = check(
            &self.playbook,
            &[self.input()],
            &self.project,
            &self.catalog,
        );
        checked.problems.to_string()
    }
}

fn titles(plan: &HostPlan) -> Vec<&str> {
    plan.steps.iter().map(|step| step.title.as_str()).collect()
}

fn directory() -> Reply {
    Reply::State(PathState::Directory {
        mode: 0o755,
        owner: "root".to_owned(),
        group: "root".to_owned(),
    })
}

fn output(text: &str) -> Reply {
    Reply::Command(Output {
        stdout: text.as_bytes().to_vec(),
        ..Output::default()
    })
}

/// A host with the usual directories and none of our files.
fn bare_host(read: &Read) -> Reply {
    match read {
        Read::State { path, .. }
            if ["/etc", "/opt", "/etc/systemd", "/etc/systemd/system"].contains(&path.as_str()) =>
        {
            directory()
        }
        Read::State { .. } => Reply::State(PathState::Absent),
        Read::Command { command, .. } if command.display().contains("id -un") => {
            output("root\nroot\n")
        }
        Read::Command { command, .. } if command.display().starts_with("systemctl show") => output(
            "LoadState=not-found\nActiveState=inactive\nUnitFileState=\nNeedDaemonReload=no\n",
        ),
        Read::Command { .. } => output("said\n"),
        Read::Glob { .. } => Reply::Glob(Vec::new()),
        other => panic!("unexpected read {other:?}"),
    }
}

fn shipped_gpu_play() -> String {
    let content = Content::shipped();
    content.playbook("gpu.yml").expect("it is shipped").text
}

const MIG: &str = "
containers_gpu_slicing:
  enabled: true
  strategy: mig
  mig: {enabled: true, profiles: [3g.40gb, 2g.20gb, 1g.10gb, 1g.10gb]}
";
