//! The stand-in's output against captures, byte for byte.

use std::path::Path;

use serde_json::{Value as Json, json};

use crate::error::Origin;
use crate::sim::machine::Host;
use crate::sim::tools::{Call, Outcome};
use crate::sim::{host, spec};
use crate::value::{Node, Vars};

fn capture(name: &str) -> String {
    let path = format!(
        "{}/tests/fixtures/captures/intel/{name}",
        env!("CARGO_MANIFEST_DIR")
    );
    std::fs::read_to_string(path).expect("the capture")
}

/// A machine in a folder of its own.
fn machine(sim: &Json) -> (tempfile::TempDir, Host) {
    let folder = tempfile::tempdir().expect("a folder");
    let origin = Origin::whole("hosts.yml", "");
    let vars: Vars = [("sim".to_owned(), Node::from_json(sim, &origin))]
        .into_iter()
        .collect();
    let (spec, problems) = spec::read(&vars);
    assert_eq!(problems.0, []);
    let made = Host::new(folder.path());
    host::ensure(&made, "golden", &spec, Path::new("/nonexistent")).expect("made");
    (folder, made)
}

fn say(host: &Host, line: &str) -> Outcome {
    let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    let call = Call {
        host,
        name: "xpu-smi",
        args: &args,
    };
    super::run(&call).expect("it runs")
}

fn text(outcome: &Outcome) -> String {
    String::from_utf8(outcome.stdout.clone()).expect("text")
}

#[test]
fn functions_are_made_listed_and_removed_as_captured() {
    let (_folder, host) =
        machine(&json!({"gpus": [{"product": "Flex-170", "pci": ["0000:4d:00.0"]}]}));
    let made = say(&host, "vgpu -d 0 -c -n 4 --lmem 500");
    assert_eq!(text(&made), capture("xpu-smi-vgpu-create-4.v1.txt"));
    let listed = say(&host, "vgpu -d 0000:4d:00.0 -l");
    assert_eq!(text(&listed), capture("xpu-smi-vgpu-list.v1.txt"));
    let again = say(&host, "vgpu -d 0 -c -n 2 --lmem 500");
    assert!(again.status != 0 && text(&again).contains("dirty PF"));
    // The question and its answer were typed; with -y there is none.
    let removed =
        capture("xpu-smi-vgpu-remove.v1.txt").replace("Please confirm to proceed (y/n) y\n", "");
    assert_eq!(
        text(&say(&host, "vgpu -d 0 -r -y")).trim_end(),
        removed.trim_end()
    );
    let empty = say(&host, "vgpu -d 0 -l");
    assert!(text(&empty).contains("16260.97 MiB"), "{}", text(&empty));
}

#[test]
fn the_check_and_the_help_are_as_captured() {
    let card = json!({"product": "Flex-170", "guc": false});
    let (_folder, host) = machine(&json!({"gpus": [card]}));
    let checked = say(&host, "vgpu --precheck");
    assert_eq!(text(&checked), capture("xpu-smi-vgpu-precheck.fail.v1.txt"));
    assert_eq!(
        text(&say(&host, "vgpu")),
        capture("xpu-smi-vgpu-help.v1.txt")
    );
    let (_folder, host) = machine(&json!({"gpus": ["Flex-170"], "processor": "amd"}));
    assert!(text(&say(&host, "vgpu --precheck")).contains("No VMX flag"));
}

#[test]
fn the_list_of_cards_is_as_captured() {
    let (_folder, host) = machine(&json!({"gpus": [{"product": "Flex-170", "count": 2}]}));
    let dumped = say(&host, "discovery --dump 1,2,3,6");
    assert_eq!(text(&dumped), capture("xpu-smi-discovery-dump.v1.csv"));
    // Another card, the same words.
    let shape = |text: &str| -> Vec<String> {
        let words = text.split_whitespace().filter(|word| !word.contains("0x"));
        words
            .filter(|w| w.ends_with(':') || w.starts_with('"'))
            .map(str::to_owned)
            .collect()
    };
    let (_folder, host) =
        machine(&json!({"gpus": [{"product": "Flex-170", "pci": ["0000:4d:00.0"]}]}));
    let json = text(&say(&host, "discovery -j"));
    let theirs = capture("xpu-smi-discovery.v1.json");
    assert_eq!(shape(&json)[..4], shape(&theirs)[..4]);
    assert_eq!(json.lines().count(), theirs.lines().count());
    let table = text(&say(&host, "discovery"));
    let theirs = capture("xpu-smi-discovery.v1.txt");
    assert_eq!(table.lines().count(), theirs.lines().count());
    assert_eq!(table.lines().next(), theirs.lines().next());
    assert_eq!(table.lines().last(), theirs.lines().last());
}
