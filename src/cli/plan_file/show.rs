//! `deploy plan show`: a saved plan once more, as `--check` has told it.

use std::sync::Arc;

use super::disk;
use crate::cli::Failure;
use crate::cli::args::PlanShowArgs;
use crate::cli::fleet_verbs::plan_reporter;
use crate::event::{Event, HostProblem, Outcome};
use crate::plan::HostPlan;
use crate::report::Plans;
use crate::report::exit::{CheckMode, Exit};
use crate::report::review::Review;
use crate::saved::{End, SavedHost, SavedPlan};
use crate::text::moment;
use crate::value::HostName;

/// Prints a saved plan. Nothing is connected to.
///
/// # Errors
/// The file cannot be read or is no plan.
pub fn run(args: &PlanShowArgs) -> Result<Exit, Failure> {
    let (plan, _) = disk::read(&args.file)?;
    let reporter = plan_reporter(&args.output, CheckMode::On, Plans::Together);
    let mut reporter = reporter.reviewing(review(&plan));
    for event in events(&plan) {
        reporter.event(&event);
    }
    Ok(reporter.finish_shown())
}

/// The hosts in the plan's order, with their cards.
fn review(plan: &SavedPlan) -> Review {
    let names: Vec<HostName> = plan
        .hosts
        .iter()
        .map(|host| host.name.as_str().into())
        .collect();
    let mut review = Review::of_hosts(&names);
    review.source = source(plan);
    for (name, host) in names.iter().zip(&plan.hosts) {
        review.host(name).cards = host.cards.clone();
    }
    review
}

fn source(plan: &SavedPlan) -> String {
    let made = moment(plan.created);
    let SavedPlan { id, who, from, .. } = plan;
    format!("plan {id} made by {who} from {from} at {made}")
}

/// What was told when the plan was made.
fn events(plan: &SavedPlan) -> Vec<Event> {
    let mut events = vec![Event::Note {
        host: None,
        text: source(plan),
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
