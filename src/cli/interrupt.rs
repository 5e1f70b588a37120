//! Ctrl-C and SIGTERM: heard once for the whole program, and answered by whoever
//! attends to them. Where nobody does, they end the program.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// The user's signals.
#[derive(Debug, Clone)]
pub struct Interrupts {
    signals: Signals,
    attended: Arc<AtomicBool>,
    /// How many signals were somebody's affair until that one had ended.
    settled: Arc<AtomicU32>,
}

impl Interrupts {
    /// Listens from now on.
    ///
    /// # Errors
    /// The system does not let us.
    pub fn listen() -> io::Result<Self> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let (count, heard) = watch::channel(0);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                count.send_modify(|count| *count += 1);
            }
        });
        Ok(Self {
            signals: Signals { heard, answered: 0 },
            attended: Arc::default(),
            settled: Arc::default(),
        })
    }

    /// Signals that a test gives, one by adding one.
    #[cfg(test)]
    pub(super) fn by_hand() -> (Self, watch::Sender<u32>) {
        let (count, heard) = watch::channel(0);
        let interrupts = Self {
            signals: Signals { heard, answered: 0 },
            attended: Arc::default(),
            settled: Arc::default(),
        };
        (interrupts, count)
    }

    /// Comes back at the first signal that nobody attends to.
    pub async fn unattended(&mut self) {
        loop {
            self.signals.next().await;
            // We may come to a signal only when whoever attended to it has ended.
            let attended = self.attended.load(Ordering::SeqCst);
            if !attended && self.signals.answered > self.settled.load(Ordering::SeqCst) {
                return;
            }
        }
    }

    /// From now on, and until the result is dropped, signals are its owner's affair.
    #[must_use]
    pub fn attend(&self) -> Attention {
        let mut signals = self.signals.clone();
        signals.answered = *signals.heard.borrow();
        self.attended.store(true, Ordering::SeqCst);
        Attention {
            signals,
            attended: Arc::clone(&self.attended),
            settled: Arc::clone(&self.settled),
        }
    }
}

/// Somebody who answers the user's signals.
#[derive(Debug)]
pub struct Attention {
    signals: Signals,
    attended: Arc<AtomicBool>,
    settled: Arc<AtomicU32>,
}

impl Attention {
    /// Waits for the next signal.
    pub async fn next(&mut self) {
        self.signals.next().await;
    }
}

impl Drop for Attention {
    fn drop(&mut self) {
        let heard = *self.signals.heard.borrow();
        self.settled.store(heard, Ordering::SeqCst);
        self.attended.store(false, Ordering::SeqCst);
    }
}

/// The signals so far, and how many of them one listener has answered: two that come
/// close together are two.
#[derive(Debug, Clone)]
struct Signals {
    heard: watch::Receiver<u32>,
    answered: u32,
}

impl Signals {
    async fn next(&mut self) {
        let answered = self.answered;
        if self
            .heard
            .wait_for(|count| *count > answered)
            .await
            .is_err()
        {
            // Nobody listens for signals any more, so none will come.
            std::future::pending::<()>().await;
        }
        self.answered += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_signal_that_somebody_had_does_not_end_the_program_afterwards() {
        let (mut interrupts, count) = Interrupts::by_hand();
        let mut attention = interrupts.attend();
        count.send_replace(1);
        attention.next().await;
        drop(attention);
        let late = tokio::time::timeout(std::time::Duration::ZERO, interrupts.unattended());
        assert!(late.await.is_err(), "it was answered");
        count.send_replace(2);
        interrupts.unattended().await;
    }
}
