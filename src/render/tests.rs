use super::*;
use crate::value::Entry;

fn source(text: &str) -> Arc<Source> {
    Arc::new(Source {
        path: "t.j2".into(),
        text: text.to_owned(),
    })
}

/// A tree whose nodes all stand in a made-up file that holds their text.
fn written(value: serde_json::Value) -> Node {
    match value {
        serde_json::Value::Object(map) => {
            let origin = Origin::whole("vars.yml", "");
            let entries = map.into_iter().map(|(key, item)| {
                let entry = Entry {
                    key: Origin::whole("vars.yml", key.clone()),
                    node: written(item),
                };
                (key, entry)
            });
            Node::new(Value::Map(entries.collect()), origin)
        }
        serde_json::Value::Array(items) => Node::new(
            Value::Seq(items.into_iter().map(written).collect()),
            Origin::whole("vars.yml", ""),
        ),
        serde_json::Value::String(text) => {
            Node::new(Value::Str(text.clone()), Origin::whole("vars.yml", text))
        }
        other => Node::from_json(&other, &Origin::whole("vars.yml", other.to_string())),
    }
}

fn scope(vars: serde_json::Value) -> Scope {
    let Value::Map(map) = written(vars).value else {
        panic!("variables are a mapping");
    };
    let vars: Vars = map
        .into_iter()
        .map(|(key, entry)| (key, entry.node))
        .collect();
    Scope::default().with_vars(Layer::Host, &vars)
}

fn file(text: &str, vars: serde_json::Value) -> String {
    match template(&source(text), &scope(vars)) {
        Ok(text) => text,
        Err(halt) => panic!("{halt:?}"),
    }
}

fn value(expression: &str, vars: serde_json::Value) -> serde_json::Value {
    let wanted = written(serde_json::json!(expression));
    match node(&wanted, &scope(vars)) {
        Ok(node) => node.to_json(),
        Err(halt) => panic!("{halt:?}"),
    }
}

fn problem<T: std::fmt::Debug>(result: Rendered<T>) -> String {
    match result {
        Err(Halt::Problem(problem)) => problem.to_string(),
        other => panic!("expected a problem, got {other:?}"),
    }
}

use serde_json::json;

#[test]
fn files_come_out_as_ansible_writes_them() {
    let text =
        "{% if on %}\nyes {{ flag }} {{ list }} {{ nothing }}|\n{% endif %}\n{# gone #}\nend\n";
    let vars = json!({"on": true, "flag": true, "list": [1, "a"], "nothing": null});
    assert_eq!(file(text, vars), "yes True [1, 'a'] |\nend\n");
    assert_eq!(file("a\r\nb\r\n", json!({})), "a\nb\n");
}

#[test]
fn variables_use_one_another_and_keep_their_types() {
    let vars = json!({
        "outer": {"n": "{{ inner.count }}", "text": "n={{ inner.count }}"},
        "inner": {"count": "{{ base + 1 }}"},
        "base": 2,
    });
    assert_eq!(value("{{ outer.n }}", vars.clone()), json!(3));
    assert_eq!(
        value("{{ outer }}", vars.clone()),
        json!({"n": 3, "text": "n=3"})
    );
    assert_eq!(value("{{ outer.n * 2 }}", vars), json!(6));
}

#[test]
fn a_mapping_may_use_another_key_of_itself() {
    let vars = json!({"gpu": {"count": 4, "half": "{{ gpu.count // 2 }}"}});
    assert_eq!(value("{{ gpu.half }}", vars), json!(2));
}

#[test]
fn two_expressions_in_a_row_are_a_text() {
    assert_eq!(
        value("{{ a }}{{ b }}", json!({"a": 1, "b": 2})),
        json!("12")
    );
    assert_eq!(value("{{ '}}' }}", json!({})), json!("}}"));
}

#[test]
fn a_circle_is_named_from_end_to_end() {
    let vars = json!({"loop1": "{{ loop2 }}", "loop2": "x{{ loop3 }}", "loop3": "{{ loop1 }}"});
    let result = node(
        &written(json!("{{ loop1 | default('saved') }}")),
        &scope(vars),
    );
    let message = problem(result);
    assert!(
        message.contains("`loop1` is made from itself: loop1 -> loop2 -> loop3 -> loop1"),
        "{message}"
    );
}

#[test]
fn what_is_undefined_inside_a_variable_is_told_with_its_place_but_default_saves_it() {
    let vars = json!({"a": "{{ strategi }}", "strategy": "mig"});
    let scope = scope(vars);
    let message = problem(node(&written(json!("x {{ a }}")), &scope));
    assert_eq!(
        message,
        "vars.yml:1:4: `strategi` is undefined (did you mean `strategy`?)"
    );
    let saved = node(&written(json!("{{ a | default('none') }}")), &scope);
    assert_eq!(saved.expect("it is saved").to_json(), json!("none"));
}

#[test]
fn an_undefined_key_names_the_nearest_one_of_its_mapping() {
    let scope = scope(json!({"gpu": {"profiles": []}}));
    let message = problem(template(&source("a\n  {{ gpu.profilse }}\n"), &scope));
    assert_eq!(
        message,
        "t.j2:2:6: `gpu.profilse` is undefined (did you mean `gpu.profiles`?)"
    );
}

#[test]
fn facts_and_unsafe_texts_are_never_rendered() {
    let scope = Scope::default()
        .with(
            Layer::Set,
            "fact",
            Binding::Known(json!({"x": "{{ 1 + 1 }}"})),
        )
        .with_vars(
            Layer::Host,
            &Vars::from_iter([(
                "raw".to_owned(),
                Node::new(
                    Value::Tagged(crate::value::Tag::Unsafe, "{{ 2 }}".into()),
                    Origin::whole("v", ""),
                ),
            )]),
        );
    let text = template(&source("{{ fact.x }} {{ raw }}"), &scope);
    assert_eq!(text, Ok("{{ 1 + 1 }} {{ 2 }}".to_owned()));
}

#[test]
fn a_vault_text_is_an_error_even_behind_default() {
    let scope = Scope::default().with_vars(
        Layer::Host,
        &Vars::from_iter([(
            "key".to_owned(),
            Node::new(
                Value::Tagged(crate::value::Tag::Vault, "$ANSIBLE_VAULT;…".into()),
                Origin::whole("v", ""),
            ),
        )]),
    );
    let message = problem(template(&source("{{ key | default('') }}"), &scope));
    assert!(
        message.contains("Ansible Vault") && !message.contains("$ANSIBLE"),
        "{message}"
    );
}

#[test]
fn what_was_not_read_yet_halts_even_behind_default() {
    let scope = Scope::default().with(Layer::Set, "unit", Binding::Pending);
    let result = template(&source("{{ unit.x | default('') }}"), &scope);
    assert_eq!(result, Err(Halt::Pending));
    let result = condition(&written(json!(["false", "unit.x"])), &scope);
    assert_eq!(result, Ok(false));
}

#[test]
fn what_only_a_run_can_tell_names_the_task() {
    let scope = Scope::default().with(
        Layer::Set,
        "out",
        Binding::Result {
            known: json!({"changed": true}),
            later: vec!["stdout", "rc"],
            task: "Ask".into(),
        },
    );
    assert_eq!(
        condition(&written(json!("out is changed")), &scope),
        Ok(true)
    );
    let message = problem(condition(&written(json!("out.rc == 0")), &scope));
    assert!(
        message.contains("`out.rc` is known only after task `Ask` has run"),
        "{message}"
    );
}

#[test]
fn conditions_are_booleans_lists_and_bare_names() {
    let scope = scope(json!({"on": true, "n": 3, "text": "yes"}));
    assert_eq!(condition(&written(json!("on")), &scope), Ok(true));
    assert_eq!(condition(&written(json!("{{ on }}")), &scope), Ok(true));
    assert_eq!(
        condition(&written(json!(["on", "n > 2", true])), &scope),
        Ok(true)
    );
    assert_eq!(
        condition(&written(json!(["n > 3", "missing"])), &scope),
        Ok(false)
    );
    assert_eq!(condition(&written(json!("text | bool")), &scope), Ok(true));
    assert_eq!(
        condition(&written(json!("missing is defined and missing.x")), &scope),
        Ok(false)
    );
    let message = problem(condition(&written(json!("text")), &scope));
    assert!(message.contains("gives a string"), "{message}");
}

#[test]
fn filters_do_what_ansibles_do() {
    let vars = || json!({"m": {"b": 1, "a": ["ü", true, null]}, "l": [1, [2, [3]], 2]});
    assert_eq!(
        value("{{ m | to_json }}", vars()),
        json!(r#"{"b": 1, "a": ["\u00fc", true, null]}"#)
    );
    assert_eq!(
        value("{{ {'b': 1} | to_nice_json }}", vars()),
        json!("{\n    \"b\": 1\n}")
    );
    assert_eq!(
        value(
            "{{ {'b': ['yes', 1], 'a': none} | to_nice_yaml(indent=2) }}",
            vars()
        ),
        json!("a: null\nb:\n- 'yes'\n- 1\n")
    );
    assert_eq!(value("{{ [1, 2] | to_yaml }}", vars()), json!("[1, 2]\n"));
    assert_eq!(value("{{ l | flatten }}", vars()), json!([1, 2, 3, 2]));
    assert_eq!(
        value("{{ l | flatten(levels=1) }}", vars()),
        json!([1, 2, [3], 2])
    );
    assert_eq!(
        value("{{ [1,2] | union([2,3]) }}", vars()),
        json!([1, 2, 3])
    );
    assert_eq!(value("{{ [1,2] | difference([2]) }}", vars()), json!([1]));
    assert_eq!(
        value(
            "{{ {'a': {'x': 1}} | combine({'a': {'y': 2}}, recursive=true) }}",
            vars()
        ),
        json!({"a": {"x": 1, "y": 2}})
    );
    assert_eq!(
        value("{{ {'k': 1} | dict2items }}", vars()),
        json!([{"key": "k", "value": 1}])
    );
    assert_eq!(
        value("{{ 'GPU 12' | regex_search('[0-9]+') }}", vars()),
        json!("12")
    );
    assert_eq!(
        value(
            r"{{ 'a=1' | regex_replace('(\\w)=(\\d)', '\\2-\\1-$1') }}",
            vars()
        ),
        json!("1-a-$1")
    );
    assert_eq!(
        value("{{ 'x' | b64encode | b64decode }}", vars()),
        json!("x")
    );
    assert_eq!(
        value("{{ 'test' | hash('sha1') }}", vars()),
        json!("a94a8fe5ccb19ba61c4c0873d391e987982fbbd3")
    );
    assert_eq!(value("{{ '/a/b.txt' | basename }}", vars()), json!("b.txt"));
    assert_eq!(
        value("{{ '/a/b.txt' | splitext }}", vars()),
        json!(["/a/b", ".txt"])
    );
    assert_eq!(value("{{ 'a b' | quote }}", vars()), json!("'a b'"));
    assert_eq!(value("{{ 'x' | int }} ", vars()), json!("0 "));
    assert_eq!(value("{{ '0x1f' | int(base=16) }}", vars()), json!(31));
    assert_eq!(value("{{ true | ternary('a', 'b') }}", vars()), json!("a"));
    assert_eq!(
        value("{{ '590.48.01' is version('570', '>=') }}", vars()),
        json!(true)
    );
    assert_eq!(value("{{ 'nope' | default('a') }}", vars()), json!("nope"));
    assert_eq!(value("{{ m.zip | default('a') }}", vars()), json!("a"));
    assert_eq!(value("{{ 'mig' in ['mig', 'none'] }}", vars()), json!(true));
}

#[test]
fn a_filter_that_is_not_there_names_the_nearest() {
    let message = problem(node(&written(json!("{{ 1 | to_jsn }}")), &scope(json!({}))));
    assert_eq!(
        message,
        "vars.yml:1:8: there is no filter `to_jsn` (did you mean `to_json`?)"
    );
}

#[test]
fn loops_without_end_end() {
    let text = "{% for a in range(100000) %}{% for b in range(100000) %}x{% endfor %}{% endfor %}";
    let result = template(&source(text), &scope(json!({})));
    let message = problem(result);
    assert!(
        message.contains("does not come to an end") || message.contains("makes more than"),
        "{message}"
    );
    let mut vars = serde_json::Map::new();
    vars.insert("v0".into(), json!("xxxxxxxxxxxxxxxx"));
    for n in 1..50 {
        vars.insert(
            format!("v{n}"),
            json!(format!("{{{{ v{0} }}}}{{{{ v{0} }}}}.", n - 1)),
        );
    }
    let message = problem(template(&source("{{ v40 }}"), &scope(vars.into())));
    assert!(message.contains("makes more than"), "{message}");
}

#[test]
fn names_are_found_without_rendering() {
    let text = "{% for g in gpus %}{{ g.x }} {{ typo }} {{ maybe | default(1) }}{% endfor %}\
                {% if other is defined %}{{ other }}{% endif %}{{ range(3) }}";
    let origin = Origin::whole("t.j2", text);
    let found = uses(text, &origin, Form::Template).expect("no errors of syntax");
    let found: Vec<(&str, bool)> = found.iter().map(|u| (u.name.as_str(), u.guarded)).collect();
    assert_eq!(
        found,
        [
            ("gpus", false),
            ("typo", false),
            ("maybe", true),
            ("other", true)
        ]
    );
}

#[test]
fn filters_are_checked_without_rendering() {
    let text = "a | nope {{ x | defualt('| nope') }}";
    let message = problem(uses(text, &Origin::whole("t.j2", text), Form::Template));
    assert_eq!(
        message,
        "t.j2:1:17: there is no filter `defualt` (did you mean `default`?)"
    );
}

#[test]
fn a_syntax_error_points_at_its_line() {
    let message = problem(template(&source("a\n{{ b c }}\n"), &scope(json!({}))));
    assert!(message.starts_with("t.j2:2:"), "{message}");
}
