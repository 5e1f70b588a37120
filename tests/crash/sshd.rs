//! A plan that stops the SSH server of the host: nobody can confirm it any more, so the
//! host's guard undoes it, and whoever started it hears of that or says when it will be.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::case::limit;
use super::lab::{Controller, Kind, Lab, Slot, Wanted, inside};
use super::look::{differences, look};

/// A file, and then the unit that lets us in.
const PLAY: &str = "- hosts: all
  gather_facts: false
  tasks:
    - copy: {content: \"new\\n\", dest: /etc/new.conf}
    - systemd: {name: ssh.service, state: stopped}
";

#[test]
fn a_run_that_stops_sshd_is_undone_by_the_guard() {
    let _alone = super::ALONE.lock();
    if !inside("crash::sshd::a_run_that_stops_sshd_is_undone_by_the_guard") {
        return;
    }
    let lab = Lab::start(Kind::Systemd, 1);
    let slot = &lab.slots[0];
    let play = slot.root.join("crash/play.yml");
    fs::write(&play, PLAY).expect("our folder");

    let mut controller = begun(slot, &play);
    let (code, said) = slot.deploy(Wanted::First, &["--check"]).wait();
    assert_eq!(code, Some(4), "sshd is gone: {said}");
    assert!(slot.root.join("etc/new.conf").exists());
    assert!(!controller.ended(), "it waits for the host to come back");
    // The guard starts sshd again with the rest of the undo.
    slot.pass_deadline(&["unconfirmed"]);
    let (code, said) = controller.end_within(limit()).expect("it ends");
    assert_eq!(code, Some(3), "{said}");
    for words in ["rolled-back=1", "it was not confirmed in time"] {
        assert!(said.contains(words), "`{words}` is not in {said}");
    }
    slot.at_rest().expect("the guard is gone");
    assert_eq!(slot.runs()[0].1, "undone");
    assert_eq!(
        differences(&lab.before, &look(&slot.root)),
        Vec::<String>::new()
    );

    // Whoever is gone by then finds the host as it was as well.
    let mut controller = begun(slot, &play);
    controller.kill();
    controller.wait();
    slot.at_rest().expect("the guard is gone");
    assert_eq!(slot.runs()[0].1, "undone");
    assert_eq!(
        differences(&lab.before, &look(&slot.root)),
        Vec::<String>::new()
    );
    let (code, said) = slot.deploy(Wanted::First, &["--check"]).wait();
    assert_eq!(code, Some(0), "{said}");
}

/// All steps are made, and the host waits for its confirmation.
fn begun(slot: &Slot, play: &Path) -> Controller {
    let play = play.display().to_string();
    let mut controller = slot.start(&["run", &play], Wanted::First, &["--yes"]);
    let start = Instant::now();
    while slot
        .runs()
        .first()
        .is_none_or(|(_, status)| status != "unconfirmed")
    {
        assert!(!controller.ended(), "{}", controller.wait().1);
        assert!(start.elapsed() < limit(), "the host makes no end of it");
        sleep(Duration::from_millis(50));
    }
    controller
}
