use std::sync::Arc;

use proptest::prelude::*;

use super::*;

/// A made-up key of a type: its name, and bytes that differ by `seed`.
fn key(kind: &str, seed: u8) -> Vec<u8> {
    let mut key = u32::try_from(kind.len())
        .expect("short")
        .to_be_bytes()
        .to_vec();
    key.extend_from_slice(kind.as_bytes());
    key.extend_from_slice(&[0, 0, 0, 32]);
    key.extend_from_slice(&[seed; 32]);
    key
}

fn text(kind: &str, seed: u8) -> String {
    format!("{kind} {}", BASE64.encode(key(kind, seed)))
}

fn check(file: &str, host: &str, port: u16, key: &[u8]) -> Verdict {
    let files = [Arc::new(KnownHosts::parse(Path::new("kh"), file))];
    verdict(&files, &KeyName::new(host, port, None), key)
}

const ED: &str = "ssh-ed25519";
const RSA: &str = "ssh-rsa";

#[test]
fn plain_names_ports_and_the_fallback_without_port() {
    let file = format!("h1,10.0.0.1 {}\n[h2]:2222 {}\n", text(ED, 1), text(ED, 2));
    assert_eq!(check(&file, "h1", 22, &key(ED, 1)), Verdict::Known);
    assert_eq!(check(&file, "H1", 22, &key(ED, 1)), Verdict::Known);
    assert_eq!(check(&file, "10.0.0.1", 22, &key(ED, 1)), Verdict::Known);
    assert_eq!(check(&file, "h2", 2222, &key(ED, 2)), Verdict::Known);
    assert_eq!(check(&file, "h2", 22, &key(ED, 2)), Verdict::New);
    assert_eq!(check(&file, "h1", 2022, &key(ED, 1)), Verdict::Known);
    assert_eq!(check(&file, "h1", 2022, &key(ED, 9)), Verdict::New);
}

#[test]
fn a_changed_key_names_the_real_line() {
    let file = format!(
        "# comment\n\nother {}\n h1\t{}\tcomment\n",
        text(ED, 3),
        text(ED, 1)
    );
    match check(&file, "h1", 22, &key(ED, 2)) {
        Verdict::Changed(known) => assert_eq!((known.line, known.key), (4, key(ED, 1))),
        other => panic!("{other:?}"),
    }
    assert!(matches!(
        check(&file, "h1", 22, &key(RSA, 2)),
        Verdict::OtherType(_)
    ));
}

#[test]
fn of_two_keys_of_one_type_either_is_right() {
    let file = format!("h1 {}\nh1 {}\n", text(ED, 1), text(ED, 2));
    assert_eq!(check(&file, "h1", 22, &key(ED, 2)), Verdict::Known);
}

#[test]
fn revoked_wins_over_listed_and_also_without_port() {
    let file = format!("h1 {}\n@revoked * {}\n", text(ED, 1), text(ED, 1));
    assert!(
        matches!(check(&file, "h1", 22, &key(ED, 1)), Verdict::Revoked(known) if known.line == 2)
    );
    assert!(matches!(
        check(&file, "h1", 2222, &key(ED, 1)),
        Verdict::Revoked(_)
    ));
    let file = format!("h1 {}\n@revoked h1 {}\n", text(ED, 1), text(ED, 2));
    assert_eq!(check(&file, "h1", 22, &key(ED, 1)), Verdict::Known);
}

#[test]
fn an_authority_is_no_host_key() {
    let file = format!("@cert-authority *.example.com {}\n", text(ED, 1));
    assert_eq!(check(&file, "a.example.com", 22, &key(ED, 1)), Verdict::New);
    let files = [Arc::new(KnownHosts::parse(Path::new("kh"), &file))];
    assert_eq!(
        authorities(&files, &KeyName::new("a.example.com", 22, None)),
        [key(ED, 1)]
    );
}

#[test]
fn broken_lines_hide_no_others() {
    let file = format!(
        "h1 ssh-ed25519 !!!\nh1\nh1 ssh-rsa {}\n@what h1 {}\nh1  {}\n",
        BASE64.encode(key(ED, 7)),
        text(ED, 8),
        text(ED, 1)
    );
    assert_eq!(check(&file, "h1", 22, &key(ED, 1)), Verdict::Known);
    assert!(matches!(
        check(&file, "h1", 22, &key(ED, 7)),
        Verdict::Changed(_)
    ));
    assert!(matches!(
        check(&file, "h1", 22, &key(ED, 8)),
        Verdict::Changed(_)
    ));
}

#[test]
fn patterns_and_negation() {
    let file = format!("*.example.com,!bad.example.com {}\n", text(ED, 1));
    assert_eq!(
        check(&file, "a.example.com", 22, &key(ED, 1)),
        Verdict::Known
    );
    assert_eq!(
        check(&file, "bad.example.com", 22, &key(ED, 1)),
        Verdict::New
    );
    assert_eq!(check(&file, "example.com", 22, &key(ED, 1)), Verdict::New);
}

#[test]
fn an_unreadable_file_is_an_error_and_a_missing_one_is_empty() {
    let folder = tempfile::tempdir().expect("a folder");
    assert!(
        KnownHosts::load(&folder.path().join("none"))
            .expect("empty")
            .lines
            .is_empty()
    );
    assert!(KnownHosts::load(folder.path()).is_err());
}

#[test]
fn appending_keeps_a_last_line_without_end_and_writes_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("new/known_hosts");
    let name = KeyName::new("H1", 2222, None);
    append(&path, &name, &key(ED, 1)).expect("written");
    let once = std::fs::read_to_string(&path).expect("a file");
    append(&path, &name, &key(ED, 1)).expect("already there");
    assert_eq!(std::fs::read_to_string(&path).expect("a file"), once);
    assert_eq!(once, format!("[h1]:2222 {}\n", text(ED, 1)));
    std::fs::write(&path, once.trim_end()).expect("a file");
    append(&path, &KeyName::new("h3", 22, None), &key(ED, 3)).expect("written");
    assert_eq!(
        std::fs::read_to_string(&path).expect("a file"),
        format!("{once}h3 {}\n", text(ED, 3))
    );
    append(&path, &name, &key(ED, 9)).expect_err("another key is there");
}

fn hashed(name: &str) -> String {
    let salt = [7_u8; 20];
    let mut mac = Hmac::<Sha1>::new_from_slice(&salt).expect("any length");
    mac.update(name.as_bytes());
    format!(
        "|1|{}|{}",
        BASE64.encode(salt),
        BASE64.encode(mac.finalize().into_bytes())
    )
}

/// A host field: patterns over few letters, so that many match, or a hash.
fn field() -> impl Strategy<Value = String> {
    let word = prop_oneof!["[ab.*?]{1,4}", "!?[ab]{1,2}", "\\[[ab*]{1,2}\\]:(22|2222)"];
    prop_oneof![
        3 => proptest::collection::vec(word, 1..3).prop_map(|words| words.join(",")),
        1 => "[ab]{1,2}".prop_map(|name| hashed(&name)),
        1 => "[ab]{1,2}".prop_map(|name| hashed(&format!("[{name}]:2222"))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    /// `ssh-keygen -F` is the oracle for which lines are about a name (in lower
    /// case: `ssh` turns names to that before, `ssh-keygen` not always).
    #[test]
    fn the_same_lines_as_ssh_keygen(
        fields in proptest::collection::vec((field(), 0..3_u8), 1..6),
        name in prop_oneof!["[ab]{1,2}", "\\[[ab]{1,2}\\]:2222"],
    ) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("known_hosts");
        let mut file = String::new();
        for (index, (field, marker)) in fields.iter().enumerate() {
            let marker = ["", "@revoked ", "@cert-authority "][usize::from(*marker)];
            let seed = u8::try_from(index).expect("few");
            file.push_str(&format!("{marker}{field} {}\n", text(ED, seed)));
        }
        std::fs::write(&path, &file).expect("a file");
        let output = std::process::Command::new("ssh-keygen").args(["-F", &name, "-f"]).arg(&path).output();
        let output = output.expect("did not run: ssh-keygen missing");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let theirs: Vec<usize> = said.lines().filter_map(|line| line.strip_prefix("# Host ")?.split("line ").nth(1)?
            .split(' ').next()?.parse().ok()).collect();
        let ours = KnownHosts::load(&path).expect("a file").lines_for(&name);
        prop_assert_eq!(ours, theirs, "{}\n{}", file, said);
    }
}
