//! `nvidia-smi -L`: cards and their MIG devices, with UUIDs.

use crate::facts::GpuUuid;

/// A card in the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Index.
    pub index: u32,
    /// Product name.
    pub name: String,
    /// UUID.
    pub uuid: GpuUuid,
    /// Its MIG devices, in the tool's order: by GPU instance, then compute instance.
    pub devices: Vec<ListedDevice>,
}

/// A MIG device in the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedDevice {
    /// `1g.10gb`, or `1c.3g.71gb` where several share a GPU instance.
    pub profile: String,
    /// Number within the card.
    pub device: u32,
    /// UUID.
    pub uuid: MigUuid,
}

/// A MIG device's UUID in either of its forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MigUuid {
    /// `MIG-41b9eab5-…`, since R470.
    Own(String),
    /// `MIG-GPU-…/7/0`: the card's UUID, the GPU instance and the compute instance.
    Path {
        /// The whole text.
        text: String,
        /// GPU instance.
        gi_id: u32,
        /// Compute instance.
        ci_id: u32,
    },
}

impl MigUuid {
    /// As printed.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::Own(text) | Self::Path { text, .. } => text,
        }
    }
}

/// The cards of a list; other lines are passed over.
#[must_use]
pub fn parse(text: &str) -> Vec<Listed> {
    let mut found: Vec<Listed> = Vec::new();
    for line in text.lines() {
        if let Some(card) = card(line) {
            found.push(card);
        } else if let (Some(device), Some(card)) = (device(line), found.last_mut()) {
            card.devices.push(device);
        }
    }
    found
}

/// `GPU 0: NVIDIA A30 (UUID: GPU-1e44b340-…)`
fn card(line: &str) -> Option<Listed> {
    let rest = line.strip_prefix("GPU ")?;
    let (index, rest) = rest.split_once(": ")?;
    let (name, uuid) = rest.rsplit_once(" (UUID: ")?;
    let uuid = uuid.trim_end().strip_suffix(')')?;
    uuid.starts_with("GPU-").then_some(())?;
    Some(Listed {
        index: index.trim().parse().ok()?,
        name: name.trim().to_owned(),
        uuid: GpuUuid(uuid.to_owned()),
        devices: Vec::new(),
    })
}

/// `  MIG 1g.6gb      Device  0: (UUID: MIG-41b9eab5-…)`
fn device(line: &str) -> Option<ListedDevice> {
    let rest = line.trim_start().strip_prefix("MIG ")?;
    // The column of names is 16 wide with `MIG `; a longer one leaves no blank behind it.
    let (profile, rest) = rest.split_once("Device ")?;
    let (device, uuid) = rest.split_once(": (UUID: ")?;
    let uuid = uuid.trim_end().strip_suffix(')')?;
    Some(ListedDevice {
        profile: profile.trim().to_owned(),
        device: device.trim().parse().ok()?,
        uuid: mig_uuid(uuid)?,
    })
}

fn mig_uuid(text: &str) -> Option<MigUuid> {
    let rest = text.strip_prefix("MIG-")?;
    if !rest.starts_with("GPU-") {
        return Some(MigUuid::Own(text.to_owned()));
    }
    let mut parts = rest.split('/').skip(1);
    Some(MigUuid::Path {
        text: text.to_owned(),
        gi_id: parts.next()?.parse().ok()?,
        ci_id: parts.next()?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_as_wide_as_its_column_is_read() {
        let text = "GPU 0: X (UUID: GPU-1)\n  MIG 1g.24gb+me.allDevice  1: (UUID: MIG-2)\n";
        let cards = parse(text);
        assert_eq!(cards[0].devices[0].profile, "1g.24gb+me.all");
        assert_eq!(cards[0].devices[0].device, 1);
    }

    #[test]
    fn both_forms_of_uuid_are_read() {
        let text = "\
GPU 0: A100-PCIE-40GB (UUID: GPU-0069414c-9f30-41f9-d5d8-87890423f0c4)
  MIG 1g.5gb Device 0: (UUID: MIG-GPU-0069414c-9f30-41f9-d5d8-87890423f0c4/7/0)
GPU 1: NVIDIA A30 (UUID: GPU-1e44b340-5807-0dbe-62e6-343a6b8b8bcd)
  MIG 1g.6gb      Device  0: (UUID: MIG-41b9eab5-8d48-5c52-9f07-82bc59af3901)
";
        let cards = parse(text);
        assert_eq!(cards.len(), 2);
        assert_eq!(cards[0].name, "A100-PCIE-40GB");
        let MigUuid::Path { gi_id, ci_id, .. } = cards[0].devices[0].uuid else {
            panic!("the old form");
        };
        assert_eq!((gi_id, ci_id), (7, 0));
        assert_eq!(cards[1].devices[0].profile, "1g.6gb");
        assert_eq!(
            cards[1].devices[0].uuid.text(),
            "MIG-41b9eab5-8d48-5c52-9f07-82bc59af3901"
        );
    }
}
