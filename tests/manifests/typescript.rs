//! Holds JSON against interfaces of TypeScript, as far as generated ones go: fields that are
//! required or not, scalars, lists, mappings and words. An unknown field is a fault.

use std::collections::BTreeMap;

use serde_json::Value as Json;

/// All declarations of a file.
pub(super) struct Types {
    interfaces: BTreeMap<String, Vec<Field>>,
    words: BTreeMap<String, Vec<String>>,
}

struct Field {
    name: String,
    is_required: bool,
    kind: String,
}

impl Types {
    pub(super) fn read(text: &str) -> Self {
        let text = without_comments(text);
        let mut types = Self {
            interfaces: BTreeMap::new(),
            words: BTreeMap::new(),
        };
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            let body = |lines: &mut std::str::Lines<'_>| -> String {
                lines
                    .take_while(|line| *line != "}" && *line != "};")
                    .collect()
            };
            let mut words = line.split_whitespace().filter(|word| *word != "export");
            match (words.next(), words.next(), words.next()) {
                (Some("interface"), Some(name), _) => {
                    types
                        .interfaces
                        .insert(name.to_owned(), fields(&body(&mut lines)));
                }
                (Some("declare"), Some("const"), Some(name)) if line.ends_with('{') => {
                    let body = body(&mut lines);
                    let values = body.split('"').skip(1).step_by(2).map(str::to_owned);
                    let name = name.trim_end_matches(':').to_owned();
                    types.words.insert(name, values.collect());
                }
                _ => {}
            }
        }
        types
    }

    /// All faults of a value as one of an interface.
    pub(super) fn check(&self, name: &str, value: &Json) -> Vec<String> {
        let mut faults = Vec::new();
        self.value(name, value, name, &mut faults);
        faults
    }

    fn value(&self, kind: &str, value: &Json, path: &str, faults: &mut Vec<String>) {
        let inner = |open: &str, close: &str| kind.strip_prefix(open)?.strip_suffix(close);
        if let Some(kind) = inner("Array<", ">") {
            match value.as_array() {
                Some(items) => {
                    for (number, item) in items.iter().enumerate() {
                        self.value(kind, item, &format!("{path}[{number}]"), faults);
                    }
                }
                None => faults.push(format!("{path} is no list")),
            }
        } else if let Some(kind) = inner("{ [key: string]: ", "; }") {
            match value.as_object() {
                Some(map) => {
                    for (key, item) in map {
                        self.value(kind, item, &format!("{path}.{key}"), faults);
                    }
                }
                None => faults.push(format!("{path} is no mapping")),
            }
        } else if let Some(words) = self.words.get(kind) {
            if value
                .as_str()
                .is_none_or(|text| words.iter().all(|word| word != text))
            {
                faults.push(format!("{path} is none of {words:?}"));
            }
        } else if let Some(fields) = self.interfaces.get(kind) {
            self.fields(fields, value, path, faults);
        } else {
            let fits = match kind {
                "string" => value.is_string(),
                "number" => value.is_number(),
                "boolean" => value.is_boolean(),
                "object" => value.is_object(),
                other => panic!("{path}: no type `{other}`"),
            };
            if !fits {
                faults.push(format!("{path} is no {kind}"));
            }
        }
    }

    fn fields(&self, fields: &[Field], value: &Json, path: &str, faults: &mut Vec<String>) {
        let Some(map) = value.as_object() else {
            faults.push(format!("{path} is no mapping"));
            return;
        };
        for (key, item) in map {
            match fields.iter().find(|field| field.name == *key) {
                Some(field) => self.value(&field.kind, item, &format!("{path}.{key}"), faults),
                None => faults.push(format!("{path} has no field {key}")),
            }
        }
        for field in fields.iter().filter(|field| field.is_required) {
            if !map.contains_key(&field.name) {
                faults.push(format!("{path} lacks {}", field.name));
            }
        }
    }
}

fn without_comments(text: &str) -> String {
    let mut rest = text;
    let mut kept = String::new();
    while let Some((before, after)) = rest.split_once("/*") {
        kept.push_str(before);
        rest = after.split_once("*/").map_or("", |(_, after)| after);
    }
    kept + rest
}

/// `NAME?: TYPE;` one after the other; a name that is a word of TypeScript has `_` before it.
fn fields(body: &str) -> Vec<Field> {
    let mut fields = Vec::new();
    let mut depth = 0;
    let mut own = String::new();
    for letter in body.chars() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ';' if depth == 0 => {
                let (name, kind) = own.split_once(':').expect("NAME: TYPE");
                let name = name.trim();
                let plain = name.trim_end_matches('?').trim_start_matches('_');
                fields.push(Field {
                    name: plain.to_owned(),
                    is_required: !name.ends_with('?'),
                    kind: kind.split_whitespace().collect::<Vec<_>>().join(" "),
                });
                own.clear();
                continue;
            }
            _ => {}
        }
        own.push(letter);
    }
    fields
}
