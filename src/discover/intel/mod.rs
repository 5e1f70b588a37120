//! Intel's cards: `intel.sh`'s answer, turned into facts.
//!
//! `sysfs` reads what the kernel drivers show, `xpu_smi` what the vendor's tool prints. Both
//! are pure and total: any bytes give rows or nothing, never a panic.

pub mod sysfs;
pub mod xpu_smi;

use crate::facts::{Fact, IntelDriver, IntelGpu, XpuSmi};

use super::pci::PciCard;

/// What the script told of all of Intel's cards.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answers {
    cards: Vec<sysfs::Card>,
    version: Option<String>,
    listed: Vec<xpu_smi::Listed>,
    /// Why the script's answer is not whole, if that is so.
    missing: Option<String>,
}

impl Answers {
    /// Reads the script's answer; `missing` says why there is none or why it is cut.
    #[must_use]
    pub fn parse(text: &str, missing: Option<String>) -> Self {
        let (sysfs, tool) = text.split_once("== version\n").unwrap_or((text, ""));
        let (version, listed) = tool.split_once("== discovery\n").unwrap_or((tool, ""));
        Self {
            cards: sysfs::parse(sysfs),
            version: xpu_smi::version(version),
            listed: xpu_smi::discovery(listed),
            missing,
        }
    }

    /// What is known of one of Intel's cards.
    #[must_use]
    pub fn card(&self, card: &PciCard) -> Fact<IntelGpu> {
        let bound = card.driver.known().map(String::as_str);
        if !matches!(bound, Some("xe" | "i915")) {
            return Fact::Absent;
        }
        let Some(found) = self.cards.iter().find(|found| found.pci == card.pci) else {
            let why = self.missing.clone();
            return Fact::Unknown(why.unwrap_or_else(|| "sysfs was not read".to_owned()));
        };
        let driver = match bound {
            Some("xe") => IntelDriver::Xe,
            _ if found.prelim || found.provisioning.known().is_some() => IntelDriver::I915Prelim,
            _ => IntelDriver::I915,
        };
        Fact::Known(IntelGpu {
            driver,
            tiles: found.tiles(driver),
            gts: found.gts.clone(),
            provisioning: found.provisioning.clone(),
            render_nodes: card
                .nodes
                .iter()
                .filter(|node| node.starts_with("renderD"))
                .cloned()
                .collect(),
            tool: self.tool(card),
        })
    }

    fn tool(&self, card: &PciCard) -> Fact<XpuSmi> {
        let listed = self.listed.iter().find(|listed| listed.pci == card.pci);
        Fact::from_option(listed.map(|listed| XpuSmi {
            version: Fact::from_option(self.version.clone()),
            device_id: listed.device_id,
            name: listed.name.clone(),
            uuid: Fact::from_option(listed.uuid.clone()),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discover::pci;

    fn card(driver: &str) -> PciCard {
        let text = format!(
            "device 0000:4d:00.0\nclass 0x038000\nvendor 0x8086\ndevice 0x56c0\nnode card0\n\
             node renderD128\nlinks\nl 1 root root 0 Nov 22 10:00 \
             /sys/bus/pci/devices/0000:4d:00.0/driver -> ../bus/pci/drivers/{driver}\n"
        );
        pci::parse(&text).expect("a bus").remove(0)
    }

    #[test]
    fn a_card_of_another_driver_has_none_of_it() {
        let answers = Answers::parse("card 0000:4d:00.0\n", None);
        assert_eq!(answers.card(&card("vfio-pci")), Fact::Absent);
        let found = answers.card(&card("i915"));
        let found = found.known().expect("i915 has it");
        assert_eq!(found.driver, IntelDriver::I915);
        assert!(found.tiles.unknown().is_some());
        assert_eq!(found.render_nodes, ["renderD128"]);
        assert_eq!(found.tool, Fact::Absent);
    }

    #[test]
    fn an_answer_that_did_not_come_is_unknown_and_not_absent() {
        let answers = Answers::parse("", Some("it took too long".to_owned()));
        assert_eq!(
            answers.card(&card("xe")).unknown(),
            Some("it took too long")
        );
    }

    #[test]
    fn the_tools_name_and_version_go_with_the_card() {
        let answers = Answers::parse(
            "card 0000:4d:00.0\n== version\nCLI:\n    Version: 1.2.22.20231025\n    Build ID: 0\n\n\
             Service:\n    Version: 1.2.22.20231025\n== discovery\n{\"device_list\": [{\"device_id\": 3, \
             \"device_name\": \"Intel(R) Graphics [0x56c0]\", \"pci_bdf_address\": \"0000:4d:00.0\"}]}\n",
            None,
        );
        let found = answers.card(&card("i915"));
        let tool = &found.known().expect("i915 has it").tool;
        let tool = tool.known().expect("it is listed");
        assert_eq!(tool.version, Fact::Known("1.2.22.20231025".to_owned()));
        assert_eq!(
            (tool.device_id, tool.name.as_str()),
            (3, "Intel(R) Graphics [0x56c0]")
        );
    }
}
