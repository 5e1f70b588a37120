//! The lines of `intel.sh` that come from sysfs and debugfs.

use std::collections::BTreeSet;

use crate::facts::{
    Fact, IntelDriver, IntelGt, PciAddress, Provisioning, ProvisioningInterface, VfShare,
};

/// One card as the script tells it.
#[derive(Debug, Clone, PartialEq)]
pub struct Card {
    /// Its place.
    pub pci: PciAddress,
    /// Whether the driver is the i915 from outside of Linux.
    pub prelim: bool,
    /// Its graphics units.
    pub gts: Vec<IntelGt>,
    /// Graphics units to which i915 gives shares: its tiles.
    pub units: u32,
    /// Shares of virtual functions.
    pub provisioning: Fact<Provisioning>,
}

impl Card {
    /// How many tiles it has. xe has a folder for each; i915 counts units, and the units that
    /// can be shared are its tiles.
    pub(super) fn tiles(&self, driver: IntelDriver) -> Fact<u32> {
        let tiles: BTreeSet<u32> = self.gts.iter().map(|gt| gt.tile).collect();
        match driver {
            IntelDriver::Xe if !tiles.is_empty() => {
                Fact::Known(u32::try_from(tiles.len()).unwrap_or(u32::MAX))
            }
            IntelDriver::I915Prelim if self.units > 0 => Fact::Known(self.units),
            _ => Fact::Unknown("the driver does not tell its tiles".to_owned()),
        }
    }
}

/// All cards of the script's answer; lines that it does not know are passed over.
#[must_use]
pub fn parse(text: &str) -> Vec<Card> {
    let mut cards: Vec<Card> = Vec::new();
    for line in text.lines() {
        let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
        if name == "card" {
            if let Ok(pci) = rest.parse() {
                cards.push(Card {
                    pci,
                    prelim: false,
                    gts: Vec::new(),
                    units: 0,
                    provisioning: Fact::Absent,
                });
            }
            continue;
        }
        if let Some(card) = cards.last_mut() {
            take(card, name, rest);
        }
    }
    cards
}

fn take(card: &mut Card, name: &str, rest: &str) {
    let words: Vec<&str> = rest.split(' ').collect();
    match (name, &words[..]) {
        ("prelim", _) => card.prelim = true,
        ("unit", _) => card.units = card.units.saturating_add(1),
        ("gt", [tile, gt, mode, slices]) => {
            if let (Ok(tile), Ok(gt)) = (tile.parse(), gt.parse()) {
                card.gts.push(IntelGt {
                    tile,
                    gt,
                    ccs_mode: number("ccs_mode", mode),
                    num_cslices: number("num_cslices", slices),
                });
            }
        }
        ("interface", [word]) => {
            if let Some(interface) = interface(word) {
                card.provisioning = Fact::Known(Provisioning {
                    interface,
                    auto: Fact::Absent,
                    takes: Vec::new(),
                    vfs: Vec::new(),
                });
            }
        }
        _ => {
            if let Fact::Known(provisioning) = &mut card.provisioning {
                take_share(provisioning, name, &words);
            }
        }
    }
}

fn take_share(provisioning: &mut Provisioning, name: &str, words: &[&str]) {
    match (name, words) {
        ("auto", [word]) => {
            provisioning.auto = number("auto_provisioning", word).map(|on: u32| on != 0);
        }
        ("takes", names) => {
            provisioning.takes = [
                "vram_quota",
                "exec_quantum_ms",
                "preempt_timeout_us",
                "sched_priority",
            ]
            .into_iter()
            .filter(|wanted| {
                names.contains(wanted) || (*wanted == "vram_quota" && names.contains(&"lmem_quota"))
            })
            // debugfs takes priorities as numbers, which no document names.
            .filter(|wanted| {
                *wanted != "sched_priority"
                    || provisioning.interface == ProvisioningInterface::SriovAdmin
            })
            .map(str::to_owned)
            .collect();
        }
        ("share", [function, _, memory, quantum, timeout, priority @ ..]) => {
            let Ok(function) = function.parse::<u32>() else {
                return;
            };
            let share = VfShare {
                number: function,
                vram_quota: number("vram_quota", memory),
                exec_quantum_ms: number("exec_quantum_ms", quantum),
                preempt_timeout_us: number("preempt_timeout_us", timeout),
                sched_priority: chosen(&priority.join(" ")),
            };
            match provisioning.vfs.last_mut() {
                Some(before) if before.number == function => over_units(before, share),
                _ => provisioning.vfs.push(share),
            }
        }
        _ => {}
    }
}

/// A function's memory is what it has on all units; a turn that a unit does not give it reads 0
/// there.
fn over_units(before: &mut VfShare, more: VfShare) {
    let sum = |one: &Fact<u64>, other: Fact<u64>| match (one, other) {
        (Fact::Known(one), Fact::Known(other)) => Fact::Known(one.saturating_add(other)),
        (Fact::Absent, other) => other,
        (one, _) => one.clone(),
    };
    let larger = |one: &Fact<u64>, other: Fact<u64>| match (one, other) {
        (Fact::Known(one), Fact::Known(other)) => Fact::Known((*one).max(other)),
        (Fact::Absent, other) => other,
        (one, _) => one.clone(),
    };
    before.vram_quota = sum(&before.vram_quota, more.vram_quota);
    before.exec_quantum_ms = larger(&before.exec_quantum_ms, more.exec_quantum_ms);
    before.preempt_timeout_us = larger(&before.preempt_timeout_us, more.preempt_timeout_us);
}

fn interface(word: &str) -> Option<ProvisioningInterface> {
    Some(match word {
        "sriov_admin" => ProvisioningInterface::SriovAdmin,
        "iov" => ProvisioningInterface::Iov,
        "prelim_iov" => ProvisioningInterface::PrelimIov,
        "debugfs" => ProvisioningInterface::Debugfs,
        _ => return None,
    })
}

fn number<T: std::str::FromStr>(name: &str, word: &str) -> Fact<T> {
    match word {
        "-" => Fact::Absent,
        // EUCLEAN of xe: the tiles differ.
        "?" => Fact::Unknown(format!("{name} could not be read")),
        _ => match word.parse() {
            Ok(number) => Fact::Known(number),
            Err(_) => {
                let word: String = word.chars().take(40).collect();
                Fact::Unknown(format!("{name} reads `{word}`"))
            }
        },
    }
}

/// The word in brackets of `[low] normal high`.
fn chosen(text: &str) -> Fact<String> {
    match text {
        "-" | "" => Fact::Absent,
        "?" => Fact::Unknown("sched_priority could not be read".to_owned()),
        _ => {
            let word = text
                .split_once('[')
                .and_then(|(_, rest)| Some(rest.split_once(']')?.0));
            match word {
                Some(word) => Fact::Known(word.to_owned()),
                None => {
                    let text: String = text.chars().take(40).collect();
                    Fact::Unknown(format!("sched_priority reads `{text}`"))
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_xe_are_read() {
        let cards = parse(
            "card 0000:04:00.0\ngt 0 0 1 4\ngt 0 1 - -\ninterface sriov_admin\nauto -\n\
             takes exec_quantum_ms preempt_timeout_us sched_priority vram_quota\n\
             share 1 - 8589934592 20 20000 [low] normal high\nshare 2 - 0 0 ? low [normal] high\n",
        );
        let [card] = &cards[..] else {
            panic!("{cards:?}");
        };
        assert_eq!(card.tiles(IntelDriver::Xe), Fact::Known(1));
        assert_eq!(card.gts[0].num_cslices, Fact::Known(4));
        assert_eq!(card.gts[1].ccs_mode, Fact::Absent);
        let shares = card.provisioning.known().expect("a physical function");
        assert_eq!(shares.interface, ProvisioningInterface::SriovAdmin);
        assert_eq!(shares.takes.len(), 4);
        assert_eq!(shares.vfs[0].vram_quota, Fact::Known(8 << 30));
        assert_eq!(shares.vfs[0].sched_priority, Fact::Known("low".to_owned()));
        assert!(shares.vfs[1].preempt_timeout_us.unknown().is_some());
        assert_eq!(
            shares.vfs[1].sched_priority,
            Fact::Known("normal".to_owned())
        );
    }

    #[test]
    fn shares_of_i915_are_summed_over_tiles() {
        let cards = parse(
            "card 0000:4d:00.0\nprelim\ngt 0 0 1 4\ngt 1 1 2 4\ninterface iov\nauto 0\ntakes lmem_quota exec_quantum_ms\n\
             unit\nunit\nshare 1 0 100 64 128000 -\nshare 1 1 50 0 0 -\nshare 2 0 0 0 0 -\n",
        );
        let card = &cards[0];
        assert_eq!(card.tiles(IntelDriver::I915Prelim), Fact::Known(2));
        let shares = card.provisioning.known().expect("a physical function");
        assert_eq!(shares.auto, Fact::Known(false));
        assert_eq!(shares.takes, ["vram_quota", "exec_quantum_ms"]);
        assert_eq!(shares.vfs.len(), 2);
        assert_eq!(shares.vfs[0].vram_quota, Fact::Known(150));
        assert_eq!(shares.vfs[0].exec_quantum_ms, Fact::Known(64));
        assert_eq!(shares.vfs[0].sched_priority, Fact::Absent);
    }
}
