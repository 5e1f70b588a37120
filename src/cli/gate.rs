//! Whether another host may be begun: what failed against its limit, what
//! `--on-failure` says, and whether the user interrupted.
//!
//! Hosts ask before they are begun and tell how they ended, each in one step, so
//! that the answer holds within a batch and between batches. Knows nothing of what
//! is done on them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::cli::args::OnFailure;
use crate::event::Outcome;
use crate::plan::HostPlan;
use crate::value::HostName;

/// When hosts are no longer begun.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Percentage of all hosts of which more may not fail, if there is a limit.
    pub max_fail_percentage: Option<f64>,
    /// What a failure means for the others.
    pub on_failure: OnFailure,
}

/// The way to the hosts.
#[derive(Debug)]
pub struct Gate {
    limits: Limits,
    /// All selected hosts, in order.
    hosts: Vec<HostName>,
    state: Mutex<State>,
    interrupted: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    failed: usize,
    first: Option<HostName>,
    interrupted: bool,
    at_work: HashMap<HostName, Arc<HostPlan>>,
    ended: HashMap<HostName, Outcome>,
}

/// Hosts that have not ended when the user leaves.
#[derive(Debug, PartialEq)]
pub struct Unfinished {
    /// Those at work, with what is done there.
    pub at_work: Vec<(HostName, Arc<HostPlan>)>,
    /// Those that were not begun.
    pub not_begun: Vec<HostName>,
}

impl Gate {
    /// Open.
    #[must_use]
    pub fn new(hosts: Vec<HostName>, limits: Limits) -> Self {
        Self {
            limits,
            hosts,
            state: Mutex::default(),
            interrupted: watch::Sender::new(false),
        }
    }

    // What a panic elsewhere left is whole: every change here is one step.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why no further host is begun, in a sentence; nothing as long as they are.
    #[must_use]
    pub fn closed(&self) -> Option<String> {
        self.why(&self.state())
    }

    fn why(&self, state: &State) -> Option<String> {
        if state.interrupted {
            return Some(INTERRUPTED.to_owned());
        }
        if self.limits.on_failure != OnFailure::RollbackHost
            && let Some(host) = &state.first
        {
            return Some(format!(
                "{host} failed, and --on-failure is {}",
                self.limits.on_failure.word()
            ));
        }
        let limit = self.limits.max_fail_percentage?;
        let (failed, all) = (state.failed, self.hosts.len());
        (failed as f64 * 100.0 > limit * all as f64).then(|| {
            format!("{failed} of {all} hosts failed, and max_fail_percentage allows {limit} %")
        })
    }

    /// Begins a host with its plan.
    ///
    /// # Errors
    /// Why it is not begun.
    pub fn begin(&self, host: &HostName, plan: &Arc<HostPlan>) -> Result<(), String> {
        let mut state = self.state();
        if let Some(why) = self.why(&state) {
            return Err(why);
        }
        state.at_work.insert(host.clone(), Arc::clone(plan));
        Ok(())
    }

    /// Begins a host whose change is taken back, which no failure keeps from it.
    pub fn begin_again(&self, host: &HostName, plan: &Arc<HostPlan>) {
        self.state().at_work.insert(host.clone(), Arc::clone(plan));
    }

    /// A host ended; one that is unreachable or that another run has counts as failed.
    pub fn end(&self, host: &HostName, outcome: Outcome) {
        let mut state = self.state();
        state.at_work.remove(host);
        let well = matches!(outcome, Outcome::Ok | Outcome::Changed | Outcome::Skipped);
        let again = state.ended.insert(host.clone(), outcome).is_some();
        if !well && !again {
            state.failed += 1;
            state.first.get_or_insert_with(|| host.clone());
        }
    }

    /// The hosts whose changes are to be taken back, and the one that failed first.
    #[must_use]
    pub fn to_take_back(&self) -> Option<(HostName, Vec<HostName>)> {
        let state = self.state();
        if self.limits.on_failure != OnFailure::RollbackRun {
            return None;
        }
        let first = state.first.clone()?;
        let changed = |host: &&HostName| {
            matches!(
                state.ended.get(host),
                Some(Outcome::Changed | Outcome::Unconfirmed)
            )
        };
        Some((first, self.hosts.iter().filter(changed).cloned().collect()))
    }

    /// The user interrupted: no further host is begun. Gives the number of hosts that
    /// are at work.
    pub fn interrupt(&self) -> usize {
        let mut state = self.state();
        state.interrupted = true;
        self.interrupted.send_replace(true);
        state.at_work.len()
    }

    /// Comes back when the user interrupts.
    pub async fn interrupted(&self) {
        let mut heard = self.interrupted.subscribe();
        // The sender lives as long as we do.
        let _ = heard.wait_for(|interrupted| *interrupted).await;
    }

    /// What has not ended.
    #[must_use]
    pub fn unfinished(&self) -> Unfinished {
        let state = self.state();
        let at_work = |host: &HostName| Some((host.clone(), Arc::clone(state.at_work.get(host)?)));
        let open =
            |host: &&HostName| !state.ended.contains_key(host) && !state.at_work.contains_key(host);
        Unfinished {
            at_work: self.hosts.iter().filter_map(at_work).collect(),
            not_begun: self.hosts.iter().filter(open).cloned().collect(),
        }
    }
}

/// Why hosts are not begun after Ctrl-C.
pub const INTERRUPTED: &str = "the run was interrupted";

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(limit: Option<f64>, on_failure: OnFailure) -> (Gate, Vec<HostName>) {
        let hosts: Vec<HostName> = (0..4).map(|n| HostName::from(format!("h{n}"))).collect();
        let limits = Limits {
            max_fail_percentage: limit,
            on_failure,
        };
        (Gate::new(hosts.clone(), limits), hosts)
    }

    fn begin(gate: &Gate, host: &HostName) -> Result<(), String> {
        gate.begin(host, &Arc::default())
    }

    #[test]
    fn the_limit_is_of_all_hosts_and_counts_the_unreachable() {
        let (gate, hosts) = gate(Some(25.0), OnFailure::RollbackHost);
        gate.end(&hosts[0], Outcome::Unreachable);
        assert_eq!(begin(&gate, &hosts[1]), Ok(()));
        gate.end(&hosts[1], Outcome::RolledBack);
        assert_eq!(
            begin(&gate, &hosts[2]),
            Err("2 of 4 hosts failed, and max_fail_percentage allows 25 %".to_owned())
        );
    }

    #[test]
    fn without_a_limit_others_go_on_unless_told_to_stop() {
        for (on_failure, goes_on) in [
            (OnFailure::RollbackHost, true),
            (OnFailure::Stop, false),
            (OnFailure::RollbackRun, false),
        ] {
            let (gate, hosts) = gate(None, on_failure);
            gate.end(&hosts[0], Outcome::Failed);
            assert_eq!(begin(&gate, &hosts[1]).is_ok(), goes_on, "{on_failure:?}");
        }
    }

    #[test]
    fn a_whole_run_is_taken_back_where_hosts_were_changed() {
        let (gate, hosts) = gate(None, OnFailure::RollbackRun);
        gate.end(&hosts[0], Outcome::Changed);
        gate.end(&hosts[1], Outcome::Ok);
        assert_eq!(gate.to_take_back(), None);
        gate.end(&hosts[2], Outcome::RolledBack);
        gate.end(&hosts[3], Outcome::Unconfirmed);
        let (first, back) = gate.to_take_back().expect("one failed");
        assert_eq!(first, hosts[2]);
        assert_eq!(back, [hosts[0].clone(), hosts[3].clone()]);
    }

    #[test]
    fn the_user_stops_what_is_not_begun_and_keeps_what_is() {
        let (gate, hosts) = gate(None, OnFailure::RollbackHost);
        assert_eq!(begin(&gate, &hosts[0]), Ok(()));
        assert_eq!(begin(&gate, &hosts[1]), Ok(()));
        gate.end(&hosts[1], Outcome::Changed);
        assert_eq!(gate.interrupt(), 1);
        assert_eq!(begin(&gate, &hosts[2]), Err(INTERRUPTED.to_owned()));
        let left = gate.unfinished();
        assert_eq!(left.at_work.len(), 1);
        assert_eq!(left.at_work[0].0, hosts[0]);
        assert_eq!(left.not_begun, hosts[2..]);
    }
}
