//! One job on many hosts at once: as many as `--forks` says, in the order of the
//! inventory, and none waits for a slow one.
//!
//! Knows nothing of what the job does.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::value::HostName;

/// Runs `job` for each host, at most `forks` at a time, and hands each result to
/// `done` as soon as it is there, so in the order in which hosts finish. A job
/// that panics hands over `None`.
///
/// The jobs run as tasks of their own: none can hold up another's connection.
pub async fn each<T, F, Fut>(
    hosts: Vec<HostName>,
    forks: usize,
    mut job: F,
    mut done: impl FnMut(HostName, Option<T>),
) where
    T: Send + 'static,
    F: FnMut(HostName) -> Fut,
    Fut: Future<Output = T> + Send + 'static,
{
    let permits = Arc::new(Semaphore::new(forks.max(1)));
    let mut running = JoinSet::new();
    let mut names = std::collections::HashMap::new();
    for host in hosts {
        let permits = Arc::clone(&permits);
        let work = job(host.clone());
        let handle = running.spawn(async move {
            let _permit = permits.acquire_owned().await;
            work.await
        });
        names.insert(handle.id(), host);
    }
    while let Some(ended) = running.join_next_with_id().await {
        let (id, result) = match ended {
            Ok((id, result)) => (id, Some(result)),
            Err(error) => (error.id(), None),
        };
        if let Some(host) = names.remove(&id) {
            done(host, result);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn hosts(count: usize) -> Vec<HostName> {
        (0..count)
            .map(|n| HostName::from(format!("h{n}")))
            .collect()
    }

    #[tokio::test]
    async fn a_host_that_never_answers_holds_nobody_up() {
        let (first, gate) = tokio::sync::oneshot::channel::<()>();
        let gate = Arc::new(tokio::sync::Mutex::new(Some(gate)));
        let mut first = Some(first);
        let mut seen = Vec::new();
        each(
            hosts(5),
            2,
            |host| {
                let gate = Arc::clone(&gate);
                async move {
                    if host.as_str() == "h0" {
                        let gate = gate.lock().await.take().expect("taken once");
                        let _ = gate.await;
                    }
                }
            },
            |host, _| {
                seen.push(host.as_str().to_owned());
                // h0 is let go only after the four others are done.
                if seen.len() == 4 {
                    let _ = first.take().expect("sent once").send(());
                }
            },
        )
        .await;
        assert_eq!(seen, ["h1", "h2", "h3", "h4", "h0"]);
    }

    #[tokio::test]
    async fn no_more_than_forks_run_at_once() {
        let running = Arc::new(AtomicUsize::new(0));
        let most = Arc::new(AtomicUsize::new(0));
        each(
            hosts(20),
            3,
            |_| {
                let (running, most) = (Arc::clone(&running), Arc::clone(&most));
                async move {
                    let now = running.fetch_add(1, Ordering::SeqCst) + 1;
                    most.fetch_max(now, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                    running.fetch_sub(1, Ordering::SeqCst);
                }
            },
            |_, _| {},
        )
        .await;
        assert!((1..=3).contains(&most.load(Ordering::SeqCst)));
    }

    #[tokio::test]
    async fn a_panic_is_told_as_such() {
        let mut ends = Vec::new();
        each(
            hosts(2),
            2,
            |host| async move {
                assert!(host.as_str() != "h0", "on purpose");
            },
            |host, result| ends.push((host.as_str().to_owned(), result.is_some())),
        )
        .await;
        ends.sort();
        assert_eq!(ends, [("h0".to_owned(), false), ("h1".to_owned(), true)]);
    }
}
