//! Ctrl-C and SIGTERM: heard once for the whole program, and answered by whoever
//! attends to them. Where nobody does, they end the program.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// The user's signals.
#[derive(Debug, Clone)]
pub struct Interrupts {
    signals: Signals,
    attended: Arc<AtomicBool>,
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
        })
    }

    /// Signals that a test gives, one by adding one.
    #[cfg(test)]
    pub(super) fn by_hand() -> (Self, watch::Sender<u32>) {
        let (count, heard) = watch::channel(0);
        let interrupts = Self {
            signals: Signals { heard, answered: 0 },
            attended: Arc::default(),
        };
        (interrupts, count)
    }

    /// Comes back at the first signal that nobody attends to.
    pub async fn unattended(&mut self) {
        loop {
            self.signals.next().await;
            if !self.attended.load(Ordering::SeqCst) {
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
        }
    }
}

/// Somebody who answers the user's signals.
#[derive(Debug)]
pub struct Attention {
    signals: Signals,
    attended: Arc<AtomicBool>,
}

impl Attention {
    /// Waits for the next signal.
    pub async fn next(&mut self) {
        self.signals.next().await;
    }
}

impl Drop for Attention {
    fn drop(&mut self) {
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
