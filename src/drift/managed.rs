//! Whether a plan has anything to say of a thing that it does not change: whether it found it as
//! wanted, or did not ask for it at all.
//!
//! A plan says what it looked at, in its reads, its files and the slices that it wants. Of a
//! path that is exact. Of anything else it is told by the names in the step's address, in doubt
//! for the plan: what it may have found as wanted is not called drift. A name counts where it
//! stands by itself, as a whole value or as a whole word of one: `mps.service` is not in
//! `nvidia-mps.service`.

use std::collections::HashSet;

use serde_json::{Value as Json, json};

use crate::plan::Complete;
use crate::step::{Change, Step};

/// What a plan asked for, gathered once.
pub(super) struct Managed<'a> {
    plan: &'a Complete,
    asked: Asked,
}

impl<'a> Managed<'a> {
    /// What this plan asked for.
    pub(super) fn of(plan: &'a Complete) -> Self {
        let asked = Asked::of(&json!([plan.reads, plan.plan.desired]));
        Self { plan, asked }
    }

    /// Whether the plan, which has no step of this address, asked for the thing.
    pub(super) fn has(&self, step: &Step) -> bool {
        if let Change::Path { path, .. } = &step.change {
            return self.plan.looked_at(path);
        }
        is_named(&self.asked, &step.id.0)
    }
}

fn is_named(asked: &Asked, address: &str) -> bool {
    let names = match address.split_once(':') {
        Some((_, names)) if !names.is_empty() => names,
        _ => address,
    };
    let subject = names.rsplit_once(':').map_or("", |(subject, _)| subject);
    // What is set on a card may have more in its address than the card's own.
    let card = names.get(..PCI).filter(|card| card.contains(':'));
    let whole = [names, subject, card.unwrap_or_default()];
    let stands = |name: &str| !name.is_empty() && asked.names.contains(name);
    whole.into_iter().any(stands) || names.split(':').all(|name| asked.has_part(name))
}

/// Characters of a PCI address.
const PCI: usize = "0000:17:00.0".len();

/// All that reads and wishes say.
struct Asked {
    /// Values, keys, and the words of both.
    names: HashSet<String>,
    text: String,
}

impl Asked {
    fn of(value: &Json) -> Self {
        let mut names = HashSet::new();
        gather(value, &mut names);
        let text = value.to_string();
        Self { names, text }
    }

    /// Whether a part of an address is asked for. Such parts are words of this program as well
    /// (`state`, `node`), which stand in the text in other forms.
    fn has_part(&self, part: &str) -> bool {
        let is_word = part.chars().all(|c| c.is_ascii_lowercase() || c == '-');
        part.is_empty()
            || self.names.contains(part)
            || (is_word && (part == "-" || self.text.contains(part)))
    }
}

/// All values and keys of a document, their words, and the names in paths.
fn gather(value: &Json, names: &mut HashSet<String>) {
    match value {
        Json::String(text) => of_text(text, names),
        Json::Number(number) => {
            names.insert(number.to_string());
        }
        Json::Array(items) => items.iter().for_each(|item| gather(item, names)),
        Json::Object(map) => {
            for (key, value) in map {
                of_text(key, names);
                gather(value, names);
            }
        }
        Json::Null | Json::Bool(_) => {}
    }
}

fn of_text(text: &str, names: &mut HashSet<String>) {
    let ends = |c: char| c.is_whitespace() || "\"'`,;|&<>(){}=".contains(c);
    for word in text.split(ends) {
        names.extend(word.split('/').map(str::to_owned));
        names.insert(word.to_owned());
    }
    names.insert(text.to_owned());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_asked_for_only_where_it_stands_whole() {
        let asked = Asked::of(&json!([
            {"Command": {"argv": ["systemctl", "show", "nvidia-mps.service"]}},
            {"Command": {"argv": ["sh", "-c", "modinfo nvidia; kubectl get nodes n1.lan"]}},
            {"File": {"path": "/etc/systemd/system/gpu-count.service"}},
            {"File": {"path": "/sys/bus/pci/devices/0000:17:00.0/sriov_numvfs"}},
            {"0000:18:00.0": {"mig": true}},
        ]));
        let named = |address: &str| is_named(&asked, address);
        assert!(named("unit:nvidia-mps.service:state"));
        assert!(!named("unit:mps.service:state"));
        assert!(named("unit:gpu-count.service:enabled"));
        assert!(!named("unit:gpu-count.servic:enabled"));
        for address in [
            "sriov:0000:17:00.0",
            "vgpu:0000:17:00.0:3",
            "mig:0000:18:00.0:layout",
        ] {
            assert!(named(address), "{address}");
        }
        assert!(!named("mig:0000:19:00.0:layout"));
        assert!(named("kubernetes:node:-:n1.lan"));
        assert!(!named("kubernetes:node:-:n1.la"));
    }
}
