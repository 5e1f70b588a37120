//! Blocks of platforms that no host reads, and platforms without their block: silent mistakes,
//! since a variable that nobody asks for looks like any other.

use crate::desired::Desired;
use crate::error::{Diagnostic, Origin, Problems};
use crate::value::Value;

use super::{NONE, PLATFORMS, Platform, VARIABLE, wanted};

/// Warns of blocks that none of these hosts reads. A block for which `gpu_platform: none` stands
/// is one that is put out of force on purpose.
#[must_use]
pub fn unread_blocks<'a>(hosts: impl Iterator<Item = &'a Desired>) -> Problems {
    let mut read: Vec<&Origin> = Vec::new();
    let mut unread: Vec<(&dyn Platform, &Origin)> = Vec::new();
    for desired in hosts {
        let Ok(wanted) = wanted(desired) else {
            continue;
        };
        for platform in PLATFORMS {
            let Some(block) = desired.platforms.get(platform.variable()) else {
                continue;
            };
            let named = wanted.as_deref().unwrap_or_default();
            let is_read = named.iter().any(|named| named.name() == platform.name());
            match is_read || is_none(desired) {
                true => read.push(&block.origin),
                false => unread.push((*platform, &block.origin)),
            }
        }
    }
    let mut problems = Problems::default();
    let mut told: Vec<&Origin> = Vec::new();
    for (platform, origin) in unread {
        if read.contains(&origin) || told.contains(&origin) {
            continue;
        }
        told.push(origin);
        let (variable, name) = (platform.variable(), platform.name());
        let message = format!(
            "`{variable}` has no effect: no host that has it names `{name}` in `{VARIABLE}`"
        );
        let hint = format!("`{VARIABLE}: {name}`, or add it to the list there");
        problems.push(Diagnostic::warning(message).at(origin).hint(hint));
    }
    problems
}

fn is_none(desired: &Desired) -> bool {
    let node = desired.platforms.get(VARIABLE);
    node.is_some_and(|node| match &node.value {
        Value::Seq(items) => items.iter().any(|item| item.as_str() == Some(NONE)),
        _ => node.as_str() == Some(NONE),
    })
}

/// Warns of a platform of a host that does nothing without its block.
pub(super) fn missing_block(platform: &dyn Platform, desired: &Desired, problems: &mut Problems) {
    let variable = platform.variable();
    if !platform.needs_block(desired) || desired.platforms.contains_key(variable) {
        return;
    }
    let Some(node) = desired.platforms.get(VARIABLE) else {
        return;
    };
    let name = platform.name();
    let message = format!(
        "`{VARIABLE}` names `{name}`, and there is no `{variable}` that says what is to be there"
    );
    let hint = format!("write `{variable}`; without it what deploy once put there is taken away");
    problems.push(Diagnostic::warning(message).at(&node.origin).hint(hint));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Node;
    use serde_json::{Value as Json, json};

    fn desired(vars: &Json) -> Desired {
        let origin = Origin::whole("vars.yml", vars.to_string());
        let map = Node::from_json(vars, &origin).as_map().cloned();
        let vars = map.unwrap_or_default().into_iter();
        let vars = vars.map(|(name, entry)| (name, entry.node)).collect();
        crate::desired::read(&vars, &|_, _| Default::default()).0
    }

    fn said(hosts: &[Json]) -> Vec<String> {
        let hosts: Vec<Desired> = hosts.iter().map(desired).collect();
        let found = unread_blocks(hosts.iter());
        assert!(found.0.iter().all(|found| found.origin.is_some()));
        found.0.into_iter().map(|found| found.message).collect()
    }

    #[test]
    fn a_block_that_nobody_reads_is_told_once() {
        let block = json!({ "containers": [] });
        let with = |platform: Json| json!({ "gpu_platform": platform, "gpu_podman": block });
        assert_eq!(said(&[json!({ "gpu_podman": block })]).len(), 1);
        let told = said(&[with(json!("docker")), with(json!(["docker"]))]);
        assert!(told[0].contains("`gpu_podman` has no effect"), "{told:?}");
        for fine in [json!("podman"), json!(["docker", "podman"]), json!("none")] {
            assert_eq!(said(&[with(fine)]), Vec::<String>::new());
        }
    }

    #[test]
    fn a_platform_without_its_block_is_told_where_it_is_named() {
        let of = |name: &str| {
            let mut problems = Problems::default();
            let platform = PLATFORMS.iter().find(|platform| platform.name() == name);
            let desired = desired(&json!({ "gpu_platform": name }));
            missing_block(*platform.expect("it is there"), &desired, &mut problems);
            problems.0.len()
        };
        assert_eq!(of("incus"), 1);
        // Docker's daemon is configured without further words.
        assert_eq!(of("docker"), 0);
        assert_eq!(of("podman"), 1);
    }

    #[test]
    fn exporters_are_work_for_podman_without_its_block() {
        let of = |exporter: Json| {
            let vars = json!({ "gpu_platform": "podman", "gpu_exporters": { "dcgm": exporter } });
            let mut problems = Problems::default();
            missing_block(
                &super::super::podman::Podman,
                &desired(&vars),
                &mut problems,
            );
            problems.0.len()
        };
        assert_eq!(of(json!({ "enabled": true })), 0);
        assert_eq!(of(json!({ "enabled": true, "run": "unit" })), 1);
        assert_eq!(of(json!({ "enabled": false })), 1);
    }
}
