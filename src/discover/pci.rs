//! The PCI bus as `pci.sh` reports it.

use std::collections::BTreeMap;

use crate::facts::{Fact, PciAddress, PciFunction, Sriov};

/// A display controller or processing accelerator.
#[derive(Debug, Clone, PartialEq)]
pub struct PciCard {
    /// Its place.
    pub pci: PciAddress,
    /// Class, subclass and interface.
    pub class: u32,
    /// Vendor id.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
    /// Subsystem vendor and device.
    pub subsystem: Fact<(u16, u16)>,
    /// Kernel driver.
    pub driver: Fact<String>,
    /// IOMMU group.
    pub iommu_group: Fact<u32>,
    /// NUMA node.
    pub numa_node: Fact<u32>,
    /// Whether the kernel can reset it.
    pub reset: bool,
    /// SR-IOV attributes.
    pub sriov: Fact<Sriov>,
    /// The physical function, if this is a virtual one.
    pub physfn: Option<PciAddress>,
    /// Device nodes, as named below `/dev/dri/` or `/dev/vfio/devices/`.
    pub nodes: Vec<String>,
    /// IOMMU groups of its virtual functions.
    pub vf_groups: Vec<u32>,
}

/// All cards in the order of their addresses; none at all if the host has no PCI bus.
#[must_use]
pub fn parse(text: &str) -> Option<Vec<PciCard>> {
    if text.lines().any(|line| line == "nobus") {
        return None;
    }
    let (attributes, links) = match text.split_once("\nlinks\n") {
        Some((attributes, links)) => (attributes, link_targets(links)),
        None => (text, BTreeMap::new()),
    };
    let mut blocks: Vec<Vec<(&str, &str)>> = Vec::new();
    for line in attributes.lines() {
        let Some((name, value)) = line.split_once(' ') else {
            continue;
        };
        // `device` is both the line that begins a card and its device id; only the first of
        // them is an address.
        if name == "device" && value.contains(':') {
            blocks.push(Vec::new());
        }
        if let Some(block) = blocks.last_mut() {
            block.push((name, value));
        }
    }
    let mut cards: Vec<PciCard> = blocks.iter().filter_map(|b| card(b, &links)).collect();
    cards.sort_by_key(|card| card.pci);
    Some(cards)
}

/// The cards and what shares a slot or an IOMMU group with one of them, by address.
#[must_use]
pub fn functions(text: &str) -> Vec<PciFunction> {
    let links = text
        .split_once("\nlinks\n")
        .map_or_else(BTreeMap::new, |(_, links)| link_targets(links));
    let mut found: Vec<PciFunction> = text
        .lines()
        .filter_map(|line| function(line.strip_prefix("near ")?, &links))
        .collect();
    found.sort_by_key(|function| function.pci);
    found
}

fn function(line: &str, links: &BTreeMap<&str, &str>) -> Option<PciFunction> {
    let mut words = line.split(' ');
    let address = words.next()?;
    let class = words.next().and_then(hex)?;
    let (vendor, device) = (words.next().and_then(hex16)?, words.next().and_then(hex16)?);
    let link = |name: &str| links.get(format!("{address}/{name}").as_str()).copied();
    Some(PciFunction {
        pci: address.parse().ok()?,
        class,
        vendor,
        device,
        driver: Fact::from_option(link("driver").map(str::to_owned)),
        driver_override: match words.next() {
            None | Some("" | "(null)") => Fact::Absent,
            Some("?") => Fact::Unknown("driver_override could not be read".to_owned()),
            Some(name) => Fact::Known(name.to_owned()),
        },
        iommu_group: Fact::from_option(link("iommu_group"))
            .and_then_read("iommu_group", |v| v.parse().ok()),
        is_virtual: link("physfn").is_some(),
    })
}

/// Where each link below `…/devices/` points, by its path from there; only the last name of
/// the target.
fn link_targets(text: &str) -> BTreeMap<&str, &str> {
    text.lines()
        .filter_map(|line| {
            let (left, target) = line.rsplit_once(" -> ")?;
            let (_, path) = left.rsplit_once("/sys/bus/pci/devices/")?;
            Some((path, target.rsplit('/').next()?))
        })
        .collect()
}

fn card(block: &[(&str, &str)], links: &BTreeMap<&str, &str>) -> Option<PciCard> {
    let address = block.first()?.1;
    let block = &block[1..];
    let value = |name: &str| block.iter().find(|(n, _)| *n == name).map(|(_, v)| *v);
    let id = |name: &str| value(name).and_then(hex16);
    let link = |name: &str| links.get(format!("{address}/{name}").as_str()).copied();
    let number =
        |name: &str| Fact::from_option(value(name)).and_then_read(name, |v| v.parse().ok());

    let mut vfs = Vec::new();
    let mut vf_groups = Vec::new();
    let mut number_of_vf = 0;
    while let Some(vf) = link(&format!("virtfn{number_of_vf}")) {
        if let Ok(address) = vf.parse::<PciAddress>() {
            let driver = link(&format!("virtfn{number_of_vf}/driver"));
            vfs.push((address, Fact::from_option(driver.map(str::to_owned))));
        }
        let group = link(&format!("virtfn{number_of_vf}/iommu_group"));
        vf_groups.extend(group.and_then(|group| group.parse::<u32>().ok()));
        number_of_vf += 1;
    }
    let sriov = match (number("sriov_totalvfs"), number("sriov_numvfs")) {
        (Fact::Known(total_vfs), Fact::Known(num_vfs)) => Fact::Known(Sriov {
            total_vfs,
            num_vfs,
            drivers_autoprobe: number("sriov_drivers_autoprobe").map(|on| on != 0),
            vfs,
        }),
        (Fact::Absent, _) => Fact::Absent,
        (Fact::Unknown(why), _) | (_, Fact::Unknown(why)) => Fact::Unknown(why),
        (_, Fact::Absent) => Fact::Unknown("sriov_numvfs could not be read".to_owned()),
    };
    Some(PciCard {
        pci: address.parse().ok()?,
        class: value("class").and_then(hex)?,
        vendor: id("vendor")?,
        device: id("device")?,
        subsystem: match (id("subsystem_vendor"), id("subsystem_device")) {
            (Some(vendor), Some(device)) => Fact::Known((vendor, device)),
            _ => Fact::Absent,
        },
        driver: Fact::from_option(link("driver").map(str::to_owned)),
        iommu_group: Fact::from_option(link("iommu_group"))
            .and_then_read("iommu_group", |v| v.parse().ok()),
        numa_node: match value("numa_node") {
            // The kernel's way to say that there are no nodes.
            None | Some("-1") => Fact::Absent,
            Some(_) => number("numa_node"),
        },
        reset: value("reset").is_some(),
        sriov,
        physfn: link("physfn").and_then(|pf| pf.parse().ok()),
        nodes: block
            .iter()
            .filter(|(name, _)| *name == "node")
            .map(|(_, node)| (*node).to_owned())
            .collect(),
        vf_groups,
    })
}

/// Reading a fact's text, which may fail.
trait ReadFact {
    fn and_then_read<T>(self, name: &str, read: impl Fn(&str) -> Option<T>) -> Fact<T>;
}

impl ReadFact for Fact<&str> {
    fn and_then_read<T>(self, name: &str, read: impl Fn(&str) -> Option<T>) -> Fact<T> {
        match self {
            Fact::Known("?") => Fact::Unknown(format!("{name} could not be read")),
            Fact::Known(text) => match read(text) {
                Some(value) => Fact::Known(value),
                None => {
                    let text: String = text.chars().take(60).collect();
                    Fact::Unknown(format!("{name} reads `{text}`"))
                }
            },
            Fact::Absent => Fact::Absent,
            Fact::Unknown(why) => Fact::Unknown(why),
        }
    }
}

fn hex(text: &str) -> Option<u32> {
    u32::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

fn hex16(text: &str) -> Option<u16> {
    hex(text)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A2: &str = "\
device 0000:08:00.0
class 0x030200
vendor 0x10de
device 0x25b6
subsystem_vendor 0x10de
subsystem_device 0x157e
numa_node 0
sriov_totalvfs 16
sriov_numvfs 2
sriov_drivers_autoprobe 1
reset yes
node card1
node renderD128
device 0000:08:00.4
class 0x030200
vendor 0x10de
device 0x25b6
numa_node -1
links
lrwxrwxrwx 1 root root 0 Nov 22 10:00 /sys/bus/pci/devices/0000:08:00.0/driver -> ../../../../bus/pci/drivers/nvidia
lrwxrwxrwx 1 root root 0 Nov 22 10:00 /sys/bus/pci/devices/0000:08:00.0/iommu_group -> ../../../../kernel/iommu_groups/38
lrwxrwxrwx 1 root root 0 Nov 22 10:00 /sys/bus/pci/devices/0000:08:00.0/virtfn0 -> ../0000:08:00.4
lrwxrwxrwx 1 root root 0 Nov 22 10:00 /sys/bus/pci/devices/0000:08:00.0/virtfn0/driver -> ../../../../bus/pci/drivers/vfio-pci
lrwxrwxrwx 1 root root 0 Nov 22 10:00 /sys/bus/pci/devices/0000:08:00.0/virtfn0/iommu_group -> ../../../../kernel/iommu_groups/70
lrwxrwxrwx 1 root root 0 Nov 22 10:00 /sys/bus/pci/devices/0000:08:00.0/virtfn1 -> ../0000:08:00.5
lrwxrwxrwx 1 root root 0 Nov 22 10:00 /sys/bus/pci/devices/0000:08:00.4/physfn -> ../0000:08:00.0
";

    #[test]
    fn a_card_with_virtual_functions_is_read() {
        let cards = parse(A2).expect("there is a bus");
        assert_eq!(cards.len(), 2);
        let pf = &cards[0];
        assert_eq!(
            (pf.vendor, pf.device, pf.class),
            (0x10de, 0x25b6, 0x03_0200)
        );
        assert_eq!(pf.subsystem, Fact::Known((0x10de, 0x157e)));
        assert_eq!(pf.driver, Fact::Known("nvidia".to_owned()));
        assert_eq!(pf.iommu_group, Fact::Known(38));
        assert_eq!(pf.numa_node, Fact::Known(0));
        assert!(pf.reset);
        let sriov = pf.sriov.known().expect("it has SR-IOV");
        assert_eq!((sriov.total_vfs, sriov.num_vfs), (16, 2));
        assert_eq!(sriov.vfs[0].1, Fact::Known("vfio-pci".to_owned()));
        assert_eq!(sriov.vfs[1].1, Fact::Absent);
        assert_eq!(pf.vf_groups, [70]);
        assert_eq!(pf.nodes, ["card1", "renderD128"]);
        let vf = &cards[1];
        assert_eq!(vf.physfn, Some(pf.pci));
        assert_eq!((&vf.sriov, &vf.numa_node), (&Fact::Absent, &Fact::Absent));
        assert_eq!(vf.driver, Fact::Absent);
    }

    #[test]
    fn what_is_near_a_card_is_told_with_its_driver_and_group() {
        let text = format!(
            "near 0000:08:00.1 0x040300 0x10de 0x22bc (null)\nnear 0000:08:00.0 0x030200 0x10de 0x25b6 vfio-pci\n\
             near 0000:08:00.9x 0x1 0x2 0x3 ?\n{A2}lrwxrwxrwx 1 root root 0 Nov 22 10:00 /sys/bus/pci/devices/0000:08:00.1/driver -> ../../x/snd_hda_intel\n"
        );
        let found = functions(&text);
        assert_eq!(found.len(), 2, "{found:#?}");
        let (card, audio) = (&found[0], &found[1]);
        assert_eq!(card.driver_override, Fact::Known("vfio-pci".to_owned()));
        assert_eq!(
            (&card.iommu_group, card.goes_along()),
            (&Fact::Known(38), false)
        );
        assert_eq!(
            audio.label(),
            "0000:08:00.1 (audio 10de:22bc, driver snd_hda_intel)"
        );
        assert_eq!(
            (
                &audio.iommu_group,
                &audio.driver_override,
                audio.goes_along()
            ),
            (&Fact::Absent, &Fact::Absent, true)
        );
        // A card's own lines are read as before.
        assert_eq!(parse(&text).expect("a bus").len(), 2);
    }

    #[test]
    fn an_attribute_that_cannot_be_read_is_unknown_and_not_absent() {
        let text = A2.replace("sriov_numvfs 2", "sriov_numvfs ?");
        let cards = parse(&text).expect("there is a bus");
        assert_eq!(
            cards[0].sriov.unknown(),
            Some("sriov_numvfs could not be read")
        );
    }

    #[test]
    fn a_host_without_a_bus_is_told_from_one_without_cards() {
        assert_eq!(parse("nobus\n"), None);
        assert_eq!(parse(""), Some(Vec::new()));
    }
}
