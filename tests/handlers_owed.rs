//! A handler that a failed run owes is run by the next one, on simulated hosts.

use std::fs;
use std::path::PathBuf;

use crate::harness::{Ended, Scratch};

/// A change that cannot be taken back, a task that fails while `/var/bad` is there, and a
/// handler that has not run then.
const APP: &str = r#"- hosts: all
  gather_facts: false
  tasks:
    - name: Change the app
      command: {argv: [sh, -c, 'touch "$R/etc/app"'], undo: 'false', creates: /etc/app}
      notify: Tell the app
    - name: Fail
      command: {argv: [sh, -c, '[ ! -e "$R/var/bad" ]'], undo: 'true', removes: /var/bad}
  handlers:
    - name: Tell the app
      command: {argv: [sh, -c, 'echo told >>"$R/var/told"'], undo: 'true'}
"#;

const OTHER: &str = "- hosts: all
  gather_facts: false
  tasks:
    - copy: {content: \"x\\n\", dest: /etc/other}
";

struct Host {
    scratch: Scratch,
    inventory: String,
}

impl Host {
    fn new() -> Self {
        let scratch = Scratch::new();
        let text = "all:\n  hosts:\n    h1:\n  vars:\n    ansible_connection: sim\n    sim: {gpus: [], systemd: false}\n";
        let inventory = scratch.write("inv/hosts.yml", text).display().to_string();
        let host = Self { scratch, inventory };
        // The host's folder comes into being when it is first reached.
        let words = ["discover", "-i", host.inventory.as_str()];
        host.scratch.deploy(&words).expect(0);
        host
    }

    fn run(&self, playbook: &str) -> Ended {
        let playbook = self.scratch.write("play.yml", playbook);
        let playbook = playbook.display().to_string();
        self.scratch
            .deploy(&["run", &playbook, "--yes", "-i", &self.inventory])
    }

    fn at(&self, path: &str) -> PathBuf {
        let fleets = self.scratch.path().join("state/deploy/sim");
        let fleet = fs::read_dir(fleets)
            .expect("the fleet's folder")
            .next()
            .expect("one fleet")
            .expect("it is readable");
        fleet.path().join("hosts/h1").join(path)
    }

    fn owed(&self) -> Option<String> {
        fs::read_to_string(self.at("var/lib/deploy/owed")).ok()
    }

    fn told(&self) -> usize {
        let text = fs::read_to_string(self.at("var/told")).unwrap_or_default();
        text.lines().count()
    }
}

#[test]
fn a_handler_that_a_failed_run_owes_runs_next_time_and_once() {
    let host = Host::new();
    fs::write(host.at("var/bad"), "").expect("a file on the host");
    host.run(APP).expect(5);
    assert!(host.at("etc/app").exists(), "it could not be taken back");
    assert_eq!(
        (host.told(), host.owed().as_deref()),
        (0, Some("Tell the app\n"))
    );

    // Another playbook neither runs it nor forgets it.
    host.run(OTHER)
        .expect(0)
        .says("owed handler `Tell the app`, which this playbook does not have");
    assert_eq!(
        (host.told(), host.owed().as_deref()),
        (0, Some("Tell the app\n"))
    );

    // Nothing else is left to change: it runs because it is owed.
    fs::remove_file(host.at("var/bad")).expect("ours");
    host.run(APP)
        .expect(0)
        .says("handler `Tell the app` runs: an earlier run that failed owed it");
    assert_eq!((host.told(), host.owed()), (1, None));

    let third = host.run(APP).expect(0);
    assert!(!third.all().contains("owed"), "{}", third.all());
    assert_eq!(host.told(), 1);
}
