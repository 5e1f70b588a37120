//! The tool against captures of the real one: sessions are played again, command
//! by command, and every byte must be the same but for UUIDs and numbers that
//! are measurements.

use regex::Regex;

use super::answer;
use crate::sim::machine::{Gpu, Machine, uuid};
use crate::sim::product::PRODUCTS;
use crate::sim::spec::{FIRST_PID, HolderSpec, MachineSpec, Reset};

fn capture(name: &str) -> String {
    let path = format!(
        "{}/tests/fixtures/captures/nvidia/{name}",
        env!("CARGO_MANIFEST_DIR")
    );
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A machine with cards of one product at these addresses.
fn machine(product: &str, driver: &str, addresses: &[&str]) -> Machine {
    let gpus = addresses
        .iter()
        .map(|address| Gpu {
            product: product.to_owned(),
            name: None,
            pci: (*address).to_owned(),
            uuid: format!("GPU-{}", uuid(address)),
            serial: "0000000000000".to_owned(),
            mig: false,
            mig_pending: false,
            persistence: true,
            compute_mode: 0,
            timeslice: 0,
            reset: Reset::Works,
            instances: Vec::new(),
            vgpus: Vec::new(),
            heterogeneous: false,
        })
        .collect();
    Machine {
        amd: crate::sim::amd::AmdState::default(),
        name: "golden".to_owned(),
        spec: MachineSpec {
            os: String::new(),
            kernel: String::new(),
            cmdline: String::new(),
            amd: crate::sim::amd::AmdSpec::default(),
            boot_loader: crate::sim::spec::BootLoader::default(),
            driver: Some(driver.to_owned()),
            xpu_smi: None,
            container_tools: Vec::new(),
            exporters: Vec::new(),
            selinux: false,
            cpu: crate::sim::spec::Cpu::Intel,
            systemd: true,
            gpus: Vec::new(),
            in_use: Vec::new(),
            vgpu: None,
            umockdev: None,
            kubernetes: None,
            nvswitch: false,
            products: None,
        },
        boots: 1,
        gpus,
        products: [(product.to_owned(), PRODUCTS[product].clone())].into(),
        functions: std::collections::BTreeMap::new(),
        drivers: Vec::new(),
        licensed: false,
        holders: Vec::new(),
        held_by_driver: false,
        resets_all: false,
        mode_unreadable: false,
    }
}

fn with_mig(product: &str, driver: &str) -> Machine {
    let mut machine = machine(product, driver, &["0000:01:00.0"]);
    machine.gpus[0].mig = true;
    machine.gpus[0].mig_pending = true;
    machine
}

fn held(machine: &mut Machine, gpu: u32, command: &str) {
    machine.holders.push(HolderSpec {
        gpu,
        pid: FIRST_PID,
        command: command.to_owned(),
        unit: None,
        compute: true,
        node: None,
    });
}

/// Words of a command line; none of the captures quotes any.
fn say(machine: &mut Machine, line: &str) -> (String, i32) {
    let words: Vec<&str> = line
        .split_whitespace()
        .skip_while(|word| *word != "nvidia-smi")
        .skip(1)
        .collect();
    let said = answer(machine, &words);
    (said.text, said.status)
}

/// UUIDs are the cards' own.
fn masked(text: &str) -> String {
    let uuids =
        Regex::new(r"(GPU|MIG)-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
            .expect("it reads");
    uuids.replace_all(text, "$1-*").into_owned()
}

/// Takes a session apart: each command with what was printed until the next.
fn session(text: &str) -> Vec<(String, String)> {
    let mut calls: Vec<(String, String)> = Vec::new();
    for line in text.lines() {
        let command = line
            .strip_prefix("$ ")
            .or_else(|| line.split_once(":~# ").map(|(_, command)| command));
        match command {
            Some(command) => calls.push((command.to_owned(), String::new())),
            None => {
                if let Some((_, output)) = calls.last_mut() {
                    output.push_str(line);
                    output.push('\n');
                }
            }
        }
    }
    calls
}

/// Plays a session and compares each answer, blank lines at its ends aside.
fn replay(machine: &mut Machine, name: &str) {
    let mut played = 0;
    for (command, output) in session(&capture(name)) {
        if !command.contains("nvidia-smi") {
            continue;
        }
        let (said, _) = say(machine, &command);
        assert_eq!(
            masked(said.trim_matches('\n')),
            masked(output.trim_matches('\n')),
            "{name}: {command}"
        );
        played += 1;
    }
    assert!(played > 0, "{name} has no command");
}

#[test]
fn profile_lists_are_those_of_the_captures() {
    for (product, driver, name) in [
        ("A30-24GB", "535.183.01", "a30-24gb_535.183.01_mig-lgip.txt"),
        (
            "H100-NVL-94GB",
            "560.35.03",
            "h100-nvl_560.35.03_mig-lgip.txt",
        ),
        (
            "RTX-PRO-6000-96GB",
            "580.65.06",
            "rtx-pro-6000-blackwell-se_mig-lgip.txt",
        ),
        (
            "A30-24GB",
            "535.183.01",
            "a30-24gb_535.183.01_mig-lgipp.txt",
        ),
        (
            "H100-NVL-94GB",
            "560.35.03",
            "h100-nvl_560.35.03_mig-lgipp.txt",
        ),
        (
            "RTX-PRO-6000-96GB",
            "580.65.06",
            "rtx-pro-6000-blackwell-se_mig-lgipp.txt",
        ),
        (
            "A100-40GB",
            "450.80.02",
            "a100-40gb-pcie_r450-era_mig-lgipp.txt",
        ),
        (
            "A100-80GB",
            "515.86.01",
            "a100-80gb-pcie_515.86.01_mig-lgip.txt",
        ),
    ] {
        let list = if name.ends_with("lgipp.txt") {
            "-lgipp"
        } else {
            "-lgip"
        };
        let (said, status) = say(
            &mut with_mig(product, driver),
            &format!("nvidia-smi mig {list}"),
        );
        // One capture has blanks at a line's end that its terminal left there.
        let expected: String = capture(name)
            .lines()
            .map(|line| format!("{}\n", line.trim_end()))
            .collect();
        assert_eq!(said, expected, "{name}");
        assert_eq!(status, 0);
    }
}

#[test]
fn cut_profile_lists_are_parts_of_ours() {
    for (product, driver, name) in [
        ("H100-80GB", "550.54.15", "h100-80gb_mig-lgip_gpu0.txt"),
        (
            "H100-96GB_GH200-96GB",
            "560.35.03",
            "gh200-96gb_mig-lgip.txt",
        ),
        (
            "GB200-186GB",
            "580.82.07",
            "gb200_2025-08_mig-lgip_partial.txt",
        ),
    ] {
        let (said, _) = say(&mut with_mig(product, driver), "nvidia-smi mig -lgip");
        for line in capture(name)
            .lines()
            .filter(|line| line.starts_with('|') && line.ends_with('|'))
        {
            assert!(said.contains(line), "{name}: {line}\n{said}");
        }
    }
}

#[test]
fn a_card_without_room_offers_nothing() {
    let mut machine = with_mig("A100-80GB", "515.86.01");
    say(&mut machine, "nvidia-smi mig -cgi 9,9");
    let (said, _) = say(&mut machine, "nvidia-smi mig -lgip");
    for line in capture("a100-80gb_mig-lgip_fully-allocated_partial.txt").lines() {
        assert!(said.contains(line), "{line}\n{said}");
    }
}

#[test]
fn sessions_are_played_again_byte_by_byte() {
    let mut a100 = machine("A100-80GB", "515.86.01", &["0001:00:00.0"]);
    a100.gpus[0].persistence = false;
    a100.gpus[0].pci = "0001:00:00.0".to_owned();
    a100.gpus[0].mig = true;
    a100.gpus[0].mig_pending = true;
    let text = capture("a100-80gb-pcie_515.86.01_mig-session.txt");
    for (command, output) in session(&text) {
        // The listing was cut to the instance that the note is about.
        if command.ends_with("mig -i 0 -lgi") {
            continue;
        }
        let (said, _) = say(&mut a100, &command);
        let expected = output.replace("00000001:00:00.0", &a100.gpus[0].bus_id());
        assert_eq!(said.trim_end(), expected.trim_end(), "{command}");
    }
    replay(
        &mut with_mig("A30-24GB", "535.183.01"),
        "a30-24gb_535.183.01_mig-session-create.txt",
    );
    let mut h100 = machine("H100-NVL-94GB", "550.127.06", &["0000:98:00.0"]);
    replay(&mut h100, "h100-nvl_550.127.06_mig-cgi-7x1g-C_and_L.txt");
    replay(
        &mut with_mig("H100-96GB_GH200-96GB", "550.54.15"),
        "gh200-96gb_mig-cgi-1g.24gb-C.txt",
    );
    let mut two = machine("A100-80GB", "535.54.03", &["0000:8b:00.0", "0000:8c:00.0"]);
    let (said, status) = say(&mut two, "nvidia-smi -mig 1");
    assert!(
        capture("mig-1_success_two-gpus_a100-80gb_535.txt").contains(&said),
        "{said}"
    );
    assert_eq!(status, 0);
}

#[test]
fn the_oldest_drivers_speak_their_own_way() {
    let mut machine = with_mig("A100-40GB", "450.80.02");
    machine.gpus[0].name = Some("NVIDIA A100-PCIE-40GB".to_owned());
    let text =
        capture("a100-40gb-pcie_r450-era_mig-session-7x1g_old-uuid.txt").replace(" -i 3", "");
    for (command, output) in session(&text) {
        let (said, _) = say(&mut machine, &command);
        if command.contains("-cci") {
            // Whether the id is named changed within that branch: the guide shows it without.
            assert_eq!(said.lines().count(), output.lines().count());
            continue;
        }
        assert_eq!(
            masked(said.trim_end()),
            masked(output.trim_end()),
            "{command}"
        );
    }
}

#[test]
fn the_guides_geometries_come_out_as_printed() {
    let text = capture("a100-40gb-sxm4_mig-guide_cgi-geometries.txt");
    let mut played = 0;
    let mut machine = with_mig("A100-40GB", "470.57.02");
    for (command, output) in session(&text) {
        if command.contains("-cgi") {
            machine = with_mig("A100-40GB", "470.57.02");
        }
        // The guide's first example has the two halves the other way round.
        let first = command.contains("9,3g.20gb")
            || machine.gpus[0]
                .instances
                .iter()
                .filter(|instance| instance.profile == 9)
                .count()
                == 2;
        let (said, _) = say(&mut machine, &command);
        if !first {
            assert_eq!(said.trim_end(), output.trim_end(), "{command}");
            played += 1;
        }
    }
    assert_eq!(played, 4);
}

#[test]
fn refusals_are_worded_as_the_captures_word_them() {
    let mut gh200 = with_mig("H100-96GB_GH200-96GB", "550.54.15");
    held(&mut gh200, 0, "nsys");
    replay(&mut gh200, "err_in-use_cgi_gh200.txt");

    let mut order = with_mig("A100-40GB", "470.57.02");
    replay(&mut order, "err_insufficient-resources_a100-40gb_order.txt");
    assert_eq!(
        order.gpus[0].instances.len(),
        3,
        "what was made before the failure stays"
    );

    let mut rtx = with_mig("RTX-PRO-6000-96GB", "580.65.06");
    say(&mut rtx, "nvidia-smi mig -cgi 14 -C");
    replay(&mut rtx, "err_in-use_dgi-before-dci.txt");

    let mut dgx = machine("A100-40GB", "470.57.02", &["0000:07:00.0"]);
    held(&mut dgx, 0, "python3");
    replay(&mut dgx, "err_in-use_mig-1_dgx.txt");
    assert!(!dgx.gpus[0].mig && dgx.gpus[0].mig_pending);

    let mut guest = machine("A100-40GB", "470.57.02", &["0000:00:03.0"]);
    guest.gpus[0].reset = Reset::Unsupported;
    replay(
        &mut guest,
        "err_not-supported_mig-1_passthrough-vm_ampere.txt",
    );

    let mut a5000 = machine("RTX-A5000", "535.54.03", &["0000:18:00.0"]);
    let (said, status) = say(&mut a5000, "nvidia-smi -mig 1");
    assert_eq!(
        (said.as_str(), status),
        (capture("err_not-supported_mig-1_a5000.txt").as_str(), 0)
    );
    assert_eq!(
        say(&mut a5000, "nvidia-smi mig -lgip").0,
        "No MIG-supported devices found.\n"
    );

    let mut hopper = with_mig("H100-96GB_GH200-96GB", "550.54.15");
    hopper.gpus[0].pci = "0009:01:00.0".to_owned();
    held(&mut hopper, 0, "python3");
    let (said, status) = say(&mut hopper, "nvidia-smi -mig 0");
    assert!(
        capture("err_in-use_disable_gh200_hard-failure.txt").contains(&said),
        "{said}"
    );
    assert_ne!(status, 0);
    assert!(hopper.gpus[0].mig);
}

#[test]
fn resets_are_refused_and_granted_as_captured() {
    let mut cards = machine("A100-80GB", "535.54.03", &["0000:8b:00.0", "0000:8c:00.0"]);
    cards.gpus[0].mig_pending = true;
    let (said, status) = say(&mut cards, "nvidia-smi -r");
    assert_eq!(
        (said.as_str(), status),
        (capture("gpu-reset_success_two-gpus.txt").as_str(), 0)
    );
    assert!(
        cards.gpus[0].mig,
        "a reset makes the pending mode effective"
    );

    let mut busy = machine("A100-80GB", "535.54.03", &["0000:cc:00.0"]);
    held(&mut busy, 0, "python3");
    let (said, status) = say(&mut busy, "nvidia-smi --gpu-reset -i 0");
    let text = capture("err_in-use_gpu-reset_rc255.txt");
    assert!(
        said.starts_with(
            text.split("RESET_RC")
                .next()
                .expect("there is a first part")
        ),
        "{said}"
    );
    assert_eq!(status, 255);
}

#[test]
fn compute_instances_are_listed_as_captured() {
    let mut a30 = with_mig("A30-24GB", "535.183.01");
    say(&mut a30, "nvidia-smi mig -cgi 14,14,5 -C");
    replay(&mut a30, "a30-24gb_535.183.01_mig-lcip.txt");
    let mut old = with_mig("A100-40GB", "450.80.02");
    say(&mut old, "nvidia-smi mig -cgi 9:0,9:4");
    replay(&mut old, "a100-40gb-sxm4_mig-guide_cci-lci-dci.txt");
}

#[test]
fn queries_answer_every_field_as_captured() {
    for (product, driver, name) in [
        (
            "H100-80GB",
            "590.48.01",
            "h100-80gb-hbm3_590.48.01_nomig_query-gpu_all.csv",
        ),
        (
            "H100-80GB",
            "590.48.01",
            "h100-80gb-hbm3_590.48.01_mig_query-gpu_all.csv",
        ),
    ] {
        let text = capture(name);
        let mut lines = text.lines();
        let head: Vec<&str> = lines.next().expect("a head").split(", ").collect();
        let row: Vec<&str> = lines.next().expect("a row").split(", ").collect();
        let mut machine = machine(product, driver, &["0000:00:09.0"]);
        if name.contains("_mig_") {
            machine.gpus[0].mig = true;
            machine.gpus[0].mig_pending = true;
            say(&mut machine, "nvidia-smi mig -cgi 9,14,19,19 -C");
        }
        let names: Vec<&str> = head
            .iter()
            .map(|field| field.split(" [").next().unwrap_or(field))
            .collect();
        let (said, status) = say(
            &mut machine,
            &format!("nvidia-smi --query-gpu={} --format=csv", names.join(",")),
        );
        assert_eq!(status, 0);
        let mut said = said.lines();
        assert_eq!(said.next(), Some(head.join(", ").as_str()));
        let values: Vec<&str> = said.next().expect("a row").split(", ").collect();
        // What is measured, and what the card's number is.
        let measured = [
            "timestamp",
            "uuid",
            "temperature",
            "power.draw",
            "memory.used",
            "memory.free",
            "remapped_rows",
        ];
        for ((field, ours), theirs) in names.iter().zip(&values).zip(&row) {
            if !measured.iter().any(|prefix| field.starts_with(prefix)) {
                assert_eq!(ours, theirs, "{name}: {field}");
            }
        }
    }
    let (said, status) = say(
        &mut with_mig("H100-80GB", "590.48.01"),
        "nvidia-smi --query-gpu=index,colour --format=csv",
    );
    assert_eq!(
        (said.lines().next(), status),
        (Some("Field \"colour\" is not a valid field to query."), 2)
    );
}

/// Numbers that are measured are made equal; where things stand is not.
fn measured(text: &str) -> String {
    let rules = [
        (r"(?m)^... ... .. ..:..:.. \d{4}", "DATE"),
        (r"\d+C ", "##C "),
        (r" +\d+W / ", " ##W / "),
        (r" +\d+MiB / ", " ##MiB / "),
        (
            r"/ +\d+MiB    \|           \|                       \|",
            "/ BAR1MiB |",
        ),
        (
            r"/ +\d+MiB  \|           \|                       \|",
            "/ BAR1MiB |",
        ),
        (
            r"/ +\d+MiB \|           \|                       \|",
            "/ BAR1MiB |",
        ),
        (r"\d+%", "#%"),
        (r" +#%", " #%"),
    ];
    rules.iter().fold(text.to_owned(), |text, (pattern, with)| {
        Regex::new(pattern)
            .expect("it reads")
            .replace_all(&text, *with)
            .into_owned()
    })
}

#[test]
fn the_plain_table_has_the_form_of_its_branch() {
    let mut cases = Vec::new();
    let mut h100 = machine("H100-80GB", "590.48.01", &["0000:00:09.0"]);
    cases.push((h100.clone(), "h100-80gb-hbm3_590.48.01_nomig_table.txt"));
    h100.gpus[0].mig = true;
    h100.gpus[0].mig_pending = true;
    say(&mut h100, "nvidia-smi mig -cgi 9,14,19,19 -C");
    cases.push((h100, "h100-80gb-hbm3_590.48.01_mig_table.txt"));
    let mut h200 = machine("H200-141GB", "590.48.01", &["0000:83:00.0"]);
    h200.gpus[0].mig = true;
    h200.gpus[0].mig_pending = true;
    say(&mut h200, "nvidia-smi mig -cgi 9,14,19,19");
    say(&mut h200, "nvidia-smi mig -gi 2 -cci 0,1");
    say(&mut h200, "nvidia-smi mig -gi 3,9,10 -cci");
    cases.push((h200, "h200_590.48.01_mig_table.txt"));
    let mut l40s = machine("L40S", "595.80", &["0000:01:00.0"]);
    l40s.gpus[0].persistence = false;
    cases.push((l40s, "l40s_595.80_table.txt"));
    let mut nvl = machine("H100-NVL-94GB", "560.35.03", &["0001:00:00.0"]);
    nvl.gpus[0].mig = true;
    nvl.gpus[0].mig_pending = true;
    say(&mut nvl, "nvidia-smi mig -cgi 9,15,19 -C");
    cases.push((nvl, "h100-nvl_560.35.03_mig_table_9-15-19.txt"));
    let mut a30 = machine("A30-24GB", "535.183.01", &["0000:0b:00.0"]);
    a30.gpus[0].mig = true;
    a30.gpus[0].mig_pending = true;
    a30.gpus[0].persistence = false;
    say(&mut a30, "nvidia-smi mig -cgi 14,14,5 -C");
    cases.push((a30, "a30-24gb_535.183.01_mig_table.txt"));
    let mut shared = machine("A100-80GB", "515.86.01", &["0001:00:00.0"]);
    // The PCIe card of that memory has another limit than the SXM one.
    shared.gpus[0].name = Some("NVIDIA A100 80GB PCIe".to_owned());
    shared
        .products
        .values_mut()
        .for_each(|product| product.power_w = 300);
    shared.gpus[0].mig = true;
    shared.gpus[0].mig_pending = true;
    shared.gpus[0].persistence = false;
    say(&mut shared, "nvidia-smi mig -cgi 9");
    say(&mut shared, "nvidia-smi mig -cci 0,0");
    cases.push((shared, "a100-80gb-pcie_515.86.01_mig_table_shared-gi.txt"));
    for (mut machine, name) in cases {
        let (said, _) = say(&mut machine, "nvidia-smi");
        let text = capture(name);
        // Some were saved without the line of the date.
        let said = if text.starts_with('+') {
            said.split_once('\n')
                .map_or("", |(_, rest)| rest)
                .to_owned()
        } else {
            said
        };
        assert_eq!(measured(&said), measured(&text), "{name}");
        let widths = |text: &str| text.lines().map(|line| line.chars().count()).max();
        assert_eq!(widths(&said), widths(&text), "{name}");
    }
}

#[test]
fn the_long_form_is_that_of_the_captures() {
    // Every line's name and place; values but for what is measured.
    let is_measured = Regex::new(r"Timestamp|UUID|Temp|Draw|Throughput|Used|Free|Total|Replays")
        .expect("it reads");
    for with_instances in [false, true] {
        let mut machine = machine("H100-80GB", "590.48.01", &["0000:00:09.0"]);
        let name = if with_instances {
            machine.gpus[0].mig = true;
            machine.gpus[0].mig_pending = true;
            say(&mut machine, "nvidia-smi mig -cgi 9,14,19,19 -C");
            "h100-80gb-hbm3_590.48.01_mig_q.txt"
        } else {
            "h100-80gb-hbm3_590.48.01_nomig_q.txt"
        };
        let (said, _) = say(&mut machine, "nvidia-smi -q");
        let text = capture(name);
        let lines = |text: &str| -> Vec<String> {
            text.lines()
                .map(|line| {
                    if is_measured.is_match(line) {
                        line.split(" : ").next().unwrap_or(line).to_owned()
                    } else {
                        line.to_owned()
                    }
                })
                .collect()
        };
        assert_eq!(lines(&said), lines(&text), "{name}");
    }
}

#[test]
fn the_long_form_in_xml_has_the_captures_elements() {
    let mut machine = with_mig("A100-80GB", "535.54.03");
    say(&mut machine, "nvidia-smi mig -cgi 15,15,15,15 -C");
    let (said, _) = say(&mut machine, "nvidia-smi -q -x");
    assert!(!said.contains('@'), "a place was not filled: {said}");
    let elements = |text: &str| -> Vec<String> {
        let tag = Regex::new(r"</?([a-z_0-9]+)").expect("it reads");
        let supported =
            Regex::new(r"(?s)<supported_clocks>.*?</supported_clocks>").expect("it reads");
        let text = supported.replace_all(text, "").into_owned();
        tag.captures_iter(&text)
            .map(|found| found[1].to_owned())
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect()
    };
    let theirs = elements(&capture("nvidia-smi-q-x_a100-sxm4_v12.xml"));
    assert_eq!(elements(&said), theirs);
}
