//! `deploy plan show`: a saved plan once more, as `--check` has told it.

use std::sync::Arc;

use super::disk;
use crate::cli::Failure;
use crate::cli::args::PlanShowArgs;
use crate::cli::fleet_verbs::reporter;
use crate::event::{Event, HostProblem, Outcome};
use crate::plan::HostPlan;
use crate::report::Plans;
use crate::report::exit::{CheckMode, Exit};
use crate::saved::{End, SavedHost, SavedPlan};
use crate::text::moment;
use crate::value::HostName;

/// Prints a saved plan. Nothing is connected to.
///
/// # Errors
/// The file cannot be read or is no plan.
pub fn run(args: &PlanShowArgs) -> Result<Exit, Failure> {
    let (plan, _) = disk::read(&args.file)?;
    let mut reporter = reporter(&args.output, CheckMode::On, Plans::Together);
    for event in events(&plan) {
        reporter.event(&event);
    }
    Ok(reporter.finish_shown())
}

/// What was told when the plan was made.
fn events(plan: &SavedPlan) -> Vec<Event> {
    let mut events = vec![Event::Note {
        host: None,
        text: format!(
            "plan {} made by {} from {} at {}",
            plan.id,
            plan.who,
            plan.from,
            moment(plan.created)
        ),
    }];
    let plans: Vec<(HostName, Arc<HostPlan>)> = plan
        .hosts
        .iter()
        .filter_map(|host| {
            let plan = Arc::new(host.work.as_ref()?.plan.clone());
            Some((HostName::from(&host.name), plan))
        })
        .collect();
    for (host, plan) in &plans {
        events.push(Event::Planned {
            host: host.clone(),
            plan: Arc::clone(plan),
        });
    }
    events.push(Event::Plans(plans));
    events.extend(plan.hosts.iter().map(end));
    events
}

fn end(host: &SavedHost) -> Event {
    let problem = (!host.problem.is_empty()).then(|| HostProblem::Failed {
        step: None,
        chain: host.problem.clone(),
        hint: None,
    });
    Event::HostEnd {
        host: HostName::from(&host.name),
        outcome: match host.end {
            End::Changed => Outcome::Changed,
            End::Ok => Outcome::Ok,
            End::Failed => Outcome::Failed,
            End::Unreachable => Outcome::Unreachable,
        },
        problem,
    }
}
