//! What deploy keeps for podman on a host, in a record there: so that a container that is no
//! longer wanted is stopped and its files go, and nobody else's are touched.

use std::collections::BTreeSet;

use serde_json::json;

use crate::error::Diagnostic;
use crate::platform::{Host, PlatformFile, Wish};
use crate::render::Rendered;
use crate::shell::{Command, Script};
use crate::step::{Change, Class, Step, StepId};
use crate::transport::PathState;

use super::look::Seen;
use super::ours::Mark;
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

/// What the record says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) units: Vec<Kept>,
    /// What besides units is so because of us.
    pub(super) set: BTreeSet<Mark>,
}

impl Record {
    pub(super) fn is_empty(&self) -> bool {
        self.units.is_empty() && self.set.is_empty()
    }
}

/// Where the record is.
pub(super) fn path() -> String {
    format!("{OWN_FOLDER}/units")
}

/// What the last run left. Only what such a record can say: names and files in our folders.
pub(super) fn read(host: &mut dyn Host) -> Rendered<Record> {
    Ok(known(&host.look(&path())?)?)
}

/// No record is an empty one. One that cannot be read is not: what it names would run on.
fn known(record: &PathState) -> Result<Record, Diagnostic> {
    let found = match record {
        PathState::Absent => Some(Record::default()),
        PathState::File {
            content: Some(content),
            ..
        } => std::str::from_utf8(content).ok().and_then(parse),
        _ => None,
    };
    found.ok_or_else(|| {
        let path = path();
        let message = format!(
            "{path}, where deploy keeps which containers of podman are its own, cannot be read"
        );
        let hint = "put it back as it was, or move it away: then what it names is left alone";
        Diagnostic::error(message).hint(hint)
    })
}

/// None if it is no such record, such as one that is cut.
fn parse(text: &str) -> Option<Record> {
    let ours = |file: &&str| {
        let below = file.starts_with("/etc/containers/systemd/")
            || file.starts_with(&format!("{OWN_FOLDER}/"));
        below && !file.contains("/../")
    };
    if !text.starts_with('#') || !text.ends_with('\n') {
        return None;
    }
    let blank = |line: &&str| line.starts_with('#') || line.trim().is_empty();
    let lines = text.lines().filter(|line| !blank(line));
    let mut record = Record::default();
    for line in lines {
        match &line.split_whitespace().collect::<Vec<_>>()[..] {
            // What we cannot have set is none of ours.
            ["+", words @ ..] => record.set.extend(Mark::parse(words)),
            [scope, unit, files @ ..] => record.units.push(Kept {
                scope: (*scope).to_owned(),
                unit: (*unit).to_owned(),
                files: files
                    .iter()
                    .copied()
                    .filter(ours)
                    .map(str::to_owned)
                    .collect(),
            }),
            _ => return None,
        }
    }
    Some(record)
}

/// Stops units that are no longer wanted and takes their files away; files that others need
/// stay.
pub(super) fn removed<'a>(
    gone: impl Iterator<Item = &'a Kept>,
    now: &[Kept],
    seen: &Seen,
) -> Vec<Wish> {
    let gone: Vec<&Kept> = gone.collect();
    let mut wishes = Vec::new();
    let mut scopes: Vec<&str> = Vec::new();
    // A container before its pod, and both before any file: so the undo has all files back when
    // it starts the first unit, and the pod before what is in it.
    for old in gone.iter().rev() {
        if seen.runs(&old.scope, &old.unit) {
            wishes.push(Wish::Step(Box::new(stop(old))));
        }
    }
    for old in gone {
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
pub(super) fn record(now: &Record, before: &Record) -> Vec<Wish> {
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
    let marks = now.set.iter().map(Mark::line);
    let units: Vec<String> = now.units.iter().map(line).chain(marks).collect();
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
             bob b.service /etc/containers/systemd/users/1000/../../../shadow\n",
        )
        .expect("a record");
        assert_eq!(kept.units.len(), 2);
        assert_eq!(kept.units[0].files, ["/etc/containers/systemd/a.container"]);
        assert!(kept.units[1].files.is_empty());
    }

    #[test]
    fn a_record_that_cannot_be_read_is_an_error_and_none_is_empty() {
        assert_eq!(known(&PathState::Absent), Ok(Record::default()));
        let file = |content: Option<&[u8]>| PathState::File {
            mode: 0o644,
            owner: "root".to_owned(),
            group: "root".to_owned(),
            size: 1 << 30,
            sha256: String::new(),
            content: content.map(<[u8]>::to_vec),
        };
        let good: &[u8] = b"# Written by deploy\n- a.service\n\n";
        assert_eq!(known(&file(Some(good))).map(|kept| kept.units.len()), Ok(1));
        let wrong: [Option<&[u8]>; 5] = [
            None,
            Some(b""),
            Some(b"# Written by deploy\nx\n"),
            Some(b"# Written by deploy\n- a.serv"),
            Some(b"# Written by deploy\n- \xff.service\n"),
        ];
        for content in wrong {
            assert!(known(&file(content)).is_err(), "{content:?}");
        }
        assert!(known(&PathState::Other("pipe".to_owned())).is_err());
    }
}
