//! Connects to one host and reads what it is: one batch, which rides on the
//! connection's first request and brings back what the last run left to be
//! remembered as well.

use std::sync::Arc;

use crate::catalog::Catalog;
use crate::desired::Discovery;
use crate::discover;
use crate::facts::HostFacts;
use crate::transport::{self, Context, Read, Reply, Session, Target, Unreachable};

/// A connected host.
pub struct Reached {
    /// Its connection.
    pub session: Box<dyn Session>,
    /// What was seen.
    pub facts: Arc<HostFacts>,
    /// All reads so far with their answers.
    pub answers: Vec<(Read, Reply)>,
}

/// Connects and reads.
///
/// # Errors
/// The host cannot be reached, or our shell not be started there.
pub async fn reach(
    target: &Target,
    context: &Context,
    catalog: &Catalog,
    discovery: &Discovery,
) -> Result<Reached, Unreachable> {
    let mut reads = discover::reads(discovery);
    reads.push(Read::Remembered);
    let connected = transport::connect(target, context, &reads).await?;
    let facts = discover::facts(&reads, &connected.first, catalog, discovery);
    Ok(Reached {
        session: connected.session,
        facts: Arc::new(facts),
        answers: reads.into_iter().zip(connected.first).collect(),
    })
}
