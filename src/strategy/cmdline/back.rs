//! Taking out of a boot loader's files what was put there, and nothing else.

use crate::error::Diagnostic;
use crate::facts::{BootLoader, Fact, HostFacts};
use crate::shell::{Command, Script};
use crate::step::{Change, PathLook, Payload, Phase, Step, StepId};

use super::{DROP_IN, KernelArguments, TIMEOUT_S, drop_in, kernel_arguments, look, read_drop_in};

/// Names the step and its copies.
const KEY: &str = "kernel-cmdline-back";

/// What of these arguments a run would put into the boot loader's files: `+WORD` for one that
/// is not there yet, `-WORD` for one that is taken out.
#[must_use]
pub(in crate::strategy) fn adds(facts: &HostFacts, wanted: &KernelArguments) -> Vec<String> {
    let next = facts.kernel_boot.next.known();
    let has = |word: &String| next.is_some_and(|next| next.contains(word));
    let ours = ours(facts);
    let added = wanted.present.iter();
    let added = added.filter(|word| !has(word) && !ours.present.contains(word));
    let removed = wanted.absent.iter();
    let removed = removed.filter(|word| match facts.kernel_boot.loader {
        Fact::Known(BootLoader::Grub) => !ours.absent.contains(word),
        _ => has(word),
    });
    let added = added.map(|word| format!("+{word}"));
    added
        .chain(removed.map(|word| format!("-{word}")))
        .collect()
}

/// What our file for GRUB says.
fn ours(facts: &HostFacts) -> KernelArguments {
    let text = facts.kernel_boot.drop_in.known();
    text.map(|text| read_drop_in(text)).unwrap_or_default()
}

/// The step that takes them out again: what `adds` named as present goes, and what it named as
/// absent comes back. None if nothing of it is there any more.
///
/// # Errors
/// As `kernel_arguments`.
pub(in crate::strategy) fn taken_back(
    facts: &HostFacts,
    ours: &KernelArguments,
    task: &str,
) -> Result<Option<Step>, Diagnostic> {
    if facts.kernel_boot.loader != Fact::Known(BootLoader::Grub) {
        let other_way = KernelArguments {
            present: ours.absent.clone(),
            absent: ours.present.clone(),
            initramfs: false,
        };
        return Ok(kernel_arguments(facts, &other_way, task)?.write);
    }
    let Some(before) = facts.kernel_boot.drop_in.known() else {
        return Ok(None);
    };
    let now = read_drop_in(before);
    let without = |all: &[String], gone: &[String]| -> Vec<String> {
        let left = all.iter().filter(|word| !gone.contains(word));
        left.cloned().collect()
    };
    let left = KernelArguments {
        present: without(&now.present, &ours.present),
        absent: without(&now.absent, &ours.absent),
        initramfs: false,
    };
    if left == now {
        return Ok(None);
    }
    let after = (!left.present.is_empty() || !left.absent.is_empty()).then(|| drop_in(&left));
    let refresh = || Command::new("cmdline_refresh").arg("grub");
    let (apply, verify) = match &after {
        Some(_) => (
            Script::one(
                Command::new("put_file")
                    .run_path(format!("payload/{KEY}"))
                    .path(DROP_IN)
                    .args(["0644", "root", "root"]),
            ),
            Script::default(),
        ),
        None => (
            Script::one(Command::new("cmdline_forget").path(DROP_IN)),
            Script::one(Command::new("cmdline_forgotten").path(DROP_IN)),
        ),
    };
    let is =
        Command::new("cmdline_is").args(["grub", &left.present.join(" "), &left.absent.join(" ")]);
    let title = format!(
        "have the next boot no longer give the kernel what came for virtual machines: {}",
        ours.present.join(" ")
    );
    let change = Change::Path {
        path: DROP_IN.to_owned(),
        before: look(before),
        after: after.as_deref().map_or(PathLook::Absent, look),
    };
    let payload = after.map(|text| Payload {
        name: KEY.to_owned(),
        content: text.into_bytes(),
    });
    Ok(Some(Step {
        phase: Phase::Prepare,
        snapshot: Script::one(Command::new("path_snapshot").arg(KEY).path(DROP_IN)),
        apply: apply.then(refresh()),
        verify: verify.then(is),
        undo: Script::one(Command::new("path_restore").arg(KEY).path(DROP_IN)).then(refresh()),
        payload: payload.into_iter().collect(),
        timeout_s: TIMEOUT_S,
        ..Step::new(
            StepId(KEY.to_owned()),
            task,
            title.trim_end_matches(": ").to_owned(),
            change,
        )
    }))
}
