//! Strategies on simulated hosts, through real SSH: from facts to steps, the steps carried
//! out one by one, read back by discovery, undone in reverse, and brought back after a
//! reboot by the boot unit.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use deploy::catalog::Catalog;
use deploy::content::Content;
use deploy::desired::{self, Desired, Discovery};
use deploy::discover;
use deploy::error::{Origin, Source};
use deploy::facts::{Fact, HostFacts, MigMode};
use deploy::render::{self, Binding, Layer, Scope};
use deploy::shell::{Command, Script};
use deploy::sim::{Fault, Fleet, Options, break_host};
use deploy::step::Step;
use deploy::strategy;
use deploy::transport::{self, Context, Exec, Output, Session, Target};
use deploy::value::{HostName, Node, Vars};
use serde_json::{Value as Json, json};

pub(super) struct Machine {
    fleet: Fleet,
    pub(super) catalog: Catalog,
    _state: tempfile::TempDir,
}

const NAME: &str = "gpu-1";

impl Machine {
    pub(super) async fn new(sim: Json) -> Self {
        let state = tempfile::tempdir().expect("a folder");
        let origin = Origin::whole("hosts.yml", "");
        let vars = [("ansible_connection", json!("sim")), ("sim", sim)];
        let vars: Vars = vars
            .into_iter()
            .map(|(name, value)| (name.to_owned(), Node::from_json(&value, &origin)))
            .collect();
        let options = Options {
            binary: PathBuf::from(env!("CARGO_BIN_EXE_deploy")),
            ..Options::new(state.path()).expect("our own path")
        };
        let hosts = [(HostName::from(NAME), vars)];
        let fleet = Fleet::start(&hosts, &options)
            .await
            .expect("the fleet starts");
        let catalog = Catalog::load(&Content::shipped()).expect("the catalog is right");
        Self {
            fleet,
            catalog,
            _state: state,
        }
    }

    pub(super) fn root(&self) -> PathBuf {
        let endpoint = self.fleet.endpoint(&HostName::from(NAME));
        endpoint.expect("the host").root
    }

    /// A connection, and what discovery sees on it.
    pub(super) async fn look(&self) -> (Box<dyn Session>, HostFacts) {
        let endpoint = self
            .fleet
            .endpoint(&HostName::from(NAME))
            .expect("the host");
        let key = fs::read_to_string(&endpoint.private_key).expect("the key");
        let target = Target::for_endpoint(
            &HostName::from(NAME),
            endpoint.addr,
            &endpoint.user,
            &key,
            &endpoint.host_public_key.to_openssh().expect("a public key"),
            &endpoint.root,
        )
        .expect("the keys are right");
        let discovery = Discovery::default();
        let reads = discover::reads(&discovery, &self.catalog);
        // A host that has just been restarted may close a connection once more.
        let mut tries = 0;
        let connected = loop {
            match transport::connect(&target, &Context::default(), &reads).await {
                Ok(connected) => break connected,
                Err(_) if tries < 100 => tries += 1,
                Err(error) => panic!("the host is up: {error:?}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        let facts = discover::facts(&reads, &connected.first, &self.catalog, &discovery);
        (connected.session, facts)
    }

    pub(super) fn plan(&self, desired: &Desired, facts: &HostFacts) -> Vec<Step> {
        let problems = strategy::check_offline(desired, &self.catalog);
        assert!(!problems.has_errors(), "{problems}");
        let decisions = strategy::decide(desired, facts, &self.catalog);
        let decisions = decisions.unwrap_or_else(|problems| panic!("{problems}"));
        let steps = strategy::steps(&decisions, facts, desired, strategy::Boot::default());
        steps.unwrap_or_else(|problems| panic!("{problems}"))
    }
}

pub(super) fn slicing(mut slicing: Json) -> Desired {
    slicing["enabled"] = json!(true);
    let vars = json!({ "containers_gpu_slicing": slicing });
    let origin = Origin::whole("vars.yml", vars.to_string());
    let node = Node::from_json(&vars, &origin);
    let map = node.as_map().expect("a mapping");
    let vars = map
        .iter()
        .map(|(name, entry)| (name.clone(), entry.node.clone()))
        .collect();
    let (desired, problems) = desired::read(&vars, &|_, _| Default::default());
    assert_eq!(problems.0, []);
    desired
}

pub(super) async fn run(session: &mut Box<dyn Session>, script: &Script) -> Output {
    let text = format!(
        "RUN=\"$R/tmp/run\"\nmkdir -p \"$RUN/snapshot\"\n{}\n{}",
        strategy::host_library(),
        script.to_sh()
    );
    let exec = Exec {
        command: Command::new("sh").arg("-c").arg(text),
        stdin: Vec::new(),
        timeout: Duration::from_secs(60),
        limit: 1 << 20,
    };
    session
        .exec(&exec, &mut |_| {})
        .await
        .expect("the host answers")
}

pub(super) async fn well(session: &mut Box<dyn Session>, what: &str, script: &Script) {
    let output = run(session, script).await;
    assert!(
        output.success(),
        "{what}: {script:?}: {}{}",
        output.text(),
        String::from_utf8_lossy(&output.stderr)
    );
}

pub(super) async fn carry_out(session: &mut Box<dyn Session>, steps: &[Step]) {
    for step in steps {
        well(session, "check", &step.check).await;
    }
    for step in steps {
        well(session, "snapshot", &step.snapshot).await;
        well(session, "apply", &step.apply).await;
        well(session, "verify", &step.verify).await;
    }
}

async fn undo(session: &mut Box<dyn Session>, steps: &[Step]) {
    for step in steps.iter().rev() {
        well(session, "undo", &step.undo).await;
        well(session, "undo twice", &step.undo).await;
    }
}

/// What the strategies change of each card.
pub(super) fn state(facts: &HostFacts) -> Vec<Json> {
    let card = |gpu: &deploy::facts::Gpu| {
        let nvidia = gpu.nvidia.known();
        let mig = nvidia.and_then(|nvidia| nvidia.mig.known());
        let instances = mig
            .and_then(|mig| mig.instances.known().cloned())
            .unwrap_or_default();
        let mut places: Vec<String> = instances
            .iter()
            .map(|gi| {
                format!(
                    "{}@{} {:?}",
                    gi.profile,
                    gi.placement.start,
                    gi.compute
                        .known()
                        .map(|c| c.iter().map(|c| c.profile.clone()).collect::<Vec<_>>())
                )
            })
            .collect();
        places.sort();
        json!({
            "pci": gpu.pci.to_string(),
            "mig": mig.map(|mig| mig.current == MigMode::Enabled),
            "places": places,
            "slice": nvidia.and_then(|nvidia| nvidia.timeslice.known()),
            "shares": gpu.intel.known().and_then(|intel| intel.provisioning.known()),
            "engines": gpu.intel.known().map(|intel| &intel.gts),
            "vfs": gpu.sriov.known().map(|sriov| (sriov.num_vfs, sriov.drivers_autoprobe.known().copied())),
        })
    };
    facts.gpus.iter().map(card).collect()
}

/// Applies each desired state after the other, expects nothing to do afterwards, and undoes
/// the last.
async fn through(sim: Json, desired: &[Json]) {
    let machine = Machine::new(sim).await;
    for wanted in desired {
        let wanted = slicing(wanted.clone());
        let (mut session, before) = machine.look().await;
        let steps = machine.plan(&wanted, &before);
        assert!(!steps.is_empty(), "{wanted:?} {before:?}");
        carry_out(&mut session, &steps).await;
        let (_, after) = machine.look().await;
        assert_ne!(state(&after), state(&before));
        let left: Vec<String> = machine
            .plan(&wanted, &after)
            .into_iter()
            .map(|s| s.title)
            .collect();
        assert_eq!(left, [""; 0], "{:?}", state(&after));
        undo(&mut session, &steps).await;
        let (_, undone) = machine.look().await;
        assert_eq!(state(&undone), state(&before));
        carry_out(&mut session, &steps).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hopper_goes_from_layout_to_layout_and_back() {
    through(
        json!({"gpus": [{"product": "H100-80GB", "count": 2}], "driver": "590.48.01"}),
        &[
            json!({"strategy": "mig", "mig": {"profiles": ["3g.40gb", "2g.20gb", "1g.10gb", "1g.10gb"]}}),
            json!({"strategy": "mig", "mig": {"profiles": ["3g.40gb"], "gpu_instance_count": 2}}),
            json!({"strategy": "mig", "mig": {"profiles": ["3g.40gb"], "gpu_instance_count": 2, "compute_instance_count": 3}}),
            json!({"strategy": "mig", "mig": {"profiles": ["1g.10gb"]}, "gpus": [
                {"match": {"index": 1}, "strategy": "time-slicing", "time_slicing": {"slice_duration": "short"}}]}),
            json!({"strategy": "mig", "request": {"1g.10gb+me": 2, "1g.20gb": 5}}),
            json!({"strategy": "none"}),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ampere_with_an_older_driver_does_too() {
    through(
        json!({"gpus": ["A100-40GB", "A30-24GB"], "driver": "535.183.01"}),
        &[
            json!({"strategy": "mig", "mig": {"profiles": ["1g.5gb"], "gpu_instance_count": 7}, "gpus": [
                {"match": {"model": "A30"}, "mig": {"profiles": ["2g.12gb", "1g.6gb", "1g.6gb+me"]}}]}),
            json!({"strategy": "auto"}),
            json!({"strategy": "none"}),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grid_of_twelve_units_and_cards_without_mig() {
    through(
        json!({"gpus": ["RTX-PRO-6000-96GB", "L40S"], "driver": "595.80"}),
        &[
            json!({"strategy": "mig", "mig": {"profiles": ["2g.48gb", "1g.24gb+me", "1g.24gb"]}, "gpus": [
                {"match": {"model": "L40S"}, "strategy": "time-slicing", "time_slicing": {"slice_duration": "long"}}]}),
            json!({"strategy": "mig", "mig": {"profiles": ["1g.24gb-me", "1g.24gb+me.all"]}, "gpus": [
                {"match": {"model": "L40S"}, "strategy": "none"}]}),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn virtual_functions_of_intel_cards() {
    through(
        json!({"gpus": [{"product": "Flex-170", "count": 2}]}),
        &[
            json!({"strategy": "sriov", "sriov": {"vf_count": 4, "drivers_autoprobe": false}}),
            json!({"strategy": "sriov", "sriov": {"vf_count": 2}}),
            json!({"strategy": "none"}),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_that_is_taken_between_plan_and_change_stops_the_check() {
    let machine = Machine::new(json!({"gpus": ["H100-80GB"], "driver": "590.48.01"})).await;
    let wanted = slicing(json!({"strategy": "mig", "mig": {"profiles": ["7g.80gb"]}}));
    let (mut session, facts) = machine.look().await;
    let steps = machine.plan(&wanted, &facts);
    let fault = Fault::InUse {
        gpu: 0,
        command: "python3".to_owned(),
        unit: Some("train.service".to_owned()),
    };
    break_host(&machine.root(), &fault).expect("somebody takes the card");
    let output = run(&mut session, &steps[0].check).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.success(), "{said}");
    assert!(
        said.contains("is in use by pid") && said.contains("(python3, unit train.service)"),
        "{said}"
    );
    // And the next plan says so before anything is asked.
    let (_, facts) = machine.look().await;
    let decisions = strategy::decide(&wanted, &facts, &machine.catalog).expect("decided");
    let refused = strategy::steps(&decisions, &facts, &wanted, strategy::Boot::default())
        .expect_err("in use");
    assert!(refused.to_string().contains("python3"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pending_mode_is_put_in_force_by_a_reset_or_refused() {
    let machine = Machine::new(json!({"gpus": ["A100-40GB"], "driver": "535.183.01"})).await;
    machine.look().await;
    break_host(&machine.root(), &Fault::Pending { gpu: 0 }).expect("a mode is pending");
    let wanted = slicing(json!({"strategy": "mig", "mig": {"profiles": ["3g.20gb"]}}));
    let (mut session, facts) = machine.look().await;
    let steps = machine.plan(&wanted, &facts);
    assert!(
        steps[0].title.starts_with("reset GPU 0"),
        "{}",
        steps[0].title
    );
    carry_out(&mut session, &steps).await;
    let (_, after) = machine.look().await;
    assert_eq!(machine.plan(&wanted, &after), []);
}

/// The shipped template, rendered with what a decision gives.
fn rendered(name: &str, vars: &Json) -> String {
    let shipped = Content::shipped()
        .template(name)
        .expect("a shipped template");
    let source = Arc::new(Source {
        path: shipped.path,
        text: shipped.text,
    });
    let mut scope = Scope::default();
    for (name, value) in vars.as_object().expect("variables") {
        scope.set(Layer::Set, name, Binding::Known(value.clone()));
    }
    render::template(&source, &scope).expect("it renders")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_boot_unit_brings_the_same_slices_back_after_a_reboot() {
    let machine = Machine::new(
        json!({"gpus": [{"product": "H100-80GB", "count": 3}, "Flex-170"], "driver": "590.48.01"}),
    )
    .await;
    let wanted = slicing(
        json!({"strategy": "mig", "mig": {"profiles": ["3g.40gb", "1g.10gb", "2g.20gb"]}, "gpus": [
            {"match": {"index": 1}, "strategy": "time-slicing", "time_slicing": {"slice_duration": "20ms", "max_instance_count": 4}},
            {"match": {"uuid": "GPU-none"}, "strategy": "none"},
            {"match": {"vendor": "intel"}, "strategy": "sriov", "sriov": {"vf_count": 3, "drivers_autoprobe": false}},
        ]}),
    );
    let (mut session, facts) = machine.look().await;
    let decisions = strategy::decide(&wanted, &facts, &machine.catalog).expect("decided");
    let steps =
        strategy::steps(&decisions, &facts, &wanted, strategy::Boot::default()).expect("planned");
    carry_out(&mut session, &steps).await;
    let vars = strategy::template_vars(&decisions, &facts);
    for (template, path) in [
        ("mig_config.j2", "etc/deploy/gpu/mig.conf"),
        ("sriov_config.j2", "etc/deploy/gpu/sriov.conf"),
        ("time_slicing_policy.j2", "etc/deploy/gpu/time_slicing.conf"),
        ("gpu_slices.sh.j2", "etc/deploy/gpu/gpu_slices.sh"),
        (
            "deploy-gpu.service.j2",
            "etc/systemd/system/deploy-gpu.service",
        ),
    ] {
        let path = machine.root().join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, rendered(template, &vars)).expect("a file");
    }
    let enable = Command::new("systemctl").args(["enable", "deploy-gpu.service"]);
    well(&mut session, "enable", &Script::one(enable)).await;
    let (mut session, before) = machine.look().await;
    let ids = Script::one(Command::new("nvidia-smi").arg("-L"));
    let list = run(&mut session, &ids).await.text();
    assert_eq!(list.matches("MIG ").count(), 6, "{list}");
    break_host(&machine.root(), &Fault::Reboot).expect("it reboots");
    let (mut session, after) = machine.look().await;
    assert_eq!(state(&after), state(&before));
    assert_eq!(run(&mut session, &ids).await.text(), list, "the same UUIDs");
    assert_ne!(after.boot_id, before.boot_id);
    assert!(matches!(after.boot_id, Fact::Known(_)));
    assert_eq!(machine.plan(&wanted, &after), []);
    let yaml = rendered("time_slicing_config.j2", &vars);
    let yaml: Json = serde_yaml::from_str(&yaml).expect("the sharing configuration is YAML");
    assert_eq!(
        yaml,
        json!({
            "version": "v1",
            "flags": {"migStrategy": "mixed"},
            "sharing": {"timeSlicing": {
                "renameByDefault": false,
                "failRequestsGreaterThanOne": false,
                "resources": [{"name": "nvidia.com/gpu", "replicas": 4}],
            }},
        })
    );
}

#[test]
fn the_boot_script_is_clean_shell() {
    let facts = serde_json::from_value::<HostFacts>(json!({
        "kernel": "absent", "arch": "absent", "os": "absent", "boot_id": "absent", "init": "systemd",
        "cmdline": "absent", "nvidia_driver": "absent", "modules": "absent", "gpus": [], "notes": [],
    }))
    .expect("facts");
    let script = tempfile::NamedTempFile::new().expect("a file");
    let text = rendered("gpu_slices.sh.j2", &strategy::template_vars(&[], &facts));
    assert!(text.starts_with("#!/bin/sh\n"), "{text}");
    fs::write(script.path(), text).expect("the script");
    let output = std::process::Command::new("shellcheck")
        // Functions that only steps call are not called here.
        .args(["-s", "sh", "--exclude=SC2317"])
        .arg(script.path())
        .output()
        .expect("shellcheck starts; tests/run installs it");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}
