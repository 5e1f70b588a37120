//! Which layout a card gets where the variables name a configuration of mig-parted.
//!
//! NVIDIA's tool passes over cards without MIG unless an entry names them by index, and finds a
//! host wrong that has a card no entry is for; so does this. Placing is `mig`'s.

use crate::catalog::{Model, Technology};
use crate::desired::{MigParted, MigWanted, PartedEntry, Wanted, index_of};
use crate::error::{Diagnostic, Problems};
use crate::facts::{Fact, Gpu};

use super::{Ask, offline};

/// What a card is to be.
pub(super) enum Layout {
    /// MIG is off; why, as a note.
    Whole(String),
    /// What the variables themselves say.
    Written,
    /// MIG is on, with the instances that the file says.
    Said(Box<MigWanted>),
}

/// The layout that is wanted of a card, from the file or from the variables themselves.
pub(super) fn layout(ask: &Ask<'_>) -> Result<Layout, Diagnostic> {
    let above = &ask.wanted.mig;
    let Some(parted) = &above.mig_parted else {
        return Ok(Layout::Written);
    };
    match entry_for(parted, ask)? {
        Some(entry) if entry.enabled => Ok(Layout::Said(Box::new(entry.as_wanted(above)))),
        Some(entry) => Ok(Layout::Whole(format!(
            "`{}` leaves it whole, at {}",
            parted.config.value, entry.origin
        ))),
        None => {
            let message = format!(
                "`{}` of `{}` has no entry for {}",
                parted.config.value,
                parted.file.value,
                ask.gpu.label()
            );
            let hint = "each card needs one, `mig-enabled: false` if it is to stay whole; an entry of `gpus` takes a card out of it";
            Err(parted.config.blame(Diagnostic::error(message).hint(hint)))
        }
    }
}

/// Whether the configuration means the card. It passes over one that cannot have MIG, unless it
/// asks for MIG on that very card.
pub(super) fn means(ask: &Ask<'_>) -> bool {
    let Some(parted) = &ask.wanted.mig.mig_parted else {
        return true;
    };
    match entry_for(parted, ask) {
        _ if can(ask.gpu, ask.model) => true,
        Ok(Some(entry)) => entry.enabled && entry.devices.is_some(),
        Ok(None) => false,
        Err(_) => true,
    }
}

fn can(gpu: &Gpu, model: Option<&Model>) -> bool {
    match model {
        Some(model) => model.technologies.contains(&Technology::Mig),
        None => gpu
            .nvidia
            .known()
            .is_some_and(|nvidia| nvidia.mig != Fact::Absent),
    }
}

fn entry_for<'a>(
    parted: &'a MigParted,
    ask: &Ask<'_>,
) -> Result<Option<&'a PartedEntry>, Diagnostic> {
    parted.entry_for(ask.gpu, index_of(&ask.host.gpus, ask.position))
}

/// What the configuration says of a card, for `auto`; nothing where no file is named or no entry
/// is for the card.
pub(super) fn asks_of<'a>(
    wanted: &'a Wanted,
    gpu: &Gpu,
    index: usize,
) -> Result<Option<&'a PartedEntry>, Diagnostic> {
    match &wanted.mig.mig_parted {
        Some(parted) => parted.entry_for(gpu, index),
        None => Ok(None),
    }
}

/// Entries that fit no model that they are for.
pub(super) fn check(
    parted: &MigParted,
    wanted: &Wanted,
    models: &[&Model],
    problems: &mut Problems,
) {
    for entry in parted.entries.iter().filter(|entry| entry.enabled) {
        let meant = |model: &&&Model| {
            let mut ids = model.device_ids.iter();
            entry.filter.is_empty() || ids.any(|id| entry.filter.contains(&id.device))
        };
        let models: Vec<&Model> = models.iter().filter(meant).copied().collect();
        // Of a card that no model has the id of, the host tells.
        if models.is_empty() || entry.profiles.is_empty() {
            continue;
        }
        let layout = Wanted {
            mig: entry.as_wanted(&wanted.mig),
            ..wanted.clone()
        };
        offline::check_layout_of(&layout, &[], &models, problems);
    }
}
