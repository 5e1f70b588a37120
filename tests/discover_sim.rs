//! Discovery of simulated hosts over SSH: two programs written apart, ours and the simulator's,
//! must agree on what a host is.

use std::path::PathBuf;
use std::time::Duration;

use deploy::catalog::Catalog;
use deploy::content::Content;
use deploy::desired::Discovery;
use deploy::discover;
use deploy::error::Origin;
use deploy::facts::{Fact, Gpu, HostFacts, Init, MigMode, NvidiaGpu, Vendor};
use deploy::shell::Command;
use deploy::sim::{Fleet, Options};
use deploy::transport::{self, Connected, Context, Exec, Target};
use deploy::value::{HostName, Node, Vars};
use serde_json::json;

struct Sim {
    fleet: Fleet,
    catalog: Catalog,
    _state: tempfile::TempDir,
}

impl Sim {
    async fn new(hosts: &[(&str, serde_json::Value)]) -> Self {
        let state = tempfile::tempdir().expect("a folder");
        let origin = Origin::whole("hosts.yml", "");
        let hosts: Vec<(HostName, Vars)> = hosts
            .iter()
            .map(|(name, sim)| {
                let mut vars = Vars::new();
                let sim_connection = Node::from_json(&json!("sim"), &origin);
                vars.insert("ansible_connection".to_owned(), sim_connection);
                vars.insert("sim".to_owned(), Node::from_json(sim, &origin));
                (HostName::from(*name), vars)
            })
            .collect();
        let options = Options {
            binary: PathBuf::from(env!("CARGO_BIN_EXE_deploy")),
            ..Options::new(state.path()).expect("our own path")
        };
        let fleet = Fleet::start(&hosts, &options).await.expect("it starts");
        let catalog = Catalog::load(&Content::shipped()).expect("the shipped files are right");
        Self {
            fleet,
            catalog,
            _state: state,
        }
    }

    async fn connect(&self, name: &str) -> Connected {
        let host = HostName::from(name);
        let endpoint = self.fleet.endpoint(&host).expect("a host of the fleet");
        let key = std::fs::read_to_string(&endpoint.private_key).expect("the key");
        let host_key = endpoint.host_public_key.to_openssh().expect("a key");
        let target = Target::for_endpoint(
            &host,
            endpoint.addr,
            &endpoint.user,
            &key,
            &host_key,
            &endpoint.root,
        )
        .expect("our own keys");
        let reads = discover::reads(&Discovery::default(), &self.catalog);
        transport::connect(&target, &Context::default(), &reads)
            .await
            .expect("the host is there")
    }

    async fn facts(&self, name: &str) -> HostFacts {
        let discovery = Discovery::default();
        let replies = self.connect(name).await.first;
        discover::facts(
            &discover::reads(&discovery, &self.catalog),
            &replies,
            &self.catalog,
            &discovery,
        )
    }
}

async fn run(host: &mut Connected, words: &[&str]) {
    let exec = Exec {
        command: Command::new(words[0]).args(words[1..].iter().copied()),
        stdin: Vec::new(),
        timeout: Duration::from_secs(60),
        limit: 1 << 16,
    };
    let mut ignore = |_: &[u8]| {};
    let output = host
        .session
        .exec(&exec, &mut ignore)
        .await
        .expect("connected");
    assert!(output.success(), "{words:?}: {output:?}");
}

fn nvidia(gpu: &Gpu) -> &NvidiaGpu {
    gpu.nvidia.known().expect("nvidia-smi answers")
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_simulated_host_is_known() {
    let sim = Sim::new(&[
        (
            "h100",
            json!({"driver": "590.48.01", "gpus": [{"product": "H100-80GB", "count": 8}]}),
        ),
        (
            "a30",
            json!({"driver": "535.183.01", "gpus": [{"product": "A30-24GB", "count": 2}]}),
        ),
        (
            "l40s",
            json!({"driver": "595.80", "gpus": [{"product": "L40S"}]}),
        ),
        ("flex", json!({"gpus": [{"product": "Flex-170"}]})),
        ("web", json!({})),
    ])
    .await;

    let h100 = sim.facts("h100").await;
    assert_eq!(h100.notes, Vec::<String>::new());
    assert_eq!(h100.init, Init::Systemd);
    assert!(h100.kernel.known().is_some() && h100.os.known().is_some());
    assert!(h100.boot_id.known().is_some() && h100.cmdline.known().is_some());
    assert_eq!(h100.nvidia_driver, Fact::Known("590.48.01".to_owned()));
    assert_eq!(h100.gpus.len(), 8);
    for (index, gpu) in h100.gpus.iter().enumerate() {
        assert_eq!(gpu.model, Fact::Known("H100-80GB".to_owned()));
        assert_eq!(gpu.driver, Fact::Known("nvidia".to_owned()));
        assert_eq!(gpu.holders.known().map(Vec::len), Some(0), "{gpu:?}");
        let card = nvidia(gpu);
        assert_eq!(usize::try_from(card.index), Ok(index));
        assert_eq!(card.memory_mib, Fact::Known(81559));
        assert_eq!(card.compute_capability, Fact::Known(90));
        assert_eq!(card.timeslice, Fact::Known("Default".to_owned()));
        let mig = card.mig.known().expect("it has MIG");
        assert_eq!(mig.current, MigMode::Disabled);
        assert_eq!(mig.instances, Fact::Known(Vec::new()));
        let profiles = mig.profiles.known().expect("this driver lists them");
        assert_eq!(profiles.len(), 7);
        assert!(profiles.iter().all(|p| p.placements.known().is_some()));
    }

    // R535 lists profiles only with the mode on.
    let a30 = sim.facts("a30").await;
    let mig = nvidia(&a30.gpus[0]).mig.known().expect("it has MIG");
    assert!(mig.profiles.unknown().is_some());

    let l40s = sim.facts("l40s").await;
    assert_eq!(nvidia(&l40s.gpus[0]).mig, Fact::Absent);

    let flex = sim.facts("flex").await;
    assert_eq!(flex.gpus[0].vendor, Vendor::Intel);
    let sriov = flex.gpus[0].sriov.known().expect("it has SR-IOV");
    assert_eq!((sriov.total_vfs, sriov.num_vfs), (31, 0));

    let web = sim.facts("web").await;
    assert!(web.gpus.is_empty() && web.notes.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layout_made_by_the_tool_is_read_back_with_places_and_uuids() {
    let sim = Sim::new(&[(
        "h100",
        json!({"driver": "590.48.01", "gpus": [{"product": "H100-80GB", "count": 2}]}),
    )])
    .await;
    let mut host = sim.connect("h100").await;
    run(&mut host, &["nvidia-smi", "-i", "1", "-mig", "1"]).await;
    run(
        &mut host,
        &[
            "nvidia-smi",
            "mig",
            "-i",
            "1",
            "-cgi",
            "9:4,14:0,19:2",
            "-C",
        ],
    )
    .await;
    run(&mut host, &["nvidia-smi", "mig", "-i", "1", "-cgi", "19:3"]).await;

    let facts = sim.facts("h100").await;
    let first = nvidia(&facts.gpus[0]).mig.known().expect("it has MIG");
    assert_eq!(first.current, MigMode::Disabled);
    assert_eq!(first.instances, Fact::Known(Vec::new()));
    let second = nvidia(&facts.gpus[1]).mig.known().expect("it has MIG");
    assert_eq!(second.current, MigMode::Enabled);
    let mut layout: Vec<(u32, String, usize)> = second
        .instances
        .known()
        .expect("they are listed")
        .iter()
        .map(|gi| {
            let compute = gi.compute.known().expect("they are listed");
            for instance in compute {
                let uuid = instance.uuid.known().expect("it is listed");
                assert!(uuid.starts_with("MIG-"), "{uuid}");
            }
            (gi.placement.start, gi.profile.clone(), compute.len())
        })
        .collect();
    layout.sort();
    let slice = |start, profile: &str, compute| (start, profile.to_owned(), compute);
    assert_eq!(
        layout,
        [
            slice(0, "2g.20gb", 1),
            slice(2, "1g.10gb", 1),
            slice(3, "1g.10gb", 0),
            slice(4, "3g.40gb", 1),
        ]
    );
    let table = deploy::cli::discover::table(&[("h100", &facts)], &sim.catalog, 80);
    assert!(
        table
            .lines()
            .any(|line| line.starts_with("  │2g.20gb") && line.ends_with("│")),
        "{table}"
    );
}
