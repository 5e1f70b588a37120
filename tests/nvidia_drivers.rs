//! Drivers of the branches 450 to 610: each prints other forms, and a host with any of them is
//! sliced, or told what its driver lacks.

use crate::technology::Bench;

/// What a branch prints, as captures and NVIDIA's pages show it.
struct Forms {
    driver: &'static str,
    card: &'static str,
    profiles: &'static str,
    /// Dashes in the rules of `-lgip` and of `-lgi`.
    rules: (usize, usize),
    /// Whether `-lci` has a column for places.
    places: bool,
    /// Whether a MIG device's UUID is `MIG-GPU-…/gi/ci`.
    old_uuid: bool,
    /// Whether `-lgip` answers while MIG mode is off.
    lists_offline: bool,
}

const A100: &str = "A100-40GB";
const A100_LAYOUT: &str = "3g.20gb, 2g.10gb, 1g.5gb, 1g.5gb";
const H100: &str = "H100-80GB";
const H100_LAYOUT: &str = "3g.40gb, 1g.20gb, 1g.10gb+me";

/// One command for all forms, so that one session shows them.
const LOOK: &str = "nvidia-smi -L; nvidia-smi mig -lgip; nvidia-smi mig -lgipp; \
                    nvidia-smi mig -lgi; nvidia-smi mig -lci; nvidia-smi";

fn goes(forms: &Forms) {
    let sim = format!("{{gpus: [{}], driver: '{}'}}", forms.card, forms.driver);
    let Some(bench) = Bench::new(&sim) else {
        return;
    };
    let driver = forms.driver;
    let layout = |profiles: &str| format!("strategy: mig, mig: {{profiles: [{profiles}]}}");
    bench.want(&layout(forms.profiles));
    bench.deploy(&["discover"]).expect(0).says(driver);
    let offline = bench.over_ssh("nvidia-smi mig -lgip");
    assert_eq!(
        offline.code == 0,
        forms.lists_offline,
        "{driver}: {}",
        offline.all()
    );

    bench.apply(&layout(forms.profiles));
    bench.settled();
    let text = bench.ssh(LOOK);
    let rule = |width: usize| format!("+{}+", "-".repeat(width));
    for width in [forms.rules.0, forms.rules.1] {
        let found = text.lines().any(|line| line == rule(width));
        assert!(found, "{driver}: no rule of {width} in\n{text}");
    }
    // Of the table of compute instances alone: 68 dashes with the column, 55 without.
    let with_places = text.lines().any(|line| line == rule(68));
    assert_eq!(with_places, forms.places, "{driver}:\n{text}");
    assert_eq!(
        text.contains("MIG-GPU-"),
        forms.old_uuid,
        "{driver}:\n{text}"
    );
    assert!(text.contains("Placements: {"), "{driver}:\n{text}");
    let wanted = forms.profiles.split(", ").count();
    assert_eq!(text.matches("(UUID: MIG-").count(), wanted, "{driver}");

    // What was read is what the tool says: the UUIDs stand in the facts.
    let facts = bench
        .deploy(&["discover", "--output", "json"])
        .expect(0)
        .out;
    let uuids = text.split("(UUID: MIG-").skip(1);
    for uuid in uuids.filter_map(|rest| rest.split(')').next()) {
        assert!(
            facts.contains(&format!("\"MIG-{uuid}\"")),
            "{driver}: {uuid}\n{facts}"
        );
    }
    bench.reboot();
    bench.settled();
}

#[test]
fn drivers_before_470_are_read_and_sliced() {
    for driver in ["450.80.02", "460.106.00"] {
        goes(&Forms {
            driver,
            card: A100,
            profiles: A100_LAYOUT,
            rules: (74, 52),
            places: false,
            old_uuid: true,
            lists_offline: false,
        });
    }
}

#[test]
fn drivers_from_470_to_535_are_read_and_sliced() {
    for (driver, card, profiles, rules, places) in [
        ("470.256.02", A100, A100_LAYOUT, (74, 52), false),
        ("510.47.03", A100, A100_LAYOUT, (77, 55), true),
        ("515.86.01", A100, A100_LAYOUT, (77, 55), true),
        ("525.147.05", H100, H100_LAYOUT, (77, 55), true),
        ("535.183.01", H100, H100_LAYOUT, (77, 55), true),
    ] {
        goes(&Forms {
            driver,
            card,
            profiles,
            rules,
            places,
            old_uuid: false,
            lists_offline: false,
        });
    }
}

#[test]
fn drivers_from_550_to_610_are_read_and_sliced() {
    for (driver, rules) in [
        ("550.127.06", (77, 55)),
        ("570.86.10", (77, 55)),
        ("575.57.08", (79, 57)),
        ("610.43.03", (79, 57)),
    ] {
        goes(&Forms {
            driver,
            card: H100,
            profiles: H100_LAYOUT,
            rules,
            places: true,
            old_uuid: false,
            lists_offline: true,
        });
    }
}

/// Profiles that came with later drivers: the host says which it has, and is left as it was.
#[test]
fn a_profile_that_came_with_a_later_driver_is_told() {
    for (driver, profile) in [("460.106.00", "1g.5gb+me"), ("470.256.02", "1g.10gb")] {
        let Some(bench) = Bench::new(&format!("{{gpus: [{A100}], driver: '{driver}'}}")) else {
            return;
        };
        bench
            .refused(&format!("strategy: mig, mig: {{profiles: [{profile}]}}"))
            .says("Invalid Argument")
            .says("this driver offers only 1g.5gb,")
            .says("rolled back");
        let mode = bench.ssh("nvidia-smi --query-gpu=mig.mode.current --format=csv,noheader");
        assert_eq!(mode, "Disabled\n");
    }
}

/// `[N/A]` and `[Not Supported]` are "there is none", `[Unknown Error]` is "nobody knows".
#[test]
fn cells_without_a_value_are_told_apart() {
    for (driver, word) in [("460.106.00", "[Not Supported]"), ("590.48.01", "[N/A]")] {
        let Some(bench) = Bench::new(&format!("{{gpus: [T4], driver: '{driver}'}}")) else {
            return;
        };
        bench.want("strategy: time-slicing, time_slicing: {slice_duration: short}");
        let shown = bench.deploy(&["discover"]).expect(0).out;
        let row = shown.lines().nth(1).unwrap_or_default();
        assert!(!row.contains('?'), "{shown}");
        let cell = bench.ssh("nvidia-smi --query-gpu=mig.mode.current --format=csv,noheader");
        assert_eq!(cell.trim(), word);
        // It has no MIG, and what it has works.
        bench.apply("strategy: time-slicing, time_slicing: {slice_duration: short}");
        bench.settled();
        bench
            .refused("strategy: mig, mig: {profiles: [1g.5gb]}")
            .says("has no mig");
    }
    let bench = Bench::new("{gpus: [H100-80GB], driver: 590.48.01}").expect("ssh is there");
    bench.apply("strategy: mig, mig: {profiles: [7g.80gb]}");
    let list = bench.ssh("nvidia-smi -L");
    bench.broken(&["nvidia", "unknown-error"]);
    bench
        .deploy(&["discover"])
        .expect(0)
        .says("[Unknown Error]");
    bench
        .refused("strategy: mig, mig: {profiles: [3g.40gb]}")
        .says("the MIG state of GPU 0")
        .says("cannot be read");
    bench.mended();
    assert_eq!(bench.ssh("nvidia-smi -L"), list);
}
