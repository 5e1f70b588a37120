//! The plain table that `nvidia-smi` prints without arguments.
//!
//! Discovery asks by query instead; this reads tables that people paste, and saved captures:
//! the MIG column tells a pending change (`Enabled*`) that no other short form shows.

use super::{not_there, switch};

/// What the table says of the host and its cards.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// `Driver Version`.
    pub driver: Option<String>,
    /// Cards in the order of the table.
    pub cards: Vec<TableCard>,
    /// MIG devices in the order of the table.
    pub mig_devices: Vec<TableMigDevice>,
}

/// A card of the table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableCard {
    /// Index.
    pub index: u32,
    /// The MIG column.
    pub mig: TableMig,
}

/// The MIG column.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TableMig {
    /// `N/A`, or a driver that has no such column.
    #[default]
    None,
    /// `Enabled` or `Disabled`; with `pending` if a `*` marks it.
    Mode {
        /// Whether it reads enabled.
        enabled: bool,
        /// Whether it takes effect only after a reset.
        pending: bool,
    },
}

/// A MIG device of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableMigDevice {
    /// Index of the card.
    pub gpu: u32,
    /// GPU instance.
    pub gi_id: u32,
    /// Compute instance.
    pub ci_id: u32,
    /// Number within the card.
    pub device: u32,
    /// Memory in MiB; none where a compute instance shares that of the row above.
    pub memory_mib: Option<u64>,
}

/// Reads a table of any width; other lines are passed over.
#[must_use]
pub fn parse(text: &str) -> Table {
    let mut table = Table::default();
    let mut part = Part::Cards;
    for line in text.lines() {
        if let Some((_, rest)) = line.split_once("Driver Version:") {
            table.driver = rest.split_whitespace().next().map(str::to_owned);
        }
        let Some(inner) = line.trim().strip_prefix('|') else {
            continue;
        };
        let inner = inner.trim_end_matches('|');
        if inner.trim_start().starts_with("MIG devices:") {
            part = Part::MigDevices;
        } else if inner.trim_start().starts_with("Processes:") {
            part = Part::Processes;
        }
        let cells: Vec<&str> = inner.split('|').map(str::trim).collect();
        match part {
            Part::Cards => card_line(&cells, &mut table),
            Part::MigDevices => table.mig_devices.extend(mig_device(&cells)),
            Part::Processes => {}
        }
    }
    table
}

#[derive(Clone, Copy)]
enum Part {
    Cards,
    MigDevices,
    Processes,
}

/// Each card has three lines; the first has index and bus id, the third the MIG mode alone.
fn card_line(cells: &[&str], table: &mut Table) {
    let [left, middle, right] = cells else {
        return;
    };
    let mut words = left.split_whitespace();
    if let Some(index) = words.next().and_then(|word| word.parse().ok())
        && middle.contains(':')
    {
        table.cards.push(TableCard {
            index,
            mig: TableMig::None,
        });
        return;
    }
    if !left.is_empty() || !middle.is_empty() {
        return;
    }
    if let (Some(card), Some(enabled)) = (table.cards.last_mut(), switch(right)) {
        card.mig = TableMig::Mode {
            enabled,
            pending: right.ends_with('*'),
        };
    }
}

/// `0    2   0   0 | 22MiB / 71424MiB | …`
fn mig_device(cells: &[&str]) -> Option<TableMigDevice> {
    let numbers: Option<Vec<u32>> = cells
        .first()?
        .split_whitespace()
        .map(|word| word.parse().ok())
        .collect();
    let [gpu, gi_id, ci_id, device] = numbers?[..] else {
        return None;
    };
    let memory = cells.get(1)?;
    let memory_mib = memory
        .split_once('/')
        .map(|(_, total)| total.trim())
        .filter(|total| !not_there(total))
        .and_then(|total| total.trim_end_matches("MiB").trim().parse().ok());
    Some(TableMigDevice {
        gpu,
        gi_id,
        ci_id,
        device,
        memory_mib,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_marks_a_pending_change() {
        let text = "\
|   0  NVIDIA A30                     Off | 00000000:0B:00.0 Off |                    0 |
| N/A   49C    P0              43W / 165W |      0MiB / 24576MiB |      0%      Default |
|                                         |                      |             Enabled* |
";
        let expected = TableMig::Mode {
            enabled: true,
            pending: true,
        };
        assert_eq!(parse(text).cards[0].mig, expected);
    }
}
