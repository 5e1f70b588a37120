//! Saved plans as whole commands: `--check --out FILE`, then `deploy apply FILE`, on
//! simulated hosts.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};

use crate::harness::{Ended, Scratch, differing, tree_without_times};
use crate::technology::bench;

/// A file of several lines that is changed, one that is new, and a secret one.
const TASKS: &str = r#"
    - name: settings
      copy: {content: "a\nb\nwanted\nd\n", dest: /etc/settings}
    - name: new
      copy: {content: "new\n", dest: /etc/new}
"#;

const SECRET: &str = r#"
    - name: token
      no_log: true
      copy: {content: "token={{ token }}\n", dest: /etc/token, mode: "0600"}
    - name: log in
      no_log: true
      command: {argv: [sh, -c, 'echo "$1" >"$R/etc/login"', sh, "{{ token }}"], undo: 'true'}
"#;

const PASSWORD: &str = "correct-horse-battery-staple";

struct Fleet {
    scratch: Scratch,
    inventory: String,
    playbook: String,
    plan: PathBuf,
}

impl Fleet {
    fn new(hosts: &[&str], tasks: &str) -> Self {
        let fleet = Self::untouched(hosts, tasks, "gpus: []");
        for host in hosts {
            fleet.write(host, "etc/settings", "a\nb\nc\nd\n");
        }
        fleet
    }

    fn untouched(hosts: &[&str], tasks: &str, sim: &str) -> Self {
        let scratch = Scratch::new();
        let mut text = String::from("all:\n  hosts:\n");
        for host in hosts {
            text += &format!("    {host}:\n");
        }
        text += &format!("  vars:\n    ansible_connection: sim\n    sim: {{{sim}}}\n");
        let inventory = scratch.write("inv/hosts.yml", &text).display().to_string();
        let play = format!("- hosts: all\n  gather_facts: false\n  tasks:\n{tasks}");
        let playbook = scratch.write("play.yml", &play).display().to_string();
        let plan = scratch.path().join("plan.bin");
        let fleet = Self {
            scratch,
            inventory,
            playbook,
            plan,
        };
        // The hosts' folders come into being when they are first reached.
        fleet
            .scratch
            .deploy(&["discover", "-i", &fleet.inventory])
            .expect(0);
        fleet
    }

    fn host(&self, host: &str) -> PathBuf {
        let fleets = self.scratch.path().join("state/deploy/sim");
        fs::read_dir(&fleets)
            .expect("a fleet")
            .flatten()
            .map(|fleet| fleet.path().join("hosts").join(host))
            .find(|folder| folder.is_dir())
            .expect("the host was made")
    }

    fn write(&self, host: &str, path: &str, text: &str) {
        fs::write(self.host(host).join(path), text).expect("a file of the host");
    }

    fn file(&self, host: &str, path: &str) -> String {
        fs::read_to_string(self.host(host).join(path)).unwrap_or_default()
    }

    /// `deploy run PLAY --check --out PLAN`.
    #[track_caller]
    fn save(&self, more: &[&str]) -> Ended {
        let plan = self.plan.display().to_string();
        let mut args = vec!["run", &self.playbook, "-i", &self.inventory, "--check"];
        args.extend(["--out", &plan]);
        args.extend(more);
        self.scratch.deploy(&args)
    }

    fn apply(&self, more: &[&str]) -> Ended {
        let plan = self.plan.display().to_string();
        let mut args = vec!["apply", plan.as_str()];
        args.extend(more);
        self.scratch.deploy(&args)
    }

    fn show(&self, form: &str) -> Ended {
        let plan = self.plan.display().to_string();
        self.scratch
            .deploy(&["plan", "show", &plan, "--output", form])
    }

    fn rewrite_inventory(&self, from: &str, to: &str) {
        let text = fs::read_to_string(&self.inventory).expect("an inventory");
        assert!(text.contains(from), "{text}");
        fs::write(&self.inventory, text.replacen(from, to, 1)).expect("an inventory");
    }
}

/// R-PLAN: unchanged, exactly the plan is applied; the second time it is refused.
#[test]
fn a_plan_is_applied_as_it_was_made_and_once() {
    let fleet = Fleet::new(&["h1"], TASKS);
    let before = tree_without_times(&fleet.host("h1"));
    let saved = fleet.save(&[]).expect(2).says("the plan is saved in");
    let after = tree_without_times(&fleet.host("h1"));
    assert_eq!(differing(&before, &after), Vec::<PathBuf>::new());
    let mode = fs::metadata(&fleet.plan).expect("a plan").permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);

    // It is shown as it was told, without a host.
    let shown = fleet.show("human").expect(0);
    assert!(saved.out.contains("-c\n") && saved.out.contains("+wanted\n"));
    assert_eq!(shown.out, saved.out);

    // What stands in the playbook now does not matter.
    let changed = TASKS.replace("wanted", "other");
    let play = format!("- hosts: all\n  gather_facts: false\n  tasks:\n{changed}");
    fs::write(&fleet.playbook, play).expect("a playbook");
    fleet.apply(&["--check"]).expect(2).says("+wanted");
    fleet.apply(&[]).expect(0).says("changed=1");
    assert_eq!(fleet.file("h1", "etc/settings"), "a\nb\nwanted\nd\n");
    assert_eq!(fleet.file("h1", "etc/new"), "new\n");

    fleet
        .apply(&[])
        .expect(1)
        .says("h1: this plan was applied here at 20")
        .says("this plan was applied already, on all of its hosts")
        .says("make the plan again");

    // Not even once more after it was taken back.
    fleet
        .scratch
        .deploy(&["rollback", "-i", &fleet.inventory, "--yes"])
        .expect(0);
    fleet
        .apply(&[])
        .expect(1)
        .says("its run is rolled back: a host takes a plan once");
    assert_eq!(fleet.file("h1", "etc/settings"), "a\nb\nc\nd\n");
}

#[test]
fn a_host_that_was_changed_by_hand_is_left_alone_and_the_line_is_named() {
    let fleet = Fleet::new(&["h1", "h2"], TASKS);
    fleet.save(&[]).expect(2);
    fleet.write("h1", "etc/settings", "a\nb\nby hand\nd\n");
    fleet.write("h1", "etc/new", "somebody's\n");
    let before = tree_without_times(&fleet.host("h1"));
    let ended = fleet
        .apply(&["--output", "json"])
        .expect(3)
        .says("/etc/settings:3: was `c`, is `by hand`")
        .says("/etc/new: was not there, is a file");
    let lines: Vec<Json> = ended
        .out
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let end = |host: &str| {
        lines
            .iter()
            .find(|line| line["type"] == "host_end" && line["host"] == host)
            .expect("the host ended")
    };
    assert_eq!(end("h1")["outcome"], "stale");
    assert_eq!(end("h2")["outcome"], "changed");
    assert_eq!(lines.last().expect("a line")["stale"], 1);
    let after = tree_without_times(&fleet.host("h1"));
    assert_eq!(differing(&before, &after), Vec::<PathBuf>::new());
    assert_eq!(fleet.file("h2", "etc/settings"), "a\nb\nwanted\nd\n");

    // Alone it is an error before any change.
    fleet
        .apply(&["--limit", "h1"])
        .expect(1)
        .says("h1: stale plan, nothing was changed");
}

#[test]
fn a_restart_a_driver_and_another_run_make_a_plan_stale() {
    let sim = "gpus: [{product: H100-80GB, count: 1}]";
    let fleet = Fleet::untouched(&["h1"], TASKS, sim);
    let slicing = |profiles: &str| {
        format!(
            "  vars:\n    containers_gpu_slicing: {{enabled: true, strategy: mig, mig: {{enabled: true, profiles: [{profiles}]}}}}\n"
        )
    };
    fleet.rewrite_inventory("  vars:\n", &slicing("3g.40gb, 3g.40gb"));
    let gpu = |more: &[&str]| {
        let mut args = vec!["gpu", "-i", &fleet.inventory];
        args.extend(more);
        fleet.scratch.deploy(&args)
    };
    gpu(&["--yes"]).expect(0);
    fleet.rewrite_inventory("3g.40gb, 3g.40gb", "3g.40gb, 2g.20gb");
    let plan = fleet.plan.display().to_string();
    let save = || gpu(&["--check", "--out", &plan]).expect(2).says("│3g.40gb");

    // Another run comes between.
    save();
    fleet.rewrite_inventory("3g.40gb, 2g.20gb", "3g.40gb");
    gpu(&["--yes"]).expect(0);
    fleet
        .apply(&[])
        .expect(1)
        .says("was applied on the host since")
        .says("3g.40gb at 0 is gone");
    fleet.rewrite_inventory("3g.40gb", "3g.40gb, 2g.20gb");

    // Another driver has the card.
    save();
    let link = "sys/bus/pci/devices/0000:17:00.0/driver";
    let link = fleet.host("h1").join(link);
    let was = fs::read_link(&link).expect("a driver has it");
    let bind = |driver: &Path| {
        fs::remove_file(&link).expect("ours");
        std::os::unix::fs::symlink(driver, &link).expect("ours");
    };
    bind(Path::new("../../../../bus/pci/drivers/vfio-pci"));
    fleet
        .apply(&[])
        .expect(1)
        .says("the driver of 0000:17:00.0 was nvidia, is vfio-pci");
    bind(&was);

    // A restart.
    let words = ["sim", "break", "-i", &fleet.inventory, "h1", "reboot"];
    fleet.scratch.deploy(&words).expect(0);
    fleet
        .apply(&[])
        .expect(1)
        .says("the host was restarted since: its boot id was");
    save();
    fleet.apply(&[]).expect(0).says("changed=1");
}

#[test]
fn an_instance_that_was_destroyed_by_hand_makes_a_plan_stale() {
    let bench = bench(&json!({"gpus": [{"product": "H100-80GB", "count": 1}]}));
    bench.apply("strategy: mig, mig: {enabled: true, profiles: [3g.40gb, 3g.40gb]}");
    bench.want("strategy: mig, mig: {enabled: true, profiles: [3g.40gb, 2g.20gb]}");
    let folder = tempfile::tempdir().expect("a folder");
    let plan = folder.path().join("plan").display().to_string();
    bench.deploy(&["gpu", "--check", "--out", &plan]).expect(2);
    bench.ssh("nvidia-smi mig -dci -gi 2 && nvidia-smi mig -dgi -gi 2");
    bench
        .deploy(&["apply", &plan])
        .expect(1)
        .says("node1: stale plan, nothing was changed")
        .says("NVIDIA H100 80GB HBM3): 3g.40gb at 4 is gone");
    bench.deploy(&["gpu", "--check", "--out", &plan]).expect(2);
    bench.deploy(&["apply", &plan]).expect(0);
    bench.settled();
}

#[test]
fn no_secret_is_in_the_file_and_it_is_made_again_when_the_plan_is_applied() {
    let fleet = Fleet::new(&["h1"], SECRET);
    let given = format!("token={PASSWORD}");
    fleet.save(&["-e", &given]).expect(2);
    let text = fs::read_to_string(&fleet.plan).expect("a plan");
    let encoded = {
        use base64::Engine;
        base64::engine::general_purpose::STANDARD.encode(PASSWORD)
    };
    for secret in [PASSWORD, encoded.trim_end_matches('=')] {
        assert!(!text.contains(secret), "the file has the secret");
    }
    for form in ["human", "json"] {
        let shown = fleet.show(form).expect(0);
        assert!(!shown.out.contains(PASSWORD) && !shown.err.contains(PASSWORD));
    }

    fleet
        .apply(&[])
        .expect(1)
        .says("the plan was made with `-e token=…`, whose value it does not hold");
    fleet
        .apply(&["-e", "token=other"])
        .expect(1)
        .says("`token` had another value when the plan was made");
    fleet.apply(&["-e", &given]).expect(0).says("changed=1");
    let content = format!("token={PASSWORD}\n");
    assert_eq!(fleet.file("h1", "etc/token"), content);
    assert_eq!(fleet.file("h1", "etc/login"), format!("{PASSWORD}\n"));
}

#[test]
fn a_secret_that_became_another_makes_a_plan_stale() {
    let fleet = Fleet::new(&["h1"], SECRET);
    fleet.rewrite_inventory("  vars:\n", &format!("  vars:\n    token: {PASSWORD}\n"));
    fleet.save(&[]).expect(2);
    let text = fs::read_to_string(&fleet.plan).expect("a plan");
    assert!(!text.contains(PASSWORD));
    fleet.rewrite_inventory(PASSWORD, "another");
    fleet
        .apply(&[])
        .expect(1)
        .says("`write /etc/token` would be made with another content than was planned")
        .says("h1: stale plan, nothing was changed");
    assert_eq!(fleet.file("h1", "etc/token"), "");
    fleet.rewrite_inventory("another", PASSWORD);
    fleet.apply(&[]).expect(0);
    // Nor is one in the file that the host has already.
    fs::remove_file(fleet.host("h1").join("etc/login")).expect("it is there");
    fleet.save(&[]).expect(2);
    let text = fs::read_to_string(&fleet.plan).expect("a plan");
    assert!(!text.contains(PASSWORD));
    assert_eq!(fleet.file("h1", "etc/token"), format!("token={PASSWORD}\n"));
}

#[test]
fn what_a_host_missed_is_made_up_for_with_the_same_file() {
    let fleet = Fleet::new(&["h1", "h2", "h3"], TASKS);
    fleet.save(&[]).expect(2).says("applies it to 3 hosts");
    // Nobody listens on the first port.
    let down = "    h2: {ansible_connection: ssh, ansible_host: 127.0.0.1, ansible_port: 1}\n";
    fleet.rewrite_inventory("    h2:\n", down);
    fleet
        .apply(&[])
        .expect(4)
        .says("changed=2 failed=0 unreachable=1");
    fleet.rewrite_inventory(down, "    h2:\n");
    let ended = fleet
        .apply(&[])
        .expect(0)
        .says("h1: this plan was applied here at 20")
        .says("h3: this plan was applied here at 20")
        .says("hosts=3 ok=2 changed=1");
    assert!(!ended.err.contains("h2: this plan"), "{}", ended.all());
    assert_eq!(fleet.file("h2", "etc/settings"), "a\nb\nwanted\nd\n");
    fleet.apply(&[]).expect(1).says("h2: this plan was applied");
}

#[test]
fn a_file_that_is_cut_edited_or_of_another_tool_is_refused() {
    let fleet = Fleet::new(&["h1"], TASKS);
    fleet.save(&[]).expect(2);
    let text = fs::read_to_string(&fleet.plan).expect("a plan");
    let with = |text: &str| {
        fs::write(&fleet.plan, text).expect("a plan");
        fleet.apply(&[])
    };
    with(&text[..text.len() - 40])
        .expect(1)
        .says("the plan is cut");
    with(&text.replacen("wanted", "edited", 1))
        .expect(1)
        .says("the plan was changed after it was written");
    with(&text.replacen("\"version\":1", "\"version\":9", 1))
        .expect(1)
        .says("the plan has form 9, and this version of deploy reads form 1")
        .says("make the plan again");
    let mine = format!("\"version\":\"{}\"", env!("CARGO_PKG_VERSION"));
    with(&text.replacen(&mine, "\"version\":\"9.9.9\"", 1))
        .expect(1)
        .says("the plan was made by deploy 9.9.9, this is");
    let build = text.find("\"build\":\"").expect("a build") + 9;
    let mut other = text.clone();
    other.replace_range(build..build + 16, "0123456789abcdef");
    with(&other).expect(1).says("another build of deploy");
    with("hello")
        .expect(1)
        .says("this is no saved plan of deploy");
    with(&text);
    assert_eq!(fleet.file("h1", "etc/settings"), "a\nb\nwanted\nd\n");
}

#[test]
fn who_else_can_write_the_file_matters() {
    let fleet = Fleet::new(&["h1"], TASKS);
    fleet.save(&[]).expect(2);
    let mode = |mode: u32| {
        let permissions = fs::Permissions::from_mode(mode);
        fs::set_permissions(&fleet.plan, permissions).expect("ours");
    };
    mode(0o664);
    fleet
        .apply(&[])
        .expect(1)
        .says("can be written by others (mode 0664)")
        .says("chmod 600");
    mode(0o644);
    fleet
        .apply(&[])
        .expect(0)
        .says("can be read by others (mode 0644)");
}

#[test]
fn a_plan_that_cannot_be_saved_is_told_before_a_host_is_asked() {
    let fleet = Fleet::new(&["h1"], TASKS);
    let out = fleet.scratch.path().join("nowhere/plan");
    let words = [
        "run",
        &fleet.playbook,
        "-i",
        &fleet.inventory,
        "--check",
        "--out",
        &out.display().to_string(),
    ];
    let ended = fleet
        .scratch
        .deploy(&words)
        .expect(1)
        .says("cannot be written");
    assert!(!ended.out.contains("h1"), "{}", ended.all());
    let words = ["run", &fleet.playbook, "-i", &fleet.inventory, "--out", "x"];
    fleet.scratch.deploy(&words).expect(64).says("--check");
}

#[test]
fn hosts_that_are_as_wanted_or_down_are_in_the_plan_and_left_alone() {
    let fleet = Fleet::new(&["h1", "h2", "h3"], TASKS);
    fleet.write("h1", "etc/settings", "a\nb\nwanted\nd\n");
    fleet.write("h1", "etc/new", "new\n");
    let down = "    h2: {ansible_connection: ssh, ansible_host: 127.0.0.1, ansible_port: 1}\n";
    fleet.rewrite_inventory("    h2:\n", down);
    fleet.save(&[]).expect(4).says("applies it to 1 host");
    fleet
        .show("json")
        .expect(0)
        .says(r#""host":"h2","outcome":"unreachable""#)
        .says(r#""host":"h1","outcome":"ok""#)
        .says(r#""unreachable":1"#)
        .says(r#""exit":0"#);
    let applied = fleet.apply(&[]).expect(0).says("hosts=1 ok=0 changed=1");
    applied.says("1 host is not in the plan, for it was unreachable when it was made: h2");
}

#[test]
fn a_plan_is_shown_as_a_page_for_a_merge_request_and_for_a_browser() {
    let sim = "gpus: [{product: H100-80GB, count: 2}]";
    let fleet = Fleet::untouched(&["h1", "h2"], TASKS, sim);
    let slicing = "  vars:\n    containers_gpu_slicing: {enabled: true, strategy: mig, mig: {enabled: true, profiles: [3g.40gb, 2g.20gb]}}\n";
    fleet.rewrite_inventory("  vars:\n", slicing);
    let plan = fleet.plan.display().to_string();
    let gpu = |more: &[&str]| {
        let mut args = vec!["gpu", "-i", &fleet.inventory, "--check"];
        args.extend(more);
        fleet.scratch.deploy(&args)
    };
    gpu(&["--out", &plan]).expect(2);

    let shown = fleet.show("markdown").expect(0).out;
    assert!(
        shown.starts_with("## deploy: 2 of 2 hosts would be changed\n"),
        "{shown}"
    );
    assert!(
        shown.contains("### `h1`\n") && shown.contains("### `h2`\n"),
        "{shown}"
    );
    assert!(
        shown.contains("+ after  │·") && shown.contains("│3g.40gb"),
        "{shown}"
    );
    assert!(
        shown.contains("<details><summary><code>write /etc/deploy/gpu/mig.conf</code></summary>"),
        "{shown}"
    );
    // The same without a file, but for where it comes from.
    let direct = gpu(&["--output", "markdown"]).expect(2).out;
    let but_for_the_source = |text: &str| {
        let lines = text.lines().filter(|line| !line.starts_with("`plan "));
        lines
            .filter(|line| !line.is_empty())
            .collect::<Vec<_>>()
            .join("\n")
    };
    assert_eq!(but_for_the_source(&direct), but_for_the_source(&shown));

    let page = fleet.show("html").expect(0).out;
    assert!(page.starts_with("<!DOCTYPE html>"));
    assert_eq!(page.matches("<li class=\"host is-changed\"").count(), 2);
    let drawn = "<div class=\"slice w4 new\" title=\"3g.40gb at 4, is new\">3g.40gb</div>";
    assert_eq!(page.matches(drawn).count(), 4);
    for reach in ["http://", "https://", "<img", " src=", "url("] {
        assert!(!page.contains(reach), "`{reach}`");
    }

    // A page shows; it applies nothing.
    let words = ["gpu", "-i", &fleet.inventory, "--yes", "--output", "html"];
    fleet.scratch.deploy(&words).expect(1).says("--check");
}

#[test]
fn values_of_extra_variables_are_not_in_the_file_whatever_their_names() {
    const WORD: &str = "blue-heron-on-the-lawn";
    const PIN: &str = "four-grey-elephants";
    let tasks = "    - copy: {content: \"yes\\n\", dest: /etc/new}\n      when: token != '' and word != '' and pin != ''\n";
    let fleet = Fleet::new(&["h1", "h2"], tasks);
    let file = fleet.scratch.write("secrets.yml", &format!("pin: {PIN}\n"));
    let file = format!("@{}", file.display());
    let (token, word) = (format!("token={PASSWORD}"), format!("word={WORD}"));
    let given = ["-e", &token, "-e", &word, "-e", &file];
    fleet.save(&given).expect(2);
    let text = fs::read_to_string(&fleet.plan).expect("a plan");
    for secret in [PASSWORD, WORD, PIN] {
        assert!(!text.contains(secret), "the file has {secret}");
    }
    let record = |host: &str| {
        let folder = fleet.host(host).join("var/lib/deploy");
        let entries = fs::read_dir(folder).expect("it was applied").flatten();
        let mut paths = entries.map(|entry| entry.path());
        let is_record = |path: &PathBuf| {
            path.extension().is_some_and(|end| end == "json")
                && path.display().to_string().contains("/applied-")
        };
        let found = paths.find(is_record).expect("a record");
        fs::read_to_string(found).expect("a record")
    };
    // The host's own record has what was given again, as that of any run.
    fleet.apply(&["--limit", "h1"]).expect(0);
    let told = record("h1");
    assert!(!told.contains(WORD) && told.contains(PIN), "{told}");
    fleet
        .apply(&["--limit", "h2", "-e", &word])
        .expect(0)
        .says("changed=1");
    let told = record("h2");
    assert!(told.contains(WORD) && !told.contains(PASSWORD), "{told}");
}
