//! Every capture of NVIDIA's tools is parsed here into facts or a fault, or stands on the list
//! with the reason why not. A new file without an entry fails.

use std::collections::BTreeSet;
use std::fs;

use deploy::discover::nvidia::answers::Answers;
use deploy::discover::nvidia::table::TableMig;
use deploy::discover::nvidia::{NvidiaFault, list, mig, policy, query, table, xml};
use deploy::facts::{Fact, MigMode};
use deploy::text::printable;
use proptest::prelude::*;

const FOLDER: &str = "tests/fixtures/captures/nvidia";

/// What is in a capture, as the parsers must see it.
enum Is {
    /// `-lgip`: rows, and the first as `id name free/total GiB*100 SM`.
    Profiles(usize, &'static str),
    /// `-lgipp`: lines, and places in all.
    Places(usize, usize),
    /// `-lcip`: rows, and how many are the default.
    ComputeProfiles(usize, usize),
    /// `-L`: MIG devices of each card.
    List(&'static [usize]),
    /// A session at a prompt: rows of -lgi, of -lci, cards of -L, MIG devices of -L.
    Session(usize, usize, usize, usize),
    /// `--query-gpu` with a header: cards, and how many have MIG on.
    Csv(usize, usize),
    /// A query without a header: its fields, cards.
    Bare(&'static [&'static str], usize),
    /// The plain table: MIG column of each card, MIG devices.
    Table(&'static [TableMig], usize),
    /// `-q -x`: MIG mode of each card, MIG devices.
    Xml(Option<MigMode>, usize),
    /// A refusal.
    Fault(NvidiaFault),
    /// A message of success: no fault is seen in it.
    NoFault,
    /// Not for these parsers; why.
    Not(&'static str),
}

use Is::{
    Bare, ComputeProfiles, Csv, Fault, List, NoFault, Not, Places, Profiles, Session, Table, Xml,
};

const ON: TableMig = TableMig::Mode {
    enabled: true,
    pending: false,
};
const OFF: TableMig = TableMig::Mode {
    enabled: false,
    pending: false,
};
const NONE: TableMig = TableMig::None;

const LONG_FORM: &str =
    "-q is the long form of what -q -x and --query-gpu say; neither is asked for it";
const NVLINK: &str = "nvlink state has no part in slicing";
const KUBERNETES: &str =
    "Kubernetes: not read from a host; its shape is for the platform that writes it";
const MIG_PARTED: &str = "a log or hook of mig-parted, which is no tool of ours on the host";
const MIG_PARTED_FILE: &str =
    "a configuration of mig-parted: `technology_mig_parted` reads and plans each of them";
const HELP: &str = "help of the tool, for people";
const MODES: &str = "modes of device nodes; who may do what is seen by trying";

#[rustfmt::skip]
const CAPTURES: &[(&str, Is)] = &[
    ("INDEX.md", Not("says where the captures are from")),
    ("mig_profiles.json", Not("the table behind vars/nvidia_gpu_models.yml; the catalog's tests compare them")),

    ("a100-40gb-pcie_r450-era_mig-lgip.txt", Profiles(5, "19 1g.5gb 7/7 475 14")),
    ("a100-80gb-pcie_515.86.01_mig-lgip.txt", Profiles(6, "19 1g.10gb 7/7 950 14")),
    ("a100-80gb_mig-lgip_fully-allocated_partial.txt", Profiles(4, "19 1g.10gb 0/7 950 14")),
    ("a30-24gb_535.183.01_mig-lgip.txt", Profiles(5, "14 1g.6gb 4/4 581 14")),
    ("b200_2025-03_mig-lgip_partial.txt", Profiles(4, "19 1g.23gb 7/7 2050 18")),
    ("b200_early-2025_mig-lgip_partial.txt", Profiles(4, "19 1g.23gb 7/7 2200 18")),
    ("cmp-170hx_610.43.03_mig-lgip_and_invalid-argument.txt", Profiles(1, "0 1g.64gb 1/1 6300 70")),
    ("gb200_2025-08_mig-lgip_partial.txt", Profiles(4, "19 1g.23gb 7/7 2200 18")),
    ("gb200_hgx_2025-03_mig-lgip_partial.txt", Profiles(4, "19 1g.24gb 7/7 2000 18")),
    ("gh200-144gb-hbm3e_2024-10_mig-lgip_partial.txt", Profiles(4, "19 1g.18gb 7/7 1750 16")),
    ("gh200-96gb_mig-lgip.txt", Profiles(7, "19 1g.12gb 7/7 1100 16")),
    ("h100-80gb_mig-lgip_gpu0.txt", Profiles(7, "19 1g.10gb 7/7 975 16")),
    ("h100-nvl_550.127.06_mig-lgip.txt", Profiles(7, "19 1g.12gb 7/7 1062 16")),
    ("h100-nvl_560.35.03_mig-lgip.txt", Profiles(7, "19 1g.12gb 7/7 1075 16")),
    ("h200-141gb_2024_mig-lgip_gpu6_partial.txt", Profiles(6, "19 1g.18gb 7/7 1600 16")),
    ("rtx-pro-6000-blackwell-se_mig-lgip.txt", Profiles(11, "14 1g.24gb 4/4 2362 46")),

    ("a100-40gb-pcie_r450-era_mig-lgipp.txt", Places(5, 14)),
    ("a100-40gb-sxm4_mig-guide_lgipp.txt", Places(7, 25)),
    ("a30-24gb_535.183.01_mig-lgipp.txt", Places(5, 13)),
    ("h100-nvl_560.35.03_mig-lgipp.txt", Places(7, 25)),
    ("rtx-pro-6000-blackwell-se_mig-lgipp.txt", Places(11, 30)),

    ("a30-24gb_535.183.01_mig-lcip.txt", ComputeProfiles(3, 2)),

    ("h100-80gb-hbm3_590.48.01_mig_nvidia-smi-L.txt", List(&[4])),
    ("h100-80gb-hbm3_590.48.01_nomig_nvidia-smi-L.txt", List(&[0])),
    ("h200_590.48.01_mig_nvidia-smi-L.txt", List(&[5])),
    ("h200_590.48.01_nomig_nvidia-smi-L.txt", List(&[0])),
    ("l40s_595.80_nvidia-smi-L.txt", List(&[0])),
    ("nvidia-smi-L_a100-40gb-sxm4_2x3g.20gb.txt", List(&[2])),
    ("nvidia-smi-L_h100_7x1g.10gb_gpu-operator.txt", List(&[7])),
    ("nvidia-smi-L_h100_mixed-mig_gpu-operator.txt", List(&[4])),
    ("rtx4080super_595.71.05_nvidia-smi-L.txt", List(&[0])),

    ("a100-40gb-pcie_r450-era_mig-session-7x1g_old-uuid.txt", Session(0, 0, 1, 7)),
    ("a100-40gb-sxm4_mig-guide_cci-lci-dci.txt", Session(0, 3, 0, 0)),
    ("a100-40gb-sxm4_mig-guide_cgi-geometries.txt", Session(12, 0, 0, 0)),
    ("a100-80gb-pcie_515.86.01_mig-session.txt", Session(2, 2, 0, 0)),
    ("a100-80gb_mig-lgi_all-balanced_two-gpus_partial.txt", Session(8, 0, 0, 0)),
    ("a30-24gb_535.183.01_mig-session-create.txt", Session(4, 0, 3, 6)),
    ("h100-nvl_550.127.06_mig-cgi-7x1g-C_and_L.txt", Session(0, 0, 1, 7)),
    ("mig-1_success_two-gpus_a100-80gb_535.txt", Session(0, 0, 2, 4)),
    ("rtx-pro-6000-blackwell-se_mig-cgi-mixed_lgi.txt", Session(3, 0, 0, 0)),
    ("rtx-pro-6000-blackwell-se_mig-session.txt", Session(4, 4, 2, 4)),

    ("h100-80gb-hbm3_590.48.01_mig_query-gpu_all.csv", Csv(1, 1)),
    ("h100-80gb-hbm3_590.48.01_nomig_query-gpu_all.csv", Csv(1, 0)),
    ("h200_590.48.01_mig_query-gpu_all.csv", Csv(1, 1)),
    ("h200_590.48.01_nomig_query-gpu_all.csv", Csv(1, 0)),
    ("l40s_595.80_query-gpu_all.csv", Csv(1, 0)),
    ("rtx4080super_595.71.05_query-gpu_all.csv", Csv(1, 0)),
    ("query-gpu_pci-device-id-mig_rtx-pro-6000_x8.csv", Bare(&["pci.device_id", "mig.mode.current", "mig.mode.pending"], 8)),
    ("query-gpu_uuid-mig-mode_x4.csv", Bare(&["uuid", "mig.mode.current", "mig.mode.pending"], 5)),
    ("query-gpu_tesla-p100.csv", Bare(&["name", "uuid", "fan.speed", "pstate", "memory.reserved", "memory.used", "memory.free", "utilization.gpu", "utilization.memory", "temperature.gpu", "power.draw", "clocks.current.graphics", "clocks.current.sm", "clocks.current.memory", "clocks.current.video"], 2)),

    ("a100-80gb-pcie_515.86.01_mig_table_shared-gi.txt", Table(&[ON], 2)),
    ("a30-24gb_535.183.01_mig_table.txt", Table(&[ON], 3)),
    ("h100-80gb-hbm3_590.48.01_mig_table.txt", Table(&[ON], 4)),
    ("h100-80gb-hbm3_590.48.01_nomig_table.txt", Table(&[OFF], 0)),
    ("h100-nvl_560.35.03_mig_table_9-15-19.txt", Table(&[ON], 3)),
    ("h200_590.48.01_mig_table.txt", Table(&[ON], 5)),
    ("h200_590.48.01_mig_table_under-load.txt", Table(&[ON], 5)),
    ("h200_590.48.01_nomig_table.txt", Table(&[OFF], 0)),
    ("l40s_595.80_table.txt", Table(&[NONE], 0)),
    ("rtx4080super_595.71.05_table.txt", Table(&[NONE], 0)),

    ("nvidia-smi-q-x_a100-sxm4-40gb_510.47.03_mig.xml", Xml(Some(MigMode::Enabled), 2)),
    ("nvidia-smi-q-x_a100-sxm4_v12.xml", Xml(Some(MigMode::Enabled), 4)),
    ("nvidia-smi-q-x_a10g_v11.xml", Xml(None, 0)),
    ("nvidia-smi-q-x_tesla-t4_v11.xml", Xml(None, 0)),

    ("err_compute-mode-on-mig.txt", Fault(NvidiaFault::NotSupported)),
    ("err_gpu-reset-not-supported_mig-manager-log_a100-40gb.txt", Fault(NvidiaFault::NotSupported)),
    ("err_in-use_cgi_gh200.txt", Fault(NvidiaFault::InUse)),
    ("err_in-use_dgi-before-dci.txt", Fault(NvidiaFault::InUse)),
    ("err_in-use_disable_gh200_hard-failure.txt", Fault(NvidiaFault::InUse)),
    ("err_in-use_gpu-reset_multi_mig-parted.txt", Fault(NvidiaFault::InUse)),
    ("err_in-use_gpu-reset_rc255.txt", Fault(NvidiaFault::InUse)),
    ("err_in-use_mig-0_pending-disable_and_gpu-reset_2020.txt", Fault(NvidiaFault::PendingDisable)),
    ("err_in-use_mig-1_a30_pending-enable.txt", Fault(NvidiaFault::PendingEnable)),
    ("err_in-use_mig-1_dgx.txt", Fault(NvidiaFault::PendingEnable)),
    ("err_insufficient-permissions_lci.txt", Fault(NvidiaFault::InsufficientPermissions)),
    ("err_insufficient-permissions_lgi.txt", Fault(NvidiaFault::InsufficientPermissions)),
    ("err_insufficient-resources_a100-40gb_order.txt", Fault(NvidiaFault::InsufficientResources)),
    ("err_insufficient-resources_cgi-me_gh200.txt", Fault(NvidiaFault::InsufficientResources)),
    ("err_no-devices_rc6_ansible.txt", Fault(NvidiaFault::NoDevices)),
    ("err_not-supported_gpu-reset_nvlink-active.txt", Fault(NvidiaFault::NotSupported)),
    ("err_not-supported_mig-1_a5000.txt", Fault(NvidiaFault::NotSupported)),
    ("err_not-supported_mig-1_passthrough-vm_ampere.txt", Fault(NvidiaFault::PendingEnable)),
    ("err_not-supported_mig-1_rtx-pro-6000-ws_580.65.06.txt", Fault(NvidiaFault::NoMigSupported)),
    ("fuser_dev-nvidia_persistenced.txt", Fault(NvidiaFault::InUse)),

    ("gh200-96gb_mig-cgi-1g.24gb-C.txt", NoFault),
    ("gh200-96gb_mig-enable_no-persistence-warning.txt", NoFault),
    ("gpu-reset_success_two-gpus.txt", NoFault),
    ("mig-1_success_a100_and_query.txt", NoFault),
    ("nvidia-smi_pm-0.txt", NoFault),
    ("nvidia-smi_pm-1_already-enabled.txt", NoFault),

    ("h100-80gb-hbm3_590.48.01_mig_q.txt", Not(LONG_FORM)),
    ("h100-80gb-hbm3_590.48.01_nomig_q.txt", Not(LONG_FORM)),
    ("h200_590.48.01_mig_q.txt", Not(LONG_FORM)),
    ("h200_590.48.01_nomig_q.txt", Not(LONG_FORM)),
    ("h100-80gb-hbm3_590.48.01_mig_nvlink-s.txt", Not(NVLINK)),
    ("h100-80gb-hbm3_590.48.01_nomig_nvlink-s.txt", Not(NVLINK)),
    ("h200_590.48.01_mig_nvlink-s.txt", Not(NVLINK)),
    ("h200_590.48.01_nomig_nvlink-s.txt", Not(NVLINK)),
    ("dev-nvidia-caps_ls_partial.txt", Not(MODES)),
    ("proc-driver-nvidia-capabilities_ls.txt", Not(MODES)),
    ("nvidia-smi_590.48.01_help-query-gpu.txt", Not("help for people; the test below holds our fields against it")),
    ("nvidia-smi_590.48.01_help.txt", Not(HELP)),
    ("nvidia-smi_590.48.01_version.txt", Not("the query tells the driver's version with the cards")),
    ("err_containerd_unresolvable-cdi-mig.txt", Not("containerd's message, for the container platforms")),
    ("err_podman_unresolvable-cdi.txt", Not("podman's message, for the container platforms")),
    ("err_device-plugin_no-mig-devices.txt", Not(KUBERNETES)),
    ("err_device-plugin_single-strategy_mixed-profiles.txt", Not(KUBERNETES)),
    ("err_k8s_unexpected-admission_time-slicing.txt", Not(KUBERNETES)),
    ("k8s_capacity_tesla-t4_time-sliced-8.json", Not(KUBERNETES)),
    ("k8s_configmap_custom-mig-config.yaml", Not(KUBERNETES)),
    ("k8s_configmap_time-slicing-config-all.yaml", Not(KUBERNETES)),
    ("k8s_configmap_time-slicing-config-fine.yaml", Not(KUBERNETES)),
    ("k8s_gpu-operator_get-pods_mig.txt", Not(KUBERNETES)),
    ("k8s_node-labels_h100-nvl_mps-shared.txt", Not(KUBERNETES)),
    ("k8s_node-labels_h100_mig-mixed_all-balanced.json", Not(KUBERNETES)),
    ("k8s_node-labels_h100_mig-single_all-disabled.json", Not(KUBERNETES)),
    ("k8s_time-slicing_get-events.txt", Not(KUBERNETES)),
    ("mig-manager_log_reconfigure-success_h100.txt", Not(MIG_PARTED)),
    ("mig-parted_assert_export.txt", Not(MIG_PARTED)),
    ("mig-parted_config-deepops-example.yml", Not(MIG_PARTED_FILE)),
    ("mig-parted_config-default.yaml", Not(MIG_PARTED_FILE)),
    ("mig-parted_config-example.yaml", Not(MIG_PARTED_FILE)),
    ("mig-parted_hooks-default.yaml", Not(MIG_PARTED)),
];

fn text(name: &str) -> String {
    fs::read_to_string(format!("{FOLDER}/{name}")).expect("a readable capture")
}

/// Every file of a folder of captures has one entry in a list, and none has no file.
pub(crate) fn each_has_an_entry<'a>(folder: &str, entries: impl Iterator<Item = &'a str>) {
    let on_disk: BTreeSet<String> = fs::read_dir(folder)
        .expect("the captures")
        .map(|entry| entry.expect("an entry").file_name())
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    let entries: Vec<&str> = entries.collect();
    let listed: BTreeSet<String> = entries.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(listed.len(), entries.len(), "a capture stands here twice");
    assert_eq!(on_disk, listed);
}

#[test]
fn every_capture_has_an_entry() {
    each_has_an_entry(FOLDER, CAPTURES.iter().map(|(name, _)| *name));
}

#[test]
fn every_capture_is_parsed_into_what_it_shows() {
    let mut wrong = Vec::new();
    for (name, expected) in CAPTURES {
        if let Err(found) = check(&text(name), expected) {
            wrong.push(format!("{name}: {found}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn check(text: &str, expected: &Is) -> Result<(), String> {
    let same = |found: String, wanted: String| {
        if found == wanted {
            Ok(())
        } else {
            Err(format!("found {found}, expected {wanted}"))
        }
    };
    match expected {
        Profiles(rows, first) => {
            let found = mig::gpu_instance_profiles(text);
            let shown = found.first().map(|p| {
                let (memory, count) = (p.memory_centi_gib, format!("{}/{}", p.free, p.total));
                format!("{} {} {count} {memory} {}", p.id, p.name, p.sm)
            });
            same(
                format!("{} {shown:?}", found.len()),
                format!("{rows} {:?}", Some(first)),
            )
        }
        Places(lines, places) => {
            let found = mig::placements(text);
            let all: usize = found.iter().map(|line| line.placements.len()).sum();
            same(
                format!("{} {all}", found.len()),
                format!("{lines} {places}"),
            )
        }
        ComputeProfiles(rows, defaults) => {
            let found = mig::compute_instance_profiles(text);
            let default = found.iter().filter(|p| p.default).count();
            same(
                format!("{} {default}", found.len()),
                format!("{rows} {defaults}"),
            )
        }
        List(devices) => {
            let found: Vec<usize> = list::parse(text).iter().map(|c| c.devices.len()).collect();
            same(format!("{found:?}"), format!("{devices:?}"))
        }
        Session(gi, ci, cards, devices) => {
            let listed = list::parse(text);
            let all: usize = listed.iter().map(|card| card.devices.len()).sum();
            same(
                format!(
                    "{} {} {} {all}",
                    mig::gpu_instances(text).len(),
                    mig::compute_instances(text).len(),
                    listed.len()
                ),
                format!("{gi} {ci} {cards} {devices}"),
            )
        }
        Csv(cards, on) => {
            let fields = query::header(text.lines().next().unwrap_or_default());
            let found: Vec<query::Row> = query::cells(text, &fields)
                .iter()
                .filter_map(query::row)
                .collect();
            let enabled = found
                .iter()
                .filter(|row| matches!(row.mig, Fact::Known((MigMode::Enabled, _))))
                .count();
            let whole = found.iter().all(|row| {
                row.memory_mib.known().is_some()
                    && row.compute_capability.known().is_some()
                    && row.device_id.is_some()
                    && row.driver.is_some()
            });
            same(
                format!("{} {enabled} {whole}", found.len()),
                format!("{cards} {on} true"),
            )
        }
        Bare(fields, cards) => {
            let found = query::cells(text, fields);
            let modes_known = found
                .iter()
                .filter_map(|cells| cells.get("mig.mode.current"))
                .filter(|mode| !mode.starts_with("mig."))
                .all(|mode| query::modes(mode, mode).known().is_some());
            same(
                format!("{} {modes_known}", found.len()),
                format!("{cards} true"),
            )
        }
        Table(cards, devices) => {
            let found = table::parse(text);
            let modes: Vec<TableMig> = found.cards.iter().map(|card| card.mig).collect();
            same(
                format!(
                    "{modes:?} {} {}",
                    found.mig_devices.len(),
                    found.driver.is_some()
                ),
                format!("{cards:?} {devices} true"),
            )
        }
        Xml(mode, devices) => {
            let (driver, cards) = xml::parse(text);
            let [card] = &cards[..] else {
                return Err(format!("{} cards", cards.len()));
            };
            let found = card.mig.known().map(|(current, _)| *current);
            same(
                format!(
                    "{found:?} {} {} {:?}",
                    card.mig_devices.len(),
                    driver.is_some(),
                    card.minor.is_some()
                ),
                format!("{mode:?} {devices} true true"),
            )
        }
        Fault(fault) => same(
            format!("{:?}", NvidiaFault::in_text(text)),
            format!("{:?}", Some(fault)),
        ),
        NoFault => same(
            format!("{:?}", NvidiaFault::in_text(text)),
            "None".to_owned(),
        ),
        Not(why) => {
            if why.len() > 10 {
                Ok(())
            } else {
                Err("no reason".to_owned())
            }
        }
    }
}

#[test]
fn refusals_name_the_cards() {
    let text = text("err_in-use_gpu-reset_multi_mig-parted.txt");
    let cards: Vec<String> = NvidiaFault::cards(&text)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        cards,
        [
            "0000:01:00.0",
            "0000:47:00.0",
            "0000:81:00.0",
            "0000:c2:00.0"
        ]
    );
}

#[test]
fn a_star_in_the_table_is_a_pending_change() {
    let found = table::parse(&text("err_in-use_mig-1_a30_pending-enable.txt"));
    let pending = TableMig::Mode {
        enabled: true,
        pending: true,
    };
    assert_eq!(found.cards[0].mig, pending);
}

#[test]
fn every_field_that_we_ask_for_is_one_of_the_tools() {
    let help = text("nvidia-smi_590.48.01_help-query-gpu.txt");
    for field in query::FIELDS {
        assert!(help.contains(&format!("\"{field}\"")), "{field}");
    }
}

/// All parsers on one text. They may find nothing; they must come back.
fn all_parsers(text: &str) {
    let _ = mig::gpu_instance_profiles(text);
    let _ = mig::placements(text);
    let _ = mig::gpu_instances(text);
    let _ = mig::compute_instances(text);
    let _ = mig::compute_instance_profiles(text);
    let _ = list::parse(text);
    let _ = query::rows(text);
    let _ = query::header(text);
    let _ = policy::parse(text);
    let _ = table::parse(text);
    let _ = xml::parse(text);
    let _ = NvidiaFault::in_text(text);
    let _ = NvidiaFault::cards(text);
    let answers = Answers::parse(text, None);
    for row in answers.rows() {
        let _ = answers.card(&row);
    }
    let _ = answers.why_no_row();
    let _ = deploy::discover::pci::parse(text);
    let _ = deploy::discover::host::parse(text);
    let _ = deploy::discover::holders::parse(text);
    let _ = printable(text, 100);
}

#[test]
fn no_parser_panics_on_any_truncation_of_a_capture() {
    for (name, _) in CAPTURES {
        let text = text(name);
        // Some twenty cuts each, by a step that is no divisor of a table's line length.
        let step = (text.len() / 20) | 1;
        for at in (0..text.len()).step_by(step) {
            all_parsers(&String::from_utf8_lossy(&text.as_bytes()[..at]));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_parser_panics_on_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        all_parsers(&String::from_utf8_lossy(&bytes));
    }

    /// Texts made of the words that the parsers look for, in any order.
    #[test]
    fn no_parser_panics_on_familiar_words(words in proptest::collection::vec(
        prop::sample::select(vec![
            "|", "MIG", "GPU", "0", "-1", "4294967296", "99999999999999999999", "1g.10gb", "7/7", "9.75",
            ":", "{", "}:", "Placement", "Profile ID", "\n", " ", ",", "== query 0\n", "== lgi 0\n",
            "== lci 0\n", "== list 0\n", "(UUID: ", "GPU-1", "MIG-GPU-/", ")", "Device", "device ", "0000:08:00.0",
            "\nlinks\n", " -> ", "/sys/bus/pci/devices/", "virtfn0", "process ", "open ", "Timeslice",
            "<gpu id=\"", "</gpu>", "<mig_mode>", "\"", "é", "4:4", "4294967295:4294967295",
        ]), 0..60)) {
        all_parsers(&words.concat());
    }
}
