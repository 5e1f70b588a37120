//! The published JSON Schemas (2020-12) of the lines of JSON output: a file a kind in
//! `schemas/`, and what several of them have in common in `common.json`. Each is printed as one
//! document that refers to nothing outside itself.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::line::{Kind, VERSION};

/// What stands before the name of a definition.
const DEFINITION: &str = "#/$defs/";

/// The key of a schema's definitions.
const DEFINITIONS: &str = "$defs";

impl Kind {
    /// The kind with this word.
    #[must_use]
    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }

    fn file(self) -> &'static str {
        match self {
            Self::HostFacts => include_str!("schemas/host_facts.json"),
            Self::GpuSlices => include_str!("schemas/gpu_slices.json"),
            Self::PlannedChange => include_str!("schemas/planned_change.json"),
            Self::Drift => include_str!("schemas/drift.json"),
            Self::StepStart => include_str!("schemas/step_start.json"),
            Self::StepEnd => include_str!("schemas/step_end.json"),
            Self::HostEnd => include_str!("schemas/host_end.json"),
            Self::HostRun => include_str!("schemas/host_run.json"),
            Self::HistoryEntry => include_str!("schemas/history_entry.json"),
            Self::Diagnostic => include_str!("schemas/diagnostic.json"),
            Self::GpuModel => include_str!("schemas/gpu_model.json"),
            Self::MigLayout => include_str!("schemas/mig_layout.json"),
            Self::Summary => include_str!("schemas/summary.json"),
        }
    }

    /// What a line of this kind tells, in a sentence.
    #[must_use]
    pub fn title(self) -> String {
        match object(self.file()).get("title") {
            Some(Value::String(title)) => title.clone(),
            _ => String::new(),
        }
    }
}

/// The schema of one kind.
#[must_use]
pub fn of(kind: Kind) -> Value {
    let mut schema = object(kind.file());
    let own = definitions(&mut schema);
    let all = own.into_iter().chain(common()).collect();
    put_definitions(&mut schema, all);
    Value::Object(schema)
}

/// The schema of any line.
#[must_use]
pub fn any() -> Value {
    let mut all = common();
    for kind in Kind::ALL {
        let mut schema = object(kind.file());
        all.extend(definitions(&mut schema));
        schema.shift_remove("$schema");
        schema.shift_remove("$id");
        all.insert(format!("line_{}", kind.word()), Value::Object(schema));
    }
    let lines = Kind::ALL.map(|kind| json!({"$ref": format!("{DEFINITION}line_{}", kind.word())}));
    let mut schema = object(
        &json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$id": format!("urn:deploy:line:{VERSION}"),
            "title": "Any line of JSON output.",
            "oneOf": lines,
        })
        .to_string(),
    );
    put_definitions(&mut schema, all);
    Value::Object(schema)
}

fn common() -> Map<String, Value> {
    definitions(&mut object(include_str!("schemas/common.json")))
}

/// A file of ours; a test holds that each is an object.
fn object(text: &str) -> Map<String, Value> {
    serde_json::from_str(text).unwrap_or_default()
}

fn definitions(schema: &mut Map<String, Value>) -> Map<String, Value> {
    match schema.shift_remove(DEFINITIONS) {
        Some(Value::Object(definitions)) => definitions,
        _ => Map::new(),
    }
}

/// Puts those definitions into a schema that it refers to, directly or by others.
fn put_definitions(schema: &mut Map<String, Value>, mut all: Map<String, Value>) {
    let mut needed = BTreeSet::new();
    let mut found = references(schema.values());
    while let Some(name) = found.pop_first() {
        if let (Some(definition), true) = (all.get(&name), needed.insert(name.clone())) {
            found.extend(references([definition]));
        }
    }
    all.retain(|name, _| needed.contains(name));
    if !all.is_empty() {
        schema.insert(DEFINITIONS.to_owned(), Value::Object(all));
    }
}

/// The names of the definitions that values refer to.
fn references<'a>(values: impl IntoIterator<Item = &'a Value>) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for value in values {
        match value {
            Value::Object(map) => {
                let name = map.get("$ref").and_then(Value::as_str);
                let name = name.and_then(|path| path.strip_prefix(DEFINITION));
                found.extend(name.map(str::to_owned));
                found.extend(references(map.values()));
            }
            Value::Array(items) => found.extend(references(items)),
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_a_closed_schema_of_its_own() {
        for kind in Kind::ALL {
            let schema = of(kind);
            let word = kind.word();
            assert_eq!(schema["$id"], format!("urn:deploy:line:{word}:{VERSION}"));
            assert_eq!(schema["properties"]["type"]["const"], word);
            assert_eq!(schema["properties"]["version"]["const"], VERSION);
            assert_eq!(schema["additionalProperties"], false, "{word}");
            assert!(kind.title().ends_with('.'), "{word}");
            assert_eq!(Kind::named(word), Some(kind));
        }
        assert_eq!(Kind::named("nothing"), None);
    }

    /// Whether all objects say which keys they have.
    fn open(value: &Value, path: &str, found: &mut Vec<String>) {
        if let Value::Object(map) = value {
            if map.contains_key("properties")
                && map.get("additionalProperties") != Some(&false.into())
            {
                found.push(path.to_owned());
            }
            for (key, value) in map {
                open(value, &format!("{path}/{key}"), found);
            }
        }
        if let Value::Array(items) = value {
            for (at, item) in items.iter().enumerate() {
                open(item, &format!("{path}/{at}"), found);
            }
        }
    }

    #[test]
    fn nothing_is_left_open_and_every_reference_leads_somewhere() {
        for schema in Kind::ALL.map(of).into_iter().chain([any()]) {
            let mut found = Vec::new();
            open(&schema, "", &mut found);
            assert!(found.is_empty(), "{}: {found:?}", schema["$id"]);
            let definitions = schema.get(DEFINITIONS).and_then(Value::as_object);
            for name in references([&schema]) {
                let there = definitions.is_some_and(|all| all.contains_key(&name));
                assert!(there, "{}: {name}", schema["$id"]);
            }
        }
    }

    #[test]
    fn no_two_files_define_one_name() {
        let mut seen: BTreeSet<String> = common().into_iter().map(|(name, _)| name).collect();
        for kind in Kind::ALL {
            for (name, definition) in definitions(&mut object(kind.file())) {
                let same = || any()[DEFINITIONS][&name] == definition;
                assert!(seen.insert(name.clone()) || same(), "{name}");
            }
        }
    }
}
