//! From what is wanted and what the daemon has to the steps between.
//!
//! A step changes one device, one setting or one instance's list of profiles, by a PATCH that
//! touches nothing else; a profile or an instance that is not there is made as a whole. Undo
//! puts back what was there before, in the same way.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use crate::shell::{Command, Script};
use crate::step::{Change, Class, Step, StepId};

use super::super::Wish;
use super::device::Program;
use super::marks::{KEY, Mark, Marks};
use super::private::{HIDDEN, apart, is_private};
use super::seen::Texts;

/// Seconds that making an instance may take: its image may come over the network.
const CREATE_TIMEOUT_S: u32 = 900;

/// A profile or an instance.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Object {
    /// `profile` or `instance`.
    pub(super) noun: &'static str,
    pub(super) project: String,
    pub(super) name: String,
}

impl Object {
    pub(super) fn profile(project: &str, name: &str) -> Self {
        Self {
            noun: "profile",
            project: project.to_owned(),
            name: name.to_owned(),
        }
    }

    pub(super) fn instance(project: &str, name: &str) -> Self {
        Self {
            noun: "instance",
            ..Self::profile(project, name)
        }
    }

    fn id(&self, part: &str) -> StepId {
        let Self {
            noun,
            project,
            name,
        } = self;
        StepId(format!("incus:{project}/{noun}/{name}{part}"))
    }
}

/// Makes steps, in order, and keeps account of what is ours.
#[derive(Debug)]
pub(super) struct Steps {
    program: Program,
    marks: BTreeMap<Object, Marks>,
    pub(super) wishes: Vec<Wish>,
}

impl Steps {
    pub(super) fn new(program: Program) -> Self {
        Self {
            program,
            marks: BTreeMap::new(),
            wishes: Vec::new(),
        }
    }

    /// What of an object is ours before any step.
    pub(super) fn know(&mut self, object: &Object, marks: Marks) {
        self.marks.insert(object.clone(), marks);
    }

    fn label(&self, object: &Object) -> String {
        let product = self.program.product();
        format!(
            "{product} {} {} (project {})",
            object.noun, object.name, object.project
        )
    }

    /// A call of a function for an object.
    fn call(&self, function: &str, object: &Object) -> Command {
        Command::new(function).arg(self.program.word()).args([
            object.noun,
            object.project.as_str(),
            object.name.as_str(),
        ])
    }

    /// What nobody may work with when something is taken away.
    fn idle(&self, object: &Object) -> Command {
        let function = match object.noun {
            "profile" => "incus_profile_idle",
            _ => "incus_idle",
        };
        Command::new(function)
            .arg(self.program.word())
            .args([object.project.as_str(), object.name.as_str()])
    }

    /// The account with and without one more mark.
    fn marked(&mut self, object: &Object, mark: &Mark, is_ours: bool) -> (Marks, Marks) {
        let marks = self.marks.entry(object.clone()).or_default();
        let before = marks.clone();
        match is_ours {
            true => marks.0.insert(mark.clone()),
            false => marks.0.remove(mark),
        };
        (before, marks.clone())
    }

    /// Settings that stand in no argument, one after the other.
    fn secrets(&self, object: &Object, settings: &Texts) -> Script {
        let put = |(key, text): (&String, &String)| {
            let call = self.call("incus_secret", object);
            call.arg(key).arg(text)
        };
        Script(settings.iter().map(put).collect())
    }

    /// That settings are what they are to be.
    fn settings_are(&self, object: &Object, settings: &Texts) -> Script {
        let is = |(key, text): (&String, &String)| {
            let call = self.call(reader_of(key), object);
            call.arg(key).arg(text)
        };
        Script(settings.iter().map(is).collect())
    }

    fn push(&mut self, step: Step) {
        self.wishes.push(Wish::Step(Box::new(step)));
    }

    fn setting(&self, object: &Object, name: &str, texts: [String; 2]) -> Change {
        let [before, after] = texts;
        Change::Setting {
            subject: self.label(object),
            name: name.to_owned(),
            before,
            after,
        }
    }

    /// One device from what it is to what it is to be; none for not there.
    pub(super) fn device(
        &mut self,
        object: &Object,
        name: &str,
        before: Option<&Texts>,
        after: Option<&Texts>,
    ) {
        let mark = Mark::Device(name.to_owned());
        let (old, new) = self.marked(object, &mark, after.is_some());
        let put = |texts: Option<&Texts>, marks: &Marks| match texts {
            Some(texts) => {
                let body =
                    json!({ "config": { KEY: marks.to_string() }, "devices": { name: texts } });
                self.call("incus_patch", object).arg(body.to_string())
            }
            None => self
                .call("incus_no_device", object)
                .arg(name)
                .arg(body(&[(KEY, &marks.to_string())])),
        };
        let is = |texts: Option<&Texts>| {
            let words = texts.into_iter().flatten();
            let words = words.map(|(key, text)| format!("{key}={text}"));
            let call = self.call("incus_device_is", object).arg(name);
            Script::one(call.args(words))
        };
        let label = self.label(object);
        let title = match (before, after) {
            (None, _) => format!("give {label} the device {name}"),
            (Some(_), Some(_)) => format!("change the device {name} of {label}"),
            (Some(_), None) => format!("take the device {name} from {label}"),
        };
        let change = self.setting(
            object,
            &format!("device {name}"),
            [before, after].map(spelled),
        );
        let mut check = is(before);
        if before.is_some() {
            check = check.then(self.idle(object));
        }
        let step = Step {
            class: match before {
                Some(_) => Class::Disruptive,
                None => Class::Safe,
            },
            check,
            apply: Script::one(put(after, &new)),
            verify: is(after),
            undo: Script::one(put(before, &old)),
            idle: Script::one(self.idle(object)),
            ..Step::new(object.id(&format!("/device/{name}")), "", title, change)
        };
        self.push(step);
    }

    /// One setting; empty for not set.
    pub(super) fn config(&mut self, object: &Object, key: &str, before: &str, after: &str) {
        let mark = Mark::Config(key.to_owned());
        let (old, new) = self.marked(object, &mark, !after.is_empty());
        let secret = is_private(key);
        let put = |text: &str, marks: &Marks| {
            let marks = marks.to_string();
            if secret && !text.is_empty() {
                let settings = Texts::from([(key.to_owned(), text.to_owned())]);
                let body = body(&[(KEY, &marks)]);
                let marks = self.call("incus_patch", object).arg(body);
                return self.secrets(object, &settings).then(marks);
            }
            let body = body(&[(key, text), (KEY, &marks)]);
            Script::one(self.call("incus_patch", object).arg(body))
        };
        let is = |text: &str| {
            let call = self.call(reader_of(key), object);
            Script::one(call.arg(key).arg(text))
        };
        let word = |text: &str| match text {
            "" => "not set".to_owned(),
            _ if secret && text == after && !before.is_empty() => format!("another value {HIDDEN}"),
            _ if secret => HIDDEN.to_owned(),
            text => text.to_owned(),
        };
        let label = self.label(object);
        let title = match after {
            "" => format!("take the setting {key} from {label}"),
            _ => format!("set {key} of {label}"),
        };
        let change = self.setting(object, key, [before, after].map(word));
        let step = Step {
            check: is(before),
            apply: put(after, &new),
            verify: is(after),
            undo: put(before, &old),
            secret,
            ..Step::new(object.id(&format!("/config/{key}")), "", title, change)
        };
        self.push(step);
    }

    /// An instance's profiles, in order.
    pub(super) fn profiles(&mut self, object: &Object, before: &[String], after: &[String]) {
        let old = self.marks.get(object).cloned().unwrap_or_default();
        for name in after.iter().filter(|name| !before.contains(name)) {
            self.marked(object, &Mark::Profile(name.clone()), true);
        }
        let mut takes_away = false;
        for name in before.iter().filter(|name| !after.contains(name)) {
            self.marked(object, &Mark::Profile(name.clone()), false);
            takes_away = true;
        }
        let new = self.marks.get(object).cloned().unwrap_or_default();
        let put = |profiles: &[String], marks: &Marks| {
            let body = json!({ "config": { KEY: marks.to_string() }, "profiles": profiles });
            Script::one(self.call("incus_patch", object).arg(body.to_string()))
        };
        let is = |profiles: &[String]| {
            let call = Command::new("incus_profiles_are").arg(self.program.word());
            let call = call.args([object.project.as_str(), object.name.as_str()]);
            Script::one(call.args(profiles.iter().map(String::as_str)))
        };
        let word = |profiles: &[String]| match profiles {
            [] => "none".to_owned(),
            profiles => profiles.join(", "),
        };
        let title = format!("change the profiles of {}", self.label(object));
        let change = self.setting(object, "profiles", [before, after].map(word));
        let mut check = is(before);
        if takes_away {
            check = check.then(self.idle(object));
        }
        let step = Step {
            class: match takes_away {
                true => Class::Disruptive,
                false => Class::Safe,
            },
            check,
            apply: put(after, &new),
            verify: is(after),
            undo: put(before, &old),
            idle: Script::one(self.idle(object)),
            ..Step::new(object.id("/profiles"), "", title, change)
        };
        self.push(step);
    }

    /// A profile that is not there, with all that it is to have.
    pub(super) fn make_profile(
        &mut self,
        object: &Object,
        description: &str,
        config: &Texts,
        devices: &BTreeMap<String, Texts>,
    ) {
        let marks = self.marks.entry(object.clone()).or_default();
        marks.0.insert(Mark::Made);
        let (keys, names) = (config.keys(), devices.keys());
        marks.0.extend(keys.map(|key| Mark::Config(key.clone())));
        marks.0.extend(names.map(|name| Mark::Device(name.clone())));
        let (mut open, private) = apart(config);
        open.insert(KEY.to_owned(), marks.to_string());
        let body = json!({
            "name": object.name,
            "description": description,
            "config": open,
            "devices": devices,
        });
        let mut verify = Script::one(self.call("incus_there", object));
        for (name, texts) in devices {
            let words = texts.iter().map(|(key, text)| format!("{key}={text}"));
            let call = self.call("incus_device_is", object).arg(name);
            verify = verify.then(call.args(words));
        }
        verify.0.extend(self.settings_are(object, config).0);
        let shown = |(key, text): (&String, &String)| match is_private(key) {
            true => format!("{key}={HIDDEN}"),
            false => format!("{key}={text}"),
        };
        let mut parts: Vec<String> = config.iter().map(shown).collect();
        parts.extend(
            devices
                .iter()
                .map(|(name, texts)| format!("device {name}: {}", spelled(Some(texts)))),
        );
        let after = match parts.is_empty() {
            true => "empty".to_owned(),
            false => parts.join("; "),
        };
        let title = format!("make {}", self.label(object));
        let change = self.setting(object, "profile", ["absent".to_owned(), after]);
        let make = Script::one(self.call("incus_make", object).arg(body.to_string()));
        let step = Step {
            check: Script::one(self.call("incus_gone", object)),
            apply: together(make, self.secrets(object, &private)),
            verify,
            undo: Script::one(self.call("incus_remove", object)),
            idle: Script::one(self.idle(object)),
            secret: !private.is_empty(),
            ..Step::new(object.id(""), "", title, change)
        };
        self.push(step);
    }

    /// A profile that is ours and wanted no longer. `before` is all of it, for the undo.
    pub(super) fn delete_profile(&mut self, object: &Object, before: &super::seen::Object) {
        let (open, private) = apart(&before.config);
        let body = json!({
            "name": object.name,
            "description": before.description,
            "config": open,
            "devices": before.devices,
        });
        let label = self.label(object);
        let devices: Vec<String> = before.devices.keys().cloned().collect();
        let have = format!("devices {}", devices.join(", "));
        let change = self.setting(object, "profile", [have, "absent".to_owned()]);
        let mut check = Script::one(self.call("incus_there", object));
        for (name, texts) in &before.devices {
            let words = texts.iter().map(|(key, text)| format!("{key}={text}"));
            let call = self.call("incus_device_is", object).arg(name);
            check = check.then(call.args(words));
        }
        let make = Script::one(self.call("incus_make", object).arg(body.to_string()));
        let step = Step {
            check,
            apply: Script::one(self.call("incus_remove", object)),
            verify: Script::one(self.call("incus_gone", object)),
            undo: together(make, self.secrets(object, &private)),
            secret: !private.is_empty(),
            ..Step::new(object.id("/away"), "", format!("delete {label}"), change)
        };
        self.push(step);
    }

    /// An instance that is not there, stopped, from an image.
    pub(super) fn make_instance(&mut self, made: &Made<'_>) {
        let object = made.object;
        let marks = self.marks.entry(object.clone()).or_default();
        marks.0.insert(Mark::Made);
        let (keys, names) = (made.config.keys(), made.devices.keys());
        marks.0.extend(keys.map(|key| Mark::Config(key.clone())));
        marks.0.extend(names.map(|name| Mark::Device(name.clone())));
        marks
            .0
            .extend(made.profiles.iter().map(|name| Mark::Profile(name.clone())));
        let marks = marks.to_string();
        let mut create = Command::new("incus_create").arg(self.program.word()).args([
            object.project.as_str(),
            object.name.as_str(),
            made.image,
        ]);
        if made.is_vm {
            create = create.arg("--vm");
        }
        for profile in made.profiles {
            create = create.arg("--profile").arg(profile);
        }
        let (open, private) = apart(made.config);
        for (key, text) in &open {
            create = create.arg("--config").arg(format!("{key}={text}"));
        }
        let rest = json!({ "config": { KEY: marks }, "devices": made.devices });
        let rest = self.call("incus_patch", object).arg(rest.to_string());
        let mut verify = Script::one(self.call("incus_there", object));
        for (name, texts) in made.devices {
            let words = texts.iter().map(|(key, text)| format!("{key}={text}"));
            let call = self.call("incus_device_is", object).arg(name);
            verify = verify.then(call.args(words));
        }
        verify.0.extend(self.settings_are(object, made.config).0);
        let change = self.setting(
            object,
            "instance",
            [
                "absent".to_owned(),
                format!("made from {}, stopped", made.image),
            ],
        );
        let title = format!("make {}", self.label(object));
        let step = Step {
            check: Script::one(self.call("incus_gone", object)),
            apply: together(Script::one(create), self.secrets(object, &private)).then(rest),
            verify,
            undo: Script::one(self.call("incus_remove", object)),
            idle: Script::one(self.idle(object)),
            timeout_s: CREATE_TIMEOUT_S,
            secret: !private.is_empty(),
            ..Step::new(object.id(""), "", title, change)
        };
        self.push(step);
    }

    /// Whether what runs in a container sees a GPU.
    pub(super) fn answers(&mut self, object: &Object) {
        let words = [object.project.as_str(), object.name.as_str()];
        let call = Command::new("incus_answers").arg(self.program.word());
        let what = format!("a GPU answers in {}", self.label(object));
        let change = Change::Check { what: what.clone() };
        let step = Step {
            verify: Script::one(call.args(words)),
            ..Step::new(object.id("/health"), "", what, change)
        };
        self.push(step);
    }
}

/// An instance to be made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Made<'a> {
    pub(super) object: &'a Object,
    pub(super) image: &'a str,
    pub(super) is_vm: bool,
    pub(super) profiles: &'a [String],
    pub(super) config: &'a Texts,
    pub(super) devices: &'a BTreeMap<String, Texts>,
}

/// The function that reads a setting back.
fn reader_of(key: &str) -> &'static str {
    match is_private(key) {
        true => "incus_secret_is",
        false => "incus_config_is",
    }
}

/// One after the other.
fn together(mut first: Script, then: Script) -> Script {
    first.0.extend(then.0);
    first
}

/// A PATCH of settings.
fn body(settings: &[(&str, &str)]) -> String {
    let config: serde_json::Map<String, Json> = settings
        .iter()
        .map(|(key, text)| ((*key).to_owned(), json!(text)))
        .collect();
    json!({ "config": config }).to_string()
}

/// A device in one line.
fn spelled(texts: Option<&Texts>) -> String {
    let Some(texts) = texts else {
        return "absent".to_owned();
    };
    let words = texts
        .iter()
        .map(|(key, text)| match text.strip_prefix("@MIG/") {
            Some(mark) => {
                let mut parts = mark.trim_end_matches('@').rsplitn(3, '/');
                let (number, profile) = (parts.next().unwrap_or("0"), parts.next().unwrap_or("?"));
                format!("{key}=(of the MIG device {profile} number {number})")
            }
            None => format!("{key}={text}"),
        });
    words.collect::<Vec<_>>().join(" ")
}
