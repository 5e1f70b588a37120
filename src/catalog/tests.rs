//! Tests of loading and finding models.

use std::path::Path;

use super::*;

/// A catalog of one made-up file, or what is wrong with it.
fn read(text: &str) -> Result<Vec<Model>, String> {
    let (node, mut problems) = crate::yaml::load(Path::new("x.yml"), text);
    let node = node.expect("the test's YAML is legal");
    let models = load::models(&node, &mut problems);
    if problems.has_errors() {
        return Err(problems.to_string());
    }
    Ok(models.into_iter().map(|read| read.model).collect())
}

fn shipped() -> Catalog {
    Catalog::load(&Content::shipped()).expect("the shipped files are right")
}

const ONE: &str = "\
vendor: nvidia
models:
  A30:
    name: NVIDIA A30
    architecture: ampere
    device_ids: [{device: 0x20b7, name: x}]
    technologies: [mig, none]
    mig:
      compute_slices: 4
      memory_slices: 4
      profiles:
        - {name: 1g.6gb, id: 14, compute_slices: 1, memory_slices: 1, max: 4, starts: [0, 1, 2, 3]}
        - {name: 2g.12gb, id: 5, compute_slices: 2, memory_slices: 2, max: 2, starts: [0, 2]}
";

#[test]
fn a_small_file_is_read() {
    let models = read(ONE).expect("it is right");
    let mig = models[0].mig.as_ref().expect("it has MIG");
    assert_eq!(models[0].device_ids[0].device, 0x20b7);
    assert_eq!(mig.profiles[1].placements[1].start, 2);
    assert_eq!(mig.profiles[1].placements[1].size, 2);
}

#[test]
fn each_mistake_is_named_where_it_stands() {
    // What is replaced, by what, and what must be said, at which line and column.
    let cases = [
        (
            "architecture:",
            "architcture:",
            "x.yml:5:5: unknown key `architcture` in a model (did you mean `architecture`?)",
        ),
        ("ampere", "amper", "x.yml:5:19: `architecture` is `amper`"),
        (
            "0x20b7",
            "2230",
            "x.yml:6:27: a PCI id is four hexadecimal digits",
        ),
        ("0x20b7", "0x20b7f", "a PCI id is four hexadecimal digits"),
        (
            "[mig, none]",
            "[mgi, none]",
            "x.yml:7:20: unknown technology `mgi` (did you mean `mig`?)",
        ),
        ("[mig, none]", "[mig, mig]", "`mig` stands here twice"),
        (
            "[mig, none]",
            "[none]",
            "`mig` stands here, but `mig` is not in `technologies`",
        ),
        ("[mig, none]", "[]", "`technologies` must not be empty"),
        (
            "[mig, none]",
            "[mig, partition]",
            "a model with `partition` needs `partitions`",
        ),
        (
            "ampere",
            "ada",
            "a model with `mig` needs `architecture: ampere`",
        ),
        (
            "max: 4",
            "max: 5",
            "x.yml:12:76: profile `1g.6gb`: 5 do not fit: there is room for 4",
        ),
        ("max: 2", "max: 3", "3 do not fit: there is room for 2"),
        (
            "starts: [0, 2]",
            "starts: [0, 3]",
            "2 slices from 3 on leave the grid of 4",
        ),
        (
            "starts: [0, 2]",
            "starts: [2, 0]",
            "write each start once, in rising order",
        ),
        ("starts: [0, 2]", "starts: []", "`starts` is missing"),
        ("id: 5", "id: 14", "profile `1g.6gb` has the same id"),
        (
            "name: 2g.12gb",
            "name: 1g.6gb",
            "profile `1g.6gb` stands here twice",
        ),
        (
            "name: 2g.12gb",
            "name: 3g.12gb",
            "the name says 3 compute slices, this says 2",
        ),
        (
            "name: 2g.12gb",
            "name: half",
            "a profile's name has the form",
        ),
        (
            "compute_slices: 4",
            "compute_slices: 1",
            "profile `2g.12gb`: the card has only 1",
        ),
        (
            "      memory_slices: 4\n",
            "",
            "`memory_slices` are not given",
        ),
        (
            "id: 5",
            "id: five",
            "`id` must be an integer, this is a string",
        ),
        (
            "id: 5",
            "id: -5",
            "`id` is -5, but must lie between 0 and 1023",
        ),
        (
            "vendor: nvidia",
            "vendor: nvida",
            "x.yml:1:9: `vendor` is `nvida`, but must be one of nvidia, amd, intel (did you mean `nvidia`?)",
        ),
        ("    name: NVIDIA A30\n", "", "a model needs `name`"),
    ];
    for (right, wrong, expected) in cases {
        assert!(ONE.contains(right), "{right}");
        let said = read(&ONE.replacen(right, wrong, 1)).expect_err(wrong);
        assert!(
            said.contains(expected),
            "{wrong}:\n{said}\nexpected:\n{expected}"
        );
    }
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let text = ONE
        .replace("ampere", "amper")
        .replace("id: 5", "id: x")
        .replace("max: 4", "max: 9");
    let said = read(&text).expect_err("three mistakes");
    assert_eq!(said.lines().count(), 4, "{said}");
}

#[test]
fn two_models_cannot_share_an_id_or_a_key() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let vars = folder.path().join("vars");
    std::fs::create_dir(&vars).expect("a folder");
    let mine = ONE.replace("A30:", "a30-24gb:");
    std::fs::write(vars.join("my_gpu_models.yml"), mine).expect("a file");
    let (content, _) = Content::find(Some(folder.path()), &[]);
    let problems = Catalog::load(&content).expect_err("both are taken");
    let said = problems.to_string();
    assert!(
        said.contains("PCI device id 0x20b7 is given twice"),
        "{said}"
    );
    assert!(said.contains("there are two models"), "{said}");
    assert!(problems.0.iter().all(|d| d.related.len() == 1));
}

#[test]
fn a_project_adds_a_model_with_a_file_of_its_own() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let vars = folder.path().join("vars");
    std::fs::create_dir(&vars).expect("a folder");
    let mine = ONE.replace("A30", "MINE").replace("0x20b7", "0xfff0");
    std::fs::write(vars.join("my_gpu_models.yml"), mine).expect("a file");
    let (content, problems) = Content::find(Some(folder.path()), &[]);
    assert_eq!(problems, Problems::default());
    let catalog = Catalog::load(&content).expect("nothing collides");
    let model = catalog.by_pci(Vendor::Nvidia, 0xfff0).expect("the new one");
    assert_eq!(model.key, "MINE");
    assert!(catalog.models().len() > 60);
}

#[test]
fn models_are_found_by_what_people_call_them() {
    let catalog = shipped();
    let keys = |text: &str| -> Vec<String> {
        catalog
            .by_name(text)
            .iter()
            .map(|m| m.key.clone())
            .collect()
    };
    assert_eq!(keys("H100-80GB"), ["H100-80GB"]);
    assert_eq!(keys("h100-80gb"), ["H100-80GB"]);
    assert_eq!(keys("A100 80GB"), ["A100-80GB"]);
    assert_eq!(keys("NVIDIA A100-SXM4-40GB"), ["A100-40GB"]);
    // The form before R470 has no maker's name in it.
    assert_eq!(keys("A100-PCIE-40GB"), ["A100-40GB"]);
    assert_eq!(keys("NVIDIA H100 80GB HBM3"), ["H100-80GB"]);
    assert_eq!(keys("L40"), ["L40"]);
    assert_eq!(keys("h200"), ["H200-141GB"]);
    assert_eq!(keys("GH200 96GB"), ["H100-96GB_GH200-96GB"]);
    assert_eq!(keys("RTX PRO 6000"), ["RTX-PRO-6000-96GB"]);
    assert_eq!(keys("MI300X"), ["MI300X"]);
    assert_eq!(keys("Arc Pro B60"), ["Arc-Pro-B60"]);
    assert_eq!(keys("H100").len(), 3);
    assert_eq!(keys("nvidia"), Vec::<String>::new());
    assert_eq!(keys(""), Vec::<String>::new());

    let unknown = catalog.resolve("H100-80BG").expect_err("a typo");
    assert_eq!(unknown.hint.as_deref(), Some("did you mean `H100-80GB`?"));
    let beginning = catalog.resolve("mi30").expect_err("only its beginning");
    assert_eq!(
        beginning.hint.as_deref(),
        Some("there are MI300A, MI300X, MI300X-HF, MI308X")
    );
    let strange = catalog.resolve("voodoo").expect_err("no such card");
    assert!(
        strange
            .hint
            .is_some_and(|hint| hint.contains("deploy catalog"))
    );
    let ambiguous = catalog.resolve("A100").expect_err("two of them");
    assert_eq!(
        ambiguous.hint.as_deref(),
        Some("choose one of A100-40GB, A100-80GB")
    );
}

#[test]
fn the_seeds_wrong_claims_are_not_in_the_catalog() {
    let catalog = shipped();
    let has = |key: &str, technology| {
        let model = catalog.by_key(key).expect(key);
        model.technologies.contains(&technology)
    };
    for key in ["MI50", "MI100", "MI250", "MI300A"] {
        assert!(!has(key, Technology::Sriov), "{key}");
    }
    for key in ["MI210", "MI300X", "V710", "Flex-170", "Arc-Pro-B50"] {
        assert!(has(key, Technology::Sriov), "{key}");
    }
    assert!(!has("Arc-B580", Technology::Sriov));
    assert!(!has("iGPU-Raptor-Lake", Technology::LevelZero));
    let profiles = |key: &str| -> Vec<String> {
        let mig = catalog.by_key(key).and_then(|m| m.mig.clone());
        mig.into_iter()
            .flat_map(|mig| mig.profiles)
            .map(|spec| spec.name)
            .collect()
    };
    assert!(!profiles("A100-40GB").contains(&"4g.40gb".to_owned()));
    assert!(!profiles("H100-80GB").contains(&"4g.80gb".to_owned()));
    assert!(profiles("H100-80GB").contains(&"7g.80gb".to_owned()));
}
