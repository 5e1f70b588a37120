//! Connects to one host and reads what it is: one batch, which rides on the
//! connection's first request and brings back what the last run left to be
//! remembered as well.

use std::future::Future;
use std::sync::Arc;

use crate::apply;
use crate::catalog::Catalog;
use crate::cli::hosts::Hosts;
use crate::desired::Discovery;
use crate::discover;
use crate::event::HostProblem;
use crate::facts::HostFacts;
use crate::plan;
use crate::transport::{
    self, Boxed, Probe, Read, Reply, Session, Target, Unreachable, UnreachableReason,
};
use crate::value::HostName;

/// A connected host.
pub struct Reached {
    /// Its connection.
    pub session: Box<dyn Session>,
    /// What was seen.
    pub facts: Arc<HostFacts>,
    /// All reads so far with their answers.
    pub answers: Vec<(Read, Reply)>,
}

/// A host that can only be looked at, by type: no change can be made through it.
pub struct Looked {
    /// Its connection.
    pub probe: Box<dyn Probe>,
    /// What was seen.
    pub facts: Arc<HostFacts>,
    /// All reads so far with their answers.
    pub answers: Vec<(Read, Reply)>,
}

/// A connection to a host with what it was read for: one that may change the host, or one that
/// can only look at it. Who asks for the one has no way to the other.
pub trait Way: Send + Sized + 'static {
    /// Connects and discovers, with more to be read in the first batch.
    ///
    /// # Errors
    /// The host cannot be reached, or our shell not be started there.
    fn open(
        hosts: &Hosts,
        host: &HostName,
        catalog: &Catalog,
        more: &[Read],
    ) -> impl Future<Output = Result<Self, HostProblem>> + Send;

    /// What was seen.
    fn facts(&self) -> &Arc<HostFacts>;

    /// Ends the connection.
    fn leave(self) -> impl Future<Output = ()> + Send;
}

impl Way for Reached {
    async fn open(
        hosts: &Hosts,
        host: &HostName,
        catalog: &Catalog,
        more: &[Read],
    ) -> Result<Self, HostProblem> {
        let first = First::of(hosts, host, catalog, more)?;
        let connected = transport::connect(first.target, &hosts.context, &first.reads)
            .await
            .map_err(HostProblem::Unreachable)?;
        let (facts, answers) = first.answered(connected.first, catalog);
        Ok(Self {
            session: connected.session,
            facts,
            answers,
        })
    }

    fn facts(&self) -> &Arc<HostFacts> {
        &self.facts
    }

    async fn leave(self) {
        self.session.close().await;
    }
}

impl Way for Looked {
    async fn open(
        hosts: &Hosts,
        host: &HostName,
        catalog: &Catalog,
        more: &[Read],
    ) -> Result<Self, HostProblem> {
        let first = First::of(hosts, host, catalog, more)?;
        let seen = transport::look(first.target, &hosts.context, &first.reads)
            .await
            .map_err(HostProblem::Unreachable)?;
        let (facts, answers) = first.answered(seen.first, catalog);
        Ok(Self {
            probe: seen.probe,
            facts,
            answers,
        })
    }

    fn facts(&self) -> &Arc<HostFacts> {
        &self.facts
    }

    async fn leave(self) {}
}

/// The first batch of a host.
struct First<'a> {
    target: &'a Target,
    discovery: Discovery,
    reads: Vec<Read>,
}

impl<'a> First<'a> {
    fn of(
        hosts: &'a Hosts,
        host: &HostName,
        catalog: &Catalog,
        more: &[Read],
    ) -> Result<Self, HostProblem> {
        let target = target(hosts, host)?;
        let discovery = match hosts.desired.get(host) {
            Some(desired) => desired.discovery.clone(),
            None => return Err(failed(format!("`{host}` has no variables"))),
        };
        let mut reads = discover::reads(&discovery, catalog);
        reads.push(Read::Remembered);
        reads.extend(plan::reads());
        reads.push(apply::standing::open_read());
        reads.extend_from_slice(more);
        Ok(Self {
            target,
            discovery,
            reads,
        })
    }

    fn answered(
        self,
        replies: Vec<Reply>,
        catalog: &Catalog,
    ) -> (Arc<HostFacts>, Vec<(Read, Reply)>) {
        let facts = discover::facts(&self.reads, &replies, catalog, &self.discovery);
        (
            Arc::new(facts),
            self.reads.into_iter().zip(replies).collect(),
        )
    }
}

/// Connects and discovers.
///
/// # Errors
/// The host cannot be reached, or our shell not be started there.
pub async fn reach(
    hosts: &Hosts,
    host: &HostName,
    catalog: &Catalog,
) -> Result<Reached, HostProblem> {
    Reached::open(hosts, host, catalog, &[]).await
}

/// Connects and reads nothing yet.
///
/// # Errors
/// The host cannot be reached, or our shell not be started there.
pub async fn connect(hosts: &Hosts, host: &HostName) -> Result<Box<dyn Session>, HostProblem> {
    let target = target(hosts, host)?;
    let connected = transport::connect(target, &hosts.context, &[])
        .await
        .map_err(HostProblem::Unreachable)?;
    Ok(connected.session)
}

/// The way to a host that was reached before: through a new connection.
pub struct Again<'a> {
    hosts: &'a Hosts,
    host: &'a HostName,
}

impl<'a> Again<'a> {
    /// The way to this host.
    #[must_use]
    pub fn new(hosts: &'a Hosts, host: &'a HostName) -> Self {
        Self { hosts, host }
    }
}

impl apply::Connect for Again<'_> {
    fn connect(&self) -> Boxed<'_, Result<Box<dyn Session + '_>, Unreachable>> {
        Box::pin(async move {
            match connect(self.hosts, self.host).await {
                Ok(session) => Ok(session as Box<dyn Session>),
                Err(HostProblem::Unreachable(why)) => Err(why),
                Err(_) => Err(Unreachable {
                    reason: UnreachableReason::Down,
                    message: format!("it is not known how to reach `{}`", self.host),
                    hint: None,
                }),
            }
        })
    }
}

fn target<'a>(hosts: &'a Hosts, host: &HostName) -> Result<&'a Target, HostProblem> {
    hosts
        .targets
        .get(host)
        .map(AsRef::as_ref)
        .ok_or_else(|| failed(format!("it is not known how to reach `{host}`")))
}

/// A failure with one sentence.
#[must_use]
pub fn failed(message: String) -> HostProblem {
    HostProblem::Failed {
        step: None,
        chain: vec![message],
        hint: None,
    }
}

/// Who runs us, for the run's record.
#[must_use]
pub fn who() -> String {
    std::env::var("USER")
        .or_else(|_| std::env::var("LOGNAME"))
        .unwrap_or_else(|_| format!("uid {}", rustix::process::getuid().as_raw()))
}

/// Both, as a host's journal says it.
#[must_use]
pub fn who_from() -> String {
    format!("{} from {}", who(), from())
}

/// Where we run, for the run's record.
#[must_use]
pub fn from() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}
