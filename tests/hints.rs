//! What is typed wrong is told with what to type instead.

use crate::harness::Scratch;

#[test]
fn wrong_words_have_a_hint() {
    let scratch = Scratch::new();
    scratch.write(
        "hosts.yml",
        "all:\n  children:\n    training:\n      hosts: {h100-01: {ansible_connection: sim, sim: {}}}\n    far:\n      hosts: {far-01: {ansible_host: 127.0.0.1, ansible_port: 1}}\n",
    );
    let path = |name: &str| scratch.path().join(name).display().to_string();
    let hosts = path("hosts.yml");
    let own = ["-i", hosts.as_str()];
    let (nowhere, file) = (path("nowhere.yml"), path("file"));
    scratch.write("file", "");
    let below = format!("{file}/dir");
    for (words, hint) in [
        (
            &["gpu", "--check", "--limit", "h100-1"][..],
            "did you mean `h100-01`?",
        ),
        (
            &["gpu", "--check", "--limit", "xyz"],
            "`deploy inventory graph` shows",
        ),
        (&["render", "--host", "h100-1"], "did you mean `h100-01`?"),
        (
            &["render", "--host", "training"],
            "takes the name of one host",
        ),
        (
            &["render", "--host", "h100-01", "--template", "x.j2"],
            "it makes no file there",
        ),
        (
            &["inventory", "host", "xyz"],
            "`deploy inventory list` shows",
        ),
        (
            &["inventory", "graph", "tarining"],
            "did you mean `training`?",
        ),
        (
            &["inventory", "graph", "xyz"],
            "`deploy inventory graph` shows",
        ),
        (
            &["run", &nowhere, "--check"],
            "begins at the folder in which",
        ),
        (&["drift", &nowhere], "begins at the folder in which"),
        (
            &["gpu", "--check", "-e", "@nowhere.yml"],
            "begins at the folder in which",
        ),
        (
            &["gpu", "--check", "-F", &nowhere],
            "begins at the folder in which",
        ),
        (&["init", &below], "`deploy init DIR` makes"),
        (&["runs", "show", "x y"], "`deploy runs` lists them"),
    ] {
        let ended = scratch.deploy(&[words, &own].concat()).expect(1);
        assert!(
            ended.err.contains(hint),
            "{words:?}: {hint}\n{}",
            ended.all()
        );
    }
    for (words, hint) in [
        (&["schema", "x"][..], "`deploy schema` lists them"),
        (&["catalog", "xyz"], "`deploy catalog` lists"),
        (
            &["apply", &nowhere],
            "`deploy gpu --check --out FILE` writes one",
        ),
        (
            &["content", "export", &below],
            "in which you may make files",
        ),
        (&["history", "show", "x"], "`deploy history` lists"),
    ] {
        let ended = scratch.deploy(words).expect(1);
        assert!(
            ended.err.contains(hint),
            "{words:?}: {hint}\n{}",
            ended.all()
        );
    }
}
