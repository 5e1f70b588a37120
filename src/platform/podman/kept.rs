//! What deploy keeps for podman on a host, in a record there: so that a container that is no
//! longer wanted is stopped and its files go, and nobody else's are touched.

use serde_json::json;

use crate::platform::{Host, PlatformFile, Wish};
use crate::render::Rendered;
use crate::shell::{Command, Script};
use crate::step::{Change, Class, Step, StepId};
use crate::transport::PathState;

use super::look::Seen;
use super::unit::OWN_FOLDER;

/// One unit and its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    /// The user, or `-` for root.
    pub(super) scope: String,
    pub(super) unit: String,
    pub(super) files: Vec<String>,
}

impl Kept {
    pub(super) fn same(&self, other: &Self) -> bool {
        self.scope == other.scope && self.unit == other.unit
    }
}

/// Where the record is.
pub(super) fn path() -> String {
    format!("{OWN_FOLDER}/units")
}

/// What the last run left. Only what such a record can say: names and files in our folders.
pub(super) fn read(host: &mut dyn Host) -> Rendered<Vec<Kept>> {
    let PathState::File {
        content: Some(content),
        ..
    } = host.look(&path())?
    else {
        return Ok(Vec::new());
    };
    Ok(parse(&String::from_utf8_lossy(&content)))
}

fn parse(text: &str) -> Vec<Kept> {
    let ours = |file: &&str| {
        let below = file.starts_with("/etc/containers/systemd/")
            || file.starts_with(&format!("{OWN_FOLDER}/"));
        below && !file.contains("/../")
    };
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let entry = |line: &str| {
        let mut words = line.split_whitespace();
        let (scope, unit) = (words.next()?, words.next()?);
        Some(Kept {
            scope: scope.to_owned(),
            unit: unit.to_owned(),
            files: words.filter(ours).map(str::to_owned).collect(),
        })
    };
    lines.filter_map(entry).collect()
}

/// Stops units that are no longer wanted and takes their files away; files that others need
/// stay.
pub(super) fn removed<'a>(
    gone: impl Iterator<Item = &'a Kept>,
    now: &[Kept],
    seen: &Seen,
) -> Vec<Wish> {
    let mut wishes = Vec::new();
    let mut scopes: Vec<&str> = Vec::new();
    for old in gone {
        if seen.runs(&old.scope, &old.unit) {
            wishes.push(Wish::Step(Box::new(stop(old))));
        }
        for file in &old.files {
            if now.iter().all(|new| !new.files.contains(file)) {
                wishes.push(Wish::Module {
                    name: "file",
                    params: json!({ "path": file, "state": "absent" }),
                });
            }
        }
        if !scopes.contains(&&*old.scope) {
            scopes.push(&old.scope);
        }
    }
    wishes.extend(
        scopes
            .into_iter()
            .map(|scope| Wish::Step(Box::new(reload(scope)))),
    );
    wishes
}

fn stop(old: &Kept) -> Step {
    let (scope, unit) = (old.scope.as_str(), old.unit.as_str());
    let of = if scope == "-" {
        String::new()
    } else {
        format!(" of user {scope}")
    };
    let change = Change::Setting {
        subject: format!("unit {unit}{of}"),
        name: "state".to_owned(),
        before: "active".to_owned(),
        after: "inactive".to_owned(),
    };
    let id = StepId(format!("podman:{scope}:{unit}:stop"));
    let mut step = Step::new(
        id,
        "",
        format!("stop unit {unit}{of}, which is no longer wanted"),
        change,
    );
    step.class = Class::Disruptive;
    step.check = Script::one(Command::new("podman_unit_is").args([scope, unit, "active"]));
    step.apply = Script::one(Command::new("podman_stop").args([scope, unit]));
    step.verify = Script::one(Command::new("podman_unit_is").args([scope, unit, "inactive"]));
    step.undo = Script::one(Command::new("podman_put_back").args([scope, unit]));
    step.timeout_s = 180;
    step
}

fn reload(scope: &str) -> Step {
    let what = match scope {
        "-" => "let systemd forget the units that are gone".to_owned(),
        user => format!("let the systemd of user {user} forget the units that are gone"),
    };
    let change = Change::Action { what: what.clone() };
    let mut step = Step::new(StepId(format!("podman:{scope}:reload")), "", what, change);
    step.apply = Script::one(Command::new("podman_reload").arg(scope));
    step.undo = step.apply.clone();
    step
}

/// The record as it is to be.
pub(super) fn record(now: &[Kept], before: &[Kept]) -> Vec<Wish> {
    if now.is_empty() {
        let params = json!({ "path": path(), "state": "absent" });
        let gone = Wish::Module {
            name: "file",
            params,
        };
        return if before.is_empty() {
            Vec::new()
        } else {
            vec![gone]
        };
    }
    let line = |kept: &Kept| {
        let mut words = vec![kept.scope.as_str(), kept.unit.as_str()];
        words.extend(kept.files.iter().map(String::as_str));
        words.join(" ")
    };
    let units: Vec<String> = now.iter().map(line).collect();
    vec![Wish::File(Box::new(PlatformFile {
        template: "podman_units.j2",
        dest: path(),
        mode: "0644",
        owner: None,
        vars: json!({ "units": units }),
    }))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_can_only_name_files_of_ours() {
        let kept = parse(
            "# Written by deploy\n- a.service /etc/containers/systemd/a.container /etc/passwd\n\
             bob b.service /etc/containers/systemd/users/1000/../../../shadow\nx\n",
        );
        assert_eq!(kept.len(), 2);
        assert_eq!(kept[0].files, ["/etc/containers/systemd/a.container"]);
        assert!(kept[1].files.is_empty());
    }
}
