//! One case: a fault at a point of a run, and what must be true afterwards.

use std::fs;
use std::time::{Duration, Instant};

use super::fault::{Fault, Moment};
use super::lab::{Controller, Slot, Wanted};
use super::look::{self, Look};
use super::points::Point;

/// No host of a test needs that long; whoever does hangs.
const OVERALL: Duration = Duration::from_secs(900);

/// A fault at a point.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) fault: Fault,
    pub(super) moment: Moment,
    pub(super) point: Point,
    /// The how-manieth call of its phase the point is, from 1.
    pub(super) place: usize,
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let phase = self.point.phase.replace(' ', "-");
        write!(f, "{}/{phase}/{}", self.fault, self.place)?;
        match self.fault.has_moments() {
            true => write!(f, "/{}", self.moment),
            false => Ok(()),
        }
    }
}

/// What the host must be.
pub(super) struct Ends {
    pub(super) before: Look,
    pub(super) after: Look,
}

impl Slot {
    /// Waits until no run is open and nobody is at work; says what stands in the way
    /// if that takes for ever.
    pub(super) fn at_rest(&self) -> Result<(), String> {
        let start = Instant::now();
        loop {
            let open: Vec<(String, String)> = self
                .runs()
                .into_iter()
                .filter(|(_, status)| {
                    ["running", "rebooting", "unconfirmed", "undoing", ""].contains(&&**status)
                })
                .collect();
            let guards = self.guards();
            // To look at all processes costs more than all else that is done meanwhile.
            let waits = open.iter().all(|(_, status)| status == "unconfirmed");
            if !waits && start.elapsed() < limit() {
                std::thread::sleep(Duration::from_millis(50));
                continue;
            }
            // What a watcher slept in when it was told that it is over.
            let mut processes = self.processes();
            processes.retain(|(_, words)| !words.starts_with("sleep "));
            if open.is_empty() && processes.is_empty() && guards.is_empty() {
                return Ok(());
            }
            // Everybody who could confirm it is gone or kept away by now.
            if processes
                .iter()
                .all(|(_, words)| !words.contains("runner.sh"))
            {
                self.pass_deadline(&["unconfirmed"]);
            }
            if start.elapsed() > limit() {
                return Err(format!(
                    "the host does not come to rest: runs {open:?}, processes {processes:?}, guards {guards:?}"
                ));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// Waits until what hangs was ended by those who watch its time. What is not watched
/// is ended as hung calls of a kernel are: late, and with an error.
fn outlast(slot: &Slot, hanging: Option<i32>) {
    let start = Instant::now();
    let there =
        || hanging.is_some_and(|process| slot.processes().iter().any(|(pid, _)| *pid == process));
    // The controller may have heard all that it waits for before.
    while there() {
        if start.elapsed() > Duration::from_secs(45) {
            slot.pass_deadline(&["running", "undoing", "unconfirmed"]);
        }
        if start.elapsed() > Duration::from_secs(60) {
            super::fault::kill(hanging.as_slice());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

pub(super) fn limit() -> Duration {
    let asked = std::env::var("DEPLOY_CRASH_PATIENCE");
    let seconds = asked.ok().and_then(|text| text.parse().ok());
    seconds.map_or(OVERALL, Duration::from_secs)
}

impl Case {
    /// Runs it on a host.
    ///
    /// # Errors
    /// What is not as it must be.
    pub(super) fn run(&self, slot: &Slot, ends: &Ends) -> Result<(), String> {
        slot.reset();
        slot.wrap([self.point.program.as_str()]);
        slot.let_fail(self.point.fails.as_deref());
        if self.fault == Fault::Hangs {
            slot.lapse_time();
            super::lab::run(std::process::Command::new("mkfifo").arg(slot.crash("hang")));
        }
        let text = format!(
            "pattern='{}'\nnth={}\ndeed={}\n",
            super::lab::quoted(&self.point.pattern),
            self.point.nth,
            self.fault.deed(self.moment),
        );
        fs::write(slot.crash("case"), text).expect("our folder");
        let mut controller = slot.deploy(Wanted::Second, &["--yes"]);
        if !self.wait_until_reached(slot, &mut controller)? {
            let (code, said) = controller.wait();
            return Err(format!("the point was not reached: exit {code:?}\n{said}"));
        }
        let caller = fs::read_to_string(slot.crash("reached")).expect("our file");
        self.fault
            .commit(slot, &mut controller, caller.trim().parse().ok());
        fs::write(slot.crash("go"), "").expect("our folder");
        if self.fault == Fault::Away {
            slot.at_rest()?;
            self.fault.mend(slot);
        }
        if self.fault.lasts() && self.fault != Fault::Away {
            // A while later somebody mends it, if nobody was told to by then.
            let start = Instant::now();
            while !controller.ended() && start.elapsed() < Duration::from_secs(20) {
                std::thread::sleep(Duration::from_millis(50));
            }
            self.fault.mend(slot);
        }
        if self.fault == Fault::Hangs {
            outlast(slot, caller.trim().parse().ok());
        }
        let (code, said) = controller.end_within(limit())?;
        // Not before: whoever is at work there may be about to read one of the wrappers.
        let rests = slot.at_rest();
        slot.unwrap_all();
        let judged = rests.and_then(|()| self.judge(slot, ends, code, &said));
        judged.map_err(|problem| {
            format!(
                "{problem}\nexit {code:?}, and it said:\n{said}\nruns: {:?}\n{}",
                slot.runs(),
                journals(slot)
            )
        })
    }

    fn wait_until_reached(&self, slot: &Slot, controller: &mut Controller) -> Result<bool, String> {
        let start = Instant::now();
        loop {
            if slot.crash("reached").exists() {
                return Ok(true);
            }
            if controller.ended() {
                // It may have been reached by what the host does after that.
                return slot.at_rest().map(|()| slot.crash("reached").exists());
            }
            if start.elapsed() > limit() {
                return Err("neither the point nor the end was reached".to_owned());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn judge(&self, slot: &Slot, ends: &Ends, code: Option<i32>, said: &str) -> Result<(), String> {
        let last = slot.runs().into_iter().next();
        let mended = match &last {
            Some((run, status)) if status == "undo-failed" => {
                self.mend_by_hand(slot, run, code, said)?;
                true
            }
            _ => false,
        };
        let found = look::look(&slot.root);
        let is_after = found == ends.after;
        if found != ends.before && !is_after {
            return Err(format!(
                "the host is between\n-- to before:\n{}\n-- to after:\n{}",
                look::differences(&ends.before, &found).join("\n"),
                look::differences(&ends.after, &found).join("\n")
            ));
        }
        let where_it_is = if is_after { "after" } else { "before" };
        let agrees = match code {
            None => self.fault == Fault::KillController,
            Some(0) => is_after,
            Some(1 | 3 | 4) => !is_after,
            Some(5) => self.fault.lasts() || mended,
            Some(_) => false,
        };
        if !agrees || (is_after && (mended || self.point.fails.is_some())) {
            return Err(format!(
                "the host is {where_it_is}, which the exit does not say"
            ));
        }
        if let (Some(5), Some((run, _))) = (code, &last)
            && !["show", "undo"]
                .map(|verb| said.contains(&format!("deploy runs {verb} {run}")))
                .contains(&true)
        {
            return Err("exit 5 does not say what to do".to_owned());
        }
        self.next_run(slot, ends)
    }

    /// What could not be undone is named, each step with its command, and once the host is
    /// mended the run can be undone.
    fn mend_by_hand(
        &self,
        slot: &Slot,
        run: &str,
        code: Option<i32>,
        said: &str,
    ) -> Result<(), String> {
        // A call of the undo itself failed, or something that lasts was in its way.
        let may_fail = self.fault.lasts()
            || (self.point.fails.is_some() && matches!(self.fault, Fault::Fails | Fault::Hangs));
        if !may_fail {
            return Err("an undo failed that nothing was in the way of".to_owned());
        }
        // Whoever had to leave before the undo has heard nothing of it.
        let heard =
            !said.contains("has not come to an end") && !said.contains("goes on without us");
        if code == Some(5) && heard {
            // A step that changes nothing has no undo.
            let steps = slot
                .root
                .join("var/lib/deploy/runs")
                .join(run)
                .join("steps");
            let can_be_left = |step: &String| steps.join(step).join("undo").exists();
            for step in left_by(&slot.journal(run))
                .iter()
                .filter(|step| can_be_left(step))
            {
                let command = format!("sh /var/lib/deploy/runs/{run}/steps/{step}/undo");
                if !said.contains(&command) {
                    return Err(format!("exit 5 does not name `{command}`"));
                }
            }
        } else if heard && code.is_some() {
            return Err("an undo failed, which the exit does not say".to_owned());
        }
        let undo = slot.start(&["runs", "undo", run], Wanted::First, &["--yes"]);
        match undo.wait() {
            (Some(0), _) => slot.at_rest(),
            (code, said) => Err(format!(
                "on the mended host `deploy runs undo` ends with {code:?}:\n{said}"
            )),
        }
    }

    /// The lock is free, and the next run succeeds.
    fn next_run(&self, slot: &Slot, ends: &Ends) -> Result<(), String> {
        let (code, said) = slot.deploy(Wanted::Second, &["--yes"]).wait();
        if code != Some(0) {
            return Err(format!("the next run ends with {code:?}:\n{said}"));
        }
        slot.at_rest()?;
        let found = look::look(&slot.root);
        if found != ends.after {
            return Err(format!(
                "the next run left something else:\n{}",
                look::differences(&ends.after, &found).join("\n")
            ));
        }
        Ok(())
    }
}

/// The steps that were begun and not undone, as far as the journal knows.
fn left_by(journal: &str) -> Vec<String> {
    let mut left: Vec<String> = Vec::new();
    for line in journal.lines() {
        let mut words = line.split(' ').skip(1);
        let (Some(event), Some(step)) = (words.next(), words.next()) else {
            continue;
        };
        left.retain(|other| other != step);
        if matches!(
            event,
            "apply" | "done" | "apply-failed" | "verify-failed" | "undo" | "undo-failed"
        ) {
            left.push(step.to_owned());
        }
    }
    left
}

/// What the runs on the host tell of themselves.
fn journals(slot: &Slot) -> String {
    let mut text = String::new();
    // What the simulator knows of its own failures.
    for name in ["keeper-error", "refuses-ssh"] {
        if let Ok(said) = fs::read_to_string(slot.root.join(".sim").join(name)) {
            text.push_str(&format!("{name}: {said}\n"));
        }
    }
    for (run, _) in slot.runs() {
        text.push_str(&format!("journal of {run}:\n{}", slot.journal(&run)));
    }
    text
}
